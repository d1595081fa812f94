/* Promise (R5): whatever bit of a journal flips, it opens, it says so, it serves every frame that
 * the flip did not touch, and nothing that was not written.
 * link: journal_rig.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/mem.h"
#include "support/journal_rig.h"
#include "support/tree.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { FRAMES = 24 };

static uint32_t numbers[RIG_FRAMES_MAX];
static uint64_t positions[RIG_FRAMES_MAX];

struct extent { /* of frame i in the file */
    uint64_t begin;
    uint64_t end;
};

struct original {
    struct rig rig;
    char path[JOURNAL_PATH_BYTES];
    uint8_t *bytes;
    size_t size; /* up to the end of the last commit */
    struct extent frames[FRAMES];
};

/* Twenty-four frames in eight commits, of sizes around pages and alignments. */
static void original_make(struct original *original, bool is_clean)
{
    struct rig *rig = &original->rig;
    rig_init_in_memory(rig);
    rig_open(rig, 0);
    for (uint32_t i = 0; i < FRAMES; i++) {
        (void)rig_append(rig, i, 8 + i * 37 % 100 + (i == 11 ? 5000 : 0));
        if (i % 3 == 2) {
            rig_run(rig);
        }
    }
    original->size = (size_t)rig->journal->committer.segment.offset;
    rig_close(rig, is_clean);
    original->size += is_clean ? JOURNAL_PAGE_BYTES : 0;
    rig_segment_path(rig, 0, original->path);
    original->bytes = mem_alloc(original->size);
    int fd = open(original->path, O_RDONLY);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, original->bytes, original->size, 0), original->size);
    assert_int_equal(close(fd), 0);
    uint32_t count = 0;
    for (size_t at = JOURNAL_SEGMENT_HEAD_BYTES; at + JOURNAL_FRAME_HEAD_BYTES <= original->size;
         at += 8) {
        uint64_t size = journal_frame_claimed_size(original->bytes + at);
        if (size != 0) {
            original->frames[count++] = (struct extent){at, at + size};
        }
    }
    assert_int_equal(count, FRAMES);
}

static void original_restore(struct original *original, size_t at, const uint8_t *bytes,
                             size_t size)
{
    char path[JOURNAL_PATH_BYTES];
    /* Only the first segment: what opening made goes. */
    while (rig_segment_count(&original->rig) > 1) {
        rig_segment_path(&original->rig, 1, path);
        assert_int_equal(unlink(path), 0);
    }
    int fd = open(original->path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, size, (off_t)at), size);
    assert_int_equal(close(fd), 0);
    (void)snprintf(path, sizeof(path), "%s/quarantine", original->rig.directory);
    tree_remove(path);
}

/* All but the frame that holds byte `at`. */
static void check_served(struct original *original, size_t at)
{
    uint32_t count = rig_read(&original->rig, 0, numbers, positions, RIG_FRAMES_MAX);
    uint32_t found = 0;
    for (uint32_t i = 0; i < FRAMES; i++) {
        if (at >= original->frames[i].begin && at < original->frames[i].end) {
            continue;
        }
        assert_true(found < count);
        assert_int_equal(numbers[found], i);
        assert_int_equal(positions[found], i + 1);
        found++;
    }
    assert_int_equal(found, count);
}

/* Zeros beside each other are alike, and so is the middle of the one long frame. */
static bool is_worth_a_flip(const struct original *original, size_t at)
{
    bool is_long = at > original->frames[11].begin + 100 && at + 100 < original->frames[11].end;
    return is_long ? at % 97 == 0 : original->bytes[at] != 0 || at % 61 == 0;
}

static void flip_each(struct original *original, bool is_clean)
{
    for (size_t at = 0; at < original->size; at++) {
        if (!is_worth_a_flip(original, at)) {
            continue;
        }
        uint8_t flipped = original->bytes[at] ^ (uint8_t)(1u << (at * 5 + at / 8) % 8);
        struct journal_check_report report;
        struct journal_state found;
        struct err_detail detail;
        original_restore(original, at, &flipped, 1);
        assert_int_equal(journal_check(original->rig.directory, &report, NULL, NULL, NULL, &detail),
                         ERR_OK);
        rig_open(&original->rig, 0);
        journal_state(original->rig.journal, &found);
        /* Reported: as damage, as a tail, or as a stop that was not clean. */
        assert_true(found.damaged_bytes > 0 || found.torn_bytes > 0 || found.clean != is_clean);
        assert_true(report.damaged_bytes > 0 || report.torn_bytes > 0 || report.clean != is_clean);
        check_served(original, at);
        rig_close(&original->rig, false);
        original_restore(original, at, &original->bytes[at], 1);
    }
}

