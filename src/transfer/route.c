/* route.c - which way an entry goes: through which transport, after waiting for what, and how it ends. */
#include "transfer/segment.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "net/net.h"
#include "os/clock.h"
#include "transfer/map.h"

static bool by_window(const struct entry *entry)
{
    return entry->window.key[0] | entry->window.key[1];
}

/* ------------------------------------------------------------------------------------------ the end */

static enum engine_count count_of(mc_status status)
{
    return status == MC_OK            ? COUNT_transfers_ok
           : status == MC_E_CANCELLED ? COUNT_transfers_cancelled
           : status == MC_E_TIMEOUT   ? COUNT_transfers_timed_out
                                      : COUNT_transfers_failed;
}

static void finish(struct segment *segment, struct entry *entry, mc_status status,
                   const struct mc_error *error)
{
    mc_transfer *engine = segment->engine;
    struct counts *counts = entry->path ? &entry->path->carrier->counts : &engine->counts;

    assert(entry->flying == 0);
    if (status == MC_E_RANGE) /* outside of what the peer lends */
        status = MC_E_DENIED;
    count_add(counts, count_of(status), 1);
    if (entry->map)
        map_unuse(entry->map, status == MC_E_STALE);
    entry->map = NULL;
    entry->path = NULL;
    atomic_fetch_sub(&segment->busy, 1);
    atomic_fetch_sub(&engine->busy, 1);
    batch_entry_done(entry, status, error);
}

void route_finish(struct segment *segment, struct entry *entry, mc_status status)
{
    struct mc_error error = { 0 };

    if (status != MC_OK) {
        const char *transport = atomic_load_explicit(&entry->transport, memory_order_relaxed);
        error_set(&error, status, "%s%s%s, %s %u: %s", segment->name, *transport ? ", by " : "",
                  transport, by_window(entry) ? "window over region" : "region",
                  by_window(entry) ? entry->window.region : entry->xfer.region.id,
                  mc_status_text(status == MC_E_RANGE ? MC_E_DENIED : status));
    }
    finish(segment, entry, status, status == MC_OK ? NULL : &error);
}

/* ------------------------------------------------------------------------------------------ waiting */

static void wait_here(struct segment *segment, struct entry *entry, bool description)
{
    entry->round = segment->rounds;
    segment->wanted = segment->wanted || description;
    list_push(&segment->waiting, entry);
    segment_call(segment);
}

void route_waiting(struct segment *segment)
{
    struct entry_list list = segment->waiting;
    struct entry *entry;

    segment->waiting = (struct entry_list){ 0 };
    while ((entry = list_pop(&list)) != NULL) {
        /* Whoever waited for an answer has it, and it was no. */
        if (segment->failure != MC_OK && entry->round != segment->rounds &&
            (!segment->description || segment->stale))
            finish(segment, entry, segment->failure, &segment->failure_error);
        else
            route_entry(segment, entry);
    }
}

/* ------------------------------------------------------------------------------------------ checks */

/* What is known to be refused is not asked: so nothing of it moves, also where it is cut into many. */
static mc_status check_window(const struct segment *segment, const struct entry *entry)
{
    const struct mc_window *window = &entry->window;
    const uint64_t incarnation =
        segment->description ? segment->description->incarnation : segment->engine->incarnation;
    const uint32_t needed = entry->xfer.op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;

    if (window->incarnation != incarnation)
        return MC_E_STALE;
    if (window->piece_bytes == 0 || !(window->permissions & needed) || entry->end > window->size)
        return MC_E_DENIED;
    return MC_OK;
}

static mc_status check_region(const struct entry *entry, const struct peer_region *region)
{
    const uint32_t needed = entry->xfer.op == MC_READ ? MC_REMOTE_READ : MC_REMOTE_WRITE;

    if (region && (!(region->permissions & needed) || entry->end > region->size))
        return MC_E_DENIED;
    return MC_OK;
}

/* ------------------------------------------------------------------------------------------ choosing */

