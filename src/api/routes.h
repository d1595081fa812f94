/* Routes: the one table.  Thread, memory, errors: constants. */
#pragma once
#include "api/context.h"

extern const struct api_route api_route_table[];
extern const uint32_t api_route_count;
