/* NATS: the backend whose frames are messages of a JetStream stream.
 *
 *   stream    limits retention, new messages are refused when it is full, no age, on disk
 *   subjects  <stream>.frames.<lane>; frames of several lanes: <stream>.frames.mixed
 *   results   <stream>.results.<run>, in no stream: nats_results.c
 *   uploads   in a stream of their own: nats_upload.c
 *   message   up to 16 frames as they stand in a segment, 64 KiB in all, or one frame of any
 *             size; in each one's position field the number of frames that follow it in its
 *             message. Position = base + 16 x the stream's own number - that. In a stream that the
 *             version before has made: one frame, and base + number.
 *   journal   is named by the stream's name and the time it was made, so one that was deleted and
 *             made anew is another journal, whose base lies above what was applied.
 *
 * Happy path: open connects and finds or makes the stream; the publisher sends batches and answers
 * them when JetStream has acknowledged; the reader pulls by a durable consumer; what every lane has
 * finished durably is purged after the replay window.
 *
 * Failure modes: no server, a wrong password, a stream with other limits: one line, and no start.
 * The server goes away: appends are refused with ERR_AWAY until it is back, by itself. The stream
 * was replaced meanwhile: nothing is written to it or read from it until a restart. With a spool
 * (nats_spool.c) the server is needed at the first start alone, and nothing is refused. */
#include "journal/spool.h"

#include "base/clock.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NATS_START_WAIT_MS 10000u
#define NATS_SERVERS_MAX   16
#define NATS_PURGE_MS      2000u
#define NATS_MEASURE_MS    5000u

jsOptions journal_nats_options(void)
{
    jsOptions options;
    (void)jsOptions_Init(&options); /* fails for NULL alone */
    options.Wait = NATS_WAIT_MS;
    return options;
}

bool journal_nats_is_ready(const struct nats_journal *nats)
{
    return atomic_load_explicit(&nats->is_connected, memory_order_acquire) &&
           !atomic_load_explicit(&nats->is_foreign, memory_order_acquire) &&
           atomic_load_explicit(&nats->generation, memory_order_acquire) ==
               atomic_load_explicit(&nats->verified, memory_order_acquire);
}

void journal_nats_refuse(struct nats_journal *nats, const char *why)
{
    atomic_store_explicit(&nats->refusal, why, memory_order_release);
    atomic_store_explicit(&nats->is_foreign, true, memory_order_release);
}

const char *journal_refusal(const struct journal *journal)
{
    return journal->nats == NULL
               ? NULL
               : atomic_load_explicit(&journal->nats->refusal, memory_order_acquire);
}

/* --- the library's callbacks ------------------------------------------------------------------ */

static void on_disconnected(natsConnection *connection, void *closure)
{
    struct journal *journal = closure;
    (void)connection;
    atomic_store_explicit(&journal->nats->is_connected, false, memory_order_release);
    atomic_store_explicit(&journal->room.is_away, journal->nats->spool == NULL,
                          memory_order_relaxed);
    mailbox_wake(journal->committer_mailbox);
}

static void on_reconnected(natsConnection *connection, void *closure)
{
    struct journal *journal = closure;
    (void)connection;
    atomic_fetch_add_explicit(&journal->nats->generation, 1, memory_order_release);
    atomic_store_explicit(&journal->nats->is_connected, true, memory_order_release);
    mailbox_wake(journal->committer_mailbox);
}

static void on_closed(natsConnection *connection, void *closure)
{
    struct journal *journal = closure;
    (void)connection;
    atomic_store_explicit(&journal->nats->is_closed, true, memory_order_release);
}

static void on_error(natsConnection *connection, natsSubscription *subscription, natsStatus status,
                     void *closure)
{
    (void)connection;
    (void)subscription;
    (void)closure;
    log_write(LOG_WARN, "journal", "NATS: %s", natsStatus_GetText(status));
}

