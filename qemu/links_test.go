package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// links are the steps of the menus that show and set what the network has.
func (r *router) links(step func(name string, f func(t *testing.T))) {
	step("interfaces, neighbours and connected routes", func(t *testing.T) {
		require.NoError(t, r.n.awaitPing(client, lanAddress))
		screen := r.command(t, "/interface print")
		assert.Regexp(t, `(?m)^ 0  R  ether1 +ether +1500  (\w\w:){5}\w\w$`, screen)
		assert.Regexp(t, `(?m)^ 1  R  ether2 +ether +1500  (\w\w:){5}\w\w$`, screen)
		assert.Regexp(t, `(?m)^ 1  R  ether2 +[1-9]\d* +[1-9]\d* +[1-9]\d* +[1-9]\d*$`, r.command(t, "/interface ethernet print stats"))
		assert.Regexp(t, `(?m)^ ?\d+ DC 192\.168\.0\.2 +`+r.mac(t, client)+` ether2$`, r.command(t, "/ip arp print"))
		assert.Regexp(t, `(?m)^ \d ADC +192\.168\.0\.0/24 +ether2 +0$`, r.command(t, "/ip route print"))
	})
	step("tracked connection", func(t *testing.T) {
		conn, err := r.n.dial(client, r.echo(t, 5010), patience)
		require.NoError(t, err)
		defer conn.Close()
		assertEcho(t, conn)
		want := regexp.MustCompile(`(?m)^ ?\d+ tcp      192\.168\.0\.2:\d+ +10\.5\.8\.8:5010 +established (2h\d|1h)`)
		// Of a table from which others go while it is read, the kernel leaves out some.
		require.NoError(t, retry(func() error {
			if out := r.command(t, "/ip firewall connection print where dst-address=10.5.8.8:5010"); !want.MatchString(out) {
				return fmt.Errorf("not the connection:\n%s", out)
			}
			return nil
		}))
		// It can be forgotten, and so can one whose addresses are not translated.
		own, err := r.n.dial(client, socksAddress, patience)
		require.NoError(t, err)
		defer own.Close()
		for _, conn := range []net.Conn{conn, own} {
			where := fmt.Sprintf("src-address=%s dst-address=%s", conn.LocalAddr(), conn.RemoteAddr())
			r.awaitShown(t, "/ip firewall connection print count-only where "+where, `^1$`)
			r.command(t, "/ip firewall connection remove [find "+where+"]")
			assert.Equal(t, "0", strings.TrimSpace(r.command(t, "/ip firewall connection print count-only where "+where)), where)
		}
	})
	step("ping and traceroute from the router", func(t *testing.T) {
		// A machine that stands still for a second loses an answer.
		until := func(line, pattern string) (out string) {
			t.Helper()
			want := regexp.MustCompile(pattern)
			require.NoError(t, retry(func() error {
				if out = r.command(t, line); !want.MatchString(out) {
					return fmt.Errorf("%s does not show %q:\n%s", line, pattern, out)
				}
				return nil
			}))
			return out
		}
		out := until("/ping 10.5.8.8 count=3 interval=100ms", "sent=3 received=3 packet-loss=0% min-rtt=")
		assert.Regexp(t, `(?m)^    2 10\.5\.8\.8           64  63 \S+s$`, out)
		t.Logf("%s:\n%s", r.b.Name, out)
		out = until("/tool traceroute 10.5.8.8",
			`(?m)^  1 10\.1\.0\.1          0%    3 +[\d.]+ms.*\n(?:\[.*\n)*  2 10\.5\.8\.8          0%    3 +[\d.]+ms`)
		assert.NotContains(t, out, "\n  3 ")
		assert.Contains(t, r.command(t, "/ping nowhere.test count=1"), "address of nowhere.test: no name server is set")
		r.nameServer(t)
		r.command(t, "/ip dns set servers="+serverAddress)
		until("/ping ping.test count=1", "sent=1 received=1 packet-loss=0%")
		r.command(t, "/ip dns set servers=\"\"")
		// A key ends it.
		r.m.screen.forget()
		require.NoError(t, r.m.send("/ping 192.168.0.2\r"))
		r.expect(t, "    1 192.168.0.2")
		require.NoError(t, r.m.send("q"))
		assert.Regexp(t, `sent=\d+ received=[1-9]`, r.expect(t, "\n[admin@postern] > "))
	})
	step("the clock", func(t *testing.T) {
		r.command(t, "/system clock set date=jan/31/2030 time=12:00:00")
		assert.Regexp(t, `time: 12:00:\d\d\n +date: jan/31/2030\n`, r.command(t, "/system clock print"))
		r.command(t, "/system clock manual set time-zone=+05:30")
		assert.Regexp(t, `time: 17:30:\d\d\n +date: jan/31/2030\n +time-zone-name: manual\n +gmt-offset: \+05:30\n`, r.command(t, "/system clock print"))
		// The line is of a moment before.
		assert.Regexp(t, `(?m)^17:(30:\d\d|29:5\d) system,info the clock was set`, r.command(t, "/log print"))
		r.command(t, "/system clock manual reset")
	})
	step("MTU and hardware address", func(t *testing.T) {
		before := r.command(t, "/interface ethernet print where name=ether2")
		r.command(t, "/interface ethernet set ether2 mtu=1400 mac-address=02:00:5e:00:53:01")
		assert.Regexp(t, `(?m)^ 1 .* ether2 +ether +1400  02:00:5E:00:53:01$`, r.command(t, "/interface print"))
		r.reachable(t, "02:00:5e:00:53:01")
		r.command(t, "/interface ethernet set ether2 !mtu !mac-address")
		assert.Equal(t, before, r.command(t, "/interface ethernet print where name=ether2"))
		r.reachable(t, "")
	})
	step("a port with another name", func(t *testing.T) {
		before := settings(r.command(t, "/export"))
		assert.Empty(t, r.command(t, "/interface ethernet set ether2 name=lan"))
		assert.Regexp(t, `(?m)^ 1  R  lan +ether +1500 `, r.command(t, "/interface print"))
		assert.Regexp(t, `(?m)^ 1  R  name=lan default-name=ether2 `, r.command(t, "/interface ethernet print detail"))
		assert.Regexp(t, `(?m)^ +192\.168\.0\.1/24 +192\.168\.0\.0 +lan$`, r.command(t, "/ip address print"))
		assert.Regexp(t, `(?m)^ \d ADC +192\.168\.0\.0/24 +lan +0$`, r.command(t, "/ip route print"))
		assert.Contains(t, settings(r.command(t, "/export")), "set [find default-name=ether2] name=lan\n")
		assert.Contains(t, r.command(t, "/ip firewall filter print"), "in-interface=!lan")
		assert.Contains(t, r.command(t, "/ip address add address=10.9.0.1/24 interface=ether2"), "input does not match any value of interface")
		r.awaitHTTP(t)
		assert.Regexp(t, `(?m)^ ?\d+ DC 192\.168\.0\.2 +\S+ lan$`, r.command(t, "/ip arp print"))
		assert.Empty(t, r.command(t, "/interface disable lan"))
		assert.Regexp(t, `(?m)^ 1 X   lan `, r.command(t, "/interface print"))
		assert.Empty(t, r.command(t, "/interface enable lan; /interface ethernet set lan !name"))
		plain := strings.NewReplacer("/interface ethernet\n", "", "set ether2\n", "") // a port that was set to what it was
		assert.Equal(t, plain.Replace(before), plain.Replace(settings(r.command(t, "/export"))))
		r.awaitHTTP(t)
	})
	step("a bridge with a VLAN", func(t *testing.T) {
		before := settings(r.command(t, "/export"))
		// The rules let ether2 in, and do so when that is a port of a bridge.
		assert.Empty(t, r.command(t, "/interface bridge add name=bridge1; /interface bridge port add bridge=bridge1 interface=ether2; "+
			"/interface vlan add name=guests interface=bridge1 vlan-id=20; /ip address add address=192.168.20.1/24 interface=guests"))
		// The kernel tells of a carrier a moment later.
		running := regexp.MustCompile(`(?s)\n 1  RS ether2 .*\n \d  R  bridge1 +bridge +1500 .*\n \d  R  guests +vlan +1500 `)
		require.NoError(t, retry(func() error {
			if screen := r.command(t, "/interface print"); !running.MatchString(screen) {
				return fmt.Errorf("not all that should run:\n%s", screen)
			}
			return nil
		}))
		// The address of the port is the bridge's, and what the client does goes on.
		r.reachable(t, "")
		r.awaitHTTP(t)
		assert.Regexp(t, `(?m)^ ?\d+ DC 192\.168\.0\.2 +\S+ bridge1$`, r.command(t, "/ip arp print"))
		ask := func(vlan uint16, limit time.Duration) error {
			return r.n.on(client, func() error { return askTagged("eth0", vlan, netip.MustParseAddr("192.168.20.1"), limit) })
		}
		require.NoError(t, ask(20, patience))
		assert.Error(t, ask(21, 3*time.Second), "a tag that the router has not")
		assert.Empty(t, r.command(t, "/interface vlan set guests vlan-id=21 mtu=1400"))
		assert.Regexp(t, `(?m)^ 0  R  guests +1400       21      bridge1$`, r.command(t, "/interface vlan print"))
		require.NoError(t, ask(21, patience))
		assert.Contains(t, r.command(t, "/interface bridge remove bridge1"), "/interface vlan 0: input does not match any value of interface: bridge1")
		assert.Contains(t, r.command(t, "/interface bridge port add bridge=bridge1 interface=guests"), "would make a loop")
		assert.Empty(t, r.command(t, "/ip address remove [find interface=guests]; /interface vlan remove guests; "+
			"/interface bridge port remove 0; /interface bridge remove bridge1"))
		assert.Equal(t, before, settings(r.command(t, "/export")))
		assert.NotContains(t, r.command(t, "/interface print"), "bridge1")
		r.awaitHTTP(t)
	})
	step("a bridge that filters VLANs", func(t *testing.T) {
		before := settings(r.command(t, "/export"))
		// ether2 is a trunk, and ether1 in VLAN 30 without a tag. The router is in VLAN 20.
		assert.Empty(t, r.command(t, "/interface bridge add name=bridge1 vlan-filtering=yes; /interface bridge port add bridge=bridge1 interface=ether2; "+
			"/interface bridge port add bridge=bridge1 interface=ether1 pvid=30 frame-types=admit-only-untagged-and-priority-tagged; "+
			"/interface bridge vlan add bridge=bridge1 vlan-ids=20,30,50-59 tagged=ether2; "+
			"/interface vlan add name=guests interface=bridge1 vlan-id=20; /ip address add address=192.168.20.1/24 interface=guests"))
		trunk := []crossing{{"its tag", 30, untagged}, {"no tag", untagged, lost}, {"another's tag", 20, lost}, {"a tag that nobody else has", 55, lost}, {"a tag that it has not", 60, lost}}
		r.cross(t, client, gateway, trunk...)
		r.cross(t, gateway, client, crossing{"no tag", untagged, 30}, crossing{"another's tag", 20, lost}, crossing{"the tag of what has none", 1, lost})
		ask := func(vlan uint16, limit time.Duration) error {
			return r.n.on(client, func() error { return askTagged("eth0", vlan, netip.MustParseAddr("192.168.20.1"), limit) })
		}
		require.NoError(t, ask(20, patience))
		r.reachable(t, "") // by VLAN 1
		assert.Regexp(t, `(?m)^ \d D ;;; added by pvid\n +bridge1 +1 +bridge1,ether2\n \d   bridge1 +20,30,50-59 +bridge1,ether2 +ether1\n`,
			r.command(t, "/interface bridge vlan print"))
		// The one that runs takes its other VLAN.
		assert.Empty(t, r.command(t, "/interface bridge port set [find interface=ether1] pvid=20"))
		r.cross(t, client, gateway, crossing{"its tag", 20, untagged}, crossing{"its tag before", 30, lost})
		r.cross(t, gateway, client, crossing{"no tag", untagged, 20})
		assert.Empty(t, r.command(t, "/interface bridge port set [find interface=ether2] frame-types=admit-only-vlan-tagged"))
		r.cross(t, client, gateway, crossing{"a tag", 20, untagged}, crossing{"no tag", untagged, lost})
		assert.Contains(t, r.command(t, "/interface bridge port set [find interface=ether2] frame-types=admit-only-untagged-and-priority-tagged"),
			"expected ether2 in no VLAN with a tag, it is so in VLAN 20")
		assert.Empty(t, r.command(t, "/interface bridge set bridge1 vlan-filtering=no"))
		r.cross(t, client, gateway, crossing{"no tag", untagged, untagged}, crossing{"any tag", 77, 77})
		assert.Empty(t, r.command(t, "/ip address remove [find interface=guests]; /interface vlan remove guests; /interface bridge vlan remove [find]; "+
			"/interface bridge port remove [find]; /interface bridge remove bridge1"))
		assert.Equal(t, before, settings(r.command(t, "/export")))
		r.awaitHTTP(t)
	})
	step("interface lists of several", func(t *testing.T) {
		before := settings(r.command(t, "/export"))
		assert.Empty(t, r.command(t, "/interface bridge add name=spare; /interface list add name=LAN; "+
			"/interface list member add list=LAN interface=ether2; /interface list member add list=LAN interface=spare"))
		r.command(t, "/ip firewall filter print") // place-before=0 is the first of this
		assert.Empty(t, r.command(t, "/ip firewall filter add place-before=0 chain=input action=drop protocol=icmp in-interface-list=!LAN"))
		require.NoError(t, r.n.awaitPing(client, lanAddress))
		assert.Regexp(t, `(?m)^ 0 +input +drop +0 +0$`, r.command(t, "/ip firewall filter print stats"))
		assert.Empty(t, r.command(t, "/ip firewall filter set [find in-interface-list=!LAN] in-interface-list=LAN"))
		assert.Error(t, r.n.run(client, "ping", "-c", "1", "-W", "2", lanAddress))
		assert.Regexp(t, `(?m)^ 0 +input +drop +84 +1$`, r.command(t, "/ip firewall filter print stats"))
		assert.Empty(t, r.command(t, "/ip firewall filter remove [find in-interface-list=LAN]; /interface list member remove [find]; "+
			"/interface list remove [find]; /interface bridge remove spare"))
		assert.Equal(t, before, settings(r.command(t, "/export")))
	})
}

