package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/socks"
)

const usage = `socksd is a SOCKS4 and SOCKS4a server, for CONNECT and BIND.

Synopsis:
  socksd [--listen ADDRESS:PORT] [--access RULE]... [OPTIONS]
  socksd --control-fd N

Description:
  Relays TCP connections of clients as the access list allows. The rules of the
  list are tried in order, the first that matches decides, and a connection that
  none matches is allowed: end the list with --access action=deny. It never
  connects to the machine that it runs on. It logs to standard error, and ends
  at SIGTERM or SIGINT.

Example, only for 192.168.0.2 to FTP servers and what they open:
  socksd --listen 192.168.0.1:1080 \
    --access 'src-address=192.168.0.2 dst-port=21 action=allow' \
    --access 'dst-port=1024-65535 action=allow' \
    --access 'action=deny'

Options:
`

// Bounds of the memory that Go manages, under a parent: on a router with 32 MB,
// collect early rather than grow. With 500 connections that all stream to slow
// receivers it was about 11 MB on amd64; 32-bit machines need less.
const (
	memoryLimit = 12 << 20 // bytes
	gcPercent   = 25
)

// shutdownTime is the most that the end of the process takes.
const shutdownTime = 3 * time.Second

// flags are the command line.
type flags struct {
	listen    string
	access    []string
	idle      time.Duration
	max       int
	user      string
	allowOwn  bool
	controlFD int
}

// Main is the program socksd. args are the arguments behind its name. It returns
// the exit code: 0 after SIGTERM, SIGINT, --help or the end of the control
// connection, 1 after a failure, 2 when the arguments are wrong.
func Main(args []string) int {
	logger := log.New(os.Stderr, "socksd: ", 0)
	defaults := socks.DefaultConfig()
	var f flags
	set := pflag.NewFlagSet("socksd", pflag.ContinueOnError)
	set.SortFlags = false
	set.SetOutput(io.Discard)
	set.StringVar(&f.listen, "listen", "127.0.0.1:1080", "IPv4 `ADDRESS:PORT` to accept clients on")
	set.StringArrayVar(&f.access, "access", nil, "append a `RULE` to the access list: words key=value of src-address, dst-address (address, prefix, netmask or range), src-port, dst-port (ports and ranges), action (allow or deny), disabled; ! before a value for its opposite")
	set.IntVar(&f.max, "max-connections", defaults.MaxConnections, "how many connections there may be at once, `1..500`")
	set.DurationVar(&f.idle, "idle-timeout", defaults.ConnectionIdleTimeout, "close a connection after this `TIME` without data in either direction")
	set.StringVar(&f.user, "user", "nobody", "`USER` to run as once the port is open, when started as root")
	set.BoolVar(&f.allowOwn, "allow-own-addresses", false, "let clients connect to this machine too, for a laboratory: opens all that listens on loopback")
	set.IntVar(&f.controlFD, "control-fd", -1, "descriptor `N` is the control socket of a parent, which gives the configuration and the listening socket; no other option goes with it")
	help := set.BoolP("help", "h", false, "show this text")
	err := set.Parse(args)
	if err == nil && set.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if err == nil && set.Changed("control-fd") && (set.NFlag() > 1 || f.controlFD < 3) {
		err = errors.New("--control-fd takes a descriptor above 2 and goes with no other option")
	}
	if err != nil {
		logger.Printf("%v (see --help)", err)
		return 2
	}
	if *help {
		fmt.Print(usage + set.FlagUsagesWrapped(80))
		return 0
	}

	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if f.controlFD >= 0 {
		err = runChild(f.controlFD, signals, logger)
	} else {
		cfg, configErr := f.config()
		if configErr != nil {
			logger.Printf("%v (see --help)", configErr)
			return 2
		}
		err = runAlone(f, cfg, signals, logger)
	}
	if err != nil {
		logger.Print(err)
		return 1
	}
	return 0
}

// config is the configuration that the flags describe.
func (f flags) config() (socks.Config, error) {
	addr, err := netip.ParseAddrPort(f.listen)
	if err != nil || !addr.Addr().Is4() {
		return socks.Config{}, fmt.Errorf("--listen %q is not an IPv4 address:port", f.listen)
	}
	cfg := socks.Config{Enabled: true, Port: addr.Port(), ConnectionIdleTimeout: f.idle, MaxConnections: f.max}
	for _, s := range f.access {
		r, err := parseRule(s)
		if err != nil {
			return socks.Config{}, err
		}
		cfg.Access = append(cfg.Access, r)
	}
	return cfg, cfg.Validate()
}

// runAlone is socksd without a parent.
func runAlone(f flags, cfg socks.Config, signals <-chan os.Signal, logger *log.Logger) error {
	file, err := Listen(netip.MustParseAddrPort(f.listen))
	if err != nil {
		return err
	}
	l, err := listenerOf(file)
	if err != nil {
		return err
	}
	if err := limitDescriptors(cfg.MaxConnections); err != nil {
		l.Close()
		return err
	}
	if os.Geteuid() == 0 {
		if err := become(f.user); err != nil {
			l.Close()
			return err
		}
	}
	if err := forbidNewPrivileges(); err != nil {
		logger.Print(err)
	}
	server := socks.New(socks.Options{Logf: logger.Printf, AllowOwnAddresses: f.allowOwn})
	if err := server.Configure(cfg, l); err != nil {
		return err
	}
	logger.Printf("accepting on %s", l.Addr())
	s := <-signals
	logger.Printf("%v: closing", s)
	return shutdown(server)
}

