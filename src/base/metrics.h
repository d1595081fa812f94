/* Metrics: counters, histograms and gauges; a row of numbers per thread, summed when read.
 *
 * Each series is a member of the lists below, so labels are bounded by construction. Adding one is
 * adding a line.
 *
 * Thread: add, observe and set from any thread made by base/thread (or after metrics_open_row);
 *         write is for any thread. A row is written by its thread alone: relaxed loads and stores
 *         pair with the relaxed loads of the page.
 * Memory: rows live until the process ends.
 * Errors: more than METRICS_ROWS_MAX threads share the last row's numbers (adds are atomic). */
#pragma once
#include "base/buffer.h"
#include "base/err.h"

#define METRICS_ROWS_MAX 64

/* id, family name, labels without braces, help of the family (first line of a family counts).
 * Members of a family stand together. */
#define METRICS_COUNTERS(X)                                                                        \
    X(EVENTS_INGESTED, "events_ingested_total", "", "Events acknowledged as durable.")             \
    X(CACHE_KEY_HIT, "cache_lookups_total", "cache=\"key\",result=\"hit\"", "Cache look-ups.")     \
    X(CACHE_KEY_MISS, "cache_lookups_total", "cache=\"key\",result=\"miss\"", "")                  \
    X(CACHE_KEY_NEGATIVE, "cache_lookups_total", "cache=\"key\",result=\"negative\"", "")          \
    X(CACHE_DEDUP_HIT, "cache_lookups_total", "cache=\"recent_ids\",result=\"hit\"", "")           \
    X(CACHE_DEDUP_MISS, "cache_lookups_total", "cache=\"recent_ids\",result=\"miss\"", "")         \
    X(VALIDATION_MALFORMED, "validation_errors_total", "type=\"malformed\"",                       \
      "Bodies and records refused.")                                                               \
    X(VALIDATION_INVALID, "validation_errors_total", "type=\"invalid\"", "")                       \
    X(VALIDATION_TOO_LARGE, "validation_errors_total", "type=\"payload_too_large\"", "")           \
    X(VALIDATION_UNSUPPORTED, "validation_errors_total", "type=\"unsupported\"", "")               \
    X(DEDUP_CONFLICTS, "dedup_conflicts_total", "",                                                \
      "Records whose dedup_id was known with another payload; the first stays.")                   \
    X(DEDUP_DUPLICATES, "dedup_duplicates_total", "",                                              \
      "Records whose id was in the store already.")                                                \
    X(AUTH_FAILED, "auth_failures_total", "", "Requests with a missing or bad key.")               \
    X(AUTH_VERIFIED, "auth_key_checks_total", "", "Cold key checks (Argon2id).")                   \
    X(LIMITED_REQUESTS, "rate_limited_total", "limit=\"requests\"",                                \
      "Requests refused by a limit.")                                                              \
    X(LIMITED_BYTES, "rate_limited_total", "limit=\"bytes\"", "")                                  \
    X(LIMITED_QUEUE, "rate_limited_total", "limit=\"queue\"", "")                                  \
    X(REDIS_LEASES, "redis_leases_total", "result=\"ok\"",                                         \
      "Leases of shared limits asked of Redis.")                                                   \
    X(REDIS_FAILURES, "redis_leases_total", "result=\"failed\"", "")                               \
    X(HTTP_REQUESTS_2XX, "http_requests_total", "status=\"2xx\"", "Answers by class.")             \
    X(HTTP_REQUESTS_3XX, "http_requests_total", "status=\"3xx\"", "")                              \
    X(HTTP_REQUESTS_4XX, "http_requests_total", "status=\"4xx\"", "")                              \
    X(HTTP_REQUESTS_5XX, "http_requests_total", "status=\"5xx\"", "")                              \
    X(HTTP_CONNECTIONS, "http_connections_total", "", "Connections accepted.")                     \
    X(HTTP_CONNECTIONS_REFUSED, "http_connections_refused_total", "",                              \
      "Connections closed at once because a limit was reached.")                                   \
    X(HTTP_TIMEOUTS, "http_timeouts_total", "", "Connections closed by a timeout.")                \
    X(HTTP_BYTES_IN, "http_received_bytes_total", "", "Bytes read from clients.")                  \
    X(HTTP_BYTES_OUT, "http_sent_bytes_total", "", "Bytes written to clients.")                    \
    X(STREAM_CUT_SLOW, "event_streams_cut_total", "reason=\"slow\"",                               \
      "Live tails cut because their subscribers do not read.")                                     \
    X(STREAM_CUT_MEMORY, "event_streams_cut_total", "reason=\"memory\"", "")                       \
    X(JOURNAL_COMMITS, "journal_commits_total", "", "Group commits made durable.")                 \
    X(JOURNAL_FAILURES, "journal_failures_total", "", "Segments given up after a failed write.")   \
    X(JOURNAL_TORN, "journal_torn_tails_total", "", "Torn tails cut at start.")                    \
    X(JOURNAL_DAMAGED, "journal_damaged_bytes_total", "", "Bytes quarantined at start.")           \
    X(JOURNAL_DROPPED, "journal_records_dropped_total", "",                                        \
      "Acknowledged records lost: always 0.")                                                      \
    X(JOURNAL_RESENT, "journal_resent_frames_total", "",                                           \
      "Acknowledged frames given to the stream again because nobody had applied them.")            \
    X(JOURNAL_UNKEPT, "journal_unkept_frames_total", "",                                           \
      "Acknowledged frames that were not kept until they were applied: more than fit.")            \
    X(SPOOL_FORWARDED, "spool_forwarded_total", "", "Frames of the spool given to the stream.")    \
    X(APPLY_DEAD_LETTERS, "ingest_dlq_total", "reason=\"refused\"",                                \
      "Records given up and kept as dead letters.")                                                \
    X(APPLY_DEAD_UNREADABLE, "ingest_dlq_total", "reason=\"unreadable\"", "")                      \
    X(CONSUMER_REDELIVERED, "ingest_consumer_redelivered_total", "",                               \
      "Frames handed to the store once more because it had not kept them.")                        \
    X(WORKER_BATCHES, "worker_batches_total", "worker=\"0\"", "Batches applied to the store.")     \
    X(SLOW_QUERIES, "db_slow_queries_total", "", "Queries above SLOW_QUERY_MS.")                   \
    X(QUERY_TIMEOUTS, "db_query_timeouts_total", "", "Queries cut off by the query timeout.")

