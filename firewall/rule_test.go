package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/postern-router/postern/match"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func addresses(s string) match.Addresses {
	a, err := match.ParseAddresses(s)
	if err != nil {
		panic(err)
	}
	return a
}

func ports(s string) match.Ports {
	p, err := match.ParsePorts(s)
	if err != nil {
		panic(err)
	}
	return p
}

func TestArgs(t *testing.T) {
	for _, test := range []struct {
		name  string
		table Table
		rule  Rule
		want  string // words between blanks, as iptables takes them
	}{
		{"accept everything", Filter, Rule{Chain: "input", Action: "accept"}, "-j ACCEPT"},
		{"passthrough has no target", Filter, Rule{Chain: "input", Action: "passthrough"}, ""},
		{"fasttrack has none either", Filter, Rule{Chain: "forward", Action: "fasttrack-connection", ConnectionState: "established"}, "-m conntrack --ctstate ESTABLISHED"},
		{"without IPsec", NAT, Rule{Chain: "srcnat", Action: "masquerade", IPsecPolicy: "out,none"}, "-j MASQUERADE"},
		{"the seeds' drop", Filter,
			Rule{Chain: "forward", Action: "drop", SrcAddress: addresses("192.168.0.0/24"), DstPort: ports("21"), Protocol: "tcp"},
			"-p tcp -s 192.168.0.0/24 -m tcp --dport 21 -j DROP"},
		{"the seeds' masquerade", NAT,
			Rule{Chain: "srcnat", Action: "masquerade", SrcAddress: addresses("192.168.0.0/24")},
			"-s 192.168.0.0/24 -j MASQUERADE"},
		{"single address", Filter, Rule{Chain: "input", Action: "drop", SrcAddress: addresses("10.0.0.1")}, "-s 10.0.0.1 -j DROP"},
		{"any address, written out", Filter, Rule{Chain: "input", Action: "drop", SrcAddress: addresses("0.0.0.0/0")}, "-s 0.0.0.0/0 -j DROP"},
		{"other than a prefix", Filter, Rule{Chain: "input", Action: "drop", DstAddress: addresses("!10.0.0.0/8")}, "! -d 10.0.0.0/8 -j DROP"},
		{"range that is a prefix", Filter, Rule{Chain: "input", Action: "drop", DstAddress: addresses("10.0.0.0-10.0.0.3")}, "-d 10.0.0.0/30 -j DROP"},
		{"ranges that are not", Filter,
			Rule{Chain: "input", Action: "drop", SrcAddress: addresses("10.0.0.1-10.0.0.3"), DstAddress: addresses("!10.0.0.5-10.0.0.9")},
			"-m iprange --src-range 10.0.0.1-10.0.0.3 -m iprange ! --dst-range 10.0.0.5-10.0.0.9 -j DROP"},
		{"other protocol", Filter, Rule{Chain: "input", Action: "drop", Protocol: "!47"}, "! -p 47 -j DROP"},
		{"port range", Filter, Rule{Chain: "input", Action: "drop", Protocol: "udp", SrcPort: ports("1024-65535")}, "-p udp -m udp --sport 1024:65535 -j DROP"},
		{"other than a port", Filter, Rule{Chain: "input", Action: "drop", Protocol: "6", DstPort: ports("!22")}, "-p 6 -m tcp ! --dport 22 -j DROP"},
		{"port list", Filter, Rule{Chain: "input", Action: "drop", Protocol: "tcp", DstPort: ports("!21,80,1024-2048")}, "-p tcp -m multiport ! --dports 21,80,1024:2048 -j DROP"},
		{"interfaces", Filter, Rule{Chain: "forward", Action: "drop", InInterface: "ether1", OutInterface: "!ether2"}, "-i ether1 ! -o ether2 -j DROP"},
		{"connection state", Filter, Rule{Chain: "input", Action: "accept", ConnectionState: "established,related"}, "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"},
		{"other connection state", Filter, Rule{Chain: "input", Action: "drop", ConnectionState: "!new,untracked"}, "-m conntrack ! --ctstate NEW,UNTRACKED -j DROP"},
		{"translated by dst-nat", Filter, Rule{Chain: "forward", Action: "accept", ConnectionNATState: "dstnat"}, "-m conntrack --ctstate DNAT -j ACCEPT"},
		{"translated in no way, new", Filter, Rule{Chain: "forward", Action: "drop", ConnectionState: "new", ConnectionNATState: "!srcnat,dstnat"},
			"-m conntrack --ctstate NEW -m conntrack ! --ctstate SNAT,DNAT -j DROP"},
		{"echo request", Filter, Rule{Chain: "input", Action: "accept", Protocol: "icmp", ICMPOptions: "8:0"}, "-p icmp -m icmp --icmp-type 8/0 -j ACCEPT"},
		{"icmp type alone", Filter, Rule{Chain: "input", Action: "accept", Protocol: "icmp", ICMPOptions: "3"}, "-p icmp -m icmp --icmp-type 3 -j ACCEPT"},
		{"either port", Filter, Rule{Chain: "input", Action: "accept", Protocol: "udp", Port: ports("53")}, "-p udp -m multiport --ports 53 -j ACCEPT"},
		{"neither port", Filter, Rule{Chain: "input", Action: "accept", Protocol: "tcp", Port: ports("!53,1000-2000")}, "-p tcp -m multiport ! --ports 53,1000:2000 -j ACCEPT"},
		{"flags", Filter, Rule{Chain: "input", Action: "drop", Protocol: "tcp", TCPFlags: "syn,!ack,fin"}, "-p tcp -m tcp --tcp-flags SYN,ACK,FIN SYN,FIN -j DROP"},
		{"no flags", Filter, Rule{Chain: "input", Action: "drop", Protocol: "tcp", TCPFlags: "!syn,!ack"}, "-p tcp -m tcp --tcp-flags SYN,ACK NONE -j DROP"},
		{"return in a chain of one's own", Filter, Rule{Chain: "own", Action: "return"}, "-j RETURN"},
		{"return to nowhere", NAT, Rule{Chain: "dstnat", Action: "return"}, "-j ACCEPT"},
		{"log of a chain of nat", NAT, Rule{Chain: "own", Action: "log"}, "-j LOG --log-level debug"},
		{"comment", Filter, Rule{Chain: "input", Action: "accept", Comment: "one"}, "-m comment --comment one -j ACCEPT"},
		{"comment in a code page", Filter, Rule{Chain: "input", Action: "accept", Comment: "T\xfcr \x80"}, "-m comment --comment T\xfcr \x80 -j ACCEPT"},
		{"comment of several lines", Filter, Rule{Chain: "input", Action: "accept", Comment: "a\r\n-F\x00"}, "-m comment --comment a  -F  -j ACCEPT"},
		{"log", Filter, Rule{Chain: "input", Action: "log"}, "-j LOG --log-level info"},
		{"log of nat", NAT, Rule{Chain: "dstnat", Action: "log"}, "-j LOG --log-level debug"},
		{"log with prefix", Filter, Rule{Chain: "input", Action: "log", LogPrefix: "in:"}, "-j LOG --log-level info --log-prefix in:"},
		{"reject", Filter, Rule{Chain: "input", Action: "reject"}, "-j REJECT --reject-with icmp-net-unreachable"},
		{"reject, protocol", Filter, Rule{Chain: "input", Action: "reject", RejectWith: "icmp-protocol-unreachable"}, "-j REJECT --reject-with icmp-proto-unreachable"},
		{"reject, reset", Filter, Rule{Chain: "input", Action: "reject", Protocol: "tcp", RejectWith: "tcp-reset"}, "-p tcp -j REJECT --reject-with tcp-reset"},
		{"masquerade to ports", NAT, Rule{Chain: "srcnat", Action: "masquerade", Protocol: "udp", ToPorts: ports("1024-2047")}, "-p udp -j MASQUERADE --to-ports 1024-2047"},
		{"src-nat", NAT, Rule{Chain: "srcnat", Action: "src-nat", ToAddresses: addresses("1.2.3.4")}, "-j SNAT --to-source 1.2.3.4"},
		{"src-nat to ranges", NAT,
			Rule{Chain: "srcnat", Action: "src-nat", Protocol: "tcp", ToAddresses: addresses("1.2.3.4-1.2.3.9"), ToPorts: ports("1000-2000")},
			"-p tcp -j SNAT --to-source 1.2.3.4-1.2.3.9:1000-2000"},
		{"src-nat to a prefix", NAT, Rule{Chain: "srcnat", Action: "src-nat", ToAddresses: addresses("1.2.3.0/30")}, "-j SNAT --to-source 1.2.3.0-1.2.3.3"},
		{"dst-nat", NAT,
			Rule{Chain: "dstnat", Action: "dst-nat", InInterface: "ether1", Protocol: "tcp", DstPort: ports("80"), ToAddresses: addresses("10.0.0.2"), ToPorts: ports("8080")},
			"-p tcp -i ether1 -m tcp --dport 80 -j DNAT --to-destination 10.0.0.2:8080"},
		{"dst-nat of the port alone", NAT, Rule{Chain: "dstnat", Action: "dst-nat", Protocol: "tcp", ToPorts: ports("8080")}, "-p tcp -j DNAT --to-destination :8080"},
		{"redirect", NAT, Rule{Chain: "dstnat", Action: "redirect"}, "-j REDIRECT"},
		{"redirect to a port", NAT, Rule{Chain: "dstnat", Action: "redirect", Protocol: "17", ToPorts: ports("53")}, "-p 17 -j REDIRECT --to-ports 53"},
	} {
		t.Run(test.name, func(t *testing.T) {
			require.NoError(t, test.rule.Validate(test.table))
			e := entries(test.table, []Rule{test.rule}, Config{}, nil)[0]
			assert.Equal(t, test.want, strings.Join(slices.Concat(e.match, e.log, e.target), " "))
		})
	}
}

