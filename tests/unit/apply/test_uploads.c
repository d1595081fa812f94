/* Promise: an upload's elements are in the store exactly once wherever apply stops, small events
 * pass it, its counts add up, few appear at once, and one whose file is lost or cannot be read
 * blocks nothing.
 *
 * link: store_fixture.c apply_rig.c */
#include "support/apply_rig.h"

#include "base/mem.h"
#include "base/metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int setup(void **state)
{
    static struct apply_rig rig;
    apply_rig_init(&rig);
    *state = &rig;
    return 0;
}

static int teardown(void **state)
{
    apply_rig_finish(*state);
    return 0;
}

/* `count` lines; the numbers from `first`; every `dup_every`th has the dedup_id of number 0. */
static struct slice make_lines(struct buffer *to, uint32_t first, uint32_t count,
                               uint32_t dup_every)
{
    buffer_init(to, 64u << 20u);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = dup_every != 0 && i % dup_every == 1 ? first : first + i;
        assert_int_equal(
            buffer_printf(to, "{\"type\":\"t\",\"dedup_id\":\"u%u\",\"payload\":{\"n\":%u}}\n", id,
                          first + i),
            ERR_OK);
    }
    return buffer_slice(to);
}

static void test_counts_and_result(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    apply_rig_start(rig);
    (void)apply_rig_upload(rig, 1, make_lines(&lines, 0, 10000, 100), 3000, 7);
    const struct record_result *result = apply_rig_result(rig, 7);
    assert_int_equal(result->err, ERR_OK);
    assert_int_equal(result->inserted, 9900);
    assert_int_equal(result->duplicates, 100);
    assert_int_equal(result->conflicts, 100);
    assert_int_equal(result->item_count, 1000);
    assert_int_equal(result->items[0], RECORD_ITEM_INSERTED);
    assert_int_equal(result->items[101], RECORD_ITEM_CONFLICT);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), 9900);
    assert_int_equal(
        apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 2 AND slices_done = 4 "
                              "AND slice_count = 4 AND applied_count = 10000 AND inserted_count = "
                              "9900 AND duplicate_count = 100 AND conflict_count = 100 AND "
                              "refused_count = 0 AND finished_ms IS NOT NULL AND errors = '[]'"),
        1);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM upload_slices"), 0);
    struct journal_backlog backlog;
    apply_rig_stop(rig);
    journal_backlog(rig->journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    assert_int_equal(backlog.records, 0);
    buffer_finish(&lines);
}

static bool is_open(struct apply_rig *rig)
{
    return apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 2") == 0;
}

static void test_exactly_once_over_restarts(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 20000, 0);
    (void)apply_rig_upload(rig, 1, text, 700, RECORD_WAITER_NONE);
    for (uint32_t round = 0; round < 10; round++) {
        apply_rig_start(rig);
        for (uint32_t i = 0; i < round && is_open(rig); i++) {
            assert_int_equal(sem_wait(&rig->applied), 0);
        }
        apply_rig_stop(rig);
        apply_rig_close(rig);
        apply_rig_open(rig);
        while (sem_trywait(&rig->applied) == 0) {
        }
    }
    apply_rig_start(rig);
    while (is_open(rig)) {
        assert_int_equal(sem_wait(&rig->applied), 0);
    }
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), 20000);
    assert_int_equal(apply_rig_number(rig, "SELECT inserted_count FROM uploads"), 20000);
    assert_int_equal(apply_rig_number(rig, "SELECT applied_count FROM uploads"), 20000);
    buffer_finish(&lines);
}

/* Slices of two orgs and frames take turns: when the small event is there, most of the upload is
 * not. */
static void test_small_event_passes_big_uploads(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 60000, 0);
    (void)apply_rig_upload(rig, 1, text, 1000, RECORD_WAITER_NONE);
    (void)apply_rig_upload(rig, 2, text, 1000, RECORD_WAITER_NONE);
    apply_rig_append(rig, RECORD_FORM_EVENT, 2, "{\"type\":\"small\",\"payload\":1}", 1, 3);
    apply_rig_start(rig);
    const struct record_result *result = apply_rig_result(rig, 3);
    assert_int_equal(result->inserted, 1);
    assert_true(apply_rig_number(rig, "SELECT max(applied_count) FROM uploads") < 60000);
    while (apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 2") < 2) {
        assert_int_equal(sem_wait(&rig->applied), 0);
    }
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), 120001);
    buffer_finish(&lines);
}

