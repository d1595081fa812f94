/* Packed: events on their way into the store: as parts, in few bytes, and in a file.
 *
 * Thread: any; a spill has one user at a time.
 * Memory: an event's texts, and the bytes of a packed one, are the caller's.
 * Errors: as each function says. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

enum store_event_state {
    STORE_EVENT_INSERTED,
    STORE_EVENT_DUPLICATE, /* the id was there */
    STORE_EVENT_CONFLICT,  /* a duplicate with another payload */
    STORE_EVENT_REFUSED,
};

struct store_event {
    struct slice type;
    struct slice payload;
    struct slice dedup_id; /* size 0: none */
    struct slice subject;  /* data NULL: none; the same for the next three */
    struct slice source;
    struct slice app;
    struct slice attributes;
    const uint8_t *id; /* 16 bytes */
    int64_t occurred_ms;
    int64_t created_ms;
    uint64_t org;
    uint64_t position;            /* of its frame */
    uint64_t sequence;            /* out: its own, or that of the row that was there before */
    enum store_event_state state; /* out */
};

/* An event in few bytes, for batches: how many rows fit into memory decides what random ids cost.
 */
struct store_packed {
    union {
        const uint8_t *bytes; /* the id, then the texts; the caller's */
        uint64_t place;       /* or where they lie in a spill */
    };
    int64_t occurred_ms;
    int64_t created_ms;
    uint64_t position;
    uint64_t sequence; /* out */
    uint32_t org;
    uint32_t long_sizes[2]; /* of payload, attributes */
    uint16_t sizes[5];      /* of type, dedup_id, subject, source, app */
    uint8_t absent;         /* bits of the texts that are not there; STORE_PACKED_SPILLED */
    uint8_t state;          /* out: enum store_event_state */
};
size_t store_packed_bytes(const struct store_event *event);
/* `bytes`: as many as store_packed_bytes says. ERR_TOO_LARGE: a text or number is beyond a row. */
MUST_CHECK enum err store_pack(struct store_packed *ret, const struct store_event *event,
                               uint8_t *bytes);
void store_unpack(const struct store_packed *packed, struct store_event *ret);

#define STORE_PACKED_SPILLED 0x80u
static inline bool store_is_spilled(const struct store_packed *packed)
{
    return (packed->absent & STORE_PACKED_SPILLED) != 0;
}
/* The bytes of packed events in a file of its own, for batches that memory is too small for
 * (spill.c). One user at a time. */
struct store_spill;
/* `path` is free for it, and free again when it returns. */
MUST_CHECK enum err store_spill_create(struct store_spill **ret, const char *path);
/* NULL is fine. */
void store_spill_destroy(struct store_spill *spill);
/* What was added is void. */
void store_spill_clear(struct store_spill *spill);
uint64_t store_spill_bytes(const struct store_spill *spill);
/* Packs the event, its bytes to the file. ERR_TOO_LARGE: it is the caller's to keep; others: the
 * file takes no more for now. */
MUST_CHECK enum err store_spill_add(struct store_spill *spill, const struct store_event *event,
                                    struct store_packed *ret);
/* What it says is valid until the next of the same spill. Also of events whose bytes are in memory;
 * then the spill may be NULL. */
MUST_CHECK enum err store_spill_unpack(struct store_spill *spill, const struct store_packed *packed,
                                       struct store_event *ret);
