/*
 * wait.c - waiting for a batch: who waits, drives; spin for about as long as a wake-up takes, then sleep
 * on the queues' descriptors.
 *
 * Of those who sleep for one segment the first has its queues armed (the watcher), the rest are woken
 * when their batch is complete or when the watcher goes. A lost hand-over costs them SLUMBER_NS at most.
 */
#include "transfer/batch.h"

#include "os/clock.h"
#include "transfer/segment.h"

#define SLUMBER_NS UINT64_C(2000000)

enum { WATCHED_MAX = 6, ARMED_MAX = 12 }; /* segments and queues that one sleep watches */

/* What one sleep holds. */
struct sleep {
    struct sleeper sleepers[WATCHED_MAX];
    struct segment *segments[WATCHED_MAX];
    uint32_t count;
    int fds[OS_WAIT_MAX];
    uint32_t fd_count;
    uint64_t until_ns;
};

static void sooner(struct sleep *sleep, uint64_t at_ns)
{
    if (at_ns < sleep->until_ns)
        sleep->until_ns = at_ns;
}

/* Arm the segment's queues. False: there is news already. Under its lock. */
static bool arm_all(struct sleep *sleep, struct segment *segment, uint64_t now_ns)
{
    for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
        struct path *path = segment->paths[i];
        int fd = -1;
        if (!path || path->flying == 0)
            continue;
        if (!path->carrier->ops->arm || sleep->fd_count >= ARMED_MAX) {
            sooner(sleep, now_ns + PAUSE_NS);
            continue;
        }
        const mc_status status = path->carrier->ops->arm(path->queue, &fd);
        if (status == MC_PENDING)
            return false;
        if (status == MC_OK)
            sleep->fds[sleep->fd_count++] = fd;
        else
            sooner(sleep, now_ns + PAUSE_NS);
    }
    return true;
}

/* Lie down at one segment. False: something moved, look again. */
static bool lie_down(struct sleep *sleep, struct segment *segment, int event, uint64_t now_ns)
{
    bool still = true;

    if (pthread_mutex_trylock(&segment->lock) != 0) { /* somebody drives it: not for long */
        sooner(sleep, now_ns + PAUSE_NS);
        return true;
    }
    if (segment_step(segment)) {
        still = false;
    } else {
        struct sleeper *sleeper = &sleep->sleepers[sleep->count];
        *sleeper = (struct sleeper){ .event = event };
        if (!segment->watcher) {
            still = arm_all(sleep, segment, now_ns);
            segment->watcher = still ? sleeper : NULL;
        } else {
            sleeper->next = segment->sleepers;
            segment->sleepers = sleeper;
            sooner(sleep, now_ns + SLUMBER_NS);
        }
        if (still)
            sleep->segments[sleep->count++] = segment;
    }
    segment_unlock(segment);
    return still;
}

static void get_up(struct sleep *sleep)
{
    for (uint32_t i = 0; i < sleep->count; i++) {
        struct segment *segment = sleep->segments[i];
        struct sleeper *sleeper = &sleep->sleepers[i];
        pthread_mutex_lock(&segment->lock);
        if (segment->watcher == sleeper)
            segment->watcher = NULL;
        for (struct sleeper **at = &segment->sleepers; *at; at = &(*at)->next) {
            if (*at == sleeper) {
                *at = sleeper->next;
                break;
            }
        }
        segment_unlock(segment);
    }
}

/* Ask for the event; false: it is complete already. */
static bool want_event(struct mc_batch *batch)
{
    pthread_mutex_lock(&batch->lock);
    if (batch->event < 0 && os_event_open(&batch->event) != MC_OK)
        batch->event = -1; /* no descriptors left: naps, then */
    batch->wanted = batch->event >= 0;
    const bool pending = atomic_load(&batch->unfinished) > 0;
    pthread_mutex_unlock(&batch->lock);
    return pending;
}

static void drop_event(struct mc_batch *batch)
{
    pthread_mutex_lock(&batch->lock);
    batch->wanted = batch->fd_given && batch->event >= 0;
    if (batch->event >= 0) {
        os_event_lower(batch->event);
        if (batch->fd_given && atomic_load(&batch->unfinished) == 0)
            os_event_raise(batch->event);
    }
    pthread_mutex_unlock(&batch->lock);
}

void batch_sleep(struct mc_batch *batch, uint64_t until_ns)
{
    mc_transfer *engine = batch->engine;
    const uint64_t now_ns = os_now_ns();
    struct sleep sleep = { .until_ns = until_ns };
    const uint32_t count = atomic_load_explicit(&batch->segment_count, memory_order_relaxed);
    bool still = want_event(batch);

    if (batch_stopped(batch) == MC_OK)
        sooner(&sleep, atomic_load(&batch->deadline_ns));
    if (batch->event < 0 || count > WATCHED_MAX)
        sooner(&sleep, now_ns + PAUSE_NS);
    for (uint32_t i = 0; still && i < count && i < WATCHED_MAX; i++)
        still = lie_down(&sleep, batch->segments[i], batch->event, now_ns);
    if (still) {
        sleep.fds[sleep.fd_count++] = batch->event;
        if (!engine->threaded) {
            sleep.fds[sleep.fd_count++] = os_loop_fd(engine->loop);
            sooner(&sleep, now_ns + 10 * PAUSE_NS); /* its timers are another thread's to read */
        }
        os_wait_readable(sleep.fds, sleep.fd_count, sleep.until_ns);
    }
    get_up(&sleep);
    drop_event(batch);
}

/* Whoever goes hands the queues on to one who stays. */
static void hand_over(struct mc_batch *batch)
{
    const uint32_t count = atomic_load_explicit(&batch->segment_count, memory_order_relaxed);

    for (uint32_t i = 0; i < count; i++) {
        struct segment *segment = batch->segments[i];
        if (atomic_load_explicit(&segment->busy, memory_order_relaxed) == 0 ||
            pthread_mutex_trylock(&segment->lock) != 0)
            continue;
        if (!segment->watcher)
            segment_wake_one(segment);
        segment_unlock(segment);
    }
}

mc_status mc_batch_wait(mc_batch *batch, uint64_t deadline_ns)
{
    const mc_transfer *engine = batch->engine;
    const uint64_t until_ns = deadline_of(deadline_ns), spin_ns = engine->spin ? SPIN_NS : 0;
    uint64_t idle_since_ns = 0;
    mc_status status;

    for (;;) {
        bool moved = false;
        status = batch_look(batch, &moved);
        if (status != MC_PENDING)
            break;
        const uint64_t now_ns = os_now_ns();
        if (now_ns >= until_ns)
            break;
        if (moved || idle_since_ns == 0) {
            idle_since_ns = now_ns;
        } else if (now_ns - idle_since_ns >= spin_ns) {
            batch_sleep(batch, until_ns);
            idle_since_ns = 0;
        } else {
            os_relax();
        }
    }
    hand_over(batch);
    return status;
}

mc_status mc_batch_fd(mc_batch *batch, int *fd_p)
{
    pthread_mutex_lock(&batch->lock);
    const mc_status status = batch->event >= 0 ? MC_OK : os_event_open(&batch->event);
    if (status == MC_OK) {
        batch->wanted = batch->fd_given = true;
        if (batch->started && atomic_load(&batch->unfinished) == 0)
            os_event_raise(batch->event);
        *fd_p = batch->event;
    }
    pthread_mutex_unlock(&batch->lock);
    return status == MC_OK ? MC_OK : MC_E_IO;
}
