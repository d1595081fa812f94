/* Postgres copy: rows on their way by COPY in the binary format.
 *
 * Thread: the owner of the connection.
 * Memory: the buffer is the caller's; the functions postgres_put_* write behind `to`, where room
 * was reserved, and give the place after it. Errors: as store_postgres_fail. */
#pragma once
#include "store/postgres.h"

#include <string.h>

#define POSTGRES_COPY_PART_BYTES (128u << 10u)

static inline uint8_t *postgres_put_u16(uint8_t *to, uint16_t value)
{
    value = __builtin_bswap16(value);
    memcpy(to, &value, sizeof(value));
    return to + sizeof(value);
}

static inline uint8_t *postgres_put_u32(uint8_t *to, uint32_t value)
{
    value = __builtin_bswap32(value);
    memcpy(to, &value, sizeof(value));
    return to + sizeof(value);
}

static inline uint8_t *postgres_put_i64(uint8_t *to, int64_t value)
{
    uint64_t swapped = __builtin_bswap64((uint64_t)value);
    to = postgres_put_u32(to, sizeof(swapped));
    memcpy(to, &swapped, sizeof(swapped));
    return to + sizeof(swapped);
}

static inline uint8_t *postgres_put_null(uint8_t *to)
{
    return postgres_put_u32(to, UINT32_MAX);
}

static inline uint8_t *postgres_put_double(uint8_t *to, double value)
{
    int64_t bits = 0;
    memcpy(&bits, &value, sizeof(bits));
    return postgres_put_i64(to, bits);
}

/* A text or a blob; data NULL: NULL. */
static inline uint8_t *postgres_put_bytes(uint8_t *to, struct slice bytes)
{
    if (bytes.data == NULL) {
        return postgres_put_null(to);
    }
    to = postgres_put_u32(to, (uint32_t)bytes.size);
    if (bytes.size > 0) {
        memcpy(to, bytes.data, bytes.size);
    }
    return to + bytes.size;
}

/* Empties the buffer and begins with what stands before the rows. */
static inline enum err postgres_copy_head(struct buffer *copy)
{
    /* A signature, flags, no extension. */
    static const char head[] = "PGCOPY\n\377\r\n\0\0\0\0\0\0\0\0\0";
    buffer_clear(copy);
    return buffer_append(copy, head, sizeof(head) - 1);
}

/* Sends what is in the buffer, and empties it. */
MUST_CHECK enum err store_postgres_copy_part(struct postgres_connection *c, struct buffer *copy);
/* The same with what stands after the rows. */
MUST_CHECK enum err store_postgres_copy_rest(struct postgres_connection *c, struct buffer *copy);
/* After COPY was begun, however it went: an error on our side tells the server to drop it. Gives
 * the first error. */
MUST_CHECK enum err store_postgres_copy_end(struct postgres_connection *c, enum err err);
