/* The head of a request, line by line.
 *
 *   request-line CRLF  *( field-name ":" OWS field-value OWS CRLF )  CRLF
 *
 * A step looks for the end of the next line and parses each line once it is there, so a head that
 * arrives in pieces costs no more than one that arrives whole and gives the same result: every
 * decision is made on a complete line, and the two limits on what is not complete yet (a request
 * line, a head) are the same that complete ones meet.
 *
 * Strictness: where two readers of the same bytes could disagree, the request is refused and the
 * connection closed, since what follows cannot be trusted: bare CR, bare LF, NUL, whitespace before
 * the colon, folded lines, Content-Length twice or beside Transfer-Encoding, codings other than
 * `chunked`. Tabs around the values of framing fields are legal but read differently by others, so
 * they are refused as well.
 *
 * Happy path: MORE, MORE, DONE.
 * Failure modes: BAD with 400, 414, 431, 501 (transfer coding), 505: close. DONE with a refusal
 * (501 method, 417): what the request asks for cannot be had, but where it ends is certain. */
#include "http/parser.h"

#include <assert.h>
#include <string.h>

#include "http/chars.h"
#include "http/http.h"

/* A request line that is longer is refused before its end is seen. */
#define REQUEST_LINE_BYTES_MAX (LIMIT_TARGET_BYTES + 64u)

static_assert(LIMIT_HEAD_BYTES <= UINT16_MAX, "offsets of fields have 16 bits");
static_assert(LIMIT_HEADER_COUNT < UINT8_MAX, "indexes of known fields have 8 bits");

/* Looks at every byte without leaving early: almost every head is valid, and a loop without a
 * branch takes half the time. */
static bool is_class(const uint8_t *data, size_t size, uint8_t class)
{
    uint8_t common = class;
    for (size_t i = 0; i < size; i++) {
        common &= http_chars[data[i]];
    }
    return common == class;
}

bool http_is_token(struct slice s)
{
    return s.size > 0 && is_class(s.data, s.size, HTTP_CHAR_TOKEN);
}

#define EACH_BYTE UINT64_C(0x0101010101010101)

static uint64_t load_word(const void *at)
{
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

/* Whether one of eight bytes is a control character; a tab is, too. */
static bool word_has_control(uint64_t word)
{
    uint64_t below_space = (word - EACH_BYTE * 0x20) & ~word;
    uint64_t other = word ^ (EACH_BYTE * 0x7f);
    uint64_t is_delete = (other - EACH_BYTE) & ~other;
    return ((below_space | is_delete) & (EACH_BYTE * 0x80)) != 0;
}

/* Eight bytes at a time; what that finds suspect, and what is shorter, by the table. */
bool http_is_field_value(struct slice s)
{
    if (s.size < sizeof(uint64_t)) {
        return is_class(s.data, s.size, HTTP_CHAR_VALUE);
    }
    size_t last = s.size - sizeof(uint64_t);
    bool is_suspect = word_has_control(load_word(s.data + last));
    for (size_t i = 0; i < last; i += sizeof(uint64_t)) {
        is_suspect |= word_has_control(load_word(s.data + i));
    }
    return !is_suspect || is_class(s.data, s.size, HTTP_CHAR_VALUE);
}

static bool is_digits(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        if (s.data[i] < '0' || s.data[i] > '9') {
            return false;
        }
    }
    return true;
}

static bool is_address_v6(struct slice s)
{
    for (size_t i = 0; i < s.size; i++) {
        uint8_t c = s.data[i] | 0x20;
        bool is_hex = (c >= 'a' && c <= 'f') || (s.data[i] >= '0' && s.data[i] <= '9');
        if (!is_hex && s.data[i] != ':' && s.data[i] != '.') {
            return false;
        }
    }
    return s.size >= 2;
}

