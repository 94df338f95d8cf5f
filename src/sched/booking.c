/* booking.c - a short sorted table of promises, and the pace at which they are made. */
#include "sched/booking.h"

#include <string.h>

#include "base/alloc.h"

static const uint64_t SECOND_NS = 1000000000;
static const uint64_t EARLY_NS = 100000000;   /* clocks and the way here */
static const uint64_t KEPT_NS = 300000000;    /* room is kept for so long after it was due */
static const uint64_t WINDOW_NS = 5000000000; /* and a client that is later is still known */
static const double BACK_AT_FIRST = 0.5, BACK_STEP = 0.05, BACK_LEAST = 0.02;
/* Promises take at most so much of the cluster, and leave the rest to who asks for the first time. */
static const double SHARE = 0.9;
static const uint64_t SLOT_NS = 100000000;
/* From such a share on, room is kept for a whole request, not for a part of one. */
static const double WHOLE = 0.2;

mc_status bookings_init(struct bookings *b, const struct mc_alloc *alloc, uint32_t max)
{
    *b = (struct bookings){ .alloc = alloc, .max = max, .back = BACK_AT_FIRST };
    if (max == 0)
        return MC_OK;
    b->items = alloc_zeroed(alloc, max, sizeof(*b->items));
    b->slots = alloc_zeroed(alloc, BOOKED_SLOTS, sizeof(*b->slots));
    return b->items && b->slots ? MC_OK : MC_E_NOMEM;
}

void bookings_fini(struct bookings *b)
{
    if (b->alloc) {
        alloc_free(b->alloc, b->slots);
        alloc_free(b->alloc, b->items);
    }
    *b = (struct bookings){ 0 };
}

static void remove_at(struct bookings *b, uint32_t at, uint32_t count)
{
    b->count -= count;
    memmove(&b->items[at], &b->items[at + count], (b->count - at) * sizeof(*b->items));
}

static void learn(struct bookings *b, double came)
{
    b->back += BACK_STEP * (came - b->back);
    if (b->back < BACK_LEAST)
        b->back = BACK_LEAST;
}

void bookings_expire(struct bookings *b, uint64_t now_ns)
{
    uint32_t over = 0;

    while (over < b->count && now_ns > b->items[over].due_ns + WINDOW_NS) {
        learn(b, 0);
        over++;
    }
    if (over > 0)
        remove_at(b, 0, over);
}

static uint32_t find(const struct bookings *b, uint64_t identity)
{
    uint32_t at = 0;

    while (at < b->count && b->items[at].identity != identity)
        at++;
    return at;
}

bool bookings_come(struct bookings *b, uint64_t now_ns, uint64_t identity)
{
    const uint32_t at = identity ? find(b, identity) : b->count;

    if (at == b->count || now_ns + EARLY_NS < b->items[at].due_ns)
        return false;
    remove_at(b, at, 1);
    learn(b, 1);
    return true;
}

uint64_t bookings_due(const struct bookings *b, uint64_t identity)
{
    const uint32_t at = identity ? find(b, identity) : b->count;

    return at < b->count ? b->items[at].due_ns : 0;
}

struct booked_room bookings_room(const struct bookings *b, uint64_t now_ns, uint64_t horizon_ns)
{
    struct booked_room room = { 0 };
    double sum = 0, most = 0, largest = 0;

    for (uint32_t i = 0; i < b->count; i++) {
        const struct booking *k = &b->items[i];

        if (now_ns > k->due_ns + KEPT_NS)
            continue;
        if (k->due_ns > now_ns && k->due_ns - now_ns > horizon_ns)
            break;
        room.requests += b->back;
        sum += b->back * (double)k->work_ns;
        if ((double)k->work_ns > largest)
            largest = (double)k->work_ns;
        /* What is in the queue now has left it when a later one comes. */
        const double until = k->due_ns > now_ns ? (double)(k->due_ns - now_ns) : 0;
        if (sum - until > most)
            most = sum - until;
    }
    if (room.requests > 0 && b->back >= WHOLE) {
        most = most > largest ? most : largest;
        room.requests = room.requests > 1 ? room.requests : 1;
    }
    room.work_ns = (uint64_t)most;
    return room;
}

static void insert(struct bookings *b, const struct booking *booking)
{
    uint32_t at = b->count;

    while (at > 0 && b->items[at - 1].due_ns > booking->due_ns)
        at--;
    memmove(&b->items[at + 1], &b->items[at], (b->count - at) * sizeof(*b->items));
    b->items[at] = *booking;
    b->count++;
}

/* ---------------------------------------------------------------------------------------- the calendar */

static struct booked_slot *slot_at(struct bookings *b, uint64_t number)
{
    struct booked_slot *slot = &b->slots[number % BOOKED_SLOTS];

    if (slot->number != number)
        *slot = (struct booked_slot){ .number = number };
    return slot;
}

/* What one slot has no time for is the next one's. */
static void give_away(struct bookings *b, uint64_t at_ns, double work_ns)
{
    const double whole = SHARE * (double)SLOT_NS;
    uint64_t number = at_ns / SLOT_NS;

    for (uint32_t i = 0; i < BOOKED_SLOTS / 4 && work_ns > 0; i++, number++) {
        struct booked_slot *slot = slot_at(b, number);
        const double room = whole - slot->work_ns;
        const double part = work_ns < room ? work_ns : room;

        if (part > 0) {
            slot->work_ns += part;
            work_ns -= part;
        }
    }
}

static bool has_time(struct bookings *b, uint64_t at_ns)
{
    return slot_at(b, at_ns / SLOT_NS)->work_ns < SHARE * (double)SLOT_NS;
}

uint64_t bookings_make(struct bookings *b, uint64_t now_ns, uint64_t identity, uint64_t wait_ns,
                       uint64_t work_ns, uint64_t most_ns, bool *booked_p)
{
    const uint64_t longest_ns = (uint64_t)(BOOKED_SLOTS * 3 / 4) * SLOT_NS;
    uint64_t after_ns = (wait_ns + SECOND_NS - 1) / SECOND_NS * SECOND_NS;

    *booked_p = false;
    if (most_ns > longest_ns)
        most_ns = longest_ns;
    if (after_ns == 0)
        after_ns = SECOND_NS;
    while (after_ns < most_ns && b->max > 0 && !has_time(b, now_ns + after_ns))
        after_ns += SECOND_NS;
    if (after_ns >= most_ns)
        return most_ns;
    if (identity == 0 || b->count == b->max)
        return after_ns;
    insert(b, &(struct booking){ identity, now_ns + after_ns, work_ns });
    give_away(b, now_ns + after_ns, b->back * (double)work_ns);
    *booked_p = true;
    return after_ns;
}

void bookings_keep(struct bookings *b, uint64_t now_ns, uint64_t identity, uint64_t work_ns)
{
    if (b->count < b->max)
        insert(b, &(struct booking){ identity, now_ns, work_ns });
}
