/* Raw bodies of uploads are kept for a time after they were applied, and then deleted.
 *
 * Once an hour, and at the start, the store is asked which are due: their time, the org's or else
 * the server's, is over, or they hold what was to be erased. Their files go only when the commit
 * that finished them is durable: before that, a power cut would want to read them again; and not
 * while a backup runs, whose copy of the store may still have to apply them. Then the rows are
 * marked. Each node looks for those of its own journal, and of the one that it had in files
 * before NATS: the files of others are not here. Some
 * hundred are taken at a time; when all of those went, the next are looked for at once.
 *
 * Failure modes: a crash between the two leaves rows whose file is gone: the next look finds them,
 * deletes nothing and marks them. */
#include "apply/internal.h"

#include "base/clock.h"
#include "base/log.h"

#define LOOK_NS  (3600ull * 1000000000u)
#define AGAIN_NS (1000000000ull)
#define OLD_MAX  256u

struct old_query {
    struct store_job job;
    struct applier *applier;
    int64_t now_ms;
};

static void query_done(struct store_job *job)
{
    (void)job;
}

static enum err find_run(struct store_job *job, struct store_connection *connection)
{
    struct old_query *query = (struct old_query *)job;
    struct applier *applier = query->applier;
    struct store_statement *statement = NULL;
    bool has_row = true;
    applier->old_count = 0;
    enum err err =
        store_prepare(connection,
                      "SELECT u.id, u.org FROM uploads u LEFT JOIN orgs o"
                      " ON o.number = u.org WHERE u.state <> 1 AND (u.raw_deleted = 2"
                      " OR (u.raw_deleted = 0 AND u.finished_ms <="
                      " $1 - 86400000 * coalesce(o.raw_days, $2)))"
                      " AND ($4 = 1 OR u.journal IN ($5, $6) OR u.journal IS NULL) LIMIT $3",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, query->now_ms);
    store_bind_i64(statement, 2, (int64_t)applier->options.raw_retention_days);
    store_bind_i64(statement, 3, OLD_MAX);
    apply_bind_journal(applier, statement, 4);
    store_bind_blob(statement, 6, slice_make(applier->options.former.bytes, sizeof(struct id)));
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        struct slice id = store_column_bytes(statement, 0);
        if (id.size == sizeof(struct id) && applier->old_count < OLD_MAX) {
            struct apply_old_upload *old = &applier->old[applier->old_count++];
            memcpy(old->id.bytes, id.data, id.size);
            old->org = (uint64_t)store_column_i64(statement, 1);
        }
    }
    return err;
}

static enum err mark_run(struct store_job *job, struct store_connection *connection)
{
    struct applier *applier = ((struct old_query *)job)->applier;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < applier->old_count && err == ERR_OK; i++) {
        struct store_statement *statement = NULL;
        err = store_prepare(connection, "UPDATE uploads SET raw_deleted = 1 WHERE id = $1",
                            &statement);
        if (err == ERR_OK) {
            store_bind_blob(statement, 1, slice_make(applier->old[i].id.bytes, 16));
            err = store_execute(statement);
        }
    }
    return err;
}

static enum err run_query(struct applier *applier, struct old_query *query,
                          enum err (*run)(struct store_job *job,
                                          struct store_connection *connection))
{
    query->applier = applier;
    query->job.priority = STORE_RESULTS;
    query->job.run = run;
    query->job.on_done = query_done;
    return store_run_here(applier->options.store, &query->job);
}

static void find_old(struct applier *applier)
{
    struct old_query query = {.now_ms = clock_wall_ms()};
    if (applier->old == NULL) {
        applier->old = mem_alloc_array(OLD_MAX, sizeof(*applier->old));
    }
    if (run_query(applier, &query, find_run) != ERR_OK) {
        applier->old_count = 0; /* looked for again in an hour */
    }
    applier->old_commit = query.job.commit;
}

/* False: not all of them went, or could be marked. */
static bool delete_old(struct applier *applier)
{
    struct old_query query = {.now_ms = 0};
    uint32_t count = 0;
    for (uint32_t i = 0; i < applier->old_count; i++) {
        enum err err = journal_upload_delete(applier->options.journal, applier->old[i].id);
        if (err == ERR_OK || err == ERR_NOT_FOUND) {
            applier->old[count++] = applier->old[i];
        }
    }
    bool are_all = count == applier->old_count;
    applier->old_count = count;
    bool is_marked = run_query(applier, &query, mark_run) == ERR_OK;
    if (is_marked && count > 0) {
        log_write(LOG_INFO, "apply", "raw bodies of %u uploads deleted", count);
    }
    applier->old_count = 0;
    return are_all && is_marked;
}

void apply_retention_look(struct applier *applier, uint64_t now_ns)
{
    if (now_ns < applier->retention_due_ns) {
        return;
    }
    if (applier->old_count == 0) {
        find_old(applier);
    } else if (applier->old_commit <= store_durable_commit(applier->options.store) &&
               !journal_is_pinned(applier->options.journal)) {
        bool may_be_more = applier->old_count == OLD_MAX;
        if (delete_old(applier) && may_be_more) {
            find_old(applier);
        }
    }
    applier->retention_due_ns = now_ns + (applier->old_count == 0 ? LOOK_NS : AGAIN_NS);
}

void apply_retention_finish(struct applier *applier)
{
    mem_free(applier->old);
}
