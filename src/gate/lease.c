/* Lease: how a node admits without asking for each request.
 *
 * The keeper of the shared window charges a lease when it grants it, so credit can be used without
 * a word. What is used beyond the credit is a debt: it is charged, whatever the window holds, with
 * the next asking, which goes out at once, or when the one that is under way is answered. A debt is
 * taken on only while the window, as far as this node knows, has room for it, and only up to a
 * bound.
 *
 *   amount <= credit ------------------------------------------> admitted
 *   the rest fits the window as it is known, and no debt
 *     yet, or debt + rest at most debt_max and room / 4 ------> admitted, debt += rest
 *   else ------------------------------------------------------> refused
 *
 * So the first request of a window is admitted while the lease is fetched, and no request ever
 * waits. When half of the credit is used the next lease is asked for. The wish doubles while leases
 * last less than a second, up to a sixteenth of the quota, and halves when they last long: a busy
 * node asks some sixteen times a window, an idle one holds little.
 *
 * Bound. Let q be the quota, C = credit_max, D = debt_max or the largest single amount if that is
 * more, and n the nodes. At all times the shared window, debts not yet charged included, holds at
 * most q + n * D: a grant needs room in the true window, and a node takes on debt only when the
 * window that it saw last, its own debt included, has room; so between two of its debts all that
 * passes q stems from the other n - 1 nodes, and so on down. Uses follow charges by at most the
 * credit held, n * C. Hence any stretch of one window length sees at most what one node's window of
 * quota q + n * D would admit, and n * C. Unused credit is lost to the others until it fades, at
 * most C for a node.
 *
 * What a body used that is refused later is taken back: as a debt that is not charged, as credit up
 * to C, or out of the shared window. The keeper takes out only what this node has charged to the
 * bucket that is current still, and a use that began in the bucket before stays. So a bucket holds
 * what it would hold had those uses never been charged, or more, and the bound stands.
 *
 * Failure modes: no answer within GATE_LEASE_LATE_MS, or a failure: the node decides alone, by the
 * window as it knew it with its own use on top, so no looser than a node that was always alone; its
 * use is charged when the keeper is back. A charge whose answer was lost may count twice: the
 * window errs to the strict side. A keeper that lost its memory begins new windows. */
#include "gate/lease.h"

#define ASK_QUICK_MS    1000u /* a lease that lasts less is too small, */
#define ASK_SLOW_MS     8000u /* and one that lasts longer too large */
#define DEBT_FREE       16u   /* small quotas: a burst of so many is not refused for want of news */
#define CREDIT_FRACTION 16u
#define DEBT_FRACTION   4u
#define ASK_FRACTION    8u /* of the credit, at first */

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t gate_lease_credit_max(uint64_t quota)
{
    return quota >= CREDIT_FRACTION ? quota / CREDIT_FRACTION : 1;
}

uint64_t gate_lease_debt_max(uint64_t quota)
{
    uint64_t share = quota / DEBT_FRACTION;
    return share > DEBT_FREE ? share : smaller(quota, DEBT_FREE);
}

static bool lease_is_alone(const struct gate_lease *lease, uint64_t now_ms)
{
    return now_ms < lease->local_until_ms ||
           (lease->is_asked && now_ms >= lease->asked_ms + GATE_LEASE_LATE_MS);
}

/* `room`: of the window as it is known, own debt included. A quarter of what was free before the
 * debt, so that a few nodes that all owe at once do not pass the quota. */
static bool lease_may_owe(const struct gate_lease *lease, uint64_t quota, uint64_t room,
                          uint64_t rest)
{
    uint64_t share = (room + lease->uncharged) / DEBT_FRACTION;
    uint64_t most = share > DEBT_FREE ? share : DEBT_FREE;
    most = smaller(most, gate_lease_debt_max(quota));
    return lease->uncharged == 0 || (rest <= most && lease->uncharged <= most - rest);
}

