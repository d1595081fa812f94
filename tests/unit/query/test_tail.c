/* Promise: a tail gives what was committed after a place, once and in commit order, to a key that
 * lives. link: query_fixture.c store_fixture.c */
#include "support/query_fixture.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static struct query_fixture fixture;

struct tail {
    struct query_tail query;
    uint64_t place;
    bool more;
};

static int setup(void **state)
{
    (void)state;
    query_fixture_init(&fixture);
    assert_int_equal(store_fixture_sql(&fixture.store,
                                       "INSERT INTO keys (number, id, org, name, hash, scopes, "
                                       "requests_per_minute, mb_per_hour, created_ms, expires_ms) "
                                       "VALUES (5, 'k', 1, '', '', 1, 0, 0, 0, 2000)"),
                     ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    query_fixture_finish(&fixture);
    return 0;
}

static enum err run_tail(struct store_connection *connection, void *context)
{
    struct tail *tail = context;
    return query_tail_read(connection, &tail->query, &fixture.answer, &tail->place, &tail->more);
}

static enum err read_tail(struct tail *tail)
{
    buffer_clear(&fixture.answer);
    enum err err = store_fixture_run(&fixture.store, run_tail, tail);
    assert_int_equal(buffer_append_byte(&fixture.answer, 0), ERR_OK);
    return err;
}

static struct tail tail_after(uint64_t place)
{
    return (struct tail){
        .query = {.filter.org = 1, .key = 5, .now_ms = 1000, .after = place, .bytes_max = 100000}};
}

static enum err run_end(struct store_connection *connection, void *context)
{
    return query_tail_end(connection, 1, context);
}

static uint64_t place_now(void)
{
    uint64_t place = 0;
    assert_int_equal(store_fixture_run(&fixture.store, run_end, &place), ERR_OK);
    return place;
}

static void test_events_in_order(void **state)
{
    (void)state;
    struct id got[10];
    struct tail tail = tail_after(place_now());
    query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    query_fixture_add(&fixture, 7, "other", "", "", 1000, NULL);
    query_fixture_add(&fixture, 1, "b", "", "", 1000, NULL);
    assert_int_equal(read_tail(&tail), ERR_OK);
    assert_false(tail.more);
    assert_int_equal(query_fixture_ids(&fixture, got, 10), 2);
    assert_true(id_equal(got[0], fixture.known[0].id));
    assert_true(id_equal(got[1], fixture.known[2].id));
    assert_true(tail.place == fixture.known[2].sequence);
    /* Nothing new: nothing. */
    tail.query.after = tail.place;
    assert_int_equal(read_tail(&tail), ERR_OK);
    assert_int_equal(fixture.answer.size, 1);
    assert_true(tail.place == fixture.known[2].sequence);
}

/* However small the window, all that fits comes, in order, and the place reaches the end. */
static void test_windows(void **state)
{
    (void)state;
    struct id got[40];
    for (uint64_t window = 1; window < 25; window++) {
        uint32_t from = fixture.count;
        uint32_t count = 0;
        struct tail tail = tail_after(place_now());
        tail.query.window = window;
        tail.query.filter.type = SLICE_LITERAL("rare");
        for (uint32_t i = 0; i < 20; i++) {
            query_fixture_add(&fixture, 1, i % 9 == 4 ? "rare" : "common", "", "", 1000, NULL);
        }
        do {
            assert_int_equal(read_tail(&tail), ERR_OK);
            count += query_fixture_ids(&fixture, got + count, 40 - count);
            tail.query.after = tail.place;
        } while (tail.more);
        assert_int_equal(count, 2);
        assert_true(id_equal(got[0], fixture.known[from + 4].id));
        assert_true(id_equal(got[1], fixture.known[from + 13].id));
        assert_true(tail.place == place_now());
    }
}

/* As after a restore: billions of sequences without an event are one step. */
static void test_a_gap_is_one_step(void **state)
{
    (void)state;
    struct id got[10];
    query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    struct tail tail = tail_after(place_now());
    assert_int_equal(store_fixture_sql(&fixture.store, "UPDATE orgs SET last_sequence ="
                                                       " last_sequence + 4294967296"),
                     ERR_OK);
    assert_int_equal(read_tail(&tail), ERR_OK); /* nothing came yet */
    assert_false(tail.more);
    query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    assert_int_equal(read_tail(&tail), ERR_OK);
    assert_int_equal(query_fixture_ids(&fixture, got, 10), 2);
    assert_false(tail.more);
    assert_true(tail.place == place_now());
}

/* The id of each event is a place from which to resume; data is one line whatever the payload. */
static void test_shape(void **state)
{
    (void)state;
    struct tail tail = tail_after(place_now());
    uint64_t place = 0;
    query_fixture_add(&fixture, 1, "a", "", "", 1000, "{\n\t\"a\":\r\n \"x\\ny\"\n}");
    assert_int_equal(read_tail(&tail), ERR_OK);
    const char *text = (const char *)fixture.answer.data;
    assert_memory_equal(text, "id: ", 4);
    assert_true(query_cursor_parse(QUERY_LIST_TAIL, 1,
                                   slice_make(text + 4, QUERY_CURSOR_TEXT_BYTES), &place));
    assert_true(place == fixture.known[0].sequence);
    const char *data = text + 4 + QUERY_CURSOR_TEXT_BYTES;
    assert_memory_equal(data, "\ndata: {\"id\":\"", 14);
    assert_non_null(strstr(data, "\"payload\":{ \t\"a\":   \"x\\ny\" },"));
    const char *end = strchr(data + 1, '\n');
    assert_string_equal(end, "\n\n");
}

static void test_filters_move_the_place(void **state)
{
    (void)state;
    struct id got[10];
    struct tail tail = tail_after(place_now());
    tail.query.filter.type = SLICE_LITERAL("b");
    query_fixture_add(&fixture, 1, "b", "s", "", 1000, NULL);
    query_fixture_add(&fixture, 1, "a", "s", "", 1000, NULL);
    assert_int_equal(read_tail(&tail), ERR_OK);
    assert_int_equal(query_fixture_ids(&fixture, got, 10), 1);
    assert_true(tail.place == fixture.known[1].sequence);
    tail.query.filter.type = (struct slice){NULL, 0};
    tail.query.filter.subject = SLICE_LITERAL("t");
    assert_int_equal(read_tail(&tail), ERR_OK);
    assert_int_equal(query_fixture_ids(&fixture, got, 10), 0);
}

static void test_pages(void **state)
{
    (void)state;
    struct id got[100];
    struct tail tail = tail_after(place_now());
    uint32_t count = 0;
    for (uint32_t i = 0; i < 50; i++) {
        query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    }
    tail.query.bytes_max = 2000;
    do {
        assert_int_equal(read_tail(&tail), ERR_OK);
        assert_true(fixture.answer.size < 3000);
        count += query_fixture_ids(&fixture, got + count, 100 - count);
        tail.query.after = tail.place;
    } while (tail.more);
    assert_int_equal(count, 50);
    for (uint32_t i = 0; i < 50; i++) {
        assert_true(id_equal(got[i], fixture.known[i].id));
    }
}

static void test_dead_keys(void **state)
{
    (void)state;
    struct tail tail = tail_after(place_now());
    query_fixture_add(&fixture, 1, "a", "", "", 1000, NULL);
    tail.query.now_ms = 2000; /* the moment it expires */
    assert_int_equal(read_tail(&tail), ERR_UNAUTHORIZED);
    assert_int_equal(fixture.answer.size, 1);
    tail.query.now_ms = 1999;
    assert_int_equal(read_tail(&tail), ERR_OK);
    assert_int_equal(
        store_fixture_sql(&fixture.store, "UPDATE keys SET revoked_ms = 1 WHERE number = 5"),
        ERR_OK);
    assert_int_equal(read_tail(&tail), ERR_UNAUTHORIZED);
    tail.query.key = 6;
    assert_int_equal(read_tail(&tail), ERR_UNAUTHORIZED);
}

int main(void)
{
    if (hash_start() != ERR_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_windows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_gap_is_one_step, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shape, setup, teardown),
        cmocka_unit_test_setup_teardown(test_filters_move_the_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_keys, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
