package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

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
