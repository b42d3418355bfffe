package router

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/kmsg"
)

// house is a running router and the socket for its sessions.
type house struct {
	*testing.T
	r      *Router
	socket string
	log    string // file
	// requests are those of a restart.
	requests <-chan console.Request

	mu   sync.Mutex
	kept []console.Config // what was to survive, in order
}

// newHouse brings a router up, on the ports of this test's network.
func newHouse(t *testing.T) *house {
	dir := t.TempDir()
	h := &house{T: t, socket: filepath.Join(dir, "socket"), log: filepath.Join(dir, "log")}
	b := board.Board{Name: "house", WAN: "ether1", LAN: "ether2"}
	for i := range 2 {
		device := fmt.Sprintf("house%d", i)
		h.ip("link add " + device + " type veth peer name x-" + device)
		h.ip("link set up dev x-" + device)
		b.Ports = append(b.Ports, board.Port{Name: fmt.Sprintf("ether%d", i+1), Device: device})
	}
	file, err := os.Create(h.log)
	require.NoError(t, err)
	requests := make(chan console.Request, 1)
	h.requests = requests
	h.r, err = newRouter(b, kmsg.New(file), &keptState{}, requests)
	require.NoError(t, err)
	h.r.logins.sleep = func(time.Duration) {}
	require.NoError(t, h.r.apply(console.Default(), true))
	h.r.kept.trouble = nil // that there is no flash here, which would be told after each change
	h.r.settled = func(c console.Config) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.kept = append(h.kept, c)
	}
	l, err := net.Listen("unix", h.socket)
	require.NoError(t, err)
	done := make(chan error)
	go func() { done <- h.r.acceptSessions(l) }()
	t.Cleanup(func() {
		l.Close()
		assert.ErrorIs(t, <-done, net.ErrClosed)
		require.Eventually(t, func() bool { return len(h.r.sessions) == 0 }, 30*time.Second, time.Millisecond)
		file.Close()
		for _, p := range b.Ports {
			h.ip("link del " + p.Name)
		}
	})
	return h
}

func (h *house) ip(args string) string {
	h.Helper()
	out, err := exec.Command("ip", strings.Fields(args)...).CombinedOutput()
	require.NoError(h, err, "ip %s: %s", args, out)
	return string(out)
}

func (h *house) lastKept() console.Config {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.kept) == 0 {
		return console.Default()
	}
	return h.kept[len(h.kept)-1]
}

func (h *house) logged(text string) {
	h.Helper()
	require.Eventually(h, func() bool {
		log, err := os.ReadFile(h.log)
		require.NoError(h, err)
		return strings.Contains(string(log), text)
	}, 30*time.Second, 5*time.Millisecond, text)
}

// guest is the far end of a session: what a terminal does, by hand.
type guest struct {
	h    *house
	conn net.Conn
}

func (h *house) connect() *guest {
	h.Helper()
	conn, err := net.Dial("unix", h.socket)
	require.NoError(h, err)
	g := &guest{h, conn}
	h.Cleanup(func() { conn.Close() })
	return g
}

// send sends a frame (console/serve.go): its kind, the length of the text and that.
func (g *guest) send(kind byte, text string) {
	g.h.Helper()
	_, err := g.conn.Write(append([]byte{kind, 0, 0, byte(len(text) >> 8), byte(len(text))}, text...))
	require.NoError(g.h, err)
}

// until reads up to a frame of one of those kinds, and returns all texts.
func (g *guest) until(kinds string) string {
	g.h.Helper()
	require.NoError(g.h, g.conn.SetReadDeadline(time.Now().Add(20*time.Second)))
	var all strings.Builder
	for {
		var head [5]byte
		_, err := readFull(g.conn, head[:])
		require.NoError(g.h, err, all.String())
		text := make([]byte, int(head[3])<<8|int(head[4]))
		_, err = readFull(g.conn, text)
		require.NoError(g.h, err)
		all.Write(text)
		if strings.IndexByte(kinds, head[0]) >= 0 {
			return all.String()
		}
	}
}

// prompt reads up to the next prompt.
func (g *guest) prompt() string { return g.until("P") }

