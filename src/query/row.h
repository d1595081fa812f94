/* Row: an event's columns, and the one way in which an event is written as JSON.
 *
 * Thread, memory: inside a store job; slices of a row live until the statement's next step.
 * Errors: as the buffer's. */
#pragma once
#include "base/buffer.h"
#include "base/err.h"

struct query_filter;
struct store_connection;
struct store_statement;

/* Of events AS e, in the order that query_row_write reads. */
#define QUERY_ROW_COLUMNS                                                                          \
    "e.sequence, e.id, e.type, e.subject, e.source, e.app, e.dedup_id, e.payload, e.attributes, "  \
    "e.occurred_ms, e.created_ms"

enum query_row_shape {
    QUERY_ROW_PLAIN,    /* the payload as it came */
    QUERY_ROW_ONE_LINE, /* line breaks of the payload as spaces, for server-sent events */
};
/* Appends the event on which the statement stands. */
MUST_CHECK enum err query_row_write(struct store_statement *statement, bool acknowledged,
                                    enum query_row_shape shape, struct buffer *to);

/* The same event as a row of a table. */
MUST_CHECK enum err query_row_write_csv(struct store_statement *statement, bool acknowledged,
                                        struct buffer *to);

/* Appends FROM and the filters' part of WHERE: two parameters $1, $2 bound the sequence, the
 * filters' follow. A subject has an index of its own, which then leads. */
MUST_CHECK enum err query_filter_sql(const struct query_filter *filter,
                                     const struct store_connection *connection, struct buffer *sql);
/* The column that orders its rows without a sort. */
const char *query_filter_order(const struct query_filter *filter,
                               const struct store_connection *connection);
/* Number of the last parameter of that text. */
int query_filter_count(const struct query_filter *filter);
/* Binds the filters from $3 on; gives that number too. */
int query_filter_bind(const struct query_filter *filter, struct store_statement *statement);