bool http_is_authority(struct slice s)
{
    size_t host_end = 0;
    if (s.size > 0 && s.data[0] == '[') {
        size_t close = slice_find(s, ']');
        if (close == s.size || !is_address_v6(slice_part(s, 1, close))) {
            return false;
        }
        host_end = close + 1;
    } else {
        host_end = slice_find(s, ':');
        if (host_end == 0 || !is_class(s.data, host_end, HTTP_CHAR_HOST)) {
            return false;
        }
    }
    if (host_end == s.size) {
        return s.size > 0;
    }
    struct slice port = slice_part(s, host_end + 1, s.size);
    uint64_t number = 0;
    if (s.data[host_end] != ':' || !is_digits(port)) {
        return false;
    }
    return port.size == 0 || (slice_to_u64(port, &number) && number <= UINT16_MAX);
}

bool http_list_has(struct slice list, const char *token)
{
    struct slice wanted = slice_from_text(token);
    while (list.size > 0) {
        struct slice one = slice_trim(slice_cut(list, ',', &list));
        if (slice_equal_nocase(one, wanted)) {
            return true;
        }
    }
    return false;
}

static enum http_parse bad(struct http_parser *parser, int status, const char *code,
                           const char *detail)
{
    parser->fault = (struct http_fault){status, code, detail};
    return HTTP_PARSE_BAD;
}

static enum http_parse bad_request(struct http_parser *parser, const char *detail)
{
    return bad(parser, 400, "bad_request", detail);
}

void http_parser_init(struct http_parser *parser, struct http_head *head)
{
    *parser = (struct http_parser){0};
    memset(head, 0, offsetof(struct http_head, fields));
}

/* --- request line ----------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint8_t size;
    uint8_t method;
} methods[] = {
    {"GET", 3, HTTP_GET},         {"POST", 4, HTTP_POST},     {"PUT", 3, HTTP_PUT},
    {"HEAD", 4, HTTP_HEAD},       {"DELETE", 6, HTTP_DELETE}, {"PATCH", 5, HTTP_PATCH},
    {"OPTIONS", 7, HTTP_OPTIONS},
};

static void find_method(struct http_parser *parser, struct http_head *head, struct slice name)
{
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (name.size == methods[i].size && memcmp(name.data, methods[i].name, name.size) == 0) {
            head->method = methods[i].method;
            return;
        }
    }
    parser->is_connect = slice_equal(name, SLICE_LITERAL("CONNECT"));
    head->refusal =
        (struct http_fault){501, "not_implemented", "The server does not know this method."};
}

/* "HTTP/" DIGIT "." DIGIT; other versions than 1.0 and 1.1 are 505. */
static enum http_parse parse_version(struct http_parser *parser, struct http_head *head,
                                     struct slice text)
{
    if (text.size != 8 || memcmp(text.data, "HTTP/", 5) != 0 || text.data[6] != '.' ||
        !is_digits(slice_part(text, 5, 6)) || !is_digits(slice_part(text, 7, 8))) {
        return bad_request(parser, "The request line is malformed.");
    }
    if (text.data[5] != '1' || text.data[7] > '1') {
        return bad(parser, 505, "version_unsupported", "Only HTTP/1.1 and HTTP/1.0 are spoken.");
    }
    head->minor = (uint8_t)(text.data[7] - '0');
    return HTTP_PARSE_DONE;
}

/* The authority of the absolute form; gives the bytes before the path, 0 when malformed. */
static size_t absolute_prefix(struct slice target)
{
    size_t scheme = 0;
    if (slice_equal_nocase(slice_part(target, 0, 7), SLICE_LITERAL("http://"))) {
        scheme = 7;
    } else if (slice_equal_nocase(slice_part(target, 0, 8), SLICE_LITERAL("https://"))) {
        scheme = 8;
    } else {
        return 0;
    }
    size_t end = scheme;
    while (end < target.size && target.data[end] != '/' && target.data[end] != '?') {
        end++;
    }
    return http_is_authority(slice_part(target, scheme, end)) ? end : 0;
}

