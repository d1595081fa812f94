/* Registry, private: what the files of the registry share.
 *
 * Thread: inside store jobs.  Memory: the caller's.  Errors: as in manage.h. */
#pragma once
#include "manage/manage.h"

struct store_statement;

MUST_CHECK enum err manage_registry_number(struct store_connection *connection,
                                           enum manage_kind kind, uint64_t org, struct id id,
                                           uint64_t *ret);
/* Whether the row of entity->id has another value than one that is set. */
MUST_CHECK enum err manage_registry_differs(struct store_connection *connection,
                                            enum manage_kind kind,
                                            const struct manage_entity *entity, bool *ret);

/* A version's config: the project with all that belongs to it. */
#define MANAGE_CONFIG_BYTES_MAX ((size_t)3 * 1024 * 1024)
#define MANAGE_VERSION_CONFIG   4 /* its column in what manage_version_find gives */
/* The row of a version, to be reset. ERR_NOT_FOUND. */
MUST_CHECK enum err manage_version_find(struct store_connection *connection, uint64_t org,
                                        uint64_t project, uint64_t version,
                                        struct store_statement **ret);
