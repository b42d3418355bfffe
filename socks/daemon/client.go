package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

// Client is the parent's view of a socksd process. Its methods may be called from any
// goroutine, but not from its callbacks.
type Client struct {
	link   *service.Link
	change func(closed, opened []socks.Opening) error

	mu  sync.Mutex
	cfg socks.Config

	// What follows is used by Handle and Ended alone, which come one after the other.

	// openings are those that are open or, with false, could not be closed.
	openings map[socks.Opening]bool
	// restUntil is when the firewall may be changed again, by the clock.
	restUntil time.Duration
	clock     func() time.Duration
	sleep     func(context.Context, time.Duration)
}

// After a change the firewall is left alone for restFactor times as long as the change took, and
// longestRest at most: so changes take a quarter of the time of PID 1 and of a processor, however
// fast clients open and close, and on however slow a machine. What is asked for meanwhile is done
// in one change then. A change after a pause begins at once.
const (
	restFactor  = 3
	longestRest = time.Second
)

// NewClient is for service.Options. change changes the firewall, one call at a time: it undoes the
// openings closed, and then lets the Peer (0.0.0.0: anyone) of each of opened in to its Local; all
// of it or nothing. When the process has ended, it is called to close what is still open.
func NewClient(link *service.Link, change func(closed, opened []socks.Opening) error) *Client {
	start := time.Now()
	return &Client{
		link: link, change: change, cfg: socks.DefaultConfig(), openings: map[socks.Opening]bool{},
		clock: func() time.Duration { return time.Since(start) },
		sleep: func(ctx context.Context, d time.Duration) {
			select {
			case <-time.After(d):
			case <-ctx.Done():
			}
		},
	}
}

// Configure puts cfg in force; one call at a time. listener, unless nil, is the listening socket to
// accept on from now on; the caller keeps its own copy. A configuration that is
// enabled needs one when the one before was not. After nil, an enabled server is
// accepting. It may be called again with the same, if there was no answer in time.
func (c *Client) Configure(ctx context.Context, cfg socks.Config, listener *os.File) error {
	// Before it is in force, because socksd may ask for openings at once after.
	c.mu.Lock()
	before := c.cfg
	c.cfg = cfg
	c.mu.Unlock()
	var e service.Encoder
	encodeConfig(&e, cfg)
	var files []*os.File
	if listener != nil {
		files = append(files, listener)
	}
	err := c.link.Call(ctx, opConfigure, e.Bytes(), nil, files...)
	var refused service.RemoteError
	if errors.As(err, &refused) {
		c.mu.Lock()
		c.cfg = before
		c.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("socksd: configure: %w", err)
	}
	return nil
}

// Connections returns the active connections in the order of their numbers.
func (c *Client) Connections(ctx context.Context) ([]socks.Connection, error) {
	var all []socks.Connection
	var after uint64
	for {
		var e service.Encoder
		e.Uint(after)
		var page []socks.Connection
		if err := c.link.Call(ctx, opConnections, e.Bytes(), func(d *service.Decoder) { page = decodeConnections(d) }); err != nil {
			return nil, fmt.Errorf("socksd: list connections: %w", err)
		}
		if len(page) == 0 {
			return all, nil
		}
		for _, found := range page {
			if found.Number <= after || len(all) == maxListed {
				return nil, fmt.Errorf("socksd: list connections: number %d after %d", found.Number, after)
			}
			after = found.Number
			all = append(all, found)
		}
	}
}

// CloseConnections closes the connections with these numbers, at most 1,000. Those that have
// ended meanwhile do not matter.
func (c *Client) CloseConnections(ctx context.Context, numbers []uint64) error {
	var e service.Encoder
	encodeNumbers(&e, numbers)
	if err := c.link.Call(ctx, opRemove, e.Bytes(), nil); err != nil {
		return fmt.Errorf("socksd: close connections: %w", err)
	}
	return nil
}

// Leave ends what runs by addresses that the router had and will not have again, at most 64 of them.
func (c *Client) Leave(ctx context.Context, gone []netip.Addr) error {
	var e service.Encoder
	e.Addrs(gone[:min(len(gone), maxGone)])
	if err := c.link.Call(ctx, opLeave, e.Bytes(), nil); err != nil {
		return fmt.Errorf("socksd: leave addresses: %w", err)
	}
	return nil
}

// Hits returns how many new connections each rule of the access list decided about.
func (c *Client) Hits(ctx context.Context) ([]uint64, error) {
	var hits []uint64
	if err := c.link.Call(ctx, opHits, nil, func(d *service.Decoder) { hits = decodeNumbers(d, maxRules) }); err != nil {
		return nil, fmt.Errorf("socksd: read counters: %w", err)
	}
	return hits, nil
}

