// Package ping does a ping (ICMP echo, RFC 792) and a traceroute, and has the unprivileged
// process in which they run. PID 1 opens the socket, by Open, and gives it to the process
// with a Job.
//
// It promises:
//   - The socket is a ping socket of Linux (icmp(7)), which can only send echo requests.
//     The kernel sets their identifier, which is the socket's own, checks what comes in,
//     and passes on only the answers to these requests and the errors about them.
//   - An answer counts only if it comes from the host that was asked and returns the data
//     that was sent, which nobody can guess.
//   - However long it runs, it holds one packet each way. It waits for one answer at a
//     time, no longer than it was told to.
package ping

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// headers is the length of the headers of IPv4, without options, and ICMP, in bytes.
	// They count in the size of a packet.
	headers = ipHeader + icmpHeader
	// maxPacket is the size of the largest packet of IPv4, in bytes.
	maxPacket  = 65535
	ipHeader   = 20
	icmpHeader = 8
)

// From is where requests come from.
type From struct {
	// Address is an address of this machine; the zero Addr leaves it to the kernel, by the route.
	Address netip.Addr
	// Interface is the link by which they leave; "" leaves it to the kernel.
	Interface string
	// TTL is the time to live of the requests of a ping, 1..255; 0 is the kernel's, which is 64.
	TTL int
}

// Open opens a ping socket. The group of the process must be one of those in
// net.ipv4.ping_group_range; from.Interface needs CAP_NET_RAW.
func Open(from From) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
	if err != nil {
		return nil, fmt.Errorf("open a ping socket: %w", err)
	}
	socket := os.NewFile(uintptr(fd), "ping")
	if from.Interface != "" {
		if err := unix.BindToDevice(fd, from.Interface); err != nil {
			socket.Close()
			return nil, fmt.Errorf("ping by %s: %w", from.Interface, err)
		}
	}
	if from.Address.IsValid() {
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: from.Address.As4()}); err != nil {
			socket.Close()
			return nil, fmt.Errorf("ping from %s: %w", from.Address, err)
		}
	}
	if from.TTL > 0 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_TTL, from.TTL); err != nil {
			socket.Close()
			return nil, fmt.Errorf("ping with ttl=%d: %w", from.TTL, err)
		}
	}
	return socket, nil
}

// pinger sends echo requests and waits for the answers.
type pinger struct {
	conn    *net.UDPConn
	control func(func(fd uintptr)) error
	seq     uint16
	// request is the packet from its ICMP header on. answer has room for one.
	request, answer []byte
}

// newPinger returns a pinger that uses a duplicate of socket, for packets of size bytes,
// headers included.
func newPinger(socket *os.File, size int) (*pinger, error) {
	c, err := net.FilePacketConn(socket)
	if err != nil {
		return nil, fmt.Errorf("ping socket: %w", err)
	}
	conn, ok := c.(*net.UDPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("ping socket: is a %T", c)
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("ping socket: %w", err)
	}
	p := &pinger{conn: conn, control: raw.Control, request: make([]byte, size-ipHeader), answer: make([]byte, maxPacket)}
	p.request[0] = icmpEcho
	if _, err := unix.Getrandom(p.request[icmpHeader:], 0); err != nil {
		conn.Close()
		return nil, err
	}
	for _, option := range []int{unix.IP_RECVERR, unix.IP_RECVTTL} {
		if err := p.set(option, 1); err != nil {
			conn.Close()
			return nil, err
		}
	}
	return p, nil
}

// set sets an IP option of the socket (ip(7)).
func (p *pinger) set(option, value int) error {
	var err error
	if e := p.control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, option, value) }); e != nil {
		err = e
	}
	if err != nil {
		return fmt.Errorf("ping socket: option %d: %w", option, err)
	}
	return nil
}

// echo is the outcome of a request.
type echo struct {
	// from is the host that answered, or that told why there is no answer. It is the zero
	// Addr if none did.
	from netip.Addr
	// status is "" for an answer, else the reason why there is none: "timeout", "TTL
	// exceeded".
	status string
	size   int // of the answer, headers included
	ttl    int // of the answer, 0 if it is not known
	rtt    time.Duration
}

const timedOut = "timeout"

