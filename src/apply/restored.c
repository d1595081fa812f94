/* After a restore: what clients have seen means nothing else than before.
 *
 * The server that the backup was made of went on. It gave positions to frames, sequences to events
 * and versions to answers that the restored store knows nothing of, and clients keep them as
 * cursors, in wait_for and in ETags. So all three jump: further than a server gets between two
 * restores, so little that jumping never ends. What the journal of the backup still holds is
 * applied behind the jump, so a client that reads on with any cursor sees it, perhaps again, and
 * misses nothing.
 *
 * Failure modes: an org whose numbers would run out (after some 250 restores): ERR_FULL. The store
 * is as it was after any error. */
#include "apply/internal.h"

#define RESTORED_POSITIONS (1ll << 40)
#define RESTORED_SEQUENCES (1ll << 32)

struct restored_job {
    struct store_job job;
    struct id journal;
    uint64_t position;
};

static void on_done(struct store_job *job)
{
    (void)job;
}

static enum err check_room(struct store_connection *connection)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection, "SELECT 1 FROM orgs WHERE last_sequence - number * $1 > $2 LIMIT 1",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, 1ll << STORE_ORG_SHIFT);
    store_bind_i64(statement, 2, (1ll << STORE_ORG_SHIFT) - 2 * RESTORED_SEQUENCES);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        store_reset(statement);
        err = ERR_FULL;
    }
    return err;
}

static enum err jump_orgs(struct store_connection *connection)
{
    struct store_statement *statement = NULL;
    /* The org's number is no part of what its row keeps until its first record. */
    enum err err = store_prepare(connection,
                                 "UPDATE orgs SET data_version = data_version + $1, last_sequence ="
                                 " $1 + CASE WHEN last_sequence = 0 THEN number * $2"
                                 " ELSE last_sequence END",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, RESTORED_SEQUENCES);
    store_bind_i64(statement, 2, 1ll << STORE_ORG_SHIFT);
    return store_execute(statement);
}

static enum err jump_journal(struct store_connection *connection, const struct restored_job *job)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "INSERT INTO journals (id, base) VALUES ($1, $2)"
                                 " ON CONFLICT (id) DO UPDATE SET base = excluded.base",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(job->journal.bytes, sizeof(job->journal.bytes)));
    store_bind_i64(statement, 2, (int64_t)job->position + RESTORED_POSITIONS);
    return store_execute(statement);
}

static enum err restored_run(struct store_job *job, struct store_connection *connection)
{
    enum err err = check_room(connection);
    if (err == ERR_OK) {
        err = jump_orgs(connection);
    }
    return err == ERR_OK ? jump_journal(connection, (const struct restored_job *)job) : err;
}

enum err apply_restored(struct store *store, struct id journal, uint64_t position)
{
    struct restored_job job = {.job = {.priority = STORE_CONTROL,
                                       .durable = true,
                                       .run = restored_run,
                                       .on_done = on_done},
                               .journal = journal,
                               .position = position};
    return store_run_here(store, &job.job);
}
