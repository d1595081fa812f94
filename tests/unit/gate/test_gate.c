/* Promise: a key of ours comes in, at the cost of one Argon2id however many ask at once; what is
 * not one, or no longer one, does not, at the least cost that tells it apart; and a store that is
 * away does not shut out who is known. link: gate_fixture.c store_fixture.c clock_shift.c */
#include "support/clock_shift.h"
#include "support/gate_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "gate/key_text.h"

static uint64_t argon2_runs(void)
{
    return metrics_total(METRIC_AUTH_VERIFIED);
}

static void test_a_good_key_costs_one_argon2id(void **state)
{
    struct gate_fixture *fixture = *state;
    const struct gate_key_options options = {
        .org = 2, .scopes = GATE_READ | GATE_WRITE, .requests_per_minute = 7, .mb_per_hour = 8};
    struct gate_new_key key;
    struct gate_asked asked;
    uint64_t number = gate_fixture_key(fixture, 2, &key, &options);
    uint64_t before = argon2_runs();
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    assert_true(asked.has_waited);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
        assert_false(asked.has_waited);
    }
    assert_int_equal(argon2_runs() - before, 1);
    assert_int_equal(asked.identity.org, 2);
    assert_int_equal(asked.identity.key, number);
    assert_int_equal(asked.identity.scopes, GATE_READ | GATE_WRITE);
    assert_int_equal(asked.identity.requests_per_minute, 0); /* the fixture's orgs are unlimited */
    assert_int_equal(asked.identity.key_requests_per_minute, 7);
    assert_int_equal(asked.identity.key_mb_per_hour, 8);
    /* The fixture's id key: 32 digits of the org's number. */
    assert_memory_equal(asked.identity.id_key, "00000000000000000000000000000002", 32);
}

static void test_a_made_up_key_costs_nothing(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    uint64_t before = argon2_runs();
    for (size_t i = 22; i < GATE_KEY_CHARS; i++) {
        char text[GATE_KEY_TEXT_MAX];
        memcpy(text, key.text, sizeof(text));
        text[i] = text[i] == 'x' ? 'y' : 'x';
        assert_int_equal(gate_fixture_ask(fixture, text, &asked), ERR_UNAUTHORIZED);
        assert_false(asked.has_waited);
    }
    assert_int_equal(gate_fixture_ask(fixture, "", &asked), ERR_UNAUTHORIZED);
    assert_int_equal(gate_fixture_ask(fixture, "weir_", &asked), ERR_UNAUTHORIZED);
    assert_int_equal(argon2_runs(), before);
}

static void test_an_id_that_no_row_has(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    uint64_t before = argon2_runs();
    assert_int_equal(gate_key_prepare(fixture->gate, &key), ERR_OK); /* and not inserted */
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
    assert_true(asked.has_waited);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
    assert_false(asked.has_waited);
    assert_int_equal(argon2_runs(), before);
}

static void test_a_wrong_secret_costs_one_argon2id(void **state)
{
    struct gate_fixture *fixture = *state;
    const struct gate_key_options options = {.org = 1, .scopes = GATE_ALL};
    struct gate_new_key key;
    struct gate_new_key other;
    struct gate_asked asked;
    uint64_t before = argon2_runs();
    assert_int_equal(gate_key_prepare(fixture->gate, &key), ERR_OK);
    assert_int_equal(gate_key_prepare(fixture->gate, &other), ERR_OK);
    memcpy(key.hash, other.hash, sizeof(key.hash));
    (void)gate_fixture_insert(fixture, &key, &options);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
        assert_int_equal(asked.has_waited, i == 0);
    }
    assert_int_equal(argon2_runs() - before, 1);
}

