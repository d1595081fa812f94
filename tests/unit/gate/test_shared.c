/* Promise: nodes that share a Redis share each org's and key's window within the stated bound;
 * without Redis each goes on alone, at once, and together again when it is back.
 * link: redis_server.c */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/metrics.h"
#include "base/thread.h"
#include "gate/lease.h"
#include "gate/shared.h"
#include "support/redis_server.h"

#define NODES        2u
#define WAIT_MS      60000u
#define BACK_MS      10000u
#define ORG_NAME     "weir:{00000000-0000-0000-0000-000000000007}:org:7"
#define ORG_KEY_NAME "weir:{00000000-0000-0000-0000-000000000007}:key:70"

struct node {
    struct gate_shared *shared;
    struct thread *thread;
};

static struct redis_server server;
static struct node nodes[NODES];

static void run(void *argument)
{
    gate_shared_run(argument);
}

static void node_start(struct node *node, const char *url)
{
    struct err_detail detail = {""};
    if (gate_shared_create(&node->shared, slice_from_text(url), &detail) != ERR_OK) {
        fail_msg("%s", detail.text);
    }
    assert_int_equal(gate_shared_connect(node->shared, &detail), ERR_OK);
    assert_int_equal(thread_start(&node->thread, "redis", run, node->shared), ERR_OK);
}

static void node_stop(struct node *node)
{
    if (node->shared != NULL) {
        gate_shared_stop(node->shared);
        thread_join(node->thread);
        gate_shared_destroy(node->shared);
        *node = (struct node){NULL, NULL};
    }
}

static void nodes_start(void)
{
    for (uint32_t i = 0; i < NODES; i++) {
        node_start(&nodes[i], server.url);
    }
}

/* A short rest between two looks; nothing is decided by its length. */
static void rest(void)
{
    (void)poll(NULL, 0, 1);
}

static struct gate_identity org_of(uint32_t requests, uint32_t key_requests)
{
    struct gate_identity identity = {.org = 7,
                                     .key = 70,
                                     .requests_per_minute = requests,
                                     .key_requests_per_minute = key_requests};
    identity.org_id.bytes[15] = 7;
    return identity;
}

static bool take(struct node *node, const struct gate_identity *identity, uint64_t amount,
                 struct gate_window *ret)
{
    struct gate_limits_request request = {
        .identity = identity, .amount = amount, .now_ms = clock_mono_ms()};
    return gate_shared_take(node->shared, &request, ret) == ERR_OK;
}

/* Until the node's answers are in: Redis has counted what it admitted. */
static void until_counted(const char *name, long long at_least)
{
    char command[128];
    (void)snprintf(command, sizeof(command), "HGET %s c", name);
    uint64_t deadline_ms = clock_mono_ms() + WAIT_MS;
    while (redis_server_number(&server, "DBSIZE") == 0 ||
           redis_server_number(&server, command) < at_least) {
        assert_true(clock_mono_ms() < deadline_ms);
        rest();
    }
}

static void until_health(struct node *node, bool is_up, uint64_t within_ms)
{
    uint64_t deadline_ms = clock_mono_ms() + within_ms;
    while ((gate_shared_health(node->shared) == ERR_OK) != is_up) {
        assert_true(clock_mono_ms() < deadline_ms);
        rest();
    }
}

static void test_two_nodes_share_a_window(void **state)
{
    (void)state;
    const uint64_t quota = 1000;
    const struct gate_identity identity = org_of(1000, 0);
    struct gate_window window;
    uint64_t admitted = 0;
    uint64_t started_ms = clock_mono_ms();
    redis_server_start(&server, NULL);
    nodes_start();
    /* Turn about, as a balancer sends; until both say that the window is full. */
    uint32_t refused = 0;
    while (refused < NODES) {
        refused = 0;
        for (uint32_t i = 0; i < NODES; i++) {
            bool is_admitted = take(&nodes[i], &identity, 1, &window);
            admitted += is_admitted ? 1 : 0;
            refused += !is_admitted && window.remaining == 0 ? 1 : 0;
            if (!is_admitted && window.remaining > 0) {
                rest(); /* an answer is under way */
            }
        }
        assert_true(clock_mono_ms() - started_ms < WAIT_MS);
    }
    print_message("two nodes, quota 1000: admitted %u\n", (unsigned)admitted);
    assert_true(admitted <= quota + NODES * gate_lease_debt_max(quota));
    assert_true(admitted >= quota - NODES * gate_lease_credit_max(quota));
    /* What a node used ahead of being told is charged without a further request. */
    until_counted(ORG_NAME, (long long)admitted);
}

/* All before the first answer, and then nothing more. */
static void test_a_first_burst_is_told_at_once(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(1000, 500);
    struct gate_window window;
    redis_server_start(&server, NULL);
    node_start(&nodes[0], server.url);
    for (uint32_t i = 0; i < 100; i++) {
        assert_true(take(&nodes[0], &identity, 1, &window));
    }
    until_counted(ORG_NAME, 100);
    until_counted(ORG_KEY_NAME, 100);
}

