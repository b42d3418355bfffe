package socks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/resolve"
)

func withUDP(o *options) { o.cfg.Version, o.cfg.UDP = 5, true }

// datagrams is a UDP socket of a client or of a peer.
type datagrams struct {
	*net.UDPConn
	t  *testing.T
	at netip.AddrPort
}

func datagramsAt(t *testing.T, addr string) datagrams {
	t.Helper()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return datagrams{c, t, c.LocalAddr().(*net.UDPAddr).AddrPort()}
}

func (d datagrams) send(to netip.AddrPort, s string) {
	d.t.Helper()
	_, err := d.WriteToUDPAddrPort([]byte(s), to)
	require.NoError(d.t, err)
}

// receive checks that the next datagram is s, and returns where it came from.
func (d datagrams) receive(s string) netip.AddrPort {
	d.t.Helper()
	b := make([]byte, 1<<16)
	n, from, err := d.ReadFromUDPAddrPort(b)
	require.NoError(d.t, err, "waiting for %.40q", s)
	require.True(d.t, s == string(b[:n]), "%d bytes %.60q instead of %d bytes %.60q", n, b[:n], len(s), s)
	return from
}

// to is a datagram for an address, as a client sends it.
func to(addr netip.AddrPort, s string) string {
	var header [headerLength]byte
	putHeader(&header, addr)
	return string(header[:]) + s
}

// toName is a datagram for a name.
func toName(host string, port uint16, s string) string {
	return "\x00\x00\x00\x03" + string([]byte{byte(len(host))}) + host + string([]byte{byte(port >> 8), byte(port)}) + s
}

// associate makes an association of a client at 127.0.0.1, and returns its connection and where
// to send to. dst is the address of the request.
func (u *setup) associate(t *testing.T, dst string) (near client, at netip.AddrPort) {
	t.Helper()
	near = dial(t, u.addr)
	near.send(greeting + ask5(commandAssociate, dst))
	require.Equal(t, chosen, near.receive(2))
	return near, near.reply5(reply5Granted)
}

// of calls look with the connection of that number.
func (u *setup) of(number uint64, look func(c *conn)) {
	u.Server.mu.Lock()
	defer u.Server.mu.Unlock()
	look(u.conns[number])
}

const anywhere = "0.0.0.0:0"

func TestAssociate(t *testing.T) {
	for _, c := range ways {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, withUDP)
			near := dial(t, u.addr)
			c.send(near, greeting, ask5(commandAssociate, anywhere))
			require.Equal(t, chosen, near.receive(2))
			at := near.reply5(reply5Granted)
			assert.Equal(t, "127.0.0.1", at.Addr().String(), "the address that the client has reached")
			got := u.Connections()[0]
			got.Age, got.Idle = 0, 0
			assert.Equal(t, Connection{Number: 1, Src: near.LocalAddr().(*net.TCPAddr).AddrPort(), Type: Out}, got)

			inner, peer, other := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0"), datagramsAt(t, "127.0.0.3:0")
			inner.send(at, to(peer.at, "question"))
			outside := peer.receive("question")
			peer.send(outside, "answer")
			assert.Equal(t, at, inner.receive(to(peer.at, "answer")))
			// Without a question to it there is no second peer.
			inner.send(at, to(other.at, ""))
			assert.Equal(t, outside, other.receive(""))
			other.send(outside, "more")
			inner.receive(to(other.at, "more"))

			got = u.Connections()[0]
			assert.Equal(t, []uint64{8, 10}, []uint64{got.Tx, got.Rx}, "without headers")
			assert.Equal(t, other.at, got.Dst)
			near.Close()
			u.awaitCount(t, 0)
			u.awaitLog(t, "connection 1 opened: type=out src="+got.Src.String()+` dst=none rule=none user="" udp=`+at.String())
			u.awaitLog(t, "connection 1 closed: type=out", "dst="+other.at.String(), "udp="+at.String(), "tx=8 rx=10", `reason="client left: EOF"`)
		})
	}
}

// TestAssociateSizes sends the largest datagrams that there are, and one that is a header too
// large for the client.
func TestAssociateSizes(t *testing.T) {
	u := start(t, withUDP)
	_, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	const most = 65507
	large := strings.Repeat("large...", most/8+1)
	inner.send(at, to(peer.at, large[:most-headerLength]))
	outside := peer.receive(large[:most-headerLength])
	peer.send(outside, large[:most])
	peer.send(outside, large[:most-headerLength+1])
	peer.send(outside, large[:most-headerLength])
	inner.receive(to(peer.at, large[:most-headerLength]))
	assert.Equal(t, uint64(most-headerLength), u.Connections()[0].Rx, "what could not be sent does not count")
}

func TestAssociationEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(t *testing.T, u *setup, near client)
		reason string
	}{
		{"FIN", func(t *testing.T, _ *setup, near client) { require.NoError(t, near.CloseWrite()) }, "client left: EOF"},
		{"FIN behind bytes", func(t *testing.T, _ *setup, near client) {
			near.send("what is this?")
			require.NoError(t, near.CloseWrite())
		}, "client left: EOF"},
		{"reset", func(t *testing.T, _ *setup, near client) {
			require.NoError(t, near.SetLinger(0))
			near.Close()
		}, "client left: connection reset by peer"},
		{"disabled", func(t *testing.T, u *setup, _ client) {
			u.cfg.Enabled = false
			require.NoError(t, u.Configure(u.cfg, nil))
		}, "the service was disabled"},
		{"UDP turned off", func(t *testing.T, u *setup, _ client) {
			u.cfg.UDP = false
			require.NoError(t, u.Configure(u.cfg, nil))
		}, "UDP ASSOCIATE was turned off"},
		{"denied everything", func(t *testing.T, u *setup, _ client) {
			u.cfg.Access = []Rule{{Action: Deny}}
			require.NoError(t, u.Configure(u.cfg, nil))
		}, "denied by the new access list"},
		{"by number", func(t *testing.T, u *setup, _ client) { require.NoError(t, u.CloseConnection(1)) }, "removed"},
		{"shutdown", func(_ *testing.T, u *setup, _ client) { u.Shutdown() }, "shutdown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var fw openings
			u := start(t, func(o *options) {
				withUDP(o)
				o.Open = fw.Open
			})
			near, at := u.associate(t, anywhere)
			inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
			inner.send(at, to(peer.at, "question"))
			outside := peer.receive("question")
			c.end(t, u, near)
			u.awaitCount(t, 0)
			u.awaitLog(t, "connection 1 closed: type=out", "tx=8 rx=0", c.reason)
			fw.awaitClosed(t, Opening{Peer: netip.MustParseAddr("127.0.0.1"), Local: at, UDP: true})
			// Both ports are free again.
			datagramsAt(t, at.String())
			datagramsAt(t, outside.String())
		})
	}
}

// TestAssociationEndsAtOnce has the end of the client's connection come together with its request.
func TestAssociationEndsAtOnce(t *testing.T) {
	for _, c := range []struct {
		name     string
		firewall bool
	}{{"without a firewall", false}, {"with one", true}} {
		t.Run(c.name, func(t *testing.T) {
			var fw openings
			u := start(t, func(o *options) {
				withUDP(o)
				if c.firewall {
					o.Open = fw.Open
				}
			})
			near := dial(t, u.addr)
			near.send(greeting)
			require.Equal(t, chosen, near.receive(2))
			// Both go out in one segment, and come in one event.
			raw, err := near.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) {
				require.NoError(t, unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1))
			}))
			near.send(ask5(commandAssociate, anywhere))
			require.NoError(t, near.CloseWrite())
			near.rejected5(reply5Failed)
			u.awaitCount(t, 0)
			u.awaitLog(t, "connection 1 refused", "client left: EOF")
			assert.Empty(t, fw.open)
		})
	}
}

// TestAssociationIdle: datagrams in either direction put the idle timeout off, and what is
// dropped does not.
func TestAssociationIdle(t *testing.T) {
	var clock movedClock
	u := start(t, func(o *options) {
		withUDP(o)
		clock.use(o)
		o.cfg.ConnectionIdleTimeout = 20 * time.Second
	})
	_, at := u.associate(t, anywhere)
	inner, peer, stranger := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0"), datagramsAt(t, "127.0.0.2:0")
	inner.send(at, to(peer.at, "out"))
	outside := peer.receive("out")
	for i := range 80 {
		clock.forward(lateness / 2)
		clock.awaitTurn(t, u)
		switch i % 40 {
		case 10:
			inner.send(at, to(peer.at, "out"))
			peer.receive("out")
		case 30:
			peer.send(outside, "in")
			inner.receive(to(peer.at, "in"))
		}
	}
	require.Len(t, u.Connections(), 1, "%s", u.logged())
	require.Eventually(t, func() bool {
		stranger.send(outside, "noise")
		inner.send(at, "noise")
		clock.forward(lateness / 2)
		return len(u.Connections()) == 0
	}, patience, time.Millisecond)
	u.awaitLog(t, "connection 1 closed", "idle timeout")
}

