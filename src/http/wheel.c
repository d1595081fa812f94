/* A hashed timer wheel that is lazy: a deadline that moves away leaves its timer in the old slot
 * and is looked up again when that slot comes round. So the deadline of a busy connection, which
 * moves with every request, costs one store.
 *
 * A timer stands in the slot of a tick that is not after its deadline's tick (or up to one turn
 * before); the slot is looked at when the tick has passed.
 *
 * Happy path: set stores; after a while the slot is looked at and the timer moves on.
 * Failure modes: none. */
#include "http/wheel.h"

#include <assert.h>

static_assert((HTTP_WHEEL_SLOTS & (HTTP_WHEEL_SLOTS - 1)) == 0, "ticks wrap by masking");

static uint64_t tick_of(uint64_t ms)
{
    return (ms + HTTP_WHEEL_TICK_MS - 1) / HTTP_WHEEL_TICK_MS;
}

void http_wheel_init(struct http_wheel *wheel, uint64_t now_ms)
{
    *wheel = (struct http_wheel){.tick = now_ms / HTTP_WHEEL_TICK_MS};
    for (uint32_t i = 0; i < HTTP_WHEEL_SLOTS; i++) {
        list_init(&wheel->slots[i]);
    }
}

static void link_timer(struct http_wheel *wheel, struct http_timer *timer)
{
    uint64_t tick = tick_of(timer->deadline_ms);
    uint64_t first = wheel->tick + 1;
    uint64_t last = wheel->tick + HTTP_WHEEL_SLOTS - 1;
    tick = tick < first ? first : tick;
    tick = tick > last ? last : tick;
    uint32_t slot = (uint32_t)(tick & (HTTP_WHEEL_SLOTS - 1));
    timer->seen_ms = tick * HTTP_WHEEL_TICK_MS;
    list_push_back(&wheel->slots[slot], &timer->link);
    wheel->used[slot / 64] |= (uint64_t)1 << (slot % 64);
}

void http_wheel_set(struct http_wheel *wheel, struct http_timer *timer, uint64_t deadline_ms)
{
    timer->deadline_ms = deadline_ms;
    if (deadline_ms == HTTP_NO_DEADLINE) {
        return; /* unlinked when its slot comes round */
    }
    if (timer->link.next != NULL) {
        if (timer->seen_ms <= deadline_ms) {
            return;
        }
        list_remove(&timer->link);
    }
    link_timer(wheel, timer);
}

void http_wheel_remove(struct http_timer *timer)
{
    list_remove(&timer->link);
}

/* Looks through the slot of a tick that has passed. */
static struct http_timer *take_from_slot(struct http_wheel *wheel, uint32_t slot, uint64_t now_ms)
{
    struct list_link *link = list_first(&wheel->slots[slot]);
    while (link != NULL) {
        struct list_link *next = list_after(&wheel->slots[slot], link);
        struct http_timer *timer = LIST_CONTAINER(link, struct http_timer, link);
        list_remove(link);
        if (timer->deadline_ms <= now_ms) {
            return timer;
        }
        if (timer->deadline_ms != HTTP_NO_DEADLINE) {
            link_timer(wheel, timer);
        }
        link = next;
    }
    return NULL;
}

struct http_timer *http_wheel_take_due(struct http_wheel *wheel, uint64_t now_ms)
{
    uint64_t now_tick = now_ms / HTTP_WHEEL_TICK_MS;
    if (now_tick - wheel->tick > HTTP_WHEEL_SLOTS) {
        wheel->tick = now_tick - HTTP_WHEEL_SLOTS; /* after a long sleep one turn sees them all */
    }
    while (wheel->tick < now_tick) {
        uint64_t tick = wheel->tick + 1;
        uint32_t slot = (uint32_t)(tick & (HTTP_WHEEL_SLOTS - 1));
        uint64_t bit = (uint64_t)1 << (slot % 64);
        if ((wheel->used[slot / 64] & bit) != 0) {
            struct http_timer *due = take_from_slot(wheel, slot, now_ms);
            if (due != NULL) {
                return due; /* the rest of this slot at the next call */
            }
            wheel->used[slot / 64] &= ~bit;
        }
        wheel->tick = tick;
    }
    return NULL;
}

int http_wheel_wait_ms(const struct http_wheel *wheel, uint64_t now_ms)
{
    uint64_t tick = wheel->tick + 1;
    uint64_t end = wheel->tick + HTTP_WHEEL_SLOTS;
    while (tick < end) {
        uint32_t slot = (uint32_t)(tick & (HTTP_WHEEL_SLOTS - 1));
        uint64_t bits = wheel->used[slot / 64] >> (slot % 64);
        if (bits != 0) {
            tick += (uint64_t)__builtin_ctzll(bits);
            break;
        }
        tick += 64 - slot % 64;
    }
    if (tick >= end) {
        return -1;
    }
    uint64_t at_ms = tick * HTTP_WHEEL_TICK_MS;
    return at_ms > now_ms ? (int)(at_ms - now_ms) : 0;
}
