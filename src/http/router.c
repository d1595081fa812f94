/* A tree of path segments. A node has literal children and at most one {name} child; the rows of a
 * path, one for each method, stand in the node of its last segment.
 *
 * "/a/{x}" and "/a/b" live side by side; a search tries the literal child first and comes back for
 * the name, so a literal wins but never hides a longer path with a name. Depth is bounded by the
 * longest pattern.
 *
 * Happy path: one comparison or two for each segment.
 * Failure modes: a path that leaves the tree, or ends where no row stands: no match. */
#include "http/router.h"

#include <assert.h>

#include "base/mem.h"

#define ROUTER_DEPTH_MAX 16u

struct node {
    struct slice segment; /* of a pattern; unused in a name's node */
    struct node *sibling; /* next literal child of the same parent */
    struct node *literals;
    struct node *name;
    const struct http_route *rows[HTTP_METHOD_COUNT];
    bool has_row;
};

struct http_router {
    struct node root;
};

static const char *const method_names[HTTP_METHOD_COUNT] = {
    [HTTP_GET] = "GET",         [HTTP_HEAD] = "HEAD",   [HTTP_POST] = "POST",
    [HTTP_PUT] = "PUT",         [HTTP_PATCH] = "PATCH", [HTTP_DELETE] = "DELETE",
    [HTTP_OPTIONS] = "OPTIONS",
};

const char *http_method_name(enum http_method method)
{
    return method_names[method];
}

static struct node *find_literal(const struct node *parent, struct slice segment)
{
    struct node *child = parent->literals;
    while (child != NULL && !slice_equal(child->segment, segment)) {
        child = child->sibling;
    }
    return child;
}

static struct node *child_for(struct node *parent, struct slice segment)
{
    if (segment.size > 0 && segment.data[0] == '{') {
        if (parent->name == NULL) {
            parent->name = mem_alloc(sizeof(*parent->name));
        }
        return parent->name;
    }
    struct node *child = find_literal(parent, segment);
    if (child == NULL) {
        child = mem_alloc(sizeof(*child));
        child->segment = segment;
        child->sibling = parent->literals;
        parent->literals = child;
    }
    return child;
}

static enum err add_route(struct http_router *router, const struct http_route *route,
                          struct err_detail *detail)
{
    struct slice rest = slice_from_text(route->pattern);
    struct node *node = &router->root;
    uint32_t names = 0;
    uint32_t depth = 0;
    if (rest.size == 0 || rest.data[0] != '/') {
        err_detail_set(detail, "route %s does not begin with /", route->pattern);
        return ERR_CONFIG;
    }
    rest = slice_part(rest, 1, rest.size);
    do {
        struct slice segment = slice_cut(rest, '/', &rest);
        bool opens = segment.size > 0 && segment.data[0] == '{';
        bool closes = segment.size > 2 && segment.data[segment.size - 1] == '}';
        names += opens ? 1 : 0;
        depth++;
        if (opens != closes || names > HTTP_PARAMS_MAX || depth > ROUTER_DEPTH_MAX) {
            err_detail_set(detail, "route %s is malformed", route->pattern);
            return ERR_CONFIG;
        }
        node = child_for(node, segment);
    } while (rest.data != NULL);
    if (node->rows[route->method] != NULL) {
        err_detail_set(detail, "route %s %s stands twice", http_method_name(route->method),
                       route->pattern);
        return ERR_CONFIG;
    }
    node->rows[route->method] = route;
    node->has_row = true;
    return ERR_OK;
}

/* Frees what is below a node: children are freed once their own are, going down first. */
static void free_below(struct node *top)
{
    struct node *pending = top->literals;
    struct node *name = top->name;
    if (name != NULL) {
        name->sibling = pending;
        pending = name;
    }
    while (pending != NULL) {
        struct node *node = pending;
        pending = node->sibling;
        while (node->literals != NULL) {
            struct node *child = node->literals;
            node->literals = child->sibling;
            child->sibling = pending;
            pending = child;
        }
        if (node->name != NULL) {
            node->name->sibling = pending;
            pending = node->name;
        }
        mem_free(node);
    }
}

