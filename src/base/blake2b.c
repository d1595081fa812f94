/* Blake2b: the compression function of RFC 7693, section 3.2, in plain C, and the two ways in.
 *
 * The twelve rounds are written out, so that the compiler knows which word of the message each
 * step takes and keeps the sixteen words of state where it likes.
 *
 * Happy path: one compression for a text of up to 128 bytes.
 * Failure modes: none. */
#include "base/blake2b.h"

#include <assert.h>
#include <string.h>

#define BLOCK_BYTES 128u
#define INLINE      static inline __attribute__((always_inline))

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are loaded as they stand");

static const uint64_t initial[8] = {
    UINT64_C(0x6a09e667f3bcc908), UINT64_C(0xbb67ae8584caa73b), UINT64_C(0x3c6ef372fe94f82b),
    UINT64_C(0xa54ff53a5f1d36f1), UINT64_C(0x510e527fade682d1), UINT64_C(0x9b05688c2b3e6c1f),
    UINT64_C(0x1f83d9abfb41bd6b), UINT64_C(0x5be0cd19137e2179),
};

static const uint8_t sigma[10][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
    {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4},
    {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
    {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13},
    {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
    {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11},
    {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
    {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5},
    {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0},
};

INLINE uint64_t turn(uint64_t word, unsigned bits)
{
    return word >> bits | word << (64 - bits);
}

struct mix {
    uint8_t a, b, c, d;
};

INLINE void mix(uint64_t v[16], struct mix at, uint64_t x, uint64_t y)
{
    v[at.a] += v[at.b] + x;
    v[at.d] = turn(v[at.d] ^ v[at.a], 32);
    v[at.c] += v[at.d];
    v[at.b] = turn(v[at.b] ^ v[at.c], 24);
    v[at.a] += v[at.b] + y;
    v[at.d] = turn(v[at.d] ^ v[at.a], 16);
    v[at.c] += v[at.d];
    v[at.b] = turn(v[at.b] ^ v[at.c], 63);
}

INLINE void round_of(uint64_t v[16], const uint64_t m[16], const uint8_t s[16])
{
    mix(v, (struct mix){0, 4, 8, 12}, m[s[0]], m[s[1]]);
    mix(v, (struct mix){1, 5, 9, 13}, m[s[2]], m[s[3]]);
    mix(v, (struct mix){2, 6, 10, 14}, m[s[4]], m[s[5]]);
    mix(v, (struct mix){3, 7, 11, 15}, m[s[6]], m[s[7]]);
    mix(v, (struct mix){0, 5, 10, 15}, m[s[8]], m[s[9]]);
    mix(v, (struct mix){1, 6, 11, 12}, m[s[10]], m[s[11]]);
    mix(v, (struct mix){2, 7, 8, 13}, m[s[12]], m[s[13]]);
    mix(v, (struct mix){3, 4, 9, 14}, m[s[14]], m[s[15]]);
}

/* `count`: bytes so far, the key's block and this one's among them. */
static void compress(uint64_t h[8], const uint8_t block[BLOCK_BYTES], uint64_t count, bool is_last)
{
    uint64_t m[16];
    uint64_t v[16];
    memcpy(m, block, sizeof(m));
    memcpy(v, h, sizeof(initial));
    memcpy(v + 8, initial, sizeof(initial));
    v[12] ^= count;
    v[14] ^= is_last ? UINT64_MAX : 0;
    round_of(v, m, sigma[0]);
    round_of(v, m, sigma[1]);
    round_of(v, m, sigma[2]);
    round_of(v, m, sigma[3]);
    round_of(v, m, sigma[4]);
    round_of(v, m, sigma[5]);
    round_of(v, m, sigma[6]);
    round_of(v, m, sigma[7]);
    round_of(v, m, sigma[8]);
    round_of(v, m, sigma[9]);
    round_of(v, m, sigma[0]);
    round_of(v, m, sigma[1]);
    for (size_t i = 0; i < 8; i++) {
        h[i] ^= v[i] ^ v[i + 8];
    }
}

void blake2b_key(struct blake2b_keyed *ret, const uint8_t key[BLAKE2B_KEY_BYTES])
{
    uint8_t block[BLOCK_BYTES] = {0};
    memcpy(block, key, BLAKE2B_KEY_BYTES);
    memcpy(ret->h, initial, sizeof(initial));
    ret->h[0] ^= UINT64_C(0x01010000) ^ BLAKE2B_KEY_BYTES << 8 ^ BLAKE2B_BYTES;
    compress(ret->h, block, BLOCK_BYTES, false);
}

void blake2b_hash(const struct blake2b_keyed *keyed, const uint8_t *data, size_t size,
                  uint8_t ret[BLAKE2B_BYTES])
{
    struct blake2b_keyed state = *keyed;
    uint64_t count = BLOCK_BYTES;
    uint8_t last[BLOCK_BYTES] = {0};
    assert(size > 0);
    while (size > BLOCK_BYTES) {
        count += BLOCK_BYTES;
        compress(state.h, data, count, false);
        data += BLOCK_BYTES;
        size -= BLOCK_BYTES;
    }
    memcpy(last, data, size);
    compress(state.h, last, count + size, true);
    memcpy(ret, state.h, BLAKE2B_BYTES);
}
