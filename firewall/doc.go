// Package firewall turns a list of filter and nat rules, in RouterOS terms, into
// the kernel's IPv4 rules, by way of the programs iptables and iptables-restore.
//
// It owns the kernel's filter and nat tables: whatever else is in them goes. It
// leaves the other tables alone. What it promises:
//
//   - Fail closed. [Firewall.Lock] drops what comes in or passes through, except
//     on the loopback interface, and needs one process. From then on the policies
//     of INPUT and FORWARD stay DROP; what no rule matches is accepted by a last
//     rule, not by the policy. OUTPUT is ACCEPT throughout.
//   - No moment without rules. [Firewall.Apply] writes each table whole, and the
//     kernel takes a table whole or not at all, so that every packet meets either
//     all of the old rules of a table or all of the new.
//   - All or nothing. If one rule is refused, both tables stay as they were, and
//     the error names the rule.
//   - Counters go on. A rule that is in both the old and the new set keeps its
//     counters, but for the packets of the milliseconds of the change itself.
//   - Openings stay. [Firewall.Open] lets one peer reach one TCP port ahead of the
//     user's rules, and Apply keeps it.
//
// The programs need CAP_NET_ADMIN and, unless they are iptables-nft, a lock file that
// they can write: /run/xtables.lock, or what XTABLES_LOCKFILE names.
//
// These iptables extensions are all that it uses; the kernel and a static iptables
// need no others:
//
//	matches: comment conntrack icmp iprange multiport tcp udp
//	targets: standard DNAT LOG MASQUERADE REDIRECT REJECT SNAT
package firewall
