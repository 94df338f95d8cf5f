/* nodes.c - nodes: who lends what, where to put, how they come and are lost. */
#include <assert.h>
#include <string.h>

#include "store/core/master_state.h"

struct node *nodes_find(store_master *m, uint64_t id)
{
    for (uint32_t n = 0; id != 0 && n < m->nodes_high; n++)
        if (m->nodes[n].state != NODE_FREE && m->nodes[n].id == id)
            return &m->nodes[n];
    return NULL;
}

/* ------------------------------------------------------------------------------- where to put */

/** Higher is better: the node that was asked for, then the writer's host, then who has most room. */
static uint64_t rank(const store_master *m, const struct node *node, uint64_t preferred,
                     const struct mc_identity *host)
{
    static const struct mc_identity nobody;
    const bool near =
        memcmp(host, &nobody, sizeof(nobody)) != 0 && memcmp(host, &node->host, sizeof(*host)) == 0;
    uint64_t room = 0;

    for (uint32_t i = 0; i < node->lent_count; i++)
        room += m->space.lents[node->lents[i]].free_bytes;
    return (node->id == preferred ? UINT64_C(1) << 63 : 0) | (near ? UINT64_C(1) << 62 : 0) |
           (room >> 2);
}

/** Until the node says so, what it was asked to give up is not free there. */
static bool has_places(const store_master *m, const struct node *node)
{
    uint64_t taken = 0;

    for (uint32_t i = 0; i < node->lent_count; i++)
        taken += m->space.lents[node->lents[i]].taken;
    return taken < node->places_max;
}

static uint32_t take(store_master *m, const struct node *node, uint64_t size, uint32_t medium)
{
    if (!has_places(m, node))
        return 0;
    for (uint32_t i = 0; i < node->lent_count; i++) {
        const struct lent *lent = &m->space.lents[node->lents[i]];
        if (medium != MC_MEDIUM_ANY && lent->medium != medium)
            continue;
        const uint32_t extent = space_take(&m->space, node->lents[i], size);
        if (extent != 0)
            return extent;
    }
    return 0;
}

uint32_t nodes_place(store_master *m, uint64_t size, uint64_t preferred,
                     const struct mc_identity *host, uint32_t medium)
{
    for (;;) {
        struct node *best = NULL;
        uint64_t best_rank = 0;
        for (uint32_t n = 0; n < m->nodes_high; n++) {
            struct node *node = &m->nodes[n];
            if (node->state != NODE_UP || node->conn == 0 || node->draining ||
                node->mark == m->mark || m->now < node->quiet_until)
                continue;
            const uint64_t r = rank(m, node, preferred, host);
            if (!best || r > best_rank) {
                best = node;
                best_rank = r;
            }
        }
        if (!best)
            return 0;
        const uint32_t extent = take(m, best, size, medium);
        if (extent != 0)
            return extent;
        best->mark = m->mark; /* no room for this object */
    }
}

/* ------------------------------------------------------------------------------- come and go */

static void extent_lost(store_master *m, uint32_t extent)
{
    struct extent *e = &m->space.extents[extent];

    switch ((enum extent_state)e->state) {
    case EXTENT_WRITING:
        puts_window(m, extent, NULL);
        break;
    case EXTENT_HELD:
        table_detach(m, e->object, extent, 0);
        break;
    case EXTENT_DYING:
    case EXTENT_EVICTING:
        m->dying -= e->size;
        m->dying_places--;
        break;
    case EXTENT_FREE:
    case EXTENT_UNUSED:
        break;
    }
}

static uint64_t lent_bytes(const store_master *m, const struct node *node)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < node->lent_count; i++)
        bytes += m->space.lents[node->lents[i]].size;
    return bytes;
}

void nodes_forget(store_master *m, uint32_t n)
{
    struct node *node = &m->nodes[n];
    const uint64_t id = node->id;

    node->conn = 0;
    nodes_asks_fail(m, n);
    for (uint32_t i = 0; i < node->lent_count; i++)
        for (uint32_t e = m->space.lents[node->lents[i]].first; e != 0;
             e = m->space.extents[e].after)
            extent_lost(m, e);
    if (!node->draining) {
        m->capacity -= lent_bytes(m, node);
        m->places_max -= node->places_max;
    }
    for (uint32_t i = 0; i < node->lent_count; i++)
        space_withdraw(&m->space, node->lents[i]);
    due_stop(&m->due, due_node(m, n));
    due_stop(&m->due, due_work(m, n));
    *node = (struct node){ .lents = node->lents };
    m->total.lost_nodes++;
    feed_add(m, MC_STORE_NODE_DOWN, id, 0, &(struct mc_key){ 0 }, 0);
}

void nodes_expired(store_master *m, uint32_t n)
{
    nodes_forget(m, n);
}

static void node_lives(store_master *m, uint32_t n)
{
    m->nodes[n].until = m->now + m->o.node_ns;
    due_set(&m->due, due_node(m, n), m->nodes[n].until);
}

void nodes_down(store_master *m, uint64_t conn)
{
    for (uint32_t n = 0; n < m->nodes_high; n++) {
        struct node *node = &m->nodes[n];
        if (node->state == NODE_FREE || node->conn != conn)
            continue;
        if (node->state == NODE_JOINING) {
            nodes_forget(m, n); /* it begins to tell anew */
            continue;
        }
        node->conn = 0;
        nodes_asks_fail(m, n);
        if (node->until > m->now + m->o.gone_ns) {
            node->until = m->now + m->o.gone_ns;
            due_set(&m->due, due_node(m, n), node->until);
        }
    }
}

