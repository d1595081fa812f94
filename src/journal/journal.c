/* Journal: opens, starts and stops it, and answers what any thread may ask.
 *
 * Order of a life: open (recovery, no threads) -> start (the first segment) -> committer, preparer
 * and uploader run, producers and readers are made and used -> stop -> the three return and are
 * joined -> producers take their last mail and go -> close.
 *
 * Happy path: open, start, stop, close.
 * Failure modes: open or start fail: nothing is kept but what recovery did, and it may be tried
 * again. */
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sys.h"
#include "journal/spool.h"

#include <assert.h>
#include <inttypes.h>

#define JOURNAL_SEGMENT_BYTES_MIN  (1024u * UINT64_C(1024))
#define JOURNAL_UPLOAD_MAILS_MAX   16384u
#define JOURNAL_PREPARER_MAILS_MAX 1024u

static enum err journal_make_directories(struct journal *journal, struct err_detail *detail)
{
    enum err err = journal_directory_make(journal->directory, detail);
    return err == ERR_OK ? journal_directory_make(journal->uploads_directory, detail) : err;
}

static enum err journal_make_mailboxes(struct journal *journal)
{
    uint32_t batches = journal->options.producer_count * JOURNAL_BATCHES_MAX + 1;
    enum err err = mailbox_create(&journal->committer_mailbox, batches);
    if (err == ERR_OK) {
        err = mailbox_create(&journal->preparer_mailbox, JOURNAL_PREPARER_MAILS_MAX);
    }
    if (err == ERR_OK) {
        err = mailbox_create(&journal->uploader_mailbox, JOURNAL_UPLOAD_MAILS_MAX);
    }
    return err;
}

enum err journal_open(struct journal **ret, const struct journal_options *options,
                      const struct journal_from *applied, struct err_detail *detail)
{
    assert(options->segment_bytes >= JOURNAL_SEGMENT_BYTES_MIN);
    assert(options->segment_bytes % JOURNAL_SEGMENT_BYTES_MIN == 0);
    struct journal *journal = mem_alloc(sizeof(*journal));
    journal->backend = options->nats.url != NULL ? &journal_nats : &journal_local;
    journal->options = *options;
    journal->directory = mem_copy_text(options->directory);
    journal->uploads_directory = mem_copy_text(options->uploads_directory);
    journal->options.directory = journal->directory;
    journal->options.uploads_directory = journal->uploads_directory;
    if (options->spool_directory != NULL) {
        journal->spool_directory = mem_copy_text(options->spool_directory);
    }
    journal->options.spool_directory = journal->spool_directory;
    journal_room_init(&journal->room, options->backlog_bytes_max, options->nats.is_shared);
    journal_room_progress(&journal->room, journal_from_least(applied), 0);
    journal_slots_init(&journal->slots);
    list_init(&journal->uploader.files);
    list_init(&journal->preparer.known);
    list_init(&journal->committer.spares);
    journal_batch_list_init(&journal->committer.pending);
    journal->committer.segment.fd = -1;
    journal->committer.padding = mem_alloc(JOURNAL_PAGE_BYTES);
    enum err err = journal_make_directories(journal, detail);
    if (err == ERR_OK) {
        err = journal_make_mailboxes(journal);
    }
    if (err == ERR_OK) {
        atomic_store_explicit(&journal->has_damage, journal_quarantine_has_copy(journal),
                              memory_order_relaxed);
        err = journal_nats_spool_refuse(journal, detail);
    }
    if (err == ERR_OK) {
        err = journal->backend->open(journal, applied, detail);
    }
    if (err != ERR_OK) {
        goto out;
    }
    *ret = journal;
    journal = NULL; /* the caller owns it now */
out:
    journal_close(journal);
    return err;
}

void journal_state(const struct journal *journal, struct journal_state *ret)
{
    *ret = journal->state;
}

bool journal_has_damage(const struct journal *journal)
{
    return atomic_load_explicit(&journal->has_damage, memory_order_relaxed);
}

enum err journal_start(struct journal *journal, uint64_t base, struct err_detail *detail)
{
    return journal->backend->start(journal, base, detail);
}

void journal_committer_run(void *argument)
{
    struct journal *journal = argument;
    journal->backend->commit(journal);
}

void journal_preparer_run(void *argument)
{
    struct journal *journal = argument;
    journal->backend->prepare(journal);
}

void journal_stop(struct journal *journal)
{
    atomic_store_explicit(&journal->is_draining, true, memory_order_relaxed);
    mailbox_close(journal->committer_mailbox);
    mailbox_close(journal->preparer_mailbox);
    mailbox_close(journal->uploader_mailbox);
}

