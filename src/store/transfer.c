/* Carrying all rows of one database to another, of whatever engine.
 *
 * The tables and columns are those of the catalogue; nothing here knows one of them but events,
 * whose rows stand in more than one table on SQLite, and secrets, where the mark is. Rows are read
 * in the order of their keys in one snapshot of the source, and written in batches, each a
 * transaction. Of every row a hash is taken; at the end the target is read again, and the number of
 * its rows and the sum of their hashes must be those of the source, table by table.
 *
 * Happy path: both are opened -> the target is empty -> the mark, durable -> the caller brings the
 * source to its end -> rows in batches -> the target is read and compared -> the mark goes, in one
 * transaction with what the engine keeps beside the rows (the next numbers). Failure modes: the
 * target holds rows and no mark: refused, untouched. Killed, or any error: the mark stays, a server
 * refuses the database, and the next transfer takes out what is there and begins anew. A row that
 * the engine cannot hold: the table, the row's key and the reason. */
#include "store/transfer.h"

#include "base/buffer.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "store/batch.h"
#include "store/load.h"
#include "store/postgres.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#define BATCH_ROWS       8192u
#define BATCH_BYTES      (4u << 20u)
#define BATCH_BYTES_MAX  (1u << 30u) /* of the one row that is larger */
#define ARENA_BLOCK      (1u << 20u)
#define SQL_BYTES        8192u
#define CHECKPOINT_BYTES (32u << 20u)
#define LONG_NS          (UINT64_C(20) * 86400u * 1000000000u) /* no statement takes so long */

/* Columns of events, as the catalogue has them. */
enum event_column {
    EVENT_SEQUENCE,
    EVENT_ID,
    EVENT_POSITION,
    EVENT_TYPE,
    EVENT_SUBJECT,
    EVENT_SOURCE,
    EVENT_APP,
    EVENT_DEDUP_ID,
    EVENT_PAYLOAD,
    EVENT_ATTRIBUTES,
    EVENT_OCCURRED_MS,
    EVENT_CREATED_MS,
    EVENT_COLUMNS
};
static const char *const event_names[] = {"sequence", "id",         "position",    "type",
                                          "subject",  "source",     "app",         "dedup_id",
                                          "payload",  "attributes", "occurred_ms", "created_ms"};

struct sum {
    uint64_t rows;
    uint64_t hash;
};

struct transfer {
    struct store_catalogue *catalogue;
    struct store_connection *from; /* reads */
    struct store_connection *to;   /* writes, then reads */
    struct sum sums[STORE_TABLES_MAX];
    struct mem_arena *arena; /* of the batch */
    struct store_value *values;
    struct store_event *events;
    uint32_t count; /* of its rows */
    size_t bytes;
    uint64_t done; /* rows, each copied and compared */
    uint64_t all;
    const struct store_transfer_watch *watch;
    struct err_detail *detail;
};

/* --- statements ------------------------------------------------------------------------------- */

static enum err run_plain(struct store_connection *connection, const char *sql)
{
    struct store_statement *statement = NULL;
    enum err err = store_prepare(connection, sql, &statement);
    return err == ERR_OK ? store_execute(statement) : err;
}

/* Whether the query gives a row. */
static enum err has_row(struct store_connection *connection, struct slice sql, bool *ret)
{
    struct store_statement *statement = NULL;
    bool is_there = false;
    enum err err = store_prepare_text(connection, sql, &statement);
    if (err == ERR_OK) {
        err = store_step(statement, &is_there);
    }
    if (err == ERR_OK && is_there) {
        store_reset(statement);
    }
    if (err == ERR_OK) {
        *ret = is_there;
    }
    return err;
}

static enum err fail(const struct transfer *t, struct store_connection *connection, enum err err,
                     const char *what)
{
    if (err != ERR_OK && t->detail->text[0] == '\0') {
        const char *text = connection->backend->error_text(connection);
        err_detail_set(t->detail, "%s: %s", what, text[0] != '\0' ? text : err_text(err));
    }
    return err;
}

enum err store_load_columns(const struct store_table *table, struct buffer *to)
{
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < table->column_count && err == ERR_OK; i++) {
        err = buffer_printf(to, "%s\"%s\"", i == 0 ? "" : ", ", table->columns[i].name);
    }
    return err;
}

/* --- the mark --------------------------------------------------------------------------------- */

static enum err is_marked(struct store_connection *connection, bool *ret)
{
    static const char sql[] = "SELECT 1 FROM secrets WHERE name = 'store.unfinished'";
    const struct store_backend *backend = connection->backend;
    enum err err = backend->begin_read(connection);
    if (err == ERR_OK) {
        err = has_row(connection, SLICE_LITERAL(sql), ret);
    }
    backend->rollback(connection);
    return err;
}

