package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/e2e"
)

// hostileLeft is how much memory in MiB packets of a host without any connection leave the smallest
// board at least, beside what it serves. What they take cannot be told apart: the buffers of what is served grow and
// shrink meanwhile. The tables that they fill take 1.5 together; before there was a bound fragments took 4.4, which is
// more than there is then.
const hostileLeft = 1.5

// TestHostilePackets sends the smallest board what no honest host sends, while it serves: the
// tables of its kernel that packets fill are bounded, and false sources are not believed.
func TestHostilePackets(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	r, streams, to := startLoaded(t, func(*net.TCPConn) {})
	r.awaitLinks(t)
	kept := streams[:450] // what is served meanwhile: nearly all that there may be
	for _, s := range kept {
		require.NoError(t, r.openSlow(s, to, slowWindow, patience), "connection %d", s.number)
		t.Cleanup(func() { s.client.Close() })
		go s.receive(slowRead)
	}
	// flood sends so many packets, and goes on until an honest client has been served meanwhile.
	flood := func(name string, from host, packets int, packet func(i int) []byte, meanwhile ...func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			before, _ := r.freeMemory(t)
			sent, stop := r.sendUntil(t, from, packets, packet)
			_, reply := r.request(t, client, commandConnect, to.String())
			assert.EqualValues(t, granted, reply.code, "while it goes on")
			for _, f := range meanwhile {
				f(t)
			}
			after, took := r.freeMemory(t)
			stop()
			t.Logf("%d packets: free memory %.1f MiB before, %.1f MiB after; the console answered in %v",
				sent.Load(), before, after, took.Round(time.Millisecond))
			assert.Greater(t, after, hostileLeft, "MiB that the packets left")
			_, reply = r.request(t, client, commandConnect, to.String())
			assert.EqualValues(t, granted, reply.code)
		})
	}
	wan, lan := netip.MustParseAddr(wanAddress), netip.MustParseAddr(lanAddress)
	random := func(i int) netip.Addr {
		return netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
	}
	// A host talks with the router for longer than PID 1 takes until it looks who is there (netcfg.KeepNeighbors), and then not for as long
	// as the kernel would count on it (base_reachable_time_ms, arp(7)).
	const talksFor, silentFor = 30 * time.Second, 46 * time.Second
	talk := r.n.command(other, "ping", "-q", lanAddress)
	require.NoError(t, talk.Start())
	talksSince := time.Now()
	stopTalking := sync.OnceFunc(func() { _ = talk.Process.Kill(); _ = talk.Wait() })
	t.Cleanup(stopTalking)
	flood("fragments of datagrams that never end", stranger, 4500, func(i int) []byte {
		return packet(unix.IPPROTO_UDP, netip.MustParseAddr(strangerAddress), wan, moreFragments, uint16(i), 1400)
	})
	flood("fragments of ever new hosts", stranger, 4500, func(i int) []byte {
		return packet(unix.IPPROTO_UDP, random(i), wan, moreFragments, uint16(i), 1400)
	})
	t.Run("honest fragments after these", func(t *testing.T) {
		require.NoError(t, retry(func() error { return r.n.run(stranger, "ping", "-c", "1", "-W", "1", "-s", "3000", wanAddress) }))
	})
	time.Sleep(talksFor - time.Since(talksSince))
	stopTalking()
	silentSince := time.Now()
	// Of hosts that do not exist: one that does would reset what it did not ask for.
	synOfAbsent := func(i int) []byte {
		return synPacket(netip.AddrFrom4([4]byte{192, 168, 0, byte(100 + i%100)}), lan, uint16(1024+i), 1080)
	}
	flood("connections that are never complete", client, 20000, synOfAbsent, func(t *testing.T) {
		r.awaitLog(t, `warning kernel: TCP: request_sock_TCP: Possible SYN flooding on port`)
	})
	flood("messages about the MTU of paths", stranger, 8000, func(i int) []byte {
		return tooLong(random(i/2), wan, i%2 == 0)
	})
	t.Run("the MTU of a path after these", r.pathMTU)
	time.Sleep(silentFor - time.Since(silentSince))
	// The network before the router is larger than the ARP table.
	r.command(t, "/ip address add address=10.2.0.1/16 interface=ether1")
	toAbsent := func(i int) []byte {
		absent := netip.AddrFrom4([4]byte{10, 2, 1 + byte(i%600/200), byte(1 + i%200)})
		return datagram(netip.MustParseAddr(clientAddress), absent, 9, 1400) // one without a length is invalid, and dropped by the rules
	}
	flood("packets to hosts that do not exist", client, 7600, toAbsent, func(t *testing.T) {
		require.NoError(t, retry(func() error {
			listed := r.command(t, "/ip arp print count-only")
			if n, err := strconv.Atoi(strings.TrimSpace(listed)); err != nil || n < 240 { // of 256, some of which have just failed
				return fmt.Errorf("%s neighbours", listed)
			}
			return nil
		}))
		// Who has talked with the router before, and was silent since, is there all the same: others wait for a place by chance.
		assert.Contains(t, r.command(t, "/ip arp print where address="+otherAddress), " DC "+otherAddress+" ")
		require.NoError(t, r.n.awaitPing(other, lanAddress))
		// The gateway's entry is made anew.
		r.command(t, "/ip arp remove [find address="+gatewayAddress+"]")
		_, reply := r.request(t, client, commandConnect, to.String())
		assert.EqualValues(t, granted, reply.code, "by the gateway, which has just been forgotten")
		r.awaitShown(t, "/ip arp print", `DC `+regexp.QuoteMeta(gatewayAddress)+` `)
		r.awaitLog(t, `interface,warning kernel: neighbour: arp_cache: neighbor table overflow`)
	})
	r.command(t, "/ip firewall filter print") // place-before=0 is the first of this
	r.command(t, "/ip firewall filter add chain=input action=drop protocol=udp dst-port=9 dst-limit=5/1m,5,src-address/1m40s place-before=0")
	perSource := func(i int) []byte { return datagram(random(i), wan, 9, 20) }
	flood("hosts that a rule counts for", stranger, 5000, perSource)
	r.command(t, "/ip dns set servers="+serverAddress+" allow-remote-requests=yes")
	noNames := func(i int) []byte { return datagram(netip.MustParseAddr(clientAddress), lan, 53, 1400) }
	flood("datagrams to a program, faster than it reads", client, 10000, noNames)
	fragments := func(i int) []byte {
		return packet(unix.IPPROTO_UDP, random(i), wan, moreFragments, uint16(i), 1400)
	}
	t.Run("all together", func(t *testing.T) {
		before, _ := r.freeMemory(t)
		lowest := before
		var stops []func()
		for _, f := range []struct {
			from   host
			packet func(i int) []byte
		}{{stranger, fragments}, {stranger, perSource}, {client, toAbsent}, {other, synOfAbsent}, {other, noNames}} {
			_, stop := r.sendUntil(t, f.from, 5000, f.packet)
			stops = append(stops, stop)
		}
		for range 4 {
			_, reply := r.request(t, client, commandConnect, to.String())
			assert.EqualValues(t, granted, reply.code, "while they go on")
			free, _ := r.freeMemory(t)
			lowest = min(lowest, free)
		}
		for _, stop := range stops {
			stop()
		}
		t.Logf("all together: free memory %.1f MiB before, %.1f MiB at the least", before, lowest)
		assert.Greater(t, lowest, hostileLeft, "MiB that all of them left")
	})
	for _, s := range kept {
		if err := s.failed.Load(); err != nil {
			t.Errorf("connection %d after %d bytes: %v", s.number, s.read.Load(), *err)
		}
	}
	assert.NotRegexp(t, `(?i)out of memory|oom|page allocation failure|socksd.*(ended|exit|restart)`, r.m.screen.all())
	assert.NotContains(t, r.command(t, "/log print"), "parameter of the kernel")
	assert.NotContains(t, r.command(t, "/log print"), "size the kernel's tables")
	for _, s := range kept {
		s.client.Close()
	}
	t.Run("false sources", r.falseSources)
	t.Run("ARP on the link before the router", r.foreignARP)
	t.Run("odd user ids", r.oddUsers)
	t.Run("ever other hardware addresses", r.manyHardwareAddresses)
	t.Run("a host with ever more connections", r.manyConnections)
	t.Run("a change of nat", r.natLate)
	t.Run("a flood that a rule logs", r.loggedFlood)
}

