package socks

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/resolve"
)

// greeting is that of a client of version 5 without a user, and chosen the answer.
const (
	greeting = "\x05\x01\x00"
	chosen   = "\x05\x00"
)

func byVersion5(o *options) { o.cfg.Version = 5 }

// ask5 is a request of version 5.
func ask5(command byte, dst string) string {
	a := netip.MustParseAddrPort(dst)
	ip := a.Addr().As4()
	return string([]byte{5, command, 0, 1}) + string(ip[:]) + string([]byte{byte(a.Port() >> 8), byte(a.Port())})
}

func askName5(command byte, host string, port uint16) string {
	return string([]byte{5, command, 0, 3, byte(len(host))}) + host + string([]byte{byte(port >> 8), byte(port)})
}

// reply5 reads a reply of version 5 and returns its address.
func (c client) reply5(code byte) netip.AddrPort {
	c.t.Helper()
	b := []byte(c.receive(10))
	require.Equal(c.t, []byte{5, code, 0, 1}, b[:4], "reply %q", b)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), uint16(b[8])<<8|uint16(b[9]))
}

// rejected5 checks that the request is refused with that code.
func (c client) rejected5(code byte) {
	c.t.Helper()
	assert.Equal(c.t, netip.MustParseAddrPort("0.0.0.0:0"), c.reply5(code))
	c.ended()
}

// connect5 makes a connection through the server, and returns both ends.
func (u *setup) connect5(t *testing.T) (near, far client) {
	t.Helper()
	l := listen(t, "127.0.0.1")
	near = dial(t, u.addr)
	near.send(greeting + ask5(commandConnect, l.Addr().String()))
	require.Equal(t, chosen, near.receive(2))
	near.reply5(reply5Granted)
	return near, accept(t, l)
}

// ways are ways to send the messages of a handshake and what comes after it.
var ways = []struct {
	name string
	send func(near client, messages ...string)
}{
	{"all at once", func(near client, messages ...string) { near.send(strings.Join(messages, "")) }},
	{"one at a time", func(near client, messages ...string) {
		for _, m := range messages {
			near.send(m)
			time.Sleep(time.Millisecond) // a segment of its own, most likely
		}
	}},
	{"a byte at a time", func(near client, messages ...string) {
		for _, b := range []byte(strings.Join(messages, "")) {
			near.send(string([]byte{b}))
			time.Sleep(time.Millisecond)
		}
	}},
	{"the last byte of each message with the next", func(near client, messages ...string) {
		rest := ""
		for _, m := range messages {
			near.send(rest + m[:len(m)-1])
			rest = m[len(m)-1:]
			time.Sleep(time.Millisecond)
		}
		near.send(rest)
	}},
	{"an urgent byte in each message", func(near client, messages ...string) {
		for _, m := range messages {
			near.sendUrgent(m[:len(m)/2+1])
			near.send(m[len(m)/2+1:])
		}
	}},
	{"every byte urgent", func(near client, messages ...string) {
		for _, b := range []byte(strings.Join(messages, "")) {
			near.sendUrgent(string([]byte{b}))
		}
	}},
}

// TestUrgentByteInTheHandshake sends an urgent byte at each place of the messages of a handshake, all in
// one segment as far as the kernel does that.
func TestUrgentByteInTheHandshake(t *testing.T) {
	u := start(t, func(o *options) {
		byVersion5(o)
		o.lookup = func(context.Context, string, resolve.Servers) ([]netip.Addr, error) {
			return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
		}
	})
	l := listen(t, "127.0.0.1")
	port := l.Addr().(*net.TCPAddr).Port
	for name, c := range map[string]struct {
		messages string
		granted  func(near client)
	}{
		"version 4": {ask(commandConnect, l.Addr().String(), "user"), func(near client) { near.reply(replyGranted) }},
		"4a":        {askName(commandConnect, "host.example", uint16(port)), func(near client) { near.reply(replyGranted) }},
		"version 5": {greeting + askName5(commandConnect, "host.example", uint16(port)), func(near client) {
			require.Equal(t, chosen, near.receive(2))
			near.reply5(reply5Granted)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			all := c.messages + "early"
			for i := range all {
				near := dial(t, u.addr)
				near.sendUrgent(all[:i+1])
				if i < len(all)-1 {
					near.send(all[i+1:])
				}
				c.granted(near)
				far := accept(t, l)
				require.Equal(t, "early", far.receive(5), "byte %d is urgent", i)
				near.Close()
				far.Close()
			}
		})
	}
	u.awaitCount(t, 0)
}

