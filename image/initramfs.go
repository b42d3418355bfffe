package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// links are the names by which the two programs in the image are called.
var links = map[string]string{
	"init":                  "bin/postern",
	"sbin/iptables":         "sbin/xtables-legacy-multi",
	"sbin/iptables-save":    "sbin/xtables-legacy-multi",
	"sbin/iptables-restore": "sbin/xtables-legacy-multi",
}

// buildAll builds the boards' images, as many at a time as there are processors: packing an image takes one. What is
// cached is made before, one after the other, as building a kernel takes all of them.
func buildAll(c cache.Cache, boards []board.Board, out string, debug, detailed bool) ([]sizes, error) {
	for _, b := range boards {
		if _, err := kernel(c, b, ""); err != nil {
			return nil, err
		}
		if _, err := iptables(c, b, ""); err != nil {
			return nil, err
		}
		if debug {
			if _, err := debugTools(c, b); err != nil {
				return nil, fmt.Errorf("debugging tools for %s: %w", b.CPU.GOARCH, err)
			}
		}
	}
	built, failed := make([]sizes, len(boards)), make([]error, len(boards))
	places := make(chan struct{}, runtime.NumCPU())
	var running sync.WaitGroup
	for i, b := range boards {
		running.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			built[i], failed[i] = build(c, b, out, debug, detailed)
		})
	}
	running.Wait()
	return built, errors.Join(failed...)
}

// build builds a board's image in the folder out/BOARD: kernel, initramfs.cpio.xz,
// kernel.config, the files of makeImages and writeDocuments, and SHA256SUMS. With debug the
// image has debugCommands. detailed asks for the sizes of the program's packages.
func build(c cache.Cache, b board.Board, out string, debug, detailed bool) (sizes, error) {
	name := b.Name
	if debug {
		name += "-debug"
	}
	kernelDir, err := kernel(c, b, "")
	if err != nil {
		return sizes{}, err
	}
	iptablesDir, err := iptables(c, b, "")
	if err != nil {
		return sizes{}, err
	}
	v, err := readVersion()
	if err != nil {
		return sizes{}, err
	}
	keys, err := openKeys()
	if err != nil {
		return sizes{}, err
	}
	publicKey, err := publicKeyFile(keys)
	if err != nil {
		return sizes{}, err
	}
	work, err := os.MkdirTemp("", "postern-image-")
	if err != nil {
		return sizes{}, err
	}
	defer os.RemoveAll(work)
	program := filepath.Join(work, "postern")
	if err := buildProgram(b, work, program); err != nil {
		return sizes{}, err
	}
	xtables := filepath.Join(iptablesDir, "xtables-legacy-multi")
	archive := filepath.Join(work, "initramfs.cpio")
	more := []cpio.Record{cpio.StaticFile("etc/version", v.file(), 0o644), cpio.StaticFile("etc/upgrade.pub", publicKey, 0o644)}
	if debug {
		tools, err := debugTools(c, b)
		if err != nil {
			return sizes{}, fmt.Errorf("debugging tools for %s: %w", b.CPU.GOARCH, err)
		}
		more = append(more, tools...)
	}
	if err := packInitramfs(b, program, xtables, archive, work, more...); err != nil {
		return sizes{}, fmt.Errorf("initramfs for %s: %w", b.Name, err)
	}
	initramfs, err := compress(archive)
	if err != nil {
		return sizes{}, err
	}

	dir := filepath.Join(out, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return sizes{}, err
	}
	var sums strings.Builder
	for _, f := range []struct{ name, from string }{
		{"initramfs.cpio.xz", initramfs},
		{"kernel", filepath.Join(kernelDir, "kernel")},
		{"kernel.config", filepath.Join(kernelDir, "config")},
	} {
		// By rename: a running QEMU may be reading the old file.
		to := filepath.Join(dir, f.name)
		if err := copyFile(to+".new", f.from, 0o644); err != nil {
			return sizes{}, err
		}
		if err := os.Rename(to+".new", to); err != nil {
			return sizes{}, err
		}
		sum, err := fileHash(to)
		if err != nil {
			return sizes{}, err
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, f.name)
	}
	// If the image is too large the table tells more than the error of the code that finds no
	// room for it.
	check := func(slot string) (sizes, error) {
		s, err := measure(b, filepath.Join(dir, "kernel"), initramfs, slot)
		if err != nil {
			return sizes{}, err
		}
		tooLarge := !debug && b.ImageLimit > 0 && s.total > b.ImageLimit
		if tooLarge || detailed {
			if s, err = s.detailed(work, program, xtables); err != nil {
				return sizes{}, err
			}
		}
		if tooLarge {
			return sizes{}, fmt.Errorf("the image for %s has %d bytes, its flash takes %d\n%s", b.Name, s.total, b.ImageLimit, s)
		}
		return s, nil
	}
	var s sizes
	if !packsKernel(b) {
		if s, err = check(""); err != nil {
			return sizes{}, err
		}
	}
	made, err := makeImages(b, v, keys, dir, work)
	if debug && errors.Is(err, errTooLarge) {
		say("%s with the debugging tools starts by -kernel only: %v", b.Name, err)
		err = nil
	}
	if err != nil {
		return sizes{}, err
	}
	if slices.Contains(made, slotImage) {
		if s, err = check(filepath.Join(dir, slotImage)); err != nil {
			return sizes{}, err
		}
		// A board that keeps nothing has no slot to upgrade.
		if _, ok := slotRoom(b); ok {
			if err := sysupgrade(b, v, keys, filepath.Join(dir, slotImage), filepath.Join(dir, upgradeImage)); err != nil {
				return sizes{}, err
			}
			made = append(made, upgradeImage)
		}
	}
	beside, err := writeDocuments(b, v, dir, program, xtables, made)
	if err != nil {
		return sizes{}, err
	}
	for _, name := range append(made, beside...) {
		sum, err := fileHash(filepath.Join(dir, name))
		if err != nil {
			return sizes{}, err
		}
		fmt.Fprintf(&sums, "%s  %s\n", sum, name)
	}
	if err := os.WriteFile(filepath.Join(dir, "SHA256SUMS"), []byte(sums.String()), 0o644); err != nil {
		return sizes{}, err
	}
	say("%s: %s, %d KB", b.Name, dir, s.total>>10)
	return s, nil
}

