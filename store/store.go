// Package store keeps one text, the router's whole configuration, on flash. It promises
// that a power cut at any moment leaves either the text from before or the one after.
//
// The flash is a raw MTD character device, a block device or a plain file (package
// flash). It is divided into slots of whole erase blocks. A slot has at least 64 KiB, or
// half of the flash if two slots of 64 KiB do not fit. So the two erase blocks of a 4 MB
// chip are two slots of one block. A larger flash has more slots, up to 16. Each Save
// writes to the slot after the newest one, round robin: that spreads the wear and never
// touches the newest text.
//
// A slot holds one record: the text at the slot's start, and in its last bytes a footer
// with sequence number, lengths, CRC-32C and magic. The valid record with the highest
// sequence number holds the text.
//
// # Why a cut is safe
//
// Save erases the slot, writes the text and, when that is on the medium, the footer.
// Until the footer is complete, the slot has no magic and is not valid. The checksum
// finds what is left: a cut within the 32 bytes of the footer, and bits that have
// decayed. In slots of the sizes used here CRC-32C finds any 3 wrong bits and any burst
// of up to 32 bits, and misses other damage once in 4 billion times. It covers the
// lengths too. An erase that is cut short hits only a record that is not the newest.
//
// # Bounds
//
// A text is at most 256 KiB long (MaxText). One that fits a slot is stored as it is, so
// that any tool can read it. A longer one is compressed with LZW, which brings
// configurations to about a quarter: 64 KiB of flash hold some 230 kB.
//
// A Keeper writes at most 100 times in a burst, and once in 5 minutes in the long run.
// Two NOR erase blocks of 100,000 cycles each last 200,000 writes: 27 years at 20
// changes a day, 694 days if a program changes the configuration all the time. The
// sequence number counts the writes: divided by the number of slots it tells how often
// each slot was erased.
package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/postern-router/postern/flash"
)

// MaxText is the length of the longest text, in bytes. It bounds the memory that Load
// takes, however large the slots are.
const MaxText = 256 << 10

const (
	// wantSlot is the least size of a slot, if the flash has room for two of it.
	wantSlot = 64 << 10
	// maxSlots bounds the time that a scan takes at boot, and Erase.
	maxSlots = 16
	// fileSize is the size of a plain file: two slots.
	fileSize = 2 * wantSlot
	// noSlot stands for the number of a slot if there is none.
	noSlot = -1
)

var (
	// ErrEmpty says that no text is stored: the defaults hold.
	ErrEmpty = errors.New("no configuration stored")
	// ErrTooLong says that a text does not fit a slot.
	ErrTooLong = errors.New("text too long")
)

// A Store is an open flash with a text. Its methods may be called from any goroutine.
type Store struct {
	path     string
	flash    flash.Flash
	medium   string
	slots    int
	slotSize int
	// page is the size of the slot's last piece, which holds the footer and nothing else.
	// On a disk it is a sector, so that writing it does not touch the text.
	page int
	// writeSize is what the length of each write is a multiple of.
	writeSize int
	readOnly  error

	mu sync.Mutex
	// unusable tells for each slot why it is never written, or nil: it has a bad block.
	unusable []error
	// failed are the errors of the slots whose last write since Open has failed. They are tried last.
	failed []error
	// highest is the highest sequence number that was read or tried. None is tried
	// twice: what a failed write has left may still be read as valid later.
	highest uint64
}

// Info tells what Load found.
type Info struct {
	// Medium is "NOR flash", "NAND flash", "MTD", "block device" or "file".
	Medium string
	// Slots is the number of slots, SlotSize the size of each in bytes.
	Slots, SlotSize int
	// ReadOnly is the reason why Save will fail, if the flash could only be opened for
	// reading, or nil.
	ReadOnly error
	// Slot is the slot of the newest valid record, counted from 0, or -1.
	Slot int
	// Sequence is the sequence number of that record: how often the flash was written.
	Sequence uint64
	// Reset says that the record stands for "no text": Erase wrote it.
	Reset bool
	// Damaged are the slots that were written once and are not valid, and those that
	// the flash itself marks as bad.
	Damaged []Damage
}

