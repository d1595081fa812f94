/* The appliers of this process: opened together, since they share what is known of orgs, of frames
 * that several of them apply, and of how far each lane is.
 *
 * Without leases there is one, and its cursor (lane 64) is that of all lanes. With leases each has
 * some of the 64 lanes, by lease.c, and the cursors are one row for each lane. A store may come
 * from the other way: a lane is as far as the higher of both cursors says.
 *
 * Happy path: cursors -> open uploads are counted -> appliers; stop; close.
 * Failure modes: the store is away: the error goes to who starts the program. */
#include "apply/internal.h"

#include "base/hash.h"
#include "base/table.h"

#include <assert.h>

#define MAILBOX_CAPACITY 16u
#define ID_KEYS_MAX      16384u

/* --- one applier --------------------------------------------------------------------------- */

static void applier_destroy(struct applier *applier)
{
    struct list_link *link = NULL;
    if (applier == NULL) {
        return;
    }
    journal_unsubscribe(applier->options.journal, applier->mailbox); /* it may outlive this */
    while ((link = list_take_first(&applier->uploads)) != NULL) {
        apply_upload_destroy(LIST_CONTAINER(link, struct apply_upload, link));
    }
    for (int i = 0; i < 2; i++) {
        apply_batch_finish(&applier->batches[i]);
    }
    apply_retention_finish(applier);
    apply_orphans_finish(applier);
    journal_reader_close(applier->reader);
    format_reader_destroy(applier->format);
    buffer_finish(&applier->chunk);
    mailbox_destroy(applier->mailbox);
    mem_free(applier->mixed);
    mem_free(applier->told);
    mem_free(applier);
}

static enum err applier_create(struct apply *apply, uint32_t index)
{
    const struct apply_options *options = &apply->options;
    struct applier *applier = mem_alloc(sizeof(*applier));
    applier->apply = apply;
    applier->index = index;
    applier->options = *options;
    applier->journal = apply->journal;
    applier->id_keys = apply->id_keys;
    applier->policy = (struct apply_policy){.batch_size = options->batch_size,
                                            .batch_timeout_ms = options->batch_timeout_ms,
                                            .gap_ms = APPLY_GAP_MS,
                                            .gap_rows = APPLY_GAP_ROWS,
                                            .rows_max = APPLY_ROWS_MAX,
                                            .bytes_max = APPLY_BYTES_MAX};
    applier->has_more = true;
    apply_telemetry_init(applier);
    list_init(&applier->uploads);
    buffer_init(&applier->chunk, LIMIT_UPLOAD_BLOCK_BYTES);
    applier->format = format_reader_create();
    applier->filling = &applier->batches[0];
    for (int i = 0; i < 2; i++) {
        applier->batches[i].applier = applier;
        apply_batch_reset(&applier->batches[i]);
    }
    apply->appliers[index] = applier;
    return mailbox_create(&applier->mailbox, MAILBOX_CAPACITY);
}

/* --- the cursors --------------------------------------------------------------------------- */

struct open_job {
    struct store_job job;
    struct apply_lease_open open;
    const struct apply *apply;
};

static enum err open_run(struct store_job *job, struct store_connection *connection)
{
    struct open_job *one = (struct open_job *)job;
    enum err err = apply_lease_open(connection, &one->open);
    return err == ERR_OK ? apply_own_open(one->apply, connection) : err;
}

static void open_done(struct store_job *job)
{
    (void)job;
}

static uint64_t make_holder(void)
{
    uint64_t holder = 0;
    hash_random(&holder, sizeof(holder));
    return (holder >> 2u) + 1; /* 0 is nobody; positive in the database, where people look */
}

static enum err open_leases(struct apply *apply, struct journal_from *ret)
{
    struct open_job job = {
        .job = {.priority = STORE_CONTROL, .durable = true, .run = open_run, .on_done = open_done},
        .open = {.journal = apply->journal,
                 .holder_count = apply->options.is_follower ? 0 : apply->count,
                 .is_exclusive = apply->options.is_exclusive},
        .apply = apply};
    for (uint32_t i = 0; i < apply->count; i++) {
        uint64_t holder = make_holder();
        job.open.holders[i] = holder;
        apply->appliers[i]->lease.look.journal = apply->journal;
        apply->appliers[i]->lease.look.holder = holder;
    }
    enum err err = ERR_BUSY;
    for (uint32_t i = 0; i < APPLY_OPEN_TRIES && err == ERR_BUSY; i++) {
        err = store_run_here(apply->options.store, &job.job);
    }
    if (err == ERR_OK) {
        *ret = job.open.cursors;
    }
    return err;
}

