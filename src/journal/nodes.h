/* Nodes: what they need of a journal in a stream that they share, and of the spool in front of it;
 * a part of journal.h, which includes it.
 *
 * Thread: any, but what says otherwise.
 * Memory: as in journal.h.
 * Errors: none. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/id.h"
#include "record/record.h"

struct journal;

/* --- nodes that share a stream ---------------------------------------------------------------- */
bool journal_is_shared(const struct journal *journal);
/* How far all of them have written by now: the number of the question. When it is answered, which
 * it is not while NATS is away, journal_durable_position is at least that. */
uint64_t journal_ask(struct journal *journal);
bool journal_is_answered(const struct journal *journal, uint64_t question);
/* To the node of share->run, at most once. */
void journal_answer(struct journal *journal, const struct record_share *share);
/* Whether frames are kept until the store has them. Some that `run` accepted are there: one that it
 * is not told of is given to the journal again when all lanes have passed it. */
bool journal_keeps(const struct journal *journal);
void journal_tell_applied(struct journal *journal, uint64_t run,
                          const struct record_applied *frames, uint32_t count);
/* Up to `max` uploads that this process counts, though all below `position` is applied, and of
 * which nothing was heard for a while; each again after a while. */
uint32_t journal_uploads_silent(struct journal *journal, uint64_t position, struct id *to,
                                uint32_t max);
/* Who takes what is for this one, on the committer's thread. NULL, after it has ended: nobody. */
typedef void (*journal_take_share)(void *context, const struct record_share *share);
void journal_on_share(struct journal *journal, journal_take_share take, void *context);

/* --- spool of a stream ------------------------------------------------------ */
/* NULL: none. It needs a start before this one's, and a committer and a preparer. */
struct journal *journal_spool(const struct journal *journal);
/* Why the stream is not written to, before a restart; NULL: it is, when it is there. */
const char *journal_refusal(const struct journal *journal);
/* Whether it takes frames now, and how many the stream does not have. */
bool journal_spooled(const struct journal *journal, uint64_t *ret_frames);
/* Whether a position is the spool's; which one is applied when it is (UINT64_MAX: not known). */
bool journal_is_spooled(const struct journal *journal, uint64_t position);
uint64_t journal_place(const struct journal *journal, uint64_t position);
/* Everything in the spool up to there is applied when everything up to `applied` in the stream is.
 */
uint64_t journal_spool_applied(const struct journal *journal, uint64_t applied);
/* The journal on this machine's disk that holds what others cannot see; NULL: none. */
const struct journal *journal_own(const struct journal *journal);
/* The spool that was used here before this run, which has none, and is empty; zeros: none. */
struct id journal_left(const struct journal *journal);
uint64_t journal_accepted_position(const struct journal *journal); /* of all acknowledged so far */
