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

// HeaderSize is how many bytes stand ahead of the slot image.
const HeaderSize = 256

const (
	formatMagic   = "POSTERN!"
	formatVersion = 1
	boardSize     = 32
	versionSize   = 64
	// signedSize is how much of the header the signature covers.
	signedSize = HeaderSize - ed25519.SignatureSize
	// maxLength is the length of the longest slot image, in bytes.
	maxLength = 1 << 30
)

// Header tells what an upgrade image is.
type Header struct {
	// Board is the board that it is for.
	Board string
	// Version is the name of the software's version, and Date, in whole seconds, its
	// place in the order of versions.
	Version string
	Date    time.Time
	// Length and Sum are the slot image's, in bytes and by SHA-256.
	Length int64
	Sum    [sha256.Size]byte
}

// Sign returns the HeaderSize bytes that stand ahead of the slot image.
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

// ParseHeader reads the HeaderSize bytes that stand ahead of a slot image. What they
// say is looked at only once the signature is known to be key's.
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
		return Header{}, errors.New("wrong signature: the image is damaged, or signed by another's key")
	}
	length, date := binary.BigEndian.Uint64(b[120:]), binary.BigEndian.Uint64(b[112:])
	h := Header{
		Board: padded(b[16:][:boardSize]), Version: padded(b[48:][:versionSize]),
		// What is too large for the types is out of range for check, too.
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

// check says whether all fits the format.
func (h Header) check() error {
	for _, f := range []struct {
		name, text string
		size       int
	}{{"board", h.Board, boardSize}, {"version", h.Version, versionSize}} {
		// One zero at least ends a text.
		if f.text == "" || len(f.text) >= f.size || !printable(f.text) {
			return fmt.Errorf("%s %q, expected 1 to %d printable characters", f.name, f.text, f.size-1)
		}
	}
	if h.Length < 1 || h.Length > maxLength {
		return fmt.Errorf("slot image of %d bytes, expected 1 to %d", h.Length, maxLength)
	}
	// Year 9999 is what the clock can show.
	if s := h.Date.Unix(); s < 0 || h.Date.Year() > 9999 {
		return fmt.Errorf("date of %d seconds is out of range", s)
	}
	return nil
}

// printable reports whether s is of ASCII characters that show, without spaces.
func printable(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// padded is the text before the zeros.
func padded(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// Running is the software that is to be replaced.
type Running struct {
	Board, Version string
	Date           time.Time
}

// Accept says why an image must not take the place of what runs, or nil. An older
// version is accepted only with force; an image for another board never is.
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
