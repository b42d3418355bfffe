package main

import (
	_ "embed"
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
	{file: pcln, wrong: "var pcsp, pcline, pcfile, pcinline loader.Sym", right: "var pcsp, pcinline loader.Sym", times: 1},
	{file: pcln, wrong: "var pcsp, pcfile, pcline, pcinline loader.Sym", right: "var pcsp, pcinline loader.Sym", times: 1},
	{file: pcln, wrong: "pcsp, pcfile, pcline, pcinline, pcdata = ldr.PcdataAuxs", right: "pcsp, _, _, pcinline, pcdata = ldr.PcdataAuxs", times: 2},
	{file: pcln, wrong: "pcSyms := []loader.Sym{pcsp, pcfile, pcline}", right: "pcSyms := []loader.Sym{pcsp}", times: 1},
	{file: pcln, wrong: "uint32(ldr.SymValue(pcfile))", right: "0", times: 1},
	{file: pcln, wrong: "uint32(ldr.SymValue(pcline))", right: "0", times: 1},
	{file: pcln, wrong: "walkFilenames(ctxt, funcs, func(", right: "walkFilenames(ctxt, nil, func(", times: 1},
	{
		file:  pcln,
		wrong: "\t\t\tfdSyms[abi.FUNCDATA_InlTree] = inlSym\n\t\t}\n",
		right: "\t\t\tfdSyms[abi.FUNCDATA_InlTree] = inlSym\n\t\t}\n" +
			"\t\tfor i := range fdSyms {\n\t\t\tif i == abi.FUNCDATA_ArgInfo || i == abi.FUNCDATA_ArgLiveInfo {\n\t\t\t\tif fdSyms[i] != 0 {\n\t\t\t\t\tldr.SetAttrReachable(fdSyms[i], false)\n\t\t\t\t}\n\t\t\t\tfdSyms[i] = 0\n\t\t\t}\n\t\t}\n" +
			"\t\tfor n := len(fdSyms); n > 0 && fdSyms[n-1] == 0 && (fi.NumInlTree() == 0 || n > abi.FUNCDATA_InlTree+1); n-- {\n\t\t\tfdSyms = fdSyms[:n-1]\n\t\t}\n",
		times: 1,
	},
	{file: pcln, wrong: "numFuncData := ldr.NumFuncdata(s)", right: "numFuncData := len(funcData(ldr, s, fi, 0, nil))", times: 1},
	{
		file:  pcln,
		wrong: "symtab.AddCStringAt(int64(off), ctxt.loader.SymName(s))",
		right: "symtab.AddCStringAt(int64(off), traceName(ctxt.loader.SymName(s)))",
		times: 1,
	},
	{
		file:  pcln,
		wrong: "\t\tnameOffsets[s] = uint32(size)\n\t\tsize += int64(len(ctxt.loader.SymName(s)) + 1) // NULL terminate\n",
		right: "\t\tname := traceName(ctxt.loader.SymName(s))\n\t\toff, ok := offsets[name]\n\t\tif !ok {\n" +
			"\t\t\toff = uint32(size)\n\t\t\toffsets[name] = off\n\t\t\tsize += int64(len(name) + 1)\n\t\t}\n\t\tnameOffsets[s] = off\n",
		times: 1,
	},
	{file: pcln, wrong: "\tvar size int64\n\twalkFuncs(", right: "\tvar size int64\n\toffsets := map[string]uint32{}\n\twalkFuncs(", times: 1},
	{file: pcln, wrong: "const funcSize = ", right: afterImports(traceNameSource) + "\nconst funcSize = ", times: 1},
}

//go:embed tracename.go
var traceNameSource string

// afterImports is a file of Go without its head, which ends with one import.
func afterImports(source string) string {
	_, rest, _ := strings.Cut(source, "\nimport \"strings\"\n")
	return rest
}

// boardLinker builds Go's linker with linkerPatches, and returns a program for go build's
// -toolexec that calls it in place of the installed one. Both are in the folder work. If this
// release of Go has another linker it says so, and returns "", which calls the installed one.
func boardLinker(work string) (string, error) {
	list, left, err := overlay(map[string]string{}, linkerPatches, work)
	if err != nil {
		return "", fmt.Errorf("source of Go's linker: %w", err)
	}
	if len(left) > 0 {
		say("Go's linker is not patched: %s has %q other than %d times: the program is larger", pcln, left[0].wrong, left[0].times)
		return "", nil
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
