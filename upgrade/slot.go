package upgrade

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/postern-router/postern/flash"
)

const (
	slotMagic = 0x50535431
	// wordsSize is the size of the state on a chip.
	wordsSize = 52 + versionSize
	// triedAt and confirmedAt are the places of these words in it.
	triedAt, confirmedAt = 8, 12
	unset                = 0xFFFFFFFF

	// environmentSize is the size of a state on a disk.
	environmentSize = 4096
	envTitle        = "# GRUB Environment Block\n"
	envMagic        = "PST1"

	// chunk is the size of a write to a disk.
	chunk = 256 << 10
)

// State is what the boot loader knows about a slot.
type State struct {
	// Whole says that the slot holds an image. If not, the other fields mean nothing.
	Whole    bool
	Sequence uint32
	// Tried says that the boot loader has started the image, Confirmed that the image has
	// then found that it works.
	Tried, Confirmed bool
	// Length is the length of the slot image in bytes, Sum its SHA-256.
	Length int64
	Sum    [sha256.Size]byte
	// Version is the version of the software, or "" if it is not known.
	Version string
}

// environmentAt is where the states of the two slots are in their partition of a disk.
var environmentAt = [2]int64{4096, 12288}

// A Slot is a place on flash for an image. Only one goroutine may use it at a time.
type Slot struct {
	path  string
	flash flash.Flash
	flash.Geometry
	// room is the length in bytes of the longest image that fits.
	room int64
	// state is the flash that holds the state, at stateAt. On a chip it is flash itself.
	state   flash.Flash
	stateAt int64
}

// Slots are the two slots of a board.
type Slots [2]*Slot

// OpenSlots opens the partitions of two slots, on an MTD chip or a disk. states is the
// partition of a disk that holds their states; it is not used on a chip.
func OpenSlots(paths [2]string, states string) (Slots, error) {
	var files [2]*os.File
	for i, path := range paths {
		var err error
		if files[i], err = flash.OpenFile(path); err != nil {
			if i == 1 {
				files[0].Close()
			}
			return Slots{}, fmt.Errorf("open slot %s: %w", path, err)
		}
	}
	return newSlots(paths, files, func() (*os.File, error) { return flash.OpenFile(states) })
}

// newSlots takes over the open partitions of two slots, and closes them after an error.
// states opens the partition of their states.
func newSlots(names [2]string, files [2]*os.File, states func() (*os.File, error)) (Slots, error) {
	var s Slots
	for i, name := range names {
		var err error
		if s[i], err = newPartition(name, files[i]); err != nil {
			if i == 0 {
				files[1].Close()
			}
			return Slots{}, errors.Join(err, s.Close())
		}
	}
	if s[0].Chip && s[1].Chip {
		for _, slot := range s {
			slot.state, slot.stateAt = slot.flash, slot.Size-int64(slot.EraseBlock)
			slot.room = slot.stateAt
			if slot.room <= 0 || slot.WriteSize > 4 || slot.EraseBlock < wordsSize {
				return Slots{}, errors.Join(fmt.Errorf("slot %s: %d bytes, erase blocks of %d, writes of %d: there is no room for an image and a state",
					slot.path, slot.Size, slot.EraseBlock, slot.WriteSize), s.Close())
			}
		}
		return s, nil
	}
	file, err := states()
	if err != nil {
		return Slots{}, errors.Join(fmt.Errorf("states of the slots: %w", err), s.Close())
	}
	f, g, err := flash.New(file)
	if err != nil {
		return Slots{}, errors.Join(fmt.Errorf("states of the slots: %w", err), file.Close(), s.Close())
	}
	s[0].state, s[1].state = f, f
	s[0].stateAt, s[1].stateAt = environmentAt[0], environmentAt[1]
	if g.Chip || g.Size < environmentAt[1]+environmentSize {
		return Slots{}, errors.Join(fmt.Errorf("states of the slots: %s of %d bytes at %s, expected a disk's partition", g.Medium, g.Size, file.Name()), s.Close())
	}
	return s, nil
}

// Close closes the slots.
func (s Slots) Close() error {
	var err error
	for i, slot := range s {
		if slot == nil {
			continue
		}
		if i == 0 && slot.state != nil && slot.state != slot.flash {
			err = errors.Join(err, slot.state.Close())
		}
		err = errors.Join(err, slot.flash.Close())
	}
	return err
}

// newPartition takes over an open partition for an image without a state, and closes it after
// an error.
func newPartition(name string, file *os.File) (*Slot, error) {
	f, g, err := flash.New(file)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open slot %s: %w", name, err), file.Close())
	}
	return newSlot(name, f, g)
}

