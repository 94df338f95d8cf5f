/* table.c - objects by key and by last use; their replicas; who is evicted. */
#include <assert.h>
#include <string.h>

#include "store/core/master_state.h"

enum { EVICT_SCAN_MAX = 1024 }; /* objects looked at for one eviction */

static uint32_t bucket_of(const store_master *m, const struct mc_key *key)
{
    uint32_t hash;

    memcpy(&hash, key->bytes, sizeof(hash)); /* a key is a hash already */
    return hash & m->bucket_mask;
}

uint32_t table_find(const store_master *m, const struct mc_key *key)
{
    uint32_t i = m->buckets[bucket_of(m, key)];

    while (i != 0 && memcmp(&m->objects[i].key, key, sizeof(*key)) != 0)
        i = m->objects[i].chain;
    return i;
}

static void hash_in(store_master *m, uint32_t i)
{
    uint32_t *bucket = &m->buckets[bucket_of(m, &m->objects[i].key)];

    m->objects[i].chain = *bucket;
    *bucket = i;
}

static void hash_out(store_master *m, uint32_t i)
{
    uint32_t *p = &m->buckets[bucket_of(m, &m->objects[i].key)];

    while (*p != i)
        p = &m->objects[*p].chain;
    *p = m->objects[i].chain;
}

uint32_t table_add(store_master *m, const struct mc_key *key, uint64_t length,
                   enum object_state state)
{
    const uint32_t i = m->object_spare;

    if (i == 0)
        return 0;
    struct object *o = &m->objects[i];
    const uint32_t serial = o->serial + 1;
    m->object_spare = o->chain;
    *o =
        (struct object){ .key = *key, .length = length, .serial = serial, .state = (uint8_t)state };
    if (state != OBJECT_COPY)
        hash_in(m, i);
    m->object_count++;
    return i;
}

void table_free(store_master *m, uint32_t i)
{
    struct object *o = &m->objects[i];

    assert(o->places == 0);
    if (o->state != OBJECT_COPY)
        hash_out(m, i);
    if (o->state == OBJECT_COMMITTED) {
        *(o->older ? &m->objects[o->older].newer : &m->oldest) = o->newer;
        *(o->newer ? &m->objects[o->newer].older : &m->newest) = o->older;
    }
    *o = (struct object){ .serial = o->serial, .chain = m->object_spare };
    m->object_spare = i;
    m->object_count--;
}

void table_link_newest(store_master *m, uint32_t i)
{
    struct object *o = &m->objects[i];

    o->older = m->newest;
    o->newer = 0;
    *(m->newest ? &m->objects[m->newest].newer : &m->oldest) = i;
    m->newest = i;
}

void table_touch(store_master *m, uint32_t i)
{
    struct object *o = &m->objects[i];

    if (m->newest == i)
        return;
    *(o->older ? &m->objects[o->older].newer : &m->oldest) = o->newer;
    m->objects[o->newer].older = o->older;
    table_link_newest(m, i);
}

bool table_leased(const store_master *m, uint32_t i)
{
    const struct object *o = &m->objects[i];

    return o->leases > 0 || m->now < o->lease_until;
}

static uint32_t medium_of(const store_master *m, const struct extent *e)
{
    return m->space.lents[e->lent].medium;
}

void table_add_replica(store_master *m, uint32_t i, uint32_t extent)
{
    struct extent *e = &m->space.extents[extent];

    e->state = EXTENT_HELD;
    e->object = i;
    e->other = m->objects[i].places;
    m->objects[i].places = extent;
    m->replicas++;
    m->used += e->size;
    feed_add(m, MC_STORE_STORED, m->nodes[e->node].id, medium_of(m, e), &m->objects[i].key,
             m->objects[i].length);
}

uint32_t table_replicas(const store_master *m, uint32_t object)
{
    uint32_t count = 0;

    for (uint32_t e = m->objects[object].places; e != 0; e = m->space.extents[e].other)
        count++;
    return count;
}

bool table_has_replica(const store_master *m, uint32_t object, uint32_t node)
{
    for (uint32_t e = m->objects[object].places; e != 0; e = m->space.extents[e].other)
        if (m->space.extents[e].node == node)
            return true;
    return false;
}

/** Out of the object's list, with the sums kept. */
static void unlink_replica(store_master *m, uint32_t i, uint32_t extent)
{
    uint32_t *p = &m->objects[i].places;

    while (*p != extent)
        p = &m->space.extents[*p].other;
    *p = m->space.extents[extent].other;
    m->replicas--;
    m->used -= m->space.extents[extent].size;
}

static void tell_gone(store_master *m, uint32_t i, uint32_t extent, uint32_t kind)
{
    const struct extent *e = &m->space.extents[extent];

    if (kind != 0)
        feed_add(m, (enum mc_store_event_kind)kind, m->nodes[e->node].id, medium_of(m, e),
                 &m->objects[i].key, m->objects[i].length);
}

void table_detach(store_master *m, uint32_t i, uint32_t extent, uint32_t kind)
{
    tell_gone(m, i, extent, kind);
    unlink_replica(m, i, extent);
    if (m->objects[i].places == 0)
        table_free(m, i);
}

void table_drop(store_master *m, uint32_t i, uint32_t kind)
{
    const uint64_t until = table_leased(m, i) ? m->objects[i].lease_until : 0;
    uint32_t extent = m->objects[i].places;

    while (extent != 0) {
        const uint32_t other = m->space.extents[extent].other;
        tell_gone(m, i, extent, kind);
        unlink_replica(m, i, extent);
        nodes_dying(m, extent, until);
        extent = other;
    }
    table_free(m, i);
}

void table_evict(store_master *m, uint64_t bytes, uint64_t places)
{
    uint32_t i = m->oldest;
    uint64_t freed = 0, left = 0;

    for (int looked = 0; i != 0 && (freed < bytes || left < places) && looked < EVICT_SCAN_MAX;
         looked++) {
        const uint32_t newer = m->objects[i].newer;
        const struct object *o = &m->objects[i];
        if (m->now < o->pin_until) {
            table_touch(m, i); /* or the cold end fills with what may not go */
        } else if (!table_leased(m, i)) {
            const uint64_t before = m->used, replicas = m->replicas;
            table_drop(m, i, MC_STORE_EVICTED);
            m->total.evicted_objects++;
            m->total.evicted_bytes += before - m->used;
            freed += before - m->used;
            left += replicas - m->replicas;
        }
        i = newer;
    }
}

/** How much is lacking of what shall be free. What is dying is as good as free. */
static uint64_t lacking(const store_master *m, uint64_t all, uint64_t taken)
{
    const uint64_t wanted = all / 100 * m->o.free_percent + all % 100 * m->o.free_percent / 100;
    const uint64_t free = all > taken ? all - taken : 0;

    return free < wanted ? wanted - free : 0;
}

void table_keep_free(store_master *m)
{
    if (m->o.free_percent > 100)
        return;
    const uint64_t bytes = lacking(m, m->capacity, m->used + m->writing);
    const uint64_t at_nodes = lacking(m, m->places_max, m->space.taken - m->dying_places);
    /* An object may need two extents: its own, and the free piece behind it. */
    const uint64_t extents =
        lacking(m, m->space.extents_max, m->space.extents_max - m->space.spares - m->dying_places);
    const uint64_t objects = lacking(m, m->o.objects_max, m->object_count);
    uint64_t places = at_nodes > extents ? at_nodes : extents;

    places = places > objects ? places : objects;
    if (bytes > 0 || places > 0)
        table_evict(m, bytes, places);
}
