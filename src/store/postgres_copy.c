/* COPY in parts: each is sent before the next is made.
 *
 * Failure modes: a session that breaks: ERR_AWAY. What the server refuses is told at the end. */
#include "store/postgres_copy.h"

enum err store_postgres_copy_part(struct postgres_connection *c, struct buffer *copy)
{
    int sent = 0;
    while (copy->size > 0 && sent == 0) {
        sent = PQputCopyData(c->session, (const char *)copy->data, (int)copy->size);
        if (sent < 0) {
            return store_postgres_fail(c, NULL);
        }
        enum err err = store_postgres_await_room(c);
        if (err != ERR_OK) {
            return err;
        }
    }
    buffer_clear(copy);
    return ERR_OK;
}

enum err store_postgres_copy_rest(struct postgres_connection *c, struct buffer *copy)
{
    enum err err = buffer_reserve(copy, 2);
    if (err != ERR_OK) {
        return err;
    }
    (void)postgres_put_u16(copy->data + copy->size, UINT16_MAX);
    copy->size += 2;
    return store_postgres_copy_part(c, copy);
}

enum err store_postgres_copy_end(struct postgres_connection *c, enum err err)
{
    if (c->session == NULL) {
        return err;
    }
    if (PQputCopyEnd(c->session, err == ERR_OK ? NULL : "given up") < 0) {
        return store_postgres_fail(c, NULL);
    }
    enum err end = store_postgres_drain(c);
    return err != ERR_OK ? err : end;
}
