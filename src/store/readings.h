/* Telemetry in the store: a part of store.h, which includes it.
 *
 * Thread, Memory, Errors: as in store.h. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "base/slice.h"

struct store_connection;

enum store_reading_state {
    STORE_READING_STORED, /* new, or in place of one of a lower position */
    STORE_READING_OLDER,  /* one of a higher position stands */
    STORE_READING_UNKNOWN_DEVICE,
    STORE_READING_WRONG_SITE, /* the site or project said is not the device's */
    STORE_READING_UNKNOWN_PARAMETER,
    STORE_READING_TOO_FAR_AHEAD,
    STORE_READING_TOO_OLD,
    STORE_READING_OUT_OF_RANGE, /* policy reject */
    STORE_READING_REFUSED,      /* by the engine */
};
/* Stable snake_case, the reason of a dead letter. */
const char *store_reading_reason(enum store_reading_state state);

enum {
    STORE_READING_FLAG_RANGE = 1,   /* outside of the parameter's range, kept */
    STORE_READING_FLAG_CLAMPED = 2, /* outside, the bound was stored */
    STORE_READING_FLAG_LATE = 4,    /* came long after its time */
};

struct store_reading {
    const uint8_t *ids;     /* 48 bytes: device, project, site; zeros: not said */
    struct slice parameter; /* key, or the last part of it */
    struct slice source;    /* data NULL: none; the same for the next three */
    struct slice event_id;
    struct slice attributes; /* JSON objects, stored as one: the metric's, and its message's */
    struct slice message_attributes;
    double value;
    bool has_value;
    int16_t quality; /* -1: not said */
    int64_t time_ms;
    int64_t received_ms;
    uint64_t org;
    uint64_t position;
    uint32_t message;               /* the caller's */
    uint32_t flags;                 /* out */
    double stored;                  /* out: the value, or the bound in its place */
    uint64_t series;                /* out; 0: not stored */
    enum store_reading_state state; /* out */
};
/* A device that fell silent or came back. Slices live inside the callback. */
struct store_device_change {
    uint64_t org;
    const uint8_t *id; /* 16 bytes; so are the next two */
    const uint8_t *site;
    const uint8_t *project;
    struct slice name;
    struct slice external_id; /* data NULL: none */
    int64_t interval_s;
    int64_t last_received_ms; /* before it fell silent */
    int64_t silent_ms;        /* when it was found to be silent */
    int64_t back_ms;          /* 0: it is silent */
};
typedef enum err (*store_on_device)(struct store_connection *connection,
                                    const struct store_device_change *change, void *context);
/* Writes readings of any orgs, in order, by the rules of docs/decisions/0010; notes what roll-ups
 * have to be computed anew; raises data versions. on_back: devices that were silent. Errors and
 * `careful` as for events. */
MUST_CHECK enum err store_write_readings(struct store_connection *connection,
                                         struct store_reading *readings, size_t count, bool careful,
                                         store_on_device on_back, void *context);
/* When devices of the org are due depends on its settings and on their intervals: after a change of
 * these. `device`: 16 bytes, the id of the one that changed. */
MUST_CHECK enum err store_device_due(struct store_connection *connection, uint64_t org,
                                     const uint8_t *device);
#define STORE_DUE_PART 1000u /* devices, in a few milliseconds */
/* All of them, at most `limit` at once, where orgs.due_after says that they have to follow: until
 * *ret_has_more is false. Whoever goes on with it, and after whatever end of the one before. */
MUST_CHECK enum err store_devices_due(struct store_connection *connection, uint64_t org,
                                      uint32_t limit, bool *ret_has_more);
/* The same, of any org. */
MUST_CHECK enum err store_orgs_due(struct store_connection *connection, uint32_t limit,
                                   bool *ret_has_more);
/* Marks devices that have been quiet for too long, at most `limit`. *ret_due_ms: when the next is
 * due; INT64_MAX: none. */
MUST_CHECK enum err store_find_silent(struct store_connection *connection, int64_t now_ms,
                                      uint32_t limit, store_on_device on_silent, void *context,
                                      int64_t *ret_due_ms);

struct store_rollup {
    uint64_t count; /* of values that are not null; 0: the rest is void */
    double sum;
    double min;
    double max;
    double last;
};
/* Widths of roll-ups, each a multiple of the one before: 1m, 5m, 1h, 1d. */
#define STORE_ROLLUP_WIDTHS 4u
extern const int64_t store_rollup_widths_ms[STORE_ROLLUP_WIDTHS];
/* Start of the bucket of a time. */
int64_t store_rollup_start(int64_t time_ms, int64_t width_ms);
/* Appends a later one. */
void store_rollup_add(struct store_rollup *to, const struct store_rollup *later);
/* The bucket of width `width` (index) that starts at start_ms, from readings alone, with the same
 * bits as the stored one would have. */
MUST_CHECK enum err store_rollup_compute(struct store_connection *connection, uint64_t org,
                                         uint64_t series, uint32_t width, int64_t start_ms,
                                         struct store_rollup *ret);
/* The series whose minutes were taken last; zeros at first. */
struct store_rollup_place {
    uint64_t org;
    uint64_t series;
};
/* Takes up to `limit` dirty minutes, of each series in its turn, and computes the buckets around
 * them. *ret_done: how many; below the limit: none is left. *place is untouched by a failure, and
 * to be put back when the transaction fails. */
MUST_CHECK enum err store_rollups_refresh(struct store_connection *connection, uint32_t limit,
                                          struct store_rollup_place *place, uint32_t *ret_done);
/* The largest limit that is worth its time. */
uint32_t store_rollups_limit(const struct store_connection *connection);
