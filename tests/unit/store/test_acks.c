/* Promise: acknowledged events are ranges that never touch nor overlap, whatever the order of
 * acknowledging, and a number that was used up by a duplicate parts no range.
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

#define EVENTS 64u

static int setup(void **state)
{
    static struct store_fixture fixture;
    store_fixture_init(&fixture);
    store_fixture_open(&fixture, false);
    store_fixture_add_org(&fixture, 1);
    store_fixture_add_org(&fixture, 2);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    store_fixture_finish(*state);
    return 0;
}

/* Rows with the numbers whose bit is set, in both orgs. */
static void put_events(struct store_fixture *fixture, uint64_t bits)
{
    char sql[256];
    for (uint32_t i = 0; i < EVENTS; i++) {
        for (uint64_t org = 1; org <= 2 && (bits >> i & 1u) != 0; org++) {
            unsigned long long sequence = store_sequence_first(org) + 1 + i;
            (void)snprintf(sql, sizeof(sql),
                           "INSERT INTO events (id, sequence, position, type, payload, "
                           "occurred_ms, created_ms) VALUES (x'%032x', %llu, 1, 'a', '1', 1, 1)",
                           i, sequence);
            if (fixture->is_postgres) {
                (void)snprintf(sql, sizeof(sql),
                               "INSERT INTO events (org, id, sequence, position, type, payload, "
                               "occurred_ms, created_ms) VALUES (%llu, '%032x', %llu, 1, 'a', "
                               "'1', 1, 1)",
                               (unsigned long long)org, i, sequence);
            }
            assert_int_equal(store_fixture_sql(fixture, sql), ERR_OK);
        }
    }
}

struct ack {
    uint64_t sequence;
    bool was;
};

static enum err run_ack(struct store_connection *connection, void *context)
{
    struct ack *ack = context;
    return store_event_acknowledge(connection, ack->sequence, &ack->was);
}

static bool acknowledge(struct store_fixture *fixture, uint64_t sequence)
{
    struct ack ack = {.sequence = sequence};
    assert_int_equal(store_fixture_run(fixture, run_ack, &ack), ERR_OK);
    return ack.was;
}

static void test_neighbours_join(void **state)
{
    struct store_fixture *fixture = *state;
    uint64_t first = store_sequence_first(1) + 1;
    put_events(fixture, 0xff);
    assert_false(acknowledge(fixture, first + 1));
    assert_false(acknowledge(fixture, first + 3));
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_acks"), 2);
    assert_false(acknowledge(fixture, first + 2));
    assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_acks"), 1);
    assert_true(acknowledge(fixture, first + 2));
    assert_int_equal(store_fixture_number(fixture, "SELECT first_sequence FROM event_acks"),
                     (int64_t)first + 1);
    assert_int_equal(store_fixture_number(fixture, "SELECT last_sequence FROM event_acks"),
                     (int64_t)first + 3);
}

static void test_gaps_part_nothing_and_orgs_do(void **state)
{
    struct store_fixture *fixture = *state;
    put_events(fixture, 0x8000000000000011u); /* numbers 0, 4 and 63 */
    for (uint64_t org = 1; org <= 2; org++) {
        uint64_t first = store_sequence_first(org) + 1;
        assert_false(acknowledge(fixture, first + 63));
        assert_false(acknowledge(fixture, first));
        assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_acks"),
                         (int64_t)org + 1);
        assert_false(acknowledge(fixture, first + 4));
        assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_acks"),
                         (int64_t)org);
    }
}

/* Against a set of bits, in random order. The seed is printed. */
static void test_random_orders_agree_with_a_set(void **state)
{
    struct store_fixture *fixture = *state;
    uint64_t seed = 0;
    uint64_t bits = 0;
    uint64_t acked = 0;
    uint64_t first = store_sequence_first(1) + 1;
    hash_random(&seed, sizeof(seed));
    hash_random(&bits, sizeof(bits));
    print_message("seed %llu bits %llx\n", (unsigned long long)seed, (unsigned long long)bits);
    put_events(fixture, bits);
    for (uint32_t round = 0; round < 200; round++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        uint32_t i = (uint32_t)(seed >> 58u);
        if ((bits >> i & 1u) == 0) {
            continue;
        }
        assert_int_equal(acknowledge(fixture, first + i), acked >> i & 1u);
        acked |= 1ull << i;
        /* A range for each run of acknowledged ones among those that exist. */
        int64_t expected = 0;
        bool was = false;
        for (uint32_t k = 0; k < EVENTS; k++) {
            if ((bits >> k & 1u) != 0) {
                bool is = (acked >> k & 1u) != 0;
                expected += is && !was;
                was = is;
            }
        }
        assert_int_equal(store_fixture_number(fixture, "SELECT count(*) FROM event_acks"),
                         expected);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_neighbours_join, setup, teardown),
        cmocka_unit_test_setup_teardown(test_gaps_part_nothing_and_orgs_do, setup, teardown),
        cmocka_unit_test_setup_teardown(test_random_orders_agree_with_a_set, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
