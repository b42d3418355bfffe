package sftp

import (
	"bytes"
	"encoding/binary"
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
	"github.com/postern-router/postern/console/files"
)

// folder is what package files serves: kept files, export.rsc, which is made when it is read, *.img, which are streamed, and *.auto.rsc,
// which are used up.
type folder struct {
	content map[string]string
	refuses error // what comes of *.auto.rsc
	images  []string
	aborted int
}

func (f *folder) handler() files.Handler {
	return files.Handler{
		List: func() (all []files.File, err error) {
			all = append(all, files.File{Name: "export.rsc", Size: 6, ReadOnly: true, Modified: time.Unix(1_900_000_000, 0)})
			for name, text := range f.content {
				all = append(all, files.File{Name: name, Size: int64(len(text))})
			}
			return all, nil
		},
		Read: func(name string) (string, error) {
			if name == "export.rsc" {
				return "/user\n", nil
			}
			if text, ok := f.content[name]; ok {
				return text, nil
			}
			return "", files.ErrNotThere
		},
		Check: func(name string) (bool, error) {
			if name == "denied" {
				return false, console.ErrNotPermitted
			}
			return strings.HasSuffix(name, ".img"), nil
		},
		Create: func(name string) (files.Upload, error) { return &upload{f: f, name: name}, nil },
		Remove: func(name string) error { delete(f.content, name); return nil },
		Rename: func(from, to string) error {
			text := f.content[from]
			delete(f.content, from)
			return (&upload{f: f, name: to, Buffer: *bytes.NewBufferString(text)}).Commit()
		},
	}
}

type upload struct {
	f    *folder
	name string
	bytes.Buffer
}

func (u *upload) Write(p []byte) (int, error) {
	if strings.HasSuffix(u.name, ".img") && bytes.Contains(p, []byte("bad")) {
		return 0, errors.New("failure: not an image")
	}
	return u.Buffer.Write(p)
}

func (u *upload) Commit() error {
	switch {
	case strings.HasSuffix(u.name, ".auto.rsc"):
		return u.f.refuses
	case strings.HasSuffix(u.name, ".img"):
		u.f.images = append(u.f.images, u.String())
		return nil
	}
	u.f.content[u.name] = u.String()
	return nil
}

func (u *upload) Abort() { u.f.aborted++ }

// client is a client that knows what it does.
type client struct {
	*testing.T
	conn   net.Conn
	told   *bytes.Buffer
	memory *Memory
	served <-chan error
	last   uint32
}

func newClient(t *testing.T, f *folder) *client {
	near, far := net.Pipe()
	ours, theirs := net.Pipe()
	done := make(chan error, 1)
	c := &client{T: t, conn: near, told: &bytes.Buffer{}, memory: NewMemory(1 << 20), served: done}
	gone := make(chan error, 1)
	go func() { gone <- files.Serve(theirs, f.handler()) }()
	go func() {
		err := Serve(far, c.told, files.NewClient(ours), c.memory)
		far.Close()
		ours.Close()
		<-gone
		done <- err
	}()
	t.Cleanup(func() { near.Close() })
	require.NoError(t, near.SetDeadline(time.Now().Add(time.Minute)))
	c.send(append([]byte{fxpInit}, 0, 0, 0, 3))
	kind, body := c.receive()
	require.Equal(t, byte(fxpVersion), kind)
	require.Equal(t, uint32(version), body.uint32())
	assert.Equal(t, posixRename, body.string())
	return c
}

func (c *client) send(packet []byte) {
	c.Helper()
	_, err := c.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(packet))), packet...))
	require.NoError(c, err)
}

func (c *client) receive() (kind byte, body *reader) {
	c.Helper()
	packet, _, err := readPacket(c.conn, nil)
	require.NoError(c, err)
	return packet[0], &reader{rest: packet[1:]}
}

