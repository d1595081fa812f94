/* Promise: uploads and dead letters are listed in either order to their own org alone, and a dead
 * letter that is tried again is either an event or still a dead letter, never both and never
 * neither. link: query_fixture.c store_fixture.c */
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

struct ask {
    enum err (*run)(struct store_connection *connection, const struct query_page *page,
                    struct buffer *to);
    enum err (*run_one)(struct store_connection *connection, uint64_t org, struct id id,
                        uint32_t areas, struct buffer *to);
    struct query_page page;
    struct id id;
};

static enum err run_ask(struct store_connection *connection, void *context)
{
    const struct ask *ask = context;
    buffer_clear(&fixture.answer);
    enum err err = ask->run != NULL ? ask->run(connection, &ask->page, &fixture.answer)
                                    : ask->run_one(connection, ask->page.org, ask->id,
                                                   ask->page.areas, &fixture.answer);
    return err == ERR_OK ? buffer_append_byte(&fixture.answer, 0) : err;
}

static const char *text(void)
{
    return (const char *)fixture.answer.data;
}

/* The id whose first byte is `n`, the rest zero. */
static struct id id_of(uint8_t n)
{
    struct id id = {{n}};
    return id;
}

static void add_upload(uint32_t n, uint32_t org, uint32_t state)
{
    char sql[600];
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO uploads (id, org, key, position, form, state, head, "
                   "decoded_bytes, stored_bytes, element_count, accepted_count, rejected_count, "
                   "slice_count, applied_count, inserted_count, duplicate_count, errors, "
                   "received_ms, finished_ms) VALUES (x'%02x000000000000000000000000000000', %u, "
                   "1, %u, 3, %u, x'00', 1000, 100, 10, 8, 2, 1, 8, 7, 1, "
                   "'[{\"index\":3}]', 0, %s)",
                   n, org, n * 10, state, state == 1 ? "NULL" : "1000");
    assert_int_equal(store_fixture_sql(&fixture.store, sql), ERR_OK);
}

static void test_uploads(void **state)
{
    (void)state;
    struct ask ask = {.run = query_uploads_list, .page = {.org = 1, .limit = 2, .areas = 3}};
    for (uint32_t i = 1; i <= 5; i++) {
        add_upload(i, 1, i == 5 ? 1 : 3);
    }
    add_upload(6, 7, 2);
    assert_int_equal(store_fixture_run(&fixture.store, run_ask, &ask), ERR_OK);
    assert_non_null(strstr(text(), "{\"uploads\":[{\"raw_ingestion_id\":"
                                   "\"05000000-0000-0000-0000-000000000000\""));
    assert_non_null(strstr(text(), "\"state\":\"applying\",\"bytes\":1000,"));
    assert_non_null(strstr(text(), "\"finished_at\":null"));
    assert_non_null(strstr(text(), "\"upload_id\":\"04000000-"));
    assert_null(strstr(text(), "\"upload_id\":\"03000000-"));
    assert_null(strstr(text(), "\"upload_id\":\"06000000-"));
    ask.page.after = query_fixture_cursor(&fixture, QUERY_LIST_UPLOADS, 1);
    assert_int_equal(ask.page.after, 40);
    ask.page.limit = 3;
    assert_int_equal(store_fixture_run(&fixture.store, run_ask, &ask), ERR_OK);
    assert_non_null(strstr(text(), "\"upload_id\":\"01000000-"));
    assert_int_equal(query_fixture_cursor(&fixture, QUERY_LIST_UPLOADS, 1), 0);
    ask.page = (struct query_page){.org = 1, .limit = 2, .areas = 3, .oldest_first = true};
    assert_int_equal(store_fixture_run(&fixture.store, run_ask, &ask), ERR_OK);
    assert_non_null(strstr(text(), "{\"uploads\":[{\"raw_ingestion_id\":\"01000000-"));
    ask.page.after = query_fixture_cursor(&fixture, QUERY_LIST_UPLOADS_OLDEST, 1);
    assert_int_equal(ask.page.after, 20);
    ask.page.limit = 3;
    assert_int_equal(store_fixture_run(&fixture.store, run_ask, &ask), ERR_OK);
    assert_non_null(strstr(text(), "\"upload_id\":\"05000000-"));
    assert_null(strstr(text(), "\"upload_id\":\"02000000-"));
    assert_int_equal(query_fixture_cursor(&fixture, QUERY_LIST_UPLOADS_OLDEST, 1), 0);
}