static void say_registered(store_master *m, uint64_t id, uint32_t n)
{
    const struct wire_node_registered registered = {
        .node = m->nodes[n].id,
        .epoch = m->o.epoch,
        .heartbeat_ns = m->o.node_ns / 4,
        .lease_ns = m->o.node_ns,
        .readers_ns = m->o.lease_max_ns,
    };

    (void)m->out->answer(m->out->user, m->nodes[n].conn, id, WIRE_NODE_REGISTERED, &registered);
}

/** A node that is known is back: nothing was lost but the connection. */
static void node_back(store_master *m, uint32_t n, uint64_t conn)
{
    struct node *node = &m->nodes[n];

    if (node->conn != 0)
        nodes_asks_fail(m, n); /* the old connection's end was not heard of yet */
    node->conn = conn;
    node_lives(m, n);
    if (node->dying_first != 0)
        due_set(&m->due, due_work(m, n), 0);
}

/** Forget what a life before of this node, or of this connection, had registered. Returns its record + 1
 * if it is the same life. */
static uint32_t node_known(store_master *m, uint64_t conn, const struct wire_node_register *message)
{
    for (uint32_t n = 0; n < m->nodes_high; n++) {
        struct node *node = &m->nodes[n];
        if (node->state == NODE_FREE)
            continue;
        const bool same_name =
            strlen(node->segment) == message->segment.size &&
            memcmp(node->segment, message->segment.data, message->segment.size) == 0;
        if (node->id == message->node && node->incarnation == message->incarnation &&
            node->state == NODE_UP)
            return n + 1;
        if (same_name || node->incarnation == message->incarnation || node->conn == conn)
            nodes_forget(m, n);
    }
    return 0;
}

static mc_status lend(store_master *m, uint32_t n, const struct wire_lent *lent)
{
    struct node *node = &m->nodes[n];

    if (lent->medium != MC_MEDIUM_DRAM)
        return MC_E_UNSUPPORTED;
    if (lent->align == 0 || lent->align > lent->size || lent->size > UINT64_C(1) << 60)
        return MC_E_RANGE;
    if (!space_lend(&m->space, (uint16_t)n, lent->region, lent->generation, lent->size,
                    lent->medium, lent->align, &node->lents[node->lent_count]))
        return MC_E_FULL;
    node->lent_count++;
    m->capacity += m->space.lents[node->lents[node->lent_count - 1]].size;
    return MC_OK;
}

/** A new record with all that is lent, or why not. */
static mc_status node_new(store_master *m, uint64_t conn, const struct wire_node_register *message,
                          uint32_t *n_p)
{
    struct wire_list list = message->lent;
    struct wire_lent lent;
    uint32_t n = 0;

    if (list.count > LENTS_OF_NODE || message->segment.size > MC_NAME_MAX)
        return MC_E_RANGE;
    while (n < m->o.nodes_max && m->nodes[n].state != NODE_FREE)
        n++;
    if (n == m->o.nodes_max)
        return MC_E_FULL;
    struct node *node = &m->nodes[n];
    *node = (struct node){
        .id = ++m->node_id,
        .conn = conn,
        .incarnation = message->incarnation,
        .host = message->host,
        .held = message->held,
        .lents = node->lents,
        .places_max = message->places ? message->places : UINT32_MAX,
        .state = message->held != 0 ? NODE_JOINING : NODE_UP,
    };
    memcpy(node->segment, message->segment.data, message->segment.size);
    if (n >= m->nodes_high)
        m->nodes_high = n + 1;
    m->places_max += node->places_max;
    feed_add(m, MC_STORE_NODE_UP, node->id, 0, &(struct mc_key){ 0 }, 0);
    while (wire_lent_next(&list, &lent)) {
        const mc_status status = lend(m, n, &lent);
        if (status != MC_OK) {
            nodes_forget(m, n);
            return status;
        }
    }
    *n_p = n;
    return MC_OK;
}

void nodes_register(store_master *m, uint64_t conn, uint64_t id,
                    const struct wire_node_register *message)
{
    uint32_t n = node_known(m, conn, message);

    if (n != 0) {
        n--;
        node_back(m, n, conn);
    } else {
        const mc_status status = node_new(m, conn, message, &n);
        if (status != MC_OK) {
            say_outcome(m, conn, id, status, "node_register: what it lends cannot be taken");
            return;
        }
        node_lives(m, n);
    }
    say_registered(m, id, n);
}

void nodes_heartbeat(store_master *m, uint64_t conn, uint64_t id,
                     const struct wire_node_heartbeat *message)
{
    struct node *node = message->epoch == m->o.epoch ? nodes_find(m, message->node) : NULL;

    if (!node || node->conn != conn) {
        say_outcome(m, conn, id, MC_E_STALE, "not a node that is known: register again");
        return;
    }
    if (node->draining != message->draining) {
        m->capacity += message->draining ? -lent_bytes(m, node) : lent_bytes(m, node);
        m->places_max += message->draining ? -(uint64_t)node->places_max : node->places_max;
    }
    node->draining = message->draining;
    node->quarantined_bytes = message->quarantined_bytes;
    node_lives(m, (uint32_t)(node - m->nodes));
    say_outcome(m, conn, id, MC_OK, NULL);
}
