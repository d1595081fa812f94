/* Promise: in any stretch of one length a window admits at most its quota plus the stated error of
 * its two buckets (the previous bucket's count times the part of the current one that is over), and
 * what it says about waiting is true. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gate/window.h"

#define LENGTH_MS 60000ull

static uint64_t random_state;

/* xorshift64*, so that a printed seed gives the same run anywhere. */
static uint64_t random_below(uint64_t bound)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (random_state * 2685821657736338717u >> 16) % bound;
}

static int seed(void **state)
{
    (void)state;
    const char *given = getenv("WEIR_TEST_SEED");
    random_state = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    random_state |= 1;
    print_message("WEIR_TEST_SEED=%llu\n", (unsigned long long)random_state);
    return 0;
}

static struct gate_window_verdict step(struct gate_window_state *window, uint64_t quota,
                                       uint64_t amount, uint64_t now_ms)
{
    struct gate_window_rule rule = {.quota = quota, .length_ms = LENGTH_MS};
    struct gate_window_verdict verdict;
    gate_window_step(window, &rule, amount, now_ms, &verdict);
    return verdict;
}

/* What was admitted, kept exactly: the yardstick of the counter. */
struct exact {
    uint64_t at_ms[20000];
    uint64_t amount[20000];
    size_t count;
};

static uint64_t exact_since(const struct exact *exact, uint64_t after_ms)
{
    uint64_t sum = 0;
    for (size_t i = exact->count; i > 0 && exact->at_ms[i - 1] >= after_ms; i--) {
        sum += exact->amount[i - 1];
    }
    return sum;
}

static uint64_t next_pause_ms(uint64_t mood)
{
    switch (mood) {
    case 0:
        return 0;
    case 1:
        return random_below(10);
    case 2:
        return random_below(LENGTH_MS / 8);
    case 3:
        return LENGTH_MS - 1 + random_below(3);
    default:
        return random_below(3 * LENGTH_MS);
    }
}

static void test_no_stretch_holds_more_than_the_bound(void **state)
{
    (void)state;
    static struct exact exact;
    for (int round = 0; round < 200; round++) {
        struct gate_window_state window = {0};
        uint64_t quota = 1 + random_below(200);
        uint64_t now_ms = 1 + random_below(1000000);
        uint64_t mood = 1;
        exact.count = 0;
        for (int i = 0; i < 5000; i++) {
            uint64_t amount = 1 + random_below(1 + quota / 10);
            mood = random_below(50) == 0 ? random_below(5) : mood;
            now_ms += next_pause_ms(mood);
            mood = mood >= 3 ? random_below(3) : mood;
            if (!step(&window, quota, amount, now_ms).is_admitted) {
                continue;
            }
            exact.at_ms[exact.count] = now_ms;
            exact.amount[exact.count++] = amount;
            /* A stretch that begins right after the moment one length ago. */
            uint64_t after_ms = now_ms >= LENGTH_MS ? now_ms - LENGTH_MS + 1 : 0;
            uint64_t held = exact_since(&exact, after_ms);
            uint64_t over = now_ms - window.start_ms;
            uint64_t bound = quota + (window.previous * over + LENGTH_MS - 1) / LENGTH_MS;
            assert_true(held <= bound);
            assert_true(held < 2 * quota || quota == 1);
            assert_true(window.current <= quota);
        }
    }
}

/* The worst case of the head comment is real: all of one quota at the end of a bucket, then as much
 * as fades out of it. */
static void test_the_bound_is_reached_by_an_adversary(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    const uint64_t quota = 1000;
    uint64_t now_ms = 5000;
    uint64_t held = 0;
    assert_true(step(&window, quota, 1, now_ms).is_admitted); /* starts the bucket */
    now_ms += LENGTH_MS - 1;
    while (step(&window, quota, 1, now_ms).is_admitted) {
        held++;
    }
    assert_int_equal(held, 999);
    for (uint64_t i = 1; i < LENGTH_MS; i++) {
        held += step(&window, quota, 1, now_ms + i).is_admitted;
    }
    assert_true(held > quota * 19 / 10);
    assert_true(held < quota * 2);
}

static void test_a_burst_is_admitted_up_to_the_quota_exactly(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    for (uint64_t i = 0; i < 100; i++) {
        struct gate_window_verdict verdict = step(&window, 100, 1, 777);
        assert_true(verdict.is_admitted);
        assert_int_equal(verdict.remaining, 99 - i);
    }
    struct gate_window_verdict verdict = step(&window, 100, 1, 777);
    assert_false(verdict.is_admitted);
    assert_int_equal(verdict.remaining, 0);
    /* It began its own bucket, so nothing more comes for one whole length, */
    assert_false(step(&window, 100, 1, 777 + LENGTH_MS).is_admitted);
    /* half of it after one and a half, all after two. */
    assert_int_equal(step(&window, 100, 0, 777 + LENGTH_MS * 3 / 2).remaining, 50);
    assert_int_equal(step(&window, 100, 0, 777 + 2 * LENGTH_MS).remaining, 100);
}

/* Two less than the quota: the estimate is rounded up, once for the fraction and once for the
 * count.
 */
static void test_even_traffic_below_the_quota_is_never_refused(void **state)
{
    (void)state;
    for (uint64_t quota = 10; quota <= 1250; quota *= 5) {
        struct gate_window_state window = {0};
        uint64_t count = quota - 2;
        for (uint64_t i = 0; i < count * 5; i++) {
            assert_true(step(&window, quota, 1, 12345 + i * LENGTH_MS / count).is_admitted);
        }
    }
}

