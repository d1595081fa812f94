/* Cache.
 *
 * A key is named by SipHash-2-4 with 128 bits of its whole text under a random key of this process:
 * a function that nobody outside can compute, or aim at an entry with, and that takes a sixth of
 * the time of BLAKE2b, which would be half of a check's. The first half finds the entry, the whole
 * is compared in constant time.
 *
 *   absent --put--> LIVE --TTL since last use--> STALE --put--> LIVE
 *                     ^                            |
 *                     '--- 5 s, the store is away -'
 *   any --forget--> absent      any --the key's own expiry, wall clock--> EXPIRED
 *
 * Where other nodes change keys too, an entry is also STALE while both its row and the last moment
 * at which every change was known are older than five seconds.
 *
 * Forgetting must win over a check that is still running with an older row. A forget first raises
 * the generation, then erases, stripe by stripe under the stripes' locks, then raises it once more.
 * A put compares the generation under the lock of its stripe. So either the put comes first, and
 * the erase finds it; or the erase came first, and the put sees the raised generation. The second
 * raise is for desks: one that found the entry between the first and the erase has kept it under a
 * generation that is over when the forget returns.
 *
 * Happy path: one digest, one look under one lock, the entry's use is noted in place.
 * Failure modes: a full stripe drops the least recently used entry: its key is checked again. A
 * refused put leaves an empty entry for an instant, which no find takes for a key. */
#include "gate/cache.h"

#include <assert.h>
#include <sodium.h>
#include <stdatomic.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/table.h"

#define CACHE_NAME_BYTES 8u

struct gate_cache {
    struct table *keys;
    struct table *refused;
    uint64_t ttl_ms;
    uint8_t digest_key[crypto_shorthash_siphashx24_KEYBYTES];
    /* The release adds of forget pair with the acquire load of generation. For a put the stripe's
     * lock orders the two; for a desk, whatever told its thread of the forget. */
    atomic_uint_fast64_t generation;
    /* Relaxed: a time that rises, and a second more or less is no matter. 0: nobody else changes
     * keys. */
    atomic_uint_fast64_t current_ms;
};

struct cache_entry {
    bool is_present; /* false: a put that was refused */
    uint8_t digest[GATE_DIGEST_BYTES];
    struct gate_identity identity;
    uint64_t read_ms;     /* monotonic; of the row */
    uint64_t used_ms;     /* monotonic */
    uint64_t extended_ms; /* live until then whatever the TTL says; 0: not */
    uint64_t noted_ms;    /* when a use was last written down */
};

struct gate_cache *gate_cache_create(const struct gate_cache_options *options)
{
    struct gate_cache *cache = mem_alloc(sizeof(*cache));
    cache->keys = table_create(options->entries_max, sizeof(struct cache_entry));
    cache->refused = table_create(options->refused_max, sizeof(uint64_t));
    cache->ttl_ms = options->ttl_ms;
    hash_random(cache->digest_key, sizeof(cache->digest_key));
    return cache;
}

void gate_cache_destroy(struct gate_cache *cache)
{
    if (cache == NULL) {
        return;
    }
    table_destroy(cache->keys);
    table_destroy(cache->refused);
    mem_free(cache);
}

void gate_cache_digest(const struct gate_cache *cache, struct slice key,
                       uint8_t ret[GATE_DIGEST_BYTES])
{
    static_assert(crypto_shorthash_siphashx24_BYTES == GATE_DIGEST_BYTES, "128 bits");
    (void)crypto_shorthash_siphashx24(ret, key.data, key.size, cache->digest_key); /* always 0 */
}

static struct slice cache_name(const uint8_t digest[GATE_DIGEST_BYTES])
{
    return slice_make(digest, CACHE_NAME_BYTES);
}

struct cache_look {
    const uint8_t *digest;
    struct gate_now now;
    uint64_t ttl_ms;
    uint64_t current_ms;
    struct gate_identity *identity;
    bool must_note;
    enum gate_cached result;
};

static void cache_visit_find(void *value, void *context)
{
    struct cache_entry *entry = value;
    struct cache_look *look = context;
    uint64_t now_ms = look->now.mono_ms;
    if (!entry->is_present ||
        !hash_equal_constant_time(entry->digest, look->digest, GATE_DIGEST_BYTES)) {
        return;
    }
    int64_t expires_ms = entry->identity.expires_ms;
    if (expires_ms != 0 && look->now.wall_ms >= expires_ms) {
        look->result = GATE_CACHED_EXPIRED;
        return;
    }
    *look->identity = entry->identity;
    /* Another thread's clock may be read a little later than this one's. */
    bool is_fresh = now_ms <= entry->used_ms || now_ms - entry->used_ms < look->ttl_ms;
    uint64_t certain_ms = look->current_ms > entry->read_ms ? look->current_ms : entry->read_ms;
    is_fresh = is_fresh && (look->current_ms == 0 || now_ms < certain_ms + GATE_UNCERTAIN_MS);
    look->result = is_fresh || now_ms < entry->extended_ms ? GATE_CACHED_LIVE : GATE_CACHED_STALE;
    if (is_fresh && now_ms > entry->used_ms) {
        entry->used_ms = now_ms;
    }
    look->must_note =
        look->result == GATE_CACHED_LIVE && now_ms >= entry->noted_ms + GATE_USE_NOTED_EACH_MS;
    if (look->must_note) {
        entry->noted_ms = now_ms;
    }
}

