/* leases.c - looking objects up and keeping them: lookup, exist, leases, remove, bad replicas. */
#include <assert.h>
#include <string.h>

#include "store/core/master_state.h"

/* ------------------------------------------------------------------------------------- leases */

/** A lease's id is its record and how often that was used: an old id never means a new lease. */
static uint64_t lease_id(const store_master *m, uint32_t i)
{
    return (uint64_t)m->leases[i].serial << 32 | i;
}

static uint32_t lease_find(const store_master *m, uint64_t id)
{
    const uint32_t i = (uint32_t)id;

    return i != 0 && i <= m->o.leases_max && m->leases[i].used &&
                   m->leases[i].serial == (uint32_t)(id >> 32)
               ? i
               : 0;
}

static uint32_t lease_add(store_master *m, uint64_t lease_ns)
{
    const uint32_t i = m->lease_spare;

    if (i == 0)
        return 0;
    m->lease_spare = m->leases[i].chain;
    m->leases[i] = (struct lease){
        .until = m->now + lease_ns,
        .serial = m->leases[i].serial + 1,
        .used = true,
    };
    m->lease_count++;
    due_set(&m->due, due_lease(m, i), m->leases[i].until);
    return i;
}

static bool lease_cover(store_master *m, uint32_t i, uint32_t object)
{
    const uint32_t item = m->lease_item_spare;
    struct object *o = &m->objects[object];

    if (item == 0)
        return false;
    m->lease_item_spare = m->lease_items[item].next;
    m->lease_items[item] =
        (struct lease_item){ .object = object, .serial = o->serial, .next = m->leases[i].first };
    m->leases[i].first = item;
    m->leases[i].count++;
    m->lease_item_count++;
    o->leases++;
    if (o->lease_until < m->leases[i].until)
        o->lease_until = m->leases[i].until;
    return true;
}

/** The object of a lease's item, or NULL: it was removed meanwhile. */
static struct object *covered(store_master *m, const struct lease_item *item)
{
    struct object *o = &m->objects[item->object];

    return o->serial == item->serial && o->state == OBJECT_COMMITTED ? o : NULL;
}

static void lease_free(store_master *m, uint32_t i)
{
    for (uint32_t item = m->leases[i].first; item != 0;) {
        const uint32_t next = m->lease_items[item].next;
        struct object *o = covered(m, &m->lease_items[item]);
        if (o && --o->leases == 0) {
            o->flags &= (uint8_t)~OBJECT_SHRUNK;
            o->lease_until = o->flags & OBJECT_GUARDED ? o->lease_until : 0;
        }
        m->lease_items[item] = (struct lease_item){ .next = m->lease_item_spare };
        m->lease_item_spare = item;
        m->lease_item_count--;
        item = next;
    }
    due_stop(&m->due, due_lease(m, i));
    m->leases[i] = (struct lease){ .serial = m->leases[i].serial, .chain = m->lease_spare };
    m->lease_spare = i;
    m->lease_count--;
}

void leases_expired(store_master *m, uint32_t lease)
{
    m->total.expired_leases++;
    lease_free(m, lease);
}

static uint64_t lease_time(const store_master *m, uint64_t wanted)
{
    if (wanted == 0)
        wanted = m->o.lease_ns;
    return wanted < m->o.lease_max_ns ? wanted : m->o.lease_max_ns;
}

/** Is all that the lease covers still there, every replica? Else the holder must look up again. */
static bool covers_all(store_master *m, const struct lease *lease)
{
    for (uint32_t item = lease->first; item != 0; item = m->lease_items[item].next) {
        const struct object *o = covered(m, &m->lease_items[item]);
        if (!o || o->flags & OBJECT_SHRUNK)
            return false;
    }
    return true;
}

static mc_status renew(store_master *m, uint64_t id, uint64_t lease_ns)
{
    const uint32_t i = lease_find(m, id);

    if (i == 0 || !covers_all(m, &m->leases[i]))
        return MC_E_STALE;
    struct lease *lease = &m->leases[i];
    /* Never shorter: the holder may not have heard of a renewal, and counts on what it knows. */
    if (lease->until < m->now + lease_ns)
        lease->until = m->now + lease_ns;
    due_set(&m->due, due_lease(m, i), lease->until);
    for (uint32_t item = lease->first; item != 0; item = m->lease_items[item].next) {
        struct object *o = covered(m, &m->lease_items[item]);
        if (o->lease_until < lease->until)
            o->lease_until = lease->until;
    }
    return MC_OK;
}

