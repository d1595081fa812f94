/* Registry, private: what the files of the registry share.
 *
 * Thread: inside store jobs.  Memory: the caller's.  Errors: as in manage.h. */
#pragma once
#include "manage/manage.h"

MUST_CHECK enum err manage_raise_version(struct store_connection *connection, uint64_t org);
MUST_CHECK enum err manage_registry_number(struct store_connection *connection,
                                           enum manage_kind kind, uint64_t org, struct id id,
                                           uint64_t *ret);
