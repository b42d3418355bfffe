package socks

import "golang.org/x/sys/unix"

// What a peer is offered is bounded by the receive buffer of its socket. Where that is small the kernel can leave a window that the
// peer waits behind: less than a packet, or less than it has already sent. Here the window is kept at what the peer
// needs, within the memory that the direction has. docs/SOCKS.md, "A window of one packet", has how the kernel comes to such
// windows, and what was measured.
const (
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
)

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
		return int(f.widened)
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
	return f.receive*int(f.ratio) < f.needs()*wholeRatio
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
	f.ratio = int32(max(1, int64(clamp)*wholeRatio/int64(f.size)))
	late := f.window == f.needs()
	f.learnPacket(source)
	// With more than it needs, a peer sends larger packets.
	if clamp < f.window || late && f.packet > 0 {
		f.setClamp(source)
	}
}

// learnPacket finds out how large the packets are that the peer of f's source sends, or may send: while the kernel has its own limit
// of the window, f.clamp, it may have offered as many whole packets as that has room for, and the peer sends halves of the most
// that it was ever offered, not less (tcp_bound_to_half_wnd). The window becomes what the peer needs then.
func (f *flow) learnPacket(source int) {
	if f.packet == 0 {
		return
	}
	info, err := unix.GetsockoptTCPInfo(source, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return
	}
	late, packet := f.window == f.needs(), max(1, int(info.Rcv_mss))
	offered := min(f.clamp, int(info.Rcv_ssthresh)) / packet * packet
	f.packet = max(f.packet, int32(packet), int32(min(offered/2, leastWindow)))
	if late {
		f.window = f.needs()
	}
}

// setReceiveBuffer bounds what waits to be read from fd to size bytes. The kernel doubles what it is
// told (socket(7)), and counts its own bookkeeping, so that less fits. One packet always does.
func setReceiveBuffer(fd, size int) { unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size/2) }

// needs returns how many bytes the peer of f's source must be offered so that it need not wait.
func (f *flow) needs() int {
	if f.packet > 0 {
		return 2 * int(f.packet)
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
		f.clamp = clamp
		f.learnPacket(source)
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
//
// If nothing is sent to that peer it gets no room, and only the answers to keepalive probes are not heard: then it
// is not asked, until its bytes are read. It is there, and it is not what is waited for.
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
		if f.missed && !f.unasked {
			f.unasked = askWhetherThere(source, false) == nil
		}
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
	f.widened = int32(max(f.receiveSize(), int(info[toRead])+widerReceive))
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
