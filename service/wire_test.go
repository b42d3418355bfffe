package service

import (
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// everything is a body with a value of each kind.
type everything struct {
	Uint      uint64
	Int       int64
	Duration  time.Duration
	Bool      bool
	Text      string
	Texts     []string
	Addr      netip.Addr
	Addrs     []netip.Addr
	AddrPort  netip.AddrPort
	ElseEmpty string
}

func (v everything) encode() []byte {
	var e Encoder
	e.Uint(v.Uint)
	e.Int(v.Int)
	e.Int(int64(v.Duration))
	e.Bool(v.Bool)
	e.String(v.Text)
	e.Strings(v.Texts)
	e.Addr(v.Addr)
	e.Addrs(v.Addrs)
	e.AddrPort(v.AddrPort)
	e.String(v.ElseEmpty)
	return e.Bytes()
}

func decodeEverything(d *Decoder) everything {
	return everything{d.Uint(math.MaxUint64), d.Int(), d.Duration(), d.Bool(), d.String(100), d.Strings(3, 10),
		d.Addr(), d.Addrs(3), d.AddrPort(), d.String(0)}
}

var samples = []everything{
	{},
	{1, -1, time.Hour, true, "text", []string{"", "b"}, netip.MustParseAddr("192.0.2.1"),
		[]netip.Addr{netip.MustParseAddr("2001:db8::1"), {}}, netip.MustParseAddrPort("192.0.2.1:65535"), ""},
	{math.MaxUint64, math.MinInt64, -time.Nanosecond, false, strings.Repeat("x", 100), []string{"a", "b", "c"},
		netip.IPv6Unspecified(), nil, netip.AddrPort{}, ""},
}

func TestWire(t *testing.T) {
	for _, want := range samples {
		d := NewDecoder(want.encode())
		assert.Equal(t, want, decodeEverything(d))
		require.NoError(t, d.End())
	}
}

func TestDecoderErrors(t *testing.T) {
	encode := func(f func(e *Encoder)) []byte {
		var e Encoder
		f(&e)
		return e.Bytes()
	}
	for _, c := range []struct {
		name string
		body []byte
		read func(d *Decoder)
		want string
	}{
		{"no number", nil, func(d *Decoder) { d.Uint(1) }, "ends too early"},
		{"no signed number", nil, func(d *Decoder) { d.Int() }, "ends too early"},
		{"half a number", []byte{0x80}, func(d *Decoder) { d.Uint(1000) }, "ends too early"},
		{"a number of 11 bytes", []byte(strings.Repeat("\xff", 11)), func(d *Decoder) { d.Uint(math.MaxUint64) }, "ends too early"},
		{"a number too large", []byte{2}, func(d *Decoder) { d.Bool() }, "has 2 where 1 is the most"},
		{"a text too long", encode(func(e *Encoder) { e.String("abc") }), func(d *Decoder) { d.String(2) }, "has 3 where 2 is the most"},
		{"a text cut off", []byte{3, 'a'}, func(d *Decoder) { d.String(10) }, "ends too early"},
		{"a list longer than the message", []byte{200, 1}, func(d *Decoder) { d.Strings(1000, 10) }, "ends too early"},
		{"a list too long", []byte{3, 0, 0, 0}, func(d *Decoder) { d.Addrs(2) }, "has 3 where 2 is the most"},
		{"an address of five bytes", []byte{5, 1, 2, 3, 4, 5}, func(d *Decoder) { d.Addr() }, "an address of 5 bytes"},
		{"a port too large", encode(func(e *Encoder) { e.Addr(netip.Addr{}); e.Uint(65536) }), func(d *Decoder) { d.AddrPort() }, "65536"},
		{"bytes left", []byte{1, 2}, func(d *Decoder) { d.Bool() }, "1 bytes too many"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := NewDecoder(c.body)
			c.read(d)
			require.ErrorContains(t, d.End(), c.want)
			assert.Equal(t, everything{}, decodeEverything(d), "after an error there is nothing more")
			require.ErrorContains(t, d.End(), c.want, "the first error stays")
		})
	}
}

// FuzzDecoder: no body makes the decoder panic, and one that it takes is written again as it
// was, but for numbers that were written longer than need be.
func FuzzDecoder(f *testing.F) {
	for _, v := range samples {
		f.Add(v.encode())
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		d := NewDecoder(body)
		v := decodeEverything(d)
		if d.End() != nil {
			return
		}
		again := NewDecoder(v.encode())
		assert.Equal(t, v, decodeEverything(again))
		require.NoError(t, again.End())
	})
}

// FuzzFrame: no frame makes the receiver panic.
func FuzzFrame(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{frameRequest | frameFirst | frameLast, 1, opAlive})
	f.Add([]byte{frameReply | frameLast, 0xFF, 0xFF})
	f.Fuzz(func(t *testing.T, frame []byte) {
		m, flag, err := parseFrame(frame)
		if err != nil {
			require.ErrorIs(t, err, ErrBreach)
			return
		}
		assert.LessOrEqual(t, len(m.body), len(frame)-2)
		assert.Zero(t, flag&frameKind)
	})
}
