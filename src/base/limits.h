/* Limits: every bound of the program that is not a setting. Reaching one is an enum err.
 *
 * Thread, memory, errors: constants. */
#pragma once

/* What one frame may hold, head and body (DESIGN: JetStream's message size too). */
#define LIMIT_FRAME_BYTES 524288u /* 512 * 1024 */
/* Decoded bodies up to this are one frame; larger ones are uploads. */
#define LIMIT_SMALL_BODY_BYTES 262144u /* 256 * 1024 */
/* One event, as it came. */
#define LIMIT_EVENT_BYTES         262144u /* 256 * 1024 */
#define LIMIT_JSON_DEPTH          64u
#define LIMIT_TYPE_BYTES          255u
#define LIMIT_DEDUP_ID_BYTES      255u
#define LIMIT_SUBJECT_BYTES       1024u
#define LIMIT_SOURCE_BYTES        2048u
#define LIMIT_APP_BYTES           255u
#define LIMIT_PARAMETER_KEY_BYTES 255u
/* Batches: items answered one by one; becoming queryable is atomic up to the second. */
#define LIMIT_BATCH_ITEMS_ANSWERED  1000u
#define LIMIT_BATCH_ATOMIC_ELEMENTS 1000u
#define LIMIT_PROBLEM_ERRORS        100u

/* HTTP */
#define LIMIT_HEAD_BYTES       32768u /* 32 * 1024 */
#define LIMIT_HEADER_COUNT     100u
#define LIMIT_TARGET_BYTES     8192u /* 8 * 1024 */
#define LIMIT_CHUNK_LINE_BYTES 256u
#define LIMIT_PIPELINE_DEPTH   64u
#define LIMIT_RATIO_FREE_BYTES                                                                     \
    1048576u /* 1024 * 1024 ; decoded bytes before the ratio cap counts */
#define LIMIT_RATIO            200u
#define LIMIT_LOOP_ROUND_BYTES 65536u /* 64 * 1024 ; read per connection and round */

/* Uploads */
#define LIMIT_UPLOAD_BLOCK_BYTES 262144u  /* 256 * 1024 ; decoded bytes per zstd block */
#define LIMIT_UPLOAD_SYNC_BYTES  2097152u /* 2 * 1024 * 1024 */

/* Journal */
#define LIMIT_COMMIT_BYTES 4194304u /* 4 * 1024 * 1024 */
#define LIMIT_LANES        64u

/* Lists and pages */
#define LIMIT_LIST_DEFAULT        100u
#define LIMIT_LIST_MAX            1000u
#define LIMIT_PAGE_BYTES          262144u   /* 256 * 1024 */
#define LIMIT_STREAM_BUFFER_BYTES 262144u   /* 256 * 1024 */
#define LIMIT_STREAMS_BYTES       33554432u /* 32 * 1024 * 1024 ; pages of all live tails unsent */
#define LIMIT_WAIT_FOR_MS         10000u

/* Gate */
#define LIMIT_KEY_WAITERS          65536u  /* posted to one verifier and not yet taken */
#define LIMIT_KEYS_REFUSED         16384u  /* remembered for a minute */
#define LIMIT_WINDOWS              131072u /* orgs and keys with a limit, used lately */
#define LIMIT_LEASES_ASKED         8192u   /* of shared limits, posted and not yet asked for */
#define LIMIT_FAILURES             1024u   /* kinds of failed checks between two audit writes */
#define LIMIT_FAILURE_ROWS_KNOWN   512u    /* one audit write: rows for ids of real keys, */
#define LIMIT_FAILURE_ROWS_UNKNOWN 128u    /* and for others; what is beyond shares one row */
#define LIMIT_USES_PER_JOB         2048u   /* last uses of keys that one job writes */

/* Positions of one journal are alike above these bits. */
#define LIMIT_RANGE_SHIFT 44u
