/* Record: a list of operations on nodes (files) and names, and a replay that forgets.
 *
 * The real base/sys.c is compiled in under other names. A node is what an inode is: names come and
 * go, a descriptor keeps meaning it.
 *
 * Replay, up to the cut: each node has safe bytes (as of its last sync) and a list of changes
 * since; each directory a table of safe names and a list of changes since. A sync moves the list
 * into what is safe. Then the image draws, by a hash of (seed, node, block), how many of the
 * changes each block has seen, and by (seed, directory), how many each directory has. */
#include "support/sys_record.h"
#include "support/sys_real.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_FDS_MAX    4096
#define RECORD_PATH_BYTES 512

enum record_kind {
    RECORD_WRITE,
    RECORD_SIZE, /* truncate, or allocate */
    RECORD_SYNC,
    RECORD_CREATE,
    RECORD_MAKE_DIRECTORY,
    RECORD_RENAME,
    RECORD_UNLINK,
    RECORD_SYNC_DIRECTORY,
    RECORD_MARK,
};

struct record_operation {
    enum record_kind kind;
    uint32_t node;
    uint64_t offset; /* or size, or mark */
    uint64_t size;
    uint8_t *bytes;
    char *path; /* below the root; "" is the root */
    char *to;
};

static struct {
    pthread_mutex_t lock;
    bool is_on;
    char root[RECORD_PATH_BYTES];
    struct record_operation *operations;
    uint64_t count;
    uint64_t capacity;
    uint32_t node_count;
    uint32_t fd_nodes[RECORD_FDS_MAX]; /* node + 1; 0: none */
} record = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void record_fail(const char *what, const char *path)
{
    (void)fprintf(stderr, "sys_record: %s %s: %s\n", what, path, strerror(errno));
    abort();
}

static void *record_memory(void *memory, size_t size)
{
    void *result = realloc(memory, size == 0 ? 1 : size);
    if (result == NULL) {
        record_fail("memory", "");
    }
    return result;
}

static char *record_text(const char *text)
{
    size_t size = strlen(text) + 1;
    return memcpy(record_memory(NULL, size), text, size);
}

/* Path below the root, or NULL. */
static const char *record_below(const char *path)
{
    size_t size = strlen(record.root);
    if (!record.is_on || strncmp(path, record.root, size) != 0) {
        return NULL;
    }
    if (path[size] == '\0') {
        return "";
    }
    return path[size] == '/' ? path + size + 1 : NULL;
}

/* Under the lock. */
static struct record_operation *record_add(enum record_kind kind)
{
    if (record.count == record.capacity) {
        record.capacity = record.capacity == 0 ? 1024 : 2 * record.capacity;
        record.operations =
            record_memory(record.operations, record.capacity * sizeof(*record.operations));
    }
    struct record_operation *operation = &record.operations[record.count++];
    *operation = (struct record_operation){.kind = kind};
    return operation;
}

/* --- names as they are now: found by walking the operations back ------------------------------ */

/* Node + 1 that `path` means after all operations so far; 0: none. */
static uint32_t record_find(const char *path)
{
    char name[RECORD_PATH_BYTES];
    (void)snprintf(name, sizeof(name), "%s", path);
    for (uint64_t i = record.count; i-- > 0;) {
        const struct record_operation *operation = &record.operations[i];
        bool is_path = operation->path != NULL && strcmp(operation->path, name) == 0;
        if (operation->kind == RECORD_CREATE && is_path) {
            return operation->node + 1;
        }
        if (operation->kind == RECORD_UNLINK && is_path) {
            return 0;
        }
        if (operation->kind == RECORD_RENAME && strcmp(operation->to, name) == 0) {
            (void)snprintf(name, sizeof(name), "%s", operation->path);
        } else if (operation->kind == RECORD_RENAME && is_path) {
            return 0;
        }
    }
    return 0;
}

/* --- base/sys ------------------------------------------------------------------------------------
 */

int sys_open(const char *path, int flags, mode_t mode)
{
    (void)pthread_mutex_lock(&record.lock);
    const char *below = record_below(path);
    int fd = real_open(path, flags, mode);
    if (fd >= 0 && fd < RECORD_FDS_MAX) {
        record.fd_nodes[fd] = 0;
    }
    if (below != NULL && fd >= 0 && (flags & O_DIRECTORY) == 0) {
        assert(fd < RECORD_FDS_MAX);
        uint32_t node = record_find(below);
        if (node == 0) {
            struct record_operation *operation = record_add(RECORD_CREATE);
            operation->node = record.node_count++;
            operation->path = record_text(below);
            node = operation->node + 1;
        } else if ((flags & O_TRUNC) != 0) {
            struct record_operation *operation = record_add(RECORD_SIZE);
            operation->node = node - 1;
        }
        record.fd_nodes[fd] = node;
    }
    (void)pthread_mutex_unlock(&record.lock);
    return fd;
}

