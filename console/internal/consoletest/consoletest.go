// Package consoletest is a router for the tests of both ends of a session: a configuration
// without a machine, and some lines that no real router has.
package consoletest

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/session"
)

// Prompt is the prompt of a router with the default name, at the root.
const Prompt = "[admin@postern] > "

// Router is the owner of a configuration.
type Router struct {
	Config console.Config
	Live   console.Live
	// Beats is how often a line has repeated itself.
	Beats atomic.Int64
	// Optional returns the functions of a Handler that may be nil. It may itself be nil.
	Optional func() session.Handler
}

// Handler serves one session, on conn. Besides the lines of the language it knows:
//
//	hang up          closes the connection
//	panic            panics
//	beat, follow     repeat themselves every 50 ms
//	beats N          the same with N numbered lines, and how often it did as the first
//	long             prints 110 KB
//	pages N          prints N numbered lines, page by page
func (r *Router) Handler(conn net.Conn) session.Handler {
	beats := 0
	r.Live.Requests = append(slices.Clone(r.Live.Requests), console.Edit)
	var h session.Handler
	if r.Optional != nil {
		h = r.Optional()
	}
	h.Execute = func(s *session.Session, line string) (console.Result, error) {
		switch word, _, _ := strings.Cut(line, " "); {
		case line == "hang up":
			conn.Close()
			return console.Result{}, nil
		case line == "panic":
			var list []int
			return console.Result{}, fmt.Errorf("not reached: %d", list[beats])
		case line == "beat", line == "follow":
			beats++
			return console.Result{Output: fmt.Sprintf("beat %d\nbeat %d\n", beats, beats), Repeat: 50 * time.Millisecond, Follow: line == "follow"}, nil
		case word == "beats":
			var n int
			_, _ = fmt.Sscanf(line, "beats %d", &n)
			var out strings.Builder
			fmt.Fprintf(&out, "beat %d\n", r.Beats.Add(1))
			for i := range n {
				fmt.Fprintf(&out, "line %d\n", i+1)
			}
			return console.Result{Output: out.String(), Repeat: 50 * time.Millisecond}, nil
		case word == "long":
			return console.Result{Output: strings.Repeat("0123456789\n", 10000)}, nil
		case word == "pages":
			var n int
			_, _ = fmt.Sscanf(line, "pages %d", &n)
			var out strings.Builder
			for i := range n {
				fmt.Fprintf(&out, "line %d\n", i+1)
			}
			return console.Result{Output: out.String(), Paged: true}, nil
		}
		result, err := s.Execute(r.Config, r.Live, line)
		r.Config = result.Config
		return result, err
	}
	h.Prompt = func(s *session.Session) string { return s.Prompt(r.Config.Identity) }
	h.Complete = func(s *session.Session, before string) (string, []console.Choice) {
		return s.Complete(r.Config, r.Live, before)
	}
	h.Help = func(s *session.Session, before string) string { return s.Help(r.Config, r.Live, before) }
	return h
}

// Guard is a router's state of passwords and Safe Mode, and a record of what it was asked.
type Guard struct {
	mu       sync.Mutex
	Password string
	Asked    []string // user:password
	Held     bool     // Safe Mode, by another session
	Did      []string // in Safe Mode
	Ended    int
}

// Locked calls f while no session uses g.
func (g *Guard) Locked(f func()) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f()
}

// At makes a router use g.
func (g *Guard) At(r *Router) {
	r.Live.Requests = []console.Request{console.ChangePassword}
	r.Optional = func() session.Handler {
		return session.Handler{
			Unlocked: func() (user string) {
				g.Locked(func() {
					if g.Password == "" {
						user = console.Admin
					}
				})
				return user
			},
			HasPassword: func(string) (has bool) {
				g.Locked(func() { has = g.Password != "" })
				return has
			},
			CheckPassword: func(_ *session.Session, user, password string) (ok bool) {
				g.Locked(func() {
					g.Asked = append(g.Asked, user+":"+password)
					ok = user == console.Admin && password == g.Password
				})
				return ok
			},
			SetPassword: func(_ *session.Session, old, new string) (err error) {
				g.Locked(func() {
					if old != g.Password {
						err = errors.New("failure: old password is wrong")
					} else {
						g.Password = new
					}
				})
				return err
			},
			SafeMode: func(s *session.Session, request session.SafeRequest) (err error) {
				g.Locked(func() {
					g.Did = append(g.Did, []string{"take", "unroll and take", "release and take", "release", "unroll"}[request])
					if request == session.TakeSafeMode && g.Held {
						err = session.ErrSafeModeHeld
						return
					}
					s.Safe = request < session.ReleaseSafeMode
				})
				return err
			},
			End: func(*session.Session) { g.Locked(func() { g.Ended++ }) },
		}
	}
}

// Socketpair returns the two ends of a connection, as a console and PID 1 have one. They are
// closed with the test.
func Socketpair(t *testing.T) (near, far net.Conn) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "socket"))
	require.NoError(t, err)
	defer l.Close()
	near, err = net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	far, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		near.Close()
		far.Close()
	})
	return near, far
}
