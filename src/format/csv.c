/* Csv: tables as text (RFC 4180).
 *
 * Reading, happy path: a row at a time from a whole file: cells between commas, quotes doubled
 * within quotes, lines ended by LF or CRLF, blank lines skipped, a byte order mark before the
 * first. Cells without quotes are slices of the file; others are put together in a buffer whose
 * room is made first. The apostrophe that keeps a spreadsheet from taking a cell for a formula is
 * taken off again, so what was written here reads back as it was. Failure modes: a quote that
 * stands in the middle of a cell, or never ends: ERR_SYNTAX, and the next row begins behind that
 * line. More cells than there is room for: ERR_TOO_LARGE. */
#include "format/format.h"

static bool csv_is_formula(uint8_t first)
{
    return first == '=' || first == '+' || first == '-' || first == '@' || first == '\t' ||
           first == '\r';
}

/* --- writing ------------------------------------------------------------------------------- */

static bool csv_needs_quotes(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '"' || c == ',' || c == '\r' || c == '\n') {
            return true;
        }
    }
    return false;
}

enum err format_csv_cell(struct slice text, struct buffer *to)
{
    enum err err = ERR_OK;
    bool is_formula = text.size > 0 && csv_is_formula(text.data[0]);
    bool is_quoted = csv_needs_quotes(text);
    if (is_quoted) {
        err = buffer_append_byte(to, '"');
    }
    if (err == ERR_OK && is_formula) {
        err = buffer_append_byte(to, '\'');
    }
    while (err == ERR_OK && text.size > 0) {
        size_t size = slice_find(text, '"');
        err = buffer_append_slice(to, slice_part(text, 0, size));
        if (err == ERR_OK && size < text.size) {
            err = buffer_append_text(to, "\"\"");
        }
        text = slice_part(text, size < text.size ? size + 1 : size, text.size);
    }
    if (err == ERR_OK && is_quoted) {
        err = buffer_append_byte(to, '"');
    }
    return err;
}

/* --- reading ------------------------------------------------------------------------------- */

void format_csv_begin(struct format_csv *csv, struct slice file)
{
    if (slice_starts_with(file, SLICE_LITERAL("\xef\xbb\xbf"))) {
        file = slice_part(file, 3, file.size);
    }
    csv->rest = file;
    csv->line = 0;
    csv->next_line = 1;
}

static void csv_skip(struct format_csv *csv, size_t size)
{
    csv->rest = slice_part(csv->rest, size, csv->rest.size);
}

static bool csv_is_end(const struct format_csv *csv)
{
    return csv->rest.size == 0 || csv->rest.data[0] == '\n' ||
           (csv->rest.data[0] == '\r' && csv->rest.size > 1 && csv->rest.data[1] == '\n');
}

static void csv_skip_end(struct format_csv *csv)
{
    if (csv->rest.size > 0) {
        csv->next_line++;
        csv_skip(csv, csv->rest.data[0] == '\r' ? 2 : 1);
    }
}

static enum err csv_quoted(struct format_csv *csv, struct buffer *texts, struct slice *ret)
{
    size_t before = texts->size;
    csv_skip(csv, 1);
    for (;;) {
        size_t size = slice_find(csv->rest, '"');
        if (size == csv->rest.size) {
            csv_skip(csv, size);
            return ERR_SYNTAX;
        }
        for (size_t i = 0; i < size; i++) {
            csv->next_line += csv->rest.data[i] == '\n';
        }
        enum err err = buffer_append_slice(texts, slice_part(csv->rest, 0, size));
        if (err != ERR_OK) {
            return err;
        }
        csv_skip(csv, size + 1);
        if (csv->rest.size == 0 || csv->rest.data[0] != '"') {
            break;
        }
        err = buffer_append_byte(texts, '"');
        if (err != ERR_OK) {
            return err;
        }
        csv_skip(csv, 1);
    }
    *ret = slice_make(texts->data + before, texts->size - before);
    return csv_is_end(csv) || csv->rest.data[0] == ',' ? ERR_OK : ERR_SYNTAX;
}

static enum err csv_plain(struct format_csv *csv, struct slice *ret)
{
    size_t size = 0;
    struct slice rest = csv->rest;
    while (size < rest.size && rest.data[size] != ',' && rest.data[size] != '\n') {
        if (rest.data[size] == '"') {
            return ERR_SYNTAX;
        }
        size++;
    }
    bool has_return =
        size > 0 && size < rest.size && rest.data[size] == '\n' && rest.data[size - 1] == '\r';
    size -= has_return ? 1 : 0;
    *ret = slice_part(rest, 0, size);
    csv_skip(csv, size);
    return ERR_OK;
}

static struct slice csv_without_guard(struct slice cell)
{
    bool is_guarded = cell.size > 1 && cell.data[0] == '\'' && csv_is_formula(cell.data[1]);
    return is_guarded ? slice_part(cell, 1, cell.size) : cell;
}

static enum err csv_cells(struct format_csv *csv, struct buffer *texts, struct slice *cells,
                          uint32_t max, uint32_t *ret_count)
{
    uint32_t count = 0;
    for (;;) {
        struct slice cell = {NULL, 0};
        bool is_quoted = csv->rest.size > 0 && csv->rest.data[0] == '"';
        enum err err = is_quoted ? csv_quoted(csv, texts, &cell) : csv_plain(csv, &cell);
        if (err == ERR_OK && count == max) {
            err = ERR_TOO_LARGE;
        }
        if (err != ERR_OK) {
            return err;
        }
        cells[count++] = csv_without_guard(cell);
        if (csv_is_end(csv)) {
            csv_skip_end(csv);
            *ret_count = count;
            return ERR_OK;
        }
        csv_skip(csv, 1);
    }
}

enum err format_csv_next(struct format_csv *csv, struct buffer *texts, struct slice *cells,
                         uint32_t max, uint32_t *ret_count)
{
    while (csv->rest.size > 0 && csv_is_end(csv)) {
        csv_skip_end(csv);
    }
    *ret_count = 0;
    if (csv->rest.size == 0) {
        return ERR_OK;
    }
    csv->line = csv->next_line;
    buffer_clear(texts);
    enum err err = buffer_reserve(texts, csv->rest.size);
    if (err == ERR_OK) {
        err = csv_cells(csv, texts, cells, max, ret_count);
    }
    if (err == ERR_SYNTAX || err == ERR_TOO_LARGE) {
        csv_skip(csv, slice_find(csv->rest, '\n'));
        csv_skip_end(csv);
    }
    return err;
}
