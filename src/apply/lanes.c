/* An applier's lanes: it looks at the leases now and then, reads the journal of what it holds, and
 * tells how far it is.
 *
 *   HAS SOME -- a look says others --> no new part begins --> the part in hand is committed -->
 *   what was read beyond it is dropped, a new reader begins behind what is applied --> HAS OTHERS
 *
 * Lanes that it gives up it stops to read first, and then says so in the rows: the next holder
 * begins where the cursor stands.
 *
 * How far: everything of its lanes is applied up to the frame before the first that it has read and
 * not applied; when there is none, up to where it has read. The lowest of all lanes is what is
 * queryable. The cursors of lanes that nothing touched follow once a second.
 *
 * A frame of several lanes leaves the backlog when the last lane has passed it. Who has lane 0
 * keeps a list of them. What is in it stays there when the lane goes: who has it next does not list
 * what was listed, since who has lost it may not know yet.
 *
 * Failure modes: the store is away: the look is repeated; what it held it goes on to apply, and
 * who took it over meanwhile is met at the commit (ERR_CLOSED): then everything is dropped. */
#include "apply/internal.h"

#include "base/clock.h"
#include "base/log.h"

#include <assert.h>

#define MS         UINT64_C(1000000)
#define AGAIN_MS   500u /* after a look that failed */
#define BLOCKED_MS 20   /* between looks whether others have passed what waits to leave */

static uint64_t number_load(const atomic_uint_least64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

/* True: it was lower. In one order with the loads of least_of: of two who raise at the same time at
 * least one sees both. */
static bool number_raise(atomic_uint_least64_t *number, uint64_t to)
{
    uint_least64_t before = number_load(number);
    while (before < to) {
        if (atomic_compare_exchange_weak_explicit(number, &before, to, memory_order_seq_cst,
                                                  memory_order_relaxed)) {
            return true;
        }
    }
    return false;
}

static uint64_t least_of(const atomic_uint_least64_t numbers[LIMIT_LANES])
{
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        uint64_t one = atomic_load_explicit(&numbers[i], memory_order_seq_cst);
        least = one < least ? one : least;
    }
    return least;
}

static bool has_lane(uint64_t lanes, uint32_t lane)
{
    return (lanes >> lane & 1u) != 0;
}

/* --- how far ------------------------------------------------------------------------------- */

/* The first frame that was read and is not applied; NULL: none in a batch. */
static const struct apply_frame *first_unsettled(const struct applier *applier)
{
    const struct apply_batch *batch = applier->in_flight;
    if (batch != NULL && batch->upload == NULL && batch->part_from < batch->frame_count) {
        return &batch->frames[batch->part_from];
    }
    batch = applier->filling;
    return batch->upload == NULL && batch->frame_count > 0 ? &batch->frames[0] : NULL;
}

static uint64_t passed(const struct applier *applier)
{
    const struct apply_frame *first = first_unsettled(applier);
    if (first != NULL) {
        return first->position - 1;
    }
    return applier->is_held ? applier->held.position - 1 : journal_reader_place(applier->reader);
}

static uint64_t count_unsettled(const struct applier *applier)
{
    const struct apply_batch *batch = applier->in_flight;
    uint64_t count = applier->filling->upload == NULL ? applier->filling->frame_count : 0;
    return batch != NULL && batch->upload == NULL ? count + batch->frame_count - batch->part_from
                                                  : count;
}

static void tell_time(struct applier *applier)
{
    const struct apply_frame *first = first_unsettled(applier);
    uint64_t unsettled = count_unsettled(applier);
    atomic_store_explicit(&applier->unsettled, unsettled, memory_order_relaxed);
    if (first != NULL) {
        atomic_store_explicit(&applier->until_ms, first->received_ms, memory_order_relaxed);
    } else if (!applier->has_more && !applier->is_held) {
        atomic_store_explicit(&applier->until_ms, clock_wall_ms(), memory_order_relaxed);
    }
}

static uint64_t oldest_ms(const struct apply *apply)
{
    int64_t oldest = 0;
    for (uint32_t i = 0; i < apply->count; i++) {
        const struct applier *one = apply->appliers[i];
        int64_t until = atomic_load_explicit(&one->until_ms, memory_order_relaxed);
        bool has_some = number_load(&one->unsettled) > 0;
        oldest = has_some && (oldest == 0 || until < oldest) ? until : oldest;
    }
    return oldest > 0 ? (uint64_t)oldest : 0;
}

static void credit_mixed(struct applier *applier, uint64_t position)
{
    while (applier->mixed_count > 0) {
        const struct apply_mixed *first = &applier->mixed[applier->mixed_first];
        if (first->position > position) {
            return;
        }
        journal_credit(applier->options.journal, first->org, first->bytes, first->records);
        applier->mixed_first = (applier->mixed_first + 1) % APPLY_MIXED_MAX;
        applier->mixed_count--;
    }
}

