/* The batch in hand as a table: the virtual table weir_rows shows an array of struct store_packed
 * in a chosen order, so that one INSERT … SELECT writes a whole batch.
 *
 * Why: a statement per row pays for binding, for the start of the virtual machine and for a descent
 * from the root in every index. One statement per table keeps its cursors: measured twice as fast.
 *
 * Happy path: the caller fills struct sqlite_rows and steps the statement once.
 * Failure modes: when something of higher priority waits and the transaction has lasted its time,
 * the next row is an interrupt: the statement fails and the transaction is rolled back. */
#include "store/sqlite.h"

#include <assert.h>

#define ROWS_PER_LOOK 256u /* rows between looks at who waits */

struct rows_table {
    sqlite3_vtab base;
    struct sqlite_rows *rows;
};

struct rows_cursor {
    sqlite3_vtab_cursor base;
    uint32_t next;
    bool is_unpacked;
    struct store_event event; /* the row that `next` names, unpacked when a column wants it */
};

enum rows_column {
    ROWS_SEQUENCE,
    ROWS_ID,
    ROWS_POSITION,
    ROWS_TYPE,
    ROWS_SUBJECT,
    ROWS_SOURCE,
    ROWS_APP,
    ROWS_DEDUP_ID,
    ROWS_PAYLOAD,
    ROWS_ATTRIBUTES,
    ROWS_OCCURRED_MS,
    ROWS_CREATED_MS,
    ROWS_SUBJECT_KEY,
};
static const char rows_declaration[] =
    "CREATE TABLE weir_rows(sequence, id, position, type, subject, source, app, dedup_id, payload,"
    " attributes, occurred_ms, created_ms, subject_key)";

static int rows_connect(sqlite3 *db, void *context, int argument_count,
                        const char *const *arguments, sqlite3_vtab **ret, char **ret_error)
{
    (void)argument_count;
    (void)arguments;
    (void)ret_error;
    struct rows_table *table = sqlite3_malloc(sizeof(*table));
    if (table == NULL) {
        return SQLITE_NOMEM;
    }
    *table = (struct rows_table){.rows = context};
    int code = sqlite3_declare_vtab(db, rows_declaration);
    if (code == SQLITE_OK) {
        *ret = &table->base;
    } else {
        sqlite3_free(table);
    }
    return code;
}

static int rows_disconnect(sqlite3_vtab *table)
{
    sqlite3_free(table);
    return SQLITE_OK;
}

static int rows_best_index(sqlite3_vtab *table, sqlite3_index_info *info)
{
    (void)table;
    info->estimatedCost = 1000;
    info->estimatedRows = 1000;
    return SQLITE_OK;
}

static int rows_open(sqlite3_vtab *table, sqlite3_vtab_cursor **ret)
{
    (void)table;
    struct rows_cursor *cursor = sqlite3_malloc(sizeof(*cursor));
    if (cursor == NULL) {
        return SQLITE_NOMEM;
    }
    cursor->next = 0;
    cursor->is_unpacked = false;
    *ret = &cursor->base;
    return SQLITE_OK;
}

static int rows_close(sqlite3_vtab_cursor *cursor)
{
    sqlite3_free(cursor);
    return SQLITE_OK;
}

static int rows_filter(sqlite3_vtab_cursor *cursor, int number, const char *text, int count,
                       sqlite3_value **values)
{
    (void)number;
    (void)text;
    (void)count;
    (void)values;
    struct rows_cursor *c = (struct rows_cursor *)cursor;
    c->next = 0;
    c->is_unpacked = false;
    return SQLITE_OK;
}

static struct sqlite_rows *rows_of(sqlite3_vtab_cursor *cursor)
{
    return ((struct rows_table *)cursor->pVtab)->rows;
}

static int rows_next(sqlite3_vtab_cursor *cursor)
{
    struct rows_cursor *c = (struct rows_cursor *)cursor;
    c->next++;
    c->is_unpacked = false;
    if (c->next % ROWS_PER_LOOK == 0 && store_must_yield(rows_of(cursor)->connection)) {
        return SQLITE_INTERRUPT;
    }
    return SQLITE_OK;
}

static int rows_eof(sqlite3_vtab_cursor *cursor)
{
    return ((struct rows_cursor *)cursor)->next >= rows_of(cursor)->count;
}

