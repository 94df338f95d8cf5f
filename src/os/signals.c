/* signals.c - a signalfd in a loop. */
#define _GNU_SOURCE
#include "os/signals.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/error.h"

/** One at a time: a callback may close, and what was not read then stays with the system. */
static void ready(void *user, uint32_t events)
{
    struct os_signals *signals = user;
    struct signalfd_siginfo info;

    (void)events;
    while (signals->watch.known && read(signals->watch.fd, &info, sizeof(info)) == sizeof(info))
        signals->came(signals->user, (int)info.ssi_signo);
}

static mc_status make_set(const int *numbers, sigset_t *set, struct mc_error *error)
{
    sigemptyset(set);
    for (; *numbers != 0; numbers++)
        if (*numbers == SIGKILL || *numbers == SIGSTOP || sigaddset(set, *numbers) != 0)
            return error_set(error, MC_E_ARG, "signal %d cannot be waited for", *numbers);
    return MC_OK;
}

mc_status os_signals_open(struct os_signals *signals, os_loop *loop, const int *numbers,
                          struct mc_error *error)
{
    sigset_t set;
    mc_status status = make_set(numbers, &set, error);

    if (status != MC_OK)
        return status;
    signals->loop = loop;
    signals->watch = (struct os_watch){ .ready = ready, .user = signals };
    signals->watch.fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (signals->watch.fd < 0)
        return error_set(error, MC_E_IO, "cannot wait for signals: %s", strerror(errno));
    pthread_sigmask(SIG_BLOCK, &set, &signals->before);
    status = os_loop_watch(loop, &signals->watch, OS_READABLE);
    if (status != MC_OK) {
        pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
        close(signals->watch.fd);
        return error_set(error, status, "cannot wait for signals: %s", mc_status_text(status));
    }
    return MC_OK;
}

void os_signals_close(struct os_signals *signals)
{
    if (!signals->watch.known)
        return;
    os_loop_unwatch(signals->loop, &signals->watch);
    close(signals->watch.fd);
    pthread_sigmask(SIG_SETMASK, &signals->before, NULL);
}

void os_signals_release(void)
{
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}
