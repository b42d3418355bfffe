package program

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
	"github.com/postern-router/postern/service"
)

// What the client sends.
const (
	askQuery   = 'Q'
	askDo      = 'D'
	askExecute = 'L'
)

// What PID 1 sends.
const (
	sayRow   = 'R'
	sayText  = 'O'
	sayDone  = 'K'
	sayError = 'E'
)

const (
	// maxConditions, maxNames and maxArguments bound the lists of a request.
	maxConditions = 256
	maxNames      = 256
	maxArguments  = 256
	// maxPairs bounds the properties of a row.
	maxPairs = 256
)

// errTooLong is the error of a request that does not fit into a frame.
var errTooLong = errors.New("failure: the command is too long")

// known are the errors that a client can tell from others, by their numbers on the wire.
var known = wire.Refusals{console.ErrNoSuchMenu, console.ErrNoSuchCommand, console.ErrNoSuchItem, console.ErrNotPermitted}

// Refused reports whether err says that a request was not carried out, and why. Then the session goes on.
func Refused(err error) bool {
	var remote *wire.Refusal
	return errors.As(err, &remote) || errors.Is(err, errTooLong)
}

// Client is the end of a program. One goroutine uses it at a time; after an error that is none of PID 1's (Refused)
// it is of no use.
type Client struct {
	conn net.Conn
	in   *bufio.Reader
}

// NewClient returns a client whose other end Serve has.
func NewClient(conn net.Conn) *Client { return &Client{conn: conn, in: bufio.NewReader(conn)} }

// Close ends the session, and what a command of it still does.
func (c *Client) Close() error { return c.conn.Close() }

// Query is console.Query: it calls each with every row. If that returns an error, Query returns the same, and the
// session is of no use any more.
func (c *Client) Query(path string, where []console.Condition, proplist []string, each func(console.Row) error) error {
	var e service.Encoder
	e.String(path)
	e.Uint(uint64(len(where)))
	for _, w := range where {
		e.String(w.Name)
		e.String(w.Test)
		e.String(w.Value)
	}
	e.Strings(proplist)
	_, err := c.ask(askQuery, e, each, nil)
	return err
}

// Do is console.Do. It returns the ID of the item that was added, 0 if none was. Text that the command writes while it
// works, as ping does, goes to out, which may be nil. A command that asks a person for confirmation (as
// reboot does) does not ask a program.
func (c *Client) Do(path, command string, out func(string) error, arguments ...console.Argument) (added console.ID, err error) {
	var e service.Encoder
	e.String(path)
	e.String(command)
	e.Uint(uint64(len(arguments)))
	for _, a := range arguments {
		e.String(a.Name)
		e.String(a.Value)
	}
	return c.ask(askDo, e, nil, out)
}

// Execute runs a line as if it had been typed on a screen of 80 columns, and gives out what it says. A line that asks to be
// repeated runs once.
func (c *Client) Execute(line string, out func(string) error) error {
	var e service.Encoder
	e.String(line)
	_, err := c.ask(askExecute, e, nil, out)
	return err
}

// ask sends a request and reads what comes back.
func (c *Client) ask(what byte, e service.Encoder, row func(console.Row) error, out func(string) error) (console.ID, error) {
	if len(e.Bytes()) > wire.MaxFrame {
		return 0, errTooLong
	}
	if err := wire.Send(c.conn, what, string(e.Bytes())); err != nil {
		return 0, err
	}
	for {
		kind, text, err := wire.Receive(c.in)
		if err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
		d := service.NewDecoder([]byte(text))
		switch {
		case kind == sayRow && row != nil:
			r, err := decodeRow(d)
			if err == nil {
				err = row(r)
			}
			if err != nil {
				return 0, err
			}
			continue
		case kind == sayText:
			if out != nil {
				if err := out(text); err != nil {
					return 0, err
				}
			}
			continue
		case kind == sayDone:
			id := console.ID(d.Uint(1<<32 - 1))
			if err := d.End(); err != nil {
				return 0, err
			}
			return id, nil
		case kind == sayError:
			return 0, known.Decode(text)
		}
		return 0, wire.Unexpected(kind, text)
	}
}

// Handler is what PID 1 does for a program.
type Handler struct {
	Query   func(path string, where []console.Condition, proplist []string) ([]console.Row, error)
	Do      func(path, command string, arguments []console.Argument) (console.Result, error)
	Execute func(line string) (console.Result, error)
	// Finish carries out what a Result asks for (Result.Request), and writes what there is to say to out.
	Finish func(ctx context.Context, r console.Result, out io.Writer) error
}

