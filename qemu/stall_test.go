package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

const (
	// Connections that are open while the machine stands still.
	stallSocks      = 100
	stallMasquerade = 20
	// stallPause is from one line of a conversation to the next, at either end.
	stallPause = 500 * time.Millisecond
	stallPort  = 5130
)

// stalls are how long the machine stands still. On a malta the time itself is lost in a long
// stall: after 24 s and more its clock was seen to go back by 23 s, with no connection open and
// no program of Postern's at work, and all that waits for a time then waits that much longer.
// The counter that the kernel reads there has 32 bits, which QEMU counts through in 26 s.
func stalls(b board.Board) []time.Duration {
	if b.LossyTimer != "" {
		return []time.Duration{10 * time.Second}
	}
	return []time.Duration{30 * time.Second, 120 * time.Second}
}

// TestStall stops QEMU, as a host does that is suspended or very busy, with connections open
// through SOCKS and by masquerade. When it goes on nothing is lost: no connection, no byte
// and no BIND that waits, and neither PID 1 nor the watchdog concludes that something hangs.
//
// QEMU is stopped by SIGSTOP, not by its monitor: the machine's clock goes on meanwhile, as it
// does on such a host, and all that waited for a time wakes up at once.
// QEMU's watchdog counts the same time: it is over at once, and yet no machine was reset in any
// stall of up to two minutes.
func TestStall(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	for _, b := range boards() {
		if b.Name != "malta" && b.Name != "pc" {
			continue // the smallest, and one whose clock sees all of a stall
		}
		t.Run(b.Name, func(t *testing.T) {
			t.Parallel()
			testStall(t, b)
		})
	}
}

func testStall(t *testing.T, b board.Board) {
	r := startRouter(t, b.Name, func(o *machineOptions) { o.capture = false })
	r.awaitService(t)
	r.awaitLinks(t)
	l, err := r.n.listen(serverOfSite, stallPort)
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	to := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, stallPort))
	talks := r.openTalks(t, l, to, stallSocks, stallMasquerade)

	for _, stall := range stalls(b) {
		if !t.Run(stall.String(), func(t *testing.T) {
			waiting, reply := r.request(t, client, commandBind, to.String())
			require.EqualValues(t, granted, reply.code)

			// A question to socksd is under way most of the time.
			r.m.screen.forget()
			require.NoError(t, r.m.send("/ip socks connections print interval=500ms\r"))
			r.expect(t, "SRC-ADDRESS")
			r.m.freeze(t, stall)
			resumed := time.Now()
			peer, err := r.n.dialReachable(serverOfSite, reply.addr.String())
			require.NoError(t, err)
			defer peer.Close()
			called, err := readReplySOCKS(waiting, patience)
			require.NoError(t, err, "the BIND that waited")
			assert.EqualValues(t, granted, called.code)

			r.awaitTalks(t, talks)
			t.Logf("%s: all %d connections have gone on %v after a stall of %v",
				b.Name, len(talks), time.Since(resumed).Round(100*time.Millisecond), stall)
			r.m.screen.forget()
			require.NoError(t, r.m.send("q"))
			r.expect(t, "[admin@postern] > ")
			log := r.command(t, "/log print")
			assert.NotRegexp(t, `socksd (ended|hangs|does not)|is not well:|not been well|i/o timeout|deadline exceeded`, log)
		}) {
			return
		}
	}

	r.assertTalks(t, talks)
}

// assertTalks ends the talks, and checks that nothing was lost.
func (r *router) assertTalks(t *testing.T, talks []*talk) {
	t.Helper()
	for _, c := range talks {
		close(c.enough)
	}
	for _, c := range talks {
		c.running.Wait()
		if err := c.err.Load(); err != nil {
			t.Error(*err)
		}
		for end := range c.sent {
			assert.Equal(t, c.sent[end].Load(), c.heard[1-end].Load(), "bytes of connection %d from end %d", c.number, end)
		}
	}
}

