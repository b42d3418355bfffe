package socks

import (
	"net/netip"
	"strconv"
)

// noRule is the number of the rule if none has decided.
const noRule = -1

// decide returns the first enabled rule of the list that matches a connection from src to
// dst, and its action. If none matches, that is noRule and Allow.
func decide(list []Rule, src, dst netip.AddrPort) (rule int, action Action) {
	for i, r := range list {
		if !r.Disabled && r.SrcAddress.Match(src.Addr()) && r.SrcPort.Match(src.Port()) &&
			r.DstAddress.Match(dst.Addr()) && r.DstPort.Match(dst.Port()) {
			return i, r.Action
		}
	}
	return noRule, Allow
}

// deniedAnywhere reports whether the list denies src every destination that there is, and by
// which rule. port is that of the destination, or 0 if it is not known. Then nobody need
// be asked for the address of a name.
func deniedAnywhere(list []Rule, src netip.AddrPort, port uint16) (rule int, denied bool) {
	for i, r := range list {
		if r.Disabled || !r.SrcAddress.Match(src.Addr()) || !r.SrcPort.Match(src.Port()) || port != 0 && !r.DstPort.Match(port) {
			continue
		}
		if matchesAll := r.DstAddress.Any() && (port != 0 || r.DstPort.Any()); matchesAll || r.Action == Allow {
			return i, r.Action == Deny
		}
	}
	return noRule, false
}

// sameDecision reports whether r and q match the same connections and have the same action.
func (r Rule) sameDecision(q Rule) bool {
	return r.Action == q.Action && r.SrcAddress == q.SrcAddress && r.DstAddress == q.DstAddress &&
		r.SrcPort.Equal(q.SrcPort) && r.DstPort.Equal(q.DstPort)
}

// carryHits returns the counters of list: a rule that is in old too (see Rule.ID) keeps its
// count, at whatever place it is now.
func carryHits(list, old []Rule, oldHits []uint64) []uint64 {
	hits := make([]uint64, len(list))
	taken := make([]bool, len(old))
	for i, r := range list {
		for j, q := range old {
			if !taken[j] && r.ID == q.ID && r.sameDecision(q) {
				hits[i], taken[j] = oldHits[j], true
				break
			}
		}
	}
	return hits
}

// ruleName returns the name of a rule in log lines.
func ruleName(rule int) string {
	if rule == noRule {
		return "none"
	}
	return strconv.Itoa(rule)
}
