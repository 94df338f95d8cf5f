/* region.c - registered ranges: slots, generations, what transports were told, and closing them. */
#include "transfer/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"
#include "os/random.h"

enum { LOCATION_DEFAULT_MAX = 64 };

struct region *region_find(const mc_transfer *engine, const struct mc_region *handle)
{
    if (handle->id == 0 || handle->id > engine->regions_max)
        return NULL;
    struct region *region = engine->registry.slots[handle->id - 1].region;
    return region && region->handle.generation == handle->generation ? region : NULL;
}

/* ------------------------------------------------------------------------------------ the index */

static int by_address(const void *a, const void *b)
{
    const struct region *x = *(struct region *const *)a, *y = *(struct region *const *)b;

    if (x->address != y->address)
        return (uintptr_t)x->address < (uintptr_t)y->address ? -1 : 1;
    return x->handle.id < y->handle.id ? -1 : x->handle.id > y->handle.id;
}

/* Under registry.lock. */
static void index_rebuild(mc_transfer *engine)
{
    struct registry *registry = &engine->registry;
    uint64_t end = 0;

    registry->sorted_count = 0;
    for (uint32_t i = 0; i < engine->regions_max; i++) {
        struct region *region = registry->slots[i].region;
        if (region && !region->closing)
            registry->sorted[registry->sorted_count++] = region;
    }
    qsort(registry->sorted, registry->sorted_count, sizeof(struct region *), by_address);
    for (uint32_t i = 0; i < registry->sorted_count; i++) {
        const struct region *region = registry->sorted[i];
        const uint64_t its_end = (uintptr_t)region->address + region->size;
        end = its_end > end ? its_end : end;
        registry->ends[i] = end;
    }
}

/* ---------------------------------------------------------------------------------- registering */

static mc_status check_options(const mc_transfer *engine, const struct mc_region_options *o,
                               struct mc_error *error)
{
    if (o->reserved[0] | o->reserved[1] | o->reserved[2] | o->reserved[3])
        return error_set(error, MC_E_UNSUPPORTED, "region: a reserved field is set (%s)",
                         mc_version());
    if (!o->address || o->size == 0 || o->size > UINTPTR_MAX - (uintptr_t)o->address)
        return error_set(error, MC_E_ARG, "region: %llu bytes at %p cannot be",
                         (unsigned long long)o->size, o->address);
    if (o->permissions & ~(uint32_t)(MC_REMOTE_READ | MC_REMOTE_WRITE))
        return error_set(error, MC_E_ARG, "region: unknown permission in 0x%x", o->permissions);
    if (o->flags & ~(uint32_t)(MC_REGION_PRIVATE | MC_REGION_READONLY))
        return error_set(error, MC_E_ARG, "region: unknown flag in 0x%x", o->flags);
    if ((o->flags & MC_REGION_READONLY) && (o->permissions & MC_REMOTE_WRITE))
        return error_set(error, MC_E_ARG, "region: read-only memory that peers may write");
    if (o->tag && strlen(o->tag) > 63)
        return error_set(error, MC_E_ARG, "region: the tag is longer than 63 bytes");
    if (o->location &&
        (strlen(o->location) >= LOCATION_DEFAULT_MAX || strncmp(o->location, "cpu:", 4) != 0 ||
         !o->location[4] || strspn(o->location + 4, "0123456789") != strlen(o->location + 4)))
        return error_set(error, MC_E_ARG,
                         "region: location \"%s\" is not cpu:N, and no transport "
                         "here takes device memory",
                         o->location);
    (void)engine;
    return MC_OK;
}

static void region_free(mc_transfer *engine, struct region *region)
{
    if (!region)
        return;
    alloc_free(engine->alloc, region->keys);
    alloc_free(engine->alloc, region->private);
    alloc_free(engine->alloc, region->block);
    alloc_free(engine->alloc, region);
}

/* Memory for a region with room for what each transport keeps of it. NULL: out of memory. */
static struct region *region_new(mc_transfer *engine, const struct mc_region_options *o)
{
    struct region *region = alloc_zeroed(engine->alloc, 1, sizeof(*region));
    size_t bytes = 0;

