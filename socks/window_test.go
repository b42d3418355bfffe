package socks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// rawPeer is a TCP end behind a TUN device that sends what a test says, whatever it has been offered, and
// sees what it is offered. It takes one connection and everything that comes on it.
type rawPeer struct {
	t      *testing.T
	device *os.File
	at     netip.AddrPort

	mu   sync.Mutex
	from netip.AddrPort // the other end
	next uint32         // what it sends next
	got  uint32         // what it has got
	// acknowledged is what the other end has got, window what it offered from there on, and most the most that it
	// ever offered.
	acknowledged, window, most uint32
	changed                    chan struct{}
}

const (
	tcpFlagEnd, tcpFlagSyn, tcpFlagPush, tcpFlagAck = 1, 2, 8, 16

	firstSequence = 1001

	headers = 40 // of IPv4 and TCP, without options
)

// newRawPeer returns a peer at 198.18.0.2 (RFC 2544).
func newRawPeer(t *testing.T) *rawPeer {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	require.NoError(t, err)
	request := struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}{flags: unix.IFF_TUN | unix.IFF_NO_PI}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request)))
	require.Zero(t, errno)
	require.NoError(t, unix.SetNonblock(fd, true)) // so that Close ends a read
	p := &rawPeer{
		t: t, device: os.NewFile(uintptr(fd), "tun"), at: netip.MustParseAddrPort("198.18.0.2:80"),
		next: firstSequence - 1, changed: make(chan struct{}, 1),
	}
	name := unix.ByteSliceToString(request.name[:])
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader("addr add 198.18.0.1/30 dev " + name + "\nlink set " + name + " up\n")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var running sync.WaitGroup
	running.Go(p.run)
	t.Cleanup(func() {
		p.device.Close()
		running.Wait()
	})
	return p
}

// run takes what the device has.
func (p *rawPeer) run() {
	b := make([]byte, 2048)
	for {
		n, err := p.device.Read(b)
		if err != nil {
			return // closed
		}
		if packet := b[:n]; n >= headers && packet[0] == 0x45 && packet[9] == unix.IPPROTO_TCP {
			p.take(packet[:binary.BigEndian.Uint16(packet[2:])])
		}
	}
}

func (p *rawPeer) take(packet []byte) {
	tcp := packet[20:]
	flags, data := tcp[13], uint32(len(tcp))-uint32(tcp[12]>>4)*4
	p.mu.Lock()
	defer p.mu.Unlock()
	source, _ := netip.AddrFromSlice(packet[12:16])
	from, sequence := netip.AddrPortFrom(source, binary.BigEndian.Uint16(tcp)), binary.BigEndian.Uint32(tcp[4:])
	switch {
	case flags&tcpFlagSyn != 0 && !p.from.IsValid():
		p.from, p.got = from, sequence+1
		p.write(tcpFlagSyn|tcpFlagAck, []byte{2, 4, 1460 >> 8, 1460 & 0xff}, nil)
		p.next++
		return
	case from != p.from || flags&tcpFlagSyn != 0:
		return // of a connection of another test
	case sequence == p.got:
		p.got += data + uint32(flags&tcpFlagEnd)
	}
	p.acknowledged, p.window = binary.BigEndian.Uint32(tcp[8:]), uint32(binary.BigEndian.Uint16(tcp[14:]))
	p.most = max(p.most, p.window)
	if data > 0 || flags&tcpFlagEnd != 0 {
		p.write(tcpFlagAck, nil, nil)
	}
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// packet is how many bytes the packets have that Linux would send: halves of the most that it was ever offered
// (tcp_bound_to_half_wnd).
func (p *rawPeer) packet() uint32 { return min(max(smallPacket, p.offered()/2), leastWindow) }

// offered returns the most that it was ever offered.
func (p *rawPeer) offered() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.most
}

// send sends a packet, whether there is room for it or not.
func (p *rawPeer) send(data string, flags uint8) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.write(tcpFlagAck|flags, nil, []byte(data))
	p.next += uint32(len(data))
}

