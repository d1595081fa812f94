/* Promise: a list gives every event of its org that fits the filters exactly once, in commit order,
 * however it is cut into pages, however many were acknowledged, and whatever came in meanwhile.
 * link: query_fixture.c store_fixture.c */
#include "support/query_fixture.h"

#include "base/hash.h"
#include "base/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOUR_MS 3600000

static struct query_fixture fixture;
static struct id got[QUERY_EVENTS_MAX];

static int setup(void **state)
{
    (void)state;
    query_fixture_init(&fixture);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    query_fixture_finish(&fixture);
    return 0;
}

static struct query_events query_all(uint64_t org)
{
    return (struct query_events){.filter.org = org,
                                 .status = QUERY_STATUS_ANY,
                                 .start_ms = INT64_MIN,
                                 .end_ms = INT64_MAX,
                                 .limit = 100};
}

static enum query_list list_of(const struct query_events *query)
{
    return query->oldest_first ? QUERY_LIST_EVENTS_OLDEST : QUERY_LIST_EVENTS_NEWEST;
}

/* All pages, one after the other. */
static uint32_t read_all(struct query_events query)
{
    uint32_t count = 0;
    bool may_be_empty = query.page_ns != 0;
    if (!may_be_empty) {
        query.page_ns = UINT64_C(60000) * 1000000u; /* a busy machine ends no page early */
    }
    do {
        assert_int_equal(query_fixture_list(&fixture, &query), ERR_OK);
        uint32_t page = query_fixture_ids(&fixture, got + count, QUERY_EVENTS_MAX - count);
        assert_true(page <= query.limit);
        count += page;
        query.after = query_fixture_cursor(&fixture, list_of(&query), query.filter.org);
        assert_true(query.after == 0 || page > 0 || may_be_empty);
    } while (query.after != 0);
    return count;
}

static bool fits_text(struct slice wanted, const char *text)
{
    return wanted.data == NULL || slice_equal(wanted, slice_from_text(text));
}

static bool fits(const struct query_events *query, const struct query_known *known)
{
    if (known->org != query->filter.org || !fits_text(query->filter.type, known->type) ||
        !fits_text(query->filter.subject, known->subject) ||
        !fits_text(query->filter.app, known->app) || known->created_ms < query->start_ms ||
        known->created_ms >= query->end_ms) {
        return false;
    }
    switch (query->status) {
    case QUERY_STATUS_ANY:
        return true;
    case QUERY_STATUS_OPEN:
    case QUERY_STATUS_PENDING:
        return !known->acknowledged;
    case QUERY_STATUS_ACKNOWLEDGED:
        return known->acknowledged;
    case QUERY_STATUS_DELIVERED:
    case QUERY_STATUS_FAILED:
        return false;
    }
    return false;
}

/* The model was filled in commit order. */
static void expect(const struct query_events *query, uint32_t count)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < fixture.count; i++) {
        uint32_t index = query->oldest_first ? i : fixture.count - 1 - i;
        if (!fits(query, &fixture.known[index])) {
            continue;
        }
        assert_true(n < count);
        assert_true(id_equal(got[n], fixture.known[index].id));
        n++;
    }
    assert_int_equal(n, count);
}

static void test_empty(void **state)
{
    (void)state;
    struct query_events query = query_all(1);
    assert_int_equal(query_fixture_list(&fixture, &query), ERR_OK);
    assert_string_equal((const char *)fixture.answer.data, "{\"events\":[],\"next_cursor\":null}");
}

static void test_shape_of_an_event(void **state)
{
    (void)state;
    struct query_events query = query_all(1);
    char expected[600];
    char id[ID_TEXT_BYTES + 1] = {0};
    const struct query_known *known =
        query_fixture_add(&fixture, 1, "user.login", "u-1", "", 1700000000123, "{ \"a\" : [1,2] }");
    id_format(known->id, id);
    (void)snprintf(
        expected, sizeof(expected),
        "{\"events\":[{\"id\":\"%s\",\"type\":\"user.login\",\"event_type\":\"user.login\","
        "\"dedup_id\":null,\"subject\":\"u-1\",\"source\":null,\"app\":null,"
        "\"payload\":{ \"a\" : [1,2] },\"occurred_at\":\"2023-11-14T22:13:20.122Z\","
        "\"created_at\":\"2023-11-14T22:13:20.123Z\",\"delivery_status\":\"pending\","
        "\"attempts\":0}],\"next_cursor\":null}",
        id);
    assert_int_equal(query_fixture_list(&fixture, &query), ERR_OK);
    assert_string_equal((const char *)fixture.answer.data, expected);
}

