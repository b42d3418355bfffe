package service

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

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
	// What cannot be logged any more is no reason to end.
	signal.Ignore(unix.SIGPIPE)
	err := func() error {
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
		defer stop()
		link, err := newLink(os.NewFile(linkFD, "control link"), s.maxMessage())
		if err != nil {
			return err
		}
		if err := confine(); err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		link.onEnd = cancel
		return s.Main(&Child{ctx: ctx, stop: cancel, link: link})
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Accept serves the connections of a listener, each by a goroutine and at most max at once,
// until there has been no connection for idle, or the context of the Child ends, which ends the
// connections too. It closes the listener then: who calls meanwhile waits in the kernel's queue
// for the next process, because PID 1 has the listener too.
func (c *Child) Accept(l *net.TCPListener, max int, idle time.Duration, serve func(net.Conn)) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	defer l.Close()
	stop := context.AfterFunc(c.ctx, func() { l.Close() })
	defer stop()
	a := &activity{idle: idle, end: func() { l.Close() }}
	a.wait()
	slots := make(chan struct{}, max)
	for {
		slots <- struct{}{}
		conn, err := l.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
			// It stays in the queue. There is no event for when there is room again.
			c.Logf("accept: %v", err)
			time.Sleep(acceptPause)
			<-slots
			continue
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		}
		a.enter()
		serving.Go(func() {
			defer func() { <-slots }()
			defer a.leave()
			defer conn.Close()
			defer context.AfterFunc(c.ctx, func() { conn.Close() })()
			serve(conn)
		})
	}
}

// acceptPause is from one attempt to accept a connection to the next, while the kernel lacks
// something.
const acceptPause = time.Second

// activity calls end when nobody has been in for the time idle.
type activity struct {
	idle time.Duration
	end  func()

	mu   sync.Mutex
	in   int
	stop func() // the waiting, if it goes on
}

func (a *activity) enter() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.in++
	a.stop()
}

func (a *activity) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.in--; a.in == 0 {
		a.wait()
	}
}

// wait begins to wait for the end. The caller holds mu, or alone has a.
func (a *activity) wait() {
	a.stop = afterRunning(realClock{}, a.idle, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.in == 0 {
			a.end()
		}
	})
}