func (p *rawPeer) write(flags uint8, options, data []byte) {
	size := headers + len(options) + len(data)
	b := make([]byte, headers, size)
	b[0], b[8], b[9] = 0x45, 64, unix.IPPROTO_TCP
	binary.BigEndian.PutUint16(b[2:], uint16(size))
	copy(b[12:], p.at.Addr().AsSlice())
	copy(b[16:], p.from.Addr().AsSlice())
	binary.BigEndian.PutUint16(b[10:], ^sum(0, b[:20]))
	tcp := b[20:]
	binary.BigEndian.PutUint16(tcp, p.at.Port())
	binary.BigEndian.PutUint16(tcp[2:], p.from.Port())
	binary.BigEndian.PutUint32(tcp[4:], p.next)
	binary.BigEndian.PutUint32(tcp[8:], p.got)
	tcp[12], tcp[13] = uint8(20+len(options))/4<<4, flags
	binary.BigEndian.PutUint16(tcp[14:], 64<<10-1)
	b = append(append(b, options...), data...)
	pseudo := append(b[12:20:20], 0, unix.IPPROTO_TCP, uint8((size-20)>>8), uint8(size-20))
	binary.BigEndian.PutUint16(tcp[16:], ^sum(sum(0, pseudo), b[20:]))
	if _, err := p.device.Write(b); !errors.Is(err, os.ErrClosed) {
		assert.NoError(p.t, err)
	}
}

// sum adds b to a sum of the Internet's kind (RFC 1071).
func sum(s uint16, b []byte) uint16 {
	all := uint32(s)
	for ; len(b) > 1; b = b[2:] {
		all += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) > 0 {
		all += uint32(b[0]) << 8
	}
	for all > 0xffff {
		all = all>>16 + all&0xffff
	}
	return uint16(all)
}

// awaitWindow waits until all has arrived that was sent, and as much may be sent.
func (p *rawPeer) awaitWindow(least uint32) {
	p.t.Helper()
	for over := time.After(patience); ; {
		p.mu.Lock()
		arrived, window := p.acknowledged == p.next, p.window
		p.mu.Unlock()
		if arrived && window >= least {
			return
		}
		select {
		case <-p.changed:
		case <-over:
			require.Fail(p.t, "the peer may not send", "all arrived: %t; the window is %d and not %d", arrived, window, least)
		}
	}
}

// TestWindowOfAPacket has a server send parts of packets, as one does behind lost packets or when what
// it was offered has room for a part only. Behind each it must be offered room for a whole packet once
// the client has taken all: a server that is offered less waits for its timer.
func TestWindowOfAPacket(t *testing.T) {
	// Linux and others send packets of half the largest window that they were offered.
	const whole = smallPacket
	for name, parts := range map[string][]int{
		"a part behind a packet":               {whole, 388},
		"more parts":                           {whole, 388, 100, 242, 1, 600},
		"parts of one size, and a larger one":  {whole, 148, 148, 160},
		"larger ones, none of which is whole":  {100, 100, 110, 120, 150, 190, 250, 320, 400, 500},
		"parts of a common size, and a packet": {600, 600, whole, whole, 300},
	} {
		for _, pipes := range []int{maxPipes, 0} { // other connections may have all pipes
			t.Run(fmt.Sprintf("%s, %d pipes", name, pipes), func(t *testing.T) {
				p := newRawPeer(t)
				u := start(t, func(o *options) { o.SocketMemory = 4096 })
				u.Server.mu.Lock()
				u.pipesMade = maxPipes - pipes
				u.Server.mu.Unlock()
				near := dial(t, u.addr)
				near.send(ask(commandConnect, p.at.String(), "user"))
				near.reply(replyGranted)
				for _, part := range parts {
					p.send(strings.Repeat("x", part), 0)
					near.receive(part)
					p.awaitWindow(whole)
				}
			})
		}
	}
}

