/* Answer: intake's answer in the words of API.md, or of the clients of other systems.
 *
 * A single event's 202 is the hot path: it is put together by hand, without a writer and without an
 * allocation. `durability` says what an answer promises: "fsync": the record is on stable storage
 * and survives a crash and a power cut; "jetstream", "jetstream_fsync": what JetStream acknowledged
 * (see openapi.yaml); "stored": it is in the database too, and queryable. */
#include "api/records.h"

#include "api/parameters.h"
#include "api/reply.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "journal/journal.h"
#include "query/query.h"
#include "json/json.h"

#include <assert.h>
#include <stdio.h>

#define API_SINGLE_BYTES_MAX 256u
#define API_ITEM_BYTES_MAX   128u

static uint8_t *api_put(uint8_t *to, const char *text, size_t size)
{
    memcpy(to, text, size);
    return to + size;
}

#define API_PUT(to, literal) api_put(to, literal, sizeof(literal) - 1)

static int api_stored_status(const struct api_request *request, const struct intake_answer *answer)
{
    if (request->answer != API_ANSWER_WEIR) {
        return 200;
    }
    if (!answer->is_stored) {
        return 202;
    }
    return answer->accepted > 0 ? 201 : 200;
}

static const char *api_durability(const struct api_request *request,
                                  const struct intake_answer *answer)
{
    const struct api_options *options = &request->loop->api->options;
    bool is_spooled = journal_is_spooled(options->journal, answer->position);
    return answer->is_stored ? "stored" : (is_spooled ? "fsync" : options->durability);
}

static void api_answer_single(struct api_request *request, const struct intake_answer *answer)
{
    uint8_t text[API_SINGLE_BYTES_MAX];
    char id[ID_TEXT_BYTES];
    char position[API_POSITION_BYTES];
    bool is_duplicate = answer->duplicates > 0;
    id_format(answer->id, id);
    api_position_format(answer->position, position);
    uint8_t *to = API_PUT(text, "{\"id\":\"");
    to = api_put(to, id, sizeof(id));
    to = answer->is_stored ? API_PUT(to, "\",\"status\":\"stored\",\"position\":\"")
                           : API_PUT(to, "\",\"status\":\"accepted\",\"position\":\"");
    to = api_put(to, position, sizeof(position));
    const char *durability = api_durability(request, answer);
    to = API_PUT(to, "\",\"durability\":\"");
    to = api_put(to, durability, strlen(durability));
    *to++ = '"';
    if (is_duplicate) {
        to = API_PUT(to, ",\"duplicate\":true");
    }
    if (answer->conflict) {
        to = API_PUT(to, ",\"dedup_conflict\":true");
    }
    *to++ = '}';
    api_reply_json(request,
                   is_duplicate && answer->is_stored ? 200 : api_stored_status(request, answer),
                   slice_make(text, (size_t)(to - text)));
}

/* A message; `status` says where it is. */
static void api_answer_message(struct api_request *request, const struct intake_answer *answer,
                               const char *status)
{
    char text[API_SINGLE_BYTES_MAX];
    char id[ID_TEXT_BYTES];
    char position[API_POSITION_BYTES];
    id_format(answer->id, id);
    api_position_format(answer->position, position);
    int size = snprintf(text, sizeof(text),
                        "{\"status\":\"%s\",\"trace_id\":\"%.*s\",\"position\":\"%.*s\","
                        "\"durability\":\"%s\"}",
                        status, ID_TEXT_BYTES, id, API_POSITION_BYTES, position,
                        api_durability(request, answer));
    api_reply_json(request, 200, slice_make(text, (size_t)size));
}