enum choice { TAKEN, WAITS, ENDED, NOT_THIS };

/* The map that a one-sided transport needs for a window. */
static enum choice find_map(struct segment *segment, struct entry *entry,
                            const struct carrier *carrier, struct mc_error *error)
{
    struct map *map = map_find(segment, &entry->window);

    if (!map) {
        map = map_new(segment, &entry->window);
        if (!map)
            return NOT_THIS; /* no memory: another way may need none */
    }
    if (map->status == MC_PENDING) {
        wait_here(segment, entry, false);
        return WAITS;
    }
    if (map->status == MC_E_STALE || map->status == MC_E_DENIED) {
        finish(segment, entry, map->status, &map->error);
        return ENDED;
    }
    if (map->status != MC_OK) {
        *error = map->error; /* what it ends with, if there is no other way */
        return NOT_THIS;
    }
    if (carrier->base->window_open && !map->keys[carrier->index].opened)
        return NOT_THIS;
    if (entry->map != map) {
        if (entry->map)
            map_unuse(entry->map, false);
        entry->map = map;
        map->users++;
    }
    return TAKEN;
}

/* Could this transport carry it at all? */
static bool suits(const struct segment *segment, const struct entry *entry,
                  const struct carrier *carrier, const struct peer_region *region)
{
    const struct description *description = segment->description;
    const bool self = strcmp(carrier->wire, "self") == 0;

    if (entry->batch->checksum == MC_CHECKSUM_CRC32C && !(carrier->caps.flags & TRANSPORT_CHECKSUM))
        return false;
    if (!description) /* the own memory, by the transport for it */
        return self;
    if (self || !description->endpoints[carrier->index].bytes)
        return false;
    if ((carrier->caps.flags & TRANSPORT_SAME_HOST) &&
        memcmp(&description->host, net_host(segment->engine->net), sizeof(description->host)) != 0)
        return false;
    return by_window(entry) || !carrier->base->region_open ||
           (region && region->keys[carrier->index].bytes);
}

static enum choice try_carrier(struct segment *segment, struct entry *entry,
                               struct carrier *carrier, struct mc_error *error)
{
    struct path *path = NULL;

    if (by_window(entry) && segment->description && (carrier->caps.flags & TRANSPORT_ONE_SIDED)) {
        const enum choice choice = find_map(segment, entry, carrier, error);
        if (choice != TAKEN)
            return choice;
    } else if (entry->map) {
        map_unuse(entry->map, false);
        entry->map = NULL;
    }
    const mc_status status = path_open(segment, carrier, &path, error);
    if (status != MC_OK) {
        if (error->status == MC_OK)
            error_set(error, status, "%s, by %s: %s", segment->name, carrier->name,
                      mc_status_text(status));
        engine_log(segment->engine, MC_LOG_INFO,
                   "event=queue_not_opened peer=%s transport=%s status=%s", segment->name,
                   carrier->name, mc_status_name(status));
        segment->again_ns[carrier->index] = os_now_ns() + 100 * 1000000;
        return NOT_THIS;
    }
    path_add(path, entry);
    return TAKEN;
}

/* First the ways that did not fail lately, by preference; then any. */
static void choose(struct segment *segment, struct entry *entry, const struct peer_region *region)
{
    const uint64_t now_ns = os_now_ns();
    struct mc_error error = { 0 };
    uint32_t asked = 0; /* bit of each carrier */

    for (uint32_t pass = 0; pass < 2; pass++) {
        for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
            struct carrier *carrier = &segment->engine->carriers[i];
            const bool doubted = (entry->tried & (1u << i)) || now_ns < segment->again_ns[i];
            if ((asked & (1u << i)) || doubted != (pass == 1) ||
                !suits(segment, entry, carrier, region))
                continue;
            asked |= 1u << i;
            if (try_carrier(segment, entry, carrier, &error) != NOT_THIS)
                return;
        }
    }
    if (error.status == MC_OK)
        error_set(&error, MC_E_UNSUPPORTED, "%s: no transport of both ends carries this",
                  segment->name);
    finish(segment, entry, error.status, &error);
}

