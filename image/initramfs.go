package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"

	"github.com/postern-router/postern/board"
)

// debugCommands are what DEBUG=1 adds, as a u-root busybox in /bbin.
var debugCommands = []string{
	"github.com/u-root/u-root/cmds/core/gosh",
	"github.com/u-root/u-root/cmds/core/ip",
	"github.com/u-root/u-root/cmds/core/ping",
	"github.com/u-root/u-root/cmds/core/dmesg",
	"github.com/u-root/u-root/cmds/core/ps",
	"github.com/u-root/u-root/cmds/core/ls",
	"github.com/u-root/u-root/cmds/core/cat",
	"github.com/u-root/u-root/cmds/core/kill",
}

// links are the names by which the two programs in the image are called.
var links = map[string]string{
	"init":                  "bin/postern",
	"sbin/iptables":         "sbin/xtables-legacy-multi",
	"sbin/iptables-save":    "sbin/xtables-legacy-multi",
	"sbin/iptables-restore": "sbin/xtables-legacy-multi",
}

// build makes a board's image in the folder out/BOARD: kernel, initramfs.cpio.xz,
// kernel.config, what makeImages makes of them, what travels with it (writeDocuments), and
// SHA256SUMS. detailed asks for the sizes of the program's packages.
func build(c cache, b board.Board, out string, debug, detailed bool) (sizes, error) {
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
	if err := packInitramfs(b, program, xtables, archive, work, debug,
		cpio.StaticFile("etc/version", v.file(), 0o644), cpio.StaticFile("etc/upgrade.pub", publicKey, 0o644)); err != nil {
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
		// By rename, since a QEMU may be reading the old one.
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
	// Of an image that is too large the table says more than the error of whoever finds
	// no room for it.
	check := func(slot string) (sizes, error) {
		s, err := measure(b, filepath.Join(dir, "kernel"), initramfs, program, xtables, slot)
		if err != nil {
			return sizes{}, err
		}
		tooLarge := !debug && b.ImageLimit > 0 && s.total > b.ImageLimit
		if tooLarge || detailed {
			if s, err = s.withPackages(work); err != nil {
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
		say("%s with tools for debugging is for -kernel alone: %v", b.Name, err)
		err = nil
	}
	if err != nil {
		return sizes{}, err
	}
	if slices.Contains(made, slotImage) {
		if s, err = check(filepath.Join(dir, slotImage)); err != nil {
			return sizes{}, err
		}
		// A board that keeps nothing has no place to upgrade.
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

// buildProgram compiles the one Go program, without paths of this machine.
func buildProgram(b board.Board, work, path string) error {
	return compileProgram(b, work, path, "-s -w -buildid= -R=4096")
}

// small compiles functions as calls, not into their callers: that saves a tenth of the
// program, in memory too, where the smallest board has it for good. What works for each
// packet or each byte of a password is left as it was.
var small = []string{
	"-gcflags=all=-l", "-gcflags=runtime=", "-gcflags=internal/runtime/...=", "-gcflags=syscall=",
	"-gcflags=golang.org/x/sys/unix=", "-gcflags=golang.org/x/crypto/...=",
	"-gcflags=github.com/postern-router/postern/socks=",
}

// compileProgram compiles it with flags of the linker.
func compileProgram(b board.Board, work, path, ldflags string) error {
	env, err := goEnv(b, work)
	if err != nil {
		return err
	}
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=" + ldflags}
	return run("", env, "go", append(append(args, small...), "-o", path, "github.com/postern-router/postern/init")...)
}

// goEnv is the board's Go environment, with what mends the toolchain.
func goEnv(b board.Board, work string) ([]string, error) {
	overlay, err := mendRuntime(b, work)
	if err != nil {
		return nil, fmt.Errorf("mend Go's runtime for %s: %w", b.Name, err)
	}
	return append(b.GoEnv(), strings.TrimSpace("GOFLAGS="+os.Getenv("GOFLAGS")+" -overlay="+overlay)), nil
}

// mend is a text in Go's runtime, and what an image has in its place.
type mend struct {
	file         string
	wrong, right string
	times        int      // how often it is there
	goarch       []string // all, if there are none
	why          string
}

func (m mend) isFor(b board.Board) bool {
	return len(m.goarch) == 0 || slices.Contains(m.goarch, b.CPU.GOARCH)
}

var mends = []mend{
	{
		// The layout of a 64-bit timespec on 32-bit MIPS. That of the kernel has nanoseconds
		// of 64 bits (linux/time_types.h), whose lower half comes last if the processor is
		// big-endian. Releases before Go 1.26 make 32-bit calls, and a later one is mended.
		file:   "src/runtime/defs_linux_mipsx.go",
		wrong:  "\ttv_sec  int64\n\ttv_nsec int32\n\t_       [4]byte // the C ABI aligns int64 to 8 bytes\n",
		right:  "\ttv_sec  int64\n\t_       [4]byte\n\ttv_nsec int32\n",
		times:  1,
		goarch: []string{"mips"},
		why:    "timed waits spin (golang/go#77934)",
	},
	{
		// A pause of so many microseconds lasts as many nanoseconds: the remainder of the
		// seconds is taken for theirs, and is off by a thousand.
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
		// 32 MiB that are used in FIPS 140-3 mode alone, which Postern is not in, are there
		// from the start of every program that has a hash function. They take no memory until
		// they are written to, but a kernel with no more than that refuses the program.
		file:  "src/crypto/internal/fips140/drbg/entropy_fips140.go",
		wrong: "entropy.Seed(&memory)",
		right: "entropy.Seed(new(entropy.ScratchBuffer))",
		times: 2,
		why:   "programs with SHA-256 do not start on a machine with 32 MB",
	},
}

// mendRuntime writes a file for go build's -overlay with the mends for a board. A text
// that another release of Go does not have is left, and said.
func mendRuntime(b board.Board, work string) (string, error) {
	goroot, err := output("go", "env", "GOROOT")
	if err != nil {
		return "", err
	}
	replaced := map[string]string{}
	for _, m := range mends {
		if !m.isFor(b) {
			continue
		}
		original := filepath.Join(goroot, m.file)
		text, err := os.ReadFile(original)
		if err != nil {
			return "", err
		}
		if strings.Count(string(text), m.wrong) != m.times {
			say("%s: %s is not the one that is known, and stays as it is; known was: %s", b.Name, m.file, m.why)
			continue
		}
		mended := filepath.Join(work, filepath.Base(m.file))
		if err := os.WriteFile(mended, []byte(strings.ReplaceAll(string(text), m.wrong, m.right)), 0o644); err != nil {
			return "", err
		}
		replaced[original] = mended
	}
	overlay := filepath.Join(work, "overlay.json")
	list, err := json.Marshal(map[string]map[string]string{"Replace": replaced})
	if err != nil {
		return "", err
	}
	return overlay, os.WriteFile(overlay, list, 0o644)
}

// packInitramfs writes the cpio archive, in the form newc.
func packInitramfs(b board.Board, program, xtables, archive, work string, debug bool, more ...cpio.Record) error {
	base, err := cpio.ArchiveFromRecords(append([]cpio.Record{
		cpio.Directory("bin", 0o755),
		cpio.Directory("dev", 0o755),
		cpio.Directory("etc", 0o755),
		cpio.Directory("proc", 0o755),
		cpio.Directory("run", 0o755),
		cpio.Directory("sbin", 0o755),
		cpio.Directory("sys", 0o755),
		cpio.Directory("tmp", 0o755),
		// The kernel opens it for PID 1 before devtmpfs is mounted.
		cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("etc/board", b.Name+"\n", 0o644),
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
	if debug {
		env, err := goEnv(b, work)
		if err != nil {
			return err
		}
		// The tools as small as can be: all is in memory, on the smallest board too.
		for i, v := range env {
			if strings.HasPrefix(v, "GOFLAGS=") {
				env[i] = v + " " + small[0]
			}
		}
		// GOMIPS and GOARM reach u-root's builder by the environment alone.
		for _, v := range env {
			name, value, _ := strings.Cut(v, "=")
			before, set := os.LookupEnv(name)
			if err := os.Setenv(name, value); err != nil {
				return err
			}
			defer func() {
				if os.Unsetenv(name); set {
					os.Setenv(name, before)
				}
			}()
		}
		options = append(options,
			// gosh without its line editor, which a serial line does not answer.
			uimage.WithEnv(golang.DisableCGO(), golang.WithGOARCH(b.CPU.GOARCH), golang.WithBuildTag("goshsmall")),
			uimage.WithBusyboxCommands(debugCommands...))
	}
	return uimage.Create(llog.Default(), options...)
}

// compress packs a file as the kernel's own decoder can read it: crc32, and a
// dictionary that the smallest board has memory for. lc and lp suit machine code
// in words of four bytes: 1 % smaller.
func compress(path string) (string, error) {
	if err := run("", nil, "xz", "--force", "--keep", "--threads=1", "--check=crc32", "--lzma2=preset=9e,dict=1MiB,lc=2,lp=2,pb=2", path); err != nil {
		return "", err
	}
	return path + ".xz", nil
}
