/* The audit: reads the ids that were acknowledged, then every event of the org page by page, and
 * counts how often each acknowledged id is there: once is right; never is lost; more is twice.
 *
 * The ids are kept sorted, 16 bytes each, with a count beside: ten million take 170 MB. */
#include "bench.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/id.h"
#include "base/mem.h"
#include "command.h"
#include "progress.h"

#define PAGE_BYTES_MAX    1073741824u
#define DRAIN_PATIENCE_NS 600000000000ull

struct audit {
    const struct bench_options *options;
    struct id *ids;
    uint8_t *seen;
    size_t count;
    size_t capacity;
    uint64_t rows;
    int fd;
};

static int id_order(const void *a, const void *b)
{
    return memcmp(a, b, sizeof(struct id));
}

static enum err ids_read(struct audit *audit, const char *path)
{
    char line[128];
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return err_from_errno(errno);
    }
    enum err err = ERR_OK;
    while (err == ERR_OK && fgets(line, sizeof(line), file) != NULL) {
        if (audit->count == audit->capacity) {
            audit->capacity = audit->capacity == 0 ? 65536 : audit->capacity * 2;
            struct id *larger = mem_try_realloc(audit->ids, audit->capacity * sizeof(*audit->ids));
            if (larger == NULL) {
                err = ERR_NO_MEMORY;
                break;
            }
            audit->ids = larger;
        }
        struct slice text = slice_make(line, strcspn(line, "\n"));
        if (id_parse(text, &audit->ids[audit->count])) {
            audit->count++;
        } else {
            err = ERR_SYNTAX;
        }
    }
    (void)fclose(file);
    return err;
}

/* Sorts; an id acknowledged twice (a duplicate of a retry) must still be there once. */
static void ids_prepare(struct audit *audit)
{
    size_t kept = 0;
    if (audit->count > 0) {
        qsort(audit->ids, audit->count, sizeof(*audit->ids), id_order);
    }
    for (size_t i = 0; i < audit->count; i++) {
        if (kept == 0 || !id_equal(audit->ids[kept - 1], audit->ids[i])) {
            audit->ids[kept++] = audit->ids[i];
        }
    }
    audit->count = kept;
    audit->seen = mem_alloc(kept + 1);
}

static void id_seen(struct audit *audit, struct id id)
{
    struct id *found = NULL;
    if (audit->count > 0) {
        found = bsearch(&id, audit->ids, audit->count, sizeof(*audit->ids), id_order);
    }
    audit->rows++;
    if (found != NULL && audit->seen[found - audit->ids] < 2) {
        audit->seen[found - audit->ids]++;
    }
}

static bool send_text(int fd, const char *text, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, text, size, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        text += n;
        size -= (size_t)n;
    }
    return true;
}

/* One GET on the audit's connection; the body lands in `body`. */
static enum err page_read(struct audit *audit, const char *path, struct buffer *answer,
                          struct slice *ret_body)
{
    char request[1024];
    uint64_t length = UINT64_MAX;
    size_t head = 0;
    int size =
        snprintf(request, sizeof(request), "GET %s HTTP/1.1\r\nHost: %s\r\nX-API-Key: %s\r\n\r\n",
                 path, audit->options->host, audit->options->key);
    if (!send_text(audit->fd, request, (size_t)size)) {
        return ERR_CLOSED;
    }
    buffer_clear(answer);
    while (head == 0 || answer->size < head + length) {
        enum err err = buffer_reserve(answer, 65536);
        if (err != ERR_OK) {
            return err;
        }
        ssize_t n = recv(audit->fd, answer->data + answer->size, 65536, 0);
        if (n <= 0) {
            return ERR_CLOSED;
        }
        answer->size += (size_t)n;
        const uint8_t *end = head == 0 ? memmem(answer->data, answer->size, "\r\n\r\n", 4) : NULL;
        if (end != NULL) {
            head = (size_t)(end - answer->data) + 4;
            const char *mark = memmem(answer->data, head, "Content-Length: ", 16);
            length = mark != NULL ? strtoull(mark + 16, NULL, 10) : 0;
        }
    }
    *ret_body = slice_make(answer->data + head, length);
    return memcmp(answer->data + 9, "200", 3) == 0 ? ERR_OK : ERR_INVALID;
}

