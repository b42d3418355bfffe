package router

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	protocol "golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
	"github.com/postern-router/postern/login"
	"github.com/postern-router/postern/password"
	"github.com/postern-router/postern/service"
	"github.com/postern-router/postern/ssh"
	"github.com/postern-router/postern/store"
)

// sshRig is the SSH service with the real process, on a router whose other parts are none.
type sshRig struct {
	*testing.T
	r      *Router
	s      *sshService
	config console.Config
	said   func() string
}

func newSSHRig(t *testing.T) *sshRig {
	fakes := newRig(t)
	r := fakes.r
	g := &sshRig{T: t, r: r, s: newSSHService(realSupervisor(t, r.log, fakes.log), r.log.About("ssh")), config: console.Default(), said: fakes.log}
	g.s.attach(r)
	g.config.SSH.Disabled, g.config.SSH.Port = false, freePort(t)
	return g
}

// apply gives router and service the configuration.
func (g *sshRig) apply() {
	g.Helper()
	require.NoError(g, g.s.Apply(g.config))
	g.r.mu.Lock()
	g.r.now.config, g.r.now.running = g.config, g.config
	g.r.mu.Unlock()
}

func (g *sshRig) address() string { return fmt.Sprintf("127.0.0.1:%d", g.config.SSH.Port) }

// dial connects as admin and returns the host key.
func (g *sshRig) dial(auth ...protocol.AuthMethod) (*protocol.Client, string, error) {
	host := ""
	c, err := protocol.Dial("tcp4", g.address(), &protocol.ClientConfig{User: console.Admin, Auth: auth,
		HostKeyCallback: func(_ string, _ net.Addr, key protocol.PublicKey) error { host = string(key.Marshal()); return nil }})
	if err == nil {
		g.Cleanup(func() { c.Close() })
	}
	return c, host, err
}

// Nothing listens before there is a password or a key. The process starts with the first connection. With a
// key the password lets nobody in.
func TestSSHService(t *testing.T) {
	g := newSSHRig(t)
	refused := func() {
		t.Helper()
		require.Eventually(t, func() bool { // when the process has ended, which has the socket too
			c, err := net.Dial("tcp4", g.address())
			if err == nil {
				c.Close()
			}
			return errors.Is(err, unix.ECONNREFUSED)
		}, time.Minute, 10*time.Millisecond)
	}
	g.apply()
	refused()
	hash, err := password.New("correct horse")
	require.NoError(t, err)
	g.config.SetPassword(console.Admin, hash)
	g.apply()
	assert.NotEqual(t, service.Running, g.s.process.Status().State, "it sleeps")
	_, _, err = g.dial(protocol.Password("wrong"))
	require.ErrorContains(t, err, "unable to authenticate")
	assert.Contains(t, g.said(), "login failure for user admin from 127.0.0.1 via ssh\n")
	c, host, err := g.dial(protocol.Password("correct horse"))
	require.NoError(t, err)
	assert.Equal(t, service.Running, g.s.process.Status().State)
	assert.Contains(t, g.said(), "user admin logged in from 127.0.0.1 via ssh\n")
	s, err := c.NewSession()
	require.NoError(t, err)
	out, err := s.CombinedOutput("/system identity print")
	require.NoError(t, err)
	assert.Equal(t, "  name: postern\r\n", string(out))

	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	signer, err := protocol.NewSignerFromSigner(private)
	require.NoError(t, err)
	_, _, err = g.dial(protocol.PublicKeys(signer))
	require.Error(t, err, "not this key")
	g.config.SSHKeys = []ssh.Key{{User: console.Admin, Public: ssh.PublicKey{Key: string(public)}}}
	g.apply()
	_, again, err := g.dial(protocol.PublicKeys(signer))
	require.NoError(t, err)
	assert.Equal(t, host, again)
	_, _, err = g.dial(protocol.Password("correct horse"))
	require.ErrorContains(t, err, "unable to authenticate")

	old := g.config
	g.config.SSH.Port = freePort(t)
	g.apply()
	_, _, err = g.dial(protocol.PublicKeys(signer))
	require.NoError(t, err)
	s, err = c.NewSession()
	require.NoError(t, err, "who is connected stays")
	require.NoError(t, s.Run("/system identity print"))
	g.config.SSHKeys = nil
	g.config.SetPassword(console.Admin, "")
	g.apply()
	refused()
	_ = c.Wait() // whoever is there is gone
	require.Eventually(t, func() bool {
		return strings.Contains(g.said(), "user admin logged out from 127.0.0.1 via ssh\n") && g.s.process.Status().State == service.Off
	}, time.Minute, 10*time.Millisecond, "%s", g.said())
	g.s.Stop()
	require.ErrorIs(t, g.s.Apply(old), service.ErrStopped)
}

