/* Gate: opening and closing, and the check as a loop sees it.
 *
 *   not a key's shape ---------------------------------------------> denied
 *   digest -> cache: LIVE ------------------------------------------> OK
 *                    EXPIRED ---------------------------------------> denied
 *                    STALE ------------------------------> verifier
 *                    none -> tag wrong -----------------------------> denied
 *                         -> refused a short while ago -------------> denied
 *                         -> verifier
 *   verifier: WAIT; its mailbox is full: BUSY (STALE: OK)
 *
 * The cache stands before the tag because a good key is the common case, and a digest is all it
 * takes.
 *
 * Happy path: one SipHash, one look in a table.
 * Failure modes: open: the store does not give the tag key, or a setting is out of range; the
 * detail says which. */
#include <assert.h>
#include <sodium.h>
#include <stddef.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/table.h"
#include "gate/gate_private.h"
#include "gate/limits.h"
#include "gate/secret.h"
#include "gate/shared.h"
#include "gate/verify.h"
#include "store/store.h"

/* --- opening and closing
 * -------------------------------------------------------------------------- */

struct tag_key_job {
    struct store_job job;
    uint8_t *to;
};

static enum err tag_key_insert(struct store_connection *connection, struct slice value)
{
    struct store_statement *statement;
    enum err err = store_prepare(
        connection, "INSERT INTO secrets (name, value) VALUES ('gate.tag_key', $1)", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, value);
    return store_execute(statement);
}

static enum err tag_key_run(struct store_job *job, struct store_connection *connection)
{
    struct tag_key_job *self = (struct tag_key_job *)(void *)job;
    struct store_statement *statement;
    bool is_row = false;
    enum err err = store_prepare(
        connection, "SELECT value FROM secrets WHERE name = 'gate.tag_key'", &statement);
    if (err == ERR_OK) {
        err = store_step(statement, &is_row);
    }
    if (err != ERR_OK) {
        return err;
    }
    if (!is_row) {
        hash_random(self->to, GATE_TAG_KEY_BYTES);
        return tag_key_insert(connection, slice_make(self->to, GATE_TAG_KEY_BYTES));
    }
    struct slice value = store_column_bytes(statement, 0);
    if (value.size == GATE_TAG_KEY_BYTES) {
        memcpy(self->to, value.data, GATE_TAG_KEY_BYTES);
    } else {
        err = ERR_CORRUPT;
    }
    store_reset(statement);
    return err;
}

static_assert(offsetof(struct tag_key_job, job) == 0, "a job is its first member");

static enum err tag_key_open(struct gate *gate, const uint8_t *given, struct err_detail *detail)
{
    if (given != NULL) {
        memcpy(gate->tag_key, given, sizeof(gate->tag_key));
        return ERR_OK;
    }
    struct tag_key_job self = {
        .job = {.priority = STORE_CONTROL, .durable = true, .run = tag_key_run},
        .to = gate->tag_key};
    enum err err = store_run_here(gate->options.store, &self.job);
    if (err != ERR_OK) {
        err_detail_set(detail, "read the key of keys' tags from the store: %s", err_text(err));
    }
    return err;
}

static enum err options_check(const struct gate_options *options, struct err_detail *detail)
{
    if (options->argon2_memory_kib < crypto_pwhash_argon2id_MEMLIMIT_MIN / 1024u ||
        options->argon2_passes < crypto_pwhash_argon2id_OPSLIMIT_MIN) {
        err_detail_set(detail, "Argon2id needs at least %u KiB and 1 pass",
                       (unsigned)(crypto_pwhash_argon2id_MEMLIMIT_MIN / 1024u));
        return ERR_CONFIG;
    }
    if (options->cache_entries == 0 || options->verifier_count == 0 ||
        options->verify_queue_max == 0) {
        err_detail_set(detail, "the key cache, the verifiers and their queue must not be 0");
        return ERR_CONFIG;
    }
    return ERR_OK;
}

