/* Blake2b: 16 bytes of keyed BLAKE2b (RFC 7693), for names that are made once for every event. The
 * block that the key fills is worked in once and kept, which is half of the work for a short text;
 * everything else in the program takes BLAKE2b from libsodium.
 *
 * Thread: any; pure.
 * Memory: values. A keyed state is as secret as its key.
 * Errors: none. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BLAKE2B_KEY_BYTES   32u
#define BLAKE2B_BYTES       16u
#define BLAKE2B_BLOCK_BYTES 128u
#define BLAKE2B_TOGETHER    4u

struct blake2b_keyed {
    uint64_t h[8];
};

void blake2b_key(struct blake2b_keyed *ret, const uint8_t key[BLAKE2B_KEY_BYTES]);
/* `size` is at least 1. */
void blake2b_hash(const struct blake2b_keyed *keyed, const uint8_t *data, size_t size,
                  uint8_t ret[BLAKE2B_BYTES]);

/* Four short texts, each with its own key, hashed together. */
struct blake2b_four {
    struct blake2b_keyed keyed[BLAKE2B_TOGETHER];
    uint8_t texts[BLAKE2B_TOGETHER][BLAKE2B_BLOCK_BYTES]; /* zeros behind each */
    uint32_t sizes[BLAKE2B_TOGETHER];                     /* 1 to BLAKE2B_BLOCK_BYTES */
    uint8_t hashes[BLAKE2B_TOGETHER][BLAKE2B_BYTES];      /* set by blake2b_hash_four */
};
/* The same as blake2b_hash of each. */
void blake2b_hash_four(struct blake2b_four *four);
