// Package store keeps one text, the router's whole configuration, on flash, so
// that a power cut at any moment leaves the text from before or the one after.
//
// The flash is a raw MTD character device, a block device or a plain file; Open
// finds out. It is divided into slots of whole erase blocks, at least 64 KiB
// where the flash is large enough for two of that, else half of it. The two erase
// blocks of a 4 MB chip are two slots of one block. More blocks are more slots,
// up to 16: each Save takes the slot after the newest one, round robin, which
// spreads the wear and never touches the newest text.
//
// A slot holds one record: the text from the slot's start and, in the last bytes
// of the slot, a footer with sequence number, lengths, CRC-32C and magic. The valid
// record with the highest sequence number is the text.
//
// # Why a cut is safe
//
// Save erases the slot, writes the text, and when that is on the medium, writes
// the footer. So order alone decides, not luck: until the footer is there, the slot
// has no magic and is not valid. The checksum decides the rest: a cut within the
// 32 bytes of the footer, and bits that rot. CRC-32C finds any 3 wrong bits and any
// burst of up to 32 bits in a slot of any size that fits here, and misses other
// damage once in 4 billion times. The lengths are under the checksum too. A torn
// erase hits only a record that is not the newest.
//
// # Bounds
//
// A text is at most 256 KiB (MaxText). One that fits a slot is stored as it is, to
// be read by any tool; a longer one is compressed with LZW, which brings
// configurations to about a quarter: 64 KiB of flash hold some 230 kB.
//
// A Keeper writes at most 100 times at once and in the long run once in 5 minutes.
// Two NOR erase blocks of 100,000 cycles each last 200,000 writes: 27 years at 20
// changes a day, 694 days if a program changes the configuration all the time. The
// sequence number counts the writes, so sequence number / slots is how often
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

// MaxText is the length of the longest text in bytes, however large the slots
// are: it bounds the memory that Load takes.
const MaxText = 256 << 10

const (
	// wantSlot is the size of a slot where the flash has room for two of it.
	wantSlot = 64 << 10
	// maxSlots bounds the time of a scan at boot and of Erase.
	maxSlots = 16
	// fileSize is that of a plain file: two slots.
	fileSize = 2 * wantSlot
	// noSlot is the number of a slot if there is none.
	noSlot = -1
)

var (
	// ErrEmpty says that no text is stored: the defaults hold.
	ErrEmpty = errors.New("no configuration stored")
	// ErrTooLong says that a text does not fit a slot.
	ErrTooLong = errors.New("text too long")
)

// A Store is a flash opened. Its methods may be called at the same time.
type Store struct {
	path     string
	flash    flash.Flash
	medium   string
	slots    int
	slotSize int
	// page is the size of the slot's last piece, which the footer has to itself: on a
	// disk a sector, so that writing it does not touch the text.
	page int
	// writeSize is what the length of a write must be a multiple of.
	writeSize int
	readOnly  error

	mu sync.Mutex
	// unusable is why a slot is not written: a bad block.
	unusable []error
	// failed are the slots where a write failed since Open; they are tried last.
	failed []bool
	// highest is the highest sequence number read or tried. A number is never
	// tried twice: what a failed write left may yet be read as valid.
	highest uint64
}

// Info tells what Load found.
type Info struct {
	// Medium is "NOR flash", "NAND flash", "MTD", "block device" or "file".
	Medium string
	// Slots is how many slots there are, SlotSize the bytes of each.
	Slots, SlotSize int
	// ReadOnly is why Save will fail, if the flash could be opened for reading alone.
	ReadOnly error
	// Slot is the slot of the newest valid record, counted from 0, or -1.
	Slot int
	// Sequence is its sequence number: how often the flash was written.
	Sequence uint64
	// Reset reports that the record says "no text": Erase wrote it.
	Reset bool
	// Damaged are the slots that are not valid though they were once written, and
	// those that the flash itself calls bad.
	Damaged []Damage
}

// Damage is a slot that cannot be used, and why.
type Damage struct {
	Slot int
	Err  error
}

func (d Damage) String() string { return fmt.Sprintf("slot %d: %v", d.Slot, d.Err) }