// buildProgram compiles the Go program, stripped, without paths of this machine.
func buildProgram(b board.Board, work, path string) error {
	return compileProgram(b, work, path, "-s -w -buildid= -R=4096")
}

// withoutInlining are flags of go build that switch inlining off, which saves a tenth of the
// program's size, on flash and in memory. Code that runs for each packet, or for each byte of
// a password's hash or of SSH, stays inlined.
var withoutInlining = []string{
	"-gcflags=all=-l", "-gcflags=runtime=", "-gcflags=internal/runtime/...=", "-gcflags=syscall=",
	"-gcflags=golang.org/x/sys/unix=", "-gcflags=golang.org/x/crypto/...=",
	"-gcflags=github.com/postern-router/postern/socks=", "-gcflags=github.com/postern-router/postern/" + protocol + "poly1305=",
}

// compileProgram compiles the Go program with flags of the linker, and with boardLinker.
func compileProgram(b board.Board, work, path, ldflags string) error {
	l, err := boardLinker(b, work)
	if err != nil {
		return err
	}
	return linkProgram(b, work, path, ldflags, l)
}

// linkProgram compiles the Go program with a linker and its flags.
func linkProgram(b board.Board, work, path, ldflags string, l linker) error {
	env, err := goEnv(b, work, l.runtime...)
	if err != nil {
		return err
	}
	args := []string{"build", "-tags=" + b.GoTags(), "-trimpath", "-buildvcs=false", "-toolexec=" + l.toolexec, "-ldflags=" + ldflags}
	return run("", append(env, l.env...), "go", append(append(args, withoutInlining...), "-o", path, "github.com/postern-router/postern/init")...)
}

// goEnv is the board's Go environment with an overlay that patches the toolchain; more are patches besides
// those of every program.
func goEnv(b board.Board, work string, more ...patch) ([]string, error) {
	overlay, err := patchGo(b, work, more...)
	if err != nil {
		return nil, fmt.Errorf("patch Go for %s: %w", b.Name, err)
	}
	return append(b.GoEnv(), strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)), nil
}