static void on_message(natsConnection *connection, natsSubscription *subscription, natsMsg *message,
                       void *closure)
{
    struct nats_feed *feed = closure;
    (void)connection;
    (void)subscription;
    struct nats_mail *mail = mem_alloc(sizeof(*mail));
    mail->mail.on_arrive = feed->on_arrive;
    mail->owner = feed->owner;
    mail->message = message;
    mailbox_answer(feed->to, &mail->mail); /* as many come as were asked for */
    if (feed->wakes_subscriber) {
        journal_wake_subscribers(feed->journal);
    }
}

static void on_feed_over(void *closure)
{
    struct nats_feed *feed = closure;
    atomic_store_explicit(&feed->is_over, true, memory_order_release);
}

/* --- feeds ------------------------------------------------------------------------------------ */

void journal_nats_mail_free(struct nats_mail *mail)
{
    natsMsg_Destroy(mail->message);
    mem_free(mail);
}

enum err journal_nats_feed_open(struct nats_feed *feed, bool is_wide)
{
    char subject[NATS_SUBJECT_BYTES + 2];
    natsInbox *inbox = NULL;
    if (feed->inbox[0] == '\0') {
        if (natsInbox_Create(&inbox) != NATS_OK) {
            return ERR_NO_MEMORY;
        }
        (void)snprintf(feed->inbox, sizeof(feed->inbox), "%s", inbox);
        natsInbox_Destroy(inbox);
    }
    (void)snprintf(subject, sizeof(subject), "%s%s", feed->inbox, is_wide ? ".*" : "");
    atomic_store_explicit(&feed->is_over, false, memory_order_relaxed);
    natsStatus status = natsConnection_Subscribe(
        &feed->subscription, feed->journal->nats->connection, subject, on_message, feed);
    if (status != NATS_OK) {
        feed->subscription = NULL;
        return ERR_AWAY;
    }
    /* What comes is bounded by what is asked for; the library's own bound would drop it. */
    (void)natsSubscription_SetPendingLimits(feed->subscription, -1, -1);
    (void)natsSubscription_SetOnCompleteCB(feed->subscription, on_feed_over, feed);
    return ERR_OK;
}

void journal_nats_feed_close(struct nats_feed *feed)
{
    if (feed->subscription == NULL) {
        return;
    }
    (void)natsSubscription_Unsubscribe(feed->subscription);
    while (!atomic_load_explicit(&feed->is_over, memory_order_acquire)) {
        nats_Sleep(1); /* the callback in hand only posts a mail */
    }
    natsSubscription_Destroy(feed->subscription);
    feed->subscription = NULL;
}

/* --- the connection --------------------------------------------------------------------------- */

/* `url` is taken apart at its commas. */
static natsStatus options_set_servers(natsOptions *options, char *url)
{
    const char *servers[NATS_SERVERS_MAX];
    int count = 0;
    bool is_tls = false;
    for (char *at = url; at != NULL && count < NATS_SERVERS_MAX; count++) {
        char *comma = strchr(at, ',');
        if (comma != NULL) {
            *comma = '\0';
        }
        servers[count] = at + strspn(at, " ");
        is_tls |= strncmp(servers[count], "tls://", 6) == 0;
        at = comma == NULL ? NULL : comma + 1;
    }
    natsStatus status = natsOptions_SetServers(options, servers, count);
    return status == NATS_OK && is_tls ? natsOptions_SetSecure(options, true) : status;
}

