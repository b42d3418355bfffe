package main

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// router owns the configuration, and what it is applied to.
type router struct {
	board    board.Board
	log      *logger
	network  *netcfg.Manager
	firewall *firewall.Firewall
	socks    *socksService
	requests chan<- console.Request

	// mu serialises the sessions' changes, and guards what is below.
	mu     sync.Mutex
	config console.Config
	// busy remembers the last look at the processors' time.
	busy processorTime
	// applied says that config is what the system has: not before the first one.
	applied bool
}

func newRouter(b board.Board, log *logger, requests chan<- console.Request) (*router, error) {
	var ports []netcfg.Port
	for _, p := range b.Ports {
		ports = append(ports, netcfg.Port{Name: p.Name, Device: p.Device})
	}
	network, err := netcfg.New(ports, func(format string, args ...any) { log.printf(levelWarning, format, args...) })
	if err != nil {
		return nil, err
	}
	fw, err := firewall.New(iptablesProgram)
	if err != nil {
		return nil, err
	}
	r := &router{board: b, log: log, network: network, firewall: fw, requests: requests, config: console.Default()}
	r.socks = newSocksService(log, fw)
	return r, nil
}

// start applies the configuration or, if that is not to be, the rescue
// configuration. Until the rules of either stand every port is down and nothing
// is forwarded, as the kernel starts: it needs no rule to be closed.
func (r *router) start(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	config, err := r.load()
	if err == nil {
		err = r.apply(config, true)
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			r.log.printf(levelError, "%s", strings.TrimSpace(line))
		}
		rescue := rescueConfig(config, r.board)
		r.log.printf(levelError, "the configuration is not applied: forwarding is closed, the router is at %s", lanAddresses(rescue, r.board))
		if err := r.apply(rescue, false); err != nil {
			r.log.printf(levelError, "rescue configuration: %v", err)
			// Without a firewall: the LAN alone, and nothing passes.
			if err := r.network.Apply(lanOnly(rescue, r.board)); err != nil {
				r.log.printf(levelError, "LAN: %v", err)
			}
		}
	}
	go func() {
		if err := r.network.Run(ctx); err != nil && ctx.Err() == nil {
			r.log.printf(levelError, "network: %v", err)
		}
	}()
}

// load reads the configuration. Its error names file and line; what was right is
// returned with it.
func (r *router) load() (console.Config, error) {
	f, err := os.Open(configurationFile)
	if err != nil {
		return console.Default(), err
	}
	defer f.Close()
	config, err := console.Load(configurationFile, f)
	if err != nil {
		return config, err
	}
	if err := console.Validate(config, r.board.PortNames()); err != nil {
		return config, fmt.Errorf("%s: %w", configurationFile, err)
	}
	return config, nil
}

// rescueConfig keeps the LAN's addresses of a configuration that was refused, or
// gives it one; it lets the LAN in to the router and nothing through.
func rescueConfig(refused console.Config, b board.Board) console.Config {
	c := console.Default()
	lan := refused.Network().Actual(b.LAN) // of a port of a bridge, that bridge
	for _, a := range refused.Addresses {
		if (a.Interface == b.LAN || a.Interface == lan) && !a.Disabled {
			a.Interface = b.LAN
			c.Addresses = append(c.Addresses, a)
		}
	}
	if c.Addresses == nil || console.Validate(c, b.PortNames()) != nil {
		lan, err := match.ParsePrefix("192.168.0.1/24")
		if err != nil {
			panic(err) // a constant
		}
		c.Addresses = []netcfg.Address{{Address: lan, Interface: b.LAN}}
	}
	c.Firewall.Filter = []firewall.Rule{
		{Chain: "input", Action: "drop", InInterface: "!" + b.LAN, Comment: "rescue"},
		{Chain: "forward", Action: "drop", Comment: "rescue"},
	}
	return c
}

// lanOnly is the network of c with every other port down.
func lanOnly(c console.Config, b board.Board) netcfg.Config {
	network := netcfg.Config{Addresses: c.Addresses}
	for _, p := range b.PortNames() {
		network.Links = append(network.Links, netcfg.Link{Name: p, Disabled: p != b.LAN})
	}
	return network
}

func lanAddresses(c console.Config, b board.Board) string {
	var list []string
	for _, a := range c.Addresses {
		if a.Interface == b.LAN {
			list = append(list, a.Address.Addr().String())
		}
	}
	return strings.Join(list, ", ")
}

