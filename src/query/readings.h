/* Readings, private: the walk over series and their rows.
 *
 * Thread: inside a store job.
 * Memory: what points into a statement lives until its next step.
 * Errors: the store's and the buffer's. */
#pragma once
#include "base/id.h"
#include "query/query.h"

struct store_rollup;
struct store_statement;

/* Columns of the statement of series. */
enum {
    SERIES_NUMBER,
    SERIES_DEVICE_ID,
    SERIES_KEY,
    SERIES_CUSTOMER,
    SERIES_PROJECT,
    SERIES_SITE,
    SERIES_DEVICE_NAME,
    SERIES_DEVICE_CODE,
    SERIES_DEVICE_TYPE,
    SERIES_NAME,
    SERIES_UNIT,
    SERIES_FROM
};

/* Columns of the statement of readings. */
enum {
    READING_TIME,
    READING_VALUE,
    READING_QUALITY,
    READING_SOURCE,
    READING_FLAGS,
    READING_EVENT_ID,
    READING_ATTRIBUTES
};

struct readings_walk {
    struct store_connection *connection;
    const struct query_readings *query;
    struct buffer *to;
    size_t from; /* bytes of it before the page */
    uint64_t series;
    char device_id[ID_TEXT_BYTES];
    struct slice key;              /* of the parameter */
    int64_t from_ms;               /* readings before are gone */
    struct store_statement *names; /* stands on the series */
    uint32_t count;
    bool is_full;
    uint64_t last_series;
    int64_t last_ms;
};

MUST_CHECK enum err query_reading_write(struct readings_walk *walk,
                                        struct store_statement *statement);
MUST_CHECK enum err query_point_write(struct readings_walk *walk, int64_t start_ms,
                                      const struct store_rollup *rollup);
