/* counters.h - the master's figures under the names that `mooncake stats` and clients know. */
#ifndef STORE_COUNTERS_H
#define STORE_COUNTERS_H

#include "net/net.h"
#include "store/core/master.h"

/** Answer the question `id` with those whose names begin as asked, by name. */
void master_counters_answer(net_conn *conn, uint64_t id, const struct wire_stats *stats,
                            const struct store_master_figures *figures);

#endif /* STORE_COUNTERS_H */
