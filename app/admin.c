/* Orgs and keys from the command line.
 *
 * Each command is a row: words, usage, function. A function reads its options, makes a job, and
 * writes the reply. Keys are made (Argon2id) before the job, so a transaction never waits for a
 * hash. */
#include "admin.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mailbox.h"
#include "base/mem.h"
#include "gate/gate.h"
#include "manage/manage.h"
#include "store/store.h"

#define ADMIN_DAY_MS        (86400000ll)
#define ADMIN_KEYS_PER_PAGE 1000u

static void fail(struct admin *admin, int status, const char *format, ...) PRINTF_LIKE(3, 4);

static void say(struct admin *admin, const char *format, ...) PRINTF_LIKE(2, 3);

/* Adds to the reply. A reply that outgrows its buffer fails the command instead of being cut. */
static void say(struct admin *admin, const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    if (buffer_append_text(admin->reply, text) != ERR_OK) {
        admin->status = 1;
    }
}

static void fail(struct admin *admin, int status, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    buffer_clear(admin->reply);
    admin->status = status;
    say(admin, "%s\n", text);
}

/* --- jobs, and waiting for them -------------------------------------------------------------- */

struct admin_job {
    struct store_job job;
    bool *done; /* on the waiting thread's stack */
    struct slice org_name;
    struct slice tier;
    struct slice key_id;
    bool only_if_none;
    struct gate_new_key *key;
    struct gate_key_options key_options;
    struct manage_org org;
    uint64_t old_key_number;
    uint64_t key_number;
    struct admin *admin;
    uint64_t count;
};

static void job_done(struct store_job *job)
{
    *((struct admin_job *)(void *)job)->done = true;
}

enum err admin_run_job(struct admin *admin, struct store_job *job)
{
    bool done = false;
    job->priority = STORE_CONTROL;
    job->durable = true;
    if (admin->mailbox == NULL) {
        return store_run_here(admin->store, job);
    }
    ((struct admin_job *)(void *)job)->done = &done;
    job->on_done = job_done;
    job->reply_to = admin->mailbox;
    enum err err = store_post_write(admin->store, job);
    while (err == ERR_OK && !done) {
        mailbox_wait(admin->mailbox, -1);
        (void)mailbox_run_all(admin->mailbox);
    }
    return err == ERR_OK ? job->err : err;
}

static enum err audit(struct store_connection *connection, uint64_t org, const char *action,
                      struct slice target)
{
    struct gate_audit entry = {
        .org = org, .action = action, .target = target, .address = SLICE_LITERAL("command line")};
    return gate_audit_insert(connection, &entry);
}

static void count_org(const struct manage_org *org, void *context)
{
    (void)org;
    (*(uint64_t *)context)++;
}

static enum err run_org_create(struct store_job *job, struct store_connection *connection)
{
    struct admin_job *self = (struct admin_job *)(void *)job;
    if (self->only_if_none) {
        enum err listed = manage_org_list(connection, count_org, &self->count);
        if (listed != ERR_OK || self->count > 0) {
            return listed;
        }
    }
    enum err err = manage_org_create(connection, self->org_name, self->tier, &self->org);
    if (err == ERR_OK) {
        self->key_options.org = self->org.number;
        err = gate_key_insert(connection, self->key, &self->key_options, &self->key_number);
    }
    if (err == ERR_OK) {
        err = audit(connection, self->org.number, "org.create", self->org_name);
    }
    if (err == ERR_OK) {
        err = audit(connection, self->org.number, "key.create", slice_from_text(self->key->id));
    }
    return err;
}

static void print_org(const struct manage_org *org, void *context)
{
    char id[ID_TEXT_BYTES];
    char created[CLOCK_TEXT_BYTES];
    id_format(org->id, id);
    clock_format_rfc3339(org->created_ms, created);
    say(context, "%.*s  %-12.*s  %.*s  %llu keys  %.*s\n", ID_TEXT_BYTES, id, (int)org->tier.size,
        (const char *)org->tier.data, CLOCK_TEXT_BYTES, created, (unsigned long long)org->key_count,
        (int)org->name.size, (const char *)org->name.data);
}

static enum err run_org_list(struct store_job *job, struct store_connection *connection)
{
    struct admin_job *self = (struct admin_job *)(void *)job;
    return manage_org_list(connection, print_org, self->admin);
}

