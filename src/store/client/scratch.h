/*
 * scratch.h - registered memory for headers and checksums on their way.
 *
 * Life:    scratch_open -> (scratch_take, scratch_give)* -> scratch_close
 * Threads: one.
 * Memory:  slots at open, which suffice for objects up to 8 MiB; a larger piece is had, and registered,
 *          when it is asked for.
 */
#ifndef STORE_SCRATCH_H
#define STORE_SCRATCH_H

#include <mooncake/transfer.h>

enum { SCRATCH_SLOT = 1024, SCRATCH_SLOTS = 1024 };

struct scratch {
    const struct mc_alloc *alloc;
    mc_transfer *transfer;
    void *block; /* owned; where `slots` lie */
    uint8_t *slots;
    struct mc_region region;
    void *spare; /* a slot that is free begins with the next one */
    struct scratch_large *large;
};

/** MC_OK, MC_E_NOMEM, or as mc_region_register(). */
mc_status scratch_open(struct scratch *scratch, mc_transfer *transfer, const struct mc_alloc *alloc,
                       struct mc_error *error);

/** NULL: none now. */
void *scratch_take(struct scratch *scratch, size_t size);
void scratch_give(struct scratch *scratch, void *p, size_t size);

/** Safe on `{ 0 }`. */
void scratch_close(struct scratch *scratch);

#endif /* STORE_SCRATCH_H */