static void test_one_upload(void **state)
{
    (void)state;
    struct ask ask = {.run_one = query_upload_get, .page = {.org = 1, .areas = 3}, .id = id_of(4)};
    add_upload(4, 1, 3);
    assert_int_equal(store_fixture_run(&fixture.store, run_ask, &ask), ERR_OK);
    assert_string_equal(
        text(), "{\"raw_ingestion_id\":\"04000000-0000-0000-0000-000000000000\","
                "\"upload_id\":\"04000000-0000-0000-0000-000000000000\",\"state\":\"partial\","
                "\"bytes\":1000,\"stored_bytes\":100,\"points_total\":10,\"points_applied\":8,"
                "\"counts\":{\"accepted\":8,\"rejected\":2,\"inserted\":7,\"duplicates\":1,"
                "\"conflicts\":0,\"refused\":0},\"errors\":[{\"index\":3}],\"raw_available\":true,"
                "\"received_at\":\"1970-01-01T00:00:00.000Z\","
                "\"finished_at\":\"1970-01-01T00:00:01.000Z\"}");
    ask.page.org = 7;
    assert_int_equal(store_fixture_run(&fixture.store, run_ask, &ask), ERR_NOT_FOUND);
}

static enum err run_settle(struct store_connection *connection, void *context)
{
    const struct ask *ask = context;
    return query_upload_settle(connection, ask->page.org, ask->id, ask->page.areas);
}

static enum err run_delete(struct store_connection *connection, void *context)
{
    const struct ask *ask = context;
    return query_upload_delete(connection, ask->page.org, ask->id, ask->page.areas);
}

static void test_deleting_an_upload(void **state)
{
    (void)state;
    static const char versions[] = "SELECT data_version FROM orgs WHERE number = 1";
    struct ask ask = {.page = {.org = 7, .areas = 3}, .id = id_of(4)};
    add_upload(4, 1, 2);
    add_upload(5, 1, 1);
    assert_int_equal(store_fixture_run(&fixture.store, run_settle, &ask), ERR_NOT_FOUND);
    assert_int_equal(store_fixture_run(&fixture.store, run_delete, &ask), ERR_NOT_FOUND);
    ask.page = (struct query_page){.org = 1, .areas = QUERY_AREA_READINGS}; /* it holds events */
    assert_int_equal(store_fixture_run(&fixture.store, run_settle, &ask), ERR_NOT_FOUND);
    assert_int_equal(store_fixture_run(&fixture.store, run_delete, &ask), ERR_NOT_FOUND);
    ask.page.areas = QUERY_AREA_EVENTS;
    /* It has to write something, or its commit syncs nothing. */
    int64_t version = store_fixture_number(&fixture.store, versions);
    assert_int_equal(store_fixture_run(&fixture.store, run_settle, &ask), ERR_OK);
    assert_int_equal(store_fixture_number(&fixture.store, versions), version + 1);
    assert_int_equal(store_fixture_run(&fixture.store, run_delete, &ask), ERR_OK);
    assert_int_equal(store_fixture_run(&fixture.store, run_delete, &ask), ERR_NOT_FOUND);
    ask.id = id_of(5);
    assert_int_equal(store_fixture_run(&fixture.store, run_settle, &ask), ERR_EXISTS);
    assert_int_equal(store_fixture_run(&fixture.store, run_delete, &ask), ERR_EXISTS);
    assert_int_equal(store_fixture_number(&fixture.store, "SELECT count(*) FROM uploads"), 1);
}