int sys_close(int fd)
{
    (void)pthread_mutex_lock(&record.lock);
    if (fd >= 0 && fd < RECORD_FDS_MAX) {
        record.fd_nodes[fd] = 0;
    }
    int result = real_close(fd);
    (void)pthread_mutex_unlock(&record.lock);
    return result;
}

ssize_t sys_pread(int fd, void *to, size_t size, off_t offset)
{
    return real_pread(fd, to, size, offset);
}

/* Under the lock: the operation on the file of `fd`, or NULL when that is not recorded. */
static struct record_operation *record_add_for(int fd, enum record_kind kind)
{
    uint32_t node = fd >= 0 && fd < RECORD_FDS_MAX ? record.fd_nodes[fd] : 0;
    if (!record.is_on || node == 0) {
        return NULL;
    }
    struct record_operation *operation = record_add(kind);
    operation->node = node - 1;
    return operation;
}

ssize_t sys_pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    (void)pthread_mutex_lock(&record.lock);
    ssize_t written = real_pwritev(fd, parts, count, offset);
    struct record_operation *operation = written > 0 ? record_add_for(fd, RECORD_WRITE) : NULL;
    if (operation != NULL) {
        size_t left = (size_t)written;
        operation->offset = (uint64_t)offset;
        operation->size = left;
        operation->bytes = record_memory(NULL, left);
        uint8_t *at = operation->bytes;
        for (int i = 0; i < count && left > 0; i++) {
            size_t step = parts[i].iov_len < left ? parts[i].iov_len : left;
            memcpy(at, parts[i].iov_base, step);
            at += step;
            left -= step;
        }
    }
    (void)pthread_mutex_unlock(&record.lock);
    return written;
}

ssize_t sys_pwrite(int fd, const void *from, size_t size, off_t offset)
{
    struct iovec part = {.iov_len = size};
    memcpy(&part.iov_base, &from, sizeof(from)); /* writing does not change what it points to */
    return sys_pwritev(fd, &part, 1, offset);
}

static int record_sync(int fd)
{
    (void)pthread_mutex_lock(&record.lock);
    (void)record_add_for(fd, RECORD_SYNC); /* NULL: not below the root, nothing to count */
    (void)pthread_mutex_unlock(&record.lock);
    return 0;
}

int sys_fdatasync(int fd)
{
    return record_sync(fd);
}

int sys_fsync(int fd)
{
    return record_sync(fd);
}

int sys_ftruncate(int fd, off_t size)
{
    (void)pthread_mutex_lock(&record.lock);
    int result = real_ftruncate(fd, size);
    struct record_operation *operation = result == 0 ? record_add_for(fd, RECORD_SIZE) : NULL;
    if (operation != NULL) {
        operation->offset = (uint64_t)size;
    }
    (void)pthread_mutex_unlock(&record.lock);
    return result;
}

/* Recorded as a size only: what was not written reads as zeros either way. */
int sys_fallocate(int fd, off_t offset, off_t size)
{
    struct stat found;
    if (real_fstat(fd, &found) != 0) {
        return -1;
    }
    return offset + size > found.st_size ? sys_ftruncate(fd, offset + size) : 0;
}

int sys_fstat(int fd, struct stat *ret)
{
    return real_fstat(fd, ret);
}

int sys_stat(const char *path, struct stat *ret)
{
    return real_stat(path, ret);
}

int sys_rename(const char *from, const char *to)
{
    (void)pthread_mutex_lock(&record.lock);
    const char *below = record_below(from);
    int result = real_rename(from, to);
    if (result == 0 && below != NULL) {
        struct record_operation *operation = record_add(RECORD_RENAME);
        operation->path = record_text(below);
        operation->to = record_text(record_below(to));
    }
    (void)pthread_mutex_unlock(&record.lock);
    return result;
}

int sys_unlink(const char *path)
{
    (void)pthread_mutex_lock(&record.lock);
    const char *below = record_below(path);
    int result = real_unlink(path);
    if (result == 0 && below != NULL) {
        record_add(RECORD_UNLINK)->path = record_text(below);
    }
    (void)pthread_mutex_unlock(&record.lock);
    return result;
}

