/* Id keys: 32 bytes of an org, which turn a dedup_id into an id. They never change, so what was
 * read once is kept in a table.
 *
 * Happy path: the table knows it. Else a reader of the store is asked, and the applier waits: it
 * has nothing better to do than this frame. Failure modes: the store is away: the error goes up and
 * the frame is tried again later. */
#include "apply/internal.h"

#include "base/table.h"

struct key_query {
    struct store_job job;
    uint64_t org;
    uint8_t key[32];
    bool is_done;
};

enum err apply_id_key_read(struct store_connection *connection, uint64_t org, uint8_t ret[32])
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT id_key FROM orgs WHERE number = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    struct slice key = store_column_bytes(statement, 0);
    bool is_key = key.size == 32;
    if (is_key) {
        memcpy(ret, key.data, 32);
    }
    store_reset(statement);
    return is_key ? ERR_OK : ERR_NOT_FOUND;
}

static enum err query_run(struct store_job *job, struct store_connection *connection)
{
    struct key_query *query = (struct key_query *)job;
    return apply_id_key_read(connection, query->org, query->key);
}

static void query_done(struct store_job *job)
{
    ((struct key_query *)job)->is_done = true;
}

enum err apply_id_key(struct applier *applier, uint64_t org, uint8_t ret[32])
{
    struct slice name = slice_make(&org, sizeof(org));
    if (table_copy(applier->id_keys, name, ret)) {
        return ERR_OK;
    }
    struct key_query query = {.org = org};
    query.job.run = query_run;
    query.job.on_done = query_done;
    enum err err = mailbox_create(&query.job.reply_to, 1);
    if (err != ERR_OK) {
        return err;
    }
    err = store_post_read(applier->options.store, &query.job);
    if (err == ERR_OK) {
        while (!query.is_done) {
            mailbox_wait(query.job.reply_to, -1);
            (void)mailbox_run_all(query.job.reply_to);
        }
        err = query.job.err;
    }
    mailbox_destroy(query.job.reply_to);
    if (err == ERR_OK) {
        table_put(applier->id_keys, name, query.key);
        memcpy(ret, query.key, sizeof(query.key));
    }
    return err;
}