// ask sends a request, whose parts are numbers and texts, and returns the answer behind its id.
func (c *client) ask(kind byte, parts ...any) (byte, *reader) {
	c.Helper()
	c.last++
	w := newWriter(nil, kind, c.last)
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			w.uint32(uint32(p))
		case uint64:
			w.uint64(p)
		case string:
			w.string(p)
		}
	}
	c.send(w.finish()[4:])
	kind, body := c.receive()
	require.Equal(c, c.last, body.uint32())
	return kind, body
}

// status is the answer to a request that has no other.
func (c *client) status(kind byte, parts ...any) string {
	c.Helper()
	kind, body := c.ask(kind, parts...)
	require.Equal(c, byte(fxpStatus), kind)
	return fmt.Sprint(body.uint32(), " ", body.string())
}

// open opens a file and returns its handle.
func (c *client) open(name string, flags int) string {
	c.Helper()
	kind, body := c.ask(fxpOpen, name, flags, 0)
	if kind == fxpStatus {
		c.Fatalf("open %s: %d %s", name, body.uint32(), body.string())
	}
	return body.string()
}

func (c *client) read(handle string, offset uint64, length int) string {
	c.Helper()
	kind, body := c.ask(fxpRead, handle, offset, length)
	if kind == fxpStatus {
		return fmt.Sprint(body.uint32(), " ", body.string())
	}
	return body.string()
}

func (c *client) write(handle string, offset uint64, data string) string {
	c.Helper()
	return c.status(fxpWrite, handle, offset, data)
}

// end ends the session and returns what it kept in memory.
func (c *client) end() {
	c.Helper()
	c.conn.Close()
	require.NoError(c, <-c.served)
	assert.Equal(c, 1<<20, c.memory.left, "all memory is given back")
}

const writing = openWrite | openCreate | openTruncate

func TestReads(t *testing.T) {
	long := strings.Repeat("0123456789", 5000)
	f := &folder{content: map[string]string{"long.rsc": long}}
	c := newClient(t, f)
	_, body := c.ask(fxpRealpath, ".")
	assert.Equal(t, uint32(1), body.uint32())
	assert.Equal(t, "/", body.string())
	_, body = c.ask(fxpRealpath, "a/../../b")
	body.uint32()
	assert.Equal(t, "/b", body.string())
	_, body = c.ask(fxpOpendir, "/")
	folder := body.string()
	_, body = c.ask(fxpReaddir, folder)
	assert.Equal(t, uint32(3), body.uint32())
	var lines []string
	for range 3 {
		body.string()
		lines = append(lines, body.string())
		body.attributes()
	}
	assert.Equal(t, []string{"drwx------    1 router   router          0 Jan  1 00:00 .", "-r--------    1 router   router          6 Mar 17 17:46 export.rsc",
		"-rw-------    1 router   router      50000 Jan  1 00:00 long.rsc"}, lines)
	assert.False(t, body.bad)
	assert.Equal(t, "1 end of the list", c.status(fxpReaddir, folder))
	assert.Equal(t, "4 it is a folder", c.read(folder, 0, 1))
	assert.Equal(t, "0 ", c.status(fxpClose, folder))

	h := c.open("/long.rsc", openRead)
	assert.Equal(t, long[:maxData], c.read(h, 0, 1<<31), "at most so much at once")
	assert.Equal(t, long[maxData:], c.read(h, maxData, maxData))
	assert.Equal(t, "1 end of file", c.read(h, 50000, 1))
	assert.Equal(t, "1 end of file", c.read(h, 1<<64-1, 1<<31))
	assert.Equal(t, "3 the file was not opened to be written", c.write(h, 0, "x"))
	assert.Equal(t, "3 the file was not opened to be written", c.status(fxpFsetstat, h, attrSize, uint64(3)))
	f.content["long.rsc"] = "changed"
	assert.Equal(t, long[7:10], c.read(h, 7, 3), "as it was when it was opened")
	assert.Equal(t, "0 ", c.status(fxpClose, h))
	assert.Equal(t, "4 no such handle", c.read(h, 0, 1))
	assert.Equal(t, "2 no such file", c.status(fxpOpen, "gone", openRead, 0))
	assert.Equal(t, "2 no such file", c.status(fxpOpen, "d/gone", openRead, 0))
	assert.Equal(t, "4 it is a folder", c.status(fxpOpen, "", openRead, 0))
	assert.Equal(t, "8 the router has no such thing", c.status(fxpOpen, "export.rsc", 0, 0))
	assert.Equal(t, "3 the router makes this file: it cannot be written", c.status(fxpOpen, "export.rsc", openWrite, 0))
	assert.Equal(t, "4 it is no folder", c.status(fxpOpendir, "export.rsc"))
	kind, body := c.ask(fxpStat, "export.rsc")
	assert.Equal(t, byte(fxpAttrs), kind)
	size, has := body.attributes()
	assert.True(t, has && size == 6)
	assert.Equal(t, "2 no such file", c.status(fxpLstat, "gone"))
	assert.Equal(t, "0 ", c.status(fxpSetstat, "export.rsc", attrTimes, 1, 1))
	assert.Equal(t, "8 the router has no such thing", c.status(fxpReadlink, "export.rsc"))
	assert.Equal(t, "8 the router has no such thing", c.status(fxpExtended, "statvfs@openssh.com", "/"))
	assert.Equal(t, "8 the router has no such thing", c.status(77, "x"))
	c.end()
}

