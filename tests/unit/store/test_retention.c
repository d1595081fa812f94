/* Promise: what is older than its org keeps it goes in small steps, with all that stands beside it;
 * nothing younger goes, nothing of another org, and no roll-up changes because its readings went.
 *
 * link: store_fixture.c
 * with: manage */
#include "support/registry.h"
#include "support/store_fixture.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HOUR_MS    INT64_C(3600000)
#define DAY_MS     INT64_C(86400000)
#define NOW        (INT64_C(19700) * DAY_MS + 7 * HOUR_MS + 12345) /* 2023-12-09 */
#define ORGS       2u
#define EVENTS_MAX 3000u
#define ROWS       320u /* of each org, six hours apart: 80 days */

struct plant {
    struct store_fixture store;
    struct store_event events[EVENTS_MAX];
    uint8_t ids[EVENTS_MAX][16];
    uint64_t sequences[EVENTS_MAX];
    size_t count;
    uint8_t devices[ORGS][48];
    struct store_reading rows[ROWS];
    size_t row_count;
    struct store_retention retention;
    uint32_t done;
};

static struct plant plant;

static enum err run_registry(struct store_connection *connection, void *context)
{
    (void)context;
    for (uint64_t org = 1; org <= ORGS; org++) {
        struct id project = registry_add(connection, MANAGE_PROJECT, org, "p", NULL);
        struct id site = registry_add(connection, MANAGE_SITE, org, "s", &project);
        struct id device = registry_add(connection, MANAGE_DEVICE, org, "d", &site);
        (void)registry_add(connection, MANAGE_PARAMETER, org, "v", &project);
        memcpy(plant.devices[org - 1], device.bytes, 16);
    }
    return ERR_OK;
}

