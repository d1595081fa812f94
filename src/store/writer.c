/* The writer: makes transactions of jobs.
 *
 * Jobs come by one mailbox and wait in three lists. A round is: one transaction of whatever control
 * and results jobs wait (each in a savepoint, so that one's error undoes nothing of another's),
 * committed with FULL when one of them asks for it; then one apply job in a transaction of its own.
 * So control jobs share their sync, and neither side can starve the other.
 *
 * No transaction is longer than STORE_TRANSACTION_MS while something of higher priority waits: a
 * group closes at that age, and an apply job that is asked to give way fails and comes back
 * smaller.
 *
 * Checkpoints belong to nobody's transaction: one begins when nothing is queued and the WAL has
 * some size or a commit was not durable for two seconds, when the WAL has much, and when nothing
 * has happened for a moment. The checkpointer's thread does most of it beside the writer, in
 * passes: one after the other as long as much was committed meanwhile, without pauses when the WAL
 * has much. The writer ends it, which takes milliseconds. At the WAL's bound apply jobs wait
 * meanwhile, the others do not.
 *
 *               +-- NEXT <-- much was committed meanwhile --+
 *               v                                           |
 *   NONE -- due --> BESIDE -- the checkpointer's answer ----+--> LAST -- the writer's own --> NONE
 *     |                                                            ^
 *     +----- no checkpointer's thread runs: all of it here --------+
 *
 * `durable_commit` follows the writer's own checkpoints and the FULL commits; who deletes what the
 * store can no longer lose asks for it.
 *
 * Happy path: post -> list -> begin, run, commit -> the answer goes to the poster's mailbox.
 * Failure modes: the database is away (locked by another process, disk full, I/O error): the jobs
 * of the round get the error and their owners try again; health says so, and an idle writer probes
 * once a second, so it recovers by itself. */
#include "store/writer.h"

#include "store/checkpointer.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/metrics.h"

#include <assert.h>
#include <sched.h>

#define GROUP_JOBS_MAX         256u
#define CHECKPOINT_QUIET_BYTES (8u << 20u)   /* when nothing is queued */
#define CHECKPOINT_HURRY_BYTES (128u << 20u) /* always, and without pauses */
#define CHECKPOINT_BOUND_BYTES (384u << 20u) /* apply waits for it */
#define CHECKPOINT_LAST_BYTES  (8u << 20u)   /* what the writer moves himself */
#define CHECKPOINT_AGAIN_BYTES (8u << 20u)   /* growth before an incomplete one is tried again */
#define SETTLE_NS              (2000u * 1000000ull) /* a commit is durable by then */
#define IDLE_MS                300
#define PROBE_MS               1000

struct job_list {
    struct store_job *first; /* linked by mail.next */
    struct store_job *last;
};

enum checkpoint_state { CHECKPOINT_NONE, CHECKPOINT_BESIDE, CHECKPOINT_NEXT, CHECKPOINT_LAST };

struct store_writer {
    struct store_connection *connection;
    struct store_checkpointer *checkpointer; /* NULL: none */
    enum checkpoint_state checkpoint;
    struct mailbox *mailbox;
    uint32_t queue_max;
    struct store_waiting waiting;
    struct job_list lists[STORE_PRIORITIES];
    uint64_t commits;       /* number of the last one */
    uint64_t stuck_bytes;   /* what the last checkpoint could not move, and some growth */
    int rest_ms;            /* when the connection wants to be looked after; -1: never */
    uint64_t unsettled_ns;  /* since when a power cut could take a commit back; 0: it cannot */
    atomic_flag is_owned;   /* acquire: the connection is mine; release: it is free */
    atomic_bool is_running; /* release in run, acquire in run_here */
    atomic_uint_least64_t durable_commit; /* release here, acquire by who deletes */
    atomic_int health;                    /* relaxed: a value for people */
};

static struct store_job *job_from(struct mail *mail)
{
    return (struct store_job *)mail; /* its first member */
}
static_assert(offsetof(struct store_job, mail) == 0, "a job is found by its mail");

