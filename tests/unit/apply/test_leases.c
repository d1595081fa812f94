/* Promise: each lane has one holder at a time, holders have even shares, one that dies is replaced
 * when its time is over and not before, and who lost a lane can move its cursor no more.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include "apply/lanes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>

#define HOLDERS 10u
#define BASE    0u

static const struct id journal = {{1, 2, 3}};
static struct store_fixture fixture;

static int setup(void **state)
{
    (void)state;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_fixture_finish(&fixture);
    return 0;
}

static enum err run_open(struct store_connection *connection, void *context)
{
    return apply_lease_open(connection, context);
}

static enum err run_look(struct store_connection *connection, void *context)
{
    return apply_lease_look(connection, context);
}

struct move {
    uint64_t holder;
    uint64_t lanes;
    uint64_t position;
};

static enum err run_move(struct store_connection *connection, void *context)
{
    const struct move *move = context;
    return apply_lease_move(connection, journal, move->holder, move->lanes, move->position);
}

static struct journal_from begin(uint32_t holders, bool is_exclusive, int64_t now_ms)
{
    struct apply_lease_open open = {.journal = journal,
                                    .holder_count = holders,
                                    .is_exclusive = is_exclusive,
                                    .now_ms = now_ms};
    for (uint32_t i = 0; i < holders; i++) {
        open.holders[i] = i + 1;
    }
    assert_int_equal(store_fixture_run(&fixture, run_open, &open), ERR_OK);
    return open.cursors;
}

static void look(struct apply_lease *lease, int64_t now_ms)
{
    lease->journal = journal;
    lease->now_ms = now_ms;
    assert_int_equal(store_fixture_run(&fixture, run_look, lease), ERR_OK);
}

static enum err move(uint64_t holder, uint64_t lanes, uint64_t position)
{
    struct move move = {holder, lanes, position};
    return store_fixture_run(&fixture, run_move, &move);
}

static int64_t position_of(uint32_t lane)
{
    char sql[80];
    (void)snprintf(sql, sizeof(sql), "SELECT position FROM cursors WHERE lane = %u", lane);
    return store_fixture_number(&fixture, sql);
}

static void test_who_is_alone_has_all(void **state)
{
    (void)state;
    struct journal_from cursors = begin(1, true, 1000);
    assert_int_equal(journal_from_least(&cursors), BASE);
    struct apply_lease one = {.holder = 1};
    look(&one, 1000);
    assert_true(one.lanes == APPLY_LANES_ALL);
    assert_int_equal(one.surplus, 0);
    assert_false(one.is_hungry);
    assert_int_equal(one.cursors[63], BASE);
}

static void test_a_second_gets_half(void **state)
{
    (void)state;
    (void)begin(1, true, 1000);
    struct apply_lease one = {.holder = 1};
    struct apply_lease two = {.holder = 2};
    look(&one, 1000);
    look(&two, 1100);
    assert_true(two.lanes == 0 && two.is_hungry);
    one.passed = 500;
    look(&one, 1200);
    assert_int_equal(one.surplus, 32);
    one.given = UINT64_C(0xffffffff) << 32u;
    one.passed = 700;
    look(&one, 1300);
    assert_true(one.lanes == UINT64_C(0xffffffff) && one.surplus == 0);
    look(&two, 1400);
    assert_true(two.lanes == UINT64_C(0xffffffff) << 32u);
    assert_false(two.is_hungry);
    assert_int_equal(two.cursors[40], 700); /* where the first has come to */
}

static void test_shares_are_even_whoever_comes_and_goes(void **state)
{
    (void)state;
    struct apply_lease all[HOLDERS] = {{.holder = 0}};
    int64_t now_ms = 1000;
    (void)begin(0, true, now_ms);
    for (uint32_t live = 1; live <= 2 * HOLDERS - 1; live++) {
        uint32_t from = live <= HOLDERS ? 0 : live - HOLDERS; /* the first ones stop again */
        uint32_t to = live <= HOLDERS ? live : HOLDERS;
        if (from > 0) {
            all[from - 1].is_over = true;
            look(&all[from - 1], now_ms);
        }
        for (uint32_t round = 0; round < 3; round++) {
            for (uint32_t i = from; i < to; i++) {
                all[i].holder = i + 1;
                look(&all[i], now_ms += 50);
                all[i].given = 0;
                for (uint32_t lane = 0; lane < 64 && all[i].surplus > 0; lane++) {
                    uint64_t bit = UINT64_C(1) << lane;
                    all[i].surplus -= (all[i].lanes & bit) != 0;
                    all[i].given |= all[i].lanes & bit;
                }
            }
        }
        uint64_t seen = 0;
        for (uint32_t i = from; i < to; i++) {
            uint32_t share = (64 + to - from - 1) / (to - from);
            assert_true((seen & all[i].lanes) == 0);
            assert_true((uint32_t)__builtin_popcountll(all[i].lanes) <= share);
            seen |= all[i].lanes;
        }
        assert_true(seen == APPLY_LANES_ALL);
    }
}

