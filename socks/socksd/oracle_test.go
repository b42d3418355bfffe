package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/internal/e2e"
	"github.com/postern-router/postern/internal/testnet"
)

// dantePort is where Dante listens beside socksd.
const dantePort = "1081"

// answerTime is how long socksd has for what does not depend on one of its deadlines. It is
// shorter than all of those, so that no case passes because a deadline came.
const answerTime = 5 * time.Second

// danted starts Dante's server on the proxy, as the oracle for a version: socks_v4 or socks_v5.
func (l *lab) danted(t *testing.T, version string) (addr string) {
	t.Helper()
	config := filepath.Join(l.dir, "danted.conf")
	require.NoError(t, os.WriteFile(config, fmt.Appendf(nil, `logoutput: stderr
internal: %s port = %s
external: %s
clientmethod: none
socksmethod: none
user.privileged: root
user.unprivileged: nobody
client pass { from: 0.0.0.0/0 to: 0.0.0.0/0 }
socks pass {
	from: 0.0.0.0/0 to: 0.0.0.0/0
	command: connect bind bindreply
	proxyprotocol: %s
}
`, proxyAddress, dantePort, outerAddress, version), 0o644))
	cmd := l.command(t, proxyHost, "danted", "-f", config, "-p", filepath.Join(l.dir, "danted.pid"))
	var log logBuffer
	cmd.Stdout, cmd.Stderr = &log, &log
	start(t, cmd)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("danted said:\n%s", log.String())
		}
	})
	addr = net.JoinHostPort(proxyAddress, dantePort)
	require.Eventually(t, func() bool {
		c, err := l.dial(clientHost, "", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	}, patience, 20*time.Millisecond, "danted does not listen")
	return addr
}

// stage runs a case with socksd, and another with Dante. It notes what the client and the
// server see, in words that are the same in each run.
type stage struct {
	t       *testing.T
	l       *lab
	proxy   string
	target  *net.TCPListener
	silence time.Duration // how long the client waits for something to come
	notice  time.Duration // how long a proxy may take to see that a client left
	notes   []string
}

func (s *stage) note(format string, args ...any) {
	s.notes = append(s.notes, fmt.Sprintf(format, args...))
}

// words returns an address in words. The port is only a number if it is a known one.
func (s *stage) words(a netip.AddrPort) string {
	switch {
	case a.String() == s.target.Addr().String():
		return "target"
	case a.Port() == 0:
		return a.String()
	}
	return a.Addr().String() + ":port"
}

// client connects to the proxy and sends it the segments, one at a time.
func (s *stage) client(segments ...string) peer {
	s.t.Helper()
	c := s.l.peer(s.t, clientHost, "", s.proxy)
	require.NoError(s.t, c.SetReadDeadline(time.Now().Add(s.silence)))
	for _, b := range segments {
		c.send(b)
	}
	return c
}

func (s *stage) connect(user string) string {
	return ask(commandConnect, s.target.Addr().String(), user)
}

// reply notes the code of a reply, or how the connection ended instead, and
// returns the address of one that grants.
func (s *stage) reply(c peer) netip.AddrPort {
	s.t.Helper()
	code, a := s.readReply(c)
	if code != 0 {
		s.note("%d", code)
	}
	if code != 90 {
		return netip.AddrPort{}
	}
	return a
}

// fullReply notes the address of a reply too.
func (s *stage) fullReply(c peer) netip.AddrPort {
	s.t.Helper()
	code, a := s.readReply(c)
	if code != 0 {
		s.note("%d %s", code, s.words(a))
	}
	return a
}

// readReply returns code 0 if there is no reply, and notes that.
func (s *stage) readReply(c peer) (code byte, addr netip.AddrPort) {
	s.t.Helper()
	b := make([]byte, 8)
	n, err := io.ReadFull(c, b)
	if err != nil {
		s.note("no reply: %s", ending(b[:n], err))
		return 0, netip.AddrPort{}
	}
	if b[0] != 0 {
		s.note("reply of version %d", b[0])
	}
	return b[1], netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:])), uint16(b[2])<<8|uint16(b[3]))
}