static natsStatus options_fill(natsOptions *options, struct journal *journal)
{
    char *url = mem_copy_text(journal->options.nats.url);
    natsStatus status = options_set_servers(options, url);
    mem_free(url);
    /* Each fails for NULL or a negative number alone. */
    (void)natsOptions_SetName(options, "weir");
    (void)natsOptions_SetTimeout(options, NATS_WAIT_MS);
    (void)natsOptions_SetMaxReconnect(options, -1);
    (void)natsOptions_SetReconnectWait(options, 200);
    (void)natsOptions_SetReconnectJitter(options, 100, 100);
    (void)natsOptions_SetPingInterval(options, 2000);
    (void)natsOptions_SetMaxPingsOut(options, 2);
    (void)natsOptions_SetWriteDeadline(options, NATS_WAIT_MS);
    /* Else the library's own flusher lets a millisecond pass before it writes. */
    (void)natsOptions_SetSendAsap(options, true);
    (void)natsOptions_SetErrorHandler(options, on_error, NULL);
    (void)natsOptions_SetDisconnectedCB(options, on_disconnected, journal);
    (void)natsOptions_SetReconnectedCB(options, on_reconnected, journal);
    (void)natsOptions_SetClosedCB(options, on_closed, journal);
    return status;
}

static enum err connect_err(natsStatus status, struct err_detail *detail)
{
    bool is_refused = status == NATS_CONNECTION_AUTH_FAILED || status == NATS_NOT_PERMITTED;
    err_detail_set(detail, "NATS_URL: %s",
                   is_refused ? "the server does not accept the user and password"
                              : natsStatus_GetText(status));
    return is_refused || status == NATS_INVALID_ARG ? ERR_CONFIG : ERR_AWAY;
}

/* With a spool: it is tried on and on while the server starts without it. */
static natsStatus connect_behind(struct journal *journal, natsOptions *options)
{
    (void)natsOptions_SetRetryOnFailedConnect(options, true, on_reconnected, journal);
    return natsConnection_Connect(&journal->nats->connection, options);
}

static enum err connected(struct journal *journal, natsStatus status, struct err_detail *detail)
{
    struct nats_journal *nats = journal->nats;
    if (status != NATS_OK && status != NATS_NOT_YET_CONNECTED) {
        return connect_err(status, detail);
    }
    if (status == NATS_OK) {
        atomic_store_explicit(&nats->is_connected, true, memory_order_release);
    }
    jsOptions js = journal_nats_options();
    natsStatus made = natsConnection_JetStream(&nats->js, nats->connection, &js);
    return status == NATS_OK && made == NATS_OK ? ERR_OK : connect_err(status, detail);
}

/* Servers that start together are waited for. */
static enum err nats_connect(struct journal *journal, struct err_detail *detail)
{
    struct nats_journal *nats = journal->nats;
    natsOptions *options = NULL;
    uint64_t end_ms = clock_mono_ms() + NATS_START_WAIT_MS;
    bool is_told = false;
    natsStatus status = natsOptions_Create(&options);
    if (status == NATS_OK) {
        status = options_fill(options, journal);
    }
    if (status == NATS_OK && journal_nats_spool_knows(journal)) {
        status = connect_behind(journal, options);
    } else if (status == NATS_OK) {
        status = natsConnection_Connect(&nats->connection, options);
        while ((status == NATS_NO_SERVER || status == NATS_TIMEOUT) && clock_mono_ms() < end_ms) {
            if (!is_told) {
                log_write(LOG_WARN, "journal", "NATS: %s, waiting", natsStatus_GetText(status));
            }
            is_told = true;
            nats_Sleep(200);
            status = natsConnection_Connect(&nats->connection, options);
        }
    }
    natsOptions_Destroy(options);
    return connected(journal, status, detail);
}

/* --- the stream ------------------------------------------------------------------------------- */

/* A stream as it must be. */
struct stream_plan {
    const char *name;
    const char *subject;
    const char *description;
};

