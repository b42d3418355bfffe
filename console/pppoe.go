package console

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/pppoe"
)

func pppoeClients(c *Config) *[]pppoe.Config { return &c.PPPoEClients }

const pppoePath = "interface pppoe-client"

// monitorPPPoE shows what clients do, as RouterOS's command does.
var monitorPPPoE = command{name: "monitor", help: "show what clients do", shows: true, positional: []string{"numbers"}, arguments: []argument{numbersArgument, intervalArgument},
	words: []Choice{{"once", "once, as without interval="}}, able: func(l Live) bool { return l.PPPoEClients != nil }, run: (*execution).monitorPPPoE}

// pppoeMenu is the menu /interface pppoe-client (https://help.mikrotik.com/docs/spaces/ROS/pages/2031625/PPPoE).
func pppoeMenu() *menu {
	properties := renamingLinks(bindItems(pppoeClients,
		prop("name", linkName(), "", "name of the client and of its interface", func(c *pppoe.Config) *string { return &c.Name }),
		prop("interface", linkOf(netcfg.Ether, netcfg.BridgeType, netcfg.VLANType), "", "port, bridge or VLAN that it dials over",
			func(c *pppoe.Config) *string { return &c.Interface }),
		prop("max-mtu", auto(integer(576, pppoe.MaxMTU)), "auto", "largest packet that it sends, in bytes; auto: 1492", func(c *pppoe.Config) *int { return &c.MaxMTU }),
		prop("max-mru", auto(integer(576, pppoe.MaxMTU)), "auto", "largest packet that it receives, in bytes; auto: 1492", func(c *pppoe.Config) *int { return &c.MaxMRU }),
		prop("user", label(0, pppoe.MaxUser), "", "name that the provider knows the user by", func(c *pppoe.Config) *string { return &c.User }),
		prop("password", label(0, pppoe.MaxPassword), "", "password of the user", func(c *pppoe.Config) *string { return &c.Password }),
		prop("service-name", label(0, pppoe.MaxService), "", "service that is wanted; any, if it is empty", func(c *pppoe.Config) *string { return &c.Service }),
		prop("ac-name", label(0, pppoe.MaxService), "", "access concentrator that is wanted; any, if it is empty", func(c *pppoe.Config) *string { return &c.AC }),
		prop("add-default-route", boolean(), "no", "whether the connection is the default route", func(c *pppoe.Config) *bool { return &c.DefaultRoute }),
		prop("default-route-distance", integer(1, 255), "1", "distance of that route", func(c *pppoe.Config) *int { return &c.Distance }),
		prop("use-peer-dns", boolean(), "no", "whether the provider's name servers are asked", func(c *pppoe.Config) *bool { return &c.PeerDNS }),
		prop("allow", methods(), "pap,chap,mschap1,mschap2", "ways in which the password may be proved", func(c *pppoe.Config) *pppoe.Methods { return &c.Allow }),
		prop("keepalive-timeout", keepalive(), "10", "seconds from one echo to the next; the provider is gone when three are not answered",
			func(c *pppoe.Config) *time.Duration { return &c.Keepalive }),
		prop("disabled", boolean(), "yes", "whether the item is kept without effect", func(c *pppoe.Config) *bool { return &c.Disabled }),
		comment(func(c *pppoe.Config) *string { return &c.Comment }),
	))
	for i := range properties {
		if p := &properties[i]; p.name == "password" {
			p.sensitive = true
			hide(p)
		}
	}
	return &menu{
		path: pppoePath, help: "connections to a provider by PPPoE",
		commands: commandsLike(linkCommands(), "", monitorPPPoE),
		legend:   legendLink, flags: flagsLink, items: itemLists[pppoeItems], rows: (*execution).pppoeRows,
		columns: []column{{"name", 16}, {"interface", 16}, {"user", 16}, {"status", 12}, {"local-address", 0}},
		stats:   (*execution).linkStats, statColumns: linkStatsColumns,
		properties: properties,
		readOnly: append(linkCounters(),
			readOnly{name: "status", help: "what the client does, or why there is no connection"},
			readOnly{name: "uptime", help: "time since the connection is there"},
			readOnly{name: "active-service-name", help: "service of the connection"},
			readOnly{name: "active-ac-name", help: "access concentrator"},
			readOnly{name: "ac-mac", help: "hardware address of the access concentrator"},
			readOnly{name: "mtu", help: "largest packet that is sent, in bytes"},
			readOnly{name: "mru", help: "largest packet that is received, in bytes"},
			readOnly{name: "local-address", help: "address that the provider gave"},
			readOnly{name: "remote-address", help: "address of the provider's end"},
			readOnly{name: "primary-dns", help: "first name server of the provider"},
			readOnly{name: "secondary-dns", help: "second name server of the provider"},
		),
	}
}