/* To the other nodes. It is true of these lanes whoever has them by then. */
static void announce_passed(const struct apply *apply)
{
    uint64_t lanes = 0;
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < apply->count; i++) {
        lanes |= number_load(&apply->appliers[i]->lanes);
    }
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        uint64_t one = number_load(&apply->passed[i]);
        least = has_lane(lanes, i) && one < least ? one : least;
    }
    if (lanes != 0 && journal_is_shared(apply->options.journal)) {
        store_announce_passed(apply->options.store, lanes, least);
    }
}

/* The sender may have another stream of that name: its positions lie in another range. */
static bool is_of_journal(const struct apply *apply, uint64_t position)
{
    uint64_t own = journal_durable_position(apply->options.journal);
    return journal_is_shared(apply->options.journal) &&
           own >> LIMIT_RANGE_SHIFT == position >> LIMIT_RANGE_SHIFT;
}

void apply_on_passed(struct apply *apply, uint64_t lanes, uint64_t position)
{
    if (!is_of_journal(apply, position)) {
        return;
    }
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        if (has_lane(lanes, i)) {
            (void)number_raise(&apply->passed[i], position);
        }
    }
    if (least_of(apply->passed) > apply_position(apply)) {
        mailbox_wake(apply->appliers[0]->mailbox); /* tells it when it has nothing else to do */
    }
}

void apply_on_free(struct apply *apply)
{
    for (uint32_t i = 0; i < apply->count; i++) {
        struct applier *applier = apply->appliers[i];
        atomic_store_explicit(&applier->is_called, true, memory_order_relaxed);
        mailbox_wake(applier->mailbox);
    }
}

bool apply_lanes_tell(struct applier *applier)
{
    struct apply *apply = applier->apply;
    bool has_risen = false;
    if (applier->reader != NULL) {
        uint64_t place = passed(applier);
        /* What others apply is passed, too: else a journal in NATS would stop to give more. */
        journal_reader_applied(applier->reader, place);
        for (uint32_t i = 0; i < LIMIT_LANES; i++) {
            if (has_lane(applier->from.lanes, i)) {
                (void)number_raise(&apply->passed[i], place);
            }
        }
        tell_time(applier);
    }
    has_risen = number_raise(&apply->position, least_of(apply->passed));
    uint64_t position = apply_position(apply);
    credit_mixed(applier, position);
    if (journal_is_shared(applier->options.journal)) {
        store_announce_spool(applier->options.store,
                             journal_spool_applied(applier->options.journal, position));
    }
    apply_uploads_tell(applier);
    announce_passed(apply);
    journal_progress(applier->options.journal, position, oldest_ms(apply));
    return has_risen;
}

static bool is_counted(const struct applier *applier, const struct journal_frame *frame)
{
    return apply_has_leases(applier) && frame->lane >= LIMIT_LANES &&
           journal_from_wants(&applier->from, 0, frame->position);
}

bool apply_lanes_has_room(const struct applier *applier, const struct journal_frame *frame)
{
    return applier->mixed_count < APPLY_MIXED_MAX || !is_counted(applier, frame);
}

void apply_lanes_count(struct applier *applier, const struct journal_frame *frame)
{
    if (!is_counted(applier, frame) ||
        !number_raise(&applier->apply->mixed_counted, frame->position)) {
        return;
    }
    bool is_upload = frame->form == RECORD_FORM_UPLOAD_END; /* its records leave by its slices */
    uint32_t last = (applier->mixed_first + applier->mixed_count++) % APPLY_MIXED_MAX;
    applier->mixed[last] = (struct apply_mixed){.position = frame->position,
                                                .org = frame->org,
                                                .bytes = frame->bytes,
                                                .records = is_upload ? 0 : frame->record_count};
}

int64_t apply_applied_until_ms(const struct apply *apply)
{
    uint64_t lanes = 0;
    int64_t least = INT64_MAX;
    if (apply_position(apply) >= journal_durable_position(apply->options.journal)) {
        return clock_wall_ms();
    }
    for (uint32_t i = 0; i < apply->count; i++) {
        const struct applier *one = apply->appliers[i];
        uint64_t theirs = number_load(&one->lanes);
        int64_t until = atomic_load_explicit(&one->until_ms, memory_order_relaxed);
        lanes |= theirs;
        least = theirs != 0 && until < least ? until : least;
    }
    return lanes == APPLY_LANES_ALL ? least : 0; /* how far others are is not known by time */
}

