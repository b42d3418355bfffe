package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/postern-router/postern/board"
	"github.com/postern-router/postern/internal/cache"
)

// kernelRecipe is part of a kernel's key in the cache. Change it with every change of
// buildKernel that can change the result.
const kernelRecipe = "3"

// kernelMakeFlags are flags of make for files that are not compiled for size. A boot waits
// longest for the decoder of the initramfs, which is a tenth slower for 700 bytes less. In TCP
// a division by a thousand is a loop of 280 instructions on 32-bit processors when compiled
// for size, five times a packet; the saving would be 6 kB.
var kernelMakeFlags = []string{
	"CFLAGS_xz_dec_lzma2.o=-O2",
	"CFLAGS_tcp_input.o=-O2", "CFLAGS_tcp_output.o=-O2", "CFLAGS_tcp_rate.o=-O2",
}

// unreserved is the name of the file that a build leaves if it found Kernel.Unreserved.
const unreserved = "unreserved"

// buildStamp is the time of the build that the kernel shows.
const buildStamp = "Thu Jan  1 00:00:00 UTC 2026"

// kernel returns a folder with the board's kernel: the files "kernel" and "config". again is
// empty, or a word for a second build from the same inputs, to compare the two.
func kernel(c cache.Cache, b board.Board, again string) (string, error) {
	version, fragments, inputs, err := kernelInputs(b, again)
	if err != nil {
		return "", err
	}
	return c.Get("kernel", b.Kernel.Name, inputs, func(result, work string) error {
		source, err := kernelSource(c, version)
		if err != nil {
			return err
		}
		if again != "" {
			// From another folder too, whose name must not be in the result.
			elsewhere := filepath.Join(work, again)
			if err := run(work, nil, "cp", "--archive", "--reflink=auto", source, elsewhere); err != nil {
				return err
			}
			source = elsewhere
		}
		if err := buildKernel(b, source, fragments, work); err != nil {
			return fmt.Errorf("kernel %s: %w", b.Kernel.Name, err)
		}
		if err := copyFile(filepath.Join(result, "kernel"), filepath.Join(work, b.Kernel.Image), 0o644); err != nil {
			return err
		}
		return copyFile(filepath.Join(result, "config"), filepath.Join(work, ".config"), 0o644)
	})
}

// kernelInputs returns the version of the kernel's source, the text of the board's fragments,
// and inputs, of which the key in the cache is made.
func kernelInputs(b board.Board, again string) (version, fragments string, inputs []string, err error) {
	if version, err = packageVersion(linuxSource); err != nil {
		return "", "", nil, err
	}
	if fragments, err = b.KernelFragments(); err != nil {
		return "", "", nil, err
	}
	compiler, err := compilerVersion(b)
	if err != nil {
		return "", "", nil, err
	}
	inputs = []string{kernelRecipe, strings.Join(kernelMakeFlags, " "), patchTexts(), version, fragments, compiler, b.Kernel.Arch, b.Kernel.Target, again}
	if b.Kernel.Unreserved != "" {
		inputs = append(inputs, b.Kernel.Unreserved, b.Kernel.Reserved)
	}
	return version, fragments, inputs, nil
}

func compilerVersion(b board.Board) (string, error) {
	v, err := output(b.CPU.Cross+"gcc", "--version")
	if err != nil {
		return "", fmt.Errorf("compiler for %s; `make setup` installs it: %w", b.Name, err)
	}
	v, _, _ = strings.Cut(v, "\n")
	return v, nil
}

// kernelSource returns the folder of the unpacked source.
func kernelSource(c cache.Cache, version string) (string, error) {
	dir, err := c.Get("source", "linux", []string{version, patchTexts()}, func(result, _ string) error {
		say("unpacking %s %s", linuxSource, version)
		if err := run(result, nil, "tar", "--extract", "--xz", "--strip-components=1",
			"--file=/usr/src/"+linuxSource+".tar.xz"); err != nil {
			return err
		}
		return patchKernel(result)
	})
	if err != nil {
		return "", fmt.Errorf("source of the kernel: %w", err)
	}
	return dir, nil
}

