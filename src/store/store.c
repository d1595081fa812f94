/* The store's outside: opens the engine that the URL names, hands jobs to the writer and the
 * readers, and passes statement calls on to the engine.
 *
 * Happy path: open -> migrate -> readers opened -> jobs.
 * Failure modes: open fails whole, with a sentence for the operator; afterwards see the writer. */
#include "store/store.h"

#include "store/batch.h"
#include "store/checkpointer.h"
#include "store/listener.h"
#include "store/migrate.h"
#include "store/reader.h"
#include "store/statements.h"
#include "store/transfer.h"
#include "store/writer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "base/thread.h"

#include <assert.h>
#include <errno.h>

struct store {
    struct store_log log;
    struct store_writer *writer;
    struct store_writer **appliers; /* beside it, for apply jobs alone */
    uint32_t applier_count;
    struct store_checkpointer *checkpointer; /* NULL: the engine has no use for one */
    struct store_listener *listener;         /* NULL: nobody else uses the database */
    struct store_reader **readers;
    uint32_t reader_count;
};

static const struct engine {
    const char *prefix;
    const struct store_backend *backend;
    const struct store_schema_file *schema;
} engines[] = {
    {"postgresql://", &store_postgres, store_schema_postgres},
    {"postgres://", &store_postgres, store_schema_postgres},
    {"", &store_sqlite, store_schema_sqlite},
};

static const struct engine *engine_of(const char *url)
{
    const struct engine *engine = engines;
    while (!slice_starts_with(slice_from_text(url), slice_from_text(engine->prefix))) {
        engine++;
    }
    return engine;
}

bool store_url_is_postgres(const char *url)
{
    return engine_of(url)->backend == &store_postgres;
}

/* ERR_LOCKED: another process writes, or lets nobody in. */
static enum err try_to_open(const struct store_backend *backend, struct store_connection **ret,
                            const struct store_options *options, struct err_detail *detail)
{
    struct store_connection *connection = NULL;
    enum err err = backend->open(&connection, options, STORE_ROLE_WRITER, detail);
    if (err == ERR_OK) {
        enum err lock = backend->begin_write(connection, false);
        backend->rollback(connection);
        err = lock == ERR_BUSY ? ERR_LOCKED : ERR_OK; /* others are met by who writes */
    }
    if (err == ERR_OK) {
        *ret = connection;
        return ERR_OK;
    }
    backend->close(connection);
    return err;
}

/* A backup or a shell may be at work for a moment: the engine waits a second at each try. */
static enum err open_patiently(const struct store_backend *backend, struct store_connection **ret,
                               const struct store_options *options, struct err_detail *detail)
{
    uint64_t from_ns = clock_mono_ns();
    enum err err = try_to_open(backend, ret, options, detail);
    if (err == ERR_LOCKED && options->lock_wait_ms > 0) {
        log_write(LOG_WARN, "store", "the database is in use by another process: waiting for it");
    }
    while (err == ERR_LOCKED && clock_mono_ns() - from_ns < options->lock_wait_ms * 1000000ull) {
        err = try_to_open(backend, ret, options, detail);
    }
    if (err == ERR_LOCKED) {
        err_detail_set(detail, "another process has locked the database: stop it (a backup, an SQL "
                               "shell, a second server), then start again");
    }
    return err;
}

/* An engine makes what is not there; who only wants to read is not to leave an empty database. */
static enum err check_is_there(const struct store_options *options, struct err_detail *detail)
{
    struct stat found;
    const char *path = strchr(options->url, ':');
    if (store_url_is_postgres(options->url) || path == NULL || sys_stat(path + 1, &found) == 0) {
        return ERR_OK;
    }
    enum err err = err_from_errno(errno);
    err_detail_set(detail, "%s: %s", path + 1, err_text(err));
    return err;
}

