package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/u-root/u-root/pkg/termios"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
)

// retry is the pause between two attempts to reach the server.
const retry = 500 * time.Millisecond

// Spec is the process of a console: it has a terminal, and its sessions from PID 1.
var Spec = service.Spec{
	Name: "console", Main: runProcess, MayEnd: true, AskEvery: time.Minute, EndLast: true,
	Calls: service.Calls{Checked: []service.Check{
		service.Equals(unix.SYS_SOCKETPAIR, 0, unix.AF_UNIX),
		service.Equals(unix.SYS_IOCTL, 1, unix.TCGETS), service.Equals(unix.SYS_IOCTL, 1, unix.TCSETS),
		service.Equals(unix.SYS_IOCTL, 1, unix.TIOCGWINSZ),
	}},
}

// opSession asks PID 1 for a session. The descriptor is PID 1's end of its connection.
const opSession = 1

// Process is PID 1's view of a console.
type Process struct {
	serve func(net.Conn)

	mu   sync.Mutex
	conn net.Conn // of the session, nil if there is none
}

// NewProcess is for service.Options. serve holds a session with the terminal at the other end
// of a connection, and closes it. A process has one at a time.
func NewProcess(serve func(net.Conn)) *Process { return &Process{serve: serve} }

// Handle begins a session.
func (p *Process) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	file := r.TakeFile()
	if file != nil {
		defer file.Close()
	}
	if r.Op != opSession || file == nil {
		return nil, fmt.Errorf("%w: no request for a session", service.ErrBreach)
	}
	conn, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("%w: session: %w", service.ErrBreach, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		conn.Close()
		return nil, errors.New("the session before has not ended")
	}
	p.conn = conn
	go func() {
		p.serve(conn)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conn = nil
	}()
	return nil, nil
}

// Ended ends the session.
func (p *Process) Ended() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conn != nil {
		p.conn.Close()
	}
}

// runProcess is the process.
func runProcess(c *service.Child) error {
	served := make(chan error, 1)
	go func() {
		served <- c.Serve(func(context.Context, *service.Request) ([]byte, error) {
			return nil, fmt.Errorf("%w: a request", service.ErrBreach)
		})
	}()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(func() (net.Conn, error) { return c.Connect(c.Context(), opSession, nil) }, os.Stdin, os.Stdout)
	}()
	select {
	case err := <-served:
		return err
	case err := <-ended:
		return err
	}
}

// Run is a console: it talks to the server that dial calls from in and out. If
// both are a terminal it is put into raw mode; else their lines are read as they come. If the
// server is not there, or goes, Run says so and tries again for as long as it takes. It
// returns nil when the session is over.
func Run(dial func() (net.Conn, error), in io.Reader, out io.Writer) error {
	var size func() (columns, rows int)
	if raw, ok := bothTerminals(in, out); ok {
		// Before the first read, which would otherwise wait for a whole line.
		old, err := termios.GetTermios(raw)
		if err == nil {
			err = termios.SetTermios(raw, termios.MakeRaw(old))
		}
		if err != nil {
			return fmt.Errorf("%w: raw mode: %w", errTerminal, err)
		}
		defer termios.SetTermios(raw, old)
		size = func() (columns, rows int) {
			// Not by termios.GetWinSize (v0.16.0): it panics if the terminal was hung up.
			s, err := unix.IoctlGetWinsize(int(raw), unix.TIOCGWINSZ)
			if err != nil {
				return 0, 0
			}
			return int(s.Col), int(s.Row)
		}
	}
	t := New(in, out, size)
	defer t.Close()
	for {
		conn, err := t.dial(dial)
		if err != nil {
			return err
		}
		err = t.Talk(conn)
		conn.Close()
		if err == nil || errors.Is(err, errTerminal) {
			return err
		}
		if err := t.show("\nConnection to the router lost; the last line may have had no effect.\n"); err != nil {
			return err
		}
		time.Sleep(retry)
	}
}

// dial tries to connect to the server until it succeeds.
func (t *Terminal) dial(dial func() (net.Conn, error)) (net.Conn, error) {
	for told := false; ; told = true {
		conn, err := dial()
		if err == nil {
			return conn, nil
		}
		if !told {
			if err := t.show("Waiting for the router: " + err.Error() + "\n"); err != nil {
				return nil, err
			}
		}
		time.Sleep(retry)
	}
}

// bothTerminals reports whether in and out are terminals, and returns the descriptor of in.
func bothTerminals(in io.Reader, out io.Writer) (fd uintptr, ok bool) {
	i, isFile := in.(*os.File)
	o, alsoFile := out.(*os.File)
	if !isFile || !alsoFile {
		return 0, false
	}
	for _, f := range []*os.File{i, o} {
		if _, err := termios.GetTermios(f.Fd()); err != nil {
			return 0, false
		}
	}
	return i.Fd(), true
}
