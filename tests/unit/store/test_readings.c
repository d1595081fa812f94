/* Promise: which value of a reading stands depends on positions and not on the order of writing,
 * what does not fit the registry is told apart, roll-ups have the same bits whatever the order of
 * their readings, and silence is told once.
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

#define ORG         1u
#define NOW         INT64_C(1700000040000)
#define ROWS_MAX    600u
#define DAY_MS      INT64_C(86400000)
#define CHANGES_MAX 8u

struct plant {
    struct store_fixture store;
    struct id project;
    struct id site;
    struct id device;
    uint8_t ids[48];
    struct store_reading rows[ROWS_MAX];
    size_t count;
    struct store_device_change changes[CHANGES_MAX];
    uint32_t change_count;
    int64_t now_ms;
    int64_t due_ms;
    uint32_t done;
};

static struct plant plant;

static enum err run_registry(struct store_connection *connection, void *context)
{
    (void)context;
    static const char *const policies[] = {"reject", "clamp", "flag"};
    plant.project = registry_add(connection, MANAGE_PROJECT, ORG, "p", NULL);
    plant.site = registry_add(connection, MANAGE_SITE, ORG, "s", &plant.project);
    plant.device = registry_add(connection, MANAGE_DEVICE, ORG, "d", &plant.site);
    for (size_t i = 0; i < 3; i++) {
        registry_add_bounded(connection, ORG, policies[i], &plant.project);
    }
    (void)registry_add(connection, MANAGE_PARAMETER, ORG, "v", &plant.project);
    memcpy(plant.ids, plant.device.bytes, 16);
    return ERR_OK;
}

static int setup(void **state)
{
    (void)state;
    memset(&plant, 0, sizeof(plant));
    store_fixture_init(&plant.store);
    store_fixture_open(&plant.store, false);
    store_fixture_add_org(&plant.store, ORG);
    assert_int_equal(store_fixture_run(&plant.store, run_registry, NULL), ERR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_fixture_finish(&plant.store);
    return 0;
}

static enum err on_device(struct store_connection *connection,
                          const struct store_device_change *change, void *context)
{
    (void)connection;
    (void)context;
    assert_true(plant.change_count < CHANGES_MAX);
    assert_memory_equal(change->id, plant.device.bytes, 16);
    plant.changes[plant.change_count++] = *change;
    return ERR_OK;
}

static enum err run_write(struct store_connection *connection, void *context)
{
    (void)context;
    return store_write_readings(connection, plant.rows, plant.count, false, on_device, NULL);
}

static void write_rows(void)
{
    assert_int_equal(store_fixture_run(&plant.store, run_write, NULL), ERR_OK);
}

static struct store_reading *add(const char *parameter, double value, int64_t time_ms,
                                 uint64_t position)
{
    assert_true(plant.count < ROWS_MAX);
    struct store_reading *row = &plant.rows[plant.count++];
    *row = (struct store_reading){.ids = plant.ids,
                                  .parameter = slice_from_text(parameter),
                                  .value = value,
                                  .has_value = true,
                                  .quality = -1,
                                  .time_ms = time_ms,
                                  .received_ms = NOW,
                                  .org = ORG,
                                  .position = position};
    return row;
}

static enum store_reading_state write_one(const char *parameter, double value, int64_t time_ms,
                                          uint64_t position)
{
    plant.count = 0;
    const struct store_reading *row = add(parameter, value, time_ms, position);
    write_rows();
    return row->state;
}

static int64_t value_times_100(void)
{
    return store_fixture_number(&plant.store, "SELECT CAST(value * 100 AS bigint) FROM readings");
}

static void test_a_lower_position_never_overwrites(void **state)
{
    (void)state;
    assert_int_equal(write_one("v", 1, NOW, 5), STORE_READING_STORED);
    assert_int_equal(write_one("v", 2, NOW, 4), STORE_READING_OLDER);
    assert_int_equal(value_times_100(), 100);
    assert_int_equal(write_one("v", 3, NOW, 5), STORE_READING_STORED);
    assert_int_equal(value_times_100(), 300);
    plant.count = 0;
    (void)add("v", 4, NOW, 6);
    (void)add("v", 5, NOW, 6); /* of one upload: the later element stands */
    write_rows();
    assert_int_equal(value_times_100(), 500);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT count(*) FROM readings"), 1);
}

