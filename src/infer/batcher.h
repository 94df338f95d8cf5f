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
 * A request may join with pages: the first `computed` of its tokens (a prefix that was pulled, a prompt
 * that another worker computed) are not computed again. Where the pages came from changes no bit.
 *
 * Threads: one, the engine's. No clock, no threads of its own. Pages that are shared (infer/pages.h) may
 *          be taken and dropped by other threads meanwhile.
 * Memory:  pages, queues and step arrays are taken at open; a step allocates nothing but the text
 *          that requests hold back. Requests are borrowed from add until their last event. A request's
 *          pages lose one holder each when it ends or is preempted: who still reads them holds them too.
 * Errors:  add refuses what could never be served. An engine's error ends the requests of that step.
 */
#ifndef INFER_BATCHER_H
#define INFER_BATCHER_H

#include <mooncake/infer.h>

#include "infer/pages.h"
#include "infer/request.h"

typedef struct batcher batcher; /* opaque */

/** Called in the engine's thread, for whoever moves pages while they are computed. Entries may be NULL. */
struct batcher_hooks {
    /** A step begins: sequences[i] is requests[i]'s part of it. Borrowed until the step's end. */
    void (*begin)(void *user, struct request *const *requests, const struct mc_sequence *sequences,
                  uint32_t count);
    mc_layer_done *layer_done; /* as in struct mc_step */
    /** Positions [position, position + count) of a request are in its pages for good, all layers. Comes
     * before the event of the token that was sampled after them. */
    void (*computed)(void *user, struct request *request, uint32_t position, uint32_t count);
    void *user;
};

/** `{ 0 }` but for alloc means the defaults. */
struct batcher_options {
    uint32_t pages;       /* default: as many as one sequence of context_max needs */
    struct pages *shared; /* borrowed; instead of `pages` of its own; default: none */
    uint32_t waiting_max; /* requests queued; default 256, at most 65536; then add says MC_E_FULL */
    uint32_t running_max; /* default, and at most, what the engine takes in one step */
    uint32_t chunk_tokens; /* of a prompt in one step; a multiple of 16; default 512, cut to what
                             * the engine takes */
    struct batcher_hooks hooks;   /* copied */
    const struct mc_alloc *alloc; /* borrowed until close */
};

/** What a batcher is doing, for progress, metrics and tests. */
struct batcher_state {
    uint32_t waiting, running;
    uint32_t pages, pages_free;
    uint64_t steps, preemptions; /* since open */
    uint64_t context_tokens;     /* computed tokens of the running */
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
 * With shared pages the caller may have put pages[0 .. page_count) and `computed` there: a whole number
 * of pages' tokens, or all tokens but one. Each page's holder is then the request's, from MC_OK on. A
 * request that has pages for all of its tokens overtakes those that wait for some: it costs none.
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
 * Returns MC_OK (also when there was nothing to do), MC_PENDING (all that are here wait for shared pages
 * that others hold; nothing was computed), or the engine's error, of which the requests of this step
 * were told too; the others go on.
 */
mc_status batcher_step(batcher *batcher, struct mc_error *error);

/** Whether a step would do anything. */
bool batcher_busy(const batcher *batcher);

void batcher_state(const batcher *batcher, struct batcher_state *state_p);

/** Requests still inside get their last event, REQUEST_CANCELLED. NULL is allowed. */
void batcher_close(batcher *batcher);

#endif /* INFER_BATCHER_H */