enum err store_transfer_check(struct store_connection *connection, struct err_detail *detail)
{
    bool is_there = false;
    enum err err = is_marked(connection, &is_there);
    if (err == ERR_OK && is_there) {
        err_detail_set(detail, "a migration into this database did not finish: run weir "
                               "migrate-store again");
        err = ERR_CORRUPT;
    } else if (err != ERR_OK) {
        err_detail_set(detail, "read it: %s", err_text(err));
    }
    return err;
}

static enum err check_empty(struct transfer *t)
{
    char sql[STORE_NAME_BYTES + 32];
    bool is_there = false;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < t->catalogue->count && err == ERR_OK && !is_there; i++) {
        (void)snprintf(sql, sizeof(sql), "SELECT 1 FROM \"%s\" LIMIT 1",
                       t->catalogue->tables[i].name);
        err = has_row(t->to, slice_from_text(sql), &is_there);
    }
    if (err == ERR_OK && is_there) {
        err_detail_set(t->detail, "it is not empty: name a database of its own");
        err = ERR_EXISTS;
    }
    return err;
}

static enum err set_mark(struct store_connection *connection)
{
    static const uint8_t value[] = {1};
    struct store_statement *statement = NULL;
    enum err err = store_prepare(
        connection, "INSERT INTO secrets (name, value) VALUES ('store.unfinished', $1)",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_blob(statement, 1, slice_make(value, sizeof(value)));
    return store_execute(statement);
}

/* The target becomes an empty database with the mark, durably, or is refused. */
static enum err take_target(struct transfer *t)
{
    const struct store_backend *backend = t->to->backend;
    bool is_there = false;
    enum err err = is_marked(t->to, &is_there);
    if (err == ERR_OK) {
        err = backend->begin_write(t->to, true);
    }
    if (err == ERR_OK) {
        err = is_there ? backend->loader->clear(t->to, t->catalogue) : check_empty(t);
    }
    if (err == ERR_OK) {
        err = set_mark(t->to);
    }
    if (err == ERR_OK) {
        err = backend->commit(t->to);
    }
    backend->rollback(t->to);
    return fail(t, t->to, err, "prepare it");
}

static enum err finish_target(struct transfer *t)
{
    const struct store_backend *backend = t->to->backend;
    bool is_complete = false;
    enum err err = backend->begin_write(t->to, true);
    if (err == ERR_OK) {
        err = backend->loader->finish(t->to, t->catalogue);
    }
    if (err == ERR_OK) {
        err = run_plain(t->to, "DELETE FROM secrets WHERE name = 'store.unfinished'");
    }
    if (err == ERR_OK) {
        err = backend->commit(t->to);
    }
    backend->rollback(t->to);
    if (err == ERR_OK) {
        err = backend->checkpoint(t->to, &is_complete);
    }
    return fail(t, t->to, err, "finish it");
}

/* --- rows ------------------------------------------------------------------------------------- */

static enum err read_sql(const struct store_table *table, struct buffer *to)
{
    enum err err = buffer_append_text(to, "SELECT ");
    if (err == ERR_OK) {
        err = store_load_columns(table, to);
    }
    if (err == ERR_OK) {
        err = buffer_printf(to, " FROM \"%s\"", table->name);
    }
    if (err == ERR_OK && strcmp(table->name, "secrets") == 0) {
        err = buffer_append_text(to, " WHERE name <> 'store.unfinished'");
    }
    for (uint32_t i = 0; i < table->key_count && err == ERR_OK; i++) {
        err = buffer_printf(to, "%s\"%s\"", i == 0 ? " ORDER BY " : ", ",
                            table->columns[table->keys[i]].name);
    }
    return err;
}

/* Texts and blobs lie with the statement until its next step. */
static void read_value(struct store_statement *statement, int column, enum store_kind kind,
                       struct store_value *ret)
{
    *ret = (struct store_value){.is_null = store_column_is_null(statement, column)};
    if (ret->is_null) {
        return;
    }
    if (kind == STORE_KIND_I64) {
        ret->number = store_column_i64(statement, column);
    } else if (kind == STORE_KIND_DOUBLE) {
        ret->real = store_column_double(statement, column);
    } else {
        ret->bytes = store_column_bytes(statement, column);
    }
}

static uint64_t hash_row(const struct store_table *table, const struct store_value *row)
{
    uint64_t hash = 0;
    for (uint32_t i = 0; i < table->column_count; i++) {
        bool is_double = table->columns[i].kind == STORE_KIND_DOUBLE;
        /* SQLite keeps no sign of a zero. */
        double real = is_double && row[i].real != 0.0 ? row[i].real : 0.0;
        uint64_t parts[3] = {row[i].is_null, row[i].bytes.size, (uint64_t)row[i].number};
        if (is_double) {
            memcpy(&parts[2], &real, sizeof(real));
        } else if (row[i].bytes.data != NULL) {
            parts[2] = 0;
        }
        hash = hash_xxh3(parts, sizeof(parts), hash);
        if (row[i].bytes.size > 0) {
            hash = hash_xxh3(row[i].bytes.data, row[i].bytes.size, hash);
        }
    }
    return hash;
}

static void show(struct transfer *t)
{
    t->watch->on_progress(t->done, t->all, t->watch->context);
}

/* Every row of a table, one after the other. */
static enum err each_row(struct transfer *t, struct store_connection *connection,
                         const struct store_table *table, struct sum *sum,
                         enum err (*on_row)(struct transfer *t, const struct store_table *table,
                                            const struct store_value *row))
{
    struct store_value row[STORE_COLUMNS_MAX];
    struct store_statement *statement = NULL;
    struct buffer sql;
    bool is_there = true;
    buffer_init(&sql, SQL_BYTES);
    enum err err = read_sql(table, &sql);
    if (err == ERR_OK) {
        err = store_prepare_text(connection, buffer_slice(&sql), &statement);
    }
    buffer_finish(&sql);
    while (err == ERR_OK) {
        err = store_step(statement, &is_there);
        if (err != ERR_OK || !is_there) {
            break;
        }
        for (uint32_t i = 0; i < table->column_count; i++) {
            read_value(statement, (int)i, table->columns[i].kind, &row[i]);
        }
        sum->rows++;
        sum->hash += hash_row(table, row);
        err = on_row != NULL ? on_row(t, table, row) : ERR_OK;
        if (++t->done % BATCH_ROWS == 0) {
            show(t);
        }
    }
    return fail(t, connection, err, table->name);
}

/* --- batches ---------------------------------------------------------------------------------- */

static struct store_event event_of(const struct store_value *row)
{
    uint64_t sequence = (uint64_t)row[EVENT_SEQUENCE].number;
    return (struct store_event){.type = row[EVENT_TYPE].bytes,
                                .payload = row[EVENT_PAYLOAD].bytes,
                                .dedup_id = row[EVENT_DEDUP_ID].bytes,
                                .subject = row[EVENT_SUBJECT].bytes,
                                .source = row[EVENT_SOURCE].bytes,
                                .app = row[EVENT_APP].bytes,
                                .attributes = row[EVENT_ATTRIBUTES].bytes,
                                .id = row[EVENT_ID].bytes.data,
                                .occurred_ms = row[EVENT_OCCURRED_MS].number,
                                .created_ms = row[EVENT_CREATED_MS].number,
                                .org = sequence >> STORE_ORG_SHIFT,
                                .position = (uint64_t)row[EVENT_POSITION].number,
                                .sequence = sequence};
}

static bool is_events(const struct store_table *table)
{
    return strcmp(table->name, "events") == 0;
}

static enum err load(struct transfer *t, const struct store_table *table,
                     const struct store_value *values, uint32_t count)
{
    const struct store_loader *loader = t->to->backend->loader;
    if (!is_events(table)) {
        return loader->rows(t->to, &(struct store_rows){table, values, count});
    }
    for (uint32_t i = 0; i < count; i++) {
        t->events[i] = event_of(values + (size_t)i * table->column_count);
    }
    struct store_packed *packed = NULL;
    enum err err = store_pack_all(t->events, count, &packed);
    if (err == ERR_OK) {
        err = loader->events(t->to, packed, count);
    }
    mem_free(packed);
    return err == ERR_TOO_LARGE ? ERR_REFUSED : err;
}

static enum err write_rows(struct transfer *t, const struct store_table *table,
                           const struct store_value *values, uint32_t count)
{
    const struct store_backend *backend = t->to->backend;
    enum err err = backend->begin_write(t->to, false);
    if (err == ERR_OK) {
        err = load(t, table, values, count);
    }
    if (err == ERR_OK) {
        err = backend->commit(t->to);
    }
    char why[256];
    (void)snprintf(why, sizeof(why), "%s", err == ERR_OK ? "" : backend->error_text(t->to));
    backend->rollback(t->to);
    if (err != ERR_OK) {
        err_detail_set(t->detail, "%s: %s", table->name, why[0] != '\0' ? why : err_text(err));
    }
    return err;
}

/* "org 1, series 4, time_ms 1700000000000" */
static void name_row(const struct store_table *table, const struct store_value *row, char *to,
                     size_t size)
{
    size_t used = 0;
    to[0] = '\0';
    for (uint32_t i = 0; i < table->key_count && used < size; i++) {
        const struct store_column *column = &table->columns[table->keys[i]];
        if (column->kind == STORE_KIND_I64) {
            int more = snprintf(to + used, size - used, "%s%s %" PRId64, i == 0 ? "" : ", ",
                                column->name, row[table->keys[i]].number);
            used += more > 0 ? (size_t)more : 0;
        }
    }
}

/* One by one, to name the first row that the engine cannot hold. */
static enum err find_refused(struct transfer *t, const struct store_table *table)
{
    char name[128];
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < t->count && err == ERR_OK; i++) {
        const struct store_value *row = t->values + (size_t)i * table->column_count;
        err = write_rows(t, table, row, 1);
        if (err == ERR_REFUSED) {
            name_row(table, row, name, sizeof(name));
            err_detail_prefix(t->detail, "the row %s cannot be kept there", name);
        }
    }
    return err == ERR_OK ? ERR_REFUSED : err;
}

