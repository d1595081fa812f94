/* Err: the one list of errors, grouped by what the caller must do about them.
 *
 * Thread: values and constant text; any thread.
 * Memory: err_text and err_code return constant strings.
 * Errors: REJECT = the caller's data is wrong (4xx, never retry); RETRY = passing fault or
 *         overload (429, 503, back off); STOP = our data or code is wrong, stop the stage. */
#pragma once
#include <stddef.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF_LIKE(format_index, first_index)                                                     \
    __attribute__((format(printf, format_index, first_index)))

enum err_class { ERR_CLASS_OK, ERR_CLASS_REJECT, ERR_CLASS_RETRY, ERR_CLASS_STOP };

/* name, class, stable code for machines (API "code"), sentence for people */
#define ERR_LIST(X)                                                                                \
    X(ERR_OK, OK, "ok", "no error")                                                                \
    X(ERR_SYNTAX, REJECT, "malformed", "not well-formed")                                          \
    X(ERR_INVALID, REJECT, "invalid", "a value is not permitted here")                             \
    X(ERR_TOO_LARGE, REJECT, "payload_too_large", "larger than the limit")                         \
    X(ERR_DEPTH, REJECT, "too_deep", "nested deeper than the limit")                               \
    X(ERR_NOT_FOUND, REJECT, "not_found", "does not exist")                                        \
    X(ERR_EXISTS, REJECT, "already_exists", "exists already")                                      \
    X(ERR_UNAUTHORIZED, REJECT, "unauthorized", "no valid key")                                    \
    X(ERR_FORBIDDEN, REJECT, "forbidden", "the key lacks the scope")                               \
    X(ERR_UNSUPPORTED, REJECT, "unsupported", "not supported")                                     \
    X(ERR_REFUSED, REJECT, "refused", "the store refused the record")                              \
    X(ERR_FULL, RETRY, "queue_full", "a bounded queue is full")                                    \
    X(ERR_BUSY, RETRY, "busy", "in use, try again")                                                \
    X(ERR_AWAY, RETRY, "unavailable", "not reachable at the moment")                               \
    X(ERR_TIMEOUT, RETRY, "timeout", "took longer than permitted")                                 \
    X(ERR_NO_MEMORY, RETRY, "no_memory", "not enough memory")                                      \
    X(ERR_NO_SPACE, RETRY, "no_space", "the disk is full")                                         \
    X(ERR_DRAINING, RETRY, "draining", "shutting down")                                            \
    X(ERR_CLOSED, RETRY, "closed", "the other side went away")                                     \
    X(ERR_IO, STOP, "io", "input/output error")                                                    \
    X(ERR_CORRUPT, STOP, "corrupt", "stored data fails its check")                                 \
    X(ERR_VERSION, STOP, "version", "made by another version or program")                          \
    X(ERR_PERMISSION, STOP, "permission", "permission denied")                                     \
    X(ERR_LOCKED, STOP, "locked", "in use by another process")                                     \
    X(ERR_CONFIG, STOP, "config", "a setting is not valid")

enum err {
#define X(name, class, code, text) name,
    ERR_LIST(X)
#undef X
        ERR_COUNT
};

enum err_class err_class(enum err err);
/* Stable snake_case word, for API answers and metrics. */
const char *err_code(enum err err);
/* One short sentence, no full stop, for people. */
const char *err_text(enum err err);
/* Maps errno of a failed system call. 0 gives ERR_IO: a call failed and did not say why. */
enum err err_from_errno(int error_number);

/* Text for people where an operator reads it (open, settings, SQL). Each layer adds a prefix in
 * front: "open store: open /var/lib/weir/weir.db: permission denied". Cut at its size. */
struct err_detail {
    char text[512];
};

/* Replaces the text. `detail` may be NULL: nothing happens. */
void err_detail_set(struct err_detail *detail, const char *format, ...) PRINTF_LIKE(2, 3);
/* Puts "<prefix>: " in front of what is there. `detail` may be NULL. */
void err_detail_prefix(struct err_detail *detail, const char *format, ...) PRINTF_LIKE(2, 3);
