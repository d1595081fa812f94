/* A batch of events on its way into the database, as far as it is the same on every engine.
 *
 * Happy path: the batch is ordered by org, and an engine that can sends its rows ahead; then each
 * event gets the next sequence number of its org, whose row is locked from here to the commit, so
 * that sequences rise in the order of commits; the engine writes them; orgs.last_sequence, the data
 * version and the hours are brought up to date. A duplicate's number stays unused: sequences may
 * have gaps. Orgs are locked in the order of their numbers.
 *
 * Failure modes: a row that the engine refuses fails the whole part. In careful mode each part of
 * the batch has a savepoint; a part that is refused is rolled back and tried as two halves, down to
 * the one row, which is then marked. So one bad row costs a few statements, and none is lost. */
#include "store/batch.h"

#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <stdlib.h>

#define HOUR_MS            3600000
#define SPANS_MAX          64u /* two for each halving of a 32-bit count */
#define SORTED_BY_HAND_MAX 16u
#define SUBJECT_SEED       0x7765697273756271u

int64_t store_subject_key(uint64_t org, struct slice subject)
{
    return (int64_t)hash_xxh3(subject.data, subject.size, SUBJECT_SEED ^ org);
}

static int key_compare(const void *a, const void *b)
{
    const struct store_key *x = a;
    const struct store_key *y = b;
    if (x->high != y->high) {
        return x->high < y->high ? -1 : 1;
    }
    if (x->low != y->low) {
        return x->low < y->low ? -1 : 1;
    }
    return x->index < y->index ? -1 : x->index > y->index;
}

static bool is_sorted(const struct store_key *keys, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        if (key_compare(&keys[i - 1], &keys[i]) > 0) {
            return false;
        }
    }
    return true;
}

/* Where the keys of each share of the range begin, and how far a key is shifted to its share. */
struct key_shares {
    uint64_t least;
    uint32_t shift;
    uint32_t *ends; /* of each share; its beginning until it is filled */
};

/* About as many shares as keys, so that those of even keys, as hashes are, hold one or two. */
static enum err make_shares(const struct store_key *keys, size_t count, struct key_shares *ret)
{
    uint64_t least = UINT64_MAX;
    uint64_t most = 0;
    for (size_t i = 0; i < count; i++) {
        least = keys[i].high < least ? keys[i].high : least;
        most = keys[i].high > most ? keys[i].high : most;
    }
    uint32_t shift = 0;
    while ((most - least) >> shift >= count) {
        shift++;
    }
    size_t shares = (size_t)((most - least) >> shift) + 1;
    uint32_t *ends = mem_try_alloc((shares + 1) * sizeof(*ends));
    if (ends == NULL) {
        return ERR_NO_MEMORY;
    }
    memset(ends, 0, (shares + 1) * sizeof(*ends));
    for (size_t i = 0; i < count; i++) {
        ends[((keys[i].high - least) >> shift) + 1]++;
    }
    for (size_t i = 1; i <= shares; i++) {
        ends[i] += ends[i - 1];
    }
    *ret = (struct key_shares){least, shift, ends};
    return ERR_OK;
}

static void sort_few(struct store_key *keys, size_t count)
{
    if (count > SORTED_BY_HAND_MAX) {
        if (!is_sorted(keys, count)) {
            qsort(keys, count, sizeof(*keys), key_compare);
        }
        return;
    }
    for (size_t i = 1; i < count; i++) {
        struct store_key key = keys[i];
        size_t at = i;
        while (at > 0 && key_compare(&keys[at - 1], &key) > 0) {
            keys[at] = keys[at - 1];
            at--;
        }
        keys[at] = key;
    }
}

void store_keys_sort(struct store_key *keys, size_t count)
{
    struct key_shares shares = {0};
    struct store_key *sorted = NULL;
    if (is_sorted(keys, count)) {
        return;
    }
    sorted = mem_try_alloc(count * sizeof(*sorted));
    if (sorted == NULL || make_shares(keys, count, &shares) != ERR_OK) {
        qsort(keys, count, sizeof(*keys), key_compare);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        sorted[shares.ends[(keys[i].high - shares.least) >> shares.shift]++] = keys[i];
    }
    size_t from = 0;
    for (size_t share = 0; from < count; share++) {
        sort_few(sorted + from, shares.ends[share] - from);
        from = shares.ends[share];
    }
    memcpy(keys, sorted, count * sizeof(*keys));
out:
    mem_free(shares.ends);
    mem_free(sorted);
}

const struct store_key *store_batch_place(const struct store_batch *batch, uint64_t sequence)
{
    size_t low = 0;
    size_t high = batch->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (batch->places[middle].low < sequence) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    bool is_there = low < batch->count && batch->places[low].low == sequence;
    return is_there ? &batch->places[low] : NULL;
}

/* *ret_last 0 and *ret_is false: no such org. */
static enum err org_last_sequence(const struct store_batch *batch,
                                  const struct store_batch_engine *engine, uint64_t org,
                                  bool *ret_is, uint64_t *ret_last)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(batch->connection, engine->sequence_sql, &statement);
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

/* By org, in the order that they have. */
static void order_places(struct store_batch *batch)
{
    for (size_t i = 0; i < batch->count; i++) {
        batch->places[i] = (struct store_key){batch->events[i].org, 0, (uint32_t)i};
        batch->events[i].state = STORE_EVENT_INSERTED;
    }
    store_keys_sort(batch->places, batch->count);
}

