package login

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/service"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// testSpec is a service that greets, and closes the connection.
var testSpec = service.Spec{Name: "test", Start: service.OnConnection, Calls: Calls, Main: func(p *service.Child) error {
	return NewServer(p, func(c *Conn) { _, _ = c.Write([]byte("hello")) }).Run()
}}

// opTicket is a request of the service's own: a login of everybody but "unknown".
const opTicket = FirstOp

// withTicket is the handler of a PID 1 that has opTicket too.
func withTicket(p *Process, known func(Login) bool) service.Handler {
	return func(ctx context.Context, r *service.Request) ([]byte, error) {
		if r.Op != opTicket {
			return p.Handle(ctx, r)
		}
		number, from, _ := DecodeNumber(r.Decoder), Decode(r.Decoder), r.String(MaxPassword)
		if err := r.End(); err != nil {
			return nil, err
		}
		if !known(from) {
			return nil, errors.New("not known")
		}
		return nil, p.Admit(number, from)
	}
}

func TestAllows(t *testing.T) {
	client := netip.MustParseAddr("192.168.0.2")
	assert.True(t, Config{}.Allows(client))
	c := Config{From: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.168.0.0/24")}}
	assert.True(t, c.Allows(client))
	assert.False(t, c.Allows(netip.MustParseAddr("192.168.1.2")))
}

// What a process must not ask for ends it.
func TestBreach(t *testing.T) {
	for name, r := range map[string]func(*service.Encoder) byte{
		"a session without a descriptor": func(e *service.Encoder) byte { e.Uint(7); return opSession },
		"a session of nobody":            func(e *service.Encoder) byte { e.Uint(8); return opSession },
		"no such request":                func(*service.Encoder) byte { return 99 },
		"an address of IPv6": func(e *service.Encoder) byte {
			e.Uint(9)
			Login{User: "a", From: netip.IPv6Loopback()}.Encode(e)
			e.String("x")
			return opPassword
		},
		"a long password": func(e *service.Encoder) byte {
			e.Uint(9)
			Login{User: "a", From: netip.MustParseAddr("10.0.0.1")}.Encode(e)
			e.String(strings.Repeat("x", MaxPassword+1))
			return opPassword
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := NewProcess(nil, Authority{LoggedIn: func(Login) {}})
			p.max = 1
			require.NoError(t, p.Admit(7, Login{User: "a"}))
			require.ErrorIs(t, p.Admit(7, Login{User: "b"}), service.ErrBreach)
			var e service.Encoder
			op := r(&e)
			_, err := p.Handle(t.Context(), &service.Request{Op: op, Decoder: service.NewDecoder(e.Bytes())})
			require.ErrorIs(t, err, service.ErrBreach)
		})
	}
}

// The process ends when nobody has been connected for idleTime.
func TestIdle(t *testing.T) {
	idleTime = 10 * time.Millisecond
	t.Cleanup(func() { idleTime = time.Minute })
	var process *Process
	link, ended, err := service.Simulate(t.Context(), testSpec, func(l *service.Link) service.Handler {
		process = NewProcess(l, Authority{})
		return process.Handle
	})
	require.NoError(t, err)
	defer link.Close()
	l, err := service.Listen(netip.MustParseAddrPort("127.0.0.1:0"))
	require.NoError(t, err)
	defer l.Close()
	name, err := unix.Getsockname(int(l.Fd()))
	require.NoError(t, err)
	// It waits in the kernel's queue, so that the process is not idle when it begins to accept.
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port))
	require.NoError(t, err)
	defer c.Close()
	if err := process.Configure(t.Context(), Config{MaxSessions: 1}, TLS{}, "", l); err != nil {
		require.ErrorIs(t, err, service.ErrGone) // it may have ended before its reply was out
	}
	c.Close()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(patience):
		require.Fail(t, "it does not end")
	}
}

