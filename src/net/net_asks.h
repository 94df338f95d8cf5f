/*
 * net_asks.h - the questions of one connection that wait for their answers, by id and by age.
 *
 * Life:    `{ 0 }` -> asks_begin -> (asks_add | asks_take)* -> asks_fini
 * Threads: one, the loop's. Memory: from the allocator; a question each, and a table that doubles.
 */
#ifndef NET_ASKS_H
#define NET_ASKS_H

#include "net/net.h"

/** A question on its way. Ends by asks_take() and alloc_free(). */
struct ask {
    uint64_t id;
    net_answered *answered;
    void *user;
    net_conn *conn;        /* borrowed */
    struct os_timer timer; /* of its deadline; not set without one */
    struct ask *before, *after;
};

struct asks {
    struct ask **slots; /* owned; [capacity], a power of two; an id's slot is its low bits */
    uint32_t capacity, count;
    uint64_t next_id;
    struct ask *first, *last; /* by age */
};

/** A new connection: ids begin at `first_id`, drawn at random, so that an answer to a question of the
 * connection before finds nobody. */
void asks_begin(struct asks *asks, uint64_t first_id);

/** An id that is not in use, for what is not kept. Never 0. */
uint64_t asks_draw_id(struct asks *asks);

/** Keep `ask` and give it an id. MC_OK, MC_E_FULL (`max` are kept) or MC_E_NOMEM. */
mc_status asks_add(struct asks *asks, struct ask *ask, uint32_t max, const struct mc_alloc *alloc);

/** Forget one and give it to the caller; NULL: there is none of this id. */
struct ask *asks_take(struct asks *asks, uint64_t id);

/** Nothing is kept any more (a bug otherwise); the table is freed. */
void asks_fini(struct asks *asks, const struct mc_alloc *alloc);

#endif /* NET_ASKS_H */