void leases_renew(store_master *m, uint64_t conn, uint64_t id,
                  const struct wire_lease_renew *message)
{
    const uint64_t lease_ns = message->lease_ns;
    const uint32_t count = message->leases.count;

    /* The answer has no place for a shorter time, and who asked would count on the longer one. */
    if (count > m->o.batch_max || lease_ns > m->o.lease_max_ns) {
        say_outcome(m, conn, id, MC_E_RANGE, "lease_renew: too many leases, or for too long");
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        m->say_statuses[i] = (uint32_t)(message->epoch != m->o.epoch
                                            ? MC_E_STALE
                                            : renew(m, wire_u64_at(&message->leases, i), lease_ns));
    say_outcomes(m, conn, id, count);
}

void leases_release(store_master *m, uint64_t conn, uint64_t id,
                    const struct wire_lease_release *message)
{
    const uint32_t count = message->leases.count;

    if (count > m->o.batch_max) {
        say_outcome(m, conn, id, MC_E_RANGE, "lease_release: too many leases");
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t lease =
            message->epoch == m->o.epoch ? lease_find(m, wire_u64_at(&message->leases, i)) : 0;
        if (lease != 0)
            lease_free(m, lease);
        m->say_statuses[i] = (uint32_t)(lease != 0 ? MC_OK : MC_E_STALE);
    }
    say_outcomes(m, conn, id, count);
}

/* ------------------------------------------------------------------------------------- lookup */

/** Lower is better to read from. */
static uint32_t distance(const store_master *m, uint32_t extent, const struct mc_identity *host)
{
    static const struct mc_identity nobody;
    const struct node *node = &m->nodes[m->space.extents[extent].node];
    const bool near =
        memcmp(host, &nobody, sizeof(nobody)) != 0 && memcmp(host, &node->host, sizeof(*host)) == 0;

    return (node->conn == 0 ? 4u : 0u) + (m->now < node->suspect_until ? 2u : 0u) +
           (near ? 0u : 1u);
}

/** The object's replicas, the best first. */
static uint32_t say_found(store_master *m, const struct object *o, const struct mc_identity *host,
                          struct wire_replica *replicas)
{
    uint32_t extents[MC_REPLICAS_MAX], count = 0;

    for (uint32_t e = o->places; e != 0 && count < MC_REPLICAS_MAX; e = m->space.extents[e].other) {
        uint32_t at = count++;
        for (; at > 0 && distance(m, extents[at - 1], host) > distance(m, e, host); at--)
            extents[at] = extents[at - 1];
        extents[at] = e;
    }
    for (uint32_t i = 0; i < count; i++) {
        say_replica(m, extents[i], &replicas[i]);
        say_node(m, m->space.extents[extents[i]].node);
    }
    return count;
}

/** Look one key up; covered by *lease_p, which is made for the first. False: no room for leases. */
static bool find_one(store_master *m, const struct mc_key *key, const struct wire_lookup *ask,
                     uint64_t lease_ns, uint32_t *lease_p, struct wire_found_item *found,
                     struct wire_replica *replicas)
{
    const uint32_t i = table_find(m, key);

    *found = (struct wire_found_item){ .status = MC_E_NOT_FOUND };
    if (i == 0 || m->objects[i].state != OBJECT_COMMITTED)
        return true;
    if (*lease_p == 0 && (*lease_p = lease_add(m, lease_ns)) == 0)
        return false;
    if (!lease_cover(m, *lease_p, i))
        return false;
    table_touch(m, i);
    found->status = MC_OK;
    found->length = m->objects[i].length;
    found->replicas.items = replicas;
    found->replicas.count = say_found(m, &m->objects[i], &ask->host, replicas);
    return true;
}

void leases_lookup(store_master *m, uint64_t conn, uint64_t id, const struct wire_lookup *message)
{
    const uint64_t lease_ns = lease_time(m, message->lease_ns);
    struct wire_found_item *items = m->say_items;
    struct wire_replica *replicas = m->say_replicas;
    uint32_t lease = 0, n = 0;

    if (message->keys.count > m->o.batch_max) {
        say_outcome(m, conn, id, MC_E_RANGE, "lookup: too many keys");
        return;
    }
    say_nodes_begin(m);
    for (uint32_t k = 0; k < message->keys.count; k++) {
        const struct mc_key key = wire_key_at(&message->keys, k);
        if (!find_one(m, &key, message, lease_ns, &lease, &items[n], replicas)) {
            if (lease != 0)
                lease_free(m, lease);
            say_outcome(m, conn, id, MC_E_FULL, "lookup: no room for more leases");
            return;
        }
        replicas += items[n++].replicas.count;
        if (message->prefix && items[n - 1].status != MC_OK)
            break;
    }
    const struct wire_found found = {
        .items = { .items = items, .count = n },
        .lease = lease != 0 ? lease_id(m, lease) : 0,
        .lease_ns = lease_ns,
        .epoch = m->o.epoch,
        .nodes = { .items = m->say_nodes, .count = m->say_node_count },
    };
    if (m->out->answer(m->out->user, conn, id, WIRE_FOUND, &found) != MC_OK && lease != 0)
        lease_free(m, lease); /* nobody knows of it */
}

void leases_exist(store_master *m, uint64_t conn, uint64_t id, const struct wire_exist *message)
{
    struct wire_exist_item *items = m->say_items;
    const uint32_t count = message->keys.count;

    if (count > m->o.batch_max) {
        say_outcome(m, conn, id, MC_E_RANGE, "exist: too many keys");
        return;
    }
    for (uint32_t k = 0; k < count; k++) {
        const struct mc_key key = wire_key_at(&message->keys, k);
        const uint32_t i = table_find(m, &key);
        items[k] = (struct wire_exist_item){ .status = MC_E_NOT_FOUND };
        if (i != 0 && m->objects[i].state == OBJECT_COMMITTED)
            items[k] = (struct wire_exist_item){ .length = m->objects[i].length,
                                                 .medium = MC_MEDIUM_DRAM };
    }
    const struct wire_existing existing = { .items = { .items = items, .count = count } };
    (void)m->out->answer(m->out->user, conn, id, WIRE_EXISTING, &existing);
}

/* ------------------------------------------------------------------------------------- remove */

static mc_status remove_one(store_master *m, const struct mc_key *key, bool force)
{
    const uint32_t i = table_find(m, key);

    if (i == 0)
        return MC_E_NOT_FOUND;
    if (m->objects[i].state != OBJECT_COMMITTED)
        return MC_E_BUSY;
    if (!force && table_leased(m, i))
        return MC_E_BUSY;
    table_drop(m, i, MC_STORE_REMOVED);
    return MC_OK;
}

void leases_remove(store_master *m, uint64_t conn, uint64_t id, const struct wire_remove *message)
{
    const uint32_t count = message->keys.count;

    if (count > m->o.batch_max) {
        say_outcome(m, conn, id, MC_E_RANGE, "remove: too many keys");
        return;
    }
    for (uint32_t k = 0; k < count; k++) {
        const struct mc_key key = wire_key_at(&message->keys, k);
        m->say_statuses[k] = (uint32_t)remove_one(m, &key, message->force);
    }
    say_outcomes(m, conn, id, count);
}

/** What was read there was wrong: nobody shall read it again. Others may be reading it now. */
static void replica_drop(store_master *m, uint32_t i, uint32_t extent)
{
    const uint64_t until = table_leased(m, i) ? m->objects[i].lease_until : 0;

    m->total.bad_replicas++;
    if (m->objects[i].leases > 0)
        m->objects[i].flags |= OBJECT_SHRUNK; /* the place waits for the leases as they are now */
    table_detach(m, i, extent, MC_STORE_REMOVED);
    nodes_dying(m, extent, until);
}

void leases_bad(store_master *m, uint64_t conn, uint64_t id, const struct wire_replica_bad *message)
{
    const uint32_t i = table_find(m, &message->key);
    uint32_t e = i != 0 && m->objects[i].state == OBJECT_COMMITTED ? m->objects[i].places : 0;

    for (; e != 0; e = m->space.extents[e].other) {
        struct extent *extent = &m->space.extents[e];
        if (m->nodes[extent->node].id == message->node && extent->generation == message->generation)
            break;
    }
    if (e != 0 && message->status == MC_E_PEER)
        m->nodes[m->space.extents[e].node].suspect_until = m->now + m->o.gone_ns;
    else if (e != 0)
        replica_drop(m, i, e);
    say_outcome(m, conn, id, MC_OK, NULL);
}
