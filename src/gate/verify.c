/* Verify.
 *
 * Waiters go to one of the verifiers by the digest of their key, so all who bring the same key meet
 * in the same place, and single flight needs no lock: a verifier files each waiter with the flight
 * of its key.
 *
 *   FREE --first waiter--> READING --row came--> READY --Argon2id--> answered: FREE
 *                             ^  '--no row, revoked, expired, or proven before--> FREE
 *                             '------ something was forgotten meanwhile ------'
 *
 * READING: a job at the store's readers; the verifier goes on. READY: waits for its turn on this
 * thread. Between two runs of Argon2id the verifier takes its mail, so whoever came meanwhile joins
 * a flight, and whoever came after its end finds the cache filled.
 *
 * A flight remembers the cache's generation from before it asked for the row. If a key was
 * forgotten since, the cache does not take the result, and the row is read again; the secret is not
 * checked again. So a check that overlaps a revocation is refused.
 *
 * Happy path: post, file, read the row, Argon2id, put in the cache, answer all.
 * Failure modes: more flights than the queue holds, or the readers' queue is full: ERR_BUSY. The
 * store is away: ERR_AWAY, or, for a key whose entry is only past its TTL, the entry. No memory for
 * Argon2id: ERR_BUSY. gate_stop: ERR_DRAINING. */
#include "gate/verify.h"

#include <assert.h>
#include <sodium.h>
#include <stddef.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/list.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "gate/gate_private.h"
#include "gate/secret.h"
#include "store/store.h"

#define LEDGER_WRITE_EACH_MS 10000u

enum flight_state { FLIGHT_FREE, FLIGHT_READING, FLIGHT_READY };

struct flight {
    struct list_link link; /* of `free`, or of `open` in the order of arrival */
    enum flight_state state;
    struct gate_verifier *verifier;
    struct gate_waiter *waiters; /* linked by their mails' next */
    uint8_t digest[GATE_DIGEST_BYTES];
    uint8_t key[GATE_KEY_CHARS]; /* wiped at the end */
    uint64_t proven_key;         /* number of the key that the secret was proven for; 0: none yet */
    uint64_t generation;         /* of the cache, from before the row was read */
    struct store_job job;
    struct gate_key_found found; /* the reader's while READING */
};

struct gate_verifier {
    struct gate *gate;
    uint32_t index;
    struct mailbox *mailbox;
    struct flight *flights;
    struct list free;
    struct list open;
    uint64_t ledger_due_ms; /* monotonic; the first verifier's alone */
};

/* --- the decision -------------------------------------------------------------------------------
 */

enum gate_verify_next gate_verify_step(enum err err, const struct gate_key_found *found,
                                       uint64_t proven_key, int64_t wall_ms)
{
    if (err == ERR_NOT_FOUND) {
        return GATE_VERIFY_REFUSE;
    }
    if (err != ERR_OK) {
        return GATE_VERIFY_PUT_OFF;
    }
    int64_t expires_ms = found->identity.expires_ms;
    if (found->revoked_ms != 0 || (expires_ms != 0 && wall_ms >= expires_ms)) {
        return GATE_VERIFY_REFUSE;
    }
    return proven_key == found->identity.key ? GATE_VERIFY_ADMIT : GATE_VERIFY_CHECK;
}

/* --- answers ------------------------------------------------------------------------------------
 */

static struct gate_waiter *waiter_of_mail(struct mail *mail)
{
    return (struct gate_waiter *)(void *)((char *)mail - offsetof(struct gate_waiter, mail));
}

/* On the thread that asked. */
static void waiter_on_answer(struct mail *mail)
{
    struct gate_waiter *waiter = waiter_of_mail(mail);
    metrics_observe(METRIC_AUTH_LATENCY, clock_mono_ns() - waiter->started_ns);
    waiter->on_checked(waiter, waiter->err, &waiter->identity);
}

