package pppoe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/ether"
	"github.com/postern-router/postern/internal/pppoetest"
)

var (
	clientMAC = ether.MAC{2, 0, 0, 0, 0, 1}
	serverMAC = ether.MAC{2, 0, 0, 0, 0, 2}
)

// rig is a client and a server on a link without loss, with a clock that the test moves. It is the
// kernel, too: it has the session that the client's last report says.
type rig struct {
	t      *testing.T
	client *client
	server *pppoetest.Server
	now    time.Time

	queue   []func()
	kernel  Session
	reports []Report
	refuse  error // of reports with a link
	said    []string
	sent    int // packets of the client
	// cut is set while nothing passes.
	cut bool
}

func testServer() pppoetest.Config {
	return pppoetest.Config{MAC: serverMAC, AC: "ac1", Service: "internet", User: "user", Password: "secret", Auth: "chap", MRU: 1492,
		Local: netip.MustParseAddr("10.64.0.1"), Remote: netip.MustParseAddr("203.0.113.7"),
		DNS: []netip.Addr{netip.MustParseAddr("9.9.9.9"), netip.MustParseAddr("9.9.9.10")}}
}

func testSettings() Settings {
	return Settings{MAC: clientMAC, User: "user", Password: "secret", MTU: MaxMTU, MRU: MaxMTU,
		Allow: PAP | CHAP | MSCHAP1 | MSCHAP2, Keepalive: 10 * time.Second, NameServers: true}
}

func newRig(t *testing.T, s Settings, c pppoetest.Config) *rig {
	r := &rig{t: t, now: time.Unix(1000, 0)}
	r.server = pppoetest.New(c, func(frame []byte) {
		frame = slices.Clone(frame)
		r.later(func() { r.toClient(frame) })
	})
	r.client = newClient(s, wires{
		discover: func(frame []byte) { r.fromClient(frame) },
		control: func(frame []byte) {
			require.NotEqual(t, Session{}, r.kernel, "nothing is sent without a session")
			b := append(append(slices.Clone(r.kernel.Server[:]), s.MAC[:]...), 0x88, 0x64, versionType, 0)
			b = binary.BigEndian.AppendUint16(b, r.kernel.ID)
			b = binary.BigEndian.AppendUint16(b, uint16(len(frame)))
			r.fromClient(append(b, frame...))
		},
		report: func(p Report) error {
			r.reports = append(r.reports, p)
			if p.Link != nil && r.refuse != nil {
				return r.refuse
			}
			if p.Session != r.kernel {
				r.later(func() {
					if r.kernel = p.Session; r.kernel != (Session{}) {
						r.client.opened(r.now, r.kernel)
					}
				})
			}
			return nil
		},
		logf: func(format string, args ...any) { r.said = append(r.said, fmt.Sprintf(format, args...)) },
	})
	return r
}

func (r *rig) later(f func()) { r.queue = append(r.queue, f) }

func (r *rig) fromClient(frame []byte) {
	r.sent++
	frame = slices.Clone(frame)
	if !r.cut {
		r.later(func() { r.server.Take(frame) })
	}
}

func (r *rig) toClient(frame []byte) {
	switch {
	case r.cut:
	case binary.BigEndian.Uint16(frame[12:]) == ether.PPPoEDiscovery:
		r.client.takeDiscovery(r.now, frame)
	case r.kernel == Session{ether.MAC(frame[6:]), binary.BigEndian.Uint16(frame[16:])}:
		r.client.takeControl(r.now, frame[ether.Header+pppoeHeader:])
	}
}

// settle lets all packets arrive.
func (r *rig) settle() {
	for n := 0; len(r.queue) > 0; n++ {
		require.Less(r.t, n, 10000, "they talk without end")
		f := r.queue[0]
		r.queue = r.queue[1:]
		f()
	}
}

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	r.settle()
	for end := r.now.Add(d); ; {
		at := r.client.next()
		if at.IsZero() || at.After(end) {
			r.now = end
			return
		}
		if at.After(r.now) {
			r.now = at
		}
		r.client.tick(r.now)
		r.settle()
	}
}