static enum err stream_make(struct journal *journal, const struct stream_plan *plan,
                            jsStreamInfo **ret, struct err_detail *detail)
{
    const char *subjects[] = {plan->subject};
    jsErrCode code = 0;
    jsStreamConfig config;
    (void)jsStreamConfig_Init(&config);
    config.Name = plan->name;
    config.Description = plan->description;
    config.Subjects = subjects;
    config.SubjectsLen = 1;
    config.Retention = js_LimitsPolicy;
    config.Discard = js_DiscardNew;
    config.Storage = js_FileStorage;
    config.Replicas = journal->options.nats.replicas;
    config.Duplicates = NATS_DUPLICATES_MS * INT64_C(1000000);
    natsStatus status = js_AddStream(ret, journal->nats->js, &config, NULL, &code);
    if (status != NATS_OK) {
        err_detail_set(detail, "NATS: make stream %s: %s (JetStream error %d)", plan->name,
                       natsStatus_GetText(status), (int)code);
        return ERR_AWAY;
    }
    log_write(LOG_INFO, "journal", "NATS: made stream %s", plan->name);
    return ERR_OK;
}

/* What of it would lose or reorder records; NULL: nothing. */
static const char *stream_fault(const jsStreamConfig *config, const char *subject, int64_t replicas)
{
    if (config->SubjectsLen != 1 || strcmp(config->Subjects[0], subject) != 0) {
        return "it has other subjects";
    }
    if (config->Retention != js_LimitsPolicy) {
        return "retention must be limits";
    }
    if (config->Discard != js_DiscardNew) {
        return "discard must be new";
    }
    if (config->MaxAge != 0) {
        return "max_age must be 0";
    }
    if (config->MaxMsgsPerSubject > 0) {
        return "max_msgs_per_subject must be unlimited";
    }
    if (config->Storage != js_FileStorage) {
        return "storage must be file";
    }
    if (config->NoAck) {
        return "no_ack must be false";
    }
    if (config->Sealed || config->DenyPurge) {
        return "it must be neither sealed nor closed to purges";
    }
    if (config->MaxMsgSize > 0 && config->MaxMsgSize < (int32_t)LIMIT_FRAME_BYTES + 4096) {
        return "max_msg_size must be at least 516 KiB";
    }
    if (config->Duplicates < NATS_DUPLICATES_MS * INT64_C(1000000)) {
        return "duplicate_window must be at least 2 minutes";
    }
    return config->Replicas != replicas ? "num_replicas must be as NATS_REPLICAS says" : NULL;
}

static enum err stream_find(struct journal *journal, const struct stream_plan *plan,
                            jsStreamInfo **ret, struct err_detail *detail)
{
    struct nats_journal *nats = journal->nats;
    jsErrCode code = 0;
    uint64_t end_ms = clock_mono_ms() + NATS_START_WAIT_MS;
    natsStatus status = js_GetStreamInfo(ret, nats->js, plan->name, NULL, &code);
    while ((status == NATS_TIMEOUT || code == JSInsufficientResourcesErr ||
            code == JSClusterNotAvailErr) &&
           clock_mono_ms() < end_ms) { /* a cluster that starts has no leader yet */
        nats_Sleep(200);
        status = js_GetStreamInfo(ret, nats->js, plan->name, NULL, &code);
    }
    if (status == NATS_NOT_FOUND) {
        return stream_make(journal, plan, ret, detail);
    }
    if (status != NATS_OK) {
        const char *why = status == NATS_NO_RESPONDERS ? "JetStream is not enabled on this server"
                                                       : natsStatus_GetText(status);
        err_detail_set(detail, "NATS: stream %s: %s", plan->name, why);
        return ERR_AWAY;
    }
    const char *fault = stream_fault((*ret)->Config, plan->subject, journal->options.nats.replicas);
    if (fault != NULL) {
        err_detail_set(detail, "NATS: stream %s has other limits: %s", plan->name, fault);
        return ERR_CONFIG;
    }
    return ERR_OK;
}

static enum err find_frames(struct journal *journal, jsStreamInfo **ret, struct err_detail *detail)
{
    char subject[NATS_NAME_BYTES + 16];
    struct stream_plan plan = {.name = journal->nats->stream,
                               .subject = subject,
                               .description = "Weir's journal: accepted, verified, to be applied"};
    (void)snprintf(subject, sizeof(subject), "%s.frames.*", journal->nats->stream);
    return stream_find(journal, &plan, ret, detail);
}

