/* NATS publisher: the committer's thread of the JetStream backend.
 *
 * Happy path: take all mail; publish the frames of the batches that wait, as many in a message as
 * there are and fit, each message with a reply address that names its first slot; JetStream's
 * acknowledgements come back as mail and say the messages' numbers in the stream, which is the
 * outcome of all their frames; a batch whose frames are all acknowledged goes back to its producer.
 * Nothing waits for anything else: up to 4,096 frames are on the way at a time.
 *
 *   free -- publish --> SENT -- acknowledged, or refused --> free
 *                        |  ^
 *                        +--+ no word for a second, or a new connection: sent again, same id
 *                        |
 *                        +-- no word for five seconds --> failed, free
 *
 * Failure modes: away: batches are answered ERR_AWAY at once, and what is on the way is sent again
 * when the server is back within five seconds. What was sent and never acknowledged may be in the
 * stream all the same, once: its senders were told to try again, and equal dedup_ids meet in the
 * store. A message is sent again as it was, which makes no second one, since JetStream knows its
 * id. The stream is full: ERR_FULL; its disk: ERR_NO_SPACE. With a spool (nats_spool.c) all these
 * frames go there, and each is a message of its own: its id must be what the spool forwards it
 * under. */
#include "journal/spool.h"

#include "base/clock.h"
#include "base/hex.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_MS  UINT64_C(1000000)
#define NAME_BYTES 16u /* of a slot in a reply address, and of a number in a message id */

/* --- slots ------------------------------------------------------------------------------------ */

static struct nats_slot *slot_take(struct nats_publisher *publisher)
{
    struct nats_slot *slot = &publisher->slots[publisher->free_first - 1];
    publisher->free_first = slot->next_free;
    publisher->in_flight++;
    slot->uses++;
    return slot;
}

static void slot_free(struct nats_publisher *publisher, struct nats_slot *slot)
{
    slot->batch = NULL;
    slot->next_free = publisher->free_first;
    publisher->free_first = (uint32_t)(slot - publisher->slots) + 1;
    publisher->in_flight--;
}

void journal_nats_tell_durable(struct journal *journal, uint64_t position)
{
    uint64_t durable = atomic_load_explicit(&journal->durable_position, memory_order_relaxed);
    while (durable < position &&
           !atomic_compare_exchange_weak_explicit(&journal->durable_position, &durable, position,
                                                  memory_order_release, memory_order_relaxed)) {
    }
}

/* In a shared stream: it leaves the backlog when all lanes have passed it. */
void journal_nats_place(struct journal *journal, const struct journal_frame *frame,
                        uint64_t position)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    uint32_t count = publisher->placed_count;
    journal_room_place(&journal->room, frame->org, frame->bytes, position);
    uint32_t last = (publisher->placed_first + count + NATS_PLACED_MAX - 1) % NATS_PLACED_MAX;
    struct nats_placed *to = &publisher->placed[last];
    if (count < NATS_PLACED_MAX / 2 || (count < NATS_PLACED_MAX && to->bytes > NATS_PLACED_BYTES)) {
        to = &publisher->placed[(last + 1) % NATS_PLACED_MAX];
        *to = (struct nats_placed){.position = 0};
        publisher->placed_count++;
    }
    to->position = position > to->position ? position : to->position;
    to->bytes += frame->bytes;
    /* Those of an upload stay until it is over. */
    to->records += frame->form == RECORD_FORM_UPLOAD_END ? 0 : frame->record_count;
}

static void take_off_passed(struct journal *journal, uint64_t now_ns)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    uint64_t passed = atomic_load_explicit(&journal->room.before_oldest, memory_order_relaxed);
    bool is_all = journal_nats_kept_is_all_applied(journal); /* the copy may be too short to say */
    passed = is_all ? UINT64_MAX : passed;
    while (publisher->placed_count > 0) {
        const struct nats_placed *first = &publisher->placed[publisher->placed_first];
        if (first->position > passed) {
            return;
        }
        journal_room_passed(&journal->room, first->bytes, first->records, now_ns);
        publisher->placed_first = (publisher->placed_first + 1) % NATS_PLACED_MAX;
        publisher->placed_count--;
    }
}

