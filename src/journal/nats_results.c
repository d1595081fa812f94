/* NATS results: what the nodes that apply tell the node that accepted: the result of a frame that
 * somebody waits for, and that an upload is over.
 *
 * Each run has a subject of its own, <stream>.results.<run>, which no stream keeps.
 *
 * Happy path: send encodes and publishes; on the node of that run the message becomes mail of the
 * committer's thread, which calls who asked for it.
 * Failure modes: what is sent while either side is not connected is lost: who waits is answered
 * without the result soon after all of its position is applied, as if the store were away; of an
 * upload that stays in that node's backlog apply asks the store (nats_held.c). */
#include "journal/nats.h"

#include "base/log.h"
#include "base/mem.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void results_subject(char to[NATS_SUBJECT_BYTES], const struct nats_journal *nats,
                            uint64_t run)
{
    (void)snprintf(to, NATS_SUBJECT_BYTES, "%s.results.%016" PRIx64, nats->stream, run);
}

/* Too large for a stack. */
static void take(struct journal *journal, struct slice bytes)
{
    journal_take_share take_share =
        atomic_load_explicit(&journal->take_share, memory_order_acquire);
    struct record_share *share = mem_alloc(sizeof(*share));
    if (record_share_decode(bytes, share) != ERR_OK) {
        log_write(LOG_WARN, "journal", "NATS: a result that cannot be read");
    } else if (share->run != journal->options.run) {
        log_write(LOG_WARN, "journal", "NATS: a result of another run");
    } else if (take_share != NULL) {
        take_share(journal->share_context, share);
    }
    mem_free(share);
}

static void on_result(struct mail *mail)
{
    struct nats_mail *result = LIST_CONTAINER(mail, struct nats_mail, mail);
    take(result->owner, slice_make(natsMsg_GetData(result->message),
                                   (size_t)natsMsg_GetDataLength(result->message)));
    journal_nats_mail_free(result);
}

enum err journal_nats_results_open(struct journal *journal)
{
    struct nats_feed *feed = &journal->nats->results;
    if (!journal->options.nats.is_shared) {
        return ERR_OK;
    }
    *feed = (struct nats_feed){.journal = journal,
                               .to = journal->committer_mailbox,
                               .on_arrive = on_result,
                               .owner = journal};
    results_subject(feed->inbox, journal->nats, journal->options.run);
    return journal_nats_feed_open(feed, false);
}

void journal_nats_results_send(struct journal *journal, const struct record_share *share)
{
    char subject[NATS_SUBJECT_BYTES];
    struct buffer bytes;
    buffer_init(&bytes, RECORD_SHARE_HEAD_BYTES + LIMIT_BATCH_ITEMS_ANSWERED);
    results_subject(subject, journal->nats, share->run);
    if (record_share_encode(share, &bytes) == ERR_OK) {
        /* Lost: as said above. */
        (void)natsConnection_Publish(journal->nats->connection, subject, bytes.data,
                                     (int)bytes.size);
    }
    buffer_finish(&bytes);
}
