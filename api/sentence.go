package api

import (
	"bufio"
	"errors"
	"io"
	"slices"
)

// limits bound what is read of a client.
type limits struct {
	word     int // bytes of a word
	words    int // words of a sentence
	sentence int // bytes of a sentence
}

var (
	strangerLimits = limits{word: 1 << 10, words: 8, sentence: 4 << 10}
	userLimits     = limits{word: 64 << 10, words: 16 << 10, sentence: 256 << 10}
)

var (
	errControl      = errors.New("control byte where a word is expected")
	errLongWord     = errors.New("word too long")
	errLongSentence = errors.New("sentence too long")
)

// reader reads sentences.
type reader struct {
	from   *bufio.Reader
	limits limits
	text   []byte // the words of the sentence that is being read
	ends   []int  // where each of them ends in text
}

const (
	// pieceSize is how much memory at a time is taken for a word: what it announces of its length
	// costs nothing.
	pieceSize = 4 << 10
	// keptText and keptWords are how much memory a reader keeps from one sentence to the next.
	keptText, keptWords = 4 << 10, 64
)

func newReader(from io.Reader) *reader {
	return &reader{from: bufio.NewReaderSize(from, 1<<10), limits: strangerLimits}
}

// read reads a sentence: its words, without the empty one at its end. An empty sentence has none. The
// error is that of the connection, or says which limit the sentence exceeds; then nothing can be read
// any more.
func (r *reader) read() ([]string, error) {
	r.text, r.ends = r.text[:0], r.ends[:0]
	for {
		n, err := r.length()
		switch {
		case err != nil:
			return nil, err
		case n == 0:
			return r.words(), nil
		case n > uint32(r.limits.word):
			return nil, errLongWord
		case len(r.ends) == r.limits.words || int(n) > r.limits.sentence-len(r.text):
			return nil, errLongSentence
		}
		for left := int(n); left > 0; {
			piece := min(left, pieceSize)
			at := len(r.text)
			r.text = slices.Grow(r.text, piece)[:at+piece]
			if _, err := io.ReadFull(r.from, r.text[at:]); err != nil {
				return nil, err
			}
			left -= piece
		}
		r.ends = append(r.ends, len(r.text))
	}
}

// words are those that have been read.
func (r *reader) words() []string {
	text, at := string(r.text), 0
	words := make([]string, len(r.ends))
	for i, end := range r.ends {
		words[i] = text[at:end]
		at = end
	}
	if cap(r.text) > keptText {
		r.text = nil
	}
	if cap(r.ends) > keptWords {
		r.ends = nil
	}
	return words
}

// length reads the length of a word, which may be in a longer form than it needs.
func (r *reader) length() (uint32, error) {
	first, err := r.from.ReadByte()
	if err != nil {
		return 0, err
	}
	n, more := uint32(first), 0
	switch {
	case first < 0x80:
	case first < 0xC0:
		n, more = n&0x3F, 1
	case first < 0xE0:
		n, more = n&0x1F, 2
	case first < 0xF0:
		n, more = n&0x0F, 3
	case first == 0xF0:
		n, more = 0, 4
	default:
		return 0, errControl
	}
	for range more {
		b, err := r.from.ReadByte()
		if err != nil {
			return 0, unexpected(err)
		}
		n = n<<8 | uint32(b)
	}
	return n, nil
}

// unexpected is err of a read that is not the first of a word.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendWord appends a word to a sentence: the parts one behind the other.
func appendWord(b []byte, parts ...string) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	b = appendLength(b, n)
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// appendLength appends the length of a word, in its shortest form.
func appendLength(b []byte, n int) []byte {
	switch {
	case n < 0x80:
		return append(b, byte(n))
	case n < 0x4000:
		return append(b, 0x80|byte(n>>8), byte(n))
	case n < 0x200000:
		return append(b, 0xC0|byte(n>>16), byte(n>>8), byte(n))
	}
	return append(b, 0xE0|byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
