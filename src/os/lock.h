/*
 * lock.h - locks and conditions, for the few places where threads share something.
 *
 * Life:    os_lock_init -> os_lock, os_unlock -> os_lock_fini; likewise conditions.
 * Threads: any.
 * Memory:  the caller's, embedded in what they guard; not moved while in use.
 * Errors:  none. A lock misused is a bug: assert.
 *
 * docs/threads.md says what each lock guards, and their order.
 */
#ifndef OS_LOCK_H
#define OS_LOCK_H

#include <pthread.h>

struct os_lock {
    pthread_mutex_t mutex;
};

void os_lock_init(struct os_lock *lock);
void os_lock_fini(struct os_lock *lock);
void os_lock(struct os_lock *lock);
void os_unlock(struct os_lock *lock);

/** What a thread that holds a lock waits for. */
struct os_condition {
    pthread_cond_t condition;
};

void os_condition_init(struct os_condition *condition);
void os_condition_fini(struct os_condition *condition);

/** Let go of the lock, sleep, take it again; may return for no reason. */
void os_condition_wait(struct os_condition *condition, struct os_lock *lock);
void os_condition_wake_all(struct os_condition *condition);

#endif /* OS_LOCK_H */
