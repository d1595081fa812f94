/* Scan by AVX2: 32 bytes a step, on the x86-64 processors that have it. On other architectures
 * there is nothing wide.
 *
 * Happy path: as json/scan.h says; the last bytes (fewer than 32) go to the base variant.
 * Failure modes: none. */
#include "json/scan_wide.h"

#if defined(__x86_64__)

#include <immintrin.h>

__attribute__((target("avx2"))) static const uint8_t *plain_avx2(const uint8_t *at,
                                                                 const uint8_t *end)
{
    while (end - at >= 32) {
        __m256i bytes = _mm256_loadu_si256((const __m256i *)(const void *)at);
        /* Signed: 0x20 > byte holds for the controls and for everything from 0x80 up. */
        __m256i odd = _mm256_cmpgt_epi8(_mm256_set1_epi8(0x20), bytes);
        odd = _mm256_or_si256(odd, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('"')));
        odd = _mm256_or_si256(odd, _mm256_cmpeq_epi8(bytes, _mm256_set1_epi8('\\')));
        uint32_t mask = (uint32_t)_mm256_movemask_epi8(odd);
        if (mask != 0) {
            return at + __builtin_ctz(mask);
        }
        at += 32;
    }
    return json_plain_base(at, end);
}

json_plain_fn json_plain_wide(void)
{
    return __builtin_cpu_supports("avx2") ? plain_avx2 : NULL;
}

#else

json_plain_fn json_plain_wide(void)
{
    return NULL;
}

#endif