    if (!region)
        return NULL;
    region->keys = alloc_zeroed(engine->alloc, engine->carrier_count, sizeof(*region->keys));
    region->private = alloc_zeroed(engine->alloc, engine->carrier_count, sizeof(void *));
    for (uint32_t i = 0; i < engine->carrier_count; i++)
        bytes += (engine->carriers[i].ops->region_bytes + 63) / 64 * 64;
    char *private = alloc_aligned(engine->alloc, bytes, &region->block);
    if (!region->keys || !region->private || !private) {
        region_free(engine, region);
        return NULL;
    }
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        region->private[i] = private;
        private += (engine->carriers[i].ops->region_bytes + 63) / 64 * 64;
    }
    region->address = o->address;
    region->size = o->size;
    region->permissions = o->permissions;
    region->flags = o->flags;
    memcpy(region->tag, o->tag ? o->tag : "", o->tag ? strlen(o->tag) : 0);
    const char *location = o->location ? o->location : "cpu:0";
    memcpy(region->location, location, strlen(location));
    return region;
}

/* A free slot, the longest free first so that a stale handle meets a free one for long. */
static uint32_t slot_take(mc_transfer *engine)
{
    struct registry *registry = &engine->registry;

    for (uint32_t i = 0; i < engine->regions_max; i++) {
        const uint32_t slot = (registry->slot_next + i) % engine->regions_max;
        if (!registry->slots[slot].region) {
            registry->slot_next = (slot + 1) % engine->regions_max;
            return slot;
        }
    }
    assert(false && "there is a free slot: it was counted");
    return 0;
}

static void tell_close(mc_transfer *engine, struct region *region)
{
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        if (region->keys[i].opened)
            engine->carriers[i].ops->region_close(engine->carriers[i].state, region->private[i]);
    }
}

/* A transport that cannot reach such memory says so and is passed over; another one will. */
static mc_status tell_open(mc_transfer *engine, struct region *region, struct mc_error *error)
{
    const struct memory_block *block =
        memory_find(&engine->registry, region->address, region->size);
    const struct transport_region range = {
        .address = region->address,
        .size = region->size,
        .generation = region->handle.generation,
        .id = region->handle.id,
        .permissions = region->permissions,
        .fd = block ? block->shared.fd : -1,
        .fd_offset = block ? (uint64_t)(region->address - (char *)block->shared.address) : 0,
        .location = region->location,
    };

    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        const struct carrier *carrier = &engine->carriers[i];
        size_t key_size = 0;
        if (!carrier->ops->region_open)
            continue;
        const mc_status status = carrier->ops->region_open(
            carrier->state, &range, region->private[i], region -> keys[i].bytes, &key_size, error);
        if (status == MC_E_UNSUPPORTED)
            continue;
        if (status != MC_OK) {
            tell_close(engine, region);
            return status;
        }
        assert(key_size <= TRANSPORT_KEY_MAX);
        region->keys[i].size = (uint32_t)key_size;
        region->keys[i].opened = true;
    }
    return MC_OK;
}

static mc_status register_one(mc_transfer *engine, const struct mc_region_options *o,
                              struct mc_region *handle_p, struct mc_error *error)
{
    struct registry *registry = &engine->registry;
    struct region *region = region_new(engine, o);

    if (!region)
        return error_set(error, MC_E_NOMEM, "out of memory for a region");
    const uint32_t slot = slot_take(engine);
    struct region_slot *place = &registry->slots[slot];
    region->handle = (struct mc_region){ .id = slot + 1, .generation = place->generation + 1 };
    place->generation++; /* also if it fails: the pair never comes back */
    const mc_status status = tell_open(engine, region, error);
    if (status != MC_OK) {
        region_free(engine, region);
        return status;
    }
    pthread_mutex_lock(&registry->lock);
    place->region = region;
    pthread_mutex_unlock(&registry->lock);
    registry->region_count++;
    registry->published += !(region->flags & MC_REGION_PRIVATE);
    registry->registered_bytes += region->size;
    *handle_p = region->handle;
    return MC_OK;
}

/* Under admin; it is quiet. */
static void forget(mc_transfer *engine, struct region *region)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    registry->slots[region->handle.id - 1].region = NULL;
    pthread_mutex_unlock(&registry->lock);
    registry->region_count--;
    registry->registered_bytes -= region->size;
    if (region->quarantined)
        registry->quarantined_bytes -= region->size;
    region_free(engine, region);
}

/* Under admin. Refuse from now on. */
static void shut(mc_transfer *engine, struct region *region)
{
    struct registry *registry = &engine->registry;

    if (region->closing)
        return;
    pthread_mutex_lock(&registry->lock);
    region->closing = true;
    index_rebuild(engine);
    pthread_mutex_unlock(&registry->lock);
    for (struct window *window = registry->windows; window; window = window->next) {
        if (window->region == region)
            window_shut(engine, window);
    }
    tell_close(engine, region);
    registry->published -= !(region->flags & MC_REGION_PRIVATE);
    registry->version++;
}

