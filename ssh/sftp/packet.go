package sftp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/postern-router/postern/console/files"
)

// The packets of the protocol (section 3 of the draft).
const (
	fxpInit     = 1
	fxpVersion  = 2
	fxpOpen     = 3
	fxpClose    = 4
	fxpRead     = 5
	fxpWrite    = 6
	fxpLstat    = 7
	fxpFstat    = 8
	fxpSetstat  = 9
	fxpFsetstat = 10
	fxpOpendir  = 11
	fxpReaddir  = 12
	fxpRemove   = 13
	fxpMkdir    = 14
	fxpRmdir    = 15
	fxpRealpath = 16
	fxpStat     = 17
	fxpRename   = 18
	fxpReadlink = 19
	fxpSymlink  = 20
	fxpStatus   = 101
	fxpHandle   = 102
	fxpData     = 103
	fxpName     = 104
	fxpAttrs    = 105
	fxpExtended = 200
)

// The codes of a status.
const (
	statusOK          = 0
	statusEOF         = 1
	statusNotThere    = 2
	statusDenied      = 3
	statusFailure     = 4
	statusBadMessage  = 5
	statusUnsupported = 8
)

// What an open asks for.
const (
	openRead     = 0x01
	openWrite    = 0x02
	openAppend   = 0x04
	openCreate   = 0x08
	openTruncate = 0x10
	openNew      = 0x20
)

// What attributes have.
const (
	attrSize        = 0x01
	attrOwners      = 0x02
	attrPermissions = 0x04
	attrTimes       = 0x08
	attrExtended    = 1 << 31
)

const (
	version = 3
	// maxPacket bounds a packet: 32 KiB of data, as all clients send unless they are told of more, and what is around it.
	maxPacket = files.MaxPiece + 4<<10
	// maxData is how much is read at once, as the draft recommends.
	maxData = files.MaxPiece

	posixRename = "posix-rename@openssh.com"
)

var errPacket = errors.New("sftp: a packet that is none")

// readPacket reads a packet into buffer, which it returns as the packet needs it.
func readPacket(r io.Reader, buffer []byte) (packet, rest []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, buffer, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxPacket {
		return nil, buffer, fmt.Errorf("%w: of %d bytes, where 1..%d are expected", errPacket, n, maxPacket)
	}
	if cap(buffer) < int(n) {
		buffer = make([]byte, max(int(n), 1<<10))
	}
	packet = buffer[:n]
	if _, err := io.ReadFull(r, packet); err != nil {
		return nil, buffer, fmt.Errorf("sftp: %w", io.ErrUnexpectedEOF)
	}
	return packet, buffer[:cap(buffer)], nil
}

// reader reads the parts of a packet. After the first that is not there it reads zeros, and bad is set.
type reader struct {
	rest []byte
	bad  bool
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.rest)) {
		r.rest, r.bad = nil, true
		return nil
	}
	taken := r.rest[:n]
	r.rest = r.rest[n:]
	return taken
}

func (r *reader) uint32() uint32 {
	if b := r.take(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (r *reader) uint64() uint64 {
	high := r.uint32()
	return uint64(high)<<32 | uint64(r.uint32())
}

// bytes reads a string: it stays in the packet.
func (r *reader) bytes() []byte { return r.take(r.uint32()) }

func (r *reader) string() string { return string(r.bytes()) }

// attributes reads attributes, of which the size alone means something.
func (r *reader) attributes() (size uint64, hasSize bool) {
	flags := r.uint32()
	if flags&attrSize != 0 {
		size, hasSize = r.uint64(), true
	}
	for _, two := range []struct{ flag, bytes uint32 }{{attrOwners, 8}, {attrPermissions, 4}, {attrTimes, 8}} {
		if flags&two.flag != 0 {
			r.take(two.bytes)
		}
	}
	if flags&attrExtended != 0 {
		for range min(r.uint32(), maxPacket) {
			r.bytes()
			r.bytes()
			if r.bad {
				break
			}
		}
	}
	return size, hasSize
}

// writer makes a packet: its length comes first, when all is there.
type writer struct{ packet []byte }

func newWriter(buffer []byte, kind byte, id uint32) *writer {
	w := &writer{append(buffer[:0], 0, 0, 0, 0, kind)}
	w.uint32(id)
	return w
}

func (w *writer) uint32(n uint32) { w.packet = binary.BigEndian.AppendUint32(w.packet, n) }
func (w *writer) uint64(n uint64) { w.packet = binary.BigEndian.AppendUint64(w.packet, n) }

func (w *writer) string(s string) {
	w.uint32(uint32(len(s)))
	w.packet = append(w.packet, s...)
}

// finish returns the whole packet.
func (w *writer) finish() []byte {
	binary.BigEndian.PutUint32(w.packet, uint32(len(w.packet)-4))
	return w.packet
}
