package files

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strings"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/service"
)

const (
	// MaxName is the greatest length of a file's name in bytes, MaxFiles how many files there are in a list at most.
	MaxName  = 64
	MaxFiles = 64
	// MaxRead bounds what the client takes of one file.
	MaxRead = 1 << 20
	// MaxPiece is how much of an upload goes in one request.
	MaxPiece = wire.MaxFrame
)

// What the client sends.
const (
	askList   = 'L'
	askRead   = 'R'
	askCheck  = 'C'
	askCreate = 'W'
	askAppend = 'D'
	askCommit = 'E'
	askAbort  = 'A'
	askRemove = 'X'
	askRename = 'N'
)

// What PID 1 sends.
const (
	sayFile  = 'F'
	sayPiece = 'O'
	sayDone  = 'K'
	sayError = 'B'
)

// ErrNotThere is the error of a file that is not there.
var ErrNotThere = errors.New("no such file")

var errName = fmt.Errorf("failure: bad name of a file; expected 1..%d of a-z, A-Z, 0-9 and ._-+~@", MaxName)

// CheckName returns an error if a file cannot have that name.
func CheckName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-+~@"
	if name == "" || len(name) > MaxName || name == "." || name == ".." ||
		strings.ContainsFunc(name, func(r rune) bool { return !strings.ContainsRune(letters, r) }) {
		return errName
	}
	return nil
}

// File is a file, as a list has it.
type File struct {
	Name     string
	Size     int64
	Modified time.Time
	// ReadOnly says that the router makes the file when it is read.
	ReadOnly bool
}

// Upload is a file that is being written.
type Upload interface {
	// Write takes the next piece.
	io.Writer
	// Commit says that the file is whole. Abort gives it up; nothing comes of it then.
	Commit() error
	Abort()
}

// Handler is what PID 1 does for a client. An error is told to the client.
type Handler struct {
	List func() ([]File, error)
	Read func(name string) (content string, err error)
	// Check reports whether a file of that name may be written, and whether that is streamed: it goes to its place as it
	// comes, from its beginning to its end, and is not held.
	Check  func(name string) (streamed bool, err error)
	Create func(name string) (Upload, error)
	Remove func(name string) error
	// Rename gives a file another name, and replaces what has that.
	Rename func(from, to string) error
}

// known are the errors that a client can tell from others, by their numbers on the wire.
var known = wire.Refusals{ErrNotThere, console.ErrNotPermitted}

// Refused reports whether err says that a request was not carried out, and why. Then the session goes on.
func Refused(err error) bool {
	var remote *wire.Refusal
	return errors.As(err, &remote)
}

// Client is the end of a program. One goroutine uses it at a time; after an error that is not Refused it is of no use.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
}

// NewClient returns a client whose other end Serve has. Whoever closes conn aborts what is being uploaded.
func NewClient(conn net.Conn) *Client { return &Client{conn: conn, in: bufio.NewReader(conn)} }

// List lists the files.
func (c *Client) List() (all []File, err error) {
	err = c.ask(askList, "", func(kind byte, text string) error {
		if kind != sayFile || len(all) == MaxFiles {
			return wire.Unexpected(kind, text)
		}
		d := service.NewDecoder([]byte(text))
		f := File{Name: d.String(MaxName), Size: int64(d.Uint(1 << 40)), Modified: time.Unix(d.Int(), 0).UTC(), ReadOnly: d.Bool()}
		all = append(all, f)
		return cmp.Or(d.End(), CheckName(f.Name))
	})
	return all, err
}

// Read returns what is in a file: MaxRead bytes at most.
func (c *Client) Read(name string) (content []byte, err error) {
	err = c.ask(askRead, name, func(kind byte, text string) error {
		if kind != sayPiece || len(content)+len(text) > MaxRead {
			return wire.Unexpected(kind, text)
		}
		content = append(content, text...)
		return nil
	})
	return content, err
}

// Check reports whether a file of that name may be written, and whether it has to be written from its beginning to its end.
func (c *Client) Check(name string) (streamed bool, err error) {
	err = c.ask(askCheck, name, func(kind byte, text string) error {
		if kind != sayPiece {
			return wire.Unexpected(kind, text)
		}
		streamed = text != ""
		return nil
	})
	return streamed, err
}

// Create begins an upload, which takes the place of one that was not committed.
func (c *Client) Create(name string) error { return c.ask(askCreate, name, nil) }

// Append uploads the next piece: at most MaxPiece bytes.
func (c *Client) Append(piece []byte) error { return c.ask(askAppend, string(piece), nil) }

// Commit says that the upload is whole, and returns what came of it.
func (c *Client) Commit() error { return c.ask(askCommit, "", nil) }

// Abort gives the upload up.
func (c *Client) Abort() error { return c.ask(askAbort, "", nil) }

