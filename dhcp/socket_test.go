package dhcp

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/testnet"
)

// network is two hosts on a cable. index and mac are those of eth0 of each.
type network struct{ a, b end }

type end struct {
	*testnet.Host
	index int
	mac   ether.MAC
}

func newNetwork(t *testing.T) network {
	var n network
	n.a.Host, n.b.Host = testnet.New(t, "a"), testnet.New(t, "b")
	require.NoError(t, testnet.Link(n.a.Host, "eth0", n.b.Host, "eth0"))
	require.NoError(t, n.a.IP("addr add 192.0.2.1/24 dev eth0"))
	require.NoError(t, n.b.IP("addr add 192.0.2.2/24 dev eth0"))
	for _, e := range []*end{&n.a, &n.b} {
		require.NoError(t, e.Do(func() error {
			i, err := net.InterfaceByName("eth0")
			if err == nil {
				e.index, e.mac = i.Index, ether.MAC(i.HardwareAddr)
			}
			return err
		}))
	}
	return n
}

// conn opens a socket on a host.
func (e end) conn(t *testing.T, open func() (*os.File, error)) *ether.Conn {
	var c *ether.Conn
	require.NoError(t, e.Do(func() error {
		f, err := open()
		if err == nil {
			c, err = ether.NewConn(f)
		}
		return err
	}))
	t.Cleanup(func() { c.Close() })
	return c
}

func (e end) udp(t *testing.T, port uint16) *ether.Conn {
	return e.conn(t, func() (*os.File, error) { return OpenUDP(e.index, port) })
}

const testTime = time.Minute // which only a test that fails reaches

func (e end) send(t *testing.T, local, remote, payload string) {
	require.NoError(t, e.Do(func() error {
		d := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.MustParseAddrPort(local))}
		c, err := d.Dial("udp4", remote)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte(payload))
		return err
	}))
}

func read(t *testing.T, c *ether.Conn) (Packet, bool) {
	b := make([]byte, ether.MaxFrame)
	require.NoError(t, c.SetReadDeadline(time.Now().Add(testTime)))
	n, ready, err := c.Read(b)
	require.NoError(t, err)
	p, err := ParsePacket(b[:n], ready)
	require.NoError(t, err)
	return p, ready
}

// TestOpenUDP lets through what is for the port, in whatever way it came, and nothing else.
func TestOpenUDP(t *testing.T) {
	n := newNetwork(t)
	server, sender := n.a.udp(t, ServerPort), n.b.udp(t, ClientPort)

	// By the kernel of the other side: nobody computes its checksum on the way.
	n.b.send(t, "192.0.2.2:68", "192.0.2.1:67", "by the kernel")
	p, ready := read(t, server)
	assert.Equal(t, "by the kernel", string(p.Payload))
	assert.Equal(t, netip.MustParseAddrPort("192.0.2.2:68"), p.From)
	assert.False(t, ready, "a virtual link leaves the checksum to whoever needs it")

	other := discover("to another machine")
	other.ToMAC = ether.MAC{2, 9, 9, 9, 9, 9}
	port := discover("to another port")
	port.To = netip.MustParseAddrPort("255.255.255.255:69")
	fragment := discover("a fragment").Append(nil)
	fragment[20] = 0x20
	for _, frame := range [][]byte{other.Append(nil), port.Append(nil), fragment, Probe(n.b.mac, ip("192.0.2.1")).Append(nil), {1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6, 8, 0}} {
		require.NoError(t, sender.Write(frame))
	}
	// What this machine sends itself is not for it.
	require.NoError(t, server.Write(discover("from here").Append(nil)))
	require.NoError(t, sender.Write(discover("to all").Append(nil)))
	p, ready = read(t, server)
	assert.Equal(t, "to all", string(p.Payload))
	assert.True(t, ready)
	own := discover("to its address")
	own.ToMAC = n.a.mac
	require.NoError(t, sender.Write(own.Append(nil)))
	p, _ = read(t, server)
	assert.Equal(t, "to its address", string(p.Payload))
}

func TestOpenARP(t *testing.T) {
	n := newNetwork(t)
	prober := n.a.conn(t, func() (*os.File, error) { return OpenARP(n.a.index) })
	require.NoError(t, prober.Write(Probe(n.a.mac, ip("192.0.2.2")).Append(nil)))
	b := make([]byte, ether.MaxFrame)
	require.NoError(t, prober.SetReadDeadline(time.Now().Add(testTime)))
	for {
		size, _, err := prober.Read(b)
		require.NoError(t, err)
		if a, err := ParseARP(b[:size]); err == nil && a.Has(ip("192.0.2.2"), n.a.mac) {
			assert.Equal(t, n.b.mac, a.SenderMAC)
			return
		}
	}
}

