/* Redis URL.
 *
 *   redis://[user:password@]host[:6379][/db]            one server
 *   rediss://…                                          with TLS
 *   unix://[user:password@]/path/of/socket[?db=n]       one server, on this machine
 *   redis+sentinel://[user:password@]host[:26379],…/master[/db]
 *   redis+cluster://[user:password@]host[:6379],…       any of its nodes
 *   rediss+sentinel://…, rediss+cluster://…             with TLS
 *
 * User and password may be written with %XX. A user alone is refused: it is nearly always a
 * password without its colon.
 *
 * Happy path: scheme, user information, addresses, rest.
 * Failure modes: each part says what is wrong with it, without quoting what may be secret. */
#include "gate/redis_url.h"

#include <string.h>

#define PORT_OF_REDIS    6379u
#define PORT_OF_SENTINEL 26379u

struct scheme {
    const char *text;
    enum gate_redis_kind kind;
    bool is_tls;
    bool is_unix;
};
static const struct scheme schemes[] = {
    {"redis://", GATE_REDIS_SINGLE, false, false},
    {"rediss://", GATE_REDIS_SINGLE, true, false},
    {"unix://", GATE_REDIS_SINGLE, false, true},
    {"redis+unix://", GATE_REDIS_SINGLE, false, true},
    {"redis+sentinel://", GATE_REDIS_SENTINEL, false, false},
    {"rediss+sentinel://", GATE_REDIS_SENTINEL, true, false},
    {"redis+cluster://", GATE_REDIS_CLUSTER, false, false},
    {"rediss+cluster://", GATE_REDIS_CLUSTER, true, false},
};

static const struct scheme *scheme_find(struct slice text)
{
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (slice_starts_with(text, slice_from_text(schemes[i].text))) {
            return &schemes[i];
        }
    }
    return NULL;
}

static enum err fail(struct err_detail *detail, const char *text)
{
    err_detail_set(detail, "%s", text);
    return ERR_CONFIG;
}

/* -1: none. */
static int hex_value(uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    uint8_t lower = byte | 0x20u;
    return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
}

/* Undoes %XX; false when malformed, with a NUL in it, or longer than there is room. */
static bool text_decode(struct slice from, char *to, size_t to_bytes)
{
    size_t size = 0;
    for (size_t i = 0; i < from.size; i++) {
        uint8_t byte = from.data[i];
        if (byte == '%') {
            int high = i + 2 < from.size ? hex_value(from.data[i + 1]) : -1;
            int low = i + 2 < from.size ? hex_value(from.data[i + 2]) : -1;
            if (high < 0 || low < 0) {
                return false;
            }
            byte = (uint8_t)(high * 16 + low);
            i += 2;
        }
        if (byte == 0 || size + 1 >= to_bytes) {
            return false;
        }
        to[size++] = (char)byte;
    }
    to[size] = '\0';
    return true;
}

static bool text_copy(struct slice from, char *to, size_t to_bytes)
{
    if (from.size == 0 || from.size >= to_bytes || memchr(from.data, 0, from.size) != NULL) {
        return false;
    }
    memcpy(to, from.data, from.size);
    to[from.size] = '\0';
    return true;
}

bool gate_redis_address_parse(struct slice text, uint16_t port_default,
                              struct gate_redis_address *ret)
{
    struct gate_redis_address address = {.port = port_default};
    struct slice host;
    struct slice port = {NULL, 0};
    if (text.size > 0 && text.data[0] == '[') {
        size_t end = slice_find(text, ']');
        if (end == text.size || (end + 1 < text.size && text.data[end + 1] != ':')) {
            return false;
        }
        host = slice_part(text, 1, end);
        port = end + 1 < text.size ? slice_part(text, end + 2, text.size) : port;
    } else {
        host = slice_cut(text, ':', &port);
    }
    uint64_t number = port_default;
    if (port.data != NULL && (!slice_to_u64(port, &number) || number == 0 || number > UINT16_MAX)) {
        return false;
    }
    if (!text_copy(host, address.host, sizeof(address.host))) {
        return false;
    }
    address.port = (uint16_t)number;
    *ret = address;
    return true;
}

static bool database_parse(struct slice text, struct gate_redis_url *url)
{
    uint64_t number = 0;
    if (text.size != 0 && (!slice_to_u64(text, &number) || number > INT32_MAX)) {
        return false;
    }
    url->database = (uint32_t)number;
    return true;
}