static enum err find_uploads(struct journal *journal, struct err_detail *detail)
{
    char subject[NATS_NAME_BYTES + 16];
    jsStreamInfo *info = NULL;
    struct stream_plan plan = {.name = journal->nats->uploads,
                               .subject = subject,
                               .description = "Weir's large bodies, as they came"};
    (void)snprintf(subject, sizeof(subject), "%s.uploads.*", journal->nats->stream);
    enum err err = stream_find(journal, &plan, &info, detail);
    jsStreamInfo_Destroy(info);
    return err;
}

/* Whether a node reads the stream now that does not share it, or that we would not share it with.
 */
static bool is_read_by_other(const struct journal *journal)
{
    const struct nats_journal *nats = journal->nats;
    jsConsumerInfoList *list = NULL;
    bool is_read = false;
    if (js_Consumers(&list, nats->js, nats->stream, NULL, NULL) != NATS_OK) {
        return false; /* none, or the next call says what is wrong */
    }
    for (int i = 0; i < list->Count; i++) {
        const char *name = list->List[i]->Name;
        bool is_alone = strcmp(name, NATS_CONSUMER) == 0 ||
                        strncmp(name, NATS_CONSUMER "-", strlen(NATS_CONSUMER) + 1) == 0;
        is_read |= list->List[i]->NumWaiting > 0 && (is_alone || !journal->options.nats.is_shared);
    }
    jsConsumerInfoList_Destroy(list);
    return is_read;
}

/* Nodes that do not have their store in common. One that was killed is forgotten soon. */
static enum err refuse_second(struct journal *journal, struct err_detail *detail)
{
    uint64_t end_ms = clock_mono_ms() + NATS_START_WAIT_MS;
    bool is_read = is_read_by_other(journal);
    while (is_read && clock_mono_ms() < end_ms) {
        nats_Sleep(200);
        is_read = is_read_by_other(journal);
    }
    if (is_read) {
        err_detail_set(detail,
                       "NATS: stream %s is read by another server; stop it, or set another "
                       "NATS_STREAM",
                       journal->nats->stream);
        return ERR_LOCKED;
    }
    return ERR_OK;
}

static void stream_identify(struct journal *journal, int64_t created)
{
    struct nats_journal *nats = journal->nats;
    uint8_t name[NATS_NAME_BYTES + sizeof(int64_t)] = {0};
    memcpy(name, nats->stream, strlen(nats->stream));
    memcpy(name + NATS_NAME_BYTES, &created, sizeof(created));
    uint64_t id[2] = {hash_xxh3(name, sizeof(name), 1), hash_xxh3(name, sizeof(name), 2)};
    memcpy(journal->state.id.bytes, id, sizeof(id));
    nats->salt = hash_xxh3(name, sizeof(name), 3);
    nats->created = created;
}

/* What an earlier run left in segments must be applied by it, or by one like it. */
static enum err refuse_unapplied(struct journal *journal, uint64_t applied,
                                 struct err_detail *detail)
{
    struct journal_check_report report = {0};
    struct err_detail unused = {{0}};
    enum err err = journal_check(journal->directory, &report, NULL, NULL, NULL, &unused);
    if (err == ERR_NOT_FOUND || report.last_position <= applied) {
        return ERR_OK;
    }
    err_detail_set(detail,
                   "%s holds frames that are not applied; start once without NATS_URL, wait until "
                   "the queue is empty, and stop",
                   journal->directory);
    return ERR_CONFIG;
}

/* Files that a local journal did not end: uploads are kept in a stream now. */
static enum err drop_pending_uploads(struct journal *journal, struct err_detail *detail)
{
    struct journal_pending_uploads uploads;
    enum err err = journal_pending_uploads_list(&uploads, journal, detail);
    if (err == ERR_OK) {
        journal_pending_uploads_settle(&uploads, journal);
        journal_pending_uploads_finish(&uploads);
    }
    return err;
}

