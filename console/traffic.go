package console

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
)

// This file has the commands that show what goes through the router each second. They run again and again, and compare
// the counters with those of the time before.

// torchRows is how many connections torch shows: those with the most traffic.
const torchRows = 20

// trafficArguments are the arguments of monitor-traffic and torch.
type trafficArguments struct {
	interfaces         string
	interval, duration time.Duration
	src, dst           match.Addresses
	port               match.Ports
	protocol           string
}

// measurement is what a line has counted.
type measurement struct {
	began, at time.Time
	// links are the counters of interfaces, in the order of the line, and connections those of connections, by their hashes.
	links       []linkCounts
	connections map[uint64]connectionCounts
	seed        maphash.Seed
}

type (
	linkCounts       struct{ rxBytes, rxPackets, txBytes, txPackets uint64 }
	connectionCounts struct{ sent, answered uint64 }
)

var onceWord = Choice{"once", "for one interval"}

// trafficIntervals are arguments of both commands.
func trafficIntervals() []argument {
	return []argument{
		option(prop("interval", duration(500*time.Millisecond, time.Hour), "1s", "time over which it counts, and after which it shows the next",
			func(o *options) *time.Duration { return &o.traffic.interval })),
		option(prop("duration", optional(duration(time.Second, 24*time.Hour), "until a key is pressed"), "", "time after which it ends",
			func(o *options) *time.Duration { return &o.traffic.duration })),
	}
}

var (
	monitorTraffic = sync.OnceValue(func() command {
		return command{name: "monitor-traffic", help: "show what goes through interfaces each second", shows: true, positional: []string{"interface"},
			words: []Choice{onceWord}, able: func(l Live) bool { return l.Links != nil && l.Now != nil }, run: (*execution).monitorTraffic,
			arguments: append([]argument{
				option(prop("interface", interfaceNamesKind(), "", "which interfaces", func(o *options) *string { return &o.traffic.interfaces })),
			}, trafficIntervals()...)}
	})
	torchCommand = sync.OnceValue(func() command {
		return command{name: "torch", help: "show which connections have the most traffic through an interface", shows: true, positional: []string{"interface"},
			words: []Choice{onceWord}, able: func(l Live) bool { return l.Tracked != nil && l.Links != nil && l.Routes != nil && l.Now != nil }, run: (*execution).torch,
			arguments: append([]argument{
				option(prop("interface", portName(), "", "which interface", func(o *options) *string { return &o.traffic.interfaces })),
				option(prop("src-address", addressMatch(), "", "only connections that these addresses have opened",
					func(o *options) *match.Addresses { return &o.traffic.src })),
				option(prop("dst-address", addressMatch(), "", "only connections that were opened to these addresses",
					func(o *options) *match.Addresses { return &o.traffic.dst })),
				option(prop("port", portMatch(), "", "only connections with one of these ports at either end",
					func(o *options) *match.Ports { return &o.traffic.port })),
				option(prop("ip-protocol", optional(enum[string]("tcp", "udp", "icmp"), "any"), "", "only connections of this protocol",
					func(o *options) *string { return &o.traffic.protocol })),
			}, trafficIntervals()...)}
	})
)

// interfaceNamesKind is the kind of a list of names of interfaces.
func interfaceNamesKind() kind[string] {
	k := text(1, 255)
	k.accepts = "name of an interface, or a list of names"
	return k
}

// measure begins the next round of a line: it returns what there was at the last, nil if this is the first, and how many
// seconds ago that was. It also says whether the line goes on.
func (x *execution) measure(a arguments, now *measurement) (before *measurement, seconds float64) {
	before, now.at = x.measured, x.live.Now()
	now.began = now.at
	if before != nil {
		now.began = before.began
		seconds = max(now.at.Sub(before.at).Seconds(), 0.001)
	}
	x.measured = now
	last := before != nil && (slices.Contains(a.words, onceWord.Name) || a.traffic.duration > 0 && now.at.Sub(now.began) >= a.traffic.duration)
	if !last {
		x.result.Repeat = a.traffic.interval
	}
	return before, seconds
}

// perSecond is the rate of a counter. One that has gone back counts anew.
func perSecond(now, before uint64, seconds float64) uint64 {
	if now < before {
		before = 0
	}
	return uint64(float64(now-before)/seconds + 0.5)
}

// rateOf writes bits per second as RouterOS does: 376bps, 13.0kbps, 2.3Mbps.
func rateOf(bits uint64) string {
	value, unit := float64(bits), ""
	for _, u := range []string{"k", "M", "G"} {
		if value < 1000 {
			break
		}
		value, unit = value/1000, u
	}
	if unit == "" {
		return strconv.FormatUint(bits, 10) + "bps"
	}
	return strconv.FormatFloat(value, 'f', 1, 64) + unit + "bps"
}

