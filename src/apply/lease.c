/* Leases: a lane's cursor is a row that names its holder, and until when.
 *
 *   FREE -- a holder with fewer than its share --> HELD -- renewed each 2 s --> HELD
 *     ^                                             |
 *     +----- given up, or 6 s without a renewal ----+
 *
 * A share is 64 by the number of holders that have made themselves known, rounded up. Who has more
 * gives the surplus up; who has less takes what is free. The transaction that applies moves the
 * cursor where the holder is still itself, and fails when it is not: so whatever clocks say, what a
 * lane holds is applied by one holder.
 *
 * Happy path: look -> renewed, and the cursors of what is held moved on -> a few lanes taken.
 * Failure modes: two take the same lane: the second passes over it, and looks again. A transaction
 * that stands still has rows of a holder that is taken for dead: nobody waits for them. A holder
 * that was thought dead: its next transaction is rolled back, its next look tells what it has. */
#include "apply/lanes.h"

#include <string.h>

/* Whether the lane's bit is set in a mask. */
#define IN_MASK(mask) "((" mask " >> CAST(lane AS integer)) & 1) = 1"

struct lease_row {
    uint64_t position;
    uint64_t holder;
    int64_t until_ms;
};

static enum err read_number(struct store_statement *statement, int64_t *ret)
{
    bool has_row = false;
    enum err err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        *ret = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static enum err read_now(struct store_connection *connection, int64_t *now_ms)
{
    struct store_statement *statement = NULL;
    if (*now_ms != 0) {
        return ERR_OK;
    }
    enum err err = store_prepare(connection, store_texts(connection)->now, &statement);
    return err != ERR_OK ? err : read_number(statement, now_ms);
}

static void bind_journal(struct store_statement *statement, const struct id *journal)
{
    store_bind_blob(statement, 1, slice_make(journal->bytes, sizeof(journal->bytes)));
}

/* --- the rows ------------------------------------------------------------------------------ */

enum err apply_lease_read(struct store_connection *connection, struct id journal,
                          struct journal_from *ret)
{
    struct store_statement *statement = NULL;
    struct journal_from from = journal_from_all(0);
    uint64_t all = 0;
    bool has_row = true;
    enum err err = store_prepare(
        connection, "SELECT lane, position FROM cursors WHERE journal = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &journal);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        uint64_t lane = (uint64_t)store_column_i64(statement, 0);
        uint64_t position = (uint64_t)store_column_i64(statement, 1);
        if (lane < LIMIT_LANES) {
            from.after[lane] = position;
        } else {
            all = position;
        }
    }
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        from.after[i] = from.after[i] < all ? all : from.after[i];
    }
    if (err == ERR_OK) {
        *ret = from;
    }
    return err;
}

static enum err read_rows(struct store_connection *connection, const struct apply_lease *lease,
                          struct lease_row rows[LIMIT_LANES])
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(connection,
                                 "SELECT lane, position, holder, until_ms FROM cursors"
                                 " WHERE journal = $1 AND lane < 64",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &lease->journal);
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        struct lease_row *row = &rows[(uint64_t)store_column_i64(statement, 0) % LIMIT_LANES];
        row->position = (uint64_t)store_column_i64(statement, 1);
        row->holder = (uint64_t)store_column_i64(statement, 2);
        row->until_ms = store_column_i64(statement, 3);
    }
    return err;
}

/* --- the start ----------------------------------------------------------------------------- */

static enum err make_row(struct store_connection *connection, struct id journal, uint32_t lane,
                         uint64_t position)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "INSERT INTO cursors (journal, lane, position) VALUES ($1, $2, $3)"
                                 " ON CONFLICT (journal, lane) DO UPDATE SET position ="
                                 " excluded.position WHERE cursors.position < excluded.position",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &journal);
    store_bind_i64(statement, 2, lane);
    store_bind_i64(statement, 3, (int64_t)position);
    return store_execute(statement);
}

static enum err run_of_journal(struct store_connection *connection, struct id journal,
                               const char *sql)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &journal);
    return store_execute(statement);
}

static enum err make_known(struct store_connection *connection, struct id journal, uint64_t holder,
                           int64_t until_ms)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "INSERT INTO appliers (journal, holder, until_ms)"
                                 " VALUES ($1, $2, $3) ON CONFLICT (journal, holder)"
                                 " DO UPDATE SET until_ms = excluded.until_ms",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &journal);
    store_bind_i64(statement, 2, (int64_t)holder);
    store_bind_i64(statement, 3, until_ms);
    return store_execute(statement);
}

enum err apply_lease_void(struct store_connection *connection, struct id journal)
{
    enum err err = run_of_journal(connection, journal,
                                  "UPDATE cursors SET holder = 0, until_ms = 0 WHERE journal = $1"
                                  " AND holder <> 0");
    return err != ERR_OK
               ? err
               : run_of_journal(connection, journal, "DELETE FROM appliers WHERE journal = $1");
}

