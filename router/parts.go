package router

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/service"
)

// Parts are what a Router drives.
type Parts struct {
	Network  Network
	Firewall Firewall
	Machine  Machine
	Services []Service
	// Supervisor runs the processes.
	Supervisor *service.Supervisor
}

// Network is the kernel's network. netcfg.Manager is one.
type Network interface {
	// Apply brings the network to c, or changes nothing.
	Apply(c netcfg.Config) error
	// Run keeps it there until ctx is done.
	Run(ctx context.Context) error
	// KeepNeighbors has the kernel keep the ARP entries of hosts that have answered, until ctx is done.
	KeepNeighbors(ctx context.Context)
	State() ([]netcfg.LinkState, error)
	VLANMembers() ([]netcfg.VLANMembers, error)
	PortModes(port string) (netcfg.PortModes, error)
	Waiting() (netcfg.Waiting, error)
	Dynamic() ([]netcfg.Address, []netcfg.KernelRoute, error)
	Neighbors() ([]netcfg.Neighbor, error)
	// ForgetNeighbors has the kernel forget entries of the ARP table.
	ForgetNeighbors([]netcfg.Neighbor) error
	// AskNeighbor asks for the hardware address of a neighbour, on a link if that is known, and reports whether there is an answer
	// before ctx ends.
	AskNeighbor(ctx context.Context, address netip.Addr, link string) bool
	// LinkTo is the link on which the gateway of a route is reached now, "" if there is none.
	LinkTo(gateway netip.Addr) string
	// QueueCounters are those of classes of queues, by their numbers.
	QueueCounters() (map[uint16]netcfg.ClassCounters, error)
	ResetQueueCounters(classes []uint16) error
}

// Firewall is the kernel's packet filter. firewall.Firewall is one.
type Firewall interface {
	// Apply brings the rules to c, or changes nothing.
	Apply(c firewall.Config) error
	// ForgetRetranslated forgets the connections that the nat rules of next treat otherwise than
	// those of old, and returns how many.
	ForgetRetranslated(old, next firewall.Config) (int, error)
	// Lock lets nothing in and nothing through.
	Lock() error
	Counters(t firewall.Table) ([]firewall.Counter, error)
	// ResetCounters sets those of some rules to zero.
	ResetCounters(t firewall.Table, rules []int) error
	Openings() []firewall.Opening
	// Filled returns at most limit addresses that rules have added to lists, and how many more there are.
	Filled(limit int) (all []firewall.Filled, more int, err error)
	// RemoveFilled removes some of them.
	RemoveFilled([]firewall.Filled) error
}

// Machine is what else the router changes on the machine.
type Machine interface {
	// SetNames sets the host name, and which name servers the machine's own programs ask.
	SetNames(hostname string, nameServers []netip.Addr) error
	// SetClock sets the time of day.
	SetClock(t time.Time) error
	// SetZone tells the kernel how far local time is ahead of UTC, for rules with a time of the day.
	SetZone(ahead time.Duration) error
	// Restart restarts the machine now, whatever hangs.
	Restart()
}

// linuxMachine is this machine.
type linuxMachine struct {
	restart func()
	// resolver is the file that names the name servers (resolv.conf(5)).
	resolver string
}

func (m linuxMachine) Restart() { m.restart() }

func (linuxMachine) SetClock(t time.Time) error { return settime(t) }

func (linuxMachine) SetZone(ahead time.Duration) error { return setzone(ahead) }

// SetNames tells Go's resolver in this process and the tools of the debug image which name
// servers to ask.
func (m linuxMachine) SetNames(hostname string, nameServers []netip.Addr) error {
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set the host name to %q: %w", hostname, err)
	}
	var b strings.Builder
	for _, s := range nameServers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if err := os.WriteFile(m.resolver, []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("name servers: %w", err)
	}
	return nil
}

// settime sets the time of day.
func settime(t time.Time) error {
	now := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// firstZone is done once: the kernel takes the first zone that it is told for that of the hardware's clock, and changes the time of day by
// it (settimeofday(2)). So it is UTC.
var firstZone = sync.OnceValue(func() error { return tellZone(0) })

func tellZone(ahead time.Duration) error {
	zone := struct{ minutesWest, dst int32 }{minutesWest: int32(-ahead / time.Minute)} // struct timezone
	if _, _, errno := unix.Syscall(unix.SYS_SETTIMEOFDAY, 0, uintptr(unsafe.Pointer(&zone)), 0); errno != 0 {
		return errno
	}
	return nil
}

// setzone tells the kernel the time zone.
func setzone(ahead time.Duration) error {
	err := firstZone()
	if err == nil {
		err = tellZone(ahead)
	}
	if err != nil {
		return fmt.Errorf("set the time zone: %w", err)
	}
	return nil
}

// The clock of a 32-bit board ends in 2038. Linux refuses a time of day that is less than the
// time since the start (clock_settime(2), EINVAL).
var lastClock = time.Date(2037, time.December, 31, 23, 59, 59, 0, time.UTC)

// setClock sets the time of day for a user. Up is the time since the start.
func (r *Router) setClock(t time.Time, up time.Duration, by string) error {
	first := time.Unix(0, 0).UTC().Add(up.Truncate(time.Second) + time.Second)
	if t.Before(first) || t.After(lastClock) {
		zone := r.snapshot().config.TimeZone
		shown := func(t time.Time) string { return strings.ToLower(t.Add(zone).Format("Jan/02/2006 15:04:05")) }
		return fmt.Errorf("value of date and time out of range: %s; expected %s..%s", shown(t.UTC()), shown(first), shown(lastClock))
	}
	if err := r.machine.SetClock(t); err != nil {
		return err
	}
	r.log.Printf(kmsg.Info, "the clock was set to %s by %s", t.UTC().Format(time.DateTime), by)
	return nil
}
