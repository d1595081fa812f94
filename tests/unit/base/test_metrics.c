/* Promise: the page holds the sum of what every thread counted, in both exposition formats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/metrics.h"
#include "base/thread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREADS 100u /* more than there are rows */
#define ADDS    1000u

static char *page_text(bool openmetrics)
{
    struct buffer page;
    buffer_init(&page, 1 << 20);
    assert_int_equal(metrics_write(&page, openmetrics), ERR_OK);
    assert_int_equal(buffer_append_byte(&page, 0), ERR_OK);
    return (char *)page.data;
}

/* The number behind "name{labels} ", which must stand at the beginning of one line exactly. */
static double value_of(const char *page, const char *series)
{
    char start[256];
    (void)snprintf(start, sizeof(start), "\n%s ", series);
    const char *found = strstr(page, start);
    if (found == NULL || strstr(found + 1, start) != NULL) {
        fail_msg("%s is there %s", series, found == NULL ? "not at all" : "more than once");
        return 0;
    }
    return strtod(found + strlen(start), NULL);
}

static void add_many(void *argument)
{
    (void)argument;
    for (uint32_t i = 0; i < ADDS; i++) {
        metrics_add(METRIC_HTTP_BYTES_IN, 3);
        metrics_observe(METRIC_JOURNAL_COMMIT_RECORDS, 5);
    }
}

static void test_threads_are_summed(void **state)
{
    (void)state;
    static struct thread *threads[THREADS];
    assert_int_equal(metrics_total(METRIC_HTTP_BYTES_IN), 0);
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(thread_start(&threads[i], "add", add_many, NULL), ERR_OK);
    }
    add_many(NULL); /* this thread has opened no row */
    for (size_t i = 0; i < THREADS; i++) {
        thread_join(threads[i]);
    }
    assert_int_equal(metrics_total(METRIC_HTTP_BYTES_IN), (THREADS + 1) * ADDS * 3);
    char *page = page_text(false);
    assert_true(value_of(page, "http_received_bytes_total") == (THREADS + 1) * ADDS * 3.0);
    assert_true(value_of(page, "journal_commit_records_sum") == (THREADS + 1) * ADDS * 5.0);
    assert_true(value_of(page, "journal_commit_records_bucket{le=\"4\"}") == 0);
    assert_true(value_of(page, "journal_commit_records_bucket{le=\"16\"}") ==
                (THREADS + 1) * (double)ADDS);
    free(page);
}

static void test_histogram(void **state)
{
    (void)state;
    /* Bounds belong to their bucket (Prometheus: "less or equal"). */
    metrics_observe(METRIC_DB_READ_LATENCY, 0);
    metrics_observe(METRIC_DB_READ_LATENCY, 1000);
    metrics_observe(METRIC_DB_READ_LATENCY, 1001);
    metrics_observe(METRIC_DB_READ_LATENCY, 1500000);
    metrics_observe(METRIC_DB_READ_LATENCY, 10000000000);
    metrics_observe(METRIC_DB_READ_LATENCY, 10000000001);
    char *page = page_text(false);
#define BUCKET(le)                                                                                 \
    value_of(page, "db_operations_latency_seconds_bucket{operation=\"read\",le=\"" le "\"}")
    assert_true(BUCKET("1e-06") == 2);
    assert_true(BUCKET("2.5e-06") == 3);
    assert_true(BUCKET("0.001") == 3);
    assert_true(BUCKET("0.0025") == 4);
    assert_true(BUCKET("5") == 4);
    assert_true(BUCKET("10") == 5);
    assert_true(BUCKET("+Inf") == 6);
#undef BUCKET
    assert_true(value_of(page, "db_operations_latency_seconds_count{operation=\"read\"}") == 6);
    assert_non_null(
        strstr(page, "db_operations_latency_seconds_sum{operation=\"read\"} 20.001502002\n"));
    /* The other members of the family are untouched. */
    assert_true(value_of(page, "db_operations_latency_seconds_count{operation=\"write\"}") == 0);
    free(page);
}

