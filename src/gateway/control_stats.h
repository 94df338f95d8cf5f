/* control_stats.h - the gateway's figures for who asks over the control side (stats). */
#ifndef GATEWAY_CONTROL_STATS_H
#define GATEWAY_CONTROL_STATS_H

#include "gateway/state.h"

/** Answer with every counter and gauge whose name begins as asked: gateway_requests_ended{how="stop"}. */
void gateway_control_answer_stats(gateway *g, net_conn *conn, uint64_t id,
                                  const struct wire_stats *stats);

#endif /* GATEWAY_CONTROL_STATS_H */