static int setup(void **state)
{
    (void)state;
    memset(&plant, 0, sizeof(plant));
    store_fixture_init(&plant.store);
    store_fixture_open(&plant.store, false);
    for (uint64_t org = 1; org <= ORGS; org++) {
        store_fixture_add_org(&plant.store, org);
    }
    assert_int_equal(store_fixture_run(&plant.store, run_registry, NULL), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_fixture_finish(&plant.store);
    return 0;
}

static void sql(const char *what)
{
    assert_int_equal(store_fixture_sql(&plant.store, what), ERR_OK);
}

static int64_t count_of(const char *what)
{
    char query[512];
    (void)snprintf(query, sizeof(query), "SELECT count(*) FROM %s", what);
    return store_fixture_number(&plant.store, query);
}

static enum err run_step(struct store_connection *connection, void *context)
{
    (void)context;
    return store_retention_step(connection, &plant.retention);
}

/* A whole pass; gives the number of its steps. */
static uint32_t pass(int64_t now_ms, int64_t events_ms_min)
{
    uint32_t steps = 0;
    store_retention_begin(&plant.retention, now_ms, events_ms_min);
    do {
        assert_int_equal(store_fixture_run(&plant.store, run_step, NULL), ERR_OK);
        assert_true(++steps < 10000);
    } while (plant.retention.stage != STORE_RETENTION_DONE);
    return steps;
}

/* --- events ------------------------------------------------------------------------------------
 */

static enum err run_insert(struct store_connection *connection, void *context)
{
    (void)context;
    return store_insert_events(connection, plant.events, plant.count, false);
}

static enum err run_acks(struct store_connection *connection, void *context)
{
    (void)context;
    enum err err = ERR_OK;
    bool was = false;
    for (size_t i = 0; i < plant.count && err == ERR_OK; i++) {
        if (i % 3 != 0) {
            err = store_event_acknowledge(connection, plant.events[i].sequence, &was);
        }
    }
    return err;
}

/* Events of the last five days, in an order in which the clock was stepped now and then. */
static void insert_events(void)
{
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    plant.count = EVENTS_MAX;
    for (size_t i = 0; i < plant.count; i++) {
        int64_t age_ms = 5 * DAY_MS * (int64_t)(plant.count - i) / (int64_t)plant.count;
        age_ms += rand() % 10 == 0 ? (rand() % 20) * HOUR_MS : 0;
        memcpy(plant.ids[i], &i, sizeof(i));
        plant.events[i] = (struct store_event){.type = SLICE_LITERAL("t"),
                                               .payload = SLICE_LITERAL("{}"),
                                               .id = plant.ids[i],
                                               .occurred_ms = 1,
                                               .created_ms = NOW - age_ms,
                                               .org = 1 + (uint64_t)(rand() % 4 == 0),
                                               .position = 9};
        if (i % 2 == 0) {
            plant.events[i].subject = SLICE_LITERAL("s/1");
        }
    }
    assert_int_equal(store_fixture_run(&plant.store, run_insert, NULL), ERR_OK);
    assert_int_equal(store_fixture_run(&plant.store, run_acks, NULL), ERR_OK);
}

/* By the rule: an event goes when the hour in which it was accepted is over for its org. */
static bool is_kept(const struct store_event *event, int64_t days)
{
    return event->org != 1 || event->created_ms / HOUR_MS >= (NOW - days * DAY_MS) / HOUR_MS;
}

static void expect_events(int64_t days)
{
    int64_t events = 0;
    int64_t subjects = 0;
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < plant.count; i++) {
        const struct store_event *event = &plant.events[i];
        char one[64];
        bool kept = is_kept(event, days);
        events += kept;
        subjects += kept && event->subject.data != NULL;
        first = kept && event->org == 1 && event->sequence < first ? event->sequence : first;
        (void)snprintf(one, sizeof(one), "events WHERE sequence = %llu",
                       (unsigned long long)event->sequence);
        assert_int_equal(count_of(one), kept);
    }
    assert_int_equal(count_of("events"), events);
    assert_int_equal(count_of("event_ids"), events);
    assert_int_equal(count_of("event_subjects"), subjects);
    /* Each that is left lies in the range of its hour, and no range is left without. */
    assert_int_equal(count_of("events e JOIN event_hours h ON h.org = e.sequence / 1099511627776"
                              " AND h.hour = e.created_ms / 3600000"
                              " AND e.sequence BETWEEN h.first_sequence AND h.last_sequence"),
                     events);
    assert_int_equal(count_of("event_hours h WHERE NOT EXISTS (SELECT 1 FROM events e WHERE"
                              " h.org = e.sequence / 1099511627776"
                              " AND h.hour = e.created_ms / 3600000)"),
                     0);
    char acks[128];
    (void)snprintf(acks, sizeof(acks),
                   "event_acks WHERE first_sequence < 2199023255552 AND last_sequence < %llu",
                   (unsigned long long)first);
    assert_int_equal(count_of(acks), 0);
    assert_true(count_of("event_acks") > 0);
}

static int64_t version_of(uint64_t org)
{
    return store_fixture_number(&plant.store,
                                org == 1 ? "SELECT data_version FROM orgs WHERE number = 1"
                                         : "SELECT data_version FROM orgs WHERE number = 2");
}

static void test_events_go_by_the_hour(void **state)
{
    (void)state;
    insert_events();
    int64_t versions[ORGS] = {version_of(1), version_of(2)};
    (void)pass(NOW, 0);
    expect_events(100); /* nobody has set anything */
    sql("UPDATE orgs SET events_days = 2 WHERE number = 1");
    (void)pass(NOW, 3 * DAY_MS); /* within the window in which the journal may be read again */
    expect_events(3);
    assert_true(pass(NOW, 0) > 4); /* parts */
    expect_events(2);
    assert_true(version_of(1) > versions[0]);
    assert_int_equal(version_of(2), versions[1]);
    /* One that comes again is new. */
    plant.count = 1;
    plant.events[0].created_ms = NOW;
    assert_false(is_kept(&(struct store_event){.org = 1, .created_ms = NOW - 3 * DAY_MS}, 2));
    assert_int_equal(store_fixture_run(&plant.store, run_insert, NULL), ERR_OK);
    assert_int_equal(plant.events[0].state,
                     plant.events[0].org == 1 ? STORE_EVENT_INSERTED : STORE_EVENT_DUPLICATE);
}

