/* Inserting events into SQLite, a batch at a time.
 *
 * Happy path:
 *   1. The batch is ordered by org, and each event gets the next sequence number of its org.
 *   2. Ids go into event_ids in the order of the ids, so that random ones touch each page once.
 * Where an id is there already, the event is a duplicate and keeps the sequence of the row that was
 * there.
 *   3. The others go into events in the order of the sequence (appends), then their subjects into
 *      event_subjects in the order of its key.
 *   4. orgs.last_sequence, the data version and the hours are brought up to date.
 * A duplicate's number stays unused: sequences may have gaps.
 *
 * OR FAIL: a statement that could undo itself alone would copy every page that it touches (in
 * memory, hundreds of megabytes with random ids); here the whole transaction is undone, or a
 * savepoint.
 *
 * Failure modes: a row that the engine refuses fails the whole statement. In careful mode each part
 * of the batch has a savepoint; a part that is refused is rolled back and tried as two halves, down
 * to the one row, which is then marked. So one bad row costs a few statements, and none is lost. */
#include "store/sqlite.h"

#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

#define HOUR_MS      3600000
#define SPANS_MAX    64u /* two for each halving of a 32-bit count */
#define SUBJECT_SEED 0x7765697273756271u

struct batch {
    struct sqlite_connection *c;
    struct store_event *events;
    size_t count;
    struct sqlite_key *places;  /* by org and order: high org, low the event's own sequence */
    struct sqlite_key *scratch; /* the order in which a table wants them */
};

struct span {
    size_t from;
    size_t count;
};

int64_t store_subject_key(uint64_t org, struct slice subject)
{
    return (int64_t)hash_xxh3(subject.data, subject.size, SUBJECT_SEED ^ org);
}

static int key_compare(const void *a, const void *b)
{
    const struct sqlite_key *x = a;
    const struct sqlite_key *y = b;
    if (x->high != y->high) {
        return x->high < y->high ? -1 : 1;
    }
    if (x->low != y->low) {
        return x->low < y->low ? -1 : 1;
    }
    return x->index < y->index ? -1 : x->index > y->index;
}

static void keys_sort(struct sqlite_key *keys, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (key_compare(&keys[i - 1], &keys[i]) > 0) {
            qsort(keys, count, sizeof(*keys), key_compare);
            return;
        }
    }
}

static enum err run_rows(struct batch *b, const char *sql, size_t count)
{
    struct store_connection *connection = &b->c->base;
    struct store_statement *statement = NULL;
    b->c->rows = (struct sqlite_rows){connection, b->events, b->scratch, (uint32_t)count};
    enum err err = store_prepare(connection, sql, &statement);
    return err != ERR_OK || count == 0 ? err : store_execute(statement);
}

/* The place of a sequence number that this batch gave, or NULL. */
static const struct sqlite_key *place_of(const struct batch *b, uint64_t sequence)
{
    size_t low = 0;
    size_t high = b->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (b->places[middle].low < sequence) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < b->count && b->places[low].low == sequence ? &b->places[low] : NULL;
}

/* *ret_last 0 and *ret_is false: no such org. */
static enum err org_last_sequence(struct store_connection *connection, uint64_t org, bool *ret_is,
                                  uint64_t *ret_last)
{
    struct store_statement *statement = NULL;
    enum err err =
        store_prepare(connection, "SELECT last_sequence FROM orgs WHERE number = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, ret_is);
    if (err == ERR_OK && *ret_is) {
        /* The org's number is no part of what its row keeps until its first record. */
        uint64_t last = (uint64_t)store_column_i64(statement, 0);
        *ret_last = last == 0 ? store_sequence_first(org) : last;
        store_reset(statement);
    }
    return err;
}

/* Orders the batch by org and gives the numbers. */
static enum err assign_sequences(struct batch *b, bool careful)
{
    for (size_t i = 0; i < b->count; i++) {
        b->places[i] = (struct sqlite_key){b->events[i].org, 0, (uint32_t)i};
    }
    keys_sort(b->places, b->count);
    uint64_t last = 0;
    bool is_known = false;
    for (size_t i = 0; i < b->count; i++) {
        struct sqlite_key *place = &b->places[i];
        struct store_event *event = &b->events[place->index];
        if (i == 0 || place->high != b->places[i - 1].high) {
            last = store_sequence_first(event->org);
            enum err err = org_last_sequence(&b->c->base, event->org, &is_known, &last);
            if (err != ERR_OK) {
                return err;
            }
            if (!is_known && !careful) {
                return ERR_REFUSED;
            }
        }
        if (is_known) {
            last++;
            assert(last <= store_sequence_last(event->org));
        }
        place->low = last;
        event->sequence = last;
        event->state = is_known ? STORE_EVENT_INSERTED : STORE_EVENT_REFUSED;
    }
    return ERR_OK;
}

static uint64_t read_big_endian(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return __builtin_bswap64(value);
}

/* Notes the duplicates: ids of the batch that stand with another sequence. */
static enum err note_known(struct batch *b, size_t count)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    b->c->rows = (struct sqlite_rows){&b->c->base, b->events, b->scratch, (uint32_t)count};
    enum err err = store_prepare(&b->c->base,
                                 "SELECT r.sequence, i.sequence FROM weir_rows r CROSS JOIN"
                                 " event_ids i ON i.id = r.id WHERE i.sequence <> r.sequence",
                                 &statement);
    while (err == ERR_OK && has_row) {
        err = store_step(statement, &has_row);
        if (err == ERR_OK && has_row) {
            const struct sqlite_key *place = place_of(b, (uint64_t)store_column_i64(statement, 0));
            assert(place != NULL);
            struct store_event *event = &b->events[place->index];
            event->state = STORE_EVENT_DUPLICATE;
            event->sequence = (uint64_t)store_column_i64(statement, 1);
        }
    }
    return err;
}