// TestAssociationDrops: what may not pass, passes in no case. What may, sent behind it, comes
// first.
func TestAssociationDrops(t *testing.T) {
	header := func(b string) func(peer, _ netip.AddrPort) string {
		return func(_, _ netip.AddrPort) string { return b }
	}
	for _, c := range []struct {
		name string
		dst  string // of the request; the port of the client's socket is put in place of PORT
		from string
		send func(peer, denied netip.AddrPort) string
	}{
		{name: "from another address", from: "127.0.0.5:0"},
		{name: "from another port", from: "127.0.0.1:0"},
		{name: "from another port than the request says", dst: "0.0.0.0:PORT", from: "127.0.0.1:0"},
		{name: "from another port than the request says with its address", dst: "127.0.0.1:PORT", from: "127.0.0.1:0"},
		{name: "a fragment", send: func(peer, _ netip.AddrPort) string {
			b := []byte(to(peer, "evil"))
			b[2] = 1
			return string(b)
		}},
		{name: "no header", send: header("")},
		{name: "half a header", send: func(peer, _ netip.AddrPort) string { return to(peer, "")[:9] }},
		{name: "IPv6", send: header("\x00\x00\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x35evil")},
		{name: "port 0", send: func(peer, _ netip.AddrPort) string { return to(netip.AddrPortFrom(peer.Addr(), 0), "evil") }},
		{name: "denied", send: func(_, denied netip.AddrPort) string { return to(denied, "evil") }},
		{name: "a name whose addresses are denied", send: func(_, denied netip.AddrPort) string { return toName("denied.test", denied.Port(), "evil") }},
		{name: "a name of which none is known", send: func(peer, _ netip.AddrPort) string { return toName("unknown.test", peer.Port(), "evil") }},
		{name: "a name that is none", send: func(peer, _ netip.AddrPort) string { return toName("a\x00b", peer.Port(), "evil") }},
		{name: "broadcast", send: func(peer, _ netip.AddrPort) string {
			return to(netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), peer.Port()), "evil")
		}},
		{name: "no address", send: func(peer, _ netip.AddrPort) string {
			return to(netip.AddrPortFrom(netip.IPv4Unspecified(), peer.Port()), "evil")
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				withUDP(o)
				o.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.9", "")}
				o.lookup = func(_ context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
					if host == "denied.test" {
						return []netip.Addr{netip.MustParseAddr("127.0.0.9")}, nil
					}
					return nil, resolve.ErrNotFound
				}
			})
			inner, peer, denied := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0"), datagramsAt(t, "127.0.0.9:0")
			dst := anywhere
			if c.dst != "" {
				dst = strings.ReplaceAll(c.dst, "PORT", fmt.Sprint(inner.at.Port()))
			}
			_, at := u.associate(t, dst)
			if c.dst == "" { // else it must hold for the first datagram too
				inner.send(at, to(peer.at, "first"))
				peer.receive("first")
			}
			evil, from := to(peer.at, "evil"), inner
			if c.send != nil {
				evil = c.send(peer.at, denied.at)
			}
			if c.from != "" {
				from = datagramsAt(t, c.from)
			}
			from.send(at, evil)
			inner.send(at, to(peer.at, "good"))
			outside := peer.receive("good")
			require.NoError(t, denied.SetReadDeadline(time.Now()))
			_, _, err := denied.ReadFromUDPAddrPort(make([]byte, 10))
			require.ErrorIs(t, err, os.ErrDeadlineExceeded)
			peer.send(outside, "answer")
			inner.receive(to(peer.at, "answer"))
			assert.Len(t, u.Connections(), 1, "nothing of it ends the association")
		})
	}
}

// TestAssociateFromBehindNAT: the address of the request that is not the client's says nothing
// about the port.
func TestAssociateFromBehindNAT(t *testing.T) {
	u := start(t, withUDP)
	for _, dst := range []string{"10.9.8.7:4000", "127.0.0.1:0", anywhere} {
		_, at := u.associate(t, dst)
		inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
		inner.send(at, to(peer.at, "question"))
		peer.receive("question")
	}
	near := dial(t, u.addr)
	near.send(greeting + askName5(commandAssociate, "me.test", 4000))
	near.receive(2)
	at := near.reply5(reply5Granted)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	inner.send(at, to(peer.at, "question"))
	peer.receive("question")
}

