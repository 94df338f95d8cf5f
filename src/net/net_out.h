/*
 * net_out.h - what waits to be sent on one connection.
 *
 * Life:    `{ 0 }` -> (out_add | out_message | out_send)* -> out_fini
 * Threads: one, the loop's. Memory: from the allocator, bounded by the `max` of out_message; what grew large
 *          is given back once it is empty.
 */
#ifndef NET_OUT_H
#define NET_OUT_H

#include "wire/frame.h"
#include "wire/msg.h"

struct out {
    uint8_t *bytes; /* owned; [capacity], those in [begin, end) wait */
    size_t capacity, begin, end;
};

static inline size_t out_waits(const struct out *out)
{
    return out->end - out->begin;
}

/** Copy bytes behind what waits. MC_OK or MC_E_NOMEM. */
mc_status out_add(struct out *out, const void *bytes, size_t size, const struct mc_alloc *alloc);

/**
 * Encode a message behind what waits. `frame` says flags, id and deadline.
 *
 * Returns MC_OK, MC_E_FULL (more than `max` bytes would wait), MC_E_RANGE, MC_E_ARG (as wire_encode) or
 * MC_E_NOMEM.
 */
mc_status out_message(struct out *out, const struct wire_frame *frame, const void *message,
                      uint64_t max, const struct mc_alloc *alloc);

/** Send what the socket takes. MC_OK (nothing waits), MC_PENDING (the socket is full) or MC_E_PEER. */
mc_status out_send(struct out *out, int fd, const struct mc_alloc *alloc);

void out_fini(struct out *out, const struct mc_alloc *alloc);

#endif /* NET_OUT_H */
