/* NATS kept: frames that this run accepted, each until the store is known to have it.
 *
 * A cluster may lose what it has acknowledged: after servers stood still the copies of a stream
 * have differed, and who applies reads one copy (decision 0009). So an acknowledgement ends nothing
 * here. Whoever applies a frame says so to the run that accepted it, by the frame's checksum; and a
 * frame that all lanes have passed by its number, though nobody has said so, goes to the stream
 * once more, as another message with a number of its own. What was applied after all is then a
 * duplicate, since records have had their ids from the start.
 *
 *   publish --> ON ITS WAY -- acknowledged --> KEPT -- applied, in all its lanes --> gone
 *                   |                          |  ^
 *                   +-- refused --> gone       |  +-- acknowledged, under a new number --+
 *                                              +-- passed for three seconds --> AGAIN ---+
 *
 * A frame may be applied before its acknowledgement is here, so it is known from when it is sent.
 *
 *   subject   <stream>.applied.<run>, in no stream; of nodes that share one
 *   message   u32 count of whole frames, u32 0, their checksums (u64); then for each frame that is
 *             applied in some of its lanes: checksum, those lanes, all its lanes (u64 each)
 *
 * Nothing comes to be read any more, though frames are kept that nobody has passed: a copy that is
 * shorter than its numbers say. Then the oldest go again, which makes it longer; ever more rarely,
 * since it may be the store of another node that is away.
 *
 * Failure modes: such a message is lost: the frame goes again for nothing. More frames than fit
 * (the store is away for long): the oldest are kept no longer, counted. This process is killed:
 * what it kept is gone; then what the cluster has lost is lost. */
#include "journal/spool.h"

#include "base/clock.h"
#include "base/list.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define KEPT_MAX        65536u          /* frames; a power of two */
#define KEPT_BYTES_MAX  (64u << 20)     /* of them */
#define KEPT_TRIM_BYTES (8u << 20)      /* that were kept, for it to be worth its while */
#define KEPT_AGAIN_MAX  256u            /* on their way again at a time */
#define KEPT_TELL_MAX   8192u           /* frames in one message */
#define KEPT_GRACE_NS   (3u * NS_PER_S) /* a word of who applies needs milliseconds */
#define KEPT_AGAIN_NS   (NATS_RESEND_MS * UINT64_C(1000000))
#define KEPT_STARVED_NS (2u * NS_PER_S) /* a reader that finds nothing looks twice a second */
#define KEPT_STUCK_NS   (5u * NS_PER_S)
#define KEPT_STUCK_MAX  (300u * NS_PER_S)
#define NS_PER_S        UINT64_C(1000000000)
#define TOLD_HEAD_BYTES 8u
#define TOLD_PART_BYTES 24u

struct kept_frame {
    struct list_link link; /* acknowledged ones, oldest first */
    bool is_applied;       /* before it was acknowledged */
    uint8_t *bytes;        /* NULL: not acknowledged */
    uint64_t checksum;
    uint64_t position;
    uint64_t lanes;     /* that have applied what of it is theirs */
    uint64_t passed_ns; /* since then all lanes have passed it; 0: they have not */
    uint64_t again_ns;  /* when it was sent again; 0: it is not on its way */
    uint64_t after;     /* known to be in the stream by then: its own number is higher */
    uint8_t lane;
    uint32_t size;
    uint32_t records;
    uint32_t following; /* in its message, when it was sent first: it says so itself */
    uint32_t uses;      /* so that a late acknowledgement finds another name */
    uint32_t next;      /* number + 1, in its bucket or among the free ones; 0: none */
};

struct nats_kept {
    struct journal *journal;
    struct nats_feed acks; /* of what is sent again */
    struct nats_feed told; /* of a shared stream: what others have applied */
    struct kept_frame *frames;
    uint32_t *buckets; /* number + 1; by checksum */
    uint32_t free_first;
    uint32_t fresh; /* from here on none was ever used */
    uint32_t count;
    uint32_t again; /* on their way */
    struct list order;
    size_t bytes;
    size_t bytes_peak; /* since memory was given back last */
    uint64_t unkept;   /* the highest position of a frame that is kept no longer */
    uint64_t passed;   /* the position that all lanes had passed at the last look */
    uint64_t stuck_ns; /* since when it is that one */
    uint64_t stuck_wait_ns;
    atomic_uint_fast64_t records; /* relaxed: a number */
};

/* What was told, on its way to the committer's thread. */
struct kept_mail {
    struct mail mail;
    struct nats_kept *kept;
    uint32_t count;
    struct record_applied frames[];
};

