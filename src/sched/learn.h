/*
 * learn.h - how far off predictions are, learnt from what came true.
 *
 * `quantiles` keeps the last values seen, `usual` what they come to: one that was held up does not count;
 * `usual_line` what they come to by the length of a prompt.
 * `bands` keeps, for predictions of about the same size (times within a
 * factor of four), the ratios observed / predicted: their median corrects a prediction, their outer quantiles
 * are its low and high ends. A size of which too little was seen borrows from its neighbours.
 *
 * Nothing latches: what was learnt fades when nothing new is observed, and is forgotten a minute after it was seen, so
 * a bad minute cannot shut the door on the very requests that would show that it is over, and a few of them a
 * minute do not keep it in mind.
 *
 * Values; one thread; the same calls in the same order give the same bits.
 */
#ifndef SCHED_LEARN_H
#define SCHED_LEARN_H

#include <stdint.h>

#include "sched/fit.h"

enum { QUANTILES_MAX = 128, BANDS = 8, BAND_ENOUGH = 20 };

struct quantiles {
    double ring[QUANTILES_MAX], sorted[QUANTILES_MAX];
    uint32_t count, next;
};

void quantiles_add(struct quantiles *q, double value);

/** There is one. */
void quantiles_drop_oldest(struct quantiles *q);

/** share in [0, 1]; 0 if nothing was seen. */
double quantiles_at(const struct quantiles *q, double share);

/** What a time usually is: the median of what was seen, the least of it while little was. Fades as bands do. */
struct usual {
    struct quantiles seen; /* seconds */
    uint64_t last_ns;
};

void usual_learn(struct usual *usual, uint64_t now_ns, double seconds);

/** Seconds; 0 if nothing was seen. */
double usual_value(const struct usual *usual, uint64_t now_ns);

/** The same of a time that grows with tokens. */
struct usual_line {
    struct fit fit; /* 1, tokens */
    uint64_t last_ns;
};

void usual_line_init(struct usual_line *line);

/** seconds > 0. */
void usual_line_learn(struct usual_line *line, uint64_t now_ns, uint64_t tokens, double seconds);

/** Seconds; 0 while little was seen. */
double usual_line_value(const struct usual_line *line, uint64_t now_ns, uint64_t tokens);

struct band {
    struct quantiles ratio;
    uint64_t at_ns[QUANTILES_MAX]; /* when each was added, as ratio.ring */
    uint64_t last_ns;
};

struct bands {
    struct band sizes[BANDS];
    uint64_t seen;
};

/** Factors of a prediction: what it most likely comes to, and its two ends. low <= mid <= high. */
struct margin {
    double low, mid, high;
};

/** A prediction of `predicted_ns` > 0, as it was before any margin, took `observed_ns`. */
void bands_learn(struct bands *bands, uint64_t now_ns, uint64_t predicted_ns, uint64_t observed_ns);

/** share: the upper quantile; the lower one is as far from the other end. half_width: of a prediction of which nothing
 * was seen yet, relative. */
struct margin bands_margin(const struct bands *bands, uint64_t now_ns, uint64_t predicted_ns,
                           double share, double half_width);

#endif /* SCHED_LEARN_H */
