/* metric.c - a table's rows as cells of an array, and the cells as text. */
#include "base/metric.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"

#define MS UINT64_C(1000000)

static const uint64_t latencies[] = { 1 * MS,    2 * MS,    5 * MS,     10 * MS,    20 * MS,
                                      50 * MS,   100 * MS,  200 * MS,   500 * MS,   1000 * MS,
                                      2000 * MS, 5000 * MS, 10000 * MS, 30000 * MS, 60000 * MS };
static const uint64_t sizes[] = { 64,      256,     1024,    4096,    16384,   65536,  1 << 18,
                                  1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30 };
const struct metric_bounds metric_latencies = { latencies, sizeof(latencies) / sizeof(*latencies) };
const struct metric_bounds metric_sizes = { sizes, sizeof(sizes) / sizeof(*sizes) };

static uint32_t series_count(const struct metric *row)
{
    return row->label ? row->label->count : 1;
}

/** Cells of one series: a histogram's are its buckets, the one above them, and the sum. */
static uint32_t series_cells(const struct metric *row)
{
    return row->kind == METRIC_HISTOGRAM ? row->bounds->count + 2 : 1;
}

/** Whether none of `refused` is in `text`. */
static bool plain(const char *text, const char *refused)
{
    return text[strcspn(text, refused)] == '\0';
}

static void check_row(const struct metric *row)
{
    assert(row->name[0] != '\0' && plain(row->name, " -\"\n"));
    assert(plain(row->help, "\\\n"));
    assert((row->kind == METRIC_HISTOGRAM) == (row->bounds != NULL));
    for (uint32_t i = 1; row->bounds && i < row->bounds->count; i++)
        assert(row->bounds->at[i - 1] < row->bounds->at[i]);
    for (uint32_t i = 0; row->label && i < row->label->count; i++)
        assert(plain(row->label->values[i], "\"\\\n"));
    (void)row;
}

mc_status metrics_init(struct metrics *metrics, const struct metric *rows, uint32_t count,
                       const char *prefix, const struct mc_alloc *alloc)
{
    uint32_t *first = alloc_zeroed(alloc, count, sizeof(*first));
    uint32_t cells = 0;

    if (!first)
        return MC_E_NOMEM;
    for (uint32_t i = 0; i < count; i++) {
        check_row(&rows[i]);
        first[i] = cells;
        cells += series_count(&rows[i]) * series_cells(&rows[i]);
    }
    *metrics = (struct metrics){ .alloc = alloc,
                                 .rows = rows,
                                 .count = count,
                                 .prefix = prefix,
                                 .first = first,
                                 .cells = alloc_zeroed(alloc, cells, sizeof(uint64_t)) };
    if (metrics->cells)
        return MC_OK;
    metrics_fini(metrics);
    return MC_E_NOMEM;
}

void metrics_fini(struct metrics *metrics)
{
    if (metrics->alloc) {
        alloc_free(metrics->alloc, metrics->first);
        alloc_free(metrics->alloc, metrics->cells);
    }
    *metrics = (struct metrics){ 0 };
}

/** The first cell of a series. */
static uint64_t *cell(const struct metrics *metrics, uint32_t row, uint32_t series)
{
    assert(row < metrics->count && series < series_count(&metrics->rows[row]));
    return metrics->cells + metrics->first[row] + series * series_cells(&metrics->rows[row]);
}

void metric_add(struct metrics *metrics, uint32_t row, uint32_t series, uint64_t raw)
{
    assert(metrics->rows[row].kind == METRIC_COUNTER);
    *cell(metrics, row, series) += raw;
}

void metric_set(struct metrics *metrics, uint32_t row, uint32_t series, int64_t raw)
{
    assert(metrics->rows[row].kind == METRIC_GAUGE);
    *cell(metrics, row, series) = (uint64_t)raw;
}

void metric_observe(struct metrics *metrics, uint32_t row, uint32_t series, uint64_t raw)
{
    const struct metric_bounds *bounds = metrics->rows[row].bounds;
    uint64_t *cells = cell(metrics, row, series);
    uint32_t bucket = 0;

    assert(metrics->rows[row].kind == METRIC_HISTOGRAM);
    while (bucket < bounds->count && raw > bounds->at[bucket])
        bucket++;
    cells[bucket]++;
    cells[bounds->count + 1] += raw;
}