// buildKernel configures and compiles a kernel in the folder work.
func buildKernel(b board.Board, source, fragments, work string) error {
	fragmentFile := filepath.Join(work, "fragments")
	if err := os.WriteFile(fragmentFile, []byte(fragments), 0o644); err != nil {
		return err
	}
	env := []string{
		"ARCH=" + b.Kernel.Arch, "CROSS_COMPILE=" + b.CPU.Cross, "LC_ALL=C",
		"KCONFIG_ALLCONFIG=" + fragmentFile,
		"KBUILD_BUILD_USER=postern", "KBUILD_BUILD_HOST=postern",
		"KBUILD_BUILD_VERSION=1", "KBUILD_BUILD_TIMESTAMP=" + buildStamp,
	}
	makeArgs := []string{"-C", source, "O=" + work,
		// The vDSO of MIPS has debugging information with the names of both folders. It is
		// stripped, but its hash stays, as the vDSO's build id.
		"CC=" + b.CPU.Cross + "gcc -fdebug-prefix-map=" + work + "=. -fdebug-prefix-map=" + source + "=linux"}
	if b.Kernel.Unreserved != "" {
		dtc, err := unreserve(b.Kernel, work)
		if err != nil {
			return err
		}
		makeArgs = append(makeArgs, "DTC="+dtc)
	}
	if err := run(work, env, "make", append(makeArgs, "allnoconfig")...); err != nil {
		return err
	}
	config, err := os.ReadFile(filepath.Join(work, ".config"))
	if err != nil {
		return err
	}
	if err := checkConfig(fragments, string(config)); err != nil {
		return err
	}
	makeArgs = append(append(makeArgs, fmt.Sprintf("-j%d", runtime.NumCPU()), b.Kernel.Target), kernelMakeFlags...)
	if err := compileKernel(b, work, env, makeArgs); err != nil {
		return err
	}
	if b.Kernel.Unreserved != "" {
		if _, err := os.Stat(filepath.Join(work, unreserved)); err != nil {
			return fmt.Errorf("no device tree reserves %s: %w", b.Kernel.Unreserved, err)
		}
	}
	return nil
}

// unreserve writes a program for make's DTC into the folder work, and returns its path. The
// program replaces the reservation k.Unreserved by k.Reserved in the device tree that is its
// last argument, then runs the kernel's own compiler of device trees. If it found the
// reservation it leaves the file unreserved.
func unreserve(k board.Kernel, work string) (string, error) {
	program := filepath.Join(work, "dtc-unreserve")
	script := fmt.Sprintf(`#!/bin/sh -e
for tree; do :; done
if grep -q '%[1]s' "$tree"; then
	sed -i 's|%[1]s|/memreserve/ %[2]s;|' "$tree"
	: > %[3]s
fi
exec scripts/dtc/dtc "$@"
`, "^/memreserve/ "+k.Unreserved+";", k.Reserved, unreserved)
	return program, os.WriteFile(program, []byte(script), 0o755)
}

// checkConfig returns an error with the options that fragments ask for and config, the final
// configuration, does not have: Kconfig silently drops an option if a dependency is missing or
// its name has changed.
func checkConfig(fragments, config string) error {
	have := map[string]string{}
	for line := range strings.Lines(config) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			have[name] = value
		}
	}
	want := map[string]string{}
	var order []string
	for line := range strings.Lines(fragments) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok || !strings.HasPrefix(name, "CONFIG_") {
			return fmt.Errorf("kernel fragment: %q is not an option: want CONFIG_NAME=value", line)
		}
		if _, twice := want[name]; !twice {
			order = append(order, name)
		}
		want[name] = value
	}
	var dropped []string
	for _, name := range order {
		got, ok := have[name]
		if !ok {
			got = "n"
		}
		if got != want[name] {
			dropped = append(dropped, fmt.Sprintf("%s=%s (it is %s)", name, want[name], got))
		}
	}
	if dropped != nil {
		return fmt.Errorf("the kernel's configuration lacks %s", strings.Join(dropped, ", "))
	}
	return nil
}

// compileKernel runs make and shows its progress.
func compileKernel(b board.Board, work string, env, args []string) error {
	cmd := exec.Command("make", args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Dir = work
	var failure bytes.Buffer
	cmd.Stderr = &failure
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p := progress{what: "kernel " + b.Kernel.Name, total: b.Kernel.Objects, start: time.Now()}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		switch word, _, _ := strings.Cut(strings.TrimSpace(lines.Text()), " "); word {
		case "CC", "AS":
			p.step()
		}
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("make %s: %w\n%s", b.Kernel.Target, err, tail(failure.String(), 30))
	}
	p.done()
	return nil
}