static enum err flush(struct transfer *t, const struct store_table *table)
{
    const struct store_backend *backend = t->to->backend;
    bool is_complete = false;
    if (t->count == 0) {
        return ERR_OK;
    }
    enum err err = write_rows(t, table, t->values, t->count);
    if (err == ERR_REFUSED) {
        err = find_refused(t, table);
    }
    if (err == ERR_OK && backend->checkpoint_bytes(t->to) > CHECKPOINT_BYTES) {
        err = backend->checkpoint(t->to, &is_complete);
    }
    t->count = 0;
    t->bytes = 0;
    mem_arena_reset(t->arena);
    return err;
}

static enum err keep_row(struct transfer *t, const struct store_table *table,
                         const struct store_value *row)
{
    struct store_value *to = t->values + (size_t)t->count * table->column_count;
    for (uint32_t i = 0; i < table->column_count; i++) {
        to[i] = row[i];
        if (row[i].bytes.data != NULL) {
            /* One more: what is empty has an address too. */
            uint8_t *bytes = mem_arena_try_alloc(t->arena, row[i].bytes.size + 1);
            if (bytes == NULL) {
                err_detail_set(t->detail, "%s: no memory for a row", table->name);
                return ERR_NO_MEMORY;
            }
            memcpy(bytes, row[i].bytes.data, row[i].bytes.size);
            to[i].bytes.data = bytes;
            t->bytes += row[i].bytes.size;
        }
    }
    t->count++;
    return t->count == BATCH_ROWS || t->bytes >= BATCH_BYTES ? flush(t, table) : ERR_OK;
}

