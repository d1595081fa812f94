/* What a request is: the accessors, and the life of its memory.
 *
 * Fields are looked at in place; percent escapes are decoded into the request's arena when somebody
 * asks for the value.
 *
 * Happy path: a request is taken from the loop's free list, used, and put back when its last
 * reference goes.
 * Failure modes: the arena is full: a decoded value is empty. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/mem.h"
#include "http/connection.h"

#define FREE_REQUESTS_MAX      1024u
#define ARENA_BLOCK_BYTES      4096u
#define ARENA_BYTES_MAX        (1u << 20)
#define REPLY_FIELDS_BYTES_MAX (64u << 10)
#define REPLY_FIELDS_KEPT      1024u

static struct http_request *make_request(struct http_loop *loop)
{
    struct list_link *link = list_take_first(&loop->free_requests);
    if (link != NULL) {
        loop->free_request_count--;
        return LIST_CONTAINER(link, struct http_request, all_link);
    }
    struct http_request *request = mem_alloc(sizeof(*request));
    buffer_init(&request->reply_fields, REPLY_FIELDS_BYTES_MAX);
    return request;
}

struct http_request *http_request_take(struct http_connection *connection)
{
    struct http_loop *loop = connection->loop;
    struct http_request *request = make_request(loop);
    struct buffer fields = request->reply_fields;
    /* The head is initialised by the parser, the texts are set before they are looked at. */
    memset(request, 0, offsetof(struct http_request, params));
    request->reply_fields = fields;
    request->self = request;
    request->loop = loop;
    request->connection = connection;
    request->refs = 1;
    list_push_back(&loop->requests, &request->all_link);
    loop->live_request_count++;
    return request;
}

void http_request_ref(struct http_request *request)
{
    request->refs++;
}

static void give_arena(struct http_loop *loop, struct mem_arena *arena)
{
    if (arena == NULL) {
        return;
    }
    if (loop->arena_count == HTTP_ARENAS_KEPT) {
        mem_arena_destroy(arena);
        return;
    }
    mem_arena_reset(arena);
    loop->arenas[loop->arena_count] = arena;
    loop->arena_count++;
}

static void free_request(struct http_request *request)
{
    buffer_finish(&request->reply_fields);
    mem_free(request);
}

static void release_request(struct http_request *request)
{
    struct http_loop *loop = request->loop;
    list_remove(&request->all_link);
    loop->live_request_count--;
    http_pool_give(&loop->pool, request->head_block);
    http_decoder_destroy(request->decoder);
    give_arena(loop, request->arena);
    if (loop->free_request_count == FREE_REQUESTS_MAX) {
        free_request(request);
        return;
    }
    buffer_shrink(&request->reply_fields, REPLY_FIELDS_KEPT);
    list_push_front(&loop->free_requests, &request->all_link); /* still in the cache */
    loop->free_request_count++;
}

void http_request_unref(struct http_request *request)
{
    assert(request->refs > 0);
    request->refs--;
    if (request->refs == 0) {
        release_request(request);
    }
}

void http_request_finish_loop(struct http_loop *loop)
{
    struct list_link *link = NULL;
    while ((link = list_first(&loop->requests)) != NULL) {
        release_request(LIST_CONTAINER(link, struct http_request, all_link));
    }
    while ((link = list_take_first(&loop->free_requests)) != NULL) {
        free_request(LIST_CONTAINER(link, struct http_request, all_link));
    }
    loop->free_request_count = 0;
    while (loop->arena_count > 0) {
        loop->arena_count--;
        mem_arena_destroy(loop->arenas[loop->arena_count]);
    }
}

bool http_request_is_open(const struct http_request *request)
{
    return request->connection != NULL && request->reply != HTTP_REPLY_DONE &&
           !request->connection->broken;
}

struct mem_arena *http_request_arena(struct http_request *request)
{
    struct http_loop *loop = request->loop;
    if (request->arena == NULL && loop->arena_count > 0) {
        loop->arena_count--;
        request->arena = loop->arenas[loop->arena_count];
    } else if (request->arena == NULL) {
        request->arena = mem_arena_create(ARENA_BLOCK_BYTES, ARENA_BYTES_MAX);
    }
    return request->arena;
}

