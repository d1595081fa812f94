/* Promise: whoever waits for a position is told when it is applied, however many orgs are tailed at
 * once; and who tails an org is told of its commits and of no other's.
 *
 * The file under test is included; what it asks of http and apply is answered here. */
#include "../../../src/api/live.c"

#include "base/hash.h"
#include "base/mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define MANY_ORGS 20000u

static uint64_t applied_position;
static uint64_t spooled; /* this position is in the spool; 0: none */
static uint64_t placed;  /* where it came to stand in the stream */
static uint32_t timers_set;
static uint32_t told;

uint64_t apply_position(const struct apply *apply)
{
    (void)apply;
    return applied_position;
}

bool journal_is_spooled(const struct journal *journal, uint64_t position)
{
    (void)journal;
    return position == spooled;
}

uint64_t journal_place(const struct journal *journal, uint64_t position)
{
    (void)journal;
    return position == spooled ? placed : position;
}

void http_request_set_timer(struct http_request *request, uint32_t ms)
{
    (void)request;
    timers_set += ms != 0;
}

void http_stream_end(struct http_request *request)
{
    (void)request;
}

void api_reply_problem(struct api_request *request, const struct http_problem *problem,
                       uint32_t retry_after_s)
{
    (void)request;
    (void)problem;
    (void)retry_after_s;
    fail_msg("nobody is refused here");
}

static void on_told(struct api_request *request)
{
    (void)request;
    told++;
}

static struct api *make_api(uint32_t loops)
{
    struct api *api = mem_alloc(sizeof(*api) + loops * sizeof(api->loops[0]));
    api->loop_count = loops;
    api_live_open(api);
    for (uint32_t i = 0; i < loops; i++) {
        api->loops[i].api = api;
        api->loops[i].index = i;
        api->loops[i].apply = (struct apply *)(void *)api; /* only its presence is looked at */
        assert_int_equal(mailbox_create(&api->loops[i].mailbox, 16), ERR_OK);
        api_live_start(&api->loops[i]);
        api_live_begin(&api->loops[i]);
    }
    applied_position = 0;
    spooled = 0;
    timers_set = 0;
    told = 0;
    return api;
}

static void free_api(struct api *api)
{
    for (uint32_t i = 0; i < api->loop_count; i++) {
        (void)mailbox_run_all(api->loops[i].mailbox);
        mailbox_destroy(api->loops[i].mailbox);
        api_live_stop(&api->loops[i]);
    }
    api_live_close(api);
    mem_free(api);
}

static struct api_request make_request(struct api_loop *loop, uint64_t org)
{
    return (struct api_request){.loop = loop, .identity.org = org, .on_applied = on_told};
}

static void test_waiter_is_told_beside_many_tails(void **state)
{
    (void)state;
    struct api *api = make_api(2);
    struct api_loop *loop = &api->loops[1];
    struct api_request *tails = mem_alloc_array(MANY_ORGS, sizeof(*tails));
    struct api_request waiter = make_request(loop, 1);
    uint64_t orgs[] = {7};
    for (uint32_t round = 0; round < 2; round++) {
        api_wait_for(&waiter, 100 + round, on_told);
        assert_int_equal(told, round);
        for (uint32_t i = 0; i < MANY_ORGS && round == 0; i++) {
            tails[i] = make_request(loop, 1000 + i);
            api_live_add(&tails[i]);
        }
        applied_position = 100 + round;
        api_on_applied(api, applied_position, orgs, 1);
        (void)mailbox_run_all(loop->mailbox);
        assert_int_equal(told, round + 1);
    }
    for (uint32_t i = 0; i < MANY_ORGS; i++) {
        api_live_remove(&tails[i]);
    }
    mem_free(tails);
    free_api(api);
}

/* The twin: a position that is not reached tells nobody. */
static void test_waiter_is_not_told_early(void **state)
{
    (void)state;
    struct api *api = make_api(1);
    struct api_request waiter = make_request(&api->loops[0], 1);
    uint64_t orgs[] = {1};
    api_wait_for(&waiter, 100, on_told);
    assert_int_equal(timers_set, 1);
    applied_position = 99;
    api_on_applied(api, applied_position, orgs, 1);
    (void)mailbox_run_all(api->loops[0].mailbox);
    assert_int_equal(told, 0);
    list_remove(&waiter.wait);
    free_api(api);
}

/* A position of the spool is looked at: nobody tells when it has a place in the stream. */
static void test_waiter_for_the_spool_is_told_when_its_place_is_applied(void **state)
{
    (void)state;
    struct api *api = make_api(1);
    struct api_request waiter = make_request(&api->loops[0], 1);
    spooled = 100;
    placed = UINT64_MAX;
    applied_position = 5000;
    api_wait_for(&waiter, 100, on_told);
    waiter.on_timer(&waiter);
    assert_int_equal(told, 0);
    placed = 4000;
    waiter.on_timer(&waiter);
    assert_int_equal(told, 1);
    free_api(api);
}

static void test_tails_are_told_of_their_org_alone(void **state)
{
    (void)state;
    struct api *api = make_api(2);
    struct api_request mine = make_request(&api->loops[0], 5);
    struct api_request other = make_request(&api->loops[1], 6);
    uint64_t orgs[] = {5, 8};
    api_live_add(&mine);
    api_live_add(&other);
    api_on_applied(api, 1, orgs, 2);
    assert_int_equal(mailbox_run_all(api->loops[0].mailbox), 1);
    assert_int_equal(mailbox_run_all(api->loops[1].mailbox), 0);
    assert_int_equal(told, 1);
    api_live_remove(&mine);
    api_on_applied(api, 2, orgs, 2);
    assert_int_equal(mailbox_run_all(api->loops[0].mailbox), 0);
    api_live_remove(&other);
    free_api(api);
}

static int start(void **state)
{
    (void)state;
    return hash_start() == ERR_OK ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waiter_is_told_beside_many_tails),
        cmocka_unit_test(test_waiter_is_not_told_early),
        cmocka_unit_test(test_waiter_for_the_spool_is_told_when_its_place_is_applied),
        cmocka_unit_test(test_tails_are_told_of_their_org_alone),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}
