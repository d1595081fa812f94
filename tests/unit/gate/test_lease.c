/* Promise: nodes that share a window never let it hold more than q + n * D, a node that shares with
 * nobody admits exactly the quota, and without answers a node limits by itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "gate/lease.h"

#define START_MS  (GATE_LEASE_CLOCK_MS + 1000000u)
#define LENGTH_MS 60000ull
#define NODES_MAX 6u

/* --- the keeper, by the words of decision 0011 ------------------------------------------------ */

struct keeper {
    uint64_t start_ms, current, previous;
};

static uint64_t keeper_used(const struct keeper *keeper, uint64_t now_ms)
{
    uint64_t age_ms = now_ms - keeper->start_ms;
    if (age_ms >= 2 * LENGTH_MS) {
        return 0;
    }
    if (age_ms >= LENGTH_MS) {
        uint64_t faded = 2 * LENGTH_MS - age_ms;
        return (keeper->current * faded + LENGTH_MS - 1) / LENGTH_MS;
    }
    return keeper->current + (keeper->previous * (LENGTH_MS - age_ms) + LENGTH_MS - 1) / LENGTH_MS;
}

static void keeper_answer(struct keeper *keeper, uint64_t quota,
                          const struct gate_lease_verdict *asked, uint64_t now_ms,
                          struct gate_lease_answer *ret)
{
    uint64_t age_ms = now_ms - keeper->start_ms;
    if (age_ms >= LENGTH_MS) {
        keeper->previous = age_ms < 2 * LENGTH_MS ? keeper->current : 0;
        keeper->current = 0;
        keeper->start_ms += LENGTH_MS;
    }
    if (keeper->current == 0 && keeper->previous == 0) {
        keeper->start_ms = now_ms;
    }
    if (keeper->start_ms == asked->bucket) {
        assert_true(asked->give_back <= keeper->current); /* nobody else's */
        keeper->current -= asked->give_back;
    }
    keeper->current += asked->charge;
    uint64_t used = keeper_used(keeper, now_ms);
    uint64_t rest = used < quota ? quota - used : 0;
    uint64_t granted = (rest + 3) / 4 < asked->ask ? (rest + 3) / 4 : asked->ask;
    keeper->current += granted;
    *ret = (struct gate_lease_answer){.granted = granted,
                                      .bucket = keeper->start_ms,
                                      .age_ms = now_ms - keeper->start_ms,
                                      .current = keeper->current,
                                      .previous = keeper->previous};
}

/* --- one node ------------------------------------------------------------------------------- */

struct node {
    struct gate_lease lease;
    bool is_asked;      /* an answer is on its way */
    uint64_t answer_ms; /* when it is made and told */
    struct gate_lease_verdict asked;
    uint64_t asks;
};

static void node_note(struct node *node, const struct gate_lease_verdict *verdict)
{
    if (verdict->must_ask) {
        assert_false(node->is_asked);
        node->is_asked = true;
        node->asked = *verdict;
        node->asks++;
    }
}

static bool node_take(struct node *node, uint64_t quota, uint64_t amount, uint64_t now_ms,
                      struct gate_lease_verdict *ret)
{
    const struct gate_window_rule rule = {.quota = quota, .length_ms = LENGTH_MS};
    gate_lease_step(&node->lease, &rule, amount, now_ms, ret);
    node_note(node, ret);
    return ret->window.is_admitted;
}

static void node_give_back(struct node *node, uint64_t quota, uint64_t amount, uint64_t since_ms,
                           uint64_t now_ms)
{
    const struct gate_window_rule rule = {.quota = quota, .length_ms = LENGTH_MS};
    const struct gate_lease_refund refund = {
        .amount = amount, .since_ms = since_ms, .now_ms = now_ms};
    struct gate_lease_verdict verdict;
    gate_lease_take_back(&node->lease, &rule, &refund, &verdict);
    node_note(node, &verdict);
}

