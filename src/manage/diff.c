/* Diff: what changed between two published versions of a project.
 *
 * Both configs list each kind in the order of making, and what is made later is listed later. So
 * the two lists are walked side by side: an id that stands in the older alone was taken away, and
 * what is left of the newer at the end was made since.
 *
 * Happy path: both configs are read, and each kind is walked; an element that has the same bytes on
 * both sides is passed over.
 * Failure modes: a version that is not there: ERR_NOT_FOUND. A config that this program did not
 * write: ERR_CORRUPT. */
#include "manage/registry.h"

#include "base/limits.h"
#include "store/store.h"
#include "json/json.h"

#include <assert.h>
#include <string.h>

#define MEMBERS_MAX 32u
#define TOKENS      32u

struct member {
    struct slice name;
    struct slice value; /* as it stands there */
};

/* One object, taken apart. */
struct object {
    struct slice raw;
    struct member members[MEMBERS_MAX];
    uint32_t count;
};

struct diff {
    struct json_writer writer;
    struct json_reader *reader;
    struct json_elements *older;
    struct json_elements *newer;
    bool is_reversed; /* the older one is what is compared with */
};

/* --- objects ---------------------------------------------------------------------------------- */

static size_t end_of(const struct json_token *token, struct slice document)
{
    size_t at = (size_t)token->offset;
    switch ((enum json_kind)token->kind) {
    case JSON_STRING:
        return at + token->size + 2;
    case JSON_NUMBER:
        return at + token->size;
    case JSON_FALSE:
        return at + 5;
    case JSON_TRUE:
    case JSON_NULL:
        return at + 4;
    case JSON_OBJECT_BEGIN:
    case JSON_ARRAY_BEGIN:
    case JSON_OBJECT_END:
    case JSON_ARRAY_END:
    case JSON_KEY:
        return at + 1;
    }
    assert(false);
    return document.size;
}

/* *ret_done: it was the last of the object. */
static enum err take_token(struct object *object, const struct json_token *token, bool *ret_done)
{
    if (token->depth == 0) {
        *ret_done = token->kind == JSON_OBJECT_END;
        object->raw.size = *ret_done ? (size_t)token->offset + 1 : object->raw.size;
        return *ret_done || token->kind == JSON_OBJECT_BEGIN ? ERR_OK : ERR_CORRUPT;
    }
    if (token->depth > 1) {
        return ERR_OK;
    }
    if (token->kind == JSON_KEY) {
        if (object->count == MEMBERS_MAX) {
            return ERR_CORRUPT;
        }
        object->members[object->count++] = (struct member){.name = json_token_slice(token)};
        return ERR_OK;
    }
    struct member *member = &object->members[object->count - 1];
    if (member->value.data == NULL) {
        member->value.data = object->raw.data + token->offset;
    }
    member->value.size =
        (size_t)(object->raw.data + end_of(token, object->raw) - member->value.data);
    return ERR_OK;
}

/* The object that begins `text`; more may follow it. */
static enum err take_apart(struct json_reader *reader, struct slice text, struct object *ret)
{
    struct json_token tokens[TOKENS];
    size_t count = 1;
    bool is_done = false;
    enum err err = ERR_OK;
    *ret = (struct object){.raw = text};
    json_document_begin(reader, text);
    while (err == ERR_OK && !is_done && count > 0) {
        err = json_document_next(reader, tokens, TOKENS, &count);
        for (size_t i = 0; i < count && err == ERR_OK && !is_done; i++) {
            err = take_token(ret, &tokens[i], &is_done);
        }
    }
    json_reader_reset(reader);
    return is_done ? ERR_OK : ERR_CORRUPT;
}

/* data NULL: there is none. */
static struct slice member_of(const struct object *object, const char *name)
{
    for (uint32_t i = 0; i < object->count; i++) {
        if (slice_equal(object->members[i].name, slice_from_text(name))) {
            return object->members[i].value;
        }
    }
    return slice_make(NULL, 0);
}

/* --- writing ---------------------------------------------------------------------------------- */