static enum err insert_ids(struct batch *b, struct span span)
{
    size_t count = 0;
    for (size_t i = span.from; i < span.from + span.count; i++) {
        const struct sqlite_key *place = &b->places[i];
        struct store_event *event = &b->events[place->index];
        if (event->state != STORE_EVENT_REFUSED) {
            event->state = STORE_EVENT_INSERTED;
            event->sequence = place->low;
            b->scratch[count++] = (struct sqlite_key){read_big_endian(event->id),
                                                      read_big_endian(event->id + 8), place->index};
        }
    }
    keys_sort(b->scratch, count);
    enum err err = run_rows(b,
                            "INSERT OR FAIL INTO event_ids (id, sequence)"
                            " SELECT id, sequence FROM weir_rows WHERE true"
                            " ON CONFLICT (id) DO NOTHING",
                            count);
    if (err == ERR_OK && count > 0 && store_changes(&b->c->base) < count) {
        err = note_known(b, count);
    }
    return err;
}

/* Whether a duplicate says something else than the row that was first. */
static enum err tell_conflict(struct batch *b, struct store_event *event)
{
    const struct sqlite_key *place = place_of(b, event->sequence);
    if (place != NULL) {
        if (!slice_equal(b->events[place->index].payload, event->payload)) {
            event->state = STORE_EVENT_CONFLICT;
        }
        return ERR_OK;
    }
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(&b->c->base, "SELECT payload FROM events WHERE sequence = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)event->sequence);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        if (!slice_equal(store_column_bytes(statement, 0), event->payload)) {
            event->state = STORE_EVENT_CONFLICT;
        }
        store_reset(statement);
    }
    return err;
}

static enum err insert_rows(struct batch *b, struct span span)
{
    size_t count = 0;
    for (size_t i = span.from; i < span.from + span.count; i++) {
        const struct sqlite_key *place = &b->places[i];
        struct store_event *event = &b->events[place->index];
        if (event->state == STORE_EVENT_DUPLICATE) {
            enum err err = tell_conflict(b, event);
            if (err != ERR_OK) {
                return err;
            }
        } else if (event->state == STORE_EVENT_INSERTED) {
            b->scratch[count++] = (struct sqlite_key){0, place->low, place->index};
        }
    }
    return run_rows(
        b,
        "INSERT OR FAIL INTO events (sequence, id, position, type, subject, source, app, "
        "dedup_id, payload, attributes, occurred_ms, created_ms) "
        "SELECT sequence, id, position, type, subject, source, app, dedup_id, payload, "
        "attributes, occurred_ms, created_ms FROM weir_rows",
        count);
}

static enum err insert_subjects(struct batch *b, struct span span)
{
    size_t count = 0;
    for (size_t i = span.from; i < span.from + span.count; i++) {
        const struct sqlite_key *place = &b->places[i];
        const struct store_event *event = &b->events[place->index];
        if (event->state == STORE_EVENT_INSERTED && event->subject.data != NULL) {
            uint64_t key = (uint64_t)store_subject_key(event->org, event->subject);
            /* The engine orders by the signed number. */
            b->scratch[count++] =
                (struct sqlite_key){key ^ (1ull << 63u), place->low, place->index};
        }
    }
    keys_sort(b->scratch, count);
    return run_rows(b,
                    "INSERT OR FAIL INTO event_subjects (key, sequence) "
                    "SELECT subject_key, sequence FROM weir_rows",
                    count);
}

