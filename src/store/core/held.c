/* held.c - what a node tells that it holds, after a master's restart or its own absence. */
#include <string.h>

#include "store/core/master_state.h"

/** The object to which a replica may be added, made if need be; 0: it may not. */
static uint32_t object_for(store_master *m, uint32_t n, const struct wire_held *held)
{
    struct mc_key key;

    memcpy(&key, &held->identity, sizeof(key));
    uint32_t i = table_find(m, &key);
    if (i == 0) {
        i = table_add(m, &key, held->length, OBJECT_COMMITTED);
        if (i != 0)
            table_link_newest(m, i);
        return i;
    }
    return m->objects[i].state == OBJECT_COMMITTED && m->objects[i].length == held->length &&
                   !table_has_replica(m, i, n)
               ? i
               : 0;
}

/** Readers of a life before may hold leases that nobody here knows of: they end within lease_max. */
static mc_status take_over(store_master *m, uint32_t n, const struct wire_held *held)
{
    struct node *node = &m->nodes[n];

    if (held->lent >= node->lent_count || held->length > MC_OBJECT_LENGTH_MAX)
        return MC_E_RANGE;
    const uint32_t extent = space_take_at(&m->space, node->lents[held->lent], held->offset,
                                          mc_object_bytes(held->length));
    if (extent == 0)
        return MC_E_RANGE;
    m->space.extents[extent].generation = held->generation;
    const uint32_t i = object_for(m, n, held);
    if (i == 0) {
        nodes_dying(m, extent, m->now + m->o.lease_max_ns);
        return MC_E_FULL;
    }
    table_add_replica(m, i, extent);
    m->objects[i].flags |= OBJECT_GUARDED;
    if (m->objects[i].lease_until < m->now + m->o.lease_max_ns)
        m->objects[i].lease_until = m->now + m->o.lease_max_ns;
    node->told++;
    return MC_OK;
}

void held_tell(store_master *m, uint64_t conn, uint64_t id, const struct wire_node_held *message)
{
    struct wire_list list = message->objects;
    struct node *node = message->epoch == m->o.epoch ? nodes_find(m, message->node) : NULL;
    struct wire_held held;
    uint32_t n = 0;

    if (!node || node->conn != conn || node->state != NODE_JOINING || list.count > m->o.batch_max) {
        say_outcome(m, conn, id, MC_E_STALE, "node_held: not now; register again");
        return;
    }
    while (wire_held_next(&list, &held))
        m->say_statuses[n++] = (uint32_t)take_over(m, (uint32_t)(node - m->nodes), &held);
    if (message->last) {
        node->state = NODE_UP;
        /* What it held and did not tell, or not rightly, lies where we see free bytes. */
        if (node->told < node->held)
            node->quiet_until = m->now + m->o.lease_max_ns;
    }
    say_outcomes(m, conn, id, n);
}
