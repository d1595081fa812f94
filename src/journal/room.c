/* Room: the backlog's bound. One org may hold half, so that one tenant's outage of good sense
 * leaves the others the other half.
 *
 * Happy path: take when a frame is appended, credit when it is applied.
 * Failure modes: full or short of disk: refused before anything is kept. A credit of more than an
 * org holds (its share was forgotten, see below) takes what is there.
 * In a shared stream a frame may be applied by any node, so the one that accepted it takes it off
 * when all lanes have passed its place. What an org has there is kept as two sums, each up to a
 * place, and leaves in these two steps: late by at most as much as came meanwhile.
 * More orgs with a backlog than the table holds: the least recently active one's share is
 * forgotten, so its bound starts anew, and its bytes stay in the sum until the next start. */
#include "journal/room.h"

#include "base/mem.h"
#include "base/table.h"

#include <assert.h>

#define ROOM_ORGS_MAX     131072u
#define ROOM_RETRY_MAX_S  60u
#define ROOM_RETRY_IDLE_S 10u
#define ROOM_EARLY_FIRST  64u
#define NS_PER_S          1000000000u

struct room_change {
    uint64_t bytes;
    uint64_t org_max;
    bool is_done;
    bool is_placed;
    uint64_t passed;   /* where frames are placed */
    uint64_t position; /* of the one that is */
};

struct room_sum {
    uint64_t bytes;
    uint64_t position; /* of the last of them */
};

struct journal_room_early {
    uint64_t org;
    uint64_t bytes;
    uint64_t records;
};

struct room_org {
    uint64_t held;        /* first, as where frames are not placed */
    struct room_sum old;  /* of that what was placed */
    struct room_sum next; /* … and what came after it */
};

void journal_room_init(struct journal_room *room, uint64_t bytes_max, bool is_placed)
{
    *room = (struct journal_room){.bytes_max = bytes_max, .is_placed = is_placed};
    room->orgs =
        table_create(ROOM_ORGS_MAX, is_placed ? sizeof(struct room_org) : sizeof(uint64_t));
}

void journal_room_finish(struct journal_room *room)
{
    table_destroy(room->orgs);
    room->orgs = NULL;
    mem_free(room->early);
    room->early = NULL;
}

static struct slice room_key(const uint64_t *org)
{
    return slice_make(org, sizeof(*org));
}

