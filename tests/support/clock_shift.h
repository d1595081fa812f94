/* Clock shift: replaces base/clock.c by linking: the two clocks, moved ahead by as much as a test
 * says, so that hours pass without waiting; and they can stand still, so that what has a time to
 * end at comes to its end on the slowest machine.
 *
 * Thread: the test's alone moves them.  Memory: none.  Errors: none. */
#pragma once
#include <stdint.h>

extern _Atomic uint64_t clock_shift_ns;

void clock_stand(void);
void clock_go_on(void);
