/* Data: what is on its way into the store: uploads, frames, batches.
 *
 * Thread: the applier's; a batch is the writer's while its part is posted.
 * Memory: a batch owns its rows and frames until it is reset; an upload that is open is on the
 * heap. Errors: none. */
#pragma once
#include "apply/batch.h"

#include "base/buffer.h"
#include "base/list.h"
#include "base/mailbox.h"
#include "journal/journal.h"
#include "store/store.h"

enum apply_upload_state {
    APPLY_UPLOAD_APPLYING = 1,
    APPLY_UPLOAD_PROCESSED = 2,
    APPLY_UPLOAD_PARTIAL = 3,
    APPLY_UPLOAD_FAILED = 4,
};

/* An upload of few elements and bytes is applied in one transaction. */
#define APPLY_WHOLE_BYTES_MAX (8u << 20u)
/* A message may hold readings by the hundred. */
#define APPLY_WHOLE_READING_BYTES_MAX (512u << 10u)

enum apply_table { APPLY_TABLE_WRITTEN, APPLY_TABLE_MISSING, APPLY_TABLE_UNWRITTEN };

/* An upload whose elements are not all in the store. */
struct apply_upload {
    struct list_link link;
    struct record_upload_end end;
    struct record_frame frame; /* its slices point into head */
    uint8_t *head;
    size_t head_size;
    struct record_slice *slices;
    uint32_t slice_count;
    uint32_t slice_next;    /* first that is not done */
    uint64_t slice_done;    /* elements of it that are done */
    enum apply_table table; /* slices and refused elements: missing until they can be read */
    uint64_t position;
    struct buffer errors;         /* JSON array of refused elements */
    enum err failed;              /* its file cannot be read: this is why */
    struct record_result *result; /* somebody waits for it */
    uint64_t waiter;
    uint64_t pending_count; /* accepted and not applied: so many records of the backlog */
    uint64_t retry_ns;      /* not before */
    uint32_t pause_ms;
    uint32_t io_errors; /* in a row */
    bool is_again;      /* its row is of an earlier frame: the journal was given it twice */
    struct journal_upload_reader *reader;
};

/* Of uploads from before the start that are open, whoever applies them. */
struct apply_found {
    uint64_t records; /* that are not applied */
    uint64_t bytes;   /* stored */
};

enum apply_frame_kind {
    APPLY_FRAME_EVENTS,
    APPLY_FRAME_UPLOAD,     /* an upload begins to exist */
    APPLY_FRAME_UNREADABLE, /* becomes a dead letter whole */
};

/* A frame of the journal, or a step of a slice. */
struct apply_frame {
    enum apply_frame_kind kind;
    uint8_t form;
    uint64_t position;
    uint64_t checksum; /* names it in the journal */
    uint64_t org;
    struct id id;
    int64_t received_ms;
    uint64_t credit_bytes;
    uint32_t credit_records;
    uint64_t waiter; /* RECORD_WAITER_NONE also for one that cannot be told */
    uint64_t run;    /* of the process that it waits in */
    uint32_t first_event;
    uint32_t event_count;
    uint32_t first_reading; /* of messages */
    uint8_t lane;
    uint64_t lanes;         /* of its records that are the applier's */
    uint64_t all_lanes;     /* of all its records */
    uint32_t event_total;   /* in all; below event_count: others apply the rest */
    uint64_t element_count; /* rejected ones too; of a slice: elements done after this step */
    struct apply_upload *upload;
    struct slice bytes; /* kept as a dead letter: it could not be read, or not all of it */
};

struct applier;

struct apply_batch {
    struct store_job job;
    struct applier *applier;
    struct mem_arena *arena;
    struct store_packed *events;
    size_t texts;              /* bytes of the events that lie in the arena */
    struct store_spill *spill; /* for those of more events; NULL: there is none */
    bool has_no_spill;         /* it could not be made for this batch */
    uint64_t *elements;        /* number of each event in its frame or upload */
    uint32_t event_count;
    uint32_t event_capacity;
    struct store_reading *readings; /* of the events that are messages */
    uint32_t reading_count;
    uint32_t reading_capacity;
    struct apply_frame *frames;
    uint32_t frame_count;
    uint32_t frame_capacity;
    size_t bytes;
    uint64_t first_ns;           /* when its first frame was read */
    struct apply_upload *upload; /* NULL: frames; else a slice of it */
    bool is_whole;               /* all its slices */
    bool is_closed;
    bool is_waited_for; /* one of its frames has a waiter */
    /* The part that the writer has: frames [part_from, part_to). */
    uint32_t part_from;
    uint32_t part_to;
    bool careful;
    bool has_run;
    uint64_t posted_ns;
};

/* What is due by itself: roll-ups, silent devices. */
#define APPLY_TELEMETRY_ORGS 64u
struct apply_telemetry {
    struct store_job job;
    struct applier *applier;
    bool is_posted;
    bool has_news;    /* readings were applied since the job was posted */
    uint64_t due_ns;  /* 0: at once */
    uint32_t minutes; /* dirty ones to take in the next job */
    uint32_t minutes_max;
    struct store_rollup_place place;      /* as it was committed last */
    struct store_rollup_place next_place; /* of the job */
    int64_t until_ms; /* wall: what came before was applied when the job was posted */
    uint64_t holder;  /* of the lease, where other nodes use the store too */
    uint64_t retention_due_ns;
    bool is_retention_due;            /* in the job that is posted */
    struct store_retention retention; /* as it was committed last */
    struct store_retention step;      /* of the job */
    /* What the last job said. */
    bool is_held; /* the lease */
    uint32_t done;
    int64_t silent_due_ms;
    bool has_orgs_due; /* devices of some org have to follow its settings */
    uint32_t org_count;
    uint64_t orgs[APPLY_TELEMETRY_ORGS];
};

struct apply_dead_letter {
    const uint8_t *id;
    uint64_t org;
    const char *kind;
    const char *reason;
    const char *detail; /* may be NULL */
    uint64_t position;
    uint64_t element;
    uint8_t form;
    struct slice record;
    int64_t received_ms;
};

/* The result of a frame that several appliers share, until the last of them has its part. */
struct apply_shared_result {
    struct record_result result;
    uint32_t done; /* events */
};

/* A frame of several lanes: it leaves the backlog when all lanes have passed it. */
struct apply_mixed {
    uint64_t position;
    uint64_t org;
    uint64_t bytes;
    uint32_t records;
};

struct apply_release {
    uint64_t commit;
    uint64_t position;
};

struct apply_old_upload {
    struct id id;
    uint64_t org;
};
