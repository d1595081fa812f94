/* Files: the names in the journal's directory.
 *
 *   <first position, 16 hex digits>-<sequence, 16 hex digits>.seg   a segment
 *   spare-<number, 16 hex digits>.seg                               written, not in use
 *   spare-<number, 16 hex digits>.tmp                               being written
 *   quarantine/                                                     copies of bad bytes
 *
 * Thread: any; a listing belongs to its caller.
 * Memory: a listing owns its rows. Paths are written into the caller's JOURNAL_PATH_BYTES.
 * Errors: as the system says. A path that does not fit is ERR_TOO_LARGE when the journal opens. */
#pragma once
#include "journal/format.h"

#define JOURNAL_PATH_BYTES 1024u
/* Room for the longest name of ours behind a directory. */
#define JOURNAL_NAME_BYTES 96u

enum journal_file_kind { JOURNAL_FILE_SEGMENT, JOURNAL_FILE_SPARE, JOURNAL_FILE_UNFINISHED };

struct journal_file {
    enum journal_file_kind kind;
    uint64_t number;         /* sequence, or number of the spare */
    uint64_t first_position; /* by its name */
    uint64_t size;
};

struct journal_files {
    struct journal_file *rows; /* segments first, by sequence; then the rest by number */
    uint32_t count;
    uint32_t segment_count;
};

MUST_CHECK enum err journal_files_list(struct journal_files *ret, const char *directory);
void journal_files_finish(struct journal_files *files);
/* Frames of segment `i` from this position on are void: the least first position of newer ones. */
uint64_t journal_files_void_position(const struct journal_files *files, uint32_t i);
void journal_file_path(char to[JOURNAL_PATH_BYTES], const char *directory,
                       const struct journal_file *file);
/* Makes the directory when it is absent. */
MUST_CHECK enum err journal_directory_make(const char *path, struct err_detail *detail);
/* Opens a segment to read it and decodes its head. ERR_CORRUPT, ERR_VERSION: as the head says.
 * ret_bad_bytes as journal_segment_head_decode. */
MUST_CHECK enum err journal_segment_open_read(const char *path, int *ret_fd,
                                              struct journal_segment_head *ret,
                                              uint32_t *ret_bad_bytes);
