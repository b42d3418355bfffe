package program

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/service"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// pair returns two ends of a stream socket.
func pair(t testing.TB) (client, server net.Conn) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "")
		conns[i], err = net.FileConn(f)
		require.NoError(t, err)
		f.Close()
		t.Cleanup(func() { conns[i].Close() })
	}
	return conns[0], conns[1]
}

// newClient returns a client of a router that has cfg, and how its session ended.
func newClient(t *testing.T, finish func(context.Context, console.Result, io.Writer) error) (*Client, <-chan error) {
	here, there := pair(t)
	cfg := console.Default()
	live := console.Live{Requests: []console.Request{console.Ping, console.Reboot}}
	session := &console.Session{Width: 80}
	keep := func(r console.Result, err error) (console.Result, error) {
		if err == nil {
			cfg = r.Config
		}
		return r, err
	}
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(there, Handler{
			Query: func(path string, where []console.Condition, proplist []string) ([]console.Row, error) {
				if path == "panic" {
					panic("here")
				}
				return console.Query(cfg, live, path, where, proplist)
			},
			Do: func(path, command string, arguments []console.Argument) (console.Result, error) {
				return keep(console.Do(cfg, live, path, command, arguments...))
			},
			Execute: func(line string) (console.Result, error) { return keep(session.Execute(cfg, live, line)) },
			Finish:  finish,
		})
	}()
	return NewClient(here), ended
}

// rows asks for all rows, each as its ID and its values.
func rows(t *testing.T, c *Client, path string, where []console.Condition, proplist ...string) []string {
	t.Helper()
	var all []string
	require.NoError(t, c.Query(path, where, proplist, func(r console.Row) error {
		text := r.ID.String()
		for _, p := range r.Pairs {
			text += " " + p.Name + "=" + p.Value.String()
		}
		all = append(all, text)
		return nil
	}))
	return all
}

func TestQueryAndDo(t *testing.T) {
	c, ended := newClient(t, nil)
	first, err := c.Do("ip address", "add", nil, console.Argument{Name: "address", Value: "10.0.0.1/24"}, console.Argument{Name: "interface", Value: "ether1"})
	require.NoError(t, err)
	second, err := c.Do("ip/address", "add", nil, console.Argument{Name: "address", Value: "10.0.1.1/24"}, console.Argument{Name: "interface", Value: "ether2"})
	require.NoError(t, err)
	assert.Equal(t, []string{first.String() + " address=10.0.0.1/24 interface=ether1", second.String() + " address=10.0.1.1/24 interface=ether2"},
		rows(t, c, "ip address", nil, "address", "interface"))
	assert.Equal(t, []string{second.String() + " address=10.0.1.1/24"}, rows(t, c, "ip address", []console.Condition{{Name: "interface", Test: "=", Value: "ether2"}}, "address"))
	_, err = c.Do("ip address", "set", nil, console.Argument{Name: ".id", Value: first.String()}, console.Argument{Name: "comment", Value: "a \"b\" = c"})
	require.NoError(t, err)
	_, err = c.Do("ip address", "remove", nil, console.Argument{Name: ".id", Value: second.String()})
	require.NoError(t, err)
	assert.Equal(t, []string{first.String() + " comment=a \"b\" = c"}, rows(t, c, "ip address", nil, "comment"))

	for path, want := range map[string]error{"ip foo": console.ErrNoSuchMenu, "ip": console.ErrNoSuchCommand} {
		require.ErrorIs(t, c.Query(path, nil, nil, nil), want, path)
	}
	_, err = c.Do("ip address", "remove", nil, console.Argument{Name: ".id", Value: "*FFFF"})
	require.ErrorIs(t, err, console.ErrNoSuchItem)
	_, err = c.Do("ip address", "add", nil, console.Argument{Name: "address", Value: "x"})
	require.ErrorContains(t, err, "invalid value for argument address")
	require.NotErrorIs(t, err, console.ErrNoSuchItem)
	require.ErrorContains(t, c.Query("panic", nil, nil, nil), "failure: panic: here", "the session goes on")
	_, err = c.Do("ip address", "add", nil, console.Argument{Name: "comment", Value: strings.Repeat("x", wire.MaxFrame)})
	require.ErrorIs(t, err, errTooLong)

	var said string
	out := func(s string) error { said += s; return nil }
	require.NoError(t, c.Execute("/system identity print", out))
	assert.Equal(t, "  name: postern\n", said)
	require.ErrorContains(t, c.Execute("/system foo", out), "bad command name foo")
	require.NoError(t, c.Close())
	require.NoError(t, <-ended)
}

