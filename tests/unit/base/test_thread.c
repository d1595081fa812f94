/* Promise: a thread runs with its name and with signals blocked; one that cannot start leaves
 * nothing behind. The file under test is included, so that the creation can be made to fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>

static int refusal; /* errno that the next creations give */

static int create_or_refuse(pthread_t *handle, const pthread_attr_t *attributes,
                            void *(*run)(void *), void *argument)
{
    return refusal != 0 ? refusal : pthread_create(handle, attributes, run, argument);
}

#define pthread_create create_or_refuse
#include "../src/base/thread.c" /* NOLINT(bugprone-suspicious-include) */
#undef pthread_create

struct seen {
    char name[THREAD_NAME_BYTES];
    sigset_t blocked;
    int nice;
};

static void look(void *argument)
{
    struct seen *seen = argument;
    (void)pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
    (void)pthread_sigmask(SIG_SETMASK, NULL, &seen->blocked);
    thread_lower_priority();
    seen->nice = getpriority(PRIO_PROCESS, 0);
}

static void test_runs_named_and_undisturbed(void **state)
{
    (void)state;
    struct seen seen = {.name = ""};
    struct thread *thread = NULL;
    sigset_t own;
    int own_nice = getpriority(PRIO_PROCESS, 0);
    assert_int_equal(thread_start(&thread, "fifteen-letters", look, &seen), ERR_OK);
    thread_join(thread);
    assert_string_equal(seen.name, "fifteen-letters");
    assert_int_equal(sigismember(&seen.blocked, SIGTERM), 1);
    assert_int_equal(sigismember(&seen.blocked, SIGINT), 1);
    assert_int_equal(sigismember(&seen.blocked, SIGPIPE), 1);
    /* A fault of the program itself must still end it visibly. */
    assert_int_equal(sigismember(&seen.blocked, SIGSEGV), 0);
    assert_int_equal(sigismember(&seen.blocked, SIGABRT), 0);
    /* The starter keeps its own mask and priority. */
    (void)pthread_sigmask(SIG_SETMASK, NULL, &own);
    assert_int_equal(sigismember(&own, SIGTERM), 0);
    assert_int_equal(seen.nice,
                     own_nice + THREAD_NICE_OF_LOWER > 19 ? 19 : own_nice + THREAD_NICE_OF_LOWER);
    assert_int_equal(getpriority(PRIO_PROCESS, 0), own_nice);
}

static void test_refused_start(void **state)
{
    (void)state;
    struct thread *thread = NULL;
    sigset_t own;
    refusal = EAGAIN;
    assert_int_equal(thread_start(&thread, "x", look, NULL), ERR_BUSY);
    refusal = EPERM;
    assert_int_equal(thread_start(&thread, "x", look, NULL), ERR_PERMISSION);
    refusal = 0;
    assert_null(thread);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &own);
    assert_int_equal(sigismember(&own, SIGTERM), 0);
    thread_join(NULL);
}

static void test_cpu_count_follows_affinity(void **state)
{
    (void)state;
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof(all), &all), 0);
    assert_int_equal(thread_cpu_count(), CPU_COUNT(&all));
    size_t first = 0;
    while (!CPU_ISSET(first, &all)) {
        first++;
    }
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(first, &one);
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(thread_cpu_count(), 1);
    assert_int_equal(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void test_blocked_signal_waits_for_sigwait(void **state)
{
    (void)state;
    sigset_t before;
    sigset_t term;
    int got = 0;
    (void)pthread_sigmask(SIG_SETMASK, NULL, &before);
    thread_block_signals();
    assert_int_equal(kill(getpid(), SIGTERM), 0);
    (void)sigemptyset(&term);
    (void)sigaddset(&term, SIGTERM);
    assert_int_equal(sigwait(&term, &got), 0);
    assert_int_equal(got, SIGTERM);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_named_and_undisturbed),
        cmocka_unit_test(test_refused_start),
        cmocka_unit_test(test_cpu_count_follows_affinity),
        cmocka_unit_test(test_blocked_signal_waits_for_sigwait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
