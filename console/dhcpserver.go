package console

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/postern-router/postern/certificate"
	"github.com/postern-router/postern/dhcp/client"
	"github.com/postern-router/postern/dhcp/server"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
)

// This file has the menus of the DHCP server and of the pools of its addresses.

const (
	legendServer = "Flags: X - disabled, I - invalid"
	legendLease  = "Flags: X - disabled, D - dynamic, B - blocked"
)

func pools(c *Config) *[]server.Pool               { return &c.DHCPServer.Pools }
func dhcpServers(c *Config) *[]server.Server       { return &c.DHCPServer.Servers }
func dhcpNetworks(c *Config) *[]server.Network     { return &c.DHCPServer.Networks }
func staticLeases(c *Config) *[]server.Lease       { return &c.DHCPServer.Leases }
func dhcpServerOptions(c *Config) *[]server.Option { return &c.DHCPServer.Options }

func clonePool(p *server.Pool) { p.Ranges = slices.Clone(p.Ranges) }

func cloneNetwork(n *server.Network) {
	for _, list := range []*[]netip.Addr{&n.Gateway, &n.NameServers, &n.WINS, &n.NTP} {
		*list = slices.Clone(*list)
	}
	n.Options = slices.Clone(n.Options)
}

func cloneLease(l *server.Lease) { l.Options = slices.Clone(l.Options) }

// LeaseState is an address that the DHCP server has given to somebody.
type LeaseState struct {
	server.Binding // Left is the rest of the lease now
	// Seen is the time since the client was last heard of.
	Seen time.Duration
}

// The menus.
var (
	removeLeases = command{name: "remove", help: "remove items: a dynamic lease ends, a static one is dynamic from then on",
		positional: []string{"numbers"}, arguments: []argument{numbersArgument}, run: (*execution).removeLeases}
	makeStatic = command{name: "make-static", help: "reserve the addresses of dynamic leases for the hosts that have them",
		positional: []string{"numbers"}, arguments: []argument{numbersArgument}, needs: None, able: hasLeases, run: (*execution).makeStatic}
)

// https://help.mikrotik.com/docs/spaces/ROS/pages/24805363/IP+Pools
func poolMenu() *menu {
	return &menu{
		path: "ip pool", help: "sets of addresses", commands: plainCommands(),
		items:   itemLists[poolItems],
		rows:    (*execution).poolRows,
		columns: []column{{"name", 16}, {"ranges", 31}, {"total", 8}, {"used", 6}, {"available", 0}},
		readOnly: []readOnly{
			{name: "total", help: "how many addresses it has"},
			{name: "used", help: "how many of them somebody has"},
			{name: "available", help: "how many are free"},
		},
		properties: poolProperties(),
	}
}

func poolUsedMenu() *menu {
	return &menu{
		path: "ip pool used", help: "addresses of pools that somebody has", commands: liveCommands,
		needs: hasLeases, rows: (*execution).poolUsedRows, identify: []string{"pool", "address"},
		columns: []column{{"pool", 16}, {"address", 15}, {"owner", 5}, {"info", 0}},
		readOnly: []readOnly{
			{name: "pool", help: "the pool"},
			{name: "address", help: "the address"},
			{name: "owner", help: "what has given it away"},
			{name: "info", help: "who has it"},
		},
	}
}

// https://help.mikrotik.com/docs/spaces/ROS/pages/24805500/DHCP
func dhcpServerMenu() *menu {
	return &menu{
		path: "ip dhcp-server", help: "servers that give addresses to the hosts of a network", commands: listCommands,
		legend: legendServer, flags: []string{"XI"}, items: itemLists[dhcpServerItems],
		columns:    []column{{"name", 16}, {"interface", 16}, {"address-pool", 16}, {"lease-time", 0}},
		properties: serverProperties(), warnings: (*execution).dhcpServerWarnings,
	}
}

func (x *execution) dhcpServerWarnings() []string {
	if text := OutsideDHCP(x.cfg); text != "" {
		return []string{text}
	}
	return nil
}

