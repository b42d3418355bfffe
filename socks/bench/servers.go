package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/postern-router/postern/internal/testnet"
)

// connectionsHeld is how many connections the memory measures open: the most that socksd
// allows.
const connectionsHeld = 500

// loopback is the address from which clients and servers connect.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// The arguments with which this program starts itself as one of its parts.
const (
	targetCommand = "target"
	ioCopyCommand = "io.Copy"
)

// The servers, each with the version of SOCKS that it is spoken to in.
const (
	direct           = "direct"
	postern4         = "postern 4"
	postern5         = "postern 5"
	postern5Password = "postern 5 password"
	baseline4        = "baseline 4"
	ioCopy4          = "io.Copy 4"
	dante4           = "dante 4"
	dante5           = "dante 5"
	microsocks5      = "microsocks 5"
	ssh4             = "ssh -D 4"
)

// kind is a server that can be measured.
type kind struct {
	name string
	dialect
	// start starts the programs of the server, in a folder of its own, to listen on addr. It
	// is nil if there is no proxy.
	start func(ctx context.Context, dir string, addr netip.AddrPort) ([]*program, error)
}

// kinds returns all servers, in the order of the table. There is a baseline only if it has a
// file.
func kinds(socksd, baseline string) []kind {
	four, five := dialect{version: 4}, dialect{version: 5}
	all := []kind{
		{direct, dialect{}, nil},
		{postern4, four, startSocksd(socksd)},
		{postern5, five, startSocksd(socksd, "--socks-version", "5")},
		{postern5Password, dialect{version: 5, password: true}, func(ctx context.Context, dir string, addr netip.AddrPort) ([]*program, error) {
			users, err := writeUsers(ctx, socksd, dir)
			if err != nil {
				return nil, err
			}
			return startSocksd(socksd, "--socks-version", "5", "--auth-method", "password", "--users", users)(ctx, dir, addr)
		}},
		{baseline4, four, startSocksd(baseline)},
		{ioCopy4, four, func(_ context.Context, dir string, addr netip.AddrPort) ([]*program, error) {
			return programs(startIOCopy(dir, addr))
		}},
		{dante4, four, startDante},
		{dante5, five, startDante},
		{microsocks5, five, func(_ context.Context, dir string, addr netip.AddrPort) ([]*program, error) {
			file, err := lookUp("/usr/bin/microsocks", "microsocks")
			if err != nil {
				return nil, err
			}
			return programs(startProgram(dir, file, "-i", addr.Addr().String(), "-p", strconv.Itoa(int(addr.Port()))))
		}},
		{ssh4, four, startSSH},
	}
	if baseline == "" {
		all = slices.DeleteFunc(all, func(k kind) bool { return k.name == baseline4 })
	}
	return all
}

// startSocksd returns what starts a file of socksd with more arguments.
func startSocksd(file string, args ...string) func(context.Context, string, netip.AddrPort) ([]*program, error) {
	return func(_ context.Context, dir string, addr netip.AddrPort) ([]*program, error) {
		return programs(startProgram(dir, file, slices.Concat([]string{"--listen", addr.String(), "--user", "root",
			"--allow-own-addresses", "--max-connections", strconv.Itoa(connectionsHeld), "--idle-timeout", "10m"}, args)...))
	}
}

// writeUsers has socksd make a file with the one user, and returns its name.
func writeUsers(ctx context.Context, socksd, dir string) (string, error) {
	cmd := exec.CommandContext(ctx, socksd, "passwd", userName)
	cmd.Stdin = strings.NewReader(userPassword + "\n")
	line, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("socksd passwd: %w", err)
	}
	file := filepath.Join(dir, "users")
	return file, os.WriteFile(file, line, 0o600)
}

func names(kinds []kind) []string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

// server is a running server.
type server struct {
	kind
	addr     netip.AddrPort
	programs []*program
}

// start starts a server and waits until it accepts connections.
func start(ctx context.Context, dir string, k kind) (*server, error) {
	s := &server{kind: k}
	if k.start == nil {
		return s, nil
	}
	// A name with a space would have to be quoted in sshd's configuration.
	sub, err := os.MkdirTemp(dir, "server-")
	if err != nil {
		return nil, err
	}
	if s.addr, err = freePort(); err != nil {
		return nil, err
	}
	if s.programs, err = k.start(ctx, sub, netip.AddrPortFrom(netip.IPv4Unspecified(), s.addr.Port())); err != nil {
		return nil, err
	}
	if err := accepts(ctx, s.addr, s.programs...); err != nil {
		s.stop()
		return nil, fmt.Errorf("%w%s", err, s.said())
	}
	return s, nil
}