uint64_t metric_value(const struct metrics *metrics, uint32_t row, uint32_t series)
{
    const uint64_t *cells = cell(metrics, row, series);
    uint64_t sum = cells[0];

    if (metrics->rows[row].kind == METRIC_HISTOGRAM)
        for (uint32_t i = 1; i <= metrics->rows[row].bounds->count; i++)
            sum += cells[i];
    return sum;
}

/* ----------------------------------------------------------------------------------------- text */

/** `raw` in the unit's shown form, exactly: 1500000000 ns is "1.5". */
static void add_number(struct buf *out, enum metric_unit unit, uint64_t raw, bool negative)
{
    const uint64_t scale = unit == METRIC_SECONDS ? 1000 * MS : unit == METRIC_RATIO ? MS : 1;
    uint64_t part = raw % scale;

    buf_addf(out, "%s%" PRIu64, negative ? "-" : "", raw / scale);
    if (part == 0)
        return;
    buf_add_byte(out, '.');
    for (uint64_t digit = scale / 10; part != 0; digit /= 10) {
        buf_add_byte(out, (unsigned char)('0' + part / digit));
        part %= digit;
    }
}

static void add_name(struct buf *out, const struct metrics *metrics, const struct metric *row)
{
    static const char *const units[] = { "", "_bytes", "_seconds", "_ratio" };

    buf_addf(out, "%s_%s%s%s", metrics->prefix, row->name, units[row->unit],
             row->kind == METRIC_COUNTER ? "_total" : "");
}

/** A series' name up to its value: name, `suffix`, the label, and for a bucket its bound. */
static void add_series(struct buf *out, const struct metrics *metrics, const struct metric *row,
                       uint32_t series, const char *suffix)
{
    add_name(out, metrics, row);
    buf_add_text(out, suffix);
    if (row->label)
        buf_addf(out, "{%s=\"%s\"}", row->label->name, row->label->values[series]);
    buf_add_byte(out, ' ');
}

static void add_bucket(struct buf *out, const struct metrics *metrics, const struct metric *row,
                       uint32_t series, uint32_t bucket)
{
    add_name(out, metrics, row);
    buf_add_text(out, "_bucket{");
    if (row->label)
        buf_addf(out, "%s=\"%s\",", row->label->name, row->label->values[series]);
    buf_add_text(out, "le=\"");
    if (bucket < row->bounds->count)
        add_number(out, row->unit, row->bounds->at[bucket], false);
    else
        buf_add_text(out, "+Inf");
    buf_add_text(out, "\"} ");
}

static void add_histogram(struct buf *out, const struct metrics *metrics, uint32_t index,
                          uint32_t series)
{
    const struct metric *row = &metrics->rows[index];
    const uint64_t *cells = cell(metrics, index, series);
    uint64_t sum = 0;

    for (uint32_t i = 0; i <= row->bounds->count; i++) {
        sum += cells[i];
        add_bucket(out, metrics, row, series, i);
        buf_addf(out, "%" PRIu64 "\n", sum);
    }
    add_series(out, metrics, row, series, "_sum");
    add_number(out, row->unit, cells[row->bounds->count + 1], false);
    buf_add_byte(out, '\n');
    add_series(out, metrics, row, series, "_count");
    buf_addf(out, "%" PRIu64 "\n", sum);
}

static void add_value(struct buf *out, const struct metrics *metrics, uint32_t index,
                      uint32_t series)
{
    const struct metric *row = &metrics->rows[index];
    const uint64_t raw = *cell(metrics, index, series);
    const bool negative = row->kind == METRIC_GAUGE && raw > INT64_MAX;

    add_series(out, metrics, row, series, "");
    add_number(out, row->unit, negative ? 0 - raw : raw, negative);
    buf_add_byte(out, '\n');
}

void metrics_text(const struct metrics *metrics, struct buf *out)
{
    static const char *const kinds[] = { "counter", "gauge", "histogram" };

    for (uint32_t i = 0; i < metrics->count; i++) {
        const struct metric *row = &metrics->rows[i];

        buf_add_text(out, "# HELP ");
        add_name(out, metrics, row);
        buf_addf(out, " %s\n# TYPE ", row->help);
        add_name(out, metrics, row);
        buf_addf(out, " %s\n", kinds[row->kind]);
        for (uint32_t s = 0; s < series_count(row); s++) {
            if (row->kind == METRIC_HISTOGRAM)
                add_histogram(out, metrics, i, s);
            else
                add_value(out, metrics, i, s);
        }
    }
}
