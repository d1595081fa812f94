/* NATS reader: frames out of the stream, in its order, from a place on.
 *
 * The store's cursor is the truth, so the consumer is made anew from the reader's own place: at the
 * start, after each new connection, and whenever a delivery is missing. Its deliveries are numbered
 * by JetStream; as long as the numbers follow each other none is missing, and what was seen before
 * (given again after NATS_ACK_WAIT) is passed over. So nothing of the consumer itself need outlive
 * anything: one server of a cluster has it, in memory, and nobody has to agree or to be elected.
 *
 * Happy path: a request for NATS_PULL_BATCH_SIZE messages waits at the server; messages become mail
 * and wake the subscriber; the frames of one are given one by one; when the last message of the
 * request has come, the next request goes. What is applied is acknowledged, all at once up to a
 * place. Each reader has a consumer of its own.
 *
 * Failure modes: away: nothing more for now; looked at again twice a second. A cluster forgets a
 * request when the server that has the consumer goes, so that server says each second that it has
 * it; three without a word: the consumer is made anew. In a cluster under a new name each time: to
 * delete the old one first, its server, which may stand still, would be waited for. Bytes of a
 * message that do not verify are damage: logged, counted, passed over up to the next frame that
 * does, and the message is kept in quarantine. The stream ends before the reader's
 * place: it is an older copy of itself, whose new frames would be taken for old ones: ERR_CORRUPT.
 */
#include "journal/nats.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define READER_MAILS       4096u
#define READER_REPLY_BYTES 256u
#define READER_EXPIRES_S   30u
#define READER_BEAT_S      1u
#define READER_SILENT_S    3u
#define READER_NAMES_MAX   64u
#define READER_FORGET_NS   (INT64_C(300) * 1000000000) /* a consumer that nobody asks */
#define READER_BYTES_MAX   (8u << 20u)                 /* of one request */
#define READER_RETRY_NS    UINT64_C(500000000)
#define READER_STARVED_NS  (UINT64_C(5) * NS_PER_S)
#define READER_STARVED_MAX (UINT64_C(60) * NS_PER_S)
#define NS_PER_S           UINT64_C(1000000000)

/* A message that was given and is not applied. */
struct reader_given {
    uint64_t position;              /* of its last frame */
    char reply[READER_REPLY_BYTES]; /* where to it is acknowledged */
};

struct nats_reader {
    struct journal_reader base;
    struct nats_feed feed;
    struct mailbox *mailbox;
    uint32_t name;   /* its number among those of this process */
    uint64_t number; /* of its consumer in a cluster; 0: none was made */
    char stem[NATS_NAME_BYTES - 12];
    char consumer[NATS_NAME_BYTES];
    struct mail *arrived; /* in order */
    struct mail **arrived_last;
    struct nats_mail *given; /* the message that is being given */
    size_t offset;           /* in it: of the next frame */
    size_t bad_bytes;        /* in it, up to there */
    uint64_t after;          /* number of the last message that was begun */
    uint64_t after_position; /* frames up to here are applied */
    uint64_t delivered;      /* by this consumer: number of its last delivery */
    uint64_t generation;     /* of the connection that it was made on */
    bool is_made;
    bool is_unchecked; /* its place, since the stream was away when it was opened */
    uint32_t asked;    /* messages that the request still gives */
    uint64_t heard_ns; /* monotonic: the last word about it */
    uint64_t retry_ns; /* after a failure: not before */
    /* Since when nothing came, though the stream has more than was given. */
    uint64_t starved_ns;
    uint64_t starved_after;
    uint64_t starved_wait_ns;
    struct reader_given *ring;
    uint32_t ring_size;
    uint32_t ring_first;
    uint32_t ring_count;
};

static struct nats_reader *reader_of(struct journal_reader *base)
{
    return LIST_CONTAINER(base, struct nats_reader, base);
}

static void on_delivery(struct mail *mail)
{
    struct nats_mail *delivery = LIST_CONTAINER(mail, struct nats_mail, mail);
    struct nats_reader *reader = delivery->owner;
    mail->next = NULL;
    *reader->arrived_last = mail;
    reader->arrived_last = &mail->next;
}

static struct nats_mail *arrived_take(struct nats_reader *reader)
{
    struct mail *mail = reader->arrived;
    if (mail == NULL) {
        return NULL;
    }
    reader->arrived = mail->next;
    if (reader->arrived == NULL) {
        reader->arrived_last = &reader->arrived;
    }
    return LIST_CONTAINER(mail, struct nats_mail, mail);
}

