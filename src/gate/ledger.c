/* Ledger.
 *
 * Counting is one upsert in a bounded table, on whatever thread. Every few seconds one verifier
 * moves what is there into a batch and posts it to the writer, as one job; its commit need not be
 * durable, since a crash may lose the last counts and no record.
 *
 * A failed check is counted under (key id, address, minute), which is also the name of its row: a
 * second write in the same minute adds to the first. Ids that no key has are written as no id, so
 * that made-up keys from one address make one row a minute, not one each.
 *
 * Happy path: upsert ... upsert, write: drain, post, commit, the batch is freed.
 * Failure modes: the store is away: the batch is kept and posted again by the next write, while new
 * counts gather in the tables. More than LIMIT_FAILURES kinds of failures between two writes:
 * the oldest lose their counts. The store refuses the batch: it is dropped and logged. */
#include "gate/ledger.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

#include "base/err.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/table.h"
#include "gate/gate.h"
#include "gate/key_text.h"
#include "store/store.h"

#define LEDGER_MINUTE_MS 60000

struct ledger_failure {
    int64_t minute; /* since 1970 */
    uint64_t count;
    uint8_t id_size; /* 0 or GATE_KEY_ID_CHARS */
    uint8_t address_size;
    uint8_t id[GATE_KEY_ID_CHARS];
    uint8_t address[GATE_ADDRESS_BYTES_MAX];
};

struct ledger_use {
    uint64_t key;
    int64_t minute;
};

struct gate_ledger {
    struct store *store;
    struct table *failures;
    struct table *uses;
    struct store_job job;
    bool is_writing;
    /* The batch: the writer's while is_writing. */
    struct ledger_failure *failed;
    struct ledger_use *used;
    uint32_t failed_count;
    uint32_t used_count;
    uint32_t failed_max;
    uint32_t used_max;
    bool has_more; /* uses that did not fit */
};

struct gate_ledger *gate_ledger_create(struct store *store, uint32_t keys_max)
{
    struct gate_ledger *ledger = mem_alloc(sizeof(*ledger));
    ledger->store = store;
    ledger->failures = table_create(LIMIT_FAILURES, sizeof(struct ledger_failure));
    ledger->uses = table_create(keys_max, sizeof(struct ledger_use));
    return ledger;
}

static void ledger_batch_free(struct gate_ledger *ledger)
{
    mem_free(ledger->failed);
    mem_free(ledger->used);
    ledger->failed = NULL;
    ledger->used = NULL;
    ledger->failed_count = 0;
    ledger->used_count = 0;
}

void gate_ledger_destroy(struct gate_ledger *ledger)
{
    if (ledger == NULL) {
        return;
    }
    assert(!ledger->is_writing);
    ledger_batch_free(ledger);
    table_destroy(ledger->failures);
    table_destroy(ledger->uses);
    mem_free(ledger);
}

static void ledger_visit_failure(void *value, void *context)
{
    struct ledger_failure *failure = value;
    uint64_t count = failure->count;
    *failure = *(const struct ledger_failure *)context;
    failure->count = count + 1;
}

void gate_ledger_failed(struct gate_ledger *ledger, struct slice id, struct slice address,
                        int64_t wall_ms)
{
    struct ledger_failure failure = {.minute = wall_ms / LEDGER_MINUTE_MS};
    uint8_t name[GATE_KEY_ID_CHARS + GATE_ADDRESS_BYTES_MAX + sizeof(uint16_t)] = {0};
    static_assert(sizeof(name) <= TABLE_KEY_BYTES_MAX, "a failure's name fits a table's key");
    /* Two minutes that look alike here are 45 days apart: one was written long ago. */
    uint16_t minute = (uint16_t)failure.minute;
    if (gate_key_text_id_is_shaped(id)) {
        failure.id_size = GATE_KEY_ID_CHARS;
        memcpy(failure.id, id.data, id.size);
    }
    address = slice_part(address, 0, GATE_ADDRESS_BYTES_MAX);
    failure.address_size = (uint8_t)address.size;
    if (address.size > 0) {
        memcpy(failure.address, address.data, address.size);
    }
    memcpy(name, failure.id, sizeof(failure.id));
    memcpy(name + sizeof(failure.id), failure.address, sizeof(failure.address));
    memcpy(name + sizeof(name) - sizeof(minute), &minute, sizeof(minute));
    table_upsert(ledger->failures, slice_make(name, sizeof(name)), ledger_visit_failure, &failure);
}

