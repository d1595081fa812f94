/* Metrics: a row of numbers per thread, and the page that sums them.
 *
 * A thread writes only its own row, so adding is a load and a store without a lock or a locked
 * instruction; the page loads every row and sums. Threads beyond METRICS_ROWS_MAX, and those that
 * never opened a row, share one row and pay for an atomic add.
 *
 * Series, names, labels and helps are tables expanded from the lists of the header. In OpenMetrics
 * a counter's family is named without "_total"; that, the content of `le` and the last line are all
 * that differs between the two formats.
 *
 * Failure modes: the buffer's limit or memory ends the page with that error. A process_* series
 * that the system does not tell is left out. */
#include "base/metrics.h"

#include "base/mem.h"
#include "base/metrics_process.h"

#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>

#define METRICS_BUCKETS_MAX 24u /* with the one above the last bound */

typedef _Atomic uint64_t metrics_cell;

struct metrics_row {
    alignas(64) metrics_cell counters[METRICS_COUNTER_COUNT]; /* rows share no cache line */
    metrics_cell buckets[METRICS_HISTOGRAM_COUNT][METRICS_BUCKETS_MAX];
    metrics_cell sums[METRICS_HISTOGRAM_COUNT];
};

struct metrics_series {
    const char *name;
    const char *labels;
    const char *help;
};

enum metrics_unit { METRICS_SECONDS, METRICS_COUNTS };

static const struct metrics_series metrics_counter_series[METRICS_COUNTER_COUNT] = {
#define X(id, name, labels, help) {name, labels, help},
    METRICS_COUNTERS(X)
#undef X
};
static const struct metrics_series metrics_histogram_series[METRICS_HISTOGRAM_COUNT] = {
#define X(id, name, labels, help, unit) {name, labels, help},
    METRICS_HISTOGRAMS(X)
#undef X
};
static const struct metrics_series metrics_gauge_series[METRICS_GAUGE_COUNT] = {
#define X(id, name, labels, help) {name, labels, help},
    METRICS_GAUGES(X)
#undef X
};
static const enum metrics_unit metrics_units[METRICS_HISTOGRAM_COUNT] = {
#define X(id, name, labels, help, unit) METRICS_##unit,
    METRICS_HISTOGRAMS(X)
#undef X
};

struct metrics_bound {
    uint64_t value; /* nanoseconds or a count */
    const char *text;
    const char *openmetrics_text; /* canonical: always a point or an exponent */
};

static const struct metrics_bound metrics_seconds[] = {
    {1000, "1e-06", "1e-06"},     {2500, "2.5e-06", "2.5e-06"},   {5000, "5e-06", "5e-06"},
    {10000, "1e-05", "1e-05"},    {25000, "2.5e-05", "2.5e-05"},  {50000, "5e-05", "5e-05"},
    {100000, "0.0001", "0.0001"}, {250000, "0.00025", "0.00025"}, {500000, "0.0005", "0.0005"},
    {1000000, "0.001", "0.001"},  {2500000, "0.0025", "0.0025"},  {5000000, "0.005", "0.005"},
    {10000000, "0.01", "0.01"},   {25000000, "0.025", "0.025"},   {50000000, "0.05", "0.05"},
    {100000000, "0.1", "0.1"},    {250000000, "0.25", "0.25"},    {500000000, "0.5", "0.5"},
    {1000000000, "1", "1.0"},     {2500000000, "2.5", "2.5"},     {5000000000, "5", "5.0"},
    {10000000000, "10", "10.0"},
};
static const struct metrics_bound metrics_counts[] = {
    {1, "1", "1.0"},
    {4, "4", "4.0"},
    {16, "16", "16.0"},
    {64, "64", "64.0"},
    {256, "256", "256.0"},
    {1024, "1024", "1024.0"},
    {4096, "4096", "4096.0"},
    {16384, "16384", "16384.0"},
    {65536, "65536", "65536.0"},
    {262144, "262144", "262144.0"},
    {1048576, "1048576", "1048576.0"},
};
static const struct {
    const struct metrics_bound *bounds;
    size_t count;
} metrics_buckets[] = {
    [METRICS_SECONDS] = {metrics_seconds, sizeof(metrics_seconds) / sizeof(metrics_seconds[0])},
    [METRICS_COUNTS] = {metrics_counts, sizeof(metrics_counts) / sizeof(metrics_counts[0])},
};

static_assert(sizeof(metrics_seconds) / sizeof(metrics_seconds[0]) < METRICS_BUCKETS_MAX,
              "room for the bucket above the last bound");
static_assert(sizeof(metrics_counts) / sizeof(metrics_counts[0]) < METRICS_BUCKETS_MAX,
              "room for the bucket above the last bound");

