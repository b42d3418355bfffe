package api

import (
	"bytes"
	"errors"
	"io"
	"math"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// sentence is words in the form of the wire.
func sentence(words ...string) []byte {
	var b []byte
	for _, w := range words {
		b = appendWord(b, w)
	}
	return append(b, 0)
}

func TestLengths(t *testing.T) {
	for n, want := range map[int]string{
		0: "\x00", 1: "\x01", 0x7F: "\x7f", 0x80: "\x80\x80", 0x3FFF: "\xbf\xff", 0x4000: "\xc0\x40\x00",
		0x1FFFFF: "\xdf\xff\xff", 0x200000: "\xe0\x20\x00\x00", 0xFFFFFFF: "\xef\xff\xff\xff",
	} {
		assert.Equal(t, want, string(appendLength(nil, n)), n)
		r := newReader(strings.NewReader(want))
		read, err := r.length()
		require.NoError(t, err)
		assert.Equal(t, uint32(n), read)
	}
	// What nobody sends needs to be read all the same: five bytes, and forms that are longer than they need.
	for text, want := range map[string]uint32{"\xf0\x10\x00\x00\x00": 0x10000000, "\xf0\xff\xff\xff\xff": math.MaxUint32, "\x80\x05": 5, "\xe0\x00\x00\x05": 5} {
		read, err := newReader(strings.NewReader(text)).length()
		require.NoError(t, err)
		assert.Equal(t, want, read)
	}
}

func TestSentences(t *testing.T) {
	w := func(n int) string { return strings.Repeat("w", n) }
	for _, c := range []struct {
		name   string
		limits limits
		sent   string
		words  []string
		err    error
	}{
		{"empty", strangerLimits, "\x00", []string{}, nil},
		{"one word", strangerLimits, "\x06/login\x00", []string{"/login"}, nil},
		{"longer form", strangerLimits, "\x80\x06/login\xc0\x00\x00", []string{"/login"}, nil},
		{"127 bytes", userLimits, string(sentence("/a", w(0x7F))), []string{"/a", w(0x7F)}, nil},
		{"128 bytes", userLimits, string(sentence("/a", w(0x80))), []string{"/a", w(0x80)}, nil},
		{"16383 bytes", userLimits, string(sentence("/a", w(0x3FFF))), []string{"/a", w(0x3FFF)}, nil},
		{"16384 bytes", userLimits, string(sentence("/a", w(0x4000))), []string{"/a", w(0x4000)}, nil},
		{"the longest word", userLimits, string(sentence(w(64 << 10))), []string{w(64 << 10)}, nil},
		{"longer than the longest word", userLimits, string(sentence(w(64<<10 + 1))), nil, errLongWord},
		{"2097151 bytes", userLimits, string(appendLength(nil, 0x1FFFFF)), nil, errLongWord},
		{"2097152 bytes", userLimits, string(appendLength(nil, 0x200000)), nil, errLongWord},
		{"4 GiB of a stranger", strangerLimits, "\xf0\xff\xff\xff\xff", nil, errLongWord},
		{"1 KiB of a stranger", strangerLimits, string(sentence(w(1 << 10))), []string{w(1 << 10)}, nil},
		{"more than 1 KiB of a stranger", strangerLimits, string(sentence(w(1<<10 + 1))), nil, errLongWord},
		{"8 words of a stranger", strangerLimits, string(sentence("1", "2", "3", "4", "5", "6", "7", "8")), []string{"1", "2", "3", "4", "5", "6", "7", "8"}, nil},
		{"9 words of a stranger", strangerLimits, string(sentence("1", "2", "3", "4", "5", "6", "7", "8", "9")), nil, errLongSentence},
		{"more than 4 KiB of a stranger", strangerLimits, string(sentence(w(1<<10), w(1<<10), w(1<<10), w(1<<10), "w")), nil, errLongSentence},
		{"256 KiB", userLimits, string(sentence(w(64<<10), w(64<<10), w(64<<10), w(64<<10))), []string{w(64 << 10), w(64 << 10), w(64 << 10), w(64 << 10)}, nil},
		{"more than 256 KiB", userLimits, string(sentence(w(64<<10), w(64<<10), w(64<<10), w(64<<10), "w")), nil, errLongSentence},
		{"control byte", userLimits, "\xf8", nil, errControl},
		{"the last control byte", userLimits, "\x01a\xff", nil, errControl},
		{"no length", userLimits, "\xf1\x00\x00\x00\x01a\x00", nil, errControl},
		{"end before a sentence", userLimits, "", nil, io.EOF},
		{"end within a length", userLimits, "\xc0\x00", nil, io.ErrUnexpectedEOF},
		{"end within a word", userLimits, "\x05ab", nil, io.ErrUnexpectedEOF},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, from := range []io.Reader{strings.NewReader(c.sent), iotest.OneByteReader(strings.NewReader(c.sent))} {
				r := newReader(from)
				r.limits = c.limits
				words, err := r.read()
				assert.ErrorIs(t, err, c.err)
				assert.Equal(t, c.words, words)
			}
		})
	}
}

func TestManyWords(t *testing.T) {
	sent := bytes.Repeat([]byte("\x01w"), 16<<10+1)
	r := newReader(iotest.OneByteReader(bytes.NewReader(append(sent[:2*10000:2*10000], 0))))
	r.limits = userLimits
	words, err := r.read()
	require.NoError(t, err)
	assert.Len(t, words, 10000)
	r = newReader(bytes.NewReader(sent))
	r.limits = userLimits
	_, err = r.read()
	assert.ErrorIs(t, err, errLongSentence)
}

// What a length announces takes no memory.
func TestAnnouncedLength(t *testing.T) {
	r := newReader(io.MultiReader(bytes.NewReader(appendLength(nil, 64<<10)), iotest.ErrReader(io.ErrUnexpectedEOF)))
	r.limits = userLimits
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := r.read()
	runtime.ReadMemStats(&after)
	assert.ErrorIs(t, err, io.ErrUnexpectedEOF)
	assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32<<10))
}

func FuzzSentence(f *testing.F) {
	f.Add(sentence("/ip/address/print", "=.proplist=address", "?disabled=no", ".tag=1"))
	f.Add([]byte("\xf0\xff\xff\xff\xff"))
	f.Add([]byte("\x80\x06/login\xc0\x00\x00"))
	f.Add([]byte("\xf8"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		in := bytes.NewReader(sent)
		for _, limits := range []limits{strangerLimits, userLimits} {
			r := newReader(in)
			r.limits = limits
			for {
				words, err := r.read()
				if err != nil {
					break
				}
				size := 0
				for _, w := range words {
					size += len(w)
					if w == "" || len(w) > limits.word {
						t.Fatalf("a word of %d bytes", len(w))
					}
				}
				if len(words) > limits.words || size > limits.sentence {
					t.Fatalf("%d words of %d bytes", len(words), size)
				}
				again, err := func() ([]string, error) {
					r := newReader(bytes.NewReader(sentence(words...)))
					r.limits = limits
					return r.read()
				}()
				if err != nil || !assert.ObjectsAreEqual(words, again) {
					t.Fatalf("%q is read as %q: %v", words, again, err)
				}
				if len(words) > 0 {
					if _, err := parseRequest(words); err != nil {
						var trap *trap
						if !errors.As(err, &trap) {
							t.Fatalf("%q: %v", words, err)
						}
					}
				}
			}
		}
	})
}
