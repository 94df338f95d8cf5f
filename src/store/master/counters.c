/* counters.c - the master's figures and their names. */
#include "store/master/counters.h"

#include <string.h>

#include "net/counters.h"

#define COUNTERS(X) \
    X(bad_replicas) \
    X(capacity_bytes) \
    X(committed_objects) \
    X(dying_bytes) \
    X(evicted_bytes) \
    X(evicted_objects) \
    X(expired_leases) \
    X(expired_tokens) \
    X(lease_items) \
    X(leases) \
    X(lost_nodes) \
    X(nodes) \
    X(objects) \
    X(quarantined_bytes) \
    X(replicas) \
    X(requests) \
    X(sequence) \
    X(subscribers) \
    X(tokens) \
    X(used_bytes)

static const struct {
    const char *name;
    size_t offset;
} rows[] = {
#define ROW(field) { "store_" #field, offsetof(struct store_master_figures, field) },
    COUNTERS(ROW)
#undef ROW
};

enum { ROWS = sizeof(rows) / sizeof(rows[0]) };

void master_counters_answer(net_conn *conn, uint64_t id, const struct wire_stats *stats,
                            const struct store_master_figures *figures)
{
    struct net_counters counters;

    net_counters_init(&counters, &stats->prefix);
    for (size_t i = 0; i < ROWS; i++) {
        uint64_t value;
        memcpy(&value, (const char *)figures + rows[i].offset, sizeof(value));
        net_counters_add(&counters, rows[i].name, value);
    }
    (void)net_counters_answer(&counters, conn, id);
}