/* Every '%' of the path is followed by two hexadecimal digits. */
static bool escapes_are_whole(struct slice path)
{
    const uint8_t *percent = path.data;
    const uint8_t *end = path.data + path.size;
    while ((percent = memchr(percent, '%', (size_t)(end - percent))) != NULL) {
        if (end - percent < 3) {
            return false;
        }
        for (size_t i = 1; i <= 2; i++) {
            uint8_t c = percent[i] | 0x20;
            if (!(percent[i] >= '0' && percent[i] <= '9') && !(c >= 'a' && c <= 'f')) {
                return false;
            }
        }
        percent += 3;
    }
    return true;
}

static enum http_parse parse_target(struct http_parser *parser, struct http_head *head,
                                    struct slice target)
{
    if (target.size == 0 || !is_class(target.data, target.size, HTTP_CHAR_TARGET)) {
        return bad_request(parser, "The request target holds a byte that is not permitted.");
    }
    if (parser->is_connect) {
        return HTTP_PARSE_DONE;
    }
    if (target.size == 1 && target.data[0] == '*') {
        head->asterisk = head->method == HTTP_OPTIONS && head->refusal.status == 0;
        return head->asterisk ? HTTP_PARSE_DONE
                              : bad_request(parser, "The target * is for OPTIONS alone.");
    }
    size_t path = 0;
    if (target.data[0] != '/') {
        path = absolute_prefix(target);
        if (path == 0) {
            return bad_request(parser, "The request target is neither a path nor an http URL.");
        }
    }
    size_t path_end = path + slice_find(slice_part(target, path, target.size), '?');
    if (!escapes_are_whole(slice_part(target, path, path_end))) {
        return bad_request(parser, "The path holds a malformed percent escape.");
    }
    head->path = (uint16_t)(head->target + path);
    head->path_size = (uint16_t)(path_end - path);
    if (path_end < target.size) {
        head->query = (uint16_t)(head->target + path_end + 1);
        head->query_size = (uint16_t)(target.size - path_end - 1);
    }
    return HTTP_PARSE_DONE;
}

/* DONE: the line is good. */
static enum http_parse parse_request_line(struct http_parser *parser, struct http_head *head,
                                          const uint8_t *data, struct slice line)
{
    size_t method_end = slice_find(line, ' ');
    struct slice method = slice_part(line, 0, method_end);
    struct slice rest = slice_part(line, method_end + 1, line.size);
    size_t target_end = slice_find(rest, ' ');
    struct slice target = slice_part(rest, 0, target_end);
    if (!http_is_token(method) || target_end == rest.size) {
        return bad_request(parser, "The request line is malformed.");
    }
    if (target.size > LIMIT_TARGET_BYTES) {
        return bad(parser, 414, "uri_too_long", "The request target is longer than 8 KiB.");
    }
    enum http_parse result =
        parse_version(parser, head, slice_part(rest, target_end + 1, rest.size));
    if (result != HTTP_PARSE_DONE) {
        return result;
    }
    find_method(parser, head, method);
    head->target = (uint16_t)(target.data - data);
    head->target_size = (uint16_t)target.size;
    parser->have_request_line = true;
    return parse_target(parser, head, target);
}

/* --- fields ----------------------------------------------------------------------------------- */

/* Lower-case text of a token of at least 4 bytes: or-ing 0x20 maps no other token byte onto a
 * letter or a hyphen. */
static bool same_name(const uint8_t *name, const char *lower, size_t size)
{
    if (size < sizeof(uint64_t)) {
        uint32_t first[2];
        uint32_t last[2];
        memcpy(&first[0], name, sizeof(first[0]));
        memcpy(&first[1], lower, sizeof(first[1]));
        memcpy(&last[0], name + size - sizeof(last[0]), sizeof(last[0]));
        memcpy(&last[1], lower + size - sizeof(last[1]), sizeof(last[1]));
        return (first[0] | 0x20202020u) == first[1] && (last[0] | 0x20202020u) == last[1];
    }
    size_t end = size - sizeof(uint64_t);
    bool is_same = (load_word(name + end) | EACH_BYTE * 0x20) == load_word(lower + end);
    for (size_t i = 0; i < end && is_same; i += sizeof(uint64_t)) {
        is_same = (load_word(name + i) | EACH_BYTE * 0x20) == load_word(lower + i);
    }
    return is_same;
}