static void test_lost_file_fails_alone(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 5000, 0);
    struct id lost = apply_rig_upload(rig, 1, text, 1000, 4);
    assert_int_equal(journal_upload_delete(rig->journal, lost), ERR_OK);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"small\",\"payload\":1}", 1, 5);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 5)->inserted, 1);
    while (!rig->has_result[4]) {
        assert_int_equal(sem_wait(&rig->applied), 0);
    }
    assert_int_equal(rig->results[4].err, ERR_NOT_FOUND);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 4"), 1);
    assert_int_equal(
        apply_rig_number(rig, "SELECT count(*) FROM dead_letters WHERE kind = 'upload'"), 1);
    buffer_finish(&lines);
}

/* The only upload's file, and where it is put meanwhile. */
static void find_file(const struct apply_rig *rig, char path[320], char away[320])
{
    bool is_found = false;
    DIR *directory = opendir(rig->uploads_directory);
    assert_non_null(directory);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] != '.') {
            assert_false(is_found);
            is_found = true;
            (void)snprintf(path, 320, "%s/%.64s", rig->uploads_directory, entry->d_name);
            (void)snprintf(away, 320, "%s/away", rig->store.directory);
        }
    }
    assert_int_equal(closedir(directory), 0);
    assert_true(is_found);
}

/* A directory in its place opens and cannot be read: an I/O error that stays until it is gone. */
static void spoil(const char *path, const char *away)
{
    assert_int_equal(rename(path, away), 0);
    assert_int_equal(mkdir(path, 0700), 0);
}

/* At once: a file that is not there for a moment would be a lost one. */
static void heal(const char *path, const char *away)
{
    assert_int_equal(renameat2(AT_FDCWD, away, AT_FDCWD, path, RENAME_EXCHANGE), 0);
    assert_int_equal(rmdir(away), 0);
}

static void test_unreadable_file_delays_nobody(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    char path[320];
    char away[320];
    struct slice text = make_lines(&lines, 0, 5000, 0);
    (void)apply_rig_upload(rig, 1, text, 1000, 4);
    find_file(rig, path, away);
    spoil(path, away);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"small\",\"payload\":1}", 1, 5);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 5)->inserted, 1);
    assert_false(rig->has_result[4]);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 1 AND "
                                           "slice_count = 5"),
                     1);
    /* A new run, which finds no slices, waits for them too. */
    apply_rig_close(rig);
    apply_rig_open(rig);
    apply_rig_start(rig);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"small\",\"payload\":1}", 1, 6);
    assert_int_equal(apply_rig_result(rig, 6)->inserted, 1);
    assert_true(is_open(rig));
    heal(path, away);
    while (is_open(rig)) {
        assert_int_equal(sem_wait(&rig->applied), 0);
    }
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), 5002);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE slices_done = 5 AND "
                                           "applied_count = 5000 AND errors = '[]'"),
                     1);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM dead_letters"), 0);
    buffer_finish(&lines);
}

/* The twin: an I/O error that stays fails the upload alone, says why, and keeps the file. */
static void test_unreadable_file_is_given_up(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    char path[320];
    char away[320];
    (void)apply_rig_upload(rig, 1, make_lines(&lines, 0, 2000, 0), 1000, 4);
    find_file(rig, path, away);
    spoil(path, away);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 4)->err, ERR_IO);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 4"), 1);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM dead_letters WHERE kind = "
                                           "'upload' AND detail IS NOT NULL"),
                     1);
    apply_rig_stop(rig);
    heal(path, away); /* it is there to be healed */
    buffer_finish(&lines);
}

