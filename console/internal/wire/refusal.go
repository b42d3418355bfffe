package wire

import (
	"errors"
	"fmt"
	"io"

	"github.com/postern-router/postern/service"
)

// Refusal is an error of PID 1's that has reached the other process: the request was not carried out, and the session goes on.
type Refusal struct {
	text string
	is   error
}

func (e *Refusal) Error() string { return e.text }
func (e *Refusal) Unwrap() error { return e.is }

// Refusals are the errors that the other process can tell from others by errors.Is. Both ends have the same ones, in the same order.
type Refusals []error

// Send sends an error as a frame of that kind.
func (known Refusals) Send(w io.Writer, kind byte, err error) error {
	var e service.Encoder
	is := 0 // none of them
	for i, k := range known {
		if errors.Is(err, k) {
			is = i + 1
		}
	}
	text := err.Error()
	e.Uint(uint64(is))
	e.String(text[:min(len(text), MaxFrame/2)])
	return Send(w, kind, string(e.Bytes()))
}

// Decode parses the text of such a frame. It returns a *Refusal, or another error if it is none.
func (known Refusals) Decode(text string) error {
	d := service.NewDecoder([]byte(text))
	is := d.Uint(uint64(len(known)))
	r := &Refusal{text: d.String(MaxFrame)}
	if err := d.End(); err != nil {
		return err
	}
	if is > 0 {
		r.is = known[is-1]
	}
	return r
}

// Guarded makes an error of a panic: PID 1 goes on.
func Guarded(run func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("failure: panic: %v", p)
		}
	}()
	return run()
}