void http_request_set_timer(struct http_request *request, uint32_t ms)
{
    if (!http_request_is_open(request)) {
        return;
    }
    struct http_loop *loop = request->loop;
    uint64_t deadline_ms = ms == 0 ? HTTP_NO_DEADLINE : loop->now_ms + ms;
    request->timer.of_request = true;
    http_wheel_set(&loop->wheel, &request->timer, deadline_ms);
    http_request_end_wait(request);
}

void http_request_end_wait(struct http_request *request)
{
    struct http_loop *loop = request->loop;
    uint64_t deadline_ms = request->timer.deadline_ms;
    if (loop->now_ms < loop->end_waits_ms && deadline_ms > loop->end_waits_ms &&
        deadline_ms != HTTP_NO_DEADLINE) {
        http_wheel_set(&loop->wheel, &request->timer, loop->end_waits_ms);
    }
}

void *http_request_state(const struct http_request *request)
{
    return request->state;
}

void http_request_set_state(struct http_request *request, void *state)
{
    request->state = state;
}

enum http_method http_request_method(const struct http_request *request)
{
    return (enum http_method)request->head.method;
}

struct http_loop *http_request_loop(const struct http_request *request)
{
    return request->loop;
}

void *http_request_loop_context(const struct http_request *request)
{
    return request->loop->context;
}

struct slice http_request_id(const struct http_request *request)
{
    return request->id;
}

uint64_t http_request_started_ns(const struct http_request *request)
{
    return request->started_ns;
}

int64_t http_request_body_bytes(const struct http_request *request)
{
    return request->head.body_bytes;
}

struct slice http_request_address(const struct http_request *request)
{
    const struct http_connection *connection = request->connection;
    return slice_from_text(connection != NULL ? connection->address_text : request->address_text);
}

/* --- fields ----------------------------------------------------------------------------------- */

static struct slice head_part(const struct http_request *request, uint32_t offset, uint32_t size)
{
    return slice_make(request->head_bytes + offset, size);
}

struct slice http_request_path(const struct http_request *request)
{
    if (request->head.path_size == 0) {
        return SLICE_LITERAL("/");
    }
    return head_part(request, request->head.path, request->head.path_size);
}

struct slice http_request_known(const struct http_request *request, enum http_known known)
{
    uint32_t index = request->head.known[known];
    if (index == 0) {
        return (struct slice){NULL, 0};
    }
    const struct http_field *field = &request->head.fields[index - 1];
    return head_part(request, field->value, field->value_size);
}

uint32_t http_request_header_count(const struct http_request *request)
{
    return request->head.field_count;
}

void http_request_header_at(const struct http_request *request, uint32_t n, struct slice *ret_name,
                            struct slice *ret_value)
{
    assert(n < request->head.field_count);
    const struct http_field *field = &request->head.fields[n];
    *ret_name = head_part(request, field->name, field->name_size);
    *ret_value = head_part(request, field->value, field->value_size);
}

struct slice http_request_header_named(const struct http_request *request, struct slice name)
{
    if ((request->head.names & http_name_bit(name.data, name.size)) == 0) {
        return (struct slice){NULL, 0};
    }
    for (uint32_t i = 0; i < request->head.field_count; i++) {
        const struct http_field *field = &request->head.fields[i];
        if (field->name_size == name.size &&
            slice_equal_nocase(head_part(request, field->name, field->name_size), name)) {
            return head_part(request, field->value, field->value_size);
        }
    }
    return (struct slice){NULL, 0};
}

/* --- percent escapes -------------------------------------------------------------------------- */

static int digit_value(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    uint8_t lower = c | 0x20;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* A malformed escape stays as it came. */
static size_t unescape(struct slice text, bool plus_is_space, uint8_t *to)
{
    size_t size = 0;
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '%' && i + 2 < text.size) {
            int high = digit_value(text.data[i + 1]);
            int low = digit_value(text.data[i + 2]);
            if (high >= 0 && low >= 0) {
                c = (uint8_t)(high << 4 | low);
                i += 2;
            }
        } else if (c == '+' && plus_is_space) {
            c = ' ';
        }
        to[size] = c;
        size++;
    }
    return size;
}

static struct slice decode_text(struct http_request *request, struct slice text, bool plus_is_space)
{
    bool has_plus = plus_is_space && slice_find(text, '+') < text.size;
    if (!has_plus && slice_find(text, '%') == text.size) {
        return text;
    }
    uint8_t *to = mem_arena_try_alloc(http_request_arena(request), text.size);
    return to == NULL ? (struct slice){text.data, 0}
                      : slice_make(to, unescape(text, plus_is_space, to));
}

