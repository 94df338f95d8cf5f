/*
 * metric.h - one table per role: its counters, gauges and histograms, and their text for Prometheus.
 *
 *     #define DEMO_METRICS(X) \
 *         X(requests, "requests", COUNTER, NONE, NULL, NULL, "Requests taken in.") \
 *         X(refused, "refused", COUNTER, NONE, NULL, &demo_reasons, "Requests refused, by reason.") \
 *         X(ttft, "ttft", HISTOGRAM, SECONDS, &metric_latencies, NULL, "Time to the first token.")
 *     enum { DEMO_METRICS(METRIC_ENUM) };
 *     static const struct metric demo_rows[] = { DEMO_METRICS(METRIC_ROW) };
 *
 *     metric_add(&metrics, METRIC_requests, 0, 1);
 *
 * is the series mooncake_demo_requests_total, when the prefix is "mooncake_demo". Unit and "_total" are
 * put behind the table's name. Values are whole numbers in the unit's raw form (nanoseconds for
 * SECONDS), so sums are exact and text is the same everywhere.
 *
 * Life:    metrics_init -> metric_add | metric_set | metric_observe -> metrics_text -> metrics_fini
 * Threads: one; what other threads count comes to it in messages.
 * Memory:  the cells are owned and taken at init; counting allocates nothing. Tables are borrowed and
 *          static.
 * Errors:  init only. A table that contradicts itself, or an index beyond it, is a bug: assert.
 */
#ifndef BASE_METRIC_H
#define BASE_METRIC_H

#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"

enum metric_kind {
    METRIC_COUNTER,   /* only grows */
    METRIC_GAUGE,     /* goes up and down */
    METRIC_HISTOGRAM, /* how many values were at most each bound */
};

/** What a raw value is. */
enum metric_unit {
    METRIC_NONE,    /* a number of things */
    METRIC_BYTES,   /* bytes */
    METRIC_SECONDS, /* nanoseconds; shown in seconds */
    METRIC_RATIO,   /* millionths; shown as a fraction of 1 */
};

/** Upper bounds of a histogram's buckets, raw, rising; values above the last one count too. */
struct metric_bounds {
    const uint64_t *at; /* [count] */
    uint32_t count;     /* 1 .. 64 */
};

/** 1 ms to 60 s and 64 B to 1 GiB, in steps of 2 to 4. */
extern const struct metric_bounds metric_latencies, metric_sizes;

/** Makes a row several series, one for each value. */
struct metric_label {
    const char *name;          /* "reason" */
    const char *const *values; /* [count], none with '"', '\\' or a newline */
    uint32_t count;
};

struct metric {
    const char *name; /* lower case, digits and '_' */
    enum metric_kind kind;
    enum metric_unit unit;
    const struct metric_bounds *bounds; /* of a histogram, else NULL */
    const struct metric_label *label;   /* NULL: one series */
    const char *help;                   /* a sentence on one line */
};

/* One row of the table as an index and as a struct metric. */
#define METRIC_ENUM(field, name, kind, unit, bounds, label, help) METRIC_##field,
#define METRIC_ROW(field, name, kind, unit, bounds, label, help) \
    { name, METRIC_##kind, METRIC_##unit, bounds, label, help },

struct metrics {
    const struct mc_alloc *alloc; /* borrowed */
    const struct metric *rows;    /* borrowed; [count] */
    uint32_t count;
    const char *prefix; /* borrowed */
    uint32_t *first;    /* owned; [count], each row's first cell */
    uint64_t *cells;    /* owned */
};

/** All series at 0. prefix: "mooncake_gateway". Returns MC_OK or MC_E_NOMEM. */
mc_status metrics_init(struct metrics *metrics, const struct metric *rows, uint32_t count,
                       const char *prefix, const struct mc_alloc *alloc);

/** Safe on `{ 0 }`. */
void metrics_fini(struct metrics *metrics);

/** `series`: index in the row's label values, 0 without a label. Hot: no allocation, no search. */
void metric_add(struct metrics *metrics, uint32_t row, uint32_t series, uint64_t raw);
void metric_set(struct metrics *metrics, uint32_t row, uint32_t series, int64_t raw);
void metric_observe(struct metrics *metrics, uint32_t row, uint32_t series, uint64_t raw);

/** A counter's raw value; a gauge's, to be read as int64_t; of a histogram, how many values there were. */
uint64_t metric_value(const struct metrics *metrics, uint32_t row, uint32_t series);

/** Append all series in Prometheus' text format 0.0.4 (a gauge of -1 shows as "-1"). */
void metrics_text(const struct metrics *metrics, struct buf *out);

#endif /* BASE_METRIC_H */
