/* admit_learn.c - what became of those who were let in, and what that says of the next ones. */
#include <math.h>

#include "sched/forecast.h"

void admit_placed(const struct place *place, const struct mc_decision *d, struct request *r)
{
    const struct mc_prediction *p = &d->predicted;
    const struct admit *a = &place->sched->admit;
    const uint64_t elapsed = forecast_elapsed_ns(place);
    /* As it was before any margin. */
    const uint64_t raw = p->queue_ns + p->transfer_ns + p->prefill_ns + p->other_ns;

    r->arrived_ns = place->view.now_ns - elapsed;
    r->raw_ttft_ns = p->prefill_ns ? raw : 0;
    r->other_ns = p->other_ns;
    r->waited = p->queue_ns != 0;
    r->due_ns = place->view.now_ns + (p->ttft_ns > elapsed ? p->ttft_ns - elapsed : 0);
    r->output_max = place->request->output_max;
    r->output_hint = place->request->output_hint;
    r->output_tokens = p->output_tokens;
    r->shadow = CLUSTER_NONE;
    r->raw_tbt_ns = 0;
    const uint64_t row = place_row(place, d->decode);
    if (row == UINT64_MAX || place_step_cost(place, row) == &cost_nominal)
        return;
    const struct ahead ahead = place->view.slo.tbt_ns && a->mode != MC_ADMIT_ALL
                                   ? forecast_load_then(place, row, d)
                                   : forecast_load_now(place, row);
    r->raw_tbt_ns = forecast_step_ns(place, row, &ahead, 0);
}

static void mean(double *mean_p, double value, double step)
{
    *mean_p += *mean_p > 0 ? step * (value - *mean_p) : value;
}

void admit_first_token(struct mc_sched *sched, struct request *r)
{
    struct admit *a = &sched->admit;
    const uint64_t took = sched->now_ns - r->placed_ns, whole = sched->now_ns - r->arrived_ns;
    const uint64_t after = r->prefilled_ns ? sched->now_ns - r->prefilled_ns : 0;

    r->begun_ns = sched->now_ns;
    if (after != 0)
        usual_line_learn(&a->handover, sched->now_ns, r->tokens, (double)after / 1e9);
    if (r->raw_ttft_ns == 0 || took == 0)
        return;
    /* What was not known when it came is no error of those who come now. */
    const uint64_t unknown = r->other_ns == 0 ? forecast_other_ns(a, sched->now_ns, r->tokens) : 0;
    bands_learn(&a->ttft, sched->now_ns, r->raw_ttft_ns + unknown, took);
    if (whole > 0)
        quantiles_add(&a->ttft_error, fabs((double)r->ttft_ns - (double)whole) / (double)whole);
    if (r->waited)
        return;
    /* Nobody was before it: what was not its own prefill is the way there and back. */
    const uint64_t own = r->raw_ttft_ns - r->other_ns + after;
    usual_learn(&a->other, sched->now_ns, took > own ? (double)(took - own) / 1e9 : 0);
}

void admit_finished(struct mc_sched *sched, struct request *r, const struct mc_sched_progress *end)
{
    struct admit *a = &sched->admit;
    const struct mc_sched_request asked = {
        .id = r->id, .tokens = r->tokens, .output_max = r->output_max, .output_hint = r->output_hint
    };
    const uint64_t took = sched->now_ns - r->begun_ns, output_tokens = end->tokens;

    if (r->stage != STAGE_DECODE || output_tokens == 0)
        return;
    if (a->predictor->observe)
        a->predictor->observe(a->predictor_state, &asked, output_tokens);
    mean(&a->output, (double)output_tokens, 0.05);
    if (took == 0)
        return;
    mean(&a->stay_s, (double)took / 1e9, 0.05);
    if (r->raw_tbt_ns != 0 && output_tokens > 3)
        bands_learn(&a->tbt, sched->now_ns, r->raw_tbt_ns,
                    a->gaps > 0 && end->gap_ns != 0 ? end->gap_ns : took / (output_tokens - 1));
}
