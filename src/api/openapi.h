/* Openapi: docs/openapi.yaml, compiled in.  Thread, memory, errors: a constant. */
#pragma once
#include <stddef.h>

extern const unsigned char api_openapi[];
extern const size_t api_openapi_size;
