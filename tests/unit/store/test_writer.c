/* Promise: jobs of higher priority come first and share commits, one's error undoes nothing of
 * another's, a long batch gives way to who waits, and every job that was taken is answered.
 *
 * link: store_fixture.c clock_shift.c */
#include "support/clock_shift.h"
#include "support/store_fixture.h"

#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sched.h>
#include <semaphore.h>
#include <sqlite3.h>
#include <string.h>

#define JOBS_MAX 64

struct note_job {
    struct store_job job;
    struct notes *notes;
    int number;
    enum err fails_with;
};

struct notes {
    struct store_fixture fixture;
    struct mailbox *mailbox;
    struct note_job jobs[JOBS_MAX];
    int run_order[JOBS_MAX];
    int run_count;
    int done_count;
    sem_t is_running;
    sem_t may_go_on;
};

static int setup(void **state)
{
    static struct notes notes;
    memset(&notes, 0, sizeof(notes));
    store_fixture_init(&notes.fixture);
    store_fixture_open(&notes.fixture, false);
    assert_int_equal(
        store_fixture_sql(&notes.fixture, "CREATE TABLE notes (n INTEGER PRIMARY KEY)"), ERR_OK);
    assert_int_equal(mailbox_create(&notes.mailbox, JOBS_MAX), ERR_OK);
    assert_int_equal(sem_init(&notes.is_running, 0, 0), 0);
    assert_int_equal(sem_init(&notes.may_go_on, 0, 0), 0);
    *state = &notes;
    return 0;
}

static int teardown(void **state)
{
    struct notes *notes = *state;
    store_fixture_finish(&notes->fixture);
    mailbox_destroy(notes->mailbox);
    return 0;
}

static enum err note_run(struct store_job *job, struct store_connection *connection)
{
    struct note_job *note = (struct note_job *)job;
    struct store_statement *statement = NULL;
    note->notes->run_order[note->notes->run_count++] = note->number;
    enum err err = store_prepare(connection, "INSERT INTO notes VALUES ($1)", &statement);
    if (err == ERR_OK) {
        store_bind_i64(statement, 1, note->number);
        err = store_execute(statement);
    }
    return err != ERR_OK ? err : note->fails_with;
}

static void note_done(struct store_job *job)
{
    ((struct note_job *)job)->notes->done_count++;
}

static struct note_job *make_job(struct notes *notes, int number, enum store_priority priority,
                                 bool durable)
{
    struct note_job *note = &notes->jobs[number];
    *note = (struct note_job){.notes = notes, .number = number};
    note->job.priority = priority;
    note->job.durable = durable;
    note->job.run = note_run;
    note->job.on_done = note_done;
    note->job.reply_to = notes->mailbox;
    return note;
}

static void post(struct notes *notes, struct note_job *note)
{
    assert_int_equal(store_post_write(notes->fixture.store, &note->job), ERR_OK);
}

static void start_writer(struct notes *notes)
{
    assert_int_equal(
        thread_start(&notes->fixture.writer, "store", store_writer_run, notes->fixture.store),
        ERR_OK);
}

static void wait_done(struct notes *notes, int count)
{
    while (notes->done_count < count) {
        mailbox_wait(notes->mailbox, -1);
        (void)mailbox_run_all(notes->mailbox);
    }
}

static void test_higher_priorities_come_first(void **state)
{
    struct notes *notes = *state;
    post(notes, make_job(notes, 0, STORE_APPLY, false));
    post(notes, make_job(notes, 1, STORE_RESULTS, false));
    post(notes, make_job(notes, 2, STORE_CONTROL, true));
    post(notes, make_job(notes, 3, STORE_CONTROL, true));
    clock_stand(); /* a group closes at its age, and then the apply job is next */
    start_writer(notes);
    wait_done(notes, 4);
    clock_go_on();
    const int expected[] = {2, 3, 1, 0};
    assert_memory_equal(notes->run_order, expected, sizeof(expected));
    /* The group is one commit, the apply job its own. */
    assert_int_equal(notes->jobs[2].job.commit, notes->jobs[3].job.commit);
    assert_int_equal(notes->jobs[1].job.commit, notes->jobs[2].job.commit);
    assert_int_equal(notes->jobs[0].job.commit, notes->jobs[1].job.commit + 1);
}

