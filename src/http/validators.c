/* Negotiation and validators (RFC 9110 12.5.3, 13.1.2).
 *
 * Happy path: a list is walked once, without copies.
 * Failure modes: a malformed part of a list is passed over. */
#include "http/connection.h"

#define QUALITY_MAX 1000u

/* "0.5" -> 500; more than three decimals or another form: 0, so that it is not chosen. */
static uint32_t parse_quality(struct slice text)
{
    uint32_t value = 0;
    uint32_t scale = QUALITY_MAX;
    if (text.size == 0 || text.size > 5 || (text.size > 1 && text.data[1] != '.')) {
        return 0;
    }
    for (size_t i = 0; i < text.size; i++) {
        if (i == 1) {
            continue;
        }
        if (text.data[i] < '0' || text.data[i] > '9') {
            return 0;
        }
        value += (uint32_t)(text.data[i] - '0') * scale;
        scale /= 10;
    }
    return value <= QUALITY_MAX ? value : 0;
}

/* One element of the list: its name and its q, 1 when there is none. */
static struct slice cut_element(struct slice *list, uint32_t *ret_quality)
{
    struct slice parameters = {NULL, 0};
    struct slice element = slice_cut(*list, ',', list);
    struct slice name = slice_trim(slice_cut(element, ';', &parameters));
    *ret_quality = QUALITY_MAX;
    while (parameters.size > 0) {
        struct slice parameter = slice_trim(slice_cut(parameters, ';', &parameters));
        if (parameter.size >= 2 && (parameter.data[0] | 0x20) == 'q' && parameter.data[1] == '=') {
            *ret_quality = parse_quality(slice_part(parameter, 2, parameter.size));
        }
    }
    return name;
}

struct choice {
    bool named[HTTP_ZSTD + 1];
    uint32_t quality[HTTP_ZSTD + 1];
    uint32_t star; /* q of "*" */
};

static void read_list(struct choice *choice, struct slice list)
{
    while (list.size > 0) {
        uint32_t quality = 0;
        enum http_coding coding = HTTP_IDENTITY;
        struct slice name = cut_element(&list, &quality);
        if (slice_equal(name, SLICE_LITERAL("*"))) {
            choice->star = quality;
        } else if (http_coding_from_name(name, &coding) && !choice->named[coding]) {
            choice->named[coding] = true;
            choice->quality[coding] = quality;
        }
    }
}

enum http_coding http_request_coding(const struct http_request *request)
{
    static const enum http_coding order[] = {HTTP_ZSTD, HTTP_BROTLI, HTTP_GZIP};
    struct choice choice = {0};
    if (request->head.known[HTTP_KNOWN_ACCEPT_ENCODING] == 0) {
        return HTTP_IDENTITY;
    }
    for (uint32_t i = 0; i < request->head.field_count; i++) {
        struct slice name = {NULL, 0};
        struct slice value = {NULL, 0};
        http_request_header_at(request, i, &name, &value);
        if (slice_equal_nocase(name, SLICE_LITERAL("accept-encoding"))) {
            read_list(&choice, value);
        }
    }
    /* Identity is chosen only when it is wanted more than every coding. */
    enum http_coding best = HTTP_IDENTITY;
    uint32_t best_quality = choice.named[HTTP_IDENTITY] ? choice.quality[HTTP_IDENTITY] : 0;
    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        enum http_coding coding = order[i];
        uint32_t quality = choice.named[coding] ? choice.quality[coding] : choice.star;
        if (quality > best_quality ||
            (quality == best_quality && quality > 0 && best == HTTP_IDENTITY)) {
            best = coding;
            best_quality = quality;
        }
    }
    return best;
}

/* Without the mark of a weak tag: If-None-Match compares weakly. */
static struct slice strong_part(struct slice etag)
{
    bool is_weak = etag.size >= 2 && etag.data[0] == 'W' && etag.data[1] == '/';
    return is_weak ? slice_part(etag, 2, etag.size) : etag;
}

/* The next entity tag of a list: [W/] DQUOTE *etagc DQUOTE; a comma may stand inside the quotes. */
static struct slice cut_etag(struct slice *list)
{
    struct slice rest = *list;
    while (rest.size > 0 && (rest.data[0] == ',' || rest.data[0] == ' ' || rest.data[0] == '\t')) {
        rest = slice_part(rest, 1, rest.size);
    }
    size_t open = slice_find(rest, '"');
    size_t close = open + 1 + slice_find(slice_part(rest, open + 1, rest.size), '"');
    struct slice tag = slice_part(rest, 0, close + 1);
    *list = slice_part(rest, tag.size, rest.size);
    return tag;
}

bool http_request_matches(const struct http_request *request, struct slice etag)
{
    struct slice wanted = strong_part(etag);
    for (uint32_t i = 0; i < request->head.field_count; i++) {
        struct slice name = {NULL, 0};
        struct slice list = {NULL, 0};
        http_request_header_at(request, i, &name, &list);
        if (!slice_equal_nocase(name, SLICE_LITERAL("if-none-match"))) {
            continue;
        }
        if (slice_equal(list, SLICE_LITERAL("*"))) {
            return true;
        }
        while (list.size > 0) {
            if (slice_equal(strong_part(cut_etag(&list)), wanted)) {
                return true;
            }
        }
    }
    return false;
}