static enum err insert_span(struct batch *b, struct span span)
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

/* Parts that are refused become halves, left half first. */
static enum err insert_by_halves(struct batch *b)
{
    struct store_connection *connection = &b->c->base;
    struct span spans[SPANS_MAX];
    size_t open = 0;
    spans[open++] = (struct span){0, b->count};
    while (open > 0) {
        struct span span = spans[--open];
        enum err err = store_sqlite.savepoint(connection, "part");
        if (err != ERR_OK) {
            return err;
        }
        err = insert_span(b, span);
        if (err == ERR_OK) {
            err = store_sqlite.savepoint_release(connection, "part");
        } else if (err == ERR_REFUSED) {
            err = store_sqlite.savepoint_rollback(connection, "part");
            if (span.count == 1) {
                b->events[b->places[span.from].index].state = STORE_EVENT_REFUSED;
            } else {
                size_t half = span.count / 2;
                assert(open + 2 <= SPANS_MAX);
                spans[open++] = (struct span){span.from + half, span.count - half};
                spans[open++] = (struct span){span.from, half};
            }
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

static enum err update_hours(struct batch *b, uint64_t org, int64_t hour, uint64_t first,
                             uint64_t last)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        &b->c->base,
        "INSERT INTO event_hours (org, hour, first_sequence, last_sequence) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (org, hour) DO UPDATE SET"
        " first_sequence = min(first_sequence, excluded.first_sequence),"
        " last_sequence = max(last_sequence, excluded.last_sequence)",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, hour);
    store_bind_i64(statement, 3, (int64_t)first);
    store_bind_i64(statement, 4, (int64_t)last);
    return store_execute(statement);
}

static enum err update_org(struct batch *b, uint64_t org, uint64_t last)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(&b->c->base,
                                 "UPDATE orgs SET last_sequence = $2, data_version = data_version"
                                 " + 1 WHERE number = $1",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_i64(statement, 2, (int64_t)last);
    return store_execute(statement);
}

static int64_t hour_of(const struct store_event *event)
{
    int64_t ms = event->created_ms;
    return ms >= 0 ? ms / HOUR_MS : -((-ms + HOUR_MS - 1) / HOUR_MS);
}

/* Runs of one org and hour become one row of event_hours each. */
static enum err update_totals(struct batch *b)
{
    enum err err = ERR_OK;
    const struct store_event *first = NULL; /* of the run */
    const struct store_event *last = NULL;
    for (size_t i = 0; i < b->count && err == ERR_OK; i++) {
        const struct store_event *event = &b->events[b->places[i].index];
        if (event->state != STORE_EVENT_INSERTED) {
            continue;
        }
        bool is_other_org = first != NULL && first->org != event->org;
        if (first != NULL && (is_other_org || hour_of(first) != hour_of(event))) {
            err = update_hours(b, first->org, hour_of(first), first->sequence, last->sequence);
            if (err == ERR_OK && is_other_org) {
                err = update_org(b, first->org, last->sequence);
            }
            first = NULL;
        }
        first = first == NULL ? event : first;
        last = event;
    }
    if (err == ERR_OK && first != NULL) {
        err = update_hours(b, first->org, hour_of(first), first->sequence, last->sequence);
        if (err == ERR_OK) {
            err = update_org(b, first->org, last->sequence);
        }
    }
    return err;
}

enum err store_sqlite_insert_events(struct store_connection *connection, struct store_event *events,
                                    size_t count, bool careful)
{
    enum err err = ERR_NO_MEMORY;
    struct batch b = {.c = sqlite_from(connection), .events = events, .count = count};
    if (count == 0) {
        return ERR_OK;
    }
    assert(count < UINT32_MAX);
    b.places = mem_try_alloc(count * sizeof(*b.places));
    b.scratch = mem_try_alloc(count * sizeof(*b.scratch));
    if (b.places == NULL || b.scratch == NULL) {
        goto out;
    }
    err = assign_sequences(&b, careful);
    if (err == ERR_OK) {
        err = careful ? insert_by_halves(&b) : insert_span(&b, (struct span){0, count});
    }
    if (err == ERR_OK) {
        err = update_totals(&b);
    }
out:
    b.c->rows = (struct sqlite_rows){.connection = connection};
    mem_free(b.scratch);
    mem_free(b.places);
    return err;
}
