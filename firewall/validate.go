package firewall

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/postern-router/postern/match"
)

const (
	maxInterface = 15  // IFNAMSIZ less the closing NUL, linux/if.h
	maxLogPrefix = 29  // struct xt_log_info less the closing NUL, linux/netfilter/xt_LOG.h
	maxComment   = 255 // XT_MAX_COMMENT_LEN less the closing NUL, linux/netfilter/xt_comment.h
)

// maxKernelRules is how many rules a Config can have in the kernel, where a rule has one for each
// interface of a list that it names, and with log=yes one more. One takes 152 bytes
// (112 of struct ipt_entry, 40 of its target), and more for each match; all of them are there twice during a change.
const maxKernelRules = 4096

// maxWay is how many rules a packet can meet in a table: those of a chain of the user's once for each jump
// there. Without it chains with two jumps each to the next would take 2^n steps of the kernel for each packet.
const maxWay = 4096

// RuleError is what is wrong with one rule of a Config: the property and its value, and what was expected
// instead. Index is the rule's place in its table, from 0.
type RuleError struct {
	Table Table
	Index int
	Err   error
}

func (e *RuleError) Error() string { return fmt.Sprintf("%s rule %d: %v", e.Table, e.Index, e.Err) }

func (e *RuleError) Unwrap() error { return e.Err }

// Validate returns an error for the first rule that iptables would refuse or would read in
// another sense, or nil. The error is a *RuleError, unless it is about several rules or about none.
func (c Config) Validate() error {
	if err := c.checkAddressLists(); err != nil {
		return err
	}
	if m := c.marks(); len(m.connection) > MaxMarks || len(m.packet) > MaxMarks {
		return fmt.Errorf("marks: expected at most %d names of connections' marks and as many of packets' marks, got %d and %d", MaxMarks, len(m.connection), len(m.packet))
	}
	seen := map[uint8]string{}
	for _, name := range slices.Sorted(maps.Keys(c.RoutingTables)) {
		n := c.RoutingTables[name]
		if n < 1 || n > MaxRoutingMarks || seen[n] != "" {
			return fmt.Errorf("routing mark %s: number=%d: expected one of its own of 1..%d", quoteIfNeeded(name), n, MaxRoutingMarks)
		}
		seen[n] = name
	}
	for _, name := range c.Clamp {
		if err := (Rule{Chain: "forward", Action: "passthrough", OutInterface: name}).Validate(Filter); err != nil {
			return fmt.Errorf("clamp: %w", err)
		}
	}
	if err := cmp.Or(c.checkQueues(), c.FTP.check()); err != nil {
		return err
	}
	left, lists := maxKernelRules, c.namedLists()
	for _, t := range Tables {
		rules := c.Rules(t)
		chains := newChainGraph(t, rules)
		for i := range rules {
			r := &rules[i]
			err := cmp.Or(r.validate(t), c.checkLists(r), c.checkMarks(r), chains.check(r))
			if err == nil {
				if left -= r.kernelRules(t, &c, lists); left < 0 {
					err = fmt.Errorf("the rules up to this one need more than %d rules of the kernel, one for each interface of their lists: "+
						"expected fewer rules that name a large list", maxKernelRules)
				}
			}
			if err != nil {
				return &RuleError{t, i, err}
			}
		}
		known := map[string]int{}
		for _, b := range t.chains() {
			if chains.way(b.name, known) > maxWay {
				return fmt.Errorf("%s chain=%s: a packet could meet more than %d rules, those of a chain once for each jump there: "+
					"expected fewer jumps, or fewer rules where they lead", t, b.name, maxWay)
			}
		}
	}
	return nil
}

// kernelRules is how many rules of the kernel a rule of c has. lists are c's.
func (r *Rule) kernelRules(t Table, c *Config, lists map[string]kernelList) int {
	switch {
	case r.Disabled:
		return 0
	case r.sets(c.Lists, lists).several() || r.Final || r.Log:
		return entryRules(layout(t, entries(t, []Rule{*r}, Config{Lists: c.Lists}, lists)))
	}
	return 1
}