// sendUntil sends packets from a host, so many at least, until stop is called: 5,000 a second of the router's time. Faster than a router
// that the host has no time for can look at them they would keep out everybody, as its port has room for some hundred.
func (r *router) sendUntil(t *testing.T, from host, least int, packet func(i int) []byte) (sent *atomic.Int64, stop func()) {
	t.Helper()
	sent = new(atomic.Int64)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		assert.NoError(t, r.n.on(from, func() error {
			const atOnce = 100
			for {
				first := int(sent.Load())
				if err := sendRaw(atOnce, func(i int) []byte { return packet(first + i) }); err != nil {
					return err
				}
				if err := r.m.pause(20 * time.Millisecond); err != nil {
					return err
				}
				if sent.Add(atOnce) < int64(least) {
					continue
				}
				select {
				case <-end:
					return nil
				default:
				}
			}
		}))
	}()
	stop = sync.OnceFunc(func() { close(end); <-ended })
	t.Cleanup(stop)
	return sent, stop
}

// tooLong is an echo request in the name of a host, or a message that the answer to it does not fit through a link (RFC 1191, section 4).
func tooLong(named, to netip.Addr, request bool) []byte {
	if request {
		return echoRequest(named, to, 1)
	}
	quoted := echoRequest(to, named, 1)
	quoted[20] = 0 // an answer
	p := packet(unix.IPPROTO_ICMP, netip.MustParseAddr(strangerAddress), to, 0, 1, 8+len(quoted))
	icmp := p[20:]
	icmp[0], icmp[1] = 3, 4
	binary.BigEndian.PutUint16(icmp[6:], 600)
	copy(icmp[8:], quoted)
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	return p
}

