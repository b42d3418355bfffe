package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/match"
	"github.com/postern-router/postern/service"
)

// bench is a server with one interface, in the bubble of synctest, where time passes only while
// everybody waits.
type bench struct {
	*testing.T
	core *core
	sent []dhcp.Packet
	arps []dhcp.ARP
	log  []string
	xid  uint32
	// owners are machines that answer ARP.
	owners map[netip.Addr]ether.MAC
}

const linkIndex = 2

var routerMAC = ether.MAC{2, 0, 0, 0, 0, 1}

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

func mac(n int) ether.MAC { return ether.MAC{2, 0, 1, byte(n >> 16), byte(n >> 8), byte(n)} }

// home is a network of ten addresses for hosts.
func home() Config {
	ranges, _ := match.ParseAddresses("192.168.0.10-192.168.0.19")
	return Config{
		Pools:    []Pool{{Name: "lan", Ranges: []match.Addresses{ranges}}},
		Servers:  []Server{{Name: "home", Interface: "ether2", Pool: "lan", LeaseTime: 30 * time.Minute, Authoritative: Authoritative}},
		Networks: []Network{{Address: netip.MustParsePrefix("192.168.0.0/24"), Gateway: []netip.Addr{ip("192.168.0.1")}, Domain: "lan"}},
	}
}

func compile(c Config) Plan {
	return c.Compile(func(name string) (LinkState, bool) {
		return LinkState{linkIndex, []netip.Prefix{netip.MustParsePrefix("192.168.0.1/24")}}, name == "ether2"
	}, []netip.Addr{ip("9.9.9.9")})
}

// run runs a test of a server with a configuration.
func run(t *testing.T, c Config, test func(b *bench)) {
	require.NoError(t, c.Validate())
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, owners: map[netip.Addr]ether.MAC{}}
		b.core = newCore(func(format string, args ...any) { b.log = append(b.log, fmt.Sprintf(format, args...)) }, func() {})
		defer b.core.stop()
		b.core.setLink(&link{linkIndex, routerMAC, func(frame []byte) {
			p, err := dhcp.ParsePacket(frame, true)
			require.NoError(t, err)
			b.sent = append(b.sent, p)
		}, func(frame []byte) {
			a, err := dhcp.ParseARP(frame)
			require.NoError(t, err)
			b.arps = append(b.arps, a)
			if owner, ok := b.owners[a.Target]; ok {
				go b.core.receiveARP(linkIndex, dhcp.ARP{Reply: true, SenderMAC: owner, Sender: a.Target, TargetMAC: routerMAC})
			}
		}})
		b.core.setPlan(compile(c))
		test(b)
	})
}

// message is a client's.
func (b *bench) message(from ether.MAC, typ dhcp.Type, change ...func(*dhcp.Message)) *dhcp.Message {
	b.xid++
	m := &dhcp.Message{Op: dhcp.BootRequest, XID: b.xid, HardwareType: 1, Hardware: net.HardwareAddr(from[:])}
	m.Options.SetByte(dhcp.OptionType, byte(typ))
	for _, c := range change {
		c(m)
	}
	return m
}

// send sends a message and returns the reply, "" if there is none: its type and the address.
func (b *bench) send(m *dhcp.Message) (string, *dhcp.Message, dhcp.Packet) {
	return b.sendBy(m, dhcp.Packet{FromMAC: ether.MAC(m.Hardware), ToMAC: ether.Broadcast, From: netip.MustParseAddrPort("0.0.0.0:68"),
		To: netip.MustParseAddrPort("255.255.255.255:67")})
}

