package upgrade

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/flash"
	"github.com/postern-router/postern/service"
)

var (
	ownKey   = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, 32))
	otherKey = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, 32))
)

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func day(n int) time.Time { return time.Date(2026, 1, n, 12, 0, 0, 0, time.UTC) }

// header is one for an image.
func header(image []byte, version string, date time.Time) Header {
	return Header{Board: "malta", Version: version, Date: date, Length: int64(len(image)), Sum: sha256.Sum256(image)}
}

func file(t testing.TB, h Header, key ed25519.PrivateKey, image []byte) []byte {
	head, err := h.Sign(key)
	require.NoError(t, err)
	require.Len(t, head, HeaderSize)
	return append(head, image...)
}

func TestHeader(t *testing.T) {
	h := header([]byte("image"), "v1.2-3-gabcdef", day(5))
	good, err := h.Sign(ownKey)
	require.NoError(t, err)
	got, err := ParseHeader(good, public(ownKey))
	require.NoError(t, err)
	assert.Equal(t, h, got)

	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		_, err := ParseHeader(bad, public(ownKey))
		require.Error(t, err, "byte %d", i)
	}
	resigned := func(change func(b []byte)) []byte {
		b := bytes.Clone(good[:signedSize])
		change(b)
		return append(b, ed25519.Sign(ownKey, b)...)
	}
	for _, c := range []struct {
		name, problem string
		b             []byte
	}{
		{"short", "header of 255 bytes, expected 256", good[:255]},
		{"something else", "not an upgrade image", bytes.Repeat([]byte{0x7F}, HeaderSize)},
		{"another's", "wrong signature", func() []byte { b, _ := h.Sign(otherKey); return b }()},
		{"format", "upgrade image of format 2, expected 1", resigned(func(b []byte) { b[11] = 2 })},
		{"reserved", "reserved bytes", resigned(func(b []byte) { b[15] = 1 })},
		{"reserved at the end", "reserved bytes", resigned(func(b []byte) { b[191] = 1 })},
		{"no board", `board "", expected`, resigned(func(b []byte) { clear(b[16:48]) })},
		{"a long board", "expected 1 to 31", resigned(func(b []byte) { copy(b[16:], strings.Repeat("x", 32)) })},
		{"zero in a board", "board", resigned(func(b []byte) { copy(b[16:], "a\x00b") })},
		{"a version that moves the cursor", "version", resigned(func(b []byte) { copy(b[48:], "\x1b[2J") })},
		{"no length", "slot image of 0 bytes", resigned(func(b []byte) { clear(b[120:128]) })},
		{"a length beyond all", "slot image of 4611686018427387904 bytes", resigned(func(b []byte) { b[120] = 0xFF })},
		{"a date beyond all", "out of range", resigned(func(b []byte) { b[112] = 0xFF })},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseHeader(c.b, public(ownKey))
			require.ErrorContains(t, err, c.problem)
		})
	}
	_, err = ParseHeader(good, nil)
	require.ErrorContains(t, err, "public key of 0 bytes")
	for _, bad := range []Header{{}, {Board: "x", Version: strings.Repeat("v", 64), Length: 1}, {Board: "x y", Version: "v", Length: 1}} {
		_, err := bad.Sign(ownKey)
		require.Error(t, err)
	}
}

func TestAccept(t *testing.T) {
	running := Running{Board: "malta", Version: "v2", Date: day(2)}
	for _, c := range []struct {
		name, board, problem string
		day                  int
		force                bool
	}{
		{"newer", "malta", "", 3, false},
		{"the same", "malta", "", 2, false},
		{"older", "malta", "is older than v2 of 2026-01-02", 1, false},
		{"older, forced", "malta", "", 1, true},
		{"another board", "maltael", "the image is for board maltael, and this is malta", 3, false},
		{"another board, forced", "maltael", "the image is for board maltael", 3, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Header{Board: c.board, Version: "v", Date: day(c.day)}.Accept(running, c.force)
			if c.problem == "" {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, c.problem)
			}
		})
	}
}

// chip is a NOR flash whose power can fail: programming clears bits, in order, and an
// erase that is cut leaves anything in its block.
type chip struct {
	mem    []byte
	block  int
	power  int // bytes that are still erased or programmed; -1 is without end
	random *rand.Rand
	stuck  int64 // of a block that takes nothing; -1 is none
	writes []int64
}

