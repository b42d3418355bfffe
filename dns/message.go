package dns

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"unsafe"
)

// Types, classes and error codes of RFC 1035, RFC 2308 and RFC 6891.
const (
	typeA, typeCNAME, typeSOA, typePTR, typeTXT, typeAAAA, typeOPT = 1, 5, 6, 12, 16, 28, 41
	typeIXFR, typeAXFR, typeANY                                    = 251, 252, 255

	classIN = 1

	codeOK, codeFormat, codeFailure, codeNoName, codeNotImplemented, codeRefused = 0, 1, 2, 3, 4, 5
)

const (
	headerSize = 12
	// Bits of the second word of a header.
	bitResponse, bitAuthoritative, bitTruncated, bitDesired, bitAvailable, bitChecked = 1 << 15, 1 << 10, 1 << 9, 1 << 8, 1 << 7, 1 << 4
	maskOpcode, maskCode                                                              = 0xf << 11, 0xf
	// longestNegative is how many seconds it is kept at most that there is no such name (RFC 2308,
	// section 5): who has a new name does not wait for a week because of one that asked too early.
	longestNegative = 3 * 3600
	// plainSize is the size of an answer that everybody takes, and safeSize one that needs no
	// fragments on any usual network.
	plainSize, safeSize = 512, 1232
	// MaxName is how many bytes a name has at most, and MaxLabel each label.
	MaxName, MaxLabel = 253, 63
)

var errMalformed = errors.New("malformed message")

// query is a question of a client.
type query struct {
	id    uint16
	flags uint16
	// question is the question section: name as the client wrote it, type, class.
	question []byte
	// name is in lower case, without the last dot.
	name        string
	typ, class  uint16
	edns, do    bool
	badVersion  bool
	size        int // that the client takes over UDP
	unsupported bool
}

// maxKey is how many bytes a key has at most, keyHead how many are ahead of the name.
const maxKey, keyHead = keyHead + MaxName, 5

// appendKey appends the key of q, which is the same for queries that the same answer suits.
func (q *query) appendKey(b []byte) []byte {
	bits := byte(0)
	for i, bit := range [...]bool{q.edns, q.do, q.flags&bitChecked != 0, q.flags&bitDesired != 0} {
		if bit {
			bits |= 1 << i
		}
	}
	b = binary.BigEndian.AppendUint16(b, q.typ)
	b = binary.BigEndian.AppendUint16(b, q.class)
	return append(append(b, bits), q.name...)
}

// scratch is the memory of an answer from the cache. It is used again and again: each such answer would leave garbage behind.
type scratch struct {
	q      query
	name   [MaxName]byte
	answer []byte
}

// clone returns a copy of a query that lasts when its scratch is used again, and the message that it came in.
func (q *query) clone() *query {
	other := *q
	other.name, other.question = strings.Clone(q.name), slices.Clone(q.question)
	return &other
}

// parseQuery reads a query. With errMalformed it has the id and flags, if there is a header;
// answered reports whether somebody may be told at all. The query is b's and m's.
func (m *scratch) parseQuery(b []byte) (q *query, answered bool, err error) {
	if len(b) < headerSize {
		return nil, false, errMalformed
	}
	q = &m.q
	*q = query{id: binary.BigEndian.Uint16(b), flags: binary.BigEndian.Uint16(b[2:]), size: plainSize}
	if q.flags&bitResponse != 0 {
		return nil, false, errMalformed
	}
	if q.flags&maskOpcode != 0 {
		q.unsupported = true
		return q, true, nil
	}
	if binary.BigEndian.Uint16(b[4:]) != 1 || binary.BigEndian.Uint16(b[6:]) != 0 || binary.BigEndian.Uint16(b[8:]) != 0 {
		return q, true, errMalformed
	}
	text, end, ok := appendNameAt(m.name[:0], b, headerSize)
	// A name of a question is not compressed: then it ends where its bytes do.
	if !ok || end+4 > len(b) || end-headerSize != wireLength(text) {
		return q, true, errMalformed
	}
	q.name, q.question = unsafe.String(unsafe.SliceData(text), len(text)), b[headerSize:end+4]
	q.typ, q.class = binary.BigEndian.Uint16(b[end:]), binary.BigEndian.Uint16(b[end+2:])
	at := end + 4
	for range binary.BigEndian.Uint16(b[10:]) {
		r, ok := readRecord(b, at)
		if !ok {
			return q, true, errMalformed
		}
		if r.typ == typeOPT {
			if q.edns {
				return q, true, errMalformed
			}
			q.edns, q.do = true, r.ttl&(1<<15) != 0
			q.badVersion = r.ttl>>16&0xff != 0
			q.size = max(int(r.class), plainSize)
		}
		at = r.end
	}
	return q, true, nil
}

// wireLength is the length of a name without compression.
func wireLength(name []byte) int {
	if len(name) == 0 {
		return 1
	}
	return len(name) + 2 // a length ahead of each label takes the place of the dots, and one more, and the root's
}

