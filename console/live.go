package console

import (
	"net/netip"
	"time"

	"github.com/postern-router/postern/certificate"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// Live is what only the running system knows, and what it can do. Each function may be nil:
// then what it would tell is unavailable, or the menu that shows nothing else is hidden.
type Live struct {
	// Links lists the ports of the machine, with the board's names and in the board's order,
	// and the bridges and VLANs of the configuration.
	Links func() ([]netcfg.LinkState, error)
	// PortModes is what a port does now, by the board's name; the error is EOPNOTSUPP if its driver does not know.
	PortModes func(port string) (netcfg.PortModes, error)
	// VLANMembers lists the VLANs that bridges have, with the board's names of ports.
	VLANMembers func() ([]netcfg.VLANMembers, error)
	// Connections lists the connections of the SOCKS server.
	Connections func() ([]socks.Connection, error)
	// CloseConnections ends the connections of the SOCKS server that have these numbers.
	// Numbers of connections that have ended meanwhile do not matter.
	CloseConnections func(numbers []uint64) error
	// Hits counts the requests that each rule of /ip socks access has decided, in the order
	// of the rules.
	Hits func() ([]uint64, error)
	// Counters are those of each rule of a table of the configuration, in the order of the rules.
	Counters func(t firewall.Table) ([]firewall.Counter, error)
	// ResetCounters sets those of some rules to zero: of a table's rules with these indices.
	ResetCounters func(t firewall.Table, rules []int) error
	// QueueCounters are those of classes of queues, by their numbers, and ResetQueueCounters sets some to zero.
	QueueCounters      func() (map[uint16]netcfg.ClassCounters, error)
	ResetQueueCounters func(classes []uint16) error
	// Openings are the ports that are open whatever the filter rules say.
	Openings func() []firewall.Opening
	// Invalid returns the indices of the items of a menu ("ip address") that have no effect
	// although they are not disabled.
	Invalid func(menu string) ([]int, error)
	// Addresses and Routes list those that the system has and the configuration does not.
	Addresses func() ([]netcfg.Address, error)
	Routes    func() ([]DynamicRoute, error)
	// Neighbors lists the ARP table, and ForgetNeighbors deletes entries of it that come and go.
	Neighbors       func() ([]Neighbor, error)
	ForgetNeighbors func([]Neighbor) error
	// Discovered lists the devices that have announced themselves, in the order of the interfaces.
	Discovered func() ([]DiscoveredNeighbor, error)
	// ActiveUsers lists who is logged in, in the order in which they did.
	ActiveUsers func() ([]ActiveUser, error)
	// Logout ends the logins of these numbers. Those that have ended meanwhile do not matter.
	Logout func(numbers []uint32) error
	// Denied are the policies that the user who asks lacks. Whoever holds the board, and the router itself, lack none.
	Denied Policies
	// LastLogin is how long ago a user has logged in last; ok is false if that is not known.
	LastLogin func(user string) (ago time.Duration, ok bool)
	// Tracked lists the connections that the kernel tracks.
	Tracked func() ([]firewall.Tracked, error)
	// Forget has the kernel forget some of them.
	Forget func([]firewall.Tracked) error
	// TableSize is how many connections the kernel tracks, and how many it can.
	TableSize func() (entries, limit int, err error)
	// History lists the changes of the configuration that can be undone or done again, oldest first. Undo and
	// Redo return the configuration without the last of them that is in force, and with the first that is not.
	History    func() []HistoryEntry
	Undo, Redo func() (Config, error)
	// Log returns the lines of the log, oldest first, without line ends. A line is
	// "TIME TOPICS MESSAGE" or "TIME MESSAGE". The time may have a day before it (jan/31
	// 23:59:58); the topics are at least two words separated by commas (socks,info).
	Log func() ([]string, error)
	// Resource is the state of the machine as a whole.
	Resource func() (Resource, error)
	// Now is the present time, in any zone.
	Now func() time.Time
	// HashPassword returns the hash of a password that is not empty: 1..255 characters of
	// a-z, A-Z, 0-9 and $./+=,-. Now is what there is already, or "": if that is a hash of the same password it is returned,
	// as one with another salt would be a change, to be kept on flash.
	HashPassword func(password, now string) (string, error)
	// MakeCertificate returns a certificate with a new key, and signed by that.
	MakeCertificate func(certificate.Certificate) (certificate.Certificate, error)
	// Slots lists the slots for images on flash.
	Slots func() ([]SlotState, error)
	// Leases lists the addresses that the DHCP server has given, in their order.
	Leases func() ([]LeaseState, error)
	// RemoveLeases has it forget some of them.
	RemoveLeases func([]netip.Addr) error
	// Filled returns at most limit of the addresses that rules have added to address lists, and how many more there are. RemoveFilled
	// removes some.
	Filled       func(limit int) (all []firewall.Filled, more int, err error)
	RemoveFilled func([]firewall.Filled) error
	// DHCPClients is the state of each DHCP client, in the order of the configuration.
	DHCPClients func() ([]DHCPClientState, error)
	// RenewLeases has the clients of these interfaces renew their leases, ReleaseLeases give them
	// back and ask anew.
	RenewLeases, ReleaseLeases func(interfaces []string) error
	// PPPoEClients is the state of each PPPoE client.
	PPPoEClients func() ([]PPPoEClientState, error)
	// DynamicDNS are the name servers that the router has been told of, as by a lease.
	DynamicDNS func() []netip.Addr
	// DynamicNTP are the time servers that the router has been told of, as by a lease.
	DynamicNTP func() []string
	// DNSCache lists what the DNS server knows, and counts what is too much for the list; there
	// is nothing while it is disabled.
	DNSCache func() (list []dns.CacheEntry, left int, err error)
	// FlushDNS empties the cache of the DNS server. CacheUsed is how many bytes the cache takes.
	FlushDNS  func() error
	CacheUsed func() (bytes int, err error)
	// NTP is the state of the time client.
	NTP func() (NTPState, error)
	// Update is what is known of newer versions of the software.
	Update func() UpdateState
	// Files lists the files that the router holds. KeepFile makes one, or replaces it, for the user who asks, and RemoveFiles removes
	// some by their numbers: another user's takes the policy MayPolicy, as ReadFile of one does. MayKeepFile returns the error that KeepFile would, for a
	// file of so many bytes.
	Files          func() ([]FileState, error)
	MayKeepFile    func(name string, bytes int) error
	KeepFile       func(name, content string) error
	ReadFile       func(name string) (content string, err error)
	MayRemoveFiles func(numbers []uint32) error
	RemoveFiles    func(numbers []uint32) error
	// Requests are those that the system carries out, of Ping, Traceroute, SetClock,
	// ChangePassword, Import, ResetConfiguration, Upgrade and CheckForUpdates. The commands of the others are
	// hidden.
	Requests []Request
	// WAN is the board's name of the port that faces the outside; "" if there is none.
	WAN string
	// RemoteLog is set if the system sends its log to Config.RemoteLog.
	RemoteLog bool
}

// DHCPClientState is the state of a DHCP client.
type DHCPClientState struct {
	Interface string
	Status    string
	// Slave says that the interface is a port of a bridge, where no client can run.
	Slave bool
	// Address is the zero Prefix if there is no lease; then the rest is zero too.
	Address                  netip.Prefix
	Server, Gateway          netip.Addr
	NameServers, TimeServers []netip.Addr
	// Left is how long the lease still lasts, unless it is Endless.
	Left    time.Duration
	Endless bool
}

// UpdateState is what the server of newer versions said when it was asked last.
type UpdateState struct {
	// Latest is the server's version, "" if it is not known; Status is for people.
	Latest, Status string
}

// DynamicRoute is a route that the system has made.
type DynamicRoute struct {
	Destination netip.Prefix
	// Gateway is the zero Addr if the destination is directly on Interface.
	Gateway   netip.Addr
	Interface string
	Distance  int
	// Inactive says that the gateway cannot be reached, and Outranked that another route to the same destination with the same
	// distance is taken, whether that can be reached or not.
	Inactive, Outranked bool
}

// Neighbor is an entry of the ARP table.
type Neighbor struct {
	Address   netip.Addr
	MAC       ether.MAC // the zero MAC if it is not known
	Interface string
	// Stays is set of one that is not there because the kernel has asked for it.
	Stays bool
}

// Resource is what /system resource shows.
type Resource struct {
	Uptime time.Duration
	// FreeMemory is what programs can still get (MemAvailable in /proc/meminfo), and
	// TotalMemory what the kernel manages, both in bytes.
	FreeMemory, TotalMemory uint64
	// CPULoad is the share of time that the processors were busy since the last call, 0..1;
	// at the first call, since the start.
	CPULoad  float64
	CPUCount int
	// Architecture is a GOARCH.
	Architecture, Board string
	// Version is the version of the software, "" if it is not known, and Date its date, zero if it is not.
	Version string
	Date    time.Time
}