/* All are posted before the verifier starts, so that they meet. */
static void test_a_hundred_waiters_cost_one_argon2id(void **state)
{
    static struct gate_asked asked[100];
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    uint64_t before = argon2_runs();
    for (int i = 0; i < 100; i++) {
        gate_fixture_post(fixture, key.text, &asked[i]);
        assert_true(asked[i].has_waited);
    }
    gate_fixture_start(fixture);
    for (int i = 0; i < 100; i++) {
        gate_fixture_wait(fixture, &asked[i]);
        assert_int_equal(asked[i].err, ERR_OK);
        assert_int_equal(asked[i].identity.org, 1);
    }
    assert_int_equal(argon2_runs() - before, 1);
}

static void test_a_full_queue_is_busy_and_no_more_than_that(void **state)
{
    static struct gate_asked asked[6];
    struct gate_fixture *fixture = *state;
    struct gate_options options = gate_fixture_options(fixture);
    struct gate_new_key keys[3];
    struct gate_asked again;
    gate_fixture_close(fixture);
    options.verify_queue_max = 2;
    gate_fixture_open(fixture, &options);
    for (int i = 0; i < 3; i++) {
        (void)gate_fixture_key(fixture, 1, &keys[i], NULL);
    }
    for (int i = 0; i < 6; i++) {
        gate_fixture_post(fixture, keys[i % 3].text, &asked[i]);
    }
    gate_fixture_start(fixture);
    for (int i = 0; i < 6; i++) {
        gate_fixture_wait(fixture, &asked[i]);
        assert_int_equal(asked[i].err, i % 3 < 2 ? ERR_OK : ERR_BUSY);
    }
    /* Busy is not refused: the next one comes in. */
    assert_int_equal(gate_fixture_ask(fixture, keys[2].text, &again), ERR_OK);
}

struct revoke {
    const char *id;
    uint64_t number;
};

static enum err run_revoke(struct store_connection *connection, void *context)
{
    struct revoke *revoke = context;
    return gate_key_revoke(connection, 0, slice_from_text(revoke->id), &revoke->number);
}

static uint64_t revoke(struct gate_fixture *fixture, const struct gate_new_key *key)
{
    struct revoke revoke = {.id = key->id};
    assert_int_equal(store_fixture_run(&fixture->store, run_revoke, &revoke), ERR_OK);
    return revoke.number;
}

static void test_a_revoked_key_dies_at_once(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_new_key other;
    struct gate_asked asked;
    uint64_t number = gate_fixture_key(fixture, 1, &key, NULL);
    (void)gate_fixture_key(fixture, 1, &other, NULL);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    assert_int_equal(gate_fixture_ask(fixture, other.text, &asked), ERR_OK);
    assert_int_equal(revoke(fixture, &key), number);
    gate_forget_key(fixture->gate, number);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
    assert_int_equal(gate_fixture_ask(fixture, other.text, &asked), ERR_OK);
    assert_false(asked.has_waited);
}

static void test_a_forgotten_org_is_read_again(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    assert_int_equal(asked.identity.requests_per_minute, 0);
    assert_int_equal(
        store_fixture_sql(&fixture->store, "UPDATE orgs SET tier = 'free', mb_per_hour = 5"),
        ERR_OK);
    gate_forget_org(fixture->gate, 1);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    assert_int_equal(asked.identity.requests_per_minute, 100);
    assert_int_equal(asked.identity.mb_per_hour, 5);
}

#define EXPIRY_MS 100000 /* within the TTL of a cache's entry, beyond what a test takes */

static void pass_expiry(void)
{
    clock_shift_ns += EXPIRY_MS * UINT64_C(1000000);
}

static void test_a_key_expires(void **state)
{
    struct gate_fixture *fixture = *state;
    const struct gate_key_options past = {
        .org = 1, .scopes = GATE_ALL, .expires_ms = clock_wall_ms() - 1};
    const struct gate_key_options soon = {
        .org = 1, .scopes = GATE_ALL, .expires_ms = clock_wall_ms() + EXPIRY_MS};
    struct gate_new_key key;
    struct gate_asked asked;
    (void)gate_fixture_key(fixture, 1, &key, &past);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
    (void)gate_fixture_key(fixture, 1, &key, &soon);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    assert_false(asked.has_waited); /* from the cache, which must see it expire too */
    pass_expiry();
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
}

