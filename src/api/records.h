/* Records: request bodies into intake, and the answers of intake to clients.
 *
 * Thread: the request's loop.  Memory, errors: intake's. */
#pragma once
#include "api/context.h"

/* The form of the answer. */
enum api_answer {
    API_ANSWER_WEIR,      /* API.md */
    API_ANSWER_SEGMENT,   /* 200 {"success":true,…} */
    API_ANSWER_POSTHOG,   /* 200 {"status":"Ok",…} */
    API_ANSWER_TELEMETRY, /* 200 {"status":"queued","trace_id",…} */
};

struct api_records {
    enum record_form form;
    bool may_be_array;
    enum api_answer answer;
    const struct record_attribute *attributes;
    uint32_t attribute_count;
};
/* The traceparent header as an attribute; gives 0 or 1. */
uint32_t api_trace_attribute(const struct http_request *http, struct record_attribute *attribute);
/* Of a body whose content type was read with this result: sets what follows from the form.
 * `attributes` has room for one, which is counted if it is there. `forms`: which there are, for
 * people. False: answered already. */
bool api_records_prepare(struct api_request *request, struct api_records *records,
                         struct record_attribute *attributes, enum err err, const char *forms);
/* Opens intake for the request and accepts its body. False: answered already. */
bool api_records_begin(struct api_request *request, const struct api_records *records);
/* The chunks of the body, for who collected the first ones itself. */
void api_records_data(struct api_request *request, struct slice chunk);
void api_records_end(struct api_request *request);

/* Nothing was taken of the body: its bytes are given back. */
void api_records_uncount(struct api_request *request);

/* answer.c: intake's answer, as the client expects it. */
void api_records_answer(struct api_request *request, const struct intake_answer *answer);
/* Nothing was begun or kept: 429 queue_full, 503 journal_unavailable or draining. */
void api_records_refused(struct api_request *request, enum err err);
