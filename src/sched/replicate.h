/*
 * replicate.h - hot prefixes are spread before those who want them have to wait.
 *
 * Each placement whose prompt begins with what somebody has, and its own instance has not, costs time: the pull, or
 * the computing again. That is booked to the prefix, at depths of 1, 2, 3, 4, 6, 8, 12, ... blocks, and fades. When
 * the placements of a window have lost so many times (`gain`, for each copy there is) what one more copy would take,
 * the copy is ordered: MC_DECIDE_REPLICATE, behind the placement that tipped it.
 *
 * Where the pool holds the prefix, the copy goes to another of its nodes; else to the instance with the shortest queue
 * of those that lack it. (The papers copy where a placement pulls, which every policy here does as well: then the
 * request has to wait for it, and where a pool holds the blocks no copy stays.)
 *
 * Bounded: at most `rate` copies a second, 4096 blocks each. Damped: what tipped it is forgotten along the whole
 * chain, and the same prefix is left alone for some seconds, so the copy is there before the next is thought of.
 *
 * Life:    replicate_init -> replicate_placed* -> replicate_fini; safe on zeroes.
 * Threads: one. Memory: all at init, none where it is off.
 */
#ifndef SCHED_REPLICATE_H
#define SCHED_REPLICATE_H

#include <mooncake/sched.h>

struct place;

struct hot_prefix {
    struct mc_key key;    /* of its last block */
    double lost_s, asked; /* within the window, fading */
    uint64_t last_ns;     /* they are of then; 0: nobody's entry */
    uint64_t quiet_ns;    /* no copy of it is ordered before */
};

enum { HOT_SETS = 256, HOT_WAYS = 8, COPY_BLOCKS_MAX = 4096 };

struct replicate {
    const struct mc_alloc *alloc; /* borrowed */
    double rate, gain, asked, window_s;
    struct hot_prefix *table; /* owned; [HOT_SETS x HOT_WAYS]; NULL: off */
    struct mc_key *keys;      /* owned; [COPY_BLOCKS_MAX]: of the decision */
    uint64_t next_ns;         /* no copy before */
    uint64_t last_node;       /* of the pool, that was given one */
    bool has_decision;
    struct mc_decision decision;
};

/** text: NULL or "off", "on", or "name=number,...". MC_OK, MC_E_ARG or MC_E_NOMEM. */
mc_status replicate_init(struct replicate *replicate, const char *text,
                         const struct mc_alloc *alloc, struct mc_error *error);
void replicate_fini(struct replicate *replicate);

/** `decision` has placed the request; row: where it is prefilled. May set replicate->decision. */
void replicate_placed(struct place *place, uint64_t row, const struct mc_decision *decision);

#endif /* SCHED_REPLICATE_H */
