/* Err: the texts of the one list, and how errno maps onto it.
 *
 * Everything here is a table: the list of errors is expanded once into rows, and errno is looked
 * up in a second table, because the question "what must the caller do about this errno" is data.
 * An errno without a row is ERR_IO: unknown trouble of a file or socket stops the stage rather
 * than being retried for ever. */
#include "base/err.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct err_row {
    enum err_class class;
    const char *code;
    const char *text;
};

static const struct err_row err_rows[ERR_COUNT] = {
#define X(name, class, code, text) {ERR_CLASS_##class, code, text},
    ERR_LIST(X)
#undef X
};

static const struct {
    int error_number;
    enum err err;
} err_numbers[] = {
    {ENOENT, ERR_NOT_FOUND},    {EEXIST, ERR_EXISTS},
    {ENOTEMPTY, ERR_EXISTS},    {EACCES, ERR_PERMISSION},
    {EPERM, ERR_PERMISSION},    {EROFS, ERR_PERMISSION},
    {ENOMEM, ERR_NO_MEMORY},    {ENOBUFS, ERR_NO_MEMORY},
    {ENOSPC, ERR_NO_SPACE},     {EDQUOT, ERR_NO_SPACE},
    {EAGAIN, ERR_BUSY},         {EBUSY, ERR_BUSY},
    {EMFILE, ERR_BUSY},         {ENFILE, ERR_BUSY},
    {ETIMEDOUT, ERR_TIMEOUT},   {ECONNREFUSED, ERR_AWAY},
    {EHOSTUNREACH, ERR_AWAY},   {ENETUNREACH, ERR_AWAY},
    {ENETDOWN, ERR_AWAY},       {ECONNRESET, ERR_CLOSED},
    {ECONNABORTED, ERR_CLOSED}, {EPIPE, ERR_CLOSED},
    {ENOTCONN, ERR_CLOSED},     {EADDRINUSE, ERR_LOCKED},
    {ENOTSUP, ERR_UNSUPPORTED}, {EAFNOSUPPORT, ERR_UNSUPPORTED},
};

enum err_class err_class(enum err err)
{
    assert(err < ERR_COUNT);
    return err_rows[err].class;
}

const char *err_code(enum err err)
{
    assert(err < ERR_COUNT);
    return err_rows[err].code;
}

const char *err_text(enum err err)
{
    assert(err < ERR_COUNT);
    return err_rows[err].text;
}

enum err err_from_errno(int error_number)
{
    for (size_t i = 0; i < sizeof(err_numbers) / sizeof(err_numbers[0]); i++) {
        if (err_numbers[i].error_number == error_number) {
            return err_numbers[i].err;
        }
    }
    return ERR_IO;
}

void err_detail_set(struct err_detail *detail, const char *format, ...)
{
    if (detail == NULL) {
        return;
    }
    /* The arguments may point into the text that is being replaced. */
    struct err_detail fresh;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fresh.text, sizeof(fresh.text), format, arguments);
    va_end(arguments);
    *detail = fresh;
}

/* Cut where the text is full. */
static void err_detail_append(struct err_detail *detail, const char *text)
{
    size_t used = strlen(detail->text);
    size_t room = sizeof(detail->text) - 1 - used;
    size_t size = strnlen(text, room);
    memcpy(detail->text + used, text, size);
    detail->text[used + size] = 0;
}

void err_detail_prefix(struct err_detail *detail, const char *format, ...)
{
    if (detail == NULL) {
        return;
    }
    struct err_detail fresh;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(fresh.text, sizeof(fresh.text), format, arguments);
    va_end(arguments);
    err_detail_append(&fresh, ": ");
    err_detail_append(&fresh, detail->text);
    *detail = fresh;
}