/* --- frames by their checksums ---------------------------------------------------------------- */

static uint32_t *kept_bucket(struct nats_kept *kept, uint64_t checksum)
{
    return &kept->buckets[checksum & (KEPT_MAX - 1)];
}

static uint32_t kept_number(const struct nats_kept *kept, const struct kept_frame *frame)
{
    return (uint32_t)(frame - kept->frames);
}

static struct kept_frame *kept_find(struct nats_kept *kept, uint64_t checksum)
{
    uint32_t at = *kept_bucket(kept, checksum);
    while (at != 0 && kept->frames[at - 1].checksum != checksum) {
        at = kept->frames[at - 1].next;
    }
    return at == 0 ? NULL : &kept->frames[at - 1];
}

static void kept_forget(struct nats_kept *kept, struct kept_frame *frame)
{
    uint32_t own = kept_number(kept, frame) + 1;
    uint32_t *at = kept_bucket(kept, frame->checksum);
    while (*at != own) {
        at = &kept->frames[*at - 1].next;
    }
    *at = frame->next;
    list_remove(&frame->link);
    kept->again -= frame->again_ns != 0;
    kept->bytes -= frame->bytes != NULL ? frame->size : 0;
    kept->count--;
    atomic_fetch_sub_explicit(&kept->records, frame->records, memory_order_relaxed);
    mem_free(frame->bytes);
    *frame = (struct kept_frame){.uses = frame->uses + 1, .next = kept->free_first};
    kept->free_first = own;
}

void journal_nats_kept_without(struct journal *journal, uint64_t position)
{
    struct nats_kept *kept = journal->nats->kept;
    kept->unkept = position > kept->unkept ? position : kept->unkept;
}

/* The oldest of those that were acknowledged; what is on its way stays. */
static bool kept_drop_oldest(struct nats_kept *kept)
{
    struct list_link *first = list_first(&kept->order);
    if (first == NULL) {
        return false;
    }
    struct kept_frame *frame = LIST_CONTAINER(first, struct kept_frame, link);
    journal_nats_kept_without(kept->journal, frame->position);
    kept_forget(kept, frame);
    metrics_add(METRIC_JOURNAL_UNKEPT, 1);
    return true;
}

/* NULL: all are on their way. */
static struct kept_frame *kept_take_free(struct nats_kept *kept)
{
    if (kept->free_first == 0 && kept->fresh < KEPT_MAX) {
        return &kept->frames[kept->fresh++];
    }
    if (kept->free_first == 0 && !kept_drop_oldest(kept)) {
        return NULL;
    }
    struct kept_frame *frame = &kept->frames[kept->free_first - 1];
    kept->free_first = frame->next;
    return frame;
}

void journal_nats_kept_publish(struct journal *journal, const uint8_t *bytes)
{
    struct nats_kept *kept = journal->nats->kept;
    struct journal_frame frame;
    journal_frame_peek(bytes, &frame);
    if (kept_find(kept, frame.checksum) != NULL) {
        return;
    }
    struct kept_frame *to = kept_take_free(kept);
    if (to == NULL) {
        journal_nats_kept_without(journal, UINT64_MAX);
        metrics_add(METRIC_JOURNAL_UNKEPT, 1);
        return;
    }
    uint32_t *bucket = kept_bucket(kept, frame.checksum);
    *to = (struct kept_frame){.checksum = frame.checksum,
                              .lane = frame.lane,
                              .size = (uint32_t)frame.bytes,
                              .following = (uint32_t)frame.position,
                              /* Those of an upload count until it is over. */
                              .records =
                                  frame.form == RECORD_FORM_UPLOAD_END ? 0 : frame.record_count,
                              .uses = to->uses,
                              .next = *bucket};
    *bucket = kept_number(kept, to) + 1;
    kept->count++;
    atomic_fetch_add_explicit(&kept->records, to->records, memory_order_relaxed);
}

void journal_nats_kept_settle(struct journal *journal, const uint8_t *bytes, uint64_t position)
{
    struct nats_kept *kept = journal->nats->kept;
    struct journal_frame frame;
    journal_frame_peek(bytes, &frame);
    struct kept_frame *to = kept_find(kept, frame.checksum);
    if (to == NULL || to->bytes != NULL) {
        return;
    }
    if (position == 0 || to->is_applied) {
        kept_forget(kept, to);
        return;
    }
    while (kept->bytes + to->size > KEPT_BYTES_MAX && kept_drop_oldest(kept)) {
    }
    to->bytes = mem_alloc(to->size);
    memcpy(to->bytes, bytes, to->size);
    to->position = position;
    kept->bytes += to->size;
    kept->bytes_peak = kept->bytes > kept->bytes_peak ? kept->bytes : kept->bytes_peak;
    list_push_back(&kept->order, &to->link);
}

