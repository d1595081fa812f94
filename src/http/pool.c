/* Two free lists, last in first out: the block used last is the one still in the cache.
 *
 * Happy path: take unlinks, give links.
 * Failure modes: memory is out: NULL. A list above its bound frees. */
#include "http/pool.h"

#include "base/mem.h"

#define SMALL_KEPT_MAX 1024u
#define LARGE_KEPT_MAX 16u

static struct http_block *take_from(struct http_block **list, uint32_t *count, size_t capacity)
{
    struct http_block *block = *list;
    if (block != NULL) {
        *list = block->next;
        (*count)--;
        return block;
    }
    block = mem_try_alloc(sizeof(*block) + capacity);
    if (block != NULL) {
        block->capacity = capacity;
    }
    return block;
}

struct http_block *http_pool_take(struct http_pool *pool, size_t size)
{
    if (size <= HTTP_BLOCK_SMALL) {
        return take_from(&pool->small, &pool->small_count, HTTP_BLOCK_SMALL);
    }
    if (size <= HTTP_BLOCK_LARGE) {
        return take_from(&pool->large, &pool->large_count, HTTP_BLOCK_LARGE);
    }
    struct http_block *none = NULL;
    uint32_t count = 0;
    return take_from(&none, &count, size);
}

static void give_to(struct http_block **list, uint32_t *count, uint32_t kept_max,
                    struct http_block *block)
{
    if (*count == kept_max) {
        mem_free(block);
        return;
    }
    block->next = *list;
    *list = block;
    (*count)++;
}

void http_pool_give(struct http_pool *pool, struct http_block *block)
{
    if (block == NULL) {
        return;
    }
    if (block->capacity == HTTP_BLOCK_SMALL) {
        give_to(&pool->small, &pool->small_count, SMALL_KEPT_MAX, block);
    } else if (block->capacity == HTTP_BLOCK_LARGE) {
        give_to(&pool->large, &pool->large_count, LARGE_KEPT_MAX, block);
    } else {
        mem_free(block);
    }
}

static void free_list(struct http_block *block)
{
    while (block != NULL) {
        struct http_block *next = block->next;
        mem_free(block);
        block = next;
    }
}

void http_pool_finish(struct http_pool *pool)
{
    free_list(pool->small);
    free_list(pool->large);
    *pool = (struct http_pool){0};
}
