/* Promise: a desk that asks while the gate forgets lets nobody in after the forget has returned.
 * link: gate_fixture.c store_fixture.c
 *
 * The cache is included with one of its calls renamed: the desk asks where the key is still there
 * and the generation is raised already. So the order of things does not depend on a scheduler. */
#include "support/gate_fixture.h"

#include "base/clock.h"
#include "base/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static struct gate_fixture fixture;
static struct gate_desk *desk;
static struct gate_new_key made;
static bool asks_meanwhile;
static enum gate_check meanwhile;

static void on_checked(struct gate_waiter *waiter, enum err err,
                       const struct gate_identity *identity)
{
    (void)waiter;
    (void)err;
    (void)identity;
}

static enum gate_check ask(void)
{
    static struct gate_waiter waiter;
    struct gate_identity identity;
    const struct gate_question question = {
        .key = slice_from_text(made.text),
        .address = SLICE_LITERAL("::1"),
        .now = {.mono_ms = clock_mono_ms(), .wall_ms = clock_wall_ms()}};
    waiter = (struct gate_waiter){.reply_to = fixture.mailbox, .on_checked = on_checked};
    enum gate_check check = gate_desk_check(desk, &question, &waiter, &identity);
    while (check == GATE_CHECK_WAIT && mailbox_run_all(fixture.mailbox) == 0) {
        mailbox_wait(fixture.mailbox, -1);
    }
    return check;
}

static void ask_then_erase(struct table *table, bool (*matches)(const void *value, void *context),
                           void *context)
{
    if (asks_meanwhile) {
        asks_meanwhile = false;
        meanwhile = ask();
    }
    table_erase_if(table, matches, context);
}

#define table_erase_if ask_then_erase
#include "../../../src/gate/cache.c"
#undef table_erase_if

static uint64_t begin(void)
{
    struct gate_asked asked;
    uint64_t number = gate_fixture_key(&fixture, 1, &made, NULL);
    gate_fixture_start(&fixture);
    desk = gate_desk_create(fixture.gate);
    assert_int_equal(gate_fixture_ask(&fixture, made.text, &asked), ERR_OK);
    asks_meanwhile = true;
    meanwhile = GATE_CHECK_BUSY;
    return number;
}

static void test_of_a_key(void **state)
{
    (void)state;
    uint64_t number = begin();
    gate_forget_key(fixture.gate, number);
    assert_int_equal(meanwhile, GATE_CHECK_OK); /* it was still there */
    assert_int_equal(ask(), GATE_CHECK_WAIT);
    gate_desk_destroy(desk);
}

static void test_of_an_org(void **state)
{
    (void)state;
    (void)begin();
    gate_forget_org(fixture.gate, 1);
    assert_int_equal(meanwhile, GATE_CHECK_OK);
    assert_int_equal(ask(), GATE_CHECK_WAIT);
    gate_desk_destroy(desk);
}

static void test_of_another_key(void **state)
{
    (void)state;
    uint64_t number = begin();
    gate_forget_key(fixture.gate, number + 1);
    assert_int_equal(meanwhile, GATE_CHECK_OK);
    assert_int_equal(ask(), GATE_CHECK_OK);
    gate_desk_destroy(desk);
}

#define CASE(name)                                                                                 \
    cmocka_unit_test_prestate_setup_teardown(name, gate_fixture_setup, gate_fixture_teardown,      \
                                             &fixture)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(test_of_a_key),
        CASE(test_of_an_org),
        CASE(test_of_another_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
