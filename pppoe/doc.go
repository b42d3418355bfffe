// Package pppoe is a PPPoE client: it gets a connection from a provider by PPP over Ethernet (RFC
// 2516), and keeps it. It promises:
//   - The kernel carries the data. This package speaks the control protocols alone: discovery (RFC
//     2516), LCP with its echo (RFC 1661), PAP (RFC 1334), CHAP with MD5 (RFC 1994), MS-CHAP (RFC 2433),
//     MS-CHAPv2 (RFC 2759), and IPCP (RFC 1332) with name servers (RFC 1877).
//   - The process that reads what the provider sends has no capability. PID 1 opens the sockets and
//     hands them over as descriptors: one for discovery, one for a session's control packets, one for
//     those of the session's interface.
//   - What a server says is checked before anybody is told of it: a Link has only addresses that hosts
//     can have.
//   - It never gives up. It dials again after a pause that grows up to a minute, up to five minutes
//     when the password was refused, and at once when the link comes up.
//   - Whoever sends packets on the link costs no more than reading them. A negotiation has a bounded
//     number of requests and a bounded time; a packet is answered by at most one of its size.
//   - A server that is silent is noticed by echoes that are not answered. Time in which nobody ran does
//     not count.
package pppoe
