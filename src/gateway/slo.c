/* slo.c - objectives in, refusals with figures out, goodput counted. */
#include "gateway/slo.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/prng.h"
#include "gateway/reason.h"
#include "os/clock.h"

static const double MS = 1e6, MS_MOST = 1e9;
static const uint64_t SECOND_NS = 1000000000;

/* ------------------------------------------------------------------------------------------ reading */

static bool read_ms(struct client *c, const char *name, uint64_t *ns_p, struct api_error *error)
{
    const char *text = http_header(c->call->http, name);
    char *end;

    if (!text)
        return true;
    const double ms = strtod(text, &end);
    if (end == text || *end != '\0' || strspn(text, "0123456789.") != strlen(text) || !(ms > 0) ||
        ms > MS_MOST)
        return api_fail(error, 400, "invalid_request_error", "invalid_value", name,
                        "%s: \"%.60s\" is not a number of milliseconds above 0", name, text);
    *ns_p = (uint64_t)(ms * MS + 0.5);
    if (*ns_p == 0)
        *ns_p = 1;
    return true;
}

/* Who asks the same again is known by it: the key's holder and the prompt. Not for ever: of this process. */
static uint64_t identity_of(const struct client *c)
{
    const char *key = http_header(c->call->http, "Authorization");
    uint64_t identity = prng_mix(c->gateway->started_s ^ (uintptr_t)c->gateway);

    for (; key && *key; key++)
        identity = prng_mix(identity ^ (uint8_t)*key);
    for (size_t i = 0; i < c->prompt->id_count; i++)
        identity = prng_mix(identity ^ c->prompt->ids[i]);
    return identity ? identity : 1;
}

bool gateway_slo_read(struct client *c, struct api_error *error)
{
    struct mc_sched_request *asked = &c->options.sched;

    if (!read_ms(c, "x-slo-ttft-ms", &asked->slo.ttft_ns, error) ||
        !read_ms(c, "x-slo-tpot-ms", &asked->slo.tbt_ns, error))
        return false;
    asked->identity = identity_of(c);
    asked->arrived_ns = c->call->arrived_ns;
    return true;
}

/* This request's, with the defaults. */
static struct mc_sched_slo slo_of(const struct client *c)
{
    const struct mc_sched_slo *own = &c->options.sched.slo;
    const struct gateway_options *o = &c->gateway->options;

    return (struct mc_sched_slo){ own->ttft_ns ? own->ttft_ns : o->slo_ttft_ns,
                                  own->tbt_ns ? own->tbt_ns : o->slo_tbt_ns };
}

/* ----------------------------------------------------------------------------------------- refusing */

static void write_figures(const struct client *c, const struct mc_decision *d, uint64_t retry_ns,
                          struct buf *out)
{
    const struct mc_prediction *p = &d->predicted;
    const struct mc_sched_slo slo = slo_of(c);
    char name[REASON_NAME];

    gateway_reason_name(d->reason, name);
    buf_addf(out, ",\"refusal\":{\"reason\":\"%s\",\"predicted\":{", name);
    buf_addf(out,
             "\"queue_ms\":%.3f,\"transfer_ms\":%.3f,\"prefill_ms\":%.3f,\"other_ms\":%.3f,"
             "\"ttft_ms\":%.3f,\"ttft_low_ms\":%.3f,\"ttft_high_ms\":%.3f,\"tbt_ms\":%.3f,"
             "\"tbt_high_ms\":%.3f,\"decode_load\":%.3f}",
             (double)p->queue_ns / MS, (double)p->transfer_ns / MS, (double)p->prefill_ns / MS,
             (double)p->other_ns / MS, (double)p->ttft_ns / MS, (double)p->ttft_low_ns / MS,
             (double)p->ttft_high_ns / MS, (double)p->tbt_ns / MS, (double)p->tbt_high_ns / MS,
             p->decode_load);
    buf_addf(out, ",\"slo\":{\"ttft_ms\":%.6g,\"tbt_ms\":%.6g}", (double)slo.ttft_ns / MS,
             (double)slo.tbt_ns / MS);
    buf_addf(out, ",\"retry_after_ms\":%" PRIu64 ",\"booked\":%s}", retry_ns / 1000000,
             d->flags & MC_DECISION_BOOKED ? "true" : "false");
}

