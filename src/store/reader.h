/* Reader: a thread that makes pages of answers, each in a snapshot of its own.
 *
 * Thread: run: the reader's. post, load: any.
 * Memory: owns its connection; jobs are their poster's.
 * Errors: ERR_FULL the queue is full; ERR_CLOSED after stop; ERR_TIMEOUT in a job. */
#pragma once
#include "store/backend.h"

struct store_reader;

/* Takes the connection. */
MUST_CHECK enum err store_reader_create(struct store_reader **ret,
                                        struct store_connection *connection, uint32_t queue_max,
                                        uint32_t timeout_ms);
/* Closes the connection. NULL is fine. */
void store_reader_destroy(struct store_reader *reader);
void store_reader_work(struct store_reader *reader);
void store_reader_stop(struct store_reader *reader);
MUST_CHECK enum err store_reader_post(struct store_reader *reader, struct store_job *job);
/* Jobs posted and not yet done. */
uint32_t store_reader_load(const struct store_reader *reader);