enum err store_connect(struct store_connection **ret, const struct store_options *options,
                       bool must_exist, struct err_detail *detail)
{
    struct store_connection *connection = NULL;
    const struct engine *engine = engine_of(options->url);
    uint32_t version = 0;
    enum err err = must_exist ? check_is_there(options, detail) : ERR_OK;
    if (err == ERR_OK) {
        err = open_patiently(engine->backend, &connection, options, detail);
    }
    if (err == ERR_OK && must_exist) {
        err = engine->backend->schema_version(connection, &version);
        if (err == ERR_OK && version == 0) {
            err_detail_set(detail, "holds no store of weir");
            err = ERR_NOT_FOUND;
        }
    }
    if (err == ERR_OK) {
        err = store_migrate(connection, engine->schema, detail);
    }
    if (err == ERR_OK) {
        *ret = connection;
        connection = NULL;
    }
    engine->backend->close(connection);
    return err;
}

static enum err open_writer(struct store *store, const struct store_options *options,
                            struct err_detail *detail)
{
    struct store_connection *connection = NULL;
    const struct engine *engine = engine_of(options->url);
    enum err err = store_connect(&connection, options, false, detail);
    if (err == ERR_OK) {
        err = store_transfer_check(connection, detail);
    }
    if (err == ERR_OK) {
        /* What a killed run has left in the WAL becomes durable before anybody relies on it. */
        bool is_complete = false;
        err = engine->backend->checkpoint(connection, &is_complete);
        if (err != ERR_OK) {
            err_detail_set(detail, "checkpoint: %s", err_text(err));
        }
    }
    if (err == ERR_OK) {
        err = store_writer_create(&store->writer, connection, options->write_queue_max);
    }
    if (err != ERR_OK) {
        engine->backend->close(connection);
    }
    return err;
}

static enum err open_applier(struct store *store, const struct store_options *options,
                             struct err_detail *detail)
{
    struct store_connection *connection = NULL;
    struct store_writer **applier = &store->appliers[store->applier_count];
    const struct engine *engine = engine_of(options->url);
    enum err err = engine->backend->open(&connection, options, STORE_ROLE_WRITER, detail);
    if (err == ERR_OK) {
        err = store_writer_create(applier, connection, options->write_queue_max);
    }
    if (err != ERR_OK) {
        engine->backend->close(connection);
        return err;
    }
    store_writer_yield_to(*applier, store->writer);
    store->applier_count++;
    return ERR_OK;
}

static enum err open_checkpointer(struct store *store, const struct store_options *options,
                                  struct err_detail *detail)
{
    struct store_connection *connection = NULL;
    const struct engine *engine = engine_of(options->url);
    if (engine->backend->checkpoint_beside == NULL) {
        return ERR_OK;
    }
    enum err err = engine->backend->open(&connection, options, STORE_ROLE_CHECKPOINTER, detail);
    if (err == ERR_OK) {
        err = store_checkpointer_create(&store->checkpointer, connection);
    }
    if (err != ERR_OK) {
        engine->backend->close(connection);
        return err;
    }
    store_writer_use(store->writer, store->checkpointer);
    return ERR_OK;
}

static enum err open_listener(struct store *store, const struct store_options *options,
                              struct err_detail *detail)
{
    struct store_connection *connection = NULL;
    const struct engine *engine = engine_of(options->url);
    if (options->listen == NULL || engine->backend->ears == NULL) {
        return ERR_OK;
    }
    enum err err = engine->backend->open(&connection, options, STORE_ROLE_LISTENER, detail);
    if (err == ERR_OK) {
        err = store_listener_create(&store->listener, connection, options->listen);
    }
    if (err != ERR_OK) {
        engine->backend->close(connection);
    }
    return err;
}

static enum err open_reader(struct store *store, const struct store_options *options,
                            struct err_detail *detail)
{
    struct store_connection *connection = NULL;
    const struct engine *engine = engine_of(options->url);
    struct store_options own = *options;
    own.connection = store->reader_count;
    enum err err = engine->backend->open(&connection, &own, STORE_ROLE_READER, detail);
    if (err == ERR_OK) {
        err = store_reader_create(&store->readers[store->reader_count], connection,
                                  options->read_queue_max, options->query_timeout_ms);
    }
    if (err != ERR_OK) {
        engine->backend->close(connection);
        return err;
    }
    store->reader_count++;
    return ERR_OK;
}

