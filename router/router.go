// Package router is the one owner of the router's configuration: it applies what a user has
// set to the network, the firewall and the services, keeps it on flash, undoes it at the end
// of Safe Mode, and rescues a router whose configuration cannot be applied.
//
// It promises:
//   - nothing is forwarded and no port answers before the user's rules stand;
//   - a change is applied whole or not at all: if a part refuses it, the others are undone;
//   - what a lease says is a [Layer] beside what the user set: both are merged before they are
//     applied, and only the user's part is kept on flash;
//   - one change is made at a time, and no lock is held over anything else that may wait: a
//     process that hangs delays no prompt, no answer to the watchdog, no undo of Safe Mode;
//   - what packets can make the kernel keep is bounded by the machine's memory
//     ([SetKernelParameters]), and no host fills the table of connections for the others;
//   - nothing is changed after [Router.Shutdown].
//
// It drives the interfaces of [Parts], so that it can be tested without a machine.
package router

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/postern-router/postern/api"
	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/web"
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
	journal  *kmsg.Journal // nil if there is none to read
	network  Network
	firewall Firewall
	machine  Machine
	services []Service
	// supervisor runs all processes.
	supervisor *service.Supervisor
	requests   chan<- console.Request
	kept       *configStore
	logins     logins
	changes    changeLog
	active     activeUsers
	state      *stateStore
	upgrades   upgrades
	files      fileStore
	// root is the folder of sys, dev and proc: "", but for tests.
	root string
	// defaults is the file of the configuration that the image came with.
	defaults string
	// commandLine is the kernel's.
	commandLine string
	// resetHeld reports whether the reset button is held.
	resetHeld func() bool
	// keep is told each configuration that shall survive a restart. It does not wait.
	keep func(console.Config)
	// sessions holds an element for each session.
	sessions chan struct{}
	// networkSessions counts the sessions over the network.
	networkSessions atomic.Int32

	// turn holds an element while a session changes the configuration. A session whose line
	// had to run again too often, because others were quicker, takes it before the line runs.
	// Changes by nobody's line, such as the undo of Safe Mode, do not wait for it.
	turn chan struct{}
	// pings holds an element for each ping or traceroute that runs.
	pings chan struct{}
	// changing holds an element while the system is brought from one state to the next. Only
	// the goroutine that put it there writes now and safeMode.
	changing chan struct{}
	// historyRoom is how many bytes the history may take.
	historyRoom int
	// imagePause is how long the upload of an image may stand still.
	imagePause time.Duration
	// changer is the session whose change is under way, nil if it is nobody's. Changing guards it.
	changer *session.Session
	// unsure means that the system may differ from now, because an undo failed: the next
	// change then applies all parts. Changing guards it.
	unsure bool
	// gave are the addresses that each source of a layer gave last. Changing guards it.
	gave map[string][]netip.Addr

	// stopped is closed by Shutdown: nothing is changed from then on.
	stopped chan struct{}

	// mu guards what is below. It is never held over anything that may wait.
	mu sync.Mutex
	// now is the state that the system has.
	now state
	// underWay ends when the present change has taken too long; nil if there is none.
	underWay context.Context
	// endUnderWay frees the timer of underWay.
	endUnderWay context.CancelFunc
	// safeMode is the Safe Mode of a session, nil if none is in it.
	safeMode *safeMode
	// busy is the processors' time when somebody last asked for it.
	busy processorTime
}

// state is the router's state at one moment. Its parts are never changed in place, so a copy
// can be read without a lock.
type state struct {
	// config is what a user sees and changes. Revision counts its changes.
	config   console.Config
	revision uint64
	// running is what is applied: config, or a rescue configuration.
	running console.Config
	// history is the changes of config since the start.
	history history
	// layers are what sources other than the user say of the network.
	layers layers
	// down are the gateways that do not answer.
	down map[gateway]bool
	// forwarding is set if packets are forwarded, applied if running has been applied.
	forwarding, applied bool
	// incomplete means that running is a rescue configuration, because lines of config could
	// not be read.
	incomplete bool
}

