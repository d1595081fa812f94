/* The disk's own yardstick: a 4 KiB write and fdatasync at a fixed pace into a file that was
 * written with zeros before, as the journal does it. Prints one latency in microseconds a line, so
 * that the runs before and after a measurement can be put together.
 *
 * usage: fsync_pace FILE PER_SECOND SECONDS */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define PAGE_BYTES 4096
#define FILE_PAGES 2048

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void sleep_until(uint64_t when_ns)
{
    struct timespec when = {.tv_sec = (time_t)(when_ns / 1000000000u),
                            .tv_nsec = (long)(when_ns % 1000000000u)};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) != 0) {
    }
}

int main(int argc, char **argv)
{
    static char page[PAGE_BYTES];
    double rate = argc == 4 ? strtod(argv[2], NULL) : 0.0;
    double seconds = argc == 4 ? strtod(argv[3], NULL) : 0.0;
    if (rate <= 0.0 || seconds <= 0.0) {
        (void)fprintf(stderr, "usage: fsync_pace FILE PER_SECOND SECONDS\n");
        return 2;
    }
    int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    for (int i = 0; fd >= 0 && i < FILE_PAGES; i++) {
        if (write(fd, page, PAGE_BYTES) != PAGE_BYTES) {
            perror(argv[1]);
            return 1;
        }
    }
    if (fd < 0 || fsync(fd) != 0) {
        perror(argv[1]);
        return 1;
    }
    uint64_t count = (uint64_t)(rate * seconds);
    uint64_t *latencies = calloc(count + 1, sizeof(*latencies));
    uint64_t started = now_ns();
    for (uint64_t i = 0; latencies != NULL && i < count; i++) {
        uint64_t due = started + (uint64_t)((double)i / rate * 1e9);
        sleep_until(due);
        uint64_t begin = now_ns();
        page[i % PAGE_BYTES] = (char)i;
        if (pwrite(fd, page, PAGE_BYTES, (off_t)(i % FILE_PAGES) * PAGE_BYTES) != PAGE_BYTES ||
            fdatasync(fd) != 0) {
            perror(argv[1]);
            return 1;
        }
        latencies[i] = now_ns() - begin;
    }
    for (uint64_t i = 0; latencies != NULL && i < count; i++) {
        (void)printf("%.1f\n", (double)latencies[i] / 1000.0);
    }
    free(latencies);
    (void)close(fd);
    return 0;
}
