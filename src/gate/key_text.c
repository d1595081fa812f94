/* Key text.
 *
 *   weir_ 0123456789abcdef _ 0123456789abcdefghijkl 01234567
 *         id, 16 characters  secret, 22             tag, 8
 *
 * All three are base62 (0-9 A-Z a-z), so a key is one word for a double click and needs no escaping
 * anywhere. The id finds the row, the secret has 22 * log2(62) = 131 random bits, and the tag is a
 * BLAKE2b keyed with a secret of the store over id and secret: 47 bits, so somebody who does not
 * have a real key gets past it once in 2e14 tries. It saves the cost of Argon2id and of a query for
 * made-up keys; it proves nothing by itself.
 *
 * Happy path: cut at fixed places, check the characters, compute the tag, compare.
 * Failure modes: none beyond "not a key". */
#include "gate/key_text.h"

#include <assert.h>
#include <string.h>

#include "base/hash.h"

#define BASE62_RADIX 62u

static const char base62_characters[] =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
static_assert(sizeof(base62_characters) == BASE62_RADIX + 1, "62 characters and a NUL");

static bool base62_is_shaped(struct slice text)
{
    unsigned all =
        1; /* no early way out: almost every key is shaped, and this is on the hot path */
    for (size_t i = 0; i < text.size; i++) {
        unsigned is_digit = (unsigned)(text.data[i] - '0') < 10u;
        unsigned is_letter = (unsigned)((text.data[i] | 0x20) - 'a') < 26u;
        all &= is_digit | is_letter;
    }
    return all != 0;
}

bool gate_key_text_id_is_shaped(struct slice id)
{
    return id.size == GATE_KEY_ID_CHARS && base62_is_shaped(id);
}

bool gate_key_text_parse(struct slice text, struct gate_key_text *ret)
{
    const size_t id_at = GATE_KEY_PREFIX_CHARS;
    const size_t secret_at = id_at + GATE_KEY_ID_CHARS + 1;
    if (text.size != GATE_KEY_CHARS ||
        memcmp(text.data, GATE_KEY_PREFIX, GATE_KEY_PREFIX_CHARS) != 0 ||
        text.data[secret_at - 1] != '_') {
        return false;
    }
    struct slice id = slice_part(text, id_at, secret_at - 1);
    struct slice secret = slice_part(text, secret_at, text.size);
    if (!base62_is_shaped(id) || !base62_is_shaped(secret)) {
        return false;
    }
    *ret = (struct gate_key_text){.id = id, .secret = secret};
    return true;
}

static void tag_make(const uint8_t tag_key[GATE_TAG_KEY_BYTES], struct slice id,
                     struct slice secret, char to[GATE_KEY_TAG_CHARS])
{
    uint8_t tagged[GATE_KEY_ID_CHARS + GATE_KEY_SECRET_CHARS];
    uint8_t digest[16];
    uint64_t number;
    assert(id.size == GATE_KEY_ID_CHARS && secret.size >= GATE_KEY_SECRET_CHARS);
    memcpy(tagged, id.data, GATE_KEY_ID_CHARS);
    memcpy(tagged + GATE_KEY_ID_CHARS, secret.data, GATE_KEY_SECRET_CHARS);
    hash_keyed(slice_make(tag_key, GATE_TAG_KEY_BYTES), slice_make(tagged, sizeof(tagged)), digest,
               sizeof(digest));
    memcpy(&number, digest, sizeof(number));
    for (size_t i = 0; i < GATE_KEY_TAG_CHARS; i++) {
        to[i] = base62_characters[number % BASE62_RADIX];
        number /= BASE62_RADIX;
    }
}

bool gate_key_text_tag_is_right(const uint8_t tag_key[GATE_TAG_KEY_BYTES],
                                const struct gate_key_text *key)
{
    char tag[GATE_KEY_TAG_CHARS];
    tag_make(tag_key, key->id, key->secret, tag);
    return hash_equal_constant_time(tag, key->secret.data + GATE_KEY_SECRET_CHARS, sizeof(tag));
}

/* Bytes of 248 and more are drawn again: 248 is the largest multiple of 62 that a byte holds, so
 * every character is equally likely. */
static void base62_random(char *to, size_t count)
{
    size_t made = 0;
    while (made < count) {
        uint8_t bytes[64];
        hash_random(bytes, sizeof(bytes));
        for (size_t i = 0; i < sizeof(bytes) && made < count; i++) {
            if (bytes[i] < 4 * BASE62_RADIX) {
                to[made++] = base62_characters[bytes[i] % BASE62_RADIX];
            }
        }
    }
}

void gate_key_text_make(const uint8_t tag_key[GATE_TAG_KEY_BYTES], char to[GATE_KEY_CHARS + 1])
{
    char *id = to + GATE_KEY_PREFIX_CHARS;
    char *secret = id + GATE_KEY_ID_CHARS + 1;
    memcpy(to, GATE_KEY_PREFIX, GATE_KEY_PREFIX_CHARS);
    base62_random(id, GATE_KEY_ID_CHARS);
    id[GATE_KEY_ID_CHARS] = '_';
    base62_random(secret, GATE_KEY_SECRET_CHARS);
    tag_make(tag_key, slice_make(id, GATE_KEY_ID_CHARS), slice_make(secret, GATE_KEY_SECRET_CHARS),
             secret + GATE_KEY_SECRET_CHARS);
    to[GATE_KEY_CHARS] = '\0';
}
