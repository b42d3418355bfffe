package router

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/socks"
	"github.com/postern-router/postern/store"
)

// rig is a router that drives fakes. Its tests run in the bubble of synctest, where time
// passes only while everybody waits.
type rig struct {
	*testing.T
	r        *Router
	network  *fakeNetwork
	firewall *fakeFirewall
	machine  *fakeMachine
	first    *fakeService
	second   *fakeService
	// requests are those of a restart.
	requests chan console.Request
	log      func() string

	mu sync.Mutex
	// did are the calls that changed something, in order.
	did []string
	// fails has the errors of calls, by the name of the part; an error is returned as often
	// as it stands there.
	fails map[string][]error
	kept  []console.Config // what was to survive, in order
}

// call notes a call of a part and returns its error.
func (g *rig) call(part string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.did = append(g.did, part)
	if e := g.fails[part]; len(e) > 0 {
		g.fails[part] = e[1:]
		return e[0]
	}
	return nil
}

// calls returns what was done since the last time.
func (g *rig) calls() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	did := g.did
	g.did = nil
	return did
}

// fail makes the next calls of a part fail, or succeed where err is nil.
func (g *rig) fail(part string, errs ...error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fails[part] = errs
}

// never blocks until the end of the test, as what hangs does.
type never chan struct{}

func (n never) wait() {
	if n != nil {
		<-n
	}
}

type fakeNetwork struct {
	rig    *rig
	config netcfg.Config
	hangs  never // Apply
	state  func() ([]netcfg.LinkState, error)
	other  []netcfg.Address
	routes []netcfg.KernelRoute
	wait   netcfg.Waiting
}

func (n *fakeNetwork) Apply(c netcfg.Config) error {
	n.hangs.wait()
	if err := n.rig.call("network"); err != nil {
		return err
	}
	n.config = c
	return nil
}
func (n *fakeNetwork) Run(ctx context.Context) error              { <-ctx.Done(); return ctx.Err() }
func (n *fakeNetwork) KeepNeighbors(ctx context.Context)          { <-ctx.Done() }
func (n *fakeNetwork) VLANMembers() ([]netcfg.VLANMembers, error) { return nil, nil }
func (n *fakeNetwork) PortModes(string) (netcfg.PortModes, error) { return netcfg.PortModes{}, nil }
func (n *fakeNetwork) State() ([]netcfg.LinkState, error)         { return n.state() }
func (n *fakeNetwork) Waiting() (netcfg.Waiting, error) {
	w := n.wait
	w.Routes = slices.Clone(w.Routes) // it is the caller's
	return w, nil
}
func (n *fakeNetwork) ForgetNeighbors([]netcfg.Neighbor) error { return n.rig.call("forget neighbors") }

func (n *fakeNetwork) LinkTo(netip.Addr) string { return "" }

func (n *fakeNetwork) AskNeighbor(context.Context, netip.Addr, string) bool { return false }

func (n *fakeNetwork) Neighbors() ([]netcfg.Neighbor, error) {
	return []netcfg.Neighbor{{Interface: "ether1"}}, nil
}
func (n *fakeNetwork) Dynamic() ([]netcfg.Address, []netcfg.KernelRoute, error) {
	return n.other, n.routes, nil
}

type fakeFirewall struct {
	reset  []string // what ResetCounters was told
	rig    *rig
	config firewall.Config
	locked bool
	hangs  never // Counters and Openings
	// openings are those of SOCKS clients that wait.
	openings []firewall.Opening
}

func (f *fakeFirewall) Apply(c firewall.Config) error {
	if err := f.rig.call("firewall"); err != nil {
		return err
	}
	f.config, f.locked = c, false
	return nil
}

func (f *fakeFirewall) ForgetRetranslated(old, next firewall.Config) (int, error) {
	if reflect.DeepEqual(old.NAT, next.NAT) && reflect.DeepEqual(old.Lists, next.Lists) {
		return 0, nil
	}
	return len(old.NAT) + len(next.NAT), f.rig.call("forget")
}

func (f *fakeFirewall) Lock() error {
	if err := f.rig.call("lock"); err != nil {
		return err
	}
	f.config, f.locked = firewall.Config{}, true
	return nil
}

func (f *fakeFirewall) ResetCounters(t firewall.Table, rules []int) error {
	f.reset = append(f.reset, fmt.Sprint(t, rules))
	return nil
}

