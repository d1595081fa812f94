/* Encode: the part of encoding that only this folder uses. See http.h for the rest.
 *
 * Thread: one owner of the encoder.
 * Memory: *encoder is made at first use and is the caller's.
 * Errors: ERR_TOO_LARGE, ERR_NO_MEMORY: `to` may hold a part. */
#pragma once
#include "http/http.h"

/* As http_encode, with an encoder that is kept for the next body. */
MUST_CHECK enum err http_encode_reusing(struct http_encoder **encoder, enum http_coding coding,
                                        struct slice body, struct buffer *to);
