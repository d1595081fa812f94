/* Promise: an empty database becomes ours, an older one is brought forward, and a newer, foreign,
 * locked or unwritable one is refused with a sentence that says what to do, and not changed.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include "base/thread.h"

#include "store/migrate.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state)
{
    static struct store_fixture fixture;
    store_fixture_init(&fixture);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    store_fixture_finish(*state);
    return 0;
}

static void run_outside(const struct store_fixture *fixture, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

static void assert_refused(const struct store_fixture *fixture, enum err expected,
                           const char *sentence)
{
    struct err_detail detail = {""};
    struct store *store = NULL;
    struct store_options options = store_fixture_options(fixture);
    assert_int_equal(store_open(&store, &options, &detail), expected);
    assert_null(store);
    if (strstr(detail.text, sentence) == NULL) {
        fail_msg("'%s' does not say '%s'", detail.text, sentence);
    }
    assert_non_null(strstr(detail.text, "open store"));
}

static void test_empty_becomes_ours_and_stays(void **state)
{
    struct store_fixture *fixture = *state;
    struct stat status;
    store_fixture_open(fixture, false);
    assert_int_equal(store_fixture_number(fixture, "PRAGMA application_id"), 0x57656972);
    int64_t version = store_fixture_number(fixture, "PRAGMA user_version");
    assert_true(version >= 2);
    store_fixture_add_org(fixture, 1);
    store_fixture_close(fixture);
    store_fixture_open(fixture, false);
    assert_int_equal(store_fixture_number(fixture, "PRAGMA user_version"), version);
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM orgs"), 1);
    assert_int_equal(stat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 0777u, 0600);
}

static void test_newer_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    store_fixture_open(fixture, false);
    store_fixture_close(fixture);
    run_outside(fixture, "PRAGMA user_version=9000");
    assert_refused(fixture, ERR_VERSION, "newer program");
}

static void test_foreign_is_refused_and_untouched(void **state)
{
    struct store_fixture *fixture = *state;
    run_outside(fixture, "CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)");
    assert_refused(fixture, ERR_VERSION, "another program");
    char name[128];
    (void)snprintf(name, sizeof(name), "%s-wal", fixture->path);
    assert_int_not_equal(access(name, F_OK), 0); /* it was not even made a WAL database */
    run_outside(fixture, "INSERT INTO theirs VALUES (2)");
}

static void test_no_database_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    FILE *file = fopen(fixture->path, "we");
    assert_non_null(file);
    for (int i = 0; i < 1000; i++) {
        (void)fputs("this is a diary. ", file);
    }
    assert_int_equal(fclose(file), 0);
    assert_refused(fixture, ERR_VERSION, "not an SQLite database");
}

static void test_locked_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN EXCLUSIVE; CREATE TABLE t (x)", NULL, NULL, NULL),
                     SQLITE_OK);
    assert_refused(fixture, ERR_LOCKED, "another process");
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    store_fixture_open(fixture, false);
}

struct patient {
    struct store_options options;
    struct store *store;
    enum err err;
};

static void open_in_thread(void *context)
{
    struct patient *patient = context;
    struct err_detail detail = {""};
    patient->err = store_open(&patient->store, &patient->options, &detail);
}

