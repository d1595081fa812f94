/* Promise: an event whose bytes lie in a spill says what it said before, in whatever order it is
 * asked for, and a batch of such events becomes the same rows as one in memory.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EVENTS = 3000, PAYLOAD_MAX = 400, LONGEST = 60000 };

/* What event number n says: computed again when it is looked at. */
struct said {
    uint8_t id[16];
    char dedup_id[32];
    char subject[32];
    char payload[LONGEST + 64];
    struct store_event event;
};

static unsigned seed;
static struct store_fixture fixture;
static struct store_packed packed[EVENTS];
static char path[128];

static void say(struct said *said, uint32_t number, const char *word)
{
    uint64_t mixed[2] = {(number + 1) * 0x9e3779b97f4a7c15u, ~(uint64_t)number};
    int size = number % 500 == 7 ? LONGEST : (int)(number * 31 % PAYLOAD_MAX);
    memcpy(said->id, mixed, sizeof(said->id));
    (void)snprintf(said->dedup_id, sizeof(said->dedup_id), "d%u", number);
    (void)snprintf(said->subject, sizeof(said->subject), "s%u", number % 10);
    (void)snprintf(said->payload, sizeof(said->payload), "\"%s %u %0*d\"", word, number, size, 0);
    said->event = (struct store_event){.type = slice_from_text(word),
                                       .payload = slice_from_text(said->payload),
                                       .dedup_id = slice_from_text(said->dedup_id),
                                       .subject = number % 3 == 0 ? slice_make(NULL, 0)
                                                                  : slice_from_text(said->subject),
                                       .id = said->id,
                                       .occurred_ms = number,
                                       .created_ms = 3600000LL * 10,
                                       .org = number % 2 == 0 ? 1 : 7,
                                       .position = 42};
}

static void assert_says(struct store_spill *spill, uint32_t number)
{
    static struct said said;
    struct store_event got;
    say(&said, number, "t");
    assert_int_equal(store_spill_unpack(spill, &packed[number], &got), ERR_OK);
    assert_memory_equal(got.id, said.id, 16);
    assert_true(slice_equal(got.payload, said.event.payload));
    assert_true(slice_equal(got.dedup_id, said.event.dedup_id));
    assert_true(slice_equal(got.subject, said.event.subject));
    assert_int_equal(got.subject.data == NULL, said.event.subject.data == NULL);
    assert_int_equal(got.occurred_ms, number);
    assert_int_equal(got.org, said.event.org);
}

static struct store_spill *make(void)
{
    struct store_spill *spill = NULL;
    assert_int_equal(store_spill_create(&spill, path), ERR_OK);
    assert_int_not_equal(access(path, F_OK), 0); /* nothing to clean up after a crash */
    return spill;
}

static void add_all(struct store_spill *spill)
{
    static struct said said;
    for (uint32_t i = 0; i < EVENTS; i++) {
        say(&said, i, "t");
        assert_int_equal(store_spill_add(spill, &said.event, &packed[i]), ERR_OK);
        assert_true(store_is_spilled(&packed[i]));
    }
}

static int setup(void **state)
{
    (void)state;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    store_fixture_add_org(&fixture, 1);
    store_fixture_add_org(&fixture, 7);
    (void)snprintf(path, sizeof(path), "%s/rows", fixture.directory);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store_fixture_finish(&fixture);
    return 0;
}

static void test_in_order_and_in_any(void **state)
{
    (void)state;
    struct store_spill *spill = make();
    for (int round = 0; round < 2; round++) {
        add_all(spill);
        assert_true(store_spill_bytes(spill) > EVENTS * 16);
        for (uint32_t i = 0; i < EVENTS; i++) {
            assert_says(spill, i);
        }
        for (uint32_t i = 0; i < EVENTS; i++) {
            assert_says(spill, (uint32_t)rand_r(&seed) % EVENTS);
        }
        store_spill_clear(spill);
        assert_int_equal(store_spill_bytes(spill), 0);
    }
    store_spill_destroy(spill);
}