static void node_answer(struct node *node, struct keeper *keeper, uint64_t quota, uint64_t now_ms)
{
    const struct gate_window_rule rule = {.quota = quota, .length_ms = LENGTH_MS};
    struct gate_lease_answer answer;
    struct gate_lease_verdict verdict;
    if (node->is_asked) {
        keeper_answer(keeper, quota, &node->asked, now_ms, &answer);
        gate_lease_on_answer(&node->lease, &rule, &answer, now_ms, &verdict);
        /* Neither a debt waits nor what is given back. */
        assert_true(verdict.must_ask || node->lease.uncharged + node->lease.returned == 0);
        node->is_asked = false;
        node->answer_ms = now_ms + 1;
        node_note(node, &verdict);
    }
}

static void test_one_node_admits_the_quota_exactly(void **state)
{
    (void)state;
    static const uint64_t quotas[] = {1, 2, 15, 16, 100, 1000, 100000};
    for (size_t i = 0; i < sizeof(quotas) / sizeof(quotas[0]); i++) {
        struct node node = {.asks = 0};
        struct keeper keeper = {.start_ms = START_MS};
        struct gate_lease_verdict verdict;
        uint64_t quota = quotas[i];
        for (uint64_t j = 1; j <= quota; j++) {
            assert_true(node_take(&node, quota, 1, START_MS + j % 7, &verdict));
            assert_int_equal(verdict.window.remaining, quota - j);
            node_answer(&node, &keeper, quota, START_MS + 7);
        }
        assert_false(node_take(&node, quota, 1, START_MS + 8, &verdict));
        assert_false(verdict.must_ask); /* a full window is known to be full */
        assert_int_equal(verdict.window.remaining, 0);
        assert_int_equal(keeper.current, quota);
        assert_true(quota < 1000 || node.asks * 4 < quota); /* most need no word */
    }
}

/* A busy node asks some 16 times a window and at its ends: once a lease is a sixteenth of the
 * quota, half of it is used between two askings, so at most 2 * 16, the six doublings before, and
 * the quarters near the end (log 4/3 of a sixteenth of 100000: 31). */
static void test_a_busy_node_asks_seldom(void **state)
{
    (void)state;
    struct node node = {.asks = 0};
    struct keeper keeper = {.start_ms = START_MS};
    struct gate_lease_verdict verdict;
    const uint64_t quota = 100000;
    uint64_t refused = 0;
    for (uint64_t i = 0; i < quota; i++) {
        refused += node_take(&node, quota, 1, START_MS + i / 100, &verdict) ? 0 : 1;
        node_answer(&node, &keeper, quota, START_MS + i / 100);
    }
    print_message("100,000 requests within a second: %u askings\n", (unsigned)node.asks);
    assert_int_equal(refused, 0);
    assert_true(node.asks <= 32 + 6 + 31);
}

/* What a burst meets before the first answer: the local share, at once, and no more. */
static void test_the_first_requests_do_not_wait(void **state)
{
    (void)state;
    struct node nodes[3] = {{.asks = 0}};
    struct keeper keeper = {.start_ms = START_MS};
    struct gate_lease_verdict verdict;
    const uint64_t quota = 1000;
    uint64_t admitted = 0;
    assert_int_equal(gate_lease_debt_max(quota), 250);
    for (size_t i = 0; i < 3; i++) {
        for (int j = 0; j < 400; j++) {
            admitted += node_take(&nodes[i], quota, 1, START_MS, &verdict) ? 1 : 0;
        }
        assert_int_equal(verdict.window.wait_ms, GATE_LEASE_LATE_MS);
        assert_int_equal(nodes[i].asks, 1);
    }
    assert_int_equal(admitted, 750);
    for (size_t i = 0; i < 3; i++) {
        node_answer(&nodes[i], &keeper, quota, START_MS + 1);
        assert_int_equal(nodes[i].asks, 2); /* without a further request */
        node_answer(&nodes[i], &keeper, quota, START_MS + 1);
    }
    assert_true(keeper.current >= 750); /* all of it is charged, and what was leased on top */
    assert_true(keeper_used(&keeper, START_MS + 1) <= quota + 750);
}

