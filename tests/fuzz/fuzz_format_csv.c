/* Fuzz: a CSV file. Every row ends, line numbers rise, cells lie within what was given or put
 * together, and no file keeps the reader for ever. */
#include "format/format.h"

#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CELLS_MAX 16u

static void must(bool holds, const char *what)
{
    if (!holds) {
        (void)fprintf(stderr, "fuzz_format_csv: %s\n", what);
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct format_csv csv;
    struct buffer texts;
    struct slice cells[CELLS_MAX];
    uint32_t last = 0;
    buffer_init(&texts, size + 1);
    format_csv_begin(&csv, slice_make(data, size));
    for (size_t rows = 0; rows <= size + 1; rows++) {
        uint32_t count = 0;
        size_t left = csv.rest.size;
        enum err err = format_csv_next(&csv, &texts, cells, CELLS_MAX, &count);
        must(err == ERR_OK || err == ERR_SYNTAX || err == ERR_TOO_LARGE, "another error");
        if (err == ERR_OK && count == 0) {
            buffer_finish(&texts);
            return 0;
        }
        must(csv.rest.size < left, "a row of nothing");
        must(csv.line > last && csv.next_line >= csv.line, "lines do not rise");
        must(count <= CELLS_MAX, "too many cells");
        last = csv.line;
        for (uint32_t i = 0; i < count; i++) {
            must(cells[i].size <= size, "a cell is too long");
        }
    }
    must(false, "it does not end");
    return 0;
}
