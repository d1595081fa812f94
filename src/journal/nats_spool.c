/* NATS spool: takes over while the stream takes nothing.
 *
 * The spool is a journal of its own on this machine's disk: the same committer, segments and
 * recovery as without NATS. It has no applier: what it holds is forwarded to the stream, in order.
 *
 *   DIRECT -- not reached, no word for a second, full --> SPOOLING -- nothing left --> DIRECT
 *
 * (begin and end make the transitions; a start that finds frames, or no stream, is SPOOLING.)
 *
 * Happy path: begin gives what is on the way to the stream to the segments, in its order, and then
 * every frame that comes; a slot is settled when its frame is synced, with the position that it has
 * there. When the stream takes frames again they are forwarded, each under its own id, so that what
 * the stream has already does not come twice. When the segments hold nothing that is not forwarded,
 * frames are published directly again: so what follows one another is applied in that order.
 *
 * While they are emptied new frames come half as fast as old ones go, and the last ones not at all:
 * so it ends, whatever comes. If the stream falters for half a second they are taken at once.
 *
 * A position of the spool is applied when the stream's frames up to `place` are: that is the
 * highest that any forwarded one has got, so who waits for one may wait for later ones, never for
 * fewer.
 *
 * A large body that begins while frames go to the spool is a file of its own there, as with the
 * local journal; its end record is a frame of the spool, before which the body goes to the stream
 * (nats_carry.c). So it stays when the spool is empty before it ends: its end record then turns the
 * spool on. Of a body that has begun in the stream the end record follows at once or never.
 *
 * Failure modes: the disk is below its reserve, or a write fails: the frame is refused as with the
 * local journal. The stream was replaced: nothing is forwarded until a restart meets the new one,
 * whose base lies above. Killed: the segments have it; what was forwarded after the state was last
 * written (250 ms) is forwarded again, and meets itself: in the stream by its id within two
 * minutes, in the store by its records' ids for ever. */
#include "journal/spool.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"
#include "base/sys.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#define MS             UINT64_C(1000000)
#define SPOOL_SAVE_MS  250u
#define SPOOL_STALL_MS 500u
#define SPOOL_LAST     256u  /* so few left: new ones wait until they are gone */
#define SPOOL_CREDIT   4096u /* at most, so that a calm hour does not buy a rush */

/* --- a life -----------------------------------------------------------------------------------
 */

enum err journal_nats_spool_refuse(struct journal *journal, struct err_detail *detail)
{
    const char *directory = journal->options.spool_directory;
    struct journal_check_report report = {0};
    struct err_detail unused = {{0}};
    struct spool_state state;
    struct id id;
    int fd = -1;
    bool is_well = directory == NULL || journal->options.nats.spools;
    if (is_well || journal_identify(directory, &id) != ERR_OK) {
        return ERR_OK;
    }
    enum err err = journal_spool_state_open(directory, &fd, &state);
    if (err == ERR_OK) {
        (void)sys_close(fd); /* only read */
        err = journal_check(directory, &report, NULL, NULL, NULL, &unused);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "%s: %s", directory, err_text(err));
        return err;
    }
    if (report.last_position > state.forwarded) {
        err_detail_set(detail,
                       "%s holds records that NATS does not have; start with NATS_URL and "
                       "JOURNAL_SPOOL=1, wait until weir_spool_frames is 0, and stop",
                       directory);
        return ERR_CONFIG;
    }
    journal->left = id;
    return ERR_OK;
}

struct id journal_left(const struct journal *journal)
{
    return journal->left;
}

static enum err open_segments(struct nats_spool *spool, struct err_detail *detail)
{
    struct journal_options options = spool->journal->options;
    struct journal_from applied = journal_from_all(0);
    char uploads[SPOOL_PATH_BYTES];
    struct id id;
    (void)snprintf(uploads, sizeof(uploads), "%s/uploads", options.spool_directory);
    options.directory = options.spool_directory;
    options.uploads_directory = uploads;
    options.spool_of = spool->journal;
    options.spool_directory = NULL;
    options.nats = (struct journal_nats_options){.url = NULL};
    options.backlog_bytes_max = UINT64_MAX; /* the journal that it is of counts */
    options.replay_window_s = 0;
    options.producer_count = 1;
    if (journal_identify(options.directory, &id) == ERR_OK && id_equal(id, spool->state.segments)) {
        applied = journal_from_all(spool->state.forwarded);
    }
    return journal_open(&spool->segments, &options, &applied, detail);
}