var errPower = errors.New("power failed")

func newChip(blocks, block int) *chip {
	return &chip{mem: bytes.Repeat([]byte{0xFF}, blocks*block), block: block, power: -1, stuck: -1, random: rand.New(rand.NewPCG(1, 2))}
}

func (c *chip) geometry() flash.Geometry {
	return flash.Geometry{Medium: "NOR flash", Size: int64(len(c.mem)), EraseBlock: c.block, WriteSize: 1, Chip: true}
}

func (c *chip) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(c.mem).ReadAt(p, off)
}
func (c *chip) Close() error      { return nil }
func (c *chip) Bad(int64) error   { return nil }
func (c *chip) spend(n int) int   { return c.take(n, &c.power) }
func (c *chip) first(i int) int64 { return int64(i) / int64(c.block) * int64(c.block) }

func (c *chip) take(n int, of *int) int {
	if *of < 0 {
		return n
	}
	n = min(n, *of)
	*of -= n
	return n
}

func (c *chip) Erase(off, n int64) error {
	if off%int64(c.block) != 0 || n != int64(c.block) {
		return fmt.Errorf("erase of %d at %d", n, off)
	}
	if c.spend(c.block) < c.block {
		for i := range c.mem[off : off+n] {
			c.mem[int(off)+i] = byte(c.random.Uint32())
		}
		return errPower
	}
	copy(c.mem[off:], bytes.Repeat([]byte{0xFF}, c.block))
	return nil
}

func (c *chip) Program(p []byte, off int64) error {
	c.writes = append(c.writes, off)
	if c.stuck >= 0 && c.first(int(off)) == c.stuck {
		return errors.New("worn")
	}
	n := c.spend(len(p))
	for i := range p[:n] {
		c.mem[int(off)+i] &= p[i]
	}
	if n < len(p) {
		return errPower
	}
	return nil
}

// slot is a slot on the chip.
func (c *chip) slot(t testing.TB) *Slot {
	s, err := newSlot("chip", c, c.geometry())
	require.NoError(t, err)
	s.state, s.stateAt = c, s.Size-int64(c.block)
	s.room = s.stateAt
	return s
}

func text(n, seed int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(seed), 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// TestCutAtEveryByte fails the power at each byte of a write over an older image: the
// slot then holds no image, or the new one, whole and not tried.
func TestCutAtEveryByte(t *testing.T) {
	old, image := text(700, 1), text(600, 2)
	for cut, finished := 0, false; !finished; cut++ {
		c := newChip(6, 256)
		s := c.slot(t)
		require.NoError(t, s.Write(header(old, "old", day(1)), bytes.NewReader(old), 7, nil))
		require.NoError(t, s.Confirm())
		c.power = cut
		err := s.Write(header(image, "new", day(2)), bytes.NewReader(image), 9, nil)
		finished = err == nil
		if !finished {
			require.ErrorIs(t, err, errPower)
		}
		c.power = -1
		st, err := s.State()
		require.NoError(t, err)
		switch {
		case finished, st.Whole && st.Version == "new":
			want := State{Whole: true, Sequence: 9, Length: 600, Sum: sha256.Sum256(image), Version: "new"}
			require.Equal(t, want, st)
			require.True(t, bytes.Equal(image, c.mem[:600]))
		case st.Whole:
			// Before the first bit of the magic was cleared.
			require.Equal(t, 0, cut)
			require.True(t, bytes.Equal(old, c.mem[:700]))
		}
		// The next one goes well.
		require.NoError(t, s.Write(header(old, "third", day(3)), bytes.NewReader(old), 11, nil))
		st, err = s.State()
		require.NoError(t, err)
		require.Equal(t, uint32(11), st.Sequence)
	}
}

func TestWrite(t *testing.T) {
	image := text(600, 3)
	h := header(image, "v", day(1))
	for _, c := range []struct {
		name, problem string
		image         []byte
		h             Header
	}{
		{"whole", "", image, h},
		{"as long as the slot", "", text(5*256, 4), header(text(5*256, 4), "v", day(1))},
		{"too long for the slot", "an image of 1281 bytes, and there is room for 1280", text(1281, 4), header(text(1281, 4), "v", day(1))},
		{"cut", "the image ends after 599 of 600 bytes", image[:599], h},
		{"empty", "the image ends after 0 of 600 bytes", nil, h},
		{"longer", "the image is longer than 600 bytes", append(bytes.Clone(image), 0), h},
		{"damaged", "the image is damaged", text(600, 5), h},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newChip(6, 256).slot(t)
			var last int64
			err := s.Write(c.h, iotestOneByte{bytes.NewReader(c.image)}, 2, func(n int64) { last = n })
			st, stateErr := s.State()
			require.NoError(t, stateErr)
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				assert.False(t, st.Whole)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, State{Whole: true, Sequence: 2, Length: c.h.Length, Sum: c.h.Sum, Version: "v"}, st)
			assert.Equal(t, c.h.Length, last)
			require.NoError(t, s.Confirm())
			require.NoError(t, s.Confirm(), "again")
			st, err = s.State()
			require.NoError(t, err)
			assert.True(t, st.Confirmed)
			assert.False(t, st.Tried, "that is the boot loader's word")
		})
	}
	t.Run("worn", func(t *testing.T) {
		c := newChip(6, 256)
		c.stuck = 256
		s := c.slot(t)
		require.ErrorContains(t, s.Write(h, bytes.NewReader(image), 2, nil), "write at 0x100: worn")
		st, err := s.State()
		require.NoError(t, err)
		assert.False(t, st.Whole)
		require.ErrorContains(t, s.Confirm(), "it holds no image")
	})
	t.Run("a bit that is not read back", func(t *testing.T) {
		c := newChip(6, 256)
		s := c.slot(t)
		s.flash = lying{c}
		require.ErrorContains(t, s.Write(h, bytes.NewReader(image), 2, nil), "the image read back is not the one written")
	})
}

