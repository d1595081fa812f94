/* Inserting events into PostgreSQL, a batch at a time.
 *
 * Happy path:
 *   1. The rows go by COPY (binary) into weir_rows, a temporary table of the session that empties
 *      itself at the commit: no write-ahead log, no index, one message a few hundred rows.
 *      They go before any org is locked, so that appliers of one org send theirs at the same time:
 *      a row has its number in the batch, and that of its org, instead of its sequence.
 *   2. One INSERT … SELECT moves them into events; where (org, id) is there already, nothing is
 *      inserted. The temporary table is read in the order in which it was filled, so of equal ids
 *      in a batch the first stays. What has to be added to a row's number stands in an array, one
 *      place for each org.
 *   3. When fewer rows went in than were sent, a join tells which were there before, under which
 *      sequence, and whether they say something else.
 *
 * Failure modes: when something of higher priority waits and the transaction has lasted its time,
 * the copy is broken off and the job fails with ERR_BUSY. A row that the engine refuses (a text
 * with a NUL, an index entry that is too long, a trigger): ERR_REFUSED. */
#include "store/postgres_copy.h"

#include "store/batch.h"

#include <assert.h>
#include <inttypes.h>

#define ROWS_PER_LOOK    256u /* rows between looks at who waits */
#define COPY_COLUMNS     15u
#define COPY_FIXED_BYTES 144u /* of a row, without its texts */
#define OFFSET_BYTES     24u  /* of one in the array */

static const char copy_sql[] = "COPY weir_rows FROM STDIN (FORMAT binary)";

static enum err append_row(struct buffer *copy, const struct store_packed *packed,
                           uint64_t sequence, uint64_t org_number)
{
    struct store_event parts;
    const struct store_event *event = &parts;
    store_unpack(packed, &parts);
    struct slice dedup_id = event->dedup_id.size == 0 ? slice_make(NULL, 0) : event->dedup_id;
    size_t size = COPY_FIXED_BYTES + event->type.size + event->subject.size + event->source.size +
                  event->app.size + dedup_id.size + event->payload.size + event->attributes.size;
    enum err err = buffer_reserve(copy, size);
    if (err != ERR_OK) {
        return err == ERR_TOO_LARGE ? ERR_REFUSED : err;
    }
    uint8_t *to = postgres_put_u16(copy->data + copy->size, COPY_COLUMNS);
    to = postgres_put_i64(to, (int64_t)event->org);
    to = postgres_put_i64(to, (int64_t)sequence);
    to = postgres_put_i64(to, (int64_t)event->position);
    to = postgres_put_i64(to, event->occurred_ms);
    to = postgres_put_i64(to, event->created_ms);
    to = event->subject.data == NULL
             ? postgres_put_null(to)
             : postgres_put_i64(to, store_subject_key(event->org, event->subject));
    to = postgres_put_bytes(to, slice_make(event->id, 16));
    to = postgres_put_bytes(to, event->type);
    to = postgres_put_bytes(to, event->subject);
    to = postgres_put_bytes(to, event->source);
    to = postgres_put_bytes(to, event->app);
    to = postgres_put_bytes(to, dedup_id);
    to = postgres_put_bytes(to, event->payload);
    to = postgres_put_bytes(to, event->attributes);
    to = postgres_put_i64(to, (int64_t)org_number);
    assert((size_t)(to - copy->data) <= copy->size + size);
    copy->size = (size_t)(to - copy->data);
    return ERR_OK;
}

static enum err copy_rows(struct store_batch *batch, struct store_span span, size_t *ret_count)
{
    struct postgres_connection *c = postgres_from(batch->connection);
    size_t count = 0;
    uint64_t org_number = 1;
    enum err err = postgres_copy_head(&c->copy);
    for (size_t i = span.from; i < span.from + span.count && err == ERR_OK; i++) {
        const struct store_key *place = &batch->places[i];
        struct store_packed *event = &batch->events[place->index];
        if (event->state == STORE_EVENT_REFUSED) {
            continue;
        }
        event->state = STORE_EVENT_INSERTED;
        event->sequence = place->low; /* 0 when it is staged: no number yet */
        org_number += batch->is_staged && i > 0 && place->high != place[-1].high;
        if (++count % ROWS_PER_LOOK == 0 && store_must_yield(batch->connection)) {
            return ERR_BUSY;
        }
        err = append_row(&c->copy, event, batch->is_staged ? i : place->low, org_number);
        if (err == ERR_OK && c->copy.size >= POSTGRES_COPY_PART_BYTES) {
            err = store_postgres_copy_part(c, &c->copy);
        }
    }
    if (err == ERR_OK) {
        err = store_postgres_copy_rest(c, &c->copy);
    }
    *ret_count = count;
    return err;
}

/* COPY from its begin to its end; an error on our side tells the server to drop it. */
static enum err stage_rows(struct store_batch *batch, struct store_span span, size_t *ret_count)
{
    struct postgres_connection *c = postgres_from(batch->connection);
    enum err err = ERR_OK;
    if (c->is_staged) {
        err = store_postgres_run(c, "TRUNCATE weir_rows", NULL, 0);
    }
    if (err == ERR_OK) {
        err = store_postgres_run(c, copy_sql, NULL, 0);
    }
    if (err != ERR_OK) {
        return err;
    }
    err = copy_rows(batch, span, ret_count);
    err = store_postgres_copy_end(c, err);
    c->is_staged = c->session != NULL;
    return err;
}

