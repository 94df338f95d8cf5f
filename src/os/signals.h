/*
 * signals.h - the process's signals as events of a loop.
 *
 * Life:    os_signals_open -> came* -> os_signals_close
 * Threads: the loop's. Open it before other threads are started: the signals are blocked in the thread that
 *          opens and in those that it starts later, or one of them would be interrupted instead.
 * Memory:  the caller's; nothing is allocated.
 * Errors:  open only.
 *
 * A signal that comes twice before it is read comes once, so on SIGCHLD ask waitpid() until it has no more.
 * A blocked signal stays blocked over exec: a child calls os_signals_release() before it.
 */
#ifndef OS_SIGNALS_H
#define OS_SIGNALS_H

#include <signal.h>

#include "os/loop.h"

/** `{ 0 }` and then: came, user. */
struct os_signals {
    void (*came)(void *user, int signal);
    void *user;
    os_loop *loop;         /* its own from here */
    struct os_watch watch; /* known: it is open */
    sigset_t before;
};

/**
 * numbers  0 at the end: (const int[]){ SIGTERM, SIGINT, 0 }.
 *
 * Returns MC_OK, MC_E_ARG (not a signal that can be blocked), MC_E_NOMEM or MC_E_IO (descriptors).
 */
mc_status os_signals_open(struct os_signals *signals, os_loop *loop, const int *numbers,
                          struct mc_error *error);

/** The thread's mask is as it was before. Safe on `{ 0 }`. */
void os_signals_close(struct os_signals *signals);

/** In a child between fork and exec: no signal is blocked any more. May be called there (async-safe). */
void os_signals_release(void);

#endif /* OS_SIGNALS_H */
