/* Format: bytes -> meaning. One reader per outside form; pure, no input or output.
 *
 * The same readers run twice on a record's way: when it comes in, to verify it, and when it is
 * applied, to say what it means. Both see the same bytes and so agree.
 *
 * Thread: an object belongs to the thread that uses it.
 * Memory: events' slices point into the bytes read or into the reader's own arena; valid until the
 *         next call.
 * Errors: ERR_SYNTAX the whole is not well-formed (nothing of it counts); an element that is
 *         well-formed and wrong is delivered as a rejected item and the rest goes on. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "base/slice.h"
#include "record/record.h"

/* What is wrong with an element or a body, for the client. */
struct format_fault {
    const char *code; /* stable snake_case: "missing_field", "invalid_type", "duplicate_key" … */
    const char *message; /* constant sentence */
    char pointer[64];    /* JSON Pointer within the element: "/type"; empty: the whole */
    uint64_t offset;     /* byte in the element (or body) */
};

/* Who sent it: what ids and defaults depend on. */
struct format_context {
    const uint8_t *id_key; /* 32 bytes of the org: DESIGN I8 */
    struct id frame_id;    /* v7: elements without dedup_id derive theirs from it and their index */
    int64_t received_ms;
    uint64_t index;               /* of the element in its batch */
    struct slice idempotency_key; /* stands in for the dedup_id of a single event; with the index it
                                     names an element of a batch; data NULL: none */
    struct slice traceparent;     /* data NULL: none */
    struct slice call;            /* RECORD_FORM_SEGMENT_CALL: "track", "identify" …; else NULL */
    struct slice device; /* the id, as text, of the one that the key may write for; data NULL:
                            any */
    struct id_four *ids; /* NULL: every event comes with its id. Else ids of dedup_ids may be added
                            here (format_id_is_due), and who gives it makes them when it is full */
};
/* As the frame's head says; `id_key` must outlive the context. */
void format_context_of_frame(const struct record_frame *frame, const uint8_t id_key[32],
                             struct format_context *ret);

struct format_reader;

struct format_reader *format_reader_create(void);
void format_reader_destroy(struct format_reader *reader);

/* One contiguous event object as it came: of a single form (RECORD_FORM_EVENT, _CLOUDEVENT,
 * _SEGMENT_CALL), which without dedup_id takes the frame's own id, or one element (see
 * context->index) of a batch form. ERR_SYNTAX, ERR_DEPTH: not well-formed JSON. ERR_INVALID:
 * well-formed, refused. ERR_TOO_LARGE: above LIMIT_EVENT_BYTES. *ret_fault is filled on each of
 * them. */
MUST_CHECK enum err format_event_read(struct format_reader *reader, enum record_form form,
                                      struct slice raw, const struct format_context *context,
                                      struct record_event *ret, struct format_fault *ret_fault);
/* The metrics of the message that was read last (a form of readings). Valid as long as its event;
 * *ret_count 0 when it was refused. */
const struct record_reading *format_readings(const struct format_reader *reader,
                                             uint32_t *ret_count);
/* The event that was read last has no id yet: it is the one that was last added to context.ids. */
bool format_id_is_due(const struct format_reader *reader);
/* Binary CloudEvent: the ce- headers stand in the frame's attributes, body is the data. */
MUST_CHECK enum err format_cloudevent_binary_read(struct format_reader *reader,
                                                  const struct record_frame *frame,
                                                  const struct format_context *context,
                                                  struct record_event *ret,
                                                  struct format_fault *ret_fault);

/* Elements of a body that comes in chunks (arrays, lines, batches), one at a time. */
struct format_item {
    enum err err; /* ERR_OK: event is set; ERR_INVALID, ERR_TOO_LARGE: rejected, fault is set */
    struct record_event event;
    struct format_fault fault;
    uint64_t index;
    uint64_t offset; /* of the element in the body */
    uint64_t bytes;
};
/* `form` is one of the batch forms. */
void format_batch_begin(struct format_reader *reader, enum record_form form,
                        const struct format_context *context);
/* For a slice of an upload: the stream starts at an element's first byte; it has this index, and
 * after element_count elements the rest is not read. Offsets count from the slice's first byte. */
void format_batch_begin_at(struct format_reader *reader, enum record_form form,
                           const struct format_context *context, uint64_t first_index,
                           uint64_t element_count);
/* The chunk must stay until next says that it is used up. */
void format_batch_feed(struct format_reader *reader, struct slice chunk);
/* *ret_has false: the chunk is used up. ERR_SYNTAX, ERR_DEPTH, ERR_INVALID (not of this form): the
 * whole body is refused, format_batch_fault says why. */
MUST_CHECK enum err format_batch_next(struct format_reader *reader, struct format_item *ret,
                                      bool *ret_has);
MUST_CHECK enum err format_batch_end(struct format_reader *reader, struct format_item *ret,
                                     bool *ret_has);
struct format_fault format_batch_fault(const struct format_reader *reader);

/* A whole frame of any event form: begin, then next until *ret_has is false. The frame and the id
 * key must outlive the walk. begin: ERR_INVALID for a form that is no event's; next: ERR_SYNTAX,
 * ERR_DEPTH when the frame's bytes are not what was verified when they came. */
MUST_CHECK enum err format_frame_begin(struct format_reader *reader,
                                       const struct record_frame *frame, const uint8_t id_key[32]);
MUST_CHECK enum err format_frame_next(struct format_reader *reader, struct format_item *ret,
                                      bool *ret_has);

/* Which form a request body has, by route-independent rules (formats/events.md 4.1, 4.6): from the
 * content type and the presence of ce- headers; for application/json the first byte of the body
 * that is not white space decides between event and array. ERR_UNSUPPORTED: 415. */
MUST_CHECK enum err format_body_form(struct slice content_type, bool has_ce_headers,
                                     uint8_t first_byte, enum record_form *ret);
/* For the routes that take readings; RECORD_FORM_READING may still turn out to be an array.
 * ERR_UNSUPPORTED: 415. */
MUST_CHECK enum err format_reading_form(struct slice content_type, enum record_form *ret);
bool format_form_is_reading(enum record_form form);
/* Several elements in one body. */
bool format_form_is_batch(enum record_form form);
/* 1 to 255 of [A-Za-z0-9._/-] */
bool format_type_is_valid(struct slice type);
/* RFC 3339, or epoch milliseconds as a number's text (a fraction is cut); years 0000 to 9999. */
bool format_time_read(struct slice text, int64_t *ret_ms);

/* --- CSV ------------------------------------------------------------------------------------- */
/* Appends a cell (RFC 4180) that no spreadsheet takes for a formula. */
MUST_CHECK enum err format_csv_cell(struct slice text, struct buffer *to);

struct format_csv {
    struct slice rest; /* of the file */
    uint32_t line;     /* of the row that was given last, from 1 */
    uint32_t next_line;
};
void format_csv_begin(struct format_csv *csv, struct slice file);
/* *ret_count 0 with ERR_OK: no row is left. Cells live until the next call; `texts` has a limit of
 * the file's size at least. ERR_SYNTAX, ERR_TOO_LARGE (cells): this row; the next can be read. */
MUST_CHECK enum err format_csv_next(struct format_csv *csv, struct buffer *texts,
                                    struct slice *cells, uint32_t max, uint32_t *ret_count);
