/* Promise: a table that was written reads back cell by cell, whatever its cells hold, and a line
 * that is wrong is told with its number and hides no other. */
#include "format/format.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CELLS_MAX 8u

static enum err next(struct format_csv *csv, struct buffer *texts, struct slice *cells,
                     uint32_t *ret_count)
{
    return format_csv_next(csv, texts, cells, CELLS_MAX, ret_count);
}

static void assert_cell(struct slice cell, const char *expected)
{
    assert_int_equal(cell.size, strlen(expected));
    assert_memory_equal(cell.data, expected, cell.size);
}

/* The examples of RFC 4180, 2, with a mark before them and a blank line between. */
static void test_the_forms_of_the_rfc(void **state)
{
    (void)state;
    static const char file[] = "\xef\xbb\xbf"
                               "aaa,bbb,ccc\r\n\r\n\"aaa\",\"b \r\nbb\",\"c\"\"c\"\n,,\n"
                               "zzz,yyy,xxx";
    struct format_csv csv;
    struct buffer texts;
    struct slice cells[CELLS_MAX];
    uint32_t count = 0;
    buffer_init(&texts, sizeof(file));
    format_csv_begin(&csv, slice_from_text(file));
    assert_int_equal(next(&csv, &texts, cells, &count), ERR_OK);
    assert_int_equal(count, 3);
    assert_int_equal(csv.line, 1);
    assert_cell(cells[2], "ccc");
    assert_int_equal(next(&csv, &texts, cells, &count), ERR_OK);
    assert_int_equal(csv.line, 3);
    assert_cell(cells[1], "b \r\nbb");
    assert_cell(cells[2], "c\"c");
    assert_int_equal(next(&csv, &texts, cells, &count), ERR_OK);
    assert_int_equal(csv.line, 5);
    assert_int_equal(count, 3);
    assert_cell(cells[1], "");
    assert_int_equal(next(&csv, &texts, cells, &count), ERR_OK);
    assert_int_equal(csv.line, 6);
    assert_cell(cells[2], "xxx");
    assert_int_equal(next(&csv, &texts, cells, &count), ERR_OK);
    assert_int_equal(count, 0);
    buffer_finish(&texts);
}

static void test_a_wrong_line_hides_no_other(void **state)
{
    (void)state;
    static const char file[] = "a\nb\"c,d\n\"e\"f\n1,2,3,4,5,6,7,8,9\ng\n\"never\nends";
    static const struct {
        uint32_t line;
        enum err err;
    } expected[] = {{1, ERR_OK},        {2, ERR_SYNTAX}, {3, ERR_SYNTAX},
                    {4, ERR_TOO_LARGE}, {5, ERR_OK},     {6, ERR_SYNTAX}};
    struct format_csv csv;
    struct buffer texts;
    struct slice cells[CELLS_MAX];
    uint32_t count = 0;
    buffer_init(&texts, sizeof(file));
    format_csv_begin(&csv, slice_from_text(file));
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        assert_int_equal(next(&csv, &texts, cells, &count), expected[i].err);
        assert_int_equal(csv.line, expected[i].line);
    }
    assert_int_equal(next(&csv, &texts, cells, &count), ERR_OK);
    assert_int_equal(count, 0);
    buffer_finish(&texts);
}

static void test_what_was_written_reads_back(void **state)
{
    (void)state;
    static const char letters[] = "a,\"\n\r='+-@ ;";
    unsigned seed = (unsigned)time(NULL);
    print_message("seed %u\n", seed);
    srand(seed);
    for (int turn = 0; turn < 2000; turn++) {
        char sent[3][8];
        struct buffer file;
        struct buffer texts;
        struct format_csv csv;
        struct slice cells[CELLS_MAX];
        uint32_t count = 0;
        buffer_init(&file, 1024);
        buffer_init(&texts, 1024);
        for (int i = 0; i < 3; i++) {
            int size = rand() % 7;
            for (int n = 0; n < size; n++) {
                sent[i][n] = letters[(size_t)rand() % (sizeof(letters) - 1)];
            }
            /* The guard is an apostrophe: text that looks like a guarded formula reads as one. */
            if (size > 1 && sent[i][0] == '\'') {
                sent[i][0] = 'x';
            }
            sent[i][size] = 0;
            assert_int_equal(format_csv_cell(slice_from_text(sent[i]), &file), ERR_OK);
            assert_int_equal(buffer_append_text(&file, i < 2 ? "," : "\r\n"), ERR_OK);
        }
        format_csv_begin(&csv, buffer_slice(&file));
        assert_int_equal(next(&csv, &texts, cells, &count), ERR_OK);
        assert_int_equal(count, 3);
        for (int i = 0; i < 3; i++) {
            assert_cell(cells[i], sent[i]);
        }
        buffer_finish(&texts);
        buffer_finish(&file);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_forms_of_the_rfc),
        cmocka_unit_test(test_a_wrong_line_hides_no_other),
        cmocka_unit_test(test_what_was_written_reads_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
