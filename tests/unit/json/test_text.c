/* Promise: UTF-8 and escapes are taken exactly as RFC 3629 and RFC 8259 say, and too few bytes are
 * told from wrong ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/slice.h"
#include "json/text.h"

/* RFC 3629 section 3, written down the other way round: from the code point to its bytes. */
static size_t encode(uint32_t point, uint8_t to[4])
{
    if (point < 0x80) {
        to[0] = (uint8_t)point;
        return 1;
    }
    size_t size = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = size - 1; i > 0; i--) {
        to[i] = (uint8_t)(0x80 + point % 64);
        point /= 64;
    }
    to[0] = (uint8_t)(lead[size] + point);
    return size;
}

/* All that is UTF-8 is taken, and each beginning of it is too short, not wrong. */
static void test_utf8_every_code_point(void **state)
{
    (void)state;
    for (uint32_t point = 0x80; point <= 0x10ffff; point++) {
        uint8_t bytes[4];
        size_t size = encode(point, bytes);
        bool surrogate = point >= 0xd800 && point <= 0xdfff;
        assert_int_equal(json_utf8_size(bytes, bytes + size), surrogate ? 0 : (int)size);
        for (size_t cut = 1; cut < size && !surrogate; cut++) {
            assert_int_equal(json_utf8_size(bytes, bytes + cut), -1);
        }
    }
}

/* All that is not: every pair of first bytes that begins no code point's sequence is wrong at two.
 */
static void test_utf8_every_pair(void **state)
{
    (void)state;
    static bool begins[256][256];
    for (uint32_t point = 0x80; point <= 0x10ffff; point++) {
        uint8_t bytes[4];
        (void)encode(point, bytes);
        if (point < 0xd800 || point > 0xdfff) {
            begins[bytes[0]][bytes[1]] = true;
        }
    }
    for (unsigned first = 0x80; first < 256; first++) {
        for (unsigned second = 0; second < 256; second++) {
            uint8_t bytes[4] = {(uint8_t)first, (uint8_t)second, 'x', 'x'};
            int size = json_utf8_size(bytes, bytes + 2);
            assert_true(begins[first][second] ? size != 0 : size == 0);
            if (first >= 0xe0) {
                assert_int_equal(json_utf8_size(bytes, bytes + 4), 0);
            }
        }
    }
}

struct escape {
    const char *text;
    int size;
    const char *means;
};

static void test_escapes(void **state)
{
    (void)state;
    static const struct escape escapes[] = {
        {"\\\"", 2, "\""},
        {"\\\\", 2, "\\"},
        {"\\/", 2, "/"},
        {"\\b", 2, "\b"},
        {"\\f", 2, "\f"},
        {"\\n", 2, "\n"},
        {"\\r", 2, "\r"},
        {"\\t", 2, "\t"},
        {"\\u0041", 6, "A"},
        {"\\u00e9", 6, "\xc3\xa9"},
        {"\\u00E9", 6, "\xc3\xa9"},
        {"\\u65e5", 6, "\xe6\x97\xa5"},
        {"\\uffff", 6, "\xef\xbf\xbf"},
        {"\\uD834\\uDD1E", 12, "\xf0\x9d\x84\x9e"}, /* RFC 8259 section 7, the G clef */
        {"\\ud800\\udc00", 12, "\xf0\x90\x80\x80"},
        {"\\udbff\\udfff", 12, "\xf4\x8f\xbf\xbf"},
        /* wrong */
        {"\\a", 0, NULL},
        {"\\u00g0", 0, NULL},
        {"\\u00", -1, NULL},
        {"\\", -1, NULL},
        {"\\udc00", 0, NULL},
        {"\\ud800", -1, NULL},
        {"\\ud800x", 0, NULL},
        {"\\ud800\\", -1, NULL},
        {"\\ud800\\n", 0, NULL},
        {"\\ud800\\ud", -1, NULL},
        {"\\ud800\\u0041", 0, NULL},
        {"\\ud800\\ud800", 0, NULL},
    };
    for (size_t i = 0; i < sizeof(escapes) / sizeof(escapes[0]); i++) {
        struct slice text = slice_from_text(escapes[i].text);
        int size = json_escape_size(text.data, text.data + text.size);
        assert_int_equal(size, escapes[i].size);
        if (size > 0) {
            uint8_t bytes[4];
            size_t count = json_escape_decode(text.data, size, bytes);
            assert_true(slice_equal(slice_make(bytes, count), slice_from_text(escapes[i].means)));
        }
    }
}

static void test_scan_says_where(void **state)
{
    (void)state;
    struct slice text = SLICE_LITERAL("plain \xc3\xa9\xe6\x97\xa5 \\n and \\ud83d\\ude00\" behind");
    struct json_text scan = json_text_scan(json_plain_scalar, text.data, text.data + text.size);
    assert_int_equal(scan.result, JSON_TEXT_END);
    assert_int_equal(scan.at - text.data, 31);
    assert_true(scan.escaped);
    scan = json_text_scan(json_plain_scalar, text.data, text.data + 24);
    assert_int_equal(scan.result, JSON_TEXT_CUT); /* inside the pair, which begins at 19 */
    assert_int_equal(scan.at - text.data, 19);
    scan = json_text_scan(json_plain_scalar, text.data, text.data + 10);
    assert_int_equal(scan.result, JSON_TEXT_CUT);
    assert_int_equal(scan.at - text.data, 8);
    assert_false(scan.escaped);
    text = SLICE_LITERAL("ab\xc3\xa9\xc3(");
    scan = json_text_scan(json_plain_scalar, text.data, text.data + text.size);
    assert_int_equal(scan.result, JSON_TEXT_UTF8);
    assert_int_equal(scan.at - text.data, 4);
    text = SLICE_LITERAL("ab\\q");
    scan = json_text_scan(json_plain_scalar, text.data, text.data + text.size);
    assert_int_equal(scan.result, JSON_TEXT_ESCAPE);
    assert_int_equal(scan.at - text.data, 2);
    text = SLICE_LITERAL("ab\x01");
    scan = json_text_scan(json_plain_scalar, text.data, text.data + text.size);
    assert_int_equal(scan.result, JSON_TEXT_CONTROL);
    assert_int_equal(scan.at - text.data, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_utf8_every_code_point),
        cmocka_unit_test(test_utf8_every_pair),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_scan_says_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
