/* Mailbox: a list under a short lock, and an eventfd that says "not empty any more".
 *
 * Happy path: post links the mail at the end; if the list was empty it writes 1 to the eventfd. The
 * owner wakes, drains the eventfd, then takes the whole list. Draining comes first: a wake that
 * falls between the two is for mail that is taken now, and only causes one more look; the other way
 * round it could be lost.
 *
 * A system call per look is saved by counting: each write adds 1 to the eventfd and is announced in
 * wakes_sent before it is made, so the owner reads the eventfd only when it has drained fewer.
 *
 * Closing is no mail, so its wake would be lost to an owner who drains it between asking whether it
 * is closed and going to sleep: a closed mailbox is made readable again by each look.
 *
 * Failure modes: the mailbox holds `capacity` posted mails (ERR_FULL) or is closed (ERR_CLOSED).
 * Answers are counted to nobody: their number is bounded by the requests that they answer. */
#include "base/mailbox.h"

#include "base/mem.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct mailbox {
    pthread_mutex_t lock; /* guards first, last, posted, is_closed */
    struct mail *first;
    struct mail **last; /* where the next mail is linked */
    uint32_t posted;    /* mails in the list that came by post */
    uint32_t capacity;
    bool is_closed;
    int fd;
    /* Relaxed add before the write of the eventfd pairs with the relaxed load before its read: an
     * old value only delays draining to the next look, and the eventfd stays readable. */
    atomic_uint_fast64_t wakes_sent;
    uint64_t wakes_drained; /* the owner's */
};

enum err mailbox_create(struct mailbox **ret, uint32_t capacity)
{
    assert(capacity > 0);
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    struct mailbox *mailbox = mem_alloc(sizeof(*mailbox));
    int result = pthread_mutex_init(&mailbox->lock, NULL);
    assert(result == 0);
    mailbox->last = &mailbox->first;
    mailbox->capacity = capacity;
    mailbox->fd = fd;
    *ret = mailbox;
    return ERR_OK;
}

void mailbox_destroy(struct mailbox *mailbox)
{
    if (mailbox == NULL) {
        return;
    }
    (void)close(mailbox->fd); /* an eventfd has nothing to lose */
    int result = pthread_mutex_destroy(&mailbox->lock);
    assert(result == 0);
    mem_free(mailbox);
}

static void mailbox_enter(struct mailbox *mailbox)
{
    int result = pthread_mutex_lock(&mailbox->lock);
    assert(result == 0);
}

static void mailbox_leave(struct mailbox *mailbox)
{
    int result = pthread_mutex_unlock(&mailbox->lock);
    assert(result == 0);
}

/* Under the lock; true when the owner must be woken. */
static bool mailbox_link(struct mailbox *mailbox, struct mail *mail)
{
    bool was_empty = mailbox->first == NULL;
    mail->next = NULL;
    *mailbox->last = mail;
    mailbox->last = &mail->next;
    return was_empty;
}

void mailbox_wake(struct mailbox *mailbox)
{
    static const uint64_t one = 1;
    atomic_fetch_add_explicit(&mailbox->wakes_sent, 1, memory_order_relaxed);
    ssize_t written;
    do {
        written = write(mailbox->fd, &one, sizeof(one));
    } while (written < 0 && errno == EINTR);
    /* EAGAIN would need 2^64 - 2 wakes that nobody drained. */
    assert(written == (ssize_t)sizeof(one));
}

enum err mailbox_post(struct mailbox *mailbox, struct mail *mail)
{
    enum err err = ERR_OK;
    bool must_wake = false;
    assert(mail->on_arrive != NULL);
    mailbox_enter(mailbox);
    if (mailbox->is_closed) {
        err = ERR_CLOSED;
    } else if (mailbox->posted == mailbox->capacity) {
        err = ERR_FULL;
    } else {
        mailbox->posted++;
        must_wake = mailbox_link(mailbox, mail);
    }
    mailbox_leave(mailbox);
    if (must_wake) {
        mailbox_wake(mailbox);
    }
    return err;
}

void mailbox_answer(struct mailbox *mailbox, struct mail *mail)
{
    assert(mail->on_arrive != NULL);
    mailbox_enter(mailbox);
    bool must_wake = mailbox_link(mailbox, mail);
    mailbox_leave(mailbox);
    if (must_wake) {
        mailbox_wake(mailbox);
    }
}

void mailbox_close(struct mailbox *mailbox)
{
    mailbox_enter(mailbox);
    mailbox->is_closed = true;
    mailbox_leave(mailbox);
    mailbox_wake(mailbox);
}

bool mailbox_is_closed(struct mailbox *mailbox)
{
    mailbox_enter(mailbox);
    bool is_closed = mailbox->is_closed;
    mailbox_leave(mailbox);
    return is_closed;
}

static void mailbox_drain_wakes(struct mailbox *mailbox)
{
    uint64_t sent = atomic_load_explicit(&mailbox->wakes_sent, memory_order_relaxed);
    if (sent == mailbox->wakes_drained) {
        return;
    }
    uint64_t count;
    ssize_t got;
    do {
        got = read(mailbox->fd, &count, sizeof(count));
    } while (got < 0 && errno == EINTR);
    if (got == (ssize_t)sizeof(count)) {
        mailbox->wakes_drained += count;
    } else {
        assert(errno == EAGAIN); /* announced and not yet written */
    }
}

struct mail *mailbox_take_all(struct mailbox *mailbox)
{
    mailbox_drain_wakes(mailbox);
    mailbox_enter(mailbox);
    struct mail *first = mailbox->first;
    mailbox->first = NULL;
    mailbox->last = &mailbox->first;
    mailbox->posted = 0;
    bool is_closed = mailbox->is_closed;
    mailbox_leave(mailbox);
    if (is_closed) {
        mailbox_wake(mailbox);
    }
    return first;
}

uint32_t mailbox_run_all(struct mailbox *mailbox)
{
    uint32_t count = 0;
    struct mail *mail = mailbox_take_all(mailbox);
    while (mail != NULL) {
        struct mail *next = mail->next; /* running a mail may free it or post it again */
        mail->next = NULL;
        mail->on_arrive(mail);
        mail = next;
        count++;
    }
    return count;
}

int mailbox_fd(const struct mailbox *mailbox)
{
    return mailbox->fd;
}

void mailbox_wait(struct mailbox *mailbox, int timeout_ms)
{
    struct pollfd readable = {.fd = mailbox->fd, .events = POLLIN};
    int result = poll(&readable, 1, timeout_ms);
    /* EINTR ends the sleep early, which every caller's loop takes as a wake without mail. */
    assert(result >= 0 || errno == EINTR);
}
