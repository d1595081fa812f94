/* Promise (R2): after a power cut at any instant, with unsynced writes dropped, reordered or torn
 * at 512 bytes or 4 KiB and directory changes kept or dropped until synced, the journal opens,
 * every acknowledged frame and upload is there, in order and once, and it goes on.
 *
 * Arguments: images (2,000), seed (random; it is printed).
 * link: sys_record.c journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "support/journal_rig.h"
#include "support/sys_record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { STORY_FRAMES = 600, STORY_UPLOADS = 8, UPLOAD_BYTES_MAX = 600000 };

static uint64_t image_count = 2000;
static uint64_t seed;
static uint64_t random_state;
static uint64_t frame_positions[STORY_FRAMES];
static struct id upload_ids[STORY_UPLOADS];
static size_t upload_sizes[STORY_UPLOADS];

static uint64_t draw(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33) % below;
}

/* What a mark says: frames and uploads acknowledged, frames released. */
struct promise {
    uint32_t frames;
    uint32_t released;
    uint32_t uploads;
};

static uint64_t promise_pack(struct promise promise)
{
    return promise.frames | (uint64_t)promise.released << 20 | (uint64_t)promise.uploads << 40;
}

static struct promise promise_unpack(uint64_t mark)
{
    return (struct promise){(uint32_t)(mark & 0xfffff), (uint32_t)(mark >> 20 & 0xfffff),
                            (uint32_t)(mark >> 40)};
}

/* --- the story ---------------------------------------------------------------------------------
 */

struct story {
    struct rig rig;
    struct promise promise;
    uint32_t appended; /* frames; number i has ticket base + i */
    uint32_t uploads_ended;
};

static void story_fill(uint32_t number, uint8_t *to, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        to[i] = (uint8_t)((size_t)number * 31 + i / 7 + (i * i >> 9));
    }
}

struct upload_ticket {
    struct journal_ticket ticket;
    bool is_durable;
};

static void story_on_upload(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    assert_int_equal(err, ERR_OK);
    assert_true(position > 0);
    LIST_CONTAINER(ticket, struct upload_ticket, ticket)->is_durable = true;
}

static void story_promise(struct story *story)
{
    while (story->promise.frames < story->appended &&
           story->rig.tickets[story->promise.frames].is_answered) {
        const struct rig_ticket *ticket = &story->rig.tickets[story->promise.frames];
        assert_int_equal(ticket->err, ERR_OK);
        frame_positions[story->promise.frames++] = ticket->position;
    }
    sys_record_mark(promise_pack(story->promise));
}

static void story_upload(struct story *story, uint8_t *bytes)
{
    struct journal_upload *upload = NULL;
    struct upload_ticket ticket = {.ticket.on_durable = story_on_upload};
    uint32_t number = story->uploads_ended++;
    struct id id = id_make_v7(1000);
    size_t size = 1 + draw(UPLOAD_BYTES_MAX);
    struct record_upload_end end = {.upload = id, .form = RECORD_FORM_EVENT_LINES};
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    struct record_frame record = {.form = RECORD_FORM_UPLOAD_END, .org = 1};
    struct buffer head;
    bool must_pause = false;
    story_fill(number, bytes, size);
    assert_int_equal(journal_upload_begin(&upload, story->rig.producer, id, 1), ERR_OK);
    for (size_t done = 0; done < size;) {
        size_t step = 1 + draw(200000);
        step = step < size - done ? step : size - done;
        assert_int_equal(journal_upload_write(upload, slice_make(bytes + done, step), &must_pause),
                         ERR_OK);
        done += step;
        if (draw(2) == 0) {
            (void)rig_append(&story->rig, story->appended++, 50);
            rig_run(&story->rig);
            story_promise(story);
        }
    }
    record_upload_end_encode(&end, body);
    buffer_init(&head, 4096);
    assert_int_equal(record_frame_encode_head(&record, &head), ERR_OK);
    struct journal_frame_parts parts = {.org = 1,
                                        .form = RECORD_FORM_UPLOAD_END,
                                        .head = buffer_slice(&head),
                                        .body = slice_make(body, sizeof(body))};
    assert_int_equal(journal_upload_end(upload, &parts, &ticket.ticket), ERR_OK);
    rig_run(&story->rig);
    assert_true(ticket.is_durable);
    buffer_finish(&head);
    upload_ids[number] = id;
    upload_sizes[number] = size;
    story->promise.uploads = story->uploads_ended;
    story_promise(story);
}

/* Apply: everything up to some acknowledged frame is in the store. */
static void story_release(struct story *story)
{
    if (story->promise.frames == 0) {
        return;
    }
    uint32_t frame = story->promise.released +
                     (uint32_t)draw(story->promise.frames - story->promise.released + 1);
    if (frame > story->promise.released) {
        /* Promised before it is acted upon: a segment may go from then on. */
        story->promise.released = frame;
        story_promise(story);
        journal_release(story->rig.journal, frame_positions[frame - 1]);
        rig_run_all(&story->rig);
    }
}

