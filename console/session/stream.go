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

// maxStreamLine is the length in bytes at which a line of a stream is cut.
const maxStreamLine = 512

// stream has the handler carry out a Result, and shows what it writes until it is done. A key
// or the end of the session interrupts it. stream returns an error of the connection; an
// error of the handler is shown to the user.
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
		// This ends the wait for a key.
		_ = s.conn.SetReadDeadline(time.Unix(1, 0))
		done <- err
	}()
	// Only the wait for the first byte of a frame has a deadline, so no frame is cut.
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
		return s.send(wire.Output, console.ErrorText(err))
	}
	return nil
}

// stream calls Stream and makes an error of its panic, which Serve cannot recover from: it is
// another goroutine.
func (h Handler) stream(ctx context.Context, result console.Result, out *streamWriter) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = errors.New("failure: panic" + panicPlace())
		}
	}()
	return h.Stream(ctx, result, out)
}

// streamWriter shows lines. They come from a process that reads from the network, so control
// characters are escaped.
type streamWriter struct {
	server *server
	line   []byte // has no end yet
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

// end shows the line that has ended.
func (w *streamWriter) end() error {
	text := console.Printable(string(w.line)) + "\n"
	w.line = w.line[:0]
	return w.server.send(wire.Output, text)
}

// flush shows a last line without an end.
func (w *streamWriter) flush() error {
	if len(w.line) == 0 {
		return nil
	}
	return w.end()
}