// stop ends the programs in the reverse order of their start.
func (s *server) stop() {
	for _, p := range slices.Backward(s.programs) {
		p.stop()
	}
}

// said returns what the programs logged, to be appended to an error.
func (s *server) said() string {
	var b bytes.Buffer
	for _, p := range s.programs {
		out, err := os.ReadFile(p.log)
		if err != nil {
			continue
		}
		const tail = 2000
		fmt.Fprintf(&b, "\n%s said:\n%s", p.cmd.Path, out[max(0, len(out)-tail):])
	}
	return b.String()
}

// ids returns the processes of the server.
func (s *server) ids() []int {
	var roots []int
	for _, p := range s.programs {
		roots = append(roots, p.cmd.Process.Pid)
	}
	return roots
}

// danteConfiguration lets clients on loopback connect to loopback. Dante does not change its
// user, so that the kernel keeps PDEATHSIG.
const danteConfiguration = `logoutput: stderr
internal: %s port = %d
external: %[4]s
clientmethod: none
socksmethod: none
user.privileged: %[3]s
user.unprivileged: %[3]s
client pass {
	from: 127.0.0.0/8 to: 0.0.0.0/0
}
socks pass {
	from: 127.0.0.0/8 to: 127.0.0.0/8
	protocol: tcp
	command: connect
}
`

// danteExternal is an address for the connections that Dante makes, one for each time that it is
// started. Unlike the others Dante binds them to an address and port, for which it needs one that no
// connection of that address has had within the last minute: those of the others are too many.
func danteExternal(port uint16) netip.Addr {
	return netip.AddrFrom4([4]byte{127, 1, byte(port >> 8), byte(port)})
}

func startDante(_ context.Context, dir string, addr netip.AddrPort) ([]*program, error) {
	file, err := lookUp("/usr/sbin/danted", "dante-server")
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "danted.conf")
	text := fmt.Appendf(nil, danteConfiguration, addr.Addr(), addr.Port(), me.Username, danteExternal(addr.Port()))
	if err := os.WriteFile(config, text, 0o600); err != nil {
		return nil, err
	}
	return programs(startProgram(dir, file, "-f", config, "-p", filepath.Join(dir, "pid")))
}

// sshdFolder is a folder that sshd needs.
const sshdFolder = "/run/sshd"

const sshdConfiguration = `ListenAddress %s
HostKey %s
AuthorizedKeysFile %s
PidFile none
StrictModes no
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
`

// startSSH starts an sshd, and an ssh to it that is the SOCKS server.
func startSSH(ctx context.Context, dir string, addr netip.AddrPort) ([]*program, error) {
	ssh, err := lookUp("/usr/bin/ssh", "openssh-client")
	if err != nil {
		return nil, err
	}
	sshd, err := lookUp("/usr/sbin/sshd", "openssh-server")
	if err != nil {
		return nil, err
	}
	me, err := user.Current()
	if err != nil {
		return nil, err
	}
	hostKey, userKey := filepath.Join(dir, "host_key"), filepath.Join(dir, "user_key")
	for _, key := range []string{hostKey, userKey} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("ssh-keygen: %w\n%s", err, out)
		}
	}
	sshdAddr, err := freePort()
	if err != nil {
		return nil, err
	}
	config := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(config, fmt.Appendf(nil, sshdConfiguration, sshdAddr, hostKey, userKey+".pub"), 0o600); err != nil {
		return nil, err
	}
	after := func() {}
	if err := os.Mkdir(sshdFolder, 0o755); err == nil {
		after = func() { os.Remove(sshdFolder) }
	} else if !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	daemon, err := startProgram(dir, sshd, "-D", "-e", "-f", config)
	if err != nil {
		after()
		return nil, err
	}
	daemon.after = after
	s := server{programs: []*program{daemon}}
	if err := accepts(ctx, sshdAddr, daemon); err != nil {
		defer s.stop()
		return nil, fmt.Errorf("%w%s", err, s.said())
	}
	client, err := startProgram(dir, ssh, "-F", "none", "-N", "-D", addr.String(), "-i", userKey,
		"-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes",
		"-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
		"-p", strconv.Itoa(int(sshdAddr.Port())), me.Username+"@"+sshdAddr.Addr().String())
	if err != nil {
		s.stop()
		return nil, err
	}
	return []*program{daemon, client}, nil
}

