/* Promise: a part of a batch is bounded by the rows that it makes of events and of readings alike,
 * so that messages of very many metrics make no long transaction.
 *
 * link: store_fixture.c apply_rig.c */
#include "apply/internal.h"

/* So few that every part is at the bound. */
#undef APPLY_ROWS_MAX
#define APPLY_ROWS_MAX 1000u
#include "../../../src/apply/apply.c"

#include "support/apply_rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MESSAGES 400u
#define METRICS  50u

static struct apply_rig rig;

static int setup(void **state)
{
    (void)state;
    apply_rig_init(&rig);
    assert_int_equal(store_fixture_sql(&rig.store, "CREATE TABLE steps (applied INTEGER)"), ERR_OK);
    assert_int_equal(store_fixture_sql(&rig.store,
                                       "CREATE TRIGGER watch AFTER UPDATE OF applied_count ON "
                                       "uploads BEGIN INSERT INTO steps VALUES "
                                       "(NEW.applied_count - OLD.applied_count); END"),
                     ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    apply_rig_finish(&rig);
    return 0;
}

static void upload(uint32_t messages, uint32_t slice_elements)
{
    struct buffer lines;
    buffer_init(&lines, 8u << 20u);
    for (uint32_t i = 0; i < messages; i++) {
        assert_int_equal(buffer_printf(&lines,
                                       "{\"device_id\":\"00000000-0000-4000-8000-%012u\","
                                       "\"metrics\":[",
                                       i),
                         ERR_OK);
        for (uint32_t n = 0; n < METRICS; n++) {
            assert_int_equal(buffer_printf(&lines,
                                           "%s{\"parameter_key\":\"parameter-%u\",\"value\":1}",
                                           n == 0 ? "" : ",", n),
                             ERR_OK);
        }
        assert_int_equal(buffer_append_text(&lines, "]}\n"), ERR_OK);
    }
    rig.upload_form = RECORD_FORM_READING_LINES;
    (void)apply_rig_upload(&rig, 1, buffer_slice(&lines), slice_elements, 4);
    buffer_finish(&lines);
    apply_rig_start(&rig);
    /* Nobody has registered the devices: each message is a dead letter, once. */
    assert_int_equal(apply_rig_result(&rig, 4)->refused, messages);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM dead_letters"), messages);
}

static void test_parts_of_an_upload(void **state)
{
    (void)state;
    upload(MESSAGES, MESSAGES);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM steps"),
                     MESSAGES * METRICS / APPLY_ROWS_MAX);
    assert_int_equal(apply_rig_number(&rig, "SELECT max(applied) FROM steps"),
                     APPLY_ROWS_MAX / METRICS);
}

/* The twin: a small upload appears at once, whatever its readings. */
static void test_few_bytes_appear_at_once(void **state)
{
    (void)state;
    upload(150, 40);
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM steps"), 1);
}

static void test_frames_of_a_part(void **state)
{
    (void)state;
    struct apply_frame frames[6] = {{.event_count = 10}};
    struct apply_batch batch = {.frames = frames, .frame_count = 6, .reading_count = 2450};
    struct applier applier = {.part_rows = 1000};
    for (uint32_t i = 0; i < 6; i++) { /* four of messages, then two of events */
        frames[i].event_count = i < 4 ? 10 : 600;
        frames[i].first_reading = i < 4 ? i * 500 : 2450;
    }
    static const uint32_t ends[] = {2, 3, 4, 5, 6}; /* 500 + 500, 500, 950, 600, 600 */
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        choose_part(&applier, &batch);
        assert_int_equal(batch.part_to, ends[i]);
        batch.part_from = batch.part_to;
    }
    batch.part_from = 2;
    batch.part_to = 5;
    assert_int_equal(part_rows(&batch), 500 + 950 + 600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parts_of_an_upload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_few_bytes_appear_at_once, setup, teardown),
        cmocka_unit_test(test_frames_of_a_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
