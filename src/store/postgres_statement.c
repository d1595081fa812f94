/* Statements of the PostgreSQL backend: prepared when they first run, by the types of what is bound
 * then, and kept by the session.
 *
 * A parameter that is NULL at the first run gets the type that the engine infers.
 * Numbers go as digits and come back binary; texts and blobs are binary both ways, so nothing is
 * escaped or copied twice.
 *
 * A statement's rows come at once, but for those of a reader's text made at run time: a list, which
 * may stop when its page is full of bytes. It gets a cursor and fetches as many rows as make about
 * half a page, by the size of those that it saw; so neither memory nor the network carries rows
 * that nobody looks at. The cursor ends with the transaction.
 *
 * Happy path: bind, step sends it, further steps give the rows, the
 * end resets it. Failure modes: an error ends the statement and leaves the transaction failed: what
 * follows in it gets the same error until it is rolled back. A session that was lost forgets its
 * statements; they are prepared anew in the next. */
#include "store/postgres.h"

#include "base/clock.h"
#include "base/mem.h"

#include <assert.h>
#include <stdio.h>

#define FETCH_BYTES      131072u
#define FETCH_ROWS_FIRST 32u
#define FETCH_ROWS_MIN   2u
#define FETCH_ROWS_MAX   1024u

static_assert(POSTGRES_PARAMETERS_MAX == 64, "one bit each");

static struct postgres_statement *statement_from(struct store_statement *statement)
{
    return (struct postgres_statement *)statement;
}

static void rows_drop(struct postgres_statement *s)
{
    PQclear(s->rows);
    s->rows = NULL;
}

/* The number after a $ at *i, which moves to its last digit; POSTGRES_PARAMETERS_MAX: too large. */
static uint32_t read_parameter(struct slice sql, size_t *i)
{
    uint32_t number = 0;
    while (*i + 1 < sql.size && sql.data[*i + 1] >= '0' && sql.data[*i + 1] <= '9') {
        number = number * 10 + (uint32_t)(sql.data[++*i] - '0');
        if (number >= POSTGRES_PARAMETERS_MAX) {
            return POSTGRES_PARAMETERS_MAX;
        }
    }
    return number;
}

/* Which $n stand in the text, outside of quotes. ERR_INVALID: a number out of bounds. */
static enum err find_parameters(struct postgres_statement *s, struct slice sql)
{
    uint8_t quote = '\0';
    for (size_t i = 0; i < sql.size; i++) {
        uint8_t byte = sql.data[i];
        if (quote != '\0') {
            if (byte == quote) {
                quote = '\0';
            }
        } else if (byte == '\'' || byte == '"') {
            quote = byte;
        } else if (byte == '$') {
            uint32_t number = read_parameter(sql, &i);
            if (number == POSTGRES_PARAMETERS_MAX) {
                return ERR_INVALID;
            }
            s->parameters |= UINT64_C(1) << number;
            s->parameter_count = number > s->parameter_count ? number : s->parameter_count;
        }
    }
    return ERR_OK;
}

/* The session forgets it; an error would only mean that the transaction has failed already. */
static void deallocate(struct postgres_connection *c, const struct postgres_statement *s)
{
    char sql[48];
    if (s->epoch == c->epoch && c->session != NULL && c->failed == ERR_OK) {
        (void)snprintf(sql, sizeof(sql), "DEALLOCATE w%u", s->number);
        (void)store_postgres_run(c, sql, NULL, 0);
    }
}

void store_postgres_statement_destroy(struct store_statement *statement)
{
    struct postgres_statement *s = statement_from(statement);
    deallocate(s->connection, s);
    rows_drop(s);
    mem_free(s->values);
    mem_free(s);
}

enum err store_postgres_statement_create(struct store_connection *connection, struct slice sql,
                                         struct store_statement **ret)
{
    struct postgres_statement *s = mem_alloc(sizeof(*s));
    s->connection = postgres_from(connection);
    enum err err = find_parameters(s, sql);
    if (err != ERR_OK) {
        mem_free(s);
        return err;
    }
    s->values = mem_alloc_array(s->parameter_count + 1u, sizeof(*s->values));
    *ret = &s->base;
    return ERR_OK;
}

/* --- binding ---------------------------------------------------------------------------------- */

/* A parameter that the text does not use is skipped: lists share their binding code. */
static struct postgres_value *value_of(struct store_statement *statement, int parameter)
{
    struct postgres_statement *s = statement_from(statement);
    assert(parameter > 0 && parameter < (int)POSTGRES_PARAMETERS_MAX);
    return (s->parameters >> (uint32_t)parameter & 1u) != 0 ? &s->values[parameter] : NULL;
}

