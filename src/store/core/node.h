/*
 * node.h - memory lent to the pool, as its node sees it: which places are open, which windows are over them,
 * what it holds.
 *
 * Life:    store_node_open -> store_node_step* -> store_node_close
 * Threads: one.
 * Memory:  all at open. Messages in events and calls of the outbox are borrowed during the call.
 * Errors:  what the master says is an event. A place that cannot be opened gets a window without a key.
 *
 * The node registers, sends heartbeats, opens and evicts what the master says. When it registers and finds
 * that the master is another one, or has forgotten it, it revokes every window, verifies what lies under
 * its places, and tells of what is whole; a place that is not goes. A place whose window does not come
 * quiet (a stopped peer holds a pin) is in quarantine: neither told nor opened again until it is quiet.
 */
#ifndef STORE_NODE_H
#define STORE_NODE_H

#include <mooncake/store.h>

#include "wire/msg.h"

typedef struct store_node store_node; /* opaque */

/** A range of memory that is lent: a registered region. */
struct store_node_lent {
    struct mc_region region;
    uint64_t size, align; /* bytes; places begin at multiples of align */
};

struct store_node_options {
    const struct mc_alloc *alloc;       /* borrowed until close; required */
    const struct store_node_lent *lent; /* [lent_count], 1 .. 16; copied */
    uint32_t lent_count;
    const char *segment;  /* name of its Transfer Engine; copied; required */
    uint64_t incarnation; /* of the same; required */
    struct mc_identity host;
    uint32_t places_max; /* default 64 Ki */
    uint32_t batch_max;  /* places in a message; default and at most 4096 */
};

enum store_node_event_kind {
    STORE_NODE_TICK,
    STORE_NODE_UP,      /* a connection to the master is there */
    STORE_NODE_DOWN,    /* it is gone; what was asked over it gets no answer */
    STORE_NODE_MESSAGE, /* the master asks `message`; answer with `id` */
    STORE_NODE_ANSWER, /* to what was asked with tag `id`; status MC_OK: `message` of kind `wire` */
};

struct store_node_event {
    enum store_node_event_kind kind;
    uint64_t id;
    mc_status status;
    uint32_t wire;
    const void *message;
};

/** What the node wants done, at once; called inside a step. None may call the node. */
struct store_node_out {
    mc_status (*answer)(void *user, uint64_t id, enum wire_kind kind, const void *message);
    /** MC_OK: one STORE_NODE_ANSWER with `tag`, or STORE_NODE_DOWN, follows. */
    mc_status (*ask)(void *user, uint64_t tag, enum wire_kind kind, const void *message);
    /** As mc_window_grant(), for writing. */
    mc_status (*grant)(void *user, uint32_t lent, uint64_t offset, uint64_t size, uint64_t lease_ns,
                       struct mc_window *window_p);
    mc_status (*renew)(void *user, const struct mc_window *window, uint64_t lease_ns);
    /** As mc_window_revoke() with MC_AT_ONCE: MC_OK when quiet, MC_E_TIMEOUT: asked again. */
    mc_status (*revoke)(void *user, const struct mc_window *window);
    /** object_inspect() of what lies there. */
    mc_status (*inspect)(void *user, uint32_t lent, uint64_t offset, uint64_t size,
                         uint64_t generation, struct mc_object_header *header_p);
    void *user;
};

/** MC_OK, MC_E_ARG, MC_E_RANGE or MC_E_NOMEM. */
mc_status store_node_open(const struct store_node_options *options, store_node **node_p);
/** NULL is allowed. Windows are left to who closes the Transfer Engine. */
void store_node_close(store_node *node);

void store_node_step(store_node *node, const struct store_node_event *event, uint64_t now_ns,
                     const struct store_node_out *out);

/** When a tick is due; UINT64_MAX: not before something happens. */
uint64_t store_node_next_ns(const store_node *node);

/** Tell the master, with the next heartbeat (which is due at once), that no new places are wanted. */
void store_node_drain(store_node *node, bool drain);

/** One place of those that are held or open. */
struct store_node_place {
    uint32_t lent;
    uint64_t offset, size, generation;
    bool closing; /* given up, and not quiet yet, or: */
    bool resting; /* dropped by the node itself, and kept closed while readers may have leases */
};

/** Place `index` of [0, figures.places), in no order. */
struct store_node_place store_node_place_at(const store_node *node, uint32_t index);

struct store_node_figures {
    uint64_t id;                                             /* given by the master; 0: none yet */
    uint64_t epoch;                                          /* of that master */
    uint64_t places, used_bytes, windows, quarantined_bytes; /* now */
    uint64_t told, refused, dropped;                         /* since open: places */
    bool ready; /* registered, and all that is held was told */
};

void store_node_figures(const store_node *node, struct store_node_figures *figures_p);

#endif /* STORE_NODE_H */
