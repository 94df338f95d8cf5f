/*
 * drain.c - what a node alone holds moves to others, while readers go on.
 *
 * An object is copied aside and verified, removed, and put again from the copy: its name is gone for that
 * short while, but there is never a moment in which wrong bytes could be read. What is leased is left for a
 * later round. Runs in the caller's thread, over the store's public functions.
 */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/log.h"
#include "os/clock.h"
#include "store/core/object.h"
#include "store/node/lend.h"

enum { BATCH_MAX = 16 };                 /* objects moved at a time, */
#define BATCH_BYTES (UINT64_C(32) << 20) /* or one that is larger than this */
#define ROUND_NS UINT64_C(20000000)      /* between rounds, for leases and evictions to end */

/** What became of a place in a round. */
struct round {
    uint32_t moved, left; /* left: only here still */
    uint32_t roomless;    /* of those: there is no room for them elsewhere */
};

struct drain {
    mc_store_node *node;
    mc_store *store;
    uint64_t deadline_ns, until_ns;  /* as given, and to be compared */
    struct store_node_place *places; /* owned; of this round */
    uint32_t place_count;
    bool empty;          /* it holds nothing */
    uint64_t id;         /* the node's; 0: not registered */
    uint64_t room_bytes; /* free at others */
    struct round round;
};

/** Objects on their way. */
struct drain_batch {
    struct store_node_place places[BATCH_MAX];
    struct mc_object_header headers[BATCH_MAX];
    struct mc_range ranges[BATCH_MAX];
    uint32_t count;
    uint64_t bytes;
};

/* ---------------------------------------------------------------------------------- in the loop */

static void begin_in_loop(void *argument)
{
    mc_store_node *node = argument;

    store_node_drain(node->core, true);
    lend_settle(node);
}

static void list_in_loop(void *argument)
{
    struct drain *d = argument;
    struct store_node_figures f;

    store_node_figures(d->node->core, &f);
    d->id = f.ready ? f.id : 0;
    d->empty = f.places == 0;
    if (d->empty)
        return;
    d->places = alloc_zeroed(d->store->alloc, f.places, sizeof(*d->places));
    d->place_count = d->places ? (uint32_t)f.places : 0;
    for (uint32_t i = 0; i < d->place_count; i++)
        d->places[i] = store_node_place_at(d->node->core, i);
}

/* ------------------------------------------------------------------------------------- requests */

static mc_status finish(const struct drain *d, mc_status begun, mc_store_request *request)
{
    if (begun != MC_OK)
        return begun;
    const mc_status status = mc_store_request_wait(request, d->deadline_ns);
    mc_store_request_close(request);
    return status == MC_PENDING ? MC_E_TIMEOUT : status;
}

/** Which are only here? The others leave the batch. False: the master did not say. */
static bool keep_only_here(struct drain *d, struct drain_batch *b)
{
    struct mc_lookup lookups[BATCH_MAX];
    struct mc_replica replicas[BATCH_MAX];
    mc_store_request *request = NULL;
    uint32_t kept = 0;

    memset(lookups, 0, sizeof(lookups));
    for (uint32_t i = 0; i < b->count; i++)
        lookups[i] = (struct mc_lookup){ .key = object_key(&b->headers[i].identity),
                                         .replicas = &replicas[i],
                                         .replicas_max = 1 };
    const mc_status begun =
        mc_store_lookup_begin(d->store, lookups, b->count, 0, 0, d->deadline_ns, &request);
    if (finish(d, begun, request) != MC_OK)
        return false;
    for (uint32_t i = 0; i < b->count; i++) {
        (void)mc_store_lease_release(d->store, &lookups[i].lease, lookups[i].status == MC_OK);
        const bool elsewhere = lookups[i].status == MC_OK && lookups[i].replica_count > 1;
        const bool here = lookups[i].status == MC_OK && replicas[i].node == d->id &&
                          replicas[i].generation == b->places[i].generation;
        d->round.left += !elsewhere && !here; /* being written, or about to be given up */
        if (elsewhere || !here)
            continue;
        b->places[kept] = b->places[i];
        b->headers[kept++] = b->headers[i];
    }
    b->count = kept;
    return true;
}

