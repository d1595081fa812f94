/* Statements of the SQLite backend: prepared once per connection and kept.
 *
 * Constant texts are found by their address, in a table of the size of the program's own SQL; texts
 * made at run time by content, the least recently used goes. "$1" is to SQLite a name, so each
 * statement keeps a map from our numbers to the engine's.
 *
 * Happy path: prepare finds the statement, bind, step, and the end resets it.
 * Failure modes: a step that fails resets the statement and gives the mapped error; the transaction
 * is for the job's owner to roll back. Binding cannot fail but for memory or a wrong number, and
 * then the step fails. */
#include "store/sqlite.h"

#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>
#include <errno.h>

static struct sqlite_statement *statement_from(struct store_statement *statement)
{
    return (struct sqlite_statement *)statement;
}

/* The engine's primary codes; one that is not here says that the SQL itself is wrong. */
static const enum err primary_errors[] = {
    [SQLITE_CONSTRAINT] = ERR_REFUSED, [SQLITE_TOOBIG] = ERR_REFUSED,
    [SQLITE_MISMATCH] = ERR_REFUSED,   [SQLITE_BUSY] = ERR_BUSY,
    [SQLITE_LOCKED] = ERR_BUSY,        [SQLITE_SCHEMA] = ERR_BUSY,
    [SQLITE_ABORT] = ERR_BUSY,         [SQLITE_INTERRUPT] = ERR_BUSY,
    [SQLITE_FULL] = ERR_NO_SPACE,      [SQLITE_NOMEM] = ERR_NO_MEMORY,
    [SQLITE_CANTOPEN] = ERR_AWAY,      [SQLITE_READONLY] = ERR_PERMISSION,
    [SQLITE_PERM] = ERR_PERMISSION,    [SQLITE_AUTH] = ERR_PERMISSION,
    [SQLITE_NOTADB] = ERR_VERSION,     [SQLITE_CORRUPT] = ERR_CORRUPT,
    [SQLITE_IOERR] = ERR_IO,
};

enum err store_sqlite_err(const struct sqlite_connection *c, int code)
{
    size_t primary = (size_t)code & 0xff;
    if (primary == SQLITE_OK || primary == SQLITE_ROW || primary == SQLITE_DONE) {
        return ERR_OK;
    }
    if (primary == SQLITE_INTERRUPT && c->role == STORE_ROLE_READER) {
        return ERR_TIMEOUT;
    }
    if (code == SQLITE_IOERR_NOMEM) {
        return ERR_NO_MEMORY;
    }
    if (primary == SQLITE_IOERR && sqlite3_system_errno(c->db) == ENOSPC) {
        return ERR_NO_SPACE;
    }
    enum err err = ERR_OK;
    if (primary < sizeof(primary_errors) / sizeof(primary_errors[0])) {
        err = primary_errors[primary];
    }
    return err == ERR_OK ? ERR_INVALID : err;
}

static void statement_destroy(struct sqlite_statement *s)
{
    if (s != NULL) {
        (void)sqlite3_finalize(s->statement); /* repeats the last step's error, which was given */
        mem_free(s->text);
        mem_free(s);
    }
}

static enum err statement_create(struct sqlite_connection *c, struct slice sql, bool is_constant,
                                 struct sqlite_statement **ret)
{
    enum err err = ERR_OK;
    struct sqlite_statement *s = mem_alloc(sizeof(*s));
    s->base.backend = &store_sqlite;
    s->connection = c;
    if (is_constant) {
        s->address = (const char *)sql.data;
    } else {
        s->text = mem_alloc(sql.size + 1);
        memcpy(s->text, sql.data, sql.size);
    }
    s->size = sql.size;
    int code = sqlite3_prepare_v3(c->db, (const char *)sql.data, (int)sql.size,
                                  SQLITE_PREPARE_PERSISTENT, &s->statement, NULL);
    if (code != SQLITE_OK) {
        err = store_sqlite_err(c, code);
        goto out;
    }
    int count = sqlite3_bind_parameter_count(s->statement);
    assert(count < (int)SQLITE_PARAMETERS_MAX);
    for (int i = 1; i <= count; i++) {
        uint64_t number = 0;
        const char *name = sqlite3_bind_parameter_name(s->statement, i);
        if (name == NULL || !slice_to_u64(slice_from_text(name + 1), &number) || number == 0 ||
            number >= SQLITE_PARAMETERS_MAX) {
            err = ERR_INVALID;
            goto out;
        }
        s->parameters[number] = (uint8_t)i;
    }
    *ret = s;
    s = NULL;
out:
    statement_destroy(s);
    return err;
}

static struct sqlite_statement **constant_slot(struct sqlite_connection *c, const char *address)
{
    uint64_t hash = hash_xxh3(&address, sizeof(address), 0);
    for (uint32_t i = 0; i < SQLITE_CONSTANTS_MAX; i++) {
        struct sqlite_statement **slot = &c->constants[(hash + i) & (SQLITE_CONSTANTS_MAX - 1)];
        if (*slot == NULL || (*slot)->address == address) {
            return slot;
        }
    }
    assert(false); /* there are fewer constant statements than SQLITE_CONSTANTS_MAX */
    return NULL;
}

/* The statement of this text, else the slot that may be taken for it, else NULL: all in use. */
static struct sqlite_statement **text_slot(struct sqlite_connection *c, struct slice sql)
{
    struct sqlite_statement **oldest = NULL;
    for (uint32_t i = 0; i < SQLITE_TEXTS_MAX; i++) {
        struct sqlite_statement **slot = &c->texts[i];
        if (*slot == NULL) {
            return slot;
        }
        if (slice_equal(slice_make((*slot)->text, (*slot)->size), sql)) {
            return slot;
        }
        if (sqlite3_stmt_busy((*slot)->statement) == 0 &&
            (oldest == NULL || (*slot)->used < (*oldest)->used)) {
            oldest = slot;
        }
    }
    if (oldest != NULL) {
        statement_destroy(*oldest);
        *oldest = NULL;
    }
    return oldest;
}

