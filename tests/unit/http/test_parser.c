/* A request head is read the same however its bytes are cut, and whatever could be read in two ways
 * is refused.
 *
 * Expected values come from RFC 9112 (2.2, 3, 5, 6), RFC 9110 and the limits of base/limits.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "http/http.h"
#include "http/parser.h"

#include <stdio.h>

struct accepted {
    const char *bytes;
    enum http_method method;
    const char *path;
    const char *query;
    int64_t body_bytes;
    bool keep_alive;
    uint32_t fields;
};

#define HOST "Host: a\r\n"

static const struct accepted accepts[] = {
    {"GET / HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"\r\nGET / HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"HEAD /x HTTP/1.1\r\n" HOST "\r\n", HTTP_HEAD, "/x", "", 0, true, 1},
    {"PUT /x HTTP/1.1\r\n" HOST "\r\n", HTTP_PUT, "/x", "", 0, true, 1},
    {"PATCH /x HTTP/1.1\r\n" HOST "\r\n", HTTP_PATCH, "/x", "", 0, true, 1},
    {"DELETE /x HTTP/1.1\r\n" HOST "\r\n", HTTP_DELETE, "/x", "", 0, true, 1},
    {"OPTIONS * HTTP/1.1\r\n" HOST "\r\n", HTTP_OPTIONS, "/", "", 0, true, 1},
    {"GET /a/b?c=d&e HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/a/b", "c=d&e", 0, true, 1},
    {"GET /a? HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/a", "", 0, true, 1},
    {"GET /a??b HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/a", "?b", 0, true, 1},
    {"GET /%41%2fb HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/%41%2fb", "", 0, true, 1},
    {"GET http://a.b:80/x?y HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/x", "y", 0, true, 1},
    {"GET HTTPS://a HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"GET http://a?q HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/", "q", 0, true, 1},
    {"GET http://[::1]:8/ HTTP/1.1\r\n" HOST "\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"GET / HTTP/1.0\r\n\r\n", HTTP_GET, "/", "", 0, false, 0},
    {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"GET / HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n", HTTP_GET, "/", "", 0, false, 2},
    {"GET / HTTP/1.1\r\n" HOST "Connection: te , CLOSE\r\n\r\n", HTTP_GET, "/", "", 0, false, 2},
    {"GET / HTTP/1.1\r\n" HOST "Connection: keep-alive\r\nConnection: close\r\n\r\n", HTTP_GET, "/",
     "", 0, false, 3},
    {"GET / HTTP/1.1\r\nhOsT:a\r\n\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"GET / HTTP/1.1\r\nHost:   a.example-1.org:8080   \r\n\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"GET / HTTP/1.1\r\nHost: [2001:db8::1]:1\r\n\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"GET / HTTP/1.1\r\nHost: 127.0.0.1:\r\n\r\n", HTTP_GET, "/", "", 0, true, 1},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n", HTTP_POST, "/", "", 0, true, 2},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 00012\r\n\r\n", HTTP_POST, "/", "", 12, true, 2},
    {"POST / HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775807\r\n\r\n", HTTP_POST, "/", "",
     INT64_MAX, true, 2},
    {"POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n", HTTP_POST, "/", "", -1, true,
     2},
    {"POST / HTTP/1.1\r\n" HOST "transfer-encoding:CHUNKED \r\n\r\n", HTTP_POST, "/", "", -1, true,
     2},
    {"GET / HTTP/1.1\r\n" HOST "X-Empty:\r\nX-High: \xc3\xa9\xff\r\nX-Tab: a\tb\r\n\r\n", HTTP_GET,
     "/", "", 0, true, 4},
    {"GET / HTTP/1.1\r\n" HOST "!#$%&'*+-.^_`|~: x\r\n\r\n", HTTP_GET, "/", "", 0, true, 2},
};

struct refused {
    int status;
    const char *bytes;
};

static const struct refused refuses[] = {
    /* request line */
    {400, "\r\n\r\nGET / HTTP/1.1\r\n" HOST "\r\n"},
    {400, "\nGET / HTTP/1.1\r\n" HOST "\r\n"},
    {400, " GET / HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET  / HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /  HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET\t/ HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET / HTTP/1.1 \r\n" HOST "\r\n"},
    {400, "GET / HTTP/1.1\n" HOST "\r\n"},
    {400, "GET /\r\n\r\n"},
    {400, "GET\r\n\r\n"},
    {400, "GET / \r\n" HOST "\r\n"},
    {400, "G(T / HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET / http/1.1\r\n" HOST "\r\n"},
    {400, "GET / HTTP/1\r\n" HOST "\r\n"},
    {400, "GET / HTTP/1.10\r\n" HOST "\r\n"},
    {400, "GET / HTTP/1,1\r\n" HOST "\r\n"},
    {400, "GET / HTTP/x.1\r\n" HOST "\r\n"},
    {400, "GET / HTTP/-1.1\r\n" HOST "\r\n"},
    {400, "\x16\x03\x01\x02"},
    {505, "GET / HTTP/1.2\r\n" HOST "\r\n"},
    {505, "GET / HTTP/2.0\r\n" HOST "\r\n"},
    {505, "GET / HTTP/0.9\r\n" HOST "\r\n"},
    {505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
    /* target */
    {400, "GET * HTTP/1.1\r\n" HOST "\r\n"},
    {400, "POST * HTTP/1.1\r\n" HOST "\r\n"},
    {400, "OPTIONS ** HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET a HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET a.b:80 HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET ftp://a/ HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET http:// HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET http:///x HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET http://u@a/ HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET http://a:99999/ HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET http://a,b/ HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a#b HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a\x01 HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /\xc3\xa9 HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a\"b HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /a\\b HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /%4 HTTP/1.1\r\n" HOST "\r\n"},
    {400, "GET /%zz HTTP/1.1\r\n" HOST "\r\n"},
    {501, "CONNECT a:443 HTTP/1.1\r\n" HOST "\r\n"},
    /* fields */
    {400, "GET / HTTP/1.1\r\n" HOST "A : b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A\t: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST " A: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n A: b\r\n" HOST "\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A: b\r\n c\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A: b\r\n\tc\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST ": b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A(: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A: b\rc\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A: b\nC: d\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A: \x7f\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "A: \x1b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "\n"},
    {400, "GET / HTTP/1.1\r\n" HOST "\r\r\n\r\n"},
    /* Host */
    {400, "GET / HTTP/1.1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost:\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
    {400, "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: a:70000\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: [::1]x\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost: [g::1]\r\n\r\n"},
    {400, "GET / HTTP/1.1\r\nHost:\ta\r\n\r\n"},
    /* framing */
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1, 1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: +1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: -1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1 1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 0x1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1.0\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length:\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 9223372036854775808\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 18446744073709551617\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length:\t1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, chunked\r\n\r\n"},
    {400,
     "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked, gzip\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding:\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: , chunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \tchunked\r\n\r\n"},
    {400, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: \"chunked\"\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip, chunked\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: gzip\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: xchunked\r\n\r\n"},
    {501, "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: identity\r\n\r\n"},
    {400, "POST / HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"},
};

/* Bytes in a block of exactly their size, so that sanitizers see a read past them. */
static uint8_t *copy_of(const void *data, size_t size)
{
    uint8_t *copy = mem_alloc(size);
    memcpy(copy, data, size);
    return copy;
}

static enum http_parse parse_cut(const void *bytes, size_t size, size_t cut,
                                 struct http_parser *parser, struct http_head *head)
{
    http_parser_init(parser, head);
    enum http_parse result = HTTP_PARSE_MORE;
    if (cut > 0) {
        uint8_t *part = copy_of(bytes, cut);
        result = http_parser_step(parser, head, part, cut);
        mem_free(part);
    }
    if (result == HTTP_PARSE_MORE) {
        uint8_t *whole = copy_of(bytes, size);
        result = http_parser_step(parser, head, whole, size);
        mem_free(whole);
    }
    return result;
}

static void check_accepted(const struct accepted *one, const struct http_head *head)
{
    struct slice bytes = slice_from_text(one->bytes);
    struct slice path = slice_part(bytes, head->path, (size_t)head->path + head->path_size);
    struct slice query = slice_part(bytes, head->query, (size_t)head->query + head->query_size);
    assert_int_equal(head->refusal.status, 0);
    assert_int_equal(head->method, one->method);
    assert_true(slice_equal(path, slice_from_text(one->path)) ||
                (path.size == 0 && strcmp(one->path, "/") == 0));
    assert_true(slice_equal(query, slice_from_text(one->query)));
    assert_true(head->body_bytes == one->body_bytes);
    assert_int_equal(head->keep_alive, one->keep_alive);
    assert_int_equal(head->field_count, one->fields);
    assert_int_equal(head->size, bytes.size);
}

static void test_accepts_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(accepts) / sizeof(accepts[0]); i++) {
        size_t size = strlen(accepts[i].bytes);
        for (size_t cut = 0; cut < size; cut++) {
            struct http_parser parser;
            struct http_head head;
            enum http_parse result = parse_cut(accepts[i].bytes, size, cut, &parser, &head);
            if (result != HTTP_PARSE_DONE) {
                fail_msg("row %zu cut at %zu: %s", i, cut, parser.fault.detail);
            }
            check_accepted(&accepts[i], &head);
        }
    }
}

