/* Batch: what inserting events is on every engine: numbers given per org, refused rows found by
 * halves, the totals of orgs and hours. An engine adds its SQL and how a part of the batch is
 * written.
 *
 * Thread: the owner of the connection, inside a transaction.
 * Memory: the arrays live for one call.
 * Errors: as store_insert_events. */
#pragma once
#include "store/backend.h"

struct store_key {
    uint64_t high;
    uint64_t low;
    uint32_t index; /* of the event */
};

struct store_batch {
    struct store_connection *connection;
    struct store_packed *events;
    size_t count;
    struct store_spill *spill; /* of the events' bytes; may be NULL */
    struct store_key *places;  /* by org and order: high org, low the event's own sequence */
    struct store_key *scratch; /* as many, for the engine */
    bool is_staged;            /* by `stage`: `low` of the places was the place's number then */
};

/* Of the places. */
struct store_span {
    size_t from;
    size_t count;
};

struct store_batch_engine {
    const char *sequence_sql; /* $1 org -> last_sequence; may lock the org's row */
    const char *hours_sql;    /* $1 org, $2 hour, $3 first, $4 last sequence */
    /* Before any org is locked: sends the rows of all places. NULL: the engine has no use for it.
     */
    enum err (*stage)(struct store_batch *batch);
    /* Writes the events of the span whose state is not REFUSED, and says what became of each:
     * INSERTED, DUPLICATE, CONFLICT and the sequence. ERR_REFUSED: the engine refused one of them.
     */
    enum err (*insert_span)(struct store_batch *batch, struct store_span span);
};

enum err store_batch_insert(struct store_batch *batch, const struct store_batch_engine *engine,
                            bool careful);
/* Events as they stood in another store: their sequences are given, and rise; totals and hours are
 * tables of their own there. ERR_REFUSED: two of them have one id. */
enum err store_batch_load(struct store_batch *batch, const struct store_batch_engine *engine);
/* The place of a sequence number that this batch gave, or NULL. */
const struct store_key *store_batch_place(const struct store_batch *batch, uint64_t sequence);
/* Rows and bytes in one piece of memory, the caller's. */
enum err store_pack_all(const struct store_event *events, size_t count, struct store_packed **ret);
/* Of one that is packed. */
size_t store_packed_size(const struct store_packed *packed);
void store_keys_sort(struct store_key *keys, size_t count);