static void test_a_large_amount_goes_alone(void **state)
{
    (void)state;
    struct node node = {.asks = 0};
    struct keeper keeper = {.start_ms = START_MS};
    struct gate_lease_verdict verdict;
    const uint64_t quota = 1048576;
    assert_true(node_take(&node, quota, 1000000, START_MS, &verdict));
    assert_int_equal(verdict.charge, 1000000);
    assert_false(node_take(&node, quota, 1000000, START_MS, &verdict));
    node_answer(&node, &keeper, quota, START_MS);
    assert_true(node_take(&node, quota, 48576, START_MS, &verdict)); /* credit and rest together */
    assert_false(node_take(&node, quota, 1, START_MS, &verdict));
    assert_false(node_take(&node, quota, UINT64_MAX, START_MS, &verdict));
}

static void test_without_answers_a_node_is_alone(void **state)
{
    (void)state;
    const struct gate_window_rule rule = {.quota = 1000, .length_ms = LENGTH_MS};
    struct gate_lease lease = {.ask = 0};
    struct gate_lease_verdict verdict;
    uint64_t now_ms = START_MS;
    uint64_t admitted = 0;
    for (int i = 0; i < 2000; i++) {
        gate_lease_step(&lease, &rule, 1, now_ms, &verdict);
        admitted += verdict.window.is_admitted ? 1 : 0;
    }
    assert_int_equal(admitted, 250);
    now_ms += GATE_LEASE_LATE_MS; /* late: by itself, up to the quota */
    for (int i = 0; i < 2000; i++) {
        gate_lease_step(&lease, &rule, 1, now_ms, &verdict);
        admitted += verdict.window.is_admitted ? 1 : 0;
        assert_false(verdict.must_ask);
    }
    assert_int_equal(admitted, 1000);
    gate_lease_on_failure(&lease, now_ms);
    gate_lease_step(&lease, &rule, 1, now_ms + GATE_LEASE_RETRY_MS - 1, &verdict);
    assert_false(verdict.must_ask);
    gate_lease_step(&lease, &rule, 1, now_ms + GATE_LEASE_RETRY_MS, &verdict);
    assert_true(verdict.must_ask);
    assert_int_equal(verdict.charge, 1000); /* back: all that was used is told */
}

/* After a window and a half alone, what has faded is not told any more. */
static void test_old_use_is_not_told(void **state)
{
    (void)state;
    const struct gate_window_rule rule = {.quota = 1000, .length_ms = LENGTH_MS};
    struct gate_lease lease = {.ask = 0};
    struct gate_lease_verdict verdict;
    gate_lease_step(&lease, &rule, 200, START_MS, &verdict);
    gate_lease_on_failure(&lease, START_MS);
    gate_lease_step(&lease, &rule, 0, START_MS + LENGTH_MS + LENGTH_MS / 2, &verdict);
    assert_true(verdict.must_ask);
    assert_int_equal(verdict.charge, 100);
}

static void test_a_refund_can_be_used_again(void **state)
{
    (void)state;
    struct node node = {.asks = 0};
    struct keeper keeper = {.start_ms = START_MS};
    struct gate_lease_verdict verdict;
    assert_true(node_take(&node, 100, 1, START_MS, &verdict));
    node_answer(&node, &keeper, 100, START_MS); /* charged: what is given back becomes credit */
    for (int i = 0; i < 50; i++) {
        assert_true(node_take(&node, 100, 1, START_MS, &verdict));
        node_give_back(&node, 100, 1, START_MS, START_MS);
        node_answer(&node, &keeper, 100, START_MS);
    }
    (void)node_take(&node, 100, 0, START_MS, &verdict);
    assert_int_equal(verdict.window.remaining, 99);
}

/* Whatever of it is charged, being charged or owed when it comes back: all of the quota passes, and
 * the other node may have it. */
