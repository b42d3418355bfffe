package main

import (
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// pcln is the file of Go's linker that writes the tables of functions. The program is in the
// memory of the board, these tables with it: they were a third of it.
const pcln = "src/cmd/link/internal/ld/pcln.go"

// linkerPatches and runtimePatches leave out of the program what only a stack trace needs and the
// host can tell (go run ./image trace): file names and line numbers (330 KB, and 200 KB to find
// them), where a function's arguments are (200 KB), which functions were inlined where (150 KB), and the
// names of functions but for their packages (500 KB, traceName). Instead of a line the trace has where
// the function begins in the program's code.
//
// They leave out too where a goroutine must not be preempted by a signal (210 KB with the room for it in each
// function's entry): none is. As before Go 1.14, one that runs is preempted where it calls a function. Code here
// that calls none for long does not exist: it hashes a block, copies a buffer.
//
// They belong together: all of them apply, or none.
var linkerPatches = []patch{
	{file: pcln, wrong: "var pcsp, pcline, pcfile, pcinline loader.Sym", right: "var pcsp loader.Sym", times: 1},
	{file: pcln, wrong: "var pcsp, pcfile, pcline, pcinline loader.Sym", right: "var pcsp loader.Sym", times: 1},
	{file: pcln, wrong: "pcsp, pcfile, pcline, pcinline, pcdata = ldr.PcdataAuxs", right: "pcsp, _, _, _, pcdata = ldr.PcdataAuxs", times: 2},
	{file: pcln, wrong: "pcSyms := []loader.Sym{pcsp, pcfile, pcline}", right: "pcSyms := []loader.Sym{pcsp}", times: 1},
	// Of the tables by kinds, those that the runtime reads, one behind the other.
	{
		file: pcln,
		wrong: "\t\tfor _, pcSym := range pcdata {\n\t\t\tsaveOffset(pcSym)\n\t\t}\n" +
			"\t\tif fi.NumInlTree() > 0 {\n\t\t\tsaveOffset(pcinline)\n\t\t}\n",
		right: "\t\tfor _, kind := range keptPCData {\n\t\t\tif kind < len(pcdata) {\n\t\t\t\tsaveOffset(pcdata[kind])\n\t\t\t}\n\t\t}\n",
		times: 1,
	},
	{
		file:  pcln,
		wrong: "\tnumPCData := uint32(ldr.NumPcdata(s))\n",
		until: "\treturn numPCData\n",
		right: "\tnumPCData := uint32(0)\n\tfor i, kind := range keptPCData {\n\t\tif kind < ldr.NumPcdata(s) {\n" +
			"\t\t\tnumPCData = uint32(i + 1)\n\t\t}\n\t}\n",
		times: 1,
	},
	{
		file:  pcln,
		wrong: "\t\t\tfor j, pcSym := range pcdata {\n\t\t\t\tsb.SetUint32(ctxt.Arch, off+int64(j*4), uint32(ldr.SymValue(pcSym)))\n",
		until: "\n\t\t// Write funcdata refs",
		right: "\t\t\tfor j, kind := range keptPCData[:numPCData(ldr, s, fi)] {\n" +
			"\t\t\t\tsb.SetUint32(ctxt.Arch, off+int64(j*4), uint32(ldr.SymValue(pcdata[kind])))\n\t\t\t}\n\t\t}\n",
		times: 1,
	},
	{
		file:  pcln,
		wrong: "const funcSize = ",
		right: "// keptPCData are kinds, in the order of the patched runtime's numbers for them.\n" +
			"var keptPCData = []int{abi.PCDATA_StackMapIndex, abi.PCDATA_PanicBounds}\n\nconst funcSize = ",
		times: 1,
	},
	{file: pcln, wrong: "inlSyms := makeInlSyms(ctxt, funcs, nameOffsets)", right: "inlSyms := map[loader.Sym]loader.Sym{}", times: 1},
	// From here on the fields of runtime._func, see runtimePatches.
	{
		file: pcln,
		wrong: "\t\t\toff = sb.SetUint32(ctxt.Arch, off, uint32(ldr.SymValue(pcfile)))\n" +
			"\t\t\toff = sb.SetUint32(ctxt.Arch, off, uint32(ldr.SymValue(pcline)))\n\t\t} else {\n\t\t\toff += 12\n\t\t}\n",
		until: "\n\t\t// funcID uint8\n",
		right: "\t\t} else {\n\t\t\toff += 4\n\t\t}\n",
		times: 1,
	},
	{file: pcln, wrong: "\t\tstartLine := int32(0)\n\t\tfi := ldr.FuncInfo(s)\n", right: "\t\tfi := ldr.FuncInfo(s)\n", times: 1},
	{file: pcln, wrong: "\t\t\tstartLine = fi.StartLine()\n", right: "", times: 1},
	{file: pcln, wrong: "\t\toff += 1 // pad\n", right: "\t\toff = sb.SetUint8(ctxt.Arch, off, uint8(numPCData(ldr, s, fi)))\n", times: 1},
	// Sizes of arguments and places of deferred calls are of 16 bits (45 KB less).
	{
		file:  pcln,
		wrong: "\t\toff = sb.SetUint32(ctxt.Arch, off, args)\n",
		right: "\t\tif args == uint32(1<<31) {\n\t\t\targs = 1<<16 - 1\n\t\t} else if args >= 1<<16-1 {\n" +
			"\t\t\tctxt.Errorf(s, \"%d bytes of arguments\", args)\n\t\t}\n\t\toff = sb.SetUint16(ctxt.Arch, off, uint16(args))\n",
		times: 1,
	},
	{
		file:  pcln,
		wrong: "\t\toff = sb.SetUint32(ctxt.Arch, off, deferreturn)\n",
		right: "\t\tif deferreturn >= 1<<16 {\n\t\t\tctxt.Errorf(s, \"deferred calls %d bytes behind its start\", deferreturn)\n\t\t}\n" +
			"\t\toff = sb.SetUint16(ctxt.Arch, off, uint16(deferreturn))\n",
		times: 1,
	},
	{file: pcln, wrong: "const funcSize = 11 * 4 //", right: "const funcSize = 5 * 4 //", times: 1},
	{file: pcln, wrong: "walkFilenames(ctxt, funcs, func(", right: "walkFilenames(ctxt, nil, func(", times: 1},
	{
		file:  pcln,
		wrong: "\t\tif fi.NumInlTree() > 0 {\n\t\t\tif len(fdSyms) < abi.FUNCDATA_InlTree+1 {\n",
		until: "\t}\n\treturn fdSyms\n",
		right: "\t\tfor i := range fdSyms {\n\t\t\tif i == abi.FUNCDATA_ArgInfo || i == abi.FUNCDATA_ArgLiveInfo {\n\t\t\t\tif fdSyms[i] != 0 {\n\t\t\t\t\tldr.SetAttrReachable(fdSyms[i], false)\n\t\t\t\t}\n\t\t\t\tfdSyms[i] = 0\n\t\t\t}\n\t\t}\n" +
			"\t\tif len(fdSyms) > abi.FUNCDATA_WrapInfo {\n\t\t\tfdSyms[abi.FUNCDATA_InlTree], fdSyms[abi.FUNCDATA_WrapInfo] = fdSyms[abi.FUNCDATA_WrapInfo], 0\n\t\t}\n" +
			"\t\tfor n := len(fdSyms); n > 0 && fdSyms[n-1] == 0; n-- {\n\t\t\tfdSyms = fdSyms[:n-1]\n\t\t}\n",
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
	{file: pcln, wrong: "\tstate, compUnits, funcs := makePclntab(", right: "\tshrinkTypes(ctxt)\n\tstate, compUnits, funcs := makePclntab(", times: 1},
	{
		// The linker finds the pointers of a variable by the fields of its type, which may be cut off then.
		// The type's own mask has them too.
		file:  "src/cmd/link/internal/ld/data.go",
		wrong: "\tswitch decodetypeKind(p.ctxt.Arch, typData) {\n\tdefault:\n\t\tif decodetypeGCMaskOnDemand(",
		right: "\tkind := decodetypeKind(p.ctxt.Arch, typData)\n" +
			"\tif kind == abi.Struct && !decodetypeGCMaskOnDemand(p.ctxt.Arch, typData) {\n\t\tkind = abi.Pointer\n\t}\n" +
			"\tswitch kind {\n\tdefault:\n\t\tif decodetypeGCMaskOnDemand(",
		times: 1,
	},
	{file: pcln, wrong: "const funcSize = ", right: shrinkTypes + "\nconst funcSize = ", times: 1},
	{file: pcln, wrong: "const funcSize = ", right: afterImports(traceNameSource) + "\nconst funcSize = ", times: 1},
}

// runtimePatches have the runtime read what linkerPatches write: a function's entry has no place for
// its file, its lines and their tables, and counts its other tables in a byte. Tables that the program does not
// have get numbers that no function has a place for.
var runtimePatches = []patch{
	{file: tables, wrong: "\tPCDATA_UnsafePoint   = 0\n\tPCDATA_StackMapIndex = 1\n", right: "\tPCDATA_UnsafePoint   = 255\n\tPCDATA_StackMapIndex = 0\n", times: 1},
	{file: tables, wrong: "\tPCDATA_InlTreeIndex  = 2\n\tPCDATA_ArgLiveIndex  = 3\n\tPCDATA_PanicBounds   = 4\n", right: "\tPCDATA_InlTreeIndex  = 255\n\tPCDATA_ArgLiveIndex  = 255\n\tPCDATA_PanicBounds   = 1\n", times: 1},
	{file: tables, wrong: "\tFUNCDATA_InlTree            = 3\n", right: "\tFUNCDATA_InlTree            = 255\n", times: 1},
	{file: tables, wrong: "\tFUNCDATA_WrapInfo           = 7\n", right: "\tFUNCDATA_WrapInfo           = 3\n", times: 1},
	{file: "src/runtime/signal_unix.go", wrong: "const preemptMSupported = true", right: "const preemptMSupported = false", times: 1},
	{
		file:  "src/runtime/runtime2.go",
		wrong: "\targs        int32  // in/out args size\n\tdeferreturn uint32 //",
		right: "\targs        uint16 // in/out args size, 65535 if unknown\n\tdeferreturn uint16 //",
		times: 1,
	},
	{
		file:  "src/runtime/stkframe.go",
		wrong: "\tif f.args != abi.ArgsSizeUnknown {\n\t\targMap.n = f.args / goarch.PtrSize\n",
		right: "\tif f.args != 1<<16-1 {\n\t\targMap.n = int32(f.args) / goarch.PtrSize\n",
		times: 1,
	},
	{file: "src/runtime/stkframe.go", wrong: "frame.fn.args != abi.ArgsSizeUnknown", right: "frame.fn.args != 1<<16-1", times: 1},
	{file: "src/runtime/error.go", wrong: "\t\"internal/runtime/sys\"\n", right: "", times: 1},
	{
		// It would look for type and method in the name.
		file:  "src/runtime/error.go",
		wrong: "\tpc := sys.GetCallerPC()\n\tname := funcNameForPrint(funcname(findfunc(pc)))\n",
		until: "\n}\n",
		right: "\tpanic(plainError(\"value method called using nil pointer\"))",
		times: 1,
	},
	{
		file:  "src/runtime/runtime2.go",
		wrong: "\tpcfile    uint32\n\tpcln      uint32\n\tnpcdata   uint32\n",
		until: "\tnfuncdata uint8   // must be last, must end on a uint32-aligned boundary\n",
		right: "\tfuncID    abi.FuncID\n\tflag      abi.FuncFlag\n\tnpcdata   uint8\n",
		times: 1,
	},
	{file: symtab, wrong: "if table >= f.npcdata {", right: "if table >= uint32(f.npcdata) {", times: 3},
	{file: symtab, wrong: "return fn.funcInfo().startLine", right: "return 0", times: 1},
	{file: symtab, wrong: "srcFunc{f.datap, f.nameOff, f.startLine, f.funcID}", right: "srcFunc{f.datap, f.nameOff, 0, f.funcID}", times: 1},
	{file: symtab, wrong: "\tdatap := f.datap\n\tif !f.valid() {\n\t\treturn \"?\"\n\t}\n", until: "\t// pcln section is corrupt.\n", right: "", times: 1},
	{file: symtab, wrong: "\tdatap := f.datap\n\tif !f.valid() {\n\t\treturn \"?\", 0\n\t}\n", until: "}\n\nfunc funcline(", right: "\tif !f.valid() {\n\t\treturn \"?\", 0\n\t}\n\treturn \"?\", int32(f.entryOff)\n", times: 1},
}

// shrinkTypes is a part of the linker, which leaves out of the descriptors of types (190 KB):
//   - of a type that is never converted to an interface, and cannot be reached from one that is (the linker's own
//     UsedInIface, by which it leaves out methods), all but what the runtime reads: size, pointers and how
//     to compare. The rest is for package reflect, which starts from an interface. Two go to the fields without one:
//     a map that is empty, if its key may not be comparable, and reflect.StructOf, which no program has here;
//   - methods whose own type is nowhere in the program: no interface has such a method, so no
//     assertion can look for it;
//   - names of closures' types, which list what they capture: nobody can ask for them;
//   - names of fields and methods that nothing refers to then.
//
// Code and functions stay the same, so that a trace can be read.
const shrinkTypes = `
// shrinkTypes cuts what cannot be reached off the descriptors of types.
func shrinkTypes(ctxt *Link) {
	ldr, arch := ctxt.loader, ctxt.Arch
	common, pointer := commonsize(arch), arch.PtrSize
	const (
		closure  = "struct { F uintptr"
		namedata = "type:.namedata."
		method   = 16 // bytes of a method
	)
	short := ldr.Lookup(namedata+"*func()-", 0)
	if !ldr.AttrReachable(short) {
		short = 0
	}
	// A map that is empty looks for what cannot be compared by the fields of its key.
	inKey := map[loader.Sym]bool{}
	var keep func(s loader.Sym)
	keep = func(s loader.Sym) {
		kind := decodetypeKind(arch, ldr.Data(s))
		if inKey[s] || kind != abi.Struct && kind != abi.Array {
			return
		}
		inKey[s] = true
		relocs := ldr.Relocs(s)
		for i := 0; i < relocs.Count(); i++ {
			if r := relocs.At(i); r.Type() == objabi.R_ADDR && ldr.IsGoType(r.Sym()) {
				keep(r.Sym())
			}
		}
	}
	for s := loader.Sym(1); s < loader.Sym(ldr.NSym()); s++ {
		if ldr.AttrReachable(s) && ldr.IsGoType(s) && decodetypeKind(arch, ldr.Data(s)) == abi.Map &&
			arch.ByteOrder.Uint32(ldr.Data(s)[common+7*pointer:])&abi.MapHashMightPanic != 0 {
			relocs := ldr.Relocs(s)
			keep(decodeRelocSym(ldr, s, &relocs, int32(common)))
		}
	}
	// It looks for a type with the same fields.
	structOf := ldr.AttrReachable(ldr.Lookup("reflect.StructOf", abiInternalVer))
	unnamed := map[loader.Sym]bool{} // names that something referred to that is cut
	for s := loader.Sym(1); s < loader.Sym(ldr.NSym()); s++ {
		if !ldr.AttrReachable(s) || !ldr.IsGoType(s) {
			continue
		}
		data, size := ldr.Data(s), int(ldr.SymSize(s))
		isClosure := strings.HasPrefix(ldr.SymName(s), "type:noalg."+closure)
		end, fields := size, -1 // fields is where a pointer to fields is dropped
		if !ldr.AttrUsedInIface(s) && !decodetypeGCMaskOnDemand(arch, data) && !inKey[s] && !(structOf && ldr.IsTypelink(s)) {
			switch kind := decodetypeKind(arch, data); {
			case isClosure:
				end = common
			case kind == abi.Struct:
				end, fields = common+4*pointer, common+pointer // the package stays, and a list without fields
			case kind == abi.Pointer && decodetypeHasUncommon(arch, data):
				end = common + pointer
			case kind < abi.Array && decodetypeHasUncommon(arch, data):
				end = common
			}
		}
		type reloc struct {
			off int32
			siz uint8
			typ objabi.RelocType
			add int64
			sym loader.Sym
		}
		var kept []reloc
		var gone []int32 // where methods are that go
		relocs := ldr.Relocs(s)
		for i := 0; i < relocs.Count() && end == size; i++ {
			if r := relocs.At(i); r.Type() == objabi.R_METHODOFF { // the method's type, and twice its code
				if !ldr.AttrReachable(r.Sym()) {
					gone = append(gone, r.Off()-4)
				}
				i += 2
			}
		}
		if !isClosure && end == size && gone == nil {
			continue
		}
		for i := 0; i < relocs.Count(); i++ {
			r := relocs.At(i)
			k := reloc{r.Off(), r.Siz(), r.Type(), r.Add(), r.Sym()}
			cut := int(k.off) >= end && end < size || int(k.off) == fields
			for _, g := range gone {
				cut = cut || r.Off() >= g && r.Off() < g+method
				if r.Off() >= g+method {
					k.off -= method
				}
			}
			name := ldr.SymName(k.sym)
			ofClosure := short != 0 && strings.HasPrefix(name, namedata+"*"+closure)
			if (cut || ofClosure) && strings.HasPrefix(name, namedata) {
				unnamed[k.sym] = true
			}
			if cut {
				continue
			}
			if ofClosure {
				k.sym = short
			}
			if r.Weak() {
				k.typ |= objabi.R_WEAK
			}
			kept = append(kept, k)
		}
		data = slices.Clone(data[:end])
		if end < size {
			data[abi.TFlagOff(pointer)] &^= byte(abi.TFlagUncommon)
			if fields >= 0 {
				clear(data[fields:])
			}
		}
		if gone != nil {
			uncommon := common + decodetypeSpecific(arch, data)
			count, exported := uncommon+4, uncommon+6 // of 16 bits
			first := int32(uncommon) + int32(decodeInuxi(arch, data[uncommon+8:], 4))
			for i := len(gone) - 1; i >= 0; i-- {
				n, x := arch.ByteOrder.Uint16(data[count:]), arch.ByteOrder.Uint16(data[exported:])
				if at := (gone[i] - first) / method; gone[i] < first || at >= int32(n) {
					panic(fmt.Sprintf("%s has no method at %d", ldr.SymName(s), gone[i]))
				} else if at < int32(x) {
					arch.ByteOrder.PutUint16(data[exported:], x-1)
				}
				arch.ByteOrder.PutUint16(data[count:], n-1)
				data = slices.Delete(data, int(gone[i]), int(gone[i])+method)
			}
		}
		sb := ldr.MakeSymbolUpdater(s)
		sb.SetData(data)
		sb.SetSize(int64(len(data)))
		sb.ResetRelocs()
		for _, k := range kept {
			r, _ := sb.AddRel(k.typ)
			r.SetOff(k.off)
			r.SetSiz(k.siz)
			r.SetAdd(k.add)
			r.SetSym(k.sym)
		}
	}
	for s := loader.Sym(1); s < loader.Sym(ldr.NSym()); s++ {
		if ldr.AttrReachable(s) {
			relocs := ldr.Relocs(s)
			for i := 0; i < relocs.Count(); i++ {
				delete(unnamed, relocs.At(i).Sym())
			}
		}
	}
	for s := range unnamed {
		ldr.SetAttrReachable(s, false)
	}
}

// decodetypeSpecific returns how many bytes a type's descriptor has between those that all types have and
// its methods, as decodetypeMethods.
func decodetypeSpecific(arch *sys.Arch, data []byte) int {
	switch decodetypeKind(arch, data) {
	case abi.Struct:
		return 4 * arch.PtrSize
	case abi.Pointer, abi.Func, abi.Slice:
		return arch.PtrSize
	case abi.Array, abi.Interface:
		return 3 * arch.PtrSize
	case abi.Chan:
		return 2 * arch.PtrSize
	case abi.Map:
		return 8 * arch.PtrSize // the last one is of 32 bits
	}
	return 0
}
`

// symtab is the file of Go's runtime that reads the tables of functions, and tables the one that numbers them.
const (
	symtab = "src/runtime/symtab.go"
	tables = "src/internal/abi/symtab.go"
)

//go:embed tracename.go
var traceNameSource string

// afterImports is a file of Go without its head, which ends with one import.
func afterImports(source string) string {
	_, rest, _ := strings.Cut(source, "\nimport \"strings\"\n")
	return rest
}

// linker is how a program is linked.
type linker struct {
	toolexec string   // for go build's -toolexec; "" calls Go's own
	compiler string   // the same, with Go's own linker
	runtime  []patch  // of the runtime that reads its tables
	env      []string // of go build
}

// olderCollector chooses the garbage collector of Go 1.25, which 1.26 still has. The newer one looks at
// small objects a page at a time, for which each page has the objects' marks behind them. They are a page of the processor's
// more that is written to, for each size of objects: 36 kB of every process.
const olderCollector = "GOEXPERIMENT=nogreenteagc"

// linkerRelease is the release of Go that linkerPatches and runtimePatches are for.
const linkerRelease = "go1.26"

// boardLinker builds Go's linker with linkerPatches in the folder work, and its compiler with compilerPatches for a board with 32-bit
// MIPS. If this release of Go has another linker or runtime it says so, and returns Go's own.
func boardLinker(b board.Board, work string) (linker, error) {
	// The patches know how types are laid out, which a text that still matches does not tell.
	version, err := output("go", "env", "GOVERSION")
	if err != nil {
		return linker{}, err
	}
	if version != linkerRelease && !strings.HasPrefix(version, linkerRelease+".") {
		say("Go's linker is not patched, and the program larger: the patches are for %s, and this is %s", linkerRelease, version)
		return linker{}, nil
	}
	// Only to see whether they apply: they are for the program's overlay, and the linker runs with Go's own runtime.
	_, left, err := overlay(map[string]string{}, runtimePatches, work)
	if err != nil {
		return linker{}, fmt.Errorf("source of Go's runtime: %w", err)
	}
	tools := []struct {
		name    string
		patches []patch
	}{{"link", linkerPatches}, {"compile", compilerPatches}}
	if b.CPU.GOARCH != "mips" && b.CPU.GOARCH != "mipsle" {
		tools = tools[:1]
	}
	scripts := map[string]string{}
	for _, tool := range tools {
		list, more, err := overlay(map[string]string{}, tool.patches, work)
		if err != nil {
			return linker{}, fmt.Errorf("source of Go's %s: %w", tool.name, err)
		}
		if left = append(left, more...); len(left) > 0 {
			say("Go's linker is not patched, and the program larger: %s differs; expected %q %d times", left[0].file, left[0].wrong, left[0].times)
			return linker{}, nil
		}
		program := filepath.Join(work, tool.name)
		// For the host, whatever board the caller builds for.
		host := []string{"GOOS=", "GOARCH=", "CGO_ENABLED=0"}
		if err := run("", host, "go", "build", "-overlay="+list, "-o", program, "cmd/"+tool.name); err != nil {
			return linker{}, err
		}
		// What a tool says of its version is in the key of what go build keeps: what another compiler has made is none of it.
		var texts []string
		for _, p := range tool.patches {
			texts = append(texts, p.file, p.wrong, p.right)
		}
		scripts[tool.name] = fmt.Sprintf("*/%s)\n\tshift\n\tif [ \"$*\" = -V=full ]; then echo \"$(%q -V=full) %s\"; else exec %[2]q \"$@\"; fi ;;\n",
			tool.name, program, cache.Key(texts...))
	}
	l := linker{toolexec: filepath.Join(work, "toolexec"), compiler: filepath.Join(work, "toolexec-compile"), runtime: runtimePatches, env: []string{olderCollector}}
	for path, cases := range map[string]string{l.toolexec: scripts["link"] + scripts["compile"], l.compiler: scripts["compile"]} {
		if err := os.WriteFile(path, []byte("#!/bin/sh\ncase $1 in\n"+cases+"*) exec \"$@\" ;;\nesac\n"), 0o755); err != nil {
			return linker{}, err
		}
	}
	return l, nil
}
