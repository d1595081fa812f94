/* One step function for each coding behind a common face.
 *
 * A gzip body may be several members, a zstd body several frames (both formats say so); br is one
 * stream. The window of zstd is bounded by the 8 MiB that RFC 9659 permits for this coding.
 *
 * Happy path: step until the input is used up, again and again; at the end the stream is whole.
 * Failure modes: bytes that are not of the coding, or bytes after its end: ERR_SYNTAX. A stream
 * that is cut is seen by is_whole. Caps on sizes and ratios are the caller's. */
#include "http/decode.h"

#include <assert.h>
#include <brotli/decode.h>
#define ZLIB_CONST /* next_in is a pointer to const */
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"

#define ZSTD_WINDOW_LOG_MAX 23
#define ZLIB_WINDOW_GZIP    (15 + 16)

struct http_decoder {
    enum http_coding coding;
    bool is_whole;
    bool gzip_begun; /* a byte of the current member came */
    z_stream gzip;
    BrotliDecoderState *brotli;
    ZSTD_DStream *zstd;
};

bool http_coding_from_name(struct slice name, enum http_coding *ret)
{
    static const struct {
        const char *name;
        enum http_coding coding;
    } rows[] = {
        {"gzip", HTTP_GZIP}, {"x-gzip", HTTP_GZIP},       {"br", HTTP_BROTLI},
        {"zstd", HTTP_ZSTD}, {"identity", HTTP_IDENTITY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (slice_equal_nocase(name, slice_from_text(rows[i].name))) {
            *ret = rows[i].coding;
            return true;
        }
    }
    return false;
}

static bool open_coding(struct http_decoder *decoder)
{
    switch (decoder->coding) {
    case HTTP_GZIP:
        return inflateInit2(&decoder->gzip, ZLIB_WINDOW_GZIP) == Z_OK;
    case HTTP_BROTLI:
        decoder->brotli = BrotliDecoderCreateInstance(NULL, NULL, NULL);
        return decoder->brotli != NULL;
    case HTTP_ZSTD:
        decoder->zstd = ZSTD_createDStream();
        return decoder->zstd != NULL &&
               !ZSTD_isError(
                   ZSTD_DCtx_setParameter(decoder->zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX));
    case HTTP_IDENTITY:
        break;
    }
    return false;
}

enum err http_decoder_create(struct http_decoder **ret, enum http_coding coding)
{
    assert(coding != HTTP_IDENTITY);
    struct http_decoder *decoder = mem_alloc(sizeof(*decoder));
    decoder->coding = coding;
    decoder->is_whole = true; /* no byte at all is an empty body */
    if (!open_coding(decoder)) {
        http_decoder_destroy(decoder);
        return ERR_NO_MEMORY;
    }
    *ret = decoder;
    return ERR_OK;
}

void http_decoder_destroy(struct http_decoder *decoder)
{
    if (decoder == NULL) {
        return;
    }
    if (decoder->coding == HTTP_GZIP) {
        (void)inflateEnd(&decoder->gzip); /* fails only for a stream that was never begun */
    }
    BrotliDecoderDestroyInstance(decoder->brotli);
    (void)ZSTD_freeDStream(decoder->zstd); /* gives 0 always */
    mem_free(decoder);
}

static enum err step_gzip(struct http_decoder *decoder, struct slice *rest, uint8_t *to,
                          size_t room, size_t *ret_size)
{
    z_stream *gzip = &decoder->gzip;
    assert(rest->size <= UINT32_MAX && room <= UINT32_MAX);
    gzip->next_in = rest->data;
    gzip->avail_in = (uInt)rest->size;
    gzip->next_out = to;
    gzip->avail_out = (uInt)room;
    enum err err = ERR_OK;
    while (gzip->avail_out > 0 && err == ERR_OK) {
        if (!decoder->gzip_begun && gzip->avail_in == 0) {
            break;
        }
        decoder->gzip_begun = true;
        decoder->is_whole = false;
        int result = inflate(gzip, Z_NO_FLUSH);
        if (result == Z_STREAM_END) {
            decoder->is_whole = true;
            decoder->gzip_begun = false;
            result = inflateReset(gzip);
        } else if (result == Z_BUF_ERROR) {
            break; /* more input is needed */
        }
        if (result != Z_OK) {
            err = result == Z_MEM_ERROR ? ERR_NO_MEMORY : ERR_SYNTAX;
        }
    }
    *rest = slice_make(gzip->next_in, gzip->avail_in);
    *ret_size = room - gzip->avail_out;
    return err;
}

static enum err step_brotli(struct http_decoder *decoder, struct slice *rest, uint8_t *to,
                            size_t room, size_t *ret_size)
{
    uint8_t *out = to;
    size_t in_size = rest->size;
    const uint8_t *in = rest->data;
    size_t left = room;
    if (in_size == 0 && decoder->is_whole) {
        *ret_size = 0;
        return ERR_OK;
    }
    if (BrotliDecoderIsFinished(decoder->brotli)) {
        return ERR_SYNTAX; /* bytes after the end */
    }
    BrotliDecoderResult result =
        BrotliDecoderDecompressStream(decoder->brotli, &in_size, &in, &left, &out, NULL);
    decoder->is_whole = result == BROTLI_DECODER_RESULT_SUCCESS;
    *rest = slice_make(in, in_size);
    *ret_size = room - left;
    bool has_tail = decoder->is_whole && in_size > 0;
    return result == BROTLI_DECODER_RESULT_ERROR || has_tail ? ERR_SYNTAX : ERR_OK;
}

static enum err step_zstd(struct http_decoder *decoder, struct slice *rest, uint8_t *to,
                          size_t room, size_t *ret_size)
{
    ZSTD_inBuffer in = {rest->data, rest->size, 0};
    ZSTD_outBuffer out = {NULL, room, 0};
    if (in.size == 0 && decoder->is_whole) {
        *ret_size = 0;
        return ERR_OK;
    }
    size_t result = 1;
    out.dst = to;
    do {
        size_t in_before = in.pos;
        size_t out_before = out.pos;
        result = ZSTD_decompressStream(decoder->zstd, &out, &in);
        if (ZSTD_isError(result)) {
            return ERR_SYNTAX;
        }
        if (in.pos == in_before && out.pos == out_before) {
            if (in.pos < in.size) {
                return ERR_SYNTAX;
            }
            break;
        }
        decoder->is_whole = result == 0;
    } while (in.pos < in.size && out.pos < out.size);
    *rest = slice_make(rest->data + in.pos, in.size - in.pos);
    *ret_size = out.pos;
    return ERR_OK;
}

enum err http_decoder_step(struct http_decoder *decoder, struct slice *rest, uint8_t *to,
                           size_t room, size_t *ret_size)
{
    switch (decoder->coding) {
    case HTTP_GZIP:
        return step_gzip(decoder, rest, to, room, ret_size);
    case HTTP_BROTLI:
        return step_brotli(decoder, rest, to, room, ret_size);
    case HTTP_ZSTD:
        return step_zstd(decoder, rest, to, room, ret_size);
    case HTTP_IDENTITY:
        break;
    }
    assert(false);
    return ERR_UNSUPPORTED;
}

bool http_decoder_is_whole(const struct http_decoder *decoder)
{
    return decoder->is_whole;
}