// startIOCopy starts this program as the server of serveIOCopy. It starts a copy of the
// file: pages that several processes of one file share would count for half in each.
func startIOCopy(dir string, addr netip.AddrPort) (*program, error) {
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "iocopy")
	if err := os.WriteFile(file, self, 0o700); err != nil {
		return nil, err
	}
	return startProgram(dir, file, ioCopyCommand, addr.String())
}

// serveIOCopy is the reference: a SOCKS4 server as one would write it in Go in half an hour,
// without any bounds.
func serveIOCopy(addr string) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := ioCopy(conn.(*net.TCPConn)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		}()
	}
}

// ioCopy serves a client. The end of the relaying is not an error of the server.
func ioCopy(client *net.TCPConn) error {
	request := make([]byte, 8)
	if _, err := io.ReadFull(client, request); err != nil {
		return err
	}
	if request[0] != 4 || request[1] != 1 {
		return fmt.Errorf("request % x is no CONNECT of SOCKS4", request)
	}
	for id := make([]byte, 1); ; {
		if _, err := client.Read(id); err != nil {
			return err
		}
		if id[0] == 0 {
			break
		}
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte(request[4:])), binary.BigEndian.Uint16(request[2:]))
	conn, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		_, replyErr := client.Write([]byte{0, 91, 0, 0, 0, 0, 0, 0})
		return errors.Join(err, replyErr)
	}
	defer conn.Close()
	if _, err := client.Write([]byte{0, 90, 0, 0, 0, 0, 0, 0}); err != nil {
		return err
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		io.Copy(conn, client)
		conn.CloseWrite()
	}()
	io.Copy(client, conn)
	client.CloseWrite()
	<-sent
	return nil
}

// program is a program that was started.
type program struct {
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it is no more
	after func()        // called behind the end, if not nil
}

func programs(p *program, err error) ([]*program, error) {
	if err != nil {
		return nil, err
	}
	return []*program{p}, nil
}

// lookUp returns a program's file.
func lookUp(file, debianPackage string) (string, error) {
	if _, err := exec.LookPath(file); err != nil {
		return "", fmt.Errorf("%w: install the Debian package %s", err, debianPackage)
	}
	return file, nil
}

// startProgram starts a program in a session of its own, as an init starts daemons. The
// kernel divides the processors among sessions (sched(7), autogroup): in one session with the
// many threads of the load, a server with a single thread would get least. Ctrl-C on a
// terminal does not reach it either. Its log and its files are in dir.
func startProgram(dir, file string, args ...string) (*program, error) {
	p := &program{cmd: exec.Command(file, args...), ended: make(chan struct{})}
	p.log = filepath.Join(dir, filepath.Base(file)+".log")
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", file, err)
	}
	go func() {
		defer close(p.ended)
		p.cmd.Wait()
	}()
	return p, nil
}

// stop ends a program and all its processes.
func (p *program) stop() {
	// A process that outlives its parent gets another parent.
	all, _ := tree(p.cmd.Process.Pid)
	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(2 * time.Second):
	}
	for _, found := range all {
		// If another process has the id by now, its start time is different.
		if now, err := readProcess(found.id); err == nil && now.started == found.started {
			syscall.Kill(found.id, syscall.SIGKILL)
		}
	}
	<-p.ended
	if p.after != nil {
		p.after()
	}
}

// freePort returns a port of loopback on which no process listens.
func freePort() (netip.AddrPort, error) {
	port, err := testnet.FreePort()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("find a free port: %w", err)
	}
	return netip.AddrPortFrom(loopback, port), nil
}

// accepts waits until an address accepts connections, while the programs run.
func accepts(ctx context.Context, addr netip.AddrPort, programs ...*program) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for {
		conn, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(addr))
		if err == nil {
			return conn.Close()
		}
		for _, p := range programs {
			select {
			case <-p.ended:
				return fmt.Errorf("%s ended: %v", p.cmd.Path, p.cmd.ProcessState)
			default:
			}
		}
		if waitErr := wait(ctx, 20*time.Millisecond); waitErr != nil {
			return fmt.Errorf("%s does not accept: %w", addr, err)
		}
	}
}

// wait waits for d. If the context ends before, that is an error.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