// sendBy does so in a packet with these addresses.
func (b *bench) sendBy(m *dhcp.Message, packet dhcp.Packet) (string, *dhcp.Message, dhcp.Packet) {
	payload, err := m.Marshal(dhcp.MaxMessage)
	require.NoError(b, err)
	b.sent = nil
	packet.Payload = payload
	b.core.receive(linkIndex, packet)
	time.Sleep(2*probes*probeTime + time.Millisecond)
	synctest.Wait()
	if len(b.sent) == 0 {
		return "", nil, dhcp.Packet{}
	}
	require.Len(b, b.sent, 1)
	reply, err := dhcp.Parse(b.sent[0].Payload)
	require.NoError(b, err)
	require.Equal(b, m.XID, reply.XID)
	text := reply.Options.Type().String()
	if !reply.Your.IsUnspecified() {
		text += " " + reply.Your.String()
	}
	return text, reply, b.sent[0]
}

func (b *bench) say(m *dhcp.Message) string {
	text, _, _ := b.send(m)
	return text
}

func requested(a string) func(*dhcp.Message) {
	return func(m *dhcp.Message) { m.Options.SetAddrs(dhcp.OptionRequested, ip(a)) }
}

func chosen(server string) func(*dhcp.Message) {
	return func(m *dhcp.Message) { m.Options.SetAddrs(dhcp.OptionServerID, ip(server)) }
}

func has(a string) func(*dhcp.Message) {
	return func(m *dhcp.Message) { m.Client = ip(a) }
}

func named(name string) func(*dhcp.Message) {
	return func(m *dhcp.Message) { m.Options.Set(dhcp.OptionHostName, []byte(name)) }
}

// join has a client take an address, which is returned; "" if it gets none.
func (b *bench) join(from ether.MAC, change ...func(*dhcp.Message)) string {
	offer := b.say(b.message(from, dhcp.Discover, change...))
	a, ok := strings.CutPrefix(offer, "OFFER ")
	if !ok {
		return ""
	}
	require.Equal(b, "ACK "+a, b.say(b.message(from, dhcp.Request, append(change, requested(a), chosen("192.168.0.1"))...)))
	return a
}

func TestJoin(t *testing.T) {
	run(t, home(), func(b *bench) {
		text, offer, p := b.send(b.message(mac(1), dhcp.Discover, named("laptop")))
		require.True(b, strings.HasPrefix(text, "OFFER 192.168.0.1"), text)
		a := offer.Your
		assert.Equal(b, ip("192.168.0.1"), offer.Options.Addr(dhcp.OptionServerID))
		assert.Equal(b, ip("255.255.255.0"), offer.Options.Addr(dhcp.OptionSubnetMask))
		assert.Equal(b, ip("192.168.0.1"), offer.Options.Addr(dhcp.OptionRouter))
		assert.Equal(b, ip("9.9.9.9"), offer.Options.Addr(dhcp.OptionNameServers), "the router's own")
		assert.Equal(b, "lan", offer.Options.Text(dhcp.OptionDomain))
		d, _ := offer.Options.Seconds(dhcp.OptionLeaseTime)
		assert.Equal(b, 30*time.Minute, d)
		assert.Equal(b, mac(1), p.ToMAC)
		assert.Equal(b, netip.AddrPortFrom(a, 68), p.To)
		assert.Len(b, b.arps, probes, "it was asked for by ARP")

		assert.Equal(b, "ACK "+a.String(), b.say(b.message(mac(1), dhcp.Request, requested(a.String()), chosen("192.168.0.1"), named("laptop"))))
		changes := b.core.changes()
		require.Len(b, changes, 1)
		assert.Equal(b, "laptop", changes[0].HostName)
		assert.Equal(b, Bound, changes[0].Status)

		b.arps = nil
		assert.Equal(b, "OFFER "+a.String(), b.say(b.message(mac(1), dhcp.Discover)), "it has that one")
		assert.Empty(b, b.arps, "a client's own address is not asked for")
		assert.Equal(b, "ACK "+a.String(), b.say(b.message(mac(1), dhcp.Request, has(a.String()))), "renewal")
		assert.Equal(b, "ACK "+a.String(), b.say(b.message(mac(1), dhcp.Request, requested(a.String()))), "after a restart of the client")
		other := b.join(mac(2))
		assert.NotEmpty(b, other)
		assert.NotEqual(b, a.String(), other)
		assert.Equal(b, "NAK", b.say(b.message(mac(2), dhcp.Request, has(a.String()))), "another's address")
		assert.Equal(b, "NAK", b.say(b.message(mac(3), dhcp.Request, requested("10.0.0.7"))), "of another network")

		b.say(b.message(mac(1), dhcp.Release, has(a.String()), chosen("192.168.0.1")))
		assert.Equal(b, a.String(), b.join(mac(1)), "the same again")
	})
}

