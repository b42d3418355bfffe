package console

import (
	"fmt"
	"slices"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/socks"
)

// This file has the rows that only the running system knows.

var (
	ruleColumns   = []column{{"chain", 22}, {"action", 23}, {"bytes", 20}, {"packets", 0}}
	accessColumns = []column{{"src-address", 18}, {"dst-address", 18}, {"dst-port", 11}, {"action", 6}, {"hits", 0}}
)

// counted returns the rows that n counters belong to: the items of m. It is an error if they
// do not fit together, because the rules are not in force or this line has changed them.
func (x *execution) counted(m *menu, rows []row, n int) ([]row, error) {
	ids := *m.items.ids(&x.cfg)
	if n != len(ids) || !slices.Equal(ids, *m.items.ids(&Config{ids: x.before})) {
		return nil, unavailable("counters")
	}
	return rows[len(rows)-n:], nil
}

// ruleStats adds the counters of the firewall rules to rows.
func (x *execution) ruleStats(m *menu, rows []row) error {
	if x.live.Counters == nil {
		return unavailable("counters")
	}
	counters, err := x.live.Counters(firewall.Table(m.name()))
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	rules, err := x.counted(m, rows, len(counters))
	if err != nil {
		return err
	}
	for i, c := range counters {
		rules[i].pairs = append(rules[i].pairs, bytesPair("bytes", c.Bytes), numberPair("packets", c.Packets))
	}
	return nil
}

// resetCounters has the counters of rules set to zero: of those that numbers refers to, or of all.
func (x *execution) resetCounters(m *menu, a arguments) error {
	indices, err := x.countedItems(m, a)
	if err != nil {
		return err
	}
	if x.result.Action.Reset == nil {
		x.result.Action.Reset = map[firewall.Table][]int{}
	}
	t := firewall.Table(m.name())
	x.result.Action.Reset[t] = append(x.result.Action.Reset[t], indices...)
	return nil
}

// countedItems are those whose counters shall be set to zero. It is an error if this line has changed them.
func (x *execution) countedItems(m *menu, a arguments) (indices []int, err error) {
	if !slices.Equal(*m.items.ids(&x.cfg), *m.items.ids(&Config{ids: x.before})) {
		return nil, unavailable("counters")
	}
	if w, some := a.items["numbers"]; some {
		return x.resolve(m, w)
	}
	return upTo(m.items.count(&x.cfg)), nil
}

// accessStats adds to rows how many requests each access rule has decided.
func (x *execution) accessStats(m *menu, rows []row) error {
	if x.live.Hits == nil {
		return unavailable("counters")
	}
	hits, err := x.live.Hits()
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	rules, err := x.counted(m, rows, len(hits))
	if err != nil {
		return err
	}
	for i, n := range hits {
		rules[i].pairs = append(rules[i].pairs, numberPair("hits", n))
	}
	return nil
}

// openings are the ports that BIND and UDP ASSOCIATE have opened, written as filter rules.
func (x *execution) openings() ([]row, error) {
	if x.live.Openings == nil {
		return nil, nil
	}
	var rows []row
	for _, o := range x.live.Openings() {
		comment := "socks bind"
		if o.UDP {
			comment = "socks udp"
		}
		r := row{comment: comment, pairs: []Pair{wordPair("chain", "input"), wordPair("action", "accept")}}
		if o.Peer.IsValid() && !o.Peer.IsUnspecified() {
			r.pairs = append(r.pairs, textPair("src-address", o.Peer.String()))
		}
		if o.Local.IsValid() && !o.Local.IsUnspecified() {
			r.pairs = append(r.pairs, textPair("dst-address", o.Local.String()))
		}
		r.pairs = append(r.pairs, textPair("dst-port", fmt.Sprint(o.Port)), wordPair("protocol", o.Protocol()))
		rows = append(rows, r)
	}
	return rows, nil
}

func (x *execution) dynamicAddresses() ([]row, error) {
	if x.live.Addresses == nil {
		return nil, nil
	}
	addresses, err := x.live.Addresses()
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var rows []row
	for _, a := range addresses {
		rows = append(rows, row{pairs: []Pair{prefixPair("address", a.Address), textPair("interface", x.cfg.Called(a.Interface)),
			addressPair("network", a.Address.Masked().Addr())}})
	}
	return rows, nil
}

