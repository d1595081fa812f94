/* Request, private: the state of a body on its way into the journal.
 *
 *            begin                whole body        durable          result
 *   (free) -------> BODY ------------------> SYNC ---------> STORE --------> (free)
 *                    | above 256 KiB          ^   durable, nobody waits for the store
 *                    v            end         |  --------------------------> (free)
 *                  UPLOAD --------------------+
 *   BODY, UPLOAD, SYNC: refused or cancelled -> (free)
 *
 * request.c alone changes the state.
 *
 * Thread: the loop's.
 * Memory: requests come from a free list of the intake; their blocks from its pool.
 * Errors: intake_refuse answers and frees. After it, and after intake_append and intake_answer, the
 *         request is void. */
#pragma once
#include "base/list.h"
#include "intake/intake.h"
#include "intake/pool.h"
#include "intake/recent.h"
#include "intake/waiters.h"
#include "journal/journal.h"

#define INTAKE_ATTRIBUTES_INLINE 8u
#define INTAKE_TEXTS_INLINE      768u
#define INTAKE_UPLOADS_KEPT      2u     /* readers kept for the next uploads */
#define INTAKE_MARKS_MAX         16384u /* ids of one batch beyond the answered ones */
#define INTAKE_SLICE_BYTES       ((uint64_t)1024 * 1024)
#define INTAKE_SLICE_ELEMENTS    8192u
#define INTAKE_PAUSE_MS_MAX      30000u
#define INTAKE_LOOK_MS           20u                     /* for room, no more often */
#define INTAKE_LANE_NONE         (RECORD_LANE_MIXED - 1) /* no element yet */

enum intake_state { INTAKE_BODY, INTAKE_UPLOAD, INTAKE_SYNC, INTAKE_STORE };

/* One of the first LIMIT_BATCH_ITEMS_ANSWERED elements. */
struct intake_note {
    struct id id;
    uint64_t status; /* enum intake_status */
};

struct intake_reject {
    uint64_t index;
    uint64_t offset;
    const char *code;
    const char *message;
    char pointer[64];
};

/* An element that is taken and waits for its id. */
struct intake_due {
    struct id id;
    bool is_due; /* its id is one of the intake's four */
    bool has_subject;
};

/* What the elements of a batch come to. */
struct intake_tally {
    uint64_t accepted;
    uint64_t duplicates;
    uint64_t rejected;
    struct intake_chain notes;   /* struct intake_note, in order of index from 0 */
    struct intake_chain rejects; /* struct intake_reject, the first LIMIT_BATCH_ITEMS_ANSWERED */
    struct intake_chain marks;   /* uint64_t, of elements beyond the notes */
    uint8_t lane;
    uint32_t due_count;
    uint32_t asked_count;
    struct intake_due due[BLAKE2B_TOGETHER]; /* the last taken elements, not counted yet */
    struct id asked[BLAKE2B_TOGETHER];       /* those before them, not counted yet either */
};

struct intake_upload {
    struct intake_upload *next_free;
    struct format_reader *reader;
    struct journal_upload *journal; /* NULL: an atomic batch that is refused, read to its end */
    struct record_slice slice;      /* the one that grows */
    uint32_t slice_count;           /* noted */
    uint64_t decoded_bytes;
    bool is_whole; /* its last block waits for room; then the end record follows */
};

struct intake_request {
    struct list_link live;  /* in the intake's requests */
    struct list_link pause; /* in its paused ones, by time */
    struct journal_ticket ticket;
    struct intake *intake;
    enum intake_state state;
    enum record_form form;
    bool may_be_array; /* until the first byte is seen */
    bool is_single;
    bool atomic;
    bool waits_for_store; /* wishes to, until it is told to stop */
    bool is_upload;       /* its end record is with the journal */
    uint64_t org;
    uint64_t key;
    uint64_t body_bytes_known;
    uint8_t id_key[32];
    int64_t received_ms;
    struct id frame_id;
    void (*on_answer)(struct intake_request *request, const struct intake_answer *answer,
                      void *context);
    void (*on_room)(struct intake_request *request, void *context);
    void *context;
    struct record_attribute *attributes;
    uint32_t attribute_count;
    uint8_t *attribute_block; /* of the pool; NULL: inline */
    uint8_t *body;            /* block of the pool */
    size_t body_size;
    size_t body_room;
    uint8_t *held; /* block of the pool: the chunk that an upload would have begun with */
    size_t held_size;
    bool waits_for_slot; /* of the journal's uploads */
    uint64_t paused_ms;  /* monotonic */
    struct id event_id;  /* single */
    struct intake_tally tally;
    struct intake_upload *upload;
    uint64_t waiter;
    const struct record_result *result; /* in the waiter's slot */
    uint64_t position;
    struct record_attribute attributes_inline[INTAKE_ATTRIBUTES_INLINE];
    uint8_t texts_inline[INTAKE_TEXTS_INLINE];
};