void gate_ledger_used(struct gate_ledger *ledger, uint64_t key, int64_t wall_ms)
{
    struct ledger_use use = {.key = key, .minute = wall_ms / LEDGER_MINUTE_MS};
    table_put(ledger->uses, slice_make(&key, sizeof(key)), &use);
}

static bool ledger_take_failure(const void *value, void *context)
{
    struct gate_ledger *ledger = context;
    if (ledger->failed_count == ledger->failed_max) {
        return false;
    }
    ledger->failed[ledger->failed_count++] = *(const struct ledger_failure *)value;
    return true;
}

static bool ledger_take_use(const void *value, void *context)
{
    struct gate_ledger *ledger = context;
    if (ledger->used_count == ledger->used_max) {
        return false;
    }
    ledger->used[ledger->used_count++] = *(const struct ledger_use *)value;
    return true;
}

/* What is added to the tables between counting and taking waits for the next write. */
static void ledger_batch_take(struct gate_ledger *ledger)
{
    ledger->failed_max = table_count(ledger->failures);
    ledger->used_max = table_count(ledger->uses);
    ledger->has_more = ledger->used_max > LIMIT_USES_PER_JOB;
    ledger->used_max = ledger->has_more ? LIMIT_USES_PER_JOB : ledger->used_max;
    if (ledger->failed_max > 0) {
        ledger->failed = mem_alloc_array(ledger->failed_max, sizeof(*ledger->failed));
        table_erase_if(ledger->failures, ledger_take_failure, ledger);
    }
    if (ledger->used_max > 0) {
        ledger->used = mem_alloc_array(ledger->used_max, sizeof(*ledger->used));
        table_erase_if(ledger->uses, ledger_take_use, ledger);
    }
}

/* --- the job ---------------------------------------------------------------------------------- */