/* Cuts "user:password@" off the front. The last @ counts: a password may hold one. */
static enum err access_parse(struct slice *rest, struct slice authority, struct gate_redis_url *url,
                             struct err_detail *detail)
{
    size_t at = authority.size;
    while (at > 0 && authority.data[at - 1] != '@') {
        at--;
    }
    if (at == 0) {
        return ERR_OK;
    }
    struct slice password;
    struct slice user = slice_cut(slice_part(authority, 0, at - 1), ':', &password);
    if (password.data == NULL) {
        return fail(detail, "expected user:password@ or :password@ before the host");
    }
    if (!text_decode(user, url->user, sizeof(url->user)) ||
        !text_decode(password, url->password, sizeof(url->password))) {
        return fail(detail, "user or password is too long, or has a % without two hex digits");
    }
    *rest = slice_part(*rest, at, rest->size);
    return ERR_OK;
}

static enum err addresses_parse(struct slice list, struct gate_redis_url *url,
                                struct err_detail *detail)
{
    uint16_t port = url->kind == GATE_REDIS_SENTINEL ? PORT_OF_SENTINEL : PORT_OF_REDIS;
    do {
        struct slice one = slice_cut(list, ',', &list);
        if (url->address_count == GATE_REDIS_ADDRESSES_MAX) {
            return fail(detail, "more than 16 addresses");
        }
        if (!gate_redis_address_parse(one, port, &url->addresses[url->address_count])) {
            return fail(detail, "expected host or host:port, IPv6 in brackets");
        }
        url->address_count++;
    } while (list.data != NULL);
    if (url->kind == GATE_REDIS_SINGLE && url->address_count > 1) {
        return fail(detail, "several addresses need redis+sentinel:// or redis+cluster://");
    }
    return ERR_OK;
}

static enum err unix_parse(struct slice rest, struct gate_redis_url *url, struct err_detail *detail)
{
    struct slice query;
    struct slice path = slice_cut(rest, '?', &query);
    bool is_database = slice_starts_with(query, SLICE_LITERAL("db="));
    if (path.size == 0 || path.data[0] != '/' ||
        !text_copy(path, url->addresses[0].host, sizeof(url->addresses[0].host))) {
        return fail(detail, "expected unix:///path/of/socket");
    }
    if (query.data != NULL &&
        (!is_database || !database_parse(slice_part(query, 3, query.size), url))) {
        return fail(detail, "expected ?db=number after the path");
    }
    url->address_count = 1;
    return ERR_OK;
}

static enum err path_parse(struct slice path, struct gate_redis_url *url, struct err_detail *detail)
{
    struct slice database = path;
    if (url->kind == GATE_REDIS_SENTINEL) {
        struct slice master = slice_cut(path, '/', &database);
        if (!text_copy(master, url->master, sizeof(url->master))) {
            return fail(detail, "expected the name of the master after the sentinels' addresses");
        }
    }
    if (!database_parse(database, url)) {
        return fail(detail, "the database after the host must be a number");
    }
    if (url->kind == GATE_REDIS_CLUSTER && url->database != 0) {
        return fail(detail, "a cluster has database 0 alone");
    }
    return ERR_OK;
}

enum err gate_redis_url_parse(struct slice text, struct gate_redis_url *ret,
                              struct err_detail *detail)
{
    struct gate_redis_url url = {.kind = GATE_REDIS_SINGLE};
    const struct scheme *scheme = scheme_find(text);
    if (scheme == NULL) {
        return fail(detail, "must begin with redis://, rediss://, unix://, redis+sentinel:// or "
                            "redis+cluster://");
    }
    struct slice rest = slice_part(text, strlen(scheme->text), text.size);
    url.kind = scheme->kind;
    url.is_tls = scheme->is_tls;
    struct slice path = {NULL, 0};
    struct slice authority =
        scheme->is_unix ? slice_cut(rest, '/', &path) : slice_part(rest, 0, slice_find(rest, '/'));
    enum err err = access_parse(&rest, authority, &url, detail);
    if (err == ERR_OK && scheme->is_unix) {
        err = unix_parse(rest, &url, detail);
    } else if (err == ERR_OK) {
        err = addresses_parse(slice_cut(rest, '/', &path), &url, detail);
        err = err == ERR_OK ? path_parse(path, &url, detail) : err;
    }
    if (err == ERR_OK) {
        *ret = url;
    }
    return err;
}
