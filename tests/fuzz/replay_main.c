/* Replay: runs a fuzz target over its corpus without libFuzzer, so that every compiler's ordinary
 * test run covers it. Arguments are directories (or files); those that begin with '-' are meant
 * for libFuzzer and are passed over. Fails when there was no input: a corpus that is not found
 * would otherwise pass for ever. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int replay_fail(const char *path)
{
    perror(path);
    return -1;
}

/* 1 on success. The bytes lie in a block of exactly their size, so that a sanitizer sees a read
 * past the end. */
static int replay_file(const char *path, size_t size)
{
    int count = -1;
    uint8_t *data = malloc(size == 0 ? 1 : size);
    FILE *file = fopen(path, "rb");
    if (data == NULL || file == NULL || fread(data, 1, size, file) != size) {
        (void)replay_fail(path);
        goto out;
    }
    (void)LLVMFuzzerTestOneInput(data, size);
    count = 1;
out:
    if (file != NULL) {
        (void)fclose(file);
    }
    free(data);
    return count;
}

static int replay_path(const char *path);

static int replay_directory(const char *path)
{
    struct dirent **entries = NULL;
    int entry_count = scandir(path, &entries, NULL, alphasort);
    int total = 0;
    for (int i = 0; i < entry_count; i++) {
        char below[4096];
        int length = snprintf(below, sizeof(below), "%s/%s", path, entries[i]->d_name);
        if (entries[i]->d_name[0] != '.' && length < (int)sizeof(below) && total >= 0) {
            int count = replay_path(below);
            total = count < 0 ? -1 : total + count;
        }
        free(entries[i]);
    }
    free(entries);
    return entry_count < 0 ? replay_fail(path) : total;
}

/* How many inputs were run, or -1. */
static int replay_path(const char *path)
{
    struct stat found;
    if (stat(path, &found) < 0) {
        return replay_fail(path);
    }
    return S_ISDIR(found.st_mode) ? replay_directory(path)
                                  : replay_file(path, (size_t)found.st_size);
}

int main(int argc, char **argv)
{
    int total = 0;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-') {
            continue;
        }
        int count = replay_path(argv[i]);
        if (count < 0) {
            return EXIT_FAILURE;
        }
        total += count;
    }
    printf("%d inputs replayed\n", total);
    return total > 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
