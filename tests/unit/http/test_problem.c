/* A refusal is a problem document of RFC 9457 with our members, whatever text goes into it, and
 * negotiation follows RFC 9110.
 *
 * The request is made from bytes by the parser; the reply is read from the connection's output. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "http/connection.h"

#include <stdio.h>

struct rig {
    struct http_server server;
    struct http_loop loop;
    struct http_connection connection;
    struct http_parser parser;
    struct http_request *request;
    char reply[300000];
};

static struct rig *open_rig(const char *bytes)
{
    struct rig *rig = mem_alloc(sizeof(*rig));
    rig->loop.server = &rig->server;
    rig->connection.loop = &rig->loop;
    rig->connection.running = true; /* replies wake nobody */
    list_init(&rig->loop.requests);
    list_init(&rig->loop.free_requests);
    buffer_init(&rig->loop.encoded, (size_t)1 << 20);
    memset(rig->loop.date, 'D', sizeof(rig->loop.date));
    rig->request = http_request_take(&rig->connection);
    rig->connection.request = rig->request;
    rig->request->head_bytes = (const uint8_t *)bytes;
    rig->request->id = SLICE_LITERAL("id-1");
    http_parser_init(&rig->parser, &rig->request->head);
    assert_int_equal(
        http_parser_step(&rig->parser, &rig->request->head, (const uint8_t *)bytes, strlen(bytes)),
        HTTP_PARSE_DONE);
    http_body_init(&rig->request->body, rig->request->head.body_bytes);
    return rig;
}

static void close_rig(struct rig *rig)
{
    http_pool_give(&rig->loop.pool, rig->connection.output);
    http_request_finish_loop(&rig->loop);
    http_pool_finish(&rig->loop.pool);
    buffer_finish(&rig->loop.encoded);
    mem_free(rig);
}

/* The reply as text; its body. */
static const char *body_of(struct rig *rig)
{
    size_t size = http_output_bytes(&rig->connection);
    assert_true(size > 0 && size < sizeof(rig->reply));
    memcpy(rig->reply, rig->connection.output->data + rig->connection.output_start, size);
    rig->reply[size] = 0;
    const char *body = strstr(rig->reply, "\r\n\r\n");
    assert_non_null(body);
    return body + 4;
}

#define GET_AB "GET /a/b?k=secret HTTP/1.1\r\nHost: a\r\n\r\n"

static void test_short_form(void **state)
{
    struct rig *rig = open_rig(GET_AB);
    (void)state;
    http_reply_error(rig->request, 404, "not_found", "Nothing \"here\".");
    assert_string_equal(body_of(rig),
                        "{\"type\":\"about:blank\",\"title\":\"Not Found\",\"status\":404,"
                        "\"code\":\"not_found\",\"request_id\":\"id-1\",\"instance\":\"/a/b\","
                        "\"detail\":\"Nothing \\\"here\\\".\"}");
    assert_non_null(strstr(rig->reply, "HTTP/1.1 404 Not Found\r\n"));
    assert_non_null(strstr(rig->reply, "Content-Type: application/problem+json\r\n"));
    assert_false(http_request_is_open(rig->request));
    close_rig(rig);
}

static void test_all_members(void **state)
{
    struct rig *rig = open_rig(GET_AB);
    const struct http_problem_item items[] = {
        {SLICE_LITERAL("/0/type"), 17, "invalid", "bad \t type"},
        {{NULL, 0}, -1, "invalid", "x"},
        {SLICE_LITERAL("/\xff\x7f\\"), -1, "too_deep", "y"},
    };
    const struct http_problem problem = {.status = 429,
                                         .code = "rate_limited",
                                         .detail = NULL,
                                         .offset = 9,
                                         .items = items,
                                         .item_count = 3,
                                         .extra = SLICE_LITERAL("\"accepted\":0")};
    (void)state;
    http_reply_problem(rig->request, &problem);
    assert_string_equal(
        body_of(rig),
        "{\"type\":\"https://iana.org/assignments/http-problem-types#quota-exceeded\","
        "\"title\":\"Too Many Requests\",\"status\":429,\"code\":\"rate_limited\","
        "\"request_id\":\"id-1\",\"instance\":\"/a/b\",\"offset\":9,\"errors\":["
        "{\"code\":\"invalid\",\"message\":\"bad \\u0009 type\",\"pointer\":\"/0/type\","
        "\"offset\":17},{\"code\":\"invalid\",\"message\":\"x\"},{\"code\":\"too_deep\","
        "\"message\":\"y\",\"pointer\":\"/\\ufffd\\ufffd\\\\\"}],"
        "\"error_totals\":{\"invalid\":2,\"too_deep\":1},\"accepted\":0}");
    close_rig(rig);
}

static uint32_t count_of(const char *text, const char *word)
{
    uint32_t count = 0;
    while ((text = strstr(text, word)) != NULL) {
        count++;
        text++;
    }
    return count;
}

static void test_many_items(void **state)
{
    struct rig *rig = open_rig(GET_AB);
    struct http_problem_item items[250];
    (void)state;
    for (uint32_t i = 0; i < 250; i++) {
        items[i] = (struct http_problem_item){{NULL, 0}, -1, i % 2 == 0 ? "even" : "odd", "m"};
    }
    const struct http_problem problem = {
        .status = 422, .code = "invalid", .offset = -1, .items = items, .item_count = 250};
    http_reply_problem(rig->request, &problem);
    const char *body = body_of(rig);
    assert_int_equal(count_of(body, "\"message\""), LIMIT_PROBLEM_ERRORS);
    assert_non_null(strstr(body, "\"error_totals\":{\"even\":125,\"odd\":125}"));
    close_rig(rig);
}

