/* Page: what the simple lists (newest first, by a rising number) have in common.
 *
 * Thread, memory: inside a store job.  Errors: the store's and the buffer's. */
#pragma once
#include "query/query.h"

struct json_writer;
struct store_statement;

struct query_page_shape {
    enum query_list list;
    const char *name; /* of the array */
    const char *sql;  /* $1 org, $2 place below which to go on, $3 limit; column 0 is the place */
    enum err (*write)(struct store_statement *statement, struct buffer *to, void *context);
};
MUST_CHECK enum err query_page_list(struct store_connection *connection,
                                    const struct query_page *page,
                                    const struct query_page_shape *shape, void *context,
                                    struct buffer *to);
/* Members that both lists write in the same way. */
void query_write_id(struct json_writer *writer, const char *key, struct slice bytes);
void query_write_time(struct json_writer *writer, const char *key, int64_t wall_ms);