/* The subscription and what came by it. */
static void reader_leave(struct nats_reader *reader)
{
    struct nats_mail *mail;
    journal_nats_feed_close(&reader->feed);
    (void)mailbox_run_all(reader->mailbox);
    while ((mail = arrived_take(reader)) != NULL) {
        journal_nats_mail_free(mail);
    }
    reader->is_made = false;
    reader->asked = 0;
    reader->ring_count = 0;
}

static struct nats_journal *reader_nats(struct nats_reader *reader)
{
    return reader->base.journal->nats;
}

/* In a cluster, if there is any: it goes without being waited for. */
static void consumer_forget(struct nats_reader *reader)
{
    const struct nats_journal *nats = reader_nats(reader);
    char subject[3 * NATS_NAME_BYTES];
    char nowhere[NATS_SUBJECT_BYTES + 8];
    if (reader->number > 0) {
        (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.DELETE.%s.%s", nats->stream,
                       reader->consumer);
        (void)snprintf(nowhere, sizeof(nowhere), "%s.old", reader->feed.inbox);
        (void)natsConnection_PublishRequestString(nats->connection, subject, nowhere, "");
    }
}

static void consumer_rename(struct nats_reader *reader)
{
    reader->number =
        atomic_fetch_add_explicit(&reader_nats(reader)->consumers, 1, memory_order_relaxed) + 1;
    (void)snprintf(reader->consumer, sizeof(reader->consumer), "%s-%" PRIu64, reader->stem,
                   reader->number);
}

static natsStatus consumer_make(struct nats_reader *reader, jsErrCode *ret_code)
{
    struct nats_journal *nats = reader_nats(reader);
    const struct journal_nats_options *options = &reader->base.journal->options.nats;
    char subject[NATS_NAME_BYTES + 16];
    jsOptions js = journal_nats_options();
    jsConsumerConfig config;
    natsStatus status = NATS_OK;
    if (options->replicas > 1) {
        consumer_forget(reader);
        consumer_rename(reader);
    } else {
        status = js_DeleteConsumer(nats->js, nats->stream, reader->consumer, &js, NULL);
    }
    if (status != NATS_OK && status != NATS_NOT_FOUND) {
        return status;
    }
    (void)jsConsumerConfig_Init(&config);
    (void)snprintf(subject, sizeof(subject), "%s.frames.*", nats->stream);
    config.Durable = reader->consumer;
    config.Description = "Weir's apply; made anew from the store's cursor at each start";
    config.DeliverPolicy = js_DeliverByStartSequence;
    config.OptStartSeq = reader->after + 1;
    config.AckPolicy = js_AckAll;
    config.AckWait = options->ack_wait_s * INT64_C(1000000000);
    config.MaxDeliver = -1; /* apply alone gives a record up */
    config.MaxAckPending = options->ack_pending_max;
    config.FilterSubject = subject;
    config.InactiveThreshold = READER_FORGET_NS;
    config.Replicas = 1;
    config.MemoryStorage = true;
    return js_AddConsumer(NULL, nats->js, nats->stream, &config, &js, ret_code);
}

static void reader_make(struct nats_reader *reader, uint64_t now_ns)
{
    struct nats_journal *nats = reader_nats(reader);
    uint64_t generation = atomic_load_explicit(&nats->generation, memory_order_acquire);
    jsErrCode code = 0;
    reader_leave(reader);
    natsStatus status = consumer_make(reader, &code);
    if (status == NATS_OK && journal_nats_feed_open(&reader->feed, false) == ERR_OK) {
        reader->is_made = true;
        reader->generation = generation;
        reader->delivered = 0;
        return;
    }
    log_write(LOG_WARN, "journal", "NATS: consumer %s: %s (JetStream error %d), will try again",
              reader->consumer, natsStatus_GetText(status), (int)code);
    reader->retry_ns = now_ns + READER_RETRY_NS;
}