// TestStrangersDoNotAnswer: who was not asked is not heard, also when he has the address of a peer
// or of the client.
func TestStrangersDoNotAnswer(t *testing.T) {
	u := start(t, withUDP)
	_, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	inner.send(at, to(peer.at, "question"))
	outside := peer.receive("question")
	for _, from := range []string{"127.0.0.2:0", "127.0.0.3:0", "127.0.0.1:0"} {
		stranger := datagramsAt(t, from)
		stranger.send(outside, "evil")
		stranger.send(outside, to(peer.at, "evil"))
		stranger.send(at, "evil")
	}
	u.of(1, func(c *conn) {
		at, err := unix.Getpeername(c.udp.client.fd)
		require.NoError(t, err, "the kernel drops what others send")
		assert.Equal(t, int(inner.at.Port()), at.(*unix.SockaddrInet4).Port)
	})
	inner.send(outside, to(peer.at, "the wrong one of the two ports"))
	peer.send(at, to(inner.at, "the wrong one of the two ports"))
	peer.send(outside, "answer")
	inner.receive(to(peer.at, "answer"))
	inner.send(at, to(peer.at, "again"))
	peer.receive("again")
	assert.Equal(t, []uint64{13, 6}, []uint64{u.Connections()[0].Tx, u.Connections()[0].Rx})
}

// TestFloodOfPeers: the peers that the client has sent to last may answer, and no more than
// maxPeers.
func TestFloodOfPeers(t *testing.T) {
	u := start(t, withUDP)
	_, at := u.associate(t, anywhere)
	inner := datagramsAt(t, "127.0.0.1:0")
	var peers []datagrams
	for range maxPeers {
		p := datagramsAt(t, "127.0.0.2:0")
		inner.send(at, to(p.at, "question"))
		p.receive("question")
		peers = append(peers, p)
	}
	outside := netip.AddrPort{}
	inner.send(at, to(peers[0].at, "again"))
	outside = peers[0].receive("again")
	peers[1].send(outside, "answer") // is a use too
	inner.receive(to(peers[1].at, "answer"))
	last := datagramsAt(t, "127.0.0.2:0")
	inner.send(at, to(last.at, "question"))
	last.receive("question")
	peers[2].send(outside, "too late: it is the one that was used least recently")
	for _, p := range append([]datagrams{last, peers[0], peers[1]}, peers[3:]...) {
		p.send(outside, "answer")
		inner.receive(to(p.at, "answer"))
	}
	u.of(1, func(c *conn) { assert.Len(t, c.udp.known, maxPeers) })
}

