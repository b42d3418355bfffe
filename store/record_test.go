package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Slots as version 1 of the format has them, made by another program: they must be
// read for ever.
func TestFormat(t *testing.T) {
	for _, c := range []struct{ name, payload, footer, text string }{
		{"text", "/ip socks set enabled=yes\n",
			"\x00\x00\x00\x00\x00\x00\x00\x01" + "\x00\x00\x00\x1a" + "\x00\x00\x00\x1a" + "\x00\x00\x00\x01" + "\xe2\xdd:H" + "POSTERN\n",
			"/ip socks set enabled=yes\n"},
		{"LZW", "\x00\xc3\x08\x1cH\xb0\xa0\xc1\x83\x08\x09\x06\x04",
			"\x00\x00\x00\x00\x00\x00\x00\x07" + "\x00\x00\x00\x0d" + "\x00\x00\x00(" + "\x01\x00\x00\x01" + "\xb9\xb1t\xe8" + "POSTERN\n",
			strings.Repeat("a", 40)},
		{"reset", "",
			"\x00\x00\x00\x00\x00\x00\x00\x09" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00" + "\x02\x00\x00\x01" + "Bf{\x00" + "POSTERN\n",
			""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := layouts()["NOR, 2 slots"](t)
			copy(s.mem, c.payload)
			copy(s.mem[s.slot-footerSize:], c.footer)
			got, info, err := s.boot().Load()
			require.Empty(t, info.Damaged)
			if c.text == "" {
				require.ErrorIs(t, err, ErrEmpty)
				require.True(t, info.Reset)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.text, string(got))
		})
	}
	t.Run("written", func(t *testing.T) {
		s := layouts()["NOR, 2 slots"](t)
		require.NoError(t, s.boot().Save([]byte("/ip socks set enabled=yes\n")))
		require.Equal(t, "\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x1a\x00\x00\x00\x1a\x00\x00\x00\x01\xe2\xdd:HPOSTERN\n",
			string(s.mem[s.slot-footerSize:s.slot]))
	})
}

func TestPackToTheLastByte(t *testing.T) {
	text := []byte(strings.Repeat("/ip firewall filter add chain=forward action=drop\n", 100))
	r, err := pack(text, len(text)-1)
	require.NoError(t, err)
	room := len(r.payload)
	_, err = pack(text, room)
	require.NoError(t, err)
	_, err = pack(text, room-1)
	require.ErrorIs(t, err, ErrTooLong)
	require.ErrorContains(t, err, fmt.Sprintf("%d bytes, compressed %d, and a slot has room for %d", len(text), room, room-1))
}

// FuzzDecode reads any bytes as a slot. If repair is set, the magic, version and
// checksum are made right, since no fuzzer guesses them, and what is after them
// is tested too.
func FuzzDecode(f *testing.F) {
	f.Fuzz(func(t *testing.T, slot []byte, repair bool) {
		s := layouts()["NOR, 5 slots"](t)
		mem := s.mem[2*s.slot : 3*s.slot]
		footer := mem[len(mem)-footerSize:]
		if n := len(slot) - footerSize; n > 0 { // the end of the input is the footer
			copy(mem, slot[:n])
			copy(footer, slot[n:])
		} else {
			copy(footer, slot)
		}
		if repair {
			copy(footer[24:], magic)
			footer[19] = formatVersion
			if r, n, _, err := parseFooter(footer, len(mem)-footerSize); err == nil {
				r.payload = mem[:n]
				copy(footer[20:], r.footer()[20:24])
			}
		}
		st := s.boot()
		got, info, err := st.Load()
		if err != nil {
			require.ErrorIs(t, err, ErrEmpty)
			require.Nil(t, got)
		} else {
			require.Equal(t, 2, info.Slot)
			require.LessOrEqual(t, len(got), MaxText)
			require.NotNil(t, got)
		}
		// Whatever there was, the next text is kept.
		if info.Sequence == 1<<64-1 {
			return // no router writes that often
		}
		require.NoError(t, st.Save([]byte("next")))
		require.Equal(t, "next", string(load(t, s.boot())))
	})
}
