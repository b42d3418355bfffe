package socks

import (
	"cmp"
	"errors"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Socket memory is divided by what connections can use. A new connection gets little. A
// direction whose bytes move gets more of what is left. It gives that back when nothing has
// moved for a while and its buffers are empty: bytes that wait for a slow receiver stay
// where they are, so nothing can be taken from a connection that is stuck. The kernel
// enforces the limits: it drops a packet that does not fit the receive buffer, and the peer
// sends it again.
const (
	// firstPart: a new connection gets 1/firstPart of what is left.
	firstPart = 64
	// leastMemory is what every connection gets, in bytes, even if nothing is left.
	leastMemory = 4608
	// leastWindow is the window that goes with leastMemory: one packet, the largest that Ethernet takes.
	leastWindow = 1460
	// smallPacket is how many bytes the packets have that a peer sends whose windows are not scaled. It is
	// offered two of them, as it sends halves of the most that it was ever offered. Packets of that size
	// take the least memory for each byte. Two of them are more than the least window that the kernel
	// takes, 1152, so that one which the kernel has set differs.
	smallPacket = 580
	// leastReceive is the smallest receive buffer, in bytes: two packets of smallPacket bytes take 2.4 kB of
	// it. crampedReceive is that of a socket of which the kernel takes too little for data, and
	// roomyReceive the smallest where there are at least roomyMemory bytes for all sockets: it holds what
	// several packets bring at once, as behind a stall. A peer whose bytes find no room is not heard either
	// until its timer is over: what it was offered is taken back, so that its acknowledgements are behind
	// the window. docs/SOCKS.md, "A window of one packet", has the rest.
	leastReceive   = 3072
	crampedReceive = 8 << 10
	roomyReceive   = 16 << 10
	roomyMemory    = 2 << 20
	// widerReceive is how much room a receive buffer gets beside what it holds, in bytes, if the peer has sent more and
	// waits to be heard: see lookForMissed. Linux acknowledges up to 1 kB behind the window
	// (tcp_acceptable_seq), and an eighth of the room is taken for data at least.
	widerReceive = 8 << 10
	// offeringReceive is the size of a receive buffer of which the kernel takes too little for data, from
	// just before a read to just behind it, in bytes: then it offers what the peer needs. It is enough if
	// the kernel takes a 32nd.
	offeringReceive = 64 << 10
	// wholeRatio is the ratio of a buffer of which all is for data: the kernel has it in 256ths, too.
	wholeRatio = 256

	// morePart: a direction that can use more gets 1/morePart of what is left.
	morePart = 4
	// mostMemory is the most that a direction has, in bytes. Half of it is for bytes that
	// wait to be read, and packets fill only half of that: a window of some 128 kB.
	mostMemory = 512 << 10
	// A direction can use more if it has moved as much as its memory within growTime.
	growTime = 2 * time.Second
	// anyPart: 1/anyPart of all the memory is for every connection. The rest is for fast
	// directions, which have moved fastSize bytes within growTime: bytes that wait for a
	// slow receiver must not get it. The memory of a fast direction counts against that rest
	// alone, if it fits there, so that a connection that comes later can become fast too.
	anyPart  = 3
	fastSize = 1 << 20
	// quietTime is how often the loop looks for directions that are quiet.
	quietTime = time.Second
)

// The kernel lets each socket have one packet to read and one to send whatever its limits
// are (tcp_data_queue and tcp_wmem_schedule in net/ipv4). So 500 connections that are stuck
// in both directions can hold more than a machine with 32 MB has. To keep some free:
const (
	// collectPart: with less than 1/collectPart, Go's garbage is collected and returned, at most
	// each collectPause. By itself Go keeps up to 1 MB of it, and returns it half a minute later.
	collectPart  = 6
	collectPause = 5 * time.Second
	// tightPart: with less than 1/tightPart of all memory free, nothing is accepted.
	tightPart = 10
	// shortPart: with less than 1/shortPart, the connections that were silent for longest
	// are closed,
	shortPart = 12
	// mostClosed of them in each turn of the loop, if they hold more than leastHeld bytes or take more than leastTaken
	// for them, which is more than the small packets of who talks. The others would give nearly nothing back: it is
	// not they who have the memory. If there are none of the others either, the loop looks again
	// after relievePause.
	mostClosed   = 8
	leastHeld    = leastWindow
	leastTaken   = 8 << 10
	relievePause = time.Second
)

var (
	errTight = errors.New("memory is short")
	errShort = errors.New("memory is short, and no connection was silent for longer")
)

// memoryBelow reports whether less than 1/part of the machine's memory is free. Where socket
// memory is not bounded, it never is.
func (s *Server) memoryBelow(part uint64) bool {
	if s.socketMemory == 0 {
		return false
	}
	free, all := s.machineMemory()
	return free < all/part
}

// relieveMemory closes connections if the machine's memory is short.
func (s *Server) relieveMemory() {
	if s.socketMemory == 0 {
		return
	}
	// Asked for once: that is a system call in each turn of the loop.
	free, all := s.machineMemory()
	if s.collectAt <= s.now && free < all/collectPart {
		s.collectAt = s.now + collectPause
		s.running.Go(debug.FreeOSMemory)
	}
	if s.relieveAt > s.now || free >= all/shortPart {
		return
	}
	silent := slices.SortedFunc(maps.Values(s.conns), func(a, b *conn) int { return cmp.Compare(a.last, b.last) })
	closed := 0
	for _, c := range silent {
		if !c.holdsMemory() {
			continue
		}
		s.end(c, errShort)
		if closed++; closed == mostClosed || !s.memoryBelow(shortPart) {
			return
		}
	}
	if closed == 0 {
		s.relieveAt = s.now + relievePause // others have the memory
	}
}

// holdsMemory reports whether the sockets of c hold more than leastHeld bytes, or packets that take more than
// leastTaken: of pieces of one byte, or behind a hole, there are few bytes to read.
func (c *conn) holdsMemory() bool {
	bytes, taken := 0, 0
	for _, fd := range [...]int{c.client, c.remote} {
		if fd != none {
			bytes += arrived(fd) + outstanding(fd)
			taken += held(fd)
		}
	}
	if u := c.udp; u != nil {
		taken += held(u.client.fd) + held(u.peers.fd)
	}
	return bytes > leastHeld || taken > leastTaken
}

// left returns how much is left of the part for fast directions (apart), or of that for all.
func (s *Server) left(apart bool) int {
	forAny := s.socketMemory / anyPart
	if apart {
		return s.socketMemory - forAny - s.memoryFast
	}
	return forAny - s.memoryAny
}

// account returns the sum in which the memory of f is counted.
func (s *Server) account(f *flow) *int {
	if f.apart {
		return &s.memoryFast
	}
	return &s.memoryAny
}

// giveMemory gives c its first part of the memory for socket buffers.
func (s *Server) giveMemory(c *conn) {
	if s.socketMemory == 0 {
		return
	}
	c.memory = max(s.left(false)/firstPart, leastMemory)
	s.memoryAny += c.memory
}

// takeMemory takes back all that c has.
func (s *Server) takeMemory(c *conn) {
	s.narrow(&c.tx)
	s.narrow(&c.rx)
	s.memoryAny -= c.memory
	*s.account(&c.tx) -= c.tx.memory
	*s.account(&c.rx) -= c.rx.memory
}

// grow gives f more memory, if f can use it and there is some. It is called when the sink
// has taken bytes.
func (s *Server) grow(c *conn, f *flow, source, sink int) {
	if s.socketMemory == 0 {
		return
	}
	if s.now-f.since > growTime {
		f.since, f.before = s.now, f.moved
		return
	}
	has, moved := c.memory+f.memory, f.moved-f.before
	if moved < uint64(has) {
		return
	}
	fast, apart, more := f.fast || moved >= fastSize, f.apart, s.left(f.apart)/morePart
	if left := s.left(true); fast && !apart && left >= f.memory {
		// What it has counts against the other part from now on.
		apart, more = true, min(left/morePart, left-f.memory)
	}
	more = min(more, mostMemory-has)
	if more < has/4 {
		more = 0 // not worth the system calls
	}
	if more == 0 && fast == f.fast && apart == f.apart {
		return
	}
	*s.account(f) -= f.memory
	f.since, f.before, f.fast, f.apart = s.now, f.moved, fast, apart
	f.memory += more
	*s.account(f) += f.memory
	s.limitSource(c, source, f)
	c.limitSink(sink, f)
	s.checkAt = min(s.checkAt, s.now+quietTime)
}

// shrink takes back the memory that grow gave f, if nothing has moved since the last look
// and its buffers are empty.
func (s *Server) shrink(c *conn, f *flow, source, sink int) {
	if f.memory == 0 && !f.fast {
		return
	}
	s.checkAt = min(s.checkAt, s.now+quietTime)
	if f.looked != f.moved {
		f.looked = f.moved
		return
	}
	for fd, request := range map[int]uint{source: unix.SIOCINQ, sink: unix.SIOCOUTQ} {
		if n, err := unix.IoctlGetInt(fd, request); n > 0 || err != nil {
			return
		}
	}
	*s.account(f) -= f.memory
	f.memory, f.fast, f.apart = 0, false, false
	s.limitSource(c, source, f)
	c.limitSink(sink, f)
}

// limitBuffers bounds what the kernel holds for a socket of c before it is connected to
// the other side.
func (s *Server) limitBuffers(c *conn, fd int) {
	source, sink := &c.rx, &c.tx
	if fd == c.client {
		source, sink = sink, source
	}
	s.limitSource(c, fd, source)
	c.limitSink(fd, sink)
}

// leastReceive returns the size of the smallest receive buffer of c, in bytes. Datagrams that find no
// room are lost as on any network.
func (s *Server) leastReceive(c *conn) int {
	if s.socketMemory >= roomyMemory && c.udp == nil {
		return roomyReceive
	}
	return leastReceive
}

// limitSource bounds what waits to be read at the source of f, a socket of c. If the
// receiver is slow, bytes wait there and at the sink: each gets half of the memory.
func (s *Server) limitSource(c *conn, fd int, f *flow) {
	if c.memory == 0 {
		return
	}
	if f.window > 0 {
		f.learn(fd)
	}
	size := (c.memory + f.memory) / 2
	f.receive = max(size, s.leastReceive(c))
	s.narrow(f)
	f.size = 0 // fd may be new: a UDP ASSOCIATE has two
	f.resize(fd)
	// The window stays what it was at the start of the connection unless it is set too
	// (tcp(7)). And the kernel's least buffer is larger than leastMemory's part.
	f.window = size
	if f.memory > 0 && f.packet > 0 {
		f.packet = leastWindow // from now on
	}
	if c.memory == leastMemory && f.memory == 0 {
		f.window = f.needs()
	}
	f.setClamp(fd)
}

func (f *flow) setClamp(source int) {
	unix.SetsockoptInt(source, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP, f.window)
	f.clamp = f.window
}

// receiveSize returns the size that the receive buffer of f's source is to have, in bytes.
func (f *flow) receiveSize() int {
	if f.widened > 0 {
		return f.widened
	}
	// Of what is not measured yet the kernel takes a quarter, and of small packets that wait it makes larger ones. The
	// first packets of many that come at once are not to take more.
	if f.cramped() && (f.ratio > 0 || !f.full && f.moved > 0) {
		return max(f.receive, crampedReceive)
	}
	return f.receive
}

// cramped reports whether the kernel takes too little of f.receive bytes for data, as far as is known. Where
// windows are not scaled what it takes of the least buffer before it has measured a packet is enough for a small one.
// And of a larger buffer it would offer more before that is learned, and the peer would send larger packets.
func (f *flow) cramped() bool {
	if f.ratio == 0 {
		return f.packet == 0
	}
	return f.receive*f.ratio < f.needs()*wholeRatio
}

// resize gives the receive buffer of f's source its size.
func (f *flow) resize(source int) {
	if size := f.receiveSize(); size != f.size {
		f.size = size
		setReceiveBuffer(source, size)
	}
}

// learn finds out how much of the receive buffer of f's source the kernel takes for data, and adjusts the limit of the
// window: the kernel sets that to this part when it has measured a packet. If it is left below a packet, the window
// can no longer grow to one (tcp_clamp_window), and is not offered again when it has doubled.
func (f *flow) learn(source int) {
	clamp, err := unix.GetsockoptInt(source, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP)
	if err != nil || clamp == f.clamp {
		return
	}
	f.clamp = clamp
	f.ratio = max(1, int(int64(clamp)*wholeRatio/int64(f.size)))
	late := f.window == f.needs()
	if f.packet > 0 {
		f.packet = max(f.packet, largestPacket(source))
	}
	if late {
		f.window = f.needs()
	}
	// With more than it needs, a peer sends larger packets.
	if clamp < f.window || late && f.packet > 0 {
		f.setClamp(source)
	}
}

// setReceiveBuffer bounds what waits to be read from fd to size bytes. The kernel doubles what it is
// told (socket(7)), and counts its own bookkeeping, so that less fits. One packet always does.
func setReceiveBuffer(fd, size int) { unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/2) }