static void test_refuses_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refuses) / sizeof(refuses[0]); i++) {
        size_t size = strlen(refuses[i].bytes);
        for (size_t cut = 0; cut < size; cut++) {
            struct http_parser parser;
            struct http_head head;
            enum http_parse result = parse_cut(refuses[i].bytes, size, cut, &parser, &head);
            if (result != HTTP_PARSE_BAD || parser.fault.status != refuses[i].status) {
                fail_msg("row %zu cut at %zu: result %d status %d: %s", i, cut, (int)result,
                         parser.fault.status, refuses[i].bytes);
            }
        }
    }
}

static void test_every_prefix_needs_more(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(accepts) / sizeof(accepts[0]); i++) {
        struct http_parser parser;
        struct http_head head;
        size_t size = strlen(accepts[i].bytes);
        uint8_t *whole = copy_of(accepts[i].bytes, size);
        http_parser_init(&parser, &head);
        for (size_t end = 1; end < size; end++) {
            assert_int_equal(http_parser_step(&parser, &head, whole, end), HTTP_PARSE_MORE);
        }
        assert_int_equal(http_parser_step(&parser, &head, whole, size), HTTP_PARSE_DONE);
        check_accepted(&accepts[i], &head);
        mem_free(whole);
    }
}

static void test_nul_is_refused(void **state)
{
    static const char in_value[] = "GET / HTTP/1.1\r\nHost: a\r\nA: b\0c\r\n\r\n";
    static const char in_name[] = "GET / HTTP/1.1\r\nHost: a\r\nA\0: b\r\n\r\n";
    static const char in_target[] = "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n";
    struct http_parser parser;
    struct http_head head;
    (void)state;
    assert_int_equal(parse_cut(in_value, sizeof(in_value) - 1, 0, &parser, &head), HTTP_PARSE_BAD);
    assert_int_equal(parse_cut(in_name, sizeof(in_name) - 1, 0, &parser, &head), HTTP_PARSE_BAD);
    assert_int_equal(parse_cut(in_target, sizeof(in_target) - 1, 0, &parser, &head),
                     HTTP_PARSE_BAD);
}

