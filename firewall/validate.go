package firewall

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/postern-router/postern/match"
)

const (
	maxInterface = 15  // IFNAMSIZ less the closing NUL, linux/if.h
	maxLogPrefix = 29  // struct xt_log_info less the closing NUL, linux/netfilter/xt_LOG.h
	maxComment   = 255 // XT_MAX_COMMENT_LEN less the closing NUL, linux/netfilter/xt_comment.h
)

// Validate returns an error for the first rule that iptables would refuse or would read in
// another sense, or nil. The error names the table, the rule's number as printed (from 0),
// the property and its value, and what was expected instead.
func (c Config) Validate() error {
	for i, r := range c.Filter {
		if err := cmp.Or(r.Validate(Filter), c.checkLists(r)); err != nil {
			return fmt.Errorf("filter rule %d: %w", i, err)
		}
	}
	for i, r := range c.NAT {
		if err := cmp.Or(r.Validate(NAT), c.checkLists(r)); err != nil {
			return fmt.Errorf("nat rule %d: %w", i, err)
		}
	}
	return nil
}

// Validate returns an error if r cannot be a rule of table t, or nil. The error names the
// property and its value, and what was expected instead.
func (r Rule) Validate(t Table) error {
	if t.builtin(r.Chain) == "" {
		var names []string
		for _, c := range t.chains() {
			names = append(names, c.name)
		}
		return refuse("chain", r.Chain, "expected %s", oneOf(names))
	}
	if actions := r.actions(); !slices.Contains(actions, r.Action) {
		return refuse("action", r.Action, "expected %s in chain=%s", oneOf(actions), r.Chain)
	}
	for _, check := range []func() error{
		r.checkAddresses, r.checkProtocol, r.checkPorts, r.checkInterfaces,
		r.checkConnectionState, r.checkConnectionNATState, r.checkIPsecPolicy, r.checkICMPOptions, r.checkTo, r.checkLog, r.checkReject,
	} {
		if err := check(); err != nil {
			return err
		}
	}
	return checkText("comment", r.Comment, maxComment)
}

// actions returns the actions that rules of the rule's chain can have.
func (r Rule) actions() []string {
	switch r.Chain {
	case "srcnat":
		return []string{"accept", "log", "passthrough", "masquerade", "src-nat"}
	case "dstnat":
		return []string{"accept", "log", "passthrough", "dst-nat", "redirect"}
	}
	return []string{"accept", "drop", "reject", "log", "passthrough", "fasttrack-connection"}
}

func (r Rule) checkAddresses() error {
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

func (r Rule) checkProtocol() error {
	name := strings.TrimPrefix(r.Protocol, "!")
	if r.Protocol == "" || slices.Contains(match.ProtocolNames, name) || isNumber(name, 1, 255) {
		return nil
	}
	return refuse("protocol", r.Protocol, `expected tcp, udp, icmp or a number of 1..255, "!" in front for any other`)
}

func (r Rule) checkPorts() error {
	for _, p := range []struct {
		name  string
		value match.Ports
	}{{"src-port", r.SrcPort}, {"dst-port", r.DstPort}} {
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

func (r Rule) checkInterfaces() error {
	// At these points of a packet's way the kernel does not know the outgoing interface
	// yet, or the incoming one any more.
	if r.InInterface != "" && (r.Chain == "output" || r.Chain == "srcnat") {
		return refuse("in-interface", r.InInterface, "not known in chain=%s", r.Chain)
	}
	if r.OutInterface != "" && (r.Chain == "input" || r.Chain == "dstnat") {
		return refuse("out-interface", r.OutInterface, "not known in chain=%s", r.Chain)
	}
	if r.InInterfaceList != "" && (r.Chain == "output" || r.Chain == "srcnat") {
		return refuse("in-interface-list", r.InInterfaceList, "not known in chain=%s", r.Chain)
	}
	if r.OutInterfaceList != "" && (r.Chain == "input" || r.Chain == "dstnat") {
		return refuse("out-interface-list", r.OutInterfaceList, "not known in chain=%s", r.Chain)
	}
	if err := checkInterface("in-interface", r.InInterface); err != nil {
		return err
	}
	return checkInterface("out-interface", r.OutInterface)
}

// checkLists refuses lists that are not in c.
func (c Config) checkLists(r Rule) error {
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

func (r Rule) checkConnectionState() error {
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

func (r Rule) checkConnectionNATState() error {
	if r.ConnectionNATState == "" {
		return nil
	}
	if Filter.builtin(r.Chain) == "" {
		return refuse("connection-nat-state", r.ConnectionNATState, "not known in chain=%s", r.Chain)
	}
	for state := range strings.SplitSeq(strings.TrimPrefix(r.ConnectionNATState, "!"), ",") {
		if !slices.Contains(match.NATStates, state) {
			return refuse("connection-nat-state", r.ConnectionNATState, `expected srcnat, dstnat or both, "!" in front for any other`)
		}
	}
	return nil
}

func (r Rule) checkIPsecPolicy() error {
	if r.IPsecPolicy == "" {
		return nil
	}
	if !slices.Contains(IPsecPolicies, r.IPsecPolicy) {
		return refuse("ipsec-policy", r.IPsecPolicy, "expected %s", oneOf(IPsecPolicies))
	}
	way, _, _ := strings.Cut(r.IPsecPolicy, ",")
	if way == "in" && (r.Chain == "output" || r.Chain == "srcnat") || way == "out" && (r.Chain == "input" || r.Chain == "dstnat") {
		return refuse("ipsec-policy", r.IPsecPolicy, "not known in chain=%s", r.Chain)
	}
	return nil
}

func (r Rule) checkICMPOptions() error {
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

func (r Rule) checkTo() error {
	nat := r.Action == "src-nat" || r.Action == "dst-nat"
	if a := r.ToAddresses; !a.Any() {
		if !is4Range(a) {
			return fmt.Errorf("to-addresses: expected an IPv4 address or range, got %v to %v", a.From, a.To)
		}
		if !nat {
			return refuse("to-addresses", a.String(), "needs action=src-nat or action=dst-nat")
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
	if r.Action == "src-nat" && r.ToAddresses.Any() {
		return refuse("action", r.Action, "needs to-addresses")
	}
	if r.Action == "dst-nat" && r.ToAddresses.Any() && r.ToPorts.Any() {
		return refuse("action", r.Action, "needs to-addresses or to-ports")
	}
	return nil
}

func (r Rule) checkLog() error {
	if r.LogPrefix != "" && r.Action != "log" {
		return refuse("log-prefix", r.LogPrefix, "needs action=log")
	}
	return checkText("log-prefix", r.LogPrefix, maxLogPrefix)
}

func (r Rule) checkReject() error {
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
	if len(text) > limit {
		return refuse(property, text, "expected at most %d bytes, got %d", limit, len(text))
	}
	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return refuse(property, text, "expected UTF-8 text without control characters")
	}
	return nil
}

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
