/* Inserting events into SQLite, a batch at a time.
 *
 * Happy path, with the sequences given:
 *   1. Ids go into event_ids in the order of the ids, so that random ones touch each page once.
 * Where an id is there already, the event is a duplicate and keeps the sequence of the row that was
 * there.
 *   2. The others go into events in the order of the sequence (appends), then their subjects into
 *      event_subjects in the order of its key.
 *
 * OR FAIL: a statement that could undo itself alone would copy every page that it touches (in
 * memory, hundreds of megabytes with random ids); here the whole transaction is undone, or a
 * savepoint.
 *
 * Failure modes: a row that the engine refuses fails the whole statement: ERR_REFUSED. */
#include "store/sqlite.h"

#include "store/batch.h"

#include "base/mem.h"

#include <assert.h>

/* The rows that the scratch names, in its order. */
static void show_rows(struct store_batch *b, size_t count, enum sqlite_rows_order order)
{
    sqlite_from(b->connection)->rows = (struct sqlite_rows){.connection = b->connection,
                                                            .events = b->events,
                                                            .order = b->scratch,
                                                            .count = (uint32_t)count,
                                                            .order_is = order,
                                                            .spill = b->spill};
}

static enum err run_rows(struct store_batch *b, const char *sql, size_t count)
{
    struct store_connection *connection = b->connection;
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    return err != ERR_OK || count == 0 ? err : store_execute(statement);
}

static uint64_t read_big_endian(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return __builtin_bswap64(value);
}

/* Notes the duplicates: ids of the batch that stand with another sequence. */
static enum err note_known(struct store_batch *b)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(b->connection,
                                 "SELECT r.sequence, i.sequence FROM weir_rows r CROSS JOIN"
                                 " event_ids i ON i.id = r.id WHERE i.sequence <> r.sequence",
                                 &statement);
    while (err == ERR_OK && has_row) {
        err = store_step(statement, &has_row);
        if (err == ERR_OK && has_row) {
            const struct store_key *place =
                store_batch_place(b, (uint64_t)store_column_i64(statement, 0));
            assert(place != NULL);
            struct store_packed *event = &b->events[place->index];
            event->state = STORE_EVENT_DUPLICATE;
            event->sequence = (uint64_t)store_column_i64(statement, 1);
        }
    }
    return err;
}

static enum err insert_ids(struct store_batch *b, struct store_span span)
{
    size_t count = 0;
    for (size_t i = span.from; i < span.from + span.count; i++) {
        const struct store_key *place = &b->places[i];
        struct store_packed *event = &b->events[place->index];
        struct store_event parts;
        if (event->state != STORE_EVENT_REFUSED) {
            event->state = STORE_EVENT_INSERTED;
            event->sequence = place->low;
            enum err err = store_spill_unpack(b->spill, event, &parts);
            if (err != ERR_OK) {
                return err;
            }
            b->scratch[count++] = (struct store_key){read_big_endian(parts.id),
                                                     read_big_endian(parts.id + 8), place->index};
        }
    }
    store_keys_sort(b->scratch, count);
    show_rows(b, count, SQLITE_ROWS_BY_ID);
    enum err err = run_rows(b,
                            "INSERT OR FAIL INTO event_ids (id, sequence)"
                            " SELECT id, sequence FROM weir_rows WHERE true"
                            " ON CONFLICT (id) DO NOTHING",
                            count);
    if (err == ERR_OK && count > 0 && store_changes(b->connection) < count) {
        err = note_known(b);
    }
    return err;
}

/* Of two events of the batch: one is copied, since to unpack the other may take its bytes away. */
static enum err compare_payloads(struct store_batch *b, const struct store_packed *first,
                                 struct store_packed *event)
{
    struct store_event parts;
    enum err err = store_spill_unpack(b->spill, first, &parts);
    if (err != ERR_OK) {
        return err;
    }
    size_t size = parts.payload.size;
    uint8_t *copy = mem_try_alloc(size + 1);
    if (copy == NULL) {
        return ERR_NO_MEMORY;
    }
    memcpy(copy, parts.payload.data, size);
    err = store_spill_unpack(b->spill, event, &parts);
    if (err == ERR_OK && !slice_equal(parts.payload, slice_make(copy, size))) {
        event->state = STORE_EVENT_CONFLICT;
    }
    mem_free(copy);
    return err;
}

/* Whether a duplicate says something else than the row that was first. Of one that was erased
 * nobody can tell. */
