/* Key text: how a key is written, `weir_<id>_<secret><tag>`, and the tag that tells a key of ours
 * from a made-up one.
 *
 * Thread: any; pure but for the random bytes of make.
 * Memory: slices point into what was parsed.
 * Errors: parse gives false on anything that is not a key's text. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

#define GATE_KEY_PREFIX       "weir_"
#define GATE_KEY_PREFIX_CHARS 5u
#define GATE_KEY_ID_CHARS     16u
#define GATE_KEY_SECRET_CHARS 22u /* 131 random bits */
#define GATE_KEY_TAG_CHARS    8u
/* Prefix, id, '_', secret, tag. */
#define GATE_KEY_CHARS                                                                             \
    (GATE_KEY_PREFIX_CHARS + GATE_KEY_ID_CHARS + 1u + GATE_KEY_SECRET_CHARS + GATE_KEY_TAG_CHARS)
#define GATE_TAG_KEY_BYTES 32u

struct gate_key_text {
    struct slice id;
    struct slice secret; /* with its tag: what Argon2id sees */
};

/* Shape only. *ret is untouched on false. */
bool gate_key_text_parse(struct slice text, struct gate_key_text *ret);
/* Whether `id` could be a key's. */
bool gate_key_text_id_is_shaped(struct slice id);
/* Same time whatever the bytes. */
bool gate_key_text_tag_is_right(const uint8_t tag_key[GATE_TAG_KEY_BYTES],
                                const struct gate_key_text *key);
/* A new key; GATE_KEY_CHARS characters and a NUL. */
void gate_key_text_make(const uint8_t tag_key[GATE_TAG_KEY_BYTES], char to[GATE_KEY_CHARS + 1]);
