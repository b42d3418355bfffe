package netcfg

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/nlattr"
)

// The priorities of the kernel's rules that are ours (ip-rule(8)). Those of marks come first, then those of Config.Rules in their order,
// each with two places.
const (
	markPriority  = 1000
	firstPriority = 2000
	lastPriority  = 9999
)

// MaxRules is how many Rules a Config can have.
const MaxRules = (lastPriority + 1 - firstPriority) / 2

// rule is a rule of the kernel's, by which it chooses a table (fib_rules.h).
type rule struct {
	priority   int
	src, dst   netip.Prefix
	in         string
	mark, mask uint32
	action     uint8 // FR_ACT_...
	table      uint8 // 0 if the action looks in none
}

func (r rule) String() string {
	what := fmt.Sprint("table ", r.table)
	switch r.action {
	case unix.FR_ACT_BLACKHOLE:
		what = "blackhole"
	case unix.FR_ACT_UNREACHABLE:
		what = "unreachable"
	}
	var from strings.Builder
	for _, m := range []struct {
		name, value string
		is          bool
	}{
		{"from", r.src.String(), r.src.IsValid()}, {"to", r.dst.String(), r.dst.IsValid()}, {"iif", r.in, r.in != ""}, {"fwmark", fmt.Sprintf("%#x/%#x", r.mark, r.mask), r.mask != 0},
	} {
		if m.is {
			from.WriteString(" " + m.name + " " + m.value)
		}
	}
	return fmt.Sprintf("rule %d%s %s", r.priority, from.String(), what)
}

// table returns the number of a table, 0 if there is none of that name.
func (c Config) table(name string) uint8 {
	if name == "" || name == MainTable {
		return unix.RT_TABLE_MAIN
	}
	for _, t := range c.Tables {
		if t.Name == name {
			return t.Number
		}
	}
	return 0
}

// rules are those that the kernel should have.
func (c Config) rules() []rule {
	var all []rule
	for _, t := range c.Tables {
		if t.Mask != 0 {
			all = append(all, rule{priority: markPriority, mark: t.Mark, mask: t.Mask, action: unix.FR_ACT_TO_TBL, table: t.Number})
		}
	}
	for i, r := range c.Rules {
		if r.Disabled {
			continue
		}
		k := rule{priority: firstPriority + 2*i, src: r.SrcAddress, dst: r.DstAddress, action: unix.FR_ACT_TO_TBL}
		if r.Interface != "" {
			k.in = c.Actual(r.Interface)
		}
		for _, t := range c.Tables {
			switch {
			case t.Mask == 0:
			case r.Mark == t.Name:
				k.mark, k.mask = t.Mark, t.Mask
			case r.Mark == MainTable: // if no table has a mark, all packets match
				k.mask = t.Mask
			}
		}
		switch r.Action {
		case "drop":
			k.action = unix.FR_ACT_BLACKHOLE
		case "unreachable":
			k.action = unix.FR_ACT_UNREACHABLE
		default:
			k.table = c.table(r.Table)
		}
		all = append(all, k)
		if r.Action == "lookup-only-in-table" {
			k.priority, k.action, k.table = k.priority+1, unix.FR_ACT_BLACKHOLE, 0
			all = append(all, k)
		}
	}
	return all
}

func (c Config) validateTables() error {
	seen := map[string]bool{MainTable: true, "": true}
	numbers := map[uint8]bool{}
	for _, t := range c.Tables {
		if seen[t.Name] {
			return fmt.Errorf("routing table: name=%q: expected a name of its own, and not %s", t.Name, MainTable)
		}
		if t.Number < 1 || t.Number > MaxTable || numbers[t.Number] {
			return fmt.Errorf("routing table %s: number=%d: expected one of its own of 1..%d", t.Name, t.Number, MaxTable)
		}
		if t.Mark&^t.Mask != 0 || t.Mask != 0 && t.Mark == 0 {
			return fmt.Errorf("routing table %s: mark=%#x: expected one that is not 0, of the bits %#x", t.Name, t.Mark, t.Mask)
		}
		seen[t.Name], numbers[t.Number] = true, true
	}
	return nil
}

