package service

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Encoder writes the body of a message: numbers as varints (encoding/binary), texts and
// addresses with their length in bytes ahead of them, lists as their length and their
// elements. What a body holds, and in which order, is agreed between its two ends. The zero
// value is an empty body.
type Encoder struct{ body []byte }

// Bytes returns what was written.
func (e *Encoder) Bytes() []byte { return e.body }

// Uint writes a number; lengths and enumerations are numbers too.
func (e *Encoder) Uint(n uint64) { e.body = binary.AppendUvarint(e.body, n) }

// Int writes a number that may be negative.
func (e *Encoder) Int(n int64) { e.body = binary.AppendVarint(e.body, n) }

// Bool writes a truth value.
func (e *Encoder) Bool(b bool) {
	if b {
		e.Uint(1)
	} else {
		e.Uint(0)
	}
}

// String writes a text.
func (e *Encoder) String(s string) {
	e.Uint(uint64(len(s)))
	e.body = append(e.body, s...)
}

// Strings writes a list of texts.
func (e *Encoder) Strings(list []string) {
	e.Uint(uint64(len(list)))
	for _, s := range list {
		e.String(s)
	}
}

// Addr writes an address without a zone; the zero Addr is one of no bytes.
func (e *Encoder) Addr(a netip.Addr) {
	bytes := a.AsSlice()
	e.Uint(uint64(len(bytes)))
	e.body = append(e.body, bytes...)
}

// Addrs writes a list of addresses.
func (e *Encoder) Addrs(list []netip.Addr) {
	e.Uint(uint64(len(list)))
	for _, a := range list {
		e.Addr(a)
	}
}

// AddrPort writes an address and a port.
func (e *Encoder) AddrPort(a netip.AddrPort) {
	e.Addr(a.Addr())
	e.Uint(uint64(a.Port()))
}

// Decoder reads what an Encoder wrote. Whoever sent it need not be believed: after the first
// thing that is wrong every further read returns a zero value, and End says what it was. No
// read takes more memory than the body has bytes, times the size of a list's element.
type Decoder struct {
	body []byte
	err  error
}

// NewDecoder reads body, which it keeps no reference to in what it returns.
func NewDecoder(body []byte) *Decoder { return &Decoder{body: body} }

var errShort = errors.New("the message ends too early")

// Fail notes that what was read cannot be: End returns the first error, and what is read from then
// on is zero.
func (d *Decoder) Fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.body = nil
}

// End returns what was wrong, if anything was: also bytes that nobody has read.
func (d *Decoder) End() error {
	if d.err == nil && len(d.body) > 0 {
		d.Fail(fmt.Errorf("the message has %d bytes too many", len(d.body)))
	}
	return d.err
}

// Uint reads a number of at most max.
func (d *Decoder) Uint(max uint64) uint64 {
	n, size := binary.Uvarint(d.body)
	if size <= 0 {
		d.Fail(errShort)
		return 0
	}
	if n > max {
		d.Fail(fmt.Errorf("the message has %d where %d is the most", n, max))
		return 0
	}
	d.body = d.body[size:]
	return n
}

// Int reads a number that may be negative.
func (d *Decoder) Int() int64 {
	n, size := binary.Varint(d.body)
	if size <= 0 {
		d.Fail(errShort)
		return 0
	}
	d.body = d.body[size:]
	return n
}

// Duration reads an Int of nanoseconds.
func (d *Decoder) Duration() time.Duration { return time.Duration(d.Int()) }

// Bool reads a truth value.
func (d *Decoder) Bool() bool { return d.Uint(1) == 1 }

// take reads that many bytes.
func (d *Decoder) take(n uint64) []byte {
	if n > uint64(len(d.body)) {
		d.Fail(errShort)
		return nil
	}
	taken := d.body[:n]
	d.body = d.body[n:]
	return taken
}

// String reads a text of at most max bytes.
func (d *Decoder) String(max int) string { return string(d.take(d.Uint(uint64(max)))) }

// Count reads the length of a list of at most max elements, each of which has at least one
// byte.
func (d *Decoder) Count(max int) int {
	n := d.Uint(uint64(max))
	if n > uint64(len(d.body)) {
		d.Fail(errShort)
		return 0
	}
	return int(n)
}

// Strings reads a list of at most max texts, each of at most longest bytes; nil if it is empty.
func (d *Decoder) Strings(max, longest int) []string {
	var list []string
	for range d.Count(max) {
		list = append(list, d.String(longest))
	}
	return list
}

// Addr reads an address.
func (d *Decoder) Addr() netip.Addr {
	bytes := d.take(d.Uint(16))
	if len(bytes) == 0 {
		return netip.Addr{}
	}
	a, ok := netip.AddrFromSlice(bytes)
	if !ok {
		d.Fail(fmt.Errorf("the message has an address of %d bytes", len(bytes)))
	}
	return a
}

// Addrs reads a list of at most max addresses; nil if it is empty.
func (d *Decoder) Addrs(max int) []netip.Addr {
	var list []netip.Addr
	for range d.Count(max) {
		list = append(list, d.Addr())
	}
	return list
}

// AddrPort reads an address and a port.
func (d *Decoder) AddrPort() netip.AddrPort {
	addr := d.Addr()
	return netip.AddrPortFrom(addr, uint16(d.Uint(65535)))
}
