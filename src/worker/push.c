/* push.c - batches of one transfer each, by their descriptors in the loop. */
#include "worker/push.h"

#include "base/alloc.h"
#include "os/clock.h"

struct push {
    struct push *next;
    struct pushes *of;
    mc_batch *batch;
    struct os_watch watch;
    push_done *done;
    void *owner;
    uint64_t bytes;
};

void pushes_init(struct pushes *pushes, const struct mc_alloc *alloc, os_loop *loop,
                 mc_transfer *transfer, uint64_t timeout_ns)
{
    *pushes = (struct pushes){
        .alloc = alloc, .loop = loop, .transfer = transfer, .timeout_ns = timeout_ns
    };
}

static void unlink_push(struct push **list, struct push *push)
{
    while (*list != push)
        list = &(*list)->next;
    *list = push->next;
}

static void discard(struct push *push)
{
    os_loop_unwatch(push->of->loop, &push->watch);
    mc_batch_close(push->batch);
    alloc_free(push->of->alloc, push);
}

static void discard_idle(struct pushes *pushes)
{
    while (pushes->idle) {
        struct push *push = pushes->idle;
        pushes->idle = push->next;
        discard(push);
    }
}

/* Quiet: the batch is kept for the next one. When the last is, a burst is over: its batches, and the
 * descriptors that some of them have, go. */
static void finish(struct push *push, mc_status status)
{
    struct pushes *pushes = push->of;
    push_done *done = push->done;
    void *owner = push->owner;
    const uint64_t bytes = push->bytes;

    unlink_push(&pushes->busy, push);
    pushes->bytes -= bytes;
    os_loop_unwatch(pushes->loop, &push->watch);
    push->next = pushes->idle;
    pushes->idle = push;
    if (!pushes->busy)
        discard_idle(pushes);
    done(owner, status, bytes);
}

static void look(void *user, uint32_t events)
{
    struct push *push = user;
    const mc_status status = mc_batch_poll(push->batch);

    (void)events;
    if (status != MC_PENDING)
        finish(push, status);
}

static struct push *open_push(struct pushes *pushes)
{
    const struct mc_batch_options options = { .capacity = 1 };
    struct push *push = alloc_zeroed(pushes->alloc, 1, sizeof(*push));

    if (!push)
        return NULL;
    *push = (struct push){ .of = pushes, .watch = { .fd = -1, .ready = look, .user = push } };
    if (mc_batch_open(pushes->transfer, &options, &push->batch) != MC_OK) {
        alloc_free(pushes->alloc, push);
        return NULL;
    }
    if (mc_batch_fd(push->batch, &push->watch.fd) != MC_OK) {
        discard(push);
        return NULL;
    }
    return push;
}

static struct push *take_push(struct pushes *pushes)
{
    struct push *push = pushes->idle;

    if (!push)
        return open_push(pushes);
    pushes->idle = push->next;
    return push;
}

static mc_status post(struct push *push, const struct mc_xfer *xfer)
{
    const uint64_t timeout = push->of->timeout_ns;
    mc_status status = mc_batch_reset(push->batch, timeout ? os_now_ns() + timeout : MC_FOREVER);

    if (status == MC_OK)
        status = mc_batch_add(push->batch, xfer, 1);
    if (status == MC_OK)
        status = mc_batch_submit(push->batch);
    return status;
}

/* It is under way. Who cannot be watched would not be heard of: it is cancelled, quiet before this
 * returns, and what it was for is lost. */
static void watch(struct push *push)
{
    struct pushes *pushes = push->of;
    push_done *done = push->done;
    void *owner = push->owner;
    const mc_status status = os_loop_watch(pushes->loop, &push->watch, OS_READABLE);

    if (status == MC_OK)
        return;
    unlink_push(&pushes->busy, push);
    pushes->bytes -= push->bytes;
    discard(push);
    done(owner, status, 0);
}

void push_begin(struct pushes *pushes, const struct mc_xfer *xfer, push_done *done, void *owner)
{
    const uint64_t count = xfer->count ? xfer->count : 1;
    struct push *push = take_push(pushes);

    if (!push) {
        done(owner, MC_E_NOMEM, 0);
        return;
    }
    push->done = done;
    push->owner = owner;
    push->bytes = xfer->length * count;
    push->next = pushes->busy;
    pushes->busy = push;
    pushes->bytes += push->bytes;
    mc_status status = post(push, xfer);
    if (status == MC_OK)
        status = mc_batch_poll(push->batch);
    if (status == MC_PENDING) /* most are through by now, and only the others cost a system call */
        watch(push);
    else
        finish(push, status);
}

void pushes_stop(struct pushes *pushes, const void *owner)
{
    for (struct push *push = pushes->busy; push; push = push->next)
        if (push->owner == owner)
            mc_batch_cancel(push->batch);
}

void pushes_fini(struct pushes *pushes)
{
    while (pushes->busy) {
        struct push *push = pushes->busy;
        push_done *done = push->done;
        void *owner = push->owner;
        pushes->busy = push->next;
        pushes->bytes -= push->bytes;
        discard(push); /* cancels, waits until quiet */
        done(owner, MC_E_CANCELLED, 0);
    }
    discard_idle(pushes);
}
