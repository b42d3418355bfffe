// Package server is a DHCP server (RFC 2131): what a user sets of it, the table of leases, what is
// replied to each message, and the unprivileged process that does it all. It promises:
//   - One address is never leased to two clients at once. An address that somebody answers for by
//     ARP is not offered.
//   - What clients can make it keep is bounded: MaxLeases leases and offers, whoever asks. An offer
//     that is not taken is forgotten after half a minute at most.
//   - A client gets the address again that it had, as long as nobody else has it: by its lease, or
//     else because addresses are chosen by who asks.
//   - A reservation comes first: whoever else holds its address is refused at the next renewal.
//   - PID 1 opens the sockets. The process gets no packets but those to the server's port, and ARP.
package server
