/* Lanes: which of the 64 an applier has, and how far each of them is.
 *
 * Thread: apply_lease_* inside a job; the rest: as said.
 * Memory: values.
 * Errors: as of the statements; nothing is kept then. */
#pragma once
#include "journal/journal.h"
#include "store/store.h"

#define APPLY_LANE_ALL  64 /* of a cursor: all lanes together */
#define APPLY_LANES_ALL UINT64_MAX
/* A holder that dies is replaced when its lease ends: the others look then. Two renewals may come
 * late. */
#define APPLY_LEASE_MS   6000
#define APPLY_RENEW_MS   2000u
#define APPLY_PART_MS    1500u /* no part should last longer: renewals come between two */
#define APPLY_HUNGRY_MS  100u  /* looked again when lanes will be free soon */
#define APPLY_ADVANCE_MS 1000u /* cursors of lanes that nothing touched follow */

/* How far each lane is by the rows of a journal; 0: it has none. */
MUST_CHECK enum err apply_lease_read(struct store_connection *connection, struct id journal,
                                     struct journal_from *ret);

/* Whoever held lanes of this journal is dead, and what he has in hand with the database is over
 * when this returns: committed, or refused. */
MUST_CHECK enum err apply_lease_void(struct store_connection *connection, struct id journal);

/* At the start: a row for each lane, and every holder of this process makes itself known. */
struct apply_lease_open {
    struct id journal;
    uint64_t holders[64];
    uint32_t holder_count;
    bool is_exclusive; /* nobody else may have this journal: what an earlier run left is void */
    int64_t now_ms;    /* 0: the database's clock */
    struct journal_from cursors; /* out */
};
MUST_CHECK enum err apply_lease_open(struct store_connection *connection,
                                     struct apply_lease_open *open);

/* A holder's look at the rows, each APPLY_RENEW_MS. */
struct apply_lease {
    struct id journal;
    uint64_t holder;
    uint64_t lanes;                /* in: those that it reads; out: those that it holds */
    uint64_t passed;               /* in: of these everything up to here is applied */
    uint64_t given;                /* in: those of them that it gives up */
    bool is_over;                  /* in: it gives up all, for good */
    int64_t now_ms;                /* in: 0: the database's clock */
    uint64_t cursors[LIMIT_LANES]; /* out: of all lanes */
    uint32_t surplus;              /* out: so many lanes more than its share */
    bool is_hungry;                /* out: fewer than its share, and some will be free */
    uint32_t ends_ms;              /* out: until another's lease ends, if it is not renewed */
};
MUST_CHECK enum err apply_lease_look(struct store_connection *connection,
                                     struct apply_lease *lease);
/* The look of one that wants no lanes: only how far they are. */
MUST_CHECK enum err apply_lease_follow(struct store_connection *connection,
                                       struct apply_lease *lease);

/* The cursors of `lanes` move to `position`; 0: they stay, and are only held. ERR_CLOSED: one of
 * them is somebody else's by now. */
MUST_CHECK enum err apply_lease_move(struct store_connection *connection, struct id journal,
                                     uint64_t holder, uint64_t lanes, uint64_t position);
