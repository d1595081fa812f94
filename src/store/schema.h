/* Schema: the SQL files of schema/<engine>/, compiled in, in name order. A file's first four digits
 * are the version that it makes.
 *
 * Thread, memory, errors: constants. */
#pragma once

struct store_schema_file {
    const char *name; /* "0002_events.sql" */
    const char *sql;
};

/* Each ends with a row of NULLs. Equal numbers mean the same schema on both engines. */
extern const struct store_schema_file store_schema_sqlite[];
extern const struct store_schema_file store_schema_postgres[];
