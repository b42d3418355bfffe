package firewall

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/match"
)

// ForgetRetranslated has the kernel forget the connections that the nat rules of next treat
// otherwise than those of old, and those that a helper of old reads and none of next, and returns how many. The kernel asks these rules only when a
// connection begins, and would go on with the old translation for as long as packets come. What is expected of a connection goes with it. Both have to be
// valid: so no jump leads back, and there are not too many ways through the chains.
func (f *Firewall) ForgetRetranslated(old, next Config) (forgotten int, err error) {
	_, kept := f.filled()
	was, is := translations(old, kept), translations(next, kept)
	left := old.leftAlone(next)
	if len(left) == 0 && slices.EqualFunc(was, is, func(a, b translation) bool { return a.String() == b.String() }) {
		return 0, nil
	}
	// So many at a time, for a machine with little memory. Those that have come back meanwhile, under
	// the new rules, are no reason to go on.
	for passes := 1; passes > 0; passes-- {
		var some []Tracked
		others := 0
		if err := eachTracked(func(c Tracked) {
			read := c.Protocol == "tcp" && slices.Contains(left, c.Dst.Port())
			if !read && c.translation(was) == c.translation(is) || !c.forgettable() {
				return
			}
			if others++; len(some) < maxTrim {
				some = append(some, c)
			}
		}); err != nil {
			return forgotten, err
		}
		if forgotten == 0 {
			passes = (others + maxTrim - 1) / maxTrim
		}
		n, err := Forget(some)
		forgotten += n
		if err != nil || n == 0 {
			return forgotten, err
		}
	}
	return forgotten, nil
}

// leftAlone are the ports whose connections the helper of c reads, and that of next does not.
func (c Config) leftAlone(next Config) []uint16 {
	return slices.DeleteFunc(slices.Clone(c.helped()), func(port uint16) bool { return slices.Contains(next.helped(), port) })
}

// translation is a rule that decides about a translation, or leads to such rules. Its interfaces and
// addresses of lists are these alone.
type translation struct {
	Rule
	in, out  Interfaces
	src, dst listMatch
}

// listMatch is a matcher by an address list. Without a name it matches all addresses.
type listMatch struct {
	name string
	not  bool
	ranges
	// filled says that rules add to the list, or have added to it, so that nobody knows what else was in it when a connection began.
	filled bool
}

// may reports whether the matcher may match an address, and surely whether it does so at any rate.
func (l listMatch) may(a netip.Addr) bool {
	return l.name == "" || l.has(a) != l.not || l.filled && !l.not
}

func (l listMatch) surely(a netip.Addr) bool {
	return l.name == "" || l.has(a) != l.not && !(l.filled && l.not)
}

func (l listMatch) none() bool { return l.name != "" && !l.not && len(l.ranges) == 0 && !l.filled }

// String writes which addresses it matches.
func (l listMatch) String() string {
	if l.name == "" {
		return "!"
	}
	text := l.ranges.String()
	if l.filled {
		text += " and what is in " + l.name
	}
	if l.not {
		return "!" + text
	}
	return text
}

// String writes all that the rule matches and does.
func (t translation) String() string {
	return t.Rule.String() + " in " + t.in.String() + " out " + t.out.String() + " src " + t.src.String() + " dst " + t.dst.String()
}

// translations are the rules that decide about a translation, or lead to such rules. kept are lists that have what rules have added.
func translations(c Config, kept map[string][]element) (all []translation) {
	filled := c.filledLists()
	lists := map[string]ranges{}
	list := func(word string) listMatch {
		name, not := strings.CutPrefix(word, "!")
		if _, ok := lists[name]; !ok && name != "" {
			entries := slices.Clone(c.AddressLists[name])
			for _, t := range c.Temporary[name] {
				entries = append(entries, t.Addresses)
			}
			lists[name] = disjoint(entries)
		}
		return listMatch{name, not, lists[name], len(filled[name]) > 0 || len(kept[name]) > 0}
	}
	for _, r := range c.NAT {
		t := translation{Rule: r, src: list(r.SrcAddressList), dst: list(r.DstAddressList)}
		t.in, t.out = r.interfaces(c.Lists)
		if r.Disabled || t.in.none() || t.out.none() || t.src.none() || t.dst.none() || !r.Decides() && r.Action != "jump" && r.Action != "return" {
			continue
		}
		t.Comment, t.InInterface, t.OutInterface, t.InInterfaceList, t.OutInterfaceList = "", "", "", "", ""
		t.SrcAddressList, t.DstAddressList, t.Log, t.LogPrefix = "", "", false, ""
		all = append(all, t)
	}
	return all
}

