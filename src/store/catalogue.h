/* Catalogue: the tables of the schema and their columns, in the order in which they are made, so
 * that a row stands after the one it refers to. It is read from the SQL of the schema itself: a new
 * table is in it without anybody's doing.
 *
 * Thread: any.
 * Memory: the caller's, freed with mem_free.
 * Errors: none: the schema is ours. */
#pragma once
#include <stdint.h>

#define STORE_TABLES_MAX  64u
#define STORE_COLUMNS_MAX 32u
#define STORE_KEYS_MAX    8u
#define STORE_NAME_BYTES  48u

enum store_kind { STORE_KIND_I64, STORE_KIND_DOUBLE, STORE_KIND_TEXT, STORE_KIND_BLOB };

struct store_column {
    char name[STORE_NAME_BYTES];
    enum store_kind kind;
};

struct store_table {
    char name[STORE_NAME_BYTES];
    struct store_column columns[STORE_COLUMNS_MAX];
    uint32_t column_count;
    uint32_t keys[STORE_KEYS_MAX]; /* columns of the primary key, in its order */
    uint32_t key_count;
};

struct store_catalogue {
    struct store_table tables[STORE_TABLES_MAX];
    uint32_t count;
};

/* Without the tables that are made of another: event_ids and event_subjects are rows of events,
 * put down once more, and not on every engine tables. */
struct store_catalogue *store_catalogue_create(void);
