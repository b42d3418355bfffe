// Package router is the one owner of the router's configuration: it applies what a user has
// set to the network, the firewall and the services, or changes nothing, keeps it on flash,
// and undoes it where Safe Mode, a rescue or the trial of an upgrade says so.
package router

import (
	"context"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
)

// Files of the image.
const (
	programPath       = "/bin/postern"
	configurationFile = "/etc/default.rsc" // unless flash has one
	resolverFile      = "/etc/resolv.conf"
	commandLineFile   = "/proc/cmdline"
	iptablesProgram   = "/sbin/iptables"
)

// Router owns the configuration, and what it is applied to.
type Router struct {
	board    board.Board
	log      *kmsg.Logger
	network  *netcfg.Manager
	firewall *firewall.Firewall
	requests chan<- console.Request
	// end restarts the machine now.
	end      func()
	kept     *keeping
	services []Service
	logins   logins
	state    *keptState
	upgrades upgrades
	// settled takes each configuration that is to survive a restart, with mu held.
	settled func(console.Config)
	// sessions holds an element for each.
	sessions chan struct{}
	// safeSilence is the constant of that name, but in tests.
	safeSilence time.Duration

	// mu serialises the sessions' changes, and guards what is below.
	mu sync.Mutex
	// config is what a user sees and changes.
	config console.Config
	// running is what the system has, with forwarding if that is set: not before applied
	// is. It is config, but for a rescue configuration.
	running             console.Config
	forwarding, applied bool
	// unmended says that running is a rescue configuration because config lacks lines.
	unmended bool
	// busy remembers the last look at the processors' time.
	busy processorTime
	// trial is the Safe Mode of a session, nil if none is in it.
	trial *safeMode
}

// New returns the router of that board, with nothing applied yet. It waits for a disk that
// has the configuration, and sets the clock and the kernel's random numbers by what flash
// says. A restart of the machine is asked for by a word to requests; end is called if it
// does not come.
func New(b board.Board, log *kmsg.Logger, requests chan<- console.Request, end func()) (*Router, error) {
	awaitDisk(b.Flash, "/sys", lateDisk)
	state := openState(log)
	state.startSeed()
	state.startClock(time.Now())
	r, err := newRouter(b, log, state, requests)
	if err != nil {
		return nil, err
	}
	r.end = end
	return r, nil
}

// Start applies the configuration, and runs what the router runs until ctx is done.
func (r *Router) Start(ctx context.Context) {
	go r.prove(ctx)
	go r.state.keepTime(ctx.Done())
	r.start(ctx)
	if err := r.serveSessions(); err != nil {
		r.log.Printf(kmsg.Error, "%v", err)
	}
	r.startConsoles(ctx)
}

func newRouter(b board.Board, log *kmsg.Logger, state *keptState, requests chan<- console.Request) (*Router, error) {
	var ports []netcfg.Port
	for _, p := range b.Ports {
		ports = append(ports, netcfg.Port{Name: p.Name, Device: p.Device})
	}
	network, err := netcfg.New(ports, func(format string, args ...any) { log.About("interface").Printf(kmsg.Warning, format, args...) })
	if err != nil {
		return nil, err
	}
	fw, err := firewall.New(iptablesProgram)
	if err != nil {
		return nil, err
	}
	r := &Router{board: b, log: log, network: network, firewall: fw, requests: requests,
		config: console.Default(), running: console.Default(), kept: openKeeping(log),
		state: state, upgrades: upgrades{running: readVersion(b, versionFile)},
		logins: logins{sleep: time.Sleep}, safeSilence: safeSilence, sessions: make(chan struct{}, maxSessions)}
	r.settled = r.keep
	r.services = []Service{
		newSocksService(log.About("socks"), fw),
		&remoteLog{sender: kmsg.NewRemote(log)},
		newTimeService(log.About("ntp"), r.upgrades.running.Date),
	}
	return r, nil
}

// start applies the configuration or, if that is not to be, the rescue
// configuration. Until the rules of either stand every port is down and nothing
// is forwarded, as the kernel starts: it needs no rule to be closed.
func (r *Router) start(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.load()
	r.tell(l.err)
	closed := l.refused
	if !closed {
		if err := r.apply(l.config, true); err != nil {
			r.tell(err)
			closed = true
		}
	}
	if closed {
		r.rescue(l)
	}
	go func() {
		if err := r.network.Run(ctx); err != nil && ctx.Err() == nil {
			r.log.Printf(kmsg.Error, "network: %v", err)
		}
	}()
}

// rescue closes the router but for its LAN. What was right of the configuration stays
// for a user to mend, if it can be.
func (r *Router) rescue(l loaded) {
	rescue := rescueConfig(l.config, r.board)
	r.log.Printf(kmsg.Error, "the configuration is not applied: forwarding is closed, the router is at %s", lanAddresses(rescue, r.board))
	if err := r.apply(rescue, false); err != nil {
		r.log.Printf(kmsg.Error, "rescue configuration: %v", err)
		// Without a firewall: the LAN alone, and nothing passes.
		if err := r.network.Apply(lanOnly(rescue, r.board)); err != nil {
			r.log.Printf(kmsg.Error, "LAN: %v", err)
		}
	}
	r.unmended = l.refused
	r.config = rescue
	if console.Validate(l.config, r.board.PortNames()) == nil {
		r.config = l.config
	}
}