/* Each transaction that moves the upload forward leaves what it had reached. */
static void watch_steps(struct apply_rig *rig)
{
    assert_int_equal(store_fixture_sql(&rig->store, "CREATE TABLE steps (applied INTEGER)"),
                     ERR_OK);
    if (rig->store.is_postgres) {
        assert_int_equal(store_fixture_sql(&rig->store,
                                           "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql"
                                           " AS 'BEGIN INSERT INTO steps VALUES "
                                           "(NEW.applied_count); RETURN NULL; END'"),
                         ERR_OK);
        assert_int_equal(store_fixture_sql(&rig->store,
                                           "CREATE TRIGGER watch AFTER UPDATE OF applied_count ON "
                                           "uploads FOR EACH ROW EXECUTE FUNCTION note()"),
                         ERR_OK);
        return;
    }
    assert_int_equal(store_fixture_sql(&rig->store,
                                       "CREATE TRIGGER watch AFTER UPDATE OF applied_count ON "
                                       "uploads BEGIN INSERT INTO steps VALUES "
                                       "(NEW.applied_count); END"),
                     ERR_OK);
}

static void test_few_elements_appear_at_once(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    watch_steps(rig);
    (void)apply_rig_upload(rig, 1, make_lines(&lines, 0, 1000, 0), 90, 4);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 4)->inserted, 1000);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM steps"), 1);
    assert_int_equal(apply_rig_number(rig, "SELECT applied FROM steps"), 1000);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 2 AND "
                                           "slices_done = 12 AND slice_count = 12"),
                     1);
    buffer_finish(&lines);
}

/* The twin: above the limit it becomes queryable slice by slice. */
static void test_many_elements_appear_by_slices(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    watch_steps(rig);
    (void)apply_rig_upload(rig, 1, make_lines(&lines, 0, 1001, 0), 91, 4);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 4)->inserted, 1001);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM steps"), 11);
    buffer_finish(&lines);
}

/* A cluster that has lost a frame is given it again, and may have had it all the same. */
static void test_an_end_record_that_comes_twice(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    uint8_t body[RECORD_UPLOAD_END_BYTES];
    apply_rig_start(rig);
    struct slice text = make_lines(&lines, 0, 3000, 0);
    struct id id = apply_rig_upload(rig, 1, text, 1000, 5);
    assert_int_equal(apply_rig_result(rig, 5)->inserted, 3000);
    struct record_upload_end end = {.upload = id,
                                    .form = RECORD_FORM_EVENT_LINES,
                                    .decoded_bytes = text.size,
                                    .stored_bytes = 100,
                                    .element_count = 3000,
                                    .accepted_count = 3000,
                                    .slice_count = 3};
    record_upload_end_encode(&end, body);
    struct record_frame frame = {.form = RECORD_FORM_UPLOAD_END,
                                 .lane = RECORD_LANE_MIXED,
                                 .org = 1,
                                 .received_ms = 1000,
                                 .id = id,
                                 .run = APPLY_RIG_RUN,
                                 .record_count = 3000,
                                 .body = slice_make(body, sizeof(body))};
    apply_rig_append_bytes(rig, &frame);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"t\",\"payload\":{}}", 1, 6);
    assert_int_equal(apply_rig_result(rig, 6)->inserted, 1);
    apply_rig_wait(rig);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), 3001);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM upload_slices"), 0);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 2 AND "
                                           "slices_done = 3 AND applied_count = 3000 AND "
                                           "inserted_count = 3000 AND duplicate_count = 0"),
                     1);
    buffer_finish(&lines);
}

static void test_deleted_while_applied_is_forgotten(void **state)
{
    struct apply_rig *rig = *state;
    struct journal_backlog backlog;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 60000, 0);
    (void)apply_rig_upload(rig, 1, text, 1000, 4);
    apply_rig_start(rig);
    apply_rig_wait(rig); /* its rows are there, and a few slices */
    assert_int_equal(store_fixture_sql(&rig->store, "DELETE FROM uploads"), ERR_OK);
    assert_int_equal(store_fixture_sql(&rig->store, "DELETE FROM upload_slices"), ERR_OK);
    for (uint64_t waiter = 5; !rig->has_result[4]; waiter++) {
        apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"small\",\"payload\":1}", 1,
                         waiter);
        assert_int_equal(apply_rig_result(rig, waiter)->inserted, 1);
    }
    assert_int_equal(rig->results[4].err, ERR_NOT_FOUND);
    apply_rig_stop(rig);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads"), 0);
    journal_backlog(rig->journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    buffer_finish(&lines);
}

