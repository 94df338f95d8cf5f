/*
 * master_state.h - what the files of the master share: its records and who changes them.
 *
 *   master.c  open, close, dispatch, time          table.c   objects by key, replicas, eviction
 *   puts.c    put_begin, tokens                    ends.c    put_commit, put_revoke, put_renew
 *   leases.c  lookup .. lease_release
 *   nodes.c   nodes: who lends what                asks.c    what they are asked: windows, dying places
 *   held.c    what a node tells that it holds      feed.c    events and snapshots
 */
#ifndef STORE_MASTER_STATE_H
#define STORE_MASTER_STATE_H

#include "store/core/due.h"
#include "store/core/master.h"
#include "store/core/space.h"

enum object_state {
    OBJECT_FREE,
    OBJECT_WRITING,
    OBJECT_COMMITTED,
    OBJECT_COPY, /* a further copy of a committed one is written: its places; in no bucket */
};
enum object_flags {
    OBJECT_GUARDED = 1, /* lease_until stands for leases of a life before */
    OBJECT_SHRUNK = 2,  /* a replica was dropped under its leases: they are not renewed */
};

struct object {
    struct mc_key key;
    uint64_t length;
    uint64_t lease_until; /* the end of the last lease, if leases or GUARDED */
    uint64_t pin_until;   /* not evicted before */
    uint32_t chain;       /* next in the bucket, or of the free records */
    uint32_t older,
        newer;       /* neighbours by last use; of a OBJECT_COPY: the original, and its serial */
    uint32_t places; /* first replica */
    uint32_t leases; /* that cover it */
    uint32_t serial; /* another one each time the record is used */
    uint32_t token;  /* while it is written */
    uint8_t state, flags;
    uint16_t unused;
};

enum token_state { TOKEN_FREE, TOKEN_WAITING, TOKEN_OPEN, TOKEN_COMMITTED };

struct token {
    uint64_t id[2];
    uint64_t until, lease_ns;
    struct mc_key key;
    uint32_t places[MC_REPLICAS_MAX]; /* extents; 0: lost */
    uint32_t chain;
    uint32_t object;
    uint32_t request, item; /* put_begin that is not answered yet; 0: none */
    uint8_t count, waiting; /* places; those without a window yet */
    uint8_t state;
};

struct request { /* a put_begin */
    uint64_t conn, id;
    uint64_t lease_ns;
    uint32_t first, last; /* items */
    uint32_t count, waiting;
    uint32_t chain;
};

struct item {
    uint32_t next, token;
    mc_status status; /* MC_PENDING: the token's windows are awaited */
};

struct lease {
    uint64_t until;
    uint32_t first, count; /* lease items */
    uint32_t serial, chain;
    bool used;
};

struct lease_item {
    uint32_t object, serial, next;
};

enum ask_kind { ASK_FREE, ASK_OPEN, ASK_EVICT };

struct ask {
    uint32_t first, chain, serial; /* extents, by link */
    uint16_t node;
    uint8_t kind;
};

enum node_state { NODE_FREE, NODE_JOINING, NODE_UP };

struct node {
    uint64_t id, conn, incarnation;
    uint64_t until, silent_ns;
    uint64_t quiet_until; /* nothing new is placed here before */
    uint64_t suspect_until;
    uint64_t held, told, quarantined_bytes;
    struct mc_identity host;
    char segment[MC_NAME_MAX + 1];
    uint16_t *lents; /* owned by the master: [lent_count] of its own array */
    uint32_t lent_count;
    uint32_t places_max;              /* it keeps account of so many; UINT32_MAX: not said */
    uint32_t open_first, open_last;   /* extents to be opened */
    uint32_t dying_first, dying_last; /* extents to be evicted */
    uint32_t mark;                    /* equal to the master's: no place for the object at hand */
    uint32_t open_next; /* in the master's list of nodes with something to be opened, + 1 */
    uint8_t state;
    bool draining;
};

struct feed_event {
    uint64_t node, length;
    struct mc_key key;
    uint8_t kind, medium;
};

enum reader_state { READER_FREE, READER_SNAPSHOT, READER_FOLLOWS };

struct reader { /* a subscriber */
    uint64_t conn;
    uint64_t answer; /* id of the question, until something was said */
    uint64_t next;   /* sequence to be said next */
    uint64_t base;   /* of the snapshot */
    uint32_t cursor; /* snapshot: nodes, then objects */
    uint32_t part;
    uint8_t state;
};

struct store_master {
    struct store_master_options o;
    const struct store_master_out *out; /* inside a step */
    uint64_t now;
    uint64_t generation; /* the last one given */
    uint64_t node_id;    /* the last one given */