static void list_push(struct job_list *list, struct store_job *job)
{
    job->mail.next = NULL;
    if (list->last == NULL) {
        list->first = job;
    } else {
        list->last->mail.next = &job->mail;
    }
    list->last = job;
}

static struct store_job *list_pop(struct job_list *list)
{
    struct store_job *job = list->first;
    if (job != NULL) {
        list->first = job->mail.next == NULL ? NULL : job_from(job->mail.next);
        list->last = list->first == NULL ? NULL : list->last;
    }
    return job;
}

static void on_arrive(struct mail *mail)
{
    struct store_job *job = job_from(mail);
    list_push(&job->writer->lists[job->priority], job);
}

static void on_answer(struct mail *mail)
{
    struct store_job *job = job_from(mail);
    job->on_done(job);
}

static void answer(struct store_job *job)
{
    job->writer = NULL;
    job->mail.on_arrive = on_answer;
    if (job->reply_to != NULL) {
        mailbox_answer(job->reply_to, &job->mail);
    } else {
        on_answer(&job->mail);
    }
}

enum err store_writer_create(struct store_writer **ret, struct store_connection *connection,
                             uint32_t queue_max)
{
    struct store_writer *w = mem_alloc(sizeof(*w));
    enum err err = mailbox_create(&w->mailbox, queue_max * STORE_PRIORITIES);
    if (err != ERR_OK) {
        mem_free(w);
        return err;
    }
    w->connection = connection;
    w->queue_max = queue_max;
    connection->waiting = &w->waiting;
    atomic_flag_clear(&w->is_owned);
    *ret = w;
    return ERR_OK;
}

static void set_health(struct store_writer *w, enum err err)
{
    int before = atomic_exchange_explicit(&w->health, (int)err, memory_order_relaxed);
    if (err != ERR_OK && before == ERR_OK) {
        log_write(LOG_WARN, "store", "writing fails, will be tried again: %s (%s)", err_text(err),
                  w->connection->backend->error_text(w->connection));
    } else if (err == ERR_OK && before != ERR_OK) {
        log_write(LOG_INFO, "store", "writing works again");
    }
}

static void look_whether_durable(struct store_writer *w)
{
    if (w->connection->backend->is_durable(w->connection)) {
        atomic_store_explicit(&w->durable_commit, w->commits, memory_order_release);
        w->unsettled_ns = 0;
    } else if (w->unsettled_ns == 0) {
        w->unsettled_ns = clock_mono_ns();
    }
}

static void checkpoint(struct store_writer *w)
{
    const struct store_backend *backend = w->connection->backend;
    bool is_complete = false;
    uint64_t from = clock_mono_ns();
    enum err err = backend->checkpoint(w->connection, &is_complete);
    metrics_observe(METRIC_DB_CHECKPOINT_LATENCY, clock_mono_ns() - from);
    w->stuck_bytes = 0;
    w->unsettled_ns = 0; /* an incomplete one is not late again at once */
    look_whether_durable(w);
    if (err != ERR_OK || !is_complete) {
        w->stuck_bytes = backend->checkpoint_bytes(w->connection) + CHECKPOINT_AGAIN_BYTES;
        if (err != ERR_OK && err != ERR_BUSY) {
            set_health(w, err);
        }
    }
}

static bool has_grown(const struct store_writer *w, uint64_t bytes)
{
    return w->connection->backend->checkpoint_bytes(w->connection) >= w->stuck_bytes + bytes;
}

/* What was committed meanwhile is moved by another pass, if it is much. */
static void on_beside(void *owner, enum err err)
{
    struct store_writer *w = owner;
    bool is_again = err == ERR_OK && has_grown(w, CHECKPOINT_LAST_BYTES);
    w->checkpoint = is_again ? CHECKPOINT_NEXT : CHECKPOINT_LAST;
    if (err != ERR_OK && err != ERR_BUSY) {
        w->connection->backend->doubt(w->connection);
    }
}

static void checkpoint_begin(struct store_writer *w)
{
    bool is_beside = w->checkpointer != NULL &&
                     store_checkpointer_post(w->checkpointer, w->mailbox, on_beside, w);
    w->checkpoint = is_beside ? CHECKPOINT_BESIDE : CHECKPOINT_LAST;
}

