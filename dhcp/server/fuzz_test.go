package server

import (
	"net/netip"
	"slices"
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

// play is a server whose clients do what a script says, and what those believe to have: never one address for two.
type play struct {
	*bench
	config Config
	// owners are who has which address, by what the server has told them.
	owners map[netip.Addr]owner
	// offers are the addresses that clients were offered last.
	offers map[ether.MAC]netip.Addr
	from   ether.MAC // of the message that is answered
	id     string
	acks   int
}

// owner is a client with a lease.
type owner struct {
	mac   ether.MAC
	id    string
	until time.Time
}

// The steps of a script, four bytes each: what happens, who it is, the address, and how the message goes.
const (
	stepSleep    = 8 + iota // for ten seconds times the third byte
	stepReserve             // 192.168.0.11 is reserved for the client with number 1, or is no longer
	stepRestart             // of the process
	stepARP                 // the client has the address
	steps                   // below stepSleep is a message, of that type and one
	byClient     = 1        // the address is the client's own (ciaddr), and not what it asks for
	ofServer     = 2        // it names the server
	byRelay      = 4
	toServer     = 8    // and to nobody else
	lastOffer    = 0xFF // for an address
	farAddresses = 0x40 // and above: those behind the relay
)

// scripts are those that the fuzzer begins with.
var scripts = [][]byte{
	{0, 0, 0, 0, 2, 0, lastOffer, ofServer, 2, 0, lastOffer, byClient | toServer, 6, 0, lastOffer, byClient, 0, 2, 0, 0, 2, 2, lastOffer, ofServer}, // join, renew, give back, another
	{0, 4, 0, 0, 2, 4, lastOffer, ofServer, 0, 6, 0, 0, 2, 6, lastOffer, ofServer, 2, 6, lastOffer, byClient},                                       // two with one identifier
	{0, 1, 0, 0, 2, 1, lastOffer, ofServer, 0, 5, 0, 0, 2, 5, lastOffer, ofServer, stepReserve, 0, 0, 0, 0, 9, 0, 0, 2, 9, lastOffer, ofServer, 2, 5, lastOffer, 0},
	{0, 2, 2, 0, 2, 2, 2, ofServer, stepReserve, 0, 0, 0, 0, 1, 0, 0, 2, 1, lastOffer, ofServer, 2, 2, 2, byClient, 0, 1, 0, 0, 2, 1, lastOffer, ofServer}, // what another has is reserved
	{0, 0, 0, byRelay, 2, 0, lastOffer, ofServer | byRelay, 2, 0, lastOffer, byClient | toServer, 2, 2, 0x40, byClient | toServer, 6, 0, lastOffer, byClient | toServer},
	{2, 0, 1, 0, 2, 2, 1, 0, stepSleep, 0, 181, 0, 2, 2, 1, 0, stepRestart, 0, 0, 0, 2, 0, 1, byClient, 3, 2, 1, ofServer, 2, 3, 1, 0},
	{0, 0, 0, 0, stepARP, 3, lastOffer, 0, stepSleep, 0, 1, 0, 2, 0, lastOffer, ofServer},
}

func (p *play) address(b byte) netip.Addr {
	if b >= farAddresses {
		return netip.AddrFrom4([4]byte{10, 9, 0, 10 + b%4})
	}
	return netip.AddrFrom4([4]byte{192, 168, 0, 9 + b%12})
}

// take takes what the server sends.
func (p *play) take(frame []byte) {
	packet, err := dhcp.ParsePacket(frame, true)
	require.NoError(p, err)
	m, err := dhcp.Parse(packet.Payload)
	require.NoError(p, err)
	mac := ether.MAC(m.Hardware)
	switch {
	case m.Options.Type() == dhcp.Offer:
		p.offers[mac] = m.Your
		require.False(p, p.taken(m.Your, mac), "%s is offered to %s, and is %v's", m.Your, mac, p.owners[m.Your])
	case m.Options.Type() == dhcp.ACK && !m.Your.IsUnspecified():
		require.Equal(p, p.from, mac, "an answer comes at once")
		require.False(p, p.taken(m.Your, mac), "%s is given to %s, and is %v's", m.Your, mac, p.owners[m.Your])
		for a, o := range p.owners {
			if o.mac == mac && o.id == p.id { // it has one on its network
				delete(p.owners, a)
			}
		}
		d, timed := m.Options.Seconds(dhcp.OptionLeaseTime)
		require.True(p, timed)
		p.owners[m.Your] = owner{mac, p.id, time.Now().Add(d)}
		p.acks++
	}
}

// taken reports whether an address is somebody's other than of that hardware address.
func (p *play) taken(a netip.Addr, mac ether.MAC) bool {
	o, has := p.owners[a]
	return has && o.mac != mac && o.until.After(time.Now())
}

// lock keeps the timers of the server away, for as long as the returned function is not called.
func (p *play) lock() (unlock func()) {
	p.core.mu.Lock()
	return p.core.mu.Unlock
}

// leave has a client give up an address, or those of all of its identifiers if it has an address that is reserved for it.
func (p *play) leave(mac ether.MAC, id string, a netip.Addr) {
	defer p.lock()()
	for at, o := range p.owners {
		if o.mac == mac && (at == a && o.id == id || len(p.config.Leases) > 0 && mac == p.config.Leases[0].MAC && at != p.config.Leases[0].Address) {
			delete(p.owners, at)
		}
	}
}

func (p *play) step(what, who, where, how byte) {
	a, mac, id := p.address(where), mac(int(who%4)), []string{"", "\xffcopied", "\x00rom"}[who/4%3]
	if where == lastOffer && p.offers[mac].IsValid() {
		a = p.offers[mac]
	}
	switch what %= steps; what {
	case stepSleep:
		time.Sleep(time.Duration(where) * 10 * time.Second)
		return
	case stepReserve:
		if p.config.Leases = nil; who%2 == 0 {
			p.config.Leases = []Lease{{Address: ip("192.168.0.11"), MAC: mac1}}
		}
		p.leave(mac1, "", netip.Addr{})
		p.core.setPlan(compile(p.config))
		return
	case stepRestart:
		var kept []Binding
		unlock := p.lock()
		for _, e := range p.core.table.entries {
			if e.Status == Bound {
				b := e.Binding
				b.Left = time.Until(e.expires)
				kept = append(kept, b)
			}
		}
		links := p.core.links
		unlock()
		p.core.stop()
		p.core = newCore(func(string, ...any) {}, func() {})
		p.core.links = links
		p.core.restore(kept)
		p.core.setPlan(compile(p.config))
		return
	case stepARP:
		p.core.receiveARP(linkIndex, dhcp.ARP{Reply: true, SenderMAC: mac, Sender: a, TargetMAC: routerMAC})
		return
	}
	change := []func(*dhcp.Message){requested(a.String())}
	if how&byClient != 0 {
		change[0] = has(a.String())
	}
	if how&ofServer != 0 {
		change = append(change, chosen("192.168.0.1"))
	}
	if id != "" {
		change = append(change, identified(id))
	}
	packet := dhcp.Packet{FromMAC: mac, ToMAC: ether.Broadcast, From: netip.MustParseAddrPort("0.0.0.0:68"), To: netip.MustParseAddrPort("255.255.255.255:67")}
	if how&byRelay != 0 {
		change = append(change, func(m *dhcp.Message) { m.Relay = ip("10.9.0.1") })
	}
	if how&toServer != 0 {
		packet.To = netip.MustParseAddrPort("192.168.0.1:67")
	}
	typ := dhcp.Type(what + 1)
	payload, err := p.message(mac, typ, change...).Marshal(dhcp.MaxMessage)
	require.NoError(p, err)
	packet.Payload = payload
	if typ == dhcp.Release || typ == dhcp.Decline {
		p.leave(mac, id, a)
	}
	unlock := p.lock()
	had := p.core.table.clients[p.core.clientKey("home", mac, id)]
	p.from, p.id = mac, id
	unlock()
	p.core.receive(linkIndex, packet)
	unlock = p.lock()
	lost := had != nil && p.core.table.entries[had.Address] != had
	unlock()
	if lost {
		// It was refused, or looks for an address anew, and one that is reserved for it, or for another, is not kept for it.
		reserved := slices.ContainsFunc(p.config.Leases, func(l Lease) bool { return l.Address == had.Address || l.MAC == mac })
		require.True(p, reserved || typ != dhcp.Discover, "%s lost %s", mac, had.Address)
		if reserved {
			p.leave(mac, id, had.Address)
		}
	}
}

var mac1 = mac(1)

// check looks whether the table is right, and everybody has what he was given.
func (p *play) check() {
	defer p.lock()()
	for key, e := range p.core.table.clients {
		require.Equal(p, key, e.key)
	}
	for a, e := range p.core.table.entries {
		require.Equal(p, a, e.Address)
		require.True(p, e.key == "" || p.core.table.clients[e.key] == e)
	}
	for a, o := range p.owners {
		if o.until.After(time.Now()) {
			e := p.core.table.entries[a]
			require.NotNil(p, e, "%s is %v's", a, o)
			require.Equal(p, o.mac, e.MAC, a)
		}
	}
}

// run plays a script.
func (p *play) run(t *testing.T, script []byte) {
	synctest.Test(t, func(t *testing.T) {
		*p = play{bench: &bench{T: t}, config: home(), owners: map[netip.Addr]owner{}, offers: map[ether.MAC]netip.Addr{}}
		far, err := match.ParseAddresses("10.9.0.10-10.9.0.13")
		require.NoError(t, err)
		p.config.Servers[0].NoConflictDetection = len(script)%2 == 0
		p.config.Servers = append(p.config.Servers, Server{Name: "far", Interface: "ether2", Pool: "far", LeaseTime: time.Hour, Relay: ip("10.9.0.1"), Authoritative: Authoritative})
		p.config.Pools = append(p.config.Pools, Pool{Name: "far", Ranges: []match.Addresses{far}})
		p.config.Networks = append(p.config.Networks, Network{Address: netip.MustParsePrefix("10.9.0.0/24")})
		p.core = newCore(func(string, ...any) {}, func() {})
		defer func() { p.core.stop() }()
		p.core.setLink(&link{linkIndex, routerMAC, p.take, func([]byte) {}})
		p.core.setPlan(compile(p.config))
		for ; len(script) >= 4; script = script[4:] {
			p.step(script[0], script[1], script[2], script[3])
			synctest.Wait()
			p.check()
		}
		p.core.receive(linkIndex, dhcp.Packet{Payload: script})
	})
}

// Never one address for two, whatever clients do.
func FuzzServer(f *testing.F) {
	for _, s := range scripts {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script []byte) {
		new(play).run(t, script[:min(len(script), 400)])
	})
}