// translation is what rules make of a connection. By which interfaces it came and left is not
// known, nor its first packet's flags, size and the like. So it is written as all rules that may decide, with these, up to the
// first that does decide: if that is the same under two lists of rules, so is the translation.
func (c Tracked) translation(rules []translation) string {
	var b strings.Builder
	var walk func(chain, builtin string) (decided bool)
	walk = func(chain, builtin string) (decided bool) {
		mayReturn := false
		for _, r := range rules {
			if r.Chain != chain || !c.mayMatch(r, builtin) {
				continue
			}
			src, dst := c.Src.Addr(), c.destination(builtin).Addr()
			surely := r.in.all() && r.out.all() && r.Certain() && r.src.surely(src) && r.dst.surely(dst)
			decision := translation{Rule: Rule{Action: r.Action, ToAddresses: r.ToAddresses, ToPorts: r.ToPorts, TCPFlags: r.TCPFlags, Extra: r.Extra,
				ConnectionMark: r.ConnectionMark, PacketMark: r.PacketMark, RoutingMark: r.RoutingMark},
				in: r.in, out: r.out}
			if !r.src.surely(src) {
				decision.src = listMatch{name: r.src.name, not: r.src.not, filled: true}
			}
			if !r.dst.surely(dst) {
				decision.dst = listMatch{name: r.dst.name, not: r.dst.not, filled: true}
			}
			b.WriteString(" " + decision.String())
			switch {
			case r.Action == "jump":
				b.WriteString(" (")
				decided := walk(r.JumpTarget, builtin)
				b.WriteString(" )")
				if surely && decided {
					return !mayReturn
				}
			case surely:
				return r.Action != "return" && !mayReturn
			case r.Action == "return":
				mayReturn = true
			}
		}
		return false
	}
	for _, chain := range NAT.chains() {
		b.WriteString(chain.name)
		walk(chain.name, chain.name)
	}
	return b.String()
}

// destination is where the first packet of a connection goes when it comes from a built-in chain.
func (c Tracked) destination(builtin string) netip.AddrPort {
	if builtin == "srcnat" {
		return c.ReplySrc // as the rules of dstnat have made it
	}
	return c.Dst
}

// mayMatch reports whether the first packet of a connection matches a rule of nat, but for its
// interfaces and flags, when it comes from a built-in chain.
func (c Tracked) mayMatch(r translation, builtin string) bool {
	dst := c.destination(builtin)
	return (r.Protocol == "" || matchesWord(match.ProtocolName(r.Protocol), c.Protocol)) &&
		r.SrcAddress.Match(c.Src.Addr()) && r.DstAddress.Match(dst.Addr()) &&
		r.src.may(c.Src.Addr()) && r.dst.may(dst.Addr()) &&
		r.SrcPort.Match(c.Src.Port()) && r.DstPort.Match(dst.Port()) && either(r.Port, c.Src.Port(), dst.Port()) &&
		matchesWord(r.ConnectionState, "new") && c.mayBeICMP(r.ICMPOptions)
}

// either reports whether one of two ports is among those of a rule or, with "!" before them, none is.
func either(ports match.Ports, a, b uint16) bool {
	if ports.Not {
		return ports.Match(a) && ports.Match(b)
	}
	return ports.Match(a) || ports.Match(b)
}

// TakesFirst reports whether r, a filter rule of c, takes some and whether it takes all of the first packets
// of TCP connections to a port of the router that come in by an interface.
func (c Config) TakesFirst(r Rule, in string, port uint16) (some, all bool) {
	some = c.InInterfaces(r).Has(in) && r.OutInterface == "" && (r.Protocol == "" || matchesWord(match.ProtocolName(r.Protocol), "tcp")) &&
		matchesWord(r.ConnectionState, "new") && matchesWord(r.ConnectionNATState, "none") && r.ICMPOptions == "" && r.DstPort.Match(port)
	flags, set := tcpFlags(r.TCPFlags)
	if r.TCPFlags != "" && (slices.ContainsFunc(set, func(flag string) bool { return flag != "syn" }) || slices.Contains(flags, "syn") && len(set) == 0) {
		return false, false
	}
	return some, some && AnyAddress(r.SrcAddress) && AnyAddress(r.DstAddress) && r.SrcPort.Any() && (r.Port.Any() || !r.Port.Not && r.Port.Match(port)) &&
		r.SrcAddressList == "" && r.DstAddressList == "" && (Rule{ConnectionMark: r.ConnectionMark, PacketMark: r.PacketMark, RoutingMark: r.RoutingMark, Extra: r.Extra}).Certain()
}

// matchesWord reports whether word is one of a list, or with "!" before the list, none of it. An
// empty list has all words.
func matchesWord(list, word string) bool {
	body, not := strings.CutPrefix(list, "!")
	return list == "" || slices.Contains(strings.Split(body, ","), word) != not
}

// mayBeICMP reports whether the connection has an ICMP type and code, "type:code" or "type"; ""
// is any.
func (c Tracked) mayBeICMP(options string) bool {
	kind, code, both := strings.Cut(options, ":")
	return options == "" || kind == strconv.Itoa(int(c.icmpType)) && (!both || strings.Contains(code, "-") || code == strconv.Itoa(int(c.icmpCode)))
}
