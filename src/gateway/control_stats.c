/* control_stats.c - the table of metrics as counters of the wire. */
#include "gateway/control_stats.h"

#include "gateway/slo.h"
#include "net/counters.h"

void gateway_control_answer_stats(gateway *g, net_conn *conn, uint64_t id,
                                  const struct wire_stats *stats)
{
    struct net_counters counters;

    gateway_slo_refresh(g);
    gateway_entrance_count(g);
    net_counters_init(&counters, &stats->prefix);
    net_counters_add_metrics(&counters, &g->metrics);
    (void)net_counters_answer(&counters, conn, id);
}