static void take_cursors(struct apply *apply, const struct journal_from *cursors)
{
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        atomic_store_explicit(&apply->passed[i], cursors->after[i], memory_order_relaxed);
        atomic_store_explicit(&apply->written[i], cursors->after[i], memory_order_relaxed);
    }
    atomic_store_explicit(&apply->position, journal_from_least(cursors), memory_order_release);
}

/* A reader is opened in any case: what the journal has to say against the cursors it says at the
 * start. */
static enum err open_cursors(struct apply *apply)
{
    struct applier *first = apply->appliers[0];
    struct journal_from cursors;
    bool has_leases = apply_has_leases(first);
    enum err err = has_leases ? open_leases(apply, &cursors)
                              : apply_cursors_of(apply->options.store, apply->journal, &cursors);
    if (err == ERR_OK) {
        take_cursors(apply, &cursors);
        err = journal_reader_open(&first->reader, apply->options.journal, &cursors);
    }
    if (err == ERR_OK && !has_leases) {
        first->from = cursors;
        apply_lanes_set(first, APPLY_LANES_ALL);
    }
    if (has_leases) {
        journal_reader_close(first->reader);
        first->reader = NULL;
    }
    return err;
}

/* Those of all lanes are counted here, whoever will apply them. */
static enum err open_uploads(struct apply *apply)
{
    struct applier *first = apply->appliers[0];
    enum err err = apply_uploads_load(first, APPLY_LANES_ALL);
    if (err == ERR_OK) {
        apply_uploads_charge(first);
    }
    if (err == ERR_OK && apply_has_leases(first)) {
        apply_uploads_drop(first, APPLY_LANES_ALL);
    }
    return err;
}

/* Of a shared stream: one applier of each node looks for all lanes. */
static void open_found(struct apply *apply)
{
    struct applier *first = apply->appliers[0];
    bool is_shared = journal_is_shared(apply->options.journal);
    for (uint32_t i = 0; i < apply->count; i++) {
        apply->appliers[i]->found_are_over = true;
    }
    if (is_shared) {
        first->found_are_over = first->found.records == 0 && apply_uploads_are_past(first);
        apply_uploads_tell(first);
    }
}

/* --- all ----------------------------------------------------------------------------------- */

enum err apply_open(struct apply **ret, const struct apply_options *options,
                    struct err_detail *detail)
{
    struct journal_state state;
    struct apply *apply = mem_alloc(sizeof(*apply));
    enum err err = ERR_OK;
    assert(options->appliers <= APPLY_APPLIERS_MAX);
    apply->options = *options;
    apply->count = options->appliers == 0 ? 1 : options->appliers;
    apply->id_keys = table_create(ID_KEYS_MAX, 32);
    apply->results = table_create(APPLY_RESULTS_MAX, sizeof(struct apply_shared_result));
    journal_state(options->journal, &state);
    apply->journal = state.id;
    for (uint32_t i = 0; i < apply->count && err == ERR_OK; i++) {
        err = applier_create(apply, i);
    }
    if (err == ERR_OK) {
        err = open_uploads(apply);
    }
    if (err == ERR_OK) {
        err = open_cursors(apply);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "%s", err_text(err));
        goto out;
    }
    open_found(apply);
    for (uint32_t i = 0; i < apply->count && !options->paused; i++) {
        /* Paused, nothing would come of being woken by each commit. */
        journal_subscribe(options->journal, apply->appliers[i]->mailbox);
    }
    journal_progress(options->journal, apply_position(apply), 0);
    journal_on_share(options->journal, apply_settle_share, apply);
    *ret = apply;
    apply = NULL;
out:
    apply_close(apply);
    return err;
}

void apply_close(struct apply *apply)
{
    if (apply == NULL) {
        return;
    }
    journal_on_share(apply->options.journal, NULL, NULL); /* its thread has ended */
    for (uint32_t i = 0; i < apply->count; i++) {
        applier_destroy(apply->appliers[i]);
    }
    table_destroy(apply->id_keys);
    table_destroy(apply->results);
    mem_free(apply);
}

uint32_t apply_count(const struct apply *apply)
{
    return apply->count;
}

void *apply_applier(struct apply *apply, uint32_t index)
{
    assert(index < apply->count);
    return apply->appliers[index];
}

void apply_stop(struct apply *apply)
{
    atomic_store_explicit(&apply->is_stopping, true, memory_order_release);
    for (uint32_t i = 0; i < apply->count; i++) {
        mailbox_wake(apply->appliers[i]->mailbox);
    }
}

uint64_t apply_position(const struct apply *apply)
{
    return atomic_load_explicit(&apply->position, memory_order_acquire);
}