/* After this the waiter belongs to its thread. */
static void waiter_answer(struct gate_waiter *waiter, enum err err,
                          const struct gate_identity *identity)
{
    if (err == ERR_UNAUTHORIZED) {
        struct slice id = slice_make(waiter->key + GATE_KEY_PREFIX_CHARS, GATE_KEY_ID_CHARS);
        struct slice address = slice_make(waiter->address, waiter->address_size);
        metrics_add(METRIC_AUTH_FAILED, 1);
        gate_ledger_failed(waiter->gate->ledger, id, address, clock_wall_ms());
    }
    waiter->err = err;
    if (err == ERR_OK) {
        waiter->identity = *identity;
    }
    sodium_memzero(waiter->key, sizeof(waiter->key));
    waiter->mail.on_arrive = waiter_on_answer;
    mailbox_answer(waiter->reply_to, &waiter->mail);
}

/* A key that could not be checked is served from its entry if it has one. */
static enum err put_off(struct gate_verifier *verifier, const uint8_t *digest, enum err err,
                        struct gate_identity *ret_identity)
{
    struct gate_now now = {.mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms()};
    struct gate_cache *cache = verifier->gate->cache;
    bool must_note;
    switch (gate_cache_find(cache, digest, now, ret_identity, &must_note)) {
    case GATE_CACHED_LIVE:
        return ERR_OK;
    case GATE_CACHED_STALE:
        gate_cache_extend(cache, digest, now.mono_ms);
        return ERR_OK;
    case GATE_CACHED_EXPIRED:
        return ERR_UNAUTHORIZED;
    case GATE_CACHED_NONE:
        break;
    }
    return err;
}

static void flight_finish(struct flight *flight, enum err err)
{
    struct gate_waiter *waiter = flight->waiters;
    while (waiter != NULL) {
        struct mail *next = waiter->mail.next;
        waiter_answer(waiter, err, &flight->found.identity);
        waiter = next == NULL ? NULL : waiter_of_mail(next);
    }
    flight->waiters = NULL;
    sodium_memzero(flight->key, sizeof(flight->key));
    flight->state = FLIGHT_FREE;
    list_remove(&flight->link);
    list_push_back(&flight->verifier->free, &flight->link);
}

static void flight_put_off(struct flight *flight, enum err err)
{
    enum err result = put_off(flight->verifier, flight->digest, err, &flight->found.identity);
    flight_finish(flight, result);
}

/* --- flights ------------------------------------------------------------------------------------
 */

static struct slice flight_secret(const struct flight *flight)
{
    return slice_part(slice_make(flight->key, sizeof(flight->key)),
                      GATE_KEY_PREFIX_CHARS + GATE_KEY_ID_CHARS + 1, sizeof(flight->key));
}

static struct flight *flight_of_job(struct store_job *job)
{
    return (struct flight *)(void *)((char *)job - offsetof(struct flight, job));
}

static enum err flight_run(struct store_job *job, struct store_connection *connection)
{
    struct flight *flight = flight_of_job(job);
    struct slice id = slice_make(flight->key + GATE_KEY_PREFIX_CHARS, GATE_KEY_ID_CHARS);
    return gate_key_load(connection, id, flight->verifier->gate->options.mb_per_hour,
                         &flight->found);
}

static void flight_on_read(struct store_job *job);

static void flight_read(struct flight *flight)
{
    struct gate *gate = flight->verifier->gate;
    flight->state = FLIGHT_READING;
    flight->generation = gate_cache_generation(gate->cache);
    flight->job = (struct store_job){
        .run = flight_run, .on_done = flight_on_read, .reply_to = flight->verifier->mailbox};
    enum err err = store_post_read(gate->options.store, &flight->job);
    if (err != ERR_OK) {
        flight_put_off(flight, err == ERR_FULL ? ERR_BUSY : ERR_AWAY);
    }
}

static void flight_admit(struct flight *flight)
{
    struct gate *gate = flight->verifier->gate;
    const struct gate_identity *identity = &flight->found.identity;
    if (!gate_cache_put(gate->cache, flight->digest, identity, flight->generation,
                        clock_mono_ms())) {
        flight->proven_key = identity->key;
        flight_read(flight);
        return;
    }
    gate_ledger_used(gate->ledger, identity->key, clock_wall_ms());
    flight_finish(flight, ERR_OK);
}

