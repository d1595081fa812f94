/* Promise: a lease has one holder at a time, by the database's clock; another gets it when its time
 * is over or it was given up, and not before.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define TTL_MS 600000u

static int setup(void **state)
{
    static struct store_fixture fixture;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    store_fixture_finish(*state);
    return 0;
}

struct ask {
    const char *name;
    uint64_t holder;
    bool is_held;
};

/* Where nobody's transaction has the row both ways are one. */
static bool claims;

static enum err run_take(struct store_connection *connection, void *context)
{
    struct ask *ask = context;
    return claims ? store_lease_claim(connection, ask->name, ask->holder, TTL_MS, &ask->is_held)
                  : store_lease_take(connection, ask->name, ask->holder, TTL_MS, &ask->is_held);
}

static enum err run_give_up(struct store_connection *connection, void *context)
{
    struct ask *ask = context;
    return store_lease_give_up(connection, ask->name, ask->holder);
}

static bool takes(struct store_fixture *fixture, const char *name, uint64_t holder)
{
    struct ask ask = {.name = name, .holder = holder, .is_held = false};
    assert_int_equal(store_fixture_run(fixture, run_take, &ask), ERR_OK);
    return ask.is_held;
}

static void give_up(struct store_fixture *fixture, const char *name, uint64_t holder)
{
    struct ask ask = {.name = name, .holder = holder};
    assert_int_equal(store_fixture_run(fixture, run_give_up, &ask), ERR_OK);
}

static int64_t until_ms(struct store_fixture *fixture)
{
    return store_fixture_number(fixture, "SELECT until_ms FROM leases WHERE name = 'a'");
}

/* Numbers of holders are random: the highest bit too. */
static const uint64_t one = UINT64_MAX - 4;
static const uint64_t two = 7;

static void test_one_holder(void **state)
{
    struct store_fixture *fixture = *state;
    assert_true(takes(fixture, "a", one));
    assert_false(takes(fixture, "a", two));
    assert_true(takes(fixture, "a", one));
    assert_false(takes(fixture, "a", two));
    assert_true(takes(fixture, "b", two)); /* another lease is another's business */
}

static void test_time_over(void **state)
{
    struct store_fixture *fixture = *state;
    assert_true(takes(fixture, "a", one));
    assert_int_equal(store_fixture_sql(fixture, "UPDATE leases SET until_ms = 1"), ERR_OK);
    assert_true(takes(fixture, "a", two));
    assert_false(takes(fixture, "a", one));
}

static void test_clock_and_renewal(void **state)
{
    struct store_fixture *fixture = *state;
    int64_t from_ms = clock_wall_ms();
    assert_true(takes(fixture, "a", one));
    int64_t first_ms = until_ms(fixture);
    int64_t to_ms = clock_wall_ms();
    /* One more on either side: engines cut or round their milliseconds. */
    assert_in_range(first_ms, from_ms + TTL_MS - 1, to_ms + TTL_MS + 1);
    assert_int_equal(store_fixture_sql(fixture, "UPDATE leases SET until_ms = until_ms - 1000"),
                     ERR_OK);
    assert_true(takes(fixture, "a", one));
    assert_true(until_ms(fixture) >= first_ms - 1);
}

static void test_give_up(void **state)
{
    struct store_fixture *fixture = *state;
    assert_true(takes(fixture, "a", one));
    give_up(fixture, "a", two); /* not his */
    assert_false(takes(fixture, "a", two));
    give_up(fixture, "a", one);
    give_up(fixture, "a", one); /* twice is fine */
    assert_true(takes(fixture, "a", two));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_one_holder, setup, teardown),
        cmocka_unit_test_setup_teardown(test_time_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock_and_renewal, setup, teardown),
        cmocka_unit_test_setup_teardown(test_give_up, setup, teardown),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    claims = true;
    return failed + cmocka_run_group_tests(tests, NULL, NULL);
}