// run sends a line and returns what it printed, with the next prompt.
func (g *guest) run(line string) string {
	g.h.Helper()
	g.send('L', line)
	return g.prompt()
}

func readFull(conn net.Conn, p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k, err := conn.Read(p[n:])
		n += k
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

const (
	prompt     = "[admin@postern] > "
	safePrompt = "[admin@postern] <SAFE> > "
)

func TestSessions(t *testing.T) {
	h := newHouse(t)
	one, two := h.connect(), h.connect()
	assert.Equal(t, "No password is set: /password sets one.\n"+prompt, one.prompt())
	two.prompt()
	// Each sees what the other has done, in the system and in its numbers.
	assert.Equal(t, prompt, one.run("/ip address add address=192.168.0.1/24 interface=ether2"))
	assert.Contains(t, two.run("/ip address print"), "192.168.0.1/24")
	assert.Contains(t, h.ip("-4 addr show dev ether2"), "192.168.0.1/24")
	assert.Equal(t, prompt, two.run("/ip address remove 0"))
	assert.Contains(t, one.run("/ip address remove 0"), "no such item")
	assert.NotContains(t, h.ip("-4 addr show dev ether2"), "192.168.0.1/24")
	// Changes at the same time are made one after the other: none is lost.
	const each = 20
	var wait sync.WaitGroup
	for i, g := range []*guest{one, two} {
		wait.Go(func() {
			for n := range each {
				line := fmt.Sprintf("/ip address add address=10.%d.%d.1/24 interface=ether%d", i, n, i+1)
				assert.Equal(t, prompt, g.run(line))
			}
		})
	}
	wait.Wait()
	assert.Contains(t, one.run("/ip address print count-only"), fmt.Sprint(2*each))
	assert.Equal(t, 2*each, strings.Count(h.ip("-4 addr"), " inet 10."))
	assert.Len(t, h.lastKept().Addresses, 2*each)
}

func TestSessionDiesInALine(t *testing.T) {
	h := newHouse(t)
	g := h.connect()
	g.prompt()
	// The length of more than is sent.
	_, err := g.conn.Write([]byte("L\x00\x00\x00\x30/ip address add address=192.168.0.1/24"))
	require.NoError(t, err)
	require.NoError(t, g.conn.Close())
	h.logged("read frame of 48 bytes: unexpected EOF")
	other := h.connect()
	other.prompt()
	assert.Contains(t, other.run("/ip address print count-only"), "0\n")
	assert.Empty(t, h.kept)
}

func TestTooManySessions(t *testing.T) {
	h := newHouse(t)
	var guests []*guest
	for range maxSessions {
		g := h.connect()
		g.prompt()
		guests = append(guests, g)
	}
	assert.Equal(t, "failure: 8 sessions are there, and there can be no more\n", h.connect().until("E"))
	guests[3].send('L', "/quit")
	guests[3].until("E")
	require.Eventually(t, func() bool { return len(h.r.sessions) < maxSessions }, 30*time.Second, time.Millisecond)
	h.connect().prompt()
}

func TestLogin(t *testing.T) {
	h := newHouse(t)
	var pauses []time.Duration
	h.r.logins.sleep = func(d time.Duration) { pauses = append(pauses, d) }
	first := h.connect()
	first.prompt()
	assert.Equal(t, prompt, first.run("/user set admin password=secret"))
	assert.NotContains(t, first.run("/export"), "argon2")
	assert.Contains(t, first.run("/export show-sensitive"), "argon2id")
	hash := h.lastKept().AdminPassword
	assert.Contains(t, hash, "$argon2id$v=19$m=2048,t=3,p=1$")

	const failed = "\nLogin failed, incorrect username or password\n\nLogin: "
	login := func(user, password string) (string, *guest) {
		g := h.connect()
		assert.Equal(t, "Login: ", g.until("A"))
		g.send('L', user)
		assert.Equal(t, "Password: ", g.until("S"))
		g.send('L', password)
		said := g.until("AP")
		if said == failed {
			g.conn.Close()
		}
		return said, g
	}
	for _, c := range []struct{ user, password, want string }{
		{"admin", "secre", failed},
		{"admin", "", failed},
		{"root", "secret", failed},
		{"secret", "secret", failed},
		{"admin", "secret!", failed},
		{"admin", hash, failed},
		{"admin", "secret", prompt},
		{"admin", "wrong", failed},
	} {
		got, _ := login(c.user, c.password)
		assert.Equal(t, c.want, got, "%s %s", c.user, c.password)
	}
	// Sessions come and go; the pauses grow, up to the first that knows it.
	assert.Equal(t, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 16 * time.Second, 16 * time.Second,
		time.Second}, pauses)
	h.logged("system,error,critical login failure for user admin")
	h.logged("system,account,info user admin logged in")
	log, err := os.ReadFile(h.log)
	require.NoError(t, err)
	assert.NotContains(t, string(log), "secret", "what was typed for a name may be a password")

	// A password is changed by who knows it.
	assert.Equal(t, "old password: ", func() string { first.send('L', "/password"); return first.until("S") }())
	change := func(old, new string) string {
		first.send('L', old)
		first.until("S")
		first.send('L', new)
		first.until("S")
		return first.run(new)
	}
	assert.Equal(t, "failure: old password is wrong\n"+prompt, change("wrong", "other"))
	first.send('L', "/password")
	first.until("S")
	assert.Equal(t, prompt, change("secret", "other"))
	got, _ := login("admin", "secret")
	assert.Equal(t, failed, got)
	got, second := login("admin", "other")
	assert.Equal(t, prompt, got)
	// Without one there is no question.
	assert.Equal(t, prompt, second.run("/user set admin password=\"\""))
	h.connect().prompt()

	// A hash that could never be checked is refused.
	assert.Contains(t, second.run(`/user set admin password-hash="\$argon2id\$v=19\$m=999999,t=3,p=1\$c29tZXNhbHQ\$nf65EOgLrQMR"`),
		"its cost is not within m=8..4096")
	assert.Contains(t, second.run("/user set admin password-hash=x"), "another kind of hash")
	assert.False(t, h.r.hasPassword())

	// From a file it may come all the same: then nobody is let in.
	h.r.mu.Lock()
	h.r.config.AdminPassword = "x"
	h.r.mu.Unlock()
	for _, password := range []string{"", "x"} {
		got, _ := login("admin", password)
		assert.Equal(t, failed, got)
	}
	h.logged("system,error nobody can log in: ")
}

