/* Packets: how regularly devices report (formats/telemetry.md 2).
 *
 * A packet is a distinct time of a device: the metrics of one message are one packet, and a
 * repetition is none. Only active devices are looked at: nobody waits for the others.
 *
 *   expected  window / interval          missing   max(0, expected - received)
 *   late      came more than two intervals after its time, or late_s when the org has set it
 *   on time   (received - late) / expected, at most 100 %
 *
 * A device's status is the worse of two: missing at most 1 is OK, 2 to 5 a WARNING, more CRITICAL;
 * its newest packet younger than 2 intervals is OK, up to 3 a WARNING, older or none CRITICAL.
 * A site is OK when 80 % of its devices are; else what 3 x critical + warning says: 1 to 4 a
 * WARNING, 5 and more CRITICAL. */
#include "query/packets.h"

#include "base/limits.h"
#include "query/page.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>

#define HOUR_MS INT64_C(3600000)

static const char *const status_words[] = {"OK", "WARNING", "CRITICAL"};

static enum packet_status worse(enum packet_status a, enum packet_status b)
{
    return a > b ? a : b;
}

enum packet_status query_packet_status(uint64_t missing, int64_t age_ms, int64_t interval_ms)
{
    enum packet_status by_count =
        missing > 5 ? PACKET_CRITICAL : (missing > 1 ? PACKET_WARNING : PACKET_OK);
    enum packet_status by_age = age_ms > 3 * interval_ms
                                    ? PACKET_CRITICAL
                                    : (age_ms >= 2 * interval_ms ? PACKET_WARNING : PACKET_OK);
    return worse(by_count, by_age);
}

enum packet_status query_packet_score_status(uint64_t score)
{
    return score >= 5 ? PACKET_CRITICAL : (score > 0 ? PACKET_WARNING : PACKET_OK);
}

enum packet_status query_packet_site_status(uint64_t ok, uint64_t all, uint64_t score)
{
    return ok * 100 >= all * 80 ? PACKET_OK : query_packet_score_status(score);
}

double query_packet_on_time(uint64_t received, uint64_t late, uint64_t expected)
{
    if (expected == 0) {
        return 100.0;
    }
    double share = (double)(received - late) / (double)expected;
    return share > 1.0 ? 100.0 : share * 100.0;
}

/* --- one device ---------------------------------------------------------------------------- */

static enum err count_packets(struct store_connection *connection,
                              const struct query_packets *query, struct packet_device *device)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(
        connection,
        "SELECT count(*), coalesce(sum(CASE WHEN p.first_ms - p.time_ms > $5 THEN 1 ELSE 0 END), 0)"
        " FROM (SELECT r.time_ms AS time_ms, min(r.received_ms) AS first_ms FROM series s"
        " JOIN readings r ON r.org = s.org AND r.series = s.number"
        " WHERE s.org = $1 AND s.device = $2 AND r.time_ms >= $3 AND r.time_ms < $4"
        " AND r.time_ms >= coalesce((SELECT readings_from_ms FROM orgs WHERE number = $1), $3)"
        " GROUP BY r.time_ms) p",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)query->org);
    store_bind_i64(statement, 2, (int64_t)device->number);
    store_bind_i64(statement, 3, query->now_ms - query->hours * HOUR_MS);
    store_bind_i64(statement, 4, query->now_ms);
    store_bind_i64(statement, 5, device->late_ms);
    err = store_step(statement, &has_row);
    if (err == ERR_OK && has_row) {
        device->received = (uint64_t)store_column_i64(statement, 0);
        device->late = (uint64_t)store_column_i64(statement, 1);
        store_reset(statement);
    }
    return err;
}

static void judge_device(const struct query_packets *query, struct packet_device *device)
{
    device->expected = (uint64_t)(query->hours * 3600 / device->interval_s);
    device->missing = device->expected > device->received ? device->expected - device->received : 0;
    int64_t age_ms = device->last_ms == 0 ? INT64_MAX : query->now_ms - device->last_ms;
    device->status = query_packet_status(device->missing, age_ms, device->interval_s * 1000);
}

