/* changes.c - instances that die, drain and join, and the requests that were there. */
#include "base/alloc.h"
#include "sim/world.h"

/* Take it off the list of the instance it is at. */
static void unlist(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];
    const struct sim_record *r = &s->records[request];

    if (!life->listed)
        return;
    if (life->stage == STAGE_QUEUE)
        list_remove(s, &s->instances[r->prefill].queue, request);
    else if (life->stage == STAGE_PREFILL)
        list_remove(s, &s->instances[r->prefill].active, request);
    else
        list_remove(s, &s->instances[r->decode].waiting, request);
}

/* Its work in progress is not wanted any more. The batch of a dead instance is emptied by change_happens(). */
static void stop_work(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];
    const struct sim_record *r = &s->records[request];
    struct instance *i = &s->instances[r->prefill];
    struct flow flow;
    const bool was_working = life->stage == STAGE_PREFILL;

    unlist(s, request);
    links_advance(&s->links, s->now_ns);
    if (links_cancel(&s->links, NOBODY, FLOW_PULL, request, &flow) ||
        links_cancel(&s->links, NOBODY, FLOW_SEND, request, &flow))
        move_plan(s);
    blocks_release_own(s, request);
    blocks_release_pull(s, request);
    blocks_release_kept(s, request);
    /* A prefill that goes on for nobody is stopped; chunks and pipelines end the one under way. */
    if (was_working && i->alive && i->role == MC_ROLE_PREFILL && i->stages == 1 &&
        s->options.chunk_tokens == 0) {
        i->working = false;
        world_add(s, s->now_ns, EVENT_PREFILL_NEXT, r->prefill, i->turn);
    }
}

void change_lost(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];
    struct sim_record *r = &s->records[request];

    if (life->stage == STAGE_PREFILL && r->busy_s == 0)
        r->busy_s = (double)(s->now_ns - r->prefill_begin_ns) / 1e9;
    stop_work(s, request);
    life->turn++;
    s->wasted_s += r->busy_s;
    r->busy_s = 0;
    life->computed = life->sending = life->pulling = life->reading = 0;
    if (r->attempts - r->returns > (int)s->options.retries || r->first_token_ns != 0) {
        r->reason = MC_REASON_INSTANCE_LOST;
        request_over(s, request, SIM_LOST, 1);
        return;
    }
    *r = (struct sim_record){ .arrival_ns = r->arrival_ns,
                              .input = r->input,
                              .output = r->output,
                              .prefill = NOBODY,
                              .decode = NOBODY,
                              .holder = NOBODY,
                              .asked_ns = r->asked_ns,
                              .returns = r->returns,
                              .attempts = r->attempts };
    life->taken = 1;
    decide_request(s, request);
}

/* What it was sending is lost: the scheduler, which knows of a prefill that ended, hears of it. */
void change_unsent(sim *s, uint32_t request)
{
    decide_progress(s, MC_EVENT_REQUEST_END, request, s->records[request].prefill,
                    (struct mc_sched_progress){ .status = 1 });
    s->lives[request].attempt = 0;
    change_lost(s, request);
}

/* Whoever wanted to pull from it computes instead. */
static void end_pulls(sim *s, uint32_t instance)
{
    for (uint32_t at = 0; at < s->arrived; at++) {
        struct life *life = &s->lives[at];

        if (life->stage != STAGE_QUEUE || !life->holds_pull || s->records[at].holder != instance)
            continue;
        life->holds_pull = 0;
        life->pull_blocks = life->own_blocks;
        life->pulling = 0;
        if (life->listed && !life->reading)
            prefill_kick(s, s->records[at].prefill);
    }
}

static void end_flows(sim *s, uint32_t instance)
{
    struct flow flow;

    links_advance(&s->links, s->now_ns);
    while (links_cancel(&s->links, s->instances[instance].node, 0, 0, &flow))
        if (flow.kind == FLOW_SEND)
            change_unsent(s, flow.whom);
        else if (flow.kind == FLOW_REPLICA)
            move_copy_end(s, flow.whom);
    move_plan(s);
    end_pulls(s, instance);
}

static void empty_batch(sim *s, struct instance *i)
{
    i->batch.runs = false;
    while (i->batch.count)
        batch_drop(&i->batch, 0);
    i->vram_used = 0;
    i->working = false;
    (void)s;
}

static void fail(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];

    if (!i->alive)
        return;
    i->alive = false;
    i->turn++;
    empty_batch(s, i);
    blocks_lose(s, instance);
    (void)decide_event(s, &(struct mc_sched_event){ .kind = MC_EVENT_INSTANCE_GONE,
                                                    .id = (uint64_t)instance + 1 });
    end_flows(s, instance);
}

void change_happens(sim *s, uint32_t change)
{
    const struct sim_change *c = &s->options.changes[change];

    if (c->kind == SIM_FAIL) {
        fail(s, c->instance);
    } else if (c->kind == SIM_DRAIN) {
        (void)decide_event(s, &(struct mc_sched_event){ .kind = MC_EVENT_INSTANCE_DRAIN,
                                                        .id = (uint64_t)c->instance + 1 });
    } else {
        decide_instance(s, s->instance_count++);
    }
}
