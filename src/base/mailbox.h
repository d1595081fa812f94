/* Mailbox: the only place where threads meet.
 *
 * A mail is a node inside a larger message; what is to be done with it is its function. So every
 * thread's loop is the same: wait, take all, run each.
 *
 * Thread: post and answer from any thread; take, wait and fd belong to the owner.
 * Memory: post moves ownership of the mail on success; the poster sets its pointer to NULL.
 *         A mailbox never frees a mail.
 * Errors: post gives ERR_FULL at the capacity (back pressure) and ERR_CLOSED after close; the
 *         mail is then still the caller's. answer cannot fail: it is for the reply to a request,
 *         whose node came with the request, so the count is bounded by what was asked. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct mail {
    struct mail *next;                    /* the mailbox's, while posted */
    void (*on_arrive)(struct mail *mail); /* runs on the owner's thread; owns the mail */
};

struct mailbox;

MUST_CHECK enum err mailbox_create(struct mailbox **ret, uint32_t capacity);
/* NULL is fine. Must be empty of mail that owns anything. */
void mailbox_destroy(struct mailbox *mailbox);

/* Wakes the owner only if the mailbox was empty. */
MUST_CHECK enum err mailbox_post(struct mailbox *mailbox, struct mail *mail);
void mailbox_answer(struct mailbox *mailbox, struct mail *mail);
/* Later posts give ERR_CLOSED; answers still arrive. Wakes the owner, whose waits never sleep
 * again: it ends when it has seen that the mailbox is closed. */
void mailbox_close(struct mailbox *mailbox);
/* Wakes the owner without a mail (a flag that it looks at has changed). */
void mailbox_wake(struct mailbox *mailbox);

/* Everything posted so far, first posted first, linked by next; NULL when empty. */
struct mail *mailbox_take_all(struct mailbox *mailbox);
/* Takes all and runs each; gives how many. */
uint32_t mailbox_run_all(struct mailbox *mailbox);
/* Readable when there is mail: for an epoll set. */
int mailbox_fd(const struct mailbox *mailbox);
/* Sleeps until there is mail or a wake, at most timeout_ms (-1: no limit). */
void mailbox_wait(struct mailbox *mailbox, int timeout_ms);
bool mailbox_is_closed(struct mailbox *mailbox);
