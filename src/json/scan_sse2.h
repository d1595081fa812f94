/* Scan by SSE2, which every x86-64 processor has: 16 bytes a step. Each mask has one bit per byte,
 * the first byte lowest.
 *
 * Thread: any; pure.  Memory: reads 16 bytes from `at`.  Errors: none. */
#pragma once
#include <emmintrin.h>
#include <stdint.h>

static inline __m128i scan_load(const uint8_t *at)
{
    return _mm_loadu_si128((const __m128i *)(const void *)at);
}

/* Bytes that end a run of plain characters. */
static inline uint32_t scan_odd_mask(const uint8_t *at)
{
    __m128i bytes = scan_load(at);
    /* Signed: bytes from 0x80 up are negative, so one comparison finds them and the controls. */
    __m128i odd = _mm_cmplt_epi8(bytes, _mm_set1_epi8(0x20));
    odd = _mm_or_si128(odd, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
    odd = _mm_or_si128(odd, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')));
    return (uint32_t)_mm_movemask_epi8(odd);
}

static inline uint32_t scan_space_mask(const uint8_t *at)
{
    __m128i bytes = scan_load(at);
    __m128i space = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(' '));
    space = _mm_or_si128(space, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\n')));
    space = _mm_or_si128(space, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\r')));
    space = _mm_or_si128(space, _mm_cmpeq_epi8(bytes, _mm_set1_epi8('\t')));
    return (uint32_t)_mm_movemask_epi8(space);
}

static inline uint32_t scan_digit_mask(const uint8_t *at)
{
    /* '0'..'9' become 0..9; as unsigned bytes everything else is above 9. */
    __m128i value = _mm_sub_epi8(scan_load(at), _mm_set1_epi8('0'));
    __m128i digit = _mm_cmpeq_epi8(_mm_min_epu8(value, _mm_set1_epi8(9)), value);
    return (uint32_t)_mm_movemask_epi8(digit);
}