/** Those that nobody leases are gone from the pool after this; the others leave the batch. */
static bool remove_them(struct drain *d, struct drain_batch *b)
{
    struct mc_remove removes[BATCH_MAX];
    mc_store_request *request = NULL;
    uint32_t kept = 0;

    memset(removes, 0, sizeof(removes));
    for (uint32_t i = 0; i < b->count; i++)
        removes[i].key = object_key(&b->headers[i].identity);
    const mc_status begun =
        mc_store_remove_begin(d->store, removes, b->count, d->deadline_ns, &request);
    if (finish(d, begun, request) != MC_OK)
        return false;
    for (uint32_t i = 0; i < b->count; i++) {
        d->round.left += removes[i].status == MC_E_BUSY;
        if (removes[i].status != MC_OK)
            continue;
        b->headers[kept] = b->headers[i];
        b->ranges[kept++] = b->ranges[i];
    }
    b->count = kept;
    return true;
}

/** What cannot be put is lost: it was only here. */
static void put_them(struct drain *d, const struct drain_batch *b)
{
    struct mc_put puts[BATCH_MAX];
    mc_store_request *request = NULL;
    uint32_t lost = 0;

    memset(puts, 0, sizeof(puts));
    for (uint32_t i = 0; i < b->count; i++)
        puts[i] = (struct mc_put){ .identity = b->headers[i].identity,
                                   .ranges = &b->ranges[i],
                                   .count = 1,
                                   .status = MC_E_TIMEOUT };
    const mc_status begun =
        mc_store_put_begin(d->store, puts, b->count, NULL, d->deadline_ns, &request);
    (void)finish(d, begun, request);
    for (uint32_t i = 0; i < b->count; i++)
        lost += puts[i].status != MC_OK && puts[i].status != MC_E_EXISTS;
    d->round.moved += b->count - lost;
    if (lost > 0)
        log_write(&d->store->log, MC_LOG_WARN, "event=drain_lost objects=%" PRIu32, lost);
}

/* ---------------------------------------------------------------------------------------- batches */

/** Copies that are whole; what is not, nobody could have read. */
static void copy_them(const struct drain *d, struct drain_batch *b, uint8_t *bytes)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < b->count; i++) {
        const struct store_node_place *place = &b->places[i];
        struct mc_object_header header;
        memcpy(bytes, d->node->memory + place->offset, place->size);
        if (object_inspect(bytes, place->size, place->generation, &header) != MC_OK ||
            memcmp(&header, &b->headers[i], sizeof(header)) != 0)
            continue;
        b->headers[kept] = header;
        b->ranges[kept++] = (struct mc_range){ bytes + sizeof(header), header.length };
        bytes += place->size;
    }
    b->count = kept;
}

static mc_status move_copies(struct drain *d, struct drain_batch *b)
{
    const struct mc_alloc *alloc = d->store->alloc;
    struct mc_region region;
    uint8_t *bytes = alloc_bytes(alloc, b->bytes);

    if (!bytes)
        return MC_E_NOMEM;
    const struct mc_region_options options = {
        .address = bytes, .size = b->bytes, .tag = "drain", .flags = MC_REGION_PRIVATE
    };
    mc_status status = mc_region_register(d->store->transfer, &options, 1, &region, NULL);
    if (status == MC_OK) {
        copy_them(d, b, bytes);
        status = remove_them(d, b) ? MC_OK : MC_E_TIMEOUT;
        if (status == MC_OK)
            put_them(d, b);
        const mc_status quiet =
            mc_region_unregister(d->store->transfer, &region, 1, MC_FOREVER, NULL);
        assert(quiet == MC_OK); /* no peer may touch it */
        (void)quiet;
    }
    alloc_free(alloc, bytes);
    return status;
}

/** Objects for which there is room elsewhere. */
static void keep_what_fits(struct drain *d, struct drain_batch *b)
{
    uint32_t kept = 0;

    b->bytes = 0;
    for (uint32_t i = 0; i < b->count; i++) {
        const uint64_t size = b->places[i].size;
        if (size > d->room_bytes) {
            d->round.left++;
            d->round.roomless++;
            continue;
        }
        d->room_bytes -= size;
        b->bytes += size;
        b->places[kept] = b->places[i];
        b->headers[kept++] = b->headers[i];
    }
    b->count = kept;
}

