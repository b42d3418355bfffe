package board

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestFile checks that the router gets all that it needs of each board.
func TestFile(t *testing.T) {
	for _, b := range All() {
		t.Run(b.Name, func(t *testing.T) {
			want := Board{Name: b.Name, WAN: b.WAN, LAN: b.LAN, Consoles: b.Consoles, LossyTimer: b.LossyTimer,
				Flash: Flash{Chip: b.Flash.Chip, Partitions: b.Flash.Partitions}}
			for _, p := range b.Ports {
				want.Ports = append(want.Ports, Port{Name: p.Name, Device: p.Device})
			}
			got, err := Parse(b.File())
			require.NoError(t, err)
			assert.Equal(t, want, got)
		})
	}
	malta, err := ByName("malta")
	require.NoError(t, err)
	assert.Equal(t, `name malta
port ether1 pci0000:00/0000:00:12.0
port ether2 pci0000:00/0000:00:14.0
wan ether1
lan ether2
console ttyS0
lossy-timer MIPS
chip 1e000000.flash
partition boot 0 327680
partition image 327680 3604480
partition postern-config 3932160 131072
partition environment 4063232 131072
`, malta.File())
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, err string }{
		{"nothing", "", "a board needs a name and a lan"},
		{"no LAN", "name x\n", `they are "x" and ""`},
		{"an empty line", "name x\n\nlan y\n", `line ""`},
		{"an unknown property", "name x\ncolour red\n", `line "colour red"`},
		{"too few values", "port ether1\n", `line "port ether1"`},
		{"too many values", "name x y\n", `line "name x y"`},
		{"an offset that is no number", "partition a 1M 2\n", "offset of partition a"},
		{"a size that is no number", "partition a 1 2M\n", "size of partition a"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(c.text)
			assert.ErrorContains(t, err, c.err)
		})
	}
}
