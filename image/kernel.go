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

// decoder is the file of the kernel's source that unpacks xz. patchKernel leaves a file as it was beside it, with unpatched at its end.
const (
	decoder   = "lib/xz/xz_dec_lzma2.c"
	unpatched = ".orig"
)

// decoderPatches make the decoder of the initramfs faster, for which a boot waits longest: 0.06 s of 0.35 on malta. Bits of bytes
// and distances took a branch each, which a processor guesses wrongly every second time and which ends a piece of code for QEMU. Now
// they are computed, as xz 5.6 does.
var decoderPatches = []patch{
	{
		wrong: "/* Decode a bittree starting from the most significant bit. */\n",
		right: `/*
 * rc_bit without a branch, for bits that no processor can guess: 0 for a bit 0,
 * all bits set for a bit 1.
 */
static __always_inline uint32_t rc_mask(struct rc_dec *rc, uint16_t *prob)
{
	uint32_t p = *prob;
	uint32_t bound;
	uint32_t mask;

	rc_normalize(rc);
	bound = (rc->range >> RC_BIT_MODEL_TOTAL_BITS) * p;
	mask = (uint32_t)0 - (rc->code >= bound);
	rc->range = bound + ((rc->range - 2 * bound) & mask);
	rc->code -= bound & mask;
	/* For a bit 0 this is rc_bit's (RC_BIT_MODEL_TOTAL - p) >> RC_MOVE_BITS, to be added. */
	*prob = p - ((int32_t)(p - ((RC_BIT_MODEL_TOTAL
			- (1 << RC_MOVE_BITS) + 1) & ~mask)) >> RC_MOVE_BITS);

	return mask;
}

/*
 * Store what rc_mask has changed in a copy of the range decoder. A copy of a
 * function's own stays in registers.
 */
static __always_inline void rc_store(struct rc_dec *rc, const struct rc_dec *copy)
{
	rc->range = copy->range;
	rc->code = copy->code;
	rc->in_pos = copy->in_pos;
}

/* Decode a bittree starting from the most significant bit. */
`,
	},
	{
		wrong: "	uint32_t symbol = 1;\n\n	do {\n		if (rc_bit(rc, &probs[symbol]))\n",
		until: "\n	return symbol;\n",
		right: `	struct rc_dec copy = *rc;
	uint32_t symbol = 1;

	do {
		symbol = (symbol << 1) - rc_mask(&copy, &probs[symbol]);
	} while (symbol < limit);
	rc_store(rc, &copy);
`,
	},
	{
		wrong: "	uint32_t symbol = 1;\n	uint32_t i = 0;\n\n	do {\n		if (rc_bit(rc, &probs[symbol])) {\n",
		until: "}\n\n/* Decode direct bits",
		right: `	struct rc_dec copy = *rc;
	uint32_t symbol = 1;
	uint32_t i = 0;
	uint32_t mask;

	do {
		mask = rc_mask(&copy, &probs[symbol]);
		symbol = (symbol << 1) - mask;
		*dest += (1U << i) & mask;
	} while (++i < limit);
	rc_store(rc, &copy);
`,
	},
	{
		wrong: "	uint32_t offset;\n	uint32_t i;\n\n	probs = lzma_literal_probs(s);\n",
		right: "	uint32_t offset;\n	uint32_t mask;\n	uint32_t i;\n	struct rc_dec copy;\n\n	probs = lzma_literal_probs(s);\n",
	},
	{wrong: "		offset = 0x100;\n", right: "		offset = 0x100;\n		copy = s->rc;\n"},
	{
		wrong: "			if (rc_bit(&s->rc, &probs[i])) {\n				symbol = (symbol << 1) + 1;\n				offset &= match_bit;\n",
		until: "	}\n\n	dict_put(&s->dict, (uint8_t)symbol);\n",
		right: `			mask = rc_mask(&copy, &probs[i]);
			symbol = (symbol << 1) - mask;
			offset &= match_bit ^ ~mask;
		} while (symbol < 0x100);
		rc_store(&s->rc, &copy);
`,
	},
}

// maltaTimer is the file of the kernel's source that measures the timer of a Malta's processor.
const maltaTimer = "arch/mips/mti-malta/malta-time.c"