// missing checks that what is on the WAN port is shown as invalid.
func (r *router) missing(t *testing.T) {
	t.Helper()
	assert.Regexp(t, `(?m)^ 0 I   ether1`, r.command(t, "/interface ethernet print"))
	assert.Regexp(t, `(?m)^ \d I ;;; WAN\n +10\.1\.0\.104/24 `, r.command(t, "/ip address print"))
	assert.Regexp(t, `(?m)^ \d I S +0\.0\.0\.0/0 +10\.1\.0\.1 `, r.command(t, "/ip route print"))
	assert.Regexp(t, `(?m)^ \d+ I chain=input action=accept .*in-interface=ether1`, r.command(t, "/ip firewall filter print"))
}

// mac is the hardware address of a host's eth0, as the router writes it.
func (r *router) mac(t *testing.T, h host) string {
	t.Helper()
	var mac net.HardwareAddr
	require.NoError(t, r.n.on(h, func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			mac = link.HardwareAddr
		}
		return err
	}))
	return string(bytes.ToUpper([]byte(mac.String())))
}

// reachable checks that the client reaches the router anew, at that hardware address
// if it is not "".
func (r *router) reachable(t *testing.T, mac string) {
	t.Helper()
	require.NoError(t, retry(func() error {
		if err := r.n.run(client, "ip", "neigh", "flush", "dev", "eth0"); err != nil {
			return err
		}
		if err := r.n.run(client, "ping", "-c", "1", "-W", "2", lanAddress); err != nil {
			return err
		}
		out, err := r.n.command(client, "ip", "neigh", "show", lanAddress).CombinedOutput()
		if err == nil && !regexp.MustCompile("lladdr "+mac).Match(out) {
			err = fmt.Errorf("%s is at %s, not at %s", lanAddress, out, mac)
		}
		return err
	}))
}