func TestRuleString(t *testing.T) {
	r := Rule{
		Chain: "forward", Action: "log", SrcAddress: addresses("!10.0.0.0/8"), Protocol: "tcp",
		DstPort: ports("21,80"), LogPrefix: `a "b"`, Comment: "x=1", Disabled: true,
	}
	assert.Equal(t, `chain=forward action=log src-address=!10.0.0.0/8 protocol=tcp dst-port=21,80 `+
		`log-prefix="a \"b\"" comment=x=1 disabled=yes`, r.String())
}

func TestValidateRefuses(t *testing.T) {
	in := func(change func(*Rule)) Rule {
		r := Rule{Chain: "input", Action: "accept"}
		change(&r)
		return r
	}
	for _, test := range []struct {
		name  string
		table Table
		rule  Rule
		want  string
	}{
		{"no chain", Filter, Rule{Action: "accept"}, `chain="": expected input, forward or output, or a name for a chain of your own`},
		{"nat chain in filter", Filter, Rule{Chain: "srcnat", Action: "accept"}, "chain=srcnat: expected input, forward or output"},
		{"filter chain in nat", NAT, Rule{Chain: "input", Action: "accept"}, "chain=input: expected dstnat or srcnat"},
		{"no action", Filter, Rule{Chain: "input"}, `action="": expected accept, drop, reject, log, passthrough, jump, return, fasttrack-connection, add-src-to-address-list or add-dst-to-address-list in chain=input`},
		{"masquerade in filter", Filter, Rule{Chain: "forward", Action: "masquerade"}, "action=masquerade: expected accept, drop"},
		{"masquerade in dstnat", NAT, Rule{Chain: "dstnat", Action: "masquerade"}, "action=masquerade: expected accept, log, passthrough, jump, return, add-src-to-address-list, add-dst-to-address-list, dst-nat, redirect or netmap in chain=dstnat"},
		{"redirect in srcnat", NAT, Rule{Chain: "srcnat", Action: "redirect"}, "action=redirect: expected"},
		{"drop in nat", NAT, Rule{Chain: "dstnat", Action: "drop"}, "action=drop: expected"},
		{"half an address", Filter, in(func(r *Rule) { r.SrcAddress.From = netip.MustParseAddr("1.2.3.4") }), "src-address: expected an IPv4 address"},
		{"IPv6", Filter, in(func(r *Rule) { r.DstAddress.From = netip.MustParseAddr("::1"); r.DstAddress.To = r.DstAddress.From }), "dst-address: expected an IPv4 address"},
		{"no address at all", Filter, in(func(r *Rule) { r.SrcAddress = addresses("!0.0.0.0/0") }), "src-address=!0.0.0.0/0: matches no address"},
		{"protocol name", Filter, in(func(r *Rule) { r.Protocol = "tpc" }), "protocol=tpc: expected tcp, udp, icmp or a number"},
		{"protocol 0", Filter, in(func(r *Rule) { r.Protocol = "0" }), "protocol=0: expected"},
		{"protocol 256", Filter, in(func(r *Rule) { r.Protocol = "256" }), "protocol=256: expected"},
		{"protocol with a zero", Filter, in(func(r *Rule) { r.Protocol = "06" }), "protocol=06: expected"},
		{"protocol not", Filter, in(func(r *Rule) { r.Protocol = "!" }), "protocol=!: expected"},
		{"port without protocol", Filter, in(func(r *Rule) { r.DstPort = ports("21") }), "dst-port=21: needs protocol=tcp or protocol=udp"},
		{"port of other protocols", Filter, in(func(r *Rule) { r.SrcPort = ports("21"); r.Protocol = "!tcp" }), "src-port=21: needs protocol=tcp"},
		{"port list not, empty", Filter, in(func(r *Rule) { r.DstPort.Not = true; r.Protocol = "tcp" }), "dst-port=!: expected 1..15 ports"},
		{"port list too long", Filter, in(func(r *Rule) { r.DstPort.Ranges = make([]match.PortRange, 16); r.Protocol = "tcp" }), "expected 1..15 ports"},
		{"port range backwards", Filter, in(func(r *Rule) { r.DstPort.Ranges = []match.PortRange{{From: 2, To: 1}}; r.Protocol = "tcp" }), "dst-port=2-1: a range ends"},
		{"out-interface in input", Filter, in(func(r *Rule) { r.OutInterface = "ether1" }), "out-interface=ether1: not known in chain=input"},
		{"in-interface in output", Filter, Rule{Chain: "output", Action: "drop", InInterface: "ether1"}, "in-interface=ether1: not known in chain=output"},
		{"in-interface in srcnat", NAT, Rule{Chain: "srcnat", Action: "masquerade", InInterface: "ether1"}, "in-interface=ether1: not known in chain=srcnat"},
		{"out-interface in dstnat", NAT, Rule{Chain: "dstnat", Action: "redirect", OutInterface: "ether1"}, "out-interface=ether1: not known in chain=dstnat"},
		{"long interface", Filter, in(func(r *Rule) { r.InInterface = "abcdefghijklmnop" }), "in-interface=abcdefghijklmnop: expected a name of 1..15"},
		{"wildcard interface", Filter, in(func(r *Rule) { r.InInterface = "ether+" }), "in-interface=ether+: expected"},
		{"option for interface", Filter, in(func(r *Rule) { r.InInterface = "-j" }), "in-interface=-j: expected"},
		{"no interface", Filter, in(func(r *Rule) { r.InInterface = "!" }), "in-interface=!: expected"},
		{"connection state", Filter, in(func(r *Rule) { r.ConnectionState = "new,old" }), "connection-state=new,old: expected a list of established"},
		{"nat state", Filter, in(func(r *Rule) { r.ConnectionNATState = "dnat" }), "connection-nat-state=dnat: expected srcnat, dstnat or both"},
		{"nat state in nat", NAT, Rule{Chain: "srcnat", Action: "accept", ConnectionNATState: "dstnat"}, "connection-nat-state=dstnat: not known in chain=srcnat"},
		{"IPsec policy", Filter, in(func(r *Rule) { r.IPsecPolicy = "in" }), "ipsec-policy=in: expected in,none, in,ipsec, out,none or out,ipsec"},
		{"IPsec policy out, in input", Filter, in(func(r *Rule) { r.IPsecPolicy = "out,none" }), "ipsec-policy=out,none: not known in chain=input"},
		{"IPsec policy in, in srcnat", NAT, Rule{Chain: "srcnat", Action: "accept", IPsecPolicy: "in,none"}, "ipsec-policy=in,none: not known in chain=srcnat"},
		{"fasttrack in nat", NAT, Rule{Chain: "srcnat", Action: "fasttrack-connection"}, "action=fasttrack-connection: expected accept"},
		{"connection state, empty word", Filter, in(func(r *Rule) { r.ConnectionState = "new," }), "connection-state=new,: expected"},
		{"icmp without protocol", Filter, in(func(r *Rule) { r.ICMPOptions = "8:0" }), "icmp-options=8:0: needs protocol=icmp"},
		{"icmp type any", Filter, in(func(r *Rule) { r.ICMPOptions = "255"; r.Protocol = "icmp" }), "icmp-options=255: expected type"},
		{"icmp code", Filter, in(func(r *Rule) { r.ICMPOptions = "8:"; r.Protocol = "icmp" }), "icmp-options=8:: expected type"},
		{"src-nat to nothing", NAT, Rule{Chain: "srcnat", Action: "src-nat"}, "action=src-nat: needs to-addresses"},
		{"dst-nat to nothing", NAT, Rule{Chain: "dstnat", Action: "dst-nat"}, "action=dst-nat: needs to-addresses or to-ports"},
		{"dst-nat to others", NAT, Rule{Chain: "dstnat", Action: "dst-nat", ToAddresses: addresses("!1.2.3.4")}, `to-addresses=!1.2.3.4: expected an address or range without "!"`},
		{"to half an address", NAT, Rule{Chain: "dstnat", Action: "dst-nat", ToAddresses: match.Addresses{To: netip.MustParseAddr("1.2.3.4")}}, "to-addresses: expected"},
		{"to-addresses of accept", Filter, in(func(r *Rule) { r.ToAddresses = addresses("1.2.3.4") }), "to-addresses=1.2.3.4: needs action=src-nat, same, dst-nat or netmap"},
		{"to-ports of accept", Filter, in(func(r *Rule) { r.ToPorts = ports("1") }), "to-ports=1: needs action="},
		{"to-ports without protocol", NAT, Rule{Chain: "dstnat", Action: "redirect", ToPorts: ports("53")}, "to-ports=53: needs protocol=tcp or protocol=udp"},
		{"to-ports list", NAT, Rule{Chain: "dstnat", Action: "redirect", Protocol: "tcp", ToPorts: ports("53,54")}, "to-ports=53,54: expected one port or range"},
		{"to-ports not", NAT, Rule{Chain: "dstnat", Action: "redirect", Protocol: "tcp", ToPorts: ports("!53")}, "to-ports=!53: expected one port or range"},
		{"to port 0", NAT, Rule{Chain: "dstnat", Action: "redirect", Protocol: "tcp", ToPorts: ports("0")}, "to-ports=0: expected one port or range"},
		{"long log-prefix of drop", Filter, Rule{Chain: "input", Action: "drop", LogPrefix: strings.Repeat("x", 30)}, "expected at most 29 bytes, got 30"},
		{"chain of RouterOS's other tables", Filter, Rule{Chain: "prerouting", Action: "drop"}, "chain=prerouting: expected input, forward or output, or a name for a chain of your own"},
		{"chain that is not", Filter, Rule{Chain: "!input", Action: "drop"}, `chain=!input: expected no "!"`},
		{"chain with a long name", Filter, Rule{Chain: strings.Repeat("x", 65), Action: "drop"}, "expected at most 64 bytes, got 65"},
		{"chain of two lines", Filter, Rule{Chain: "x\ny", Action: "drop"}, "expected a name without control characters"},
		{"jump to nowhere", Filter, in(func(r *Rule) { r.Action = "jump" }), "action=jump: needs jump-target"},
		{"target without a jump", Filter, in(func(r *Rule) { r.JumpTarget = "x" }), "jump-target=x: needs action=jump"},
		{"jump to a built-in chain", Filter, in(func(r *Rule) { r.Action, r.JumpTarget = "jump", "forward" }), "jump-target=forward: expected a chain of your own"},
		{"masquerade in a chain of filter", Filter, Rule{Chain: "x", Action: "masquerade"}, "action=masquerade: expected accept, drop"},
		{"drop in a chain of nat", NAT, Rule{Chain: "x", Action: "drop"}, "action=drop: expected accept, log"},
		{"no list", Filter, in(func(r *Rule) { r.SrcAddressList = "!" }), `src-address-list=!: expected the name of a list, "!" in front`},
		{"list twice not", Filter, in(func(r *Rule) { r.DstAddressList = "!!x" }), `dst-address-list=!x: expected no "!"`},
		{"ports of either side, without protocol", Filter, in(func(r *Rule) { r.Port = ports("53") }), "port=53: needs protocol=tcp or protocol=udp"},
		{"flags of udp", Filter, in(func(r *Rule) { r.TCPFlags, r.Protocol = "syn", "udp" }), "tcp-flags=syn: needs protocol=tcp"},
		{"flags that iptables does not know", Filter, in(func(r *Rule) { r.TCPFlags, r.Protocol = "syn,ece", "tcp" }),
			`tcp-flags=syn,ece: expected a list of fin, syn, rst, psh, ack or urg, each once, "!" in front of those that are not set`},
		{"a flag set and not", Filter, in(func(r *Rule) { r.TCPFlags, r.Protocol = "syn,!syn", "tcp" }), "tcp-flags=syn,!syn: expected a list"},
		{"long log-prefix", Filter, Rule{Chain: "input", Action: "log", LogPrefix: strings.Repeat("x", 30)}, "expected at most 29 bytes, got 30"},
		{"log-prefix of two lines", Filter, Rule{Chain: "input", Action: "log", LogPrefix: "a\nb"}, `log-prefix="a\nb": expected UTF-8 text without control characters`},
		{"long comment", Filter, in(func(r *Rule) { r.Comment = strings.Repeat("x", 256) }), "expected at most 255 bytes, got 256"},
		{"reject-with of drop", Filter, Rule{Chain: "input", Action: "drop", RejectWith: "tcp-reset"}, "reject-with=tcp-reset: needs action=reject"},
		{"reject-with unknown", Filter, Rule{Chain: "input", Action: "reject", RejectWith: "icmp-net-unreachable"}, "reject-with=icmp-net-unreachable: expected icmp-network-unreachable"},
		{"tcp-reset without tcp", Filter, Rule{Chain: "input", Action: "reject", RejectWith: "tcp-reset"}, "reject-with=tcp-reset: needs protocol=tcp"},
	} {
		t.Run(test.name, func(t *testing.T) {
			assert.ErrorContains(t, test.rule.Validate(test.table), test.want)
		})
	}
}

