/*
 * loop.h - one thread's wait for descriptors, times and other threads' messages.
 *
 * Life:    os_loop_open -> (os_loop_watch, os_loop_timer, os_loop_turn)* -> os_loop_close
 * Threads: one, the loop's; os_loop_post() alone may be called from any thread.
 * Memory:  watches, timers and posts are the caller's, embedded in what they serve, and stay where they
 *          are while known to the loop. The loop itself allocates at open and when its heap of timers
 *          grows.
 * Errors:  a descriptor that cannot be watched is an event. A callback may add, change or end any watch
 *          or timer, its own too: one that was ended is not called any more, also not in this turn.
 */
#ifndef OS_LOOP_H
#define OS_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

typedef struct os_loop os_loop; /* opaque */

enum os_watch_events {
    OS_READABLE = 1,
    OS_WRITABLE = 2,
    OS_HUNG_UP = 4, /* the peer ended its sending side, or all (always told) */
};

/** `{ 0 }` and then: fd, ready, user. Level-triggered. */
struct os_watch {
    int fd;
    void (*ready)(void *user, uint32_t events); /* enum os_watch_events */
    void *user;
    uint32_t events; /* the loop's: what is asked for */
    bool known;      /* the loop's */
};

/** `{ 0 }` and then: due, user. Fires once for each time it is set. */
struct os_timer {
    void (*due)(void *user, uint64_t now_ns);
    void *user;
    uint64_t at_ns; /* the loop's */
    uint32_t place; /* the loop's: index in its heap + 1; 0: not set */
};

/** A message to the loop's thread. `{ 0 }` and then: run, user. Not to be posted again before run is
 * called. */
struct os_post {
    void (*run)(void *user);
    void *user;
    struct os_post *next; /* the loop's */
};

/** Returns MC_OK, MC_E_NOMEM or MC_E_IO (descriptors). */
mc_status os_loop_open(const struct mc_alloc *alloc, os_loop **loop_p, struct mc_error *error);

/** Nothing is called any more; what is still known is the caller's again. NULL is allowed. */
void os_loop_close(os_loop *loop);

/** A descriptor that polls readable when os_loop_turn() has work, but for timers: os_loop_next_ns().
 * So a loop can be driven by another one. */
int os_loop_fd(const os_loop *loop);

/** When the first timer is due (CLOCK_MONOTONIC); UINT64_MAX: none. */
uint64_t os_loop_next_ns(const os_loop *loop);

/** CLOCK_MONOTONIC at the start of this turn: one event, one now. */
uint64_t os_loop_now(const os_loop *loop);

/**
 * Wait until something happens, at most until `until_ns` (CLOCK_MONOTONIC; 0: do not wait; UINT64_MAX: as
 * long as it takes), and call what is due. Returns MC_OK, or MC_E_IO (a bug of the caller: a closed
 * descriptor).
 */
mc_status os_loop_turn(os_loop *loop, uint64_t until_ns);

/** Turn until os_loop_stop(), which may be called by callbacks (or before: then not at all). */
void os_loop_run(os_loop *loop);
void os_loop_stop(os_loop *loop);

/** Begin to watch, or ask for other events. MC_OK, MC_E_NOMEM or MC_E_IO. */
mc_status os_loop_watch(os_loop *loop, struct os_watch *watch, uint32_t events);

/** Before its descriptor is closed. Not known: nothing happens. */
void os_loop_unwatch(os_loop *loop, struct os_watch *watch);

/** Set, or set anew. A time that is past is due in the next turn, behind what was due before. Timers of
 * one time fire in the order in which they were set. MC_OK or MC_E_NOMEM (only if it was not set). */
mc_status os_loop_timer(os_loop *loop, struct os_timer *timer, uint64_t at_ns);

/** Not set: nothing happens. */
void os_loop_timer_stop(os_loop *loop, struct os_timer *timer);

/** From any thread: call post->run in the loop's thread, soon, in the order of posting. Threads that post
 * end before the loop is closed; what was posted and did not run then never does. */
void os_loop_post(os_loop *loop, struct os_post *post);

#endif /* OS_LOOP_H */