static mc_status move_batch(struct drain *d, struct drain_batch *b)
{
    if (b->count == 0)
        return MC_OK;
    if (!keep_only_here(d, b))
        return MC_E_TIMEOUT;
    keep_what_fits(d, b);
    return b->count > 0 ? move_copies(d, b) : MC_OK;
}

/** The next places with an object, as many as one batch takes. */
static void next_batch(struct drain *d, uint32_t *cursor, struct drain_batch *b)
{
    *b = (struct drain_batch){ .count = 0 };
    for (; *cursor < d->place_count && b->count < BATCH_MAX; (*cursor)++) {
        const struct store_node_place *place = &d->places[*cursor];
        struct mc_object_header *header = &b->headers[b->count];
        if (b->count > 0 && b->bytes + place->size > BATCH_BYTES)
            return;
        if (place->closing || place->size < sizeof(*header)) {
            d->round.left++;
            continue;
        }
        memcpy(header, d->node->memory + place->offset, sizeof(*header));
        if (object_header_whole(header) != MC_OK || header->generation != place->generation) {
            d->round.left++; /* its writer has only begun */
            continue;
        }
        b->bytes += place->size;
        b->places[b->count++] = *place;
    }
}

/* ----------------------------------------------------------------------------------------- rounds */

/** How many bytes are free at others? */
static bool look_for_room(struct drain *d)
{
    struct mc_store_stats stats;
    uint64_t own_used = 0;

    if (mc_store_stats(d->store, d->deadline_ns, &stats, NULL) != MC_OK)
        return false;
    for (uint32_t i = 0; i < d->place_count; i++)
        own_used += d->places[i].size;
    /* A node that drains counts no longer; the master keeps a twentieth free by eviction. */
    const uint64_t capacity = stats.capacity_bytes - stats.capacity_bytes / 20;
    const uint64_t used = stats.used_bytes > own_used ? stats.used_bytes - own_used : 0;
    d->room_bytes = capacity > used ? capacity - used : 0;
    return true;
}

/** MC_OK: went through all of them once. */
static mc_status one_round(struct drain *d)
{
    struct drain_batch b;
    uint32_t cursor = 0;
    mc_status status = MC_OK;

    d->round = (struct round){ .moved = 0 };
    store_run(d->store, list_in_loop, d);
    if (d->empty)
        return MC_OK; /* whether there is a master or not */
    if (!d->places)
        return MC_E_NOMEM;
    if (d->id == 0)
        status = MC_E_TIMEOUT; /* away from the master: it is known again when it is back */
    else if (!look_for_room(d))
        status = MC_E_TIMEOUT;
    while (status == MC_OK && cursor < d->place_count) {
        next_batch(d, &cursor, &b);
        status = move_batch(d, &b);
    }
    alloc_free(d->store->alloc, d->places);
    d->places = NULL;
    return status;
}

mc_status mc_store_node_drain(mc_store_node *node, uint64_t deadline_ns)
{
    struct drain d = {
        .node = node,
        .store = node->store,
        .deadline_ns = deadline_ns,
        .until_ns = store_deadline(deadline_ns),
    };
    _Atomic uint32_t nothing = 0;

    store_run(node->store, begin_in_loop, node);
    for (;;) {
        const mc_status status = one_round(&d);
        if (status == MC_OK && d.round.left == 0 && d.round.moved == 0)
            return MC_OK;
        if (status == MC_OK && d.round.left > 0 && d.round.left == d.round.roomless &&
            d.round.moved == 0)
            return MC_E_FULL;
        const uint64_t now_ns = os_now_ns();
        if (now_ns >= d.until_ns)
            return MC_E_TIMEOUT;
        const uint64_t next_ns = now_ns + ROUND_NS;
        os_wait_change(&nothing, 0, next_ns < d.until_ns ? next_ns : d.until_ns);
    }
}