// TestFloodOfNewPeers: one association has peerBurst new peers, and then peerRate a second. Those
// that it has are no new ones.
func TestFloodOfNewPeers(t *testing.T) {
	var clock movedClock
	u := start(t, func(o *options) {
		withUDP(o)
		clock.use(o)
		o.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.9", "")}
	})
	_, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	flood := func(n int) {
		for i := range n {
			inner.send(at, to(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.9"), uint16(1000+i)), "evil"))
			inner.send(at, to(peer.at, "known"))
			peer.receive("known")
			if i%50 == 0 {
				clock.forward(datagramPause) // else the rate of all datagrams would bound it
				clock.awaitTurn(t, u)
			}
		}
	}
	inner.send(at, to(peer.at, "known"))
	peer.receive("known")
	flood(2 * peerBurst)
	allowed := peerBurst - 1 + int(time.Duration(clock.ahead.Load())*peerRate/time.Second)
	assert.Equal(t, uint64(allowed), u.Hits()[0])
}

// TestAssociationHits: a peer counts once, whatever is sent to it, and a new list is in force for
// the peers that there are.
func TestAssociationHits(t *testing.T) {
	u := start(t, func(o *options) {
		withUDP(o)
		o.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.9", ""), rule(t, Allow, "127.0.0.1", "", "127.0.0.2", "")}
	})
	_, at := u.associate(t, anywhere)
	inner, peer, other, denied := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0"), datagramsAt(t, "127.0.0.2:0"), datagramsAt(t, "127.0.0.9:0")
	for range 5 {
		inner.send(at, to(denied.at, "evil"))
		inner.send(at, to(peer.at, "question"))
		inner.send(at, to(other.at, "question"))
		other.receive("question")
	}
	outside := peer.receive("question")
	assert.Equal(t, []uint64{1, 2}, u.Hits())

	u.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.2", fmt.Sprint(peer.at.Port())), u.cfg.Access[1]}
	require.NoError(t, u.Configure(u.cfg, nil))
	inner.send(at, to(peer.at, "evil"))
	peer.send(outside, "evil")
	inner.send(at, to(other.at, "question"))
	other.receive("question")
	other.send(outside, "answer")
	inner.receive(to(other.at, "answer"))
	inner.send(at, to(denied.at, "no more denied"))
	denied.receive("no more denied")
	assert.Equal(t, []uint64{0, 2}, u.Hits())
	for range 4 {
		peer.receive("question")
	}
	require.NoError(t, peer.SetReadDeadline(time.Now()))
	_, _, err := peer.ReadFromUDPAddrPort(make([]byte, 10))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// TestAssociateDenied: who may send to nobody gets no association.
func TestAssociateDenied(t *testing.T) {
	u := start(t, func(o *options) {
		withUDP(o)
		o.cfg.Access = []Rule{rule(t, Deny, "127.0.0.1", "", "", "")}
	})
	near := dial(t, u.addr)
	near.send(greeting + ask5(commandAssociate, anywhere))
	near.receive(2)
	near.rejected5(reply5NotAllowed)
	assert.Equal(t, []uint64{1}, u.Hits())
	u.awaitLog(t, "connection 1 refused", "rule=0", "rule 0 denies every destination")
	// A rule for one port says nothing about the others.
	u.cfg.Access = []Rule{rule(t, Deny, "127.0.0.1", "", "", "53")}
	require.NoError(t, u.Configure(u.cfg, nil))
	u.associate(t, anywhere)
}

// TestPeersReachable: nobody reaches the machine of the server, a multicast or a broadcast address.
func TestPeersReachable(t *testing.T) {
	u := start(t, func(o *options) { withUDP(o); o.AllowOwnAddresses = false })
	u.associate(t, anywhere)
	u.of(1, func(c *conn) {
		for addr, want := range map[string]bool{
			"127.0.0.1": false, "127.9.9.9": false, "0.0.0.0": false, "0.1.2.3": false, "224.0.0.251": false, "239.1.2.3": false,
			"255.255.255.255": false, "192.0.2.1": true,
		} {
			p := newPeer(netip.AddrPortFrom(netip.MustParseAddr(addr), 53))
			u.judge(c, &p)
			assert.Equal(t, want, p.allowed, addr)
		}
	})
}

// TestAddressBecomesOwn: a peer whose address becomes one of this machine is not reached any more.
func TestAddressBecomesOwn(t *testing.T) {
	var clock movedClock
	u := start(t, func(o *options) { withUDP(o); clock.use(o) })
	_, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	inner.send(at, to(peer.at, "before"))
	outside := peer.receive("before")
	u.of(1, func(*conn) { u.allowOwn = false })
	clock.forward(judgeTime)
	inner.send(at, to(peer.at, "evil"))
	require.Eventually(t, func() bool {
		denied := false
		u.of(1, func(c *conn) { denied = !c.udp.known[0].allowed })
		return denied
	}, patience, time.Millisecond)
	peer.send(outside, "evil")
	u.of(1, func(*conn) { u.allowOwn = true })
	clock.forward(judgeTime)
	inner.send(at, to(peer.at, "after"))
	peer.receive("after")
	assert.Zero(t, u.Connections()[0].Rx)
}

func TestDatagramsToNames(t *testing.T) {
	asked := make(chan string, 10)
	answer := make(chan []netip.Addr)
	var clock movedClock
	u := start(t, func(o *options) {
		withUDP(o)
		clock.use(o)
		o.cfg.Access = []Rule{rule(t, Deny, "", "", "127.0.0.9", "")}
		o.lookup = func(ctx context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
			asked <- host
			select {
			case addrs := <-answer:
				if addrs == nil {
					return nil, resolve.ErrNotFound
				}
				return addrs, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	})
	near, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	port := peer.at.Port()
	inner.send(at, toName("peer.test", port, "one waits"))
	assert.Equal(t, "peer.test", <-asked)
	inner.send(at, toName("peer.test", port, "the next is dropped"))
	inner.send(at, toName("other.test", port, "whatever its name"))
	inner.send(at, to(peer.at, "an address need not wait"))
	peer.receive("an address need not wait")
	answer <- []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.3")}
	outside := peer.receive("one waits")
	assert.Equal(t, []uint64{0}, u.Hits(), "an address that was passed over is no decision")
	inner.send(at, toName("peer.test", port, "known"))
	peer.receive("known")
	peer.send(outside, "answer")
	inner.receive(to(peer.at, "answer"))
	assert.Empty(t, asked)

	// What does not exist is not asked for at once again, and what is old is.
	inner.send(at, toName("no.test", port, "lost"))
	assert.Equal(t, "no.test", <-asked)
	answer <- nil
	awaitLookup := func() {
		require.Eventually(t, func() bool {
			done := false
			u.of(1, func(c *conn) { done = c.udp.waiting == nil })
			return done
		}, patience, time.Millisecond)
	}
	awaitLookup()
	inner.send(at, toName("no.test", port, "lost"))
	inner.send(at, to(peer.at, "behind it"))
	peer.receive("behind it")
	assert.Empty(t, asked)
	pass := func(d time.Duration) {
		for ; d > 0; d -= lateness / 2 {
			clock.forward(lateness / 2)
			clock.awaitTurn(t, u)
		}
	}
	pass(failedTime)
	inner.send(at, toName("no.test", port, "found"))
	assert.Equal(t, "no.test", <-asked)
	answer <- []netip.Addr{peer.at.Addr()}
	peer.receive("found")
	pass(nameTime)
	// Too large to wait, but it has the name looked up.
	inner.send(at, toName("peer.test", port, strings.Repeat("x", maxWaiting+1)))
	assert.Equal(t, "peer.test", <-asked)
	answer <- []netip.Addr{peer.at.Addr()}
	awaitLookup()
	inner.send(at, toName("peer.test", port, "known again"))
	peer.receive("known again")

	// The end of the connection ends the lookup.
	inner.send(at, toName("slow.test", port, "lost"))
	assert.Equal(t, "slow.test", <-asked)
	near.Close()
	u.awaitCount(t, 0)
}

// TestFloodOfNames: one association has lookupBurst names looked up, and then lookupRate a second,
// and keeps few of them. If the list denies all that a name could be, nobody is asked.
func TestFloodOfNames(t *testing.T) {
	var clock movedClock
	var asked atomic.Int64
	u := start(t, func(o *options) {
		withUDP(o)
		clock.use(o)
		o.cfg.Access = []Rule{rule(t, Deny, "", "", "", "53")}
		o.lookup = func(_ context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
			asked.Add(1)
			return nil, errors.New(host)
		}
	})
	_, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	n := 0
	flood := func() {
		for range 2 * lookupBurst {
			n++
			inner.send(at, toName(fmt.Sprintf("name%d.test", n), 80, ""))
			inner.send(at, to(peer.at, "behind"))
			peer.receive("behind")
			require.Eventually(t, func() bool {
				done := false
				u.of(1, func(c *conn) { done = c.udp.waiting == nil })
				return done
			}, patience, time.Millisecond)
		}
	}
	for n := range 2 * lookupBurst {
		inner.send(at, toName(fmt.Sprintf("denied%d.test", n), 53, ""))
	}
	inner.send(at, to(peer.at, "behind them"))
	peer.receive("behind them")
	assert.Zero(t, asked.Load(), "the list denies all that they could be")
	flood()
	assert.Equal(t, int64(lookupBurst), asked.Load())
	clock.forward(time.Second)
	flood()
	assert.Equal(t, int64(lookupBurst+lookupRate), asked.Load())
	u.of(1, func(c *conn) { assert.Len(t, c.udp.names, maxNames) })
}

// TestDatagramRate: of each socket datagramBurst datagrams are read at once, and datagramRate a
// second. What is in the receive buffer then waits.
func TestDatagramRate(t *testing.T) {
	var clock movedClock
	u := start(t, func(o *options) { withUDP(o); clock.use(o) })
	_, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	inner.send(at, to(peer.at, "first"))
	outside := peer.receive("first")
	for _, way := range []struct {
		name           string
		send, received func(s string)
	}{
		{"from the client", func(s string) { inner.send(at, to(peer.at, s)) }, func(s string) { peer.receive(s) }},
		{"from a peer", func(s string) { peer.send(outside, s) }, func(s string) { inner.receive(to(peer.at, s)) }},
	} {
		passed := func() uint64 { c := u.Connections()[0]; return c.Tx + c.Rx }
		used := 0
		if way.name == "from the client" {
			used = 1
		}
		for n := range datagramBurst - used {
			way.send(fmt.Sprint(n))
			way.received(fmt.Sprint(n))
		}
		before := passed()
		const waiting = 120
		for n := range waiting {
			way.send(fmt.Sprint("waits ", n))
		}
		clock.awaitTurn(t, u)
		clock.forward(datagramPause - 1)
		clock.awaitTurn(t, u)
		assert.Equal(t, before, passed(), way.name)
		clock.forward(1)
		u.poller.wake()
		const next = int(datagramPause * datagramRate / time.Second)
		for n := range next {
			way.received(fmt.Sprint("waits ", n))
		}
		clock.awaitTurn(t, u)
		before = passed()
		clock.awaitTurn(t, u)
		assert.Equal(t, before, passed(), way.name)
		clock.forward(datagramPause)
		u.poller.wake()
		for n := next; n < waiting; n++ {
			way.received(fmt.Sprint("waits ", n))
		}
	}
}

// TestDatagramFlood: while several associations are flooded from both sides, a stream gets
// through, and the server answers.
func TestDatagramFlood(t *testing.T) {
	u := start(t, withUDP)
	stop := make(chan struct{})
	var flooding sync.WaitGroup
	defer flooding.Wait()
	defer close(stop)
	for range 4 {
		_, at := u.associate(t, anywhere)
		inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
		inner.send(at, to(peer.at, "first"))
		outside := peer.receive("first")
		flooding.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					inner.WriteToUDPAddrPort([]byte(to(peer.at, "flood")), at)
					peer.WriteToUDPAddrPort([]byte("flood"), outside)
				}
			}
		})
	}
	near, far := u.connect5(t)
	data := make([]byte, 5<<20)
	go func() {
		far.Write(data)
		far.CloseWrite()
	}()
	got, err := io.ReadAll(near)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(data, got))
	assert.Len(t, u.Connections(), 5)
}