/* A lock that goes is waited for; the case above is the twin, where it stays. */
static void test_lock_is_waited_for(void **state)
{
    struct store_fixture *fixture = *state;
    struct err_detail detail = {""};
    struct thread *thread = NULL;
    sqlite3 *db = NULL;
    store_fixture_open(fixture, false);
    store_fixture_close(fixture);
    assert_int_equal(sqlite3_open(fixture->path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    struct patient patient = {.options = store_fixture_options(fixture)};
    assert_int_equal(store_open(&patient.store, &patient.options, &detail), ERR_LOCKED);
    assert_non_null(strstr(detail.text, "another process has locked the database: stop it"));
    patient.options.lock_wait_ms = 600000;
    assert_int_equal(thread_start(&thread, "patient", open_in_thread, &patient), ERR_OK);
    assert_int_equal(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    thread_join(thread);
    assert_int_equal(patient.err, ERR_OK);
    store_close(patient.store);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* As another user, since root may write everything. */
static void test_unwritable_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    store_fixture_open(fixture, false);
    store_fixture_close(fixture);
    assert_int_equal(chmod(fixture->path, 0444), 0);
    bool is_root = geteuid() == 0;
    if (is_root) {
        assert_int_equal(chmod(fixture->directory, 0755), 0);
        assert_int_equal(seteuid(65534), 0);
    }
    assert_refused(fixture, ERR_PERMISSION, "permission denied");
    if (is_root) {
        assert_int_equal(seteuid(0), 0);
    }
}

static void test_missing_directory_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    (void)snprintf(fixture->url, sizeof(fixture->url), "sqlite:%s/none/weir.db",
                   fixture->directory);
    assert_refused(fixture, ERR_NOT_FOUND, "none/weir.db");
    (void)snprintf(fixture->url, sizeof(fixture->url), "mysql://none");
    assert_refused(fixture, ERR_CONFIG, "sqlite:/path");
}

/* --- steps
 * ---------------------------------------------------------------------------------------- */

static struct store_connection *open_plain(const struct store_fixture *fixture)
{
    struct store_connection *connection = NULL;
    struct store_options options = store_fixture_options(fixture);
    assert_int_equal(store_sqlite.open(&connection, &options, STORE_ROLE_WRITER, NULL), ERR_OK);
    return connection;
}

static uint32_t version_of(struct store_connection *connection)
{
    uint32_t version = 0;
    assert_int_equal(store_sqlite.schema_version(connection, &version), ERR_OK);
    return version;
}

static void test_older_is_brought_forward(void **state)
{
    static const struct store_schema_file first[] = {{"0001_a.sql", "CREATE TABLE a (x);"},
                                                     {NULL, NULL}};
    static const struct store_schema_file both[] = {
        {"0001_a.sql", "CREATE TABLE a (x);"},
        {"0004_b.sql", "ALTER TABLE a ADD COLUMN y; CREATE TABLE b (z);"},
        {NULL, NULL}};
    struct err_detail detail = {""};
    struct store_connection *connection = open_plain(*state);
    assert_int_equal(version_of(connection), 0);
    assert_int_equal(store_migrate(connection, first, &detail), ERR_OK);
    assert_int_equal(version_of(connection), 1);
    assert_int_equal(store_migrate(connection, both, &detail), ERR_OK);
    assert_int_equal(version_of(connection), 4);
    assert_int_equal(store_migrate(connection, both, &detail), ERR_OK);
    assert_int_equal(store_migrate(connection, first, &detail), ERR_VERSION);
    store_sqlite.close(connection);
}

static void test_failing_step_changes_nothing(void **state)
{
    static const struct store_schema_file broken[] = {
        {"0001_a.sql", "CREATE TABLE a (x);"},
        {"0002_b.sql", "CREATE TABLE b (z); CREATE TABLE a (x);"},
        {NULL, NULL}};
    static const struct store_schema_file mended[] = {
        {"0001_a.sql", "CREATE TABLE a (x);"}, {"0002_b.sql", "CREATE TABLE b (z);"}, {NULL, NULL}};
    struct err_detail detail = {""};
    struct store_connection *connection = open_plain(*state);
    assert_int_not_equal(store_migrate(connection, broken, &detail), ERR_OK);
    assert_non_null(strstr(detail.text, "0002_b.sql"));
    assert_int_equal(version_of(connection), 1);
    assert_int_equal(store_migrate(connection, mended, &detail), ERR_OK);
    assert_int_equal(version_of(connection), 2);
    store_sqlite.close(connection);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_empty_becomes_ours_and_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_is_refused_and_untouched, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_database_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locked_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lock_is_waited_for, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unwritable_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_missing_directory_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_older_is_brought_forward, setup, teardown),
        cmocka_unit_test_setup_teardown(test_failing_step_changes_nothing, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
