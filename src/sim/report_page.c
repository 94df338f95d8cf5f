/* report_page.c - a page of one file: a table of all runs, their distributions, each one's course. */
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "sim/plot.h"
#include "sim/report.h"

enum { CDF_POINTS = 200, RUNS_DRAWN = 24 };

static const char style[] =
    "<style>:root{color-scheme:light dark}body{font:15px/1.45 system-ui,sans-serif;max-width:90em;"
    "margin:2em auto;padding:0 1em}table{border-collapse:collapse;font-size:13px}"
    "td,th{padding:.2em .5em;text-align:right;border-bottom:1px solid "
    "#8884}th{vertical-align:bottom}"
    "td:first-child,th:first-child{text-align:left}pre{overflow:auto;font-size:12px}"
    "summary{font-size:1.5em;font-weight:bold;margin:1.3em 0 .5em}a{color:inherit}"
    "svg{max-width:100%;height:auto;display:block}h2{margin-top:2em}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,26em),1fr));gap:1em}"
    ".plots svg{width:100%;border-radius:6px}.wide{overflow:auto}"
    "@media(max-width:40em){body{margin:1em auto}td,th{padding:.2em "
    ".4em}td:first-child{min-width:10em}}"
    "@media(min-width:60em){td:first-child{white-space:nowrap}}</style>";

static void add_escaped(struct buf *out, const char *text)
{
    for (; *text; text++)
        if (*text == '<')
            buf_add_text(out, "&lt;");
        else if (*text == '&')
            buf_add_text(out, "&amp;");
        else if (*text == '>')
            buf_add_text(out, "&gt;");
        else
            buf_add(out, text, 1);
}

static void table(const struct report_run *runs, uint32_t count, struct buf *out)
{
    buf_add_text(out, "<div class=\"wide\"><table><tr><th>run<th>offered<th>finished "
                      "%<th>refused %<th>within SLOs %"
                      "<th>goodput 1/s<th>k tokens/s<th>TTFT mean s<th>p50<th>p90<th>p99"
                      "<th>TBT mean ms<th>p90<th>hit %<th>prefill GPU s<th>wasted s<th>moved TB"
                      "<th>regret s</tr>\n");
    for (uint32_t i = 0; i < count; i++) {
        const struct summary *m = &runs[i].summary;
        const double n = m->offered ? m->offered : 1;

        if (!runs[i].done)
            continue;
        buf_addf(out, "<tr><td>%u&ensp;", i + 1);
        if (i < RUNS_DRAWN)
            buf_addf(out, "<a href=\"#run%u\">", i + 1);
        add_escaped(out, runs[i].name);
        buf_addf(out, "%s<td>%u<td>%.2f<td>%.2f<td>%.2f<td>%.3f<td>%.1f",
                 i < RUNS_DRAWN ? "</a>" : "", m->offered, 100 * m->finished / n,
                 100.0 * (m->refused + m->late) / n, 100 * m->good / n, m->goodput,
                 m->goodput_tokens / 1e3);
        buf_addf(out, "<td>%.2f<td>%.2f<td>%.2f<td>%.2f<td>%.1f<td>%.1f", m->ttft_mean,
                 summary_at(m->ttft, m->finished, .5), summary_at(m->ttft, m->finished, .9),
                 summary_at(m->ttft, m->finished, .99), m->tbt_mean * 1e3,
                 summary_at(m->tbt, m->finished, .9) * 1e3);
        buf_addf(out, "<td>%.2f<td>%.3f<td>%.1f<td>%.2f<td>%.2f</tr>\n", 100 * m->hit, m->busy_mean,
                 m->wasted_s, m->moved_bytes / 1e12, m->regret_mean);
    }
    buf_add_text(out, "</table></div>\n");
}

/* Each a picture of its own, so that they stand below each other on a phone. */
static void draw(const struct plot_panel *panels, uint32_t count, struct buf *out)
{
    buf_add_text(out, "<div class=\"plots\">\n");
    for (uint32_t i = 0; i < count; i++)
        plot_write(&(struct plot_page){ .panels = &panels[i], .panel_count = 1 }, out);
    buf_add_text(out, "</div>\n");
}

