/* The settings table and its readers.
 *
 * A row says name, kind, default, bounds, unit, help and where the value goes. The same rows parse,
 * check, document and print; nothing else knows a setting's name. The environment wins over the
 * file, the file over the default. */
#include "settings.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/slice.h"

enum settings_kind {
    SETTINGS_TEXT,
    SETTINGS_WHOLE,   /* a whole number */
    SETTINGS_SECONDS, /* decimal seconds, kept as milliseconds; bounds in milliseconds */
    SETTINGS_SWITCH,  /* 0 or 1 */
};

enum settings_origin { SETTINGS_DEFAULT, SETTINGS_FILE, SETTINGS_ENVIRONMENT };

struct settings_row {
    const char *name;
    enum settings_kind kind;
    const char *fallback; /* the default, as it would be written */
    uint64_t minimum;
    uint64_t maximum;
    const char *unit;
    const char *help;
    size_t offset;
};

#define ROW(name, kind, fallback, minimum, maximum, unit, field, help)                             \
    {                                                                                              \
        name, SETTINGS_##kind, fallback, minimum, maximum, unit, help,                             \
            offsetof(struct settings, field)                                                       \
    }

static const struct settings_row rows[] = {
    ROW("HOST", TEXT, "127.0.0.1", 0, 0, "", host, "Address to listen on; 0.0.0.0 for all."),
    ROW("PORT", WHOLE, "3000", 0, 65535, "", port, "Port to listen on; 0 lets the kernel choose."),
    ROW("METRICS_PORT", WHOLE, "0", 0, 65535, "", metrics_port,
        "Moves /metrics to a port of its own; 0: it stays on PORT."),
    ROW("DATA_DIR", TEXT, "./weir-data", 0, 0, "", data_dir,
        "Everything Weir keeps: journal, uploads, database, command socket."),
    ROW("DATABASE_URL", TEXT, "", 0, 0, "", database_url,
        "The store: sqlite:/path/to/file, or postgresql://user@host/database; empty: weir.db in "
        "DATA_DIR."),
    ROW("DATABASE_READ_URL", TEXT, "", 0, 0, "", database_read_url,
        "PostgreSQL: a replica that is read from; empty: as DATABASE_URL."),
    ROW("ROLES", TEXT, "intake,apply,query", 0, 0, "", roles,
        "What this node does, of intake, apply, query (PostgreSQL: other nodes do the rest). Any "
        "node answers questions; records sent to one without intake are answered 503 not_here; "
        "intake without apply needs NATS_URL."),
    ROW("LOOPS", WHOLE, "0", 0, 64, "threads", loops,
        "Threads that serve connections; 0: one for each processor."),
    ROW("HTTP_CONNECTIONS_MAX", WHOLE, "16384", 16, 1000000, "", connections_max,
        "Connections open at once; later ones are closed."),
    ROW("HTTP_CONNECTIONS_PER_ADDRESS", WHOLE, "4096", 1, 1000000, "", connections_per_address,
        "Connections open at once from one address; raise it behind a proxy."),
    ROW("HTTP_HEAD_TIMEOUT", SECONDS, "10", 10, 3600000, "s", head_timeout_ms,
        "A request head must be complete within this time."),
    ROW("HTTP_IDLE_TIMEOUT", SECONDS, "75", 10, 86400000, "s", idle_timeout_ms,
        "A connection without a request is closed after this time."),
    ROW("HTTP_RATE_GRACE", SECONDS, "10", 10, 3600000, "s", body_grace_ms,
        "A body or a reader may be slower than HTTP_RATE_MIN for this long."),
    ROW("HTTP_RATE_MIN", WHOLE, "1024", 1, 1000000000, "bytes/s", rate_min_bytes,
        "Slowest permitted body and slowest permitted reader."),
    ROW("DRAIN_DELAY", SECONDS, "0", 0, 600000, "s", drain_delay_ms,
        "After SIGTERM /health/ready says 503 for this long while all is served, for balancers."),
    ROW("DRAIN_TIMEOUT", SECONDS, "20", 0, 600000, "s", drain_ms,
        "Open requests may take this long to finish after SIGTERM."),
    ROW("TLS_CERT_FILE", TEXT, "", 0, 0, "", tls_cert_file,
        "Certificate chain (PEM); with TLS_KEY_FILE turns TLS 1.2+ on."),
    ROW("TLS_KEY_FILE", TEXT, "", 0, 0, "", tls_key_file, "Private key (PEM)."),
    ROW("CORS_ALLOWED_ORIGINS", TEXT, "", 0, 0, "", cors_allowed_origins,
        "Origins that browsers may call from, separated by commas, or *; empty: none."),
    ROW("MAX_PAYLOAD_SIZE_MB", WHOLE, "0", 0, 1048576, "MB", max_payload_mb,
        "Largest decoded request body; 0: unlimited. Larger ones are answered 413."),
    ROW("PAYLOAD_WARNING_THRESHOLD_MB", WHOLE, "50", 0, 1048576, "MB", payload_warning_mb,
        "Bodies above this are logged as a warning; 0: never."),
    ROW("PROCESSING_TIMEOUT_SECONDS", SECONDS, "120", 100, 3600000, "s", processing_timeout_ms,
        "How long wait=stored holds an answer before it becomes 202."),
    ROW("INTAKE_POOL_MB", WHOLE, "16", 1, 4096, "MB", intake_pool_mb,
        "Memory of each loop for bodies in progress; when it is used up, reading pauses."),
    ROW("AUTH_CACHE_TTL_SECONDS", WHOLE, "300", 1, 86400, "s", auth_cache_ttl_s,
        "A checked key is not hashed again for this long after its last use."),
    ROW("ARGON2_MEMORY_KIB", WHOLE, "19456", 8, 4194304, "KiB", argon2_memory_kib,
        "Memory of one Argon2id key hash."),
    ROW("ARGON2_PASSES", WHOLE, "2", 1, 100, "", argon2_passes, "Passes of one Argon2id hash."),
    ROW("VERIFIERS", WHOLE, "1", 1, 16, "threads", verifiers, "Threads that check unknown keys."),
    ROW("LIMIT_MB_PER_HOUR", WHOLE, "0", 0, 1000000000, "MB", mb_per_hour,
        "Body bytes that an org may send in an hour; 0: no limit."),
    ROW("REDIS_URL", TEXT, "", 0, 0, "", redis_url,
        "Limits shared by all nodes on one Redis: redis://, rediss:// (TLS, trusts what "
        "SSL_CERT_FILE or the system trusts) or unix://, redis+sentinel://host,host/master, "
        "redis+cluster://host,host; with user:password@ and /database. Give that Redis "
        "maxmemory-policy noeviction. Empty: each node limits alone."),
    ROW("OPEN_SIGNUP", SWITCH, "0", 0, 1, "", open_signup,
        "1: POST /api/keys/generate makes an org and a key for anybody."),
    ROW("NATS_URL", TEXT, "", 0, 0, "", nats_url,
        "The journal in a stream of NATS JetStream (2.9 or later): nats://user:password@host:4222, "
        "tls://host, several by commas; empty: in DATA_DIR. Nodes on one PostgreSQL share a "
        "stream; "
        "with SQLite a stream has one."),
    ROW("NATS_STREAM", TEXT, "weir", 0, 0, "", nats_stream,
        "The stream, made when absent; its subjects are <stream>.frames.<lane>."),
    ROW("NATS_REPLICAS", WHOLE, "1", 1, 5, "", nats_replicas,
        "Servers of the NATS cluster that hold the stream."),
    ROW("NATS_SYNC", TEXT, "interval", 0, 0, "", nats_sync,
        "What jetstream.sync_interval is at the NATS servers, for durability in answers: always, "
        "or interval (an acknowledged record may still be in their page cache)."),
    ROW("NATS_PULL_BATCH_SIZE", WHOLE, "100", 1, 1000, "messages", nats_pull_batch,
        "Messages of up to 16 frames, asked for at a time."),
    ROW("NATS_ACK_WAIT", WHOLE, "30", 1, 3600, "s", nats_ack_wait_s,
        "What is not applied by then is given again, and passed over."),
    ROW("NATS_MAX_ACK_PENDING", WHOLE, "1000", 1, 65536, "messages", nats_ack_pending,
        "Messages given to apply and not yet applied."),
    ROW("JOURNAL_SPOOL", SWITCH, "0", 0, 1, "", journal_spool,
        "1: while NATS takes nothing (away, full, no quorum) records go to segments in DATA_DIR, "
        "and from there to NATS, in order, when it is back; 0: they are answered 503."),
    ROW("JOURNAL_MAX_MB", WHOLE, "4096", 16, 1048576, "MB", journal_max_mb,
        "Unapplied records and uploads held at most; one org may hold half."),
    ROW("JOURNAL_SEGMENT_MB", WHOLE, "64", 1, 1024, "MB", journal_segment_mb,
        "Size of a journal segment."),
    ROW("JOURNAL_REPLAY_SECONDS", WHOLE, "600", 0, 31536000, "s", journal_replay_s,
        "Applied segments are kept this long while there is room."),
    ROW("DISK_RESERVE_MB", WHOLE, "1024", 0, 1048576, "MB", disk_reserve_mb,
        "Free disk below which nothing is accepted (503)."),
    ROW("STORE_CACHE_MB", WHOLE, "32", 1, 65536, "MB", store_cache_mb,
        "Page cache of the database."),
    ROW("STORE_READERS", WHOLE, "0", 0, 64, "threads", store_readers,
        "Threads that read the database; 0: one for each processor, PostgreSQL: one for each "
        "connection."),
    ROW("DATABASE_MAX_CONNECTIONS", WHOLE, "100", 3, 10000, "", max_connections,
        "PostgreSQL: connections at most; one writes, one hears other nodes, WORKER_POOL_SIZE "
        "apply, the others read, up to STORE_READERS."),
    ROW("DATABASE_MIN_CONNECTIONS", WHOLE, "20", 0, 10000, "", min_connections,
        "PostgreSQL: connections that stay open though nothing is read."),
    ROW("DATABASE_IDLE_TIMEOUT", SECONDS, "900", 0, 86400000, "s", connection_idle_ms,
        "PostgreSQL: a connection above the minimum is closed when idle for this long; 0: never."),
    ROW("DATABASE_ACQUIRE_TIMEOUT", SECONDS, "5", 100, 600000, "s", connection_acquire_ms,
        "PostgreSQL: to connect may take this long."),
    ROW("DATABASE_MAX_LIFETIME", SECONDS, "1800", 0, 86400000, "s", connection_lifetime_ms,
        "PostgreSQL: a connection that reads is replaced after this time; 0: never."),
    ROW("DATABASE_QUERY_TIMEOUT", SECONDS, "10", 10, 3600000, "s", query_timeout_ms,
        "A read is cut off after this time (503 query_timeout)."),
    ROW("SLOW_QUERY_MS", WHOLE, "1000", 0, 3600000, "ms", slow_query_ms,
        "Reads above this are logged with their plan; 0: none."),
    ROW("WORKER_POOL_SIZE", WHOLE, "1", 1, 64, "appliers", worker_pool_size,
        "PostgreSQL: appliers of this node, which share the lanes of the journal with those of all "
        "nodes, a connection each; where there are several, events keep their order within a "
        "subject only. With SQLite one applies."),
    ROW("WORKER_BATCH_SIZE", WHOLE, "50", 1, 100000, "records", worker_batch_size,
        "Records in a batch that is filling; grows with the backlog."),
    ROW("WORKER_BATCH_TIMEOUT", SECONDS, "0.5", 0, 60000, "s", worker_batch_timeout_ms,
        "A batch that is filling waits at most this long."),
    ROW("APPLY_PAUSED", SWITCH, "0", 0, 1, "", apply_paused,
        "1: records are accepted and not applied; for maintenance."),
    ROW("RETENTION_RAW_DAYS", WHOLE, "30", 0, 36500, "days", retention_raw_days,
        "Bodies of uploads are kept this long after they were applied."),
    ROW("LOG_LEVEL", TEXT, "info", 0, 0, "", log_level, "debug, info, warn or error."),
};
#undef ROW

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