/* Kept for its time; then the file goes, and only then the row says so. */
static void test_raw_body_goes_after_its_time(void **state)
{
    struct apply_rig *rig = *state;
    struct journal_upload_reader *reader = NULL;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 2000, 0);
    struct id id = apply_rig_upload(rig, 1, text, 1000, 8);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 8)->inserted, 2000);
    apply_rig_stop(rig);
    apply_rig_start(rig); /* looks at its start, and finds nothing old */
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"small\",\"payload\":1}", 1, 9);
    (void)apply_rig_result(rig, 9);
    apply_rig_stop(rig);
    assert_int_equal(journal_upload_open(&reader, rig->journal, id), ERR_OK);
    journal_upload_close(reader);
    assert_int_equal(apply_rig_number(rig, "SELECT raw_deleted FROM uploads"), 0);
    rig->retention_days = 0;
    apply_rig_start(rig);
    while (apply_rig_number(rig, "SELECT raw_deleted FROM uploads") == 0) {
        (void)sched_yield();
    }
    assert_int_equal(journal_upload_open(&reader, rig->journal, id), ERR_NOT_FOUND);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM events"), 2001);
    buffer_finish(&lines);
}

/* An org's own time goes before the server's, be it shorter or longer. */
static void test_an_org_says_how_long_raw_bodies_stay(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 2000, 0);
    (void)apply_rig_upload(rig, 1, text, 1000, 8);
    (void)apply_rig_upload(rig, 2, text, 1000, 9);
    (void)apply_rig_upload(rig, 1, text, 1000, 10);
    apply_rig_start(rig);
    while (apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 2") < 3) {
        (void)sched_yield();
    }
    apply_rig_stop(rig);
    rig->retention_days = 2;
    assert_int_equal(store_fixture_sql(&rig->store,
                                       "UPDATE orgs SET raw_days = CASE number WHEN 1 THEN 1 "
                                       "WHEN 2 THEN 50 END"),
                     ERR_OK);
    /* 36 hours old, 49 days old, and new. */
    assert_int_equal(
        store_fixture_sql(&rig->store,
                          "UPDATE uploads SET finished_ms = finished_ms - CASE WHEN org = 2 THEN "
                          "4233600000 WHEN position = (SELECT min(position) FROM uploads) THEN "
                          "129600000 ELSE 0 END"),
        ERR_OK);
    apply_rig_start(rig);
    while (apply_rig_number(rig, "SELECT max(raw_deleted) FROM uploads") == 0) {
        (void)sched_yield();
    }
    assert_int_equal(apply_rig_number(rig, "SELECT sum(raw_deleted) FROM uploads"), 1);
    assert_int_equal(apply_rig_number(rig, "SELECT raw_deleted FROM uploads WHERE org = 1 ORDER BY "
                                           "position LIMIT 1"),
                     1);
    buffer_finish(&lines);
}

static enum err insert_finished(struct store_connection *connection, void *context)
{
    const uint32_t *count = context;
    enum err err = ERR_OK;
    for (uint32_t i = 1; i <= *count && err == ERR_OK; i++) {
        struct id id = id_make_v7(1);
        struct store_statement *statement = NULL;
        err = store_prepare(connection,
                            "INSERT INTO uploads (id, org, key, position, form, state, head,"
                            " decoded_bytes, stored_bytes, element_count, accepted_count,"
                            " rejected_count, slice_count, received_ms, finished_ms)"
                            " VALUES ($1, 1, 1, $2, 1, 2, $3, 1, 1, 1, 1, 0, 1, 1, 1)",
                            &statement);
        if (err == ERR_OK) {
            store_bind_blob(statement, 1, slice_make(id.bytes, sizeof(id.bytes)));
            store_bind_i64(statement, 2, i);
            store_bind_blob(statement, 3, slice_make(id.bytes, sizeof(id.bytes)));
            err = store_execute(statement);
        }
    }
    return err;
}