// chainGraph knows which chains of a table lead to which.
type chainGraph struct {
	table Table
	// targets are the chains that rules of a chain jump to, one for each such rule, disabled rules too. Each
	// chain that has rules has an entry.
	targets map[string][]string
	// rules is how many rules a chain has.
	rules map[string]int
}

func newChainGraph(t Table, rules []Rule) chainGraph {
	g := chainGraph{t, map[string][]string{}, map[string]int{}}
	for _, r := range rules {
		g.rules[r.Chain]++
		to := g.targets[r.Chain]
		if r.Action == "jump" {
			to = append(to, r.JumpTarget)
		}
		g.targets[r.Chain] = to
	}
	return g
}

// leads reports whether packets of chain from can come to chain to. seen are the chains that were
// looked at.
func (g chainGraph) leads(from, to string, seen map[string]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	return slices.ContainsFunc(g.targets[from], func(next string) bool { return g.leads(next, to, seen) })
}

// way returns how many rules a packet of a chain can meet, but no more than maxWay+1. known has what is known
// already. No jump leads back.
func (g chainGraph) way(chain string, known map[string]int) int {
	n, ok := known[chain]
	if ok {
		return n
	}
	n = g.rules[chain]
	for _, next := range g.targets[chain] {
		n = min(n+g.way(next, known), maxWay+1)
	}
	known[chain] = n
	return n
}

// check refuses a jump that leads nowhere or back, and in a chain of the user's an action that a
// chain which leads to it cannot have.
func (g chainGraph) check(r *Rule) error {
	if r.Action == "jump" {
		if _, ok := g.targets[r.JumpTarget]; !ok {
			return refuse("jump-target", r.JumpTarget, "no rule has chain=%s; expected a chain that has rules", quoteIfNeeded(r.JumpTarget))
		}
		if g.leads(r.JumpTarget, r.Chain, map[string]bool{}) {
			return refuse("jump-target", r.JumpTarget, "leads back to chain=%s, and so would never end", quoteIfNeeded(r.Chain))
		}
	}
	if g.table.builtin(r.Chain) != "" {
		return nil
	}
	for _, from := range unknownIn[Matchers[srcMACAddress].Name] {
		if mac := r.Extra[srcMACAddress]; mac != "" && g.leads(from, r.Chain, map[string]bool{}) {
			return refuse(Matchers[srcMACAddress].Name, mac, "packets come to chain=%s from chain=%s, where it is not known", quoteIfNeeded(r.Chain), from)
		}
	}
	for _, c := range g.table.chains() {
		if err := g.checkFrom(c.name, r); err != nil {
			return err
		}
		if !g.table.takes(c.name, r.Action) && g.leads(c.name, r.Chain, map[string]bool{}) {
			return refuse("action", r.Action, "packets come to chain=%s from chain=%s; expected %s", quoteIfNeeded(r.Chain), c.name, oneOf(g.table.actions(c.name)))
		}
	}
	return nil
}

// checkFrom refuses what r cannot have in the built-in chain from, if packets come from there.
func (g chainGraph) checkFrom(from string, r *Rule) error {
	if r.NewMSS == ClampMSS && (from == "prerouting" || from == "input") && g.leads(from, r.Chain, map[string]bool{}) {
		return refuse("new-mss", r.NewMSS, "packets come to chain=%s from chain=%s, where their way on is not known", quoteIfNeeded(r.Chain), from)
	}
	return nil
}

// Validate returns an error if r cannot be a rule of table t, or nil. The error names the
// property and its value, and what was expected instead.
func (r Rule) Validate(t Table) error { return r.validate(t) }