static enum http_known find_known(const uint8_t *name, size_t size)
{
    static const struct {
        const char *name;
        uint8_t size;
        uint8_t known;
    } rows[] = {
        {"host", 4, HTTP_KNOWN_HOST},
        {"expect", 6, HTTP_KNOWN_EXPECT},
        {"origin", 6, HTTP_KNOWN_ORIGIN},
        {"connection", 10, HTTP_KNOWN_CONNECTION},
        {"x-request-id", 12, HTTP_KNOWN_REQUEST_ID},
        {"if-none-match", 13, HTTP_KNOWN_IF_NONE_MATCH},
        {"content-length", 14, HTTP_KNOWN_CONTENT_LENGTH},
        {"accept-encoding", 15, HTTP_KNOWN_ACCEPT_ENCODING},
        {"content-encoding", 16, HTTP_KNOWN_CONTENT_ENCODING},
        {"transfer-encoding", 17, HTTP_KNOWN_TRANSFER_ENCODING},
    };
    /* By length: 1 + the first row that has it. */
    static const uint8_t firsts[] = {
        [4] = 1, [6] = 2, [10] = 4, [12] = 5, [13] = 6, [14] = 7, [15] = 8, [16] = 9, [17] = 10};
    size_t i = size < sizeof(firsts) ? firsts[size] : 0;
    if (i == 0) {
        return HTTP_KNOWN_OTHER;
    }
    for (i--; i < sizeof(rows) / sizeof(rows[0]) && rows[i].size == size; i++) {
        if (same_name(name, rows[i].name, size)) {
            return rows[i].known;
        }
    }
    return HTTP_KNOWN_OTHER;
}

/* "chunked" alone is understood. A list in which chunked is not last, or stands twice, does not
 * say where the body ends. */
static enum http_parse parse_transfer_coding(struct http_parser *parser, struct http_head *head,
                                             struct slice value)
{
    if (slice_equal_nocase(value, SLICE_LITERAL("chunked"))) {
        head->body_bytes = -1;
        return HTTP_PARSE_DONE;
    }
    uint32_t chunked = 0;
    bool is_last = false;
    struct slice rest = value;
    do {
        struct slice coding = slice_trim(slice_cut(rest, ',', &rest));
        is_last = slice_equal_nocase(coding, SLICE_LITERAL("chunked"));
        chunked += is_last ? 1 : 0;
        if (!http_is_token(coding)) {
            return bad_request(parser, "Transfer-Encoding is malformed.");
        }
    } while (rest.data != NULL);
    if (chunked > 1 || (chunked == 1 && !is_last)) {
        return bad_request(parser, "In Transfer-Encoding, chunked has to be last and alone.");
    }
    return bad(parser, 501, "not_implemented", "Only the transfer coding chunked is known.");
}

static enum http_parse parse_content_length(struct http_parser *parser, struct http_head *head,
                                            struct slice value)
{
    uint64_t bytes = 0;
    if (!slice_to_u64(value, &bytes) || bytes > INT64_MAX) {
        return bad_request(parser, "Content-Length is not one decimal number.");
    }
    head->body_bytes = (int64_t)bytes;
    return HTTP_PARSE_DONE;
}

static void parse_connection(struct http_parser *parser, struct slice value)
{
    parser->close_named = parser->close_named || http_list_has(value, "close");
    parser->keep_named = parser->keep_named || http_list_has(value, "keep-alive");
}