// datagram is a UDP datagram with so many bytes of zeros.
func datagram(from, to netip.Addr, port uint16, payload int) []byte {
	p := packet(unix.IPPROTO_UDP, from, to, 0, 1, 8+payload)
	binary.BigEndian.PutUint16(p[20:], 4000)
	binary.BigEndian.PutUint16(p[22:], port)
	binary.BigEndian.PutUint16(p[24:], uint16(8+payload))
	return p
}

// pathMTU has a stranger tell the router that packets to the server must be short, and looks at those that SOCKS sends there.
func (r *router) pathMTU(t *testing.T) {
	require.NoError(t, r.n.on(stranger, func() error {
		return sendRaw(10, func(i int) []byte {
			return tooLong(netip.MustParseAddr(serverAddress), netip.MustParseAddr(wanAddress), i%2 == 0)
		})
	}))
	require.NoError(t, r.n.awaitPing(stranger, wanAddress)) // the router has dealt with them
	const port, size = 7050, 256 << 10
	l, err := r.n.listen(serverOfSite, port)
	require.NoError(t, err)
	defer l.Close()
	longest := make(chan uint32, 1)
	go func() {
		conn, err := l.Accept()
		if !assert.NoError(t, err) {
			close(longest)
			return
		}
		defer conn.Close()
		_, err = io.CopyN(io.Discard, conn, size)
		assert.NoError(t, err)
		raw, err := conn.(*net.TCPConn).SyscallConn()
		if assert.NoError(t, err) {
			_ = raw.Control(func(fd uintptr) {
				info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
				if assert.NoError(t, err) {
					longest <- info.Rcv_mss
				}
			})
		}
		close(longest)
	}()
	conn, reply := r.request(t, client, commandConnect, fmt.Sprintf("%s:%d", serverAddress, port))
	require.EqualValues(t, granted, reply.code)
	_, err = conn.Write(make([]byte, size))
	require.NoError(t, err)
	assert.Greater(t, <-longest, uint32(1000), "bytes in the server's packets")
}

// foreignARP asks on the link before the router for the hardware addresses of all that the router has.
func (r *router) foreignARP(t *testing.T) {
	for _, c := range []struct {
		asked    string
		answered bool
	}{{lanAddress, false}, {clientAddress, false}, {"127.0.0.1", false}, {wanAddress, true}} {
		// The router has dealt with the others when it answers the last.
		require.NoError(t, r.n.on(stranger, func() error {
			answered, err := askARP("eth0", netip.MustParseAddr(strangerAddress), netip.MustParseAddr(c.asked), netip.MustParseAddr(wanAddress))
			assert.Equal(t, c.answered, slices.Contains(answered, netip.MustParseAddr(c.asked)), "%s: %v", c.asked, answered)
			return err
		}))
	}
}

// askARP asks on a device for the hardware address of an address, and then for that of another until it is told (RFC 826). It returns all
// addresses that it was told of.
func askARP(device string, from, asked, last netip.Addr) (answered []netip.Addr, err error) {
	link, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(htons(unix.ETH_P_ARP)))
	if err != nil {
		return nil, err
	}
	defer unix.Close(s)
	at := unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ARP), Ifindex: link.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	if err := unix.Bind(s, &at); err != nil {
		return nil, err
	}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
		return nil, err
	}
	ask := func(a netip.Addr) error {
		p := append([]byte{0, 1, 8, 0, 6, 4, 0, 1}, link.HardwareAddr...)
		p = append(append(p, from.AsSlice()...), make([]byte, 6)...)
		return unix.Sendto(s, append(p, a.AsSlice()...), 0, &at)
	}
	err = retry(func() error {
		for _, a := range []netip.Addr{asked, last} {
			if err := ask(a); err != nil {
				return err
			}
		}
		for buf := make([]byte, 256); ; {
			n, _, err := unix.Recvfrom(s, buf, 0)
			if err != nil {
				return err
			}
			if n >= 28 && buf[7] == 2 {
				a := netip.AddrFrom4([4]byte(buf[14:]))
				if answered = append(answered, a); a == last {
					return nil
				}
			}
		}
	})
	return answered, err
}