// TestWindowOfTheLargeBuffer has a packet come while the receive buffer is large, for a read. The kernel measures it
// by that buffer, but a whole packet must be offered by the smaller one that follows.
func TestWindowOfTheLargeBuffer(t *testing.T) {
	p := newRawPeer(t)
	u := start(t, func(o *options) { o.SocketMemory = 4096 })
	near := dial(t, u.addr)
	near.send(ask(commandConnect, p.at.String(), "user"))
	near.reply(replyGranted)
	send := func(part int) {
		p.send(strings.Repeat("x", part), 0)
		near.receive(part)
		p.awaitWindow(smallPacket)
	}
	for _, part := range []int{100, 100} { // from now on each that is larger is measured
		send(part)
	}
	remote := u.firstConn().remote
	for _, part := range []int{110, 140, 170, 200} {
		u.Server.mu.Lock()
		f := &u.conns[1].rx
		f.ratio = 1 // as of packets before
		setReceiveBuffer(remote, offeringReceive)
		p.send(strings.Repeat("x", part), 0)
		assert.Eventually(t, func() bool { return arrived(remote) == part }, patience, 100*time.Microsecond)
		f.endOffer(remote)
		u.Server.mu.Unlock()
		near.receive(part)
		for range 2 * smallPacket / 100 { // what was offered by the large buffer
			send(100)
		}
	}
}

// TestMostThatWasOffered has a server send packets while the receive buffer is large for a read: each is larger than those before,
// so that the kernel sets the limit of the window anew, and may offer more than the two small packets. The server
// sends halves of that from then on, and must always be offered one once all is read.
func TestMostThatWasOffered(t *testing.T) {
	p := newRawPeer(t)
	u := start(t, func(o *options) { o.SocketMemory = 4096 })
	near := dial(t, u.addr)
	near.send(ask(commandConnect, p.at.String(), "user"))
	near.reply(replyGranted)
	send := func(part int) {
		t.Helper()
		p.send(strings.Repeat("x", part), 0)
		near.receive(part)
		p.awaitWindow(p.packet())
	}
	send(smallPacket)
	remote := u.firstConn().remote
	for _, part := range []int{640, 820, 1000, 1160} {
		u.Server.mu.Lock()
		f := &u.conns[1].rx
		setReceiveBuffer(remote, offeringReceive)
		for range 2 { // two, so that they are acknowledged at once
			p.send(strings.Repeat("x", part), 0)
		}
		assert.Eventually(t, func() bool { return arrived(remote) == 2*part }, patience, 100*time.Microsecond)
		f.endOffer(remote)
		u.Server.mu.Unlock()
		near.receive(2 * part)
		for n := uint32(0); n < p.offered()+leastWindow; n += 600 { // parts of packets, over all that was offered
			send(600)
		}
	}
	assert.Greater(t, p.offered(), uint32(2*smallPacket))
}

// TestWindowBehindAFullBuffer has a server send parts of packets to a client that does not read, until
// more come than there is room for. When the client reads again and the server has sent again what found
// no room, the server must be offered room for a packet.
func TestWindowBehindAFullBuffer(t *testing.T) {
	const part = 160
	p := newRawPeer(t)
	u := start(t, func(o *options) { o.SocketMemory = 4096 })
	near := u.fill(p, part)
	// The kernel takes each as it is sent: it drops what finds no room.
	for range 20 {
		p.send(strings.Repeat("x", part), 0)
	}
	go io.Copy(io.Discard, near)
	require.Eventually(t, func() bool { return p.sendAgain(part) }, patience, 10*time.Millisecond)
	p.awaitWindow(smallPacket)
}

// TestHeardBehindAFullBuffer has a server send more to a client that does not read than there is room for, as it was
// offered. What the client says meanwhile the server acknowledges, behind all that it has sent. It must be heard,
// before it sends again what found no room: it does so after two minutes, if it had to do so often before.
func TestHeardBehindAFullBuffer(t *testing.T) {
	const part = 1000
	p := newRawPeer(t)
	// Of the first connections a peer is offered 64 kB before the buffer is bounded.
	u := start(t, func(o *options) { o.SocketMemory = 1 << 20 })
	near := u.fill(p, part)
	remote := u.firstConn().remote
	for before := dropped(t, remote); dropped(t, remote) == before; {
		p.send(strings.Repeat("x", part), 0)
		require.Eventually(t, func() bool { return p.arrived() || dropped(t, remote) > before }, patience, 100*time.Microsecond)
	}
	// Its answers to keepalive probes would not count either, which ended the connection after two minutes.
	asked := func(want int) func() bool {
		return func() bool { return option(t, remote, unix.SOL_SOCKET, unix.SO_KEEPALIVE) == want }
	}
	require.Eventually(t, asked(0), patience, 10*time.Millisecond, "the server is still asked whether it is there")
	full, all := held(remote), p.heard()
	for _, said := range []string{"one", "two"} {
		near.send(said)
		all += uint32(len(said))
		require.Eventually(t, func() bool {
			return p.heard() == all && outstanding(remote) == 0
		}, patience, 10*time.Millisecond, "%q: the server's acknowledgement does not count", said)
	}
	// What found no room has room now, and what is behind that has none.
	require.Eventually(t, func() bool { return p.sendAgain(part) }, patience, 10*time.Millisecond)
	assert.LessOrEqual(t, held(remote), full+2*widerReceive)
	go io.Copy(io.Discard, near)
	p.awaitWindow(smallPacket)
	require.Eventually(t, asked(1), patience, 10*time.Millisecond, "the server is not asked any more whether it is there")
}