enum err store_sqlite_prepare(struct store_connection *connection, struct slice sql,
                              bool is_constant, struct store_statement **ret)
{
    struct sqlite_connection *c = sqlite_from(connection);
    if (sql.size > SQLITE_STATEMENT_TEXT_MAX) {
        return ERR_TOO_LARGE;
    }
    struct sqlite_statement **slot =
        is_constant ? constant_slot(c, (const char *)sql.data) : text_slot(c, sql);
    if (slot == NULL) {
        return ERR_FULL;
    }
    if (*slot == NULL) {
        enum err err = statement_create(c, sql, is_constant, slot);
        if (err != ERR_OK) {
            return err;
        }
    }
    struct sqlite_statement *s = *slot;
    assert(s != NULL);
    s->used = ++c->prepared;
    store_sqlite_reset(&s->base);
    *ret = &s->base;
    return ERR_OK;
}

/* A parameter that the text does not use is skipped: lists share their binding code. */
static int engine_number(const struct sqlite_statement *s, int parameter)
{
    assert(parameter > 0 && parameter < (int)SQLITE_PARAMETERS_MAX);
    return s->parameters[parameter];
}

void store_sqlite_bind_i64(struct store_statement *statement, int parameter, int64_t value)
{
    struct sqlite_statement *s = statement_from(statement);
    (void)sqlite3_bind_int64(s->statement, engine_number(s, parameter), value);
}

void store_sqlite_bind_double(struct store_statement *statement, int parameter, double value)
{
    struct sqlite_statement *s = statement_from(statement);
    (void)sqlite3_bind_double(s->statement, engine_number(s, parameter), value);
}

void store_sqlite_bind_text(struct store_statement *statement, int parameter, struct slice text)
{
    struct sqlite_statement *s = statement_from(statement);
    (void)sqlite3_bind_text64(s->statement, engine_number(s, parameter), (const char *)text.data,
                              text.size, SQLITE_STATIC, SQLITE_UTF8);
}

void store_sqlite_bind_blob(struct store_statement *statement, int parameter, struct slice bytes)
{
    struct sqlite_statement *s = statement_from(statement);
    (void)sqlite3_bind_blob64(s->statement, engine_number(s, parameter), bytes.data, bytes.size,
                              SQLITE_STATIC);
}

void store_sqlite_reset(struct store_statement *statement)
{
    struct sqlite_statement *s = statement_from(statement);
    (void)sqlite3_reset(s->statement); /* repeats the last step's error, which was given */
    (void)sqlite3_clear_bindings(s->statement);
}

enum err store_sqlite_step(struct store_statement *statement, bool *ret_row)
{
    struct sqlite_statement *s = statement_from(statement);
    int code = sqlite3_step(s->statement);
    if (code == SQLITE_ROW) {
        *ret_row = true;
        return ERR_OK;
    }
    enum err err = ERR_OK;
    if (code == SQLITE_DONE) {
        *ret_row = false;
    } else {
        err = store_sqlite_err(s->connection, sqlite3_extended_errcode(s->connection->db));
    }
    store_sqlite_reset(statement);
    return err;
}

int64_t store_sqlite_column_i64(struct store_statement *statement, int column)
{
    return sqlite3_column_int64(statement_from(statement)->statement, column);
}

double store_sqlite_column_double(struct store_statement *statement, int column)
{
    return sqlite3_column_double(statement_from(statement)->statement, column);
}

struct slice store_sqlite_column_bytes(struct store_statement *statement, int column)
{
    static const uint8_t empty = 0;
    sqlite3_stmt *s = statement_from(statement)->statement;
    if (sqlite3_column_type(s, column) == SQLITE_NULL) {
        return slice_make(NULL, 0);
    }
    const void *data = sqlite3_column_blob(s, column);
    int size = sqlite3_column_bytes(s, column);
    /* The engine gives no address for an empty value; a NULL has none either, so tell them apart.
     */
    return slice_make(data == NULL ? &empty : data, data == NULL ? 0 : (size_t)size);
}

bool store_sqlite_column_is_null(struct store_statement *statement, int column)
{
    return sqlite3_column_type(statement_from(statement)->statement, column) == SQLITE_NULL;
}

void store_sqlite_reset_all(struct sqlite_connection *c)
{
    for (uint32_t i = 0; i < SQLITE_CONSTANTS_MAX; i++) {
        if (c->constants[i] != NULL && sqlite3_stmt_busy(c->constants[i]->statement) != 0) {
            store_sqlite_reset(&c->constants[i]->base);
        }
    }
    for (uint32_t i = 0; i < SQLITE_TEXTS_MAX; i++) {
        if (c->texts[i] != NULL && sqlite3_stmt_busy(c->texts[i]->statement) != 0) {
            store_sqlite_reset(&c->texts[i]->base);
        }
    }
}

void store_sqlite_finalize_all(struct sqlite_connection *c)
{
    for (uint32_t i = 0; i < SQLITE_CONSTANTS_MAX; i++) {
        statement_destroy(c->constants[i]);
        c->constants[i] = NULL;
    }
    for (uint32_t i = 0; i < SQLITE_TEXTS_MAX; i++) {
        statement_destroy(c->texts[i]);
        c->texts[i] = NULL;
    }
}