// OutsideDHCP returns a warning if a DHCP server gives addresses to hosts outside, else "": on an interface that is in the
// interface list WAN, or that gets its own address by DHCP.
func OutsideDHCP(c Config) string {
	wan := c.Rules().Lists["WAN"]
	for _, s := range c.DHCPServer.Servers {
		if s.Disabled {
			continue
		}
		why := ""
		switch {
		case slices.ContainsFunc(c.DHCPClients, func(d client.Config) bool { return d.Interface == s.Interface && !d.Disabled }):
			why = "which gets its own address by DHCP"
		case wan.Has(s.Interface):
			why = "which is in interface list WAN"
		}
		if why != "" {
			return fmt.Sprintf("warning: DHCP server %s gives addresses to the hosts of %s, %s; expected an interface of the LAN", s.Name, c.Called(s.Interface), why)
		}
	}
	return ""
}

func dhcpNetworkMenu() *menu {
	return &menu{
		path: "ip dhcp-server network", help: "what the hosts of a network are told",
		commands: commandsLike(listCommands, "enable disable"),
		items:    itemLists[dhcpNetworkItems],
		columns:  []column{{"address", 18}, {"gateway", 15}, {"dns-server", 31}, {"domain", 0}},
		properties: bindItems(dhcpNetworks,
			prop("address", network(), "", "the network", func(n *server.Network) *netip.Prefix { return &n.Address }),
			prop("gateway", addressList(4), "", "router that the hosts use; none if it is empty", func(n *server.Network) *[]netip.Addr { return &n.Gateway }),
			prop("netmask", integer(0, 32), "0", "length of the network that the hosts are told; 0 is that of the address",
				func(n *server.Network) *int { return &n.Netmask }),
			prop("dns-server", unsetMeans(addressList(6), "the name servers that the router asks"), "", "name servers of the hosts",
				func(n *server.Network) *[]netip.Addr { return &n.NameServers }),
			prop("dns-none", boolean(), "no", "whether the hosts are told of no name server", func(n *server.Network) *bool { return &n.NoNameServers }),
			prop("wins-server", addressList(4), "", "NetBIOS name servers", func(n *server.Network) *[]netip.Addr { return &n.WINS }),
			prop("ntp-server", addressList(4), "", "time servers", func(n *server.Network) *[]netip.Addr { return &n.NTP }),
			prop("domain", optional(domainName(), "none"), "", "domain of the hosts' names", func(n *server.Network) *string { return &n.Domain }),
			prop("next-server", optional(address(), "none"), "", "server of hosts that start from the network", func(n *server.Network) *netip.Addr { return &n.Next }),
			prop("boot-file-name", text(0, server.MaxBootFile), "", "file that such a host loads", func(n *server.Network) *string { return &n.BootFile }),
			prop("dhcp-option", listOf(itemName(), 4), "", "more options, by their names", func(n *server.Network) *[]string { return &n.Options }),
			comment(func(n *server.Network) *string { return &n.Comment }),
		),
	}
}

func dhcpLeaseMenu() *menu {
	return &menu{
		path: "ip dhcp-server lease", help: "addresses that hosts have, and that are reserved for hosts",
		commands: commandsLike(listCommands, "move", removeLeases, makeStatic),
		legend:   legendLease, flags: []string{"XDB"}, items: itemLists[dhcpLeaseItems], changesDynamic: true,
		dynamic: (*execution).dynamicLeases, rows: (*execution).leaseRows, identify: []string{"address", "mac-address"},
		columns: []column{{"address", 15}, {"mac-address", 17}, {"host-name", 16}, {"server", 10}, {"status", 8}, {"last-seen", 0}},
		readOnly: []readOnly{
			{name: "host-name", help: "what the host calls itself"},
			{name: "status", help: "waiting, testing, offered, bound, declined or conflict"},
			{name: "expires-after", help: "rest of the lease"},
			{name: "last-seen", help: "time since the host was last heard of"},
			{name: "active-address", help: "address that the host has"},
			{name: "active-mac-address", help: "hardware address of who has it"},
		},
		properties: leaseProperties(),
	}
}

