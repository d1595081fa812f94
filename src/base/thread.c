/* Thread: a named pthread that starts with signals blocked and with a metrics row.
 *
 * Signals are blocked in the parent around the creation, so that the new thread has no moment in
 * which one could reach it. Those that a fault of the program itself raises stay open: blocked,
 * they would end the process without a trace. */
#include "base/thread.h"

#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define THREAD_NAME_BYTES    16 /* the kernel's, with the NUL */
#define THREAD_NICE_OF_LOWER 10

struct thread {
    pthread_t handle;
    void (*run)(void *argument);
    void *argument;
    char name[THREAD_NAME_BYTES];
};

static void thread_signal_set(sigset_t *ret_signals)
{
    static const int own_faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    int result = sigfillset(ret_signals);
    for (size_t i = 0; i < sizeof(own_faults) / sizeof(own_faults[0]); i++) {
        result |= sigdelset(ret_signals, own_faults[i]);
    }
    assert(result == 0);
}

void thread_block_signals(void)
{
    sigset_t signals;
    thread_signal_set(&signals);
    int result = pthread_sigmask(SIG_BLOCK, &signals, NULL);
    assert(result == 0);
}

static void *thread_main(void *context)
{
    struct thread *thread = context;
    (void)pthread_setname_np(pthread_self(), thread->name); /* a name is for people only */
    metrics_open_row();
    thread->run(thread->argument);
    return NULL;
}

enum err thread_start(struct thread **ret, const char *name, void (*run)(void *argument),
                      void *argument)
{
    size_t name_size = strlen(name);
    assert(name_size < THREAD_NAME_BYTES);
    struct thread *thread = mem_alloc(sizeof(*thread));
    thread->run = run;
    thread->argument = argument;
    memcpy(thread->name, name, name_size);

    sigset_t signals;
    sigset_t before;
    thread_signal_set(&signals);
    int result = pthread_sigmask(SIG_BLOCK, &signals, &before);
    assert(result == 0);
    int error_number = pthread_create(&thread->handle, NULL, thread_main, thread);
    result = pthread_sigmask(SIG_SETMASK, &before, NULL);
    assert(result == 0);
    if (error_number != 0) {
        mem_free(thread);
        return err_from_errno(error_number);
    }
    *ret = thread;
    return ERR_OK;
}

void thread_join(struct thread *thread)
{
    if (thread == NULL) {
        return;
    }
    int result = pthread_join(thread->handle, NULL);
    assert(result == 0);
    mem_free(thread);
}

void thread_lower_priority(void)
{
    /* On Linux "process" 0 is the calling thread. Best effort by contract; above 19 is 19. */
    (void)setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + THREAD_NICE_OF_LOWER);
}

uint32_t thread_cpu_count(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        return (uint32_t)CPU_COUNT(&set);
    }
    /* More processors than a cpu_set_t has bits. */
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    return online < 1 ? 1 : (uint32_t)online;
}
