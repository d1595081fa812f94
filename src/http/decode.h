/* Decode: bodies in gzip, br and zstd, piece by piece.
 *
 * Thread: one owner.
 * Memory: a decoder holds its coding's window, at most 16 MiB.
 * Errors: ERR_SYNTAX: the bytes are not of this coding; ERR_NO_MEMORY. */
#pragma once
#include <stdbool.h>

#include "base/err.h"
#include "base/slice.h"
#include "http/http.h"

struct http_decoder;

/* "gzip" and "x-gzip", "br", "zstd", "identity", without case; false for others. */
bool http_coding_from_name(struct slice name, enum http_coding *ret);
MUST_CHECK enum err http_decoder_create(struct http_decoder **ret, enum http_coding coding);
/* NULL is fine. */
void http_decoder_destroy(struct http_decoder *decoder);
/* Moves *rest past what was read and writes at most `room` bytes. When it wrote less than `room`,
 * *rest is used up and more has to come. */
MUST_CHECK enum err http_decoder_step(struct http_decoder *decoder, struct slice *rest, uint8_t *to,
                                      size_t room, size_t *ret_size);
/* Whether the encoded bytes may end here. */
bool http_decoder_is_whole(const struct http_decoder *decoder);
