/* Room: how much is accepted and not yet applied, of all and per org, and whether the disk has
 * space for more.
 *
 * Thread: any. Numbers are atomics; each is a count of its own, so relaxed order is enough: nothing
 *         else is published by them. Orgs are in a base/table.
 * Memory: the owner embeds it.
 * Errors: take gives ERR_FULL, ERR_NO_SPACE or ERR_AWAY and then holds nothing. */
#pragma once
#include "base/err.h"
#include "journal/journal.h"

#include <stdatomic.h>

struct table;

struct journal_room {
    uint64_t bytes_max;
    bool is_placed;     /* frames leave by position: all lanes have passed it */
    struct table *orgs; /* org -> bytes; where frames are placed: struct room_org */
    atomic_uint_fast64_t bytes;
    atomic_uint_fast64_t records;
    /* What was there at the start and was not counted one by one: bytes of unapplied frames, as
     * many as they are, each as large as those of the stream are in the mean; and of uploads. */
    uint64_t found_frame_bytes; /* set before the threads */
    atomic_uint_fast64_t found_bytes;
    atomic_uint_fast64_t found_upload_bytes;
    atomic_bool is_short; /* the disk is below its reserve; set by the committer */
    atomic_bool is_away;  /* the server that holds the journal is not reached */
    /* Drain rate: bytes credited since window_start_ns; closed by the one who wins the exchange. */
    atomic_uint_fast64_t window_start_ns;
    atomic_uint_fast64_t window_bytes;
    atomic_uint_fast64_t drain_bytes_s;
    /* The oldest unapplied frame, as apply has said last. */
    atomic_uint_fast64_t before_oldest; /* its position - 1 */
    atomic_uint_fast64_t oldest_ms;
    /* What nobody will credit, see below: one for each run of frames of an org. Set before the
     * threads; who exchanges the position for 0 takes them off. */
    struct journal_room_early *early;
    uint32_t early_count;
    uint32_t early_capacity;
    atomic_uint_fast64_t early_position; /* of the last of them; 0: there are none */
};

void journal_room_init(struct journal_room *room, uint64_t bytes_max, bool is_placed);
void journal_room_finish(struct journal_room *room);
MUST_CHECK enum err journal_room_take(struct journal_room *room, uint64_t org, uint64_t bytes);
/* What take would say. */
enum err journal_room_look(struct journal_room *room, uint64_t org, uint64_t bytes);
/* What one org may hold at most. */
static inline uint64_t journal_room_org_max(const struct journal_room *room)
{
    return room->bytes_max / 2;
}
/* As take, whatever the bounds say: what recovery found is there already. */
void journal_room_force(struct journal_room *room, uint64_t org, uint64_t bytes);
/* The same of a frame of several lanes that the one which is credited with it has passed, and
 * others have not. All of these leave when all lanes have passed the last of them. */
void journal_room_force_early(struct journal_room *room, uint64_t org, uint64_t bytes,
                              uint64_t records, uint64_t position);
/* So many frames, and bytes of uploads, are left of what was there at the start. They count for the
 * bound of all, not for an org's. */
void journal_room_found(struct journal_room *room, uint64_t frames);
void journal_room_found_uploads(struct journal_room *room, uint64_t bytes);
/* All that counts. */
uint64_t journal_room_bytes(const struct journal_room *room);
/* Gives back, at most what the org holds. */
void journal_room_give(struct journal_room *room, uint64_t org, uint64_t bytes);
/* Where frames leave by position: what was taken for one of an org is at `position`. The org's
 * share follows when it is used next; the sums when the committer says so by passed. */
void journal_room_place(struct journal_room *room, uint64_t org, uint64_t bytes, uint64_t position);
void journal_room_passed(struct journal_room *room, uint64_t bytes, uint64_t records,
                         uint64_t now_ns);
/* Committer: `records` became durable at `wall_ms`. */
void journal_room_durable(struct journal_room *room, uint64_t records, int64_t wall_ms);
/* … and did not: what was counted when it was sent away. */
void journal_room_not_durable(struct journal_room *room, uint64_t records);
/* Applier: journal_progress; journal_credit; journal_credit_upload, which is no frame. */
void journal_room_progress(struct journal_room *room, uint64_t position, uint64_t oldest_ms);
void journal_room_credit(struct journal_room *room, uint64_t org, uint64_t bytes, uint32_t records,
                         uint64_t now_ns);
void journal_room_credit_upload(struct journal_room *room, uint64_t org, uint64_t bytes,
                                uint64_t now_ns);
uint32_t journal_room_retry_s(const struct journal_room *room);
