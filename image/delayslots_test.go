package main

import (
	"bytes"
	"debug/elf"
	"debug/gosym"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/e2e"
)

// linkedProgram builds the program of testdata/linked for malta with one of its tools.
func linkedProgram(t *testing.T, tool func(linker) string) (program string, f *elf.File) {
	t.Helper()
	e2e.Builds(t)
	b, err := board.ByName("malta")
	require.NoError(t, err)
	dir := t.TempDir()
	program = filepath.Join(dir, "program")
	l, err := boardLinker(b, dir)
	require.NoError(t, err)
	require.NotEmpty(t, tool(l))
	list, err := patchGo(b, dir, l.runtime...)
	require.NoError(t, err)
	env := append(append(b.GoEnv(), l.env...), "GOFLAGS=-overlay="+list)
	require.NoError(t, run("", env, "go", "build", "-ldflags=-w", "-gcflags=all=-l", "-toolexec="+tool(l), "-o", program, "./testdata/linked"))
	f, err = elf.Open(program)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return program, f
}

// TestDelaySlots: behind no branch of a program for MIPS is a branch, behind a third of them at least is an instruction that does
// something, and behind none to runtime.deferreturn. The tests on malta and maltael show that the programs do what they shall.
func TestDelaySlots(t *testing.T) {
	_, f := linkedProgram(t, func(l linker) string { return l.toolexec })
	symbols, err := f.Symbols()
	require.NoError(t, err)
	var deferreturn uint32
	for _, s := range symbols {
		if s.Name == "runtime.deferreturn" {
			deferreturn = uint32(s.Value)
		}
	}
	require.NotZero(t, deferreturn)
	text := f.Section(".text")
	data, err := text.Data()
	require.NoError(t, err)
	branches, filled, calls := 0, 0, 0
	for i := 0; i+8 <= len(data); i += 4 {
		word, slot := f.ByteOrder.Uint32(data[i:]), f.ByteOrder.Uint32(data[i+4:])
		if !isBranch(word) {
			continue
		}
		branches++
		at := uint32(text.Addr) + uint32(i)
		assert.False(t, isBranch(slot), "two branches at %#x", at)
		if slot != 0 {
			filled++
		}
		if word>>26 == 3 && word<<6>>4 == deferreturn<<4>>4 {
			calls++
			assert.Zero(t, slot, "behind the call of runtime.deferreturn at %#x", at)
		}
	}
	assert.Greater(t, filled, branches/3, "of %d branches", branches)
	assert.NotZero(t, calls)
}

// TestDelaySlotsTraced: a trace has the line of a call, although an instruction of another line may stand behind it. A function returns
// to behind that.
func TestDelaySlotsTraced(t *testing.T) {
	program, f := linkedProgram(t, func(l linker) string { return l.compiler })
	text := f.Section(".text")
	data, err := text.Data()
	require.NoError(t, err)
	tab, err := f.Section(".gopclntab").Data()
	require.NoError(t, err)
	table, err := gosym.NewTable(nil, gosym.NewLineTable(tab, text.Addr))
	require.NoError(t, err)
	var in, want strings.Builder
	calls := 0
	for i := 0; i+8 <= len(data) && calls < 100; i += 4 {
		at := text.Addr + uint64(i)
		if f.ByteOrder.Uint32(data[i:])>>26 != 3 { // JAL
			continue
		}
		file, line, function := table.PCToLine(at)
		_, behind, _ := table.PCToLine(at + 4)
		if function == nil || function.Name == "runtime.sigpanic" || line == behind {
			continue
		}
		calls++
		start := function.Entry - text.Addr
		fmt.Fprintf(&in, "%s()\n\t?:%d +0x%x\n", traceName(function.Name), start, at+8-function.Entry)
		fmt.Fprintf(&want, "%s()\n\t%s:%d +0x%x\n", printedName(function.Name), file, line, at+8-function.Entry)
		// The line of the log about a panic tells of the last byte before that.
		fmt.Fprintf(&in, "panic: oh in %s (?:%d +0x%x)\n", traceName(function.Name), start, at+7-function.Entry)
		fmt.Fprintf(&want, "panic: oh in %s (%s:%d +0x%x)\n", printedName(function.Name), file, line, at+7-function.Entry)
	}
	require.Equal(t, 100, calls)
	var got bytes.Buffer
	require.NoError(t, annotate(program, strings.NewReader(in.String()), &got))
	assert.Equal(t, want.String(), got.String())
}

// isBranch reports whether an instruction of MIPS has a place behind it that is carried out first: J, JAL, BEQ, BNE, BLEZ, BGTZ, those of
// REGIMM (1), and JR and JALR of SPECIAL (0).
func isBranch(word uint32) bool {
	switch op := word >> 26; op {
	case 0:
		return word&0x3f == 8 || word&0x3f == 9
	case 1:
		return word>>16&0x1f <= 1 || word>>16&0x1f == 16 || word>>16&0x1f == 17
	default:
		return op >= 2 && op <= 7
	}
}
