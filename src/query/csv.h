/* Csv: cells of a table (RFC 4180) that no spreadsheet takes for a formula.
 *
 * Thread, memory: any; appends to the caller's buffer.  Errors: the buffer's. */
#pragma once
#include "base/buffer.h"

/* data NULL: an empty cell. */
MUST_CHECK enum err query_csv_cell(struct slice text, struct buffer *to);