static void test_a_large_refund_goes_to_all(void **state)
{
    (void)state;
    const uint64_t quota = 1048576;
    for (uint32_t answers = 0; answers < 8; answers++) {
        struct node nodes[2] = {{.asks = 0}};
        struct keeper keeper = {.start_ms = START_MS};
        struct gate_lease_verdict verdict;
        assert_true(node_take(&nodes[0], quota, 200000, START_MS, &verdict));
        for (uint32_t i = 0; i < 3; i++) {
            if ((answers >> i & 1u) != 0) {
                node_answer(&nodes[0], &keeper, quota, START_MS + i);
            }
            if (i < 2) {
                (void)node_take(&nodes[0], quota, 10000, START_MS + i, &verdict);
            }
        }
        uint64_t used = 200000 + 10000 * 2;
        (void)node_take(&nodes[0], quota, 0, START_MS, &verdict);
        node_give_back(&nodes[0], quota, used, START_MS, START_MS + 3);
        for (uint32_t i = 0; i < 4; i++) {
            node_answer(&nodes[0], &keeper, quota, START_MS + 4 + i);
        }
        assert_false(nodes[0].is_asked);
        assert_int_equal(keeper.current, nodes[0].lease.credit); /* the rest is there for all */
        assert_true(nodes[0].lease.credit <= gate_lease_credit_max(quota));
        assert_true(node_take(&nodes[0], quota, quota - 1, START_MS + 9, &verdict));
        assert_true(node_take(&nodes[0], quota, 1, START_MS + 9, &verdict) ||
                    nodes[0].is_asked); /* at once, or when the answer has come */
    }
}

/* A use before the turn of the bucket stays charged, and so does what another node has charged. */
static void test_what_an_old_bucket_holds_is_not_given_back(void **state)
{
    (void)state;
    const uint64_t quota = 1000;
    struct node nodes[2] = {{.asks = 0}};
    struct keeper keeper = {.start_ms = START_MS};
    struct gate_lease_verdict verdict;
    uint64_t later_ms = START_MS + LENGTH_MS + 1;
    assert_true(node_take(&nodes[0], quota, 200, START_MS, &verdict));
    node_answer(&nodes[0], &keeper, quota, START_MS);
    assert_true(node_take(&nodes[1], quota, 100, later_ms, &verdict));
    node_answer(&nodes[1], &keeper, quota, later_ms);
    uint64_t current = keeper.current;
    node_give_back(&nodes[0], quota, 200, START_MS, later_ms);
    node_answer(&nodes[0], &keeper, quota, later_ms);
    assert_true(keeper.current >= current);
    assert_true(keeper.previous >= 200);
}

/* No answer comes while a body is given back: what it used is charged nowhere. */
static void test_a_refund_without_an_answer(void **state)
{
    (void)state;
    const uint64_t quota = 1000;
    struct node node = {.asks = 0};
    struct gate_lease_verdict verdict;
    assert_true(node_take(&node, quota, 100, START_MS, &verdict));
    assert_true(node_take(&node, quota, 20, START_MS, &verdict));
    node_give_back(&node, quota, 110, START_MS, START_MS);
    gate_lease_on_failure(&node.lease, START_MS);
    assert_int_equal(node.lease.uncharged, 10);
    (void)node_take(&node, quota, 0, START_MS, &verdict);
    assert_int_equal(verdict.window.remaining, 990);
}

/* An answer after the table forgot who asked, and a second failure: nothing happens. */
static void test_a_stray_answer_changes_nothing(void **state)
{
    (void)state;
    const struct gate_window_rule rule = {.quota = 100, .length_ms = LENGTH_MS};
    const struct gate_lease_answer answer = {.granted = 50, .current = 100};
    struct gate_lease lease = {.ask = 0};
    const struct gate_lease fresh = lease;
    struct gate_lease_verdict verdict;
    gate_lease_on_answer(&lease, &rule, &answer, START_MS, &verdict);
    assert_false(verdict.must_ask);
    gate_lease_on_failure(&lease, START_MS);
    assert_memory_equal(&lease, &fresh, sizeof(fresh));
}

/* --- the bound ------------------------------------------------------------------------------ */

static uint64_t random_below(uint64_t *seed, uint64_t below)
{
    *seed ^= *seed << 13u;
    *seed ^= *seed >> 7u;
    *seed ^= *seed << 17u;
    return *seed % below;
}

/* What a burst used, which may be given back. */
struct held {
    uint64_t amount;
    uint64_t in_first; /* part of it, in the first bucket */
    uint64_t since_ms;
};

static void held_end(struct node *node, struct held *held, uint64_t quota, bool is_kept,
                     uint64_t now_ms)
{
    if (!is_kept && held->amount > 0) {
        bool was_asked = node->is_asked;
        node_give_back(node, quota, held->amount, held->since_ms, now_ms);
        node->answer_ms = was_asked ? node->answer_ms : now_ms + 1;
    }
    *held = (struct held){.amount = 0};
}