static enum err write_device(struct store_statement *statement, const struct packet_device *device,
                             struct buffer *to)
{
    struct slice code = store_column_bytes(statement, PACKET_DEVICE_CODE);
    struct json_writer writer;
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    json_write_member_id(&writer, "device_id",
                         id_from_bytes(store_column_bytes(statement, PACKET_DEVICE_ID)));
    json_write_member_string(&writer, "device_name",
                             store_column_bytes(statement, PACKET_DEVICE_NAME));
    json_write_key(&writer, "external_id");
    if (code.data == NULL) {
        json_write_null(&writer);
    } else {
        json_write_string(&writer, code);
    }
    json_write_member_id(&writer, "site_id",
                         id_from_bytes(store_column_bytes(statement, PACKET_SITE_ID)));
    json_write_member_i64(&writer, "interval_s", device->interval_s);
    json_write_member_u64(&writer, "expected", device->expected);
    json_write_member_u64(&writer, "received", device->received);
    json_write_member_u64(&writer, "missing", device->missing);
    json_write_member_u64(&writer, "late", device->late);
    json_write_key(&writer, "on_time_percent");
    json_write_double(&writer,
                      query_packet_on_time(device->received, device->late, device->expected));
    if (device->last_ms == 0) {
        json_write_key(&writer, "last_time");
        json_write_null(&writer);
    } else {
        json_write_member_time(&writer, "last_time", device->last_ms);
    }
    json_write_member_bool(&writer, "silent", device->received == 0);
    json_write_member_text(&writer, "status", status_words[device->status]);
    json_write_object_end(&writer);
    return json_writer_err(&writer);
}

/* --- devices ------------------------------------------------------------------------------- */

#define DEVICES_SELECT                                                                             \
    "SELECT d.number, d.id, d.name, d.external_id, s.id, d.interval_s,"                            \
    " coalesce(t.last_time_ms, 0), coalesce(o.late_s, 2 * d.interval_s)"                           \
    " FROM devices d JOIN sites s ON s.number = d.site"                                            \
    " JOIN projects p ON p.number = s.project JOIN orgs o ON o.number = d.org"                     \
    " LEFT JOIN device_states t ON t.org = d.org AND t.device = d.number"                          \
    " WHERE d.org = $1 AND d.number > $2 AND d.status = 'active'"

static enum err prepare_devices(struct store_connection *connection,
                                const struct query_packets *query, struct store_statement **ret)
{
    static const char *const texts[] = {
        [PACKETS_OF_ORG] = DEVICES_SELECT " ORDER BY d.number LIMIT $3",
        [PACKETS_OF_PROJECT] = DEVICES_SELECT " AND p.id = $4 ORDER BY d.number LIMIT $3",
        [PACKETS_OF_SITE] = DEVICES_SELECT " AND s.id = $4 ORDER BY d.number LIMIT $3",
        [PACKETS_OF_DEVICE] = DEVICES_SELECT " AND d.id = $4 ORDER BY d.number LIMIT $3",
    };
    enum err err = store_prepare(connection, texts[query->scope], ret);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(*ret, 1, (int64_t)query->org);
    store_bind_i64(*ret, 2, (int64_t)query->after);
    store_bind_i64(*ret, 3, (int64_t)query->limit + 1);
    if (query->scope != PACKETS_OF_ORG) {
        store_bind_blob(*ret, 4, slice_make(query->id.bytes, sizeof(query->id.bytes)));
    }
    return ERR_OK;
}

static enum err check_scope(struct store_connection *connection, const struct query_packets *query)
{
    static const char *const texts[] = {
        [PACKETS_OF_PROJECT] = "SELECT 1 FROM projects WHERE org = $1 AND id = $2",
        [PACKETS_OF_SITE] = "SELECT 1 FROM sites WHERE org = $1 AND id = $2",
        [PACKETS_OF_DEVICE] = "SELECT 1 FROM devices WHERE org = $1 AND id = $2",
    };
    struct store_statement *statement = NULL;
    bool has_row = false;
    if (query->scope == PACKETS_OF_ORG) {
        return ERR_OK;
    }
    enum err err = store_prepare(connection, texts[query->scope], &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, (int64_t)query->org);
    store_bind_blob(statement, 2, slice_make(query->id.bytes, sizeof(query->id.bytes)));
    err = store_step(statement, &has_row);
    store_reset(statement);
    return err == ERR_OK && !has_row ? ERR_NOT_FOUND : err;
}

static void add_device(struct packet_sum *sum, const struct packet_device *device)
{
    sum->configured++;
    sum->counts[device->status]++;
    sum->silent += device->received == 0;
    sum->expected += device->expected;
    sum->received += device->received;
    sum->missing += device->missing;
    sum->late += device->late;
}

/* The devices with commas between, at most query->limit of them; the sum is of all that were met.
 */