int sys_mkdir(const char *path, mode_t mode)
{
    (void)pthread_mutex_lock(&record.lock);
    const char *below = record_below(path);
    int result = real_mkdir(path, mode);
    if (result == 0 && below != NULL) {
        record_add(RECORD_MAKE_DIRECTORY)->path = record_text(below);
    }
    (void)pthread_mutex_unlock(&record.lock);
    return result;
}

int sys_sync_directory(const char *path)
{
    (void)pthread_mutex_lock(&record.lock);
    const char *below = record_below(path);
    if (below != NULL) {
        record_add(RECORD_SYNC_DIRECTORY)->path = record_text(below);
    }
    (void)pthread_mutex_unlock(&record.lock);
    return 0;
}

DIR *sys_opendir(const char *path)
{
    return real_opendir(path);
}

struct dirent *sys_readdir(DIR *directory)
{
    return real_readdir(directory);
}

int sys_closedir(DIR *directory)
{
    return real_closedir(directory);
}

int sys_lock(int fd)
{
    return real_lock(fd);
}

int sys_free_bytes(const char *path, uint64_t *ret_bytes)
{
    return real_free_bytes(path, ret_bytes);
}

int sys_write_back(int fd, off_t offset, off_t size)
{
    (void)fd;
    (void)offset;
    (void)size;
    return 0; /* a hint */
}

/* --- the recording -------------------------------------------------------------------------------
 */

/* What is there already is recorded as made, written and synced. */
static void record_existing(const char *directory, const char *below)
{
    DIR *handle = real_opendir(directory);
    if (handle == NULL) {
        record_fail("list", directory);
    }
    struct dirent *entry;
    while ((entry = real_readdir(handle)) != NULL) {
        char path[RECORD_PATH_BYTES];
        char name[RECORD_PATH_BYTES];
        struct stat found;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name) >= (int)sizeof(path) ||
            snprintf(name, sizeof(name), "%s%s%s", below, below[0] == '\0' ? "" : "/",
                     entry->d_name) >= (int)sizeof(name) ||
            real_stat(path, &found) != 0) {
            record_fail("look at", entry->d_name);
        }
        if (S_ISDIR(found.st_mode)) {
            record_add(RECORD_MAKE_DIRECTORY)->path = record_text(name);
            record_existing(path, name);
            continue;
        }
        struct record_operation *create = record_add(RECORD_CREATE);
        create->node = record.node_count++;
        create->path = record_text(name);
        struct record_operation *write = record_add(RECORD_WRITE);
        write->node = record.node_count - 1;
        write->size = (uint64_t)found.st_size;
        write->bytes = record_memory(NULL, write->size);
        int fd = real_open(path, O_RDONLY, 0);
        if (fd < 0 || real_pread(fd, write->bytes, write->size, 0) != found.st_size) {
            record_fail("read", path);
        }
        (void)real_close(fd);
        record_add(RECORD_SYNC)->node = record.node_count - 1;
    }
    (void)real_closedir(handle);
    record_add(RECORD_SYNC_DIRECTORY)->path = record_text(below);
}

static uint64_t record_first; /* operations before this are the start */

void sys_record_start(const char *root)
{
    if (snprintf(record.root, sizeof(record.root), "%s", root) >= (int)sizeof(record.root)) {
        record_fail("start", root);
    }
    record_existing(root, "");
    record_first = record.count;
    record.is_on = true;
}

void sys_record_stop(void)
{
    record.is_on = false;
}

void sys_record_free(void)
{
    for (uint64_t i = 0; i < record.count; i++) {
        free(record.operations[i].bytes);
        free(record.operations[i].path);
        free(record.operations[i].to);
    }
    free(record.operations);
    record.operations = NULL;
    record.count = 0;
    record.capacity = 0;
    record.node_count = 0;
    memset(record.fd_nodes, 0, sizeof(record.fd_nodes));
}

void sys_record_mark(uint64_t value)
{
    (void)pthread_mutex_lock(&record.lock);
    record_add(RECORD_MARK)->offset = value;
    (void)pthread_mutex_unlock(&record.lock);
}

uint64_t sys_record_count(void)
{
    return record.count - record_first;
}

uint64_t sys_record_marked(uint64_t cut)
{
    for (uint64_t i = record_first + cut; i-- > record_first;) {
        if (record.operations[i].kind == RECORD_MARK) {
            return record.operations[i].offset;
        }
    }
    return 0;
}

