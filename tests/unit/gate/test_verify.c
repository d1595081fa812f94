/* Promise: what follows from a key's row is decided by values alone, and a check that overlaps a
 * revocation is refused wherever it stands.
 * link: gate_fixture.c store_fixture.c */
#include "support/gate_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "gate/verify.c" /* NOLINT(bugprone-suspicious-include): step by step */

static void test_the_step(void **state)
{
    (void)state;
    const struct gate_key_found live = {.identity = {.key = 5}};
    const struct gate_key_found ends = {.identity = {.key = 5, .expires_ms = 1000}};
    const struct gate_key_found revoked = {.identity = {.key = 5}, .revoked_ms = 1};
    assert_int_equal(gate_verify_step(ERR_OK, &live, 0, 999), GATE_VERIFY_CHECK);
    assert_int_equal(gate_verify_step(ERR_OK, &live, 5, 999), GATE_VERIFY_ADMIT);
    assert_int_equal(gate_verify_step(ERR_OK, &live, 6, 999), GATE_VERIFY_CHECK);
    assert_int_equal(gate_verify_step(ERR_OK, &ends, 5, 999), GATE_VERIFY_ADMIT);
    assert_int_equal(gate_verify_step(ERR_OK, &ends, 5, 1000), GATE_VERIFY_REFUSE);
    assert_int_equal(gate_verify_step(ERR_OK, &revoked, 5, 999), GATE_VERIFY_REFUSE);
    assert_int_equal(gate_verify_step(ERR_NOT_FOUND, NULL, 5, 999), GATE_VERIFY_REFUSE);
    static const enum err passing[] = {ERR_AWAY, ERR_BUSY, ERR_TIMEOUT, ERR_IO, ERR_CORRUPT};
    for (size_t i = 0; i < sizeof(passing) / sizeof(passing[0]); i++) {
        assert_int_equal(gate_verify_step(passing[i], NULL, 5, 999), GATE_VERIFY_PUT_OFF);
    }
}

/* --- a check, step by step
 * ------------------------------------------------------------------------ */

static struct gate_verifier *the_verifier(struct gate_fixture *fixture)
{
    return gate_verifier(fixture->gate, 0);
}

/* The waiter is filed and its row asked for. */
static struct flight *file_waiter(struct gate_fixture *fixture, const char *key,
                                  struct gate_asked *ret)
{
    struct gate_verifier *verifier = the_verifier(fixture);
    gate_fixture_post(fixture, key, ret);
    assert_true(ret->has_waited);
    wait_and_run(verifier, -1);
    assert_false(list_is_empty(&verifier->open));
    return LIST_CONTAINER(list_first(&verifier->open), struct flight, link);
}

static void wait_for_row(struct gate_fixture *fixture, const struct flight *flight)
{
    while (flight->state == FLIGHT_READING) {
        wait_and_run(the_verifier(fixture), -1);
    }
}

static void revoke(struct gate_fixture *fixture, uint64_t number)
{
    assert_int_equal(store_fixture_sql(&fixture->store, "UPDATE keys SET revoked_ms = 1"), ERR_OK);
    gate_forget_key(fixture->gate, number);
}

static void assert_not_cached(struct gate_fixture *fixture, const char *key)
{
    struct gate_asked asked;
    gate_fixture_post(fixture, key, &asked);
    assert_int_equal(asked.err, ERR_UNAUTHORIZED);
    assert_false(asked.has_waited);
}

static void test_revoked_while_its_row_is_read(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    uint64_t number = gate_fixture_key(fixture, 1, &key, NULL);
    struct flight *flight = file_waiter(fixture, key.text, &asked);
    /* The reader has the live row by now or soon; the verifier has not looked at it. */
    mailbox_wait(the_verifier(fixture)->mailbox, -1);
    revoke(fixture, number);
    wait_for_row(fixture, flight);
    assert_int_equal(flight->state, FLIGHT_READY);
    flight_check(flight);
    assert_int_equal(flight->state, FLIGHT_READING);
    wait_for_row(fixture, flight);
    assert_int_equal(flight->state, FLIGHT_FREE);
    gate_fixture_wait(fixture, &asked);
    assert_int_equal(asked.err, ERR_UNAUTHORIZED);
    assert_not_cached(fixture, key.text);
}