enum err apply_lease_open(struct store_connection *connection, struct apply_lease_open *open)
{
    int64_t now_ms = open->now_ms;
    enum err err = read_now(connection, &now_ms);
    if (err == ERR_OK) {
        err = apply_lease_read(connection, open->journal, &open->cursors);
    }
    for (uint32_t i = 0; i < LIMIT_LANES && err == ERR_OK; i++) {
        err = make_row(connection, open->journal, i, open->cursors.after[i]);
    }
    if (err == ERR_OK) { /* one applier had them all: its cursor is in each of them now */
        err = run_of_journal(connection, open->journal,
                             "DELETE FROM cursors WHERE journal = $1 AND lane = 64");
    }
    if (err == ERR_OK && open->is_exclusive) {
        err = apply_lease_void(connection, open->journal);
    }
    for (uint32_t i = 0; i < open->holder_count && err == ERR_OK; i++) {
        err = make_known(connection, open->journal, open->holders[i], now_ms + APPLY_LEASE_MS);
    }
    return err;
}

/* --- a look -------------------------------------------------------------------------------- */

/* Of the lanes in `mask` the cursors follow; those not in it are held, and where they are is not
 * known. */
static enum err renew(struct store_connection *connection, const struct apply_lease *lease,
                      int64_t until_ms)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "UPDATE cursors SET until_ms = $5, position = CASE WHEN " IN_MASK(
                                     "$3") " AND position < $4 THEN $4 ELSE position END"
                                           " WHERE journal = $1 AND holder = $2",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &lease->journal);
    store_bind_i64(statement, 2, (int64_t)lease->holder);
    store_bind_i64(statement, 3, (int64_t)lease->lanes);
    store_bind_i64(statement, 4, (int64_t)lease->passed);
    store_bind_i64(statement, 5, until_ms);
    return store_execute(statement);
}

/* After they were renewed, so their cursors are right. */
static enum err give_up(struct store_connection *connection, const struct apply_lease *lease,
                        uint64_t lanes)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection,
                                 "UPDATE cursors SET holder = 0, until_ms = 0"
                                 " WHERE journal = $1 AND holder = $2 AND " IN_MASK("$3"),
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &lease->journal);
    store_bind_i64(statement, 2, (int64_t)lease->holder);
    store_bind_i64(statement, 3, (int64_t)lanes);
    return store_execute(statement);
}

/* Those whose time is over, or who goes. */
static enum err forget_appliers(struct store_connection *connection,
                                const struct apply_lease *lease, int64_t now_ms)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, store_texts(connection)->forget_appliers, &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &lease->journal);
    store_bind_i64(statement, 2, now_ms);
    store_bind_i64(statement, 3, lease->is_over ? (int64_t)lease->holder : 0);
    return store_execute(statement);
}

static enum err count_appliers(struct store_connection *connection, struct id journal,
                               uint32_t *ret)
{
    struct store_statement *statement = NULL;
    int64_t count = 0;
    enum err err =
        store_prepare(connection, "SELECT count(*) FROM appliers WHERE journal = $1", &statement);
    if (err == ERR_OK) {
        bind_journal(statement, &journal);
        err = read_number(statement, &count);
    }
    if (err == ERR_OK) {
        *ret = count < 1 ? 1 : (uint32_t)count;
    }
    return err;
}

static enum err take(struct store_connection *connection, const struct apply_lease *lease,
                     uint64_t lanes, int64_t now_ms)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, store_texts(connection)->claim_lanes, &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &lease->journal);
    store_bind_i64(statement, 2, (int64_t)lease->holder);
    store_bind_i64(statement, 3, (int64_t)lanes);
    store_bind_i64(statement, 4, now_ms + APPLY_LEASE_MS);
    store_bind_i64(statement, 5, now_ms);
    return store_execute(statement);
}

static bool is_free(const struct lease_row *row, uint64_t holder, int64_t now_ms)
{
    return row->holder != holder && (row->holder == 0 || row->until_ms <= now_ms);
}

/* What is held, and up to `limit` lanes in all of what is free. */
static uint64_t choose(const struct lease_row rows[LIMIT_LANES], uint64_t holder, uint32_t limit,
                       int64_t now_ms)
{
    uint64_t lanes = 0;
    uint32_t count = 0;
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        count += rows[i].holder == holder;
    }
    for (uint32_t i = 0; i < LIMIT_LANES && count < limit; i++) {
        if (is_free(&rows[i], holder, now_ms)) {
            lanes |= UINT64_C(1) << i;
            count++;
        }
    }
    return lanes;
}

/* Whether a lane that is read was somebody else's meanwhile. Were it taken again in the same look,
 * who reads it would not know, and go on from where he was: he has to drop it first. */
static bool has_lost(const struct apply_lease *lease, const struct lease_row rows[LIMIT_LANES])
{
    uint64_t lanes = lease->lanes & ~lease->given;
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        if ((lanes >> i & 1u) != 0 && rows[i].holder != lease->holder) {
            return true;
        }
    }
    return false;
}