void journal_close(struct journal *journal)
{
    if (journal == NULL) {
        return;
    }
    if (journal->uploader_mailbox != NULL) {
        journal_uploader_discard(journal);
        (void)mailbox_run_all(journal->committer_mailbox); /* spares that came after the stop */
        journal_preparer_discard(journal);
    }
    journal->backend->close(journal);
    assert(journal->committer.pending.first == NULL);
    journal_committer_discard(journal);
    mailbox_destroy(journal->committer_mailbox);
    mailbox_destroy(journal->preparer_mailbox);
    mailbox_destroy(journal->uploader_mailbox);
    journal_room_finish(&journal->room);
    journal_slots_finish(&journal->slots);
    mem_free(journal->directory);
    mem_free(journal->uploads_directory);
    mem_free(journal->spool_directory);
    mem_free(journal);
}

/* --- any thread ------------------------------------------------------------------------------- */

uint64_t journal_durable_position(const struct journal *journal)
{
    return atomic_load_explicit(&journal->durable_position, memory_order_acquire);
}

void journal_subscribe(struct journal *journal, struct mailbox *mailbox)
{
    for (uint32_t i = 0; i < JOURNAL_SUBSCRIBERS_MAX; i++) {
        struct mailbox *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&journal->subscribers[i], &none, mailbox,
                                                    memory_order_release, memory_order_relaxed)) {
            return;
        }
    }
    assert(false);
}

void journal_unsubscribe(struct journal *journal, const struct mailbox *mailbox)
{
    for (uint32_t i = 0; i < JOURNAL_SUBSCRIBERS_MAX; i++) {
        if (atomic_load_explicit(&journal->subscribers[i], memory_order_relaxed) == mailbox) {
            atomic_store_explicit(&journal->subscribers[i], NULL, memory_order_release);
        }
    }
}

void journal_wake_subscribers(struct journal *journal)
{
    for (uint32_t i = 0; i < JOURNAL_SUBSCRIBERS_MAX; i++) {
        struct mailbox *one = atomic_load_explicit(&journal->subscribers[i], memory_order_acquire);
        if (one != NULL) {
            mailbox_wake(one);
        }
    }
}

enum err journal_room(struct journal *journal, uint64_t org, uint64_t bytes)
{
    return journal_room_look(&journal->room, org, bytes);
}

uint32_t journal_retry_after_s(struct journal *journal)
{
    return journal_room_retry_s(&journal->room);
}

bool journal_is_shared(const struct journal *journal)
{
    return journal->nats != NULL && journal->options.nats.is_shared;
}

void journal_answer(struct journal *journal, const struct record_share *share)
{
    journal_nats_results_send(journal, share);
}

bool journal_keeps(const struct journal *journal)
{
    return journal->nats != NULL;
}

void journal_tell_applied(struct journal *journal, uint64_t run,
                          const struct record_applied *frames, uint32_t count)
{
    if (journal_keeps(journal)) {
        journal_nats_kept_tell(journal, run, frames, count);
    }
}

void journal_on_share(struct journal *journal, journal_take_share take, void *context)
{
    journal->share_context = context;
    atomic_store_explicit(&journal->take_share, take, memory_order_release);
}

/* In a shared stream each node takes its own frames off when all lanes have passed them. */
void journal_credit(struct journal *journal, uint64_t org, uint64_t bytes, uint32_t record_count)
{
    if (journal_is_shared(journal)) {
        return;
    }
    journal_room_credit(&journal->room, org, bytes, record_count, clock_mono_ns());
}

void journal_credit_upload(struct journal *journal, struct id upload, uint64_t org, uint64_t bytes)
{
    if (journal_is_shared(journal)) {
        journal_nats_held_over(journal, upload);
        return;
    }
    journal_slots_close(&journal->slots, org);
    journal_room_credit_upload(&journal->room, org, bytes, clock_mono_ns());
}

void journal_charge(struct journal *journal, uint64_t org, uint64_t bytes, uint64_t record_count)
{
    if (journal_is_shared(journal)) {
        return; /* its own node holds the bytes, if that still runs */
    }
    journal_slots_force(&journal->slots, org);
    journal_room_force(&journal->room, org, bytes);
    journal_room_durable(&journal->room, record_count, clock_wall_ms());
}

void journal_charge_shared(struct journal *journal, uint64_t bytes, uint64_t record_count)
{
    journal_room_found_uploads(&journal->room, bytes);
    atomic_store_explicit(&journal->charged, record_count, memory_order_relaxed);
}

