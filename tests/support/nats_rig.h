/* NATS rig: a journal in a stream of a real nats-server of its own, with its threads, one producer
 * and one subscriber.
 *
 * Thread: the test's.
 * Memory: the struct and its tickets are the caller's; finish stops the server and removes all.
 * Errors: a failing step fails the test. */
#pragma once
#include "base/mailbox.h"
#include "base/thread.h"
#include "journal/journal.h"
#include "support/nats_server.h"

struct nats_rig {
    struct nats_server server;
    char root[64];
    char directory[96];
    char uploads[96];
    struct journal_options options;
    struct journal *journal;
    struct journal_producer *producer;
    struct mailbox *loop;  /* the producer's */
    struct mailbox *apply; /* the subscriber's */
    struct thread *threads[3];
};

struct nats_ticket {
    struct journal_ticket ticket;
    uint64_t position;
    enum err err;
    bool is_answered;
};

/* A stream "test" of run 7; options may be changed between close and open. */
void nats_rig_init(struct nats_rig *rig);
void nats_rig_open(struct nats_rig *rig);
void nats_rig_stop(struct nats_rig *rig);
void nats_rig_close(struct nats_rig *rig);
void nats_rig_finish(struct nats_rig *rig);

/* Of a nats_ticket. */
void nats_rig_on_durable(struct journal_ticket *ticket, enum err err, uint64_t position);
/* An event of org 5 with 4 + number % 300 bytes; each third is of several lanes. */
enum err nats_rig_append(struct nats_rig *rig, struct nats_ticket *ticket, uint32_t number);
void nats_rig_wait(struct nats_rig *rig, const struct nats_ticket *ticket);
/* Appends frames numbered from `first` on, seven at a time, and waits for all of them. */
void nats_rig_append_many(struct nats_rig *rig, struct nats_ticket *tickets, uint32_t first,
                          uint32_t count);
/* The next frame's number; its position must be `position`. It is applied then. */
uint32_t nats_rig_read(struct nats_rig *rig, struct journal_reader *reader, uint64_t position);
/* In the stream. */
uint64_t nats_rig_messages(const struct nats_rig *rig, const char *stream);

/* The copy of a damaged message, which must be there; the directory, with nothing left in it. */
void nats_rig_remove_copy(const struct nats_rig *rig, uint64_t sequence);
void nats_rig_remove_quarantine(const struct nats_rig *rig);
