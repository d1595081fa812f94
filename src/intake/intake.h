/* Intake: request bodies -> journal. Verifies as chunks arrive, answers when durable.
 *
 * Up to LIMIT_SMALL_BODY_BYTES decoded the request is one frame; beyond that the body becomes an
 * upload while it is still arriving. Accepting is atomic at any size.
 *
 * Thread: an intake belongs to one loop; on_result may be called by any thread.
 * Memory: small bodies and elements cut by chunks stand in a pool of fixed total size
 *         (pool_bytes); nothing else grows with a body.
 * Errors: in the answer; a body refused leaves nothing behind. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "base/mailbox.h"
#include "format/format.h"
#include "record/record.h"

struct intake;
struct intake_request;
struct journal;
struct journal_producer;

struct intake_options {
    struct journal *journal;
    struct journal_producer *producer; /* of this loop */
    struct mailbox *mailbox;           /* of this loop */
    uint32_t loop_index;
    uint64_t run;                 /* random number of this process */
    uint64_t pool_bytes;          /* at least 1 MiB */
    uint32_t waiters_max;         /* requests that may wait for the store at once; beyond it
                                     wait=stored is answered when durable */
    struct intake_recent *recent; /* shared by all loops */
};

/* Ids accepted of late on this node, for the duplicate hint: about the last million. Any thread. */
struct intake_recent *intake_recent_create(uint32_t ids);
void intake_recent_destroy(struct intake_recent *recent);

MUST_CHECK enum err intake_create(struct intake **ret, const struct intake_options *options);
/* After the last mail of the loop's mailbox ran. Requests that are not answered by then never are.
 * NULL is fine. */
void intake_destroy(struct intake *intake);
/* At the end of each round: submits what was appended, looks whether there is room for those that
 * pause, and refuses (ERR_TIMEOUT) who was paused for 30 s. While one pauses there must be a round
 * now and then. */
void intake_round_end(struct intake *intake);

enum intake_wait { INTAKE_WAIT_JOURNAL, INTAKE_WAIT_STORED };

struct intake_item {
    uint64_t index;
    struct id id;
    uint8_t status;   /* enum intake_status */
    const char *code; /* of a rejected one */
    const char *message;
    char pointer[64];
};
enum intake_status { INTAKE_ACCEPTED, INTAKE_DUPLICATE, INTAKE_REJECTED };

struct intake_answer {
    /* ERR_OK: taken, or an empty batch, of which there was nothing to take.
     * ERR_SYNTAX, ERR_DEPTH, ERR_TOO_LARGE, and ERR_INVALID with rejected 0: the body, see fault.
     * ERR_INVALID with rejected above 0: well-formed, its elements are not (all of them, or one of
     * an atomic batch, or the single event: then fault says why).
     * ERR_REFUSED: a single event that the store refused; it is a dead letter.
     * ERR_FULL, ERR_TIMEOUT, ERR_NO_SPACE, ERR_IO, ERR_DRAINING, ERR_NO_MEMORY: nothing was kept.
     */
    enum err err;
    struct format_fault fault;
    bool is_single;
    bool is_upload;
    bool is_stored; /* the store's result is in; duplicates and items are exact */
    bool conflict;  /* single: known dedup_id with another payload */
    struct id id;   /* single: the event's; else the frame's or upload's */
    uint64_t position;
    uint64_t accepted;   /* new, as far as is known */
    uint64_t duplicates; /* taken too, not counted in accepted */
    uint64_t rejected;
    const struct intake_item *items; /* index order; see API.md for which; of a batch that is
                                        refused only the rejected ones */
    uint32_t item_count;
};

struct intake_begin {
    uint64_t org;
    uint64_t key;
    const uint8_t *id_key; /* 32 bytes; copied */
    enum record_form form; /* RECORD_FORM_EVENT with may_be_array: decided by the first byte */
    bool may_be_array;     /* JSON without a declared shape */
    uint64_t body_bytes;   /* when known before (no coding, not chunked); 0: not known. A body that
                              comes whole in the first chunk is then taken in that call */
    int64_t received_ms;   /* wall; 0: now */
    bool atomic;
    enum intake_wait wait;
    const struct record_attribute *attributes; /* copied */
    uint32_t attribute_count;
    struct slice idempotency_key; /* copied; data NULL: none */
    /* Exactly once, on the loop's thread, possibly from inside intake_end, intake_data or
     * intake_round_end. The answer and the request are void after it returns. */
    void (*on_answer)(struct intake_request *request, const struct intake_answer *answer,
                      void *context);
    /* Room again, while the request paused: go on reading. */
    void (*on_room)(struct intake_request *request, void *context);
    void *context;
};
/* ERR_FULL, ERR_NO_SPACE, ERR_DRAINING: nothing was begun; answer 429 or 503 at once.
 * ERR_TOO_LARGE: more attributes than a frame holds. The request may pause from here on. */
MUST_CHECK enum err intake_open(struct intake *intake, const struct intake_begin *begin,
                                struct intake_request **ret);
/* After on_answer ran (early refusal) the rest of the body must not be given. *ret_pause: stop
 * reading until on_room. */
void intake_data(struct intake_request *request, struct slice chunk, bool *ret_pause);
void intake_end(struct intake_request *request);
/* Paused, before its end or behind it: it waits for room, see intake_round_end. */
bool intake_is_paused(const struct intake_request *request);
/* The client went away. True: nothing is taken, no answer comes and the request is void. False: its
 * frame is with the journal, the answer still comes, perhaps from inside, and nobody waits for the
 * store any more. */
MUST_CHECK bool intake_cancel(struct intake_request *request);
/* Durable at *ret_position, and only the store's result is missing. Not of an upload, which is
 * applied long after its position is. */
bool intake_wants_result(const struct intake_request *request, uint64_t *ret_position);
/* After intake_end with INTAKE_WAIT_STORED: wait for the store no longer. on_answer runs with
 * is_stored false, at once (also from inside) when the frame is durable, else when it is. */
void intake_stop_waiting(struct intake_request *request);

/* Any thread (the applier's): the result for a waiter of a frame of this run, once for each. */
void intake_on_result(struct intake *intake, uint64_t waiter, const struct record_result *result);
/* Loop number inside a waiter. */
uint32_t intake_waiter_loop(uint64_t waiter);
