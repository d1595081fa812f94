/* A reader: takes jobs from its mailbox, one read transaction each.
 *
 * Happy path: begin, run, end; the answer goes to the poster's mailbox.
 * Failure modes: a job above its time is interrupted inside a statement and gives ERR_TIMEOUT; the
 * next one starts afresh. A server that goes while a job is under way, a replica most of all: a job
 * that can begin anew does, once, on whichever server there is then. A database that cannot be read
 * gives the error to the job. */
#include "store/reader.h"

#include "base/clock.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>

struct store_reader {
    struct store_connection *connection;
    struct mailbox *mailbox;
    uint64_t timeout_ns;
    atomic_uint_least32_t load; /* relaxed on both sides: a hint for who posts */
};

static void on_answer(struct mail *mail)
{
    struct store_job *job = (struct store_job *)mail;
    job->on_done(job);
}

static bool run(struct store_reader *reader, struct store_job *job)
{
    const struct store_backend *backend = reader->connection->backend;
    job->err = backend->begin_read(reader->connection);
    bool has_begun = job->err == ERR_OK;
    if (has_begun) {
        job->err = job->run(job, reader->connection);
    }
    backend->rollback(reader->connection);
    return has_begun;
}

static void on_arrive(struct mail *mail)
{
    struct store_job *job = (struct store_job *)mail;
    struct store_reader *reader = job->reader;
    const struct store_backend *backend = reader->connection->backend;
    uint64_t from = clock_mono_ns();
    reader->connection->began_ns = from;
    backend->job_begin(reader->connection, reader->timeout_ns == 0 ? 0 : from + reader->timeout_ns);
    if (run(reader, job) && job->err == ERR_AWAY && job->repeats) {
        (void)run(reader, job);
    }
    backend->job_end(reader->connection);
    if (job->err == ERR_TIMEOUT) {
        metrics_add(METRIC_QUERY_TIMEOUTS, 1);
    }
    metrics_observe(METRIC_DB_READ_LATENCY, clock_mono_ns() - from);
    (void)atomic_fetch_sub_explicit(&reader->load, 1, memory_order_relaxed);
    job->reader = NULL;
    job->mail.on_arrive = on_answer;
    if (job->reply_to != NULL) {
        mailbox_answer(job->reply_to, &job->mail);
    } else {
        on_answer(&job->mail);
    }
}

enum err store_reader_create(struct store_reader **ret, struct store_connection *connection,
                             uint32_t queue_max, uint32_t timeout_ms)
{
    struct store_reader *reader = mem_alloc(sizeof(*reader));
    enum err err = mailbox_create(&reader->mailbox, queue_max);
    if (err != ERR_OK) {
        mem_free(reader);
        return err;
    }
    reader->connection = connection;
    reader->timeout_ns = timeout_ms * 1000000ull;
    *ret = reader;
    return ERR_OK;
}

void store_reader_destroy(struct store_reader *reader)
{
    if (reader != NULL) {
        reader->connection->backend->close(reader->connection);
        mailbox_destroy(reader->mailbox);
        mem_free(reader);
    }
}

void store_reader_work(struct store_reader *reader)
{
    for (;;) {
        int wait_ms = -1;
        (void)reader->connection->backend->rest(reader->connection, &wait_ms); /* the job tells */
        mailbox_wait(reader->mailbox, wait_ms);
        bool is_closed = mailbox_is_closed(reader->mailbox);
        if (mailbox_run_all(reader->mailbox) == 0 && is_closed) {
            return;
        }
    }
}

void store_reader_stop(struct store_reader *reader)
{
    mailbox_close(reader->mailbox);
}

enum err store_reader_post(struct store_reader *reader, struct store_job *job)
{
    assert(job->run != NULL && job->on_done != NULL);
    job->reader = reader;
    job->mail.on_arrive = on_arrive;
    (void)atomic_fetch_add_explicit(&reader->load, 1, memory_order_relaxed);
    enum err err = mailbox_post(reader->mailbox, &job->mail);
    if (err != ERR_OK) {
        (void)atomic_fetch_sub_explicit(&reader->load, 1, memory_order_relaxed);
    }
    return err;
}

uint32_t store_reader_load(const struct store_reader *reader)
{
    return atomic_load_explicit(&reader->load, memory_order_relaxed);
}