// validate is Validate. It is given no copy of the rule, which has some hundred bytes.
func (r *Rule) validate(t Table) error {
	if err := r.checkChain(t); err != nil {
		return err
	}
	if !t.takes(r.Chain, r.Action) {
		return refuse("action", r.Action, "expected %s in chain=%s", oneOf(t.actions(r.Chain)), quoteIfNeeded(r.Chain))
	}
	if r.ConnectionNATState != "" && t == NAT {
		return refuse("connection-nat-state", r.ConnectionNATState, "not known in chain=%s", r.Chain)
	}
	if t == Raw { // is before connection tracking
		for _, p := range []struct{ name, value string }{
			{"connection-state", r.ConnectionState}, {"connection-nat-state", r.ConnectionNATState}, {"connection-mark", r.ConnectionMark},
			{Matchers[connectionLimit].Name, r.Extra[connectionLimit]},
		} {
			if p.value != "" {
				return refuse(p.name, p.value, "not known in table raw, which is before connection tracking")
			}
		}
	}
	if r.NewMSS == ClampMSS && (r.Chain == "prerouting" || r.Chain == "input") {
		return refuse("new-mss", r.NewMSS, "not known in chain=%s; expected chain=forward, output or postrouting", r.Chain)
	}
	for _, check := range ruleChecks {
		if err := check(r); err != nil {
			return err
		}
	}
	return cmp.Or(checkText("log-prefix", r.LogPrefix, maxLogPrefix), checkLength("comment", r.Comment, maxComment))
}

// ruleChecks are what Validate checks of each rule. They are no values of methods, each of which would copy the rule.
var ruleChecks = []func(*Rule) error{
	(*Rule).checkJump, (*Rule).checkAddresses, (*Rule).checkAddressLists, (*Rule).checkProtocol, (*Rule).checkPorts, (*Rule).checkInterfaces,
	(*Rule).checkConnectionState, (*Rule).checkConnectionNATState, (*Rule).checkIPsecPolicy, (*Rule).checkICMPOptions, (*Rule).checkTCPFlags,
	(*Rule).checkExtra, (*Rule).checkTo, (*Rule).checkReject, (*Rule).checkMarks,
}

// checkChain refuses a chain that packets cannot come to.
func (r *Rule) checkChain(t Table) error {
	if t.builtin(r.Chain) != "" {
		return nil
	}
	if r.Chain == "" || slices.Contains(reservedChains, r.Chain) {
		var names []string
		for _, c := range t.chains() {
			names = append(names, c.name)
		}
		return refuse("chain", r.Chain, "expected %s, or a name for a chain of your own", oneOf(names))
	}
	return checkName("chain", r.Chain)
}

// checkName refuses what cannot be the name of a chain or of an address list.
func checkName(property, name string) error {
	if strings.HasPrefix(name, "!") {
		return refuse(property, name, `expected no "!"`)
	}
	if strings.ContainsFunc(name, isASCIIControl) {
		return refuse(property, name, "expected a name without control characters")
	}
	return checkLength(property, name, MaxName)
}

// MaxName is the greatest length of the name of a chain or of an address list in bytes.
const MaxName = 64

func (r *Rule) checkJump() error {
	if r.Action == "jump" && r.JumpTarget == "" {
		return refuse("action", r.Action, "needs jump-target")
	}
	if r.Action != "jump" && r.JumpTarget != "" {
		return refuse("jump-target", r.JumpTarget, "needs action=jump")
	}
	if slices.Contains(reservedChains, r.JumpTarget) {
		return refuse("jump-target", r.JumpTarget, "expected a chain of your own")
	}
	return checkName("jump-target", r.JumpTarget)
}

func (r *Rule) checkAddressLists() error {
	for _, p := range []struct{ name, value string }{{"src-address-list", r.SrcAddressList}, {"dst-address-list", r.DstAddressList}} {
		if p.value == "!" {
			return refuse(p.name, p.value, `expected the name of a list, "!" in front for any address that is not in it`)
		}
		if err := checkName(p.name, strings.TrimPrefix(p.value, "!")); err != nil {
			return err
		}
	}
	adds := r.Action == "add-src-to-address-list" || r.Action == "add-dst-to-address-list"
	if adds && r.AddressList == "" {
		return refuse("action", r.Action, "needs address-list")
	}
	if !adds {
		for _, p := range []struct{ name, value string }{{"address-list", r.AddressList}, {"address-list-timeout", r.listTimeout()}} {
			if p.value != "" {
				return refuse(p.name, p.value, "needs action=add-src-to-address-list or add-dst-to-address-list")
			}
		}
	}
	if d := r.AddressListTimeout; d < 0 || d > MaxListTimeout || d%time.Second != 0 {
		return refuse("address-list-timeout", d.String(), "expected whole seconds, at most %v", MaxListTimeout)
	}
	return checkName("address-list", r.AddressList)
}

