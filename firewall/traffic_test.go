package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/testnet"
	"github.com/postern-router/postern/match"
)

// patience is how long an answer may take that comes; only a test that fails waits so long.
const patience = time.Minute

// answer listens at an address of a host, and answers each packet with the name of the host and where it came from.
func answer(t *testing.T, h *testnet.Host, name, at string) {
	t.Helper()
	var c net.PacketConn
	require.NoError(t, h.Do(func() (err error) {
		c, err = net.ListenPacket("udp4", at)
		return err
	}))
	t.Cleanup(func() { c.Close() })
	go func() {
		for buffer := make([]byte, 64); ; {
			_, from, err := c.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = c.WriteTo([]byte(name+" "+from.String()), from) // a reader that misses it fails
		}
	}()
}

// Each action of nat translates the packets that it takes, and the answers back, and leaves the others as they are.
func TestTranslationTraffic(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer, server := testnet.New(t, "peer"), testnet.New(t, "server")
		connect(t, router, peer, 1)
		connect(t, router, server, 2)
		require.NoError(t, router.Set("net.ipv4.ip_forward", "1"))
		require.NoError(t, router.IP("addr add 10.0.2.77/24 dev to2", "addr add 10.0.2.78/24 dev to2"))
		for _, port := range []string{"7", "8", "9"} {
			answer(t, server, "server", "10.0.2.2:"+port)
		}
		answer(t, router, "router", ":5353")
		f := newFirewall(t, program)
		to := func(action string, change func(*Rule)) Rule {
			r := Rule{Chain: "srcnat", Action: action, Protocol: "udp", DstPort: ports("7"), OutInterface: "to2"}
			if change != nil {
				change(&r)
			}
			return r
		}
		dst := func(action, port string, change func(*Rule)) Rule {
			r := Rule{Chain: "dstnat", Action: action, Protocol: "udp", DstPort: ports(port)}
			change(&r)
			return r
		}
		toOwn := func(r *Rule) { r.JumpTarget = "own" }
		masquerade := Rule{Chain: "srcnat", Action: "masquerade", OutInterface: "to2"}
		back := Rule{Chain: "own", Action: "return", Protocol: "udp", DstPort: ports("7")}
		for i, test := range []struct {
			name string
			rule Rule
			// sent goes from a port of its own, %d, and is answered with want.
			sent, want string
			more       []Rule // behind rule
		}{
			{"none", Rule{Chain: "srcnat", Action: "passthrough"}, "10.0.2.2:7", "server 10.0.1.2:%d", nil},
			{"masquerade", to("masquerade", nil), "10.0.2.2:7", "server 10.0.2.1:%d", nil},
			{"masquerade leaves", to("masquerade", nil), "10.0.2.2:8", "server 10.0.1.2:%d", nil},
			{"masquerade to-ports", to("masquerade", func(r *Rule) { r.ToPorts = ports("6000") }), "10.0.2.2:7", "server 10.0.2.1:6000", nil},
			{"src-nat", to("src-nat", func(r *Rule) { r.ToAddresses, r.ToPorts = addresses("10.0.2.77"), ports("6001") }), "10.0.2.2:7", "server 10.0.2.77:6001", nil},
			{"src-nat leaves", to("src-nat", func(r *Rule) { r.ToAddresses = addresses("10.0.2.77") }), "10.0.2.2:9", "server 10.0.1.2:%d", nil},
			{"same", to("same", func(r *Rule) { r.ToAddresses = addresses("10.0.2.78") }), "10.0.2.2:7", "server 10.0.2.78:%d", nil},
			{"same leaves", to("same", func(r *Rule) { r.ToAddresses = addresses("10.0.2.78") }), "10.0.2.2:8", "server 10.0.1.2:%d", nil},
			{"accept", to("accept", nil), "10.0.2.2:7", "server 10.0.1.2:%d", []Rule{masquerade}},
			{"accept leaves", to("accept", nil), "10.0.2.2:8", "server 10.0.2.1:%d", []Rule{masquerade}},
			{"log goes on", to("log", nil), "10.0.2.2:7", "server 10.0.2.1:%d", []Rule{masquerade}},
			{"jump", to("jump", toOwn), "10.0.2.2:7", "server 10.0.2.1:%d", []Rule{{Chain: "own", Action: "masquerade"}}},
			{"jump leaves", to("jump", toOwn), "10.0.2.2:8", "server 10.0.1.2:%d", []Rule{{Chain: "own", Action: "masquerade"}}},
			{"return", to("jump", toOwn), "10.0.2.2:7", "server 10.0.1.2:%d", []Rule{back, {Chain: "own", Action: "masquerade"}}},
			{"return leaves", to("jump", func(r *Rule) { r.JumpTarget, r.DstPort = "own", match.Ports{} }), "10.0.2.2:8", "server 10.0.2.1:%d", []Rule{back, {Chain: "own", Action: "masquerade"}}},
			{"dst-nat", dst("dst-nat", "80", func(r *Rule) {
				r.DstAddress, r.ToAddresses, r.ToPorts = addresses("10.0.1.1"), addresses("10.0.2.2"), ports("8")
			}),
				"10.0.1.1:80", "server 10.0.1.2:%d", nil},
			{"dst-nat leaves", dst("dst-nat", "80", func(r *Rule) { r.ToAddresses, r.ToPorts = addresses("10.0.2.2"), ports("8") }), "10.0.1.1:5353", "router 10.0.1.2:%d", nil},
			{"redirect", dst("redirect", "53", func(r *Rule) { r.ToPorts = ports("5353") }), "192.0.2.1:53", "router 10.0.1.2:%d", nil},
			{"redirect leaves", dst("redirect", "53", func(r *Rule) { r.ToPorts = ports("5353") }), "10.0.2.2:7", "server 10.0.1.2:%d", nil},
			{"netmap", dst("netmap", "9", func(r *Rule) { r.DstAddress, r.ToAddresses = addresses("10.9.0.0/24"), addresses("10.0.2.0/24") }), "10.9.0.2:9", "server 10.0.1.2:%d", nil},
			{"netmap leaves", dst("netmap", "9", func(r *Rule) { r.DstAddress, r.ToAddresses = addresses("10.9.0.0/24"), addresses("10.0.2.0/24") }), "10.0.2.2:9", "server 10.0.1.2:%d", nil},
		} {
			require.NoError(t, f.Apply(Config{NAT: append([]Rule{test.rule}, test.more...)}), test.name)
			port := 4000 + i // a new connection
			want := strings.ReplaceAll(test.want, "%d", strconv.Itoa(port))
			require.NoError(t, peer.Do(func() error {
				c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 0, 1, 2), Port: port}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(test.sent)))
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					return err
				}
				if _, err := c.Write([]byte("x")); err != nil {
					return err
				}
				buffer := make([]byte, 64)
				n, err := c.Read(buffer)
				assert.NoError(t, err, test.name)
				assert.Equal(t, want, string(buffer[:n]), test.name)
				return nil
			}))
		}
	})
}

