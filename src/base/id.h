/* Id: 128-bit names (RFC 9562). Version 8 for the same dedup_id giving the same id for ever,
 * version 7 otherwise. An id names; it never orders.
 *
 * Thread: id_make_v7 any thread (per-thread state); the rest are pure.
 * Memory: values.
 * Errors: id_parse gives false on malformed text. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/blake2b.h"
#include "base/slice.h"

#define ID_TEXT_BYTES 36

struct id {
    uint8_t bytes[16];
};

/* UUIDv7: wall_ms in the first 48 bits, 74 random bits. */
struct id id_make_v7(int64_t wall_ms);
/* UUIDv7 of element `index` of a frame or upload that has the v7 id `base`: same milliseconds, the
 * 62 low random bits plus index + 1 (mod 2^62). Deterministic, so a second reading of the same
 * frame gives the same ids, and ascending within it, so that they sort as they were sent. */
struct id id_make_element(struct id base, uint64_t index);
/* UUIDv8: BLAKE2b-128 keyed with the org's 32-byte id key over kind, source, dedup_id, each
 * preceded by its length as 32 bits little-endian (DESIGN I8). */
struct id id_make_dedup(const uint8_t key[32], struct slice kind, struct slice source,
                        struct slice dedup_id);

/* The same ids, four at a time, which costs little more than one: what a batch has side by side.
 * `count` starts at 0. */
struct id_four {
    struct blake2b_four parts;       /* what was added */
    struct id ids[BLAKE2B_TOGETHER]; /* what the last id_four_make made, in the order of adding */
    uint32_t count;                  /* added and not made yet, at most BLAKE2B_TOGETHER */
};
/* False: the parts are too long to be made together; nothing was added. */
bool id_four_add(struct id_four *four, const uint8_t key[32], struct slice kind,
                 struct slice source, struct slice dedup_id);
void id_four_make(struct id_four *four);

/* 36 bytes lower case, no NUL. */
void id_format(struct id id, char to[ID_TEXT_BYTES]);
/* 36 characters with hyphens, either case. *ret_id untouched on false. */
bool id_parse(struct slice text, struct id *ret_id);
/* The bytes of a row; of any other size: the nil id. */
struct id id_from_bytes(struct slice bytes);
static inline bool id_equal(struct id a, struct id b)
{
    return memcmp(a.bytes, b.bytes, sizeof(a.bytes)) == 0;
}