// timerPatches have it measured by the PIT, in 40 ms. It was by two seconds of the clock chip, for which each start waited 1 to 2
// seconds with a busy processor; and where a virtual machine stood still at an edge of one of them the clock ran wrong until the next start.
var timerPatches = []patch{
	{
		wrong: "/*\n * Estimate CPU and GIC frequencies.\n */\n",
		right: `/* The PIT's counter counts 1193182 times a second, from 65536 down and then anew. */
static void __init start_pit(void)
{
	outb(0x34, PIT_MODE); /* counter 0, low and high byte, mode 2 */
	outb(0, PIT_CH0);
	outb(0, PIT_CH0);
}

/*
 * How far it has counted, and the processor's counters at that time: of several
 * readings the one between whose ends the least time went by.
 */
static u16 __init read_counters(unsigned int *count, u64 *giccount)
{
	unsigned int before, after, least = UINT_MAX;
	u16 left, ticks = 0;
	int i;

	for (i = 0; i < 32; i++) {
		before = read_c0_count();
		outb(0, PIT_MODE); /* latch counter 0 */
		after = read_c0_count();
		left = inb(PIT_CH0);
		left |= inb(PIT_CH0) << 8;
		if (after - before < least) {
			least = after - before;
			*count = before + least / 2;
			ticks = -left;
			if (mips_gic_present())
				*giccount = read_gic_counter();
		}
	}
	return ticks;
}

/*
 * Estimate CPU and GIC frequencies.
 */
`,
	},
	{
		wrong: "	unsigned int count, start;\n	unsigned char secs1, secs2, ctrl;\n	int secs;\n	u64 giccount = 0, gicstart = 0;\n",
		right: `	unsigned int count[3], first, second, i;
	u64 giccount[3] = { 0 };
	u16 ticks[3];
`,
	},
	{
		wrong: "	/*\n	 * Read counters exactly on rising edge of update flag.\n",
		until: "	local_irq_restore(flags);\n\n	if (!(ctrl & RTC_DM_BINARY)",
		right: `	/*
	 * Twice 20 ms, until both times are of one frequency: what a virtual
	 * machine stands still for may be more than the PIT can count.
	 */
	start_pit();
	for (i = 0; i < 50; i++) {
		int k;

		for (k = 0; k < 3; k++) {
			do
				ticks[k] = read_counters(&count[k], &giccount[k]);
			while (k && (u16)(ticks[k] - ticks[k - 1]) < PIT_TICK_RATE / 50);
		}
		first = div_u64((u64)(count[1] - count[0]) * PIT_TICK_RATE, (u16)(ticks[1] - ticks[0]));
		second = div_u64((u64)(count[2] - count[1]) * PIT_TICK_RATE, (u16)(ticks[2] - ticks[1]));
		if (first < second + second / 512 && second < first + first / 512)
			break;
	}

`,
	},
	{
		wrong: "	if (!(ctrl & RTC_DM_BINARY)",
		until: "void read_persistent_clock64",
		right: `	i = (u16)(ticks[1] - ticks[0]) + (u16)(ticks[2] - ticks[1]);
	mips_hpt_frequency = div_u64((u64)(count[2] - count[0]) * PIT_TICK_RATE, i);

	if (mips_gic_present())
		gic_frequency = div_u64((giccount[2] - giccount[0]) * PIT_TICK_RATE, i);
}

`,
	},
}

// kernelPatches are those of the kernel's source, by file.
var kernelPatches = []struct {
	file    string
	patches []patch
}{{decoder, decoderPatches}, {maltaTimer, timerPatches}}

// patchKernel applies kernelPatches in a folder of the kernel's source. It is an error if that has another text.
func patchKernel(source string) error {
	for _, p := range kernelPatches {
		file := filepath.Join(source, p.file)
		original, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		text := string(original)
		for _, m := range p.patches {
			m.times = 1
			var ok bool
			if text, ok = m.apply(text); !ok {
				return fmt.Errorf("%s differs from the known one: expected once %q and behind it %q: mend kernelPatches", file, m.wrong, m.until)
			}
		}
		if err := os.Rename(file, file+unpatched); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// patchTexts are what a key in the cache has of kernelPatches.
func patchTexts() string {
	var texts strings.Builder
	for _, p := range kernelPatches {
		for _, m := range p.patches {
			fmt.Fprintf(&texts, "%s %q %q %q\n", p.file, m.wrong, m.until, m.right)
		}
	}
	return texts.String()
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
