/* tracestats.c - one pass for lengths and arrivals, one for the blocks. */
#include "sim/tracestats.h"

#include <math.h>
#include <stdlib.h>

#include "base/alloc.h"

static const uint32_t LONG_TOKENS = 32768;
static const uint32_t RANKS[4] = { 1, 100, 1000, 10000 }, RANKS_NAMED[4] = { 10, 100, 1000, 10000 };

static int rising(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* Sorts `values`. */
static struct trace_spread spread(double *values, uint32_t count)
{
    struct trace_spread s = { 0 };
    double squares = 0;

    if (count == 0)
        return s;
    qsort(values, count, sizeof(*values), rising);
    for (uint32_t i = 0; i < count; i++)
        s.mean += values[i] / count;
    for (uint32_t i = 0; i < count; i++)
        squares += (values[i] - s.mean) * (values[i] - s.mean);
    s.sd = sqrt(squares / count);
#define AT(share) values[(uint32_t)((share) * (count - 1) + 0.5)]
    s.p10 = AT(0.10);
    s.p50 = AT(0.50);
    s.p90 = AT(0.90);
    s.p95 = AT(0.95);
    s.p99 = AT(0.99);
#undef AT
    s.least = values[0];
    s.most = values[count - 1];
    return s;
}

/* ------------------------------------------------------------------------------------------ requests */

static void count_lengths(struct tracestats *s, const struct sim_trace *t, const struct mc_cost *c,
                          double *v)
{
    double long_tokens = 0, long_requests = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        const double n = t->requests[i].input;

        s->input_tokens += t->requests[i].input;
        s->output_tokens += t->requests[i].output;
        s->mean_of_ratios += n / t->requests[i].output / t->count;
        if (t->requests[i].input > LONG_TOKENS) {
            long_tokens += n;
            long_requests++;
        }
        s->compute_s += c->p0 + c->p1 * n + c->p2 * n * n;
        v[i] = n;
    }
    s->input = spread(v, t->count);
    for (uint32_t i = 0; i < t->count; i++)
        v[i] = t->requests[i].output;
    s->output = spread(v, t->count);
    for (uint32_t i = 0; i < t->count; i++)
        v[i] = t->requests[i].block_count;
    s->blocks = spread(v, t->count);
    s->ratio_of_means = s->output.mean > 0 ? s->input.mean / s->output.mean : 0;
    s->long_tokens = s->input_tokens ? long_tokens / (double)s->input_tokens : 0;
    s->long_requests = t->count ? long_requests / t->count : 0;
}

static void count_minutes(struct tracestats *s, const struct sim_trace *t)
{
    const uint64_t minute_ns = UINT64_C(60000000000);
    uint64_t minutes = 0;
    uint32_t in_minute = 0;

    s->minute_least = UINT32_MAX;
    for (uint32_t i = 0; i < t->count; i++) {
        in_minute++;
        const bool last = i + 1 == t->count; /* its minute is not a whole one */
        if (!last &&
            t->requests[i + 1].arrival_ns / minute_ns == t->requests[i].arrival_ns / minute_ns)
            continue;
        if (!last || minutes == 0) {
            s->minute_least = in_minute < s->minute_least ? in_minute : s->minute_least;
            s->minute_most = in_minute > s->minute_most ? in_minute : s->minute_most;
            s->minute_mean += in_minute;
            minutes++;
        }
        in_minute = 0;
    }
    s->minute_least = minutes ? s->minute_least : 0;
    s->minute_mean /= minutes ? (double)minutes : 1;
}

static void count_arrivals(struct tracestats *s, const struct sim_trace *t, double *v)
{
    uint32_t burst = 0, bursts = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        burst++;
        if (i + 1 < t->count && t->requests[i + 1].arrival_ns == t->requests[i].arrival_ns)
            continue;
        v[bursts++] = burst;
        burst = 0;
    }
    s->stamps = bursts;
    s->burst = spread(v, bursts);
    for (uint32_t i = 0, n = 0; i + 1 < t->count; i++)
        if (t->requests[i + 1].arrival_ns != t->requests[i].arrival_ns)
            v[n++] = (double)(t->requests[i + 1].arrival_ns - t->requests[i].arrival_ns) / 1e9;
    const struct trace_spread gaps = spread(v, bursts ? bursts - 1 : 0);
    s->gap_mean_s = gaps.mean;
    s->gap_p50_s = gaps.p50;
    if (t->count)
        s->span_s =
            (double)(t->requests[t->count - 1].arrival_ns - t->requests[0].arrival_ns) / 1e9;
    s->rate = s->span_s > 0 ? t->count / s->span_s : 0;
    count_minutes(s, t);
}

