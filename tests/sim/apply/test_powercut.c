/* Promise (R2): after a power cut at any instant, with journal, uploads and database on one disk
 * whose unsynced writes are dropped, reordered or torn, everything starts, and each acknowledged
 * event and upload is in the store exactly once.
 *
 * Arguments: images (300), seed (random; it is printed).
 *
 * link: sys_record.c sqlite_sys.c store_fixture.c apply_rig.c */
#include "support/apply_rig.h"
#include "support/sqlite_sys.h"
#include "support/sys_record.h"
#include "support/tree.h"

#include "base/hash.h"
#include "base/mem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ROUNDS = 60,
    EVENTS_A_ROUND = 12,
    EVENT_BYTES_MAX = 6000,
    UPLOAD_LINES = 400,
    ROUNDS_AN_UPLOAD = 20
};

static uint64_t image_count = 300;
static uint64_t seed;
static uint64_t random_state;
static struct apply_rig rig;

static uint64_t draw(uint64_t below)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (random_state >> 33u) % below;
}

/* A mark: events acknowledged, and uploads above them. */
#define MARK_UPLOADS 32u

static void append_event(uint32_t number)
{
    static char body[EVENT_BYTES_MAX + 256];
    static char padding[EVENT_BYTES_MAX + 1];
    memset(padding, 'p', sizeof(padding));
    (void)snprintf(body, sizeof(body), "{\"type\":\"t\",%s\"payload\":{\"n\":%u,\"p\":\"%.*s\"}}",
                   number % 2 == 0 ? "\"subject\":\"s\"," : "", number, (int)draw(EVENT_BYTES_MAX),
                   padding);
    apply_rig_append(&rig, RECORD_FORM_EVENT, 1, body, 1, RECORD_WAITER_NONE);
}

static void append_upload(uint32_t number)
{
    struct buffer lines;
    buffer_init(&lines, 64u << 20u);
    for (uint32_t i = 0; i < UPLOAD_LINES; i++) {
        assert_int_equal(
            buffer_printf(&lines, "{\"type\":\"u%u\",\"dedup_id\":\"u%u-%u\",\"payload\":%u}\n",
                          number, number, i, i),
            ERR_OK);
    }
    (void)apply_rig_upload(&rig, 1, buffer_slice(&lines), 50, RECORD_WAITER_NONE);
    buffer_finish(&lines);
}

static enum err quiet_run(struct store_job *job, struct store_connection *connection)
{
    (void)job;
    (void)connection;
    return ERR_OK;
}

static void quiet_done(struct store_job *job)
{
    (void)job;
}

/* Until the idle writer has made everything durable by a checkpoint. */
static void rest(void)
{
    struct store_job job = {.run = quiet_run, .on_done = quiet_done};
    assert_int_equal(store_run_here(rig.store.store, &job), ERR_OK);
    while (store_durable_commit(rig.store.store) < job.commit) {
        (void)sched_yield();
    }
}

static void tell_story(void)
{
    uint32_t events = 0;
    uint64_t uploads = 0;
    apply_rig_start(&rig);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        for (uint32_t i = 0; i < EVENTS_A_ROUND; i++) {
            append_event(events++);
        }
        apply_rig_flush(&rig);
        sys_record_mark(events | uploads << MARK_UPLOADS);
        if (round % ROUNDS_AN_UPLOAD == 5) {
            append_upload((uint32_t)uploads++);
            sys_record_mark(events | uploads << MARK_UPLOADS);
        }
        if (draw(4) == 0) {
            /* Somebody's key or ack: a durable commit, which carries the cursor with it. */
            assert_int_equal(store_fixture_sql(&rig.store, "UPDATE orgs SET tier = 'pro'"), ERR_OK);
        }
        if (draw(8) == 0) {
            apply_rig_wait(&rig);
        }
        if (round % 30 == 29) {
            /* Nothing happens for a moment: a checkpoint, and segments go. */
            apply_rig_wait(&rig);
            rest();
        }
    }
}

