/* Redis route.
 *
 *   single    one node, the URL's
 *   sentinel  one node: before each connection the sentinels are asked in turn for the master; a
 *             master that has become a replica says so (READONLY, ROLE), is dropped, asked for anew
 *   cluster   the masters by CLUSTER SLOTS, from a connected node or else from the URL's; asked
 *             for again after MOVED and after a node could not be reached
 *
 * A node that cannot be reached is tried again after 100 ms, then after twice as long each time, up
 * to 5 s. Only tend and follow connect, so looking for a link costs nothing.
 *
 * Happy path: tend at start, then every 2 s, with a PING for connections that were quiet.
 * Failure modes: part of a cluster out of reach: the keys of the others go on. A map with more than
 * 64 masters, or an answer of another shape: ERR_CORRUPT. */
#include "gate/redis_route.h"

#include <assert.h>
#include <openssl/ssl.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define NODES_MAX      64u
#define NODE_NONE      UINT8_MAX
#define TEND_EACH_MS   2000u
#define BACKOFF_MIN_MS 100u
#define BACKOFF_MAX_MS 5000u

static_assert(NODES_MAX < NODE_NONE, "a node's index fits a byte");

struct node {
    struct gate_redis_address address;
    struct gate_redis_link *link; /* NULL: not connected */
};

struct gate_redis_route {
    struct gate_redis_url url;
    SSL_CTX *tls;
    struct node nodes[NODES_MAX];
    uint32_t node_count;
    bool must_map; /* cluster: the map is unknown or in doubt */
    bool may_evict;
    uint64_t due_ms;
    uint64_t backoff_ms;
    uint8_t slots[GATE_REDIS_SLOTS]; /* index of a node, or NODE_NONE */
};

/* --- slots ---------------------------------------------------------------------------------- */

static uint16_t crc16(struct slice bytes)
{
    uint16_t crc = 0;
    for (size_t i = 0; i < bytes.size; i++) {
        crc = (uint16_t)(crc ^ (uint16_t)(bytes.data[i] << 8u));
        for (int bit = 0; bit < 8; bit++) {
            crc = (uint16_t)((uint32_t)crc << 1u ^ ((crc & 0x8000u) != 0 ? 0x1021u : 0u));
        }
    }
    return crc;
}

uint32_t gate_redis_slot(struct slice key)
{
    size_t open = slice_find(key, '{');
    struct slice after = slice_part(key, open + 1, key.size);
    size_t size = slice_find(after, '}');
    bool is_tagged = size > 0 && size < after.size;
    return crc16(is_tagged ? slice_part(after, 0, size) : key) % GATE_REDIS_SLOTS;
}

/* --- nodes ---------------------------------------------------------------------------------- */