/* How much credit to wish for, by how long the last wish lasted. */
static uint64_t lease_wish(const struct gate_lease *lease, uint64_t quota, uint64_t now_ms)
{
    uint64_t most = gate_lease_credit_max(quota);
    uint64_t wish = lease->ask;
    if (wish == 0) {
        wish = most / ASK_FRACTION;
    } else if (now_ms - lease->asked_ms < ASK_QUICK_MS) {
        wish *= 2;
    } else if (now_ms - lease->asked_ms > ASK_SLOW_MS) {
        wish /= 2;
    }
    return wish == 0 ? 1 : smaller(wish, most);
}

/* In another bucket nothing that this node charged to the last one can be taken out of it. */
static void lease_turn(struct gate_lease *lease, const struct gate_window_rule *rule,
                       uint64_t now_ms)
{
    if (lease->bucket != 0 && now_ms >= lease->turn_ms + rule->length_ms) {
        lease->charged = 0;
        lease->returned = 0;
    }
}

/* What is owed takes the place of what is to be taken out. */
static void lease_settle(struct gate_lease *lease)
{
    uint64_t settled = smaller(smaller(lease->returned, lease->charged), lease->uncharged);
    lease->returned -= settled;
    lease->uncharged -= settled;
}

static void lease_ask(struct gate_lease *lease, const struct gate_window_rule *rule,
                      uint64_t now_ms, struct gate_lease_verdict *ret)
{
    bool is_low = ret->window.is_admitted && lease->credit <= lease->ask / 2;
    uint64_t room = ret->window.remaining;
    if (lease->is_asked || now_ms < lease->local_until_ms ||
        (lease->uncharged == 0 && lease->returned == 0 && (!is_low || room == 0))) {
        return;
    }
    lease_settle(lease);
    /* What has faded from the window is no debt any more. */
    lease->uncharged = smaller(lease->uncharged, rule->quota - room);
    lease->ask = lease_wish(lease, rule->quota, now_ms);
    lease->asked_ms = now_ms;
    lease->in_charge = lease->uncharged;
    lease->in_return = smaller(lease->returned, lease->charged);
    lease->is_asked = true;
    ret->must_ask = true;
    ret->charge = lease->in_charge;
    ret->give_back = lease->in_return;
    ret->bucket = lease->bucket;
    ret->ask = lease->ask > lease->credit ? lease->ask - lease->credit : 0;
}

void gate_lease_step(struct gate_lease *lease, const struct gate_window_rule *rule, uint64_t amount,
                     uint64_t now_ms, struct gate_lease_verdict *ret)
{
    *ret = (struct gate_lease_verdict){.must_ask = false};
    if (now_ms >= lease->credit_until_ms) {
        lease->credit = 0;
    }
    uint64_t from_credit = smaller(amount, lease->credit);
    uint64_t rest = amount - from_credit;
    gate_window_step(&lease->window, rule, 0, now_ms, &ret->window);
    lease_turn(lease, rule, now_ms);
    if (rest > 0 && !lease_is_alone(lease, now_ms) &&
        !lease_may_owe(lease, rule->quota, ret->window.remaining, rest)) {
        ret->window.is_admitted = false;
        ret->window.wait_ms = GATE_LEASE_LATE_MS;
    } else if (rest > 0) {
        gate_window_step(&lease->window, rule, rest, now_ms, &ret->window);
    }
    if (ret->window.is_admitted) {
        lease->credit -= from_credit;
        lease->uncharged += rest;
    }
    lease_ask(lease, rule, now_ms, ret);
    ret->window.remaining += lease->credit;
}

/* What was used ahead was charged nowhere yet. What was charged becomes credit as far as a node may
 * hold it, and the rest is taken out of the shared window again. */