static uint8_t *api_put_number(uint8_t *to, uint64_t number)
{
    char digits[20];
    size_t at = sizeof(digits);
    do {
        digits[--at] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    return api_put(to, digits + at, sizeof(digits) - at);
}

/* A thousand of these stand in the answer of a batch: put together by hand too. */
static void api_answer_taken(struct json_writer *writer, const struct intake_item *item)
{
    uint8_t text[API_ITEM_BYTES_MAX];
    char id[ID_TEXT_BYTES];
    id_format(item->id, id);
    uint8_t *to = API_PUT(text, "{\"index\":");
    to = api_put_number(to, item->index);
    to = API_PUT(to, ",\"id\":\"");
    to = api_put(to, id, sizeof(id));
    to = item->status == INTAKE_DUPLICATE ? API_PUT(to, "\",\"status\":\"duplicate\"}")
                                          : API_PUT(to, "\",\"status\":\"accepted\"}");
    json_write_raw(writer, slice_make(text, (size_t)(to - text)));
}

static void api_answer_item(struct json_writer *writer, const struct intake_item *item)
{
    if (item->status != INTAKE_REJECTED) {
        api_answer_taken(writer, item);
        return;
    }
    json_write_object_begin(writer);
    json_write_member_u64(writer, "index", item->index);
    json_write_member_text(writer, "status", "rejected");
    json_write_member_text(writer, "code", item->code);
    json_write_member_text(writer, "message", item->message);
    if (item->pointer[0] != 0) {
        json_write_member_text(writer, "pointer", item->pointer);
    }
    json_write_object_end(writer);
}

/* Until its end record is applied an upload is no row; its status is asked for at once. */
static void api_remember_upload(const struct api_request *request,
                                const struct intake_answer *answer)
{
    struct api_accepted accepted = {.org = request->identity.org,
                                    .accepted = answer->accepted + answer->duplicates,
                                    .rejected = answer->rejected,
                                    .received_ms = clock_wall_ms()};
    bool is_readings = (request->route->scope & GATE_WRITE_TELEMETRY) != 0;
    accepted.area = is_readings ? QUERY_AREA_READINGS : QUERY_AREA_EVENTS;
    table_put(request->loop->api->accepted, slice_make(answer->id.bytes, sizeof(answer->id.bytes)),
              &accepted);
}

static void api_answer_batch(struct api_request *request, const struct intake_answer *answer)
{
    struct buffer *scratch = api_scratch(request->loop);
    struct json_writer writer;
    char id[ID_TEXT_BYTES];
    char position[API_POSITION_BYTES];
    json_writer_init(&writer, scratch);
    json_write_object_begin(&writer);
    if (request->answer == API_ANSWER_SEGMENT) {
        json_write_member_bool(&writer, "success", true);
    } else if (request->answer == API_ANSWER_POSTHOG) {
        json_write_member_text(&writer, "status", "Ok");
    } else if (request->answer == API_ANSWER_TELEMETRY) {
        id_format(answer->id, id);
        json_write_member_text(&writer, "status", answer->is_stored ? "stored" : "queued");
        json_write_member_string(&writer, "trace_id", slice_make(id, sizeof(id)));
    }
    json_write_member_u64(&writer, "accepted", answer->accepted);
    json_write_member_u64(&writer, "duplicates", answer->duplicates);
    json_write_member_u64(&writer, "rejected", answer->rejected);
    api_position_format(answer->position, position);
    json_write_member_string(&writer, "position", slice_make(position, sizeof(position)));
    json_write_member_text(&writer, "durability", api_durability(request, answer));
    if (answer->is_upload) {
        api_remember_upload(request, answer);
        id_format(answer->id, id);
        json_write_member_string(&writer, "upload_id", slice_make(id, sizeof(id)));
        json_write_key(&writer, "status_url");
        if (buffer_printf(scratch, "\"/api/v1/uploads/%.*s\"", ID_TEXT_BYTES, id) != ERR_OK) {
            writer.err = ERR_TOO_LARGE;
        }
        writer.needs_comma = true;
    }
    json_write_key(&writer, "items");
    json_write_array_begin(&writer);
    for (uint32_t i = 0; i < answer->item_count; i++) {
        api_answer_item(&writer, &answer->items[i]);
    }
    json_write_array_end(&writer);
    json_write_object_end(&writer);
    if (json_writer_err(&writer) != ERR_OK) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return;
    }
    api_reply_json(request, api_stored_status(request, answer), buffer_slice(scratch));
}

/* --- refusals ------------------------------------------------------------------------------------
 */

void api_records_refused(struct api_request *request, enum err err)
{
    struct journal *journal = request->loop->api->options.journal;
    struct http_problem problem = {.offset = -1};
    uint32_t retry_after_s = journal_retry_after_s(journal);
    if (err == ERR_FULL) {
        problem.status = 429;
        problem.code = "queue_full";
        problem.detail = "More is waiting to be applied than may wait; nothing of this request was "
                         "taken.";
        metrics_add(METRIC_LIMITED_QUEUE, 1);
    } else if (err == ERR_DRAINING || err == ERR_CLOSED) {
        problem.status = 503;
        problem.code = "draining";
        problem.detail = "The server is shutting down; nothing of this request was taken.";
    } else if (err == ERR_TIMEOUT) {
        problem.status = 503;
        problem.code = "journal_unavailable";
        problem.detail = "There was no room for the rest of the body for 30 seconds; nothing of "
                         "this request was taken.";
    } else if (err == ERR_BUSY) {
        problem.status = 503;
        problem.code = "unavailable";
        problem.detail = "Too many requests wait for the store; nothing of this request was taken.";
    } else {
        problem.status = 503;
        problem.code = "journal_unavailable";
        problem.detail =
            err == ERR_AWAY
                ? "The server of the journal is away; this request is not known to be taken."
                : "The journal takes no writes at the moment (disk); nothing of this request "
                  "was taken.";
    }
    api_reply_problem(request, &problem, retry_after_s);
}