/* ------------------------------------------------------------------------------------ distributions */

static uint32_t cdf(const float *values, uint32_t count, double scale, struct plot_point *points)
{
    for (uint32_t i = 0; i < CDF_POINTS; i++) {
        const double share = (i + 1.0) / CDF_POINTS;
        points[i] = (struct plot_point){ summary_at(values, count, share) * scale, 100 * share };
    }
    return count ? CDF_POINTS : 0;
}

static const float *values_of(const struct summary *m, int which)
{
    return which == 0 ? m->ttft : which == 1 ? m->tbt : m->regret;
}

/* Of runs first ... first + count - 1, numbered as in the table. */
static void distributions_of(const struct report_run *runs, uint32_t first, uint32_t count,
                             struct plot_point *points, struct buf *out)
{
    struct plot_panel panels[3] = {
        { .title = "Time to first token",
          .x_label = "s",
          .y_label = "% of requests",
          .x_log = true,
          .y_max = 100 },
        { .title = "Time between tokens (longest tenth)",
          .x_label = "ms",
          .y_label = "% of requests",
          .x_log = true,
          .y_max = 100 },
        { .title = "Regret: TTFT above a lone request's",
          .x_label = "s",
          .y_label = "% of requests",
          .x_log = true,
          .y_max = 100 },
    };
    char numbers[PLOT_SERIES_MAX][12];

    for (uint32_t i = 0; i < count; i++)
        snprintf(numbers[i], sizeof(numbers[i]), "%u", first + i + 1);
    for (int k = 0; k < 3; k++)
        for (uint32_t i = 0; i < count; i++) {
            const struct report_run *run = &runs[first + i];

            if (!run->done)
                continue;
            const uint32_t n =
                cdf(values_of(&run->summary, k), run->summary.finished, k == 1 ? 1e3 : 1, points);
            panels[k].series[panels[k].series_count++] =
                (struct plot_series){ .name = numbers[i], .points = points, .count = n };
            points += n;
        }
    draw(panels, 3, out);
}

/* A few at a time, so that their colours can be told apart. */
static void distributions(const struct report_run *runs, uint32_t count, struct plot_point *points,
                          struct buf *out)
{
    const uint32_t drawn = count < RUNS_DRAWN ? count : RUNS_DRAWN;

    buf_addf(out, "<h2>%s</h2>\n", count > 1 ? "All runs" : "Requests");
    if (count > RUNS_DRAWN)
        buf_addf(out, "<p>The first %u of %u are drawn, here and below.</p>\n", drawn, count);
    for (uint32_t first = 0; first < drawn; first += PLOT_SERIES_MAX) {
        const uint32_t left = drawn - first;
        const uint32_t some = left < PLOT_SERIES_MAX ? left : PLOT_SERIES_MAX;

        if (drawn > PLOT_SERIES_MAX)
            buf_addf(out, "<h3>%u to %u</h3>\n", first + 1, first + some);
        distributions_of(runs, first, some, points, out);
    }
}

/* -------------------------------------------------------------------------------------------- course */

enum series_kind {
    SERIES_PREFILL_LOAD,
    SERIES_DECODE_LOAD,
    SERIES_WAITING,
    SERIES_PREFILLING,
    SERIES_MOVING,
    SERIES_DECODING,
    SERIES_HIT,
    SERIES_REFUSED,
    SERIES_REPLICAS /* and the next ones */
};

static double value_of(const struct sim_sample *s, uint32_t kind)
{
    switch (kind) {
    case SERIES_PREFILL_LOAD:
        return 100 * s->prefill_load;
    case SERIES_DECODE_LOAD:
        return 100 * s->decode_load;
    case SERIES_WAITING:
        return s->waiting;
    case SERIES_PREFILLING:
        return s->prefilling;
    case SERIES_MOVING:
        return s->moving;
    case SERIES_DECODING:
        return s->decoding;
    case SERIES_HIT:
        return s->prompt_tokens ? 100 * (double)s->hit_tokens / (double)s->prompt_tokens : 0;
    case SERIES_REFUSED:
        return s->finished + s->refused ? 100.0 * s->refused / (s->finished + s->refused) : 0;
    default:
        return s->replicas[kind - SERIES_REPLICAS];
    }
}