static void test_what_does_not_fit_leaves_no_row(void **state)
{
    (void)state;
    uint8_t ids[48];
    assert_int_equal(write_one("w", 1, NOW, 1), STORE_READING_UNKNOWN_PARAMETER);
    assert_int_equal(write_one("project:00000000-0000-0000-0000-000000000000:v", 1, NOW, 1),
                     STORE_READING_UNKNOWN_PARAMETER);
    assert_int_equal(write_one("v", 1, NOW + DAY_MS + 1, 1), STORE_READING_TOO_FAR_AHEAD);
    assert_int_equal(write_one("v", 1, NOW - 90 * DAY_MS - 1, 1), STORE_READING_TOO_OLD);
    assert_int_equal(write_one("reject", 11, NOW, 1), STORE_READING_OUT_OF_RANGE);
    memcpy(ids, plant.ids, sizeof(ids));
    plant.ids[47] = 1; /* another site */
    assert_int_equal(write_one("v", 1, NOW, 1), STORE_READING_WRONG_SITE);
    memcpy(plant.ids, ids, sizeof(ids));
    plant.ids[15] ^= 1u;
    assert_int_equal(write_one("v", 1, NOW, 1), STORE_READING_UNKNOWN_DEVICE);
    memcpy(plant.ids, ids, sizeof(ids));
    assert_int_equal(store_fixture_number(&plant.store, "SELECT count(*) FROM readings"), 0);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT count(*) FROM series"), 0);
    /* The bounds themselves fit. */
    assert_int_equal(write_one("v", 1, NOW + DAY_MS, 1), STORE_READING_STORED);
    assert_int_equal(write_one("v", 1, NOW - 90 * DAY_MS, 1), STORE_READING_STORED);
    assert_int_equal(write_one("reject", 10, NOW, 1), STORE_READING_STORED);
}

