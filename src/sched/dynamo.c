/*
 * dynamo.c - the two costs of NVIDIA Dynamo's KV router, in blocks; the least is placed at.
 *
 *     prefill = scale x max(queued blocks + prompt blocks - credit, 0)
 *     decode  = blocks that decode there + prompt blocks
 *     credit  = device x blocks of its own cache + host x blocks that it would pull
 *
 *     dynamo:  prefill + decode
 *     lmetric: prefill x (decode + 1)
 *
 * With a temperature above 0 an instance is drawn, each with the weight exp(-x / temperature), x being its cost
 * between the least (0) and the most (1).
 *
 * Source: Dynamo's docs/components/router (router-concepts, router-configuration): scale 1, credit of a block on
 * the device 1, in the host's memory 0.75, temperature 0. Its credit for disks and its queue in the router are not
 * here: the view does not say on which medium a prefix lies, and whether a request waits is admission's.
 */
#include "sched/policy.h"

#include <math.h>

struct dynamo {
    double scale, device, host, temperature, pull;
};

static mc_status init(void *state, const char *parameters, struct mc_error *error)
{
    struct dynamo *s = state;
    const struct policy_parameter known[] = {
        { "scale", 0, 1e6, &s->scale }, { "device", 0, 1, &s->device },
        { "host", 0, 1, &s->host },     { "temperature", 0, 100, &s->temperature },
        { "pull", 0, 1, &s->pull },
    };

    *s = (struct dynamo){ .scale = 1, .device = 1, .host = 0.75, .pull = 1 };
    return policy_read(parameters, known, sizeof(known) / sizeof(known[0]), error);
}

struct blocks {
    double prefill, decode;
};

static struct blocks blocks_of(const struct dynamo *s, const struct mc_view *view, uint64_t index,
                               uint64_t tokens)
{
    const struct mc_view_instance *i = &view->instances[index];
    const double each = (double)view->block_tokens, prompt = (double)tokens / each;
    const uint64_t best = view->best_matched_tokens, own = i->matched_tokens;
    const double pulled = s->pull >= 0.5 && best > own ? (double)(best - own) / each : 0;
    const double credit = s->device * (double)own / each + s->host * pulled;
    const double left = (double)i->queued_tokens / each + prompt - credit;

    return (struct blocks){ .prefill = s->scale * (left > 0 ? left : 0),
                            .decode = (double)i->context_tokens / each + prompt };
}

typedef double cost_of(const struct blocks *blocks);

static double linear(const struct blocks *b)
{
    return b->prefill + b->decode;
}

static double product(const struct blocks *b)
{
    return b->prefill * (b->decode + 1);
}

struct range {
    double least, most;
    uint64_t pick; /* the least; UINT64_MAX: nobody can */
};

static double price(const struct dynamo *s, const struct mc_view *view, uint64_t index,
                    uint64_t tokens, cost_of *cost)
{
    const struct blocks b = blocks_of(s, view, index, tokens);

    return cost(&b);
}

static struct range range_of(const struct dynamo *s, const struct mc_view *view, uint64_t tokens,
                             cost_of *cost)
{
    struct range r = { 0, 0, UINT64_MAX };

    for (uint64_t i = 0; i < view->count; i++) {
        if (!policy_can_prefill(&view->instances[i]))
            continue;
        const double c = price(s, view, i, tokens, cost);
        if (r.pick == UINT64_MAX || c > r.most)
            r.most = c;
        if (r.pick == UINT64_MAX || c < r.least) {
            r.least = c;
            r.pick = i;
        }
    }
    return r;
}

/* The weights are summed up to a point drawn between 0 and their sum: twice over the instances, no memory. */
static uint64_t draw(const struct dynamo *s, const struct mc_view *view, uint64_t tokens,
                     cost_of *cost, const struct range *r)
{
    const double span = r->most > r->least ? r->most - r->least : 1;
    const double unit = (double)(view->chance(view, 0) >> 11) / 9007199254740992.0; /* 2^53 */
    double sum = 0, point = 0;
    uint64_t last = r->pick;

    for (int turn = 0; turn < 2; turn++) {
        for (uint64_t i = 0; i < view->count; i++) {
            if (!policy_can_prefill(&view->instances[i]))
                continue;
            const double x = (price(s, view, i, tokens, cost) - r->least) / span;
            const double weight = exp(-x / s->temperature);
            if (turn == 0) {
                sum += weight;
                continue;
            }
            last = i;
            point -= weight;
            if (point < 0)
                return i;
        }
        point = unit * sum;
    }
    return last; /* rounding */
}

static void place(const struct dynamo *s, const struct mc_view *view,
                  const struct mc_sched_request *request, cost_of *cost, struct mc_decision *d)
{
    const struct range r = range_of(s, view, request->tokens, cost);
    const bool drawn = s->temperature > 0 && r.pick != UINT64_MAX;
    const uint64_t pick = drawn ? draw(s, view, request->tokens, cost, &r) : r.pick;

    policy_finish(view, pick, drawn ? MC_REASON_CHANCE : MC_REASON_POLICY, s->pull, d);
    if (pick != UINT64_MAX)
        d->score = price(s, view, pick, request->tokens, cost);
}

static void place_dynamo(void *state, const struct mc_view *view,
                         const struct mc_sched_request *request, struct mc_decision *decision)
{
    place(state, view, request, linear, decision);
}

static void place_lmetric(void *state, const struct mc_view *view,
                          const struct mc_sched_request *request, struct mc_decision *decision)
{
    place(state, view, request, product, decision);
}

const struct mc_policy policy_dynamo = {
    .name = "dynamo",
    .summary = "least blocks to prefill and to decode (Dynamo's KV router)",
    .state_bytes = sizeof(struct dynamo),
    .init = init,
    .place = place_dynamo,
};

const struct mc_policy policy_lmetric = {
    .name = "lmetric",
    .summary = "least blocks to prefill times blocks to decode (Dynamo's KV router, lmetric)",
    .state_bytes = sizeof(struct dynamo),
    .init = init,
    .place = place_lmetric,
};