// An address whose lease has ended is given to another, and the first gets another one.
func TestExpired(t *testing.T) {
	c := home()
	c.Pools[0].Ranges[0].To = c.Pools[0].Ranges[0].From
	run(t, c, func(b *bench) {
		require.Equal(b, "192.168.0.10", b.join(mac(1)))
		assert.Empty(b, b.join(mac(2)), "it is the only one")
		require.Len(b, b.log, 1)
		assert.Contains(b, b.log[0], "the pool is exhausted")
		b.core.changes()
		time.Sleep(31 * time.Minute)
		synctest.Wait()
		assert.Equal(b, []Change{{Address: ip("192.168.0.10")}}, b.core.changes(), "told without a message of anybody")
		assert.Equal(b, "192.168.0.10", b.join(mac(2)))
		assert.Equal(b, "NAK", b.say(b.message(mac(1), dhcp.Request, has("192.168.0.10"))))
		assert.Equal(b, "NAK", b.say(b.message(mac(1), dhcp.Request, requested("192.168.0.10"))))
		assert.Empty(b, b.join(mac(1)))
	})
}

func TestReservation(t *testing.T) {
	c := home()
	run(t, c, func(b *bench) {
		held := b.join(mac(2)) // by B
		c.Leases = []Lease{{Address: ip(held), MAC: mac(1)}}
		b.core.setPlan(compile(c))
		temporary := b.join(mac(1))
		assert.NotEmpty(b, temporary, "A is not left without an address")
		assert.NotEqual(b, held, temporary)
		assert.Contains(b, strings.Join(b.log, "\n"), "is reserved for 02:00:01:00:00:01")
		text, ack, _ := b.send(b.message(mac(1), dhcp.Request, has(temporary)))
		require.Equal(b, "ACK "+temporary, text)
		d, _ := ack.Options.Seconds(dhcp.OptionLeaseTime)
		assert.Equal(b, temporaryTime, d, "it shall ask again soon")
		assert.Equal(b, "NAK", b.say(b.message(mac(2), dhcp.Request, has(held))), "B at its renewal")
		assert.Equal(b, "NAK", b.say(b.message(mac(1), dhcp.Request, has(temporary))), "A at its renewal")
		assert.Equal(b, held, b.join(mac(1)))
		second := b.join(mac(2))
		assert.NotEmpty(b, second)
		assert.NotEqual(b, held, second)
		assert.Equal(b, "NAK", b.say(b.message(mac(3), dhcp.Request, requested(held))))
	})
}

func identified(id string) func(*dhcp.Message) {
	return func(m *dhcp.Message) { m.Options.Set(dhcp.OptionClientID, []byte(id)) }
}