// routeRows are the routes that the system has made, and those of the configuration. Of the
// routes to one destination, the one with the lowest distance is active. If the kernel cannot
// be asked, set is returned together with the error.
func (x *execution) routeRows() (made, set []row, err error) {
	set = x.configured(x.menu("ip route"))
	for i := range set {
		r := &set[i]
		if r.flags |= flagStatic; r.flags&flagInvalid != 0 {
			r.flags ^= flagInvalid | flagInactive
		}
		// What leads nowhere is told by a flag.
		r.flags |= flagNamed(x.cfg.Routes[i].Type)
		r.pairs = slices.DeleteFunc(r.pairs, func(p Pair) bool { return p.Name == netcfg.Blackhole })
	}
	if x.live.Routes == nil {
		return nil, set, nil
	}
	routes, err := x.live.Routes()
	if err != nil {
		return nil, set, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		gateway, set := textPair("gateway", x.cfg.Called(r.Interface)), flagDynamic|flagConnect
		if r.Gateway.IsValid() {
			gateway, set = addressPair("gateway", r.Gateway), flagDynamic|flagStatic
		} else if r.Destination.Bits() == 0 { // that of a PPPoE client, not of an address
			set = flagDynamic | flagStatic
		}
		if r.Inactive {
			set |= flagInactive
		}
		made = append(made, row{flags: set, pairs: []Pair{prefixPair("dst-address", r.Destination), gateway, numberPair("distance", r.Distance)}})
	}
	best := map[string]*row{}
	for _, rows := range [][]row{made, set} {
		for i := range rows {
			r := &rows[i]
			if i < len(routes) && r == &made[i] && routes[i].Outranked {
				continue
			}
			to := r.value("dst-address") + " " + r.value("routing-table")
			b := best[to]
			if r.flags&(flagDisabled|flagInactive) == 0 && (b == nil || r.distance() < b.distance()) {
				best[to] = r
			}
		}
	}
	for _, r := range best {
		r.flags |= flagActive
	}
	return made, set, nil
}

func (r row) distance() int64 {
	n, _ := decimal(r.value("distance")) // it is one
	return n
}

// connectionRows are the connections through the SOCKS server.
func (x *execution) connectionRows() ([]row, error) {
	if x.live.Connections == nil {
		return nil, unavailable("connections")
	}
	connections, err := x.live.Connections()
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	rows := make([]row, len(connections))
	for i, c := range connections {
		pairs := []Pair{textPair("src-address", c.Src.String())}
		if c.Dst.IsValid() { // it is not before the client's request
			pairs = append(pairs, textPair("dst-address", c.Dst.String()))
		}
		pairs = append(pairs, wordPair("type", string(c.Type)), bytesPair("tx", c.Tx), bytesPair("rx", c.Rx),
			durationPair("age", c.Age), durationPair("idle", c.Idle))
		if c.UserID != "" {
			name := "user-id"
			if x.cfg.Socks.Version == 5 && x.cfg.Socks.AuthMethod == socks.AuthPassword {
				name = "user" // nobody else is served
			}
			pairs = append(pairs, textPair(name, c.UserID))
		}
		rows[i] = row{id: firstLive | ID(c.Number), pairs: pairs, removal: func(a *Action) { a.Close = append(a.Close, c.Number) }}
	}
	return rows, nil
}

func (x *execution) trackedRows() ([]row, error) {
	tracked, err := x.live.Tracked()
	if err != nil {
		return nil, fmt.Errorf("list connections: %w", err)
	}
	rows := make([]row, len(tracked))
	for i, c := range tracked {
		rows[i].removal = func(a *Action) { a.Forget = append(a.Forget, c) }
		end := func(name string, a, b string, port uint16) Pair {
			if port == 0 { // as with icmp
				return textPair(name, a)
			}
			return textPair(name, b)
		}
		rows[i].pairs = []Pair{wordPair("protocol", c.Protocol),
			end("src-address", c.Src.Addr().String(), c.Src.String(), c.Src.Port()),
			end("dst-address", c.Dst.Addr().String(), c.Dst.String(), c.Dst.Port())}
		if c.State != "" {
			rows[i].pairs = append(rows[i].pairs, wordPair("tcp-state", c.State))
		}
		rows[i].pairs = append(rows[i].pairs, durationPair("timeout", c.Timeout))
	}
	return rows, nil
}