/* What makes sequences of the numbers in weir_rows: an array, by org. */
static enum err make_offsets(const struct store_batch *batch, struct buffer *to)
{
    enum err err = batch->is_staged ? ERR_OK : buffer_append_text(to, "{0");
    for (size_t i = 0; i < batch->count && batch->is_staged && err == ERR_OK; i++) {
        const struct store_key *place = &batch->places[i];
        if (i == 0 || place->high != place[-1].high) {
            err = buffer_printf(to, "%c%" PRIu64, i == 0 ? '{' : ',', place->low - i);
        }
    }
    return err != ERR_OK ? err : buffer_append_byte(to, '}');
}

static enum err insert_rows(const struct store_batch *batch, struct slice offsets)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(batch->connection,
                      "INSERT INTO events (org, sequence, position, occurred_ms, created_ms,"
                      " subject_key, id, type, subject, source, app, dedup_id, payload,"
                      " attributes) SELECT org, sequence + ((SELECT $1::bigint[]))[org_number],"
                      " position, occurred_ms, created_ms, subject_key, id, type, subject, source,"
                      " app, dedup_id, payload, attributes FROM weir_rows"
                      " ON CONFLICT (org, id) DO NOTHING",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, offsets);
    return store_execute(statement);
}

/* Those whose id stood there before, and what it says. */
static enum err note_known(struct store_batch *batch, struct slice offsets)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(
        batch->connection,
        "SELECT r.sequence, e.sequence, e.payload = r.payload OR e.position = 0" /* erased */
        " FROM weir_rows r JOIN events e ON e.org = r.org AND e.id = r.id"
        " WHERE e.sequence <> r.sequence + ((SELECT $1::bigint[]))[r.org_number]",
        &statement);
    if (err == ERR_OK) {
        store_bind_text(statement, 1, offsets);
    }
    while (err == ERR_OK && has_row) {
        err = store_step(statement, &has_row);
        if (err == ERR_OK && has_row) {
            uint64_t number = (uint64_t)store_column_i64(statement, 0);
            const struct store_key *place =
                batch->is_staged ? &batch->places[number] : store_batch_place(batch, number);
            assert(place != NULL && (!batch->is_staged || number < batch->count));
            struct store_packed *event = &batch->events[place->index];
            event->sequence = (uint64_t)store_column_i64(statement, 1);
            event->state =
                store_column_i64(statement, 2) != 0 ? STORE_EVENT_DUPLICATE : STORE_EVENT_CONFLICT;
        }
    }
    return err;
}

static enum err stage(struct store_batch *batch)
{
    size_t count = 0;
    enum err err = stage_rows(batch, (struct store_span){0, batch->count}, &count);
    assert(err != ERR_OK || count == batch->count);
    return err;
}

static enum err insert_staged(struct store_batch *batch, size_t count)
{
    struct buffer offsets;
    buffer_init(&offsets, (batch->count + 1) * OFFSET_BYTES);
    enum err err = make_offsets(batch, &offsets);
    if (err == ERR_OK) {
        err = insert_rows(batch, buffer_slice(&offsets));
    }
    if (err == ERR_OK && store_changes(batch->connection) < count) {
        err = note_known(batch, buffer_slice(&offsets));
    }
    buffer_finish(&offsets);
    return err;
}

static enum err insert_span(struct store_batch *batch, struct store_span span)
{
    size_t count = batch->count;
    enum err err = batch->is_staged ? ERR_OK : stage_rows(batch, span, &count);
    if (err == ERR_OK && store_must_yield(batch->connection)) {
        err = ERR_BUSY;
    }
    return err != ERR_OK ? err : insert_staged(batch, count);
}

static const struct store_batch_engine engine = {
    .sequence_sql = "SELECT last_sequence FROM orgs WHERE number = $1 FOR NO KEY UPDATE",
    .hours_sql =
        "INSERT INTO event_hours (org, hour, first_sequence, last_sequence) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (org, hour) DO UPDATE SET"
        " first_sequence = least(event_hours.first_sequence, excluded.first_sequence),"
        " last_sequence = greatest(event_hours.last_sequence, excluded.last_sequence)",
    .stage = stage,
    .insert_span = insert_span,
};

enum err store_postgres_insert_events(struct store_connection *connection,
                                      const struct store_part *part, bool careful)
{
    assert(part->spill == NULL); /* ids cost no pages of ours there */
    struct store_batch batch = {
        .connection = connection, .events = part->events, .count = part->count};
    return store_batch_insert(&batch, &engine, careful);
}

enum err store_postgres_load_events(struct store_connection *connection,
                                    struct store_packed *events, size_t count)
{
    struct store_batch batch = {.connection = connection, .events = events, .count = count};
    return store_batch_load(&batch, &engine);
}

enum err store_postgres_find_event(struct store_connection *connection, uint64_t org,
                                   const uint8_t id[16], bool *ret_is, uint64_t *ret_sequence)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection,
                                 "SELECT sequence FROM events WHERE org = $1"
                                 " AND id = encode($2, 'hex')::uuid",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_blob(statement, 2, slice_make(id, 16));
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        *ret_sequence = (uint64_t)store_column_i64(statement, 0);
        store_reset(statement);
    }
    if (err == ERR_OK) {
        *ret_is = has_row;
    }
    return err;
}
