/* shm_queue.c - slices to and from a peer's memory: pin, check, copy at most 1 MiB, unpin. */
#include "transfer/transport/shm_queue.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"

static const uint64_t CHECK_NS = 1000000; /* how often it is asked whether the peer still lives */

/* -------------------------------------------------------------------------------------- lists */

void shm_list_add(struct shm_list *list, struct transport_slice *slice)
{
    shm_slice_of(slice)->next = NULL;
    if (list->last)
        shm_slice_of(list->last)->next = slice;
    else
        list->first = slice;
    list->last = slice;
}

struct transport_slice *shm_list_take(struct shm_list *list)
{
    struct transport_slice *slice = list->first;

    if (slice) {
        list->first = shm_slice_of(slice)->next;
        if (!list->first)
            list->last = NULL;
    }
    return slice;
}

void shm_list_move(struct shm_list *to, struct shm_list *from)
{
    if (!from->first)
        return;
    if (to->last)
        shm_slice_of(to->last)->next = from->first;
    else
        to->first = from->first;
    to->last = from->last;
    *from = (struct shm_list){ 0 };
}

/* --------------------------------------------------------------------------------------- life */

mc_status shm_queue_open(void *transport, const struct transport_peer *peer, void *queue,
                         struct mc_error *error)
{
    const struct shm *shm = transport;
    struct shm_queue *q = queue;
    struct shm_address address;

    if (!shm_address_decode(peer->address, peer->address_size, &address))
        return error_set(error, MC_E_FORMAT, "shm: %s: not an address", peer->name);
    struct shm_map *maps = alloc_zeroed(shm->alloc, SHM_MAPS, sizeof(*maps));
    if (!maps)
        return error_set(error, MC_E_NOMEM, "shm: no memory for a queue");
    *q = (struct shm_queue){ .shm = shm,
                             .address = address,
                             .incarnation = peer->incarnation,
                             .fd = -1,
                             .process.pidfd = -1,
                             .maps = maps };
    snprintf(q->name, sizeof(q->name), "%s", peer->name ? peer->name : "?");
    shm_connect_step(q);
    if (q->state != SHM_FAILED)
        return MC_OK;

    /* Known at once: nobody listens there on this machine. */
    const mc_status status = q->error.status;
    error_set(error, status, "%s", q->error.text);
    shm_connect_end(q);
    alloc_free(shm->alloc, maps);
    q->maps = NULL;
    return status;
}

/* What a slice may end with (transport.h); the queue's own text tells more. */
static mc_status outcome_of(mc_status status)
{
    switch (status) {
    case MC_E_DENIED:
    case MC_E_STALE:
    case MC_E_PEER:
    case MC_E_IO:
        return status;
    default:
        return MC_E_PEER;
    }
}

static void finish(struct shm_queue *queue, struct transport_slice *slice, mc_status status)
{
    shm_slice_of(slice)->status = status;
    shm_list_add(&queue->finished, slice);
}

static void finish_all(struct shm_queue *queue, mc_status status)
{
    struct transport_slice *slice;

    shm_list_move(&queue->ready, &queue->waiting);
    while ((slice = shm_list_take(&queue->ready)))
        finish(queue, slice, status);
}

void shm_queue_cancel(void *queue, mc_status reason)
{
    finish_all(queue,
               reason); /* nothing is ever half-way between two calls: all is quiet already */
}

mc_status shm_queue_close(void *queue)
{
    struct shm_queue *q = queue;

    shm_queue_cancel(q, MC_E_CANCELLED);
    if (q->posted > 0)
        return MC_E_BUSY; /* until their completions are taken */
    shm_map_end(q);
    shm_connect_end(q);
    alloc_free(q->shm->alloc, q->maps);
    q->maps = NULL;
    return MC_OK;
}

void shm_queue_error(void *queue, struct mc_error *error)
{
    const struct shm_queue *q = queue;

    if (error)
        *error = q->error;
}

/* Hot: takes them only; poll moves them. */
mc_status shm_queue_post(void *queue, struct transport_slice *const *slices, uint32_t count,
                         uint32_t *posted_p)
{
    struct shm_queue *q = queue;
    const uint32_t room = SHM_QUEUE_DEPTH - q->posted, take = count < room ? count : room;

    if (q->state == SHM_FAILED)
        return outcome_of(q->error.status);
    for (uint32_t i = 0; i < take; i++) {
        *shm_slice_of(slices[i]) = (struct shm_slice){ 0 };
        shm_list_add(&q->ready, slices[i]);
    }
    q->posted += take;
    *posted_p = take;
    return MC_OK;
}

mc_status shm_queue_arm(void *queue, int *fd_p)
{
    const struct shm_queue *q = queue;

    if (q->finished.first || q->state == SHM_FAILED || q->fd < 0 ||
        (q->state == SHM_READY && q->ready.first))
        return MC_PENDING;
    *fd_p = q->fd;
    return MC_OK;
}

/* ------------------------------------------------------------------------------------- copying */

/* What a slice needs next. */
enum step { STEP_MOVED, STEP_ENDED, STEP_WAITS };

static mc_status move_mapped(struct shm_queue *q, struct shm_map *map,
                             const struct transport_slice *slice, uint64_t done, uint64_t offset,
                             uint64_t length)
{
    char *local = (char *)slice->local + done;

    /* The page is the peer's word; this is what the kernel mapped. */
    if (offset > map->size || length > map->size - offset)
        return MC_E_RANGE;
    if (slice->op == MC_WRITE && !map->writable)
        return MC_E_DENIED;
    if (shm_map_touch(map, offset, length) != MC_OK)
        return MC_E_IO;
    q->used = map;
    if (slice->op == MC_READ)
        copier_copy(&q->shm->copier, local, map->bytes + offset, length, slice->length);
    else
        copier_copy(&q->shm->copier, map->bytes + offset, local, length, slice->length);
    return MC_OK;
}