// What a rule alone cannot tell.
// What Validate counts is what the kernel gets.
func TestKernelRules(t *testing.T) {
	c := Config{
		AddressLists: map[string][]match.Addresses{"many": apart(100), "one": apart(1)},
		Lists:        map[string]Interfaces{"two": {Names: []string{"a", "b"}}},
	}
	count := 0
	for _, src := range []string{"", "many", "!many", "filled", "!filled", "none"} {
		for _, in := range []string{"", "two", "!two"} {
			for _, action := range []string{"accept", "return", "log"} {
				r := Rule{Chain: "x", Action: action, SrcAddressList: src, DstAddressList: "filled", InInterfaceList: in, Log: action != "log"}
				c.Filter = append(c.Filter, r, r.with("limit", "1,1"), Rule{Chain: "x", Action: action, Disabled: true})
			}
		}
	}
	c.Filter = append(c.Filter, Rule{Chain: "x", Action: "add-src-to-address-list", AddressList: "filled"})
	lists := c.kernelLists()
	for _, r := range c.Filter {
		count += r.kernelRules(Filter, &c, lists)
	}
	assert.Equal(t, count, entryRules(layout(Filter, entries(Filter, c.Filter, c, lists))))
}

// ladder returns rules of chain and n-1 others, each with two jumps to the next.
func ladder(n int, chain string) (rules []Rule) {
	for i := range n {
		next := fmt.Sprint("step", i)
		rules = append(rules, slices.Repeat([]Rule{{Chain: chain, Action: "jump", JumpTarget: next}}, 2)...)
		chain = next
	}
	return append(rules, Rule{Chain: chain, Action: "accept"})
}

