package store

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/flash"
)

// onEach runs a test on each layout.
func onEach(t *testing.T, test func(t *testing.T, s *sim)) {
	for name, layout := range layouts() {
		t.Run(name, func(t *testing.T) { test(t, layout(t)) })
	}
}

// text is the n-th configuration of a test.
func text(n int) []byte {
	return fmt.Appendf(nil, "# %d\n/ip socks set enabled=yes port=%d\n%s", n, 1080+n, strings.Repeat("#", n%7))
}

// load returns the text, nil if the store is empty.
func load(t testing.TB, st *Store) []byte {
	got, _, err := st.Load()
	if errors.Is(err, ErrEmpty) {
		return nil
	}
	require.NoError(t, err)
	require.NotNil(t, got)
	return got
}

func TestSaveAndLoad(t *testing.T) {
	onEach(t, func(t *testing.T, s *sim) {
		st := s.boot()
		_, info, err := st.Load()
		require.ErrorIs(t, err, ErrEmpty)
		assert.Equal(t, Info{Medium: s.g.Medium, Slots: st.slots, SlotSize: s.slot, Slot: -1}, info)

		for n := range 3 * st.slots {
			want := text(n)
			require.NoError(t, st.Save(want))
			for _, st := range []*Store{st, s.boot()} {
				got, info, err := st.Load()
				require.NoError(t, err)
				assert.Equal(t, string(want), string(got))
				assert.Equal(t, n%st.slots, info.Slot, "round robin")
				assert.Equal(t, uint64(n+1), info.Sequence)
				assert.Empty(t, info.Damaged)
			}
		}
		for block, n := range s.erases {
			assert.Equal(t, 3, n, "erases of block %d", block)
		}
	})
}

func TestSaveTheSame(t *testing.T) {
	onEach(t, func(t *testing.T, s *sim) {
		require.NoError(t, s.boot().Save(text(1)))
		before := slices.Clone(s.mem)
		st := s.boot()
		require.NoError(t, st.Save(text(1)))
		require.NoError(t, st.Save(text(1)))
		assert.Equal(t, before, s.mem)
	})
}

func TestEmptyTextIsAText(t *testing.T) {
	s := layouts()["NOR, 2 slots"](t)
	require.NoError(t, s.boot().Save(text(1)))
	require.NoError(t, s.boot().Save(nil))
	got, info, err := s.boot().Load()
	require.NoError(t, err)
	assert.Empty(t, got)
	assert.False(t, info.Reset)
	assert.Equal(t, uint64(2), info.Sequence)
}

func TestLimits(t *testing.T) {
	// As on a 4 MB chip.
	real := func(t *testing.T) *Store {
		s := newSim(t, flash.Geometry{Medium: "NOR flash", Size: 128 << 10, EraseBlock: 64 << 10, WriteSize: 1})
		return s.boot()
	}
	noise := make([]byte, 128<<10)
	for i, random := 0, rand.New(rand.NewPCG(1, 2)); i < len(noise); i++ {
		noise[i] = byte(random.Uint32())
	}
	rules := func(size int) []byte {
		var b []byte
		for i, random := 0, rand.New(rand.NewPCG(1, 2)); len(b) < size; i++ {
			b = fmt.Appendf(b, "/ip firewall filter add chain=forward action=drop src-address=%d.%d.%d.0/24 dst-port=%d protocol=tcp\n",
				random.IntN(224), random.IntN(256), random.IntN(256), random.IntN(65536))
		}
		return b[:size]
	}
	const room = 64<<10 - footerSize
	for _, c := range []struct {
		name, problem string
		text          []byte
	}{
		{"as long as a slot", "", noise[:room]},
		{"one byte more", fmt.Sprintf("save to sim: text too long: %d bytes, compressed", room+1), noise[:room+1]},
		{"compressed", "", rules(room + 1)},
		{"100 kB of rules", "", rules(100_000)},
		{"230 kB of rules", "", rules(230_000)},
		{"the longest", "", bytes.Repeat([]byte("a"), MaxText)},
		{"longer than any", "save to sim: text too long: 262145 bytes, the limit is 262144", make([]byte, MaxText+1)},
	} {
		t.Run(c.name, func(t *testing.T) {
			st := real(t)
			require.NoError(t, st.Save(text(1)))
			err := st.Save(c.text)
			if c.problem != "" {
				require.ErrorIs(t, err, ErrTooLong)
				require.ErrorContains(t, err, c.problem)
				assert.Equal(t, string(text(1)), string(load(t, st)))
				return
			}
			require.NoError(t, err)
			assert.True(t, bytes.Equal(c.text, load(t, st)))
			require.NoError(t, st.Save(c.text))
			_, info, err := st.Load()
			require.NoError(t, err)
			assert.Equal(t, uint64(2), info.Sequence, "the same again is not written")
		})
	}
}