func dhcpOptionMenu() *menu {
	return &menu{
		path: "ip dhcp-server option", help: "options of your own, for networks and leases",
		commands: plainCommands(),
		items:    itemLists[dhcpOptionItems],
		columns:  []column{{"name", 16}, {"code", 4}, {"value", 0}},
		properties: bindItems(dhcpServerOptions,
			prop("name", itemName(), "", "name of the option", func(o *server.Option) *string { return &o.Name }),
			prop("code", integer(1, 254), "", "its number (RFC 2132)", func(o *server.Option) *int { return &o.Code }),
			prop("value", optionValue(), "", "its value", func(o *server.Option) *string { return &o.Value }),
			prop("force", boolean(), "no", "whether hosts are told that do not ask for it", func(o *server.Option) *bool { return &o.Force }),
			comment(func(o *server.Option) *string { return &o.Comment }),
		),
	}
}

func hasLeases(l Live) bool { return l.Leases != nil }

func poolProperties() []property {
	all := bindItems(pools,
		prop("name", itemName(), "", "name of the pool", func(p *server.Pool) *string { return &p.Name }),
		prop("ranges", rangeList(), "", "its addresses", func(p *server.Pool) *[]match.Addresses { return &p.Ranges }),
		prop("next-pool", orNone(optional(itemName(), "none")), "", "pool to use when this one is exhausted", func(p *server.Pool) *string { return &p.Next }),
		comment(func(p *server.Pool) *string { return &p.Comment }),
	)
	return renaming(all, func(c *Config, name string) bool {
		return slices.ContainsFunc(c.DHCPServer.Pools, func(p server.Pool) bool { return p.Name == name })
	}, func(c *Config, from, to string) {
		for i := range c.DHCPServer.Servers {
			replace(&c.DHCPServer.Servers[i].Pool, from, to)
		}
		for i := range c.DHCPServer.Pools {
			replace(&c.DHCPServer.Pools[i].Next, from, to)
		}
	})
}

func serverProperties() []property {
	all := bindItems(dhcpServers,
		prop("name", itemName(), "", "name of the server", func(s *server.Server) *string { return &s.Name }),
		prop("interface", portName(), "", "interface whose hosts it serves", func(s *server.Server) *string { return &s.Interface }),
		prop("address-pool", itemName(), server.StaticOnly, "pool of the addresses; "+server.StaticOnly+": those of static leases alone",
			func(s *server.Server) *string { return &s.Pool }),
		// A longer time than a year would overflow nothing, and help nobody.
		prop("lease-time", duration(time.Minute, 365*24*time.Hour), "30m", "time after which a host has to ask for more",
			func(s *server.Server) *time.Duration { return &s.LeaseTime }),
		prop("authoritative", enum[string](server.Authoritative, server.NotAuthoritative, server.AuthoritativeAfter, server.AuthoritativeLater), server.Authoritative,
			"whether hosts are refused addresses that are wrong here", func(s *server.Server) *string { return &s.Authoritative }),
		prop("conflict-detection", inverse(boolean()), "yes", "whether an address is asked for by ARP before it is offered",
			func(s *server.Server) *bool { return &s.NoConflictDetection }),
		prop("add-arp", boolean(), "no", "whether /ip arp has an entry for each lease that is bound, as interfaces with arp=reply-only need it",
			func(s *server.Server) *bool { return &s.AddARP }),
		prop("always-broadcast", boolean(), "no", "whether all hosts are replied to by broadcast", func(s *server.Server) *bool { return &s.AlwaysBroadcast }),
		prop("delay-threshold", optional(duration(time.Second, time.Hour), "none"), "", "how long a host has to have asked before it is answered",
			func(s *server.Server) *time.Duration { return &s.Delay }),
		prop("relay", unspecified(), "0.0.0.0", "relay whose hosts are served; 0.0.0.0: none, 255.255.255.255: any",
			func(s *server.Server) *netip.Addr { return &s.Relay }),
		prop("server-address", unspecified(), "0.0.0.0", "address by which the server calls itself; 0.0.0.0: that of the interface",
			func(s *server.Server) *netip.Addr { return &s.Address }),
		disabled(func(s *server.Server) *bool { return &s.Disabled }),
		comment(func(s *server.Server) *string { return &s.Comment }),
	)
	return renaming(all, func(c *Config, name string) bool {
		return slices.ContainsFunc(c.DHCPServer.Servers, func(s server.Server) bool { return s.Name == name })
	}, func(c *Config, from, to string) {
		for i := range c.DHCPServer.Leases {
			replace(&c.DHCPServer.Leases[i].Server, from, to)
		}
	})
}