// In the scripts that the fuzzer begins with leases are given.
func TestScripts(t *testing.T) {
	for i, s := range scripts {
		for _, probed := range []bool{false, true} {
			if probed {
				s = append(slices.Clone(s), 0)
			}
			var p play
			p.run(t, s)
			assert.True(t, p.acks > 0 || probed, "script %d", i)
		}
	}
}

// FuzzReceive: whatever comes by an interface, the server goes on, and what it sends can be read.
func FuzzReceive(f *testing.F) {
	b := &bench{}
	for _, m := range []*dhcp.Message{
		b.message(mac(1), dhcp.Discover, named("laptop"), identified("x")), b.message(mac(1), dhcp.Request, requested("192.168.0.11"), chosen("192.168.0.1")),
		b.message(mac(1), dhcp.Inform, has("192.168.0.11"), func(m *dhcp.Message) {
			m.Options.Set(dhcp.OptionParameters, []byte{1, 3, 6, 150})
			m.Options.Set(dhcp.OptionMaxSize, []byte{2, 0})
			m.Options.Set(dhcp.OptionRelayAgent, []byte("port 7"))
		}),
	} {
		payload, err := m.Marshal(dhcp.MaxMessage)
		require.NoError(f, err)
		f.Add(payload, true)
		f.Add(payload, false)
	}
	config := home()
	config.Servers[0].NoConflictDetection = true
	config.Options = []Option{{Name: "long", Code: 150, Value: "'" + string(slices.Repeat([]byte("x"), 255)) + "'", Force: true}}
	config.Networks[0].Options = []string{"long"}
	plan := compile(config)
	f.Fuzz(func(t *testing.T, payload []byte, broadcasts bool) {
		c := newCore(func(string, ...any) {}, func() {})
		defer c.stop()
		sent := 0
		c.setLink(&link{linkIndex, routerMAC, func(frame []byte) {
			sent++
			packet, err := dhcp.ParsePacket(frame, true)
			require.NoError(t, err)
			_, err = dhcp.Parse(packet.Payload)
			require.NoError(t, err)
			require.LessOrEqual(t, len(packet.Payload), dhcp.MaxMessage)
		}, func([]byte) {}})
		c.setPlan(plan)
		to := netip.MustParseAddrPort("192.168.0.1:67")
		if broadcasts {
			to = netip.MustParseAddrPort("255.255.255.255:67")
		}
		c.receive(linkIndex, dhcp.Packet{FromMAC: mac(1), To: to, Payload: slices.Clone(payload)})
		require.LessOrEqual(t, sent, 1)
	})
}

