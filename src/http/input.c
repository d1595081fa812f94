/* Bytes that came. Heads are read into a block of the connection; a body, once the bytes that came
 * with the head are used, into the loop's scratch, which costs no memory of the connection.
 *
 * One read of a socket that gave less than was asked for has emptied it: there is no second read to
 * be told so.
 *
 * Happy path: one read into a small block holds a whole request.
 * Failure modes: a round's share is used up: go on in the next round. No memory, or the peer is
 * gone: the connection is broken. */
#include <assert.h>

#include "base/metrics.h"
#include "http/connection.h"

/* With less room than this behind the input it is moved to the front, or to a larger block. */
#define ROOM_MIN 1024u

static enum http_input read_into(struct http_connection *connection, uint8_t *to, size_t room,
                                 size_t *ret_size)
{
    if (!connection->readable) {
        return HTTP_INPUT_NONE;
    }
    if (connection->round_bytes >= (size_t)LIMIT_LOOP_ROUND_BYTES) {
        http_connection_make_ready(connection);
        return HTTP_INPUT_NONE;
    }
    ssize_t size = connection->transport->read(connection, to, room);
    if (size > 0) {
        connection->round_bytes += (size_t)size;
        connection->reading.bytes += (size_t)size;
        metrics_add(METRIC_HTTP_BYTES_IN, (uint64_t)size);
        *ret_size = (size_t)size;
        return HTTP_INPUT_SOME;
    }
    connection->broken = connection->broken || size == HTTP_TRANSPORT_GONE;
    return size == 0 ? HTTP_INPUT_ENDED : HTTP_INPUT_NONE;
}

/* Room behind the bytes of a head that is not whole yet. */
static bool make_room(struct http_connection *connection)
{
    struct http_block *block = connection->input;
    size_t held = connection->input_end - connection->input_start;
    if (block != NULL && block->capacity - connection->input_end >= ROOM_MIN) {
        return true;
    }
    if (block != NULL && block->capacity - held >= ROOM_MIN) {
        memmove(block->data, block->data + connection->input_start, held);
    } else {
        struct http_block *larger =
            http_pool_take(&connection->loop->pool, block == NULL ? 1 : HTTP_BLOCK_LARGE);
        if (larger == NULL) {
            connection->broken = true;
            return false;
        }
        if (block != NULL) {
            memcpy(larger->data, block->data + connection->input_start, held);
        }
        http_pool_give(&connection->loop->pool, block);
        connection->input = larger;
    }
    connection->input_start = 0;
    connection->input_end = held;
    assert(connection->input->capacity - held >= ROOM_MIN);
    return true;
}

enum http_input http_input_read(struct http_connection *connection)
{
    if (!connection->readable || !make_room(connection)) {
        return HTTP_INPUT_NONE;
    }
    size_t size = 0;
    struct http_block *block = connection->input;
    enum http_input result = read_into(connection, block->data + connection->input_end,
                                       block->capacity - connection->input_end, &size);
    connection->input_end += size;
    return result;
}

enum http_input http_input_read_scratch(struct http_connection *connection, struct slice *ret)
{
    size_t size = 0;
    assert(connection->input_start == connection->input_end);
    enum http_input result =
        read_into(connection, connection->loop->scratch, HTTP_SCRATCH_BYTES, &size);
    *ret = slice_make(connection->loop->scratch, size);
    return result;
}

void http_input_save(struct http_connection *connection, struct slice bytes)
{
    struct http_block *block = connection->input;
    struct http_request *request = connection->request;
    bool is_shared = request != NULL && block != NULL && request->head_block == block;
    assert(connection->input_start == connection->input_end);
    if (bytes.size == 0) {
        return;
    }
    size_t start = is_shared ? connection->input_end : 0;
    if (block == NULL || block->capacity - start < bytes.size) {
        struct http_block *other = http_pool_take(&connection->loop->pool, bytes.size);
        if (other == NULL) {
            connection->broken = true;
            return;
        }
        if (!is_shared) {
            http_pool_give(&connection->loop->pool, block);
        }
        block = other;
        start = 0;
    }
    memcpy(block->data + start, bytes.data, bytes.size);
    connection->input = block;
    connection->input_start = start;
    connection->input_end = start + bytes.size;
}

void http_input_release(struct http_connection *connection)
{
    struct http_request *request = connection->request;
    if (connection->input_start == connection->input_end &&
        (request == NULL || request->head_block != connection->input)) {
        http_pool_give(&connection->loop->pool, connection->input);
        connection->input = NULL;
        connection->input_start = 0;
        connection->input_end = 0;
    }
}