func TestSlots(t *testing.T) {
	for _, c := range []struct {
		name                        string
		size                        int64
		eraseBlock, writeSize       int
		slots, slotSize, writeSizes int
		problem                     string
	}{
		{"4 MB chip", 128 << 10, 64 << 10, 1, 2, 64 << 10, 0, ""},
		{"small erase blocks", 256 << 10, 4 << 10, 1, 4, 64 << 10, 0, ""},
		{"little of them", 32 << 10, 4 << 10, 1, 2, 16 << 10, 0, ""},
		{"an odd number", 20 << 10, 4 << 10, 1, 2, 8 << 10, 0, ""},
		{"NAND", 1 << 20, 128 << 10, 2048, 8, 128 << 10, 0, ""},
		{"a large disk", 8 << 30, 4096, 512, 16, 64 << 10, 0, ""},
		{"one erase block", 64 << 10, 64 << 10, 1, 0, 0, 0, "two slots need two erase blocks"},
		{"nothing", 0, 4096, 512, 0, 0, 0, "two slots need two erase blocks"},
		{"no erase blocks", 4096, 0, 1, 0, 0, 0, "erase blocks of 0 bytes"},
		{"no room", 64, 32, 1, 0, 0, 0, "two slots need two erase blocks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, err := newStore("x", &sim{g: flash.Geometry{EraseBlock: max(c.eraseBlock, 1)}},
				flash.Geometry{Size: c.size, EraseBlock: c.eraseBlock, WriteSize: c.writeSize}, wantSlot)
			if c.problem != "" {
				require.ErrorContains(t, err, c.problem)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.slots, st.slots)
			assert.Equal(t, c.slotSize, st.slotSize)
		})
	}
}

// Every byte at which the power can fail during a Save, in each way an operation
// can tear, from each state of the slots.
func TestCutAtEveryByteOfSave(t *testing.T) {
	for _, torn := range []tear{inOrder, anyOrder, anyBits, zeros} {
		t.Run([]string{"in order", "any order", "any bits", "zeros"}[torn], func(t *testing.T) {
			t.Parallel()
			onEach(t, func(t *testing.T, start *sim) {
				cutSaves(t, start, torn, nil, text(1))
				require.NoError(t, start.boot().Save(text(1)))
				cutSaves(t, start, torn, text(1), text(2))
				for n := range start.boot().slots { // until all slots are full
					require.NoError(t, start.boot().Save(text(2+n)))
				}
				cutSaves(t, start, torn, load(t, start.boot()), text(20))
			})
		})
	}
}

