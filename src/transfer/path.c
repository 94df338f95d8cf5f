/* path.c - one queue to a peer: cut entries into slices, post them, take what completes. */
#include "transfer/segment.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum {
    DEPTH_MAX = 1024,
    POLLS_MAX = 4, /* rounds of completions in one step: others wait for the lock */
};

#define AGAIN_NS \
    UINT64_C(100000000) /* a queue that failed is left alone for so long if there is another */

/* --------------------------------------------------------------------------------------- the queue */

static size_t slice_stride(const struct carrier *carrier)
{
    return (sizeof(struct transport_slice) + carrier->ops->slice_bytes + 63) / 64 * 64;
}

static void path_free(struct path *path)
{
    const struct mc_alloc *alloc = path->segment->engine->alloc;

    alloc_free(alloc, path->works);
    alloc_free(alloc, path->slices_block);
    alloc_free(alloc, path->queue_block);
    alloc_free(alloc, path);
}

static struct path *path_new(struct segment *segment, struct carrier *carrier)
{
    const struct mc_alloc *alloc = segment->engine->alloc;
    struct path *path = alloc_zeroed(alloc, 1, sizeof(*path));

    if (!path)
        return NULL;
    path->segment = segment;
    path->carrier = carrier;
    path->depth = carrier->caps.queue_depth < DEPTH_MAX ? carrier->caps.queue_depth : DEPTH_MAX;
    path->queue = alloc_aligned(alloc, carrier->ops->queue_bytes, &path->queue_block);
    path->works = alloc_zeroed(alloc, path->depth, sizeof(*path->works));
    char *slices = alloc_aligned(alloc, path->depth * slice_stride(carrier), &path->slices_block);
    if (!path->queue || !path->works || !slices) {
        path_free(path);
        return NULL;
    }
    for (uint32_t i = 0; i < path->depth; i++) {
        struct work *work = &path->works[i];
        work->slice = (struct transport_slice *)(void *)(slices + i * slice_stride(carrier));
        work->next = path->idle;
        path->idle = work;
    }
    path->ready_end = &path->ready;
    return path;
}

/* Who the queue leads to; without a description it is this engine itself. */
static struct transport_peer peer_of(const struct segment *segment, const struct path *path)
{
    const struct description *description = segment->description;
    const uint32_t index = path->carrier->index;

    return (struct transport_peer){
        .name = segment->name,
        .incarnation = path->incarnation,
        .address = path->address,
        .address_size = description && description->endpoints[index].bytes
                            ? description->endpoints[index].size
                            : path->carrier->address_size,
    };
}

mc_status path_open(struct segment *segment, struct carrier *carrier, struct path **path_p,
                    struct mc_error *error)
{
    const struct description *description = segment->description;

    if (segment->paths[carrier->index]) {
        *path_p = segment->paths[carrier->index];
        return MC_OK;
    }
    struct path *path = path_new(segment, carrier);
    if (!path)
        return error_set(error, MC_E_NOMEM, "%s: out of memory for a queue", segment->name);
    path->incarnation = description ? description->incarnation : segment->engine->incarnation;
    if (description && description->endpoints[carrier->index].bytes)
        memcpy(path->address, description->endpoints[carrier->index].bytes,
               description->endpoints[carrier->index].size);
    else
        memcpy(path->address, carrier->address, carrier->address_size);
    const struct transport_peer peer = peer_of(segment, path);
    const mc_status status = carrier->ops->queue_open(carrier->state, &peer, path->queue, error);
    if (status != MC_OK) {
        path_free(path);
        return status;
    }
    segment->paths[carrier->index] = path;
    *path_p = path;
    return MC_OK;
}

void path_add(struct path *path, struct entry *entry)
{
    entry->path = path;
    entry->whole = false;
    entry->moved_now = 0;
    entry->cursor = (struct plan_cursor){ 0 };
    atomic_fetch_add_explicit(&entry->attempts, 1, memory_order_relaxed);
    atomic_store_explicit(&entry->transport, path->carrier->name, memory_order_relaxed);
    atomic_store_explicit(&entry->bytes, 0, memory_order_relaxed);
    list_push(&path->pending[entry->batch->priority], entry);
}

/* --------------------------------------------------------------------------------------- cutting */

static void work_done(struct path *path, struct work *work)
{
    use_drop(path->segment->engine, work->region);
    work->entry->flying--;
    work->entry = NULL;
    work->next = path->idle;
    path->idle = work;
}

static void ready_push(struct path *path, struct work *work)
{
    work->next = NULL;
    *path->ready_end = work;
    path->ready_end = &work->next;
}

