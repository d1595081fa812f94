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

#define BLAKE2B_KEY_BYTES 32u
#define BLAKE2B_BYTES     16u

struct blake2b_keyed {
    uint64_t h[8];
};

void blake2b_key(struct blake2b_keyed *ret, const uint8_t key[BLAKE2B_KEY_BYTES]);
/* `size` is at least 1. */
void blake2b_hash(const struct blake2b_keyed *keyed, const uint8_t *data, size_t size,
                  uint8_t ret[BLAKE2B_BYTES]);