// rescueConfig keeps the LAN's addresses of a configuration that was refused, or
// gives it one; it keeps its password, lets the LAN in to the router and nothing through.
func rescueConfig(refused console.Config, b board.Board) console.Config {
	c := console.Default()
	// A password holds whatever else is wrong.
	c.Identity, c.AdminPassword = refused.Identity, refused.AdminPassword
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
func (r *Router) apply(next console.Config, forwarding bool) error {
	old := r.running
	var undo []func() error
	fail := func(err error) error {
		for i := len(undo) - 1; i >= 0; i-- {
			if err := undo[i](); err != nil {
				r.log.Printf(kmsg.Error, "undo: %v", err)
			}
		}
		return err
	}
	if !r.applied || !reflect.DeepEqual(old.Rules(), next.Rules()) {
		if err := r.firewall.Apply(next.Rules()); err != nil {
			return fail(err)
		}
		undo = append(undo, func() error {
			if !r.applied {
				return r.firewall.Lock()
			}
			return r.firewall.Apply(old.Rules())
		})
	}
	if network := networkOf(next, forwarding); !r.applied || !reflect.DeepEqual(networkOf(old, r.forwarding), network) {
		if err := r.network.Apply(network); err != nil {
			return fail(err)
		}
		undo = append(undo, func() error { return r.network.Apply(networkOf(old, r.forwarding)) })
		if !r.applied {
			r.log.Printf(kmsg.Notice, "network is ready after %s", kmsg.Uptime())
		}
	}
	if err := writeNames(next); err != nil {
		return fail(err)
	}
	undo = append(undo, func() error { return writeNames(old) })
	for _, s := range r.services {
		if err := s.Apply(next); err != nil {
			return fail(err)
		}
		undo = append(undo, func() error { return s.Apply(old) })
	}
	r.config, r.running, r.forwarding, r.applied = next, next, forwarding, true
	return nil
}

func networkOf(c console.Config, forwarding bool) netcfg.Config {
	network := c.Network()
	network.Forwarding = forwarding
	return network
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
func (r *Router) execute(s *session.Session, line string) (console.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.believes(s); err != nil {
		return console.Result{}, err
	}
	result, err := s.Execute(r.config, r.live(), line)
	if err == nil {
		err = r.accept(s, &result)
	}
	if err != nil {
		return console.Result{}, err
	}
	if result.Request == console.SetClock {
		if err := r.setClock(result.Clock); err != nil {
			return console.Result{}, err
		}
	}
	return result, nil
}

// accept makes what a session's lines have changed the configuration. The caller
// holds mu.
func (r *Router) accept(s *session.Session, result *console.Result) error {
	if !result.Changed {
		return nil
	}
	if err := r.change(s, result.Config); err != nil {
		return err
	}
	result.Output += r.warning()
	return nil
}

// importLines runs a session's lines: what all of them change is applied together, or
// nothing.
func (r *Router) importLines(s *session.Session, text string) (console.Result, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.believes(s); err != nil {
		return console.Result{}, err
	}
	result, err := s.Import(r.config, r.live(), text)
	if err == nil {
		err = r.accept(s, &result)
	}
	if err != nil {
		return console.Result{}, err
	}
	return result, nil
}

func (r *Router) prompt(s *session.Session) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard(s)
	s.Safe = r.trial != nil && r.trial.holder == s
	return s.Prompt(r.config.Identity)
}

// complete and help answer what a user asks while typing.
func (r *Router) complete(s *session.Session, before string) (string, []console.Choice) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard(s)
	return s.Complete(r.config, r.live(), before)
}

func (r *Router) help(s *session.Session, before string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.heard(s)
	return s.Help(r.config, r.live(), before)
}

// live gives the console what the system alone knows.
func (r *Router) live() console.Live {
	live := console.Live{
		Links:    r.network.State,
		Openings: r.firewall.Openings,
		Now:      time.Now,
		Counters: r.firewall.Counters,
		Log: func() ([]string, error) {
			return r.log.Lines(kmsg.View{Called: r.config.Called, Zone: r.config.TimeZone})
		},
		Resource:  r.resource,
		Invalid:   r.invalid,
		Addresses: r.dynamicAddresses,
		Routes:    r.dynamicRoutes,
		Neighbors: r.neighbors,
		Tracked:   trackedConnections,
		// A hash is made by the line that sets a password.
		HashPassword: r.logins.hash,
		WAN:          r.board.WAN,
		Requests: []console.Request{console.Import, console.ChangePassword, console.ResetConfiguration,
			console.Ping, console.Traceroute, console.SetClock, console.Upgrade},
		Slots: r.slots,
	}
	for _, s := range r.services {
		s.Show(&live)
	}
	return live
}

// Shutdown ends the services in order: no new change of the configuration, which is
// on flash then, no new connection, the old ones closed, nothing forwarded.
func (r *Router) Shutdown() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.kept.close() // it logs its error
	r.state.close()
	for _, s := range slices.Backward(r.services) {
		s.Stop()
	}
	if err := r.network.Apply(networkOf(r.running, false)); err != nil {
		r.log.Printf(kmsg.Warning, "%v", err)
	}
	if err := r.firewall.Lock(); err != nil {
		r.log.Printf(kmsg.Warning, "%v", err)
	}
}
