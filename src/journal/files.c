/* Files: lists the journal's directory in the order of the journal.
 *
 * Order is by sequence, which is in the name as well as in the head, so a segment whose head cannot
 * be read still has its place, and its first position still voids what older ones hold past it. */
#include "journal/files.h"

#include "base/mem.h"
#include "base/sys.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define FILES_MAX (1u << 20)

static bool files_parse_hex(const char *text, uint64_t *ret)
{
    uint64_t value = 0;
    for (int i = 0; i < 16; i++) {
        char c = text[i];
        bool is_digit = c >= '0' && c <= '9';
        if (!is_digit && (c < 'a' || c > 'f')) {
            return false;
        }
        value = value << 4 | (uint64_t)(is_digit ? c - '0' : c - 'a' + 10);
    }
    *ret = value;
    return true;
}

/* False for names that are not ours. */
static bool files_parse_name(const char *name, struct journal_file *ret)
{
    static const char spare[] = "spare-";
    size_t size = strlen(name);
    if (size == 16 + 1 + 16 + 4 && name[16] == '-' && strcmp(name + 33, ".seg") == 0) {
        ret->kind = JOURNAL_FILE_SEGMENT;
        return files_parse_hex(name, &ret->first_position) &&
               files_parse_hex(name + 17, &ret->number);
    }
    if (size != sizeof(spare) - 1 + 16 + 4 || memcmp(name, spare, sizeof(spare) - 1) != 0) {
        return false;
    }
    const char *end = name + sizeof(spare) - 1 + 16;
    ret->kind = strcmp(end, ".seg") == 0 ? JOURNAL_FILE_SPARE : JOURNAL_FILE_UNFINISHED;
    ret->first_position = 0;
    return (ret->kind == JOURNAL_FILE_SPARE || strcmp(end, ".tmp") == 0) &&
           files_parse_hex(name + sizeof(spare) - 1, &ret->number);
}

void journal_file_path(char to[JOURNAL_PATH_BYTES], const char *directory,
                       const struct journal_file *file)
{
    int size;
    if (file->kind == JOURNAL_FILE_SEGMENT) {
        size = snprintf(to, JOURNAL_PATH_BYTES, "%s/%016" PRIx64 "-%016" PRIx64 ".seg", directory,
                        file->first_position, file->number);
    } else {
        size = snprintf(to, JOURNAL_PATH_BYTES, "%s/spare-%016" PRIx64 ".%s", directory,
                        file->number, file->kind == JOURNAL_FILE_SPARE ? "seg" : "tmp");
    }
    /* Opening checked that the longest name fits behind the directory. */
    assert(size > 0 && (uint32_t)size < JOURNAL_PATH_BYTES);
}

static int files_compare(const void *a, const void *b)
{
    const struct journal_file *left = a;
    const struct journal_file *right = b;
    if (left->kind != right->kind) {
        return left->kind < right->kind ? -1 : 1;
    }
    return left->number < right->number ? -1 : left->number > right->number;
}

static enum err files_add(struct journal_files *files, const char *directory, const char *name)
{
    struct journal_file file = {0};
    char path[JOURNAL_PATH_BYTES];
    struct stat found;
    if (!files_parse_name(name, &file)) {
        return ERR_OK;
    }
    journal_file_path(path, directory, &file);
    if (sys_stat(path, &found) != 0) {
        return errno == ENOENT ? ERR_OK : err_from_errno(errno); /* renamed meanwhile */
    }
    file.size = (uint64_t)found.st_size;
    if ((files->count & (files->count - 1)) == 0) { /* grows at powers of two */
        uint32_t capacity = files->count == 0 ? 1 : 2 * files->count;
        struct journal_file *rows =
            capacity > FILES_MAX ? NULL : mem_try_realloc(files->rows, capacity * sizeof(*rows));
        if (rows == NULL) {
            return ERR_NO_MEMORY;
        }
        files->rows = rows;
    }
    files->rows[files->count++] = file;
    files->segment_count += file.kind == JOURNAL_FILE_SEGMENT;
    return ERR_OK;
}

enum err journal_files_list(struct journal_files *ret, const char *directory)
{
    struct journal_files files = {0};
    enum err err = ERR_OK;
    DIR *handle = sys_opendir(directory);
    if (handle == NULL) {
        return err_from_errno(errno);
    }
    while (err == ERR_OK) {
        errno = 0;
        struct dirent *entry = sys_readdir(handle);
        if (entry == NULL) {
            err = errno == 0 ? ERR_OK : err_from_errno(errno);
            break;
        }
        err = files_add(&files, directory, entry->d_name);
    }
    (void)sys_closedir(handle); /* only read */
    if (err != ERR_OK) {
        journal_files_finish(&files);
        return err;
    }
    if (files.count > 0) {
        qsort(files.rows, files.count, sizeof(*files.rows), files_compare);
    }
    *ret = files;
    return ERR_OK;
}

void journal_files_finish(struct journal_files *files)
{
    mem_free(files->rows);
    *files = (struct journal_files){0};
}

uint64_t journal_files_void_position(const struct journal_files *files, uint32_t i)
{
    uint64_t least = UINT64_MAX;
    for (uint32_t k = i + 1; k < files->segment_count; k++) {
        uint64_t first = files->rows[k].first_position;
        least = first < least ? first : least;
    }
    return least;
}

enum err journal_directory_make(const char *path, struct err_detail *detail)
{
    if (strlen(path) + JOURNAL_NAME_BYTES > JOURNAL_PATH_BYTES) {
        err_detail_set(detail, "%s: path is too long", path);
        return ERR_TOO_LARGE;
    }
    if (sys_mkdir(path, 0700) != 0) {
        if (errno == EEXIST) {
            return ERR_OK;
        }
        enum err err = err_from_errno(errno);
        err_detail_set(detail, "make %s: %s", path, err_text(err));
        return err;
    }
    char parent[JOURNAL_PATH_BYTES];
    const char *slash = strrchr(path, '/');
    size_t size = slash == NULL ? 0 : (size_t)(slash - path);
    (void)snprintf(parent, sizeof(parent), "%.*s", size == 0 ? 1 : (int)size,
                   slash == NULL ? "." : path);
    if (sys_sync_directory(parent) != 0) { /* what is in it must not go with its name */
        enum err err = err_from_errno(errno);
        err_detail_set(detail, "sync %s: %s", parent, err_text(err));
        return err;
    }
    return ERR_OK;
}

enum err journal_segment_open_read(const char *path, int *ret_fd, struct journal_segment_head *ret,
                                   uint32_t *ret_bad_bytes)
{
    uint8_t page[JOURNAL_SEGMENT_HEAD_BYTES] = {0};
    int fd = sys_open(path, O_RDONLY | O_CLOEXEC, 0);
    if (fd < 0) {
        return err_from_errno(errno);
    }
    /* A file that is too short reads as zeros, which do not verify. */
    enum err err = sys_pread(fd, page, sizeof(page), 0) < 0
                       ? err_from_errno(errno)
                       : journal_segment_head_decode(page, ret, ret_bad_bytes);
    if (err != ERR_OK) {
        (void)sys_close(fd); /* only read */
        return err;
    }
    *ret_fd = fd;
    return ERR_OK;
}
