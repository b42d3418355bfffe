package store

import (
	"bytes"
	"compress/lzw"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// The footer is the last 32 bytes of a slot, big-endian. Magic and version keep their
// places in all versions of the format.
//
//	 0  8  sequence number
//	 8  4  length of the payload, which is at the start of the slot
//	12  4  length of the text
//	16  1  content: 0 text as it is, 1 text compressed with LZW, 2 none (Erase)
//	17  2  zero
//	19  1  version of the format
//	20  4  CRC-32C of footer bytes 0 to 19, then the payload
//	24  8  magic, at the end, since bytes are written in ascending order
const (
	footerSize    = 32
	formatVersion = 1
	magic         = "POSTERN\n"
)

// content says what the payload of a record is.
type content uint8

const (
	plain   content = 0
	packed  content = 1 // LZW, least significant bit first, 8-bit literals
	nothing content = 2
)

var (
	errNoMagic    = errors.New("no record: magic missing")
	errBlank      = errors.New("blank")
	errUnfinished = errors.New("an unfinished write")
)

// record is what a slot holds.
type record struct {
	sequence uint64
	content  content
	length   uint32 // of the text
	payload  []byte
}

// same reports whether both hold the same text; the sequence numbers do not matter.
func (r record) same(q record) bool {
	return r.content == q.content && r.length == q.length && bytes.Equal(r.payload, q.payload)
}

// pack makes a record of text for a slot that has room for a payload of room bytes. LZW
// is the smallest compressor of the standard library: it adds 7 kB to the image and takes
// 140 kB of memory. flate adds 25 kB and takes 0.8 to 1.3 MB, of 32 MB.
func pack(text []byte, room int) (record, error) {
	if len(text) > MaxText {
		return record{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLong, len(text), MaxText)
	}
	r := record{content: plain, length: uint32(len(text)), payload: text}
	if len(text) <= room {
		return r, nil
	}
	var b bytes.Buffer
	w := lzw.NewWriter(&b, lzw.LSB, 8)
	// Neither can fail: a bytes.Buffer takes everything.
	if _, err := w.Write(text); err != nil {
		return record{}, fmt.Errorf("compress: %w", err)
	}
	if err := w.Close(); err != nil {
		return record{}, fmt.Errorf("compress: %w", err)
	}
	if b.Len() > room {
		return record{}, fmt.Errorf("%w: %d bytes, compressed %d, and a slot has room for %d", ErrTooLong, len(text), b.Len(), room)
	}
	r.content, r.payload = packed, b.Bytes()
	return r, nil
}

// text returns the text of a record.
func (r record) text() ([]byte, error) {
	switch r.content {
	case plain:
		if len(r.payload) != int(r.length) {
			return nil, fmt.Errorf("text of %d bytes in a payload of %d", r.length, len(r.payload))
		}
		return r.payload, nil
	case packed:
		text := make([]byte, r.length)
		z := lzw.NewReader(bytes.NewReader(r.payload), lzw.LSB, 8)
		if _, err := io.ReadFull(z, text); err != nil {
			return nil, fmt.Errorf("uncompress: %w", err)
		}
		if n, err := z.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			return nil, fmt.Errorf("uncompress: more than the %d bytes of the text", r.length)
		}
		return text, nil
	case nothing:
		if r.length != 0 || len(r.payload) != 0 {
			return nil, errors.New("a reset record with a text")
		}
		return nil, nil
	}
	return nil, fmt.Errorf("unknown content %d", r.content)
}

func (r record) footer() []byte {
	b := binary.BigEndian.AppendUint32(r.header(), r.checksum())
	return append(b, magic...)
}

// header is the part of the footer that the checksum covers.
func (r record) header() []byte {
	b := make([]byte, 0, footerSize)
	b = binary.BigEndian.AppendUint64(b, r.sequence)
	b = binary.BigEndian.AppendUint32(b, uint32(len(r.payload)))
	b = binary.BigEndian.AppendUint32(b, r.length)
	return append(b, byte(r.content), 0, 0, formatVersion)
}

func (r record) checksum() uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Update(0, table, r.header()), table, r.payload)
}

// parseFooter reads the footer of a slot whose payload may have up to room bytes. The
// record is valid only if check accepts it.
func parseFooter(b []byte, room int) (r record, length int, sum uint32, err error) {
	if string(b[24:]) != magic {
		return record{}, 0, 0, errNoMagic
	}
	if v := b[19]; v != formatVersion {
		return record{}, 0, 0, fmt.Errorf("format version %d: this program knows %d", v, formatVersion)
	}
	r = record{sequence: binary.BigEndian.Uint64(b), content: content(b[16]), length: binary.BigEndian.Uint32(b[12:])}
	stored := binary.BigEndian.Uint32(b[8:])
	if int64(stored) > int64(room) || r.length > MaxText {
		return record{}, 0, 0, fmt.Errorf("lengths %d and %d of footer out of range", stored, r.length)
	}
	if b[17] != 0 || b[18] != 0 {
		return record{}, 0, 0, errors.New("reserved bytes of footer not zero")
	}
	return r, int(stored), binary.BigEndian.Uint32(b[20:]), nil
}

// check returns why the record is not what was written or has no readable text, or nil.
func (r record) check(sum uint32) error {
	if got := r.checksum(); got != sum {
		return fmt.Errorf("checksum is %08x, not %08x", got, sum)
	}
	_, err := r.text()
	return err
}
