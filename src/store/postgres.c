/* The PostgreSQL backend: opening, transactions, the schema's version.
 *
 * Every commit is durable when it is answered (the session sees to it), so there is nothing to
 * checkpoint. A reader's transaction is one snapshot (REPEATABLE READ, READ ONLY).
 *
 * A commit in doubt. When the session breaks while COMMIT is on its way, nobody knows whether it
 * happened. Each transaction therefore knows its number from the start (it comes with the answer to
 * BEGIN), and a new session asks what became of it: so a commit is reported as what it is. Only
 * when the server does not come back within ten seconds, or has crashed, the job gets ERR_AWAY
 * while its rows may be there; then ids, the slices' cursors and the letters' keys make a second
 * try harmless. (A crash forgets the numbers of transactions of which nothing was on its disk yet,
 * and gives them to others: their commits are not ours.)
 *
 * Which database is ours: the table weir_schema names each version that was applied. A schema
 * without it and without any other table becomes ours; anything else is refused.
 *
 * Happy path: begin -> statements -> commit.
 * Failure modes: a session that is found dead at the begin is replaced at once, since nothing was
 * done in it. After an error nothing more is taken until a savepoint or the whole is rolled back.
 */
#include "store/postgres.h"
#include "store/load.h"
#include "store/postgres_readings.h"
#include "store/rollups.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#define COPY_BYTES_MAX (2u << 20u)
#define DOUBT_PAUSE_MS 50
#define NOW_MS         "CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)"
#define SCHEMA_LOCK    "5075435918210245993" /* any number that nobody else uses */
#define REGISTRY_LOCK  "5075436000000000000" /* and the org's number */

#define SQL_NUMBER_OF(n) #n
#define SQL_NUMBER(n)    SQL_NUMBER_OF(n)

/* Who changes a registry stands in a line of whole imports, not before one row: it waits longer
 * here than for any other lock, and longer than a node that stands still may keep its locks. */
#define REGISTRY_WAIT_MS 10000
#define LOCK_WAIT(ms)    "set_config('lock_timeout', '" SQL_NUMBER(ms) "', true)"
#define LOCK_REGISTRY                                                                              \
    "SELECT " LOCK_WAIT(REGISTRY_WAIT_MS) ", pg_advisory_xact_lock(" REGISTRY_LOCK                 \
                                          " + $1), " LOCK_WAIT(POSTGRES_LOCK_TIMEOUT_MS)

static void postgres_close(struct store_connection *connection)
{
    if (connection == NULL) {
        return;
    }
    struct postgres_connection *c = postgres_from(connection);
    store_postgres_disconnect(c);
    store_statements_destroy(connection);
    buffer_finish(&c->copy);
    mem_free(c->urls[0]);
    mem_free(c->urls[1]);
    mem_free(c);
}

static enum err schema_version(struct postgres_connection *c, uint32_t *ret)
{
    static const char place[] =
        "SELECT CASE WHEN current_schema() IS NULL THEN 'none'"
        " WHEN to_regclass(quote_ident(current_schema()) || '.weir_schema') IS NOT NULL THEN 'ours'"
        " WHEN EXISTS (SELECT FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace"
        " WHERE n.nspname = current_schema() AND t.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')"
        " AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = t.oid AND d.deptype = 'e'))"
        " THEN 'theirs' ELSE 'empty' END";
    char text[32] = "";
    uint64_t version = 0;
    enum err err = store_postgres_run(c, place, text, sizeof(text));
    if (err != ERR_OK) {
        return err;
    }
    if (strcmp(text, "none") == 0) {
        (void)snprintf(c->error, sizeof(c->error),
                       "no schema to make tables in: set search_path for this user");
        return ERR_CONFIG;
    }
    if (strcmp(text, "theirs") == 0) {
        (void)snprintf(c->error, sizeof(c->error),
                       "the database belongs to another program: choose another in DATABASE_URL");
        return ERR_VERSION;
    }
    if (strcmp(text, "ours") == 0) {
        err = store_postgres_run(c, "SELECT coalesce(max(version), 0) FROM weir_schema", text,
                                 sizeof(text));
        if (err == ERR_OK && !slice_to_u64(slice_from_text(text), &version)) {
            err = ERR_CORRUPT;
        }
    }
    if (err == ERR_OK) {
        *ret = (uint32_t)version;
    }
    return err;
}