// Open returns the router of this machine, which is a board b, with nothing applied yet. It
// waits for the disk that has the configuration, and gives the kernel the time and the random
// seed from flash. The router asks for a restart or for power off by a value on requests; if
// nobody takes it, it calls restart.
func Open(b board.Board, log *kmsg.Logger, requests chan<- console.Request, restart func()) (*Router, error) {
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
	journal, err := kmsg.OpenJournal()
	if err != nil {
		return nil, err
	}
	log.KeepIn(journal)
	line, err := os.ReadFile(commandLineFile)
	if err != nil {
		log.Printf(kmsg.Error, "%v", err)
	}
	awaitDisk(b.Flash, "/sys", lateDisk)
	machine := linuxMachine{restart, resolverFile}
	state := openState(log, "/sys", "/dev")
	state.startSeed(addEntropy)
	state.startClock(time.Now(), machine.SetClock)
	running := readVersion(b, versionFile)
	supervisor := newSupervisor(log)
	names := newDNSService(supervisor, log.About("dns"))
	kept := openConfigStore(log, "/sys", "/dev")
	keeper := values(state, kept)
	leases := newDHCPService(supervisor, log.About("dhcp"), keeper, names.look)
	names.nameHosts(leases.hostNames)
	if state.kept() {
		state.last = leases.last
	} else {
		kept.last = leases.last
	}
	clients := newDHCPClients(supervisor, log.About("dhcp"), keeper)
	dialers := newPPPoEClients(supervisor, log.About("pppoe"))
	fallback := newFallbackService(b, log.About("dhcp"))
	lists := newAddressListService(log.About("firewall"), fw.Full)
	gateways := newGatewayService(log.About("route"), network)
	remote := newSSHService(supervisor, log.About("ssh"))
	programs := newProgramService(supervisor, log.About("api"), api.Spec)
	page := newWebService(supervisor, log.About("www"), web.Spec)
	r := New(b, log, Parts{
		Network: network, Firewall: fw, Machine: machine,
		Services: []Service{
			newTrackingService(log.About("firewall")),
			lists,
			newSocksService(supervisor, log.About("socks"), fw),
			&remoteLog{sender: kmsg.NewRemote(log, journal)},
			newTimeService(supervisor, log.About("ntp"), running.Date),
			leases,
			clients,
			dialers,
			fallback,
			gateways,
			names,
			remote,
			programs,
			newNeighborService(b.PortNames(), running.Version, b.Name, supervisor.Run, log.About("neighbor")),
			page,
		},
		Supervisor: supervisor,
	}, requests)
	clients.setLayer, dialers.setLayer, fallback.setLayer, leases.setLayer = r.SetLayer, r.SetLayer, r.SetLayer, r.SetLayer
	lists.expire, gateways.setDown = r.expireAddresses, r.setDown
	logLink := r.linkLog()
	network.OnLink = func(port string, up bool) {
		logLink(port, up)
		if up {
			sizeQueues(log, "/")
		}
	}
	network.OnUp = func(name string) {
		clients.linkUp(name)
		dialers.linkUp(name)
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		if memory, err := parseMeminfo(string(text), "MemTotal"); err == nil {
			r.historyRoom = historyRoom(memory)
		}
	}
	r.journal, r.state, r.kept, r.upgrades.running, r.commandLine = journal, state, kept, running, string(line)
	remote.attach(r)
	programs.attach(r, way{via: viaAPI})
	page.attach(r, way{via: viaWeb})
	r.addTLS(supervisor, log)
	return r, nil
}

// New returns a router that drives these parts. It keeps nothing on flash, and has no
// configuration but the default one.
func New(b board.Board, log *kmsg.Logger, parts Parts, requests chan<- console.Request) *Router {
	r := &Router{
		board: b, log: log, network: parts.Network, firewall: parts.Firewall, machine: parts.Machine, services: parts.Services, supervisor: parts.Supervisor,
		requests: requests, kept: &configStore{log: log}, state: &stateStore{log: log},
		upgrades: upgrades{running: readVersion(b, ""), busy: make(chan struct{}, 1)},
		logins:   newLogins(log),
		changes:  newChangeLog(log),
		defaults: configurationFile, sessions: make(chan struct{}, maxSessions),
		turn: make(chan struct{}, 1), pings: make(chan struct{}, maxPings), changing: make(chan struct{}, 1), stopped: make(chan struct{}),
		historyRoom: minHistory, imagePause: imagePause,
		now:  state{config: console.Default(), running: console.Default()},
		gave: map[string][]netip.Addr{},
	}
	r.resetHeld = func() bool {
		return resetHeld(log, func() bool { return anyPressed(inputDevices, keyRestart, pressedKeys) })
	}
	r.keep = func(c console.Config) { r.kept.put(c) }
	return r
}

// Start applies the configuration, and runs what the router runs until ctx is done.
func (r *Router) Start(ctx context.Context) {
	go r.runTrial(ctx)
	go r.state.keepTime(ctx.Done())
	r.start()
	go r.watchCertificates(ctx)
	r.tellFirstOpen()
	r.tellMissingPorts()
	go func() {
		if err := r.network.Run(ctx); err != nil && ctx.Err() == nil {
			r.log.Printf(kmsg.Error, "network: %v", err)
		}
	}()
	go r.network.KeepNeighbors(ctx)
	// The services first: a console takes a twentieth of a second of malta's processor until it has a prompt.
	r.awaitServices()
	r.startConsoles(ctx)
}