struct slice http_request_param(const struct http_request *request, uint32_t index)
{
    assert(index < request->param_count);
    return decode_text(request->self, request->params[index], false);
}

struct slice http_request_query_begin(const struct http_request *request)
{
    return head_part(request, request->head.query, request->head.query_size);
}

bool http_request_query_next(const struct http_request *request, struct slice *rest,
                             struct slice *ret_name, struct slice *ret_value)
{
    struct slice pair = {NULL, 0};
    while (pair.size == 0) {
        if (rest->size == 0) {
            return false;
        }
        pair = slice_cut(*rest, '&', rest);
    }
    struct slice value = {NULL, 0};
    struct slice name = slice_cut(pair, '=', &value);
    *ret_name = decode_text(request->self, name, true);
    *ret_value = value.size == 0 ? slice_make(pair.data + pair.size, 0)
                                 : decode_text(request->self, value, true);
    return true;
}

bool http_request_query(const struct http_request *request, const char *name, struct slice *ret)
{
    struct slice wanted = slice_from_text(name);
    struct slice rest = head_part(request, request->head.query, request->head.query_size);
    while (rest.size > 0) {
        struct slice value = {NULL, 0};
        struct slice pair = slice_cut(rest, '&', &rest);
        struct slice found = slice_cut(pair, '=', &value);
        if (slice_equal(found, wanted) ||
            (found.size > wanted.size &&
             slice_equal(decode_text(request->self, found, true), wanted))) {
            *ret = value.size == 0 ? slice_make(pair.data + pair.size, 0)
                                   : decode_text(request->self, value, true);
            return true;
        }
    }
    return false;
}

/* --- bodies ----------------------------------------------------------------------------------- */

static void wake(struct http_request *request)
{
    if (!request->connection->running) {
        http_connection_make_ready(request->connection);
    }
}

static bool begin_decoding(struct http_request *request)
{
    struct slice name = http_request_known(request, HTTP_KNOWN_CONTENT_ENCODING);
    enum http_coding coding = HTTP_IDENTITY;
    if (request->head.content_codings_many ||
        (name.data != NULL && !http_coding_from_name(name, &coding))) {
        http_reply_text(request, "Accept-Encoding", "gzip, br, zstd");
        http_reply_error(request, 415, "unsupported",
                         "The Content-Encoding has to be gzip, br, zstd or identity.");
        return false;
    }
    if (coding != HTTP_IDENTITY && http_decoder_create(&request->decoder, coding) != ERR_OK) {
        http_reply_text(request, "Retry-After", "1");
        http_reply_error(request, 503, "no_memory", "There is no memory for this body.");
        return false;
    }
    return true;
}

void http_refuse_large(struct http_request *request, uint64_t decoded_bytes_max)
{
    char detail[96];
    (void)snprintf(detail, sizeof(detail),
                   "The body is larger than %" PRIu64 " bytes, the limit here.", decoded_bytes_max);
    http_reply_error(request, 413, "payload_too_large", detail);
}

void http_body_accept(struct http_request *request, uint64_t decoded_bytes_max)
{
    struct http_connection *connection = request->connection;
    if (!http_request_is_open(request) || request->body_accepted || !begin_decoding(request)) {
        return;
    }
    int64_t bytes = request->head.body_bytes;
    if (decoded_bytes_max > 0 && request->decoder == NULL && bytes > 0 &&
        (uint64_t)bytes > decoded_bytes_max) {
        http_refuse_large(request, decoded_bytes_max);
        return;
    }
    request->body_accepted = true;
    request->decoded_bytes_max = decoded_bytes_max;
    if (request->head.expect_continue && !http_body_is_ended(&request->body) &&
        connection->input_start == connection->input_end) {
        static const char text[] = "HTTP/1.1 100 Continue\r\n\r\n";
        uint8_t *to = http_output_reserve(connection, sizeof(text) - 1);
        if (to != NULL) {
            memcpy(to, text, sizeof(text) - 1);
            http_output_added(connection, sizeof(text) - 1);
        }
        request->continue_sent = true;
    }
    wake(request);
}

void http_body_pause(struct http_request *request)
{
    request->paused = true;
}

void http_body_resume(struct http_request *request)
{
    request->paused = false;
    if (http_request_is_open(request)) {
        wake(request);
    }
}
