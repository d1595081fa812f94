/* The checkpointer's thread: passes asked for by the writer, one at a time.
 *
 * Why a thread: a checkpoint writes and syncs megabytes. On the writer's thread, control jobs would
 * wait for it; at full speed, the journal's syncs would wait behind it in the disk's queue. Here it
 * goes in small synced steps with a pause after each, which a hurry or the stop ends.
 *
 * Happy path: post -> the pass -> the answer by the writer's mailbox.
 * Failure modes: the engine cannot (a reader holds an old snapshot, I/O error): the pass ends early
 * and the writer's own checkpoint, which is told of it, meets the same. */
#include "store/checkpointer.h"

#include "base/mem.h"
#include "base/thread.h"

#include <assert.h>

#define PAUSE_MS 5

struct store_checkpointer {
    struct mail mail; /* of the pass in hand */
    struct store_connection *connection;
    struct mailbox *mailbox;
    struct mailbox *reply_to;
    void (*on_done)(void *owner, enum err err);
    void *owner;
    enum err err;           /* of the pass */
    atomic_bool is_running; /* release by work, acquire in post */
    atomic_bool must_hurry; /* relaxed: the mailbox's wake orders it */
};

static struct store_checkpointer *from_mail(struct mail *mail)
{
    return (struct store_checkpointer *)(void *)mail; /* its first member */
}
static_assert(offsetof(struct store_checkpointer, mail) == 0, "found by its mail");

static void on_answer(struct mail *mail)
{
    struct store_checkpointer *c = from_mail(mail);
    c->on_done(c->owner, c->err);
}

static void pause_between(void *owner)
{
    struct store_checkpointer *c = owner;
    if (!atomic_load_explicit(&c->must_hurry, memory_order_relaxed)) {
        mailbox_wait(c->mailbox, PAUSE_MS);
    }
}

static void on_arrive(struct mail *mail)
{
    struct store_checkpointer *c = from_mail(mail);
    c->err = c->connection->backend->checkpoint_beside(c->connection, pause_between, c);
    mail->on_arrive = on_answer;
    mailbox_answer(c->reply_to, mail);
}

enum err store_checkpointer_create(struct store_checkpointer **ret,
                                   struct store_connection *connection)
{
    struct store_checkpointer *c = mem_alloc(sizeof(*c));
    enum err err = mailbox_create(&c->mailbox, 1);
    if (err != ERR_OK) {
        mem_free(c);
        return err;
    }
    c->connection = connection;
    *ret = c;
    return ERR_OK;
}

void store_checkpointer_destroy(struct store_checkpointer *checkpointer)
{
    if (checkpointer != NULL) {
        checkpointer->connection->backend->close(checkpointer->connection);
        mailbox_destroy(checkpointer->mailbox);
        mem_free(checkpointer);
    }
}

void store_checkpointer_work(struct store_checkpointer *checkpointer)
{
    thread_lower_priority();
    atomic_store_explicit(&checkpointer->is_running, true, memory_order_release);
    for (;;) {
        mailbox_wait(checkpointer->mailbox, -1);
        bool is_closed = mailbox_is_closed(checkpointer->mailbox);
        if (mailbox_run_all(checkpointer->mailbox) == 0 && is_closed) {
            return;
        }
    }
}

void store_checkpointer_stop(struct store_checkpointer *checkpointer)
{
    mailbox_close(checkpointer->mailbox);
}

bool store_checkpointer_post(struct store_checkpointer *checkpointer, struct mailbox *reply_to,
                             void (*on_done)(void *owner, enum err err), void *owner)
{
    if (!atomic_load_explicit(&checkpointer->is_running, memory_order_acquire)) {
        return false;
    }
    checkpointer->reply_to = reply_to;
    checkpointer->on_done = on_done;
    checkpointer->owner = owner;
    checkpointer->mail.on_arrive = on_arrive;
    atomic_store_explicit(&checkpointer->must_hurry, false, memory_order_relaxed);
    return mailbox_post(checkpointer->mailbox, &checkpointer->mail) == ERR_OK;
}

void store_checkpointer_hurry(struct store_checkpointer *checkpointer)
{
    atomic_store_explicit(&checkpointer->must_hurry, true, memory_order_relaxed);
    mailbox_wake(checkpointer->mailbox);
}
