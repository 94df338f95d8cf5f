/* loop.c - epoll for descriptors, a heap for times, a stack that other threads push messages on. */
#define _GNU_SOURCE
#include "os/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum { EVENTS_MAX = 64, TIMERS_FIRST = 16 };

/** A set timer. Equal times fire in the order in which they were set. */
struct entry {
    uint64_t at_ns, order;
    struct os_timer *timer;
};

struct os_loop {
    const struct mc_alloc *alloc; /* borrowed */
    int epoll, event;             /* owned; event: eventfd that wakes the loop for posts */
    uint64_t now_ns;
    bool stopping, turning;
    bool old_kernel; /* no epoll_pwait2: waits are whole milliseconds */

    struct entry *heap; /* owned; [timers_capacity], the first `timers` are a binary heap */
    uint32_t timers, timers_capacity;
    uint64_t order; /* of the next timer that is set */

    struct epoll_event
        events[EVENTS_MAX];        /* of this turn; data.ptr: the watch, NULL once it was ended */
    int events_count, events_next; /* those before `next` were called */

    /* Pushed by any thread with release, taken whole by the loop's with acquire: that publishes what the
     * posts' owners wrote before. Who finds it empty wakes the loop; whoever comes later need not. */
    _Atomic(struct os_post *) posts;
};

/* ---------------------------------------------------------------------------------- life of one */

mc_status os_loop_open(const struct mc_alloc *alloc, os_loop **loop_p, struct mc_error *error)
{
    os_loop *loop = alloc_zeroed(alloc, 1, sizeof(*loop));
    struct epoll_event readable = { .events = EPOLLIN };

    if (!loop)
        return error_set(error, MC_E_NOMEM, "out of memory for a loop");
    loop->alloc = alloc;
    loop->event = -1;
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll >= 0)
        loop->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    readable.data.ptr = loop; /* no watch has this address */
    if (loop->event < 0 || epoll_ctl(loop->epoll, EPOLL_CTL_ADD, loop->event, &readable) != 0) {
        const int reason = errno;
        os_loop_close(loop);
        return error_set(error, MC_E_IO, "cannot open a loop: %s", strerror(reason));
    }
    loop->now_ns = os_now_ns();
    atomic_init(&loop->posts, NULL);
    *loop_p = loop;
    return MC_OK;
}

void os_loop_close(os_loop *loop)
{
    if (!loop)
        return;
    assert(!loop->turning);
    if (loop->event >= 0)
        close(loop->event);
    if (loop->epoll >= 0)
        close(loop->epoll);
    alloc_free(loop->alloc, loop->heap);
    alloc_free(loop->alloc, loop);
}

int os_loop_fd(const os_loop *loop)
{
    return loop->epoll;
}

uint64_t os_loop_now(const os_loop *loop)
{
    return loop->now_ns;
}

/* -------------------------------------------------------------------------------------- watches */

static uint32_t to_epoll(uint32_t events)
{
    return EPOLLRDHUP | (events & OS_READABLE ? (uint32_t)EPOLLIN : 0) |
           (events & OS_WRITABLE ? (uint32_t)EPOLLOUT : 0);
}

static uint32_t from_epoll(uint32_t events)
{
    return (events & EPOLLIN ? OS_READABLE : 0u) | (events & EPOLLOUT ? OS_WRITABLE : 0u) |
           (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? OS_HUNG_UP : 0u);
}

mc_status os_loop_watch(os_loop *loop, struct os_watch *watch, uint32_t events)
{
    struct epoll_event wanted = { .events = to_epoll(events), .data.ptr = watch };

    if (watch->known && watch->events == events)
        return MC_OK;
    if (epoll_ctl(loop->epoll, watch->known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, watch->fd, &wanted) !=
        0)
        return errno == ENOMEM || errno == ENOSPC ? MC_E_NOMEM : MC_E_IO;
    watch->known = true;
    watch->events = events;
    return MC_OK;
}