/* The failing twin: nodes of two Redis databases share nothing. */
static void test_nodes_of_two_databases_share_nothing(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(100, 0);
    struct gate_window window;
    char url[128];
    redis_server_start(&server, NULL);
    for (uint32_t i = 0; i < NODES; i++) {
        (void)snprintf(url, sizeof(url), "%s?db=%u", server.url, i + 1);
        node_start(&nodes[i], url);
        uint32_t admitted = 0;
        do {
            admitted += take(&nodes[i], &identity, 1, &window) ? 1 : 0;
            rest();
        } while (window.remaining > 0);
        assert_int_equal(admitted, 100);
    }
}

static void test_key_and_org_go_in_one_round_trip(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(1000, 500);
    struct gate_window window;
    redis_server_start(&server, NULL);
    node_start(&nodes[0], server.url);
    uint64_t before = metrics_total(METRIC_REDIS_LEASES);
    assert_true(take(&nodes[0], &identity, 1, &window));
    assert_string_equal(window.name, "key");
    assert_int_equal(window.remaining, 499);
    until_counted(ORG_NAME, 1);
    until_counted(ORG_KEY_NAME, 1);
    uint64_t deadline_ms = clock_mono_ms() + WAIT_MS;
    while (metrics_total(METRIC_REDIS_LEASES) == before) {
        assert_true(clock_mono_ms() < deadline_ms);
        rest();
    }
    assert_int_equal(metrics_total(METRIC_REDIS_LEASES), before + 1);
}

static void test_every_key_goes_by_itself(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(1000, 500);
    struct gate_window window;
    redis_server_start(&server, NULL);
    node_start(&nodes[0], server.url);
    assert_true(take(&nodes[0], &identity, 1, &window));
    until_counted(ORG_KEY_NAME, 1);
    until_counted(ORG_NAME, 1);
    assert_int_equal(redis_server_number(&server, "DBSIZE"), 2);
    for (int i = 0; i < 2; i++) {
        long long left_ms =
            redis_server_number(&server, i == 0 ? "PTTL " ORG_NAME : "PTTL " ORG_KEY_NAME);
        assert_true(left_ms > 60000 && left_ms <= 120000);
    }
}

static void test_a_dead_redis_leaves_each_alone(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(100, 0);
    struct gate_window window;
    redis_server_start(&server, NULL);
    nodes_start();
    until_health(&nodes[0], true, WAIT_MS);
    redis_server_kill(&server);
    until_health(&nodes[0], false, WAIT_MS);
    until_health(&nodes[1], false, WAIT_MS);
    for (uint32_t i = 0; i < NODES; i++) {
        uint32_t admitted = 0;
        uint64_t started_ms = clock_mono_ms();
        do {
            admitted += take(&nodes[i], &identity, 1, &window) ? 1 : 0;
            assert_true(clock_mono_ms() - started_ms < WAIT_MS);
            rest();
        } while (window.remaining > 0);
        assert_int_equal(admitted, 100); /* each its own hundred */
    }
    redis_server_start(&server, NULL);
    until_health(&nodes[0], true, BACK_MS);
    until_health(&nodes[1], true, BACK_MS);
}

/* What was used while Redis was away is told when it is back: nobody gets the quota again. */
static void test_use_while_alone_is_told_later(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(100, 0);
    struct gate_window window;
    redis_server_start(&server, NULL);
    node_start(&nodes[0], server.url);
    redis_server_kill(&server);
    until_health(&nodes[0], false, WAIT_MS);
    uint32_t admitted = 0;
    while (admitted < 60) {
        admitted += take(&nodes[0], &identity, 1, &window) ? 1 : 0;
        rest();
    }
    redis_server_start(&server, NULL);
    until_health(&nodes[0], true, BACK_MS);
    uint64_t deadline_ms = clock_mono_ms() + WAIT_MS;
    while (redis_server_number(&server, "DBSIZE") == 0) {
        (void)take(&nodes[0], &identity, 0, &window); /* reads the window: asks when it is time */
        assert_true(clock_mono_ms() < deadline_ms);
        rest();
    }
    assert_true(redis_server_number(&server, "HGET " ORG_NAME " c") >= 60);
}

/* Redis stands still (SIGSTOP): the limits do not. */
static void test_a_redis_that_hangs_holds_nobody(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(1000, 0);
    struct gate_window window;
    redis_server_start(&server, NULL);
    node_start(&nodes[0], server.url);
    until_health(&nodes[0], true, WAIT_MS);
    redis_server_signal(&server, SIGSTOP);
    uint32_t admitted = 0;
    uint64_t deadline_ms = clock_mono_ms() + WAIT_MS;
    while (admitted < 1000) { /* the whole quota, though no answer comes */
        admitted += take(&nodes[0], &identity, 1, &window) ? 1 : 0;
        assert_true(clock_mono_ms() < deadline_ms);
    }
    until_health(&nodes[0], false, WAIT_MS);
    redis_server_signal(&server, SIGCONT);
    until_health(&nodes[0], true, BACK_MS);
}

