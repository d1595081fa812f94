/* Promise (R3): whichever call fails while a checkpoint goes on beside the writer, once or from
 * then on, what was committed is there after the next open, and the database stays sound; also when
 * a sync that fails drops what was written before it, as it does on this system.
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
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ROW_BYTES = 3000, ROWS = 80 }; /* a page each, which makes two parts */

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

static void open_connections(void)
{
    struct err_detail detail = {""};
    struct store_options options = store_fixture_options(&fixture);
    fault_pause();
    store_fixture_open(&fixture, false);
    assert_int_equal(store_fixture_sql(&fixture, "DELETE FROM rows"), ERR_OK);
    store_fixture_close(&fixture);
    committed = 0;
    assert_int_equal(store_sqlite.open(&writer, &options, STORE_ROLE_WRITER, &detail), ERR_OK);
    assert_int_equal(store_sqlite.open(&checkpointer, &options, STORE_ROLE_CHECKPOINTER, &detail),
                     ERR_OK);
}

static void assert_all_is_there(void)
{
    fault_pause();
    store_fixture_open(&fixture, false);
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM rows"), committed);
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM pragma_integrity_check "
                                                    "WHERE integrity_check <> 'ok'"),
                     0);
    store_fixture_close(&fixture);
}

static void test_faults_lose_nothing(void **state)
{
    (void)state;
    uint32_t runs = 0;
    fault_set_errno(EIO);
    FAULT_LOOP {
        bool is_complete = false;
        open_connections();
        insert_rows(ROWS);
        fault_resume();
        enum err beside = store_sqlite.checkpoint_beside(checkpointer, pause_and_write, NULL);
        enum err own = store_sqlite.checkpoint(writer, &is_complete);
        insert_rows(1);
        assert_true((beside == ERR_OK && own == ERR_OK && is_complete) || fault_was_met());
        assert_true(committed == ROWS + 2 || fault_was_met()); /* one of them between two parts */
        store_sqlite.close(checkpointer);
        store_sqlite.close(writer);
        assert_all_is_there();
        runs++;
    }
    print_message("%u runs\n", runs);
    assert_true(runs > 10);
}

/* --- syncs that drop what they were to write ------------------------------------------------- */

struct content {
    uint8_t *bytes;
    size_t size;
};

static struct content read_database(void)
{
    struct stat state;
    int fd = open(fixture.path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0 && fstat(fd, &state) == 0);
    struct content content = {malloc((size_t)state.st_size), (size_t)state.st_size};
    assert_non_null(content.bytes);
    assert_int_equal(pread(fd, content.bytes, content.size, 0), content.size);
    assert_int_equal(close(fd), 0);
    return content;
}

static void write_file(const char *path, struct content content)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, content.bytes, content.size, 0), content.size);
    assert_int_equal(ftruncate(fd, (off_t)content.size), 0);
    assert_int_equal(close(fd), 0);
}

/* The sync of this number from now on fails, once. */
static enum err checkpoint_with_failed_sync(uint32_t number)
{
    bool is_complete = false;
    fault_set_only(FAULT_FDATASYNC);
    fault_set_errno(EIO);
    fault_resume();
    fault_arm(FAULT_ONCE, number);
    enum err err = store_sqlite.checkpoint(writer, &is_complete);
    fault_disarm();
    fault_set_only(FAULT_CALL_COUNT);
    return err;
}

static void close_connections(void)
{
    store_sqlite.close(checkpointer);
    store_sqlite.close(writer);
}

/* A checkpoint that did not end, since a reader was in the way, has written pages that nobody
 * synced and that count as copied; then the sync of the next one fails, and they are gone. */
static void test_dropped_pages_are_copied_again(void **state)
{
    (void)state;
    struct store_connection *reader = NULL;
    struct store_statement *statement = NULL;
    struct err_detail detail = {""};
    struct store_options options = store_fixture_options(&fixture);
    bool is = false;
    open_connections();
    assert_int_equal(store_sqlite.open(&reader, &options, STORE_ROLE_READER, &detail), ERR_OK);
    insert_rows(ROWS);
    assert_int_equal(store_sqlite.checkpoint(writer, &is), ERR_OK);
    assert_true(is);
    insert_rows(ROWS);
    assert_int_equal(store_sqlite.begin_read(reader), ERR_OK);
    assert_int_equal(store_prepare(reader, "SELECT count(*) FROM rows", &statement), ERR_OK);
    assert_int_equal(store_step(statement, &is), ERR_OK);
    store_reset(statement);
    insert_rows(ROWS);
    struct content on_disk = read_database();
    assert_int_equal(store_sqlite.checkpoint(writer, &is), ERR_OK);
    assert_false(is || store_sqlite.is_durable(writer));
    store_sqlite.rollback(reader);
    assert_int_equal(checkpoint_with_failed_sync(1), ERR_IO);
    assert_false(store_sqlite.is_durable(writer));
    write_file(fixture.path, on_disk);
    insert_rows(1);
    assert_int_equal(store_sqlite.checkpoint(writer, &is), ERR_OK);
    assert_true(is && store_sqlite.is_durable(writer));
    store_sqlite.close(reader);
    close_connections();
    assert_int_equal(committed, 3 * ROWS + 1);
    assert_all_is_there();
    free(on_disk.bytes);
}

/* Rows in the database alone, as if there were no WAL. */
static int64_t count_without_log(void)
{
    char path[sizeof(fixture.path) + 8];
    sqlite3 *db = NULL;
    sqlite3_stmt *statement = NULL;
    struct content content = read_database();
    (void)snprintf(path, sizeof(path), "%s-copy", fixture.path);
    write_file(path, content);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT count(*) FROM rows", -1, &statement, NULL),
                     SQLITE_OK);
    assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
    int64_t count = sqlite3_column_int64(statement, 0);
    assert_int_equal(sqlite3_finalize(statement), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    free(content.bytes);
    return count;
}

/* The WAL may have a hole now, behind which nothing counts: a durable commit must not stand on it.
 */
static void check_no_commit_behind_a_hole(void)
{
    assert_false(store_sqlite.is_durable(writer));
    assert_int_equal(store_sqlite.begin_write(writer, true), ERR_OK);
    assert_int_equal(count_without_log(), committed);
    store_sqlite.rollback(writer);
    close_connections();
    assert_all_is_there();
}

static void test_log_that_was_not_synced(void **state)
{
    (void)state;
    open_connections();
    insert_rows(ROWS);
    assert_int_equal(checkpoint_with_failed_sync(0), ERR_IO);
    check_no_commit_behind_a_hole();
}

static void test_log_that_was_not_synced_beside(void **state)
{
    (void)state;
    open_connections();
    insert_rows(ROWS);
    fault_set_only(FAULT_FDATASYNC);
    fault_resume();
    fault_arm(FAULT_ONCE, 0);
    assert_int_equal(store_sqlite.checkpoint_beside(checkpointer, pause_and_write, NULL), ERR_IO);
    fault_disarm();
    fault_set_only(FAULT_CALL_COUNT);
    store_sqlite.doubt(writer);
    check_no_commit_behind_a_hole();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_faults_lose_nothing),
        cmocka_unit_test(test_dropped_pages_are_copied_again),
        cmocka_unit_test(test_log_that_was_not_synced),
        cmocka_unit_test(test_log_that_was_not_synced_beside),
    };
    return cmocka_run_group_tests(tests, init_group, finish_group);
}
