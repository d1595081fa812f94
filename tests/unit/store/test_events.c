/* Promise: of equal ids the first event stays, every other event gets the next number of its org,
 * and one row that the engine refuses takes nothing else with it.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include "base/hash.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#define EVENTS_MAX 2000

struct insert {
    struct store_event events[EVENTS_MAX];
    uint8_t ids[EVENTS_MAX][16];
    size_t count;
    bool careful;
};

static int setup(void **state)
{
    static struct store_fixture fixture;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    store_fixture_add_org(&fixture, 1);
    store_fixture_add_org(&fixture, 7);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    store_fixture_finish(*state);
    return 0;
}

static enum err run_insert(struct store_connection *connection, void *context)
{
    struct insert *insert = context;
    return store_insert_events(connection, insert->events, insert->count, insert->careful);
}

/* `name` makes the id: equal names are equal ids. */
static void add(struct insert *insert, uint64_t org, uint32_t name, const char *type,
                const char *payload)
{
    assert_true(insert->count < EVENTS_MAX);
    uint8_t *id = insert->ids[insert->count];
    uint64_t mixed[2] = {name * 0x9e3779b97f4a7c15u, name ^ (org << 32u)};
    memcpy(id, mixed, 16);
    insert->events[insert->count++] = (struct store_event){.type = slice_from_text(type),
                                                           .payload = slice_from_text(payload),
                                                           .id = id,
                                                           .occurred_ms = 5,
                                                           .created_ms = 3600000LL * 10,
                                                           .org = org,
                                                           .position = 42};
}

static void test_sequences_count_per_org(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    insert = (struct insert){.count = 0};
    for (uint32_t i = 0; i < 100; i++) {
        add(&insert, i % 2 == 0 ? 1 : 7, i, "a.b", "{}");
    }
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    for (uint32_t i = 0; i < 100; i++) {
        assert_int_equal(insert.events[i].state, STORE_EVENT_INSERTED);
        assert_int_equal(insert.events[i].sequence,
                         ((i % 2 == 0 ? 1ull : 7ull) << 40u) + 1 + i / 2);
    }
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM events"), 100);
    assert_int_equal(
        store_fixture_number(fixture, "SELECT last_sequence FROM orgs WHERE number = 7"),
        (7ll << 40) + 50);
    assert_int_equal(
        store_fixture_number(fixture, "SELECT data_version FROM orgs WHERE number = 1"), 1);
    assert_int_equal(store_fixture_number(fixture, "SELECT last_sequence FROM event_hours "
                                                   "WHERE org = 1 AND hour = 10"),
                     (1ll << 40) + 50);
    /* The next batch goes on where this one ended. */
    insert.count = 0;
    add(&insert, 7, 5000, "a.b", "{}");
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(insert.events[0].sequence, (7ull << 40u) + 51);
}

static void test_first_of_equal_ids_stays(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    insert = (struct insert){.count = 0};
    add(&insert, 1, 1, "a", "{\"n\":1}");
    add(&insert, 1, 2, "a", "{\"n\":2}");
    add(&insert, 1, 1, "a", "{\"n\":1}");  /* again, within the batch */
    add(&insert, 1, 2, "a", "{\"n\":22}"); /* again, with something else */
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(insert.events[0].state, STORE_EVENT_INSERTED);
    assert_int_equal(insert.events[1].state, STORE_EVENT_INSERTED);
    assert_int_equal(insert.events[2].state, STORE_EVENT_DUPLICATE);
    assert_int_equal(insert.events[2].sequence, insert.events[0].sequence);
    assert_int_equal(insert.events[3].state, STORE_EVENT_CONFLICT);
    /* And over batches. */
    insert.count = 0;
    add(&insert, 1, 2, "a", "{\"n\":2}");
    add(&insert, 1, 1, "a", "{\"n\":9}");
    add(&insert, 1, 3, "a", "{\"n\":3}");
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(insert.events[0].state, STORE_EVENT_DUPLICATE);
    assert_int_equal(insert.events[1].state, STORE_EVENT_CONFLICT);
    assert_int_equal(insert.events[2].state, STORE_EVENT_INSERTED);
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM events"), 3);
    assert_int_equal(store_fixture_number(
                         fixture, "SELECT count(*) FROM events e JOIN event_ids i ON i.id = e.id "
                                  "AND i.sequence = e.sequence"),
                     3);
    assert_int_equal(
        store_fixture_number(fixture, "SELECT count(*) FROM events WHERE payload LIKE '%22%'"), 0);
}

/* What an erased event said is gone: nobody can tell that another one says something else. */
static void test_erased_is_no_conflict(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    insert = (struct insert){.count = 0};
    add(&insert, 1, 1, "a", "{\"n\":1}");
    add(&insert, 1, 2, "a", "{\"n\":2}");
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(store_fixture_sql(fixture, "UPDATE events SET payload = 'null', position = 0"
                                                " WHERE payload = '{\"n\":1}'"),
                     ERR_OK);
    insert.count = 0;
    add(&insert, 1, 1, "a", "{\"n\":1}");
    add(&insert, 1, 2, "a", "{\"n\":3}");
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(insert.events[0].state, STORE_EVENT_DUPLICATE);
    assert_int_equal(insert.events[1].state, STORE_EVENT_CONFLICT);
}

