/* Lease: one node's share of a window that many nodes count in. Pure: the clock comes in.
 *
 * Thread: the state's owner (here: whoever holds the lock of its table stripe).
 * Memory: values.
 * Errors: a verdict, never enum err. */
#pragma once
#include "gate/window.h"

/* An answer that has not come within this is taken as "away": the node decides alone. */
#define GATE_LEASE_LATE_MS 100u
/* After a failure the node decides alone for this long, then asks again. */
#define GATE_LEASE_RETRY_MS 1000u
/* Clocks begin here at least, so that a window that began before this machine did has a start. */
#define GATE_LEASE_CLOCK_MS 7200000u

/* All zero is a lease of a window of which nothing is known. */
struct gate_lease {
    struct gate_window_state window; /* what all nodes used, as told last, and `uncharged` on top */
    uint64_t credit;                 /* charged to the window, not used yet */
    uint64_t credit_until_ms;
    uint64_t uncharged;      /* used here, not yet charged to the shared window */
    uint64_t in_charge;      /* part of `uncharged` that is being charged */
    uint64_t ask;            /* credit that is wished for; 0: not asked yet */
    uint64_t asked_ms;       /* when it was asked for last */
    uint64_t local_until_ms; /* until then this node decides alone */
    bool is_asked;           /* an answer is awaited */
    /* Of the keeper's current bucket, as told last. */
    uint64_t bucket;    /* which it is; 0: not told yet */
    uint64_t turn_ms;   /* when it began, as told last */
    uint64_t charged;   /* by this node, to this bucket */
    uint64_t returned;  /* part of it, or of in_charge, that is to be taken out again */
    uint64_t in_return; /* part of it that the answer will tell of */
};

struct gate_lease_verdict {
    struct gate_window_verdict window;
    bool must_ask; /* the caller asks now, with those that follow */
    uint64_t charge;
    uint64_t ask;
    uint64_t give_back; /* taken out if the current bucket is still this one: */
    uint64_t bucket;
};

/* The shared window as the keeper of it knows it. */
struct gate_lease_answer {
    uint64_t granted;
    uint64_t bucket; /* the current one: its start by the keeper's clock */
    uint64_t age_ms; /* of it */
    uint64_t current;
    uint64_t previous;
};

/* The most credit that a node holds, and the most it uses ahead of being told. */
uint64_t gate_lease_credit_max(uint64_t quota);
uint64_t gate_lease_debt_max(uint64_t quota);

/* Counts `amount` if it fits. */
void gate_lease_step(struct gate_lease *lease, const struct gate_window_rule *rule, uint64_t amount,
                     uint64_t now_ms, struct gate_lease_verdict *ret);
/* Takes back what earlier steps counted, the first of them at since_ms. */
struct gate_lease_refund {
    uint64_t amount;
    uint64_t since_ms;
    uint64_t now_ms;
};
void gate_lease_take_back(struct gate_lease *lease, const struct gate_window_rule *rule,
                          const struct gate_lease_refund *refund, struct gate_lease_verdict *ret);
/* One of these ends what must_ask began. What was used meanwhile must be asked for at once. */
void gate_lease_on_answer(struct gate_lease *lease, const struct gate_window_rule *rule,
                          const struct gate_lease_answer *answer, uint64_t now_ms,
                          struct gate_lease_verdict *ret);
void gate_lease_on_failure(struct gate_lease *lease, uint64_t now_ms);