static bool address_equal(const struct gate_redis_address *a, const struct gate_redis_address *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Index, or NODE_NONE when there is no room for it. */
static uint8_t node_add(struct gate_redis_route *route, const struct gate_redis_address *address)
{
    for (uint32_t i = 0; i < route->node_count; i++) {
        if (address_equal(&route->nodes[i].address, address)) {
            return (uint8_t)i;
        }
    }
    if (route->node_count == NODES_MAX) {
        return NODE_NONE;
    }
    route->nodes[route->node_count] = (struct node){.address = *address};
    return (uint8_t)route->node_count++;
}

static void node_close(struct node *node)
{
    gate_redis_link_close(node->link);
    node->link = NULL;
}

/* Whether a reply is a text, which is then *ret. */
static bool reply_text(const redisReply *reply, struct slice *ret)
{
    if (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_STATUS) {
        return false;
    }
    *ret = slice_make(reply->str, (size_t)reply->len);
    return true;
}

/* "maxmemory:0" or "maxmemory_policy:noeviction" keep everything. */
static bool memory_may_evict(struct slice info)
{
    bool is_bounded = false;
    bool keeps = true;
    while (info.data != NULL) {
        struct slice line = slice_cut(info, '\n', &info);
        line = line.size > 0 && line.data[line.size - 1] == '\r'
                   ? slice_part(line, 0, line.size - 1)
                   : line;
        struct slice value;
        struct slice name = slice_cut(line, ':', &value);
        if (slice_equal(name, SLICE_LITERAL("maxmemory"))) {
            is_bounded = !slice_equal(value, SLICE_LITERAL("0"));
        } else if (slice_equal(name, SLICE_LITERAL("maxmemory_policy"))) {
            keeps = slice_equal(value, SLICE_LITERAL("noeviction"));
        }
    }
    return is_bounded && !keeps;
}

/* What a fresh connection must be asked: is it a master, and does it keep keys? Who may not ask
 * (ACL) goes on without. */
static enum err node_look(struct gate_redis_route *route, struct gate_redis_link *link,
                          uint64_t deadline_ms, struct err_detail *detail)
{
    const struct slice role[1] = {SLICE_LITERAL("ROLE")};
    const struct slice memory[2] = {SLICE_LITERAL("INFO"), SLICE_LITERAL("memory")};
    redisReply *reply = NULL;
    struct slice text;
    enum err err = gate_redis_link_call(link, 1, role, deadline_ms, &reply);
    if (err != ERR_OK) {
        return err;
    }
    bool is_replica = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0 &&
                      reply_text(reply->element[0], &text) &&
                      !slice_equal(text, SLICE_LITERAL("master"));
    freeReplyObject(reply);
    if (is_replica) {
        err_detail_set(detail, "it is a replica, which takes no writes");
        return ERR_AWAY;
    }
    err = gate_redis_link_call(link, 2, memory, deadline_ms, &reply);
    if (err == ERR_OK) {
        route->may_evict = route->may_evict || (reply_text(reply, &text) && memory_may_evict(text));
        freeReplyObject(reply);
    }
    return err;
}

static enum err node_open(struct gate_redis_route *route, struct node *node, uint64_t deadline_ms,
                          struct err_detail *detail)
{
    struct gate_redis_link *link = NULL;
    struct gate_redis_link_options options = {.address = &node->address,
                                              .tls = route->tls,
                                              .user = route->url.user,
                                              .password = route->url.password,
                                              .database = route->url.database,
                                              .deadline_ms = deadline_ms};
    enum err err = gate_redis_link_open(&link, &options, detail);
    if (err != ERR_OK) {
        return err;
    }
    err = node_look(route, link, deadline_ms, detail);
    if (err != ERR_OK) {
        gate_redis_link_prefix(detail, &node->address);
        gate_redis_link_close(link);
        return err;
    }
    node->link = link;
    return ERR_OK;
}

/* A connection that was quiet must answer a PING. */
static enum err node_ping(struct node *node, uint64_t deadline_ms, struct err_detail *detail)
{
    const struct slice ping[1] = {SLICE_LITERAL("PING")};
    redisReply *reply = NULL;
    if (gate_redis_link_used_ms(node->link) + TEND_EACH_MS > clock_mono_ms()) {
        return ERR_OK;
    }
    enum err err = gate_redis_link_call(node->link, 1, ping, deadline_ms, &reply);
    if (err != ERR_OK) {
        err_detail_set(detail, "no answer to PING: %s", err_text(err));
        gate_redis_link_prefix(detail, &node->address);
        return err;
    }
    freeReplyObject(reply);
    return ERR_OK;
}

/* --- sentinels ------------------------------------------------------------------------------ */

static enum err master_read(const redisReply *reply, const char *name,
                            struct gate_redis_address *ret, struct err_detail *detail)
{
    struct gate_redis_address address = {.port = 0};
    struct slice host;
    struct slice port;
    uint64_t number = 0;
    if (reply->type == REDIS_REPLY_NIL) {
        err_detail_set(detail, "the sentinels know no master named %s", name);
        return ERR_CONFIG;
    }
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
        !reply_text(reply->element[0], &host) || !reply_text(reply->element[1], &port) ||
        !slice_to_u64(port, &number) || number == 0 || number > UINT16_MAX || host.size == 0 ||
        host.size >= sizeof(address.host)) {
        err_detail_set(detail, "a sentinel gave no address for %s", name);
        return ERR_CORRUPT;
    }
    memcpy(address.host, host.data, host.size);
    address.port = (uint16_t)number;
    *ret = address;
    return ERR_OK;
}