static void api_answer_fault(struct api_request *request, const struct intake_answer *answer)
{
    const struct format_fault *fault = &answer->fault;
    bool is_forbidden = fault->code != NULL && strcmp(fault->code, "device_forbidden") == 0;
    const struct api_problem_row *row = api_problem_of(is_forbidden ? ERR_FORBIDDEN : answer->err);
    struct http_problem_item item = {
        .pointer =
            fault->pointer[0] == 0 ? (struct slice){NULL, 0} : slice_from_text(fault->pointer),
        .offset = (int64_t)fault->offset,
        .code = fault->code != NULL ? fault->code : row->code,
        .message = fault->message != NULL ? fault->message : row->detail};
    struct http_problem problem = {.status = row->status,
                                   .code = row->code,
                                   .detail = item.message,
                                   .offset = row->status == 400 ? (int64_t)fault->offset : -1,
                                   .items = &item,
                                   .item_count = 1};
    api_reply_problem(request, &problem, 0);
}

/* Nothing was taken because elements are wrong: all of them, or some with atomic=true. */
static void api_answer_rejected(struct api_request *request, const struct intake_answer *answer)
{
    char extra[96];
    char(*pointers)[96] = NULL;
    struct http_problem_item *items = NULL;
    uint32_t count = 0;
    struct mem_arena *arena = http_request_arena(request->http);
    if (answer->item_count > 0) {
        items = mem_arena_try_alloc(arena, answer->item_count * sizeof(*items));
        pointers = mem_arena_try_alloc(arena, answer->item_count * sizeof(*pointers));
    }
    for (uint32_t i = 0; i < answer->item_count && items != NULL && pointers != NULL; i++) {
        const struct intake_item *from = &answer->items[i];
        if (from->status != INTAKE_REJECTED) {
            continue;
        }
        int size = snprintf(pointers[count], sizeof(pointers[count]), "/%llu%s",
                            (unsigned long long)from->index, from->pointer);
        items[count] =
            (struct http_problem_item){.pointer = slice_make(pointers[count], (size_t)size),
                                       .offset = -1,
                                       .code = from->code,
                                       .message = from->message};
        count++;
    }
    int size = snprintf(extra, sizeof(extra), "\"accepted\":0,\"duplicates\":0,\"rejected\":%llu",
                        (unsigned long long)answer->rejected);
    struct http_problem problem = {.status = 422,
                                   .code = "invalid",
                                   .detail = "Elements are not valid; nothing of this request was "
                                             "taken.",
                                   .offset = -1,
                                   .items = items,
                                   .item_count = count,
                                   .extra = slice_make(extra, (size_t)size)};
    api_reply_problem(request, &problem, 0);
}

void api_records_answer(struct api_request *request, const struct intake_answer *answer)
{
    if (answer->err == ERR_OK) {
        metrics_observe(METRIC_INGEST_LATENCY, http_loop_mono_ns(request->loop->http) -
                                                   http_request_started_ns(request->http));
        if (answer->is_single && request->answer == API_ANSWER_WEIR) {
            api_answer_single(request, answer);
        } else if (answer->is_single && request->answer == API_ANSWER_TELEMETRY) {
            api_answer_message(request, answer, answer->is_stored ? "stored" : "queued");
        } else {
            api_answer_batch(request, answer);
        }
    } else if (answer->err == ERR_REFUSED && request->answer == API_ANSWER_TELEMETRY) {
        api_answer_message(request, answer, "dead_letter");
    } else if (err_class(answer->err) != ERR_CLASS_REJECT) {
        api_records_refused(request, answer->err);
    } else if (answer->err == ERR_INVALID && answer->rejected > 0 && !answer->is_single) {
        api_answer_rejected(request, answer);
    } else {
        api_answer_fault(request, answer);
    }
}
