/* Query: SQL -> answers: events, inbox, acknowledging, live tail, uploads, dead letters.
 *
 * Thread: everything runs inside a store job, on the connection it was given; cursors are pure.
 * Memory: answers are appended to the caller's buffer, whose limit bounds them; inputs are the
 *         caller's.
 * Errors: ERR_NOT_FOUND also for what belongs to another org; ERR_TOO_LARGE the answer does not fit
 *         the buffer; the store's errors as they are. After an error the buffer's content is void.
 */
#pragma once
#include <stdbool.h>

#include "base/buffer.h"
#include "base/err.h"
#include "base/id.h"
#include "base/slice.h"

struct store_connection;

/* --- cursors: opaque, bound to what they continue ----------------------------------------------
 */
enum query_list {
    QUERY_LIST_EVENTS_NEWEST,
    QUERY_LIST_EVENTS_OLDEST,
    QUERY_LIST_TAIL,
    QUERY_LIST_UPLOADS,
    QUERY_LIST_DEAD_LETTERS,
    QUERY_LIST_AUDIT,
    QUERY_LIST_KEYS,
    /* The same lists in their other order. */
    QUERY_LIST_UPLOADS_OLDEST,
    QUERY_LIST_DEAD_LETTERS_OLDEST,
    QUERY_LIST_AUDIT_OLDEST,
    QUERY_LIST_KEYS_NEWEST,
    QUERY_LIST_READINGS,
    QUERY_LIST_READINGS_NEWEST,
    QUERY_LIST_VERSIONS,
    QUERY_LIST_PACKETS,
    QUERY_LIST_REGISTRY, /* and seven more: the four kinds, newest and oldest first */
    QUERY_LIST_AFTER_REGISTRY = QUERY_LIST_REGISTRY + 8,
};
#define QUERY_CURSOR_TEXT_BYTES 18
/* `place` is the number of the last row that was given. Writes exactly QUERY_CURSOR_TEXT_BYTES, no
 * NUL. */
void query_cursor_format(enum query_list list, uint64_t org, uint64_t place,
                         char to[QUERY_CURSOR_TEXT_BYTES]);
/* False for a text that was not made for this list and org; *ret_place is untouched then. */
bool query_cursor_parse(enum query_list list, uint64_t org, struct slice text, uint64_t *ret_place);
/* Appends `,"next_cursor":"…"}` or `,"next_cursor":null}`, the end of every list. */
MUST_CHECK enum err query_list_end(enum query_list list, uint64_t org, bool has_more,
                                   uint64_t place, struct buffer *to);

/* --- what an answer depends on -----------------------------------------------------------------
 */
/* Raised by every change that an answer can show; read in the answer's own snapshot. */
MUST_CHECK enum err query_data_version(struct store_connection *connection, uint64_t org,
                                       uint64_t *ret_version);

/* --- events ------------------------------------------------------------------------------------
 */
enum query_status {
    QUERY_STATUS_ANY,
    QUERY_STATUS_OPEN, /* all but acknowledged ones */
    QUERY_STATUS_PENDING,
    QUERY_STATUS_DELIVERED,
    QUERY_STATUS_FAILED,
    QUERY_STATUS_ACKNOWLEDGED,
};
/* "pending", "delivered", "failed", "acknowledged"; "all" and "any" are QUERY_STATUS_ANY. */
bool query_status_parse(struct slice text, enum query_status *ret);

/* data NULL: every one. */
struct query_filter {
    uint64_t org;
    struct slice type;
    struct slice subject;
    struct slice app;
};
enum query_format { QUERY_JSON, QUERY_NDJSON, QUERY_CSV };
struct query_events {
    struct query_filter filter;
    enum query_status status;
    int64_t start_ms; /* created at or after; INT64_MIN: no bound */
    int64_t end_ms;   /* created before; INT64_MAX: no bound */
    bool oldest_first;
    uint32_t limit;
    uint64_t after;   /* place of the cursor; 0: from the start */
    uint64_t until;   /* place of the last that may be given; 0: the newest */
    size_t bytes_max; /* a page ends when it is above this; 0: LIMIT_PAGE_BYTES */
    /* A page that takes longer ends where it is, with a cursor, even without an event in it; the
     * clock is looked at after each so many sequences, or 64 stretches. 0: 100 ms, 65,536. */
    uint64_t page_ns;
    uint64_t window;
};
/* {"events":[…],"next_cursor":…}. A page ends early when it is above LIMIT_PAGE_BYTES. */
MUST_CHECK enum err query_events_list(struct store_connection *connection,
                                      const struct query_events *query, struct buffer *to);