/* Sentinels have, as a rule, no password; one that has is given the URL's. */
static enum err sentinel_open(struct gate_redis_route *route, uint32_t index, uint64_t deadline_ms,
                              struct gate_redis_link **ret, struct err_detail *detail)
{
    struct gate_redis_link_options options = {.address = &route->url.addresses[index],
                                              .tls = route->tls,
                                              .user = "",
                                              .password = "",
                                              .deadline_ms = deadline_ms};
    enum err err = gate_redis_link_open(ret, &options, detail);
    if (err == ERR_PERMISSION && route->url.password[0] != '\0') {
        options.user = route->url.user;
        options.password = route->url.password;
        err = gate_redis_link_open(ret, &options, detail);
    }
    return err;
}

static enum err sentinel_resolve(struct gate_redis_route *route, uint32_t timeout_ms,
                                 struct err_detail *detail)
{
    struct slice words[3] = {SLICE_LITERAL("SENTINEL"), SLICE_LITERAL("get-master-addr-by-name"),
                             slice_from_text(route->url.master)};
    enum err err = ERR_AWAY;
    for (uint32_t i = 0; i < route->url.address_count && err != ERR_OK; i++) {
        struct gate_redis_link *link = NULL;
        redisReply *reply = NULL;
        uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
        err = sentinel_open(route, i, deadline_ms, &link, detail);
        if (err == ERR_OK) {
            err = gate_redis_link_call(link, 3, words, deadline_ms, &reply);
        }
        if (err == ERR_OK) {
            err = master_read(reply, route->url.master, &route->nodes[0].address, detail);
            freeReplyObject(reply);
        }
        gate_redis_link_close(link);
    }
    return err;
}

/* --- cluster -------------------------------------------------------------------------------- */

/* [first, last, [host, port, …], …]; an empty host is the one that was asked. */
static bool slots_read_one(struct gate_redis_route *route, const redisReply *range,
                           const char *asked_host)
{
    struct gate_redis_address address = {.port = 0};
    struct slice host;
    if (range->type != REDIS_REPLY_ARRAY || range->elements < 3) {
        return false;
    }
    const redisReply *master = range->element[2];
    long long first = range->element[0]->integer;
    long long last = range->element[1]->integer;
    if (first < 0 || last < first || last >= (long long)GATE_REDIS_SLOTS ||
        master->type != REDIS_REPLY_ARRAY || master->elements < 2 ||
        master->element[1]->integer <= 0 || master->element[1]->integer > UINT16_MAX) {
        return false;
    }
    if (!reply_text(master->element[0], &host) || host.size == 0) {
        host = slice_from_text(asked_host);
    }
    if (host.size >= sizeof(address.host)) {
        return false;
    }
    memcpy(address.host, host.data, host.size);
    address.port = (uint16_t)master->element[1]->integer;
    uint8_t index = node_add(route, &address);
    if (index == NODE_NONE) {
        return false;
    }
    memset(route->slots + first, index, (size_t)(last - first) + 1);
    return true;
}

/* The nodes become those of the map; connections to nodes that stay are kept. */
static enum err slots_read(struct gate_redis_route *route, const redisReply *reply,
                           const char *asked_host, struct err_detail *detail)
{
    struct node before[NODES_MAX];
    uint32_t before_count = route->node_count;
    bool is_good = reply->type == REDIS_REPLY_ARRAY && reply->elements > 0;
    if (reply->type == REDIS_REPLY_ERROR) {
        err_detail_set(detail, "%s: %.200s", asked_host, reply->str);
        return ERR_CONFIG;
    }
    memcpy(before, route->nodes, sizeof(before));
    route->node_count = 0;
    memset(route->slots, NODE_NONE, sizeof(route->slots));
    for (size_t i = 0; i < (is_good ? reply->elements : 0) && is_good; i++) {
        is_good = slots_read_one(route, reply->element[i], asked_host);
    }
    for (uint32_t i = 0; i < before_count; i++) {
        uint8_t index = NODE_NONE;
        for (uint32_t j = 0; j < route->node_count; j++) {
            if (address_equal(&route->nodes[j].address, &before[i].address)) {
                index = (uint8_t)j;
            }
        }
        if (index == NODE_NONE) {
            node_close(&before[i]);
        } else {
            route->nodes[index].link = before[i].link;
        }
    }
    if (!is_good) {
        err_detail_set(detail, "%s: not a map of slots that this program can use", asked_host);
        return ERR_CORRUPT;
    }
    route->must_map = false;
    return ERR_OK;
}