// TestClosedPort: that the client's port is closed, which ICMP says, does not end the association.
func TestClosedPort(t *testing.T) {
	u := start(t, withUDP)
	_, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	closedPeer := datagramsAt(t, "127.0.0.3:0")
	inner.send(at, to(peer.at, "question"))
	outside := peer.receive("question")
	inner.Close()
	for range 3 {
		peer.send(outside, "nobody there")
	}
	require.Eventually(t, func() bool { return u.Connections()[0].Rx >= 12 }, patience, time.Millisecond)
	inner = datagramsAt(t, inner.at.String())
	closedPeer.Close()
	inner.send(at, to(closedPeer.at, "nobody there"))
	inner.send(at, to(peer.at, "question"))
	peer.receive("question")
	peer.send(outside, "answer")
	b := make([]byte, 100)
	for {
		n, _, err := inner.ReadFromUDPAddrPort(b)
		require.NoError(t, err)
		if string(b[:n]) == to(peer.at, "answer") {
			break
		}
		require.Equal(t, to(peer.at, "nobody there"), string(b[:n])) // on its way when the port opened again
	}
}

// TestAssociationWaitsForTheFirewall: the client is told the port when it is open for its address,
// and nothing is left open when it leaves before that.
func TestAssociationWaitsForTheFirewall(t *testing.T) {
	asked, answer := make(chan Opening, 1), make(chan error)
	undone := make(chan struct{}, 1)
	u := start(t, func(o *options) {
		withUDP(o)
		o.Open = func(_ context.Context, opening Opening, socket *os.File) (func(), error) {
			raw, err := socket.SyscallConn()
			require.NoError(t, err)
			require.NoError(t, raw.Control(func(fd uintptr) {
				assert.Equal(t, unix.IPPROTO_UDP, option(t, int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL))
				at, err := localAddr(int(fd))
				assert.NoError(t, err)
				assert.Equal(t, opening.Local, at)
			}))
			asked <- opening
			return func() { undone <- struct{}{} }, <-answer
		}
	})
	begin := func() client {
		near := dial(t, u.addr)
		near.send(greeting + ask5(commandAssociate, anywhere))
		near.receive(2)
		return near
	}
	near := begin()
	opening := <-asked
	assert.True(t, opening.UDP)
	assert.Equal(t, "127.0.0.1", opening.Peer.String())
	answer <- nil
	assert.Equal(t, opening.Local, near.reply5(reply5Granted))
	near.Close()
	<-undone

	near = begin()
	<-asked
	answer <- errors.New("no firewall")
	near.rejected5(reply5Failed)
	u.awaitLog(t, "connection 2 refused", "no firewall")

	near = begin()
	<-asked
	near.Close()
	u.awaitCount(t, 0)
	answer <- nil
	<-undone
}