static enum err run_key_create(struct store_job *job, struct store_connection *connection)
{
    struct admin_job *self = (struct admin_job *)(void *)job;
    enum err err = manage_org_find(connection, self->org_name, &self->org);
    if (err == ERR_OK) {
        self->key_options.org = self->org.number;
        err = gate_key_insert(connection, self->key, &self->key_options, &self->key_number);
    }
    if (err == ERR_OK) {
        err = audit(connection, self->org.number, "key.create", slice_from_text(self->key->id));
    }
    return err;
}

static void print_time(struct admin *to, const char *label, int64_t time_ms)
{
    char text[CLOCK_TEXT_BYTES];
    if (time_ms != 0) {
        clock_format_rfc3339(time_ms, text);
        say(to, "  %s %.*s", label, CLOCK_TEXT_BYTES, text);
    }
}

/* A page of keys on its way into the reply. */
struct key_printer {
    struct admin *to;
    uint64_t last;
    uint32_t count;
};

static void print_key(const struct gate_key_row *row, void *context)
{
    struct key_printer *printer = context;
    struct admin *to = printer->to;
    printer->last = row->number;
    printer->count++;
    say(to, "%.*s  %s%s%s", (int)row->id.size, (const char *)row->id.data,
        (row->scopes & GATE_READ) != 0 ? "r" : "-", (row->scopes & GATE_WRITE) != 0 ? "w" : "-",
        (row->scopes & GATE_ADMIN) != 0 ? "a" : "-");
    const char *word = NULL;
    uint32_t narrowed = row->scopes & ~(uint32_t)GATE_ALL;
    while ((word = gate_scope_take(&narrowed)) != NULL) {
        say(to, " %s", word);
    }
    print_time(to, "made", row->created_ms);
    print_time(to, "expires", row->expires_ms);
    print_time(to, "revoked", row->revoked_ms);
    print_time(to, "used", row->last_used_ms);
    say(to, "  %.*s\n", (int)row->name.size, (const char *)row->name.data);
}

static enum err run_key_list(struct store_job *job, struct store_connection *connection)
{
    struct admin_job *self = (struct admin_job *)(void *)job;
    enum err err = manage_org_find(connection, self->org_name, &self->org);
    struct gate_page page = {
        .org = self->org.number, .limit = ADMIN_KEYS_PER_PAGE, .oldest_first = true};
    struct key_printer printer = {.to = self->admin, .count = ADMIN_KEYS_PER_PAGE};
    while (err == ERR_OK && printer.count == page.limit) {
        page.after = printer.last;
        printer.count = 0;
        err = gate_key_list(connection, &page, print_key, &printer);
    }
    return err;
}

static enum err run_key_rotate(struct store_job *job, struct store_connection *connection)
{
    struct admin_job *self = (struct admin_job *)(void *)job;
    enum err err = gate_key_replace(connection, 0, self->key_id, self->key, &self->old_key_number,
                                    &self->key_number);
    return err != ERR_OK ? err : audit(connection, 0, "key.rotate", self->key_id);
}

static enum err run_key_revoke(struct store_job *job, struct store_connection *connection)
{
    struct admin_job *self = (struct admin_job *)(void *)job;
    enum err err = gate_key_revoke(connection, 0, self->key_id, &self->old_key_number);
    return err != ERR_OK ? err : audit(connection, 0, "key.revoke", self->key_id);
}

/* --- reading the words ----------------------------------------------------------------------- */

/* Value of `--name value` or `--name=value`; NULL when absent. */
static const char *option(int argc, char **argv, const char *name)
{
    size_t size = strlen(name);
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], name, size) == 0 && argv[i][size] == '=') {
            return argv[i] + size + 1;
        }
        if (strcmp(argv[i], name) == 0 && i + 1 < argc) {
            return argv[i + 1];
        }
    }
    return NULL;
}

/* The first word that is neither an option nor an option's value. */
static const char *operand(int argc, char **argv)
{
    for (int i = 2; i < argc; i++) {
        if (strncmp(argv[i], "--", 2) != 0) {
            return argv[i];
        }
        if (strchr(argv[i], '=') == NULL) {
            i++;
        }
    }
    return NULL;
}

static bool scopes_read(const char *text, uint32_t *ret_scopes)
{
    uint32_t scopes = 0;
    struct slice rest = slice_from_text(text);
    while (rest.size > 0) {
        struct slice word = slice_cut(rest, ',', &rest);
        uint32_t scope = gate_scope_from_text(word);
        if (scope == 0) {
            return false;
        }
        scopes |= scope;
    }
    *ret_scopes = scopes;
    return scopes != 0;
}

