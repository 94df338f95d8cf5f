/*
 * fit.h - a line through measurements: y = x0 f0 + x1 f1 + ..., all x >= 0, learnt one row at a time.
 *
 * Weighted least squares of the relative error, so that short times count as much as long ones. Older rows fade:
 * to half of their weight after 14 newer ones of about the same size (within a factor of four), after 140 of other
 * sizes, or sooner if these came out otherwise than expected; so a hundred short prompts do not make it forget what
 * a long one takes. A row far from what is known (a page fault, a neighbour's burst) counts less. Coefficients are
 * never negative: times do not fall with more work, and a sum of a few positive terms stays sane outside of what
 * was measured. What the rows do not tell apart goes to the earlier feature.
 *
 * Values; one thread; the same rows in the same order give the same bits.
 */
#ifndef SCHED_FIT_H
#define SCHED_FIT_H

#include <stdint.h>

enum { FIT_FEATURES_MAX = 4, FIT_SIZES = 6 };

/** Rows of about one size. */
struct fit_sums {
    double a[FIT_FEATURES_MAX][FIT_FEATURES_MAX], b[FIT_FEATURES_MAX]; /* normal equations */
};

struct fit {
    uint32_t features;
    uint64_t rows;
    struct fit_sums sizes[FIT_SIZES];
    double x[FIT_FEATURES_MAX]; /* the answer */
    double error; /* moving mean of the relative error before each row was learnt; 0: none yet */
};

void fit_init(struct fit *fit, uint32_t features);

/** Learn that `features` took `seconds` > 0. size: of the work, in units of the smallest kind. */
void fit_add(struct fit *fit, double size, const double *features, double seconds);

double fit_value(const struct fit *fit, const double *features);

#endif /* SCHED_FIT_H */
