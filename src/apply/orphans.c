/* Orphans: raw bodies of earlier runs that no row of the store knows, or whose row says that they
 * are deleted: a crash came between the row's change and the file's, or a file's removal failed.
 *
 * Looked for once in a run, some at a time, when nothing else is to be done. A file is an orphan
 * only if its end record was durable before this run and everything of that time is applied: its
 * row was made then, so that it is not there means that it was deleted. Unless the journal was
 * damaged, or a dead letter tells of an end record that could not be used: then a file without a
 * row may be all that is left of an acknowledged body, and stays.
 *
 * Failure modes: the folder or the store cannot be read: given up until the next run; nothing is
 * deleted that was not asked about. */
#include "apply/internal.h"

#include "base/log.h"
#include "base/mem.h"

#define ORPHANS_PER_LOOK 256u

enum orphan_state { ORPHAN_WANTED, ORPHAN_ROWLESS, ORPHAN_GONE };

struct orphans_query {
    struct store_job job;
    struct id ids[ORPHANS_PER_LOOK];
    enum orphan_state states[ORPHANS_PER_LOOK];
    uint32_t count;     /* asked about; then the orphans among them */
    bool keeps_rowless; /* what has no row may have lost it */
};

static void orphans_done(struct store_job *job)
{
    (void)job;
}

static enum err orphans_find_row(struct store_connection *connection, struct id id,
                                 enum orphan_state *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT raw_deleted FROM uploads WHERE id = $1", &statement);
    if (err == ERR_OK) {
        store_bind_blob(statement, 1, slice_make(id.bytes, sizeof(id.bytes)));
        err = store_step(statement, &has_row);
    }
    if (err == ERR_OK && has_row) {
        *ret = store_column_i64(statement, 0) == 0 ? ORPHAN_WANTED : ORPHAN_GONE;
        store_reset(statement);
    } else if (err == ERR_OK) {
        *ret = ORPHAN_ROWLESS;
    }
    return err;
}

/* `id` empty: all. */
static void orphans_keep(struct orphans_query *query, struct slice id)
{
    for (uint32_t i = 0; i < query->count; i++) {
        if (query->states[i] == ORPHAN_ROWLESS &&
            (id.size == 0 || slice_equal(slice_make(query->ids[i].bytes, 16), id))) {
            query->states[i] = ORPHAN_WANTED;
        }
    }
}

/* All letters of end records, once for all files that have no row. A frame whose head could not be
 * read names no upload: it may be any. */
static enum err orphans_keep_lettered(struct store_connection *connection,
                                      struct orphans_query *query)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(
        connection, "SELECT id, kind = 'frame' FROM dead_letters WHERE form = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, RECORD_FORM_UPLOAD_END);
    err = store_step(statement, &has_row);
    while (err == ERR_OK && has_row) {
        bool is_any = store_column_i64(statement, 1) != 0;
        orphans_keep(query, is_any ? (struct slice){NULL, 0} : store_column_bytes(statement, 0));
        err = store_step(statement, &has_row);
    }
    return err;
}

static enum err orphans_run(struct store_job *job, struct store_connection *connection)
{
    struct orphans_query *query = (struct orphans_query *)job;
    uint32_t rowless = 0;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < query->count && err == ERR_OK; i++) {
        err = orphans_find_row(connection, query->ids[i], &query->states[i]);
        rowless += err == ERR_OK && query->states[i] == ORPHAN_ROWLESS;
    }
    if (err == ERR_OK && query->keeps_rowless) {
        orphans_keep(query, (struct slice){NULL, 0});
    } else if (err == ERR_OK && rowless > 0) {
        err = orphans_keep_lettered(connection, query);
    }
    if (err != ERR_OK) {
        return err;
    }
    uint32_t orphans = 0;
    for (uint32_t i = 0; i < query->count; i++) {
        if (query->states[i] != ORPHAN_WANTED) {
            query->ids[orphans++] = query->ids[i];
        }
    }
    query->count = orphans;
    return ERR_OK;
}

/* False: there are no more. */
static bool orphans_look_at_some(struct applier *applier, struct orphans_query *query)
{
    bool has = true;
    while (query->count < ORPHANS_PER_LOOK) {
        enum err err = journal_upload_walk_next(applier->orphans, &query->ids[query->count], &has);
        if (err != ERR_OK || !has) {
            has = false;
            break;
        }
        query->count++;
    }
    if (query->count == 0) {
        return has;
    }
    query->keeps_rowless = journal_has_damage(applier->options.journal);
    query->job.priority = STORE_RESULTS;
    query->job.run = orphans_run;
    query->job.on_done = orphans_done;
    if (store_run_here(applier->options.store, &query->job) != ERR_OK) {
        return false;
    }
    for (uint32_t i = 0; i < query->count; i++) {
        if (journal_upload_delete(applier->options.journal, query->ids[i]) == ERR_OK) {
            log_write(LOG_INFO, "apply", "the raw body of an upload that is gone was deleted");
        }
    }
    return has;
}

void apply_orphans_look(struct applier *applier)
{
    struct journal *journal = applier->options.journal;
    if (applier->orphans_are_done ||
        apply_position(applier->apply) < journal_recovered_position(journal)) {
        return;
    }
    if (applier->orphans == NULL &&
        journal_upload_walk_open(&applier->orphans, journal) != ERR_OK) {
        applier->orphans_are_done = true;
        return;
    }
    struct orphans_query *query = mem_alloc(sizeof(*query));
    applier->orphans_are_done = !orphans_look_at_some(applier, query);
    mem_free(query);
    if (applier->orphans_are_done) {
        apply_orphans_finish(applier);
    }
}

void apply_orphans_finish(struct applier *applier)
{
    journal_upload_walk_close(applier->orphans);
    applier->orphans = NULL;
}
