package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// An error has its text on the other side, and is there what it was here if both ends know that.
func TestRefusals(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	known := Refusals{one, two}
	sent := func(err error) error {
		var b bytes.Buffer
		require.NoError(t, known.Send(&b, 'E', err))
		kind, text, err := Receive(&b)
		require.NoError(t, err)
		require.Equal(t, byte('E'), kind)
		return known.Decode(text)
	}
	for _, c := range []struct {
		err  error
		text string
		is   error
	}{{one, "one", one}, {fmt.Errorf("a: %w", two), "a: two", two}, {errors.New("other"), "other", nil}, {errors.New(strings.Repeat("x", MaxFrame)), strings.Repeat("x", MaxFrame/2), nil}} {
		err := sent(c.err)
		var refusal *Refusal
		require.ErrorAs(t, err, &refusal)
		assert.EqualError(t, err, c.text)
		for _, k := range known {
			assert.Equal(t, k == c.is, errors.Is(err, k), c.text)
		}
	}
	for _, text := range []string{"", "\x03\x00", "\x00\x05x", "\x00\x00x"} {
		var refusal *Refusal
		err := known.Decode(text)
		require.Error(t, err, "%q", text)
		assert.NotErrorAs(t, err, &refusal, "%q", text)
	}
	require.EqualError(t, Guarded(func() error { panic("text") }), "failure: panic: text")
}