// awaitTalks waits until each end has heard more than the other had said when this began, and
// fails as soon as a connection is lost.
func (r *router) awaitTalks(t *testing.T, talks []*talk) {
	t.Helper()
	lost, err := goOn(talks)
	if lost != nil {
		require.NoError(t, r.m.send("\x03")) // a screen that repeats, or that waits, ends, and there is a new prompt in any case
		r.expect(t, "[admin@postern] > ")
		require.Fail(t, "connections are lost", "%d of %d, the first: %v; the log:\n%s",
			len(lost), len(talks), lost[0], r.command(t, "/log print where message~\"closed|ended|refused\""))
	}
	if quiet := (*silence)(nil); errors.As(err, &quiet) {
		r.sayAbout(t, quiet)
	}
	require.NoError(t, err)
}

// sayAbout says what the router and the hosts know of talks that stand still: who waits for whose timer.
func (r *router) sayAbout(t *testing.T, s *silence) {
	const most, mostEnds = 5, 40
	t.Logf("%d ends hear nothing new:\n%s", len(s.ends), strings.Join(s.ends[:min(mostEnds, len(s.ends))], "\n"))
	for h, end := range map[host]int{client: 0, serverOfSite: 1} {
		filter := ""
		for _, c := range s.talks[:min(most, len(s.talks))] {
			filter += " or " + []string{"sport", "dport"}[end] + fmt.Sprint(" = :", c.addrs[end].Port())
		}
		out, err := r.n.command(h, "ss", "-tnmioH", strings.TrimPrefix(filter, " or ")).CombinedOutput()
		t.Logf("TCP of the %s (%v):\n%s", h, err, out)
	}
	_ = r.m.send("\x03") // a screen that goes on may be there
	for _, c := range s.talks[:min(most, len(s.talks))] {
		for _, line := range []string{"/ip socks connections print detail", "/ip firewall connection print detail"} {
			out, err := r.m.command(fmt.Sprintf("%s where src-address=\"%v\"", line, c.addrs[0]))
			if err != nil {
				t.Log(err)
				return
			}
			t.Logf("%s, of connection %d:\n%s", line, c.number, out)
		}
	}
}

// silence is the error of talks of which an end has heard nothing new.
type silence struct {
	talks []*talk
	ends  []string
}

func (s *silence) Error() string {
	return fmt.Sprintf("%d ends hear nothing new, the first: %s", len(s.ends), s.ends[0])
}

// goOn waits until each end has heard more than the other had said when this began, or a connection is
// lost: it returns why those are that were.
func goOn(talks []*talk) ([]error, error) {
	sent := said(talks)
	lost := func() (all []error) {
		for _, c := range talks {
			if err := c.err.Load(); err != nil {
				all = append(all, *err)
			}
		}
		return all
	}
	err := retry(func() error {
		if lost() != nil {
			return nil
		}
		if s := behind(talks, sent); len(s.ends) > 0 {
			return s
		}
		return nil
	})
	return lost(), err
}

// said returns how many bytes the client's end of each has sent, and the server's.
func said(talks []*talk) [][2]int64 {
	sent := make([][2]int64, len(talks))
	for i, c := range talks {
		for end := range sent[i] {
			sent[i][end] = c.sent[end].Load()
		}
	}
	return sent
}

// behind returns the ends that have heard no more than the other had said by then.
func behind(talks []*talk, sent [][2]int64) *silence {
	s := &silence{}
	for i, c := range talks {
		old := len(s.ends)
		for end := range sent[i] {
			if heard := c.heard[1-end].Load(); heard <= sent[i][end] {
				s.ends = append(s.ends, fmt.Sprintf("connection %d (%v to %v): the %s has heard %d bytes of %d, and of the %d that there are now",
					c.number, c.addrs[0], c.addrs[1], ends[1-end], heard, sent[i][end], c.sent[end].Load()))
			}
		}
		if len(s.ends) > old {
			s.talks = append(s.talks, c)
		}
	}
	return s
}