// crossing is a frame that one host sends, with a tag or untagged, and how it comes to another: with a tag,
// untagged, or not at all (lost).
type crossing struct {
	name         string
	tag, arrives int
}

const (
	untagged = -1
	lost     = -2
)

// cross sends frames from one host to another and checks how they arrive. The first must be one that does: all
// take the same way, so what has not come when that comes behind the others is lost.
func (r *router) cross(t *testing.T, from, to host, frames ...crossing) {
	t.Helper()
	out, in := r.tap(t, from), r.tap(t, to)
	require.NotEqual(t, lost, frames[0].arrives)
	// The last has a mark of its own, and is as long as a frame can be.
	all := append(slices.Clone(frames), frames[0])
	require.NoError(t, retry(func() error {
		for i, f := range all {
			size := 60
			if i == len(frames) {
				size = 1514
			}
			if err := out.send(byte(i), f.tag, size); err != nil {
				return err
			}
		}
		arrived := map[int]int{}
		for last := false; !last; {
			mark, tag, err := in.next()
			if err != nil {
				return fmt.Errorf("%s to %s, %v: %w", from, to, arrived, err)
			}
			arrived[mark], last = tag, mark == len(frames)
		}
		for i, f := range all {
			tag, ok := arrived[i]
			switch {
			case ok && tag != f.arrives:
				t.Errorf("%s to %s, %s: it arrives with tag %d, expected %d", from, to, f.name, tag, f.arrives)
			case !ok && f.arrives != lost:
				return fmt.Errorf("%s to %s, %s: it does not arrive", from, to, f.name) // lost on the way, perhaps
			}
		}
		return nil
	}))
}

