/* world_check.c - what must be true, always and in the end. Looks into the master, not through its eyes. */
#include <string.h>

#include "store/core/master_state.h"
#include "store/core/object.h"
#include "world.h"

/* -------------------------------------------------------------------------------------- places */

static bool node_has(const struct sim_node *node, uint64_t generation)
{
    struct store_node_figures figures;

    store_node_figures(node->core, &figures);
    for (uint32_t i = 0; i < figures.places; i++)
        if (store_node_place_at(node->core, i).generation == generation)
            /* What it dropped by itself the master need not know: the node will refuse. */
            return !store_node_place_at(node->core, i).resting;
    return false;
}

static bool lease_holds(const struct world *w, const struct sim_lease *l)
{
    return l->used && w->now < l->lease.until_ns && l->master_life == w->master.life;
}

/** Also not what was leased by a master before this one: readers know nothing of its end. */
static void check_unleased(struct world *w, uint64_t generation)
{
    for (const struct sim_lease *l = w->leases; l < w->leases + LEASES_MAX; l++)
        for (uint32_t i = 0; l->used && w->now < l->lease.until_ns && i < l->replica_count; i++)
            if (l->replicas[i].generation == generation)
                world_fail(w, "a leased place of key %u is given away", l->key);
}

/** A generation stands for one place of one life of one node. */
static void check_generation(struct world *w, const struct sim_node *node,
                             const struct wire_place *place)
{
    uint32_t i = (uint32_t)prng_mix(place->generation) % 4096;

    for (; w->places[i].generation != 0; i = (i + 1) % 4096)
        if (w->places[i].generation == place->generation) {
            if (w->places[i].node != node->actor.index || w->places[i].life != node->actor.life ||
                w->places[i].offset != place->offset)
                world_fail(w, "a generation was given to two places");
            return;
        }
    w->places[i].generation = place->generation;
    w->places[i].node = node->actor.index;
    w->places[i].life = node->actor.life;
    w->places[i].offset = place->offset;
}

static bool apart(const struct owner *o, const struct wire_place *place)
{
    return o->offset >= place->offset + place->size || place->offset >= o->offset + o->size;
}

void check_opened(struct world *w, struct sim_node *node, const struct wire_place *place)
{
    check_generation(w, node, place);
    for (uint32_t i = 0; i < node->owner_count; i++) {
        const struct owner *o = &node->owners[i];
        if (o->generation == place->generation || apart(o, place))
            continue;
        if (node_has(node, o->generation))
            world_fail(w, "%s: [%u, +%u) is given away before it is free", actor_name(&node->actor),
                       (unsigned)place->offset, (unsigned)place->size);
        check_unleased(w, o->generation);
    }
}

void check_granted(struct world *w, struct sim_node *node, const struct wire_place *place)
{
    uint32_t kept = 0;

    (void)w;
    for (uint32_t i = 0; i < node->owner_count; i++)
        if (node->owners[i].generation != place->generation && apart(&node->owners[i], place))
            node->owners[kept++] = node->owners[i];
    node->owner_count = kept;
    node->owners[node->owner_count++] =
        (struct owner){ place->offset, place->size, place->generation };
}

void check_write(struct world *w, struct sim_node *node, uint64_t offset, uint64_t size,
                 uint64_t generation)
{
    for (uint32_t i = 0; i < node->owner_count; i++) {
        const struct owner *o = &node->owners[i];
        if (o->generation == generation && offset >= o->offset &&
            offset + size <= o->offset + o->size)
            return;
    }
    world_fail(w, "%s: a late write to [%u, +%u)", actor_name(&node->actor), (unsigned)offset,
               (unsigned)size);
}

