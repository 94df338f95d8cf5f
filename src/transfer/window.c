/* window.c - keys to pieces of regions: grant, renew, expire, revoke. */
#include "transfer/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"
#include "os/random.h"

#define LEASE_DEFAULT_NS (UINT64_C(10) * 1000000000)
#define LEASE_MAX_NS (UINT64_C(3600) * 1000000000)

/* ---------------------------------------------------------------------------------- the table */

static struct window **bucket_of(const struct registry *registry, const uint64_t key[2])
{
    return &registry->buckets[key[0] & (registry->bucket_count - 1)]; /* keys are random */
}

struct window *window_find(const struct registry *registry, const uint64_t key[2])
{
    for (struct window *window = *bucket_of(registry, key); window; window = window->chain) {
        if (window->grant.key[0] == key[0] && window->grant.key[1] == key[1])
            return window;
    }
    return NULL;
}

/* Under admin. */
static void link_window(mc_transfer *engine, struct window *window)
{
    struct registry *registry = &engine->registry;
    struct window **bucket = bucket_of(registry, window->grant.key);

    window->next = registry->windows;
    window->prev_p = &registry->windows;
    if (window->next)
        window->next->prev_p = &window->next;
    registry->windows = window;
    registry->window_count++;
    window->region->windows++;
    pthread_mutex_lock(&registry->lock);
    registry->window_next++; /* pins tell revoked keys from forged ones by it */
    window->chain = *bucket;
    *bucket = window;
    pthread_mutex_unlock(&registry->lock);
}

void window_free(mc_transfer *engine, struct window *window)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    struct window **at = bucket_of(registry, window->grant.key);
    while (*at != window)
        at = &(*at)->chain;
    *at = window->chain;
    pthread_mutex_unlock(&registry->lock);
    *window->prev_p = window->next;
    if (window->next)
        window->next->prev_p = window->prev_p;
    registry->window_count--;
    window->region->windows--;
    if (window->quarantined)
        registry->quarantined_bytes -= window->grant.size;
    alloc_free(engine->alloc, window->offsets);
    alloc_free(engine->alloc, window->keys);
    alloc_free(engine->alloc, window);
}

/* ------------------------------------------------------------------------------------ granting */

static int by_value(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Pieces inside the region and apart from each other. `sorted` [count] may be changed. */
static mc_status check_sorted(const uint64_t *sorted, uint64_t count, uint64_t piece_bytes,
                              uint64_t size, struct mc_error *error)
{
    for (uint64_t i = 0; i < count; i++) {
        if (sorted[i] > size || piece_bytes > size - sorted[i])
            return error_set(error, MC_E_RANGE, "window: a piece at %llu is outside its region",
                             (unsigned long long)sorted[i]);
        if (i > 0 && sorted[i] - sorted[i - 1] < piece_bytes)
            return error_set(error, MC_E_ARG, "window: pieces overlap at %llu",
                             (unsigned long long)sorted[i]);
    }
    return MC_OK;
}

static mc_status check_pieces(mc_transfer *engine, const struct mc_window_options *o, uint64_t size,
                              struct mc_error *error)
{
    if (!o->offsets) {
        if (o->piece_bytes > size / o->count)
            return error_set(error, MC_E_RANGE,
                             "window: %llu pieces of %llu bytes are outside "
                             "their region",
                             (unsigned long long)o->count, (unsigned long long)o->piece_bytes);
        return MC_OK;
    }
    bool rising = true;
    for (uint64_t i = 1; i < o->count && rising; i++)
        rising = o->offsets[i] > o->offsets[i - 1];
    if (rising)
        return check_sorted(o->offsets, o->count, o->piece_bytes, size, error);

    uint64_t *sorted = alloc_zeroed(engine->alloc, o->count, sizeof(*sorted));
    if (!sorted)
        return error_set(error, MC_E_NOMEM, "out of memory for a window");
    memcpy(sorted, o->offsets, o->count * sizeof(*sorted));
    qsort(sorted, o->count, sizeof(*sorted), by_value);
    const mc_status status = check_sorted(sorted, o->count, o->piece_bytes, size, error);
    alloc_free(engine->alloc, sorted);
    return status;
}

static mc_status check_options(const struct mc_window_options *o, struct mc_error *error)
{
    const uint32_t known = MC_REMOTE_READ | MC_REMOTE_WRITE;

    if (o->flags || (o->reserved[0] | o->reserved[1] | o->reserved[2] | o->reserved[3]))
        return error_set(error, MC_E_UNSUPPORTED, "window: a reserved field or flag is set (%s)",
                         mc_version());
    if (o->permissions == 0 || (o->permissions & ~known))
        return error_set(error, MC_E_ARG, "window: permissions 0x%x", o->permissions);
    if (o->count == 0 || o->piece_bytes == 0)
        return error_set(error, MC_E_ARG, "window: no pieces, or empty ones");
    if (o->lease_ns > LEASE_MAX_NS)
        return error_set(error, MC_E_RANGE, "window: a lease of more than 1 h");
    return MC_OK;
}

/* What transports keep of it. Side by side, its pieces are one. */
static mc_status tell_open(mc_transfer *engine, struct window *window)
{
    const uint64_t nought = 0;
    const bool one = !window->offsets;
    const struct transport_window told = {
        .window = window->grant,
        .offsets = one ? &nought : window->offsets,
        .count = one ? 1 : window->count,
        .piece_bytes = one ? window->grant.size : window->grant.piece_bytes,
    };

    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        const struct carrier *carrier = &engine->carriers[i];
        size_t key_size = 0;
        if (!carrier->ops->window_open || !window->region->keys[i].opened)
            continue;
        const mc_status status = carrier->ops->window_open(
            carrier->state, window->region->private[i], &told, window -> keys[i].bytes, &key_size);
        if (status == MC_E_NOMEM)
            return status;
        if (status != MC_OK) /* not by this transport, then */
            continue;
        window->keys[i].size = (uint32_t)key_size;
        window->keys[i].opened = true;
    }
    return MC_OK;
}

static void tell_close(mc_transfer *engine, struct window *window)
{
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        if (window->keys[i].opened)
            engine->carriers[i].ops->window_close(engine->carriers[i].state,
                                                  window->region->private[i], &window -> grant);
    }
}

static struct window *window_new(mc_transfer *engine, const struct mc_window_options *o,
                                 struct region *region)
{
    struct window *window = alloc_zeroed(engine->alloc, 1, sizeof(*window));

    if (!window)
        return NULL;
    window->keys = alloc_zeroed(engine->alloc, engine->carrier_count, sizeof(*window->keys));
    window->offsets =
        o->offsets ? alloc_zeroed(engine->alloc, o->count, sizeof(*window->offsets)) : NULL;
    if (!window->keys || (o->offsets && !window->offsets)) {
        alloc_free(engine->alloc, window->keys);
        alloc_free(engine->alloc, window->offsets);
        alloc_free(engine->alloc, window);
        return NULL;
    }
    if (o->offsets)
        memcpy(window->offsets, o->offsets, o->count * sizeof(*window->offsets));
    const uint64_t lease_ns = o->lease_ns ? o->lease_ns : LEASE_DEFAULT_NS;
    window->region = region;
    window->count = o->count;
    window->holder = o->holder;
    window->expires_ns = os_now_ns() + lease_ns;
    window->grant = (struct mc_window){
        .key = { os_random_u64(), os_random_u64() },
        .incarnation = engine->incarnation,
        .size = o->count * o->piece_bytes,
        .region = region->handle.id,
        .permissions = o->permissions,
        .generation = engine->registry.window_next,
        .lease_ns = lease_ns,
        .piece_bytes = o->piece_bytes,
    };
    return window;
}

/* Under admin. */
static mc_status grant(mc_transfer *engine, const struct mc_window_options *o,
                       struct mc_window *window_p, struct mc_error *error)
{
    struct registry *registry = &engine->registry;
    struct region *region = region_find(engine, &o->region);

    if (!region || region->closing)
        return error_set(error, MC_E_STALE, "window: region %u is not registered", o->region.id);
    if (o->permissions & ~region->permissions)
        return error_set(error, MC_E_DENIED, "window: region %u permits less", o->region.id);
    if (registry->window_count >= engine->windows_max)
        return error_set(error, MC_E_FULL, "windows_max (%u) are granted", engine->windows_max);
    if (o->count > UINT64_MAX / o->piece_bytes)
        return error_set(error, MC_E_RANGE, "window: larger than any region");
    mc_status status = check_pieces(engine, o, region->size, error);
    if (status != MC_OK)
        return status;

    struct window *window = window_new(engine, o, region);
    if (!window)
        return error_set(error, MC_E_NOMEM, "out of memory for a window");
    link_window(engine, window);
    status = tell_open(engine, window);
    if (status != MC_OK) {
        uint64_t blocker = 0;
        window_shut(engine, window);
        while (!window_is_quiet(engine, window, &blocker)) /* nobody has the key */
            os_yield();
        window_free(engine, window);
        return error_set(error, status, "out of memory for a window");
    }
    *window_p = window->grant;
    return MC_OK;
}

mc_status mc_window_grant(mc_transfer *engine, const struct mc_window_options *options,
                          struct mc_window *window_p, struct mc_error *error)
{
    mc_status status = check_options(options, error);

    if (status != MC_OK)
        return status;
    pthread_mutex_lock(&engine->registry.admin);
    status = grant(engine, options, window_p, error);
    pthread_mutex_unlock(&engine->registry.admin);
    if (status == MC_OK)
        engine_alarm(engine, os_now_ns() + window_p->lease_ns);
    return status;
}

/* ------------------------------------------------------------------------------- living on, ending */

mc_status window_renew_key(mc_transfer *engine, const uint64_t key[2], uint64_t generation,
                           uint64_t lease_ns)
{
    struct registry *registry = &engine->registry;
    const uint64_t lease = lease_ns ? lease_ns : LEASE_DEFAULT_NS, now_ns = os_now_ns();
    mc_status status = MC_E_STALE;

    if (lease > LEASE_MAX_NS)
        return MC_E_RANGE;
    pthread_mutex_lock(&registry->lock);
    struct window *window = window_find(registry, key);
    if (window && window->grant.generation == generation && !window->closing &&
        !window->region->closing && now_ns < window->expires_ns) {
        window->expires_ns = now_ns + lease;
        status = MC_OK;
    }
    pthread_mutex_unlock(&registry->lock);
    if (status == MC_OK)
        engine_alarm(engine, now_ns + lease);
    return status;
}

mc_status mc_window_renew(mc_transfer *engine, const struct mc_window *window, uint64_t lease_ns)
{
    return window_renew_key(engine, window->key, window->generation, lease_ns);
}

void window_shut(mc_transfer *engine, struct window *window)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    const bool was = window->closing;
    window->closing = true;
    pthread_mutex_unlock(&registry->lock);
    if (!was)
        tell_close(engine, window);
}

bool window_is_quiet(mc_transfer *engine, struct window *window, uint64_t *blocker_p)
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->lock);
    bool quiet = window->pins == 0;
    pthread_mutex_unlock(&registry->lock);
    for (uint32_t i = 0; i < engine->carrier_count; i++) {
        uint64_t blocker = 0;
        if (!window->keys[i].opened)
            continue;
        if (engine->carriers[i].ops->window_poll(engine->carriers[i].state,
                                                 window->region->private[i], &window -> grant,
                                                 &blocker) == MC_OK) {
            window->keys[i].opened = false;
            continue;
        }
        *blocker_p = blocker ? blocker : *blocker_p;
        quiet = false;
    }
    return quiet;
}

uint64_t windows_expire(mc_transfer *engine, uint64_t now_ns)
{
    struct registry *registry = &engine->registry;
    uint64_t next_ns = UINT64_MAX;

    pthread_mutex_lock(&registry->admin);
    for (struct window *window = registry->windows; window; window = window->next) {
        pthread_mutex_lock(&registry->lock);
        const uint64_t at_ns = window->closing ? UINT64_MAX : window->expires_ns;
        pthread_mutex_unlock(&registry->lock);
        if (at_ns <= now_ns)
            window_shut(engine, window);
        else if (at_ns < next_ns)
            next_ns = at_ns;
    }
    pthread_mutex_unlock(&registry->admin);
    return next_ns;
}

mc_status window_revoke_step(mc_transfer *engine, const uint64_t key[2], uint64_t generation,
                             uint64_t *blocker_p)
{
    struct registry *registry = &engine->registry;
    mc_status status = MC_PENDING;

    pthread_mutex_lock(&registry->admin);
    struct window *window = window_find(registry, key);
    if (!window || window->grant.generation != generation) {
        /* Only under its key is it known; a generation of this life was granted, and is gone. */
        status =
            !window && generation >= registry->window_first && generation < registry->window_next
                ? MC_OK
                : MC_E_STALE;
    } else {
        window_shut(engine, window);
        if (window_is_quiet(engine, window, blocker_p)) {
            window_free(engine, window);
            status = MC_OK;
        }
    }
    pthread_mutex_unlock(&registry->admin);
    return status;
}

void window_quarantine(mc_transfer *engine, const uint64_t key[2])
{
    struct registry *registry = &engine->registry;

    pthread_mutex_lock(&registry->admin);
    struct window *window = window_find(registry, key);
    if (window && window->closing && !window->quarantined) {
        window->quarantined = true;
        registry->quarantined_bytes += window->grant.size;
    }
    pthread_mutex_unlock(&registry->admin);
}

mc_status mc_window_revoke(mc_transfer *engine, const struct mc_window *window,
                           uint64_t deadline_ns, struct mc_error *error)
{
    const uint64_t until_ns = deadline_of(deadline_ns);
    uint64_t blocker = 0;

    if (window->incarnation != engine->incarnation)
        return error_set(error, MC_E_STALE, "not a window of this engine");
    for (;;) {
        const uint32_t seen = atomic_load(&engine->registry.quiet);
        const mc_status status =
            window_revoke_step(engine, window->key, window->generation, &blocker);
        if (status == MC_E_STALE)
            return error_set(error, status, "not a window of this engine");
        if (status == MC_OK)
            return MC_OK;
        if (os_now_ns() >= until_ns) {
            window_quarantine(engine, window->key);
            engine_log(engine, MC_LOG_WARN,
                       "event=window_quarantined region=%u bytes=%llu blocker=%016llx",
                       window->region, (unsigned long long)window->size,
                       (unsigned long long)blocker);
            return error_set(error, MC_E_TIMEOUT,
                             "the window's memory is still held by peer %016llx; revoke it again",
                             (unsigned long long)blocker);
        }
        engine_pause(engine, &engine->registry.quiet, seen, until_ns);
    }
}
