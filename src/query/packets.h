/* Packets, private: what is counted of a device and of many, and the formulas.
 *
 * Thread: the formulas are pure.  Memory, errors: none. */
#pragma once
#include "query/query.h"

enum packet_status { PACKET_OK, PACKET_WARNING, PACKET_CRITICAL };

/* Columns of the statement of devices. */
enum {
    PACKET_DEVICE_NUMBER,
    PACKET_DEVICE_ID,
    PACKET_DEVICE_NAME,
    PACKET_DEVICE_CODE,
    PACKET_SITE_ID,
    PACKET_INTERVAL,
    PACKET_LAST_MS,
    PACKET_LATE_S
};

struct packet_device {
    uint64_t number;
    int64_t interval_s;
    int64_t late_ms; /* after its time a packet is late */
    int64_t last_ms; /* time of the newest packet; 0: none ever */
    uint64_t expected;
    uint64_t received;
    uint64_t missing;
    uint64_t late;
    enum packet_status status;
};

struct packet_sum {
    uint64_t configured;
    uint64_t counts[3]; /* by status */
    uint64_t silent;
    uint64_t expected;
    uint64_t received;
    uint64_t missing;
    uint64_t late;
    bool has_more;
    uint64_t place;
};

enum packet_status query_packet_status(uint64_t missing, int64_t age_ms, int64_t interval_ms);
enum packet_status query_packet_score_status(uint64_t score);
enum packet_status query_packet_site_status(uint64_t ok, uint64_t all, uint64_t score);
/* In per cent. */
double query_packet_on_time(uint64_t received, uint64_t late, uint64_t expected);