/* A page of the events alone: comma-separated objects, a line each, or rows of a table. */
struct query_events_end {
    uint64_t place; /* where the next page goes on */
    uint32_t count;
    bool has_more;
};
MUST_CHECK enum err query_events_page(struct store_connection *connection,
                                      const struct query_events *query, enum query_format format,
                                      struct buffer *to, struct query_events_end *ret);
/* The first line of that table. */
MUST_CHECK enum err query_events_csv_head(struct buffer *to);
/* The event's object alone. */
MUST_CHECK enum err query_event_get(struct store_connection *connection, uint64_t org, struct id id,
                                    struct buffer *to);

/* Marks the events as acknowledged; one that is so already counts again. Inside a durable job. */
MUST_CHECK enum err query_acknowledge(struct store_connection *connection, uint64_t org,
                                      const struct id *ids, uint32_t count,
                                      uint32_t *ret_acknowledged);

/* Forms of bodies that hold readings, as SQL; all others hold events. */
#define QUERY_READING_FORMS "(10, 11, 12)"

/* --- erasing -----------------------------------------------------------------------------------
 */
/* What of an org is to go: one event, or all of a subject or of an app. */
#define QUERY_ERASE_ROWS_MAX 500u
struct query_erase {
    struct query_filter filter; /* org, and subject or app; */
    const struct id *id;        /* or this */
    uint32_t limit;             /* rows that one step may touch: QUERY_ERASE_ROWS_MAX at most */
    /* Where the next step goes on; 0 before the first. */
    uint64_t after;
    uint64_t letters_after;
    /* So far: */
    uint64_t events;
    uint64_t dead_letters;
    uint64_t uploads; /* whose raw bodies go */
    bool has_more;
};
/* One step, inside a durable job. What an event said goes; its id stays taken, so neither a retry
 * of its client nor anything that is applied once more brings it back. Raw bodies that hold such
 * events are given to nobody any more and deleted within the hour. ERR_EXISTS: an upload of the
 * org is being applied, whose events may be among them. */
MUST_CHECK enum err query_erase_step(struct store_connection *connection,
                                     struct query_erase *erase);

/* Whether another node than the one that has the journal `own` may hold records that it accepted
 * before *since_ms (the database's time; 0: now, and it is set) and has not applied. On the writer.
 */
MUST_CHECK enum err query_is_behind(struct store_connection *connection, struct id own,
                                    int64_t *since_ms, bool *ret);

/* --- live tail ---------------------------------------------------------------------------------
 */
struct query_tail {
    struct query_filter filter;
    uint64_t key; /* ERR_UNAUTHORIZED once it is revoked or expired */
    int64_t now_ms;
    uint64_t after;   /* place: events above it, in commit order */
    size_t bytes_max; /* stops after the event that passes it */
    uint64_t window;  /* sequences that one page looks at, at most; 0: 65,536 */
};
/* Server-sent events, one a row: id, data. *ret_place: where to go on, *ret_more: at once. */
MUST_CHECK enum err query_tail_read(struct store_connection *connection,
                                    const struct query_tail *query, struct buffer *to,
                                    uint64_t *ret_place, bool *ret_more);
/* Place of the newest event. */
MUST_CHECK enum err query_tail_end(struct store_connection *connection, uint64_t org,
                                   uint64_t *ret_place);

/* --- uploads -----------------------------------------------------------------------------------
 */
/* What the body of an upload, or a dead letter, is about. */
enum query_area { QUERY_AREA_EVENTS = 1, QUERY_AREA_READINGS = 2 };
struct query_page {
    uint64_t org;
    uint32_t limit;
    uint64_t after; /* place of the cursor; 0: from the start */
    bool oldest_first;
    uint32_t areas; /* enum query_area, a set: of what is shown */
};
/* {"uploads":[…],"next_cursor":…}. */
MUST_CHECK enum err query_uploads_list(struct store_connection *connection,
                                       const struct query_page *page, struct buffer *to);
MUST_CHECK enum err query_upload_get(struct store_connection *connection, uint64_t org,
                                     struct id id, uint32_t areas, struct buffer *to);
/* How its body is to be read (enum record_form); ERR_NOT_FOUND also when the body is gone. */
MUST_CHECK enum err query_upload_form(struct store_connection *connection, uint64_t org,
                                      struct id id, uint32_t areas, uint32_t *ret_form);
