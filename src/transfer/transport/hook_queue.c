/* hook_queue.c - slices on their way through a hook: decided at post, moved by the inner queue, spoilt. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/prng.h"
#include "os/clock.h"
#include "transfer/transport/hook.h"

enum {
    DEPTH = 256,          /* slices in one queue */
    POLL_AT_ONCE = 64,    /* of the inner queue */
    PAUSE_NS = 50 * 1000, /* between polls of an inner queue that cannot be armed */
};

enum fate { FATE_MOVES, FATE_FAILS, FATE_CORRUPT, FATE_DROPPED, FATE_ENDS };

/** One slice of ours in the queue's pool, with the one that the inner queue gets for it. */
struct hooked {
    struct hooked *next;
    struct transport_slice *outer; /* the engine's */
    enum fate fate;
    bool spoiling; /* it has moved; now a wrong byte goes behind it */
    mc_status status;
    uint64_t bytes, due_ns, at;   /* at: the byte to be flipped */
    uint8_t byte;                 /* what is written over it */
    struct transport_slice inner; /* the inner transport's private state lies behind */
};

struct hooked_list {
    struct hooked *first, *last;
};

/** The queue's private bytes. */
struct hook_queue {
    struct hook *hook; /* borrowed */
    struct hook_memory queue, pool;
    size_t stride; /* bytes of one in the pool */
    /* free; for the inner queue; nobody moves them; to be handed out, by due_ns */
    struct hooked_list unused, waiting, dropped, ready;
    uint32_t inside;            /* posted to the inner queue and not completed */
    mc_status status;           /* MC_OK, or why it failed for good */
    bool ended;                 /* by us: the text is ours */
    int epoll, timer, inner_fd; /* -1: none yet */
};
static_assert(sizeof(struct hook_queue) <= HOOK_QUEUE_BYTES, "hook.h states it");

static void put(struct hooked_list *list, struct hooked *hooked)
{
    hooked->next = NULL;
    if (list->last)
        list->last->next = hooked;
    else
        list->first = hooked;
    list->last = hooked;
}

static struct hooked *take(struct hooked_list *list)
{
    struct hooked *hooked = list->first;

    if (hooked) {
        list->first = hooked->next;
        if (!list->first)
            list->last = NULL;
    }
    return hooked;
}

/** The slice is decided and quiet; it comes out when its delay is over. */
static void done(struct hook_queue *queue, struct hooked *hooked, mc_status status, uint64_t bytes,
                 uint64_t due_ns)
{
    hooked->status = status;
    hooked->bytes = bytes;
    hooked->due_ns = due_ns;
    put(&queue->ready, hooked);
}

/* -------------------------------------------------------------------------------------------- fate */