// readName returns the name at an offset in lower case, and where it ends there. A label with a dot
// or a byte of zero is refused: with it two names would look like one.
func readName(b []byte, at int) (name string, end int, ok bool) {
	var most [MaxName]byte
	text, end, ok := appendNameAt(most[:0], b, at)
	return string(text), end, ok
}

// appendNameAt is readName, and appends the name to text, which is empty.
func appendNameAt(text, b []byte, at int) (name []byte, end int, ok bool) {
	for jumped := false; ; {
		if at >= len(b) {
			return nil, 0, false
		}
		n := int(b[at])
		switch {
		case n == 0:
			if !jumped {
				end = at + 1
			}
			return text, end, true
		case n&0xc0 == 0xc0:
			if at+2 > len(b) {
				return nil, 0, false
			}
			to := int(binary.BigEndian.Uint16(b[at:]) & 0x3fff)
			if !jumped {
				end, jumped = at+2, true
			}
			if to >= at { // it leads backwards only, and so comes to an end
				return nil, 0, false
			}
			at = to
		case n > MaxLabel || at+1+n > len(b) || len(text)+1+n > MaxName:
			return nil, 0, false
		default:
			if len(text) > 0 {
				text = append(text, '.')
			}
			for _, c := range b[at+1 : at+1+n] {
				if c == '.' || c == 0 {
					return nil, 0, false
				}
				if 'A' <= c && c <= 'Z' {
					c += 'a' - 'A'
				}
				text = append(text, c)
			}
			at += 1 + n
		}
	}
}

// skipName returns where the name at an offset ends, without following it.
func skipName(b []byte, at int) (int, bool) {
	for at < len(b) {
		n := int(b[at])
		switch {
		case n == 0:
			return at + 1, true
		case n&0xc0 == 0xc0:
			return at + 2, at+2 <= len(b)
		case n > MaxLabel:
			return 0, false
		}
		at += 1 + n
	}
	return 0, false
}

// record is where a record of a message is.
type record struct {
	typ, class uint16
	ttl        uint32
	ttlAt      int
	data, end  int
}

func readRecord(b []byte, at int) (record, bool) {
	at, ok := skipName(b, at)
	if !ok || at+10 > len(b) {
		return record{}, false
	}
	r := record{typ: binary.BigEndian.Uint16(b[at:]), class: binary.BigEndian.Uint16(b[at+2:]),
		ttl: binary.BigEndian.Uint32(b[at+4:]), ttlAt: at + 4, data: at + 10}
	r.end = r.data + int(binary.BigEndian.Uint16(b[at+8:]))
	if r.ttl > 1<<31-1 && r.typ != typeOPT {
		r.ttl = 0 // RFC 2181, section 8
	}
	return r, r.end <= len(b)
}

// answer is what an upstream server has said.
type answer struct {
	message []byte
	code    int
	// seconds is how long it holds; 0 if it is not to be kept.
	seconds uint32
	// truncated says that it was too large for UDP: the message is not whole. edns says that
	// it has an OPT record.
	truncated, edns bool
}

// parseAnswer reads the message b, if that is the answer to q that was asked with id. ok is false for
// any other: the right one may still come.
func parseAnswer(b []byte, q *query, id uint16) (a answer, ok bool) {
	if len(b) < headerSize || binary.BigEndian.Uint16(b) != id {
		return a, false
	}
	flags := binary.BigEndian.Uint16(b[2:])
	if flags&bitResponse == 0 || flags&maskOpcode != 0 {
		return a, false
	}
	a = answer{message: b, code: int(flags & maskCode)}
	questions := binary.BigEndian.Uint16(b[4:])
	if (a.code == codeFormat || a.code == codeNotImplemented) && questions == 0 {
		// Who does not understand EDNS may repeat nothing (RFC 6891, section 7). Id and port are right.
		a.message = q.reply(a.code)
		return a, true
	}
	name, end, named := readName(b, headerSize)
	if questions != 1 || len(b) < headerSize+len(q.question) || !named || name != q.name || end-headerSize+4 != len(q.question) ||
		binary.BigEndian.Uint16(b[end:]) != q.typ || binary.BigEndian.Uint16(b[end+2:]) != q.class {
		return a, false
	}
	if a.truncated = flags&bitTruncated != 0; a.truncated {
		return a, true
	}
	least, negative := uint32(1<<31-1), uint32(0)
	answers, err := eachRecord(b, func(section int, r record) {
		if r.typ == typeOPT {
			a.edns = true
			if r.ttl>>24 != 0 {
				a.code = int(r.ttl>>24)<<4 | a.code
			}
			return
		}
		least = min(least, r.ttl)
		if section == 1 && r.typ == typeSOA && r.end-r.data >= 20 {
			// RFC 2308, section 5: the lesser of the record's TTL and its last field.
			negative = min(r.ttl, binary.BigEndian.Uint32(b[r.end-4:]))
		}
	})
	if err != nil {
		return a, false
	}
	switch {
	case a.code == codeOK && answers > 0 && !onlyAliases(b, q):
		a.seconds = least
	case a.code == codeOK || a.code == codeNoName:
		a.seconds = min(least, negative, longestNegative)
	}
	return a, true
}