func (f *fakeFirewall) Counters(t firewall.Table) ([]firewall.Counter, error) {
	f.hangs.wait()
	return make([]firewall.Counter, len(f.config.Rules(t))), nil
}

func (f *fakeFirewall) Filled(int) ([]firewall.Filled, int, error) {
	f.hangs.wait()
	return nil, 0, nil
}

func (f *fakeFirewall) RemoveFilled([]firewall.Filled) error { return nil }

func (f *fakeFirewall) Openings() []firewall.Opening { f.hangs.wait(); return f.openings }

type fakeMachine struct {
	rig       *rig
	name      string
	servers   []netip.Addr
	clock     time.Time
	zone      time.Duration
	restarted atomic.Bool
}

func (m *fakeMachine) SetNames(name string, servers []netip.Addr) error {
	if err := m.rig.call("names"); err != nil {
		return err
	}
	m.name, m.servers = name, slices.Clone(servers)
	return nil
}

func (m *fakeMachine) SetClock(t time.Time) error {
	if err := m.rig.call("clock"); err != nil {
		return err
	}
	m.clock = t
	return nil
}

func (m *fakeMachine) SetZone(ahead time.Duration) error {
	m.zone = ahead
	return nil
}

func (m *fakeMachine) Restart() { m.restarted.Store(true) }

type fakeService struct {
	rig    *rig
	name   string
	config console.Config
	ill    atomic.Pointer[error]
	hangs  never // what the console is shown
	lists  chan struct{}
	slow   chan error // says when its process has taken a change, nil for at once
	left   []netip.Addr
}

func (s *fakeService) Leave(gone []netip.Addr) { s.left = append(s.left, gone...) }

func (s *fakeService) Name() string { return s.name }

func (s *fakeService) Apply(next console.Config) error {
	if err := s.rig.call(s.name); err != nil {
		return err
	}
	s.config = next
	return nil
}

