/* Roll-ups: dirty minutes on their way, between what is common and an engine's own way.
 *
 * Thread: the owner of the connection, inside a transaction.
 * Memory: everything lives for one call of store_rollups_refresh.
 * Errors: as store_rollups_refresh. */
#pragma once
#include "store/backend.h"

/* In the order of org, series and start. */
struct store_minute {
    uint64_t org;
    uint64_t series;
    int64_t start_ms;
    bool is_gone; /* its readings are, by their age: what was computed stands */
};

/* store_backend.write_rollups */
enum err store_postgres_write_rollups(struct store_connection *connection,
                                      const struct store_minute *minutes, uint32_t count);
