/* The listener: hears what other nodes change and apply, and says what this one applies.
 *
 * What a node holds in memory (keys) has a version in the database, which every change raises in
 * its own transaction and tells with it. Whoever has heard each version up to the last knows
 * everything; a version that is missing, or that is found in the database without having been
 * heard, says that messages were lost: then it is not known what changed, and all is dropped. The
 * version that keys are read after is looked up before the thread runs; when that failed, all is
 * dropped at the first look.
 *
 *   AWAY -- connected: listens, then looks --> HEARING -- a message --> HEARING
 *    ^                                           |  '---- a second of silence: looks --> HEARING
 *    '------------- the session broke -----------'
 *
 * What is applied is told after its commit, not in it: a commit that tells waits for every other
 * one that does. A node that dies between the two is made good by the look. At most fifty times a
 * second, with all that came in between.
 *
 * Happy path: a message comes, its callback is run, all up to now is known.
 * Failure modes: the server is away: tried again, with a pause that doubles up to two seconds; what
 * is to be told waits, with orgs in a table that is bounded and positions of which the highest
 * counts. */
#include "store/listener.h"

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/table.h"

#include <inttypes.h>
#include <stdio.h>

#define SILENCE_MS     1000u
#define TELL_EACH_MS   20u
#define RETRY_MS       100
#define PENDING_MAX    65536u
#define MESSAGE_BYTES  7900u /* the engine takes 8,000 */
#define LOOK_BYTES     65536u
#define MESSAGE_ORGS   1024u
#define JOURNALS_KNOWN 256u
#define NUMBER_BYTES   21u

/* What is applied of some lanes. */
struct passed {
    uint64_t lanes;
    uint64_t position;
};

struct store_listener {
    struct store_connection *connection;
    struct store_listen_options options;
    struct mailbox *mailbox;
    struct table *pending;          /* orgs to be told of */
    atomic_uint_least64_t position; /* to be told; release by announce, acquire here */
    uint64_t told;                  /* the last position that was */
    atomic_uint_least64_t spool;    /* the same two of the spool */
    uint64_t told_spool;
    struct table *passed; /* one: both numbers are those of one moment */
    struct passed told_passed;
    atomic_bool has_free; /* relaxed: the wake follows it */
    uint64_t told_ms;
    uint64_t heard_ms; /* monotonic; the last message or look */
    uint64_t version;
    bool has_version;
    bool is_away;                   /* it was logged */
    uint64_t known[JOURNALS_KNOWN]; /* positions that callbacks have seen, one of each journal */
    uint32_t known_count;
    char look[LOOK_BYTES];
    char message[MESSAGE_BYTES + 1];
};

static struct slice next_word(struct slice *text)
{
    struct slice rest;
    struct slice word = slice_cut(*text, ' ', &rest);
    *text = rest;
    return word;
}

static bool next_number(struct slice *text, uint64_t *ret)
{
    return text->size > 0 && slice_to_u64(next_word(text), ret);
}

/* What changes before this is in whatever is read after it; away, the first look drops all. */
static void note_version(struct store_listener *listener)
{
    const struct store_ears *ears = listener->connection->backend->ears;
    bool is_new = false;
    enum err err = ears->listen(listener->connection, &is_new);
    if (err == ERR_OK) {
        err = ears->look(listener->connection, listener->look, sizeof(listener->look));
    }
    struct slice words = slice_from_text(listener->look);
    listener->has_version = err == ERR_OK && next_number(&words, &listener->version);
}

enum err store_listener_create(struct store_listener **ret, struct store_connection *connection,
                               const struct store_listen_options *options)
{
    struct store_listener *listener = mem_alloc(sizeof(*listener));
    enum err err = mailbox_create(&listener->mailbox, 1);
    if (err != ERR_OK) {
        mem_free(listener);
        return err;
    }
    listener->connection = connection;
    listener->options = *options;
    listener->pending = table_create(PENDING_MAX, sizeof(uint64_t));
    listener->passed = table_create(1, sizeof(struct passed));
    note_version(listener);
    *ret = listener;
    return ERR_OK;
}