/* More than are taken at a time, and all go in one look. */
static void test_many_raw_bodies_go(void **state)
{
    struct apply_rig *rig = *state;
    uint32_t count = 700;
    assert_int_equal(store_fixture_run(&rig->store, insert_finished, &count), ERR_OK);
    apply_rig_start(rig);
    while (apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE raw_deleted = 0") > 0) {
        (void)sched_yield();
    }
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads"), count);
}

static bool has_file(struct apply_rig *rig, struct id id)
{
    struct journal_upload_reader *reader = NULL;
    enum err err = journal_upload_open(&reader, rig->journal, id);
    assert_true(err == ERR_OK || err == ERR_NOT_FOUND);
    journal_upload_close(reader);
    return err == ERR_OK;
}

/* A file whose row was deleted, one whose row says so of the file, and one that is known; then one
 * that is accepted and not applied yet. */
static void test_orphans_are_deleted(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct id ids[4];
    struct slice text = make_lines(&lines, 0, 1000, 0);
    apply_rig_start(rig);
    for (uint32_t i = 0; i < 3; i++) {
        ids[i] = apply_rig_upload(rig, 1, text, 1000, i + 1);
        (void)apply_rig_result(rig, i + 1);
    }
    apply_rig_stop(rig);
    ids[3] = apply_rig_upload(rig, 1, text, 1000, 4);
    assert_int_equal(store_fixture_sql(&rig->store, "DELETE FROM uploads WHERE position ="
                                                    " (SELECT min(position) FROM uploads)"),
                     ERR_OK);
    assert_int_equal(store_fixture_sql(&rig->store,
                                       "UPDATE uploads SET raw_deleted = 1 WHERE position ="
                                       " (SELECT min(position) FROM uploads)"),
                     ERR_OK);
    /* In the run that made them nothing is looked for. */
    apply_rig_start(rig);
    (void)apply_rig_result(rig, 4);
    apply_rig_stop(rig);
    assert_true(has_file(rig, ids[0]) && has_file(rig, ids[1]));
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads"), 3);
    apply_rig_close(rig);
    apply_rig_open(rig);
    apply_rig_start(rig);
    while (has_file(rig, ids[0]) || has_file(rig, ids[1])) {
        (void)sched_yield();
    }
    apply_rig_stop(rig);
    assert_true(has_file(rig, ids[2]) && has_file(rig, ids[3]));
    buffer_finish(&lines);
}

/* In every segment: the id stands in the end record, and nothing else of it is in the journal. */
static uint32_t spoil_end_record(const struct apply_rig *rig, struct id id)
{
    static uint8_t bytes[1u << 20u];
    uint32_t count = 0;
    DIR *directory = opendir(rig->journal_directory);
    assert_non_null(directory);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        char path[320];
        (void)snprintf(path, sizeof(path), "%s/%.64s", rig->journal_directory, entry->d_name);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        ssize_t size = fd < 0 ? 0 : pread(fd, bytes, sizeof(bytes), 0);
        const uint8_t *at = size > 0 ? memmem(bytes, (size_t)size, id.bytes, 16) : NULL;
        if (at != NULL) {
            uint8_t flipped = *at ^ 1u;
            assert_int_equal(pwrite(fd, &flipped, 1, at - bytes), 1);
            count++;
        }
        if (fd >= 0) {
            assert_int_equal(close(fd), 0);
        }
    }
    assert_int_equal(closedir(directory), 0);
    return count;
}

/* What is looked at in the same turn, since it is known to be deleted, tells that the look is over.
 */
static void look_for_orphans(struct apply_rig *rig, struct slice text, uint32_t waiter)
{
    struct id gone = apply_rig_upload(rig, 1, text, 1000, waiter);
    apply_rig_start(rig);
    (void)apply_rig_result(rig, waiter);
    apply_rig_stop(rig);
    assert_int_equal(store_fixture_sql(&rig->store,
                                       "UPDATE uploads SET raw_deleted = 1 WHERE position ="
                                       " (SELECT max(position) FROM uploads)"),
                     ERR_OK);
    apply_rig_close(rig);
    apply_rig_open(rig);
    apply_rig_start(rig);
    while (has_file(rig, gone)) {
        (void)sched_yield();
    }
    apply_rig_stop(rig);
}

