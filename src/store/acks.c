/* Acknowledged events, kept as ranges of sequence numbers that neither touch nor overlap.
 *
 * A lone event that is acknowledged becomes a range of one; next to a range, it extends that;
 * between two, it joins them. So an inbox that is read in order is one range, and the row of an
 * event is never written again.
 *
 * Failure modes: any error fails the job, whose transaction is rolled back. */
#include "store/store.h"

struct store_range {
    uint64_t first;
    uint64_t last;
};

static enum err ack_find(struct store_connection *connection, uint64_t sequence, bool *ret_is,
                         struct store_range *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection,
                                 "SELECT first_sequence, last_sequence FROM event_acks"
                                 " WHERE first_sequence <= $1 ORDER BY first_sequence DESC LIMIT 1",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)sequence);
    err = store_step(statement, &has_row);
    if (err != ERR_OK) {
        return err;
    }
    *ret_is = false;
    if (has_row) {
        struct store_range range = {(uint64_t)store_column_i64(statement, 0),
                                    (uint64_t)store_column_i64(statement, 1)};
        if (range.last >= sequence) {
            *ret_is = true;
            *ret = range;
        }
        store_reset(statement);
    }
    return ERR_OK;
}

static enum err ack_delete(struct store_connection *connection, uint64_t first)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection, "DELETE FROM event_acks WHERE first_sequence = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)first);
    return store_execute(statement);
}

static enum err ack_put(struct store_connection *connection, struct store_range range)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection,
        "INSERT INTO event_acks (first_sequence, last_sequence) VALUES ($1, $2)"
        " ON CONFLICT (first_sequence) DO UPDATE SET last_sequence = excluded.last_sequence",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)range.first);
    store_bind_i64(statement, 2, (int64_t)range.last);
    return store_execute(statement);
}

/* The acknowledged range of the org's event that `sql` finds next to `sequence`, if it is in one.
 */
static enum err ack_neighbour(struct store_connection *connection, const char *sql,
                              uint64_t sequence, bool *ret_is, struct store_range *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    uint64_t org = sequence >> STORE_ORG_SHIFT;
    *ret_is = false;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)sequence);
    store_bind_i64(statement, 2, (int64_t)store_sequence_first(org));
    store_bind_i64(statement, 3, (int64_t)store_sequence_last(org));
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err;
    }
    uint64_t neighbour = (uint64_t)store_column_i64(statement, 0);
    store_reset(statement);
    return ack_find(connection, neighbour, ret_is, ret);
}

enum err store_event_acknowledge(struct store_connection *connection, uint64_t sequence,
                                 bool *ret_was)
{
    static const char before[] = "SELECT sequence FROM events WHERE sequence < $1"
                                 " AND sequence >= $2 AND sequence <= $3"
                                 " ORDER BY sequence DESC LIMIT 1";
    static const char after[] = "SELECT sequence FROM events WHERE sequence > $1"
                                " AND sequence >= $2 AND sequence <= $3"
                                " ORDER BY sequence LIMIT 1";
    struct store_range range = {sequence, sequence};
    struct store_range other;
    bool is_there = false;
    enum err err = ack_find(connection, sequence, &is_there, &other);
    if (err != ERR_OK) {
        return err;
    }
    if (is_there) {
        *ret_was = true;
        return ERR_OK;
    }
    err = ack_neighbour(connection, before, sequence, &is_there, &other);
    if (err == ERR_OK && is_there) {
        range.first = other.first;
    }
    if (err == ERR_OK) {
        err = ack_neighbour(connection, after, sequence, &is_there, &other);
    }
    if (err == ERR_OK && is_there) {
        range.last = other.last;
        err = ack_delete(connection, other.first);
    }
    if (err == ERR_OK) {
        err = ack_put(connection, range);
    }
    if (err == ERR_OK) {
        *ret_was = false;
    }
    return err;
}
