/* Blake2b wide: the compression function of RFC 7693, section 3.2, on four messages side by side, a
 * word of each in one register of AVX2. On other architectures there is nothing wide.
 *
 * Happy path: the words of the four blocks are turned about, so that the first words of all stand
 * together, and so on; then the twelve rounds, as in blake2b.c.
 * Failure modes: none. */
#include "base/blake2b_wide.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define WIDE __attribute__((target("avx2")))

struct four_mix {
    uint8_t a, b, c, d;
};

WIDE static inline __attribute__((always_inline)) void mix_four(__m256i v[16], struct four_mix at,
                                                                __m256i x, __m256i y)
{
    /* Turns by whole bytes are shuffles of bytes: by three and by two. */
    const __m256i by_24 = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10, 3,
                                           4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10);
    const __m256i by_16 = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9, 2,
                                           3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9);
    v[at.a] = _mm256_add_epi64(_mm256_add_epi64(v[at.a], v[at.b]), x);
    v[at.d] = _mm256_shuffle_epi32(_mm256_xor_si256(v[at.d], v[at.a]), _MM_SHUFFLE(2, 3, 0, 1));
    v[at.c] = _mm256_add_epi64(v[at.c], v[at.d]);
    v[at.b] = _mm256_shuffle_epi8(_mm256_xor_si256(v[at.b], v[at.c]), by_24);
    v[at.a] = _mm256_add_epi64(_mm256_add_epi64(v[at.a], v[at.b]), y);
    v[at.d] = _mm256_shuffle_epi8(_mm256_xor_si256(v[at.d], v[at.a]), by_16);
    v[at.c] = _mm256_add_epi64(v[at.c], v[at.d]);
    v[at.b] = _mm256_xor_si256(v[at.b], v[at.c]);
    v[at.b] = _mm256_or_si256(_mm256_srli_epi64(v[at.b], 63), _mm256_add_epi64(v[at.b], v[at.b]));
}

WIDE static inline __attribute__((always_inline)) void
round_four(__m256i v[16], const __m256i m[16], const uint8_t s[16])
{
    mix_four(v, (struct four_mix){0, 4, 8, 12}, m[s[0]], m[s[1]]);
    mix_four(v, (struct four_mix){1, 5, 9, 13}, m[s[2]], m[s[3]]);
    mix_four(v, (struct four_mix){2, 6, 10, 14}, m[s[4]], m[s[5]]);
    mix_four(v, (struct four_mix){3, 7, 11, 15}, m[s[6]], m[s[7]]);
    mix_four(v, (struct four_mix){0, 5, 10, 15}, m[s[8]], m[s[9]]);
    mix_four(v, (struct four_mix){1, 6, 11, 12}, m[s[10]], m[s[11]]);
    mix_four(v, (struct four_mix){2, 7, 8, 13}, m[s[12]], m[s[13]]);
    mix_four(v, (struct four_mix){3, 4, 9, 14}, m[s[14]], m[s[15]]);
}

/* `count` rows of four words each, one of each message: column by column out of the messages. */
WIDE static void turn_about(const uint8_t *const from[4], size_t count, __m256i *to)
{
    for (size_t i = 0; i < count; i += 4) {
        __m256i row[4];
        for (size_t k = 0; k < 4; k++) {
            row[k] = _mm256_loadu_si256((const __m256i *)(const void *)(from[k] + 8 * i));
        }
        __m256i low_01 = _mm256_unpacklo_epi64(row[0], row[1]);
        __m256i high_01 = _mm256_unpackhi_epi64(row[0], row[1]);
        __m256i low_23 = _mm256_unpacklo_epi64(row[2], row[3]);
        __m256i high_23 = _mm256_unpackhi_epi64(row[2], row[3]);
        to[i] = _mm256_permute2x128_si256(low_01, low_23, 0x20);
        to[i + 1] = _mm256_permute2x128_si256(high_01, high_23, 0x20);
        to[i + 2] = _mm256_permute2x128_si256(low_01, low_23, 0x31);
        to[i + 3] = _mm256_permute2x128_si256(high_01, high_23, 0x31);
    }
}

/* The first two words of the state are what is wanted. */
WIDE static void put_hashes(struct blake2b_four *four, __m256i first, __m256i second)
{
    uint64_t words[2][BLAKE2B_TOGETHER];
    _mm256_storeu_si256((__m256i *)(void *)words[0], first);
    _mm256_storeu_si256((__m256i *)(void *)words[1], second);
    for (size_t k = 0; k < BLAKE2B_TOGETHER; k++) {
        memcpy(four->hashes[k], &words[0][k], sizeof(uint64_t));
        memcpy(four->hashes[k] + sizeof(uint64_t), &words[1][k], sizeof(uint64_t));
    }
}

WIDE static void compress_four(struct blake2b_four *four)
{
    const uint8_t *blocks[4];
    const uint8_t *states[4];
    __m256i h[8];
    __m256i m[16];
    __m256i v[16];
    for (size_t k = 0; k < BLAKE2B_TOGETHER; k++) {
        blocks[k] = four->texts[k];
        states[k] = (const uint8_t *)four->keyed[k].h;
    }
    turn_about(blocks, 16, m);
    turn_about(states, 8, h);
    __m128i sizes = _mm_loadu_si128((const __m128i *)(const void *)four->sizes);
    __m256i counts =
        _mm256_add_epi64(_mm256_cvtepu32_epi64(sizes), _mm256_set1_epi64x(BLAKE2B_BLOCK_BYTES));
    for (size_t i = 0; i < 8; i++) {
        v[i] = h[i];
        v[i + 8] = _mm256_set1_epi64x((long long)blake2b_initial[i]);
    }
    v[12] = _mm256_xor_si256(v[12], counts);
    v[14] = _mm256_xor_si256(v[14], _mm256_set1_epi64x(-1));
    round_four(v, m, blake2b_sigma[0]);
    round_four(v, m, blake2b_sigma[1]);
    round_four(v, m, blake2b_sigma[2]);
    round_four(v, m, blake2b_sigma[3]);
    round_four(v, m, blake2b_sigma[4]);
    round_four(v, m, blake2b_sigma[5]);
    round_four(v, m, blake2b_sigma[6]);
    round_four(v, m, blake2b_sigma[7]);
    round_four(v, m, blake2b_sigma[8]);
    round_four(v, m, blake2b_sigma[9]);
    round_four(v, m, blake2b_sigma[0]);
    round_four(v, m, blake2b_sigma[1]);
    put_hashes(four, _mm256_xor_si256(h[0], _mm256_xor_si256(v[0], v[8])),
               _mm256_xor_si256(h[1], _mm256_xor_si256(v[1], v[9])));
}

bool blake2b_wide_four(struct blake2b_four *four)
{
    if (!__builtin_cpu_supports("avx2")) {
        return false;
    }
    compress_four(four);
    return true;
}

#else

bool blake2b_wide_four(struct blake2b_four *four)
{
    (void)four;
    return false;
}

#endif
