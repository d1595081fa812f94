/* Encoders for gzip, br and zstd.
 *
 * Levels: gzip 6 and zstd 3 are what exports are measured with; br 4 is as fast as gzip 6 and
 * smaller.
 *
 * Happy path: write page after page, each flushed so that it travels whole; the last one ends the
 * stream.
 * Failure modes: the target buffer's limit or no memory; the stream is then lost. */
#include "http/encode.h"

#include <assert.h>
#include <brotli/encode.h>
#define ZLIB_CONST /* next_in is a pointer to const */
#include <zlib.h>
#include <zstd.h>

#include "base/mem.h"

#define GZIP_LEVEL        6
#define BROTLI_LEVEL      4
#define BROTLI_WINDOW     18
#define ZSTD_LEVEL        3
#define ZLIB_WINDOW_GZIP  (15 + 16)
#define ZLIB_MEMORY_LEVEL 8
#define ROOM_MIN          4096u

struct http_encoder {
    enum http_coding coding;
    bool gzip_open;
    z_stream gzip;
    BrotliEncoderState *brotli;
    ZSTD_CCtx *zstd;
};

const char *http_coding_name(enum http_coding coding)
{
    static const char *const names[] = {
        [HTTP_IDENTITY] = "identity",
        [HTTP_GZIP] = "gzip",
        [HTTP_BROTLI] = "br",
        [HTTP_ZSTD] = "zstd",
    };
    return names[coding];
}

static bool open_brotli(struct http_encoder *encoder)
{
    encoder->brotli = BrotliEncoderCreateInstance(NULL, NULL, NULL);
    return encoder->brotli != NULL &&
           BrotliEncoderSetParameter(encoder->brotli, BROTLI_PARAM_QUALITY, BROTLI_LEVEL) &&
           BrotliEncoderSetParameter(encoder->brotli, BROTLI_PARAM_LGWIN, BROTLI_WINDOW);
}

