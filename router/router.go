// Package router is the one owner of the router's configuration: it applies what a user has
// set to the network, the firewall and the services, or changes nothing, keeps it on flash,
// and undoes it where Safe Mode, a rescue or the trial of an upgrade says so.
//
// It promises:
//   - nothing is forwarded and no port answers before the user's rules stand;
//   - a change is applied whole or not at all: what was done of one that fails is undone;
//   - what a lease says is a [Layer] beside what the user set: both are merged before anything
//     is told, and only the user's part is kept;
//   - one change is made at a time, and no lock is held over anything else that may wait. A
//     process that hangs delays no prompt, no answer to the watchdog and no undo of Safe Mode;
//   - nothing is changed after [Router.Shutdown].
//
// What it drives are the interfaces of [Parts], so that all of it is tested without a machine.
package router

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
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
	network  Network
	firewall Firewall
	machine  Machine
	services []Service
	// supervisor runs all processes.
	supervisor *service.Supervisor
	requests   chan<- console.Request
	kept       *keeping
	logins     logins
	state      *keptState
	upgrades   upgrades
	// root is the folder of sys, dev and proc: "", but for tests.
	root string
	// defaults is the file of the configuration that the image came with.
	defaults string
	// commandLine is the kernel's.
	commandLine string
	// resetHeld reports whether the reset button is held.
	resetHeld func() bool
	// settled takes each configuration that is to survive a restart. It does not wait.
	settled func(console.Config)
	// sessions holds an element for each.
	sessions chan struct{}

	// turn holds an element while a session changes the configuration. A session whose line
	// had to be run again too often, because others were quicker, puts it there while the line
	// runs. What is no session's, such as the undo of Safe Mode, does not wait for it.
	turn chan struct{}
	// changing holds an element while the system is brought from one state to the next. Who
	// put it there, and nobody else, writes now and trial.
	changing chan struct{}
	// unsure says that the system may differ from now, because an undo failed: the next
	// change is then one of all parts. It belongs to who holds changing.
	unsure bool

	// stopped is closed at the end of the router: nothing is changed from then on.
	stopped chan struct{}

	// mu guards what is below. It is never held over anything that may wait.
	mu sync.Mutex
	// now is the state that the system has.
	now state
	// underWay ends when the present change has taken too long, nil if none is under way.
	underWay context.Context
	// endUnderWay frees what that takes.
	endUnderWay context.CancelFunc
	// trial is the Safe Mode of a session, nil if none is in it.
	trial *safeMode
	// busy remembers the last look at the processors' time.
	busy processorTime
}

// state is what the router has at one moment. Its parts are never changed in place: who has
// a state may read it without a lock.
type state struct {
	// config is what a user sees and changes. Revision counts its changes.
	config   console.Config
	revision uint64
	// running is what the system has of it: config, but for a rescue configuration.
	running console.Config
	// layers are what others say of the network.
	layers layers
	// forwarding says whether packets are forwarded, applied that the system has running.
	forwarding, applied bool
	// unmended says that running is a rescue configuration because config lacks lines.
	unmended bool
}

// Open returns the router of this machine, which is of that board, with nothing applied yet.
// It waits for a disk that has the configuration, and sets the clock and the kernel's random
// numbers by what flash says. A restart or power off is asked for by a word to requests;
// restart is called if that is not heard.
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
	r := New(b, log, Parts{
		Network: network, Firewall: fw, Machine: machine,
		Services: []Service{
			newSocksService(supervisor, log.About("socks"), fw),
			&remoteLog{sender: kmsg.NewRemote(log)},
			newTimeService(supervisor, log.About("ntp"), running.Date),
		},
		Supervisor: supervisor,
	}, requests)
	r.state, r.kept, r.upgrades.running, r.commandLine = state, openKeeping(log, "/sys", "/dev"), running, string(line)
	return r, nil
}

// New returns a router that drives these parts. It keeps nothing on flash, and has no
// configuration but the default one.
func New(b board.Board, log *kmsg.Logger, parts Parts, requests chan<- console.Request) *Router {
	r := &Router{
		board: b, log: log, network: parts.Network, firewall: parts.Firewall, machine: parts.Machine, services: parts.Services, supervisor: parts.Supervisor,
		requests: requests, kept: &keeping{log: log}, state: &keptState{log: log},
		upgrades: upgrades{running: readVersion(b, ""), busy: make(chan struct{}, 1)},
		logins:   newLogins(),
		defaults: configurationFile, sessions: make(chan struct{}, maxSessions),
		turn: make(chan struct{}, 1), changing: make(chan struct{}, 1), stopped: make(chan struct{}),
		now: state{config: console.Default(), running: console.Default()},
	}
	r.resetHeld = func() bool {
		return resetHeld(log, func() bool { return anyPressed(inputDevices, keyRestart, pressedKeys) })
	}
	r.settled = func(c console.Config) { r.kept.put(c) }
	return r
}

// Start applies the configuration, and runs what the router runs until ctx is done.
func (r *Router) Start(ctx context.Context) {
	go r.prove(ctx)
	go r.state.keepTime(ctx.Done())
	r.start()
	r.tellMissingPorts()
	go func() {
		if err := r.network.Run(ctx); err != nil && ctx.Err() == nil {
			r.log.Printf(kmsg.Error, "network: %v", err)
		}
	}()
	r.startConsoles(ctx)
}

// snapshot returns the state that the system has.
func (r *Router) snapshot() state {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.now
}

// errStopped is the error of what comes too late.
var errStopped = errors.New("failure: the router is about to restart or to be turned off; nothing was done")

// lock begins a change of the system, and waits for the end of one that is under way. At
// the end of the router it returns an error instead.
func (r *Router) lock() error {
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

// unlock ends a change.
func (r *Router) unlock() {
	r.mu.Lock()
	r.endUnderWay()
	r.underWay = nil
	r.mu.Unlock()
	<-r.changing
}

// set makes next the state that the system has. The caller holds changing.
func (r *Router) set(next state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = next
}

// longChange is how long a change of the system may take, without the time in which the
// machine stood still. More is a program or a kernel that hangs.
const longChange = time.Minute

// Alive is why PID 1 or what it runs is stuck, or nil. It waits for nothing. A configuration
// that could not be applied is for a person to mend: a reset would not.
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

// shutdownWait is how long the end of the router waits for a change that is under way.
const shutdownWait = 20 * time.Second

// Shutdown ends the services in order, once: no new change of the configuration, which is
// on flash then, no new connection, the old ones closed, nothing forwarded.
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

// tell logs an error line by line, where the console shows it.
func (r *Router) tell(err error) {
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