/* Names that users of earlier systems know and that have no effect on the embedded engines. */
static const char *const ignored_names[] = {
    "ENABLE_ADAPTIVE_PROCESSING",
    "NATS_MAX_DELIVER",
};

/* Origin of each row's value; beside the struct so that it stays plain values. */
static enum settings_origin origins[ROW_COUNT];

static const struct settings_row *row_find(struct slice name)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (slice_equal(name, slice_from_text(rows[i].name))) {
            return &rows[i];
        }
    }
    return NULL;
}

static bool name_is_ignored(struct slice name)
{
    for (size_t i = 0; i < sizeof(ignored_names) / sizeof(ignored_names[0]); i++) {
        if (slice_equal(name, slice_from_text(ignored_names[i]))) {
            return true;
        }
    }
    return false;
}

/* Decimal seconds, at most three digits after the point, as milliseconds. */
static bool seconds_parse(struct slice text, uint64_t *ret_ms)
{
    struct slice fraction;
    struct slice whole = slice_cut(text, '.', &fraction);
    uint64_t seconds = 0;
    uint64_t thousandths = 0;
    if (!slice_to_u64(whole, &seconds) || seconds > UINT64_MAX / 2000) {
        return false;
    }
    if (fraction.data != NULL) {
        if (fraction.size > 3 || !slice_to_u64(fraction, &thousandths)) {
            return false;
        }
        for (size_t i = fraction.size; i < 3; i++) {
            thousandths *= 10;
        }
    }
    *ret_ms = seconds * 1000 + thousandths;
    return true;
}