func (r *rig) last() Report { return r.reports[len(r.reports)-1] }

func (r *rig) start() *rig {
	r.client.start(r.now)
	r.settle()
	return r
}

func TestConnects(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Settings, *pppoetest.Config)
		method string
		want   Link
	}{
		{"chap", func(*Settings, *pppoetest.Config) {}, "chap", Link{MTU: 1492, MRU: 1492}},
		{"pap", func(_ *Settings, c *pppoetest.Config) { c.Auth = "pap" }, "pap", Link{MTU: 1492, MRU: 1492}},
		{"mschap2", func(_ *Settings, c *pppoetest.Config) { c.Auth = "mschap2" }, "mschap2", Link{MTU: 1492, MRU: 1492}},
		{"what is allowed", func(s *Settings, c *pppoetest.Config) { c.Auth, s.Allow = "pap chap mschap2", CHAP }, "chap", Link{MTU: 1492, MRU: 1492}},
		{"nobody asks for a password", func(_ *Settings, c *pppoetest.Config) { c.Auth = "" }, "", Link{MTU: 1492, MRU: 1492}},
		{"smaller packets", func(s *Settings, c *pppoetest.Config) { s.MTU, s.MRU, c.MRU = 1400, 1300, 1450 }, "chap", Link{MTU: 1400, MRU: 1300}},
		{"a server of smaller packets", func(_ *Settings, c *pppoetest.Config) { c.MRU = 1000 }, "chap", Link{MTU: 1000, MRU: 1492}},
		{"a server of larger packets", func(_ *Settings, c *pppoetest.Config) { c.MRU = 1500 }, "chap", Link{MTU: 1492, MRU: 1492}},
		{"a server that does not say", func(_ *Settings, c *pppoetest.Config) { c.MRU = 0 }, "chap", Link{MTU: 1492, MRU: 1492}},
		{"names", func(s *Settings, _ *pppoetest.Config) { s.Service, s.AC = "internet", "ac1" }, "chap", Link{MTU: 1492, MRU: 1492}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, config := testSettings(), testServer()
			c.change(&s, &config)
			r := newRig(t, s, config).start()
			got := r.last()
			require.Equal(t, Connected, got.Status, "%v %v", got, r.server.Log())
			c.want.Local, c.want.Remote, c.want.NameServers = config.Remote, config.Local, config.DNS
			assert.Equal(t, &c.want, got.Link)
			assert.Equal(t, "ac1", got.AC)
			assert.Equal(t, Session{serverMAC, 1}, got.Session)
			assert.True(t, r.server.Up())
			if c.method != "" {
				assert.Contains(t, r.server.Log(), "user by "+c.method)
			}
		})
	}
}

func TestNameServers(t *testing.T) {
	s, config := testSettings(), testServer()
	s.NameServers = false
	assert.Empty(t, newRig(t, s, config).start().last().Link.NameServers)

	config.DNS = nil
	assert.Empty(t, newRig(t, testSettings(), config).start().last().Link.NameServers)
	config.DNS = []netip.Addr{netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("9.9.9.9")}
	assert.Equal(t, config.DNS[1:], newRig(t, testSettings(), config).start().last().Link.NameServers)
}

