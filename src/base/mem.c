/* Mem: the two doors to memory, and the arena.
 *
 * An arena is a list of blocks, each a header with its bytes behind it; memory is handed out from
 * the newest block by moving one number. The first block is made with the arena and survives every
 * reset, so a request that fits in it allocates nothing.
 *
 * Happy path: the size is rounded up to 16, it fits in the newest block, the number moves.
 * Failure modes: bytes_max would be passed, or no memory for another block: NULL, and the arena is
 * as it was. */
#include "base/mem.h"

#include <assert.h>
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEM_ALIGNMENT 16u
#define MEM_LARGE     (1 << 20)
#define MEM_TRIM      (4 << 20)

struct mem_block {
    struct mem_block *previous;
    size_t capacity;
    size_t used;
    size_t unused_padding; /* keeps the bytes behind the header 16-byte aligned */
};

static_assert(sizeof(struct mem_block) % MEM_ALIGNMENT == 0, "bytes behind a block are aligned");

struct mem_arena {
    struct mem_block *newest;
    size_t bytes_max;
    size_t bytes_held; /* capacities of all blocks */
};

/* Without memory nothing that allocates may be called: only the raw write. */
static _Noreturn void mem_end(void)
{
    static const char text[] = "weir: out of memory\n";
    ssize_t written = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)written; /* the program ends in either case */
    abort();
}

void mem_start(void)
{
    /* Left alone, the first large block that is freed makes the allocator keep all that follow. It
     * is a request: an allocator that does not know it only keeps more. No other thread runs yet.
     */
    (void)mallopt(M_MMAP_THRESHOLD, MEM_LARGE); /* NOLINT(concurrency-mt-unsafe) */
    (void)mallopt(M_TRIM_THRESHOLD, MEM_TRIM);  /* NOLINT(concurrency-mt-unsafe) */
}

void mem_trim(void)
{
    (void)malloc_trim(0); /* whether anything was given back */
}

void *mem_alloc(size_t size)
{
    return mem_alloc_array(1, size);
}

void *mem_alloc_array(size_t count, size_t size)
{
    bool is_empty = count == 0 || size == 0;
    void *memory = is_empty ? calloc(1, 1) : calloc(count, size);
    if (memory == NULL) {
        mem_end();
    }
    return memory;
}

void *mem_try_alloc(size_t size)
{
    return malloc(size == 0 ? 1 : size);
}

void *mem_try_realloc(void *memory, size_t size)
{
    return realloc(memory, size == 0 ? 1 : size);
}

char *mem_copy_text(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = mem_alloc(size);
    memcpy(copy, text, size);
    return copy;
}

void mem_free(void *memory)
{
    free(memory);
}

void *mem_map(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        mem_end();
    }
    /* A huge page for each touched one would defeat the purpose; without the call it only costs
     * memory, so a kernel that does not know it is fine. */
    (void)madvise(memory, size, MADV_NOHUGEPAGE);
    return memory;
}

void mem_unmap(void *memory, size_t size)
{
    if (memory != NULL) {
        int result = munmap(memory, size);
        assert(result == 0);
    }
}

static void mem_block_init(struct mem_block *block, size_t capacity, struct mem_block *previous)
{
    *block = (struct mem_block){.previous = previous, .capacity = capacity};
}

struct mem_arena *mem_arena_create(size_t block_bytes, size_t bytes_max)
{
    assert(block_bytes <= bytes_max);
    struct mem_arena *arena = mem_alloc(sizeof(*arena));
    struct mem_block *block = mem_alloc(sizeof(*block) + block_bytes);
    mem_block_init(block, block_bytes, NULL);
    arena->newest = block;
    arena->bytes_max = bytes_max;
    arena->bytes_held = block_bytes;
    return arena;
}

/* A block that holds at least `size`; doubling keeps their number small. */
static struct mem_block *mem_arena_try_grow(struct mem_arena *arena, size_t size)
{
    size_t left = arena->bytes_max - arena->bytes_held;
    if (size > left) {
        return NULL;
    }
    size_t capacity = arena->newest->capacity * 2;
    capacity = capacity < size ? size : capacity;
    capacity = capacity > left ? left : capacity;
    struct mem_block *block = mem_try_alloc(sizeof(*block) + capacity);
    if (block == NULL) {
        return NULL;
    }
    mem_block_init(block, capacity, arena->newest);
    arena->newest = block;
    arena->bytes_held += capacity;
    return block;
}

void *mem_arena_try_alloc(struct mem_arena *arena, size_t size)
{
    if (size > arena->bytes_max) {
        return NULL;
    }
    size_t need = (size + MEM_ALIGNMENT - 1) & ~(size_t)(MEM_ALIGNMENT - 1);
    struct mem_block *block = arena->newest;
    /* `used` is a multiple of 16 except where the last bytes of a block were given out. */
    size_t left = block->used < block->capacity ? block->capacity - block->used : 0;
    if (size > left) {
        block = mem_arena_try_grow(arena, size);
        if (block == NULL) {
            return NULL;
        }
    }
    void *memory = (uint8_t *)(block + 1) + block->used;
    block->used += need;
    return memory;
}

void mem_arena_reset(struct mem_arena *arena)
{
    struct mem_block *block = arena->newest;
    while (block->previous != NULL) {
        struct mem_block *previous = block->previous;
        mem_free(block);
        block = previous;
    }
    block->used = 0;
    arena->newest = block;
    arena->bytes_held = block->capacity;
}

void mem_arena_destroy(struct mem_arena *arena)
{
    if (arena == NULL) {
        return;
    }
    mem_arena_reset(arena);
    mem_free(arena->newest);
    mem_free(arena);
}