bool journal_nats_kept_is_empty(const struct journal *journal)
{
    return journal->nats->kept->count == 0;
}

bool journal_nats_kept_is_all_applied(const struct journal *journal)
{
    const struct nats_kept *kept = journal->nats->kept;
    uint64_t passed = atomic_load_explicit(&journal->room.before_oldest, memory_order_relaxed);
    return kept->count == 0 && passed >= kept->unkept;
}

uint64_t journal_nats_kept_records(const struct journal *journal)
{
    return atomic_load_explicit(&journal->nats->kept->records, memory_order_relaxed);
}

/* --- what is applied --------------------------------------------------------------------------
 */

static void on_applied(struct nats_kept *kept, const struct record_applied *applied)
{
    struct kept_frame *frame = kept_find(kept, applied->checksum);
    if (frame == NULL) {
        return; /* known, or not kept */
    }
    frame->lanes |= applied->lanes;
    if ((applied->all & ~frame->lanes) != 0) {
        return; /* others have the rest of its lanes */
    }
    if (frame->bytes == NULL) {
        frame->is_applied = true;
    } else {
        kept_forget(kept, frame);
    }
}

/* The copies lie between small blocks that the library asks for on this thread. One of those that
 * stays, though it be free and only set aside, makes the allocator keep all that lies before it. */
static void give_back(struct nats_kept *kept)
{
    if (kept->bytes_peak >= KEPT_TRIM_BYTES && kept->bytes <= kept->bytes_peak / 4) {
        kept->bytes_peak = kept->bytes;
        mem_trim();
    }
}

/* Nothing is left: who waits for that looks at the backlog again. */
static void told_end(struct nats_kept *kept, uint32_t count_before)
{
    if (count_before > 0 && kept->count == 0) {
        journal_wake_subscribers(kept->journal);
    }
    give_back(kept);
}

static void on_told_here(struct mail *mail)
{
    struct kept_mail *told = LIST_CONTAINER(mail, struct kept_mail, mail);
    uint32_t before = told->kept->count;
    for (uint32_t i = 0; i < told->count; i++) {
        on_applied(told->kept, &told->frames[i]);
    }
    told_end(told->kept, before);
    mem_free(told);
}

static void take_told(struct nats_kept *kept, const uint8_t *bytes, size_t size)
{
    uint64_t whole = size < TOLD_HEAD_BYTES ? UINT64_MAX : buffer_get_u32(bytes);
    uint32_t before = kept->count;
    size_t at = TOLD_HEAD_BYTES;
    if (whole > KEPT_TELL_MAX || at + whole * 8 > size) {
        log_write(LOG_WARN, "journal", "NATS: a word of what is applied that cannot be read");
        return;
    }
    for (uint64_t i = 0; i < whole; i++, at += 8) {
        on_applied(kept, &(struct record_applied){.checksum = buffer_get_u64(bytes + at)});
    }
    for (; at + TOLD_PART_BYTES <= size; at += TOLD_PART_BYTES) {
        on_applied(kept, &(struct record_applied){.checksum = buffer_get_u64(bytes + at),
                                                  .lanes = buffer_get_u64(bytes + at + 8),
                                                  .all = buffer_get_u64(bytes + at + 16)});
    }
    told_end(kept, before);
}

static void on_told(struct mail *mail)
{
    struct nats_mail *told = LIST_CONTAINER(mail, struct nats_mail, mail);
    take_told(told->owner, (const uint8_t *)natsMsg_GetData(told->message),
              (size_t)natsMsg_GetDataLength(told->message));
    journal_nats_mail_free(told);
}

static void told_subject(char to[NATS_SUBJECT_BYTES], const struct nats_journal *nats, uint64_t run)
{
    (void)snprintf(to, NATS_SUBJECT_BYTES, "%s.applied.%016" PRIx64, nats->stream, run);
}

static void tell_here(struct journal *journal, const struct record_applied *frames, uint32_t count)
{
    struct kept_mail *told = mem_alloc(sizeof(*told) + count * sizeof(*frames));
    told->mail.on_arrive = on_told_here;
    told->kept = journal->nats->kept;
    told->count = count;
    memcpy(told->frames, frames, count * sizeof(*frames));
    mailbox_answer(journal->committer_mailbox, &told->mail); /* bounded by what it has accepted */
}

