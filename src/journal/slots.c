/* Slots: the active ones are shared by need. An org gets one more as long as it holds fewer than
 * are free: one alone gets half of them, and whoever comes then still finds some, so that no org's
 * slow uploads stand in another's way. Of the open ones an org may hold half.
 *
 * Happy path: begin, leave when it is answered, close when it is applied.
 * Failure modes: none is free for this org: ERR_BUSY when that passes as bodies end, ERR_FULL when
 * uploads must be applied first; nothing is held. More orgs than the table
 * holds: the count of the least recently active one is forgotten, its share begins anew; the sums
 * stay right. */
#include "journal/slots.h"

#include "base/table.h"

#define SLOTS_ORGS_MAX 32768u

struct slots_org {
    uint32_t active;
    uint32_t open;
};

struct slots_change {
    uint32_t free; /* active ones, of all */
    enum err err;
};

static struct slice slots_key(const uint64_t *org)
{
    return slice_make(org, sizeof(*org));
}

static uint32_t slots_load(const atomic_uint_fast32_t *number)
{
    return (uint32_t)atomic_load_explicit(number, memory_order_relaxed);
}

void journal_slots_init(struct journal_slots *slots)
{
    *slots = (struct journal_slots){.orgs = table_create(SLOTS_ORGS_MAX, sizeof(struct slots_org))};
}

void journal_slots_finish(struct journal_slots *slots)
{
    table_destroy(slots->orgs);
    slots->orgs = NULL;
}

static enum err slots_decide(const struct slots_org *held, uint32_t free)
{
    if (held->open >= SLOTS_OPEN_MAX / 2) {
        return ERR_FULL;
    }
    return held->active < free ? ERR_OK : ERR_BUSY;
}

static void slots_visit_begin(void *value, void *context)
{
    struct slots_org *held = value;
    struct slots_change *change = context;
    change->err = slots_decide(held, change->free);
    held->active += change->err == ERR_OK;
    held->open += change->err == ERR_OK;
}

static void slots_visit_look(void *value, void *context)
{
    struct slots_change *change = context;
    change->err = slots_decide(value, change->free);
}

static void slots_visit_leave(void *value, void *context)
{
    struct slots_org *held = value;
    (void)context;
    held->active -= held->active > 0;
}

static void slots_visit_close(void *value, void *context)
{
    struct slots_org *held = value;
    (void)context;
    held->open -= held->open > 0;
}

static void slots_visit_force(void *value, void *context)
{
    (void)context;
    ((struct slots_org *)value)->open++;
}

/* Takes one if there is one; true: *ret_before were taken before. */
static bool slots_take(atomic_uint_fast32_t *number, uint32_t max, uint32_t *ret_before)
{
    *ret_before = (uint32_t)atomic_fetch_add_explicit(number, 1, memory_order_relaxed);
    if (*ret_before < max) {
        return true;
    }
    atomic_fetch_sub_explicit(number, 1, memory_order_relaxed);
    return false;
}

enum err journal_slots_begin(struct journal_slots *slots, uint64_t org)
{
    struct slots_change change = {.err = ERR_BUSY};
    uint32_t active = 0;
    uint32_t open = 0;
    if (!slots_take(&slots->open, SLOTS_OPEN_MAX, &open)) {
        return ERR_FULL;
    }
    if (slots_take(&slots->active, SLOTS_ACTIVE_MAX, &active)) {
        change.free = SLOTS_ACTIVE_MAX - active;
        table_upsert(slots->orgs, slots_key(&org), slots_visit_begin, &change);
        if (change.err == ERR_OK) {
            return ERR_OK;
        }
        atomic_fetch_sub_explicit(&slots->active, 1, memory_order_relaxed);
    }
    atomic_fetch_sub_explicit(&slots->open, 1, memory_order_relaxed);
    return change.err;
}

enum err journal_slots_look(struct journal_slots *slots, uint64_t org)
{
    uint32_t active = slots_load(&slots->active);
    struct slots_change change = {.err = active < SLOTS_ACTIVE_MAX ? ERR_OK : ERR_BUSY};
    change.free = active < SLOTS_ACTIVE_MAX ? SLOTS_ACTIVE_MAX - active : 0;
    if (slots_load(&slots->open) >= SLOTS_OPEN_MAX) {
        return ERR_FULL;
    }
    (void)table_find(slots->orgs, slots_key(&org), slots_visit_look, &change);
    return change.err;
}

/* An upload may be credited that nobody counted (its record was damaged at the start): never below
 * 0. */
static void slots_give_open(struct journal_slots *slots)
{
    uint_fast32_t before = atomic_load_explicit(&slots->open, memory_order_relaxed);
    while (before > 0 &&
           !atomic_compare_exchange_weak_explicit(&slots->open, &before, before - 1,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

void journal_slots_leave(struct journal_slots *slots, uint64_t org)
{
    atomic_fetch_sub_explicit(&slots->active, 1, memory_order_relaxed);
    (void)table_find(slots->orgs, slots_key(&org), slots_visit_leave, NULL);
}

void journal_slots_close(struct journal_slots *slots, uint64_t org)
{
    slots_give_open(slots);
    (void)table_find(slots->orgs, slots_key(&org), slots_visit_close, NULL);
}

void journal_slots_force(struct journal_slots *slots, uint64_t org)
{
    atomic_fetch_add_explicit(&slots->open, 1, memory_order_relaxed);
    table_upsert(slots->orgs, slots_key(&org), slots_visit_force, NULL);
}