void os_loop_unwatch(os_loop *loop, struct os_watch *watch)
{
    if (!watch->known)
        return;
    (void)epoll_ctl(loop->epoll, EPOLL_CTL_DEL, watch->fd, NULL);
    watch->known = false;
    for (int i = loop->events_next; i < loop->events_count; i++)
        if (loop->events[i].data.ptr == watch)
            loop->events[i].data.ptr = NULL;
}

static void call_watches(os_loop *loop)
{
    while (loop->events_next < loop->events_count) {
        const struct epoll_event *event = &loop->events[loop->events_next++];
        struct os_watch *watch = event->data.ptr;

        if (!watch || event->data.ptr == loop)
            continue;
        /* Another callback of this turn may have asked for less. */
        const uint32_t events = from_epoll(event->events) & (watch->events | OS_HUNG_UP);
        if (events != 0)
            watch->ready(watch->user, events);
    }
}

/* --------------------------------------------------------------------------------------- timers */

static bool before(const struct entry *a, const struct entry *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void put(os_loop *loop, uint32_t index, struct entry entry)
{
    loop->heap[index] = entry;
    entry.timer->place = index + 1;
}

/** Put `entry` where it belongs, from the free slot `index` on towards the top or the leaves. */
static void settle(os_loop *loop, uint32_t index, struct entry entry)
{
    while (index > 0 && before(&entry, &loop->heap[(index - 1) / 2])) {
        put(loop, index, loop->heap[(index - 1) / 2]);
        index = (index - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * index + 1;
        if (child + 1 < loop->timers && before(&loop->heap[child + 1], &loop->heap[child]))
            child++;
        if (child >= loop->timers || !before(&loop->heap[child], &entry))
            break;
        put(loop, index, loop->heap[child]);
        index = child;
    }
    put(loop, index, entry);
}

static bool make_room(os_loop *loop)
{
    if (loop->timers < loop->timers_capacity)
        return true;
    const uint32_t capacity = loop->timers_capacity ? loop->timers_capacity * 2 : TIMERS_FIRST;
    struct entry *heap = alloc_resize(loop->alloc, loop->heap, capacity, sizeof(*heap));
    if (!heap)
        return false;
    loop->heap = heap;
    loop->timers_capacity = capacity;
    return true;
}

mc_status os_loop_timer(os_loop *loop, struct os_timer *timer, uint64_t at_ns)
{
    /* What is late is due now, behind all that is due already: a callback that sets its timer for the
     * past again and again does not keep the others waiting. */
    const struct entry entry = {
        .at_ns = at_ns > loop->now_ns ? at_ns : loop->now_ns,
        .order = loop->order++,
        .timer = timer,
    };

    if (timer->place == 0) {
        if (!make_room(loop))
            return MC_E_NOMEM;
        timer->place = ++loop->timers;
    }
    timer->at_ns = at_ns;
    settle(loop, timer->place - 1, entry);
    return MC_OK;
}

void os_loop_timer_stop(os_loop *loop, struct os_timer *timer)
{
    if (timer->place == 0)
        return;
    const uint32_t index = timer->place - 1;
    const struct entry last = loop->heap[--loop->timers];

    assert(loop->heap[index].timer == timer || last.timer == timer);
    timer->place = 0;
    if (last.timer != timer)
        settle(loop, index, last);
}

uint64_t os_loop_next_ns(const os_loop *loop)
{
    return loop->timers ? loop->heap[0].at_ns : UINT64_MAX;
}

static void call_timers(os_loop *loop)
{
    const uint64_t orders = loop->order; /* what is set from now on waits for the next turn */

    while (loop->timers && loop->heap[0].at_ns <= loop->now_ns && loop->heap[0].order < orders) {
        struct os_timer *timer = loop->heap[0].timer;
        os_loop_timer_stop(loop, timer);
        timer->due(timer->user, loop->now_ns);
    }
}

/* ---------------------------------------------------------------------------------------- posts */

void os_loop_post(os_loop *loop, struct os_post *post)
{
    struct os_post *head = atomic_load_explicit(&loop->posts, memory_order_relaxed);
    const uint64_t one = 1;

    do
        post->next = head;
    while (!atomic_compare_exchange_weak_explicit(&loop->posts, &head, post, memory_order_release,
                                                  memory_order_relaxed));
    /* The write cannot fail: a counter of 64 bits does not fill up. After this the post is the loop's;
     * the loop outlives whoever posts. */
    if (!head)
        while (write(loop->event, &one, sizeof(one)) < 0 && errno == EINTR)
            ;
}

static void call_posts(os_loop *loop)
{
    struct os_post *newest = atomic_exchange_explicit(&loop->posts, NULL, memory_order_acquire);
    struct os_post *oldest = NULL;

    while (newest) {
        struct os_post *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct os_post *next = oldest->next; /* it is its owner's again when it runs */
        oldest->run(oldest->user);
        oldest = next;
    }
}

/** The counter goes to 0 before posts are taken: whoever posts later wakes the loop again. */
static void hear_posts(os_loop *loop)
{
    uint64_t count;

    for (int i = 0; i < loop->events_count; i++)
        if (loop->events[i].data.ptr == loop) {
            while (read(loop->event, &count, sizeof(count)) < 0 && errno == EINTR)
                ;
            call_posts(loop);
            return;
        }
}

/* ---------------------------------------------------------------------------------------- turns */

static int wait_ms(os_loop *loop, uint64_t left_ns)
{
    const uint64_t ms = left_ns / 1000000 + (left_ns % 1000000 != 0);

    return epoll_wait(loop->epoll, loop->events, EVENTS_MAX,
                      left_ns == UINT64_MAX ? -1 : (ms < 1000000000 ? (int)ms : 1000000000));
}

static int wait_ns(os_loop *loop, uint64_t left_ns)
{
    const struct timespec left = { .tv_sec = (time_t)(left_ns / 1000000000),
                                   .tv_nsec = (long)(left_ns % 1000000000) };

    if (loop->old_kernel || left_ns == 0)
        return wait_ms(loop, left_ns);
    const int count = epoll_pwait2(loop->epoll, loop->events, EVENTS_MAX,
                                   left_ns == UINT64_MAX ? NULL : &left, NULL);
    if (count < 0 && (errno == ENOSYS || errno == EPERM)) { /* EPERM: a container's filter */
        loop->old_kernel = true;
        return wait_ms(loop, left_ns);
    }
    return count;
}

/** How long to wait; UINT64_MAX: as long as it takes. */
static uint64_t left_until(const os_loop *loop, uint64_t until_ns)
{
    const uint64_t next_ns = os_loop_next_ns(loop);
    const uint64_t end_ns = until_ns < next_ns ? until_ns : next_ns;

    if (end_ns == 0 || end_ns == UINT64_MAX)
        return end_ns;
    const uint64_t now_ns = os_now_ns();
    return end_ns > now_ns ? end_ns - now_ns : 0;
}

mc_status os_loop_turn(os_loop *loop, uint64_t until_ns)
{
    assert(!loop->turning); /* a callback of this loop must not turn it */
    const int count = wait_ns(loop, left_until(loop, until_ns));
    if (count < 0 && errno != EINTR)
        return MC_E_IO;

    loop->turning = true;
    loop->now_ns = os_now_ns();
    loop->events_count = count > 0 ? count : 0;
    loop->events_next = 0;
    hear_posts(loop);
    call_watches(loop);
    call_timers(loop);
    loop->events_count = loop->events_next = 0;
    loop->turning = false;
    return MC_OK;
}

void os_loop_run(os_loop *loop)
{
    while (!loop->stopping && os_loop_turn(loop, UINT64_MAX) == MC_OK)
        ;
    loop->stopping = false;
}

void os_loop_stop(os_loop *loop)
{
    loop->stopping = true;
}