void store_postgres_bind_i64(struct store_statement *statement, int parameter, int64_t value)
{
    struct postgres_value *to = value_of(statement, parameter);
    if (to != NULL) {
        to->type = POSTGRES_INT8;
        (void)snprintf(to->number, sizeof(to->number), "%lld", (long long)value);
    }
}

void store_postgres_bind_double(struct store_statement *statement, int parameter, double value)
{
    struct postgres_value *to = value_of(statement, parameter);
    if (to != NULL) {
        to->type = POSTGRES_FLOAT8;
        (void)snprintf(to->number, sizeof(to->number), "%.17g", value);
    }
}

static void bind_bytes(struct store_statement *statement, int parameter, struct slice bytes,
                       enum postgres_type type)
{
    struct postgres_value *to = value_of(statement, parameter);
    if (to != NULL) {
        to->type = bytes.data == NULL ? POSTGRES_UNKNOWN : type;
        to->bytes = bytes;
    }
}

void store_postgres_bind_text(struct store_statement *statement, int parameter, struct slice text)
{
    bind_bytes(statement, parameter, text, POSTGRES_TEXT);
}

void store_postgres_bind_blob(struct store_statement *statement, int parameter, struct slice bytes)
{
    bind_bytes(statement, parameter, bytes, POSTGRES_BYTEA);
}

void store_postgres_arguments(const struct postgres_statement *s, struct postgres_arguments *ret)
{
    for (uint32_t i = 0; i < s->parameter_count; i++) {
        const struct postgres_value *value = &s->values[i + 1];
        bool is_used = (s->parameters >> (i + 1) & 1u) != 0;
        /* One that does not stand in the text must have a type all the same. */
        ret->types[i] = is_used ? (Oid)value->type : (Oid)POSTGRES_TEXT;
        ret->formats[i] = value->type == POSTGRES_TEXT || value->type == POSTGRES_BYTEA;
        ret->sizes[i] = (int)value->bytes.size;
        if (value->type == POSTGRES_UNKNOWN) {
            ret->values[i] = NULL;
        } else if (ret->formats[i] != 0) {
            ret->values[i] = (const char *)value->bytes.data;
        } else {
            ret->values[i] = value->number;
        }
    }
}

/* --- running ---------------------------------------------------------------------------------- */

static enum err ensure_prepared(struct postgres_statement *s,
                                const struct postgres_arguments *arguments)
{
    struct postgres_connection *c = s->connection;
    char name[16];
    if (s->epoch == c->epoch) {
        return ERR_OK;
    }
    s->number = ++c->statements;
    (void)snprintf(name, sizeof(name), "w%u", s->number);
    if (PQsendPrepare(c->session, name, s->base.text, (int)s->parameter_count, arguments->types) ==
        0) {
        return store_postgres_fail(c, NULL);
    }
    enum err err = store_postgres_drain(c);
    if (err == ERR_OK) {
        s->epoch = c->epoch;
    }
    return err;
}

static uint64_t changes_of(PGresult *result)
{
    uint64_t changes = 0;
    return slice_to_u64(slice_from_text(PQcmdTuples(result)), &changes) ? changes : 0;
}

/* The next result, if it is one without error; rows go to the statement. */
static enum err take(struct postgres_statement *s)
{
    struct postgres_connection *c = s->connection;
    enum err err = store_postgres_await(c);
    if (err != ERR_OK) {
        return err;
    }
    PGresult *result = PQgetResult(c->session);
    ExecStatusType status = PQresultStatus(result);
    if (status == PGRES_TUPLES_OK) {
        c->changes = changes_of(result);
        s->rows = result;
        return ERR_OK;
    }
    if (status == PGRES_COMMAND_OK) {
        c->changes = changes_of(result);
    } else if (status != PGRES_EMPTY_QUERY) {
        err = store_postgres_fail(c, result);
    }
    PQclear(result);
    return err;
}

static enum err run_whole(struct postgres_statement *s, const struct postgres_arguments *arguments)
{
    struct postgres_connection *c = s->connection;
    char name[16];
    enum err err = ensure_prepared(s, arguments);
    if (err != ERR_OK) {
        return err;
    }
    (void)snprintf(name, sizeof(name), "w%u", s->number);
    if (PQsendQueryPrepared(c->session, name, (int)s->parameter_count, arguments->values,
                            arguments->sizes, arguments->formats, 1) == 0) {
        return store_postgres_fail(c, NULL);
    }
    err = take(s);
    enum err end = c->session == NULL ? err : store_postgres_drain(c);
    return err != ERR_OK ? err : end;
}