// numbered returns names of interfaces.
func numbered(count int) (names []string) {
	for i := range count {
		names = append(names, fmt.Sprint("ether", i))
	}
	return names
}

func TestChainsValidate(t *testing.T) {
	jump := func(chain, target string) Rule { return Rule{Chain: chain, Action: "jump", JumpTarget: target} }
	drop := Rule{Chain: "x", Action: "drop"}
	for _, test := range []struct {
		name   string
		config Config
		want   string
	}{
		{"a chain", Config{Filter: []Rule{jump("input", "x"), drop}}, ""},
		{"a chain that nothing leads to", Config{Filter: []Rule{drop}}, ""},
		{"a chain whose rules are disabled", Config{Filter: []Rule{jump("input", "x"), {Chain: "x", Action: "drop", Disabled: true}}}, ""},
		{"no such chain", Config{Filter: []Rule{drop, jump("input", "y")}}, "filter rule 1: jump-target=y: no rule has chain=y; expected a chain that has rules"},
		{"a chain of the other table", Config{Filter: []Rule{jump("input", "x")}, NAT: []Rule{{Chain: "x", Action: "accept"}}}, "filter rule 0: jump-target=x: no rule has chain=x"},
		{"to itself", Config{Filter: []Rule{jump("x", "x")}}, "filter rule 0: jump-target=x: leads back to chain=x, and so would never end"},
		{"round", Config{Filter: []Rule{drop, jump("x", "y"), jump("y", "z"), jump("z", "x")}}, "filter rule 1: jump-target=y: leads back to chain=x"},
		{"two ways", Config{Filter: []Rule{jump("input", "y"), jump("input", "z"), jump("y", "x"), jump("z", "x"), drop}}, ""},
		{"many ways", Config{Filter: ladder(10, "input")}, ""},
		{"too many ways", Config{Filter: ladder(11, "input")}, "filter chain=input: a packet could meet more than 4096 rules, those of a chain once for each jump there: expected fewer jumps"},
		{"far too many ways", Config{NAT: ladder(127, "srcnat")}, "nat chain=srcnat: a packet could meet more than 4096 rules"},
		{"chains that nothing leads to", Config{Filter: ladder(127, "x")}, ""},
		{"nat", Config{NAT: []Rule{jump("srcnat", "x"), {Chain: "x", Action: "masquerade"}}}, ""},
		{"masquerade for dstnat", Config{NAT: []Rule{jump("dstnat", "y"), jump("y", "x"), {Chain: "x", Action: "masquerade"}}},
			"nat rule 2: action=masquerade: packets come to chain=x from chain=dstnat; expected accept, log, passthrough, jump, return, add-src-to-address-list, add-dst-to-address-list, dst-nat, redirect or netmap"},
		{"too many addresses", Config{AddressLists: map[string][]match.Addresses{"a": make1000("10.0.0.0/24"), "b": {addresses("1.2.3.4")}}},
			"address lists: expected at most 1000 entries in all, got 1001"},
		{"not an address", Config{AddressLists: map[string][]match.Addresses{"a": {addresses("!1.2.3.4")}}}, "address list a: expected IPv4 addresses"},
		{"too many prefixes", Config{AddressLists: map[string][]match.Addresses{"a": slices.Repeat([]match.Addresses{addresses("0.0.0.1-255.255.255.254")}, 67)}},
			"address lists: expected ranges of at most 4096 prefixes in all, got 4154"},
		{"large lists of interfaces", Config{Filter: slices.Repeat([]Rule{{Chain: "forward", Action: "drop", InInterfaceList: "a"}}, 5), Lists: map[string]Interfaces{"a": {Names: numbered(1000)}}},
			"filter rule 4: the rules up to this one need more than 4096 rules of the kernel"},
		{"large lists of rules that log", Config{Filter: slices.Repeat([]Rule{{Chain: "forward", Action: "drop", InInterfaceList: "a", Log: true}}, 5), Lists: map[string]Interfaces{"a": {Names: numbered(1022)}}},
			"filter rule 3: the rules up to this one need more than 4096 rules of the kernel"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.config.Validate()
			if test.want == "" {
				require.NoError(t, err)
				return
			}
			assert.ErrorContains(t, err, test.want)
		})
	}
}