struct intake {
    struct intake_options options;
    struct intake_pool pool;
    struct intake_waiters waiters;
    struct format_reader *reader; /* of bodies that are whole */
    struct list requests;
    struct list paused;
    struct list unused;
    struct intake_upload *uploads_unused;
    uint32_t uploads_unused_count;
    uint64_t looked_ms; /* for room, monotonic */
    bool is_waking;     /* paused requests are being resumed */
    struct id_four ids; /* of the batch that is being read */
    struct buffer head; /* of the frame that is being appended */
    struct record_frame frame;
    struct intake_item *items; /* of the answer that is being given */
};

/* --- request.c ----------------------------------------------------------------------------- */
/* The context that names and dates the request's events. */
void intake_context(const struct intake_request *request, struct format_context *ret);
/* Head and attributes of the request's frame; body empty. The intake's own frame. */
struct record_frame *intake_frame(struct intake_request *request, enum record_form form);
/* Encodes the frame's head with a waiter if one is wanted, into the intake's head buffer. */
MUST_CHECK enum err intake_encode(struct intake_request *request, struct record_frame *frame);
struct journal_frame_parts intake_parts(const struct intake_request *request,
                                        const struct record_frame *frame);
/* The frame is with the journal: its ticket will come. */
void intake_appended(struct intake_request *request);
/* One frame for the whole request. */
void intake_append(struct intake_request *request, struct record_frame *frame);
void intake_turn_upload(struct intake_request *request);
void intake_pause(struct intake_request *request);
/* Pauses a body that is too large for a frame and cannot begin as an upload yet. */
void intake_wait_for_slot(struct intake_request *request);
void intake_resume(struct intake_request *request);
/* The large blocks that are free go to those who wait, first come first served. */
void intake_wake_paused(struct intake *intake);
void intake_release(struct intake_request *request);

/* --- answer.c ------------------------------------------------------------------------------ */
void intake_refuse(struct intake_request *request, enum err err, const struct format_fault *fault);
/* Durable; with the store's result when there is one. */
void intake_answer(struct intake_request *request);
/* Of a whole batch, by its tally. False: there is nothing to be taken of it; it was answered. */
MUST_CHECK bool intake_takes_any(struct intake_request *request);

/* --- tally.c ------------------------------------------------------------------------------- */
/* Where a batch's ids are made together, emptied of what a refused one left. */
struct id_four *intake_tally_ids(struct intake_request *request);
/* `reader`: that has read the item last, with the intake's ids in its context. ERR_FULL: the pool
 * has no room for what the answer needs. */
MUST_CHECK enum err intake_tally_add(struct intake_request *request,
                                     const struct format_reader *reader,
                                     const struct format_item *item);
/* The last elements are counted too: before the counts and notes are read, and before the intake
 * reads something else. */
MUST_CHECK enum err intake_tally_end(struct intake_request *request);
/* It will be asked soon whether this id is known. */
void intake_call_known(const struct intake_request *request, struct id id);
/* A single event is durable, and not remembered yet: whether it was known before. */
void intake_tally_single(struct intake_request *request);
/* Durable: its ids are known from now on. */
void intake_remember(struct intake_request *request);

/* --- single.c, batch.c, upload.c ------------------------------------------------------------ */
void intake_single(struct intake_request *request, struct slice body);
void intake_batch(struct intake_request *request, struct slice body);
/* The body turns into an upload: what was collected of it, and the chunk. */
void intake_upload_begin(struct intake_request *request, struct slice chunk, bool *ret_pause);
/* One that pauses goes on if it can; it may be answered and void. */
void intake_upload_retry(struct intake_request *request);
void intake_upload_data(struct intake_request *request, struct slice chunk, bool *ret_pause);
void intake_upload_end(struct intake_request *request);
/* Gives back what the upload holds; its file goes. */
void intake_upload_drop(struct intake_request *request);
void intake_uploads_finish(struct intake *intake);