static void test_random_lists(void **state)
{
    (void)state;
    static const char *const types[] = {"a", "b", "c.d"};
    static const char *const subjects[] = {"", "s1", "s2"};
    static const char *const apps[] = {"", "web"};
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (uint32_t i = 0; i < 600; i++) {
        /* The clock runs, and is stepped back now and then. */
        int64_t created_ms =
            (int64_t)(i / 20) * HOUR_MS / 2 + (rand() % 20 == 0 ? -5 * HOUR_MS : 0) + 100 * HOUR_MS;
        query_fixture_add(&fixture, rand() % 4 == 0 ? 7 : 1, types[rand() % 3],
                          subjects[rand() % 3], apps[rand() % 2], created_ms, NULL);
    }
    for (uint32_t round = 0; round < 150; round++) {
        if (round % 3 == 0) { /* a run, or scattered ones */
            uint32_t start = (uint32_t)rand() % fixture.count;
            uint32_t step = rand() % 2 == 0 ? 1 : 2;
            for (uint32_t i = start; i < start + 20 && i < fixture.count; i += step) {
                (void)query_fixture_acknowledge(&fixture, fixture.known[i].org,
                                                &fixture.known[i].id, 1);
            }
        }
        struct query_events query = query_all(rand() % 2 == 0 ? 1 : 7);
        query.status = (enum query_status)(rand() % 6);
        query.oldest_first = rand() % 2 == 0;
        query.limit = 1 + (uint32_t)rand() % 50;
        query.filter.type =
            rand() % 2 == 0 ? slice_from_text(types[rand() % 3]) : (struct slice){NULL, 0};
        query.filter.subject = rand() % 3 == 0 ? SLICE_LITERAL("s1") : (struct slice){NULL, 0};
        query.filter.app = rand() % 3 == 0 ? SLICE_LITERAL("web") : (struct slice){NULL, 0};
        if (rand() % 2 == 0) {
            query.start_ms = (100 + rand() % 16) * (int64_t)HOUR_MS + rand() % HOUR_MS;
        }
        if (rand() % 2 == 0) {
            query.end_ms = (100 + rand() % 20) * (int64_t)HOUR_MS + rand() % HOUR_MS;
        }
        if (rand() % 2 == 0) { /* every page ends at its first window, or where it is full */
            query.page_ns = 1;
            query.window = 1 + (uint64_t)rand() % 40;
        }
        expect(&query, read_all(query));
    }
}

static void test_pages_are_stable_under_inserts(void **state)
{
    (void)state;
    struct query_events query = query_all(1);
    query.limit = 10;
    for (uint32_t i = 0; i < 30; i++) {
        query_fixture_add(&fixture, 1, "a", "", "", 1000 + i, NULL);
    }
    for (uint32_t page = 0; page < 3; page++) {
        assert_int_equal(query_fixture_list(&fixture, &query), ERR_OK);
        assert_int_equal(query_fixture_ids(&fixture, got, QUERY_EVENTS_MAX), 10);
        for (uint32_t i = 0; i < 10; i++) {
            assert_true(id_equal(got[i], fixture.known[29 - page * 10 - i].id));
        }
        query.after = query_fixture_cursor(&fixture, QUERY_LIST_EVENTS_NEWEST, 1);
        query_fixture_add(&fixture, 1, "later", "", "", 5000, NULL);
    }
    assert_int_equal(query.after, 0);
}

static void test_pages_are_bounded_in_bytes(void **state)
{
    (void)state;
    static char payload[100 * 1024];
    struct query_events query = query_all(1);
    memset(payload, ' ', sizeof(payload) - 1);
    payload[0] = '1';
    for (uint32_t i = 0; i < 8; i++) {
        query_fixture_add(&fixture, 1, "big", "", "", 1000, payload);
    }
    assert_int_equal(query_fixture_list(&fixture, &query), ERR_OK);
    assert_true(fixture.answer.size < LIMIT_PAGE_BYTES + 2 * sizeof(payload));
    assert_int_equal(query_fixture_ids(&fixture, got, QUERY_EVENTS_MAX), 3);
    expect(&query, read_all(query));
}