// Put uploads a file.
func (c *Client) Put(name string, content []byte) error {
	if err := c.Create(name); err != nil {
		return err
	}
	for len(content) > 0 {
		n := min(len(content), MaxPiece)
		if err := c.Append(content[:n]); err != nil {
			return err
		}
		content = content[n:]
	}
	return c.Commit()
}

// Remove removes a file, Rename gives it another name.
func (c *Client) Remove(name string) error { return c.ask(askRemove, name, nil) }

func (c *Client) Rename(from, to string) error { return c.ask(askRename, from+"/"+to, nil) }

// ask sends a request and reads what comes back.
func (c *Client) ask(what byte, body string, each func(kind byte, text string) error) error {
	if err := wire.Send(c.conn, what, body); err != nil {
		return err
	}
	for {
		kind, text, err := wire.Receive(c.in)
		switch {
		case err == io.EOF:
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		case kind == sayDone && text == "":
			return nil
		case kind == sayError:
			return known.Decode(text)
		case each == nil:
			return wire.Unexpected(kind, text)
		}
		if err := each(kind, text); err != nil {
			return err
		}
	}
}

// Serve serves a client until it closes conn, which Serve closes too. The error is one of conn, or says what the
// client sent that it must not.
func Serve(conn net.Conn, h Handler) error {
	defer conn.Close()
	s := server{conn: conn, handler: h}
	defer s.abort()
	in := bufio.NewReader(conn)
	for {
		kind, text, err := wire.Receive(in)
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = s.serve(kind, text)
		}
		if err != nil {
			return err
		}
	}
}

type server struct {
	conn    net.Conn
	handler Handler
	upload  Upload // nil if there is none
}

// errNoUpload is the error of a piece of nothing.
var errNoUpload = errors.New("failure: nothing is being uploaded")

func (s *server) abort() {
	if s.upload != nil {
		_ = wire.Guarded(func() error { s.upload.Abort(); return nil })
		s.upload = nil
	}
}

// serve serves a request. It returns an error of the socket, or that the request is none.
func (s *server) serve(kind byte, text string) error {
	var list []File
	var content string
	var run func() error
	switch kind {
	case askList, askCommit, askAbort:
		if text != "" {
			return wire.Unexpected(kind, text)
		}
	case askRead, askCheck, askCreate, askRemove:
		if err := CheckName(text); err != nil {
			return s.fail(err)
		}
	}
	switch kind {
	case askList:
		run = func() (err error) { list, err = s.handler.List(); return err }
	case askRead:
		run = func() (err error) { content, err = s.handler.Read(text); return err }
	case askCheck:
		run = func() error {
			streamed, err := s.handler.Check(text)
			if streamed {
				content = "streamed"
			}
			return err
		}
	case askCreate:
		s.abort()
		run = func() error {
			upload, err := s.handler.Create(text)
			if err == nil {
				s.upload = upload
			}
			return err
		}
	case askAppend:
		run = func() error {
			if s.upload == nil {
				return errNoUpload
			}
			_, err := s.upload.Write([]byte(text))
			if err != nil {
				s.abort()
			}
			return err
		}
	case askCommit:
		run = func() error {
			if s.upload == nil {
				return errNoUpload
			}
			upload := s.upload
			s.upload = nil
			return upload.Commit()
		}
	case askAbort:
		run = func() error { s.abort(); return nil }
	case askRemove:
		run = func() error { return s.handler.Remove(text) }
	case askRename:
		from, to, _ := strings.Cut(text, "/")
		if err := cmp.Or(CheckName(from), CheckName(to)); err != nil {
			return s.fail(err)
		}
		run = func() error { return s.handler.Rename(from, to) }
	default:
		return wire.Unexpected(kind, text)
	}
	if err := wire.Guarded(run); err != nil {
		return s.fail(err)
	}
	if len(content) > MaxRead {
		return s.fail(fmt.Errorf("failure: the file has %d bytes, and %d can be read", len(content), MaxRead))
	}
	for _, f := range list[:min(len(list), MaxFiles)] {
		var e service.Encoder
		e.String(f.Name)
		e.Uint(uint64(f.Size))
		e.Int(f.Modified.Unix())
		e.Bool(f.ReadOnly)
		if err := wire.Send(s.conn, sayFile, string(e.Bytes())); err != nil {
			return err
		}
	}
	for rest := content; len(rest) > 0; {
		n := min(len(rest), wire.MaxFrame)
		if err := wire.Send(s.conn, sayPiece, rest[:n]); err != nil {
			return err
		}
		rest = rest[n:]
	}
	if err := wire.Send(s.conn, sayDone, ""); err != nil {
		return err
	}
	if len(content) > wire.LongOutput || kind == askCommit {
		debug.FreeOSMemory() // as for a long output of the console
	}
	return nil
}

// fail sends an error.
func (s *server) fail(err error) error { return known.Send(s.conn, sayError, err) }