static void test_dead_letters_go_by_their_age(void **state)
{
    (void)state;
    for (int i = 0; i < 600; i++) {
        char insert[400];
        (void)snprintf(insert, sizeof(insert),
                       "INSERT INTO dead_letters (id, org, kind, reason, position, element, form,"
                       " record, received_ms) VALUES (x'%032x', %d, 'event', 'r', 1, 0, 1, x'00',"
                       " %lld)",
                       i, 1 + i % 2, (long long)(NOW - (600 - i) * (DAY_MS / 100)));
        sql(insert);
    }
    sql("UPDATE orgs SET dead_letters_days = 1 WHERE number = 1");
    (void)pass(NOW, 0);
    /* Of every second one, those of the last hundred and the hundredth. */
    assert_int_equal(count_of("dead_letters WHERE org = 1"), 50);
    assert_int_equal(count_of("dead_letters WHERE org = 2"), 300);
}

/* --- readings ----------------------------------------------------------------------------------
 */

static enum err run_write(struct store_connection *connection, void *context)
{
    (void)context;
    return store_write_readings(connection, plant.rows, plant.row_count, false, NULL, NULL);
}

static enum err run_refresh(struct store_connection *connection, void *context)
{
    (void)context;
    struct store_rollup_place place = {.org = 0};
    enum err err = ERR_OK;
    do {
        err = store_rollups_refresh(connection, 64, &place, &plant.done);
    } while (err == ERR_OK && plant.done == 64);
    return err;
}

static void write_row(size_t at, uint64_t org, int64_t time_ms, int64_t received_ms)
{
    plant.rows[at] = (struct store_reading){.ids = plant.devices[org - 1],
                                            .parameter = SLICE_LITERAL("v"),
                                            .value = (double)(time_ms % 1000003),
                                            .has_value = true,
                                            .quality = -1,
                                            .time_ms = time_ms,
                                            .received_ms = received_ms,
                                            .org = org,
                                            .position = 1};
}

static enum store_reading_state write_one(uint64_t org, int64_t time_ms, int64_t received_ms)
{
    plant.row_count = 1;
    write_row(0, org, time_ms, received_ms);
    assert_int_equal(store_fixture_run(&plant.store, run_write, NULL), ERR_OK);
    return plant.rows[0].state;
}

static void fill(void)
{
    for (uint64_t org = 1; org <= ORGS; org++) {
        plant.row_count = ROWS;
        for (size_t i = 0; i < ROWS; i++) {
            int64_t time_ms = NOW - (int64_t)i * 6 * HOUR_MS;
            write_row(i, org, time_ms, time_ms);
        }
        assert_int_equal(store_fixture_run(&plant.store, run_write, NULL), ERR_OK);
    }
}

static int64_t readings_of(uint64_t org, int64_t from_ms)
{
    char what[128];
    (void)snprintf(what, sizeof(what), "readings WHERE org = %llu AND time_ms >= %lld",
                   (unsigned long long)org, (long long)from_ms);
    return count_of(what);
}

static int64_t rollups_of(uint64_t org, int64_t from_ms)
{
    char query[256];
    (void)snprintf(query, sizeof(query),
                   "SELECT CAST(coalesce(sum(sum + count), 0) AS bigint) FROM rollups"
                   " WHERE org = %llu AND start_ms >= %lld",
                   (unsigned long long)org, (long long)from_ms);
    return store_fixture_number(&plant.store, query);
}

static int64_t bound_of(uint64_t org)
{
    char query[128];
    (void)snprintf(query, sizeof(query),
                   "SELECT coalesce(readings_from_ms, 0) FROM orgs WHERE number = %llu",
                   (unsigned long long)org);
    return store_fixture_number(&plant.store, query);
}

/* Rows of readings of before: six hours apart, the first at NOW. */
static int64_t rows_since(int64_t from_ms)
{
    return (NOW - from_ms) / (6 * HOUR_MS) + 1;
}

