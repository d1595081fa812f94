/* Pool: memory of fixed total size for bodies that are still coming and for notes about batches.
 *
 * Thread: the loop's.
 * Memory: mapped once, touched only as it is used. Blocks of three sizes.
 * Errors: take gives NULL when no block is left that is large enough. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"

#define INTAKE_BLOCK_SMALL_BYTES  4096u
#define INTAKE_BLOCK_MIDDLE_BYTES ((size_t)32 * 1024)
#define INTAKE_BLOCK_LARGE_BYTES  ((size_t)LIMIT_SMALL_BODY_BYTES)
#define INTAKE_BLOCK_SIZES        3u
#define INTAKE_POOL_BYTES_MIN     ((size_t)1024 * 1024)

struct intake_blocks {
    uint8_t *base;
    size_t block_bytes;
    uint32_t count;
    uint32_t free_count;
    uint32_t *free; /* a stack of numbers: what was used last is used next */
};

struct intake_pool {
    struct intake_blocks blocks[INTAKE_BLOCK_SIZES];
    uint8_t *memory;
    size_t memory_bytes;
};

void intake_pool_init(struct intake_pool *pool, uint64_t bytes);
void intake_pool_finish(struct intake_pool *pool);
/* A block of at least `size` bytes (at most INTAKE_BLOCK_LARGE_BYTES), the smallest there is. */
uint8_t *intake_pool_take(struct intake_pool *pool, size_t size, size_t *ret_size);
/* NULL is fine. */
void intake_pool_give(struct intake_pool *pool, const uint8_t *block);
bool intake_pool_has_large(const struct intake_pool *pool);

/* Chain: items of one size, in order, in blocks of a pool. A zeroed chain is empty. */
struct intake_chain {
    struct intake_chain_block *first;
    struct intake_chain_block *last;
    uint32_t count;
};
/* An item to be filled; NULL: the pool is empty. `size` is a multiple of 8. */
void *intake_chain_add(struct intake_pool *pool, struct intake_chain *chain, size_t size);
void intake_chain_clear(struct intake_pool *pool, struct intake_chain *chain);
struct intake_chain_walk {
    const struct intake_chain_block *block;
    size_t at;
};
struct intake_chain_walk intake_chain_begin(const struct intake_chain *chain);
/* NULL behind the last. */
const void *intake_chain_next(struct intake_chain_walk *walk, size_t size);
