/* bench_serve_picture.c - the tally as graphs. */
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

static struct plot_series line(const struct graphs *g, int which, const char *name)
{
    return (struct plot_series){ .name = name, .points = g->time[which], .count = g->bins };
}

void bench_serve_picture(const struct bench_run *run, struct buf *out)
{
    const struct bench_tally *t = &run->load->tally;
    struct graphs *g = calloc(1, sizeof(*g));
    char subtitle[300];

    if (!g) {
        out->failed = true;
        return;
    }
    g->spread_count[0] = spread(&t->ttft, g->spread[0]);
    g->spread_count[1] = spread(&t->gap_mean, g->spread[1]);
    g->spread_count[2] = spread(&t->gap_max, g->spread[2]);
    over_time(t, g);
    struct plot_series best = line(g, BEST, "unbounded pool, replayed");
    best.dashed = true;
    const struct plot_panel panels[] = {
        { "Requests over time",
          "s",
          "requests/s",
          { line(g, SENT, "sent"), line(g, ANSWERED, "answered"), line(g, GOOD, "goodput"),
            line(g, REFUSED, "refused"), line(g, FAILED, "failed") },
          5,
          false,
          0 },
        { "In flight",
          "s",
          "requests, the most at once",
          { line(g, IN_FLIGHT, NULL) },
          1,
          false,
          0 },
        { "Time to the first token",
          "ms",
          "% of the answered",
          { { NULL, g->spread[0], g->spread_count[0], false } },
          1,
          true,
          100 },
        { "Time between tokens",
          "ms",
          "% of the answered",
          { { "mean of a request", g->spread[1], g->spread_count[1], false },
            { "its largest gap", g->spread[2], g->spread_count[2], false } },
          2,
          true,
          100 },
        { "Prompt tokens that were not computed, so far",
          "s",
          "% of prompt tokens",
          { line(g, HITS, "measured"), best },
          2,
          false,
          100 },
        { "Tokens over time",
          "s",
          "tokens/s",
          { line(g, PROMPT, "prompt"), line(g, OUTPUT, "output") },
          2,
          false,
          0 },
    };
    snprintf(
        subtitle, sizeof(subtitle),
        "%llu sent = %llu answered + %llu refused + %llu failed; TTFT p50 %.1f ms, p99 %.1f ms; "
        "TBT p50 %.1f ms, p99 %.1f ms",
        (unsigned long long)t->sent, (unsigned long long)t->ended[BENCH_ANSWERED],
        (unsigned long long)t->ended[BENCH_REFUSED],
        (unsigned long long)(t->ended[BENCH_FAILED] + t->ended[BENCH_ABANDONED]),
        (double)percentile_at(&t->ttft, 0.5) / 1e6, (double)percentile_at(&t->ttft, 0.99) / 1e6,
        (double)percentile_at(&t->gap_mean, 0.5) / 1e6,
        (double)percentile_at(&t->gap_mean, 0.99) / 1e6);
    const struct plot_page page = { run->name, subtitle, panels,
                                    sizeof(panels) / sizeof(panels[0]) };
    plot_write(&page, out);
    free(g);
}