// lying reads one bit wrong.
type lying struct{ *chip }

func (l lying) ReadAt(p []byte, off int64) (int, error) {
	n, err := l.chip.ReadAt(p, off)
	p[0] ^= 1
	return n, err
}

// iotestOneByte reads a byte at a time, as a slow network may.
type iotestOneByte struct{ r io.Reader }

func (o iotestOneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

// TestWords pins the words that the boot loader reads.
func TestWords(t *testing.T) {
	c := newChip(3, 256)
	s := c.slot(t)
	image := text(300, 6)
	require.NoError(t, s.Write(header(image, "v1", day(1)), bytes.NewReader(image), 5, nil))
	at := c.mem[512:]
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(at[i:]) }
	assert.Equal(t, []uint32{0x50535431, 5, 0xFFFFFFFF, 0xFFFFFFFF, 300}, []uint32{word(0), word(4), word(8), word(12), word(16)})
	sum := sha256.Sum256(image)
	assert.Equal(t, sum[:], at[20:52])
	assert.Equal(t, "v1\x00", string(at[52:55]))
	assert.EqualValues(t, 512, c.writes[len(c.writes)-1], "the magic comes last")
	// What the boot loader does.
	require.NoError(t, c.Program(make([]byte, 4), 512+8))
	st, err := s.State()
	require.NoError(t, err)
	assert.True(t, st.Tried)
	assert.False(t, st.Confirmed)
	require.NoError(t, s.Confirm())
	assert.Equal(t, []uint32{0, 0}, []uint32{word(8), word(12)})
	// A word half written.
	at[12] = 0x0F
	st, err = s.State()
	require.NoError(t, err)
	assert.False(t, st.Confirmed)
	// The factory's.
	factory := State{Sequence: 1, Length: 300, Sum: sum, Version: "v1"}.Words()
	assert.Equal(t, State{Whole: true, Sequence: 1, Tried: true, Confirmed: true, Length: 300, Sum: sum, Version: "v1"}, parseWords(factory))
}

// disk makes the partitions of a disk's two slots.
func disk(t *testing.T) (paths [2]string, states string) {
	dir := t.TempDir()
	for i := range paths {
		paths[i] = filepath.Join(dir, SlotNames[i])
		require.NoError(t, os.WriteFile(paths[i], make([]byte, 1<<20), 0o600))
	}
	states = filepath.Join(dir, "states")
	require.NoError(t, os.WriteFile(states, bytes.Repeat([]byte{'x'}, 64<<10), 0o600))
	return paths, states
}

