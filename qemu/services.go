package main

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/board"
)

// fileSize is that of the file that the manual's example fetches: its RX.
const fileSize = 3231744

// fileName is what the servers serve it as.
const fileName = "image.iso"

//go:embed lab.rsc
var labConfiguration string

// manualConfiguration is that of the manual's example on a board.
func manualConfiguration(b board.Board) string {
	return strings.NewReplacer("ether1", b.WAN, "ether2", b.LAN).Replace(labConfiguration)
}

// site is what stands at 10.5.8.8: an FTP server and a web server with one file,
// and a folder that takes uploads.
type site struct {
	network network
	dir     string
	file    []byte
	ftp     *exec.Cmd
	http    *exec.Cmd
	httpLog *logBuffer
}

// startSite starts the servers, their files below dir.
func startSite(n network, dir string) (*site, error) {
	s := &site{network: n, dir: dir, file: make([]byte, fileSize), httpLog: &logBuffer{}}
	if _, err := rand.Read(s.file); err != nil {
		return nil, err
	}
	root, upload, empty := filepath.Join(dir, "ftp"), s.uploadDir(), filepath.Join(dir, "empty")
	for _, d := range []string{root, upload, empty} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	// vsftpd serves as the user ftp of its Debian package, who must be able to get here.
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.Chmod(upload, 0o777); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(root, fileName), s.file, 0o644); err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "vsftpd.conf")
	if err := os.WriteFile(config, fmt.Appendf(nil, `listen=YES
background=NO
anonymous_enable=YES
anon_root=%s
no_anon_password=YES
write_enable=YES
anon_upload_enable=YES
anon_umask=022
connect_from_port_20=YES
nopriv_user=nobody
secure_chroot_dir=%s
seccomp_sandbox=NO
xferlog_enable=YES
vsftpd_log_file=%s
`, root, empty, filepath.Join(dir, "vsftpd.log")), 0o644); err != nil {
		return nil, err
	}
	s.ftp = n.command(serverOfSite, "vsftpd", config)
	s.http = n.command(serverOfSite, "busybox", "httpd", "-f", "-vv", "-p", "80", "-h", root)
	s.http.Stderr = s.httpLog
	for _, c := range []*exec.Cmd{s.ftp, s.http} {
		if err := c.Start(); err != nil {
			s.close()
			return nil, fmt.Errorf("start %s: %w", strings.Join(c.Args, " "), err)
		}
	}
	// Both listen when the client's gateway can reach them.
	for _, port := range []string{"21", "80"} {
		if err := retry(func() error {
			conn, err := n.dial(gateway, serverAddress+":"+port, patience)
			if err != nil {
				return err
			}
			return conn.Close()
		}); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

// askedFrom waits until the web server's last line is of a request from address: what a server prints
// comes by a pipe, and may be read after its answer.
func (s *site) askedFrom(address string) error {
	from := regexp.MustCompile(`\b` + regexp.QuoteMeta(address) + `\]?:`) // and a port
	return retry(func() error {
		if line := lastLine(s.httpLog.String()); !from.MatchString(line) {
			return fmt.Errorf("the web server was not asked from %s; its last line: %q", address, line)
		}
		return nil
	})
}

func (s *site) uploadDir() string { return filepath.Join(s.dir, "ftp", "incoming") }

func (s *site) close() {
	kill(s.ftp)
	kill(s.http)
}

// retry calls f until it succeeds, or fails after all patience.
func retry(f func() error) error {
	deadline := time.Now().Add(patience)
	for {
		// Looked at before f: if this process stood still meanwhile, f has another go.
		late := time.Now().After(deadline)
		err := f()
		if err == nil {
			return nil
		}
		if late {
			return fmt.Errorf("not in %v: %w", patience, err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// logBuffer collects what a program writes while others read it.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