// What is not the client's is not answered.
func TestOffers(t *testing.T) {
	s := testSettings()
	s.AC = "ac2"
	r := newRig(t, s, testServer()).start()
	r.pass(time.Hour)
	assert.Equal(t, Dialing, r.last().Status)
	assert.LessOrEqual(t, r.sent, 75, "no more than one a minute")
	assert.GreaterOrEqual(t, r.sent, 50)

	s = testSettings()
	s.Service = "other"
	r = newRig(t, s, testServer()).start()
	r.pass(time.Minute)
	assert.Equal(t, Dialing, r.last().Status)

	r = newRig(t, testSettings(), testServer())
	r.cut = true
	r.start()
	tags := []tag{{tagServiceName, nil}, {tagHostUniq, r.client.uniq}, {tagACName, []byte("ac")}}
	offer := discovery{to: clientMAC, from: serverMAC, code: codePADO, tags: tags}
	for name, change := range map[string]func(*discovery){
		"to another":          func(d *discovery) { d.to = ether.MAC{2, 9} },
		"from a group":        func(d *discovery) { d.from = ether.Broadcast },
		"from the client":     func(d *discovery) { d.from = clientMAC },
		"of another question": func(d *discovery) { d.tags = []tag{{tagServiceName, nil}, {tagHostUniq, []byte("x")}} },
		"of no question":      func(d *discovery) { d.tags = []tag{{tagServiceName, nil}} },
		"an error":            func(d *discovery) { d.tags = append(slices.Clone(tags), tag{tagGenericError, []byte("full\n")}) },
		"a long cookie":       func(d *discovery) { d.tags = append(slices.Clone(tags), tag{tagCookie, make([]byte, maxEcho+1)}) },
		"a confirmation":      func(d *discovery) { d.code, d.session = codePADS, 7 },
		"an end":              func(d *discovery) { d.code = codePADT },
	} {
		d := offer
		change(&d)
		r.client.takeDiscovery(r.now, d.frame())
		assert.Equal(t, discovering, r.client.phase, name)
	}
	assert.Equal(t, []string{`access concentrator 02:00:00:00:00:02 "ac": it refuses: full?`}, r.said)
	r.client.takeDiscovery(r.now, offer.frame())
	assert.Equal(t, requesting, r.client.phase)

	confirm := discovery{to: clientMAC, from: ether.MAC{2, 3}, code: codePADS, session: 7, tags: tags}
	r.client.takeDiscovery(r.now, confirm.frame())
	assert.Equal(t, requesting, r.client.phase, "from another")
	confirm.from, confirm.tags = serverMAC, append(slices.Clone(tags), tag{tagSystemError, nil})
	r.client.takeDiscovery(r.now, confirm.frame())
	assert.Equal(t, waiting, r.client.phase)
	assert.Equal(t, "the access concentrator refuses a session: it has an error", r.last().Reason)
}

// Whoever is on the link can send errors; they are some lines, however many come.
func TestErrorsFillNoLog(t *testing.T) {
	r := newRig(t, testSettings(), testServer())
	r.cut = true
	r.start()
	for i := range 10_000 {
		d := discovery{to: clientMAC, from: ether.MAC{2, 1, 0, 0, byte(i >> 8), byte(i)}, code: codePADO,
			tags: []tag{{tagHostUniq, r.client.uniq}, {tagGenericError, []byte("full")}}}
		r.client.takeDiscovery(r.now, d.frame())
	}
	require.Len(t, r.said, errorLines.Burst)
	r.pass(errorLines.Pause)
	d := discovery{to: clientMAC, from: serverMAC, code: codePADO, tags: []tag{{tagHostUniq, r.client.uniq}, {tagGenericError, []byte("full")}}}
	r.client.takeDiscovery(r.now, d.frame())
	require.Len(t, r.said, errorLines.Burst+2)
	assert.Equal(t, "9990 errors of access concentrators left out", r.said[errorLines.Burst])
	assert.Contains(t, r.said[errorLines.Burst+1], "full")
}

// An access concentrator that offers and then says nothing is asked a few times.
func TestNoSession(t *testing.T) {
	r := newRig(t, testSettings(), testServer())
	r.client.start(r.now)
	r.queue[0]() // the PADI reaches it
	r.queue[1]() // and its offer the client
	r.cut, r.queue = true, nil
	require.Equal(t, requesting, r.client.phase)
	before := r.sent
	for r.client.phase == requesting {
		r.pass(time.Second)
	}
	assert.Equal(t, requestTries-1, r.sent-before)
	assert.Equal(t, "the access concentrator does not answer", r.last().Reason)
}