enum err store_open(struct store **ret, const struct store_options *options,
                    struct err_detail *detail)
{
    struct store *store = mem_alloc(sizeof(*store));
    store->readers = mem_alloc_array(options->reader_count, sizeof(struct store_reader *));
    store->appliers = mem_alloc_array(options->appliers + 1, sizeof(struct store_writer *));
    assert(options->appliers == 0 || store_url_is_postgres(options->url));
    struct store_options own = *options;
    own.log = &store->log;
    enum err err = open_writer(store, &own, detail);
    for (uint32_t i = 0; i < options->appliers && err == ERR_OK; i++) {
        err = open_applier(store, &own, detail);
    }
    if (err == ERR_OK) {
        err = open_checkpointer(store, &own, detail);
    }
    if (err == ERR_OK) {
        err = open_listener(store, &own, detail);
    }
    for (uint32_t i = 0; i < options->reader_count && err == ERR_OK; i++) {
        err = open_reader(store, &own, detail);
    }
    if (err != ERR_OK) {
        err_detail_prefix(detail, "open store");
        goto out;
    }
    *ret = store;
    store = NULL;
out:
    store_close(store);
    return err;
}

void store_writer_run(void *store)
{
    /* Nearly all it does is apply's rows: like the applier it yields to loops and committer, so
     * that accepting goes on at full speed while the backlog grows, up to its bound. */
    thread_lower_priority();
    store_writer_work(((struct store *)store)->writer);
}

void store_applier_run(void *applier)
{
    thread_lower_priority();
    store_writer_work(applier);
}

void *store_applier(struct store *store, uint32_t index)
{
    assert(index < store->applier_count);
    return store->appliers[index];
}

void store_checkpointer_run(void *store)
{
    struct store_checkpointer *checkpointer = ((struct store *)store)->checkpointer;
    if (checkpointer != NULL) {
        store_checkpointer_work(checkpointer);
    }
}

void store_reader_run(void *reader)
{
    store_reader_work(reader);
}

void store_listener_run(void *store)
{
    struct store_listener *listener = ((struct store *)store)->listener;
    if (listener != NULL) {
        store_listener_work(listener);
    }
}

void store_announce(struct store *store, uint64_t position, const uint64_t *orgs, uint32_t count)
{
    if (store->listener != NULL) {
        store_listener_announce(store->listener, position, orgs, count);
    }
}

void store_announce_spool(struct store *store, uint64_t position)
{
    if (store->listener != NULL) {
        store_listener_announce_spool(store->listener, position);
    }
}

void store_announce_passed(struct store *store, uint64_t lanes, uint64_t position)
{
    if (store->listener != NULL) {
        store_listener_announce_passed(store->listener, lanes, position);
    }
}

void store_announce_free(struct store *store)
{
    if (store->listener != NULL) {
        store_listener_announce_free(store->listener);
    }
}

void *store_reader(struct store *store, uint32_t index)
{
    assert(index < store->reader_count);
    return store->readers[index];
}

void store_stop(struct store *store)
{
    for (uint32_t i = 0; i < store->reader_count; i++) {
        store_reader_stop(store->readers[i]);
    }
    for (uint32_t i = 0; i < store->applier_count; i++) {
        store_writer_stop(store->appliers[i]);
    }
    store_writer_stop(store->writer);
    if (store->checkpointer != NULL) {
        store_checkpointer_stop(store->checkpointer);
    }
    if (store->listener != NULL) {
        store_listener_stop(store->listener);
    }
}

void store_close(struct store *store)
{
    if (store == NULL) {
        return;
    }
    for (uint32_t i = 0; i < store->reader_count; i++) {
        store_reader_destroy(store->readers[i]);
    }
    store_listener_destroy(store->listener);
    for (uint32_t i = 0; i < store->applier_count; i++) {
        store_writer_destroy(store->appliers[i]);
    }
    store_checkpointer_destroy(store->checkpointer);
    store_writer_destroy(store->writer);
    mem_free(store->appliers);
    mem_free(store->readers);
    mem_free(store);
}

enum err store_health(const struct store *store)
{
    enum err err = store_writer_health(store->writer);
    for (uint32_t i = 0; i < store->applier_count && err == ERR_OK; i++) {
        err = store_writer_health(store->appliers[i]);
    }
    return err;
}

uint64_t store_durable_commit(const struct store *store)
{
    return store_writer_durable_commit(store->writer);
}

