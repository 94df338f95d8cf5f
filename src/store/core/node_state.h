/* node_state.h - what node.c and rejoin.c share. */
#ifndef STORE_NODE_STATE_H
#define STORE_NODE_STATE_H

#include "store/core/due.h"
#include "store/core/node.h"

struct held_place {
    uint64_t offset, size, generation;
    struct mc_window window; /* key 0, 0: none */
    uint64_t keep_until;     /* dropped by us: readers of another epoch may still have leases */
    uint32_t chain;          /* next in the bucket, or of the spare ones */
    uint32_t index;          /* in node->list */
    uint16_t lent;
    bool used, closing; /* closing: given up, its window not quiet yet */
};

enum link_state {
    LINK_AWAY,        /* no connection */
    LINK_REGISTERING, /* asked; or to be asked again at `register_at` */
    LINK_QUIET,       /* registered anew: windows are being revoked */
    LINK_TELLING,     /* verifying, and telling what is whole */
    LINK_READY,
};

enum { LENTS_MAX = 16, NODE_TAG_SHIFT = 32 };

struct store_node {
    struct store_node_options o;
    struct store_node_lent lent[LENTS_MAX];
    char segment[MC_NAME_MAX + 1];
    const struct store_node_out *out;
    uint64_t now;

    struct held_place *places; /* [places_max + 1] */
    uint32_t *buckets, bucket_mask, spare;
    uint32_t *list; /* [places_max] records in use, in any order; sorted to be told */
    uint32_t count;
    struct due due; /* places' windows; then the heartbeat; then rejoining */

    enum link_state state;
    uint64_t id, epoch; /* as of the last registration that was completed or begun */
    uint64_t heartbeat_ns, readers_ns;
    uint64_t
        questions;  /* asked so far: the tag of an old connection is never taken for a new one */
    uint64_t waits; /* tag of the register or held that is out; 0: none */
    uint64_t waits_beat; /* tag of the heartbeat that is out; 0: none */
    uint32_t *told;      /* [batch_max] records told in the message that is out */
    uint32_t told_count;
    uint32_t cursor;    /* rejoining: how much of `list` is done */
    uint32_t announced; /* places that the registration spoke of */
    bool draining;

    struct wire_window *say_windows; /* [batch_max] */
    struct wire_held *say_held;      /* [batch_max] */
    uint32_t *say_statuses;          /* [batch_max] */
    struct store_node_figures total;
};

static inline uint32_t due_beat(const store_node *node)
{
    return node->o.places_max + 1;
}
static inline uint32_t due_rejoin(const store_node *node)
{
    return node->o.places_max + 2;
}

static inline bool window_is_set(const struct mc_window *window)
{
    return (window->key[0] | window->key[1]) != 0;
}

/** Ask; *waits_p is the tag, 0 if it could not be asked. */
void node_ask(store_node *node, enum wire_kind kind, const void *message, uint64_t *waits_p);

/** The place goes from the table. Its window is gone. */
void node_forget(store_node *node, uint32_t place);

/** Not held any more, by our own choice: it rests until no reader can have a lease, and is quiet. */
void node_rest(store_node *node, uint32_t place);

/** Is its window closed, or does it close now? False: not quiet yet, tried again later. */
bool node_quiet(store_node *node, uint32_t place);

/* rejoin.c: from a connection to being ready. */
void rejoin_begin(store_node *node);
void rejoin_answer(store_node *node, const struct store_node_event *event);
void rejoin_due(store_node *node);

#endif /* STORE_NODE_STATE_H */
