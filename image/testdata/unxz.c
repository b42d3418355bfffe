/*
 * Unpacks what comes on standard input by the kernel's decoder of xz, for TestDecoder. Each case is
 * three numbers of 32 bits, in the processor's order: the size of the buffer for input, that of the buffer for
 * output, 0 for all at once, and the length of the xz file that follows. For each it writes what the decoder
 * returned, how much it wrote, and a sum of that.
 */
#include <stdio.h>

#include "xz_private.h"

enum { LIMIT = 64 << 20 };

static uint32_t sum(const uint8_t *b, size_t size, uint32_t s)
{
	while (size-- > 0)
		s = (s ^ *b++) * 16777619;
	return s;
}

int main(void)
{
	uint32_t head[3];

	xz_crc32_init();
	while (fread(head, sizeof(head), 1, stdin) == 1) {
		/* Of just the size, so that a checker of memory sees what reads behind it. */
		uint8_t *in = malloc(head[2] + 1);
		uint8_t *piece = malloc(head[0]);
		uint32_t size = head[1] > 0 ? head[1] : LIMIT;
		uint8_t *out = malloc(size);
		struct xz_dec *s = xz_dec_init(head[1] > 0 ? XZ_DYNALLOC : XZ_SINGLE, (uint32_t)-1);
		struct xz_buf b = {.in = piece, .out = out, .out_size = size};
		enum xz_ret ret;
		size_t at = 0, total = 0;
		uint32_t written = 2166136261;

		if (in == NULL || piece == NULL || out == NULL || s == NULL || fread(in, 1, head[2], stdin) != head[2])
			return 1;
		if (head[1] == 0) {
			b.in = in;
			b.in_size = head[2];
			ret = xz_dec_run(s, &b);
			total = b.out_pos;
			written = sum(out, b.out_pos, written);
		} else do {
			/* As unxz of the kernel. */
			if (b.in_pos == b.in_size) {
				b.in_pos = 0;
				b.in_size = min(head[0], head[2] - at);
				memcpy(piece, in + at, b.in_size);
				at += b.in_size;
			}
			ret = xz_dec_run(s, &b);
			if (b.out_pos == b.out_size || ret != XZ_OK) {
				written = sum(out, b.out_pos, written);
				total += b.out_pos;
				b.out_pos = 0;
			}
		} while (ret == XZ_OK && total < LIMIT);
		printf("%d %zu %08x\n", ret, total, written);
		xz_dec_end(s);
		free(out);
		free(piece);
		free(in);
	}
	return 0;
}