// auto is automatic for a value that is written as auto too.
func auto(k kind[int]) kind[int] {
	format := k.format
	k = automatic(k)
	k.typ = Text
	k.format = func(n int) string {
		if n == 0 {
			return "auto"
		}
		return format(n)
	}
	return k
}

// hide keeps a value out of errors.
func hide(p *property) {
	set, accepts, name := p.set, p.accepts, p.name
	p.set = func(c *Config, item int, value string) error {
		if set(c, item, value) != nil {
			return fmt.Errorf("invalid value for argument %s; expected %s", name, accepts)
		}
		return nil
	}
}

// methodNames are the words of allow.
var methodNames = []struct {
	name   string
	method pppoe.Methods
}{{"pap", pppoe.PAP}, {"chap", pppoe.CHAP}, {"mschap1", pppoe.MSCHAP1}, {"mschap2", pppoe.MSCHAP2}}

// methods is a list of ways to prove a password.
func methods() kind[pppoe.Methods] {
	k := kind[pppoe.Methods]{typ: List, list: true, accepts: "pap | chap | mschap1 | mschap2, or a list of them"}
	for _, m := range methodNames {
		k.values = append(k.values, m.name)
	}
	k.parse = func(s string) (all pppoe.Methods, err error) {
		for word := range strings.SplitSeq(s, ",") {
			full, err := oneOf(word, k.values...)
			if err != nil {
				return 0, err
			}
			all |= methodNames[slices.Index(k.values, full)].method
		}
		return all, nil
	}
	k.format = func(all pppoe.Methods) string {
		var words []string
		for _, m := range methodNames {
			if all&m.method != 0 {
				words = append(words, m.name)
			}
		}
		return strings.Join(words, ",")
	}
	return k
}

// keepalive is a number of seconds, or disabled.
func keepalive() kind[time.Duration] {
	seconds := integer(1, 65535)
	return kind[time.Duration]{
		accepts: "disabled | seconds: 1..65535",
		parse: func(s string) (time.Duration, error) {
			if s == "disabled" {
				return 0, nil
			}
			n, err := seconds.parse(strings.TrimSuffix(s, "s"))
			return time.Duration(n) * time.Second, err
		},
		format: func(d time.Duration) string {
			if d == 0 {
				return "disabled"
			}
			return seconds.format(int(d / time.Second))
		},
	}
}

// PPPoEClientState is the state of a PPPoE client.
type PPPoEClientState struct {
	Name   string
	Status string
	// Slave says that the interface is a port of a bridge, over which no client can dial.
	Slave bool
	// AC, Service and Server are those of the session; Server is zero if there is none.
	AC, Service string
	Server      ether.MAC
	// Local is the zero Addr while there is no connection; then the rest is zero too.
	Local, Remote netip.Addr
	NameServers   []netip.Addr
	MTU, MRU      int
	Uptime        time.Duration
}

// pppoeStates are the states of the clients, by their names.
func (x *execution) pppoeStates() (map[string]PPPoEClientState, error) {
	all := map[string]PPPoEClientState{}
	if x.live.PPPoEClients == nil {
		return all, nil
	}
	states, err := x.live.PPPoEClients()
	for _, s := range states {
		all[s.Name] = s
	}
	return all, err
}

