/* NATS forward: frames out of the spool's segments into the stream, in their order.
 *
 * What was acknowledged one after the other must be applied so. A stream may lose a message of a
 * connection and take the next (another leader; room for a small one where there was none for a
 * large one), so of each lane one frame is on its way at a time, and one of several lanes alone. 64
 * lanes, and events without a subject spread over them, keep the way full; a lane alone goes as
 * fast as the stream acknowledges.
 *
 * Happy path: frames are read into a ring; each whose lanes are free is sent, under its own id, to
 * be answered at an address that names its place; from the front of the ring goes what is stored.
 * An end record waits until its body is in the stream.
 *
 * Failure modes: no word for a second, or a new connection: sent again, under the same id. Refused
 * (full): the same, so the first frame is the question whether there is room again. The segments
 * cannot be read: tried again after a second; damaged bytes go to quarantine as with any reader. */
#include "journal/spool.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <stdio.h>

#define NS_PER_MS         UINT64_C(1000000)
#define FORWARD_AGAIN_NS  (NATS_RESEND_MS * NS_PER_MS)
#define FORWARD_SETTLE_NS (1000u * NS_PER_MS)   /* nothing to read for so long: there is nothing */
#define FORWARD_RENEW_NS  (600000u * NS_PER_MS) /* a body that waits so long is looked at again */
#define LANES_ALL         UINT64_MAX

static struct spool_frame *ring_at(struct nats_spool *spool, uint32_t i)
{
    return &spool->ring[(spool->first + i) % SPOOL_RING_MAX];
}

static void ring_pop(struct nats_spool *spool)
{
    struct spool_frame *frame = ring_at(spool, 0);
    spool->ring_bytes -= (size_t)frame->frame.bytes;
    mem_free(frame->bytes);
    frame->bytes = NULL;
    spool->first = (spool->first + 1) % SPOOL_RING_MAX;
    spool->count--;
}

void journal_nats_forward_drop(struct nats_spool *spool)
{
    while (spool->count > 0) {
        ring_pop(spool);
    }
}

/* --- reading ------------------------------------------------------------------------------------
 */

/* As the stream has frames: its number is its place, and its identity the seed of the checksum. */
static void ring_push(struct nats_spool *spool, const struct journal_frame *frame)
{
    struct spool_frame *to = ring_at(spool, spool->count);
    struct journal_frame_parts parts = {.org = frame->org,
                                        .lane = frame->lane,
                                        .form = frame->form,
                                        .record_count = frame->record_count,
                                        .head = frame->bytes_slice};
    struct record_frame record;
    struct record_upload_end end;
    uint8_t *bytes = mem_alloc((size_t)frame->bytes);
    journal_frame_encode(&parts, bytes);
    journal_frame_seal(bytes, 0, spool->journal->nats->salt);
    *to = (struct spool_frame){.bytes = bytes, .uses = to->uses + 1};
    journal_frame_peek(bytes, &to->frame);
    assert(to->frame.bytes == frame->bytes);
    to->frame.position = frame->position;
    to->message = spool->journal->nats->publisher.messages++;
    bool is_known = record_frame_decode(frame->bytes_slice, &record) == ERR_OK;
    to->is_of_this_run = is_known && record.run == spool->journal->options.run;
    if (is_known && frame->form == RECORD_FORM_UPLOAD_END &&
        record_upload_end_decode(record.body, &end) == ERR_OK) {
        to->is_upload = true;
        to->wants_body = true;
        to->upload = end.upload;
        to->bytes_body = end.stored_bytes;
    }
    spool->count++;
    spool->ring_bytes += (size_t)frame->bytes;
}

static void fill(struct nats_spool *spool, uint64_t now_ns)
{
    bool has = true;
    while (has && spool->count < SPOOL_RING_MAX && spool->ring_bytes < SPOOL_RING_BYTES &&
           now_ns >= spool->read_ns) {
        struct journal_frame frame;
        enum err err = journal_reader_next(spool->reader, &frame, &has);
        if (err != ERR_OK) {
            log_write(LOG_ERROR, "journal", "spool: read: %s", err_text(err));
            spool->read_ns = now_ns + FORWARD_AGAIN_NS;
            return;
        }
        if (has) {
            ring_push(spool, &frame);
            spool->empty_ns = 0;
        }
    }
    if (!has && spool->empty_ns == 0) {
        spool->empty_ns = now_ns;
    }
}

/* --- sending ------------------------------------------------------------------------------------
 */