bool region_is_quiet(mc_transfer *engine, struct region *region, uint64_t *blocker_p)
{
    struct registry *registry = &engine->registry;
    struct window *next;

    for (struct window *window = registry->windows; window; window = next) {
        next = window->next;
        if (window->region == region && window_is_quiet(engine, window, blocker_p))
            window_free(engine, window);
    }
    pthread_mutex_lock(&registry->lock);
    bool quiet = region->pins == 0 && region->uses == 0;
    pthread_mutex_unlock(&registry->lock);
    quiet = quiet && region->windows == 0;
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        uint64_t blocker = 0;
        if (!region->keys[i].opened)
            continue;
        if (engine->carriers[i].ops->region_poll(engine->carriers[i].state, region->private[i],
                                                 &blocker) == MC_OK) {
            region->keys[i].opened = false; /* said once, it is not asked again */
            continue;
        }
        *blocker_p = blocker ? blocker : *blocker_p;
        quiet = false;
    }
    return quiet;
}

mc_status mc_region_register(mc_transfer *engine, const struct mc_region_options *options,
                             size_t count, struct mc_region *regions_p, struct mc_error *error)
{
    struct registry *registry = &engine->registry;
    mc_status status = MC_OK;
    size_t published = 0, done = 0;

    for (size_t i = 0; i < count; i++) {
        status = check_options(engine, &options[i], error);
        if (status != MC_OK)
            return status;
        published += !(options[i].flags & MC_REGION_PRIVATE);
    }
    pthread_mutex_lock(&registry->admin);
    if (count > engine->regions_max - registry->region_count)
        status = error_set(error, MC_E_FULL, "%zu regions more than regions_max (%u) allows", count,
                           engine->regions_max);
    else if (published > (size_t)PUBLISHED_MAX - registry->published)
        status = error_set(error, MC_E_FULL,
                           "%zu more published regions than a descriptor holds (%d); register them "
                           "as private and lend windows",
                           published, PUBLISHED_MAX);
    while (status == MC_OK && done < count) {
        status = register_one(engine, &options[done], &regions_p[done], error);
        done += status == MC_OK;
    }
    if (status != MC_OK) { /* nobody heard of them yet: they are quiet once their transports are */
        for (size_t i = 0; i < done; i++) {
            struct region *region = region_find(engine, &regions_p[i]);
            uint64_t blocker = 0;
            shut(engine, region);
            while (!region_is_quiet(engine, region, &blocker))
                os_yield();
            forget(engine, region);
        }
    } else if (count > 0) {
        pthread_mutex_lock(&registry->lock);
        index_rebuild(engine);
        pthread_mutex_unlock(&registry->lock);
        registry->version++;
    }
    pthread_mutex_unlock(&registry->admin);
    if (status != MC_OK)
        memset(regions_p, 0, done * sizeof(*regions_p));
    return status;
}

/* -------------------------------------------------------------------------------- unregistering */

static bool listed_twice(const struct mc_region *regions, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (regions[i].id == regions[k].id)
                return true;
        }
    }
    return false;
}

/* All of them quiet? Then they are forgotten together, so that a call that is made again after a
 * timeout finds all or none. Under admin. */
static bool all_quiet(mc_transfer *engine, const struct mc_region *regions, size_t count,
                      uint64_t *blocker_p)
{
    bool quiet = true;

    for (size_t i = 0; i < count; i++) {
        struct region *region = region_find(engine, &regions[i]);
        if (region && !region_is_quiet(engine, region, blocker_p))
            quiet = false;
    }
    for (size_t i = 0; quiet && i < count; i++) {
        struct region *region = region_find(engine, &regions[i]);
        if (region)
            forget(engine, region);
    }
    return quiet;
}

static mc_status gave_up(mc_transfer *engine, const struct mc_region *regions, size_t count,
                         uint64_t blocker, struct mc_error *error)
{
    struct registry *registry = &engine->registry;

    for (size_t i = 0; i < count; i++) {
        struct region *region = region_find(engine, &regions[i]);
        if (region && !region->quarantined) {
            region->quarantined = true;
            registry->quarantined_bytes += region->size;
            engine_log(engine, MC_LOG_WARN,
                       "event=region_quarantined region=%u bytes=%llu blocker=%016llx",
                       region->handle.id, (unsigned long long)region->size,
                       (unsigned long long)blocker);
        }
    }
    return error_set(error, MC_E_TIMEOUT,
                     "memory is still held by peer %016llx; leave it mapped and unregister again",
                     (unsigned long long)blocker);
}

