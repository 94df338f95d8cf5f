/* shm_window.c - windows of ours in the control page: which slot a key has, and whether it is quiet. */
#include "transfer/transport/shm.h"

#include "base/alloc.h"

/* ---------------------------------------------------- the table: by slot, and by key in buckets */

static uint32_t *bucket_of(const struct shm *shm, const uint64_t key[2])
{
    return &shm->buckets[shm_tag(key) & (shm->windows_max - 1)]; /* keys are random */
}

static void bucket_add(struct shm *shm, uint32_t slot)
{
    uint32_t *head = bucket_of(shm, shm->windows[slot].key);

    shm->windows[slot].next = *head;
    *head = slot;
}

static void bucket_remove(struct shm *shm, uint32_t slot)
{
    uint32_t *link = bucket_of(shm, shm->windows[slot].key);

    while (*link != slot)
        link = &shm->windows[*link].next;
    *link = shm->windows[slot].next;
}

static uint32_t find(const struct shm *shm, const struct mc_window *window)
{
    if (shm->windows_max == 0)
        return SHM_NO_WINDOW;

    uint32_t slot = *bucket_of(shm, window->key);
    while (slot != SHM_NO_WINDOW) {
        const struct shm_window *w = &shm->windows[slot];
        if (w->key[0] == window->key[0] && w->key[1] == window->key[1] &&
            w->generation == window->generation)
            break;
        slot = w->next;
    }
    return slot;
}

/* Slots that are in use have a generation; the others are in the list of free ones. */
static void rehash(struct shm *shm)
{
    for (uint32_t i = 0; i < shm->windows_max; i++)
        shm->buckets[i] = SHM_NO_WINDOW;
    for (uint32_t i = 0; i < shm->windows_max; i++)
        if (shm->windows[i].generation != 0)
            bucket_add(shm, i);
}

static mc_status windows_grow(struct shm *shm)
{
    const uint32_t old = shm->windows_max, max = old ? old * 2 : 64;

    if (max > SHM_WINDOWS)
        return MC_E_FULL;
    uint32_t *buckets = alloc_zeroed(shm->alloc, max, sizeof(*buckets));
    if (!buckets)
        return MC_E_NOMEM;
    struct shm_window *windows = alloc_resize(shm->alloc, shm->windows, max, sizeof(*windows));
    if (!windows) {
        alloc_free(shm->alloc, buckets);
        return MC_E_NOMEM;
    }
    alloc_free(shm->alloc, shm->buckets);
    shm->buckets = buckets;
    shm->windows = windows;
    shm->windows_max = max;
    for (uint32_t i = old; i < max; i++)
        windows[i] = (struct shm_window){ .next = i + 1 < max ? i + 1 : SHM_NO_WINDOW };
    shm->windows_free = old;
    rehash(shm);
    return MC_OK;
}

static mc_status slot_take(struct shm *shm, uint32_t *slot_p)
{
    if (shm->windows_max == 0 || shm->windows_free == SHM_NO_WINDOW) {
        const mc_status status = windows_grow(shm);
        if (status != MC_OK)
            return status;
    }
    *slot_p = shm->windows_free;
    shm->windows_free = shm->windows[*slot_p].next;
    return MC_OK;
}

/* -------------------------------------------------------------------------------- in the page */

static void set(_Atomic uint64_t *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static void publish(struct shm *shm, uint32_t at, const struct transport_window *told,
                    uint32_t region)
{
    struct shm_window_slot *slot = &shm->page->windows[at];
    const struct mc_window *window = &told->window;

    set(&slot->tag, shm_tag(window->key));
    set(&slot->size, window->size);
    set(&slot->piece_bytes, told->piece_bytes); /* side by side, the granted pieces are one */
    atomic_store_explicit(&slot->region, region, memory_order_relaxed);
    atomic_store_explicit(&slot->permissions, window->permissions, memory_order_relaxed);
    atomic_store_explicit(&slot->generation, window->generation, memory_order_release);
}

mc_status shm_window_open(void *transport, void *region, const struct transport_window *window,
                          uint8_t key[TRANSPORT_KEY_MAX], size_t *key_size_p)
{
    struct shm *shm = transport;
    const struct shm_region *r = region;
    uint32_t slot;

    if (r->slot == 0 || window->window.generation == 0) {
        *key_size_p = 0;
        return MC_OK;
    }
    pthread_mutex_lock(&shm->lock);
    const mc_status status = slot_take(shm, &slot);
    if (status == MC_OK) {
        shm->windows[slot] =
            (struct shm_window){ .key = { window->window.key[0], window->window.key[1] },
                                 .generation = window->window.generation,
                                 .region = r->slot,
                                 .open = true };
        bucket_add(shm, slot);
        publish(shm, slot, window, r->slot);
    }
    pthread_mutex_unlock(&shm->lock);
    if (status != MC_OK)
        return status;

    const struct shm_key k = {
        .region = r->slot, .window = slot, .generation = r->generation, .ticket = r->ticket
    };
    shm_key_encode(&k, key);
    *key_size_p = SHM_KEY_BYTES;
    return MC_OK;
}

void shm_window_close(void *transport, void *region, const struct mc_window *window)
{
    struct shm *shm = transport;

    (void)region;
    pthread_mutex_lock(&shm->lock);
    const uint32_t slot = find(shm, window);
    if (slot != SHM_NO_WINDOW) {
        shm->windows[slot].open = false;
        atomic_store_explicit(&shm->page->windows[slot].generation, 0, memory_order_seq_cst);
    }
    pthread_mutex_unlock(&shm->lock);
}

mc_status shm_window_poll(void *transport, void *region, const struct mc_window *window,
                          uint64_t *blocker_p)
{
    struct shm *shm = transport;
    mc_status status = MC_OK;

    (void)region;
    pthread_mutex_lock(&shm->lock);
    const uint32_t slot = find(shm, window);
    if (slot != SHM_NO_WINDOW) {
        struct shm_window *w = &shm->windows[slot];
        assert(!w->open);
        status = shm_pinned(shm, w->region, slot, blocker_p);
        if (status == MC_OK) {
            bucket_remove(shm, slot);
            *w = (struct shm_window){ .next = shm->windows_free };
            shm->windows_free = slot;
        }
    }
    pthread_mutex_unlock(&shm->lock);
    return status;
}