static void test_twice_the_quota_is_admitted_about_half_the_time(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    uint64_t admitted = 0;
    for (uint64_t i = 0; i < 20000; i++) {
        admitted += step(&window, 1000, 1, 99 + i * LENGTH_MS / 2000).is_admitted;
    }
    /* Ten lengths at quota 1,000; the first may hold one quota more, by the bound. */
    assert_true(admitted > 9000);
    assert_true(admitted <= 11000);
}

static void test_waiting_as_told_is_enough_and_needed(void **state)
{
    (void)state;
    for (int round = 0; round < 20000; round++) {
        uint64_t quota = 1 + random_below(1000);
        uint64_t now_ms = 1000000 + random_below(LENGTH_MS);
        struct gate_window_state window = {0};
        uint64_t amount = 1 + random_below(quota);
        struct gate_window_verdict verdict = {.is_admitted = true};
        for (int i = 0; i < 100 && verdict.is_admitted; i++) {
            now_ms += random_below(LENGTH_MS / 4);
            verdict = step(&window, quota, amount, now_ms);
        }
        if (verdict.is_admitted) {
            continue;
        }
        assert_true(verdict.wait_ms > 0);
        struct gate_window_state then = window;
        assert_true(step(&then, quota, amount, now_ms + verdict.wait_ms).is_admitted);
        /* Weights are counted in 1/4096 of a length, so it may tell one step too much. */
        uint64_t slack_ms = 2 * (LENGTH_MS / 4096 + 1);
        if (verdict.wait_ms > slack_ms) {
            then = window;
            assert_false(
                step(&then, quota, amount, now_ms + verdict.wait_ms - slack_ms).is_admitted);
        }
    }
}

static void test_refusing_changes_nothing(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    (void)step(&window, 10, 8, 500);
    struct gate_window_state before = window;
    assert_false(step(&window, 10, 3, 600).is_admitted);
    assert_memory_equal(&window, &before, sizeof(window));
    assert_true(step(&window, 10, 2, 600).is_admitted);
}

static void test_giving_back_makes_room_again(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    assert_true(step(&window, 5, 5, 500).is_admitted);
    assert_false(step(&window, 5, 1, 500).is_admitted);
    gate_window_refund(&window, 1, 500);
    assert_true(step(&window, 5, 1, 500).is_admitted);
    gate_window_refund(&window, 100, 500);
    assert_int_equal(window.current, 0);
}

/* Five are used in a bucket, three in the next. Of those five a part has faded: taken back from the
 * three, more than five would pass within one length. */
static void test_what_another_bucket_holds_stays(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    (void)step(&window, 10, 5, 500);
    (void)step(&window, 10, 3, 500 + LENGTH_MS);
    gate_window_refund(&window, 5, 500);
    assert_int_equal(window.current, 3);
    gate_window_refund(&window, 2, 500 + LENGTH_MS);
    assert_int_equal(window.current, 1);
}

static void test_an_amount_above_the_quota_never_fits(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    struct gate_window_verdict verdict = step(&window, 5, 6, 500);
    assert_false(verdict.is_admitted);
    assert_int_equal(verdict.remaining, 5);
    assert_int_equal(verdict.wait_ms, LENGTH_MS);
}

static void test_a_clock_a_little_behind_is_harmless(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    assert_true(step(&window, 3, 1, 1000).is_admitted);
    assert_true(step(&window, 3, 1, 998).is_admitted);
    assert_true(step(&window, 3, 1, 999).is_admitted);
    assert_false(step(&window, 3, 1, 997).is_admitted);
}

static void test_a_lowered_quota_waits_until_the_rest_has_run_out(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    assert_true(step(&window, 1000, 900, 1000).is_admitted);
    struct gate_window_verdict verdict = step(&window, 100, 1, 1001);
    assert_false(verdict.is_admitted);
    assert_int_equal(verdict.remaining, 0);
    assert_true(step(&window, 100, 1, 1001 + verdict.wait_ms).is_admitted);
}

static void test_the_largest_quota_does_not_overflow(void **state)
{
    (void)state;
    struct gate_window_state window = {0};
    const uint64_t quota = GATE_WINDOW_QUOTA_MAX;
    assert_true(step(&window, quota, quota, 1000).is_admitted);
    assert_false(step(&window, quota, 1, 1000 + LENGTH_MS).is_admitted);
    uint64_t half = step(&window, quota, 0, 1000 + LENGTH_MS * 3 / 2).remaining;
    assert_true(half >= quota / 2 - 1 && half <= quota / 2 + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_stretch_holds_more_than_the_bound),
        cmocka_unit_test(test_the_bound_is_reached_by_an_adversary),
        cmocka_unit_test(test_a_burst_is_admitted_up_to_the_quota_exactly),
        cmocka_unit_test(test_even_traffic_below_the_quota_is_never_refused),
        cmocka_unit_test(test_twice_the_quota_is_admitted_about_half_the_time),
        cmocka_unit_test(test_waiting_as_told_is_enough_and_needed),
        cmocka_unit_test(test_refusing_changes_nothing),
        cmocka_unit_test(test_giving_back_makes_room_again),
        cmocka_unit_test(test_what_another_bucket_holds_stays),
        cmocka_unit_test(test_an_amount_above_the_quota_never_fits),
        cmocka_unit_test(test_a_clock_a_little_behind_is_harmless),
        cmocka_unit_test(test_a_lowered_quota_waits_until_the_rest_has_run_out),
        cmocka_unit_test(test_the_largest_quota_does_not_overflow),
    };
    return cmocka_run_group_tests(tests, seed, NULL);
}