// Each way to reject answers with its own code, and what the rule leaves arrives.
func TestRejectTraffic(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer := testnet.New(t, "peer")
		connect(t, router, peer, 1)
		require.NoError(t, router.Set("net.ipv4.icmp_ratelimit", "0"))
		answer(t, router, "router", "10.0.1.1:8")
		listener, err := net.Listen("tcp4", "10.0.1.1:7")
		require.NoError(t, err)
		defer listener.Close()
		f := newFirewall(t, program)
		for name, code := range map[string]uint8{
			"": 0, "icmp-network-unreachable": 0, "icmp-host-unreachable": 1, "icmp-protocol-unreachable": 2, "icmp-port-unreachable": 3,
			"icmp-net-prohibited": 9, "icmp-host-prohibited": 10, "icmp-admin-prohibited": 13,
		} {
			require.NoError(t, f.Apply(Config{Filter: []Rule{{Chain: "input", Action: "reject", RejectWith: name, Protocol: "udp", DstPort: ports("7")}}}), name)
			require.NoError(t, peer.Do(func() error {
				assert.Equal(t, code, unreachable(t, [4]byte{10, 0, 1, 1}, 7), name)
				c, err := net.Dial("udp4", "10.0.1.1:8")
				if err != nil {
					return err
				}
				defer c.Close()
				if _, err = c.Write([]byte("x")); err == nil {
					if err = c.SetDeadline(time.Now().Add(patience)); err == nil {
						_, err = c.Read(make([]byte, 64))
					}
				}
				return err
			}), name)
		}
		dial := func() error {
			return peer.Do(func() error {
				c, err := net.DialTimeout("tcp4", "10.0.1.1:7", patience)
				if err == nil {
					c.Close()
				}
				return err
			})
		}
		require.NoError(t, dial())
		require.NoError(t, f.Apply(Config{Filter: []Rule{{Chain: "input", Action: "reject", RejectWith: "tcp-reset", Protocol: "tcp", DstPort: ports("7")}}}))
		require.ErrorIs(t, dial(), syscall.ECONNREFUSED)
	})
}

