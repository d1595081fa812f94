/* Promise: what changed between the opening of the store and the first look of its listener is
 * never taken for known: all that a node holds is dropped once, before it counts as current; when
 * nothing changed all is kept; each later change is told by name.
 *
 * link: store_fixture.c */
#include "support/store_fixture.h"

#include "base/thread.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <semaphore.h>
#include <stdatomic.h>

struct ears {
    struct store_fixture fixture;
    struct thread *thread;
    sem_t is_current;
    sem_t org_changed;
    atomic_bool has_dropped_all;
    atomic_bool was_current_before;
    atomic_uint_least64_t org;
};

static void on_change(void *owner, enum store_change change, uint64_t number)
{
    struct ears *ears = owner;
    if (change == STORE_CHANGED_ANY) {
        atomic_store(&ears->has_dropped_all, true);
    } else if (change == STORE_CHANGED_ORG) {
        atomic_store(&ears->org, number);
        (void)sem_post(&ears->org_changed);
    }
}

static void on_current(void *owner, uint64_t mono_ms)
{
    struct ears *ears = owner;
    (void)mono_ms;
    if (!atomic_load(&ears->has_dropped_all)) {
        atomic_store(&ears->was_current_before, true);
    }
    (void)sem_post(&ears->is_current);
}

static void on_applied(void *owner, uint64_t position, const uint64_t *orgs, uint32_t count)
{
    (void)owner;
    (void)position;
    (void)orgs;
    (void)count;
}

static int setup(void **state)
{
    static struct ears ears;
    struct err_detail detail = {""};
    ears = (struct ears){.thread = NULL};
    assert_int_equal(sem_init(&ears.is_current, 0, 0), 0);
    assert_int_equal(sem_init(&ears.org_changed, 0, 0), 0);
    store_fixture_init(&ears.fixture);
    const struct store_listen_options listen = {.node = 1,
                                                .owner = &ears,
                                                .on_change = on_change,
                                                .on_current = on_current,
                                                .on_applied = on_applied};
    struct store_options options = store_fixture_options(&ears.fixture);
    options.listen = &listen;
    if (store_open(&ears.fixture.store, &options, &detail) != ERR_OK) {
        fail_msg("store_open: %s", detail.text);
    }
    *state = &ears;
    return 0;
}

static int teardown(void **state)
{
    struct ears *ears = *state;
    store_stop(ears->fixture.store);
    thread_join(ears->thread);
    store_fixture_finish(&ears->fixture);
    return 0;
}

static void change_org(struct ears *ears)
{
    assert_int_equal(
        store_fixture_sql(&ears->fixture, "UPDATE orgs SET tier = 'free' WHERE number = 1"),
        ERR_OK);
}

static void test_the_first_look_drops_all(void **state)
{
    struct ears *ears = *state;
    store_fixture_add_org(&ears->fixture, 1);
    change_org(ears); /* a key of it may have been read before, and nobody listens yet */
    assert_int_equal(thread_start(&ears->thread, "listen", store_listener_run, ears->fixture.store),
                     ERR_OK);
    if (!ears->fixture.is_postgres) { /* nobody else has the database */
        return;
    }
    assert_int_equal(sem_wait(&ears->is_current), 0);
    assert_true(atomic_load(&ears->has_dropped_all));
    assert_false(atomic_load(&ears->was_current_before));
    atomic_store(&ears->has_dropped_all, false);
    assert_int_equal(
        store_fixture_sql(&ears->fixture, "UPDATE orgs SET tier = 'pro' WHERE number = 1"), ERR_OK);
    assert_int_equal(sem_wait(&ears->org_changed), 0);
    assert_int_equal(atomic_load(&ears->org), 1);
    assert_false(atomic_load(&ears->has_dropped_all));
}

static void test_the_first_look_keeps_what_did_not_change(void **state)
{
    struct ears *ears = *state;
    assert_int_equal(thread_start(&ears->thread, "listen", store_listener_run, ears->fixture.store),
                     ERR_OK);
    if (!ears->fixture.is_postgres) { /* nobody else has the database */
        return;
    }
    assert_int_equal(sem_wait(&ears->is_current), 0);
    assert_false(atomic_load(&ears->has_dropped_all));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_first_look_drops_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_first_look_keeps_what_did_not_change, setup,
                                        teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