// anyActions are those of all tables, and the others are more of them in tables or chains.
var (
	anyActions    = []string{"accept", "log", "passthrough", "jump", "return", "add-src-to-address-list", "add-dst-to-address-list"}
	filterActions = []string{"accept", "drop", "reject", "log", "passthrough", "jump", "return", "fasttrack-connection",
		"add-src-to-address-list", "add-dst-to-address-list"}
	srcnatActions = []string{"masquerade", "src-nat", "same", "netmap"}
	dstnatActions = []string{"dst-nat", "redirect", "netmap"}
	natActions    = []string{"masquerade", "src-nat", "same", "dst-nat", "redirect", "netmap"}
	rawActions    = []string{"drop", "notrack"}
	// routedActions are those of Mangle where a packet's way is known already.
	routedActions = []string{"change-dscp", "change-mss", "change-ttl", "mark-connection", "mark-packet"}
)

// more are the actions that rules of a chain can have besides anyActions.
func (t Table) more(chain string) []string {
	switch {
	case chain == "srcnat":
		return srcnatActions
	case chain == "dstnat":
		return dstnatActions
	case t == NAT:
		return natActions
	case t == Raw:
		return rawActions
	case chain == "input" || chain == "forward" || chain == "postrouting":
		return routedActions
	}
	return MangleActions
}

// actions are all that rules of a chain can have, for people.
func (t Table) actions(chain string) []string {
	if t == Filter {
		return filterActions
	}
	return slices.Concat(anyActions, t.more(chain))
}

// takes reports whether rules of a chain can have an action.
func (t Table) takes(chain, action string) bool {
	if t == Filter {
		return slices.Contains(filterActions, action)
	}
	return slices.Contains(anyActions, action) || slices.Contains(t.more(chain), action)
}

func (r *Rule) checkAddresses() error {
	for _, p := range []struct {
		name  string
		value match.Addresses
	}{{"src-address", r.SrcAddress}, {"dst-address", r.DstAddress}} {
		if p.value.Any() {
			continue
		}
		if !is4Range(p.value) {
			return fmt.Errorf("%s: expected an IPv4 address, prefix or range, got %v to %v",
				p.name, p.value.From, p.value.To)
		}
		if p.value.Not && everything(p.value) {
			return refuse(p.name, p.value.String(), "matches no address")
		}
	}
	return nil
}

func (r *Rule) checkProtocol() error {
	name := strings.TrimPrefix(r.Protocol, "!")
	if r.Protocol == "" || slices.Contains(match.ProtocolNames, name) || isNumber(name, 1, 255) {
		return nil
	}
	return refuse("protocol", r.Protocol, `expected tcp, udp, icmp or a number of 1..255, "!" in front for any other`)
}

func (r *Rule) checkPorts() error {
	for _, p := range []struct {
		name  string
		value match.Ports
	}{{"src-port", r.SrcPort}, {"dst-port", r.DstPort}, {"port", r.Port}} {
		if p.value.Any() {
			continue
		}
		if err := checkRanges(p.name, p.value); err != nil {
			return err
		}
		if portProtocol(r.Protocol) == "" {
			return refuse(p.name, p.value.String(), "needs protocol=tcp or protocol=udp")
		}
	}
	return nil
}

// checkRanges refuses ports that match's parser would not return.
func checkRanges(name string, ports match.Ports) error {
	slots := 0
	for _, r := range ports.Ranges {
		if r.To < r.From {
			return refuse(name, ports.String(), "a range ends before it begins")
		}
		slots++
		if r.To != r.From {
			slots++
		}
	}
	if slots == 0 || slots > match.MaxPorts {
		return refuse(name, ports.String(), "expected 1..%d ports, a range counting twice", match.MaxPorts)
	}
	return nil
}

const (
	inInterface  = "in-interface"
	outInterface = "out-interface"
)

