package upgrade

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// HeaderSize is the length of the header, in bytes. The slot image follows it.
const HeaderSize = 256

const (
	formatMagic   = "POSTERN!"
	formatVersion = 1
	boardSize     = 32
	versionSize   = 64
	// signedSize is the length of what the signature covers: the header up to it.
	signedSize = HeaderSize - ed25519.SignatureSize
	// maxLength is the length of the longest slot image, in bytes.
	maxLength = 1 << 30
)

// Header describes an upgrade image.
type Header struct {
	// Board is the board that the image is for.
	Board string
	// Version is the name of the software's version. Date, in whole seconds, is its place
	// in the order of versions.
	Version string
	Date    time.Time
	// Length is the length of the slot image in bytes, Sum its SHA-256.
	Length int64
	Sum    [sha256.Size]byte
}

// Sign returns the header, of HeaderSize bytes, with a signature by key. It fails if h does
// not fit the format.
func (h Header) Sign(key ed25519.PrivateKey) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	b := make([]byte, signedSize, HeaderSize)
	copy(b, formatMagic)
	binary.BigEndian.PutUint32(b[8:], formatVersion)
	copy(b[16:], h.Board)
	copy(b[48:], h.Version)
	binary.BigEndian.PutUint64(b[112:], uint64(h.Date.Unix()))
	binary.BigEndian.PutUint64(b[120:], uint64(h.Length))
	copy(b[128:], h.Sum[:])
	return append(b, ed25519.Sign(key, b)...), nil
}

// ParseHeader reads the header of an upgrade image, of HeaderSize bytes. It checks that the
// signature is key's before it looks at the fields.
func ParseHeader(b []byte, key ed25519.PublicKey) (Header, error) {
	if len(b) != HeaderSize {
		return Header{}, fmt.Errorf("header of %d bytes, expected %d", len(b), HeaderSize)
	}
	if string(b[:8]) != formatMagic {
		return Header{}, fmt.Errorf("not an upgrade image: it does not begin with %s", formatMagic)
	}
	if v := binary.BigEndian.Uint32(b[8:]); v != formatVersion {
		return Header{}, fmt.Errorf("upgrade image of format %d, expected %d", v, formatVersion)
	}
	if len(key) != ed25519.PublicKeySize {
		return Header{}, fmt.Errorf("public key of %d bytes, expected %d", len(key), ed25519.PublicKeySize)
	}
	if !ed25519.Verify(key, b[:signedSize], b[signedSize:]) {
		return Header{}, errors.New("wrong signature: the image is damaged, or signed with another key")
	}
	length, date := binary.BigEndian.Uint64(b[120:]), binary.BigEndian.Uint64(b[112:])
	h := Header{
		Board: padded(b[16:][:boardSize]), Version: padded(b[48:][:versionSize]),
		// What is too large for these types is out of range for check too.
		Date: time.Unix(int64(min(date, 1<<62)), 0).UTC(), Length: int64(min(length, 1<<62)),
		Sum: [sha256.Size]byte(b[128:]),
	}
	if err := h.check(); err != nil {
		return Header{}, fmt.Errorf("header: %w", err)
	}
	if binary.BigEndian.Uint32(b[12:]) != 0 || len(bytes.Trim(b[160:signedSize], "\x00")) > 0 {
		return Header{}, errors.New("header: reserved bytes are not zero")
	}
	return h, nil
}

// check returns an error if h does not fit the format.
func (h Header) check() error {
	for _, f := range []struct {
		name, text string
		size       int
	}{{"board", h.Board, boardSize}, {"version", h.Version, versionSize}} {
		// At least one zero ends a text.
		if f.text == "" || len(f.text) >= f.size || !printable(f.text) {
			return fmt.Errorf("%s %q, expected 1 to %d printable characters", f.name, f.text, f.size-1)
		}
	}
	if h.Length < 1 || h.Length > maxLength {
		return fmt.Errorf("slot image of %d bytes, expected 1 to %d", h.Length, maxLength)
	}
	// The clock shows years up to 9999.
	if s := h.Date.Unix(); s < 0 || h.Date.Year() > 9999 {
		return fmt.Errorf("date of %d seconds is out of range", s)
	}
	return nil
}

// printable reports whether s has only printable ASCII characters, and no spaces.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// padded returns the text in front of the zeros.
func padded(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// Running is the software that runs now.
type Running struct {
	Board, Version string
	Date           time.Time
}

// Accept returns why the image must not replace what runs, or nil. It accepts an older
// version only with force, and never an image for another board.
func (h Header) Accept(r Running, force bool) error {
	if h.Board != r.Board {
		return fmt.Errorf("the image is for board %s, and this is %s", h.Board, r.Board)
	}
	if h.Date.Before(r.Date) && !force {
		return fmt.Errorf("version %s of %s is older than %s of %s, which runs; force=yes takes it",
			h.Version, h.Date.Format(time.DateOnly), r.Version, r.Date.Format(time.DateOnly))
	}
	return nil
}