func TestDisk(t *testing.T) {
	paths, states := disk(t)
	slots, err := OpenSlots(paths, states)
	require.NoError(t, err)
	defer func() { assert.NoError(t, slots.Close()) }()
	image := text(300_000, 7)
	h := header(image, "v1", day(1))
	for i, s := range slots {
		st, err := s.State()
		require.NoError(t, err)
		assert.Equal(t, State{}, st)
		require.ErrorContains(t, s.Confirm(), "it holds no image")
		require.NoError(t, s.Write(h, bytes.NewReader(image), uint32(3+i), nil))
		st, err = s.State()
		require.NoError(t, err)
		assert.Equal(t, State{Whole: true, Sequence: uint32(3 + i), Length: 300_000, Sum: h.Sum, Version: "v1"}, st)
	}
	require.NoError(t, slots[1].Confirm())
	all, err := os.ReadFile(states)
	require.NoError(t, err)
	block := string(all[12288:][:4096])
	want := fmt.Sprintf("# GRUB Environment Block\nmagic=PST1\nsequence=4\ntried=0\nconfirmed=1\nlength=300000\nsha256=%x\nversion=v1\n", h.Sum)
	assert.Equal(t, want+strings.Repeat("#", 4096-len(want)), block)
	assert.Contains(t, string(all[4096:8192]), "sequence=3\ntried=0\nconfirmed=0\n")
	for _, left := range [][]byte{all[:4096], all[8192:12288], all[16384:]} {
		assert.Equal(t, len(left), bytes.Count(left, []byte{'x'}), "the rest is the boot loader's")
	}
	written, err := os.ReadFile(paths[1])
	require.NoError(t, err)
	assert.True(t, bytes.Equal(image, written[:len(image)]))

	err = slots[0].Write(h, bytes.NewReader(image[:1000]), 5, nil)
	require.ErrorContains(t, err, "the image ends after 1000 of 300000 bytes")
	st, err := slots[0].State()
	require.NoError(t, err)
	assert.False(t, st.Whole)
	all, err = os.ReadFile(states)
	require.NoError(t, err)
	assert.True(t, strings.HasPrefix(string(all[4096:]), "# GRUB Environment Block\nmagic=none\n"), "what GRUB can write to")
}

func TestOpenSlotsErrors(t *testing.T) {
	paths, states := disk(t)
	_, err := OpenSlots([2]string{paths[0], "/dev/no-slot"}, states)
	require.ErrorContains(t, err, "open slot /dev/no-slot")
	_, err = OpenSlots(paths, "/dev/no-states")
	require.ErrorContains(t, err, "states of the slots: ")
	require.NoError(t, os.Truncate(states, 8192))
	_, err = OpenSlots(paths, states)
	require.ErrorContains(t, err, "of 8192 bytes")
}

func TestEnvironment(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	whole := State{Whole: true, Sequence: 2, Tried: true, Length: 10, Sum: [32]byte(bytes.Repeat([]byte{0xAB}, 32)), Version: "v"}
	for _, c := range []struct {
		name, text string
		want       State
	}{
		{"as U-Boot writes it", "confirmed=0\nlength=10\nmagic=PST1\nsequence=2\nsha256=" + sum + "\ntried=1\nversion=v\n\x00\x00\x00", whole},
		{"a line more", "magic=PST1\nsequence=2\ntried=1\nconfirmed=0\nlength=10\nsha256=" + sum + "\nversion=v\nother=1\n####", whole},
		{"no magic", "sequence=2\ntried=1\nconfirmed=0\nlength=10\nsha256=" + sum + "\n", State{}},
		{"no number", "magic=PST1\nsequence=x\ntried=1\nconfirmed=0\nlength=10\nsha256=" + sum + "\n", State{}},
		{"a line torn", "magic=PST1\nsequence=2\ntried=1\nconfirmed=0\nlength=10\nsha256=" + sum, State{}},
		{"no sum", "magic=PST1\nsequence=2\ntried=1\nconfirmed=0\nlength=10\n", State{}},
		{"nothing", "", State{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			assert.Equal(t, c.want, parseEnvironment([]byte(envTitle+c.text)))
			assert.Equal(t, State{}, parseEnvironment([]byte(c.text)), "without its title")
		})
	}
	long := State{Whole: true, Sequence: 1<<32 - 1, Length: maxLength, Version: strings.Repeat("v", 63)}
	assert.LessOrEqual(t, bytes.IndexByte(long.environment()[len(envTitle):], '#'), 512-len(envTitle), "all is in one sector")
}

