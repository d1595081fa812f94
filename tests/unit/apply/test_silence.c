/* Promise: a device is silent when nothing of it came, and not while what it has sent waits to be
 * applied; who is out of use is neither silent nor back; and erasing what was said of it touches
 * nobody's upload.
 *
 * link: store_fixture.c apply_rig.c
 * with: manage query */
#include "support/apply_rig.h"
#include "support/registry.h"

#include "base/clock.h"
#include "query/query.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define SILENT "SELECT count(*) FROM events WHERE type = 'device.silent'"
#define BACK   "SELECT count(*) FROM events WHERE type = 'device.back'"

static char message[512];

static enum err run_registry(struct store_connection *connection, void *context)
{
    char text[ID_TEXT_BYTES];
    struct id project = registry_add(connection, MANAGE_PROJECT, 1, "p", NULL);
    struct id site = registry_add(connection, MANAGE_SITE, 1, "s", &project);
    struct id device = registry_add(connection, MANAGE_DEVICE, 1, "d", &site);
    (void)context;
    id_format(device, text);
    (void)snprintf(message, sizeof(message),
                   "{\"device_id\":\"%.*s\",\"protocol\":\"HTTP\","
                   "\"source_timestamp\":\"2026-01-01T00:00:00Z\","
                   "\"metrics\":[{\"parameter_key\":\"t\",\"value\":1}]}",
                   ID_TEXT_BYTES, text);
    return ERR_OK;
}

/* One device, heard of long ago. */
static int setup(void **state)
{
    static struct apply_rig rig;
    apply_rig_init(&rig);
    assert_int_equal(store_fixture_run(&rig.store, run_registry, NULL), ERR_OK);
    assert_int_equal(store_fixture_sql(&rig.store,
                                       "INSERT INTO device_states (org, device, last_received_ms,"
                                       " last_time_ms, due_ms, silent_ms)"
                                       " SELECT 1, number, 1000, 1000, 181000, 0 FROM devices"),
                     ERR_OK);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    apply_rig_finish(*state);
    return 0;
}

static void test_nothing_came(void **state)
{
    struct apply_rig *rig = *state;
    apply_rig_start(rig);
    while (apply_rig_number(rig, SILENT) == 0) {
        (void)sched_yield();
    }
    assert_int_equal(apply_rig_number(rig, BACK), 0);
}

/* The job that looks for silent ones goes before the first frame is read. */
static void test_what_came_waits(void **state)
{
    struct apply_rig *rig = *state;
    apply_rig_append(rig, RECORD_FORM_READING, 1, message, 1, 3);
    apply_rig_flush(rig);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 3)->err, ERR_OK);
    assert_true(apply_rig_number(rig, "SELECT max(last_received_ms) FROM device_states") > 1000);
    assert_int_equal(apply_rig_number(rig, SILENT), 0);
    assert_int_equal(apply_rig_number(rig, BACK), 0);
}

/* One that is out of use when it is due: nobody is told, neither then nor when it is heard of. */
static void test_retired_does_not_come_back(void **state)
{
    struct apply_rig *rig = *state;
    assert_int_equal(store_fixture_sql(&rig->store, "UPDATE devices SET status = 'retired'"),
                     ERR_OK);
    apply_rig_start(rig);
    while (apply_rig_number(rig, "SELECT count(*) FROM device_states WHERE silent_ms <> 0"
                                 " OR due_ms > 181000") == 0) {
        (void)sched_yield();
    }
    apply_rig_append(rig, RECORD_FORM_READING, 1, message, 1, 3);
    assert_int_equal(apply_rig_result(rig, 3)->err, ERR_OK);
    assert_true(apply_rig_number(rig, "SELECT max(last_received_ms) FROM device_states") > 1000);
    assert_int_equal(apply_rig_number(rig, SILENT), 0);
    assert_int_equal(apply_rig_number(rig, BACK), 0);
}

static enum err run_erase(struct store_connection *connection, void *context)
{
    return query_erase_step(connection, context);
}

static void erase_all_of(struct apply_rig *rig, const char *subject, struct query_erase *ret)
{
    *ret = (struct query_erase){.filter.org = 1, .limit = QUERY_ERASE_ROWS_MAX};
    ret->filter.subject = slice_from_text(subject);
    assert_int_equal(store_fixture_run(&rig->store, run_erase, ret), ERR_OK);
    assert_false(ret->has_more);
}

/* The event of ours has the position of an upload that it did not come with. */
static void test_erasing_spares_uploads(void **state)
{
    static const char line[] = "{\"type\":\"t\",\"subject\":\"ann\",\"payload\":1}\n";
    struct apply_rig *rig = *state;
    struct query_erase erase;
    char subject[ID_TEXT_BYTES + 1] = "";
    (void)apply_rig_upload(rig, 1, slice_from_text(line), 1, 4);
    apply_rig_start(rig);
    (void)apply_rig_result(rig, 4);
    while (apply_rig_number(rig, SILENT) == 0) {
        (void)sched_yield();
    }
    apply_rig_stop(rig);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events e JOIN uploads u"
                                           " ON u.position = e.position"),
                     2);
    memcpy(subject, strchr(message, ':') + 2, ID_TEXT_BYTES);
    erase_all_of(rig, subject, &erase);
    assert_int_equal(erase.events, 1);
    assert_int_equal(erase.uploads, 0);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE raw_deleted = 0"),
                     1);
    erase_all_of(rig, "ann", &erase);
    assert_int_equal(erase.events, 1);
    assert_int_equal(erase.uploads, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_came, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_came_waits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_retired_does_not_come_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_erasing_spares_uploads, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
