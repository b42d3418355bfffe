package console

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/socks"
)

// socksRequest is the request that "/ip socks access check" asks about. A srcPort of 0 means
// that it is not known.
type socksRequest struct {
	src, dst         netip.Addr
	srcPort, dstPort uint16
}

// check prints the rules up to the one that decides about a request, and for each why it
// matches or does not.
func (x *execution) check(m *menu, a arguments) error {
	rows, err := x.itemRows(m)
	if err != nil {
		return err
	}
	x.number(m, rows)
	perhaps := ""
	for i, r := range x.cfg.Socks.Access {
		number := fmt.Sprint(i)
		first := m.prefix(len(rows), number, rows[i].flags)
		blank := strings.Repeat(" ", len(first))
		x.out.WriteString(wrap(rows[i].words(), x.width-1, first, "", blank))
		matches, why := explain(r, a.check)
		x.out.WriteString(wrap(strings.Fields(why), x.width-1, blank+"-> ", "", blank+"   "))
		if matches {
			x.verdict(string(r.Action)+", by rule "+number, perhaps)
			return nil
		}
		if strings.HasPrefix(why, "depends") {
			perhaps += "; but " + string(r.Action) + ", by rule " + number + ", if its src-port matches"
		}
	}
	x.verdict("allow, because no rule matches", perhaps)
	return nil
}

func (x *execution) verdict(text, perhaps string) {
	x.out.WriteString(wrap(strings.Fields(text+perhaps), x.width-1, "", "", "  "))
}

// explain reports whether a rule matches a request, and why. The server decides alike.
func explain(r socks.Rule, q socksRequest) (matches bool, why string) {
	if r.Disabled {
		return false, "disabled"
	}
	address := func(name string, m match.Addresses, a netip.Addr) string {
		if m.Match(a) {
			return ""
		}
		return fmt.Sprintf("%s %s does not match %s", name, a, m)
	}
	port := func(name string, m match.Ports, p uint16) string {
		if m.Match(p) {
			return ""
		}
		return fmt.Sprintf("%s %d does not match %s", name, p, m)
	}
	var differ []string
	for _, d := range []string{
		address("src-address", r.SrcAddress, q.src),
		address("dst-address", r.DstAddress, q.dst),
		port("dst-port", r.DstPort, q.dstPort),
	} {
		if d != "" {
			differ = append(differ, d)
		}
	}
	if q.srcPort != 0 {
		if d := port("src-port", r.SrcPort, q.srcPort); d != "" {
			differ = append(differ, d)
		}
	}
	switch {
	case len(differ) > 0:
		return false, strings.Join(differ, ", ")
	case q.srcPort == 0 && !r.SrcPort.Any():
		return false, "depends on src-port, which was not given"
	}
	return true, "matches"
}

// ExposedSOCKS returns a warning if anyone outside (openFrom) can use the SOCKS server, else "". The access
// list is a protection if its last enabled rule denies everything: then what it allows before is intended. So
// are passwords.
func ExposedSOCKS(c Config, wanPort string) string {
	asksPassword := c.Socks.Version == 5 && c.Socks.AuthMethod == socks.AuthPassword
	if !c.Socks.Enabled || asksPassword || endsInDeny(c.Socks.Access) {
		return ""
	}
	from := openFrom(c, wanPort, c.Socks.Port)
	if from == "" {
		return ""
	}
	return fmt.Sprintf("warning: anyone who reaches %s can use this server: no filter rule of chain=input drops "+
		"dst-port=%d from there, and the access list does not end with action=deny", from, c.Socks.Port)
}

// openFrom returns the name of an interface from outside of which new TCP connections to a port of the router
// come in, "" if there is none. Outside is behind wanPort, the board's name of its outer port, and behind
// PPPoE clients; if wanPort is "", nothing is. It looks at the configured rules only:
//
//   - Of the filter rules in chain=input, it looks at those that match every new TCP
//     connection to the port from the outer interface. The first of them decides.
//   - It ignores rules that match only some of these connections, by address, source port or
//     the like.
//   - It ignores nat rules, the addresses of the router, and whether the interface is there and up.
func openFrom(c Config, wanPort string, port uint16) string {
	if wanPort == "" {
		return ""
	}
	rules := c.Rules()
	if !closedFrom(rules, c.Network().Actual(wanPort), port) {
		return c.Called(wanPort)
	}
	for _, p := range c.PPPoEClients {
		if !p.Disabled && !closedFrom(rules, p.Name, port) {
			return c.Called(p.Name)
		}
	}
	return ""
}

// closedFrom reports whether new TCP connections to a port of the router that come in by an
// interface are dropped or rejected.
func closedFrom(rules firewall.Config, in string, port uint16) bool {
	return closedIn(rules, "input", in, port, map[string]verdict{}) == closed
}

// verdict is what the rules of a chain do with connections: undecided leaves them, or some of them, to the rules behind
// the jump to the chain.
type verdict int

const (
	undecided verdict = iota
	closed
	open
)

// closedIn is closedFrom for the rules of a chain. known has the verdicts of other chains.
func closedIn(rules firewall.Config, chain, in string, port uint16, known map[string]verdict) (v verdict) {
	if v, ok := known[chain]; ok {
		return v
	}
	known[chain] = undecided // while it is looked at: rules that are not checked yet may lead back
	defer func() { known[chain] = v }()
	mayReturn := false
	for _, r := range rules.Filter {
		if r.Disabled || r.Chain != chain {
			continue
		}
		some, all := rules.TakesFirst(r, in, port)
		does := undecided
		switch {
		case r.Action == "return" && all:
			return undecided
		case r.Action == "return":
			mayReturn = mayReturn || some
		case !all:
		case r.Action == "jump":
			does = closedIn(rules, r.JumpTarget, in, port, known)
		case r.Action == "accept":
			does = open
		case r.Decides():
			does = closed
		}
		if does == closed && mayReturn {
			return undecided
		}
		if does != undecided {
			return does
		}
	}
	return undecided
}

func endsInDeny(rules []socks.Rule) bool {
	for _, r := range slices.Backward(rules) {
		if !r.Disabled {
			return r.Action == socks.Deny && firewall.AnyAddress(r.SrcAddress) && firewall.AnyAddress(r.DstAddress) && r.SrcPort.Any() && r.DstPort.Any()
		}
	}
	return false
}