func TestWrongPassword(t *testing.T) {
	for _, auth := range []string{"pap", "chap", "mschap2"} {
		config := testServer()
		config.Auth = auth
		s := testSettings()
		s.Password = "wrong"
		r := newRig(t, s, config).start()
		got := r.last()
		assert.Equal(t, Disconnected, got.Status)
		assert.Equal(t, "authentication failed: who are you", got.Reason)
		assert.Equal(t, Session{}, got.Session)
		assert.Contains(t, r.server.Log(), "terminated by the client")
		assert.Contains(t, r.server.Log(), "PADT 1")
		r.client.linkUp(r.now)
		assert.Equal(t, waiting, r.client.phase, "a cable that is plugged in again does not make the password right")
		// It is tried again, more and more seldom.
		r.pass(time.Hour)
		tries := strings.Count(strings.Join(r.server.Log(), "\n"), "wrong password")
		assert.GreaterOrEqual(t, tries, 12)
		assert.LessOrEqual(t, tries, 20)
		// Then the provider mends it.
		r.server.SetConfig(func(c *pppoetest.Config) { c.Password = "wrong" })
		r.pass(6 * time.Minute)
		assert.Equal(t, Connected, r.last().Status)
		assert.Empty(t, r.last().Reason)
	}
}

// Without a method that both know there is no connection, and no end of the talk.
func TestNoMethod(t *testing.T) {
	s, config := testSettings(), testServer()
	s.Allow, config.Auth = MSCHAP2, "pap"
	r := newRig(t, s, config).start()
	r.pass(2 * time.Minute)
	assert.NotContains(t, strings.Join(r.server.Log(), "\n"), "user by")
	assert.Equal(t, "the server does not come to an agreement", r.client.reason)
}

func TestEnds(t *testing.T) {
	for _, c := range []struct {
		name   string
		end    func(r *rig)
		reason string
	}{
		{"the server says so", func(r *rig) { r.server.Terminate() }, "the server has ended the connection: maintenance"},
		{"the server hangs up", func(r *rig) { r.server.Hangup() }, "the server has ended the session"},
		{"the kernel has lost it", func(r *rig) { r.client.lost(r.now, r.kernel); r.pass(lostTime) }, "the session has ended"},
		{"the kernel takes a PADT first", func(r *rig) {
			r.client.lost(r.now, r.kernel)
			r.client.takeDiscovery(r.now, discovery{to: clientMAC, from: serverMAC, code: codePADT, session: r.kernel.ID,
				tags: []tag{{tagGenericError, []byte("RP-PPPoE: Child pppd process terminated")}}}.frame())
		}, "the server has ended the session: RP-PPPoE: Child pppd process terminated"},
		{"the server is silent", func(r *rig) { r.server.SetSilent(true); r.pass(45 * time.Second); r.server.SetSilent(false) }, "the server does not answer any more"},
		{"the server has forgotten it", func(r *rig) { r.server.Forget(); r.pass(45 * time.Second) }, "the server does not answer any more"},
		{"the server refuses IP", func(r *rig) {
			r.server.Control(protocolLCP, packet{protocolReject, 1, []byte{0x80, 0x21}}.bytes())
		}, "the server refuses a protocol that a connection needs"},
		{"the server ends IP", func(r *rig) { r.server.Control(protocolIPCP, packet{terminateRequest, 1, nil}.bytes()) }, "the server has ended IP"},
		{"another password is asked for", func(r *rig) {
			r.server.Control(protocolCHAP, packet{chapChallenge, 50, []byte("\x10abcdefghijklmnop")}.bytes())
			r.server.Control(protocolCHAP, packet{chapFailure, 50, []byte("expired")}.bytes())
		}, "authentication failed: expired"},
		{"a loop", func(r *rig) {
			for range maxLoops + 1 {
				r.server.Control(protocolLCP, packet{echoRequest, 1, r.client.magic()}.bytes())
			}
		}, "the line is looped back"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, testSettings(), testServer()).start()
			require.Equal(t, Connected, r.last().Status)
			n := len(r.reports)
			c.end(r)
			r.settle()
			i := slices.IndexFunc(r.reports[n:], func(p Report) bool { return p.Status == Disconnected })
			require.GreaterOrEqual(t, i, 0, "%v", r.reports[n:])
			ended := r.reports[n+i]
			assert.Equal(t, c.reason, ended.Reason)
			assert.Nil(t, ended.Link)
			assert.Equal(t, Session{}, ended.Session)
			r.pass(30 * time.Second)
			assert.Equal(t, Connected, r.last().Status, "it dials again")
			assert.Equal(t, uint16(2), r.server.Session())
		})
	}
}

