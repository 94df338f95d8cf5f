/* moves.c - a batch of the Transfer Engine for each move, its descriptor in the loop. */
#include "store/client/moves.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "os/clock.h"

enum { BATCH_PARTS = 8 };         /* what a batch that is used again holds */
#define LOOK_NS UINT64_C(1000000) /* between looks at what has no descriptor */

struct move {
    struct move *next, **at; /* at: while flying */
    struct moves *moves;
    mc_batch *batch; /* owned while flying */
    struct os_watch watch;
    bool watched;
    uint64_t tag;
    mc_status status;
    enum mc_op op;
    struct mc_replica replica;
    size_t count;
    struct mc_range parts[];
};

/* ----------------------------------------------------------------------------------------- lists */

static void list_push(struct move_list *list, struct move *move)
{
    move->next = NULL;
    if (!list->first)
        list->end = &list->first;
    *list->end = move;
    list->end = &move->next;
}

static struct move *list_pop(struct move_list *list)
{
    struct move *move = list->first;

    if (move)
        list->first = move->next;
    return move;
}

static void over(struct moves *moves, struct move *move, mc_status status)
{
    move->status = status;
    list_push(&moves->over, move);
}

/* --------------------------------------------------------------------------------------- batches */

static mc_status batch_take(struct moves *moves, size_t count, mc_batch **batch_p)
{
    if (count <= BATCH_PARTS && moves->idle_count > 0) {
        *batch_p = moves->idle[--moves->idle_count];
        return MC_OK;
    }
    /* No deadline: who ordered the move stops it, and not at a time when another could call it late. */
    const struct mc_batch_options options = {
        .capacity = count <= BATCH_PARTS ? BATCH_PARTS : count,
        .checksum = MC_CHECKSUM_NONE, /* objects carry their own */
    };
    return mc_batch_open(moves->transfer, &options, batch_p);
}

static void drop_idle(struct moves *moves)
{
    while (moves->idle_count > 0)
        mc_batch_close(moves->idle[--moves->idle_count]);
}

static void batch_give(struct moves *moves, mc_batch *batch, size_t count)
{
    if (count <= BATCH_PARTS && moves->idle_count < MOVES_FLYING_MAX &&
        mc_batch_reset(batch, MC_FOREVER) == MC_OK)
        moves->idle[moves->idle_count++] = batch;
    else
        mc_batch_close(batch);
    if (moves->flying_count ==
        0) /* the burst is over: its batches go, and what descriptors they have */
        drop_idle(moves);
}

static mc_status batch_fill(mc_batch *batch, const struct move *move)
{
    const struct mc_replica *replica = &move->replica;
    const bool windowed = (replica->window.key[0] | replica->window.key[1]) != 0;
    uint64_t offset = windowed ? 0 : replica->offset;

    for (size_t i = 0; i < move->count; i++) {
        const struct mc_xfer xfer = {
            .op = move->op,
            .segment = replica->segment,
            .region = replica->region,
            .window = windowed ? &replica->window : NULL,
            .offset = offset,
            .length = move->parts[i].size,
            .local = move->parts[i].address,
        };
        const mc_status status = mc_batch_add(batch, &xfer, 1);
        if (status != MC_OK)
            return status;
        offset += move->parts[i].size;
    }
    return MC_OK;
}

/* ---------------------------------------------------------------------------------------- flying */

static void land(struct moves *moves, struct move *move)
{
    *move->at = move->next;
    if (move->next)
        move->next->at = move->at;
    moves->flying_count--;
    if (move->watched)
        os_loop_unwatch(moves->loop, &move->watch);
    batch_give(moves, move->batch, move->count);
    move->batch = NULL;
}

/** Is it over? */
static bool look(struct moves *moves, struct move *move)
{
    const mc_status status = mc_batch_poll(move->batch);

    if (status == MC_PENDING)
        return false;
    land(moves, move);
    over(moves, move, status);
    return true;
}

static void start_more(struct moves *moves);

static void ready(void *user, uint32_t events)
{
    struct move *move = user;
    struct moves *moves = move->moves;

    (void)events;
    if (!look(moves, move))
        return;
    start_more(moves);
    moves->ended(moves->user);
}

static void look_due(void *user, uint64_t now_ns)
{
    struct moves *moves = user;
    bool any = false, left = false;

    for (struct move *move = moves->flying, *next; move; move = next) {
        next = move->next;
        if (move->watched)
            continue;
        any = look(moves, move) || any;
        left = true;
    }
    (void)os_loop_timer(moves->loop, &moves->look, left ? now_ns + LOOK_NS : UINT64_MAX);
    if (any) {
        start_more(moves);
        moves->ended(moves->user);
    }
}

