package firewall

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	// NoMark is what a packet or a connection has that nobody has marked, and NoRoutingMark what it has of routing
	// marks: its routes are those of the table of that name.
	NoMark        = "no-mark"
	NoRoutingMark = "main"
	// MaxMarks is how many marks of packets, and of connections, a Config can name.
	MaxMarks = 256
	// MaxRoutingMarks is the greatest number of a routing mark. The kernel's own tables of routes have those above it.
	MaxRoutingMarks = 250
)

// The kernel's marks have 32 bits: a packet's has the packet mark below, the routing mark above that, and above that the link by which it came in, if
// a queue names that; a connection's has the connection mark. Of each 0 is none.
const (
	connectionMask = 0xffff
	packetMask     = 0xffff
	routingShift   = 16
	routingMask    = 0xff << routingShift
	linkShift      = 24
	linkMask       = 0xff << linkShift
)

// RoutingMark is the kernel's mark of packets with the routing mark of a number, and its bits that tell it
// (FRA_FWMARK and FRA_FWMASK of linux/fib_rules.h).
func RoutingMark(number uint8) (mark, mask uint32) {
	return uint32(number) << routingShift, routingMask
}

// ofSYN are matches of the packets that open TCP connections, which have an MSS.
var ofSYN = []string{"-p", "tcp", "-m", "tcp", "--tcp-flags", "SYN,RST", "SYN"}

// marks are the numbers of the marks that a Config names.
type marks struct {
	connection, packet map[string]uint16
	routing            map[string]uint8
}

func (c *Config) marks() marks {
	connections, packets := map[string]bool{}, map[string]bool{}
	note := func(names map[string]bool, word string) {
		if name := strings.TrimPrefix(word, "!"); name != "" && name != NoMark {
			names[name] = true
		}
	}
	for _, t := range Tables {
		rules := c.Rules(t)
		for i := range rules {
			r := &rules[i]
			note(connections, r.ConnectionMark)
			note(packets, r.PacketMark)
			note(connections, r.NewConnectionMark)
			note(packets, r.NewPacketMark)
		}
	}
	for i := range c.Queues {
		note(packets, c.Queues[i].PacketMark)
	}
	return marks{numberMarks(connections), numberMarks(packets), c.RoutingTables}
}

// numberMarks gives each name a number above 0 by its sum, so that it stays while others come and go: packets and
// connections that are marked keep their mark.
func numberMarks(names map[string]bool) map[string]uint16 {
	numbers, used := make(map[string]uint16, len(names)), map[uint16]bool{}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		n := uint16(sum(name))
		for n == 0 || used[n] {
			n++
		}
		numbers[name], used[n] = n, true
	}
	return numbers
}

// NumberRoutingMark gives the routing mark of a name a number of 1..MaxRoutingMarks that is not in used, as numberMarks does; 0
// if there is none left.
func NumberRoutingMark(name string, used map[uint8]bool) uint8 {
	if len(used) >= MaxRoutingMarks {
		return 0
	}
	n := uint8(sum(name)%MaxRoutingMarks) + 1
	for used[n] {
		n = n%MaxRoutingMarks + 1
	}
	return n
}

// matches returns the matches of the marks that r names.
func (m marks) matches(r *Rule) (a []string) {
	add := func(match, word, none string, mask uint32, value func(name string) uint32) {
		name, not := strings.CutPrefix(word, "!")
		if name == "" {
			return
		}
		a = append(a, "-m", match)
		if not {
			a = append(a, "!")
		}
		v := uint32(0)
		if name != none {
			v = value(name)
		}
		a = append(a, "--mark", masked(v, mask))
	}
	add("connmark", r.ConnectionMark, NoMark, connectionMask, func(name string) uint32 { return uint32(m.connection[name]) })
	add("mark", r.PacketMark, NoMark, packetMask, func(name string) uint32 { return uint32(m.packet[name]) })
	add("mark", r.RoutingMark, NoRoutingMark, routingMask, func(name string) uint32 { mark, _ := RoutingMark(m.routing[name]); return mark })
	return a
}

func masked(value, mask uint32) string {
	return "0x" + strconv.FormatUint(uint64(value), 16) + "/0x" + strconv.FormatUint(uint64(mask), 16)
}

// target returns the option -j of the actions of Mangle and the target's own options, or nothing for another action.
func (m marks) target(r *Rule) []string {
	switch r.Action {
	case "mark-connection":
		return []string{"-j", "CONNMARK", "--set-xmark", masked(uint32(m.connection[r.NewConnectionMark]), connectionMask)}
	case "mark-packet":
		return []string{"-j", "MARK", "--set-xmark", masked(uint32(m.packet[r.NewPacketMark]), packetMask)}
	case "mark-routing":
		mark, mask := RoutingMark(m.routing[r.NewRoutingMark])
		return []string{"-j", "MARK", "--set-xmark", masked(mark, mask)}
	case "change-mss":
		if r.NewMSS == ClampMSS {
			return []string{"-j", "TCPMSS", "--clamp-mss-to-pmtu"}
		}
		return []string{"-j", "TCPMSS", "--set-mss", r.NewMSS}
	case "change-ttl":
		how, n, _ := strings.Cut(r.NewTTL, ":")
		return []string{"-j", "TTL", map[string]string{"set": "--ttl-set", "increment": "--ttl-inc", "decrement": "--ttl-dec"}[how], n}
	case "change-dscp":
		return []string{"-j", "DSCP", "--set-dscp", r.NewDSCP}
	}
	return nil
}

