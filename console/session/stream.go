package session

import (
	"bytes"
	"context"
	"errors"
	"os"
	"time"

	"github.com/postern-router/postern/console"
	"github.com/postern-router/postern/console/internal/wire"
)

// maxStreamLine is where a line of a stream is cut, in bytes.
const maxStreamLine = 512

// stream lets the handler do what a Result asks for, and shows what it writes until
// it is done. A key interrupts it, and so does the end of the session. It returns the
// error of the connection; that of the handler is shown.
func (s *server) stream(result console.Result) error {
	if err := s.send(wire.Follow, ""); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		out := streamWriter{server: s}
		err := s.handler.stream(ctx, result, &out)
		if err == nil {
			err = out.flush()
		}
		// It ends the wait for a key.
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		done <- err
	}()
	// The deadline is that of a frame's beginning: none is torn.
	_, readErr := s.in.Peek(1)
	cancel()
	err := <-done
	ended := errors.Is(readErr, os.ErrDeadlineExceeded)
	if readErr != nil && !ended {
		return readErr
	}
	if e := s.conn.SetReadDeadline(time.Time{}); e != nil {
		return e
	}
	if !ended {
		kind, text, e := wire.Receive(s.in)
		if e == nil && (kind != wire.Interrupt || text != "") {
			e = wire.Unexpected(kind, text)
		}
		if e != nil {
			return e
		}
	}
	if err != nil {
		return s.send(wire.Output, err.Error()+"\n")
	}
	return nil
}

// stream is Stream, whose panic is an error: it is not the goroutine of Serve.
func (h Handler) stream(ctx context.Context, result console.Result, out *streamWriter) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("failure: panic" + panicPlace())
		}
	}()
	return h.Stream(ctx, result, out)
}

// streamWriter shows lines. They come from a process that the network has talked to:
// what could move a terminal's cursor is shown as such.
type streamWriter struct {
	server *server
	line   []byte // what has no end yet
}

func (w *streamWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		w.line = append(w.line, part[:min(len(part), maxStreamLine-len(w.line))]...)
		if rest = after; !ended {
			break
		}
		if err := w.end(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// end shows a line.
func (w *streamWriter) end() error {
	text := console.Printable(string(w.line)) + "\n"
	w.line = w.line[:0]
	return w.server.send(wire.Output, text)
}

// flush shows what has no end.
func (w *streamWriter) flush() error {
	if len(w.line) == 0 {
		return nil
	}
	return w.end()
}
