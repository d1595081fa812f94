/* Blake2b: the compression function of RFC 7693, section 3.2, in plain C, and the ways in.
 *
 * The twelve rounds are written out, so that the compiler knows which word of the message each
 * step takes and keeps the sixteen words of state where it likes.
 *
 * Happy path: one compression for a text of up to 128 bytes; four texts that stand side by side are
 * compressed together where the processor can (blake2b_wide.c), which takes a third of the time.
 * Failure modes: none. */
#include "base/blake2b.h"

#include "base/blake2b_wide.h"

#include <assert.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "words are loaded as they stand");

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
static void compress(uint64_t h[8], const uint8_t block[BLAKE2B_BLOCK_BYTES], uint64_t count,
                     bool is_last)
{
    uint64_t m[16];
    uint64_t v[16];
    memcpy(m, block, sizeof(m));
    memcpy(v, h, sizeof(blake2b_initial));
    memcpy(v + 8, blake2b_initial, sizeof(blake2b_initial));
    v[12] ^= count;
    v[14] ^= is_last ? UINT64_MAX : 0;
    round_of(v, m, blake2b_sigma[0]);
    round_of(v, m, blake2b_sigma[1]);
    round_of(v, m, blake2b_sigma[2]);
    round_of(v, m, blake2b_sigma[3]);
    round_of(v, m, blake2b_sigma[4]);
    round_of(v, m, blake2b_sigma[5]);
    round_of(v, m, blake2b_sigma[6]);
    round_of(v, m, blake2b_sigma[7]);
    round_of(v, m, blake2b_sigma[8]);
    round_of(v, m, blake2b_sigma[9]);
    round_of(v, m, blake2b_sigma[0]);
    round_of(v, m, blake2b_sigma[1]);
    for (size_t i = 0; i < 8; i++) {
        h[i] ^= v[i] ^ v[i + 8];
    }
}

void blake2b_key(struct blake2b_keyed *ret, const uint8_t key[BLAKE2B_KEY_BYTES])
{
    uint8_t block[BLAKE2B_BLOCK_BYTES] = {0};
    memcpy(block, key, BLAKE2B_KEY_BYTES);
    memcpy(ret->h, blake2b_initial, sizeof(blake2b_initial));
    ret->h[0] ^= UINT64_C(0x01010000) ^ BLAKE2B_KEY_BYTES << 8 ^ BLAKE2B_BYTES;
    compress(ret->h, block, BLAKE2B_BLOCK_BYTES, false);
}

void blake2b_hash(const struct blake2b_keyed *keyed, const uint8_t *data, size_t size,
                  uint8_t ret[BLAKE2B_BYTES])
{
    struct blake2b_keyed state = *keyed;
    uint64_t count = BLAKE2B_BLOCK_BYTES;
    uint8_t last[BLAKE2B_BLOCK_BYTES] = {0};
    assert(size > 0);
    while (size > BLAKE2B_BLOCK_BYTES) {
        count += BLAKE2B_BLOCK_BYTES;
        compress(state.h, data, count, false);
        data += BLAKE2B_BLOCK_BYTES;
        size -= BLAKE2B_BLOCK_BYTES;
    }
    memcpy(last, data, size);
    compress(state.h, last, count + size, true);
    memcpy(ret, state.h, BLAKE2B_BYTES);
}

void blake2b_plain_four(struct blake2b_four *four)
{
    for (size_t k = 0; k < BLAKE2B_TOGETHER; k++) {
        blake2b_hash(&four->keyed[k], four->texts[k], four->sizes[k], four->hashes[k]);
    }
}

void blake2b_hash_four(struct blake2b_four *four)
{
    for (size_t k = 0; k < BLAKE2B_TOGETHER; k++) {
        assert(four->sizes[k] > 0 && four->sizes[k] <= BLAKE2B_BLOCK_BYTES);
    }
    if (!blake2b_wide_four(four)) {
        blake2b_plain_four(four);
    }
}
