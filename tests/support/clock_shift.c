/* Clock shift: the real file under other names, and the clocks on top of it. */
#define clock_wall_ms real_wall_ms
#define clock_mono_ns real_mono_ns
#include "../../src/base/clock.c"
#undef clock_wall_ms
#undef clock_mono_ns

#include "support/clock_shift.h"

uint64_t clock_shift_ns;

int64_t clock_wall_ms(void);
uint64_t clock_mono_ns(void);

int64_t clock_wall_ms(void)
{
    return real_wall_ms() + (int64_t)(clock_shift_ns / 1000000u);
}

uint64_t clock_mono_ns(void)
{
    return real_mono_ns() + clock_shift_ns;
}