static enum err tell_conflict(struct store_batch *b, struct store_packed *event)
{
    struct store_event mine;
    const struct store_key *place = store_batch_place(b, event->sequence);
    if (place != NULL) {
        return compare_payloads(b, &b->events[place->index], event);
    }
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_spill_unpack(b->spill, event, &mine);
    if (err == ERR_OK) {
        err = store_prepare(b->connection,
                            "SELECT payload FROM events WHERE sequence = $1 AND position <> 0",
                            &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)event->sequence);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        if (!slice_equal(store_column_bytes(statement, 0), mine.payload)) {
            event->state = STORE_EVENT_CONFLICT;
        }
        store_reset(statement);
    }
    return err;
}

static enum err insert_rows(struct store_batch *b, struct store_span span)
{
    size_t count = 0;
    for (size_t i = span.from; i < span.from + span.count; i++) {
        const struct store_key *place = &b->places[i];
        struct store_packed *event = &b->events[place->index];
        if (event->state == STORE_EVENT_DUPLICATE) {
            enum err err = tell_conflict(b, event);
            if (err != ERR_OK) {
                return err;
            }
        } else if (event->state == STORE_EVENT_INSERTED) {
            b->scratch[count++] = (struct store_key){0, place->low, place->index};
        }
    }
    show_rows(b, count, SQLITE_ROWS_BY_SEQUENCE);
    return run_rows(
        b,
        "INSERT OR FAIL INTO events (sequence, id, position, type, subject, source, app, "
        "dedup_id, payload, attributes, occurred_ms, created_ms) "
        "SELECT sequence, id, position, type, subject, source, app, dedup_id, payload, "
        "attributes, occurred_ms, created_ms FROM weir_rows",
        count);
}

static enum err insert_subjects(struct store_batch *b, struct store_span span)
{
    size_t count = 0;
    for (size_t i = span.from; i < span.from + span.count; i++) {
        const struct store_key *place = &b->places[i];
        const struct store_packed *event = &b->events[place->index];
        struct store_event parts;
        enum err err = store_spill_unpack(b->spill, event, &parts);
        if (err != ERR_OK) {
            return err;
        }
        if (event->state == STORE_EVENT_INSERTED && parts.subject.data != NULL) {
            uint64_t key = (uint64_t)store_subject_key(parts.org, parts.subject);
            b->scratch[count++] =
                (struct store_key){key ^ SQLITE_SUBJECT_FLIP, place->low, place->index};
        }
    }
    store_keys_sort(b->scratch, count);
    show_rows(b, count, SQLITE_ROWS_BY_SUBJECT);
    return run_rows(b,
                    "INSERT OR FAIL INTO event_subjects (key, sequence) "
                    "SELECT subject_key, sequence FROM weir_rows",
                    count);
}

static enum err insert_span(struct store_batch *b, struct store_span span)
{
    enum err err = insert_ids(b, span);
    if (err == ERR_OK) {
        err = insert_rows(b, span);
    }
    if (err == ERR_OK) {
        err = insert_subjects(b, span);
    }
    return err;
}

static const struct store_batch_engine engine = {
    .sequence_sql = "SELECT last_sequence FROM orgs WHERE number = $1",
    .hours_sql =
        "INSERT INTO event_hours (org, hour, first_sequence, last_sequence) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (org, hour) DO UPDATE SET"
        " first_sequence = min(first_sequence, excluded.first_sequence),"
        " last_sequence = max(last_sequence, excluded.last_sequence)",
    .insert_span = insert_span,
};

enum err store_sqlite_insert_events(struct store_connection *connection,
                                    const struct store_part *part, bool careful)
{
    struct store_batch batch = {.connection = connection,
                                .events = part->events,
                                .count = part->count,
                                .spill = part->spill};
    enum err err = store_batch_insert(&batch, &engine, careful);
    sqlite_from(connection)->rows = (struct sqlite_rows){.connection = connection};
    return err;
}

enum err store_sqlite_load_events(struct store_connection *connection, struct store_packed *events,
                                  size_t count)
{
    struct store_batch batch = {.connection = connection, .events = events, .count = count};
    enum err err = store_batch_load(&batch, &engine);
    sqlite_from(connection)->rows = (struct sqlite_rows){.connection = connection};
    return err;
}

enum err store_sqlite_find_event(struct store_connection *connection, uint64_t org,
                                 const uint8_t id[16], bool *ret_is, uint64_t *ret_sequence)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT sequence FROM event_ids WHERE id = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(id, 16));
    err = store_step(statement, &has_row);
    if (err != ERR_OK) {
        return err;
    }
    *ret_is = false;
    if (has_row) {
        uint64_t sequence = (uint64_t)store_column_i64(statement, 0);
        if (sequence >> STORE_ORG_SHIFT == org) {
            *ret_is = true;
            *ret_sequence = sequence;
        }
        store_reset(statement);
    }
    return ERR_OK;
}