/* Random bursts at n nodes, some of them given back later, each answer under way for less than
 * GATE_LEASE_LATE_MS. */
static void run_nodes(uint64_t *seed, uint32_t count, uint64_t quota)
{
    struct node nodes[NODES_MAX] = {{.asks = 0}};
    struct keeper keeper = {.start_ms = START_MS};
    struct gate_lease_verdict verdict;
    uint64_t bound = quota + count * gate_lease_debt_max(quota);
    uint64_t in_first_bucket = 0;
    uint64_t given_back = 0;
    struct held held[NODES_MAX] = {{.amount = 0}};
    for (uint64_t now_ms = START_MS; now_ms < START_MS + 4 * LENGTH_MS;
         now_ms += 1 + random_below(seed, 100)) {
        uint64_t owed = 0;
        for (uint32_t i = 0; i < count; i++) {
            if (nodes[i].is_asked && nodes[i].answer_ms <= now_ms) {
                node_answer(&nodes[i], &keeper, quota, now_ms);
            }
            bool is_kept = random_below(seed, 2) == 0;
            if (random_below(seed, 6) == 0) {
                given_back += is_kept ? 0 : held[i].in_first;
                held_end(&nodes[i], &held[i], quota, is_kept, now_ms);
            }
            uint64_t burst = random_below(seed, 8) == 0 ? random_below(seed, quota + 2) : 0;
            held[i].since_ms = held[i].amount == 0 ? now_ms : held[i].since_ms;
            for (uint64_t j = 0; j < burst; j++) {
                bool was_asked = nodes[i].is_asked;
                bool is_admitted = node_take(&nodes[i], quota, 1, now_ms, &verdict);
                nodes[i].answer_ms =
                    was_asked ? nodes[i].answer_ms : now_ms + random_below(seed, 99);
                bool is_first = is_admitted && now_ms < START_MS + LENGTH_MS;
                in_first_bucket += is_first ? 1 : 0;
                held[i].in_first += is_first ? 1 : 0;
                held[i].amount += is_admitted ? 1 : 0;
            }
            assert_true(nodes[i].lease.credit <= gate_lease_credit_max(quota));
            assert_true(nodes[i].lease.uncharged <= gate_lease_debt_max(quota));
            owed += nodes[i].lease.uncharged;
        }
        assert_true(keeper_used(&keeper, now_ms) + owed <= bound + 1); /* 1: rounded up */
    }
    assert_true(in_first_bucket > 0);
    /* What was let through and was kept. */
    assert_true(in_first_bucket - given_back <= (count == 1 ? quota : bound));
}

static void test_the_bound(void **state)
{
    (void)state;
    static const uint64_t quotas[] = {1, 3, 16, 100, 1000};
    uint64_t seed = (uint64_t)time(NULL) * 2654435761u + 1;
    const char *given = getenv("SEED");
    if (given != NULL) {
        seed = strtoull(given, NULL, 10);
    }
    print_message("SEED=%llu\n", (unsigned long long)seed);
    for (uint32_t round = 0; round < 40; round++) {
        for (size_t i = 0; i < sizeof(quotas) / sizeof(quotas[0]); i++) {
            run_nodes(&seed, 1 + round % NODES_MAX, quotas[i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_node_admits_the_quota_exactly),
        cmocka_unit_test(test_a_busy_node_asks_seldom),
        cmocka_unit_test(test_the_first_requests_do_not_wait),
        cmocka_unit_test(test_a_large_amount_goes_alone),
        cmocka_unit_test(test_without_answers_a_node_is_alone),
        cmocka_unit_test(test_old_use_is_not_told),
        cmocka_unit_test(test_a_refund_can_be_used_again),
        cmocka_unit_test(test_a_large_refund_goes_to_all),
        cmocka_unit_test(test_what_an_old_bucket_holds_is_not_given_back),
        cmocka_unit_test(test_a_refund_without_an_answer),
        cmocka_unit_test(test_a_stray_answer_changes_nothing),
        cmocka_unit_test(test_the_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
