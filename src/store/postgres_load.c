/* Filling a PostgreSQL database with the rows of another store: COPY into the table itself; events
 * by the way that all events take.
 *
 * Failure modes: a text with U+0000, which SQLite holds and this engine does not: ERR_REFUSED, with
 * the column; nothing is left out in silence. */
#include "store/load.h"
#include "store/postgres_copy.h"
#include "store/postgres_readings.h"

#include <stdio.h>

#define LOAD_BYTES_MAX (256u << 20u) /* of what is sent at once: a part and one row */
#define LOAD_SQL_BYTES 8192u
#define VALUE_FIXED    16u

static enum err clear(struct store_connection *connection, const struct store_catalogue *catalogue)
{
    struct buffer sql;
    buffer_init(&sql, LOAD_SQL_BYTES);
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < catalogue->count && err == ERR_OK; i++) {
        err = buffer_printf(&sql, "%s\"%s\"", i == 0 ? "TRUNCATE TABLE " : ", ",
                            catalogue->tables[i].name);
    }
    if (err == ERR_OK) {
        err = buffer_append_byte(&sql, '\0');
    }
    if (err == ERR_OK) {
        err = store_postgres_run(postgres_from(connection), (const char *)sql.data, NULL, 0);
    }
    buffer_finish(&sql);
    return err;
}

static enum err begin_copy(struct postgres_connection *c, const struct store_table *table)
{
    struct buffer sql;
    buffer_init(&sql, LOAD_SQL_BYTES);
    enum err err = buffer_printf(&sql, "COPY \"%s\" (", table->name);
    if (err == ERR_OK) {
        err = store_load_columns(table, &sql);
    }
    if (err == ERR_OK) {
        err = buffer_printf(&sql, ") FROM STDIN (FORMAT binary)%c", '\0');
    }
    if (err == ERR_OK) {
        err = store_postgres_run(c, (const char *)sql.data, NULL, 0);
    }
    buffer_finish(&sql);
    return err;
}

static uint8_t *put_value(uint8_t *to, enum store_kind kind, const struct store_value *value)
{
    if (value->is_null) {
        return postgres_put_null(to);
    }
    if (kind == STORE_KIND_TEXT || kind == STORE_KIND_BLOB) {
        return postgres_put_bytes(to, value->bytes);
    }
    return kind == STORE_KIND_DOUBLE ? postgres_put_double(to, value->real)
                                     : postgres_put_i64(to, value->number);
}

static enum err append_row(struct postgres_connection *c, struct buffer *copy,
                           const struct store_table *table, const struct store_value *row)
{
    size_t size = 2;
    for (uint32_t i = 0; i < table->column_count; i++) {
        struct slice bytes = row[i].is_null ? slice_make(NULL, 0) : row[i].bytes;
        size += VALUE_FIXED + bytes.size;
        if (table->columns[i].kind == STORE_KIND_TEXT && bytes.size > 0 &&
            memchr(bytes.data, '\0', bytes.size) != NULL) {
            (void)snprintf(c->error, sizeof(c->error),
                           "%s: a text with U+0000, which PostgreSQL cannot hold",
                           table->columns[i].name);
            return ERR_REFUSED;
        }
    }
    enum err err = buffer_reserve(copy, size);
    if (err != ERR_OK) {
        return err;
    }
    uint8_t *to = postgres_put_u16(copy->data + copy->size, (uint16_t)table->column_count);
    for (uint32_t i = 0; i < table->column_count; i++) {
        to = put_value(to, table->columns[i].kind, &row[i]);
    }
    copy->size = (size_t)(to - copy->data);
    return ERR_OK;
}

static enum err copy_rows(struct postgres_connection *c, struct buffer *copy,
                          const struct store_rows *rows)
{
    enum err err = postgres_copy_head(copy);
    for (uint32_t i = 0; i < rows->count && err == ERR_OK; i++) {
        err =
            append_row(c, copy, rows->table, rows->values + (size_t)i * rows->table->column_count);
        if (err == ERR_OK && copy->size >= POSTGRES_COPY_PART_BYTES) {
            err = store_postgres_copy_part(c, copy);
        }
    }
    return err == ERR_OK ? store_postgres_copy_rest(c, copy) : err;
}

/* Readings lie by month. */
static enum err make_room(struct store_connection *connection, const struct store_rows *rows)
{
    const struct store_table *table = rows->table;
    int64_t from_ms = 0;
    int64_t to_ms = 0;
    uint32_t column = 0;
    enum err err = ERR_OK;
    if (strcmp(table->name, "readings") != 0) {
        return ERR_OK;
    }
    while (strcmp(table->columns[column].name, "time_ms") != 0) {
        column++;
    }
    for (uint32_t i = 0; i < rows->count && err == ERR_OK; i++) {
        int64_t time_ms = rows->values[(size_t)i * table->column_count + column].number;
        if (time_ms < from_ms || time_ms >= to_ms) {
            err = store_postgres_reading_room(connection, time_ms, &from_ms, &to_ms);
        }
    }
    return err;
}

static enum err load_rows(struct store_connection *connection, const struct store_rows *rows)
{
    struct postgres_connection *c = postgres_from(connection);
    struct buffer copy;
    char why[sizeof(c->error)] = "";
    enum err err = make_room(connection, rows);
    if (err == ERR_OK) {
        err = begin_copy(c, rows->table);
    }
    if (err != ERR_OK) {
        return err;
    }
    buffer_init(&copy, LOAD_BYTES_MAX);
    err = copy_rows(c, &copy, rows);
    buffer_finish(&copy);
    if (err != ERR_OK) { /* the server will only say that it was told to give up */
        (void)snprintf(why, sizeof(why), "%s", c->error);
    }
    err = store_postgres_copy_end(c, err);
    if (why[0] != '\0') {
        (void)snprintf(c->error, sizeof(c->error), "%s", why);
    }
    return err;
}

/* Where numbers are given by the engine, it goes on after the highest. */
static enum err finish(struct store_connection *connection, const struct store_catalogue *catalogue)
{
    struct postgres_connection *c = postgres_from(connection);
    char sql[4 * STORE_NAME_BYTES + 128];
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < catalogue->count && err == ERR_OK; i++) {
        const struct store_table *table = &catalogue->tables[i];
        const struct store_column *key = &table->columns[table->keys[0]];
        if (table->key_count == 1 && key->kind == STORE_KIND_I64) {
            (void)snprintf(sql, sizeof(sql),
                           "SELECT setval(pg_get_serial_sequence('\"%s\"', '%s'), max(\"%s\"))"
                           " FROM \"%s\"",
                           table->name, key->name, key->name, table->name);
            err = store_postgres_run(c, sql, NULL, 0);
        }
    }
    for (uint32_t i = 0; i < catalogue->count && err == ERR_OK; i++) {
        (void)snprintf(sql, sizeof(sql), "ANALYZE \"%s\"", catalogue->tables[i].name);
        err = store_postgres_run(c, sql, NULL, 0);
    }
    return err;
}

const struct store_loader store_postgres_loader = {
    .clear = clear, .rows = load_rows, .events = store_postgres_load_events, .finish = finish};
