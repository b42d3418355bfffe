package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// Requests of the services of these tests: to a process and to PID 1.
const (
	opConfigure = 1
	opListen    = 2 // with a listening socket
	opTask      = 3
	opTell      = 4 // to PID 1
	opPID       = 5
)

// The services of these tests. Each process is this test binary.
var toys = NewTable(
	Spec{Name: "toy", Main: mainToy, AskEvery: time.Millisecond},
	Spec{Name: "sleeper", Start: OnConnection, Main: mainSleeper},
	Spec{Name: "task", Start: Task, Main: mainTask},
	Spec{Name: "stubborn", Start: Task, Main: mainStubborn, StopTime: 100 * time.Millisecond},
	Spec{Name: "crash", Main: func(*Child) error { return errors.New("toy: crashed") }},
	Spec{Name: "once", MayEnd: true, Main: func(*Child) error { return nil }},
	Spec{Name: "breaker", Main: mainBreaker},
	Spec{Name: "closer", StopTime: 100 * time.Millisecond, Main: mainCloser},
	Spec{Name: "terminal", Main: mainTerminal},
)

func TestMain(m *testing.M) {
	if spec, ok := toys.Find(os.Args[0]); ok {
		// These tests may be built with cgo, whose threads the filter of system calls does not
		// let be; TestConfined has a program without it.
		os.Exit(spec.runChild(func() error { return nil }))
	}
	os.Exit(m.Run())
}

// mainToy takes its configuration, a word that says what to do about it.
func mainToy(c *Child) error {
	c.Logf("toy: here")
	return c.Serve(func(ctx context.Context, r *Request) ([]byte, error) {
		if r.Op == opPID {
			var e Encoder
			e.Uint(uint64(os.Getpid()))
			return e.Bytes(), nil
		}
		switch word := r.String(100); word {
		case "refuse":
			return nil, errors.New("toy: refused")
		case "die":
			os.Exit(7)
		case "hang":
			<-ctx.Done()
		default:
			var e Encoder
			e.String(word)
			return nil, c.Call(ctx, opTell, e.Bytes(), nil)
		}
		return nil, nil
	})
}

// mainSleeper echoes the first bytes of each connection, and ends when there is none for a
// while.
func mainSleeper(c *Child) error {
	listeners := make(chan *net.TCPListener, 1)
	failed := make(chan error, 1)
	go func() {
		failed <- c.Serve(func(_ context.Context, r *Request) ([]byte, error) {
			f := r.TakeFile()
			defer f.Close()
			l, err := net.FileListener(f)
			if err == nil {
				listeners <- l.(*net.TCPListener)
			}
			return nil, err
		})
	}()
	select {
	case l := <-listeners:
		a := c.NewAcceptor(50*time.Millisecond, func(conn *net.TCPConn) func() {
			return func() {
				fmt.Fprintf(conn, "%d\n", os.Getpid())
				io.Copy(conn, conn)
			}
		})
		a.Listen(l)
		a.Wait()
		return nil
	case err := <-failed:
		return err
	}
}

// mainTask tells what it was asked in pieces, until it is told to end.
func mainTask(c *Child) error {
	return c.Serve(func(ctx context.Context, r *Request) ([]byte, error) {
		var e Encoder
		for _, word := range r.Strings(10, 100) {
			switch word {
			case "fail":
				return nil, errors.New("task: failed")
			case "die":
				unix.Kill(os.Getpid(), unix.SIGKILL)
			case "breach":
				c.link.conn.Write([]byte{0})
				<-c.link.ended
			case "print":
				if _, err := fmt.Fprint(c.Output(), strings.Repeat("x", maxOutput)+"\x1b[2J\n"); err != nil {
					return nil, err
				}
				continue
			case "wait":
				<-ctx.Done()
				word = "told to end"
			}
			var body Encoder
			body.String(word)
			if err := c.Call(context.Background(), opTell, body.Bytes(), nil); err != nil {
				return nil, err
			}
		}
		e.String("done")
		return e.Bytes(), nil
	})
}

// mainStubborn does not end when it is told to.
func mainStubborn(c *Child) error {
	return c.Serve(func(context.Context, *Request) ([]byte, error) {
		if err := c.Call(context.Background(), opTell, []byte{0}, nil); err != nil {
			return nil, err
		}
		select {}
	})
}

// mainBreaker does not keep to the protocol.
func mainBreaker(c *Child) error {
	_, err := c.link.conn.Write([]byte{0})
	<-c.Context().Done()
	return err
}

// mainCloser closes its link and does not end.
func mainCloser(c *Child) error {
	c.link.conn.Close()
	select {}
}

// mainTerminal says what its terminal is.
func mainTerminal(c *Child) error {
	_, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
	fmt.Println("foreground:", err == nil && unix.Getpgrp() == unix.Getpid())
	return c.Serve(func(context.Context, *Request) ([]byte, error) { return nil, nil })
}

// testLog is a Log that remembers.
type testLog struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(string(p)) {
		if !strings.HasPrefix(line, "warning: GOCOVERDIR") { // of a process under go test -cover
			l.text.WriteString(line)
		}
	}
	return len(p), nil
}

func (l *testLog) Printf(level int, format string, args ...any) {
	fmt.Fprintf(l, "<%d>"+format+"\n", append([]any{level}, args...)...)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newSupervisor returns one whose processes are this test binary, and its log.
func newSupervisor(t *testing.T) (*Supervisor, *testLog) {
	t.Helper()
	program, err := os.Executable()
	require.NoError(t, err)
	log := &testLog{}
	s := &Supervisor{Program: program, Log: func(string) Log { return log }}
	t.Cleanup(func() {
		s.Stop()
		if t.Failed() {
			t.Logf("the log:\n%s", log)
		}
	})
	return s, log
}

// eventually waits for what must come to be.
func eventually(t *testing.T, ok func() bool, what string, args ...any) {
	t.Helper()
	require.Eventually(t, ok, patience, time.Millisecond, append([]any{what}, args...)...)
}
