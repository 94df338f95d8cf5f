/*
 * coupled.c - instances that prefill and decode, as the papers' baselines do.
 *
 * Plain (vLLM before chunked prefill): between two steps, prompts that wait go first; a step of whole prompts
 * holds up everybody who is decoding. Prefix: the same, and what VRAM the batch leaves holds blocks for
 * reuse; what keeping account of them takes, the GPUs wait for. Chunked: each step has all who are decoding and a budget of prompt tokens.
 */
#include <assert.h>

#include "sim/world.h"

static uint32_t next_prompt(const sim *s, const struct instance *i)
{
    if (i->queue.count == 0 || i->batch.count + i->active.count >= i->batch.members_max)
        return NOBODY;
    if (i->batch.count + i->active.count == 0)
        return i->queue.first;
    return i->vram_used + decode_need(s, i->queue.first) <= i->vram_max ? i->queue.first : NOBODY;
}

static uint64_t reused_now(sim *s, uint32_t instance, uint32_t request)
{
    struct life *life = &s->lives[request];

    life->own_blocks = blocks_matched(s, &s->instances[instance], request);
    blocks_hold(s, request);
    return (uint64_t)life->own_blocks * s->options.trace->block_tokens;
}

/* It has memory from now to its end. */
static void begin(sim *s, uint32_t instance, uint32_t request)
{
    struct instance *i = &s->instances[instance];
    struct sim_record *r = &s->records[request];
    struct life *life = &s->lives[request];

    life->done_tokens = reused_now(s, instance, request);
    list_remove(s, &i->queue, request);
    list_add(s, &i->active, request);
    world_stage(s, request, STAGE_PREFILL);
    i->vram_used += decode_need(s, request);
    blocks_limit(s, instance, i->vram_max > i->vram_used ? i->vram_max - i->vram_used : 0);
    r->prefill_begin_ns = s->now_ns;
    r->reused = (uint32_t)life->done_tokens;
    s->hit_tokens += r->reused;
    s->prompt_tokens += r->input;
    decide_progress(s, MC_EVENT_PREFILL_BEGIN, request, instance, (struct mc_sched_progress){ 0 });
}

/* Tokens from `done`, without the fixed part of a call. */
static double tokens_s(const struct instance *i, uint64_t done, uint64_t count)
{
    const double a = (double)done, b = (double)(done + count);

    return i->cost.p1 * (b - a) + i->cost.p2 * (b * b - a * a);
}

/* ------------------------------------------------------------------------------------ whole prompts */

/* vLLM 0.5.1 hashes all tokens before each block of 16, and looks for the last block of a whole sequence for each that
 * it evicts, before the step begins (core/block_manager_v1.py, evictor_v1.py, sequence.py: "The current hashing
 * function is O(L^2)"). */
static double account_s(const sim *s, uint64_t tokens)
{
    return s->options.coupled == SIM_PREFIX
               ? s->options.assume.vllm_hash_pair_s * (double)tokens * (double)tokens
               : 0;
}

/* As many prompts as the budget of a step takes, one at least. */
static bool begin_prompts(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    const uint64_t budget = (uint64_t)s->options.assume.vllm_prompt_tokens;
    uint64_t tokens = 0;
    uint32_t request;
    double seconds = i->cost.p0;

    while ((request = next_prompt(s, i)) != NOBODY) {
        const uint64_t most = request_of(s, request)->input;
        if (tokens != 0 && tokens + most > budget)
            break;
        begin(s, instance, request);
        const uint64_t left = most - s->lives[request].done_tokens;
        s->records[request].busy_s =
            tokens_s(i, s->lives[request].done_tokens, left) + (tokens == 0 ? i->cost.p0 : 0);
        seconds += tokens_s(i, s->lives[request].done_tokens, left) + account_s(s, most);
        s->lives[request].done_tokens = most;
        tokens += left;
    }
    if (tokens == 0)
        return false;
    i->step_s = seconds;
    return true;
}

/* ------------------------------------------------------------------------------------------- chunks */