void apply_lanes_write(struct applier *applier, uint64_t lanes, uint64_t position)
{
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        if (has_lane(lanes, i)) {
            (void)number_raise(&applier->apply->written[i], position);
        }
    }
}

uint64_t apply_lanes_unsettled(const struct apply *apply)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < apply->count; i++) {
        sum += number_load(&apply->appliers[i]->unsettled);
    }
    return sum;
}

uint64_t apply_lanes_written(const struct apply *apply)
{
    return least_of(apply->written);
}

/* --- leases -------------------------------------------------------------------------------- */

/* What was read and is not applied is read again, by whoever has the lane then. */
static void drop_frames(struct applier *applier)
{
    apply_batch_reset(applier->filling);
    applier->is_held = false;
    journal_reader_close(applier->reader);
    applier->reader = NULL;
}

void apply_lanes_set(struct applier *applier, uint64_t lanes)
{
    if (applier->mixed == NULL && (lanes & 1u) != 0 && apply_has_leases(applier)) {
        applier->mixed = mem_alloc_array(APPLY_MIXED_MAX, sizeof(*applier->mixed));
    }
    applier->from.lanes = lanes;
    atomic_store_explicit(&applier->lanes, lanes, memory_order_relaxed);
    atomic_store_explicit(&applier->until_ms, 0, memory_order_relaxed);
    atomic_store_explicit(&applier->unsettled, 0, memory_order_relaxed);
    if (apply_is_first(applier)) {
        atomic_store_explicit(&applier->apply->first, applier->index, memory_order_relaxed);
    }
}

static enum err run_look(struct store_job *job, struct store_connection *connection)
{
    struct applier *applier = LIST_CONTAINER(job, struct applier, lease.job);
    enum err err = apply_uploads_find(applier, connection); /* before rows are locked */
    if (err == ERR_OK) {
        err = applier->options.is_follower ? apply_lease_follow(connection, &applier->lease.look)
                                           : apply_lease_look(connection, &applier->lease.look);
    }
    if (err == ERR_OK && applier->lease.look.is_over) {
        err = apply_own_end(applier->apply, connection); /* the last one to end says it */
    } else if (err == ERR_OK && applier->index == 0) {
        err = apply_own_tell(applier->apply, connection);
    }
    return err != ERR_OK || applier->found_are_over
               ? err
               : apply_uploads_count(applier, connection, &applier->lease.found);
}

static uint64_t look_again_ms(const struct applier *applier)
{
    if (applier->lease.look.is_hungry) {
        return APPLY_HUNGRY_MS;
    }
    bool is_awaited = applier->options.is_follower || !applier->found_are_over;
    uint64_t ms = is_awaited ? APPLY_ADVANCE_MS : APPLY_RENEW_MS;
    uint64_t ends_ms = applier->lease.look.ends_ms;
    if (ends_ms < ms) { /* its holder may be dead; one that a transaction has is looked at again */
        ms = ends_ms < APPLY_HUNGRY_MS ? APPLY_HUNGRY_MS : ends_ms;
    }
    return ms;
}

static void on_look(struct store_job *job)
{
    struct applier *applier = LIST_CONTAINER(job, struct applier, lease.job);
    struct apply *apply = applier->apply;
    const struct apply_lease *look = &applier->lease.look;
    uint64_t now_ns = clock_mono_ns();
    applier->lease.is_posted = false;
    applier->lease.looked_ns = now_ns;
    if (job->err != ERR_OK) {
        applier->lease.due_ns = now_ns + AGAIN_MS * MS;
        return;
    }
    applier->lease.due_ns = now_ns + look_again_ms(applier) * MS;
    applier->lease.advanced = look->passed;
    applier->lease.is_new = true;
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        (void)number_raise(&apply->passed[i], look->cursors[i]);
        (void)number_raise(&apply->written[i], look->cursors[i]);
    }
    apply_uploads_take(applier);
    apply_uploads_settle(applier);
    if ((look->given != 0 || look->is_over) && journal_is_shared(applier->options.journal)) {
        store_announce_free(applier->options.store);
    }
}

static void post_look(struct applier *applier, uint64_t lanes, uint64_t given, bool is_over)
{
    struct apply_lease *look = &applier->lease.look;
    look->lanes = lanes;
    look->given = given;
    look->is_over = is_over;
    look->passed = applier->reader != NULL ? passed(applier) : 0;
    applier->lease.job = (struct store_job){.priority = STORE_APPLY,
                                            .applier = applier->index,
                                            .run = run_look,
                                            .on_done = on_look,
                                            .reply_to = applier->mailbox};
    applier->lease.is_new = false;
    applier->lease.is_past = apply_uploads_are_past(applier);
    apply_uploads_ask(applier);
    applier->lease.is_posted =
        store_post_write(applier->options.store, &applier->lease.job) == ERR_OK;
    applier->lease.due_ns = clock_mono_ns() + AGAIN_MS * MS;
}

