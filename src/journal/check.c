/* Check: reads the segments of a directory as recovery would, and reports instead of deciding.
 *
 * Needs no lock and writes nothing. On a journal in use the last commit may show as a torn tail.
 *
 * Happy path: every segment in order, every frame that counts is handed out.
 * Failure modes: damage is counted; only a directory or a disk that cannot be read is an error. */
#include "base/sys.h"
#include "journal/files.h"
#include "journal/scan.h"

#include <errno.h>
#include <fcntl.h>

struct check {
    const char *directory;
    struct journal_files files;
    struct journal_check_report report;
    uint64_t expected;
    uint64_t done;
    uint64_t all;
    void (*on_frame)(const struct journal_frame *frame, void *context);
    void (*on_progress)(uint64_t done, uint64_t all, void *context);
    void *context;
};

static void check_damage(struct check *check, uint64_t bytes)
{
    check->report.damaged_bytes += bytes;
    check->report.damaged_places++;
}

static void check_frame(struct check *check, const struct journal_frame *frame)
{
    struct journal_check_report *report = &check->report;
    report->frames++;
    report->bytes += frame->bytes;
    report->first_position = report->first_position == 0 ? frame->position : report->first_position;
    report->last_position = frame->position;
    check->expected = frame->position + 1;
    if (check->on_frame != NULL) {
        check->on_frame(frame, check->context);
    }
}

/* What the last commit claims and the scan did not find is torn in the newest segment. */
static enum err check_scan(struct check *check, uint32_t i, int fd,
                           const struct journal_segment_head *head)
{
    struct journal_scan scan;
    struct journal_scan_item item = {.kind = JOURNAL_SCAN_BAD};
    uint64_t size = check->files.rows[i].size;
    uint64_t claimed_end = 0;
    bool is_newest = i + 1 == check->files.segment_count;
    bool is_clean = false;
    enum err err = ERR_OK;
    journal_scan_init(&scan, fd, head, journal_files_void_position(&check->files, i));
    while (err == ERR_OK && item.kind != JOURNAL_SCAN_END) {
        err = journal_scan_next(&scan, size, &item);
        if (err != ERR_OK || item.kind == JOURNAL_SCAN_END) {
            break;
        }
        if (item.kind == JOURNAL_SCAN_COMMIT) {
            check->report.commits++;
            claimed_end = item.offset + item.size + item.commit.bytes;
            is_clean = (item.commit.flags & JOURNAL_COMMIT_CLOSES) != 0;
            /* Nothing comes after a closing commit: only its own page is looked at. */
            size = is_clean ? journal_align(claimed_end, JOURNAL_PAGE_BYTES) : size;
        } else if (item.kind == JOURNAL_SCAN_FRAME) {
            check_frame(check, &item.frame);
        } else if (item.kind == JOURNAL_SCAN_BAD) {
            check_damage(check, item.size);
        } else if (is_clean) { /* its own page is torn: it was not synced */
            is_clean = false;
            check->report.torn_bytes = is_newest ? item.size : 0;
        } else if (is_newest) {
            err = journal_scan_torn(&scan, head, claimed_end, &item, &check->report.torn_bytes);
        }
        if (check->on_progress != NULL) {
            check->on_progress(check->done + item.offset, check->all, check->context);
        }
    }
    journal_scan_finish(&scan);
    check->report.clean = is_newest && is_clean;
    return err;
}

static enum err check_segment(struct check *check, uint32_t i, struct err_detail *detail)
{
    struct journal_segment_head head;
    char path[JOURNAL_PATH_BYTES];
    uint32_t bad_bytes = 0;
    int fd = -1;
    journal_file_path(path, check->directory, &check->files.rows[i]);
    check->report.segments++;
    enum err err = journal_segment_open_read(path, &fd, &head, &bad_bytes);
    if (err == ERR_CORRUPT) {
        check_damage(check, check->files.rows[i].size);
        return ERR_OK;
    }
    if (err == ERR_OK && bad_bytes > 0) {
        check_damage(check, bad_bytes);
    }
    /* Its predecessor should have led up to what was durable when this one was opened. */
    if (err == ERR_OK && check->expected != 0 && check->expected <= head.durable_before) {
        check_damage(check, 0);
    }
    if (err == ERR_OK) {
        check->expected = head.first_position;
        err = check_scan(check, i, fd, &head);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "read %s: %s", path, err_text(err));
    }
    if (fd >= 0) {
        (void)sys_close(fd); /* only read */
    }
    return err;
}

enum err journal_check(const char *directory, struct journal_check_report *ret,
                       void (*on_frame)(const struct journal_frame *frame, void *context),
                       void (*on_progress)(uint64_t done, uint64_t all, void *context),
                       void *context, struct err_detail *detail)
{
    struct check check = {.directory = directory,
                          .on_frame = on_frame,
                          .on_progress = on_progress,
                          .context = context};
    enum err err = journal_files_list(&check.files, directory);
    if (err != ERR_OK) {
        err_detail_set(detail, "list %s: %s", directory, err_text(err));
        return err;
    }
    for (uint32_t i = 0; i < check.files.segment_count; i++) {
        check.all += check.files.rows[i].size;
    }
    for (uint32_t i = 0; i < check.files.segment_count && err == ERR_OK; i++) {
        err = check_segment(&check, i, detail);
        check.done += check.files.rows[i].size;
        if (err == ERR_OK && on_progress != NULL) {
            on_progress(check.done, check.all, context);
        }
    }
    journal_files_finish(&check.files);
    if (err == ERR_OK) {
        *ret = check.report;
    }
    return err;
}