func make1000(s string) []match.Addresses {
	return slices.Repeat([]match.Addresses{addresses(s)}, 1000)
}

// apart returns addresses that are not next to each other.
func apart(count int) (all []match.Addresses) {
	a := netip.MustParseAddr("127.1.0.1")
	for range count {
		all = append(all, match.Addresses{From: a, To: a})
		a = a.Next().Next()
	}
	return all
}

func TestConfigValidateNamesTheRule(t *testing.T) {
	good, bad := Rule{Chain: "input", Action: "accept"}, Rule{Chain: "input", Action: "allow", Disabled: true}
	assert.NoError(t, Config{}.Validate())
	assert.ErrorContains(t, Config{Filter: []Rule{good, bad}}.Validate(), "filter rule 1: action=allow: expected accept")
	assert.ErrorContains(t, Config{NAT: []Rule{good}}.Validate(), "nat rule 0: chain=input: expected")
}

// words splits a line as iptables-restore does (add_param_to_argv,
// iptables/xshared.c in iptables 1.8.9).
func words(line string) []string {
	var list []string
	var word []byte
	quoted, escaped := false, false
	end := func() {
		list = append(list, string(word))
		word = nil
	}
	for i := range len(line) {
		switch c := line[i]; {
		case escaped:
			word, escaped = append(word, c), false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			if quoted {
				end()
			}
			quoted = !quoted
		case !quoted && (c == ' ' || c == '\t' || c == '\n'):
			if len(word) > 0 {
				end()
			}
		default:
			word = append(word, c)
		}
	}
	if len(word) > 0 {
		end()
	}
	return list
}