mc_status mc_region_unregister(mc_transfer *engine, const struct mc_region *regions, size_t count,
                               uint64_t deadline_ns, struct mc_error *error)
{
    struct registry *registry = &engine->registry;
    const uint64_t until_ns = deadline_of(deadline_ns);
    uint64_t blocker = 0;

    if (listed_twice(regions, count))
        return error_set(error, MC_E_ARG, "a region is listed twice");
    pthread_mutex_lock(&registry->admin);
    for (size_t i = 0; i < count; i++) {
        if (!region_find(engine, &regions[i])) {
            pthread_mutex_unlock(&registry->admin);
            return error_set(error, MC_E_STALE, "region %u is not registered", regions[i].id);
        }
    }
    for (size_t i = 0; i < count; i++)
        shut(engine, region_find(engine, &regions[i]));
    for (;;) {
        const uint32_t seen = atomic_load(&registry->quiet);
        mc_status status = all_quiet(engine, regions, count, &blocker) ? MC_OK : MC_PENDING;
        if (status == MC_PENDING && os_now_ns() >= until_ns)
            status = gave_up(engine, regions, count, blocker, error);
        pthread_mutex_unlock(&registry->admin);
        if (status != MC_PENDING)
            return status;
        engine_pause(engine, &registry->quiet, seen, until_ns);
        pthread_mutex_lock(&registry->admin);
    }
}

mc_status own_region(mc_transfer *engine, uint32_t index, struct mc_segment_region *region_p)
{
    struct registry *registry = &engine->registry;
    mc_status status = MC_E_NOT_FOUND;

    pthread_mutex_lock(&registry->admin);
    for (uint32_t i = 0; i < engine->regions_max && status != MC_OK; i++) {
        const struct region *region = registry->slots[i].region;
        if (!region || region->closing || (region->flags & MC_REGION_PRIVATE) || index-- > 0)
            continue;
        *region_p = (struct mc_segment_region){
            .region = region->handle,
            .address = (uintptr_t)region->address,
            .size = region->size,
            .permissions = region->permissions,
        };
        memcpy(region_p->tag, region->tag, sizeof(region->tag));
        memcpy(region_p->location, region->location, sizeof(region->location));
        status = MC_OK;
    }
    pthread_mutex_unlock(&registry->admin);
    return status;
}

/* --------------------------------------------------------------------------------- the registry */

mc_status registry_init(mc_transfer *engine)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_init(&registry->admin, NULL);
    pthread_mutex_init(&registry->lock, NULL);
    registry->bucket_count = 64;
    while (registry->bucket_count < engine->windows_max && registry->bucket_count < 16384)
        registry->bucket_count *= 2;
    registry->slots = alloc_zeroed(engine->alloc, engine->regions_max, sizeof(struct region_slot));
    registry->sorted = alloc_zeroed(engine->alloc, engine->regions_max, sizeof(struct region *));
    registry->ends = alloc_zeroed(engine->alloc, engine->regions_max, sizeof(uint64_t));
    registry->buckets =
        alloc_zeroed(engine->alloc, registry->bucket_count, sizeof(struct window *));
    if (!registry->slots || !registry->sorted || !registry->ends || !registry->buckets)
        return MC_E_NOMEM;
    /* Random starts: what another life of this engine gave out is refused by one compare. Below 2^62,
     * so that they never wrap. */
    for (uint32_t i = 0; i < engine->regions_max; i++)
        registry->slots[i].generation = os_random_u64() >> 2;
    registry->window_first = registry->window_next = (os_random_u64() >> 2) + 1;
    registry->version = (os_random_u64() >> 2) + 1;
    return MC_OK;
}

void registry_fini(mc_transfer *engine, uint64_t deadline_ns)
{
    struct registry *registry = &engine->registry;

    for (uint32_t i = 0; registry->slots && i < engine->regions_max; i++) {
        const struct region *region = registry->slots[i].region;
        if (!region)
            continue;
        const struct mc_region handle = region->handle;
        if (mc_region_unregister(engine, &handle, 1, deadline_ns, NULL) != MC_OK)
            engine_log(engine, MC_LOG_ERROR, "event=region_abandoned region=%u", handle.id);
    }
}

void registry_free(mc_transfer *engine)
{
    struct registry *registry = &engine->registry;

    for (uint32_t i = 0; registry->slots && i < engine->regions_max; i++)
        region_free(engine, registry->slots[i].region); /* only what was abandoned */
    while (registry->windows)
        window_free(engine, registry->windows);
    alloc_free(engine->alloc, registry->slots);
    alloc_free(engine->alloc, registry->sorted);
    alloc_free(engine->alloc, registry->ends);
    alloc_free(engine->alloc, registry->buckets);
    pthread_mutex_destroy(&registry->admin);
    pthread_mutex_destroy(&registry->lock);
}
