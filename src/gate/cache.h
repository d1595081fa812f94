/* Cache: keys that were checked, and keys that were refused.
 *
 * Thread: any; the locks are the tables'.
 * Memory: everything is copied in and out. Entries are named by a digest under a key of this
 *         process; neither a key nor its secret is ever held.
 * Errors: none: a full table drops what was not used for longest. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"
#include "gate/gate.h"

#define GATE_DIGEST_BYTES      16u
#define GATE_REFUSED_KEPT_MS   60000u
#define GATE_STALE_SERVED_MS   5000u /* before the store is asked again */
#define GATE_USE_NOTED_EACH_MS 60000u
#define GATE_UNCERTAIN_MS      5000u /* since every revocation was known; then the store is asked */

struct gate_cache;

struct gate_cache_options {
    uint32_t entries_max;
    uint32_t refused_max;
    uint32_t ttl_ms; /* from last use */
};

enum gate_cached {
    GATE_CACHED_NONE,
    GATE_CACHED_LIVE,
    GATE_CACHED_STALE,   /* past its TTL: to be confirmed by the store, served while that is away */
    GATE_CACHED_EXPIRED, /* past the key's own expiry: refused */
};

struct gate_cache *gate_cache_create(const struct gate_cache_options *options);
void gate_cache_destroy(struct gate_cache *cache);

void gate_cache_digest(const struct gate_cache *cache, struct slice key,
                       uint8_t ret[GATE_DIGEST_BYTES]);
/* LIVE and STALE fill *ret_identity. *ret_must_note: the use is to be written down (at most once a
 * minute and key). */
enum gate_cached gate_cache_find(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                                 struct gate_now now, struct gate_identity *ret_identity,
                                 bool *ret_must_note);
/* The store could not be asked about a stale entry: it is live for GATE_STALE_SERVED_MS. */
void gate_cache_extend(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                       uint64_t mono_ms);

/* Rises with every forget. Read before the row is read that a put rests on. */
uint64_t gate_cache_generation(const struct gate_cache *cache);
/* False, and nothing is put, when something was forgotten since `generation` was read. */
bool gate_cache_put(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                    const struct gate_identity *identity, uint64_t generation, uint64_t mono_ms);
/* When these return, no find gives the key, and no put that rests on an older row succeeds. */
void gate_cache_forget_key(struct gate_cache *cache, uint64_t key);
void gate_cache_forget_org(struct gate_cache *cache, uint64_t org);
void gate_cache_forget_all(struct gate_cache *cache);
/* Up to here everything that is to be forgotten was; from the first call on, what is older than
 * GATE_UNCERTAIN_MS is stale. */
void gate_cache_current(struct gate_cache *cache, uint64_t mono_ms);

void gate_cache_refuse(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                       uint64_t mono_ms);
bool gate_cache_is_refused(struct gate_cache *cache, const uint8_t digest[GATE_DIGEST_BYTES],
                           uint64_t mono_ms);
void gate_cache_forget_refused(struct gate_cache *cache);
