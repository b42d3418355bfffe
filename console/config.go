package console

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/ntp"
	"github.com/postern-router/postern/socks"
)

// Config is everything that a person may set on the router.
type Config struct {
	// Identity is the router's name (/system identity), 1..64 bytes.
	Identity string
	// Links are the ports that were set (/interface ethernet). A port that is not
	// among them has the defaults. Here and in all else that is set, a port goes by the
	// board's name for it, whatever users call it.
	Links []Port
	// Bridges, VLANs and BridgePorts are /interface bridge, vlan and bridge port.
	Bridges     []netcfg.Bridge
	VLANs       []netcfg.VLAN
	BridgePorts []netcfg.BridgePort
	// Addresses are /ip address.
	Addresses []netcfg.Address
	// Routes are /ip route.
	Routes []netcfg.Route
	// Firewall is /ip firewall filter and nat.
	Firewall firewall.Config
	// Socks is /ip socks and /ip socks access.
	Socks socks.Config
	// DNS are the name servers that the router asks (/ip dns), in this order.
	DNS []netip.Addr
	// TimeZone is how far the time of day, as people see it, is ahead of UTC
	// (/system clock manual): -12:00..14:00 in whole minutes.
	TimeZone time.Duration
	// AdminPassword is the hash of admin's password (/user), as Live.HashPassword made
	// it; "" if there is none.
	AdminPassword string
	// RemoteLog is who is sent the log, and what of it (/system logging).
	RemoteLog RemoteLog
	// NTP is who is asked for the time (/system ntp client).
	NTP ntp.Config

	// ids are those of the items of each list. They are not part of what is set: see Equal.
	// A list without them has those of its places, as one that came from a file or from a
	// program.
	ids [lists][]ID
}

// Port is what is set for a port.
type Port struct {
	netcfg.Link
	// Renamed is what users call the port; "" if that is the board's name.
	Renamed string
}

// RemoteLog is a syslog server (RFC 5424, over UDP).
type RemoteLog struct {
	// Address is the server's; the zero Addr if the log is sent to nobody.
	Address netip.Addr
	Port    uint16
	// Rules say what is sent: a line that one of them matches.
	Rules []LogRule
}

// LogRule is one of /system logging.
type LogRule struct {
	// Topics are words with commas between, "!" perhaps before each. A line matches if it
	// has all of them, and none of those with "!".
	Topics   string
	Action   string // remote
	Disabled bool
}

// Sends reports whether a line with these topics, with commas between, is sent.
func (r RemoteLog) Sends(topics string) bool {
	has := strings.Split(topics, ",")
	return slices.ContainsFunc(r.Rules, func(rule LogRule) bool {
		if rule.Disabled {
			return false
		}
		for topic := range strings.SplitSeq(rule.Topics, ",") {
			if name, not := strings.CutPrefix(topic, "!"); topic != "" && slices.Contains(has, name) == not {
				return false
			}
		}
		return true
	})
}

// Default is the configuration of a router on which nothing was set.
func Default() Config {
	return Config{Identity: "postern", Socks: socks.DefaultConfig(), RemoteLog: RemoteLog{Port: 514}}
}

// Clone returns a copy that shares no memory with c.
func (c Config) Clone() Config {
	for i, l := range itemLists {
		l.clone(&c)
		c.ids[i] = slices.Clone(c.ids[i])
	}
	c.DNS = slices.Clone(c.DNS)
	c.NTP.Servers = slices.Clone(c.NTP.Servers)
	return c
}

// Equal reports whether the same is set in both.
func (c Config) Equal(other Config) bool {
	c.ids, other.ids = [lists][]ID{}, [lists][]ID{}
	return reflect.DeepEqual(c, other)
}

// Network is the part of cfg that netcfg applies. It forwards nothing yet.
func (cfg Config) Network() netcfg.Config {
	var links []netcfg.Link
	for _, p := range cfg.Links {
		links = append(links, p.Link)
	}
	return netcfg.Config{
		Links: links, Bridges: cfg.Bridges, VLANs: cfg.VLANs, BridgePorts: cfg.BridgePorts,
		Addresses: cfg.Addresses, Routes: cfg.Routes,
	}
}

// Rules is the part of cfg that firewall applies. A rule by a port of a bridge is one
// by that bridge, as an address of such a port is the bridge's: the packets come in by
// the bridge, and a rule that matched nothing any more might lock the LAN out, or let
// in what it was to drop.
func (cfg Config) Rules() firewall.Config {
	network := cfg.Network()
	actual := func(rules []firewall.Rule) []firewall.Rule {
		rules = slices.Clone(rules)
		for i := range rules {
			for _, name := range []*string{&rules[i].InInterface, &rules[i].OutInterface} {
				body, not := strings.CutPrefix(*name, "!")
				if *name = network.Actual(body); not {
					*name = "!" + *name
				}
			}
		}
		return rules
	}
	return firewall.Config{Filter: actual(cfg.Firewall.Filter), NAT: actual(cfg.Firewall.NAT)}
}

// Called is what users call an interface.
func (cfg Config) Called(name string) string {
	for _, p := range cfg.Links {
		if p.Name == name && p.Renamed != "" {
			return p.Renamed
		}
	}
	return name
}

// device is the interface that users call so: of a port the board's name for it. It is
// "" if name was that of a port which is called otherwise now.
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