// TestAssociationPorts: neither of the two ports is that of the SOCKS server, which is the only
// one of three that are free that it may not have.
func TestAssociationPorts(t *testing.T) {
	host := testnet.New(t, "ports")
	require.NoError(t, host.Set("net.ipv4.ip_local_port_range", "40000 40002"))
	require.NoError(t, host.Do(func() error {
		s := newServer(Options{AllowOwnAddresses: true}, defaultLimits())
		s.cfg.Port = 40001
		for range 30 {
			c := &conn{}
			inner, at, err := s.bindDatagrams(c, netip.MustParseAddr("127.0.0.1"))
			if err != nil {
				return err
			}
			outer, outside, err := s.bindDatagrams(c, netip.IPv4Unspecified())
			unix.Close(inner)
			unix.Close(outer)
			if err != nil {
				return err
			}
			assert.ElementsMatch(t, []uint16{40000, 40002}, []uint16{at.Port(), outside.Port()})
		}
		return nil
	}))
}

// TestManyAssociations has as many associations as there may be, each of which relays. The next of
// that client is refused; one of another client replaces one. Then there are none.
func TestManyAssociations(t *testing.T) {
	before := countDescriptors()
	u := start(t, func(o *options) {
		withUDP(o)
		o.SocketMemory = 1 << 20
	})
	with := countDescriptors()
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	var all []client
	for range MaxAssociations {
		near, at := u.associate(t, anywhere)
		all = append(all, near)
		inner.send(at, to(peer.at, "question"))
		outside := peer.receive("question")
		peer.send(outside, "answer")
		inner.receive(to(peer.at, "answer"))
	}
	assert.Equal(t, with+2+4*MaxAssociations, countDescriptors(), "3 of the server and one of the client for each")
	late := dial(t, u.addr)
	late.send(greeting + ask5(commandAssociate, anywhere))
	late.receive(2)
	late.rejected5(reply5Failed)
	late.Close()
	for n := range MaxAssociations / 2 {
		near := dialFrom(t, "127.0.0.7", u.addr)
		near.send(greeting + ask5(commandAssociate, anywhere))
		near.receive(2)
		near.reply5(reply5Granted)
		all[n].ended()
		all = append(all, near)
	}
	late = dialFrom(t, "127.0.0.7", u.addr)
	late.send(greeting + ask5(commandAssociate, anywhere))
	late.receive(2)
	late.rejected5(reply5Failed)
	assert.Len(t, u.Connections(), MaxAssociations)
	u.of(1, func(*conn) { given(t, u.Server) })
	for _, c := range all {
		c.Close()
	}
	u.awaitCount(t, 0)
	u.of(1, func(*conn) { assert.Zero(t, given(t, u.Server)) })
	inner.Close()
	peer.Close()
	late.Close()
	u.Shutdown()
	require.Eventually(t, func() bool { return countDescriptors() <= before }, patience, time.Millisecond)
}