// TestEndBehindAnUrgentByte ends a connection within its request, behind an urgent byte.
func TestEndBehindAnUrgentByte(t *testing.T) {
	u := start(t, nil)
	near := dial(t, u.addr)
	near.sendUrgent("\x04\x01\x00")
	near.send("\x50")
	require.NoError(t, near.CloseWrite())
	near.rejected()
	u.awaitLog(t, "connection 1 refused", "read request: unexpected EOF")
}

func TestConnect5(t *testing.T) {
	for _, c := range ways {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, byVersion5)
			l := listen(t, "127.0.0.1")
			near := dial(t, u.addr)
			c.send(near, greeting, ask5(commandConnect, l.Addr().String()), "early")
			assert.Equal(t, chosen, near.receive(2))
			bound := near.reply5(reply5Granted)
			far := accept(t, l)
			assert.Equal(t, far.RemoteAddr().String(), bound.String(), "the server's own end")
			assert.Equal(t, "early", far.receive(5))
			far.send("hello")
			assert.Equal(t, "hello", near.receive(5))

			got := u.Connections()[0]
			assert.Equal(t, Out, got.Type)
			assert.Equal(t, l.Addr().String(), got.Dst.String())
			assert.Empty(t, got.UserID)

			require.NoError(t, near.CloseWrite())
			far.ended()
			far.send("more")
			assert.Equal(t, "more", near.receive(4))
			far.Close()
			near.ended()
			u.awaitLog(t, "connection 1 closed: type=out", "tx=5 rx=9", `reason="both sides ended"`)
		})
	}
}

// TestEndsBehindTheRequest has a client that sends everything and its FIN before any answer.
func TestEndsBehindTheRequest(t *testing.T) {
	u := start(t, byVersion5)
	l := listen(t, "127.0.0.1")
	near := dial(t, u.addr)
	near.send(greeting + ask5(commandConnect, l.Addr().String()) + "question")
	require.NoError(t, near.CloseWrite())
	far := accept(t, l)
	assert.Equal(t, "question", far.receive(8))
	far.ended()
	far.send("answer")
	far.Close()
	assert.Equal(t, chosen, near.receive(2))
	near.reply5(reply5Granted)
	assert.Equal(t, "answer", near.receive(6))
	near.ended()
}

func TestNames5(t *testing.T) {
	l := listen(t, "127.0.0.2")
	port := l.Addr().(*net.TCPAddr).AddrPort().Port()
	u := start(t, func(o *options) {
		o.cfg.Version = 5
		o.lookup = func(_ context.Context, host string, _ resolve.Servers) ([]netip.Addr, error) {
			assert.Equal(t, "ftp.example", host)
			return []netip.Addr{netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.2")}, nil
		}
	})
	near := dial(t, u.addr)
	near.send(greeting + askName5(commandConnect, "ftp.example", port) + "early")
	assert.Equal(t, chosen, near.receive(2))
	bound := near.reply5(reply5Granted)
	far := accept(t, l)
	assert.Equal(t, far.RemoteAddr().String(), bound.String())
	assert.Equal(t, "early", far.receive(5))
}

func TestBind5(t *testing.T) {
	for _, c := range []struct{ name, peer, from string }{
		{"for one peer", "127.0.0.1:21", "127.0.0.1"},
		{"for anyone", "0.0.0.0:0", "127.0.0.5"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, byVersion5)
			near := dial(t, u.addr)
			near.send(greeting + ask5(commandBind, c.peer))
			assert.Equal(t, chosen, near.receive(2))
			at := near.reply5(reply5Granted)
			far := dialFrom(t, c.from, at.String())
			assert.Equal(t, far.LocalAddr().String(), near.reply5(reply5Granted).String())
			near.send("hello")
			assert.Equal(t, "hello", far.receive(5))
			assert.Equal(t, In, u.Connections()[0].Type)
		})
	}
	t.Run("a call from another", func(t *testing.T) {
		u := start(t, byVersion5)
		near := dial(t, u.addr)
		near.send(greeting + ask5(commandBind, "127.0.0.1:21"))
		assert.Equal(t, chosen, near.receive(2))
		at := near.reply5(reply5Granted)
		// The reset may be faster than the caller's connect.
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 5)}, Timeout: patience}
		if wrong, err := d.Dial("tcp4", at.String()); err != nil {
			require.ErrorIs(t, err, unix.ECONNRESET)
		} else {
			defer wrong.Close()
			client{wrong.(*net.TCPConn), t}.wasReset()
		}
		near.rejected5(reply5NotAllowed)
	})
	t.Run("nobody calls", func(t *testing.T) {
		u := start(t, func(o *options) { o.cfg.Version, o.limits.bind = 5, 50*time.Millisecond })
		near := dial(t, u.addr)
		near.send(greeting + ask5(commandBind, "127.0.0.1:21"))
		assert.Equal(t, chosen, near.receive(2))
		near.reply5(reply5Granted)
		near.rejected5(reply5TimedOut)
	})
}