void gate_lease_take_back(struct gate_lease *lease, const struct gate_window_rule *rule,
                          const struct gate_lease_refund *refund, struct gate_lease_verdict *ret)
{
    *ret = (struct gate_lease_verdict){.must_ask = false};
    gate_window_step(&lease->window, rule, 0, refund->now_ms, &ret->window);
    lease_turn(lease, rule, refund->now_ms);
    if (refund->since_ms < lease->window.start_ms && lease->window.previous != 0) {
        return; /* in the bucket before, in part at least: it stays charged */
    }
    uint64_t owed = smaller(refund->amount, lease->uncharged - lease->in_charge);
    uint64_t rest = refund->amount - owed;
    uint64_t most = gate_lease_credit_max(rule->quota);
    if (refund->now_ms < lease->credit_until_ms && lease->credit < most) {
        uint64_t kept = smaller(rest, most - lease->credit);
        lease->credit += kept;
        rest -= kept;
    }
    rest = smaller(rest, lease->charged + lease->in_charge - lease->returned);
    lease->uncharged -= owed;
    lease->returned += rest;
    gate_window_refund(&lease->window, owed + rest, refund->since_ms);
    gate_window_step(&lease->window, rule, 0, refund->now_ms, &ret->window);
    lease_ask(lease, rule, refund->now_ms, ret);
}

/* What is charged in the current bucket by now, and what of it is to be taken out. */
static void lease_told(struct gate_lease *lease, const struct gate_lease_answer *answer)
{
    if (answer->bucket == lease->bucket) {
        lease->charged -= smaller(lease->in_return, lease->charged);
        lease->returned -= smaller(lease->in_return, lease->returned);
    } else {
        lease->returned = lease->bucket == 0 ? lease->returned : 0;
        lease->bucket = answer->bucket;
        lease->charged = 0;
    }
    lease->charged += lease->in_charge + answer->granted;
    lease->returned = smaller(lease->returned, lease->charged);
    lease->in_return = 0;
}

/* Credit above what a node may hold, because some came back meanwhile, goes the way of a refund. */
static void lease_grant(struct gate_lease *lease, const struct gate_window_rule *rule,
                        uint64_t granted)
{
    uint64_t credit = lease->credit + granted;
    lease->credit = smaller(credit, gate_lease_credit_max(rule->quota));
    lease->returned += smaller(credit - lease->credit, lease->charged - lease->returned);
}

void gate_lease_on_answer(struct gate_lease *lease, const struct gate_window_rule *rule,
                          const struct gate_lease_answer *answer, uint64_t now_ms,
                          struct gate_lease_verdict *ret)
{
    *ret = (struct gate_lease_verdict){.must_ask = false};
    if (!lease->is_asked) {
        return; /* the table has forgotten the one that asked */
    }
    lease_told(lease, answer);
    lease->uncharged -= lease->in_charge;
    lease->in_charge = 0;
    lease->is_asked = false;
    lease->local_until_ms = 0;
    lease_grant(lease, rule, answer->granted);
    lease->credit_until_ms = now_ms + rule->length_ms;
    /* What was owed while the answer was on its way is paid first. */
    uint64_t paid = smaller(lease->credit, lease->uncharged);
    lease->credit -= paid;
    lease->uncharged -= paid;
    lease->window = (struct gate_window_state){
        .start_ms = now_ms - smaller(answer->age_ms, rule->length_ms - 1),
        .current = answer->current - smaller(lease->returned, answer->current) + lease->uncharged,
        .previous = answer->previous};
    lease->turn_ms = lease->window.start_ms;
    if (lease->uncharged > 0 || lease->returned > 0) {
        gate_window_step(&lease->window, rule, 0, now_ms, &ret->window);
        lease_ask(lease, rule, now_ms, ret);
    }
}

void gate_lease_on_failure(struct gate_lease *lease, uint64_t now_ms)
{
    if (lease->is_asked) {
        /* What was given back of what was being charged is not owed any more. */
        uint64_t charged = smaller(lease->returned, lease->charged);
        lease->uncharged -= smaller(lease->returned - charged, lease->uncharged);
        lease->returned = charged;
        lease->in_charge = 0;
        lease->in_return = 0;
        lease->is_asked = false;
        lease->local_until_ms = now_ms + GATE_LEASE_RETRY_MS;
    }
}
