/* Promise: positions and idempotency keys are taken in exactly their forms, and every error has its
 * row in the table of problems. */
#include "api/parameters.h"
#include "api/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static void test_positions(void **state)
{
    (void)state;
    static const struct {
        uint64_t position;
        const char *text;
    } rows[] = {
        {0, "0000000000000000"},
        {1, "0000000000000001"},
        {0x123456789abcdef0, "123456789abcdef0"},
        {UINT64_MAX, "ffffffffffffffff"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[API_POSITION_BYTES];
        uint64_t position = 99;
        api_position_format(rows[i].position, text);
        assert_memory_equal(text, rows[i].text, sizeof(text));
        assert_true(api_position_parse(slice_make(text, sizeof(text)), &position));
        assert_true(position == rows[i].position);
    }
}

static void test_no_positions(void **state)
{
    (void)state;
    static const char *const texts[] = {"",
                                        "1",
                                        "000000000000000",
                                        "00000000000000000",
                                        "000000000000000G",
                                        "000000000000000A",
                                        "-000000000000001",
                                        "0x00000000000001",
                                        " 000000000000001"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        uint64_t position = 99;
        assert_false(api_position_parse(slice_from_text(texts[i]), &position));
        assert_int_equal(position, 99);
    }
}

/* RFC 9651 3.3.3 for what stands in quotes; visible ASCII for what does not. */
static void test_idempotency_keys(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        const char *key; /* NULL: malformed */
    } rows[] = {
        {"8e03978e-40d5-43e8-bc93-6894a57f9324", "8e03978e-40d5-43e8-bc93-6894a57f9324"},
        {"\"8e03978e-40d5-43e8-bc93-6894a57f9324\"", "8e03978e-40d5-43e8-bc93-6894a57f9324"},
        {" \"a b\" ", "a b"},
        {"\"a\\\"b\\\\\"", "a\"b\\"},
        {"idem-1", "idem-1"},
        {"a\"b", "a\"b"},
        {"", NULL},
        {"\"\"", NULL},
        {"\"", NULL},
        {"\"a", NULL},
        {"a b", NULL},
        {"\"a\"b\"", NULL},
        {"\"a\\b\"", NULL},
        {"\"a\\\"", NULL},
        {"\"a\tb\"", NULL},
        {"\xc3\xa9", NULL},
        {"\"\xc3\xa9\"", NULL},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint8_t to[API_IDEMPOTENCY_KEY_MAX];
        struct slice key = {NULL, 0};
        bool taken = api_idempotency_key(slice_from_text(rows[i].header), to, &key);
        assert_true(taken == (rows[i].key != NULL));
        if (taken) {
            assert_true(slice_equal(key, slice_from_text(rows[i].key)));
        }
    }
}

static void test_sizes_of_idempotency_keys(void **state)
{
    (void)state;
    char text[300];
    for (size_t size = 1; size <= 260; size++) {
        uint8_t to[API_IDEMPOTENCY_KEY_MAX];
        struct slice key = {NULL, 0};
        memset(text, 'k', sizeof(text));
        assert_true(api_idempotency_key(slice_make(text, size), to, &key) == (size <= 255));
        text[0] = '"';
        text[size + 1] = '"';
        assert_true(api_idempotency_key(slice_make(text, size + 2), to, &key) == (size <= 255));
    }
    struct slice key = SLICE_LITERAL("x");
    uint8_t to[API_IDEMPOTENCY_KEY_MAX];
    assert_true(api_idempotency_key((struct slice){NULL, 0}, to, &key));
    assert_null(key.data);
}

/* The class of an error decides its kind of status. */
static void test_every_error_is_told(void **state)
{
    (void)state;
    for (int i = ERR_OK + 1; i < ERR_COUNT; i++) {
        const struct api_problem_row *row = api_problem_of((enum err)i);
        assert_non_null(row->code);
        assert_non_null(row->detail);
        for (const char *c = row->code; *c != 0; c++) {
            assert_true((*c >= 'a' && *c <= 'z') || *c == '_');
        }
        switch (err_class((enum err)i)) {
        case ERR_CLASS_OK:
            fail();
            break;
        case ERR_CLASS_REJECT:
            assert_in_range(row->status, 400, 499);
            break;
        case ERR_CLASS_RETRY:
            assert_int_equal(row->status, 503);
            break;
        case ERR_CLASS_STOP:
            assert_in_range(row->status, 500, 503);
            break;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_no_positions),
        cmocka_unit_test(test_idempotency_keys),
        cmocka_unit_test(test_sizes_of_idempotency_keys),
        cmocka_unit_test(test_every_error_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
