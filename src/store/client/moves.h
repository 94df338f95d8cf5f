/*
 * moves.h - transfers between the parts of an object here and its place at a node: some under way, the
 * rest in their order behind them, and what became of each.
 *
 * Life:    moves_open -> (moves_order, moves_stop, moves_take)* -> moves_close
 * Threads: one, the loop's.
 * Memory:  a record for each from the allocator; batches of the Transfer Engine are used again.
 * Errors:  an end that is not well is a status of moves_take(). Until then the parts' memory is the engine's.
 */
#ifndef STORE_MOVES_H
#define STORE_MOVES_H

#include <mooncake/store.h>

#include "os/loop.h"

enum { MOVES_FLYING_MAX = 64 };

struct move;

/** Oldest first. */
struct move_list {
    struct move *first, **end;
};

struct moves {
    const struct mc_alloc *alloc;
    os_loop *loop;
    mc_transfer *transfer;
    /** Called when moves_take() has something again, from the loop, never inside these functions. */
    void (*ended)(void *user);
    void *user;
    struct move_list waiting, over;
    struct move *flying;
    uint32_t flying_count;
    mc_batch *idle[MOVES_FLYING_MAX]; /* owned */
    uint32_t idle_count;
    struct os_timer look; /* for those without a descriptor */
};

/** MC_OK or MC_E_NOMEM. */
mc_status moves_open(struct moves *moves, os_loop *loop, mc_transfer *transfer,
                     const struct mc_alloc *alloc, void (*ended)(void *user), void *user);

/**
 * Move `parts` one after another to (MC_WRITE) or from the start of a replica's place. All but the
 * memory of the parts is copied. Its end is due from moves_take(), perhaps at once.
 *
 * Returns MC_OK, MC_E_NOMEM, or as mc_batch_add(); then no end follows.
 */
mc_status moves_order(struct moves *moves, uint64_t tag, enum mc_op op,
                      const struct mc_replica *replica, const struct mc_range *parts, size_t count);

/** It ends with MC_E_CANCELLED when it is quiet, or as it had ended. Unknown: nothing happens. */
void moves_stop(struct moves *moves, uint64_t tag);

/** Take one that is over: nothing touches its memory. False: none is. */
bool moves_take(struct moves *moves, uint64_t *tag_p, mc_status *status_p);

/** Nothing is under way any more. Safe on `{ 0 }`. */
void moves_close(struct moves *moves);

#endif /* STORE_MOVES_H */
