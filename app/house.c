/* Opening, starting, stopping and closing the stages.
 *
 * Order of start: lock, store (writer, readers), gate (verifiers, Redis), journal (committer,
 * preparer, uploader), api, http, apply, loops. The journal is opened with the cursor that the
 * store has, and numbered from the base that the store gives it.
 *
 * Order of stop follows the data: http stops accepting and answers what is open (so committer,
 * applier and store still run), the journal commits and closes, the applier commits its batch, the
 * store checkpoints. A kill -9 at any point of this only means that the next start reads more of
 * the journal. */
#include "house.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "api/api.h"
#include "apply/apply.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/thread.h"
#include "gate/gate.h"
#include "house_locks.h"
#include "house_plan.h"
#include "http/http.h"
#include "journal/journal.h"
#include "store/store.h"

#define MEBIBYTE           (1024ull * 1024ull)
#define HOUSE_THREADS_MAX  144u /* of a group */
#define HOUSE_READERS_MAX  61u
#define HOUSE_LOOPS_MAX    64u
#define STORE_LOCK_WAIT_MS 10000u
#define CATCH_UP_LOOK_MS   20

/* Threads are joined by group, because the groups stop one after the other. */
enum house_group {
    HOUSE_METRICS,
    HOUSE_LOOPS,
    HOUSE_JOURNAL,
    HOUSE_APPLY,
    HOUSE_GATE,
    HOUSE_STORE,
    HOUSE_GROUPS
};

struct house {
    const struct settings *settings;
    int lock_fd;       /* of DATA_DIR */
    int store_lock_fd; /* of a database in a file, wherever it lies */
    uint64_t run;      /* random number of this process */
    uint32_t loops;
    uint32_t readers;
    uint32_t appliers; /* 0: one without leases */
    struct id former;  /* journal in DATA_DIR while NATS has the journal; else zeros */
    char spill[HOUSE_PATH_BYTES];
    bool is_serving;         /* else a command: no threads */
    struct mailbox *mailbox; /* main's own, for jobs it waits for */
    struct store *store;
    struct gate *gate;
    struct journal *journal;
    struct api *api;
    struct http_server *server;
    struct http_server *metrics_server; /* NULL: /metrics is on the other one */
    struct apply *apply;
    struct thread *threads[HOUSE_GROUPS][HOUSE_THREADS_MAX];
    uint32_t thread_counts[HOUSE_GROUPS];
};

/* A new one must not go, with all that is acknowledged in it, because its name was not durable. */
static enum err make_directory(const char *path, struct err_detail *detail)
{
    char parent[HOUSE_PATH_BYTES];
    (void)snprintf(parent, sizeof(parent), "%s/..", path);
    if (sys_mkdir(path, 0700) == 0 ? sys_sync_directory(parent) == 0 : errno == EEXIST) {
        return ERR_OK;
    }
    enum err err = err_from_errno(errno);
    err_detail_set(detail, "%s: %s", path, err_text(err));
    return err;
}

static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static enum err refuse_half_restore(const struct settings *settings, struct err_detail *detail)
{
    char path[HOUSE_PATH_BYTES];
    struct stat found;
    (void)snprintf(path, sizeof(path), "%s/" HOUSE_RESTORING, settings->data_dir);
    if (sys_stat(path, &found) != 0) {
        return ERR_OK;
    }
    err_detail_set(detail, "%s: a restore did not finish; empty the directory and restore again",
                   path);
    return ERR_CORRUPT;
}