// cutSaves saves the new text with every cut.
func cutSaves(t *testing.T, start *sim, torn tear, before, after []byte) {
	random := rand.New(rand.NewPCG(3, 4))
	third, fourth := text(30), text(40)
	for cut, finished := 0, false; !finished; cut++ {
		s := start.clone()
		s.torn = torn
		st := s.boot()
		s.powerOn(cut)
		err := st.Save(after)
		finished = err == nil
		if !finished {
			require.ErrorIs(t, err, errPower)
		}
		got, info, err := s.boot().Load()
		if !errors.Is(err, ErrEmpty) {
			require.NoError(t, err)
		}
		beforeFooter := s.slot + roundUp(len(after), s.g.WriteSize)
		if cut > s.slot && cut < beforeFooter {
			// It is not the checksum that decides here.
			require.Len(t, info.Damaged, 1)
			require.Equal(t, errUnfinished, info.Damaged[0].Err)
		}
		switch {
		case finished:
			require.Equal(t, string(after), string(got))
		case cut <= beforeFooter:
			require.Equal(t, string(before), string(got), "cut at byte %d, before the footer was begun", cut)
		case !bytes.Equal(got, before) && !bytes.Equal(got, after):
			require.FailNow(t, "neither the old nor the new text", "cut at byte %d: %q", cut, got)
		}

		// The power fails again when the next text is saved.
		st = s.boot()
		s.powerOn(random.IntN(s.slot + len(after) + footerSize))
		_ = st.Save(third) // now and then the cut comes too late
		if again := load(t, s.boot()); !bytes.Equal(again, got) && !bytes.Equal(again, third) {
			require.FailNow(t, "neither the old nor the new text", "second cut after one at byte %d: %q", cut, again)
		}
		// And then it does not.
		require.NoError(t, s.boot().Save(fourth))
		require.Equal(t, fourth, load(t, s.boot()))
	}
}

func TestCutAtEveryByteOfErase(t *testing.T) {
	secret := []byte("/user set admin password=secret\n")
	for _, torn := range []tear{inOrder, anyOrder, anyBits, zeros} {
		onEach(t, func(t *testing.T, start *sim) {
			require.NoError(t, start.boot().Save(text(1)))
			require.NoError(t, start.boot().Save(secret))
			for cut, finished := 0, false; !finished; cut++ {
				s := start.clone()
				s.torn = torn
				st := s.boot()
				s.powerOn(cut)
				err := st.Erase()
				finished = err == nil
				got := load(t, s.boot())
				if finished || got != nil {
					if finished {
						require.Nil(t, got)
						require.NotContains(t, string(s.mem), "secret")
					} else {
						require.ErrorIs(t, err, errPower)
						require.Equal(t, string(secret), string(got))
					}
				}
				require.NoError(t, s.boot().Save(text(3)))
				require.Equal(t, string(text(3)), string(load(t, s.boot())))
			}
		})
	}
}

func TestErase(t *testing.T) {
	onEach(t, func(t *testing.T, s *sim) {
		for n := range 4 {
			require.NoError(t, s.boot().Save(text(n)))
		}
		require.NoError(t, s.boot().Erase())
		_, info, err := s.boot().Load()
		require.ErrorIs(t, err, ErrEmpty)
		assert.True(t, info.Reset)
		assert.Equal(t, uint64(5), info.Sequence, "the count of writes goes on")
		assert.Empty(t, info.Damaged)

		before := slices.Clone(s.erases)
		require.NoError(t, s.boot().Erase())
		assert.Equal(t, before, s.erases, "again: nothing to do")

		require.NoError(t, s.boot().Save(text(9)))
		assert.Equal(t, string(text(9)), string(load(t, s.boot())))
	})
	t.Run("the only other slot is worn", func(t *testing.T) {
		s := layouts()["NOR, 2 slots"](t)
		require.NoError(t, s.boot().Save(text(1)))
		s.stuck[1] = true
		require.NoError(t, s.boot().Erase())
		require.Nil(t, load(t, s.boot()))
	})
	t.Run("the only other slot can not even be erased", func(t *testing.T) {
		s := layouts()["NOR, 2 slots"](t)
		require.NoError(t, s.boot().Save(text(1)))
		s.mem[s.slot] = 0
		s.eraseErr[1] = syscall.EIO
		require.ErrorIs(t, s.boot().Erase(), syscall.EIO)
		require.Nil(t, load(t, s.boot()))
	})
	t.Run("no older text comes back", func(t *testing.T) {
		s := layouts()["NOR, 5 slots"](t)
		for n := range 5 {
			require.NoError(t, s.boot().Save(text(n)))
		}
		for b := range 5 {
			s.programErr[b] = syscall.EIO
		}
		s.eraseErr[2] = syscall.EIO
		require.ErrorIs(t, s.boot().Erase(), syscall.EIO)
		require.Equal(t, string(text(4)), string(load(t, s.boot())))
	})
	t.Run("nothing can be erased", func(t *testing.T) {
		s := layouts()["NOR, 2 slots"](t)
		require.NoError(t, s.boot().Save(text(1)))
		require.NoError(t, s.boot().Save(text(2)))
		s.eraseErr[0], s.eraseErr[1] = syscall.EIO, syscall.EIO
		err := s.boot().Erase()
		require.ErrorIs(t, err, syscall.EIO)
		require.ErrorContains(t, err, "erase sim: no slot is left to write to: slot 0: erase: ")
		require.Equal(t, string(text(2)), string(load(t, s.boot())))
	})
	t.Run("an old text cannot be erased", func(t *testing.T) {
		s := layouts()["NOR, 5 slots"](t)
		require.NoError(t, s.boot().Save(text(1)))
		require.NoError(t, s.boot().Save(text(2)))
		s.eraseErr[0] = syscall.EIO
		require.ErrorContains(t, s.boot().Erase(), "erase sim: slot 0: ")
		require.Nil(t, load(t, s.boot()))
	})
}