// TestAssociationMemory: the buffers of an association are bounded, larger while datagrams move,
// and given back.
func TestAssociationMemory(t *testing.T) {
	const memory = anyPart << 20
	var clock movedClock
	u := start(t, func(o *options) {
		withUDP(o)
		clock.use(o)
		o.SocketMemory = memory
	})
	near, at := u.associate(t, anywhere)
	inner, peer := datagramsAt(t, "127.0.0.1:0"), datagramsAt(t, "127.0.0.2:0")
	first := memory / anyPart / firstPart
	buffers := func() (sizes []int) {
		u.of(1, func(c *conn) {
			for _, fd := range []int{c.udp.client.fd, c.udp.peers.fd} {
				sizes = append(sizes, option(t, fd, unix.SOL_SOCKET, unix.SO_RCVBUF), option(t, fd, unix.SOL_SOCKET, unix.SO_SNDBUF))
			}
		})
		return sizes
	}
	assert.Equal(t, []int{first / 2, first / 2, first / 2, first / 2}, buffers())
	for range 2 * first / 1000 {
		inner.send(at, to(peer.at, strings.Repeat("x", 1000)))
		peer.receive(strings.Repeat("x", 1000))
	}
	grown := buffers()
	assert.Greater(t, grown[0], first/2, "the client's receive buffer")
	assert.Greater(t, grown[3], first/2, "the peers' send buffer")
	assert.Equal(t, []int{first / 2, first / 2}, grown[1:3], "nothing moved that way")
	u.of(1, func(*conn) { assert.Greater(t, given(t, u.Server), first) })
	for range 4 {
		clock.forward(lookTime)
		clock.awaitTurn(t, u)
	}
	assert.Equal(t, []int{first / 2, first / 2, first / 2, first / 2}, buffers())
	near.Close()
	u.awaitCount(t, 0)
	u.of(1, func(*conn) { assert.Zero(t, given(t, u.Server)) })
}
