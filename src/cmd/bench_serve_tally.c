/* bench_serve_tally.c - one request after another is added to counts, spreads and bins. */
#include "cmd/bench_serve_tally.h"

#include <stdio.h>
#include <string.h>

#include "base/alloc.h"

static const char *const names[BENCH_OUTCOMES] = { "answered", "refused", "failed", "abandoned" };

const char *bench_outcome_name(enum bench_outcome outcome)
{
    return names[outcome];
}

static struct percentile *spread(struct bench_tally *t, int number)
{
    struct percentile *const all[] = { &t->ttft,        &t->gap_mean,        &t->gap_longest,
                                       &t->gap_max,     &t->total,           &t->late,
                                       &t->retry_after, &t->prediction_error };

    return number < (int)(sizeof(all) / sizeof(all[0])) ? all[number] : NULL;
}

mc_status bench_tally_init(struct bench_tally *t, const struct bench_objectives *objectives,
                           uint64_t bin_ns, const struct mc_alloc *alloc)
{
    mc_status status = MC_OK;

    *t = (struct bench_tally){ .objectives = *objectives, .bin_ns = bin_ns ? bin_ns : 1000000000 };
    for (int i = 0; spread(t, i) && status == MC_OK; i++)
        status = percentile_init(spread(t, i), alloc);
    if (status != MC_OK)
        bench_tally_fini(t);
    return status;
}

void bench_tally_fini(struct bench_tally *t)
{
    for (int i = 0; spread(t, i); i++)
        percentile_fini(spread(t, i));
}

/* ------------------------------------------------------------------------------------------- bins */

static void add_bin(struct bench_bin *to, const struct bench_bin *from)
{
    to->sent += from->sent;
    for (int i = 0; i < BENCH_OUTCOMES; i++)
        to->ended[i] += from->ended[i];
    to->good += from->good;
    to->prompt_tokens += from->prompt_tokens;
    to->cached_tokens += from->cached_tokens;
    to->output_tokens += from->output_tokens;
    to->replay_prompt += from->replay_prompt;
    to->replay_tokens += from->replay_tokens;
    to->in_flight = from->in_flight > to->in_flight ? from->in_flight : to->in_flight;
}

/* Two become one. */
static void widen(struct bench_tally *t)
{
    for (uint32_t i = 0; i < t->bin_count; i++) {
        const struct bench_bin bin = t->bins[i];
        if (i % 2 == 0)
            t->bins[i / 2] = bin;
        else
            add_bin(&t->bins[i / 2], &bin);
    }
    const uint32_t count = (t->bin_count + 1) / 2;
    memset(&t->bins[count], 0, (TALLY_BINS - count) * sizeof(t->bins[0]));
    t->bin_count = count;
    t->bin_ns *= 2;
}

static struct bench_bin *bin_at(struct bench_tally *t, uint64_t at_ns)
{
    while (at_ns / t->bin_ns >= TALLY_BINS)
        widen(t);
    const uint32_t bin = (uint32_t)(at_ns / t->bin_ns);
    for (; t->bin_count <= bin; t->bin_count++) /* what was in flight then is so still */
        t->bins[t->bin_count].in_flight = t->in_flight;
    return &t->bins[bin];
}

/* --------------------------------------------------------------------------------------- requests */

void bench_tally_sent(struct bench_tally *t, const struct bench_record *r, bool again,
                      uint64_t late_ns)
{
    struct bench_bin *bin = bin_at(t, r->sent_ns);

    t->tries++;
    t->in_flight++;
    t->in_flight_most = t->in_flight > t->in_flight_most ? t->in_flight : t->in_flight_most;
    bin->in_flight = t->in_flight > bin->in_flight ? t->in_flight : bin->in_flight;
    if (again) {
        t->retried += r->tries == 2;
        return;
    }
    if (t->sent == 0)
        t->start_ns = r->sent_ns;
    t->sent++;
    t->cut += r->cut;
    t->input_tokens += r->input_tokens;
    bin->sent++;
    bin->replay_prompt += r->input_tokens;
    bin->replay_tokens += r->replay_tokens;
    if (late_ns != UINT64_MAX)
        percentile_add(&t->late, late_ns);
}

void bench_tally_waits(struct bench_tally *t, const struct bench_record *r)
{
    t->in_flight--;
    percentile_add(&t->retry_after, r->waited_ns);
}