enum err house_open(struct house **ret, const struct settings *settings, struct err_detail *detail)
{
    struct house *house = mem_alloc(sizeof(*house));
    house->lock_fd = -1;
    house->store_lock_fd = -1;
    house->settings = settings;
    house->loops = settings->loops != 0 ? (uint32_t)settings->loops : thread_cpu_count();
    house->readers = house_readers(settings);
    house->appliers = house_appliers(settings);
    house->loops = house->loops > HOUSE_LOOPS_MAX ? HOUSE_LOOPS_MAX : house->loops;
    house->readers = house->readers > HOUSE_READERS_MAX ? HOUSE_READERS_MAX : house->readers;
    enum err err = hash_start();
    if (err == ERR_OK) {
        hash_random(&house->run, sizeof(house->run));
        err = make_directory(settings->data_dir, detail);
    }
    if (err == ERR_OK) {
        err = house_lock_data(settings->data_dir, &house->lock_fd, detail);
    }
    if (err == ERR_OK) {
        err = refuse_half_restore(settings, detail);
    }
    if (err == ERR_OK) {
        *ret = house;
        house = NULL;
    }
    house_close(house);
    return err;
}

void house_store_url(const struct settings *settings, char to[HOUSE_PATH_BYTES])
{
    if (settings->database_url[0] != '\0') {
        (void)snprintf(to, HOUSE_PATH_BYTES, "%s", settings->database_url);
    } else {
        (void)snprintf(to, HOUSE_PATH_BYTES, "sqlite:%s/weir.db", settings->data_dir);
    }
}

/* --- other nodes: on the listener's thread ---------------------------------------------------- */

static void on_change(void *owner, enum store_change change, uint64_t number)
{
    struct gate *gate = ((struct house *)owner)->gate;
    switch (change) {
    case STORE_CHANGED_KEY:
        gate_forget_key(gate, number);
        break;
    case STORE_CHANGED_ORG:
        gate_forget_org(gate, number);
        break;
    case STORE_NEW_KEYS:
        gate_forget_refused(gate);
        break;
    case STORE_CHANGED_ANY:
        gate_forget_all(gate);
        break;
    }
}

static void on_current(void *owner, uint64_t mono_ms)
{
    gate_current(((struct house *)owner)->gate, mono_ms);
}

static void on_applied_elsewhere(void *owner, uint64_t position, const uint64_t *orgs,
                                 uint32_t count)
{
    api_on_applied_elsewhere(((struct house *)owner)->api, position, orgs, count);
}

static void on_passed_elsewhere(void *owner, uint64_t lanes, uint64_t position)
{
    struct house *house = owner;
    if (house->apply != NULL) {
        apply_on_passed(house->apply, lanes, position);
    }
}

static void on_free_elsewhere(void *owner)
{
    struct house *house = owner;
    if (house->apply != NULL) {
        apply_on_free(house->apply);
    }
}

/* On an applier's thread: who waits here is told, then the other nodes. */
static void on_applied(void *owner, uint64_t position, const uint64_t *orgs, uint32_t count)
{
    struct house *house = owner;
    if (house->api == NULL) { /* a command: nobody waits */
        return;
    }
    api_on_applied(house->api, position, orgs, count);
    store_announce(house->store, position, orgs, count);
}

static void on_result(void *owner, uint64_t waiter, const struct record_result *result)
{
    struct house *house = owner;
    if (house->api != NULL) {
        api_on_result(house->api, waiter, result);
    }
}

static enum err open_store(struct house *house, struct err_detail *detail)
{
    const struct settings *settings = house->settings;
    char url[HOUSE_PATH_BYTES];
    house_store_url(settings, url);
    struct store_listen_options listen = {.node = house->run,
                                          .owner = house,
                                          .on_change = on_change,
                                          .on_current = on_current,
                                          .on_applied = on_applied_elsewhere,
                                          .on_passed = on_passed_elsewhere,
                                          .on_free = on_free_elsewhere};
    struct store_options options = {
        .url = url,
        .cache_mb = (uint32_t)settings->store_cache_mb,
        .reader_count = house->readers,
        .appliers = house->is_serving ? house->appliers : 0,
        .query_timeout_ms = (uint32_t)settings->query_timeout_ms,
        .slow_query_ms = (uint32_t)settings->slow_query_ms,
        .lock_wait_ms = STORE_LOCK_WAIT_MS,
        .write_queue_max = 4096,
        .read_queue_max = 4096,
        .read_url = settings->database_read_url[0] != '\0' ? settings->database_read_url : NULL,
        .min_connections = (uint32_t)settings->min_connections,
        .idle_timeout_ms = (uint32_t)settings->connection_idle_ms,
        .acquire_timeout_ms = (uint32_t)settings->connection_acquire_ms,
        .max_lifetime_ms = (uint32_t)settings->connection_lifetime_ms,
        .listen = &listen,
    };
    enum err err = house_lock_store(url, &house->store_lock_fd, detail);
    err_detail_prefix(err != ERR_OK ? detail : NULL, "open store");
    return err == ERR_OK ? store_open(&house->store, &options, detail) : err;
}

