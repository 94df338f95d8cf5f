/*
 * peers.h - the segments of nodes that replicas named: opened once, the one used longest ago closed when
 * there are too many.
 *
 * Threads: one. Memory: all at open.
 */
#ifndef STORE_PEERS_H
#define STORE_PEERS_H

#include <mooncake/transfer.h>

#include "wire/msg.h"

enum { PEERS_MAX = 512 };

struct peer;

struct peers {
    const struct mc_alloc *alloc;
    mc_transfer *transfer;
    struct peer *peers; /* owned; [PEERS_MAX], the first `count` are set */
    uint32_t count, last;
    uint64_t clock;
};

/** MC_OK or MC_E_NOMEM. */
mc_status peers_open(struct peers *peers, mc_transfer *transfer, const struct mc_alloc *alloc);

/** The segment of node `id`, whose engine goes by `name`; 0: it cannot be had. */
uint32_t peers_segment(struct peers *peers, uint64_t id, struct wire_slice name);

/** Safe on `{ 0 }`. */
void peers_close(struct peers *peers);

#endif /* STORE_PEERS_H */