func leaseProperties() []property {
	return bindItems(staticLeases,
		prop("address", optional(address(), "none, for a blocked host"), "", "address of the host", func(l *server.Lease) *netip.Addr { return &l.Address }),
		prop("mac-address", optional(macAddress(), "any"), "", "hardware address of the host", func(l *server.Lease) *ether.MAC { return &l.MAC }),
		prop("client-id", optional(clientID(), "any"), "", "what the host says that it is", func(l *server.Lease) *string { return &l.ClientID }),
		prop("server", optional(itemName(), "all"), "", "the only server that has it", func(l *server.Lease) *string { return &l.Server }),
		prop("lease-time", optional(duration(0, 365*24*time.Hour), "the server's"), "", "time after which the host has to ask for more",
			func(l *server.Lease) *time.Duration { return &l.LeaseTime }),
		prop("block-access", boolean(), "no", "whether the host gets no address", func(l *server.Lease) *bool { return &l.Block }),
		prop("always-broadcast", boolean(), "no", "whether the host is replied to by broadcast", func(l *server.Lease) *bool { return &l.AlwaysBroadcast }),
		prop("dhcp-option", listOf(itemName(), 4), "", "more options, by their names", func(l *server.Lease) *[]string { return &l.Options }),
		disabled(func(l *server.Lease) *bool { return &l.Disabled }),
		comment(func(l *server.Lease) *string { return &l.Comment }),
	)
}

func replace(name *string, from, to string) {
	if *name == from {
		*name = to
	}
}

// itemName is the kind of a name of an item, which no number and no list can be.
func itemName() kind[string] {
	k := text(1, server.MaxName)
	parse := k.parse
	k.accepts = fmt.Sprintf("name: 1..%d printable characters, not all digits, without , and /", server.MaxName)
	k.parse = func(s string) (string, error) {
		if strings.Trim(s, "0123456789-") == "" || strings.ContainsAny(s, ",/*") {
			return "", errors.New("not a name")
		}
		return parse(s)
	}
	return k
}

// rangeList is the addresses of a pool, which has some. RouterOS writes a prefix, too, as its first and last address.
func rangeList() kind[[]match.Addresses] {
	one := addressRange()
	one.format = func(r match.Addresses) string {
		if r.To == r.From {
			return r.From.String()
		}
		return r.From.String() + "-" + r.To.String()
	}
	k := listOf(one, 8)
	parse := k.parse
	k.unset = ""
	k.parse = func(s string) ([]match.Addresses, error) {
		all, err := parse(s)
		if err != nil {
			return nil, err
		}
		if len(all) == 0 || slices.ContainsFunc(all, match.Addresses.Any) {
			return nil, errors.New("no range")
		}
		for i, r := range all {
			for _, o := range all[:i] {
				if !r.To.Less(o.From) && !o.To.Less(r.From) {
					return nil, match.Refusal("two of the ranges have an address in common")
				}
			}
		}
		return all, nil
	}
	return k
}

// unspecified is an address whose zero value is written 0.0.0.0.
func unspecified() kind[netip.Addr] {
	k := address()
	k.parse = func(s string) (netip.Addr, error) {
		a, err := match.ParseIPv4(s)
		if a.IsUnspecified() {
			a = netip.Addr{}
		}
		return a, err
	}
	k.format = func(a netip.Addr) string {
		if !a.IsValid() {
			return "0.0.0.0"
		}
		return a.String()
	}
	return k
}

func unsetMeans[V any](k kind[V], what string) kind[V] {
	k.unset = what
	return k
}

// orNone is a kind of name that can be the word none, as RouterOS has it in an export of all values: then there is none.
func orNone(k kind[string]) kind[string] {
	parse := k.parse
	k.parse = func(s string) (string, error) {
		if s == "none" {
			return "", nil
		}
		return parse(s)
	}
	return k
}

func clientID() kind[string] {
	return kind[string]{
		accepts: fmt.Sprintf("bytes in hexadecimal with colons between them (1:2:0:0:0:0:1), or 0x and digits: at most %d bytes", server.MaxClientID),
		parse:   server.ParseClientID,
		format:  server.FormatClientID,
	}
}