// PID 1 counts the sessions of each login, and ends them with it.
func TestSessionsOfALogin(t *testing.T) {
	var mu sync.Mutex
	var said []string
	say := func(what string) func(Login) {
		return func(l Login) {
			mu.Lock()
			defer mu.Unlock()
			said = append(said, what+" "+l.User)
		}
	}
	served, over := make(chan string, 1), make(chan string, 1)
	p := NewProcess(nil, Authority{
		LoggedIn: say("in"), LoggedOut: say("out"),
		Serve: func(conn net.Conn, l Login) {
			served <- l.User
			_, _ = io.Copy(io.Discard, conn)
			conn.Close()
			over <- l.User
		},
	})
	p.max = 2
	link, child, err := service.LinkPair(t.Context(), testSpec, func(*service.Link) service.Handler {
		return withTicket(p, func(l Login) bool { return l.User != "unknown" })
	},
		func(context.Context, *service.Request) ([]byte, error) { return nil, nil })
	require.NoError(t, err)
	t.Cleanup(func() { link.Close(); child.Close() })
	login := func(number uint64, user string) error {
		var e service.Encoder
		e.Uint(number)
		Login{User: user, From: netip.MustParseAddr("10.0.0.1")}.Encode(&e)
		e.String("ticket")
		return child.Call(t.Context(), opTicket, e.Bytes(), nil)
	}
	session := func(number uint64) error {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		ours, theirs := os.NewFile(uintptr(fds[0]), ""), os.NewFile(uintptr(fds[1]), "")
		t.Cleanup(func() { ours.Close() })
		defer theirs.Close()
		var e service.Encoder
		e.Uint(number)
		return child.Call(t.Context(), opSession, e.Bytes(), nil, theirs)
	}
	require.NoError(t, login(1, "a"))
	require.NoError(t, login(2, "b"))
	require.ErrorContains(t, login(3, "c"), "as many connections as max-sessions allows")
	require.ErrorContains(t, login(3, "unknown"), "not known")
	for range SessionsOf {
		require.NoError(t, session(1))
		assert.Equal(t, "a", <-served)
	}
	require.ErrorContains(t, session(1), "too many sessions")
	require.NoError(t, session(2))
	assert.Equal(t, "b", <-served)
	var e service.Encoder
	e.Uint(1)
	require.NoError(t, child.Call(t.Context(), opLogout, e.Bytes(), nil))
	for range SessionsOf {
		assert.Equal(t, "a", <-over)
	}
	assert.Empty(t, over, "the other's goes on")
	mu.Lock()
	assert.Equal(t, []string{"in a", "in b", "out a"}, said)
	mu.Unlock()
	require.ErrorIs(t, session(1), service.ErrGone)
	<-link.Done()
	require.ErrorIs(t, link.Err(), service.ErrBreach)
	require.ErrorContains(t, link.Err(), "a session without a login")
	p.Ended()
	assert.Equal(t, "b", <-over)
}

// Whoever is logged in, there is room for one more who manages the router, and for one only.
func TestPlaceOfWhoManages(t *testing.T) {
	p := NewProcess(nil, Authority{LoggedIn: func(Login) {}, LoggedOut: func(Login) {}, Manages: func(l Login) bool { return l.User == "admin" }})
	number := uint64(0)
	enter := func(user string) error {
		number++
		return p.Admit(number, Login{User: user})
	}
	require.ErrorIs(t, enter("admin"), ErrFull, "not before there is a configuration")
	p.max = 2
	require.NoError(t, enter("read"))
	require.NoError(t, enter("read"))
	require.ErrorIs(t, enter("read"), ErrFull)
	require.NoError(t, enter("admin"))
	require.ErrorIs(t, enter("read"), ErrFull)
	require.ErrorIs(t, enter("admin"), ErrFull)
	p.logout(2) // the first who was let in
	require.ErrorIs(t, enter("read"), ErrFull)
	require.NoError(t, enter("admin"))
	p.Ended()
	require.ErrorIs(t, enter("admin"), ErrFull, "nor after the end")
}

