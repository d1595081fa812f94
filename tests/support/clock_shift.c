/* Clock shift: the real file under other names, and the clocks on top of it. */
#define clock_wall_ms real_wall_ms
#define clock_mono_ns real_mono_ns
#include "../../src/base/clock.c"
#undef clock_wall_ms
#undef clock_mono_ns

#include "support/clock_shift.h"

#include <stdatomic.h>
#include <stdbool.h>

_Atomic uint64_t clock_shift_ns;
/* Where they stand; the flag is set after these and read before them. */
static _Atomic uint64_t stood_mono_ns;
static _Atomic int64_t stood_wall_ms;
static atomic_bool is_standing;

int64_t clock_wall_ms(void);
uint64_t clock_mono_ns(void);

int64_t clock_wall_ms(void)
{
    int64_t at_ms = atomic_load(&is_standing) ? stood_wall_ms : real_wall_ms();
    return at_ms + (int64_t)(clock_shift_ns / 1000000u);
}

uint64_t clock_mono_ns(void)
{
    uint64_t at_ns = atomic_load(&is_standing) ? stood_mono_ns : real_mono_ns();
    return at_ns + clock_shift_ns;
}

void clock_stand(void)
{
    stood_mono_ns = real_mono_ns();
    stood_wall_ms = real_wall_ms();
    atomic_store(&is_standing, true);
}

void clock_go_on(void)
{
    atomic_store(&is_standing, false);
}
