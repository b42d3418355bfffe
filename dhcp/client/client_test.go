package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/dhcp"
	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/service"
)

var (
	self      = ether.MAC{2, 0, 0, 0, 0, 1}
	serverMAC = ether.MAC{2, 0, 0, 0, 0, 2}
	at        = netip.MustParseAddr
)

// sent is a message that the client has sent.
type sent struct {
	*dhcp.Message
	from netip.Addr
	to   *hop
	at   time.Duration // since the start
}

// rig is a client whose peers are the test.
type rig struct {
	t      *testing.T
	in     chan received
	out    chan sent
	events chan Event
	used   atomic.Bool // somebody has the address
	log    lines
	last   atomic.Pointer[said]
	stop   func() // ends the client
	// xid is the number of the message that the client waits for an answer to.
	xid      atomic.Uint32
	settings Settings
}

// said is what a client has reported last.
type said struct {
	status Status
	lease  *Lease
	keep   bool
	seen   uint64
	told   []string // all statuses
}

func (r *rig) seen() said { return *r.last.Load() }

func newRig(t *testing.T, s Settings) *rig {
	r := &rig{t: t, in: make(chan received, 8), out: make(chan sent, 100), events: make(chan Event, 4)}
	r.last.Store(&said{})
	s.MAC = self
	r.settings = s
	begin := time.Now()
	c := &client{settings: s, events: r.events,
		wires: wires{
			in: r.in, expect: r.xid.Store, probe: func(context.Context, netip.Addr) bool { return r.used.Load() },
			send: func(m *dhcp.Message, from netip.Addr, to *hop) {
				// What others can read counts.
				b, err := m.Marshal(dhcp.MaxMessage)
				require.NoError(t, err)
				read, err := dhcp.Parse(b)
				require.NoError(t, err)
				r.out <- sent{read, from, to, time.Since(begin)}
			},
		},
		report: func(s Status, l *Lease, keep bool, seen uint64) {
			if l != nil {
				checkLease(t, l)
			}
			r.last.Store(&said{s, l, keep, seen, append(slices.Clone(r.seen().told), string(s))})
		},
		logf: func(format string, args ...any) { fmt.Fprintf(&r.log, format+"\n", args...) },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.run(ctx) }()
	r.stop = func() { cancel(); <-done }
	t.Cleanup(r.stop)
	return r
}

// next is the next message that the client sends, whenever that is.
func (r *rig) next(want dhcp.Type) sent {
	r.t.Helper()
	m := <-r.out
	synctest.Wait() // until it waits for an answer
	require.Equal(r.t, want, m.Options.Type())
	return m
}

// answer answers m. change may change the answer.
func (r *rig) answer(m sent, t dhcp.Type, address string, change ...func(*dhcp.Message)) {
	a := &dhcp.Message{Op: dhcp.BootReply, XID: m.XID, Your: at(address), HardwareType: 1, Hardware: self[:]}
	a.Options.SetByte(dhcp.OptionType, byte(t))
	a.Options.SetAddrs(dhcp.OptionServerID, at("192.0.2.1"))
	if t != dhcp.NAK {
		a.Options.SetUint32(dhcp.OptionLeaseTime, 3600)
		a.Options.SetAddrs(dhcp.OptionSubnetMask, at("255.255.255.0"))
		a.Options.SetAddrs(dhcp.OptionRouter, at("192.0.2.1"))
	}
	for _, f := range change {
		f(a)
	}
	payload, err := a.Marshal(dhcp.MaxMessage)
	require.NoError(r.t, err)
	r.put(payload)
}

// put has the client get a message, as a process reads it from the interface. It reports whether the client looks at it.
func (r *rig) put(payload []byte) bool {
	frame := dhcp.Packet{FromMAC: serverMAC, ToMAC: self, From: netip.AddrPortFrom(at("192.0.2.1"), dhcp.ServerPort),
		To: netip.AddrPortFrom(at("192.0.2.10"), dhcp.ClientPort), Payload: payload}.Append(nil)
	answer, ok := r.settings.read(frame, true, r.xid.Load())
	if ok {
		select {
		case r.in <- answer:
		default:
			ok = false
		}
	}
	synctest.Wait()
	return ok
}

// bind brings the client to a lease of an hour.
func (r *rig) bind() {
	r.answer(r.next(dhcp.Discover), dhcp.Offer, "192.0.2.10")
	r.answer(r.next(dhcp.Request), dhcp.ACK, "192.0.2.10")
	require.Equal(r.t, Bound, r.seen().status)
}

// each runs a test on a clock of its own.
func each(t *testing.T, s Settings, f func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) { f(t, newRig(t, s)) })
}