/* Other nodes may have written and applied since it was opened here. */
static enum err find_ends(const struct journal *journal, uint64_t after, uint64_t *ret_first,
                          uint64_t *ret_last)
{
    const struct nats_journal *nats = journal->nats;
    jsStreamInfo *info = NULL;
    uint64_t durable = journal_durable_position(journal);
    uint64_t first = nats->first_sequence;
    uint64_t last = journal_nats_sequence(nats, durable);
    last = last > nats->last_sequence ? last : nats->last_sequence;
    if (after > last || !nats->is_met) {
        jsOptions options = journal_nats_options();
        if (js_GetStreamInfo(&info, nats->js, nats->stream, &options, NULL) != NATS_OK) {
            return ERR_AWAY;
        }
        first = nats->is_met ? first : info->State.FirstSeq;
        last = info->State.LastSeq;
        jsStreamInfo_Destroy(info);
    }
    *ret_first = first;
    *ret_last = last;
    return ERR_OK;
}

/* What the stream must still hold for who has applied up to `after`. */
static enum err reader_check_place(struct journal *journal, uint64_t after)
{
    const struct nats_journal *nats = journal->nats;
    uint64_t first = 0;
    uint64_t last = 0;
    enum err err = find_ends(journal, after, &first, &last);
    if (err != ERR_OK) {
        return err;
    }
    if (after > last) {
        log_write(LOG_ERROR, "journal",
                  "NATS: stream %s ends at message %" PRIu64 ", and %" PRIu64
                  " is applied: it is an older copy; delete it to begin a new one",
                  nats->stream, last, after);
        return ERR_CORRUPT;
    }
    if (first > after + 1) {
        log_write(LOG_ERROR, "journal",
                  "NATS: messages %" PRIu64 " to %" PRIu64 " of stream %s are gone and were not "
                  "applied",
                  after + 1, first - 1, nats->stream);
        metrics_add(METRIC_JOURNAL_DROPPED, first - after - 1);
        journal_quarantine_message(journal, after + 1, slice_make("", 0));
    }
    return ERR_OK;
}

/* An older copy of the stream is no place for anything: as with one that was replaced. */
static void reader_check_and_make(struct nats_reader *reader, uint64_t now_ns)
{
    struct nats_journal *nats = reader_nats(reader);
    enum err err =
        reader->is_unchecked ? reader_check_place(reader->base.journal, reader->after) : ERR_OK;
    if (err == ERR_OK) {
        reader->is_unchecked = false;
        reader_make(reader, now_ns);
        return;
    }
    reader->retry_ns = now_ns + READER_RETRY_NS;
    if (err == ERR_CORRUPT) {
        journal_nats_refuse(nats, "the stream is an older copy of itself");
    }
}

static void reader_ask(struct nats_reader *reader, uint64_t now_ns)
{
    struct nats_journal *nats = reader_nats(reader);
    uint32_t batch = reader->base.journal->options.nats.pull_batch;
    char subject[3 * NATS_NAME_BYTES];
    char request[160];
    (void)snprintf(subject, sizeof(subject), "$JS.API.CONSUMER.MSG.NEXT.%s.%s", nats->stream,
                   reader->consumer);
    (void)snprintf(request, sizeof(request),
                   "{\"batch\":%" PRIu32 ",\"max_bytes\":%u,\"expires\":%" PRIu64
                   ",\"idle_heartbeat\":%" PRIu64 "}",
                   batch, READER_BYTES_MAX, READER_EXPIRES_S * NS_PER_S, READER_BEAT_S * NS_PER_S);
    if (natsConnection_PublishRequestString(nats->connection, subject, reader->feed.inbox,
                                            request) == NATS_OK) {
        reader->asked = batch;
        reader->heard_ns = now_ns;
    } else {
        reader->retry_ns = now_ns + READER_RETRY_NS;
    }
}

/* A word of the server about the request: it has ended, or the consumer is gone. */
static void reader_on_status(struct nats_reader *reader, natsMsg *message)
{
    const char *status = NULL;
    const char *text = NULL;
    (void)natsMsgHeader_Get(message, "Status", &status);
    (void)natsMsgHeader_Get(message, "Description", &text);
    if (status != NULL && strcmp(status, "100") == 0) {
        return;
    }
    reader->asked = 0;
    bool has_ended = status != NULL && (strcmp(status, "404") == 0 || strcmp(status, "408") == 0);
    bool was_large = text != NULL && strstr(text, "MaxBytes") != NULL;
    if (!has_ended && !was_large) {
        reader->is_made = false;
    }
}

