/* decide.c - the simulator's gateway: events to the scheduler, its decisions to the cluster. */
#include <assert.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "sim/world.h"

static const uint64_t BACK_STREAM = 0xbacc; /* of the seed: who comes back */

static uint64_t id_of(uint32_t instance)
{
    return (uint64_t)instance + 1;
}

static uint32_t instance_of(uint64_t id)
{
    return id == 0 ? NOBODY : (uint32_t)(id - 1);
}

/* ----------------------------------------------------------------------------------- what it decided */

static double least_alone(const sim *s, uint32_t request, uint32_t blocks)
{
    const struct instance *i = &s->instances[s->records[request].prefill];
    const uint64_t reused = (uint64_t)blocks * s->options.trace->block_tokens;

    return prefill_seconds(i, request_of(s, request)->input, reused);
}

static void on_place(sim *s, uint32_t request, const struct mc_decision *d)
{
    struct life *life = &s->lives[request];
    struct sim_record *r = &s->records[request];
    const uint64_t block = s->options.trace->block_tokens;

    r->prefill = instance_of(d->prefill);
    r->decode = instance_of(d->decode);
    r->holder = instance_of(d->holder);
    r->reason = (uint16_t)d->reason;
    r->predicted_ns = d->predicted.ttft_ns;
    r->predicted_tbt_ns = d->predicted.tbt_ns;
    r->score = d->score;
    r->alone_ns = (uint64_t)(least_alone(s, request, blocks_matched_anywhere(s, request)) * 1e9);

    const bool coupled = s->instances[r->prefill].role == MC_ROLE_BOTH;
    const uint32_t own = blocks_matched(s, &s->instances[r->prefill], request);
    life->own_blocks = d->reuse_tokens / block < own ? (uint32_t)(d->reuse_tokens / block) : own;
    life->pull_blocks = life->own_blocks;
    if (!coupled && r->holder != NOBODY && d->pull_tokens / block > own)
        life->pull_blocks = (uint32_t)(d->pull_tokens / block);
    life->pull_ns = d->pull_ns;
    if (coupled)
        r->decode = r->prefill;
    life->order = d->order                           ? d->order
                  : s->options.order == SIM_DEADLINE ? r->asked_ns + s->options.slo_ttft_ns
                  : s->options.order == SIM_SHORTEST
                      ? request_of(s, request)->input - (uint64_t)life->pull_blocks * block
                      : 0;
    if (!coupled) /* it looks for itself, when it begins */
        blocks_hold(s, request);
    world_stage(s, request, STAGE_QUEUE);
    world_add(s, world_after(s, s->options.assume.schedule_s), EVENT_QUEUE, request, life->turn);
}

/* Some do as they are told, always the same ones. */
static bool comes_back(const sim *s, uint32_t request, const struct mc_decision *d)
{
    const struct sim_record *r = &s->records[request];
    const uint64_t draw = prng_at(s->options.seed ^ BACK_STREAM, request);

    return d->retry_after_ns != 0 && r->prefill_end_ns == 0 &&
           r->returns < s->options.come_back_max && prng_unit(draw) < s->options.come_back;
}

static void on_refuse(sim *s, uint32_t request, const struct mc_decision *d)
{
    struct life *life = &s->lives[request];
    struct sim_record *r = &s->records[request];

    r->reason = (uint16_t)d->reason;
    r->predicted_ns = d->predicted.ttft_ns;
    r->predicted_tbt_ns = d->predicted.tbt_ns;
    life->attempt = 0; /* the scheduler has forgotten it */
    if (comes_back(s, request, d)) {
        r->returns++;
        world_stage(s, request, STAGE_AWAY);
        world_add(s, s->now_ns + d->retry_after_ns, EVENT_RETURN, request, life->turn);
        return;
    }
    move_send_stop(s, request);
    request_over(s, request, r->prefill_end_ns ? SIM_REFUSED_LATE : SIM_REFUSED, 0);
}

/* It is a prefix of the request that was asked about: its placement tipped it. */
static void on_replicate(sim *s, const struct mc_decision *d)
{
    const uint32_t from = instance_of(d->holder), to = instance_of(d->prefill);

    if (from != NOBODY && to != NOBODY && from != to && d->key_count != 0)
        move_copy(s, from, to, s->deciding, (uint32_t)d->key_count);
}

static void act(sim *s, const struct mc_decision *d)
{
    if (d->kind == MC_DECIDE_REPLICATE) {
        on_replicate(s, d);
        return;
    }
    assert(d->request >= 1 && d->request <= s->attempt_count);
    const uint32_t request = s->attempts[d->request - 1];
    if (s->lives[request].attempt != d->request)
        return;
    switch (d->kind) {
    case MC_DECIDE_PLACE:
        on_place(s, request, d);
        break;
    case MC_DECIDE_REFUSE:
        on_refuse(s, request, d);
        break;
    case MC_DECIDE_DECODE:
        if (d->decode != 0 && s->lives[request].sending == 0)
            s->records[request].decode = instance_of(d->decode);
        break;
    case MC_DECIDE_ABORT:
        s->lives[request].attempt = 0; /* likewise */
        change_lost(s, request);
        break;
    default: /* MC_DECIDE_WAIT: it will be decided again */
        break;
    }
}

/* ---------------------------------------------------------------------------------------- events in */

/* The scheduler may want to be asked again at a time of its own. */
static void plan_tick(sim *s)
{
    uint64_t due = UINT64_MAX;

    (void)mc_sched_due(s->sched, &due);
    if (due >= s->tick_ns)
        return;
    s->tick_ns = due > s->now_ns ? due : s->now_ns + 1;
    world_add(s, s->tick_ns, EVENT_TICK, 0, 0);
}