    struct space space;
    struct due due; /* nodes, nodes' work, leases, tokens, the feed */

    struct object *objects; /* [objects_max + 1] */
    uint32_t *buckets;      /* [bucket_mask + 1] */
    uint32_t bucket_mask, object_spare, object_count, oldest, newest;

    struct token *tokens; /* [tokens_max + 1] */
    uint32_t *token_buckets;
    uint32_t token_mask, token_spare, token_count;
    struct wire_window *windows; /* [windows_max + 1]; free ones in a chain by region */
    uint32_t windows_max, window_spare;

    struct request *requests; /* [requests_max + 1] */
    uint32_t request_spare, request_count;
    struct item *items; /* [items_max + 1] */
    uint32_t items_max, item_spare;

    struct lease *leases; /* [leases_max + 1] */
    uint32_t lease_spare, lease_count;
    struct lease_item *lease_items; /* [lease_items_max + 1] */
    uint32_t lease_item_spare, lease_item_count;

    struct node *nodes;   /* [nodes_max] */
    uint16_t *node_lents; /* [nodes_max * LENTS_OF_NODE]: where nodes' lents point to */
    uint32_t nodes_high;  /* records above were never used */
    uint32_t open_nodes;  /* first node with something to be opened, + 1 */
    uint32_t mark;
    struct ask *asks; /* [asks_max + 1] */
    uint32_t asks_max, ask_spare;

    struct feed_event *feed;       /* [events_max]; event n at n % events_max */
    uint64_t feed_first, sequence; /* the oldest kept; the last one */
    struct reader *readers;        /* [subscribers_max] */
    bool feed_dirty;

    uint64_t capacity, used, writing, dying, replicas; /* bytes; used by what is committed */
    uint64_t places_max, dying_places; /* of nodes that do not drain; dying, of all */
    struct store_master_figures total;

    /* What is being said: [batch_max], replicas x MC_REPLICAS_MAX. */
    struct wire_replica *say_replicas;
    void *say_items; /* the largest of the list elements */
    struct wire_node_engine *say_nodes;
    uint32_t *say_statuses;
    uint32_t say_node_count;
};

enum {
    LENTS_OF_NODE = 16,
    SAY_ITEM_MAX = 80, /* bytes of a list element in say_items */
};

/* Ids in `due`. */
static inline uint32_t due_node(const store_master *m, uint32_t node)
{
    (void)m;
    return node;
}
static inline uint32_t due_work(const store_master *m, uint32_t node)
{
    return m->o.nodes_max + node;
}
static inline uint32_t due_lease(const store_master *m, uint32_t lease)
{
    return 2 * m->o.nodes_max + lease;
}
static inline uint32_t due_token(const store_master *m, uint32_t token)
{
    return 2 * m->o.nodes_max + m->o.leases_max + 1 + token;
}
static inline uint32_t due_feed(const store_master *m)
{
    return 2 * m->o.nodes_max + m->o.leases_max + 1 + m->o.tokens_max + 1;
}

/* ------------------------------------------------------------------------------------- table.c */

uint32_t table_find(const store_master *m, const struct mc_key *key);
/** 0: full. In no list of use. */
uint32_t table_add(store_master *m, const struct mc_key *key, uint64_t length,
                   enum object_state state);
void table_free(store_master *m, uint32_t object);
/** How many replicas; and does this node (a record's number) hold one? */
uint32_t table_replicas(const store_master *m, uint32_t object);
bool table_has_replica(const store_master *m, uint32_t object, uint32_t node);
void table_link_newest(store_master *m, uint32_t object);
void table_touch(store_master *m, uint32_t object);
bool table_leased(const store_master *m, uint32_t object);

/** The replica of a committed object: in its list, and told. */
void table_add_replica(store_master *m, uint32_t object, uint32_t extent);
/** Drop one replica, for `kind` (0: tell nobody); the object too if it was the last. The extent is left to the
 * caller, in no list. */
void table_detach(store_master *m, uint32_t object, uint32_t extent, uint32_t kind);
/** Drop the object and all its replicas, whose places begin to die. */
void table_drop(store_master *m, uint32_t object, uint32_t kind);
/** Evict what was not used for longest, until about `bytes` and `places` are on their way to be free. */
void table_evict(store_master *m, uint64_t bytes, uint64_t places);
/** Evict as far as the watermark wants: of bytes, of the nodes' places and of the records here. */
void table_keep_free(store_master *m);

/* -------------------------------------------------------------------------------------- puts.c */

