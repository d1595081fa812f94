/* Load: what an engine does to be filled with the rows of another store.
 *
 * Thread: the owner of the connection; all but `clear` and `finish` are called in a transaction.
 * Memory: rows are the caller's.
 * Errors: ERR_REFUSED: a row that the engine cannot hold; its text says why. */
#pragma once
#include "store/backend.h"
#include "store/catalogue.h"

#include "base/buffer.h"

struct store_value {
    struct slice bytes; /* of a text or a blob */
    union {
        int64_t number;
        double real;
    };
    bool is_null;
};

struct store_rows {
    const struct store_table *table;
    const struct store_value *values; /* of the first row, then the second … */
    uint32_t count;
};

struct store_loader {
    /* Takes all rows out of all tables, inside a transaction. */
    enum err (*clear)(struct store_connection *connection, const struct store_catalogue *catalogue);
    /* Of any table but events. */
    enum err (*rows)(struct store_connection *connection, const struct store_rows *rows);
    /* Their sequences are given, and rise. */
    enum err (*events)(struct store_connection *connection, struct store_packed *events,
                       size_t count);
    /* Inside the last transaction: what the engine keeps beside the rows. */
    enum err (*finish)(struct store_connection *connection,
                       const struct store_catalogue *catalogue);
};

extern const struct store_loader store_sqlite_loader;
extern const struct store_loader store_postgres_loader;

/* "a", "b" */
MUST_CHECK enum err store_load_columns(const struct store_table *table, struct buffer *to);