// oddUsers has a host make more requests that are denied than the log has room for, with the longest user ids of bytes that each take four
// in the log; the router ends each connection first, and so has more in TIME_WAIT than it keeps. What a user does meanwhile stays in the log.
func (r *router) oddUsers(t *testing.T) {
	const requests = 300
	r.command(t, "/system clock set date=2031-02-01 time=11:00:00")
	before, _ := r.freeMemory(t)
	for range requests {
		conn, err := r.n.dial(other, socksAddress, patience)
		require.NoError(t, err)
		request := append([]byte{4, commandConnect, 0, 21}, netip.MustParseAddr(serverAddress).AsSlice()...)
		_, err = conn.Write(append(append(request, strings.Repeat("\xfe", 255)...), 0))
		require.NoError(t, err)
		reply, err := readReplySOCKS(conn, patience)
		require.NoError(t, err)
		assert.EqualValues(t, rejected, reply.code)
		_, _ = io.Copy(io.Discard, conn) // until the router ends it
		conn.Close()
	}
	r.command(t, "/system clock set date=2031-02-01 time=11:30:00")
	after, _ := r.freeMemory(t)
	log := r.command(t, "/log print")
	assert.Regexp(t, `the clock was set to .*11:00:00`, log)
	assert.Regexp(t, `the clock was set to .*11:30:00`, log)
	assert.NotContains(t, log, strings.Repeat(`\xfe`, 65), "a user id is cut")
	t.Logf("%d requests: free memory %.1f MiB before, %.1f MiB after", requests, before, after)
	assert.Greater(t, after, hostileLeft, "MiB")
}

// manyHardwareAddresses has the LAN's port in a bridge, and a host there send from more hardware addresses than that learns.
func (r *router) manyHardwareAddresses(t *testing.T) {
	r.command(t, "/interface bridge add name=bridge1; /interface bridge port add bridge=bridge1 interface=ether2")
	defer r.command(t, "/interface bridge port remove [find bridge=bridge1]; /interface bridge remove bridge1")
	require.NoError(t, r.n.awaitPing(client, lanAddress))
	before, _ := r.freeMemory(t)
	const addresses = 20000
	require.NoError(t, r.n.on(client, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			return err
		}
		defer unix.Close(s)
		for i := range addresses {
			frame := append([]byte{255, 255, 255, 255, 255, 255, 2, 1, 0, 0, byte(i >> 8), byte(i), 0x88, 0xb5}, make([]byte, 46)...)
			if err := unix.Sendto(s, frame, 0, &unix.SockaddrLinklayer{Ifindex: link.Index}); err != nil && err != unix.ENOBUFS {
				return err
			}
			if i%100 == 0 {
				time.Sleep(20 * time.Millisecond)
			}
		}
		return nil
	}))
	require.NoError(t, r.n.awaitPing(other, lanAddress))
	after, _ := r.freeMemory(t)
	t.Logf("%d addresses: free memory %.1f MiB before, %.1f MiB after", addresses, before, after)
	assert.Less(t, before-after, 1.0, "MiB that they took; without a bound it is 2.5")
}