// dialReachable connects like dial. A neighbour of the router that asked for its hardware address
// while it stood still may give up just now, and say that there is no way (EHOSTUNREACH): then
// the host connects again.
func (n network) dialReachable(h host, address string) (conn net.Conn, err error) {
	again := retry(func() error {
		if conn, err = n.dial(h, address, patience); errors.Is(err, syscall.EHOSTUNREACH) {
			return err
		}
		return nil
	})
	return conn, cmp.Or(err, again)
}

// freeze stops QEMU for so long.
func (m *machine) freeze(t *testing.T, d time.Duration) {
	t.Helper()
	require.NoError(t, m.cmd.Process.Signal(syscall.SIGSTOP))
	time.Sleep(d) // this is what is tested, no wait for something
	require.NoError(t, m.cmd.Process.Signal(syscall.SIGCONT))
}

// ends are the ends of a talk.
var ends = [2]string{"client", "server"}

// talk is a connection both ends of which send numbered lines, and check what they hear.
type talk struct {
	number int
	// addrs are the client's address, and where the server sees it: the router's.
	addrs [2]netip.AddrPort
	// enough is closed when both ends are to say no more and to close their direction.
	enough  chan struct{}
	running sync.WaitGroup
	// sent and heard are bytes of the client's end, and of the server's.
	sent, heard [2]atomic.Int64
	// err is what the first end says that has failed.
	err atomic.Pointer[error]
}

// line is what one end says for the i-th time: bytes of another connection, or of another
// place in this one, are seen.
func (c *talk) line(end int, i int64) []byte {
	return fmt.Appendf(nil, "%03d %d %058d\n", c.number, end, i)
}

// openTalks opens so many connections to a listener at to, the first of them through SOCKS.
func (r *router) openTalks(t *testing.T, l net.Listener, to netip.AddrPort, socks, masquerade int) []*talk {
	t.Helper()
	var talks []*talk
	for i := range socks + masquerade {
		c := &talk{number: i, enough: make(chan struct{})}
		var conn net.Conn
		var err error
		if i < socks {
			var reply socksReply
			conn, reply = r.request(t, client, commandConnect, to.String())
			require.EqualValues(t, granted, reply.code)
		} else {
			conn, err = r.n.dial(client, to.String(), patience)
			require.NoError(t, err)
			t.Cleanup(func() { conn.Close() })
		}
		server, err := l.Accept()
		require.NoError(t, err)
		t.Cleanup(func() { server.Close() })
		for end, addr := range []net.Addr{conn.LocalAddr(), server.RemoteAddr()} {
			c.addrs[end] = addr.(*net.TCPAddr).AddrPort()
		}
		for end, conn := range []*net.TCPConn{conn.(*net.TCPConn), server.(*net.TCPConn)} {
			c.running.Go(func() { c.say(conn, end) })
			c.running.Go(func() { c.hear(conn, end) })
		}
		talks = append(talks, c)
	}
	r.awaitTalks(t, talks)
	return talks
}

func (c *talk) say(conn *net.TCPConn, end int) {
	for i := int64(0); ; i++ {
		line := c.line(end, i)
		if _, err := conn.Write(line); err != nil {
			c.fail(end, err)
			return
		}
		c.sent[end].Add(int64(len(line)))
		select {
		case <-c.enough:
			if err := conn.CloseWrite(); err != nil {
				c.fail(end, err)
			}
			return
		case <-time.After(stallPause):
		}
	}
}

func (c *talk) hear(conn *net.TCPConn, end int) {
	for i := int64(0); ; i++ {
		want := c.line(1-end, i)
		got := make([]byte, len(want))
		n, err := io.ReadFull(conn, got)
		c.heard[end].Add(int64(n))
		if errors.Is(err, io.EOF) {
			select {
			case <-c.enough:
			default:
				c.fail(end, errors.New("closed by the other end"))
			}
			return
		}
		if err == nil && string(got) != string(want) {
			err = fmt.Errorf("heard %q, not %q", got, want)
		}
		if err != nil {
			c.fail(end, err)
			return
		}
	}
}

func (c *talk) fail(end int, err error) {
	err = fmt.Errorf("connection %d, %s: %w", c.number, ends[end], err)
	c.err.CompareAndSwap(nil, &err)
}
