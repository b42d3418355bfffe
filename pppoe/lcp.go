package pppoe

import (
	"encoding/binary"
	"math/rand/v2"
	"slices"
)

// Options of LCP (RFC 1661, section 6).
const (
	optionMRU   = 1
	optionAuth  = 3
	optionMagic = 5
)

const (
	// MaxMTU is how many bytes of an IP packet a frame of 1500 bytes carries behind the headers of
	// PPPoE and PPP (RFC 2516, section 7), minMTU the least that makes sense.
	MaxMTU = 1492
	minMTU = 576
)

// Methods are ways to prove who one is.
type Methods byte

// The methods, as RouterOS names them.
const (
	PAP Methods = 1 << iota
	CHAP
	MSCHAP1
	MSCHAP2
)

// methodOptions are the values of option Authentication-Protocol, the best first.
var methodOptions = []struct {
	method Methods
	data   []byte
}{
	{MSCHAP2, []byte{0xC2, 0x23, 0x81}},
	{MSCHAP1, []byte{0xC2, 0x23, 0x80}},
	{CHAP, []byte{0xC2, 0x23, 5}},
	{PAP, []byte{0xC0, 0x23}},
}

// lcp is what LCP negotiates.
type lcp struct {
	allow Methods
	// mru is what this side receives, 0 once the other refuses to hear of it; magic likewise.
	mru   int
	magic uint32
	// loops is how often the other side had this side's own number.
	loops int
	// What the other side wants.
	peerMRU int
	method  Methods // 0 is none
}

func newLCP(allow Methods, mru int) *lcp {
	return &lcp{allow: allow, mru: mru, magic: newMagic()}
}

func newMagic() uint32 { return rand.Uint32() | 1 }

// maxLoops is how many numbers of its own a side sees before it believes that it talks to itself.
const maxLoops = 3

func (l *lcp) wanted() []option {
	var all []option
	if l.mru != 0 {
		all = append(all, option{optionMRU, binary.BigEndian.AppendUint16(nil, uint16(l.mru))})
	}
	if l.magic != 0 {
		all = append(all, option{optionMagic, binary.BigEndian.AppendUint32(nil, l.magic)})
	}
	return all
}

func (l *lcp) refused(all []option, outright bool) {
	for _, o := range all {
		switch {
		case o.typ == optionMRU && outright:
			l.mru = 0
		case o.typ == optionMRU && len(o.data) == 2:
			if mru := int(binary.BigEndian.Uint16(o.data)); mru >= minMTU && mru < l.mru {
				l.mru = mru
			} else {
				l.mru = 0
			}
		case o.typ == optionMagic && outright:
			l.magic = 0
		case o.typ == optionMagic:
			l.magic = newMagic()
		}
	}
}

// judge accepts what PPPoE has use for. Compressed headers and a map of control characters must not
// be asked for (RFC 2516, section 7).
func (l *lcp) judge(o option) (verdict, option) {
	switch {
	case o.typ == optionMRU && len(o.data) == 2:
		if binary.BigEndian.Uint16(o.data) < minMTU {
			return suggest, option{optionMRU, binary.BigEndian.AppendUint16(nil, minMTU)}
		}
		return accept, o
	case o.typ == optionAuth:
		if l.methodOf(o) != 0 {
			return accept, o
		}
		for _, m := range methodOptions {
			if l.allow&m.method != 0 {
				return suggest, option{optionAuth, m.data}
			}
		}
	case o.typ == optionMagic && len(o.data) == 4:
		magic := binary.BigEndian.Uint32(o.data)
		if magic == l.magic && magic != 0 {
			l.loops++
		}
		if magic == 0 || magic == l.magic {
			return suggest, option{optionMagic, binary.BigEndian.AppendUint32(nil, newMagic())}
		}
		return accept, o
	}
	return reject, option{}
}

// methodOf returns the method that an option asks for, 0 if it is not allowed.
func (l *lcp) methodOf(o option) Methods {
	for _, m := range methodOptions {
		if slices.Equal(o.data, m.data) {
			return m.method & l.allow
		}
	}
	return 0
}

func (l *lcp) agreed(all []option) {
	l.peerMRU, l.method = 1500, 0
	for _, o := range all {
		switch o.typ {
		case optionMRU:
			l.peerMRU = int(binary.BigEndian.Uint16(o.data))
		case optionAuth:
			l.method = l.methodOf(o)
		}
	}
}
