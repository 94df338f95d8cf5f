/* fake_transfer.c - one table of engines and windows, one thread: that of the test. */
#include "fake_moves.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "os/clock.h"
#include "os/thread.h"

enum { ENGINES = 8, WINDOWS = 64, PIECES = 256 };

struct mc_transfer {
    char name[64];
    uint64_t incarnation;
    char *memory;
    uint64_t size;
    struct mc_transfer_stats stats;
};

struct window {
    struct mc_window window;
    mc_transfer *owner; /* NULL: free */
    uint64_t offsets[PIECES], holder, until_ns;
    bool revoked;
};

struct mc_batch {
    mc_transfer *from;
    struct mc_batch *next; /* of all that are open */
    struct mc_xfer xfer;
    struct mc_window window;
    uint64_t deadline_ns;
    mc_status status;
    bool added, submitted, cancelled;
    int fd;
};

static mc_transfer *engines[ENGINES];
static struct window windows[WINDOWS];
static struct mc_batch *batches;
static uint64_t keys;

uint32_t fake_windows(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < WINDOWS; i++)
        count += windows[i].owner != NULL;
    return count;
}

uint32_t fake_engines(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < ENGINES; i++)
        count += engines[i] != NULL;
    for (const struct mc_batch *batch = batches; batch; batch = batch->next)
        count++;
    return count;
}

/* ---------------------------------------------------------------------------------------- engine */

mc_status mc_transfer_open(const struct mc_transfer_options *options, mc_transfer **transfer_p,
                           struct mc_error *error)
{
    (void)error;
    (void)options;
    for (uint32_t i = 0; i < ENGINES; i++)
        if (!engines[i]) {
            engines[i] = calloc(1, sizeof(*engines[i]));
            assert(engines[i]);
            engines[i]->incarnation = ++keys + 1000;
            snprintf(engines[i]->name, sizeof(engines[i]->name), "fake:%u", i + 1);
            *transfer_p = engines[i];
            return MC_OK;
        }
    return MC_E_FULL;
}

void mc_transfer_close(mc_transfer *transfer)
{
    for (uint32_t i = 0; i < ENGINES; i++)
        if (transfer && engines[i] == transfer)
            engines[i] = NULL;
    free(transfer);
}

mc_status mc_transfer_info(const mc_transfer *transfer, struct mc_transfer_info *info_p)
{
    *info_p = (struct mc_transfer_info){ .name = transfer->name,
                                         .address = transfer->name,
                                         .incarnation = transfer->incarnation,
                                         .transports = 1 };
    return MC_OK;
}

mc_status mc_transfer_stats(const mc_transfer *transfer, uint32_t index,
                            struct mc_transfer_stats *stats_p)
{
    if (index > 0)
        return MC_E_RANGE;
    *stats_p = transfer->stats;
    stats_p->transport = "shm";
    return MC_OK;
}

mc_status mc_memory_alloc(mc_transfer *transfer, size_t size, const char *location, void **memory_p,
                          struct mc_error *error)
{
    (void)location;
    (void)error;
    transfer->memory = aligned_alloc(4096, (size + 4095) / 4096 * 4096);
    assert(transfer->memory);
    memset(transfer->memory, 0x5a, size);
    transfer->size = size;
    *memory_p = transfer->memory;
    return MC_OK;
}

void mc_memory_free(mc_transfer *transfer, void *memory)
{
    assert(!memory || memory == transfer->memory);
    free(memory);
}

mc_status mc_region_register(mc_transfer *transfer, const struct mc_region_options *options,
                             size_t count, struct mc_region *regions_p, struct mc_error *error)
{
    (void)error;
    assert(count == 1 && options->address == transfer->memory && options->size == transfer->size);
    *regions_p = (struct mc_region){ .id = 1, .generation = ++keys };
    return MC_OK;
}

mc_status mc_region_unregister(mc_transfer *transfer, const struct mc_region *regions, size_t count,
                               uint64_t deadline_ns, struct mc_error *error)
{
    (void)regions;
    (void)count;
    (void)deadline_ns;
    (void)error;
    for (uint32_t i = 0; i < WINDOWS; i++)
        assert(windows[i].owner != transfer);
    return MC_OK;
}

/* --------------------------------------------------------------------------------------- windows */

static struct window *find_window(const struct mc_window *window)
{
    for (uint32_t i = 0; i < WINDOWS; i++)
        if (windows[i].owner && windows[i].window.key[0] == window->key[0] &&
            windows[i].window.generation == window->generation)
            return &windows[i];
    return NULL;
}

mc_status mc_window_grant(mc_transfer *transfer, const struct mc_window_options *options,
                          struct mc_window *window_p, struct mc_error *error)
{
    (void)error;
    for (uint32_t i = 0; i < WINDOWS; i++) {
        struct window *w = &windows[i];
        if (w->owner)
            continue;
        assert(options->count <= PIECES && options->permissions == MC_REMOTE_WRITE);
        *w = (struct window){ .owner = transfer,
                              .holder = options->holder,
                              .until_ns = os_now_ns() + options->lease_ns };
        w->window = (struct mc_window){ .key = { ++keys, 7 },
                                        .incarnation = transfer->incarnation,
                                        .size = options->count * options->piece_bytes,
                                        .region = 1,
                                        .permissions = options->permissions,
                                        .generation = ++keys,
                                        .lease_ns = options->lease_ns,
                                        .piece_bytes = options->piece_bytes };
        memcpy(w->offsets, options->offsets, options->count * sizeof(*w->offsets));
        *window_p = w->window;
        return MC_OK;
    }
    return MC_E_FULL;
}