/* -------------------------------------------------------------------------------------------- blocks */

struct use {
    uint32_t count, block;
};

static int most_used(const void *a, const void *b)
{
    const struct use *x = a, *y = b;

    if (x->count != y->count)
        return x->count > y->count ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

/* uses: [block_ids]; parents: likewise, a block's parent + 1, 0: it was not seen. */
static void count_uses(struct tracestats *s, const struct sim_trace *t, struct use *uses,
                       uint32_t *parents)
{
    uint64_t hits = 0;
    double hit_tokens = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        const struct sim_request *r = &t->requests[i];
        const uint32_t *ids = &t->blocks[r->first_block];
        uint32_t matched = 0;

        while (matched < r->block_count && uses[ids[matched]].count != 0)
            matched++;
        s->first_blocks += r->block_count > 0 && uses[ids[0]].count == 0;
        s->reusing += matched >= 2;
        for (uint32_t n = 0; n < r->block_count; n++) {
            const uint32_t parent = n ? ids[n - 1] + 2 : 1;

            if (parents[ids[n]] == 0)
                parents[ids[n]] = parent;
            else if (parents[ids[n]] != parent)
                s->two_parents++;
            uses[ids[n]].count++;
        }
        s->accesses += r->block_count;
        hits += matched;
        hit_tokens += (double)matched * t->block_tokens;
        s->hit_mean += (double)matched * t->block_tokens / r->input / t->count;
    }
    s->reusing /= t->count ? t->count : 1;
    s->hit_blocks = s->accesses ? (double)hits / (double)s->accesses : 0;
    s->hit_tokens = s->input_tokens ? hit_tokens / (double)s->input_tokens : 0;
}

static void rank_uses(struct tracestats *s, const struct sim_trace *t, struct use *uses)
{
    uint64_t sum = 0;
    double once = 0, two = 0, five = 0, ten = 0;

    qsort(uses, t->block_ids, sizeof(*uses), most_used);
    for (uint32_t i = 0; i < t->block_ids; i++) {
        sum += uses[i].count;
        once += uses[i].count <= 1;
        two += uses[i].count <= 2;
        five += uses[i].count <= 5;
        ten += uses[i].count <= 10;
        for (int k = 0; k < 4; k++) {
            if (i + 1 == RANKS[k])
                s->rank[k] = uses[i].count;
            if (i + 1 <= RANKS[k])
                s->covered[k] = (double)sum / (double)s->accesses;
            if (i + 1 == RANKS_NAMED[k])
                s->rank_block[k] = uses[i].block;
        }
    }
    s->unique = t->block_ids;
    const double n = t->block_ids ? t->block_ids : 1;
    s->used_once = once / n;
    s->used_2 = two / n;
    s->used_5 = five / n;
    s->used_10 = ten / n;
}

mc_status tracestats_make(const struct sim_trace *trace, const struct mc_cost *cost,
                          const struct mc_alloc *alloc, struct tracestats *stats_p)
{
    struct tracestats s = { .requests = trace->count };
    double *values = alloc_zeroed(alloc, trace->count, sizeof(*values));
    struct use *uses = alloc_zeroed(alloc, trace->block_ids, sizeof(*uses));
    uint32_t *parents = alloc_zeroed(alloc, trace->block_ids, sizeof(*parents));
    const bool enough = values && uses && parents;

    if (enough) {
        for (uint32_t i = 0; i < trace->block_ids; i++)
            uses[i].block = i;
        count_lengths(&s, trace, cost, values);
        count_arrivals(&s, trace, values);
        count_uses(&s, trace, uses, parents);
        rank_uses(&s, trace, uses);
        *stats_p = s;
    }
    alloc_free(alloc, parents);
    alloc_free(alloc, uses);
    alloc_free(alloc, values);
    return enough ? MC_OK : MC_E_NOMEM;
}

/* ---------------------------------------------------------------------------------------------- words */

static void spread_text(const char *name, const struct trace_spread *s, struct buf *out)
{
    buf_addf(
        out,
        "%-22s mean %.1f sd %.0f p10 %.0f p50 %.0f p90 %.0f p95 %.0f p99 %.0f max %.0f min %.0f\n",
        name, s->mean, s->sd, s->p10, s->p50, s->p90, s->p95, s->p99, s->most, s->least);
}

