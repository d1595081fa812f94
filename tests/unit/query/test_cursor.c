/* Promise: a cursor continues only the list, the order and the org that it was given for; every
 * other text is malformed. */
#include "query/query.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static const uint64_t places[] = {0, 1, 255, 1ull << 40, (7ull << 40) | 12345, UINT64_MAX};

#define PLACE_COUNT (sizeof(places) / sizeof(places[0]))

static void test_round_trip(void **state)
{
    (void)state;
    for (size_t i = 0; i < PLACE_COUNT; i++) {
        char text[QUERY_CURSOR_TEXT_BYTES];
        uint64_t place = 99;
        query_cursor_format(QUERY_LIST_TAIL, 7, places[i], text);
        assert_true(query_cursor_parse(QUERY_LIST_TAIL, 7, slice_make(text, sizeof(text)), &place));
        assert_true(place == places[i]);
        for (size_t n = 0; n < sizeof(text); n++) {
            assert_non_null(strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                   "0123456789-_",
                                   text[n]));
        }
    }
}

static void test_other_list_and_org(void **state)
{
    (void)state;
    char text[QUERY_CURSOR_TEXT_BYTES];
    uint64_t place = 99;
    struct slice s = slice_make(text, sizeof(text));
    query_cursor_format(QUERY_LIST_EVENTS_NEWEST, 7, 5, text);
    assert_false(query_cursor_parse(QUERY_LIST_EVENTS_OLDEST, 7, s, &place));
    assert_false(query_cursor_parse(QUERY_LIST_EVENTS_NEWEST, 8, s, &place));
    assert_int_equal(place, 99);
}

static void test_each_changed_character(void **state)
{
    (void)state;
    char text[QUERY_CURSOR_TEXT_BYTES];
    query_cursor_format(QUERY_LIST_UPLOADS, 3, 123456789, text);
    for (size_t i = 0; i < sizeof(text); i++) {
        char kept = text[i];
        for (const char *c = "ABCDEFGHabcdefgh0123456789-_=+/ \n"; *c != 0; c++) {
            uint64_t place = 99;
            text[i] = *c;
            bool taken =
                query_cursor_parse(QUERY_LIST_UPLOADS, 3, slice_make(text, sizeof(text)), &place);
            assert_true(taken == (*c == kept));
        }
        text[i] = kept;
    }
}

static void test_sizes(void **state)
{
    (void)state;
    char text[QUERY_CURSOR_TEXT_BYTES + 1];
    uint64_t place = 99;
    query_cursor_format(QUERY_LIST_UPLOADS, 3, 1, text);
    text[QUERY_CURSOR_TEXT_BYTES] = 'A';
    for (size_t size = 0; size <= sizeof(text); size++) {
        assert_true(query_cursor_parse(QUERY_LIST_UPLOADS, 3, slice_make(text, size), &place) ==
                    (size == QUERY_CURSOR_TEXT_BYTES));
    }
}

static void test_end_of_list(void **state)
{
    (void)state;
    struct buffer to;
    buffer_init(&to, 100);
    assert_int_equal(query_list_end(QUERY_LIST_UPLOADS, 3, false, 5, &to), ERR_OK);
    assert_true(slice_equal(buffer_slice(&to), SLICE_LITERAL(",\"next_cursor\":null}")));
    buffer_clear(&to);
    assert_int_equal(query_list_end(QUERY_LIST_UPLOADS, 3, true, 5, &to), ERR_OK);
    uint64_t place = 0;
    struct slice text = slice_part(buffer_slice(&to), 16, 16 + QUERY_CURSOR_TEXT_BYTES);
    assert_true(query_cursor_parse(QUERY_LIST_UPLOADS, 3, text, &place));
    assert_int_equal(place, 5);
    buffer_finish(&to);
}

static void test_status_words(void **state)
{
    (void)state;
    enum query_status status = QUERY_STATUS_OPEN;
    assert_true(query_status_parse(SLICE_LITERAL("acknowledged"), &status));
    assert_int_equal(status, QUERY_STATUS_ACKNOWLEDGED);
    assert_true(query_status_parse(SLICE_LITERAL("all"), &status));
    assert_int_equal(status, QUERY_STATUS_ANY);
    assert_false(query_status_parse(SLICE_LITERAL("Pending"), &status));
    assert_false(query_status_parse(SLICE_LITERAL(""), &status));
    assert_int_equal(status, QUERY_STATUS_ANY);
}

int main(void)
{
    if (hash_start() != ERR_OK) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_other_list_and_org),
        cmocka_unit_test(test_each_changed_character),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_end_of_list),
        cmocka_unit_test(test_status_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