static bool has_urgent(const struct store_writer *w)
{
    return w->lists[STORE_CONTROL].first != NULL || w->lists[STORE_RESULTS].first != NULL;
}

/* Jobs that may run now. */
static bool has_jobs(const struct store_writer *w)
{
    bool apply_waits = w->checkpoint == CHECKPOINT_BESIDE && has_grown(w, CHECKPOINT_BOUND_BYTES);
    return has_urgent(w) || (w->lists[STORE_APPLY].first != NULL && !apply_waits);
}

static bool is_checkpoint_due(const struct store_writer *w)
{
    bool is_late = w->unsettled_ns != 0 && clock_mono_ns() - w->unsettled_ns > SETTLE_NS;
    return has_grown(w, CHECKPOINT_HURRY_BYTES) ||
           ((has_grown(w, CHECKPOINT_QUIET_BYTES) || is_late) && !has_jobs(w));
}

static void checkpoint_if_due(struct store_writer *w)
{
    if (w->checkpoint == CHECKPOINT_NEXT ||
        (w->checkpoint == CHECKPOINT_NONE && is_checkpoint_due(w))) {
        checkpoint_begin(w);
    }
    if (w->checkpoint == CHECKPOINT_BESIDE && has_grown(w, CHECKPOINT_HURRY_BYTES)) {
        store_checkpointer_hurry(w->checkpointer);
    }
    if (w->checkpoint == CHECKPOINT_LAST) {
        w->checkpoint = CHECKPOINT_NONE;
        checkpoint(w);
    }
}

static uint64_t age_ns(const struct store_connection *connection)
{
    return clock_mono_ns() - connection->began_ns;
}

bool store_must_yield(const struct store_connection *connection)
{
    if (connection->waiting == NULL || age_ns(connection) < STORE_TRANSACTION_MS * 1000000ull) {
        return false;
    }
    if (connection->priority == STORE_APPLY &&
        atomic_load_explicit(&connection->waiting->is_urgent, memory_order_relaxed)) {
        return true;
    }
    for (int i = 0; i < (int)connection->priority; i++) {
        if (atomic_load_explicit(&connection->waiting->jobs[i], memory_order_relaxed) != 0) {
            return true;
        }
    }
    return false;
}

static void run_job(struct store_writer *w, struct store_job *job)
{
    w->connection->priority = job->priority;
    w->connection->backend->job_begin(w->connection, 0);
    job->err = job->run(job, w->connection);
    w->connection->backend->job_end(w->connection);
}

/* In a savepoint of its own. The error is the transaction's: nothing more can be done in it. */
static enum err run_apart(struct store_writer *w, struct store_job *job)
{
    const struct store_backend *backend = w->connection->backend;
    enum err err = backend->savepoint(w->connection, "job");
    if (err != ERR_OK) {
        return err;
    }
    run_job(w, job);
    return job->err == ERR_OK ? backend->savepoint_release(w->connection, "job")
                              : backend->savepoint_rollback(w->connection, "job");
}

static enum err end_transaction(struct store_writer *w, enum err err)
{
    const struct store_backend *backend = w->connection->backend;
    if (err == ERR_OK) {
        err = backend->commit(w->connection);
    }
    if (err == ERR_OK) {
        w->commits++;
        look_whether_durable(w);
    } else {
        backend->rollback(w->connection);
    }
    metrics_observe(METRIC_DB_WRITE_LATENCY, age_ns(w->connection));
    return err;
}

static void finish_jobs(struct store_writer *w, struct job_list *done, enum err err)
{
    struct store_job *job = NULL;
    while ((job = list_pop(done)) != NULL) {
        if (err != ERR_OK) {
            job->err = err;
        }
        job->commit = w->commits;
        answer(job);
    }
}

static struct store_job *take_urgent(struct store_writer *w)
{
    struct store_job *job = list_pop(&w->lists[STORE_CONTROL]);
    if (job == NULL) {
        job = list_pop(&w->lists[STORE_RESULTS]);
    }
    if (job != NULL) {
        (void)atomic_fetch_sub_explicit(&w->waiting.jobs[job->priority], 1, memory_order_relaxed);
    }
    return job;
}

