/* interrupt.c - the only code that runs in a signal handler: it counts. */
#define _POSIX_C_SOURCE 200809L
#include "cmd/interrupt.h"

#include <signal.h>
#include <stddef.h>
#include <sys/select.h>
#include <unistd.h>

#include "cmd/cmd.h"

/* A process has one set of signal handlers, so this state is the process's too. */
static volatile sig_atomic_t interrupts, terminated, interrupt_limit;

static void on_signal(int number)
{
    if (number != SIGINT) {
        if (terminated)
            _exit(CMD_TERMINATED);
        terminated = 1;
        return;
    }
    if (interrupts >= interrupt_limit)
        _exit(CMD_INTERRUPTED);
    interrupts = interrupts + 1;
}

/* A signal that the parent chose to ignore stays ignored: nohup, and jobs in the background. */
static void handle(int number, const struct sigaction *action)
{
    struct sigaction before;

    if (sigaction(number, NULL, &before) == 0 && before.sa_handler != SIG_IGN)
        sigaction(number, action, NULL);
}

void interrupt_install(int limit)
{
    /* No SA_RESTART: a read that waits for a person must return. */
    struct sigaction action = { .sa_handler = on_signal }, ignore = { .sa_handler = SIG_IGN };

    interrupt_limit = limit;
    sigemptyset(&action.sa_mask);
    sigemptyset(&ignore.sa_mask);
    handle(SIGINT, &action);
    handle(SIGTERM, &action);
    handle(SIGHUP, &action);
    sigaction(SIGPIPE, &ignore, NULL);
}

int interrupt_count(void)
{
    return interrupts;
}

void interrupt_clear(void)
{
    interrupts = 0;
}

bool interrupt_wait(int fd, int seen)
{
    sigset_t ours, before;
    fd_set readable;
    bool ready = false;

    FD_ZERO(&readable);
    FD_SET(fd, &readable);
    sigemptyset(&ours);
    sigaddset(&ours, SIGINT);
    sigaddset(&ours, SIGTERM);
    sigaddset(&ours, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ours, &before);
    if (interrupts == seen && !terminated)
        ready = pselect(fd + 1, &readable, NULL, NULL, NULL, &before) == 1;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return ready;
}

bool interrupt_terminated(void)
{
    return terminated != 0;
}

bool interrupt_pending(void)
{
    return interrupts > 0 || terminated;
}

int interrupt_exit_code(void)
{
    return terminated ? CMD_TERMINATED : interrupts > 0 ? CMD_INTERRUPTED : CMD_OK;
}
