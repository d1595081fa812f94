/* Own: tells the other nodes, by the row of a journal, how far what is on this machine's disk alone
 * is applied: a local journal, or the spool of a stream. The others cannot see it, and who erases
 * must not be followed by what this node had accepted before.
 *
 *   applied_ms  everything that was acknowledged here before then, by the database's clock, is
 *               applied; 0: a run has begun and said nothing yet; the highest number: a clean stop
 *               left nothing; NULL: nobody writes there
 *
 * A mark is a time and the position that is durable after it; when that is applied, the time goes
 * into the row, and the next mark is taken. So under any load the row follows by one look.
 *
 * The cursor of a spool is written here as well: it is applied when the stream is where its frames
 * got their places, which this node alone knows.
 *
 * Failure modes: killed: the row stays where it is, and who erases is told that a node is behind,
 * until this one is back and has applied what it had. */
#include "apply/internal.h"

static enum err set_applied(struct store_connection *connection, struct id journal, int64_t ms)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection, "UPDATE journals SET applied_ms = $2 WHERE id = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(journal.bytes, sizeof(journal.bytes)));
    store_bind_i64(statement, 2, ms);
    return store_execute(statement);
}

static enum err write_spool(struct store_connection *connection, struct id journal,
                            uint64_t position)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection,
                      "INSERT INTO cursors (journal, lane, position) VALUES ($1, $2, $3)"
                      " ON CONFLICT (journal, lane) DO UPDATE SET position = excluded.position",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(journal.bytes, sizeof(journal.bytes)));
    store_bind_i64(statement, 2, APPLY_LANE_ALL);
    store_bind_i64(statement, 3, (int64_t)position);
    return store_execute(statement);
}

static enum err read_now(struct store_connection *connection, int64_t *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, store_texts(connection)->now, &statement);
    if (err == ERR_OK) {
        err = store_step(statement, &has_row);
    }
    if (err == ERR_OK && has_row) {
        *ret = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static struct id own_id(const struct journal *own)
{
    struct journal_state state;
    journal_state(own, &state);
    return state.id;
}

/* A journal that was used here before holds nothing that is not applied, or this were no start. */
enum err apply_own_open(const struct apply *apply, struct store_connection *connection)
{
    const struct journal *own = journal_own(apply->options.journal);
    enum err err = set_applied(connection, apply->options.former, INT64_MAX);
    if (err == ERR_OK) {
        err = set_applied(connection, journal_left(apply->options.journal), INT64_MAX);
    }
    return err != ERR_OK || own == NULL ? err : set_applied(connection, own_id(own), 0);
}

/* Up to where everything on the disk is applied. */
static uint64_t own_applied(const struct apply *apply)
{
    const struct journal *journal = apply->options.journal;
    uint64_t applied = apply_position(apply);
    return journal_own(journal) == journal ? applied : journal_spool_applied(journal, applied);
}

static enum err follow_mark(struct apply *apply, struct store_connection *connection,
                            const struct journal *own)
{
    struct apply_own *state = &apply->own;
    enum err err = ERR_OK;
    int64_t until_ms = 0;
    if (state->has_mark && own_applied(apply) >= state->mark) {
        state->has_mark = false;
        until_ms = state->mark_ms;
    }
    if (!state->has_mark) { /* the clock first: what comes between is in it */
        err = read_now(connection, &state->mark_ms);
        state->mark = journal_durable_position(own);
        state->has_mark = err == ERR_OK;
    }
    if (err == ERR_OK && own_applied(apply) >= state->mark) {
        until_ms = state->mark_ms;
    }
    return err == ERR_OK && until_ms != 0 ? set_applied(connection, own_id(own), until_ms) : err;
}

enum err apply_own_tell(struct apply *apply, struct store_connection *connection)
{
    const struct journal *own = journal_own(apply->options.journal);
    if (own == NULL) {
        return ERR_OK;
    }
    uint64_t applied = own_applied(apply);
    enum err err = ERR_OK;
    if (own != apply->options.journal && applied > apply->own.spool) {
        err = write_spool(connection, own_id(own), applied);
        apply->own.spool = err == ERR_OK ? applied : apply->own.spool;
    }
    return err == ERR_OK ? follow_mark(apply, connection, own) : err;
}

/* Nothing is accepted any more: what is durable is all there will be. */
enum err apply_own_end(const struct apply *apply, struct store_connection *connection)
{
    const struct journal *own = journal_own(apply->options.journal);
    if (own == NULL || own_applied(apply) < journal_durable_position(own)) {
        return ERR_OK;
    }
    enum err err = own == apply->options.journal
                       ? ERR_OK
                       : write_spool(connection, own_id(own), journal_durable_position(own));
    return err == ERR_OK ? set_applied(connection, own_id(own), INT64_MAX) : err;
}
