/* Hash: which hash for what. XXH3 for speed where nobody attacks, SipHash-2-4 with a key of this
 * process for tables whose keys clients choose, BLAKE2b where the value is a name that must never
 * collide. libsodium is started once; the table key is made there, before any thread, and only read
 * later. */
#include "base/hash.h"

#include <assert.h>
#include <sodium.h>
#include <xxhash.h>

static uint8_t hash_table_key[crypto_shorthash_siphash24_KEYBYTES];
static bool hash_is_started;

static_assert(crypto_shorthash_siphash24_BYTES == sizeof(uint64_t), "a table hash is 64 bits");

enum err hash_start(void)
{
    if (hash_is_started) {
        return ERR_OK;
    }
    if (sodium_init() < 0) {
        return ERR_UNSUPPORTED;
    }
    randombytes_buf(hash_table_key, sizeof(hash_table_key));
    hash_is_started = true;
    return ERR_OK;
}

uint64_t hash_xxh3(const void *data, size_t size, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, size, seed);
}

/* The library's state, which wants an alignment that only its own allocator gives. */
static XXH3_state_t *stream_state(struct hash_stream *stream)
{
    return (XXH3_state_t *)(void *)stream;
}

struct hash_stream *hash_stream_create(void)
{
    XXH3_state_t *state = XXH3_createState();
    assert(state != NULL); /* a size that we chose */
    (void)XXH3_64bits_reset(state);
    return (struct hash_stream *)(void *)state;
}

void hash_stream_add(struct hash_stream *stream, const void *data, size_t size)
{
    (void)XXH3_64bits_update(stream_state(stream), data, size); /* fails for NULL only */
}

uint64_t hash_stream_value(const struct hash_stream *stream)
{
    return XXH3_64bits_digest((const XXH3_state_t *)(const void *)stream);
}

void hash_stream_destroy(struct hash_stream *stream)
{
    (void)XXH3_freeState(stream_state(stream));
}

uint64_t hash_table(const void *data, size_t size)
{
    assert(hash_is_started);
    uint64_t hash;
    (void)crypto_shorthash_siphash24((uint8_t *)&hash, data, size, hash_table_key); /* always 0 */
    return hash;
}

void hash_keyed(struct slice key, struct slice data, uint8_t *ret, size_t size)
{
    assert(size >= crypto_generichash_BYTES_MIN && size <= crypto_generichash_BYTES_MAX);
    assert(key.size >= crypto_generichash_KEYBYTES_MIN);
    assert(key.size <= crypto_generichash_KEYBYTES_MAX);
    int result = crypto_generichash(ret, size, data.data, data.size, key.data, key.size);
    assert(result == 0);
}

void hash_random(void *to, size_t size)
{
    assert(hash_is_started);
    randombytes_buf(to, size);
}

bool hash_equal_constant_time(const void *a, const void *b, size_t size)
{
    return sodium_memcmp(a, b, size) == 0;
}
