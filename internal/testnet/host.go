package testnet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Host is a network namespace that plays one host of a test's network. Its methods may
// be called from any goroutine.
type Host struct {
	// Name is what errors call the host. Two hosts may have the same.
	Name string

	namespace *os.File // the network namespace
	files     string   // folder of the files of Overlay, "" while there are none
	overlays  []string // pairs of a file in that folder and the path that it stands at
}

// NewHost returns a host with nothing but lo, which is up. Close removes it. It fails
// with EPERM if this process may make no network namespace: see Isolate.
func NewHost(name string) (*Host, error) {
	h := &Host{Name: name}
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return os.NewSyscallError("unshare", err)
		}
		if err := upLoopback(); err != nil {
			return err
		}
		var err error
		h.namespace, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	return h, nil
}

// New is NewHost for a test, at whose end the host is closed.
func New(t testing.TB, name string) *Host {
	t.Helper()
	h, err := NewHost(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	})
	return h
}

// Close kills the programs that still run on the host and lets go of it. The kernel
// removes the host's links when the last socket in it is closed.
func (h *Host) Close() error {
	errs := []error{h.Kill(), h.namespace.Close()}
	if h.files != "" {
		errs = append(errs, os.RemoveAll(h.files))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close host %s: %w", h.Name, err)
	}
	return nil
}

// Kill kills the programs that run on the host, but for this one. One that starts another
// meanwhile does not save it: Kill looks again until it finds none.
func (h *Host) Kill() error {
	var here unix.Stat_t
	if err := unix.Fstat(int(h.namespace.Fd()), &here); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	// A program may start one and end between the list of processes and the look at it: one
	// look that finds none is not enough.
	for clean := 0; clean < 3; {
		killed, err := killIn(here)
		if err != nil {
			return err
		}
		if clean++; killed > 0 {
			clean = 0
		}
		time.Sleep(time.Millisecond) // they end in their own time
	}
	return nil
}

// killIn kills the processes of a network namespace and returns how many it found.
func killIn(namespace unix.Stat_t) (killed int, err error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return 0, err
	}
	defer proc.Close()
	// Not filepath.Glob, which reads two folders of each process: every host of a test is looked at three times and more.
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return 0, fmt.Errorf("list of processes: %w", err)
	}
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() {
			continue
		}
		var its unix.Stat_t
		if unix.Stat("/proc/"+name+"/ns/net", &its) != nil || its.Dev != namespace.Dev || its.Ino != namespace.Ino {
			continue // on another host, or gone, or not ours to look at
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return killed, fmt.Errorf("kill process %d: %w", pid, err)
		}
		killed++
	}
	return killed, nil
}

// Path names the host's network namespace, for ip-link(8)'s netns and for nsenter(1).
// It holds in processes that see this one in /proc, until the host is closed.
func (h *Host) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), h.namespace.Fd())
}

// Do calls f on a thread that is on the host, and returns its error. A socket stays in
// the namespace in which it was made, whoever uses it later; so a goroutine that f
// starts is not on the host, but may use f's sockets. A program that f starts is.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := h.setns(); err != nil {
			return err
		}
		return f()
	})
}

// Enter puts the calling goroutine on the host, for as long as the goroutine lives. Each
// test and each subtest is a goroutine of its own, and has to enter by itself.
func (h *Host) Enter() error {
	runtime.LockOSThread()
	return h.setns()
}

func (h *Host) setns() error {
	if err := unix.Setns(int(h.namespace.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter host %s: setns: %w", h.Name, err)
	}
	return nil
}

// onThread calls f on a thread of its own, which ends with it: f may put the thread
// into other namespaces.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlock
		// Stands if a test's FailNow ends the goroutine.
		err := errors.New("the function did not return")
		defer func() { done <- err }()
		err = f()
	}()
	return <-done
}

// Overlay has the programs that Command starts see text at path, instead of the file
// that must be there already, for instance /etc/hosts.
func (h *Host) Overlay(path, text string) error {
	if h.files == "" {
		dir, err := os.MkdirTemp("", "testnet-")
		if err != nil {
			return err
		}
		h.files = dir
	}
	file := filepath.Join(h.files, strconv.Itoa(len(h.overlays)))
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	h.overlays = append(h.overlays, file, path)
	return nil
}

// Command prepares a program to run on the host, in a process group of its own: a
// signal to its negative process id reaches its children too, and Ctrl-C does not
// reach it. Its standard descriptors, folder and environment may be set as usual.
// Args holds what leads onto the host ahead of the program's own arguments.
func (h *Host) Command(program string, args ...string) *exec.Cmd {
	words := []string{"--net=" + h.Path(), "--"}
	if len(h.overlays) > 0 {
		// Each pair of a file and a path, up to the word "--", is mounted.
		const mountAll = `while [ "$1" != -- ]; do mount --bind "$1" "$2" || exit 126; shift 2; done; shift; exec "$@"`
		words = append(words, "unshare", "--mount", "sh", "-c", mountAll, "sh")
		words = append(append(words, h.overlays...), "--")
	}
	cmd := exec.Command("nsenter", append(append(words, program), args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// Run runs a program on the host to its end. Its output is part of the error.
func (h *Host) Run(program string, args ...string) error {
	out, err := h.Command(program, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s on %s: %w: %s", strings.Join(append([]string{program}, args...), " "), h.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// IP carries out commands of ip(8), each written as after the word ip. It stops at
// the first that fails.
func (h *Host) IP(lines ...string) error {
	cmd := h.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip on %s: %w: %s", h.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Set sets a parameter of the host's network, such as net.ipv4.ip_forward (Linux's
// Documentation/networking/ip-sysctl.rst). Its dots stand for the slashes of its path
// below /proc/sys.
func (h *Host) Set(parameter, value string) error {
	return h.Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.ReplaceAll(parameter, ".", "/"), []byte(value), 0)
	})
}

// Link connects two hosts by a cable, and sets both ends up: a link of the given name
// on each.
func Link(a *Host, aName string, b *Host, bName string) error {
	if err := a.IP("link add "+aName+" type veth peer name "+bName+" netns "+b.Path(), "link set "+aName+" up"); err != nil {
		return err
	}
	return b.IP("link set " + bName + " up")
}

// Dial connects the host to address (IPv4 and port) by TCP. Dialer d gives what else
// matters, such as the local address; it may be nil.
func (h *Host) Dial(d *net.Dialer, address string) (conn *net.TCPConn, err error) {
	if d == nil {
		d = &net.Dialer{}
	}
	err = h.Do(func() error {
		c, err := d.Dial("tcp4", address)
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	return conn, err
}

// Listen has the host listen at address (IPv4 and port; port 0 for a free one), by
// plain TCP: not by multipath TCP, which differs in resets and half-closes.
func (h *Host) Listen(address string) (listener *net.TCPListener, err error) {
	err = h.Do(func() error {
		var config net.ListenConfig
		config.SetMultipathTCP(false)
		l, err := config.Listen(context.Background(), "tcp4", address)
		if err == nil {
			listener = l.(*net.TCPListener)
		}
		return err
	})
	return listener, err
}
