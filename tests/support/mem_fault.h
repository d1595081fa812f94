/* Memory faults: replaces base/mem.c by linking ("link: sys_fault.c mem_fault.c"); mem_try_alloc,
 * mem_try_realloc and an arena's further blocks are refused by the countdown of the fault loop, as
 * calls of the kind FAULT_MEMORY. mem_alloc ends the program by contract and is left alone.
 *
 * Thread: any.
 * Memory: as base/mem.h.
 * Errors: as base/mem.h. */
#pragma once
#include "support/sys_fault.h"

#include <stdint.h>

/* Allocations that are not freed yet: equal before and after a story, nothing was leaked. */
int64_t mem_fault_live_count(void);