func newSlot(path string, f flash.Flash, g flash.Geometry) (*Slot, error) {
	if g.EraseBlock <= 0 || g.WriteSize <= 0 || g.EraseBlock%g.WriteSize != 0 {
		return nil, errors.Join(fmt.Errorf("slot %s: erase blocks of %d bytes with writes of %d", path, g.EraseBlock, g.WriteSize), f.Close())
	}
	return &Slot{path: path, flash: f, Geometry: g, room: g.Size}, nil
}

// Room returns the length in bytes of the longest image that fits.
func (s *Slot) Room() int64 { return s.room }

// State reads the state. A slot that was never written is not Whole.
func (s *Slot) State() (State, error) {
	size := environmentSize
	if s.Chip {
		size = wordsSize
	}
	b := make([]byte, size)
	if _, err := s.state.ReadAt(b, s.stateAt); err != nil {
		return State{}, fmt.Errorf("slot %s: read its state: %w", s.path, err)
	}
	if s.Chip {
		return parseWords(b), nil
	}
	return parseEnvironment(b), nil
}

// parseWords reads the state on a chip, of wordsSize bytes.
func parseWords(b []byte) State {
	word := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
	if word(0) != slotMagic {
		return State{}
	}
	version, _, _ := bytes.Cut(b[52:], []byte{0})
	return State{
		Whole: true, Sequence: word(4),
		// If the power fails while the word is written, it counts as tried.
		Tried: word(triedAt) != unset, Confirmed: word(confirmedAt) == 0,
		Length: int64(word(16)), Sum: [sha256.Size]byte(b[20:]), Version: clean(string(version)),
	}
}

// words returns the state as a chip has it. tried and confirmed are left erased if they are
// false, so that they can be written later.
func (st State) words() []byte {
	b := bytes.Repeat([]byte{0xFF}, wordsSize)
	little := binary.LittleEndian
	little.PutUint32(b, slotMagic)
	little.PutUint32(b[4:], st.Sequence)
	if st.Tried {
		little.PutUint32(b[triedAt:], 0)
	}
	if st.Confirmed {
		little.PutUint32(b[confirmedAt:], 0)
	}
	little.PutUint32(b[16:], uint32(st.Length))
	copy(b[20:], st.Sum[:])
	clear(b[52:])
	copy(b[52:len(b)-1], st.Version)
	return b
}

// parseEnvironment reads the state on a disk. The boot loader may have written its lines in
// another order. If something is missing or wrong, the slot holds no image; the boot loader
// sees it that way too.
func parseEnvironment(b []byte) State {
	text, ok := strings.CutPrefix(string(b), envTitle)
	if !ok {
		return State{}
	}
	values := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok && strings.HasSuffix(line, "\n") {
			values[name] = value
		}
	}
	sequence, seqErr := strconv.ParseUint(values["sequence"], 10, 32)
	length, lengthErr := strconv.ParseInt(values["length"], 10, 64)
	sum, sumErr := hex.DecodeString(values["sha256"])
	if values["magic"] != envMagic || seqErr != nil || lengthErr != nil || sumErr != nil || len(sum) != sha256.Size {
		return State{}
	}
	return State{
		Whole: true, Sequence: uint32(sequence), Tried: values["tried"] != "0", Confirmed: values["confirmed"] == "1",
		Length: length, Sum: [sha256.Size]byte(sum), Version: clean(values["version"]),
	}
}

// environment returns the state as a disk has it.
func (st State) environment() []byte {
	bit := map[bool]int{true: 1}
	magic := "none"
	if st.Whole {
		magic = envMagic
	}
	text := fmt.Sprintf("%smagic=%s\nsequence=%d\ntried=%d\nconfirmed=%d\nlength=%d\nsha256=%x\nversion=%s\n",
		envTitle, magic, st.Sequence, bit[st.Tried], bit[st.Confirmed], st.Length, st.Sum, st.Version)
	return append([]byte(text), bytes.Repeat([]byte{'#'}, environmentSize-len(text))...)
}

// clean returns version if it can be shown, else "".
func clean(version string) string {
	if len(version) >= versionSize || !printable(version) {
		return ""
	}
	return version
}

// Words returns the state st for the factory image of a board with a chip: tried and
// confirmed. It goes to the start of the last erase block of a slot, the rest of which stays
// erased.
func (st State) Words() []byte {
	st.Whole, st.Tried, st.Confirmed = true, true, true
	return st.words()
}

