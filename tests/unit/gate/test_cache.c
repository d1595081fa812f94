/* Promise: a key lives in the cache until its TTL from last use, its own expiry or its being
 * forgotten, whichever is first; a check that began before a forget never puts it back; and what
 * was refused takes a bounded room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/hash.h"
#include "base/table.h"
#include "gate/cache.c" /* NOLINT(bugprone-suspicious-include): for its counts */

#define TTL_MS 300000u

static struct gate_cache *cache;

static void digest_of(const char *key, uint8_t ret[GATE_DIGEST_BYTES])
{
    gate_cache_digest(cache, slice_from_text(key), ret);
}

static bool put(const char *key, const struct gate_identity *identity, uint64_t mono_ms)
{
    uint8_t digest[GATE_DIGEST_BYTES];
    digest_of(key, digest);
    return gate_cache_put(cache, digest, identity, gate_cache_generation(cache), mono_ms);
}

static enum gate_cached find(const char *key, uint64_t mono_ms, int64_t wall_ms,
                             struct gate_identity *ret)
{
    uint8_t digest[GATE_DIGEST_BYTES];
    struct gate_now now = {.mono_ms = mono_ms, .wall_ms = wall_ms};
    bool must_note;
    digest_of(key, digest);
    return gate_cache_find(cache, digest, now, ret, &must_note);
}

static void test_found_as_put(void **state)
{
    (void)state;
    const struct gate_identity identity = {.org = 7, .key = 9, .scopes = GATE_READ};
    struct gate_identity found = {0};
    assert_true(put("one", &identity, 1000));
    assert_int_equal(find("one", 1001, 5, &found), GATE_CACHED_LIVE);
    assert_int_equal(found.org, 7);
    assert_int_equal(found.key, 9);
    assert_int_equal(found.scopes, GATE_READ);
    found = (struct gate_identity){0};
    assert_int_equal(find("One", 1001, 5, &found), GATE_CACHED_NONE);
    assert_int_equal(found.org, 0);
}

static void test_a_digest_that_differs_in_its_second_half_is_not_the_key(void **state)
{
    (void)state;
    const struct gate_identity identity = {.org = 7, .key = 9};
    struct gate_identity found = {0};
    uint8_t digest[GATE_DIGEST_BYTES];
    bool must_note;
    assert_true(put("one", &identity, 1000));
    digest_of("one", digest);
    digest[GATE_DIGEST_BYTES - 1] ^= 1;
    assert_int_equal(
        gate_cache_find(cache, digest, (struct gate_now){.mono_ms = 1000}, &found, &must_note),
        GATE_CACHED_NONE);
}

