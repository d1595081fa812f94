/* What the tests of format share: an org, a moment, and one call that reads one event. */
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/hash.h"
#include "base/id.h"
#include "format/format.h"

#define READ_RECEIVED_MS 1700000000000

static const uint8_t read_id_key[32] = {1, 2, 3};

struct read {
    struct format_reader *reader;
    struct format_context context;
    struct record_event event;
    struct format_fault fault;
};

static int read_setup(void **state)
{
    assert_int_equal(hash_start(), ERR_OK);
    struct read *read = test_calloc(1, sizeof(*read));
    read->reader = format_reader_create();
    read->context = (struct format_context){.id_key = read_id_key,
                                            .frame_id = id_make_v7(READ_RECEIVED_MS),
                                            .received_ms = READ_RECEIVED_MS};
    *state = read;
    return 0;
}

static int read_teardown(void **state)
{
    struct read *read = *state;
    format_reader_destroy(read->reader);
    test_free(read);
    return 0;
}

static inline enum err read_form(struct read *read, enum record_form form, const char *text)
{
    return format_event_read(read->reader, form, slice_from_text(text), &read->context,
                             &read->event, &read->fault);
}

static inline void assert_slice(struct slice found, const char *expected)
{
    if (expected == NULL) {
        assert_null(found.data);
        return;
    }
    assert_non_null(found.data);
    if (!slice_equal(found, slice_from_text(expected))) {
        fail_msg("found %.*s, expected %s", (int)found.size, (const char *)found.data, expected);
    }
}

/* The element is refused, with this code at this place. */
static inline void assert_refused(struct read *read, enum record_form form, const char *text,
                                  const char *code, const char *pointer)
{
    enum err err = read_form(read, form, text);
    if (err != ERR_INVALID) {
        fail_msg("%s: %s", text, err_code(err));
    }
    assert_string_equal(read->fault.code, code);
    assert_string_equal(read->fault.pointer, pointer);
}