// TestIdentifiers: copies of a virtual machine have one identifier, and a machine has several.
func TestIdentifiers(t *testing.T) {
	run(t, home(), func(b *bench) {
		one, other, rom := identified("\xffcopied"), identified("\x01another"), identified("\x00uuid")
		first := b.join(mac(1), one)
		second := b.join(mac(2), one)
		assert.NotEmpty(b, second)
		assert.NotEqual(b, first, second, "two machines with one identifier")
		assert.Equal(b, "NAK", b.say(b.message(mac(2), dhcp.Request, has(first), one)))
		assert.Equal(b, "ACK "+first, b.say(b.message(mac(1), dhcp.Request, has(first), one)))
		assert.Equal(b, "ACK "+second, b.say(b.message(mac(2), dhcp.Request, has(second), one)))
		b.say(b.message(mac(2), dhcp.Release, has(first), one))
		assert.NotNil(b, b.core.table.entries[ip(first)], "another's")

		// One machine is two clients, unless an address is reserved for it.
		third := b.join(mac(1), other)
		assert.NotEqual(b, first, third)
		c := home()
		c.Leases = []Lease{{Address: ip(third), MAC: mac(1)}}
		b.core.setPlan(compile(c))
		assert.Equal(b, third, b.join(mac(1), rom))
		assert.Equal(b, third, b.join(mac(1), one), "its ROM has it until the lease ends, and is the same machine")
		assert.Equal(b, third, b.join(mac(1)))
		assert.Equal(b, "ACK "+third, b.say(b.message(mac(1), dhcp.Request, has(third), other)))
		assert.Nil(b, b.core.table.entries[ip(first)], "it has one lease")
		assert.Len(b, b.core.table.clients, 2)
		assert.NotContains(b, strings.Join(b.log, "\n"), "is reserved for")
		assert.Equal(b, second, b.join(mac(2), one))
		b.core.setPlan(compile(home()))
		assert.Equal(b, "ACK "+third, b.say(b.message(mac(1), dhcp.Request, has(third), other)), "of the last identifier")

		// Where one identifier has a lease of its own, it is a client of its own.
		c.Leases = append(c.Leases, Lease{Address: ip("192.168.0.200"), MAC: mac(1), ClientID: "\x00uuid"})
		b.core.setPlan(compile(c))
		assert.Equal(b, "192.168.0.200", b.join(mac(1), rom))
		assert.Equal(b, third, b.join(mac(1), one))
	})
}

func TestStaticLease(t *testing.T) {
	c := home()
	c.Servers[0].Pool = StaticOnly
	c.Options = []Option{{Name: "tftp", Code: 150, Value: "'192.168.0.1'", Force: true}}
	c.Leases = []Lease{
		{Address: ip("192.168.0.200"), ClientID: "\x01abc", LeaseTime: time.Hour, Options: []string{"tftp"}},
		{MAC: mac(9), Block: true},
	}
	run(t, c, func(b *bench) {
		id := func(m *dhcp.Message) { m.Options.Set(dhcp.OptionClientID, []byte("\x01abc")) }
		_, offer, _ := b.send(b.message(mac(1), dhcp.Discover, id))
		require.NotNil(b, offer)
		assert.Equal(b, ip("192.168.0.200"), offer.Your)
		assert.Equal(b, ip("192.168.0.1"), offer.Options.Addr(150))
		d, _ := offer.Options.Seconds(dhcp.OptionLeaseTime)
		assert.Equal(b, time.Hour, d)
		assert.Empty(b, b.join(mac(2)), "a stranger")
		assert.Empty(b, b.log, "which is no fault")
		assert.Empty(b, b.join(mac(9)))
		assert.Equal(b, "NAK", b.say(b.message(mac(9), dhcp.Request, requested("192.168.0.11"))), "it is blocked")
	})
}

func TestConflict(t *testing.T) {
	run(t, home(), func(b *bench) {
		first := strings.TrimPrefix(b.say(b.message(mac(1), dhcp.Discover)), "OFFER ")
		b.core.remove([]netip.Addr{ip(first)})
		b.owners[ip(first)] = mac(77)
		second := b.join(mac(1))
		assert.NotEmpty(b, second)
		assert.NotEqual(b, first, second, "the one that would be its own is in use")
		assert.Contains(b, b.log[0], "02:00:01:00:00:4D has "+first+" without a lease")
		b.core.remove([]netip.Addr{ip(first), ip(second)})
		b.owners[ip(first)] = mac(1)
		assert.Equal(b, first, b.join(mac(1)), "the client itself has it still")

		b.say(b.message(mac(1), dhcp.Decline, requested(first), chosen("192.168.0.1")))
		assert.NotEqual(b, first, b.join(mac(1)))
		b.say(b.message(mac(5), dhcp.Decline, requested(second), chosen("192.168.0.1")))
		assert.Equal(b, "", b.say(b.message(mac(6), dhcp.Decline, requested("192.168.0.13"))), "of somebody who does not have it")
	})
}

