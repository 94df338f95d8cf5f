/* bench_serve_report.c - the tally as text and as figures. */
#include "cmd/bench_serve_report.h"

#include <inttypes.h>
#include <stdio.h>

static const double shares[] = { 0.5, 0.9, 0.95, 0.99 };
static const char *const share_names[] = { "p50", "p90", "p95", "p99" };
enum { SHARES = sizeof(shares) / sizeof(shares[0]) };

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static double of(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static double hit_ratio(const struct bench_tally *t)
{
    return of((double)t->cached_tokens, (double)t->cached_known);
}

/* ------------------------------------------------------------------------------------------- text */

static void add_reasons(const struct bench_tally *t, enum bench_outcome outcome, struct buf *out)
{
    const char *before = "";

    if (t->ended[outcome] == 0)
        return;
    buf_addf(out, "  %s: ", bench_outcome_name(outcome));
    for (uint32_t i = 0; i < t->reason_count; i++)
        if (t->reasons[i].outcome == outcome) {
            buf_addf(out, "%s%s %" PRIu64, before, t->reasons[i].text, t->reasons[i].count);
            before = ", ";
        }
    buf_add_byte(out, '\n');
}

static void add_counts(const struct bench_tally *t, struct buf *out)
{
    buf_addf(out,
             "%" PRIu64 " sent = %" PRIu64 " answered + %" PRIu64 " refused + %" PRIu64 " failed",
             t->sent, t->ended[BENCH_ANSWERED], t->ended[BENCH_REFUSED], t->ended[BENCH_FAILED]);
    if (t->ended[BENCH_ABANDONED])
        buf_addf(out, " + %" PRIu64 " abandoned", t->ended[BENCH_ABANDONED]);
    buf_addf(out, ", in %.1f s\n", bench_tally_seconds(t));
    if (!bench_tally_closed(t))
        buf_add_text(out, "  THESE DO NOT ADD UP: an error of this program\n");
    add_reasons(t, BENCH_REFUSED, out);
    add_reasons(t, BENCH_FAILED, out);
    if (t->cut)
        buf_addf(out, "  cut to fit the context: %" PRIu64 "\n", t->cut);
    if (t->other_length)
        buf_addf(out, "  answers of another length than asked for: %" PRIu64 "\n", t->other_length);
}

static void add_rates(const struct bench_tally *t, struct buf *out)
{
    const double s = bench_tally_seconds(t);

    buf_addf(out,
             "rates       %.2f requests/s sent, %.2f answered; %.0f prompt tokens/s, %.0f output "
             "tokens/s; at most %" PRIu64 " at once\n",
             (double)t->sent / s, (double)t->ended[BENCH_ANSWERED] / s,
             (double)t->prompt_tokens / s, (double)t->output_tokens / s, t->in_flight_most);
}

static void add_spread(const char *name, const struct percentile *p, struct buf *out)
{
    if (p->count == 0)
        return;
    buf_addf(out, "%-12s", name);
    for (int i = 0; i < SHARES; i++)
        buf_addf(out, "%10.2f", ms(percentile_at(p, shares[i])));
    buf_addf(out, "%10.2f%10.2f\n", ms(p->most), percentile_mean(p) / 1e6);
}

static void add_spreads(const struct bench_tally *t, struct buf *out)
{
    buf_addf(out, "%-12s%10s%10s%10s%10s%10s%10s\n", "ms", "p50", "p90", "p95", "p99", "max",
             "mean");
    add_spread("TTFT", &t->ttft, out);
    add_spread("TBT mean", &t->gap_mean, out);
    add_spread("TBT longest", &t->gap_longest, out);
    add_spread("TBT max", &t->gap_max, out);
    add_spread("whole", &t->total, out);
    add_spread("sent late", &t->late, out);
    add_spread("Retry-After", &t->retry_after, out);
    add_spread("misjudged", &t->prediction_error, out);
}

static void add_cache(const struct bench_load *load, struct buf *out)
{
    const struct bench_tally *t = &load->tally;
    const double best = replay_ratio(&load->replay);

    if (t->cached_known == 0) {
        buf_addf(out, "hit ratio   not told by the server; %.4f at best\n", best);
        return;
    }
    buf_addf(
        out,
        "hit ratio   %.4f measured, %.4f at best (all that was sent, on a pool without bounds)",
        hit_ratio(t), best);
    if (best > 0)
        buf_addf(out, ": %.3f of it", hit_ratio(t) / best);
    buf_add_byte(out, '\n');
}

static void add_goodput(const struct bench_tally *t, struct buf *out)
{
    static const char *const by[] = { "mean", "longest", "max" };
    const double answered = (double)t->ended[BENCH_ANSWERED], s = bench_tally_seconds(t);

    if (t->objectives.ttft_ns == 0 && t->objectives.tbt_ns == 0)
        return;
    buf_addf(out,
             "goodput     %.2f requests/s, %.0f output tokens/s: %.1f %% of the answered "
             "(TTFT %.1f %%, TBT by %s %.1f %%)\n",
             (double)t->good / s, (double)t->good_tokens / s, 100 * of((double)t->good, answered),
             100 * of((double)t->met_ttft, answered), by[t->objectives.by],
             100 * of((double)t->met_tbt, answered));
}

void bench_serve_text(const struct bench_run *run, struct buf *out)
{
    const struct bench_tally *t = &run->load->tally;

    buf_addf(out, "%s\n", run->name);
    add_counts(t, out);
    if (t->sent == 0)
        return;
    add_rates(t, out);
    add_spreads(t, out);
    add_cache(run->load, out);
    add_goodput(t, out);
    if (t->retried)
        buf_addf(out,
                 "retries     %" PRIu64 " waited and tried again, %" PRIu64 " got in (%.1f %%)\n",
                 t->retried, t->got_in, 100 * of((double)t->got_in, (double)t->retried));
    buf_addf(out, "this client %.2f s of a processor, %.1f %% of one, %.0f us for each try\n",
             run->cpu_s, 100 * run->cpu_s / bench_tally_seconds(t),
             1e6 * run->cpu_s / (double)t->tries);
}

/* ---------------------------------------------------------------------------------------- figures */

static void row(struct bench *bench, const struct bench_run *run, const char *metric,
                const char *unit, double value, uint64_t n)
{
    const struct figure f = { .name = run->name,
                              .metric = metric,
                              .unit = unit,
                              .value = value,
                              .min = value,
                              .max = value,
                              .n = n };

    bench_figure(bench, &f);
}

static void spread_rows(struct bench *bench, const struct bench_run *run, const char *metric,
                        const struct percentile *p)
{
    char name[64];

    if (p->count == 0)
        return;
    for (int i = 0; i < SHARES; i++) {
        snprintf(name, sizeof(name), "%s %s", metric, share_names[i]);
        row(bench, run, name, "ms", ms(percentile_at(p, shares[i])), p->count);
    }
    snprintf(name, sizeof(name), "%s max", metric);
    row(bench, run, name, "ms", ms(p->most), p->count);
    snprintf(name, sizeof(name), "%s mean", metric);
    row(bench, run, name, "ms", percentile_mean(p) / 1e6, p->count);
}

static void count_rows(struct bench *bench, const struct bench_run *run)
{
    const struct bench_tally *t = &run->load->tally;
    char name[80];

    row(bench, run, "sent", "requests", (double)t->sent, t->sent);
    for (int i = 0; i < BENCH_OUTCOMES; i++)
        row(bench, run, bench_outcome_name((enum bench_outcome)i), "requests", (double)t->ended[i],
            t->sent);
    for (uint32_t i = 0; i < t->reason_count; i++) {
        snprintf(name, sizeof(name), "%s: %s", bench_outcome_name(t->reasons[i].outcome),
                 t->reasons[i].text);
        row(bench, run, name, "requests", (double)t->reasons[i].count, t->sent);
    }
    row(bench, run, "cut to the context", "requests", (double)t->cut, t->sent);
    row(bench, run, "answers of another length", "requests", (double)t->other_length, t->sent);
    row(bench, run, "tried again", "requests", (double)t->retried, t->sent);
    row(bench, run, "got in then", "requests", (double)t->got_in, t->retried);
}

static void rate_rows(struct bench *bench, const struct bench_run *run)
{
    const struct bench_tally *t = &run->load->tally;
    const double s = bench_tally_seconds(t);
    const uint64_t answered = t->ended[BENCH_ANSWERED];

    row(bench, run, "time", "s", s, 1);
    row(bench, run, "sent rate", "requests/s", (double)t->sent / s, t->sent);
    row(bench, run, "answered rate", "requests/s", (double)answered / s, answered);
    row(bench, run, "prompt rate", "tokens/s", (double)t->prompt_tokens / s, answered);
    row(bench, run, "output rate", "tokens/s", (double)t->output_tokens / s, answered);
    row(bench, run, "goodput", "requests/s", (double)t->good / s, answered);
    row(bench, run, "met both objectives", "share of answered",
        of((double)t->good, (double)answered), answered);
    row(bench, run, "met TTFT", "share of answered", of((double)t->met_ttft, (double)answered),
        answered);
    row(bench, run, "met TBT", "share of answered", of((double)t->met_tbt, (double)answered),
        answered);
    row(bench, run, "met both by mean gap", "share of answered",
        of((double)t->good_mean, (double)answered), answered);
    row(bench, run, "met both by longest tenth", "share of answered",
        of((double)t->good_longest, (double)answered), answered);
    row(bench, run, "met both by largest gap", "share of answered",
        of((double)t->good_max, (double)answered), answered);
    row(bench, run, "most in flight", "requests", (double)t->in_flight_most, 1);
    row(bench, run, "client processor", "share of one", run->cpu_s / s, 1);
}

void bench_serve_figures(const struct bench_run *run, struct bench *bench)
{
    const struct bench_load *load = run->load;
    const struct bench_tally *t = &load->tally;
    const double measured = hit_ratio(t);
    const struct figure hits = { .name = run->name,
                                 .metric = "hit ratio",
                                 .unit = "share of prompt tokens",
                                 .value = measured,
                                 .min = measured,
                                 .max = measured,
                                 .n = t->ended[BENCH_ANSWERED],
                                 .peer = "replay on a pool without bounds",
                                 .peer_value = replay_ratio(&load->replay) };

    count_rows(bench, run);
    rate_rows(bench, run);
    if (t->cached_known)
        bench_figure(bench, &hits);
    spread_rows(bench, run, "TTFT", &t->ttft);
    spread_rows(bench, run, "TBT mean of a request", &t->gap_mean);
    spread_rows(bench, run, "TBT longest tenth of a request", &t->gap_longest);
    spread_rows(bench, run, "TBT largest of a request", &t->gap_max);
    spread_rows(bench, run, "whole request", &t->total);
    spread_rows(bench, run, "sent late", &t->late);
    spread_rows(bench, run, "Retry-After", &t->retry_after);
    spread_rows(bench, run, "TTFT against prediction", &t->prediction_error);
}
