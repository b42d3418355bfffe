package console

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/certificate"
	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/neighbor"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/pppoe"
	"github.com/postern-router/postern/queue"
	"github.com/postern-router/postern/socks"
	"github.com/postern-router/postern/ssh"
)

// Config is everything that a user can set on the router.
type Config struct {
	// Identity is the router's name (/system identity), 1..64 bytes.
	Identity string
	// Note is what who logs in is shown (/system note), unless HideNote.
	Note     string
	HideNote bool
	// Links are the ports whose settings were changed (/interface ethernet); all others have
	// the defaults. Everywhere in Config a port has the board's name, even if users have
	// given it another.
	Links []Port
	// Bridges, VLANs, BridgePorts and BridgeVLANs are /interface bridge, vlan, bridge port and bridge vlan.
	Bridges     []netcfg.Bridge
	VLANs       []netcfg.VLAN
	BridgePorts []netcfg.BridgePort
	BridgeVLANs []netcfg.BridgeVLAN
	// PPPoEClients are /interface pppoe-client.
	PPPoEClients []pppoe.Config
	// InterfaceLists and ListMembers are /interface list and list member.
	InterfaceLists []InterfaceList
	ListMembers    []ListMember
	// Addresses are /ip address.
	Addresses []netcfg.Address
	// Routes are /ip route.
	Routes []netcfg.Route
	// ARP are the entries of /ip arp that stay.
	ARP []netcfg.StaticNeighbor
	// RoutingTables and RoutingRules are /routing table and rule.
	RoutingTables []RoutingTable
	RoutingRules  []netcfg.Rule
	// Settings are /ip settings.
	Settings netcfg.Settings
	// Firewall is /ip firewall filter, nat, mangle, raw and service-port, and AddressLists is /ip firewall address-list.
	Firewall     firewall.Config
	AddressLists []ListedAddress
	// Queues are /queue simple.
	Queues []queue.Simple
	// Tracking is /ip firewall connection tracking.
	Tracking firewall.Tracking
	// Socks is /ip socks, /ip socks access and /ip socks users.
	Socks socks.Config
	// DNS are the name servers (/ip dns), in the order in which they are asked.
	DNS []netip.Addr
	// DNSServer is the router's own server: the rest of /ip dns, and /ip dns static.
	DNSServer dns.Config
	// TimeZone is how far local time is ahead of UTC (/system clock manual): -12h..14h in
	// whole minutes.
	TimeZone time.Duration
	// Groups are /user group, and Users are /user.
	Groups []Group
	Users  []User
	// SSHKeys are /user ssh-keys.
	SSHKeys []ssh.Key
	// SSH, API and WWW are the rows of /ip service of these names.
	SSH, API, WWW login.Config
	// APISSL and WWWSSL are api-ssl and www-ssl, and Certificates are /certificate. Boards with a small flash have none of them.
	APISSL, WWWSSL login.Config
	Certificates   []certificate.Certificate
	// RemoteLog is the syslog server, and which lines it gets (/system logging).
	RemoteLog RemoteLog
	// NTP is the time client (/system ntp client).
	NTP ntp.Config
	// UpdateURL is the folder of a web server that has newer versions (/system package update), without "/"
	// at its end; "" is none.
	UpdateURL string
	// DHCPClients are /ip dhcp-client.
	DHCPClients []client.Config
	// Discovery is /ip neighbor discovery-settings.
	Discovery neighbor.Config
	// DHCPServer is /ip pool, /ip dhcp-server and the menus below that.
	DHCPServer server.Config

	// ids are the IDs of the items of each list. They are no settings: see Equal. A list
	// that came from a file or a program has none; then placeID says what they are.
	ids [lists][]ID
	// borrowed are the lists that are another Config's in memory while a line runs: see items.own. Else it is nil.
	borrowed *[lists]bool
}

// Port is the settings of a port.
type Port struct {
	netcfg.Link
	// Renamed is the name that users gave the port; "" if it has the board's name.
	Renamed string
}

// RemoteLog is a syslog server (RFC 5424, over UDP).
type RemoteLog struct {
	// Address is that of the server; the zero Addr if there is none.
	Address netip.Addr
	Port    uint16
	// Rules say which lines are sent: those that at least one rule matches.
	Rules []LogRule
}

