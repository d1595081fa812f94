/* NATS uploads: large bodies as messages of a stream of their own, so that any node can read them.
 *
 *   stream    <stream>_uploads, with the limits of the frames' stream. It is another one because
 *             frames go in their order, by number, within minutes, and bodies one by one, after
 *             days.
 *   subject   <stream>.uploads.<id>
 *   message   a block as in a file (upload_file.c), at most 512 KiB. Where a file has offsets, its
 *             indexes and chains have numbers of the stream; the seed of a checksum is the id
 *             alone, and a data block has its own number in place of `previous`.
 *
 * Happy path: the uploader publishes a block and waits for its acknowledgement, so at most one
 * message of an upload is on the way; the end block is the last message of its subject. A reader
 * asks for it, and then for blocks by their numbers, at the stream's leader, since a follower may
 * not have them yet. Deletion purges the subject.
 *
 * Each message says which one must be the last of its subject. So an upload whose sender died can
 * be given up by any node: a message of no bytes follows its last one, and whoever still sends is
 * refused from then on. The last end block is the one that counts: a second one, which says the
 * same, makes an upload young again.
 *
 * Failure modes: away, or no word: sent again with the same id until five seconds are over, then
 * the upload fails; with a spool one that has not got a block into the stream becomes a file there.
 * The stream is full: ERR_NO_SPACE. A message is not there that should be: ERR_IO, because a new
 * leader may not have it yet; who asks tries again. What is not in the stream may be a file of
 * before the journal was moved to NATS. */
#include "journal/nats.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define UPLOAD_TRY_MS   1000
#define UPLOAD_PAUSE_MS 50
#define UPLOAD_STALE_MS (INT64_C(24) * 3600 * 1000) /* without an end block: given up */
#define UPLOAD_SETTLE_MS                                                                           \
    (INT64_C(3600) * 1000) /* an end record has long come, clocks differing                        \
                            */
#define UPLOAD_NAME_BYTES ((size_t)2 * NATS_NAME_BYTES)

static void upload_subject(char to[UPLOAD_NAME_BYTES], const struct nats_journal *nats,
                           struct id id)
{
    char text[ID_TEXT_BYTES];
    id_format(id, text);
    (void)snprintf(to, UPLOAD_NAME_BYTES, "%s.uploads.%.*s", nats->stream, ID_TEXT_BYTES, text);
}

static enum err upload_err(natsStatus status, jsErrCode code)
{
    switch (code) {
    case JSStreamStoreFailedErr:
    case JSInsufficientResourcesErr:
    case JSStorageResourcesExceededErr:
        return ERR_NO_SPACE;
    case JSStreamWrongLastSequenceErr: /* it was given up */
    case JSStreamMessageExceedsMaximumErr:
        return ERR_IO;
    default:
        return status == NATS_NOT_FOUND ? ERR_NOT_FOUND : ERR_AWAY;
    }
}

/* --- writing: the uploader's thread ----------------------------------------------------------- */

static enum err publish_once(struct journal_upload_file *file, struct slice bytes,
                             uint64_t *ret_place)
{
    struct nats_journal *nats = file->journal->nats;
    char subject[UPLOAD_NAME_BYTES];
    char id[ID_TEXT_BYTES + 44];
    char text[ID_TEXT_BYTES];
    jsPubOptions options;
    jsPubAck *ack = NULL;
    jsErrCode code = 0;
    upload_subject(subject, nats, file->id);
    id_format(file->id, text);
    (void)snprintf(id, sizeof(id), "%.*s.%" PRIu64 ".%" PRIx64, ID_TEXT_BYTES, text,
                   file->block_count, file->carried);
    (void)jsPubOptions_Init(&options);
    options.MaxWait = UPLOAD_TRY_MS;
    options.MsgId = id;
    options.ExpectLastSubjectSeq = file->last_place;
    options.ExpectNoMessage = file->block_count == 0;
    natsStatus status =
        js_Publish(&ack, nats->js, subject, bytes.data, (int)bytes.size, &options, &code);
    if (status == NATS_OK) {
        *ret_place = ack->Sequence;
    }
    jsPubAck_Destroy(ack);
    return status == NATS_OK ? ERR_OK : upload_err(status, code);
}