func ending(got []byte, err error) string {
	what := "end"
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		what = "silence"
	case errors.Is(err, unix.ECONNRESET):
		what = "reset"
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		what = err.Error()
	}
	if len(got) > 0 {
		return fmt.Sprintf("%q, then %s", got, what)
	}
	return what
}

// gets notes what an end of a connection receives until its end.
func (s *stage) gets(who string, c peer) {
	s.t.Helper()
	got, err := io.ReadAll(c)
	s.note("%s gets %s", who, ending(got, err))
}

// accept returns the call of the proxy.
func (s *stage) accept() peer {
	s.t.Helper()
	return accept(s.t, s.target)
}

// relays notes that both directions work.
func (s *stage) relays(near, far peer) {
	s.t.Helper()
	near.send("ping")
	got := far.receive(4)
	far.send("pong")
	s.note("%s %s", got, near.receive(4))
}

// wrongCall calls as call does, from an address that the BIND does not wait for. The reset
// may come before or after the connection is complete for the caller.
func (s *stage) wrongCall(from string, to netip.AddrPort) {
	s.t.Helper()
	c, err := s.l.dial(serverHost, from, to.String())
	if err != nil {
		s.note("caller gets %s", ending(nil, err))
		return
	}
	s.gets("caller", newPeer(s.t, c))
}

// call connects from one of the server's addresses to the address on which a BIND waits.
func (s *stage) call(from string, to netip.AddrPort) peer {
	s.t.Helper()
	return s.l.peer(s.t, serverHost, from, to.String())
}

// closed notes whether an address is no longer listened on, after the time that the proxy may
// take to notice. It asks the kernel, because a call would end the wait.
func (s *stage) closed(at netip.AddrPort) {
	s.t.Helper()
	for end := time.Now().Add(s.notice); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if !s.l.listens(s.t, proxyHost, at) {
			s.note("port closed")
			return
		}
	}
	s.note("port open")
}

// oracle is a case: what is done to a proxy, and the result. If the result of socksd differs
// from Dante's, why says which one is right, and by which text.
type oracle struct {
	name  string
	play  func(s *stage)
	ours  string
	dante string // "" is the same as ours
	why   string
}

