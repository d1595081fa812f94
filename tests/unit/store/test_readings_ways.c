/* Promise: many readings written by sets, on an engine that has that way, leave the same rows,
 * dirty minutes, device states, versions and verdicts as the same readings written row by row in
 * SQLite, and their roll-ups computed by sets are the same to the bit.
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

#define NOW         INT64_C(1700000040000) /* in November 2023 */
#define DAY_MS      INT64_C(86400000)
#define ORGS        2u
#define DEVICES     4u /* of each org */
#define ROWS_MAX    400u
#define BATCHES     40u
#define DUMP_BYTES  (4u << 20u)
#define CHANGES_MAX 64u

/* One store with the plant in it; ids are each store's own, names are the same. */
struct side {
    struct store_fixture store;
    struct id projects[ORGS];
    struct id sites[ORGS];
    struct id devices[ORGS][DEVICES];
    uint8_t ids[ROWS_MAX][48];
    struct store_reading rows[ROWS_MAX];
    size_t count;
    int64_t now_ms;
    struct store_rollup_place place;
    uint32_t limit; /* of dirty minutes that are taken at once */
    uint32_t done;
    char changes[CHANGES_MAX][96];
    uint32_t change_count;
    struct buffer dump;
};

static struct side sides[2];

static enum err run_registry(struct store_connection *connection, void *context)
{
    static const char *const policies[] = {"reject", "clamp", "flag"};
    struct side *side = context;
    for (uint64_t org = 1; org <= ORGS; org++) {
        struct id project = registry_add(connection, MANAGE_PROJECT, org, "p", NULL);
        struct id site = registry_add(connection, MANAGE_SITE, org, "s", &project);
        side->projects[org - 1] = project;
        side->sites[org - 1] = site;
        for (size_t i = 0; i < DEVICES; i++) {
            char name[16];
            (void)snprintf(name, sizeof(name), "d%u.%zu", (unsigned)org, i);
            side->devices[org - 1][i] = registry_add(connection, MANAGE_DEVICE, org, name, &site);
        }
        for (size_t i = 0; i < 3; i++) {
            registry_add_bounded(connection, org, policies[i], &project);
        }
        (void)registry_add(connection, MANAGE_PARAMETER, org, "plain", &project);
    }
    return ERR_OK;
}

static void open_side(struct side *side)
{
    store_fixture_init(&side->store);
    store_fixture_open(&side->store, false);
    for (uint64_t org = 1; org <= ORGS; org++) {
        store_fixture_add_org(&side->store, org);
    }
    assert_int_equal(store_fixture_sql(&side->store, "UPDATE orgs SET late_s = 7,"
                                                     " readings_from_ms = 1695000000000"
                                                     " WHERE number = 2"),
                     ERR_OK);
    assert_int_equal(store_fixture_run(&side->store, run_registry, side), ERR_OK);
    buffer_init(&side->dump, DUMP_BYTES);
}

static int setup(void **state)
{
    (void)state;
    memset(sides, 0, sizeof(sides));
    const char *server = getenv("WEIR_TEST_POSTGRES");
    char *url = server != NULL ? strdup(server) : NULL;
    assert_int_equal(unsetenv("WEIR_TEST_POSTGRES"), 0);
    open_side(&sides[0]);
    if (url != NULL) {
        assert_int_equal(setenv("WEIR_TEST_POSTGRES", url, 1), 0);
        free(url);
    }
    open_side(&sides[1]);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        store_fixture_finish(&sides[i].store);
        buffer_finish(&sides[i].dump);
    }
    return 0;
}

/* --- input -------------------------------------------------------------------------------------
 */

static uint32_t chance(uint32_t below)
{
    return (uint32_t)rand() % below;
}

static int64_t random_time(void)
{
    switch (chance(12)) {
    case 0:
        return NOW - 90 * DAY_MS - 1 - chance(1000);
    case 1:
        return NOW + DAY_MS + 1 + chance(1000);
    case 2:
        return NOW - (int64_t)chance(89) * DAY_MS;
    default:
        return NOW - (int64_t)chance(8) * 20000;
    }
}

/* Also such whose sum depends on the order, and is out of bounds. */
static double random_value(void)
{
    switch (chance(16)) {
    case 0:
        return chance(2) == 0 ? 1.6e308 : -1.6e308;
    case 1:
        return 0.0; /* SQLite keeps no negative one */
    default:
        return (double)chance(12000000) / 1000003.0 - 1.0;
    }
}