/* The range of positions ends some day: not without a word. */
static enum err check_numbers(const struct nats_journal *nats, struct err_detail *detail)
{
    uint64_t max = journal_nats_sequence_max(nats);
    if (nats->last_sequence >= max) {
        err_detail_set(detail,
                       "NATS: stream %s has given its last number, %" PRIu64
                       "; wait until all of it is applied, and set another NATS_STREAM",
                       nats->stream, max);
        return ERR_CONFIG;
    }
    if (nats->last_sequence >= max / 2) {
        log_write(LOG_WARN, "journal",
                  "NATS: stream %s is at message %" PRIu64 " of the %" PRIu64
                  " that it can hold: set another NATS_STREAM some day",
                  nats->stream, nats->last_sequence, max);
    }
    return ERR_OK;
}

/* The server and its streams, as they must be. */
static enum err nats_meet(struct journal *journal, struct err_detail *detail)
{
    struct nats_journal *nats = journal->nats;
    jsStreamInfo *info = NULL;
    enum err err = nats_connect(journal, detail);
    if (err == ERR_OK) {
        err = find_frames(journal, &info, detail);
    }
    if (err == ERR_OK) {
        err = find_uploads(journal, detail);
    }
    if (err == ERR_OK) {
        err = journal_nats_own(journal, &nats->run_bits, detail);
    }
    if (err == ERR_OK) {
        err = refuse_second(journal, detail);
    }
    if (err == ERR_OK) {
        stream_identify(journal, info->Created);
        nats->is_met = true;
        nats->first_sequence = info->State.FirstSeq;
        nats->last_sequence = info->State.LastSeq;
        nats->message_bytes = info->State.Msgs > 0 ? info->State.Bytes / info->State.Msgs : 0;
        err = check_numbers(nats, detail);
        atomic_store_explicit(&nats->met_sequence, info->State.LastSeq, memory_order_relaxed);
    }
    jsStreamInfo_Destroy(info);
    return err;
}

/* The stream is met when it is there; until then it is the one that an earlier run has met. */
static void nats_go_without(struct journal *journal, const struct err_detail *detail)
{
    log_write(LOG_WARN, "journal", "%s: starting without it", detail->text);
    stream_identify(journal, journal->nats->spool->state.created);
    journal->nats->run_bits = journal->nats->spool->state.run_bits;
    atomic_fetch_add_explicit(&journal->nats->generation, 1, memory_order_release);
}

static enum err nats_open(struct journal *journal, const struct journal_from *applied,
                          struct err_detail *detail)
{
    const char *name = journal->options.nats.stream;
    assert(strlen(name) < NATS_NAME_BYTES - 1);
    journal->nats = mem_alloc(sizeof(*journal->nats));
    (void)snprintf(journal->nats->stream, sizeof(journal->nats->stream), "%s", name);
    (void)snprintf(journal->nats->uploads, sizeof(journal->nats->uploads), "%s_uploads", name);
    journal->nats->opened_ms = (int64_t)clock_wall_ms();
    journal_nats_held_open(journal);
    enum err err = refuse_unapplied(journal, journal_from_least(applied), detail);
    if (err == ERR_OK) {
        err = drop_pending_uploads(journal, detail);
    }
    if (err == ERR_OK) {
        err = journal_nats_spool_open(journal, detail);
    }
    if (err == ERR_OK) {
        err = nats_meet(journal, detail);
        if (err == ERR_AWAY && journal_nats_spool_knows(journal)) {
            nats_go_without(journal, detail);
            err = ERR_OK;
        }
    }
    if (err == ERR_OK) {
        journal->state.is_new = true; /* nothing of it is recovered here */
        journal->state.clean = true;
        err = journal_nats_publisher_open(journal);
    }
    if (err == ERR_OK) {
        err = journal_nats_kept_open(journal);
    }
    if (err == ERR_OK) {
        err = journal_nats_results_open(journal);
    }
    return err;
}

