/* Format text: what text may hold. */
#include "format/reader.h"

/* Bytes that follow a UTF-8 lead byte, and the range of the first of them (Unicode, table 3-7). */
struct format_utf8_lead {
    size_t follow;
    uint8_t first_min;
    uint8_t first_max;
};

/* follow 0 for a byte that leads nothing. */
static struct format_utf8_lead format_utf8_lead(uint8_t byte)
{
    if (byte >= 0xc2 && byte <= 0xdf) {
        return (struct format_utf8_lead){1, 0x80, 0xbf};
    }
    if (byte >= 0xe0 && byte <= 0xef) {
        return (struct format_utf8_lead){2, byte == 0xe0 ? 0xa0 : 0x80, byte == 0xed ? 0x9f : 0xbf};
    }
    if (byte >= 0xf0 && byte <= 0xf4) {
        return (struct format_utf8_lead){3, byte == 0xf0 ? 0x90 : 0x80, byte == 0xf4 ? 0x8f : 0xbf};
    }
    return (struct format_utf8_lead){0, 0, 0};
}

bool format_utf8_is_valid(struct slice text)
{
    size_t i = 0;
    while (i < text.size) {
        if (text.data[i] < 0x80) {
            i++;
            continue;
        }
        struct format_utf8_lead lead = format_utf8_lead(text.data[i]);
        if (lead.follow == 0 || text.size - i <= lead.follow || text.data[i + 1] < lead.first_min ||
            text.data[i + 1] > lead.first_max) {
            return false;
        }
        for (size_t k = 2; k <= lead.follow; k++) {
            if ((text.data[i + k] & 0xc0) != 0x80) {
                return false;
            }
        }
        i += lead.follow + 1;
    }
    return true;
}

static bool format_is_alnum(uint8_t byte)
{
    uint8_t lower = byte | 0x20;
    return (byte >= '0' && byte <= '9') || (lower >= 'a' && lower <= 'z');
}

bool format_base64_is_valid(struct slice text)
{
    size_t size = text.size;
    if (size % 4 != 0) {
        return false;
    }
    for (size_t pad = 0; pad < 2 && size != 0 && text.data[size - 1] == '='; pad++) {
        size--;
    }
    for (size_t i = 0; i < size; i++) {
        if (!format_is_alnum(text.data[i]) && text.data[i] != '+' && text.data[i] != '/') {
            return false;
        }
    }
    return true;
}

static bool format_is_type_byte(uint8_t byte)
{
    return format_is_alnum(byte) || byte == '.' || byte == '_' || byte == '/' || byte == '-';
}

bool format_type_is_valid(struct slice type)
{
    if (type.size == 0 || type.size > LIMIT_TYPE_BYTES) {
        return false;
    }
    for (size_t i = 0; i < type.size; i++) {
        if (!format_is_type_byte(type.data[i])) {
            return false;
        }
    }
    return true;
}

enum err format_type_map(struct slice prefix, struct slice name, struct buffer *to)
{
    size_t room = LIMIT_TYPE_BYTES - prefix.size;
    enum err err = buffer_append_slice(to, prefix);
    for (size_t i = 0; err == ERR_OK && i < name.size && room > 0; i++) {
        if ((name.data[i] & 0xc0) == 0x80) {
            continue; /* one '_' a character, not a byte */
        }
        err = buffer_append_byte(to, format_is_type_byte(name.data[i]) ? name.data[i] : '_');
        room--;
    }
    return err;
}