func TestLease(t *testing.T) {
	each(t, Settings{HostName: "router", ClientID: true}, func(t *testing.T, r *rig) {
		d := r.next(dhcp.Discover)
		assert.Nil(t, d.to)
		assert.Equal(t, "router", d.Options.Text(dhcp.OptionHostName))
		id, _ := d.Options.Get(dhcp.OptionClientID)
		assert.Equal(t, append([]byte{1}, self[:]...), id)
		r.answer(d, dhcp.Offer, "192.0.2.10")
		q := r.next(dhcp.Request)
		assert.Equal(t, at("192.0.2.10"), q.Options.Addr(dhcp.OptionRequested))
		assert.Equal(t, at("192.0.2.1"), q.Options.Addr(dhcp.OptionServerID))
		assert.True(t, q.Client.IsUnspecified())
		r.answer(q, dhcp.ACK, "192.0.2.10", func(m *dhcp.Message) {
			m.Options.SetAddrs(dhcp.OptionNameServers, at("9.9.9.9"), at("127.0.0.1"), at("8.8.8.8"))
			m.Options.SetAddrs(dhcp.OptionNTPServers, at("192.0.2.3"))
		})
		assert.Equal(t, []string{"searching...", "requesting...", "bound"}, r.seen().told)
		assert.Equal(t, netip.MustParsePrefix("192.0.2.10/24"), r.seen().lease.Address)
		assert.Equal(t, at("192.0.2.1"), r.seen().lease.Gateway)
		assert.Equal(t, []netip.Addr{at("9.9.9.9"), at("8.8.8.8")}, r.seen().lease.NameServers)
		assert.Equal(t, []netip.Addr{at("192.0.2.3")}, r.seen().lease.TimeServers)

		// After half of the time it asks the server that gave it, by its own frames.
		since := time.Now()
		q = r.next(dhcp.Request)
		assert.Equal(t, 30*time.Minute, time.Since(since))
		assert.Equal(t, at("192.0.2.10"), q.Client)
		assert.Equal(t, at("192.0.2.10"), q.from)
		assert.Equal(t, &hop{serverMAC, at("192.0.2.1")}, q.to)
		assert.Empty(t, q.Options.Addr(dhcp.OptionRequested))
		assert.Equal(t, Renewing, r.seen().status)
		assert.NotNil(t, r.seen().lease, "the address stays meanwhile")
		r.answer(q, dhcp.ACK, "192.0.2.10")
		assert.Equal(t, Bound, r.seen().status)

		// A server that is silent is asked more and more often, then everybody is, until the end.
		since = time.Now()
		tries, broadcasts := 0, 0
		for {
			m := <-r.out
			if m.Options.Type() == dhcp.Discover {
				break
			}
			if m.to == nil {
				broadcasts++
				assert.GreaterOrEqual(t, time.Since(since), 3600*7/8*time.Second)
			} else {
				tries++
			}
		}
		assert.Equal(t, time.Hour, time.Since(since))
		assert.Nil(t, r.seen().lease, "it is over at once")
		assert.Equal(t, Searching, r.seen().status)
		assert.True(t, tries >= 4 && tries <= 12 && broadcasts >= 2 && broadcasts <= 6, "%d, %d", tries, broadcasts)
		assert.Contains(t, r.log.String(), "the lease of 192.0.2.10 has ended")
	})
}

// A server that is not there is asked for ever, more and more seldom.
func TestSilence(t *testing.T) {
	each(t, Settings{}, func(t *testing.T, r *rig) {
		last := r.next(dhcp.Discover)
		for range 200 {
			m := r.next(dhcp.Discover)
			assert.LessOrEqual(t, m.at-last.at, longWait*11/10)
			assert.Equal(t, last.XID, m.XID)
			last = m
		}
		assert.Greater(t, last.at, 180*time.Minute)
		// A link that comes up is a new beginning.
		up := time.Now()
		r.events <- LinkUp
		r.next(dhcp.Discover)
		m := r.next(dhcp.Discover)
		assert.Less(t, m.at, 4*time.Second+last.at+time.Since(up))
		assert.LessOrEqual(t, time.Since(up), 3*time.Second)
	})
}

// An offer that is not confirmed is asked for some times, then anybody is.
func TestOfferWithdrawn(t *testing.T) {
	each(t, Settings{}, func(t *testing.T, r *rig) {
		r.answer(r.next(dhcp.Discover), dhcp.Offer, "192.0.2.10")
		for range requestTries {
			r.next(dhcp.Request)
		}
		r.next(dhcp.Discover)
	})
}