void puts_begin(store_master *m, uint64_t conn, uint64_t id, const struct wire_put_begin *message);
/** A place of a put has its window, or never will (window NULL: the caller frees the extent). */
void puts_window(store_master *m, uint32_t extent, const struct wire_window *window);
/** Nobody is at conn any more. */
void puts_down(store_master *m, uint64_t conn);
void puts_window_free(store_master *m, uint32_t extent);
/** Of a token, as granted. */
uint64_t puts_token_lease(const store_master *m, uint64_t wanted);
/** 0: unknown. */
uint32_t puts_token_find(const store_master *m, const struct mc_key *id);
void puts_token_free(store_master *m, uint32_t token);
/** End a put that is not committed. The token goes, with whatever waits for it told `status`. */
void puts_token_revoke(store_master *m, uint32_t token, mc_status status);
/** A place of a put that will not be: its windows close at the node before it is free. */
void puts_place_drop(store_master *m, uint32_t extent);

/* -------------------------------------------------------------------------------------- ends.c */

void puts_commit(store_master *m, uint64_t conn, uint64_t id,
                 const struct wire_put_commit *message);
void puts_revoke(store_master *m, uint64_t conn, uint64_t id,
                 const struct wire_put_revoke *message);
void puts_renew(store_master *m, uint64_t conn, uint64_t id, const struct wire_put_renew *message);
void puts_expired(store_master *m, uint32_t token);

/* ------------------------------------------------------------------------------------ leases.c */

void leases_lookup(store_master *m, uint64_t conn, uint64_t id, const struct wire_lookup *message);
void leases_exist(store_master *m, uint64_t conn, uint64_t id, const struct wire_exist *message);
void leases_renew(store_master *m, uint64_t conn, uint64_t id,
                  const struct wire_lease_renew *message);
void leases_release(store_master *m, uint64_t conn, uint64_t id,
                    const struct wire_lease_release *message);
void leases_remove(store_master *m, uint64_t conn, uint64_t id, const struct wire_remove *message);
void leases_bad(store_master *m, uint64_t conn, uint64_t id,
                const struct wire_replica_bad *message);
void leases_expired(store_master *m, uint32_t lease);

/* ------------------------------------------------------------------------------------- nodes.c */

void nodes_register(store_master *m, uint64_t conn, uint64_t id,
                    const struct wire_node_register *message);
void nodes_heartbeat(store_master *m, uint64_t conn, uint64_t id,
                     const struct wire_node_heartbeat *message);
void nodes_down(store_master *m, uint64_t conn);
void nodes_expired(store_master *m, uint32_t node);
/** Forget a node and all that lies on it. */
void nodes_forget(store_master *m, uint32_t node);
/** Where to put `size` bytes; 0: nowhere. Not on nodes marked with m->mark. */
uint32_t nodes_place(store_master *m, uint64_t size, uint64_t preferred,
                     const struct mc_identity *host, uint32_t medium);
struct node *nodes_find(store_master *m, uint64_t id);

/* -------------------------------------------------------------------------------------- asks.c */

/** Ask for what may go; the rest stays in the node's list. */
void nodes_work(store_master *m, uint32_t node);
void nodes_answer(store_master *m, const struct store_master_event *event);
/** Nothing that this node was asked will be answered. */
void nodes_asks_fail(store_master *m, uint32_t node);
/** The node's windows over this extent are wanted: sent by nodes_open_flush(). */
void nodes_open_later(store_master *m, uint32_t extent);
void nodes_open_flush(store_master *m);
/** Give the place back once `until` is over and the node said quiet. */
void nodes_dying(store_master *m, uint32_t extent, uint64_t until);

/* -------------------------------------------------------------------------------------- held.c */

void held_tell(store_master *m, uint64_t conn, uint64_t id, const struct wire_node_held *message);

/* -------------------------------------------------------------------------------------- feed.c */

void feed_add(store_master *m, enum mc_store_event_kind kind, uint64_t node, uint32_t medium,
              const struct mc_key *key, uint64_t length);
void feed_subscribe(store_master *m, uint64_t conn, uint64_t id,
                    const struct wire_events_subscribe *message);
void feed_down(store_master *m, uint64_t conn);
/** Tell everybody what is new. */
void feed_flush(store_master *m);

/* ------------------------------------------------------------------------------------ master.c */

void say_outcome(store_master *m, uint64_t conn, uint64_t id, mc_status status, const char *text);
/** The first `count` of m->say_statuses. */
void say_outcomes(store_master *m, uint64_t conn, uint64_t id, uint32_t count);
/** Begin an answer that names nodes; then each node once. */
void say_nodes_begin(store_master *m);
void say_node(store_master *m, uint32_t node);
/** Where a replica lies, as said to a client; a window while it is written. */
void say_replica(store_master *m, uint32_t extent, struct wire_replica *replica);

#endif /* STORE_MASTER_STATE_H */
