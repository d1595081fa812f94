/* Intake pool: three stacks of equal blocks over one mapping.
 *
 * Five eighths of the memory are large blocks, which hold any small body; a quarter are middle
 * ones, an eighth small ones. A size that has run out is served by the next larger one, so a flood
 * of slow small bodies takes what larger ones would have used, and never more than the whole. */
#include "intake/pool.h"

#include <assert.h>

#include "base/mem.h"

static const size_t intake_block_bytes[INTAKE_BLOCK_SIZES] = {
    INTAKE_BLOCK_SMALL_BYTES,
    INTAKE_BLOCK_MIDDLE_BYTES,
    INTAKE_BLOCK_LARGE_BYTES,
};
/* Eighths of the pool. */
static const uint64_t intake_block_share[INTAKE_BLOCK_SIZES] = {1, 2, 5};

void intake_pool_init(struct intake_pool *pool, uint64_t bytes)
{
    bytes = bytes < INTAKE_POOL_BYTES_MIN ? INTAKE_POOL_BYTES_MIN : bytes;
    pool->memory_bytes = 0;
    for (size_t i = 0; i < INTAKE_BLOCK_SIZES; i++) {
        uint64_t count = bytes / 8 * intake_block_share[i] / intake_block_bytes[i];
        pool->blocks[i].count = (uint32_t)count;
        pool->memory_bytes += (size_t)count * intake_block_bytes[i];
    }
    pool->memory = mem_map(pool->memory_bytes);
    uint8_t *base = pool->memory;
    for (size_t i = 0; i < INTAKE_BLOCK_SIZES; i++) {
        struct intake_blocks *blocks = &pool->blocks[i];
        blocks->base = base;
        blocks->block_bytes = intake_block_bytes[i];
        blocks->free = mem_alloc_array(blocks->count, sizeof(blocks->free[0]));
        blocks->free_count = blocks->count;
        for (uint32_t k = 0; k < blocks->count; k++) {
            blocks->free[k] = blocks->count - 1 - k;
        }
        base += blocks->count * blocks->block_bytes;
    }
}

void intake_pool_finish(struct intake_pool *pool)
{
    for (size_t i = 0; i < INTAKE_BLOCK_SIZES; i++) {
        mem_free(pool->blocks[i].free);
    }
    mem_unmap(pool->memory, pool->memory_bytes);
}

uint8_t *intake_pool_take(struct intake_pool *pool, size_t size, size_t *ret_size)
{
    assert(size <= INTAKE_BLOCK_LARGE_BYTES);
    for (size_t i = 0; i < INTAKE_BLOCK_SIZES; i++) {
        struct intake_blocks *blocks = &pool->blocks[i];
        if (blocks->block_bytes < size || blocks->free_count == 0) {
            continue;
        }
        blocks->free_count--;
        *ret_size = blocks->block_bytes;
        return blocks->base + blocks->free[blocks->free_count] * blocks->block_bytes;
    }
    return NULL;
}

void intake_pool_give(struct intake_pool *pool, const uint8_t *block)
{
    if (block == NULL) {
        return;
    }
    size_t i = 0;
    while (i + 1 < INTAKE_BLOCK_SIZES && block >= pool->blocks[i + 1].base) {
        i++;
    }
    struct intake_blocks *blocks = &pool->blocks[i];
    size_t number = (size_t)(block - blocks->base) / blocks->block_bytes;
    assert(block >= blocks->base && number < blocks->count);
    assert(blocks->base + number * blocks->block_bytes == block);
    assert(blocks->free_count < blocks->count);
    blocks->free[blocks->free_count++] = (uint32_t)number;
}

bool intake_pool_has_large(const struct intake_pool *pool)
{
    return pool->blocks[INTAKE_BLOCK_SIZES - 1].free_count > 0;
}

/* --- chain --------------------------------------------------------------------------------- */

struct intake_chain_block {
    struct intake_chain_block *next;
    size_t used;
    size_t size; /* of items */
    uint8_t items[];
};

void *intake_chain_add(struct intake_pool *pool, struct intake_chain *chain, size_t size)
{
    assert(size % 8 == 0);
    struct intake_chain_block *last = chain->last;
    if (last == NULL || last->size - last->used < size) {
        size_t bytes;
        uint8_t *block = intake_pool_take(pool, INTAKE_BLOCK_SMALL_BYTES, &bytes);
        if (block == NULL) {
            return NULL;
        }
        last = (struct intake_chain_block *)(void *)block;
        *last = (struct intake_chain_block){.size = bytes - sizeof(*last)};
        if (chain->last == NULL) {
            chain->first = last;
        } else {
            chain->last->next = last;
        }
        chain->last = last;
    }
    void *item = last->items + last->used;
    last->used += size;
    chain->count++;
    return item;
}

void intake_chain_clear(struct intake_pool *pool, struct intake_chain *chain)
{
    struct intake_chain_block *block = chain->first;
    while (block != NULL) {
        struct intake_chain_block *next = block->next;
        intake_pool_give(pool, (uint8_t *)block);
        block = next;
    }
    *chain = (struct intake_chain){NULL, NULL, 0};
}

struct intake_chain_walk intake_chain_begin(const struct intake_chain *chain)
{
    return (struct intake_chain_walk){chain->first, 0};
}

const void *intake_chain_next(struct intake_chain_walk *walk, size_t size)
{
    if (walk->block != NULL && walk->at == walk->block->used) {
        walk->block = walk->block->next;
        walk->at = 0;
    }
    if (walk->block == NULL) {
        return NULL;
    }
    const void *item = walk->block->items + walk->at;
    walk->at += size;
    return item;
}