// patch replaces text in Go's standard library (src/...) or in this project, where copied packages are.
type patch struct {
	file string
	// right replaces wrong and, if until is not empty, all from there to the next until, which stays, or to
	// endOfFile.
	wrong, until, right string
	times               int      // how often wrong is in the file
	goarch              []string // empty for all
	why                 string   // what goes wrong without it
}

// endOfFile is the patch.until of a patch that replaces the rest of a file.
const endOfFile = "\x00"

// apply returns the text with the patch. ok is false if it is not the text that the patch is for.
func (m patch) apply(text string) (patched string, ok bool) {
	if strings.Count(text, m.wrong) != m.times {
		return "", false
	}
	if m.until == "" {
		return strings.ReplaceAll(text, m.wrong, m.right), true
	}
	text += endOfFile
	for range m.times {
		before, rest, _ := strings.Cut(text, m.wrong)
		_, after, found := strings.Cut(rest, m.until)
		if !found {
			return "", false
		}
		text = before + m.right + m.until + after
	}
	return strings.TrimSuffix(text, endOfFile), true
}

func (m patch) appliesTo(b board.Board) bool {
	return len(m.goarch) == 0 || slices.Contains(m.goarch, b.CPU.GOARCH)
}

var patches = []patch{
	{
		// The layout of a 64-bit timespec on 32-bit MIPS. The kernel's has 64-bit nanoseconds
		// (linux/time_types.h), whose lower half comes last on a big-endian processor.
		// Releases before Go 1.26 make 32-bit calls.
		file:   "src/runtime/defs_linux_mipsx.go",
		wrong:  "\ttv_sec  int64\n\ttv_nsec int32\n\t_       [4]byte // the C ABI aligns int64 to 8 bytes\n",
		right:  "\ttv_sec  int64\n\t_       [4]byte\n\ttv_nsec int32\n",
		times:  1,
		goarch: []string{"mips"},
		why:    "timed waits spin (golang/go#77934)",
	},
	{
		// usleep passes microseconds where the kernel takes nanoseconds: it does not multiply
		// the remainder of the division into seconds by a thousand.
		file: "src/runtime/sys_linux_mipsx.s",
		wrong: "\tMOVW\t$1000, R4\n\tMULU\tR3, R4\n\tMOVW\tLO, R4\n\tSUBU\tR4, R5\n\tMOVW\tR5, 28(R29)\n" +
			"\n\t// nanosleep(&ts, 0)\n",
		right: "\tMULU\tR3, R4\n\tMOVW\tLO, R4\n\tSUBU\tR4, R5\n\tMOVW\t$1000, R4\n\tMULU\tR5, R4\n\tMOVW\tLO, R5\n\tMOVW\tR5, 28(R29)\n" +
			"\n\t// nanosleep(&ts, 0)\n",
		times:  1,
		goarch: []string{"mips", "mipsle"},
		why:    "the runtime's monitor, which pauses 20 microseconds to 10 milliseconds, hardly pauses",
	},
	{
		// A buffer of 32 MiB, used in FIPS 140-3 mode only, is a variable of every program
		// that has a hash function. It takes no memory until it is written to, but a kernel
		// that has no more memory than that refuses to start the program.
		file:  "src/crypto/internal/fips140/drbg/entropy_fips140.go",
		wrong: "entropy.Seed(&memory)",
		right: "entropy.Seed(new(entropy.ScratchBuffer))",
		times: 2,
		why:   "programs with SHA-256 do not start on a machine with 32 MB",
	},
	// The garbage collector's lists of spans, four for each size of objects. A list takes 1 KiB of index (2 on 64
	// bits) and a block of 2 KiB (4) with its first span, for good: enough for a heap of gigabytes, and 0.6 MB of
	// PID 1, whose lists have some spans each. The longest here has some hundred.
	{
		file:  "src/runtime/mspanset.go",
		wrong: "spanSetBlockEntries = 512 ",
		right: "spanSetBlockEntries = 32 ",
		times: 1,
		why:   "a process that has collected garbage has 0.4 MB more",
	},
	{
		file:  "src/runtime/mspanset.go",
		wrong: "spanSetInitSpineCap = 256 ",
		right: "spanSetInitSpineCap = 8 ",
		times: 1,
		why:   "a process that has collected garbage has 0.2 MB more",
	},
	{
		// Memory for the marks of objects. Four pieces turn about, and each is overwritten as a whole: the heap
		// of PID 1 fills a quarter of one.
		file:  "src/runtime/mheap.go",
		wrong: "const gcBitsChunkBytes = uintptr(64 << 10)",
		right: "const gcBitsChunkBytes = uintptr(16 << 10)",
		times: 1,
		why:   "a process that has collected garbage has 0.1 MB more",
	},
	{
		// Stacks of goroutines. Memory for them comes in pieces, one for each size of 2 to 16 KiB, and is written to at once;
		// each processor keeps some, too. A process has some ten goroutines.
		file:  "src/runtime/malloc.go",
		wrong: "_StackCacheSize = 32 * 1024",
		right: "_StackCacheSize = 16 * 1024",
		times: 1,
		why:   "a process has some 70 kB more",
	},
	// Goroutines that have ended. A processor keeps 64, each with a stack of 2 to 4 KB, for the next; what goes on to the
	// list of all processors loses its stack with the next garbage collection.
	{
		file:  "src/runtime/proc.go",
		wrong: "\tif pp.gFree.size >= 64 {\n",
		right: "\tif pp.gFree.size >= 8 {\n",
		times: 1,
		why:   "a process that has had many goroutines has up to 0.2 MB more",
	},
	{
		file:  "src/runtime/proc.go",
		wrong: "\t\tfor pp.gFree.size >= 32 {\n",
		right: "\t\tfor pp.gFree.size >= 4 {\n",
		times: 1,
		why:   "a process that has had many goroutines has up to 0.2 MB more",
	},
	{
		// The lowest word of a thread's two stacks, which only other processors' signal handlers look at: writing to it
		// takes a page of each, and no thread's stack gets that deep.
		file:   "src/runtime/proc.go",
		wrong:  "\t\t*(*uintptr)(unsafe.Pointer(newg.stack.lo)) = 0\n",
		right:  "",
		times:  1,
		goarch: []string{"mips", "mipsle", "386", "amd64"},
		why:    "each thread has 8 kB more",
	},
	// Generic functions are in the program once for each type: quicksort takes 10 KB each time, the
	// heap sort that it has for the worst case 1 KB. The lists here are short. With these three the
	// program is 0.2 MB smaller in memory, and 22 KB on flash.
	{
		file:  "src/slices/zsortanyfunc.go",
		wrong: "func pdqsortCmpFunc[E any](data []E, a, b, limit int, cmp func(a, b E) int) {\n\tconst",
		right: "func pdqsortCmpFunc[E any](data []E, a, b, limit int, cmp func(a, b E) int) {\n\theapSortCmpFunc(data, a, b, cmp)\n}\n\n" +
			"func quicksortCmpFunc[E any](data []E, a, b, limit int, cmp func(a, b E) int) {\n\tconst",
		times: 1,
		why:   "the program is larger",
	},
	{
		file:  "src/slices/zsortordered.go",
		wrong: "func pdqsortOrdered[E cmp.Ordered](data []E, a, b, limit int) {\n\tconst",
		right: "func pdqsortOrdered[E cmp.Ordered](data []E, a, b, limit int) {\n\theapSortOrdered(data, a, b)\n}\n\n" +
			"func quicksortOrdered[E cmp.Ordered](data []E, a, b, limit int) {\n\tconst",
		times: 1,
		why:   "the program is larger",
	},
	{
		// Classes of Unicode such as \p{Greek}. The program's expressions have none, go-iptables' and those of
		// static DNS names included, which are ASCII. Without the classes the program is 70 KB smaller in
		// memory, and no process makes maps of them when it starts, 6 KB each.
		file:  "src/regexp/syntax/parse.go",
		wrong: "\tname = canonicalName(name)\n\n\t// Special cases: Any, Assigned, and ASCII.\n",
		until: "}\n\n// parseUnicodeClass ",
		right: "\treturn nil, nil, 0\n",
		times: 1,
		why:   "the program is larger",
	},
	{
		// Package runtime/metrics reads such metrics. Nobody does here, and without them the program lacks
		// the runtime's table of all metrics and the functions in it.
		file:  "src/internal/godebug/godebug.go",
		wrong: "\tregisterMetric(\"/godebug/non-default-behavior/\"+s.Name()+\":events\", s.nonDefault.Load)\n",
		right: "",
		times: 1,
		why:   "the program is larger",
	},
	{
		// Settings of GODEBUG for some callers only, by a hash of the stack.
		file:  "src/internal/godebug/godebug.go",
		wrong: "\tif v.bisect != nil && !v.bisect.Stack(&stderr) {\n\t\treturn \"\"\n\t}\n",
		right: "",
		times: 1,
		why:   "the program is larger",
	},
	{
		file:  "src/internal/godebug/godebug.go",
		wrong: "v.bisect, _ = bisect.New(arg[j+1:])",
		right: "v.bisect = nil",
		times: 1,
		why:   "the program is larger",
	},
	{
		// Reading files of time zones, which the image does not have: the time is UTC, or has the zone that
		// the user set.
		file:  "src/time/zoneinfo_unix.go",
		wrong: "\ttz, ok := syscall.Getenv(\"TZ\")\n",
		until: "\t// Fall back to UTC.\n",
		right: "\t_ = syscall.Getenv\n",
		times: 1,
		why:   "the program is larger",
	},
	// A third way to match the simplest expressions, somewhat faster than the one that serves them then.
	{
		file:  "src/regexp/regexp.go",
		wrong: "\t\tonepass:     compileOnePass(prog),\n",
		right: "",
		times: 1,
		why:   "the program is larger",
	},
	{
		file:  "src/regexp/regexp.go",
		wrong: "\t} else {\n\t\tregexp.prefix, regexp.prefixComplete, regexp.prefixEnd = onePassPrefix(prog)\n",
		right: "",
		times: 1,
		why:   "the program is larger",
	},
	{
		file:  "src/regexp/exec.go",
		wrong: "\tif re.onepass != nil {\n\t\treturn re.doOnePass(r, b, s, pos, ncap, dstCap)\n\t}\n",
		right: "",
		times: 1,
		why:   "the program is larger",
	},
	{
		// The limits of a cgroup, which our kernels do not have.
		file:  "src/runtime/cgroup_linux.go",
		wrong: "func defaultGOMAXPROCSInit() {\n",
		until: "}\n\n// defaultGOMAXPROCSUpdateGODEBUG ",
		right: "func defaultGOMAXPROCSInit() {\n",
		times: 1,
		why:   "the program is larger",
	},
	{
		file:  "src/runtime/cgroup_linux.go",
		wrong: "\tlimit, ok, err := cgroup.ReadCPULimit(cpu)\n",
		until: "\treturn procs\n}\n",
		right: "",
		times: 1,
		why:   "the program is larger",
	},
	{
		// It moves the elements within the array, without a new one, by several functions.
		file:  "src/slices/slices.go",
		wrong: "\t_ = s[i:] // bounds check\n\n\tm := len(v)\n\tif m == 0 {\n\t\treturn s\n\t}\n\tn := len(s)\n",
		right: "\treturn append(append(s[:i:i], v...), s[i:]...)\n}\n\n" +
			"func insertInPlace[S ~[]E, E any](s S, i int, v ...E) S {\n\tm := len(v)\n\tif m == 0 {\n\t\treturn s\n\t}\n\tn := len(s)\n",
		times: 1,
		why:   "the program is larger",
	},
}