enum err journal_nats_spool_open(struct journal *journal, struct err_detail *detail)
{
    const char *directory = journal->options.spool_directory;
    if (!journal->options.nats.spools) {
        return ERR_OK;
    }
    struct nats_spool *spool = mem_alloc(sizeof(*spool));
    journal->nats->spool = spool;
    spool->journal = journal;
    spool->state_fd = -1;
    journal_nats_carry_open(spool);
    enum err err = journal_directory_make(directory, detail);
    if (err == ERR_OK) {
        err = journal_spool_state_open(directory, &spool->state_fd, &spool->state);
        err_detail_set(detail, "%s: %s", directory, err_text(err));
    }
    if (err == ERR_OK) {
        err = open_segments(spool, detail);
    }
    err_detail_prefix(err != ERR_OK ? detail : NULL, "spool");
    return err;
}

bool journal_nats_spool_knows(const struct journal *journal)
{
    const struct nats_spool *spool = journal->nats->spool;
    return spool != NULL && strcmp(spool->state.stream, journal->nats->stream) == 0;
}

void journal_nats_spool_found(struct journal *journal, const struct journal_frame *frame)
{
    struct record_frame record;
    struct record_upload_end end;
    journal_room_force(&journal->room, frame->org, frame->bytes);
    journal_room_durable(&journal->room, frame->record_count, 0);
    journal->nats->spool->left++;
    if (frame->form == RECORD_FORM_UPLOAD_END &&
        record_frame_decode(frame->bytes_slice, &record) == ERR_OK &&
        record_upload_end_decode(record.body, &end) == ERR_OK) {
        journal_room_force(&journal->room, frame->org, end.stored_bytes);
        journal_slots_force(&journal->slots, frame->org);
        if (journal_is_shared(journal)) {
            journal_nats_held_publish(journal, frame);
        }
    }
}

static void tell_frames(struct nats_spool *spool)
{
    uint64_t frames = spool->left + spool->waiting;
    atomic_store_explicit(&spool->frames, frames, memory_order_relaxed);
    metrics_set(METRIC_SPOOL_FRAMES, (double)frames);
}

static void set_on(struct nats_spool *spool)
{
    const struct nats_journal *nats = spool->journal->nats;
    spool->was_taking = false;
    spool->empty_ns = 0;
    spool->begun_at = journal_nats_sequence(nats, journal_durable_position(spool->journal));
    spool->went_back = nats->publisher.went_back;
    atomic_store_explicit(&spool->since_ms, (uint64_t)clock_wall_ms(), memory_order_relaxed);
    atomic_store_explicit(&spool->is_on, true, memory_order_relaxed);
}

/* What the next start must know. */
static void begin_state(struct nats_spool *spool)
{
    const struct nats_journal *nats = spool->journal->nats;
    const struct journal *segments = spool->segments;
    bool is_same = id_equal(spool->state.segments, segments->state.id);
    spool->state.forwarded = is_same ? spool->state.forwarded : 0;
    if (spool->left == 0) {
        spool->state.forwarded = segments->committer.next_position - 1;
    }
    spool->state.segments = segments->state.id;
    memset(spool->state.stream, 0, sizeof(spool->state.stream));
    memcpy(spool->state.stream, nats->stream, strlen(nats->stream));
    spool->state.created = nats->created;
    spool->state.run_bits = nats->run_bits;
    spool->base = segments->committer.base;
    atomic_store_explicit(&spool->forwarded, spool->state.forwarded, memory_order_relaxed);
    atomic_store_explicit(&spool->place,
                          nats->is_met ? journal_nats_position(nats, nats->last_sequence) : 0,
                          memory_order_relaxed);
}

