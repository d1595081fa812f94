/* Record: what flows, and its bytes in the journal.
 *
 * The journal holds what came in, verified, as it came; what it means is read again when it is
 * applied. So a frame is a head that says who sent it, when, and in which form, and then the body.
 *
 * Thread: pure.
 * Memory: decoded slices point into the frame's bytes.
 * Errors: ERR_CORRUPT for bytes that are no frame of a known version; ERR_TOO_LARGE for more
 *         attributes than RECORD_ATTRIBUTES_MAX. */
#pragma once
#include <stdbool.h>

#include "base/buffer.h"
#include "base/err.h"
#include "base/id.h"
#include "base/limits.h"
#include "base/slice.h"

/* How the body of a frame is to be read. Numbers are for ever. */
enum record_form {
    RECORD_FORM_EVENT = 1,             /* one event object */
    RECORD_FORM_EVENT_ARRAY = 2,       /* JSON array of event objects */
    RECORD_FORM_EVENT_LINES = 3,       /* NDJSON */
    RECORD_FORM_CLOUDEVENT = 4,        /* structured mode */
    RECORD_FORM_CLOUDEVENT_BINARY = 5, /* ce- headers are attributes, the body is the data */
    RECORD_FORM_CLOUDEVENT_BATCH = 6,
    RECORD_FORM_SEGMENT_BATCH = 7, /* {"batch":[…]} of Segment and RudderStack clients */
    RECORD_FORM_SEGMENT_CALL = 8,  /* one track, identify or page; attribute "call" */
    RECORD_FORM_POSTHOG_BATCH = 9, /* {"api_key","batch":[…]} */
    RECORD_FORM_READING = 10,      /* one message of a device, of several metrics */
    RECORD_FORM_READING_ARRAY = 11,
    RECORD_FORM_READING_LINES = 12,
    RECORD_FORM_UPLOAD_END = 64, /* struct record_upload_end: an upload exists from here on */
};

enum {
    RECORD_FLAG_ATOMIC = 1, /* all elements or none */
};

#define RECORD_LANE_MIXED     255u /* elements of several lanes */
#define RECORD_ATTRIBUTES_MAX 64u
#define RECORD_WAITER_NONE    0u

/* A header of the request that belongs to the record: traceparent, idempotency-key, ce-…,
 * content-type. Names in lower case. */
struct record_attribute {
    struct slice name;
    struct slice value;
};

struct record_frame {
    uint8_t form; /* enum record_form */
    uint8_t lane; /* 0 to LIMIT_LANES - 1, or RECORD_LANE_MIXED */
    uint16_t flags;
    uint64_t org;          /* number of the org in the store */
    uint64_t key;          /* number of the key that wrote it */
    int64_t received_ms;   /* wall clock */
    struct id id;          /* v7; elements without dedup_id derive theirs from it */
    uint64_t waiter;       /* slot that waits for the result, or RECORD_WAITER_NONE */
    uint64_t run;          /* random number of the process that set waiter: void in another run */
    uint32_t record_count; /* elements accepted (rejected ones stay in the body) */
    uint32_t attribute_count;
    struct record_attribute attributes[RECORD_ATTRIBUTES_MAX];
    struct slice body;
};

/* Appends head and attributes to `to`; the body follows as it is, so a frame is written in two
 * pieces and never copied. The byte format stands at the head of frame.c. */
MUST_CHECK enum err record_frame_encode_head(const struct record_frame *frame, struct buffer *to);
MUST_CHECK enum err record_frame_decode(struct slice bytes, struct record_frame *ret);
/* The id alone; false: it is no frame. */
bool record_frame_id(struct slice bytes, struct id *ret);
/* Value of an attribute, or data NULL. */
struct slice record_frame_attribute(const struct record_frame *frame, const char *name);
/* Lane of a key whose order matters, within an org. */
uint8_t record_lane(uint64_t org, struct slice key);

/* Body of RECORD_FORM_UPLOAD_END. */
struct record_upload_end {
    struct id upload;
    uint8_t form; /* enum record_form of the decoded bytes */
    uint64_t decoded_bytes;
    uint64_t stored_bytes;
    uint64_t element_count; /* in all, rejected ones too */
    uint64_t accepted_count;
    uint64_t rejected_count;
    uint32_t slice_count;
};
#define RECORD_UPLOAD_END_BYTES 64u
void record_upload_end_encode(const struct record_upload_end *end,
                              uint8_t to[RECORD_UPLOAD_END_BYTES]);