/* --- images --------------------------------------------------------------------------------------
 */

struct image_node {
    uint8_t *bytes; /* safe */
    uint64_t size;
    uint64_t capacity;
    uint64_t since;    /* operations from here on are not safe */
    uint64_t *pending; /* those of them that change it */
    size_t pending_count;
};

struct image_name {
    char *path;
    uint32_t node; /* UINT32_MAX: a directory */
};

struct image {
    uint64_t cut; /* in operations, the start's included */
    uint64_t seed;
    uint32_t block_bytes;
    enum { IMAGE_MIXED, IMAGE_DROP_ALL, IMAGE_KEEP_ALL, IMAGE_WHOLE_WRITES } mode;
    struct image_node *nodes;
    struct image_name *names;
    size_t name_count;
};

static uint64_t image_draw(const struct image *image, uint64_t a, uint64_t b, uint64_t below)
{
    uint64_t x = image->seed ^ (a + 1) * 0x9e3779b97f4a7c15u ^ (b + 1) * 0xc2b2ae3d27d4eb4fu;
    for (int i = 0; i < 3; i++) { /* splitmix64's finalizer */
        x ^= x >> 30;
        x *= 0xbf58476d1ce4e5b9u;
        x ^= x >> 27;
        x *= 0x94d049bb133111ebu;
        x ^= x >> 31;
    }
    return below == 0 ? 0 : x % below;
}

static void image_resize(struct image_node *node, uint64_t size)
{
    if (node->bytes == NULL && size > 0) {
        node->bytes = calloc(1, size); /* large ones are zero pages that nobody has touched */
        if (node->bytes == NULL) {
            record_fail("memory", "");
        }
        node->capacity = size;
    } else if (size > node->capacity) {
        node->bytes = record_memory(node->bytes, size);
        memset(node->bytes + node->capacity, 0, size - node->capacity);
        node->capacity = size;
    }
    if (size < node->size) {
        memset(node->bytes + size, 0, node->size - size);
    }
    node->size = size;
}

static void image_apply(struct image_node *node, const struct record_operation *operation)
{
    if (operation->kind == RECORD_SIZE) {
        image_resize(node, operation->offset);
        return;
    }
    if (operation->offset + operation->size > node->size) {
        image_resize(node, operation->offset + operation->size);
    }
    memcpy(node->bytes + operation->offset, operation->bytes, operation->size);
}

/* One block of `node` sees the pending changes before `until`. */
static void image_apply_to_block(const struct image *image, struct image_node *node, uint64_t block,
                                 uint64_t until)
{
    uint64_t begin = block * image->block_bytes;
    uint64_t end =
        begin + image->block_bytes < node->capacity ? begin + image->block_bytes : node->capacity;
    for (size_t i = 0; i < node->pending_count && node->pending[i] < until; i++) {
        const struct record_operation *operation = &record.operations[node->pending[i]];
        uint64_t from = operation->offset > begin ? operation->offset : begin;
        if (operation->kind == RECORD_SIZE) {
            if (from < end) {
                memset(node->bytes + from, 0, end - from);
            }
            continue;
        }
        uint64_t to = operation->offset + operation->size;
        to = to < end ? to : end;
        if (from < to) {
            memcpy(node->bytes + from, operation->bytes + (from - operation->offset), to - from);
        }
    }
}

/* How many operations a piece has seen: since <= result <= cut. */
static uint64_t image_until(const struct image *image, uint64_t since, uint64_t a, uint64_t b)
{
    if (image->mode == IMAGE_DROP_ALL) {
        return since;
    }
    if (image->mode == IMAGE_KEEP_ALL) {
        return image->cut;
    }
    /* Half of them see all or nothing: short of that most images would be torn to dust. */
    switch (image_draw(image, a, b, 4)) {
    case 0:
        return since;
    case 1:
        return image->cut;
    }
    return since + image_draw(image, a + 0x10000, b, image->cut - since + 1);
}

static uint64_t image_final_size(const struct image *image, uint32_t number)
{
    const struct image_node *node = &image->nodes[number];
    uint64_t until = image_until(image, node->since, number, UINT64_MAX - 1);
    uint64_t size = node->size;
    for (size_t i = 0; i < node->pending_count && node->pending[i] < until; i++) {
        const struct record_operation *operation = &record.operations[node->pending[i]];
        uint64_t end = operation->offset + operation->size;
        size = operation->kind == RECORD_SIZE || end > size ? end : size;
    }
    return size;
}