enum err http_router_create(struct http_router **ret, const struct http_route *routes,
                            uint32_t route_count, struct err_detail *detail)
{
    struct http_router *router = mem_alloc(sizeof(*router));
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < route_count && err == ERR_OK; i++) {
        err = add_route(router, &routes[i], detail);
    }
    if (err == ERR_OK) {
        *ret = router;
        router = NULL; /* the caller owns it now */
    }
    http_router_destroy(router);
    return err;
}

void http_router_destroy(struct http_router *router)
{
    if (router != NULL) {
        free_below(&router->root);
        mem_free(router);
    }
}

/* Whether the walk went down a literal, a name, or neither yet, for each depth: the way back. */
enum tried { TRIED_NOTHING, TRIED_LITERAL, TRIED_NAME };

struct walk {
    const struct node *nodes[ROUTER_DEPTH_MAX + 1];
    struct slice segments[ROUTER_DEPTH_MAX];
    uint8_t tried[ROUTER_DEPTH_MAX];
    uint32_t depth;
    uint32_t segment_count;
};

static bool cut_path(struct walk *walk, struct slice path)
{
    if (path.size == 0 || path.data[0] != '/') {
        return false;
    }
    struct slice rest = slice_part(path, 1, path.size);
    do {
        if (walk->segment_count == ROUTER_DEPTH_MAX) {
            return false;
        }
        walk->segments[walk->segment_count] = slice_cut(rest, '/', &rest);
        walk->segment_count++;
    } while (rest.data != NULL);
    return true;
}

/* One step down from the current depth, by what was not tried there yet; NULL: nothing is left. */
static const struct node *next_child(struct walk *walk)
{
    const struct node *node = walk->nodes[walk->depth];
    struct slice segment = walk->segments[walk->depth];
    uint8_t *tried = &walk->tried[walk->depth];
    if (*tried == TRIED_NOTHING) {
        *tried = TRIED_LITERAL;
        const struct node *child = find_literal(node, segment);
        if (child != NULL) {
            return child;
        }
    }
    if (*tried == TRIED_LITERAL) {
        *tried = TRIED_NAME;
        return segment.size > 0 ? node->name : NULL;
    }
    return NULL;
}

static const struct node *walk_down(struct walk *walk, const struct node *root)
{
    walk->nodes[0] = root;
    walk->tried[0] = TRIED_NOTHING;
    for (;;) {
        const struct node *child = next_child(walk);
        if (child != NULL) {
            walk->depth++;
            walk->nodes[walk->depth] = child;
            if (walk->depth < walk->segment_count) {
                walk->tried[walk->depth] = TRIED_NOTHING;
                continue;
            }
            if (child->has_row) {
                return child;
            }
        } else if (walk->depth == 0) {
            return NULL;
        }
        walk->depth--;
    }
}

void http_router_find(const struct http_router *router, enum http_method method, struct slice path,
                      struct http_match *ret)
{
    struct walk walk;
    walk.depth = 0;
    walk.segment_count = 0;
    ret->route = NULL;
    ret->by_method = NULL;
    ret->param_count = 0;
    if (!cut_path(&walk, path)) {
        return;
    }
    const struct node *found = walk_down(&walk, &router->root);
    if (found == NULL) {
        return;
    }
    for (uint32_t i = 0; i < walk.segment_count; i++) {
        if (walk.tried[i] == TRIED_NAME) {
            assert(ret->param_count < HTTP_PARAMS_MAX);
            ret->params[ret->param_count] = walk.segments[i];
            ret->param_count++;
        }
    }
    ret->by_method = found->rows;
    ret->route = found->rows[method];
    if (ret->route == NULL && method == HTTP_HEAD) {
        ret->route = found->rows[HTTP_GET];
    }
}

static size_t add_word(char *to, size_t size, const char *word)
{
    for (size_t i = 0; word[i] != 0; i++) {
        to[size] = word[i];
        size++;
    }
    return size;
}

size_t http_router_allow(const struct http_route *const *by_method, char *to)
{
    size_t size = 0;
    for (uint32_t i = 0; i < HTTP_METHOD_COUNT; i++) {
        bool is_head_of_get = i == HTTP_HEAD && by_method[HTTP_GET] != NULL;
        if (by_method[i] == NULL && i != HTTP_OPTIONS && !is_head_of_get) {
            continue;
        }
        size = add_word(to, size, size > 0 ? ", " : "");
        size = add_word(to, size, method_names[i]);
    }
    assert(size <= HTTP_ALLOW_BYTES);
    return size;
}
