/* forecast.c - what there is now, what comes by then, and what predictions of that size were off by. */
#include "sched/forecast.h"

#include "sched/length.h"

static const double HALF_WIDTH_MOST = 0.5; /* of what no prediction was held against yet */

uint64_t forecast_scale(uint64_t ns, double by)
{
    return by > 0 ? cost_ns((double)ns / 1e9 * by) : 0;
}

uint64_t forecast_elapsed_ns(const struct place *place)
{
    const uint64_t at = place->request->arrived_ns, now = place->view.now_ns;

    return at != 0 && at < now ? now - at : 0;
}

static uint64_t expected_tokens(const struct place *place)
{
    const struct admit *a = &place->sched->admit;

    return a->mode == MC_ADMIT_EARLY_REQUEST
               ? a->predictor->predict(a->predictor_state, place->request)
               : place->request->output_hint;
}

/* How long a request is decoded; UINT64_MAX: nobody knows. */
static uint64_t stay_ns(const struct admit *a, const struct request *r)
{
    if (a->mode == MC_ADMIT_EARLY_REQUEST && r->output_tokens != 0 && r->raw_tbt_ns != 0)
        return r->output_tokens * (r->raw_tbt_ns < UINT32_MAX ? r->raw_tbt_ns : UINT32_MAX);
    return a->stay_s > 0 ? cost_ns(a->stay_s) : UINT64_MAX;
}

/* Who decodes at an instance at `then_ns`: of those there now who will not have left, and of those placed
 * there whose prefill will have ended. Others' requests, of which only their number is known, stay. */
static struct ahead look_ahead(const struct place *place, uint64_t row, uint64_t then_ns)
{
    const struct mc_sched *sched = place->sched;
    const struct cluster *cluster = &sched->cluster;
    const struct mc_view_instance *view = &place->view.instances[row];
    const uint64_t grown = (uint64_t)(sched->admit.output / 2);
    struct ahead ahead = { 0 };
    uint64_t own = 0;

    for (uint32_t at = place_instance(place, row)->decode_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_decode.after) {
        const struct request *r = &cluster->requests[at];
        uint64_t begins = r->stage == STAGE_DECODE ? r->begun_ns : r->due_ns;

        own++;
        if (r->stage != STAGE_DECODE && begins < sched->now_ns)
            begins = sched->now_ns; /* late */
        if (begins > then_ns || then_ns - begins >= stay_ns(&sched->admit, r))
            continue;
        ahead.sequences++;
        ahead.tokens += r->tokens + grown;
    }
    if (view->running > own) {
        ahead.sequences += view->running - own;
        ahead.tokens += (view->running - own) * (view->context_tokens / view->running);
    }
    return ahead;
}

uint64_t forecast_step_ns(const struct place *place, uint64_t row, const struct ahead *ahead,
                          double more)
{
    const double each = ahead->sequences ? (double)ahead->tokens / (double)ahead->sequences
                                         : (double)place->request->tokens;
    const double sequences = (double)ahead->sequences + 1 + more;
    const double tokens = (double)ahead->tokens + (double)place->request->tokens + each * more;

    const struct cost *cost = place_step_cost(place, row);

    return cost_ns(cost_step(cost, (uint64_t)(sequences + 0.5), (uint64_t)(tokens + 0.5)) *
                   cost_step_pace(cost, place->view.now_ns) * (1 + place->stall));
}

struct ahead forecast_load_now(const struct place *place, uint64_t row)
{
    const struct mc_view_instance *view = &place->view.instances[row];

    return (struct ahead){ view->running, view->context_tokens };
}

/* Who is past the prefill, now. */
static struct ahead those_there(const struct place *place, uint64_t row)
{
    const struct cluster *cluster = &place->sched->cluster;
    struct ahead there = { 0 };

    for (uint32_t at = place_instance(place, row)->decode_first; at != CLUSTER_NONE;
         at = cluster->requests[at].at_decode.after)
        if (cluster->requests[at].stage >= STAGE_PREFILLED) {
            there.sequences++;
            there.tokens += cluster->requests[at].tokens;
        }
    return there;
}

/* As the papers write it: the mean of the pool; and by the load now, those who have come that far. */
static struct ahead pool_then(const struct place *place, uint64_t then_ns)
{
    const bool is_now = place->sched->admit.mode == MC_ADMIT_EARLY;
    struct ahead all = { 0 };
    uint64_t count = 0;