enum err journal_nats_spool_start(struct journal *journal, struct err_detail *detail)
{
    struct nats_spool *spool = journal->nats->spool;
    if (spool == NULL) {
        return ERR_OK;
    }
    begin_state(spool);
    spool->acks = (struct nats_feed){.journal = journal,
                                     .to = journal->committer_mailbox,
                                     .on_arrive = journal_nats_forward_on_ack,
                                     .owner = spool};
    enum err err = journal_spool_state_write(spool->state_fd, &spool->state, true);
    if (err == ERR_OK) {
        err = journal_producer_create(&spool->producer, spool->segments, 0,
                                      journal->committer_mailbox);
    }
    if (err == ERR_OK) {
        struct journal_from from = journal_from_all(spool->state.forwarded);
        err = journal_reader_open(&spool->reader, spool->segments, &from);
    }
    if (err == ERR_OK) {
        err = journal_nats_feed_open(&spool->acks, true);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "spool: %s", err_text(err));
        return err;
    }
    if (spool->left > 0 || !journal_nats_is_ready(journal->nats)) {
        log_write(LOG_WARN, "journal", "spool: %" PRIu64 " frames of earlier runs, stream %s",
                  spool->left, journal_nats_is_ready(journal->nats) ? "is there" : "is away");
        set_on(spool);
    }
    tell_frames(spool);
    return ERR_OK;
}

void journal_nats_spool_close(struct journal *journal)
{
    struct nats_spool *spool = journal->nats->spool;
    if (spool == NULL) {
        return;
    }
    journal_nats_feed_close(&spool->acks);
    (void)mailbox_run_all(journal->committer_mailbox); /* late words; batches of the producer */
    journal_nats_forward_drop(spool);
    journal_nats_carry_close(spool);
    journal_reader_close(spool->reader);
    journal_producer_destroy(spool->producer);
    journal_close(spool->segments);
    if (spool->state_fd >= 0) {
        (void)sys_close(spool->state_fd); /* what counts was written */
    }
    mem_free(spool);
    journal->nats->spool = NULL;
}

void journal_nats_spool_met(struct journal *journal)
{
    struct nats_journal *nats = journal->nats;
    uint64_t sequence = atomic_load_explicit(&nats->met_sequence, memory_order_relaxed);
    uint64_t met = journal_nats_position(nats, sequence);
    journal_nats_tell_durable(journal, met);
    nats->spool->begun_at = sequence;
    atomic_store_explicit(&nats->spool->place, met, memory_order_release);
}

/* --- the state ---------------------------------------------------------------------------------
 */

/* Segments go as far as the state says. */
static void save(struct nats_spool *spool, bool is_durable)
{
    enum err err = journal_spool_state_write(spool->state_fd, &spool->state, is_durable);
    spool->saved_ns = clock_mono_ns();
    if (err != ERR_OK) {
        log_write(LOG_WARN, "journal", "spool: its state: %s", err_text(err));
        return;
    }
    journal_release(spool->segments, spool->state.forwarded);
}

static void save_progress(struct nats_spool *spool, uint64_t now_ns, bool is_over)
{
    uint64_t forwarded = atomic_load_explicit(&spool->forwarded, memory_order_relaxed);
    bool is_due = is_over || now_ns - spool->saved_ns >= SPOOL_SAVE_MS * MS;
    if (forwarded != spool->state.forwarded && is_due) {
        spool->state.forwarded = forwarded;
        save(spool, is_over);
    }
}

/* --- frames of batches -------------------------------------------------------------------------
 */

bool journal_nats_spool_is_on(const struct nats_journal *nats)
{
    return nats->spool != NULL && atomic_load_explicit(&nats->spool->is_on, memory_order_relaxed);
}

static void on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct nats_slot *slot = LIST_CONTAINER(ticket, struct nats_slot, ticket);
    struct journal *journal = slot->batch->producer->journal;
    struct nats_spool *spool = journal->nats->spool;
    spool->waiting--;
    spool->left += err == ERR_OK;
    spool->empty_ns = 0;
    journal_nats_slot_settle(journal, slot, err, position);
}