static enum err nats_start(struct journal *journal, uint64_t base, struct err_detail *detail)
{
    struct nats_journal *nats = journal->nats;
    nats->base = base;
    journal->room.found_frame_bytes = nats->message_bytes;
    journal->run_bits = nats->run_bits;
    journal->state.base = base;
    journal->state.last_position = journal_nats_position(nats, nats->last_sequence);
    journal->recovered_position = journal->state.last_position;
    atomic_store_explicit(&journal->durable_position, journal->state.last_position,
                          memory_order_release);
    if (nats->is_met) {
        log_write(LOG_INFO, "journal", "NATS: stream %s holds messages %" PRIu64 " to %" PRIu64,
                  nats->stream, nats->first_sequence, nats->last_sequence);
    }
    return journal_nats_spool_start(journal, detail);
}

static void nats_close(struct journal *journal)
{
    struct nats_journal *nats = journal->nats;
    if (nats == NULL) {
        return;
    }
    journal_nats_feed_close(&nats->results);
    journal_nats_kept_leave(journal);
    journal_nats_spool_close(journal);
    journal_nats_publisher_close(journal);
    journal_nats_kept_close(journal);
    journal_nats_held_close(journal);
    jsCtx_Destroy(nats->js);
    if (nats->connection != NULL) {
        natsConnection_Close(nats->connection);
        while (!atomic_load_explicit(&nats->is_closed, memory_order_acquire)) {
            nats_Sleep(1); /* the last callback of the connection; then none touches us */
        }
        natsConnection_Destroy(nats->connection);
    }
    mem_free(nats);
    journal->nats = NULL;
}

/* --- beside the commits: the preparer's thread --------------------------------------------------
 */

/* Notes what was released, so that it goes when the replay window is over. */
static void purge_note(struct nats_journal *nats, uint64_t released, uint64_t now_ns,
                       uint64_t window_ns)
{
    uint64_t sequence = journal_nats_sequence(nats, released);
    const struct nats_purge *last =
        nats->purge_count == 0 ? NULL : &nats->purges[nats->purge_count - 1];
    bool is_new = sequence > (last == NULL ? nats->purged : last->sequence);
    bool is_time = last == NULL || now_ns - last->at_ns >= window_ns / (NATS_PURGES / 2);
    if (is_new && is_time && nats->purge_count < NATS_PURGES) {
        nats->purges[nats->purge_count++] = (struct nats_purge){now_ns, sequence};
    }
}

static void purge_due(struct journal *journal, uint64_t now_ns)
{
    struct nats_journal *nats = journal->nats;
    uint64_t window_ns = journal->options.replay_window_s * UINT64_C(1000000000);
    uint32_t due = 0;
    if (atomic_load_explicit(&nats->is_full, memory_order_relaxed)) {
        window_ns = 0;
    }
    purge_note(nats, atomic_load_explicit(&journal->released, memory_order_relaxed), now_ns,
               window_ns);
    while (due < nats->purge_count && now_ns - nats->purges[due].at_ns >= window_ns) {
        due++;
    }
    if (due == 0 || !journal_nats_is_ready(nats)) {
        return;
    }
    jsOptions options = journal_nats_options();
    options.Stream.Purge.Sequence = nats->purges[due - 1].sequence + 1;
    if (js_PurgeStream(nats->js, nats->stream, &options, NULL) != NATS_OK) {
        return; /* at the next look */
    }
    nats->purged = nats->purges[due - 1].sequence;
    atomic_store_explicit(&nats->is_full, false, memory_order_relaxed);
    nats->purge_count -= due;
    memmove(nats->purges, nats->purges + due, nats->purge_count * sizeof(nats->purges[0]));
}