/* The same on both sides but for the ids, which are each side's own. */
static void add_row(void)
{
    static const char *const names[] = {"reject", "clamp", "flag", "plain",
                                        "plain",  "none",  "n\0l"};
    static const char *const objects[] = {"{\"a\":1}", "{}", "{\"b\":[2]}"};
    uint64_t org = 1 + chance(ORGS);
    uint32_t device = chance(DEVICES);
    uint32_t stranger = chance(16);
    uint32_t name = chance(sizeof(names) / sizeof(names[0]));
    struct store_reading row = {.parameter = slice_from_text(names[name]),
                                .value = random_value(),
                                .has_value = chance(10) != 0,
                                .quality = (int16_t)(chance(3) == 0 ? -1 : (int)chance(256)),
                                .time_ms = random_time(),
                                .received_ms = NOW + chance(20000),
                                .org = org,
                                .position = 1 + chance(6)};
    if (name == 6) {
        row.parameter.size = 3;
    }
    row.source = chance(2) == 0 ? SLICE_LITERAL("GPRS") : slice_make(NULL, 0);
    row.event_id = chance(2) == 0 ? SLICE_LITERAL("e-1") : slice_make(NULL, 0);
    row.attributes = chance(2) == 0 ? slice_from_text(objects[chance(3)]) : slice_make(NULL, 0);
    row.message_attributes =
        chance(2) == 0 ? slice_from_text(objects[chance(3)]) : slice_make(NULL, 0);
    for (size_t i = 0; i < 2; i++) {
        struct side *side = &sides[i];
        uint8_t *ids = side->ids[side->count];
        memset(ids, 0, 48);
        uint64_t from = stranger == 0 ? ORGS - org : org - 1; /* another org's device */
        memcpy(ids, side->devices[from][device].bytes, 16);
        if (stranger == 1) {
            ids[3] ^= 1u; /* nobody's */
        } else if (stranger == 2) {
            ids[20] = 1; /* another project */
        } else if (stranger < 8) {
            memcpy(ids + 16, side->projects[org - 1].bytes, 16);
            memcpy(ids + 32, side->sites[org - 1].bytes, 16);
        }
        row.ids = ids;
        side->rows[side->count++] = row;
    }
}

/* --- writing -----------------------------------------------------------------------------------
 */

static enum err on_device(struct store_connection *connection,
                          const struct store_device_change *change, void *context)
{
    (void)connection;
    struct side *side = context;
    assert_true(side->change_count < CHANGES_MAX);
    (void)snprintf(side->changes[side->change_count++], sizeof(side->changes[0]),
                   "%.*s %lld %lld %lld", (int)change->name.size, (const char *)change->name.data,
                   (long long)change->last_received_ms, (long long)change->silent_ms,
                   (long long)change->back_ms);
    return ERR_OK;
}

static enum err run_write(struct store_connection *connection, void *context)
{
    struct side *side = context;
    return store_write_readings(connection, side->rows, side->count, false, on_device, side);
}

static enum err run_silent(struct store_connection *connection, void *context)
{
    struct side *side = context;
    int64_t due_ms = 0;
    return store_find_silent(connection, side->now_ms, 100, on_device, side, &due_ms);
}

static enum err run_refresh(struct store_connection *connection, void *context)
{
    struct side *side = context;
    enum err err = ERR_OK;
    do {
        err = store_rollups_refresh(connection, side->limit, &side->place, &side->done);
    } while (err == ERR_OK && side->done == side->limit);
    return err;
}

/* --- comparing ---------------------------------------------------------------------------------
 */

/* Texts, then numbers of which each bit counts. */
static enum err dump_rows(struct store_connection *connection, const char *sql, int texts,
                          int numbers, struct buffer *to)
{
    struct store_statement *statement = NULL;
    bool has_row = true;
    enum err err = store_prepare_text(connection, slice_from_text(sql), &statement);
    while (err == ERR_OK && (err = store_step(statement, &has_row)) == ERR_OK && has_row) {
        for (int i = 0; i < texts && err == ERR_OK; i++) {
            struct slice bytes = store_column_bytes(statement, i);
            err = store_column_is_null(statement, i)
                      ? buffer_append_text(to, " -")
                      : buffer_printf(to, " %.*s", (int)bytes.size, (const char *)bytes.data);
        }
        for (int i = texts; i < texts + numbers && err == ERR_OK; i++) {
            err = store_column_is_null(statement, i)
                      ? buffer_append_text(to, " -")
                      : buffer_printf(to, " %a", store_column_double(statement, i));
        }
        if (err == ERR_OK) {
            err = buffer_append_byte(to, '\n');
        }
    }
    return err;
}

