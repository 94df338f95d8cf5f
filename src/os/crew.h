/*
 * crew.h - a fixed crew of threads that runs one loop at a time.
 *
 * Life:    os_crew_open -> os_crew_run* -> os_crew_close
 * Threads: one owner calls run and close; run returns when every index is done. Which thread does
 *          which index is not defined, so work must not depend on it. Members block all signals:
 *          those of the process reach its own threads.
 * Memory:  allocated at open; run allocates nothing.
 * Errors:  open only. The work itself cannot fail.
 */
#ifndef OS_CREW_H
#define OS_CREW_H

#include <mooncake/status.h>

typedef struct os_crew os_crew;

/** One piece of a loop: `index` in [0, count), done by thread `thread` in [0, os_crew_size()). */
typedef void os_crew_work(void *argument, uint32_t index, uint32_t thread);

/**
 * size  threads including the caller's; 0 means one for every processor this process may use.
 * Returns MC_OK, MC_E_RANGE (more than 1024), MC_E_NOMEM or MC_E_IO (threads could not be started).
 */
mc_status os_crew_open(uint32_t size, const struct mc_alloc *alloc, os_crew **crew_p,
                       struct mc_error *error);

uint32_t os_crew_size(const os_crew *crew);

/** Do work(argument, i, thread) for every i in [0, count), count < 2^31; the caller works too. Hot: no
 * allocation; one system call to wake, and one more where a thread has slept. */
void os_crew_run(os_crew *crew, os_crew_work *work, void *argument, uint32_t count);

/** Ends the threads. NULL is allowed. */
void os_crew_close(os_crew *crew);

/** Processors this process may run on, at least 1. */
uint32_t os_processors(void);

#endif /* OS_CREW_H */
