/* joins.c - each instance by its step and by who joins there at about the same time. */
#include "sched/joins.h"

#include <math.h>

static const double YOUNG_S =
    0.5; /* for so long a sequence that joined is hurt by the next one's join */
static const double FADE_S = 20, SEEN_AT_FIRST = 0.5; /* of who joined lately */
static const double FIXED = 0.2; /* of a mean prompt's join: what does not depend on its length */

/* When it will join, or did. */
static uint64_t joins_ns(const struct place *place, const struct request *r)
{
    if (r->stage == STAGE_DECODE)
        return r->begun_ns;
    return r->due_ns > place->view.now_ns ? r->due_ns : place->view.now_ns; /* late */
}

/* What this one, taken for a prompt of `own` tokens, and those there do to each other: of two who join soon after each
 * other, the second stops the first. */
static double collisions(const struct place *place, uint64_t row, uint64_t due_ns, double own)
{
    const struct cluster *cluster = &place->sched->cluster;
    double sum = 0;

    for (uint32_t at = place_instance(place, row)->decode_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_decode.after) {
        const struct request *r = &cluster->requests[at];
        const double apart_s = ((double)joins_ns(place, r) - (double)due_ns) / 1e9;

        if (fabs(apart_s) < 8 * YOUNG_S)
            sum += exp2(-fabs(apart_s) / YOUNG_S) * (apart_s < 0 ? own : (double)r->tokens);
    }
    return sum;
}

static bool is_long(const struct place *place)
{
    return (double)place->request->tokens > place->sched->mean_tokens;
}

static double left_of(const struct place *place, const struct instance *i)
{
    return exp2(-(double)(place->view.now_ns - i->joined_at_ns) / 1e9 / FADE_S);
}

/* The share of those who joined there lately, and were not as it is. */
static double unlike(const struct place *place, uint64_t row)
{
    const struct instance *i = place_instance(place, row);
    const double left = left_of(place, i);
    const double share = i->joined_long * left / (i->joined * left + SEEN_AT_FIRST);

    return is_long(place) ? 1 - share : share;
}

static uint64_t due_of(const struct place *place, const struct mc_decision *d)
{
    const struct mc_prediction *p = &d->predicted;

    return place->view.now_ns + p->queue_ns + p->transfer_ns + p->prefill_ns +
           cost_ns(usual_value(&place->sched->admit.other, place->view.now_ns));
}

double joins_stall(const struct place *place, uint64_t row, const struct mc_decision *d,
                   const struct joins_weights *weights)
{
    const double own = (double)place->request->tokens, mean = place->sched->mean_tokens;

    /* What it does to others counts as a mean prompt's at most: long ones are not refused for being long. */
    const double counted = FIXED * mean + (1 - FIXED) * (own < mean ? own : mean);

    return weights->stall * collisions(place, row, due_of(place, d), counted) / mean;
}

/* A step there, and what joins add to it; INFINITY: not less than `least`. */
static double score_of(const struct place *place, uint64_t row, double step, uint64_t due_ns,
                       const struct joins_weights *weights, double least)
{
    const double own = (double)place->request->tokens, mean = place->sched->mean_tokens;
    const double alone = step * (1 + weights->alike * unlike(place, row));

    if (alone >= least) /* who joins makes it more, and is dear to look at */
        return INFINITY;
    return alone + step * weights->apart * collisions(place, row, due_ns, own) / mean;
}

uint64_t joins_choose(const struct place *place, uint64_t prefill, const struct mc_decision *d,
                      const struct joins_weights *weights)
{
    const uint64_t due_ns = due_of(place, d), first = place_best_decoder(place, prefill);
    const uint64_t barred = place->request->barred_decode;
    const uint64_t barred_row = barred ? place_row(place, barred) : UINT64_MAX;
    const struct place_room room = place_room(place);
    uint64_t best = first;

    if (first == UINT64_MAX)
        return first;
    double least =
        score_of(place, first, place_step_s(place, &room, first), due_ns, weights, INFINITY);
    for (uint64_t row = 0; row < place->view.count; row++) {
        const double step = place_step_s(place, &room, row);

        if (step >= least) /* most end here, as `first` has a short step */
            continue;
        if (!place_fits(place, &room, row) || row == barred_row)
            continue;
        const double score = score_of(place, row, step, due_ns, weights, least);
        if (score < least) {
            best = row;
            least = score;
        }
    }
    return best;
}

void joins_placed(const struct place *place, uint64_t row)
{
    struct instance *i = place_instance(place, row);
    const double left = left_of(place, i);

    i->joined = i->joined * left + 1;
    i->joined_long = i->joined_long * left + is_long(place);
    i->joined_at_ns = place->view.now_ns;
}

/* ------------------------------------------------------------------------------------ in the whole pool */

double joins_crowd(const struct mc_sched *sched, uint64_t at_ns)
{
    const double decoders = sched->cluster.decoders;

    return decoders > 0 && sched->mean_tokens > 0
               ? calendar_near(sched->calendar, at_ns) / (sched->mean_tokens * decoders)
               : 0;
}

void joins_begun(struct mc_sched *sched, struct request *r)
{
    if (!sched->calendar)
        return;
    joins_ended(sched, r);
    calendar_add(sched->calendar, sched->now_ns, sched->now_ns, r->tokens);
}

void joins_ended(struct mc_sched *sched, struct request *r)
{
    if (sched->calendar)
        calendar_remove(sched->calendar, sched->now_ns, r->join, r->tokens);
    r->join = 0;
}