static enum err run_dump(struct store_connection *connection, void *context)
{
    static const struct {
        const char *sql;
        int texts;
        int numbers;
    } tables[] = {
        {"SELECT d.name, p.name_key, CAST(r.time_ms AS text), CAST(r.quality AS text),"
         " CAST(r.flags AS text), r.source, r.event_id, r.attributes,"
         " CAST(r.received_ms AS text), CAST(r.position AS text), r.value FROM readings r"
         " JOIN series s ON s.number = r.series JOIN devices d ON d.number = s.device"
         " JOIN parameters p ON p.number = s.parameter ORDER BY d.name, p.name_key, r.time_ms",
         10, 1},
        {"SELECT d.name, p.name_key, CAST(r.width_ms AS text), CAST(r.start_ms AS text),"
         " CAST(r.count AS text), r.sum, r.min, r.max, r.last FROM rollups r"
         " JOIN series s ON s.number = r.series JOIN devices d ON d.number = s.device"
         " JOIN parameters p ON p.number = s.parameter"
         " ORDER BY d.name, p.name_key, r.width_ms, r.start_ms",
         5, 4},
        {"SELECT d.name, p.name_key, CAST(r.start_ms AS text) FROM rollup_dirty r"
         " JOIN series s ON s.number = r.series JOIN devices d ON d.number = s.device"
         " JOIN parameters p ON p.number = s.parameter ORDER BY d.name, p.name_key, r.start_ms",
         3, 0},
        {"SELECT d.name, CAST(t.last_received_ms AS text), CAST(t.last_time_ms AS text),"
         " CAST(t.due_ms AS text), CAST(t.silent_ms AS text) FROM device_states t"
         " JOIN devices d ON d.number = t.device ORDER BY d.name",
         5, 0},
        {"SELECT CAST(number AS text), CAST(data_version AS text) FROM orgs ORDER BY number", 2, 0},
        {"SELECT CAST(count(*) AS text) FROM series", 1, 0},
    };
    struct side *side = context;
    enum err err = ERR_OK;
    buffer_clear(&side->dump);
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]) && err == ERR_OK; i++) {
        err = dump_rows(connection, tables[i].sql, tables[i].texts, tables[i].numbers, &side->dump);
    }
    return err;
}

static int change_compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void compare(uint32_t batch)
{
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(store_fixture_run(&sides[i].store, run_dump, &sides[i]), ERR_OK);
        qsort(sides[i].changes, sides[i].change_count, sizeof(sides[i].changes[0]), change_compare);
    }
    for (size_t i = 0; i < sides[0].count; i++) {
        const struct store_reading *a = &sides[0].rows[i];
        const struct store_reading *b = &sides[1].rows[i];
        if (a->state != b->state || a->flags != b->flags) {
            fail_msg("batch %u, reading %zu: %s and %s", batch, i, store_reading_reason(a->state),
                     store_reading_reason(b->state));
        }
    }
    assert_int_equal(sides[0].change_count, sides[1].change_count);
    assert_memory_equal(sides[0].changes, sides[1].changes,
                        sides[0].change_count * sizeof(sides[0].changes[0]));
    assert_int_equal(sides[0].dump.size, sides[1].dump.size);
    assert_memory_equal(sides[0].dump.data, sides[1].dump.data, sides[0].dump.size);
}

static void test_both_ways_leave_the_same(void **state)
{
    (void)state;
    uint32_t seen[STORE_READING_REFUSED + 1] = {0};
    uint32_t changes = 0;
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u, on %s\n", seed, sides[1].store.is_postgres ? "PostgreSQL" : "SQLite");
    srand(seed);
    for (uint32_t batch = 0; batch < BATCHES; batch++) {
        uint32_t count = 1 + chance(batch % 4 == 0 ? 15 : ROWS_MAX);
        sides[0].count = 0;
        sides[1].count = 0;
        for (uint32_t i = 0; i < count; i++) {
            add_row();
        }
        /* A device speaks on, so that it may come back. */
        for (size_t i = 0; i < 2; i++) {
            sides[i].change_count = 0;
            for (size_t n = 0; n < sides[i].count; n++) {
                sides[i].rows[n].received_ms += (int64_t)batch * 100000;
                sides[i].rows[n].time_ms += (int64_t)batch * 100000;
            }
            sides[i].now_ms = NOW + (int64_t)batch * 100000 - 10000;
            assert_int_equal(store_fixture_run(&sides[i].store, run_write, &sides[i]), ERR_OK);
            if (batch % 3 == 0) {
                sides[i].limit = 1 + batch * 13;
                assert_int_equal(store_fixture_run(&sides[i].store, run_refresh, &sides[i]),
                                 ERR_OK);
                sides[i].now_ms += 400000;
                assert_int_equal(store_fixture_run(&sides[i].store, run_silent, &sides[i]), ERR_OK);
            }
        }
        compare(batch);
        changes += sides[0].change_count;
        for (size_t i = 0; i < sides[0].count; i++) {
            seen[sides[0].rows[i].state]++;
        }
    }
    /* All that can become of a reading was there. */
    for (size_t i = 0; i < STORE_READING_REFUSED; i++) {
        assert_true(seen[i] > 0);
    }
    assert_true(changes > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_both_ways_leave_the_same, setup, teardown),
    };
    assert_int_equal(hash_start(), ERR_OK);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
