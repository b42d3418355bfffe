package main

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// socksdPort is the port of socksd, on the proxy's address towards the client.
const socksdPort = "1080"

// endingLine is the last line of a connection in the log.
var endingLine = regexp.MustCompile(`connection (\d+) (?:closed|refused): `)

// socksd is the program, running on the proxy of a lab.
type socksd struct {
	*exec.Cmd
	lab  *lab
	addr string
	log  logBuffer
}

// self returns the path of this test binary, which can run socksd.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	require.NoError(t, err)
	return path
}

// build builds socksd as it is shipped, for measurements: without -race.
func build(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "socksd")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return path
}

// socksd starts the program. At the end of the test it sends SIGTERM, at which the program
// must end without an error.
func (l *lab) socksd(t *testing.T, program string, args ...string) *socksd {
	t.Helper()
	return l.socksdOn(t, program, net.JoinHostPort(proxyAddress, socksdPort), args...)
}

func (l *lab) socksdOn(t *testing.T, program, addr string, args ...string) *socksd {
	t.Helper()
	s := &socksd{lab: l, addr: addr}
	s.Cmd = l.command(t, proxyHost, program, append([]string{"--listen", addr}, args...)...)
	s.Env = append(os.Environ(), asSocksd+"=1")
	s.Stderr = &s.log
	start(t, s.Cmd)
	t.Cleanup(func() {
		assert.NoError(t, s.Process.Signal(syscall.SIGTERM))
		kill := time.AfterFunc(patience, func() { s.Process.Kill() })
		defer kill.Stop()
		assert.NoError(t, s.Wait(), "the end of socksd")
		ended := map[string]string{}
		for line := range strings.Lines(s.log.String()) {
			if m := endingLine.FindStringSubmatch(line); m != nil {
				assert.Empty(t, ended[m[1]], "connection %s ended twice: %s", m[1], line)
				ended[m[1]] = line
			}
		}
		if said := s.log.String(); t.Failed() {
			t.Logf("socksd said:\n%s", said)
		} else {
			assert.NotContains(t, said, "DATA RACE")
		}
	})
	s.awaitLog(t, "accepting on "+addr)
	return s
}

// awaitLog waits for a line of the log that has all the parts, and returns it.
func (s *socksd) awaitLog(t *testing.T, parts ...string) string {
	t.Helper()
	var found string
	require.Eventually(t, func() bool {
		for line := range strings.Lines(s.log.String()) {
			all := true
			for _, p := range parts {
				all = all && strings.Contains(line, p)
			}
			if all {
				found = line
				return true
			}
		}
		return false
	}, patience, 5*time.Millisecond, "no line with %q in the log", parts)
	return found
}

// descriptors returns how many descriptors the process has, and how many of them are TCP
// sockets. Pipes are not counted, but checked against their bound: package socks keeps those
// that it needed for splice(2).
func (s *socksd) descriptors(t *testing.T) (all, tcp int) {
	t.Helper()
	table, err := os.ReadFile(s.proc("net/tcp")) // of the process's namespace
	require.NoError(t, err)
	pipes, inTable := 0, map[string]bool{}
	for line := range strings.Lines(string(table)) {
		inTable["socket:["+strings.Fields(line)[9]+"]"] = true
	}
	dir := s.proc("fd")
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		// A descriptor that has been closed meanwhile has no link.
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			switch {
			case strings.HasPrefix(to, "pipe:"):
				pipes++
				continue
			case inTable[to]:
				tcp++
			}
			all++
		}
	}
	const standardError, pipesAtMost = 1, 4
	require.LessOrEqual(t, pipes, standardError+2*pipesAtMost, "descriptors of pipes")
	return all, tcp
}

func (s *socksd) proc(file string) string {
	return filepath.Join("/proc", strconv.Itoa(s.Process.Pid), file)
}

// awaitQuiet waits until no connection is left.
func (s *socksd) awaitQuiet(t *testing.T) {
	t.Helper()
	s.awaitConnections(t, 0)
}

// awaitConnections waits until that many connections are left, with two sockets each.
func (s *socksd) awaitConnections(t *testing.T, n int) {
	t.Helper()
	const listener = 1
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		_, tcp := s.descriptors(t)
		assert.Equal(c, listener+2*n, tcp, "TCP sockets of socksd")
	}, patience, 5*time.Millisecond)
}

// awaitDescriptors waits until the process has no more descriptors than before.
func (s *socksd) awaitDescriptors(t *testing.T, before int) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		all, _ := s.descriptors(t)
		assert.LessOrEqual(c, all, before, "descriptors of socksd")
	}, patience, 5*time.Millisecond)
}

// ticksPerSecond is the unit of /proc/PID/stat, USER_HZ.
const ticksPerSecond = 100

// cpu returns the processor time that the process has used.
func (s *socksd) cpu(t *testing.T) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(s.proc("stat"))
	require.NoError(t, err)
	// Fields are counted after the name, which may contain anything.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	var ticks int
	for _, f := range fields[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		require.NoError(t, err)
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond
}

// memory returns the proportional set size in kB.
func (s *socksd) memory(t *testing.T) int {
	t.Helper()
	rollup, err := os.ReadFile(s.proc("smaps_rollup"))
	require.NoError(t, err)
	for line := range strings.Lines(string(rollup)) {
		if f := strings.Fields(line); f[0] == "Pss:" {
			kB, err := strconv.Atoi(f[1])
			require.NoError(t, err)
			return kB
		}
	}
	require.Fail(t, "no Pss", "%s", rollup)
	return 0
}

// works checks that a client is served: it must get back what it sends to echo.
func (s *socksd) works(t *testing.T, echo *net.TCPListener) {
	t.Helper()
	near := s.lab.peer(t, clientHost, "", s.addr)
	near.send(ask(commandConnect, echo.Addr().String(), "works") + "early")
	near.granted()
	require.Equal(t, "early", near.receive(5))
	require.NoError(t, near.Close())
}

// echo returns a listener on the server whose connections get back what they send, until they
// end.
func (l *lab) echo(t *testing.T, addr string) *net.TCPListener {
	t.Helper()
	listener := l.listen(t, serverHost, addr)
	go serveEcho(listener)
	return listener
}

// serveEcho sends back what it gets, until the listener is closed.
func serveEcho(l *net.TCPListener) {
	for {
		c, err := l.AcceptTCP()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b := bufio.NewReaderSize(c, 4<<10)
			if _, err := b.WriteTo(c); err == nil {
				c.CloseWrite()
			}
		}()
	}
}

func ports(l net.Listener) string { return fmt.Sprint(l.Addr().(*net.TCPAddr).Port) }