// interfacesOf are the interfaces of a list of names: the user's names, and the system's.
func (x *execution) interfacesOf(text string) (names, devices []string, err error) {
	known := x.interfaceNames()
	for name := range strings.SplitSeq(text, ",") {
		device := x.cfg.device(name)
		if !slices.Contains(known, name) || device == "" {
			return nil, nil, valueError("interface", name, strings.Join(known, " | "), true, errNoMatch)
		}
		if !slices.Contains(names, name) {
			names, devices = append(names, name), append(devices, device)
		}
	}
	return names, devices, nil
}

// monitorTraffic shows what goes through interfaces:
//
//	                 name: ether1   ether2
//	rx-packets-per-second:     12       10
//	   rx-bits-per-second: 5.6kbps 4.2kbps
func (x *execution) monitorTraffic(_ *menu, a arguments) error {
	names, devices, err := x.interfacesOf(a.traffic.interfaces)
	if err != nil {
		return err
	}
	now := &measurement{}
	for _, device := range devices {
		l := x.linkState(device)
		now.links = append(now.links, linkCounts{l.RxBytes, l.RxPackets, l.TxBytes, l.TxPackets})
	}
	before, seconds := x.measure(a, now)
	if before == nil || len(before.links) != len(now.links) {
		return nil
	}
	table := [][]string{append([]string{"name"}, names...)}
	for _, p := range []struct {
		name string
		of   func(linkCounts) uint64
		bits bool
	}{
		{"rx-packets-per-second", func(c linkCounts) uint64 { return c.rxPackets }, false},
		{"rx-bits-per-second", func(c linkCounts) uint64 { return c.rxBytes * 8 }, true},
		{"tx-packets-per-second", func(c linkCounts) uint64 { return c.txPackets }, false},
		{"tx-bits-per-second", func(c linkCounts) uint64 { return c.txBytes * 8 }, true},
	} {
		cells := []string{p.name}
		for i := range names {
			rate := perSecond(p.of(now.links[i]), p.of(before.links[i]), seconds)
			if p.bits {
				cells = append(cells, rateOf(rate))
			} else {
				cells = append(cells, strconv.FormatUint(rate, 10))
			}
		}
		table = append(table, cells)
	}
	widths := make([]int, len(names)+1)
	for _, cells := range table {
		for i, cell := range cells {
			widths[i] = max(widths[i], len(cell))
		}
	}
	for _, cells := range table {
		line := fmt.Sprintf("%*s:", widths[0]+4, cells[0])
		for i, cell := range cells[1:] {
			line += fmt.Sprintf(" %*s", widths[i+1], cell)
		}
		fmt.Fprintln(&x.out, line)
	}
	return nil
}

// torched is a connection as an interface sees it.
type torched struct {
	protocol string
	src, dst netip.AddrPort
	tx, rx   uint64 // bits per second: what the router sends by the interface, and receives by it
}

// before reports whether t is shown before o.
func (t torched) before(o torched) bool {
	if t.tx+t.rx != o.tx+o.rx {
		return t.tx+t.rx > o.tx+o.rx
	}
	return cmp.Or(t.src.Compare(o.src), t.dst.Compare(o.dst)) < 0
}

// torch shows the connections with the most traffic through an interface, by what connection tracking has counted. Which interface
// that is, the addresses and routes say.
func (x *execution) torch(_ *menu, a arguments) error {
	names, _, err := x.interfacesOf(a.traffic.interfaces)
	if err != nil {
		return err
	}
	connections, err := x.live.Tracked()
	if err != nil {
		return fmt.Errorf("list connections: %w", err)
	}
	ways, err := x.ways()
	if err != nil {
		return err
	}
	own, err := x.ownAddresses()
	if err != nil {
		return err
	}
	now := &measurement{connections: make(map[uint64]connectionCounts, len(connections)), seed: maphash.MakeSeed()}
	if x.measured != nil {
		now.seed = x.measured.seed
	}
	for _, c := range connections {
		n := now.connections[sumOf(c, now.seed)]
		now.connections[sumOf(c, now.seed)] = connectionCounts{n.sent + c.Bytes, n.answered + c.ReplyBytes}
	}
	before, seconds := x.measure(a, now)
	if before == nil {
		return nil
	}
	var rows []torched // those with the most traffic first
	var tx, rx uint64
	shown := map[uint64]bool{}
	for _, c := range connections {
		sum := sumOf(c, now.seed)
		n, known := now.connections[sum], before.connections[sum]
		sent, answered := perSecond(n.sent*8, known.sent*8, seconds), perSecond(n.answered*8, known.answered*8, seconds)
		if sent+answered == 0 || shown[sum] {
			continue
		}
		// It comes by the interface to its source, and leaves by that to its destination, where it may have other addresses.
		side, far := torched{c.Protocol, c.Src, c.Dst, answered, sent}, c.Src
		if slices.Contains(own, far.Addr()) || interfaceTo(ways, far.Addr()) != names[0] || !a.traffic.takes(side) {
			side, far = torched{c.Protocol, c.ReplyDst, c.ReplySrc, sent, answered}, c.ReplySrc
			if slices.Contains(own, far.Addr()) || interfaceTo(ways, far.Addr()) != names[0] || !a.traffic.takes(side) {
				continue
			}
		}
		shown[sum] = true
		tx, rx = tx+side.tx, rx+side.rx
		if rows = append(rows, side); len(rows) > torchRows+1 {
			rows = rows[:torchRows+1]
			rows[torchRows] = side
		}
		for i := len(rows) - 1; i > 0 && rows[i].before(rows[i-1]); i-- {
			rows[i], rows[i-1] = rows[i-1], rows[i]
		}
	}
	rows = rows[:min(len(rows), torchRows)]
	const format = "%-11s %-21s %-21s %9s %9s\n"
	fmt.Fprintf(&x.out, format, "IP-PROTOCOL", "SRC-ADDRESS", "DST-ADDRESS", "TX", "RX")
	for _, r := range rows {
		fmt.Fprintf(&x.out, format, r.protocol, endText(r.src), endText(r.dst), rateOf(r.tx), rateOf(r.rx))
	}
	fmt.Fprintf(&x.out, format, "", "", fmt.Sprintf("%d of %d", len(rows), len(shown)), rateOf(tx), rateOf(rx))
	return nil
}