uint32_t journal_uploads_silent(struct journal *journal, uint64_t position, struct id *to,
                                uint32_t max)
{
    return journal_is_shared(journal) ? journal_nats_held_silent(journal, position, to, max) : 0;
}

void journal_release(struct journal *journal, uint64_t position)
{
    atomic_store_explicit(&journal->released, position, memory_order_relaxed);
}

/* Frames between positions; of a stream messages, with at least one in each. */
static uint64_t frames_between(const struct journal *journal, uint64_t after, uint64_t until)
{
    uint64_t run = UINT64_C(1) << journal->run_bits;
    return until > after ? (until - after + run - 1) / run : 0;
}

/* Of a shared stream: what is from before the start, whoever accepted it, above `position`, which
 * is 0 when nothing of a new stream was read. */
static uint64_t frames_found(const struct journal *journal, uint64_t position)
{
    uint64_t found = journal->recovered_position;
    uint64_t from = position > journal->state.base ? position : journal->state.base;
    return frames_between(journal, from, found);
}

void journal_backlog(struct journal *journal, struct journal_backlog *ret)
{
    struct journal_room *room = &journal->room;
    uint64_t durable = journal_durable_position(journal);
    uint64_t before = atomic_load_explicit(&room->before_oldest, memory_order_relaxed);
    ret->bytes = journal_room_bytes(room);
    uint64_t unread = atomic_load_explicit(&journal->unread, memory_order_relaxed);
    if (journal_is_shared(journal)) { /* what was there at the start: at least a record each */
        unread = frames_found(journal, before);
    }
    uint64_t records = atomic_load_explicit(&room->records, memory_order_relaxed);
    uint64_t kept = journal_keeps(journal) ? journal_nats_kept_records(journal) : 0;
    /* All lanes may have passed a frame that is not in the store. */
    ret->records = unread + (records > kept ? records : kept) +
                   atomic_load_explicit(&journal->charged, memory_order_relaxed);
    ret->oldest_received_ms =
        ret->bytes == 0 ? 0 : atomic_load_explicit(&room->oldest_ms, memory_order_relaxed);
    ret->frames =
        ret->bytes == 0 || durable < before ? unread : frames_between(journal, before, durable);
}

void journal_progress(struct journal *journal, uint64_t position, uint64_t oldest_ms)
{
    journal_room_progress(&journal->room, position, oldest_ms);
    if (journal->nats != NULL) {
        atomic_store_explicit(&journal->nats->has_unsettled, oldest_ms != 0, memory_order_relaxed);
    }
    if (journal_is_shared(journal)) {
        journal_room_found(&journal->room, frames_found(journal, position));
    }
}

/* --- readers ---------------------------------------------------------------------------------- */

struct journal_from journal_from_all(uint64_t after)
{
    struct journal_from from = {.lanes = UINT64_MAX};
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        from.after[i] = after;
    }
    return from;
}

uint64_t journal_from_least(const struct journal_from *from)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        bool is_in = (from->lanes >> i & 1u) != 0;
        least = is_in && from->after[i] < least ? from->after[i] : least;
    }
    return least;
}

bool journal_from_wants(const struct journal_from *from, uint8_t lane, uint64_t position)
{
    if (lane >= LIMIT_LANES) {
        return position > journal_from_least(from);
    }
    return (from->lanes >> lane & 1u) != 0 && position > from->after[lane];
}

enum err journal_reader_open(struct journal_reader **ret, struct journal *journal,
                             const struct journal_from *from)
{
    struct journal_reader *reader = NULL;
    uint64_t least = journal_from_least(from);
    assert(from->lanes != 0);
    enum err err = journal->backend->reader_open(&reader, journal, least);
    if (err == ERR_OK) {
        reader->from = *from;
        reader->place = least;
        *ret = reader;
    }
    return err;
}

enum err journal_reader_next(struct journal_reader *reader, struct journal_frame *ret,
                             bool *ret_has)
{
    for (;;) {
        enum err err = reader->journal->backend->reader_next(reader, ret, ret_has);
        if (err != ERR_OK || !*ret_has) {
            return err;
        }
        reader->place = ret->position;
        if (journal_from_wants(&reader->from, ret->lane, ret->position)) {
            return ERR_OK;
        }
    }
}

uint64_t journal_reader_place(const struct journal_reader *reader)
{
    return reader->place;
}

void journal_reader_applied(struct journal_reader *reader, uint64_t position)
{
    reader->journal->backend->reader_applied(reader, position);
}

void journal_reader_close(struct journal_reader *reader)
{
    if (reader != NULL) {
        reader->journal->backend->reader_close(reader);
    }
}
