/* Promise: what the stream has acknowledged and then loses is in it once more, until who applies
 * has said that it is in the store; what was said to be there is not sent again.
 * link: nats_server.c nats_rig.c clock_shift.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/metrics.h"
#include "journal/internal.h"
#include "journal/nats.h"
#include "support/clock_shift.h"
#include "support/journal_place.h"
#include "support/nats_rig.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)
/* Of the only frame of a message, in a stream whose positions begin at 0. */
#define POSITION(number) ((uint64_t)(number) << NATS_RUN_BITS)
#define OTHER_RUN        8u /* a node that applies some of the frames */

struct rig {
    struct nats_rig one; /* the node that accepts */
    natsConnection *connection;
    jsCtx *js;
    struct journal_reader *reader;
    struct journal *other;
    char root[64];
    char directory[96];
    char uploads[96];
};

/* What waits at the server is not read ahead. */
static void rig_init(struct rig *rig)
{
    *rig = (struct rig){.reader = NULL};
    nats_rig_init(&rig->one);
    nats_rig_close(&rig->one);
    rig->one.options.nats.pull_batch = 1;
    rig->one.options.nats.ack_pending_max = 1;
    rig->one.options.nats.is_shared = true;
    nats_rig_open(&rig->one);
    rig->connection = nats_server_connect(&rig->one.server);
    assert_int_equal(natsConnection_JetStream(&rig->js, rig->connection, NULL), NATS_OK);
}

static void open_other(struct rig *rig)
{
    struct err_detail detail = {""};
    struct journal_from none = journal_from_all(0);
    struct journal_options options;
    journal_place_make(".", rig->root, rig->directory, rig->uploads, &options);
    options.run = OTHER_RUN;
    options.nats = rig->one.options.nats;
    assert_int_equal(journal_open(&rig->other, &options, &none, &detail), ERR_OK);
    assert_int_equal(journal_start(rig->other, 0, &detail), ERR_OK);
}

static void rig_finish(struct rig *rig)
{
    if (rig->reader != NULL) {
        journal_reader_close(rig->reader);
    }
    if (rig->other != NULL) {
        journal_stop(rig->other);
        journal_close(rig->other);
        assert_int_equal(rmdir(rig->directory), 0);
        assert_int_equal(rmdir(rig->uploads), 0);
        assert_int_equal(rmdir(rig->root), 0);
    }
    jsCtx_Destroy(rig->js);
    natsConnection_Destroy(rig->connection);
    nats_rig_finish(&rig->one);
    clock_shift_ns = 0;
}

/* Each in a message of its own. */
static void append(struct rig *rig, uint32_t number)
{
    struct nats_ticket ticket;
    nats_rig_append_many(&rig->one, &ticket, number, 1);
}

/* The next frame, whenever it comes, and the number in it. The clock goes on fast meanwhile. */
static uint32_t read_next(struct rig *rig, struct journal_frame *ret)
{
    struct record_frame record;
    bool has = false;
    if (rig->reader == NULL) {
        struct journal_from from = journal_from_all(0);
        assert_int_equal(journal_reader_open(&rig->reader, rig->one.journal, &from), ERR_OK);
    }
    assert_int_equal(journal_reader_next(rig->reader, ret, &has), ERR_OK);
    while (!has) {
        mailbox_wait(rig->one.apply, 50);
        (void)mailbox_run_all(rig->one.apply);
        clock_shift_ns += SECOND_NS / 4;
        assert_int_equal(journal_reader_next(rig->reader, ret, &has), ERR_OK);
    }
    assert_int_equal(record_frame_decode(ret->bytes_slice, &record), ERR_OK);
    journal_reader_applied(rig->reader, ret->position);
    return buffer_get_u32(record.body.data);
}

static void tell(struct journal *journal, uint64_t checksum, uint64_t lanes, uint64_t all)
{
    journal_tell_applied(journal, 7, &(struct record_applied){checksum, lanes, all}, 1);
}

static uint64_t records(const struct rig *rig)
{
    struct journal_backlog backlog;
    journal_backlog(rig->one.journal, &backlog);
    return backlog.records;
}