// Confirm marks the image as one that works, so that the boot loader goes on starting it.
func (s *Slot) Confirm() error {
	st, err := s.State()
	if err != nil {
		return err
	}
	if !st.Whole {
		return fmt.Errorf("confirm slot %s: it holds no image", s.path)
	}
	if st.Confirmed {
		return nil
	}
	st.Confirmed = true
	if s.Chip {
		err = s.state.Program(make([]byte, 4), s.stateAt+confirmedAt)
	} else {
		err = s.state.Program(st.environment(), s.stateAt)
	}
	if err != nil {
		return fmt.Errorf("confirm slot %s: %w", s.path, err)
	}
	if st, err = s.State(); err == nil && !st.Confirmed {
		err = errors.New("the state read back is not the one written")
	}
	if err != nil {
		return fmt.Errorf("confirm slot %s: %w", s.path, err)
	}
	return nil
}

// Write writes the image of h to the slot, as one that is to be tried, with this sequence
// number. It reads image to its end. After an error the slot holds no image. progress, which
// may be nil, is called with the number of bytes that have been written.
func (s *Slot) Write(h Header, image io.Reader, sequence uint32, progress func(written int64)) error {
	if h.Length > s.Room() {
		return fmt.Errorf("slot %s: an image of %d bytes, and there is room for %d", s.path, h.Length, s.Room())
	}
	if s.ReadOnly != nil {
		return fmt.Errorf("slot %s: opened only for reading: %w", s.path, s.ReadOnly)
	}
	if err := s.clearState(); err != nil {
		return fmt.Errorf("slot %s: %w", s.path, err)
	}
	sum, err := s.writeImage(h, image, progress)
	if err != nil {
		return fmt.Errorf("slot %s: %w", s.path, err)
	}
	if sum != h.Sum {
		return errDamaged
	}
	if err := s.verify(h); err != nil {
		return fmt.Errorf("slot %s: %w", s.path, err)
	}
	st := State{Whole: true, Sequence: sequence, Length: h.Length, Sum: h.Sum, Version: h.Version}
	if err := s.writeState(st); err != nil {
		return fmt.Errorf("slot %s: write its state: %w", s.path, err)
	}
	return nil
}

// clearState marks the slot as one that holds no image.
func (s *Slot) clearState() error {
	if !s.Chip {
		if err := s.state.Program(State{}.environment(), s.stateAt); err != nil {
			return fmt.Errorf("clear its state: %w", err)
		}
		return nil
	}
	if err := s.flash.Bad(s.stateAt); err != nil {
		return err
	}
	// An erase that is cut short may leave anything. The magic is cleared first, so that it
	// cannot be among that.
	st, err := s.State()
	if err != nil {
		return err
	}
	if st.Whole {
		if err := s.state.Program(make([]byte, 4), s.stateAt); err != nil {
			return fmt.Errorf("clear its state: %w", err)
		}
	}
	if err := s.flash.Erase(s.stateAt, int64(s.EraseBlock)); err != nil {
		return fmt.Errorf("clear its state: %w", err)
	}
	return nil
}

// writeState writes the state of a whole image. On a chip it writes the magic last, by
// itself.
func (s *Slot) writeState(st State) error {
	if !s.Chip {
		return s.state.Program(st.environment(), s.stateAt)
	}
	words := st.words()
	if err := s.state.Program(words[16:], s.stateAt+16); err != nil {
		return err
	}
	if err := s.state.Program(words[4:8], s.stateAt+4); err != nil {
		return err
	}
	if err := s.state.Program(words[:4], s.stateAt); err != nil {
		return err
	}
	if got, err := s.State(); err != nil || got != st {
		return errors.Join(err, errors.New("the state read back is not the one written"))
	}
	return nil
}

// writeImage copies image to the slot and returns its hash. The image must be as long as h
// says.
func (s *Slot) writeImage(h Header, image io.Reader, progress func(int64)) (sum [sha256.Size]byte, err error) {
	hashed := sha256.New()
	piece := make([]byte, s.pieceSize())
	for at := int64(0); at < h.Length; {
		part := piece[:min(int64(len(piece)), h.Length-at)]
		if n, err := io.ReadFull(image, part); err != nil {
			return sum, fmt.Errorf("the image ends after %d of %d bytes", at+int64(n), h.Length)
		}
		hashed.Write(part)
		if err := s.writePiece(part, at); err != nil {
			return sum, err
		}
		at += int64(len(part))
		if progress != nil {
			progress(at)
		}
	}
	if err := atEnd(image, h); err != nil {
		return sum, err
	}
	return sumOf(hashed), nil
}