static void test_one_in_memory_needs_none(void **state)
{
    (void)state;
    static struct said said;
    static uint8_t bytes[LONGEST];
    say(&said, 5, "t");
    assert_int_equal(store_pack(&packed[5], &said.event, bytes), ERR_OK);
    assert_says(NULL, 5);
}

static void test_what_is_too_large(void **state)
{
    (void)state;
    static uint8_t big[65536];
    struct store_packed untouched = {.position = 7};
    struct store_spill *spill = make();
    struct store_event event = {.id = big, .payload = slice_make(big, sizeof(big) - 16)};
    assert_int_equal(store_spill_add(spill, &event, &packed[0]), ERR_OK);
    event.payload.size++;
    assert_int_equal(store_spill_add(spill, &event, &untouched), ERR_TOO_LARGE);
    assert_int_equal(untouched.position, 7);
    store_spill_destroy(spill);
}

static void test_no_place_for_it(void **state)
{
    (void)state;
    struct store_spill *spill = NULL;
    char nowhere[160];
    (void)snprintf(nowhere, sizeof(nowhere), "%s/no/rows", fixture.directory);
    assert_int_equal(store_spill_create(&spill, nowhere), ERR_NOT_FOUND);
    assert_null(spill);
}

static enum err insert_part(struct store_connection *connection, void *context)
{
    return store_insert_packed(connection, context, false);
}

/* As test_events.c says of events in memory: of equal ids the first stays, the others are told. */
static void test_rows_and_duplicates(void **state)
{
    (void)state;
    static struct said said;
    if (fixture.is_postgres) {
        return; /* batches there stay in memory */
    }
    struct store_spill *spill = make();
    struct store_part part = {packed, EVENTS, spill};
    add_all(spill);
    assert_int_equal(store_fixture_run(&fixture, insert_part, &part), ERR_OK);
    for (uint32_t i = 0; i < EVENTS; i++) {
        assert_int_equal(packed[i].state, STORE_EVENT_INSERTED);
        assert_int_equal(packed[i].sequence, ((i % 2 == 0 ? 1ull : 7ull) << 40u) + 1 + i / 2);
    }
    store_spill_clear(spill);
    for (uint32_t i = 0; i < 6; i++) { /* stored, stored with another payload; new, and its twins */
        static const uint32_t numbers[] = {4, 6, EVENTS, EVENTS, EVENTS, 2999};
        static const char *const words[] = {"t", "u", "t", "u", "t", "t"};
        say(&said, numbers[i], words[i]);
        assert_int_equal(store_spill_add(spill, &said.event, &packed[i]), ERR_OK);
    }
    part.count = 6;
    assert_int_equal(store_fixture_run(&fixture, insert_part, &part), ERR_OK);
    static const enum store_event_state expected[] = {STORE_EVENT_DUPLICATE, STORE_EVENT_CONFLICT,
                                                      STORE_EVENT_INSERTED,  STORE_EVENT_CONFLICT,
                                                      STORE_EVENT_DUPLICATE, STORE_EVENT_DUPLICATE};
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(packed[i].state, expected[i]);
    }
    store_spill_destroy(spill);
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM events"), EVENTS + 1);
    assert_int_equal(
        store_fixture_number(&fixture, "SELECT count(*) FROM events e JOIN event_ids i ON"
                                       " i.id = e.id AND i.sequence = e.sequence"
                                       " WHERE e.payload LIKE '\"t ' || e.occurred_ms || ' %'"
                                       " AND e.dedup_id = 'd' || e.occurred_ms AND e.type = 't'"),
        EVENTS + 1);
    assert_int_equal(store_fixture_number(&fixture, "SELECT count(*) FROM event_subjects s JOIN"
                                                    " events e ON e.sequence = s.sequence"
                                                    " WHERE e.occurred_ms % 3 <> 0"
                                                    " AND e.subject = 's' || (e.occurred_ms % 10)"),
                     EVENTS * 2 / 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_in_order_and_in_any, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_in_memory_needs_none, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_too_large, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_place_for_it, setup, teardown),
        cmocka_unit_test_setup_teardown(test_rows_and_duplicates, setup, teardown),
    };
    seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
