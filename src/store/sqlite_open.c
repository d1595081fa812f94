/* The SQLite backend: opening, transactions, durability.
 *
 * Settings, and why:
 *   page_size 4096      a small commit writes few bytes; bigger pages gain 15 % on big batches only
 *   journal_mode WAL    readers never wait for the writer
 *   synchronous         NORMAL for what the journal holds, FULL for everything else: per
 * transaction wal_autocheckpoint  off: a checkpoint in a commit would surprise who waits; the
 * writer decides mmap                off: an I/O error would be a signal, and mapped pages count as
 * our memory temp_store memory   no temporary files beside the database
 *
 * When a commit is durable. A FULL commit that changes something syncs the WAL, and with it every
 * commit before it (one that changes nothing syncs nothing). A complete checkpoint syncs the WAL
 * and then the database. A failed sync proves nothing about pages that the kernel has dropped, and
 * a second sync that succeeds proves nothing either; so after a failed commit or checkpoint, also
 * one of the checkpointer's, the connection is suspect: before the next transaction a checkpoint
 * must copy every page of the WAL (from memory, where they still are), also what an earlier one has
 * copied, to the database, which begins the WAL anew.
 *
 * Which database is ours: PRAGMA application_id is "Weir" and user_version the schema's version. An
 * empty file becomes ours; anything else is refused.
 *
 * Failure modes: another process holds the database: ERR_BUSY after a second, ERR_LOCKED at open.
 * Disk full: ERR_NO_SPACE. In each case the transaction is rolled back, and the next one tries
 * again. */
#include "store/load.h"
#include "store/sqlite.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static_assert((SQLITE_PAGE_BYTES & (SQLITE_PAGE_BYTES - 1)) == 0, "a power of two");

#define NOW_MS "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"

static enum err run_text(struct sqlite_connection *c, const char *sql)
{
    int code = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    return store_sqlite_err(c, code == SQLITE_OK ? SQLITE_OK : sqlite3_extended_errcode(c->db));
}

/* Prepared at open: to end a transaction must not need memory. */
static enum err run_prepared(struct sqlite_connection *c, sqlite3_stmt *statement)
{
    int code = sqlite3_step(statement);
    enum err err = ERR_OK;
    if (code != SQLITE_DONE) {
        err = store_sqlite_err(c, sqlite3_extended_errcode(c->db));
    }
    (void)sqlite3_reset(statement); /* repeats the step's error */
    return err;
}

static enum err prepare_ends(struct sqlite_connection *c)
{
    const struct {
        const char *sql;
        sqlite3_stmt **to;
    } rows[] = {{"BEGIN", &c->begin},
                {"BEGIN IMMEDIATE", &c->begin_immediate},
                {"COMMIT", &c->commit},
                {"ROLLBACK", &c->rollback}};
    int code = SQLITE_OK;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && code == SQLITE_OK; i++) {
        code =
            sqlite3_prepare_v3(c->db, rows[i].sql, -1, SQLITE_PREPARE_PERSISTENT, rows[i].to, NULL);
    }
    return store_sqlite_err(c, code);
}

/* One number of a PRAGMA or SELECT. */
static enum err read_number(struct sqlite_connection *c, const char *sql, int64_t *ret)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(c->db, sql, -1, &statement, NULL);
    if (code == SQLITE_OK) {
        code = sqlite3_step(statement);
    }
    if (code == SQLITE_ROW) {
        *ret = sqlite3_column_int64(statement, 0);
    } else {
        code = sqlite3_extended_errcode(c->db);
    }
    (void)sqlite3_finalize(statement); /* the code was taken */
    return store_sqlite_err(c, code);
}

static int on_commit(void *context, sqlite3 *db, const char *name, int pages)
{
    (void)db;
    (void)name;
    struct sqlite_connection *c = context;
    c->wal_pages = (uint32_t)pages;
    c->is_synced = c->is_full;
    return SQLITE_OK;
}

static int on_progress(void *context)
{
    const struct sqlite_connection *c = context;
    return c->deadline_ns != 0 && clock_mono_ns() > c->deadline_ns;
}

static void sqlite_close(struct store_connection *connection)
{
    if (connection == NULL) {
        return;
    }
    struct sqlite_connection *c = sqlite_from(connection);
    store_statements_destroy(connection);
    if (c->is_suspect) {
        /* The engine's own checkpoint at the last close copies all, or keeps the WAL. */
        (void)store_sqlite_move_all_again(c);
    }
    (void)sqlite3_finalize(c->begin); /* never failed without being told */
    (void)sqlite3_finalize(c->begin_immediate);
    (void)sqlite3_finalize(c->commit);
    (void)sqlite3_finalize(c->rollback);
    /* Closes the WAL too when this is the last connection; what fails is tried at the next open. */
    (void)sqlite3_close(c->db);
    if (c->log_fd >= 0) {
        (void)sys_close(c->log_fd); /* nothing was written by it */
    }
    mem_free(c->slow_sql);
    mem_free(c->path);
    mem_free(c);
}

/* The file is made here, so that nobody else may read it. One that is there is not opened: to close
 * it again would take away every lock that this process has on it (POSIX), those of SQLite's other
 * connections too, and then another process would take itself for the last one and the WAL for its
 * own to remove. */
static enum err make_file(const char *path)
{
    struct stat found;
    if (sys_stat(path, &found) == 0) {
        return ERR_OK;
    }
    int fd = sys_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        return errno == EEXIST ? ERR_OK : err_from_errno(errno);
    }
    (void)sys_close(fd); /* nothing was written */
    return ERR_OK;
}

static enum err configure(struct sqlite_connection *c, const struct store_options *options)
{
    char sql[512];
    bool is_writer = c->role == STORE_ROLE_WRITER;
    (void)snprintf(sql, sizeof(sql),
                   "PRAGMA page_size=%u; PRAGMA journal_mode=WAL; PRAGMA synchronous=%s;"
                   "PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=%u;"
                   "PRAGMA cache_size=-%u; PRAGMA temp_store=MEMORY; PRAGMA mmap_size=0;"
                   "PRAGMA trusted_schema=OFF; PRAGMA query_only=%d;",
                   SQLITE_PAGE_BYTES, is_writer ? "FULL" : "NORMAL", SQLITE_JOURNAL_SIZE_MAX,
                   is_writer ? options->cache_mb * 1024u : SQLITE_READER_CACHE_KIB,
                   c->role == STORE_ROLE_READER);
    enum err err = run_text(c, sql);
    c->is_full = is_writer;
    return err;
}

static const char *open_advice(const struct sqlite_connection *c, enum err err)
{
    if (err == ERR_BUSY) {
        return "in use by another process: stop it";
    }
    if (err == ERR_PERMISSION) {
        return "permission denied: give this user the right to write it";
    }
    if (err == ERR_CORRUPT) {
        return "the database is damaged: restore a backup";
    }
    if (err == ERR_VERSION) {
        return sqlite3_errcode(c->db) == SQLITE_NOTADB
                   ? "not an SQLite database: choose another DATA_DIR or DATABASE_URL"
                   : "belongs to another program: choose another DATA_DIR or DATABASE_URL";
    }
    return err_text(err);
}

static enum err open_engine(struct sqlite_connection *c)
{
    /* NOMUTEX: a connection has one thread. */
    int code = sqlite3_open_v2(c->path, &c->db,
                               SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                                   SQLITE_OPEN_PRIVATECACHE,
                               NULL);
    if (c->db == NULL) {
        return ERR_NO_MEMORY;
    }
    if (code != SQLITE_OK) {
        return store_sqlite_err(c, code);
    }
    if (sqlite3_db_readonly(c->db, "main") == 1) {
        return ERR_PERMISSION;
    }
    return store_sqlite_err(c, sqlite3_busy_timeout(c->db, SQLITE_BUSY_TIMEOUT_MS));
}

static enum err prepare_role(struct sqlite_connection *c, const struct store_options *options)
{
    enum err err = configure(c, options);
    if (err == ERR_OK) {
        err = prepare_ends(c);
    }
    if (err == ERR_OK && c->role == STORE_ROLE_WRITER) {
        (void)sqlite3_wal_hook(c->db, on_commit, c);
        err = store_sqlite_rows_register(c);
    }
    if (err == ERR_OK && c->role == STORE_ROLE_READER) {
        sqlite3_progress_handler(c->db, SQLITE_PROGRESS_STEPS, on_progress, c);
        c->slow_ns = options->slow_query_ms * 1000000ull;
        store_sqlite_slow_watch(c);
    }
    return err;
}

static enum err schema_version(struct sqlite_connection *c, uint32_t *ret)
{
    int64_t application = 0;
    int64_t version = 0;
    int64_t tables = 0;
    enum err err = read_number(c, "PRAGMA application_id", &application);
    if (err == ERR_OK) {
        err = read_number(c, "PRAGMA user_version", &version);
    }
    if (err == ERR_OK) {
        err = read_number(c, "SELECT count(*) FROM sqlite_schema", &tables);
    }
    if (err != ERR_OK) {
        return err;
    }
    bool is_empty = application == 0 && version == 0 && tables == 0;
    if (!is_empty && application != SQLITE_APPLICATION_ID) {
        return ERR_VERSION;
    }
    *ret = (uint32_t)version;
    return ERR_OK;
}

static enum err sqlite_open(struct store_connection **ret, const struct store_options *options,
                            enum store_role role, struct err_detail *detail)
{
    static const char prefix[] = "sqlite:";
    uint32_t version = 0;
    if (!slice_starts_with(slice_from_text(options->url), SLICE_LITERAL(prefix))) {
        err_detail_set(detail, "%s: not of the form sqlite:/path", options->url);
        return ERR_CONFIG;
    }
    /* Counting every allocation would make all threads meet at one lock. Refused after the first
     * open, which is fine. */
    (void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
    struct sqlite_connection *c = mem_alloc(sizeof(*c));
    store_connection_init(&c->base, &store_sqlite);
    c->role = role;
    c->log_fd = -1;
    c->path = mem_copy_text(options->url + sizeof(prefix) - 1);
    enum err err = make_file(c->path);
    if (err == ERR_OK) {
        err = open_engine(c);
    }
    if (err == ERR_OK) {
        /* Before anything is changed in a file that may be somebody else's. */
        err = schema_version(c, &version);
    }
    if (err == ERR_OK) {
        err = prepare_role(c, options);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "%s: %s", c->path, open_advice(c, err));
        err = err == ERR_BUSY ? ERR_LOCKED : err;
        goto out;
    }
    *ret = &c->base;
    c = NULL;
out:
    sqlite_close(c == NULL ? NULL : &c->base);
    return err;
}

static enum err sqlite_schema_version(struct store_connection *connection, uint32_t *ret)
{
    return schema_version(sqlite_from(connection), ret);
}

static enum err sqlite_schema_apply(struct store_connection *connection, const char *sql,
                                    uint32_t version)
{
    char pragma[128];
    struct sqlite_connection *c = sqlite_from(connection);
    enum err err = run_text(c, sql);
    if (err == ERR_OK) {
        (void)snprintf(pragma, sizeof(pragma), "PRAGMA application_id=%d; PRAGMA user_version=%u",
                       SQLITE_APPLICATION_ID, version);
        err = run_text(c, pragma);
    }
    return err;
}

static enum err checkpoint_as(struct sqlite_connection *c, int mode, bool *ret_complete)
{
    int pages = 0;
    int moved = 0;
    int code = sqlite3_wal_checkpoint_v2(c->db, NULL, mode, &pages, &moved);
    if (code == SQLITE_OK && moved >= 0) {
        c->wal_pages = (uint32_t)pages; /* also of a WAL that was there before this connection */
    }
    *ret_complete = code == SQLITE_OK && pages == moved;
    c->is_synced |= *ret_complete;
    return store_sqlite_err(c, code);
}

/* Every page of the WAL goes to the database, and the WAL begins anew. */
static enum err clear_suspicion(struct sqlite_connection *c, bool *ret_complete)
{
    bool is_complete = false;
    enum err err = store_sqlite_move_all_again(c);
    if (err == ERR_OK) {
        err = checkpoint_as(c, SQLITE_CHECKPOINT_RESTART, &is_complete);
    }
    c->is_suspect = err != ERR_OK || !is_complete;
    *ret_complete = is_complete;
    return err == ERR_OK && !is_complete ? ERR_BUSY : err;
}

static void sqlite_doubt(struct store_connection *connection)
{
    struct sqlite_connection *c = sqlite_from(connection);
    c->is_suspect = true;
    /* Here for those who read: they find in the WAL what was dropped. Before the next transaction
     * it must succeed. */
    (void)store_sqlite_move_all_again(c);
}

static enum err sqlite_checkpoint(struct store_connection *connection, bool *ret_complete)
{
    struct sqlite_connection *c = sqlite_from(connection);
    if (c->is_suspect) {
        return clear_suspicion(c, ret_complete);
    }
    enum err err = checkpoint_as(c, SQLITE_CHECKPOINT_PASSIVE, ret_complete);
    if (err != ERR_OK && err != ERR_BUSY) {
        sqlite_doubt(connection);
    }
    return err;
}

static bool sqlite_is_durable(const struct store_connection *connection)
{
    return ((const struct sqlite_connection *)connection)->is_synced;
}

static uint64_t sqlite_checkpoint_bytes(const struct store_connection *connection)
{
    const struct sqlite_connection *c = (const struct sqlite_connection *)connection;
    uint32_t moved = store_sqlite_moved_pages(c);
    return moved < c->wal_pages ? (uint64_t)(c->wal_pages - moved) * SQLITE_PAGE_BYTES : 0;
}

static enum err sqlite_begin_read(struct store_connection *connection)
{
    return run_prepared(sqlite_from(connection), sqlite_from(connection)->begin);
}

static enum err sqlite_begin_write(struct store_connection *connection, bool durable)
{
    struct sqlite_connection *c = sqlite_from(connection);
    if (c->is_suspect) {
        bool is_complete = false;
        enum err err = clear_suspicion(c, &is_complete);
        if (err != ERR_OK) {
            return err;
        }
    }
    if (durable != c->is_full) {
        enum err err =
            run_text(c, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL");
        if (err != ERR_OK) {
            return err;
        }
        c->is_full = durable;
    }
    connection->began_ns = clock_mono_ns();
    return run_prepared(c, c->begin_immediate);
}

static void sqlite_rollback(struct store_connection *connection)
{
    struct sqlite_connection *c = sqlite_from(connection);
    store_statements_reset(connection);
    if (sqlite3_get_autocommit(c->db) == 0) {
        /* Cannot fail but for a transaction that the engine has already rolled back. */
        (void)run_prepared(c, c->rollback);
    }
    assert(sqlite3_get_autocommit(c->db) != 0);
}

static enum err sqlite_commit(struct store_connection *connection)
{
    struct sqlite_connection *c = sqlite_from(connection);
    if (sqlite3_get_autocommit(c->db) != 0) {
        return ERR_AWAY; /* the engine rolled back on its own: nothing of it is there */
    }
    enum err err = run_prepared(c, c->commit);
    if (err == ERR_OK) {
        store_sqlite_push_log(c);
    } else if (err != ERR_BUSY) {
        c->is_suspect = true;
    }
    return err;
}

static enum err run_named(struct store_connection *connection, const char *what, const char *name)
{
    char sql[64];
    (void)snprintf(sql, sizeof(sql), "%s %s", what, name);
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare_text(connection, slice_from_text(sql), &statement);
    return err != ERR_OK ? err : store_sqlite_step(statement, &has_row);
}

static enum err sqlite_savepoint(struct store_connection *connection, const char *name)
{
    return run_named(connection, "SAVEPOINT", name);
}

static enum err sqlite_savepoint_release(struct store_connection *connection, const char *name)
{
    return run_named(connection, "RELEASE", name);
}

static enum err sqlite_savepoint_rollback(struct store_connection *connection, const char *name)
{
    store_statements_reset(connection);
    enum err err = run_named(connection, "ROLLBACK TO", name);
    return err != ERR_OK ? err : run_named(connection, "RELEASE", name);
}

static void sqlite_job_begin(struct store_connection *connection, uint64_t deadline_ns)
{
    sqlite_from(connection)->deadline_ns = deadline_ns;
}

static void sqlite_job_end(struct store_connection *connection)
{
    struct sqlite_connection *c = sqlite_from(connection);
    c->deadline_ns = 0;
    store_statements_reset(connection);
    store_sqlite_slow_log(c);
}

static enum err sqlite_rest(struct store_connection *connection, int *ret_ms)
{
    (void)connection; /* a file does not go away */
    *ret_ms = -1;
    return ERR_OK;
}

static uint64_t sqlite_changes(struct store_connection *connection)
{
    return (uint64_t)sqlite3_changes64(sqlite_from(connection)->db);
}

static const char *sqlite_error_text(struct store_connection *connection)
{
    return sqlite3_errmsg(sqlite_from(connection)->db);
}

const struct store_backend store_sqlite = {
    /* CROSS JOIN: the order in which the engine takes the tables. */
    .texts = {.by_subject = " FROM event_subjects s CROSS JOIN events e ON e.sequence = s.sequence"
                            " WHERE s.sequence BETWEEN $1 AND $2 AND s.key = $3"
                            " AND e.subject = $4",
              .by_subject_order = "s.sequence",
              .forget_subject = "DELETE FROM event_subjects WHERE key = $1 AND sequence = $2",
              .take_lease = STORE_TAKE_LEASE(NOW_MS),
              .claim_lease = STORE_TAKE_LEASE(NOW_MS), /* one writes at a time */
              .claim_lanes = STORE_CLAIM_LANES STORE_FREE_LANES,
              .forget_appliers = STORE_FORGET_APPLIERS STORE_GONE_APPLIERS,
              .now = "SELECT " NOW_MS,
              .lock_registry = "SELECT $1"}, /* one writes at a time */
    .open = sqlite_open,
    .close = sqlite_close,
    .schema_version = sqlite_schema_version,
    .schema_apply = sqlite_schema_apply,
    .begin_read = sqlite_begin_read,
    .begin_write = sqlite_begin_write,
    .commit = sqlite_commit,
    .rollback = sqlite_rollback,
    .savepoint = sqlite_savepoint,
    .savepoint_release = sqlite_savepoint_release,
    .savepoint_rollback = sqlite_savepoint_rollback,
    .checkpoint = sqlite_checkpoint,
    .checkpoint_beside = store_sqlite_checkpoint_beside,
    .doubt = sqlite_doubt,
    .is_durable = sqlite_is_durable,
    .checkpoint_bytes = sqlite_checkpoint_bytes,
    .job_begin = sqlite_job_begin,
    .job_end = sqlite_job_end,
    .rest = sqlite_rest,
    .statement_create = store_sqlite_statement_create,
    .statement_destroy = store_sqlite_statement_destroy,
    .bind_i64 = store_sqlite_bind_i64,
    .bind_double = store_sqlite_bind_double,
    .bind_text = store_sqlite_bind_text,
    .bind_blob = store_sqlite_bind_blob,
    .step = store_sqlite_step,
    .reset = store_sqlite_reset,
    .column_i64 = store_sqlite_column_i64,
    .column_double = store_sqlite_column_double,
    .column_bytes = store_sqlite_column_bytes,
    .column_is_null = store_sqlite_column_is_null,
    .changes = sqlite_changes,
    .error_text = sqlite_error_text,
    .insert_events = store_sqlite_insert_events,
    .find_event = store_sqlite_find_event,
    .has_subjects = true,
    .note_dirty = "INSERT INTO rollup_dirty (org, series, start_ms) VALUES ($1, $2, $3)"
                  " ON CONFLICT (org, series, start_ms) DO NOTHING",
    .take_dirty = "DELETE FROM rollup_dirty WHERE (org, series, start_ms) IN"
                  " (SELECT org, series, start_ms FROM rollup_dirty WHERE (org, series) > ($2, $3)"
                  " ORDER BY org, series, start_ms LIMIT $1) RETURNING org, series, start_ms",
    .minutes_max = 256,
    .loader = &store_sqlite_loader,
};