void journal_nats_spool_take(struct journal *journal, struct nats_slot *slot)
{
    struct nats_spool *spool = journal->nats->spool;
    struct journal_frame frame;
    journal_frame_peek(slot->batch->bytes + slot->offset, &frame);
    struct journal_frame_parts parts = {.org = frame.org,
                                        .lane = frame.lane,
                                        .form = frame.form,
                                        .record_count = frame.record_count,
                                        .head = frame.bytes_slice};
    enum err err = ERR_OK;
    slot->is_spooled = true;
    slot->ticket.on_durable = on_durable;
    if (frame.form == RECORD_FORM_UPLOAD_END &&
        !journal_upload_is_pending(spool->segments, &frame)) {
        err = ERR_AWAY; /* a body in the stream without one is taken for lost after an hour */
    } else if (atomic_load_explicit(&spool->segments->room.is_short, memory_order_relaxed)) {
        err = ERR_NO_SPACE;
    } else {
        err = journal_append_charged(spool->producer, &parts, &slot->ticket);
    }
    if (err == ERR_OK) {
        spool->waiting++;
    } else {
        journal_nats_slot_settle(journal, slot, err, 0);
    }
}

static int compare_slots(const void *a, const void *b)
{
    const struct nats_slot *const *one = a;
    const struct nats_slot *const *other = b;
    return ((*one)->message > (*other)->message) - ((*one)->message < (*other)->message);
}

static bool is_to_take(const struct nats_slot *slot)
{
    struct journal_frame frame;
    if (slot->batch == NULL || slot->is_spooled) {
        return false;
    }
    journal_frame_peek(slot->batch->bytes + slot->offset, &frame);
    return frame.form != RECORD_FORM_UPLOAD_END; /* which is sent again until it is given up */
}

/* What was sent without an answer, in its order. The stream may have some of it all the same: then
 * it comes twice, under one id. */
static void take_over(struct journal *journal)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    struct nats_slot **slots = mem_alloc_array(NATS_IN_FLIGHT_MAX, sizeof(struct nats_slot *));
    uint32_t count = 0;
    for (uint32_t i = 0; i < NATS_IN_FLIGHT_MAX; i++) {
        if (is_to_take(&publisher->slots[i])) {
            slots[count++] = &publisher->slots[i];
        }
    }
    qsort(slots, count, sizeof(struct nats_slot *), compare_slots);
    for (uint32_t i = 0; i < count; i++) {
        journal_nats_spool_take(journal, slots[i]);
    }
    mem_free(slots);
}

void journal_nats_spool_begin(struct journal *journal, const char *why)
{
    struct nats_spool *spool = journal->nats->spool;
    assert(!journal_nats_spool_is_on(journal->nats));
    set_on(spool);
    log_write(LOG_WARN, "journal", "NATS %s: the spool takes over", why);
    take_over(journal);
}

static void spool_end(struct nats_spool *spool, uint64_t now_ns)
{
    uint64_t since_ms = atomic_load_explicit(&spool->since_ms, memory_order_relaxed);
    assert(spool->waiting == 0 && spool->count == 0);
    spool->left = 0; /* of what could not be read nothing comes any more */
    save_progress(spool, now_ns, true);
    atomic_store_explicit(&spool->is_on, false, memory_order_relaxed);
    log_write(LOG_INFO, "journal", "the spool is drained after %" PRIu64 " s: NATS takes over",
              ((uint64_t)clock_wall_ms() - since_ms) / 1000u);
}

/* The stream takes frames now. */
static bool is_taking(const struct nats_spool *spool, uint64_t now_ns)
{
    return spool->stored_ns != 0 && now_ns - spool->stored_ns < SPOOL_STALL_MS * MS &&
           journal_nats_is_ready(spool->journal->nats);
}

bool journal_nats_spool_has_room(struct journal *journal)
{
    struct nats_spool *spool = journal->nats->spool;
    if (!journal_nats_spool_is_on(journal->nats) || !is_taking(spool, clock_mono_ns()) ||
        mailbox_is_closed(journal->committer_mailbox)) {
        return true;
    }
    if (spool->left + spool->waiting <= SPOOL_LAST || spool->credit < 2) {
        return false;
    }
    spool->credit = (spool->credit < SPOOL_CREDIT ? spool->credit : SPOOL_CREDIT) - 2;
    return true;
}

