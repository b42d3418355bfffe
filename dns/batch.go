package dns

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batchSize is how many queries are read, and answers sent, by one system call at most: under load
// most of the time goes into these.
const batchSize = 8

// batch reads datagrams of a socket of IPv4 with IP_PKTINFO, and answers them (recvmmsg(2),
// sendmmsg(2)).
type batch struct {
	in, out [batchSize]mmsghdr
	vectors [2 * batchSize]unix.Iovec
	names   [batchSize]unix.RawSockaddrInet4
	control [batchSize][]byte
	buffers [batchSize][]byte
	scratch [batchSize]scratch
	answers int // in out
}

// mmsghdr is struct mmsghdr of <sys/socket.h>.
type mmsghdr struct {
	unix.Msghdr
	size uint32
}

func newBatch() *batch {
	b := &batch{}
	for i := range b.in {
		b.control[i], b.buffers[i] = make([]byte, pktinfoSize), make([]byte, maxDatagram)
	}
	return b
}

// receive reads what has come, at least one datagram, and returns how many. It reads a socket that
// does not wait.
func (b *batch) receive(fd uintptr) (int, error) {
	for i := range b.in {
		m := &b.in[i]
		b.vectors[i].Base = &b.buffers[i][0]
		b.vectors[i].SetLen(maxDatagram)
		m.Name, m.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet4
		m.Iov, m.Control = &b.vectors[i], &b.control[i][0]
		m.SetIovlen(1)
		m.SetControllen(pktinfoSize)
	}
	b.answers = 0
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.in)), batchSize, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// datagram returns the i-th of those that were received, until the next call of receive: whom it is
// from, and its control message. It is nil if it was too large.
func (b *batch) datagram(i int) (message []byte, from netip.AddrPort, control []byte) {
	m := &b.in[i]
	port := (*[2]byte)(unsafe.Pointer(&b.names[i].Port)) // in network order
	from = netip.AddrPortFrom(netip.AddrFrom4(b.names[i].Addr), binary.BigEndian.Uint16(port[:]))
	if m.Flags&unix.MSG_TRUNC != 0 || m.Namelen != unix.SizeofSockaddrInet4 || int(m.Controllen) != pktinfoSize {
		return nil, from, nil
	}
	return b.buffers[i][:m.size], from, b.control[i]
}

// answer has send answer the i-th datagram, from the address that it was sent to.
func (b *batch) answer(i int, message []byte) {
	m, vector := &b.out[b.answers], &b.vectors[batchSize+b.answers]
	b.answers++
	vector.Base = &message[0]
	vector.SetLen(len(message))
	fromAsked(b.control[i])
	m.Msghdr = b.in[i].Msghdr
	m.Iov, m.Flags = vector, 0
}

// send sends the answers. One that cannot be sent is lost.
func (b *batch) send(fd uintptr) {
	for done := 0; done < b.answers; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&b.out[done])), uintptr(b.answers-done), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			done++
		default:
			done += int(n)
		}
	}
}

// pktinfoSize is the size of the control message of IP_PKTINFO.
var pktinfoSize = unix.CmsgSpace(unix.SizeofInet4Pktinfo)

// fromAsked makes of the control message of a query that of its answer (ip(7), IP_PKTINFO): from the
// address that was asked, by whichever interface the route says.
func fromAsked(control []byte) {
	clear(control[unix.CmsgLen(0):][:4]) // ipi_ifindex
}