// sumOf is a hash of what a connection is known by. Those of ICMP between two hosts are one.
func sumOf(c firewall.Tracked, seed maphash.Seed) uint64 {
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.WriteString(c.Protocol) // never fails
	for _, end := range []netip.AddrPort{c.Src, c.Dst} {
		address := end.Addr().As16()
		_, _ = h.Write(address[:])
		_, _ = h.Write([]byte{byte(end.Port() >> 8), byte(end.Port())})
	}
	return h.Sum64()
}

// takes reports whether a connection is one of those that were asked for.
func (t trafficArguments) takes(c torched) bool {
	return (t.protocol == "" || t.protocol == c.protocol) && t.src.Match(c.src.Addr()) && t.dst.Match(c.dst.Addr()) &&
		(t.port.Match(c.src.Port()) || t.port.Match(c.dst.Port()))
}

// endText is an address with its port, if it has one.
func endText(a netip.AddrPort) string {
	if a.Port() == 0 {
		return a.Addr().String()
	}
	return a.String()
}

// ownAddresses are those of the router.
func (x *execution) ownAddresses() (own []netip.Addr, err error) {
	rows, err := x.rows(x.menu("ip address"))
	for _, r := range rows {
		if p, err := netip.ParsePrefix(r.value("address")); err == nil {
			own = append(own, p.Addr())
		}
	}
	return own, err
}

// way is where packets to some addresses go.
type way struct {
	to  netip.Prefix
	via string // the name of an interface
}

// ways are the active routes of the main table, with their interfaces.
func (x *execution) ways() ([]way, error) {
	rows, err := x.rows(x.menu(routePath))
	if err != nil {
		return nil, err
	}
	dynamic, err := x.live.Routes()
	if err != nil {
		return nil, err
	}
	names := x.interfaceNames()
	var ways, direct []way
	var gateways []netip.Addr // of those of ways whose interface the gateway's address says, else the zero Addr
	for _, r := range rows {
		to, err := netip.ParsePrefix(r.value("dst-address"))
		if table := r.value("routing-table"); err != nil || r.flags&flagActive == 0 || table != "" && table != "main" {
			continue
		}
		w, gateway := way{to: to}, netip.Addr{}
		address, on, _ := strings.Cut(r.value("gateway"), "%")
		if slices.Contains(names, address) {
			w.via = address
			direct = append(direct, w)
		} else if gateway, err = netip.ParseAddr(address); err != nil {
			continue
		}
		leads := func(d DynamicRoute) bool { return d.Destination == to && d.Gateway == gateway && d.Interface != "" }
		if i := slices.IndexFunc(dynamic, leads); on == "" && gateway.IsValid() && i >= 0 { // its row does not say by what interface
			on = x.cfg.Called(dynamic[i].Interface)
		}
		if on != "" {
			w.via, gateway = on, netip.Addr{}
		}
		ways, gateways = append(ways, w), append(gateways, gateway)
	}
	for i, gateway := range gateways {
		if gateway.IsValid() {
			ways[i].via = interfaceTo(direct, gateway)
		}
	}
	return ways, nil
}

// interfaceTo is the interface by which packets to an address leave, "" if there is none.
func interfaceTo(ways []way, to netip.Addr) string {
	longest, via := -1, ""
	for _, w := range ways {
		if w.to.Bits() > longest && w.to.Contains(to) {
			longest, via = w.to.Bits(), w.via
		}
	}
	return via
}