static enum err open_gate(struct house *house, struct err_detail *detail)
{
    const struct settings *settings = house->settings;
    struct gate_options options = {
        .store = house->store,
        .argon2_memory_kib = (uint32_t)settings->argon2_memory_kib,
        .argon2_passes = (uint32_t)settings->argon2_passes,
        .cache_ttl_s = (uint32_t)settings->auth_cache_ttl_s,
        .cache_entries = 100000,
        .verifier_count = (uint32_t)settings->verifiers,
        .verify_queue_max = 256,
        .mb_per_hour = (uint32_t)settings->mb_per_hour,
    };
    enum err err = gate_open(&house->gate, &options, detail);
    err_detail_prefix(err != ERR_OK ? detail : NULL, "open gate");
    return err;
}

enum err house_open_store(struct house *house, struct err_detail *detail)
{
    enum err err = open_store(house, detail);
    return err != ERR_OK ? err : open_gate(house, detail);
}

static enum err thread_add(struct house *house, enum house_group group, const char *name,
                           void (*run)(void *argument), void *argument)
{
    uint32_t *count = &house->thread_counts[group];
    assert(*count < HOUSE_THREADS_MAX);
    enum err err = thread_start(&house->threads[group][*count], name, run, argument);
    if (err == ERR_OK) {
        (*count)++;
    }
    return err;
}

static void threads_join(struct house *house, enum house_group group)
{
    for (uint32_t i = 0; i < house->thread_counts[group]; i++) {
        thread_join(house->threads[group][i]);
    }
    house->thread_counts[group] = 0;
}

static enum err start_store(struct house *house)
{
    enum err err = mailbox_create(&house->mailbox, 64);
    if (err == ERR_OK) {
        err = thread_add(house, HOUSE_STORE, "store-write", store_writer_run, house->store);
    }
    if (err == ERR_OK) {
        err = thread_add(house, HOUSE_STORE, "store-check", store_checkpointer_run, house->store);
    }
    for (uint32_t i = 0; i < house->appliers && err == ERR_OK; i++) {
        err = thread_add(house, HOUSE_STORE, "store-apply", store_applier_run,
                         store_applier(house->store, i));
    }
    for (uint32_t i = 0; i < house->readers && err == ERR_OK; i++) {
        err = thread_add(house, HOUSE_STORE, "store-read", store_reader_run,
                         store_reader(house->store, i));
    }
    for (uint32_t i = 0; i < house->settings->verifiers && err == ERR_OK; i++) {
        err = thread_add(house, HOUSE_GATE, "verify", gate_verifier_run,
                         gate_verifier(house->gate, i));
    }
    return err;
}

static enum err start_sharing(struct house *house, struct err_detail *detail)
{
    const char *url = house->settings->redis_url;
    if (url[0] == '\0') {
        return ERR_OK;
    }
    enum err err = gate_share(house->gate, slice_from_text(url), detail);
    err_detail_prefix(err != ERR_OK ? detail : NULL, "REDIS_URL");
    return err == ERR_OK ? thread_add(house, HOUSE_GATE, "redis", gate_share_run, house->gate)
                         : err;
}

