package console

import (
	"net/netip"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// Live gives what only the running system knows, and says what it can do. Each
// function may be nil: what it would tell is then said to be unavailable, or the
// menu that only it fills is not there.
type Live struct {
	// Links lists the ports of the machine, by the board's names and in its order, and
	// the bridges and VLANs of the configuration.
	Links func() ([]netcfg.LinkState, error)
	// Connections lists the connections of the SOCKS server.
	Connections func() ([]socks.Connection, error)
	// Hits counts for each rule of /ip socks access, in its order, the requests that
	// it decided.
	Hits func() ([]uint64, error)
	// Counters count for each rule of the configuration, in its order.
	Counters func() (filter, nat []firewall.Counter, err error)
	// Openings are the ports that are open ahead of the filter rules.
	Openings func() []firewall.Opening
	// Invalid returns which items of a menu of the configuration ("ip address") have no
	// effect though they are not disabled: by their index.
	Invalid func(menu string) ([]int, error)
	// Addresses and Routes list those that the system has and the configuration not.
	Addresses func() ([]netcfg.Address, error)
	Routes    func() ([]DynamicRoute, error)
	// Neighbors lists the table of ARP.
	Neighbors func() ([]Neighbor, error)
	// Tracked lists the connections that the kernel tracks.
	Tracked func() ([]TrackedConnection, error)
	// Log returns the lines of the log, oldest first, without line ends. A line is
	// "TIME TOPICS MESSAGE", where the time may have a day before it (jan/31 23:59:58)
	// and the topics are words with commas between (socks,info), or without topics
	// "TIME MESSAGE".
	Log func() ([]string, error)
	// Resource tells of the machine as a whole.
	Resource func() (Resource, error)
	// Now is the time of day, in any zone.
	Now func() time.Time
	// HashPassword makes what is kept of a password, 1..255 characters of a-z, A-Z,
	// 0-9 and $./+=,-: it is called for one that is not empty.
	HashPassword func(password string) (string, error)
	// Slots lists the places on flash for an image.
	Slots func() ([]SlotState, error)
	// NTP tells of the time client.
	NTP func() (NTPState, error)
	// Requests are those of Ping, Traceroute, SetClock, ChangePassword, Import, ResetConfiguration and Upgrade that are
	// carried out; the commands of the others are not there.
	Requests []Request
	// WAN is the port of the machine that faces the outside, by the board's name; "" if
	// none does.
	WAN string
	// RemoteLog is set if the log is sent to Config.RemoteLog.
	RemoteLog bool
}

// DynamicRoute is a route that the system made.
type DynamicRoute struct {
	Destination netip.Prefix
	// Gateway is the zero Addr if the destination is on the Interface itself.
	Gateway   netip.Addr
	Interface string
	Distance  int
}

// Neighbor is an entry of the table of ARP.
type Neighbor struct {
	Address   netip.Addr
	MAC       netcfg.MAC // none if it is not known
	Interface string
}

// TrackedConnection is a connection that the kernel tracks.
type TrackedConnection struct {
	Protocol string // tcp, udp, icmp or a number
	Src, Dst netip.AddrPort
	// State is that of a TCP connection (established), else "".
	State   string
	Timeout time.Duration
}

// Resource is what /system resource shows.
type Resource struct {
	Uptime time.Duration
	// FreeMemory is what programs can still have (MemAvailable of /proc/meminfo),
	// TotalMemory what the kernel manages, in bytes.
	FreeMemory, TotalMemory uint64
	// CPULoad is the share of time that the processors were busy since the last
	// look, 0..1; at the first look, since the start.
	CPULoad  float64
	CPUCount int
	// Architecture is a GOARCH.
	Architecture, Board string
	// Version is that of the software, "" if it is not known.
	Version string
}
