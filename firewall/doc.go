// Package firewall turns lists of filter, nat, mangle and raw rules, and lists of addresses, in RouterOS terms, into the
// kernel's IPv4 rules and sets. It uses the programs iptables and iptables-restore.
//
// It owns the kernel's filter and nat tables, and mangle and raw once a Config has something for them: it removes whatever
// else is in them, and leaves the other tables alone. It promises:
//
//   - Fail closed. [Firewall.Lock] drops what comes in or passes through, except on the
//     loopback interface, and needs one process. From then on the policies of INPUT and
//     FORWARD stay DROP. A last rule, not the policy, accepts what no rule matches.
//     The policy of OUTPUT is always ACCEPT.
//   - No moment without rules. [Firewall.Apply] writes what changes of a table in one piece, and all of it
//     if it is not known what the table holds. The kernel
//     takes a table whole or not at all. So each packet meets either all of the old rules
//     of a table or all of the new ones.
//   - All or nothing. If one rule is refused, all tables stay as they were, and the
//     error names the rule.
//   - RouterOS's meaning. A rule can be in a chain of the user's, and can name lists of interfaces, which
//     iptables does not have: several rules of the kernel then do what it says.
//   - Lists of addresses are sets of the kernel's, named by numbers. A list that changes alone changes in one
//     piece and without a process; several, or rules with them, change together, or none of them. What packets put
//     into them is bounded.
//   - Counters go on. A rule that is in both the old and the new list keeps its counters,
//     except, if it has to be written anew, for the packets of the milliseconds of the change itself.
//   - Marks are names. The kernel's mark of a packet has a number for its packet mark in bits 0 to 15 and one for its
//     routing mark in bits 16 to 23; that of a connection has one in bits 0 to 15. A name's number comes from its hash, and
//     so stays while others come and go, but where two have one hash: packets and connections keep it. There are at most [MaxMarks] names of either of the first two and
//     [MaxRoutingMarks] routing marks.
//   - Openings stay. [Firewall.ChangeOpenings] lets single peers reach single TCP or UDP ports
//     ahead of the user's rules, and Apply keeps them.
//   - Bounded time. A program that does not end is killed after 30 seconds, and the error
//     says so.
//
// It also looks after the kernel's table of tracked connections: [ListTracked] shows it,
// [Tracking] sets its timeouts, [Forget] has connections decided about anew, as after a change of
// NAT, and [Trim] sees to it that no host fills it.
//
// The programs need CAP_NET_ADMIN and, unless they are iptables-nft, a lock file that they
// can write: /run/xtables.lock, or the file that XTABLES_LOCKFILE names.
//
// Sets are changed by netlink, for which the process itself needs CAP_NET_ADMIN too.
//
// The kernel and a static iptables need only these extensions of iptables:
//
//	matches: addrtype comment connlimit connmark conntrack dscp icmp iprange length limit mac mark multiport set statistic tcp ttl udp
//	targets: standard CONNMARK CT DNAT DSCP LOG MARK MASQUERADE NETMAP REDIRECT REJECT SET SNAT TCPMSS TTL
package firewall
