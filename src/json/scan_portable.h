/* Scan without any vector instruction. Each mask has one bit per byte, the first byte lowest.
 *
 * Thread: any; pure.  Memory: reads 16 bytes from `at`.  Errors: none. */
#pragma once
#include <stdint.h>

/* Bytes that end a run of plain characters. */
static inline uint32_t scan_odd_mask(const uint8_t *at)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t odd = at[i] < 0x20 || at[i] >= 0x80 || at[i] == '"' || at[i] == '\\';
        mask |= odd << i;
    }
    return mask;
}

static inline uint32_t scan_space_mask(const uint8_t *at)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t space = at[i] == ' ' || at[i] == '\n' || at[i] == '\r' || at[i] == '\t';
        mask |= space << i;
    }
    return mask;
}

static inline uint32_t scan_digit_mask(const uint8_t *at)
{
    uint32_t mask = 0;
    for (uint32_t i = 0; i < 16; i++) {
        uint32_t digit = at[i] >= '0' && at[i] <= '9';
        mask |= digit << i;
    }
    return mask;
}