// unknownIn has the chains in which the kernel does not know what a property is compared with: at these points of a
// packet's way it does not know the outgoing interface yet, or the incoming one and the host that sent the packet
// any more.
var unknownIn = map[string][]string{
	inInterface:                  {"output", "srcnat", "postrouting"},
	outInterface:                 {"input", "dstnat", "prerouting"},
	Matchers[srcMACAddress].Name: {"output", "srcnat", "postrouting"},
}

func (r *Rule) checkInterfaces() error {
	for _, p := range []struct{ name, value string }{
		{inInterface, r.InInterface}, {outInterface, r.OutInterface}, {"in-interface-list", r.InInterfaceList}, {"out-interface-list", r.OutInterfaceList},
	} {
		if p.value != "" && slices.Contains(unknownIn[strings.TrimSuffix(p.name, "-list")], r.Chain) {
			return refuse(p.name, p.value, "not known in chain=%s", r.Chain)
		}
	}
	return cmp.Or(checkInterface(inInterface, r.InInterface), checkInterface(outInterface, r.OutInterface))
}

// checkLists refuses lists that are not in c.
func (c *Config) checkLists(r *Rule) error {
	for _, p := range []struct{ name, value string }{
		{"in-interface-list", r.InInterfaceList}, {"out-interface-list", r.OutInterfaceList},
	} {
		if _, ok := c.Lists[strings.TrimPrefix(p.value, "!")]; p.value != "" && !ok {
			return refuse(p.name, p.value, "expected %s",
				cmp.Or(oneOf(slices.Sorted(maps.Keys(c.Lists))), "a list that there is, and there is none"))
		}
	}
	return nil
}

func checkInterface(property, word string) error {
	if word == "" {
		return nil
	}
	name := strings.TrimPrefix(word, "!")
	// A "+" at the end would be iptables' wildcard, and a "-" at the start an option.
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
	if name == "" || len(name) > maxInterface || strings.Trim(name, letters) != "" || name[0] == '-' {
		return refuse(property, word,
			`expected a name of 1..%d letters, digits, ".", "_" or "-", "!" in front for any other`, maxInterface)
	}
	return nil
}

func (r *Rule) checkConnectionState() error {
	if r.ConnectionState == "" {
		return nil
	}
	for state := range strings.SplitSeq(strings.TrimPrefix(r.ConnectionState, "!"), ",") {
		if !slices.Contains(match.ConnectionStates, state) {
			return refuse("connection-state", r.ConnectionState,
				`expected a list of established, related, new, invalid and untracked, "!" in front for any other`)
		}
	}
	return nil
}

func (r *Rule) checkConnectionNATState() error {
	if r.ConnectionNATState == "" {
		return nil
	}
	for state := range strings.SplitSeq(strings.TrimPrefix(r.ConnectionNATState, "!"), ",") {
		if !slices.Contains(match.NATStates, state) {
			return refuse("connection-nat-state", r.ConnectionNATState, `expected srcnat, dstnat or both, "!" in front for any other`)
		}
	}
	return nil
}

func (r *Rule) checkIPsecPolicy() error {
	if r.IPsecPolicy == "" {
		return nil
	}
	if !slices.Contains(IPsecPolicies, r.IPsecPolicy) {
		return refuse("ipsec-policy", r.IPsecPolicy, "expected %s", oneOf(IPsecPolicies))
	}
	way, _, _ := strings.Cut(r.IPsecPolicy, ",") // in or out
	if slices.Contains(unknownIn[way+"-interface"], r.Chain) {
		return refuse("ipsec-policy", r.IPsecPolicy, "not known in chain=%s", r.Chain)
	}
	return nil
}

func (r *Rule) checkICMPOptions() error {
	if r.ICMPOptions == "" {
		return nil
	}
	typ, code, hasCode := strings.Cut(r.ICMPOptions, ":")
	// The kernel reads type 255 as any type.
	if !isNumber(typ, 0, 254) || hasCode && !isNumber(code, 0, 255) {
		return refuse("icmp-options", r.ICMPOptions, "expected type or type:code, type of 0..254, code of 0..255")
	}
	if match.ProtocolName(r.Protocol) != "icmp" {
		return refuse("icmp-options", r.ICMPOptions, "needs protocol=icmp")
	}
	return nil
}