enum err store_post_write(struct store *store, struct store_job *job)
{
    bool is_apart = job->priority == STORE_APPLY && store->applier_count > 0 && !job->is_beside;
    return store_writer_post(
        is_apart ? store->appliers[job->applier % store->applier_count] : store->writer, job);
}

/* To the reader with the fewest jobs, so that nobody waits behind a long one while another is free.
 */
enum err store_post_read(struct store *store, struct store_job *job)
{
    assert(store->reader_count > 0);
    struct store_reader *best = store->readers[0];
    uint32_t load = store_reader_load(best);
    for (uint32_t i = 1; i < store->reader_count && load > 0; i++) {
        uint32_t other = store_reader_load(store->readers[i]);
        if (other < load) {
            load = other;
            best = store->readers[i];
        }
    }
    return store_reader_post(best, job);
}

enum err store_run_here(struct store *store, struct store_job *job)
{
    return store_writer_run_here(store->writer, job);
}

enum err store_prepare(struct store_connection *connection, const char *sql,
                       struct store_statement **ret)
{
    return store_statements_prepare(connection, slice_from_text(sql), true, ret);
}

enum err store_prepare_text(struct store_connection *connection, struct slice sql,
                            struct store_statement **ret)
{
    return store_statements_prepare(connection, sql, false, ret);
}

void store_bind_i64(struct store_statement *statement, int parameter, int64_t value)
{
    statement->backend->bind_i64(statement, parameter, value);
}

void store_bind_double(struct store_statement *statement, int parameter, double value)
{
    statement->backend->bind_double(statement, parameter, value);
}

void store_bind_text(struct store_statement *statement, int parameter, struct slice text)
{
    statement->backend->bind_text(statement, parameter, text);
}

void store_bind_blob(struct store_statement *statement, int parameter, struct slice bytes)
{
    statement->backend->bind_blob(statement, parameter, bytes);
}

void store_bind_null(struct store_statement *statement, int parameter)
{
    statement->backend->bind_blob(statement, parameter, slice_make(NULL, 0));
}

enum err store_step(struct store_statement *statement, bool *ret_row)
{
    return statement->backend->step(statement, ret_row);
}

void store_reset(struct store_statement *statement)
{
    statement->backend->reset(statement);
}

enum err store_execute(struct store_statement *statement)
{
    bool has_row = true;
    enum err err = ERR_OK;
    while (err == ERR_OK && has_row) {
        err = statement->backend->step(statement, &has_row);
    }
    return err;
}

int64_t store_column_i64(struct store_statement *statement, int column)
{
    return statement->backend->column_i64(statement, column);
}

double store_column_double(struct store_statement *statement, int column)
{
    return statement->backend->column_double(statement, column);
}

struct slice store_column_bytes(struct store_statement *statement, int column)
{
    return statement->backend->column_bytes(statement, column);
}

bool store_column_is_null(struct store_statement *statement, int column)
{
    return statement->backend->column_is_null(statement, column);
}

uint64_t store_changes(struct store_connection *connection)
{
    return connection->backend->changes(connection);
}

const struct store_texts *store_texts(const struct store_connection *connection)
{
    return &connection->backend->texts;
}

enum err store_find_event(struct store_connection *connection, uint64_t org, const uint8_t id[16],
                          bool *ret_is, uint64_t *ret_sequence)
{
    return connection->backend->find_event(connection, org, id, ret_is, ret_sequence);
}

enum err store_insert_events(struct store_connection *connection, struct store_event *events,
                             size_t count, bool careful)
{
    struct store_packed *packed = NULL;
    enum err err = store_pack_all(events, count, &packed);
    if (err == ERR_OK) {
        struct store_part part = {.events = packed, .count = count};
        err = store_insert_packed(connection, &part, careful);
    }
    for (size_t i = 0; i < count && err == ERR_OK; i++) {
        events[i].sequence = packed[i].sequence;
        events[i].state = (enum store_event_state)packed[i].state;
    }
    mem_free(packed);
    return err;
}

enum err store_insert_packed(struct store_connection *connection, const struct store_part *part,
                             bool careful)
{
    return connection->backend->insert_events(connection, part, careful);
}