void check_whole(struct world *w, const struct sim_node *node, uint64_t offset,
                 const struct mc_object_header *header)
{
    uint8_t right[LENGTH_MAX + 8];
    const struct mc_key key = object_key(&header->identity);
    const uint32_t k = ops_key_of(&key);

    w->counts.held++;
    if (k == KEYS || header->length != w->lengths[k]) {
        world_fail(w, "%s takes for whole what nobody put", actor_name(&node->actor));
        return;
    }
    ops_content(w, k, right);
    if (memcmp(node->memory + offset + sizeof(*header), right, header->length) != 0)
        world_fail(w, "%s takes for whole an object that is not", actor_name(&node->actor));
}

void check_held(struct world *w, struct sim_node *node, const struct wire_node_held *message)
{
    struct wire_list list = message->objects;
    struct wire_held held;

    while (wire_held_next(&list, &held))
        for (uint32_t i = 0; i < node->window_count; i++)
            if (node->windows[i].open && node->windows[i].offset == held.offset)
                world_fail(w, "%s tells of a place that may be written", actor_name(&node->actor));
}

/** The end of the token's lease: so long the answer stays the same. */
static uint64_t token_until(const store_master *m, const struct mc_key *token)
{
    for (uint32_t i = 1; i <= m->o.tokens_max; i++)
        if (memcmp(m->tokens[i].id, token, sizeof(*token)) == 0)
            return m->tokens[i].until;
    return 0;
}

void check_committed(struct world *w, const struct wire_outcomes *outcomes)
{
    struct wire_list list = w->commit->items;
    struct wire_put_end end;

    for (uint32_t n = 0; wire_put_end_next(&list, &end); n++) {
        const bool ok = wire_u32_at(&outcomes->statuses, n) == MC_OK;
        bool known = false;
        for (uint32_t i = 0; i < w->committed_count && i < 256; i++)
            if (memcmp(&w->committed[i].token, &end.token, sizeof(end.token)) == 0 &&
                w->committed[i].master_life == w->master.life) {
                known = true;
                if (!ok && w->now < w->committed[i].until)
                    world_fail(w, "a commit that is asked again gets another answer");
            }
        if (known || !ok)
            continue;
        w->committed[w->committed_count++ % 256].token = end.token;
        w->committed[(w->committed_count - 1) % 256].master_life = w->master.life;
        w->committed[(w->committed_count - 1) % 256].until =
            token_until(w->master_core, &end.token);
    }
}

/* -------------------------------------------------------------------------------------- events */

static struct sim_lease *leased(struct world *w, uint32_t key)
{
    for (struct sim_lease *l = w->leases; l < w->leases + LEASES_MAX; l++)
        if (lease_holds(w, l) && l->key == key && !l->removed)
            return l;
    return NULL;
}

bool check_holds(const struct world *w, uint64_t generation)
{
    const store_master *m = w->master_core;

    for (uint32_t e = 1; actor_runs(&w->master) && e <= m->space.extents_max; e++)
        if (m->space.extents[e].state == EXTENT_HELD &&
            m->space.extents[e].generation == generation)
            return true;
    return false;
}

/** What the master did in this step, as its own log says. */
void check_master(struct world *w)
{
    const store_master *m = w->master_core;

    for (; w->feed_seen < m->sequence; w->feed_seen++) {
        const uint64_t s = w->feed_seen + 1;
        if (s < m->feed_first)
            continue;
        const struct feed_event *e = &m->feed[s % m->o.events_max];
        const uint32_t key = ops_key_of(&e->key);
        struct sim_lease *l = key < KEYS ? leased(w, key) : NULL;
        world_trace(w, "event %u: kind %u, key %u at node %llx", (unsigned)s, e->kind, key,
                    (unsigned long long)e->node);
        if (e->kind == MC_STORE_EVICTED)
            w->counts.evicted++;
        if (e->kind == MC_STORE_EVICTED && l)
            world_fail(w, "key %u is evicted while client%u has lease %llx until %.3f ms", key,
                       l->client, (unsigned long long)l->lease.id, (double)l->lease.until_ns / 1e6);
        for (; e->kind == MC_STORE_REMOVED && l; l = leased(w, key))
            l->removed = true;
        for (l = w->leases; e->kind == MC_STORE_NODE_DOWN && l < w->leases + LEASES_MAX; l++)
            for (uint32_t i = 0; i < l->replica_count; i++)
                l->removed = l->removed || l->replicas[i].node == e->node;
    }
}

