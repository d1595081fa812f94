/* Promise (R3): whichever call fails while a checkpoint goes on beside the writer, once or from
 * then on, what was committed is there after the next open, and the database stays sound.
 *
 * link: sys_fault.c sqlite_sys.c store_fixture.c */
#include "support/sqlite_sys.h"
#include "support/store_fixture.h"
#include "support/sys_fault.h"

#include "store/backend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { ROW_BYTES = 3000, ROWS = 200 };

static struct store_fixture fixture;
static struct store_connection *writer;
static struct store_connection *checkpointer;
static int64_t committed;

static int init_group(void **state)
{
    (void)state;
    sqlite_sys_register();
    /* Thousands of real syncs prove nothing here: in memory when there is such a place. */
    if (chdir("/dev/shm") != 0) {
        print_message("on disk, slower\n");
    }
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    assert_int_equal(
        store_fixture_sql(&fixture, "CREATE TABLE rows (n INTEGER PRIMARY KEY, b BLOB)"), ERR_OK);
    store_fixture_close(&fixture);
    return 0;
}

static int finish_group(void **state)
{
    (void)state;
    fault_disarm();
    store_fixture_finish(&fixture);
    return 0;
}

static void insert_rows(int64_t count)
{
    static uint8_t bytes[ROW_BYTES];
    enum err err = store_sqlite.begin_write(writer, false);
    for (int64_t i = 0; i < count && err == ERR_OK; i++) {
        struct store_statement *statement = NULL;
        err = store_prepare(writer, "INSERT INTO rows (b) VALUES ($1)", &statement);
        if (err == ERR_OK) {
            store_bind_blob(statement, 1, slice_make(bytes, sizeof(bytes)));
            err = store_execute(statement);
        }
    }
    if (err == ERR_OK) {
        err = store_sqlite.commit(writer);
    }
    if (err == ERR_OK) {
        committed += count;
    }
    store_sqlite.rollback(writer);
}

static void pause_and_write(void *owner)
{
    (void)owner;
    insert_rows(1);
}

static void test_faults_lose_nothing(void **state)
{
    (void)state;
    uint32_t runs = 0;
    fault_set_errno(EIO);
    FAULT_LOOP {
        struct err_detail detail = {""};
        struct store_options options = store_fixture_options(&fixture);
        bool is_complete = false;
        fault_pause();
        store_fixture_open(&fixture, false);
        assert_int_equal(store_fixture_sql(&fixture, "DELETE FROM rows"), ERR_OK);
        store_fixture_close(&fixture);
        committed = 0;
        assert_int_equal(store_sqlite.open(&writer, &options, STORE_ROLE_WRITER, &detail), ERR_OK);
        assert_int_equal(
            store_sqlite.open(&checkpointer, &options, STORE_ROLE_CHECKPOINTER, &detail), ERR_OK);
        insert_rows(ROWS);
        fault_resume();
        enum err beside = store_sqlite.checkpoint_beside(checkpointer, pause_and_write, NULL);
        enum err own = store_sqlite.checkpoint(writer, &is_complete);
        insert_rows(1);
        assert_true((beside == ERR_OK && own == ERR_OK && is_complete) || fault_was_met());
        store_sqlite.close(checkpointer);
        store_sqlite.close(writer);
        fault_pause();
        store_fixture_open(&fixture, false);
        assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM rows"), committed);
        assert_int_equal(store_fixture_number(&fixture,
                                              "SELECT count(*) FROM pragma_integrity_check "
                                              "WHERE integrity_check <> 'ok'"),
                         0);
        store_fixture_close(&fixture);
        runs++;
    }
    print_message("%u runs\n", runs);
    assert_true(runs > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_faults_lose_nothing)};
    return cmocka_run_group_tests(tests, init_group, finish_group);
}
