package firewall

import (
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/match"
)

// ForgetRetranslated has the kernel forget the connections that the nat rules of next treat
// otherwise than those of old, and returns how many. The kernel asks these rules only when a
// connection begins, and would go on with the old translation for as long as packets come.
func (f *Firewall) ForgetRetranslated(old, next Config) (forgotten int, err error) {
	was, is := translations(old), translations(next)
	if slices.EqualFunc(was, is, func(a, b translation) bool { return a.String() == b.String() }) {
		return 0, nil
	}
	// So many at a time, for a machine with little memory. Those that have come back meanwhile, under
	// the new rules, are no reason to go on.
	for passes := 1; passes > 0; passes-- {
		var some []Tracked
		others := 0
		if err := eachTracked(func(c Tracked) bool {
			if c.translation(was) == c.translation(is) || c.lastPacket() == nil {
				return true
			}
			if others++; len(some) < maxTrim {
				some = append(some, c)
			}
			return true
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

// translation is a rule that decides about a translation. Its interfaces are in and out alone.
type translation struct {
	Rule
	in, out Interfaces
}

// String writes all that the rule matches and does.
func (t translation) String() string {
	return t.Rule.String() + " in " + t.in.String() + " out " + t.out.String()
}

// translations are the rules that decide about a translation.
func translations(c Config) (all []translation) {
	for _, r := range c.NAT {
		if r.Disabled || !r.Decides() {
			continue
		}
		t := translation{Rule: r}
		t.in, t.out = r.interfaces(c.Lists)
		if t.in.none() || t.out.none() {
			continue
		}
		t.Comment, t.InInterface, t.OutInterface, t.InInterfaceList, t.OutInterfaceList = "", "", "", "", ""
		all = append(all, t)
	}
	return all
}

// translation is what rules make of a connection. By which interfaces it came and left is not
// known. So it is written as all rules that may decide, with their interfaces, up to the first
// that does decide: if that is the same under two lists of rules, so is the translation.
func (c Tracked) translation(rules []translation) string {
	var b strings.Builder
	for _, chain := range NAT.chains() {
		b.WriteString(chain.name)
		for _, r := range rules {
			if r.Chain != chain.name || !c.mayMatch(r.Rule) {
				continue
			}
			b.WriteString(" " + translation{Rule{Action: r.Action, ToAddresses: r.ToAddresses, ToPorts: r.ToPorts}, r.in, r.out}.String())
			if r.in.all() && r.out.all() {
				break
			}
		}
	}
	return b.String()
}

// mayMatch reports whether the first packet of a connection matches a rule of nat, but for its
// interfaces.
func (c Tracked) mayMatch(r Rule) bool {
	dst := c.Dst
	if r.Chain == "srcnat" {
		dst = c.ReplySrc // as the rules of dstnat have made it
	}
	return (r.Protocol == "" || matchesWord(match.ProtocolName(r.Protocol), c.Protocol)) &&
		r.SrcAddress.Match(c.Src.Addr()) && r.DstAddress.Match(dst.Addr()) &&
		r.SrcPort.Match(c.Src.Port()) && r.DstPort.Match(dst.Port()) &&
		matchesWord(r.ConnectionState, "new") && c.mayBeICMP(r.ICMPOptions)
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