// needs returns how many bytes the peer of f's source must be offered so that it need not wait.
func (f *flow) needs() int {
	if f.packet > 0 {
		return 2 * f.packet
	}
	return leastWindow
}

// receiveWindow is receive of bytes that f's source has, or discards them (MSG_TRUNC). It sees to it that the peer
// is then offered what it needs.
func (s *Server) receiveWindow(f *flow, source int, p []byte, flags int) (int, error) {
	if f.window == 0 || f.fast {
		return receive(source, p, flags)
	}
	f.learn(source)
	f.missed = false
	s.narrow(f)
	f.resize(source) // before the read: what is offered then is to fit
	if !f.cramped() {
		return receive(source, p, flags)
	}
	setReceiveBuffer(source, offeringReceive)
	n, err := receive(source, p, flags)
	f.endOffer(source)
	return n, err
}

// endOffer gives the receive buffer of f's source its size again. A packet that came meanwhile was measured by the
// large buffer, and says nothing of the other: with what is left of that, a cramped buffer would look roomy.
func (f *flow) endOffer(source int) {
	setReceiveBuffer(source, f.size)
	clamp, err := unix.GetsockoptInt(source, unix.IPPROTO_TCP, unix.TCP_WINDOW_CLAMP)
	if err == nil && clamp != f.clamp {
		f.setClamp(source)
	}
}

