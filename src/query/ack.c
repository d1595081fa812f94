/* Ack: the ids of an acknowledgement become sequences, whose ranges the store keeps.
 *
 * Happy path: id -> sequence, if it is one of the org's, the range grows, and the org's data
 * version is raised once. Failure modes: an id that does not exist, or is another org's, is not
 * counted; nobody can tell the two apart. */
#include "query/query.h"

#include "store/store.h"

enum err query_acknowledge(struct store_connection *connection, uint64_t org, const struct id *ids,
                           uint32_t count, uint32_t *ret_acknowledged)
{
    uint32_t acknowledged = 0;
    uint32_t changed = 0;
    enum err err = ERR_OK;
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        uint64_t sequence = 0;
        bool is_there = false;
        bool was = false;
        err = store_find_event(connection, org, ids[i].bytes, &is_there, &sequence);
        if (err == ERR_OK && is_there) {
            err = store_event_acknowledge(connection, sequence, &was);
            acknowledged++;
            changed += was ? 0 : 1;
        }
    }
    if (err == ERR_OK && changed > 0) {
        err = store_raise_version(connection, org);
    }
    if (err == ERR_OK) {
        *ret_acknowledged = acknowledged;
    }
    return err;
}