func TestConfirmed(t *testing.T) {
	h := newHouse(t)
	g := h.connect()
	g.prompt()
	for _, c := range []struct {
		line, question string
		want           console.Request
	}{
		{"/system identity set name=other; /system reboot", "Reboot, yes? [y/N]: ", console.Reboot},
		{"/system shutdown", "Shutdown, yes? [y/N]: ", console.Shutdown},
	} {
		for _, answer := range []string{"n", "y"} {
			g.send('L', c.line)
			assert.Equal(t, c.question, g.until("A"))
			assert.Empty(t, h.requests)
			g.run(answer)
			assert.Len(t, h.requests, map[string]int{"y": 1}[answer])
		}
		assert.Equal(t, c.want, <-h.requests)
	}
	assert.Equal(t, "other", h.lastKept().Identity, "what stands before it in the line is done")
}

func TestSafeMode(t *testing.T) {
	const address = "/ip address add address=192.168.0.1/24 interface=ether2"
	has := func(h *house) bool {
		h.Helper()
		in := strings.Contains(h.ip("-4 addr show dev ether2"), "192.168.0.1/24")
		h.r.mu.Lock()
		defer h.r.mu.Unlock()
		assert.Equal(h, in, len(h.r.config.Addresses) > 0, "system and configuration")
		return in
	}
	taken := func(t *testing.T) (*house, *guest) {
		h := newHouse(t)
		g := h.connect()
		g.prompt()
		g.send('X', "")
		require.Equal(t, "[Safe Mode taken]\n"+safePrompt, g.prompt())
		require.Equal(t, safePrompt, g.run(address))
		require.True(t, has(h), "changes have effect at once")
		require.Empty(t, h.kept, "a power cut undoes them")
		return h, g
	}
	for _, test := range []struct {
		name string
		do   func(h *house, g *guest)
		stay bool
	}{
		{"released", func(h *house, g *guest) {
			g.send('X', "")
			assert.Equal(h, "[Safe Mode released]\n"+prompt, g.prompt())
		}, true},
		{"Ctrl-D", func(h *house, g *guest) {
			g.send('D', "")
			assert.Equal(h, "[Safe Mode unrolled]\n"+prompt, g.prompt())
			assert.Contains(h, g.run("/ip address print count-only"), "0\n"+prompt)
		}, false},
		{"the connection breaks", func(h *house, g *guest) {
			g.conn.Close()
			h.logged("what was changed is undone: the session has ended")
		}, false},
		{"quit", func(h *house, g *guest) {
			g.send('L', "/quit")
			g.until("E")
			h.logged("what was changed is undone: the session has ended")
		}, false},
		{"a bad frame", func(h *house, g *guest) {
			g.send('Z', "")
			h.logged("what was changed is undone: the session has ended")
		}, false},
		{"another unrolls it", func(h *house, g *guest) {
			other := h.connect()
			other.prompt()
			assert.Equal(h, "failure: another session is in Safe Mode: nothing can be changed until it leaves that; Ctrl-X takes it over\n"+prompt,
				other.run("/ip address remove [find]"))
			other.send('X', "")
			other.until("A")
			other.send('L', "u")
			assert.Equal(h, "[Safe Mode taken]\n"+safePrompt, other.prompt())
			// The first is told, and does nothing more in the belief that it is safe.
			assert.Equal(h, "failure: Safe Mode has ended meanwhile (see the log); nothing was done now\n"+prompt, g.run(address))
			assert.Contains(h, g.run(address), "failure: another session is in Safe Mode")
			other.conn.Close()
			h.logged("Safe Mode ended without a change: the session has ended")
		}, false},
		{"another releases it", func(h *house, g *guest) {
			other := h.connect()
			other.prompt()
			other.send('X', "")
			other.until("A")
			other.send('L', "r")
			assert.Equal(h, "[Safe Mode taken]\n"+safePrompt, other.prompt())
			g.conn.Close()
			other.conn.Close()
			h.logged("Safe Mode ended without a change: the session has ended")
		}, true},
		{"another leaves it", func(h *house, g *guest) {
			other := h.connect()
			other.prompt()
			other.send('X', "")
			other.until("A")
			other.send('D', "")
			assert.Equal(h, prompt, other.prompt())
			g.send('X', "")
			assert.Equal(h, "[Safe Mode released]\n"+prompt, g.prompt())
		}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, g := taken(t)
			test.do(h, g)
			assert.Equal(t, test.stay, has(h))
			assert.Equal(t, test.stay, len(h.lastKept().Addresses) > 0, "what survives")
			// And the next is free to change.
			next := h.connect()
			next.prompt()
			assert.Equal(t, "[admin@x] > ", next.run("/system identity set name=x"))
			assert.Equal(t, "x", h.lastKept().Identity)
		})
	}
	t.Run("silence", func(t *testing.T) {
		h := newHouse(t)
		h.r.safeSilence = 300 * time.Millisecond
		g := h.connect()
		g.prompt()
		g.send('X', "")
		g.prompt()
		g.run(address)
		// Who types is heard.
		for range 10 {
			time.Sleep(60 * time.Millisecond)
			g.send('T', "/ip ")
			g.until("C")
		}
		assert.True(t, has(h))
		h.logged("what was changed is undone: nothing was heard for 300ms")
		assert.False(t, has(h))
		assert.Equal(t, "failure: Safe Mode has ended meanwhile (see the log); nothing was done now\n"+prompt, g.run(address))
		assert.Equal(t, prompt, g.run(address))
		assert.True(t, has(h))
	})
	t.Run("a line that repeats itself is silence", func(t *testing.T) {
		h := newHouse(t)
		h.r.safeSilence = 700 * time.Millisecond
		g := h.connect()
		g.prompt()
		g.send('X', "")
		g.prompt()
		g.run(address)
		g.send('L', "/ip address print interval=500ms")
		assert.Contains(t, g.prompt(), "failure: Safe Mode has ended meanwhile")
		assert.False(t, has(h))
	})
}