static void test_what_follows_is_not_touched(void **state)
{
    static const char two[] = "GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\n";
    struct http_parser parser;
    struct http_head head;
    (void)state;
    assert_int_equal(parse_cut(two, sizeof(two) - 1, 0, &parser, &head), HTTP_PARSE_DONE);
    assert_int_equal(head.size, 28);
}

static void test_known_fields_and_refusals(void **state)
{
    static const char bytes[] = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\n"
                                "Accept-Encoding: gzip\r\nX-Request-Id: r\r\n\r\n";
    struct http_parser parser;
    struct http_head head;
    (void)state;
    assert_int_equal(parse_cut(bytes, sizeof(bytes) - 1, 0, &parser, &head), HTTP_PARSE_DONE);
    assert_true(head.expect_continue);
    assert_int_equal(head.known[HTTP_KNOWN_HOST], 1);
    assert_int_equal(head.known[HTTP_KNOWN_ACCEPT_ENCODING], 3);
    assert_int_equal(head.known[HTTP_KNOWN_REQUEST_ID], 4);
    assert_int_equal(head.known[HTTP_KNOWN_ORIGIN], 0);
    /* The twins: framing is certain, but the request is refused. */
    static const char expects[] = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n";
    assert_int_equal(parse_cut(expects, sizeof(expects) - 1, 0, &parser, &head), HTTP_PARSE_DONE);
    assert_int_equal(head.refusal.status, 417);
    static const char method[] = "get / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
    assert_int_equal(parse_cut(method, sizeof(method) - 1, 0, &parser, &head), HTTP_PARSE_DONE);
    assert_int_equal(head.refusal.status, 501);
    assert_int_equal(head.body_bytes, 3);
}

static size_t put(char *to, size_t at, struct slice text)
{
    memcpy(to + at, text.data, text.size);
    return at + text.size;
}

