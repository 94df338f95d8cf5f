/*
 * pool.h - the worker's use of the pool: prefixes pulled into pages, new blocks put from them.
 *
 * The pool never delays serving: a pull has a deadline, after which the rest is computed; puts wait in a
 * bounded queue, and what does not fit is dropped and counted. No byte is copied: both sides are pages.
 *
 * Life:    pool_init -> (pull_begin, pull_stop, pool_put, pool_stop_puts)* -> pool_fini
 * Threads: one, the loop's. The bytes are moved by the store's and the Transfer Engine's threads.
 * Memory:  pages are borrowed: the one who pulls keeps them until done; those of a put were held once more
 *          for it and are dropped here.
 * Errors:  a pull that fails is a pull of nothing; a put that fails is counted.
 */
#ifndef WORKER_POOL_H
#define WORKER_POOL_H

#include <mooncake/store.h>

#include "infer/pages.h"
#include "os/loop.h"

struct pull;
struct put;

enum { PUT_BLOCKS_MAX = 32 }; /* of one put */

struct pool_options {
    const struct mc_alloc *alloc; /* borrowed */
    os_loop *loop;                /* borrowed */
    mc_store *store;              /* borrowed; NULL: there is no pool */
    struct pages *pages;          /* borrowed */
    uint64_t page_bytes;
    uint32_t puts_max;       /* blocks that wait or are under way; then they are dropped */
    uint32_t puts_in_flight; /* put requests at a time */
    uint64_t put_timeout_ns;
    void (*freed)(void *user); /* pages were dropped: somebody may be waiting for some */
    void *user;
};

/** Counted since init. */
struct pool_counts {
    uint64_t pulled_bytes, pull_failed; /* blocks that were asked for and did not come */
    uint64_t put_bytes, put_stored, put_existed, put_failed, put_dropped; /* blocks but for bytes */
    uint64_t copied; /* of put_stored: further copies */
};

struct pool {
    struct pool_options options;
    struct put *waiting, **waiting_end, *busy; /* owned; lists */
    struct pull *pulls;                        /* owned; a list */
    uint32_t put_blocks, busy_count;           /* waiting or under way; requests under way */
    uint64_t pull_bytes;                       /* under way */
    struct pool_counts counts;
};

void pool_init(struct pool *pool, const struct pool_options *options);

/** What came: the first `blocks` are in their pages, verified; nothing touches the others any more. */
typedef void pull_done(void *owner, uint32_t blocks);

/**
 * Get [count] blocks into [count] pages, until deadline_ns. `done` is called once, maybe before this
 * returns. `identities` and `pages` are borrowed until then. The first `expected` are thought to be there:
 * those that do not come are counted as failed.
 */
void pull_begin(struct pool *pool, const struct mc_identity *identities, void *const *pages,
                uint32_t count, uint32_t expected, uint64_t deadline_ns, pull_done *done,
                void *owner);

/** Cancel the owner's pull: done soon, once it is quiet. */
void pull_stop(struct pool *pool, const void *owner);

/** A put is over, whatever became of it. */
typedef void put_final(void *owner);

/**
 * Queue [count <= PUT_BLOCKS_MAX] full pages, each held once for this. `identities` and `pages` are
 * copied. False: there is no room (or no pool): dropped, `final` is not called.
 */
bool pool_put(struct pool *pool, const struct mc_identity *identities, void *const *pages,
              uint32_t count, put_final *final, void *owner);

/** As pool_put(), of blocks that are in the pool: a further copy of each, at `node` if it has none (0: any). */
bool pool_copy(struct pool *pool, const struct mc_identity *identities, void *const *pages,
               uint32_t count, uint64_t node, put_final *final, void *owner);

/** Begin what waits, as far as there is room; after its owner knows of it. */
void pool_go_on(struct pool *pool);

/** End the owner's puts: those that wait at once, those under way soon; each is final. */
void pool_stop_puts(struct pool *pool, const void *owner);

/** Everything is stopped, quiet and told before this returns. Safe on `{ 0 }`. */
void pool_fini(struct pool *pool);

#endif /* WORKER_POOL_H */