func (c Config) validateRules(interfaces []string) error {
	if len(c.Rules) > MaxRules {
		return fmt.Errorf("routing rules: expected at most %d, got %d", MaxRules, len(c.Rules))
	}
	for i, r := range c.Rules {
		for _, p := range []struct {
			name  string
			value netip.Prefix
		}{{"src-address", r.SrcAddress}, {"dst-address", r.DstAddress}} {
			if p.value.IsValid() && (!p.value.Addr().Is4() || p.value != p.value.Masked()) {
				return fmt.Errorf("routing rule %d: %s=%s: expected an IPv4 network without bits beyond the prefix, such as 10.0.0.0/8", i, p.name, p.value)
			}
		}
		if r.Interface != "" && !slices.Contains(interfaces, r.Interface) {
			return fmt.Errorf("routing rule %d: interface=%s: expected an interface (%s)", i, r.Interface, strings.Join(interfaces, ", "))
		}
		if !slices.Contains(RuleActions, r.Action) {
			return fmt.Errorf("routing rule %d: action=%s: expected %s", i, r.Action, strings.Join(RuleActions, ", "))
		}
		looks := strings.HasPrefix(r.Action, "lookup")
		if looks && r.Table == "" {
			return fmt.Errorf("routing rule %d: action=%s: needs table", i, r.Action)
		}
		if !looks && r.Table != "" {
			return fmt.Errorf("routing rule %d: table=%s: needs action=lookup or action=lookup-only-in-table", i, r.Table)
		}
		for _, p := range []struct{ name, value string }{{"table", r.Table}, {"routing-mark", r.Mark}} {
			if c.table(p.value) == 0 {
				return fmt.Errorf("routing rule %d: %s=%s: expected %s", i, p.name, p.value, c.tableNames())
			}
		}
		if slices.ContainsFunc(c.Tables, func(t Table) bool { return t.Name == r.Mark && t.Mask == 0 }) {
			return fmt.Errorf("routing rule %d: routing-mark=%s: expected a table that packets with its mark take", i, r.Mark)
		}
	}
	return nil
}

func (c Config) tableNames() string {
	names := []string{MainTable}
	for _, t := range c.Tables {
		names = append(names, t.Name)
	}
	return strings.Join(names, ", ")
}

// looseLinks are the links by which a route of a table besides MainTable leaves. Of what comes in there the way back
// may be in that table, which the kernel's strict check of sources does not look at.
func looseLinks(routes []route) string {
	var names []string
	for _, r := range routes {
		if r.table != unix.RT_TABLE_MAIN && r.oif != "" && !slices.Contains(names, r.oif) {
			names = append(names, r.oif)
		}
	}
	slices.Sort(names)
	return strings.Join(names, "/") // which is in no link's name
}

func (m *Manager) reconcileRules(p *pass, have, want []rule) {
	for _, w := range want {
		if !slices.Contains(have, w) {
			p.did("add "+w.String(), changeRule(unix.RTM_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, w))
		}
	}
	for _, h := range have {
		if !slices.Contains(want, h) {
			p.did("delete "+h.String(), changeRule(unix.RTM_DELRULE, 0, h))
		}
	}
}

// changeRule adds or deletes a rule. Its message begins as that of a route does (struct fib_rule_hdr, linux/fib_rules.h).
func changeRule(typ, flags int, r rule) error {
	head := &nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET, Table: r.table, Type: r.action}}
	attrs := []*nl.RtAttr{nl.NewRtAttr(unix.FRA_PRIORITY, nl.Uint32Attr(uint32(r.priority)))}
	if r.src.IsValid() {
		head.Src_len = uint8(r.src.Bits())
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_SRC, r.src.Addr().AsSlice()))
	}
	if r.dst.IsValid() {
		head.Dst_len = uint8(r.dst.Bits())
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_DST, r.dst.Addr().AsSlice()))
	}
	if r.in != "" {
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_IIFNAME, nl.ZeroTerminated(r.in)))
	}
	if r.mask != 0 {
		attrs = append(attrs, nl.NewRtAttr(unix.FRA_FWMARK, nl.Uint32Attr(r.mark)), nl.NewRtAttr(unix.FRA_FWMASK, nl.Uint32Attr(r.mask)))
	}
	return request(typ, flags, head, attrs)
}

// listRules lists the rules of our priorities.
func listRules(s *conn) ([]rule, error) {
	head := nl.RtMsg{RtMsg: unix.RtMsg{Family: unix.AF_INET}}
	all, err := list(s, "rules", unix.RTM_GETRULE, head.Serialize(), parseRule)
	return slices.DeleteFunc(all, func(r rule) bool { return r.priority < arpPriority || r.priority > lastPriority }), err
}

// parseRule reads a message of type RTM_NEWRULE.
func parseRule(message []byte) (rule, error) {
	if len(message) < unix.SizeofRtMsg {
		return rule{}, fmt.Errorf("message of %d bytes", len(message))
	}
	head := nl.DeserializeRtMsg(message)
	r := rule{action: head.Type, table: head.Table}
	err := nlattr.Each(message[unix.SizeofRtMsg:], func(typ uint16, value []byte) error {
		address := func(bits uint8) netip.Prefix {
			a, _ := netip.AddrFromSlice(value)
			return netip.PrefixFrom(a, int(bits))
		}
		switch typ {
		case unix.FRA_PRIORITY:
			r.priority = number(value)
		case unix.FRA_SRC:
			r.src = address(head.Src_len)
		case unix.FRA_DST:
			r.dst = address(head.Dst_len)
		case unix.FRA_IIFNAME:
			r.in = unix.ByteSliceToString(value)
		case unix.FRA_FWMARK:
			r.mark = uint32(number(value))
		case unix.FRA_FWMASK:
			r.mask = uint32(number(value))
		}
		return nil
	})
	if r.action != unix.FR_ACT_TO_TBL {
		r.table = 0
	}
	return r, err
}