static bool group_is_durable(const struct store_writer *w)
{
    for (int i = STORE_CONTROL; i <= STORE_RESULTS; i++) {
        for (struct mail *mail = w->lists[i].first == NULL ? NULL : &w->lists[i].first->mail;
             mail != NULL; mail = mail->next) {
            if (job_from(mail)->durable) {
                return true;
            }
        }
    }
    return false;
}

/* One transaction of the control and results jobs that wait. */
static void run_group(struct store_writer *w)
{
    struct job_list done = {NULL, NULL};
    uint32_t count = 0;
    bool durable = group_is_durable(w);
    atomic_store_explicit(&w->waiting.is_urgent, true, memory_order_relaxed);
    enum err err = w->connection->backend->begin_write(w->connection, durable);
    bool has_begun = err == ERR_OK;
    while (count < GROUP_JOBS_MAX) {
        if (has_begun && count > 0 && age_ns(w->connection) > STORE_TRANSACTION_MS * 1000000ull) {
            break;
        }
        struct store_job *job = take_urgent(w);
        if (job == NULL) {
            break;
        }
        if (err == ERR_OK) {
            err = run_apart(w, job);
        }
        list_push(&done, job);
        count++;
    }
    err = has_begun ? end_transaction(w, err) : err;
    atomic_store_explicit(&w->waiting.is_urgent, false, memory_order_relaxed);
    set_health(w, err);
    finish_jobs(w, &done, err);
}

static void run_alone(struct store_writer *w, struct store_job *job)
{
    const struct store_backend *backend = w->connection->backend;
    enum err err = backend->begin_write(w->connection, job->durable);
    if (err == ERR_OK) {
        run_job(w, job);
        if (job->err == ERR_OK) {
            err = end_transaction(w, ERR_OK);
        } else {
            backend->rollback(w->connection);
        }
    }
    job->err = err == ERR_OK ? job->err : err;
    job->commit = w->commits;
    bool is_away = err_class(job->err) == ERR_CLASS_STOP || job->err == ERR_NO_SPACE;
    set_health(w, is_away ? job->err : err);
}

static void run_round(struct store_writer *w)
{
    if (has_urgent(w)) {
        run_group(w);
    }
    struct store_job *job = has_jobs(w) ? list_pop(&w->lists[STORE_APPLY]) : NULL;
    if (job != NULL) {
        (void)atomic_fetch_sub_explicit(&w->waiting.jobs[STORE_APPLY], 1, memory_order_relaxed);
        run_alone(w, job);
        answer(job);
    }
}

static bool is_unsettled(const struct store_writer *w)
{
    return w->connection->backend->checkpoint_bytes(w->connection) > 0;
}

static int wait_ms(const struct store_writer *w)
{
    if (store_writer_health(w) != ERR_OK) {
        return PROBE_MS;
    }
    int ms = is_unsettled(w) && w->checkpoint == CHECKPOINT_NONE ? IDLE_MS : -1;
    return ms < 0 || (w->rest_ms >= 0 && w->rest_ms < ms) ? w->rest_ms : ms;
}

static void do_idle_work(struct store_writer *w)
{
    const struct store_backend *backend = w->connection->backend;
    enum err err = backend->rest(w->connection, &w->rest_ms);
    if (err != ERR_OK) {
        set_health(w, err);
    } else if (store_writer_health(w) != ERR_OK) {
        err = backend->begin_write(w->connection, false);
        backend->rollback(w->connection);
        set_health(w, err);
    } else if (is_unsettled(w) && w->checkpoint == CHECKPOINT_NONE) {
        checkpoint_begin(w);
    }
}

static void take_connection(struct store_writer *w)
{
    while (atomic_flag_test_and_set_explicit(&w->is_owned, memory_order_acquire)) {
        (void)sched_yield(); /* a job of the start is at its end */
    }
}