void journal_nats_spool_look(struct journal *journal, uint64_t now_ns)
{
    struct nats_spool *spool = journal->nats->spool;
    if (!journal_nats_spool_is_on(journal->nats)) {
        return;
    }
    bool was_taking = spool->was_taking;
    bool is_empty = journal_nats_forward(spool, now_ns);
    journal_submit(spool->producer);
    spool->was_taking = is_taking(spool, now_ns);
    if (spool->was_taking && !was_taking) {
        spool->credit = 0;
        log_write(LOG_INFO, "journal", "NATS takes frames again: %" PRIu64 " are in the spool",
                  spool->left + spool->waiting);
    }
    if (is_empty && spool->waiting == 0 && journal_nats_is_ready(journal->nats)) {
        spool_end(spool, now_ns);
    } else {
        save_progress(spool, now_ns, false);
    }
    tell_frames(spool);
    bool is_short = atomic_load_explicit(&spool->segments->room.is_short, memory_order_relaxed);
    atomic_store_explicit(&journal->room.is_short,
                          is_short && journal_nats_spool_is_on(journal->nats),
                          memory_order_relaxed);
}

void journal_nats_spool_stop(struct journal *journal)
{
    struct nats_spool *spool = journal->nats->spool;
    if (spool != NULL) {
        save_progress(spool, clock_mono_ns(), true);
        journal_stop(spool->segments);
    }
}

/* --- any thread --------------------------------------------------------------------------------
 */

struct journal *journal_spool(const struct journal *journal)
{
    return journal->nats == NULL || journal->nats->spool == NULL ? NULL
                                                                 : journal->nats->spool->segments;
}

bool journal_takes_bodies(const struct journal *journal)
{
    return journal->nats == NULL || journal->nats->spool != NULL ||
           journal_nats_is_ready(journal->nats);
}

struct journal *journal_body_place(struct journal *journal)
{
    const struct nats_journal *nats = journal->nats;
    bool is_here = nats != NULL && nats->spool != NULL &&
                   (journal_nats_spool_is_on(nats) || !journal_nats_is_ready(nats));
    return is_here ? nats->spool->segments : journal;
}

bool journal_is_spooled(const struct journal *journal, uint64_t position)
{
    return journal_spool(journal) != NULL &&
           position >> LIMIT_RANGE_SHIFT == journal->nats->spool->base >> LIMIT_RANGE_SHIFT;
}

uint64_t journal_place(const struct journal *journal, uint64_t position)
{
    if (!journal_is_spooled(journal, position)) {
        return position;
    }
    const struct nats_spool *spool = journal->nats->spool;
    if (position > atomic_load_explicit(&spool->forwarded, memory_order_acquire)) {
        return UINT64_MAX;
    }
    uint64_t place = atomic_load_explicit(&spool->place, memory_order_acquire);
    return place == 0 ? UINT64_MAX : place;
}

bool journal_spooled(const struct journal *journal, uint64_t *ret_frames)
{
    if (journal->nats == NULL || !journal_nats_spool_is_on(journal->nats)) {
        return false;
    }
    *ret_frames = atomic_load_explicit(&journal->nats->spool->frames, memory_order_relaxed);
    return true;
}

uint64_t journal_spool_applied(const struct journal *journal, uint64_t applied)
{
    if (journal_spool(journal) == NULL) {
        return 0;
    }
    const struct nats_spool *spool = journal->nats->spool;
    uint64_t forwarded = atomic_load_explicit(&spool->forwarded, memory_order_acquire);
    uint64_t place = atomic_load_explicit(&spool->place, memory_order_acquire);
    return place != 0 && place <= applied ? forwarded : 0;
}

const struct journal *journal_own(const struct journal *journal)
{
    return journal->nats == NULL ? journal : journal_spool(journal);
}

uint64_t journal_accepted_position(const struct journal *journal)
{
    bool is_on = journal->nats != NULL && journal_nats_spool_is_on(journal->nats);
    return journal_durable_position(is_on ? journal->nats->spool->segments : journal);
}
