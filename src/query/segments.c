/* Segments: the inbox without a flag per event.
 *
 * Acknowledged events are kept as ranges (event_acks) that neither touch nor overlap. A list walks
 * the sequences in its direction and asks at each step only for the nearest range: what lies before
 * it is one stretch of open events, the range itself one stretch of acknowledged ones. A million
 * acknowledged events in a row cost one step.
 *
 * Happy path, newest first: the range that begins at or before the last sequence left. If it covers
 * that sequence, the stretch is the range; else the stretch is what lies above the range.
 * Failure modes: none of its own. */
#include "query/segments.h"

#include "store/store.h"

#include <assert.h>

static enum err query_ack_range(struct store_connection *connection, const char *sql,
                                uint64_t sequence, uint64_t range[2], bool *ret_has)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)sequence);
    err = store_step(statement, &has_row);
    if (err != ERR_OK) {
        return err;
    }
    if (has_row) {
        range[0] = (uint64_t)store_column_i64(statement, 0);
        range[1] = (uint64_t)store_column_i64(statement, 1);
        store_reset(statement);
    }
    *ret_has = has_row;
    return ERR_OK;
}

enum err query_ack_range_before(struct store_connection *connection, uint64_t sequence,
                                uint64_t *ret_first, uint64_t *ret_last, bool *ret_has)
{
    static const char sql[] = "SELECT first_sequence, last_sequence FROM event_acks "
                              "WHERE first_sequence <= $1 ORDER BY first_sequence DESC LIMIT 1";
    uint64_t range[2] = {0, 0};
    enum err err = query_ack_range(connection, sql, sequence, range, ret_has);
    if (err == ERR_OK && *ret_has) {
        *ret_first = range[0];
        *ret_last = range[1];
    }
    return err;
}

static enum err query_ack_range_after(struct store_connection *connection, uint64_t sequence,
                                      uint64_t *ret_first, bool *ret_has)
{
    static const char sql[] = "SELECT first_sequence, last_sequence FROM event_acks "
                              "WHERE first_sequence > $1 ORDER BY first_sequence LIMIT 1";
    uint64_t range[2] = {0, 0};
    enum err err = query_ack_range(connection, sql, sequence, range, ret_has);
    if (err == ERR_OK && *ret_has) {
        *ret_first = range[0];
    }
    return err;
}

enum err query_segment_trim(struct store_connection *connection, bool oldest_first,
                            struct query_segment *segment)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection,
        oldest_first ? "SELECT min(sequence) FROM events WHERE sequence >= $1 AND sequence <= $2"
                     : "SELECT max(sequence) FROM events WHERE sequence >= $1 AND sequence <= $2",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)segment->first);
    store_bind_i64(statement, 2, (int64_t)segment->last);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err;
    }
    uint64_t found = (uint64_t)store_column_i64(statement, 0);
    if (store_column_is_null(statement, 0)) {
        segment->first = segment->last + 1;
    } else if (oldest_first) {
        segment->first = found;
    } else {
        segment->last = found;
    }
    store_reset(statement);
    return ERR_OK;
}

enum err query_is_acknowledged(struct store_connection *connection, uint64_t sequence, bool *ret)
{
    uint64_t first = 0;
    uint64_t last = 0;
    bool has = false;
    enum err err = query_ack_range_before(connection, sequence, &first, &last, &has);
    if (err == ERR_OK) {
        *ret = has && last >= sequence;
    }
    return err;
}

static uint64_t query_least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static uint64_t query_most(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

static enum err query_segments_oldest(struct query_segments *segments, struct query_segment *ret)
{
    uint64_t first = 0;
    uint64_t last = 0;
    bool has = false;
    enum err err =
        query_ack_range_before(segments->connection, segments->first, &first, &last, &has);
    if (err != ERR_OK) {
        return err;
    }
    ret->first = segments->first;
    ret->acknowledged = has && last >= segments->first;
    if (ret->acknowledged) {
        ret->last = query_least(last, segments->last);
    } else {
        err = query_ack_range_after(segments->connection, segments->first, &first, &has);
        if (err != ERR_OK) {
            return err;
        }
        ret->last = has ? query_least(first - 1, segments->last) : segments->last;
    }
    segments->first = ret->last + 1;
    return ERR_OK;
}

static enum err query_segments_newest(struct query_segments *segments, struct query_segment *ret)
{
    uint64_t first = 0;
    uint64_t last = 0;
    bool has = false;
    enum err err =
        query_ack_range_before(segments->connection, segments->last, &first, &last, &has);
    if (err != ERR_OK) {
        return err;
    }
    ret->last = segments->last;
    ret->acknowledged = has && last >= segments->last;
    if (ret->acknowledged) {
        ret->first = query_most(first, segments->first);
    } else {
        ret->first = has ? query_most(last + 1, segments->first) : segments->first;
    }
    segments->last = ret->first - 1;
    return ERR_OK;
}

enum err query_segments_next(struct query_segments *segments, struct query_segment *ret,
                             bool *ret_has)
{
    if (segments->first > segments->last) {
        *ret_has = false;
        return ERR_OK;
    }
    enum err err = segments->oldest_first ? query_segments_oldest(segments, ret)
                                          : query_segments_newest(segments, ret);
    if (err == ERR_OK) {
        assert(ret->first <= ret->last);
        *ret_has = true;
    }
    return err;
}