static void index_drop_node(struct sim_index *index, uint64_t node)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < index->count; i++)
        if (index->entries[i].node != node)
            index->entries[kept++] = index->entries[i];
    index->count = kept;
    for (uint32_t i = 0; i < index->node_count; i++)
        if (index->nodes[i] == node) {
            index->nodes[i] = index->nodes[--index->node_count];
            return;
        }
}

static uint32_t index_find(const struct sim_index *index, uint64_t node, uint32_t key)
{
    uint32_t i = 0;

    while (i < index->count && (index->entries[i].node != node || index->entries[i].key != key))
        i++;
    return i;
}

static void apply(struct world *w, struct sim_index *index, const struct wire_store_event *e)
{
    const uint32_t key = ops_key_of(&e->key);
    const uint32_t at = index_find(index, e->node, key);

    switch (e->kind) {
    case MC_STORE_STORED:
        if (at == index->count && index->count < 64)
            index->entries[index->count++] = (struct index_entry){ e->node, key };
        break;
    case MC_STORE_EVICTED:
    case MC_STORE_REMOVED:
        if (at < index->count)
            index->entries[at] = index->entries[--index->count];
        break;
    case MC_STORE_NODE_UP:
        index_drop_node(index, e->node);
        if (index->node_count < 32)
            index->nodes[index->node_count++] = e->node;
        break;
    case MC_STORE_NODE_DOWN:
        index_drop_node(index, e->node);
        break;
    default:
        world_fail(w, "an event of kind %u", e->kind);
    }
}

void check_events(struct world *w, struct sim_client *client, const struct wire_events *events)
{
    struct sim_index *index = &client->index;
    struct wire_list list = events->items;
    struct wire_store_event e;

    if (!index->whole || index->epoch != events->epoch || events->items.count == 0 ||
        events->sequence != index->sequence + 1) {
        world_fail(w, "%s: events from %u on do not follow %u", actor_name(&client->actor),
                   (unsigned)events->sequence, (unsigned)index->sequence);
        return;
    }
    while (wire_store_event_next(&list, &e)) {
        index->sequence++;
        apply(w, index, &e);
    }
}

void check_snapshot(struct world *w, struct sim_client *client,
                    const struct wire_events_snapshot *snapshot)
{
    struct sim_index *index = &client->index;
    struct wire_list list = snapshot->items;
    struct wire_store_event e;

    if (snapshot->part == 0)
        *index = (struct sim_index){ .epoch = snapshot->epoch, .sequence = snapshot->sequence };
    while (wire_store_event_next(&list, &e)) {
        if (e.kind == MC_STORE_NODE_UP && index->node_count < 32)
            index->nodes[index->node_count++] = e.node;
        else
            apply(w, index, &e);
    }
    index->whole = snapshot->last;
}

/* ---------------------------------------------------------------------------------- in the end */

static void check_space(struct world *w)
{
    const store_master *m = w->master_core;
    uint64_t free_bytes = 0, used = 0, replicas = 0, lent = 0;

    for (uint32_t l = 0; l < m->space.lents_max; l++) {
        if (!m->space.lents[l].used)
            continue;
        uint64_t at = 0;
        lent += m->space.lents[l].size;
        for (uint32_t e = m->space.lents[l].first; e != 0; e = m->space.extents[e].after) {
            const struct extent *x = &m->space.extents[e];
            if (x->offset != at)
                world_fail(w, "extents have a gap at %u", (unsigned)at);
            at += x->size;
            free_bytes += x->state == EXTENT_FREE ? x->size : 0;
            used += x->state == EXTENT_HELD ? x->size : 0;
            replicas += x->state == EXTENT_HELD;
        }
        if (at != m->space.lents[l].size)
            world_fail(w, "extents end at %u", (unsigned)at);
    }
    if (free_bytes + used != lent || used != m->used || replicas != m->replicas ||
        lent != m->capacity)
        world_fail(w, "places leaked: %u free, %u used (%u said), %u lent", (unsigned)free_bytes,
                   (unsigned)used, (unsigned)m->used, (unsigned)lent);
}