// lookForMissed finds out whether the peer of f's source must be heard, which waits for f's sink. It is called when
// that begins, and when packets came to the source since.
//
// A packet that was offered room and finds none is dropped, and all that was offered is taken back. What the peer
// has sent beyond is behind the window then, and so are its acknowledgements, which the kernel drops, too: what goes
// to that peer waits until one of its timers is over, fills the buffers of the other direction, and has the
// other peer wait in the same way. Each wait doubles the next of both, up to two minutes. With room for what the
// peer has sent its acknowledgements are taken, and it stops in order.
func (s *Server) lookForMissed(f *flow, source int) {
	if f.window == 0 || f.fast {
		return
	}
	if !f.missed {
		info, errno := memoryOf(source)
		if errno != 0 || info[drops] == f.drops {
			return
		}
		f.drops = info[drops]
		// The kernel counts what came twice, too.
		tcp, err := unix.GetsockoptTCPInfo(source, unix.IPPROTO_TCP, unix.TCP_INFO)
		f.missed = err == nil && tcp.Rcv_wnd == 0
	}
	if f.missed && outstanding(source) > 0 {
		s.widen(f, source)
	}
}

// widen makes the receive buffer of f's source larger than what it holds, until that is read, if there is memory for
// it: all slow receivers' sources together would take too much, so it is for those that are sent something. The room
// of all that are wider is no more than the memory for buffers, whoever fills it later, and one always may be.
func (s *Server) widen(f *flow, source int) {
	if f.widened > 0 || s.wider*widerReceive >= s.socketMemory || s.memoryBelow(collectPart) {
		return
	}
	info, errno := memoryOf(source)
	if errno != 0 {
		return
	}
	f.learn(source)
	f.widened = max(f.receiveSize(), int(info[toRead])+widerReceive)
	s.wider++
	f.resize(source)
}

// narrow undoes widen; resize has the kernel know.
func (s *Server) narrow(f *flow) {
	if f.widened > 0 {
		f.widened = 0
		s.wider--
	}
}

// largestPacket returns how many bytes packets have that come at fd, by the kernel's estimate.
func largestPacket(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return int(info.Rcv_mss)
}

// limitSink bounds what waits to be sent at the sink of f, a socket of c.
func (c *conn) limitSink(fd int, f *flow) {
	if c.memory == 0 {
		return
	}
	size := (c.memory + f.memory) / 2
	if f.fast {
		// It is spliced. The kernel then counts the bytes that wait and not the pages that
		// hold them, which mostly have two packets each.
		size = size * 2 / 3
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, size/2)
	// What waits for the receiver's window; the kernel's least buffer is larger here too.
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, size/2)
}