/* ERR_EXISTS while it is being applied (ERR_BUSY would be the engine). Otherwise it writes, so that
 * the caller's durable commit makes durable what applying the upload wrote: only then may the file
 * go. */
MUST_CHECK enum err query_upload_settle(struct store_connection *connection, uint64_t org,
                                        struct id id, uint32_t areas);
/* Forgets an upload that is finished; ERR_EXISTS while it is being applied. */
MUST_CHECK enum err query_upload_delete(struct store_connection *connection, uint64_t org,
                                        struct id id, uint32_t areas);

/* --- readings ----------------------------------------------------------------------------------
 */
struct query_readings_place {
    uint64_t series; /* 0: from the start */
    int64_t time_ms;
};
#define QUERY_READINGS_CURSOR_BYTES (2 * QUERY_CURSOR_TEXT_BYTES)
void query_readings_cursor_format(bool newest_first, uint64_t org,
                                  const struct query_readings_place *place,
                                  char to[QUERY_READINGS_CURSOR_BYTES]);
bool query_readings_cursor_parse(bool newest_first, uint64_t org, struct slice text,
                                 struct query_readings_place *ret);

enum query_aggregate { QUERY_AVG, QUERY_MIN, QUERY_MAX, QUERY_SUM, QUERY_LAST, QUERY_COUNT };

enum query_readings_form {
    QUERY_READINGS_JSON,
    QUERY_READINGS_ROWS, /* [{"time":…,"value":…}] and no cursor */
    QUERY_READINGS_NDJSON,
    QUERY_READINGS_CSV,
    QUERY_READINGS_TXT, /* tabs between the cells */
};

struct query_readings {
    uint64_t org;
    bool has_device;
    bool has_site;
    struct id device;
    struct id site;
    struct slice parameter; /* key, or the last part of it; data NULL: every one */
    int64_t start_ms;       /* at or after; INT64_MIN: no bound */
    int64_t end_ms;         /* before; INT64_MAX: no bound */
    bool newest_first;
    bool latest;      /* the newest of each series alone */
    bool is_bucketed; /* points of `width` (index of store_rollup_widths_ms) */
    uint32_t width;
    enum query_aggregate aggregate; /* what stands as value */
    enum query_readings_form form;
    bool readable;    /* of CSV and TXT: names in place of ids */
    size_t bytes_max; /* of a page; 0: 3 MiB */
    uint32_t limit;
    struct query_readings_place after;
};
struct query_readings_end {
    uint32_t count;
    bool has_more;
    struct query_readings_place place; /* of the last one */
};
/* What stands before the first line of CSV and TXT. */
MUST_CHECK enum err query_readings_head(const struct query_readings *query, struct buffer *to);
/* Items alone: with commas between, or lines. */
MUST_CHECK enum err query_readings_page(struct store_connection *connection,
                                        const struct query_readings *query, struct buffer *to,
                                        struct query_readings_end *ret);
/* {"readings":[…],"next_cursor":…}, or {"bucket","agg","points":[…],…}, by series and within it by
 * time. A page that is cut has "truncated":true. */
MUST_CHECK enum err query_readings_list(struct store_connection *connection,
                                        const struct query_readings *query, struct buffer *to);

/* --- packet health -------------------------------------------------------------------------------
 */
enum query_packets_scope { PACKETS_OF_ORG, PACKETS_OF_PROJECT, PACKETS_OF_SITE, PACKETS_OF_DEVICE };
struct query_packets {
    uint64_t org;
    enum query_packets_scope scope;
    struct id id; /* of the scope */
    int64_t now_ms;
    int64_t hours; /* the window, up to now */
    uint32_t limit;
    uint64_t after; /* place of the cursor; 0: from the start */
};
/* {"start","end","devices":[…],"next_cursor":…} */
MUST_CHECK enum err query_packets_devices(struct store_connection *connection,
                                          const struct query_packets *query, struct buffer *to);
/* The site's sums, its status and its devices. */
MUST_CHECK enum err query_packets_site(struct store_connection *connection,
                                       const struct query_packets *query, struct buffer *to);

/* --- dead letters ------------------------------------------------------------------------------
 */
/* {"dead_letters":[…],"next_cursor":…}. */
MUST_CHECK enum err query_dead_letters_list(struct store_connection *connection,
                                            const struct query_page *page, struct buffer *to);
/* Tries the record once more, as it came. ERR_REFUSED: refused again, the letter stays. */
MUST_CHECK enum err query_dead_letter_retry(struct store_connection *connection, uint64_t org,
                                            struct id id, uint32_t areas);
