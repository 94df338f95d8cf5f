/*
 * master.h - who has what: the pool's one table of objects, places, leases and tokens.
 *
 * Life:    store_master_open -> store_master_step* -> store_master_close
 * Threads: one.
 * Memory:  all at open, by the limits in the options; what does not fit is answered with MC_E_FULL. Messages
 *          in events and in calls of the outbox are borrowed during the call.
 * Errors:  what a peer sends is an event and gets an answer. Nothing is done late: a lease or token
 *          whose time is over at `now_ns` is gone before the event is looked at.
 * Chance:  none. Place generations count up from a start that the epoch gives.
 *
 * What is kept, whatever happens:
 *   - A place has one owner. It is given away again only after its node answered the evict message: windows
 *     over it are revoked and quiet. Its generation is another one then.
 *   - A lease holds: what it covers is neither evicted nor reused before its end, by this clock. A forced
 *     remove takes the object's name away at once, and its places when the leases are over. After a
 *     restart the leases of the life before are not known, so what nodes tell of counts as leased for
 *     lease_max_ns.
 *   - A put is named by its token: begin, commit and revoke asked again get the first answer.
 *   - Events are a log with one number each; who falls behind it gets a snapshot.
 */
#ifndef STORE_MASTER_H
#define STORE_MASTER_H

#include <mooncake/store.h>

#include "wire/msg.h"

typedef struct store_master store_master; /* opaque */

/** 0 means the default. */
struct store_master_options {
    const struct mc_alloc *alloc; /* borrowed until close; required */
    uint64_t epoch;               /* this life; random, not 0; required */
    uint32_t objects_max;         /* default 1 Mi */
    uint32_t extents_max;         /* replicas and free pieces; default 2 x objects_max */
    uint32_t nodes_max;           /* default 1024; at most 65535 */
    uint32_t lents_max;           /* ranges that all nodes lend; default 4096; at most 65535 */
    uint32_t tokens_max;          /* puts under way or committed lately; default 64 Ki */
    uint32_t leases_max;          /* default 64 Ki */
    uint32_t lease_items_max;     /* objects in them; default 4 x objects_max, at most 16 Mi */
    uint32_t requests_max;        /* put_begin waiting for windows; default 4096 */
    uint32_t batch_max;           /* items of a message; default and at most 4096 */
    uint32_t events_max;          /* kept for who falls behind; default 64 Ki */
    uint32_t subscribers_max;     /* default 64 */
    uint32_t free_percent;        /* of the capacity, kept free by eviction; default 5; 101: none */
    uint64_t lease_ns;            /* of leases when not said; default 5 s */
    uint64_t lease_max_ns;        /* default 15 s */
    uint64_t token_ns;            /* of tokens when not said; default 10 s; at most lease_max_ns */
    uint64_t node_ns;             /* a silent node is forgotten; default 10 s */
    uint64_t gone_ns;             /* one without a connection; default 2 s */
    uint64_t ask_ns;              /* a node's answer is awaited; default 2 s */
};

enum store_master_event_kind {
    STORE_MASTER_TICK,    /* only the time */
    STORE_MASTER_MESSAGE, /* conn asks or says `message`; id 0: a statement */
    STORE_MASTER_ANSWER, /* to what was asked with tag `id`; status MC_OK: `message` of kind `wire` */
    STORE_MASTER_DOWN,   /* conn is gone; what it was asked was answered, by ANSWER with MC_E_PEER,
                           * before or is so after this */
};

struct store_master_event {
    enum store_master_event_kind kind;
    uint64_t conn; /* names a connection; not 0, never used again */
    uint64_t id;
    mc_status status;
    uint32_t wire; /* enum wire_kind */
    const void *message;
};

/** What the master wants done, at once; called inside a step. None may call the master. */
struct store_master_out {
    mc_status (*answer)(void *user, uint64_t conn, uint64_t id, enum wire_kind kind,
                        const void *message);
    /** MC_OK: one STORE_MASTER_ANSWER with `tag` follows, later. Else: none does. */
    mc_status (*ask)(void *user, uint64_t conn, uint64_t tag, enum wire_kind kind,
                     const void *message, uint64_t deadline_ns);
    /** MC_E_FULL: said again later. */
    mc_status (*send)(void *user, uint64_t conn, enum wire_kind kind, const void *message);
    void *user;
};

/** MC_OK, MC_E_ARG (no epoch), MC_E_RANGE (a limit) or MC_E_NOMEM. */
mc_status store_master_open(const struct store_master_options *options, store_master **master_p);
/** NULL is allowed. */
void store_master_close(store_master *master);

/** Can it be asked this? Kinds that it does not know are for the rim: stats, ping. */
bool store_master_knows(uint32_t wire);

void store_master_step(store_master *master, const struct store_master_event *event,
                       uint64_t now_ns, const struct store_master_out *out);

/** When a tick is due; UINT64_MAX: not before something happens. */
uint64_t store_master_next_ns(const store_master *master);

struct store_master_figures {
    uint64_t nodes, objects, replicas, leases, lease_items, tokens, requests, subscribers; /* now */
    uint64_t capacity_bytes, used_bytes, dying_bytes;                                      /* now */
    uint64_t quarantined_bytes; /* now, as nodes say */
    uint64_t evicted_objects, evicted_bytes, committed_objects, expired_tokens, expired_leases,
        lost_nodes, bad_replicas, sequence; /* since open */
};

void store_master_figures(const store_master *master, struct store_master_figures *figures_p);

/** Bytes of metadata that one object with one replica costs, its key not counted. */
uint32_t store_master_object_cost(void);

#endif /* STORE_MASTER_H */