func TestRefusal(t *testing.T) {
	t.Run("at a renewal", func(t *testing.T) {
		each(t, Settings{}, func(t *testing.T, r *rig) {
			r.bind()
			since := time.Now()
			q := r.next(dhcp.Request)
			r.answer(q, dhcp.NAK, "0.0.0.0", func(m *dhcp.Message) { m.Options.Set(dhcp.OptionMessage, []byte("moved\x1b[2J")) })
			assert.Nil(t, r.seen().lease)
			d := r.next(dhcp.Discover)
			assert.Equal(t, q.at, d.at, "at once")
			assert.Contains(t, r.log.String(), "192.0.2.1 refuses the address: moved?[2J")
			assert.Equal(t, 30*time.Minute, time.Since(since))
		})
	})
	t.Run("of another server, at a renewal", func(t *testing.T) {
		each(t, Settings{}, func(t *testing.T, r *rig) {
			r.bind()
			q := r.next(dhcp.Request)
			r.answer(q, dhcp.NAK, "0.0.0.0", func(m *dhcp.Message) { m.Options.SetAddrs(dhcp.OptionServerID, at("192.0.2.66")) })
			assert.Equal(t, Renewing, r.seen().status)
			assert.NotNil(t, r.seen().lease)
			r.answer(q, dhcp.ACK, "192.0.2.10")
			assert.Equal(t, Bound, r.seen().status)
		})
	})
	t.Run("of another server, to an offer", func(t *testing.T) {
		each(t, Settings{}, func(t *testing.T, r *rig) {
			r.answer(r.next(dhcp.Discover), dhcp.Offer, "192.0.2.10")
			q := r.next(dhcp.Request)
			r.answer(q, dhcp.NAK, "0.0.0.0", func(m *dhcp.Message) { m.Options.SetAddrs(dhcp.OptionServerID, at("192.0.2.66")) })
			r.answer(q, dhcp.ACK, "192.0.2.10")
			assert.Equal(t, Bound, r.seen().status)
		})
	})
	t.Run("of each short lease", func(t *testing.T) {
		each(t, Settings{}, func(t *testing.T, r *rig) {
			asked := 0
			for {
				m := <-r.out
				if m.at > time.Hour {
					break
				}
				short := func(m *dhcp.Message) { m.Options.SetUint32(dhcp.OptionLeaseTime, 10) }
				switch {
				case m.Options.Type() == dhcp.Discover:
					r.answer(m, dhcp.Offer, "192.0.2.10", short)
				case m.Client.IsUnspecified():
					asked++
					r.answer(m, dhcp.ACK, "192.0.2.10", short)
				default:
					r.answer(m, dhcp.NAK, "0.0.0.0")
				}
			}
			assert.Less(t, asked, 75, "it waits longer each time, up to a minute")
		})
	})
	t.Run("again and again", func(t *testing.T) {
		each(t, Settings{}, func(t *testing.T, r *rig) {
			asked := 0
			for time.Since(time.Time{}) > 0 {
				m := <-r.out
				if m.at > time.Hour {
					break
				}
				switch m.Options.Type() {
				case dhcp.Discover:
					r.answer(m, dhcp.Offer, "192.0.2.10")
				case dhcp.Request:
					asked++
					r.answer(m, dhcp.NAK, "0.0.0.0")
				}
			}
			assert.Less(t, asked, 75, "it waits longer each time, up to a minute")
		})
	})
}

func TestReboot(t *testing.T) {
	previous := Settings{Previous: at("192.0.2.10")}
	t.Run("it holds", func(t *testing.T) {
		each(t, previous, func(t *testing.T, r *rig) {
			q := r.next(dhcp.Request)
			assert.Equal(t, at("192.0.2.10"), q.Options.Addr(dhcp.OptionRequested))
			assert.Empty(t, q.Options.Addr(dhcp.OptionServerID))
			assert.True(t, r.seen().keep)
			r.used.Store(true) // it is ours: nobody is asked
			r.answer(q, dhcp.ACK, "192.0.2.10")
			assert.Equal(t, Bound, r.seen().status)
			assert.False(t, r.seen().keep)
		})
	})
	t.Run("it does not", func(t *testing.T) {
		each(t, previous, func(t *testing.T, r *rig) {
			r.answer(r.next(dhcp.Request), dhcp.NAK, "0.0.0.0")
			r.next(dhcp.Discover)
			assert.False(t, r.seen().keep)
		})
	})
	t.Run("nobody knows", func(t *testing.T) {
		each(t, previous, func(t *testing.T, r *rig) {
			for range requestTries {
				r.next(dhcp.Request)
			}
			r.next(dhcp.Discover)
			assert.True(t, r.seen().keep, "it may still hold")
		})
	})
	t.Run("the link comes up", func(t *testing.T) {
		each(t, Settings{}, func(t *testing.T, r *rig) {
			r.bind()
			r.events <- LinkUp
			q := r.next(dhcp.Request)
			assert.Equal(t, at("192.0.2.10"), q.Options.Addr(dhcp.OptionRequested))
			assert.NotNil(t, r.seen().lease)
			for range requestTries - 1 {
				r.next(dhcp.Request)
			}
			assert.NotNil(t, r.seen().lease, "it holds for as long as it was given")
			time.Sleep(time.Minute)
			assert.Equal(t, Bound, r.seen().status)
		})
	})
}