// Every bit of the newest slot, then of the other one.
func TestFlipEveryBit(t *testing.T) {
	onEach(t, func(t *testing.T, s *sim) {
		require.NoError(t, s.boot().Save(text(1)))
		only := slices.Clone(s.mem)
		require.NoError(t, s.boot().Save(text(2)))
		st := s.boot()
		used := func(slot, i, length int) bool { // is the byte part of the record?
			i -= slot * s.slot
			return i < length || i >= s.slot-footerSize
		}
		for i := range 2 * s.slot * 8 {
			flip := func() { s.mem[i/8] ^= 1 << (i % 8) }
			flip()
			got, info, err := st.Load()
			require.NoError(t, err)
			want, damaged := text(2), 0
			if i/8 >= s.slot && used(1, i/8, len(want)) {
				want, damaged = text(1), 1
			} else if i/8 < s.slot && used(0, i/8, len(text(1))) {
				damaged = 1
			}
			require.Equal(t, string(want), string(got), "bit %d of byte %d", i%8, i/8)
			require.Len(t, info.Damaged, damaged, "bit %d of byte %d", i%8, i/8)
			if damaged == 1 {
				require.Equal(t, i/8/s.slot, info.Damaged[0].Slot)
			}
			flip()
		}
		copy(s.mem, only)
		for i := range s.slot * 8 {
			s.mem[i/8] ^= 1 << (i % 8)
			got, _, err := st.Load()
			if used(0, i/8, len(text(1))) {
				require.ErrorIs(t, err, ErrEmpty)
			} else {
				require.NoError(t, err)
				require.Equal(t, string(text(1)), string(got))
			}
			s.mem[i/8] ^= 1 << (i % 8)
		}
	})
}

func TestManyWrongBits(t *testing.T) {
	s := layouts()["NOR, 2 slots"](t)
	require.NoError(t, s.boot().Save(text(1)))
	require.NoError(t, s.boot().Save(text(2)))
	st, good, random := s.boot(), slices.Clone(s.mem), rand.New(rand.NewPCG(5, 6))
	for range 20_000 {
		copy(s.mem, good)
		for range 2 + random.IntN(30) {
			i := random.IntN(len(s.mem))
			s.mem[i] ^= 1 << random.IntN(8)
		}
		if got := load(t, st); got != nil && !bytes.Equal(got, text(1)) && !bytes.Equal(got, text(2)) {
			require.FailNow(t, "garbage", "%q", got)
		}
	}
}