/* Whether somebody has more than a share. */
static bool is_uneven(const struct lease_row rows[LIMIT_LANES], uint32_t limit)
{
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        uint32_t count = 0;
        for (uint32_t k = 0; k < LIMIT_LANES; k++) {
            count += rows[i].holder != 0 && rows[k].holder == rows[i].holder;
        }
        if (count > limit) {
            return true;
        }
    }
    return false;
}

/* Of another's leases the first. */
static uint32_t first_end_ms(const struct lease_row rows[LIMIT_LANES], uint64_t holder,
                             int64_t now_ms)
{
    int64_t first_ms = APPLY_LEASE_MS;
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        int64_t left_ms = rows[i].until_ms - now_ms;
        bool is_another = rows[i].holder != 0 && rows[i].holder != holder;
        first_ms = is_another && left_ms < first_ms ? left_ms : first_ms;
    }
    return first_ms > 0 ? (uint32_t)first_ms : 0;
}

static void sum_up(struct apply_lease *lease, const struct lease_row rows[LIMIT_LANES],
                   uint32_t limit, int64_t now_ms)
{
    uint32_t count = 0;
    bool has_free = false;
    lease->lanes = 0;
    lease->ends_ms = first_end_ms(rows, lease->holder, now_ms);
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        lease->cursors[i] = rows[i].position;
        if (rows[i].holder == lease->holder) {
            lease->lanes |= UINT64_C(1) << i;
            count++;
        }
        has_free = has_free || is_free(&rows[i], lease->holder, now_ms);
    }
    lease->surplus = count > limit ? count - limit : 0;
    lease->is_hungry = count < limit && (has_free || is_uneven(rows, limit));
}

/* Its own rows: the lease goes on, or ends. */
static enum err write_own(struct store_connection *connection, const struct apply_lease *lease,
                          int64_t now_ms)
{
    uint64_t given = lease->is_over ? APPLY_LANES_ALL : lease->given;
    enum err err = renew(connection, lease, now_ms + APPLY_LEASE_MS);
    if (err == ERR_OK && given != 0) {
        err = give_up(connection, lease, given);
    }
    if (err == ERR_OK && !lease->is_over) {
        err = make_known(connection, lease->journal, lease->holder, now_ms + APPLY_LEASE_MS);
    }
    return err;
}

enum err apply_lease_look(struct store_connection *connection, struct apply_lease *lease)
{
    struct lease_row rows[LIMIT_LANES] = {{0}};
    uint32_t live = 1;
    int64_t now_ms = lease->now_ms;
    enum err err = read_now(connection, &now_ms);
    if (err == ERR_OK) {
        err = write_own(connection, lease, now_ms);
    }
    if (err == ERR_OK) {
        err = forget_appliers(connection, lease, now_ms);
    }
    if (err == ERR_OK) {
        err = count_appliers(connection, lease->journal, &live);
    }
    if (err == ERR_OK) {
        err = read_rows(connection, lease, rows);
    }
    uint32_t limit = (LIMIT_LANES + live - 1) / live;
    bool may_take = !lease->is_over && !has_lost(lease, rows);
    uint64_t wanted = may_take ? choose(rows, lease->holder, limit, now_ms) : 0;
    if (err == ERR_OK && wanted != 0) {
        err = take(connection, lease, wanted, now_ms);
    }
    if (err == ERR_OK && wanted != 0) {
        err = read_rows(connection, lease, rows);
    }
    if (err == ERR_OK) {
        sum_up(lease, rows, limit, now_ms);
    }
    return err;
}

enum err apply_lease_follow(struct store_connection *connection, struct apply_lease *lease)
{
    struct journal_from from;
    enum err err = apply_lease_read(connection, lease->journal, &from);
    if (err != ERR_OK) {
        return err;
    }
    lease->lanes = 0;
    lease->surplus = 0;
    lease->is_hungry = false;
    lease->ends_ms = APPLY_LEASE_MS;
    memcpy(lease->cursors, from.after, sizeof(lease->cursors));
    return ERR_OK;
}

enum err apply_lease_move(struct store_connection *connection, struct id journal, uint64_t holder,
                          uint64_t lanes, uint64_t position)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection,
                      "UPDATE cursors SET position = CASE WHEN position < $4 THEN $4 ELSE position"
                      " END WHERE journal = $1 AND holder = $2 AND " IN_MASK("$3"),
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    bind_journal(statement, &journal);
    store_bind_i64(statement, 2, (int64_t)holder);
    store_bind_i64(statement, 3, (int64_t)lanes);
    store_bind_i64(statement, 4, (int64_t)position);
    err = store_execute(statement);
    bool is_all = store_changes(connection) == (uint64_t)__builtin_popcountll(lanes);
    return err == ERR_OK && !is_all ? ERR_CLOSED : err;
}