// tap sends and receives whole frames of the type for experiments (IEEE 802) by a host's eth0.
type tap struct {
	socket int
	mac    net.HardwareAddr
}

func (r *router) tap(t *testing.T, h host) (p tap) {
	t.Helper()
	require.NoError(t, r.n.on(h, func() error {
		link, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		p.mac = link.HardwareAddr
		all := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL})
		if p.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(p.socket) })
		return errors.Join(
			unix.Bind(p.socket, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
			unix.SetsockoptInt(p.socket, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(p.socket, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.SetsockoptTimeval(p.socket, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}))
	}))
	return p
}

func (p tap) send(mark byte, tag, size int) error {
	frame := append(bytes.Repeat([]byte{0xff}, 6), p.mac...)
	if tag != untagged {
		frame = append(frame, 0x81, 0, byte(tag>>8), byte(tag))
		size += 4
	}
	frame = append(frame, 0x88, 0xb5, mark)
	_, err := unix.Write(p.socket, append(frame, make([]byte, size-len(frame))...))
	return err
}

func (p tap) next() (mark, tag int, err error) {
	frame, control := make([]byte, 2000), make([]byte, 100)
	for {
		n, controls, _, _, err := unix.Recvmsg(p.socket, frame, control, 0)
		if err != nil {
			return 0, 0, err
		}
		if n < 15 || frame[12] != 0x88 || frame[13] != 0xb5 {
			continue
		}
		messages, err := unix.ParseSocketControlMessage(control[:controls])
		if err != nil || len(messages) != 1 || len(messages[0].Data) < 20 {
			return 0, 0, fmt.Errorf("frame without auxiliary data: %w", err)
		}
		// struct tpacket_auxdata, linux/if_packet.h: the kernel takes the tag off.
		if data := messages[0].Data; binary.NativeEndian.Uint32(data)&unix.TP_STATUS_VLAN_VALID != 0 {
			return int(frame[14]), int(binary.NativeEndian.Uint16(data[16:]) & 0xfff), nil
		}
		return int(frame[14]), untagged, nil
	}
}