void store_listener_destroy(struct store_listener *listener)
{
    if (listener == NULL) {
        return;
    }
    listener->connection->backend->close(listener->connection);
    table_destroy(listener->pending);
    table_destroy(listener->passed);
    mailbox_destroy(listener->mailbox);
    mem_free(listener);
}

void store_listener_stop(struct store_listener *listener)
{
    mailbox_close(listener->mailbox);
}

/* --- telling --------------------------------------------------------------------------------- */

static void raise_to(atomic_uint_least64_t *number, uint64_t to)
{
    uint64_t before = atomic_load_explicit(number, memory_order_relaxed);
    while (before < to && !atomic_compare_exchange_weak_explicit(
                              number, &before, to, memory_order_release, memory_order_relaxed)) {
    }
}

void store_listener_announce(struct store_listener *listener, uint64_t position,
                             const uint64_t *orgs, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        table_put(listener->pending, slice_make(&orgs[i], sizeof(orgs[i])), &orgs[i]);
    }
    raise_to(&listener->position, position);
    mailbox_wake(listener->mailbox);
}

void store_listener_announce_spool(struct store_listener *listener, uint64_t position)
{
    if (atomic_load_explicit(&listener->spool, memory_order_relaxed) < position) {
        raise_to(&listener->spool, position);
        mailbox_wake(listener->mailbox);
    }
}

static struct slice passed_key(void)
{
    return SLICE_LITERAL("passed");
}

struct passed_change {
    struct passed to;
    bool is_new;
};

static void visit_passed(void *value, void *context)
{
    struct passed *passed = value;
    struct passed_change *change = context;
    change->is_new = passed->lanes != change->to.lanes || passed->position != change->to.position;
    *passed = change->to;
}

void store_listener_announce_passed(struct store_listener *listener, uint64_t lanes,
                                    uint64_t position)
{
    struct passed_change change = {.to = {.lanes = lanes, .position = position}};
    table_upsert(listener->passed, passed_key(), visit_passed, &change);
    if (change.is_new) {
        mailbox_wake(listener->mailbox);
    }
}

void store_listener_announce_free(struct store_listener *listener)
{
    atomic_store_explicit(&listener->has_free, true, memory_order_relaxed);
    mailbox_wake(listener->mailbox);
}

struct org_writer {
    char *to;
    size_t size;
};

/* Takes an org while there is room for it. */
static bool write_org(const void *value, void *context)
{
    struct org_writer *writer = context;
    if (writer->size + 1 + NUMBER_BYTES > MESSAGE_BYTES) {
        return false;
    }
    writer->size += (size_t)snprintf(writer->to + writer->size, 1 + NUMBER_BYTES, " %" PRIu64,
                                     *(const uint64_t *)value);
    return true;
}

static bool has_applied(const struct store_listener *listener)
{
    return atomic_load_explicit(&listener->position, memory_order_acquire) > listener->told ||
           table_count(listener->pending) > 0;
}

static bool has_spool(const struct store_listener *listener)
{
    return atomic_load_explicit(&listener->spool, memory_order_acquire) > listener->told_spool;
}

static bool has_passed(const struct store_listener *listener, struct passed *ret)
{
    const struct passed *told = &listener->told_passed;
    return table_copy(listener->passed, passed_key(), ret) &&
           (ret->lanes != told->lanes || ret->position != told->position);
}

static bool has_to_tell(const struct store_listener *listener)
{
    struct passed passed;
    return has_applied(listener) || has_spool(listener) || has_passed(listener, &passed) ||
           atomic_load_explicit(&listener->has_free, memory_order_relaxed);
}

static enum err tell_message(struct store_listener *listener)
{
    return listener->connection->backend->ears->tell(listener->connection, listener->message);
}

/* Orgs that do not fit wait for the next. */
static enum err tell_applied(struct store_listener *listener)
{
    uint64_t position = atomic_load_explicit(&listener->position, memory_order_acquire);
    struct org_writer writer = {.to = listener->message};
    writer.size =
        (size_t)snprintf(listener->message, sizeof(listener->message),
                         "applied %" PRIu64 " %" PRIu64, listener->options.node, position);
    table_erase_if(listener->pending, write_org, &writer);
    listener->told = position;
    return tell_message(listener);
}

