/* shadow.c - lists of refused requests behind placed ones, judged when those are done. */
#include "sched/shadow.h"

#include "base/alloc.h"
#include "sched/cluster.h"

mc_status shadows_init(struct shadows *s, const struct mc_alloc *alloc, uint32_t max)
{
    *s = (struct shadows){ .alloc = alloc, .free = CLUSTER_NONE, .max = max };
    s->items = alloc_zeroed(alloc, max, sizeof(*s->items));
    return s->items ? MC_OK : MC_E_NOMEM;
}

void shadows_fini(struct shadows *s)
{
    if (s->alloc)
        alloc_free(s->alloc, s->items);
    *s = (struct shadows){ 0 };
}

static const struct instance *find(const struct cluster *cluster, uint32_t cell, uint64_t id)
{
    const struct instance *i = &cluster->instances[cell];

    return i->used && i->info.id == id ? i : NULL;
}

static void judge(struct shadows *s, const struct cluster *cluster, uint64_t now_ns,
                  const struct shadow *shadow)
{
    const struct instance *prefill = find(cluster, shadow->prefill, shadow->prefill_id);
    const struct instance *decode = find(cluster, shadow->decode, shadow->decode_id);

    if (!prefill || !decode || !cost_knows_prefill(&prefill->cost))
        return;
    const uint64_t ttft_ns = now_ns - shadow->arrived_ns + shadow->other_ns +
                             cost_ns(cost_prefill(&prefill->cost, shadow->tokens, shadow->reused) *
                                     cost_prefill_pace(&prefill->cost, now_ns));
    bool met = shadow->slo.ttft_ns == 0 || ttft_ns <= shadow->slo.ttft_ns;
    if (shadow->slo.tbt_ns != 0 && cost_knows_step(&decode->cost)) {
        const struct cluster_figures f = cluster_figures(cluster, shadow->decode);
        met &= cost_ns(cost_step(&decode->cost, f.running + 1, f.context_tokens + shadow->tokens) *
                       cost_step_pace(&decode->cost, now_ns) * shadow->step_factor) <=
               shadow->slo.tbt_ns;
    }
    s->judged++;
    s->met += met;
}

void shadow_add(struct shadows *s, struct cluster *cluster, uint64_t now_ns, uint32_t behind,
                const struct shadow *shadow)
{
    uint32_t cell = s->free;

    if (behind == CLUSTER_NONE) {
        judge(s, cluster, now_ns, shadow);
        return;
    }
    if (cell != CLUSTER_NONE)
        s->free = s->items[cell].next;
    else if (s->used < s->max)
        cell = s->used++;
    else
        return;
    s->items[cell] = *shadow;
    s->items[cell].next = cluster->requests[behind].shadow;
    cluster->requests[behind].shadow = cell;
}

/* Who goes before it now; CLUSTER_NONE: nobody, or it is late already. */
static uint32_t still_before(const struct cluster *cluster, uint64_t now_ns,
                             const struct shadow *shadow)
{
    if (shadow->order == 0 || !find(cluster, shadow->prefill, shadow->prefill_id) ||
        (shadow->slo.ttft_ns != 0 && now_ns - shadow->arrived_ns > shadow->slo.ttft_ns))
        return CLUSTER_NONE;
    return cluster_before(cluster, shadow->prefill, shadow->order);
}

void shadow_release(struct shadows *s, struct cluster *cluster, uint64_t now_ns, uint32_t cell,
                    bool judged)
{
    uint32_t at = cluster->requests[cell].shadow;

    cluster->requests[cell].shadow = CLUSTER_NONE;
    while (at != CLUSTER_NONE) {
        const uint32_t next = s->items[at].next;

        const uint32_t before =
            judged ? still_before(cluster, now_ns, &s->items[at]) : CLUSTER_NONE;
        if (before != CLUSTER_NONE && before != cell) {
            s->items[at].next = cluster->requests[before].shadow;
            cluster->requests[before].shadow = at;
            at = next;
            continue;
        }
        if (judged)
            judge(s, cluster, now_ns, &s->items[at]);
        s->items[at].next = s->free;
        s->free = at;
        at = next;
    }
}