static enum err postgres_open(struct store_connection **ret, const struct store_options *options,
                              enum store_role role, struct err_detail *detail)
{
    uint32_t version = 0;
    struct postgres_connection *c = mem_alloc(sizeof(*c));
    store_connection_init(&c->base, &store_postgres);
    c->role = role;
    c->options = *options;
    c->options.url = NULL;
    c->options.read_url = NULL;
    c->has_replica = options->read_url != NULL;
    c->urls[0] = mem_copy_text(options->url);
    c->urls[1] = role == STORE_ROLE_READER && options->read_url != NULL
                     ? mem_copy_text(options->read_url)
                     : NULL;
    buffer_init(&c->copy, COPY_BYTES_MAX);
    enum err err = ERR_OK;
    for (int i = 0; i < 2 && c->urls[i] != NULL; i++) {
        PQconninfoOption *parts = PQconninfoParse(c->urls[i], NULL);
        if (parts == NULL) {
            err_detail_set(detail,
                           "%s: not a URL that libpq understands "
                           "(postgresql://user:password@host:port/database)",
                           i == 0 ? "DATABASE_URL" : "DATABASE_READ_URL");
            err = ERR_CONFIG;
            goto out;
        }
        PQconninfoFree(parts);
    }
    if (role == STORE_ROLE_WRITER) {
        err = store_postgres_connect(c, detail);
        if (err == ERR_OK) {
            err = schema_version(c, &version);
            if (err != ERR_OK) {
                char target[256];
                store_postgres_target(c->urls[0], target, sizeof(target));
                err_detail_set(detail, "%s: %s", target, c->error);
            }
        }
    }
    if (err != ERR_OK) {
        goto out;
    }
    *ret = &c->base;
    c = NULL;
out:
    postgres_close(c == NULL ? NULL : &c->base);
    return err;
}

static enum err postgres_schema_version(struct store_connection *connection, uint32_t *ret)
{
    return schema_version(postgres_from(connection), ret);
}

/* Two programs may start at once: the second finds the work done. */
static enum err postgres_schema_apply(struct store_connection *connection, const char *sql,
                                      uint32_t version)
{
    struct postgres_connection *c = postgres_from(connection);
    char text[160];
    uint32_t before = 0;
    enum err err = store_postgres_run(c, "SELECT pg_advisory_xact_lock(" SCHEMA_LOCK ")", NULL, 0);
    if (err == ERR_OK) {
        err = schema_version(c, &before);
    }
    if (err != ERR_OK || before >= version) {
        return err;
    }
    err = store_postgres_run(c,
                             "CREATE TABLE IF NOT EXISTS weir_schema (version bigint PRIMARY KEY,"
                             " applied_at timestamptz NOT NULL DEFAULT now())",
                             NULL, 0);
    if (err == ERR_OK) {
        err = store_postgres_run(c, sql, NULL, 0);
    }
    if (err == ERR_OK) {
        (void)snprintf(text, sizeof(text), "INSERT INTO weir_schema (version) VALUES (%u)",
                       version);
        err = store_postgres_run(c, text, NULL, 0);
    }
    return err;
}

/* --- transactions ----------------------------------------------------------------------------- */

static enum err ready(struct postgres_connection *c)
{
    return c->urls[1] == NULL ? store_postgres_connect(c, NULL) : store_postgres_catch_up(c);
}

static enum err begin(struct postgres_connection *c, const char *sql, char *ret, size_t size)
{
    bool was_open = c->session != NULL;
    c->failed = ERR_OK;
    c->is_in_transaction = false;
    enum err err = ready(c);
    if (err == ERR_OK) {
        err = store_postgres_run(c, sql, ret, size);
    }
    if (err == ERR_AWAY && was_open && c->session == NULL) {
        err = ready(c);
        if (err == ERR_OK) {
            err = store_postgres_run(c, sql, ret, size);
        }
    }
    c->is_in_transaction = err == ERR_OK;
    return err;
}

static enum err postgres_begin_read(struct store_connection *connection)
{
    return begin(postgres_from(connection), "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", NULL,
                 0);
}

static enum err postgres_begin_write(struct store_connection *connection, bool durable)
{
    (void)durable; /* all are */
    struct postgres_connection *c = postgres_from(connection);
    c->xid[0] = '\0';
    connection->began_ns = clock_mono_ns();
    enum err err = begin(c, "BEGIN; SELECT pg_current_xact_id()", c->xid, sizeof(c->xid));
    memcpy(c->began_life, c->life, sizeof(c->life));
    return err;
}

static void end(struct postgres_connection *c)
{
    c->is_in_transaction = false;
    c->failed = ERR_OK;
    c->is_staged = false;
    c->has_readings = false;
    c->has_rollups = false;
    c->used_ns = clock_mono_ns();
}

static void postgres_rollback(struct store_connection *connection)
{
    struct postgres_connection *c = postgres_from(connection);
    store_statements_reset(connection);
    if (c->is_in_transaction) {
        c->readings_epoch = 0;
        c->rollups_epoch = 0;
    }
    if (c->session != NULL && c->is_in_transaction) {
        c->deadline_ns = 0;
        if (store_postgres_run(c, "ROLLBACK", NULL, 0) != ERR_OK) {
            store_postgres_disconnect(c); /* which rolls back too */
        }
    }
    end(c);
}