/* The end record is damaged, so no row was made of it: its file is the last copy, also when a later
 * start does not see the damage any more. */
static void test_damage_deletes_no_upload(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 1000, 0);
    struct id lost = apply_rig_upload(rig, 1, text, 1000, RECORD_WAITER_NONE);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"a\",\"payload\":1}", 1, 1);
    apply_rig_close(rig);
    assert_int_equal(spoil_end_record(rig, lost), 1);
    apply_rig_open(rig);
    for (uint32_t start = 0; start < 2; start++) {
        look_for_orphans(rig, text, 2 + start);
        assert_true(has_file(rig, lost));
        assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads"), start + 1);
    }
    buffer_finish(&lines);
}

/* The end record goes bad after the start, so that apply's reader alone sees it; no later start
 * looks at its segment, which is applied and not the newest. */
static void test_damage_within_a_run_deletes_no_upload(void **state)
{
    static char event[100000];
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 1000, 0);
    struct id lost = apply_rig_upload(rig, 1, text, 1000, RECORD_WAITER_NONE);
    (void)snprintf(event, sizeof(event), "{\"type\":\"a\",\"payload\":\"%0*d\"}",
                   (int)sizeof(event) - 100, 1);
    apply_rig_append(rig, RECORD_FORM_EVENT, 1, event, 1, 1);
    apply_rig_flush(rig);
    assert_int_equal(spoil_end_record(rig, lost), 1);
    for (uint32_t i = 0; i < 20; i++) { /* more than a segment */
        apply_rig_append(rig, RECORD_FORM_EVENT, 1, event, 1, RECORD_WAITER_NONE);
    }
    apply_rig_start(rig);
    apply_rig_wait(rig);
    apply_rig_close(rig);
    apply_rig_open(rig);
    look_for_orphans(rig, text, 2);
    assert_true(has_file(rig, lost));
    buffer_finish(&lines);
}

/* An end record that could be read and not used is a dead letter; a row of it was never made, or
 * went since. */
static void test_letter_keeps_its_upload(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 1000, 0);
    struct id named = apply_rig_upload(rig, 1, text, 1000, 1);
    apply_rig_start(rig);
    (void)apply_rig_result(rig, 1);
    apply_rig_stop(rig);
    assert_int_equal(store_fixture_sql(&rig->store,
                                       "INSERT INTO dead_letters (id, org, kind, reason, position,"
                                       " element, form, record, received_ms)"
                                       " SELECT id, org, 'upload', 'unreadable', position, 0, 64,"
                                       " head, received_ms FROM uploads"),
                     ERR_OK);
    assert_int_equal(store_fixture_sql(&rig->store, "DELETE FROM uploads"), ERR_OK);
    look_for_orphans(rig, text, 2);
    assert_true(has_file(rig, named));
    assert_int_equal(store_fixture_sql(&rig->store, "DELETE FROM dead_letters"), ERR_OK);
    look_for_orphans(rig, text, 3);
    assert_false(has_file(rig, named));
    buffer_finish(&lines);
}

/* ingest_queue_latency_seconds counts records, of uploads too, and not batches. */
static void test_latency_is_of_each_record(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct buffer page;
    unsigned long long counts[2] = {0};
    struct slice text = make_lines(&lines, 0, 3000, 0);
    for (int i = 0; i < 2; i++) {
        if (i == 1) {
            apply_rig_start(rig);
            (void)apply_rig_upload(rig, 1, text, 1000, 1);
            (void)apply_rig_result(rig, 1);
            apply_rig_append(rig, RECORD_FORM_EVENT, 1, "{\"type\":\"a\",\"payload\":1}", 1, 2);
            (void)apply_rig_result(rig, 2);
            apply_rig_stop(rig);
        }
        buffer_init(&page, 1u << 20u);
        assert_int_equal(metrics_write(&page, false), ERR_OK);
        assert_int_equal(buffer_append(&page, "", 1), ERR_OK);
        const char *at = strstr((const char *)page.data, "\ningest_queue_latency_seconds_count ");
        assert_non_null(at);
        counts[i] = strtoull(strchr(at, ' '), NULL, 10);
        buffer_finish(&page);
    }
    assert_int_equal(counts[1] - counts[0], 3001);
    buffer_finish(&lines);
}