func TestDamage(t *testing.T) {
	slot0 := func(s *sim) []byte { return s.mem[:s.slot] }
	footer := func(s *sim) []byte { return slot0(s)[s.slot-footerSize:] }
	// repair makes the checksum right.
	repair := func(s *sim) {
		f := footer(s)
		r, n, _, err := parseFooter(f, s.slot-footerSize)
		require.NoError(s.t, err)
		r.payload = slot0(s)[:n]
		copy(f[20:], r.footer()[20:24])
	}
	for _, c := range []struct {
		name, why string
		damage    func(*sim)
	}{
		{"text", "checksum is ", func(s *sim) { slot0(s)[3]++ }},
		{"magic", "no record: magic missing", func(s *sim) { footer(s)[30]++ }},
		{"footer not written", "an unfinished write", func(s *sim) { copy(footer(s), bytes.Repeat([]byte{0xFF}, footerSize)) }},
		{"newer version", "format version 2: this program knows 1", func(s *sim) { footer(s)[19] = 2 }},
		{"longer than the slot", "out of range", func(s *sim) { footer(s)[10]++ }},
		{"longer than any text", "out of range", func(s *sim) { footer(s)[12]++ }},
		{"unknown content", "unknown content 3", func(s *sim) { footer(s)[16] = 3; repair(s) }},
		{"reserved", "reserved bytes", func(s *sim) { footer(s)[17] = 1 }},
		{"lengths differ", "text of ", func(s *sim) { footer(s)[15]++; repair(s) }},
		{"a reset with a text", "a reset record with a text", func(s *sim) { footer(s)[16] = byte(nothing); repair(s) }},
		{"not LZW", "uncompress: ", func(s *sim) {
			footer(s)[16] = byte(packed)
			copy(slot0(s), "\xff\xff\xff\xff")
			repair(s)
		}},
		{"LZW of a longer text", "uncompress: more than the 39 bytes", func(s *sim) {
			copy(slot0(s), "\x00\xc3\x08\x1cH\xb0\xa0\xc1\x83\x08\x09\x06\x04")
			copy(footer(s)[8:], "\x00\x00\x00\x0d\x00\x00\x00\x27\x01")
			repair(s)
		}},
		{"LZW of a shorter text", "uncompress: unexpected EOF", func(s *sim) {
			copy(slot0(s), "\x00\xc3\x08\x1cH\xb0\xa0\xc1\x83\x08\x09\x06\x04")
			copy(footer(s)[8:], "\x00\x00\x00\x0d\x00\x00\x00\x29\x01")
			repair(s)
		}},
		{"unreadable", "read footer: 0 of 32 bytes at 0xe0: input/output error", func(s *sim) { s.readErr[0] = syscall.EIO }},
		{"bad block", "bad block at 0x0", func(s *sim) { s.marks[0] = true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := layouts()["NOR, 2 slots"](t)
			require.NoError(t, s.boot().Save(text(1)))
			c.damage(s)
			_, info, err := s.boot().Load()
			require.ErrorIs(t, err, ErrEmpty)
			require.Len(t, info.Damaged, 1)
			assert.ErrorContains(t, info.Damaged[0].Err, c.why)
			assert.Contains(t, info.Damaged[0].String(), "slot 0: ")

			// The router goes on with the other slot.
			if c.name != "bad block" {
				delete(s.readErr, 0)
			}
			st := s.boot()
			s.eraseErr[0] = syscall.EIO
			require.NoError(t, st.Save(text(2)))
			assert.Equal(t, string(text(2)), string(load(t, s.boot())))
		})
	}
	t.Run("a disk of something else", func(t *testing.T) {
		s := layouts()["disk, 2 slots of four blocks"](t)
		for i := range s.mem {
			s.mem[i] = byte(i)
		}
		_, info, err := s.boot().Load()
		require.ErrorIs(t, err, ErrEmpty)
		assert.Len(t, info.Damaged, 2)
		require.NoError(t, s.boot().Save(text(1)))
		assert.Equal(t, string(text(1)), string(load(t, s.boot())))
	})
	t.Run("a disk of zeros is blank", func(t *testing.T) {
		s := layouts()["disk, 2 slots of four blocks"](t)
		clear(s.mem)
		_, info, err := s.boot().Load()
		require.ErrorIs(t, err, ErrEmpty)
		assert.Empty(t, info.Damaged)
	})
}