/* id, name, labels, help, bucket set */
#define METRICS_HISTOGRAMS(X)                                                                      \
    X(INGEST_LATENCY, "event_ingestion_latency_seconds", "", "Request head to durable.", SECONDS)  \
    X(AUTH_LATENCY, "auth_latency_seconds", "", "Key check, cached and cold.", SECONDS)            \
    X(RATE_LIMIT_LATENCY, "rate_limit_check_latency_seconds", "", "Limit check.", SECONDS)         \
    X(REDIS_SECONDS, "redis_round_trip_seconds", "", "Leases asked of Redis together.", SECONDS)   \
    X(DB_WRITE_LATENCY, "db_operations_latency_seconds", "operation=\"write\"",                    \
      "Store operations.", SECONDS)                                                                \
    X(DB_READ_LATENCY, "db_operations_latency_seconds", "operation=\"read\"", "", SECONDS)         \
    X(DB_CHECKPOINT_LATENCY, "db_operations_latency_seconds", "operation=\"checkpoint\"", "",      \
      SECONDS)                                                                                     \
    X(WORKER_COMMIT, "worker_db_commit_seconds", "", "Commit of an applied batch.", SECONDS)       \
    X(QUEUE_LATENCY, "ingest_queue_latency_seconds", "", "Accepted to applied.", SECONDS)          \
    X(BATCH_SIZE, "ingest_batch_size", "", "Records in an applied batch.", COUNTS)                 \
    X(JOURNAL_COMMIT_SECONDS, "journal_commit_seconds", "", "Write and sync of a group commit.",   \
      SECONDS)                                                                                     \
    X(JOURNAL_COMMIT_RECORDS, "journal_commit_records", "", "Frames in a group commit.", COUNTS)

/* id, name, labels, help. Set by their owner; the last value shows. */
#define METRICS_GAUGES(X)                                                                          \
    X(QUEUE_SIZE, "event_queue_size", "", "Acknowledged records not yet in the store.")            \
    X(QUEUE_DEPTH, "ingest_queue_depth", "", "Acknowledged records not yet in the store.")         \
    X(QUEUE_CAPACITY, "event_queue_capacity", "", "Bytes the journal may hold unapplied.")         \
    X(CONSUMER_PENDING, "ingest_consumer_pending", "", "Frames not yet read by apply.")            \
    X(CONSUMER_ACK_PENDING, "ingest_consumer_ack_pending", "",                                     \
      "Frames read and not yet committed.")                                                        \
    X(JOURNAL_BYTES, "journal_bytes", "",                                                          \
      "Bytes of frames and uploads on disk, or in the streams of all nodes.")                      \
    X(JOURNAL_OLDEST, "journal_oldest_unapplied_seconds", "",                                      \
      "Age of the oldest unapplied frame.")                                                        \
    X(SPOOL_FRAMES, "spool_frames", "", "Frames in the spool that the stream does not have.")      \
    X(SPOOL_BYTES, "spool_bytes", "", "Bytes of the spool's segments on disk.")                    \
    X(WORKER_LAST_ACTIVE, "worker_last_active_seconds", "worker=\"0\"",                            \
      "Unix time of the worker's last batch.")                                                     \
    X(HTTP_OPEN, "http_open_connections", "", "Connections open now.")                             \
    X(REDIS_UP, "redis_up", "", "1: limits are shared by Redis; 0: each node limits alone.")       \
    X(STREAM_OPEN, "event_stream_subscribers", "", "Live tails open now.")

enum metrics_counter {
#define X(id, ...) METRIC_##id,
    METRICS_COUNTERS(X)
#undef X
        METRICS_COUNTER_COUNT
};
enum metrics_histogram {
#define X(id, ...) METRIC_##id,
    METRICS_HISTOGRAMS(X)
#undef X
        METRICS_HISTOGRAM_COUNT
};
enum metrics_gauge {
#define X(id, ...) METRIC_##id,
    METRICS_GAUGES(X)
#undef X
        METRICS_GAUGE_COUNT
};

/* Gives the calling thread a row of its own; thread_start does it for its threads. */
void metrics_open_row(void);
void metrics_add(enum metrics_counter counter, uint64_t amount);
/* Histograms of seconds take nanoseconds; histograms of counts take counts. */
void metrics_observe(enum metrics_histogram histogram, uint64_t value);
void metrics_observe_many(enum metrics_histogram histogram, uint64_t value, uint64_t times);
void metrics_set(enum metrics_gauge gauge, double value);
/* Sum over all rows. */
uint64_t metrics_total(enum metrics_counter counter);
/* The page, Prometheus text format 0.0.4, or OpenMetrics 1.0.0 (ends in "# EOF"); process_* series
 * included. Source: prometheus.io exposition formats; OpenMetrics 1.0.0. */
MUST_CHECK enum err metrics_write(struct buffer *to, bool openmetrics);