MUST_CHECK enum err record_upload_end_decode(struct slice bytes, struct record_upload_end *ret);

/* One row of an upload's table of contents: elements from `offset` on begin with number `index`. A
 * slice ends where the next begins. The table of an events upload is these rows, one after the
 * other, then rows of struct record_reject (`rejected_count` of them, at most
 * LIMIT_BATCH_ITEMS_ANSWERED). */
struct record_slice {
    uint64_t offset; /* in the decoded bytes */
    uint64_t index;  /* of its first element */
    uint64_t count;  /* elements in it */
};
#define RECORD_SLICE_BYTES 24u
void record_slice_encode(const struct record_slice *slice, uint8_t to[RECORD_SLICE_BYTES]);
void record_slice_decode(const uint8_t from[RECORD_SLICE_BYTES], struct record_slice *ret);

/* An element that was refused. Texts are cut at their room. */
struct record_reject {
    uint64_t index;
    uint64_t offset; /* of the element in the decoded bytes */
    struct slice code;
    struct slice pointer; /* JSON Pointer within the element */
    struct slice message;
};
#define RECORD_REJECT_BYTES 192u
void record_reject_encode(const struct record_reject *reject, uint8_t to[RECORD_REJECT_BYTES]);
/* The slices point into `from`. */
void record_reject_decode(const uint8_t from[RECORD_REJECT_BYTES], struct record_reject *ret);

/* An event as it is meant. Slices point into the body, or into the arena of who read it. */
struct record_event {
    struct id id;
    struct slice type;
    struct slice payload;  /* one JSON value, as it came */
    struct slice dedup_id; /* size 0: none */
    struct slice subject;  /* data NULL: none; the same for the next three */
    struct slice source;
    struct slice app;
    struct slice attributes; /* JSON object of what else came (extensions, unknown members,
                                traceparent), or data NULL */
    int64_t occurred_ms;     /* as given, else received_ms */
    int64_t received_ms;
    uint64_t index; /* element number in its frame or upload */
};

/* Its order matters within its subject; without one it has an order of its own. */
uint8_t record_event_lane(uint64_t org, const struct record_event *event);

/* One metric of a device's message. The message itself is a record_event: its payload is the
 * message as it came, its subject the device, its source the protocol, its dedup_id the event_id.
 */
struct record_reading {
    struct id device;
    struct id project;      /* zero: not said */
    struct id site;         /* zero: not said */
    struct slice parameter; /* key, or name within the device's project */
    struct slice source;    /* data NULL: none; the same for the next two */
    struct slice event_id;
    struct slice attributes; /* JSON object, as it came */
    double value;
    bool has_value;  /* false: null */
    int16_t quality; /* 0 to 255, -1: not said */
    int64_t time_ms; /* as the device says, else received_ms */
    int64_t received_ms;
};

/* What became of a frame in the store, for who waits. */
enum record_item_state {
    RECORD_ITEM_REJECTED, /* invalid; never accepted */
    RECORD_ITEM_INSERTED,
    RECORD_ITEM_DUPLICATE,
    RECORD_ITEM_CONFLICT, /* duplicate id, other payload; the first stays */
    RECORD_ITEM_REFUSED,  /* the store refused it; a dead letter */
};
struct record_result {
    enum err err; /* ERR_OK: applied */
    uint64_t position;
    uint64_t inserted;
    uint64_t duplicates; /* conflicts included */
    uint64_t conflicts;
    uint64_t refused;
    uint32_t item_count; /* states below: the first LIMIT_BATCH_ITEMS_ANSWERED elements */
    uint8_t items[LIMIT_BATCH_ITEMS_ANSWERED]; /* enum record_item_state */
};

/* That a frame is in the store, for who accepted it. */
struct record_applied {
    uint64_t checksum; /* the frame's, in its journal */
    uint64_t lanes;    /* of its records that are in the store … */
    uint64_t all;      /* … and of all of them */
};

/* What one applier made of a frame, for the node of `run`. Several may apply parts of it: then each
 * says REJECTED of the elements of the others. */
struct record_share {
    uint64_t run;
    uint64_t waiter; /* RECORD_WAITER_NONE: nobody */
    uint32_t done;   /* of its events */
    uint32_t total;
    struct id upload; /* that is over with it; all zero: none */
    struct record_result result;
};
#define RECORD_SHARE_HEAD_BYTES 88u
MUST_CHECK enum err record_share_encode(const struct record_share *share, struct buffer *to);
MUST_CHECK enum err record_share_decode(struct slice bytes, struct record_share *ret);