static void check_figures(struct world *w)
{
    struct store_master_figures f;

    store_master_figures(w->master_core, &f);
    if (f.tokens != 0 || f.leases != 0 || f.lease_items != 0 || f.requests != 0)
        world_fail(w, "left behind: %u tokens, %u leases, %u lease items, %u requests",
                   (unsigned)f.tokens, (unsigned)f.leases, (unsigned)f.lease_items,
                   (unsigned)f.requests);
    if (f.dying_bytes != 0 || w->master_core->writing != 0)
        world_fail(w, "left behind: %u bytes dying, %u being written", (unsigned)f.dying_bytes,
                   (unsigned)w->master_core->writing);
    if (f.nodes != w->node_count)
        world_fail(w, "%u nodes are known", (unsigned)f.nodes);
}

static uint64_t replicas_on(const store_master *m, uint64_t node)
{
    uint64_t count = 0;

    for (uint32_t e = 1; e <= m->space.extents_max; e++)
        count += m->space.extents[e].state == EXTENT_HELD &&
                 m->nodes[m->space.extents[e].node].id == node;
    return count;
}

static void check_node(struct world *w, const struct sim_node *node)
{
    struct store_node_figures f;

    store_node_figures(node->core, &f);
    if (!f.ready || f.windows != 0 || f.quarantined_bytes != 0)
        world_fail(w, "%s: ready %d, %u windows, %u bytes in quarantine", actor_name(&node->actor),
                   f.ready, (unsigned)f.windows, (unsigned)f.quarantined_bytes);
    if (f.places != replicas_on(w->master_core, f.id))
        world_fail(w, "%s holds %u places, the master knows of %u", actor_name(&node->actor),
                   (unsigned)f.places, (unsigned)replicas_on(w->master_core, f.id));
    for (uint32_t i = 0; i < node->window_count; i++)
        if (node->windows[i].open || node->windows[i].pins != 0)
            world_fail(w, "%s has a window left", actor_name(&node->actor));
}

static void check_index(struct world *w, const struct sim_client *client)
{
    const store_master *m = w->master_core;
    const struct sim_index *index = &client->index;
    uint32_t replicas = 0;

    for (uint32_t e = 1; e <= m->space.extents_max; e++) {
        const struct extent *x = &m->space.extents[e];
        if (x->state != EXTENT_HELD)
            continue;
        replicas++;
        if (index_find(index, m->nodes[x->node].id, ops_key_of(&m->objects[x->object].key)) ==
            index->count)
            world_fail(w, "%s was not told of a replica", actor_name(&client->actor));
    }
    if (!index->whole || index->epoch != m->o.epoch || index->sequence != m->sequence ||
        index->count != replicas || index->node_count != w->node_count)
        world_fail(w, "%s knows %u replicas on %u nodes by its events; there are %u on %u",
                   actor_name(&client->actor), index->count, index->node_count, replicas,
                   w->node_count);
}

void check_end(struct world *w)
{
    if (!ops_idle(w))
        world_fail(w, "a request never became final");
    check_space(w);
    check_figures(w);
    for (uint32_t n = 0; n < w->node_count; n++)
        check_node(w, &w->nodes[n]);
    for (uint32_t c = 0; c < w->client_count; c++)
        check_index(w, &w->clients[c]);
}
