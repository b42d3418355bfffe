package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// pcln is the file of Go's linker that writes the tables of functions. The program is in the
// memory of the board, these tables with it: they were a third of it.
const pcln = "src/cmd/link/internal/ld/pcln.go"

// linkerPatches leave out of the program what only a stack trace needs and the host can tell
// (go run ./image trace): file names and line numbers (330 KB), and where a function's arguments
// are (200 KB). Function names are shortened by traceName (200 KB).
//
// They belong together: all of them apply, or none.
var linkerPatches = []patch{
	{wrong: "var pcsp, pcline, pcfile, pcinline loader.Sym", right: "var pcsp, pcinline loader.Sym", times: 1},
	{wrong: "var pcsp, pcfile, pcline, pcinline loader.Sym", right: "var pcsp, pcinline loader.Sym", times: 1},
	{wrong: "pcsp, pcfile, pcline, pcinline, pcdata = ldr.PcdataAuxs", right: "pcsp, _, _, pcinline, pcdata = ldr.PcdataAuxs", times: 2},
	{wrong: "pcSyms := []loader.Sym{pcsp, pcfile, pcline}", right: "pcSyms := []loader.Sym{pcsp}", times: 1},
	{wrong: "uint32(ldr.SymValue(pcfile))", right: "0", times: 1},
	{wrong: "uint32(ldr.SymValue(pcline))", right: "0", times: 1},
	{wrong: "walkFilenames(ctxt, funcs, func(", right: "walkFilenames(ctxt, nil, func(", times: 1},
	{
		wrong: "\t\t\tfdSyms[abi.FUNCDATA_InlTree] = inlSym\n\t\t}\n",
		right: "\t\t\tfdSyms[abi.FUNCDATA_InlTree] = inlSym\n\t\t}\n" +
			"\t\tfor i := range fdSyms {\n\t\t\tif i == abi.FUNCDATA_ArgInfo || i == abi.FUNCDATA_ArgLiveInfo {\n\t\t\t\tif fdSyms[i] != 0 {\n\t\t\t\t\tldr.SetAttrReachable(fdSyms[i], false)\n\t\t\t\t}\n\t\t\t\tfdSyms[i] = 0\n\t\t\t}\n\t\t}\n" +
			"\t\tfor n := len(fdSyms); n > 0 && fdSyms[n-1] == 0 && (fi.NumInlTree() == 0 || n > abi.FUNCDATA_InlTree+1); n-- {\n\t\t\tfdSyms = fdSyms[:n-1]\n\t\t}\n",
		times: 1,
	},
	{wrong: "numFuncData := ldr.NumFuncdata(s)", right: "numFuncData := len(funcData(ldr, s, fi, 0, nil))", times: 1},
	{
		wrong: "symtab.AddCStringAt(int64(off), ctxt.loader.SymName(s))",
		right: "symtab.AddCStringAt(int64(off), traceName(ctxt.loader.SymName(s)))",
		times: 1,
	},
	{
		wrong: "\t\tnameOffsets[s] = uint32(size)\n\t\tsize += int64(len(ctxt.loader.SymName(s)) + 1) // NULL terminate\n",
		right: "\t\tname := traceName(ctxt.loader.SymName(s))\n\t\toff, ok := offsets[name]\n\t\tif !ok {\n" +
			"\t\t\toff = uint32(size)\n\t\t\toffsets[name] = off\n\t\t\tsize += int64(len(name) + 1)\n\t\t}\n\t\tnameOffsets[s] = off\n",
		times: 1,
	},
	{wrong: "\tvar size int64\n\twalkFuncs(", right: "\tvar size int64\n\toffsets := map[string]uint32{}\n\twalkFuncs(", times: 1},
	{
		wrong: "const funcSize = ",
		right: "func traceName(name string) string {\n" +
			"\tif i, j := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']'); i >= 0 && j > i {\n" +
			"\t\tname = name[:i] + \"[...]\" + name[j+1:]\n\t}\n" +
			"\treturn strings.ReplaceAll(name, \"" + modulePath + "\", \"\")\n}\n\nconst funcSize = ",
		times: 1,
	},
}

// modulePath begins the names of Postern's own packages.
const modulePath = "github.com/postern-router/postern/"

// traceName is the name of a function in a stack trace of the shipped program: without the path
// of Postern's module and, as the runtime prints it, without types in brackets. The linker has
// the same function.
func traceName(name string) string {
	if i, j := strings.IndexByte(name, '['), strings.LastIndexByte(name, ']'); i >= 0 && j > i {
		name = name[:i] + "[...]" + name[j+1:]
	}
	return strings.ReplaceAll(name, modulePath, "")
}

// boardLinker builds Go's linker with linkerPatches, and returns a program for go build's
// -toolexec that calls it in place of the installed one. Both are in the folder work. If this
// release of Go has another linker it says so, and returns "", which calls the installed one.
func boardLinker(work string) (string, error) {
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(goroot, pcln))
	if err != nil {
		return "", fmt.Errorf("source of Go's linker: %w", err)
	}
	patched := make([]patch, len(linkerPatches))
	for i, m := range linkerPatches {
		if n := strings.Count(string(text), m.wrong); n != m.times {
			say("Go's linker is not patched: %s has %q %d times, not %d: the program is larger", pcln, m.wrong, n, m.times)
			return "", nil
		}
		m.file = pcln
		patched[i] = m
	}
	list, err := overlay(map[string]string{}, patched, "linker", work)
	if err != nil {
		return "", err
	}
	link := filepath.Join(work, "link")
	// For the host, whatever board the caller builds for.
	host := []string{"GOOS=", "GOARCH=", "CGO_ENABLED=0"}
	if err := run("", host, "go", "build", "-overlay="+list, "-o", link, "cmd/link"); err != nil {
		return "", err
	}
	wrapper := filepath.Join(work, "toolexec")
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\n*/link) shift; exec %q \"$@\" ;;\nesac\nexec \"$@\"\n", link)
	return wrapper, os.WriteFile(wrapper, []byte(script), 0o755)
}
