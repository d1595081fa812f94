/* Transfer: the mark of a database that is being filled with another's rows.
 *
 * Thread: the owner of the connection, outside a transaction.
 * Memory: none.
 * Errors: ERR_CORRUPT: the mark is there; the detail says what to do. */
#pragma once
#include "store/backend.h"

MUST_CHECK enum err store_transfer_check(struct store_connection *connection,
                                         struct err_detail *detail);