func TestReplies(t *testing.T) {
	c := home()
	c.Servers = append(c.Servers, Server{Name: "far", Interface: "ether2", Pool: "far", LeaseTime: time.Hour, Relay: ip("10.0.0.1")})
	far, _ := match.ParseAddresses("10.0.0.0/29")
	c.Pools = append(c.Pools, Pool{Name: "far", Ranges: []match.Addresses{far}})
	c.Networks = append(c.Networks, Network{Address: netip.MustParsePrefix("10.0.0.0/29")})
	run(t, c, func(b *bench) {
		_, _, p := b.send(b.message(mac(1), dhcp.Discover, func(m *dhcp.Message) { m.Flags = dhcp.FlagBroadcast }))
		assert.Equal(b, "255.255.255.255:68", p.To.String())
		assert.Equal(b, ether.Broadcast, p.ToMAC)
		text, ack, p := b.send(b.message(mac(2), dhcp.Inform, has("192.168.0.222")))
		assert.Equal(b, "ACK", text)
		assert.Equal(b, "192.168.0.222:68", p.To.String())
		_, timed := ack.Options.Get(dhcp.OptionLeaseTime)
		assert.False(b, timed)
		assert.Equal(b, "", b.say(b.message(mac(2), dhcp.Inform, has("10.9.9.9"))))
		relay := func(m *dhcp.Message) {
			m.Relay = ip("10.0.0.1")
			m.Options.Set(dhcp.OptionRelayAgent, []byte("port 7"))
		}
		text, offer, p := b.send(b.message(mac(3), dhcp.Discover, relay))
		require.True(b, strings.HasPrefix(text, "OFFER 10.0.0."), text)
		assert.Equal(b, "10.0.0.1:67", p.To.String())
		assert.Equal(b, "port 7", offer.Options.Text(dhcp.OptionRelayAgent))
		assert.Equal(b, "", b.say(b.message(mac(3), dhcp.Discover, func(m *dhcp.Message) { m.Relay = ip("10.0.0.2") })), "a relay that nobody knows")
		assert.Equal(b, "", b.say(b.message(mac(3), dhcp.Request, relay, requested("192.168.0.10"))), "not authoritative")
		assert.Equal(b, "", b.say(b.message(mac(4), dhcp.Request, requested("192.168.0.10"), chosen("192.168.0.2"))), "another server's")
	})
}