// TestOverwrite fails the power at each byte of a write in place: the first block is
// what it should be only once all others are.
func TestOverwrite(t *testing.T) {
	old, image := text(900, 1), text(1000, 2)
	copy(image[512:768], old[512:768]) // a block that is there already
	h := header(image, "new", day(2))
	for cut, finished := 0, false; !finished; cut++ {
		c := newChip(5, 256)
		copy(c.mem, old)
		s, err := newSlot("chip", c, c.geometry())
		require.NoError(t, err)
		c.power = cut
		err = s.overwrite(h, image, nil)
		finished = err == nil
		if !finished {
			require.ErrorIs(t, err, errPower)
		}
		switch begun := bytes.Equal(c.mem[:256], old[:256]); {
		case finished:
			require.True(t, bytes.Equal(image, c.mem[:1000]))
			require.NotContains(t, c.writes, int64(512))
		case begun:
			require.Zero(t, cut, "the old image is gone first")
		case bytes.Equal(c.mem[:256], image[:256]):
			require.True(t, bytes.Equal(image[:1000], c.mem[:1000]))
		case cut >= 256 && cut < 256+4*256-256+232:
			require.Equal(t, 256, bytes.Count(c.mem[:256], []byte{0xFF}), "cut at %d", cut)
		}
		// The image is still in memory, and the power on again.
		c.power = -1
		require.NoError(t, s.overwrite(h, image, nil))
		require.True(t, bytes.Equal(image, c.mem[:1000]))
	}
}