    for (uint64_t i = 0; i < place->view.count; i++) {
        if (!place_can_decode(place, i))
            continue;
        const struct ahead one = is_now ? those_there(place, i) : look_ahead(place, i, then_ns);
        all.sequences += one.sequences;
        all.tokens += one.tokens;
        count++;
    }
    return count ? (struct ahead){ all.sequences / count, all.tokens / count } : all;
}

struct ahead forecast_load_then(const struct place *place, uint64_t row,
                                const struct mc_decision *d)
{
    const uint64_t after = d->predicted.ttft_ns > forecast_elapsed_ns(place)
                               ? d->predicted.ttft_ns - forecast_elapsed_ns(place)
                               : 0;

    if (place->sched->admit.pool >= 0.5)
        return pool_then(place, place->view.now_ns + after);
    return place->sched->admit.mode == MC_ADMIT_EARLY
               ? forecast_load_now(place, row)
               : look_ahead(place, row, place->view.now_ns + after);
}

struct margin forecast_ttft_margin(const struct place *place, uint64_t prefill, uint64_t raw_ns)
{
    const struct admit *a = &place->sched->admit;
    double half = cost_prefill_band(place_prefill_cost(place, prefill));

    half = half < HALF_WIDTH_MOST ? half : HALF_WIDTH_MOST;
    return bands_margin(&a->ttft, place->view.now_ns, raw_ns, a->quantile, half);
}

uint64_t forecast_other_ns(const struct admit *a, uint64_t now_ns, uint64_t tokens)
{
    return cost_ns(usual_value(&a->other, now_ns) + usual_line_value(&a->handover, now_ns, tokens));
}

static void predict_ttft(const struct place *place, uint64_t prefill, struct mc_decision *d)
{
    const struct admit *a = &place->sched->admit;
    struct mc_prediction *p = &d->predicted;

    p->other_ns = forecast_other_ns(a, place->view.now_ns, place->request->tokens);
    const uint64_t raw = p->queue_ns + p->transfer_ns + p->prefill_ns + p->other_ns;
    const uint64_t elapsed = forecast_elapsed_ns(place);
    const struct margin m = forecast_ttft_margin(place, prefill, raw);

    p->ttft_ns = elapsed + forecast_scale(raw, m.mid);
    p->ttft_low_ns = elapsed + forecast_scale(raw, m.low);
    p->ttft_high_ns = elapsed + forecast_scale(raw, m.high);
}

/* What a request's longest gaps are is as much chance as load, and refusing for chance refuses those who would have
 * been served well. So of gaps it is not an upper end that is held against the objective (`high`). */
struct margin forecast_tbt_margin(const struct place *place, const struct cost *cost,
                                  uint64_t raw_ns)
{
    const struct admit *a = &place->sched->admit;
    const double share = a->gaps > 0 ? a->gaps : a->quantile;
    struct margin m =
        bands_margin(&a->tbt, place->view.now_ns, raw_ns, share, cost_step_band(cost));

    m.low = m.low < m.mid ? m.low : m.mid;
    return m;
}

static void predict_tbt(const struct place *place, uint64_t row, struct mc_decision *d)
{
    const struct cost *cost = place_step_cost(place, row);
    struct mc_prediction *p = &d->predicted;

    p->output_tokens = expected_tokens(place);
    if (cost == &cost_nominal)
        return;
    const struct ahead ahead = place->view.slo.tbt_ns && admit_is_on(place)
                                   ? forecast_load_then(place, row, d)
                                   : forecast_load_now(place, row);
    const uint64_t raw = forecast_step_ns(place, row, &ahead, 0);
    const struct margin m = forecast_tbt_margin(place, cost, raw);

    p->tbt_ns = forecast_scale(raw, m.mid);
    p->tbt_high_ns = forecast_scale(raw, m.high > m.mid ? m.high : m.mid);
    if (place->view.slo.tbt_ns != 0)
        p->decode_load = (double)p->tbt_ns / (double)place->view.slo.tbt_ns;
}

void forecast_predict(const struct place *place, uint64_t prefill, uint64_t decode,
                      struct mc_decision *d)
{
    if (d->reason != MC_REASON_UNKNOWN_COST)
        predict_ttft(place, prefill, d);
    if (decode != UINT64_MAX)
        predict_tbt(place, decode, d);
}
