/*
 * server.h - the pool's master as others reach it: the pure state machine of store/core/master.h with
 * connections and a clock around it.
 *
 * Life:    store_server_open -> (the loop turns) -> store_server_close
 * Threads: one, the loop's.
 * Memory:  the master's tables at open, by its limits; a record for each question to a node.
 * Errors:  what peers do is an event. State changes are logged: epoch, nodes that come and go.
 */
#ifndef STORE_SERVER_H
#define STORE_SERVER_H

#include "os/loop.h"
#include "store/core/master.h"

typedef struct store_server store_server; /* opaque */

struct store_server_options {
    const struct mc_alloc *alloc; /* borrowed until close; required */
    os_loop *loop;                /* borrowed until close; required */
    struct mc_log log;
    const char *listen; /* "host:port"; required; port 0: any */
    bool insecure;      /* listen beyond loopback without a secret */
    const void *secret; /* [secret_size]; copied; NULL: none */
    size_t secret_size;
    uint32_t connections_max; /* nodes, clients, subscriptions; default 4096, at most 65535 */
    /** Limits and times of the master; its alloc and epoch are not read. */
    struct store_master_options master;
};

/** Returns MC_OK, MC_E_RANGE (a limit), MC_E_NOMEM, or as net_open() and net_listen(). */
mc_status store_server_open(const struct store_server_options *options, store_server **server_p,
                            struct mc_error *error);

/** "host:port" with the real port. Lives as long as the server. */
const char *store_server_address(const store_server *server);

/** Random, not 0: this life of the master. */
uint64_t store_server_epoch(const store_server *server);

void store_server_figures(const store_server *server, struct store_master_figures *figures_p);

/** Every connection ends at once. NULL is allowed. */
void store_server_close(store_server *server);

#endif /* STORE_SERVER_H */
