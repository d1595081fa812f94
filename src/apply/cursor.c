/* Cursors and bases: what a store knows of journals.
 *
 * Positions rise over all journals that a store has met: the base of a new one lies at the highest
 * position that was applied, so an old position never means a new frame.
 *
 * Failure modes: the store is away: the error goes to who starts the program. */
#include "apply/internal.h"

struct cursor_query {
    struct store_job job;
    struct id journal;
    bool is_any; /* the highest of all journals */
    bool is_found;
    uint64_t value;
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
    store_bind_i64(statement, 2, APPLY_CURSOR_LANE);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        query->is_found = !store_column_is_null(statement, 0);
        query->value = (uint64_t)store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static const char highest[] = "SELECT max(position) FROM cursors";

static enum err cursor_run(struct store_job *job, struct store_connection *connection)
{
    struct cursor_query *query = (struct cursor_query *)job;
    return read_one(
        connection, query,
        query->is_any ? highest : "SELECT position FROM cursors WHERE journal = $1 AND lane = $2");
}

static enum err base_run(struct store_job *job, struct store_connection *connection)
{
    struct cursor_query *query = (struct cursor_query *)job;
    enum err err = read_one(connection, query, "SELECT base FROM journals WHERE id = $1");
    if (err != ERR_OK || query->is_found) {
        return err;
    }
    err = read_one(connection, query, highest);
    if (err != ERR_OK) {
        return err;
    }
    struct store_statement *statement = NULL;
    err = store_prepare(connection, "INSERT INTO journals (id, base) VALUES ($1, $2)", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(query->journal.bytes, 16));
    store_bind_i64(statement, 2, (int64_t)query->value);
    return store_execute(statement);
}

enum err apply_cursor(struct store *store, uint64_t *ret_position)
{
    struct cursor_query query = {.is_any = true};
    enum err err = run_query(store, &query, cursor_run);
    if (err == ERR_OK) {
        *ret_position = query.value;
    }
    return err;
}

enum err apply_cursor_of(struct store *store, struct id journal, uint64_t *ret)
{
    struct cursor_query query = {.journal = journal};
    enum err err = run_query(store, &query, cursor_run);
    if (err == ERR_OK) {
        *ret = query.value;
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