static void test_a_flushed_script_is_sent_again(void **state)
{
    (void)state;
    const struct gate_identity identity = org_of(1000, 0);
    struct gate_window window;
    redis_server_start(&server, NULL);
    node_start(&nodes[0], server.url);
    assert_true(take(&nodes[0], &identity, 1, &window));
    until_counted(ORG_NAME, 1);
    redisContext *context = redis_server_connect(&server);
    freeReplyObject(redisCommand(context, "SCRIPT FLUSH"));
    redisFree(context);
    uint32_t admitted = 1;
    while (admitted < 600) {
        admitted += take(&nodes[0], &identity, 1, &window) ? 1 : 0;
        rest();
    }
    until_counted(ORG_NAME, 600);
    assert_int_equal(gate_shared_health(nodes[0].shared), ERR_OK);
}

/* A Redis that refuses to write: as if it were away, and said so. */
static void test_a_full_redis_is_no_keeper(void **state)
{
    (void)state;
    static const char *const options[] = {"--maxmemory", "1", "--maxmemory-policy", "noeviction",
                                          NULL};
    const struct gate_identity identity = org_of(100, 0);
    struct gate_window window;
    redis_server_start(&server, options);
    node_start(&nodes[0], server.url);
    uint32_t admitted = 0;
    uint64_t deadline_ms = clock_mono_ms() + WAIT_MS;
    do {
        admitted += take(&nodes[0], &identity, 1, &window) ? 1 : 0;
        assert_true(clock_mono_ms() < deadline_ms);
        rest();
    } while (window.remaining > 0);
    assert_int_equal(admitted, 100);
    until_health(&nodes[0], false, WAIT_MS);
}

static void connect_with(const char *access, enum err expected)
{
    struct gate_shared *shared = NULL;
    struct err_detail detail = {""};
    char url[160];
    (void)snprintf(url, sizeof(url), "unix://%s%s", access, server.socket);
    assert_int_equal(gate_shared_create(&shared, slice_from_text(url), &detail), ERR_OK);
    assert_int_equal(gate_shared_connect(shared, &detail), expected);
    if (expected != ERR_OK) {
        assert_true(detail.text[0] != '\0');
        assert_null(strchr(detail.text, '\n'));
        assert_null(strstr(detail.text, "sesame"));
    }
    gate_shared_destroy(shared);
}

static void test_passwords(void **state)
{
    (void)state;
    static const char *const options[] = {"--requirepass", "open sesame", "--user", "weir", "on",
                                          ">sesame",       "~weir:*",     "+@all",  NULL};
    redis_server_start(&server, options);
    connect_with("", ERR_PERMISSION);
    connect_with(":sesame1@", ERR_PERMISSION);
    connect_with("weir:sesame1@", ERR_PERMISSION);
    connect_with(":open%20sesame@", ERR_OK);
    connect_with("weir:sesame@", ERR_OK);
}

static void test_a_missing_database_is_said(void **state)
{
    (void)state;
    struct gate_shared *shared = NULL;
    struct err_detail detail = {""};
    char url[160];
    redis_server_start(&server, NULL);
    (void)snprintf(url, sizeof(url), "%s?db=99", server.url);
    assert_int_equal(gate_shared_create(&shared, slice_from_text(url), &detail), ERR_OK);
    assert_int_equal(gate_shared_connect(shared, &detail), ERR_CONFIG);
    assert_non_null(strstr(detail.text, "out of range"));
    gate_shared_destroy(shared);
}

static int open_all(void **state)
{
    (void)state;
    metrics_open_row();
    redis_server_init(&server);
    return hash_start() == ERR_OK ? 0 : 1;
}

static int close_all(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < NODES; i++) {
        node_stop(&nodes[i]);
    }
    redis_server_finish(&server);
    return 0;
}

#define SHARED_TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SHARED_TEST(test_two_nodes_share_a_window),
        SHARED_TEST(test_a_first_burst_is_told_at_once),
        SHARED_TEST(test_nodes_of_two_databases_share_nothing),
        SHARED_TEST(test_key_and_org_go_in_one_round_trip),
        SHARED_TEST(test_every_key_goes_by_itself),
        SHARED_TEST(test_a_dead_redis_leaves_each_alone),
        SHARED_TEST(test_use_while_alone_is_told_later),
        SHARED_TEST(test_a_redis_that_hangs_holds_nobody),
        SHARED_TEST(test_a_flushed_script_is_sent_again),
        SHARED_TEST(test_a_full_redis_is_no_keeper),
        SHARED_TEST(test_passwords),
        SHARED_TEST(test_a_missing_database_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