mc_status mc_window_renew(mc_transfer *transfer, const struct mc_window *window, uint64_t lease_ns)
{
    struct window *w = find_window(window);

    if (!w || w->owner != transfer || w->revoked || os_now_ns() > w->until_ns)
        return MC_E_STALE;
    w->until_ns = os_now_ns() + lease_ns;
    return MC_OK;
}

mc_status mc_window_revoke(mc_transfer *transfer, const struct mc_window *window,
                           uint64_t deadline_ns, struct mc_error *error)
{
    struct window *w = find_window(window);

    (void)deadline_ns;
    (void)error;
    assert(w && w->owner == transfer);
    w->revoked = true;
    if (fake_moves.pinned)
        return MC_E_TIMEOUT;
    w->owner = NULL;
    return MC_OK;
}

mc_status mc_segment_open(mc_transfer *transfer, const char *name, uint32_t *segment_p,
                          struct mc_error *error)
{
    (void)transfer;
    (void)name;
    (void)error;
    *segment_p = 1;
    return MC_OK;
}

void mc_segment_close(mc_transfer *transfer, uint32_t segment)
{
    (void)transfer;
    assert(segment <= 1);
}

/* --------------------------------------------------------------------------------------- batches */

mc_status mc_batch_open(mc_transfer *transfer, const struct mc_batch_options *options,
                        mc_batch **batch_p)
{
    mc_batch *batch = calloc(1, sizeof(*batch));

    (void)options;
    assert(batch);
    batch->from = transfer;
    if (os_event_open(&batch->fd) != MC_OK)
        abort();
    batch->next = batches;
    batches = batch;
    *batch_p = batch;
    return MC_OK;
}

mc_status mc_batch_fd(mc_batch *batch, int *fd_p)
{
    *fd_p = batch->fd;
    return MC_OK;
}

mc_status mc_batch_reset(mc_batch *batch, uint64_t deadline_ns)
{
    assert(!batch->submitted || batch->status != MC_PENDING);
    os_event_lower(batch->fd);
    batch->added = batch->submitted = batch->cancelled = false;
    batch->status = MC_PENDING;
    batch->deadline_ns = deadline_ns;
    return MC_OK;
}

mc_status mc_batch_add(mc_batch *batch, const struct mc_xfer *xfers, size_t count)
{
    assert(count == 1 && !batch->added && xfers->op == MC_WRITE && xfers->local_table);
    batch->xfer = *xfers;
    batch->window = *xfers->window;
    batch->added = true;
    return MC_OK;
}

/* Every piece through the window's table, checked as the bytes move. */
static mc_status move(mc_batch *batch)
{
    const struct mc_xfer *x = &batch->xfer;
    struct window *w = find_window(&batch->window);

    if (!w || w->revoked || os_now_ns() > w->until_ns ||
        (w->holder && w->holder != batch->from->incarnation)) {
        fake_moves.refused++;
        return MC_E_STALE;
    }
    if (fake_moves.fail && --fake_moves.fail == 0)
        return MC_E_PEER;
    for (uint64_t i = 0; i < x->count; i++) {
        const uint64_t at = x->offset + i * x->remote_stride;
        const uint64_t piece = at / w->window.piece_bytes, in = at % w->window.piece_bytes;
        assert(at + x->length <= w->window.size && in + x->length <= w->window.piece_bytes);
        char *to = w->owner->memory + w->offsets[piece] + in;
        memcpy(to, (char *)x->local_table[i] + x->local_offset, x->length);
        if (fake_moves.corrupt && --fake_moves.corrupt == 0)
            to[x->length / 2] ^= 1;
        fake_moves.moved_bytes += x->length;
        batch->from->stats.write_bytes += x->length;
        w->owner->stats.served_write_bytes += x->length;
    }
    return MC_OK;
}

static void try_batch(mc_batch *batch)
{
    if (!batch->submitted || batch->status != MC_PENDING)
        return;
    if (batch->cancelled)
        batch->status = MC_E_CANCELLED;
    else if (batch->deadline_ns && os_now_ns() > batch->deadline_ns)
        batch->status = MC_E_TIMEOUT;
    else if (!fake_moves.hold_pushes)
        batch->status = move(batch);
    if (batch->status != MC_PENDING)
        os_event_raise(batch->fd);
}

mc_status mc_batch_submit(mc_batch *batch)
{
    assert(batch->added);
    batch->submitted = true;
    return MC_OK;
}

mc_status mc_batch_poll(mc_batch *batch)
{
    return batch->status;
}

mc_status mc_batch_cancel(mc_batch *batch)
{
    batch->cancelled = true;
    return MC_OK;
}

void mc_batch_close(mc_batch *batch)
{
    struct mc_batch **list = &batches;

    while (*list != batch)
        list = &(*list)->next;
    *list = batch->next;
    os_event_close(batch->fd);
    free(batch);
}

void fake_move_batches(void)
{
    for (struct mc_batch *batch = batches; batch; batch = batch->next)
        try_batch(batch);
}