static void image_settle_node(const struct image *image, uint32_t number)
{
    struct image_node *node = &image->nodes[number];
    uint64_t reach = node->size;
    if (node->pending_count == 0) {
        return;
    }
    for (size_t i = 0; i < node->pending_count; i++) {
        const struct record_operation *operation = &record.operations[node->pending[i]];
        uint64_t end = operation->offset + operation->size;
        reach = end > reach ? end : reach;
    }
    uint64_t size = image_final_size(image, number);
    image_resize(node, reach);
    uint64_t blocks = (reach + image->block_bytes - 1) / image->block_bytes;
    for (uint64_t block = 0; block < blocks; block++) {
        /* Whole writes: all blocks of a file have seen the same changes. */
        uint64_t key = image->mode == IMAGE_WHOLE_WRITES ? UINT64_MAX - 2 : block;
        image_apply_to_block(image, node, block, image_until(image, node->since, number, key));
    }
    image_resize(node, size);
}

static size_t image_find_name(const struct image *image, const char *path)
{
    size_t i = 0;
    while (i < image->name_count && strcmp(image->names[i].path, path) != 0) {
        i++;
    }
    return i;
}

static void image_drop_name(struct image *image, const char *path)
{
    size_t i = image_find_name(image, path);
    if (i < image->name_count) {
        free(image->names[i].path);
        image->name_count--;
        memmove(&image->names[i], &image->names[i + 1],
                (image->name_count - i) * sizeof(*image->names)); /* in order of their making */
    }
}

static void image_put_name(struct image *image, const char *path, uint32_t node)
{
    image_drop_name(image, path);
    image->names = record_memory(image->names, (image->name_count + 1) * sizeof(*image->names));
    image->names[image->name_count++] = (struct image_name){record_text(path), node};
}

static void image_change_name(struct image *image, const struct record_operation *operation)
{
    if (operation->kind == RECORD_CREATE) {
        image_put_name(image, operation->path, operation->node);
    } else if (operation->kind == RECORD_MAKE_DIRECTORY) {
        image_put_name(image, operation->path, UINT32_MAX);
    } else if (operation->kind == RECORD_UNLINK) {
        image_drop_name(image, operation->path);
    } else if (operation->kind == RECORD_RENAME) {
        size_t i = image_find_name(image, operation->path);
        if (i < image->name_count) {
            uint32_t node = image->names[i].node;
            image_drop_name(image, operation->path);
            image_put_name(image, operation->to, node);
        }
    }
}

static bool image_is_name(const struct record_operation *operation)
{
    return operation->kind == RECORD_CREATE || operation->kind == RECORD_MAKE_DIRECTORY ||
           operation->kind == RECORD_UNLINK || operation->kind == RECORD_RENAME;
}

/* Length of the directory part. */
static size_t image_directory_size(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash == NULL ? 0 : (size_t)(slash - path);
}

/* Last sync of the operation's directory before the cut, as an operation number + 1. */
static uint64_t image_directory_synced(const struct image *image, const char *path)
{
    size_t size = image_directory_size(path);
    for (uint64_t i = image->cut; i-- > 0;) {
        const struct record_operation *operation = &record.operations[i];
        if (operation->kind == RECORD_SYNC_DIRECTORY && strlen(operation->path) == size &&
            strncmp(operation->path, path, size) == 0) {
            return i + 1;
        }
    }
    return 0;
}

static uint64_t image_hash_directory(const char *path)
{
    uint64_t hash = 14695981039346656037u; /* FNV-1a */
    for (size_t i = 0; i < image_directory_size(path); i++) {
        hash = (hash ^ (uint8_t)path[i]) * 1099511628211u;
    }
    return hash;
}

static void image_settle_names(struct image *image)
{
    for (uint64_t i = 0; i < image->cut; i++) {
        const struct record_operation *operation = &record.operations[i];
        if (!image_is_name(operation)) {
            continue;
        }
        uint64_t synced = image_directory_synced(image, operation->path);
        uint64_t until =
            image_until(image, synced, image_hash_directory(operation->path), UINT64_MAX - 3);
        if (i < until) {
            image_change_name(image, operation);
        }
    }
}