/* `count` bytes of `fill` between two texts. */
static size_t fill_between(char *to, const char *before, char fill, size_t count, const char *after)
{
    size_t size = put(to, 0, slice_from_text(before));
    memset(to + size, fill, count);
    return put(to, size + count, slice_from_text(after));
}

static void test_limits(void **state)
{
    char *bytes = mem_alloc((size_t)2 * LIMIT_HEAD_BYTES);
    struct http_parser parser;
    struct http_head head;
    (void)state;
    /* A target of exactly 8 KiB is fine, one byte more is 414. */
    size_t size =
        fill_between(bytes, "GET /", 'a', LIMIT_TARGET_BYTES - 1, " HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(parse_cut(bytes, size, 100, &parser, &head), HTTP_PARSE_DONE);
    size = fill_between(bytes, "GET /", 'a', LIMIT_TARGET_BYTES, " HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_int_equal(parse_cut(bytes, size, 100, &parser, &head), HTTP_PARSE_BAD);
    assert_int_equal(parser.fault.status, 414);
    /* A request line without an end. */
    size = fill_between(bytes, "GET /", 'a', LIMIT_TARGET_BYTES + 100, "");
    assert_int_equal(parse_cut(bytes, size, 100, &parser, &head), HTTP_PARSE_BAD);
    assert_int_equal(parser.fault.status, 414);
    /* A head of exactly 32 KiB is fine, one byte more is 431, whole or not. */
    const char *begin = "GET / HTTP/1.1\r\nHost: a\r\nA: ";
    size_t room = LIMIT_HEAD_BYTES - strlen(begin) - 4;
    size = fill_between(bytes, begin, 'a', room, "\r\n\r\n");
    assert_int_equal(size, LIMIT_HEAD_BYTES);
    assert_int_equal(parse_cut(bytes, size, 100, &parser, &head), HTTP_PARSE_DONE);
    size = fill_between(bytes, begin, 'a', room + 1, "\r\n\r\n");
    assert_int_equal(parse_cut(bytes, size, 0, &parser, &head), HTTP_PARSE_BAD);
    assert_int_equal(parser.fault.status, 431);
    size = fill_between(bytes, begin, 'a', room + 4, "");
    assert_int_equal(parse_cut(bytes, size - 1, size - 2, &parser, &head), HTTP_PARSE_MORE);
    assert_int_equal(parse_cut(bytes, size, size - 1, &parser, &head), HTTP_PARSE_BAD);
    assert_int_equal(parser.fault.status, 431);
    mem_free(bytes);
}

static void test_field_count(void **state)
{
    char bytes[4096];
    struct http_parser parser;
    struct http_head head;
    (void)state;
    for (size_t wanted = LIMIT_HEADER_COUNT; wanted <= LIMIT_HEADER_COUNT + 1; wanted++) {
        size_t size = (size_t)snprintf(bytes, sizeof(bytes), "GET / HTTP/1.1\r\nHost: a\r\n");
        for (size_t i = 1; i < wanted; i++) {
            size = put(bytes, size, SLICE_LITERAL("A: b\r\n"));
        }
        size = put(bytes, size, SLICE_LITERAL("\r\n"));
        bool fits = wanted == LIMIT_HEADER_COUNT;
        assert_int_equal(parse_cut(bytes, size, 0, &parser, &head),
                         fits ? HTTP_PARSE_DONE : HTTP_PARSE_BAD);
        assert_int_equal(parser.fault.status, fits ? 0 : 431);
    }
}

/* RFC 9110 5.5: VCHAR, obs-text, space and tab; looked at eight bytes at a time. */
static void test_every_byte_of_a_value_is_looked_at(void **state)
{
    (void)state;
    uint8_t text[40];
    for (size_t size = 1; size <= sizeof(text); size++) {
        for (size_t place = 0; place < size; place++) {
            for (int byte = 0; byte < 256; byte++) {
                bool is_good = byte == '\t' || (byte >= 0x20 && byte != 0x7f);
                memset(text, 'a', sizeof(text));
                text[place] = (uint8_t)byte;
                assert_int_equal(http_is_field_value(slice_make(text, size)), is_good);
            }
        }
    }
    assert_true(http_is_field_value(slice_make(text, 0)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_of_a_value_is_looked_at),
        cmocka_unit_test(test_accepts_at_every_cut),
        cmocka_unit_test(test_refuses_at_every_cut),
        cmocka_unit_test(test_every_prefix_needs_more),
        cmocka_unit_test(test_nul_is_refused),
        cmocka_unit_test(test_what_follows_is_not_touched),
        cmocka_unit_test(test_known_fields_and_refusals),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_field_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