static void story_run(struct story *story)
{
    uint8_t *bytes = mem_alloc(UPLOAD_BYTES_MAX);
    rig_init_in_memory(&story->rig);
    sys_record_start(story->rig.root);
    rig_open(&story->rig, 0);
    while (story->appended < STORY_FRAMES - 40) {
        uint64_t what = draw(100);
        if (what < 80) {
            (void)rig_append(&story->rig, story->appended++,
                             draw(4) == 0 ? draw(40000) : draw(300));
            if (draw(2) == 0) {
                rig_run(&story->rig);
                story_promise(story);
            }
        } else if (what < 90) {
            story_release(story);
        } else if (what < 95) {
            rig_run_all(&story->rig);
            story_promise(story);
        } else if (what < 97 && story->uploads_ended < STORY_UPLOADS) {
            story_upload(story, bytes);
        } else {
            rig_run(&story->rig);
            story_promise(story);
            rig_close(&story->rig, draw(2) == 0);
            rig_open(&story->rig, story->promise.released == 0
                                      ? 0
                                      : frame_positions[story->promise.released - 1]);
        }
    }
    rig_run(&story->rig);
    story_promise(story);
    rig_close(&story->rig, true);
    sys_record_stop();
    mem_free(bytes);
}

/* --- what is left -------------------------------------------------------------------------------
 */

static void check_frames(struct rig *rig, struct promise promise, uint64_t applied)
{
    struct journal_reader *reader = NULL;
    struct journal_frame frame;
    uint32_t next = promise.released;
    uint64_t last = applied;
    bool has = true;
    assert_int_equal(journal_reader_open(&reader, rig->journal,
                                         (struct journal_from[]){journal_from_all(applied)}),
                     ERR_OK);
    while (has) {
        assert_int_equal(journal_reader_next(reader, &frame, &has), ERR_OK);
        if (!has || frame.form == RECORD_FORM_UPLOAD_END) {
            continue;
        }
        uint32_t number = rig_number(&frame);
        assert_true(frame.position > last);
        last = frame.position;
        if (next < promise.frames) {
            assert_int_equal(number, next);
            assert_true(frame.position == frame_positions[next]);
            next++;
        } else {
            assert_true(number != UINT32_MAX && number >= promise.frames);
        }
    }
    assert_int_equal(next, promise.frames);
    journal_reader_close(reader);
}

static void check_uploads(struct rig *rig, struct promise promise, uint8_t *expected,
                          uint8_t *found)
{
    for (uint32_t i = 0; i < promise.uploads; i++) {
        struct journal_upload_reader *reader = NULL;
        size_t size = 0;
        assert_int_equal(journal_upload_open(&reader, rig->journal, upload_ids[i]), ERR_OK);
        assert_int_equal(journal_upload_read(reader, 0, found, UPLOAD_BYTES_MAX + 1, &size),
                         ERR_OK);
        assert_int_equal(size, upload_sizes[i]);
        story_fill(i, expected, size);
        assert_memory_equal(found, expected, size);
        journal_upload_close(reader);
    }
}

static void test_every_image_recovers(void **state)
{
    (void)state;
    static struct story story;
    struct rig rig;
    uint64_t torn = 0;
    uint64_t damaged = 0;
    random_state = seed;
    story_run(&story);
    uint64_t operations = sys_record_count();
    uint8_t *expected = mem_alloc(UPLOAD_BYTES_MAX);
    uint8_t *found = mem_alloc(UPLOAD_BYTES_MAX + 1);
    rig_init_in_memory(&rig);
    for (uint64_t i = 0; i < image_count; i++) {
        struct journal_state recovered;
        uint64_t cut = draw(operations + 1);
        struct promise promise = promise_unpack(sys_record_marked(cut));
        uint64_t applied = promise.released == 0 ? 0 : frame_positions[promise.released - 1];
        sys_record_image(cut, seed + i, rig.root);
        if (rig_try_open(&rig, applied) != ERR_OK) {
            fail_msg("image %" PRIu64 " of seed %" PRIu64 ", cut %" PRIu64 " is refused", i, seed,
                     cut);
        }
        journal_state(rig.journal, &recovered);
        torn += recovered.torn_bytes > 0;
        damaged += recovered.damaged_bytes > 0;
        check_frames(&rig, promise, applied);
        check_uploads(&rig, promise, expected, found);
        rig.ticket_count = 0;
        uint32_t ticket = rig_append(&rig, 7, 100);
        rig_run(&rig);
        assert_int_equal(rig.tickets[ticket].err, ERR_OK);
        assert_true(rig.tickets[ticket].position > recovered.last_position);
        rig_close(&rig, false);
    }
    (void)fprintf(stderr,
                  "power cut: %" PRIu64 " images of %" PRIu64 " operations, %" PRIu64
                  " with a torn tail, %" PRIu64 " with damage, 0 lost, 0 refused; seed %" PRIu64
                  "\n",
                  image_count, operations, torn, damaged, seed);
    rig_finish(&rig);
    rig_finish(&story.rig);
    sys_record_free();
    mem_free(expected);
    mem_free(found);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_image_recovers)};
    log_set_level(LOG_ERROR);
    if (hash_start() != ERR_OK) {
        return 1;
    }
    hash_random(&seed, sizeof(seed));
    seed &= 0xffffffff;
    image_count = argc > 1 ? strtoull(argv[1], NULL, 10) : image_count;
    seed = argc > 2 ? strtoull(argv[2], NULL, 10) : seed;
    (void)fprintf(stderr, "seed %" PRIu64 "\n", seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
