/* Statements of the SQLite backend. "$1" is to SQLite a name, so each statement keeps a map from
 * our numbers to the engine's.
 *
 * Happy path: bind, step, and the end resets it.
 * Failure modes: a step that fails resets the statement and gives the mapped error; the transaction
 * is for the job's owner to roll back. Binding cannot fail but for memory or a wrong number, and
 * then the step fails. */
#include "store/sqlite.h"

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

void store_sqlite_statement_destroy(struct store_statement *statement)
{
    struct sqlite_statement *s = statement_from(statement);
    (void)sqlite3_finalize(s->statement); /* repeats the last step's error, which was given */
    mem_free(s);
}

enum err store_sqlite_statement_create(struct store_connection *connection, struct slice sql,
                                       struct store_statement **ret)
{
    struct sqlite_connection *c = sqlite_from(connection);
    enum err err = ERR_OK;
    struct sqlite_statement *s = mem_alloc(sizeof(*s));
    s->connection = c;
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
    *ret = &s->base;
    return ERR_OK;
out:
    store_sqlite_statement_destroy(&s->base);
    return err;
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
    list_remove(&statement->running);
    (void)sqlite3_reset(s->statement); /* repeats the last step's error, which was given */
    (void)sqlite3_clear_bindings(s->statement);
}

enum err store_sqlite_step(struct store_statement *statement, bool *ret_row)
{
    struct sqlite_statement *s = statement_from(statement);
    int code = sqlite3_step(s->statement);
    if (code == SQLITE_ROW && !store_statement_is_running(statement)) {
        store_statements_run(&s->connection->base, statement);
    }
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