enum gate_cached gate_cache_find(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                                 struct gate_now now, struct gate_identity *ret_identity,
                                 bool *ret_must_note)
{
    struct cache_look look = {.digest = digest,
                              .now = now,
                              .ttl_ms = cache->ttl_ms,
                              .current_ms =
                                  atomic_load_explicit(&cache->current_ms, memory_order_relaxed),
                              .identity = ret_identity,
                              .result = GATE_CACHED_NONE};
    (void)table_find(cache->keys, cache_name(digest), cache_visit_find, &look);
    *ret_must_note = look.must_note;
    return look.result;
}

static void cache_visit_extend(void *value, void *context)
{
    const uint64_t *until_ms = context;
    ((struct cache_entry *)value)->extended_ms = *until_ms;
}

void gate_cache_extend(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                       uint64_t mono_ms)
{
    uint64_t until_ms = mono_ms + GATE_STALE_SERVED_MS;
    (void)table_find(cache->keys, cache_name(digest), cache_visit_extend, &until_ms);
}

uint64_t gate_cache_generation(const struct gate_cache *cache)
{
    return atomic_load_explicit(&cache->generation, memory_order_acquire);
}

struct cache_putting {
    const struct gate_cache *cache;
    const uint8_t *digest;
    const struct gate_identity *identity;
    uint64_t generation;
    uint64_t now_ms;
    bool is_put;
};

static void cache_visit_put(void *value, void *context)
{
    struct cache_entry *entry = value;
    struct cache_putting *putting = context;
    putting->is_put = gate_cache_generation(putting->cache) == putting->generation;
    if (!putting->is_put) {
        return;
    }
    entry->is_present = true;
    memcpy(entry->digest, putting->digest, GATE_DIGEST_BYTES);
    entry->identity = *putting->identity;
    entry->read_ms = putting->now_ms;
    entry->used_ms = putting->now_ms;
    entry->extended_ms = 0;
    entry->noted_ms = putting->now_ms;
}

static bool cache_entry_is_empty(const void *value, void *context)
{
    (void)context;
    return !((const struct cache_entry *)value)->is_present;
}

bool gate_cache_put(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                    const struct gate_identity *identity, uint64_t generation, uint64_t mono_ms)
{
    struct cache_putting putting = {.cache = cache,
                                    .digest = digest,
                                    .identity = identity,
                                    .generation = generation,
                                    .now_ms = mono_ms};
    table_upsert(cache->keys, cache_name(digest), cache_visit_put, &putting);
    if (!putting.is_put) {
        table_erase_if(cache->keys, cache_entry_is_empty, NULL);
    }
    return putting.is_put;
}

static bool cache_entry_is_of_key(const void *value, void *context)
{
    return ((const struct cache_entry *)value)->identity.key == *(const uint64_t *)context;
}

static bool cache_entry_is_of_org(const void *value, void *context)
{
    return ((const struct cache_entry *)value)->identity.org == *(const uint64_t *)context;
}

static void cache_forget(struct gate_cache *cache, bool (*is_it)(const void *value, void *context),
                         uint64_t number)
{
    atomic_fetch_add_explicit(&cache->generation, 1, memory_order_release);
    table_erase_if(cache->keys, is_it, &number);
    atomic_fetch_add_explicit(&cache->generation, 1, memory_order_release);
}

void gate_cache_forget_key(struct gate_cache *cache, uint64_t key)
{
    cache_forget(cache, cache_entry_is_of_key, key);
}

void gate_cache_forget_org(struct gate_cache *cache, uint64_t org)
{
    cache_forget(cache, cache_entry_is_of_org, org);
}

static bool cache_entry_is(const void *value, void *context)
{
    (void)value;
    (void)context;
    return true;
}

void gate_cache_forget_all(struct gate_cache *cache)
{
    cache_forget(cache, cache_entry_is, 0);
    gate_cache_forget_refused(cache);
}

void gate_cache_forget_refused(struct gate_cache *cache)
{
    table_erase_if(cache->refused, cache_entry_is, NULL);
}

void gate_cache_current(struct gate_cache *cache, uint64_t mono_ms)
{
    atomic_store_explicit(&cache->current_ms, mono_ms, memory_order_relaxed);
}

void gate_cache_refuse(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                       uint64_t mono_ms)
{
    uint64_t until_ms = mono_ms + GATE_REFUSED_KEPT_MS;
    table_put(cache->refused, cache_name(digest), &until_ms);
}

bool gate_cache_is_refused(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                           uint64_t mono_ms)
{
    uint64_t until_ms;
    return table_copy(cache->refused, cache_name(digest), &until_ms) && mono_ms < until_ms;
}
