package board

import (
	"fmt"
	"strconv"
	"strings"
)

// File returns the text of /etc/board in the board's image: what the router has to know of its
// board, a line of words for each property. Parse reads it. With this file the program needs
// no board's value: all of them would be 11 KB of flash and 65 KB of memory.
func (b Board) File() string {
	var text strings.Builder
	line := func(words ...string) { text.WriteString(strings.Join(words, " ") + "\n") }
	line("name", b.Name)
	for _, p := range b.Ports {
		line("port", p.Name, p.Device)
	}
	if b.WAN != "" {
		line("wan", b.WAN)
	}
	line("lan", b.LAN)
	for _, c := range b.Consoles {
		line("console", c)
	}
	if b.LossyTimer != "" {
		line("lossy-timer", b.LossyTimer)
	}
	if b.Flash.Chip != "" {
		line("chip", b.Flash.Chip)
	}
	for _, p := range b.Flash.Partitions {
		line("partition", p.Name, strconv.FormatInt(p.Offset, 10), strconv.FormatInt(p.Size, 10))
	}
	return text.String()
}

// values is how many words follow the first one of a line of File.
var values = map[string]int{"name": 1, "port": 2, "wan": 1, "lan": 1, "console": 1, "lossy-timer": 1, "chip": 1, "partition": 3}

// Parse returns the board of a text of File: its Name, Ports without QEMU's part, WAN, LAN,
// Consoles, LossyTimer, and Flash without its size. The other fields are empty. An error names
// the line.
func Parse(text string) (Board, error) {
	var b Board
	for line := range strings.Lines(text) {
		words := append(strings.Fields(line), "") // so that there is a first one
		key, v := words[0], words[1:max(1, len(words)-1)]
		if n, known := values[key]; !known || len(v) != n {
			return Board{}, fmt.Errorf("line %q: expected one of a board's properties and its values", strings.TrimSuffix(line, "\n"))
		}
		switch key {
		case "name":
			b.Name = v[0]
		case "port":
			b.Ports = append(b.Ports, Port{Name: v[0], Device: v[1]})
		case "wan":
			b.WAN = v[0]
		case "lan":
			b.LAN = v[0]
		case "console":
			b.Consoles = append(b.Consoles, v[0])
		case "lossy-timer":
			b.LossyTimer = v[0]
		case "chip":
			b.Flash.Chip = v[0]
		case "partition":
			offset, err := strconv.ParseInt(v[1], 10, 64)
			if err != nil {
				return Board{}, fmt.Errorf("offset of partition %s: %w", v[0], err)
			}
			size, err := strconv.ParseInt(v[2], 10, 64)
			if err != nil {
				return Board{}, fmt.Errorf("size of partition %s: %w", v[0], err)
			}
			b.Flash.Partitions = append(b.Flash.Partitions, Partition{v[0], offset, size})
		}
	}
	if b.Name == "" || b.LAN == "" {
		return Board{}, fmt.Errorf("a board needs a name and a lan: they are %q and %q", b.Name, b.LAN)
	}
	return b, nil
}
