/* Promise: every error has a class, a code and a text, and details never pass their size. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/err.h"

#include <errno.h>
#include <string.h>

/* API.md names these codes for machines; the class decides 4xx or 503. */
static void test_codes_and_classes(void **state)
{
    (void)state;
    assert_string_equal(err_code(ERR_FULL), "queue_full");
    assert_string_equal(err_code(ERR_TOO_LARGE), "payload_too_large");
    assert_int_equal(err_class(ERR_OK), ERR_CLASS_OK);
    assert_int_equal(err_class(ERR_SYNTAX), ERR_CLASS_REJECT);
    assert_int_equal(err_class(ERR_FULL), ERR_CLASS_RETRY);
    assert_int_equal(err_class(ERR_CORRUPT), ERR_CLASS_STOP);
}

static void test_codes_are_distinct_words(void **state)
{
    (void)state;
    for (int i = 0; i < ERR_COUNT; i++) {
        const char *code = err_code((enum err)i);
        const char *text = err_text((enum err)i);
        assert_int_equal(strspn(code, "abcdefghijklmnopqrstuvwxyz_"), strlen(code));
        assert_true(strlen(text) > 0);
        assert_int_not_equal(text[strlen(text) - 1], '.');
        for (int j = 0; j < i; j++) {
            assert_string_not_equal(code, err_code((enum err)j));
        }
    }
}

static void test_errno_maps_to_what_to_do(void **state)
{
    (void)state;
    assert_int_equal(err_from_errno(ENOENT), ERR_NOT_FOUND);
    assert_int_equal(err_from_errno(EACCES), ERR_PERMISSION);
    assert_int_equal(err_from_errno(ENOSPC), ERR_NO_SPACE);
    assert_int_equal(err_from_errno(EDQUOT), ERR_NO_SPACE);
    assert_int_equal(err_from_errno(EWOULDBLOCK), ERR_BUSY);
    assert_int_equal(err_from_errno(EIO), ERR_IO);
}

static void test_unknown_errno_stops(void **state)
{
    (void)state;
    assert_int_equal(err_from_errno(0), ERR_IO);
    assert_int_equal(err_from_errno(99999), ERR_IO);
    assert_int_equal(err_from_errno(-1), ERR_IO);
}

static void test_detail_takes_prefixes(void **state)
{
    (void)state;
    struct err_detail detail;
    err_detail_set(&detail, "%s", "permission denied");
    err_detail_prefix(&detail, "open %s", "/var/lib/weir/weir.db");
    err_detail_prefix(&detail, "open store");
    assert_string_equal(detail.text, "open store: open /var/lib/weir/weir.db: permission denied");
    /* The old text may be an argument of the new one. */
    err_detail_set(&detail, "%.10s!", detail.text);
    assert_string_equal(detail.text, "open store!");
}

static void test_detail_is_cut_and_may_be_null(void **state)
{
    (void)state;
    struct err_detail detail;
    const size_t room = sizeof(detail.text) - 1;
    err_detail_set(&detail, "%600d", 1);
    assert_int_equal(strlen(detail.text), room);
    err_detail_set(&detail, "%510d", 1);
    err_detail_prefix(&detail, "p");
    assert_int_equal(strlen(detail.text), room);
    assert_memory_equal(detail.text, "p:  ", 4);
    err_detail_prefix(&detail, "%600d", 1);
    assert_int_equal(strlen(detail.text), room);
    err_detail_set(NULL, "x");
    err_detail_prefix(NULL, "x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codes_and_classes),
        cmocka_unit_test(test_codes_are_distinct_words),
        cmocka_unit_test(test_errno_maps_to_what_to_do),
        cmocka_unit_test(test_unknown_errno_stops),
        cmocka_unit_test(test_detail_takes_prefixes),
        cmocka_unit_test(test_detail_is_cut_and_may_be_null),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