// atEnd returns an error if anything follows the image.
func atEnd(image io.Reader, h Header) error {
	if n, err := io.ReadFull(image, make([]byte, 1)); n != 0 || err != io.EOF {
		return fmt.Errorf("the image is longer than %d bytes, as its header says", h.Length)
	}
	return nil
}

func sumOf(h hash.Hash) [sha256.Size]byte { return [sha256.Size]byte(h.Sum(nil)) }

// pieceSize returns the size of a write: whole erase blocks.
func (s *Slot) pieceSize() int {
	if s.Chip {
		return s.EraseBlock
	}
	return chunk
}

// writePiece writes a piece of an image to its place.
func (s *Slot) writePiece(part []byte, at int64) error {
	if s.Chip {
		if err := s.flash.Bad(at); err != nil {
			return err
		}
		if err := s.flash.Erase(at, int64(s.EraseBlock)); err != nil {
			return fmt.Errorf("erase: %w", err)
		}
	}
	if rest := len(part) % s.WriteSize; rest != 0 {
		part = append(bytes.Clone(part), bytes.Repeat([]byte{0xFF}, s.WriteSize-rest)...)
	}
	if err := s.flash.Program(part, at); err != nil {
		return fmt.Errorf("write at %#x: %w", at, err)
	}
	return nil
}

// verify reads the image back.
func (s *Slot) verify(h Header) error {
	hashed := sha256.New()
	if _, err := io.Copy(hashed, io.NewSectionReader(s.flash, 0, h.Length)); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if sumOf(hashed) != h.Sum {
		return errors.New("verify: the image read back is not the one written")
	}
	return nil
}

// overwrite replaces the present image by image, the verified image of h, and writes the
// first erase block last. If the flash fails, there may be no image after that.
func (s *Slot) overwrite(h Header, image []byte, progress func(written int64)) error {
	if s.ReadOnly != nil {
		return fmt.Errorf("opened only for reading: %w", s.ReadOnly)
	}
	size := int64(s.EraseBlock)
	for at := int64(0); at < h.Length; at += size {
		if err := s.flash.Bad(at); err != nil {
			return err
		}
	}
	if err := s.flash.Erase(0, size); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	old := make([]byte, size)
	write := func(at int64) error {
		part := image[at:min(at+size, h.Length)]
		present := old[:len(part)]
		// What is there already is not written again, to spare the flash.
		if _, err := s.flash.ReadAt(present, at); err == nil && bytes.Equal(present, part) {
			return nil
		}
		return s.writePiece(part, at)
	}
	for at := size; at < h.Length; at += size {
		if err := write(at); err != nil {
			return err
		}
		if progress != nil {
			progress(at)
		}
	}
	for at := size; at < h.Length; at += size {
		part := old[:min(size, h.Length-at)]
		if _, err := s.flash.ReadAt(part, at); err != nil || !bytes.Equal(part, image[at:at+int64(len(part))]) {
			return errors.Join(fmt.Errorf("verify: the erase block at %#x is not as it was written", at), err)
		}
	}
	if err := write(0); err != nil {
		return err
	}
	if progress != nil {
		progress(h.Length)
	}
	return s.verify(h)
}

// read returns the whole image of h, verified.
func (h Header) read(in io.Reader, progress func(int64)) ([]byte, error) {
	image, hashed := make([]byte, h.Length), sha256.New()
	for at := int64(0); at < h.Length; {
		part := image[at:min(at+chunk, h.Length)]
		if n, err := io.ReadFull(in, part); err != nil {
			return nil, fmt.Errorf("the image ends after %d of %d bytes", at+int64(n), h.Length)
		}
		// In parts: nothing else of the process runs while the hash of one is worked out on one processor.
		hashed.Write(part)
		at += int64(len(part))
		progress(at)
	}
	if err := atEnd(in, h); err != nil {
		return nil, err
	}
	if sumOf(hashed) != h.Sum {
		return nil, errDamaged
	}
	return image, nil
}

var errDamaged = errors.New("the image is damaged: its hash is not the one that was signed")

// Next returns which of two slots the boot loader starts next, 0 or 1: the newer of those
// that may be started, or else the one with an image. It is -1 if neither holds an image.
func Next(states [2]State) int {
	worth := func(s State) int {
		switch {
		case !s.Whole:
			return 0
		case s.Confirmed || !s.Tried:
			return 2
		}
		return 1
	}
	a, b := worth(states[0]), worth(states[1])
	switch {
	case a == 0 && b == 0:
		return -1
	case b > a || b == a && states[1].Sequence > states[0].Sequence:
		return 1
	}
	return 0
}