/* Replaces `count` bytes from `from` on by three stars; what then has no room is cut off. */
static void mask(char *text, size_t size, size_t from, size_t count)
{
    size_t after = strlen(text + from + count);
    if (from + 4 > size) {
        text[from] = '\0';
        return;
    }
    if (from + 3 + after >= size) {
        after = size - from - 4;
    }
    memmove(text + from + 3, text + from + count, after);
    memcpy(text + from, "***", 3);
    text[from + 3 + after] = '\0';
}

/* In what follows "://": the password, or the token that stands alone. */
static void hide_authority(char *text, size_t size, char *place, bool has_tokens)
{
    size_t authority = strcspn(place, "/?#");
    char *at = memrchr(place, '@', authority);
    if (at == NULL) { /* a slash in a password that should have been %2F */
        at = strrchr(place, '@');
        authority = at == NULL ? authority : (size_t)(at - place);
    }
    char *colon = memchr(place, ':', authority);
    if (at != NULL && colon != NULL && colon < at) {
        mask(text, size, (size_t)(colon + 1 - text), (size_t)(at - colon - 1));
    } else if (at != NULL && has_tokens) {
        mask(text, size, (size_t)(place - text), (size_t)(at - place));
    }
}

/* The passwords of a URL, or of several, between the user and the host or as a parameter. */
static void hide_password(char *text, size_t size, bool has_tokens)
{
    char *place = strstr(text, "://");
    if (place == NULL) {
        return;
    }
    for (char *next = place; next != NULL; next = strstr(next + 3, "://")) {
        hide_authority(text, size, next + 3, has_tokens);
    }
    char *parameter = strstr(place, "password=");
    if (parameter != NULL) {
        parameter += strlen("password=");
        mask(text, size, (size_t)(parameter - text), strcspn(parameter, "&"));
    }
}