void journal_nats_slot_settle(struct journal *journal, struct nats_slot *slot, enum err err,
                              uint64_t position)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    struct journal_batch *batch = slot->batch;
    struct journal_frame frame;
    journal_frame_peek(batch->bytes + slot->offset, &frame);
    batch->outcomes[slot->frame] = (struct journal_outcome){position, err};
    if (journal_is_shared(journal) && (err != ERR_OK || !slot->is_spooled)) {
        journal_nats_held_settle(journal, &frame, err == ERR_OK ? position : 0);
    }                        /* else when it is forwarded */
    if (!slot->is_spooled) { /* else it is kept from when it is forwarded */
        journal_nats_kept_settle(journal, batch->bytes + slot->offset,
                                 err == ERR_OK ? position : 0);
    }
    if (err == ERR_OK) {
        if (!slot->is_spooled && journal_is_shared(journal)) {
            journal_nats_place(journal, &frame, position);
        }
        if (!slot->is_spooled) { /* else the segments have counted it */
            metrics_observe(METRIC_JOURNAL_COMMIT_SECONDS, clock_mono_ns() - slot->first_ns);
        }
    } else {
        journal_room_not_durable(&journal->room, frame.record_count);
        metrics_add(METRIC_JOURNAL_FAILURES, 1);
    }
    bool was_spooled = slot->is_spooled;
    slot_free(publisher, slot);
    batch->waiting_count--;
    if (batch->waiting_count == 0 && publisher->batch != batch) {
        metrics_add(METRIC_JOURNAL_COMMITS, !was_spooled);
        if (!was_spooled) {
            metrics_observe(METRIC_JOURNAL_COMMIT_RECORDS, batch->frame_count);
        }
        journal_batch_return(batch);
    }
}

/* --- sending -----------------------------------------------------------------------------------
 */

/* A frame alone is known by its own id, so that it is the same one however it comes to be sent. One
 * that has none (zero), or must be another message, and a message of several frames, is known by
 * who sends it, and its number there. */
static void message_id(const struct nats_message *message, const struct journal_frame *frame,
                       char to[2 * NAME_BYTES + 1])
{
    struct id id = {{0}};
    bool has_id =
        message->is_single && !message->is_renamed && record_frame_id(frame->bytes_slice, &id);
    if (has_id && !id_equal(id, (struct id){{0}})) {
        hex_put_u64(buffer_get_u64(id.bytes), to);
        hex_put_u64(buffer_get_u64(id.bytes + 8), to + NAME_BYTES);
        return;
    }
    hex_put_u64(message->run, to);
    hex_put_u64(message->message, to + NAME_BYTES);
}

static natsStatus message_make(struct journal *journal, const struct nats_message *message,
                               natsMsg **ret)
{
    const struct nats_journal *nats = journal->nats;
    char subject[NATS_NAME_BYTES + 16];
    char reply[NATS_SUBJECT_BYTES + NAME_BYTES + 2];
    char id[2 * NAME_BYTES + 1] = {0};
    char name[NAME_BYTES + 1] = {0};
    struct journal_frame frame;
    journal_frame_peek(message->bytes.data, &frame);
    if (message->lane < LIMIT_LANES) {
        (void)snprintf(subject, sizeof(subject), "%s.frames.%u", nats->stream, message->lane);
    } else {
        (void)snprintf(subject, sizeof(subject), "%s.frames.mixed", nats->stream);
    }
    hex_put_u32(message->number, name);
    hex_put_u32(message->uses, name + 8);
    (void)snprintf(reply, sizeof(reply), "%s.%s", message->inbox, name);
    message_id(message, &frame, id);
    natsStatus status = natsMsg_Create(ret, subject, reply, (const char *)message->bytes.data,
                                       (int)message->bytes.size);
    return status == NATS_OK ? natsMsgHeader_Set(*ret, "Nats-Msg-Id", id) : status;
}

void journal_nats_send(struct journal *journal, const struct nats_message *message)
{
    natsMsg *made = NULL;
    if (message_make(journal, message, &made) == NATS_OK) {
        (void)natsConnection_PublishMsg(journal->nats->connection, made);
    }
    natsMsg_Destroy(made);
}

static struct nats_slot *slot_next(struct nats_publisher *publisher, const struct nats_slot *slot)
{
    return slot->next == 0 ? NULL : &publisher->slots[slot->next - 1];
}