static void give_text(sqlite3_context *context, struct slice text)
{
    if (text.data != NULL) {
        sqlite3_result_text64(context, (const char *)text.data, text.size, SQLITE_STATIC,
                              SQLITE_UTF8);
    }
}

static enum err unpack(struct rows_cursor *cursor, const struct sqlite_rows *rows,
                       const struct store_packed *packed)
{
    enum err err =
        cursor->is_unpacked ? ERR_OK : store_spill_unpack(rows->spill, packed, &cursor->event);
    cursor->is_unpacked = err == ERR_OK;
    return err;
}

static void give_id(sqlite3_context *context, const struct store_key *key)
{
    uint64_t id[2] = {__builtin_bswap64(key->high), __builtin_bswap64(key->low)};
    sqlite3_result_blob(context, id, sizeof(id), SQLITE_TRANSIENT);
}

static void give_member(sqlite3_context *context, enum rows_column column,
                        const struct store_event *event)
{
    switch (column) {
    case ROWS_SEQUENCE:
    case ROWS_SUBJECT_KEY:
        break; /* given without unpacking */
    case ROWS_ID:
        sqlite3_result_blob(context, event->id, 16, SQLITE_STATIC);
        break;
    case ROWS_POSITION:
        sqlite3_result_int64(context, (sqlite3_int64)event->position);
        break;
    case ROWS_TYPE:
        give_text(context, event->type);
        break;
    case ROWS_SUBJECT:
        give_text(context, event->subject);
        break;
    case ROWS_SOURCE:
        give_text(context, event->source);
        break;
    case ROWS_APP:
        give_text(context, event->app);
        break;
    case ROWS_DEDUP_ID:
        give_text(context, event->dedup_id.size == 0 ? slice_make(NULL, 0) : event->dedup_id);
        break;
    case ROWS_PAYLOAD:
        give_text(context, event->payload);
        break;
    case ROWS_ATTRIBUTES:
        give_text(context, event->attributes);
        break;
    case ROWS_OCCURRED_MS:
        sqlite3_result_int64(context, event->occurred_ms);
        break;
    case ROWS_CREATED_MS:
        sqlite3_result_int64(context, event->created_ms);
        break;
    }
}

static int rows_column(sqlite3_vtab_cursor *cursor, sqlite3_context *context, int column)
{
    struct rows_cursor *c = (struct rows_cursor *)cursor;
    const struct sqlite_rows *rows = rows_of(cursor);
    const struct store_key *key = &rows->order[c->next];
    const struct store_packed *packed = &rows->events[key->index];
    if (column == ROWS_SEQUENCE) {
        sqlite3_result_int64(context, (sqlite3_int64)packed->sequence);
    } else if (column == ROWS_ID && rows->order_is == SQLITE_ROWS_BY_ID) {
        give_id(context, key);
    } else if (column == ROWS_SUBJECT_KEY) {
        assert(rows->order_is == SQLITE_ROWS_BY_SUBJECT);
        sqlite3_result_int64(context, (sqlite3_int64)(key->high ^ SQLITE_SUBJECT_FLIP));
    } else if (unpack(c, rows, packed) == ERR_OK) {
        give_member(context, (enum rows_column)column, &c->event);
    } else {
        return SQLITE_IOERR;
    }
    return SQLITE_OK;
}

static int rows_rowid(sqlite3_vtab_cursor *cursor, sqlite3_int64 *ret)
{
    *ret = ((struct rows_cursor *)cursor)->next;
    return SQLITE_OK;
}

/* Without xCreate the table is there in every database and cannot be made by CREATE. */
static const sqlite3_module rows_module = {
    .xConnect = rows_connect,
    .xBestIndex = rows_best_index,
    .xDisconnect = rows_disconnect,
    .xOpen = rows_open,
    .xClose = rows_close,
    .xFilter = rows_filter,
    .xNext = rows_next,
    .xEof = rows_eof,
    .xColumn = rows_column,
    .xRowid = rows_rowid,
};

enum err store_sqlite_rows_register(struct sqlite_connection *c)
{
    int code = sqlite3_create_module_v2(c->db, "weir_rows", &rows_module, &c->rows, NULL);
    return store_sqlite_err(c, code);
}