/* Where other nodes change keys too: GATE_UNCERTAIN_MS is five seconds. */
static void test_what_nobody_confirms_is_stale(void **state)
{
    (void)state;
    const struct gate_identity identity = {.key = 1};
    struct gate_identity found;
    assert_true(put("one", &identity, 1000));
    assert_int_equal(find("one", 7000, 0, &found), GATE_CACHED_LIVE); /* nobody else changes keys */
    gate_cache_current(cache, 4000);
    assert_int_equal(find("one", 8999, 0, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", 9000, 0, &found), GATE_CACHED_STALE);
    assert_true(put("one", &identity, 9500)); /* the store was asked: as good as having heard all */
    assert_int_equal(find("one", 14499, 0, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", 14500, 0, &found), GATE_CACHED_STALE);
    gate_cache_current(cache, 14600);
    assert_int_equal(find("one", 14700, 0, &found), GATE_CACHED_LIVE);
}

static void test_forget_all(void **state)
{
    (void)state;
    const struct gate_identity identity = {.key = 1};
    const struct gate_identity other = {.key = 2};
    struct gate_identity found;
    uint8_t digest[GATE_DIGEST_BYTES];
    digest_of("three", digest);
    assert_true(put("one", &identity, 1000));
    assert_true(put("two", &other, 1000));
    gate_cache_refuse(cache, digest, 1000);
    uint64_t before = gate_cache_generation(cache);
    gate_cache_forget_all(cache);
    assert_int_equal(find("one", 1001, 0, &found), GATE_CACHED_NONE);
    assert_int_equal(find("two", 1001, 0, &found), GATE_CACHED_NONE);
    assert_false(gate_cache_is_refused(cache, digest, 1001));
    digest_of("one", digest); /* a check that began before */
    assert_false(gate_cache_put(cache, digest, &identity, before, 1002));
}

static void test_ttl_counts_from_last_use(void **state)
{
    (void)state;
    const struct gate_identity identity = {.key = 1};
    struct gate_identity found;
    assert_true(put("one", &identity, 1000));
    assert_int_equal(find("one", 1000 + TTL_MS - 1, 0, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", 1000 + 2 * TTL_MS - 2, 0, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", 1000 + 3 * TTL_MS - 2, 0, &found), GATE_CACHED_STALE);
    assert_int_equal(found.key, 1);
    assert_int_equal(find("one", 1000 + 9 * TTL_MS, 0, &found), GATE_CACHED_STALE);
    assert_true(put("one", &identity, 1000 + 9 * TTL_MS));
    assert_int_equal(find("one", 1001 + 9 * TTL_MS, 0, &found), GATE_CACHED_LIVE);
}

static void test_a_stale_key_is_served_a_while_when_extended(void **state)
{
    (void)state;
    const struct gate_identity identity = {.key = 1, .expires_ms = 5000};
    struct gate_identity found;
    uint8_t digest[GATE_DIGEST_BYTES];
    uint64_t late_ms = 1000 + 2 * TTL_MS;
    digest_of("one", digest);
    assert_true(put("one", &identity, 1000));
    gate_cache_extend(cache, digest, late_ms);
    assert_int_equal(find("one", late_ms + GATE_STALE_SERVED_MS - 1, 0, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", late_ms + GATE_STALE_SERVED_MS, 0, &found), GATE_CACHED_STALE);
    gate_cache_extend(cache, digest, late_ms);
    assert_int_equal(find("one", late_ms + 1, 5000, &found), GATE_CACHED_EXPIRED);
}

static void test_expiry_is_by_the_wall_clock_and_exact(void **state)
{
    (void)state;
    const struct gate_identity identity = {.key = 1, .expires_ms = 1800000000000};
    struct gate_identity found;
    assert_true(put("one", &identity, 1000));
    assert_int_equal(find("one", 1000, 1799999999999, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", 1000, 1800000000000, &found), GATE_CACHED_EXPIRED);
    /* The wall clock stepped back an hour: the key is good again, and the TTL was not touched. */
    assert_int_equal(find("one", 1000, 1799996400000, &found), GATE_CACHED_LIVE);
}

static void test_wall_steps_do_not_move_the_ttl(void **state)
{
    (void)state;
    const struct gate_identity identity = {.key = 1};
    struct gate_identity found;
    assert_true(put("one", &identity, 1000));
    assert_int_equal(find("one", 1001, 1800000000000 + 3600000, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", 1002, 1800000000000 - 3600000, &found), GATE_CACHED_LIVE);
    assert_int_equal(find("one", 1002 + TTL_MS, 1800000000000, &found), GATE_CACHED_STALE);
}

static void test_forgetting(void **state)
{
    (void)state;
    const struct gate_identity first = {.org = 1, .key = 1};
    const struct gate_identity second = {.org = 1, .key = 2};
    const struct gate_identity third = {.org = 2, .key = 3};
    struct gate_identity found;
    assert_true(put("one", &first, 1000));
    assert_true(put("two", &second, 1000));
    assert_true(put("three", &third, 1000));
    gate_cache_forget_key(cache, 1);
    assert_int_equal(find("one", 1000, 0, &found), GATE_CACHED_NONE);
    assert_int_equal(find("two", 1000, 0, &found), GATE_CACHED_LIVE);
    assert_true(put("one", &first, 1000));
    gate_cache_forget_org(cache, 1);
    assert_int_equal(find("one", 1000, 0, &found), GATE_CACHED_NONE);
    assert_int_equal(find("two", 1000, 0, &found), GATE_CACHED_NONE);
    assert_int_equal(find("three", 1000, 0, &found), GATE_CACHED_LIVE);
}

static void test_a_put_from_before_a_forget_is_refused(void **state)
{
    (void)state;
    const struct gate_identity identity = {.org = 1, .key = 1};
    struct gate_identity found;
    uint8_t digest[GATE_DIGEST_BYTES];
    digest_of("one", digest);
    uint64_t before = gate_cache_generation(cache);
    gate_cache_forget_key(cache, 1);
    assert_false(gate_cache_put(cache, digest, &identity, before, 1000));
    assert_int_equal(find("one", 1000, 0, &found), GATE_CACHED_NONE);
    assert_int_equal(table_count(cache->keys), 0);
    before = gate_cache_generation(cache);
    gate_cache_forget_org(cache, 77);
    assert_false(gate_cache_put(cache, digest, &identity, before, 1000));
    assert_true(gate_cache_put(cache, digest, &identity, gate_cache_generation(cache), 1000));
    assert_int_equal(find("one", 1000, 0, &found), GATE_CACHED_LIVE);
}

static void test_a_use_is_noted_once_a_minute(void **state)
{
    (void)state;
    const struct gate_identity identity = {.key = 1};
    struct gate_identity found;
    uint8_t digest[GATE_DIGEST_BYTES];
    uint32_t noted = 0;
    digest_of("one", digest);
    assert_true(put("one", &identity, 1000));
    for (uint64_t ms = 1000; ms <= 1000 + 5 * 60000; ms += 100) {
        bool must_note;
        assert_int_equal(
            gate_cache_find(cache, digest, (struct gate_now){.mono_ms = ms}, &found, &must_note),
            GATE_CACHED_LIVE);
        noted += must_note;
    }
    assert_int_equal(noted, 5);
}

static void test_what_was_refused_is_bounded(void **state)
{
    (void)state;
    uint8_t digest[GATE_DIGEST_BYTES];
    for (uint32_t i = 0; i < 100000; i++) {
        gate_cache_digest(cache, slice_make(&i, sizeof(i)), digest);
        gate_cache_refuse(cache, digest, 1000);
    }
    assert_true(table_count(cache->refused) <= 512);
    assert_true(gate_cache_is_refused(cache, digest, 1000));
    assert_true(gate_cache_is_refused(cache, digest, 1000 + GATE_REFUSED_KEPT_MS - 1));
    assert_false(gate_cache_is_refused(cache, digest, 1000 + GATE_REFUSED_KEPT_MS));
    digest[0] ^= 1;
    assert_false(gate_cache_is_refused(cache, digest, 1000));
}

/* --- forgetting against putting, on two threads
 * --------------------------------------------------- */

struct duel {
    uint8_t digest[GATE_DIGEST_BYTES];
    /* What the store says: whether the key is revoked. Written before the forget. */
    atomic_bool is_revoked;
    atomic_bool is_over;
};

/* As a verifier does: generation, row, put. */
static void *duel_put(void *context)
{
    const struct gate_identity identity = {.org = 1, .key = 1};
    struct duel *duel = context;
    while (!atomic_load(&duel->is_over)) {
        uint64_t generation = gate_cache_generation(cache);
        if (!atomic_load(&duel->is_revoked)) {
            (void)gate_cache_put(cache, duel->digest, &identity, generation, 1000);
        }
    }
    return NULL;
}

static void test_no_forgotten_key_is_found_while_another_thread_puts(void **state)
{
    (void)state;
    struct duel duel = {.is_over = false};
    struct gate_identity found;
    pthread_t thread;
    uint32_t seen = 0;
    digest_of("one", duel.digest);
    assert_int_equal(pthread_create(&thread, NULL, duel_put, &duel), 0);
    for (int round = 0; round < 2000; round++) {
        for (int look = 0; look < 100; look++) {
            seen += find("one", 1000, 0, &found) == GATE_CACHED_LIVE;
        }
        atomic_store(&duel.is_revoked, true);
        gate_cache_forget_key(cache, 1);
        for (int look = 0; look < 20; look++) {
            assert_int_equal(find("one", 1000, 0, &found), GATE_CACHED_NONE);
        }
        atomic_store(&duel.is_revoked, false);
    }
    while (find("one", 1000, 0, &found) != GATE_CACHED_LIVE) {
    }
    atomic_store(&duel.is_over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    print_message("found %u times between two forgets\n", seen);
}

static int open_cache(void **state)
{
    (void)state;
    const struct gate_cache_options options = {
        .entries_max = 1000, .refused_max = 512, .ttl_ms = TTL_MS};
    if (hash_start() != ERR_OK) {
        return 1;
    }
    cache = gate_cache_create(&options);
    return 0;
}

static int close_cache(void **state)
{
    (void)state;
    gate_cache_destroy(cache);
    return 0;
}

#define CACHE_TEST(name) cmocka_unit_test_setup_teardown(name, open_cache, close_cache)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CACHE_TEST(test_found_as_put),
        CACHE_TEST(test_a_digest_that_differs_in_its_second_half_is_not_the_key),
        CACHE_TEST(test_what_nobody_confirms_is_stale),
        CACHE_TEST(test_forget_all),
        CACHE_TEST(test_ttl_counts_from_last_use),
        CACHE_TEST(test_a_stale_key_is_served_a_while_when_extended),
        CACHE_TEST(test_expiry_is_by_the_wall_clock_and_exact),
        CACHE_TEST(test_wall_steps_do_not_move_the_ttl),
        CACHE_TEST(test_forgetting),
        CACHE_TEST(test_a_put_from_before_a_forget_is_refused),
        CACHE_TEST(test_a_use_is_noted_once_a_minute),
        CACHE_TEST(test_what_was_refused_is_bounded),
        CACHE_TEST(test_no_forgotten_key_is_found_while_another_thread_puts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
