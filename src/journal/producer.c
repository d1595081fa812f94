/* Producer: a loop's side of the journal.
 *
 * Happy path: append writes the frame where the committer will write it from, in the open batch;
 * submit posts the batch at the end of the round; when it comes back its tickets are run, each with
 * its position, and its memory waits for the next round. Up to 64 batches are on the way at a time,
 * so a round never waits for the commit before it.
 *
 * Failure modes: the backlog or the pool of batches is full: ERR_FULL, before anything is kept. The
 * commit failed: its tickets get the error and what was taken from the backlog is given back. The
 * journal has stopped: batches that were not posted get ERR_DRAINING at submit. */
#include "base/mem.h"
#include "journal/internal.h"

#include <assert.h>

#define PRODUCER_POOL_BYTES  (UINT64_C(64) * 1024u * 1024u)
#define PRODUCER_BATCH_BYTES (1024u * UINT64_C(1024))
#define PRODUCER_FIRST_BYTES (16u * UINT64_C(1024))
#define PRODUCER_KEEP_BYTES  (128u * UINT64_C(1024)) /* of one unused batch */
#define PRODUCER_UNUSED_MAX  4u
static_assert(PRODUCER_BATCH_BYTES >= LIMIT_FRAME_BYTES + JOURNAL_FRAME_HEAD_BYTES + 8,
              "a batch holds the largest frame");
static_assert(PRODUCER_BATCH_BYTES + JOURNAL_COMMIT_HEAD_BYTES <= LIMIT_COMMIT_BYTES,
              "a commit holds the largest batch");

void journal_batch_list_init(struct journal_batch_list *list)
{
    list->first = NULL;
    list->last = &list->first;
}

void journal_batch_list_push(struct journal_batch_list *list, struct journal_batch *batch)
{
    batch->next = NULL;
    *list->last = batch;
    list->last = &batch->next;
}

struct journal_batch *journal_batch_list_take(struct journal_batch_list *list)
{
    struct journal_batch *batch = list->first;
    if (batch != NULL) {
        list->first = batch->next;
        if (list->first == NULL) {
            list->last = &list->first;
        }
    }
    return batch;
}

enum err journal_producer_create(struct journal_producer **ret, struct journal *journal,
                                 uint32_t index, struct mailbox *mailbox)
{
    assert(index < journal->options.producer_count);
    struct journal_producer *producer = mem_alloc(sizeof(*producer));
    producer->journal = journal;
    producer->mailbox = mailbox;
    journal_batch_list_init(&producer->ready);
    /* A small segment, as tests have, must hold a batch as well. */
    size_t room = (size_t)journal->options.segment_bytes - JOURNAL_SEGMENT_HEAD_BYTES -
                  JOURNAL_COMMIT_HEAD_BYTES;
    producer->batch_bytes = room < PRODUCER_BATCH_BYTES ? room : PRODUCER_BATCH_BYTES;
    *ret = producer;
    return ERR_OK;
}

static void batch_free(struct journal_batch *batch)
{
    mem_free(batch->bytes);
    mem_free(batch);
}

static enum err batch_outcome(const struct journal_batch *batch, uint32_t frame,
                              uint64_t *ret_position)
{
    if (batch->outcomes != NULL && batch->err == ERR_OK) {
        *ret_position = batch->outcomes[frame].position;
        return batch->outcomes[frame].err;
    }
    *ret_position = batch->err == ERR_OK ? batch->first_position + frame : 0;
    return batch->err;
}

/* Frames that were not taken, or all of them: the backlog does not hold them. */
static void batch_give_back(struct journal *journal, const struct journal_batch *batch, bool all)
{
    size_t offset = 0;
    for (uint32_t i = 0; offset < batch->size; i++) {
        struct journal_frame frame;
        uint64_t position;
        journal_frame_peek(batch->bytes + offset, &frame);
        if (all || batch_outcome(batch, i, &position) != ERR_OK) {
            journal_room_give(&journal->room, frame.org, frame.bytes);
        }
        offset += frame.bytes;
    }
    assert(offset == batch->size);
}

static void producer_keep(struct journal_producer *producer, struct journal_batch *batch)
{
    if (batch->capacity > PRODUCER_KEEP_BYTES || producer->unused_count == PRODUCER_UNUSED_MAX) {
        batch_free(batch);
        return;
    }
    batch->next = producer->unused;
    producer->unused = batch;
    producer->unused_count++;
}

/* Runs the tickets; the batch is then unused or gone. */
static void producer_settle(struct journal_producer *producer, struct journal_batch *batch)
{
    /* The batch may be filled again by a ticket; what the tickets need is kept aside. */
    struct journal_batch done = *batch;
    if (done.err != ERR_OK || done.outcomes != NULL) {
        batch_give_back(producer->journal, batch, false);
    }
    producer->pool_bytes -= batch->size;
    batch->outcomes = NULL;
    producer_keep(producer, batch);
    struct journal_ticket *ticket = done.first;
    for (uint32_t i = 0; ticket != NULL; i++) {
        struct journal_ticket *next = ticket->next; /* the ticket may go with its callback */
        uint64_t position;
        enum err err = batch_outcome(&done, i, &position);
        ticket->on_durable(ticket, err, err == ERR_OK ? position : 0);
        ticket = next;
    }
    mem_free(done.outcomes);
}