static void test_revoked_while_its_secret_is_checked(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    uint64_t number = gate_fixture_key(fixture, 1, &key, NULL);
    struct flight *flight = file_waiter(fixture, key.text, &asked);
    wait_for_row(fixture, flight);
    assert_int_equal(flight->state, FLIGHT_READY);
    revoke(fixture, number);
    flight_check(flight);
    wait_for_row(fixture, flight);
    gate_fixture_wait(fixture, &asked);
    assert_int_equal(asked.err, ERR_UNAUTHORIZED);
    assert_not_cached(fixture, key.text);
}

static void test_another_key_revoked_meanwhile_costs_one_more_read(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked asked;
    uint64_t number = gate_fixture_key(fixture, 1, &key, NULL);
    uint64_t before = metrics_total(METRIC_AUTH_VERIFIED);
    struct flight *flight = file_waiter(fixture, key.text, &asked);
    wait_for_row(fixture, flight);
    gate_forget_key(fixture->gate, number + 1);
    flight_check(flight);
    assert_int_equal(flight->state, FLIGHT_READING);
    wait_for_row(fixture, flight);
    gate_fixture_wait(fixture, &asked);
    assert_int_equal(asked.err, ERR_OK);
    assert_int_equal(metrics_total(METRIC_AUTH_VERIFIED) - before, 1);
    assert_int_equal(gate_fixture_ask(fixture, key.text, &asked), ERR_OK);
    assert_false(asked.has_waited);
}

static void test_who_comes_later_joins_or_finds_the_cache(void **state)
{
    struct gate_fixture *fixture = *state;
    struct gate_new_key key;
    struct gate_asked first;
    struct gate_asked second;
    struct gate_asked third;
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    struct flight *flight = file_waiter(fixture, key.text, &first);
    wait_for_row(fixture, flight);
    gate_fixture_post(fixture, key.text, &second);
    wait_and_run(the_verifier(fixture), -1);
    gate_fixture_post(fixture, key.text, &third); /* not yet taken when the check ends */
    flight_check(flight);
    gate_fixture_wait(fixture, &first);
    gate_fixture_wait(fixture, &second);
    wait_and_run(the_verifier(fixture), -1);
    gate_fixture_wait(fixture, &third);
    assert_int_equal(first.err, ERR_OK);
    assert_int_equal(second.err, ERR_OK);
    assert_int_equal(third.err, ERR_OK);
    assert_true(list_is_empty(&the_verifier(fixture)->open));
}

static void test_no_secret_stays_behind(void **state)
{
    struct gate_fixture *fixture = *state;
    static const uint8_t zeros[GATE_KEY_TEXT_MAX];
    struct gate_new_key key;
    struct gate_asked asked;
    (void)gate_fixture_key(fixture, 1, &key, NULL);
    struct flight *flight = file_waiter(fixture, key.text, &asked);
    wait_for_row(fixture, flight);
    assert_memory_not_equal(flight->key, zeros, sizeof(flight->key));
    flight_check(flight);
    gate_fixture_wait(fixture, &asked);
    assert_memory_equal(flight->key, zeros, sizeof(flight->key));
    assert_memory_equal(asked.waiter.key, zeros, sizeof(asked.waiter.key));
}

static int open_halted(void **state)
{
    static struct gate_fixture fixture;
    gate_fixture_init(&fixture);
    gate_fixture_open(&fixture, NULL);
    *state = &fixture;
    return 0;
}

static int finish(void **state)
{
    gate_fixture_finish(*state);
    return 0;
}

#define HALTED(name) cmocka_unit_test_setup_teardown(name, open_halted, finish)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_step),
        HALTED(test_revoked_while_its_row_is_read),
        HALTED(test_revoked_while_its_secret_is_checked),
        HALTED(test_another_key_revoked_meanwhile_costs_one_more_read),
        HALTED(test_who_comes_later_joins_or_finds_the_cache),
        HALTED(test_no_secret_stays_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