// loggedFlood has a rule log ever more packets, while a user does what is logged: none of that is
// lost.
func (r *router) loggedFlood(t *testing.T) {
	const packets, changes = 150000, 40
	r.command(t, "/ip firewall filter print") // place-before=0 is the first of this
	r.command(t, "/ip firewall filter add chain=input action=log protocol=udp src-address="+strangerAddress+" place-before=0")
	var wg sync.WaitGroup
	wg.Go(func() {
		assert.NoError(t, r.n.on(stranger, func() error {
			// As fast as it can: the kernel's log would not hold them until PID 1 has read it.
			return sendRawFast(packets, func(i int) []byte {
				return packet(unix.IPPROTO_UDP, netip.MustParseAddr(strangerAddress), netip.MustParseAddr(wanAddress), 0, uint16(i), 20)
			})
		}))
	})
	slowest := time.Duration(0)
	for i := range changes {
		used, err := r.m.processorTime()
		require.NoError(t, err)
		r.command(t, fmt.Sprintf("/system clock set date=2031-01-31 time=12:%02d:00", i))
		usedThen, err := r.m.processorTime()
		require.NoError(t, err)
		slowest = max(slowest, usedThen-used)
	}
	t.Logf("a command takes up to %v of the router's processor", slowest.Round(time.Millisecond))
	assert.Less(t, slowest, slowAnswer, "time of the router's processor that a command took")
	wg.Wait()
	log := r.command(t, "/log print")
	for i := range changes {
		assert.Regexp(t, fmt.Sprintf(`the clock was set to .*12:%02d:00`, i), log)
	}
	assert.Contains(t, log, "firewall,info input: in:ether1")
	assert.Contains(t, log, "firewall,warning many packets to log: each rule logs 20 a second and counts the others")
	assert.NotContains(t, log, "lines of the log were overwritten")
}

// manyConnections has a host open more connections through the router than it can track. Others
// are served all the same, and so is this host.
func (r *router) manyConnections(t *testing.T) {
	const connections, port = 4300, 7100
	l, err := r.n.listen(serverOfSite, port)
	require.NoError(t, err)
	defer l.Close()
	go serveAll(l, func(conn net.Conn) {
		t.Cleanup(func() { conn.Close() })
	})
	before, _ := r.freeMemory(t)
	start := time.Now()
	for i := range connections {
		conn, err := r.n.dial(client, fmt.Sprintf("%s:%d", serverAddress, port), patience)
		require.NoError(t, err, "connection %d", i)
		t.Cleanup(func() { conn.Close() })
	}
	after, took := r.freeMemory(t)
	t.Logf("%d connections in %v; free memory %.1f MiB before, %.1f MiB after; the console answers in %v",
		connections, time.Since(start).Round(time.Millisecond), before, after, took.Round(time.Millisecond))
	conn, err := r.n.dial(other, fmt.Sprintf("%s:%d", serverAddress, port), patience)
	require.NoError(t, err, "another host")
	conn.Close()
	require.NoError(t, r.n.awaitPing(other, lanAddress))
	_, reply := r.request(t, client, commandConnect, fmt.Sprintf("%s:%d", serverAddress, port))
	assert.EqualValues(t, granted, reply.code)
	r.awaitLog(t, `firewall,warning connection tracking: the table of 4096 entries is nearly full: \d+ connections of 192\.168\.0\.2 forgotten`)
	tracking := r.command(t, "/ip firewall connection tracking print")
	assert.Regexp(t, `tcp-established-timeout: 2h4m`, tracking)

	// A user ends those that are left.
	r.command(t, fmt.Sprintf("/ip firewall connection remove [find dst-address=%s:%d]", serverAddress, port))
	r.awaitLog(t, `firewall,info \d{3,} tracked connections removed by a user`)
}

