/* One line, drawn over itself: label, bar, percentage, bytes a second, time left. */
#include "progress.h"

#include <stdio.h>
#include <unistd.h>

#include "base/clock.h"

#define BAR_CELLS 30u
#define REDRAW_NS 100000000u

void progress_begin(struct progress *progress, const char *label)
{
    *progress = (struct progress){
        .label = label, .started_ns = clock_mono_ns(), .is_terminal = isatty(STDERR_FILENO)};
}

void progress_show(struct progress *progress, uint64_t done, uint64_t all)
{
    uint64_t now = clock_mono_ns();
    if (!progress->is_terminal || now - progress->shown_ns < REDRAW_NS) {
        return;
    }
    progress->shown_ns = now;
    double elapsed_s = (double)(now - progress->started_ns) / 1e9;
    double share = all > 0 ? (double)done / (double)all : 0.0;
    double left_s = share > 0.0 ? elapsed_s / share - elapsed_s : 0.0;
    char bar[BAR_CELLS + 1];
    for (unsigned i = 0; i < BAR_CELLS; i++) {
        bar[i] = (double)i < share * BAR_CELLS ? '#' : '.';
    }
    bar[BAR_CELLS] = '\0';
    (void)fprintf(stderr, "\r%s [%s] %3.0f%%  %.0f/s  %.0f s left \033[K", progress->label, bar,
                  share * 100.0, elapsed_s > 0.0 ? (double)done / elapsed_s : 0.0, left_s);
    (void)fflush(stderr);
}

void progress_end(struct progress *progress)
{
    if (progress->is_terminal && progress->shown_ns != 0) {
        (void)fputs("\r\033[K", stderr);
    }
}
