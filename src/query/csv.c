/* Csv: a cell is quoted when it holds what separates cells or rows, quotes are doubled, and one
 * that begins like a formula gets an apostrophe before it, which spreadsheets take for "this is
 * text". */
#include "query/csv.h"

static bool query_csv_is_formula(uint8_t first)
{
    return first == '=' || first == '+' || first == '-' || first == '@' || first == '\t' ||
           first == '\r';
}

static bool query_csv_needs_quotes(struct slice text)
{
    for (size_t i = 0; i < text.size; i++) {
        uint8_t c = text.data[i];
        if (c == '"' || c == ',' || c == '\r' || c == '\n') {
            return true;
        }
    }
    return false;
}

enum err query_csv_cell(struct slice text, struct buffer *to)
{
    enum err err = ERR_OK;
    bool is_formula = text.size > 0 && query_csv_is_formula(text.data[0]);
    bool is_quoted = query_csv_needs_quotes(text);
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
