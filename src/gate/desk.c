/* Desk: a small table, one place for each low part of a digest, of keys that this thread found good
 * within the last second. Such a key costs its digest and one comparison: no lock, no clock, and no
 * cache line that other threads write.
 *
 * Forgetting must win here as it does in the cache. A forget raises the cache's generation before
 * it erases and once more after; an entry carries the generation that was read before its key was
 * checked, and counts only as long as that is still the newest. So what is asked after a forget
 * returned never sees an older entry, nor one that was taken while it erased. The key's own expiry
 * is looked at each time; its last use and the time to live reach the cache once a second.
 *
 * Happy path: one SipHash, one comparison, one copy.
 * Failure modes: none of its own; whatever is not found here is asked of the gate. */
#include <string.h>

#include "base/mem.h"
#include "base/metrics.h"
#include "gate/gate_private.h"

#define DESK_ENTRIES 64u
#define DESK_KEPT_MS 1000u

struct desk_entry {
    uint64_t until_ms; /* monotonic; 0: empty */
    uint64_t generation;
    uint8_t digest[GATE_DIGEST_BYTES];
    struct gate_identity identity;
};

struct gate_desk {
    struct gate *gate;
    uint64_t kept_ms;
    struct desk_entry entries[DESK_ENTRIES];
};

struct gate_desk *gate_desk_create(struct gate *gate)
{
    struct gate_desk *desk = mem_alloc(sizeof(*desk));
    uint64_t ttl_ms = (uint64_t)gate->options.cache_ttl_s * 1000u;
    desk->gate = gate;
    desk->kept_ms = ttl_ms < DESK_KEPT_MS ? ttl_ms : DESK_KEPT_MS;
    return desk;
}

void gate_desk_destroy(struct gate_desk *desk)
{
    mem_free(desk);
}

/* Takes the same time wherever the digests differ. */
static bool digest_is(const uint8_t a[GATE_DIGEST_BYTES], const uint8_t b[GATE_DIGEST_BYTES])
{
    uint64_t words[4];
    static_assert(sizeof(words) == (size_t)2 * GATE_DIGEST_BYTES, "two words each");
    memcpy(words, a, GATE_DIGEST_BYTES);
    memcpy(words + 2, b, GATE_DIGEST_BYTES);
    return ((words[0] ^ words[2]) | (words[1] ^ words[3])) == 0;
}

enum gate_check gate_desk_check(struct gate_desk *desk, const struct gate_question *question,
                                struct gate_waiter *waiter, struct gate_identity *ret)
{
    const struct gate_now *now = &question->now;
    struct gate_cache *cache = desk->gate->cache;
    uint64_t generation = gate_cache_generation(cache);
    uint8_t digest[GATE_DIGEST_BYTES];
    if (question->key.size != GATE_KEY_CHARS) {
        return gate_check(desk->gate, question->key, question->address, waiter, ret);
    }
    gate_cache_digest(cache, question->key, digest);
    struct desk_entry *entry = &desk->entries[digest[0] % DESK_ENTRIES];
    int64_t expires_ms = entry->identity.expires_ms;
    if (digest_is(entry->digest, digest) && now->mono_ms < entry->until_ms &&
        generation == entry->generation && (expires_ms == 0 || now->wall_ms < expires_ms)) {
        metrics_add(METRIC_CACHE_KEY_HIT, 1);
        metrics_observe(METRIC_AUTH_LATENCY, 0); /* below what the clock could tell */
        *ret = entry->identity;
        return GATE_CHECK_OK;
    }
    enum gate_check result = gate_check(desk->gate, question->key, question->address, waiter, ret);
    if (result == GATE_CHECK_OK) {
        entry->until_ms = now->mono_ms + desk->kept_ms;
        entry->generation = generation;
        entry->identity = *ret;
        memcpy(entry->digest, digest, sizeof(digest));
    }
    return result;
}
