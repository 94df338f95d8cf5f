/* drive.c - moving a segment along: whoever has its lock does what all have left to be done. */
#include "transfer/segment.h"

#include <assert.h>

#include "os/clock.h"

void list_push(struct entry_list *list, struct entry *entry)
{
    entry->next = NULL;
    if (!list->first)
        list->end = &list->first;
    *list->end = entry;
    list->end = &entry->next;
}

struct entry *list_pop(struct entry_list *list)
{
    struct entry *entry = list->first;

    if (entry) {
        list->first = entry->next;
        if (!list->first)
            list->end = &list->first;
    }
    return entry;
}

void segment_push(struct segment *segment, struct entry *newest, struct entry *oldest)
{
    uint32_t count = 1;

    for (const struct entry *entry = newest; entry != oldest; entry = entry->next)
        count++;
    atomic_fetch_add(&segment->busy, count);
    struct entry *head = atomic_load_explicit(&segment->inbox, memory_order_relaxed);
    do
        oldest->next = head;
    while (!atomic_compare_exchange_weak(&segment->inbox, &head, newest));
    (void)segment_drive(segment);
}

static bool has_mail(struct segment *segment)
{
    return atomic_load(&segment->inbox) || atomic_load(&segment->attention);
}

bool segment_drive(struct segment *segment)
{
    bool moved = false;

    /* One who finds the lock taken leaves: the holder looks for mail after it has let go. */
    while (pthread_mutex_trylock(&segment->lock) == 0) {
        moved = segment_step(segment) || moved;
        pthread_mutex_unlock(&segment->lock);
        if (!has_mail(segment))
            break;
    }
    return moved;
}

void segment_unlock(struct segment *segment)
{
    pthread_mutex_unlock(&segment->lock);
    if (has_mail(segment))
        (void)segment_drive(segment);
}

static bool take_inbox(struct segment *segment)
{
    struct entry *newest = atomic_exchange(&segment->inbox, NULL), *oldest = NULL;

    if (!newest)
        return false;
    while (newest) { /* the inbox is newest first */
        struct entry *next = newest->next;
        newest->next = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct entry *next = oldest->next;
        route_entry(segment, oldest);
        oldest = next;
    }
    return true;
}

bool segment_step(struct segment *segment)
{
    bool moved = take_inbox(segment);

    atomic_fetch_add_explicit(&segment->driven, 1, memory_order_relaxed);
    if (atomic_exchange(&segment->attention, false)) {
        route_stopped(segment);
        moved = true;
    }
    for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
        if (segment->paths[i])
            moved = path_step(segment->paths[i], os_now_ns()) || moved;
    }
    if (segment->dying)
        paths_bury(segment);
    return moved;
}

bool segment_is_flying(const struct segment *segment)
{
    for (uint32_t i = 0; i < segment->engine->carrier_count; i++) {
        const struct path *path = segment->paths[i];
        if (path && (path->flying > 0 || path->ready))
            return true;
    }
    return segment->dying != NULL;
}

void segment_wake_one(struct segment *segment)
{
    if (segment->sleepers)
        os_event_raise(segment->sleepers->event);
}
