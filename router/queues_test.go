package router

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/netcfg"
	"github.com/postern-router/postern/queue"
)

// shaped is a router with queues of all sorts. DAY is a day on which the test does not run.
const shaped = `/ip address
add address=10.1.0.2/24 interface=ether1
add address=192.168.88.1/24 interface=ether2
add address=192.168.99.1/24 interface=ether3
/ip route
add gateway=10.1.0.1
/ip firewall mangle
add action=mark-packet chain=forward dst-port=5060 new-packet-mark=voip passthrough=no protocol=udp
add action=mark-packet chain=postrouting dst-port=5061 new-packet-mark=late passthrough=no protocol=udp
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1
/queue simple
add name=today target=192.168.88.0/24 time=0s-1d,DAY
add name=off target=192.168.88.0/24 disabled=yes
add name=marked packet-marks=voip,late target=192.168.88.0/24
add name=all target=192.168.88.0/24 max-limit=16M
add name=one parent=all target=192.168.88.2 max-limit=8M
add name=site parent=all target=192.168.88.3,192.168.88.4 dst=198.51.100.0/24
add name=cable target=ether3 max-limit=8M burst-limit=16M burst-threshold=6M burst-time=4s
`

// Each packet is in the class of the first queue that matches, upwards and downwards, with the addresses of the LAN although the source is
// translated, and a queue never lets more through than its limit.
func TestQueuesOfTraffic(t *testing.T) {
	day := []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}[(time.Now().UTC().Weekday()+3)%7]
	result, err := new(console.Session).Import(console.Default(), console.Live{}, strings.Replace(shaped, "DAY", day, 1), func(c console.Config) error {
		return console.Validate(c, []string{"ether1", "ether2", "ether3"})
	})
	require.NoError(t, err)
	c := result.Config
	router, isp, lan, cable := testnet.New(t, "router"), testnet.New(t, "isp"), testnet.New(t, "lan"), testnet.New(t, "cable")
	for i, h := range []*testnet.Host{isp, lan, cable} {
		require.NoError(t, testnet.Link(router, fmt.Sprint("ether", i+1), h, "eth0"))
	}
	const site, other = "198.51.100.9", "203.0.113.9"
	require.NoError(t, isp.IP("addr add 10.1.0.1/24 dev eth0", "addr add "+site+"/32 dev lo", "addr add "+other+"/32 dev lo"))
	require.NoError(t, lan.IP("addr add 192.168.88.2/24 dev eth0", "addr add 192.168.88.3/24 dev eth0", "addr add 192.168.88.5/24 dev eth0", "route add default via 192.168.88.1"))
	require.NoError(t, cable.IP("addr add 192.168.99.2/24 dev eth0", "route add default via 192.168.99.1"))
	var network *netcfg.Manager
	require.NoError(t, router.Do(func() (err error) {
		network, err = netcfg.New([]netcfg.Port{{Name: "ether1", Device: "ether1"}, {Name: "ether2", Device: "ether2"}, {Name: "ether3", Device: "ether3"}}, t.Logf)
		require.NoError(t, err)
		network.PlainQueues = true
		fw, err := firewall.New("iptables-legacy")
		require.NoError(t, err)
		n := c.Network()
		n.Forwarding = true
		if err := network.Apply(n); err != nil {
			return err
		}
		return fw.Apply(c.Rules())
	}))
	counters := func() (all map[uint16]netcfg.ClassCounters) {
		require.NoError(t, router.Do(func() (err error) {
			all, err = network.QueueCounters()
			return err
		}))
		return all
	}
	totals := queue.Total(c.Queues)
	assert.NotContains(t, totals, "off")

	for _, address := range []string{site + ":5060", site + ":5061", site + ":7", other + ":7"} {
		require.NoError(t, isp.Do(func() error {
			l, err := net.ListenPacket("udp4", address)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close() })
			go func() {
				b := make([]byte, 1000)
				for {
					n, from, err := l.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = l.WriteTo(b[:n], from)
				}
			}()
			return nil
		}))
	}
	const packets = 5
	for _, test := range []struct {
		host     *testnet.Host
		from, to string
		up, down string // the queues that have the packets, with what they are in
	}{
		// The answers have no mark.
		{lan, "192.168.88.5", site + ":5060", "marked", "all"},
		{lan, "192.168.88.5", site + ":5061", "marked", "all"},
		{lan, "192.168.88.2", site + ":7", "one all", "one all"},
		{lan, "192.168.88.3", site + ":7", "site all", "site all"},
		{lan, "192.168.88.3", other + ":7", "all", "all"},
		{lan, "192.168.88.5", site + ":7", "all", "all"},
		{cable, "192.168.99.2", site + ":7", "cable", "cable"},
	} {
		before := counters()
		require.NoError(t, test.host.Do(func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(test.from)}}
			conn, err := d.Dial("udp4", test.to)
			if err != nil {
				return err
			}
			defer conn.Close()
			if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				return err
			}
			for range packets {
				if _, err := conn.Write(make([]byte, 100)); err != nil {
					return err
				}
				if _, err := io.ReadFull(conn, make([]byte, 100)); err != nil {
					return err
				}
			}
			return nil
		}), test)
		after := counters()
		for name, ids := range totals {
			for d, want := range []string{test.up, test.down} {
				n := uint64(0)
				if strings.Contains(" "+want+" ", " "+name+" ") {
					n = packets
				}
				assert.Equal(t, n, after[ids[d]].Packets-before[ids[d]].Packets, "%s, direction %d of %s", name, d, test.from+" to "+test.to)
				assert.Equal(t, n*142, after[ids[d]].Bytes-before[ids[d]].Bytes)
			}
		}
	}

	// TCP is never faster than the limit, after the bucket of 0.1 seconds: but for a segment that the kernel takes whole, of 64 KiB.
	const size, segment = 1_200_000, 64 << 10
	l, err := isp.Listen(site + ":80")
	require.NoError(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 1)
				if _, err := io.ReadFull(conn, b); err != nil {
					return
				}
				if b[0] == 'd' {
					_, _ = conn.Write(make([]byte, size))
					return
				}
				_, _ = io.Copy(io.Discard, conn)
				_, _ = conn.Write([]byte("."))
			}()
		}
	}()
	transfer := func(host *testnet.Host, from string, down bool) time.Duration {
		began := time.Now()
		conn, err := host.Dial(&net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}, site+":80")
		require.NoError(t, err)
		defer conn.Close()
		require.NoError(t, conn.SetDeadline(time.Now().Add(5*time.Minute)))
		if down {
			_, err = conn.Write([]byte("d"))
			require.NoError(t, err)
			n, err := io.Copy(io.Discard, conn)
			require.NoError(t, err)
			require.EqualValues(t, size, n)
		} else {
			_, err = conn.Write([]byte("u"))
			require.NoError(t, err)
			_, err = conn.Write(make([]byte, size))
			require.NoError(t, err)
			require.NoError(t, conn.CloseWrite())
			_, err = io.ReadFull(conn, make([]byte, 1))
			require.NoError(t, err)
		}
		return time.Since(began)
	}
	for _, test := range []struct {
		host  *testnet.Host
		from  string
		queue string
		most  func(seconds float64) float64
	}{
		{lan, "192.168.88.2", "one", func(s float64) float64 { return 1e6*s + 1e5 }},
		{lan, "192.168.88.5", "all", func(s float64) float64 { return 2e6*s + 2e5 }},
		// The burst is half of what 6 Mbit/s are in 4 seconds, at no more than 16 Mbit/s.
		{cable, "192.168.99.2", "cable", func(s float64) float64 { return min(2e6*s+2e5, 1e6*s+1.5e6+1e5) }},
	} {
		for d, down := range []bool{false, true} {
			before := counters()[totals[test.queue][d]]
			took := transfer(test.host, test.from, down)
			assert.LessOrEqual(t, float64(size), test.most(took.Seconds())+segment, "%s, direction %d, in %v", test.queue, d, took)
			assert.GreaterOrEqual(t, counters()[totals[test.queue][d]].Bytes-before.Bytes, uint64(size))
			t.Logf("%s, direction %d: %.2f Mbit/s", test.queue, d, size*8/took.Seconds()/1e6)
		}
	}

	// What the router itself sends to a host of the LAN, as SOCKS does, is a download too.
	rl, err := lan.Listen("192.168.88.2:81")
	require.NoError(t, err)
	defer rl.Close()
	before := counters()[totals["one"][queue.Down]]
	conn, err := router.Dial(&net.Dialer{Timeout: time.Minute}, "192.168.88.2:81")
	require.NoError(t, err)
	conn.Close()
	assert.GreaterOrEqual(t, counters()[totals["one"][queue.Down]].Packets-before.Packets, uint64(2))
}
