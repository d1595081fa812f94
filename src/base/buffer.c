/* Buffer: one block of memory that doubles until its limit.
 *
 * Happy path: the bytes fit in the capacity and are copied.
 * Failure modes: the limit (ERR_TOO_LARGE) or memory (ERR_NO_MEMORY); both are found before a byte
 * is copied, so the buffer is unchanged. */
#include "base/buffer.h"

#include "base/mem.h"

#include <stdarg.h>
#include <stdio.h>

#define BUFFER_CAPACITY_MIN 64u
#define BUFFER_STACK_BYTES  256u
#define BUFFER_NUMBER_BYTES 20u /* 2^64 - 1 has 20 digits; -2^63 has 19 and a sign */

void buffer_init(struct buffer *buffer, size_t bytes_max)
{
    *buffer = (struct buffer){.bytes_max = bytes_max};
}

void buffer_finish(struct buffer *buffer)
{
    mem_free(buffer->data);
    *buffer = (struct buffer){.bytes_max = buffer->bytes_max};
}

void buffer_clear(struct buffer *buffer)
{
    buffer->size = 0;
}

void buffer_shrink(struct buffer *buffer, size_t keep_bytes)
{
    if (buffer->capacity > keep_bytes) {
        buffer_finish(buffer);
    }
    buffer->size = 0;
}

enum err buffer_reserve(struct buffer *buffer, size_t size)
{
    assert(buffer->size <= buffer->capacity);
    if (size <= buffer->capacity - buffer->size) {
        return ERR_OK;
    }
    assert(buffer->size <= buffer->bytes_max);
    if (size > buffer->bytes_max - buffer->size) {
        return ERR_TOO_LARGE;
    }
    size_t need = buffer->size + size;
    size_t capacity =
        buffer->capacity < buffer->bytes_max / 2 ? buffer->capacity * 2 : buffer->bytes_max;
    capacity = capacity < BUFFER_CAPACITY_MIN ? BUFFER_CAPACITY_MIN : capacity;
    capacity = capacity > buffer->bytes_max ? buffer->bytes_max : capacity;
    capacity = capacity < need ? need : capacity;
    uint8_t *data = mem_try_realloc(buffer->data, capacity);
    if (data == NULL) {
        return ERR_NO_MEMORY;
    }
    buffer->data = data;
    buffer->capacity = capacity;
    return ERR_OK;
}

enum err buffer_append(struct buffer *buffer, const void *data, size_t size)
{
    enum err err = buffer_reserve(buffer, size);
    if (err == ERR_OK && size > 0) {
        memcpy(buffer->data + buffer->size, data, size);
        buffer->size += size;
    }
    return err;
}

enum err buffer_append_slice(struct buffer *buffer, struct slice s)
{
    return buffer_append(buffer, s.data, s.size);
}

enum err buffer_append_text(struct buffer *buffer, const char *text)
{
    return buffer_append(buffer, text, strlen(text));
}

enum err buffer_append_byte(struct buffer *buffer, uint8_t byte)
{
    return buffer_append(buffer, &byte, 1);
}

/* Writes the digits so that they end at `end`; gives where they begin. */
static uint8_t *buffer_digits_before(uint8_t *end, uint64_t value)
{
    do {
        *--end = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    return end;
}

enum err buffer_append_i64(struct buffer *buffer, int64_t value)
{
    uint8_t digits[BUFFER_NUMBER_BYTES];
    uint8_t *end = digits + sizeof(digits);
    /* Negated as unsigned, because -INT64_MIN does not exist. */
    uint64_t magnitude = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    uint8_t *from = buffer_digits_before(end, magnitude);
    if (value < 0) {
        *--from = '-';
    }
    return buffer_append(buffer, from, (size_t)(end - from));
}

enum err buffer_printf(struct buffer *buffer, const char *format, ...)
{
    /* vsnprintf writes a NUL behind the text, for which the limit may have no room: so the text is
     * made elsewhere, short ones (nearly all) on the stack. */
    char on_stack[BUFFER_STACK_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(on_stack, sizeof(on_stack), format, arguments);
    va_end(arguments);
    assert(length >= 0);
    size_t size = (size_t)length;
    if (size < sizeof(on_stack)) {
        return buffer_append(buffer, on_stack, size);
    }
    if (size > buffer->bytes_max - buffer->size) {
        return ERR_TOO_LARGE;
    }
    char *text = mem_try_alloc(size + 1);
    if (text == NULL) {
        return ERR_NO_MEMORY;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, size + 1, format, arguments);
    va_end(arguments);
    enum err err = buffer_append(buffer, text, size);
    mem_free(text);
    return err;
}

void buffer_consume(struct buffer *buffer, size_t size)
{
    assert(size <= buffer->size);
    if (size == 0) {
        return;
    }
    buffer->size -= size;
    memmove(buffer->data, buffer->data + size, buffer->size);
}

struct slice buffer_slice(const struct buffer *buffer)
{
    return slice_make(buffer->data, buffer->size);
}
