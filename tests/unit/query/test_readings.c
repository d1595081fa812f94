/* Promise: buckets are the same whole buckets, each once, whether or not minutes are dirty,
 * whatever the range and the size of a page. link: store_fixture.c */
#include "query/query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "support/store_fixture.h"

#define MINUTE_MS 60000ll
#define HOUR_MS   (60 * MINUTE_MS)

static struct store_fixture fixture;

/* One series: a reading of 1 every half hour from 10:00 to 12:30, so two of them an hour. What is
 * stored of the hours is old: it has the first of the two alone. */
static int setup(void **state)
{
    (void)state;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, true);
    store_fixture_add_org(&fixture, 1);
    static const char *const texts[] = {
        "INSERT INTO projects (number, org, id, name, created_ms, updated_ms)"
        " VALUES (1, 1, x'00000000000070008000000000000001', 'p', 0, 0)",
        "INSERT INTO sites (number, org, id, project, name, created_ms, updated_ms)"
        " VALUES (1, 1, x'00000000000070008000000000000002', 1, 's', 0, 0)",
        "INSERT INTO devices (number, org, id, site, name, status, interval_s, created_ms,"
        " updated_ms) VALUES (1, 1, x'00000000000070008000000000000003', 1, 'd', 'active', 60, 0,"
        " 0)",
        "INSERT INTO parameters (number, org, id, project, name, name_key, key, dtype, policy,"
        " required, created_ms, updated_ms) VALUES (1, 1, x'00000000000070008000000000000004', 1,"
        " 'v', 'v', 'k', 'float', 'flag', 0, 0, 0)",
        "INSERT INTO series (number, org, device, parameter) VALUES (1, 1, 1, 1)"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        assert_int_equal(store_fixture_sql(&fixture, texts[i]), ERR_OK);
    }
    for (long long half = 20; half < 26; half++) {
        char text[320];
        (void)snprintf(text, sizeof(text),
                       "INSERT INTO readings (org, series, time_ms, value, flags, received_ms,"
                       " position) VALUES (1, 1, %lld, 1, 0, 0, 1)",
                       half * HOUR_MS / 2);
        assert_int_equal(store_fixture_sql(&fixture, text), ERR_OK);
        (void)snprintf(text, sizeof(text),
                       half % 2 == 0
                           ? "INSERT INTO rollups (org, series, width_ms, start_ms, count, sum,"
                             " min, max, last) VALUES (1, 1, 3600000, %lld, 1, 1, 1, 1, 1)"
                           : "INSERT INTO rollup_dirty (org, series, start_ms) VALUES (1, 1, %lld)",
                       half * HOUR_MS / 2);
        assert_int_equal(store_fixture_sql(&fixture, text), ERR_OK);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_fixture_finish(&fixture);
    return 0;
}

struct asked {
    struct query_readings query;
    struct query_readings_end end;
    struct buffer text;
};

static enum err run_page(struct store_connection *connection, void *context)
{
    struct asked *asked = context;
    return query_readings_page(connection, &asked->query, &asked->text, &asked->end);
}

static void ask(struct asked *asked)
{
    buffer_clear(&asked->text);
    assert_int_equal(store_fixture_run(&fixture, run_page, asked), ERR_OK);
    assert_int_equal(buffer_append_byte(&asked->text, 0), ERR_OK);
}

static struct asked hours(uint32_t limit)
{
    struct asked asked = {.query = {.org = 1,
                                    .start_ms = INT64_MIN,
                                    .end_ms = INT64_MAX,
                                    .is_bucketed = true,
                                    .width = 2,
                                    .aggregate = QUERY_COUNT,
                                    .form = QUERY_READINGS_ROWS,
                                    .limit = limit}};
    buffer_init(&asked.text, 65536);
    return asked;
}

/* Pages of one bucket. */
static void check_pages(bool newest_first)
{
    static const char *const expected[] = {"{\"time\":\"1970-01-01T10:00:00.000Z\",\"value\":2}",
                                           "{\"time\":\"1970-01-01T11:00:00.000Z\",\"value\":2}",
                                           "{\"time\":\"1970-01-01T12:00:00.000Z\",\"value\":2}"};
    struct asked asked = hours(1);
    asked.query.newest_first = newest_first;
    for (size_t i = 0; i < 3; i++) {
        ask(&asked);
        assert_string_equal((const char *)asked.text.data, expected[newest_first ? 2 - i : i]);
        assert_int_equal(asked.end.has_more, i < 2);
        asked.query.after = asked.end.place;
    }
    buffer_finish(&asked.text);
}

static void test_pages_go_on_behind_a_dirty_bucket(void **state)
{
    (void)state;
    check_pages(false);
}

static void test_pages_go_back_before_a_dirty_bucket(void **state)
{
    (void)state;
    check_pages(true);
}

static void test_a_range_that_ends_before_the_dirty_minute(void **state)
{
    (void)state;
    struct asked asked = hours(10);
    asked.query.start_ms = 11 * HOUR_MS + MINUTE_MS;
    asked.query.end_ms = 12 * HOUR_MS + MINUTE_MS;
    ask(&asked);
    assert_string_equal((const char *)asked.text.data,
                        "{\"time\":\"1970-01-01T11:00:00.000Z\",\"value\":2},"
                        "{\"time\":\"1970-01-01T12:00:00.000Z\",\"value\":2}");
    asked.query.end_ms = 12 * HOUR_MS; /* the end itself is not in it */
    ask(&asked);
    assert_string_equal((const char *)asked.text.data,
                        "{\"time\":\"1970-01-01T11:00:00.000Z\",\"value\":2}");
    buffer_finish(&asked.text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_pages_go_on_behind_a_dirty_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_go_back_before_a_dirty_bucket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_range_that_ends_before_the_dirty_minute, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
