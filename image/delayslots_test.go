package main

import (
	"bytes"
	"context"
	"debug/elf"
	"debug/gosym"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
	"github.com/postern-router/postern/internal/e2e"
)

// linkedProgram builds the program of testdata/linked for malta with one of its tools.
func linkedProgram(t *testing.T, tool func(linker) string) (program string, f *elf.File) {
	t.Helper()
	b, err := board.ByName("malta")
	require.NoError(t, err)
	return boardProgram(t, b, "linked", tool)
}

// boardProgram builds a program of testdata for a board with one of its tools.
func boardProgram(t *testing.T, b board.Board, name string, tool func(linker) string) (program string, f *elf.File) {
	t.Helper()
	e2e.Builds(t)
	dir := t.TempDir()
	program = filepath.Join(dir, "program")
	l, err := boardLinker(b, dir)
	require.NoError(t, err)
	require.NotEmpty(t, tool(l))
	list, err := patchGo(b, dir, l.runtime...)
	require.NoError(t, err)
	env := append(append(b.GoEnv(), l.env...), "GOFLAGS=-overlay="+list)
	require.NoError(t, run("", env, "go", "build", "-ldflags=-w", "-gcflags=all=-l", "-toolexec="+tool(l), "-o", program, "./testdata/"+name))
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

// slotFaults are functions of testdata/faults whose fault stands behind a branch: of a call, a return and a jump.
var slotFaults = []string{"storeAtCall", "loadAtCall", "storeAtReturn", "storeAtJump"}

// TestDelaySlotsFault runs a program that reads and writes by nil pointers as PID 1 of each board of MIPS that QEMU has. Whatever stands behind
// the branches, a panic can be recovered from, what was set before holds, and the trace has the line of the fault.
func TestDelaySlotsFault(t *testing.T) {
	e2e.Builds(t)
	e2e.Boots(t)
	source, err := os.ReadFile("testdata/faults/main.go")
	require.NoError(t, err)
	lines := map[string]int{} // of faults, by their functions
	function := ""
	for i, line := range strings.Split(string(source), "\n") {
		if m := regexp.MustCompile(`^func (\w+)\(`).FindStringSubmatch(line); m != nil {
			function = m[1]
		}
		if strings.HasSuffix(line, "// faults") {
			lines[function] = i + 1
		}
	}
	require.Greater(t, len(lines), 10)
	c, err := cache.Open()
	require.NoError(t, err)
	for _, name := range []string{"malta", "maltael"} {
		t.Run(name, func(t *testing.T) {
			b, err := board.ByName(name)
			require.NoError(t, err)
			program, _ := boardProgram(t, b, "faults", func(l linker) string { return l.toolexec })
			full, f := boardProgram(t, b, "faults", func(l linker) string { return l.compiler })
			text := f.Section(".text")
			code, err := text.Data()
			require.NoError(t, err)
			bare := bootProgram(t, c, b, program)
			var out bytes.Buffer
			require.NoError(t, annotate(full, strings.NewReader(bare), &out))
			said := out.String()
			inSlots := map[string]bool{} // what was at fault stands behind a branch
			for _, m := range regexp.MustCompile(`(?m)^(\w+): panic: .* in main\. \(\?:(\d+) \+0x([0-9a-f]+)\)$`).FindAllStringSubmatch(bare, -1) {
				from, at, err := parsePlace(m[2], m[3])
				require.NoError(t, err)
				inSlots[m[1]] = isBranch(f.ByteOrder.Uint32(code[from+at:]))
			}
			for function, line := range lines {
				const what = "runtime error: invalid memory address or nil pointer dereference"
				place := fmt.Sprintf(`\S+/testdata/faults/main\.go:%d \+0x`, line)
				assert.Regexp(t, `(?m)^`+function+`: panic: `+what+` in main\.`+function+` \(`+place, said, "recovered")
				assert.Regexp(t, `(?m)^panic: `+what+`\n\[signal SIGSEGV.*\n\ngoroutine 1 .*\nmain\.`+function+`\(.*\)\n\t`+place+`(.*\n)+?`+function+` ends: <nil>`, said, "not recovered")
				assert.Contains(t, inSlots, function)
			}
			for _, function := range slotFaults {
				assert.True(t, inSlots[function], "%s: what is at fault stands behind a branch", function)
			}
			assert.Contains(t, said, "\nwithDefer: 42\nkept: 42\n")
			if t.Failed() {
				t.Log(said)
			}
		})
	}
}

// bootProgram runs a program as PID 1 of a board in QEMU until the machine restarts, and returns what it has printed.
func bootProgram(t *testing.T, c cache.Cache, b board.Board, program string) string {
	t.Helper()
	folder, err := kernel(c, b, "")
	require.NoError(t, err)
	data, err := os.ReadFile(program)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "initramfs")
	var archive newc
	archive.record("init", len("init")+1, 0o100755, data)
	require.NoError(t, os.WriteFile(path, archive.end(), 0o644))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // ends only a test that would wait for ever
	defer cancel()
	cmd := exec.CommandContext(ctx, b.QEMU.Binary, "-nodefaults", "-no-user-config", "-display", "none", "-machine", b.QEMU.Machine, "-cpu", b.QEMU.CPU,
		"-m", fmt.Sprint(b.Memory), "-serial", "stdio", "-no-reboot", "-kernel", filepath.Join(folder, "kernel"), "-initrd", path,
		"-append", b.Kernel.CommandLine+" panic=1 quiet")
	out, err := cmd.Output()
	require.NoError(t, err, "%s", out)
	return strings.ReplaceAll(string(out), "\r", "")
}