static void test_duplicates_only_change_nothing(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    insert = (struct insert){.count = 0};
    add(&insert, 1, 1, "a", "1");
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(insert.events[0].state, STORE_EVENT_DUPLICATE);
    assert_int_equal(
        store_fixture_number(fixture, "SELECT data_version FROM orgs WHERE number = 1"), 1);
}

static void test_refused_rows_do_not_stop_the_rest(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    insert = (struct insert){.count = 0};
    store_fixture_refuse(fixture, "NEW.type = 'bad'");
    for (uint32_t i = 0; i < 1000; i++) {
        bool is_bad = i == 0 || i == 333 || i == 334 || i == 999;
        add(&insert, i % 3 == 0 ? 7 : 1, i, is_bad ? "bad" : "good", "{}");
    }
    /* The second with a bad one's id is no duplicate, for the bad one is not there. */
    add(&insert, 1, 334, "good", "{}");
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_REFUSED);
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_ids"), 0);
    insert.careful = true;
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    for (uint32_t i = 0; i < 1001; i++) {
        bool is_bad = i == 0 || i == 333 || i == 334 || i == 999;
        assert_int_equal(insert.events[i].state,
                         is_bad ? STORE_EVENT_REFUSED : STORE_EVENT_INSERTED);
    }
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM events"), 997);
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_ids"), 997);
}

static void test_unknown_org_is_refused(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    insert = (struct insert){.count = 0};
    add(&insert, 3, 1, "a", "1");
    add(&insert, 1, 2, "a", "1");
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_REFUSED);
    insert.careful = true;
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(insert.events[0].state, STORE_EVENT_REFUSED);
    assert_int_equal(insert.events[1].state, STORE_EVENT_INSERTED);
}

static void test_every_member_is_kept(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    insert = (struct insert){.count = 0};
    add(&insert, 1, 1, "a", "{\"x\": [1,  2]}");
    struct store_event *event = &insert.events[0];
    event->subject = slice_from_text("person");
    event->source = slice_from_text("/shop");
    event->app = slice_from_text("web");
    event->dedup_id = slice_from_text("d-1");
    event->attributes = slice_from_text("{\"k\":1}");
    add(&insert, 1, 2, "a", "null");
    insert.events[1].subject = slice_from_text(""); /* empty is not absent */
    assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
    assert_int_equal(
        store_fixture_number(
            fixture, "SELECT count(*) FROM events e WHERE type = 'a' AND subject = 'person' AND "
                     "source = '/shop' AND app = 'web' AND dedup_id = 'd-1' AND attributes = "
                     "'{\"k\":1}' AND payload = '{\"x\": [1,  2]}' AND occurred_ms = 5 AND "
                     "created_ms = 36000000 AND position = 42 AND length(e.id) = 16"),
        1);
    assert_int_equal(
        store_fixture_number(fixture, "SELECT count(*) FROM events WHERE subject = '' AND source "
                                      "IS NULL AND app IS NULL AND dedup_id IS NULL AND "
                                      "attributes IS NULL"),
        1);
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_subjects"), 2);
    char sql[128];
    (void)snprintf(sql, sizeof(sql), "SELECT sequence FROM event_subjects WHERE key = %lld",
                   (long long)store_subject_key(1, slice_from_text("person")));
    assert_int_equal(store_fixture_number(fixture, sql), insert.events[0].sequence);
}

/* Against a plain model: a list of ids in order of arrival. The seed is printed. */
static void test_random_batches_agree_with_a_model(void **state)
{
    struct store_fixture *fixture = *state;
    static struct insert insert;
    static bool is_there[300];
    uint64_t seed = 0;
    hash_random(&seed, sizeof(seed));
    print_message("seed %llu\n", (unsigned long long)seed);
    memset(is_there, 0, sizeof(is_there));
    int64_t expected = 0;
    for (uint32_t round = 0; round < 50; round++) {
        insert = (struct insert){.careful = round % 2 == 0};
        bool is_first[60];
        for (uint32_t i = 0; i < 60; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            uint32_t name = (uint32_t)(seed >> 33u) % 300;
            add(&insert, 1, name, "a", "{}");
            is_first[i] = !is_there[name];
            is_there[name] = true;
            expected += is_first[i];
        }
        assert_int_equal(store_fixture_run(fixture, run_insert, &insert), ERR_OK);
        for (uint32_t i = 0; i < 60; i++) {
            assert_int_equal(insert.events[i].state,
                             is_first[i] ? STORE_EVENT_INSERTED : STORE_EVENT_DUPLICATE);
        }
    }
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM events"), expected);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sequences_count_per_org, setup, teardown),
        cmocka_unit_test_setup_teardown(test_first_of_equal_ids_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_erased_is_no_conflict, setup, teardown),
        cmocka_unit_test_setup_teardown(test_duplicates_only_change_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused_rows_do_not_stop_the_rest, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unknown_org_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_member_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_batches_agree_with_a_model, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