// TestBehindRelay: a host behind a relay renews and gives back by messages of its own, which a router passes on as any
// packet (RFC 2131 4.4.5 and 4.4.6), also where hosts on the link itself have a server.
func TestBehindRelay(t *testing.T) {
	relayMAC := mac(0xff)
	far, err := match.ParseAddresses("10.9.0.10-10.9.0.19")
	require.NoError(t, err)
	for name, relay := range map[string]netip.Addr{"one relay": ip("10.9.0.1"), "any relay": AnyRelay} {
		t.Run(name, func(t *testing.T) {
			c := home()
			c.Servers = append(c.Servers, Server{Name: "far", Interface: "ether2", Pool: "far", LeaseTime: time.Hour, Relay: relay, Authoritative: Authoritative})
			c.Pools = append(c.Pools, Pool{Name: "far", Ranges: []match.Addresses{far}})
			c.Networks = append(c.Networks, Network{Address: netip.MustParsePrefix("10.9.0.0/24"), Gateway: []netip.Addr{ip("10.9.0.1")}})
			run(t, c, func(b *bench) {
				a := b.join(mac(1), func(m *dhcp.Message) { m.Relay = ip("10.9.0.1") })
				require.True(b, strings.HasPrefix(a, "10.9.0.1"), a)
				routed := dhcp.Packet{FromMAC: relayMAC, ToMAC: routerMAC, From: netip.AddrPortFrom(ip(a), dhcp.ClientPort), To: netip.MustParseAddrPort("192.168.0.1:67")}

				text, ack, p := b.sendBy(b.message(mac(1), dhcp.Request, has(a)), routed)
				require.Equal(b, "ACK "+a, text, "a renewal")
				assert.Equal(b, a+":68", p.To.String())
				assert.Equal(b, relayMAC, p.ToMAC, "by the way that it came")
				assert.Equal(b, ip("10.9.0.1"), ack.Options.Addr(dhcp.OptionRouter))
				d, _ := ack.Options.Seconds(dhcp.OptionLeaseTime)
				assert.Equal(b, time.Hour, d)

				text, _, p = b.sendBy(b.message(mac(2), dhcp.Request, has(a)), routed)
				assert.Equal(b, "NAK", text, "of another's address")
				assert.Equal(b, a+":68", p.To.String(), "no broadcast gets there")
				assert.Equal(b, relayMAC, p.ToMAC)
				text, _, _ = b.sendBy(b.message(mac(3), dhcp.Inform, has("10.9.0.200")), routed)
				assert.Equal(b, "ACK", text)

				assert.Equal(b, "NAK", b.say(b.message(mac(1), dhcp.Request, has(a))), "the host is on the link now, and asks everybody there")
				assert.NotNil(b, b.core.table.entries[ip(a)])
				text, _, _ = b.sendBy(b.message(mac(1), dhcp.Release, has(a), chosen("192.168.0.1")), routed)
				assert.Empty(b, text)
				assert.Nil(b, b.core.table.entries[ip(a)], "it was given back")

				// A host of the link itself renews by unicast too.
				mine := b.join(mac(4))
				routed.FromMAC, routed.From = mac(4), netip.AddrPortFrom(ip(mine), dhcp.ClientPort)
				text, _, p = b.sendBy(b.message(mac(4), dhcp.Request, has(mine)), routed)
				assert.Equal(b, "ACK "+mine, text)
				assert.Equal(b, mac(4), p.ToMAC)
			})
		})
	}
}

func TestAuthoritative(t *testing.T) {
	for _, test := range []struct {
		authoritative string
		secs          uint16
		want          string
	}{
		{Authoritative, 0, "NAK"}, {NotAuthoritative, 100, ""}, {AuthoritativeAfter, 1, ""}, {AuthoritativeAfter, 2, "NAK"},
		{AuthoritativeLater, 9, ""}, {AuthoritativeLater, 10, "NAK"},
	} {
		c := home()
		c.Servers[0].Authoritative = test.authoritative
		run(t, c, func(b *bench) {
			assert.Equal(b, test.want, b.say(b.message(mac(1), dhcp.Request, requested("192.168.1.1"), func(m *dhcp.Message) { m.Secs = test.secs })), test)
		})
	}
}

// 10,000 clients that never take what they are offered cost no more than the pool, and a host that
// has a lease keeps it.
func TestFlood(t *testing.T) {
	c := home()
	c.Pools[0].Ranges[0].To = ip("192.168.15.254")
	run(t, c, func(b *bench) {
		plan := compile(c)
		plan.Servers[0].Prefixes = []netip.Prefix{netip.MustParsePrefix("192.168.0.1/20")}
		b.core.setPlan(plan)
		mine := b.join(mac(1))
		most := 0
		for i := range 10_000 {
			payload, err := b.message(mac(1000+i), dhcp.Discover).Marshal(dhcp.MaxMessage)
			require.NoError(b, err)
			b.core.receive(linkIndex, dhcp.Packet{FromMAC: mac(1000 + i), Payload: payload})
			most = max(most, len(b.core.table.entries))
			assert.LessOrEqual(b, len(b.core.table.clients), most)
		}
		assert.Equal(b, MaxLeases, most)
		assert.Len(b, b.log, 1, "one line for all")
		assert.Contains(b, b.log[0], "there are 1024 leases and offers")
		time.Sleep(probes * probeTime * 2)
		synctest.Wait()
		assert.Equal(b, "ACK "+mine, b.say(b.message(mac(1), dhcp.Request, has(mine))))
		assert.LessOrEqual(b, len(b.core.changes()), MaxLeases)
		time.Sleep(30 * time.Second)
		synctest.Wait()
		assert.Len(b, b.core.table.entries, 1, "offers that nobody takes end")
		assert.NotEmpty(b, b.join(mac(2)))
	})
}

