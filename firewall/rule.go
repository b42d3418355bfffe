package firewall

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/postern-router/postern/kmsg"
	"github.com/postern-router/postern/match"
)

// Table is one of the lists of rules. Its menu and the kernel's table have its name.
type Table string

const (
	Filter Table = "filter"
	NAT    Table = "nat"
	Mangle Table = "mangle"
	Raw    Table = "raw"
)

// Tables are all tables, in the order in which they change.
var Tables = [...]Table{Filter, NAT, Mangle, Raw}

// chain is a RouterOS chain and the kernel's built-in chain that holds its rules.
type chain struct{ name, builtin string }

// The chains of the tables. They are made once, as each rule of a change is looked up in them several times.
var (
	filterChains = []chain{{"input", "INPUT"}, {"forward", "FORWARD"}, {"output", "OUTPUT"}}
	natChains    = []chain{{"dstnat", "PREROUTING"}, {"srcnat", "POSTROUTING"}}
	mangleChains = []chain{{"prerouting", "PREROUTING"}, {"input", "INPUT"}, {"forward", "FORWARD"}, {"output", "OUTPUT"}, {"postrouting", "POSTROUTING"}}
	rawChains    = []chain{{"prerouting", "PREROUTING"}, {"output", "OUTPUT"}}
)

func (t Table) chains() []chain {
	switch t {
	case Filter:
		return filterChains
	case NAT:
		return natChains
	case Mangle:
		return mangleChains
	case Raw:
		return rawChains
	}
	return nil
}

// builtin returns the kernel's chain for the RouterOS chain called name, or "".
func (t Table) builtin(name string) string {
	for _, c := range t.chains() {
		if c.name == name {
			return c.builtin
		}
	}
	return ""
}

// hasBuiltin reports whether name is one of the kernel's built-in chains that rules are in.
func (t Table) hasBuiltin(name string) bool {
	return slices.ContainsFunc(t.chains(), func(c chain) bool { return c.builtin == name })
}

// reservedChains are the tables' own chains, and those of RouterOS's other tables: none of them can be a
// chain of the user's in another table, where it would be a mistake.
var reservedChains = []string{"input", "forward", "output", "srcnat", "dstnat", "prerouting", "postrouting"}

// String writes the rule's properties as the command language does.
func (r Rule) String() string {
	var b strings.Builder
	for _, p := range []struct{ name, value string }{
		{"chain", r.Chain},
		{"action", r.Action},
		{"jump-target", r.JumpTarget},
		{"src-address", r.SrcAddress.String()},
		{"dst-address", r.DstAddress.String()},
		{"src-address-list", r.SrcAddressList},
		{"dst-address-list", r.DstAddressList},
		{"address-list", r.AddressList},
		{"address-list-timeout", r.listTimeout()},
		{"protocol", r.Protocol},
		{"src-port", r.SrcPort.String()},
		{"dst-port", r.DstPort.String()},
		{"port", r.Port.String()},
		{"in-interface", r.InInterface},
		{"out-interface", r.OutInterface},
		{"in-interface-list", r.InInterfaceList},
		{"out-interface-list", r.OutInterfaceList},
		{"connection-state", r.ConnectionState},
		{"connection-nat-state", r.ConnectionNATState},
		{"connection-mark", r.ConnectionMark},
		{"packet-mark", r.PacketMark},
		{"routing-mark", r.RoutingMark},
		{"ipsec-policy", r.IPsecPolicy},
		{"icmp-options", r.ICMPOptions},
		{"tcp-flags", r.TCPFlags},
		{"to-addresses", r.ToAddresses.String()},
		{"to-ports", r.ToPorts.String()},
		{"log-prefix", r.LogPrefix},
		{"reject-with", r.RejectWith},
		{"new-connection-mark", r.NewConnectionMark},
		{"new-packet-mark", r.NewPacketMark},
		{"new-routing-mark", r.NewRoutingMark},
		{"new-mss", r.NewMSS},
		{"tcp-mss", r.TCPMSS},
		{"new-ttl", r.NewTTL},
		{"new-dscp", r.NewDSCP},
		{"comment", r.Comment},
	} {
		if p.value != "" {
			b.WriteString(" " + p.name + "=" + quoteIfNeeded(p.value))
		}
	}
	for i, value := range r.Extra {
		if value != "" {
			b.WriteString(" " + Matchers[i].Name + "=" + quoteIfNeeded(value))
		}
	}
	if r.Log {
		b.WriteString(" log=yes")
	}
	if r.SameNotByDst {
		b.WriteString(" same-not-by-dst=yes")
	}
	if r.Final {
		b.WriteString(" passthrough=no")
	}
	if r.Disabled {
		b.WriteString(" disabled=yes")
	}
	return strings.TrimPrefix(b.String(), " ")
}

func quoteIfNeeded(s string) string {
	if q := strconv.Quote(s); s == "" || strings.Contains(s, " ") || q != `"`+s+`"` {
		return q
	}
	return s
}

