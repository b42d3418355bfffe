package daemon

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/socks"
)

const usage = `socksd is a SOCKS server: version 4 and 4a, or 5, with CONNECT, BIND and,
in version 5, UDP ASSOCIATE.

Synopsis:
  socksd [--listen ADDRESS:PORT] [--access RULE]... [OPTIONS]
  socksd passwd NAME

Description:
  Relays TCP connections of clients as the access list allows. The rules of the
  list are tried in order, the first that matches decides, and a connection that
  none matches is allowed: end the list with --access action=deny. It never
  connects to the machine that it runs on. It logs to standard error, and ends
  at SIGTERM, SIGINT or SIGHUP.

  Version 5 can ask for a name and a password. The users are in a file, one in
  each line, with a hash of the password (# begins a comment):
    NAME:HASH[:only-one][:rate-limit=RATE][:disabled]
  only-one allows the user one connection at a time, rate-limit=10M bounds all of
  the user's together to 10 Mbit/s each way. "socksd passwd NAME" reads a password,
  from the terminal or one line of standard input, and writes the line for it.
  The file is read once, before root is given up: no other user needs to be able
  to read it. To change users, start socksd again: no signal makes it read the
  file (SIGHUP ends it).

Examples:
  Only for 192.168.0.2 to FTP servers and what they open:
    socksd --listen 192.168.0.1:1080 \
      --access 'src-address=192.168.0.2 dst-port=21 action=allow' \
      --access 'src-address=192.168.0.2 dst-port=1024-65535 action=allow' \
      --access 'action=deny'
  For whoever has a password:
    socksd passwd alice >>/etc/socksd.users
    socksd --listen 192.168.0.1:1080 --socks-version 5 --auth-method password \
      --users /etc/socksd.users

Options:
`

const (
	// shutdownTime is how long closing all connections may take.
	shutdownTime = 3 * time.Second
	// sayTime is how long a line on standard error may take that the process waits for.
	sayTime = time.Second
)

// flags are the command line.
type flags struct {
	listen   string
	access   []string
	idle     time.Duration
	max      int
	user     string
	allowOwn bool
	version  int
	auth     string
	users    string
	udp      bool
}

// Main is the program socksd by itself. args are the arguments behind its name. It returns
// the exit code: 0 after SIGTERM, SIGINT, SIGHUP or --help, 1 after a failure, 2 when the arguments
// are wrong.
func Main(args []string) int {
	if len(args) > 0 && args[0] == passwdCommand {
		return runPasswd(args[1:], os.Stdin, os.Stdout, os.Stderr)
	}
	logger := log.New(os.Stderr, "socksd: ", 0)
	defaults := socks.DefaultConfig()
	var f flags
	set := pflag.NewFlagSet("socksd", pflag.ContinueOnError)
	set.SortFlags = false
	set.SetOutput(io.Discard)
	set.StringVar(&f.listen, "listen", "127.0.0.1:1080", "IPv4 `ADDRESS:PORT` to accept clients on")
	set.StringArrayVar(&f.access, "access", nil, "append a `RULE` to the access list: words key=value of src-address, dst-address (address, prefix, netmask or range), src-port, dst-port (ports and ranges), action (allow or deny), disabled; ! before a value for its opposite")
	set.IntVar(&f.version, "socks-version", defaults.Version, "version of the protocol, `4|5`; without passwords version 5 serves clients of version 4 too")
	set.StringVar(&f.auth, "auth-method", string(defaults.AuthMethod), "how clients of version 5 say who they are, `none|password`")
	set.StringVar(&f.users, "users", "", "`FILE` with the users of --auth-method password")
	set.BoolVar(&f.udp, "udp", false, "let clients of version 5 send and receive datagrams (UDP ASSOCIATE)")
	set.IntVar(&f.max, "max-connections", defaults.MaxConnections, "how many connections there may be at once, `1..500`")
	set.DurationVar(&f.idle, "idle-timeout", defaults.ConnectionIdleTimeout, "close a connection after this `TIME` without data in either direction")
	set.StringVar(&f.user, "user", "nobody", "`USER` to run as once the port is open, when started as root")
	set.BoolVar(&f.allowOwn, "allow-own-addresses", false, "let clients connect to this machine too, for a laboratory: opens all that listens on loopback")
	help := set.BoolP("help", "h", false, "show this text")
	err := set.Parse(args)
	if err == nil && set.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if err != nil {
		say(logger, "%v (see --help)", err)
		return 2
	}
	if *help {
		fmt.Print(usage + set.FlagUsagesWrapped(80))
		return 0
	}

	// If nothing reads standard error any more, lines are lost. That must not end socksd.
	signal.Ignore(syscall.SIGPIPE)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if !signal.Ignored(syscall.SIGHUP) { // nohup(1) has it ignored
		signal.Notify(signals, syscall.SIGHUP)
	}
	cfg, err := f.config()
	if err != nil {
		say(logger, "%v (see --help)", err)
		return 2
	}
	if f.users != "" {
		if cfg.Users, err = readUsers(f.users); err == nil {
			err = cfg.Validate() // they may be too many
		}
		if err != nil {
			say(logger, "%v", err)
			return 1
		}
		if !slices.ContainsFunc(cfg.Users, func(u socks.User) bool { return !u.Disabled }) {
			say(logger, "warning: %s has no user that is enabled: everybody will be refused", f.users)
		}
	}
	if err := runAlone(f, cfg, signals, logger); err != nil {
		say(logger, "%v", err)
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
	cfg := socks.DefaultConfig()
	cfg.Enabled, cfg.Port, cfg.ConnectionIdleTimeout, cfg.MaxConnections = true, addr.Port(), f.idle, f.max
	cfg.Version, cfg.AuthMethod, cfg.UDP = f.version, socks.AuthMethod(f.auth), f.udp
	switch password := cfg.AuthMethod == socks.AuthPassword; {
	case cfg.Version == 4 && password:
		return socks.Config{}, errors.New("--auth-method password needs --socks-version 5: version 4 has no passwords")
	case cfg.Version == 4 && cfg.UDP:
		return socks.Config{}, errors.New("--udp needs --socks-version 5")
	case password && f.users == "":
		return socks.Config{}, errors.New("--auth-method password needs --users")
	case !password && f.users != "":
		return socks.Config{}, errors.New("--users needs --auth-method password")
	}
	for _, s := range f.access {
		r, err := parseRule(s)
		if err != nil {
			return socks.Config{}, err
		}
		cfg.Access = append(cfg.Access, r)
	}
	return cfg, cfg.Validate()
}

// runAlone is socksd by itself.
func runAlone(f flags, cfg socks.Config, signals <-chan os.Signal, logger *log.Logger) error {
	file, err := service.Listen(netip.MustParseAddrPort(f.listen))
	if err != nil {
		return err
	}
	l, err := listenerOf(file)
	if err != nil {
		return err
	}
	if err := limitDescriptors(cfg); err != nil {
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
		say(logger, "%v", err)
	}
	server := socks.New(socks.Options{Logf: logger.Printf, AllowOwnAddresses: f.allowOwn})
	if err := server.Configure(cfg, l); err != nil {
		return err
	}
	say(logger, "accepting on %s", l.Addr())
	s := <-signals
	say(logger, "%v: closing", s)
	return shutdown(server)
}

// say logs a line. It does not wait long for a standard error that is a full pipe: signals must
// be served all the same.
func say(logger *log.Logger, format string, args ...any) {
	said := make(chan struct{})
	go func() {
		defer close(said)
		logger.Printf(format, args...)
	}()
	select {
	case <-said:
	case <-time.After(sayTime):
	}
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