// Handle serves socksd's requests to change the firewall.
func (c *Client) Handle(ctx context.Context, r *service.Request) ([]byte, error) {
	if r.Op != opFirewall {
		return nil, fmt.Errorf("%w: unexpected request %d", service.ErrBreach, r.Op)
	}
	closed, opened := decodeOpenings(r.Decoder, closingsAtOnce), decodeOpenings(r.Decoder, openingsAtOnce)
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("%w: %w", service.ErrBreach, err)
	}
	if wait := c.restUntil - c.clock(); wait > 0 {
		c.sleep(ctx, wait)
	}
	var doomed []socks.Opening
	for _, o := range closed {
		if _, ok := c.openings[o]; ok {
			c.openings[o] = false
		}
	}
	for o, open := range c.openings { // those too that could not be closed before
		if !open {
			doomed = append(doomed, o)
		}
	}
	failures := make([]error, len(opened))
	var wanted []socks.Opening
	for i, o := range opened {
		file := r.TakeFile()
		if failures[i] = c.check(o, file, len(c.openings)-len(doomed)+len(wanted)); failures[i] == nil && slices.Contains(wanted, o) {
			failures[i] = errors.New("asked for twice")
		}
		if failures[i] == nil {
			wanted = append(wanted, o)
		} else {
			failures[i] = fmt.Errorf("open %v: %w", o, failures[i])
		}
		if file != nil {
			file.Close()
		}
	}
	if len(doomed)+len(wanted) > 0 {
		begin := c.clock()
		if err := c.apply(doomed, wanted); err != nil {
			for i := range failures {
				failures[i] = cmp.Or(failures[i], err)
			}
		}
		end := c.clock()
		c.restUntil = end + min(restFactor*(end-begin), longestRest)
	}
	var reply service.Encoder
	encodeFailures(&reply, failures)
	return reply.Bytes(), nil
}

// apply changes the firewall, and remembers what is open now.
func (c *Client) apply(closed, opened []socks.Opening) error {
	err := c.change(closed, opened)
	if err == nil {
		for _, o := range closed {
			delete(c.openings, o)
		}
	}
	for _, o := range opened {
		c.openings[o] = err == nil // half an opening is closed too
	}
	if err != nil && len(opened) > 0 {
		// One of them may be the reason why the others are not closed.
		return errors.Join(err, c.apply(append(slices.Clone(closed), opened...), nil))
	}
	return err
}

// Ended closes the openings that a process has left.
func (c *Client) Ended() {
	if len(c.openings) > 0 {
		c.change(slices.Collect(maps.Keys(c.openings)), nil) // the firewall's owner reports what fails
	}
	clear(c.openings)
}

// check returns an error unless socksd may have o opened, beside so many others.
func (c *Client) check(o socks.Opening, file *os.File, others int) error {
	c.mu.Lock()
	port, limit := c.cfg.Port, min(c.cfg.MaxConnections, socks.MaxMaxConnections)
	c.mu.Unlock()
	switch {
	case !o.Peer.Is4() || !o.Local.Addr().Is4():
		return errors.New("not IPv4")
	case o.Local.Port() < 1024 || o.Local.Port() == port:
		return fmt.Errorf("port %d is not for BIND or UDP ASSOCIATE", o.Local.Port())
	case c.openings[o]:
		return errors.New("is open")
	case others >= limit:
		return fmt.Errorf("there are %d already", limit)
	case file == nil:
		return errors.New("without its socket")
	}
	return checkSocket(file, o)
}

// checkSocket returns an error unless file is the socket that waits at o: a TCP socket that
// listens there, or a UDP socket that is bound there and that no other socket can share the
// port with.
func checkSocket(file *os.File, o socks.Opening) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var checkErr error
	err = raw.Control(func(fd uintptr) {
		option := func(which int) int {
			value, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, which)
			if err != nil {
				return -1
			}
			return value
		}
		switch {
		case !o.UDP && option(unix.SO_PROTOCOL) != unix.IPPROTO_TCP:
			checkErr = errors.New("not a TCP socket")
			return
		case !o.UDP && option(unix.SO_ACCEPTCONN) != 1:
			checkErr = errors.New("the socket does not listen")
			return
		case o.UDP && option(unix.SO_PROTOCOL) != unix.IPPROTO_UDP:
			checkErr = errors.New("not a UDP socket")
			return
		case o.UDP && (option(unix.SO_REUSEADDR) != 0 || option(unix.SO_REUSEPORT) != 0):
			// With these options it could be bound to the port of another program.
			checkErr = errors.New("the socket may share its port")
			return
		}
		sa, err := unix.Getsockname(int(fd))
		sa4, ok := sa.(*unix.SockaddrInet4)
		if err != nil || !ok || netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), uint16(sa4.Port)) != o.Local {
			checkErr = errors.New("the socket listens elsewhere")
		}
	})
	return errors.Join(err, checkErr)
}
