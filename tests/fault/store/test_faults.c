/* Promise (R3): whichever call fails, once or from then on, a job that was answered as done is
 * there after the next open, a job is there whole or not at all, the database stays sound, and
 * after a fault that passes the same job succeeds.
 *
 * link: sys_fault.c mem_fault.c sqlite_sys.c store_fixture.c */
#include "support/mem_fault.h"
#include "support/sqlite_sys.h"
#include "support/store_fixture.h"
#include "support/sys_fault.h"

#include "base/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCHES = 3, BATCH_EVENTS = 40, TRIES = 4 };

static struct store_fixture fixture;
static struct store_event events[BATCHES][BATCH_EVENTS];
static uint8_t ids[BATCHES][BATCH_EVENTS][16];
static bool memory_faults;
static sqlite3_mem_methods plain_memory;

/* --- the engine's own memory
 * ---------------------------------------------------------------------- */

static void *faulty_malloc(int size)
{
    return memory_faults && fault_tick(FAULT_MEMORY) ? NULL : plain_memory.xMalloc(size);
}

static void *faulty_realloc(void *memory, int size)
{
    return memory_faults && fault_tick(FAULT_MEMORY) ? NULL : plain_memory.xRealloc(memory, size);
}

static int init_group(void **state)
{
    (void)state;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &plain_memory), SQLITE_OK);
    sqlite3_mem_methods faulty = plain_memory;
    faulty.xMalloc = faulty_malloc;
    faulty.xRealloc = faulty_realloc;
    assert_int_equal(sqlite3_config(SQLITE_CONFIG_MALLOC, &faulty), SQLITE_OK);
    sqlite_sys_register();
    /* Thousands of real syncs prove nothing here: in memory when there is such a place. */
    if (chdir("/dev/shm") != 0) {
        print_message("on disk, slower\n");
    }
    store_fixture_init(&fixture);
    log_set_level(LOG_ERROR);
    for (size_t b = 0; b < BATCHES; b++) {
        for (size_t i = 0; i < BATCH_EVENTS; i++) {
            ids[b][i][0] = (uint8_t)(i * 37);
            ids[b][i][1] = (uint8_t)(b + 1);
            events[b][i] = (struct store_event){.org = 1,
                                                .id = ids[b][i],
                                                .type = slice_from_text("t"),
                                                .subject = slice_from_text("s"),
                                                .payload = slice_from_text("{\"a\":1}"),
                                                .position = b + 1};
        }
    }
    return 0;
}

static int finish_group(void **state)
{
    (void)state;
    fault_disarm();
    store_fixture_finish(&fixture);
    return 0;
}

/* --- the story
 * ------------------------------------------------------------------------------------ */

struct batch_job {
    struct store_job job;
    size_t number;
};

static enum err batch_run(struct store_job *job, struct store_connection *connection)
{
    size_t number = ((struct batch_job *)job)->number;
    return store_insert_events(connection, events[number], BATCH_EVENTS, false);
}

static void batch_done(struct store_job *job)
{
    (void)job;
}

static enum err run_batch(size_t number)
{
    struct batch_job batch = {.number = number};
    batch.job.priority = number == 1 ? STORE_APPLY : STORE_CONTROL;
    batch.job.durable = number != 1;
    batch.job.run = batch_run;
    batch.job.on_done = batch_done;
    return store_run_here(fixture.store, &batch.job);
}

/* Until it works, a few times: in mode FAULT_ONCE it must. */
static bool insist(size_t number)
{
    enum err err = ERR_IO;
    for (int i = 0; i < TRIES && err != ERR_OK; i++) {
        err = run_batch(number);
    }
    if (fault_run_mode() == FAULT_ONCE) {
        assert_int_equal(err, ERR_OK);
    }
    return err == ERR_OK;
}