func optionValue() kind[string] {
	return kind[string]{
		accepts: "'text', 'IP address' or 0x and hexadecimal digits, or several of them one behind the other: at most 255 characters",
		parse: func(s string) (string, error) {
			const longest = 255
			if Printable(s) != s || len(s) > longest {
				return "", errors.New("not printable, or too long")
			}
			_, err := server.ParseValue(s)
			return s, err
		},
		format: func(v string) string { return v },
	}
}

func domainName() kind[string] {
	k := hostName()
	k.accepts = "domain name"
	return k
}

// leases are those that the server has given, nil if it cannot be asked.
func (x *execution) leases() ([]LeaseState, error) {
	if x.live.Leases == nil {
		return nil, nil
	}
	if !x.leasesAsked {
		all, err := x.live.Leases()
		if err != nil {
			return nil, fmt.Errorf("list leases: %w", err)
		}
		x.leasesAsked, x.leased = true, all
	}
	return x.leased, nil
}

func (x *execution) poolRows() ([]row, error) {
	rows := x.configured(x.menu("ip pool"))
	leases, err := x.leases()
	for i := range rows {
		p := x.cfg.DHCPServer.Pools[i]
		total := server.Size(p.Ranges)
		used := uint64(0)
		for _, l := range leases {
			if inPool(p, l.Address) {
				used++
			}
		}
		rows[i].pairs = append(rows[i].pairs, numberPair("total", total), numberPair("used", used), numberPair("available", total-min(used, total)))
	}
	return rows, err
}

func inPool(p server.Pool, a netip.Addr) bool {
	return slices.ContainsFunc(p.Ranges, func(r match.Addresses) bool { return r.Match(a) })
}

func (x *execution) poolUsedRows() ([]row, error) {
	leases, err := x.leases()
	var rows []row
	for _, l := range leases {
		for _, p := range x.cfg.DHCPServer.Pools {
			if inPool(p, l.Address) {
				rows = append(rows, row{pairs: []Pair{textPair("pool", p.Name), addressPair("address", l.Address), textPair("owner", "DHCP"), textPair("info", macText(ether.MAC(l.MAC)))}})
				break
			}
		}
	}
	return rows, err
}

// staticOf returns the static lease that an address was given by, -1 if there is none.
func (x *execution) staticOf(l LeaseState) int {
	return slices.IndexFunc(x.cfg.DHCPServer.Leases, func(s server.Lease) bool {
		return !s.Disabled && s.Address == l.Address && (s.Server == "" || s.Server == l.Server) &&
			(s.MAC == ether.MAC{} || s.MAC == l.MAC) && (s.ClientID == "" || s.ClientID == l.ClientID)
	})
}

// leaseRows are the static leases, with what the server knows of them.
func (x *execution) leaseRows() ([]row, error) {
	rows := x.configured(x.menu("ip dhcp-server lease"))
	leases, err := x.leases()
	active := map[int]LeaseState{}
	for _, l := range leases {
		if i := x.staticOf(l); i >= 0 {
			active[i] = l
		}
	}
	for i := range rows {
		if x.cfg.DHCPServer.Leases[i].Block {
			rows[i].flags |= flagBlocked
		}
		l, ok := active[i]
		if !ok {
			if x.live.Leases != nil && rows[i].flags&flagDisabled == 0 {
				rows[i].pairs = append(rows[i].pairs, wordPair("status", "waiting"))
			}
			continue
		}
		rows[i].pairs = append(rows[i].pairs, l.pairs()...)
		rows[i].pairs = append(rows[i].pairs, l.activePairs()...)
	}
	return rows, err
}

// pairs are what is known of a lease besides who has it.
func (l LeaseState) pairs() []Pair {
	pairs := []Pair{wordPair("status", l.Status.String())}
	if l.HostName != "" {
		pairs = append(pairs, textPair("host-name", l.HostName))
	}
	return append(pairs, durationPair("expires-after", l.Left), durationPair("last-seen", l.Seen))
}

// activePairs say which address the host has, and who it is: programs look for them whether the lease is dynamic
// or not.
func (l LeaseState) activePairs() []Pair {
	pairs := []Pair{addressPair("active-address", l.Address)}
	if mac := macText(ether.MAC(l.MAC)); mac != "" {
		pairs = append(pairs, textPair("active-mac-address", mac))
	}
	return pairs
}