// Damage is a slot that cannot be used, and why.
type Damage struct {
	Slot int
	Err  error
}

func (d Damage) String() string { return fmt.Sprintf("slot %d: %v", d.Slot, d.Err) }

// Open opens the flash at path: an MTD character device, a block device or a plain
// file. The store takes all of it and does not look for what others have written there.
// Open refuses a block device that is mounted. A file that does not exist is created,
// except in /dev. If path can only be opened for reading, Load works, and Save returns
// the reason.
func Open(path string) (*Store, error) {
	f, g, err := flash.Open(path, fileSize)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	s, err := newStore(path, f, g, wantSlot)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), f.Close())
	}
	return s, nil
}

// newStore divides the flash into slots of want bytes: more if an erase block is larger,
// less if the flash has no room for two.
func newStore(path string, f flash.Flash, g flash.Geometry, want int) (*Store, error) {
	if g.EraseBlock <= 0 || g.WriteSize <= 0 || g.EraseBlock%g.WriteSize != 0 {
		return nil, fmt.Errorf("erase blocks of %d bytes with writes of %d", g.EraseBlock, g.WriteSize)
	}
	blocks := g.Size / int64(g.EraseBlock)
	perSlot := min(int64(roundUp(want, g.EraseBlock)/g.EraseBlock), blocks/2)
	s := &Store{
		path:      path,
		flash:     f,
		medium:    g.Medium,
		slotSize:  int(perSlot) * g.EraseBlock,
		page:      roundUp(footerSize, g.WriteSize),
		writeSize: g.WriteSize,
		readOnly:  g.ReadOnly,
	}
	if perSlot == 0 || s.slotSize <= s.page {
		return nil, fmt.Errorf("two slots need two erase blocks (%d bytes each): there are %d bytes", g.EraseBlock, g.Size)
	}
	s.slots = int(min(blocks/perSlot, maxSlots))
	s.failed = make([]error, s.slots)
	s.unusable = make([]error, s.slots)
	for i := range s.slots {
		for off := s.offset(i); off < s.offset(i+1) && s.unusable[i] == nil; off += int64(g.EraseBlock) {
			s.unusable[i] = f.Bad(off)
		}
	}
	return s, nil
}

// Close closes the flash. Everything that was saved is on the medium already.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.flash.Close(); err != nil {
		return fmt.Errorf("close store %s: %w", s.path, err)
	}
	return nil
}

// Load reads the newest valid text. The error is ErrEmpty if there is none, because
// nothing was ever saved, everything is damaged, or Erase came last. Info tells which; it
// is valid after an error too.
func (s *Store) Load() (text []byte, info Info, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	newest, damaged := s.scan()
	info = Info{
		Medium: s.medium, Slots: s.slots, SlotSize: s.slotSize, ReadOnly: s.readOnly,
		Slot: noSlot, Damaged: damaged,
	}
	if newest.slot == noSlot {
		return nil, info, fmt.Errorf("load from %s: %w", s.path, ErrEmpty)
	}
	info.Slot, info.Sequence = newest.slot, newest.sequence
	if newest.content == nothing {
		info.Reset = true
		return nil, info, fmt.Errorf("load from %s: %w", s.path, ErrEmpty)
	}
	// scan has checked that the text can be unpacked.
	text, err = newest.text()
	if err != nil {
		return nil, info, fmt.Errorf("load from %s: slot %d: %w", s.path, newest.slot, err)
	}
	return text, info, nil
}

