/*
 * runner.h - the engine's thread: a batcher that steps, orders in, news out.
 *
 * The loop's thread gives requests and takes them out; the engine's thread steps and tells what came of
 * it. They meet in two bounded rings under one lock. A step never waits for the loop but when the ring of
 * news is full, and the loop never waits for a step.
 *
 * Life:    runner_open -> (runner_add, runner_cancel)* -> runner_close
 * Threads: all functions: the loop's. What is told comes in the loop's thread.
 * Memory:  rings and the batcher's are taken at open. A job is its owner's, stays where it is, and
 *          belongs to the runner from runner_add() until its RUNNER_OUT.
 * Errors:  what the batcher refuses comes as RUNNER_OUT like any other end.
 */
#ifndef WORKER_RUNNER_H
#define WORKER_RUNNER_H

#include "infer/batcher.h"
#include "os/loop.h"
#include "worker/core/push_plan.h"

typedef struct runner runner; /* opaque */

struct job;

enum runner_news_kind {
    RUNNER_PROGRESS, /* of a prompt: .ready; each layer if job.layers, else each chunk */
    RUNNER_BLOCKS, /* blocks [first, first + count) are full: their pages are in job.block_pages, each
                      * held once more, for the owner to drop */
    RUNNER_TOKEN, /* .sample was chosen; .finish */
    RUNNER_OUT,   /* the last: the job and its request are the owner's; .finish, request->why */
};

struct runner_news {
    enum runner_news_kind kind;
    enum request_finish finish;
    uint64_t job; /* its number */
    struct job *of;
    struct push_ready ready;
    uint32_t first, count;
    struct mc_sample sample;
};

/** One request in the engine. request->user must be the job, request->output runner_output. */
struct job {
    struct request *request; /* the owner's */
    void (*tell)(void *owner, const struct runner_news *news);
    void *owner;
    bool layers;          /* tell of each layer of its prompt */
    uint32_t first_block; /* blocks before it are not told; UINT32_MAX: none is */
    void **block_pages;   /* [pages of token_max], the owner's; NULL if none is told */
    /* The runner's: */
    struct runner *runner;
    uint64_t number;
    uint32_t place; /* among the active */
};

/** What request_options.output must be. */
request_output runner_output;

struct runner_options {
    const struct mc_alloc *alloc; /* borrowed until close */
    os_loop *loop;                /* borrowed until close */
    mc_engine *engine;            /* borrowed until close */
    struct pages *pages;          /* borrowed until close */
    uint32_t jobs_max;            /* at a time; more is a bug of the owner */
    uint32_t running_max;         /* as in batcher_options */
    uint32_t chunk_tokens;        /* as in batcher_options */
    uint32_t news_max;            /* default 4096 */
};

/** What the engine is doing, as of its last step. */
struct runner_state {
    struct batcher_state batcher;
    uint64_t step_ns;  /* the last step that decoded took */
    uint32_t decoding; /* sequences in it */
};

/** Returns MC_OK, MC_E_ARG, MC_E_RANGE, MC_E_NOMEM or MC_E_IO (threads, descriptors). */
mc_status runner_open(const struct runner_options *options, runner **runner_p,
                      struct mc_error *error);

/** Give it a job. It may bring pages, as batcher_add() says; they are the request's from now on. */
void runner_add(runner *runner, struct job *job);

/** End a job: its RUNNER_OUT comes within one step. */
void runner_cancel(runner *runner, const struct job *job);

/** Pages came free: who waits for some may go on. */
void runner_wake(runner *runner);

void runner_state(runner *runner, struct runner_state *state_p);

/** Stop the thread; every job still inside is told RUNNER_OUT before this returns. NULL is allowed. */
void runner_close(runner *runner);

#endif /* WORKER_RUNNER_H */
