package wire

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A frame that was read is the one that was sent; nothing is read beyond it.
func FuzzReceive(f *testing.F) {
	for _, in := range []string{"", "L", "L\x00\x00\x00\x00", "L\x00\x00\x00\x02ab", "L\x00\x00\x80\x01", "L\x00\x00\x00\x02a", "X\x00\x00\x00\x01abc"} {
		f.Add([]byte(in))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		kind, text, err := Receive(r)
		if err != nil {
			assert.True(t, len(in) > 0 || err == io.EOF, "%v", err)
			return
		}
		var again bytes.Buffer
		require.NoError(t, Send(&again, kind, text))
		assert.Equal(t, string(in[:len(in)-r.Len()]), again.String())
		assert.LessOrEqual(t, len(text), MaxFrame)
	})
}