static void parse_expect(struct http_head *head, struct slice value)
{
    if (slice_equal_nocase(value, SLICE_LITERAL("100-continue"))) {
        head->expect_continue = true;
    } else if (head->refusal.status == 0) {
        head->refusal =
            (struct http_fault){417, "expectation_failed", "Only 100-continue can be expected."};
    }
}

static enum http_parse parse_host(struct http_parser *parser, struct slice value)
{
    return http_is_authority(value)
               ? HTTP_PARSE_DONE
               : bad_request(parser, "Host is not a host with an optional port.");
}

/* Fields that decide where the request ends, and Host: once each, and without tabs. */
static enum http_parse parse_single(struct http_parser *parser, struct http_head *head,
                                    enum http_known known, struct slice raw)
{
    struct slice value = slice_trim(raw);
    if (head->known[known] != 0) {
        return bad_request(parser, "Host, Content-Length or Transfer-Encoding came twice.");
    }
    if (slice_find(raw, '\t') < raw.size) {
        return bad_request(parser, "Host, Content-Length or Transfer-Encoding holds a tab.");
    }
    if (known == HTTP_KNOWN_HOST) {
        return parse_host(parser, value);
    }
    return known == HTTP_KNOWN_CONTENT_LENGTH ? parse_content_length(parser, head, value)
                                              : parse_transfer_coding(parser, head, value);
}

static enum http_parse parse_known(struct http_parser *parser, struct http_head *head,
                                   enum http_known known, struct slice raw)
{
    switch (known) {
    case HTTP_KNOWN_HOST:
    case HTTP_KNOWN_CONTENT_LENGTH:
    case HTTP_KNOWN_TRANSFER_ENCODING:
        return parse_single(parser, head, known, raw);
    case HTTP_KNOWN_CONNECTION:
        parse_connection(parser, slice_trim(raw));
        break;
    case HTTP_KNOWN_EXPECT:
        parse_expect(head, slice_trim(raw));
        break;
    case HTTP_KNOWN_CONTENT_ENCODING:
        head->content_codings_many = head->content_codings_many || head->known[known] != 0;
        break;
    case HTTP_KNOWN_ACCEPT_ENCODING:
    case HTTP_KNOWN_ORIGIN:
    case HTTP_KNOWN_REQUEST_ID:
    case HTTP_KNOWN_IF_NONE_MATCH:
    case HTTP_KNOWN_OTHER:
        break;
    }
    return HTTP_PARSE_DONE;
}

static enum http_parse parse_field(struct http_parser *parser, struct http_head *head,
                                   const uint8_t *data, struct slice line)
{
    size_t name_size = 0;
    while (name_size < line.size && (http_chars[line.data[name_size]] & HTTP_CHAR_TOKEN) != 0) {
        name_size++;
    }
    if (name_size == 0 || name_size == line.size || line.data[name_size] != ':') {
        return bad_request(parser, "A header line is malformed.");
    }
    struct slice raw = slice_part(line, name_size + 1, line.size);
    if (!http_is_field_value(raw)) {
        return bad_request(parser, "A header value holds a control character.");
    }
    if (head->field_count == LIMIT_HEADER_COUNT) {
        return bad(parser, 431, "headers_too_large", "There are more than 100 headers.");
    }
    struct slice value = slice_trim(raw);
    head->fields[head->field_count] = (struct http_field){
        .name = (uint16_t)(line.data - data),
        .name_size = (uint16_t)name_size,
        .value = (uint16_t)(value.size == 0 ? raw.data - data : value.data - data),
        .value_size = (uint16_t)value.size,
    };
    head->field_count++;
    head->names |= http_name_bit(line.data, name_size);
    enum http_known known = find_known(line.data, name_size);
    if (known == HTTP_KNOWN_OTHER) {
        return HTTP_PARSE_DONE;
    }
    enum http_parse result = parse_known(parser, head, known, raw);
    if (head->known[known] == 0) {
        head->known[known] = (uint8_t)head->field_count;
    }
    return result;
}

