/* NATS held: the uploads that this process counts in its backlog, each until it is heard to be
 * over.
 *
 * Of a shared stream any node may apply an upload. Its bytes and its slot stay counted where it was
 * accepted, until who applied it says that it is over. That word is heard once or never. So each is
 * known here by its id, from before its end record is published: a word that comes twice, or for
 * one that was refused meanwhile, finds nothing; and apply asks the store about those of which no
 * word has come.
 *
 *   publish --> KNOWN -- acknowledged --> PLACED -- over --> gone
 *                 |  \\-- over ----------------------------^
 *                 +-- not acknowledged: its loop gives the bytes back --> gone
 *
 * Failure modes: more than the table holds, which slots do not permit but an uneven spread might:
 * the one that was used last longest ago is forgotten, and counted until a restart. */
#include "journal/nats.h"

#include "base/clock.h"
#include "base/table.h"

#include <string.h>

#define HELD_MAX    (2 * SLOTS_OPEN_MAX)
#define HELD_ASK_NS (UINT64_C(3) * 1000000000) /* a word needs milliseconds */

struct held {
    struct id id;
    uint64_t org;
    uint64_t bytes;
    uint64_t records;
    uint64_t position; /* of its end record; 0: not acknowledged */
    uint64_t asked_ns; /* monotonic: placed, or asked about last */
};

void journal_nats_held_open(struct journal *journal)
{
    journal->nats->held = table_create(HELD_MAX, sizeof(struct held));
}

void journal_nats_held_close(struct journal *journal)
{
    table_destroy(journal->nats->held);
}

static struct slice held_key(const struct id *id)
{
    return slice_make(id->bytes, sizeof(id->bytes));
}

/* False: the frame is not an upload's. */
static bool held_decode(const struct journal_frame *frame, struct held *ret)
{
    struct record_frame record;
    struct record_upload_end end;
    if (frame->form != RECORD_FORM_UPLOAD_END ||
        record_frame_decode(frame->bytes_slice, &record) != ERR_OK ||
        record_upload_end_decode(record.body, &end) != ERR_OK) {
        return false;
    }
    *ret = (struct held){.id = end.upload,
                         .org = frame->org,
                         .bytes = end.stored_bytes,
                         .records = frame->record_count};
    return true;
}

void journal_nats_held_publish(struct journal *journal, const struct journal_frame *frame)
{
    struct held held;
    if (held_decode(frame, &held)) {
        table_put(journal->nats->held, held_key(&held.id), &held);
    }
}

struct held_place {
    uint64_t position;
    uint64_t now_ns;
};

static void visit_place(void *value, void *context)
{
    struct held *held = value;
    const struct held_place *place = context;
    held->position = place->position;
    held->asked_ns = place->now_ns;
}

void journal_nats_held_settle(struct journal *journal, const struct journal_frame *frame,
                              uint64_t position)
{
    struct held held;
    struct held_place place = {.position = position, .now_ns = clock_mono_ns()};
    if (!held_decode(frame, &held)) {
        return;
    }
    if (position == 0) {
        (void)table_erase(journal->nats->held, held_key(&held.id));
    } else { /* unless it is over already */
        (void)table_find(journal->nats->held, held_key(&held.id), visit_place, &place);
    }
}

void journal_nats_held_over(struct journal *journal, struct id upload)
{
    struct held held;
    if (!table_copy(journal->nats->held, held_key(&upload), &held) ||
        !table_erase(journal->nats->held, held_key(&upload))) {
        return; /* another was faster, or nobody counts it */
    }
    journal_room_not_durable(&journal->room, held.records);
    journal_slots_close(&journal->slots, held.org);
    journal_room_credit_upload(&journal->room, held.org, held.bytes, clock_mono_ns());
}

struct held_search {
    uint64_t position;
    uint64_t now_ns;
    struct id *to;
    uint32_t count;
    uint32_t max;
};

/* Nothing is erased: this only finds. */
static bool find_silent(const void *value, void *context)
{
    const struct held *held = value;
    struct held_search *search = context;
    bool is_due = held->position != 0 && held->position <= search->position &&
                  search->now_ns - held->asked_ns >= HELD_ASK_NS;
    if (is_due && search->count < search->max) {
        search->to[search->count++] = held->id;
    }
    return false;
}

static void visit_ask(void *value, void *context)
{
    ((struct held *)value)->asked_ns = *(const uint64_t *)context;
}

uint32_t journal_nats_held_silent(struct journal *journal, uint64_t position, struct id *to,
                                  uint32_t max)
{
    struct table *table = journal->nats->held;
    struct held_search search = {
        .position = position, .now_ns = clock_mono_ns(), .to = to, .max = max};
    table_erase_if(table, find_silent, &search);
    for (uint32_t i = 0; i < search.count; i++) {
        (void)table_find(table, held_key(&to[i]), visit_ask, &search.now_ns);
    }
    return search.count;
}