// ClampMSS is the NewMSS of the route's MTU.
const ClampMSS = "clamp-to-pmtu"

// MangleActions are the actions of Mangle that change what they match, in RouterOS's order.
var MangleActions = []string{"change-dscp", "change-mss", "change-ttl", "mark-connection", "mark-packet", "mark-routing"}

// marks reports whether r changes packets and, unless it is Final, lets the next rules see them.
func (r *Rule) marks() bool { return slices.Contains(MangleActions, r.Action) }

// TakesNewMSS, TakesNewTTL and TakesNewDSCP report whether these are values of Rule.NewMSS, NewTTL and NewDSCP.
func TakesNewMSS(value string) bool { return value == ClampMSS || isNumber(value, 1, 65535-40) }

func TakesNewTTL(value string) bool {
	how, n, _ := strings.Cut(value, ":")
	return slices.Contains([]string{"set", "increment", "decrement"}, how) && isNumber(n, 0, 255) && (how == "set" || n != "0")
}

func TakesNewDSCP(value string) bool { return isNumber(value, 0, 63) }

// TakesTCPMSS reports whether this is a value of Rule.TCPMSS.
func TakesTCPMSS(value string) bool { return lowestMSS(value) > 0 }

// lowestMSS is the lowest MSS of a range without an end, "1453-65535" or "!0-1452"; 0 if it is none.
func lowestMSS(value string) int {
	if high, ok := strings.CutPrefix(value, "!0-"); ok && isNumber(high, 0, 65534) {
		return numberOf(high) + 1
	}
	low, ok := strings.CutSuffix(value, "-65535")
	if !ok || !isNumber(low, 1, 65535) {
		return 0
	}
	return numberOf(low)
}

func numberOf(digits string) int {
	n, _ := strconv.Atoi(digits) // 0 if it is none
	return n
}

// What the properties of Mangle accept.
const (
	NewMSSAccepted  = "clamp-to-pmtu | integer: 1..65495"
	TCPMSSAccepted  = "N-65535 or !0-N"
	NewTTLAccepted  = "set:0..255 | increment:1..255 | decrement:1..255"
	NewDSCPAccepted = "integer: 0..63"
)

// checkMarks refuses marks that are no names, and what the actions of Mangle lack or cannot have.
func (r *Rule) checkMarks() error {
	for _, p := range []struct{ name, value string }{
		{"connection-mark", r.ConnectionMark}, {"packet-mark", r.PacketMark}, {"routing-mark", r.RoutingMark},
	} {
		if p.value == "!" {
			return refuse(p.name, p.value, `expected the name of a mark, "!" in front for any other`)
		}
		if err := checkName(p.name, strings.TrimPrefix(p.value, "!")); err != nil {
			return err
		}
	}
	if r.Final && !r.marks() {
		return refuse("passthrough", "no", "needs an action that changes packets; expected one of %s", oneOf(MangleActions))
	}
	isName := func(name string) bool { return checkName("", name) == nil }
	for _, p := range []struct {
		name, value, action string
		accepts             string
		takes               func(string) bool
	}{
		{"new-connection-mark", r.NewConnectionMark, "mark-connection", "the name of a mark", isName},
		{"new-packet-mark", r.NewPacketMark, "mark-packet", "the name of a mark", isName},
		{"new-routing-mark", r.NewRoutingMark, "mark-routing", "the name of a mark", isName},
		{"new-mss", r.NewMSS, "change-mss", NewMSSAccepted, TakesNewMSS},
		{"new-ttl", r.NewTTL, "change-ttl", NewTTLAccepted, TakesNewTTL},
		{"new-dscp", r.NewDSCP, "change-dscp", NewDSCPAccepted, TakesNewDSCP},
	} {
		switch {
		case r.Action == p.action && p.value == "":
			return refuse("action", r.Action, "needs %s", p.name)
		case r.Action != p.action && p.value != "":
			return refuse(p.name, p.value, "needs action=%s", p.action)
		case p.value != "" && !p.takes(p.value):
			return refuse(p.name, p.value, "expected %s", p.accepts)
		}
	}
	if r.TCPMSS != "" && (r.Action != "change-mss" || !TakesTCPMSS(r.TCPMSS) || lowestMSS(r.TCPMSS) > numberOf(r.NewMSS)+1) {
		return refuse("tcp-mss", r.TCPMSS, "expected action=change-mss, and the range of those that new-mss=NUMBER would change: NUMBER+1-65535")
	}
	if r.Action != "change-mss" {
		return nil
	}
	if portProtocol(r.Protocol) != "tcp" {
		return refuse("action", r.Action, "needs protocol=tcp")
	}
	if _, set := tcpFlags(r.TCPFlags); r.TCPFlags != "" && !slices.Contains(set, "syn") {
		return refuse("tcp-flags", r.TCPFlags, "only packets with syn have an MSS; expected syn among them")
	}
	return nil
}

// checkMarks refuses routing marks that c has no table for.
func (c *Config) checkMarks(r *Rule) error {
	for _, p := range []struct{ name, value string }{
		{"routing-mark", strings.TrimPrefix(r.RoutingMark, "!")}, {"new-routing-mark", r.NewRoutingMark},
	} {
		if _, ok := c.RoutingTables[p.value]; p.value != "" && p.value != NoRoutingMark && !ok {
			return refuse(p.name, p.value, "expected %s", oneOf(append([]string{NoRoutingMark}, slices.Sorted(maps.Keys(c.RoutingTables))...)))
		}
	}
	return nil
}
