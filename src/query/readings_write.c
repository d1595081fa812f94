/* Readings, writing: one reading, or one bucket, in the form that is asked for.
 *
 * The readable form has names where the other has ids; its columns are those of the SCADA exports
 * of formats/telemetry.md 4. */
#include "query/readings.h"

#include "base/clock.h"
#include "format/format.h"
#include "query/page.h"
#include "store/store.h"
#include "json/json.h"

static void write_number(struct json_writer *writer, const char *key, double value)
{
    json_write_key(writer, key);
    json_write_double(writer, value);
}

static void write_column(struct json_writer *writer, struct store_statement *statement,
                         const char *key, int column)
{
    json_write_key(writer, key);
    if (store_column_is_null(statement, column)) {
        json_write_null(writer);
    } else {
        json_write_string(writer, store_column_bytes(statement, column));
    }
}

static void write_flags(struct json_writer *writer, int64_t flags)
{
    static const char *const words[] = {"out_of_range", "clamped", "late"};
    if (flags == 0) {
        return;
    }
    json_write_key(writer, "flags");
    json_write_array_begin(writer);
    for (uint32_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if ((flags & (INT64_C(1) << i)) != 0) {
            json_write_text(writer, words[i]);
        }
    }
    json_write_array_end(writer);
}

static void write_value(struct json_writer *writer, struct store_statement *statement)
{
    json_write_key(writer, "value");
    if (store_column_is_null(statement, READING_VALUE)) {
        json_write_null(writer);
    } else {
        json_write_double(writer, store_column_double(statement, READING_VALUE));
    }
}

static void write_object(const struct readings_walk *walk, struct json_writer *writer,
                         struct store_statement *statement)
{
    struct slice attributes = store_column_bytes(statement, READING_ATTRIBUTES);
    json_write_member_string(writer, "device_id",
                             slice_make(walk->device_id, sizeof(walk->device_id)));
    json_write_member_string(writer, "parameter_key", walk->key);
    json_write_member_time(writer, "time", store_column_i64(statement, READING_TIME));
    write_value(writer, statement);
    json_write_key(writer, "quality");
    if (store_column_is_null(statement, READING_QUALITY)) {
        json_write_null(writer);
    } else {
        json_write_i64(writer, store_column_i64(statement, READING_QUALITY));
    }
    write_column(writer, statement, "source", READING_SOURCE);
    write_flags(writer, store_column_i64(statement, READING_FLAGS));
    if (!store_column_is_null(statement, READING_EVENT_ID)) {
        write_column(writer, statement, "event_id", READING_EVENT_ID);
    }
    if (attributes.data != NULL) {
        json_write_key(writer, "attributes");
        json_write_raw(writer, attributes);
    }
}

