/*
 * batcher.h - continuous batching: many requests, one engine, a bounded number of pages.
 *
 * Every step takes one token of each sequence that decodes, then as much of the waiting prompts as
 * the engine accepts, in chunks. Requests are served in the order they came. When a sequence needs a
 * page and none is free, the newest request gives all of its pages back and is computed again later
 * from its tokens so far; its answer is unchanged, because the engine's results do not depend on how
 * tokens were cut into steps and sampling depends on seed and position alone.
 *
 * Life:    batcher_open -> (batcher_add, batcher_cancel, batcher_step)* -> batcher_close
 * Threads: one, the engine's. No clock, no threads of its own.
 * Memory:  pages, queues and step arrays are taken at open; a step allocates nothing but the text
 *          that requests hold back. Requests are borrowed from add until their last event.
 * Errors:  add refuses what could never be served. An engine's error ends the requests of that step.
 */
#ifndef INFER_BATCHER_H
#define INFER_BATCHER_H

#include <mooncake/infer.h>

#include "infer/request.h"

typedef struct batcher batcher; /* opaque */

/** `{ 0 }` but for alloc means the defaults. */
struct batcher_options {
    uint32_t pages;       /* default: as many as one sequence of context_max needs */
    uint32_t waiting_max; /* requests queued; default 256, at most 65536; then add says MC_E_FULL */
    uint32_t running_max; /* default, and at most, what the engine takes in one step */
    uint32_t chunk_tokens; /* of a prompt in one step; a multiple of 16; default 512, cut to what
                             * the engine takes */
    const struct mc_alloc *alloc; /* borrowed until close */
};

/** What a batcher is doing, for progress, metrics and tests. */
struct batcher_state {
    uint32_t waiting, running;
    uint32_t pages, pages_free;
    uint64_t steps, preemptions; /* since open */
};

/**
 * engine  borrowed; outlives the batcher.
 *
 * Returns MC_OK, MC_E_ARG (chunk_tokens is no multiple of 16), MC_E_RANGE or MC_E_NOMEM.
 */
mc_status batcher_open(mc_engine *engine, const struct batcher_options *options,
                       batcher **batcher_p, struct mc_error *error);

/**
 * Queue a request. May be called from its events.
 *
 * Returns MC_OK, MC_E_FULL (waiting_max are queued) or MC_E_RANGE (a token, the context or the pages are
 * beyond what the engine or this pool has).
 */
mc_status batcher_add(batcher *batcher, struct request *request, struct mc_error *error);

/** End a request that was added and has not finished: its last event comes from the next step at the
 * latest. May be called from events. */
void batcher_cancel(batcher *batcher, struct request *request);

/**
 * Run one step, and call the events of every request that made a token or ended in it.
 *
 * Returns MC_OK (also when there was nothing to do), or the engine's error, of which the requests of
 * this step were told too; the others go on.
 */
mc_status batcher_step(batcher *batcher, struct mc_error *error);

/** Whether a step would do anything. */
bool batcher_busy(const batcher *batcher);

void batcher_state(const batcher *batcher, struct batcher_state *state_p);

/** Requests still inside get their last event, REQUEST_CANCELLED. NULL is allowed. */
void batcher_close(batcher *batcher);

#endif /* INFER_BATCHER_H */