// patchGo writes a file for go build's -overlay with the patches for a board and more, into the folder
// work, and returns its path. A patch whose text this release of Go does not have is left out,
// with a message; where another release of a module differs, it is an error.
func patchGo(b board.Board, work string, more ...patch) (string, error) {
	files, err := copies()
	if err != nil {
		return "", err
	}
	all := slices.Concat(patches, sshPatches, more)
	list, left, err := overlay(files, slices.DeleteFunc(all, func(m patch) bool { return !m.appliesTo(b) }), work)
	for _, m := range left {
		if slices.ContainsFunc(more, func(p patch) bool { return p.file == m.file && p.wrong == m.wrong }) {
			// The patched linker writes what only the patched runtime reads.
			return "", fmt.Errorf("%s: expected %q %d times, after the patches of every program", m.file, m.wrong, m.times)
		}
		say("%s: not patched: %s differs from the known one, of which %s", b.Name, m.file, m.why)
	}
	return list, err
}

// overlay writes a file for go build's -overlay with patches, into the folder work, and returns
// its path and the patches of Go that this release has no text for. replaced has what is replaced
// besides, and is changed.
func overlay(replaced map[string]string, patches []patch, work string) (path string, left []patch, err error) {
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return "", nil, err
	}
	project, err := projectFolder()
	if err != nil {
		return "", nil, err
	}
	for i, m := range patches {
		original := filepath.Join(project, m.file)
		ofGo := strings.HasPrefix(m.file, "src/")
		if ofGo {
			original = filepath.Join(goroot, m.file)
		}
		text, err := os.ReadFile(cmp.Or(replaced[original], original))
		if err != nil {
			return "", nil, err
		}
		patched, ok := m.apply(string(text))
		if !ok {
			if !ofGo {
				return "", nil, fmt.Errorf("%s differs from the known one, of which %s: mend the patch", m.file, m.why)
			}
			left = append(left, m)
			continue
		}
		replaced[original] = filepath.Join(work, fmt.Sprintf("%d-%s", i, filepath.Base(m.file)))
		if err := os.WriteFile(replaced[original], []byte(patched), 0o644); err != nil {
			return "", nil, err
		}
	}
	list, err := json.Marshal(map[string]map[string]string{"Replace": replaced})
	if err != nil {
		return "", nil, err
	}
	file, err := os.CreateTemp(work, "overlay-*.json")
	if err != nil {
		return "", nil, err
	}
	if _, err := file.Write(list); err != nil {
		return "", nil, errors.Join(err, file.Close())
	}
	return file.Name(), left, file.Close()
}

