/* Settings: the one table. It reads the environment and weir.conf, refuses what is unknown or out
 * of bounds, prints help, the effective settings with their origin, and docs/config.md.
 *
 * Thread: main, before the others start; read-only afterwards.
 * Memory: the struct owns its texts until settings_finish.
 * Errors: ERR_CONFIG, with the name, the line and what would be right in the detail. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/err.h"

struct settings {
    /* where */
    char *host;
    uint64_t port;
    uint64_t metrics_port; /* 0: /metrics is served on port */
    char *data_dir;
    char *database_url;
    char *database_read_url;
    char *roles;
    /* http */
    uint64_t loops;
    uint64_t connections_max;
    uint64_t connections_per_address;
    uint64_t head_timeout_ms;
    uint64_t idle_timeout_ms;
    uint64_t body_grace_ms;
    uint64_t rate_min_bytes;
    uint64_t drain_delay_ms;
    uint64_t drain_ms;
    char *tls_cert_file;
    char *tls_key_file;
    char *cors_allowed_origins;
    /* intake */
    uint64_t max_payload_mb;
    uint64_t payload_warning_mb;
    uint64_t processing_timeout_ms;
    uint64_t intake_pool_mb;
    /* gate */
    uint64_t auth_cache_ttl_s;
    uint64_t argon2_memory_kib;
    uint64_t argon2_passes;
    uint64_t verifiers;
    uint64_t mb_per_hour;
    uint64_t open_signup;
    char *redis_url;
    /* journal */
    char *nats_url;
    char *nats_stream;
    uint64_t nats_replicas;
    char *nats_sync;
    uint64_t nats_pull_batch;
    uint64_t nats_ack_wait_s;
    uint64_t nats_ack_pending;
    uint64_t journal_spool;
    uint64_t journal_max_mb;
    uint64_t journal_segment_mb;
    uint64_t journal_replay_s;
    uint64_t disk_reserve_mb;
    /* store and apply */
    uint64_t store_cache_mb;
    uint64_t store_readers;
    uint64_t max_connections;
    uint64_t min_connections;
    uint64_t connection_idle_ms;
    uint64_t connection_acquire_ms;
    uint64_t connection_lifetime_ms;
    uint64_t query_timeout_ms;
    uint64_t slow_query_ms;
    uint64_t worker_pool_size;
    uint64_t worker_batch_size;
    uint64_t worker_batch_timeout_ms;
    uint64_t apply_paused;
    uint64_t retention_raw_days;
    /* log */
    char *log_level;
};

/* `file` NULL: ./weir.conf if there is one. Warnings (a name that has no effect here) are logged.
 */
MUST_CHECK enum err settings_load(struct settings *ret, const char *file,
                                  struct err_detail *detail);
void settings_finish(struct settings *settings);
/* Whether ROLES names it. */
bool settings_has_role(const struct settings *settings, const char *role);
/* NAME=value  # default|file|environment; secrets in URLs are masked. */
MUST_CHECK enum err settings_print(const struct settings *settings, struct buffer *to);
/* The table for --help. */
MUST_CHECK enum err settings_print_help(struct buffer *to);
/* docs/config.md. */
MUST_CHECK enum err settings_print_markdown(struct buffer *to);