// onlyAliases reports whether an answer has aliases and not what was asked for: it is negative.
func onlyAliases(b []byte, q *query) bool {
	if q.typ == typeCNAME || q.typ == typeANY {
		return false
	}
	only := true
	_, _ = eachRecord(b, func(section int, r record) { only = only && (section > 0 || r.typ == typeCNAME) })
	return only
}

// eachRecord calls f for each record of a message with one question, with the number of its section:
// 0 is the answers. It returns how many answers there are.
func eachRecord(b []byte, f func(section int, r record)) (int, error) {
	at, ok := skipName(b, headerSize)
	if !ok || at+4 > len(b) {
		return 0, errMalformed
	}
	at += 4
	for section := range 3 {
		for range binary.BigEndian.Uint16(b[6+2*section:]) {
			r, ok := readRecord(b, at)
			if !ok {
				return 0, errMalformed
			}
			f(section, r)
			at = r.end
		}
	}
	return int(binary.BigEndian.Uint16(b[6:])), nil
}

// forClient returns the message of an answer for who has asked q, after it was kept for age seconds, in the memory of b.
func (a answer) forClient(b []byte, q *query, age, most uint32) []byte {
	b = append(b[:0], a.message...)
	binary.BigEndian.PutUint16(b, q.id)
	copy(b[headerSize:], q.question) // whose letters may be others
	// What comes from a cache is not authoritative.
	flags := binary.BigEndian.Uint16(b[2:]) &^ (bitAuthoritative | bitDesired | bitChecked)
	binary.BigEndian.PutUint16(b[2:], flags|bitAvailable|q.flags&(bitDesired|bitChecked))
	_, _ = eachRecord(b, func(_ int, r record) {
		if r.typ != typeOPT {
			ttl := min(r.ttl, most)
			binary.BigEndian.PutUint32(b[r.ttlAt:], ttl-min(age, ttl))
		}
	})
	return b
}

// reply starts an answer of one's own.
func (q *query) reply(code int) []byte {
	b := make([]byte, headerSize, plainSize)
	binary.BigEndian.PutUint16(b, q.id)
	binary.BigEndian.PutUint16(b[2:], bitResponse|bitAvailable|q.flags&(maskOpcode|bitDesired|bitChecked)|uint16(code&maskCode))
	if q.question != nil {
		binary.BigEndian.PutUint16(b[4:], 1)
		b = append(b, q.question...)
	}
	return b
}

// addOPT ends an answer of one's own to a query with EDNS.
func (q *query) addOPT(b []byte, extended uint32) []byte {
	if !q.edns {
		return b
	}
	binary.BigEndian.PutUint16(b[10:], binary.BigEndian.Uint16(b[10:])+1)
	return appendOPT(b, extended<<24|q.doBit())
}

func (q *query) doBit() uint32 {
	if q.do {
		return 1 << 15
	}
	return 0
}

func appendOPT(b []byte, ttl uint32) []byte {
	b = append(b, 0, 0, typeOPT, safeSize>>8, safeSize&0xff)
	b = binary.BigEndian.AppendUint32(b, ttl)
	return append(b, 0, 0)
}

// fail is a whole answer that says only that there is none.
func (q *query) fail(code int) []byte { return q.addOPT(q.reply(code), 0) }

// ask is the message that asks q upstream.
func (q *query) ask(id uint16) []byte {
	b := make([]byte, headerSize, headerSize+len(q.question)+11)
	binary.BigEndian.PutUint16(b, id)
	binary.BigEndian.PutUint16(b[2:], q.flags&(bitDesired|bitChecked))
	binary.BigEndian.PutUint16(b[4:], 1)
	return q.addOPT(append(b, q.question...), 0)
}

// fit returns what of an answer goes to a client that takes size bytes: all, or only that it is
// too large (TC).
func (q *query) fit(b []byte, size int) []byte {
	if len(b) <= size {
		return b
	}
	return q.tooLarge(int(b[3] & maskCode))
}

// tooLarge is an answer that says only that the whole one has no room: the client asks again over TCP.
func (q *query) tooLarge(code int) []byte {
	b := q.reply(code)
	b[2] |= bitTruncated >> 8
	return q.addOPT(b, 0)
}

// appendName appends a name without compression.
func appendName(b []byte, name string) []byte {
	if name != "" {
		for label := range strings.SplitSeq(name, ".") {
			b = append(append(b, byte(len(label))), label...)
		}
	}
	return append(b, 0)
}

// addRecord appends a record to the answers of b.
func addRecord(b []byte, name string, typ uint16, ttl uint32, data []byte) []byte {
	binary.BigEndian.PutUint16(b[6:], binary.BigEndian.Uint16(b[6:])+1)
	b = appendName(b, name)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, classIN)
	b = binary.BigEndian.AppendUint32(b, ttl)
	b = binary.BigEndian.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}
