/* Promise: a key has the same lane for ever, all lanes are used, and orgs are spread differently.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>
#include <xxhash.h>

#include "record/record.h"

static struct slice key_of(char *text, size_t size, int i)
{
    int length = snprintf(text, size, "user-%d", i);
    return slice_make(text, (size_t)length);
}

/* The definition: the six low bits of XXH3-64 with the org as seed. */
static void test_lane_is_the_hash(void **state)
{
    (void)state;
    char text[32];
    for (int i = 0; i < 1000; i++) {
        struct slice key = key_of(text, sizeof(text), i);
        assert_int_equal(record_lane(42, key),
                         XXH3_64bits_withSeed(key.data, key.size, 42) % LIMIT_LANES);
    }
}

static void test_lanes_are_used_evenly(void **state)
{
    (void)state;
    enum { KEYS = 64000 };
    uint32_t counts[LIMIT_LANES] = {0};
    uint32_t same = 0;
    char text[32];
    for (int i = 0; i < KEYS; i++) {
        struct slice key = key_of(text, sizeof(text), i);
        uint8_t lane = record_lane(1, key);
        assert_true(lane < LIMIT_LANES);
        counts[lane]++;
        same += lane == record_lane(2, key);
    }
    /* 1,000 expected, standard deviation 31: seven of them on each side. */
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        assert_in_range(counts[i], 780, 1220);
    }
    assert_in_range(same, 780, 1220);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lane_is_the_hash),
        cmocka_unit_test(test_lanes_are_used_evenly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
