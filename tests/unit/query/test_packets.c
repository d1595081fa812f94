/* Promise: packet health is what formats/telemetry.md 2 says, at its bounds too. */
#include "query/packets.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void test_missing_decides(void **state)
{
    (void)state;
    static const enum packet_status expected[] = {PACKET_OK,      PACKET_OK,      PACKET_WARNING,
                                                  PACKET_WARNING, PACKET_WARNING, PACKET_WARNING,
                                                  PACKET_CRITICAL};
    for (uint64_t missing = 0; missing < 7; missing++) {
        assert_int_equal(query_packet_status(missing, 0, 60000), expected[missing]);
    }
}

static void test_age_decides(void **state)
{
    (void)state;
    assert_int_equal(query_packet_status(0, 119999, 60000), PACKET_OK);
    assert_int_equal(query_packet_status(0, 120000, 60000), PACKET_WARNING);
    assert_int_equal(query_packet_status(0, 180000, 60000), PACKET_WARNING);
    assert_int_equal(query_packet_status(0, 180001, 60000), PACKET_CRITICAL);
    assert_int_equal(query_packet_status(0, INT64_MAX, 60000), PACKET_CRITICAL);
    assert_int_equal(query_packet_status(3, 180001, 60000), PACKET_CRITICAL);
    assert_int_equal(query_packet_status(6, 0, 60000), PACKET_CRITICAL);
}

static void test_sites(void **state)
{
    (void)state;
    assert_int_equal(query_packet_score_status(0), PACKET_OK);
    assert_int_equal(query_packet_score_status(1), PACKET_WARNING);
    assert_int_equal(query_packet_score_status(4), PACKET_WARNING);
    assert_int_equal(query_packet_score_status(5), PACKET_CRITICAL);
    assert_int_equal(query_packet_site_status(8, 10, 6), PACKET_OK);
    assert_int_equal(query_packet_site_status(79, 100, 21), PACKET_CRITICAL);
    assert_int_equal(query_packet_site_status(0, 1, 3), PACKET_WARNING);
    assert_int_equal(query_packet_site_status(0, 0, 0), PACKET_OK);
}

static void test_on_time(void **state)
{
    (void)state;
    assert_true(query_packet_on_time(30, 15, 60) >= 25.0 &&
                query_packet_on_time(30, 15, 60) <= 25.0);
    assert_true(query_packet_on_time(90, 0, 60) <= 100.0);
    assert_true(query_packet_on_time(0, 0, 60) <= 0.0);
    assert_true(query_packet_on_time(0, 0, 0) >= 100.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_decides),
        cmocka_unit_test(test_age_decides),
        cmocka_unit_test(test_sites),
        cmocka_unit_test(test_on_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