// FuzzPlan: the process takes no plan that it cannot serve by.
func FuzzPlan(f *testing.F) {
	var e service.Encoder
	config := home()
	config.Leases = []Lease{{Address: ip("192.168.0.11"), MAC: mac(1), ClientID: "x"}}
	compile(config).encode(&e)
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, body []byte) {
		d := service.NewDecoder(body)
		plan := decodePlan(d)
		if d.End() != nil {
			return
		}
		var e service.Encoder
		plan.encode(&e)
		again := service.NewDecoder(e.Bytes())
		require.Equal(t, plan, decodePlan(again))
		require.NoError(t, again.End())
		c := newCore(func(string, ...any) {}, func() {})
		defer c.stop()
		for _, s := range plan.Servers {
			c.setLink(&link{s.Link, routerMAC, func([]byte) {}, func([]byte) {}})
		}
		c.setPlan(plan)
		for _, typ := range []dhcp.Type{dhcp.Discover, dhcp.Request, dhcp.Inform} {
			b := &bench{T: t}
			payload, err := b.message(mac(1), typ, requested("192.168.0.11")).Marshal(dhcp.MaxMessage)
			require.NoError(t, err)
			for _, s := range plan.Servers {
				c.receive(s.Link, dhcp.Packet{FromMAC: mac(1), Payload: payload})
			}
		}
	})
}

