/* Promise: whether a device has fallen silent and whether it is back is found once and told once,
 * also when one session marks it while another writes a reading of it.
 *
 * On SQLite, whose writers take turns, the two run one after the other.
 *
 * link: store_fixture.c
 * with: manage */
#include "support/registry.h"
#include "support/store_fixture.h"

#include "base/hash.h"
#include "base/mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <libpq-fe.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define ORG         1u
#define NOW         INT64_C(1700000040000)
#define LATER       (NOW + INT64_C(86400000)) /* no device is waited for so long */
#define ROWS        20u                       /* enough to be written by sets */
#define CHANGES_MAX 8u

struct plant {
    struct store_fixture store;
    struct mailbox *mailbox;
    PGconn *other; /* PostgreSQL: who holds somebody up */
    uint8_t ids[48];
    struct store_reading rows[ROWS];
    size_t count;
    struct store_device_change changes[CHANGES_MAX];
    uint32_t change_count;
};

static struct plant plant;

/* A write of its own that is waited for later. */
struct step {
    struct store_job job;
    bool is_done;
};

static enum err run_registry(struct store_connection *connection, void *context)
{
    (void)context;
    struct id project = registry_add(connection, MANAGE_PROJECT, ORG, "p", NULL);
    struct id site = registry_add(connection, MANAGE_SITE, ORG, "s", &project);
    struct id device = registry_add(connection, MANAGE_DEVICE, ORG, "d", &site);
    (void)registry_add(connection, MANAGE_PARAMETER, ORG, "v", &project);
    memcpy(plant.ids, device.bytes, 16);
    return ERR_OK;
}

