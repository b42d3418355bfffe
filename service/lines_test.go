package service

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// written is a Log that has what was written to it, one write an element.
type written struct {
	all []string
	err error
}

func (w *written) Write(p []byte) (int, error) {
	w.all = append(w.all, string(p))
	return len(p), w.err
}

func (w *written) Printf(int, string, ...any) {}

// TestLines: what a process prints is logged by whole lines, however it comes, and what has no end of a line or is too long for
// one is not lost.
func TestLines(t *testing.T) {
	long := strings.Repeat("x", maxLine)
	for _, test := range []struct {
		name, said string
		want       []string
	}{
		{"nothing", "", nil},
		{"lines", "one\ntwo\n", []string{"one\n", "two\n"}},
		{"no end", "one\ntwo", []string{"one\n", "two"}},
		{"too long", long + "y\nz\n", []string{long, "y\n", "z\n"}},
		{"as long as there is room", long[1:] + "\nz", []string{long[1:] + "\n", "z"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var log written
			n, err := lines{&log}.ReadFrom(iotest.OneByteReader(strings.NewReader(test.said)))
			require.NoError(t, err)
			assert.EqualValues(t, len(test.said), n, "bytes that were read")
			assert.Equal(t, test.want, log.all)
		})
	}
	t.Run("lines that come together are logged together", func(t *testing.T) {
		var log written
		_, err := lines{&log}.ReadFrom(strings.NewReader("one\ntwo\nthr"))
		require.NoError(t, err)
		assert.Equal(t, []string{"one\ntwo\n", "thr"}, log.all)
	})
	t.Run("the log fails", func(t *testing.T) {
		wrong := errors.New("wrong")
		_, err := lines{&written{err: wrong}}.ReadFrom(strings.NewReader("one\n"))
		assert.ErrorIs(t, err, wrong)
	})
	t.Run("the pipe fails", func(t *testing.T) {
		wrong := errors.New("wrong")
		var log written
		_, err := lines{&log}.ReadFrom(io.MultiReader(strings.NewReader("one"), iotest.ErrReader(wrong)))
		assert.ErrorIs(t, err, wrong)
		assert.Equal(t, []string{"one"}, log.all)
	})
}