// An answer that comes late counts from the question, as the server's clock does.
func TestLeaseCountsFromTheQuestion(t *testing.T) {
	each(t, Settings{}, func(t *testing.T, r *rig) {
		r.answer(r.next(dhcp.Discover), dhcp.Offer, "192.0.2.10")
		q := r.next(dhcp.Request)
		time.Sleep(time.Second)
		r.answer(q, dhcp.ACK, "192.0.2.10")
		assert.Equal(t, 30*time.Minute, r.next(dhcp.Request).at-q.at)
	})
}

func TestFromServer(t *testing.T) {
	packet := dhcp.Packet{From: netip.AddrPortFrom(at("192.0.2.1"), dhcp.ServerPort)}
	message := func(change func(*dhcp.Message)) *dhcp.Message {
		m := &dhcp.Message{Op: dhcp.BootReply, Hardware: self[:]}
		change(m)
		return m
	}
	s := Settings{MAC: self, ClientID: true}
	assert.True(t, s.fromServer(packet, message(func(*dhcp.Message) {})))
	assert.True(t, s.fromServer(packet, message(func(m *dhcp.Message) { m.Options.Set(dhcp.OptionClientID, s.identifier()) })))
	assert.False(t, s.fromServer(packet, message(func(m *dhcp.Message) { m.Options.Set(dhcp.OptionClientID, []byte("another")) })))
	assert.False(t, Settings{MAC: self}.fromServer(packet, message(func(m *dhcp.Message) { m.Options.Set(dhcp.OptionClientID, s.identifier()) })), "it said none")
	assert.False(t, s.fromServer(packet, message(func(m *dhcp.Message) { m.Hardware = serverMAC[:] })))
	assert.False(t, s.fromServer(packet, message(func(m *dhcp.Message) { m.Op = dhcp.BootRequest })))
	assert.False(t, s.fromServer(dhcp.Packet{From: netip.AddrPortFrom(at("192.0.2.1"), 5353)}, message(func(*dhcp.Message) {})))
}

func TestDecline(t *testing.T) {
	each(t, Settings{}, func(t *testing.T, r *rig) {
		r.used.Store(true)
		r.answer(r.next(dhcp.Discover), dhcp.Offer, "192.0.2.10")
		r.answer(r.next(dhcp.Request), dhcp.ACK, "192.0.2.10")
		m := r.next(dhcp.Decline)
		assert.Equal(t, at("192.0.2.10"), m.Options.Addr(dhcp.OptionRequested))
		assert.Equal(t, at("192.0.2.1"), m.Options.Addr(dhcp.OptionServerID))
		assert.Nil(t, r.seen().lease)
		assert.Equal(t, declineWait, r.next(dhcp.Discover).at-m.at)
	})
}

func TestEvents(t *testing.T) {
	for _, c := range []struct {
		name  string
		event Event
		want  []dhcp.Type
	}{
		{"renew", Renew, []dhcp.Type{dhcp.Request}},
		{"release", Release, []dhcp.Type{dhcp.Release, dhcp.Discover}},
		{"leave", leave, []dhcp.Type{dhcp.Release}},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, Settings{}, func(t *testing.T, r *rig) {
				r.bind()
				r.events <- c.event
				for _, want := range c.want {
					m := r.next(want)
					if want == dhcp.Release {
						assert.Equal(t, at("192.0.2.10"), m.Client)
						assert.NotNil(t, m.to)
					}
				}
				synctest.Wait()
				assert.Equal(t, c.event == Renew || c.event == leave, r.seen().lease != nil || c.event == leave)
			})
		})
	}
}

