/* The store fixture: see its header. */
#include "support/store_fixture.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/thread.h"
#include "support/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libpq-fe.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FIXTURE_SQL_BYTES  4096
#define FIXTURE_TIMEOUT_MS 60000u /* more than the slowest machine needs */

struct fixture_job {
    struct store_job job;
    enum err (*run)(struct store_connection *connection, void *context);
    void *context;
};

struct store_options store_fixture_options(const struct store_fixture *fixture)
{
    return (struct store_options){.url = fixture->url,
                                  .cache_mb = 4,
                                  .reader_count = 2,
                                  .query_timeout_ms = fixture->query_timeout_ms != 0
                                                          ? fixture->query_timeout_ms
                                                          : FIXTURE_TIMEOUT_MS,
                                  .slow_query_ms = 1000,
                                  .write_queue_max = 1000,
                                  .read_queue_max = 1000,
                                  .min_connections = 1,
                                  .acquire_timeout_ms = FIXTURE_TIMEOUT_MS};
}

static void quiet(void *context, const char *message)
{
    (void)context;
    (void)message;
}

void store_fixture_init(struct store_fixture *fixture)
{
    *fixture = (struct store_fixture){.directory = "store_test_XXXXXX"};
    log_set_level(LOG_ERROR);
    assert_int_equal(hash_start(), ERR_OK);
    assert_non_null(mkdtemp(fixture->directory));
    (void)snprintf(fixture->path, sizeof(fixture->path), "%s/weir.db", fixture->directory);
    (void)snprintf(fixture->url, sizeof(fixture->url), "sqlite:%s", fixture->path);
    const char *server = getenv("WEIR_TEST_POSTGRES");
    if (server != NULL && server[0] != '\0') {
        static unsigned schemas;
        char sql[128];
        fixture->is_postgres = true;
        (void)snprintf(fixture->schema, sizeof(fixture->schema), "t%d_%u", (int)getpid(),
                       ++schemas);
        (void)snprintf(fixture->url, sizeof(fixture->url), "%s?options=-csearch_path%%3D%s", server,
                       fixture->schema);
        (void)snprintf(sql, sizeof(sql), "CREATE SCHEMA %s", fixture->schema);
        store_fixture_outside(fixture, sql);
    }
}

void store_fixture_outside(const struct store_fixture *fixture, const char *sql)
{
    PGconn *session = PQconnectdb(fixture->url);
    if (PQstatus(session) != CONNECTION_OK) {
        fail_msg("%s", PQerrorMessage(session));
    }
    (void)PQsetNoticeProcessor(session, quiet, NULL);
    PGresult *result = PQexec(session, sql);
    ExecStatusType status = PQresultStatus(result);
    if (status != PGRES_COMMAND_OK && status != PGRES_TUPLES_OK) {
        fail_msg("%s: %s", sql, PQerrorMessage(session));
    }
    PQclear(result);
    PQfinish(session);
}

void store_fixture_open(struct store_fixture *fixture, bool with_threads)
{
    struct err_detail detail = {""};
    struct store_options options = store_fixture_options(fixture);
    options.appliers = fixture->is_postgres ? fixture->appliers : 0;
    enum err err = store_open(&fixture->store, &options, &detail);
    if (err != ERR_OK) {
        fail_msg("store_open: %s", detail.text);
    }
    if (with_threads) {
        assert_int_equal(thread_start(&fixture->writer, "store", store_writer_run, fixture->store),
                         ERR_OK);
        assert_int_equal(
            thread_start(&fixture->checkpointer, "check", store_checkpointer_run, fixture->store),
            ERR_OK);
        for (uint32_t i = 0; i < options.reader_count; i++) {
            assert_int_equal(thread_start(&fixture->readers[i], "reader", store_reader_run,
                                          store_reader(fixture->store, i)),
                             ERR_OK);
        }
        fixture->reader_count = options.reader_count;
        for (uint32_t i = 0; i < options.appliers; i++) {
            assert_int_equal(thread_start(&fixture->applier_threads[i], "applier",
                                          store_applier_run, store_applier(fixture->store, i)),
                             ERR_OK);
        }
    }
}