/* The empty line is there: what the fields mean together. */
static enum http_parse finish_head(struct http_parser *parser, struct http_head *head)
{
    bool has_coding = head->known[HTTP_KNOWN_TRANSFER_ENCODING] != 0;
    if (has_coding && head->known[HTTP_KNOWN_CONTENT_LENGTH] != 0) {
        return bad_request(parser, "Content-Length and Transfer-Encoding came together.");
    }
    if (has_coding && head->minor == 0) {
        return bad_request(parser, "HTTP/1.0 has no Transfer-Encoding.");
    }
    if (head->minor == 1 && head->known[HTTP_KNOWN_HOST] == 0) {
        return bad_request(parser, "The Host header is missing.");
    }
    if (parser->is_connect) {
        return bad(parser, 501, "not_implemented", "The server is not a proxy.");
    }
    head->keep_alive = !parser->close_named && (head->minor == 1 || parser->keep_named);
    if (head->minor == 0) {
        head->expect_continue = false;
    }
    return HTTP_PARSE_DONE;
}

/* --- lines ------------------------------------------------------------------------------------ */

/* MORE: go on with the next line. */
static enum http_parse parse_line(struct http_parser *parser, struct http_head *head,
                                  const uint8_t *data, struct slice line)
{
    enum http_parse result = HTTP_PARSE_DONE;
    if (line.size == 0) {
        if (parser->have_request_line) {
            return finish_head(parser, head);
        }
        parser->leading_lines++;
        if (parser->leading_lines > 1) {
            return bad_request(parser, "There are empty lines before the request line.");
        }
    } else if (parser->have_request_line) {
        result = parse_field(parser, head, data, line);
    } else {
        result = parse_request_line(parser, head, data, line);
    }
    return result == HTTP_PARSE_DONE ? HTTP_PARSE_MORE : result;
}

/* What can be said about a line of which only `size` bytes are there (its end among them or not).
 */
static enum http_parse check_begun(struct http_parser *parser, const uint8_t *line, size_t size)
{
    if (parser->have_request_line || size == 0) {
        return HTTP_PARSE_MORE;
    }
    if (line[0] != '\r' && (http_chars[line[0]] & HTTP_CHAR_TOKEN) == 0) {
        return bad_request(parser, "The request line is malformed.");
    }
    if (size > REQUEST_LINE_BYTES_MAX) {
        return bad(parser, 414, "uri_too_long", "The request line is too long.");
    }
    return HTTP_PARSE_MORE;
}

enum http_parse http_parser_step(struct http_parser *parser, struct http_head *head,
                                 const uint8_t *data, size_t size)
{
    size_t bound = size < LIMIT_HEAD_BYTES ? size : LIMIT_HEAD_BYTES;
    enum http_parse result = HTTP_PARSE_MORE;
    while (result == HTTP_PARSE_MORE) {
        const uint8_t *line = data + parser->line;
        const uint8_t *feed = memchr(data + parser->scanned, '\n', bound - parser->scanned);
        size_t line_size = feed != NULL ? (size_t)(feed - line) : bound - parser->line;
        result = check_begun(parser, line, line_size);
        if (result != HTTP_PARSE_MORE || feed == NULL) {
            parser->scanned = (uint32_t)bound;
            break;
        }
        if (line_size == 0 || line[line_size - 1] != '\r') {
            return bad_request(parser, "A line does not end in CR LF.");
        }
        result = parse_line(parser, head, data, slice_make(line, line_size - 1));
        parser->line = (uint32_t)(feed + 1 - data);
        parser->scanned = parser->line;
    }
    head->size = parser->line;
    if (result == HTTP_PARSE_MORE && size >= LIMIT_HEAD_BYTES) {
        return bad(parser, 431, "headers_too_large", "The request head is larger than 32 KiB.");
    }
    return result;
}