/* --- the whole -------------------------------------------------------------------------------- */

static enum err count_rows(struct transfer *t)
{
    char sql[STORE_NAME_BYTES + 32];
    struct store_statement *statement = NULL;
    bool is_there = false;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < t->catalogue->count && err == ERR_OK; i++) {
        (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM \"%s\"",
                       t->catalogue->tables[i].name);
        err = store_prepare_text(t->from, slice_from_text(sql), &statement);
        if (err == ERR_OK) {
            err = store_step(statement, &is_there);
        }
        if (err == ERR_OK) {
            assert(is_there);
            t->all += (uint64_t)store_column_i64(statement, 0);
            store_reset(statement);
        }
    }
    return fail(t, t->from, err, "count rows");
}

static enum err copy_all(struct transfer *t)
{
    const struct store_backend *backend = t->from->backend;
    enum err err = backend->begin_read(t->from);
    if (err == ERR_OK) {
        err = count_rows(t);
    }
    t->all *= 2;
    for (uint32_t i = 0; i < t->catalogue->count && err == ERR_OK; i++) {
        const struct store_table *table = &t->catalogue->tables[i];
        err = each_row(t, t->from, table, &t->sums[i], keep_row);
        if (err == ERR_OK) {
            err = flush(t, table);
        }
    }
    show(t);
    backend->rollback(t->from);
    return err;
}

static enum err compare_all(struct transfer *t, struct store_connection *reader)
{
    const struct store_backend *backend = reader->backend;
    enum err err = fail(t, reader, backend->begin_read(reader), "read it");
    for (uint32_t i = 0; i < t->catalogue->count && err == ERR_OK; i++) {
        const struct store_table *table = &t->catalogue->tables[i];
        const struct sum *sum = &t->sums[i];
        struct sum found = {0};
        err = each_row(t, reader, table, &found, NULL);
        if (err == ERR_OK && (found.rows != sum->rows || found.hash != sum->hash)) {
            err_detail_set(
                t->detail,
                "%s is not the same on both sides: %" PRIu64 " rows here, %" PRIu64 " there%s",
                table->name, sum->rows, found.rows, found.rows == sum->rows ? ", other bytes" : "");
            err = ERR_CORRUPT;
        }
    }
    show(t);
    backend->rollback(reader);
    return err;
}