// TestRejected5 checks what a client of version 5 reads when it is refused.
func TestRejected5(t *testing.T) {
	closed := listen(t, "127.0.0.1")
	closed.Close()
	const noMethod = "\x05\xff"
	failed := func(code byte) string { return chosen + string([]byte{5, code, 0, 1, 0, 0, 0, 0, 0, 0}) }
	lookup := func(err error) func(*options) {
		return func(o *options) {
			o.lookup = func(context.Context, string, resolve.Servers) ([]netip.Addr, error) { return nil, err }
		}
	}
	for _, c := range []struct {
		name, send, want, reason string
		change                   func(*options)
	}{
		{name: "odd methods", send: "\x05\x03\x01\x03\x80", want: noMethod, reason: "does not offer method 0"},
		{name: "no methods", send: "\x05\x00", want: noMethod, reason: "does not offer method 0"},
		{name: "a password only, and more behind it", send: "\x05\x01\x02\x01\x01x\x01y", want: noMethod, reason: "does not offer method 0"},
		{name: "HTTP", send: "GET / HTTP/1.1\r\n" + strings.Repeat("x", 20000), want: noMethod, reason: "version 71 is not 4 or 5"},
		{name: "greeting too slow", send: "\x05\x01", want: noMethod, reason: "handshake timeout",
			change: func(o *options) { o.limits.handshake = 50 * time.Millisecond }},
		{name: "request too slow", send: greeting + "\x05\x01", want: failed(reply5TimedOut), reason: "handshake timeout",
			change: func(o *options) { o.limits.handshake = 50 * time.Millisecond }},
		{name: "version of the request", send: greeting + "\x04\x01", want: failed(reply5Failed), reason: "version 4 of the request is not 5"},
		{name: "command", send: greeting + ask5(9, "127.0.0.1:80"), want: failed(reply5Command), reason: "command 9"},
		{name: "UDP ASSOCIATE", send: greeting + ask5(commandAssociate, "0.0.0.0:0"), want: failed(reply5Command), reason: "UDP ASSOCIATE is off"},
		{name: "IPv6", send: greeting + "\x05\x01\x00\x04\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x50",
			want: failed(reply5AddressType), reason: "IPv6"},
		{name: "address type", send: greeting + "\x05\x01\x00\x02", want: failed(reply5AddressType), reason: "address type 2"},
		{name: "denied", send: greeting + ask5(commandConnect, "127.0.0.1:80") + "data", want: failed(reply5NotAllowed), reason: "rule 0 denies 127.0.0.1:80",
			change: func(o *options) { o.cfg.Access = []Rule{{Action: Deny}} }},
		{name: "denied name", send: greeting + askName5(commandConnect, "x.test", 80), want: failed(reply5NotAllowed), reason: "denies every address that x.test may have",
			change: func(o *options) { o.cfg.Access = []Rule{{Action: Deny}} }},
		{name: "denied BIND", send: greeting + ask5(commandBind, "127.0.0.1:80"), want: failed(reply5NotAllowed), reason: "rule 0 denies 127.0.0.1:",
			change: func(o *options) { o.cfg.Access = []Rule{{Action: Deny}} }},
		{name: "own address", send: greeting + ask5(commandConnect, "127.0.0.1:80"), want: failed(reply5NotAllowed), reason: "not the address of another machine",
			change: func(o *options) { o.AllowOwnAddresses = false }},
		{name: "nobody there", send: greeting + ask5(commandConnect, closed.Addr().String()), want: failed(reply5Refused), reason: "connection refused"},
		{name: "no route", send: greeting + ask5(commandConnect, "192.0.2.1:80"), want: failed(reply5NetworkUnreachable), reason: "network is unreachable"},
		{name: "no such name", send: greeting + askName5(commandConnect, "nowhere", 80), want: failed(reply5HostUnreachable), reason: "no such name",
			change: lookup(resolve.ErrNotFound)},
		{name: "no name servers", send: greeting + askName5(commandConnect, "nowhere", 80), want: failed(reply5Failed), reason: "no name server",
			change: lookup(resolve.ErrNoServers)},
		{name: "name server silent", send: greeting + askName5(commandConnect, "slow", 80), want: failed(reply5TimedOut), reason: "connect timeout",
			change: func(o *options) { o.limits.connect, o.lookup = 50*time.Millisecond, waitForEnd }},
		{name: "firewall refuses", send: greeting + ask5(commandBind, "127.0.0.1:80"), want: failed(reply5Failed), reason: "no firewall",
			change: func(o *options) {
				o.Open = func(context.Context, Opening, *os.File) (func(), error) { return nil, errors.New("no firewall") }
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				o.cfg.Version = 5
				if c.change != nil {
					c.change(o)
				}
			})
			near := dial(t, u.addr)
			near.send(c.send)
			assert.Equal(t, c.want, near.receive(len(c.want)))
			near.ended()
			u.awaitCount(t, 0)
			u.awaitLog(t, "connection 1 refused: type=unknown", c.reason)
		})
	}
}

