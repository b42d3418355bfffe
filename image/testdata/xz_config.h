/* What the kernel's decoder of xz needs of its surroundings, when it is a program. */
#ifndef XZ_CONFIG_H
#define XZ_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "xz.h"

#define kmalloc(size, flags) malloc(size)
#define kfree(memory) free(memory)
#define vmalloc(size) malloc(size)
#define vfree(memory) free(memory)
#define memeq(a, b, size) (memcmp(a, b, size) == 0)
#define memzero(b, size) memset(b, 0, size)
#define min(a, b) ((a) < (b) ? (a) : (b))
#define min_t(type, a, b) min((type)(a), (type)(b))
#define fallthrough __attribute__((__fallthrough__))
#undef __always_inline
#define __always_inline inline __attribute__((__always_inline__))

static inline uint32_t get_le32(const uint8_t *b)
{
	return b[0] | b[1] << 8 | b[2] << 16 | (uint32_t)b[3] << 24;
}

#endif