// TestManyFromOutside has a rule of dst-nat, and one host of the Internet, or as many hosts as connections, open more of
// these than the router can track, and keep them alive. Then a host of the LAN asks the router's DNS server from as many ports. What
// the LAN has open goes on, and others are served.
func TestManyFromOutside(t *testing.T) {
	e2e.Boots(t)
	t.Parallel()
	skipWithout(t, "malta")
	loads(t)
	r := startRouter(t, "malta", func(o *machineOptions) { o.capture = false })
	r.awaitService(t)
	r.awaitLinks(t)
	const (
		connections = 4300
		atOnce      = 10
		served      = 8080 // at the router's address
		inside      = 7200 // where that goes
		port        = 7300
		// many is where connections come from that each have a host of their own.
		many = "172.20.0.0/16"
	)
	r.command(t, fmt.Sprintf("/ip firewall nat add chain=dstnat action=dst-nat protocol=tcp dst-address=%s dst-port=%d to-addresses=%s to-ports=%d",
		wanAddress, served, otherAddress, inside))
	r.command(t, "/ip firewall filter print") // place-before=5 is of this
	r.command(t, "/ip firewall filter add chain=forward action=accept connection-nat-state=dstnat connection-state=new place-before=5")
	require.NoError(t, r.n[serverOfSite].IP("route add local "+many+" dev lo"))
	require.NoError(t, r.n[gateway].IP("route add "+many+" via "+serverAddress))
	l, err := r.n.listen(other, inside)
	require.NoError(t, err)
	defer l.Close()
	hold := func(conn net.Conn) {
		_ = conn.(*net.TCPConn).SetLinger(0) // else it would go on to talk of its end
		_, _ = io.Copy(io.Discard, conn)
	}
	go serveAll(l, hold)
	each := func(do func(i int) bool) {
		var all sync.WaitGroup
		for first := range atOnce {
			all.Go(func() {
				for i := first; i < connections && do(i); i += atOnce {
				}
			})
		}
		all.Wait()
	}
	open := func(t *testing.T, from host, source func(i int) net.IP) {
		each(func(i int) bool {
			// Where the table is full for a moment TCP tries again.
			conn, err := r.n[from].Dial(&net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: source(i)}}, fmt.Sprintf("%s:%d", wanAddress, served))
			if !assert.NoError(t, err, "connection %d", i) {
				return false
			}
			_ = conn.SetLinger(0)
			t.Cleanup(func() { conn.Close() })
			return true
		})
	}
	outside := fmt.Sprintf("%s:%d", wanAddress, served)
	for i, c := range []struct {
		name, to, log string
		open          func(*testing.T)
	}{
		{"of one host", outside, `\d{3,} connections of ` + regexp.QuoteMeta(strangerAddress) + ` forgotten`,
			func(t *testing.T) { open(t, stranger, func(int) net.IP { return net.ParseIP(strangerAddress) }) }},
		{"of as many hosts", outside, `\d+ connections of \S+ forgotten, and some of more than 15 other hosts`, func(t *testing.T) {
			open(t, serverOfSite, func(i int) net.IP { return net.IPv4(172, 20, byte(1+i/250), byte(1+i%250)) })
		}},
		{"names that the LAN asks for", lanAddress + ":53", `\d{3,} connections of ` + regexp.QuoteMeta(clientAddress) + ` forgotten`, func(t *testing.T) {
			r.command(t, "/ip dns set allow-remote-requests=yes")
			r.command(t, "/ip dns static add name=router.lan address="+lanAddress)
			r.askFromMany(t, connections, each)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			site, err := r.n.listen(serverOfSite, port+i)
			require.NoError(t, err)
			defer site.Close()
			server := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", serverAddress, port+i))
			talks := r.openTalks(t, site, server, 20, 20)
			before, _ := r.freeMemory(t)
			start := time.Now()
			c.open(t)
			after, took := r.freeMemory(t)
			t.Logf("%d connections in %v; free memory %.1f MiB before, %.1f MiB after; the console answers in %v",
				connections, time.Since(start).Round(time.Millisecond), before, after, took.Round(time.Millisecond))
			assert.Less(t, took, slowAnswer, "time that the console took")
			r.awaitTalks(t, talks)
			go serveAll(site, hold)
			conn, err := r.n.dial(other, server.String(), patience)
			require.NoError(t, err, "another host")
			conn.Close()
			_, reply := r.request(t, client, commandConnect, server.String())
			assert.EqualValues(t, granted, reply.code)
			// The router's own.
			require.NoError(t, retry(func() error {
				if said := r.command(t, "/ping "+serverAddress+" count=1"); !strings.Contains(said, "packet-loss=0%") {
					return errors.New(said)
				}
				return nil
			}))
			r.awaitLog(t, `firewall,warning connection tracking: the table of 4096 entries is nearly full: `+c.log)
			// What was forgotten does not fill the table again, although both ends keep it alive.
			require.NoError(t, retry(func() error {
				listed := r.command(t, "/ip firewall connection print count-only")
				if tracked, err := strconv.Atoi(strings.TrimSpace(listed)); err != nil || tracked >= 4096/4*3 {
					return fmt.Errorf("%s entries", listed)
				}
				return nil
			}))
			r.command(t, fmt.Sprintf("/ip firewall connection remove [find dst-address=%s]", c.to))
			r.awaitLog(t, `firewall,info \d{3,} tracked connections removed by a user`)
			r.awaitTalks(t, talks)
			t.Logf("all seen %v after the first", time.Since(start).Round(time.Millisecond))
			r.assertTalks(t, talks)
		})
	}
}

// askFromMany asks the router's DNS server for a name from so many ports of the client, each at least twice with more than 2 seconds between, which makes a
// stream of it that the kernel does not drop by itself. each calls a function with the number of each port.
func (r *router) askFromMany(t *testing.T, ports int, each func(func(i int) bool)) {
	const atOnce, stream = 1000, 2 * time.Second // how many are asked from before they are asked from again: before the kernel forgets them
	question := questionFor("router.lan", 1)
	asking := make([]*net.UDPConn, ports)
	for i := range asking {
		require.NoError(t, r.n.on(client, func() (err error) {
			asking[i], err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(lanAddress), 53)))
			return err
		}))
		t.Cleanup(func() { asking[i].Close() })
	}
	for first := 0; first < ports; first += atOnce {
		for range 2 {
			start := time.Now()
			each(func(i int) bool {
				if i < first || i >= first+atOnce {
					return true
				}
				// A moment in which the table is full loses one.
				return assert.NoError(t, retry(func() error {
					if _, err := asking[i].Write(question); err != nil {
						return err
					}
					if err := asking[i].SetReadDeadline(time.Now().Add(time.Second)); err != nil {
						return err
					}
					_, err := asking[i].Read(make([]byte, 512))
					return err
				}), "port %d", i)
			})
			time.Sleep(time.Until(start.Add(stream + stream/2)))
		}
	}
}

