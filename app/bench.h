/* Bench: a load generator and an audit, in the same binary as the server.
 *
 * Thread: main.
 * Memory: a connection's buffers are bounded by one request and one answer.
 * Errors: a refused connection or an answer outside 2xx is counted, never hidden; the ids file
 * holds exactly what was acknowledged. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"
#include "base/slice.h"

/* Latencies in nanoseconds, log-linear: 128 steps for each power of two, so below 0.8 % error. */
#define BENCH_HISTOGRAM_BUCKETS 7424u
struct bench_histogram {
    uint64_t counts[BENCH_HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t maximum_ns;
};
void bench_histogram_add(struct bench_histogram *histogram, uint64_t nanoseconds);
/* `share` 0 to 1: the value below or at which this share of all lies, in milliseconds. */
double bench_histogram_ms(const struct bench_histogram *histogram, double share);

struct bench_options {
    char host[256];
    uint16_t port;
    const char *key;
    const char *path; /* NULL: chosen by batch */
    uint32_t connections;
    double duration_s;
    uint64_t count;       /* requests in all; 0: by time */
    double rate;          /* requests a second, open loop; 0: closed loop */
    double ramp_up_s;     /* connections join over this time … */
    double ramp_down_s;   /* … and leave over this one, after duration_s */
    uint32_t batch;       /* events a request; 1: POST /api/events, more: NDJSON */
    uint32_t event_bytes; /* size of one event, about */
    bool server_ids;      /* send no dedup_id */
    bool wrong_keys;      /* the last 16 characters of the key are a serial number */
    bool get;             /* GET instead of POST */
    const char *ids_file; /* acknowledged ids, one a line */
    bool json;
    uint64_t seed;
};

struct bench_result {
    struct bench_histogram latency;
    uint64_t requests; /* answered 2xx */
    uint64_t events;   /* in them */
    uint64_t errors;   /* answered otherwise */
    uint64_t broken;   /* connections that ended in the middle */
    uint64_t late;     /* open loop: due and not sent at the end */
    uint64_t bytes_sent;
    int first_error_status;
    double seconds;
};

MUST_CHECK enum err bench_load(const struct bench_options *options, struct bench_result *ret,
                               struct err_detail *detail);
/* Every id of the file must be in the store exactly once. Prints its counts; gives the exit status.
 */
int bench_audit(const struct bench_options *options);
/* Blocking connection to the server under test; -1 with errno. */
int bench_connect(const struct bench_options *options);
