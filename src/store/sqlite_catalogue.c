/* The catalogue: SQLite reads the schema for us, in a database in memory.
 *
 * Failure modes: none but a schema that is wrong, which no test would survive. */
#include "store/catalogue.h"
#include "store/schema.h"

#include "base/mem.h"

#include <assert.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static void read_name(sqlite3_stmt *statement, char to[STORE_NAME_BYTES])
{
    int size =
        snprintf(to, STORE_NAME_BYTES, "%s", (const char *)sqlite3_column_text(statement, 0));
    assert(size > 0 && size < (int)STORE_NAME_BYTES);
}

static enum store_kind kind_of(const char *type)
{
    if (strcmp(type, "INTEGER") == 0) {
        return STORE_KIND_I64;
    }
    if (strcmp(type, "REAL") == 0) {
        return STORE_KIND_DOUBLE;
    }
    if (strcmp(type, "TEXT") == 0) {
        return STORE_KIND_TEXT;
    }
    assert(strcmp(type, "BLOB") == 0);
    return STORE_KIND_BLOB;
}

static void read_columns(sqlite3 *db, struct store_table *table)
{
    sqlite3_stmt *statement = NULL;
    int code = sqlite3_prepare_v2(
        db, "SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid", -1, &statement, NULL);
    assert(code == SQLITE_OK);
    code = sqlite3_bind_text(statement, 1, table->name, -1, SQLITE_STATIC);
    assert(code == SQLITE_OK);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        assert(table->column_count < STORE_COLUMNS_MAX);
        struct store_column *column = &table->columns[table->column_count];
        read_name(statement, column->name);
        column->kind = kind_of((const char *)sqlite3_column_text(statement, 1));
        int key = sqlite3_column_int(statement, 2); /* from 1; 0: not of the key */
        assert(key >= 0 && key <= (int)STORE_KEYS_MAX);
        if (key > 0) {
            table->keys[key - 1] = table->column_count;
            table->key_count++;
        }
        table->column_count++;
    }
    assert(table->column_count > 0 && table->key_count > 0);
    (void)sqlite3_finalize(statement); /* its error was met above */
}

struct store_catalogue *store_catalogue_create(void)
{
    struct store_catalogue *catalogue = mem_alloc(sizeof(*catalogue));
    sqlite3_stmt *statement = NULL;
    sqlite3 *db = NULL;
    int code = sqlite3_open_v2(":memory:", &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, NULL);
    for (const struct store_schema_file *file = store_schema_sqlite; file->name != NULL; file++) {
        code = code == SQLITE_OK ? sqlite3_exec(db, file->sql, NULL, NULL, NULL) : code;
    }
    if (code == SQLITE_OK) {
        code = sqlite3_prepare_v2(db,
                                  "SELECT name FROM sqlite_schema WHERE type = 'table' AND name"
                                  " NOT LIKE 'sqlite%' AND name NOT IN ('event_ids',"
                                  " 'event_subjects') ORDER BY rowid",
                                  -1, &statement, NULL);
    }
    assert(code == SQLITE_OK);
    while (sqlite3_step(statement) == SQLITE_ROW) {
        assert(catalogue->count < STORE_TABLES_MAX);
        struct store_table *table = &catalogue->tables[catalogue->count++];
        read_name(statement, table->name);
        read_columns(db, table);
    }
    assert(catalogue->count > 0);
    (void)sqlite3_finalize(statement); /* as above */
    (void)sqlite3_close(db);           /* nothing was to be kept */
    return catalogue;
}