// The types and numbers of values arrive.
func TestValues(t *testing.T) {
	for _, v := range []console.Value{
		console.MakeValue(console.Text, "a=b", 0), console.MakeValue(console.Boolean, "yes", 1), console.MakeValue(console.Bytes, "19.1MiB", 20000000),
		console.MakeValue(console.Duration, "1d2h", -5), console.MakeValue(console.Enumeration, "", 0),
	} {
		here, there := pair(t)
		s := server{conn: there}
		want := console.Row{ID: 7, Pairs: []console.Pair{{Name: "x", Value: v}}}
		require.NoError(t, s.row(want))
		_, text, err := wire.Receive(here)
		require.NoError(t, err)
		got, err := decodeRow(service.NewDecoder([]byte(text)))
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
}

// A command that takes long writes while it works, and ends when the client leaves.
func TestLongCommands(t *testing.T) {
	stopped := make(chan struct{})
	c, ended := newClient(t, func(ctx context.Context, r console.Result, out io.Writer) error {
		switch {
		case r.Request == console.Reboot:
			return errors.New("failure: not now")
		case r.Ping.Count == 1:
			_, err := io.WriteString(out, "one\n")
			return err
		}
		_, err := io.WriteString(out, "begun\n")
		<-ctx.Done()
		close(stopped)
		return err
	})
	var said string
	_, err := c.Do("", "ping", func(s string) error { said += s; return nil }, console.Argument{Name: "address", Value: "10.0.0.1"}, console.Argument{Name: "count", Value: "1"})
	require.NoError(t, err)
	assert.Equal(t, "one\n", said)
	_, err = c.Do("system", "reboot", nil)
	require.ErrorContains(t, err, "failure: not now")
	go func() {
		_, _ = c.Do("", "ping", func(string) error { return c.Close() }, console.Argument{Name: "address", Value: "10.0.0.1"})
	}()
	select {
	case <-stopped:
	case <-time.After(patience):
		require.Fail(t, "it goes on")
	}
	require.Error(t, <-ended)
}

// A request that ends its own login, after which nothing more is read, is answered all the same.
func TestAnswerBehindTheLogin(t *testing.T) {
	for name, want := range map[string]error{"done": nil, "refused": errors.New("failure: not now")} {
		here, there := pair(t)
		ended := make(chan error, 1)
		go func() {
			ended <- Serve(there, Handler{
				Do: func(string, string, []console.Argument) (console.Result, error) {
					return console.Result{Request: console.Import}, nil
				},
				Finish: func(ctx context.Context, _ console.Result, _ io.Writer) error {
					if err := there.(*net.UnixConn).CloseRead(); err != nil { // as login.Process does
						return err
					}
					<-ctx.Done()
					return want
				},
			})
		}()
		_, err := NewClient(here).Do("", "import", nil)
		if want == nil {
			require.NoError(t, err, name)
		} else {
			require.EqualError(t, err, want.Error(), name)
		}
		require.NoError(t, <-ended, name)
	}
}

// Whatever a client sends, Serve ends with an error or answers.
func FuzzServe(f *testing.F) {
	var e service.Encoder
	e.String("ip address")
	e.Uint(1)
	e.String("name")
	e.String("=")
	e.String("x")
	e.Strings([]string{"a"})
	f.Add(byte(askQuery), string(e.Bytes()))
	f.Add(byte(askDo), "\x02ip\x03add\x00")
	f.Add(byte(askExecute), "\x05/quit")
	f.Add(byte('?'), "")
	f.Fuzz(func(t *testing.T, kind byte, text string) {
		if len(text) > wire.MaxFrame {
			return
		}
		here, there := pair(t)
		done := make(chan error, 1)
		go func() {
			done <- Serve(there, Handler{
				Query:   func(string, []console.Condition, []string) ([]console.Row, error) { return make([]console.Row, 2), nil },
				Do:      func(string, string, []console.Argument) (console.Result, error) { return console.Result{Added: 1}, nil },
				Execute: func(string) (console.Result, error) { return console.Result{}, console.ErrNoSuchItem },
			})
		}()
		require.NoError(t, wire.Send(here, kind, text))
		answered := false
		for {
			kind, _, err := wire.Receive(here)
			if err != nil {
				break
			}
			if kind == sayDone || kind == sayError {
				answered = true
				break
			}
		}
		here.Close()
		assert.Equal(t, answered, <-done == nil)
	})
}