// Save stores text, reads it back, and returns when it is on the medium. It writes
// nothing if the newest record holds the same text. If a slot cannot be written, it takes
// the next one, but never the slot of the newest text: after an error that text is still
// there. (If a slot took the record and it could not be read back, the next boot may find
// the new text. It is always the old or the new one.)
func (s *Store) Save(text []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, err := pack(text, s.slotSize-s.page)
	if err != nil {
		return fmt.Errorf("save to %s: %w", s.path, err)
	}
	if _, err := s.put(r); err != nil {
		return fmt.Errorf("save to %s: %w", s.path, err)
	}
	return nil
}

// Erase makes Load return ErrEmpty, so that the defaults come back. First it writes a
// record that stands for "no text", as Save writes one. Then it erases the other slots,
// for they may hold secrets. A power cut leaves the newest text or none.
//
// If no slot takes that record, the slots are erased all the same, from the oldest text
// to the newest, which has the same effect. It stops at a text that cannot be erased, so
// that no older text becomes the newest. After an error Load tells what holds.
//
// A Keeper of the same store must be closed first, or it may save again.
func (s *Store) Erase() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly != nil {
		return fmt.Errorf("erase %s: opened only for reading: %w", s.path, s.readOnly)
	}
	newest, _ := s.scan()
	kept, putErr := s.put(record{content: nothing})
	var eraseErr error
	for n := range s.slots {
		i := (newest.slot + 1 + n) % s.slots // from the oldest to the newest
		if i == kept || s.unusable[i] != nil {
			continue
		}
		if blank, err := s.blank(i); err == nil && blank {
			continue
		}
		_, readErr := s.read(i)
		if err := s.flash.Erase(s.offset(i), int64(s.slotSize)); err != nil {
			eraseErr = errors.Join(eraseErr, fmt.Errorf("erase %s: slot %d: %w", s.path, i, err))
			if kept == noSlot && readErr == nil {
				break
			}
		}
	}
	if eraseErr != nil && putErr != nil {
		return fmt.Errorf("erase %s: %w; %w", s.path, putErr, eraseErr)
	}
	return eraseErr
}

// put gives r the next sequence number, writes it to the first slot behind the newest
// that takes it, and returns that slot. If the newest record is the same, it returns the
// newest's slot and writes nothing.
func (s *Store) put(r record) (slot int, err error) {
	newest, _ := s.scan()
	if newest.slot != noSlot && newest.same(r) {
		return newest.slot, nil
	}
	if s.readOnly != nil {
		return noSlot, fmt.Errorf("opened only for reading: %w", s.readOnly)
	}
	var candidates, last []int
	for n := range s.slots {
		switch i := (newest.slot + 1 + n) % s.slots; {
		case i == newest.slot || s.unusable[i] != nil:
		case s.failed[i] != nil:
			last = append(last, i)
		default:
			candidates = append(candidates, i)
		}
	}
	candidates = append(candidates, last...)
	for n, i := range candidates {
		s.highest++
		r.sequence = s.highest
		s.failed[i] = s.write(i, r)
		if s.failed[i] == nil {
			return i, nil
		}
		if n == 0 {
			err = fmt.Errorf("slot %d: %w", i, s.failed[i])
		}
	}
	switch len(candidates) {
	case 0:
		return noSlot, errors.New("no slot is left to write to: the others are bad blocks")
	case 1:
		return noSlot, fmt.Errorf("no slot is left to write to: %w", err)
	case 2:
		return noSlot, fmt.Errorf("no slot is left to write to: %w (and 1 more slot)", err)
	default:
		// The reasons of all would make a line of a thousand letters.
		return noSlot, fmt.Errorf("no slot is left to write to: %w (and %d more slots)", err, len(candidates)-1)
	}
}

// Failed returns the slots whose last write since Open has failed: Save tries them only when all others have failed
// too. left is how many slots are neither these nor have a bad block; the one of the newest text is among them.
func (s *Store) Failed() (failed []Damage, left int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, err := range s.failed {
		switch {
		case err != nil:
			failed = append(failed, Damage{i, err})
		case s.unusable[i] == nil:
			left++
		}
	}
	return failed, left
}

