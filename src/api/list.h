/* List: a page of rows that gate keeps (keys, the audit), as a GET.
 *
 * Thread: get: the request's loop. rows and row: a reader's.
 * Memory: the list is its request's job.
 * Errors: what rows returns is answered. */
#pragma once
#include "api/job.h"
#include "query/query.h"
#include "json/json.h"

struct api_list;

struct api_list_shape {
    const char *name;         /* of the array */
    enum query_list lists[2]; /* [oldest first]: their cursors */
    bool oldest_first;        /* without `order` */
    /* Hands each row of `list->page` to api_list_row's caller. */
    enum err (*rows)(struct store_connection *connection, struct api_list *list);
};

struct api_list {
    struct api_job job; /* first */
    const struct api_list_shape *shape;
    struct gate_page page; /* one row more than is asked for */
    /* while the list is written */
    struct json_writer writer;
    uint32_t count;
    uint64_t place;
};

void api_list_get(struct api_request *request, const struct api_list_shape *shape);
/* Where the row is to be written. NULL: it is the one more that says there is a next page. */
struct json_writer *api_list_row(struct api_list *list, uint64_t number);