static void test_each_byte(void **state)
{
    bool is_clean = *(bool *)*state;
    static struct original original;
    struct journal_state found;
    original_make(&original, is_clean);
    rig_open(&original.rig, 0);
    journal_state(original.rig.journal, &found);
    assert_true(found.damaged_bytes == 0 && found.torn_bytes == 0 && found.clean == is_clean);
    check_served(&original, 0);
    rig_close(&original.rig, false);
    flip_each(&original, is_clean);
    mem_free(original.bytes);
    rig_finish(&original.rig);
}

/* Whole pages of zeros and of noise: a sector that went bad. */
static void test_each_page(void **state)
{
    (void)state;
    static struct original original;
    uint8_t page[JOURNAL_PAGE_BYTES];
    original_make(&original, true);
    for (size_t at = JOURNAL_SEGMENT_HEAD_BYTES; at < original.size; at += sizeof(page)) {
        for (int is_noise = 0; is_noise < 2; is_noise++) {
            struct journal_state found;
            for (size_t i = 0; i < sizeof(page); i++) {
                page[i] = is_noise ? (uint8_t)(i * 167 + i / 3) : 0;
            }
            original_restore(&original, at, page, sizeof(page));
            rig_open(&original.rig, 0);
            journal_state(original.rig.journal, &found);
            assert_true(found.damaged_bytes > 0 || found.torn_bytes > 0 || !found.clean);
            uint32_t count = rig_read(&original.rig, 0, numbers, positions, RIG_FRAMES_MAX);
            uint32_t expected = 0;
            for (uint32_t i = 0; i < FRAMES; i++) {
                const struct extent *frame = &original.frames[i];
                expected += frame->end <= at || frame->begin >= at + sizeof(page);
            }
            assert_int_equal(count, expected);
            rig_close(&original.rig, false);
            original_restore(&original, at, original.bytes + at, sizeof(page));
        }
    }
    mem_free(original.bytes);
    rig_finish(&original.rig);
}

/* The head of the middle one of three segments is lost in both copies: the rest is served, the
 * loss is counted, positions are not given twice. */
static void test_lost_head(void **state)
{
    (void)state;
    struct rig rig;
    struct journal_state found;
    char path[JOURNAL_PATH_BYTES];
    rig_init_in_memory(&rig);
    for (uint32_t round = 0; round < 3; round++) {
        rig_open(&rig, 0);
        (void)rig_append(&rig, 2 * round, 100);
        (void)rig_append(&rig, 2 * round + 1, 100);
        rig_run(&rig);
        rig_close(&rig, true);
    }
    rig_segment_path(&rig, 1, path);
    rig_flip(path, 100, 1);
    rig_flip(path, 2148, 1);
    for (uint32_t round = 0; round < 2; round++) {
        rig_open(&rig, 0);
        journal_state(rig.journal, &found);
        assert_int_equal(found.damaged_bytes, 1024 * 1024);
        assert_int_equal(found.last_position, 6 + round);
        assert_int_equal(rig_read(&rig, 0, numbers, positions, RIG_FRAMES_MAX), 4 + round);
        assert_int_equal(positions[1], 2);
        assert_int_equal(positions[2], 5);
        uint32_t ticket = rig_append(&rig, 6, 100);
        rig_run(&rig);
        assert_int_equal(rig.tickets[ticket].position, 7 + round);
        rig_close(&rig, true);
    }
    rig_finish(&rig);
}

int main(void)
{
    static bool is_clean = true;
    static bool is_killed = false;
    const struct CMUnitTest tests[] = {
        {"test_each_byte_clean", test_each_byte, NULL, NULL, &is_clean},
        {"test_each_byte_killed", test_each_byte, NULL, NULL, &is_killed},
        cmocka_unit_test(test_each_page),
        cmocka_unit_test(test_lost_head),
    };
    log_set_level(LOG_ERROR + 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