// A login that has been left needs no place, and goes on; one at a time is so.
func TestLeftLogin(t *testing.T) {
	p := NewProcess(nil, Authority{LoggedIn: func(Login) {}, LoggedOut: func(Login) {}})
	p.max = 2
	enter := func(number uint64) error { return p.Admit(number, Login{User: "read"}) }
	leave := func(number uint64) {
		var e service.Encoder
		e.Uint(number)
		_, err := p.Handle(t.Context(), &service.Request{Op: opLeave, Decoder: service.NewDecoder(e.Bytes())})
		require.NoError(t, err)
	}
	require.NoError(t, enter(1))
	require.NoError(t, enter(2))
	leave(9) // there is none
	require.ErrorIs(t, enter(3), ErrFull)
	leave(1)
	leave(2)
	require.NoError(t, enter(3))
	assert.Len(t, p.logins, 3)
	require.ErrorIs(t, enter(4), ErrFull)
	p.logout(1)
	require.ErrorIs(t, enter(4), ErrFull)
	leave(2)
	require.NoError(t, enter(4))
}

// A login that PID 1 answers too late does not stay.
func TestLateEntry(t *testing.T) {
	callTime = 10 * time.Millisecond
	t.Cleanup(func() { callTime = 20 * time.Second })
	release := make(chan struct{})
	events := make(chan string, 2)
	late := testSpec
	late.Main = func(p *service.Child) error {
		s := NewServer(p, nil)
		go func() {
			_, err := s.Enter(opTicket, Login{User: "a", From: netip.MustParseAddr("10.0.0.1")}, "ticket")
			if assert.ErrorIs(t, err, service.ErrTimeout) {
				close(release)
			}
		}()
		return p.Serve(s.handle)
	}
	link, ended, err := service.Simulate(t.Context(), late, func(*service.Link) service.Handler {
		p := NewProcess(nil, Authority{
			LoggedIn:  func(Login) { events <- "in" },
			LoggedOut: func(Login) { events <- "out" },
		})
		p.max = 1
		return withTicket(p, func(Login) bool { <-release; return true })
	})
	require.NoError(t, err)
	for _, want := range []string{"in", "out"} {
		select {
		case got := <-events:
			assert.Equal(t, want, got)
		case <-time.After(patience):
			require.Fail(t, "not "+want)
		}
	}
	link.Close()
	require.NoError(t, <-ended)
}

// verdictRig is a PID 1 with room for one login, to which every password is right, and the process's end of the
// link, whose handler takes the verdicts.
func verdictRig(t *testing.T, handler service.Handler) (child *service.Link, events <-chan string) {
	said := make(chan string, 10)
	link, child, err := service.LinkPair(t.Context(), testSpec, func(l *service.Link) service.Handler {
		p := NewProcess(l, Authority{
			CheckPassword: func(Login, string) string { return "proof" },
			LoggedIn:      func(Login) { said <- "in" },
			LoggedOut:     func(Login) { said <- "out" },
			Serve:         func(conn net.Conn, _ Login) { conn.Close(); said <- "session" },
		})
		p.max = 1
		return p.Handle
	}, handler)
	require.NoError(t, err)
	t.Cleanup(func() { link.Close(); child.Close() })
	return child, said
}

// askPassword has PID 1 check a password for the login of that number, from an address of its own.
func askPassword(t *testing.T, child *service.Link, number byte) error {
	var e service.Encoder
	e.Uint(uint64(number))
	Login{User: "a", From: netip.AddrFrom4([4]byte{10, 0, 0, number})}.Encode(&e)
	e.String("correct horse")
	return child.Call(t.Context(), opPassword, e.Bytes(), nil)
}

func expectEvents(t *testing.T, events <-chan string, wanted ...string) {
	t.Helper()
	for _, want := range wanted {
		select {
		case got := <-events:
			assert.Equal(t, want, got)
		case <-time.After(patience):
			require.Fail(t, "not "+want)
		}
	}
}

