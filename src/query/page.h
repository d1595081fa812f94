/* Page: what the simple lists (by a rising number) have in common.
 *
 * Thread, memory: inside a store job.  Errors: the store's and the buffer's. */
#pragma once
#include "query/query.h"

struct json_writer;
struct store_statement;

struct query_page_shape {
    const char *name; /* of the array */
    /* [oldest_first]: its cursors, and its text: $1 org, $2 place behind which to go on, $3 limit,
     * $4 areas; column 0 is the place. */
    enum query_list list[2];
    const char *sql[2];
    enum err (*write)(struct store_statement *statement, struct buffer *to, void *context);
};
MUST_CHECK enum err query_page_list(struct store_connection *connection,
                                    const struct query_page *page,
                                    const struct query_page_shape *shape, void *context,
                                    struct buffer *to);