static bool begin_chunks(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    const uint64_t most = (uint64_t)s->options.assume.vllm_chunk_tokens;
    uint64_t budget = most > i->batch.count ? most - i->batch.count : 1;
    double seconds = i->cost.p0;
    uint32_t at = i->active.count ? i->active.first : NOBODY;

    if (at == NOBODY && next_prompt(s, i) == NOBODY)
        return false;
    while (budget > 0) {
        if (at == NOBODY) {
            if (next_prompt(s, i) == NOBODY)
                break;
            at = i->queue.first;
            begin(s, instance, at);
            s->records[at].busy_s = 0;
        }
        struct life *life = &s->lives[at];
        const uint64_t left = request_of(s, at)->input - life->done_tokens;
        const uint64_t chunk = left < budget ? left : budget;
        const double took = tokens_s(i, life->done_tokens, chunk);

        s->records[at].busy_s += took + (budget == most - i->batch.count ? i->cost.p0 : 0);
        seconds += took;
        life->done_tokens += chunk;
        budget -= chunk;
        at = life->next;
    }
    if (i->batch.count)
        seconds += i->cost.d1 * i->batch.count + i->cost.d2 * (double)i->batch.context;
    i->step_s = seconds;
    return true;
}

/* --------------------------------------------------------------------------------------------- ends */

/* Its prompt is computed: the first token is there. */
static void prompt_done(sim *s, uint32_t instance, uint32_t request, double skip_s)
{
    struct instance *i = &s->instances[instance];
    struct sim_record *r = &s->records[request];
    const uint32_t turn = s->lives[request].turn;

    list_remove(s, &i->active, request);
    r->prefill_end_ns = r->moved_ns = r->join_ns = r->first_token_ns = s->now_ns;
    blocks_release_own(s, request);
    blocks_store(s, instance, request, NOBODY);
    decide_progress(s, MC_EVENT_PREFILL_END, request, instance,
                    (struct mc_sched_progress){ .tokens = r->input - r->reused,
                                                .reused = r->reused,
                                                .duration_ns = s->now_ns - r->prefill_begin_ns });
    if (s->lives[request].turn != turn) { /* refused just now */
        i->vram_used -= decode_need(s, request);
        return;
    }
    world_stage(s, request, STAGE_DECODE);
    decide_progress(s, MC_EVENT_DECODE_BEGIN, request, instance, (struct mc_sched_progress){ 0 });
    if (r->output == 1) {
        i->vram_used -= decode_need(s, request);
        request_over(s, request, SIM_FINISHED, 0);
        return;
    }
    batch_join(&i->batch, request, r->input, r->output - 1, false, skip_s);
}

static void prompts_done(sim *s, uint32_t instance, double skip_s)
{
    struct instance *i = &s->instances[instance];
    uint32_t next;

    for (uint32_t at = i->active.count ? i->active.first : NOBODY; at != NOBODY; at = next) {
        next = s->lives[at].next;
        if (s->lives[at].done_tokens == request_of(s, at)->input)
            prompt_done(s, instance, at, skip_s);
    }
}

/* A step with prompts in it is over. */
static void end_prompts(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    const uint32_t members = i->batch.count, log_first = i->batch.log_count;

    i->working = false;
    if (s->options.coupled != SIM_CHUNKED) {
        i->late_s = members ? i->late_s + i->step_s : 0;
        prompts_done(s, instance, i->late_s);
        return;
    }
    if (members && batch_step(&i->batch, i->step_s) != MC_OK)
        s->failed = true;
    decode_count_gaps(s, &i->batch, log_first, members, 0);
    decode_leave(s, instance);
    prompts_done(s, instance, 0);
}

/* ---------------------------------------------------------------------------------------------- loop */

static void next_step(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    const bool chunked = s->options.coupled == SIM_CHUNKED;

    if (chunked ? begin_chunks(s, instance) : begin_prompts(s, instance)) {
        i->working = true;
        world_add(s, world_after(s, i->step_s), EVENT_STEP, instance, ++i->turn);
    } else {
        blocks_limit(s, instance, i->vram_max > i->vram_used ? i->vram_max - i->vram_used : 0);
        decode_run(s, instance);
    }
}

void coupled_step(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];

    if (i->working) {
        end_prompts(s, instance);
    } else {
        const uint32_t members = i->batch.count, log_first = i->batch.log_count;

        if (batch_end(&i->batch) != MC_OK)
            s->failed = true;
        decode_count_gaps(s, &i->batch, log_first, members, 0);
        decode_leave(s, instance);
    }
    next_step(s, instance);
}

void coupled_kick(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];

    if (!i->alive || i->working)
        return;
    if (!i->batch.runs)
        next_step(s, instance);
    else if (next_prompt(s, i) != NOBODY)
        world_add(s, batch_cut(&i->batch, s->now_ns), EVENT_STEP, instance, ++i->turn);
}