// TestVersions checks which clients are served by which configuration.
func TestVersions(t *testing.T) {
	l := listen(t, "127.0.0.1")
	four, five := ask(commandConnect, l.Addr().String(), "fred"), greeting+ask5(commandConnect, l.Addr().String())
	for _, c := range []struct {
		name, send string
		version    int
		method     AuthMethod
		want       string
		granted    bool
	}{
		{name: "4 of 4", version: 4, send: four, want: "\x00\x5a", granted: true},
		{name: "5 of 4", version: 4, send: five, want: "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{name: "4 of 5", version: 5, send: four, want: "\x00\x5a", granted: true},
		{name: "5 of 5", version: 5, send: five, want: "\x05\x00\x05\x00\x00\x01", granted: true},
		{name: "4 of 5 with passwords", version: 5, method: AuthPassword, send: four, want: "\x00\x5b\x00\x00\x00\x00\x00\x00"},
		{name: "5 of 5 with passwords, without one", version: 5, method: AuthPassword, send: five, want: "\x05\xff"},
		{name: "4 of 4, which has no passwords", version: 4, method: AuthPassword, send: four, want: "\x00\x5a", granted: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			u := start(t, func(o *options) {
				o.cfg.Version = c.version
				if c.method != "" {
					o.cfg.AuthMethod, o.cfg.Users = c.method, []User{{Name: "fred", Password: hashOf("secret")}}
				}
			})
			near := dial(t, u.addr)
			near.send(c.send)
			assert.Equal(t, c.want, near.receive(len(c.want)))
			if c.granted {
				accept(t, l)
			} else {
				near.ended()
			}
		})
	}
}

// TestFullTable5 checks what clients read that get no slot.
func TestFullTable5(t *testing.T) {
	u := start(t, func(o *options) { o.cfg.Version, o.cfg.MaxConnections = 5, 1 })
	u.connect5(t)
	five := dial(t, u.addr)
	five.send(greeting)
	assert.Equal(t, "\x05\xff", five.receive(2))
	five.ended()
}