static void flight_refuse(struct flight *flight)
{
    gate_cache_refuse(flight->verifier->gate->cache, flight->digest, clock_mono_ms());
    flight_finish(flight, ERR_UNAUTHORIZED);
}

static void flight_on_read(struct store_job *job)
{
    struct flight *flight = flight_of_job(job);
    assert(flight->state == FLIGHT_READING);
    switch (gate_verify_step(job->err, &flight->found, flight->proven_key, clock_wall_ms())) {
    case GATE_VERIFY_ADMIT:
        flight_admit(flight);
        break;
    case GATE_VERIFY_REFUSE:
        flight_refuse(flight);
        break;
    case GATE_VERIFY_CHECK:
        flight->state = FLIGHT_READY;
        break;
    case GATE_VERIFY_PUT_OFF:
        flight_put_off(flight, ERR_AWAY);
        break;
    }
}

static void flight_check(struct flight *flight)
{
    metrics_add(METRIC_AUTH_VERIFIED, 1);
    enum err err = gate_secret_check(flight->found.hash, flight_secret(flight));
    if (err == ERR_OK) {
        flight_admit(flight);
    } else if (err == ERR_UNAUTHORIZED) {
        flight_refuse(flight);
    } else {
        flight_put_off(flight, ERR_BUSY);
    }
}

static struct flight *flight_find(struct gate_verifier *verifier, const uint8_t *digest)
{
    struct list_link *link = list_first(&verifier->open);
    while (link != NULL) {
        struct flight *flight = LIST_CONTAINER(link, struct flight, link);
        if (hash_equal_constant_time(flight->digest, digest, GATE_DIGEST_BYTES)) {
            return flight;
        }
        link = list_after(&verifier->open, link);
    }
    return NULL;
}

/* --- waiters ------------------------------------------------------------------------------------
 */

static void waiter_start_flight(struct gate_verifier *verifier, struct gate_waiter *waiter,
                                uint64_t proven_key)
{
    struct list_link *link = list_take_first(&verifier->free);
    if (link == NULL) {
        struct gate_identity identity;
        enum err err = put_off(verifier, waiter->digest, ERR_BUSY, &identity);
        waiter_answer(waiter, err, &identity);
        return;
    }
    struct flight *flight = LIST_CONTAINER(link, struct flight, link);
    list_push_back(&verifier->open, &flight->link);
    memcpy(flight->digest, waiter->digest, sizeof(flight->digest));
    memcpy(flight->key, waiter->key, sizeof(flight->key));
    flight->proven_key = proven_key;
    flight->waiters = waiter;
    flight_read(flight);
}

/* On the verifier's thread. */
static void waiter_on_post(struct mail *mail)
{
    struct gate_waiter *waiter = waiter_of_mail(mail);
    struct gate *gate = waiter->gate;
    struct gate_verifier *verifier =
        gate->verifiers[waiter->digest[0] % gate->options.verifier_count];
    struct gate_now now = {.mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms()};
    struct gate_identity identity = {0};
    bool must_note;
    enum gate_cached cached =
        gate_cache_find(gate->cache, waiter->digest, now, &identity, &must_note);
    if (must_note) {
        gate_ledger_used(gate->ledger, identity.key, now.wall_ms);
    }
    if (cached == GATE_CACHED_LIVE) {
        waiter_answer(waiter, ERR_OK, &identity);
        return;
    }
    if (cached == GATE_CACHED_EXPIRED ||
        gate_cache_is_refused(gate->cache, waiter->digest, now.mono_ms)) {
        waiter_answer(waiter, ERR_UNAUTHORIZED, NULL);
        return;
    }
    struct flight *flight = flight_find(verifier, waiter->digest);
    if (flight != NULL) {
        waiter->mail.next = &flight->waiters->mail;
        flight->waiters = waiter;
        return;
    }
    waiter_start_flight(verifier, waiter, cached == GATE_CACHED_STALE ? identity.key : 0);
}

enum err gate_verify_post(struct gate *gate, struct gate_waiter *waiter)
{
    struct gate_verifier *verifier =
        gate->verifiers[waiter->digest[0] % gate->options.verifier_count];
    waiter->mail = (struct mail){.on_arrive = waiter_on_post};
    return mailbox_post(verifier->mailbox, &waiter->mail);
}

