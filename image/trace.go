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
	"slices"
	"strconv"
	"strings"

	"github.com/postern-router/postern/board"
)

var (
	// A line of a stack trace that names a function, and the line behind it: that of a program
	// with boardLinker's tables has no file, and the distance in bytes from the function's start.
	traceFunc  = regexp.MustCompile(`(?:created by (\S+)(?: in goroutine \d+)?|(\S+)\([^()]*\))\s*$`)
	tracePlace = regexp.MustCompile(`\?:0 \+0x([0-9a-f]+)\s*$`)
)

// trace copies in to out and writes behind each function of a stack trace, which may stand in
// a log, its file and line. The trace must be of the board's program of this commit. Of functions that
// were inlined it has no offsets: the line behind the function that they are in is theirs.
func trace(b board.Board, in io.Reader, out io.Writer) error {
	work, err := os.MkdirTemp("", "postern-trace-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	program := filepath.Join(work, "program")
	l, err := boardLinker(work)
	if err != nil {
		return err
	}
	// By Go's own linker, which writes all tables. The code and the order of the functions are the same.
	l.toolexec = ""
	if err := linkProgram(b, work, program, "-s -w -buildid= -R=4096", l); err != nil {
		return err
	}
	return annotate(program, in, out)
}

// annotate is trace for a program with all tables.
func annotate(program string, in io.Reader, out io.Writer) error {
	f, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer f.Close()
	text, tab := f.Section(".text"), f.Section(".gopclntab")
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
	functions := map[string][]*gosym.Func{}
	for i := range table.Funcs {
		f := &table.Funcs[i]
		name := traceName(f.Name)
		functions[name] = append(functions[name], f)
	}
	w := bufio.NewWriter(out)
	var name, before string
	scanner := bufio.NewScanner(in)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		line := scanner.Text()
		if m := traceFunc.FindStringSubmatch(line); m != nil {
			name, before = m[1]+m[2], name
			if name == "panic" { // as the runtime prints it
				name = "runtime.gopanic"
			}
		}
		m := tracePlace.FindStringSubmatchIndex(line)
		if m == nil || name == "" {
			fmt.Fprintln(w, line)
			continue
		}
		offset, err := strconv.ParseUint(line[m[2]:m[3]], 16, 32)
		if err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		// It is where the function goes on when what it called returns, one instruction behind
		// the call, unless the instruction itself was at fault.
		if before != "runtime.sigpanic" && offset > 0 {
			offset--
		}
		var places []string
		for _, f := range functions[name] {
			if f.Entry+offset < f.End {
				file, n, _ := table.PCToLine(f.Entry + offset)
				places = append(places, fmt.Sprintf("%s:%d", file, n))
			}
		}
		slices.Sort(places)
		if places = slices.Compact(places); len(places) == 0 {
			return fmt.Errorf("the program has no function %s of 0x%x bytes and more: the trace is of another board or another commit", name, offset)
		}
		// Functions for several types have one name.
		fmt.Fprintf(w, "%s%s%s\n", line[:m[0]], strings.Join(places, " or "), strings.TrimPrefix(line[m[0]:], "?:0"))
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	return w.Flush()
}
