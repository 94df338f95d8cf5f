/* bench_serve_picture.c - the tally as graphs. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "cmd/bench_serve_report.h"
#include "sim/plot.h"

enum { SPREAD_POINTS = 220, OVER_TIME = 12 };

/** All points of the picture; too large for a stack. */
struct graphs {
    struct plot_point spread[3][SPREAD_POINTS];
    uint32_t spread_count[3];
    struct plot_point time[OVER_TIME][TALLY_BINS];
    uint32_t bins;
};

enum { SENT, ANSWERED, REFUSED, FAILED, IN_FLIGHT, GOOD, HITS, BEST, PROMPT, OUTPUT };

/* How many percent are at most so many milliseconds; finer towards the end, where the slow ones are. */
static uint32_t spread(const struct percentile *p, struct plot_point *points)
{
    uint32_t count = 0;

    for (int i = 0; i < SPREAD_POINTS && p->count > 0; i++) {
        const double share = i < 200 ? i / 200.0 : 0.995 + (i - 199) * 0.005 / 20;
        points[count++] = (struct plot_point){ (double)percentile_at(p, share) / 1e6, 100 * share };
    }
    return count;
}

/* The hit ratio as it is up to a time: of single bins it would jump about. */
static void over_time(const struct bench_tally *t, struct graphs *g)
{
    const double width = (double)t->bin_ns / 1e9;
    double prompt = 0, cached = 0, replay_prompt = 0, replay = 0;

    g->bins = t->bin_count;
    for (uint32_t i = 0; i < t->bin_count; i++) {
        const struct bench_bin *b = &t->bins[i];
        const double x = (i + 0.5) * width;
        prompt += (double)b->prompt_tokens;
        cached += (double)b->cached_tokens;
        replay_prompt += (double)b->replay_prompt;
        replay += (double)b->replay_tokens;
        const double y[OVER_TIME] = {
            [SENT] = (double)b->sent / width,
            [ANSWERED] = (double)b->ended[BENCH_ANSWERED] / width,
            [REFUSED] = (double)b->ended[BENCH_REFUSED] / width,
            [FAILED] = (double)(b->ended[BENCH_FAILED] + b->ended[BENCH_ABANDONED]) / width,
            [IN_FLIGHT] = (double)b->in_flight,
            [GOOD] = (double)b->good / width,
            [HITS] = prompt > 0 ? 100 * cached / prompt : 0,
            [BEST] = replay_prompt > 0 ? 100 * replay / replay_prompt : 0,
            [PROMPT] = (double)b->prompt_tokens / width,
            [OUTPUT] = (double)b->output_tokens / width,
        };
        for (int k = 0; k < OVER_TIME; k++)
            g->time[k][i] = (struct plot_point){ x, y[k] };
    }
}

/* ---------------------------------------------------------------------------------------- panels */

static void add_line(struct plot_panel *p, const char *name, const struct plot_point *points,
                     uint32_t count)
{
    p->series[p->series_count++] =
        (struct plot_series){ .name = name, .points = points, .count = count };
}

static void add_time(struct plot_panel *p, const struct graphs *g, int which, const char *name)
{
    add_line(p, name, g->time[which], g->bins);
}

static void fill_over_time(const struct bench_tally *t, const struct graphs *g,
                           struct plot_panel *panels)
{
    struct plot_panel *p = &panels[0];

    *p = (struct plot_panel){ "Requests over time", "s", "requests/s", .series_count = 0 };
    add_time(p, g, SENT, "sent");
    add_time(p, g, ANSWERED, "answered");
    add_time(p, g, REFUSED, "refused");
    add_time(p, g, FAILED, "failed");
    if (t->objectives.ttft_ns || t->objectives.tbt_ns) /* else it is what was answered */
        add_time(p, g, GOOD, "goodput");

    p = &panels[1];
    *p = (struct plot_panel){ "In flight", "s", "requests, the most at once", .series_count = 0 };
    add_time(p, g, IN_FLIGHT, NULL);

    p = &panels[2];
    *p = (struct plot_panel){ "Prompt tokens reused, so far", "s", "% of prompt tokens",
                              .y_max = 100 };
    add_time(p, g, HITS, "measured");
    add_time(p, g, BEST, "unbounded pool, replayed");
    p->series[1].dashed = true;

    p = &panels[3];
    *p = (struct plot_panel){ "Tokens over time", "s", "tokens/s", .series_count = 0 };
    add_time(p, g, PROMPT, "prompt");
    add_time(p, g, OUTPUT, "output");
}

static void fill_spreads(const struct graphs *g, struct plot_panel *panels)
{
    struct plot_panel *p = &panels[0];

    *p = (struct plot_panel){ "Time to the first token", "ms", "% of the answered", .x_log = true,
                              .y_max = 100 };
    add_line(p, NULL, g->spread[0], g->spread_count[0]);
    p = &panels[1];
    *p = (struct plot_panel){ "Time between tokens", "ms", "% of the answered", .x_log = true,
                              .y_max = 100 };
    add_line(p, "mean of a request", g->spread[1], g->spread_count[1]);
    add_line(p, "its largest gap", g->spread[2], g->spread_count[2]);
}

static void write_subtitle(const struct bench_tally *t, char *text, size_t size)
{
    snprintf(text, size,
             "%" PRIu64 " sent = %" PRIu64 " answered + %" PRIu64 " refused + %" PRIu64
             " failed; TTFT p50 %.1f ms, p99 %.1f ms; TBT p50 %.1f ms, p99 %.1f ms",
             t->sent, t->ended[BENCH_ANSWERED], t->ended[BENCH_REFUSED],
             t->ended[BENCH_FAILED] + t->ended[BENCH_ABANDONED],
             (double)percentile_at(&t->ttft, 0.5) / 1e6,
             (double)percentile_at(&t->ttft, 0.99) / 1e6,
             (double)percentile_at(&t->gap_mean, 0.5) / 1e6,
             (double)percentile_at(&t->gap_mean, 0.99) / 1e6);
}

void bench_serve_picture(const struct bench_run *run, struct buf *out)
{
    const struct bench_tally *t = &run->load->tally;
    struct graphs *g = calloc(1, sizeof(*g));
    struct plot_panel panels[6];
    char subtitle[300];

    if (!g) {
        out->failed = true;
        return;
    }
    g->spread_count[0] = spread(&t->ttft, g->spread[0]);
    g->spread_count[1] = spread(&t->gap_mean, g->spread[1]);
    g->spread_count[2] = spread(&t->gap_max, g->spread[2]);
    over_time(t, g);
    fill_over_time(t, g, panels);
    fill_spreads(g, panels + 4);
    write_subtitle(t, subtitle, sizeof(subtitle));
    const struct plot_page page = { run->name, subtitle, panels, 6 };
    plot_write(&page, out);
    free(g);
}