static void store_failed(struct admin *admin, enum err err, const char *what)
{
    fail(admin, 1, "%s: %s", what, err_text(err));
}

static void org_create(struct admin *admin, int argc, char **argv)
{
    const char *name = operand(argc, argv);
    const char *tier = option(argc, argv, "--tier");
    enum gate_tier known;
    struct gate_new_key key;
    if (tier == NULL) {
        tier = "pro";
    }
    if (!gate_tier_from_text(slice_from_text(tier), &known)) {
        fail(admin, 2, "--tier %s: must be free, pro, business, enterprise or unlimited", tier);
        return;
    }
    enum err err = gate_key_prepare(admin->gate, &key);
    struct admin_job self = {.job.run = run_org_create,
                             .org_name = slice_from_text(name),
                             .tier = slice_from_text(tier),
                             .key = &key,
                             .key_options = {.scopes = GATE_ALL, .name = SLICE_LITERAL("first")}};
    if (err == ERR_OK) {
        err = admin_run_job(admin, &self.job);
    }
    if (err == ERR_EXISTS) {
        fail(admin, 1, "org %s exists already (weir org list shows all)", name);
    } else if (err == ERR_INVALID) {
        fail(admin, 2, "the name of an org has 1 to 100 bytes of printable text");
    } else if (err != ERR_OK) {
        store_failed(admin, err, "org create");
    } else {
        char id[ID_TEXT_BYTES];
        id_format(self.org.id, id);
        say(admin, "org %s %.*s tier %s\n%s\n", name, ID_TEXT_BYTES, id, tier, key.text);
    }
}

static void org_list(struct admin *admin, int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct admin_job self = {.job.run = run_org_list, .admin = admin};
    enum err err = admin_run_job(admin, &self.job);
    if (err != ERR_OK) {
        store_failed(admin, err, "org list");
    }
}

static bool key_options_read(struct admin *admin, int argc, char **argv,
                             struct gate_key_options *ret)
{
    const char *scopes = option(argc, argv, "--scopes");
    const char *days = option(argc, argv, "--expires-days");
    const char *name = option(argc, argv, "--name");
    uint64_t count = 0;
    *ret = (struct gate_key_options){.scopes = GATE_ALL,
                                     .name = slice_from_text(name != NULL ? name : "")};
    if (scopes != NULL && !scopes_read(scopes, &ret->scopes)) {
        fail(admin, 2,
             "--scopes %s: must be a list of read, write, admin, or narrower: read:events", scopes);
        return false;
    }
    if (days != NULL &&
        (!slice_to_u64(slice_from_text(days), &count) || count == 0 || count > 36500)) {
        fail(admin, 2, "--expires-days %s: must be 1 to 36500", days);
        return false;
    }
    ret->expires_ms = days == NULL ? 0 : clock_wall_ms() + (int64_t)count * ADMIN_DAY_MS;
    return true;
}

static void key_create(struct admin *admin, int argc, char **argv)
{
    const char *org = option(argc, argv, "--org");
    struct gate_new_key key;
    struct admin_job self = {.job.run = run_key_create, .key = &key};
    if (!key_options_read(admin, argc, argv, &self.key_options)) {
        return;
    }
    self.org_name = slice_from_text(org != NULL ? org : "main");
    enum err err = gate_key_prepare(admin->gate, &key);
    if (err == ERR_OK) {
        err = admin_run_job(admin, &self.job);
    }
    if (err == ERR_NOT_FOUND) {
        fail(admin, 1, "no org %s (weir org list shows all; --org NAME chooses)",
             org != NULL ? org : "main");
    } else if (err != ERR_OK) {
        store_failed(admin, err, "key create");
    } else {
        say(admin, "key %s\n%s\n", key.id, key.text);
    }
}

static void key_list(struct admin *admin, int argc, char **argv)
{
    const char *org = option(argc, argv, "--org");
    struct admin_job self = {.job.run = run_key_list,
                             .org_name = slice_from_text(org != NULL ? org : "main"),
                             .admin = admin};
    enum err err = admin_run_job(admin, &self.job);
    if (err == ERR_NOT_FOUND) {
        fail(admin, 1, "no org %s (weir org list shows all; --org NAME chooses)",
             org != NULL ? org : "main");
    } else if (err != ERR_OK) {
        store_failed(admin, err, "key list");
    }
}