// tellFirstOpen tells the log if anybody on the LAN can set the first password: a configuration of before there
// was a first login let nobody in.
func (r *Router) tellFirstOpen() {
	if open := console.FirstOpen(r.snapshot().config); open != "" {
		r.log.About("system,account").Printf(kmsg.Info, "%s", open)
	}
}

// snapshot returns the state that the system has.
func (r *Router) snapshot() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// errStopped is the error of a change that comes after Shutdown.
var errStopped = errors.New("failure: the router is about to restart or to be turned off; nothing was done")

// beginChange waits until no other change is under way, and begins one. After Shutdown it
// returns an error instead.
func (r *Router) beginChange() error {
	select {
	case r.changing <- struct{}{}:
	case <-r.stopped:
		return errStopped
	}
	if r.isStopped() {
		<-r.changing
		return errStopped
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.underWay, r.endUnderWay = service.WithTimeout(context.Background(), longChange)
	return nil
}

func (r *Router) isStopped() bool {
	select {
	case <-r.stopped:
		return true
	default:
		return false
	}
}

// endChange ends a change.
func (r *Router) endChange() {
	r.mu.Lock()
	r.endUnderWay()
	r.underWay = nil
	r.mu.Unlock()
	<-r.changing
}

// set notes that the system has the state next. The caller holds changing.
func (r *Router) set(next state) {
	r.mu.Lock()
	r.now = next
	r.mu.Unlock()
	r.endStale(r.changer)
}

// longChange is how long a change of the system may take, not counting time in which the
// machine stood still. If it takes longer, iptables or the kernel hangs.
const longChange = time.Minute

// Alive returns why the router is stuck, or nil. It waits for nothing. A configuration that
// could not be applied is no reason: a reset would not help.
func (r *Router) Alive() error {
	r.mu.Lock()
	change := r.underWay
	r.mu.Unlock()
	if change != nil && change.Err() != nil {
		return fmt.Errorf("a change of the configuration has not ended for %v", longChange)
	}
	for _, s := range r.services {
		if err := s.Health(); err != nil {
			return err
		}
	}
	return nil
}

// shutdownWait is how long Shutdown waits for the end of a change.
const shutdownWait = 20 * time.Second

// Shutdown ends the router in order: it refuses further changes, writes the configuration to
// flash, stops the services and closes forwarding and the firewall. It is called once.
func (r *Router) Shutdown() {
	close(r.stopped)
	select {
	case r.changing <- struct{}{}: // and it stays there
	case <-time.After(shutdownWait):
		r.log.Printf(kmsg.Warning, "a change of the configuration has not ended within %v", shutdownWait)
	}
	r.kept.close()
	r.state.close()
	for _, s := range slices.Backward(r.services) {
		s.Stop()
	}
	r.supervisor.Stop()
	now := r.snapshot()
	now.forwarding = false
	if err := r.network.Apply(r.networkOf(now)); err != nil {
		r.log.Printf(kmsg.Warning, "%v", err)
	}
	if err := r.firewall.Lock(); err != nil {
		r.log.Printf(kmsg.Warning, "%v", err)
	}
}

// logLines logs each line of an error.
func (r *Router) logLines(err error) {
	if err == nil {
		return
	}
	for line := range strings.Lines(err.Error()) {
		r.log.Printf(kmsg.Error, "%s", strings.TrimSpace(line))
	}
}

// ports are the board's, as netcfg has them.
func (r *Router) ports() []netcfg.Port {
	var ports []netcfg.Port
	for _, p := range r.board.Ports {
		ports = append(ports, netcfg.Port{Name: p.Name, Device: p.Device})
	}
	return ports
}

// confirmed restarts the router or turns it off, as a user wants who was asked. With
// ResetConfiguration what is kept is erased first, and the host key of SSH.
func (r *Router) confirmed(request console.Request) error {
	if request == console.ResetConfiguration {
		if err := r.kept.erase(); err != nil {
			return fmt.Errorf("failure: %w", err)
		}
		if r.state.get(stateHostKey) != "" {
			if err := r.state.put(map[string]string{stateHostKey: ""}); err != nil {
				r.log.Printf(kmsg.Warning, "the host key of SSH stays: %v", err)
			}
		}
		r.log.Printf(kmsg.Notice, "the configuration is reset")
		request = console.Reboot
	}
	r.request(request)
	return nil
}

// request asks for a restart of the machine, or for its being turned off.
func (r *Router) request(request console.Request) {
	select {
	case r.requests <- request:
	default: // one is on its way
	}
}
