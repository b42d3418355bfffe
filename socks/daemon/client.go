package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

// Client is the parent's view of a socksd process. Its methods may be called from any
// goroutine, but not from its callbacks.
type Client struct {
	link        *service.Link
	open, close func(socks.Opening) error

	mu  sync.Mutex
	cfg socks.Config
	// openings are used by Handle and Ended alone, which come one after the other.
	openings map[socks.Opening]bool
}

// NewClient is for service.Options. open and close change the firewall, one call at a time:
// open lets o.Peer (0.0.0.0: anyone) in to o.Local, close undoes exactly that. When the process
// has ended, close is called for what is still open.
func NewClient(link *service.Link, open, close func(socks.Opening) error) *Client {
	return &Client{link: link, open: open, close: close, cfg: socks.DefaultConfig(), openings: map[socks.Opening]bool{}}
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

// Hits returns how many new connections each rule of the access list decided about.
func (c *Client) Hits(ctx context.Context) ([]uint64, error) {
	var hits []uint64
	if err := c.link.Call(ctx, opHits, nil, func(d *service.Decoder) { hits = decodeNumbers(d, maxRules) }); err != nil {
		return nil, fmt.Errorf("socksd: read counters: %w", err)
	}
	return hits, nil
}

// Handle serves socksd's requests about openings.
func (c *Client) Handle(_ context.Context, r *service.Request) ([]byte, error) {
	o := decodeOpening(r.Decoder)
	if err := r.End(); err != nil {
		return nil, fmt.Errorf("%w: %w", service.ErrBreach, err)
	}
	switch r.Op {
	case opOpen:
		file := r.TakeFile()
		if file != nil {
			defer file.Close()
		}
		return nil, c.opening(o, file)
	case opClose:
		return nil, c.closing(o)
	}
	return nil, fmt.Errorf("%w: unexpected request %d", service.ErrBreach, r.Op)
}

// Ended closes the openings that a process has left.
func (c *Client) Ended() {
	for o := range c.openings {
		c.close(o) // the firewall's owner reports what fails
	}
	clear(c.openings)
}

// opening serves an open, if it is one that socksd may ask for.
func (c *Client) opening(o socks.Opening, file *os.File) error {
	c.mu.Lock()
	port, limit := c.cfg.Port, min(c.cfg.MaxConnections, socks.MaxMaxConnections)
	c.mu.Unlock()
	switch {
	case !o.Peer.Is4() || !o.Local.Addr().Is4():
		return fmt.Errorf("open %v: not IPv4", o)
	case o.Local.Port() < 1024 || o.Local.Port() == port:
		return fmt.Errorf("open %v: port %d is not for BIND or UDP ASSOCIATE", o, o.Local.Port())
	case c.openings[o]:
		return fmt.Errorf("open %v: is open", o)
	case len(c.openings) >= limit:
		return fmt.Errorf("open %v: there are %d already", o, limit)
	case file == nil:
		return fmt.Errorf("open %v: without its socket", o)
	}
	if err := checkSocket(file, o); err != nil {
		return fmt.Errorf("open %v: %w", o, err)
	}
	// Remembered even when open fails: half an opening is closed too.
	c.openings[o] = true
	if err := c.open(o); err != nil {
		return errors.Join(err, c.closing(o))
	}
	return nil
}

func (c *Client) closing(o socks.Opening) error {
	if !c.openings[o] {
		return fmt.Errorf("close %v: is not open", o)
	}
	if err := c.close(o); err != nil {
		return err // still in openings: tried again at the end
	}
	delete(c.openings, o)
	return nil
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

// Listen returns a TCP socket that listens on addr (IPv4; 0.0.0.0 for all own
// addresses), for Configure. Unlike a net.Listener's it is not in this process's
// poller, which would wake at each connection that socksd accepts.
func Listen(addr netip.AddrPort) (*os.File, error) {
	if !addr.Addr().Is4() {
		return nil, fmt.Errorf("listen on %s: not an IPv4 address", addr)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: addr.Addr().As4(), Port: int(addr.Port())})
	}
	if err == nil {
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}
	return os.NewFile(uintptr(fd), "listener on "+addr.String()), nil
}

// backlog is how many connections the kernel holds until they are accepted.
const backlog = 128