static void test_policies_mark_what_they_keep(void **state)
{
    (void)state;
    assert_int_equal(write_one("clamp", 12.5, NOW, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, STORE_READING_FLAG_CLAMPED);
    assert_int_equal(value_times_100(), 1000);
    write_rows(); /* once more, as after a part that was refused */
    assert_int_equal(plant.rows[0].flags, STORE_READING_FLAG_CLAMPED);
    assert_int_equal(write_one("flag", -1, NOW, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, STORE_READING_FLAG_RANGE);
    assert_int_equal(write_one("v", 1, NOW - 300001, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, STORE_READING_FLAG_LATE);
    assert_int_equal(write_one("v", 1, NOW - 300000, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, 0);
}

static void set_org(const char *what)
{
    char sql[128];
    (void)snprintf(sql, sizeof(sql), "UPDATE orgs SET %s WHERE number = 1", what);
    assert_int_equal(store_fixture_sql(&plant.store, sql), ERR_OK);
}

static void test_late_is_what_the_org_says(void **state)
{
    (void)state;
    set_org("late_s = 10");
    assert_int_equal(write_one("v", 1, NOW - 10000, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, 0);
    assert_int_equal(write_one("v", 1, NOW - 10001, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, STORE_READING_FLAG_LATE);
    set_org("late_s = 0");
    assert_int_equal(write_one("v", 1, NOW - 1, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, STORE_READING_FLAG_LATE);
    assert_int_equal(write_one("v", 1, NOW, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, 0);
    set_org("late_s = 86400");
    assert_int_equal(write_one("v", 1, NOW - DAY_MS, 1), STORE_READING_STORED);
    assert_int_equal(plant.rows[0].flags, 0);
}

/* --- roll-ups ------------------------------------------------------------------------------ */

static enum err run_refresh(struct store_connection *connection, void *context)
{
    (void)context;
    struct store_rollup_place place = {.org = 0};
    enum err err = ERR_OK;
    do {
        err = store_rollups_refresh(connection, 7, &place, &plant.done);
    } while (err == ERR_OK && plant.done == 7);
    return err;
}

struct bits {
    uint64_t hash; /* of every stored bucket */
    uint32_t count;
    uint32_t wrong; /* that differ from what their readings give */
};

static enum err run_bits(struct store_connection *connection, void *context)
{
    struct bits *bits = context;
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare(connection,
                                 "SELECT series, width_ms, start_ms, count, sum, min, max, last"
                                 " FROM rollups ORDER BY width_ms, start_ms",
                                 &statement);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        struct store_rollup stored = {.count = (uint64_t)store_column_i64(statement, 3),
                                      .sum = store_column_double(statement, 4),
                                      .min = store_column_double(statement, 5),
                                      .max = store_column_double(statement, 6),
                                      .last = store_column_double(statement, 7)};
        struct store_rollup fresh = {.count = 0};
        uint32_t width = 0;
        while (store_rollup_widths_ms[width] != store_column_i64(statement, 1)) {
            width++;
        }
        err = store_rollup_compute(connection, ORG, (uint64_t)store_column_i64(statement, 0), width,
                                   store_column_i64(statement, 2), &fresh);
        /* Bits are what is promised, and between the members there are none. */
        static_assert(sizeof(stored) == 5 * sizeof(uint64_t), "no padding");
        /* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison) */
        bits->wrong += memcmp(&stored, &fresh, sizeof(stored)) != 0;
        bits->hash = hash_xxh3(&stored, sizeof(stored), bits->hash);
        bits->count++;
    }
    return err;
}

/* Writes the readings in an order of its own, in parts, with refreshes between, and gives the bits.
 */
static struct bits bits_of_order(const double *values, const int64_t *times, uint32_t count)
{
    struct bits bits = {.hash = 0};
    uint32_t order[ROWS_MAX];
    assert_int_equal(store_fixture_sql(&plant.store, "DELETE FROM rollups"), ERR_OK);
    assert_int_equal(store_fixture_sql(&plant.store, "DELETE FROM readings"), ERR_OK);
    for (uint32_t i = 0; i < count; i++) {
        order[i] = i;
    }
    for (uint32_t i = count - 1; i > 0; i--) {
        uint32_t n = (uint32_t)rand() % (i + 1);
        uint32_t other = order[n];
        order[n] = order[i];
        order[i] = other;
    }
    for (uint32_t from = 0; from < count;) {
        uint32_t to = from + 1 + (uint32_t)rand() % 100;
        plant.count = 0;
        for (; from < to && from < count; from++) {
            (void)add("v", values[order[from]], times[order[from]], 1);
        }
        write_rows();
        if (rand() % 2 == 0) {
            assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
        }
    }
    assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
    assert_int_equal(store_fixture_run(&plant.store, run_bits, &bits), ERR_OK);
    return bits;
}

static void test_rollups_have_the_same_bits_in_any_order(void **state)
{
    (void)state;
    static double values[ROWS_MAX];
    static int64_t times[ROWS_MAX];
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (uint32_t i = 0; i < ROWS_MAX; i++) {
        values[i] = (double)rand() / 7.0;
        times[i] = NOW - 2 * DAY_MS + (int64_t)i * 200000 + rand() % 200000;
    }
    struct bits first = bits_of_order(values, times, ROWS_MAX);
    struct bits second = bits_of_order(values, times, ROWS_MAX);
    assert_true(first.count > 4);
    assert_int_equal(first.wrong, 0);
    assert_int_equal(second.wrong, 0);
    assert_int_equal(first.hash, second.hash);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT count(*) FROM rollup_dirty"), 0);
}

static void test_rollups_by_arithmetic(void **state)
{
    (void)state;
    int64_t hour = store_rollup_start(NOW, 3600000);
    assert_int_equal(hour % 3600000, 0);
    assert_int_equal(store_rollup_start(-1, 60000), -60000);
    plant.count = 0;
    (void)add("v", 1, hour, 1);
    (void)add("v", 2.5, hour + 59999, 1);
    (void)add("v", -4, hour + 60000, 1);
    (void)add("v", 8, hour + 299999, 1);
    (void)add("v", 16, hour + 300000, 1);
    add("v", 0, hour + 300001, 1)->has_value = false;
    write_rows();
    assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
    static const struct {
        const char *sql;
        int64_t expected;
    } sums[] = {
        {"SELECT count(*) FROM rollups WHERE width_ms = 60000", 4},
        {"SELECT count(*) FROM rollups WHERE width_ms = 300000", 2},
        {"SELECT count FROM rollups WHERE width_ms = 3600000", 5},
        {"SELECT CAST(sum * 2 AS bigint) FROM rollups WHERE width_ms = 3600000", 47},
        {"SELECT CAST(min AS bigint) FROM rollups WHERE width_ms = 86400000", -4},
        {"SELECT CAST(max AS bigint) FROM rollups WHERE width_ms = 86400000", 16},
        {"SELECT CAST(last AS bigint) FROM rollups WHERE width_ms = 300000 ORDER BY start_ms LIMIT "
         "1",
         8},
    };
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        assert_int_equal(store_fixture_number(&plant.store, sums[i].sql), sums[i].expected);
    }
    /* A value that is taken away again leaves no bucket. */
    plant.count = 0;
    add("v", 0, hour + 300000, 2)->has_value = false;
    write_rows();
    assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
    assert_int_equal(store_fixture_number(&plant.store, sums[1].sql), 1);
    assert_int_equal(store_fixture_number(&plant.store, sums[2].sql), 4);
}

/* The largest number is 2^1024 - 2^971; two minutes above it, one below its opposite, and what is
 * added to each other later has a sum all the same. */
static void test_a_sum_has_bounds(void **state)
{
    (void)state;
    int64_t hour = store_rollup_start(NOW, 3600000);
    plant.count = 0;
    for (int64_t i = 0; i < 6; i++) {
        (void)add("v", i < 4 ? 0x1p1023 : -0x1p1023, hour + i * 30000, 1);
    }
    write_rows();
    assert_int_equal(store_fixture_run(&plant.store, run_refresh, NULL), ERR_OK);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT count(*) FROM rollups"
                                                        " WHERE width_ms = 60000"
                                                        " AND abs(sum) > 1.7976931348623156e308"),
                     3);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT CAST(sum AS bigint) FROM rollups"
                                                        " WHERE width_ms = 300000"),
                     0);
    assert_int_equal(store_fixture_number(&plant.store, "SELECT count(*) FROM rollup_dirty"), 0);
}

/* --- silence ------------------------------------------------------------------------------- */

static enum err run_silent(struct store_connection *connection, void *context)
{
    (void)context;
    return store_find_silent(connection, plant.now_ms, 10, on_device, NULL, &plant.due_ms);
}

static uint32_t look(int64_t now_ms)
{
    uint32_t before = plant.change_count;
    plant.now_ms = now_ms;
    assert_int_equal(store_fixture_run(&plant.store, run_silent, NULL), ERR_OK);
    return plant.change_count - before;
}

static void test_silence_is_told_once(void **state)
{
    (void)state;
    assert_int_equal(look(NOW), 0); /* never heard of: nobody misses it */
    assert_int_equal(plant.due_ms, INT64_MAX);
    assert_int_equal(write_one("v", 1, NOW, 1), STORE_READING_STORED);
    assert_int_equal(look(NOW + 179999), 0);
    assert_int_equal(plant.due_ms, NOW + 180000); /* three intervals of 60 s */
    assert_int_equal(look(NOW + 180000), 1);
    assert_int_equal(plant.changes[0].back_ms, 0);
    assert_int_equal(plant.changes[0].last_received_ms, NOW);
    assert_int_equal(look(NOW + 999999), 0);
    /* What comes late from before does not bring it back; what is new does, once. */
    assert_int_equal(write_one("v", 1, NOW - 5, 2), STORE_READING_STORED);
    assert_int_equal(plant.change_count, 1);
    plant.count = 0;
    add("v", 2, NOW, 3)->received_ms = NOW + 200000;
    write_rows();
    assert_int_equal(plant.change_count, 2);
    assert_int_equal(plant.changes[1].back_ms, NOW + 200000);
    assert_int_equal(plant.changes[1].silent_ms, NOW + 180000);
    write_rows();
    assert_int_equal(plant.change_count, 2);
    assert_int_equal(look(NOW + 380000), 1);
}

static enum err run_due(struct store_connection *connection, void *context)
{
    return store_device_due(connection, ORG, context);
}

static enum err run_all_due(struct store_connection *connection, void *context)
{
    return store_devices_due(connection, ORG, 2, context);
}

static enum err run_orgs_due(struct store_connection *connection, void *context)
{
    return store_orgs_due(connection, 2, context);
}

/* How many parts of two it took; whoever began may have been another. */
static uint32_t all_due(void)
{
    bool has_more = true;
    uint32_t count = 0;
    set_org("due_after = 0");
    for (; has_more; count++) {
        enum err (*run)(struct store_connection * connection, void *context) =
            count % 2 == 0 ? run_all_due : run_orgs_due;
        assert_int_equal(store_fixture_run(&plant.store, run, &has_more), ERR_OK);
    }
    assert_int_equal(store_fixture_run(&plant.store, run_orgs_due, &has_more), ERR_OK);
    assert_false(has_more);
    return count;
}

static void test_silence_is_what_the_org_says(void **state)
{
    (void)state;
    const int64_t hour = 3600000;
    uint8_t other[16] = {1};
    set_org("silence_hours = 2");
    assert_int_equal(write_one("v", 1, NOW, 1), STORE_READING_STORED);
    assert_int_equal(look(NOW + 2 * hour - 1), 0);
    assert_int_equal(plant.due_ms, NOW + 2 * hour);
    /* A change: of another device it changes nothing. */
    set_org("silence_hours = 1");
    assert_int_equal(store_fixture_run(&plant.store, run_due, other), ERR_OK);
    assert_int_equal(look(NOW), 0);
    assert_int_equal(plant.due_ms, NOW + 2 * hour);
    assert_int_equal(store_fixture_run(&plant.store, run_due, plant.device.bytes), ERR_OK);
    assert_int_equal(look(NOW), 0);
    assert_int_equal(plant.due_ms, NOW + hour);
    set_org("silence_hours = 0");
    assert_int_equal(all_due(), 1);
    assert_int_equal(look(NOW + 36500 * DAY_MS), 0);
    assert_int_equal(write_one("v", 1, NOW, 2), STORE_READING_STORED);
    assert_int_equal(look(NOW + 36500 * DAY_MS), 0);
    set_org("silence_hours = NULL");
    assert_int_equal(all_due(), 1);
    assert_int_equal(look(NOW + 179999), 0);
    assert_int_equal(look(NOW + 180000), 1);
}

/* Each device once, in parts; those of another org are left alone. */
static void test_a_change_of_the_org_goes_in_parts(void **state)
{
    (void)state;
    for (uint32_t device = 1; device <= 6; device++) {
        char sql[200];
        (void)snprintf(sql, sizeof(sql),
                       "INSERT INTO device_states (org, device, last_received_ms, last_time_ms,"
                       " due_ms, silent_ms) VALUES (%d, %u, 0, 0, 7, 0)",
                       device == 4 ? ORG + 1 : ORG, device * 1000);
        assert_int_equal(store_fixture_sql(&plant.store, sql), ERR_OK);
        (void)snprintf(sql, sizeof(sql),
                       "INSERT INTO devices (number, org, id, site, name, status, interval_s,"
                       " created_ms, updated_ms) VALUES (%u, %d, x'%032x', 1, 'n%u', 'active', 60,"
                       " 0, 0)",
                       device * 1000, ORG, device, device);
        assert_int_equal(store_fixture_sql(&plant.store, sql), ERR_OK);
    }
    set_org("silence_hours = 1");
    assert_int_equal(all_due(), 3); /* two, two and one */
    assert_int_equal(store_fixture_number(&plant.store,
                                          "SELECT count(*) FROM device_states WHERE due_ms ="
                                          " 3600000"),
                     5);
    assert_int_equal(
        store_fixture_number(&plant.store, "SELECT device FROM device_states WHERE due_ms = 7"),
        4000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_a_lower_position_never_overwrites, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_does_not_fit_leaves_no_row, setup, teardown),
        cmocka_unit_test_setup_teardown(test_policies_mark_what_they_keep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rollups_have_the_same_bits_in_any_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_rollups_by_arithmetic, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_sum_has_bounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(test_silence_is_what_the_org_says, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_change_of_the_org_goes_in_parts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_late_is_what_the_org_says, setup, teardown),
    };
    assert_int_equal(hash_start(), ERR_OK);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