/* What arrived is the next delivery of a message that was not given yet. */
static bool reader_accept(struct nats_reader *reader, natsMsg *message, uint64_t *ret_sequence)
{
    jsMsgMetaData *meta = NULL;
    if (natsMsg_GetMetaData(&meta, message) != NATS_OK) {
        return false;
    }
    uint64_t delivery = meta->Sequence.Consumer;
    *ret_sequence = meta->Sequence.Stream;
    jsMsgMetaData_Destroy(meta);
    reader->asked -= reader->asked > 0;
    if (delivery != reader->delivered + 1) {
        reader->is_made = false; /* one is missing: from the reader's place again */
        return false;
    }
    reader->delivered = delivery;
    return *ret_sequence > reader->after;
}

/* Frames of other runs, and of other nodes, were not charged to this one's backlog. `last`: of its
 * message. */
static void reader_charge(struct journal *journal, const struct journal_frame *frame, uint64_t last)
{
    struct record_frame record;
    struct record_upload_end end;
    if (journal_is_shared(journal)) {
        journal_nats_tell_durable(journal, last);
        return; /* each node counts its own */
    }
    if (record_frame_decode(frame->bytes_slice, &record) != ERR_OK ||
        record.run == journal->options.run) {
        return;
    }
    uint64_t met = atomic_load_explicit(&journal->nats->met_sequence, memory_order_relaxed);
    if (frame->position > journal_nats_position(journal->nats, met)) {
        return; /* forwarded by this run, whose spool had it at the start */
    }
    journal_room_force(&journal->room, frame->org, frame->bytes);
    if (frame->form == RECORD_FORM_UPLOAD_END &&
        record_upload_end_decode(record.body, &end) == ERR_OK) {
        journal_room_force(&journal->room, frame->org, end.stored_bytes);
        journal_slots_force(&journal->slots, frame->org);
    }
    journal_room_durable(&journal->room, frame->record_count, record.received_ms);
}

/* The next frame of the message that is being given that verifies; false: there is none. Places
 * that do not are looked through as those of segments are. */
static bool reader_decode(struct nats_reader *reader, struct slice bytes, struct journal_frame *ret)
{
    const struct nats_journal *nats = reader_nats(reader);
    while (bytes.size - reader->offset >= JOURNAL_FRAME_HEAD_BYTES) {
        const uint8_t *at = bytes.data + reader->offset;
        uint64_t size = journal_frame_claimed_size(at);
        if (size != 0 && size <= bytes.size - reader->offset &&
            journal_frame_decode(at, nats->salt, ret) && ret->position >> nats->run_bits == 0) {
            reader->offset += (size_t)size;
            return true;
        }
        reader->offset += JOURNAL_ALIGN_BYTES;
        reader->bad_bytes += JOURNAL_ALIGN_BYTES;
    }
    reader->bad_bytes += bytes.size - reader->offset;
    reader->offset = bytes.size;
    return false;
}

/* Of the message that was given, what was not. */
static void reader_tell_damage(struct nats_reader *reader, struct slice bytes)
{
    if (reader->bad_bytes == 0 && bytes.size > 0) {
        return;
    }
    log_write(LOG_ERROR, "journal",
              "NATS: message %" PRIu64 " is damaged, %zu of its %zu bytes are passed over",
              reader->after, reader->bad_bytes, bytes.size);
    metrics_add(METRIC_JOURNAL_DAMAGED, reader->bad_bytes);
    journal_quarantine_message(reader->base.journal, reader->after, bytes);
}

static void reader_note(struct nats_reader *reader, uint64_t sequence, natsMsg *message)
{
    if (reader->ring_count == reader->ring_size) {
        return; /* acknowledged with a later one */
    }
    uint32_t at = (reader->ring_first + reader->ring_count) % reader->ring_size;
    reader->ring[at].position = journal_nats_position(reader_nats(reader), sequence);
    (void)snprintf(reader->ring[at].reply, sizeof(reader->ring[at].reply), "%s",
                   natsMsg_GetReply(message));
    reader->ring_count++;
}

/* What the stream held at the start and was not given yet: at least a record each. A message counts
 * until its last frame is charged, so that the sum is never zero in between. */
static void reader_tell_unread(struct nats_reader *reader)
{
    const struct nats_journal *nats = reader_nats(reader);
    uint64_t unread = nats->last_sequence > reader->after ? nats->last_sequence - reader->after : 0;
    if (!journal_is_shared(reader->base.journal)) { /* else what is not applied counts */
        atomic_store_explicit(&reader->base.journal->unread, unread, memory_order_relaxed);
        journal_room_found(&reader->base.journal->room, unread);
    }
}