static void test_readings_go_and_their_rollups_stay(void **state)
{
    (void)state;
    const int64_t from_ms = (INT64_C(19700) - 10) * DAY_MS;
    const int64_t rollups_ms = (INT64_C(19700) - 20) * DAY_MS;
    fill();
    sql("UPDATE orgs SET readings_days = 10, rollups_days = 20 WHERE number = 1");
    (void)pass(NOW, 0);
    assert_int_equal(bound_of(1), 0); /* minutes are dirty: not yet */
    assert_int_equal(readings_of(1, INT64_MIN), ROWS);
    assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
    int64_t kept = rollups_of(1, rollups_ms);
    int64_t others = rollups_of(2, INT64_MIN);
    assert_true(rollups_of(1, INT64_MIN) > kept);
    (void)pass(NOW + DAY_MS - 8 * HOUR_MS, 0); /* the same day: bounds move, rows wait */
    assert_int_equal(bound_of(1), from_ms);
    (void)pass(NOW + DAY_MS, 0);
    assert_int_equal(bound_of(1), from_ms + DAY_MS);
    assert_int_equal(bound_of(2), 0);
    assert_int_equal(readings_of(1, from_ms + DAY_MS), rows_since(from_ms + DAY_MS));
    assert_int_equal(readings_of(2, INT64_MIN), ROWS);
    /* Where readings lie by month, what is left of this one waits until it is over: it is December,
     * and the bound is in November. */
    int64_t november = INT64_C(19662) * DAY_MS;
    assert_int_equal(readings_of(1, INT64_MIN),
                     plant.store.is_postgres ? rows_since(november) : rows_since(from_ms + DAY_MS));
    assert_int_equal(rollups_of(1, INT64_MIN), rollups_of(1, rollups_ms + DAY_MS));
    assert_true(rollups_of(1, INT64_MIN) <= kept && rollups_of(1, INT64_MIN) > 0);
    assert_int_equal(rollups_of(2, INT64_MIN), others);
    /* What comes late for a time that is gone is refused, so that no roll-up is made of it alone.
     */
    assert_int_equal(write_one(1, from_ms + DAY_MS - 1, NOW), STORE_READING_TOO_OLD);
    assert_int_equal(write_one(1, from_ms + DAY_MS, NOW), STORE_READING_STORED);
    assert_int_equal(write_one(2, from_ms - DAY_MS, NOW), STORE_READING_STORED);
    assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
    assert_int_equal(count_of("rollup_dirty"), 0);
}

static void test_a_month_that_nobody_keeps_goes_whole(void **state)
{
    (void)state;
    const int64_t november = INT64_C(19662) * DAY_MS; /* 2023-11-01 */
    fill();
    assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
    int64_t rollups = rollups_of(1, INT64_MIN);
    sql("UPDATE orgs SET readings_days = 30 WHERE number = 1");
    (void)pass(NOW, 0);
    (void)pass(NOW + DAY_MS, 0);
    assert_int_equal(readings_of(2, INT64_MIN), ROWS);
    assert_true(readings_of(1, INT64_MIN) >= rows_since(november) || !plant.store.is_postgres);
    sql("UPDATE orgs SET readings_days = 30 WHERE number = 2");
    (void)pass(NOW + 2 * DAY_MS, 0);
    for (int i = 0; i < 5; i++) { /* a month a pass */
        (void)pass(NOW + 3 * DAY_MS, 0);
    }
    assert_int_equal(readings_of(1, INT64_MIN), readings_of(2, INT64_MIN));
    assert_int_equal(rollups_of(1, INT64_MIN), rollups);
    if (plant.store.is_postgres) {
        char what[128];
        (void)snprintf(what, sizeof(what), "reading_months WHERE start_ms < %lld",
                       (long long)november);
        assert_int_equal(count_of(what), 0);
        /* This month and two more were made ahead. */
        assert_int_equal(count_of("reading_months"), 4);
        assert_int_equal(readings_of(1, INT64_MIN), rows_since(november));
    }
    /* The month comes back for a late one of an org that keeps it. */
    sql("UPDATE orgs SET readings_from_ms = NULL, readings_days = NULL WHERE number = 2");
    assert_int_equal(write_one(2, november - 1, NOW), STORE_READING_STORED);
    assert_int_equal(readings_of(2, november - 1) - readings_of(2, november), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_events_go_by_the_hour, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_letters_go_by_their_age, setup, teardown),
        cmocka_unit_test_setup_teardown(test_readings_go_and_their_rollups_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_month_that_nobody_keeps_goes_whole, setup, teardown),
    };
    assert_int_equal(hash_start(), ERR_OK);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
