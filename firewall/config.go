package firewall

import "github.com/postern-router/postern/match"

// Config is the whole rule set of a router, in the order of evaluation. In each
// chain the first rule that matches decides; what no rule matches is accepted.
type Config struct {
	Filter []Rule
	NAT    []Rule
}

// Rule is one rule. A matcher's zero value matches everything.
type Rule struct {
	// Chain is input, forward or output in Filter; srcnat or dstnat in NAT.
	Chain string
	// Action is accept, log or passthrough in either table, drop and reject in Filter,
	// masquerade and src-nat in srcnat, dst-nat and redirect in dstnat. After log and
	// passthrough, which counts only, the next rule is tried.
	Action string

	SrcAddress, DstAddress match.Addresses
	// Protocol is tcp, udp, icmp or a number of 1..255 (iptables reads 0 as all), "!" in
	// front for any other; empty for all. Ports need tcp or udp.
	Protocol         string
	SrcPort, DstPort match.Ports
	// InInterface and OutInterface are port names, "!" in front for any other.
	InInterface, OutInterface string
	// ConnectionState is a list of established, related, new, invalid and untracked,
	// separated by commas, "!" in front for any other.
	ConnectionState string
	// ICMPOptions is an ICMP type as "type" or "type:code", as in RouterOS
	// (8:0 is an echo request). It needs Protocol icmp.
	ICMPOptions string

	// ToAddresses and ToPorts are the new address and ports of src-nat and dst-nat;
	// redirect and masquerade take ToPorts alone, and dst-nat may. ToPorts is one port
	// or one range.
	ToAddresses match.Addresses
	ToPorts     match.Ports
	// LogPrefix stands before what the action log writes, at most 29 bytes.
	LogPrefix string
	// RejectWith is the ICMP answer of the action reject, as RouterOS names it:
	// icmp-network-unreachable (the default), icmp-host-unreachable,
	// icmp-port-unreachable, icmp-protocol-unreachable, icmp-net-prohibited,
	// icmp-host-prohibited, icmp-admin-prohibited or tcp-reset.
	RejectWith string

	// Disabled keeps the rule out of the kernel; it must be valid all the same.
	Disabled bool
	// Comment is printable text of at most 255 bytes (XT_MAX_COMMENT_LEN less the
	// closing NUL, linux/netfilter/xt_comment.h).
	Comment string
}
