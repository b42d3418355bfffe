package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

// changes has PID 1 change the firewall, by one request at a time: what is to be opened or closed
// meanwhile waits, and goes together with the next.
type changes struct {
	call func(ctx context.Context, body []byte, decode func(*service.Decoder), files ...*os.File) error
	logf func(format string, args ...any)

	mu     sync.Mutex
	asking bool // a request is under way
	opened []*opening
	closed []socks.Opening
}

// opening is one that somebody waits for.
type opening struct {
	socks.Opening
	socket *os.File
	done   chan error
}

// open is Options.Open of package socks.
func (c *changes) open(ctx context.Context, o socks.Opening, socket *os.File) (undo func(), err error) {
	w := &opening{o, socket, make(chan error, 1)}
	c.add(func() { c.opened = append(c.opened, w) })
	select {
	case err = <-w.done:
	case <-ctx.Done():
		if c.forget(w) {
			return nil, context.Cause(ctx) // PID 1 was not asked, and has no work with it
		}
		err = <-w.done
	}
	if err != nil {
		return nil, err
	}
	return func() { c.add(func() { c.closed = append(c.closed, o) }) }, nil
}

// add has a change made.
func (c *changes) add(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	if !c.asking {
		c.asking = true
		go c.ask()
	}
}

// forget removes an opening that PID 1 was not asked for yet. It reports whether there is one.
func (c *changes) forget(w *opening) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	i := slices.Index(c.opened, w)
	if i >= 0 {
		c.opened = slices.Delete(c.opened, i, i+1)
	}
	return i >= 0
}

// ask sends requests until nothing is left.
func (c *changes) ask() {
	for {
		c.mu.Lock()
		opened := slices.Clone(c.opened[:min(len(c.opened), openingsAtOnce)])
		closed := slices.Clone(c.closed[:min(len(c.closed), closingsAtOnce)])
		c.opened = slices.Delete(c.opened, 0, len(opened))
		c.closed = slices.Delete(c.closed, 0, len(closed))
		if c.asking = len(opened)+len(closed) > 0; !c.asking {
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		failures, err := c.send(closed, opened)
		var remote service.RemoteError
		if err != nil && !errors.Is(err, service.ErrGone) {
			c.logf("close %d and open %d openings of the firewall: %v", len(closed), len(opened), err)
			if !errors.As(err, &remote) {
				// It may be done yet. These closings come before whatever is opened now.
				for _, w := range opened {
					closed = append(closed, w.Opening)
				}
				c.mu.Lock()
				c.closed = append(closed, c.closed...)
				c.mu.Unlock()
			}
		}
		for i, w := range opened {
			if err == nil {
				w.done <- failures[i]
			} else {
				w.done <- err
			}
		}
	}
}

// send sends one request. It returns for each of opened why it is not open, nil if it is.
func (c *changes) send(closed []socks.Opening, opened []*opening) (failures []error, err error) {
	openings, files := make([]socks.Opening, len(opened)), make([]*os.File, len(opened))
	for i, w := range opened {
		openings[i], files[i] = w.Opening, w.socket
	}
	var body service.Encoder
	encodeOpenings(&body, closed)
	encodeOpenings(&body, openings)
	ctx, cancel := service.WithTimeout(context.Background(), callTime)
	defer cancel()
	err = c.call(ctx, body.Bytes(), func(d *service.Decoder) { failures = decodeFailures(d) }, files...)
	if err == nil && len(failures) != len(opened) {
		err = fmt.Errorf("asked for %d openings, told of %d", len(opened), len(failures))
	}
	return failures, err
}
