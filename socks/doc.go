// Package socks is a SOCKS4 server for small routers: it lets TCP clients
// through a firewall, CONNECT and BIND, as far as an access list allows, and
// behaves as MikroTik's manual page "SOCKS" describes.
//
// The protocol is that of the memos "SOCKS: A protocol for TCP proxy across
// firewalls" and "SOCKS 4A: A Simple Extension to SOCKS 4 Protocol" by Ying-Da
// Lee. Replies are 90 (granted) and 91 (rejected or failed); 92 and 93 are
// never sent, because the server asks no identd: the user id is only shown.
//
// # What it promises
//
// Nothing that a client sends behind its request is lost, however the bytes are
// cut into segments. Both directions end on their own (half-close), a reset of
// one side is a reset of the other, an urgent byte stays in the stream. A peer that
// is gone without a word is noticed after two minutes (keepalive). Tx and Rx of a
// connection are exact and current: the bytes that the kernel took for the other side.
//
// It never connects to the machine that it runs on (any own address, 127/8,
// 0/8), to multicast or to broadcast, whatever the access list says: it is no
// way round the input firewall and no loop of itself. The addresses of a 4a
// name are judged after its resolution, each one, and the next is tried when
// one does not answer.
//
// # Access list
//
// Rules are tried in order and the first that matches decides; when none does,
// the connection is allowed; a disabled rule is as if it were not there. The
// source is the client's address and port. For CONNECT the destination is
// DSTIP and DSTPORT. For BIND it is DSTIP, who will call, and the port that the
// server listens on for the call (DSTPORT of the request is not used): that is
// how the manual's rule "dst-port=1024-65535 action=allow" lets the data
// connections of an active FTP server in. A BIND for anyone (DSTIP 0.0.0.0, as
// Dante's client asks) is judged twice, with 0.0.0.0 at the request and with
// the caller's address at the call.
//
// A name whose every address the list would deny is not looked up: a client that may
// connect to nothing could tell the world something by the names that it asks for.
//
// A changed list is applied at once to connections that are already open: what
// it denies is closed. Hits counts decisions about new connections only.
//
// # BIND
//
// The server listens before it sends the first reply, on the address that the
// kernel would use towards DSTIP, so that the reply tells an address that the
// peer can reach, and on a port other than its own. For anyone it is the address
// of the default route or, without one, the address that the client reached the
// server by. Before the reply Options.Open is asked to let that one peer in to
// that one port, which is undone when the wait ends. The first call ends the
// wait: a caller other than DSTIP gets a reset, and the client 91. A client that
// closes its connection, or its half of it, ends the wait too.
//
// # How it works
//
// One goroutine waits for all sockets (epoll, edge-triggered) and does all that
// does not wait, a few steps of each connection in turn. Bytes go from socket to
// socket by splice(2) through one pipe that all connections share: a step takes
// from the source only what the sink has room for, so that the pipe is empty
// again behind it. With Options.SocketMemory, on a machine with little memory,
// they are copied instead, but for directions that are fast. A request that is
// not complete stays in the kernel's buffer. docs/SOCKS.md tells what else was
// tried, and the figures.
//
// # Bounds
//
// max-connections counts connections in every state. When all slots are taken,
// a new connection replaces the oldest whose request is not complete; if there
// is none it gets 91 and is closed, without a slot, goroutine or buffer.
//
//	request complete      10 s after the connection, absolute
//	CONNECT answered      30 s, name resolution and all addresses together
//	BIND called           2 min after the first reply
//	silence in any state  connection-idle-timeout, both directions together
//	names resolved        8 at a time, at most 8 addresses of one tried; a client that
//	                      leaves ends its lookup, and only then is its place free
//	log                   10 lines a second, 100 at once, 128 that wait to be written
//
// Time in which the server did not run, because its process was stopped or the machine stood
// still for more than a second, counts for none of these: what the peers sent meanwhile is
// served first. (Keepalive is the kernel's: it counts probes without an answer, of which a
// stall of the machine costs one at most.)
//
// What connections can make the machine spend, N of them at once:
//
//	memory of ours        less than 1 kB a connection, its user id included, and
//	                      while a name is resolved or the firewall opened (8 at a
//	                      time) some 10 kB more
//	goroutines            none a connection: one, 8 that resolve names, 8 that
//	                      open the firewall, one that writes the log
//	descriptors           2 a connection, and 64 for all else
//	pipes                 one, 4 at most, of 256 kB each where there are 32 MB of
//	                      memory and 1 MB from 128 MB on, in what they hold; they
//	                      are empty but for what a sink refused
//	buffers of ours       32 kB in all
//	socket buffers        with Options.SocketMemory: that, and 4.5 kB a connection
//	                      when it is spent, for bytes that wait in one direction; if
//	                      they wait in both, as neither side reads, those 4.5 kB
//	                      twice. A page of two packets that is held for one of
//	                      them is counted as half. Without: what net.ipv4.tcp_mem
//	                      lets all sockets of the machine have together. The
//	                      kernel's own for two sockets come to 8 kB more
//
// A connection that is ended by the server leaves nothing behind: a side which has
// not taken all is reset.
//
// An accept that fails (no descriptors, no memory) is tried again after a pause
// of 5 ms to 1 s. With Options.SocketMemory that is so as well when less than a 10th of the
// machine's memory is free; when it is less than a 12th, the connections end that were
// silent for longest.
package socks
