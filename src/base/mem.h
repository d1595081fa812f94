/* Mem: two doors to memory, and the arena.
 *
 * Thread: mem_* any thread; an arena belongs to one thread.
 * Memory: what a function returns is the caller's, freed with mem_free; arena memory dies with
 *         arena reset or destroy, whole.
 * Errors: mem_alloc and friends are for sizes we chose: they never return NULL and end the program
 *         when memory is out. mem_try_* are for sizes that come from outside or are large: NULL
 *         must be checked. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* Zeroed. */
void *mem_alloc(size_t size);
/* Zeroed array; ends the program on overflow too. */
void *mem_alloc_array(size_t count, size_t size);
/* Not zeroed. */
MUST_CHECK void *mem_try_alloc(size_t size);
MUST_CHECK void *mem_try_realloc(void *memory, size_t size);
/* Copy of a NUL-terminated text of our own choosing (settings, paths). */
char *mem_copy_text(const char *text);
/* NULL is fine. */
void mem_free(void *memory);

/* Once, before any thread: large blocks are to go back to the system when they are freed, however
 * often they come and go. */
void mem_start(void);

/* After much was freed: whole pages that lie free between blocks in use go back to the system.
 * Takes milliseconds, in which others may wait for memory. */
void mem_trim(void);

/* Zeroed pages that cost nothing until they are touched: for tables whose bound is large and whose
 * use may stay small. Ends the program on failure. */
void *mem_map(size_t size);
/* `size` as given to mem_map. NULL is fine. */
void mem_unmap(void *memory, size_t size);

/* Arena: bump allocation for one request or one batch; freed whole. The first block is kept over
 * resets, so a steady state allocates nothing. */
struct mem_arena;
/* `block_bytes` is the first block's size; `bytes_max` bounds the whole arena. */
struct mem_arena *mem_arena_create(size_t block_bytes, size_t bytes_max);
/* 16-byte aligned, not zeroed; NULL when bytes_max or memory is reached. */
MUST_CHECK void *mem_arena_try_alloc(struct mem_arena *arena, size_t size);
/* Everything handed out is void; one block is kept. */
void mem_arena_reset(struct mem_arena *arena);
void mem_arena_destroy(struct mem_arena *arena);