void store_writer_work(struct store_writer *w)
{
    atomic_store_explicit(&w->is_running, true, memory_order_release);
    take_connection(w);
    for (;;) {
        bool has_waited = !has_jobs(w);
        if (has_waited) {
            mailbox_wait(w->mailbox, wait_ms(w));
        }
        bool is_closed = mailbox_is_closed(w->mailbox);
        (void)mailbox_run_all(w->mailbox);
        if (has_jobs(w)) {
            run_round(w);
        } else if (is_closed && w->lists[STORE_APPLY].first == NULL) {
            break;
        } else if (w->checkpoint == CHECKPOINT_NONE) {
            do_idle_work(w);
        }
        checkpoint_if_due(w);
    }
    atomic_store_explicit(&w->is_running, false, memory_order_release);
    atomic_flag_clear_explicit(&w->is_owned, memory_order_release);
}

void store_writer_stop(struct store_writer *w)
{
    mailbox_close(w->mailbox);
}

enum err store_writer_post(struct store_writer *w, struct store_job *job)
{
    assert(job->priority < STORE_PRIORITIES && job->run != NULL && job->on_done != NULL);
    atomic_uint_least32_t *waiting = &w->waiting.jobs[job->priority];
    if (atomic_fetch_add_explicit(waiting, 1, memory_order_relaxed) >= w->queue_max) {
        (void)atomic_fetch_sub_explicit(waiting, 1, memory_order_relaxed);
        return ERR_FULL;
    }
    enum store_priority priority = job->priority;
    job->writer = w;
    job->mail.on_arrive = on_arrive;
    enum err err = mailbox_post(w->mailbox, &job->mail);
    if (err != ERR_OK) {
        (void)atomic_fetch_sub_explicit(&w->waiting.jobs[priority], 1, memory_order_relaxed);
    }
    return err;
}

struct here_job {
    struct store_job job;
    struct store_job *inner;
    bool is_done;
};

static enum err here_run(struct store_job *job, struct store_connection *connection)
{
    struct here_job *here = (struct here_job *)job;
    return here->inner->run(here->inner, connection);
}

static void here_done(struct store_job *job)
{
    ((struct here_job *)job)->is_done = true;
}

static enum err post_and_wait(struct store_writer *w, struct store_job *job)
{
    struct here_job here = {.inner = job};
    here.job.priority = job->priority;
    here.job.durable = job->durable;
    here.job.run = here_run;
    here.job.on_done = here_done;
    enum err err = mailbox_create(&here.job.reply_to, 1);
    if (err != ERR_OK) {
        return err;
    }
    err = store_writer_post(w, &here.job);
    if (err == ERR_OK) {
        while (!here.is_done) {
            mailbox_wait(here.job.reply_to, -1);
            (void)mailbox_run_all(here.job.reply_to);
        }
        err = here.job.err;
        job->commit = here.job.commit;
    }
    mailbox_destroy(here.job.reply_to);
    return err;
}

enum err store_writer_run_here(struct store_writer *w, struct store_job *job)
{
    if (atomic_load_explicit(&w->is_running, memory_order_acquire) ||
        atomic_flag_test_and_set_explicit(&w->is_owned, memory_order_acquire)) {
        return post_and_wait(w, job);
    }
    run_alone(w, job);
    atomic_flag_clear_explicit(&w->is_owned, memory_order_release);
    return job->err;
}

uint64_t store_writer_durable_commit(const struct store_writer *w)
{
    return atomic_load_explicit(&w->durable_commit, memory_order_acquire);
}

enum err store_writer_health(const struct store_writer *w)
{
    return (enum err)atomic_load_explicit(&w->health, memory_order_relaxed);
}

void store_writer_yield_to(struct store_writer *w, struct store_writer *main)
{
    w->connection->waiting = &main->waiting;
}

void store_writer_use(struct store_writer *w, struct store_checkpointer *checkpointer)
{
    w->checkpointer = checkpointer;
}

void store_writer_destroy(struct store_writer *w)
{
    if (w == NULL) {
        return;
    }
    if (is_unsettled(w)) {
        checkpoint(w);
    }
    w->connection->backend->close(w->connection);
    mailbox_destroy(w->mailbox);
    mem_free(w);
}