static enum err cluster_ask(struct gate_redis_route *route, struct gate_redis_link *link,
                            const char *host, uint64_t deadline_ms, struct err_detail *detail)
{
    const struct slice words[2] = {SLICE_LITERAL("CLUSTER"), SLICE_LITERAL("SLOTS")};
    char asked_host[GATE_REDIS_HOST_BYTES];
    redisReply *reply = NULL;
    memcpy(asked_host, host, sizeof(asked_host)); /* it may stand in what is read anew */
    enum err err = gate_redis_link_call(link, 2, words, deadline_ms, &reply);
    if (err != ERR_OK) {
        err_detail_set(detail, "%s: no map of slots: %s", asked_host, err_text(err));
        return err;
    }
    err = slots_read(route, reply, asked_host, detail);
    freeReplyObject(reply);
    return err;
}

static enum err cluster_map(struct gate_redis_route *route, uint32_t timeout_ms,
                            struct err_detail *detail)
{
    enum err err = ERR_AWAY;
    for (uint32_t i = 0; i < route->node_count && err != ERR_OK; i++) {
        struct gate_redis_link *link = route->nodes[i].link;
        if (link != NULL) {
            err = cluster_ask(route, link, route->nodes[i].address.host,
                              clock_mono_ms() + timeout_ms, detail);
            gate_redis_route_drop(route, err == ERR_OK ? NULL : link);
        }
    }
    for (uint32_t i = 0; i < route->url.address_count && err != ERR_OK; i++) {
        const struct gate_redis_address *address = &route->url.addresses[i];
        struct gate_redis_link *link = NULL;
        struct gate_redis_link_options options = {.address = address,
                                                  .tls = route->tls,
                                                  .user = route->url.user,
                                                  .password = route->url.password,
                                                  .deadline_ms = clock_mono_ms() + timeout_ms};
        err = gate_redis_link_open(&link, &options, detail);
        if (err == ERR_OK) {
            err = cluster_ask(route, link, address->host, options.deadline_ms, detail);
        }
        gate_redis_link_close(link);
    }
    return err;
}

/* --- the whole ------------------------------------------------------------------------------ */

static enum err tend_nodes(struct gate_redis_route *route, uint32_t timeout_ms,
                           struct err_detail *detail)
{
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < route->node_count; i++) {
        struct node *node = &route->nodes[i];
        uint64_t deadline_ms = clock_mono_ms() + timeout_ms;
        enum err one = node->link == NULL ? node_open(route, node, deadline_ms, detail)
                                          : node_ping(node, deadline_ms, detail);
        if (one != ERR_OK) {
            err = one;
            node_close(node);
            route->must_map = true;
        }
    }
    return err;
}

enum err gate_redis_route_tend(struct gate_redis_route *route, uint32_t timeout_ms,
                               struct err_detail *detail)
{
    enum err err = ERR_OK;
    if (route->url.kind == GATE_REDIS_SENTINEL && route->nodes[0].link == NULL) {
        err = sentinel_resolve(route, timeout_ms, detail);
    } else if (route->url.kind == GATE_REDIS_CLUSTER && route->must_map) {
        err = cluster_map(route, timeout_ms, detail);
    }
    if (err == ERR_OK) {
        err = tend_nodes(route, timeout_ms, detail);
    }
    if (err == ERR_OK) {
        route->backoff_ms = 0;
        route->due_ms = clock_mono_ms() + TEND_EACH_MS;
        return ERR_OK;
    }
    route->backoff_ms = route->backoff_ms == 0 ? BACKOFF_MIN_MS : route->backoff_ms * 2;
    route->backoff_ms = route->backoff_ms < BACKOFF_MAX_MS ? route->backoff_ms : BACKOFF_MAX_MS;
    route->due_ms = clock_mono_ms() + route->backoff_ms;
    return err;
}

uint64_t gate_redis_route_due_ms(const struct gate_redis_route *route)
{
    return route->due_ms;
}