/* Until it is acknowledged or refused, or nothing was heard of the server for five seconds. What
 * has another place, or is a file already, does not wait. */
static enum err publish(struct journal_upload_file *file, struct slice bytes, uint64_t *ret_place)
{
    struct journal *journal = file->journal;
    struct nats_journal *nats = journal->nats;
    enum err err = ERR_AWAY;
    if (file->carried != 0 || (nats->spool != NULL && file->block_count == 0)) {
        return journal_nats_is_ready(nats) ? publish_once(file, bytes, ret_place) : ERR_AWAY;
    }
    for (;;) {
        if (journal_nats_is_ready(nats)) {
            err = publish_once(file, bytes, ret_place);
        }
        uint64_t now_ms = clock_mono_ms();
        if (err != ERR_AWAY) {
            nats->upload_away_ms = 0;
            return err;
        }
        nats->upload_away_ms = nats->upload_away_ms == 0 ? now_ms : nats->upload_away_ms;
        if (now_ms - nats->upload_away_ms >= NATS_GIVE_UP_MS ||
            atomic_load_explicit(&journal->is_draining, memory_order_relaxed)) {
            return err;
        }
        nats_Sleep(UPLOAD_PAUSE_MS);
    }
}

enum err journal_nats_upload_write(struct journal_upload_file *file, uint8_t *block,
                                   const struct journal_block_head *head, uint64_t *ret_place)
{
    struct journal_block_head numbered = *head;
    if (head->type == JOURNAL_BLOCK_DATA) {
        numbered.previous = file->tail.data_blocks;
    }
    if (!file->is_made) { /* also when it fails: it may be there all the same */
        file->is_made = true;
        if (file->carried == 0) {
            list_push_back(&file->journal->uploader.files, &file->link);
        }
    }
    journal_block_seal(block, &numbered, file->id, 0);
    enum err err =
        publish(file, slice_make(block, JOURNAL_BLOCK_HEAD_BYTES + (size_t)head->stored_bytes),
                &file->last_place);
    bool is_begun = file->carried != 0 || file->block_count > 0;
    if (err == ERR_AWAY && !is_begun && journal_spool(file->journal) != NULL) {
        list_remove(&file->link);
        file->is_made = false;
        file->journal = journal_spool(file->journal);
        return journal_file_upload_write(file, block, head, ret_place);
    }
    if (err == ERR_OK) {
        file->block_count++;
        *ret_place = file->last_place;
    }
    return err;
}

/* Each message was acknowledged. */
enum err journal_nats_upload_sync(struct journal_upload_file *file)
{
    (void)file;
    return ERR_OK;
}

static enum err purge(struct nats_journal *nats, struct id id)
{
    char subject[UPLOAD_NAME_BYTES];
    jsErrCode code = 0;
    if (!journal_nats_is_ready(nats)) {
        return ERR_AWAY;
    }
    upload_subject(subject, nats, id);
    jsOptions options = journal_nats_options();
    options.Stream.Purge.Subject = subject;
    natsStatus status = js_PurgeStream(nats->js, nats->uploads, &options, &code);
    return status == NATS_OK ? ERR_OK : upload_err(status, code);
}

void journal_nats_upload_remove(struct journal_upload_file *file)
{
    if (file->is_made) {
        file->is_made = false;
        (void)purge(file->journal->nats, file->id); /* else it is given up when it is a day old */
    }
}

/* --- reading: any thread ---------------------------------------------------------------------- */

static enum err stream_load(const struct journal_upload_source *source, uint64_t place, uint8_t *to,
                            size_t size, size_t *ret_size)
{
    struct nats_journal *nats = source->journal->nats;
    natsMsg *message = NULL;
    jsErrCode code = 0;
    if (!journal_nats_is_ready(nats)) {
        return ERR_AWAY;
    }
    jsOptions options = journal_nats_options();
    natsStatus status = js_GetMsg(&message, nats->js, nats->uploads, place, &options, &code);
    if (status != NATS_OK) {
        enum err err = upload_err(status, code);
        return err == ERR_NOT_FOUND ? ERR_IO : err;
    }
    size_t got = (size_t)natsMsg_GetDataLength(message);
    if (got <= size) {
        memcpy(to, natsMsg_GetData(message), got);
    }
    natsMsg_Destroy(message);
    *ret_size = got;
    return got <= size ? ERR_OK : ERR_CORRUPT;
}