func TestWrites(t *testing.T) {
	f := &folder{content: map[string]string{}}
	c := newClient(t, f)
	for _, w := range []struct {
		name, before string
		flags        int
		do           func(h string)
		want         string
	}{
		{"in pieces", "", writing, func(h string) { c.write(h, 0, "ab"); c.write(h, 2, "cd") }, "abcd"},
		{"backwards", "", writing, func(h string) { c.write(h, 3, "d"); c.write(h, 0, "abc") }, "abcd"},
		{"a gap", "", writing, func(h string) { c.write(h, 2, "c") }, "\x00\x00c"},
		{"nothing", "", writing, func(string) {}, ""},
		{"over", "before", writing, func(h string) { c.write(h, 0, "x") }, "x"},
		{"into", "before", openWrite, func(h string) { c.write(h, 2, "X") }, "beXore"},
		{"behind", "before", openWrite | openAppend, func(h string) { c.write(h, 0, "X"); c.write(h, 0, "Y") }, "beforeXY"},
		{"shorter", "before", openWrite, func(h string) { assert.Equal(t, "0 ", c.status(fxpFsetstat, h, attrSize, uint64(2))) }, "be"},
		{"shorter and longer", "before", openWrite, func(h string) {
			c.status(fxpFsetstat, h, attrSize, uint64(1))
			c.status(fxpFsetstat, h, attrSize, uint64(4))
			c.write(h, 5, "x")
		}, "b\x00\x00\x00\x00x"},
		{"longer", "b", openWrite, func(h string) { c.status(fxpFsetstat, h, attrSize, uint64(2)) }, "b\x00"},
		{"times", "b", openWrite, func(h string) { assert.Equal(t, "0 ", c.status(fxpFsetstat, h, attrTimes, 1, 1)) }, "b"},
		{"read too", "ab", openRead | openWrite, func(h string) { c.write(h, 2, "c"); assert.Equal(t, "abc", c.read(h, 0, 9)) }, "abc"},
	} {
		t.Run(w.name, func(t *testing.T) {
			delete(f.content, "a")
			if w.before != "" {
				f.content["a"] = w.before
			}
			h := c.open("a", w.flags)
			w.do(h)
			if w.before == "" {
				assert.NotContains(t, f.content, "a", "not before it is closed")
			}
			assert.Equal(t, "0 ", c.status(fxpClose, h))
			assert.Equal(t, w.want, f.content["a"])
		})
	}
	assert.Equal(t, "4 a file of that name is there already", c.status(fxpOpen, "a", writing|openNew, 0))
	assert.Equal(t, "2 no such file", c.status(fxpOpen, "b", openWrite, 0))
	assert.Equal(t, "3 not enough permissions (9)", c.status(fxpOpen, "denied", writing, 0))
	assert.Equal(t, "3 the router has no folders", c.status(fxpOpen, "d/b", writing, 0))
	assert.Equal(t, "3 the router has no folders", c.status(fxpMkdir, "d", 0))
	assert.Contains(t, c.status(fxpOpen, "b c", writing, 0), "4 failure: bad name of a file")
	assert.Contains(t, c.told.String(), "not enough permissions (9)\r\n", "OpenSSH does not show it")
	assert.NotContains(t, c.told.String(), "no such file")

	f.content["b"] = "b"
	assert.Equal(t, "4 a file of that name is there already", c.status(fxpRename, "a", "b"))
	assert.Equal(t, "0 ", c.status(fxpExtended, posixRename, "a", "/b"))
	assert.Equal(t, map[string]string{"b": "ab" + "c"}, f.content)
	assert.Equal(t, "3 the router makes this file: it cannot be written", c.status(fxpExtended, posixRename, "b", "export.rsc"))
	assert.Equal(t, "3 the router makes this file: it cannot be written", c.status(fxpRemove, "export.rsc"))
	assert.Equal(t, "2 no such file", c.status(fxpRemove, "a"))
	assert.Equal(t, "4 it is a folder", c.status(fxpRemove, "/"))
	assert.Equal(t, "0 ", c.status(fxpRemove, "b"))

	h := c.open("cut", writing)
	c.write(h, 0, "x")
	_, body := c.ask(fxpLstat, "/cut")
	size, has := body.attributes()
	assert.True(t, has && size == 1, "who has opened it finds it, as SSHFS wants")
	assert.Equal(t, "2 no such file", c.status(fxpRemove, "cut"), "but it is not there yet")
	c.end()
	assert.Empty(t, f.content, "who breaks off has written nothing")
}

