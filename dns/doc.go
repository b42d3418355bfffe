// Package dns is a DNS server for the LAN: it forwards questions to other name servers, caches the
// answers (RFC 1034, RFC 2308), and answers by itself for names of the configuration and of hosts that
// have a lease.
//
// # What it promises
//
// An answer is taken only from the server that was asked, to a new port, with the same random id and
// question (RFC 5452). The same question of several clients is asked once, also where they ask for
// aliases of the configuration that lead to one name. To be the same, questions have name, type and
// class in common, and what the answer depends on: EDNS, DO, CD and RD, which makes 12 forms of one at
// most. A server that is silent costs half a second; time in which the machine stood still is not
// counted. A new configuration holds for those too who wait: what servers say that are gone does not
// reach them. The cache has Config.CacheSize; questions that wait, TCP connections, large answers and questions to further
// servers are bounded in number, and one client cannot have all of them. SOCKS clients, for which package socks
// asks, come from an address of 127.0.0.0/8 each (resolve.WithClient).
//
// # How it works
//
// Messages are not decoded into records, as package resolve does by
// golang.org/x/net/dns/dnsmessage. A question is asked upstream as a new message, without the
// EDNS options of the client, since these are between two neighbours only (RFC 6891, section 6.1.1);
// so a cached answer suits everybody. Of the answer only the id, the letters of the question and the
// TTLs are rewritten: record types that nobody has heard of pass.
//
// The server is a process without privileges. PID 1 opens its sockets (Listen).
package dns