/* --- the thread ---------------------------------------------------------------------------------
 */

/* The flight that came first among those whose secret is to be checked; NULL when there is none. */
static struct flight *flight_next_ready(struct gate_verifier *verifier)
{
    struct list_link *link = list_first(&verifier->open);
    while (link != NULL) {
        struct flight *flight = LIST_CONTAINER(link, struct flight, link);
        if (flight->state == FLIGHT_READY) {
            return flight;
        }
        link = list_after(&verifier->open, link);
    }
    return NULL;
}

/* Milliseconds to sleep at most; -1: no limit. */
static int ledger_turn(struct gate_verifier *verifier)
{
    if (verifier->index != 0) {
        return -1;
    }
    uint64_t now_ms = clock_mono_ms();
    if (now_ms >= verifier->ledger_due_ms) {
        gate_ledger_write(verifier->gate->ledger, verifier->mailbox);
        verifier->ledger_due_ms = now_ms + LEDGER_WRITE_EACH_MS;
    }
    return (int)(verifier->ledger_due_ms - now_ms);
}

static void wait_and_run(struct gate_verifier *verifier, int timeout_ms)
{
    mailbox_wait(verifier->mailbox, timeout_ms);
    (void)mailbox_run_all(verifier->mailbox);
}

/* Everybody is answered, and what was counted is written as far as the store takes it. */
static void verifier_drain(struct gate_verifier *verifier)
{
    struct gate_ledger *ledger = verifier->gate->ledger;
    (void)mailbox_run_all(verifier->mailbox);
    while (!list_is_empty(&verifier->open)) {
        struct flight *flight = flight_next_ready(verifier);
        if (flight != NULL) {
            flight_finish(flight, ERR_DRAINING);
        } else {
            wait_and_run(verifier, -1);
        }
    }
    if (verifier->index != 0) {
        return;
    }
    while (gate_ledger_is_writing(ledger)) {
        wait_and_run(verifier, -1);
    }
    gate_ledger_write(ledger, verifier->mailbox);
    while (gate_ledger_is_writing(ledger)) {
        wait_and_run(verifier, -1);
    }
}

void gate_verifier_run(void *argument)
{
    struct gate_verifier *verifier = argument;
    while (!mailbox_is_closed(verifier->mailbox)) {
        struct flight *flight = flight_next_ready(verifier);
        if (flight != NULL) {
            flight_check(flight);
            (void)mailbox_run_all(verifier->mailbox);
        } else {
            wait_and_run(verifier, ledger_turn(verifier));
        }
    }
    verifier_drain(verifier);
}

enum err gate_verify_create(struct gate_verifier **ret, struct gate *gate, uint32_t index)
{
    const struct gate_options *options = &gate->options;
    uint32_t flight_max =
        (options->verify_queue_max + options->verifier_count - 1) / options->verifier_count;
    struct mailbox *mailbox;
    enum err err = mailbox_create(&mailbox, LIMIT_KEY_WAITERS);
    if (err != ERR_OK) {
        return err;
    }
    struct gate_verifier *verifier = mem_alloc(sizeof(*verifier));
    verifier->gate = gate;
    verifier->index = index;
    verifier->mailbox = mailbox;
    verifier->flights = mem_alloc_array(flight_max, sizeof(*verifier->flights));
    verifier->ledger_due_ms = clock_mono_ms() + LEDGER_WRITE_EACH_MS;
    list_init(&verifier->free);
    list_init(&verifier->open);
    for (uint32_t i = 0; i < flight_max; i++) {
        verifier->flights[i].verifier = verifier;
        list_push_back(&verifier->free, &verifier->flights[i].link);
    }
    *ret = verifier;
    return ERR_OK;
}

void gate_verify_destroy(struct gate_verifier *verifier)
{
    if (verifier == NULL) {
        return;
    }
    assert(list_is_empty(&verifier->open));
    mailbox_destroy(verifier->mailbox);
    mem_free(verifier->flights);
    mem_free(verifier);
}

void gate_verify_stop(struct gate_verifier *verifier)
{
    mailbox_close(verifier->mailbox);
}
