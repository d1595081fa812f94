/* Local: the backend whose frames are in segments in a directory of this machine.
 *
 * Happy path and failure modes: at the heads of the files that do its work. */
#include "journal/backend.h"

#include "base/clock.h"

#include <assert.h>

static enum err local_start(struct journal *journal, uint64_t base, struct err_detail *detail)
{
    struct journal_committer *committer = &journal->committer;
    assert(committer->segment.fd < 0);
    if (committer->next_position <= base) {
        committer->next_position = base + 1;
    }
    committer->base = base;
    journal_committer_sample_space(journal, clock_mono_ns());
    enum err err = journal_committer_open_segment(journal);
    if (err != ERR_OK) {
        err_detail_set(detail, "open a segment in %s: %s", journal->directory, err_text(err));
    }
    return err;
}

static void local_close(struct journal *journal)
{
    (void)journal; /* segments and spares are closed by who made them */
}

/* A local segment goes when it is released, not when it is applied. */
static void local_reader_applied(struct journal_reader *reader, uint64_t position)
{
    (void)reader;
    (void)position;
}

const struct journal_backend journal_local = {
    .open = journal_recover,
    .start = local_start,
    .commit = journal_local_commit,
    .prepare = journal_local_prepare,
    .close = local_close,
    .reader_open = journal_local_reader_open,
    .reader_next = journal_local_reader_next,
    .reader_applied = local_reader_applied,
    .reader_close = journal_local_reader_close,
    .upload_write = journal_file_upload_write,
    .upload_sync = journal_file_upload_sync,
    .upload_remove = journal_file_upload_remove,
    .upload_find = journal_file_upload_find,
    .upload_delete = journal_file_upload_delete,
    .walk_open = journal_file_walk_open,
    .walk_next = journal_file_walk_next,
    .walk_close = journal_file_walk_close,
};
