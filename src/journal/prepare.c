/* Preparer: has a spare ready before the committer needs one, and lets old segments go.
 *
 * Happy path: a segment whose frames all lie at or below the released position, and whose replay
 * window is over, becomes the next spare by a change of name: its blocks are written already, and
 * the salt that it will get voids what it holds. When none is due a new file is written with zeros.
 * What is not wanted as a spare is removed, and so is what is too old for another life.
 *
 * Zeros are written at a walk: 64 MiB at once stand for tens of milliseconds in the disk's queue,
 * and every commit behind them. Only when the active segment is half as full as the spare is ready
 * does it run.
 *
 * The change of name is made durable before the file is handed on: else a power cut could leave the
 * old name on a file with a half-written new head.
 *
 * Failure modes: a spare cannot be made: tried again after five seconds, the committer meanwhile
 * allocates its segments itself. The disk is short: the replay window is not waited for and no
 * spare is made. A backup runs: nothing goes. An upload has not got its final name: nothing goes
 * until the next start. */
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sys.h"
#include "journal/backend.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#define PREPARER_STEP_BYTES (256u * UINT64_C(1024))
#define PREPARER_PAUSE_MS   5 /* after a step, while there is time */
#define PREPARER_RETRY_NS   (5u * UINT64_C(1000000000))
/* One is made; a second is kept when it comes for nothing, so that steady work makes none. */
#define PREPARER_SPARES_MAX 2u
#define PREPARER_LOOK_MS    1000
#define NS_PER_S            UINT64_C(1000000000)

static void preparer_on_known(struct mail *mail)
{
    struct journal_known *known = LIST_CONTAINER(mail, struct journal_known, mail);
    struct list *list = &known->journal->preparer.known;
    if (!list_is_empty(list)) {
        struct journal_known *newest =
            LIST_CONTAINER(list->head.previous, struct journal_known, link);
        newest->closed_ns = clock_mono_ns();
    }
    list_push_back(list, &known->link);
}

static struct journal_known *known_create(struct journal *journal, uint64_t sequence,
                                          uint64_t first_position)
{
    struct journal_known *known = mem_alloc(sizeof(*known));
    known->mail.on_arrive = preparer_on_known;
    known->journal = journal;
    known->sequence = sequence;
    known->first_position = first_position;
    known->made_ns = 0;
    return known;
}

void journal_preparer_know(struct journal *journal, const struct journal_segment_head *head,
                           uint64_t made_ns)
{
    struct journal_known *known = known_create(journal, head->sequence, head->first_position);
    known->made_ns = made_ns;
    known->size = journal->options.segment_bytes;
    mailbox_answer(journal->preparer_mailbox, &known->mail);
}

/* --- handing a spare to the committer --------------------------------------------------------- */

static void committer_on_spare(struct mail *mail)
{
    struct journal_spare *spare = LIST_CONTAINER(mail, struct journal_spare, mail);
    list_push_back(&spare->journal->committer.spares, &spare->link);
}

static struct journal_spare *spare_create(struct journal *journal, struct journal_spare_file file)
{
    struct journal_spare *spare = mem_alloc(sizeof(*spare));
    spare->mail.on_arrive = committer_on_spare;
    spare->journal = journal;
    spare->file = file;
    spare->since_ns = clock_mono_ns();
    atomic_fetch_add_explicit(&journal->spare_count, 1, memory_order_relaxed);
    return spare;
}

void journal_preparer_init(struct journal *journal, const struct journal_files *files)
{
    struct journal_preparer *preparer = &journal->preparer;
    uint64_t now_ns = clock_mono_ns();
    list_init(&preparer->known);
    preparer->next_number = 2;
    for (uint32_t i = 0; i < files->count; i++) {
        const struct journal_file *file = &files->rows[i];
        char path[JOURNAL_PATH_BYTES];
        if (file->kind == JOURNAL_FILE_SEGMENT) {
            struct journal_known *known = known_create(journal, file->number, file->first_position);
            known->size = file->size;
            known->closed_ns = now_ns;
            list_push_back(&preparer->known, &known->link);
            atomic_fetch_add_explicit(&journal->disk_bytes, file->size, memory_order_relaxed);
            continue;
        }
        journal_file_path(path, journal->directory, file);
        preparer->next_number = journal_align(file->number + 1, 2);
        if (file->kind == JOURNAL_FILE_SPARE && file->size == journal->options.segment_bytes) {
            struct journal_spare *spare =
                spare_create(journal, (struct journal_spare_file){file->number, 0, false});
            list_push_back(&journal->committer.spares, &spare->link);
            atomic_fetch_add_explicit(&journal->disk_bytes, file->size, memory_order_relaxed);
        } else {
            (void)sys_unlink(path); /* holds nothing; tried again at the next start */
        }
    }
}

