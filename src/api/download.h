/* Download: an answer of any length, made page by page as an attachment.
 *
 * Thread: create and start: the request's loop. page: a reader's; of what is outside the download
 *         it touches only what any thread may.
 * Memory: one page and its encoded form; freed with the request.
 * Errors: of the first page: answered as any other. Later: the answer is cut, and the client sees
 *         it. */
#pragma once
#include "api/job.h"

struct api_download {
    struct api_job job; /* first; body holds what is to be sent next */
    /* Appends the next page to `to`; *ret_more false: it was the last. */
    enum err (*page)(struct api_download *download, struct store_connection *connection,
                     struct buffer *to, bool *ret_more);
    void (*on_destroy)(struct api_download *download); /* may be NULL */
    const char *type;
    char file_name[64]; /* letters, digits, dots, hyphens and underscores */
    bool is_versioned;  /* by the org's data version; else by what the seed holds */
    /* Its own. */
    struct buffer page_bytes;
    struct http_encoder *encoder; /* NULL: one page is all, or identity */
    bool is_begun;
    bool has_more;
};

#define API_DOWNLOAD_PAGE_BYTES ((size_t)64 * 1024)

/* `size` of a struct that begins with an api_download; zeroed. */
void *api_download_create(struct api_request *request, size_t size);
void api_download_start(struct api_download *download);