static enum err ledger_find_key(struct store_connection *connection, struct slice id,
                                uint64_t *ret_key, uint64_t *ret_org)
{
    struct store_statement *statement;
    bool is_row = false;
    enum err err =
        store_prepare(connection, "SELECT number, org FROM keys WHERE id = $1", &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_text(statement, 1, id);
    err = store_step(statement, &is_row);
    if (err == ERR_OK && is_row) {
        *ret_key = (uint64_t)store_column_i64(statement, 0);
        *ret_org = (uint64_t)store_column_i64(statement, 1);
        store_reset(statement);
    }
    return err;
}

static enum err ledger_add_row(struct store_connection *connection, const struct gate_audit *entry,
                               int64_t minute, uint64_t count)
{
    struct store_statement *statement;
    enum err err =
        store_prepare(connection,
                      "INSERT INTO audit (time_ms, org, key, action, target, address, count)"
                      " VALUES ($1, $2, $3, 'auth.failed', $4, $5, $6)"
                      " ON CONFLICT (time_ms, target, address) WHERE action = 'auth.failed'"
                      " DO UPDATE SET count = audit.count + excluded.count",
                      &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, minute * LEDGER_MINUTE_MS);
    store_bind_i64(statement, 2, (int64_t)entry->org);
    store_bind_i64(statement, 3, (int64_t)entry->key);
    store_bind_text(statement, 4, entry->target);
    store_bind_text(statement, 5, entry->address);
    store_bind_i64(statement, 6, (int64_t)count);
    return store_execute(statement);
}

static enum err ledger_write_failure(struct store_connection *connection,
                                     const struct ledger_failure *failure, uint32_t *known_left,
                                     uint32_t *unknown_left)
{
    struct gate_audit entry = {.target = slice_make(failure->id, failure->id_size),
                               .address = slice_make(failure->address, failure->address_size)};
    enum err err = ERR_OK;
    if (failure->id_size > 0) {
        err = ledger_find_key(connection, entry.target, &entry.key, &entry.org);
    }
    uint32_t *left = entry.key != 0 ? known_left : unknown_left;
    if (entry.key == 0 || *left == 0) {
        entry.target = SLICE_LITERAL("");
    }
    if (*left == 0) {
        entry.org = 0;
        entry.key = 0;
        entry.address = SLICE_LITERAL("");
    } else {
        (*left)--;
    }
    return err != ERR_OK ? err
                         : ledger_add_row(connection, &entry, failure->minute, failure->count);
}

static enum err ledger_write_use(struct store_connection *connection, const struct ledger_use *use)
{
    struct store_statement *statement;
    enum err err = store_prepare(
        connection, "UPDATE keys SET last_used_ms = $1 WHERE number = $2 AND last_used_ms < $1",
        &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, use->minute * LEDGER_MINUTE_MS);
    store_bind_i64(statement, 2, (int64_t)use->key);
    return store_execute(statement);
}

static enum err ledger_prune(struct store_connection *connection, int64_t before_ms)
{
    struct store_statement *statement;
    enum err err = store_prepare(connection,
                                 "DELETE FROM audit WHERE number IN (SELECT number FROM audit"
                                 " WHERE action = 'auth.failed' AND time_ms < $1 LIMIT 1000)",
                                 &statement);
    if (err != ERR_OK) {
        return err;
    }
    store_bind_i64(statement, 1, before_ms);
    return store_execute(statement);
}

static enum err ledger_run(struct store_job *job, struct store_connection *connection)
{
    struct gate_ledger *ledger =
        (struct gate_ledger *)(void *)((char *)job - offsetof(struct gate_ledger, job));
    uint32_t known_left = LIMIT_FAILURE_ROWS_KNOWN;
    uint32_t unknown_left = LIMIT_FAILURE_ROWS_UNKNOWN;
    int64_t newest = 0;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < ledger->failed_count && err == ERR_OK; i++) {
        const struct ledger_failure *failure = &ledger->failed[i];
        newest = failure->minute > newest ? failure->minute : newest;
        err = ledger_write_failure(connection, failure, &known_left, &unknown_left);
    }
    for (uint32_t i = 0; i < ledger->used_count && err == ERR_OK; i++) {
        err = ledger_write_use(connection, &ledger->used[i]);
    }
    if (err == ERR_OK && ledger->failed_count > 0) {
        err = ledger_prune(connection, newest * LEDGER_MINUTE_MS - GATE_FAILURES_KEPT_MS);
    }
    return err;
}

static void ledger_on_written(struct store_job *job)
{
    struct gate_ledger *ledger =
        (struct gate_ledger *)(void *)((char *)job - offsetof(struct gate_ledger, job));
    ledger->is_writing = false;
    if (job->err == ERR_OK) {
        ledger_batch_free(ledger);
    } else if (job->err == ERR_REFUSED) {
        log_write(LOG_ERROR, "gate", "failed checks and last uses were not written: %s",
                  err_text(job->err));
        ledger_batch_free(ledger);
    }
    if (job->err == ERR_OK && ledger->has_more) {
        gate_ledger_write(ledger, job->reply_to);
    }
}

void gate_ledger_write(struct gate_ledger *ledger, struct mailbox *reply_to)
{
    if (ledger->is_writing) {
        return;
    }
    if (ledger->failed == NULL && ledger->used == NULL) {
        ledger_batch_take(ledger);
    }
    if (ledger->failed == NULL && ledger->used == NULL) {
        return;
    }
    ledger->job = (struct store_job){.priority = STORE_RESULTS,
                                     .durable = false,
                                     .run = ledger_run,
                                     .on_done = ledger_on_written,
                                     .reply_to = reply_to};
    ledger->is_writing = store_post_write(ledger->store, &ledger->job) == ERR_OK;
}

bool gate_ledger_is_writing(const struct gate_ledger *ledger)
{
    return ledger->is_writing;
}