func TestReadLease(t *testing.T) {
	set := func(code byte, value ...byte) func(*dhcp.Message) {
		return func(m *dhcp.Message) { m.Options.Set(code, value) }
	}
	your := func(a string) func(*dhcp.Message) { return func(m *dhcp.Message) { m.Your = at(a) } }
	for _, c := range []struct {
		name   string
		change func(*dhcp.Message)
		want   string // address, gateway, routes, name servers; or the error
	}{
		{"as it is", func(*dhcp.Message) {}, "192.0.2.10/24 192.0.2.1 [] []"},
		{"no netmask", set(dhcp.OptionSubnetMask), "a netmask of 0 bytes"},
		{"a long netmask", set(dhcp.OptionSubnetMask, make([]byte, 255)...), "a netmask of 255 bytes"},
		{"a netmask with holes", set(dhcp.OptionSubnetMask, 255, 0, 255, 0), "255.0.255.0 is no netmask"},
		{"half of the Internet", set(dhcp.OptionSubnetMask, 128, 0, 0, 0), "128.0.0.0 is no netmask"},
		{"one address alone", set(dhcp.OptionSubnetMask, 255, 255, 255, 255), "192.0.2.10/32 192.0.2.1 [] []"},
		{"0.0.0.0", your("0.0.0.0"), "0.0.0.0 is no address of a host"},
		{"multicast", your("224.0.0.1"), "224.0.0.1 is no address of a host"},
		{"loopback", your("127.0.0.2"), "127.0.0.2 is no address of a host"},
		{"of the network", your("192.0.2.0"), "192.0.2.0/24 is no address of a host"},
		{"to all", your("192.0.2.255"), "192.0.2.255/24 is no address of a host"},
		{"no server", set(dhcp.OptionServerID), "it does not say which server it comes from"},
		{"no time", set(dhcp.OptionLeaseTime), "it has no lease time"},
		{"zero", set(dhcp.OptionLeaseTime, 0, 0, 0, 0), "a lease of 0s, expected at least 10s"},
		{"for ever", set(dhcp.OptionLeaseTime, 255, 255, 255, 255), "192.0.2.10/24 192.0.2.1 [] []"},
		{"itself as gateway", set(dhcp.OptionRouter, 192, 0, 2, 10, 192, 0, 2, 9), "192.0.2.10/24 192.0.2.9 [] []"},
		{"a gateway that is none", set(dhcp.OptionRouter, 0, 0, 0, 0), "192.0.2.10/24 invalid IP [] []"},
		{"classless routes", set(dhcp.OptionClasslessRoutes, 0, 192, 0, 2, 7, 8, 10, 192, 0, 2, 8, 24, 192, 0, 2, 0, 0, 0, 0),
			"192.0.2.10/24 192.0.2.1 [{0.0.0.0/0 192.0.2.7} {10.0.0.0/8 192.0.2.8}] []"},
		{"static routes", set(dhcp.OptionStaticRoutes, 10, 0, 0, 0, 192, 0, 2, 7, 10, 1, 2, 3, 192, 0, 2, 8, 0, 0, 0, 0, 192, 0, 2, 9, 172, 16, 0, 0, 0, 0, 0, 0, 224, 0, 0, 0, 192, 0, 2, 8),
			"192.0.2.10/24 192.0.2.1 [{10.0.0.0/8 192.0.2.7} {10.1.2.3/32 192.0.2.8}] []"},
		{"static and classless routes", func(m *dhcp.Message) {
			set(dhcp.OptionStaticRoutes, 10, 0, 0, 0, 192, 0, 2, 7)(m)
			set(dhcp.OptionClasslessRoutes, 8, 11, 192, 0, 2, 8)(m)
		}, "192.0.2.10/24 192.0.2.1 [{11.0.0.0/8 192.0.2.8}] []"},
		{"static routes that end early", set(dhcp.OptionStaticRoutes, 10, 0, 0, 0, 192, 0, 2), "192.0.2.10/24 192.0.2.1 [] []"},
		{"classless routes that end early", set(dhcp.OptionClasslessRoutes, 33, 1), "192.0.2.10/24 192.0.2.1 [] []"},
		{"too many name servers", set(dhcp.OptionNameServers, 9, 9, 9, 1, 9, 9, 9, 2, 9, 9, 9, 3, 9, 9, 9, 4), "192.0.2.10/24 192.0.2.1 [] [9.9.9.1 9.9.9.2 9.9.9.3]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := &dhcp.Message{Your: at("192.0.2.10")}
			m.Options.SetAddrs(dhcp.OptionServerID, at("192.0.2.1"))
			m.Options.SetUint32(dhcp.OptionLeaseTime, 3600)
			m.Options.SetAddrs(dhcp.OptionSubnetMask, at("255.255.255.0"))
			m.Options.SetAddrs(dhcp.OptionRouter, at("192.0.2.1"))
			c.change(m)
			l, err := readLease(m, time.Now())
			if err != nil {
				assert.EqualError(t, err, c.want)
				return
			}
			assert.Equal(t, c.want, fmt.Sprintf("%v %v %v %v", l.Address, l.Gateway, l.Routes, l.NameServers))
			checkLease(t, l)
		})
	}
}

// checkLease checks what is true of every lease, and that PID 1 takes what the process tells.
func checkLease(t *testing.T, l *Lease) {
	t.Helper()
	assert.True(t, l.Since.Before(l.Renew) && l.Renew.Before(l.Rebind) && l.Rebind.Before(l.Expires), "%v %v %v", l.Renew, l.Rebind, l.Expires)
	var e service.Encoder
	l.encode(&e)
	d := service.NewDecoder(e.Bytes())
	back := decodeLease(d)
	require.NoError(t, d.End())
	assert.Equal(t, l.Address, back.Address)
	assert.Equal(t, l.Routes, back.Routes)
	assert.Equal(t, l.ServerMAC, back.ServerMAC)
	for i, want := range l.times() {
		assert.WithinDuration(t, *want, *back.times()[i], 10*time.Second)
	}
}

