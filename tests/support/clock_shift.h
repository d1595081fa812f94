/* Clock shift: replaces base/clock.c by linking: the two clocks, moved ahead by as much as a test
 * says, so that hours pass without waiting.
 *
 * Thread: the test's alone moves it, while no other runs.  Memory: none.  Errors: none. */
#pragma once
#include <stdint.h>

extern uint64_t clock_shift_ns;