// A connection that works is held without an end, and a stall is no silence.
func TestHolds(t *testing.T) {
	r := newRig(t, testSettings(), testServer()).start()
	n := len(r.reports)
	r.pass(time.Hour)
	for range 10 {
		r.now = r.now.Add(10 * time.Minute) // in which nobody ran
		r.client.tick(r.now)
		r.settle()
	}
	assert.Len(t, r.reports, n)
	r.server.Control(protocolLCP, packet{echoRequest, 8, []byte("\x51\x51\x51\x51hello")}.bytes())
	r.settle()
	assert.Contains(t, r.server.Log(), `echo reply 8 "hello"`)
	r.server.Control(0x8057, packet{configureRequest, 1, nil}.bytes()) // IPv6CP
	r.settle()
	assert.Contains(t, r.server.Log(), "protocol reject 8057")

	// One without echoes.
	s := testSettings()
	s.Keepalive = 0
	r = newRig(t, s, testServer()).start()
	sent := r.sent
	r.pass(time.Hour)
	assert.Equal(t, sent, r.sent)
	// And one whose server does not know them.
	r = newRig(t, testSettings(), testServer()).start()
	r.server.Control(protocolLCP, packet{codeReject, 1, packet{echoRequest, 1, nil}.bytes()}.bytes())
	r.server.SetSilent(true)
	r.pass(time.Hour)
	assert.Equal(t, Connected, r.last().Status)
}

// A server may begin anew within the session: what is the same stays.
func TestRenegotiates(t *testing.T) {
	r := newRig(t, testSettings(), testServer()).start()
	want := r.last()
	n := len(r.reports)
	r.server.Renegotiate()
	r.settle()
	assert.Equal(t, want, r.last())
	for _, p := range r.reports[n:] {
		assert.Equal(t, want.Link, p.Link, "%s", p.Status)
	}
	// So it may when it has taken over before there is an address.
	r = newRig(t, testSettings(), testServer())
	r.client.start(r.now)
	for r.client.status != Verifying {
		r.queue[0]()
		r.queue = r.queue[1:]
	}
	r.server.Renegotiate()
	r.settle()
	assert.Equal(t, Connected, r.last().Status)
	// Another address is another connection.
	r.server.SetConfig(func(c *pppoetest.Config) { c.Remote = netip.MustParseAddr("203.0.113.8") })
	r.server.Renegotiate()
	r.pass(time.Minute)
	assert.Equal(t, "203.0.113.8", r.last().Link.Local.String())
	assert.Equal(t, uint16(2), r.server.Session())
}

func TestBadAddresses(t *testing.T) {
	for address, reason := range map[string]string{
		"0.0.0.0": "the server gives no address", "127.0.0.1": "the server gives no address", "224.0.0.1": "the server gives no address",
		"255.255.255.255": "the server gives no address", "10.64.0.1": "the server gives its own address",
	} {
		config := testServer()
		config.Remote = netip.MustParseAddr(address)
		r := newRig(t, testSettings(), config).start()
		r.pass(5 * time.Second)
		assert.Equal(t, reason, r.client.reason, "%s", address)
		assert.False(t, slices.ContainsFunc(r.reports, func(p Report) bool { return p.Link != nil }))
	}
}

