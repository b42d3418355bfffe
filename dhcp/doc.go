// Package dhcp has what a DHCP client and a DHCP server share (RFC 2131): the message and its
// options, the packet that carries it, and the sockets that take such packets from one interface.
// It promises:
//   - Parse and ParsePacket take whatever comes from a network: they never panic, take time and
//     memory in proportion to the packet, and refuse what does not keep to its own lengths.
//   - An option that comes in pieces is whole (RFC 3396), and options in the fields of the
//     server's name and the file are options (option 52, RFC 2132 9.3).
//   - OpenUDP and OpenARP are for PID 1. What they return can be handed to a process without
//     privileges, which gets no packets but those that its filter lets pass, and cannot take the
//     filter off.
//
// A packet socket is what DHCP needs: a client has no address yet, and a server answers a client
// that cannot be reached by ARP. The kernel delivers the same packets to its own UDP too: Park
// keeps it from refusing them.
package dhcp