var oracles = []oracle{
	{name: "CONNECT", play: func(s *stage) {
		near := s.client(s.connect("fred"))
		s.fullReply(near)
		s.relays(near, s.accept())
	}, ours: "90 target; ping pong",
		dante: "90 198.51.100.1:port; ping pong",
		why:   "the memo lets DSTPORT and DSTIP of this reply be ignored: ours says the target, Dante its own address towards it"},
	{name: "CONNECT refused", play: func(s *stage) {
		s.target.Close()
		near := s.client(s.connect("fred"))
		s.fullReply(near)
		s.gets("client", near)
	}, ours: "91 0.0.0.0:0; client gets end",
		dante: "91 198.51.100.1:port; client gets end",
		why:   "the memo lets both be ignored when a request is rejected: ours are 0, Dante says its own address"},
	{name: "CONNECT with data in the same segment", play: func(s *stage) {
		near := s.client(s.connect("fred") + "early")
		s.reply(near)
		far := s.accept()
		s.note("server gets %q", far.receive(5))
	}, ours: `90; server gets "early"`},
	{name: "CONNECT a byte at a time", play: func(s *stage) {
		near := s.client(strings.Split(s.connect("fred")+"early", "")...)
		s.reply(near)
		far := s.accept()
		s.note("server gets %q", far.receive(5))
	}, ours: `90; server gets "early"`},
	{name: "CONNECT and half-close at once", play: func(s *stage) {
		near := s.client(s.connect("fred") + "question")
		require.NoError(s.t, near.CloseWrite())
		s.reply(near)
		far := s.accept()
		s.gets("server", far)
		far.send("answer")
		far.Close()
		s.gets("client", near)
	}, ours: `90; server gets "question", then end; client gets "answer", then end`},
	{name: "CONNECT and half-close at once, without data", play: func(s *stage) {
		for range 20 { // the end may or may not be there when the request is read
			near := s.client(s.connect("fred"))
			require.NoError(s.t, near.CloseWrite())
			s.reply(near)
			far := s.accept()
			require.NoError(s.t, far.SetReadDeadline(time.Now().Add(s.silence)))
			s.gets("server", far)
			far.send("answer")
			far.Close()
			s.gets("client", near)
			if s.notes = slices.Compact(s.notes); len(s.notes) > 3 {
				if !slices.Equal(s.notes[:3], s.notes[3:]) {
					return
				}
				s.notes = s.notes[:3]
			}
		}
	}, ours: `90; server gets end; client gets "answer", then end`},
	{name: "CONNECT to port 0", play: func(s *stage) {
		near := s.client(ask(commandConnect, serverAddress+":0", "fred"))
		s.reply(near)
		s.gets("client", near)
	}, ours: "91; client gets end"},
	{name: "CONNECT to the proxy's loopback", play: func(s *stage) {
		own := s.l.listen(s.t, proxyHost, "127.0.0.1:0")
		near := s.client(ask(commandConnect, own.Addr().String(), "fred"))
		s.reply(near)
	}, ours: "91",
		dante: "90",
		why:   "no way round the input firewall: nothing that listens on the router's own addresses can be reached, whatever its rules say"},
	{name: "CONNECT to the proxy itself", play: func(s *stage) {
		near := s.client(ask(commandConnect, s.proxy, "fred"))
		s.reply(near)
	}, ours: "91"},
	{name: "CONNECT to 0.0.0.0", play: func(s *stage) {
		near := s.client(ask(commandConnect, "0.0.0.0:80", "fred"))
		s.reply(near)
	}, ours: "91"},
	{name: "CONNECT to broadcast", play: func(s *stage) {
		near := s.client(ask(commandConnect, "198.51.100.255:80", "fred"))
		s.reply(near)
	}, ours: "91"},
	{name: "CONNECT by name (4a)", play: func(s *stage) {
		near := s.client(askName(commandConnect, serverName, s.target.Addr().(*net.TCPAddr).AddrPort().Port()))
		s.reply(near)
	}, ours: "90",
		dante: "no reply: silence",
		why:   "Dante has no 4a: it takes 0.0.0.1 for an address that does not answer, and the name for data"},
	{name: "CONNECT by a name that does not exist (4a)", play: func(s *stage) {
		near := s.client(askName(commandConnect, "nowhere.invalid", 80))
		s.reply(near)
	}, ours: "91",
		dante: "no reply: silence",
		why:   "Dante has no 4a: it takes 0.0.0.1 for an address that does not answer, and the name for data"},
	{name: "command 3", play: func(s *stage) {
		near := s.client(ask(3, s.target.Addr().String(), "fred"))
		s.reply(near)
		s.gets("client", near)
	}, ours: "91; client gets end"},
	{name: "version 3", play: func(s *stage) {
		near := s.client("\x03" + s.connect("fred")[1:])
		s.reply(near)
		s.gets("client", near)
	}, ours: "91; client gets end",
		dante: "no reply: end; client gets end",
		why:   "the memo has no reply for it: ours rejects, so that a client of SOCKS4 that errs learns it"},
	{name: "SOCKS5", play: func(s *stage) {
		near := s.client("\x05\x01\x00")
		require.NoError(s.t, near.CloseWrite())
		s.gets("client", near)
	}, ours: `client gets "\x00[\x00\x00\x00\x00\x00\x00", then end`,
		dante: `client gets "\x05\x00", then end`,
		why:   "Dante speaks SOCKS5 too, and looks at proxyprotocol with the rules only"},
	{name: "HTTP", play: func(s *stage) {
		near := s.client("GET / HTTP/1.0\r\n\r\n")
		s.gets("client", near)
	}, ours: `client gets "\x00[\x00\x00\x00\x00\x00\x00", then end`,
		dante: "client gets end",
		why:   "a client that can still read is told that it was rejected"},
	{name: "nothing, then the end", play: func(s *stage) {
		near := s.client()
		require.NoError(s.t, near.CloseWrite())
		s.gets("client", near)
	}, ours: `client gets "\x00[\x00\x00\x00\x00\x00\x00", then end`,
		dante: "client gets end",
		why:   "a client that can still read is told that it was rejected"},
	{name: "half a request, then the end", play: func(s *stage) {
		near := s.client(s.connect("fred")[:10])
		require.NoError(s.t, near.CloseWrite())
		s.gets("client", near)
	}, ours: `client gets "\x00[\x00\x00\x00\x00\x00\x00", then end`,
		dante: "client gets end",
		why:   "a client that can still read is told that it was rejected"},
	{name: "empty user id", play: func(s *stage) {
		s.reply(s.client(s.connect("")))
	}, ours: "90"},
	{name: "user id of 255 bytes", play: func(s *stage) {
		s.reply(s.client(s.connect(strings.Repeat("u", 255))))
	}, ours: "90"},
	{name: "user id of 256 bytes", play: func(s *stage) {
		s.reply(s.client(s.connect(strings.Repeat("u", 256))))
	}, ours: "91",
		dante: "90",
		why:   "the memo names no bound; ours is 255 bytes, as Dante's for its own user names"},
	{name: "half-close by the client", play: func(s *stage) {
		near := s.client(s.connect("fred"))
		s.reply(near)
		far := s.accept()
		near.send("question")
		require.NoError(s.t, near.CloseWrite())
		s.gets("server", far)
		far.send("answer")
		far.Close()
		s.gets("client", near)
	}, ours: `90; server gets "question", then end; client gets "answer", then end`},
	{name: "half-close by the server", play: func(s *stage) {
		near := s.client(s.connect("fred"))
		s.reply(near)
		far := s.accept()
		far.send("banner")
		require.NoError(s.t, far.CloseWrite())
		s.gets("client", near)
		near.send("more")
		near.Close()
		s.gets("server", far)
	}, ours: `90; client gets "banner", then end; server gets "more", then end`},
	{name: "reset by the client", play: func(s *stage) {
		near := s.client(s.connect("fred"))
		s.reply(near)
		far := s.accept()
		s.relays(near, far)
		near.reset()
		s.gets("server", far)
	}, ours: "90; ping pong; server gets reset",
		dante: "90; ping pong; server gets end",
		why:   "who was sent a reset must not take a cut stream for a whole one: ours passes the reset on"},
	{name: "reset by the server", play: func(s *stage) {
		near := s.client(s.connect("fred"))
		s.reply(near)
		far := s.accept()
		s.relays(near, far)
		far.reset()
		s.gets("client", near)
	}, ours: "90; ping pong; client gets reset",
		dante: "90; ping pong; client gets end",
		why:   "who was sent a reset must not take a cut stream for a whole one: ours passes the reset on"},
	{name: "urgent byte", play: func(s *stage) {
		near := s.client(s.connect("fred"))
		s.reply(near)
		far := s.accept()
		near.send("ab")
		require.NoError(s.t, testnet.WriteUrgent(near.TCPConn, []byte("!")))
		near.send("cd")
		require.NoError(s.t, near.CloseWrite())
		s.gets("server", far)
	}, ours: `90; server gets "ab!cd", then end`},
	{name: "BIND, the peer calls", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.fullReply(near)
		far := s.call(serverAddress, at)
		s.fullReply(near)
		s.relays(near, far)
	}, ours: "90 198.51.100.1:port; 90 198.51.100.2:port; ping pong"},
	{name: "BIND, then the port is closed", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		s.call(serverAddress, at)
		s.reply(near)
		s.closed(at)
	}, ours: "90; 90; port closed"},
	{name: "BIND, another calls", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		s.wrongCall(strangerAddress, at)
		s.reply(near)
		s.closed(at)
	}, ours: "90; caller gets reset; 91; port closed",
		dante: "90; caller gets end; 91; port closed",
		why:   "both reject, as the memo says; ours tells the caller nothing, as if nobody listened"},
	{name: "BIND for anyone", play: func(s *stage) {
		near := s.client(ask(commandBind, "0.0.0.0:0", "fred"))
		at := s.fullReply(near)
		far := s.call(strangerAddress, at)
		s.fullReply(near)
		s.relays(near, far)
	}, ours: "90 198.51.100.1:port; 90 198.51.100.3:port; ping pong"},
	{name: "BIND with data behind the request", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred") + "early")
		at := s.reply(near)
		far := s.call(serverAddress, at)
		s.reply(near)
		near.CloseWrite()
		s.gets("caller", far)
	}, ours: `90; 90; caller gets "early", then end`},
	{name: "BIND by name (4a)", play: func(s *stage) {
		near := s.client(askName(commandBind, serverName, 21))
		at := s.reply(near)
		if at.IsValid() {
			s.call(serverAddress, at)
			s.reply(near)
		}
	}, ours: "90; 90",
		dante: "90; 91",
		why:   "Dante has no 4a: it takes 0.0.0.1 for an address that does not answer, and the name for data: so the right peer is the wrong one"},
	{name: "BIND, half-close both ways", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		far := s.call(serverAddress, at)
		s.reply(near)
		far.send("file")
		far.CloseWrite()
		s.gets("client", near)
		near.send("thanks")
		near.Close()
		s.gets("caller", far)
	}, ours: `90; 90; client gets "file", then end; caller gets "thanks", then end`},
	{name: "BIND, the client leaves", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		near.Close()
		s.closed(at)
	}, ours: "90; port closed"},
	{name: "BIND, the client resets", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		near.reset()
		s.closed(at)
	}, ours: "90; port closed"},
	{name: "BIND, the client half-closes", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		require.NoError(s.t, near.CloseWrite())
		s.reply(near)
		s.closed(at)
	}, ours: "90; 91; port closed",
		dante: "90; no reply: end; port closed",
		why:   "a client that can still read is told that it was rejected"},
	{name: "BIND and half-close at once", play: func(s *stage) {
		// Several times: the end may or may not be there when the request is read, and
		// the first reply may or may not be sent.
		for range 20 {
			near := s.client(ask(commandBind, serverAddress+":21", "fred"))
			require.NoError(s.t, near.CloseWrite())
			got, err := io.ReadAll(near)
			note := fmt.Sprintf("last reply %q, then %s", got[max(0, len(got)-8):][:min(2, len(got))], ending(nil, err))
			if !slices.Contains(s.notes, note) {
				s.note("%s", note)
			}
		}
	}, ours: `last reply "\x00[", then end`,
		dante: `last reply "\x00Z", then end`,
		why:   "a client that can still read is told that it was rejected"},
	{name: "BIND, the client sends data before the call and leaves", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		near.send("early")
		near.Close()
		s.closed(at)
	}, ours: "90; port closed"},
	{name: "BIND for the proxy's loopback", play: func(s *stage) {
		s.reply(s.client(ask(commandBind, "127.0.0.1:21", "fred")))
	}, ours: "91",
		dante: "90",
		why:   "as for CONNECT: who may call is another machine"},
	{name: "BIND, the caller resets", play: func(s *stage) {
		near := s.client(ask(commandBind, serverAddress+":21", "fred"))
		at := s.reply(near)
		far := s.call(serverAddress, at)
		s.reply(near)
		far.reset()
		s.gets("client", near)
	}, ours: "90; 90; client gets reset",
		dante: "90; 90; client gets end",
		why:   "who was sent a reset must not take a cut stream for a whole one: ours passes the reset on"},
}

