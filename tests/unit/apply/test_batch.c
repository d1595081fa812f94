/* Promise: an idle applier never waits, under steady load transactions are apart, a batch grows
 * while the writer is busy and is bounded, and a part that had to give way comes back smaller. */
#include "apply/batch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct apply_policy policy = {.batch_size = 50,
                                           .batch_timeout_ms = 500,
                                           .gap_ms = 10,
                                           .gap_rows = 500,
                                           .rows_max = 1000,
                                           .bytes_max = 100000};
/* Of a writer that has rested. */
#define RESTED .gap_ms = 10

static void test_nothing_to_do_waits(void **state)
{
    (void)state;
    struct apply_filling filling = {.frames = 0};
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_WAIT);
    filling.has_more = true;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_FILL);
}

static void test_lone_record_goes_at_once(void **state)
{
    (void)state;
    struct apply_filling filling = {.frames = 1, .rows = 1, .bytes = 100, RESTED};
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_POST);
    /* A frame without rows (an upload's end) too. */
    filling.rows = 0;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_POST);
}

static void test_free_writer_gets_batch_size_or_what_time_allows(void **state)
{
    (void)state;
    struct apply_filling filling = {.frames = 49, .rows = 49, .has_more = true, RESTED};
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_FILL);
    filling.rows = 50;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_POST);
    filling.rows = 3;
    filling.age_ms = 499;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_FILL);
    filling.age_ms = 500;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_POST);
}

static void test_steady_load_leaves_gaps(void **state)
{
    (void)state;
    struct apply_filling filling = {.frames = 60, .rows = 60, .has_more = true, .gap_ms = 9};
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_FILL);
    filling.has_more = false;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_WAIT);
    filling.gap_ms = 10;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_POST);
}

/* Each alone is reason enough to go on within the gap. */
static void test_gap_is_not_waited_for(void **state)
{
    (void)state;
    struct apply_filling waited_for = {.frames = 1, .rows = 1, .is_waited_for = true};
    assert_int_equal(apply_batch_step(&policy, &waited_for), APPLY_POST);
    struct apply_filling backlog = {.frames = 500, .rows = 500, .has_more = true};
    assert_int_equal(apply_batch_step(&policy, &backlog), APPLY_POST);
    struct apply_filling slice = {.frames = 1, .rows = 1, .is_closed = true};
    assert_int_equal(apply_batch_step(&policy, &slice), APPLY_POST);
}

static void test_busy_writer_lets_it_grow_to_its_bounds(void **state)
{
    (void)state;
    struct apply_filling filling = {
        .frames = 1, .rows = 999, .bytes = 5, .has_more = true, .is_in_flight = true};
    filling.age_ms = 100000;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_FILL);
    filling.rows = 1000;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_WAIT);
    filling.rows = 10;
    filling.bytes = 100000;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_WAIT);
    filling.bytes = 5;
    filling.has_more = false;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_WAIT);
}

static void test_closed_batch_takes_nothing(void **state)
{
    (void)state;
    struct apply_filling filling = {.frames = 1, .rows = 1, .has_more = true, .is_closed = true};
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_POST);
    filling.is_in_flight = true;
    assert_int_equal(apply_batch_step(&policy, &filling), APPLY_WAIT);
}

static void test_parts_halve_and_recover(void **state)
{
    (void)state;
    uint32_t limit = 100000;
    limit = apply_part_step(limit, 20000, true, 100000);
    assert_int_equal(limit, 10000); /* half of what was tried */
    limit = apply_part_step(limit, 10000, true, 100000);
    assert_int_equal(limit, 5000);
    for (int i = 0; i < 20; i++) {
        limit = apply_part_step(limit, limit, true, 100000);
    }
    assert_int_equal(limit, APPLY_PART_ROWS_MIN); /* always some progress */
    uint32_t steps = 0;
    while (limit < 100000) {
        uint32_t next = apply_part_step(limit, limit, false, 100000);
        assert_true(next > limit && next <= 100000);
        limit = next;
        steps++;
    }
    assert_true(steps < 100);
    assert_int_equal(apply_part_step(limit, limit, false, 100000), 100000);
}

static void test_backoff_doubles_to_its_bound(void **state)
{
    (void)state;
    uint32_t pause_ms = 0;
    uint64_t sum_ms = 0;
    const uint32_t expected[] = {50, 100, 200, 400, 800, 1600, 2000, 2000};
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        pause_ms = apply_backoff_step(pause_ms);
        assert_int_equal(pause_ms, expected[i]);
        sum_ms += pause_ms;
    }
    assert_true(pause_ms < 10000 && sum_ms < 10000); /* R4: back within 10 s */
}

static void test_only_io_errors_that_stay_are_given_up(void **state)
{
    (void)state;
    uint32_t io_errors = 0;
    for (uint32_t i = 1; i < APPLY_IO_ERRORS_MAX; i++) {
        assert_false(apply_give_up_step(ERR_IO, &io_errors));
        assert_false(apply_give_up_step(ERR_AWAY, &io_errors)); /* passes, and counts for nothing */
    }
    assert_true(apply_give_up_step(ERR_IO, &io_errors));
    io_errors = 0;
    assert_true(apply_give_up_step(ERR_CORRUPT, &io_errors));
    assert_true(apply_give_up_step(ERR_NOT_FOUND, &io_errors));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_to_do_waits),
        cmocka_unit_test(test_lone_record_goes_at_once),
        cmocka_unit_test(test_free_writer_gets_batch_size_or_what_time_allows),
        cmocka_unit_test(test_steady_load_leaves_gaps),
        cmocka_unit_test(test_gap_is_not_waited_for),
        cmocka_unit_test(test_busy_writer_lets_it_grow_to_its_bounds),
        cmocka_unit_test(test_closed_batch_takes_nothing),
        cmocka_unit_test(test_parts_halve_and_recover),
        cmocka_unit_test(test_only_io_errors_that_stay_are_given_up),
        cmocka_unit_test(test_backoff_doubles_to_its_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