/* The frames of a message, one behind the other; *ret_lane is the lane of all of them. */
static struct slice slot_gather(struct nats_publisher *publisher, const struct nats_slot *first,
                                uint8_t *ret_lane)
{
    struct journal_frame frame;
    size_t size = 0;
    const uint8_t *bytes = first->batch->bytes + first->offset;
    journal_frame_peek(bytes, &frame);
    *ret_lane = frame.lane;
    if (first->next == 0) {
        return slice_make(bytes, (size_t)frame.bytes);
    }
    for (const struct nats_slot *slot = first; slot != NULL; slot = slot_next(publisher, slot)) {
        bytes = slot->batch->bytes + slot->offset;
        journal_frame_peek(bytes, &frame);
        assert(frame.bytes <= NATS_RUN_BYTES - size);
        memcpy(publisher->gathered + size, bytes, (size_t)frame.bytes);
        size += (size_t)frame.bytes;
        *ret_lane = frame.lane == *ret_lane ? frame.lane : RECORD_LANE_MIXED;
    }
    return slice_make(publisher->gathered, size);
}

/* The message that begins with it. */
static void slot_send(struct journal *journal, struct nats_slot *slot, uint64_t now_ns)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    uint8_t lane;
    struct slice bytes = slot_gather(publisher, slot, &lane);
    struct nats_message message = {.bytes = bytes,
                                   .lane = lane,
                                   .is_single = slot->next == 0,
                                   .inbox = publisher->acks.inbox,
                                   .number = (uint32_t)(slot - publisher->slots),
                                   .uses = slot->uses,
                                   .run = journal->options.run,
                                   .message = slot->message,
                                   .is_renamed = slot->is_renamed};
    journal_nats_send(journal, &message);
    slot->sent_ns = now_ns;
}

/* --- acknowledgements --------------------------------------------------------------------------
 */

static bool hex_get(const char *from, uint32_t *ret)
{
    uint32_t value = 0;
    for (int i = 0; i < 8; i++) {
        const char *digits = "0123456789abcdef";
        const char *at = from[i] == '\0' ? NULL : strchr(digits, from[i]);
        if (at == NULL) {
            return false;
        }
        value = value << 4u | (uint32_t)(at - digits);
    }
    *ret = value;
    return true;
}

bool journal_nats_name_read(const natsMsg *message, uint32_t *ret_number, uint32_t *ret_uses)
{
    const char *name = strrchr(natsMsg_GetSubject(message), '.');
    return name != NULL && strlen(name) == NAME_BYTES + 1 && hex_get(name + 1, ret_number) &&
           hex_get(name + 9, ret_uses);
}

/* The first slot of the message that the address names; NULL when it is not its turn any more. */
static struct nats_slot *slot_find(struct nats_publisher *publisher, const natsMsg *message)
{
    uint32_t number;
    uint32_t uses;
    if (!journal_nats_name_read(message, &number, &uses) || number >= NATS_IN_FLIGHT_MAX) {
        return NULL;
    }
    struct nats_slot *slot = &publisher->slots[number];
    bool is_sent = slot->batch != NULL && slot->is_first && !slot->is_spooled;
    return is_sent && slot->uses == uses ? slot : NULL;
}

/* The number behind "name": in an answer of JetStream's; false when it has none. */
static bool answer_number(const char *answer, const char *name, uint64_t *ret)
{
    const char *at = strstr(answer, name);
    if (at == NULL) {
        return false;
    }
    size_t digits = strspn(at + strlen(name), "0123456789");
    return slice_to_u64(slice_make(at + strlen(name), digits), ret);
}

/* ERR_AWAY: it may be taken later, and is sent again. */
static enum err refusal_err(struct nats_journal *nats, uint64_t code, const char *answer)
{
    switch (code) {
    case JSStreamStoreFailedErr: /* which of its limits stands in the text alone */
        if (strstr(answer, "maximum") != NULL) {
            atomic_store_explicit(&nats->is_full, true, memory_order_relaxed);
            return ERR_FULL;
        }
        return ERR_AWAY;
    case JSInsufficientResourcesErr:
    case JSStorageResourcesExceededErr:
        atomic_store_explicit(&nats->is_full, true, memory_order_relaxed);
        return ERR_NO_SPACE;
    case JSStreamMessageExceedsMaximumErr:
        return ERR_TOO_LARGE;
    default:
        return ERR_AWAY;
    }
}