// TestTask runs what the process does, on a disk's slots.
func TestTask(t *testing.T) {
	image := text(300_000, 8)
	running := Running{Board: "malta", Version: "v1", Date: day(1)}
	present := State{Whole: true, Sequence: 4, Tried: true, Confirmed: true, Length: 1, Version: "v1"}
	type result struct {
		out   string
		err   error
		state State // of the other slot
	}
	runTask := func(t *testing.T, task Task, current State, in []byte) result {
		paths, states := disk(t)
		all, err := os.ReadFile(states)
		require.NoError(t, err)
		copy(all[4096:], current.environment())
		require.NoError(t, os.WriteFile(states, all, 0o600))
		task.Running, task.Slots, task.States = running, paths, states
		var out bytes.Buffer
		r := result{err: runJob(t, task, in, &out)}
		r.out = out.String()
		slots, err := OpenSlots(paths, states)
		require.NoError(t, err)
		defer slots.Close()
		st, err := slots[0].State()
		require.NoError(t, err)
		assert.Equal(t, current, st, "the slot that runs is left alone")
		r.state, err = slots[1].State()
		require.NoError(t, err)
		return r
	}
	run := func(t *testing.T, current State, in []byte, force bool) result {
		return runTask(t, Task{Force: force}, current, in)
	}
	newer := file(t, header(image, "v2", day(2)), ownKey, image)
	t.Run("newer", func(t *testing.T) {
		r := run(t, present, newer, false)
		require.NoError(t, r.err)
		assert.Equal(t, uint32(5), r.state.Sequence)
		assert.Equal(t, "v2", r.state.Version)
		assert.False(t, r.state.Tried || r.state.Confirmed)
		assert.True(t, strings.HasPrefix(r.out, "version v2 of 2026-01-02 12:00:00 for malta; v1 runs\nwriting slot b: "), r.out)
		assert.True(t, strings.HasSuffix(r.out, "writing slot b: 100%\nslot b is written and verified\n"), r.out)
	})
	older := file(t, header(image, "v0", day(1).Add(-time.Second)), ownKey, image)
	for _, c := range []struct {
		name, problem string
		current       State
		in            []byte
	}{
		{"older", "is older than v1", present, older},
		{"another's", "wrong signature", present, file(t, header(image, "v2", day(2)), otherKey, image)},
		{"no header", "the image ends after 100 bytes, in its header", present, newer[:100]},
		{"on trial", "is on trial", func() State { s := present; s.Confirmed = false; return s }(), newer},
		{"no state", "slot a, which runs, has no state", State{}, newer},
		{"cut", "the image ends after 299999 of 300000 bytes", present, newer[:len(newer)-1]},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := run(t, c.current, c.in, false)
			require.ErrorContains(t, r.err, c.problem)
			assert.False(t, r.state.Whole)
		})
	}
	t.Run("older, forced", func(t *testing.T) {
		r := run(t, present, older, true)
		require.NoError(t, r.err)
		assert.Equal(t, "v0", r.state.Version)
	})
	t.Run("a newer one is wanted", func(t *testing.T) {
		same := file(t, header(image, "v1b", day(1)), ownKey, image)
		r := runTask(t, Task{Newer: true}, present, same)
		require.ErrorContains(t, r.err, "the server has version v1b, which is not newer than v1, which runs")
		assert.False(t, r.state.Whole)
		require.NoError(t, runTask(t, Task{Newer: true}, present, newer).err)
		require.NoError(t, runTask(t, Task{}, present, same).err)
	})
	t.Run("of a disk", func(t *testing.T) {
		whole := append(bytes.Clone(newer), text(5000, 3)...)
		r := runTask(t, Task{Disk: true}, present, whole)
		require.NoError(t, r.err)
		assert.Equal(t, "v2", r.state.Version)
		require.ErrorContains(t, runTask(t, Task{Disk: true}, present, newer[:len(newer)-1]).err, "the image ends after 299999 of")
		require.ErrorContains(t, run(t, present, whole, false).err, "the image is longer than")
	})
	t.Run("nothing", func(t *testing.T) {
		require.EqualError(t, run(t, present, nil, false).err, ErrNothing.Error())
	})
	t.Run("in place", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "image")
		require.NoError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
		task := Task{Running: running, InPlace: path}
		content := func() []byte {
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			return b[:len(image)]
		}
		bad := bytes.Clone(newer)
		bad[len(bad)-1]++
		require.ErrorContains(t, runJob(t, task, bad, io.Discard), "the image is damaged")
		require.Equal(t, len(image), bytes.Count(content(), []byte{0}), "nothing is written before all is there")
		var out bytes.Buffer
		require.NoError(t, runJob(t, task, newer, &out))
		assert.True(t, bytes.Equal(image, content()))
		assert.Contains(t, out.String(), "do not turn the power off\nwriting: ")
		long := text(1<<20+1, 9)
		require.ErrorContains(t, runJob(t, task, file(t, header(long, "v2", day(2)), ownKey, long), io.Discard), "there is room for 1048576")
	})
}

// A LookJob says what a signed header says, and reads no more.
func TestLookJob(t *testing.T) {
	image := text(1000, 8)
	running := Running{Board: "malta", Version: "v1", Date: day(3)}
	whole := file(t, header(image, "v0", day(2)), ownKey, image)
	look := func(in []byte) (Header, error) {
		r, w, err := os.Pipe()
		require.NoError(t, err)
		defer r.Close()
		_, err = w.Write(in)
		require.NoError(t, err)
		w.Close()
		var found Header
		return found, call(t, LookJob(fmt.Sprintf("%x", public(ownKey)), r, running, &found), io.Discard)
	}
	got, err := look(whole[:HeaderSize])
	require.NoError(t, err)
	assert.Equal(t, Header{Board: "malta", Version: "v0", Date: day(2), Length: 1000}, got)
	for problem, in := range map[string][]byte{
		ErrNothing.Error():          nil,
		"the image ends after 9":    whole[:9],
		"wrong signature":           file(t, header(image, "v2", day(2)), otherKey, image),
		"the image is for board pc": file(t, func() Header { h := header(image, "v2", day(2)); h.Board = "pc"; return h }(), ownKey, image),
	} {
		_, err := look(in)
		require.ErrorContains(t, err, problem)
	}
}

// runJob has the job of a task done, by the two ends of a link.
func runJob(t *testing.T, task Task, in []byte, out io.Writer) error {
	t.Helper()
	image, err := os.CreateTemp(t.TempDir(), "image")
	require.NoError(t, err)
	defer image.Close()
	_, err = image.Write(in)
	require.NoError(t, err)
	_, err = image.Seek(0, io.SeekStart)
	require.NoError(t, err)
	job, closeFiles, err := task.Job(fmt.Sprintf("%x", public(ownKey)), image, out)
	require.NoError(t, err)
	defer closeFiles()
	return call(t, job, out)
}

