/*
 * thread.h - threads of a library, sleeping on a number in memory, and descriptors that wake a poll.
 *
 * Threads: os_thread_* by one owner; the rest from any thread.
 * Errors:  starting a thread or making an event is an event; waiting cannot fail.
 */
#ifndef OS_THREAD_H
#define OS_THREAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <mooncake/status.h>

/** Plain memory of the owner. */
struct os_thread {
    void (*run)(void *argument);
    void *argument;
    uint64_t handle; /* a pthread_t */
};

/** Start run(argument) in a thread that blocks every signal: those are the process's own threads'.
 * Returns MC_OK or MC_E_IO. */
mc_status os_thread_start(struct os_thread *thread, void (*run)(void *argument), void *argument,
                          struct mc_error *error);

/** Wait until it has returned. */
void os_thread_join(struct os_thread *thread);

/** What `top` and `ps` call the calling thread, and those that it starts; of a main thread: the process. At
 * most 15 bytes are kept. */
void os_thread_name(const char *name);

/** Sleep until *word is not `seen`, or until `until_ns` (CLOCK_MONOTONIC; UINT64_MAX: for ever). May
 * return early: look again. */
void os_wait_change(_Atomic uint32_t *word, uint32_t seen, uint64_t until_ns);

/** Wake all who sleep on it, after it was changed. */
void os_wake_all(_Atomic uint32_t *word);

/** One beat of a loop that spins: lets the other thread of a core go on. */
static inline void os_relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/** Give the processor to another thread that wants it. */
void os_yield(void);

/** A descriptor that polls readable while it is raised. Returns MC_OK, MC_E_FULL (descriptors) or
 * MC_E_IO. Ended with os_event_close(). */
mc_status os_event_open(int *fd_p);
void os_event_raise(int fd);
void os_event_lower(int fd);
void os_event_close(int fd);

/** Sleep until one of [count] descriptors is readable or hung up, or until `until_ns` as above; an
 * fd of -1 is passed over. Returns whether one is. May return early. */
bool os_wait_readable(const int *fds, uint32_t count, uint64_t until_ns);

enum { OS_WAIT_MAX = 16 }; /* descriptors of one os_wait_readable() */

#endif /* OS_THREAD_H */