static void test_an_error_stays_with_its_job(void **state)
{
    struct notes *notes = *state;
    for (int i = 0; i < 6; i++) {
        make_job(notes, i, STORE_CONTROL, true)->fails_with = i == 2 ? ERR_NOT_FOUND : ERR_OK;
        post(notes, &notes->jobs[i]);
    }
    notes->jobs[4].number = 1; /* the engine refuses it */
    start_writer(notes);
    wait_done(notes, 6);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(notes->jobs[i].job.err, i == 2   ? ERR_NOT_FOUND
                                                 : i == 4 ? ERR_REFUSED
                                                          : ERR_OK);
    }
    store_fixture_close(&notes->fixture);
    store_fixture_open(&notes->fixture, false);
    assert_int_equal(store_fixture_number(&notes->fixture, "SELECT sum(1 << n) FROM notes"),
                     1 + 2 + 8 + 32);
}

static void test_full_commits_are_durable(void **state)
{
    struct notes *notes = *state;
    struct store *store = notes->fixture.store;
    struct note_job *note = make_job(notes, 0, STORE_APPLY, false);
    assert_int_equal(store_run_here(store, &note->job), ERR_OK);
    if (notes->fixture.is_postgres) { /* every commit is */
        assert_true(store_durable_commit(store) == note->job.commit);
        return;
    }
    assert_true(store_durable_commit(store) < note->job.commit);
    /* One that changes nothing syncs nothing, whatever it asks for. */
    assert_int_equal(store_fixture_number(&notes->fixture, "SELECT 1"), 1);
    assert_true(store_durable_commit(store) < note->job.commit);
    struct note_job *other = make_job(notes, 1, STORE_CONTROL, true);
    assert_int_equal(store_run_here(store, &other->job), ERR_OK);
    assert_true(store_durable_commit(store) >= other->job.commit);
    assert_true(other->job.commit > note->job.commit);
    /* And at rest everything becomes so. */
    assert_int_equal(store_run_here(store, &make_job(notes, 2, STORE_APPLY, false)->job), ERR_OK);
    start_writer(notes);
    while (store_durable_commit(store) < notes->jobs[2].job.commit) {
        (void)sched_yield();
    }
}

static enum err quiet_run(struct store_job *job, struct store_connection *connection)
{
    (void)job;
    (void)connection;
    return ERR_OK;
}

static void test_queues_are_bounded_each(void **state)
{
    struct notes *notes = *state;
    static struct note_job crowd[1001];
    for (int i = 0; i < 1001; i++) {
        crowd[i] = *make_job(notes, 0, STORE_CONTROL, false);
        crowd[i].job.run = quiet_run;
        enum err err = store_post_write(notes->fixture.store, &crowd[i].job);
        assert_int_equal(err, i < 1000 ? ERR_OK : ERR_FULL);
    }
    post(notes, make_job(notes, 1, STORE_APPLY, false)); /* the others' queues have room */
    store_stop(notes->fixture.store);
    struct note_job *late = make_job(notes, 2, STORE_RESULTS, true);
    assert_int_equal(store_post_write(notes->fixture.store, &late->job), ERR_CLOSED);
    start_writer(notes); /* what was taken before is still done */
    wait_done(notes, 1001);
    assert_int_equal(notes->run_count, 1);
}

/* A batch that lasts is cut off inside its statement. */
struct batch_job {
    struct note_job note;
    struct store_event *events;
    size_t count;
};

