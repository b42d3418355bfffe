package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/flash"
)

var errPower = errors.New("power is off")

// A sim is flash in memory. An erase sets all bits, a program can only clear
// them; a disk is one where a program can do both. Each byte erased or programmed
// is a step, after any of which the power can fail.
type sim struct {
	t    testing.TB
	g    flash.Geometry
	slot int // the size of a slot
	mem  []byte
	disk bool

	// steps were done since the last powerOn; the power fails at step cut, unless
	// that is negative.
	steps, cut int
	torn       tear
	random     *rand.Rand

	erases []int // of each erase block
	// eraseErr, programErr and readErr are failures of erase blocks.
	eraseErr, programErr, readErr map[int]error
	// stuck are erase blocks that take everything and keep nothing.
	stuck map[int]bool
	marks map[int]bool // bad blocks
}

// tear is what a cut leaves of the operation that it hits.
type tear int

const (
	// inOrder leaves the bytes before the cut done, those after it not.
	inOrder tear = iota
	// anyOrder leaves any bytes done, as a page cache or a write buffer does.
	anyOrder
	// anyBits leaves any bits changed that the operation changes, and after an erase
	// any bits at all.
	anyBits
	// zeros is a chip that programs all bits before it erases: done up to the cut,
	// zero after it.
	zeros
)

func newSim(t testing.TB, g flash.Geometry) *sim {
	return &sim{
		t: t, g: g, slot: g.EraseBlock, cut: -1, random: rand.New(rand.NewPCG(1, 2)),
		mem: bytes.Repeat([]byte{0xFF}, int(g.Size)), erases: make([]int, int(g.Size)/g.EraseBlock),
		eraseErr: map[int]error{}, programErr: map[int]error{}, readErr: map[int]error{},
		stuck: map[int]bool{}, marks: map[int]bool{},
	}
}

// boot opens the store as after a start of the router.
func (s *sim) boot() *Store {
	s.powerOn(-1)
	st, err := newStore("sim", s, s.g, s.slot)
	require.NoError(s.t, err)
	return st
}

func (s *sim) powerOn(cut int) { s.steps, s.cut = 0, cut }

func (s *sim) clone() *sim {
	c := *s
	c.mem, c.erases = slices.Clone(s.mem), slices.Clone(s.erases)
	return &c
}

func (s *sim) Close() error { return nil }

func (s *sim) Bad(off int64) error {
	if s.marks[int(off)/s.g.EraseBlock] {
		return fmt.Errorf("bad block at %#x", off)
	}
	return nil
}

func (s *sim) ReadAt(p []byte, off int64) (int, error) {
	if s.off() {
		return 0, errPower
	}
	if err := s.readErr[int(off)/s.g.EraseBlock]; err != nil {
		return 0, err
	}
	if off >= int64(len(s.mem)) {
		return 0, io.EOF
	}
	return copy(p, s.mem[off:]), nil
}

func (s *sim) Erase(off, n int64) error {
	if off%int64(s.g.EraseBlock) != 0 || n%int64(s.g.EraseBlock) != 0 {
		s.t.Errorf("erase of %d bytes at %#x: not whole erase blocks", n, off)
	}
	block := int(off) / s.g.EraseBlock
	if err := s.eraseErr[block]; err != nil {
		return err
	}
	for i := range int(n) / s.g.EraseBlock {
		s.erases[block+i]++
	}
	return s.change(s.mem[off:off+n], bytes.Repeat([]byte{0xFF}, int(n)), true)
}

func (s *sim) Program(p []byte, off int64) error {
	if off%int64(s.g.WriteSize) != 0 || len(p)%s.g.WriteSize != 0 {
		s.t.Errorf("write of %d bytes at %#x: not whole pages", len(p), off)
	}
	block := int(off) / s.g.EraseBlock
	if err := s.programErr[block]; err != nil {
		return err
	}
	if s.stuck[block] {
		return nil
	}
	place := s.mem[off : off+int64(len(p))]
	want := slices.Clone(p)
	for i := range want {
		if place[i] != 0xFF && !s.disk {
			s.t.Errorf("write at %#x, which is not erased", int(off)+i)
			want[i] &= place[i]
		}
	}
	return s.change(place, want, s.disk)
}

// change makes place want, up to the cut. Bits may be anything meanwhile if
// either is set, else they are only cleared.
func (s *sim) change(place, want []byte, either bool) error {
	if s.off() {
		return errPower
	}
	n := len(place)
	if s.cut < 0 || s.steps+n <= s.cut {
		s.steps += n
		copy(place, want)
		return nil
	}
	done := s.cut - s.steps
	s.steps = s.cut + 1 // off
	for i := range place {
		before, bits := place[i], byte(s.random.Uint32())
		mixed := before&bits | want[i]&^bits
		switch {
		case s.torn == inOrder && i < done, s.torn == zeros && i < done, s.torn == anyOrder && bits&1 == 0:
			place[i] = want[i]
		case s.torn == inOrder && i == done, s.torn == anyBits && (!either || s.disk):
			place[i] = mixed
		case s.torn == anyBits:
			place[i] = bits
		case s.torn == zeros && either && !s.disk:
			place[i] = 0
		}
	}
	return errPower
}

func (s *sim) off() bool { return s.cut >= 0 && s.steps > s.cut }

// The flashes that the tests run on, small so that each byte can be tried: slots of
// 256 bytes.
func layouts() map[string]func(t testing.TB) *sim {
	small := func(medium string, slots, eraseBlock, writeSize int) func(testing.TB) *sim {
		return func(t testing.TB) *sim {
			s := newSim(t, flash.Geometry{Medium: medium, Size: int64(slots) * 256, EraseBlock: eraseBlock, WriteSize: writeSize})
			s.slot = 256
			s.disk = medium == "disk"
			return s
		}
	}
	return map[string]func(testing.TB) *sim{
		"NOR, 2 slots":                 small("NOR", 2, 256, 1),
		"NOR, 5 slots":                 small("NOR", 5, 256, 1),
		"NOR, 3 slots of two blocks":   small("NOR", 3, 128, 1),
		"NAND, 3 slots":                small("NAND", 3, 256, 64),
		"disk, 2 slots of four blocks": small("disk", 2, 64, 64),
	}
}