// LogRule is a rule of /system logging.
type LogRule struct {
	// Topics are words separated by commas, each perhaps with "!" before it. A line matches
	// if it has all topics without "!" and none of those with it.
	Topics string
	Action string // remote or memory
	// Prefix stands before the message of each line that the rule is the first to match.
	Prefix   string
	Disabled bool
}

// Sends reports whether a line with these topics, separated by commas, is sent, and what stands
// before its message.
func (r RemoteLog) Sends(topics string) (prefix string, sends bool) {
	has := strings.Split(topics, ",")
	i := slices.IndexFunc(r.Rules, func(rule LogRule) bool {
		if rule.Disabled || rule.Action != remoteAction {
			return false
		}
		for topic := range strings.SplitSeq(rule.Topics, ",") {
			if name, not := strings.CutPrefix(topic, "!"); topic != "" && slices.Contains(has, name) == not {
				return false
			}
		}
		return true
	})
	if i < 0 {
		return "", false
	}
	if prefix = r.Rules[i].Prefix; prefix != "" {
		prefix += ": "
	}
	return prefix, true
}

// Default is the configuration of a router on which nothing has been set.
func Default() Config {
	c := Config{
		Identity: "postern", Socks: socks.DefaultConfig(), Groups: defaultGroups(), Users: defaultUsers(),
		SSH: login.Config{Disabled: true, Port: 22, MaxSessions: 4}, API: login.Config{Disabled: true, Port: 8728, MaxSessions: 4}, RemoteLog: RemoteLog{Port: 514},
		WWW:    login.Config{Disabled: true, Port: 80, MaxSessions: 4},
		APISSL: login.Config{Disabled: true, Port: 8729, MaxSessions: 4}, WWWSSL: login.Config{Disabled: true, Port: 443, MaxSessions: 4},
		Settings: netcfg.Settings{RPFilter: netcfg.RPFilterStrict}, Tracking: firewall.DefaultTracking(),
		Firewall:  firewall.Config{FTP: firewall.Helper{Ports: []uint16{firewall.FTPPort}, Disabled: true}},
		DNSServer: dns.Default(), Discovery: neighbor.Config{List: "none", Protocols: neighbor.LLDP + "," + neighbor.MNDP},
	}
	for list, count := range map[int]int{groupItems: len(c.Groups), userItems: len(c.Users)} {
		for i := range count {
			c.ids[list] = append(c.ids[list], placeID(list, i))
		}
	}
	return c
}

// Clone returns a copy that shares no memory with c.
func (c Config) Clone() Config {
	c = c.cloneSettings()
	for i, l := range itemLists {
		l.clone(&c)
		c.ids[i] = slices.Clone(c.ids[i])
	}
	return c
}

// borrow is Clone, but the copy shares its long lists with c until it changes one.
func (c Config) borrow() Config {
	c = c.cloneSettings()
	c.borrowed = new([lists]bool)
	for i, l := range itemLists {
		if c.borrowed[i] = l.long(); !c.borrowed[i] {
			l.clone(&c)
		}
		c.ids[i] = slices.Clone(c.ids[i])
	}
	return c
}

// cloneSettings is Clone, but the copy shares its items with c.
func (c Config) cloneSettings() Config {
	c.borrowed = nil
	c.DNS = slices.Clone(c.DNS)
	c.NTP.Servers = slices.Clone(c.NTP.Servers)
	c.Firewall.FTP.Ports = slices.Clone(c.Firewall.FTP.Ports)
	for _, s := range NetworkServices {
		s.of(&c).From = slices.Clone(s.of(&c).From)
	}
	return c
}

// Resolvers are the name servers that the router's own lookups ask: first its own server while there
// is one, which has static names, names of leases and a cache, then those of DNS.
//
// While a static entry names another server (FWD), they ask the router's own alone: that knows which names are that
// server's, and these must not go to those of DNS when it is silent.
func (c Config) Resolvers() []netip.Addr {
	if !c.DNSServer.Enabled {
		return c.DNS
	}
	own := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if slices.ContainsFunc(c.DNSServer.Static, func(s dns.Static) bool { return s.Type == "FWD" && !s.Disabled }) {
		return own
	}
	return append(own, c.DNS...)
}