static void frame_send(struct nats_spool *spool, struct spool_frame *frame, uint64_t now_ns)
{
    struct journal *journal = spool->journal;
    struct nats_message message = {.bytes = slice_make(frame->bytes, (size_t)frame->frame.bytes),
                                   .lane = frame->frame.lane,
                                   .is_single = true,
                                   .inbox = spool->acks.inbox,
                                   .number = (uint32_t)(frame - spool->ring),
                                   .uses = frame->uses,
                                   .run = journal->options.run,
                                   .message = frame->message,
                                   .is_renamed = frame->is_renamed};
    if (frame->after == 0) {
        frame->after = journal_nats_sequence(journal->nats, journal_durable_position(journal));
        if (frame->is_of_this_run) { /* who applies it tells the run that accepted it */
            journal_nats_kept_publish(journal, frame->bytes);
        }
    }
    journal_nats_send(journal, &message);
    frame->sent_ns = now_ns;
}

/* One body at a time, and to its end. */
static void carry_due(struct nats_spool *spool, const struct spool_frame *frame, uint64_t now_ns)
{
    const struct nats_carry *carry = &spool->carry;
    bool is_next = !carry->has_some || id_equal(carry->id, frame->upload);
    if (!carry->is_under_way && is_next && now_ns >= carry->again_ns) {
        journal_nats_carry_post(spool, frame->upload);
    }
}

static void frame_due(struct nats_spool *spool, struct spool_frame *frame, uint64_t now_ns)
{
    if (frame->carried_ns != 0 && now_ns - frame->carried_ns >= FORWARD_RENEW_NS) {
        frame->wants_body = true;
        frame->carried_ns = 0;
    }
    if (frame->wants_body) {
        carry_due(spool, frame, now_ns);
    } else {
        frame_send(spool, frame, now_ns);
    }
}

static void send_due(struct nats_spool *spool, uint64_t now_ns)
{
    uint64_t busy = 0; /* lanes */
    for (uint32_t i = 0; i < spool->count && busy != LANES_ALL; i++) {
        struct spool_frame *frame = ring_at(spool, i);
        uint8_t lane = frame->frame.lane;
        uint64_t lanes = lane < LIMIT_LANES ? UINT64_C(1) << lane : LANES_ALL;
        if (frame->is_stored) {
            continue;
        }
        bool is_due = frame->sent_ns == 0 || now_ns - frame->sent_ns >= FORWARD_AGAIN_NS;
        if ((busy & lanes) == 0 && is_due) {
            frame_due(spool, frame, now_ns);
        }
        busy |= lanes;
    }
}

/* What was sent by a connection that is gone is sent again, before anything else of its lane. A
 * body that waits in the stream for its end record may be given up there meanwhile. */
static void forget_sent(struct nats_spool *spool)
{
    for (uint32_t i = 0; i < spool->count; i++) {
        struct spool_frame *frame = ring_at(spool, i);
        frame->sent_ns = 0;
        frame->wants_body = frame->is_upload && !frame->is_stored;
    }
}

void journal_nats_forward_on_carried(struct mail *mail)
{
    struct nats_carry *carry = LIST_CONTAINER(mail, struct nats_carry, mail);
    struct nats_spool *spool = carry->spool;
    uint64_t now_ns = clock_mono_ns();
    carry->is_under_way = false;
    carry->again_ns = carry->err == ERR_OK ? 0 : now_ns + FORWARD_AGAIN_NS;
    if (carry->err != ERR_OK) {
        return;
    }
    carry->has_some = false;
    for (uint32_t i = 0; i < spool->count; i++) {
        struct spool_frame *frame = ring_at(spool, i);
        if (frame->wants_body && id_equal(frame->upload, carry->id)) {
            frame->wants_body = false;
            frame->keeps_file = carry->is_damaged;
            frame->carried_ns = now_ns;
        }
    }
}

/* --- acknowledgements --------------------------------------------------------------------------
 */

/* It is the stream's from here on. Of one that is not shared, the reader has charged, or will
 * charge, what another run accepted and had forwarded. */
static void frame_settle(struct nats_spool *spool, const struct spool_frame *frame, uint64_t place)
{
    struct journal *journal = spool->journal;
    struct nats_journal *nats = journal->nats;
    uint64_t met = journal_nats_position(
        nats, atomic_load_explicit(&nats->met_sequence, memory_order_relaxed));
    journal_nats_tell_durable(journal, place);
    if (frame->is_of_this_run) {
        journal_nats_kept_settle(journal, frame->bytes, place);
    } else {
        journal_nats_kept_without(journal, place);
    }
    if (journal_is_shared(journal)) {
        journal_nats_held_settle(journal, &frame->frame, place);
        journal_nats_place(journal, &frame->frame, place);
    } else if (!frame->is_of_this_run && place <= met) {
        journal_room_give(&journal->room, frame->frame.org, frame->frame.bytes + frame->bytes_body);
        journal_room_not_durable(&journal->room, frame->frame.record_count);
        if (frame->is_upload) {
            journal_slots_close(&journal->slots, frame->frame.org);
        }
    }
    if (frame->is_upload && !frame->keeps_file) {
        (void)journal_file_upload_delete(spool->segments, frame->upload); /* mostly it is there */
    }
    if (place > atomic_load_explicit(&spool->place, memory_order_relaxed)) {
        atomic_store_explicit(&spool->place, place, memory_order_release);
    }
    metrics_add(METRIC_SPOOL_FORWARDED, 1);
}

