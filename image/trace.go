package main

import (
	"bufio"
	"debug/elf"
	"debug/gosym"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/postern-router/postern/board"
)

var (
	// A line of a stack trace that names a function, which is traceName's of a program with boardLinker's
	// tables, and the line behind it: instead of a file and a line it says where the function begins, in
	// bytes from the start of the code, and how far behind that the place is.
	traceFunc  = regexp.MustCompile(`(?:created by (\S+)(?: in goroutine \d+)?|(\S+)\([^()]*\))\s*$`)
	tracePlace = regexp.MustCompile(`(\?:(\d+)) \+0x([0-9a-f]+)\s*$`)
	// faultPlace is how the runtime says which instruction was at fault, in front of the trace.
	faultPlace = regexp.MustCompile(`\[signal .* pc=0x([0-9a-f]+)\]\s*$`)
	// panicPlace is how the log tells of a panic in one line (package console/session). The place is the call's.
	panicPlace = regexp.MustCompile(`\bin (\S+) \((\?:(\d+)) \+0x([0-9a-f]+)\)`)
)

// trace copies in to out and writes the name, the file and the line of each function of a stack trace, which
// may stand in a log. The trace must be of the board's program of this commit. A function that
// was inlined is none of them: the line behind the function that it is in is its.
func trace(b board.Board, in io.Reader, out io.Writer) error {
	work, err := os.MkdirTemp("", "postern-trace-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	program := filepath.Join(work, "program")
	l, err := boardLinker(b, work)
	if err != nil {
		return err
	}
	// By Go's own linker, which writes all tables. The code and the order of the functions are the same.
	l.toolexec = l.compiler
	if err := linkProgram(b, work, program, "-s -w -buildid= -R=4096", l); err != nil {
		return err
	}
	return annotate(program, in, out)
}

// annotate is trace for a program with all tables.
func annotate(program string, in io.Reader, out io.Writer) error {
	e, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer e.Close()
	mips := e.Machine == elf.EM_MIPS
	text, tab := e.Section(".text"), e.Section(".gopclntab")
	if text == nil || tab == nil {
		return fmt.Errorf("%s: not a Go program", program)
	}
	data, err := tab.Data()
	if err != nil {
		return err
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(data, text.Addr))
	if err != nil {
		return err
	}
	code, err := text.Data()
	if err != nil {
		return err
	}
	functions := map[uint64]*gosym.Func{}
	for i := range table.Funcs {
		functions[table.Funcs[i].Entry-text.Addr] = &table.Funcs[i]
	}
	// find returns the function that begins start bytes (decimal) behind the first, and the file and the line offset
	// bytes (hexadecimal) and more behind its beginning, less those of back. short is the name that the trace has for it.
	find := func(short, start, offset string, back uint64) (name, place string, err error) {
		from, at, err := parsePlace(start, offset)
		if err != nil {
			return "", "", err
		}
		at -= min(back, at)
		// What a call of MIPS returns to is two instructions behind it, and the one between may be of another line.
		called := mips && at%4 == 3
		if called {
			at -= min(7, at)
		}
		f := functions[from]
		if f == nil || f.Entry+at >= f.End || short != "panic" && short != traceName(f.Name) {
			return "", "", fmt.Errorf("the program has no function of %s at %d with 0x%x bytes and more: the trace is of another board or another commit", short, from, at)
		}
		// A branch cannot be at fault: what stands behind it was, for which the processor says where the branch is.
		if mips && !called && at%4 == 0 && isBranch(e.ByteOrder.Uint32(code[from+at:])) {
			at += 4
		}
		file, n, _ := table.PCToLine(f.Entry + at)
		return f.Name, fmt.Sprintf("%s:%d", file, n), nil
	}
	w := bufio.NewWriter(out)
	// held is a line that names a function, until the one behind it says which; name is where it does so.
	var held string
	var name []int
	// fault is the address of the instruction that the trace is about, until its function is there.
	var fault uint64
	release := func() {
		if name != nil {
			fmt.Fprintln(w, held)
		}
		name = nil
	}
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if m := faultPlace.FindStringSubmatch(line); m != nil {
			fault, _ = strconv.ParseUint(m[1], 16, 64)
		}
		m := tracePlace.FindStringSubmatchIndex(line)
		if m == nil || name == nil {
			release()
			if m := traceFunc.FindStringSubmatchIndex(line); m != nil {
				if held, name = line, m[2:4]; m[2] < 0 {
					name = m[4:6]
				}
				continue
			}
			if m := panicPlace.FindStringSubmatchIndex(line); m != nil {
				f, place, err := find(line[m[2]:m[3]], line[m[6]:m[7]], line[m[8]:m[9]], 0)
				if err != nil {
					return fmt.Errorf("%q: %w", line, err)
				}
				line = line[:m[2]] + printedName(f) + line[m[3]:m[4]] + place + line[m[5]:]
			}
			fmt.Fprintln(w, line)
			continue
		}
		// It is where the function goes on when what it called returns, one instruction behind
		// the call, unless the instruction itself was at fault: the runtime leaves out what it calls then.
		var back uint64 = 1
		if from, at, err := parsePlace(line[m[4]:m[5]], line[m[6]:m[7]]); err == nil && fault != 0 && text.Addr+from+at == fault {
			back, fault = 0, 0
		}
		f, place, err := find(held[name[0]:name[1]], line[m[4]:m[5]], line[m[6]:m[7]], back)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		fmt.Fprintf(w, "%s%s%s\n%s%s%s\n", held[:name[0]], printedName(f), held[name[1]:], line[:m[2]], place, line[m[3]:])
		name = nil
	}
	release()
	if err := scanner.Err(); err != nil {
		return err
	}
	return w.Flush()
}

// parsePlace reads where a function begins (decimal), and how far behind that a place is (hexadecimal).
func parsePlace(start, offset string) (from, at uint64, err error) {
	if from, err = strconv.ParseUint(start, 10, 32); err == nil {
		at, err = strconv.ParseUint(offset, 16, 32)
	}
	return from, at, err
}

// printedName is a function's name as the runtime prints it, without types in brackets.
func printedName(name string) string {
	if name == "runtime.gopanic" {
		return "panic"
	}
	if i, j := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']'); i >= 0 && j > i {
		name = name[:i] + "[...]" + name[j+1:]
	}
	return name
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
