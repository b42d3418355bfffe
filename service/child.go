package service

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// linkFD is the descriptor of a process that is its end of the control link.
const linkFD = 3

// Child is a process's view of itself.
type Child struct {
	ctx  context.Context
	stop context.CancelFunc
	link *Link
}

// Context ends when the process is to end: PID 1 says so, or has gone.
func (c *Child) Context() context.Context { return c.ctx }

// Stop ends the Context, for a process that has nothing to do any more.
func (c *Child) Stop() { c.stop() }

// Logf writes a line to the router's log.
func (c *Child) Logf(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

// Call asks PID 1; see Link.Call. It may be used from when Serve was called.
func (c *Child) Call(ctx context.Context, op byte, body []byte, decode func(*Decoder), files ...*os.File) error {
	return c.link.Call(ctx, op, body, decode, files...)
}

// Output is what a process with a Job writes to for a person. Each Write returns when PID 1 has
// taken it.
func (c *Child) Output() io.Writer { return output{c} }

type output struct{ *Child }

func (o output) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		piece := p[n:min(n+maxOutput, len(p))]
		var e Encoder
		e.String(string(piece))
		if err := o.Call(context.Background(), opOutput, e.Bytes(), nil); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return len(p), nil
}

// Serve serves PID 1's requests until the context of the Child ends. A request that is being
// served then comes to its end, and its reply goes out. Call can be used until the process has
// ended.
func (c *Child) Serve(handler Handler) error {
	c.link.start(c.ctx, handler)
	<-c.link.Done()
	return c.link.Err()
}

// RunChild is the process of a service: it confines itself and calls Main. It returns the exit
// status: 0, or 1 with a line on standard error.
func (s Spec) RunChild() int { return s.runChild(s.Confine) }

func (s Spec) runChild(confine func() error) int {
	// What cannot be logged any more is no reason to end, nor is a key at a terminal that is not raw yet. That it
	// shall end PID 1 says by the link: to be told by a signal takes two threads, 20 kB each.
	signal.Ignore(unix.SIGPIPE, unix.SIGINT)
	err := func() error {
		link, err := newLink(os.NewFile(linkFD, "control link"), s.maxMessage())
		if err != nil {
			return err
		}
		if err := confine(); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		link.onEnd, link.toEnd = cancel, cancel
		return s.Main(&Child{ctx: ctx, stop: cancel, link: link})
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Connect makes a stream connection between the process and PID 1, which gets its end with the request
// op. The Spec must allow socketpair(2) of AF_UNIX.
func (c *Child) Connect(ctx context.Context, op byte, body []byte) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("connection to PID 1: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "connection"), os.NewFile(uintptr(fds[1]), "connection")
	defer ours.Close()
	defer theirs.Close()
	if err := c.Call(ctx, op, body, nil, theirs); err != nil {
		return nil, err
	}
	return net.FileConn(ours)
}