// TestOracle runs each case with socksd and with Dante.
func TestOracle(t *testing.T) {
	e2e.Root(t)
	t.Parallel()
	l := newLab(t, serverAddress)
	ours := l.socksd(t, self(t))
	l.compare(t, oracles, ours, l.danted(t, "socks_v4"))
}

// compare plays each case with socksd and with Dante.
func (l *lab) compare(t *testing.T, cases []oracle, ours *socksd, dante string) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			played := func(proxy string, silence, notice time.Duration) string {
				s := &stage{t: t, l: l, proxy: proxy, target: l.listen(t, serverHost, serverAddress+":0"), silence: silence, notice: notice}
				c.play(s)
				return strings.Join(s.notes, "; ")
			}
			assert.Equal(t, c.ours, played(ours.addr, answerTime, answerTime), "socksd")
			want, silence, notice := c.ours, patience, patience
			if c.dante != "" {
				want = c.dante
			}
			if strings.Contains(want, "silence") {
				silence = 2 * time.Second
			}
			if strings.Contains(want, "port open") {
				notice = 2 * time.Second
			}
			assert.Equal(t, want, played(dante, silence, notice), "Dante")
			assert.Equal(t, c.dante == "", c.why == "", "a difference has its reason")
		})
	}
	ours.awaitQuiet(t)
}
