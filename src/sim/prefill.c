/* prefill.c - prefill instances: whole prompts, chunks that take turns, pipelines of several nodes. */
#include <assert.h>

#include "sim/world.h"

double prefill_seconds(const struct instance *i, uint64_t tokens, uint64_t reused)
{
    const struct mc_cost *c = &i->cost;
    const double n = (double)tokens, p = (double)reused;

    return c->p0 + c->p1 * (n - p) + c->p2 * (n * n - p * p) + c->p3 * p;
}

/* Tokens [done, done + chunk) behind the reused ones; each chunk is a call of its own. */
static double chunk_seconds(const struct instance *i, uint64_t done, uint64_t chunk)
{
    const struct mc_cost *c = &i->cost;
    const double a = (double)done, b = (double)(done + chunk);

    return c->p0 + c->p1 * (b - a) + c->p2 * (b * b - a * a);
}

/* What was there at the decision, pulled, or computed here for another one since. */
static uint64_t reused_tokens(const sim *s, uint32_t request)
{
    const uint32_t planned = s->lives[request].pull_blocks;
    const uint32_t now = blocks_matched(s, &s->instances[s->records[request].prefill], request);

    return (uint64_t)(now > planned ? now : planned) * s->options.trace->block_tokens;
}

/* -------------------------------------------------------------------------------------------- waiting */

static bool is_ready(const struct life *life)
{
    return !life->pulling && !life->reading;
}

void prefill_queue(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];
    const struct sim_record *r = &s->records[request];

    list_add(s, &s->instances[r->prefill].queue, request);
    life->pulling = life->holds_pull;
    life->reading = life->read_until_ns > s->now_ns;
    if (life->pulling)
        world_add(s, world_after(s, s->options.assume.link_latency_s), EVENT_PULL, request,
                  life->turn);
    if (life->reading)
        world_add(s, life->read_until_ns, EVENT_READ, request, life->turn);
    if (is_ready(life))
        prefill_kick(s, r->prefill);
}

void prefill_read(sim *s, uint32_t request)
{
    s->lives[request].reading = 0;
    if (is_ready(&s->lives[request]))
        prefill_kick(s, s->records[request].prefill);
}

/* The first in order of those whose prefix is there. */
static uint32_t choose(const sim *s, const struct instance *i)
{
    uint32_t best = NOBODY;

    for (uint32_t at = i->queue.count ? i->queue.first : NOBODY; at != NOBODY;
         at = s->lives[at].next) {
        if (!is_ready(&s->lives[at]))
            continue;
        if (s->lives[at].order == 0)
            return best == NOBODY || s->lives[best].order > 0 ? at : best;
        if (best == NOBODY || s->lives[at].order < s->lives[best].order)
            best = at;
    }
    return best;
}

/* ------------------------------------------------------------------------------------------ beginning */

static void begin(sim *s, uint32_t instance, uint32_t request, uint64_t reused)
{
    struct instance *i = &s->instances[instance];
    struct sim_record *r = &s->records[request];
    struct life *life = &s->lives[request];

    list_remove(s, &i->queue, request);
    list_add(s, &i->active, request);
    world_stage(s, request, STAGE_PREFILL);
    r->prefill_begin_ns = s->now_ns;
    r->reused = (uint32_t)reused;
    r->pulled = (life->pull_blocks - life->own_blocks) * s->options.trace->block_tokens;
    s->hit_tokens += r->reused;
    s->prompt_tokens += r->input;
    life->done_tokens = r->reused;
    decide_progress(s, MC_EVENT_PREFILL_BEGIN, request, instance, (struct mc_sched_progress){ 0 });
}

static void begin_whole(sim *s, uint32_t instance, uint32_t request)
{
    struct instance *i = &s->instances[instance];
    const uint64_t reused = reused_tokens(s, request);
    const double seconds = prefill_seconds(i, request_of(s, request)->input, reused);

    begin(s, instance, request, reused);
    i->working = true;
    move_stream(s, request, seconds);
    world_add(s, world_after(s, seconds), EVENT_PREFILL_END, request, s->lives[request].turn);
}

/* Chunk j begins on stage k when chunk j - 1 has left it and chunk j has left stage k - 1; every stage does
 * its share of the layers. The next request follows as soon as the first stage is free. */
