/*
 * links.h - transfers between nodes, which share what both ends have.
 *
 * Every node has a line out and a line in of a given rate. The rates of the flows under way are max-min
 * fair: none can be raised without lowering one that is not faster. A flow may have a rate of its own that
 * it never exceeds (KVCache that is sent as it is computed).
 *
 * Life:    links_init -> (links_add, links_advance, links_done, links_cancel)* -> links_fini
 * Threads: one.
 * Memory:  of nodes at init; of flows by doubling.
 * Time:    nanoseconds, given; never goes back.
 */
#ifndef SIM_LINKS_H
#define SIM_LINKS_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

struct flow {
    uint32_t from, to;
    uint32_t whom, kind; /* the owner's */
    double bytes;        /* left */
    double rate;         /* now, per second */
    double rate_max;     /* of its own; 0: none */
};

struct link_ends {
    double rate, free; /* per second; not given out yet, while rates are shared */
    uint32_t flows;    /* not settled yet, likewise */
};

struct links {
    const struct mc_alloc *alloc; /* borrowed */
    struct link_ends *out, *in;   /* owned; [nodes] */
    struct flow *flows;           /* owned; [capacity]; the first `count`, in order of arrival */
    uint8_t *settled;             /* owned; [capacity] */
    uint32_t nodes, count, capacity;
    uint64_t now_ns;
    double moved; /* bytes since init */
};

/** rates: [nodes], bytes per second of each direction, > 0. */
mc_status links_init(struct links *links, const struct mc_alloc *alloc, const double *rates,
                     uint32_t nodes);
void links_fini(struct links *links);

/** Begin to move at `now_ns` (after links_advance() to it). bytes > 0; from != to. MC_OK, MC_E_NOMEM. */
mc_status links_add(struct links *links, const struct flow *flow);

/** Let time pass. */
void links_advance(struct links *links, uint64_t now_ns);

/** When the next flow will be through, as things are; UINT64_MAX: there is none. */
uint64_t links_due(const struct links *links);

/** Take out a flow that is through; false: none is. */
bool links_done(struct links *links, struct flow *flow_p);

/** Take out any flow of a node, or (node UINT32_MAX) of `kind` and `whom`; false: none. */
bool links_cancel(struct links *links, uint32_t node, uint32_t kind, uint32_t whom,
                  struct flow *flow_p);

#endif /* SIM_LINKS_H */