static void write_message(const struct client *c, const struct mc_decision *d, uint64_t retry_ns,
                          char *text, size_t size)
{
    const struct mc_prediction *p = &d->predicted;
    const struct mc_sched_slo slo = slo_of(c);
    const unsigned long seconds = (unsigned long)((retry_ns + SECOND_NS - 1) / SECOND_NS);
    const char *words = gateway_reason_words(d->reason);

    if (d->reason == MC_REASON_TTFT_SLO)
        snprintf(
            text, size,
            "%s: expected after %.1f to %.1f ms, %.1f ms of them in the queue%s; the objective "
            "is %.6g ms. Come back in %lu s",
            words, (double)p->ttft_low_ns / MS, (double)p->ttft_high_ns / MS,
            (double)p->queue_ns / MS,
            p->ttft_high_ns > slo.ttft_ns ? "" : ", and room is kept for others",
            (double)slo.ttft_ns / MS, seconds);
    else if (d->reason == MC_REASON_TBT_SLO || d->reason == MC_REASON_DECODE_LOAD)
        snprintf(text, size,
                 "%s: one each %.2f to %.2f ms is expected; the objective is %.6g ms. Come back in "
                 "%lu s",
                 words, (double)p->tbt_ns / MS, (double)p->tbt_high_ns / MS,
                 (double)slo.tbt_ns / MS, seconds);
    else
        snprintf(text, size, "%s. Come back in %lu s", words, seconds);
}

static void add_headers(struct client *c, const struct mc_decision *d, uint64_t retry_ns)
{
    char text[32];

    snprintf(text, sizeof(text), "%" PRIu64, (retry_ns + SECOND_NS - 1) / SECOND_NS);
    http_header_add(c->call->http, "Retry-After", text);
    snprintf(text, sizeof(text), "%" PRIu64, (retry_ns + 999999) / 1000000);
    http_header_add(c->call->http, "retry-after-ms", text);
    gateway_reason_name(d->reason, text);
    http_header_add(c->call->http, "X-Mooncake-Refused", text);
}

static void write_down(const struct client *c, const struct mc_decision *d, uint64_t retry_ns)
{
    const struct mc_prediction *p = &d->predicted;
    const struct mc_sched_slo slo = slo_of(c);
    char name[REASON_NAME];

    gateway_reason_name(d->reason, name);
    gateway_log(&c->gateway->log, MC_LOG_INFO,
                "event=refused request=%s reason=%s prompt=%zu queue_us=%" PRIu64
                " transfer_us=%" PRIu64 " prefill_us=%" PRIu64 " ttft_us=%" PRIu64
                " ttft_high_us=%" PRIu64 " tbt_us=%" PRIu64 " tbt_high_us=%" PRIu64
                " decode_load=%.3f slo_ttft_us=%" PRIu64 " slo_tbt_us=%" PRIu64 " retry_ms=%" PRIu64
                " booked=%d back=%d",
                c->call->request_id, name, c->prompt->id_count, p->queue_ns / 1000,
                p->transfer_ns / 1000, p->prefill_ns / 1000, p->ttft_ns / 1000,
                p->ttft_high_ns / 1000, p->tbt_ns / 1000, p->tbt_high_ns / 1000, p->decode_load,
                slo.ttft_ns / 1000, slo.tbt_ns / 1000, retry_ns / 1000000,
                (d->flags & MC_DECISION_BOOKED) != 0, (d->flags & MC_DECISION_BACK) != 0);
}

static bool is_refusal(uint32_t reason)
{
    return reason == MC_REASON_TTFT_SLO || reason == MC_REASON_TBT_SLO ||
           reason == MC_REASON_DECODE_LOAD || reason == MC_REASON_DEADLINE ||
           reason == MC_REASON_KV_MEMORY || reason == MC_REASON_QUEUE_FULL ||
           reason == MC_REASON_TENANT;
}

bool gateway_slo_refuse(struct client *c, const struct request_out_end *end)
{
    const struct mc_decision *d = &c->request.decision;
    const uint64_t retry_ns = end->retry_after_ns ? end->retry_after_ns : SECOND_NS;
    struct buf body = BUF_INIT(c->gateway->alloc);
    char message[300];

    if (!c->call->http || c->call->begun || !is_refusal(end->reason) ||
        d->kind != MC_DECIDE_REFUSE || d->reason != end->reason)
        return false;
    write_down(c, d, retry_ns);
    write_message(c, d, retry_ns, message, sizeof(message));
    buf_add_text(&body, "{\"error\":{\"message\":");
    buf_add_json(&body, message, strlen(message));
    buf_add_text(&body, ",\"type\":\"rate_limit_error\",\"param\":null,\"code\":\"slow_down\"");
    write_figures(c, d, retry_ns, &body);
    buf_add_text(&body, "}}\n");
    add_headers(c, d, retry_ns);
    gateway_route_count(c->gateway, 429);
    if (body.failed) {
        buf_fini(&body);
        http_abort(c->call->http);
    } else
        http_answer(c->call->http, 429, "application/json", &body);
    gateway_call_give_up(c->call);
    return true;
}

void gateway_slo_headers(const struct client *c)
{
    const struct mc_decision *d = &c->request.decision;
    char text[32];

    if (d->predicted.ttft_ns != 0) {
        snprintf(text, sizeof(text), "%.3f", (double)d->predicted.ttft_ns / MS);
        http_header_add(c->call->http, "X-Mooncake-Predicted-TTFT-Ms", text);
    }
    if (d->soft != 0) {
        gateway_reason_name(d->soft, text);
        http_header_add(c->call->http, "X-Mooncake-Would-Refuse", text);
    }
}

