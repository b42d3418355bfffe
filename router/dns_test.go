package router

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/dns"
	"github.com/postern-router/postern/service"
)

// The sockets are open while it is enabled; without them the change is refused.
func TestDNSService(t *testing.T) {
	log, _ := testLog(t)
	supervisor := newSupervisor(log)
	supervisor.Program = "/no-program"
	defer supervisor.Stop()
	s := newDNSService(supervisor, log)
	opened, fail := 0, error(nil)
	s.listen = func() (udp, tcp *os.File, err error) {
		if fail != nil {
			return nil, nil, fail
		}
		opened++
		udp, tcp, err = os.Pipe()
		return udp, tcp, err
	}
	c := console.Default()
	require.NoError(t, s.Apply(c))
	assert.Nil(t, s.udp)
	fail = errors.New("port in use")
	c.DNSServer.Enabled = true
	require.ErrorIs(t, s.Apply(c), fail)
	fail = nil
	require.NoError(t, s.Apply(c))
	assert.NotNil(t, s.udp)
	c.DNS = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Apply(c))
	assert.Equal(t, 1, opened)
	c.DNSServer.Enabled = false
	require.NoError(t, s.Apply(c))
	assert.Nil(t, s.udp)
	s.Stop()
	assert.Equal(t, service.Stopped, s.process.Status().State)
	require.ErrorIs(t, s.Apply(c), service.ErrStopped)
}

// TestDNSProcess: the real process, confined as on the router, answers by a static name and by what
// a server says, over UDP and TCP.
func TestDNSProcess(t *testing.T) {
	upstream, err := net.ListenPacket("udp4", "127.0.0.2:53")
	require.NoError(t, err)
	defer upstream.Close()
	go func() {
		b := make([]byte, 512)
		for {
			_, from, err := upstream.ReadFrom(b)
			if err != nil {
				return
			}
			end := 12
			for b[end] != 0 {
				end += 1 + int(b[end])
			}
			a := append([]byte(nil), b[:end+5]...)
			a[2], a[3], a[7], a[11] = 0x81, 0x80, 1, 0 // one answer and no OPT
			a = append(a, 0xc0, 12, a[len(a)-4], a[len(a)-3], 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7)
			_, _ = upstream.WriteTo(a, from)
		}
	}()
	log, said := testLog(t)
	s := newDNSService(realSupervisor(t, log, said), log)
	s.listen = func() (udp, tcp *os.File, err error) {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53})
		require.NoError(t, err)
		defer u.Close()
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 53})
		require.NoError(t, err)
		defer l.Close()
		udp, err = u.File()
		require.NoError(t, err)
		tcp, err = l.File()
		return udp, tcp, err
	}
	c := console.Default()
	c.DNSServer.Enabled = true
	c.DNS = []netip.Addr{netip.MustParseAddr("127.0.0.2")}
	c.DNSServer.Static = []dns.Static{{Name: "nas.lan", Type: "A", Address: netip.MustParseAddr("192.168.0.5"), TTL: time.Hour}}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Taken(t.Context()))
	for _, network := range []string{"udp4", "tcp4"} {
		resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, "127.0.0.1:53")
		}}
		for name, want := range map[string]string{"nas.lan.": "192.168.0.5", "www.example.": "192.0.2.7"} {
			got, err := resolver.LookupNetIP(t.Context(), "ip4", name)
			require.NoError(t, err, name)
			assert.Equal(t, []netip.Addr{netip.MustParseAddr(want)}, got, name)
		}
	}
	require.NoError(t, s.Apply(c))
	require.NoError(t, s.Health())
	assert.Equal(t, 0, s.process.Status().Restarts)
	s.Stop()
}