/* Bytes from `at` on that are all zero, or all not, by pages. */
static uint64_t image_run(const struct image_node *node, uint64_t at, bool *ret_is_zero)
{
    static const uint8_t zeros[4096];
    uint64_t begin = at;
    bool is_zero = false;
    do {
        size_t size = node->size - at < sizeof(zeros) ? (size_t)(node->size - at) : sizeof(zeros);
        is_zero = memcmp(node->bytes + at, zeros, size) == 0;
        if (at == begin) {
            *ret_is_zero = is_zero;
        } else if (is_zero != *ret_is_zero) {
            break;
        }
        at += size;
    } while (at < node->size);
    return at - begin;
}

static void image_write_file(const struct image_node *node, const char *path)
{
    int fd = real_open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || real_ftruncate(fd, (off_t)node->size) != 0) {
        record_fail("make", path);
    }
    for (uint64_t at = 0; at < node->size;) {
        bool is_zero = false;
        uint64_t size = image_run(node, at, &is_zero);
        if (!is_zero && real_pwrite(fd, node->bytes + at, size, (off_t)at) != (ssize_t)size) {
            record_fail("write", path);
        }
        at += size;
    }
    (void)real_close(fd);
}

static void image_empty(const char *directory)
{
    DIR *handle = real_opendir(directory);
    struct dirent *entry;
    while (handle != NULL && (entry = real_readdir(handle)) != NULL) {
        char path[RECORD_PATH_BYTES];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) {
            continue;
        }
        if (snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name) >= (int)sizeof(path)) {
            record_fail("empty", directory);
        }
        image_empty(path);
        if (remove(path) != 0) {
            record_fail("remove", path);
        }
    }
    if (handle != NULL) {
        (void)real_closedir(handle);
    }
}

static void image_write(const struct image *image, const char *target)
{
    image_empty(target);
    if (real_mkdir(target, 0700) != 0 && errno != EEXIST) {
        record_fail("make", target);
    }
    /* Names are in the order of their making, so a directory stands before what is in it. */
    for (int is_file = 0; is_file <= 1; is_file++) {
        for (size_t i = 0; i < image->name_count; i++) {
            const struct image_name *name = &image->names[i];
            char path[2 * RECORD_PATH_BYTES];
            char parent[RECORD_PATH_BYTES];
            struct stat found;
            (void)snprintf(parent, sizeof(parent), "%s/%.*s", target,
                           (int)image_directory_size(name->path), name->path);
            (void)snprintf(path, sizeof(path), "%s/%s", target, name->path);
            if (real_stat(parent, &found) != 0 || is_file != (name->node != UINT32_MAX)) {
                continue; /* its directory was lost */
            }
            if (is_file == 1) {
                image_write_file(&image->nodes[name->node], path);
            } else if (real_mkdir(path, 0700) != 0) {
                record_fail("make", path);
            }
        }
    }
}

void sys_record_image(uint64_t cut, uint64_t seed, const char *target)
{
    struct image image = {.cut = record_first + cut, .seed = seed};
    image.block_bytes = image_draw(&image, 1, 1, 2) == 0 ? 512 : 4096;
    uint64_t mode = image_draw(&image, 2, 2, 8);
    image.mode = mode == 0   ? IMAGE_DROP_ALL
                 : mode == 1 ? IMAGE_KEEP_ALL
                 : mode == 2 ? IMAGE_WHOLE_WRITES
                             : IMAGE_MIXED;
    image.nodes = calloc(record.node_count + 1, sizeof(*image.nodes));
    if (image.nodes == NULL) {
        record_fail("memory", "");
    }
    for (uint64_t i = 0; i < image.cut; i++) {
        if (record.operations[i].kind == RECORD_SYNC) {
            image.nodes[record.operations[i].node].since = i + 1;
        }
    }
    for (uint64_t i = 0; i < image.cut; i++) {
        const struct record_operation *operation = &record.operations[i];
        bool is_change = operation->kind == RECORD_WRITE || operation->kind == RECORD_SIZE;
        struct image_node *node = &image.nodes[operation->node];
        if (is_change && i < node->since) {
            image_apply(node, operation);
        } else if (is_change) {
            node->pending =
                record_memory(node->pending, (node->pending_count + 1) * sizeof(*node->pending));
            node->pending[node->pending_count++] = i;
        }
    }
    for (uint32_t i = 0; i < record.node_count; i++) {
        image_settle_node(&image, i);
    }
    image_settle_names(&image);
    image_write(&image, target);
    for (uint32_t i = 0; i < record.node_count; i++) {
        free(image.nodes[i].bytes);
        free(image.nodes[i].pending);
    }
    for (size_t i = 0; i < image.name_count; i++) {
        free(image.names[i].path);
    }
    free(image.nodes);
    free(image.names);
}