static void assert_exactly_once(uint64_t mark, uint64_t image)
{
    uint64_t events = mark & 0xffffffffu;
    uint64_t uploads = mark >> MARK_UPLOADS;
    char sql[256];
    int64_t all = apply_rig_number(&rig, "SELECT count(*) FROM events WHERE type = 't'");
    int64_t distinct = apply_rig_number(
        &rig, "SELECT count(DISTINCT json_extract(payload, '$.n')) FROM events WHERE type = 't'");
    (void)snprintf(sql, sizeof(sql),
                   "SELECT count(*) FROM events WHERE type = 't' AND json_extract(payload, '$.n') "
                   "< %llu",
                   (unsigned long long)events);
    int64_t acknowledged = apply_rig_number(&rig, sql);
    if (all != distinct || acknowledged != (int64_t)events) {
        fail_msg("image %llu: %lld rows, %lld distinct, %lld of %llu acknowledged",
                 (unsigned long long)image, (long long)all, (long long)distinct,
                 (long long)acknowledged, (unsigned long long)events);
    }
    for (uint64_t i = 0; i < uploads; i++) {
        (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM events WHERE type = 'u%llu'",
                       (unsigned long long)i);
        assert_int_equal(apply_rig_number(&rig, sql), UPLOAD_LINES);
    }
    assert_int_equal(apply_rig_number(&rig, "SELECT count(*) FROM dead_letters"), 0);
    assert_int_equal(
        apply_rig_number(&rig, "SELECT (SELECT count(*) FROM events) = (SELECT count(*) FROM "
                               "event_ids) AND (SELECT count(*) FROM events WHERE subject IS NOT "
                               "NULL) = (SELECT count(*) FROM event_subjects)"),
        1);
}

static void place_in(const char *directory)
{
    (void)snprintf(rig.store.directory, sizeof(rig.store.directory), "%s", directory);
    (void)snprintf(rig.store.path, sizeof(rig.store.path), "%s/weir.db", directory);
    (void)snprintf(rig.store.url, sizeof(rig.store.url), "sqlite:%s/weir.db", directory);
    (void)snprintf(rig.journal_directory, sizeof(rig.journal_directory), "%s/journal", directory);
    (void)snprintf(rig.uploads_directory, sizeof(rig.uploads_directory), "%s/uploads", directory);
}

static void drain_applied(void)
{
    while (sem_trywait(&rig.applied) == 0) {
    }
}

static void look_at(uint64_t cut, uint64_t image, const char *directory)
{
    sys_record_image(cut, seed + image, directory);
    place_in(directory);
    drain_applied();
    apply_rig_open(&rig);
    rig.last_position = journal_durable_position(rig.journal);
    apply_rig_start(&rig);
    apply_rig_wait(&rig);
    while (apply_rig_number(&rig, "SELECT count(*) FROM uploads WHERE state = 1") > 0) {
        assert_int_equal(sem_wait(&rig.applied), 0);
    }
    assert_exactly_once(sys_record_marked(cut), image);
    apply_rig_close(&rig);
}

static void test_power_cut(void **state)
{
    (void)state;
    char home[sizeof(rig.store.directory)];
    char image_directory[80];
    print_message("images %llu seed %llu\n", (unsigned long long)image_count,
                  (unsigned long long)seed);
    random_state = seed;
    sqlite_sys_register();
    apply_rig_init(&rig);
    memcpy(home, rig.store.directory, sizeof(home));
    apply_rig_close(&rig);
    (void)snprintf(image_directory, sizeof(image_directory), "%s.image", home);
    sys_record_start(home);
    apply_rig_open(&rig);
    tell_story();
    uint64_t lively = sys_record_count();
    apply_rig_close(&rig);
    sys_record_stop();
    for (uint64_t image = 0; image < image_count; image++) {
        /* Mostly while something happened, sometimes in the orderly end. */
        uint64_t cut = draw(image % 8 == 0 ? sys_record_count() + 1 : lively + 1);
        look_at(cut, image, image_directory);
    }
    print_message("%llu images of %llu operations: nothing lost, nothing twice, all started\n",
                  (unsigned long long)image_count, (unsigned long long)sys_record_count());
    sys_record_free();
    tree_remove(image_directory);
    place_in(home);
    store_fixture_finish(&rig.store);
    mem_free(rig.tickets);
}

int main(int argc, char **argv)
{
    if (hash_start() != ERR_OK) {
        return 1;
    }
    hash_random(&seed, sizeof(seed));
    if (argc > 1) {
        image_count = strtoull(argv[1], NULL, 10);
    }
    if (argc > 2) {
        seed = strtoull(argv[2], NULL, 10);
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_power_cut)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
