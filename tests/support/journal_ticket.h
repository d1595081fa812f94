/* Journal ticket: what the journal answers to an append, kept until a test asks.
 *
 * Thread: the producer's.
 * Memory: the caller's; it stays until the ticket is answered.
 * Errors: a ticket that is answered twice fails the test. */
#pragma once
#include "journal/journal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct ticket {
    struct journal_ticket ticket;
    uint64_t position;
    enum err err;
    bool is_answered;
};

static inline void ticket_on_durable(struct journal_ticket *ticket, enum err err, uint64_t position)
{
    struct ticket *mine = LIST_CONTAINER(ticket, struct ticket, ticket);
    assert_false(mine->is_answered);
    mine->is_answered = true;
    mine->err = err;
    mine->position = position;
}

/* Not answered yet. */
static inline struct ticket ticket_make(void)
{
    return (struct ticket){.ticket = {.on_durable = ticket_on_durable}};
}

/* `loop` is the mailbox of the ticket's producer. */
static inline void ticket_wait(const struct ticket *ticket, struct mailbox *loop)
{
    while (!ticket->is_answered) {
        mailbox_wait(loop, -1);
        (void)mailbox_run_all(loop);
    }
}