static struct plot_series series(const struct report_run *run, const char *name, uint32_t kind,
                                 struct plot_point **points_p)
{
    struct plot_point *points = *points_p;

    for (uint32_t i = 0; i < run->sample_count; i++)
        points[i] = (struct plot_point){ (double)run->samples[i].ns / 1e9,
                                         value_of(&run->samples[i], kind) };
    *points_p += run->sample_count;
    return (struct plot_series){ .name = name, .points = points, .count = run->sample_count };
}

static void course(const struct report_run *run, uint32_t number, struct plot_point *points,
                   struct buf *out)
{
    static const char *const ranks[] = { "rank 10", "rank 100", "rank 1000", "rank 10000" };
    struct plot_panel panels[4] = {
        { .title = "Load", .x_label = "s", .y_label = "% of the SLO", .series_count = 2 },
        { .title = "Requests", .x_label = "s", .y_label = "requests", .series_count = 4 },
        { .title = "So far", .x_label = "s", .y_label = "%", .series_count = 2, .y_max = 100 },
        { .title = "Replicas of blocks, ranked by use",
          .x_label = "s",
          .y_label = "instances",
          .series_count = run->watched_count },
    };

    panels[0].series[0] = series(run, "prefill", SERIES_PREFILL_LOAD, &points);
    panels[0].series[1] = series(run, "decode", SERIES_DECODE_LOAD, &points);
    panels[1].series[0] = series(run, "waiting", SERIES_WAITING, &points);
    panels[1].series[1] = series(run, "prefill", SERIES_PREFILLING, &points);
    panels[1].series[2] = series(run, "moving", SERIES_MOVING, &points);
    panels[1].series[3] = series(run, "decode", SERIES_DECODING, &points);
    panels[2].series[0] = series(run, "prompt tokens reused", SERIES_HIT, &points);
    panels[2].series[1] = series(run, "refused", SERIES_REFUSED, &points);
    for (uint32_t k = 0; k < run->watched_count; k++)
        panels[3].series[k] = series(run, ranks[k], SERIES_REPLICAS + k, &points);
    buf_addf(out, "<h2 id=\"run%u\">%u&ensp;", number, number);
    add_escaped(out, run->name);
    buf_add_text(out, "</h2>\n");
    draw(panels, run->watched_count ? 4 : 3, out);
}

void report_page(const struct report_run *runs, uint32_t count, const char *title,
                 const char *settings, const struct mc_alloc *alloc, struct buf *out)
{
    size_t room = (size_t)3 * PLOT_SERIES_MAX * CDF_POINTS;

    for (uint32_t i = 0; i < count; i++)
        if ((size_t)runs[i].sample_count * 12 > room)
            room = (size_t)runs[i].sample_count * 12;
    struct plot_point *points = alloc_zeroed(alloc, room, sizeof(*points));
    if (!points) {
        out->failed = true;
        return;
    }
    buf_add_text(out, "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">"
                      "<meta name=\"viewport\" content=\"width=device-width\"><title>");
    add_escaped(out, title);
    buf_addf(out, "</title>%s<h1>", style);
    add_escaped(out, title);
    buf_add_text(out, "</h1>\n");
    table(runs, count, out);
    distributions(runs, count, points, out);
    for (uint32_t i = 0; i < count && i < RUNS_DRAWN; i++)
        if (runs[i].done)
            course(&runs[i], i + 1, points, out);
    buf_add_text(out, "<details><summary>Settings and assumptions</summary>\n<pre>");
    add_escaped(out, settings);
    buf_add_text(out, "</pre></details></html>\n");
    alloc_free(alloc, points);
}
