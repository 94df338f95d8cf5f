/*
 * push.h - pushes of KVCache under way: each one strided transfer of the Transfer Engine, watched by the
 * loop.
 *
 * Life:    pushes_init -> (push_begin, pushes_stop)* -> pushes_fini
 * Threads: one, the loop's. The bytes are moved by the Transfer Engine's thread.
 * Memory:  a batch is kept for the next push until none is in flight; there are never more than were in
 *          flight at once, which the owners bound (core/prefill.h: pushes_max each).
 * Errors:  whatever becomes of a push comes to `done`, once; maybe before push_begin returns.
 */
#ifndef WORKER_PUSH_H
#define WORKER_PUSH_H

#include <mooncake/transfer.h>

#include "os/loop.h"

struct push;

struct pushes {
    const struct mc_alloc *alloc; /* borrowed */
    os_loop *loop;                /* borrowed */
    mc_transfer *transfer;        /* borrowed */
    uint64_t timeout_ns;          /* of each; 0: none */
    struct push *busy, *idle;     /* owned; lists */
    uint64_t bytes;               /* in flight */
};

typedef void push_done(void *owner, mc_status status, uint64_t bytes);

void pushes_init(struct pushes *pushes, const struct mc_alloc *alloc, os_loop *loop,
                 mc_transfer *transfer, uint64_t timeout_ns);

/** Post `xfer`, whose tables and memory are the owner's to keep until done. */
void push_begin(struct pushes *pushes, const struct mc_xfer *xfer, push_done *done, void *owner);

/** Cancel the owner's: each is done soon, once it is quiet. */
void pushes_stop(struct pushes *pushes, const void *owner);

/** What is in flight is cancelled and done before this returns. Safe on `{ 0 }`. */
void pushes_fini(struct pushes *pushes);

#endif /* WORKER_PUSH_H */
