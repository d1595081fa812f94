/* Page: one page of a list that is read by a number that only rises. */
#include "query/page.h"

#include "base/limits.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

static void query_page_bind(struct store_statement *statement, const struct query_page *page)
{
    store_bind_i64(statement, 1, (int64_t)page->org);
    bool is_first = page->after == 0 && !page->oldest_first;
    store_bind_i64(statement, 2, is_first ? INT64_MAX : (int64_t)page->after);
    store_bind_i64(statement, 3, (int64_t)page->limit + 1);
    store_bind_i64(statement, 4, page->areas);
}

enum err query_page_list(struct store_connection *connection, const struct query_page *page,
                         const struct query_page_shape *shape, void *context, struct buffer *to)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    bool is_full = false;
    uint32_t count = 0;
    uint64_t place = 0;
    assert(page->limit > 0 && page->limit <= LIMIT_LIST_MAX);
    enum err err = buffer_printf(to, "{\"%s\":[", shape->name);
    size_t from = to->size;
    if (err == ERR_OK) {
        err = store_prepare_text(connection, slice_from_text(shape->sql[page->oldest_first]),
                                 &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    query_page_bind(statement, page);
    err = store_step(statement, &has_row);
    while (err == ERR_OK && has_row && !is_full) {
        if (count == page->limit || to->size - from >= LIMIT_PAGE_BYTES) {
            is_full = true;
            break;
        }
        place = (uint64_t)store_column_i64(statement, 0);
        if (count++ > 0) {
            err = buffer_append_byte(to, ',');
        }
        if (err == ERR_OK) {
            err = shape->write(statement, to, context);
        }
        if (err == ERR_OK) {
            err = store_step(statement, &has_row);
        }
    }
    store_reset(statement);
    if (err == ERR_OK) {
        err = buffer_append_byte(to, ']');
    }
    if (err == ERR_OK) {
        err = query_list_end(shape->list[page->oldest_first], page->org, is_full, place, to);
    }
    return err;
}