static void add_letter(uint32_t n, uint32_t org, const char *record)
{
    char sql[600];
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO dead_letters (id, org, kind, reason, detail, position, element, "
                   "form, record, received_ms) VALUES (x'%02x000000000000000000000000000000', %u, "
                   "'event', 'refused', 'a reason', 5, 0, 1, CAST('%s' AS BLOB), 1000)",
                   n, org, record);
    assert_int_equal(store_fixture_sql(&fixture.store, sql), ERR_OK);
}

static void test_dead_letters(void **state)
{
    (void)state;
    struct ask ask = {.run = query_dead_letters_list, .page = {.org = 1, .limit = 10, .areas = 3}};
    add_letter(1, 1, "{\"type\":\"a\",\"payload\":1}");
    add_letter(2, 7, "{}");
    add_letter(3, 1, "no \"json\"");
    assert_int_equal(store_fixture_run(&fixture.store, run_ask, &ask), ERR_OK);
    assert_string_equal(
        text(),
        "{\"dead_letters\":[{\"id\":\"03000000-0000-0000-0000-000000000000\",\"kind\":\"event\","
        "\"reason\":\"refused\",\"detail\":\"a reason\","
        "\"received_at\":\"1970-01-01T00:00:01.000Z\",\"record\":\"no \\\"json\\\"\"},"
        "{\"id\":\"01000000-0000-0000-0000-000000000000\",\"kind\":\"event\","
        "\"reason\":\"refused\",\"detail\":\"a reason\","
        "\"received_at\":\"1970-01-01T00:00:01.000Z\",\"record\":{\"type\":\"a\",\"payload\":1}}],"
        "\"next_cursor\":null}");
}

static enum err run_retry(struct store_connection *connection, void *context)
{
    const struct ask *ask = context;
    return query_dead_letter_retry(connection, ask->page.org, ask->id, ask->page.areas);
}

static void test_retry(void **state)
{
    (void)state;
    struct ask ask = {.page = {.org = 7, .areas = 3}, .id = id_of(1)};
    add_letter(1, 1, "{\"type\":\"a\",\"payload\":{\"x\":1}}");
    store_fixture_refuse(&fixture.store, "NEW.type = NEW.type");
    assert_int_equal(store_fixture_run(&fixture.store, run_retry, &ask), ERR_NOT_FOUND);
    ask.page = (struct query_page){.org = 1, .areas = QUERY_AREA_READINGS};
    assert_int_equal(store_fixture_run(&fixture.store, run_retry, &ask), ERR_NOT_FOUND);
    ask.page.areas = QUERY_AREA_EVENTS;
    assert_int_equal(store_fixture_run(&fixture.store, run_retry, &ask), ERR_REFUSED);
    assert_int_equal(store_fixture_number(&fixture.store, "SELECT count(*) FROM dead_letters"), 1);
    store_fixture_refuse(&fixture.store, NULL);
    assert_int_equal(store_fixture_run(&fixture.store, run_retry, &ask), ERR_OK);
    assert_int_equal(store_fixture_number(&fixture.store, "SELECT count(*) FROM dead_letters"), 0);
    assert_int_equal(store_fixture_number(&fixture.store,
                                          "SELECT count(*) FROM event_ids WHERE "
                                          "id = x'01000000000000000000000000000000'"),
                     1);
    assert_int_equal(
        store_fixture_number(&fixture.store,
                             "SELECT count(*) FROM events WHERE type = 'a' AND payload = "
                             "'{\"x\":1}' AND created_ms = 1000"),
        1);
    assert_int_equal(store_fixture_run(&fixture.store, run_retry, &ask), ERR_NOT_FOUND);
}

static void test_retry_of_what_is_unreadable(void **state)
{
    (void)state;
    struct ask ask = {.page = {.org = 1, .areas = 3}, .id = id_of(1)};
    add_letter(1, 1, "{\"type\":");
    assert_int_equal(store_fixture_run(&fixture.store, run_retry, &ask), ERR_INVALID);
    assert_int_equal(store_fixture_number(&fixture.store, "SELECT count(*) FROM dead_letters"), 1);
}

int main(void)
{
    if (hash_start() != ERR_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_uploads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_upload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deleting_an_upload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_letters, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retry_of_what_is_unreadable, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