/* ------------------------------------------------------------------------------------------ counting */

static uint32_t series_of(uint32_t reason)
{
    switch (reason) {
    case MC_REASON_TTFT_SLO:
        return GATEWAY_REFUSED_TTFT_SLO;
    case MC_REASON_TBT_SLO:
        return GATEWAY_REFUSED_TBT_SLO;
    case MC_REASON_DECODE_LOAD:
        return GATEWAY_REFUSED_DECODE_LOAD;
    case MC_REASON_KV_MEMORY:
        return GATEWAY_REFUSED_KV_MEMORY;
    case MC_REASON_DEADLINE:
        return GATEWAY_REFUSED_DEADLINE;
    case MC_REASON_QUEUE_FULL:
        return GATEWAY_REFUSED_QUEUE_FULL;
    case MC_REASON_NO_INSTANCE:
        return GATEWAY_REFUSED_NO_INSTANCE;
    case MC_REASON_TOO_LONG:
        return GATEWAY_REFUSED_TOO_LONG;
    default:
        return GATEWAY_REFUSED_OTHER;
    }
}

void gateway_slo_count_refusal(gateway *g, uint32_t reason, uint64_t count)
{
    metric_add(&g->metrics, METRIC_refused, series_of(reason), count);
}

static void count_error(struct metrics *m, uint64_t predicted_ns, uint64_t observed_ns)
{
    if (predicted_ns == 0 || observed_ns == 0)
        return;
    const double off = fabs((double)predicted_ns - (double)observed_ns) / (double)observed_ns;
    metric_observe(m, METRIC_ttft_error, 0, (uint64_t)(off * 1e6 + 0.5));
}

void gateway_slo_ended(struct client *c, const struct request_out_end *end)
{
    struct metrics *m = &c->gateway->metrics;
    const struct request_times *t = &c->request.times;
    const struct mc_sched_slo slo = slo_of(c);
    const uint32_t tokens = c->answer.samples;

    if (end->status != MC_OK) {
        if (end->reason)
            gateway_slo_count_refusal(c->gateway, end->reason, 1);
        return;
    }
    /* A stream shows its first token when the prefill's end has told its counters, too. */
    const uint64_t shown = t->first_ns > t->prefilled_ns ? t->first_ns : t->prefilled_ns;
    const uint64_t ttft = shown > c->call->arrived_ns ? shown - c->call->arrived_ns : 0;
    const uint64_t rest = t->ended_ns > t->first_ns ? t->ended_ns - t->first_ns : 0;
    const uint64_t tbt = tokens > 1 ? rest / (tokens - 1) : 0;
    const uint64_t longest = gaps_longest(&c->request.gaps);
    const bool late = slo.ttft_ns != 0 && ttft > slo.ttft_ns;
    const bool slow = slo.tbt_ns != 0 && tbt > slo.tbt_ns;

    metric_add(m, METRIC_slo_missed, GATEWAY_OBJECTIVE_TTFT, late);
    metric_add(m, METRIC_slo_missed, GATEWAY_OBJECTIVE_TBT, slow);
    metric_add(m, METRIC_slo_missed, GATEWAY_OBJECTIVE_TBT_LONGEST,
               slo.tbt_ns != 0 && longest > slo.tbt_ns);
    if (!late && !slow) {
        metric_add(m, METRIC_goodput_requests, 0, 1);
        metric_add(m, METRIC_goodput_tokens, 0, tokens);
    }
    if (tokens > 1) {
        metric_observe(m, METRIC_tbt, 0, tbt);
        metric_observe(m, METRIC_tbt_longest, 0, longest);
    }
    count_error(m, c->request.decision.predicted.ttft_ns, ttft);
}

/* The scheduler counts since open, and so does the table. */
static void follow(struct metrics *m, uint32_t row, uint64_t value)
{
    const uint64_t have = metric_value(m, row, 0);

    if (value > have)
        metric_add(m, row, 0, value - have);
}

void gateway_slo_refresh(gateway *g)
{
    struct metrics *m = &g->metrics;
    struct mc_sched_stats s;

    if (mc_sched_stats(g->sched, &s) != MC_OK)
        return;
    follow(m, METRIC_soft_refused, s.soft_refused);
    follow(m, METRIC_booked, s.booked);
    follow(m, METRIC_back, s.back);
    follow(m, METRIC_back_placed, s.back_placed);
    follow(m, METRIC_shadowed, s.shadowed);
    follow(m, METRIC_would_have_met, s.would_have_met);
    follow(m, METRIC_wasted_prefill, s.wasted_prefill_ns);
    metric_set(m, METRIC_ttft_error_p50, 0, (int64_t)(s.ttft_error_p50 * 1e6 + 0.5));
    metric_set(m, METRIC_ttft_error_p90, 0, (int64_t)(s.ttft_error_p90 * 1e6 + 0.5));
}