static void test_refused_elements_are_counted(void **state)
{
    struct apply_rig *rig = *state;
    struct buffer lines;
    struct slice text = make_lines(&lines, 0, 3000, 0);
    store_fixture_refuse(&rig->store, "NEW.dedup_id = 'u1234'");
    (void)apply_rig_upload(rig, 1, text, 1000, 6);
    apply_rig_start(rig);
    const struct record_result *result = apply_rig_result(rig, 6);
    assert_int_equal(result->inserted, 2999);
    assert_int_equal(result->refused, 1);
    assert_int_equal(apply_rig_number(rig, "SELECT count(*) FROM uploads WHERE state = 3 AND "
                                           "refused_count = 1 AND inserted_count = 2999"),
                     1);
    assert_int_equal(apply_rig_number(rig, "SELECT element FROM dead_letters"), 1234);
    buffer_finish(&lines);
}

/* What is accepted and not applied counts against the bound, whichever run accepted it. The upload
 * is made to look as a run that was killed leaves it. */
static void test_backlog_outlives_a_restart(void **state)
{
    struct apply_rig *rig = *state;
    struct journal_backlog backlog;
    struct apply *apply = NULL;
    struct err_detail detail;
    struct buffer lines;
    (void)apply_rig_upload(rig, 1, make_lines(&lines, 0, 2000, 0), 2000, 1);
    apply_rig_start(rig);
    assert_int_equal(apply_rig_result(rig, 1)->inserted, 2000);
    apply_rig_stop(rig);
    assert_int_equal(
        store_fixture_sql(&rig->store, "UPDATE uploads SET state = 1, applied_count = 500"),
        ERR_OK);
    assert_int_equal(
        store_fixture_sql(&rig->store,
                          "INSERT INTO upload_slices (upload, number, byte_offset, first_index,"
                          " element_count, done_count) SELECT id, 0, 0, 0, 2000, 500 FROM uploads"),
        ERR_OK);
    apply_rig_close(rig);
    apply_rig_open(rig);
    journal_backlog(rig->journal, &backlog);
    assert_int_equal(backlog.bytes, 0); /* recovery saw no frame above the cursor */
    struct apply_options options = {.journal = rig->journal, .store = rig->store.store};
    assert_int_equal(apply_open(&apply, &options, &detail), ERR_OK);
    journal_backlog(rig->journal, &backlog);
    assert_int_equal(backlog.records, 1500);
    assert_int_equal(backlog.bytes, apply_rig_number(rig, "SELECT stored_bytes FROM uploads"));
    apply_close(apply);
    apply_rig_close(rig);
    apply_rig_open(rig);
    apply_rig_start(rig);
    while (is_open(rig)) {
        assert_int_equal(sem_wait(&rig->applied), 0);
    }
    apply_rig_stop(rig);
    journal_backlog(rig->journal, &backlog);
    assert_int_equal(backlog.bytes, 0);
    assert_int_equal(backlog.records, 0);
    buffer_finish(&lines);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counts_and_result, setup, teardown),
        cmocka_unit_test_setup_teardown(test_exactly_once_over_restarts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_event_passes_big_uploads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lost_file_fails_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_raw_bodies_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_org_says_how_long_raw_bodies_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_orphans_are_deleted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_deletes_no_upload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_within_a_run_deletes_no_upload, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_letter_keeps_its_upload, setup, teardown),
        cmocka_unit_test_setup_teardown(test_latency_is_of_each_record, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_file_delays_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unreadable_file_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_few_elements_appear_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_elements_appear_by_slices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_end_record_that_comes_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_deleted_while_applied_is_forgotten, setup, teardown),
        cmocka_unit_test_setup_teardown(test_raw_body_goes_after_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_elements_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backlog_outlives_a_restart, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