/* --- cursors ---------------------------------------------------------------------------------- */

/* As many rows as are about FETCH_BYTES. */
static uint32_t rows_to_fetch(const struct postgres_statement *s)
{
    uint32_t rows = s->row_bytes == 0 ? FETCH_ROWS_FIRST : FETCH_BYTES / s->row_bytes;
    if (rows < FETCH_ROWS_MIN) {
        return FETCH_ROWS_MIN;
    }
    return rows > FETCH_ROWS_MAX ? FETCH_ROWS_MAX : rows;
}

static void note_fetched(struct postgres_statement *s, uint32_t asked)
{
    size_t bytes = 0;
    uint32_t count = (uint32_t)PQntuples(s->rows);
    s->is_at_end = count < asked;
    for (uint32_t i = 0; i < count; i++) {
        for (int k = 0; k < PQnfields(s->rows); k++) {
            bytes += (size_t)PQgetlength(s->rows, (int)i, k);
        }
    }
    if (count > 0) {
        s->row_bytes = (uint32_t)(bytes / count) + 1;
    }
}

static enum err fetch(struct postgres_statement *s)
{
    struct postgres_connection *c = s->connection;
    char sql[64];
    uint32_t rows = rows_to_fetch(s);
    (void)snprintf(sql, sizeof(sql), "FETCH %u FROM c%u", rows, s->cursor);
    rows_drop(s);
    if (PQsendQueryParams(c->session, sql, 0, NULL, NULL, NULL, NULL, 1) == 0) {
        return store_postgres_fail(c, NULL);
    }
    enum err err = take(s);
    enum err end = c->session == NULL ? err : store_postgres_drain(c);
    if (err == ERR_OK && end == ERR_OK) {
        note_fetched(s, rows);
    }
    return err != ERR_OK ? err : end;
}

/* Both in one flight. */
static enum err declare_and_fetch(struct postgres_statement *s,
                                  const struct postgres_arguments *arguments)
{
    struct postgres_connection *c = s->connection;
    struct buffer sql;
    char second[64];
    uint32_t rows = rows_to_fetch(s);
    s->cursor = ++c->statements;
    (void)snprintf(second, sizeof(second), "FETCH %u FROM c%u", rows, s->cursor);
    buffer_init(&sql, STORE_STATEMENT_TEXT_MAX + 64);
    enum err err =
        buffer_printf(&sql, "DECLARE c%u NO SCROLL CURSOR FOR %s%c", s->cursor, s->base.text, '\0');
    if (err != ERR_OK) {
        goto out;
    }
    if (PQenterPipelineMode(c->session) == 0 ||
        PQsendQueryParams(c->session, (const char *)sql.data, (int)s->parameter_count,
                          arguments->types, arguments->values, arguments->sizes, arguments->formats,
                          1) == 0 ||
        PQsendQueryParams(c->session, second, 0, NULL, NULL, NULL, NULL, 1) == 0 ||
        PQpipelineSync(c->session) == 0) {
        err = store_postgres_fail(c, NULL);
        goto out;
    }
    err = take(s); /* of DECLARE */
    if (c->session != NULL) {
        PQclear(PQgetResult(c->session)); /* between two commands of a pipeline comes a NULL */
    }
    if (err == ERR_OK) {
        err = take(s);
    }
    if (c->session != NULL) {
        enum err end = store_postgres_drain_pipeline(c);
        err = err != ERR_OK ? err : end;
    }
    if (err == ERR_OK) {
        note_fetched(s, rows);
    }
out:
    buffer_finish(&sql);
    return err;
}

/* --- steps ------------------------------------------------------------------------------------ */

static enum err begin(struct postgres_statement *s)
{
    struct postgres_connection *c = s->connection;
    struct postgres_arguments arguments;
    if (c->failed != ERR_OK || c->session == NULL) {
        return c->failed != ERR_OK ? c->failed : ERR_AWAY;
    }
    if (c->deadline_ns != 0 && clock_mono_ns() > c->deadline_ns) {
        return ERR_TIMEOUT;
    }
    store_postgres_arguments(s, &arguments);
    store_statements_run(&c->base, &s->base);
    s->is_at_end = true;
    s->began_ns = clock_mono_ns();
    s->row = -1;
    bool has_cursor = c->role == STORE_ROLE_READER && s->base.copy != NULL && c->is_in_transaction;
    return has_cursor ? declare_and_fetch(s, &arguments) : run_whole(s, &arguments);
}