// What is imported is used up. The client that looks at it afterwards, to set its times or its name, finds it.
func TestTaken(t *testing.T) {
	f := &folder{content: map[string]string{}}
	c := newClient(t, f)
	h := c.open("x.auto.rsc", writing)
	c.write(h, 0, "lines")
	assert.Equal(t, "0 ", c.status(fxpClose, h))
	_, body := c.ask(fxpStat, "x.auto.rsc")
	size, _ := body.attributes()
	assert.Equal(t, uint64(5), size)
	assert.Equal(t, "0 ", c.status(fxpSetstat, "x.auto.rsc", 0))
	assert.Equal(t, "0 ", c.status(fxpRename, "x.auto.rsc", "y"))
	assert.Equal(t, "2 no such file", c.status(fxpStat, "x.auto.rsc"))
	assert.Equal(t, "0 ", c.status(fxpRemove, "y"))
	assert.Equal(t, "2 no such file", c.status(fxpStat, "y"))
	for i := range 10 * maxTaken {
		h := c.open(fmt.Sprint(i, ".auto.rsc"), writing)
		assert.Equal(t, "0 ", c.status(fxpClose, h))
	}
	_, body = c.ask(fxpOpendir, "/")
	_, body = c.ask(fxpReaddir, body.string())
	assert.LessOrEqual(t, body.uint32(), uint32(2+maxTaken))

	f.refuses = errors.New("failure: wrong (line 3)\x1b[2J")
	f.content["tmp"] = "x"
	h = c.open("x.auto.rsc", writing)
	assert.Equal(t, `4 failure: wrong (line 3)\1B[2J`, c.status(fxpClose, h))
	assert.Equal(t, `2 failure: wrong (line 3)\1B[2J`, c.status(fxpStat, "x.auto.rsc"), "paramiko asks so what came of it")
	assert.Contains(t, c.status(fxpRename, "tmp", "x.auto.rsc"), "wrong (line 3)")
	c.end()
}

