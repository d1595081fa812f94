/* Statements: those of one connection, prepared once and kept, whatever the engine.
 *
 * Thread: the owner of the connection.
 * Memory: the connection owns them; the text of a constant one stays where it is.
 * Errors: ERR_TOO_LARGE: the text; ERR_FULL: all that are kept run; else the engine's. */
#pragma once
#include "store/backend.h"

void store_connection_init(struct store_connection *connection,
                           const struct store_backend *backend);
/* `is_constant`: sql.data stays where it is and never changes. What was bound before is dropped. */
MUST_CHECK enum err store_statements_prepare(struct store_connection *connection, struct slice sql,
                                             bool is_constant, struct store_statement **ret);
/* By an engine: it has rows to give from here on, until its reset. */
void store_statements_run(struct store_connection *connection, struct store_statement *statement);
/* Resets all that run. */
void store_statements_reset(struct store_connection *connection);
void store_statements_destroy(struct store_connection *connection);