struct gate_redis_link *gate_redis_route_find(struct gate_redis_route *route, struct slice key)
{
    uint8_t index = route->url.kind == GATE_REDIS_CLUSTER ? route->slots[gate_redis_slot(key)] : 0;
    return index < route->node_count ? route->nodes[index].link : NULL;
}

void gate_redis_route_drop(struct gate_redis_route *route, struct gate_redis_link *link)
{
    for (uint32_t i = 0; i < route->node_count && link != NULL; i++) {
        if (route->nodes[i].link == link) {
            node_close(&route->nodes[i]);
            route->must_map = true;
            route->due_ms = 0;
        }
    }
}

/* "host:port"; an IPv6 address comes without brackets, so the last colon counts. */
static bool redirect_parse(struct slice text, struct gate_redis_address *ret)
{
    size_t colon = text.size;
    uint64_t port = 0;
    while (colon > 0 && text.data[colon - 1] != ':') {
        colon--;
    }
    if (colon < 2 || colon > sizeof(ret->host) ||
        !slice_to_u64(slice_part(text, colon, text.size), &port) || port == 0 ||
        port > UINT16_MAX) {
        return false;
    }
    *ret = (struct gate_redis_address){.port = (uint16_t)port};
    memcpy(ret->host, text.data, colon - 1);
    return true;
}

struct gate_redis_link *gate_redis_route_follow(struct gate_redis_route *route, struct slice error,
                                                uint64_t deadline_ms)
{
    struct gate_redis_address address;
    struct err_detail detail;
    uint64_t slot = 0;
    struct slice word = slice_cut(error, ' ', &error);
    struct slice number = slice_cut(error, ' ', &error);
    if (!slice_to_u64(number, &slot) || slot >= GATE_REDIS_SLOTS ||
        !redirect_parse(error, &address)) {
        return NULL;
    }
    uint8_t index = node_add(route, &address);
    if (index == NODE_NONE) {
        return NULL;
    }
    if (slice_equal(word, SLICE_LITERAL("MOVED"))) {
        route->slots[slot] = index;
        route->must_map = true;
        route->due_ms = 0;
    }
    struct node *node = &route->nodes[index];
    if (node->link == NULL && node_open(route, node, deadline_ms, &detail) != ERR_OK) {
        return NULL;
    }
    return node->link;
}

bool gate_redis_route_may_evict(const struct gate_redis_route *route)
{
    return route->may_evict;
}

static enum err tls_open(struct gate_redis_route *route, struct err_detail *detail)
{
    route->tls = SSL_CTX_new(TLS_client_method());
    if (route->tls == NULL || SSL_CTX_set_min_proto_version(route->tls, TLS1_2_VERSION) != 1 ||
        SSL_CTX_set_default_verify_paths(route->tls) != 1) {
        err_detail_set(detail, "start TLS");
        return ERR_NO_MEMORY;
    }
    SSL_CTX_set_verify(route->tls, SSL_VERIFY_PEER, NULL);
    (void)SSL_CTX_set_mode(route->tls,
                           SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ERR_OK;
}

enum err gate_redis_route_create(struct gate_redis_route **ret, const struct gate_redis_url *url,
                                 struct err_detail *detail)
{
    struct gate_redis_route *route = mem_alloc(sizeof(*route));
    route->url = *url;
    route->must_map = true;
    memset(route->slots, NODE_NONE, sizeof(route->slots));
    if (url->kind != GATE_REDIS_CLUSTER) {
        route->nodes[0].address = url->addresses[0];
        route->node_count = 1;
    }
    enum err err = url->is_tls ? tls_open(route, detail) : ERR_OK;
    if (err == ERR_OK) {
        *ret = route;
        route = NULL;
    }
    gate_redis_route_destroy(route);
    return err;
}

void gate_redis_route_destroy(struct gate_redis_route *route)
{
    if (route == NULL) {
        return;
    }
    for (uint32_t i = 0; i < route->node_count; i++) {
        node_close(&route->nodes[i]);
    }
    SSL_CTX_free(route->tls);
    OPENSSL_cleanse(route->url.password, sizeof(route->url.password));
    mem_free(route);
}