// shutdown ends the server, in bounded time.
func shutdown(server *socks.Server) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		server.Shutdown()
	}()
	select {
	case <-done:
		return nil
	case <-time.After(shutdownTime):
		return fmt.Errorf("connections are still open after %v", shutdownTime)
	}
}

// listenerOf makes a listener of a socket that listens, which it takes over.
func listenerOf(file *os.File) (*net.TCPListener, error) {
	defer file.Close()
	l, err := net.FileListener(file)
	if err != nil {
		return nil, fmt.Errorf("listener: %w", err)
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		l.Close()
		return nil, fmt.Errorf("listener is %s, not TCP", l.Addr().Network())
	}
	return tcp, nil
}

// runChild is socksd under a parent.
func runChild(controlFD int, signals <-chan os.Signal, logger *log.Logger) error {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
	// The server's loop has a thread of its own, which may be busy for long. With a
	// processor of Go's for others too, it is the kernel that shares out the time.
	runtime.GOMAXPROCS(max(2, runtime.NumCPU()))
	if err := limitDescriptors(socks.MaxMaxConnections); err != nil {
		logger.Print(err)
	}
	file := os.NewFile(uintptr(controlFD), "control")
	conn, err := net.FileConn(file)
	file.Close()
	if err != nil {
		return fmt.Errorf("control descriptor %d: %w", controlFD, err)
	}
	control, ok := conn.(*net.UnixConn)
	if !ok {
		conn.Close()
		return fmt.Errorf("control descriptor %d is not a Unix socket", controlFD)
	}
	if err := confine(); err != nil {
		logger.Print(err)
	}
	c := &child{link: newLink(control, maxLineToParent, maxLineToChild), logger: logger, slots: make(chan struct{}, openingsAtOnce)}
	c.server = socks.New(socks.Options{Logf: logger.Printf, Open: c.open, SocketMemory: socketMemory()})
	ended := make(chan error, 1)
	go func() { ended <- c.link.run(c.handle) }()
	select {
	case err = <-ended:
	case <-signals:
	}
	return errors.Join(err, shutdown(c.server))
}

// socketMemory returns what socket buffers may take on a router's small machine:
// a part in 16 of its memory, 1.7 MB with 32 MB, a third of it for connections that
// are not fast: pages are never full, and the kernel needs as much again. A larger
// machine is left to the kernel.
func socketMemory() int {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return 0
	}
	memory := uint64(info.Totalram) * uint64(info.Unit)
	if memory > 256<<20 {
		return 0
	}
	return int(memory / 16)
}

// child is socksd's end of the control connection.
type child struct {
	link   *link
	server *socks.Server
	logger *log.Logger
	slots  chan struct{} // a slot for each request about an opening
	// listed are the connections that the parent was not told yet of those that
	// it asked for; long is that they do not fit one reply. handle alone uses them.
	listed []socks.Connection
	long   bool
}

// connectionsAtOnce is how many connections a reply holds: with user ids of 255
// bytes that JSON writes six times as long, and all else, they fit a line.
const connectionsAtOnce = 32

// handle serves a request of the parent.
func (c *child) handle(m message, file *os.File) error {
	var reply message
	var err error
	switch m.Op {
	case opConfigure:
		err = c.configure(m.Config, file)
		file = nil
	case opConnections:
		// One look at the server for all parts of a list: each may have to wait.
		if m.Number == 0 {
			c.listed = c.server.Connections()
			c.long = len(c.listed) > connectionsAtOnce
		}
		for len(c.listed) > 0 && c.listed[0].Number <= m.Number {
			c.listed = c.listed[1:]
		}
		n := min(connectionsAtOnce, len(c.listed))
		reply.Connections, c.listed = c.listed[:n], c.listed[n:]
		if n == 0 && c.long {
			c.listed, c.long = nil, false
			debug.FreeOSMemory() // more is left of 500 than the connections take
		}
	case opClose:
		err = c.server.CloseConnection(m.Number)
	case opHits:
		reply.Hits = c.server.Hits()
	default:
		err = fmt.Errorf("no request %q", m.Op)
	}
	if file != nil {
		file.Close()
	}
	return c.link.answer(m.ID, reply, err)
}

func (c *child) configure(cfg *socks.Config, file *os.File) error {
	var l *net.TCPListener
	if file != nil {
		var err error
		if l, err = listenerOf(file); err != nil {
			return err
		}
	}
	if cfg == nil {
		cfg = &socks.Config{} // which Configure refuses
	}
	return c.server.Configure(*cfg, l)
}

// open has the parent open the firewall.
func (c *child) open(ctx context.Context, o socks.Opening, l *os.File) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	undo := func() {
		c.slots <- struct{}{}
		defer func() { <-c.slots }()
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		defer cancel()
		if _, err := c.link.call(ctx, message{Op: opClose, Opening: &o}, nil); err != nil && !errors.Is(err, errGone) {
			c.logger.Printf("close the firewall for %s to %s: %v", o.Peer, o.Local, err)
		}
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	_, err := c.link.call(ctx, message{Op: opOpen, Opening: &o}, l)
	<-c.slots
	if err != nil && ctx.Err() != nil {
		undo() // it may open yet
	}
	if err != nil {
		return nil, err
	}
	return undo, nil
}
