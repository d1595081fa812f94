/* Promise: a backlog whose rows go through a file is applied as one in memory is: each record once,
 * with its own texts, duplicates told, refused ones as dead letters; also when there is no file.
 *
 * link: store_fixture.c apply_rig.c */
#include "support/apply_rig.h"

#include "apply/internal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

enum { EVENTS = 24000, A_FRAME = 500, TEXT_BYTES = 120, REFUSED = 17000, AGAIN = 21000 };
/* Three times what stays in memory, and one batch still. */
static_assert(EVENTS * TEXT_BYTES > 2 * APPLY_TEXTS_MAX, "most of it goes to the file");

static struct apply_rig rig;

static int setup(void **state)
{
    (void)state;
    apply_rig_init(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    apply_rig_finish(&rig);
    return 0;
}

static void add_line(struct buffer *lines, uint32_t number, const char *word)
{
    assert_int_equal(buffer_printf(lines,
                                   "{\"type\":\"t\",\"dedup_id\":\"d%u\",\"subject\":\"s%u\","
                                   "\"payload\":\"%s %u %0*d\"}\n",
                                   number, number, word, number, TEXT_BYTES, 0),
                     ERR_OK);
}

static void append_backlog(void)
{
    struct buffer lines;
    buffer_init(&lines, 1u << 20u);
    for (uint32_t i = 0; i < EVENTS; i += A_FRAME) {
        buffer_clear(&lines);
        for (uint32_t n = i; n < i + A_FRAME; n++) {
            add_line(&lines, n, "first");
        }
        assert_int_equal(buffer_append_byte(&lines, 0), ERR_OK);
        apply_rig_append(&rig, RECORD_FORM_EVENT_LINES, i / A_FRAME % 2 + 1,
                         (const char *)lines.data, A_FRAME, RECORD_WAITER_NONE);
    }
    buffer_clear(&lines); /* its org is 1, as that of the frame that AGAIN stands in */
    assert_int_equal(AGAIN / A_FRAME % 2, 0);
    add_line(&lines, AGAIN, "first");
    add_line(&lines, AGAIN + 1, "other");
    add_line(&lines, EVENTS, "first");
    assert_int_equal(buffer_append_byte(&lines, 0), ERR_OK);
    apply_rig_append(&rig, RECORD_FORM_EVENT_LINES, 1, (const char *)lines.data, 3, 9);
    buffer_finish(&lines);
    apply_rig_flush(&rig);
}

static void assert_applied(int64_t refused)
{
    const struct record_result *result = apply_rig_result(&rig, 9);
    assert_int_equal(result->items[0], RECORD_ITEM_DUPLICATE);
    assert_int_equal(result->items[1], RECORD_ITEM_CONFLICT);
    assert_int_equal(result->items[2], RECORD_ITEM_INSERTED);
    apply_rig_wait(&rig);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM events"), EVENTS + 1 - refused);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(DISTINCT dedup_id) FROM events"),
                     EVENTS + 1 - refused);
    assert_int_equal(
        apply_rig_number(&rig,
                         "SELECT count(*) FROM events WHERE 's' || substr(dedup_id, 2) ="
                         " subject AND payload LIKE '\"first ' || substr(dedup_id, 2) || ' %'"),
        EVENTS + 1 - refused);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM dead_letters"), refused);
}

static void test_through_a_file(void **state)
{
    (void)state;
    append_backlog();
    apply_rig_start(&rig);
    assert_applied(0);
}

static void test_a_refused_row_of_the_file(void **state)
{
    char condition[64];
    (void)state;
    (void)snprintf(condition, sizeof(condition), "NEW.dedup_id = 'd%u'", REFUSED);
    store_fixture_refuse(&rig.store, condition);
    append_backlog();
    apply_rig_start(&rig);
    assert_applied(1);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM dead_letters WHERE"
                                            " CAST(record AS text) LIKE '%\"first 17000 0%'"),
                     1);
}

static void test_without_a_file(void **state)
{
    (void)state;
    (void)snprintf(rig.spill, sizeof(rig.spill), "%s/no/rows", rig.store.directory);
    append_backlog();
    apply_rig_start(&rig);
    assert_applied(0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_through_a_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_refused_row_of_the_file, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_a_file, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