uint64_t bench_record_gap_mean(const struct bench_record *r)
{
    const uint64_t tokens = r->output_tokens > r->pieces ? r->output_tokens : r->pieces;

    return tokens < 2 || r->last_ns < r->first_ns ? 0 : (r->last_ns - r->first_ns) / (tokens - 1);
}

static void count_answer(struct bench_tally *t, const struct bench_record *r, struct bench_bin *bin)
{
    const struct bench_objectives *o = &t->objectives;
    const uint64_t ttft = r->first_ns - r->sent_ns, mean = bench_record_gap_mean(r);
    const bool in_time = o->ttft_ns == 0 || ttft <= o->ttft_ns;
    const bool by_mean = o->tbt_ns == 0 || mean <= o->tbt_ns;
    const uint64_t longest = gaps_longest(&r->gaps);
    const bool by_longest = o->tbt_ns == 0 || longest <= o->tbt_ns;
    const bool by_max = o->tbt_ns == 0 || r->gap_max_ns <= o->tbt_ns;
    const bool fluent = o->by == BENCH_TBT_MAX       ? by_max
                        : o->by == BENCH_TBT_LONGEST ? by_longest
                                                     : by_mean;

    percentile_add(&t->ttft, ttft);
    percentile_add(&t->total, r->end_ns - r->sent_ns);
    if (r->pieces > 1) {
        percentile_add(&t->gap_mean, mean);
        percentile_add(&t->gap_longest, longest);
        percentile_add(&t->gap_max, r->gap_max_ns);
    }
    if (r->predicted_ns > 0)
        percentile_add(&t->prediction_error,
                       ttft > r->predicted_ns ? ttft - r->predicted_ns : r->predicted_ns - ttft);
    t->met_ttft += in_time;
    t->met_tbt += fluent;
    t->good += in_time && fluent;
    t->good_mean += in_time && by_mean;
    t->good_longest += in_time && by_longest;
    t->good_max += in_time && by_max;
    t->good_tokens += in_time && fluent ? r->output_tokens : 0;
    t->prompt_tokens += r->prompt_tokens;
    t->output_tokens += r->output_tokens;
    t->cached_known += r->cached ? r->prompt_tokens : 0;
    t->cached_tokens += r->cached ? r->cached_tokens : 0;
    t->replay_answered += r->replay_tokens;
    t->other_length += r->output_tokens != r->wanted_tokens;
    t->got_in += r->tries > 1;
    bin->good += in_time && fluent;
    bin->prompt_tokens += r->prompt_tokens;
    bin->cached_tokens += r->cached ? r->cached_tokens : 0;
    bin->output_tokens += r->output_tokens;
}

static void count_reason(struct bench_tally *t, enum bench_outcome outcome, const char *text)
{
    uint32_t i = 0;

    while (i < t->reason_count &&
           (t->reasons[i].outcome != outcome || strcmp(t->reasons[i].text, text) != 0))
        i++;
    if (i == TALLY_REASONS)
        i--; /* the last row is for whatever did not find one of its own */
    if (i == t->reason_count) {
        t->reason_count++;
        t->reasons[i].outcome = outcome;
        snprintf(t->reasons[i].text, sizeof(t->reasons[i].text), "%s",
                 i == TALLY_REASONS - 1 ? "others" : text);
    }
    t->reasons[i].count++;
}

void bench_tally_end(struct bench_tally *t, const struct bench_record *r)
{
    struct bench_bin *bin = bin_at(t, r->end_ns);

    t->ended[r->outcome]++;
    t->end_ns = r->end_ns > t->end_ns ? r->end_ns : t->end_ns;
    bin->ended[r->outcome]++;
    if (r->outcome == BENCH_ANSWERED)
        count_answer(t, r, bin);
    else
        count_reason(t, r->outcome, r->reason);
    if (r->outcome == BENCH_REFUSED && r->waited_ns > 0 && !r->waiting)
        percentile_add(&t->retry_after, r->waited_ns);
    t->in_flight -= !r->waiting;
}

bool bench_tally_closed(const struct bench_tally *t)
{
    uint64_t ended = 0;

    for (int i = 0; i < BENCH_OUTCOMES; i++)
        ended += t->ended[i];
    return ended == t->sent && t->in_flight == 0;
}

double bench_tally_seconds(const struct bench_tally *t)
{
    return t->end_ns > t->start_ns ? (double)(t->end_ns - t->start_ns) / 1e9 : 1e-9;
}