static void reader_begin(struct nats_reader *reader, struct nats_mail *mail, uint64_t sequence)
{
    reader->given = mail;
    reader->offset = 0;
    reader->bad_bytes = 0;
    reader->after = sequence;
    reader_note(reader, sequence, mail->message);
}

/* The next frame of the message that is being given; when there is none, it goes. */
static bool reader_give(struct nats_reader *reader, struct journal_frame *ret)
{
    struct journal *journal = reader->base.journal;
    struct nats_mail *mail = reader->given;
    if (mail == NULL) {
        return false;
    }
    struct slice bytes =
        slice_make(natsMsg_GetData(mail->message), (size_t)natsMsg_GetDataLength(mail->message));
    uint64_t last = journal_nats_position(journal->nats, reader->after);
    while (reader_decode(reader, bytes, ret)) {
        ret->position = last - ret->position;
        if (ret->position > reader->after_position) {
            reader_charge(journal, ret, last);
            if (reader->offset == bytes.size) {
                reader_tell_unread(reader);
            }
            return true;
        }
    }
    reader->base.place = last; /* also where its last frame is damaged, or was sent alone */
    reader_tell_unread(reader);
    reader_tell_damage(reader, bytes);
    journal_nats_mail_free(mail);
    reader->given = NULL;
    return false;
}

/* The next frame among what arrived. */
static bool reader_take(struct nats_reader *reader, struct journal_frame *ret)
{
    struct nats_mail *mail;
    while (!reader_give(reader, ret)) {
        uint64_t sequence;
        if (!reader->is_made || (mail = arrived_take(reader)) == NULL) {
            return false;
        }
        reader->heard_ns = clock_mono_ns();
        if (natsMsg_GetReply(mail->message) == NULL) {
            reader_on_status(reader, mail->message);
        } else if (reader_accept(reader, mail->message, &sequence)) {
            reader_begin(reader, mail, sequence);
            continue;
        }
        journal_nats_mail_free(mail);
    }
    return true;
}

/* The copy that its consumer reads is shorter than the numbers that were given say: a consumer on
 * another server may have what is missing. Ever more rarely, since all may be. */
static bool reader_is_starved(struct nats_reader *reader, uint64_t now_ns)
{
    struct nats_journal *nats = reader_nats(reader);
    uint64_t durable = journal_durable_position(reader->base.journal);
    bool has_more = journal_nats_sequence(nats, durable) > reader->after;
    bool is_full = reader->ring_count == reader->ring_size; /* the server gives no more ahead */
    if (!has_more || is_full || reader->after != reader->starved_after) {
        reader->starved_after = reader->after;
        reader->starved_ns = now_ns;
        reader->starved_wait_ns = READER_STARVED_NS;
        return false;
    }
    if (now_ns - reader->starved_ns < reader->starved_wait_ns) {
        return false;
    }
    reader->starved_ns = now_ns;
    reader->starved_wait_ns *= reader->starved_wait_ns < READER_STARVED_MAX ? 2 : 1;
    log_write(LOG_WARN, "journal",
              "NATS: nothing of stream %s comes behind message %" PRIu64 ", though there is more: "
              "the consumer is made anew",
              nats->stream, reader->after);
    return true;
}

/* A consumer, and a request that waits at the server. */
static void reader_prepare(struct nats_reader *reader)
{
    struct nats_journal *nats = reader_nats(reader);
    uint64_t now_ns = clock_mono_ns();
    if (journal_nats_is_ready(nats) && now_ns >= reader->retry_ns) {
        bool is_new =
            reader->generation != atomic_load_explicit(&nats->generation, memory_order_acquire);
        bool is_lost = reader->asked > 0 && now_ns - reader->heard_ns >= READER_SILENT_S * NS_PER_S;
        if (!reader->is_made || is_new || is_lost || reader_is_starved(reader, now_ns)) {
            reader_check_and_make(reader, now_ns);
        }
        if (reader->is_made && reader->asked == 0) {
            reader_ask(reader, now_ns);
        }
    }
    (void)mailbox_run_all(reader->mailbox);
    /* All are woken together, so who came first decides. */
    uint_fast64_t none = 0;
    (void)atomic_compare_exchange_strong_explicit(&nats->wake_ns, &none, now_ns + READER_RETRY_NS,
                                                  memory_order_relaxed, memory_order_relaxed);
}

