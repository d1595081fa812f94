/* What is to be sent: one block that grows, bytes start..end of it.
 *
 * Happy path: a small block is taken, filled, sent whole and given back in the same round.
 * Failure modes: no memory for a larger block: the connection is broken. */
#include <assert.h>

#include "http/connection.h"

uint8_t *http_output_reserve(struct http_connection *connection, size_t size)
{
    size_t held = http_output_bytes(connection);
    struct http_block *old = connection->output;
    if (old != NULL && size <= old->capacity - connection->output_end) {
        return old->data + connection->output_end;
    }
    if (old != NULL && held + size <= old->capacity) {
        memmove(old->data, old->data + connection->output_start, held);
    } else {
        size_t wanted = held + size;
        wanted = old != NULL && wanted < 2 * old->capacity ? 2 * old->capacity : wanted;
        struct http_block *block = http_pool_take(&connection->loop->pool, wanted);
        if (block == NULL) {
            connection->broken = true;
            return NULL;
        }
        if (old != NULL) {
            memcpy(block->data, old->data + connection->output_start, held);
        }
        http_pool_give(&connection->loop->pool, old);
        connection->output = block;
    }
    connection->output_start = 0;
    connection->output_end = held;
    return connection->output->data + held;
}

void http_output_added(struct http_connection *connection, size_t size)
{
    assert(size <= connection->output->capacity - connection->output_end);
    connection->output_end += size;
}

void http_output_sent(struct http_connection *connection, size_t size)
{
    assert(size <= http_output_bytes(connection));
    connection->output_start += size;
    if (connection->output_start == connection->output_end) {
        http_pool_give(&connection->loop->pool, connection->output);
        connection->output = NULL;
        connection->output_start = 0;
        connection->output_end = 0;
    }
}
