/*
 * fake_moves.h - a Transfer Engine and a pool in one process's memory, for tests of the worker.
 *
 * They keep the promises that the worker relies on (windows checked when bytes move, a batch pending until
 * quiet, a revoke that waits for pins, verified gets) and do on demand what the real ones do rarely. All
 * of it in the test's thread: what is under way moves when fake_move_...() says so.
 *
 * fake_transfer.c and fake_pool.c are each other's equals: a test may link one of them and the real other.
 */
#ifndef FAKE_MOVES_H
#define FAKE_MOVES_H

#include <stdbool.h>
#include <stdint.h>

#include <mooncake/store.h>

/** Set by tests, all 0 at the start of each. */
struct fake_moves {
    bool hold_pushes; /* batches stay pending until they are cancelled or this is false again */
    bool hold_pulls, hold_puts;
    bool pinned;      /* a peer holds a pin: no window gets quiet */
    uint32_t corrupt; /* this many-th byte range that moves gets one byte wrong, counting down */
    uint32_t fail;    /* likewise: the move fails with MC_E_PEER */
    bool lose_pulls;  /* every second block is not found */
    /* Counted: */
    uint64_t moved_bytes, refused;
    uint32_t objects;
    uint32_t copies;         /* further ones, of objects that are there; one to each */
    uint64_t copy_node;      /* where the last one was wanted */
    uint64_t pulls, pull_ns; /* asked for; how long the last one may take */
};

extern struct fake_moves fake_moves;

/** Forget all objects, figures, settings. No store may be open. */
void fake_moves_reset(void);

/** Windows that are granted; engines and batches, stores and requests that are open. */
uint32_t fake_windows(void);
uint32_t fake_engines(void);
uint32_t fake_stores(void);

/** What became possible happens: called by tests between turns of the loop. */
void fake_move_batches(void);
void fake_move_requests(void);

#endif /* FAKE_MOVES_H */