// unreachable sends a packet and returns the code with which somebody says that it does not arrive (sock_extended_err, linux/errqueue.h).
func unreachable(t *testing.T, to [4]byte, port int) uint8 {
	t.Helper()
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	require.NoError(t, err)
	defer unix.Close(s)
	require.NoError(t, unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_RECVERR, 1))
	require.NoError(t, unix.Sendto(s, []byte("x"), 0, &unix.SockaddrInet4{Port: port, Addr: to}))
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s)}}, int(patience.Milliseconds()))
		if err == unix.EINTR {
			continue
		}
		require.NoError(t, err)
		require.Equal(t, 1, n, "no answer")
		break
	}
	control := make([]byte, 256)
	_, n, _, _, err := unix.Recvmsg(s, make([]byte, 64), control, unix.MSG_ERRQUEUE)
	require.NoError(t, err)
	messages, err := unix.ParseSocketControlMessage(control[:n])
	require.NoError(t, err)
	for _, m := range messages {
		if m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR {
			require.EqualValues(t, 3, m.Data[5], "destination unreachable")
			return m.Data[6]
		}
	}
	t.Fatal("no error in the message")
	return 0
}

// Addresses, ports, protocols, interfaces, states and messages of ICMP take the packets that they should, and leave the others.
func TestPlainMatchersTraffic(t *testing.T) {
	withEach(t, func(t *testing.T, program string, router *testnet.Host) {
		peer, server := testnet.New(t, "peer"), testnet.New(t, "server")
		connect(t, router, peer, 1)
		connect(t, router, server, 2)
		require.NoError(t, router.Set("net.ipv4.ip_forward", "1"))
		require.NoError(t, peer.IP("addr add 10.0.1.5/24 dev eth0"))
		in := func(change func(*Rule)) Rule {
			r := Rule{Chain: "input", Action: "passthrough", Protocol: "udp"}
			change(&r)
			return r
		}
		forward := func(change func(*Rule)) Rule {
			r := in(change)
			r.Chain = "forward"
			return r
		}
		out := func(change func(*Rule)) Rule {
			r := in(change)
			r.Chain = "output"
			return r
		}
		icmp := func(options string) Rule {
			return Rule{Chain: "input", Action: "passthrough", Protocol: "icmp", ICMPOptions: options}
		}
		cases := []ruleCase{
			// From 10.0.1.2:4001 to port 7 and from 10.0.1.2:4002 to port 8 and from 10.0.1.5:4001 to port 7 of the router, and one through it.
			{in(func(r *Rule) { r.SrcAddress = addresses("10.0.1.2") }), 2}, {in(func(r *Rule) { r.SrcAddress = addresses("!10.0.1.2") }), 1},
			{in(func(r *Rule) { r.SrcAddress = addresses("10.0.1.0/30") }), 2}, {in(func(r *Rule) { r.SrcAddress = addresses("10.0.1.3-10.0.1.9") }), 1},
			{in(func(r *Rule) { r.SrcAddress = addresses("!10.0.1.3-10.0.1.9") }), 2}, {in(func(r *Rule) { r.DstAddress = addresses("10.0.1.1") }), 3},
			{in(func(r *Rule) { r.DstAddress = addresses("!10.0.1.0/24") }), 0},
			{in(func(r *Rule) { r.SrcPort = ports("4001") }), 2}, {in(func(r *Rule) { r.SrcPort = ports("!4001") }), 1}, {in(func(r *Rule) { r.SrcPort = ports("9,4000-4001") }), 2},
			{in(func(r *Rule) { r.DstPort = ports("7") }), 2}, {in(func(r *Rule) { r.DstPort = ports("7,8") }), 3}, {in(func(r *Rule) { r.DstPort = ports("!7") }), 1},
			{in(func(r *Rule) { r.Port = ports("4002") }), 1}, {in(func(r *Rule) { r.Port = ports("7") }), 2}, {in(func(r *Rule) { r.Port = ports("!4001,9") }), 1},
			{in(func(r *Rule) { r.Protocol = "17" }), 3}, {in(func(r *Rule) { r.Protocol = "!udp" }), 2}, {in(func(r *Rule) { r.Protocol = "tcp" }), 0}, {in(func(r *Rule) { r.Protocol = "" }), 5},
			{in(func(r *Rule) { r.InInterface = "to1" }), 3}, {in(func(r *Rule) { r.InInterface = "!to1" }), 0}, {in(func(r *Rule) { r.InInterface = "to2" }), 0},
			{in(func(r *Rule) { r.ConnectionState = "new" }), 3}, {in(func(r *Rule) { r.ConnectionState = "established,related" }), 0}, {in(func(r *Rule) { r.ConnectionState = "!new" }), 0},
			{in(func(r *Rule) { r.SrcAddressList, r.DstPort = "some", ports("7") }), 1}, {in(func(r *Rule) { r.SrcAddressList = "!some" }), 2},
			// An echo request, and an answer that nobody has asked for.
			{icmp("8:0"), 1}, {icmp("8"), 1}, {icmp("13:0"), 0}, {icmp(""), 2},
			{in(func(r *Rule) { r.Protocol, r.ConnectionState = "icmp", "invalid" }), 1}, {in(func(r *Rule) { r.Protocol, r.ConnectionState = "icmp", "!invalid" }), 1},
			{in(func(r *Rule) { r.ConnectionState = "invalid" }), 0},
			{forward(func(r *Rule) { r.OutInterface = "to2" }), 1}, {forward(func(r *Rule) { r.OutInterface = "!to2" }), 0},
			{forward(func(r *Rule) { r.InInterface, r.OutInterface = "to1", "to2" }), 1}, {forward(func(r *Rule) { r.InInterface = "to2" }), 0},
			// It counts, and decides nothing.
			{in(func(r *Rule) { r.Action, r.DstPort = "fasttrack-connection", ports("7") }), 2}, {in(func(r *Rule) { r.Action, r.ConnectionState = "fasttrack-connection", "established" }), 0},
			{in(func(r *Rule) { r.DstPort = ports("7") }), 2},
			// An answer of the router's, and what it sends by itself.
			{out(func(r *Rule) { r.ConnectionState = "established,related" }), 1}, {out(func(r *Rule) { r.ConnectionState = "!established" }), 1}, {out(func(r *Rule) { r.ConnectionState = "new" }), 1},
			{out(func(r *Rule) { r.Action, r.ConnectionState = "fasttrack-connection", "established,related" }), 1},
		}
		config := Config{AddressLists: map[string][]match.Addresses{"some": {addresses("10.0.1.4-10.0.1.6")}}}
		for _, c := range cases {
			config.Filter = append(config.Filter, c.rule)
		}
		config.Filter = append(config.Filter, Rule{Chain: "output", Action: "drop", Protocol: "icmp"}, Rule{Chain: "forward", Action: "drop", InInterface: "to2"})
		f := newFirewall(t, program)
		require.NoError(t, f.Apply(config))
		require.NoError(t, peer.Do(func() error {
			at := netip.MustParseAddrPort
			sendFrom(t, at("10.0.1.2:4001"), at("10.0.1.1:7"))
			sendFrom(t, at("10.0.1.2:4002"), at("10.0.1.1:8"))
			sendFrom(t, at("10.0.1.5:4001"), at("10.0.1.1:7"))
			sendFrom(t, at("10.0.1.2:4001"), at("10.0.2.2:7"))
			return errors.Join(sendEcho([4]byte{10, 0, 1, 1}, 8), sendEcho([4]byte{10, 0, 1, 1}, 0))
		}))
		for to, from := range map[string]string{"10.0.1.2:4001": "10.0.1.1:7", "10.0.1.2:4003": "10.0.1.1:9"} {
			require.NoError(t, peer.Do(func() error {
				c, err := net.ListenPacket("udp4", to)
				if err == nil {
					t.Cleanup(func() { c.Close() }) // without it the peer says that nobody listens
				}
				return err
			}))
			sendFrom(t, netip.MustParseAddrPort(from), netip.MustParseAddrPort(to))
		}
		got, err := f.Counters(Filter)
		require.NoError(t, err)
		for i, c := range cases {
			assert.Equal(t, c.want, got[i].Packets, fmt.Sprint(c.rule))
		}
	})
}

// sendEcho sends an echo request, which is of type 8, or an answer to one, of type 0.
func sendEcho(to [4]byte, kind byte) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	request := []byte{kind, 0, 0, 0, 0, 1, 0, 1}
	binary.BigEndian.PutUint16(request[2:], ^(uint16(kind)<<8 + 2))
	return unix.Sendto(s, request, 0, &unix.SockaddrInet4{Addr: to})
}