static void value_text(const struct settings *settings, const struct settings_row *row, char *to,
                       size_t size)
{
    const char *field = (const char *)settings + row->offset;
    if (row->kind == SETTINGS_TEXT) {
        (void)snprintf(to, size, "%s", *(char *const *)(const void *)field);
        hide_password(to, size, row->offset == offsetof(struct settings, nats_url));
        return;
    }
    uint64_t value = *(const uint64_t *)(const void *)field;
    if (row->kind == SETTINGS_SECONDS && value % 1000 != 0) {
        (void)snprintf(to, size, "%g", (double)value / 1000.0);
    } else if (row->kind == SETTINGS_SECONDS) {
        (void)snprintf(to, size, "%llu", (unsigned long long)(value / 1000));
    } else {
        (void)snprintf(to, size, "%llu", (unsigned long long)value);
    }
}

static enum err value_set(struct settings *settings, const struct settings_row *row,
                          struct slice text, struct err_detail *detail)
{
    char *field = (char *)settings + row->offset;
    if (row->kind == SETTINGS_TEXT) {
        char **slot = (char **)(void *)field;
        char *copy = mem_try_alloc(text.size + 1);
        if (copy == NULL) {
            return ERR_NO_MEMORY;
        }
        if (text.size > 0) {
            memcpy(copy, text.data, text.size);
        }
        copy[text.size] = '\0';
        mem_free(*slot);
        *slot = copy;
        return ERR_OK;
    }
    uint64_t value = 0;
    bool good =
        row->kind == SETTINGS_SECONDS ? seconds_parse(text, &value) : slice_to_u64(text, &value);
    if (!good || value < row->minimum || value > row->maximum) {
        double scale = row->kind == SETTINGS_SECONDS ? 1000.0 : 1.0;
        err_detail_set(detail, "%s=%.*s: must be a number from %.10g to %.10g%s%s", row->name,
                       (int)(text.size < 80 ? text.size : 80), (const char *)text.data,
                       (double)row->minimum / scale, (double)row->maximum / scale,
                       row->unit[0] != '\0' ? " " : "", row->unit);
        return ERR_CONFIG;
    }
    *(uint64_t *)(void *)field = value;
    return ERR_OK;
}