/* What became of the transaction whose COMMIT was not answered. */
static enum err resolve(struct postgres_connection *c)
{
    char sql[96];
    char status[32];
    uint64_t until_ns = clock_mono_ns() + POSTGRES_DOUBT_MS * UINT64_C(1000000);
    (void)snprintf(sql, sizeof(sql), "SELECT pg_xact_status('%s'::xid8)", c->xid);
    while (clock_mono_ns() < until_ns) {
        status[0] = '\0';
        enum err err = store_postgres_connect(c, NULL);
        if (err == ERR_OK && strcmp(c->life, c->began_life) != 0) {
            return ERR_AWAY;
        }
        if (err == ERR_OK) {
            err = store_postgres_run(c, sql, status, sizeof(status));
        }
        if (err == ERR_OK && strcmp(status, "in progress") != 0) {
            return strcmp(status, "committed") == 0 ? ERR_OK : ERR_AWAY;
        }
        if (err != ERR_OK && err != ERR_AWAY) {
            return ERR_AWAY;
        }
        (void)poll(NULL, 0, DOUBT_PAUSE_MS); /* its backend may be at work still */
    }
    return ERR_AWAY;
}

static enum err postgres_commit(struct store_connection *connection)
{
    struct postgres_connection *c = postgres_from(connection);
    if (c->failed != ERR_OK) {
        return c->failed;
    }
    if (c->session == NULL) {
        return ERR_AWAY;
    }
    char place[32] = "";
    enum err err = store_postgres_run(
        c, !c->has_replica ? "COMMIT" : "COMMIT; SELECT pg_current_wal_flush_lsn()", place,
        sizeof(place));
    if (err == ERR_AWAY && c->session == NULL && c->xid[0] != '\0') {
        c->is_in_transaction = false;
        err = resolve(c);
    } else if (err == ERR_OK && c->was_rolled_back) {
        err = ERR_AWAY; /* so COMMIT is answered when the transaction was aborted: no error */
        c->is_in_transaction = false;
    }
    if (err == ERR_OK) {
        if (place[0] != '\0') {
            store_postgres_raise_place(c, store_postgres_place(place));
        }
        end(c);
    }
    return err;
}

static enum err run_named(struct store_connection *connection, const char *what, const char *name)
{
    char sql[96];
    (void)snprintf(sql, sizeof(sql), "%s %s", what, name);
    return store_postgres_run(postgres_from(connection), sql, NULL, 0);
}

static enum err postgres_savepoint(struct store_connection *connection, const char *name)
{
    return run_named(connection, "SAVEPOINT", name);
}

static enum err postgres_savepoint_release(struct store_connection *connection, const char *name)
{
    struct postgres_connection *c = postgres_from(connection);
    return c->failed != ERR_OK ? c->failed : run_named(connection, "RELEASE", name);
}

static enum err postgres_savepoint_rollback(struct store_connection *connection, const char *name)
{
    struct postgres_connection *c = postgres_from(connection);
    if (c->session == NULL) {
        return ERR_AWAY;
    }
    store_statements_reset(connection);
    c->readings_epoch = 0;
    c->rollups_epoch = 0;
    enum err err = run_named(connection, "ROLLBACK TO", name);
    if (err == ERR_OK) {
        c->failed = ERR_OK;
        err = run_named(connection, "RELEASE", name);
    }
    return err;
}

/* --- durability, size ------------------------------------------------------------------------- */

static enum err postgres_checkpoint(struct store_connection *connection, bool *ret_complete)
{
    (void)connection;
    *ret_complete = true; /* every commit is durable */
    return ERR_OK;
}

static bool postgres_is_durable(const struct store_connection *connection)
{
    (void)connection;
    return true;
}

static uint64_t postgres_checkpoint_bytes(const struct store_connection *connection)
{
    (void)connection;
    return 0;
}

static void postgres_job_begin(struct store_connection *connection, uint64_t deadline_ns)
{
    postgres_from(connection)->deadline_ns = deadline_ns;
}

static void postgres_job_end(struct store_connection *connection)
{
    struct postgres_connection *c = postgres_from(connection);
    c->deadline_ns = 0;
    store_statements_reset(connection);
}

static uint64_t postgres_changes(struct store_connection *connection)
{
    return postgres_from(connection)->changes;
}

static const char *postgres_error_text(struct store_connection *connection)
{
    return postgres_from(connection)->error;
}

void store_postgres_raise_place(struct postgres_connection *c, uint64_t place)
{
    atomic_uint_least64_t *highest = &c->options.log->place;
    uint64_t before = atomic_load_explicit(highest, memory_order_relaxed);
    while (before < place &&
           !atomic_compare_exchange_weak_explicit(highest, &before, place, memory_order_release,
                                                  memory_order_relaxed)) {
    }
}

const struct store_backend store_postgres = {
    .ears = &store_postgres_ears,
    .texts = {.by_subject = " FROM events e WHERE e.sequence BETWEEN $1 AND $2"
                            " AND e.subject_key = $3 AND e.subject = $4",
              .by_subject_order = "e.sequence",
              .forget_subject = "UPDATE events SET subject_key = NULL"
                                " WHERE subject_key = $1 AND sequence = $2",
              .take_lease = STORE_TAKE_LEASE(NOW_MS),
              .claim_lease =
                  "WITH free AS (SELECT name FROM leases WHERE name = $1"
                  " AND (holder = $2 OR until_ms <= " NOW_MS ") FOR UPDATE SKIP LOCKED),"
                  " taken AS (UPDATE leases l SET holder = $2, until_ms = " NOW_MS " + $3"
                  " FROM free WHERE l.name = free.name RETURNING 1),"
                  " made AS (INSERT INTO leases (name, holder, until_ms) SELECT $1, $2, " NOW_MS
                  " + $3 WHERE NOT EXISTS (SELECT 1 FROM leases WHERE name = $1)"
                  " ON CONFLICT (name) DO NOTHING RETURNING 1)"
                  " SELECT 1 FROM taken UNION ALL SELECT 1 FROM made",
              .claim_lanes = STORE_CLAIM_LANES " journal = $1 AND lane IN (SELECT lane FROM cursors"
                                               " WHERE" STORE_FREE_LANES " FOR UPDATE SKIP LOCKED)",
              .forget_appliers =
                  STORE_FORGET_APPLIERS " journal = $1 AND holder IN (SELECT holder FROM appliers"
                                        " WHERE" STORE_GONE_APPLIERS " FOR UPDATE SKIP LOCKED)",
              .now = "SELECT " NOW_MS,
              .lock_registry = LOCK_REGISTRY},
    .open = postgres_open,
    .close = postgres_close,
    .schema_version = postgres_schema_version,
    .schema_apply = postgres_schema_apply,
    .begin_read = postgres_begin_read,
    .begin_write = postgres_begin_write,
    .commit = postgres_commit,
    .rollback = postgres_rollback,
    .savepoint = postgres_savepoint,
    .savepoint_release = postgres_savepoint_release,
    .savepoint_rollback = postgres_savepoint_rollback,
    .checkpoint = postgres_checkpoint,
    .is_durable = postgres_is_durable,
    .checkpoint_bytes = postgres_checkpoint_bytes,
    .job_begin = postgres_job_begin,
    .job_end = postgres_job_end,
    .rest = store_postgres_rest,
    .statement_create = store_postgres_statement_create,
    .statement_destroy = store_postgres_statement_destroy,
    .bind_i64 = store_postgres_bind_i64,
    .bind_double = store_postgres_bind_double,
    .bind_text = store_postgres_bind_text,
    .bind_blob = store_postgres_bind_blob,
    .step = store_postgres_step,
    .reset = store_postgres_reset,
    .column_i64 = store_postgres_column_i64,
    .column_double = store_postgres_column_double,
    .column_bytes = store_postgres_column_bytes,
    .column_is_null = store_postgres_column_is_null,
    .changes = postgres_changes,
    .error_text = postgres_error_text,
    .insert_events = store_postgres_insert_events,
    .find_event = store_postgres_find_event,
    .reading_room = store_postgres_reading_room,
    .keep_months = store_postgres_keep_months,
    .write_readings = store_postgres_write_readings,
    /* Noting a minute that is dirty locks it, so that it is not taken before what made it dirty can
     * be seen. */
    .note_dirty = "INSERT INTO rollup_dirty (org, series, start_ms) VALUES ($1, $2, $3)"
                  " ON CONFLICT (org, series, start_ms) DO UPDATE SET start_ms = excluded.start_ms",
    .take_dirty = "WITH t AS (SELECT ctid AS place, org, series, start_ms FROM rollup_dirty"
                  " WHERE (org, series) > ($2, $3) ORDER BY org, series, start_ms LIMIT $1"
                  " FOR UPDATE SKIP LOCKED),"
                  " d AS (DELETE FROM rollup_dirty WHERE ctid = ANY (ARRAY(SELECT place FROM t)))"
                  " SELECT org, series, start_ms FROM t",
    .minutes_max = 4096,
    .write_rollups = store_postgres_write_rollups,
    .loader = &store_postgres_loader,
};