static void name_place(const char *url, char *to, size_t size)
{
    if (store_url_is_postgres(url)) {
        store_postgres_target(url, to, size);
    } else {
        (void)snprintf(to, size, "%s", url);
    }
}

/* A connection that reads, with all the time that it wants. */
static enum err open_reader(const struct store_options *options, const struct store_connection *as,
                            struct store_connection **ret, struct err_detail *detail)
{
    enum err err = as->backend->open(ret, options, STORE_ROLE_READER, detail);
    if (err == ERR_OK) {
        as->backend->job_begin(*ret, clock_mono_ns() + LONG_NS);
    }
    return err;
}

static enum err open_from(const struct store_options *options, struct store_connection **ret,
                          struct err_detail *detail)
{
    struct store_connection *writer = NULL;
    enum err err = store_connect(&writer, options, true, detail);
    if (err == ERR_OK) {
        err = store_transfer_check(writer, detail);
    }
    if (err == ERR_OK) {
        err = open_reader(options, writer, ret, detail);
    }
    if (writer != NULL) {
        writer->backend->close(writer);
    }
    return err;
}

/* Both are found fit. */
static enum err open_both(struct transfer *t, const struct store_options *from,
                          const struct store_options *to)
{
    char place[128];
    name_place(from->url, place, sizeof(place));
    enum err err = open_from(from, &t->from, t->detail);
    if (err == ERR_OK) {
        name_place(to->url, place, sizeof(place));
        err = store_connect(&t->to, to, false, t->detail);
    }
    if (err == ERR_OK) {
        err = take_target(t);
    }
    if (err != ERR_OK) {
        err_detail_prefix(t->detail, "%s", place);
    }
    return err;
}

static enum err transfer_run(struct transfer *t, const struct store_options *to)
{
    struct store_connection *reader = NULL;
    char place[128];
    name_place(to->url, place, sizeof(place));
    enum err err = copy_all(t);
    if (err == ERR_OK) {
        err = open_reader(to, t->to, &reader, t->detail);
    }
    if (err == ERR_OK) {
        err = compare_all(t, reader);
    }
    if (err == ERR_OK) {
        err = finish_target(t);
    }
    if (reader != NULL) {
        reader->backend->close(reader);
    }
    if (err != ERR_OK) {
        err_detail_prefix(t->detail, "%s", place);
    }
    return err;
}

/* Of events this file knows the columns: a new one is not to be left out. */
static void check_events(const struct store_catalogue *catalogue)
{
    for (uint32_t i = 0; i < catalogue->count; i++) {
        const struct store_table *table = &catalogue->tables[i];
        assert(!is_events(table) || table->column_count == EVENT_COLUMNS);
        for (uint32_t k = 0; k < EVENT_COLUMNS && is_events(table); k++) {
            assert(strcmp(table->columns[k].name, event_names[k]) == 0);
        }
    }
}

enum err store_transfer(const struct store_options *from, const struct store_options *to,
                        const struct store_transfer_watch *watch, uint64_t *ret_rows,
                        struct err_detail *detail)
{
    struct transfer t = {.catalogue = store_catalogue_create(),
                         .arena = mem_arena_create(ARENA_BLOCK, BATCH_BYTES_MAX),
                         .values = mem_alloc_array((size_t)BATCH_ROWS * STORE_COLUMNS_MAX,
                                                   sizeof(struct store_value)),
                         .events = mem_alloc_array(BATCH_ROWS, sizeof(struct store_event)),
                         .watch = watch,
                         .detail = detail};
    check_events(t.catalogue);
    enum err err = open_both(&t, from, to);
    if (err == ERR_OK) {
        err = watch->on_ready(watch->context, detail);
    }
    if (err == ERR_OK) {
        err = transfer_run(&t, to);
    }
    if (t.from != NULL) {
        t.from->backend->close(t.from);
    }
    if (t.to != NULL) {
        t.to->backend->close(t.to);
    }
    if (err == ERR_OK) {
        *ret_rows = t.done / 2;
    }
    mem_free(t.events);
    mem_free(t.values);
    mem_arena_destroy(t.arena);
    mem_free(t.catalogue);
    return err;
}