static void test_a_dead_one_is_replaced_when_its_time_is_over(void **state)
{
    (void)state;
    (void)begin(1, true, 1000);
    struct apply_lease one = {.holder = 1};
    struct apply_lease two = {.holder = 2};
    look(&one, 1000);
    look(&two, 1700);
    assert_int_equal(two.ends_ms, APPLY_LEASE_MS - 700); /* it looks again then */
    look(&two, 1000 + APPLY_LEASE_MS - 1);
    assert_true(two.lanes == 0);
    assert_int_equal(two.ends_ms, 1);
    static_assert(APPLY_LEASE_MS + APPLY_HUNGRY_MS <= 8000, "with margin within ten seconds");
    look(&two, 1000 + APPLY_LEASE_MS);
    assert_true(two.lanes == APPLY_LANES_ALL);
    assert_int_equal(two.ends_ms, APPLY_LEASE_MS); /* there is no other */
    /* It was not dead: what it has in hand is refused, and its look tells. */
    assert_int_equal(move(1, 1, 800), ERR_CLOSED);
    assert_int_equal(position_of(0), BASE);
    assert_int_equal(move(2, 1, 800), ERR_OK);
    assert_int_equal(position_of(0), 800);
    one.passed = 900;
    look(&one, 1100 + APPLY_LEASE_MS);
    assert_true(one.lanes == 0 && one.is_hungry);
    assert_int_equal(position_of(0), 800);
}

/* Its time was over, another had a lane and gave it back: it hears that before it has it again. */
static void test_who_lost_a_lane_hears_of_it_before_he_has_it_again(void **state)
{
    (void)state;
    (void)begin(1, true, 1000);
    struct apply_lease one = {.holder = 1};
    struct apply_lease two = {.holder = 2};
    look(&one, 1000);
    look(&two, 1000 + APPLY_LEASE_MS);
    assert_true(two.lanes == APPLY_LANES_ALL);
    two.is_over = true;
    two.passed = 800;
    look(&two, 1000 + APPLY_LEASE_MS);
    assert_true(one.lanes == APPLY_LANES_ALL); /* those that it reads */
    look(&one, 1000 + APPLY_LEASE_MS);
    assert_true(one.lanes == 0 && one.is_hungry);
    look(&one, 1000 + APPLY_LEASE_MS);
    assert_true(one.lanes == APPLY_LANES_ALL);
    assert_int_equal(one.cursors[0], 800);
}

static void test_cursors_move_together_or_not_at_all(void **state)
{
    (void)state;
    (void)begin(1, true, 1000);
    struct apply_lease one = {.holder = 1};
    look(&one, 1000);
    assert_int_equal(move(1, 5, 300), ERR_OK);
    assert_int_equal(position_of(0), 300);
    assert_int_equal(position_of(1), BASE);
    assert_int_equal(position_of(2), 300);
    assert_int_equal(move(1, UINT64_C(1) << 63u, 0), ERR_OK); /* held, not moved */
    assert_int_equal(position_of(63), BASE);
    assert_int_equal(store_fixture_sql(&fixture, "UPDATE cursors SET holder = 9 WHERE lane = 2"),
                     ERR_OK);
    assert_int_equal(move(1, 5, 400), ERR_CLOSED);
    assert_int_equal(position_of(0), 300);
    /* Those that it reads follow, none goes back. */
    one.lanes = 3;
    one.passed = 200;
    look(&one, 1100);
    assert_int_equal(position_of(0), 300);
    assert_int_equal(position_of(1), 200);
    assert_int_equal(position_of(4), BASE);
}

static void test_the_cursor_of_all_lanes_becomes_theirs(void **state)
{
    (void)state;
    struct journal_from cursors = begin(0, true, 1000);
    assert_int_equal(store_fixture_sql(&fixture, "UPDATE cursors SET position = 990, holder = 5,"
                                                 " until_ms = 99999 WHERE lane = 3"),
                     ERR_OK);
    assert_int_equal(store_fixture_sql(&fixture,
                                       "INSERT INTO cursors (journal, lane, position)"
                                       " VALUES (x'01020300000000000000000000000000', 64, 770)"),
                     ERR_OK);
    cursors = begin(1, true, 1000);
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(cursors.after[i], i == 3 ? 990 : 770);
        assert_int_equal(position_of(i), i == 3 ? 990 : 770);
    }
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM cursors"), 64);
    /* Exclusive: what an earlier run held is free. */
    struct apply_lease one = {.holder = 1};
    look(&one, 1000);
    assert_true(one.lanes == APPLY_LANES_ALL);
    /* Shared: it is not. */
    (void)begin(0, false, 1000);
    struct apply_lease two = {.holder = 2};
    look(&two, 1000);
    assert_true(two.lanes == 0);
}

/* The database's clock, when no other is said. */
static void test_time_passes_by_itself(void **state)
{
    (void)state;
    (void)begin(1, true, 0);
    struct apply_lease one = {.holder = 1};
    look(&one, 0);
    assert_true(one.lanes == APPLY_LANES_ALL);
    assert_true(store_fixture_number(&fixture, "SELECT min(until_ms) FROM cursors") >
                INT64_C(1700000000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_who_is_alone_has_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_second_gets_half, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shares_are_even_whoever_comes_and_goes, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_a_dead_one_is_replaced_when_its_time_is_over, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_who_lost_a_lane_hears_of_it_before_he_has_it_again,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(test_cursors_move_together_or_not_at_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_cursor_of_all_lanes_becomes_theirs, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_time_passes_by_itself, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