static void wait_until_left(const struct rig *rig, uint64_t count)
{
    while (records(rig) != count) {
        nats_Sleep(1);
    }
}

static void lose(const struct rig *rig, uint64_t sequence)
{
    assert_int_equal(js_EraseMsg(rig->js, "test", sequence, NULL, NULL), NATS_OK);
}

static void test_what_the_stream_has_lost_comes(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_frame frame;
    rig_init(&rig);
    for (uint32_t i = 1; i <= 5; i++) {
        append(&rig, i);
    }
    lose(&rig, 2);
    lose(&rig, 4);
    for (uint32_t i = 1; i <= 5; i += 2) {
        assert_int_equal(read_next(&rig, &frame), i);
        tell(rig.one.journal, frame.checksum, 1, 1);
    }
    journal_progress(rig.one.journal, POSITION(5), 0); /* all lanes have passed them */
    assert_int_equal(read_next(&rig, &frame), 2);
    assert_int_equal(frame.position, POSITION(6));
    tell(rig.one.journal, frame.checksum, 1, 1);
    assert_int_equal(read_next(&rig, &frame), 4);
    assert_int_equal(frame.position, POSITION(7));
    wait_until_left(&rig, 1); /* passed by all, and not in the store */
    tell(rig.one.journal, frame.checksum, 1, 1);
    wait_until_left(&rig, 0);
    rig_finish(&rig);
}

static void test_what_is_lost_again_comes_again(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_frame frame;
    uint64_t before = metrics_total(METRIC_JOURNAL_RESENT);
    rig_init(&rig);
    append(&rig, 1);
    lose(&rig, 1);
    journal_progress(rig.one.journal, POSITION(1), 0);
    assert_int_equal(read_next(&rig, &frame), 1); /* the first time it is passed by, too */
    assert_int_equal(frame.position, POSITION(2));
    journal_progress(rig.one.journal, POSITION(2), 0);
    assert_int_equal(read_next(&rig, &frame), 1);
    assert_int_equal(frame.position, POSITION(3));
    tell(rig.one.journal, frame.checksum, 1, 1);
    wait_until_left(&rig, 0);
    assert_true(metrics_total(METRIC_JOURNAL_RESENT) >= before + 2);
    rig_finish(&rig);
}

/* Two nodes have its lanes: it is in the store when both have said so, each in its way. */
static void test_each_lane_has_to_be_told(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_frame frame;
    rig_init(&rig);
    open_other(&rig);
    append(&rig, 3); /* of several lanes */
    append(&rig, 4);
    assert_int_equal(read_next(&rig, &frame), 3);
    uint64_t mixed = frame.checksum;
    assert_int_equal(read_next(&rig, &frame), 4);
    journal_progress(rig.one.journal, POSITION(2), 0);
    tell(rig.other, mixed, 3, 7);
    tell(rig.other, mixed, 1, 7);
    tell(rig.other, frame.checksum, 4, 4);
    wait_until_left(&rig, 1);
    tell(rig.one.journal, mixed, 4, 7);
    wait_until_left(&rig, 0);
    rig_finish(&rig);
}

/* All that came was applied, no more comes, and a frame was not passed: the copy that is read is
 * shorter than the numbers say. What goes again makes it longer. */
static void test_the_last_frame_is_lost(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_frame frame;
    rig_init(&rig);
    append(&rig, 1);
    assert_int_equal(read_next(&rig, &frame), 1);
    tell(rig.one.journal, frame.checksum, 2, 2);
    append(&rig, 2);
    lose(&rig, 2);
    journal_progress(rig.one.journal, POSITION(1), 0);
    assert_int_equal(read_next(&rig, &frame), 2);
    assert_int_equal(frame.position, POSITION(3));
    journal_progress(rig.one.journal, POSITION(3), 0);
    wait_until_left(&rig, 1);
    tell(rig.one.journal, frame.checksum, 2, 2);
    wait_until_left(&rig, 0);
    rig_finish(&rig);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_the_stream_has_lost_comes),
        cmocka_unit_test(test_what_is_lost_again_comes_again),
        cmocka_unit_test(test_each_lane_has_to_be_told),
        cmocka_unit_test(test_the_last_frame_is_lost),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    nats_Close();
    return failed;
}
