/* Promise: a reader's job sees one snapshot, cannot write, is cut off at its time, and does not
 * wait behind a long one while another reader is free.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <semaphore.h>
#include <string.h>

struct read_job {
    struct store_job job;
    struct store_fixture *fixture;
    const char *sql;
    int64_t number;
    bool is_done;
    sem_t is_running;
    sem_t may_go_on;
};

static struct mailbox *mailbox;

static int setup_with(void **state, uint32_t query_timeout_ms)
{
    static struct store_fixture fixture;
    store_fixture_init(&fixture);
    fixture.query_timeout_ms = query_timeout_ms;
    store_fixture_open(&fixture, true);
    assert_int_equal(store_fixture_sql(&fixture, "CREATE TABLE t (x INTEGER)"), ERR_OK);
    assert_int_equal(mailbox_create(&mailbox, 10), ERR_OK);
    *state = &fixture;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, 0);
}

static int setup_impatient(void **state)
{
    return setup_with(state, 2000);
}

static int teardown(void **state)
{
    store_fixture_finish(*state);
    mailbox_destroy(mailbox);
    return 0;
}

static enum err read_number(struct store_connection *connection, const char *sql, int64_t *ret)
{
    struct store_statement *statement = NULL;
    bool has_row = false;
    enum err err = store_prepare(connection, sql, &statement);
    if (err == ERR_OK) {
        err = store_step(statement, &has_row);
    }
    if (err == ERR_OK && has_row) {
        *ret = store_column_i64(statement, 0);
        store_reset(statement);
    }
    return err;
}

static enum err plain_run(struct store_job *job, struct store_connection *connection)
{
    struct read_job *read = (struct read_job *)job;
    return read_number(connection, read->sql, &read->number);
}

static void read_done(struct store_job *job)
{
    ((struct read_job *)job)->is_done = true;
}

static void init(struct read_job *read, struct store_fixture *fixture, const char *sql)
{
    memset(read, 0, sizeof(*read));
    read->fixture = fixture;
    read->sql = sql;
    read->job.run = plain_run;
    read->job.on_done = read_done;
    read->job.reply_to = mailbox;
    assert_int_equal(sem_init(&read->is_running, 0, 0), 0);
    assert_int_equal(sem_init(&read->may_go_on, 0, 0), 0);
}

static void post(struct read_job *read)
{
    assert_int_equal(store_post_read(read->fixture->store, &read->job), ERR_OK);
}

static void wait_for(struct read_job *read)
{
    while (!read->is_done) {
        mailbox_wait(mailbox, -1);
        (void)mailbox_run_all(mailbox);
    }
}

static void test_reads_what_was_written(void **state)
{
    struct read_job read;
    assert_int_equal(store_fixture_sql(*state, "INSERT INTO t VALUES (41)"), ERR_OK);
    init(&read, *state, "SELECT max(x) FROM t");
    post(&read);
    wait_for(&read);
    assert_int_equal(read.job.err, ERR_OK);
    assert_int_equal(read.number, 41);
}

static void test_cannot_write(void **state)
{
    struct read_job read;
    init(&read, *state, "INSERT INTO t VALUES (1)");
    post(&read);
    wait_for(&read);
    assert_int_equal(read.job.err, ERR_PERMISSION);
    assert_int_equal(store_fixture_number(*state, "SELECT count(*) FROM t"), 0);
}

static enum err twice_run(struct store_job *job, struct store_connection *connection)
{
    struct read_job *read = (struct read_job *)job;
    int64_t before = 0;
    int64_t after = 0;
    enum err err = read_number(connection, "SELECT count(*) FROM t", &before);
    assert_int_equal(sem_post(&read->is_running), 0);
    assert_int_equal(sem_wait(&read->may_go_on), 0);
    if (err == ERR_OK) {
        err = read_number(connection, "SELECT count(*) FROM t", &after);
    }
    read->number = after - before;
    return err;
}

static void test_a_job_is_one_snapshot_and_others_pass(void **state)
{
    struct read_job slow;
    struct read_job quick[4];
    init(&slow, *state, NULL);
    slow.job.run = twice_run;
    post(&slow);
    assert_int_equal(sem_wait(&slow.is_running), 0);
    assert_int_equal(store_fixture_sql(*state, "INSERT INTO t VALUES (1)"), ERR_OK);
    for (int i = 0; i < 4; i++) {
        init(&quick[i], *state, "SELECT count(*) FROM t");
        post(&quick[i]);
        wait_for(&quick[i]);
        assert_int_equal(quick[i].number, 1);
    }
    assert_false(slow.is_done);
    assert_int_equal(sem_post(&slow.may_go_on), 0);
    wait_for(&slow);
    assert_int_equal(slow.job.err, ERR_OK);
    assert_int_equal(slow.number, 0);
}

static void test_endless_query_is_cut_off(void **state)
{
    struct read_job read;
    init(&read, *state,
         "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c");
    post(&read);
    wait_for(&read);
    assert_int_equal(read.job.err, ERR_TIMEOUT);
    /* And the reader is well. */
    init(&read, *state, "SELECT 3");
    post(&read);
    wait_for(&read);
    assert_int_equal(read.number, 3);
}

static void test_stop_answers_what_was_taken(void **state)
{
    struct store_fixture *fixture = *state;
    struct read_job reads[8];
    for (int i = 0; i < 8; i++) {
        init(&reads[i], fixture, "SELECT 1");
        post(&reads[i]);
    }
    store_stop(fixture->store);
    struct read_job late;
    init(&late, fixture, "SELECT 1");
    assert_int_equal(store_post_read(fixture->store, &late.job), ERR_CLOSED);
    for (int i = 0; i < 8; i++) {
        wait_for(&reads[i]);
        assert_int_equal(reads[i].number, 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads_what_was_written, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cannot_write, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_job_is_one_snapshot_and_others_pass, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_endless_query_is_cut_off, setup_impatient, teardown),
        cmocka_unit_test_setup_teardown(test_stop_answers_what_was_taken, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