/* What the peer gave for it: the window's key where there is a map, else the region's. */
static void copy_key(const struct path *path, const struct entry *entry, struct work *work)
{
    const struct description *description = path->segment->description;
    const uint32_t index = path->carrier->index;
    const uint8_t *bytes = NULL;
    uint32_t size = 0;

    if (entry->map && entry->map->keys[index].opened) {
        bytes = entry->map->keys[index].bytes;
        size = entry->map->keys[index].size;
    } else if (!entry->window.key[0] && !entry->window.key[1] && description) {
        const struct peer_region *region =
            description_region(description, entry->xfer.region.id, entry->xfer.region.generation);
        bytes = region ? region->keys[index].bytes : NULL;
        size = bytes ? region->keys[index].size : 0;
    }
    if (bytes)
        memcpy(work->key, bytes, size);
    work->slice->remote_key = bytes ? work->key : NULL;
    work->slice->remote_key_size = size;
}

static void fill_slice(struct path *path, const struct entry *entry, const struct plan_slice *cut,
                       struct work *work)
{
    const bool window = entry->window.key[0] | entry->window.key[1];
    const uint64_t deadline_ns = atomic_load(&entry->batch->deadline_ns);

    *work->slice = (struct transport_slice){
        .op = entry->xfer.op,
        .flags = entry->batch->checksum == MC_CHECKSUM_CRC32C ? 1 : 0,
        .local = cut->local,
        .length = cut->length,
        .remote = {
            .op = entry->xfer.op,
            .region = entry->map ? entry->map->region :
                      window     ? entry->window.region :
                                   entry->xfer.region.id,
            .key = { entry->window.key[0], entry->window.key[1] },
            .generation = window ? entry->window.generation : entry->xfer.region.generation,
            .offset = cut->offset,
            .length = cut->length,
            .region_offset = cut->region_offset,
            .peer = path->segment->engine->incarnation,
        },
        .local_region = work->region->private[path->carrier->index],
        .deadline_ns = deadline_ns == UINT64_MAX ? 0 : deadline_ns,
        .user = work,
    };
    copy_key(path, entry, work);
}

static struct plan plan_of(const struct path *path, const struct entry *entry)
{
    const struct transport_caps *caps = &path->carrier->caps;
    const bool window = entry->window.key[0] | entry->window.key[1];

    return (struct plan){
        .slice_max = caps->slice_best && caps->slice_best < caps->slice_max ? caps->slice_best
                                                                            : caps->slice_max,
        .piece_bytes = entry->map ? entry->map->piece_bytes
                       : window   ? entry->window.piece_bytes
                                  : 0,
        .offsets = entry->map ? entry->map->offsets : NULL,
        .count = entry->map ? entry->map->count : 0,
    };
}

/* Cut up to CUT_MAX slices off an entry. Returns whether it has more. Hot. */
static bool cut_some(struct path *path, struct entry *entry)
{
    const struct plan plan = plan_of(path, entry);
    struct plan_slice cut;

    for (uint32_t i = 0; i < CUT_MAX && path->idle; i++) {
        if (!plan_next(&entry->xfer, &plan, &entry->cursor, &cut))
            return false;
        struct region *region =
            use_take(path->segment->engine, cut.local, cut.length, entry->xfer.op == MC_READ);
        if (!region) { /* unregistered since it was added */
            entry->error = MC_E_DENIED;
            return false;
        }
        struct work *work = path->idle;
        path->idle = work->next;
        work->entry = entry;
        work->region = region;
        fill_slice(path, entry, &cut, work);
        ready_push(path, work);
        entry->flying++;
    }
    return true;
}

static void judge(struct path *path, struct entry *entry);

static bool cut_all(struct path *path)
{
    bool cut = false;

    for (uint32_t p = 0; p < PRIORITIES && path->idle; p++) {
        struct entry *entry;
        while (path->idle && (entry = list_pop(&path->pending[p])) != NULL) {
            cut = true;
            if (entry->error == MC_OK && cut_some(path, entry)) {
                list_push(&path->pending[p], entry); /* others have their turn */
                continue;
            }
            entry->whole = true;
            if (entry->flying == 0)
                judge(path, entry);
        }
    }
    return cut;
}

/* --------------------------------------------------------------------------------------- posting */

static void stamp(struct work *work, uint64_t now_ns)
{
    uint64_t none = 0;

    atomic_compare_exchange_strong_explicit(&work->entry->posted_ns, &none, now_ns,
                                            memory_order_relaxed, memory_order_relaxed);
}