// PID 1 takes no lease whose times cannot be: it would start a process again and again, or never.
func TestDecodeLeaseTimes(t *testing.T) {
	now := time.Now()
	at := func(d ...time.Duration) Lease {
		return Lease{Address: netip.MustParsePrefix("192.0.2.10/24"), Server: at("192.0.2.1"),
			Since: now.Add(d[0]), Renew: now.Add(d[1]), Rebind: now.Add(d[2]), Expires: now.Add(d[3])}
	}
	for _, c := range []struct {
		name  string
		lease Lease
		ok    bool
	}{
		{"as they are", at(0, time.Hour, 2*time.Hour, 3*time.Hour), true},
		{"long over", at(-4*time.Hour, -3*time.Hour, -2*time.Hour, -time.Hour), true},
		{"T1 before its begin", at(0, -time.Hour, 2*time.Hour, 3*time.Hour), false},
		{"T1 behind T2", at(0, 2*time.Hour, time.Hour, 3*time.Hour), false},
		{"T2 behind the end", at(0, time.Hour, 4*time.Hour, 3*time.Hour), false},
		{"without an end in a lifetime", at(0, time.Hour, 2*time.Hour, longestTime+time.Hour), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var e service.Encoder
			c.lease.encode(&e)
			d := service.NewDecoder(e.Bytes())
			decodeLease(d)
			if c.ok {
				assert.NoError(t, d.End())
			} else {
				assert.EqualError(t, d.End(), "no lease")
			}
		})
	}
}

// A process that was started again goes on with the lease where it is.
func TestResume(t *testing.T) {
	for _, c := range []struct {
		name string
		// away is how long there was no process, and next after how long the client sends something.
		away, next time.Duration
		status     Status
		to         *hop
	}{
		{"before T1", 10 * time.Minute, 20 * time.Minute, Bound, nil},
		{"at T1", 30 * time.Minute, 0, Renewing, &hop{serverMAC, at("192.0.2.1")}},
		{"after T2", 55 * time.Minute, 0, Rebinding, nil},
		{"after its end", 2 * time.Hour, 0, Searching, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				before := newRig(t, Settings{})
				before.bind()
				l := *before.seen().lease
				before.stop()
				time.Sleep(c.away)
				r, began := newRig(t, Settings{Lease: &l}), time.Now()
				synctest.Wait()
				assert.Equal(t, c.status, r.seen().status)
				assert.Equal(t, c.status != Searching, r.seen().lease != nil)
				m := <-r.out
				assert.Equal(t, c.next, time.Since(began))
				if c.status == Searching {
					assert.Equal(t, dhcp.Discover, m.Options.Type())
					return
				}
				assert.Equal(t, dhcp.Request, m.Options.Type())
				assert.Equal(t, at("192.0.2.10"), m.Client)
				if c.status != Bound {
					assert.Equal(t, c.to, m.to)
				}
				r.answer(m, dhcp.ACK, "192.0.2.10")
				assert.Equal(t, Bound, r.seen().status)
				assert.Equal(t, time.Hour, r.seen().lease.Expires.Sub(began.Add(c.next)))
			})
		})
	}
}

// A report says how many events are behind it, so that PID 1 ends no process that has yet to do
// something.
func TestReportsSayWhatTheyHaveSeen(t *testing.T) {
	each(t, Settings{}, func(t *testing.T, r *rig) {
		r.bind()
		assert.Zero(t, r.seen().seen)
		for i, e := range []Event{Renew, LinkUp, Release} {
			r.events <- e
			synctest.Wait()
			assert.NotEqual(t, Bound, r.seen().status)
			assert.Equal(t, uint64(i+1), r.seen().seen)
			if e == Release {
				r.next(dhcp.Release)
				r.bind()
			} else {
				r.answer(r.next(dhcp.Request), dhcp.ACK, "192.0.2.10")
			}
			assert.Equal(t, Bound, r.seen().status)
			assert.Equal(t, uint64(i+1), r.seen().seen)
		}
	})
}

func FuzzLease(f *testing.F) {
	f.Add([]byte{1, 4, 255, 255, 255, 0, 3, 4, 192, 0, 2, 1, 51, 4, 0, 0, 14, 16, 54, 4, 192, 0, 2, 1, 58, 4, 0, 0, 0, 1, 59, 4, 255, 255, 255, 255}, uint32(0xC000020A))
	f.Add([]byte{121, 9, 32, 1, 2, 3, 4, 5, 6, 7, 8, 51, 4, 255, 255, 255, 255, 54, 4, 1, 2, 3, 4}, uint32(1<<24))
	f.Fuzz(func(t *testing.T, options []byte, your uint32) {
		head := make([]byte, 240)
		head[0], head[16], head[17], head[18], head[19] = dhcp.BootReply, byte(your>>24), byte(your>>16), byte(your>>8), byte(your)
		copy(head[236:], "\x63\x82\x53\x63")
		m, err := dhcp.Parse(append(head, options...))
		if err != nil {
			return
		}
		l, err := readLease(m, time.Now())
		if err != nil {
			return
		}
		checkLease(t, l)
		require.True(t, usable(l.Address.Addr()) && usable(l.Server) && len(l.Routes) <= maxRoutes && len(l.NameServers) <= maxServers)
	})
}

