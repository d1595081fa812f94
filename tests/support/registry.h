/* Registry: projects, sites, devices and parameters for a test's readings. A test that includes
 * this is built with: manage.
 *
 * Thread: inside a store job.  Memory: none.  Errors: fail the test. */
#pragma once
#include "manage/manage.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static inline struct manage_value registry_text(const char *value)
{
    return (struct manage_value){.is_set = true, .text = slice_from_text(value)};
}

static inline struct manage_value registry_number(double value)
{
    return (struct manage_value){.is_set = true, .number = value};
}

/* `parent` NULL: it is a project. */
static inline struct id registry_add_entity(struct store_connection *connection,
                                            enum manage_kind kind, struct manage_entity *entity,
                                            const struct id *parent)
{
    struct manage_fault fault = {.field = NULL};
    entity->has_parent = parent != NULL;
    entity->parent = parent != NULL ? *parent : entity->parent;
    assert_int_equal(manage_registry_create(connection, kind, entity, &fault), ERR_OK);
    return entity->id;
}

/* One that has its name alone. */
static inline struct id registry_add(struct store_connection *connection, enum manage_kind kind,
                                     uint64_t org, const char *name, const struct id *parent)
{
    struct manage_entity entity = {.org = org, .values = {registry_text(name)}};
    return registry_add_entity(connection, kind, &entity, parent);
}

/* A parameter of 0 to 10 that is named after what it does with other values. */
static inline void registry_add_bounded(struct store_connection *connection, uint64_t org,
                                        const char *policy, const struct id *project)
{
    struct manage_entity entity = {.org = org, .values = {registry_text(policy)}};
    entity.values[3] = registry_number(0);
    entity.values[4] = registry_number(10);
    entity.values[5] = registry_text(policy);
    (void)registry_add_entity(connection, MANAGE_PARAMETER, &entity, project);
}