static void watch(struct moves *moves, struct move *move)
{
    move->watch = (struct os_watch){ .ready = ready, .user = move };
    move->watched = mc_batch_fd(move->batch, &move->watch.fd) == MC_OK &&
                    os_loop_watch(moves->loop, &move->watch, OS_READABLE) == MC_OK;
    if (!move->watched) /* no descriptors left */
        (void)os_loop_timer(moves->loop, &moves->look, os_now_ns() + LOOK_NS);
}

static mc_status start(struct moves *moves, struct move *move)
{
    mc_status status = batch_take(moves, move->count, &move->batch);

    if (status != MC_OK)
        return status;
    status = batch_fill(move->batch, move);
    if (status == MC_OK)
        status = mc_batch_submit(move->batch);
    if (status != MC_OK) {
        batch_give(moves, move->batch, move->count);
        return status;
    }
    move->next = moves->flying;
    move->at = &moves->flying;
    if (move->next)
        move->next->at = &move->next;
    moves->flying = move;
    moves->flying_count++;
    if (!look(moves, move))
        watch(moves, move);
    return MC_OK;
}

static void start_more(struct moves *moves)
{
    while (moves->waiting.first && moves->flying_count < MOVES_FLYING_MAX) {
        struct move *move = list_pop(&moves->waiting);
        const mc_status status = start(moves, move);
        if (status != MC_OK)
            over(moves, move, status);
    }
}

/* ---------------------------------------------------------------------------- what others call */

mc_status moves_order(struct moves *moves, uint64_t tag, enum mc_op op,
                      const struct mc_replica *replica, const struct mc_range *parts, size_t count)
{
    size_t size;

    if (!size_mul(count, sizeof(*parts), &size) || !size_add(size, sizeof(struct move), &size))
        return MC_E_NOMEM;
    struct move *move = alloc_bytes(moves->alloc, size);
    if (!move)
        return MC_E_NOMEM;
    *move =
        (struct move){ .moves = moves, .tag = tag, .op = op, .replica = *replica, .count = count };
    memcpy(move->parts, parts, count * sizeof(*parts));
    if (moves->flying_count == MOVES_FLYING_MAX) {
        list_push(&moves->waiting, move);
        return MC_OK;
    }
    const mc_status status = start(moves, move);
    if (status != MC_OK)
        alloc_free(moves->alloc, move);
    return status;
}

static bool stop_waiting(struct moves *moves, uint64_t tag)
{
    for (struct move **at = &moves->waiting.first; *at; at = &(*at)->next) {
        struct move *move = *at;
        if (move->tag != tag)
            continue;
        *at = move->next;
        if (!*at)
            moves->waiting.end = at;
        over(moves, move, MC_E_CANCELLED);
        return true;
    }
    return false;
}

void moves_stop(struct moves *moves, uint64_t tag)
{
    if (stop_waiting(moves, tag))
        return;
    for (struct move *move = moves->flying; move; move = move->next)
        if (move->tag == tag) {
            (void)mc_batch_cancel(move->batch);
            (void)look(moves, move);
            return;
        }
}

bool moves_take(struct moves *moves, uint64_t *tag_p, mc_status *status_p)
{
    start_more(moves); /* some may have ended while they were ordered or stopped */
    struct move *move = list_pop(&moves->over);

    if (!move)
        return false;
    *tag_p = move->tag;
    *status_p = move->status;
    alloc_free(moves->alloc, move);
    return true;
}

/* --------------------------------------------------------------------------------- open and close */

mc_status moves_open(struct moves *moves, os_loop *loop, mc_transfer *transfer,
                     const struct mc_alloc *alloc, void (*ended)(void *user), void *user)
{
    *moves = (struct moves){
        .alloc = alloc, .loop = loop, .transfer = transfer, .ended = ended, .user = user
    };
    moves->look = (struct os_timer){ .due = look_due, .user = moves };
    /* Set once and for all, so that setting it anew needs no memory. */
    return os_loop_timer(loop, &moves->look, UINT64_MAX);
}

void moves_close(struct moves *moves)
{
    if (!moves->loop)
        return;
    assert(!moves->waiting.first && !moves->flying && !moves->over.first);
    os_loop_timer_stop(moves->loop, &moves->look);
    drop_idle(moves);
    *moves = (struct moves){ 0 };
}
