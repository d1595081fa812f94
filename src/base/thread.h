/* Thread: named threads with all signals blocked.
 *
 * Thread: start and join from the thread that owns the handle.
 * Memory: `argument` must outlive the thread.
 * Errors: start gives what pthread_create said. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct thread; /* opaque */

/* `name` has at most 15 characters and shows in ps -L. A metrics row is opened for the thread. */
MUST_CHECK enum err thread_start(struct thread **ret, const char *name, void (*run)(void *argument),
                                 void *argument);
/* Waits for the end, frees. NULL is fine. */
void thread_join(struct thread *thread);
/* Lower CPU priority for the calling thread (appliers), best effort. */
void thread_lower_priority(void);
/* Processors this process may run on, at least 1. */
uint32_t thread_cpu_count(void);
/* Blocks every signal in the caller and all threads made after; main then uses sigwait. */
void thread_block_signals(void);
