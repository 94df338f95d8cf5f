/*
 * plan.h - cut a transfer into slices: pure arithmetic over struct mc_xfer.
 *
 * Life:    plan_check once; then a `struct plan_cursor` of zeros and plan_next() until it says no more.
 * Threads: pure functions. Memory: nothing is allocated; the transfer's tables are read in place.
 *
 * A slice is cut at the ends of the transfer's pieces, of the window's pieces, and at slice_max.
 */
#ifndef TRANSFER_PLAN_H
#define TRANSFER_PLAN_H

#include <mooncake/transfer.h>

/** How to cut. */
struct plan {
    uint64_t slice_max;      /* bytes; > 0 */
    uint64_t piece_bytes;    /* of the window's pieces; 0: no window */
    const uint64_t *offsets; /* [count]: where they lie in the region; NULL: not known */
    uint64_t count;
};

/** Where the next slice begins. `{ 0 }`: the beginning. */
struct plan_cursor {
    uint64_t piece; /* of the transfer */
    uint64_t done;  /* bytes of it */
};

struct plan_slice {
    char *local;
    uint64_t offset; /* there, in region or window */
    uint64_t length;
    uint64_t region_offset; /* there, in the region; UINT64_MAX: not known */
};

/**
 * Whether every address can be: no sum wraps.
 *
 * end_p    the end of what is touched there: no less than any offset + length; 0 if nothing is.
 *
 * Returns MC_OK or MC_E_RANGE.
 */
mc_status plan_check(const struct mc_xfer *xfer, uint64_t *end_p);

/** Pieces of a transfer: count, where 0 means 1. */
uint64_t plan_pieces(const struct mc_xfer *xfer);

/** Where piece `index` lies here. */
char *plan_local(const struct mc_xfer *xfer, uint64_t index);

/** The next slice; false: there is none left. Hot. */
bool plan_next(const struct mc_xfer *xfer, const struct plan *plan, struct plan_cursor *cursor,
               struct plan_slice *slice_p);

#endif /* TRANSFER_PLAN_H */
