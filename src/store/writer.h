/* Writer: the one thread that writes. Jobs of three priorities become transactions.
 *
 * Thread: run: the writer's. post, durable_commit, health: any.
 * Memory: owns its connection; jobs are their poster's.
 * Errors: ERR_FULL the queue of this priority is full; ERR_CLOSED after stop. */
#pragma once
#include "store/backend.h"

struct store_checkpointer;
struct store_writer;

/* Takes the connection. */
MUST_CHECK enum err store_writer_create(struct store_writer **ret,
                                        struct store_connection *connection, uint32_t queue_max);
/* Before its thread starts: checkpoints are prepared by it. It must outlive the thread. */
void store_writer_use(struct store_writer *writer, struct store_checkpointer *checkpointer);
/* Before its thread starts: its apply jobs give way to what waits at `main`. */
void store_writer_yield_to(struct store_writer *writer, struct store_writer *main);
/* Closes the connection. NULL is fine. */
void store_writer_destroy(struct store_writer *writer);
void store_writer_work(struct store_writer *writer);
void store_writer_stop(struct store_writer *writer);
MUST_CHECK enum err store_writer_post(struct store_writer *writer, struct store_job *job);
MUST_CHECK enum err store_writer_run_here(struct store_writer *writer, struct store_job *job);
uint64_t store_writer_durable_commit(const struct store_writer *writer);
enum err store_writer_health(const struct store_writer *writer);