// Open takes the flash at path: an MTD character device, a block device or a plain
// file. What was there before is not looked at, so path must be for this alone;
// a block device that is mounted is refused. A file that does not exist is
// made, except in /dev. If path cannot be opened for writing it is opened for
// reading: Load works and Save says why it does not.
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

// newStore divides the flash into slots of want bytes, or more if an erase block
// is larger, or less if the flash is smaller than two of them.
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
	s.failed = make([]bool, s.slots)
	s.unusable = make([]error, s.slots)
	for i := range s.slots {
		for off := s.offset(i); off < s.offset(i+1) && s.unusable[i] == nil; off += int64(g.EraseBlock) {
			s.unusable[i] = f.Bad(off)
		}
	}
	return s, nil
}

// Close closes the flash. All that was saved is on the medium already.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.flash.Close(); err != nil {
		return fmt.Errorf("close store %s: %w", s.path, err)
	}
	return nil
}

// Load reads the newest valid text. If there is none, because nothing was ever
// saved, all is damaged, or Erase came last, the error is ErrEmpty; Info tells which
// in either case.
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
	// The scan has checked that it can be unpacked.
	text, err = newest.text()
	if err != nil {
		return nil, info, fmt.Errorf("load from %s: slot %d: %w", s.path, newest.slot, err)
	}
	return text, info, nil
}

// Save stores text, reads it back and returns when it is on the medium. If the
// newest record says the same already, nothing is written. A slot that cannot be
// written is left for the next one; the newest text's own slot is never
// taken, so after an error that text is still there. (After an error of a slot
// that did take the record and could only not be read back, the next boot may find
// the new text: the old or the new one in any case.)
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

// Erase makes Load return ErrEmpty: the defaults come back. It first writes a
// record that says so, as Save would, and then erases the other slots, for they
// may hold secrets. A cut leaves the text or none. If no slot takes that record, the
// slots are erased all the same, from the oldest text to the newest, which has the
// same effect; a text that cannot be erased ends it there, lest an old one be left as
// the newest. After an error Load tells what holds. A Keeper of the same store
// must be closed before, or it may save again.
func (s *Store) Erase() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readOnly != nil {
		return fmt.Errorf("erase %s: opened for reading alone: %w", s.path, s.readOnly)
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

// put writes a record with the next sequence number to the first slot after the
// newest that takes it, unless the newest is the same, and returns the slot.
func (s *Store) put(r record) (slot int, err error) {
	newest, _ := s.scan()
	if newest.slot != noSlot && newest.same(r) {
		return newest.slot, nil
	}
	if s.readOnly != nil {
		return noSlot, fmt.Errorf("opened for reading alone: %w", s.readOnly)
	}
	var candidates, last []int
	for n := range s.slots {
		switch i := (newest.slot + 1 + n) % s.slots; {
		case i == newest.slot || s.unusable[i] != nil:
		case s.failed[i]:
			last = append(last, i)
		default:
			candidates = append(candidates, i)
		}
	}
	err = errors.New("no slot to write to: all others are bad blocks")
	for n, i := range append(candidates, last...) {
		s.highest++
		r.sequence = s.highest
		slotErr := s.write(i, r)
		s.failed[i] = slotErr != nil
		if slotErr == nil {
			return i, nil
		}
		slotErr = fmt.Errorf("slot %d: %w", i, slotErr)
		if n == 0 {
			err = slotErr
		} else {
			err = fmt.Errorf("%w; %w", err, slotErr)
		}
	}
	return noSlot, err
}

// write erases slot i, puts the record there and reads it back.
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
		return errors.New("verify: another record is read than was written")
	}
	return nil
}

// found is a valid record and where it is.
type found struct {
	record
	slot int
}

// scan reads all slots, here at each use: after a write of a second a read of some
// milliseconds does not matter, and there is no copy of the flash's state that could
// be wrong.
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

// blank reports whether slot i was never written: erased, or a disk's zeros.
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
		return nil // io.ReaderAt may say EOF with the last bytes
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d of %d bytes at %#x: %w", n, len(p), off, err)
}

// offset is where slot i begins.
func (s *Store) offset(i int) int64 { return int64(i) * int64(s.slotSize) }

// uniform reports whether all bytes are the same.
func uniform(p []byte) bool { return len(p) == 0 || bytes.Count(p, p[:1]) == len(p) }

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }
