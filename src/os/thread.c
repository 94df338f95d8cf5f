/* thread.c - pthreads, futexes, eventfds and ppoll behind thread.h. */
#define _GNU_SOURCE
#include "os/thread.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "os/clock.h"

static_assert(sizeof(pthread_t) <= sizeof(uint64_t), "a thread's handle has room for it");

static void *thread_main(void *argument)
{
    struct os_thread *thread = argument;

    thread->run(thread->argument);
    return NULL;
}

mc_status os_thread_start(struct os_thread *thread, void (*run)(void *argument), void *argument,
                          struct mc_error *error)
{
    sigset_t all, before;
    pthread_t handle;

    *thread = (struct os_thread){ .run = run, .argument = argument };
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int reason = pthread_create(&handle, NULL, thread_main, thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (reason != 0)
        return error_set(error, MC_E_IO, "a thread cannot be started: %s", strerror(reason));
    memcpy(&thread->handle, &handle, sizeof(handle));
    return MC_OK;
}

void os_thread_join(struct os_thread *thread)
{
    pthread_t handle;

    memcpy(&handle, &thread->handle, sizeof(handle));
    pthread_join(handle, NULL);
}

void os_thread_name(const char *name)
{
    (void)prctl(PR_SET_NAME, name); /* the kernel cuts it */
}

/* What is left until then; NULL: for ever. */
static const struct timespec *left(uint64_t until_ns, struct timespec *buffer)
{
    if (until_ns == UINT64_MAX)
        return NULL;
    const uint64_t now_ns = os_now_ns();
    const uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    *buffer = (struct timespec){ .tv_sec = (time_t)(left_ns / 1000000000u),
                                 .tv_nsec = (long)(left_ns % 1000000000u) };
    return buffer;
}

void os_wait_change(_Atomic uint32_t *word, uint32_t seen, uint64_t until_ns)
{
    struct timespec buffer;

    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, seen, left(until_ns, &buffer), NULL,
            0);
}

void os_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void os_yield(void)
{
    sched_yield();
}

mc_status os_event_open(int *fd_p)
{
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? MC_E_FULL : MC_E_IO;
    *fd_p = fd;
    return MC_OK;
}

void os_event_raise(int fd)
{
    const uint64_t one = 1;
    const ssize_t written = write(fd, &one, sizeof(one)); /* full: it is raised */

    (void)written;
}

void os_event_lower(int fd)
{
    uint64_t count;
    const ssize_t got = read(fd, &count, sizeof(count)); /* empty: it is lowered */

    (void)got;
}

void os_event_close(int fd)
{
    if (fd >= 0)
        close(fd);
}

bool os_wait_readable(const int *fds, uint32_t count, uint64_t until_ns)
{
    struct pollfd polls[OS_WAIT_MAX];
    struct timespec buffer;

    assert(count <= OS_WAIT_MAX);
    for (uint32_t i = 0; i < count; i++)
        polls[i] = (struct pollfd){ .fd = fds[i], .events = POLLIN };
    return ppoll(polls, count, left(until_ns, &buffer), NULL) > 0;
}