static bool url_is_postgres(const char *url)
{
    return strncmp(url, "postgresql://", 13) == 0 || strncmp(url, "postgres://", 11) == 0;
}

static enum err check_database(const struct settings *settings, struct err_detail *detail)
{
    const char *url = settings->database_url;
    if (url[0] != '\0' && strncmp(url, "sqlite:", 7) != 0 && !url_is_postgres(url)) {
        err_detail_set(detail,
                       "DATABASE_URL: must begin with sqlite: or postgresql:// (or be empty)");
        return ERR_CONFIG;
    }
    if (settings->database_read_url[0] != '\0' &&
        (!url_is_postgres(settings->database_read_url) || !url_is_postgres(url))) {
        err_detail_set(detail, "DATABASE_READ_URL: must begin with postgresql://, as DATABASE_URL");
        return ERR_CONFIG;
    }
    return ERR_OK;
}

static bool is_stream_name(const char *name)
{
    size_t size = strlen(name);
    return size > 0 && size <= 32 &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == size;
}

static enum err check_nats(const struct settings *settings, struct err_detail *detail)
{
    if (!is_stream_name(settings->nats_stream)) {
        err_detail_set(detail, "NATS_STREAM: must be 1 to 32 of A-Z a-z 0-9 _ -");
        return ERR_CONFIG;
    }
    if (strcmp(settings->nats_sync, "always") != 0 &&
        strcmp(settings->nats_sync, "interval") != 0) {
        err_detail_set(detail, "NATS_SYNC=%.80s: must be always or interval", settings->nats_sync);
        return ERR_CONFIG;
    }
    if (settings->journal_spool != 0 && settings->nats_url[0] == '\0') {
        err_detail_set(detail, "JOURNAL_SPOOL=1: needs NATS_URL, for which it stands in");
        return ERR_CONFIG;
    }
    return ERR_OK;
}

bool settings_has_role(const struct settings *settings, const char *role)
{
    struct slice rest = slice_from_text(settings->roles);
    while (rest.size > 0) {
        if (slice_equal(slice_trim(slice_cut(rest, ',', &rest)), slice_from_text(role))) {
            return true;
        }
    }
    return false;
}

static enum err check_roles(const struct settings *settings, struct err_detail *detail)
{
    struct slice rest = slice_from_text(settings->roles);
    bool has_all = settings_has_role(settings, "intake") && settings_has_role(settings, "apply") &&
                   settings_has_role(settings, "query");
    do {
        struct slice word = slice_trim(slice_cut(rest, ',', &rest));
        if (!slice_equal(word, SLICE_LITERAL("intake")) &&
            !slice_equal(word, SLICE_LITERAL("apply")) &&
            !slice_equal(word, SLICE_LITERAL("query"))) {
            err_detail_set(detail, "ROLES=%.80s: must be some of intake,apply,query",
                           settings->roles);
            return ERR_CONFIG;
        }
    } while (rest.size > 0);
    if (!has_all && !url_is_postgres(settings->database_url)) {
        err_detail_set(detail, "ROLES=%.80s: other nodes do the rest on a PostgreSQL store alone",
                       settings->roles);
        return ERR_CONFIG;
    }
    if (settings_has_role(settings, "intake") && !settings_has_role(settings, "apply") &&
        settings->nats_url[0] == '\0') {
        err_detail_set(detail,
                       "ROLES=%.80s: without NATS_URL what a node takes in is applied by "
                       "itself alone: add apply",
                       settings->roles);
        return ERR_CONFIG;
    }
    return ERR_OK;
}

