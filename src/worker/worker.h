/*
 * worker.h - a serving instance: an engine, its pages, and what moves KVCache into and out of them.
 *
 * It registers with each gateway that it was told of and does what they ask over that connection: reserves
 * pages, prefills, pushes, decodes. Other workers dial it to hand a prompt off. README.md says what the
 * files do; design/003 who connects to whom.
 *
 * Life:    worker_open -> (the loop turns) -> worker_drain -> worker_close
 * Threads: one, the loop's; besides it the engine's thread and crew, the Transfer Engine's and the store's.
 * Memory:  pages, queues and rings are taken at open, and all KVCache populated; a request takes some
 *          memory of its own while it is here. "Full" is an answer.
 * Errors:  open says what cannot be; afterwards everything is an event: logged, counted, told to who asked.
 */
#ifndef WORKER_WORKER_H
#define WORKER_WORKER_H

#include <mooncake/infer.h>
#include <mooncake/sched.h>
#include <mooncake/transfer.h>

#include "os/loop.h"
#include "worker/core/timing.h"

typedef struct worker worker; /* opaque */

/** An engine of numbers instead of one that computes: core/timing.h. */
struct worker_timing {
    struct timing_model model;
    uint32_t layers; /* of the LLM that it stands for */
    double kv_scale; /* bytes that are kept and moved, for each that it would have; 0 .. 1 */
};

/** alloc, loop, model and listen must be set, the rest may be 0. All is copied but alloc and loop. */
struct worker_options {
    const struct mc_alloc *alloc; /* borrowed until close */
    os_loop *loop;                /* borrowed until close */
    struct mc_log log;
    const char *name;  /* default: "worker" */
    enum mc_role role; /* default MC_ROLE_BOTH */
    const char *model; /* a directory, as for mc_model_open(); with `timing` for its text alone */
    const struct worker_timing *timing; /* copied; NULL: an engine that computes */
    const char
        *listen;   /* "host:port" where other workers hand off; its Transfer Engine listens at the
                            * same host, any port */
    bool insecure; /* listen beyond loopback without a secret */
    const void *secret; /* [secret_size]; NULL: none */
    size_t secret_size;
    const char *master;          /* of the pool, as in mc_store_options; NULL: no pool */
    const char *const *gateways; /* [gateway_count], "host:port" */
    uint32_t gateway_count;
    uint64_t kv_bytes;      /* working memory; 0: as kv_tokens says */
    uint64_t kv_tokens;     /* default 16384; at least one sequence of 16 tokens */
    uint32_t sequences_max; /* in the engine at a time; default 256 */
    uint32_t chunk_tokens;  /* of a prompt in one step; a multiple of 16; default 512 */
    uint32_t requests_max;  /* to prefill, queued ones included; default 1024; then MC_E_FULL */
    uint32_t context_max;   /* default, and at most, the model's and what the pages hold */
    uint32_t threads;       /* of the engine, as in mc_engine_options; as the next two */
    const char *kernel;
    enum mc_dtype kv_dtype;
    const char *transports; /* as in mc_transfer_options; as the next */
    const char *transfer_settings;
    uint32_t pushes_max;     /* of a request in flight; default 8 */
    uint32_t put_blocks_max; /* waiting for the pool or on the way; default 1024; then dropped */
    uint64_t lease_ns;       /* of a reservation, where the gateway does not say; default 10 s */
    uint64_t push_ns;        /* one push may take so long; default 30 s */
    uint64_t hand_off_ns;    /* to get the decode worker's answer; default 3 s */
};

/**
 * Open the model, take the memory, listen, and begin to register.
 *
 * Returns MC_OK, MC_E_ARG, MC_E_RANGE, MC_E_DENIED (a wide address), MC_E_UNSUPPORTED (role, kernel,
 * transport), MC_E_NOMEM, or what opening the model, the Transfer Engine, the store or the listener
 * returns.
 */
mc_status worker_open(const struct worker_options *options, worker **worker_p,
                      struct mc_error *error);

/** "host:port" where it listens, with the real port. */
const char *worker_address(const worker *worker);

/** What its pages may be mixed with. */
const struct mc_identity *worker_fingerprint(const worker *worker);

/** Take no more, finish what is here, then call done(user) once, maybe at once; done may be NULL.
 * Gateways are told. */
void worker_drain(worker *worker, void (*done)(void *user), void *user);

/** One figure by its name in answers to STATS ("worker_pages_free"; the table is in state.h); 0: no such. */
uint64_t worker_counter(worker *worker, const char *name);

/** End everything at once: what runs is cancelled, what is in flight made quiet. NULL is allowed. */
void worker_close(worker *worker);

#endif /* WORKER_WORKER_H */
