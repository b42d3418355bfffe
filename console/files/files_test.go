package files

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// folder is a Handler's folder.
type folder struct {
	content map[string]string
	// aborted counts the uploads that were given up.
	aborted int
	fails   error
}

type upload struct {
	to   *folder
	name string
	bytes.Buffer
}

func (u *upload) Commit() error { u.to.content[u.name] = u.String(); return u.to.fails }
func (u *upload) Abort()        { u.to.aborted++ }

func (f *folder) handler() Handler {
	return Handler{
		List: func() (all []File, err error) {
			for name, text := range f.content {
				all = append(all, File{Name: name, Size: int64(len(text)), Modified: time.Unix(7, 0).UTC(), ReadOnly: name == "ro"})
			}
			return all, f.fails
		},
		Read: func(name string) (string, error) {
			text, ok := f.content[name]
			if !ok {
				return "", fmt.Errorf("read: %w", ErrNotThere)
			}
			return text, nil
		},
		Check: func(name string) (bool, error) {
			if name == "ro" {
				return false, console.ErrNotPermitted
			}
			return strings.HasSuffix(name, ".img"), nil
		},
		Create: func(name string) (Upload, error) { return &upload{to: f, name: name}, nil },
		Remove: func(name string) error { delete(f.content, name); return nil },
		Rename: func(from, to string) error {
			f.content[to] = f.content[from]
			delete(f.content, from)
			if to == "panic" {
				panic("in the handler")
			}
			return nil
		},
	}
}

// serve returns the client of a session, and what Serve will return.
func serve(t *testing.T, h Handler) (*Client, net.Conn, <-chan error) {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close() })
	done := make(chan error, 1)
	go func() { done <- Serve(far, h) }()
	return NewClient(near), near, done
}

func TestSession(t *testing.T) {
	f := &folder{content: map[string]string{"ro": "x"}}
	c, conn, done := serve(t, f.handler())
	all, err := c.List()
	require.NoError(t, err)
	assert.Equal(t, []File{{"ro", 1, time.Unix(7, 0).UTC(), true}}, all)
	long := strings.Repeat("0123456789", 20_000)
	require.NoError(t, c.Put("a.rsc", []byte(long)))
	got, err := c.Read("a.rsc")
	require.NoError(t, err)
	assert.Equal(t, long, string(got))
	_, err = c.Read("b")
	require.ErrorIs(t, err, ErrNotThere)
	require.EqualError(t, err, "read: no such file")
	assert.True(t, Refused(err))
	streamed, err := c.Check("b.img")
	require.NoError(t, err)
	assert.True(t, streamed)
	streamed, err = c.Check("b")
	require.NoError(t, err)
	assert.False(t, streamed)
	_, err = c.Check("ro")
	require.ErrorIs(t, err, console.ErrNotPermitted)
	require.NoError(t, c.Rename("a.rsc", "c.rsc"))
	require.NoError(t, c.Remove("ro"))
	assert.Len(t, f.content, 1)
	require.ErrorContains(t, c.Rename("c.rsc", "panic"), "failure: panic: in the handler")
	for _, name := range []string{"", ".", "..", "a/b", "/a", "a b", "a\x00", "ä", `a"`, strings.Repeat("x", MaxName+1)} {
		_, err := c.Read(name)
		require.ErrorContains(t, err, "bad name of a file", name)
	}
	require.ErrorContains(t, c.Append([]byte("x")), "nothing is being uploaded")
	require.ErrorContains(t, c.Commit(), "nothing is being uploaded")
	f.fails = errors.New("no room")
	require.ErrorContains(t, c.Put("d", nil), "no room")
	conn.Close()
	require.NoError(t, <-done)
}

// What is not committed is aborted: by another upload, by the client, by its end.
func TestAborted(t *testing.T) {
	f := &folder{content: map[string]string{}}
	c, conn, done := serve(t, f.handler())
	require.NoError(t, c.Create("a"))
	require.NoError(t, c.Append([]byte("x")))
	_, err := c.Read("none")
	require.ErrorIs(t, err, ErrNotThere, "which is no matter to the upload")
	require.NoError(t, c.Append([]byte("y")))
	require.NoError(t, c.Create("b"))
	require.NoError(t, c.Abort())
	require.NoError(t, c.Abort())
	require.NoError(t, c.Create("c"))
	conn.Close()
	require.NoError(t, <-done)
	assert.Equal(t, 3, f.aborted)
	assert.Empty(t, f.content)
}

// Whatever a client sends, the session ends without a panic, and no more of it stays than its upload.
func FuzzServe(f *testing.F) {
	for _, in := range []string{"", "L\x00\x00\x00\x00", "R\x00\x00\x00\x01a", "W\x00\x00\x00\x01aD\x00\x00\x00\x02xyE\x00\x00\x00\x00", "W\x00\x00\x00\x01aA\x00\x00\x00\x00",
		"N\x00\x00\x00\x03a/b", "N\x00\x00\x00\x01a", "X\x00\x00\x00\x01a", "C\x00\x00\x00\x05a.img", "E\x00\x00\x00\x00", "L\xff\xff\xff\xff", "?\x00\x00\x00\x00", "L\x00\x00\x00\x01x"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		store := &folder{content: map[string]string{"a": "x"}}
		near, far := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- Serve(far, store.handler()) }()
		go func() { _, _ = near.Write(in); near.Close() }()
		_, _ = io.Copy(io.Discard, near)
		<-done
		for name := range store.content {
			assert.NoError(t, CheckName(name))
		}
	})
}

// Whatever PID 1 sends, the client takes a bounded amount of it and returns an error.
func FuzzClient(f *testing.F) {
	for _, in := range []string{"", "K\x00\x00\x00\x00", "B\x00\x00\x00\x03\x01\x01x", "F\x00\x00\x00\x05\x01a\x01\x0e\x00K\x00\x00\x00\x00", "O\x00\x00\x00\x01xK\x00\x00\x00\x00", "B\x00\x00\x00\x01\x09"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, ask := range []func(*Client) error{
			func(c *Client) error { _, err := c.List(); return err },
			func(c *Client) error { _, err := c.Read("a"); return err },
			func(c *Client) error { return c.Commit() },
		} {
			near, far := net.Pipe()
			go func() { _, _, _ = wire.Receive(far); _, _ = far.Write(in); far.Close() }()
			_ = ask(NewClient(near))
			near.Close()
		}
	})
}
