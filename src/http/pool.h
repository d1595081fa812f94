/* Pool: blocks of bytes in two sizes, kept for the next who needs one, so that a steady state
 * allocates nothing and an idle connection holds nothing.
 *
 * Thread: one loop's.
 * Memory: a block belongs to whoever took it until it is given back.
 * Errors: http_pool_take gives NULL when memory is out. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

/* One request with its body, usually. Not a round number, so that the fields of many blocks do not
 * fall into the same cache sets. */
#define HTTP_BLOCK_SMALL 4000u
/* A head at its limit, or what one read of a body left over. */
#define HTTP_BLOCK_LARGE (64u << 10)

struct http_block {
    struct http_block *next; /* the pool's */
    size_t capacity;
    uint8_t data[];
};

struct http_pool {
    struct http_block *small;
    struct http_block *large;
    uint32_t small_count;
    uint32_t large_count;
};

/* A block of at least `size` bytes; sizes above the large one are allocated each time. */
MUST_CHECK struct http_block *http_pool_take(struct http_pool *pool, size_t size);
/* NULL is fine. */
void http_pool_give(struct http_pool *pool, struct http_block *block);
/* Frees what the pool holds. */
void http_pool_finish(struct http_pool *pool);