/* A run that is acknowledged in any order ends as one range. */
static void test_acknowledging(void **state)
{
    (void)state;
    struct id ids[3];
    struct query_known *other = query_fixture_add(&fixture, 7, "a", "", "", 1000, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    }
    int64_t version =
        store_fixture_number(&fixture.store, "SELECT data_version FROM orgs WHERE number = 1");
    for (uint32_t i = 1; i <= 20; i++) {
        uint32_t place = 1 + i * 7 % 20; /* in any order */
        assert_int_equal(query_fixture_acknowledge(&fixture, 1, &fixture.known[place].id, 1), 1);
    }
    assert_int_equal(store_fixture_number(&fixture.store, "SELECT count(*) FROM event_acks"), 1);
    assert_int_equal(
        store_fixture_number(&fixture.store, "SELECT data_version FROM orgs WHERE number = 1"),
        version + 20);
    /* Again: still acknowledged, nothing changes. */
    assert_int_equal(query_fixture_acknowledge(&fixture, 1, &fixture.known[3].id, 1), 1);
    assert_int_equal(
        store_fixture_number(&fixture.store, "SELECT data_version FROM orgs WHERE number = 1"),
        version + 20);
    /* Another org's, one that never was, and a good one. */
    ids[0] = other->id;
    ids[1] = id_make_v7(1);
    ids[2] = fixture.known[4].id;
    assert_int_equal(query_fixture_acknowledge(&fixture, 1, ids, 3), 1);
    struct query_events query = query_all(7);
    query.status = QUERY_STATUS_OPEN;
    expect(&query, read_all(query));
    assert_false(other->acknowledged);
}

static enum err run_get(struct store_connection *connection, void *context)
{
    const struct query_known *known = context;
    buffer_clear(&fixture.answer);
    return query_event_get(connection, known->org, known->id, &fixture.answer);
}

static void test_one_event(void **state)
{
    (void)state;
    struct query_known known = *query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    assert_int_equal(store_fixture_run(&fixture.store, run_get, &known), ERR_OK);
    assert_int_equal(buffer_append_byte(&fixture.answer, 0), ERR_OK);
    assert_non_null(strstr((const char *)fixture.answer.data, "\"payload\":{\"n\":1}"));
    assert_non_null(strstr((const char *)fixture.answer.data, "\"delivery_status\":\"pending\""));
    (void)query_fixture_acknowledge(&fixture, 1, &known.id, 1);
    assert_int_equal(store_fixture_run(&fixture.store, run_get, &known), ERR_OK);
    assert_int_equal(buffer_append_byte(&fixture.answer, 0), ERR_OK);
    assert_non_null(
        strstr((const char *)fixture.answer.data, "\"delivery_status\":\"acknowledged\""));
    known.org = 7;
    assert_int_equal(store_fixture_run(&fixture.store, run_get, &known), ERR_NOT_FOUND);
    known.org = 1;
    known.id.bytes[3] ^= 1;
    assert_int_equal(store_fixture_run(&fixture.store, run_get, &known), ERR_NOT_FOUND);
}

/* As after a restore: billions of sequences without an event cost no page of a list, though each
 * page's time is over at once. */
static void test_a_gap_is_one_step(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        query_fixture_add(&fixture, 1, "a", "s", "", 1000, NULL);
    }
    assert_int_equal(store_fixture_sql(&fixture.store, "UPDATE orgs SET last_sequence ="
                                                       " last_sequence + 4294967296"),
                     ERR_OK);
    for (int i = 0; i < 3; i++) {
        query_fixture_add(&fixture, 1, "a", "s", "", 1000, NULL);
    }
    for (int i = 0; i < 4; i++) {
        struct query_events query = query_all(1);
        query.page_ns = 1;
        query.oldest_first = i % 2 == 1;
        query.filter.subject = i < 2 ? (struct slice){NULL, 0} : SLICE_LITERAL("s");
        uint32_t count = 0;
        uint32_t pages = 0;
        do {
            assert_int_equal(query_fixture_list(&fixture, &query), ERR_OK);
            count += query_fixture_ids(&fixture, got + count, QUERY_EVENTS_MAX - count);
            query.after = query_fixture_cursor(&fixture, list_of(&query), 1);
            pages++;
        } while (query.after != 0);
        expect(&query, count);
        assert_int_equal(count, 6);
        assert_true(pages < 10);
    }
}

/* Each second event acknowledged: many stretches. On a machine that takes too long for each of them
 * a short list is one page all the same. */
static void test_a_short_list_is_one_page(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 40; i++) {
        const struct query_known *one = query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
        if (i % 2 == 0) {
            assert_int_equal(query_fixture_acknowledge(&fixture, 1, &one->id, 1), 1);
        }
    }
    for (int i = 0; i < 2; i++) {
        struct query_events query = query_all(1);
        query.page_ns = 1;
        query.oldest_first = i == 1;
        assert_int_equal(query_fixture_list(&fixture, &query), ERR_OK);
        assert_int_equal(query_fixture_ids(&fixture, got, QUERY_EVENTS_MAX), 40);
        assert_int_equal(query_fixture_cursor(&fixture, list_of(&query), 1), 0);
    }
}

int main(void)
{
    if (hash_start() != ERR_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_short_list_is_one_page, setup, teardown),
        cmocka_unit_test_setup_teardown(test_empty, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shape_of_an_event, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_are_stable_under_inserts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages_are_bounded_in_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_acknowledging, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_event, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_gap_is_one_step, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