enum err gate_open(struct gate **ret, const struct gate_options *options, struct err_detail *detail)
{
    struct gate *gate = NULL;
    enum err err = options_check(options, detail);
    if (err != ERR_OK) {
        goto out;
    }
    gate = mem_alloc(sizeof(*gate));
    gate->options = *options;
    gate->options.tag_key = NULL;
    struct gate_cache_options cache_options = {.entries_max = options->cache_entries,
                                               .refused_max = LIMIT_KEYS_REFUSED,
                                               .ttl_ms = options->cache_ttl_s * 1000u};
    gate->cache = gate_cache_create(&cache_options);
    gate->ledger = gate_ledger_create(options->store, options->cache_entries);
    gate->windows = gate_limits_create();
    gate->verifiers = mem_alloc_array(options->verifier_count, sizeof(struct gate_verifier *));
    for (uint32_t i = 0; i < options->verifier_count && err == ERR_OK; i++) {
        err = gate_verify_create(&gate->verifiers[i], gate, i);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "make a verifier: %s", err_text(err));
        goto out;
    }
    err = tag_key_open(gate, options->tag_key, detail);
    if (err != ERR_OK) {
        goto out;
    }
    *ret = gate;
    gate = NULL;
out:
    gate_close(gate);
    return err;
}

void *gate_verifier(struct gate *gate, uint32_t index)
{
    assert(index < gate->options.verifier_count);
    return gate->verifiers[index];
}

enum err gate_share(struct gate *gate, struct slice redis_url, struct err_detail *detail)
{
    struct gate_shared *shared = NULL;
    enum err err = gate_shared_create(&shared, redis_url, detail);
    if (err != ERR_OK) {
        return err;
    }
    err = gate_shared_connect(shared, detail);
    if (err == ERR_CONFIG || err == ERR_PERMISSION) {
        gate_shared_destroy(shared);
        return err;
    }
    gate->shared = shared;
    return ERR_OK;
}

void gate_share_run(void *gate)
{
    gate_shared_run(((struct gate *)gate)->shared);
}

bool gate_is_shared(const struct gate *gate)
{
    return gate->shared != NULL;
}

enum err gate_share_health(const struct gate *gate)
{
    return gate->shared == NULL ? ERR_OK : gate_shared_health(gate->shared);
}

void gate_stop(struct gate *gate)
{
    if (gate->shared != NULL) {
        gate_shared_stop(gate->shared);
    }
    for (uint32_t i = 0; i < gate->options.verifier_count; i++) {
        gate_verify_stop(gate->verifiers[i]);
    }
}

void gate_close(struct gate *gate)
{
    if (gate == NULL) {
        return;
    }
    for (uint32_t i = 0; i < gate->options.verifier_count; i++) {
        gate_verify_destroy(gate->verifiers[i]);
    }
    mem_free(gate->verifiers);
    gate_cache_destroy(gate->cache);
    gate_ledger_destroy(gate->ledger);
    table_destroy(gate->windows);
    gate_shared_destroy(gate->shared);
    sodium_memzero(gate->tag_key, sizeof(gate->tag_key));
    mem_free(gate);
}

/* --- the check
 * ------------------------------------------------------------------------------------ */

struct check {
    struct gate *gate;
    struct slice key;
    struct gate_key_text parts; /* empty when the key has not the shape of one */
    struct slice address;
    struct gate_now now;
    uint64_t started_ns;
    uint8_t digest[GATE_DIGEST_BYTES];
};

static enum gate_check check_deny(const struct check *check)
{
    metrics_add(METRIC_AUTH_FAILED, 1);
    gate_ledger_failed(check->gate->ledger, check->parts.id, check->address, check->now.wall_ms);
    return GATE_CHECK_DENIED;
}

static enum gate_check check_post(const struct check *check, struct gate_waiter *waiter)
{
    struct slice address = slice_part(check->address, 0, sizeof(waiter->address));
    waiter->gate = check->gate;
    waiter->started_ns = check->started_ns;
    memcpy(waiter->digest, check->digest, sizeof(waiter->digest));
    memcpy(waiter->key, check->key.data, check->key.size);
    waiter->address_size = (uint8_t)address.size;
    if (address.size > 0) {
        memcpy(waiter->address, address.data, address.size);
    }
    return gate_verify_post(check->gate, waiter) == ERR_OK ? GATE_CHECK_WAIT : GATE_CHECK_BUSY;
}