// TestWiderBuffer has a direction get more memory while its buffer is wider, as when a pipe is emptied whose bytes
// make it a fast one: nothing looks at the buffer's size when it is read from then on. And those that are wider
// together have a bound, of which nothing is left taken behind a connection's end.
func TestWiderBuffer(t *testing.T) {
	p := newRawPeer(t)
	u := start(t, func(o *options) { o.SocketMemory = 4096 }) // room for one
	near := dial(t, u.addr)
	near.send(ask(commandConnect, p.at.String(), "user"))
	near.reply(replyGranted)
	size := func(fd int) int { return option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF) }
	func() {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		c := u.conns[1]
		u.widen(&c.rx, c.remote)
		assert.Equal(t, widerReceive, size(c.remote))
		before := size(c.client)
		u.widen(&c.tx, c.client)
		assert.Equal(t, before, size(c.client), "one more than there is room for")
		c.rx.fast, c.rx.memory = true, mostMemory/2
		u.limitSource(c, c.remote, &c.rx)
		assert.Equal(t, (c.memory+mostMemory/2)/2, size(c.remote))
		c.rx.fast, c.rx.memory = false, 0 // it was never counted
		u.limitSource(c, c.remote, &c.rx)
		u.widen(&c.tx, c.client)
		assert.Equal(t, widerReceive, size(c.client), "it has what the other gave back")
	}()
	require.NoError(t, near.SetLinger(0)) // a reset: both sides end at once
	near.Close()
	require.Eventually(t, func() bool {
		u.Server.mu.Lock()
		defer u.Server.mu.Unlock()
		return len(u.conns) == 0
	}, patience, 10*time.Millisecond)
	assert.Zero(t, u.wider)
}

// dropped returns how many packets the kernel has dropped at a socket.
func dropped(t *testing.T, fd int) uint32 {
	info, errno := memoryOf(fd)
	assert.Zero(t, errno)
	return info[drops]
}

// firstConn returns the first connection as it is now.
func (u *setup) firstConn() conn {
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	return *u.conns[1]
}

// fill connects a client that does not read to p, which sends it parts of packets until they wait for it in the
// receive buffer.
func (u *setup) fill(p *rawPeer, part int) client {
	t := p.t
	small := part - 12
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			assert.NoError(t, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10)) // little fills it
		})
	}}
	c, err := d.Dial("tcp4", u.addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	near := client{c.(*net.TCPConn), t}
	near.send(ask(commandConnect, p.at.String(), "user"))
	near.reply(replyGranted)
	p.awaitWindow(smallPacket)
	isFull := func() bool { return u.firstConn().rx.full }
	for sent := 0; ; {
		size := part
		if sent < 2*small {
			size = small
		}
		p.send(strings.Repeat("x", size), 0)
		sent += size
		full := false
		require.Eventually(t, func() bool {
			full = isFull()
			return full || p.arrived()
		}, patience, 100*time.Microsecond)
		if full {
			return near
		}
	}
}

// heard returns how far it has heard the other end.
func (p *rawPeer) heard() uint32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got
}

// arrived says whether all has that was sent.
func (p *rawPeer) arrived() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acknowledged == p.next
}

// sendAgain sends again so many bytes of what has not arrived, as at a timer, and says whether all has.
func (p *rawPeer) sendAgain(part int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.next
	if p.acknowledged == all {
		return true
	}
	p.next = p.acknowledged
	p.write(tcpFlagAck, nil, []byte(strings.Repeat("x", part)))
	p.next = all
	return false
}
