/* joins.c - each instance by its step and by who joins there at about the same time. */
#include "sched/joins.h"

#include <math.h>

static const double YOUNG_S =
    0.5; /* for so long a sequence that joined is hurt by the next one's join */

/* When it will join, or did. */
static uint64_t joins_ns(const struct place *place, const struct request *r)
{
    if (r->stage == STAGE_DECODE)
        return r->begun_ns;
    return r->due_ns > place->view.now_ns ? r->due_ns : place->view.now_ns; /* late */
}

/* What this one and those there do to each other: of two who join soon after each other, the second stops the first. */
static double collisions(const struct place *place, uint64_t row, uint64_t due_ns)
{
    const struct cluster *cluster = &place->sched->cluster;
    double sum = 0;

    for (uint32_t at = place_instance(place, row)->decode_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_decode.after) {
        const struct request *r = &cluster->requests[at];
        const double apart_s = ((double)joins_ns(place, r) - (double)due_ns) / 1e9;
        const uint64_t tokens = apart_s < 0 ? place->request->tokens : r->tokens;

        if (fabs(apart_s) < 8 * YOUNG_S)
            sum += exp2(-fabs(apart_s) / YOUNG_S) * (double)tokens;
    }
    return sum;
}

uint64_t joins_choose(const struct place *place, const struct mc_decision *d, double weight)
{
    const struct mc_view *view = &place->view;
    const struct mc_prediction *p = &d->predicted;
    const uint64_t due_ns = view->now_ns + p->queue_ns + p->transfer_ns + p->prefill_ns +
                            cost_ns(usual_value(&place->sched->admit.other, view->now_ns));
    uint64_t best = UINT64_MAX;
    double least = 0;

    for (uint64_t i = 0; i < view->count; i++) {
        if (!place_can_decode(place, i) || !place_has_memory(place, i))
            continue;
        const double step = (double)view->tbt_ns(view, i, 1, place->request->tokens);
        if (best != UINT64_MAX && step >= least)
            continue; /* nobody who joins makes it less */
        const double score =
            step * (1 + weight * collisions(place, i, due_ns) / place->sched->mean_tokens);
        if (best == UINT64_MAX || score < least) {
            best = i;
            least = score;
        }
    }
    return best;
}
