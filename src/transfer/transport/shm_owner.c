/* shm_owner.c - regions of ours in the control page, and whether a peer is still touching them. */
#include "transfer/transport/shm.h"

#include <poll.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/random.h"

/* ---------------------------------------------------------------------------------------- pins */

static bool hung_up(const struct shm_session *session)
{
    struct pollfd pollfd = { .fd = session->fd, .events = POLLIN };

    return session->fd < 0 ||
           (poll(&pollfd, 1, 0) > 0 && pollfd.revents & (POLLHUP | POLLERR | POLLNVAL));
}

static bool names(uint64_t pin, uint32_t region, uint32_t window)
{
    if (window == SHM_NO_WINDOW)
        return pin >> 32 == region;
    return pin == shm_pin_word(region, window);
}

mc_status shm_pinned(struct shm *shm, uint32_t region, uint32_t window, uint64_t *blocker_p)
{
    for (uint32_t i = 0; i < shm->sessions_max; i++) {
        const struct shm_session *s = &shm->sessions[i];

        if (!s->used || !s->pins)
            continue;
        /* After the generation was cleared (shm_control.h). A pin that is gone means that the copy
         * under it is done, and seen here. */
        const uint64_t pin = atomic_load(&s->pins->pin);
        if (!names(pin, region, window) || shm_process_dead(&s->process, hung_up(s)))
            continue;
        *blocker_p = s->incarnation;
        return MC_PENDING;
    }
    return MC_OK;
}

/* ------------------------------------------------------------------------------------- regions */

/* Under the lock: room for `slot` in the table of regions. */
static mc_status regions_grow(struct shm *shm, uint32_t slot)
{
    uint32_t max = shm->regions_max ? shm->regions_max : 64;

    while (max <= slot)
        max *= 2;
    if (max == shm->regions_max)
        return MC_OK;
    struct shm_region **regions = alloc_resize(shm->alloc, shm->regions, max, sizeof(*regions));
    if (!regions)
        return MC_E_NOMEM;
    memset(regions + shm->regions_max, 0, (max - shm->regions_max) * sizeof(*regions));
    shm->regions = regions;
    shm->regions_max = max;
    return MC_OK;
}

static void set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

/* Under the lock. The generation goes last, with release: who sees it sees the rest. */
static void region_publish(struct shm *shm, const struct transport_region *range,
                           const struct shm_region *region)
{
    struct shm_region_slot *slot = &shm->page->regions[region->slot];

    set(&slot->address, (uint64_t)(uintptr_t)range->address);
    set(&slot->size, range->size);
    atomic_store_explicit(&slot->permissions, range->permissions, memory_order_relaxed);
    atomic_store_explicit(&slot->flags, region->fd >= 0 ? SHM_MAPPED : 0, memory_order_relaxed);
    atomic_store_explicit(&slot->generation, range->generation, memory_order_release);
}

static bool in_host_memory(const char *location)
{
    return !location || location[0] == '\0' || strncmp(location, "cpu", 3) == 0;
}

mc_status shm_region_open(void *transport, const struct transport_region *range, void *region,
                          uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p,
                          struct mc_error *error)
{
    struct shm *shm = transport;
    struct shm_region *r = region;
    const bool mapped = range->fd >= 0 && shm_memory_sealed(range->fd);

    *r = (struct shm_region){ .fd = -1 };
    if (range->id == 0 || range->id >= SHM_REGIONS || range->generation == 0 ||
        !in_host_memory(range->location) || (!mapped && !shm->attach)) {
        *key_size_p = 0; /* peers reach it by other transports */
        return MC_OK;
    }
    struct shm_region opened = { .slot = range->id,
                                 .fd = mapped ? range->fd : -1,
                                 .fd_offset = range->fd_offset,
                                 .size = range->size,
                                 .generation = range->generation,
                                 .ticket = os_random_u64(),
                                 .open = true };

    pthread_mutex_lock(&shm->lock);
    const mc_status status = regions_grow(shm, opened.slot);
    if (status == MC_OK) {
        assert(!shm->regions[opened.slot]); /* a slot comes again only once its region was quiet */
        *r = opened;
        shm->regions[r->slot] = r;
        region_publish(shm, range, r);
    }
    pthread_mutex_unlock(&shm->lock);
    if (status != MC_OK)
        return error_set(error, status, "shm: no memory for a table of %u regions", range->id);

    const struct shm_key k = {
        .region = r->slot, .window = SHM_NO_WINDOW, .generation = r->generation, .ticket = r->ticket
    };
    shm_key_encode(&k, key);
    *key_size_p = SHM_KEY_BYTES;
    return MC_OK;
}

void shm_region_close(void *transport, void *region)
{
    struct shm *shm = transport;
    struct shm_region *r = region;

    if (r->slot == 0)
        return;
    pthread_mutex_lock(&shm->lock);
    r->open = false;
    atomic_store_explicit(&shm->page->regions[r->slot].generation, 0, memory_order_seq_cst);
    pthread_mutex_unlock(&shm->lock);
}

mc_status shm_region_poll(void *transport, void *region, uint64_t *blocker_p)
{
    struct shm *shm = transport;
    struct shm_region *r = region;

    if (r->slot == 0)
        return MC_OK;
    assert(!r->open);
    pthread_mutex_lock(&shm->lock);
    const mc_status status = shm_pinned(shm, r->slot, SHM_NO_WINDOW, blocker_p);
    if (status == MC_OK) {
        shm->regions[r->slot] = NULL;
        r->slot = 0; /* asked again: still quiet */
    }
    pthread_mutex_unlock(&shm->lock);
    return status;
}
