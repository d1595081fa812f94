/* Promise: a checkpoint goes in small steps beside the writer, who commits meanwhile and is told
 * what is left; his own then ends it, and everything stands in the database's file.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include "store/backend.h"

#include "base/buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROW_BYTES = 3000, ROWS = 1000, STEP_BYTES_MAX = 1u << 20u };

struct place {
    struct store_fixture fixture;
    struct store_connection *writer;
    struct store_connection *checkpointer;
    int64_t next;
    uint32_t pauses;
};

static enum err insert_rows(struct place *place, int64_t count)
{
    static uint8_t bytes[ROW_BYTES];
    const struct store_backend *backend = place->writer->backend;
    enum err err = backend->begin_write(place->writer, false);
    for (int64_t i = 0; i < count && err == ERR_OK; i++) {
        struct store_statement *statement = NULL;
        err = store_prepare(place->writer, "INSERT INTO rows VALUES ($1, $2)", &statement);
        if (err == ERR_OK) {
            store_bind_i64(statement, 1, place->next++);
            store_bind_blob(statement, 2, slice_make(bytes, sizeof(bytes)));
            err = store_execute(statement);
        }
    }
    return err == ERR_OK ? backend->commit(place->writer) : err;
}

static int setup(void **state)
{
    static struct place place;
    struct err_detail detail = {""};
    memset(&place, 0, sizeof(place));
    store_fixture_init(&place.fixture);
    store_fixture_open(&place.fixture, false);
    assert_int_equal(
        store_fixture_sql(&place.fixture, "CREATE TABLE rows (n INTEGER PRIMARY KEY, b BLOB)"),
        ERR_OK);
    store_fixture_close(&place.fixture);
    struct store_options options = store_fixture_options(&place.fixture);
    assert_int_equal(store_sqlite.open(&place.writer, &options, STORE_ROLE_WRITER, &detail),
                     ERR_OK);
    assert_int_equal(
        store_sqlite.open(&place.checkpointer, &options, STORE_ROLE_CHECKPOINTER, &detail), ERR_OK);
    assert_int_equal(insert_rows(&place, ROWS), ERR_OK);
    *state = &place;
    return 0;
}

static int teardown(void **state)
{
    struct place *place = *state;
    store_sqlite.close(place->checkpointer);
    store_sqlite.close(place->writer);
    store_fixture_finish(&place->fixture);
    return 0;
}

static void pause_and_write(void *owner)
{
    struct place *place = owner;
    place->pauses++;
    assert_int_equal(insert_rows(place, 1), ERR_OK);
}

static void pause_only(void *owner)
{
    ((struct place *)owner)->pauses++;
}

/* Rows that stand in the file alone, without its WAL. */
static int64_t rows_in_file(const struct place *place)
{
    char uri[160];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    (void)snprintf(uri, sizeof(uri), "file:%s?immutable=1", place->fixture.path);
    assert_int_equal(sqlite3_open_v2(uri, &db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM rows", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t count = sqlite3_column_int64(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    return count;
}

static void test_writer_goes_on_meanwhile(void **state)
{
    struct place *place = *state;
    bool is_complete = false;
    assert_int_equal(store_sqlite.checkpoint_beside(place->checkpointer, pause_and_write, place),
                     ERR_OK);
    assert_true(place->pauses >= ROWS * ROW_BYTES / STEP_BYTES_MAX);
    assert_false(store_sqlite.is_durable(place->writer));
    assert_int_equal(store_sqlite.checkpoint(place->writer, &is_complete), ERR_OK);
    assert_true(is_complete);
    assert_true(store_sqlite.is_durable(place->writer));
    assert_int_equal(store_sqlite.checkpoint_bytes(place->writer), 0);
    assert_int_equal(rows_in_file(place), place->next);
}

/* A commit of one row changes at most the leaf, a new one, their parent and the first page. */
static void test_writer_knows_what_is_left(void **state)
{
    enum { PAGES_A_COMMIT = 4, PAGE_BYTES = 4096 };
    struct place *place = *state;
    uint64_t before = store_sqlite.checkpoint_bytes(place->writer);
    assert_true(before >= (uint64_t)ROWS * ROW_BYTES);
    assert_int_equal(store_sqlite.checkpoint_beside(place->checkpointer, pause_and_write, place),
                     ERR_OK);
    uint64_t left = store_sqlite.checkpoint_bytes(place->writer);
    assert_in_range(left, (uintmax_t)place->pauses * PAGE_BYTES,
                    (uintmax_t)place->pauses * PAGES_A_COMMIT * PAGE_BYTES);
    assert_int_equal(store_sqlite.checkpoint_beside(place->checkpointer, pause_only, place),
                     ERR_OK);
    assert_int_equal(store_sqlite.checkpoint_bytes(place->writer), 0);
    /* The WAL begins anew with the next commit, however long it was before. */
    assert_int_equal(insert_rows(place, (int64_t)ROWS * 2), ERR_OK);
    assert_true(store_sqlite.checkpoint_bytes(place->writer) >= (uint64_t)ROWS * 2 * ROW_BYTES);
}

/* Who reads an old state keeps what came after it in the WAL: no pass moves it, and it says so. */
static void test_reader_of_an_old_state(void **state)
{
    struct place *place = *state;
    sqlite3 *reader = NULL;
    assert_int_equal(sqlite3_open(place->fixture.path, &reader), SQLITE_OK);
    assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM rows", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_int_equal(insert_rows(place, ROWS), ERR_OK);
    assert_int_equal(store_sqlite.checkpoint_beside(place->checkpointer, pause_only, place),
                     ERR_BUSY);
    assert_true(store_sqlite.checkpoint_bytes(place->writer) >= (uint64_t)ROWS * ROW_BYTES);
    assert_int_equal(sqlite3_exec(reader, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(reader), SQLITE_OK);
    assert_int_equal(store_sqlite.checkpoint_beside(place->checkpointer, pause_only, place),
                     ERR_OK);
    assert_int_equal(store_sqlite.checkpoint_bytes(place->writer), 0);
}

/* The twin: without the writer's own, what he wrote meanwhile is not in the file. */
static void test_it_is_only_preparation(void **state)
{
    struct place *place = *state;
    assert_int_equal(store_sqlite.checkpoint_beside(place->checkpointer, pause_only, place),
                     ERR_OK);
    assert_int_equal(rows_in_file(place), ROWS);
    assert_int_equal(insert_rows(place, 5), ERR_OK);
    assert_int_equal(rows_in_file(place), ROWS);
    assert_false(store_sqlite.is_durable(place->writer));
}

static void test_nothing_to_do_does_nothing(void **state)
{
    struct place *place = *state;
    bool is_complete = false;
    assert_int_equal(store_sqlite.checkpoint(place->writer, &is_complete), ERR_OK);
    assert_int_equal(store_sqlite.checkpoint_beside(place->checkpointer, pause_only, place),
                     ERR_OK);
    assert_int_equal(place->pauses, 0);
}

static void copy_file(const char *from, const char *to, const char *ending)
{
    char command[300];
    (void)snprintf(command, sizeof(command), "cp %s%s %s%s", from, ending, to, ending);
    assert_int_equal(system(command), 0); /* NOLINT(cert-env33-c): names of ours */
}

/* What a killed program has left: the writer that opens it moves its pages, and then nothing is
 * left to move, although he has committed nothing himself. */
static void test_wal_of_a_killed_program(void **state)
{
    struct place *place = *state;
    struct store_connection *next = NULL;
    struct err_detail detail = {""};
    bool is_complete = false;
    char path[128];
    char url[160];
    (void)snprintf(path, sizeof(path), "%s/killed.db", place->fixture.directory);
    (void)snprintf(url, sizeof(url), "sqlite:%s", path);
    copy_file(place->fixture.path, path, "");
    copy_file(place->fixture.path, path, "-wal");
    struct store_options options = store_fixture_options(&place->fixture);
    options.url = url;
    assert_int_equal(store_sqlite.open(&next, &options, STORE_ROLE_WRITER, &detail), ERR_OK);
    assert_int_equal(store_sqlite.checkpoint(next, &is_complete), ERR_OK);
    assert_true(is_complete);
    assert_int_equal(store_sqlite.checkpoint_bytes(next), 0);
    store_sqlite.close(next);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_writer_goes_on_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writer_knows_what_is_left, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reader_of_an_old_state, setup, teardown),
        cmocka_unit_test_setup_teardown(test_it_is_only_preparation, setup, teardown),
        cmocka_unit_test_setup_teardown(test_nothing_to_do_does_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_wal_of_a_killed_program, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