// An image goes to its place as it comes.
func TestStreamed(t *testing.T) {
	f := &folder{content: map[string]string{}}
	c := newClient(t, f)
	image := strings.Repeat("0123456789abcdef", 100_000)
	h := c.open("new.img", writing)
	assert.Equal(t, "4 failure: an image is being written: one at a time", c.status(fxpOpen, "other.img", writing, 0))
	const piece = 36<<10 - 100
	for at := 0; at < len(image); at += piece {
		require.Equal(t, "0 ", c.write(h, uint64(at), image[at:min(at+piece, len(image))]))
	}
	assert.Equal(t, "3 the file was not opened to be read", c.read(h, 0, 1))
	assert.Equal(t, "0 ", c.status(fxpClose, h))
	assert.Equal(t, []string{image}, f.images)
	_, body := c.ask(fxpStat, "new.img")
	size, _ := body.attributes()
	assert.Equal(t, uint64(len(image)), size)

	h = c.open("new.img", writing)
	c.write(h, 0, "abc")
	assert.Equal(t, "4 failure: an image is written from its beginning to its end, without a gap", c.write(h, 4, "e"))
	assert.Equal(t, "4 failure: an image is written from its beginning to its end, without a gap", c.write(h, 3, "d"), "it is lost")
	assert.Equal(t, "4 failure: an image is written from its beginning to its end, without a gap", c.status(fxpClose, h))
	h = c.open("new.img", writing)
	assert.Equal(t, "4 failure: not an image", c.write(h, 0, "bad"))
	assert.Equal(t, "4 failure: not an image", c.status(fxpClose, h))
	h = c.open("new.img", writing)
	other := c.open("kept", writing)
	assert.Equal(t, "4 failure: an image is being written: one at a time", c.status(fxpClose, other))
	c.write(h, 0, "half")
	c.end()
	assert.Len(t, f.images, 1)
	assert.Equal(t, 3, f.aborted)
}

// A client that opens, writes and asks as much as it likes.
func TestBounds(t *testing.T) {
	f := &folder{content: map[string]string{}}
	c := newClient(t, f)
	h := c.open("a", writing)
	assert.Contains(t, c.write(h, console.MaxImport, "x"), "4 failure: a file is longer than 262144 bytes")
	assert.Contains(t, c.write(h, 0, "x"), "4 failure: a file is longer than", "what was refused once is not whole")
	c.status(fxpClose, h)
	h = c.open("a", writing)
	assert.Contains(t, c.write(h, 1<<64-1, "xyz"), "4 failure: a file is longer than")
	c.status(fxpClose, h)
	full := 0
	for i := range 1000 {
		kind, body := c.ask(fxpOpen, fmt.Sprint("f", i), writing, 0)
		if kind == fxpStatus {
			assert.Equal(t, uint32(statusFailure), body.uint32())
			assert.Equal(t, "16 files are open, and there can be no more", body.string())
			continue
		}
		h := body.string()
		if c.write(h, console.MaxImport-1, "x") == "4 "+errFull.text {
			full++
		}
		c.status(fxpFsetstat, h, attrSize, uint64(0)) // which leaves the memory with the file
	}
	assert.Equal(t, maxHandles-4, full, "four of 256 KiB are 1 MiB")
	assert.LessOrEqual(t, c.told.Len(), maxTold)
	c.end()

	for name, packet := range map[string][]byte{
		"4 GiB":             {0xff, 0xff, 0xff, 0xff},
		"more than a piece": {0, 0, 0x90, 1},
		"nothing":           {0, 0, 0, 0},
		"no id":             {0, 0, 0, 1, fxpOpen},
		"another beginning": {0, 0, 0, 5, fxpInit, 0, 0, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, f)
			_, err := c.conn.Write(packet)
			require.NoError(t, err)
			require.ErrorIs(t, <-c.served, errPacket)
		})
	}
	t.Run("cut off", func(t *testing.T) {
		c := newClient(t, f)
		_, err := c.conn.Write([]byte{0, 0, 0, 9, fxpOpen})
		require.NoError(t, err)
		c.conn.Close()
		require.ErrorIs(t, <-c.served, io.ErrUnexpectedEOF)
	})
	t.Run("strings that are longer than their packet", func(t *testing.T) {
		c := newClient(t, f)
		for kind := byte(fxpOpen); kind <= fxpRename; kind++ {
			if kind != fxpMkdir && kind != fxpRmdir { // which are refused whatever they say
				assert.Equal(t, "5 the request is not whole", c.status(kind, 1<<31), kind)
			}
		}
	})
	t.Run("nobody answers for the files", func(t *testing.T) {
		near, far := net.Pipe()
		ours, theirs := net.Pipe()
		theirs.Close()
		done := make(chan error, 1)
		go func() { done <- Serve(far, io.Discard, files.NewClient(ours), NewMemory(1)) }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_, err := near.Write([]byte{0, 0, 0, 5, fxpInit, 0, 0, 0, 3, 0, 0, 0, 10, fxpStat, 0, 0, 0, 1, 0, 0, 0, 1, 'a'})
		require.NoError(t, err)
		require.Error(t, <-done)
	})
}

