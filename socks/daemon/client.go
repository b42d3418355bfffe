package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/socks"
)

// callTimeout is how long socksd may take for a reply.
const callTimeout = 10 * time.Second

// openingsAtOnce is how many requests about openings socksd sends before it has
// replies, so that a slow firewall does not hold up replies to other calls.
const openingsAtOnce = 8

// Client is the parent's end of a socksd process. Its methods may be called from
// any goroutine, but not from its callbacks.
type Client struct {
	link        *link
	open, close func(socks.Opening) error
	requests    chan request
	done        chan struct{}
	err         error // of the connection, valid when done is closed

	mu       sync.Mutex
	cfg      socks.Config
	openings map[socks.Opening]bool // used by work alone
}

// request is an open or close of socksd.
type request struct {
	message
	file *os.File
}

// NewClient takes over conn, the parent's end of the control socket pair. open
// and close change the firewall, one call at a time: open lets o.Peer (0.0.0.0:
// anyone) in to o.Local, close undoes exactly that. When the connection ends,
// close is called for what is still open.
func NewClient(conn *net.UnixConn, open, close func(socks.Opening) error) *Client {
	c := &Client{
		link: newLink(conn, maxLineToChild, maxLineToParent), open: open, close: close,
		requests: make(chan request, openingsAtOnce), done: make(chan struct{}),
		cfg: socks.DefaultConfig(), openings: map[socks.Opening]bool{},
	}
	go c.work()
	go c.read()
	return c
}

// Configure puts cfg in force; one call at a time. listener, unless nil, is the listening socket to
// accept on from now on; the caller keeps its own copy. A configuration that is
// enabled needs one when the one before was not. After nil, an enabled server is
// accepting.
func (c *Client) Configure(ctx context.Context, cfg socks.Config, listener *os.File) error {
	sent := cfg
	sent.Access = make([]socks.Rule, len(cfg.Access))
	for i, r := range cfg.Access {
		r.Comment = "" // which decides nothing, and may be long
		sent.Access[i] = r
	}
	// Before it is in force, because socksd may ask for openings at once after.
	c.mu.Lock()
	before := c.cfg
	c.cfg = cfg
	c.mu.Unlock()
	var file syscall.Conn
	if listener != nil {
		file = listener
	}
	if _, err := c.call(ctx, message{Op: opConfigure, Config: &sent}, file); err != nil {
		c.mu.Lock()
		c.cfg = before
		c.mu.Unlock()
		return fmt.Errorf("socksd: configure: %w", err)
	}
	return nil
}

// Connections returns the active connections in the order of their numbers.
func (c *Client) Connections(ctx context.Context) ([]socks.Connection, error) {
	var all []socks.Connection
	var after uint64
	for {
		r, err := c.call(ctx, message{Op: opConnections, Number: after}, nil)
		if err != nil {
			return nil, fmt.Errorf("socksd: list connections: %w", err)
		}
		if len(r.Connections) == 0 {
			return all, nil
		}
		for _, found := range r.Connections {
			if found.Number <= after || len(all) == 2*socks.MaxMaxConnections {
				return nil, fmt.Errorf("socksd: list connections: number %d after %d", found.Number, after)
			}
			after = found.Number
			all = append(all, found)
		}
	}
}

// CloseConnection closes the connection of that number.
func (c *Client) CloseConnection(ctx context.Context, number uint64) error {
	if _, err := c.call(ctx, message{Op: opClose, Number: number}, nil); err != nil {
		return fmt.Errorf("socksd: close connection %d: %w", number, err)
	}
	return nil
}

// Hits returns how many new connections each rule of the access list decided about.
func (c *Client) Hits(ctx context.Context) ([]uint64, error) {
	r, err := c.call(ctx, message{Op: opHits}, nil)
	if err != nil {
		return nil, fmt.Errorf("socksd: read counters: %w", err)
	}
	return r.Hits, nil
}

// Done is closed when the connection has ended and no opening is left. The
// process may live on for a moment: its end is its parent's to wait for.
func (c *Client) Done() <-chan struct{} { return c.done }

// Err returns why the connection ended, nil if socksd closed it. It waits for Done.
func (c *Client) Err() error {
	<-c.done
	return c.err
}

// Close ends the connection, which ends socksd. Done follows.
func (c *Client) Close() { c.link.conn.Close() }

func (c *Client) call(ctx context.Context, m message, file syscall.Conn) (message, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.link.call(ctx, m, file)
}

// read passes socksd's requests on to work. One that sends more than it may
// waits for the firewall, with all else that it sends.
func (c *Client) read() {
	c.err = c.link.run(func(m message, file *os.File) error {
		if (m.Op != opOpen && m.Op != opClose) || m.Opening == nil {
			if file != nil {
				file.Close()
			}
			return fmt.Errorf("control: unexpected request %q", m.Op)
		}
		c.requests <- request{m, file}
		return nil
	})
	close(c.requests)
}

// work serves socksd's requests, and cleans up behind it.
func (c *Client) work() {
	defer close(c.done)
	for r := range c.requests {
		var err error
		if r.Op == opOpen {
			err = c.opening(*r.Opening, r.file)
		} else {
			err = c.closing(*r.Opening)
		}
		if r.file != nil {
			r.file.Close()
		}
		c.link.answer(r.ID, message{}, err) // an error here is the end, which run sees
	}
	for o := range c.openings {
		c.close(o) // the firewall's owner reports what fails
	}
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
		return fmt.Errorf("open %v: port %d is not for BIND", o, o.Local.Port())
	case c.openings[o]:
		return fmt.Errorf("open %v: is open", o)
	case len(c.openings) >= limit:
		return fmt.Errorf("open %v: there are %d already", o, limit)
	case file == nil:
		return fmt.Errorf("open %v: without its socket", o)
	}
	if err := checkListener(file, o.Local); err != nil {
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

// checkListener returns an error unless file is a TCP socket that listens on local.
func checkListener(file *os.File, local netip.AddrPort) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var checkErr error
	err = raw.Control(func(fd uintptr) {
		protocol, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL)
		if err != nil || protocol != unix.IPPROTO_TCP {
			checkErr = errors.New("not a TCP socket")
			return
		}
		listens, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || listens == 0 {
			checkErr = errors.New("the socket does not listen")
			return
		}
		sa, err := unix.Getsockname(int(fd))
		sa4, ok := sa.(*unix.SockaddrInet4)
		if err != nil || !ok || netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), uint16(sa4.Port)) != local {
			checkErr = errors.New("the socket listens elsewhere")
		}
	})
	return errors.Join(err, checkErr)
}

// Socketpair returns the two ends of a control connection: the parent's for
// NewClient, and the one to hand to socksd (exec.Cmd.ExtraFiles, --control-fd)
// and to close then.
func Socketpair() (parent *net.UnixConn, child *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("control socket pair: %w", err)
	}
	child = os.NewFile(uintptr(fds[1]), "socksd control")
	f := os.NewFile(uintptr(fds[0]), "socksd control")
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		child.Close()
		return nil, nil, fmt.Errorf("control socket pair: %w", err)
	}
	return conn.(*net.UnixConn), child, nil
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
