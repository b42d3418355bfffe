// Package dns is a DNS server for the LAN: it forwards questions to other name servers, caches the
// answers (RFC 1034, RFC 2308), and answers by itself for names of the configuration and of hosts that
// have a lease of the DHCP server.
//
// Messages are not decoded into records. A question is asked upstream as a new message, without the
// EDNS options of the client, since these are between two neighbours only (RFC 6891, section 6.1.1);
// so a cached answer suits everybody. Of the answer only the id, the letters of the question and the
// TTLs are rewritten: record types that nobody has heard of pass.
//
// The server is a process without privileges. PID 1 opens its sockets (Listen).
package dns
