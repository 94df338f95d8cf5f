/*
 * mooncake/p2p.h - share large objects in memory (checkpoints) from peer to peer.
 *
 * In this release: every function returns MC_E_UNSUPPORTED, writes no output (an error text says
 * so), and closers do nothing. The declarations are final: later releases put code behind them.
 *
 * Life:    mc_p2p_open -> mc_p2p_share | mc_p2p_fetch -> mc_p2p_poll* -> mc_p2p_end -> mc_p2p_close
 * Threads: a mc_p2p may be used by any number of threads; a job by one at a time.
 * Memory:  shared ranges are read by peers from the share until mc_p2p_end() returns: leave them as
 *          they are. Fetched ranges belong to the job until it is final, and are then shared in turn
 *          (each piece as soon as it is verified) until mc_p2p_end().
 * Errors:  as in mooncake/transfer.h. Every piece is verified by its hash before it counts, so a
 *          finished fetch is the object that its digest names.
 * Time and growth: as in mooncake/transfer.h.
 */
#ifndef MC_P2P_H
#define MC_P2P_H

#include <mooncake/transfer.h>

MC_C_BEGIN

typedef struct mc_p2p mc_p2p;         /* opaque */
typedef struct mc_p2p_job mc_p2p_job; /* opaque: an object being shared or fetched */

struct mc_p2p_options {
    mc_transfer *transfer;        /* borrowed until close; required */
    const struct mc_alloc *alloc; /* default: malloc */
    struct mc_log log;
    uint64_t piece_bytes; /* what is fetched, verified and passed on at a time; default 64 MiB */
    uint64_t lease_ns;    /* a peer that does not renew is not asked; default 10 s */
    uint32_t streams_max; /* pieces in flight; default 16 */
    uint32_t reserved32;
    uint64_t reserved[4];
};

/** Objects are published and found by the engine's resolver. Returns MC_OK, MC_E_ARG (no transfer),
 * MC_E_RANGE or MC_E_NOMEM. */
MC_API MC_MUST_USE mc_status mc_p2p_open(const struct mc_p2p_options *options, mc_p2p **p2p_p,
                                         struct mc_error *error);

/** Ends every job, waits until quiet, frees. NULL is allowed. */
MC_API void mc_p2p_close(mc_p2p *p2p);

/** SHA-256 over the pieces' SHA-256, in order: what an object is, whoever serves it. */
struct mc_digest {
    uint8_t bytes[32];
};

struct mc_p2p_object {
    char name[MC_NAME_MAX + 1];
    struct mc_digest digest;
    uint64_t size;
    uint64_t piece_bytes;
    uint32_t sources;  /* peers that hold at least one piece */
    uint32_t complete; /* of them, those that hold all */
    uint64_t reserved[2];
};

/**
 * Offer an object under a name. The hashes are made first, in the background.
 *
 * ranges  [count]: the object is their bytes one after another; the array is copied, the memory
 *         (registered) borrowed until mc_p2p_end().
 *
 * The job is final with MC_OK when it is offered; MC_E_EXISTS when the name stands for other bytes.
 * Returns MC_OK, MC_E_ARG, MC_E_DENIED (memory not registered for MC_REMOTE_READ), MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_p2p_share(mc_p2p *p2p, const char *name,
                                          const struct mc_range *ranges, size_t count,
                                          mc_p2p_job **job_p, struct mc_error *error);

/**
 * Fetch an object into ranges whose sizes add up to its own, from all who have pieces of it.
 *
 * digest       the bytes that are wanted; NULL: whatever the name stands for at the start.
 * deadline_ns  0: none.
 *
 * The job ends with MC_OK, MC_E_NOT_FOUND, MC_E_RANGE (sizes differ: the text says both),
 * MC_E_STALE (another digest), MC_E_CORRUPT (no source gives the right bytes), MC_E_TIMEOUT,
 * MC_E_CANCELLED. Returns MC_OK, MC_E_ARG, MC_E_DENIED or MC_E_NOMEM.
 */
MC_API MC_MUST_USE mc_status mc_p2p_fetch(mc_p2p *p2p, const char *name,
                                          const struct mc_digest *digest,
                                          const struct mc_range *ranges, size_t count,
                                          uint64_t deadline_ns, mc_p2p_job **job_p,
                                          struct mc_error *error);

struct mc_p2p_progress {
    uint64_t bytes_done, bytes_total;
    uint64_t bytes_served; /* to others, of this object */
    uint64_t eta_ns;       /* 0: not known */
    uint32_t sources;      /* in use now */
    uint32_t retries;
    uint64_t reserved[4];
};

/** How far it is, at any time. Returns MC_OK. */
MC_API mc_status mc_p2p_progress(const mc_p2p_job *job, struct mc_p2p_progress *progress_p);

/** Never blocks: MC_PENDING, then the outcome for good. */
MC_API mc_status mc_p2p_poll(mc_p2p_job *job);

/** As poll, but waits until `deadline_ns`; MC_PENDING means that only this call gave up. */
MC_API MC_MUST_USE mc_status mc_p2p_wait(mc_p2p_job *job, uint64_t deadline_ns,
                                         struct mc_error *error);

/** Cancel if not final, stop serving, wait until quiet, free. NULL is allowed. */
MC_API void mc_p2p_end(mc_p2p_job *job);

/**
 * What is offered now under names that begin with `prefix`, by name.
 *
 * objects_p  [capacity]; *count_p of them are written; *total_p: how many there are.
 *
 * Returns MC_OK, MC_E_TIMEOUT, MC_E_PEER (the resolver does not answer) or MC_E_UNSUPPORTED
 * (it cannot list).
 */
MC_API MC_MUST_USE mc_status mc_p2p_list(mc_p2p *p2p, const char *prefix, uint64_t deadline_ns,
                                         struct mc_p2p_object *objects_p, size_t capacity,
                                         size_t *count_p, size_t *total_p, struct mc_error *error);

MC_C_END

#endif /* MC_P2P_H */