/* --- letting go --------------------------------------------------------------------------------
 */

/* The oldest segment when it may go, else NULL. */
static struct journal_known *preparer_find_due(struct journal *journal, uint64_t now_ns)
{
    struct journal_preparer *preparer = &journal->preparer;
    uint64_t released = atomic_load_explicit(&journal->released, memory_order_relaxed);
    bool is_short = atomic_load_explicit(&journal->room.is_short, memory_order_relaxed);
    struct list_link *oldest = list_first(&preparer->known);
    struct list_link *after = oldest == NULL ? NULL : list_after(&preparer->known, oldest);
    if (after == NULL || atomic_load_explicit(&journal->keeps_segments, memory_order_relaxed)) {
        return NULL;
    }
    struct journal_known *known = LIST_CONTAINER(oldest, struct journal_known, link);
    const struct journal_known *next = LIST_CONTAINER(after, struct journal_known, link);
    uint64_t window_ns = journal->options.replay_window_s * NS_PER_S;
    bool is_over = is_short || now_ns - known->closed_ns >= window_ns;
    return next->first_position <= released + 1 && is_over ? known : NULL;
}

/* True when it is gone or a spare; then *ret_number is the spare's, or 0. */
static bool preparer_let_go(struct journal *journal, const struct journal_known *known,
                            uint64_t now_ns, uint64_t *ret_number)
{
    struct journal_preparer *preparer = &journal->preparer;
    struct journal_file file = {JOURNAL_FILE_SEGMENT, known->sequence, known->first_position, 0};
    char from[JOURNAL_PATH_BYTES];
    char to[JOURNAL_PATH_BYTES];
    bool is_wanted =
        atomic_load_explicit(&journal->spare_count, memory_order_relaxed) < PREPARER_SPARES_MAX &&
        !atomic_load_explicit(&journal->room.is_short, memory_order_relaxed) &&
        known->size == journal->options.segment_bytes && known->made_ns != 0 &&
        now_ns - known->made_ns < JOURNAL_FILE_AGE_NS;
    journal_file_path(from, journal->directory, &file);
    /* Final names of uploads must be durable before the end records go. */
    if (sys_sync_directory(journal->uploads_directory) != 0) {
        return false;
    }
    if (!is_wanted) {
        *ret_number = 0;
        return sys_unlink(from) == 0 || errno == ENOENT;
    }
    file = (struct journal_file){JOURNAL_FILE_SPARE, preparer->next_number, 0, 0};
    preparer->next_number += 2;
    journal_file_path(to, journal->directory, &file);
    if (sys_rename(from, to) != 0) {
        return false;
    }
    if (sys_sync_directory(journal->directory) != 0) {
        (void)sys_unlink(to); /* must not be used; applied, so nothing is lost with it */
        *ret_number = 0;
        return true;
    }
    *ret_number = file.number;
    return true;
}

static bool preparer_release(struct journal *journal, uint64_t now_ns)
{
    bool has_done = false;
    struct journal_known *known;
    int pin = -1;
    if (preparer_find_due(journal, now_ns) == NULL ||
        journal_pin(journal->directory, &pin) != ERR_OK) {
        return false;
    }
    while ((known = preparer_find_due(journal, now_ns)) != NULL) {
        uint64_t number = 0;
        if (!preparer_let_go(journal, known, now_ns, &number)) {
            journal->preparer.retry_ns = now_ns + PREPARER_RETRY_NS;
            break;
        }
        if (number != 0) {
            struct journal_spare *spare =
                spare_create(journal, (struct journal_spare_file){number, known->made_ns, false});
            mailbox_answer(journal->committer_mailbox, &spare->mail);
        } else {
            atomic_fetch_sub_explicit(&journal->disk_bytes, known->size, memory_order_relaxed);
        }
        list_remove(&known->link);
        mem_free(known);
        has_done = true;
    }
    journal_unpin(pin);
    return has_done;
}

/* --- making a spare ------------------------------------------------------------------------------
 */

/* Mail may arrive meanwhile, and only adds to a list. */
static void preparer_pause(struct journal *journal, uint64_t done)
{
    uint64_t active = atomic_load_explicit(&journal->durable_offset, memory_order_relaxed);
    if (done > 2 * active) {
        mailbox_wait(journal->preparer_mailbox, PREPARER_PAUSE_MS);
        (void)mailbox_run_all(journal->preparer_mailbox);
    }
}

