/* A body ends where its framing says, however its bytes are cut, and framing that others might read
 * differently is refused.
 *
 * Expected values come from RFC 9112 6.3 and 7.1. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/limits.h"
#include "base/mem.h"
#include "http/body.h"

#include <stdio.h>

/* Feeds in two parts; gathers the data; gives the last step and how much was not used. */
static enum http_body_step feed(int64_t body_bytes, struct slice bytes, size_t cut, char *to,
                                size_t *ret_size, size_t *ret_unused, int *ret_status)
{
    struct http_body body;
    enum http_body_step step = HTTP_BODY_MORE;
    http_body_init(&body, body_bytes);
    *ret_size = 0;
    for (size_t part = 0; part < 2 && step == HTTP_BODY_MORE; part++) {
        size_t from = part == 0 ? 0 : cut;
        size_t end = part == 0 ? cut : bytes.size;
        uint8_t *copy = mem_alloc(end - from);
        memcpy(copy, bytes.data + from, end - from);
        struct slice rest = slice_make(copy, end - from);
        do {
            struct slice data = {NULL, 0};
            step = http_body_step(&body, &rest, &data);
            if (step == HTTP_BODY_BYTES) {
                memcpy(to + *ret_size, data.data, data.size);
                *ret_size += data.size;
            }
        } while (step == HTTP_BODY_BYTES);
        *ret_unused = rest.size + (bytes.size - end);
        mem_free(copy);
    }
    *ret_status = body.fault.status;
    return step;
}

struct good {
    int64_t body_bytes;
    const char *bytes;
    const char *data;
    size_t unused;
};

static const struct good goods[] = {
    {5, "hello", "hello", 0},
    {5, "helloGET /", "hello", 5},
    {0, "GET /", "", 5},
    {-1, "0\r\n\r\n", "", 0},
    {-1, "5\r\nhello\r\n0\r\n\r\n", "hello", 0},
    {-1, "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\nGET", "hello world", 3},
    {-1, "A\r\n0123456789\r\na\r\nabcdefghij\r\n000\r\n\r\n", "0123456789abcdefghij", 0},
    {-1, "0000000000000005\r\nhello\r\n0\r\n\r\n", "hello", 0},
    {-1, "5;a\r\nhello\r\n0;b=c;d=\"e \\\" f\";g\r\n\r\n", "hello", 0},
    {-1, "1\r\nx\r\n0\r\nA: b\r\nC-D:\r\nE: \xc3\xa9 f\r\n\r\nrest", "x", 4},
    {-1, "4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n", 0},
};

static void test_good_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        struct slice bytes = slice_from_text(goods[i].bytes);
        for (size_t cut = 0; cut <= bytes.size; cut++) {
            char data[64];
            size_t size = 0;
            size_t unused = 0;
            int status = 0;
            enum http_body_step step =
                feed(goods[i].body_bytes, bytes, cut, data, &size, &unused, &status);
            if (step != HTTP_BODY_END || unused != goods[i].unused ||
                !slice_equal(slice_make(data, size), slice_from_text(goods[i].data))) {
                fail_msg("row %zu cut at %zu: step %d, %zu bytes, %zu unused", i, cut, (int)step,
                         size, unused);
            }
        }
    }
}

static const char *const bads[] = {
    "\r\n",
    "g\r\n",
    " 5\r\nhello\r\n",
    "5 \r\nhello\r\n",
    "5\t\r\nhello\r\n",
    "+5\r\nhello\r\n",
    "-5\r\nhello\r\n",
    "0x5\r\nhello\r\n",
    "5,\r\nhello\r\n",
    "5\nhello\r\n",
    "5\r\rhello\r\n",
    "5\rhello\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhelloX\r\n0\r\n\r\n",
    "5\r\nhell\r\n0\r\n\r\n",
    "8000000000000000\r\n",
    "FFFFFFFFFFFFFFFF\r\n",
    "00000000000000005\r\nhello\r\n",
    "10000000000000005\r\nhello\r\n",
    "5;\r\nhello\r\n",
    "5;=b\r\nhello\r\n",
    "5;a=\r\nhello\r\n",
    "5; a\r\nhello\r\n",
    "5 ;a\r\nhello\r\n",
    "5;a b\r\nhello\r\n",
    "5;a=\"b\r\nhello\r\n",
    "5;a=\"b\"c\r\nhello\r\n",
    "5;a=b\"c\"\r\nhello\r\n",
    "5;a=\"\x01\"\r\nhello\r\n",
    "5;a\nhello\r\n",
    "0\r\n \r\n\r\n",
    "0\r\nA : b\r\n\r\n",
    "0\r\nA\r\n\r\n",
    "0\r\n: b\r\n\r\n",
    "0\r\nA: b\n\r\n",
    "0\r\nA: b\r\n c\r\n\r\n",
    "0\r\nA: \x01\r\n\r\n",
    "0\r\n\n",
    "0\r\n\r\r\n",
    "0\n\r\n",
};