/* What the values must satisfy together. */
static enum err check_whole(const struct settings *settings, struct err_detail *detail)
{
    enum log_level level;
    if (!log_level_from_text(settings->log_level, &level)) {
        err_detail_set(detail, "LOG_LEVEL=%s: must be debug, info, warn or error",
                       settings->log_level);
        return ERR_CONFIG;
    }
    if ((settings->tls_cert_file[0] == '\0') != (settings->tls_key_file[0] == '\0')) {
        err_detail_set(detail, "TLS_CERT_FILE and TLS_KEY_FILE must be set together");
        return ERR_CONFIG;
    }
    if (settings->data_dir[0] == '\0') {
        err_detail_set(detail, "DATA_DIR must not be empty");
        return ERR_CONFIG;
    }
    enum err err = check_nats(settings, detail);
    if (err == ERR_OK) {
        err = check_roles(settings, detail);
    }
    return err == ERR_OK ? check_database(settings, detail) : err;
}

static enum err line_read(struct settings *settings, struct slice line, struct err_detail *detail)
{
    line = slice_trim(line);
    if (line.size == 0 || line.data[0] == '#') {
        return ERR_OK;
    }
    struct slice value;
    struct slice name = slice_trim(slice_cut(line, '=', &value));
    if (value.data == NULL) {
        err_detail_set(detail, "expected NAME=value");
        return ERR_CONFIG;
    }
    value = slice_trim(value);
    if (value.size >= 2 && value.data[0] == '"' && value.data[value.size - 1] == '"') {
        value = slice_part(value, 1, value.size - 1);
    }
    const struct settings_row *row = row_find(name);
    if (row == NULL && name_is_ignored(name)) {
        log_write(LOG_WARN, "settings", "%.*s has no effect on the embedded engines",
                  (int)name.size, (const char *)name.data);
        return ERR_OK;
    }
    if (row == NULL) {
        err_detail_set(detail, "unknown name %.*s (weir serve --help lists the names)",
                       (int)(name.size < 80 ? name.size : 80), (const char *)name.data);
        return ERR_CONFIG;
    }
    origins[row - rows] = SETTINGS_FILE;
    return value_set(settings, row, value, detail);
}

static enum err file_read(struct settings *settings, const char *path, bool required,
                          struct err_detail *detail)
{
    enum err err = ERR_OK;
    char *line = NULL;
    size_t capacity = 0;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        if (!required && errno == ENOENT) {
            return ERR_OK;
        }
        err_detail_set(detail, "%s: %s", path, err_text(err_from_errno(errno)));
        return ERR_CONFIG;
    }
    unsigned number = 0;
    ssize_t size;
    while (err == ERR_OK && (size = getline(&line, &capacity, file)) >= 0) {
        number++;
        while (size > 0 && (line[size - 1] == '\n' || line[size - 1] == '\r')) {
            size--;
        }
        err = line_read(settings, slice_make(line, (size_t)size), detail);
    }
    if (err != ERR_OK) {
        err_detail_prefix(detail, "%s line %u", path, number);
    } else if (ferror(file)) {
        err_detail_set(detail, "%s: cannot be read", path);
        err = ERR_CONFIG;
    }
    free(line); /* getline's own allocation */
    (void)fclose(file);
    return err;
}

static enum err environment_read(struct settings *settings, struct err_detail *detail)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        /* proof: main reads the environment before any thread is made. */
        const char *value = getenv(rows[i].name); // NOLINT(concurrency-mt-unsafe)
        if (value == NULL) {
            continue;
        }
        origins[i] = SETTINGS_ENVIRONMENT;
        enum err err = value_set(settings, &rows[i], slice_from_text(value), detail);
        if (err != ERR_OK) {
            err_detail_prefix(detail, "environment");
            return err;
        }
    }
    for (size_t i = 0; i < sizeof(ignored_names) / sizeof(ignored_names[0]); i++) {
        if (getenv(ignored_names[i]) != NULL) { // NOLINT(concurrency-mt-unsafe)
            log_write(LOG_WARN, "settings", "%s has no effect on the embedded engines",
                      ignored_names[i]);
        }
    }
    return ERR_OK;
}