// Whatever a client sends, the session ends without a panic and gives back what it held, and each answer is a packet.
func FuzzServe(f *testing.F) {
	begin := []byte{0, 0, 0, 5, fxpInit, 0, 0, 0, 3}
	session := func(packets ...*writer) {
		all := bytes.Clone(begin)
		for _, w := range packets {
			all = append(all, w.finish()...)
		}
		f.Add(all)
	}
	packet := func(kind byte, parts ...any) *writer {
		w := newWriter(nil, kind, 1)
		for _, p := range parts {
			switch p := p.(type) {
			case int:
				w.uint32(uint32(p))
			case uint64:
				w.uint64(p)
			case string:
				w.string(p)
			}
		}
		return w
	}
	session()
	session(packet(fxpOpen, "a", writing, attrPermissions, 0o600), packet(fxpWrite, "1", uint64(3), "x"), packet(fxpFsetstat, "1", attrSize, uint64(2)), packet(fxpClose, "1"), packet(fxpStat, "a"))
	session(packet(fxpOpen, "x.img", writing, 0), packet(fxpWrite, "1", uint64(0), "x"), packet(fxpWrite, "1", uint64(0), "x"), packet(fxpClose, "1"))
	session(packet(fxpOpendir, "/"), packet(fxpReaddir, "1"), packet(fxpReaddir, "1"), packet(fxpClose, "1"))
	session(packet(fxpOpen, "export.rsc", openRead, 0), packet(fxpRead, "1", uint64(2), 99), packet(fxpFstat, "1"))
	session(packet(fxpRename, "k", "l"), packet(fxpExtended, posixRename, "l", "m.auto.rsc"), packet(fxpRemove, "m.auto.rsc"), packet(fxpRealpath, "../x"))
	session(packet(fxpSetstat, "k", 1<<31, 2, "a", "b"), packet(fxpMkdir, "d", 0), packet(fxpReadlink, "k"), packet(fxpExtended, "fsync@openssh.com", "1"))
	f.Fuzz(func(t *testing.T, in []byte) {
		store := &folder{content: map[string]string{"k": "kept"}}
		ours, theirs := net.Pipe()
		served := make(chan error, 1)
		go func() { served <- files.Serve(theirs, store.handler()) }()
		memory := NewMemory(1 << 20)
		var out bytes.Buffer
		_ = Serve(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), &out}, io.Discard, files.NewClient(ours), memory)
		ours.Close()
		<-served
		assert.Equal(t, 1<<20, memory.left)
		for {
			if _, _, err := readPacket(&out, nil); err != nil {
				assert.ErrorIs(t, err, io.EOF)
				break
			}
		}
	})
}