static enum err assign_sequences(struct store_batch *batch, const struct store_batch_engine *engine,
                                 bool careful)
{
    uint64_t last = 0;
    bool is_known = false;
    for (size_t i = 0; i < batch->count; i++) {
        struct store_key *place = &batch->places[i];
        struct store_packed *event = &batch->events[place->index];
        if (i == 0 || place->high != batch->places[i - 1].high) {
            last = store_sequence_first(event->org);
            enum err err = org_last_sequence(batch, engine, event->org, &is_known, &last);
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

/* Parts that are refused become halves, left half first. */
static enum err insert_by_halves(struct store_batch *batch, const struct store_batch_engine *engine)
{
    struct store_connection *connection = batch->connection;
    const struct store_backend *backend = connection->backend;
    struct store_span spans[SPANS_MAX];
    size_t open = 0;
    spans[open++] = (struct store_span){0, batch->count};
    while (open > 0) {
        struct store_span span = spans[--open];
        enum err err = backend->savepoint(connection, "part");
        if (err != ERR_OK) {
            return err;
        }
        err = engine->insert_span(batch, span);
        if (err == ERR_OK) {
            err = backend->savepoint_release(connection, "part");
        } else if (err == ERR_REFUSED) {
            err = backend->savepoint_rollback(connection, "part");
            if (span.count == 1) {
                batch->events[batch->places[span.from].index].state = STORE_EVENT_REFUSED;
            } else {
                size_t half = span.count / 2;
                assert(open + 2 <= SPANS_MAX);
                spans[open++] = (struct store_span){span.from + half, span.count - half};
                spans[open++] = (struct store_span){span.from, half};
            }
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

static enum err update_hours(const struct store_batch *batch,
                             const struct store_batch_engine *engine,
                             const struct store_packed *first, int64_t hour, uint64_t last)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(batch->connection, engine->hours_sql, &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)first->org);
    store_bind_i64(statement, 2, hour);
    store_bind_i64(statement, 3, (int64_t)first->sequence);
    store_bind_i64(statement, 4, (int64_t)last);
    return store_execute(statement);
}

static enum err update_org(const struct store_batch *batch, uint64_t org, uint64_t last)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(batch->connection,
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

static int64_t hour_of(const struct store_packed *event)
{
    int64_t ms = event->created_ms;
    return ms >= 0 ? ms / HOUR_MS : -((-ms + HOUR_MS - 1) / HOUR_MS);
}

/* Runs of one org and hour become one row of event_hours each. */
static enum err update_totals(const struct store_batch *batch,
                              const struct store_batch_engine *engine)
{
    enum err err = ERR_OK;
    const struct store_packed *first = NULL; /* of the run */
    const struct store_packed *last = NULL;
    for (size_t i = 0; i <= batch->count && err == ERR_OK; i++) {
        const struct store_packed *event =
            i < batch->count ? &batch->events[batch->places[i].index] : NULL;
        if (event != NULL && event->state != STORE_EVENT_INSERTED) {
            continue;
        }
        bool is_other_org = first != NULL && (event == NULL || first->org != event->org);
        bool is_other_hour = first != NULL && event != NULL && hour_of(first) != hour_of(event);
        if (is_other_org || is_other_hour) {
            err = update_hours(batch, engine, first, hour_of(first), last->sequence);
            if (err == ERR_OK && is_other_org) {
                err = update_org(batch, first->org, last->sequence);
            }
            first = NULL;
        }
        first = first == NULL ? event : first;
        last = event;
    }
    return err;
}

enum err store_batch_insert(struct store_batch *batch, const struct store_batch_engine *engine,
                            bool careful)
{
    enum err err = ERR_NO_MEMORY;
    if (batch->count == 0) {
        return ERR_OK;
    }
    assert(batch->count < UINT32_MAX);
    batch->places = mem_try_alloc(batch->count * sizeof(*batch->places));
    batch->scratch = mem_try_alloc(batch->count * sizeof(*batch->scratch));
    if (batch->places == NULL || batch->scratch == NULL) {
        goto out;
    }
    order_places(batch);
    batch->is_staged = engine->stage != NULL && !careful;
    err = batch->is_staged ? engine->stage(batch) : ERR_OK;
    if (err == ERR_OK) {
        err = assign_sequences(batch, engine, careful);
    }
    if (err == ERR_OK) {
        err = careful ? insert_by_halves(batch, engine)
                      : engine->insert_span(batch, (struct store_span){0, batch->count});
    }
    if (err == ERR_OK) {
        err = update_totals(batch, engine);
    }
out:
    mem_free(batch->scratch);
    mem_free(batch->places);
    batch->scratch = NULL;
    batch->places = NULL;
    return err;
}

enum err store_batch_load(struct store_batch *batch, const struct store_batch_engine *engine)
{
    assert(batch->count > 0 && batch->count < UINT32_MAX);
    batch->places = mem_alloc_array(batch->count, sizeof(*batch->places));
    batch->scratch = mem_alloc_array(batch->count, sizeof(*batch->scratch));
    for (size_t i = 0; i < batch->count; i++) {
        const struct store_packed *event = &batch->events[i];
        assert(i == 0 || event->sequence > batch->events[i - 1].sequence);
        batch->events[i].state = STORE_EVENT_INSERTED;
        batch->places[i] = (struct store_key){event->org, event->sequence, (uint32_t)i};
    }
    enum err err = engine->insert_span(batch, (struct store_span){0, batch->count});
    for (size_t i = 0; i < batch->count && err == ERR_OK; i++) {
        err = batch->events[i].state == STORE_EVENT_INSERTED ? ERR_OK : ERR_REFUSED;
    }
    mem_free(batch->scratch);
    mem_free(batch->places);
    return err;
}
