/* NATS owner: the store that a stream is for.
 *
 *   subject   <stream>.uploads.store, in the stream of large bodies: its one message is kept for
 *             ever
 *   message   the id of the store as text; behind it "/16" where a message of the stream may hold
 *             so many frames, nothing where each is one
 *
 * The first that starts on a stream without one leaves its own, unless another was faster: the
 * server takes the message only while there is none. It stands there and not in the configuration
 * of the stream, which somebody else may manage.
 *
 * Failure modes: another store's: one line, and no start; after a start without NATS, which a spool
 * permits: one line, and nothing is forwarded. Its frames would become rows of ours, and its cursor
 * and ours would say of one another's frames that they are applied. */
#include "journal/nats.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define OWNER_SUBJECT_BYTES ((size_t)2 * NATS_NAME_BYTES)
#define OWNER_FORM          "/16"
#define OWNER_TRIES         3 /* to leave it, or to read who was faster */

static_assert(1u << NATS_RUN_BITS == 16, "as the form says");

static void owner_subject(char to[OWNER_SUBJECT_BYTES], const struct nats_journal *nats)
{
    (void)snprintf(to, OWNER_SUBJECT_BYTES, "%s.uploads.store", nats->stream);
}

/* NATS_NOT_FOUND: there is none. */
static natsStatus owner_read(struct nats_journal *nats, char ret[ID_TEXT_BYTES],
                             uint32_t *ret_run_bits)
{
    const size_t form = sizeof(OWNER_FORM) - 1;
    char subject[OWNER_SUBJECT_BYTES];
    natsMsg *message = NULL;
    jsOptions options = journal_nats_options();
    owner_subject(subject, nats);
    natsStatus status = js_GetLastMsg(&message, nats->js, nats->uploads, subject, &options, NULL);
    struct slice text = status == NATS_OK ? slice_make(natsMsg_GetData(message),
                                                       (size_t)natsMsg_GetDataLength(message))
                                          : slice_make("", 0);
    bool has_form = text.size == ID_TEXT_BYTES + form &&
                    memcmp(text.data + ID_TEXT_BYTES, OWNER_FORM, form) == 0;
    if (has_form || text.size == ID_TEXT_BYTES) {
        memcpy(ret, text.data, ID_TEXT_BYTES);
        *ret_run_bits = has_form ? NATS_RUN_BITS : 0;
    }
    natsMsg_Destroy(message);
    return status;
}

static natsStatus owner_leave(struct nats_journal *nats, const char own[ID_TEXT_BYTES])
{
    char text[ID_TEXT_BYTES + sizeof(OWNER_FORM)];
    char subject[OWNER_SUBJECT_BYTES];
    jsPubOptions options;
    (void)jsPubOptions_Init(&options);
    options.MaxWait = NATS_WAIT_MS;
    options.ExpectNoMessage = true;
    owner_subject(subject, nats);
    int size = snprintf(text, sizeof(text), "%.*s" OWNER_FORM, ID_TEXT_BYTES, own);
    return js_Publish(NULL, nats->js, subject, text, size, &options, NULL);
}

enum err journal_nats_own(struct journal *journal, uint32_t *ret_run_bits,
                          struct err_detail *detail)
{
    struct nats_journal *nats = journal->nats;
    char own[ID_TEXT_BYTES];
    char found[ID_TEXT_BYTES] = {0};
    natsStatus status = NATS_NOT_FOUND;
    id_format(journal->options.nats.store, own);
    for (int i = 0; i < OWNER_TRIES && status != NATS_OK; i++) {
        status = owner_read(nats, found, ret_run_bits);
        if (status == NATS_NOT_FOUND && owner_leave(nats, own) == NATS_OK) {
            *ret_run_bits = NATS_RUN_BITS;
            return ERR_OK;
        }
    }
    if (status != NATS_OK) {
        err_detail_set(detail, "NATS: stream %s: whose it is: %s", nats->uploads,
                       natsStatus_GetText(status));
        return ERR_AWAY;
    }
    if (memcmp(found, own, sizeof(own)) != 0) {
        err_detail_set(detail,
                       "NATS: stream %s belongs to another store (%.*s, this one is %.*s); set "
                       "another NATS_STREAM, or its DATABASE_URL",
                       nats->stream, ID_TEXT_BYTES, found, ID_TEXT_BYTES, own);
        return ERR_CONFIG;
    }
    return ERR_OK;
}
