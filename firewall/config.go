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
	// Action is accept, drop, reject, log or passthrough in either table, and in NAT
	// masquerade and src-nat (srcnat), dst-nat and redirect (dstnat).
	Action string

	SrcAddress, DstAddress match.Addresses
	// Protocol is tcp, udp, icmp or a number of 0..255, "!" in front for any other;
	// empty for all. Ports need tcp or udp.
	Protocol         string
	SrcPort, DstPort match.Ports
	// InInterface and OutInterface are port names, "!" in front for any other.
	InInterface, OutInterface string
	// ConnectionState is a list of established, related, new, invalid and untracked,
	// separated by commas, "!" in front for any other.
	ConnectionState string
	// ICMPOptions is an ICMP type as "type" or "type:code", as in RouterOS
	// (8:0 is an echo request).
	ICMPOptions string

	// ToAddresses and ToPorts are the new address and ports of src-nat and dst-nat;
	// redirect takes ToPorts alone.
	ToAddresses match.Addresses
	ToPorts     match.Ports
	// LogPrefix stands before what the action log writes, at most 29 bytes.
	LogPrefix string
	// RejectWith is the ICMP answer of the action reject, as RouterOS names it:
	// icmp-network-unreachable (the default), icmp-host-unreachable,
	// icmp-port-unreachable, icmp-protocol-unreachable, icmp-net-prohibited,
	// icmp-host-prohibited, icmp-admin-prohibited or tcp-reset.
	RejectWith string

	Disabled bool
	Comment  string
}
