/* Buffer: bytes that grow, up to a limit that must be named.
 *
 * Thread: one owner.
 * Memory: the buffer owns its bytes; slices of it are void after the next append.
 * Errors: an append past the limit gives ERR_TOO_LARGE, without memory ERR_NO_MEMORY; the buffer is
 *         then unchanged. */
#pragma once
#include "base/err.h"
#include "base/slice.h"

#include <assert.h>

struct buffer {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t bytes_max;
};

/* Allocates nothing yet. */
void buffer_init(struct buffer *buffer, size_t bytes_max);
/* Frees; a zeroed buffer is fine. */
void buffer_finish(struct buffer *buffer);
/* Empties, keeps the memory. */
void buffer_clear(struct buffer *buffer);
/* Empties and gives the memory back when more than `keep_bytes` is held. */
void buffer_shrink(struct buffer *buffer, size_t keep_bytes);
/* Makes room for `size` more bytes. */
MUST_CHECK enum err buffer_reserve(struct buffer *buffer, size_t size);
MUST_CHECK enum err buffer_append(struct buffer *buffer, const void *data, size_t size);
MUST_CHECK enum err buffer_append_slice(struct buffer *buffer, struct slice s);
MUST_CHECK enum err buffer_append_text(struct buffer *buffer, const char *text);
MUST_CHECK enum err buffer_append_byte(struct buffer *buffer, uint8_t byte);
/* Decimal. */
MUST_CHECK enum err buffer_append_i64(struct buffer *buffer, int64_t value);
MUST_CHECK enum err buffer_printf(struct buffer *buffer, const char *format, ...) PRINTF_LIKE(2, 3);
/* Drops the first `size` bytes and moves the rest down. */
void buffer_consume(struct buffer *buffer, size_t size);
struct slice buffer_slice(const struct buffer *buffer);

/* Little-endian bytes, as every file format of ours uses. */
static inline void buffer_put_u16(uint8_t *to, uint16_t value)
{
    memcpy(to, &value, sizeof(value));
}
static inline void buffer_put_u32(uint8_t *to, uint32_t value)
{
    memcpy(to, &value, sizeof(value));
}
static inline void buffer_put_u64(uint8_t *to, uint64_t value)
{
    memcpy(to, &value, sizeof(value));
}
static inline uint16_t buffer_get_u16(const uint8_t *from)
{
    uint16_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}
static inline uint32_t buffer_get_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}
static inline uint64_t buffer_get_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof(value));
    return value;
}
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "file formats are little-endian");