// askTagged asks for an address by ARP (RFC 826) in a VLAN (IEEE 802.1Q), and waits
// for the answer there, at most limit. The kernel of this machine need not know VLANs: frames are
// written and read whole.
func askTagged(link string, vlan uint16, address netip.Addr, limit time.Duration) error {
	l, err := net.InterfaceByName(link)
	if err != nil {
		return err
	}
	const ethARP, ethVLAN = 0x0806, 0x8100
	protocol := binary.NativeEndian.Uint16([]byte{0, unix.ETH_P_ALL}) // in network byte order
	s, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(protocol))
	if err != nil {
		return err
	}
	defer unix.Close(s)
	if err := unix.Bind(s, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: l.Index}); err != nil {
		return err
	}
	// The kernel takes the tag off and tells of it apart.
	if err := unix.SetsockoptInt(s, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200000}); err != nil {
		return err
	}
	request := append(bytes.Repeat([]byte{0xff}, 6), l.HardwareAddr...)
	request = binary.BigEndian.AppendUint16(request, ethVLAN)
	request = binary.BigEndian.AppendUint16(request, vlan)
	request = binary.BigEndian.AppendUint16(request, ethARP)
	request = append(request, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, a request
	request = append(append(request, l.HardwareAddr...), 0, 0, 0, 0)
	request = append(append(request, 0, 0, 0, 0, 0, 0), address.AsSlice()...)
	frame, oob := make([]byte, 2000), make([]byte, 100)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		if _, err := unix.Write(s, request); err != nil {
			return err
		}
		for {
			n, oobn, _, _, err := unix.Recvmsg(s, frame, oob, 0)
			if err != nil {
				break // nothing for now
			}
			// An ARP reply about the address, to us.
			if n < 42 || binary.BigEndian.Uint16(frame[12:]) != ethARP || frame[21] != 2 ||
				!bytes.Equal(frame[28:32], address.AsSlice()) || !bytes.Equal(frame[:6], l.HardwareAddr) {
				continue
			}
			messages, err := unix.ParseSocketControlMessage(oob[:oobn])
			if err != nil || len(messages) != 1 || len(messages[0].Data) < 20 {
				return fmt.Errorf("packet without auxiliary data: %w", err)
			}
			// struct tpacket_auxdata, linux/if_packet.h
			if tag := binary.NativeEndian.Uint16(messages[0].Data[16:]) & 0xfff; tag != vlan {
				return fmt.Errorf("the answer is in VLAN %d, not %d", tag, vlan)
			}
			return nil
		}
	}
	return fmt.Errorf("no answer about %s in VLAN %d: %w", address, vlan, io.EOF)
}
