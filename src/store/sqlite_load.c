/* Filling an SQLite database with the rows of another store: one prepared INSERT a table; events by
 * the way that all events take.
 *
 * Failure modes: a row that the engine refuses, which a row of a store never is: ERR_REFUSED. */
#include "store/load.h"
#include "store/sqlite.h"

#include <stdio.h>

static enum err run_named(struct store_connection *connection, const char *what, const char *name)
{
    char sql[STORE_NAME_BYTES + 32];
    struct store_statement *statement = NULL;
    (void)snprintf(sql, sizeof(sql), "%s \"%s\"", what, name);
    enum err err = store_prepare_text(connection, slice_from_text(sql), &statement);
    return err == ERR_OK ? store_execute(statement) : err;
}

static enum err clear(struct store_connection *connection, const struct store_catalogue *catalogue)
{
    enum err err = run_named(connection, "DELETE FROM", "event_ids");
    if (err == ERR_OK) {
        err = run_named(connection, "DELETE FROM", "event_subjects");
    }
    for (uint32_t i = catalogue->count; i > 0 && err == ERR_OK; i--) {
        err = run_named(connection, "DELETE FROM", catalogue->tables[i - 1].name);
    }
    return err;
}

static enum err prepare_insert(struct store_connection *connection, const struct store_table *table,
                               struct store_statement **ret)
{
    struct buffer sql;
    buffer_init(&sql, STORE_STATEMENT_TEXT_MAX);
    enum err err = buffer_printf(&sql, "INSERT INTO \"%s\" (", table->name);
    if (err == ERR_OK) {
        err = store_load_columns(table, &sql);
    }
    for (uint32_t i = 0; i < table->column_count && err == ERR_OK; i++) {
        err = buffer_printf(&sql, "%s$%u", i == 0 ? ") VALUES (" : ", ", i + 1);
    }
    if (err == ERR_OK) {
        err = buffer_append_text(&sql, ")");
    }
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), ret);
    }
    buffer_finish(&sql);
    return err;
}

static void bind(struct store_statement *statement, int parameter, enum store_kind kind,
                 const struct store_value *value)
{
    if (value->is_null) {
        store_bind_null(statement, parameter);
    } else if (kind == STORE_KIND_I64) {
        store_bind_i64(statement, parameter, value->number);
    } else if (kind == STORE_KIND_DOUBLE) {
        store_bind_double(statement, parameter, value->real);
    } else if (kind == STORE_KIND_TEXT) {
        store_bind_text(statement, parameter, value->bytes);
    } else {
        store_bind_blob(statement, parameter, value->bytes);
    }
}

static enum err load_rows(struct store_connection *connection, const struct store_rows *rows)
{
    const struct store_table *table = rows->table;
    struct store_statement *statement = NULL;
    enum err err = prepare_insert(connection, table, &statement);
    for (uint32_t i = 0; i < rows->count && err == ERR_OK; i++) {
        const struct store_value *row = rows->values + (size_t)i * table->column_count;
        for (uint32_t k = 0; k < table->column_count; k++) {
            bind(statement, (int)k + 1, table->columns[k].kind, &row[k]);
        }
        err = store_execute(statement);
    }
    return err;
}

static enum err finish(struct store_connection *connection, const struct store_catalogue *catalogue)
{
    (void)connection; /* a new row's number is one above the highest */
    (void)catalogue;
    return ERR_OK;
}

const struct store_loader store_sqlite_loader = {
    .clear = clear, .rows = load_rows, .events = store_sqlite_load_events, .finish = finish};