static enum err write_json(struct readings_walk *walk, struct store_statement *statement)
{
    struct json_writer writer;
    json_writer_init(&writer, walk->to);
    json_write_object_begin(&writer);
    if (walk->query->form == QUERY_READINGS_ROWS) {
        json_write_member_time(&writer, "time", store_column_i64(statement, READING_TIME));
        write_value(&writer, statement);
    } else {
        write_object(walk, &writer, statement);
    }
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

static double aggregate(const struct store_rollup *rollup, enum query_aggregate aggregate)
{
    switch (aggregate) {
    case QUERY_AVG:
        break;
    case QUERY_MIN:
        return rollup->min;
    case QUERY_MAX:
        return rollup->max;
    case QUERY_SUM:
        return rollup->sum;
    case QUERY_LAST:
        return rollup->last;
    case QUERY_COUNT:
        return (double)rollup->count;
    }
    return rollup->sum / (double)rollup->count;
}

enum err query_point_write(struct readings_walk *walk, int64_t start_ms,
                           const struct store_rollup *rollup)
{
    struct json_writer writer;
    double value = aggregate(rollup, walk->query->aggregate);
    if (walk->count > 1) {
        enum err err = buffer_append_byte(walk->to, ',');
        if (err != ERR_OK) {
            return err;
        }
    }
    json_writer_init(&writer, walk->to);
    json_write_object_begin(&writer);
    if (walk->query->form == QUERY_READINGS_ROWS) {
        json_write_member_time(&writer, "time", start_ms);
        write_number(&writer, "value", value);
    } else {
        json_write_member_string(&writer, "device_id",
                                 slice_make(walk->device_id, sizeof(walk->device_id)));
        json_write_member_string(&writer, "parameter_key", walk->key);
        json_write_member_time(&writer, "start", start_ms);
        json_write_member_time(&writer, "end",
                               start_ms + store_rollup_widths_ms[walk->query->width]);
        json_write_member_u64(&writer, "n", rollup->count);
        write_number(&writer, "value", value);
        write_number(&writer, "avg", rollup->sum / (double)rollup->count);
        write_number(&writer, "min", rollup->min);
        write_number(&writer, "max", rollup->max);
        write_number(&writer, "sum", rollup->sum);
        write_number(&writer, "last", rollup->last);
    }
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

/* --- tables -------------------------------------------------------------------------------- */

/* Of the readable form, in the order of its columns; the rest follows. */
static const int readable_columns[] = {SERIES_CUSTOMER,    SERIES_PROJECT,     SERIES_SITE,
                                       SERIES_DEVICE_NAME, SERIES_DEVICE_CODE, SERIES_DEVICE_TYPE,
                                       SERIES_NAME,        SERIES_KEY,         SERIES_UNIT};
static const char *const readable_names[] = {"customer",    "project",       "site",
                                             "device_name", "device_code",   "device_type",
                                             "parameter",   "parameter_key", "unit"};

#define READABLE_COUNT (sizeof(readable_columns) / sizeof(readable_columns[0]))

static enum err write_separator(const struct readings_walk *walk)
{
    return buffer_append_byte(walk->to, walk->query->form == QUERY_READINGS_TXT ? '\t' : ',');
}

/* Between tabs nothing is quoted: what would break the line becomes a space. */
static enum err write_cell(const struct readings_walk *walk, struct slice text)
{
    enum err err = ERR_OK;
    if (walk->query->form == QUERY_READINGS_CSV) {
        return format_csv_cell(text, walk->to);
    }
    for (size_t i = 0; i < text.size && err == ERR_OK; i++) {
        err = buffer_append_byte(walk->to, text.data[i] < 0x20 ? ' ' : text.data[i]);
    }
    return err;
}

static enum err write_numbers(const struct readings_walk *walk, struct store_statement *statement)
{
    char time[CLOCK_TEXT_BYTES];
    struct json_writer writer;
    clock_format_rfc3339(store_column_i64(statement, READING_TIME), time);
    enum err err = write_separator(walk);
    if (err == ERR_OK) {
        err = write_cell(walk, slice_make(time, sizeof(time)));
    }
    if (err == ERR_OK) {
        err = write_separator(walk);
    }
    if (err == ERR_OK && !store_column_is_null(statement, READING_VALUE)) {
        json_writer_init(&writer, walk->to);
        json_write_double(&writer, store_column_double(statement, READING_VALUE));
        err = json_writer_err(&writer);
    }
    if (err == ERR_OK) {
        err = write_separator(walk);
    }
    if (err == ERR_OK && !store_column_is_null(statement, READING_QUALITY)) {
        err = buffer_append_i64(walk->to, store_column_i64(statement, READING_QUALITY));
    }
    return err;
}

static enum err write_names(const struct readings_walk *walk)
{
    enum err err = ERR_OK;
    if (!walk->query->readable) {
        err = write_cell(walk, slice_make(walk->device_id, sizeof(walk->device_id)));
        if (err == ERR_OK) {
            err = write_separator(walk);
        }
        return err != ERR_OK ? err : write_cell(walk, walk->key);
    }
    for (size_t i = 0; i < READABLE_COUNT && err == ERR_OK; i++) {
        if (i > 0) {
            err = write_separator(walk);
        }
        if (err == ERR_OK) {
            err = write_cell(walk, store_column_bytes(walk->names, readable_columns[i]));
        }
    }
    return err;
}

static enum err write_line(const struct readings_walk *walk, struct store_statement *statement)
{
    enum err err = write_names(walk);
    if (err == ERR_OK) {
        err = write_numbers(walk, statement);
    }
    if (err == ERR_OK) {
        err = write_separator(walk);
    }
    if (err == ERR_OK) {
        err = write_cell(walk, store_column_bytes(statement, READING_SOURCE));
    }
    return err != ERR_OK ? err : buffer_append_text(walk->to, "\r\n");
}

enum err query_readings_head(const struct query_readings *query, struct buffer *to)
{
    char separator = query->form == QUERY_READINGS_TXT ? '\t' : ',';
    enum err err = ERR_OK;
    if (!query->readable) {
        err = buffer_printf(to, "device_id%cparameter_key%ctime", separator, separator);
    }
    for (size_t i = 0; i < READABLE_COUNT && query->readable && err == ERR_OK; i++) {
        err = buffer_printf(to, "%s%c", readable_names[i], separator);
    }
    return err != ERR_OK
               ? err
               : buffer_printf(to, "%s%cvalue%cquality%csource\r\n",
                               query->readable ? "timestamp" : "", separator, separator, separator);
}

enum err query_reading_write(struct readings_walk *walk, struct store_statement *statement)
{
    enum query_readings_form form = walk->query->form;
    enum err err = ERR_OK;
    if (form == QUERY_READINGS_CSV || form == QUERY_READINGS_TXT) {
        return write_line(walk, statement);
    }
    if (form != QUERY_READINGS_NDJSON && walk->count > 1) {
        err = buffer_append_byte(walk->to, ',');
    }
    if (err == ERR_OK) {
        err = write_json(walk, statement);
    }
    if (err == ERR_OK && form == QUERY_READINGS_NDJSON) {
        err = buffer_append_byte(walk->to, '\n');
    }
    return err;
}
