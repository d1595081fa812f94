/* Comma locale: a locale whose decimal point is a comma, made on the spot by libc's own localedef,
 * so that what depends on the locale shows on every machine.
 *
 * Thread: one; the locale is the process's.  Memory: none.  Errors: asserted. */
#pragma once
#include "support/tree.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <locale.h>

/* From here to comma_locale_leave printf and strtod of the C library speak comma. */
static inline void comma_locale_enter(void)
{
    char folder[] = "/tmp/json_locale_XXXXXX";
    char text[512];
    assert_non_null(mkdtemp(folder));
    /* It warns, by its exit status too, that the other categories are missing. */
    (void)snprintf(text, sizeof(text),
                   "printf 'escape_char /\\ncomment_char %%%%\\nLC_NUMERIC\\n"
                   "decimal_point \"<U002C>\"\\nthousands_sep \"\"\\ngrouping -1\\n"
                   "END LC_NUMERIC\\n' >%s/source && "
                   "localedef -c -i %s/source %s/comma >/dev/null 2>&1",
                   folder, folder, folder);
    (void)!system(text); /* NOLINT(cert-env33-c): words of our own */
    assert_int_equal(setenv("LOCPATH", folder, 1), 0);
    const char *set = setlocale(LC_NUMERIC, "comma");
    tree_remove(folder);
    assert_non_null(set);
    (void)snprintf(text, sizeof(text), "%.1f", 1.5);
    assert_string_equal(text, "1,5");
}

static inline void comma_locale_leave(void)
{
    assert_non_null(setlocale(LC_ALL, "C"));
}