static bool open_coding(struct http_encoder *encoder)
{
    switch (encoder->coding) {
    case HTTP_IDENTITY:
        return true;
    case HTTP_GZIP:
        encoder->gzip_open = deflateInit2(&encoder->gzip, GZIP_LEVEL, Z_DEFLATED, ZLIB_WINDOW_GZIP,
                                          ZLIB_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK;
        return encoder->gzip_open;
    case HTTP_BROTLI:
        return open_brotli(encoder);
    case HTTP_ZSTD:
        encoder->zstd = ZSTD_createCCtx();
        return encoder->zstd != NULL && !ZSTD_isError(ZSTD_CCtx_setParameter(
                                            encoder->zstd, ZSTD_c_compressionLevel, ZSTD_LEVEL));
    }
    return false;
}

enum err http_encoder_create(struct http_encoder **ret, enum http_coding coding)
{
    struct http_encoder *encoder = mem_alloc(sizeof(*encoder));
    encoder->coding = coding;
    if (!open_coding(encoder)) {
        http_encoder_destroy(encoder);
        return ERR_NO_MEMORY;
    }
    *ret = encoder;
    return ERR_OK;
}

void http_encoder_destroy(struct http_encoder *encoder)
{
    if (encoder == NULL) {
        return;
    }
    if (encoder->gzip_open) {
        (void)deflateEnd(&encoder->gzip); /* complains about unfinished streams, which is fine */
    }
    BrotliEncoderDestroyInstance(encoder->brotli);
    (void)ZSTD_freeCCtx(encoder->zstd); /* gives 0 always */
    mem_free(encoder);
}

static enum err write_gzip(struct http_encoder *encoder, struct slice bytes, bool last,
                           struct buffer *to)
{
    z_stream *gzip = &encoder->gzip;
    assert(bytes.size <= UINT32_MAX);
    gzip->next_in = bytes.data;
    gzip->avail_in = (uInt)bytes.size;
    int result = Z_OK;
    do {
        enum err err = buffer_reserve(to, ROOM_MIN);
        if (err != ERR_OK) {
            return err;
        }
        size_t room = to->capacity - to->size;
        gzip->next_out = to->data + to->size;
        gzip->avail_out = room > UINT32_MAX ? UINT32_MAX : (uInt)room;
        uInt before = gzip->avail_out;
        result = deflate(gzip, last ? Z_FINISH : Z_SYNC_FLUSH);
        assert(result != Z_STREAM_ERROR);
        to->size += before - gzip->avail_out;
    } while (gzip->avail_out == 0 || (last && result != Z_STREAM_END));
    return ERR_OK;
}

static enum err write_brotli(struct http_encoder *encoder, struct slice bytes, bool last,
                             struct buffer *to)
{
    BrotliEncoderOperation operation = last ? BROTLI_OPERATION_FINISH : BROTLI_OPERATION_FLUSH;
    const uint8_t *in = bytes.data;
    size_t in_size = bytes.size;
    bool has_more = true;
    while (has_more) {
        enum err err = buffer_reserve(to, ROOM_MIN);
        if (err != ERR_OK) {
            return err;
        }
        uint8_t *out = to->data + to->size;
        size_t room = to->capacity - to->size;
        if (!BrotliEncoderCompressStream(encoder->brotli, operation, &in_size, &in, &room, &out,
                                         NULL)) {
            return ERR_NO_MEMORY; /* with right arguments nothing else can fail */
        }
        to->size = to->capacity - room;
        has_more = in_size > 0 || BrotliEncoderHasMoreOutput(encoder->brotli) ||
                   (last && !BrotliEncoderIsFinished(encoder->brotli));
    }
    return ERR_OK;
}

static enum err write_zstd(struct http_encoder *encoder, struct slice bytes, bool last,
                           struct buffer *to)
{
    ZSTD_inBuffer in = {bytes.data, bytes.size, 0};
    size_t left = 1;
    while (left > 0) {
        enum err err = buffer_reserve(to, ROOM_MIN);
        if (err != ERR_OK) {
            return err;
        }
        ZSTD_outBuffer out = {to->data + to->size, to->capacity - to->size, 0};
        left = ZSTD_compressStream2(encoder->zstd, &out, &in, last ? ZSTD_e_end : ZSTD_e_flush);
        if (ZSTD_isError(left)) {
            return ERR_NO_MEMORY; /* with right arguments nothing else can fail */
        }
        to->size += out.pos;
    }
    return ERR_OK;
}

enum err http_encoder_write(struct http_encoder *encoder, struct slice bytes, bool last,
                            struct buffer *to)
{
    switch (encoder->coding) {
    case HTTP_IDENTITY:
        return buffer_append_slice(to, bytes);
    case HTTP_GZIP:
        return write_gzip(encoder, bytes, last, to);
    case HTTP_BROTLI:
        return write_brotli(encoder, bytes, last, to);
    case HTTP_ZSTD:
        return write_zstd(encoder, bytes, last, to);
    }
    return ERR_UNSUPPORTED;
}

/* For the next body. A brotli encoder cannot be reset: it is made anew. */
static bool reset_encoder(struct http_encoder *encoder)
{
    switch (encoder->coding) {
    case HTTP_IDENTITY:
        return true;
    case HTTP_GZIP:
        return deflateReset(&encoder->gzip) == Z_OK;
    case HTTP_BROTLI:
        BrotliEncoderDestroyInstance(encoder->brotli);
        return open_brotli(encoder);
    case HTTP_ZSTD:
        return !ZSTD_isError(ZSTD_CCtx_reset(encoder->zstd, ZSTD_reset_session_only));
    }
    return false;
}

enum err http_encode_reusing(struct http_encoder **encoder, enum http_coding coding,
                             struct slice body, struct buffer *to)
{
    if (*encoder != NULL && !reset_encoder(*encoder)) {
        http_encoder_destroy(*encoder);
        *encoder = NULL;
    }
    if (*encoder == NULL) {
        enum err err = http_encoder_create(encoder, coding);
        if (err != ERR_OK) {
            return err;
        }
    }
    return http_encoder_write(*encoder, body, true, to);
}

enum err http_encode(enum http_coding coding, struct slice body, struct buffer *to)
{
    struct http_encoder *encoder = NULL;
    enum err err = http_encode_reusing(&encoder, coding, body, to);
    http_encoder_destroy(encoder);
    return err;
}