// FuzzBindings: what PID 1 and the process tell each other of leases is read as it was written, or refused.
func FuzzBindings(f *testing.F) {
	var e service.Encoder
	encodeBindings(&e, []Binding{{Address: ip("192.168.0.10"), MAC: mac(1), ClientID: "x", HostName: "laptop", Server: "home", Status: Bound, Left: time.Hour}, {Address: ip("192.168.0.11")}})
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, body []byte) {
		d := service.NewDecoder(body)
		all := decodeBindings(d)
		if d.End() != nil {
			return
		}
		for _, b := range all {
			require.True(t, b.Address.Is4() && b.Status <= Conflict && len(b.ClientID) <= MaxClientID && len(b.HostName) <= maxHostName && len(b.Server) <= MaxName)
		}
		var e service.Encoder
		encodeBindings(&e, all)
		require.Equal(t, all, decodeBindings(service.NewDecoder(e.Bytes())))
	})
}

// FuzzWords: values of options and identifiers of clients, as users write them.
func FuzzWords(f *testing.F) {
	for _, s := range []string{"'text'", "s'10.0.0.1'", "0x03'ab''10.0.0.1'", "0x01fF", "1:2:0:0:0:0:b", "ff:0:1", "0x0102", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if value, err := ParseValue(s); err == nil {
			require.True(t, len(value) <= maxOptionValue)
		}
		if id, err := ParseClientID(s); err == nil {
			require.True(t, id != "" && len(id) <= MaxClientID)
			again, err := ParseClientID(FormatClientID(id))
			require.NoError(t, err)
			require.Equal(t, id, again)
		}
	})
}
