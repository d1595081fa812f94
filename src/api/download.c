/* Download: pages pulled one after the other, as the client takes them.
 *
 *   first turn -> all of it: one reply with a strong tag
 *              -> a page: a stream with a weak tag -> sent -> next page ... -> end
 *
 * Happy path: a reader makes a page and encodes it, the loop writes it, and asks for the next when
 * it is sent. So a slow client holds neither a snapshot nor a reader, and one page.
 * With If-None-Match the first turn reads the version alone, as for every read.
 * Failure modes: a page fails, or the readers' queue is full, after the head was sent: the
 * connection is cut. The client does not read: http cuts it by its minimum rate. */
#include "api/download.h"

#include "api/reply.h"
#include "query/query.h"

#include <assert.h>
#include <stdio.h>

#define API_DOWNLOAD_PAGE_MAX ((size_t)4 * 1024 * 1024)
#define API_DOWNLOAD_HELD_MAX ((size_t)4 * 1024) /* with no more left, a page counts as sent */

static void api_download_destroy(struct api_job *job)
{
    struct api_download *download = (struct api_download *)job;
    if (download->on_destroy != NULL) {
        download->on_destroy(download);
    }
    buffer_finish(&download->page_bytes);
    http_encoder_destroy(download->encoder);
}

void *api_download_create(struct api_request *request, size_t size)
{
    struct api_download *download = api_job_create(request, size);
    download->job.on_destroy = api_download_destroy;
    download->job.coding = http_request_coding(request->http);
    buffer_init(&download->page_bytes, API_DOWNLOAD_PAGE_MAX);
    return download;
}

/* --- on the reader's thread
 * -------------------------------------------------------------------- */

static enum err api_download_encode(struct api_download *download)
{
    struct api_job *job = &download->job;
    struct slice page = buffer_slice(&download->page_bytes);
    bool is_whole = !download->is_begun && !download->has_more;
    enum err err = ERR_OK;
    if (job->coding == HTTP_IDENTITY) {
        return buffer_append_slice(&job->body, page);
    }
    if (is_whole) {
        return http_encode(job->coding, page, &job->body);
    }
    if (download->encoder == NULL) {
        err = http_encoder_create(&download->encoder, job->coding);
    }
    return err != ERR_OK
               ? err
               : http_encoder_write(download->encoder, page, !download->has_more, &job->body);
}

static enum err api_download_query(struct api_job *job, struct store_connection *connection)
{
    struct api_download *download = (struct api_download *)job;
    enum err err = ERR_OK;
    if (download->is_versioned && !download->is_begun) {
        err = query_data_version(connection, job->org, &job->version);
        if (err != ERR_OK || job->version_only) {
            return err;
        }
    }
    buffer_clear(&download->page_bytes);
    err = download->page(download, connection, &download->page_bytes, &download->has_more);
    return err != ERR_OK ? err : api_download_encode(download);
}

/* --- on the loop
 * ------------------------------------------------------------------------------- */

static void api_download_next(struct api_download *download);

static void api_download_room(struct api_request *request)
{
    struct api_download *download = (struct api_download *)request->job;
    if (request->pending == 0) {
        api_download_next(download);
    }
}

/* What the job brought is written; more is asked for when it is sent. */
static void api_download_write(struct api_download *download)
{
    struct api_request *request = download->job.request;
    enum err err = http_stream_write(request->http, buffer_slice(&download->job.body));
    bool is_head = http_request_method(request->http) == HTTP_HEAD;
    buffer_shrink(&download->job.body, API_DOWNLOAD_PAGE_BYTES);
    if (err != ERR_OK) {
        http_stream_abort(request->http);
    } else if (!download->has_more || is_head) {
        http_stream_end(request->http);
    } else {
        http_stream_ask_room(request->http, API_DOWNLOAD_HELD_MAX);
    }
}

static void api_download_more(struct api_job *job)
{
    if (job->store.err != ERR_OK) {
        http_stream_abort(job->request->http);
        return;
    }
    api_download_write((struct api_download *)job);
}

static void api_download_next(struct api_download *download)
{
    download->job.on_done = api_download_more;
    if (!api_job_post(&download->job)) {
        http_stream_abort(download->job.request->http);
    }
}

static void api_download_headers(struct api_download *download, struct slice etag)
{
    struct api_request *request = download->job.request;
    char text[128];
    int size = snprintf(text, sizeof(text), "attachment; filename=\"%s\"", download->file_name);
    api_reply_headers(request);
    http_reply_header(request->http, "ETag", etag);
    http_reply_header(request->http, "Content-Disposition", slice_make(text, (size_t)size));
}

static void api_download_first(struct api_job *job)
{
    struct api_download *download = (struct api_download *)job;
    struct api_request *request = job->request;
    char tag[API_TAG_BYTES + 3] = "W/";
    if (job->store.err != ERR_OK) {
        api_reply_err(request, job->store.err, NULL);
        return;
    }
    api_job_tag(job, tag + 2);
    struct slice etag = slice_make(tag + 2, API_TAG_BYTES);
    if (api_job_is_known(job, etag)) {
        return;
    }
    if (job->version_only) {
        job->version_only = false;
        if (!api_job_post(job)) {
            api_reply_err(request, ERR_BUSY, NULL);
        }
        return;
    }
    if (!download->has_more) {
        api_download_headers(download, etag);
        http_reply_encoded(request->http, 200, download->type, job->coding,
                           buffer_slice(&job->body));
        return;
    }
    api_download_headers(download, slice_make(tag, API_TAG_BYTES + 2));
    http_stream_begin(request->http, 200, download->type, job->coding);
    download->is_begun = true;
    request->on_room = api_download_room;
    api_download_write(download);
}

void api_download_start(struct api_download *download)
{
    struct http_request *http = download->job.request->http;
    download->job.version_only =
        download->is_versioned && http_request_header(http, "If-None-Match").data != NULL;
    download->job.query = api_download_query;
    download->job.store.repeats = true; /* what was written of the page is not in the body yet */
    download->job.on_done = api_download_first;
    api_read_raw(&download->job);
}