// natLate has flows of UDP that began before the rule that masquerades them. Some thousand others are over by then. The kernel
// drops these while its table is read, and leaves out as many others, which are in no order: so there are more flows than one.
func (r *router) natLate(t *testing.T) {
	const over, flows = 3000, 20
	r.command(t, "/ip firewall nat disable 0")
	defer r.command(t, "/ip firewall nat enable 0")
	r.command(t, "/ip firewall connection tracking set udp-timeout=1s")
	_, stop := r.sendUntil(t, client, over, func(i int) []byte {
		return datagram(netip.MustParseAddr(clientAddress), netip.MustParseAddr(serverAddress), uint16(10000+i), 1)
	})
	stop()
	require.NoError(t, r.m.pause(2*time.Second))
	// The flows themselves are there for longer than the next command takes.
	r.command(t, "/ip firewall connection tracking set udp-timeout=30s")
	var server *net.UDPConn
	require.NoError(t, r.n.on(serverOfSite, func() (err error) {
		server, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.ParseIP(serverAddress), Port: 5000})
		return err
	}))
	defer server.Close()
	var all [flows]*net.UDPConn
	for i := range all {
		require.NoError(t, r.n.on(client, func() (err error) {
			all[i], err = net.DialUDP("udp4", nil, server.LocalAddr().(*net.UDPAddr))
			return err
		}))
		defer all[i].Close()
	}
	// sources are where the server hears each flow from.
	sources := func() (heard [flows]string) {
		for i, flow := range all {
			require.NoError(t, retry(func() error {
				if _, err := flow.Write([]byte{byte(i)}); err != nil {
					return err
				}
				if err := server.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
					return err
				}
				said := make([]byte, 9)
				_, addr, err := server.ReadFromUDPAddrPort(said)
				if err == nil && said[0] != byte(i) {
					err = errors.New("a late datagram of another flow")
				}
				heard[i] = addr.Addr().String()
				return err
			}))
		}
		return heard
	}
	every := func(address string) (same [flows]string) {
		for i := range same {
			same[i] = address
		}
		return same
	}
	assert.Equal(t, every(clientAddress), sources())
	r.command(t, "/ip firewall nat enable 0")
	assert.Equal(t, every(wanAddress), sources())
	r.awaitLog(t, `firewall,info \d+ tracked connections? forgotten, as nat treats them otherwise now`)
}

