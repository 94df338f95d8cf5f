/*
 * requests.h - a whole trace in memory, its blocks numbered from 0: what simulations share.
 *
 * Life:    requests_init -> requests_add* -> requests_trace ... -> requests_fini
 * Threads: one while it grows; then any, reading.
 * Memory:  32 bytes for each request, 4 for each use of a block, 12 for each different block and room to grow.
 *          `room` bounds it: a file may be larger than any memory.
 * Errors:  MC_E_NOMEM; MC_E_RANGE beyond 2^31 requests or blocks, or beyond `room`.
 */
#ifndef SIM_REQUESTS_H
#define SIM_REQUESTS_H

#include "sim/sim.h"
#include "sim/trace.h"

/** How much there may be, and what is made of it elsewhere counts. `{ 0 }`: no bound. */
struct requests_room {
    uint64_t bytes;
    uint64_t request_bytes,
        block_bytes; /* that each request and each different block takes there */
};

struct requests {
    const struct mc_alloc *alloc; /* borrowed */
    struct sim_request *requests; /* owned; [capacity] */
    uint32_t *blocks;             /* owned; [block_capacity] */
    uint64_t *ids;                /* owned; [id_capacity]: a trace's ids, hashed; id + 1, 0: free */
    uint32_t *numbers;            /* owned; likewise: theirs here */
    uint32_t count, capacity, id_count;
    uint64_t block_count, block_capacity, id_capacity;
    uint32_t block_tokens;
    uint64_t first_ns;         /* of the first request: times begin there */
    struct requests_room room; /* set after init */
};

void requests_init(struct requests *requests, uint32_t block_tokens, const struct mc_alloc *alloc);
void requests_fini(struct requests *requests);

/** One more, not before the last one. An answer of no token counts as one. The last block is left out if it is
 * not whole: it is never reused. */
mc_status requests_add(struct requests *requests, const struct trace_request *request);

/** Borrowed from `requests`. */
struct sim_trace requests_trace(const struct requests *requests);

#endif /* SIM_REQUESTS_H */