/* The highest ones. */
static uint64_t choose_surplus(uint64_t lanes, uint32_t count)
{
    uint64_t chosen = 0;
    for (uint32_t i = LIMIT_LANES; i-- > 0 && count > 0;) {
        if (has_lane(lanes, i)) {
            chosen |= UINT64_C(1) << i;
            count--;
        }
    }
    return chosen;
}

static enum err begin_lanes(struct applier *applier, uint64_t lanes)
{
    struct apply *apply = applier->apply;
    for (uint32_t i = 0; i < LIMIT_LANES; i++) {
        applier->from.after[i] = number_load(&apply->passed[i]);
    }
    apply_lanes_set(applier, lanes);
    applier->has_more = true;
    return lanes == 0
               ? ERR_OK
               : journal_reader_open(&applier->reader, applier->options.journal, &applier->from);
}

/* No part is in hand: reads from now on what the look says. */
static void follow(struct applier *applier)
{
    const struct apply_lease *look = &applier->lease.look;
    uint64_t before = applier->from.lanes;
    uint64_t given = choose_surplus(look->lanes & before, look->surplus);
    uint64_t lanes = look->lanes & ~given;
    enum err err = ERR_OK;
    (void)apply_lanes_tell(applier);
    if ((lanes & ~before) != 0) {
        err = apply_uploads_load(applier, lanes & ~before);
    }
    if (err == ERR_OK && given != 0) {
        /* Up to here they are applied, and no further frame of them is begun. */
        post_look(applier, before, given, false);
    }
    drop_frames(applier);
    apply_uploads_drop(applier, before & ~lanes);
    applier->lease.is_new = false;
    err = err == ERR_OK ? begin_lanes(applier, lanes) : err;
    if (err != ERR_OK) {
        log_write(LOG_WARN, "apply", "lanes wait, will try again: %s", err_text(err));
        apply_lanes_lost(applier);
        applier->lease.due_ns = clock_mono_ns() + AGAIN_MS * MS;
    }
}

static bool must_follow(const struct applier *applier)
{
    const struct apply_lease *look = &applier->lease.look;
    return applier->lease.is_new && (look->lanes != applier->from.lanes || look->surplus > 0);
}

static uint64_t look_ns(const struct applier *applier)
{
    uint64_t due_ns = applier->lease.due_ns;
    uint64_t advance_ns = applier->lease.looked_ns + APPLY_ADVANCE_MS * MS;
    bool has_risen = applier->reader != NULL && passed(applier) > applier->lease.advanced;
    return has_risen && advance_ns < due_ns ? advance_ns : due_ns;
}

bool apply_lanes_look(struct applier *applier, uint64_t now_ns)
{
    if (!apply_has_leases(applier)) {
        return false;
    }
    if (!applier->lease.is_posted &&
        atomic_exchange_explicit(&applier->is_called, false, memory_order_relaxed)) {
        applier->lease.due_ns = 0;
    }
    if (must_follow(applier)) {
        if (applier->in_flight != NULL) {
            return true;
        }
        follow(applier);
    }
    if (!applier->lease.is_posted && now_ns >= look_ns(applier)) {
        post_look(applier, applier->from.lanes, 0, false);
    }
    return false;
}

int apply_lanes_wait_ms(const struct applier *applier, uint64_t now_ns)
{
    int wait_ms = applier->mixed_count > 0 ? BLOCKED_MS : -1;
    if (!apply_has_leases(applier) || applier->lease.is_posted) {
        return wait_ms; /* its answer wakes */
    }
    uint64_t due_ns = look_ns(applier);
    int look_ms = due_ns > now_ns ? (int)((due_ns - now_ns) / MS) + 1 : 0;
    return wait_ms >= 0 && wait_ms < look_ms ? wait_ms : look_ms;
}

void apply_lanes_lost(struct applier *applier)
{
    drop_frames(applier);
    apply_uploads_drop(applier, APPLY_LANES_ALL);
    apply_lanes_set(applier, 0);
    applier->lease.is_new = false;
    applier->lease.due_ns = 0;
}

void apply_lanes_end(struct applier *applier)
{
    if (!apply_has_leases(applier)) {
        return;
    }
    while (applier->lease.is_posted) {
        mailbox_wait(applier->mailbox, -1);
        (void)mailbox_run_all(applier->mailbox);
    }
    post_look(applier, applier->from.lanes, 0, true);
    while (applier->lease.is_posted) {
        mailbox_wait(applier->mailbox, -1);
        (void)mailbox_run_all(applier->mailbox);
    }
    apply_lanes_set(applier, 0);
}