// Serve serves a program until it closes conn, which Serve closes too. The error is one of conn, or
// says what the program sent that it must not.
func Serve(conn net.Conn, h Handler) error {
	defer conn.Close()
	s := server{conn: conn, in: bufio.NewReader(conn), handler: h}
	for {
		kind, text, err := wire.Receive(s.in)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.serve(kind, text); err != nil {
			return err
		}
	}
}

type server struct {
	conn    net.Conn
	in      *bufio.Reader
	handler Handler
}

// serve serves a request. It returns an error of the socket, or that the request is none.
func (s *server) serve(kind byte, text string) error {
	d := service.NewDecoder([]byte(text))
	var result console.Result
	var rows []console.Row
	var run func() error
	switch kind {
	case askQuery:
		path := d.String(wire.MaxFrame)
		var where []console.Condition
		for range d.Count(maxConditions) {
			where = append(where, console.Condition{Name: d.String(wire.MaxFrame), Test: d.String(wire.MaxFrame), Value: d.String(wire.MaxFrame)})
		}
		proplist := d.Strings(maxNames, wire.MaxFrame)
		run = func() (err error) { rows, err = s.handler.Query(path, where, proplist); return err }
	case askDo:
		path, command := d.String(wire.MaxFrame), d.String(wire.MaxFrame)
		var arguments []console.Argument
		for range d.Count(maxArguments) {
			arguments = append(arguments, console.Argument{Name: d.String(wire.MaxFrame), Value: d.String(wire.MaxFrame)})
		}
		run = func() (err error) { result, err = s.handler.Do(path, command, arguments); return err }
	case askExecute:
		line := d.String(wire.MaxFrame)
		run = func() (err error) { result, err = s.handler.Execute(line); return err }
	default:
		return wire.Unexpected(kind, text)
	}
	if err := d.End(); err != nil {
		return err
	}
	if err := wire.Guarded(run); err != nil {
		return s.fail(err)
	}
	for _, r := range rows {
		if err := s.row(r); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(textWriter{s.conn}, result.Output); err != nil {
		return err
	}
	if result.Request != console.None {
		refused, err := s.finish(result)
		if err != nil {
			return err
		}
		if refused != nil {
			return s.fail(refused)
		}
	}
	var e service.Encoder
	e.Uint(uint64(result.Added))
	return wire.Send(s.conn, sayDone, string(e.Bytes()))
}

// fail sends an error.
func (s *server) fail(err error) error { return known.Send(s.conn, sayError, err) }

// finish carries out what a Result asks for, until it is done or the client closes the socket. refused is the
// handler's error, err one of the socket.
func (s *server) finish(result console.Result) (refused, err error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		err := wire.Guarded(func() error { return s.handler.Finish(ctx, result, textWriter{s.conn}) })
		// This ends the wait below.
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		done <- err
	}()
	// The client sends nothing now: it can only close its end.
	_, readErr := s.in.Peek(1)
	cancel()
	refused = <-done
	switch {
	case readErr == nil:
		return nil, errors.New("a request before the reply to the last")
	case readErr != io.EOF && !errors.Is(readErr, os.ErrDeadlineExceeded):
		return nil, readErr
	}
	// At the end of what the client sends it may still read: a request that ends its own login, as a new password does for a program of REST,
	// is answered.
	return refused, s.conn.SetReadDeadline(time.Time{})
}

// textWriter sends text.
type textWriter struct{ conn net.Conn }

func (w textWriter) Write(p []byte) (int, error) {
	for n := 0; n < len(p); {
		piece := p[n:min(n+wire.MaxFrame, len(p))]
		if err := wire.Send(w.conn, sayText, string(piece)); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return len(p), nil
}

// row sends a row. One that is longer than a frame, which no menu has, is an error.
func (s *server) row(r console.Row) error {
	var e service.Encoder
	e.Uint(uint64(r.ID))
	e.Uint(uint64(len(r.Pairs)))
	for _, p := range r.Pairs {
		e.String(p.Name)
		e.Uint(uint64(p.Value.Type))
		e.String(p.Value.String())
		e.Int(p.Value.Number())
	}
	if len(e.Bytes()) > wire.MaxFrame {
		return fmt.Errorf("a row of %d bytes, more than %d", len(e.Bytes()), wire.MaxFrame)
	}
	return wire.Send(s.conn, sayRow, string(e.Bytes()))
}

func decodeRow(d *service.Decoder) (console.Row, error) {
	r := console.Row{ID: console.ID(d.Uint(1<<32 - 1))}
	for range d.Count(maxPairs) {
		name := d.String(wire.MaxFrame)
		typ := console.Type(d.Uint(uint64(console.Enumeration)))
		text := d.String(wire.MaxFrame)
		r.Pairs = append(r.Pairs, console.Pair{Name: name, Value: console.MakeValue(typ, text, d.Int())})
	}
	return r, d.End()
}