static void key_rotate(struct admin *admin, int argc, char **argv)
{
    struct gate_new_key key;
    struct admin_job self = {
        .job.run = run_key_rotate, .key_id = slice_from_text(operand(argc, argv)), .key = &key};
    enum err err = gate_key_prepare(admin->gate, &key);
    if (err == ERR_OK) {
        err = admin_run_job(admin, &self.job);
    }
    if (err == ERR_NOT_FOUND) {
        fail(admin, 1, "no live key %s (weir key list shows all)", operand(argc, argv));
    } else if (err != ERR_OK) {
        store_failed(admin, err, "key rotate");
    } else {
        gate_forget_key(admin->gate, self.old_key_number);
        say(admin, "key %s\n%s\n", key.id, key.text);
    }
}

static void key_revoke(struct admin *admin, int argc, char **argv)
{
    struct admin_job self = {.job.run = run_key_revoke,
                             .key_id = slice_from_text(operand(argc, argv))};
    enum err err = admin_run_job(admin, &self.job);
    if (err == ERR_NOT_FOUND) {
        fail(admin, 1, "no live key %s (weir key list shows all)", operand(argc, argv));
    } else if (err != ERR_OK) {
        store_failed(admin, err, "key revoke");
    } else {
        gate_forget_key(admin->gate, self.old_key_number);
        say(admin, "revoked %s\n", operand(argc, argv));
    }
}

static const struct admin_row {
    const char *command;
    const char *verb;
    const char *usage;
    bool needs_operand;
    void (*run)(struct admin *admin, int argc, char **argv);
} admin_rows[] = {
    {"org", "create",
     "weir org create NAME [--tier free|pro|business|enterprise|unlimited]\n"
     "  Makes an org and its first key (all scopes); the key stands alone on the last line.",
     true, org_create},
    {"org", "list", "weir org list\n  Id, tier, creation, keys and name of every org.", false,
     org_list},
    {"key", "create",
     "weir key create [--org NAME] [--name TEXT] [--scopes read,write,admin] [--expires-days N]\n"
     "  Scopes may be narrowed: read:events, write:health. Makes a key; it is shown once, alone on "
     "the last line.",
     false, key_create},
    {"key", "list", "weir key list [--org NAME]\n  Every key of the org, without its secret.",
     false, key_list},
    {"key", "rotate",
     "weir key rotate KEY_ID\n  A new key with the same scopes; the old one dies at once.", true,
     key_rotate},
    {"key", "revoke", "weir key revoke KEY_ID\n  The key dies at once.", true, key_revoke},
};

bool admin_knows(const char *command)
{
    return strcmp(command, "org") == 0 || strcmp(command, "key") == 0;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

void admin_command(struct admin *admin, int argc, char **argv)
{
    const char *verb = argc > 1 ? argv[1] : "";
    bool help = asks_for_help(argc, argv);
    admin->status = 0;
    for (size_t i = 0; i < sizeof(admin_rows) / sizeof(admin_rows[0]); i++) {
        const struct admin_row *row = &admin_rows[i];
        if (strcmp(row->command, argv[0]) != 0) {
            continue;
        }
        if (help && (strcmp(verb, row->verb) == 0 || verb[0] == '-')) {
            say(admin, "%s\n", row->usage);
        } else if (!help && strcmp(row->verb, verb) == 0) {
            if (row->needs_operand && operand(argc, argv) == NULL) {
                fail(admin, 2, "usage: %s", row->usage);
            } else {
                row->run(admin, argc, argv);
            }
            return;
        }
    }
    if (!help) {
        fail(admin, 2, "unknown command: weir %s %s (weir %s --help lists them)", argv[0], verb,
             argv[0]);
    }
}

enum err admin_first_org(struct admin *admin, char *ret_key)
{
    struct gate_new_key key;
    ret_key[0] = '\0';
    enum err err = gate_key_prepare(admin->gate, &key);
    struct admin_job self = {.job.run = run_org_create,
                             .only_if_none = true,
                             .org_name = SLICE_LITERAL("main"),
                             .tier = SLICE_LITERAL("unlimited"),
                             .key = &key,
                             .key_options = {.scopes = GATE_ALL, .name = SLICE_LITERAL("first")}};
    if (err == ERR_OK) {
        err = admin_run_job(admin, &self.job);
    }
    if (err == ERR_OK && self.count == 0) {
        (void)snprintf(ret_key, GATE_KEY_TEXT_MAX, "%s", key.text);
    }
    return err;
}