func TestPlanOnTheWire(t *testing.T) {
	c := home()
	c.Options = []Option{{Name: "o", Code: 150, Value: "0x0102"}}
	c.Networks[0].Options = []string{"o"}
	c.Networks[0].Next = ip("192.168.0.1")
	c.Leases = []Lease{{Address: ip("192.168.0.11"), MAC: mac(1), ClientID: "x", Server: "home"}}
	plan := compile(c)
	var e service.Encoder
	plan.encode(&e)
	d := service.NewDecoder(e.Bytes())
	assert.Equal(t, plan, decodePlan(d))
	require.NoError(t, d.End())
}

func TestValues(t *testing.T) {
	for text, want := range map[string]string{
		"'text'": "text", "'10.0.0.1'": "\x0a\x00\x00\x01", "s'10.0.0.1'": "10.0.0.1", "0x01fF": "\x01\xff", "0x03'ab''10.0.0.1'": "\x03ab\x0a\x00\x00\x01",
	} {
		value, err := ParseValue(text)
		require.NoError(t, err, text)
		assert.Equal(t, want, string(value), text)
	}
	for _, text := range []string{"", "text", "'text", "0x", "0x1", "0xzz", "10.0.0.1", "'" + strings.Repeat("x", maxOptionValue+1) + "'"} {
		_, err := ParseValue(text)
		assert.Error(t, err, text)
	}
	for _, text := range []string{"1:2:0:0:0:0:b", "ff:0:1"} {
		id, err := ParseClientID(text)
		require.NoError(t, err)
		assert.Equal(t, text, FormatClientID(id))
	}
	for _, text := range []string{"", "1:", "1:222", "x", "0x1", "0x"} {
		_, err := ParseClientID(text)
		assert.Error(t, err, text)
	}
}

// TestAtRest ends a server that has nothing to do, and goes on with another.
func TestAtRest(t *testing.T) {
	run(t, home(), func(b *bench) {
		p := process{core: b.core}
		ctx, cancel := context.WithCancel(context.Background())
		var ended time.Duration
		began := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.endAtRest(ctx, func() { ended = time.Since(began) })
		}()
		defer cancel()

		text := b.say(b.message(mac(1), dhcp.Discover))
		time.Sleep(restTime - 10*time.Second)
		p.heard.Store(true)
		a, _ := strings.CutPrefix(text, "OFFER ")
		require.Equal(b, "ACK "+a, b.say(b.message(mac(1), dhcp.Request, requested(a), chosen("192.168.0.1"), named("laptop"))))
		time.Sleep(2 * restTime)
		synctest.Wait()
		require.Zero(b, ended, "PID 1 does not know of the lease yet")
		known := b.core.changes()
		require.Len(b, known, 1)
		<-done
		assert.GreaterOrEqual(b, ended, 3*restTime)

		next := newCore(b.core.logf, func() {})
		defer next.stop()
		next.links = b.core.links
		next.setPlan(compile(home()))
		next.restore(known)
		assert.Empty(b, next.changes(), "what PID 1 has told is no news to it")
		assert.True(b, next.atRest())
		b.core = next
		assert.Equal(b, "ACK "+a, b.say(b.message(mac(1), dhcp.Request, has(a))), "renewal")
		require.Equal(b, "OFFER", strings.Fields(b.say(b.message(mac(2), dhcp.Discover)))[0])
		next.changes()
		assert.False(b, next.atRest(), "an offer is not known to PID 1 for long")
	})
}