void store_postgres_reset(struct store_statement *statement)
{
    struct postgres_statement *s = statement_from(statement);
    if (store_statement_is_running(statement)) {
        list_remove(&statement->running);
        store_postgres_slow(s);
    }
    rows_drop(s);
    for (uint32_t i = 1; i <= s->parameter_count; i++) {
        s->values[i].type = POSTGRES_UNKNOWN;
        s->values[i].bytes = slice_make(NULL, 0);
    }
}

enum err store_postgres_step(struct store_statement *statement, bool *ret_row)
{
    struct postgres_statement *s = statement_from(statement);
    enum err err = store_statement_is_running(statement) ? ERR_OK : begin(s);
    if (err == ERR_OK && s->row + 1 >= PQntuples(s->rows) && !s->is_at_end) {
        s->row = -1;
        err = s->connection->session == NULL ? ERR_AWAY : fetch(s);
    }
    if (err == ERR_OK && s->row + 1 < PQntuples(s->rows)) {
        s->row++;
        *ret_row = true;
        return ERR_OK;
    }
    store_postgres_reset(statement);
    if (err == ERR_OK) {
        *ret_row = false;
    }
    return err;
}

/* --- columns ---------------------------------------------------------------------------------- */

static uint64_t read_number(const char *from, int size)
{
    uint64_t value = 0;
    for (int i = 0; i < size; i++) {
        value = value << 8u | (uint8_t)from[i];
    }
    return value;
}

/* A sum of whole numbers is a numeric: a count of digits to the base of 10,000, the weight of the
 * first, a sign and a scale, then the digits. What follows the point is left out. */
static int64_t read_numeric(const char *from)
{
    int count = (int16_t)read_number(from, 2);
    int weight = (int16_t)read_number(from + 2, 2);
    bool is_negative = read_number(from + 4, 2) == 0x4000;
    int64_t value = 0;
    for (int i = 0; i <= weight && i < 5; i++) {
        value = value * 10000 + (i < count ? (int64_t)read_number(from + 8 + (size_t)i * 2, 2) : 0);
    }
    return is_negative ? -value : value;
}

int64_t store_postgres_column_i64(struct store_statement *statement, int column)
{
    const struct postgres_statement *s = statement_from(statement);
    if (PQgetisnull(s->rows, s->row, column) != 0) {
        return 0;
    }
    const char *value = PQgetvalue(s->rows, s->row, column);
    int64_t number = 0;
    switch (PQftype(s->rows, column)) {
    case POSTGRES_BOOL:
        return value[0];
    case POSTGRES_INT2:
        return (int16_t)read_number(value, 2);
    case POSTGRES_INT4:
        return (int32_t)read_number(value, 4);
    case POSTGRES_INT8:
        return (int64_t)read_number(value, 8);
    case POSTGRES_NUMERIC:
        return read_numeric(value);
    case POSTGRES_FLOAT8:
        return (int64_t)store_postgres_column_double(statement, column);
    default:
        return slice_to_i64(slice_from_text(value), &number) ? number : 0;
    }
}

double store_postgres_column_double(struct store_statement *statement, int column)
{
    const struct postgres_statement *s = statement_from(statement);
    if (PQgetisnull(s->rows, s->row, column) != 0) {
        return 0.0;
    }
    const char *value = PQgetvalue(s->rows, s->row, column);
    if (PQftype(s->rows, column) == POSTGRES_FLOAT8) {
        uint64_t bits = read_number(value, 8);
        double number = 0.0;
        memcpy(&number, &bits, sizeof(number));
        return number;
    }
    if (PQftype(s->rows, column) == POSTGRES_FLOAT4) {
        uint32_t bits = (uint32_t)read_number(value, 4);
        float number = 0.0F;
        memcpy(&number, &bits, sizeof(number));
        return (double)number;
    }
    return (double)store_postgres_column_i64(statement, column);
}

struct slice store_postgres_column_bytes(struct store_statement *statement, int column)
{
    const struct postgres_statement *s = statement_from(statement);
    if (PQgetisnull(s->rows, s->row, column) != 0) {
        return slice_make(NULL, 0);
    }
    return slice_make(PQgetvalue(s->rows, s->row, column),
                      (size_t)PQgetlength(s->rows, s->row, column));
}

bool store_postgres_column_is_null(struct store_statement *statement, int column)
{
    const struct postgres_statement *s = statement_from(statement);
    return PQgetisnull(s->rows, s->row, column) != 0;
}