static bool stream_bytes(struct nats_journal *nats, const char *name, uint64_t *bytes)
{
    jsStreamInfo *info = NULL;
    jsOptions options = journal_nats_options();
    if (js_GetStreamInfo(&info, nats->js, name, &options, NULL) != NATS_OK) {
        return false;
    }
    *bytes += info->State.Bytes;
    jsStreamInfo_Destroy(info);
    return true;
}

/* Of all nodes, as the server says. */
static void measure(struct journal *journal)
{
    struct nats_journal *nats = journal->nats;
    uint64_t bytes = 0;
    if (journal_nats_is_ready(nats) && stream_bytes(nats, nats->stream, &bytes) &&
        stream_bytes(nats, nats->uploads, &bytes)) {
        metrics_set(METRIC_JOURNAL_BYTES, (double)bytes);
    }
}

static void wake_subscriber(struct journal *journal, uint64_t now_ns)
{
    uint64_t wake_ns = atomic_load_explicit(&journal->nats->wake_ns, memory_order_relaxed);
    if (wake_ns != 0 && now_ns >= wake_ns) {
        atomic_store_explicit(&journal->nats->wake_ns, 0, memory_order_relaxed);
        journal_wake_subscribers(journal);
    }
}

static void answer_questions(struct journal *journal)
{
    struct nats_journal *nats = journal->nats;
    jsStreamInfo *info = NULL;
    uint64_t question = atomic_load_explicit(&nats->questions, memory_order_acquire);
    if (question == atomic_load_explicit(&nats->answered, memory_order_relaxed) ||
        !journal_nats_is_ready(nats)) {
        return;
    }
    jsOptions options = journal_nats_options();
    if (js_GetStreamInfo(&info, nats->js, nats->stream, &options, NULL) != NATS_OK) {
        return; /* at the next look */
    }
    journal_nats_tell_durable(journal, journal_nats_position(nats, info->State.LastSeq));
    jsStreamInfo_Destroy(info);
    atomic_store_explicit(&nats->answered, question, memory_order_release);
}

uint64_t journal_ask(struct journal *journal)
{
    if (!journal_is_shared(journal)) {
        return 0;
    }
    uint64_t before = atomic_fetch_add_explicit(&journal->nats->questions, 1, memory_order_release);
    mailbox_wake(journal->preparer_mailbox);
    return before + 1;
}

bool journal_is_answered(const struct journal *journal, uint64_t question)
{
    return !journal_is_shared(journal) ||
           atomic_load_explicit(&journal->nats->answered, memory_order_acquire) >= question;
}

static void nats_prepare(struct journal *journal)
{
    uint64_t purged_ns = 0;
    uint64_t measured_ns = 0;
    while (!mailbox_is_closed(journal->preparer_mailbox)) {
        uint64_t now_ns = clock_mono_ns();
        wake_subscriber(journal, now_ns);
        answer_questions(journal);
        if (now_ns - purged_ns >= NATS_PURGE_MS * UINT64_C(1000000)) {
            purged_ns = now_ns;
            purge_due(journal, now_ns);
        }
        if (now_ns - measured_ns >= NATS_MEASURE_MS * UINT64_C(1000000)) {
            measured_ns = now_ns;
            measure(journal);
        }
        mailbox_wait(journal->preparer_mailbox, NATS_LOOK_MS);
    }
}

const struct journal_backend journal_nats = {
    .open = nats_open,
    .start = nats_start,
    .commit = journal_nats_commit,
    .prepare = nats_prepare,
    .close = nats_close,
    .reader_open = journal_nats_reader_open,
    .reader_next = journal_nats_reader_next,
    .reader_applied = journal_nats_reader_applied,
    .reader_close = journal_nats_reader_close,
    .upload_write = journal_nats_upload_write,
    .upload_sync = journal_nats_upload_sync,
    .upload_remove = journal_nats_upload_remove,
    .upload_find = journal_nats_upload_find,
    .upload_delete = journal_nats_upload_delete,
    .walk_open = journal_nats_walk_open,
    .walk_next = journal_nats_walk_next,
    .walk_close = journal_nats_walk_close,
};
