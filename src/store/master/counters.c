/* counters.c - a table of names, sorted as the wire wants them. */
#include "store/master/counters.h"

#include <string.h>

/* Sorted by name. */
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
    struct wire_counter items[ROWS];
    uint32_t count = 0;

    for (size_t i = 0; i < ROWS; i++) {
        const size_t size = strlen(rows[i].name);
        if (stats->prefix.size > size ||
            (stats->prefix.size > 0 &&
             memcmp(rows[i].name, stats->prefix.data, stats->prefix.size) != 0))
            continue;
        uint64_t value;
        memcpy(&value, (const char *)figures + rows[i].offset, sizeof(value));
        items[count++] = (struct wire_counter){ wire_text(rows[i].name), value };
    }
    const struct wire_counters answer = { .items = { .items = items, .count = count } };
    (void)net_answer(conn, id, WIRE_COUNTERS, &answer);
}