// apply makes next the configuration of the running system, or changes nothing.
// The caller holds mu.
func (r *router) apply(next console.Config, forwarding bool) error {
	old := r.config
	var undo []func() error
	fail := func(err error) error {
		for i := len(undo) - 1; i >= 0; i-- {
			if err := undo[i](); err != nil {
				r.log.printf(levelError, "undo: %v", err)
			}
		}
		return err
	}
	if !r.applied || !reflect.DeepEqual(old.Firewall, next.Firewall) {
		if err := r.firewall.Apply(next.Firewall); err != nil {
			return fail(err)
		}
		undo = append(undo, func() error {
			if !r.applied {
				return r.firewall.Lock()
			}
			return r.firewall.Apply(old.Firewall)
		})
	}
	if network := networkOf(next, forwarding); !r.applied || !reflect.DeepEqual(networkOf(old, forwarding), network) {
		if err := r.network.Apply(network); err != nil {
			return fail(err)
		}
		undo = append(undo, func() error { return r.network.Apply(networkOf(old, r.applied && forwarding)) })
		if !r.applied {
			r.log.printf(levelNotice, "network is ready after %s", uptime())
		}
	}
	if err := writeNames(next); err != nil {
		return fail(err)
	}
	undo = append(undo, func() error { return writeNames(old) })
	if err := r.socks.apply(socksOf(next)); err != nil {
		return fail(err)
	}
	r.config, r.applied = next, true
	return nil
}

func networkOf(c console.Config, forwarding bool) netcfg.Config {
	network := c.Network()
	network.Forwarding = forwarding
	return network
}

// socksOf is what socksd is told: it cannot read resolv.conf.
func socksOf(c console.Config) socks.Config {
	c.Socks.NameServers = c.DNS
	return c.Socks
}

// writeNames sets the host name, and tells Go's resolver in this process and the
// tools of the debug image which name servers to ask.
func writeNames(c console.Config) error {
	if err := unix.Sethostname([]byte(c.Identity)); err != nil {
		return fmt.Errorf("set the host name to %q: %w", c.Identity, err)
	}
	var b strings.Builder
	for _, s := range c.DNS {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if err := os.WriteFile(resolverFile, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	return nil
}

// execute runs a session's line: the change it makes is applied, or the line fails.
func (r *router) execute(s *console.Session, line string) (console.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	result, err := s.Execute(r.config, r.live(), line)
	if err != nil {
		return console.Result{}, err
	}
	if result.Changed {
		if err := console.Validate(result.Config, r.board.PortNames()); err != nil {
			return console.Result{}, err
		}
		if err := r.apply(result.Config, true); err != nil {
			return console.Result{}, err
		}
	}
	if result.Request == console.SetClock {
		if err := r.setClock(result.Clock); err != nil {
			return console.Result{}, err
		}
	}
	if result.Request == console.Reboot || result.Request == console.Shutdown {
		select {
		case r.requests <- result.Request:
		default: // one is on its way
		}
	}
	return result, nil
}

func (r *router) prompt(s *console.Session) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.Prompt(r.config.Identity)
}

// complete and help answer what a user asks while typing.
func (r *router) complete(s *console.Session, before string) (string, []console.Choice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.Complete(r.config, r.live(), before)
}

func (r *router) help(s *console.Session, before string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return s.Help(r.config, r.live(), before)
}

// live gives the console what the system alone knows.
func (r *router) live() console.Live {
	return console.Live{
		Links:       r.network.State,
		Connections: r.socks.connections,
		Hits:        r.socks.hits,
		Openings:    r.firewall.Openings,
		Now:         time.Now,
		Counters:    r.firewall.Counters,
		Log:         r.log.lines,
		Resource:    r.resource,
		Invalid:     r.invalid,
		Addresses:   r.dynamicAddresses,
		Routes:      r.dynamicRoutes,
		Neighbors:   r.neighbors,
		Tracked:     trackedConnections,
		Requests:    []console.Request{console.Ping, console.Traceroute, console.SetClock},
	}
}

// shutdown ends the services in order: no new connection, the old ones closed,
// nothing forwarded.
func (r *router) shutdown() {
	r.socks.stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.network.Apply(networkOf(r.config, false)); err != nil {
		r.log.printf(levelWarning, "%v", err)
	}
	if err := r.firewall.Lock(); err != nil {
		r.log.printf(levelWarning, "%v", err)
	}
}

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano()).Round(time.Millisecond)
}
