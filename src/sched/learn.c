/* learn.c - sorted rings of what was seen, and the margins that follow. */
#include "sched/learn.h"

#include <math.h>
#include <string.h>

static const double FADE_S = 30; /* half of what was learnt is left after so long without news */
static const uint64_t KEPT_NS = 60000000000;
static const double RATIO_LEAST = 0.05, RATIO_MOST = 20; /* beyond, a clock or a stop was seen */
static const uint64_t SMALLEST_NS = 1000000; /* the first size; each is 4 times as large */

/* --------------------------------------------------------------------------------------- quantiles */

/* How many of the sorted are below `value`. */
static uint32_t rank(const struct quantiles *q, double value)
{
    uint32_t low = 0, high = q->count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if (q->sorted[middle] < value)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static uint32_t oldest(const struct quantiles *q)
{
    return (q->next + QUANTILES_MAX - q->count) % QUANTILES_MAX;
}

void quantiles_drop_oldest(struct quantiles *q)
{
    const uint32_t at = rank(q, q->ring[oldest(q)]);

    q->count--;
    memmove(&q->sorted[at], &q->sorted[at + 1], (q->count - at) * sizeof(*q->sorted));
}

void quantiles_add(struct quantiles *q, double value)
{
    if (q->count == QUANTILES_MAX)
        quantiles_drop_oldest(q);
    const uint32_t at = rank(q, value);
    memmove(&q->sorted[at + 1], &q->sorted[at], (q->count - at) * sizeof(*q->sorted));
    q->sorted[at] = value;
    q->count++;
    q->ring[q->next] = value;
    q->next = (q->next + 1) % QUANTILES_MAX;
}

double quantiles_at(const struct quantiles *q, double share)
{
    if (q->count == 0)
        return 0;
    return q->sorted[(uint32_t)(share * (q->count - 1) + 0.5)];
}

/* ------------------------------------------------------------------------------------------- usual */

enum { USUAL_ENOUGH = 5 };
static const double LINE_SMALLEST = 256; /* tokens: what is alike, a factor of four on */

static double left_of(uint64_t last_ns, uint64_t now_ns)
{
    const uint64_t age_ns = now_ns > last_ns ? now_ns - last_ns : 0;

    return exp2(-(double)age_ns / 1e9 / FADE_S);
}

void usual_learn(struct usual *usual, uint64_t now_ns, double seconds)
{
    quantiles_add(&usual->seen, seconds);
    usual->last_ns = now_ns;
}

double usual_value(const struct usual *usual, uint64_t now_ns)
{
    const double share = usual->seen.count < USUAL_ENOUGH ? 0 : 0.5;

    return quantiles_at(&usual->seen, share) * left_of(usual->last_ns, now_ns);
}

void usual_line_init(struct usual_line *line)
{
    *line = (struct usual_line){ .last_ns = 0 };
    fit_init(&line->fit, 2);
}

void usual_line_learn(struct usual_line *line, uint64_t now_ns, uint64_t tokens, double seconds)
{
    fit_add(&line->fit, (double)tokens / LINE_SMALLEST, (const double[]){ 1, (double)tokens },
            seconds);
    line->last_ns = now_ns;
}

double usual_line_value(const struct usual_line *line, uint64_t now_ns, uint64_t tokens)
{
    return line->fit.rows < USUAL_ENOUGH
               ? 0
               : fit_value(&line->fit, (const double[]){ 1, (double)tokens }) *
                     left_of(line->last_ns, now_ns);
}

/* ------------------------------------------------------------------------------------------- bands */

static uint32_t size_of(uint64_t ns)
{
    uint32_t size = 0;

    for (uint64_t most = SMALLEST_NS; size < BANDS - 1 && ns >= most; most *= 4)
        size++;
    return size;
}

void bands_learn(struct bands *bands, uint64_t now_ns, uint64_t predicted_ns, uint64_t observed_ns)
{
    struct band *band = &bands->sizes[size_of(predicted_ns)];
    double ratio = predicted_ns ? (double)observed_ns / (double)predicted_ns : 1;

    ratio = ratio < RATIO_LEAST ? RATIO_LEAST : ratio > RATIO_MOST ? RATIO_MOST : ratio;
    while (band->ratio.count > 0 && now_ns - band->at_ns[oldest(&band->ratio)] > KEPT_NS)
        quantiles_drop_oldest(&band->ratio);
    band->at_ns[band->ratio.next] = now_ns;
    quantiles_add(&band->ratio, ratio);
    band->last_ns = now_ns;
    bands->seen++;
}

static double faded(double ratio, double left)
{
    return 1 + (ratio - 1) * left;
}

static struct margin margin_of(const struct band *band, uint64_t now_ns, double share)
{
    const double left = left_of(band->last_ns, now_ns);

    return (struct margin){ .low = faded(quantiles_at(&band->ratio, 1 - share), left),
                            .mid = faded(quantiles_at(&band->ratio, 0.5), left),
                            .high = faded(quantiles_at(&band->ratio, share), left) };
}

/* The next size that enough was seen of: shorter ones first, whose errors are the larger; BANDS: none. */
static uint32_t neighbour(const struct bands *bands, uint32_t size)
{
    for (uint32_t i = size + 1; i-- > 0;)
        if (bands->sizes[i].ratio.count >= BAND_ENOUGH)
            return i;
    for (uint32_t i = size + 1; i < BANDS; i++)
        if (bands->sizes[i].ratio.count >= BAND_ENOUGH)
            return i;
    return BANDS;
}

struct margin bands_margin(const struct bands *bands, uint64_t now_ns, uint64_t predicted_ns,
                           double share, double half_width)
{
    const uint32_t size = size_of(predicted_ns), from = neighbour(bands, size);
    const double half = half_width < 0.9 ? half_width : 0.9;

    if (from == BANDS)
        return (struct margin){ 1 - half, 1, 1 + half_width };
    struct margin m = margin_of(&bands->sizes[from], now_ns, share);
    if (from < size) { /* what chance adds to a short time is a smaller part of a long one */
        const double part = exp2(-(double)(size - from));
        m = (struct margin){ faded(m.low, part), faded(m.mid, part), faded(m.high, part) };
    }
    return m;
}