// A port that is taken changes nothing.
func TestSSHPortTaken(t *testing.T) {
	g := newSSHRig(t)
	g.config.SetPassword(console.Admin, "$x")
	g.apply()
	l, err := net.Listen("tcp4", "0.0.0.0:0")
	require.NoError(t, err)
	defer l.Close()
	before := g.address()
	g.config.SSH.Port = uint16(l.Addr().(*net.TCPAddr).Port)
	require.ErrorContains(t, g.s.Apply(g.config), "address already in use")
	c, err := net.Dial("tcp4", before)
	require.NoError(t, err)
	c.Close()
}

// The key is one for ever: kept in the state or, if there is no room for that, with the configuration.
func TestSSHHostKey(t *testing.T) {
	key := func(r *Router) string {
		s := newSSHService(realSupervisor(t, r.log, func() string { return "" }), r.log)
		s.attach(r)
		return string(s.hostKey())
	}
	open := func(state, kept string) *Router {
		log, _ := testLog(t)
		r := New(board.Board{}, log, Parts{}, nil)
		if state != "" {
			require.NoError(t, r.state.open(state))
		}
		if kept != "" {
			require.NoError(t, r.kept.open(kept))
			t.Cleanup(r.kept.close)
		}
		return r
	}
	state, kept := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "kept")
	t.Run("in the state", func(t *testing.T) {
		r := open(state, "")
		first := key(r)
		assert.Equal(t, first, key(r))
		require.NoError(t, r.state.store.Close())
		r = open(state, "")
		assert.Equal(t, first, key(r))
		r.requests = make(chan<- console.Request, 1)
		require.NoError(t, r.confirmed(console.ResetConfiguration))
		assert.NotEqual(t, first, key(r), "a reset makes another")
	})
	t.Run("with the configuration", func(t *testing.T) {
		s, err := store.Open(kept)
		require.NoError(t, err)
		require.NoError(t, s.Save([]byte("/system identity\nset name=a\n")))
		require.NoError(t, s.Close())
		r := open("", kept)
		assert.Equal(t, "/system identity\nset name=a\n", string(r.kept.load()))
		first := key(r)
		require.NoError(t, r.kept.flush())
		r.kept.close()
		r = open("", kept)
		assert.Equal(t, "/system identity\nset name=a\n", string(r.kept.load()))
		assert.Equal(t, first, key(r))
		c := console.Default()
		c.Identity = "b"
		r.kept.put(c)
		r.kept.close()
		s, err = store.Open(kept)
		require.NoError(t, err)
		text, _, err := s.Load()
		require.NoError(t, err)
		require.NoError(t, s.Close())
		assert.Equal(t, 1, strings.Count(string(text), "\n# "+stateHostKey+"="))
		assert.Contains(t, string(text), "set name=b\n")
		read, err := console.Load("kept", strings.NewReader(string(text)))
		require.NoError(t, err, "it is a comment to every version")
		assert.Equal(t, "b", read.Identity)
		r = open("", kept)
		r.kept.load()
		assert.Equal(t, first, key(r))
	})
	t.Run("without flash", func(t *testing.T) {
		r := open("", "")
		assert.Len(t, key(r), ed25519.PrivateKeySize)
	})
}

// Who may log in is said by what runs, not by a configuration that was refused.
func TestSSHLoginsByWhatRuns(t *testing.T) {
	log, said := testLog(t)
	r := New(board.Board{}, log, Parts{}, nil)
	r.logins.matches = func(_ password.Hash, secret string) bool { return secret == "right" }
	hash, err := password.New("right")
	require.NoError(t, err)
	key := strings.Repeat("\x07", ssh.KeySize)
	r.now.config.SSHKeys = []ssh.Key{{User: console.Admin, Public: ssh.PublicKey{Key: key}}}
	r.now.running.SetPassword(console.Admin, hash)
	admin := login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.2")}
	assert.NotEmpty(t, r.loginAuthority(way{via: viaSSH}).CheckPassword(admin, "right"))
	assert.NotContains(t, said(), "logged in", "there may be too many connections")
	assert.Empty(t, r.sshKnown(admin, key))
}