// FuzzQuote: whatever Validate lets through is read back as the one word it was,
// on a line that stays one line.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", " ", `"`, `\`, `\"`, `a b`, "x\" -j ACCEPT\n-F\n", "'$(reboot)'", "-j", "!", "# x", "COMMIT", "ü", "\t"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, comment, prefix string) {
		r := Rule{Chain: "input", Action: "log", Comment: comment, LogPrefix: prefix}
		if r.Validate(Filter) != nil {
			return
		}
		var s script
		es := entries(Filter, []Rule{r}, Config{}, nil)
		s.rule(Filter, es, layout(Filter, es)[0].rules[2], "-A", "INPUT")
		line, ok := strings.CutSuffix(string(s.text), "\n")
		require.True(t, ok)
		require.NotContains(t, line, "\n")
		require.Equal(t, slices.Concat([]string{"[0:0]", "-A", "INPUT"}, r.matches(sets{in: Interfaces{Not: true}, out: Interfaces{Not: true}}, marks{}), logLimit, r.logTarget(Filter)), words(line))
	})
}

func TestParseCounter(t *testing.T) {
	for _, test := range []struct {
		name, line string
		want       Counter
		ok         bool
	}{
		{"legacy", `-A INPUT -i lo -c 5 600 -j ACCEPT`, Counter{5, 600}, true},
		{"behind the target", `-A INPUT -i lo -j ACCEPT -c 5 600`, Counter{5, 600}, true},
		{"no target", `-A INPUT -c 1 2`, Counter{1, 2}, true},
		{"not abbreviated", `-A INPUT -c 18446744073709551615 12345678901 -j DROP`, Counter{1<<64 - 1, 12345678901}, true},
		{"forged comment", `-A INPUT -m comment --comment "x\" -c 1 2" -c 5 600 -j LOG --log-prefix "-c 3 4 "`, Counter{5, 600}, true},
		{"comment -c", `-A INPUT -m comment --comment -c -c 5 600 -j LOG --log-prefix -c`, Counter{5, 600}, true},
		{"none", `-A INPUT -m comment --comment "-c 1 2" -j ACCEPT`, Counter{}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, ok := parseCounter(test.line)
			assert.Equal(t, test.ok, ok)
			assert.Equal(t, test.want, got)
		})
	}
}

func TestRefusalMessages(t *testing.T) {
	for _, test := range []struct {
		name, stderr, message string
		line                  int
	}{
		{"legacy, word", "iptables-restore v1.8.9 (legacy): Couldn't load match `x':No such file or directory\n\nError occurred at line: 4\nTry `iptables-restore -h' or 'iptables-restore --help' for more information.\n",
			"Couldn't load match `x':No such file or directory", 4},
		{"legacy, kernel", "iptables-restore: line 6 failed\n", "the kernel refused it", 6},
		{"nft, kernel", "iptables-nft-restore v1.8.9 (nf_tables): \nline 4: RULE_APPEND failed (Invalid argument): rule in chain x\n",
			"RULE_APPEND failed (Invalid argument): rule in chain x", 4},
		{"lock file", "Fatal: can't open lock file /run/xtables.lock: Read-only file system\n",
			"Fatal: can't open lock file /run/xtables.lock: Read-only file system", 0},
		{"silent", "", assert.AnError.Error(), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRefusal(test.stderr, assert.AnError)
			assert.Equal(t, test.message, r.message)
			assert.Equal(t, test.line, r.line)
		})
	}
}