func (s *fakeService) Taken(ctx context.Context) error {
	if s.slow == nil {
		return nil
	}
	select {
	case err := <-s.slow:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Health is well unless the test says otherwise.
func (s *fakeService) Health() error {
	if err := s.ill.Load(); err != nil {
		return *err
	}
	return nil
}

func (s *fakeService) Stop() { _ = s.rig.call("stop " + s.name) }

func (s *fakeService) Show(live *console.Live) {
	live.Hits = func() ([]uint64, error) {
		s.hangs.wait()
		if s.lists != nil {
			s.lists <- struct{}{}
			<-s.lists
		}
		return make([]uint64, len(s.config.Socks.Access)), nil
	}
	live.Connections = func() ([]socks.Connection, error) {
		return []socks.Connection{{Number: 7, Type: socks.Out}, {Number: 8, Type: socks.Out}}, nil
	}
	live.CloseConnections = func(numbers []uint64) error { return s.rig.call(fmt.Sprint("close ", numbers)) }
}

// newRig returns a router that has not started, of a board with a WAN and a LAN port.
func newRig(t *testing.T) *rig {
	dir := t.TempDir()
	log, said := testLog(t)
	g := &rig{T: t, log: said, fails: map[string][]error{}, requests: make(chan console.Request, 1)}
	g.network, g.firewall, g.machine = &fakeNetwork{rig: g}, &fakeFirewall{rig: g}, &fakeMachine{rig: g}
	g.first, g.second = &fakeService{rig: g, name: "first"}, &fakeService{rig: g, name: "second"}
	b := board.Board{Name: "rig", WAN: "ether1", LAN: "ether2", Ports: []board.Port{
		{Name: "ether1", Device: "pci0/1"}, {Name: "ether2", Device: "pci0/2"}}}
	g.network.state = func() ([]netcfg.LinkState, error) {
		return []netcfg.LinkState{{Name: "ether1", Present: true}, {Name: "ether2", Present: true}}, nil
	}
	g.r = New(b, log, Parts{Network: g.network, Firewall: g.firewall, Machine: g.machine, Services: []Service{g.first, g.second}, Supervisor: newSupervisor(log)}, g.requests)
	g.r.root, g.r.defaults = dir, filepath.Join(dir, "default.rsc")
	g.file("default.rsc", "")
	g.file("proc/sys/net/ipv4/ip_forward", "1\n")
	g.r.resetHeld = func() bool { return false }
	g.r.keep = func(c console.Config) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.kept = append(g.kept, c)
	}
	// Hashes take a second of a processor that has nothing else to do.
	g.r.logins.make = func(secret string) (string, error) { return password.New(secret) }
	return g
}

// started returns a router that has applied the default configuration of its image.
func started(t *testing.T, defaults ...string) *rig {
	g := newRig(t)
	g.file("default.rsc", strings.Join(defaults, "\n"))
	g.r.start()
	require.True(t, g.r.snapshot().forwarding, g.log())
	g.calls()
	return g
}

// file writes a file below the router's root.
func (g *rig) file(path, text string) {
	g.Helper()
	path = filepath.Join(g.r.root, path)
	require.NoError(g, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(g, os.WriteFile(path, []byte(text), 0o600))
}

// onFlash gives the router a flash that has kept a text.
func (g *rig) onFlash(text string) {
	g.Helper()
	path := filepath.Join(g.r.root, "flash")
	s, err := store.Open(path)
	require.NoError(g, err)
	require.NoError(g, s.Save([]byte(text)))
	require.NoError(g, s.Close())
	require.NoError(g, g.r.kept.open(path))
	g.Cleanup(func() { _ = g.r.kept.flush() })
}

func (g *rig) lastKept() console.Config {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.kept) == 0 {
		return console.Default()
	}
	return g.kept[len(g.kept)-1]
}

// run runs a line in a session and returns what it puts out.
func (g *rig) run(s *session.Session, line string) (string, error) {
	result, err := g.r.execute(s, line)
	return result.Output, err
}

// must runs a line that succeeds in a new session.
func (g *rig) must(line string) string {
	g.Helper()
	out, err := g.run(&session.Session{}, line)
	require.NoError(g, err, line)
	return out
}

// guest is the far end of a session: what a terminal does, by hand.
type guest struct {
	g    *rig
	conn net.Conn
	over chan struct{}
}

// connect begins a session of the serial line.
func (g *rig) connect() *guest {
	return g.connectFrom(session.Origin{Via: session.Console, Terminal: "ttyS0"})
}

func (g *rig) connectFrom(from session.Origin) *guest {
	near, far := net.Pipe()
	c := &guest{g, far, make(chan struct{})}
	go func() {
		defer close(c.over)
		g.r.Serve(near, from)
	}()
	g.Cleanup(func() { far.Close() })
	return c
}

// connectAs begins a session of who has logged in over the network.
func (g *rig) connectAs(from session.Origin, user string, number uint64, first bool) *guest {
	near, far := net.Pipe()
	c := &guest{g, far, make(chan struct{})}
	go func() {
		defer close(c.over)
		g.r.serveUser(near, from, user, number, first)
	}()
	g.Cleanup(func() { far.Close() })
	return c
}

// hangUp ends a session from the terminal's side.
func (c *guest) hangUp() {
	c.conn.Close()
	<-c.over
}

// send sends a frame (console/internal/wire): its kind, the length of the text and that.
func (c *guest) send(kind byte, text string) {
	c.g.Helper()
	_, err := c.conn.Write(append([]byte{kind, 0, 0, byte(len(text) >> 8), byte(len(text))}, text...))
	require.NoError(c.g, err)
}

// until reads up to a frame of one of those kinds, and returns all texts.
func (c *guest) until(kinds string) string {
	c.g.Helper()
	var all strings.Builder
	for {
		var head [5]byte
		_, err := io.ReadFull(c.conn, head[:])
		require.NoError(c.g, err, all.String())
		text := make([]byte, int(head[3])<<8|int(head[4]))
		_, err = io.ReadFull(c.conn, text)
		require.NoError(c.g, err)
		all.Write(text)
		if strings.IndexByte(kinds, head[0]) >= 0 {
			return all.String()
		}
	}
}

// prompt reads up to the next prompt.
func (c *guest) prompt() string { return c.until("P") }

// run sends a line and returns what it printed, with the next prompt.
func (c *guest) run(line string) string {
	c.g.Helper()
	c.send('L', line)
	return c.prompt()
}

const (
	prompt     = "[admin@postern] > "
	safePrompt = "[admin@postern] <SAFE> > "
)

var errFake = errors.New("refused by the test")

// testLog is a log, and what it has.
func testLog(t *testing.T) (*kmsg.Logger, func() string) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return kmsg.New(f), func() string {
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		return string(text)
	}
}

func (n *fakeNetwork) QueueCounters() (map[uint16]netcfg.ClassCounters, error) { return nil, nil }
func (n *fakeNetwork) ResetQueueCounters([]uint16) error                       { return nil }