enum err journal_nats_ack_read(struct nats_journal *nats, const natsMsg *message,
                               struct nats_stored *ret)
{
    char answer[512];
    uint64_t number = 0;
    if (natsMsg_GetDataLength(message) <= 0) {
        return ERR_AWAY; /* nobody was there to answer */
    }
    (void)snprintf(answer, sizeof(answer), "%.*s", natsMsg_GetDataLength(message),
                   natsMsg_GetData(message));
    if (strstr(answer, "\"error\"") == NULL && answer_number(answer, "\"seq\":", &number)) {
        *ret = (struct nats_stored){number, strstr(answer, "\"duplicate\"") != NULL};
        return ERR_OK;
    }
    bool has_code = answer_number(answer, "\"err_code\":", &number);
    return has_code ? refusal_err(nats, number, answer) : ERR_AWAY;
}

void journal_nats_tell_went_back(struct nats_journal *nats, uint64_t number, uint64_t after)
{
    if (nats->publisher.went_back != after) {
        nats->publisher.went_back = after;
        log_write(LOG_ERROR, "journal",
                  "NATS: stream %s gives number %" PRIu64 " again, %" PRIu64
                  " was there before: it has lost messages; frames are sent until theirs are new",
                  nats->stream, number, after);
    }
}

/* The outcome of all frames of a message; `sequence` where it is ERR_OK. */
static void message_settle(struct journal *journal, struct nats_slot *first, enum err err,
                           uint64_t sequence)
{
    struct nats_journal *nats = journal->nats;
    uint64_t last = err == ERR_OK ? journal_nats_position(nats, sequence) : 0;
    struct nats_slot *slot = first;
    if (err == ERR_OK) {
        journal_nats_tell_durable(journal, last);
    }
    while (slot != NULL) {
        struct nats_slot *next = slot_next(&nats->publisher, slot); /* the slot goes */
        journal_nats_slot_settle(journal, slot, err, err == ERR_OK ? last - slot->following : 0);
        slot = next;
    }
}

/* A number that was somebody else's before: the stream has lost its end (a restored copy, a cluster
 * that went back), and whoever has applied that far would pass over it. It goes once more, as
 * another message, until its number is a new one; a copy that is read all the same has the same
 * ids.
 */
static void slot_on_number(struct journal *journal, struct nats_slot *slot, uint64_t number)
{
    struct nats_journal *nats = journal->nats;
    if (number > slot->after) {
        message_settle(journal, slot, ERR_OK, number);
        return;
    }
    journal_nats_tell_went_back(nats, number, slot->after);
    slot->message = nats->publisher.messages++;
    slot->is_renamed = true;
    slot_send(journal, slot, clock_mono_ns());
}

static void ack_take(struct journal *journal, const natsMsg *message)
{
    struct nats_journal *nats = journal->nats;
    struct nats_slot *slot = slot_find(&nats->publisher, message);
    struct nats_stored stored = {.sequence = 0};
    enum err err = slot == NULL ? ERR_AWAY : journal_nats_ack_read(nats, message, &stored);
    if (err == ERR_AWAY) {
        return; /* late; or it is sent again */
    }
    if (nats->spool != NULL && (err == ERR_FULL || err == ERR_NO_SPACE)) {
        journal_nats_spool_begin(journal, "takes nothing more");
    } else if (err == ERR_OK) {
        slot_on_number(journal, slot, stored.sequence);
    } else {
        message_settle(journal, slot, err, 0);
    }
}

static void on_ack(struct mail *mail)
{
    struct nats_mail *ack = LIST_CONTAINER(mail, struct nats_mail, mail);
    ack_take(ack->owner, ack->message);
    journal_nats_mail_free(ack);
}

/* --- publishing --------------------------------------------------------------------------------
 */

static void batch_begin(struct nats_publisher *publisher, struct journal_batch *batch)
{
    batch->outcomes = mem_alloc_array(batch->frame_count, sizeof(*batch->outcomes));
    batch->waiting_count = batch->frame_count;
    publisher->batch = batch;
    publisher->frame = 0;
    publisher->offset = 0;
}