// write erases slot i, writes the record to it and reads it back.
func (s *Store) write(i int, r record) error {
	start := s.offset(i)
	if err := s.flash.Erase(start, int64(s.slotSize)); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	payload := slices.Concat(r.payload, bytes.Repeat([]byte{0xFF}, roundUp(len(r.payload), s.writeSize)-len(r.payload)))
	if len(payload) > 0 {
		if err := s.flash.Program(payload, start); err != nil {
			return fmt.Errorf("write text: %w", err)
		}
	}
	page := append(bytes.Repeat([]byte{0xFF}, s.page-footerSize), r.footer()...)
	if err := s.flash.Program(page, s.offset(i+1)-int64(s.page)); err != nil {
		return fmt.Errorf("write footer: %w", err)
	}
	got, err := s.read(i)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if got.sequence != r.sequence || !got.same(r) {
		return errors.New("verify: the record read back is not the one written")
	}
	return nil
}

// found is a valid record and its slot.
type found struct {
	record
	slot int
}

// scan reads all slots. It is called at each use: a write takes a second, beside which
// the milliseconds of reading do not matter, and so no copy of the flash's state can be
// wrong.
func (s *Store) scan() (newest found, damaged []Damage) {
	newest.slot = noSlot
	for i := range s.slots {
		if s.unusable[i] != nil {
			damaged = append(damaged, Damage{i, s.unusable[i]})
			continue
		}
		r, err := s.read(i)
		switch {
		case errors.Is(err, errBlank):
		case err != nil:
			damaged = append(damaged, Damage{i, err})
		case newest.slot == noSlot || r.sequence > newest.sequence:
			newest = found{r, i}
		}
	}
	s.highest = max(s.highest, newest.sequence)
	return newest, damaged
}

// read returns the record in slot i if it is valid.
func (s *Store) read(i int) (record, error) {
	end := s.offset(i + 1)
	footer := make([]byte, footerSize)
	if err := s.readAt(footer, end-footerSize); err != nil {
		return record{}, fmt.Errorf("read footer: %w", err)
	}
	r, length, sum, err := parseFooter(footer, s.slotSize-s.page)
	if errors.Is(err, errNoMagic) {
		blank, blankErr := s.blank(i)
		switch {
		case blankErr != nil:
			return record{}, blankErr
		case blank:
			return record{}, errBlank
		case uniform(footer) && footer[0] == 0xFF:
			return record{}, errUnfinished
		}
	}
	if err != nil {
		return record{}, err
	}
	r.payload = make([]byte, length)
	if err := s.readAt(r.payload, s.offset(i)); err != nil {
		return record{}, fmt.Errorf("read text: %w", err)
	}
	if err := r.check(sum); err != nil {
		return record{}, err
	}
	return r, nil
}

// blank reports whether slot i was never written: it is erased, or all zeros on a disk.
func (s *Store) blank(i int) (bool, error) {
	piece := make([]byte, min(4096, s.slotSize))
	var first byte
	for off := s.offset(i); off < s.offset(i+1); off += int64(len(piece)) {
		piece = piece[:min(int64(len(piece)), s.offset(i+1)-off)]
		if err := s.readAt(piece, off); err != nil {
			return false, fmt.Errorf("read: %w", err)
		}
		if off == s.offset(i) {
			first = piece[0]
		}
		if !uniform(piece) || piece[0] != first || first != 0 && first != 0xFF {
			return false, nil
		}
	}
	return true, nil
}

func (s *Store) readAt(p []byte, off int64) error {
	n, err := s.flash.ReadAt(p, off)
	if n == len(p) {
		return nil // an io.ReaderAt may return EOF with the last bytes
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d of %d bytes at %#x: %w", n, len(p), off, err)
}

// offset is where slot i begins.
func (s *Store) offset(i int) int64 { return int64(i) * int64(s.slotSize) }

// uniform reports whether all bytes of p are the same.
func uniform(p []byte) bool { return len(p) == 0 || bytes.Count(p, p[:1]) == len(p) }

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
