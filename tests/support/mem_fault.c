/* Memory faults: the real base/mem.c, compiled in with its allocator put behind the countdown, and
 * a count of what is held. */
#include "support/mem_fault.h"

#include <stdatomic.h>
#include <stdlib.h>

static atomic_int_fast64_t mem_fault_live;

static void *mem_fault_counted(void *memory)
{
    mem_fault_live += memory != NULL ? 1 : 0;
    return memory;
}

static void *mem_fault_calloc(size_t count, size_t size)
{
    return mem_fault_counted(calloc(count, size));
}

static void *mem_fault_malloc(size_t size)
{
    return fault_tick(FAULT_MEMORY) ? NULL : mem_fault_counted(malloc(size));
}

static void *mem_fault_realloc(void *memory, size_t size)
{
    if (fault_tick(FAULT_MEMORY)) {
        return NULL;
    }
    return memory == NULL ? mem_fault_counted(malloc(size)) : realloc(memory, size);
}

static void mem_fault_free(void *memory)
{
    mem_fault_live -= memory != NULL ? 1 : 0;
    free(memory);
}

int64_t mem_fault_live_count(void)
{
    return mem_fault_live;
}

#define calloc  mem_fault_calloc
#define malloc  mem_fault_malloc
#define realloc mem_fault_realloc
#define free    mem_fault_free
#include "../src/base/mem.c" /* NOLINT(bugprone-suspicious-include) */