func TestFailingBlock(t *testing.T) {
	for name, fail := range map[string]func(*sim, int){
		"erase: input/output error":      func(s *sim, b int) { s.eraseErr[b] = syscall.EIO },
		"write text: input/output error": func(s *sim, b int) { s.programErr[b] = syscall.EIO },
		"verify: ":                       func(s *sim, b int) { s.stuck[b] = true },
	} {
		t.Run(name, func(t *testing.T) {
			t.Run("another slot is left", func(t *testing.T) {
				s := layouts()["NOR, 5 slots"](t)
				st := s.boot()
				require.NoError(t, st.Save(text(1)))
				fail(s, 1)
				for n := 2; n < 12; n++ {
					require.NoError(t, st.Save(text(n)))
					require.Equal(t, string(text(n)), string(load(t, s.boot())))
				}
				assert.LessOrEqual(t, s.erases[1], 1, "a worn block is tried once")
				failed, left := st.Failed()
				require.Len(t, failed, 1)
				assert.Contains(t, failed[0].String(), "slot 1: "+name)
				assert.Equal(t, 4, left)
			})
			t.Run("no other slot is left", func(t *testing.T) {
				s := layouts()["NOR, 2 slots"](t)
				st := s.boot()
				require.NoError(t, st.Save(text(1)))
				fail(s, 1)
				for range 3 {
					err := st.Save(text(2))
					require.ErrorContains(t, err, "save to sim: no slot is left to write to: slot 1: "+name)
					require.Equal(t, string(text(1)), string(load(t, s.boot())), "the old text stays")
				}
				clear(s.eraseErr)
				clear(s.programErr)
				clear(s.stuck)
				require.NoError(t, st.Save(text(2)), "it works again")
				failed, left := st.Failed()
				assert.Empty(t, failed)
				assert.Equal(t, 2, left)
				require.Equal(t, string(text(2)), string(load(t, s.boot())))
			})
		})
	}
	t.Run("all fail", func(t *testing.T) {
		s := layouts()["NAND, 3 slots"](t)
		st := s.boot()
		require.NoError(t, st.Save(text(1)))
		fails := errors.New("worn")
		s.eraseErr[1], s.programErr[2] = fails, syscall.ENOSPC
		err := st.Save(text(2))
		require.EqualError(t, err, "save to sim: no slot is left to write to: slot 1: erase: worn (and 1 more slot)")
		require.ErrorIs(t, err, fails)
		failed, left := st.Failed()
		require.Len(t, failed, 2)
		assert.Equal(t, 1, left)
		assert.Equal(t, "slot 1: erase: worn", failed[0].String())
		assert.Equal(t, "slot 2: write text: no space left on device", failed[1].String())
		require.Equal(t, string(text(1)), string(load(t, s.boot())))
	})
	t.Run("bad blocks are skipped", func(t *testing.T) {
		s := layouts()["NAND, 3 slots"](t)
		s.marks[1], s.mem[s.slot] = true, 0
		for n := range 5 {
			require.NoError(t, s.boot().Save(text(n)))
			require.Equal(t, string(text(n)), string(load(t, s.boot())))
		}
		assert.Zero(t, s.erases[1])
		require.NoError(t, s.boot().Erase())
		assert.Zero(t, s.erases[1])
		s.marks[0], s.marks[2] = true, true
		require.ErrorContains(t, s.boot().Save(text(9)), "no slot is left to write to: the others are bad blocks")
	})
	// The same where it can be neither read nor erased until later.
	t.Run("tried and not verified", func(t *testing.T) {
		s := layouts()["NOR, 3 slots of two blocks"](t)
		st := s.boot()
		require.NoError(t, st.Save(text(1)))
		s.readErr[3], s.stuck[4] = syscall.EIO, true // blocks of slots 1 and 2
		require.Error(t, st.Save(text(2)))
		delete(s.stuck, 4)
		s.eraseErr[2] = syscall.EIO
		require.NoError(t, st.Save(text(3)))
		delete(s.readErr, 3)
		require.Equal(t, string(text(3)), string(load(t, s.boot())))
	})
	// A slot that was written and could not be read back must not win later over
	// one that was written after it.
	t.Run("written but not verified", func(t *testing.T) {
		s := layouts()["NOR, 5 slots"](t)
		st := s.boot()
		require.NoError(t, st.Save(text(1)))
		for b := 1; b < 5; b++ {
			s.readErr[b] = syscall.EIO
		}
		require.ErrorIs(t, st.Save(text(2)), syscall.EIO)
		clear(s.readErr)
		require.NoError(t, st.Save(text(3)))
		require.Equal(t, string(text(3)), string(load(t, s.boot())))
	})
}

