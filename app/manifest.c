/* The manifest's lines:
 *
 *   weir-backup 1
 *   <xxh3-64, 16 hex digits> <size> <name>      of each file
 *   made <RFC 3339>
 *   journal <id>
 *   applied <position>
 *   durable <position>
 *   missing <frames>
 *   end <xxh3-64 of all lines above>
 *
 * Names are checked character by character: a manifest may have been made by anybody. */
#include "manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sys.h"

#define LINE_BYTES 256u

static const char first_line[] = "weir-backup 1\n";

struct manifest {
    FILE *file;
    struct hash_stream *hash;
    char directory[FILES_PATH_BYTES];
    bool is_bad; /* a write failed */
};

static void write_line(struct manifest *manifest, const char *line)
{
    hash_stream_add(manifest->hash, line, strlen(line));
    manifest->is_bad |= fputs(line, manifest->file) < 0;
}

static void temporary_path(char to[FILES_PATH_BYTES], const char *directory)
{
    files_join(to, directory, MANIFEST_TEMPORARY);
}

enum err manifest_create(struct manifest **ret, const char *directory, struct err_detail *detail)
{
    char path[FILES_PATH_BYTES];
    temporary_path(path, directory);
    int fd = sys_open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL) {
        enum err err = err_from_errno(errno);
        err_detail_set(detail, "%s: %s", path, err_text(err));
        return err;
    }
    struct manifest *manifest = mem_alloc(sizeof(*manifest));
    manifest->file = file;
    manifest->hash = hash_stream_create();
    (void)snprintf(manifest->directory, sizeof(manifest->directory), "%s", directory);
    write_line(manifest, first_line);
    *ret = manifest;
    return ERR_OK;
}

enum err manifest_add(struct manifest *manifest, const struct manifest_file *file)
{
    char line[LINE_BYTES];
    (void)snprintf(line, sizeof(line), "%016" PRIx64 " %" PRIu64 " %s\n", file->sum.hash,
                   file->sum.size, file->name);
    write_line(manifest, line);
    return manifest->is_bad ? ERR_NO_SPACE : ERR_OK;
}

void manifest_discard(struct manifest *manifest)
{
    if (manifest != NULL) {
        (void)fclose(manifest->file); /* good for nothing */
        hash_stream_destroy(manifest->hash);
        mem_free(manifest);
    }
}

static void write_head(struct manifest *manifest, const struct manifest_head *head)
{
    char line[LINE_BYTES];
    char made[CLOCK_TEXT_BYTES];
    char journal[ID_TEXT_BYTES];
    clock_format_rfc3339(head->made_ms, made);
    id_format(head->journal, journal);
    (void)snprintf(line, sizeof(line), "made %.*s\njournal %.*s\n", CLOCK_TEXT_BYTES, made,
                   ID_TEXT_BYTES, journal);
    write_line(manifest, line);
    (void)snprintf(line, sizeof(line),
                   "applied %" PRIu64 "\ndurable %" PRIu64 "\nmissing %" PRIu64 "\n", head->applied,
                   head->durable, head->missing);
    write_line(manifest, line);
    (void)snprintf(line, sizeof(line), "end %016" PRIx64 "\n", hash_stream_value(manifest->hash));
    write_line(manifest, line);
}

enum err manifest_finish(struct manifest *manifest, const struct manifest_head *head,
                         struct err_detail *detail)
{
    char from[FILES_PATH_BYTES];
    char to[FILES_PATH_BYTES];
    enum err err = ERR_OK;
    temporary_path(from, manifest->directory);
    files_join(to, manifest->directory, MANIFEST_NAME);
    write_head(manifest, head);
    if (manifest->is_bad || fflush(manifest->file) != 0) {
        err = ERR_NO_SPACE;
    } else if (sys_fsync(fileno(manifest->file)) != 0 || sys_rename(from, to) != 0 ||
               sys_sync_directory(manifest->directory) != 0) {
        err = err_from_errno(errno);
    }
    if (err != ERR_OK) {
        err_detail_set(detail, "%s: %s", to, err_text(err));
        (void)sys_unlink(to); /* it must not stand for a backup */
    }
    manifest_discard(manifest);
    return err;
}

/* --- reading ------------------------------------------------------------------------------------
 */

static bool parse_hex(struct slice text, uint64_t *ret)
{
    uint64_t value = 0;
    if (text.size != 16) {
        return false;
    }
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        bool is_digit = c >= '0' && c <= '9';
        if (!is_digit && (c < 'a' || c > 'f')) {
            return false;
        }
        value = value << 4 | (uint64_t)(is_digit ? c - '0' : c - 'a' + 10);
    }
    *ret = value;
    return true;
}