/* Release store when a row is opened pairs with the acquire load of the page. */
static struct metrics_row *_Atomic metrics_rows[METRICS_ROWS_MAX];
static atomic_uint metrics_row_count;
static struct metrics_row metrics_shared_row;
static _Thread_local struct metrics_row *metrics_own_row;

/* Relaxed: each store is a whole value by whoever knows it, the page reads some recent one. */
static _Atomic double metrics_gauges[METRICS_GAUGE_COUNT];

void metrics_open_row(void)
{
    if (metrics_own_row != NULL) {
        return;
    }
    unsigned index = atomic_load_explicit(&metrics_row_count, memory_order_relaxed);
    do {
        if (index >= METRICS_ROWS_MAX - 1) {
            return; /* the shared row is the last one */
        }
    } while (!atomic_compare_exchange_weak_explicit(&metrics_row_count, &index, index + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    struct metrics_row *row = mem_map(sizeof(*row));
    metrics_own_row = row;
    atomic_store_explicit(&metrics_rows[index], row, memory_order_release);
}

/* Relaxed: the cell is this thread's alone (or the add is atomic); the page needs no order. */
static void metrics_cell_add(bool is_own, metrics_cell *cell, uint64_t amount)
{
    if (is_own) {
        uint64_t value = atomic_load_explicit(cell, memory_order_relaxed);
        atomic_store_explicit(cell, value + amount, memory_order_relaxed);
    } else {
        atomic_fetch_add_explicit(cell, amount, memory_order_relaxed);
    }
}

void metrics_add(enum metrics_counter counter, uint64_t amount)
{
    assert(counter < METRICS_COUNTER_COUNT);
    struct metrics_row *own = metrics_own_row;
    struct metrics_row *row = own == NULL ? &metrics_shared_row : own;
    metrics_cell_add(own != NULL, &row->counters[counter], amount);
}

void metrics_observe(enum metrics_histogram histogram, uint64_t value)
{
    metrics_observe_many(histogram, value, 1);
}

void metrics_observe_many(enum metrics_histogram histogram, uint64_t value, uint64_t times)
{
    assert(histogram < METRICS_HISTOGRAM_COUNT);
    const struct metrics_bound *bounds = metrics_buckets[metrics_units[histogram]].bounds;
    size_t count = metrics_buckets[metrics_units[histogram]].count;
    size_t bucket = 0; /* the first whose bound is not below the value; `count`: above all */
    for (size_t step = 8; step > 0; step /= 2) {
        while (bucket + step <= count && value > bounds[bucket + step - 1].value) {
            bucket += step;
        }
    }
    struct metrics_row *own = metrics_own_row;
    struct metrics_row *row = own == NULL ? &metrics_shared_row : own;
    metrics_cell_add(own != NULL, &row->buckets[histogram][bucket], times);
    metrics_cell_add(own != NULL, &row->sums[histogram], value * times);
}

void metrics_set(enum metrics_gauge gauge, double value)
{
    assert(gauge < METRICS_GAUGE_COUNT);
    atomic_store_explicit(&metrics_gauges[gauge], value, memory_order_relaxed);
}

/* The sum over all rows of the cell that stands `offset` bytes into a row. */
static uint64_t metrics_sum(size_t offset)
{
    uint64_t sum = 0;
    for (size_t i = 0; i <= METRICS_ROWS_MAX; i++) {
        struct metrics_row *row =
            i == METRICS_ROWS_MAX ? &metrics_shared_row
                                  : atomic_load_explicit(&metrics_rows[i], memory_order_acquire);
        if (row != NULL) {
            metrics_cell *cell = (metrics_cell *)(void *)((char *)row + offset);
            sum += atomic_load_explicit(cell, memory_order_relaxed);
        }
    }
    return sum;
}

uint64_t metrics_total(enum metrics_counter counter)
{
    assert(counter < METRICS_COUNTER_COUNT);
    return metrics_sum(offsetof(struct metrics_row, counters) + counter * sizeof(metrics_cell));
}

static uint64_t metrics_bucket_total(size_t histogram, size_t bucket)
{
    return metrics_sum(offsetof(struct metrics_row, buckets) +
                       (histogram * METRICS_BUCKETS_MAX + bucket) * sizeof(metrics_cell));
}

enum err metrics_write_head(struct buffer *to, bool openmetrics, const char *name, const char *type,
                            const char *help)
{
    size_t size = strlen(name);
    if (openmetrics && strcmp(type, "counter") == 0) {
        assert(size > strlen("_total"));
        size -= strlen("_total");
    }
    return buffer_printf(to, "# HELP %.*s %s\n# TYPE %.*s %s\n", (int)size, name, help, (int)size,
                         name, type);
}

/* The head, where a family begins. */
static enum err metrics_begin(struct buffer *to, bool openmetrics, const struct metrics_series *all,
                              size_t index, const char *type)
{
    if (index > 0 && strcmp(all[index - 1].name, all[index].name) == 0) {
        return ERR_OK;
    }
    return metrics_write_head(to, openmetrics, all[index].name, type, all[index].help);
}

/* "name{labels} " or "name ". */
static enum err metrics_write_name(struct buffer *to, const struct metrics_series *series)
{
    bool has_labels = series->labels[0] != 0;
    return buffer_printf(to, "%s%s%s%s ", series->name, has_labels ? "{" : "", series->labels,
                         has_labels ? "}" : "");
}

static enum err metrics_write_counters(struct buffer *to, bool openmetrics)
{
    enum err err = ERR_OK;
    for (size_t i = 0; i < METRICS_COUNTER_COUNT && err == ERR_OK; i++) {
        err = metrics_begin(to, openmetrics, metrics_counter_series, i, "counter");
        if (err == ERR_OK) {
            err = metrics_write_name(to, &metrics_counter_series[i]);
        }
        if (err == ERR_OK) {
            err = buffer_printf(to, "%llu\n",
                                (unsigned long long)metrics_total((enum metrics_counter)i));
        }
    }
    return err;
}

static enum err metrics_write_gauges(struct buffer *to, bool openmetrics)
{
    enum err err = ERR_OK;
    for (size_t i = 0; i < METRICS_GAUGE_COUNT && err == ERR_OK; i++) {
        err = metrics_begin(to, openmetrics, metrics_gauge_series, i, "gauge");
        if (err == ERR_OK) {
            err = metrics_write_name(to, &metrics_gauge_series[i]);
        }
        if (err == ERR_OK) {
            double value = atomic_load_explicit(&metrics_gauges[i], memory_order_relaxed);
            err = buffer_printf(to, "%.15g\n", value);
        }
    }
    return err;
}

/* name_sum and name_count; a sum of nanoseconds is written as seconds, exactly. */
static enum err metrics_write_sum(struct buffer *to, size_t histogram, uint64_t count)
{
    const struct metrics_series *series = &metrics_histogram_series[histogram];
    const char *open = series->labels[0] == 0 ? "" : "{";
    const char *close = series->labels[0] == 0 ? "" : "}";
    uint64_t sum =
        metrics_sum(offsetof(struct metrics_row, sums) + histogram * sizeof(metrics_cell));
    bool is_seconds = metrics_units[histogram] == METRICS_SECONDS;
    char text[32];
    if (is_seconds) {
        (void)snprintf(text, sizeof(text), "%llu.%09llu", (unsigned long long)(sum / 1000000000u),
                       (unsigned long long)(sum % 1000000000u));
    } else {
        (void)snprintf(text, sizeof(text), "%llu", (unsigned long long)sum);
    }
    return buffer_printf(to, "%s_sum%s%s%s %s\n%s_count%s%s%s %llu\n", series->name, open,
                         series->labels, close, text, series->name, open, series->labels, close,
                         (unsigned long long)count);
}

static enum err metrics_write_histogram(struct buffer *to, bool openmetrics, size_t histogram)
{
    const struct metrics_series *series = &metrics_histogram_series[histogram];
    const struct metrics_bound *bounds = metrics_buckets[metrics_units[histogram]].bounds;
    size_t bound_count = metrics_buckets[metrics_units[histogram]].count;
    uint64_t count = 0;
    for (size_t i = 0; i <= bound_count; i++) {
        const char *le = "+Inf";
        if (i < bound_count) {
            le = openmetrics ? bounds[i].openmetrics_text : bounds[i].text;
        }
        count += metrics_bucket_total(histogram, i);
        enum err err =
            buffer_printf(to, "%s_bucket{%s%sle=\"%s\"} %llu\n", series->name, series->labels,
                          series->labels[0] == 0 ? "" : ",", le, (unsigned long long)count);
        if (err != ERR_OK) {
            return err;
        }
    }
    return metrics_write_sum(to, histogram, count);
}

static enum err metrics_write_histograms(struct buffer *to, bool openmetrics)
{
    enum err err = ERR_OK;
    for (size_t i = 0; i < METRICS_HISTOGRAM_COUNT && err == ERR_OK; i++) {
        err = metrics_begin(to, openmetrics, metrics_histogram_series, i, "histogram");
        if (err == ERR_OK) {
            err = metrics_write_histogram(to, openmetrics, i);
        }
    }
    return err;
}

enum err metrics_write(struct buffer *to, bool openmetrics)
{
    enum err err = metrics_write_counters(to, openmetrics);
    if (err == ERR_OK) {
        err = metrics_write_histograms(to, openmetrics);
    }
    if (err == ERR_OK) {
        err = metrics_write_gauges(to, openmetrics);
    }
    if (err == ERR_OK) {
        err = metrics_process_write(to, openmetrics);
    }
    if (err == ERR_OK && openmetrics) {
        err = buffer_append_text(to, "# EOF\n");
    }
    return err;
}
