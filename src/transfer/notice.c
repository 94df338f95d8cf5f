/* notice.c - notices received: a bounded queue that mc_notice_take() empties. */
#include "transfer/engine.h"

#include <string.h>

#include "base/alloc.h"
#include "os/clock.h"

mc_status notice_keep(mc_transfer *engine, const char *from, uint64_t incarnation, const void *name,
                      size_t name_size, const void *message, size_t size)
{
    if (name_size > MC_NAME_MAX || size > MC_NOTICE_MAX)
        return MC_E_RANGE;
    struct notice *notice = alloc_bytes(engine->alloc, sizeof(*notice) + size);
    if (!notice)
        return MC_E_NOMEM;
    memset(notice, 0, sizeof(*notice));
    const size_t from_size = strlen(from) < MC_NAME_MAX ? strlen(from) : MC_NAME_MAX;
    memcpy(notice->head.from, from, from_size);
    if (name_size > 0)
        memcpy(notice->head.name, name, name_size);
    if (size > 0)
        memcpy(notice->message, message, size);
    notice->head.incarnation = incarnation;
    notice->head.size = size;

    pthread_mutex_lock(&engine->notices_lock);
    const bool full = engine->notice_count >= engine->notices_max;
    if (!full) {
        *engine->notices_end = notice;
        engine->notices_end = &notice->next;
        engine->notice_count++;
        atomic_fetch_add(&engine->notice_changes, 1);
    }
    pthread_mutex_unlock(&engine->notices_lock);
    count_add(&engine->counts, full ? COUNT_notices_refused : COUNT_notices_received, 1);
    if (full) {
        alloc_free(engine->alloc, notice);
        return MC_E_FULL;
    }
    os_wake_all(&engine->notice_changes);
    return MC_OK;
}

/* The oldest one if it fits. MC_PENDING: there is none. */
static mc_status take(mc_transfer *engine, size_t capacity, struct notice **notice_p)
{
    mc_status status = MC_PENDING;

    pthread_mutex_lock(&engine->notices_lock);
    struct notice *notice = engine->notices;
    if (notice && notice->head.size > capacity) {
        status = MC_E_RANGE;
    } else if (notice) {
        engine->notices = notice->next;
        if (!engine->notices)
            engine->notices_end = &engine->notices;
        engine->notice_count--;
        *notice_p = notice;
        status = MC_OK;
    }
    pthread_mutex_unlock(&engine->notices_lock);
    return status;
}

mc_status mc_notice_take(mc_transfer *engine, uint64_t deadline_ns, struct mc_notice *notice_p,
                         void *message_p, size_t capacity)
{
    const uint64_t until_ns = deadline_of(deadline_ns);
    struct notice *notice = NULL;

    for (;;) {
        const uint32_t seen = atomic_load(&engine->notice_changes);
        const mc_status status = take(engine, capacity, &notice);
        if (status == MC_OK)
            break;
        if (status != MC_PENDING)
            return status;
        if (os_now_ns() >= until_ns)
            return MC_E_NOT_FOUND;
        engine_pause(engine, &engine->notice_changes, seen, until_ns);
    }
    *notice_p = notice->head;
    if (notice->head.size > 0)
        memcpy(message_p, notice->message, notice->head.size);
    alloc_free(engine->alloc, notice);
    return MC_OK;
}

void notices_close(mc_transfer *engine)
{
    while (engine->notices) {
        struct notice *notice = engine->notices;
        engine->notices = notice->next;
        alloc_free(engine->alloc, notice);
    }
    engine->notices_end = &engine->notices;
}