/* The last message of an upload: its end block, when it is whole. */
struct upload_last {
    uint64_t place;
    int64_t time_ms;
    bool is_end;
    struct journal_upload_tail tail;
};

static void last_decode(natsMsg *message, struct id id, struct upload_last *ret)
{
    struct journal_block_head head;
    const uint8_t *block = (const uint8_t *)natsMsg_GetData(message);
    ret->place = natsMsg_GetSequence(message);
    ret->time_ms = natsMsg_GetTime(message) / 1000000;
    if (natsMsg_GetDataLength(message) != JOURNAL_BLOCK_HEAD_BYTES + JOURNAL_UPLOAD_END_BYTES ||
        !journal_block_peek(block, &head) || head.type != JOURNAL_BLOCK_END ||
        head.stored_bytes != JOURNAL_UPLOAD_END_BYTES ||
        !journal_block_check(block, id, 0, &head)) {
        return;
    }
    journal_upload_tail_decode(block + JOURNAL_BLOCK_HEAD_BYTES, &ret->tail);
    ret->is_end = true;
}

static enum err last_get(struct nats_journal *nats, struct id id, struct upload_last *ret)
{
    char subject[UPLOAD_NAME_BYTES];
    natsMsg *message = NULL;
    jsErrCode code = 0;
    if (!journal_nats_is_ready(nats)) {
        return ERR_AWAY;
    }
    upload_subject(subject, nats, id);
    jsOptions options = journal_nats_options();
    natsStatus status = js_GetLastMsg(&message, nats->js, nats->uploads, subject, &options, &code);
    if (status != NATS_OK) {
        return upload_err(status, code);
    }
    *ret = (struct upload_last){.place = 0};
    last_decode(message, id, ret);
    natsMsg_Destroy(message);
    return ERR_OK;
}

enum err journal_nats_upload_find(struct journal_upload_source *ret, struct journal *journal,
                                  struct id id)
{
    struct upload_last last;
    enum err err = last_get(journal->nats, id, &last);
    if (err == ERR_NOT_FOUND) {
        err = journal_file_upload_find(ret, journal, id);
        return err == ERR_NOT_FOUND ? ERR_IO : err;
    }
    if (err != ERR_OK) {
        return err;
    }
    if (!last.is_end) {
        return ERR_IO;
    }
    *ret = (struct journal_upload_source){
        .journal = journal, .id = id, .fd = -1, .tail = last.tail, .load = stream_load};
    return ERR_OK;
}

enum err journal_nats_upload_delete(struct journal *journal, struct id id)
{
    struct upload_last last;
    enum err err = last_get(journal->nats, id, &last);
    if (err == ERR_NOT_FOUND) {
        return journal_file_upload_delete(journal, id);
    }
    return err == ERR_OK ? purge(journal->nats, id) : err;
}

/* The end block once more. */
static enum err last_renew(struct nats_journal *nats, struct id id, const struct upload_last *last)
{
    uint8_t block[JOURNAL_BLOCK_HEAD_BYTES + JOURNAL_UPLOAD_END_BYTES];
    struct journal_block_head head = {JOURNAL_BLOCK_END, JOURNAL_UPLOAD_END_BYTES,
                                      JOURNAL_UPLOAD_END_BYTES, JOURNAL_BLOCK_NONE};
    char subject[UPLOAD_NAME_BYTES];
    jsPubOptions options;
    jsErrCode code = 0;
    journal_upload_tail_encode(&last->tail, block + JOURNAL_BLOCK_HEAD_BYTES);
    journal_block_seal(block, &head, id, 0);
    upload_subject(subject, nats, id);
    (void)jsPubOptions_Init(&options);
    options.MaxWait = UPLOAD_TRY_MS;
    options.ExpectLastSubjectSeq = last->place;
    natsStatus status =
        js_Publish(NULL, nats->js, subject, block, (int)sizeof(block), &options, &code);
    return status == NATS_OK ? ERR_OK : upload_err(status, code);
}