static void open_with_ttl_0(struct gate_fixture *fixture)
{
    struct gate_options options = gate_fixture_options(fixture);
    gate_fixture_close(fixture);
    options.cache_ttl_s = 0;
    gate_fixture_open(fixture, &options);
    gate_fixture_start(fixture);
}

static void test_past_its_ttl_a_key_is_confirmed_without_argon2id(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    open_with_ttl_0(fixture);
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    uint64_t before = argon2_runs();
    assert_int_equal(gate_fixture_ask_stale(fixture, key.text, &asked), ERR_OK);
    assert_int_equal(argon2_runs(), before);
    /* Revoked by somebody who does not tell this process. */
    (void)revoke(fixture, &key);
    assert_int_equal(gate_fixture_ask_stale(fixture, key.text, &asked), ERR_UNAUTHORIZED);
}

/* Without its table the store cannot answer. */
static void store_leaves(struct gate_fixture *fixture)
{
    assert_int_equal(store_fixture_sql(&fixture->store, "ALTER TABLE keys RENAME TO keys_away"),
                     ERR_OK);
}

static void store_returns(struct gate_fixture *fixture)
{
    assert_int_equal(store_fixture_sql(&fixture->store, "ALTER TABLE keys_away RENAME TO keys"),
                     ERR_OK);
}

static void test_with_the_store_away_a_known_key_is_served(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key known;
    struct gate_new_key cold;
    struct gate_asked asked;
    open_with_ttl_0(fixture);
    (void)gate_fixture_key(fixture, 1, &known, NULL);
    (void)gate_fixture_key(fixture, 1, &cold, NULL);
    assert_int_equal(gate_fixture_ask(fixture, known.text, &asked), ERR_OK);
    store_leaves(fixture);
    assert_int_equal(gate_fixture_ask_stale(fixture, known.text, &asked), ERR_OK);
    assert_int_equal(asked.identity.org, 1);
    /* The store is not asked again at every request. */
    assert_int_equal(gate_fixture_ask(fixture, known.text, &asked), ERR_OK);
    assert_false(asked.has_waited);
    assert_int_equal(gate_fixture_ask(fixture, cold.text, &asked), ERR_AWAY);
    store_returns(fixture);
    assert_int_equal(gate_fixture_ask(fixture, cold.text, &asked), ERR_OK);
}

static void test_with_the_store_stopped_a_known_key_is_served(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key known;
    struct gate_new_key cold;
    struct gate_asked asked;
    open_with_ttl_0(fixture);
    (void)gate_fixture_key(fixture, 1, &known, NULL);
    (void)gate_fixture_key(fixture, 1, &cold, NULL);
    assert_int_equal(gate_fixture_ask(fixture, known.text, &asked), ERR_OK);
    store_stop(fixture->store.store); /* its readers take no more jobs */
    assert_int_equal(gate_fixture_ask_stale(fixture, known.text, &asked), ERR_OK);
    assert_int_equal(gate_fixture_ask(fixture, cold.text, &asked), ERR_AWAY);
}

static void test_with_the_store_away_a_key_still_expires(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    const struct gate_key_options soon = {
        .org = 1, .scopes = GATE_ALL, .expires_ms = clock_wall_ms() + EXPIRY_MS};
    open_with_ttl_0(fixture);
    (void)gate_fixture_key(fixture, 1, &key, &soon);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    store_leaves(fixture);
    assert_int_equal(gate_fixture_ask_stale(fixture, key.text, &asked), ERR_OK);
    pass_expiry();
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
    store_returns(fixture);
}

static void test_stopping_answers_who_waits(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked waiting;
    struct gate_asked late;
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    gate_fixture_post(fixture, key.text, &waiting);
    gate_stop(fixture->gate);
    gate_fixture_post(fixture, key.text, &late);
    assert_int_equal(late.err, ERR_BUSY);
    gate_fixture_start(fixture);
    gate_fixture_wait(fixture, &waiting);
    assert_int_equal(waiting.err, ERR_DRAINING);
}

