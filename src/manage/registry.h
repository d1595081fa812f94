/* Registry, private: what the files of the registry share.
 *
 * Thread: inside store jobs.  Memory: the caller's.  Errors: as in manage.h. */
#pragma once
#include "manage/manage.h"

MUST_CHECK enum err manage_registry_number(struct store_connection *connection,
                                           enum manage_kind kind, uint64_t org, struct id id,
                                           uint64_t *ret);
/* Whether the row of entity->id has another value than one that is set. */
MUST_CHECK enum err manage_registry_differs(struct store_connection *connection,
                                            enum manage_kind kind,
                                            const struct manage_entity *entity, bool *ret);