/* ERR_OK: what comes now may be published. */
static enum err publish_err(const struct journal *journal)
{
    const struct nats_journal *nats = journal->nats;
    uint64_t sequence = journal_nats_sequence(nats, journal_durable_position(journal));
    if (sequence >= journal_nats_sequence_max(nats)) {
        return ERR_FULL;
    }
    return nats->spool == NULL && !journal_nats_is_ready(nats) ? ERR_AWAY : ERR_OK;
}

/* The publisher stands at a frame; false: none waits. Batches are answered when that is no use. */
static bool has_frame(struct journal *journal)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    struct journal_batch_list *pending = &journal->committer.pending;
    while (publisher->batch == NULL && pending->first != NULL) {
        struct journal_batch *batch = journal_batch_list_take(pending);
        batch->err = publish_err(journal);
        if (batch->err == ERR_OK) {
            batch_begin(publisher, batch);
        } else {
            journal_batch_return(batch);
        }
    }
    return publisher->batch != NULL;
}

/* Whether the frame at the publisher's place goes behind `size` bytes of `count` frames. */
static bool may_follow(const struct journal *journal, uint32_t count, size_t size)
{
    const struct nats_journal *nats = journal->nats;
    struct journal_frame frame;
    journal_frame_peek(nats->publisher.batch->bytes + nats->publisher.offset, &frame);
    return nats->spool == NULL && count < UINT32_C(1) << nats->run_bits &&
           frame.bytes + size <= NATS_RUN_BYTES;
}

/* A slot for the frame at the publisher's place, which moves on. */
static struct nats_slot *slot_fill(struct journal *journal, uint64_t now_ns, size_t *size)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    struct journal_batch *batch = publisher->batch;
    struct journal_frame frame;
    struct nats_slot *slot = slot_take(publisher);
    journal_frame_peek(batch->bytes + publisher->offset, &frame);
    *slot = (struct nats_slot){.batch = batch,
                               .frame = publisher->frame,
                               .uses = slot->uses,
                               .offset = publisher->offset,
                               .message = publisher->messages++,
                               .first_ns = now_ns};
    publisher->offset += frame.bytes;
    publisher->frame++;
    *size += (size_t)frame.bytes;
    /* Before it is sent: it may be applied before its acknowledgement is here. */
    journal_room_durable(&journal->room, frame.record_count, clock_wall_ms());
    if (journal_is_shared(journal)) {
        journal_nats_held_publish(journal, &frame);
    }
    if (publisher->offset == batch->size) {
        publisher->batch = NULL; /* it goes back with its last outcome */
    }
    return slot;
}

/* Each frame of a message says how many follow it. */
static void message_seal(struct journal *journal, struct nats_slot *first, uint32_t count)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    for (struct nats_slot *slot = first; slot != NULL; slot = slot_next(publisher, slot)) {
        slot->following = --count;
        journal_frame_seal(slot->batch->bytes + slot->offset, slot->following, journal->nats->salt);
    }
}

static void message_keep(struct journal *journal, const struct nats_slot *first)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    for (const struct nats_slot *slot = first; slot != NULL; slot = slot_next(publisher, slot)) {
        journal_nats_kept_publish(journal, slot->batch->bytes + slot->offset);
    }
}

/* Of an upload that began while frames went to the spool, and ends when they do not any more. */
static bool has_body_here(const struct journal *journal, const struct nats_slot *slot)
{
    const struct journal *spool = journal_spool(journal);
    struct journal_frame frame;
    if (spool == NULL || journal_nats_spool_is_on(journal->nats)) {
        return false;
    }
    journal_frame_peek(slot->batch->bytes + slot->offset, &frame);
    return journal_upload_is_pending(spool, &frame);
}

/* The frame at the publisher's place, and what waits behind it as far as it fits: one message. */
static void publish_message(struct journal *journal, uint64_t now_ns)
{
    struct nats_journal *nats = journal->nats;
    struct nats_publisher *publisher = &nats->publisher;
    uint32_t count = 1;
    size_t size = 0;
    struct nats_slot *first = slot_fill(journal, now_ns, &size);
    struct nats_slot *last = first;
    first->is_first = true;
    first->after = journal_nats_sequence(nats, journal_durable_position(journal));
    while (publisher->free_first != 0 && has_frame(journal) && may_follow(journal, count, size)) {
        struct nats_slot *slot = slot_fill(journal, now_ns, &size);
        last->next = (uint32_t)(slot - publisher->slots) + 1;
        last = slot;
        count++;
    }
    message_seal(journal, first, count);
    if (has_body_here(journal, first)) {
        journal_nats_spool_begin(journal, "gets a large body first");
    }
    if (journal_nats_spool_is_on(nats)) {
        journal_nats_spool_take(journal, first);
    } else {
        message_keep(journal, first);
        slot_send(journal, first, now_ns);
    }
}

