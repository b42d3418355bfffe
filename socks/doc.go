// Package socks is a SOCKS server for small routers, of versions 4 and 5. It lets clients
// through a firewall with CONNECT, BIND and, if Config.UDP says so, UDP ASSOCIATE, as far as
// an access list allows, and behaves as MikroTik's manual page "SOCKS" describes.
//
// Version 4 is that of the memos "SOCKS: A protocol for TCP proxy across
// firewalls" and "SOCKS 4A: A Simple Extension to SOCKS 4 Protocol" by Ying-Da
// Lee. Replies are 90 (granted) and 91 (rejected or failed); 92 and 93 are
// never sent, because the server asks no identd: the user id is only shown.
//
// Version 5 is that of RFC 1928. Destinations are IPv4 addresses and names; an IPv6 address
// gets reply 8. Replies say what happened: 1 failed, 2 not allowed (by a rule, or an address
// of this machine), 3 no route, 4 the host does not answer or the name does not exist,
// 5 refused, 6 timed out, 7 not a command of this server. The address in the reply to
// a CONNECT is that of the server's own end of the connection. A client that is refused
// before it has a method, because all slots are taken for example, gets method FF. So does one
// that does not offer the method that Config.AuthMethod asks for.
//
// Config.Version 4 serves version 4 alone: a client of version 5 gets 91, a reply of version 4.
// Config.Version 5 serves both, or version 5 alone if AuthMethod asks for a password, which
// version 4 does not have.
//
// # What it promises
//
// Nothing that a client sends after its request is lost, however the bytes are divided
// into segments. Each direction ends separately (half-close). A reset of one side resets
// the other, also when it comes behind the end of what that side sent. An urgent byte stays
// at its place in the stream, and may be in the request. A peer that vanishes without
// closing is noticed after two minutes if all that was sent to it has been acknowledged
// (keepalive), and otherwise when the kernel gives up sending it again. Tx and Rx of a
// connection are exact and current: they count the bytes that the kernel has taken for the
// other side.
//
// The server never connects to the machine that it runs on (any address of its own, 127/8,
// 0/8), to multicast or to broadcast addresses, whatever the access list says: nobody can
// use it to avoid the input firewall, or to connect it to itself. A 4a name is resolved
// first, and then each of its addresses is checked. If one does not answer, the next is
// tried. On a machine with net.ipv4.ip_nonlocal_bind=1 nobody can tell which addresses are its
// own: every request is refused there, and the log says why.
//
// # Access list
//
// Rules are tried in order and the first one that matches decides. If none matches, the
// connection is allowed. Disabled rules are ignored. The source is the client's address
// and port. For CONNECT the destination is DSTIP and DSTPORT. For BIND it is DSTIP, which
// is the peer that will call, and the port on which the server listens for that call; the
// DSTPORT of the request is not used. So the manual's rule "dst-port=1024-65535
// action=allow" lets the data connections of an active FTP server in. A BIND for anyone
// (DSTIP 0.0.0.0, which Dante's client sends) is checked twice: with 0.0.0.0 at the
// request, and with the caller's address at the call.
//
// If the list denies every address that a name could have, the name is not looked up: a
// client that may connect to nothing could otherwise send data out in the names. A name server
// on this machine, which may go on with a name when the client has left, is asked from an address of
// 127.0.0.0/8 for each client (resolve.WithClient), and so can share its places among them.
//
// A new list is also applied to connections that are already open: those that it denies
// are closed. Hits counts decisions about new connections only.
//
// # Users
//
// With AuthPassword a client of version 5 gives a name and password (RFC 1929), and learns at
// once whether they are right. An empty one, and any while there are no users, is wrong.
// Connection.UserID is the name; in the log it is cut after 64 bytes.
//
// Passwords are kept as hashes that are slow on purpose (package password). They are checked
// one at a time, beside the loop, which goes on. After a wrong one there is no check for twice
// the time that it took. A password that was right is remembered as a hash with a random key until
// the user's hash changes, so that a browser pays once for all its connections. A name that
// nobody has is checked too, against somebody's hash.
//
// A wrong password makes the next from the same address wait 1 s, each further one twice as long,
// up to 8 s; each counts for 10 minutes after the last. It counts from when it is looked at,
// so that a client that hangs up gains nothing, and is taken back if it was right. While
// an address waits, so do right passwords from there. Other addresses do not: whose passwords
// were wrong least often comes first, and if too many wait, an address that has many of them loses
// one. A check that has begun goes on when its client has left. (Who has very many addresses
// can guess from each, and delay the first login of others. Later ones are by what is remembered.)
//
// A user of one connection (only-one) who asks for another is refused (reply 2), unless the client
// has ended what it sends on the first, which then ends. A user's rate-limit holds for all of
// his connections and associations together, each direction by itself: at once he may move
// what the limit allows in a quarter of a second, at least 4096 bytes.
//
// If a user is removed, disabled or given another password, his connections end. So do those
// that a change of Version or AuthMethod would not let in.
//
// # BIND
//
// The server listens before it sends the first reply. It listens on the address from
// which the kernel would send to DSTIP, so that the peer can reach the address in the
// reply, and never on the port of the SOCKS server. For a BIND for anyone, that is the
// address of the default route or, if there is none, the address on which the client
// reached the server. Before the reply, Options.Open is asked to let that one peer in to
// that one port, which is undone when the wait ends; PID 1's firewall keeps everybody else out of
// it. The first call ends the wait: a
// caller other than DSTIP is reset, and the client gets 91 (2 in version 5). The wait also ends when the
// client closes its connection, or its half of it.
//
// # UDP ASSOCIATE
//
// The reply names an address of the server, the one on which the client reached it, and a port of
// its own for each association. Before it, Options.Open is asked to let the client in to that port,
// which is undone when the association ends. What comes there is the client's if it has the source
// address of the client's connection and, from the first datagram on, that one's source port. If
// the request has a port, and with it the address of the client or 0.0.0.0, it is that port from the
// start. Everything else is dropped.
//
// Datagrams go out through a second socket, so that what comes to the one is never taken for what
// comes to the other. A datagram that comes there is passed on, with its true source, if the client
// has sent to exactly that address and port before: so nobody is let in who was not asked, and the
// router's firewall takes it for an answer too. For each peer the access list decides as for a
// CONNECT, by the source address and port of the client's connection, and counts one hit; a peer that
// had to make room for others may count again. If the list denies a client everything, it gets no
// association (reply 2). A new list is in force for all peers at once. No datagram goes to an
// address of this machine, multicast or broadcast.
//
// Names are resolved as for CONNECT; the first address that the list allows has to do, as nobody
// says whether a datagram has arrived. One datagram waits for the lookup, others for names are
// dropped meanwhile. Fragments (FRAG other than 0) and IPv6 addresses are dropped. An error that
// ICMP reports ends nothing. A datagram that leaves the server has at most 65,507 bytes, so
// an answer of more than 65,497 does not reach the client.
//
// The association ends with the client's connection, also when the client ends only its half of it,
// and what the client sends there is not read. RouterOS documents no UDP ASSOCIATE; its type here is out.
// Dst is the peer that the client sent to last, and Tx and Rx count bytes without headers.
//
// # How it works
//
// One goroutine waits for all sockets (epoll, edge-triggered) and does everything that
// does not block, a few steps of each connection in turn. New connections and changes of others are dealt with for one client
// address after the other: an address with hundreds of them has another wait for one at a time, not for all. Bytes move from socket to socket
// by splice(2), through one pipe that all connections share: a step takes from the source
// only as much as the sink has room for, so that the pipe is empty again after it. With
// Options.SocketMemory, on a machine with little memory, slow directions are copied
// instead. An incomplete request stays in the kernel's buffer. docs/SOCKS.md has the
// measurements, and what else was tried.
//
// # Bounds
//
// max-connections counts connections in every state. When all slots are taken, a new
// connection takes that of another one: the oldest whose request is not complete, or whose
// client ended its side before it was answered, of the client address that has the most of
// these. If there is none, a client that has less than its share of the slots (as many as
// there are, divided by the number of addresses that have some) takes one of the address that
// has the most connections that wait, if that is more than its share: they wait for a name, a
// server, the firewall or a call, or for a peer to take the rest. If there is none of these either,
// it takes that established connection on which nothing has moved for longest, of the address that
// has the most of them, if that address has more slots than its share, and if nothing has moved
// there for 10 s: a browser's idle connections keep nobody out, and a running download is not ended.
// For an address that has no connection at all it need not be idle: a byte now and then on each
// connection keeps nobody out either. Within its share no address loses an established one.
// Otherwise the new one is refused, without a slot, goroutine or buffer. So who has one address
// cannot keep others out; who has many has the share of many.
//
//	complete request      10 s after the connection, however many bytes come, with all messages of
//	                      version 5 and the check of a password
//	passwords             one is checked at a time, 32 wait; 256 addresses of wrong ones are
//	                      remembered
//	answer to CONNECT     30 s, for name resolution and all addresses together
//	call for BIND         2 min after the first reply
//	silence in any state  connection-idle-timeout, both directions together
//	delivery              10 min: when both sides have ended, the connection keeps its slot and
//	                      its buffers until both have acknowledged everything, the end included
//	refused clients       32, for 5 s: those who may still take their reply, without a slot
//	accepted              64 that wait until it is the turn of their address, without a slot; the
//	                      others wait in the kernel. When those of the address that has the most
//	                      have waited for 0.2 s, its last ones are reset
//	names resolved        32 at a time, and at most 8 addresses of each tried. A client address
//	                      has no more of the 32 places than are left for others: half of all,
//	                      the next one half of the rest. A client that leaves ends its lookup,
//	                      and its place is free once that has ended; one that has only ended its
//	                      side loses the place when others wait who could have it. One question
//	                      at a time for a name. What needs none does not wait: addresses, names
//	                      that are known, and those of hosts(5), which 2 read at a time, for
//	                      different client addresses
//	names known           256, for as long as the answer says, at most 1 h; that there is no
//	                      address at most 5 min, that no server answered 10 s; until the
//	                      servers change
//	firewall opened       8 at a time, shared as the places of names are. Under PID 1 (package
//	                      daemon) these, and all that are closed, go in one change of the
//	                      firewall, and the next comes three times as long later as it took,
//	                      but at most 1 s
//	UDP ASSOCIATE         128 at once. When these are taken, a new one replaces one of the address
//	                      that has the most, if that has then no fewer than the new one's, and
//	                      else gets reply 1. Of each, in each direction 2,000 datagrams a second,
//	                      200 at once, and as many as its receive buffer holds wait; 64 peers,
//	                      those that the client has sent to or heard from last, of which 32 a
//	                      second may be new, 128 at once; 4 names a second, 16 at once, one after
//	                      the other. 4 names are known to it, for 30 s even if the answer says
//	                      less: datagrams for a name are dropped while it is asked for again
//	log                   10 lines a second, 20 at once, 128 that wait to be written; and
//	                      one for each connection when all are closed on purpose
//
// Time in which the server did not run, because its process was stopped or the machine
// stood still for more than a second, does not count: what the peers sent in that time is
// served first. Silence right after it does not count either, for three times as long as the
// stall was but at most 4 minutes: the peers may wait that long until they have sent twice
// again. (Keepalive is
// done by the kernel, which counts unanswered probes: a stall of the machine costs at most
// one.)
//
// What N connections at once can make the machine spend:
//
//	server's memory       less than 1 kB a connection, with its user id, and some 20 kB
//	                      while a name is resolved or the firewall opened, 150 kB for names
//	                      that are known; of a
//	                      UDP ASSOCIATE up to 5 kB for peers and names. 200 bytes a user beside
//	                      his name and hash; 2 MB while a password is checked (package
//	                      password), and 32 kB for those that wait
//	goroutines            none for each connection: one, 2 that read hosts(5) and resolv.conf(5)
//	                      where there are no Config.NameServers, 32 that resolve names, 8 that
//	                      open the firewall, one that checks a password, one that writes the log
//	descriptors           2 a connection, 3 a UDP ASSOCIATE, and 192 for everything else
//	pipes                 1, at most 4. Each can hold 256 kB on a machine with 32 MB and
//	                      1 MB from 128 MB on; it is empty unless a sink took less than
//	                      it had room for
//	server's buffers      32 kB in all, and 64 kB from the first UDP ASSOCIATE on
//	socket buffers        with Options.SocketMemory: that much, and when it is spent
//	                      4.5 kB a connection for bytes that wait in one direction, or
//	                      9 kB if they wait in both because neither side reads. A page
//	                      that holds two packets, one of which is gone, counts as half.
//	                      A receive buffer may be filled to 3 kB, to 8 kB if a peer sends
//	                      packets that hold few bytes, and to 16 kB where there are 2 MB
//	                      for all. It gets 8 kB more if a peer cannot be heard without them;
//	                      in all at most Options.SocketMemory again.
//	                      Without it: what net.ipv4.tcp_mem gives all sockets of the
//	                      machine together, and net.ipv4.udp_mem those of UDP ASSOCIATE. The
//	                      kernel's structures for two sockets take 8 kB more. A receive buffer
//	                      of UDP holds one datagram more than it has room for
//
// The kernel goes on sending what is left of a closed socket for minutes, in memory that no
// bound of the server counts. So no socket is closed that has something left to send, even if
// that is only its end: its peer is waited for, within the bounds above, and then it is reset.
// Such a connection is listed, and counts, until it is over. What remains of a connection then
// are the kernel's small records of its ports (TIME-WAIT, and FIN-WAIT-2 where the peer does
// not end its side), as many as net.ipv4.tcp_max_tw_buckets says, for a minute.
//
// What packets can make the kernel keep besides, on a router: docs/MEMORY.md.
//
// If accept fails (no descriptors, no memory), it is tried again after a pause of 5 ms to
// 1 s. With Options.SocketMemory, nothing is accepted either while less than a 10th of the
// machine's memory is free; below a 12th, the connections that were silent for longest of those that hold bytes are
// closed.
package socks