static const char *text_or_null(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

static void log_recovery(const struct journal_state *state)
{
    if (state->is_new) {
        return;
    }
    log_write(state->damaged_bytes != 0 ? LOG_WARN : LOG_INFO, "journal",
              "recovered to position %llu: %s stop, %llu bytes torn, %llu bytes damaged",
              (unsigned long long)state->last_position, state->clean ? "clean" : "unclean",
              (unsigned long long)state->torn_bytes, (unsigned long long)state->damaged_bytes);
}

static void journal_directory(const struct settings *settings, char to[HOUSE_PATH_BYTES])
{
    (void)snprintf(to, HOUSE_PATH_BYTES, "%s/journal", settings->data_dir);
}

bool house_find_journal(const struct settings *settings, struct id *ret)
{
    char directory[HOUSE_PATH_BYTES];
    journal_directory(settings, directory);
    return journal_identify(directory, ret) == ERR_OK;
}

/* With the journal in NATS nobody goes on with what lies in files here. */
static enum err refuse_open_uploads(struct house *house, struct id journal,
                                    struct err_detail *detail)
{
    bool has_open = false;
    enum err err = apply_has_open_uploads(house->store, journal, &has_open);
    if (err == ERR_OK && has_open) {
        err_detail_set(detail,
                       "%s/uploads holds uploads that are not applied; start once without "
                       "NATS_URL, wait until the queue is empty, and stop",
                       house->settings->data_dir);
        err = ERR_CONFIG;
    }
    return err;
}

/* How far the store is with the journal in DATA_DIR, if there is one. */
static enum err find_cursors(struct house *house, struct id *ret_id, struct journal_from *ret,
                             struct err_detail *detail)
{
    if (!house_find_journal(house->settings, ret_id)) {
        return ERR_OK; /* it is new, or opening says why */
    }
    enum err err = house_is_shared(house->settings) ? apply_cursors_of(house->store, *ret_id, ret)
                                                    : apply_take_over(house->store, *ret_id, ret);
    if (err == ERR_OK && house->settings->nats_url[0] != '\0') {
        house->former = *ret_id;
        err = refuse_open_uploads(house, *ret_id, detail);
    }
    return err;
}

/* Its positions are its own, as any journal's. */
static enum err start_spool(struct house *house, struct err_detail *detail)
{
    struct journal *spool = journal_spool(house->journal);
    struct journal_state state;
    uint64_t base = 0;
    if (spool == NULL) {
        return ERR_OK;
    }
    journal_state(spool, &state);
    log_recovery(&state);
    enum err err = apply_base(house->store, state.id, state.is_new, &base);
    return err == ERR_OK ? journal_start(spool, base, detail) : err;
}

static enum err start_journal_threads(struct house *house)
{
    struct journal *spool = journal_spool(house->journal);
    enum err err =
        thread_add(house, HOUSE_JOURNAL, "commit", journal_committer_run, house->journal);
    if (err == ERR_OK) {
        err = thread_add(house, HOUSE_JOURNAL, "prepare", journal_preparer_run, house->journal);
    }
    if (err == ERR_OK) {
        err = thread_add(house, HOUSE_JOURNAL, "upload", journal_uploader_run, house->journal);
    }
    if (err == ERR_OK && spool != NULL) {
        err = thread_add(house, HOUSE_JOURNAL, "spool", journal_committer_run, spool);
    }
    if (err == ERR_OK && spool != NULL) {
        err = thread_add(house, HOUSE_JOURNAL, "spool-prep", journal_preparer_run, spool);
    }
    return err;
}

static enum err start_journal(struct house *house, struct err_detail *detail)
{
    const struct settings *settings = house->settings;
    char directory[HOUSE_PATH_BYTES];
    char uploads[HOUSE_PATH_BYTES];
    char spool[HOUSE_PATH_BYTES];
    struct journal_from cursors = journal_from_all(0);
    uint64_t base = 0;
    struct journal_state state;
    journal_directory(settings, directory);
    (void)snprintf(uploads, sizeof(uploads), "%s/uploads", settings->data_dir);
    (void)snprintf(spool, sizeof(spool), "%s/spool", settings->data_dir);
    struct journal_options options = {
        .directory = directory,
        .uploads_directory = uploads,
        .segment_bytes = settings->journal_segment_mb * MEBIBYTE,
        .backlog_bytes_max = settings->journal_max_mb * MEBIBYTE,
        .disk_reserve_bytes = settings->disk_reserve_mb * MEBIBYTE,
        .replay_window_s = settings->journal_replay_s,
        .producer_count = house->loops,
        .run = house->run,
        .nats = {.url = text_or_null(settings->nats_url),
                 .stream = settings->nats_stream,
                 .replicas = (uint32_t)settings->nats_replicas,
                 .pull_batch = (uint32_t)settings->nats_pull_batch,
                 .ack_wait_s = (uint32_t)settings->nats_ack_wait_s,
                 .ack_pending_max = (uint32_t)settings->nats_ack_pending,
                 .is_shared = house_is_shared(settings),
                 .spools = settings->journal_spool != 0},
        .spool_directory = spool,
    };
    enum err err = find_cursors(house, &state.id, &cursors, detail);
    if (err == ERR_OK && settings->nats_url[0] != '\0') {
        err = apply_store_id(house->store, &options.nats.store);
    }
    if (err == ERR_OK) {
        err = journal_open(&house->journal, &options, &cursors, detail);
    }
    if (err == ERR_OK) {
        journal_state(house->journal, &state);
        log_recovery(&state);
        err = apply_base(house->store, state.id, state.is_new, &base);
    }
    if (err == ERR_OK) {
        err = start_spool(house, detail);
    }
    if (err == ERR_OK) {
        err = journal_start(house->journal, base, detail);
    }
    err_detail_prefix(err != ERR_OK ? detail : NULL, "open journal");
    return err == ERR_OK ? start_journal_threads(house) : err;
}

static enum err open_api(struct house *house, struct err_detail *detail)
{
    const struct settings *settings = house->settings;
    struct api_options options = {
        .store = house->store,
        .gate = house->gate,
        .journal = house->journal,
        .loops = house->loops,
        .run = house->run,
        .payload_bytes_max = settings->max_payload_mb * MEBIBYTE,
        .payload_warning_bytes = settings->payload_warning_mb * MEBIBYTE,
        .processing_timeout_ms = (uint32_t)settings->processing_timeout_ms,
        .intake_pool_bytes = settings->intake_pool_mb * MEBIBYTE,
        .open_signup = settings->open_signup != 0,
        .journal_bytes_max = settings->journal_max_mb * MEBIBYTE,
        .metrics_moved = settings->metrics_port != 0,
        .roles = house_roles(settings),
        .durability = house_durability(settings),
    };
    return api_open(&house->api, &options, detail);
}

static enum err open_server(struct house *house, struct err_detail *detail)
{
    const struct settings *settings = house->settings;
    struct http_options options = {
        .host = settings->host,
        .port = (uint16_t)settings->port,
        .loops = house->loops,
        .handler = api_handler(),
        .owner = house->api,
        .tls_cert_file = text_or_null(settings->tls_cert_file),
        .tls_key_file = text_or_null(settings->tls_key_file),
        .cors_allowed_origins = text_or_null(settings->cors_allowed_origins),
        .connections_max = (uint32_t)settings->connections_max,
        .connections_per_address_max = (uint32_t)settings->connections_per_address,
        .head_timeout_ms = (uint32_t)settings->head_timeout_ms,
        .idle_timeout_ms = (uint32_t)settings->idle_timeout_ms,
        .body_grace_ms = (uint32_t)settings->body_grace_ms,
        .rate_min_bytes_per_s = (uint32_t)settings->rate_min_bytes,
    };
    options.routes = api_routes(&options.route_count);
    enum err err = http_server_open(&house->server, &options, detail);
    if (err == ERR_OK && settings->metrics_port != 0) {
        options.port = (uint16_t)settings->metrics_port;
        options.loops = 1;
        options.handler = api_metrics_handler();
        options.routes = api_metrics_routes(&options.route_count);
        err = http_server_open(&house->metrics_server, &options, detail);
    }
    return err;
}

static enum err open_apply(struct house *house, struct err_detail *detail)
{
    const struct settings *settings = house->settings;
    bool applies = settings_has_role(settings, "apply");
    bool is_postgres = store_url_is_postgres(settings->database_url);
    (void)snprintf(house->spill, sizeof(house->spill), "%s/apply.rows", settings->data_dir);
    struct apply_options options = {
        .journal = house->journal,
        .store = house->store,
        .batch_size = (uint32_t)settings->worker_batch_size,
        .batch_timeout_ms = (uint32_t)settings->worker_batch_timeout_ms,
        .appliers = house->appliers,
        .is_exclusive = !house_is_shared(settings), /* else DATA_DIR is locked */
        .paused = settings->apply_paused != 0 && applies,
        .is_follower = !applies,
        .run = house->run,
        .raw_retention_days = (uint32_t)settings->retention_raw_days,
        .replay_s = (uint32_t)settings->journal_replay_s,
        .is_alone = !is_postgres,
        .spill = is_postgres ? NULL : house->spill,
        .former = house->former,
        .owner = house,
        .on_result = on_result,
        .on_applied = on_applied,
    };
    enum err err = apply_open(&house->apply, &options, detail);
    err_detail_prefix(err != ERR_OK ? detail : NULL, "open apply");
    return err;
}

/* Of a journal in DATA_DIR: nobody else would apply what an earlier run took in. */
static enum err refuse_unapplied(struct house *house, struct err_detail *detail)
{
    struct journal_backlog backlog;
    journal_backlog(house->journal, &backlog);
    if (house->settings->nats_url[0] != '\0' || backlog.bytes == 0) {
        return ERR_OK;
    }
    err_detail_set(
        detail,
        "ROLES=%s: the journal in %s holds records that are not applied; start once with "
        "apply, wait until the queue is empty, and stop",
        house->settings->roles, house->settings->data_dir);
    return ERR_CONFIG;
}

/* The api is told too: it is ready when this is. A node that has its journal in common with those
 * that apply follows them: for what it accepted, and for who waits here. */
static enum err start_apply(struct house *house, struct err_detail *detail)
{
    bool is_here = settings_has_role(house->settings, "apply") || house_is_shared(house->settings);
    enum err err = is_here ? open_apply(house, detail) : refuse_unapplied(house, detail);
    if (err == ERR_OK && house->api != NULL) {
        api_start(house->api, house->server, house->apply);
    }
    for (uint32_t i = 0; is_here && err == ERR_OK && i < apply_count(house->apply); i++) {
        err = thread_add(house, HOUSE_APPLY, "apply", apply_run, apply_applier(house->apply, i));
    }
    return err;
}

void house_stop(struct house *house)
{
    if (house->metrics_server != NULL) {
        http_server_drain(house->metrics_server, 0);
        threads_join(house, HOUSE_METRICS);
    }
    if (house->server != NULL) {
        http_server_drain(house->server, (uint32_t)house->settings->drain_ms);
        threads_join(house, HOUSE_LOOPS);
    }
    if (house->journal != NULL) {
        journal_stop(house->journal);
        threads_join(house, HOUSE_JOURNAL);
    }
    if (house->apply != NULL) {
        apply_stop(house->apply);
        threads_join(house, HOUSE_APPLY);
    }
    if (house->gate != NULL) {
        gate_stop(house->gate);
        threads_join(house, HOUSE_GATE);
    }
    if (house->store != NULL && house->thread_counts[HOUSE_STORE] > 0) {
        store_stop(house->store);
        threads_join(house, HOUSE_STORE);
    }
}

static void close_stages(struct house *house)
{
    house_stop(house);
    http_server_close(house->metrics_server);
    http_server_close(house->server);
    api_close(house->api);
    apply_close(house->apply);
    journal_close(house->journal);
    gate_close(house->gate);
    store_close(house->store);
    mailbox_destroy(house->mailbox);
    house->metrics_server = NULL;
    house->server = NULL;
    house->api = NULL;
    house->apply = NULL;
    house->journal = NULL;
    house->gate = NULL;
    house->store = NULL;
    house->mailbox = NULL;
}

/* Appliers give the bytes of frames and of uploads back when they are applied. An upload of an
 * earlier run is charged only when one of them has met it, so the store is asked last. */
static enum err wait_until_applied(struct house *house,
                                   void (*on_progress)(uint64_t done, uint64_t all, void *context),
                                   void *context)
{
    struct journal_backlog backlog;
    struct journal_state state;
    uint64_t all = 0;
    enum err err = ERR_OK;
    bool is_over = false;
    journal_state(house->journal, &state);
    while (err == ERR_OK && !is_over) {
        bool has_open = true;
        journal_backlog(house->journal, &backlog);
        all = backlog.bytes > all ? backlog.bytes : all;
        on_progress(all - backlog.bytes, all, context);
        if (backlog.bytes == 0) {
            err = apply_has_open_uploads(house->store, state.id, &has_open);
        }
        is_over = !has_open;
        if (err == ERR_OK && !is_over) {
            (void)poll(NULL, 0, CATCH_UP_LOOK_MS);
        }
    }
    return err;
}

static enum err begin(struct house *house, struct err_detail *detail)
{
    house->is_serving = true;
    enum err err = house_open_store(house, detail);
    return err != ERR_OK ? err : start_store(house);
}

enum err house_catch_up(struct house *house,
                        void (*on_progress)(uint64_t done, uint64_t all, void *context),
                        void *context, struct err_detail *detail)
{
    enum err err = begin(house, detail);
    if (err == ERR_OK) {
        err = start_journal(house, detail);
    }
    if (err == ERR_OK) {
        err = start_apply(house, detail);
    }
    if (err == ERR_OK) {
        err = wait_until_applied(house, on_progress, context);
    }
    close_stages(house);
    return err;
}

enum err house_start(struct house *house, struct err_detail *detail)
{
    raise_descriptor_limit();
    enum err err = begin(house, detail);
    if (err == ERR_OK) {
        err = start_sharing(house, detail);
    }
    if (err == ERR_OK) {
        err = start_journal(house, detail);
    }
    if (err == ERR_OK) {
        err = open_api(house, detail);
    }
    if (err == ERR_OK) {
        err = open_server(house, detail);
    }
    if (err == ERR_OK) {
        err = start_apply(house, detail);
    }
    if (err == ERR_OK && store_url_is_postgres(house->settings->database_url)) {
        gate_current(house->gate, clock_mono_ms()); /* from here on it is to be told */
        err = thread_add(house, HOUSE_STORE, "listen", store_listener_run, house->store);
    }
    for (uint32_t i = 0; i < house->loops && err == ERR_OK; i++) {
        err = thread_add(house, HOUSE_LOOPS, "loop", http_loop_run,
                         http_server_loop(house->server, i));
    }
    if (err == ERR_OK && house->metrics_server != NULL) {
        err = thread_add(house, HOUSE_METRICS, "metrics", http_loop_run,
                         http_server_loop(house->metrics_server, 0));
    }
    return err;
}

void house_leave(struct house *house)
{
    http_server_leave(house->server);
}

void house_close(struct house *house)
{
    if (house == NULL) {
        return;
    }
    close_stages(house);
    if (house->store_lock_fd >= 0) {
        (void)sys_close(house->store_lock_fd);
    }
    if (house->lock_fd >= 0) {
        (void)sys_close(house->lock_fd);
    }
    mem_free(house);
}

uint16_t house_port(const struct house *house)
{
    return http_server_port(house->server);
}

uint64_t house_durable(const struct house *house)
{
    return journal_durable_position(house->journal);
}

void house_admin(struct house *house, struct admin *ret, struct buffer *reply)
{
    *ret = (struct admin){
        .store = house->store, .gate = house->gate, .mailbox = house->mailbox, .reply = reply};
}
