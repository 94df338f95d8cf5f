/* stages.c - may it go on to decode, now that its prefill has ended? */
#include "sched/stages.h"

static const uint64_t SECOND_NS = 1000000000;

struct there {
    uint64_t sequences, tokens;
};

/* Who is in the way of `self`: past their prefill, and those of whom only a load report knows. */
static struct there others(const mc_sched *sched, uint32_t self)
{
    const struct cluster *cluster = &sched->cluster;
    const uint32_t cell = cluster->requests[self].decode;
    const struct cluster_figures f = cluster_figures(cluster, cell);
    struct there there = { 0 };
    uint64_t own = 0;

    for (uint32_t at = cluster->instances[cell].decode_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_decode.after) {
        own++;
        if (at == self || cluster->requests[at].stage < STAGE_PREFILLED)
            continue;
        there.sequences++;
        there.tokens += cluster->requests[at].tokens;
    }
    if (f.running > own) {
        there.sequences += f.running - own;
        there.tokens += (f.running - own) * (f.context_tokens / f.running);
    }
    return there;
}

/* What a step costs there: as it knows itself, or another one of its model; NULL: nobody knows. */
static const struct cost *step_cost(const mc_sched *sched, uint32_t cell)
{
    const struct cluster *cluster = &sched->cluster;
    const struct instance *at = &cluster->instances[cell];

    if (cost_knows_step(&at->cost))
        return &at->cost;
    for (uint32_t i = 0; i < cluster->count; i++) {
        const struct instance *other = &cluster->instances[cluster->order[i]];
        if (other->info.model == at->info.model && cost_knows_step(&other->cost))
            return &other->cost;
    }
    return NULL;
}

static uint64_t step_ns(const mc_sched *sched, const struct cost *cost, const struct there *there,
                        uint64_t tokens)
{
    return cost_ns(cost_step(cost, there->sequences + 1, there->tokens + tokens) *
                   cost_step_pace(cost, sched->now_ns));
}

struct limit {
    uint64_t sequences; /* 0: none */
    double step_ns;     /* without the margin of what predictions are off by */
};

static bool is_over(const mc_sched *sched, const struct cost *cost, const struct limit *limit,
                    const struct there *there, uint64_t tokens)
{
    return (limit->sequences != 0 && there->sequences >= limit->sequences) ||
           (double)step_ns(sched, cost, there, tokens) > limit->step_ns;
}

/* Until so many have left that it would fit, in whole seconds. */
static uint64_t wait_ns(const mc_sched *sched, const struct cost *cost, const struct limit *limit,
                        struct there there, uint64_t tokens)
{
    const uint64_t most = cost_ns(sched->admit.retry_s), all = there.sequences;
    const uint64_t stay = sched->admit.stay_s > 0 ? cost_ns(sched->admit.stay_s) : SECOND_NS;

    while (there.sequences > 0 && is_over(sched, cost, limit, &there, tokens)) {
        there.tokens -= there.tokens / there.sequences;
        there.sequences--;
    }
    const uint64_t ns = all ? stay / all * (all - there.sequences) : stay;
    const uint64_t whole = (ns / SECOND_NS + 1) * SECOND_NS;
    return whole < most ? whole : most;
}

static void refuse(mc_sched *sched, uint32_t request, uint64_t retry_after_ns)
{
    struct mc_decision *d = &sched->decision;

    d->kind = MC_DECIDE_REFUSE;
    d->reason = MC_REASON_TBT_SLO;
    d->prefill = d->decode = 0;
    d->retry_after_ns = retry_after_ns;
    sched->stats.refused++;
    sched->stats.refused_by[MC_REASON_TBT_SLO]++;
    sched->stats.wasted_prefill_ns += sched->cluster.requests[request].spent_ns;
    cluster_end(&sched->cluster, request, sched->now_ns);
    cluster_request_free(&sched->cluster, request);
}

void stages_prefill_end(mc_sched *sched, uint32_t request)
{
    const struct request *r = &sched->cluster.requests[request];
    const struct cost *cost = step_cost(sched, r->decode);
    struct mc_decision *d = &sched->decision;

    *d = (struct mc_decision){ .kind = MC_DECIDE_DECODE,
                               .reason = MC_REASON_WITHIN_SLO,
                               .request = r->id,
                               .prefill = r->prefill_id,
                               .decode = r->decode_id };
    sched->has_decision = true;
    if (r->tbt_slo_ns == 0)
        return;
    if (!cost) {
        d->reason = MC_REASON_UNKNOWN_COST;
        return;
    }
    const struct there there = others(sched, request);
    const uint64_t raw = step_ns(sched, cost, &there, r->tokens);
    const struct margin m = bands_margin(&sched->admit.tbt, sched->now_ns, raw,
                                         sched->admit.quantile, cost_step_band(cost));
    const struct limit limit = {
        .sequences = sched->cluster.instances[r->decode].info.sequences_max,
        .step_ns = (double)r->tbt_slo_ns * sched->admit.threshold / m.mid,
    };
    d->predicted.tbt_ns = cost_ns((double)raw * m.mid / 1e9);
    d->predicted.tbt_high_ns = cost_ns((double)raw * m.high / 1e9);
    d->predicted.decode_load = (double)d->predicted.tbt_ns / (double)r->tbt_slo_ns;
    if (!is_over(sched, cost, &limit, &there, r->tokens))
        return;
    if (!cost_trusts_step(cost, (uint64_t)sched->admit.observations))
        d->soft = MC_REASON_TBT_SLO; /* as at the door: a learnt cost refuses nobody at first */
    else
        refuse(sched, request, wait_ns(sched, cost, &limit, there, r->tokens));
}