// A login by a key has the wrong passwords of its address forgotten, as one by a password has, and those of no other address or way in.
func TestKeyLoginForgives(t *testing.T) {
	log, _ := testLog(t)
	r := New(board.Board{}, log, Parts{}, nil)
	key := strings.Repeat("\x07", ssh.KeySize)
	r.now.running.SSHKeys = []ssh.Key{{User: console.Admin, Public: ssh.PublicKey{Key: key}}}
	r.now.config = r.now.running
	admin := login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.2")}
	other := login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.3")}
	authority := r.loginAuthority(way{via: viaSSH})
	for _, o := range []session.Origin{origin(way{via: viaSSH}, admin), origin(way{via: viaSSH}, other), origin(way{via: viaAPI}, admin)} {
		r.logins.refuse(o)
		r.logins.refuse(o)
	}
	require.Equal(t, 2, authority.Failures(admin))
	admin.Proof = r.sshKnown(admin, key)
	require.NotEmpty(t, admin.Proof)
	assert.Equal(t, 2, authority.Failures(admin), "anybody may say that he has a key")
	authority.LoggedIn(admin)
	assert.Zero(t, authority.Failures(admin))
	assert.Equal(t, 2, authority.Failures(other))
	assert.Equal(t, 2, r.loginAuthority(way{via: viaAPI}).Failures(admin))
}

// address= of a service is in force with the command that sets it: its process hears of it later.
func TestLoginsFromAllowedAddresses(t *testing.T) {
	log, _ := testLog(t)
	r := New(board.Board{}, log, Parts{}, nil)
	r.logins.matches = func(_ password.Hash, secret string) bool { return secret == "right" }
	hash, err := password.New("right")
	require.NoError(t, err)
	key := strings.Repeat("\x07", ssh.KeySize)
	r.now.running.SetPassword(console.Admin, hash)
	from := []netip.Prefix{netip.MustParsePrefix("192.168.0.3/32")}
	r.now.running.SSH.From, r.now.running.WWW.From = from, from
	for _, l := range []struct {
		via   string
		login login.Login
	}{{viaSSH, login.Login{}}, {viaWeb, login.Login{}}, {viaWeb, login.Login{REST: true}}, {viaAPI, login.Login{}}} {
		for _, address := range []string{"192.168.0.2", "192.168.0.3"} {
			l.login.User, l.login.From = console.Admin, netip.MustParseAddr(address)
			in := l.via == viaAPI || address == "192.168.0.3"
			assert.Equal(t, in, r.loginAuthority(way{via: l.via}).CheckPassword(l.login, "right") != "", "%s from %s", l.via, address)
		}
	}
	r.now.running.SSHKeys = []ssh.Key{{User: console.Admin, Public: ssh.PublicKey{Key: key}}}
	assert.Empty(t, r.sshKnown(login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.2")}, key))
	assert.NotEmpty(t, r.sshKnown(login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.3")}, key))
}

// Sessions over the network never take a serial line's place.
func TestNetworkSessionsAreCountedApart(t *testing.T) {
	log, _ := testLog(t)
	r := New(board.Board{}, log, Parts{}, nil)
	from := origin(way{via: viaSSH}, login.Login{User: console.Admin, From: netip.MustParseAddr("192.168.0.2")})
	assert.Equal(t, session.Origin{Via: "ssh", Address: netip.MustParseAddr("192.168.0.2")}, from)
	r.now.config.Users = append(r.now.config.Users, console.User{Name: "bob", Group: "read"})
	first := func(user string) string {
		t.Helper()
		here, there := net.Pipe()
		t.Cleanup(func() { here.Close() })
		go r.serveUser(there, from, user, 1, false)
		require.NoError(t, here.SetDeadline(time.Now().Add(time.Minute)))
		var head [5]byte // of the first frame
		_, err := io.ReadFull(here, head[:])
		require.NoError(t, err)
		said := make([]byte, int(head[3])<<8|int(head[4]))
		_, err = io.ReadFull(here, said)
		require.NoError(t, err)
		return string(said)
	}
	for range maxNetworkSessions {
		assert.Contains(t, first("bob"), "[bob@postern] > ")
	}
	assert.Contains(t, first("bob"), "8 sessions are there over the network")
	assert.Contains(t, first(console.Admin), "[admin@postern] > ", "he cannot be kept out by others")
	assert.Contains(t, first(console.Admin), "9 sessions are there over the network")
	assert.Contains(t, first("bob"), "9 sessions are there over the network")
	assert.Empty(t, r.sessions)
}
