/* Manage: what people set up: orgs, their settings, and the registry of devices; endpoints and
 * types later.
 *
 * Thread: inside store jobs.
 * Memory: row slices live inside the callback; those that create gives are the caller's own.
 * Errors: ERR_EXISTS a name that is taken, ERR_INVALID a name that is not permitted, ERR_NOT_FOUND.
 */
#pragma once
#include <stdbool.h>

#include "base/buffer.h"
#include "base/err.h"
#include "base/id.h"
#include "base/slice.h"

struct store_connection;

#define MANAGE_ORG_NAME_BYTES_MAX 100u
#define MANAGE_ORG_TIER_BYTES_MAX 20u
#define MANAGE_ORG_TEXT_BYTES     (MANAGE_ORG_NAME_BYTES_MAX + MANAGE_ORG_TIER_BYTES_MAX)

struct manage_org {
    uint64_t number;
    struct id id;
    struct slice name; /* 1 to 100 bytes, printable UTF-8 */
    struct slice tier; /* word of gate's tiers */
    int64_t created_ms;
    uint64_t key_count;               /* live ones */
    char text[MANAGE_ORG_TEXT_BYTES]; /* what name and tier of a found org point into */
};
/* Makes its 32-byte id key (DESIGN I8) too. The tier is taken as one of gate's words, checked by
 * the caller. */
MUST_CHECK enum err manage_org_create(struct store_connection *connection, struct slice name,
                                      struct slice tier, struct manage_org *ret);
/* A name that looks like an id is looked for as an id first. The struct owns the text that its
 * slices point into, so it must not be moved or copied while they are used. */
MUST_CHECK enum err manage_org_find(struct store_connection *connection, struct slice name_or_id,
                                    struct manage_org *ret);
/* In the order of their making. */
MUST_CHECK enum err manage_org_list(struct store_connection *connection,
                                    void (*on_row)(const struct manage_org *org, void *context),
                                    void *context);

/* --- the registry: projects, their sites and parameters, the sites' devices ---------------------
 */
enum manage_kind { MANAGE_PROJECT, MANAGE_SITE, MANAGE_DEVICE, MANAGE_PARAMETER, MANAGE_KINDS };

enum manage_type { MANAGE_TEXT, MANAGE_JSON, MANAGE_WHOLE, MANAGE_NUMBER, MANAGE_BOOL };
struct manage_field {
    const char *name;  /* of the member */
    const char *alias; /* another name of it, or NULL */
    const char *column;
    enum manage_type type;
    bool is_required;
    bool is_fixed;      /* cannot be changed later */
    const char *words;  /* of a text: "|a|b|", or NULL */
    const char *absent; /* text of the value when it is not given, or NULL */
    int64_t min;        /* of a whole number */
    int64_t max;        /* of a whole number; of a text: bytes */
};
#define MANAGE_FIELDS_MAX 9u
struct manage_kind_row {
    const char *name;        /* "devices" */
    const char *parent_name; /* "site_id", or NULL */
    const struct manage_field *fields;
    uint32_t field_count;
    enum manage_kind parent; /* MANAGE_KINDS: none */
};
const struct manage_kind_row *manage_kind(enum manage_kind kind);

struct manage_value {
    bool is_set;
    bool is_null;
    struct slice text; /* TEXT, JSON */
    int64_t whole;     /* WHOLE, BOOL */
    double number;
};
struct manage_entity {
    uint64_t org;
    struct id id; /* out of create */
    bool has_parent;
    struct id parent;
    struct manage_value values[MANAGE_FIELDS_MAX]; /* as the kind's fields */
};
/* What is wrong: constant texts. */
struct manage_fault {
    const char *field;
    const char *message;
};
/* First in each job that changes the registry of an org, so that jobs of several nodes follow each
 * other: import and publish take it themselves. */
MUST_CHECK enum err manage_registry_lock(struct store_connection *connection, uint64_t org);
/* ERR_INVALID: *ret_fault says why; ERR_EXISTS. All of these run inside a durable job and raise the
 * org's data version. */
MUST_CHECK enum err manage_registry_create(struct store_connection *connection,
                                           enum manage_kind kind, struct manage_entity *entity,
                                           struct manage_fault *ret_fault);
/* Changes the values that are set. */
MUST_CHECK enum err manage_registry_update(struct store_connection *connection,
                                           enum manage_kind kind,
                                           const struct manage_entity *entity,
                                           struct manage_fault *ret_fault);
/* ERR_EXISTS: something still belongs to it. */
MUST_CHECK enum err manage_registry_delete(struct store_connection *connection,
                                           enum manage_kind kind, uint64_t org, struct id id);
/* Its object alone. */
MUST_CHECK enum err manage_registry_get(struct store_connection *connection, enum manage_kind kind,
                                        uint64_t org, struct id id, struct buffer *to);
struct manage_list {
    enum manage_kind kind;
    uint64_t org;
    bool has_parent;
    struct id parent;
    bool has_project; /* of devices */
    struct id project;
    struct slice name;        /* data NULL: every one; the same for the next */
    struct slice external_id; /* of devices */
    bool oldest_first;
    uint32_t limit;
    uint64_t after; /* number of the last that was given; 0: from the start */
};
/* ERR_NOT_FOUND also for another org's. */
MUST_CHECK enum err manage_registry_exists(struct store_connection *connection,
                                           enum manage_kind kind, uint64_t org, struct id id);