/* All decisions of a step, before anything is done about one of them: that may be another step. */
static void take_all(sim *s)
{
    size_t count;

    for (;;) {
        const uint32_t room = s->decisions_max - s->decision_count;

        if (mc_sched_take(s->sched, &s->decisions[s->decision_count], room, &count) != MC_OK)
            return;
        s->decision_count += (uint32_t)count;
        if (s->decision_count < s->decisions_max)
            continue;
        struct mc_decision *more =
            alloc_resize(s->alloc, s->decisions, (size_t)s->decisions_max * 2, sizeof(*more));
        if (!more) {
            s->failed = true;
            return;
        }
        s->decisions = more;
        s->decisions_max *= 2;
    }
}

mc_status decide_event(sim *s, const struct mc_sched_event *event)
{
    const uint32_t mine = s->decision_count;

    const mc_status status = mc_sched_step(s->sched, s->now_ns, event);
    take_all(s);
    const uint32_t end = s->decision_count;
    for (uint32_t i = mine; i < end; i++) {
        const struct mc_decision d = s->decisions[i];
        act(s, &d);
    }
    s->decision_count = mine;
    plan_tick(s);
    return status;
}

void decide_tick(sim *s)
{
    (void)decide_event(s, &(struct mc_sched_event){ .kind = MC_EVENT_TICK });
}

void decide_progress(sim *s, uint32_t kind, uint32_t request, uint32_t instance,
                     struct mc_sched_progress progress)
{
    progress.request = s->lives[request].attempt;
    progress.id = id_of(instance);
    if (progress.request != 0)
        (void)decide_event(s, &(struct mc_sched_event){ .kind = kind, .progress = progress });
}

void decide_instance(sim *s, uint32_t index)
{
    struct instance *i = &s->instances[index];
    struct mc_cost cost = i->cost;

    cost.p1 /= i->stages;
    cost.p2 /= i->stages;
    i->alive = true;
    /* KVCache waits in a decode node's DRAM until there is room in VRAM; a coupled instance queues without
     * limit, as the baselines do. */
    const uint64_t waiting = i->role == MC_ROLE_DECODE ? s->options.dram_tokens : 0;
    const struct mc_sched_event event = {
        .kind = MC_EVENT_INSTANCE,
        .instance = { .id = id_of(index),
                      .role = i->role,
                      .stages = i->stages,
                      .kv_tokens_max =
                          i->role == MC_ROLE_BOTH ? 0 : i->vram_max * i->stages + waiting,
                      .sequences_max = (uint64_t)s->options.assume.sequences_max,
                      .chunk_tokens = s->options.chunk_tokens,
                      .kv_token_bytes = (uint64_t)s->node.kv_token_bytes,
                      .cost = cost }
    };
    if (decide_event(s, &event) != MC_OK)
        s->failed = true;
}

void decide_request(sim *s, uint32_t request)
{
    const struct sim_request *r = request_of(s, request);
    const uint32_t *blocks = &s->options.trace->blocks[r->first_block];
    struct life *life = &s->lives[request];

    life->turn++;
    s->deciding = request;
    life->attempt = ++s->attempt_count;
    s->attempts[life->attempt - 1] = request;
    s->records[request].attempts++;
    world_stage(s, request, STAGE_DECIDING);
    for (uint32_t i = 0; i < r->block_count; i++)
        s->scratch[i] = s->keys[blocks[i]];
    const struct mc_sched_event event = {
        .kind = MC_EVENT_REQUEST,
        .request = { .id = life->attempt,
                     .tokens = r->input,
                     .keys = s->scratch,
                     .key_count = r->block_count,
                     .flags = life->taken ? MC_REQUEST_TAKEN : 0u,
                     .arrived_ns = s->records[request].asked_ns,
                     /* room is kept only where somebody may come */
                     .identity = s->options.come_back > 0 ? prng_mix(request) | 1 : 0,
                     .output_hint = output_of(s, request) }
    };
    if (decide_event(s, &event) == MC_OK)
        return;
    life->attempt = 0; /* the scheduler is full */
    s->records[request].reason = MC_REASON_QUEUE_FULL;
    request_over(s, request, SIM_REFUSED, 0);
}

/* -------------------------------------------------------------------------------------------- the end */

void request_over(sim *s, uint32_t request, enum sim_outcome outcome, uint32_t status)
{
    struct life *life = &s->lives[request];
    struct sim_record *r = &s->records[request];

    assert(r->outcome == SIM_PENDING && life->stage != STAGE_OUTSIDE);
    blocks_release_own(s, request);
    blocks_release_pull(s, request);
    blocks_release_kept(s, request);
    r->outcome = (uint16_t)outcome;
    r->end_ns = s->now_ns;
    life->turn++;
    world_stage(s, request, STAGE_OUTSIDE);
    s->over++;
    s->finished += outcome == SIM_FINISHED;
    s->refused += outcome == SIM_REFUSED || outcome == SIM_REFUSED_LATE;
    if (outcome != SIM_FINISHED)
        s->wasted_s += r->busy_s;
    if (life->attempt != 0)
        decide_progress(
            s, MC_EVENT_REQUEST_END, request, r->decode,
            (struct mc_sched_progress){ .tokens = r->output,
                                        .status = status,
                                        .gap_ns = (uint64_t)((double)r->tbt_worst * 1e9) });
    life->attempt = 0;
}
