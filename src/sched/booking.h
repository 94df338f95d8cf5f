/*
 * booking.h - room kept for requests that were refused and told when to come back.
 *
 * A booking is a promise: at `due_ns` there is room for so much work. Clients are told whole seconds, so of the
 * times that are whole seconds from now the first is taken at which the cluster has time left: a calendar in slots
 * of a tenth of a second. Under lasting overload the times that are promised grow: a virtual queue. Whether clients do come back is learnt: what room they get is weighted by it, so no-shows cost little.
 *
 * Life:    bookings_init -> ... -> bookings_fini
 * Threads: one.
 * Memory:  all at init; when the table is full, a refusal gets a time without a promise. A booking ends when its
 *          client comes back, or some seconds after it was due.
 */
#ifndef SCHED_BOOKING_H
#define SCHED_BOOKING_H

#include <stdbool.h>

#include <mooncake/status.h>

struct booking {
    uint64_t identity, due_ns;
    uint64_t work_ns; /* of the cluster's prefill instances together */
};

/** A tenth of a second, and how much of the cluster's time in it is given away. */
struct booked_slot {
    uint64_t number; /* since the clock's start; another one's: nothing is given away */
    double work_ns;
};
enum { BOOKED_SLOTS = 4096 };

struct bookings {
    const struct mc_alloc *alloc; /* borrowed */
    struct booking *items;        /* owned; [max], by due_ns */
    uint32_t count, max;
    double back;               /* share of clients that come back, moving mean */
    struct booked_slot *slots; /* owned; [BOOKED_SLOTS], a ring */
};

/** Room that others must leave. */
struct booked_room {
    uint64_t work_ns; /* in the queue, of the cluster's prefill instances together */
    double requests;  /* expected within the horizon */
};

/** MC_OK or MC_E_NOMEM. max 0: none is ever made. */
mc_status bookings_init(struct bookings *bookings, const struct mc_alloc *alloc, uint32_t max);
void bookings_fini(struct bookings *bookings); /* safe on zeroes */

/** Forget those who did not come. */
void bookings_expire(struct bookings *bookings, uint64_t now_ns);

/** Has `identity` come back as it was told to? Its booking is over then. */
bool bookings_come(struct bookings *bookings, uint64_t now_ns, uint64_t identity);

/** When `identity` was told to come; 0: it has no booking. */
uint64_t bookings_due(const struct bookings *bookings, uint64_t identity);

/** What those need who are due within `horizon_ns`. */
struct booked_room bookings_room(const struct bookings *bookings, uint64_t now_ns,
                                 uint64_t horizon_ns);

/**
 * Find a time in whole seconds from now, not before `wait_ns` has passed, for `work_ns`, and keep room.
 *
 * identity  0: only the time is wanted.
 * most_ns   the longest wait; later there is no room to keep.
 * booked_p  whether room is kept.
 *
 * Returns nanoseconds from now.
 */
uint64_t bookings_make(struct bookings *bookings, uint64_t now_ns, uint64_t identity,
                       uint64_t wait_ns, uint64_t work_ns, uint64_t most_ns, bool *booked_p);

/** It came back and there was no room after all, for a reason that passes soon: it may come any time. */
void bookings_keep(struct bookings *bookings, uint64_t now_ns, uint64_t identity, uint64_t work_ns);

#endif /* SCHED_BOOKING_H */