static void test_gauges_show_the_last_value(void **state)
{
    (void)state;
    metrics_set(METRIC_JOURNAL_BYTES, 5);
    metrics_set(METRIC_JOURNAL_BYTES, 1234567890123.0);
    metrics_set(METRIC_JOURNAL_OLDEST, 0.25);
    char *page = page_text(false);
    assert_non_null(strstr(page, "\njournal_bytes 1234567890123\n"));
    assert_non_null(strstr(page, "\njournal_oldest_unapplied_seconds 0.25\n"));
    assert_true(value_of(page, "http_open_connections") == 0);
    free(page);
}

/* Every family has one head, before its samples; every line is a head or a sample of the last one.
 */
static void assert_well_formed(const char *page, bool openmetrics)
{
    char family[128] = "";
    char type[32] = "";
    size_t families = 0;
    char *copy = strdup(page);
    assert_non_null(copy);
    char *rest = copy;
    for (char *line = strsep(&rest, "\n"); rest != NULL; line = strsep(&rest, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            char *help = line + 7;
            const char *name = strsep(&help, " ");
            char head[160];
            assert_true(help != NULL && strlen(help) > 0);
            (void)snprintf(head, sizeof(head), "# TYPE %s ", name);
            const char *found = strstr(page, head);
            assert_non_null(found);
            assert_null(strstr(found + 1, head));
            (void)snprintf(family, sizeof(family), "%s", name);
            families++;
        } else if (strncmp(line, "# TYPE ", 7) == 0) {
            assert_memory_equal(line + 7, family, strlen(family));
            (void)snprintf(type, sizeof(type), "%s", line + 8 + strlen(family));
        } else if (strcmp(line, "# EOF") == 0) {
            assert_true(openmetrics);
            assert_string_equal(rest, "");
        } else {
            bool is_counter = strcmp(type, "counter") == 0;
            size_t name_size = strcspn(line, "{ ");
            assert_memory_equal(line, family, strlen(family));
            if (is_counter) {
                assert_memory_equal(line + name_size - 6, "_total", 6);
                assert_int_equal(name_size, strlen(family) + (openmetrics ? 6 : 0));
            }
            char *end = NULL;
            (void)strtod(strrchr(line, ' ') + 1, &end);
            assert_string_equal(end, "");
        }
    }
    assert_true(families > 40);
    free(copy);
}

static void test_both_formats(void **state)
{
    (void)state;
    char *plain = page_text(false);
    assert_well_formed(plain, false);
    assert_null(strstr(plain, "# EOF"));
    assert_non_null(strstr(plain, "# TYPE events_ingested_total counter\n"));
    free(plain);
    char *open = page_text(true);
    assert_well_formed(open, true);
    assert_string_equal(open + strlen(open) - 6, "# EOF\n");
    assert_non_null(strstr(open, "# TYPE events_ingested counter\nevents_ingested_total "));
    assert_non_null(strstr(open, "le=\"1.0\""));
    assert_null(strstr(open, "le=\"1\""));
    free(open);
}

static void test_process_series(void **state)
{
    (void)state;
    char *page = page_text(false);
    assert_true(value_of(page, "process_resident_memory_bytes") > 100000);
    assert_true(value_of(page, "process_virtual_memory_bytes") >
                value_of(page, "process_resident_memory_bytes"));
    assert_true(value_of(page, "process_open_fds") >= 1);
    assert_true(value_of(page, "process_max_fds") >= value_of(page, "process_open_fds"));
    assert_true(value_of(page, "process_threads") >= 1);
    assert_true(value_of(page, "process_cpu_seconds_total") >= 0);
    assert_true(value_of(page, "process_start_time_seconds") > 1500000000);
    free(page);
}

static void test_page_that_does_not_fit(void **state)
{
    (void)state;
    char *whole = page_text(true);
    size_t size = strlen(whole);
    free(whole);
    /* Cut at every 97th byte, so in each part of the page. */
    for (size_t limit = 0; limit + 200 < size; limit += 97) {
        struct buffer page;
        buffer_init(&page, limit);
        assert_int_equal(metrics_write(&page, true), ERR_TOO_LARGE);
        buffer_finish(&page);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_threads_are_summed),
        cmocka_unit_test(test_histogram),
        cmocka_unit_test(test_gauges_show_the_last_value),
        cmocka_unit_test(test_both_formats),
        cmocka_unit_test(test_process_series),
        cmocka_unit_test(test_page_that_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