static mc_status move_attached(struct shm_queue *q, const struct transport_slice *slice,
                               uint64_t done, uint64_t address, uint64_t length)
{
    if (!q->attach)
        return error_set(&q->error, MC_E_IO,
                         "shm: %s: memory that can neither be mapped nor attached", q->name);
    return shm_attach_copy(q->process.pid, slice->op, (char *)slice->local + done, address, length,
                           &q->error);
}

/* Under the pin. */
static mc_status move_pinned(struct shm_queue *q, const struct shm_key *key,
                             struct transport_slice *slice, uint64_t length)
{
    const uint64_t done = shm_slice_of(slice)->done;
    struct shm_place place;
    const mc_status status = shm_check(q->page, key, &slice->remote, &place);

    if (status != MC_OK)
        return status;
    struct shm_map *map = NULL;
    if (place.flags & SHM_MAPPED) {
        map = shm_map_find(q, key->region, key->generation);
        if (!map)
            return MC_PENDING;
    }
    if (map && !map->attach)
        return move_mapped(q, map, slice, done, place.offset + done, length);
    return move_attached(q, slice, done, place.address + place.offset + done, length);
}

/* Hot. One piece of a slice: no allocation; a system call only for attached or untouched memory. */
static enum step step(struct shm_queue *q, struct transport_slice *slice, uint64_t budget,
                      uint64_t *moved_p)
{
    struct shm_slice *state = shm_slice_of(slice);
    const uint64_t left = slice->length - state->done;
    const uint64_t most = budget < SHM_PIECE ? budget : SHM_PIECE;
    const uint64_t length = left < most ? left : most;
    struct shm_key key;

    if (!shm_key_decode(slice->remote_key, slice->remote_key_size, &key)) {
        finish(q, slice, MC_E_IO); /* the peer gave no key for it: not reached this way */
        return STEP_ENDED;
    }
    /* Pin, then look: see shm_control.h. Release at the end: the copy is done before the pin is gone. */
    atomic_store(&q->pins->pin, shm_pin_word(key.region, key.window));
    const mc_status status = length ? move_pinned(q, &key, slice, length) : MC_OK;
    atomic_store_explicit(&q->pins->pin, 0, memory_order_release);

    if (status == MC_PENDING)
        return STEP_WAITS;
    if (status == MC_OK) {
        state->done += length;
        *moved_p += length;
        if (state->done < slice->length)
            return STEP_MOVED;
    }
    finish(q, slice, status);
    return STEP_ENDED;
}

/* The region of a slice is not mapped yet. */
static void wait_for_map(struct shm_queue *q, struct transport_slice *slice)
{
    struct shm_key key;

    shm_list_add(&q->waiting, slice);
    if (q->asked.region == 0 && shm_key_decode(slice->remote_key, slice->remote_key_size, &key))
        shm_connect_ask(q, &key); /* if it fails, so has the queue */
}

/* Move what is ready, until the budget or the room for completions is used up. */
static void move(struct shm_queue *q, uint32_t max)
{
    uint64_t moved = 0;

    q->used = NULL;
    for (uint32_t ended = 0; ended < max && moved < SHM_POLL_BYTES && q->state == SHM_READY;) {
        struct transport_slice *slice = shm_list_take(&q->ready);
        if (!slice)
            break;
        enum step next;
        do {
            next = step(q, slice, SHM_POLL_BYTES - moved, &moved);
        } while (next == STEP_MOVED && moved < SHM_POLL_BYTES);
        if (next == STEP_WAITS)
            wait_for_map(q, slice);
        else if (next == STEP_MOVED)
            shm_list_add(&q->ready, slice); /* behind the others, so that small ones pass it */
        ended += next == STEP_ENDED;
    }
    if (q->used)
        shm_map_touch_more(q->used);
}

/* ---------------------------------------------------------------------------------------- poll */

/* Everything but copying: the connection, answers, signs of death. */
static void attend(struct shm_queue *q, uint64_t now_ns)
{
    if (q->state == SHM_DIALLING || q->state == SHM_ASKED) {
        shm_connect_step(q);
        q->checked_ns = now_ns;
    } else if (q->state == SHM_READY &&
               (q->asked.region != 0 || now_ns - q->checked_ns >= CHECK_NS)) {
        q->checked_ns = now_ns;
        if (shm_connect_answer(q) == MC_OK)
            shm_list_move(&q->ready, &q->waiting);
    }
    if (q->state == SHM_FAILED)
        finish_all(q, outcome_of(q->error.status));
}

mc_status shm_queue_poll(void *queue, uint64_t now_ns, struct transport_completion *completions,
                         uint32_t max, uint32_t *count_p)
{
    struct shm_queue *q = queue;
    uint32_t count = 0;

    attend(q, now_ns);
    if (!q->finished.first)
        move(q, max);
    if (q->state == SHM_FAILED) {
        finish_all(q, outcome_of(q->error.status));
        if (q->posted == 0) {
            *count_p = 0;
            return outcome_of(q->error.status);
        }
    }
    while (count < max) {
        struct transport_slice *slice = shm_list_take(&q->finished);
        if (!slice)
            break;
        completions[count++] = (struct transport_completion){ .slice = slice,
                                                              .status = shm_slice_of(slice)->status,
                                                              .bytes = shm_slice_of(slice)->done };
    }
    q->posted -= count;
    *count_p = count;
    return MC_OK;
}