// TestBlocksGoBad has erase blocks of a chip fail one after another while it is used, each in a way of its own
// and at a moment of its own, with starts of the router in between: what was saved is there at each start,
// until the last block but one of a slot is gone, and from then on what was saved last stays.
func TestBlocksGoBad(t *testing.T) {
	const chips, slots = 300, 16
	saved, stays := 0, 0
	for chip := range chips {
		s := newSim(t, flash.Geometry{Medium: "NAND", Size: slots * 256, EraseBlock: 256, WriteSize: 64})
		r := rand.New(rand.NewPCG(uint64(chip), 0))
		s.random = r
		life := map[int]int{} // after so many erasures a block fails
		for b := range slots {
			life[b] = 1 + r.IntN(20)
		}
		wear := func() {
			for b := range slots {
				if n, ok := life[b]; !ok || s.erases[b] < n {
					continue
				}
				delete(life, b)
				switch r.IntN(4) {
				case 0:
					s.eraseErr[b] = syscall.EIO
				case 1:
					s.programErr[b] = syscall.EIO
				case 2:
					s.stuck[b] = true
				case 3:
					s.eraseErr[b], s.programErr[b] = syscall.EIO, syscall.EIO
				}
			}
		}
		st := s.boot()
		want := text(0)
		require.NoError(t, st.Save(want))
		for n, failed := 1, 0; failed < 10; n++ {
			require.Less(t, n, 1000, "chip %d never wears out", chip)
			wear()
			err := st.Save(text(n))
			if err == nil {
				require.Zero(t, failed, "chip %d: a block that was bad is good", chip)
				want = text(n)
				saved++
			} else {
				failed++
				stays++
				require.Greater(t, slots-len(life), slots/2, "chip %d: %v", chip, err)
			}
			if r.IntN(3) == 0 {
				st = s.boot()
			}
			require.Equal(t, string(want), string(load(t, st)), "chip %d after save %d: %v", chip, n, err)
			require.Equal(t, string(want), string(load(t, s.boot())), "chip %d, started after save %d: %v", chip, n, err)
		}
	}
	t.Logf("%d chips of %d slots: %d texts were saved, and the last one outlived %d saves that failed", chips, slots, saved, stays)
}

func TestReadOnly(t *testing.T) {
	s := layouts()["NOR, 2 slots"](t)
	require.NoError(t, s.boot().Save(text(1)))
	s.g.ReadOnly = syscall.EROFS
	st := s.boot()
	got, info, err := st.Load()
	require.NoError(t, err)
	assert.Equal(t, string(text(1)), string(got))
	assert.Equal(t, syscall.EROFS, info.ReadOnly)
	require.NoError(t, st.Save(text(1)), "it is stored already")
	require.ErrorIs(t, st.Save(text(2)), syscall.EROFS)
	require.ErrorIs(t, st.Erase(), syscall.EROFS)
	assert.Equal(t, []int{1, 0}, s.erases)
}