void store_fixture_close(struct store_fixture *fixture)
{
    if (fixture->store != NULL) {
        store_stop(fixture->store);
    }
    for (uint32_t i = 0; i < sizeof(fixture->applier_threads) / sizeof(struct thread *); i++) {
        thread_join(fixture->applier_threads[i]);
        fixture->applier_threads[i] = NULL;
    }
    thread_join(fixture->writer);
    fixture->writer = NULL;
    thread_join(fixture->checkpointer);
    fixture->checkpointer = NULL;
    for (uint32_t i = 0; i < fixture->reader_count; i++) {
        thread_join(fixture->readers[i]);
        fixture->readers[i] = NULL;
    }
    fixture->reader_count = 0;
    store_close(fixture->store);
    fixture->store = NULL;
}

void store_fixture_finish(struct store_fixture *fixture)
{
    store_fixture_close(fixture);
    if (fixture->is_postgres) {
        char command[96];
        (void)snprintf(command, sizeof(command), "DROP SCHEMA %s CASCADE", fixture->schema);
        store_fixture_outside(fixture, command);
    }
    tree_remove(fixture->directory);
}

static enum err job_run(struct store_job *job, struct store_connection *connection)
{
    struct fixture_job *j = (struct fixture_job *)job;
    return j->run(connection, j->context);
}

static void job_done(struct store_job *job)
{
    (void)job;
}

enum err store_fixture_run(struct store_fixture *fixture,
                           enum err (*run)(struct store_connection *connection, void *context),
                           void *context)
{
    struct fixture_job j = {.run = run, .context = context};
    j.job.priority = STORE_CONTROL;
    j.job.durable = true;
    j.job.run = job_run;
    j.job.on_done = job_done;
    return store_run_here(fixture->store, &j.job);
}

static const struct {
    const char *sqlite;
    const char *postgres;
} dialect[] = {
    {" x'", " '\\x"},
    {"(x'", "('\\x"},
    {" AS BLOB)", " AS bytea)"},
    {" STRICT", ""},
    {"typeof(id_key) = 'blob'", "pg_typeof(id_key) = 'bytea'::regtype"},
    {"length(e.id)", "length(uuid_send(e.id))"},
    {"i.id = e.id", "i.id = uuid_send(e.id)"},
    {"json_extract(payload, '$.n')", "(payload::jsonb->>'n')::bigint"},
    {"json_extract(record, '$.type')", "(convert_from(record, 'UTF8')::jsonb->>'type')"},
    {"json_extract(record, '$.subject')", "(convert_from(record, 'UTF8')::jsonb->>'subject')"},
    {"json_extract(record, '$.payload[1]') = 2",
     "convert_from(record, 'UTF8')::jsonb#>>'{payload,1}' = '2'"},
    {"json_extract(record, '$.x') = 1", "convert_from(record, 'UTF8')::jsonb->>'x' = 'true'"},
};

/* The text in the engine's own words. */
static void translate(const struct store_fixture *fixture, const char *sql,
                      char to[FIXTURE_SQL_BYTES])
{
    size_t size = 0;
    while (*sql != '\0' && size + 128 < FIXTURE_SQL_BYTES) {
        size_t i = 0;
        while (fixture->is_postgres && i < sizeof(dialect) / sizeof(dialect[0]) &&
               strncmp(sql, dialect[i].sqlite, strlen(dialect[i].sqlite)) != 0) {
            i++;
        }
        if (!fixture->is_postgres || i == sizeof(dialect) / sizeof(dialect[0])) {
            to[size++] = *sql++;
        } else {
            size +=
                (size_t)snprintf(to + size, FIXTURE_SQL_BYTES - size, "%s", dialect[i].postgres);
            sql += strlen(dialect[i].sqlite);
        }
    }
    assert_int_equal(*sql, '\0');
    to[size] = '\0';
}