static void test_text_beyond_the_limit(void **state)
{
    struct rig *rig = open_rig(GET_AB);
    char *text = mem_alloc(300000);
    (void)state;
    memset(text, 'x', 299999);
    http_reply_error(rig->request, 400, "malformed", text);
    assert_string_equal(body_of(rig), "{\"type\":\"about:blank\",\"title\":\"Bad Request\","
                                      "\"status\":400,\"code\":\"malformed\","
                                      "\"request_id\":\"id-1\"}");
    mem_free(text);
    close_rig(rig);
}

static enum http_coding coding_for(const char *fields)
{
    char bytes[512];
    (void)snprintf(bytes, sizeof(bytes), "GET / HTTP/1.1\r\nHost: a\r\n%s\r\n", fields);
    struct rig *rig = open_rig(bytes);
    enum http_coding coding = http_request_coding(rig->request);
    close_rig(rig);
    return coding;
}

static void test_accept_encoding(void **state)
{
    static const struct {
        const char *fields;
        enum http_coding coding;
    } rows[] = {
        {"", HTTP_IDENTITY},
        {"Accept-Encoding:\r\n", HTTP_IDENTITY},
        {"Accept-Encoding: gzip\r\n", HTTP_GZIP},
        {"Accept-Encoding: gzip, deflate, br, zstd\r\n", HTTP_ZSTD},
        {"Accept-Encoding: gzip, br\r\n", HTTP_BROTLI},
        {"Accept-Encoding: gzip;q=1.0, br;q=0.9, zstd;q=0.8\r\n", HTTP_GZIP},
        {"Accept-Encoding: GZIP;Q=0.5,br;q=0.500\r\n", HTTP_BROTLI},
        {"Accept-Encoding: gzip;q=0\r\n", HTTP_IDENTITY},
        {"Accept-Encoding: *\r\n", HTTP_ZSTD},
        {"Accept-Encoding: zstd;q=0, *;q=0.1\r\n", HTTP_BROTLI},
        {"Accept-Encoding: identity, gzip;q=0.5\r\n", HTTP_IDENTITY},
        {"Accept-Encoding: identity;q=0.5, gzip;q=0.5\r\n", HTTP_GZIP},
        {"Accept-Encoding: gzip;q=2\r\n", HTTP_IDENTITY},
        {"Accept-Encoding: gzip;q=0.1234\r\n", HTTP_IDENTITY},
        {"Accept-Encoding: gzip;q=0.5x\r\n", HTTP_IDENTITY},
        {"Accept-Encoding: deflate\r\nAccept-Encoding: br\r\n", HTTP_BROTLI},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (coding_for(rows[i].fields) != rows[i].coding) {
            fail_msg("%s", rows[i].fields);
        }
    }
}

static bool matches(const char *list, const char *etag)
{
    char bytes[512];
    (void)snprintf(bytes, sizeof(bytes), "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: %s\r\n\r\n",
                   list);
    struct rig *rig = open_rig(bytes);
    bool result = http_request_matches(rig->request, slice_from_text(etag));
    close_rig(rig);
    return result;
}

static void test_if_none_match(void **state)
{
    (void)state;
    assert_true(matches("\"a\"", "\"a\""));
    assert_true(matches("W/\"a\"", "\"a\""));
    assert_true(matches("\"a\"", "W/\"a\""));
    assert_true(matches("\"x\", W/\"y,z\" , \"a\"", "\"a\""));
    assert_true(matches("\"y,z\"", "\"y,z\""));
    assert_true(matches("*", "\"a\""));
    /* The twins. */
    assert_false(matches("\"b\"", "\"a\""));
    assert_false(matches("a", "\"a\""));
    assert_false(matches("\"a", "\"a\""));
    assert_false(matches("\"x,\"a\"\"", "\"a\""));
    assert_false(matches("", "\"a\""));
}

static void test_large_replies_are_compressed(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n";
    char body[3000];
    (void)state;
    memset(body, ' ', sizeof(body));
    struct rig *rig = open_rig(request);
    http_reply(rig->request, 200, "application/json", slice_make(body, sizeof(body)));
    (void)body_of(rig);
    assert_non_null(strstr(rig->reply, "Content-Encoding: gzip\r\n"));
    assert_non_null(strstr(rig->reply, "Vary: Accept-Encoding\r\n"));
    http_encoder_destroy(rig->loop.encoders[HTTP_GZIP]);
    close_rig(rig);
    /* The twins: small, of a type that is compressed already, coded by the handler. */
    rig = open_rig(request);
    http_reply(rig->request, 200, "application/json", slice_make(body, 1024));
    (void)body_of(rig);
    assert_null(strstr(rig->reply, "Content-Encoding"));
    close_rig(rig);
    rig = open_rig(request);
    http_reply(rig->request, 200, "image/png", slice_make(body, sizeof(body)));
    (void)body_of(rig);
    assert_null(strstr(rig->reply, "Content-Encoding"));
    close_rig(rig);
    rig = open_rig(request);
    http_reply_header(rig->request, "Content-Encoding", SLICE_LITERAL("br"));
    http_reply(rig->request, 200, "text/css", slice_make(body, sizeof(body)));
    (void)body_of(rig);
    assert_int_equal(count_of(rig->reply, "Content-Encoding"), 1);
    close_rig(rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_short_form),
        cmocka_unit_test(test_all_members),
        cmocka_unit_test(test_many_items),
        cmocka_unit_test(test_text_beyond_the_limit),
        cmocka_unit_test(test_accept_encoding),
        cmocka_unit_test(test_if_none_match),
        cmocka_unit_test(test_large_replies_are_compressed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
