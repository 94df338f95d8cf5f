/*
 * counters.h - a role's figures as the answer to WIRE_STATS: those whose names begin as asked, by name.
 *
 * Life:    net_counters_init -> net_counters_add*, net_counters_add_metrics* -> net_counters_answer
 * Threads: one. Memory: the caller's, about 24 KiB; nothing is allocated.
 */
#ifndef NET_COUNTERS_H
#define NET_COUNTERS_H

#include "base/metric.h"
#include "net/net.h"

enum { NET_COUNTERS_MAX = 256, NET_COUNTER_NAME_BYTES = 80 };

struct net_counter {
    char name[NET_COUNTER_NAME_BYTES];
    uint64_t value;
};

struct net_counters {
    struct wire_slice prefix; /* borrowed */
    uint32_t count;
    struct net_counter items[NET_COUNTERS_MAX]; /* by name; the first `count` are set */
};

/** prefix: of the names that are wanted; borrowed. */
void net_counters_init(struct net_counters *counters, const struct wire_slice *prefix);

/** One figure, its name shorter than NET_COUNTER_NAME_BYTES. Beyond NET_COUNTERS_MAX it is left out. */
void net_counters_add(struct net_counters *counters, const char *name, uint64_t value);

/** Every series, named as /metrics names it without "mooncake_" and units: `worker_pages_free`,
 * `worker_transfer_read{transport="tcp"}`. Of a histogram, how many values there were. */
void net_counters_add_metrics(struct net_counters *counters, const struct metrics *metrics);

/** The value of `name`; 0: not there. */
uint64_t net_counters_value(const struct net_counters *counters, const char *name);

/** Answer the question `id`; 0: nothing is done. Returns as net_answer. */
mc_status net_counters_answer(const struct net_counters *counters, net_conn *conn, uint64_t id);

#endif /* NET_COUNTERS_H */