// PID 1 can refuse what a server gives.
func TestRefusedByRouter(t *testing.T) {
	r := newRig(t, testSettings(), testServer())
	r.refuse = errors.New("203.0.113.7 is in the network of ether2")
	r.start()
	assert.Equal(t, Disconnected, r.last().Status)
	assert.Equal(t, "203.0.113.7 is in the network of ether2", r.last().Reason)
	assert.Equal(t, Session{}, r.last().Session)
	r.pass(time.Hour)
	assert.LessOrEqual(t, int(r.server.Session()), 75, "about once a minute")
}

func TestLeaves(t *testing.T) {
	for _, silent := range []bool{false, true} {
		r := newRig(t, testSettings(), testServer()).start()
		r.server.SetSilent(silent)
		r.client.leave(r.now)
		assert.Equal(t, Terminating, r.last().Status)
		r.pass(leaveTime * (leaveTries + 1))
		assert.Equal(t, left, r.client.phase)
		assert.Equal(t, Report{Status: Disconnected, AC: "ac1"}, r.last())
		if !silent {
			assert.Equal(t, []string{"terminated by the client", "PADT 1"}, r.server.Log()[len(r.server.Log())-2:])
		}
	}
	r := newRig(t, testSettings(), testServer())
	r.client.start(r.now)
	r.client.leave(r.now)
	assert.Equal(t, left, r.client.phase)

	// The interface of a client that is disabled may go before the client is told.
	r = newRig(t, testSettings(), testServer()).start()
	r.client.lost(r.now, r.kernel)
	r.pass(lostTime / 2)
	r.client.leave(r.now)
	r.pass(lostTime)
	assert.Equal(t, Report{Status: Disconnected, AC: "ac1"}, r.last())
	for _, p := range r.reports {
		assert.Empty(t, p.Reason)
	}

	// The session of a process before is ended.
	s := testSettings()
	s.Previous = Session{serverMAC, 1}
	r = newRig(t, s, testServer())
	r.start()
	assert.Equal(t, []string{"PADT 1", `PADI ""`}, r.server.Log()[:2])
}

// Whoever plugs the cable in need not wait.
func TestLinkUp(t *testing.T) {
	r := newRig(t, testSettings(), testServer())
	r.cut = true
	r.start()
	r.pass(10 * time.Minute)
	r.cut = false
	r.client.linkUp(r.now)
	r.settle()
	assert.Equal(t, Connected, r.last().Status)
}

// A server that refuses, suggests and repeats without end gets a bounded number of packets.
func TestEndlessServers(t *testing.T) {
	for name, answer := range map[string]func(p packet) packet{
		"suggestions": func(p packet) packet {
			return packet{configureNak, p.id, appendOptions(nil, []option{{optionMagic, []byte{1, 2, 3, 4}}, {optionMRU, []byte{5, 0}}})}
		},
		"refusals": func(p packet) packet { return packet{configureReject, p.id, p.data} },
		"nothing":  func(p packet) packet { return packet{configureAck, p.id + 1, p.data} },
		"requests": func(packet) packet {
			return packet{configureRequest, 1, appendOptions(nil, []option{{optionAuth, []byte{1, 2}}})}
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, testSettings(), testServer())
			r.client.start(r.now)
			for r.client.phase != running {
				r.queue[0]()
				r.queue = r.queue[1:]
			}
			r.queue = nil
			n := 0
			r.client.control = func(frame []byte) {
				n++
				if p, err := parsePacket(frame[2:]); err == nil && p.code == configureRequest {
					r.later(func() {
						if r.client.phase == running {
							r.client.takeControl(r.now, answer(p).frame(protocolLCP))
						}
					})
				}
			}
			r.cut = true
			r.pass(3 * time.Minute)
			assert.NotEqual(t, running, r.client.phase)
			assert.LessOrEqual(t, n, 2*maxRequests+2)
		})
	}

	// One that never asks for the password.
	config := testServer()
	config.Auth = "chap"
	r := newRig(t, testSettings(), config)
	r.client.start(r.now)
	for r.client.status != Verifying {
		r.queue[0]()
		r.queue = r.queue[1:]
	}
	r.cut, r.queue = true, nil
	r.pass(2 * time.Minute)
	assert.Equal(t, "the server does not come to an agreement", r.client.reason)
}