/* weir.db, or one file below journal/ or uploads/, of lower-case letters, digits, '-' and '.'. */
static bool is_name(struct slice name)
{
    if (slice_equal(name, SLICE_LITERAL("weir.db"))) {
        return true;
    }
    struct slice rest = {NULL, 0};
    struct slice folder = slice_cut(name, '/', &rest);
    bool is_ours = slice_equal(folder, SLICE_LITERAL("journal")) ||
                   slice_equal(folder, SLICE_LITERAL("uploads"));
    if (!is_ours || rest.size == 0 || rest.data[0] == '.' || name.size >= MANIFEST_NAME_BYTES) {
        return false;
    }
    for (size_t i = 0; i < rest.size; i++) {
        uint8_t c = rest.data[i];
        bool is_fine = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
        if (!is_fine) {
            return false;
        }
    }
    return true;
}

static enum err read_file(struct slice hash, struct slice rest, struct manifest_reading *reading)
{
    struct manifest_file file = {.name = ""};
    struct slice name = {NULL, 0};
    struct slice size = slice_cut(rest, ' ', &name);
    if (!parse_hex(hash, &file.sum.hash) || !slice_to_u64(size, &file.sum.size) || !is_name(name)) {
        return ERR_CORRUPT;
    }
    memcpy(file.name, name.data, name.size);
    reading->bytes += file.sum.size;
    reading->uploads += slice_starts_with(name, SLICE_LITERAL("uploads/"));
    return reading->on_file == NULL ? ERR_OK : reading->on_file(&file, reading->context);
}

static enum err read_line(struct slice line, uint64_t hash, struct manifest_reading *reading,
                          bool *ret_is_end)
{
    struct slice rest = {NULL, 0};
    struct slice word = slice_cut(line, ' ', &rest);
    struct manifest_head *head = &reading->head;
    const struct {
        const char *word;
        uint64_t *to;
    } numbers[] = {
        {"applied", &head->applied}, {"durable", &head->durable}, {"missing", &head->missing}};
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        if (slice_equal(word, slice_from_text(numbers[i].word))) {
            return slice_to_u64(rest, numbers[i].to) ? ERR_OK : ERR_CORRUPT;
        }
    }
    if (slice_equal(word, SLICE_LITERAL("made"))) {
        return clock_parse_rfc3339(rest, &head->made_ms) ? ERR_OK : ERR_CORRUPT;
    }
    if (slice_equal(word, SLICE_LITERAL("journal"))) {
        return id_parse(rest, &head->journal) ? ERR_OK : ERR_CORRUPT;
    }
    if (slice_equal(word, SLICE_LITERAL("end"))) {
        uint64_t said = 0;
        *ret_is_end = parse_hex(rest, &said) && said == hash;
        return *ret_is_end ? ERR_OK : ERR_CORRUPT;
    }
    return read_file(word, rest, reading);
}

static enum err read_lines(FILE *file, struct hash_stream *hash, struct manifest_reading *reading,
                           uint64_t *ret_line)
{
    char line[LINE_BYTES];
    enum err err = ERR_OK;
    bool is_end = false;
    *ret_line = 1;
    if (fgets(line, sizeof(line), file) == NULL || strcmp(line, first_line) != 0) {
        return ERR_CORRUPT;
    }
    hash_stream_add(hash, line, strlen(line));
    while (err == ERR_OK && !is_end) {
        (*ret_line)++;
        size_t size = fgets(line, sizeof(line), file) == NULL ? 0 : strlen(line);
        if (size == 0 || line[size - 1] != '\n') {
            return ERR_CORRUPT; /* cut off, or no line of ours */
        }
        err = read_line(slice_make(line, size - 1), hash_stream_value(hash), reading, &is_end);
        hash_stream_add(hash, line, size);
    }
    return err;
}

enum err manifest_read(const char *directory, struct manifest_reading *reading,
                       struct err_detail *detail)
{
    char path[FILES_PATH_BYTES];
    uint64_t line = 0;
    files_join(path, directory, MANIFEST_NAME);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        enum err err = err_from_errno(errno);
        err_detail_set(detail, "%s: %s", path,
                       err == ERR_NOT_FOUND ? "no manifest: not a backup, or an unfinished one"
                                            : err_text(err));
        return err;
    }
    struct hash_stream *hash = hash_stream_create();
    reading->bytes = 0;
    reading->uploads = 0;
    enum err err = read_lines(file, hash, reading, &line);
    if (err == ERR_CORRUPT && detail->text[0] == '\0') {
        err_detail_set(detail, "%s: line %" PRIu64 " is damaged", path, line);
    }
    hash_stream_destroy(hash);
    (void)fclose(file); /* only read */
    return err;
}