static void test_the_tag_key_is_kept_by_the_store(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_options options = gate_fixture_options(fixture);
    static const uint8_t other[32] = "another store's key of keys' tag";
    struct gate_new_key key;
    struct gate_asked asked;
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    gate_fixture_close(fixture);
    gate_fixture_open(fixture, NULL);
    gate_fixture_start(fixture);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    gate_fixture_close(fixture);
    options.tag_key = other;
    gate_fixture_open(fixture, &options);
    gate_fixture_start(fixture);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
    assert_false(asked.has_waited);
}

static void test_options_that_cannot_be(void **state)
{
    struct gate_fixture *fixture = *state;
    const struct gate_options good = gate_fixture_options(fixture);
    struct gate_options bad[5] = {good, good, good, good, good};
    struct gate *gate = NULL;
    bad[0].argon2_memory_kib = 7;
    bad[1].argon2_passes = 0;
    bad[2].cache_entries = 0;
    bad[3].verifier_count = 0;
    bad[4].verify_queue_max = 0;
    for (int i = 0; i < 5; i++) {
        struct err_detail detail = {""};
        assert_int_equal(gate_open(&gate, &bad[i], &detail), ERR_CONFIG);
        assert_true(detail.text[0] != '\0');
        assert_null(gate);
    }
}

static void test_a_tag_key_of_another_size_is_damage(void **state)
{
    struct gate_fixture *fixture = *state;
    const struct gate_options options = gate_fixture_options(fixture);
    struct err_detail detail = {""};
    struct gate *gate = NULL;
    assert_int_equal(
        store_fixture_sql(&fixture->store, "UPDATE secrets SET value = CAST('short' AS BLOB)"),
        ERR_OK);
    assert_int_equal(gate_open(&gate, &options, &detail), ERR_CORRUPT);
    assert_null(gate);
    assert_non_null(strstr(detail.text, "tags"));
}

/* --- many loops
 * ----------------------------------------------------------------------------------- */

struct hammer {
    struct gate_fixture *fixture;
    struct mailbox *mailbox;
    struct gate_desk *desk; /* NULL: it asks the gate itself */
    const char *key;
    atomic_bool *is_dead; /* set when gate_forget_key has returned */
    atomic_bool *is_over;
    atomic_uint admitted;
    atomic_uint admitted_dead;
    bool is_answered;
    enum err err;
    struct gate_waiter waiter;
};

static void hammer_on_checked(struct gate_waiter *waiter, enum err err,
                              const struct gate_identity *identity)
{
    struct hammer *hammer =
        (struct hammer *)(void *)((char *)waiter - offsetof(struct hammer, waiter));
    (void)identity;
    hammer->is_answered = true;
    hammer->err = err;
}

static void hammer_run(void *argument)
{
    struct hammer *hammer = argument;
    while (!atomic_load(hammer->is_over)) {
        struct gate_identity identity;
        bool was_dead = atomic_load(hammer->is_dead);
        hammer->is_answered = false;
        hammer->waiter =
            (struct gate_waiter){.reply_to = hammer->mailbox, .on_checked = hammer_on_checked};
        const struct gate_question question = {
            .key = slice_from_text(hammer->key),
            .address = SLICE_LITERAL("::1"),
            .now = {.mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms()}};
        enum gate_check check =
            hammer->desk != NULL
                ? gate_desk_check(hammer->desk, &question, &hammer->waiter, &identity)
                : gate_check(hammer->fixture->gate, question.key, question.address, &hammer->waiter,
                             &identity);
        bool is_admitted = check == GATE_CHECK_OK;
        if (check == GATE_CHECK_WAIT) {
            while (!hammer->is_answered) {
                mailbox_wait(hammer->mailbox, -1);
                (void)mailbox_run_all(hammer->mailbox);
            }
            is_admitted = hammer->err == ERR_OK;
        }
        atomic_fetch_add(&hammer->admitted, is_admitted);
        atomic_fetch_add(&hammer->admitted_dead, is_admitted && was_dead);
    }
}