static enum err tell_spool(struct store_listener *listener)
{
    uint64_t position = atomic_load_explicit(&listener->spool, memory_order_acquire);
    (void)snprintf(listener->message, sizeof(listener->message), "applied %" PRIu64 " %" PRIu64,
                   listener->options.node, position);
    listener->told_spool = position;
    return tell_message(listener);
}

static enum err tell_passed(struct store_listener *listener, const struct passed *passed)
{
    (void)snprintf(listener->message, sizeof(listener->message),
                   "passed %" PRIu64 " %" PRIu64 " %" PRIu64, listener->options.node, passed->lanes,
                   passed->position);
    listener->told_passed = *passed;
    return tell_message(listener);
}

static enum err tell(struct store_listener *listener)
{
    struct passed passed;
    enum err err = has_applied(listener) ? tell_applied(listener) : ERR_OK;
    if (err == ERR_OK && has_spool(listener)) {
        err = tell_spool(listener);
    }
    if (err == ERR_OK && has_passed(listener, &passed)) {
        err = tell_passed(listener, &passed);
    }
    if (err == ERR_OK &&
        atomic_exchange_explicit(&listener->has_free, false, memory_order_relaxed)) {
        (void)snprintf(listener->message, sizeof(listener->message), "free %" PRIu64,
                       listener->options.node);
        err = tell_message(listener);
    }
    listener->told_ms = clock_mono_ms();
    return err;
}

/* --- hearing --------------------------------------------------------------------------------- */

/* False: it was known. */
static bool learn_position(struct store_listener *listener, uint64_t position)
{
    for (uint32_t i = 0; i < listener->known_count; i++) {
        if (listener->known[i] >> LIMIT_RANGE_SHIFT == position >> LIMIT_RANGE_SHIFT) {
            bool is_new = position > listener->known[i];
            listener->known[i] = is_new ? position : listener->known[i];
            return is_new;
        }
    }
    if (listener->known_count < JOURNALS_KNOWN) {
        listener->known[listener->known_count++] = position;
    }
    return true;
}

static void hear_applied(struct store_listener *listener, struct slice words)
{
    uint64_t orgs[MESSAGE_ORGS];
    uint32_t count = 0;
    uint64_t node = 0;
    uint64_t position = 0;
    if (!next_number(&words, &node) || !next_number(&words, &position)) {
        return;
    }
    (void)learn_position(listener, position);
    while (count < MESSAGE_ORGS && next_number(&words, &orgs[count])) {
        count++;
    }
    if (node != listener->options.node) {
        bool are_all = count < MESSAGE_ORGS;
        listener->options.on_applied(listener->options.owner, position, are_all ? orgs : NULL,
                                     are_all ? count : 0);
    }
}

static void hear_lanes(struct store_listener *listener, struct slice first, struct slice words)
{
    struct passed passed;
    uint64_t node = 0;
    if (!next_number(&words, &node) || node == listener->options.node) {
        return;
    }
    if (slice_equal(first, SLICE_LITERAL("free"))) {
        listener->options.on_free(listener->options.owner);
    } else if (slice_equal(first, SLICE_LITERAL("passed")) && next_number(&words, &passed.lanes) &&
               next_number(&words, &passed.position)) {
        listener->options.on_passed(listener->options.owner, passed.lanes, passed.position);
    }
}

static void hear_change(struct store_listener *listener, enum store_change change,
                        struct slice words)
{
    uint64_t version = 0;
    uint64_t number = 0;
    if (!next_number(&words, &version) || !next_number(&words, &number) ||
        version <= listener->version) {
        return; /* a look came before it */
    }
    bool is_next = version == listener->version + 1;
    listener->version = version;
    listener->options.on_change(listener->options.owner, is_next ? change : STORE_CHANGED_ANY,
                                number);
}