// dynamicLeases are the leases that are no static ones.
func (x *execution) dynamicLeases() ([]row, error) {
	leases, err := x.leases()
	seen := map[ID]int{}
	var rows []row
	for _, l := range leases {
		if x.staticOf(l) >= 0 || slices.Contains(x.result.Action.Remove, l.Address) {
			continue
		}
		r := row{flags: flagDynamic, pairs: []Pair{addressPair("address", l.Address)}}
		if mac := macText(ether.MAC(l.MAC)); mac != "" {
			r.pairs = append(r.pairs, textPair("mac-address", mac))
		}
		if l.ClientID != "" {
			r.pairs = append(r.pairs, textPair("client-id", server.FormatClientID(l.ClientID)))
		}
		r.pairs = append(append(r.pairs, textPair("server", l.Server)), l.pairs()...)
		r.pairs = append(r.pairs, l.activePairs()...)
		r.id = liveID(x.menu("ip dhcp-server lease"), r, seen)
		r.key = key{id: r.id}
		rows = append(rows, r)
	}
	return rows, err
}

// chosenLeases are the dynamic leases and the indices of the static ones that an argument refers to.
func (x *execution) chosenLeases(m *menu, a arguments) (dynamic []LeaseState, static []int, err error) {
	rows, static, err := x.chosenOf(m, a, x.dynamicLeases)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range rows {
		for _, l := range x.leased {
			if l.Address.String() == r.value("address") {
				dynamic = append(dynamic, l)
			}
		}
	}
	return dynamic, static, nil
}

func (x *execution) removeLeases(m *menu, a arguments) error {
	dynamic, static, err := x.chosenLeases(m, a)
	if err != nil {
		return err
	}
	x.removeItems(m, static)
	for _, l := range dynamic {
		x.result.Action.Remove = append(x.result.Action.Remove, l.Address)
	}
	return nil
}

// makeStatic reserves addresses for those who have them. What is static already stays as it is.
func (x *execution) makeStatic(m *menu, a arguments) error {
	dynamic, _, err := x.chosenLeases(m, a)
	if err != nil {
		return err
	}
	for _, l := range dynamic {
		if l.Status != server.Bound {
			return errors.New("failure: " + l.Address.String() + " is " + l.Status.String() + "; expected a lease that is bound")
		}
		i, err := x.append(m)
		if err != nil {
			return err
		}
		x.cfg.DHCPServer.Leases[i].Address, x.cfg.DHCPServer.Leases[i].MAC = l.Address, l.MAC
		x.cfg.DHCPServer.Leases[i].ClientID, x.cfg.DHCPServer.Leases[i].Server = l.ClientID, l.Server
	}
	return x.checkCount(m)
}

// inUse is the error of a pool, a server or an option that is gone and was there before, and that
// something needs.
func inUse(old, next Config) error {
	before, after := old.DHCPServer, next.DHCPServer
	return cmp.Or(
		goneInUse("pool", before.Pools, after.Pools, func(p server.Pool) string { return p.Name }, after.Uses),
		goneInUse("DHCP server", before.Servers, after.Servers, func(s server.Server) string { return s.Name }, after.ServerUses),
		goneInUse("DHCP option", before.Options, after.Options, func(o server.Option) string { return o.Name }, after.OptionUses),
		goneInUse("certificate", old.Certificates, next.Certificates, func(c certificate.Certificate) string { return c.Name }, next.certificateUses))
}

// goneInUse is the error of an item of before that is not in after, and that something uses.
func goneInUse[T any](kind string, before, after []T, nameOf func(T) string, uses func(name string) []string) error {
	for _, item := range before {
		name := nameOf(item)
		if slices.ContainsFunc(after, func(now T) bool { return nameOf(now) == name }) {
			continue
		}
		if by := uses(name); len(by) > 0 {
			return fmt.Errorf("failure: %s %s is in use by %s", kind, name, strings.Join(by[:min(len(by), 4)], ", "))
		}
	}
	return nil
}

// certificateUses are the services that have the certificate of that name.
func (c Config) certificateUses(name string) (uses []string) {
	for _, s := range NetworkServices {
		if s.of(&c).Certificate == name {
			uses = append(uses, "/ip service "+s.Name)
		}
	}
	return uses
}