/* Publishes what waits, as far as there are slots. */
static bool publish_pending(struct journal *journal)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    uint64_t now_ns = clock_mono_ns();
    bool has_done = false;
    while (publisher->free_first != 0 && has_frame(journal) &&
           journal_nats_spool_has_room(journal)) {
        publish_message(journal, now_ns);
        has_done = true;
    }
    return has_done;
}

/* --- time ------------------------------------------------------------------------------------- */

/* With a spool nobody waits for a word longer than until it would be sent again. */
static bool is_silent(const struct nats_journal *nats, const struct nats_slot *slot,
                      uint64_t now_ns)
{
    return nats->spool != NULL && !journal_nats_spool_is_on(nats) &&
           now_ns - slot->first_ns >= NATS_RESEND_MS * NS_PER_MS;
}

/* Each frame on the way: given up, sent again, or left alone. */
static void look_at_slots(struct journal *journal, uint64_t now_ns, bool send_all)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    bool is_ready = journal_nats_is_ready(journal->nats);
    for (uint32_t i = 0; i < NATS_IN_FLIGHT_MAX && publisher->in_flight > 0; i++) {
        struct nats_slot *slot = &publisher->slots[i];
        if (slot->batch == NULL || !slot->is_first || slot->is_spooled) {
            continue;
        }
        if (is_silent(journal->nats, slot, now_ns)) {
            journal_nats_spool_begin(journal, "does not answer"); /* takes all of them */
            return;
        }
        if (now_ns - slot->first_ns >= NATS_GIVE_UP_MS * NS_PER_MS) {
            message_settle(journal, slot, ERR_AWAY, 0);
        } else if (is_ready && (send_all || now_ns - slot->sent_ns >= NATS_RESEND_MS * NS_PER_MS)) {
            slot_send(journal, slot, now_ns);
        }
    }
}

/* The first sight of the stream, after a start without it. */
static bool meet(struct journal *journal, const jsStreamInfo *info)
{
    struct nats_journal *nats = journal->nats;
    struct err_detail detail = {{0}};
    uint32_t run_bits = 0;
    enum err err = journal_nats_own(journal, &run_bits, &detail);
    if (err == ERR_CONFIG) {
        log_write(LOG_ERROR, "journal", "%s: nothing is forwarded to it", detail.text);
        journal_nats_refuse(nats, "the stream belongs to another store");
    } else if (err == ERR_OK && run_bits != nats->run_bits) {
        log_write(LOG_ERROR, "journal", "NATS: stream %s says another form of itself than before",
                  nats->stream);
        journal_nats_refuse(nats, "the stream is not in the form that it had");
        err = ERR_CONFIG;
    }
    if (err != ERR_OK) {
        return false;
    }
    atomic_store_explicit(&nats->met_sequence, info->State.LastSeq, memory_order_relaxed);
    journal_nats_spool_met(journal);
    return true;
}

/* A connection was made anew: is it still the same stream? */
static bool verify(struct journal *journal)
{
    struct nats_journal *nats = journal->nats;
    jsStreamInfo *info = NULL;
    jsErrCode code = 0;
    uint64_t generation = atomic_load_explicit(&nats->generation, memory_order_acquire);
    jsOptions options = journal_nats_options();
    if (nats->spool != NULL) { /* what comes meanwhile waits */
        options.Wait = NATS_LOOK_MS;
    }
    natsStatus status = js_GetStreamInfo(&info, nats->js, nats->stream, &options, &code);
    bool is_same = status == NATS_OK && info->Created == nats->created;
    if (!is_same && (status == NATS_OK || code == JSStreamNotFoundErr)) {
        log_write(LOG_ERROR, "journal",
                  "NATS: stream %s is not the one that was opened: restore it, or restart to go on "
                  "with what is there",
                  nats->stream);
        journal_nats_refuse(nats, "the stream is not the one that was opened");
    }
    if (is_same && !nats->is_met &&
        atomic_load_explicit(&nats->verified, memory_order_relaxed) == 0) {
        is_same = meet(journal, info);
    }
    if (is_same) {
        atomic_store_explicit(&nats->verified, generation, memory_order_release);
        log_write(LOG_INFO, "journal", "NATS: connected again");
    }
    jsStreamInfo_Destroy(info);
    return is_same;
}

