/* lock.c - POSIX mutexes and conditions; a code they return is a bug of the caller. */
#include "os/lock.h"

#include <assert.h>
#include <stddef.h>

/* A failed lock would be undefined behaviour of the caller: it must not vanish in release builds. */
static void check(int code)
{
    assert(code == 0);
    (void)code;
}

void os_lock_init(struct os_lock *lock)
{
    check(pthread_mutex_init(&lock->mutex, NULL));
}

void os_lock_fini(struct os_lock *lock)
{
    check(pthread_mutex_destroy(&lock->mutex));
}

void os_lock(struct os_lock *lock)
{
    check(pthread_mutex_lock(&lock->mutex));
}

void os_unlock(struct os_lock *lock)
{
    check(pthread_mutex_unlock(&lock->mutex));
}

void os_condition_init(struct os_condition *condition)
{
    check(pthread_cond_init(&condition->condition, NULL));
}

void os_condition_fini(struct os_condition *condition)
{
    check(pthread_cond_destroy(&condition->condition));
}

void os_condition_wait(struct os_condition *condition, struct os_lock *lock)
{
    check(pthread_cond_wait(&condition->condition, &lock->mutex));
}

void os_condition_wake_all(struct os_condition *condition)
{
    check(pthread_cond_broadcast(&condition->condition));
}
