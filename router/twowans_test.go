package router

import (
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/firewall"
	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/netcfg"
)

// wans are the exports of a router with two providers, as RouterOS 7 and 6 write them. What they have in common is rest.
var wans = map[string]string{
	"7": `# 2024-02-13 03:12:22 by RouterOS 7.5
/routing table
add disabled=no fib name=to-isp2
add comment="nobody takes it" disabled=no name=unused
/ip address
add address=10.1.0.2/24 interface=ether1 network=10.1.0.0
add address=10.2.0.2/24 interface=ether2 network=10.2.0.0
add address=192.168.88.1/24 interface=ether3 network=192.168.88.0
` + rest + `/ip route
add disabled=no distance=1 dst-address=0.0.0.0/0 gateway=10.1.0.1 routing-table=main
add disabled=no distance=1 dst-address=0.0.0.0/0 gateway=10.2.0.1 routing-table=to-isp2
/routing rule
add action=lookup-only-in-table disabled=no src-address=192.168.88.3/32 table=to-isp2
add action=unreachable disabled=no dst-address=203.0.113.0/24
add action=lookup-only-in-table disabled=no src-address=192.168.88.4/32 table=unused
`,
	"6": `# jan/04/2022 13:05:44 by RouterOS 6.48
/ip address
add address=10.1.0.2/24 interface=ether1 network=10.1.0.0
add address=10.2.0.2/24 interface=ether2 network=10.2.0.0
add address=192.168.88.1/24 interface=ether3 network=192.168.88.0
` + rest + `/ip route
add distance=1 gateway=10.2.0.1 routing-mark=to-isp2
add distance=1 gateway=10.1.0.1
/ip route rule
add action=lookup-only-in-table src-address=192.168.88.3/32 table=to-isp2
add action=unreachable dst-address=203.0.113.0/24
`,
}

const rest = `/ip firewall mangle
add action=mark-connection chain=prerouting connection-mark=no-mark in-interface=ether2 new-connection-mark=isp2 passthrough=yes
add action=mark-routing chain=prerouting connection-mark=isp2 in-interface=ether3 new-routing-mark=to-isp2 passthrough=no
add action=mark-routing chain=output connection-mark=isp2 new-routing-mark=to-isp2 passthrough=no
add action=mark-routing chain=prerouting dst-port=5000 in-interface=ether3 new-routing-mark=to-isp2 protocol=udp
/ip firewall nat
add action=masquerade chain=srcnat out-interface=ether1
add action=masquerade chain=srcnat out-interface=ether2
add action=dst-nat chain=dstnat dst-port=8080 in-interface=ether2 protocol=tcp to-addresses=192.168.88.2 to-ports=80
`

// Marks and rules lead to their table of routes, and the answers of what comes in by the second provider leave by it, although
// sources are checked strictly.
func TestTwoWANs(t *testing.T) {
	for version, text := range wans {
		t.Run(version, func(t *testing.T) {
			result, err := new(console.Session).Import(console.Default(), console.Live{}, text, func(c console.Config) error {
				return console.Validate(c, []string{"ether1", "ether2", "ether3"})
			})
			require.NoError(t, err)
			testTwoWANs(t, result.Config)
			if t.Failed() {
				return
			}
			again, err := new(console.Session).Import(console.Default(), console.Live{}, console.Export(result.Config), func(console.Config) error { return nil })
			require.NoError(t, err)
			assert.Equal(t, console.Export(result.Config), console.Export(again.Config))
		})
	}
}

func testTwoWANs(t *testing.T, c console.Config) {
	router, lan := testnet.New(t, "router"), testnet.New(t, "lan")
	isps := []*testnet.Host{testnet.New(t, "isp1"), testnet.New(t, "isp2")}
	const server = "198.51.100.99" // behind either provider
	for i, isp := range isps {
		require.NoError(t, testnet.Link(router, fmt.Sprint("ether", i+1), isp, "eth0"))
		require.NoError(t, isp.IP(fmt.Sprintf("addr add 10.%d.0.1/24 dev eth0", i+1), "addr add "+server+"/32 dev lo"))
	}
	require.NoError(t, testnet.Link(router, "ether3", lan, "eth0"))
	require.NoError(t, lan.IP("addr add 192.168.88.2/24 dev eth0", "addr add 192.168.88.3/24 dev eth0", "addr add 192.168.88.4/24 dev eth0", "route add default via 192.168.88.1"))
	require.NoError(t, router.Do(func() error {
		network, err := netcfg.New([]netcfg.Port{{Name: "ether1", Device: "ether1"}, {Name: "ether2", Device: "ether2"}, {Name: "ether3", Device: "ether3"}}, t.Logf)
		require.NoError(t, err)
		fw, err := firewall.New("iptables-legacy")
		require.NoError(t, err)
		n := c.Network()
		n.Forwarding = true
		if err := network.Apply(n); err != nil {
			return err
		}
		return fw.Apply(c.Rules())
	}))

	// answers is the number of the provider that answers a datagram to a port, 0 for none.
	for i, isp := range isps {
		for _, port := range []int{5000, 5001} {
			require.NoError(t, isp.Do(func() error {
				l, err := net.ListenPacket("udp4", fmt.Sprint(server, ":", port))
				if err != nil {
					return err
				}
				t.Cleanup(func() { l.Close() })
				go func() {
					b := make([]byte, 100)
					for {
						_, from, err := l.ReadFrom(b)
						if err != nil {
							return
						}
						_, _ = l.WriteTo([]byte{byte(i + 1)}, from)
					}
				}()
				return nil
			}))
		}
	}
	answers := func(from, to string) (provider int, err error) {
		err = lan.Do(func() error {
			d := net.Dialer{LocalAddr: &net.UDPAddr{IP: net.ParseIP(from)}}
			c, err := d.Dial("udp4", to)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
				return err
			}
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
			b := make([]byte, 1)
			_, err = c.Read(b)
			provider = int(b[0])
			return err
		})
		return provider, err
	}
	for _, test := range []struct {
		from, port string
		want       int
	}{{"192.168.88.2", "5001", 1}, {"192.168.88.2", "5000", 2}, {"192.168.88.3", "5001", 2}, {"192.168.88.3", "5000", 2}} {
		got, err := answers(test.from, server+":"+test.port)
		require.NoError(t, err, test)
		assert.Equal(t, test.want, got, test)
	}
	_, err := lan.Dial(&net.Dialer{Timeout: time.Minute}, "203.0.113.5:5001")
	assert.ErrorContains(t, err, "network is unreachable")

	// What comes in by the second provider is answered there: by a host of the LAN, and by the router.
	for _, listener := range []struct {
		host         *testnet.Host
		address, via string
	}{{lan, "192.168.88.2:80", "10.2.0.2:8080"}, {router, "10.2.0.2:7", "10.2.0.2:7"}} {
		l, err := listener.host.Listen(listener.address)
		require.NoError(t, err)
		defer l.Close()
		require.NoError(t, isps[1].IP("route replace default via 10.2.0.2"))
		conn, err := isps[1].Dial(&net.Dialer{Timeout: time.Minute, LocalAddr: &net.TCPAddr{IP: net.ParseIP(server)}}, listener.via)
		require.NoError(t, err, listener.address)
		conn.Close()
	}
}