func (r *Rule) checkTo() error {
	nat := r.Action == "src-nat" || r.Action == "same" || r.Action == "dst-nat"
	if r.SameNotByDst && r.Action != "same" {
		return refuse("same-not-by-dst", "yes", "needs action=same")
	}
	if a := r.ToAddresses; !a.Any() {
		if !is4Range(a) {
			return fmt.Errorf("to-addresses: expected an IPv4 address or range, got %v to %v", a.From, a.To)
		}
		if _, network := a.Prefix(); r.Action == "netmap" && !network {
			return refuse("to-addresses", a.String(), "expected a network for action=netmap")
		}
		if !nat && r.Action != "netmap" {
			return refuse("to-addresses", a.String(), "needs action=src-nat, same, dst-nat or netmap")
		}
		if a.Not {
			return refuse("to-addresses", a.String(), `expected an address or range without "!"`)
		}
	}
	if p := r.ToPorts; !p.Any() {
		if !nat && r.Action != "redirect" && r.Action != "masquerade" {
			return refuse("to-ports", p.String(), "needs action=src-nat, dst-nat, redirect or masquerade")
		}
		if p.Not || len(p.Ranges) != 1 || p.Ranges[0].From == 0 || p.Ranges[0].To < p.Ranges[0].From {
			return refuse("to-ports", p.String(), `expected one port or range of 1..65535 without "!"`)
		}
		if portProtocol(r.Protocol) == "" {
			return refuse("to-ports", p.String(), "needs protocol=tcp or protocol=udp")
		}
	}
	if (r.Action == "src-nat" || r.Action == "same" || r.Action == "netmap") && r.ToAddresses.Any() {
		return refuse("action", r.Action, "needs to-addresses")
	}
	if r.Action == "dst-nat" && r.ToAddresses.Any() && r.ToPorts.Any() {
		return refuse("action", r.Action, "needs to-addresses or to-ports")
	}
	return nil
}

func (r *Rule) checkTCPFlags() error {
	if r.TCPFlags == "" {
		return nil
	}
	all, _ := tcpFlags(r.TCPFlags)
	for i, flag := range all {
		if !slices.Contains(TCPFlags, flag) || slices.Contains(all[:i], flag) {
			return refuse("tcp-flags", r.TCPFlags, `expected a list of %s, each once, "!" in front of those that are not set`, oneOf(TCPFlags))
		}
	}
	if portProtocol(r.Protocol) != "tcp" {
		return refuse("tcp-flags", r.TCPFlags, "needs protocol=tcp")
	}
	return nil
}

func (r *Rule) checkReject() error {
	if rejectWith(r.RejectWith) == "" {
		return refuse("reject-with", r.RejectWith, "expected %s", oneOf(RejectAnswers))
	}
	if r.RejectWith != "" && r.Action != "reject" {
		return refuse("reject-with", r.RejectWith, "needs action=reject")
	}
	if r.RejectWith == "tcp-reset" && portProtocol(r.Protocol) != "tcp" {
		return refuse("reject-with", r.RejectWith, "needs protocol=tcp")
	}
	return nil
}

// checkText refuses a text that does not fit its field in the kernel, and control
// characters, which could forge lines of the log and of the terminal.
func checkText(property, text string, limit int) error {
	if err := checkLength(property, text, limit); err != nil {
		return err
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return refuse(property, text, "expected UTF-8 text without control characters")
	}
	return nil
}

func checkLength(property, text string, limit int) error {
	if len(text) > limit {
		return refuse(property, text, "expected at most %d bytes, got %d", limit, len(text))
	}
	return nil
}

func isASCIIControl(r rune) bool { return r < ' ' || r == 0x7f }

// isNumber reports whether s is a decimal number from low to high, written without
// sign or leading zeros.
func isNumber(s string, low, high int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && strconv.Itoa(n) == s && low <= n && n <= high
}

func refuse(property, word, format string, args ...any) error {
	return fmt.Errorf("%s=%s: %s", property, quoteIfNeeded(word), fmt.Sprintf(format, args...))
}

func oneOf(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
