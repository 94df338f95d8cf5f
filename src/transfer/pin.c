/* pin.c - the one place where accesses to this engine's memory are checked and counted. */
#include "transfer/engine.h"

#include <assert.h>

#include "os/clock.h"

/* A pin is the address of what it holds; windows are told from regions by bit 0. */
enum { PIN_WINDOW = 1 };

static uint32_t permission_of(enum mc_op op)
{
    return op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;
}

static mc_status pin_region(mc_transfer *engine, const struct transport_access *access,
                            void **address_p, uint64_t *pin_p)
{
    const struct mc_region handle = { .id = access->region, .generation = access->generation };
    struct region *region = region_find(engine, &handle);

    if (!region || region->closing)
        return MC_E_STALE;
    if (!(region->permissions & permission_of(access->op)) || (region->flags & MC_REGION_PRIVATE))
        return MC_E_DENIED;
    if (access->offset > region->size || access->length > region->size - access->offset)
        return MC_E_RANGE;
    region->pins++;
    *address_p = region->address + access->offset;
    *pin_p = (uintptr_t)region;
    return MC_OK;
}

/* A key that nobody was ever given is forged; one with a generation of this life was revoked. */
static mc_status unknown_key(const struct registry *registry, uint64_t generation)
{
    return generation >= registry->window_first && generation < registry->window_next ? MC_E_STALE
                                                                                      : MC_E_DENIED;
}

static mc_status check_key(mc_transfer *engine, const struct transport_access *access,
                           struct window **window_p)
{
    struct window *window = window_find(&engine->registry, access->key);

    if (!window)
        return unknown_key(&engine->registry, access->generation);
    if (window->grant.generation != access->generation || window->closing ||
        window->region->closing || os_now_ns() >= window->expires_ns)
        return MC_E_STALE;
    if (window->holder != 0 && window->holder != access->peer)
        return MC_E_DENIED;
    *window_p = window;
    return MC_OK;
}

static mc_status pin_window(mc_transfer *engine, const struct transport_access *access,
                            void **address_p, uint64_t *pin_p)
{
    struct window *window = NULL;
    const mc_status status = check_key(engine, access, &window);

    if (status != MC_OK)
        return status;
    if (!(window->grant.permissions & permission_of(access->op)))
        return MC_E_DENIED;
    if (access->offset > window->grant.size || access->length > window->grant.size - access->offset)
        return MC_E_RANGE;
    uint64_t at = access->offset;
    if (window->offsets) {
        const uint64_t piece_bytes = window->grant.piece_bytes, inside = at % piece_bytes;
        if (access->length > piece_bytes - inside)
            return MC_E_RANGE;
        /* An empty access at the very end names no piece. */
        at = at < window->grant.size ? window->offsets[at / piece_bytes] + inside : 0;
    }
    window->pins++;
    *address_p = window->region->address + at;
    *pin_p = (uintptr_t)window | PIN_WINDOW;
    return MC_OK;
}

mc_status pin_check(mc_transfer *engine, const struct transport_access *access,
                    const struct window **window_p)
{
    struct window *window = NULL;

    pthread_mutex_lock(&engine->registry.lock);
    const mc_status status = check_key(engine, access, &window);
    pthread_mutex_unlock(&engine->registry.lock);
    *window_p = window;
    return status;
}

mc_status pin_take(mc_transfer *engine, const struct transport_access *access, void **address_p,
                   uint64_t *pin_p)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    const mc_status status = access->key[0] | access->key[1]
                                 ? pin_window(engine, access, address_p, pin_p)
                                 : pin_region(engine, access, address_p, pin_p);
    pthread_mutex_unlock(&registry->lock);
    return status;
}

static void say_quiet(struct registry *registry)
{
    atomic_fetch_add(&registry->quiet, 1);
    os_wake_all(&registry->quiet);
}

void pin_drop(mc_transfer *engine, uint64_t pin)
{
    struct registry *registry = &engine->registry;
    bool last;

    pthread_mutex_lock(&registry->lock);
    if (pin & PIN_WINDOW) {
        struct window *window = (struct window *)(uintptr_t)(pin & ~(uint64_t)PIN_WINDOW);
        assert(window->pins > 0);
        last = --window->pins == 0 && (window->closing || window->region->closing);
    } else {
        struct region *region = (struct region *)(uintptr_t)pin;
        assert(region->pins > 0);
        last = --region->pins == 0 && region->closing;
    }
    pthread_mutex_unlock(&registry->lock);
    if (last)
        say_quiet(registry);
}

mc_status pin_of_carrier(void *carrier_p, const struct transport_access *access, void **address_p,
                         uint64_t *pin_p)
{
    struct carrier *carrier = carrier_p;
    const mc_status status = pin_take(carrier->engine, access, address_p, pin_p);

    if (status != MC_OK)
        count_add(&carrier->counts, COUNT_refused, 1);
    return status;
}

void moved_by_carrier(void *carrier_p, enum mc_op op, uint64_t bytes)
{
    struct carrier *carrier = carrier_p;

    count_add(&carrier->counts, op == MC_READ ? COUNT_served_read_bytes : COUNT_served_write_bytes,
              bytes);
}

void unpin_of_carrier(void *carrier_p, uint64_t pin)
{
    pin_drop(((struct carrier *)carrier_p)->engine, pin);
}

/* Ranges may overlap, so the last one that begins before the address need not be the one: walk back as
 * long as one before it may reach far enough. */
static struct region *holding(const struct registry *registry, uint64_t address, uint64_t size,
                              uint32_t without)
{
    uint32_t low = 0, high = registry->sorted_count;

    if (size > UINT64_MAX - address)
        return NULL;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if ((uintptr_t)registry->sorted[middle]->address <= address)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low > 0 && registry->ends[low - 1] >= address + size; low--) {
        struct region *region = registry->sorted[low - 1];
        if ((uintptr_t)region->address + region->size >= address + size &&
            !(region->flags & without))
            return region;
    }
    return NULL;
}

struct region *use_take(mc_transfer *engine, const void *address, uint64_t size, bool write)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    struct region *region =
        holding(registry, (uintptr_t)address, size, write ? MC_REGION_READONLY : 0);
    if (region)
        region->uses++;
    pthread_mutex_unlock(&registry->lock);
    return region;
}

void use_drop(mc_transfer *engine, struct region *region)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    assert(region->uses > 0);
    const bool last = --region->uses == 0 && region->closing;
    pthread_mutex_unlock(&registry->lock);
    if (last)
        say_quiet(registry);
}

bool use_allowed(mc_transfer *engine, const void *address, uint64_t size, bool write)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    const bool found =
        holding(registry, (uintptr_t)address, size, write ? MC_REGION_READONLY : 0) != NULL;
    pthread_mutex_unlock(&registry->lock);
    return found;
}

mc_status own_find(mc_transfer *engine, uint64_t address, uint64_t size, struct mc_region *region_p,
                   uint64_t *offset_p)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    const struct region *region = holding(registry, address, size, MC_REGION_PRIVATE);
    if (region) {
        *region_p = region->handle;
        *offset_p = address - (uintptr_t)region->address;
    }
    pthread_mutex_unlock(&registry->lock);
    return region ? MC_OK : MC_E_NOT_FOUND;
}