static bool post_ready(struct path *path, uint64_t now_ns)
{
    bool moved = false;

    while (path->ready && path->status == MC_OK) {
        struct transport_slice *slices[POST_MAX];
        uint32_t count = 0, posted = 0;
        for (struct work *work = path->ready; work && count < POST_MAX; work = work->next) {
            stamp(work, now_ns);
            slices[count++] = work->slice;
        }
        const mc_status status = path->carrier->ops->post(path->queue, slices, count, &posted);
        if (status != MC_OK) { /* what flies completes yet; poll says the same when it has */
            path->status = status;
            break;
        }
        for (uint32_t i = 0; i < posted; i++) {
            struct work *work = path->ready;
            path->ready = work->next;
        }
        if (!path->ready)
            path->ready_end = &path->ready;
        path->flying += posted;
        moved = moved || posted > 0;
        if (posted < count)
            break;
    }
    return moved;
}

/* ------------------------------------------------------------------------------------ completing */

/* All slices of the entry are back, and no more will be cut. */
static void judge(struct path *path, struct entry *entry)
{
    if (entry->error == MC_OK && batch_stopped(entry->batch) == MC_OK) {
        route_finish(path->segment, entry, MC_OK);
    } else if (entry->error == MC_OK) {
        route_finish(path->segment, entry,
                     entry->moved_now == entry->total ? MC_OK : batch_stopped(entry->batch));
    } else { /* whether the queue failed or only a slice is known when it has been polled */
        list_push(&path->judged, entry);
    }
}

static bool called_back(const struct path *path, const struct work *work, mc_status status)
{
    return path->calling_back && status == MC_E_CANCELLED && path->status == MC_OK &&
           work->entry->error == MC_OK && batch_stopped(work->entry->batch) == MC_OK &&
           !atomic_load(&path->segment->closed);
}

static void count_moved(struct path *path, const struct entry *entry, uint64_t bytes)
{
    count_add(&path->carrier->counts,
              entry->xfer.op == MC_READ ? COUNT_read_bytes : COUNT_write_bytes, bytes);
}

static void complete(struct path *path, const struct transport_completion *completion)
{
    struct work *work = completion->slice->user;
    struct entry *entry = work->entry;

    assert(path->flying > 0);
    path->flying--;
    if (called_back(path, work, completion->status)) { /* wanted yet: it goes again */
        ready_push(path, work);
        return;
    }
    const uint64_t length = work->slice->length;
    work_done(path, work);
    const uint64_t bytes = completion->status == MC_OK ? length : completion->bytes;
    entry->moved_now += bytes;
    atomic_fetch_add_explicit(&entry->bytes, bytes, memory_order_relaxed);
    count_moved(path, entry, bytes);
    if (completion->status == MC_OK)
        path->proved = true;
    else if (entry->error == MC_OK)
        entry->error = completion->status;
    if (completion->status == MC_E_CORRUPT)
        count_add(&path->carrier->counts, COUNT_corrupt, 1);
    /* What is not whole is still in a list of pending ones, and judged from there. */
    if (entry->flying == 0 && entry->whole)
        judge(path, entry);
}

static bool take_completions(struct path *path, uint64_t now_ns)
{
    struct transport_completion completions[POST_MAX];
    bool moved = false;

    for (uint32_t round = 0; round < POLLS_MAX; round++) {
        uint32_t count = 0;
        const mc_status status =
            path->carrier->ops->poll(path->queue, now_ns, completions, POST_MAX, &count);
        if (status != MC_OK) {
            assert(path->flying == 0 && "a queue fails for good when all its slices are back");
            if (path->status == MC_OK)
                path->status = status;
            path->over = true;
            return true;
        }
        for (uint32_t i = 0; i < count; i++)
            complete(path, &completions[i]);
        moved = moved || count > 0;
        if (count == 0)
            break;
    }
    if (path->flying == 0)
        path->calling_back = false;
    return moved;
}

/* ------------------------------------------------------------------------------------ its end */

static void say_why(struct path *path)
{
    path->error.status = path->status;
    if (path->carrier->ops->queue_error)
        path->carrier->ops->queue_error(path->queue, &path->error);
    if (!path->error.text[0])
        error_set(&path->error, path->status, "%s, by %s: %s", path->segment->name,
                  path->carrier->name, mc_status_text(path->status));
    path->error.status = path->status;
}