enum err settings_load(struct settings *ret, const char *file, struct err_detail *detail)
{
    struct settings settings = {0};
    enum err err = ERR_OK;
    for (size_t i = 0; i < ROW_COUNT && err == ERR_OK; i++) {
        origins[i] = SETTINGS_DEFAULT;
        err = value_set(&settings, &rows[i], slice_from_text(rows[i].fallback), detail);
        assert(err != ERR_CONFIG); /* a default is within its own bounds */
    }
    if (err == ERR_OK) {
        err = file_read(&settings, file != NULL ? file : "weir.conf", file != NULL, detail);
    }
    if (err == ERR_OK) {
        err = environment_read(&settings, detail);
    }
    if (err == ERR_OK) {
        err = check_whole(&settings, detail);
    }
    if (err != ERR_OK) {
        settings_finish(&settings);
        return err;
    }
    *ret = settings;
    return ERR_OK;
}

void settings_finish(struct settings *settings)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        if (rows[i].kind == SETTINGS_TEXT) {
            char **slot = (char **)(void *)((char *)settings + rows[i].offset);
            mem_free(*slot);
            *slot = NULL;
        }
    }
}

enum err settings_print(const struct settings *settings, struct buffer *to)
{
    static const char *const origin_names[] = {"default", "file", "environment"};
    for (size_t i = 0; i < ROW_COUNT; i++) {
        char text[1024];
        value_text(settings, &rows[i], text, sizeof(text));
        enum err err =
            buffer_printf(to, "%s=%s  # %s\n", rows[i].name, text, origin_names[origins[i]]);
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

enum err settings_print_help(struct buffer *to)
{
    for (size_t i = 0; i < ROW_COUNT; i++) {
        enum err err = buffer_printf(to, "  %-30s %s%s%s%s (default %s)\n", rows[i].name,
                                     rows[i].help, rows[i].unit[0] != '\0' ? " [" : "",
                                     rows[i].unit, rows[i].unit[0] != '\0' ? "]" : "",
                                     rows[i].fallback[0] != '\0' ? rows[i].fallback : "empty");
        if (err != ERR_OK) {
            return err;
        }
    }
    return ERR_OK;
}

static void bounds_text(const struct settings_row *row, char *to, size_t size)
{
    double scale = row->kind == SETTINGS_SECONDS ? 1000.0 : 1.0;
    if (row->kind == SETTINGS_TEXT) {
        (void)snprintf(to, size, "text");
    } else {
        (void)snprintf(to, size, "%.10g to %.10g", (double)row->minimum / scale,
                       (double)row->maximum / scale);
    }
}

enum err settings_print_markdown(struct buffer *to)
{
    enum err err = buffer_append_text(
        to, "# Settings\n\n"
            "Generated by `weir config --markdown` from the table in app/settings.c; a test "
            "compares.\n\n"
            "Each name is an environment variable, or a line `NAME=value` in `weir.conf` in the "
            "working\n"
            "directory (another file: `weir serve --config FILE`). The environment wins over the "
            "file. An\n"
            "unknown name in the file is an error. A change takes effect at the next start.\n\n"
            "| name | default | permitted | unit | what it does |\n|---|---|---|---|---|\n");
    for (size_t i = 0; i < ROW_COUNT && err == ERR_OK; i++) {
        char bounds[64];
        bounds_text(&rows[i], bounds, sizeof(bounds));
        err = buffer_printf(to, "| %s | %s%s%s | %s | %s | %s |\n", rows[i].name,
                            rows[i].fallback[0] != '\0' ? "`" : "", rows[i].fallback,
                            rows[i].fallback[0] != '\0' ? "`" : "", bounds, rows[i].unit,
                            rows[i].help);
    }
    if (err == ERR_OK) {
        err = buffer_append_text(to,
                                 "\nAccepted with a warning, because users of earlier systems set "
                                 "them and they have no effect on\nthe embedded engines:");
    }
    for (size_t i = 0; i < sizeof(ignored_names) / sizeof(ignored_names[0]) && err == ERR_OK; i++) {
        err = buffer_printf(to, "%s %s", i == 0 ? "" : ",", ignored_names[i]);
    }
    return err == ERR_OK ? buffer_append_text(to, ".\n") : err;
}
