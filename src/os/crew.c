/* crew.c - fork and join for kernels: claim indices from one counter, spin a little, then sleep. */
#define _GNU_SOURCE
#include "os/crew.h"

#include <assert.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum { SIZE_LIMIT = 1024, SPIN_NS = 50000 };

struct member {
    os_crew *crew;
    pthread_t thread;
    uint32_t number; /* 1 .. size - 1; the caller is 0 */
};

struct os_crew {
    const struct mc_alloc *alloc;
    uint32_t size, started; /* started: members whose thread is running */
    struct member *members; /* owned; [size - 1] */
    bool spin;              /* more processors than one: a short spin beats a wake-up */

    /* Written by the owner before `round` is raised, read by members after they see it raised. */
    os_crew_work *work;
    void *argument;
    uint32_t count;

    char pad0[64];          /* each counter on a cache line of its own */
    _Atomic uint32_t round; /* raised by the owner, release: publishes the fields above */
    char pad1[64];
    _Atomic uint32_t next; /* the next index to claim; relaxed: only atomicity matters */
    char pad2[64];
    _Atomic uint32_t active; /* members still in this round; lowered with release, so
                              * that the owner's acquire sees their results */
    _Atomic bool closing;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t seen)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake_all(_Atomic uint32_t *word)
{
    syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

/* Wait until *word differs from `seen`: waking a sleeper costs more than a small matrix product, so
 * spin for about as long as a wake-up takes before sleeping. */
static uint32_t wait_change(const os_crew *crew, _Atomic uint32_t *word, uint32_t seen)
{
    uint32_t now = atomic_load_explicit(word, memory_order_acquire);

    if (now == seen && crew->spin) {
        const uint64_t until_ns = os_now_ns() + SPIN_NS;
        do {
            for (int i = 0; i < 64 && now == seen; i++) {
                relax();
                now = atomic_load_explicit(word, memory_order_acquire);
            }
            if (now == seen) /* whom we wait for may want this processor; so may others */
                sched_yield();
        } while (now == seen && os_now_ns() < until_ns);
    }
    while (now == seen) {
        futex_wait(word, seen);
        now = atomic_load_explicit(word, memory_order_acquire);
    }
    return now;
}

static void claim_all(os_crew *crew, uint32_t thread)
{
    for (;;) {
        const uint32_t index = atomic_fetch_add_explicit(&crew->next, 1, memory_order_relaxed);
        if (index >= crew->count)
            return;
        crew->work(crew->argument, index, thread);
    }
}

static void *member_main(void *argument)
{
    struct member *member = argument;
    os_crew *crew = member->crew;
    uint32_t seen = 0;

    for (;;) {
        seen = wait_change(crew, &crew->round, seen);
        if (atomic_load_explicit(&crew->closing, memory_order_relaxed))
            return NULL;
        claim_all(crew, member->number);
        if (atomic_fetch_sub_explicit(&crew->active, 1, memory_order_release) == 1)
            futex_wake_all(&crew->active);
    }
}

/* A member that took the process's SIGINT would leave the thread that waits for it asleep, so it starts
 * with every signal blocked. Returns 0 or the system's reason. */
static int start_member(struct member *member)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int reason = pthread_create(&member->thread, NULL, member_main, member);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return reason;
}

mc_status os_crew_open(uint32_t size, const struct mc_alloc *alloc, os_crew **crew_p,
                       struct mc_error *error)
{
    if (size == 0)
        size = os_processors() < SIZE_LIMIT ? os_processors() : SIZE_LIMIT;
    if (size > SIZE_LIMIT)
        return error_set(error, MC_E_RANGE, "threads: %u is more than %u", size, SIZE_LIMIT);

    os_crew *crew = alloc_zeroed(alloc, 1, sizeof(*crew));
    struct member *members = alloc_zeroed(alloc, size, sizeof(*members));
    if (!crew || !members) {
        alloc_free(alloc, crew);
        alloc_free(alloc, members);
        return error_set(error, MC_E_NOMEM, "out of memory for %u threads", size);
    }
    crew->alloc = alloc;
    crew->size = size;
    crew->members = members;
    crew->spin = os_processors() > 1;
    for (uint32_t i = 0; i + 1 < size; i++) {
        members[i] = (struct member){ .crew = crew, .number = i + 1 };
        const int reason = start_member(&members[i]);
        if (reason != 0) {
            os_crew_close(crew);
            return error_set(error, MC_E_IO, "cannot start thread %u of %u: %s", i + 2, size,
                             strerror(reason));
        }
        crew->started++;
    }
    *crew_p = crew;
    return MC_OK;
}

uint32_t os_crew_size(const os_crew *crew)
{
    return crew->size;
}

void os_crew_run(os_crew *crew, os_crew_work *work, void *argument, uint32_t count)
{
    assert(count <= UINT32_MAX / 2); /* `next` runs past it by one for each thread */
    if (crew->started == 0 || count <= 1) {
        for (uint32_t i = 0; i < count; i++)
            work(argument, i, 0);
        return;
    }
    crew->work = work;
    crew->argument = argument;
    crew->count = count;
    atomic_store_explicit(&crew->next, 0, memory_order_relaxed);
    atomic_store_explicit(&crew->active, crew->started, memory_order_relaxed);
    atomic_fetch_add_explicit(&crew->round, 1, memory_order_release);
    futex_wake_all(&crew->round);
    claim_all(crew, 0);
    for (;;) {
        const uint32_t active = atomic_load_explicit(&crew->active, memory_order_acquire);
        if (active == 0)
            return;
        wait_change(crew, &crew->active, active);
    }
}

void os_crew_close(os_crew *crew)
{
    if (!crew)
        return;
    atomic_store_explicit(&crew->closing, true, memory_order_relaxed);
    atomic_fetch_add_explicit(&crew->round, 1, memory_order_release);
    futex_wake_all(&crew->round);
    for (uint32_t i = 0; i < crew->started; i++)
        pthread_join(crew->members[i].thread, NULL);
    const struct mc_alloc *alloc = crew->alloc;
    alloc_free(alloc, crew->members);
    alloc_free(alloc, crew);
}

uint32_t os_processors(void)
{
    cpu_set_t set;

    /* A machine of more than CPU_SETSIZE (1024) processors does not fit: count those it has. */
    const long count = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set)
                                                                    : sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (uint32_t)count : 1;
}
