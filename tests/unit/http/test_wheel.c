/* No deadline is missed, and none is early: against a plain list of deadlines, with a clock of our
 * own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hash.h"
#include "base/mem.h"
#include "http/wheel.h"

#define TIMERS 300u

static void test_against_a_list(void **state)
{
    struct http_wheel *wheel = mem_alloc(sizeof(*wheel));
    struct http_timer timers[TIMERS] = {0};
    uint64_t wanted[TIMERS]; /* when each is due */
    uint64_t now = 1000;
    uint32_t random = 0;
    (void)state;
    assert_int_equal(hash_start(), ERR_OK);
    hash_random(&random, sizeof(random));
    print_message("seed %u\n", random);
    http_wheel_init(wheel, now);
    for (uint32_t i = 0; i < TIMERS; i++) {
        wanted[i] = HTTP_NO_DEADLINE;
    }
    for (uint32_t round = 0; round < 20000; round++) {
        random = random * 1664525u + 1013904223u;
        uint32_t which = (random >> 8) % TIMERS;
        uint64_t after = (random >> 16) % (round % 3 == 0 ? 100000 : 500);
        wanted[which] = round % 11 == 0 ? HTTP_NO_DEADLINE : now + after;
        http_wheel_set(wheel, &timers[which], wanted[which]);
        now += random % 64 == 0 ? 40000 : random % 17;
        struct http_timer *due = NULL;
        while ((due = http_wheel_take_due(wheel, now)) != NULL) {
            size_t index = (size_t)(due - timers);
            assert_true(wanted[index] <= now);
            wanted[index] = HTTP_NO_DEADLINE;
        }
        int wait = http_wheel_wait_ms(wheel, now);
        for (uint32_t i = 0; i < TIMERS; i++) {
            /* What is left is not due for more than the tick that is allowed. */
            assert_true(wanted[i] == HTTP_NO_DEADLINE || wanted[i] + HTTP_WHEEL_TICK_MS > now);
            assert_true(wanted[i] == HTTP_NO_DEADLINE ||
                        (wait >= 0 && now + (uint64_t)wait <= wanted[i] + HTTP_WHEEL_TICK_MS));
        }
    }
    mem_free(wheel);
}

static void test_empty(void **state)
{
    struct http_wheel *wheel = mem_alloc(sizeof(*wheel));
    struct http_timer timer = {0};
    (void)state;
    http_wheel_init(wheel, 5);
    assert_int_equal(http_wheel_wait_ms(wheel, 5), -1);
    http_wheel_set(wheel, &timer, 100);
    assert_true(http_wheel_wait_ms(wheel, 5) > 0);
    assert_null(http_wheel_take_due(wheel, 99));
    http_wheel_remove(&timer);
    assert_null(http_wheel_take_due(wheel, 1000000));
    assert_int_equal(http_wheel_wait_ms(wheel, 1000000), -1);
    mem_free(wheel);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_a_list),
        cmocka_unit_test(test_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
