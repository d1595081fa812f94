/* Scan by the instructions that only some processors have.
 *
 * Thread: any; pure.  Memory: none.  Errors: none. */
#pragma once
#include <stddef.h>

#include "json/scan.h"

/* NULL when this processor (or this architecture) has nothing wider than the base set. */
json_plain_fn json_plain_wide(void);