// Equal reports whether both have the same settings.
func (c Config) Equal(other Config) bool {
	c.ids, other.ids = [lists][]ID{}, [lists][]ID{}
	return reflect.DeepEqual(c, other)
}

// Network is the part of cfg that package netcfg applies, with forwarding off.
func (cfg Config) Network() netcfg.Config {
	var links []netcfg.Link
	for _, p := range cfg.Links {
		links = append(links, p.Link)
	}
	var ppps []netcfg.PPP
	for _, c := range cfg.PPPoEClients {
		ppps = append(ppps, netcfg.PPP{Name: c.Name, Disabled: c.Disabled})
	}
	network := netcfg.Config{
		Links: links, Bridges: cfg.Bridges, VLANs: cfg.VLANs, BridgePorts: cfg.BridgePorts, BridgeVLANs: cfg.BridgeVLANs, PPPs: ppps,
		Addresses: cfg.Addresses, Routes: cfg.Routes, Settings: cfg.Settings,
		Tables: cfg.kernelTables(), Rules: cfg.RoutingRules, Neighbors: cfg.ARP,
	}
	network.Queues = queue.Links(cfg.Queues, network)
	return network
}

// Rules is the part of cfg that package firewall applies. A rule for a port of a bridge
// becomes a rule for the bridge, because the kernel says that the packets come in by the
// bridge. Otherwise the rule would match nothing: it might lock the LAN out, or let in what
// it should drop.
func (cfg Config) Rules() firewall.Config { return cfg.RulesAfter(Config{}, firewall.Config{}) }

// RulesAfter is Rules. If before, whose rules are given, has the same address lists in memory, the two share them.
func (cfg Config) RulesAfter(before Config, rules firewall.Config) firewall.Config {
	network := cfg.Network()
	port := func(name string) string {
		if body, not := strings.CutPrefix(name, "!"); not {
			return "!" + network.Actual(body)
		}
		return network.Actual(name)
	}
	actual := func(rules []firewall.Rule) []firewall.Rule {
		cloned := false // mostly nothing is to be done
		for i := range rules {
			in, out := port(rules[i].InInterface), port(rules[i].OutInterface)
			if in == rules[i].InInterface && out == rules[i].OutInterface {
				continue
			}
			if !cloned {
				rules, cloned = slices.Clone(rules), true
			}
			rules[i].InInterface, rules[i].OutInterface = in, out
		}
		return rules
	}
	var clamp []string
	for _, c := range cfg.PPPoEClients {
		if !c.Disabled {
			clamp = append(clamp, c.Name)
		}
	}
	lists, temporary := rules.AddressLists, rules.Temporary
	if lists == nil || !itemLists[addressListItems].shared(&cfg, &before) {
		lists, temporary = cfg.listedAddresses()
	}
	return firewall.Config{
		Filter: actual(cfg.Firewall.Filter), NAT: actual(cfg.Firewall.NAT), Mangle: actual(cfg.Firewall.Mangle), Raw: actual(cfg.Firewall.Raw), FTP: cfg.Firewall.FTP,
		Lists: cfg.interfaceSets(network.Actual), AddressLists: lists, Temporary: temporary, Clamp: clamp,
		RoutingTables: cfg.routingMarks(), Queues: queue.Rules(cfg.Queues, network.Actual),
	}
}

// AccessRules are the rules of /ip socks access, each with the ID of its item.
func (cfg Config) AccessRules() []socks.Rule {
	rules := slices.Clone(cfg.Socks.Access)
	for i := range rules {
		rules[i].ID = uint32(cfg.idOf(accessItems, i))
	}
	return rules
}

// idOf is the ID of an item of a list.
func (cfg Config) idOf(list, i int) ID {
	if ids := cfg.ids[list]; i < len(ids) {
		return ids[i]
	}
	return placeID(list, i)
}

// Called is the name by which users know an interface.
func (cfg Config) Called(name string) string {
	for _, p := range cfg.Links {
		if p.Name == name && p.Renamed != "" {
			return p.Renamed
		}
	}
	return name
}

// device is the interface that users know by that name: for a port, the board's name. It is
// "" for the board's name of a port that has been renamed.
func (cfg Config) device(name string) string {
	for _, p := range cfg.Links {
		if p.Renamed == name && name != "" {
			return p.Name
		}
	}
	if cfg.Called(name) != name {
		return ""
	}
	return name
}