/* Objects with commas between, without brackets. */
MUST_CHECK enum err manage_registry_list(struct store_connection *connection,
                                         const struct manage_list *list, struct buffer *to,
                                         bool *ret_more, uint64_t *ret_place);
/* The last part of a parameter's key: letters and digits in lower case, all else as one '_'.
 * ERR_INVALID: nothing is left. */
MUST_CHECK enum err manage_snake(struct slice name, struct buffer *to);

/* --- CSV (formats/telemetry.md 4) ---------------------------------------------------------------
 */
enum manage_file { MANAGE_FILE_REGISTRY, MANAGE_FILE_PARAMETERS };
#define MANAGE_LINE_FAULTS_MAX 100u
struct manage_line_fault {
    uint32_t line; /* from 1: the header */
    const char *code;
    const char *column; /* or NULL */
    const char *message;
};
struct manage_import {
    uint64_t org;
    bool any_customer; /* customer_name is not looked at */
    /* out */
    uint32_t lines;
    uint32_t wrong_lines;
    uint32_t created[MANAGE_KINDS];
    uint32_t updated[MANAGE_KINDS];
    uint32_t fault_count; /* below */
    struct manage_line_fault faults[MANAGE_LINE_FAULTS_MAX];
};
/* All of the file or nothing of it: ERR_INVALID: the job must fail; the faults say which lines. */
MUST_CHECK enum err manage_import(struct store_connection *connection, enum manage_file file,
                                  struct slice bytes, struct manage_import *import);
/* The file's columns, of every project or of one. */
MUST_CHECK enum err manage_export(struct store_connection *connection, enum manage_file file,
                                  uint64_t org, struct buffer *to);

/* --- versions of a project's registry ------------------------------------------------------------
 */
/* A snapshot as the next version: its object goes to `to`. `key`: number of who publishes. */
MUST_CHECK enum err manage_publish(struct store_connection *connection, uint64_t org,
                                   struct id project, uint64_t key, struct buffer *to,
                                   uint64_t *ret_version);
struct manage_place {
    uint64_t place; /* in: of the last that was given, 0: from the start; out */
    bool has_more;  /* out */
};
/* Objects with commas between, newest first. */
MUST_CHECK enum err manage_versions(struct store_connection *connection, uint64_t org,
                                    struct id project, uint32_t limit, struct buffer *to,
                                    struct manage_place *place);
MUST_CHECK enum err manage_version_get(struct store_connection *connection, uint64_t org,
                                       struct id project, uint64_t version, bool with_config,
                                       struct buffer *to);
/* {"project_id", "from", "to", "changes": [{"kind", "change", "id", "name", "fields"?}]} */
MUST_CHECK enum err manage_version_diff(struct store_connection *connection, uint64_t org,
                                        struct id project, uint64_t from, uint64_t to,
                                        struct buffer *ret);

/* --- what an org sets for itself ------------------------------------------------------------- */
#define MANAGE_TIMEZONE_BYTES_MAX 64u
#define MANAGE_SOURCES_MAX        100u
#define MANAGE_SOURCE_BYTES_MAX   255u
#define MANAGE_HOURS_MAX          8784u /* a year */
#define MANAGE_DAYS_MAX           36500u
#define MANAGE_UNSET              UINT32_MAX
struct manage_settings {
    struct slice timezone;               /* a name of the IANA database; by its form */
    struct slice units;                  /* "metric", "imperial" */
    struct slice week_start;             /* "monday", "saturday", "sunday" */
    const struct slice *source_priority; /* names of sources, the best first */
    uint32_t source_count;
    /* MANAGE_UNSET: as the rule for each device says. */
    uint32_t silence_hours; /* without data, until it is told; 0: never */
    uint32_t late_s;        /* behind its time, from which a reading is late */
    uint32_t raw_days;      /* raw bodies are kept; 0: as the server's setting says */
    uint32_t events_days;   /* 0: for ever; the same for the next three */
    uint32_t readings_days;
    uint32_t rollups_days; /* not less than readings_days */
    uint32_t dead_letters_days;
};
extern const struct manage_settings manage_settings_default;
/* JSON Pointer of the first member that is not permitted; NULL: all are. */
const char *manage_settings_check(const struct manage_settings *settings);
/* Appends the JSON object. */
MUST_CHECK enum err manage_settings_get(struct store_connection *connection, uint64_t org,
                                        struct buffer *to);
/* Replaces all of it, and appends it as manage_settings_get would. ERR_INVALID as _check says.
 * Inside a durable job. */
MUST_CHECK enum err manage_settings_put(struct store_connection *connection, uint64_t org,
                                        const struct manage_settings *settings, struct buffer *to);
/* What follows from it for devices; each call in a job of its own, until *ret_has_more is false. */
MUST_CHECK enum err manage_settings_follow(struct store_connection *connection, uint64_t org,
                                           bool *ret_has_more);