static bool is_whole(const struct record_applied *frame)
{
    return (frame->all & ~frame->lanes) == 0;
}

static void tell_other(struct journal *journal, uint64_t run, const struct record_applied *frames,
                       uint32_t count)
{
    char subject[NATS_SUBJECT_BYTES];
    uint8_t *bytes = mem_alloc(TOLD_HEAD_BYTES + (size_t)count * TOLD_PART_BYTES);
    uint8_t *at = bytes + TOLD_HEAD_BYTES;
    uint32_t whole = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (is_whole(&frames[i])) {
            buffer_put_u64(at, frames[i].checksum);
            at += 8;
            whole++;
        }
    }
    for (uint32_t i = 0; i < count && whole < count; i++) {
        if (!is_whole(&frames[i])) {
            buffer_put_u64(at, frames[i].checksum);
            buffer_put_u64(at + 8, frames[i].lanes);
            buffer_put_u64(at + 16, frames[i].all);
            at += TOLD_PART_BYTES;
        }
    }
    buffer_put_u32(bytes, whole);
    told_subject(subject, journal->nats, run);
    /* Lost: they are sent again for nothing. */
    (void)natsConnection_Publish(journal->nats->connection, subject, bytes, (int)(at - bytes));
    mem_free(bytes);
}

void journal_nats_kept_tell(struct journal *journal, uint64_t run,
                            const struct record_applied *frames, uint32_t count)
{
    bool is_here = run == journal->options.run;
    for (uint32_t i = 0; i < count; i += KEPT_TELL_MAX) {
        uint32_t some = count - i < KEPT_TELL_MAX ? count - i : KEPT_TELL_MAX;
        if (is_here) {
            tell_here(journal, frames + i, some);
        } else if (journal_is_shared(journal)) {
            tell_other(journal, run, frames + i, some);
        }
    }
}

/* --- what is sent again ------------------------------------------------------------------------
 */

static void send_again(struct nats_kept *kept, struct kept_frame *frame, uint64_t now_ns)
{
    struct journal *journal = kept->journal;
    struct nats_journal *nats = journal->nats;
    frame->after = journal_nats_sequence(nats, journal_durable_position(journal));
    kept->again += frame->again_ns == 0;
    frame->again_ns = now_ns;
    struct nats_message message = {.bytes = slice_make(frame->bytes, frame->size),
                                   .lane = frame->lane,
                                   .is_single = true,
                                   .inbox = kept->acks.inbox,
                                   .number = kept_number(kept, frame),
                                   .uses = frame->uses,
                                   .run = journal->options.run,
                                   .message = nats->publisher.messages++,
                                   .is_renamed = true};
    journal_nats_send(journal, &message);
}

static void take_ack(struct nats_kept *kept, const natsMsg *message)
{
    struct nats_journal *nats = kept->journal->nats;
    struct nats_stored stored = {.sequence = 0};
    uint32_t number;
    uint32_t uses;
    if (!journal_nats_name_read(message, &number, &uses) || number >= KEPT_MAX ||
        kept->frames[number].uses != uses || kept->frames[number].again_ns == 0 ||
        journal_nats_ack_read(nats, message, &stored) != ERR_OK) {
        return; /* late; or it is sent again */
    }
    struct kept_frame *frame = &kept->frames[number];
    if (stored.sequence <= frame->after) { /* was another's number: passed over by who was there */
        journal_nats_tell_went_back(nats, stored.sequence, frame->after);
        send_again(kept, frame, clock_mono_ns());
        return;
    }
    frame->position = journal_nats_position(nats, stored.sequence) - frame->following;
    frame->passed_ns = 0;
    frame->again_ns = 0;
    kept->again--;
    list_remove(&frame->link);
    list_push_back(&kept->order, &frame->link);
    journal_nats_tell_durable(kept->journal, frame->position);
}

static void on_ack(struct mail *mail)
{
    struct nats_mail *ack = LIST_CONTAINER(mail, struct nats_mail, mail);
    take_ack(ack->owner, ack->message);
    journal_nats_mail_free(ack);
}