enum err journal_nats_upload_renew(struct journal *journal, struct id id, bool *ret_is_whole)
{
    struct upload_last last;
    enum err err = last_get(journal->nats, id, &last);
    if (err == ERR_OK && last.is_end) {
        err = last_renew(journal->nats, id, &last);
        *ret_is_whole = true;
        return err;
    }
    if (err == ERR_OK) {
        err = purge(journal->nats, id);
    }
    *ret_is_whole = false;
    return err == ERR_NOT_FOUND ? ERR_OK : err;
}

/* --- those of earlier runs -------------------------------------------------------------------- */

/* The ids in the subjects that the stream has. */
static void walk_take_names(struct journal_upload_walk *walk, const jsStreamStateSubjects *subjects)
{
    walk->names = mem_try_alloc(((size_t)subjects->Count + 1) * sizeof(*walk->names));
    for (int i = 0; i < subjects->Count && walk->names != NULL; i++) {
        const char *name = strrchr(subjects->List[i].Subject, '.');
        struct slice text = slice_from_text(name == NULL ? "" : name + 1);
        walk->name_count += id_parse(text, &walk->names[walk->name_count]);
    }
}

enum err journal_nats_walk_open(struct journal_upload_walk *walk)
{
    struct nats_journal *nats = walk->journal->nats;
    char filter[UPLOAD_NAME_BYTES];
    jsStreamInfo *info = NULL;
    if (!journal_nats_is_ready(nats)) {
        return ERR_AWAY;
    }
    (void)snprintf(filter, sizeof(filter), "%s.uploads.*", nats->stream);
    jsOptions options = journal_nats_options();
    options.Stream.Info.SubjectsFilter = filter;
    if (js_GetStreamInfo(&info, nats->js, nats->uploads, &options, NULL) != NATS_OK) {
        return ERR_AWAY;
    }
    if (info->State.Subjects != NULL) {
        walk_take_names(walk, info->State.Subjects);
    }
    jsStreamInfo_Destroy(info);
    return journal_file_walk_open(walk);
}

/* Blocks without an end block, for a day: their sender is gone. */
static void give_up(struct nats_journal *nats, struct id id, uint64_t place)
{
    char subject[UPLOAD_NAME_BYTES];
    jsPubOptions options;
    (void)jsPubOptions_Init(&options);
    options.ExpectLastSubjectSeq = place;
    options.MaxWait = UPLOAD_TRY_MS;
    upload_subject(subject, nats, id);
    if (js_Publish(NULL, nats->js, subject, NULL, 0, &options, NULL) == NATS_OK &&
        purge(nats, id) == ERR_OK) {
        log_write(LOG_INFO, "journal", "NATS: an upload that was never ended was given up");
    }
}

/* A whole one whose end record, which follows at once, was durable before this run. */
static bool is_older(struct nats_journal *nats, struct id id)
{
    struct upload_last last;
    if (last_get(nats, id, &last) != ERR_OK) {
        return false; /* not known: not told */
    }
    if (!last.is_end && last.time_ms + UPLOAD_STALE_MS < (int64_t)clock_wall_ms()) {
        give_up(nats, id, last.place);
    }
    return last.is_end && last.time_ms + UPLOAD_SETTLE_MS < nats->opened_ms;
}

enum err journal_nats_walk_next(struct journal_upload_walk *walk, struct id *ret, bool *ret_has)
{
    while (walk->name_next < walk->name_count) {
        struct id id = walk->names[walk->name_next++];
        if (is_older(walk->journal->nats, id)) {
            *ret = id;
            *ret_has = true;
            return ERR_OK;
        }
    }
    return journal_file_walk_next(walk, ret, ret_has);
}

void journal_nats_walk_close(struct journal_upload_walk *walk)
{
    mem_free(walk->names);
    journal_file_walk_close(walk);
}
