/*
 * figures.h - what every bench shares: samples, medians, one JSON shape, a table for people.
 *
 * Life:    bench_init -> bench_row* -> bench_write -> bench_fini
 * Threads: one. Errors: a bench is a program: what goes wrong is said on standard error.
 */
#ifndef CMD_FIGURES_H
#define CMD_FIGURES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"

enum { SAMPLES_MAX = 101 };

/** Measurements of one thing, in the order they were taken. `{ 0 }` is a valid start. */
struct samples {
    double values[SAMPLES_MAX];
    uint32_t count; /* further ones are dropped */
};

void samples_add(struct samples *samples, double value);
double samples_median(const struct samples *samples);

struct bench {
    const char *name, *command, *commit; /* borrowed */
    struct buf rows;                     /* JSON objects with commas between */
    uint32_t count;
};

/** commit  of the tree that was built; "unknown" if NULL. */
void bench_init(struct bench *bench, const char *name, const char *command, const char *commit);

/**
 * One figure, printed and kept. With a peer, the ratio is the median of own / peer, pair by pair, so
 * that both sides of each pair saw the same machine.
 *
 * peer  NULL if there is none; else as many samples as `own`.
 */
void bench_row(struct bench *bench, const char *name, const char *metric, const char *unit,
               const struct samples *own, const char *peer_name, const struct samples *peer);

/** A figure that is there already, not a median of samples. */
struct figure {
    const char *name, *metric, *unit;
    double value, min, max;
    uint64_t n;       /* of what it was made */
    const char *peer; /* NULL if there is none; the ratio is value / peer_value */
    double peer_value;
    const char *note; /* NULL: nothing to say */
};

/** Keep it; nothing is printed. */
void bench_figure(struct bench *bench, const struct figure *figure);

/** Write {"bench", ..., "rows"} to `path`. false, with a line on standard error, if that fails. */
bool bench_write(const struct bench *bench, const char *path);

void bench_fini(struct bench *bench);

#endif /* CMD_FIGURES_H */
