/* Promise: a frame that becomes durable after the applier has looked, and before it sleeps, is
 * applied without waiting for anything else.
 * link: apply_rig.c store_fixture.c
 *
 * The file under test is included with two of its calls renamed: after the look that found nothing
 * the frame is appended, and where the applier would sleep it is asked whether it has been woken.
 * So the order of things does not depend on a scheduler. */
#include "support/apply_rig.h"

#include "apply/internal.h"
#include "base/mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>

static struct apply_rig rig;
static bool is_appended;
static uint32_t sleeps;

static enum err look(struct journal_reader *reader, struct journal_frame *ret, bool *ret_has)
{
    enum err err = journal_reader_next(reader, ret, ret_has);
    if (err == ERR_OK && !*ret_has && !is_appended) {
        is_appended = true;
        apply_rig_append(&rig, RECORD_FORM_EVENT, 1, "{\"type\":\"late\",\"payload\":1}", 1,
                         RECORD_WAITER_NONE);
        apply_rig_flush(&rig);
    }
    return err;
}

static bool has_mail(const struct mailbox *mailbox)
{
    struct pollfd polled = {.fd = mailbox_fd(mailbox), .events = POLLIN};
    return poll(&polled, 1, 0) == 1;
}

static void sleep_unless_lost(struct mailbox *mailbox, int timeout_ms)
{
    if (apply_position(rig.apply) >= rig.last_position) {
        apply_stop(rig.apply); /* it is applied: the run is over */
    } else if (sleeps++ == 0 && !has_mail(mailbox)) {
        fail_msg("it would sleep %d ms, and a frame is durable", timeout_ms);
    }
    mailbox_wait(mailbox, timeout_ms);
}

#define journal_reader_next look
#define mailbox_wait        sleep_unless_lost
#include "../../../src/apply/apply.c"
#undef journal_reader_next
#undef mailbox_wait

static int setup(void **state)
{
    (void)state;
    is_appended = false;
    sleeps = 0;
    apply_rig_init(&rig);
    apply_rig_prepare(&rig);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    apply_close(rig.apply);
    rig.apply = NULL;
    apply_rig_finish(&rig);
    return 0;
}

static void test_no_wake_is_lost(void **state)
{
    (void)state;
    apply_run(apply_applier(rig.apply, 0));
    assert_true(is_appended);
    assert_int_equal(apply_position(rig.apply), rig.last_position);
    assert_int_equal(store_fixture_number(&rig.store, "SELECT count(*) FROM events"), 1);
}

/* The twin: a stop that comes in the same gap ends the run. */
static void test_a_stop_is_not_lost(void **state)
{
    (void)state;
    is_appended = true; /* nothing comes */
    rig.last_position = 0;
    apply_run(apply_applier(rig.apply, 0));
    assert_int_equal(store_fixture_number(&rig.store, "SELECT count(*) FROM events"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_no_wake_is_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stop_is_not_lost, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
