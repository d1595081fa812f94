/* Limits: what the caller may still do. This request itself is counted. */
#include "api/handlers.h"

#include "api/reply.h"
#include "base/limits.h"
#include "json/json.h"

#include <assert.h>

static void api_limit_write(struct json_writer *writer, const char *key,
                            const struct gate_window *window)
{
    json_write_key(writer, key);
    json_write_object_begin(writer);
    if (window->quota == 0) {
        json_write_key(writer, "limit");
        json_write_null(writer);
        json_write_key(writer, "remaining");
        json_write_null(writer);
    } else {
        json_write_member_text(writer, "policy", window->name);
        json_write_member_u64(writer, "limit", window->quota);
        json_write_member_u64(writer, "remaining", window->remaining);
        json_write_member_u64(writer, "window_s", window->window_s);
        json_write_member_u64(writer, "reset_s", window->reset_s);
    }
    json_write_object_end(writer);
}

void api_limits_get(struct api_request *request)
{
    const struct api_options *options = &request->loop->api->options;
    struct buffer *scratch = api_scratch(request->loop);
    struct json_writer writer;
    struct gate_window bytes = {0};
    /* Nothing is counted, so nothing can be refused: this only reads the window. */
    (void)gate_limit_bytes(options->gate, &request->identity, 0, &bytes);
    json_writer_init(&writer, scratch);
    json_write_object_begin(&writer);
    api_limit_write(&writer, "requests", &request->window);
    api_limit_write(&writer, "bytes", &bytes);
    json_write_member_u64(&writer, "event_bytes_max", LIMIT_EVENT_BYTES);
    json_write_key(&writer, "body_bytes_max");
    if (options->payload_bytes_max == 0) {
        json_write_null(&writer);
    } else {
        json_write_u64(&writer, options->payload_bytes_max);
    }
    json_write_member_u64(&writer, "json_depth_max", LIMIT_JSON_DEPTH);
    json_write_member_u64(&writer, "list_max", LIMIT_LIST_MAX);
    json_write_object_end(&writer);
    if (json_writer_err(&writer) != ERR_OK) {
        api_reply_err(request, ERR_NO_MEMORY, NULL);
        return;
    }
    api_reply_json(request, 200, buffer_slice(scratch));
}
