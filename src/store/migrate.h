/* Migrate: brings a database to the schema that this program knows.
 *
 * Thread: the owner, before any other thread uses the connection.
 * Memory: none kept.
 * Errors: ERR_VERSION a newer schema; each step is a transaction, so what failed can be tried
 * again. */
#pragma once
#include "store/backend.h"
#include "store/schema.h"

/* `files` as store_schema_sqlite. */
MUST_CHECK enum err store_migrate(struct store_connection *connection,
                                  const struct store_schema_file *files, struct err_detail *detail);
