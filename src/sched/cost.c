/* cost.c - evaluate and learn the three cost models. */
#include "sched/cost.h"

#include <math.h>

enum { PREFILLS_ENOUGH = 4, STEPS_ENOUGH = 4, TRANSFERS_ENOUGH = 2 };

const struct cost cost_nominal = {
    .given = { .p1 = 1e-6, .d1 = 1e-6, .t0 = 1e-3, .bytes_per_s = 1e9 },
};

bool cost_is_sane(const struct mc_cost *given)
{
    const double all[] = {
        given->p0,  given->p1, given->p2, given->p3,          given->d0,
        given->d1,  given->d2, given->t0, given->bytes_per_s, given->load_bytes_per_s,
        given->band
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (!isfinite(all[i]) || all[i] < 0)
            return false;
    return true;
}

void cost_init(struct cost *cost, const struct mc_cost *given)
{
    *cost = (struct cost){ .given = *given };
    fit_init(&cost->prefill, 4);
    fit_init(&cost->step, 3);
    fit_init(&cost->link[COST_LOCAL], 2);
    fit_init(&cost->link[COST_REMOTE], 2);
}

static bool gives_prefill(const struct cost *cost)
{
    const struct mc_cost *g = &cost->given;
    return g->p0 > 0 || g->p1 > 0 || g->p2 > 0 || g->p3 > 0;
}

static bool gives_step(const struct cost *cost)
{
    const struct mc_cost *g = &cost->given;
    return g->d0 > 0 || g->d1 > 0 || g->d2 > 0;
}

static bool gives_link(const struct cost *cost)
{
    return cost->given.bytes_per_s > 0;
}

bool cost_knows_prefill(const struct cost *cost)
{
    return gives_prefill(cost) || cost->prefill.rows >= PREFILLS_ENOUGH;
}

bool cost_knows_step(const struct cost *cost)
{
    return gives_step(cost) || cost->step.rows >= STEPS_ENOUGH;
}

bool cost_knows_link(const struct cost *cost, enum cost_link link)
{
    return gives_link(cost) || cost->link[link].rows >= TRANSFERS_ENOUGH;
}

double cost_prefill_of(const struct cost *cost, const double f[4])
{
    const struct mc_cost *g = &cost->given;
    if (gives_prefill(cost))
        return g->p0 + g->p1 * f[0] + g->p2 * f[1] + g->p3 * f[2];
    return fit_value(&cost->prefill, f);
}

double cost_prefill(const struct cost *cost, uint64_t n, uint64_t p)
{
    double f[4];

    cost_prefill_features(n, p, f);
    return cost_prefill_of(cost, f);
}

double cost_step(const struct cost *cost, uint64_t sequences, uint64_t context)
{
    const struct mc_cost *g = &cost->given;
    const double f[3] = { 1, (double)sequences, (double)context };

    if (gives_step(cost))
        return g->d0 + g->d1 * f[1] + g->d2 * f[2];
    return fit_value(&cost->step, f);
}

/* Given: p0 comes first. Learnt: it comes last, and what is added to 0 stays as it is. */
void cost_prefill_terms(const struct cost *cost, double terms[5])
{
    const struct mc_cost *g = &cost->given;
    const double *x = cost->prefill.x;
    const bool given = gives_prefill(cost);

    terms[0] = given ? g->p0 : 0;
    terms[1] = given ? g->p1 : x[0];
    terms[2] = given ? g->p2 : x[1];
    terms[3] = given ? g->p3 : x[2];
    terms[4] = given ? 0 : x[3];
}

void cost_step_terms(const struct cost *cost, double terms[3])
{
    const struct mc_cost *g = &cost->given;
    const double *x = cost->step.x;
    const bool given = gives_step(cost);

    terms[0] = given ? g->d0 : x[0];
    terms[1] = given ? g->d1 : x[1];
    terms[2] = given ? g->d2 : x[2];
}

double cost_transfer(const struct cost *cost, enum cost_link link, uint64_t bytes)
{
    const struct mc_cost *g = &cost->given;
    const double f[2] = { (double)bytes, 1 };
    double seconds =
        gives_link(cost) ? g->t0 + f[0] / g->bytes_per_s : fit_value(&cost->link[link], f);

    if (g->load_bytes_per_s > 0)
        seconds += f[0] / g->load_bytes_per_s;
    return seconds;
}

/* ---------------------------------------------------------------------------------------------- pace */

static const double PACE_PREFILL = 0.3, PACE_STEP = 0.1; /* steps of the moving means */
static const double PACE_JUMP = 2;                       /* one row moves it no further than this */
static const double PACE_LEAST = 0.25, PACE_MOST = 16, PACE_FADE_S = 20;

enum { EPOCH_BITS = 40 }; /* 1,100 s: a share grows to 2^55 times the pace, which a double holds */

uint64_t cost_pace_epoch(uint64_t now_ns)
{
    return now_ns >> EPOCH_BITS;
}

/* As it would have been when the epoch began, had it faded as paces do. */
double cost_pace_share(const struct pace *pace, uint64_t epoch)
{
    const int64_t since_ns = (int64_t)(pace->last_ns - (epoch << EPOCH_BITS));

    return pace->ratio > 0 ? (pace->ratio - 1) * exp2((double)since_ns / 1e9 / PACE_FADE_S) : 0;
}

double cost_pace_left(uint64_t now_ns)
{
    return exp2(-(double)(now_ns & (((uint64_t)1 << EPOCH_BITS) - 1)) / 1e9 / PACE_FADE_S);
}

double cost_pace(const struct pace *pace, uint64_t now_ns)
{
    const uint64_t epoch = cost_pace_epoch(now_ns);

    return pace->ratio > 0 ? 1 + cost_pace_share(pace, epoch) * cost_pace_left(now_ns) : 1;
}

static void pace_add(struct pace *pace, uint64_t now_ns, double ratio, double step)
{
    const double now = cost_pace(pace, now_ns);
    const double most = now * PACE_JUMP, least = now / PACE_JUMP;

    ratio = ratio > most ? most : ratio < least ? least : ratio;
    ratio = now + step * (ratio - now);
    pace->ratio = ratio > PACE_MOST ? PACE_MOST : ratio < PACE_LEAST ? PACE_LEAST : ratio;
    pace->last_ns = now_ns;
}

void cost_pace_prefill(struct cost *cost, uint64_t now_ns, const double features[4], double seconds)
{
    const double fit = fit_value(&cost->prefill, features);

    if (!gives_prefill(cost) && cost_knows_prefill(cost) && fit > 0 && seconds > 0)
        pace_add(&cost->prefill_pace, now_ns, seconds / fit, PACE_PREFILL);
}

void cost_pace_step(struct cost *cost, uint64_t now_ns, uint64_t sequences, uint64_t context,
                    double seconds)
{
    const double fit = gives_step(cost) ? 0 : cost_step(cost, sequences, context);

    if (cost_knows_step(cost) && fit > 0 && seconds > 0)
        pace_add(&cost->step_pace, now_ns, seconds / fit, PACE_STEP);
}

double cost_prefill_pace(const struct cost *cost, uint64_t now_ns)
{
    return cost_pace(&cost->prefill_pace, now_ns);
}

double cost_step_pace(const struct cost *cost, uint64_t now_ns)
{
    return cost_pace(&cost->step_pace, now_ns);
}

/* --------------------------------------------------------------------------------------------- learn */

void cost_learn_prefill_row(struct cost *cost, const double features[4], uint64_t duration_ns)
{
    if (!gives_prefill(cost) && duration_ns != 0)
        fit_add(&cost->prefill, features[0] / 16, features, (double)duration_ns / 1e9);
}

void cost_learn_prefill(struct cost *cost, uint64_t n, uint64_t p, uint64_t duration_ns)
{
    double f[4];

    if (n <= p)
        return;
    cost_prefill_features(n, p, f);
    cost_learn_prefill_row(cost, f, duration_ns);
}

void cost_learn_step(struct cost *cost, uint64_t sequences, uint64_t context, uint64_t duration_ns)
{
    const double f[3] = { 1, (double)sequences, (double)context };

    if (!gives_step(cost) && duration_ns != 0 && sequences != 0)
        fit_add(&cost->step, f[1], f, (double)duration_ns / 1e9);
}

void cost_learn_transfer(struct cost *cost, enum cost_link link, uint64_t bytes,
                         uint64_t duration_ns)
{
    const double f[2] = { (double)bytes, 1 };

    if (!gives_link(cost) && duration_ns != 0 && bytes != 0)
        fit_add(&cost->link[link], f[0] / 65536, f, (double)duration_ns / 1e9);
}

double cost_prefill_band(const struct cost *cost)
{
    return gives_prefill(cost) ? cost->given.band : 2 * cost->prefill.error;
}

double cost_step_band(const struct cost *cost)
{
    return gives_step(cost) ? cost->given.band : 2 * cost->step.error;
}

bool cost_trusts_prefill(const struct cost *cost, uint64_t rows)
{
    return cost != &cost_nominal && (gives_prefill(cost) || cost->prefill.rows >= rows);
}

bool cost_trusts_step(const struct cost *cost, uint64_t rows)
{
    return cost != &cost_nominal && (gives_step(cost) || cost->step.rows >= rows);
}
