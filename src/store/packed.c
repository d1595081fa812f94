/* Events in few bytes. A batch under a backlog is as large as its memory allows, and random ids
 * cost a page of the table of ids for each row of a small batch: rows of 64 bytes in place of 184
 * let half as many again fit.
 *
 *     bytes:  id, 16 | type | dedup_id | subject | source | app | payload | attributes
 *
 * The row holds their sizes, and a bit for each text that is not there: an empty one is. */
#include "store/batch.h"

#include "base/mem.h"

#include <assert.h>

#define ID_BYTES   16u
#define TEXTS      7u
#define FIRST_LONG 5u /* of the texts: payload, attributes */

static_assert(sizeof(struct store_packed) == 64, "what a batch counts on");

/* In the order in which they lie in the bytes. */
static void list_texts(const struct store_event *event, struct slice ret[TEXTS])
{
    ret[0] = event->type;
    ret[1] = event->dedup_id;
    ret[2] = event->subject;
    ret[3] = event->source;
    ret[4] = event->app;
    ret[5] = event->payload;
    ret[6] = event->attributes;
}

size_t store_packed_size(const struct store_packed *packed)
{
    size_t size = ID_BYTES;
    for (uint32_t i = 0; i < TEXTS; i++) {
        size += i < FIRST_LONG ? packed->sizes[i] : packed->long_sizes[i - FIRST_LONG];
    }
    return size;
}

size_t store_packed_bytes(const struct store_event *event)
{
    struct slice texts[TEXTS];
    size_t size = ID_BYTES;
    list_texts(event, texts);
    for (uint32_t i = 0; i < TEXTS; i++) {
        size += texts[i].size;
    }
    return size;
}

enum err store_pack(struct store_packed *ret, const struct store_event *event, uint8_t *bytes)
{
    struct slice texts[TEXTS];
    struct store_packed packed = {.bytes = bytes,
                                  .occurred_ms = event->occurred_ms,
                                  .created_ms = event->created_ms,
                                  .position = event->position,
                                  .sequence = event->sequence,
                                  .org = (uint32_t)event->org,
                                  .state = STORE_EVENT_REFUSED};
    list_texts(event, texts);
    memcpy(bytes, event->id, ID_BYTES);
    bytes += ID_BYTES;
    for (uint32_t i = 0; i < TEXTS; i++) {
        if (texts[i].size > (i < FIRST_LONG ? UINT16_MAX : UINT32_MAX)) {
            return ERR_TOO_LARGE;
        }
        if (i < FIRST_LONG) {
            packed.sizes[i] = (uint16_t)texts[i].size;
        } else {
            packed.long_sizes[i - FIRST_LONG] = (uint32_t)texts[i].size;
        }
        if (texts[i].data == NULL) {
            packed.absent |= (uint8_t)(1u << i);
        } else {
            memcpy(bytes, texts[i].data, texts[i].size);
            bytes += texts[i].size;
        }
    }
    if (packed.org != event->org) {
        return ERR_TOO_LARGE;
    }
    *ret = packed;
    return ERR_OK;
}

static struct slice next_text(const struct store_packed *packed, uint32_t index,
                              const uint8_t **bytes)
{
    size_t size =
        index < FIRST_LONG ? packed->sizes[index] : packed->long_sizes[index - FIRST_LONG];
    if ((packed->absent >> index & 1u) != 0) {
        return slice_make(NULL, 0);
    }
    struct slice text = slice_make(*bytes, size);
    *bytes += size;
    return text;
}

void store_unpack(const struct store_packed *packed, struct store_event *ret)
{
    assert(!store_is_spilled(packed));
    const uint8_t *bytes = packed->bytes + ID_BYTES;
    ret->id = packed->bytes;
    ret->type = next_text(packed, 0, &bytes);
    ret->dedup_id = next_text(packed, 1, &bytes);
    ret->subject = next_text(packed, 2, &bytes);
    ret->source = next_text(packed, 3, &bytes);
    ret->app = next_text(packed, 4, &bytes);
    ret->payload = next_text(packed, 5, &bytes);
    ret->attributes = next_text(packed, 6, &bytes);
    ret->occurred_ms = packed->occurred_ms;
    ret->created_ms = packed->created_ms;
    ret->org = packed->org;
    ret->position = packed->position;
    ret->sequence = packed->sequence;
    ret->state = (enum store_event_state)packed->state;
}

enum err store_pack_all(const struct store_event *events, size_t count, struct store_packed **ret)
{
    size_t size = count * sizeof(**ret) + 1; /* memory for none is not NULL either */
    for (size_t i = 0; i < count; i++) {
        size += store_packed_bytes(&events[i]);
    }
    struct store_packed *packed = mem_try_alloc(size);
    if (packed == NULL) {
        return ERR_NO_MEMORY;
    }
    uint8_t *bytes = (uint8_t *)(packed + count);
    for (size_t i = 0; i < count; i++) {
        enum err err = store_pack(&packed[i], &events[i], bytes);
        if (err != ERR_OK) {
            mem_free(packed);
            return err;
        }
        bytes += store_packed_bytes(&events[i]);
    }
    *ret = packed;
    return ERR_OK;
}
