/*
 * fastest.h - whom to pull a prefix from: of those that have all of it, the one from which it comes quickest.
 *
 * A policy asks that for each instance that it considers, and a hot prefix is at hundreds: so all that has it
 * is put in order once for a request, and each question ends at the first that can be shown to be as quick as
 * any. What a transfer takes depends on the sender only by what it says of its link (few different things) and by
 * how long that is booked.
 *
 * Life:    fastest_init -> (fastest_forget -> fastest_holder*)* -> fastest_fini
 * Threads: one.
 * Memory:  all at init.
 */
#ifndef SCHED_FASTEST_H
#define SCHED_FASTEST_H

#include <stdbool.h>

#include <mooncake/sched.h>

#include "sched/pane.h"

enum { SENDER_KINDS = 8 };

struct fastest {
    const struct mc_alloc *alloc; /* borrowed */
    bool known;                   /* the rest is of this request */
    uint64_t tokens;              /* of the prefix that all of these rows have */
    uint32_t *rows;               /* owned; [count], rising */
    uint8_t *kinds; /* owned; [count]: of their links, SENDER_KINDS: of another kind */
    uint32_t count;
    uint32_t kind_count;
    uint32_t kind_rows[SENDER_KINDS];     /* one of each kind */
    uint64_t least_busy_ns[SENDER_KINDS]; /* of each kind */
    bool others;                          /* there are more kinds */
    uint64_t *floors;                     /* owned; [count of rows]: see fastest_floors() */
    uint64_t hosts;                       /* a bit, of their hosts' hash, for each */

    /* The last answers: instances are asked for one after the other, and most are of one kind. */
    struct {
        uint64_t from, to, tokens, ns; /* from UINT64_MAX: there was no question yet */
        uint32_t kind, link;           /* of `to`; kind 0: the answer is for it alone */
    } transfer;
    struct {
        uint64_t tokens, receive_busy_ns, row;
        uint32_t kind; /* 0: there was no question yet */
    } holder;
};

/** MC_OK or MC_E_NOMEM; fastest_fini() either way. */
mc_status fastest_init(struct fastest *fastest, const struct mc_alloc *alloc,
                       uint32_t instances_max);
void fastest_fini(struct fastest *fastest); /* safe on zeroes */

/** Another request. */
static inline void fastest_forget(struct fastest *fastest)
{
    fastest->known = false;
    fastest->transfer.from = UINT64_MAX;
    fastest->holder.kind = 0;
}

/** The first of the pane's rows with a prefix of `tokens`, not `to` itself, from which `to` has them soonest;
 * UINT64_MAX: there is none. */
uint64_t fastest_holder(struct fastest *fastest, const struct pane *pane,
                        const struct cluster *cluster, uint64_t to, uint64_t tokens);

/** Pulling a prefix of `tokens` from the fastest takes so long or longer, into floors, for all rows with nothing of it. */
void fastest_floors(struct fastest *fastest, const struct pane *pane, const struct cluster *cluster,
                    uint64_t tokens);

/** The slower end decides, as if it began now. An end that says nothing is as fast as others like it. */
uint64_t fastest_transfer_ns(struct fastest *fastest, const struct pane *pane,
                             const struct cluster *cluster, uint64_t from, uint64_t to,
                             uint64_t tokens);

#endif /* SCHED_FASTEST_H */
