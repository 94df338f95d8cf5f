/* trace_fit.c - learn of a trace what another one like it needs: tables of quantiles. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "sim/generate.h"

#define NOBODY UINT32_MAX

/* -------------------------------------------------------------------------------------- quantiles */

static int rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Sorts `values`; of none, all are `fallback`. */
static void tabulate(double *values, uint32_t count, double fallback, struct quantiles *q)
{
    qsort(values, count, sizeof(*values), rising);
    for (int i = 0; i < FIT_POINTS; i++) {
        const double at = count ? (double)i / (FIT_POINTS - 1) * (count - 1) : 0;
        q->at[i] = count ? values[(uint32_t)(at + 0.5)] : fallback;
    }
}

/* ------------------------------------------------------------------------------------------- learn */

struct learning {
    const struct sim_trace *trace;
    uint32_t *owner;      /* [block_ids]: the last request that had each block; NOBODY */
    uint32_t *first_uses; /* [block_ids]: as a first block */
    double *values[7];    /* [count] each */
    uint32_t counts[7];
};
enum { V_START, V_GROWN, V_KEPT, V_AGE, V_START_OUT, V_SESSION_OUT, V_OTHER };

static void add(struct learning *l, int which, double value)
{
    l->values[which][l->counts[which]++] = value;
}

static void learn_request(struct learning *l, uint32_t at, struct trace_fit *fit)
{
    const struct sim_trace *t = l->trace;
    const struct sim_request *r = &t->requests[at];
    const uint32_t *ids = &t->blocks[r->first_block];
    uint32_t matched = 0;

    while (matched < r->block_count && l->owner[ids[matched]] != NOBODY)
        matched++;
    if (matched >= FIT_SESSION_BLOCKS) {
        const struct sim_request *p = &t->requests[l->owner[ids[matched - 1]]];

        fit->sessions++;
        add(l, V_GROWN, r->input - (double)matched * t->block_tokens);
        add(l, V_KEPT, matched);
        add(l, V_AGE, (double)(r->arrival_ns - p->arrival_ns) / 1e9);
        add(l, V_SESSION_OUT, r->output);
    } else {
        fit->families += matched > 0;
        add(l, V_START, r->input);
        add(l, V_START_OUT, r->output);
    }
    if (r->block_count && matched < FIT_SESSION_BLOCKS)
        l->first_uses[ids[0]]++;
    for (uint32_t n = 0; n < r->block_count; n++)
        l->owner[ids[n]] = at;
}

static int falling(const void *a, const void *b)
{
    const uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

    return x > y ? -1 : x < y;
}

/* The slope of log(uses) over log(rank). */
static void learn_families(struct learning *l, struct trace_fit *fit)
{
    uint32_t count = 0;
    double n = 0, x = 0, y = 0, xx = 0, xy = 0;

    for (uint32_t i = 0; i < l->trace->block_ids; i++)
        if (l->first_uses[i] >= 2)
            l->first_uses[count++] = l->first_uses[i];
    qsort(l->first_uses, count, sizeof(*l->first_uses), falling);
    for (uint32_t i = 0; i < count; i++) {
        const double lx = log(i + 1.0), ly = log((double)l->first_uses[i]);
        n++;
        x += lx;
        y += ly;
        xx += lx * lx;
        xy += lx * ly;
    }
    const double spread = n * xx - x * x;
    fit->family_count = count;
    fit->zipf = spread > 0 ? -(n * xy - x * y) / spread : 1;
}

static void learn_arrivals(struct learning *l, struct trace_fit *fit)
{
    const struct sim_trace *t = l->trace;
    uint32_t bursts = 0, gaps = 0, burst = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        burst++;
        if (i + 1 < t->count && t->requests[i + 1].arrival_ns == t->requests[i].arrival_ns)
            continue;
        l->values[V_OTHER][bursts++] = burst;
        burst = 0;
    }
    tabulate(l->values[V_OTHER], bursts, 1, &fit->burst);
    for (uint32_t i = 0; i + 1 < t->count; i++)
        if (t->requests[i + 1].arrival_ns != t->requests[i].arrival_ns)
            l->values[V_OTHER][gaps++] =
                (double)(t->requests[i + 1].arrival_ns - t->requests[i].arrival_ns) / 1e9;
    tabulate(l->values[V_OTHER], gaps, 1, &fit->gap_s);
}

static void learn(struct learning *l, struct trace_fit *fit)
{
    for (uint32_t i = 0; i < l->trace->count; i++)
        learn_request(l, i, fit);
    learn_arrivals(l, fit);
    learn_families(l, fit);
    const double starts = l->counts[V_START] ? l->counts[V_START] : 1;
    fit->families /= starts;
    fit->sessions /= l->trace->count;
    tabulate(l->values[V_START], l->counts[V_START], l->trace->block_tokens, &fit->start_tokens);
    tabulate(l->values[V_GROWN], l->counts[V_GROWN], l->trace->block_tokens, &fit->grown_tokens);
    tabulate(l->values[V_KEPT], l->counts[V_KEPT], 0, &fit->kept);
    tabulate(l->values[V_AGE], l->counts[V_AGE], 60, &fit->age_s);
    tabulate(l->values[V_START_OUT], l->counts[V_START_OUT], 1, &fit->start_output);
    tabulate(l->values[V_SESSION_OUT], l->counts[V_SESSION_OUT], 1, &fit->session_output);
}

mc_status trace_fit_make(const struct sim_trace *trace, const struct mc_alloc *alloc,
                         struct trace_fit *fit_p)
{
    struct learning l = { .trace = trace };
    struct trace_fit fit = { 0 };

    if (trace->count < 2)
        return MC_E_ARG;
    l.owner = alloc_zeroed(alloc, trace->block_ids, sizeof(*l.owner));
    l.first_uses = alloc_zeroed(alloc, trace->block_ids, sizeof(*l.first_uses));
    bool enough = l.owner && l.first_uses;
    for (int i = 0; i <= V_OTHER; i++) {
        l.values[i] = alloc_zeroed(alloc, trace->count, sizeof(double));
        enough = enough && l.values[i];
    }
    if (enough) {
        memset(l.owner, 0xff, trace->block_ids * sizeof(*l.owner)); /* NOBODY */
        learn(&l, &fit);
        *fit_p = fit;
    }
    for (int i = 0; i <= V_OTHER; i++)
        alloc_free(alloc, l.values[i]);
    alloc_free(alloc, l.first_uses);
    alloc_free(alloc, l.owner);
    return enough ? MC_OK : MC_E_NOMEM;
}

void trace_fit_plain(struct trace_fit *fit, double rate, double input_mean, double output_mean,
                     double sessions)
{
    *fit = (struct trace_fit){ .sessions = sessions, .families = 1, .family_count = 1, .zipf = 1 };
    for (int i = 0; i < FIT_POINTS; i++) {
        const double share = (i + 0.5) / FIT_POINTS, exponential = -log(1 - share);

        fit->gap_s.at[i] = exponential / rate;
        fit->burst.at[i] = 1;
        fit->start_tokens.at[i] = exponential * input_mean;
        fit->grown_tokens.at[i] = exponential * input_mean / 8;
        fit->age_s.at[i] = exponential * 120;
        fit->start_output.at[i] = fit->session_output.at[i] = exponential * output_mean;
    }
}
