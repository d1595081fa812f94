/* Promise: what is bound comes back as it was, NULL and empty stay apart, statements are found
 * again, and the engine's errors arrive as ours.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include "store/postgres.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static int setup(void **state)
{
    static struct store_fixture fixture;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    store_fixture_finish(*state);
    return 0;
}

/* `context`: a text for $2. */
static enum err run_round_trip(struct store_connection *connection, void *context)
{
    const struct slice *middle = context;
    struct store_statement *statement = NULL;
    bool has_row = false;
    /* $3 before $1, and $2 twice: numbers are ours, not the order in the text. */
    assert_int_equal(store_prepare(connection, "SELECT $3, $1, $2, $2, $4, $5, $6", &statement),
                     ERR_OK);
    store_bind_i64(statement, 1, INT64_MIN);
    store_bind_text(statement, 2, *middle);
    store_bind_blob(statement, 3, slice_make("\xff\x00", 2));
    store_bind_double(statement, 4, 0.1);
    store_bind_text(statement, 5, SLICE_LITERAL(""));
    store_bind_null(statement, 6);
    assert_int_equal(store_step(statement, &has_row), ERR_OK);
    assert_true(has_row);
    assert_true(slice_equal(store_column_bytes(statement, 0), slice_make("\xff\x00", 2)));
    assert_true(store_column_i64(statement, 1) == INT64_MIN);
    assert_true(slice_equal(store_column_bytes(statement, 2), *middle));
    assert_true(slice_equal(store_column_bytes(statement, 3), *middle));
    assert_true(store_column_double(statement, 4) == 0.1);
    assert_non_null(store_column_bytes(statement, 5).data);
    assert_int_equal(store_column_bytes(statement, 5).size, 0);
    assert_false(store_column_is_null(statement, 5));
    assert_null(store_column_bytes(statement, 6).data);
    assert_true(store_column_is_null(statement, 6));
    assert_int_equal(store_step(statement, &has_row), ERR_OK);
    assert_false(has_row);
    return ERR_OK;
}

static enum err run_nul(struct store_connection *connection, void *context)
{
    const struct slice *text = context;
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, "SELECT $1", &statement);
    if (err == ERR_OK) {
        store_bind_text(statement, 1, *text);
        err = store_step(statement, &has_row);
    }
    return err;
}

static void test_values_round_trip(void **state)
{
    struct store_fixture *fixture = *state;
    struct slice plain = SLICE_LITERAL("a\\b'\xc3\xa4");
    struct slice with_nul = slice_make("a\0b", 3);
    assert_int_equal(store_fixture_run(fixture, run_round_trip, &plain), ERR_OK);
    if (fixture->is_postgres) { /* takes no such text, and says so */
        assert_int_equal(store_fixture_run(fixture, run_nul, &with_nul), ERR_REFUSED);
    } else {
        assert_int_equal(store_fixture_run(fixture, run_round_trip, &with_nul), ERR_OK);
    }
}

/* The engine has aborted the transaction and nobody here remembers it. */
static enum err run_unnoticed_error(struct store_connection *connection, void *context)
{
    struct postgres_connection *c = postgres_from(connection);
    (void)context;
    assert_int_not_equal(store_postgres_run(c, "SELECT 1 / 0", NULL, 0), ERR_OK);
    c->failed = ERR_OK;
    return ERR_OK;
}

/* COMMIT of an aborted transaction is answered without an error. */
static void test_a_rolled_back_commit_is_told(void **state)
{
    struct store_fixture *fixture = *state;
    if (fixture->is_postgres) {
        assert_int_equal(store_fixture_run(fixture, run_unnoticed_error, NULL), ERR_AWAY);
    }
    assert_int_equal(store_fixture_number(fixture, "SELECT 1"), 1);
}

static enum err run_reuse(struct store_connection *connection, void *context)
{
    (void)context;
    static const char sql[] = "SELECT $1";
    struct store_statement *first = NULL;
    struct store_statement *second = NULL;
    bool has_row = false;
    assert_int_equal(store_prepare(connection, sql, &first), ERR_OK);
    store_bind_i64(first, 1, 7);
    assert_int_equal(store_step(first, &has_row), ERR_OK);
    /* Prepared again: the same one, reset and without its bindings. */
    assert_int_equal(store_prepare(connection, sql, &second), ERR_OK);
    assert_ptr_equal(first, second);
    assert_int_equal(store_step(second, &has_row), ERR_OK);
    assert_true(store_column_is_null(second, 0));
    store_reset(second);
    /* Texts made at run time: more than are kept, each right. */
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100; i++) {
            char text[32];
            (void)snprintf(text, sizeof(text), "SELECT %d", i);
            assert_int_equal(store_prepare_text(connection, slice_from_text(text), &first), ERR_OK);
            assert_int_equal(store_step(first, &has_row), ERR_OK);
            assert_int_equal(store_column_i64(first, 0), i);
            store_reset(first);
        }
    }
    return ERR_OK;
}

static void test_statements_are_kept(void **state)
{
    assert_int_equal(store_fixture_run(*state, run_reuse, NULL), ERR_OK);
}

static enum err run_crowd(struct store_connection *connection, void *context)
{
    (void)context;
    enum err err = ERR_OK;
    for (int i = 0; i < 100 && err == ERR_OK; i++) {
        char text[64];
        bool has_row = false;
        struct store_statement *statement = NULL;
        (void)snprintf(text, sizeof(text), "SELECT %d UNION ALL SELECT 1", i);
        err = store_prepare_text(connection, slice_from_text(text), &statement);
        if (err == ERR_OK) {
            assert_int_equal(store_step(statement, &has_row), ERR_OK); /* and left open */
        }
    }
    return err;
}

static void test_open_statements_are_bounded(void **state)
{
    struct store_fixture *fixture = *state;
    assert_int_equal(store_fixture_run(fixture, run_crowd, NULL), ERR_FULL);
    /* The job's end closed them. */
    assert_int_equal(store_fixture_number(fixture, "SELECT 5"), 5);
}

static void test_errors_are_ours(void **state)
{
    struct store_fixture *fixture = *state;
    assert_int_equal(store_fixture_sql(fixture, "CREATE TABLE t (x INTEGER PRIMARY KEY) STRICT"),
                     ERR_OK);
    assert_int_equal(store_fixture_sql(fixture, "INSERT INTO t VALUES (1)"), ERR_OK);
    assert_int_equal(store_fixture_sql(fixture, "INSERT INTO t VALUES (1)"), ERR_REFUSED);
    assert_int_equal(store_fixture_sql(fixture, "INSERT INTO t VALUES ('text')"), ERR_REFUSED);
    assert_int_equal(store_fixture_sql(fixture, "SELEC 1"), ERR_INVALID);
    assert_int_equal(store_fixture_sql(fixture, "SELECT $0"), ERR_INVALID);
    assert_int_equal(store_fixture_sql(fixture, "SELECT ?"), ERR_INVALID);
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM t"), 1);
}

static enum err run_huge(struct store_connection *connection, void *context)
{
    static uint8_t text[20000];
    (void)context;
    struct store_statement *statement = NULL;
    memset(text, ' ', sizeof(text));
    return store_prepare_text(connection, slice_make(text, sizeof(text)), &statement);
}

static void test_huge_text_is_refused(void **state)
{
    assert_int_equal(store_fixture_run(*state, run_huge, NULL), ERR_TOO_LARGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_values_round_trip, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_rolled_back_commit_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(test_statements_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_statements_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_errors_are_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_huge_text_is_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