static void write_raw(struct json_writer *writer, const char *key, struct slice value)
{
    json_write_key(writer, key);
    if (value.data == NULL) {
        json_write_null(writer);
    } else {
        json_write_raw(writer, value);
    }
}

static void write_head(struct diff *diff, const char *kind, const char *change,
                       const struct object *object)
{
    struct json_writer *writer = &diff->writer;
    json_write_object_begin(writer);
    json_write_member_text(writer, "kind", kind);
    json_write_member_text(writer, "change", change);
    write_raw(writer, "id", member_of(object, "id"));
    write_raw(writer, "name", member_of(object, "name"));
}

static void write_lone(struct diff *diff, const char *kind, bool is_newer,
                       const struct object *object)
{
    write_head(diff, kind, is_newer != diff->is_reversed ? "added" : "removed", object);
    json_write_object_end(&diff->writer);
}

static void write_field(struct diff *diff, struct slice name, struct slice older,
                        struct slice newer)
{
    struct json_writer *writer = &diff->writer;
    json_write_object_begin(writer);
    json_write_member_string(writer, "field", name);
    write_raw(writer, "from", diff->is_reversed ? newer : older);
    write_raw(writer, "to", diff->is_reversed ? older : newer);
    json_write_object_end(writer);
}

static bool is_field_same(struct slice name, struct slice a, struct slice b)
{
    return slice_equal(name, SLICE_LITERAL("updated_at")) ||
           (a.data != NULL && b.data != NULL && slice_equal(a, b));
}

static void write_changed(struct diff *diff, const char *kind, const struct object *older,
                          const struct object *newer)
{
    bool has_any = false;
    for (uint32_t i = 0; i < newer->count; i++) {
        const struct member *member = &newer->members[i];
        struct slice before = {NULL, 0};
        for (uint32_t n = 0; n < older->count && before.data == NULL; n++) {
            if (slice_equal(older->members[n].name, member->name)) {
                before = older->members[n].value;
            }
        }
        if (is_field_same(member->name, before, member->value)) {
            continue;
        }
        if (!has_any) {
            write_head(diff, kind, "changed", newer);
            json_write_key(&diff->writer, "fields");
            json_write_array_begin(&diff->writer);
            has_any = true;
        }
        write_field(diff, member->name, before, member->value);
    }
    if (has_any) {
        json_write_array_end(&diff->writer);
        json_write_object_end(&diff->writer);
    }
}

/* --- walking ---------------------------------------------------------------------------------- */

static enum err next_of(struct diff *diff, struct json_elements *elements, bool *ret_has,
                        struct object *ret)
{
    struct json_element element = {.index = 0};
    *ret_has = false;
    if (json_elements_next(elements, &element, ret_has) != ERR_OK) {
        return ERR_CORRUPT;
    }
    return *ret_has ? take_apart(diff->reader, element.raw, ret) : ERR_OK;
}

static enum err walk_kind(struct diff *diff, enum manage_kind kind, struct slice older,
                          struct slice newer)
{
    const char *name = manage_kind(kind)->name;
    struct object old = {.count = 0};
    struct object new = {.count = 0};
    bool has_old = false;
    bool has_new = false;
    json_elements_reset(diff->older, JSON_SHAPE_MEMBER, slice_from_text(name));
    json_elements_reset(diff->newer, JSON_SHAPE_MEMBER, slice_from_text(name));
    json_elements_feed(diff->older, older);
    json_elements_feed(diff->newer, newer);
    enum err err = next_of(diff, diff->older, &has_old, &old);
    if (err == ERR_OK) {
        err = next_of(diff, diff->newer, &has_new, &new);
    }
    while (err == ERR_OK && (has_old || has_new)) {
        bool is_same =
            has_old && has_new && slice_equal(member_of(&old, "id"), member_of(&new, "id"));
        bool takes_new = is_same || !has_old;
        if (is_same) {
            write_changed(diff, name, &old, &new);
        } else {
            write_lone(diff, name, takes_new, takes_new ? &new : &old);
        }
        if (is_same || !takes_new) {
            err = next_of(diff, diff->older, &has_old, &old);
        }
        if (err == ERR_OK && takes_new) {
            err = next_of(diff, diff->newer, &has_new, &new);
        }
    }
    return err;
}