void journal_producer_destroy(struct journal_producer *producer)
{
    if (producer == NULL) {
        return;
    }
    /* What is on the way is the committer's: the owner takes its mail first. */
    assert(producer->in_flight == 0 && producer->uploads == 0);
    struct journal_batch *batch;
    while ((batch = journal_batch_list_take(&producer->ready)) != NULL) {
        batch_give_back(producer->journal, batch, true);
        batch_free(batch);
    }
    if (producer->open != NULL) {
        batch_give_back(producer->journal, producer->open, true);
        batch_free(producer->open);
    }
    while ((batch = producer->unused) != NULL) {
        producer->unused = batch->next;
        batch_free(batch);
    }
    mem_free(producer);
}

static void producer_post_ready(struct journal_producer *producer);

/* Back from the committer, with all of this producer that were in the same commit. */
static void producer_on_batch(struct mail *mail)
{
    struct journal_batch *batch = LIST_CONTAINER(mail, struct journal_batch, mail);
    struct journal_producer *producer = batch->producer;
    while (batch != NULL) {
        struct journal_batch *after = batch->after;
        producer->in_flight--;
        producer_settle(producer, batch);
        batch = after;
    }
    producer_post_ready(producer);
}

void journal_batch_return(struct journal_batch *batch)
{
    batch->mail.on_arrive = producer_on_batch;
    mailbox_answer(batch->producer->mailbox, &batch->mail);
}

static void committer_on_batch(struct mail *mail)
{
    struct journal_batch *batch = LIST_CONTAINER(mail, struct journal_batch, mail);
    journal_batch_list_push(&batch->producer->journal->committer.pending, batch);
}

static void producer_post_ready(struct journal_producer *producer)
{
    while (producer->ready.first != NULL && producer->in_flight < JOURNAL_BATCHES_MAX) {
        struct journal_batch *batch = journal_batch_list_take(&producer->ready);
        batch->mail.on_arrive = committer_on_batch;
        producer->in_flight++;
        enum err err = mailbox_post(producer->journal->committer_mailbox, &batch->mail);
        if (err != ERR_OK) {
            assert(err == ERR_CLOSED); /* it holds all batches that may be on the way */
            producer->in_flight--;
            batch->err = ERR_DRAINING;
            producer_settle(producer, batch);
        }
    }
}

void journal_submit(struct journal_producer *producer)
{
    if (producer->open != NULL) {
        journal_batch_list_push(&producer->ready, producer->open);
        producer->open = NULL;
    }
    producer_post_ready(producer);
}

static struct journal_batch *producer_take_unused(struct journal_producer *producer)
{
    struct journal_batch *batch = producer->unused;
    if (batch != NULL) {
        producer->unused = batch->next;
        producer->unused_count--;
    } else {
        batch = mem_alloc(sizeof(*batch));
    }
    batch->producer = producer;
    batch->next = NULL;
    batch->after = NULL;
    batch->size = 0;
    batch->frame_count = 0;
    batch->record_count = 0;
    batch->first = NULL;
    batch->last = &batch->first;
    batch->err = ERR_OK;
    batch->outcomes = NULL;
    return batch;
}

/* An open batch with room for `size` bytes. */
static enum err producer_reserve(struct journal_producer *producer, size_t size)
{
    if (producer->pool_bytes + size > PRODUCER_POOL_BYTES) {
        return ERR_FULL;
    }
    if (producer->open != NULL && producer->open->size + size > producer->batch_bytes) {
        journal_batch_list_push(&producer->ready, producer->open);
        producer->open = NULL;
    }
    if (producer->open == NULL) {
        producer->open = producer_take_unused(producer);
    }
    struct journal_batch *batch = producer->open;
    if (batch->size + size <= batch->capacity) {
        return ERR_OK;
    }
    size_t capacity = batch->capacity == 0 ? PRODUCER_FIRST_BYTES : 2 * batch->capacity;
    while (capacity < batch->size + size) {
        capacity *= 2;
    }
    capacity = capacity < producer->batch_bytes ? capacity : producer->batch_bytes;
    uint8_t *bytes = mem_try_realloc(batch->bytes, capacity);
    if (bytes == NULL) {
        return ERR_NO_MEMORY;
    }
    batch->bytes = bytes;
    batch->capacity = capacity;
    return ERR_OK;
}

uint64_t journal_parts_bytes(const struct journal_frame_parts *parts)
{
    return journal_frame_size(parts->head.size + parts->body.size);
}

enum err journal_append(struct journal_producer *producer, const struct journal_frame_parts *parts,
                        struct journal_ticket *ticket)
{
    struct journal *journal = producer->journal;
    if (atomic_load_explicit(&journal->is_draining, memory_order_relaxed)) {
        return ERR_DRAINING;
    }
    if (parts->head.size > LIMIT_FRAME_BYTES ||
        parts->body.size > LIMIT_FRAME_BYTES - parts->head.size) {
        return ERR_TOO_LARGE;
    }
    uint64_t size = journal_parts_bytes(parts);
    enum err err = journal_room_take(&journal->room, parts->org, size);
    if (err != ERR_OK) {
        return err;
    }
    err = journal_append_charged(producer, parts, ticket);
    if (err != ERR_OK) {
        journal_room_give(&journal->room, parts->org, size);
    }
    return err;
}

enum err journal_append_charged(struct journal_producer *producer,
                                const struct journal_frame_parts *parts,
                                struct journal_ticket *ticket)
{
    size_t size = (size_t)journal_parts_bytes(parts);
    enum err err = producer_reserve(producer, size);
    if (err != ERR_OK) {
        return err;
    }
    struct journal_batch *batch = producer->open;
    journal_frame_encode(parts, batch->bytes + batch->size);
    batch->size += size;
    batch->frame_count++;
    producer->pool_bytes += size;
    ticket->next = NULL;
    *batch->last = ticket;
    batch->last = &ticket->next;
    return ERR_OK;
}