/* Whether frames go to the stream, to the spool, or back. */
static void look_at_way(struct journal *journal, bool is_ready, uint64_t now_ns)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    bool was_ready = publisher->was_ready;
    publisher->was_ready = is_ready;
    if (journal->nats->spool != NULL) {
        if (!is_ready && !journal_nats_spool_is_on(journal->nats)) {
            journal_nats_spool_begin(journal, "is away");
        }
        journal_nats_spool_look(journal, now_ns);
        return;
    }
    if (was_ready && !is_ready) {
        log_write(LOG_WARN, "journal", "NATS is away: refusing");
    }
    /* The callback sets it; what it said after this look comes with a wake, and another look. */
    atomic_store_explicit(&journal->room.is_away, !is_ready, memory_order_relaxed);
}

static void look(struct journal *journal)
{
    struct nats_journal *nats = journal->nats;
    struct nats_publisher *publisher = &nats->publisher;
    uint64_t now_ns = clock_mono_ns();
    bool is_connected = atomic_load_explicit(&nats->is_connected, memory_order_acquire);
    bool send_all = false;
    if (is_connected && !journal_nats_is_ready(nats) && now_ns >= publisher->verify_ns &&
        !atomic_load_explicit(&nats->is_foreign, memory_order_acquire)) {
        send_all = verify(journal);
        publisher->verify_ns = clock_mono_ns() + (nats->spool == NULL ? 0 : NS_PER_MS * 1000u);
    }
    look_at_way(journal, journal_nats_is_ready(nats), now_ns);
    take_off_passed(journal, now_ns);
    if (send_all || now_ns - publisher->looked_ns >= NATS_LOOK_MS * NS_PER_MS) {
        publisher->looked_ns = now_ns;
        look_at_slots(journal, now_ns, send_all);
        journal_nats_kept_look(journal, now_ns);
    }
}

void journal_nats_commit(struct journal *journal)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    bool is_closed = false;
    while (!is_closed || publisher->in_flight > 0) {
        bool is_calm = publisher->in_flight == 0 && publisher->placed_count == 0 &&
                       journal_nats_kept_is_empty(journal) &&
                       journal_nats_is_ready(journal->nats) &&
                       !journal_nats_spool_is_on(journal->nats);
        if (is_closed) {
            nats_Sleep(1); /* a closed mailbox does not wait; acknowledgements still come */
        } else {
            mailbox_wait(journal->committer_mailbox, is_calm ? -1 : NATS_LOOK_MS);
        }
        /* Before the mail is taken: what was posted before closing is then in it. */
        is_closed = mailbox_is_closed(journal->committer_mailbox);
        do {
            (void)mailbox_run_all(journal->committer_mailbox);
            look(journal);
        } while (publish_pending(journal));
    }
    journal_nats_spool_stop(journal);
}

enum err journal_nats_publisher_open(struct journal *journal)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    publisher->slots = mem_alloc_array(NATS_IN_FLIGHT_MAX, sizeof(*publisher->slots));
    publisher->placed = mem_alloc_array(NATS_PLACED_MAX, sizeof(*publisher->placed));
    publisher->gathered = mem_alloc(NATS_RUN_BYTES);
    for (uint32_t i = NATS_IN_FLIGHT_MAX; i > 0; i--) {
        publisher->slots[i - 1].next_free = publisher->free_first;
        publisher->free_first = i;
    }
    publisher->was_ready = true;
    publisher->acks = (struct nats_feed){.journal = journal,
                                         .to = journal->committer_mailbox,
                                         .on_arrive = on_ack,
                                         .owner = journal};
    return journal_nats_feed_open(&publisher->acks, true);
}

void journal_nats_publisher_close(struct journal *journal)
{
    struct nats_publisher *publisher = &journal->nats->publisher;
    journal_nats_feed_close(&publisher->acks);
    (void)mailbox_run_all(journal->committer_mailbox); /* late acknowledgements */
    mem_free(publisher->gathered);
    mem_free(publisher->placed);
    mem_free(publisher->slots);
}