static int setup(void **state)
{
    (void)state;
    memset(&plant, 0, sizeof(plant));
    store_fixture_init(&plant.store);
    plant.store.appliers = 1;
    store_fixture_open(&plant.store, true);
    store_fixture_add_org(&plant.store, ORG);
    assert_int_equal(store_fixture_run(&plant.store, run_registry, NULL), ERR_OK);
    assert_int_equal(mailbox_create(&plant.mailbox, 16), ERR_OK);
    if (plant.store.is_postgres) {
        plant.other = PQconnectdb(plant.store.url);
        assert_int_equal(PQstatus(plant.other), CONNECTION_OK);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    PQfinish(plant.other);
    store_fixture_finish(&plant.store);
    mailbox_destroy(plant.mailbox);
    return 0;
}

/* --- steps --------------------------------------------------------------------------------- */

static enum err on_device(struct store_connection *connection,
                          const struct store_device_change *change, void *context)
{
    (void)connection;
    (void)context;
    assert_true(plant.change_count < CHANGES_MAX);
    plant.changes[plant.change_count++] = *change;
    return ERR_OK;
}

static enum err run_write(struct store_job *job, struct store_connection *connection)
{
    (void)job;
    return store_write_readings(connection, plant.rows, plant.count, false, on_device, NULL);
}

static enum err run_silent(struct store_job *job, struct store_connection *connection)
{
    int64_t due_ms = 0;
    (void)job;
    return store_find_silent(connection, LATER, 10, on_device, NULL, &due_ms);
}

static void on_done(struct store_job *job)
{
    ((struct step *)job)->is_done = true;
}

static void post(struct step *step, enum store_priority priority,
                 enum err (*run)(struct store_job *job, struct store_connection *connection))
{
    *step = (struct step){
        .job = {.priority = priority, .run = run, .on_done = on_done, .reply_to = plant.mailbox}};
    assert_int_equal(store_post_write(plant.store.store, &step->job), ERR_OK);
}

/* Who waited too long gives way, and is told to come again. True: it came once. */
static bool finish(struct step *step)
{
    bool is_first = true;
    do {
        while (!step->is_done) {
            mailbox_wait(plant.mailbox, -1);
            (void)mailbox_run_all(plant.mailbox);
        }
        if (step->job.err == ERR_BUSY) {
            is_first = false;
            post(step, step->job.priority, step->job.run);
        }
    } while (!step->is_done);
    assert_int_equal(step->job.err, ERR_OK);
    return is_first;
}

static void speak(int64_t received_ms, size_t count)
{
    plant.count = count;
    for (size_t i = 0; i < count; i++) {
        plant.rows[i] = (struct store_reading){.ids = plant.ids,
                                               .parameter = SLICE_LITERAL("v"),
                                               .value = 1,
                                               .has_value = true,
                                               .quality = -1,
                                               .time_ms = received_ms - (int64_t)i * 60000,
                                               .received_ms = received_ms,
                                               .org = ORG,
                                               .position = 1};
    }
}

static void other(const char *sql)
{
    if (plant.other != NULL) {
        PGresult *result = PQexec(plant.other, sql);
        assert_int_equal(PQresultStatus(result), PGRES_COMMAND_OK);
        PQclear(result);
    }
}

#define FOR_STATES "locktype = 'relation' AND relation = 'device_states'::regclass"
#define FOR_DIRTY  "locktype = 'relation' AND relation = 'rollup_dirty'::regclass"
#define FOR_A_ROW  "locktype = 'transactionid'"

/* Until a session waits for this lock, or the step is over. For no other: one that makes a month,
 * say, is not yet where the test wants it. */
static void await_locked(const char *lock, const struct step *step)
{
    bool is_found = plant.other == NULL;
    char sql[256];
    (void)snprintf(sql, sizeof(sql),
                   "SELECT 1 FROM pg_locks WHERE NOT granted AND %s AND pid IN (SELECT pid FROM"
                   " pg_stat_activity WHERE datname = current_database())",
                   lock);
    while (!is_found && !step->is_done) {
        PGresult *result = PQexec(plant.other, sql);
        assert_int_equal(PQresultStatus(result), PGRES_TUPLES_OK);
        is_found = PQntuples(result) > 0;
        PQclear(result);
        (void)mailbox_run_all(plant.mailbox);
        (void)sched_yield();
    }
}

/* --- tests --------------------------------------------------------------------------------- */

static void first_words(size_t count)
{
    struct step first;
    speak(NOW, 1);
    post(&first, STORE_APPLY, run_write);
    finish(&first);
    speak(LATER, count);
}

/* The writer has seen a device that speaks when the mark is set: it is back all the same. */
static void marked_before(size_t count)
{
    struct step write;
    struct step silent;
    first_words(count);
    other("BEGIN");
    other("LOCK TABLE rollup_dirty IN EXCLUSIVE MODE");
    if (plant.other == NULL) {
        post(&silent, STORE_CONTROL, run_silent);
        finish(&silent);
    }
    post(&write, STORE_APPLY, run_write);
    await_locked(FOR_DIRTY, &write);
    if (plant.other != NULL) {
        post(&silent, STORE_CONTROL, run_silent);
        finish(&silent);
    }
    other("COMMIT");
    finish(&write);
    assert_int_equal(plant.change_count, 2);
    assert_int_equal(plant.changes[0].silent_ms, LATER);
    assert_int_equal(plant.changes[0].back_ms, 0);
    assert_int_equal(plant.changes[1].silent_ms, LATER);
    assert_int_equal(plant.changes[1].back_ms, LATER);
    assert_int_equal(plant.changes[1].last_received_ms, NOW);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT silent_ms FROM device_states"), 0);
}

/* The mark is about to be set when the writer commits: the device is not silent. False: the writer
 * gave way, so the mark was set before. */
static bool is_marked_after(size_t count)
{
    struct step write;
    struct step silent;
    first_words(count);
    other("BEGIN");
    other("LOCK TABLE device_states IN EXCLUSIVE MODE"); /* the writer has the org's row by then */
    post(&write, STORE_APPLY, run_write);
    if (plant.other == NULL) {
        finish(&write);
    }
    await_locked(FOR_STATES, &write);
    post(&silent, STORE_CONTROL, run_silent);
    await_locked(FOR_A_ROW, &silent);
    other("COMMIT");
    finish(&silent);
    if (!finish(&write)) {
        return false;
    }
    assert_int_equal(plant.change_count, 0);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT silent_ms FROM device_states"), 0);
    assert_int_equal(
        store_fixture_number(&plant.store, "SELECT last_received_ms FROM device_states"), LATER);
    return true;
}

static void marked_after(size_t count)
{
    while (!is_marked_after(count)) {
        teardown(NULL);
        setup(NULL);
    }
}

static void test_marked_before_row_by_row(void **state)
{
    (void)state;
    marked_before(1);
}

static void test_marked_before_by_sets(void **state)
{
    (void)state;
    marked_before(ROWS);
}

static void test_marked_after_row_by_row(void **state)
{
    (void)state;
    marked_after(1);
}

static void test_marked_after_by_sets(void **state)
{
    (void)state;
    marked_after(ROWS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_marked_before_row_by_row, setup, teardown),
        cmocka_unit_test_setup_teardown(test_marked_before_by_sets, setup, teardown),
        cmocka_unit_test_setup_teardown(test_marked_after_row_by_row, setup, teardown),
        cmocka_unit_test_setup_teardown(test_marked_after_by_sets, setup, teardown),
    };
    assert_int_equal(hash_start(), ERR_OK);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