/* The ids of a page, and its cursor ("" on the last). */
static void page_take(struct audit *audit, struct slice body, char *cursor, size_t cursor_size)
{
    static const char id_mark[] = "{\"id\":\"";
    static const char cursor_mark[] = "\"next_cursor\":\"";
    struct slice rest = body;
    const uint8_t *at;
    while ((at = memmem(rest.data, rest.size, id_mark, sizeof(id_mark) - 1)) != NULL) {
        size_t from = (size_t)(at - rest.data) + sizeof(id_mark) - 1;
        struct id id;
        if (id_parse(slice_part(rest, from, from + ID_TEXT_BYTES), &id)) {
            id_seen(audit, id);
        }
        rest = slice_part(rest, from, rest.size);
    }
    cursor[0] = '\0';
    at = memmem(body.data, body.size, cursor_mark, sizeof(cursor_mark) - 1);
    if (at != NULL) {
        struct slice after;
        struct slice text =
            slice_part(body, (size_t)(at - body.data) + sizeof(cursor_mark) - 1, body.size);
        text = slice_cut(text, '"', &after);
        (void)snprintf(cursor, cursor_size, "&cursor=%.*s", (int)text.size,
                       (const char *)text.data);
    }
}

static enum err pages_read(struct audit *audit)
{
    char cursor[512] = "";
    char path[1024];
    struct progress progress;
    struct buffer answer;
    enum err err;
    buffer_init(&answer, PAGE_BYTES_MAX);
    progress_begin(&progress, "auditing");
    do {
        struct slice body;
        (void)snprintf(path, sizeof(path), "/api/v1/events?limit=1000&order=asc%s", cursor);
        err = page_read(audit, path, &answer, &body);
        if (err == ERR_OK) {
            page_take(audit, body, cursor, sizeof(cursor));
            progress_show(&progress, audit->rows, audit->count);
        }
    } while (err == ERR_OK && cursor[0] != '\0');
    progress_end(&progress);
    buffer_finish(&answer);
    return err;
}

/* Until the store holds what was acknowledged: an audit of a backlog would count what is only late
 * as lost. Bounded by ten minutes without any progress. */
static enum err drain_wait(struct audit *audit)
{
    static const char mark[] = "\"queue\":{\"records\":";
    uint64_t least = UINT64_MAX;
    uint64_t at_start = 0;
    uint64_t moved_ns = clock_mono_ns();
    struct progress progress;
    struct buffer answer;
    enum err err;
    buffer_init(&answer, PAGE_BYTES_MAX);
    progress_begin(&progress, "waiting for the store");
    for (;;) {
        struct slice body;
        err = page_read(audit, "/api/v1/status", &answer, &body);
        const uint8_t *at =
            err == ERR_OK ? memmem(body.data, body.size, mark, sizeof(mark) - 1) : NULL;
        if (at == NULL) {
            err = err == ERR_OK ? ERR_INVALID : err;
            break;
        }
        uint64_t queued = strtoull((const char *)at + sizeof(mark) - 1, NULL, 10);
        uint64_t now = clock_mono_ns();
        if (queued == 0) {
            break;
        }
        if (queued < least) {
            least = queued;
            moved_ns = now;
        } else if (now - moved_ns > DRAIN_PATIENCE_NS) {
            err = ERR_TIMEOUT;
            break;
        }
        at_start = queued > at_start ? queued : at_start;
        progress_show(&progress, at_start - queued, at_start);
        (void)poll(NULL, 0, 50);
    }
    progress_end(&progress);
    buffer_finish(&answer);
    return err;
}

static int verdict(const struct audit *audit)
{
    uint64_t lost = 0;
    uint64_t twice = 0;
    for (size_t i = 0; i < audit->count; i++) {
        lost += audit->seen[i] == 0;
        twice += audit->seen[i] > 1;
        if (audit->seen[i] == 0 && lost <= 10) {
            char text[ID_TEXT_BYTES];
            id_format(audit->ids[i], text);
            (void)fprintf(stderr, "lost: %.*s\n", ID_TEXT_BYTES, text);
        }
    }
    (void)printf("acknowledged %zu, found once %" PRIu64 ", lost %" PRIu64 ", twice %" PRIu64
                 ", events in the store %" PRIu64 "\n",
                 audit->count, (uint64_t)audit->count - lost - twice, lost, twice, audit->rows);
    return lost + twice == 0 ? 0 : 1;
}

int bench_audit(const struct bench_options *options)
{
    struct audit audit = {.options = options, .fd = -1};
    int status = 1;
    enum err err = ids_read(&audit, options->ids_file);
    if (err != ERR_OK) {
        (void)command_fail("bench: %s: %s", options->ids_file, err_text(err));
        goto out;
    }
    ids_prepare(&audit);
    audit.fd = bench_connect(options);
    if (audit.fd < 0) {
        (void)command_fail("bench: connect to %s port %u: %s", options->host, options->port,
                           err_text(err_from_errno(errno)));
        goto out;
    }
    err = drain_wait(&audit);
    if (err == ERR_OK) {
        err = pages_read(&audit);
    }
    if (err != ERR_OK) {
        (void)command_fail("bench: reading events: %s", err_text(err));
        goto out;
    }
    status = verdict(&audit);
out:
    if (audit.fd >= 0) {
        (void)close(audit.fd);
    }
    mem_free(audit.ids);
    mem_free(audit.seen);
    return status;
}