/* All that came was applied, and nothing more comes, though there is more. */
static bool kept_is_stuck(struct nats_kept *kept, uint64_t passed, uint64_t now_ns)
{
    const struct nats_journal *nats = kept->journal->nats;
    uint64_t starved_ns = atomic_load_explicit(&nats->starved_ns, memory_order_relaxed);
    bool is_starved = starved_ns + KEPT_STARVED_NS > now_ns &&
                      !atomic_load_explicit(&nats->has_unsettled, memory_order_relaxed);
    if (passed != kept->passed) {
        kept->passed = passed;
        kept->stuck_wait_ns = KEPT_STUCK_NS;
        is_starved = false;
    }
    if (!is_starved || list_is_empty(&kept->order)) {
        kept->stuck_ns = now_ns;
        return false;
    }
    if (now_ns - kept->stuck_ns < kept->stuck_wait_ns) {
        return false;
    }
    kept->stuck_ns = now_ns;
    kept->stuck_wait_ns *= kept->stuck_wait_ns < KEPT_STUCK_MAX ? 2 : 1;
    return true;
}

/* True: it goes again. */
static bool kept_is_due(struct kept_frame *frame, uint64_t now_ns)
{
    if (frame->again_ns != 0) {
        return now_ns - frame->again_ns >= KEPT_AGAIN_NS;
    }
    frame->passed_ns = frame->passed_ns == 0 ? now_ns : frame->passed_ns;
    return now_ns - frame->passed_ns >= KEPT_GRACE_NS;
}

void journal_nats_kept_look(struct journal *journal, uint64_t now_ns)
{
    struct nats_kept *kept = journal->nats->kept;
    uint64_t passed = atomic_load_explicit(&journal->room.before_oldest, memory_order_relaxed);
    uint64_t sent = 0;
    if (!journal_nats_is_ready(journal->nats) || journal_nats_spool_is_on(journal->nats)) {
        kept->stuck_ns = now_ns;
        return;
    }
    bool is_stuck = kept_is_stuck(kept, passed, now_ns);
    for (struct list_link *link = list_first(&kept->order); link != NULL;
         link = list_after(&kept->order, link)) {
        struct kept_frame *frame = LIST_CONTAINER(link, struct kept_frame, link);
        if (frame->again_ns == 0 && frame->position > passed && !is_stuck) {
            break;
        }
        bool is_due = is_stuck || kept_is_due(frame, now_ns);
        if (is_due && (frame->again_ns != 0 || kept->again < KEPT_AGAIN_MAX)) {
            sent += frame->again_ns == 0;
            send_again(kept, frame, now_ns);
        }
        if (is_stuck && kept->again == KEPT_AGAIN_MAX) {
            break;
        }
    }
    if (sent > 0) {
        metrics_add(METRIC_JOURNAL_RESENT, sent);
        log_write(LOG_WARN, "journal",
                  "NATS: %" PRIu64 " acknowledged frames were not among those that were read, or "
                  "the word that they are applied was lost: they are sent again",
                  sent);
    }
}

/* --- its life ---------------------------------------------------------------------------------
 */

enum err journal_nats_kept_open(struct journal *journal)
{
    struct nats_kept *kept = mem_alloc(sizeof(*kept));
    journal->nats->kept = kept;
    kept->journal = journal;
    kept->stuck_wait_ns = KEPT_STUCK_NS;
    list_init(&kept->order);
    kept->frames = mem_alloc_array(KEPT_MAX, sizeof(*kept->frames));
    kept->buckets = mem_alloc_array(KEPT_MAX, sizeof(*kept->buckets));
    kept->acks = (struct nats_feed){
        .journal = journal, .to = journal->committer_mailbox, .on_arrive = on_ack, .owner = kept};
    kept->told = kept->acks;
    kept->told.on_arrive = on_told;
    told_subject(kept->told.inbox, journal->nats, journal->options.run);
    enum err err = journal_nats_feed_open(&kept->acks, true);
    return err == ERR_OK && journal->options.nats.is_shared
               ? journal_nats_feed_open(&kept->told, false)
               : err;
}

void journal_nats_kept_leave(struct journal *journal)
{
    struct nats_kept *kept = journal->nats->kept;
    if (kept != NULL) {
        journal_nats_feed_close(&kept->told);
        journal_nats_feed_close(&kept->acks);
    }
}

void journal_nats_kept_close(struct journal *journal)
{
    struct nats_kept *kept = journal->nats->kept;
    if (kept == NULL) {
        return;
    }
    for (uint32_t i = 0; i < kept->fresh; i++) {
        mem_free(kept->frames[i].bytes);
    }
    mem_free(kept->frames);
    mem_free(kept->buckets);
    mem_free(kept);
    journal->nats->kept = NULL;
}