/* The queue has failed and nothing flies: its entries go elsewhere. */
static void fail(struct path *path)
{
    struct segment *segment = path->segment;
    const uint32_t index = path->carrier->index;
    struct entry *entry;

    say_why(path);
    engine_log(segment->engine, MC_LOG_INFO, "event=queue_failed peer=%s transport=%s status=%s",
               segment->name, path->carrier->name, mc_status_name(path->status));
    segment->paths[index] = NULL;
    segment->again_ns[index] = os_now_ns() + AGAIN_NS;
    segment->stale = segment->description != NULL; /* it may be another life of the peer */
    path->next = segment->dying;
    segment->dying = path;
    while (path->ready) {
        struct work *work = path->ready;
        path->ready = work->next;
        struct entry *its = work->entry;
        if (its->error == MC_OK)
            its->error = path->status;
        work_done(path, work);
        if (its->flying == 0 && its->whole)
            list_push(&path->judged, its);
    }
    path->ready_end = &path->ready;
    for (uint32_t p = 0; p < PRIORITIES; p++) {
        while ((entry = list_pop(&path->pending[p])) != NULL) {
            if (entry->error == MC_OK)
                entry->error = path->status;
            list_push(&path->judged, entry);
        }
    }
}

static void pass_judgement(struct path *path)
{
    struct entry *entry;

    while ((entry = list_pop(&path->judged)) != NULL)
        route_again(path->segment, entry, path);
}

bool path_step(struct path *path, uint64_t now_ns)
{
    bool moved = false;

    if (path->status == MC_OK && !path->calling_back) {
        moved = cut_all(path);
        moved = post_ready(path, now_ns) || moved;
    }
    if (path->flying > 0 || path->status != MC_OK)
        moved = take_completions(path, now_ns) || moved;
    if (path->over)
        fail(path);
    if (path->judged.first) {
        if (!path->over) { /* a queue that failed says so in its next poll */
            (void)take_completions(path, now_ns);
            if (path->over)
                fail(path);
        }
        pass_judgement(path);
        moved = true;
    }
    return moved;
}

void path_call_back(struct path *path)
{
    if (path->flying == 0 || path->calling_back)
        return;
    path->calling_back = true;
    path->carrier->ops->cancel(path->queue, MC_E_CANCELLED);
}

void path_drop_stopped(struct path *path)
{
    struct segment *segment = path->segment;
    const bool all = atomic_load(&segment->closed);
    struct work *ready = path->ready;

    path->ready = NULL;
    path->ready_end = &path->ready;
    while (ready) {
        struct work *work = ready;
        struct entry *entry = work->entry;
        ready = work->next;
        if (!all && batch_stopped(entry->batch) == MC_OK) {
            ready_push(path, work);
            continue;
        }
        work_done(path, work);
        if (entry->error == MC_OK)
            entry->error = all ? MC_E_CANCELLED : batch_stopped(entry->batch);
        if (entry->flying == 0 && entry->whole)
            list_push(&path->judged, entry);
    }
    for (uint32_t p = 0; p < PRIORITIES; p++) {
        struct entry_list list = path->pending[p];
        path->pending[p] = (struct entry_list){ 0 };
        struct entry *entry;
        while ((entry = list_pop(&list)) != NULL) {
            if (!all && batch_stopped(entry->batch) == MC_OK) {
                list_push(&path->pending[p], entry);
                continue;
            }
            if (entry->error == MC_OK)
                entry->error = all ? MC_E_CANCELLED : batch_stopped(entry->batch);
            entry->whole = true; /* no more of it is cut */
            if (entry->flying == 0)
                list_push(&path->judged, entry);
        }
    }
    for (uint32_t i = 0; i < path->depth; i++) {
        const struct entry *entry = path->works[i].entry;
        if (entry && (all || batch_stopped(entry->batch) != MC_OK)) {
            path_call_back(path);
            break;
        }
    }
    pass_judgement(path);
}

void paths_bury(struct segment *segment)
{
    for (struct path **at = &segment->dying; *at;) {
        struct path *path = *at;
        struct transport_completion completions[POST_MAX];
        uint32_t count = 0;
        if (path->watched) { /* the loop takes its hands off first */
            segment_call(segment);
            at = &path->next;
            continue;
        }
        if (path->carrier->ops->queue_close(path->queue) != MC_OK) {
            (void)path->carrier->ops->poll(path->queue, os_now_ns(), completions, POST_MAX, &count);
            at = &path->next;
            continue;
        }
        *at = path->next;
        path_free(path);
    }
}

void paths_close(struct segment *segment)
{
    for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
        struct path *path = segment->paths[i];
        if (!path)
            continue;
        segment->paths[i] = NULL;
        path->next = segment->dying;
        segment->dying = path;
    }
    paths_bury(segment);
}
