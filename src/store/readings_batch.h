/* Readings: what both ways of writing them share: the row by row one, and the one by sets.
 *
 * Thread: the owner of the connection, inside a transaction.
 * Memory: everything lives for one call of store_write_readings.
 * Errors: as store_write_readings. */
#pragma once
#include "store/backend.h"

#include "base/buffer.h"

#define STORE_ID_BYTES         16u
#define STORE_NEVER_MS         INT64_C(253402300799999) /* the last of the year 9999 */
#define STORE_LATE_MS          (5 * INT64_C(60000))
#define STORE_SILENT_INTERVALS 3
#define STORE_HOUR_MS          INT64_C(3600000)

/* What the registry and the states say of one device. */
struct store_device {
    bool is_known;
    bool is_heard; /* there is a row of its state */
    uint64_t number;
    uint64_t project;
    uint8_t project_id[STORE_ID_BYTES];
    uint8_t site_id[STORE_ID_BYTES];
    int64_t interval_s;
    int64_t last_received_ms;
    int64_t last_time_ms;
    int64_t silent_ms;
    int64_t late_ms;       /* as its org has set it, or the rule */
    int64_t silence_hours; /* the same; -1: by its interval, 0: never */
    int64_t from_ms;       /* readings before are gone for good */
    /* Of this batch. */
    bool has_news;
    int64_t received_ms;
    int64_t time_ms;
};

struct store_parameter {
    bool is_known;
    uint64_t number;
    uint64_t series; /* 0: not made yet */
    bool has_min;
    bool has_max;
    double min;
    double max;
    uint8_t policy; /* its first letter */
};

/* Times for which the engine has a place. */
struct store_room {
    int64_t from_ms;
    int64_t to_ms;
};
#define STORE_ROOMS 4u

/* A batch on its way: in the order of org, device, parameter, time and coming. */
struct store_readings {
    struct store_connection *connection;
    struct store_reading **order;
    size_t count;
    bool careful;
    store_on_device on_back;
    void *context;
    struct buffer attributes;             /* of the reading in hand, put together */
    struct store_room rooms[STORE_ROOMS]; /* that the engine has, seen last */
    uint32_t room_count;                  /* seen so far */
};

/* Columns of a SELECT: FROM devices d, sites s, projects p, orgs o and device_states t. */
#define STORE_DEVICE_COLUMNS                                                                       \
    "d.number, s.project, p.id, s.id, d.interval_s, t.last_received_ms, t.last_time_ms,"           \
    " t.silent_ms, o.late_s, o.silence_hours, o.readings_from_ms"
#define STORE_DEVICE_COLUMN_COUNT 11
/* The same: FROM parameters q and series r. */
#define STORE_PARAMETER_COLUMNS "q.number, q.min_value, q.max_value, q.policy, r.number"

/* One that is not known: the columns are NULL. */
void store_device_read(struct store_statement *statement, int column, struct store_device *ret);
void store_parameter_read(struct store_statement *statement, int column,
                          struct store_parameter *ret);
/* The last part of the key. */
struct slice store_parameter_name(struct slice parameter);
bool store_reading_is_same_device(const struct store_reading *a, const struct store_reading *b);
/* Gives it its state, flags and what is to be stored, and notes that the device speaks. */
void store_reading_judge(struct store_device *device, const struct store_parameter *parameter,
                         struct store_reading *reading);
/* The engine has a place for readings of this time. */
MUST_CHECK enum err store_readings_room(struct store_readings *batch, int64_t time_ms);
/* The members of both objects in one; the message's first. */
MUST_CHECK enum err store_reading_attributes(struct buffer *scratch,
                                             const struct store_reading *reading,
                                             struct slice *ret);
/* There may be one already. */
MUST_CHECK enum err store_series_make(struct store_connection *connection, uint64_t org,
                                      const struct store_device *device,
                                      struct store_parameter *parameter);
/* Takes the news of the batch over into the state that is to be written; true: the device is heard
 * of anew, and `change` says since when. */
bool store_device_end(struct store_device *device, uint64_t org,
                      struct store_device_change *change);
/* After store_device_end: it was marked at this time (0: not) after it was loaded. True: as above.
 */
bool store_device_meet(struct store_device *device, int64_t silent_ms,
                       struct store_device_change *change);
int64_t store_device_due_ms(const struct store_device *device);
/* Fills in what the registry says of the device, and tells. */
MUST_CHECK enum err store_tell_device(struct store_connection *connection, uint64_t number,
                                      struct store_device_change *change, store_on_device on_device,
                                      void *context);
