/* Hex: numbers as lower-case hexadecimal text of fixed width.
 *
 * Thread: any; pure.  Memory: none.  Errors: none. */
#pragma once
#include <stdint.h>
#include <string.h>

/* Writes 8 digits, the highest first; no NUL. All digits at once, one in each byte of a word: a
 * nibble plus '0', and what lies between '9' and 'a' where it is ten or more. */
static inline void hex_put_u32(uint32_t value, char to[8])
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    uint64_t x = value;
    x = (x << 16 | x) & UINT64_C(0x0000ffff0000ffff);
    x = (x << 8 | x) & UINT64_C(0x00ff00ff00ff00ff);
    x = (x << 4 | x) & (ones * 0x0f);
    uint64_t letters = ((x + ones * 6) >> 4) & ones;
    x += ones * '0' + letters * ('a' - '9' - 1);
    x = __builtin_bswap64(x);
    memcpy(to, &x, sizeof(x));
}

/* Writes 16 digits. */
static inline void hex_put_u64(uint64_t value, char to[16])
{
    hex_put_u32((uint32_t)(value >> 32), to);
    hex_put_u32((uint32_t)value, to + 8);
}