func FuzzReport(f *testing.F) {
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, body []byte) {
		d := service.NewDecoder(body)
		l := decodeLease(d)
		if d.End() == nil {
			require.True(t, usable(l.Address.Addr()) && l.Address.Bits() > 0)
		}
	})
}

// An answer with the number of another question is none: neither of a stranger, nor a late one.
func TestWrongNumber(t *testing.T) {
	each(t, Settings{}, func(t *testing.T, r *rig) {
		other := func(m *dhcp.Message) { m.XID++ }
		discover := r.next(dhcp.Discover)
		r.answer(discover, dhcp.Offer, "192.0.2.66", other)
		assert.Equal(t, Searching, r.seen().status)
		r.answer(discover, dhcp.Offer, "192.0.2.10")
		q := r.next(dhcp.Request)
		require.NotEqual(t, discover.XID, q.XID)
		r.answer(q, dhcp.NAK, "0.0.0.0", other)
		r.answer(discover, dhcp.ACK, "192.0.2.66")
		r.answer(q, dhcp.ACK, "192.0.2.66", other)
		assert.Equal(t, Requesting, r.seen().status)
		r.answer(q, dhcp.ACK, "192.0.2.10")
		require.Equal(t, Bound, r.seen().status)

		renewal := r.next(dhcp.Request)
		r.answer(q, dhcp.ACK, "192.0.2.66")
		r.answer(renewal, dhcp.NAK, "0.0.0.0", other)
		assert.Equal(t, Renewing, r.seen().status)
		r.answer(renewal, dhcp.ACK, "192.0.2.10")
		assert.Equal(t, Bound, r.seen().status)
		assert.Equal(t, at("192.0.2.10"), r.seen().lease.Address.Addr())
		assert.Empty(t, r.log.String())
	})
}

// Whoever is on the link can send answers that are wrong; they are some lines, however many come.
func TestWrongAnswersFillNoLog(t *testing.T) {
	each(t, Settings{}, func(t *testing.T, r *rig) {
		said := func() int { return strings.Count(r.log.String(), "\n") }
		timeless := func(m *dhcp.Message) { m.Options.SetUint32(dhcp.OptionLeaseTime, 0) }
		m := r.next(dhcp.Discover)
		for range 1000 {
			r.answer(m, dhcp.Offer, "192.0.2.66", timeless)
		}
		assert.Equal(t, saidLines.Burst, said())
		r.answer(m, dhcp.Offer, "192.0.2.10")
		m = r.next(dhcp.Request)
		for range 1000 {
			r.answer(m, dhcp.ACK, "192.0.2.10", timeless)
		}
		assert.Equal(t, saidLines.Burst, said())
		r.answer(m, dhcp.ACK, "192.0.2.10")
		require.Equal(t, Bound, r.seen().status)
		r.answer(r.next(dhcp.Request), dhcp.NAK, "0.0.0.0")
		assert.Equal(t, saidLines.Burst+2, said())
		assert.Contains(t, r.log.String(), "1980 lines left out\n192.0.2.1 refuses the address\n")
	})
}