static void begin_pipeline(sim *s, uint32_t instance, uint32_t request)
{
    struct instance *i = &s->instances[instance];
    const struct sim_assume *a = &s->options.assume;
    const uint64_t tokens = request_of(s, request)->input, reused = reused_tokens(s, request);
    const uint64_t chunk = s->options.chunk_tokens ? s->options.chunk_tokens : tokens;
    const uint64_t load_ns = (uint64_t)(i->cost.p3 * (double)reused / i->stages * 1e9);
    uint64_t end_ns = s->now_ns, busy_ns = 0;

    begin(s, instance, request, reused);
    for (uint64_t done = reused; done < tokens; done += chunk) {
        const uint64_t now = tokens - done < chunk ? tokens - done : chunk;
        const double seconds = chunk_seconds(i, done, now) / i->stages;
        const uint64_t ns = (uint64_t)(seconds * 1e9) + (done == reused ? load_ns : 0);

        for (uint32_t k = 0; k < i->stages; k++) {
            const uint64_t comm_ns = k ? (uint64_t)(a->pipeline_comm_s * 1e9) : 0;
            const uint64_t there = k ? i->stage_free_ns[k - 1] + comm_ns : s->now_ns;
            const uint64_t free = i->stage_free_ns[k];

            i->stage_free_ns[k] = (there > free ? there : free) + ns;
            busy_ns += ns;
        }
        end_ns = i->stage_free_ns[i->stages - 1];
    }
    i->working = true;
    s->records[request].busy_s = (double)busy_ns / 1e9;
    move_stream(s, request, (double)(end_ns - s->now_ns) / 1e9);
    world_add(s, i->stage_free_ns[0], EVENT_PREFILL_NEXT, instance, i->turn);
    world_add(s, end_ns, EVENT_PREFILL_END, request, s->lives[request].turn);
}

/* ---------------------------------------------------------------------------------------------- chunks */

/* The chunk of the first of the active ones; then it is the next one's turn. */
static void begin_chunk(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    const uint32_t request = i->active.first;
    struct life *life = &s->lives[request];
    const uint64_t left = request_of(s, request)->input - life->done_tokens;
    const uint64_t chunk = left < s->options.chunk_tokens ? left : s->options.chunk_tokens;
    double seconds = chunk_seconds(i, life->done_tokens, chunk);

    if (life->done_tokens == s->records[request].reused)
        seconds += i->cost.p3 * (double)s->records[request].reused;
    i->working = true;
    life->done_tokens += chunk;
    s->records[request].busy_s += seconds;
    world_add(s, world_after(s, seconds), EVENT_PREFILL_NEXT, instance, i->turn);
}

/* Fill the round of those that take turns. */
static void admit_chunks(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];

    while (i->active.count < s->options.interleave) {
        const uint32_t request = choose(s, i);
        if (request == NOBODY)
            break;
        begin(s, instance, request, reused_tokens(s, request));
        s->records[request].busy_s = 0;
    }
}

static void kick_chunks(sim *s, uint32_t instance)
{
    admit_chunks(s, instance);
    if (s->instances[instance].active.count)
        begin_chunk(s, instance);
}

void prefill_kick(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];

    if (i->role == MC_ROLE_BOTH) {
        coupled_kick(s, instance);
        return;
    }
    if (!i->alive || i->working)
        return;
    if (i->stages == 1 && s->options.chunk_tokens) {
        kick_chunks(s, instance);
        return;
    }
    const uint32_t request = choose(s, i);
    if (request == NOBODY)
        return;
    if (i->stages > 1)
        begin_pipeline(s, instance, request);
    else
        begin_whole(s, instance, request);
}

void prefill_next(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];

    i->working = false;
    if (i->stages == 1 && i->active.count) {
        const uint32_t request = i->active.first;

        if (s->lives[request].done_tokens == request_of(s, request)->input) {
            prefill_end(s, request);
        } else {
            admit_chunks(s, instance); /* before it goes to the end of the round */
            list_remove(s, &i->active, request);
            list_add(s, &i->active, request);
        }
    }
    if (!i->working)
        prefill_kick(s, instance);
}

/* ------------------------------------------------------------------------------------------------ end */

void prefill_end(sim *s, uint32_t request)
{
    struct sim_record *r = &s->records[request];
    struct life *life = &s->lives[request];
    const uint32_t instance = r->prefill, turn = life->turn;
    struct instance *i = &s->instances[instance];
    const bool whole = i->stages == 1 && s->options.chunk_tokens == 0;
    const uint64_t took_ns = s->now_ns - r->prefill_begin_ns;

    list_remove(s, &i->active, request);
    r->prefill_end_ns = s->now_ns;
    if (whole)
        r->busy_s = (double)took_ns / 1e9;
    blocks_release_own(s, request);
    blocks_release_pull(s, request);
    blocks_store(s, s->pool == NOBODY ? instance : s->pool, request, NOBODY);
    world_stage(s, request, STAGE_MOVE);
    decide_progress(s, MC_EVENT_PREFILL_END, request, instance,
                    (struct mc_sched_progress){ .tokens = r->input - r->reused,
                                                .reused = r->reused,
                                                .duration_ns = took_ns });
    if (life->turn == turn) /* or it was refused just now */
        move_computed(s, request);
    if (whole) {
        i->working = false;
        prefill_kick(s, instance);
    }
}