static void on_message(void *owner, struct slice message)
{
    static const struct {
        const char *word;
        enum store_change change;
    } changes[] = {
        {"key", STORE_CHANGED_KEY}, {"keys", STORE_NEW_KEYS}, {"org", STORE_CHANGED_ORG}};
    struct store_listener *listener = owner;
    struct slice words = message;
    struct slice first = next_word(&words);
    listener->heard_ms = clock_mono_ms();
    if (slice_equal(first, SLICE_LITERAL("applied"))) {
        hear_applied(listener, words);
    }
    hear_lanes(listener, first, words);
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        if (slice_equal(first, slice_from_text(changes[i].word))) {
            hear_change(listener, changes[i].change, words);
        }
    }
}

/* --- looking --------------------------------------------------------------------------------- */

static enum err look(struct store_listener *listener)
{
    uint64_t from_ms = clock_mono_ms();
    uint64_t version = 0;
    uint64_t position = 0;
    enum err err = listener->connection->backend->ears->look(listener->connection, listener->look,
                                                             sizeof(listener->look));
    struct slice words = slice_from_text(listener->look);
    if (err != ERR_OK || !next_number(&words, &version)) {
        return err;
    }
    /* Without a version it is not known what changed since the first key was read. */
    if (!listener->has_version || version > listener->version) {
        listener->options.on_change(listener->options.owner, STORE_CHANGED_ANY, 0);
    }
    listener->version = version > listener->version ? version : listener->version;
    listener->has_version = true;
    while (next_number(&words, &position)) {
        if (learn_position(listener, position)) {
            listener->options.on_applied(listener->options.owner, position, NULL, 0);
        }
    }
    listener->heard_ms = from_ms;
    listener->options.on_current(listener->options.owner, from_ms);
    return ERR_OK;
}

/* --- the thread ------------------------------------------------------------------------------ */

static uint64_t ms_since(uint64_t then_ms, uint64_t now_ms)
{
    return now_ms > then_ms ? now_ms - then_ms : 0;
}

/* Tells and looks when it is time, then hears. */
static enum err listen_round(struct store_listener *listener)
{
    const struct store_ears *ears = listener->connection->backend->ears;
    uint64_t now_ms = clock_mono_ms();
    uint64_t wait_ms = 0;
    bool is_new = false;
    enum err err = ears->listen(listener->connection, &is_new);
    if (err == ERR_OK && (is_new || ms_since(listener->heard_ms, now_ms) >= SILENCE_MS)) {
        err = look(listener);
    }
    if (err == ERR_OK && has_to_tell(listener)) {
        uint64_t since_ms = ms_since(listener->told_ms, now_ms);
        wait_ms = since_ms < TELL_EACH_MS ? TELL_EACH_MS - since_ms : 0;
        err = wait_ms == 0 ? tell(listener) : ERR_OK;
    }
    if (err != ERR_OK) {
        return err;
    }
    uint64_t silent_ms = ms_since(listener->heard_ms, clock_mono_ms());
    uint64_t rest_ms = silent_ms < SILENCE_MS ? SILENCE_MS - silent_ms : 0;
    rest_ms = wait_ms > 0 && wait_ms < rest_ms ? wait_ms : rest_ms;
    uint64_t heard_ms = listener->heard_ms;
    err = ears->hear(listener->connection, mailbox_fd(listener->mailbox), (int)rest_ms, on_message,
                     listener);
    if (err == ERR_OK && listener->heard_ms != heard_ms) {
        listener->options.on_current(listener->options.owner, listener->heard_ms);
    }
    return err;
}

static void note_away(struct store_listener *listener, enum err err)
{
    if (err != ERR_OK && !listener->is_away) {
        log_write(LOG_WARN, "store", "other nodes are not heard, will be tried again: %s",
                  err_text(err));
    } else if (err == ERR_OK && listener->is_away) {
        log_write(LOG_INFO, "store", "other nodes are heard again");
    }
    listener->is_away = err != ERR_OK;
}

void store_listener_work(struct store_listener *listener)
{
    while (!mailbox_is_closed(listener->mailbox)) {
        enum err err = listen_round(listener);
        note_away(listener, err);
        if (err != ERR_OK) {
            mailbox_wait(listener->mailbox, RETRY_MS);
        }
        (void)mailbox_run_all(listener->mailbox); /* there is no mail: forgets the wake */
    }
    if (!listener->is_away && has_to_tell(listener)) {
        (void)tell(listener); /* lost: their next look finds it */
    }
}