// TestFilterIsLocked is that of a process that would see more.
func TestFilterIsLocked(t *testing.T) {
	n := newNetwork(t)
	for name, open := range map[string]func() (*os.File, error){
		"UDP":    func() (*os.File, error) { return OpenUDP(n.a.index, ClientPort) },
		"ARP":    func() (*os.File, error) { return OpenARP(n.a.index) },
		"parked": func() (*os.File, error) { return Park("eth0", ClientPort) },
	} {
		t.Run(name, func(t *testing.T) {
			require.NoError(t, n.a.Do(func() error {
				f, err := open()
				if err != nil {
					return err
				}
				defer f.Close()
				assert.ErrorIs(t, unix.SetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0), unix.EPERM)
				all := unix.SockFilter{Code: 6, K: 0xFFFF} // BPF_RET
				assert.ErrorIs(t, unix.SetsockoptSockFprog(int(f.Fd()), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all}), unix.EPERM)
				return nil
			}))
		})
	}
}

// TestLinkDown reads from an interface that goes down and comes back.
func TestLinkDown(t *testing.T) {
	n := newNetwork(t)
	c, sender := n.a.udp(t, ClientPort), n.b.udp(t, ServerPort)
	require.NoError(t, n.a.IP("link set eth0 down"))
	require.NoError(t, c.SetReadDeadline(time.Now().Add(testTime)))
	_, _, err := c.Read(make([]byte, ether.MaxFrame))
	assert.True(t, ether.Temporary(err), "%v", err)
	err = c.Write(discover("down").Append(nil))
	assert.True(t, ether.Temporary(err), "%v", err)
	require.NoError(t, n.a.IP("link set eth0 up"))
	p := Packet{n.b.mac, ether.Broadcast, netip.MustParseAddrPort("192.0.2.2:67"), netip.MustParseAddrPort("255.255.255.255:68"), []byte("up")}
	// What is sent while the kernel has the link not ready again is lost.
	ctx, cancel := context.WithCancel(t.Context())
	var sending sync.WaitGroup
	sending.Go(func() {
		for ctx.Err() == nil {
			_ = sender.Write(p.Append(nil))
			time.Sleep(10 * time.Millisecond)
		}
	})
	got, _ := read(t, c)
	cancel()
	sending.Wait()
	assert.Equal(t, "up", string(got.Payload))
	require.NoError(t, c.SetReadDeadline(time.Unix(1, 0)))
	_, _, err = c.Read(make([]byte, ether.MaxFrame))
	assert.ErrorIs(t, err, os.ErrDeadlineExceeded)
}

// TestPark sends a datagram to a port that nobody else listens on: the sender of the first is told
// so, with a parked socket that of the second is not, and a packet socket has it.
func TestPark(t *testing.T) {
	n := newNetwork(t)
	client := n.a.udp(t, ClientPort)
	var conn net.Conn
	require.NoError(t, n.b.Do(func() (err error) {
		conn, err = (&net.Dialer{LocalAddr: &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 67}}).Dial("udp4", "192.0.2.1:68")
		return err
	}))
	defer conn.Close()
	exchange := func() error {
		_, err := conn.Write([]byte("to a client"))
		require.NoError(t, err)
		read(t, client)
		// The kernel has looked for a socket by now, or does it before it replies to a later one.
		_, err = n.b.Dial(nil, "192.0.2.1:9")
		require.ErrorIs(t, err, unix.ECONNREFUSED)
		require.NoError(t, conn.SetReadDeadline(time.Now().Add(-time.Second)))
		raw, err := conn.(*net.UDPConn).SyscallConn()
		require.NoError(t, err)
		var failure error
		require.NoError(t, raw.Control(func(fd uintptr) {
			code, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
			failure = errors.Join(err, errno(code))
		}))
		return failure
	}
	assert.ErrorIs(t, exchange(), unix.ECONNREFUSED)
	var parked *os.File
	require.NoError(t, n.a.Do(func() (err error) { parked, err = Park("eth0", ClientPort); return err }))
	defer parked.Close()
	assert.NoError(t, exchange())
}

func errno(code int) error {
	if code == 0 {
		return nil
	}
	return unix.Errno(code)
}

// TestVLANTagged sends a frame of a VLAN that is not configured here.
func TestVLANTagged(t *testing.T) {
	n := newNetwork(t)
	c, sender := n.a.udp(t, ClientPort), n.b.udp(t, ServerPort)
	p := Packet{n.b.mac, ether.Broadcast, netip.MustParseAddrPort("192.0.2.2:67"), netip.MustParseAddrPort("255.255.255.255:68"), []byte("tagged")}
	frame := p.Append(nil)
	tagged := append(append(append([]byte{}, frame[:12]...), 0x81, 0, 0, 5), frame[12:]...)
	require.NoError(t, sender.Write(tagged))
	p.Payload = []byte("untagged")
	require.NoError(t, sender.Write(p.Append(nil)))
	got, _ := read(t, c)
	assert.Equal(t, "untagged", string(got.Payload), "a frame of a VLAN is none of the port's own")
}