static enum err write_devices(struct store_connection *connection,
                              const struct query_packets *query, struct packet_sum *sum,
                              struct buffer *to)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = prepare_devices(connection, query, &statement);
    if (err != ERR_OK) {
        return err;
    }
    while ((err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        struct packet_device device = {
            .number = (uint64_t)store_column_i64(statement, PACKET_DEVICE_NUMBER),
            .interval_s = store_column_i64(statement, PACKET_INTERVAL),
            .last_ms = store_column_i64(statement, PACKET_LAST_MS),
            .late_ms = 1000 * store_column_i64(statement, PACKET_LATE_S)};
        if (sum->configured == query->limit) {
            sum->has_more = true;
            break;
        }
        err = count_packets(connection, query, &device);
        if (err == ERR_OK && sum->configured > 0) {
            err = buffer_append_byte(to, ',');
        }
        if (err != ERR_OK) {
            break;
        }
        judge_device(query, &device);
        add_device(sum, &device);
        sum->place = device.number;
        err = write_device(statement, &device, to);
        if (err != ERR_OK) {
            break;
        }
    }
    store_reset(statement);
    return err;
}

/* --- answers ------------------------------------------------------------------------------- */

static void write_window(struct json_writer *writer, const struct query_packets *query)
{
    json_write_member_time(writer, "start", query->now_ms - query->hours * HOUR_MS);
    json_write_member_time(writer, "end", query->now_ms);
}

static enum err write_devices_begin(struct json_writer *writer, struct buffer *to)
{
    json_write_key(writer, "devices");
    return json_writer_err(writer) != ERR_OK ? json_writer_err(writer)
                                             : buffer_append_byte(to, '[');
}

enum err query_packets_devices(struct store_connection *connection,
                               const struct query_packets *query, struct buffer *to)
{
    struct packet_sum sum = {.configured = 0};
    struct json_writer writer;
    enum err err = check_scope(connection, query);
    if (err != ERR_OK) {
        return err;
    }
    json_writer_init(&writer, to);
    json_write_object_begin(&writer);
    write_window(&writer, query);
    err = write_devices_begin(&writer, to);
    if (err == ERR_OK) {
        err = write_devices(connection, query, &sum, to);
    }
    if (err == ERR_OK) {
        err = buffer_append_byte(to, ']');
    }
    return err != ERR_OK
               ? err
               : query_list_end(QUERY_LIST_PACKETS, query->org, sum.has_more, sum.place, to);
}

static void write_sum(struct json_writer *writer, const struct packet_sum *sum)
{
    uint64_t score = 3 * sum->counts[PACKET_CRITICAL] + sum->counts[PACKET_WARNING];
    enum packet_status status =
        query_packet_site_status(sum->counts[PACKET_OK], sum->configured, score);
    json_write_member_u64(writer, "configured", sum->configured);
    json_write_member_u64(writer, "ok", sum->counts[PACKET_OK]);
    json_write_member_u64(writer, "warning", sum->counts[PACKET_WARNING]);
    json_write_member_u64(writer, "critical", sum->counts[PACKET_CRITICAL]);
    json_write_member_u64(writer, "silent", sum->silent);
    json_write_member_u64(writer, "expected", sum->expected);
    json_write_member_u64(writer, "received", sum->received);
    json_write_member_u64(writer, "missing", sum->missing);
    json_write_member_u64(writer, "late", sum->late);
    json_write_key(writer, "on_time_percent");
    json_write_double(writer, query_packet_on_time(sum->received, sum->late, sum->expected));
    json_write_member_u64(writer, "error_score", score);
    json_write_member_text(writer, "error_status", status_words[query_packet_score_status(score)]);
    json_write_member_text(writer, "status", status_words[status]);
}

enum err query_packets_site(struct store_connection *connection, const struct query_packets *query,
                            struct buffer *to)
{
    struct packet_sum sum = {.configured = 0};
    struct json_writer writer;
    struct buffer devices;
    assert(query->scope == PACKETS_OF_SITE);
    buffer_init(&devices, to->bytes_max);
    enum err err = check_scope(connection, query);
    if (err == ERR_OK) {
        err = write_devices(connection, query, &sum, &devices);
    }
    if (err == ERR_OK) {
        json_writer_init(&writer, to);
        json_write_object_begin(&writer);
        json_write_member_id(&writer, "site_id", query->id);
        write_window(&writer, query);
        write_sum(&writer, &sum);
        err = write_devices_begin(&writer, to);
    }
    if (err == ERR_OK) {
        err = buffer_append_slice(to, buffer_slice(&devices));
    }
    if (err == ERR_OK) {
        err = buffer_append_text(to, sum.has_more ? "],\"truncated\":true}" : "]}");
    }
    buffer_finish(&devices);
    return err;
}
