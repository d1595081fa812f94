/* Statements of a connection: prepared once and kept.
 *
 * Constant texts are found by their address, in a table of the size of the program's own SQL; texts
 * made at run time by content, the least recently used that does not run goes.
 *
 * Happy path: prepare finds the statement and resets it.
 * Failure modes: an engine that refuses a text leaves nothing behind. */
#include "store/statements.h"

#include "base/hash.h"
#include "base/mem.h"

#include <assert.h>

static_assert((STORE_CONSTANTS_MAX & (STORE_CONSTANTS_MAX - 1)) == 0, "a power of two");

void store_connection_init(struct store_connection *connection, const struct store_backend *backend)
{
    connection->backend = backend;
    list_init(&connection->statements.running);
}

static struct store_statement **constant_slot(struct store_statements *all, const char *text)
{
    uint64_t hash = hash_xxh3(&text, sizeof(text), 0);
    for (uint32_t i = 0; i < STORE_CONSTANTS_MAX; i++) {
        struct store_statement **slot = &all->constants[(hash + i) & (STORE_CONSTANTS_MAX - 1)];
        if (*slot == NULL || (*slot)->text == text) {
            return slot;
        }
    }
    assert(false); /* there are fewer constant statements than STORE_CONSTANTS_MAX */
    return NULL;
}

static void destroy(struct store_statement **slot)
{
    struct store_statement *statement = *slot;
    if (statement != NULL) {
        char *copy = statement->copy;
        list_remove(&statement->running);
        statement->backend->statement_destroy(statement);
        mem_free(copy);
        *slot = NULL;
    }
}

/* The statement of this text, else the slot that may be taken for it, else NULL: all in use. */
static struct store_statement **text_slot(struct store_statements *all, struct slice sql)
{
    struct store_statement **oldest = NULL;
    for (uint32_t i = 0; i < STORE_TEXTS_MAX; i++) {
        struct store_statement **slot = &all->texts[i];
        if (*slot == NULL || slice_equal(slice_make((*slot)->text, (*slot)->size), sql)) {
            return slot;
        }
        if (!store_statement_is_running(*slot) &&
            (oldest == NULL || (*slot)->used < (*oldest)->used)) {
            oldest = slot;
        }
    }
    if (oldest != NULL) {
        destroy(oldest);
    }
    return oldest;
}

static enum err create(struct store_connection *connection, struct slice sql, bool is_constant,
                       struct store_statement **ret)
{
    const struct store_backend *backend = connection->backend;
    struct store_statement *statement = NULL;
    char *copy = NULL;
    if (!is_constant) {
        copy = mem_alloc(sql.size + 1);
        memcpy(copy, sql.data, sql.size);
        sql = slice_make(copy, sql.size);
    }
    enum err err = backend->statement_create(connection, sql, &statement);
    if (err != ERR_OK) {
        mem_free(copy);
        return err;
    }
    statement->backend = backend;
    statement->text = (const char *)sql.data;
    statement->copy = copy;
    statement->size = sql.size;
    *ret = statement;
    return ERR_OK;
}

enum err store_statements_prepare(struct store_connection *connection, struct slice sql,
                                  bool is_constant, struct store_statement **ret)
{
    struct store_statements *all = &connection->statements;
    if (sql.size > STORE_STATEMENT_TEXT_MAX) {
        return ERR_TOO_LARGE;
    }
    struct store_statement **slot =
        is_constant ? constant_slot(all, (const char *)sql.data) : text_slot(all, sql);
    if (slot == NULL) {
        return ERR_FULL;
    }
    if (*slot == NULL) {
        enum err err = create(connection, sql, is_constant, slot);
        if (err != ERR_OK) {
            return err;
        }
    }
    struct store_statement *statement = *slot;
    assert(statement != NULL);
    statement->used = ++all->prepared;
    statement->backend->reset(statement);
    *ret = statement;
    return ERR_OK;
}

void store_statements_run(struct store_connection *connection, struct store_statement *statement)
{
    assert(!store_statement_is_running(statement));
    list_push_back(&connection->statements.running, &statement->running);
}

void store_statements_reset(struct store_connection *connection)
{
    struct list_link *link = NULL;
    while ((link = list_first(&connection->statements.running)) != NULL) {
        struct store_statement *statement = LIST_CONTAINER(link, struct store_statement, running);
        statement->backend->reset(statement);
    }
}

void store_statements_destroy(struct store_connection *connection)
{
    for (uint32_t i = 0; i < STORE_CONSTANTS_MAX; i++) {
        destroy(&connection->statements.constants[i]);
    }
    for (uint32_t i = 0; i < STORE_TEXTS_MAX; i++) {
        destroy(&connection->statements.texts[i]);
    }
}