static enum err run_sql(struct store_connection *connection, void *context)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare_text(connection, slice_from_text(context), &statement);
    return err != ERR_OK ? err : store_execute(statement);
}

enum err store_fixture_sql(struct store_fixture *fixture, const char *sql)
{
    char text[FIXTURE_SQL_BYTES];
    translate(fixture, sql, text);
    return store_fixture_run(fixture, run_sql, text);
}

struct number_query {
    const char *sql;
    bool has_row;
    int64_t number;
};

static enum err run_number(struct store_connection *connection, void *context)
{
    struct number_query *query = context;
    struct store_statement *statement = NULL;
    enum err err = store_prepare_text(connection, slice_from_text(query->sql), &statement);
    if (err == ERR_OK) {
        err = store_step(statement, &query->has_row);
    }
    if (err == ERR_OK && query->has_row) {
        query->number = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

int64_t store_fixture_number(struct store_fixture *fixture, const char *sql)
{
    char text[FIXTURE_SQL_BYTES];
    translate(fixture, sql, text);
    struct number_query query = {.sql = text};
    assert_int_equal(store_fixture_run(fixture, run_number, &query), ERR_OK);
    assert_true(query.has_row);
    return query.number;
}

void store_fixture_refuse(struct store_fixture *fixture, const char *condition)
{
    char sql[512];
    if (condition == NULL) {
        const char *drop =
            fixture->is_postgres ? "DROP TRIGGER poison ON events" : "DROP TRIGGER poison";
        assert_int_equal(store_fixture_sql(fixture, drop), ERR_OK);
        return;
    }
    (void)snprintf(sql, sizeof(sql),
                   "CREATE TRIGGER poison BEFORE INSERT ON events WHEN %s"
                   " BEGIN SELECT RAISE(ABORT, 'poison'); END",
                   condition);
    if (fixture->is_postgres) {
        assert_int_equal(store_fixture_sql(fixture,
                                           "CREATE FUNCTION poison() RETURNS trigger LANGUAGE "
                                           "plpgsql AS 'BEGIN RAISE EXCEPTION ''poison'';"
                                           " END'"),
                         ERR_OK);
        (void)snprintf(sql, sizeof(sql),
                       "CREATE TRIGGER poison BEFORE INSERT ON events FOR EACH ROW WHEN (%s)"
                       " EXECUTE FUNCTION poison()",
                       condition);
    }
    assert_int_equal(store_fixture_sql(fixture, sql), ERR_OK);
}

static void write_blob(const struct store_fixture *fixture, const char *text, char to[64])
{
    const char *before = fixture->is_postgres ? "convert_to('" : "CAST('";
    const char *after = fixture->is_postgres ? "', 'UTF8')" : "' AS BLOB)";
    (void)snprintf(to, 64, "%s%s%s", before, text, after);
}

void store_fixture_add_org(struct store_fixture *fixture, uint64_t number)
{
    char sql[512];
    char id[17];
    char key[33];
    char id_blob[64];
    char key_blob[64];
    (void)snprintf(id, sizeof(id), "%016llu", (unsigned long long)number);
    (void)snprintf(key, sizeof(key), "%032llu", (unsigned long long)number);
    write_blob(fixture, id, id_blob);
    write_blob(fixture, key, key_blob);
    (void)snprintf(sql, sizeof(sql),
                   "INSERT INTO orgs (number, id, name, tier, id_key, created_ms) VALUES (%llu, "
                   "%s, 'org %llu', 'unlimited', %s, 1)",
                   (unsigned long long)number, id_blob, (unsigned long long)number, key_blob);
    assert_int_equal(store_fixture_sql(fixture, sql), ERR_OK);
    if (fixture->is_postgres) { /* the next org gets the next number */
        assert_int_equal(store_fixture_sql(fixture, "SELECT setval(pg_get_serial_sequence('orgs', "
                                                    "'number'), max(number)) FROM orgs"),
                         ERR_OK);
    }
}
