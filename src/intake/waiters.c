/* Intake waiters: how a frame names the request that waits for its result.
 *
 *   bits 0..23   slot + 1, so that no waiter is RECORD_WAITER_NONE
 *   bits 24..55  how often the slot was used
 *   bits 56..63  loop
 *
 * A slot is given back when its result has come, when its frame was never made durable, or when
 * nobody waits any more; a result that comes later finds another name, and goes. */
#include "intake/waiters.h"

#include <assert.h>

#include "base/mem.h"
#include "intake/intake.h"

#define WAITER_SLOT_BITS 24u
#define WAITER_USE_BITS  32u
#define WAITER_LOOP_BITS 8u
static_assert(WAITER_SLOT_BITS + WAITER_USE_BITS + WAITER_LOOP_BITS == 64, "a waiter is full");

void intake_waiters_init(struct intake_waiters *waiters, uint32_t count, uint32_t loop_index)
{
    assert(count + UINT64_C(1) < UINT64_C(1) << WAITER_SLOT_BITS);
    assert(loop_index < UINT32_C(1) << WAITER_LOOP_BITS);
    *waiters = (struct intake_waiters){.count = count, .loop_index = loop_index};
    if (count > 0) {
        waiters->slots = mem_map(count * sizeof(waiters->slots[0]));
    }
}

void intake_waiters_finish(struct intake_waiters *waiters)
{
    if (waiters->count > 0) {
        mem_unmap(waiters->slots, waiters->count * sizeof(waiters->slots[0]));
    }
}

uint64_t intake_waiters_take(struct intake_waiters *waiters, struct intake *intake,
                             struct intake_request *request)
{
    uint32_t number;
    if (waiters->free_first != 0) {
        number = waiters->free_first - 1;
        waiters->free_first = waiters->slots[number].next_free;
    } else if (waiters->used_before < waiters->count) {
        number = waiters->used_before++;
    } else {
        return RECORD_WAITER_NONE;
    }
    struct intake_slot *slot = &waiters->slots[number];
    assert(slot->request == NULL);
    slot->uses++;
    slot->intake = intake;
    slot->request = request;
    uint64_t waiter = (uint64_t)waiters->loop_index << (WAITER_SLOT_BITS + WAITER_USE_BITS) |
                      (uint64_t)slot->uses << WAITER_SLOT_BITS | (number + UINT64_C(1));
    /* Pairs with the claim: the frame that carries the name is posted after this. */
    atomic_store_explicit(&slot->waiter, waiter, memory_order_release);
    return waiter;
}

static struct intake_slot *intake_waiters_find(struct intake_waiters *waiters, uint64_t waiter)
{
    uint64_t number = waiter & ((UINT64_C(1) << WAITER_SLOT_BITS) - 1);
    return number == 0 || number > waiters->count ? NULL : &waiters->slots[number - 1];
}

/* Acquire: what its loop wrote before the name is seen; release: what follows is the winner's. */
static bool intake_slot_win(struct intake_slot *slot, uint64_t waiter)
{
    uint_fast64_t expected = waiter;
    return atomic_compare_exchange_strong_explicit(&slot->waiter, &expected, RECORD_WAITER_NONE,
                                                   memory_order_acq_rel, memory_order_acquire);
}

void intake_waiters_free(struct intake_waiters *waiters, struct intake_slot *slot)
{
    slot->request = NULL;
    slot->next_free = waiters->free_first;
    waiters->free_first = (uint32_t)(slot - waiters->slots) + 1;
}

struct intake_slot *intake_waiters_claim(struct intake_waiters *waiters, uint64_t waiter)
{
    struct intake_slot *slot = intake_waiters_find(waiters, waiter);
    return slot != NULL && intake_slot_win(slot, waiter) ? slot : NULL;
}

void intake_waiters_abandon(struct intake_waiters *waiters, uint64_t waiter)
{
    struct intake_slot *slot = intake_waiters_find(waiters, waiter);
    assert(slot != NULL && slot->request != NULL);
    slot->request = NULL;
    if (intake_slot_win(slot, waiter)) {
        intake_waiters_free(waiters, slot);
    }
}

void intake_waiters_give(struct intake_waiters *waiters, uint64_t waiter)
{
    struct intake_slot *slot = intake_waiters_find(waiters, waiter);
    assert(slot != NULL);
    /* Unclaimed: its frame was not taken, so nobody else knows the name. */
    atomic_store_explicit(&slot->waiter, RECORD_WAITER_NONE, memory_order_relaxed);
    intake_waiters_free(waiters, slot);
}

uint32_t intake_waiter_loop(uint64_t waiter)
{
    return (uint32_t)(waiter >> (WAITER_SLOT_BITS + WAITER_USE_BITS));
}