static void count(atomic_uint_fast64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/** Whether one of these happens to slice `number`: `share` of all, or the one at `at`. */
static bool happens(const struct hook_options *o, uint64_t number, uint64_t stream, float share,
                    uint64_t at)
{
    if (at != 0 && number == at)
        return true;
    return share > 0 && prng_unit(prng_at(o->seed ^ stream << 56, number)) < (double)share;
}

static enum fate decide(struct hook *hook, struct hooked *hooked)
{
    const struct hook_options *o = &hook->options;
    const uint64_t number = atomic_fetch_add_explicit(&hook->slices, 1, memory_order_relaxed) + 1;

    if (o->end_at != 0 && number == o->end_at) {
        count(&hook->ended);
        return FATE_ENDS;
    }
    if (happens(o, number, 1, o->fail, o->fail_at)) {
        count(&hook->failed);
        return FATE_FAILS;
    }
    if (happens(o, number, 2, o->drop, o->drop_at)) {
        count(&hook->dropped);
        return FATE_DROPPED;
    }
    if (hooked->outer->length != 0 && happens(o, number, 3, o->corrupt, o->corrupt_at)) {
        hooked->at = prng_at(o->seed ^ UINT64_C(4) << 56, number) % hooked->outer->length;
        return FATE_CORRUPT; /* counted when it has happened */
    }
    return FATE_MOVES;
}

static mc_status failing_status(const struct hook *hook)
{
    static const mc_status statuses[] = { MC_E_IO,    MC_E_PEER,    MC_E_STALE,  MC_E_DENIED,
                                          MC_E_RANGE, MC_E_CORRUPT, MC_E_TIMEOUT };

    return statuses[hook->options.status];
}

/* -------------------------------------------------------------------------------------------- inner */

/** What the inner queue is to move for it. */
static void make_inner(const struct hook *hook, struct hooked *hooked)
{
    struct transport_slice *slice = &hooked->inner;

    *slice = *hooked->outer;
    slice->user = hooked;
    slice->local_region = hook_region_inner(hooked->outer->local_region);
    memset(slice + 1, 0, hook->inner->slice_bytes);
}

/** The same, for the one byte that spoils a write which has landed. */
static void make_spoiler(const struct hook *hook, struct hooked *hooked)
{
    struct transport_slice *slice = &hooked->inner;

    make_inner(hook, hooked);
    hooked->byte = (uint8_t)(((const uint8_t *)hooked->outer->local)[hooked->at] ^ 0x10);
    hooked->spoiling = true;
    slice->flags = 0;
    slice->local = &hooked->byte;
    slice->local_region = NULL;
    slice->length = slice->remote.length = 1;
    slice->remote.offset += hooked->at;
    if (slice->remote.region_offset != UINT64_MAX)
        slice->remote.region_offset += hooked->at;
}

static void fail_all(struct hook_queue *queue, mc_status status)
{
    struct hooked *hooked;

    while ((hooked = take(&queue->waiting)) != NULL)
        done(queue, hooked, hooked->spoiling ? MC_OK : status,
             hooked->spoiling ? hooked->outer->length : 0, 0);
    while ((hooked = take(&queue->dropped)) != NULL)
        done(queue, hooked, status, 0, 0);
    for (hooked = queue->ready.first; hooked; hooked = hooked->next)
        hooked->due_ns = 0;
}

/** Give the inner queue what waits for it. */
static void feed(struct hook_queue *queue)
{
    const struct transport_ops *inner = queue->hook->inner;

    while (queue->status == MC_OK && queue->waiting.first) {
        struct transport_slice *slices[POLL_AT_ONCE];
        uint32_t posted = 0, have = 0;

        for (struct hooked *h = queue->waiting.first; h && have < POLL_AT_ONCE; h = h->next)
            slices[have++] = &h->inner;
        const mc_status status = inner->post(queue->queue.p, slices, have, &posted);
        if (status != MC_OK) {
            /* What is still inside completes by itself. */
            queue->status = status;
            fail_all(queue, status);
            return;
        }
        for (uint32_t i = 0; i < posted; i++)
            (void)take(&queue->waiting);
        queue->inside += posted;
        if (posted < have)
            return;
    }
}

static bool summed(const struct hook *hook, const struct hooked *hooked)
{
    return (hooked->outer->flags & 1) && !hook->options.past;
}

/** The inner queue is finished with it. */
static void came(struct hook_queue *queue, struct hooked *hooked, mc_status status, uint64_t bytes,
                 uint64_t now_ns)
{
    struct hook *hook = queue->hook;
    const uint64_t due_ns = now_ns + hook->options.delay_ns;

    if (hooked
            ->spoiling) { /* the transfer itself was right; whether the byte landed, nobody promises */
        if (status == MC_OK)
            count(&hook->corrupted);
        const bool found = status == MC_OK && summed(hook, hooked);
        done(queue, hooked, found ? MC_E_CORRUPT : MC_OK, found ? 0 : hooked->outer->length,
             due_ns);
        return;
    }
    if (status != MC_OK || hooked->fate != FATE_CORRUPT) {
        done(queue, hooked, status, bytes, due_ns);
        return;
    }
    if (hooked->outer->op == MC_WRITE && queue->status != MC_OK) { /* no spoiler gets through now */
        done(queue, hooked, MC_OK, bytes, due_ns);
        return;
    }
    if (hooked->outer->op == MC_WRITE) {
        make_spoiler(hook, hooked);
        put(&queue->waiting, hooked);
        return;
    }
    ((uint8_t *)hooked->outer->local)[hooked->at] ^= 0x10;
    count(&hook->corrupted);
    done(queue, hooked, summed(hook, hooked) ? MC_E_CORRUPT : MC_OK,
         summed(hook, hooked) ? 0 : bytes, due_ns);
}

/** Take what the inner queue has. */
static void drain(struct hook_queue *queue, uint64_t now_ns)
{
    const struct transport_ops *inner = queue->hook->inner;
    struct transport_completion completions[POLL_AT_ONCE];
    uint32_t got = 0;
    const mc_status status = inner->poll(queue->queue.p, now_ns, completions, POLL_AT_ONCE, &got);

    assert(got <= queue->inside);
    queue->inside -= got;
    for (uint32_t i = 0; i < got; i++)
        came(queue, completions[i].slice->user, completions[i].status, completions[i].bytes,
             now_ns);
    if (status != MC_OK && queue->status == MC_OK) {
        queue->status = status;
        fail_all(queue, status);
    }
}

/* ---------------------------------------------------------------------------------------- the table */

mc_status hook_queue_open(void *transport, const struct transport_peer *peer, void *private,
                          struct mc_error *error)
{
    struct hook_queue *queue = private;
    struct hook *hook = transport;
    const struct mc_alloc *alloc = hook->env->alloc;
    const size_t size = sizeof(struct hooked) + hook->inner->slice_bytes;
    mc_status status = MC_E_NOMEM;

    queue->hook = hook;
    queue->epoll = queue->timer = queue->inner_fd = -1;
    queue->stride = (size + 63) / 64 * 64;
    if (!hook_memory_take(&queue->queue, alloc, hook->inner->queue_bytes) ||
        !hook_memory_take(&queue->pool, alloc, queue->stride * DEPTH)) {
        (void)error_set(error, MC_E_NOMEM, "hook: out of memory");
        goto err_free;
    }
    for (size_t i = 0; i < DEPTH; i++)
        put(&queue->unused, (struct hooked *)(void *)((char *)queue->pool.p + i * queue->stride));
    status = hook->inner->queue_open(hook->transport.p, peer, queue->queue.p, error);
    if (status == MC_OK)
        return MC_OK;

err_free:
    hook_memory_free(&queue->pool, alloc);
    hook_memory_free(&queue->queue, alloc);
    return status;
}

/** One slice goes where its fate wants it. */
static void admit(struct hook_queue *queue, struct transport_slice *outer)
{
    struct hook *hook = queue->hook;
    struct hooked *hooked = take(&queue->unused);

    hooked->outer = outer;
    hooked->spoiling = false;
    hooked->fate = decide(hook, hooked);
    switch (hooked->fate) {
    case FATE_FAILS:
        done(queue, hooked, failing_status(hook), 0,
             hook->options.delay_ns != 0 ? os_now_ns() + hook->options.delay_ns : 0);
        break;
    case FATE_DROPPED:
        put(&queue->dropped, hooked);
        break;
    case FATE_ENDS:
        put(&queue->dropped, hooked);
        queue->ended = true;
        queue->status = MC_E_PEER;
        hook->inner->cancel(queue->queue.p, MC_E_PEER);
        fail_all(queue, MC_E_PEER);
        break;
    default:
        make_inner(hook, hooked);
        put(&queue->waiting, hooked);
    }
}

mc_status hook_queue_post(void *private, struct transport_slice *const *slices, uint32_t count,
                          uint32_t *posted_p)
{
    struct hook_queue *queue = private;

    *posted_p = 0;
    if (queue->status != MC_OK)
        return queue->status;
    while (*posted_p < count && queue->unused.first && queue->status == MC_OK)
        admit(queue, slices[(*posted_p)++]);
    feed(queue);
    return MC_OK;
}

mc_status hook_queue_poll(void *private, uint64_t now_ns, struct transport_completion *completions,
                          uint32_t max, uint32_t *count_p)
{
    struct hook_queue *queue = private;

    feed(queue);
    drain(queue, now_ns);
    feed(queue);
    *count_p = 0;
    while (*count_p < max && queue->ready.first && queue->ready.first->due_ns <= now_ns) {
        struct hooked *hooked = take(&queue->ready);

        completions[(*count_p)++] =
            (struct transport_completion){ hooked->outer, hooked->status, hooked->bytes };
        put(&queue->unused, hooked);
    }
    if (*count_p != 0 || queue->ready.first || queue->inside != 0)
        return MC_OK;
    return queue->status;
}

/** Wake by the inner queue's descriptor, or when the first delay is over. */
static mc_status watch(struct hook_queue *queue, int inner_fd, uint64_t due_ns)
{
    struct epoll_event event = { .events = EPOLLIN };
    const struct itimerspec at = { .it_value = { .tv_sec = (time_t)(due_ns / 1000000000),
                                                 .tv_nsec = (long)(due_ns % 1000000000) } };

    if (queue->epoll < 0) {
        queue->epoll = epoll_create1(EPOLL_CLOEXEC);
        queue->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
        if (queue->epoll < 0 || queue->timer < 0 ||
            epoll_ctl(queue->epoll, EPOLL_CTL_ADD, queue->timer, &event) != 0)
            return MC_E_IO;
    }
    if (inner_fd != queue->inner_fd) {
        if (queue->inner_fd >= 0)
            (void)epoll_ctl(queue->epoll, EPOLL_CTL_DEL, queue->inner_fd, NULL);
        queue->inner_fd = -1;
        if (epoll_ctl(queue->epoll, EPOLL_CTL_ADD, inner_fd, &event) != 0)
            return MC_E_IO;
        queue->inner_fd = inner_fd;
    }
    return timerfd_settime(queue->timer, TFD_TIMER_ABSTIME, &at, NULL) == 0 ? MC_OK : MC_E_IO;
}

mc_status hook_queue_arm(void *private, int *fd_p)
{
    struct hook_queue *queue = private;
    const struct transport_ops *inner = queue->hook->inner;
    uint64_t due_ns = queue->ready.first ? queue->ready.first->due_ns : 0;
    int inner_fd = queue->inner_fd;

    if (queue->status != MC_OK || (queue->ready.first && due_ns <= os_now_ns()))
        return MC_PENDING;
    if (inner->arm) {
        const mc_status status = inner->arm(queue->queue.p, &inner_fd);

        if (status != MC_OK)
            return status;
    } else if (due_ns == 0 || due_ns > os_now_ns() + PAUSE_NS) {
        due_ns = os_now_ns() + PAUSE_NS;
    }
    if (watch(queue, inner_fd, due_ns) != MC_OK)
        return MC_PENDING; /* polling does without */
    *fd_p = queue->epoll;
    return MC_OK;
}

void hook_queue_cancel(void *private, mc_status reason)
{
    struct hook_queue *queue = private;

    fail_all(queue, reason);
    queue->hook->inner->cancel(queue->queue.p, reason);
}

mc_status hook_queue_close(void *private)
{
    struct hook_queue *queue = private;
    const struct mc_alloc *alloc = queue->hook->env->alloc;
    const mc_status status = queue->hook->inner->queue_close(queue->queue.p);

    if (status != MC_OK) {
        fail_all(queue, MC_E_CANCELLED);
        return status;
    }
    if (queue->timer >= 0)
        close(queue->timer);
    if (queue->epoll >= 0)
        close(queue->epoll);
    hook_memory_free(&queue->pool, alloc);
    hook_memory_free(&queue->queue, alloc);
    return MC_OK;
}

void hook_queue_error(void *private, struct mc_error *error)
{
    struct hook_queue *queue = private;

    if (queue->ended)
        (void)error_set(error, MC_E_PEER, "hook: the queue was ended on purpose");
    else if (queue->hook->inner->queue_error)
        queue->hook->inner->queue_error(queue->queue.p, error);
}
