/* Settings: what an org sets for itself, one JSON object in its row.
 *
 * Every member is always there, so whoever reads it later needs no defaults; a member of a later
 * version is absent in an older row and has its default in the code that reads it.
 *
 * Happy path: check, write as JSON, one UPDATE that raises the data version; what SQL needs of it
 * stands in columns beside. Silence then is due at other times, for every device that was heard of:
 * these follow in transactions of their own, some at a time.
 * Failure modes: a value that is not permitted is named, and nothing is changed. The program ends
 * before all devices have followed: the row says so, and who looks for silent devices goes on. */
#include "manage/manage.h"
#include "store/store.h"
#include "json/json.h"

#include <string.h>

static const char *const unit_words[] = {"metric", "imperial"};
static const char *const day_words[] = {"monday", "saturday", "sunday"};

const struct manage_settings manage_settings_default = {
    .timezone = {(const uint8_t *)"UTC", 3},
    .units = {(const uint8_t *)"metric", 6},
    .week_start = {(const uint8_t *)"monday", 6},
    .silence_hours = MANAGE_UNSET,
    .late_s = MANAGE_UNSET,
};

static bool is_one_of(struct slice text, const char *const *words, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (slice_equal(text, slice_from_text(words[i]))) {
            return true;
        }
    }
    return false;
}

/* The form of a name in the IANA database: Area/Location, Etc/GMT+1. */
static bool is_timezone(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        bool is_letter = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
        bool is_inner = (c >= '0' && c <= '9') || c == '/' || c == '_' || c == '-' || c == '+';
        if (!is_letter && (i == 0 || !is_inner)) {
            return false;
        }
    }
    return text.size > 0 && text.size <= MANAGE_TIMEZONE_BYTES_MAX;
}

/* A roll-up outlives what it was computed from, or a query would show readings and no buckets. */
static const char *check_retention(const struct manage_settings *settings)
{
    bool is_kept = settings->rollups_days == 0;
    bool is_shorter =
        settings->readings_days == 0 || settings->rollups_days < settings->readings_days;
    if (settings->raw_days > MANAGE_DAYS_MAX) {
        return "/retention/raw_days";
    }
    if (settings->events_days > MANAGE_DAYS_MAX) {
        return "/retention/events_days";
    }
    if (settings->readings_days > MANAGE_DAYS_MAX) {
        return "/retention/readings_days";
    }
    if (settings->rollups_days > MANAGE_DAYS_MAX || (!is_kept && is_shorter)) {
        return "/retention/rollups_days";
    }
    return settings->dead_letters_days > MANAGE_DAYS_MAX ? "/retention/dead_letters_days" : NULL;
}

const char *manage_settings_check(const struct manage_settings *settings)
{
    if (!is_timezone(settings->timezone)) {
        return "/timezone";
    }
    if (!is_one_of(settings->units, unit_words, 2)) {
        return "/units";
    }
    if (!is_one_of(settings->week_start, day_words, 3)) {
        return "/week_start";
    }
    if (settings->source_count > MANAGE_SOURCES_MAX) {
        return "/source_priority";
    }
    for (uint32_t i = 0; i < settings->source_count; i++) {
        struct slice source = settings->source_priority[i];
        if (source.size == 0 || source.size > MANAGE_SOURCE_BYTES_MAX ||
            !slice_is_printable(source)) {
            return "/source_priority";
        }
    }
    if (settings->silence_hours > MANAGE_HOURS_MAX && settings->silence_hours != MANAGE_UNSET) {
        return "/silence_hours";
    }
    if (settings->late_s > MANAGE_HOURS_MAX * 3600u && settings->late_s != MANAGE_UNSET) {
        return "/late_s";
    }
    return check_retention(settings);
}

static void write_number(struct json_writer *writer, const char *key, uint32_t number,
                         uint32_t unset)
{
    json_write_key(writer, key);
    if (number == unset) {
        json_write_null(writer);
    } else {
        json_write_u64(writer, number);
    }
}

static enum err settings_format(const struct manage_settings *settings, struct buffer *to)
{
    struct json_writer writer;
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_string(&writer, "timezone", settings->timezone);
    json_write_member_string(&writer, "units", settings->units);
    json_write_member_string(&writer, "week_start", settings->week_start);
    json_write_key(&writer, "source_priority");
    json_write_array_begin(&writer);
    for (uint32_t i = 0; i < settings->source_count; i++) {
        json_write_string(&writer, settings->source_priority[i]);
    }
    json_write_array_end(&writer);
    write_number(&writer, "silence_hours", settings->silence_hours, MANAGE_UNSET);
    write_number(&writer, "late_s", settings->late_s, MANAGE_UNSET);
    json_write_key(&writer, "retention");
    json_write_object_begin(&writer);
    write_number(&writer, "raw_days", settings->raw_days, 0);
    write_number(&writer, "events_days", settings->events_days, 0);
    write_number(&writer, "readings_days", settings->readings_days, 0);
    write_number(&writer, "rollups_days", settings->rollups_days, 0);
    write_number(&writer, "dead_letters_days", settings->dead_letters_days, 0);
    json_write_object_end(&writer);
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

enum err manage_settings_get(struct store_connection *connection, uint64_t org, struct buffer *to)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err =
        store_prepare(connection, "SELECT settings FROM orgs WHERE number = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    err = store_step(statement, &has_row);
    if (err != ERR_OK || !has_row) {
        return err != ERR_OK ? err : ERR_NOT_FOUND;
    }
    struct slice text = store_column_bytes(statement, 0);
    err = text.data != NULL ? buffer_append_slice(to, text)
                            : settings_format(&manage_settings_default, to);
    store_reset(statement);
    return err;
}

static void bind_number(struct store_statement *statement, int place, uint32_t number,
                        uint32_t unset)
{
    if (number == unset) {
        store_bind_null(statement, place);
    } else {
        store_bind_i64(statement, place, number);
    }
}

enum err manage_settings_put(struct store_connection *connection, uint64_t org,
                             const struct manage_settings *settings, struct buffer *to)
{
    struct store_statement *statement = NULL;
    size_t from = to->size;
    if (manage_settings_check(settings) != NULL) {
        return ERR_INVALID;
    }
    enum err err = settings_format(settings, to);
    if (err == ERR_OK) {
        err = store_prepare(
            connection,
            "UPDATE orgs SET settings = $2, silence_hours = $3, late_s = $4, raw_days = $5,"
            " events_days = $6, readings_days = $7, rollups_days = $8, dead_letters_days = $9,"
            " due_after = 0, data_version = data_version + 1 WHERE number = $1",
            &statement);
    }
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)org);
    store_bind_text(statement, 2, slice_part(buffer_slice(to), from, to->size));
    bind_number(statement, 3, settings->silence_hours, MANAGE_UNSET);
    bind_number(statement, 4, settings->late_s, MANAGE_UNSET);
    bind_number(statement, 5, settings->raw_days, 0);
    bind_number(statement, 6, settings->events_days, 0);
    bind_number(statement, 7, settings->readings_days, 0);
    bind_number(statement, 8, settings->rollups_days, 0);
    bind_number(statement, 9, settings->dead_letters_days, 0);
    err = store_execute(statement);
    if (err == ERR_OK && store_changes(connection) == 0) {
        err = ERR_NOT_FOUND;
    }
    return err;
}

enum err manage_settings_follow(struct store_connection *connection, uint64_t org,
                                bool *ret_has_more)
{
    return store_devices_due(connection, org, STORE_DUE_PART, ret_has_more);
}