static enum err walk_all(struct diff *diff, struct slice older, struct slice newer)
{
    static const size_t at = sizeof("{\"project\":") - 1;
    struct object old;
    struct object new;
    if (older.size < at || newer.size < at) {
        return ERR_CORRUPT;
    }
    enum err err = take_apart(diff->reader, slice_part(older, at, older.size), &old);
    if (err == ERR_OK) {
        err = take_apart(diff->reader, slice_part(newer, at, newer.size), &new);
    }
    if (err == ERR_OK) {
        write_changed(diff, manage_kind(MANAGE_PROJECT)->name, &old, &new);
        err = walk_kind(diff, MANAGE_SITE, older, newer);
    }
    if (err == ERR_OK) {
        err = walk_kind(diff, MANAGE_DEVICE, older, newer);
    }
    return err != ERR_OK ? err : walk_kind(diff, MANAGE_PARAMETER, older, newer);
}

/* --- the whole -------------------------------------------------------------------------------- */

static enum err load_config(struct store_connection *connection, uint64_t org, uint64_t project,
                            uint64_t version, struct buffer *to)
{
    struct store_statement *statement = NULL;
    enum err err = manage_version_find(connection, org, project, version, &statement);
    if (err == ERR_OK) {
        err = buffer_append_slice(to, store_column_bytes(statement, MANAGE_VERSION_CONFIG));
        store_reset(statement);
    }
    return err;
}

static enum err write_diff(struct diff *diff, struct id project, uint64_t from, uint64_t to,
                           const struct buffer configs[2])
{
    json_write_object_begin(&diff->writer);
    json_write_member_id(&diff->writer, "project_id", project);
    json_write_member_u64(&diff->writer, "from", from);
    json_write_member_u64(&diff->writer, "to", to);
    json_write_key(&diff->writer, "changes");
    json_write_array_begin(&diff->writer);
    enum err err = walk_all(diff, buffer_slice(&configs[0]), buffer_slice(&configs[1]));
    json_write_array_end(&diff->writer);
    json_write_object_end(&diff->writer);
    return err != ERR_OK ? err : json_writer_err(&diff->writer);
}

enum err manage_version_diff(struct store_connection *connection, uint64_t org, struct id project,
                             uint64_t from, uint64_t to, struct buffer *ret)
{
    const struct json_elements_options options = {
        .json = {.depth_max = LIMIT_JSON_DEPTH, .string_bytes_max = MANAGE_CONFIG_BYTES_MAX},
        .shape = JSON_SHAPE_MEMBER,
        .element_bytes_max = MANAGE_CONFIG_BYTES_MAX};
    struct buffer configs[2]; /* the older one first */
    uint64_t number = 0;
    enum err err = manage_registry_number(connection, MANAGE_PROJECT, org, project, &number);
    buffer_init(&configs[0], MANAGE_CONFIG_BYTES_MAX);
    buffer_init(&configs[1], MANAGE_CONFIG_BYTES_MAX);
    if (err == ERR_OK) {
        err = load_config(connection, org, number, from < to ? from : to, &configs[0]);
    }
    if (err == ERR_OK) {
        err = load_config(connection, org, number, from < to ? to : from, &configs[1]);
    }
    if (err == ERR_OK) {
        struct diff diff = {.reader = json_reader_create(&options.json),
                            .older = json_elements_create(&options),
                            .newer = json_elements_create(&options),
                            .is_reversed = from > to};
        json_writer_init(&diff.writer, ret);
        err = write_diff(&diff, project, from, to, configs);
        json_elements_destroy(diff.newer);
        json_elements_destroy(diff.older);
        json_reader_destroy(diff.reader);
    }
    buffer_finish(&configs[0]);
    buffer_finish(&configs[1]);
    return err;
}