static void test_bad_at_every_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        struct slice bytes = slice_from_text(bads[i]);
        for (size_t cut = 0; cut <= bytes.size; cut++) {
            char data[64];
            size_t size = 0;
            size_t unused = 0;
            int status = 0;
            enum http_body_step step = feed(-1, bytes, cut, data, &size, &unused, &status);
            if (step != HTTP_BODY_BAD || status != 400) {
                fail_msg("row %zu cut at %zu: step %d status %d", i, cut, (int)step, status);
            }
        }
    }
}

static void test_every_prefix_needs_more(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(goods) / sizeof(goods[0]); i++) {
        struct slice bytes = slice_from_text(goods[i].bytes);
        for (size_t end = 0; end + goods[i].unused < bytes.size; end++) {
            char data[64];
            size_t size = 0;
            size_t unused = 0;
            int status = 0;
            assert_int_equal(feed(goods[i].body_bytes, slice_part(bytes, 0, end), end / 2, data,
                                  &size, &unused, &status),
                             HTTP_BODY_MORE);
        }
    }
}

static size_t put(char *to, size_t at, struct slice text)
{
    memcpy(to + at, text.data, text.size);
    return at + text.size;
}

static void test_limits(void **state)
{
    char bytes[16384];
    char data[16];
    size_t size = 0;
    size_t unused = 0;
    int status = 0;
    (void)state;
    /* "1;" and the extension's name, CR and LF make the line. */
    for (size_t over = 0; over < 2; over++) {
        size_t name = LIMIT_CHUNK_LINE_BYTES - 4 + over;
        (void)put(bytes, 0, SLICE_LITERAL("1;"));
        memset(bytes + 2, 'a', name);
        (void)put(bytes, 2 + name, SLICE_LITERAL("\r\nx\r\n0\r\n\r\n"));
        assert_int_equal(feed(-1, slice_make(bytes, name + 12), 5, data, &size, &unused, &status),
                         over == 0 ? HTTP_BODY_END : HTTP_BODY_BAD);
        assert_int_equal(status, over == 0 ? 0 : 400);
    }
    /* Trailers above 8 KiB, as one line and as many. */
    (void)put(bytes, 0, SLICE_LITERAL("0\r\nA: "));
    memset(bytes + 6, 'a', 9000);
    assert_int_equal(feed(-1, slice_make(bytes, 9000), 5, data, &size, &unused, &status),
                     HTTP_BODY_BAD);
    assert_int_equal(status, 431);
    size = 3;
    for (size_t i = 0; i <= LIMIT_HEADER_COUNT + 1; i++) {
        (void)put(bytes, 3 + i * 5, SLICE_LITERAL("A: \r\n"));
    }
    assert_int_equal(feed(-1, slice_make(bytes, 3 + (LIMIT_HEADER_COUNT + 2) * 5), 5, data, &size,
                          &unused, &status),
                     HTTP_BODY_BAD);
    assert_int_equal(status, 431);
}

static void test_large_chunk_size(void **state)
{
    static const char bytes[] = "7fffffffffffffff\r\nx";
    struct http_body body;
    struct slice rest = slice_from_text(bytes);
    struct slice data = {NULL, 0};
    (void)state;
    http_body_init(&body, -1);
    assert_int_equal(http_body_step(&body, &rest, &data), HTTP_BODY_BYTES);
    assert_true(http_body_left(&body) == (uint64_t)INT64_MAX - 1);
    assert_false(http_body_is_ended(&body));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_at_every_cut),       cmocka_unit_test(test_bad_at_every_cut),
        cmocka_unit_test(test_every_prefix_needs_more), cmocka_unit_test(test_limits),
        cmocka_unit_test(test_large_chunk_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
