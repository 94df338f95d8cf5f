/*
 * lend.h - a node from inside: lent memory, its registrations, and the core that says what is done with
 * it. It lives on the thread of the store that it was opened over.
 *
 * The memory is registered twice: once to be read by who knows region and place, and once, unpublished, to
 * be written through windows alone.
 */
#ifndef STORE_LEND_H
#define STORE_LEND_H

#include "store/client/store.h"
#include "store/core/node.h"

enum { LEND_READ, LEND_WRITE, LEND_REGIONS };

struct mc_store_node {
    mc_store *store;
    uint8_t *memory;            /* of the Transfer Engine; owned */
    uint64_t size, objects_max; /* objects_max: 0: as many as is usual */
    struct mc_region regions[LEND_REGIONS];
    bool registered;
    mc_status opened; /* of what ran in the loop */
    struct mc_error error;

    /* The loop's. */
    net *net;
    struct link link;
    store_node *core;
    struct store_node_out out;
    struct os_timer timer;
    uint64_t epoch; /* as last logged */
};

/** Set the timer by what the core says. The loop's. */
void lend_settle(mc_store_node *node);

#endif /* STORE_LEND_H */