static enum gate_check check_cold(const struct check *check, struct gate_waiter *waiter)
{
    struct gate *gate = check->gate;
    if (!gate_key_text_tag_is_right(gate->tag_key, &check->parts)) {
        return check_deny(check);
    }
    if (gate_cache_is_refused(gate->cache, check->digest, check->now.mono_ms)) {
        metrics_add(METRIC_CACHE_KEY_NEGATIVE, 1);
        return check_deny(check);
    }
    metrics_add(METRIC_CACHE_KEY_MISS, 1);
    return check_post(check, waiter);
}

static enum gate_check check_shaped(struct check *check, struct gate_waiter *waiter,
                                    struct gate_identity *ret)
{
    struct gate *gate = check->gate;
    struct gate_identity identity;
    bool must_note;
    gate_cache_digest(gate->cache, check->key, check->digest);
    switch (gate_cache_find(gate->cache, check->digest, check->now, &identity, &must_note)) {
    case GATE_CACHED_LIVE:
        metrics_add(METRIC_CACHE_KEY_HIT, 1);
        if (must_note) {
            gate_ledger_used(gate->ledger, identity.key, check->now.wall_ms);
        }
        *ret = identity;
        return GATE_CHECK_OK;
    case GATE_CACHED_STALE:
        metrics_add(METRIC_CACHE_KEY_MISS, 1);
        if (check_post(check, waiter) == GATE_CHECK_WAIT) {
            return GATE_CHECK_WAIT;
        }
        *ret = identity;
        return GATE_CHECK_OK;
    case GATE_CACHED_EXPIRED:
        metrics_add(METRIC_CACHE_KEY_NEGATIVE, 1);
        return check_deny(check);
    case GATE_CACHED_NONE:
        break;
    }
    return check_cold(check, waiter);
}

enum gate_check gate_check(struct gate *gate, struct slice key, struct slice address,
                           struct gate_waiter *waiter, struct gate_identity *ret)
{
    uint64_t started_ns = clock_mono_ns();
    struct check check = {
        .gate = gate,
        .key = key,
        .address = address,
        .now = {.mono_ms = started_ns / 1000000u, .wall_ms = clock_wall_ms()},
        .started_ns = started_ns,
    };
    enum gate_check result = gate_key_text_parse(key, &check.parts)
                                 ? check_shaped(&check, waiter, ret)
                                 : check_deny(&check);
    if (result != GATE_CHECK_WAIT) {
        metrics_observe(METRIC_AUTH_LATENCY, clock_mono_ns() - started_ns);
    }
    return result;
}

void gate_forget_key(struct gate *gate, uint64_t key)
{
    gate_cache_forget_key(gate->cache, key);
}

void gate_forget_org(struct gate *gate, uint64_t org)
{
    gate_cache_forget_org(gate->cache, org);
}

void gate_forget_all(struct gate *gate)
{
    gate_cache_forget_all(gate->cache);
}

void gate_forget_refused(struct gate *gate)
{
    gate_cache_forget_refused(gate->cache);
}

void gate_current(struct gate *gate, uint64_t mono_ms)
{
    gate_cache_current(gate->cache, mono_ms);
}

enum err gate_key_prepare(struct gate *gate, struct gate_new_key *ret)
{
    struct gate_new_key key = {0};
    struct gate_key_text parts = {0};
    gate_key_text_make(gate->tag_key, key.text);
    bool is_key = gate_key_text_parse(slice_from_text(key.text), &parts);
    assert(is_key);
    memcpy(key.id, parts.id.data, parts.id.size);
    enum err err = gate_secret_hash(parts.secret, gate->options.argon2_passes,
                                    gate->options.argon2_memory_kib, key.hash);
    if (err == ERR_OK) {
        *ret = key;
    }
    sodium_memzero(&key, sizeof(key));
    return err;
}