static enum err batch_run(struct store_job *job, struct store_connection *connection)
{
    struct batch_job *batch = (struct batch_job *)job;
    struct notes *notes = batch->note.notes;
    assert_int_equal(sem_post(&notes->is_running), 0);
    assert_int_equal(sem_wait(&notes->may_go_on), 0);
    enum err err = ERR_OK;
    while (err == ERR_OK) { /* duplicates after the first round: only work */
        err = store_insert_events(connection, batch->events, batch->count, false);
    }
    return err;
}

static void test_long_batch_gives_way(void **state)
{
    struct notes *notes = *state;
    static uint8_t ids[1000][16];
    static struct store_event events[1000];
    static struct batch_job batch;
    store_fixture_add_org(&notes->fixture, 1);
    for (size_t i = 0; i < 1000; i++) {
        memcpy(ids[i], &i, sizeof(i));
        events[i] = (struct store_event){
            .org = 1, .id = ids[i], .type = slice_from_text("t"), .payload = slice_from_text("1")};
    }
    batch = (struct batch_job){.events = events, .count = 1000};
    batch.note = *make_job(notes, 0, STORE_APPLY, false);
    batch.note.job.run = batch_run;
    start_writer(notes);
    post(notes, &batch.note);
    assert_int_equal(sem_wait(&notes->is_running), 0);
    post(notes, make_job(notes, 1, STORE_CONTROL, true));
    assert_int_equal(sem_post(&notes->may_go_on), 0);
    wait_done(notes, 2);
    assert_int_equal(batch.note.job.err, ERR_BUSY);
    assert_int_equal(notes->jobs[1].job.err, ERR_OK);
    store_fixture_close(&notes->fixture);
    store_fixture_open(&notes->fixture, false);
    assert_int_equal(store_fixture_number(&notes->fixture, "SELECT count(*) FROM events"), 0);
    assert_int_equal(store_fixture_number(&notes->fixture, "SELECT count(*) FROM notes"), 1);
}

static void test_locked_database_fails_and_recovers(void **state)
{
    struct notes *notes = *state;
    sqlite3 *other = NULL;
    if (notes->fixture.is_postgres) {
        return; /* a table may be locked there, not the database: tests/postgres */
    }
    assert_int_equal(sqlite3_open(notes->fixture.path, &other), SQLITE_OK);
    assert_int_equal(sqlite3_exec(other, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    start_writer(notes);
    post(notes, make_job(notes, 0, STORE_CONTROL, true));
    wait_done(notes, 1);
    assert_int_equal(notes->jobs[0].job.err, ERR_BUSY);
    assert_int_equal(notes->run_count, 0);
    assert_int_equal(store_health(notes->fixture.store), ERR_BUSY);
    assert_int_equal(sqlite3_exec(other, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(other), SQLITE_OK);
    /* Nobody posts: the writer finds out alone. */
    while (store_health(notes->fixture.store) != ERR_OK) {
        (void)sched_yield();
    }
    post(notes, make_job(notes, 1, STORE_CONTROL, true));
    wait_done(notes, 2);
    assert_int_equal(notes->jobs[1].job.err, ERR_OK);
}

static void test_run_here_goes_to_the_thread(void **state)
{
    struct notes *notes = *state;
    start_writer(notes);
    for (int i = 0; i < 20; i++) {
        struct note_job *note = make_job(notes, i, STORE_CONTROL, i % 2 == 0);
        assert_int_equal(store_run_here(notes->fixture.store, &note->job), ERR_OK);
    }
    assert_int_equal(store_fixture_number(&notes->fixture, "SELECT count(*) FROM notes"), 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_higher_priorities_come_first, setup, teardown),
        cmocka_unit_test_setup_teardown(test_an_error_stays_with_its_job, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_commits_are_durable, setup, teardown),
        cmocka_unit_test_setup_teardown(test_queues_are_bounded_each, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_batch_gives_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_locked_database_fails_and_recovers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_run_here_goes_to_the_thread, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