/* ERR_DRAINING when the journal stops meanwhile. */
static enum err preparer_write_zeros(struct journal *journal, int fd)
{
    uint64_t size = journal->options.segment_bytes;
    for (uint64_t offset = 0; offset < size; offset += PREPARER_STEP_BYTES) {
        size_t step =
            size - offset < PREPARER_STEP_BYTES ? (size_t)(size - offset) : PREPARER_STEP_BYTES;
        if (mailbox_is_closed(journal->preparer_mailbox)) {
            return ERR_DRAINING;
        }
        ssize_t written = sys_pwrite(fd, journal->preparer.zeros, step, (off_t)offset);
        if (written != (ssize_t)step) {
            return written < 0 ? err_from_errno(errno) : ERR_NO_SPACE;
        }
        /* A hint: the sync at the end then has little left, and disturbs commits less. */
        (void)sys_write_back(fd, (off_t)offset, (off_t)step);
        preparer_pause(journal, offset + step);
    }
    return sys_fdatasync(fd) == 0 ? ERR_OK : err_from_errno(errno);
}

static enum err preparer_make_spare(struct journal *journal)
{
    struct journal_preparer *preparer = &journal->preparer;
    struct journal_file file = {JOURNAL_FILE_UNFINISHED, preparer->next_number, 0, 0};
    char from[JOURNAL_PATH_BYTES];
    char to[JOURNAL_PATH_BYTES];
    preparer->next_number += 2;
    journal_file_path(from, journal->directory, &file);
    file.kind = JOURNAL_FILE_SPARE;
    journal_file_path(to, journal->directory, &file);
    int fd = sys_open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    preparer->zeros = mem_map(PREPARER_STEP_BYTES);
    enum err err = preparer_write_zeros(journal, fd);
    mem_unmap(preparer->zeros, PREPARER_STEP_BYTES);
    preparer->zeros = NULL;
    if (sys_close(fd) != 0 && err == ERR_OK) {
        err = err_from_errno(errno);
    }
    if (err == ERR_OK && sys_rename(from, to) != 0) {
        err = err_from_errno(errno);
    }
    if (err == ERR_OK && sys_sync_directory(journal->directory) != 0) {
        err = err_from_errno(errno);
    }
    if (err != ERR_OK) {
        (void)sys_unlink(from); /* removed at the next start if it stays */
        (void)sys_unlink(to);
        return err;
    }
    struct journal_spare *spare =
        spare_create(journal, (struct journal_spare_file){file.number, clock_mono_ns(), true});
    atomic_fetch_add_explicit(&journal->disk_bytes, journal->options.segment_bytes,
                              memory_order_relaxed);
    mailbox_answer(journal->committer_mailbox, &spare->mail);
    return ERR_OK;
}

bool journal_preparer_step(struct journal *journal)
{
    struct journal_preparer *preparer = &journal->preparer;
    bool has_done = mailbox_run_all(journal->preparer_mailbox) > 0;
    uint64_t now_ns = clock_mono_ns(); /* after the mail: nothing was closed later than now */
    if (now_ns < preparer->retry_ns) {
        return has_done;
    }
    has_done = preparer_release(journal, now_ns) || has_done;
    if (atomic_load_explicit(&journal->spare_count, memory_order_relaxed) == 0 &&
        !atomic_load_explicit(&journal->room.is_short, memory_order_relaxed) &&
        !mailbox_is_closed(journal->preparer_mailbox)) {
        enum err err = preparer_make_spare(journal);
        if (err != ERR_OK && err != ERR_DRAINING) {
            log_write(LOG_WARN, "journal", "prepare a segment: %s", err_text(err));
            preparer->retry_ns = now_ns + PREPARER_RETRY_NS;
        }
        has_done = has_done || err == ERR_OK;
    }
    return has_done;
}

void journal_local_prepare(struct journal *journal)
{
    while (!mailbox_is_closed(journal->preparer_mailbox)) {
        while (journal_preparer_step(journal)) {
        }
        mailbox_wait(journal->preparer_mailbox, PREPARER_LOOK_MS);
    }
}

void journal_preparer_discard(struct journal *journal)
{
    struct list_link *link;
    (void)mailbox_run_all(journal->preparer_mailbox); /* their memory is then in the list */
    while ((link = list_take_first(&journal->preparer.known)) != NULL) {
        mem_free(LIST_CONTAINER(link, struct journal_known, link));
    }
}