static void take_off_stored(struct nats_spool *spool)
{
    while (spool->count > 0 && ring_at(spool, 0)->is_stored) {
        atomic_store_explicit(&spool->forwarded, ring_at(spool, 0)->frame.position,
                              memory_order_release);
        ring_pop(spool);
    }
}

static struct spool_frame *frame_find(struct nats_spool *spool, const natsMsg *message)
{
    uint32_t number;
    uint32_t uses;
    if (!journal_nats_name_read(message, &number, &uses) || number >= SPOOL_RING_MAX) {
        return NULL;
    }
    struct spool_frame *frame = &spool->ring[number];
    bool is_there = frame->bytes != NULL && frame->uses == uses && !frame->is_stored;
    return is_there ? frame : NULL;
}

/* A number that was somebody else's before is no place (the stream has lost its end), and who has
 * applied that far would pass over the frame. Of a duplicate, which may have been there for long,
 * that is known as long as the number is one of those that were given since the spool took over. */
static bool is_new(const struct nats_spool *spool, const struct spool_frame *frame,
                   const struct nats_stored *stored)
{
    const struct nats_publisher *publisher = &spool->journal->nats->publisher;
    bool is_steady = publisher->went_back == spool->went_back;
    return stored->sequence > frame->after ||
           (stored->is_duplicate && is_steady && stored->sequence > spool->begun_at);
}

/* An end record that an earlier run had brought into the stream without noting it. The reader has
 * charged, or will charge, its body by that one; the one that is sent now is passed over by apply,
 * since the upload has its row by then. */
static void frame_uncharge_body(struct nats_spool *spool, struct spool_frame *frame)
{
    struct journal *journal = spool->journal;
    if (!frame->is_upload || frame->is_of_this_run || journal_is_shared(journal) ||
        frame->bytes_body == 0) {
        return;
    }
    journal_room_give(&journal->room, frame->frame.org, frame->bytes_body);
    journal_room_not_durable(&journal->room, frame->frame.record_count);
    journal_slots_close(&journal->slots, frame->frame.org);
    frame->bytes_body = 0;
}

static void frame_on_stored(struct nats_spool *spool, struct spool_frame *frame,
                            const struct nats_stored *stored)
{
    struct nats_journal *nats = spool->journal->nats;
    uint64_t now_ns = clock_mono_ns();
    spool->stored_ns = now_ns;
    if (!is_new(spool, frame, stored)) { /* as another message; what is read twice has one id */
        if (!stored->is_duplicate) {
            journal_nats_tell_went_back(nats, stored->sequence, frame->after);
        } else {
            frame_uncharge_body(spool, frame);
        }
        frame->is_renamed = true;
        frame->message = nats->publisher.messages++;
        frame_send(spool, frame, now_ns);
        return;
    }
    frame->is_stored = true;
    spool->credit++;
    spool->left -= spool->left > 0;
    frame_settle(spool, frame, journal_nats_position(nats, stored->sequence));
    take_off_stored(spool);
}

void journal_nats_forward_on_ack(struct mail *mail)
{
    struct nats_mail *ack = LIST_CONTAINER(mail, struct nats_mail, mail);
    struct nats_spool *spool = ack->owner;
    struct nats_journal *nats = spool->journal->nats;
    struct spool_frame *frame = frame_find(spool, ack->message);
    struct nats_stored stored;
    if (frame != NULL && journal_nats_ack_read(nats, ack->message, &stored) == ERR_OK) {
        frame_on_stored(spool, frame, &stored);
    }
    journal_nats_mail_free(ack);
}

bool journal_nats_forward(struct nats_spool *spool, uint64_t now_ns)
{
    if (!journal_nats_is_ready(spool->journal->nats)) {
        forget_sent(spool);
        return false;
    }
    fill(spool, now_ns);
    send_due(spool, now_ns);
    bool is_read = journal_reader_place(spool->reader) >= journal_durable_position(spool->segments);
    bool is_over =
        spool->empty_ns != 0 && (is_read || now_ns - spool->empty_ns >= FORWARD_SETTLE_NS);
    return spool->count == 0 && is_over;
}