// pairs are what monitor shows.
func (s PPPoEClientState) pairs() []Pair {
	pairs := []Pair{textPair("status", s.Status)}
	if s.Local.IsValid() {
		pairs = append(pairs, durationPair("uptime", s.Uptime.Truncate(time.Second)))
	}
	if s.Server != (ether.MAC{}) {
		pairs = append(pairs, textPair("active-service-name", s.Service), textPair("active-ac-name", s.AC), textPair("ac-mac", macText(s.Server)))
	}
	if !s.Local.IsValid() {
		return pairs
	}
	pairs = append(pairs, numberPair("mtu", s.MTU), numberPair("mru", s.MRU), addressPair("local-address", s.Local))
	if s.Remote.IsValid() {
		pairs = append(pairs, addressPair("remote-address", s.Remote))
	}
	for i, name := range []string{"primary-dns", "secondary-dns"} {
		if i < len(s.NameServers) {
			pairs = append(pairs, addressPair(name, s.NameServers[i]))
		}
	}
	return pairs
}

// pppoeRows are the clients and what they do.
func (x *execution) pppoeRows() ([]row, error) {
	if _, err := x.ports(); err != nil {
		return nil, err
	}
	states, err := x.pppoeStates()
	if err != nil {
		return nil, err
	}
	rows := x.configured(x.menu(pppoePath))
	for i := range rows {
		r := &rows[i]
		s, known := states[r.value("name")]
		r.flags = x.linkFlags(r.flags&flagDisabled != 0, r.flags&flagInvalid != 0 || s.Slave, x.linkState(r.value("name")))
		if s.Slave && r.comment == "" {
			r.comment = "PPPoE client can not run on slave interface!"
		}
		if known && r.flags&flagDisabled == 0 {
			r.pairs = append(r.pairs, s.pairs()...)
		}
	}
	return rows, nil
}

// monitorPPPoE prints what clients do.
func (x *execution) monitorPPPoE(m *menu, a arguments) error {
	x.result.Repeat = a.interval
	indices, err := x.resolve(m, a.items["numbers"])
	if err != nil {
		return err
	}
	states, err := x.pppoeStates()
	if err != nil {
		return err
	}
	for _, i := range indices {
		s, known := states[x.cfg.PPPoEClients[i].Name]
		if !known || x.cfg.PPPoEClients[i].Disabled {
			s = PPPoEClientState{Status: string(pppoe.Disconnected)}
		}
		pairs := s.pairs()
		width := 0
		for _, p := range pairs {
			width = max(width, len(p.Name))
		}
		for _, p := range pairs {
			fmt.Fprintln(&x.out, strings.TrimRight(fmt.Sprintf("%*s: %s", width+2, p.Name, Printable(p.Value.text)), " "))
		}
	}
	return nil
}

// checkPPPoE refuses clients that cannot be, and what cannot be over their interfaces.
func (cfg Config) checkPPPoE() error {
	if err := pppoe.Validate(cfg.PPPoEClients); err != nil {
		return fmt.Errorf("/%s: %w", pppoePath, err)
	}
	ethernet := func(menu string, item int, name string) error {
		if slices.ContainsFunc(cfg.PPPoEClients, func(c pppoe.Config) bool { return c.Name == name }) {
			return fmt.Errorf("/%s %d: interface=%s: %w", menu, item, name, match.Refusal("expected a port, a bridge or a VLAN, not a PPPoE client"))
		}
		return nil
	}
	for i, c := range cfg.PPPoEClients {
		if err := ethernet(pppoePath, i, c.Interface); err != nil {
			return err
		}
	}
	for i, c := range cfg.DHCPClients {
		if err := ethernet("ip dhcp-client", i, c.Interface); err != nil {
			return err
		}
	}
	for i, s := range cfg.DHCPServer.Servers {
		if err := ethernet("ip dhcp-server", i, s.Interface); err != nil {
			return err
		}
	}
	return nil
}
