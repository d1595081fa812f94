/* Promise: a desk lets in at once whom the gate let in within the last second, and nobody whom the
 * gate has forgotten, who has expired, or who shows another secret.
 * link: gate_fixture.c store_fixture.c */
#include "support/gate_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/clock.h"

struct desk_case {
    struct gate_fixture *fixture;
    struct gate_desk *desk;
    struct gate_new_key key;
    uint64_t number;
    struct gate_now now;
    struct gate_waiter waiter;
    struct gate_identity identity;
    bool is_answered;
};

static void on_checked(struct gate_waiter *waiter, enum err err,
                       const struct gate_identity *identity)
{
    struct desk_case *one =
        (struct desk_case *)(void *)((char *)waiter - offsetof(struct desk_case, waiter));
    (void)err;
    (void)identity;
    one->is_answered = true;
}

/* The key is checked once, so that the gate's cache has it. */
static void begin(struct desk_case *one, struct gate_fixture *gate)
{
    struct gate_asked asked;
    *one = (struct desk_case){.fixture = gate, .desk = gate_desk_create(gate->gate)};
    gate_fixture_start(gate);
    one->number = gate_fixture_key(gate, 1, &one->key, NULL);
    assert_int_equal(gate_fixture_ask(gate, one->key.text, &asked), ERR_OK);
    one->now = (struct gate_now){.mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms()};
}

/* WAIT: it was waited for, too. */
static enum gate_check ask(struct desk_case *one, const char *text)
{
    const struct gate_question question = {
        .key = slice_from_text(text), .address = SLICE_LITERAL("::1"), .now = one->now};
    one->is_answered = false;
    one->waiter = (struct gate_waiter){.reply_to = one->fixture->mailbox, .on_checked = on_checked};
    enum gate_check check = gate_desk_check(one->desk, &question, &one->waiter, &one->identity);
    while (check == GATE_CHECK_WAIT && !one->is_answered) {
        mailbox_wait(one->fixture->mailbox, -1);
        (void)mailbox_run_all(one->fixture->mailbox);
    }
    return check;
}

static void test_it_knows_who_came_in(void **state)
{
    struct desk_case one;
    begin(&one, *state);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_OK);
    for (int i = 0; i < 3; i++) {
        one.identity = (struct gate_identity){0};
        assert_int_equal(ask(&one, one.key.text), GATE_CHECK_OK);
        assert_int_equal(one.identity.key, one.number);
        assert_int_equal(one.identity.org, 1);
        assert_int_equal(one.identity.scopes, GATE_ALL);
    }
    gate_desk_destroy(one.desk);
}

static void test_a_forgotten_key_waits_at_once(void **state)
{
    struct desk_case one;
    begin(&one, *state);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_OK);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_OK);
    gate_forget_key(one.fixture->gate, one.number);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_WAIT);
    gate_desk_destroy(one.desk);
}

static void test_a_forgotten_org_waits_at_once(void **state)
{
    struct desk_case one;
    begin(&one, *state);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_OK);
    gate_forget_org(one.fixture->gate, 1);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_WAIT);
    gate_desk_destroy(one.desk);
}

static void test_another_secret_is_denied(void **state)
{
    struct desk_case one;
    begin(&one, *state);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_OK);
    for (size_t i = strlen(one.key.text) - 30; i < strlen(one.key.text); i++) {
        struct gate_new_key other = one.key;
        other.text[i] = other.text[i] == 'x' ? 'y' : 'x';
        assert_int_equal(ask(&one, other.text), GATE_CHECK_DENIED);
    }
    assert_int_equal(ask(&one, ""), GATE_CHECK_DENIED);
    assert_int_equal(ask(&one, one.key.text), GATE_CHECK_OK);
    gate_desk_destroy(one.desk);
}

/* The monotonic clock of the questions stands still: the desk has no other reason to ask. */
static void test_an_expired_key_is_denied(void **state)
{
    struct desk_case one;
    struct gate_new_key key;
    uint32_t admitted = 0;
    enum gate_check check = GATE_CHECK_OK;
    begin(&one, *state);
    const struct gate_key_options options = {
        .org = 2, .scopes = GATE_READ, .expires_ms = one.now.wall_ms + 300};
    (void)gate_fixture_key(one.fixture, 2, &key, &options);
    while (one.now.wall_ms < options.expires_ms) {
        one.now.wall_ms = clock_wall_ms();
        check = ask(&one, key.text);
        admitted += check == GATE_CHECK_OK ? 1 : 0;
    }
    assert_int_equal(check, GATE_CHECK_DENIED);
    assert_true(admitted > 0);
    gate_desk_destroy(one.desk);
}

/* With a TTL of 0 the gate verifies every time, and so has the desk to. */
static void test_without_a_ttl_it_knows_nobody(void **state)
{
    struct gate_fixture *mine = *state;
    struct gate_options options = gate_fixture_options(mine);
    struct desk_case one;
    gate_fixture_close(mine);
    options.cache_ttl_s = 0;
    gate_fixture_open(mine, &options);
    begin(&one, mine);
    /* The cache takes a key for live within the millisecond in which it was used; the desk, whose
     * clock stands still here, for ever, if it kept anything. */
    while (ask(&one, one.key.text) != GATE_CHECK_WAIT) {
    }
    gate_desk_destroy(one.desk);
}

static struct gate_fixture fixture;

#define CASE(name)                                                                                 \
    cmocka_unit_test_prestate_setup_teardown(name, gate_fixture_setup, gate_fixture_teardown,      \
                                             &fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_it_knows_who_came_in),          CASE(test_a_forgotten_key_waits_at_once),
        CASE(test_a_forgotten_org_waits_at_once), CASE(test_another_secret_is_denied),
        CASE(test_an_expired_key_is_denied),      CASE(test_without_a_ttl_it_knows_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