// A process that takes a verdict late has the login.
func TestLateVerdict(t *testing.T) {
	callTime = 10 * time.Millisecond
	t.Cleanup(func() { callTime = 20 * time.Second })
	took := make(chan struct{})
	child, events := verdictRig(t, func(ctx context.Context, r *service.Request) ([]byte, error) {
		_, _ = r.Uint(maxID), r.Uint(uint64(Full))
		late, cancel := service.WithTimeout(ctx, 10*callTime)
		defer cancel()
		<-late.Done()
		close(took)
		return nil, nil
	})
	require.NoError(t, askPassword(t, child, 1))
	expectEvents(t, events, "in")
	<-took
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	ours, theirs := os.NewFile(uintptr(fds[0]), ""), os.NewFile(uintptr(fds[1]), "")
	defer ours.Close()
	defer theirs.Close()
	var e service.Encoder
	e.Uint(1)
	require.NoError(t, child.Call(t.Context(), opSession, e.Bytes(), nil, theirs))
	expectEvents(t, events, "session")
}

// A login by a password of which the process cannot be told does not stay.
func TestVerdictIsNotTaken(t *testing.T) {
	child, events := verdictRig(t, func(_ context.Context, r *service.Request) ([]byte, error) {
		_, _ = r.Uint(maxID), r.Uint(uint64(Full))
		return nil, errors.New("not taken")
	})
	require.NoError(t, askPassword(t, child, 1))
	expectEvents(t, events, "in", "out")
}

// A process that takes no verdict gets no more of them.
func TestUntoldVerdicts(t *testing.T) {
	child, _ := verdictRig(t, func(ctx context.Context, _ *service.Request) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	var err error
	for number := byte(1); err == nil && number <= 2*MaxChecks+1; number++ {
		err = askPassword(t, child, number)
	}
	require.ErrorContains(t, err, "too many passwords are being checked")
}

// PID 1 ends a login: what a session has asked is answered, and no more; a session that the process asks for, as it does not know yet, is
// refused and no breach.
func TestEndedLogin(t *testing.T) {
	logins, out := make(chan Login, 1), make(chan string, 1)
	p := NewProcess(nil, Authority{
		LoggedIn: func(l Login) { logins <- l }, LoggedOut: func(l Login) { out <- l.User },
		Serve: func(conn net.Conn, _ Login) {
			defer conn.Close()
			_, err := io.Copy(io.Discard, conn)
			if err == nil {
				_, _ = io.WriteString(conn, "the answer")
			}
		},
	})
	p.max = 1
	told := make(chan uint64, 1)
	link, child, err := service.LinkPair(t.Context(), testSpec, func(l *service.Link) service.Handler {
		p.link = l
		return withTicket(p, func(Login) bool { return true })
	}, func(_ context.Context, r *service.Request) ([]byte, error) {
		if r.Op == opEnd {
			told <- DecodeNumber(r.Decoder)
		}
		return nil, r.End()
	})
	require.NoError(t, err)
	t.Cleanup(func() { link.Close(); child.Close() })
	var e service.Encoder
	e.Uint(7)
	Login{User: "a", From: netip.MustParseAddr("10.0.0.1")}.Encode(&e)
	e.String("ticket")
	require.NoError(t, child.Call(t.Context(), opTicket, e.Bytes(), nil))
	session := func() (net.Conn, error) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		require.NoError(t, err)
		ours, theirs := os.NewFile(uintptr(fds[0]), ""), os.NewFile(uintptr(fds[1]), "")
		defer ours.Close()
		defer theirs.Close()
		var e service.Encoder
		e.Uint(7)
		if err := child.Call(t.Context(), opSession, e.Bytes(), nil, theirs); err != nil {
			return nil, err
		}
		return net.FileConn(ours)
	}
	conn, err := session()
	require.NoError(t, err)
	defer conn.Close()
	(<-logins).End()
	assert.Equal(t, "a", <-out)
	assert.Equal(t, uint64(7), <-told)
	text, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "the answer", string(text))
	_, err = session()
	require.ErrorContains(t, err, "the login has ended")
	e = service.Encoder{}
	e.Uint(7)
	require.NoError(t, child.Call(t.Context(), opLogout, e.Bytes(), nil))
	assert.Empty(t, out, "it is told once")
	p.mu.Lock()
	defer p.mu.Unlock()
	assert.Empty(t, p.over)
}