// call has the request of a job served.
func call(t *testing.T, job service.Job, out io.Writer) error {
	t.Helper()
	parent, child, err := service.LinkPair(t.Context(), Spec, func(*service.Link) service.Handler { return nil },
		func(_ context.Context, r *service.Request) ([]byte, error) { return handle(r, out) })
	require.NoError(t, err)
	defer func() {
		parent.Close()
		<-parent.Done()
		<-child.Done()
	}()
	return parent.Call(t.Context(), job.Op, job.Body, job.Decode, job.Files...)
}

func TestJobErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	image, err := os.Open(path)
	require.NoError(t, err)
	defer image.Close()
	_, _, err = Task{InPlace: "/dev/no-slot"}.Job("", image, io.Discard)
	require.ErrorContains(t, err, "open /dev/no-slot: ")
	_, _, err = Task{Slots: [2]string{path, "/dev/null"}}.Job("", image, io.Discard)
	require.ErrorContains(t, err, "open /dev/null: a character device that is not MTD")
	for _, c := range []struct {
		name, key, want string
		change          func(*service.Job)
	}{
		{"a key that is none", "abcd", "expected 64 hexadecimal digits", func(*service.Job) {}},
		{"no partition", "", "gone", func(j *service.Job) { j.Files = j.Files[:1] }},
		{"no image", "", "gone", func(j *service.Job) { j.Files = nil }},
		{"another request", "", "gone", func(j *service.Job) { j.Op = 9 }},
		{"half a request", "", "gone", func(j *service.Job) { j.Body = j.Body[:3] }},
	} {
		t.Run(c.name, func(t *testing.T) {
			job, closeFiles, err := Task{InPlace: path}.Job(c.key, image, io.Discard)
			require.NoError(t, err)
			defer closeFiles()
			c.change(&job)
			require.ErrorContains(t, call(t, job, io.Discard), c.want)
		})
	}
	t.Run("slots of a disk without their states", func(t *testing.T) {
		task := Task{Running: Running{Board: "malta"}, Slots: [2]string{path, path}}
		require.ErrorContains(t, runJob(t, task, file(t, header([]byte("x"), "v2", day(2)), ownKey, []byte("x")), io.Discard), "no partition is named for them")
	})
}

func TestReadKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	_, err := ReadKey(path)
	require.ErrorContains(t, err, "public key: ")
	require.NoError(t, os.WriteFile(path, fmt.Appendf(nil, "%x\n", public(ownKey)), 0o600))
	text, err := ReadKey(path)
	require.NoError(t, err)
	key, err := parseKey(text)
	require.NoError(t, err)
	assert.Equal(t, public(ownKey), key)
}

func FuzzParseHeader(f *testing.F) {
	good, err := header([]byte("x"), "v1", day(1)).Sign(ownKey)
	require.NoError(f, err)
	f.Add(good[:signedSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != signedSize {
			return
		}
		// As if whoever signs had gone mad.
		signed := append(bytes.Clone(b), ed25519.Sign(ownKey, b)...)
		h, err := ParseHeader(signed, public(ownKey))
		if err != nil {
			return
		}
		again, err := h.Sign(ownKey)
		require.NoError(t, err)
		require.Equal(t, signed, again)
	})
}

func FuzzState(f *testing.F) {
	f.Add(State{Whole: true, Sequence: 1, Version: "v"}.words())
	f.Add(State{Whole: true, Sequence: 1, Version: "v"}.environment())
	f.Fuzz(func(t *testing.T, b []byte) {
		// Whatever is read can be written back and shown.
		st := parseEnvironment(b)
		if st.Whole && len(st.environment()) != environmentSize {
			t.Fatal("environment of another size")
		}
		if st.Whole {
			require.Equal(t, st, parseEnvironment(st.environment()))
		}
		if len(b) == wordsSize {
			if st := parseWords(b); st.Whole {
				require.Equal(t, st, parseWords(st.words()))
			}
		}
	})
}