static uint64_t room_load(const atomic_uint_fast64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

/* What all lanes have passed leaves. */
static void room_follow(struct room_org *org, uint64_t passed)
{
    for (int i = 0; i < 2 && org->old.position <= passed; i++) {
        org->held -= org->old.bytes < org->held ? org->old.bytes : org->held;
        org->old = org->next;
        org->next = (struct room_sum){0, 0};
    }
}

static struct room_change room_change(struct journal_room *room, uint64_t bytes, uint64_t org_max)
{
    return (struct room_change){.bytes = bytes,
                                .org_max = org_max,
                                .is_placed = room->is_placed,
                                .passed = room_load(&room->before_oldest)};
}

static void room_visit_place(void *value, void *context)
{
    struct room_org *org = value;
    const struct room_change *change = context;
    room_follow(org, change->passed);
    struct room_sum *sum = org->old.bytes == 0 ? &org->old : &org->next;
    sum->bytes += change->bytes;
    sum->position = change->position > sum->position ? change->position : sum->position;
}

static void room_visit_take(void *value, void *context)
{
    uint64_t *held = value;
    struct room_change *change = context;
    if (change->is_placed) {
        room_follow(value, change->passed);
    }
    change->is_done = *held + change->bytes <= change->org_max;
    *held += change->is_done ? change->bytes : 0;
}

static void room_visit_look(void *value, void *context)
{
    const uint64_t *held = value;
    struct room_change *change = context;
    if (change->is_placed) {
        room_follow(value, change->passed);
    }
    change->is_done = *held + change->bytes <= change->org_max;
}

static void room_visit_give(void *value, void *context)
{
    uint64_t *held = value;
    struct room_change *change = context;
    change->bytes = change->bytes < *held ? change->bytes : *held;
    *held -= change->bytes;
}

static bool room_is_closed(struct journal_room *room)
{
    return atomic_load_explicit(&room->is_short, memory_order_relaxed) ||
           atomic_load_explicit(&room->is_away, memory_order_relaxed);
}

static enum err room_closed_err(struct journal_room *room)
{
    return atomic_load_explicit(&room->is_away, memory_order_relaxed) ? ERR_AWAY : ERR_NO_SPACE;
}

static uint64_t room_found(const struct journal_room *room)
{
    return room_load(&room->found_bytes) + room_load(&room->found_upload_bytes);
}

uint64_t journal_room_bytes(const struct journal_room *room)
{
    return room_load(&room->bytes) + room_found(room);
}

void journal_room_found(struct journal_room *room, uint64_t frames)
{
    atomic_store_explicit(&room->found_bytes, frames * room->found_frame_bytes,
                          memory_order_relaxed);
}

void journal_room_found_uploads(struct journal_room *room, uint64_t bytes)
{
    atomic_store_explicit(&room->found_upload_bytes, bytes, memory_order_relaxed);
}

enum err journal_room_take(struct journal_room *room, uint64_t org, uint64_t bytes)
{
    struct room_change change = room_change(room, bytes, room->bytes_max / 2);
    if (room_is_closed(room)) {
        return room_closed_err(room);
    }
    uint64_t before = atomic_fetch_add_explicit(&room->bytes, bytes, memory_order_relaxed);
    if (before + bytes + room_found(room) <= room->bytes_max) {
        table_upsert(room->orgs, room_key(&org), room_visit_take, &change);
    }
    if (!change.is_done) {
        atomic_fetch_sub_explicit(&room->bytes, bytes, memory_order_relaxed);
        return ERR_FULL;
    }
    return ERR_OK;
}

enum err journal_room_look(struct journal_room *room, uint64_t org, uint64_t bytes)
{
    struct room_change change = room_change(room, bytes, room->bytes_max / 2);
    change.is_done = bytes <= room->bytes_max / 2;
    if (room_is_closed(room)) {
        return room_closed_err(room);
    }
    (void)table_find(room->orgs, room_key(&org), room_visit_look, &change);
    bool fits = journal_room_bytes(room) + bytes <= room->bytes_max;
    return change.is_done && fits ? ERR_OK : ERR_FULL;
}

void journal_room_force(struct journal_room *room, uint64_t org, uint64_t bytes)
{
    struct room_change change = room_change(room, bytes, UINT64_MAX);
    atomic_fetch_add_explicit(&room->bytes, bytes, memory_order_relaxed);
    table_upsert(room->orgs, room_key(&org), room_visit_take, &change);
}

void journal_room_give(struct journal_room *room, uint64_t org, uint64_t bytes)
{
    struct room_change change = room_change(room, bytes, 0);
    if (table_find(room->orgs, room_key(&org), room_visit_give, &change)) {
        atomic_fetch_sub_explicit(&room->bytes, change.bytes, memory_order_relaxed);
    }
}

void journal_room_durable(struct journal_room *room, uint64_t records, int64_t wall_ms)
{
    uint_fast64_t none = 0;
    atomic_fetch_add_explicit(&room->records, records, memory_order_relaxed);
    /* Until apply has read it. */
    atomic_compare_exchange_strong_explicit(&room->oldest_ms, &none, (uint64_t)wall_ms,
                                            memory_order_relaxed, memory_order_relaxed);
}

static uint64_t room_subtract_at_most(atomic_uint_fast64_t *number, uint64_t amount)
{
    uint_fast64_t before = room_load(number);
    uint64_t after;
    do {
        after = before > amount ? before - amount : 0;
    } while (!atomic_compare_exchange_weak_explicit(number, &before, after, memory_order_relaxed,
                                                    memory_order_relaxed));
    return after;
}

void journal_room_force_early(struct journal_room *room, uint64_t org, uint64_t bytes,
                              uint64_t records, uint64_t position)
{
    uint32_t count = room->early_count;
    journal_room_force(room, org, bytes);
    journal_room_durable(room, records, 0);
    atomic_store_explicit(&room->early_position, position, memory_order_relaxed);
    if (count > 0 && room->early[count - 1].org == org) {
        room->early[count - 1].bytes += bytes;
        room->early[count - 1].records += records;
        return;
    }
    if (count == room->early_capacity) {
        struct journal_room_early *before = room->early;
        room->early_capacity = count == 0 ? ROOM_EARLY_FIRST : count * 2;
        room->early = mem_alloc_array(room->early_capacity, sizeof(*room->early));
        if (count > 0) {
            memcpy(room->early, before, count * sizeof(*before));
        }
        mem_free(before);
    }
    room->early[room->early_count++] = (struct journal_room_early){org, bytes, records};
}

/* Several appliers may say the same position at the same time. */
static void room_leave_early(struct journal_room *room, uint64_t position)
{
    uint_fast64_t last = room_load(&room->early_position);
    if (last == 0 || position < last ||
        !atomic_compare_exchange_strong_explicit(&room->early_position, &last, 0,
                                                 memory_order_relaxed, memory_order_relaxed)) {
        return;
    }
    for (uint32_t i = 0; i < room->early_count; i++) {
        (void)room_subtract_at_most(&room->records, room->early[i].records);
        journal_room_give(room, room->early[i].org, room->early[i].bytes);
    }
}

void journal_room_progress(struct journal_room *room, uint64_t position, uint64_t oldest_ms)
{
    room_leave_early(room, position);
    atomic_store_explicit(&room->before_oldest, position, memory_order_relaxed);
    if (oldest_ms != 0) { /* else what is durable and was not read has its time already */
        atomic_store_explicit(&room->oldest_ms, oldest_ms, memory_order_relaxed);
    }
}

static void room_measure_drain(struct journal_room *room, uint64_t bytes, uint64_t now_ns)
{
    atomic_fetch_add_explicit(&room->window_bytes, bytes, memory_order_relaxed);
    uint_fast64_t start = room_load(&room->window_start_ns);
    if (now_ns < start + NS_PER_S ||
        !atomic_compare_exchange_strong_explicit(&room->window_start_ns, &start, now_ns,
                                                 memory_order_relaxed, memory_order_relaxed)) {
        return;
    }
    uint64_t drained = atomic_exchange_explicit(&room->window_bytes, 0, memory_order_relaxed);
    uint64_t elapsed_s = start == 0 ? 1 : (now_ns - start) / NS_PER_S;
    atomic_store_explicit(&room->drain_bytes_s, drained / elapsed_s, memory_order_relaxed);
}

void journal_room_not_durable(struct journal_room *room, uint64_t records)
{
    (void)room_subtract_at_most(&room->records, records); /* zero is what "at most" ends at */
}

static void room_release(struct journal_room *room, uint64_t org, uint64_t bytes, uint64_t now_ns)
{
    journal_room_give(room, org, bytes);
    room_measure_drain(room, bytes, now_ns);
    if (room_load(&room->bytes) == 0) {
        atomic_store_explicit(&room->oldest_ms, 0, memory_order_relaxed);
    }
}

void journal_room_place(struct journal_room *room, uint64_t org, uint64_t bytes, uint64_t position)
{
    struct room_change change = room_change(room, bytes, 0);
    change.position = position;
    (void)table_find(room->orgs, room_key(&org), room_visit_place, &change);
}

void journal_room_passed(struct journal_room *room, uint64_t bytes, uint64_t records,
                         uint64_t now_ns)
{
    (void)room_subtract_at_most(&room->records, records); /* zero is what "at most" ends at */
    if (room_subtract_at_most(&room->bytes, bytes) == 0) {
        atomic_store_explicit(&room->oldest_ms, 0, memory_order_relaxed);
    }
    room_measure_drain(room, bytes, now_ns);
}

void journal_room_credit(struct journal_room *room, uint64_t org, uint64_t bytes, uint32_t records,
                         uint64_t now_ns)
{
    (void)room_subtract_at_most(&room->records, records); /* zero is what "at most" ends at */
    room_release(room, org, bytes, now_ns);
}

void journal_room_credit_upload(struct journal_room *room, uint64_t org, uint64_t bytes,
                                uint64_t now_ns)
{
    room_release(room, org, bytes, now_ns);
}

/* A twentieth of the whole is worth coming back for. */
uint32_t journal_room_retry_s(const struct journal_room *room)
{
    uint64_t bytes = journal_room_bytes(room);
    uint64_t goal = room->bytes_max - room->bytes_max / 20;
    uint64_t excess = bytes > goal ? bytes - goal : room->bytes_max / 20;
    uint64_t rate = room_load(&room->drain_bytes_s);
    if (rate == 0) {
        return ROOM_RETRY_IDLE_S;
    }
    uint64_t seconds = excess / rate + 1;
    return seconds < ROOM_RETRY_MAX_S ? (uint32_t)seconds : ROOM_RETRY_MAX_S;
}