void tracestats_text(const struct tracestats *s, struct buf *out)
{
    buf_addf(out, "%-22s %u in %.1f s: %.3f a second\n", "requests", s->requests, s->span_s,
             s->rate);
    spread_text("prompt tokens", &s->input, out);
    spread_text("answer tokens", &s->output, out);
    spread_text("whole blocks", &s->blocks, out);
    buf_addf(out, "%-22s %.2f M prompt (%.1f k/s), %.2f M answer (%.0f/s)\n", "tokens",
             (double)s->input_tokens / 1e6,
             s->span_s > 0 ? (double)s->input_tokens / 1e3 / s->span_s : 0,
             (double)s->output_tokens / 1e6,
             s->span_s > 0 ? (double)s->output_tokens / s->span_s : 0);
    buf_addf(out, "%-22s %.1f of the means, %.0f mean of each\n", "prompt to answer",
             s->ratio_of_means, s->mean_of_ratios);
    buf_addf(out,
             "%-22s %u different; %.1f requests each, at most %.0f; gaps mean %.3f s p50 %.3f s\n",
             "time stamps", s->stamps, s->burst.mean, s->burst.most, s->gap_mean_s, s->gap_p50_s);
    buf_addf(out, "%-22s min %u mean %.0f max %u\n", "requests a minute", s->minute_least,
             s->minute_mean, s->minute_most);
    buf_addf(out, "%-22s %.1f %% of the requests, %.1f %% of the tokens\n", "prompts above 32k",
             100 * s->long_requests, 100 * s->long_tokens);
    buf_addf(out, "%-22s %llu accesses, %llu different, %u first blocks\n", "blocks",
             (unsigned long long)s->accesses, (unsigned long long)s->unique, s->first_blocks);
    buf_addf(out, "%-22s once %.1f %%, <= 2 %.1f %%, <= 5 %.1f %%, <= 10 %.1f %%\n", "blocks used",
             100 * s->used_once, 100 * s->used_2, 100 * s->used_5, 100 * s->used_10);
    buf_addf(out, "%-22s %u, %u, %u, %u\n", "uses of rank 1 .. 10^4", s->rank[0], s->rank[1],
             s->rank[2], s->rank[3]);
    buf_addf(out, "%-22s %.2f, %.1f, %.1f, %.1f %%\n", "accesses they cover", 100 * s->covered[0],
             100 * s->covered[1], 100 * s->covered[2], 100 * s->covered[3]);
    buf_addf(out, "%-22s %.4f of blocks, %.4f of tokens, %.4f mean of requests\n",
             "hits without bounds", s->hit_blocks, s->hit_tokens, s->hit_mean);
    buf_addf(out, "%-22s %.1f %%\n", "match >= 2 blocks", 100 * s->reusing);
    buf_addf(out, "%-22s %u%s\n", "two parents", s->two_parents,
             s->two_parents ? ": ids are not chained hashes" : "");
    buf_addf(out, "%-22s %.0f node-seconds: %.1f nodes busy\n", "prefill without cache",
             s->compute_s, s->span_s > 0 ? s->compute_s / s->span_s : 0);
}

static void spread_json(const char *name, const struct trace_spread *s, struct buf *out)
{
    buf_addf(
        out,
        "  \"%s\": { \"mean\": %.6g, \"sd\": %.6g, \"p10\": %.6g, \"p50\": %.6g, \"p90\": %.6g, "
        "\"p95\": %.6g, \"p99\": %.6g, \"max\": %.6g, \"min\": %.6g },\n",
        name, s->mean, s->sd, s->p10, s->p50, s->p90, s->p95, s->p99, s->most, s->least);
}

void tracestats_json(const struct tracestats *s, struct buf *out)
{
    buf_addf(out, "{ \"requests\": %u, \"span_s\": %.6g, \"rate\": %.6g,\n", s->requests, s->span_s,
             s->rate);
    spread_json("input", &s->input, out);
    spread_json("output", &s->output, out);
    spread_json("blocks", &s->blocks, out);
    spread_json("burst", &s->burst, out);
    buf_addf(out, "  \"input_tokens\": %llu, \"output_tokens\": %llu,\n",
             (unsigned long long)s->input_tokens, (unsigned long long)s->output_tokens);
    buf_addf(out, "  \"accesses\": %llu, \"unique\": %llu, \"first_blocks\": %u,\n",
             (unsigned long long)s->accesses, (unsigned long long)s->unique, s->first_blocks);
    buf_addf(out, "  \"used_once\": %.6g, \"used_2\": %.6g, \"used_5\": %.6g, \"used_10\": %.6g,\n",
             s->used_once, s->used_2, s->used_5, s->used_10);
    buf_addf(
        out,
        "  \"hit_blocks\": %.6g, \"hit_tokens\": %.6g, \"hit_mean\": %.6g, \"reusing\": %.6g,\n",
        s->hit_blocks, s->hit_tokens, s->hit_mean, s->reusing);
    buf_addf(out, "  \"two_parents\": %u, \"compute_s\": %.6g }\n", s->two_parents, s->compute_s);
}