enum err journal_nats_reader_next(struct journal_reader *base, struct journal_frame *ret,
                                  bool *ret_has)
{
    struct nats_reader *reader = reader_of(base);
    *ret_has = reader_take(reader, ret);
    if (!*ret_has) {
        (void)mailbox_run_all(reader->mailbox);
        *ret_has = reader_take(reader, ret);
    }
    if (!*ret_has) {
        reader_prepare(reader);
        *ret_has = reader_take(reader, ret);
    }
    if (!*ret_has && reader->is_made) {
        atomic_store_explicit(&reader_nats(reader)->starved_ns, clock_mono_ns(),
                              memory_order_relaxed);
    }
    return ERR_OK;
}

void journal_nats_reader_applied(struct journal_reader *base, uint64_t position)
{
    struct nats_reader *reader = reader_of(base);
    const char *reply = NULL;
    while (reader->ring_count > 0 && reader->ring[reader->ring_first].position <= position) {
        reply = reader->ring[reader->ring_first].reply;
        reader->ring_first = (reader->ring_first + 1) % reader->ring_size;
        reader->ring_count--;
    }
    if (reply != NULL) { /* a lost one is made good by the next, or by the cursor */
        (void)natsConnection_PublishString(reader_nats(reader)->connection, reply, "+ACK");
    }
}

/* The lowest number that no other reader has. */
static enum err name_take(struct nats_reader *reader)
{
    struct nats_journal *nats = reader_nats(reader);
    const struct journal_options *options = &reader->base.journal->options;
    for (uint32_t i = 0; i < READER_NAMES_MAX; i++) {
        uint64_t bit = UINT64_C(1) << i;
        uint64_t before = atomic_fetch_or_explicit(&nats->names, bit, memory_order_relaxed);
        if ((before & bit) != 0) {
            continue;
        }
        reader->name = i;
        if (i == 0 && !options->nats.is_shared) {
            (void)snprintf(reader->stem, sizeof(reader->stem), NATS_CONSUMER);
        } else {
            (void)snprintf(reader->stem, sizeof(reader->stem),
                           NATS_CONSUMER "_%016" PRIx64 "_%" PRIu32, options->run, i);
        }
        memcpy(reader->consumer, reader->stem, sizeof(reader->stem));
        return ERR_OK;
    }
    reader->name = READER_NAMES_MAX;
    return ERR_BUSY;
}

/* Its consumer is forgotten by the server when nobody has asked it for a while. */
static void name_give(struct nats_reader *reader)
{
    if (reader->name < READER_NAMES_MAX) {
        atomic_fetch_and_explicit(&reader_nats(reader)->names, ~(UINT64_C(1) << reader->name),
                                  memory_order_relaxed);
    }
}

void journal_nats_reader_close(struct journal_reader *base)
{
    struct nats_reader *reader = reader_of(base);
    if (reader->given != NULL) {
        journal_nats_mail_free(reader->given);
    }
    consumer_forget(reader);
    reader_leave(reader);
    name_give(reader);
    mailbox_destroy(reader->mailbox);
    mem_free(reader->ring);
    mem_free(reader);
}

enum err journal_nats_reader_open(struct journal_reader **ret, struct journal *journal,
                                  uint64_t after_position)
{
    struct nats_journal *nats = journal->nats;
    uint64_t after = journal_nats_sequence(nats, after_position);
    bool is_early = !nats->is_met && !journal_nats_is_ready(nats);
    enum err err = is_early ? ERR_OK : reader_check_place(journal, after);
    if (err != ERR_OK) {
        return err;
    }
    struct nats_reader *reader = mem_alloc(sizeof(*reader));
    reader->base.journal = journal;
    reader->after = after;
    reader->after_position = after_position;
    reader->starved_after = UINT64_MAX;
    reader->is_unchecked = is_early;
    reader->arrived_last = &reader->arrived;
    reader->ring_size = journal->options.nats.ack_pending_max;
    reader->ring = mem_alloc_array(reader->ring_size, sizeof(*reader->ring));
    err = name_take(reader);
    if (err == ERR_OK) {
        err = mailbox_create(&reader->mailbox, READER_MAILS);
    }
    reader->feed = (struct nats_feed){.journal = journal,
                                      .to = reader->mailbox,
                                      .on_arrive = on_delivery,
                                      .owner = reader,
                                      .wakes_subscriber = true};
    if (err != ERR_OK) {
        journal_nats_reader_close(&reader->base);
        return err;
    }
    reader_tell_unread(reader);
    *ret = &reader->base;
    return ERR_OK;
}