// packInitramfs writes the cpio archive, in the form newc.
func packInitramfs(b board.Board, program, xtables, archive, work string, more ...cpio.Record) error {
	base, err := cpio.ArchiveFromRecords(append([]cpio.Record{
		cpio.Directory("bin", 0o755),
		cpio.Directory("dev", 0o755),
		cpio.Directory("etc", 0o755),
		cpio.Directory("proc", 0o755),
		cpio.Directory("run", 0o755),
		cpio.Directory("sbin", 0o755),
		cpio.Directory("sys", 0o755),
		cpio.Directory("tmp", 0o755),
		// The kernel opens it for PID 1 before PID 1 mounts devtmpfs.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("etc/board", b.File(), 0o644),
		cpio.StaticFile("etc/default.rsc", b.DefaultConfiguration(), 0o644),
	}, more...))
	if err != nil {
		return err
	}
	xtablesCopy := filepath.Join(work, "xtables-legacy-multi")
	if err := copyFile(xtablesCopy, xtables, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(program, 0o755); err != nil {
		return err
	}
	temp, err := os.MkdirTemp(work, "u-root-")
	if err != nil {
		return err
	}
	options := []uimage.Modifier{
		uimage.WithTempDir(temp),
		uimage.WithCPIOOutput(archive),
		uimage.WithBaseArchive(base),
		uimage.WithSkipLDD(),
		uimage.WithFiles(program+":bin/postern", xtablesCopy+":sbin/xtables-legacy-multi"),
	}
	for name, target := range links {
		options = append(options, uimage.WithSymlink(name, "/"+target))
	}
	return uimage.Create(llog.Default(), options...)
}

// compress packs a file so that the kernel's decoder can read it: with CRC-32 and a dictionary
// for which the smallest board has memory. lc and lp are for machine code in words of four
// bytes, and save 1 %.
func compress(path string) (string, error) {
	if err := run("", nil, "xz", "--force", "--keep", "--threads=1", "--check=crc32", "--lzma2=preset=9e,dict=1MiB,lc=2,lp=2,pb=2", path); err != nil {
		return "", err
	}
	return path + ".xz", nil
}