static void remove_files(void)
{
    static const char *const ends[] = {"", "-wal", "-shm", "-journal"};
    char path[160];
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        (void)snprintf(path, sizeof(path), "%s%s", fixture.path, ends[i]);
        (void)remove(path); /* it may not be there */
    }
}

static bool try_open(void)
{
    struct err_detail detail = {""};
    struct store_options options = store_fixture_options(&fixture);
    options.reader_count = 1;
    enum err err = store_open(&fixture.store, &options, &detail);
    assert_true(err == ERR_OK || detail.text[0] != '\0');
    return err == ERR_OK;
}

static void assert_sound(const bool done[BATCHES])
{
    char sql[128];
    store_fixture_open(&fixture, false);
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM pragma_integrity_check "
                                                    "WHERE integrity_check <> 'ok'"),
                     0);
    for (size_t b = 0; b < BATCHES; b++) {
        (void)snprintf(sql, sizeof(sql), "SELECT count(*) FROM events WHERE position = %zu", b + 1);
        int64_t count = store_fixture_number(&fixture, sql);
        if ((done[b] && count != BATCH_EVENTS) || (count != 0 && count != BATCH_EVENTS)) {
            fail_msg("mode %d call %u: batch %zu done %d has %lld rows", (int)fault_run_mode(),
                     fault_run_number(), b, done[b], (long long)count);
        }
    }
    assert_int_equal(store_fixture_number(&fixture,
                                          "SELECT (SELECT count(*) FROM events) = (SELECT count(*) "
                                          "FROM event_ids) AND (SELECT count(*) FROM events) = "
                                          "(SELECT count(*) FROM event_subjects)"),
                     1);
    store_fixture_close(&fixture);
}

static void run_story(bool from_nothing)
{
    uint32_t runs = 0;
    FAULT_LOOP {
        bool done[BATCHES] = {false};
        fault_pause();
        if (from_nothing) {
            remove_files();
        } else {
            store_fixture_open(&fixture, false);
            assert_int_equal(store_fixture_sql(&fixture, "DELETE FROM events"), ERR_OK);
            assert_int_equal(store_fixture_sql(&fixture, "DELETE FROM event_ids"), ERR_OK);
            assert_int_equal(store_fixture_sql(&fixture, "DELETE FROM event_subjects"), ERR_OK);
        }
        fault_resume();
        bool is_open = !from_nothing || try_open();
        if (!is_open) {
            assert_true(fault_was_met());
            fault_pause();
            assert_true(try_open());
            fault_resume();
        }
        fault_pause();
        if (from_nothing) {
            store_fixture_add_org(&fixture, 1);
        }
        fault_resume();
        for (size_t b = 0; b < BATCHES; b++) {
            done[b] = insist(b);
        }
        store_fixture_close(&fixture);
        fault_pause();
        assert_sound(done);
        runs++;
    }
    print_message("%u runs\n", runs);
    assert_true(runs > 10);
}

static void test_system_calls(void **state)
{
    (void)state;
    memory_faults = false;
    fault_set_errno(EIO);
    run_story(true);
}

static void test_full_disk(void **state)
{
    (void)state;
    memory_faults = false;
    fault_set_errno(ENOSPC);
    fault_set_only(FAULT_PWRITE);
    run_story(false);
    fault_set_short_writes(true);
    run_story(false);
    fault_set_short_writes(false);
    fault_set_only(FAULT_CALL_COUNT);
}

static void test_syncs(void **state)
{
    (void)state;
    memory_faults = false;
    fault_set_errno(EIO);
    fault_set_only(FAULT_FDATASYNC);
    run_story(true);
    fault_set_only(FAULT_CALL_COUNT);
}

static void test_memory(void **state)
{
    (void)state;
    memory_faults = true;
    fault_set_only(FAULT_MEMORY);
    run_story(false);
    memory_faults = false;
    fault_set_only(FAULT_CALL_COUNT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_system_calls),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_syncs),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, init_group, finish_group);
}