static void test_no_loop_admits_a_key_after_it_was_forgotten(void **state)
{
    struct gate_fixture *fixture = *state;
    atomic_bool is_dead = false;
    atomic_bool is_over = false;
    struct hammer hammers[3] = {{.fixture = fixture}};
    struct thread *threads[3] = {NULL};
    struct gate_new_key key;
    uint64_t number = gate_fixture_key(fixture, 1, &key, NULL);
    for (int i = 0; i < 3; i++) {
        hammers[i].fixture = fixture;
        hammers[i].desk = i == 0 ? NULL : gate_desk_create(fixture->gate);
        hammers[i].key = key.text;
        hammers[i].is_dead = &is_dead;
        hammers[i].is_over = &is_over;
        assert_int_equal(mailbox_create(&hammers[i].mailbox, 8), ERR_OK);
        assert_int_equal(thread_start(&threads[i], "loop", hammer_run, &hammers[i]), ERR_OK);
    }
    for (int i = 0; i < 3; i++) {
        while (atomic_load(&hammers[i].admitted) < 1000) {
            gate_forget_key(fixture->gate, number); /* so that many checks are cold */
        }
    }
    (void)revoke(fixture, &key);
    gate_forget_key(fixture->gate, number);
    atomic_store(&is_dead, true);
    struct gate_asked asked;
    for (int i = 0; i < 2000; i++) {
        assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_UNAUTHORIZED);
    }
    atomic_store(&is_over, true);
    for (int i = 0; i < 3; i++) {
        thread_join(threads[i]);
        assert_int_equal(atomic_load(&hammers[i].admitted_dead), 0);
    }
    gate_fixture_close(fixture); /* a verifier may still be waking a loop that it answered */
    for (int i = 0; i < 3; i++) {
        mailbox_destroy(hammers[i].mailbox);
        gate_desk_destroy(hammers[i].desk);
    }
}

static struct gate_fixture the_fixture;

static int open_only(void **state)
{
    gate_fixture_init(&the_fixture);
    gate_fixture_open(&the_fixture, NULL);
    *state = &the_fixture;
    return 0;
}

static int open_and_start(void **state)
{
    (void)open_only(state);
    gate_fixture_start(&the_fixture);
    return 0;
}

static int finish(void **state)
{
    gate_fixture_finish(*state);
    return 0;
}

#define RUNNING(name) cmocka_unit_test_setup_teardown(name, open_and_start, finish)
#define HALTED(name)  cmocka_unit_test_setup_teardown(name, open_only, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RUNNING(test_a_good_key_costs_one_argon2id),
        RUNNING(test_a_made_up_key_costs_nothing),
        RUNNING(test_an_id_that_no_row_has),
        RUNNING(test_a_wrong_secret_costs_one_argon2id),
        HALTED(test_a_hundred_waiters_cost_one_argon2id),
        HALTED(test_a_full_queue_is_busy_and_no_more_than_that),
        RUNNING(test_a_revoked_key_dies_at_once),
        RUNNING(test_a_forgotten_org_is_read_again),
        RUNNING(test_a_key_expires),
        HALTED(test_past_its_ttl_a_key_is_confirmed_without_argon2id),
        HALTED(test_with_the_store_away_a_known_key_is_served),
        HALTED(test_with_the_store_stopped_a_known_key_is_served),
        HALTED(test_with_the_store_away_a_key_still_expires),
        HALTED(test_stopping_answers_who_waits),
        RUNNING(test_the_tag_key_is_kept_by_the_store),
        RUNNING(test_options_that_cannot_be),
        RUNNING(test_a_tag_key_of_another_size_is_damage),
        RUNNING(test_no_loop_admits_a_key_after_it_was_forgotten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
