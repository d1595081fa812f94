/* Checkpointer: copies what was committed to its final place beside the writer, slowly, so that
 * neither jobs nor the journal's syncs wait for it. What it does is only preparation: the writer's
 * own checkpoint, which follows, finds little left and decides what is durable.
 *
 * Thread: work: its own. post, hurry: the writer's. stop: any.
 * Memory: owns its connection.
 * Errors: a pass that fails leaves everything to the writer's checkpoint, which says so. What it
 * may have lost is for the writer to copy again. */
#pragma once
#include "store/backend.h"

struct store_checkpointer;

/* Takes the connection. */
MUST_CHECK enum err store_checkpointer_create(struct store_checkpointer **ret,
                                              struct store_connection *connection);
/* Closes the connection. NULL is fine. */
void store_checkpointer_destroy(struct store_checkpointer *checkpointer);
void store_checkpointer_work(struct store_checkpointer *checkpointer);
void store_checkpointer_stop(struct store_checkpointer *checkpointer);
/* One pass; then on_done(owner) runs on the thread of reply_to, with the pass's error. One at a
 * time. False: its thread does not run (commands, start, stop). */
bool store_checkpointer_post(struct store_checkpointer *checkpointer, struct mailbox *reply_to,
                             void (*on_done)(void *owner, enum err err), void *owner);
/* The pass in hand pauses no more. */
void store_checkpointer_hurry(struct store_checkpointer *checkpointer);