// matches returns the matches of a rule that Validate accepts, but for those that count, as an iptables command line has
// them behind the chain. s are its interfaces and addresses; a set that no single match can name is
// left out.
func (r *Rule) matches(s sets, m marks) []string {
	var a []string
	// add appends an option and its value. A "!" of the value goes in front of the option.
	add := func(option, value string) {
		value, not := strings.CutPrefix(value, "!")
		if not {
			a = append(a, "!")
		}
		a = append(a, option, value)
	}
	if r.Protocol != "" {
		add("-p", r.Protocol)
	}
	for _, m := range []struct {
		prefix, iprange string
		addresses       match.Addresses
	}{
		{"-s", "--src-range", r.SrcAddress},
		{"-d", "--dst-range", r.DstAddress},
	} {
		if m.addresses.Any() {
			continue
		}
		if _, ok := m.addresses.Prefix(); ok {
			add(m.prefix, m.addresses.String())
			continue
		}
		a = append(a, "-m", "iprange")
		add(m.iprange, m.addresses.String())
	}
	a = append(append(a, s.src.words("src")...), s.dst.words("dst")...)
	if len(s.in.Names) == 1 {
		add("-i", s.in.String())
	}
	if len(s.out.Names) == 1 {
		add("-o", s.out.String())
	}
	for _, m := range []struct {
		port, multiport string
		ports           match.Ports
	}{
		{"--sport", "--sports", r.SrcPort},
		{"--dport", "--dports", r.DstPort},
	} {
		switch written := strings.ReplaceAll(m.ports.String(), "-", ":"); len(m.ports.Ranges) {
		case 0:
		case 1:
			a = append(a, "-m", portProtocol(r.Protocol))
			add(m.port, written)
		default:
			a = append(a, "-m", "multiport")
			add(m.multiport, written)
		}
	}
	if !r.Port.Any() {
		a = append(a, "-m", "multiport")
		add("--ports", strings.ReplaceAll(r.Port.String(), "-", ":"))
	}
	if r.TCPFlags != "" {
		all, set := tcpFlags(r.TCPFlags)
		a = append(a, "-m", "tcp", "--tcp-flags", strings.ToUpper(strings.Join(all, ",")), cmp.Or(strings.ToUpper(strings.Join(set, ",")), "NONE"))
	}
	if r.ICMPOptions != "" {
		a = append(a, "-m", "icmp", "--icmp-type", strings.ReplaceAll(r.ICMPOptions, ":", "/"))
	}
	if r.ConnectionState != "" {
		a = append(a, "-m", "conntrack")
		add("--ctstate", strings.ToUpper(r.ConnectionState))
	}
	if r.ConnectionNATState != "" {
		a = append(a, "-m", "conntrack")
		add("--ctstate", strings.NewReplacer("srcnat", "SNAT", "dstnat", "DNAT").Replace(r.ConnectionNATState))
	}
	a = append(a, m.matches(r)...)
	if r.Action == "change-mss" && r.TCPFlags == "" {
		a = append(a, ofSYN[2:]...)
	}
	a = append(a, r.extra(false)...)
	if r.Comment != "" {
		a = append(a, "-m", "comment", "--comment", oneLine(r.Comment))
	}
	return a
}

// oneLine is text as a line of a script can have it: with blanks for its control characters.
func oneLine(text string) string {
	b := []byte(text)
	for i, c := range b {
		if isASCIIControl(rune(c)) {
			b[i] = ' '
		}
	}
	return string(b)
}

// TCPFlags are the flags of TCP that a rule can match.
var TCPFlags = []string{"fin", "syn", "rst", "psh", "ack", "urg"}

// tcpFlags returns the flags that a rule names, and those of them that have to be set.
func tcpFlags(list string) (all, set []string) {
	for word := range strings.SplitSeq(list, ",") {
		flag, not := strings.CutPrefix(word, "!")
		if all = append(all, flag); !not {
			set = append(set, flag)
		}
	}
	return all, set
}

// listTimeout writes AddressListTimeout, or "" if it is 0.
func (r *Rule) listTimeout() string {
	if r.AddressListTimeout == 0 {
		return ""
	}
	return r.AddressListTimeout.String()
}

// Decides reports whether nothing further is tried for a packet that matches.
func (r Rule) Decides() bool {
	return r.Final || !r.marks() && !slices.Contains([]string{"log", "passthrough", "fasttrack-connection", "jump", "return", "notrack",
		"add-src-to-address-list", "add-dst-to-address-list"}, r.Action)
}

// logLimit is the match of a rule that logs: more packets would overwrite the 32 KiB of the kernel's log before they are
// read, and what the kernel itself says with them. The rule's counter counts all.
var logLimit = []string{"-m", "limit", "--limit", strconv.Itoa(kmsg.PacketRate) + "/second", "--limit-burst", strconv.Itoa(kmsg.PacketBurst)}