// ask sends a request and waits for its outcome, until ctx is done or the timeout is over.
func (p *pinger) ask(ctx context.Context, host netip.Addr, timeout time.Duration) (echo, error) {
	p.seq++
	binary.BigEndian.PutUint16(p.request[6:], p.seq)
	start := time.Now()
	if err := p.conn.SetReadDeadline(start.Add(timeout)); err != nil {
		return echo{}, err
	}
	defer context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Unix(1, 0)) })()
	to := netip.AddrPortFrom(host, 0)
	_, err := p.conn.WriteToUDPAddrPort(p.request, to)
	var errno unix.Errno
	if errors.As(err, &errno) {
		// The error may be about an earlier request. It is reported only once.
		p.failure()
		_, err = p.conn.WriteToUDPAddrPort(p.request, to)
	}
	if errors.As(err, &errno) {
		return echo{status: sendStatus(errno)}, nil
	}
	if err != nil {
		return echo{}, err
	}
	oob := make([]byte, 64)
	for {
		n, oobn, _, from, err := p.conn.ReadMsgUDPAddrPort(p.answer, oob)
		rtt := time.Since(start)
		switch {
		case ctx.Err() != nil:
			return echo{}, context.Cause(ctx)
		case errors.Is(err, os.ErrDeadlineExceeded):
			return echo{status: timedOut}, nil
		case errors.As(err, &errno):
			if e, found := p.failure(); found {
				e.rtt = rtt
				return e, nil
			}
			continue // the error was about an earlier request
		case err != nil:
			return echo{}, err
		}
		if from.Addr().Unmap() == host && p.answers(p.answer[:n]) {
			return echo{from: host, size: n + ipHeader, ttl: parseTTL(oob[:oobn]), rtt: rtt}, nil
		}
	}
}

// answers reports whether a packet, from its ICMP header on, is the answer to the
// last request.
func (p *pinger) answers(packet []byte) bool {
	return len(packet) == len(p.request) && packet[0] == icmpEchoReply &&
		bytes.Equal(packet[6:], p.request[6:]) // sequence number and data
}

// failure takes errors from the socket's queue up to one about the last request.
func (p *pinger) failure() (e echo, found bool) {
	packet, oob := make([]byte, 64), make([]byte, 256)
	for !found {
		var n, oobn int
		var err error
		if p.control(func(fd uintptr) {
			n, oobn, _, _, err = unix.Recvmsg(int(fd), packet, oob, unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
		}) != nil || err != nil {
			return echo{}, false
		}
		var seq uint16
		if seq, e, found = parseFailure(packet[:n], oob[:oobn]); seq != p.seq {
			found = false
		}
	}
	return e, true
}

// Request says what to send.
type Request struct {
	Host     netip.Addr
	Count    int // 0 stands for no end
	Interval time.Duration
	Size     int // of each packet, headers included: 28..65535 bytes
	// Rows writes what programs read: for each request a line of name=value, separated by semicolons, and no summary.
	Rows bool
}

// answerTime is the least time that an answer has.
const answerTime = time.Second

// Run sends requests. It writes a line for each, and a summary at the end. It sends the next
// request when the interval is over, and the one before is answered or has waited for a
// second. When ctx is done, it ends early, with the summary and without an error.
func Run(ctx context.Context, socket *os.File, r Request, out io.Writer) error {
	if r.Size < headers || r.Size > maxPacket {
		return fmt.Errorf("size=%d: expected %d..%d", r.Size, headers, maxPacket)
	}
	p, err := newPinger(socket, r.Size)
	if err != nil {
		return err
	}
	defer p.conn.Close()
	if !r.Rows {
		fmt.Fprintf(out, pingFormat, "SEQ", "HOST", "SIZE", "TTL", "TIME", "STATUS")
	}
	var sum summary
	for i := 0; r.Count == 0 || i < r.Count; i++ {
		next := time.Now().Add(r.Interval)
		e, err := p.ask(ctx, r.Host, max(r.Interval, answerTime))
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		sum.add(e)
		write := e.write
		if r.Rows {
			write = sum.writeRow
		}
		if err := write(out, i, r.Host); err != nil {
			return err
		}
		if last := r.Count > 0 && i == r.Count-1; !last && !sleep(ctx, time.Until(next)) {
			break
		}
	}
	if r.Rows {
		return nil
	}
	return sum.write(out)
}

// sleep waits for d. It returns false, at once, if ctx is done first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
