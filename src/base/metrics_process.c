/* Metrics: what the system knows about this process, under the names that every Prometheus client
 * library uses. Sources: proc(5), fields of /proc/self/stat, and getrlimit(2).
 *
 * The second field of stat is the program's name in parentheses, which may itself hold spaces and
 * parentheses: fields are counted behind the last one. */
#include "base/metrics_process.h"

#include "base/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#define METRICS_STAT_BYTES 2048u
/* Fields of /proc/self/stat as proc(5) numbers them; the first behind the name is 3. */
#define METRICS_STAT_FIRST   3u
#define METRICS_STAT_UTIME   14u
#define METRICS_STAT_STIME   15u
#define METRICS_STAT_THREADS 20u
#define METRICS_STAT_START   22u
#define METRICS_STAT_VSIZE   23u
#define METRICS_STAT_RSS     24u
#define METRICS_STAT_FIELDS  25u

enum metrics_process {
    METRICS_CPU,
    METRICS_START,
    METRICS_THREADS,
    METRICS_VIRTUAL,
    METRICS_RESIDENT,
    METRICS_OPEN_FDS,
    METRICS_MAX_FDS,
    METRICS_PROCESS_COUNT
};

static const struct {
    const char *name;
    const char *type;
    const char *help;
} metrics_process_series[METRICS_PROCESS_COUNT] = {
    [METRICS_CPU] = {"process_cpu_seconds_total", "counter", "Processor time, user and system."},
    [METRICS_START] = {"process_start_time_seconds", "gauge", "Unix time of the start."},
    [METRICS_THREADS] = {"process_threads", "gauge", "Threads."},
    [METRICS_VIRTUAL] = {"process_virtual_memory_bytes", "gauge", "Address space in use."},
    [METRICS_RESIDENT] = {"process_resident_memory_bytes", "gauge", "Memory in use."},
    [METRICS_OPEN_FDS] = {"process_open_fds", "gauge", "Open file descriptors."},
    [METRICS_MAX_FDS] = {"process_max_fds", "gauge", "Limit of open file descriptors."},
};

struct metrics_process_values {
    double value[METRICS_PROCESS_COUNT];
    bool is_known[METRICS_PROCESS_COUNT];
};

static void metrics_know(struct metrics_process_values *values, enum metrics_process which,
                         double value)
{
    values->value[which] = value;
    values->is_known[which] = true;
}

/* The first bytes of a file; empty when it cannot be read. */
static struct slice metrics_read_file(const char *path, uint8_t *to, size_t size)
{
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return slice_make(to, 0);
    }
    ssize_t got = sys_pread(fd, to, size, 0);
    (void)sys_close(fd); /* opened for reading: nothing is lost by a failed close */
    return slice_make(to, got < 0 ? 0 : (size_t)got);
}

/* False when stat cannot be read or has fewer fields. */
static bool metrics_read_stat(uint64_t fields[METRICS_STAT_FIELDS])
{
    uint8_t text[METRICS_STAT_BYTES];
    struct slice rest = metrics_read_file("/proc/self/stat", text, sizeof(text));
    for (size_t at = slice_find(rest, ')'); at < rest.size; at = slice_find(rest, ')')) {
        rest = slice_part(rest, at + 1, rest.size);
    }
    rest = slice_trim(rest);
    for (size_t i = METRICS_STAT_FIRST; i < METRICS_STAT_FIELDS; i++) {
        struct slice field = slice_cut(rest, ' ', &rest);
        if (field.size == 0) {
            return false;
        }
        /* Letters and negative numbers stay 0; none of them is asked for. */
        fields[i] = 0;
        (void)slice_to_u64(field, &fields[i]);
    }
    return true;
}

/* Unix time at which the system started: the line "btime <seconds>" of /proc/stat. */
static bool metrics_read_boot_time(uint64_t *ret_seconds)
{
    /* The lines before it grow with processors and interrupts: read on until it is found. */
    uint8_t text[METRICS_STAT_BYTES];
    int fd = sys_open("/proc/stat", O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return false;
    }
    bool is_found = false;
    size_t kept = 0; /* bytes of an unfinished line */
    off_t offset = 0;
    while (!is_found) {
        ssize_t got = sys_pread(fd, text + kept, sizeof(text) - kept, offset);
        if (got <= 0) {
            break;
        }
        offset += got;
        struct slice rest = slice_make(text, kept + (size_t)got);
        while (!is_found && slice_find(rest, '\n') < rest.size) {
            struct slice line = slice_cut(rest, '\n', &rest);
            struct slice word = slice_cut(line, ' ', &line);
            is_found = slice_equal(word, SLICE_LITERAL("btime")) &&
                       slice_to_u64(slice_trim(line), ret_seconds);
        }
        /* A line that alone fills the buffer is not the one: forget it. */
        kept = rest.size == sizeof(text) ? 0 : rest.size;
        if (kept > 0) {
            memmove(text, rest.data, kept);
        }
    }
    (void)sys_close(fd); /* opened for reading: nothing is lost by a failed close */
    return is_found;
}

static void metrics_know_stat(struct metrics_process_values *values)
{
    uint64_t fields[METRICS_STAT_FIELDS];
    long ticks = sysconf(_SC_CLK_TCK);
    long page = sysconf(_SC_PAGESIZE);
    if (ticks <= 0 || page <= 0 || !metrics_read_stat(fields)) {
        return;
    }
    double seconds_per_tick = 1.0 / (double)ticks;
    metrics_know(values, METRICS_CPU,
                 (double)(fields[METRICS_STAT_UTIME] + fields[METRICS_STAT_STIME]) *
                     seconds_per_tick);
    metrics_know(values, METRICS_THREADS, (double)fields[METRICS_STAT_THREADS]);
    metrics_know(values, METRICS_VIRTUAL, (double)fields[METRICS_STAT_VSIZE]);
    metrics_know(values, METRICS_RESIDENT, (double)fields[METRICS_STAT_RSS] * (double)page);
    uint64_t boot;
    if (metrics_read_boot_time(&boot)) {
        metrics_know(values, METRICS_START,
                     (double)boot + (double)fields[METRICS_STAT_START] * seconds_per_tick);
    }
}

static void metrics_know_files(struct metrics_process_values *values)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        metrics_know(values, METRICS_MAX_FDS, (double)limit.rlim_cur);
    }
    DIR *directory = sys_opendir("/proc/self/fd");
    if (directory == NULL) {
        return;
    }
    uint32_t count = 0;
    for (struct dirent *entry = sys_readdir(directory); entry != NULL;
         entry = sys_readdir(directory)) {
        count += entry->d_name[0] != '.' ? 1 : 0;
    }
    bool is_whole = errno == 0;
    (void)sys_closedir(directory); /* opened for reading: nothing is lost by a failed close */
    if (is_whole && count > 0) {
        metrics_know(values, METRICS_OPEN_FDS, (double)(count - 1)); /* one was the directory's */
    }
}

enum err metrics_process_write(struct buffer *to, bool openmetrics)
{
    struct metrics_process_values values = {.is_known = {false}};
    metrics_know_stat(&values);
    metrics_know_files(&values);
    for (size_t i = 0; i < METRICS_PROCESS_COUNT; i++) {
        if (!values.is_known[i]) {
            continue;
        }
        const char *name = metrics_process_series[i].name;
        enum err err = metrics_write_head(to, openmetrics, name, metrics_process_series[i].type,
                                          metrics_process_series[i].help);
        if (err == ERR_OK) {
            err = buffer_printf(to, "%s %.15g\n", name, values.value[i]);
        }
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}