// logTarget returns the option -j that logs what the rule matches, and its own options; nil if it does not log.
func (r *Rule) logTarget(t Table) []string {
	if !r.Log && r.Action != "log" {
		return nil
	}
	// RouterOS logs at info too. The kernel's line does not tell the chain. Its level
	// tells that the table is nat; the serial console would show a third level.
	level := "info"
	if t == NAT {
		level = "debug"
	}
	a := []string{"-j", "LOG", "--log-level", level}
	if r.LogPrefix != "" {
		a = append(a, "--log-prefix", r.LogPrefix)
	}
	return a
}

// target returns the option -j of the rule in table t and the target's own options. It returns nothing
// for passthrough, fasttrack-connection and log: a rule without a target only counts. What logs stands before it. chains are the
// kernel's names of the user's chains, and lists what the kernel has of address lists.
func (r *Rule) target(t Table, chains map[string]string, m marks, lists map[string]kernelList) []string {
	var a []string
	toPorts := func() {
		if !r.ToPorts.Any() {
			a = append(a, "--to-ports", r.ToPorts.String())
		}
	}
	switch r.Action {
	case "accept":
		a = []string{"-j", "ACCEPT"}
	case "drop":
		a = []string{"-j", "DROP"}
	case "reject":
		a = []string{"-j", "REJECT", "--reject-with", rejectWith(r.RejectWith)}
	case "jump":
		a = []string{"-j", chains[r.JumpTarget]}
	case "return":
		a = []string{"-j", "RETURN"}
		if t.builtin(r.Chain) != "" {
			a = []string{"-j", "ACCEPT"} // as what no rule matches
		}
	case "add-src-to-address-list", "add-dst-to-address-list":
		side := strings.Split(r.Action, "-")[1]
		a = []string{"-j", "SET", "--add-set", lists[r.AddressList].filledBy(r.AddressListTimeout), side, "--exist", "--timeout",
			strconv.Itoa(int(r.AddressListTimeout / time.Second))}
	case "masquerade":
		a = []string{"-j", "MASQUERADE"}
		toPorts()
	case "redirect":
		a = []string{"-j", "REDIRECT"}
		toPorts()
	case "src-nat", "same":
		a = []string{"-j", "SNAT", "--to-source", r.to()}
		if r.SameNotByDst {
			a = append(a, "--persistent")
		}
	case "dst-nat":
		a = []string{"-j", "DNAT", "--to-destination", r.to()}
	case "netmap":
		a = []string{"-j", "NETMAP", "--to", r.ToAddresses.String()}
	case "notrack":
		a = []string{"-j", "CT", "--notrack"}
	default:
		a = m.target(r)
	}
	return a
}

// needs returns the matches without which the kernel refuses the rule's target, in whatever chain it is.
func (r *Rule) needs() []string {
	switch {
	case r.Action == "change-mss":
		return ofSYN
	case !r.ToPorts.Any() || r.RejectWith == "tcp-reset":
		return []string{"-p", portProtocol(r.Protocol)}
	}
	return nil
}

// to writes ToAddresses and ToPorts as SNAT and DNAT take them:
// [address[-address]][:port[-port]].
func (r *Rule) to() string {
	var s string
	if !r.ToAddresses.Any() {
		s = r.ToAddresses.From.String()
		if r.ToAddresses.To != r.ToAddresses.From {
			s += "-" + r.ToAddresses.To.String()
		}
	}
	if !r.ToPorts.Any() {
		s += ":" + r.ToPorts.String()
	}
	return s
}

// RejectAnswers are the answers of the action reject, as RouterOS names them. The first is
// the default.
var RejectAnswers = []string{
	"icmp-network-unreachable", "icmp-host-unreachable", "icmp-port-unreachable", "icmp-protocol-unreachable",
	"icmp-net-prohibited", "icmp-host-prohibited", "icmp-admin-prohibited", "tcp-reset",
}

// IPsecPolicies are the policies that a rule can match.
var IPsecPolicies = []string{"in,none", "in,ipsec", "out,none", "out,ipsec"}

// rejectWith translates RouterOS's name of an ICMP answer to that of iptables, or
// returns "" for no such answer.
func rejectWith(name string) string {
	switch {
	case name == "" || name == "icmp-network-unreachable":
		return "icmp-net-unreachable"
	case name == "icmp-protocol-unreachable":
		return "icmp-proto-unreachable"
	case slices.Contains(RejectAnswers, name):
		return name
	}
	return ""
}

// portProtocol returns tcp or udp if protocol is one of them, by name or number,
// and "" otherwise.
func portProtocol(protocol string) string {
	if name := match.ProtocolName(protocol); name == "tcp" || name == "udp" {
		return name
	}
	return ""
}

// is4Range reports whether a is a valid IPv4 range. match's parser returns no other, but a
// Rule may be made without it, and match panics on some ranges.
func is4Range(a match.Addresses) bool {
	return a.From.Is4() && a.To.Is4() && a.From.Compare(a.To) <= 0
}

// AnyAddress reports whether a matches every address: it is empty, or 0.0.0.0/0.
func AnyAddress(a match.Addresses) bool { return a.Any() || everything(a) && !a.Not }

// everything reports whether a is the range of all addresses.
func everything(a match.Addresses) bool {
	return a.From == netip.IPv4Unspecified() && a.To == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