static bool read_before(const struct segment *segment, const struct entry *entry)
{
    return segment->read_ns < entry->submitted_ns;
}

void route_entry(struct segment *segment, struct entry *entry)
{
    const struct description *description = segment->description;
    const struct peer_region *region = NULL;
    const mc_status stopped = batch_stopped(entry->batch);

    if (stopped != MC_OK || atomic_load(&segment->closed)) {
        route_finish(segment, entry, stopped != MC_OK ? stopped : MC_E_CANCELLED);
        return;
    }
    if (entry->total == 0) {
        route_finish(segment, entry, MC_OK);
        return;
    }
    if (!segment->self && (!description || segment->stale)) {
        wait_here(segment, entry, true);
        return;
    }
    mc_status status;
    if (by_window(entry)) {
        status = check_window(segment, entry);
    } else {
        region = description ? description_region(description, entry->xfer.region.id,
                                                  entry->xfer.region.generation)
                             : NULL;
        status = check_region(entry, region);
    }
    /* The peer may have restarted, or registered more, since its description was read. */
    const bool unknown = by_window(entry) ? status == MC_E_STALE : description && !region;
    if (unknown && description && read_before(segment, entry)) {
        segment->stale = true;
        wait_here(segment, entry, true);
        return;
    }
    if (status != MC_OK) {
        route_finish(segment, entry, status);
        return;
    }
    if (unknown &&
        !by_window(entry)) { /* where keys are needed there is none; else the peer says no */
        bool asks = false;
        for (uint32_t i = 0; i < segment->engine->carrier_count; i++)
            asks = asks || suits(segment, entry, &segment->engine->carriers[i], NULL);
        if (!asks) {
            route_finish(segment, entry, MC_E_STALE);
            return;
        }
    }
    choose(segment, entry, region);
}

/* ------------------------------------------------------------------------------------------ again */

static bool worth_another(const struct entry *entry, const struct path *path)
{
    if (atomic_load_explicit(&entry->attempts, memory_order_relaxed) >= PATHS_MAX)
        return false;
    if (path->over) /* whatever the queue died of, the transfer itself was not refused */
        return entry->error == path->status || entry->error == MC_E_PEER || entry->error == MC_E_IO;
    return entry->error == MC_E_PEER || entry->error == MC_E_IO;
}

void route_again(struct segment *segment, struct entry *entry, const struct path *path)
{
    const mc_status stopped = batch_stopped(entry->batch);

    if (stopped != MC_OK) {
        route_finish(segment, entry,
                     entry->error == MC_OK && entry->moved_now == entry->total ? MC_OK : stopped);
    } else if (!atomic_load(&segment->closed) && worth_another(entry, path)) {
        count_add(&path->carrier->counts, COUNT_retries, 1);
        entry->tried |= 1u << path->carrier->index;
        entry->error = MC_OK;
        entry->path = NULL;
        route_entry(segment, entry);
    } else if (path->over && entry->error == path->status) {
        finish(segment, entry, entry->error, &path->error);
    } else {
        route_finish(segment, entry, entry->error);
    }
}

/* ------------------------------------------------------------------------------------------ stopped */

void route_stopped(struct segment *segment)
{
    const bool all = atomic_load(&segment->closed);
    struct entry_list list = segment->waiting;
    struct entry *entry;

    segment->waiting = (struct entry_list){ 0 };
    while ((entry = list_pop(&list)) != NULL) {
        const mc_status stopped = batch_stopped(entry->batch);
        if (stopped != MC_OK || all)
            route_finish(segment, entry, stopped != MC_OK ? stopped : MC_E_CANCELLED);
        else
            list_push(&segment->waiting, entry);
    }
    for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
        if (segment->paths[i])
            path_drop_stopped(segment->paths[i]);
    }
}