// hostile is an answer to m that no honest server sends.
func hostile(random *rand.Rand, m sent) []byte {
	pick := func(all ...uint32) uint32 { return all[random.IntN(len(all))] }
	a := &dhcp.Message{Op: dhcp.BootReply, XID: m.XID, Your: at([]string{"192.0.2.10", "192.0.2.11", "0.0.0.0", "192.0.2.255", "255.255.255.255", "127.0.0.1"}[random.IntN(6)]),
		HardwareType: 1, Hardware: self[:]}
	a.Options.SetByte(dhcp.OptionType, []byte{byte(dhcp.Offer), byte(dhcp.ACK), byte(dhcp.NAK), byte(dhcp.Discover), 0, 255}[random.IntN(6)])
	a.Options.SetAddrs(dhcp.OptionServerID, at([]string{"192.0.2.1", "192.0.2.1", "192.0.2.66", "0.0.0.0"}[random.IntN(4)]))
	a.Options.SetUint32(dhcp.OptionLeaseTime, pick(0, 1, 9, 10, 11, 40, 3600, 1<<31-1, 1<<31, 1<<32-2, 1<<32-1))
	a.Options.SetUint32(dhcp.OptionSubnetMask, pick(0xFFFFFF00, 0xFFFFFF00, 0xFFFFFFFF, 0, 0xFF00FF00, 0x80000000))
	for _, o := range []struct {
		code byte
		size []int // 255 is the longest of one piece
	}{
		{dhcp.OptionRenewalTime, []int{0, 3, 4, 5}}, {dhcp.OptionRebindingTime, []int{0, 4, 255}}, {dhcp.OptionRouter, []int{0, 4, 252, 255}},
		{dhcp.OptionNameServers, []int{0, 1, 4, 252, 400}}, {dhcp.OptionNTPServers, []int{0, 4, 252}}, {dhcp.OptionStaticRoutes, []int{0, 4, 8, 248}},
		{dhcp.OptionClasslessRoutes, []int{0, 1, 9, 255, 500}}, {dhcp.OptionDomain, []int{0, 255}}, {dhcp.OptionMessage, []int{0, 255}},
		{dhcp.OptionLeaseTime, []int{0, 3, 5}}, {dhcp.OptionServerID, []int{0, 8}}, {dhcp.OptionType, []int{0, 2}}, {dhcp.OptionClientID, []int{0, 7}},
	} {
		if random.IntN(6) != 0 {
			continue
		}
		value := make([]byte, o.size[random.IntN(len(o.size))])
		for i := range value {
			value[i] = byte(random.Uint32())
		}
		a.Options.Set(o.code, value)
	}
	payload, err := a.Marshal(dhcp.MaxMessage)
	if err != nil {
		a.Options = a.Options[:4]
		payload, _ = a.Marshal(dhcp.MaxMessage)
	}
	const options = 240
	switch random.IntN(10) {
	case 0: // wrong number, operation, address
		payload[pick(4, 7, 0, 28, 33)]++
	case 1: // cut off
		payload = payload[:random.IntN(len(payload))]
	case 2: // an option that is longer than the message, or whose length is missing
		payload = append(payload[:len(payload)-1-random.IntN(3)], byte(pick(3, 53, 54, 121)), 255)
	case 3: // options in the fields of the file and of the name, which point to one another, and have no end
		payload = append(payload[:options:options], append([]byte{dhcp.OptionOverload, 1, 3}, payload[options:]...)...)
		for i := 44; i < 236; i += 3 {
			copy(payload[i:236], []byte{dhcp.OptionOverload, 1, 3})
		}
	case 4: // nothing but padding, and no end
		clear(payload[options:])
	case 5: // one option in a hundred pieces
		for range 100 {
			payload = append(payload[:options:options], append([]byte{byte(pick(3, 51, 53, 121)), byte(pick(0, 4)), 1, 2, 3, 4}, payload[options:]...)...)
		}
	case 6: // any byte
		for range 1 + random.IntN(8) {
			payload[random.IntN(len(payload))] = byte(random.Uint32())
		}
	}
	return payload
}

// Whatever comes, the client goes on, tells of no lease that cannot be (the rig checks each), and asks and says no more
// than its bounds. When an honest server is there it has an address.
func TestHostileServers(t *testing.T) {
	for seed := range uint64(2) {
		each(t, Settings{ClientID: seed%2 == 0}, func(t *testing.T, r *rig) {
			random := rand.New(rand.NewPCG(seed, 2))
			count, looked, refused := 0, 0, 0
			for {
				m := <-r.out
				synctest.Wait()
				if m.at > time.Hour {
					break
				}
				count++
				if r.put(nak(m)) && random.IntN(4) == 0 { // a storm
					refused++
					for range 20 {
						r.put(nak(m))
					}
				}
				for range random.IntN(20) {
					if r.put(hostile(random, m)) {
						looked++
					}
				}
				if s := r.seen(); s.status == Bound && time.Until(s.lease.Renew) > time.Hour {
					r.events <- Release // to go on
				}
			}
			t.Logf("%d questions, %d answers that it looked at, %d storms of refusals", count, looked, refused)
			assert.Greater(t, looked, 50)
			// Leases of ten seconds are allowed, so it asks often; but it does not spin.
			assert.Less(t, count, 3600)

			r.events <- Release
			for deadline := time.Now().Add(time.Hour); r.seen().lease == nil || r.seen().lease.Server != at("192.0.2.1") || r.seen().lease.Address.Addr() != at("192.0.2.77"); {
				require.True(t, time.Now().Before(deadline), "it takes what an honest server gives")
				m := <-r.out
				synctest.Wait()
				switch {
				case m.Options.Type() == dhcp.Discover:
					r.answer(m, dhcp.Offer, "192.0.2.77")
				case m.Options.Type() == dhcp.Request && m.Options.Addr(dhcp.OptionRequested) == at("192.0.2.77"):
					r.answer(m, dhcp.ACK, "192.0.2.77")
				case m.Options.Type() == dhcp.Request && m.to == nil:
					r.answer(m, dhcp.NAK, "0.0.0.0", func(n *dhcp.Message) { n.Options.SetAddrs(dhcp.OptionServerID, at("192.0.2.1")) })
				}
			}
		})
	}
}

// nak is a refusal of m.
func nak(m sent) []byte {
	a := &dhcp.Message{Op: dhcp.BootReply, XID: m.XID, HardwareType: 1, Hardware: self[:]}
	a.Options.SetByte(dhcp.OptionType, byte(dhcp.NAK))
	a.Options.SetAddrs(dhcp.OptionServerID, at("192.0.2.66"))
	payload, _ := a.Marshal(dhcp.MaxMessage)
	return payload
}