// falseSources sends echo requests whose source cannot be where they come from. Each has a
// number. One that is honest follows them: when it has arrived, the others would have.
func (r *router) falseSources(t *testing.T) {
	for _, c := range []struct {
		name               string
		from, hears        host
		source, to, honest string
		believed           bool
	}{
		{"the LAN's, from outside", stranger, client, clientAddress, wanAddress, "", false},
		{"the LAN's broadcast, from outside", stranger, client, "192.168.0.255", wanAddress, "", false},
		{"the router's, from outside", stranger, client, lanAddress, wanAddress, "", false},
		{"loopback, from outside", stranger, client, "127.0.0.1", wanAddress, "", false},
		{"foreign, from the LAN", client, serverOfSite, "198.51.100.7", serverAddress, clientAddress, false},
		// The test would hear them.
		{"the LAN's, from outside, without the filter", stranger, client, clientAddress, wanAddress, "", true},
		{"foreign, from the LAN, without the filter", client, serverOfSite, "198.51.100.7", serverAddress, clientAddress, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.believed {
				r.command(t, "/ip settings set rp-filter=no")
				defer r.command(t, "/ip settings set rp-filter=strict")
			}
			const number, honest = 0x5047, 0x5048
			var ear int
			require.NoError(t, r.n.on(c.hears, func() (err error) {
				ear, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM, int(htons(unix.ETH_P_IP)))
				if err != nil {
					return err
				}
				return unix.Bind(ear, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_IP)})
			}))
			defer unix.Close(ear)
			to := netip.MustParseAddr(c.to)
			require.NoError(t, r.n.on(c.from, func() error {
				return sendRaw(3, func(i int) []byte { return echoRequest(netip.MustParseAddr(c.source), to, number) })
			}))
			// An honest echo request follows by the same way: from the same host if that is the LAN. From
			// outside, the sender's own is answered first, so that the router has dealt with the false
			// ones, and then the LAN's, which follows any answer into the LAN.
			asks, asked := c.from, to
			if c.honest == "" {
				require.NoError(t, r.n.awaitPing(c.from, wanAddress))
				asks, asked = client, netip.MustParseAddr(lanAddress)
			}
			require.NoError(t, retry(func() error {
				if err := r.n.on(asks, func() error {
					return sendRaw(1, func(int) []byte { return echoRequest(netip.MustParseAddr(clientAddress), asked, honest) })
				}); err != nil {
					return err
				}
				deadline := time.Now().Add(2 * time.Second)
				for buf := make([]byte, 2048); time.Now().Before(deadline); {
					if err := unix.SetsockoptTimeval(ear, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}); err != nil {
						return err
					}
					n, _, err := unix.Recvfrom(ear, buf, 0)
					if err != nil {
						continue
					}
					if n < 28 || buf[9] != unix.IPPROTO_ICMP {
						continue
					}
					switch binary.BigEndian.Uint16(buf[24:]) {
					case number:
						assert.True(t, c.believed, "arrived: %x", buf[:n])
						return nil
					case honest:
						assert.False(t, c.believed, "the false one did not arrive")
						return nil
					}
				}
				return fmt.Errorf("the honest echo request was not heard")
			}))
		})
	}
	r.awaitLog(t, `firewall,warning \d+ packets with a false source dropped`)
}

// moreFragments is the flag of all fragments but the last (RFC 791, section 3.1).
const moreFragments = 0x2000

// packet is an IPv4 packet with so many bytes of payload.
func packet(protocol byte, from, to netip.Addr, fragment, id uint16, payload int) []byte {
	head := binary.BigEndian.AppendUint16([]byte{0x45, 0}, uint16(20+payload))
	head = binary.BigEndian.AppendUint16(head, id)
	head = binary.BigEndian.AppendUint16(head, fragment)
	head = append(head, 64, protocol, 0, 0)
	head = append(append(head, from.AsSlice()...), to.AsSlice()...)
	return append(head, make([]byte, payload)...) // the kernel adds the checksum of the head
}

// checksum is that of the Internet (RFC 1071).
func checksum(parts ...[]byte) uint16 {
	sum := uint32(0)
	for _, p := range parts {
		for i := 0; i+1 < len(p); i += 2 {
			sum += uint32(p[i])<<8 | uint32(p[i+1])
		}
	}
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum>>16 + sum)
}

func echoRequest(from, to netip.Addr, number uint16) []byte {
	p := packet(unix.IPPROTO_ICMP, from, to, 0, 1, 8)
	icmp := p[20:]
	icmp[0] = 8
	binary.BigEndian.PutUint16(icmp[4:], number)
	binary.BigEndian.PutUint16(icmp[2:], checksum(icmp))
	return p
}

func synPacket(from, to netip.Addr, fromPort, toPort uint16) []byte {
	p := packet(unix.IPPROTO_TCP, from, to, 0, 1, 20)
	tcp := p[20:]
	binary.BigEndian.PutUint16(tcp, fromPort)
	binary.BigEndian.PutUint16(tcp[2:], toPort)
	tcp[12], tcp[13] = 5<<4, 2
	binary.BigEndian.PutUint16(tcp[14:], 8192)
	binary.BigEndian.PutUint16(tcp[16:], checksum(p[12:20], []byte{0, unix.IPPROTO_TCP, 0, 20}, tcp))
	return p
}

// sendRaw sends 5,000 packets a second as they are, but for the checksum of their IP heads.
func sendRaw(count int, packet func(i int) []byte) error {
	return sendRawFast(count, func(i int) []byte {
		if i > 0 && i%100 == 0 {
			time.Sleep(20 * time.Millisecond)
		}
		return packet(i)
	})
}

// sendRawFast is sendRaw without a pause.
func sendRawFast(count int, packet func(i int) []byte) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
		return err
	}
	for i := range count {
		p := packet(i)
		to := unix.SockaddrInet4{Addr: [4]byte(p[16:20])}
		if err := unix.Sendto(s, p, 0, &to); err != nil && err != unix.ENOBUFS {
			return fmt.Errorf("send packet %d: %w", i, err)
		}
	}
	return nil
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }
