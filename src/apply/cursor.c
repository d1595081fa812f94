/* Cursors and bases: what a store knows of journals.
 *
 * A journal's positions lie in a range of its own, above those of all journals that the store has
 * met: so an old position never means a new frame, and the journals of several nodes, which go on
 * side by side, never give the same one. The range is wide enough for years at any speed. Bases of
 * databases from before ranges lie wherever the cursor was.
 *
 * Failure modes: the store is away: the error goes to who starts the program. */
#include "apply/internal.h"

#include "base/clock.h"

#define RANGE_POSITIONS (INT64_C(1) << LIMIT_RANGE_SHIFT)
#define BASE_LEASE      "journal.base" /* two nodes that start at once are not given one base */
#define BASE_LEASE_MS   10000u

struct cursor_query {
    struct store_job job;
    struct id journal; /* or the store's */
    bool is_found;
    uint64_t value;
    struct journal_from cursors;
};

static void query_done(struct store_job *job)
{
    (void)job;
}

static enum err run_query(struct store *store, struct cursor_query *query,
                          enum err (*run)(struct store_job *job,
                                          struct store_connection *connection))
{
    query->job.priority = STORE_CONTROL;
    query->job.durable = true;
    query->job.run = run;
    query->job.on_done = query_done;
    return store_run_here(store, &query->job);
}

static enum err read_one(struct store_connection *connection, struct cursor_query *query,
                         const char *sql)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(query->journal.bytes, 16));
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        query->is_found = !store_column_is_null(statement, 0);
        query->value = (uint64_t)store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static enum err cursors_run(struct store_job *job, struct store_connection *connection)
{
    struct cursor_query *query = (struct cursor_query *)job;
    return apply_lease_read(connection, query->journal, &query->cursors);
}

static enum err take_over_run(struct store_job *job, struct store_connection *connection)
{
    enum err err = apply_lease_void(connection, ((struct cursor_query *)job)->journal);
    return err == ERR_OK ? cursors_run(job, connection) : err;
}

/* Above every position that was given by a journal of this store. */
static enum err insert_base(struct store_connection *connection, struct cursor_query *query)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "SELECT max(p) FROM (SELECT base AS p FROM journals"
                                 " UNION ALL SELECT position FROM cursors) AS t",
                                 &statement);
    bool has_row = false;
    if (err == ERR_OK) {
        err = store_step(statement, &has_row);
    }
    if (err != ERR_OK) {
        return err;
    }
    query->value = 0; /* of the first journal */
    if (has_row && !store_column_is_null(statement, 0)) {
        int64_t highest = store_column_i64(statement, 0);
        query->value = (uint64_t)((highest / RANGE_POSITIONS + 1) * RANGE_POSITIONS);
    }
    store_reset(statement);
    err = store_prepare(connection, "INSERT INTO journals (id, base) VALUES ($1, $2)", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(query->journal.bytes, 16));
    store_bind_i64(statement, 2, (int64_t)query->value);
    return store_execute(statement);
}

/* Whoever comes second waits for the row of the lease until the first has committed. */
static enum err base_run(struct store_job *job, struct store_connection *connection)
{
    static const char find[] = "SELECT base FROM journals WHERE id = $1";
    struct cursor_query *query = (struct cursor_query *)job;
    bool is_held = false;
    enum err err = read_one(connection, query, find);
    if (err != ERR_OK || query->is_found) {
        return err;
    }
    err = store_lease_take(connection, BASE_LEASE, 1, BASE_LEASE_MS, &is_held);
    if (err == ERR_OK) {
        err = read_one(connection, query, find);
    }
    if (err == ERR_OK && !query->is_found) {
        err = insert_base(connection, query);
    }
    return err == ERR_OK ? store_lease_give_up(connection, BASE_LEASE, 1) : err;
}

/* Two nodes that ask at once: the second waits for the first's row. */
static enum err store_id_run(struct store_job *job, struct store_connection *connection)
{
    struct cursor_query *query = (struct cursor_query *)job;
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection,
                                 "INSERT INTO secrets (name, value) VALUES ('store.id', $1)"
                                 " ON CONFLICT (name) DO NOTHING",
                                 &statement);
    if (err == ERR_OK) {
        store_bind_blob(statement, 1, slice_make(query->journal.bytes, sizeof(query->journal)));
        err = store_execute(statement);
    }
    if (err == ERR_OK) {
        err = store_prepare(connection, "SELECT value FROM secrets WHERE name = 'store.id'",
                            &statement);
    }
    if (err == ERR_OK) {
        err = store_step(statement, &has_row);
    }
    if (err != ERR_OK) {
        return err;
    }
    struct slice value = has_row ? store_column_bytes(statement, 0) : slice_make(NULL, 0);
    bool is_whole = value.size == sizeof(query->journal.bytes);
    if (is_whole) {
        memcpy(query->journal.bytes, value.data, value.size);
    }
    store_reset(statement);
    return is_whole ? ERR_OK : ERR_CORRUPT;
}

enum err apply_store_id(struct store *store, struct id *ret)
{
    struct cursor_query query = {.journal = id_make_v7((int64_t)clock_wall_ms())};
    enum err err = run_query(store, &query, store_id_run);
    if (err == ERR_OK) {
        *ret = query.journal;
    }
    return err;
}

enum err apply_cursors_of(struct store *store, struct id journal, struct journal_from *ret)
{
    struct cursor_query query = {.journal = journal};
    enum err err = run_query(store, &query, cursors_run);
    if (err == ERR_OK) {
        *ret = query.cursors;
    }
    return err;
}

enum err apply_take_over(struct store *store, struct id journal, struct journal_from *ret)
{
    struct cursor_query query = {.journal = journal};
    enum err err = ERR_BUSY;
    for (uint32_t i = 0; i < APPLY_OPEN_TRIES && err == ERR_BUSY; i++) {
        err = run_query(store, &query, take_over_run);
    }
    if (err == ERR_OK) {
        *ret = query.cursors;
    }
    return err;
}

enum err apply_cursor_of(struct store *store, struct id journal, uint64_t *ret)
{
    struct journal_from cursors;
    enum err err = apply_cursors_of(store, journal, &cursors);
    if (err == ERR_OK) {
        *ret = journal_from_least(&cursors);
    }
    return err;
}

enum err apply_base(struct store *store, struct id journal, bool is_new, uint64_t *ret_base)
{
    (void)is_new; /* one that is old and unknown here has frames to apply, as a new one will have */
    struct cursor_query query = {.journal = journal};
    enum err err = run_query(store, &query, base_run);
    if (err == ERR_OK) {
        *ret_base = query.value;
    }
    return err;
}

static enum err open_run(struct store_job *job, struct store_connection *connection)
{
    return read_one(connection, (struct cursor_query *)job,
                    "SELECT 1 FROM uploads WHERE state = 1 AND (journal = $1 OR journal IS NULL)"
                    " LIMIT 1");
}

enum err apply_has_open_uploads(struct store *store, struct id journal, bool *ret)
{
    struct cursor_query query = {.journal = journal};
    enum err err = run_query(store, &query, open_run);
    if (err == ERR_OK) {
        *ret = query.is_found;
    }
    return err;
}

void apply_bind_journal(const struct applier *applier, struct store_statement *statement, int n)
{
    store_bind_i64(statement, n, applier->options.is_alone);
    store_bind_blob(statement, n + 1,
                    slice_make(applier->journal.bytes, sizeof(applier->journal.bytes)));
}
