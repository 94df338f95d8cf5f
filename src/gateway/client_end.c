/* client_end.c - what a client sees of its request, and what is written down when it ends. */
#define _POSIX_C_SOURCE 200809L
#include "gateway/client.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gateway/slo.h"
#include "os/clock.h"

static const char JSON[] = "application/json", EVENTS[] = "text/event-stream; charset=utf-8";

/* ------------------------------------------------------------------------------------- headers */

static void add_number(struct client *c, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    http_header_add(c->http, name, text);
}

static void add_placement(struct client *c)
{
    http_header_add(c->http, "X-Mooncake-Prefill", c->prefill);
    http_header_add(c->http, "X-Mooncake-Decode", c->decode);
    add_number(c, "X-Mooncake-Pulled-Bytes", c->request.pulled_bytes);
    add_number(c, "X-Mooncake-Reused-Tokens", c->request.reused_tokens);
}

static void copy_name(const gateway *g, uint64_t instance, char name[DEBUG_NAME])
{
    const struct worker *w = gateway_control_find(g, instance);

    snprintf(name, DEBUG_NAME, "%.*s", DEBUG_NAME - 1, w ? gateway_worker_name(w) : "gone");
}

void gateway_client_begin(struct client *c)
{
    const struct request *r = &c->request;

    copy_name(c->gateway, r->prefill, c->prefill);
    copy_name(c->gateway, r->decode ? r->decode : r->prefill, c->decode);
    c->begun = true;
    if (!c->http)
        return;
    http_header_add(c->http, "X-Request-Id", c->request_id);
    add_placement(c);
    gateway_slo_headers(c);
    if (c->api.stream) {
        http_header_add(c->http, "Cache-Control", "no-store");
        http_stream_begin(c->http, EVENTS);
        gateway_route_count(c->gateway, 200);
    }
}

/* --------------------------------------------------------------------------------------- parts */

/* Hand what is in `out` to the stream. */
static mc_status send_out(struct client *c)
{
    mc_status status = c->out.failed ? MC_E_NOMEM : MC_OK;

    if (status == MC_OK && c->out.size > 0)
        status = http_stream_add(c->http, c->out.data, c->out.size);
    buf_truncate(&c->out, 0);
    return status;
}

mc_status gateway_client_flush(struct client *c)
{
    if (!c->http || !c->begun || !c->api.stream || c->given_up || !api_answer_has_news(&c->answer))
        return MC_OK;
    api_answer_write_chunk(&c->answer, NULL, &c->out);
    const mc_status status = send_out(c);
    if (status == MC_E_FULL)
        metric_add(&c->gateway->metrics, METRIC_slow, 0, 1);
    return status;
}

/* ---------------------------------------------------------------------------------------- ends */

static const char *reason_text(uint32_t reason)
{
    switch (reason) {
#define REASON(name, number, text) \
    case number: \
        return text;
        MC_REASON_MAP(REASON)
#undef REASON
    default:
        return "refused";
    }
}

/* What went wrong, as OpenAI's clients know it. */
static void explain(const struct request_out_end *end, struct api_error *error)
{
    const struct wire_slice said =
        end->text.size || !end->reason ? end->text : wire_text(reason_text(end->reason));
    const int size = (int)(said.size < 300 ? said.size : 300);
    const char *text = said.size ? said.data : "";
    const char *words = mc_status_text(end->status);

    if (end->reason == MC_REASON_TOO_LONG)
        api_fail(error, 400, "invalid_request_error", "context_length_exceeded", NULL, "%.*s", size,
                 text);
    else if (end->reason == MC_REASON_NO_INSTANCE || end->reason == MC_REASON_INSTANCE_LOST)
        api_fail(error, 503, "service_unavailable_error", "no_workers", NULL, "%.*s", size, text);
    else if (end->reason)
        api_fail(error, 429, "rate_limit_error", "slow_down", NULL, "%.*s", size, text);
    else if (end->status == MC_E_TIMEOUT)
        api_fail(error, 504, "timeout_error", "deadline", NULL, "%s: %.*s", words, size, text);
    else if (end->status == MC_E_PEER)
        api_fail(error, 503, "service_unavailable_error", "worker_lost", NULL, "%s: %.*s", words,
                 size, text);
    else if (end->status == MC_E_FULL || end->status == MC_E_NOMEM)
        api_fail(error, 503, "service_unavailable_error", "overloaded", NULL, "%s: %.*s", words,
                 size, text);
    else if (end->status == MC_E_CANCELLED)
        api_fail(error, 503, "service_unavailable_error", "cancelled", NULL, "%s: %.*s", words,
                 size, text);
    else
        api_fail(error, 500, "server_error", "failed", NULL, "%s: %.*s", words, size, text);
    error->retry_ns = end->retry_after_ns;
    if (!error->retry_ns && (error->status == 503 || error->status == 429))
        error->retry_ns = UINT64_C(1000000000);
}

static const char *finish_name(uint32_t finish)
{
    return finish == 1 ? "stop" : "length";
}

static struct api_answer_usage usage_of(const struct client *c)
{
    return (struct api_answer_usage){ c->api.id_count, c->request.reused_tokens };
}

static void end_stream(struct client *c, uint32_t finish)
{
    const struct api_answer_usage usage = usage_of(c);

    api_answer_write_chunk(&c->answer, finish_name(finish), &c->out);
    api_answer_write_done(&c->answer, &usage, &c->out);
    if (send_out(c) == MC_OK)
        http_stream_end(c->http);
    else
        http_abort(c->http); /* cut off is better than whole in appearance */
}

static void end_whole(struct client *c, uint32_t finish)
{
    const struct api_answer_usage usage = usage_of(c);

    api_answer_write_whole(&c->answer, finish_name(finish), &usage, &c->out);
    if (c->out.failed) {
        http_abort(c->http);
        return;
    }
    http_answer(c->http, 200, JSON, &c->out);
    gateway_route_count(c->gateway, 200);
}

/* In the middle of a stream the error is an event, and no [DONE] follows. */
static void end_broken(struct client *c, const struct request_out_end *end)
{
    struct api_error error;

    if (gateway_slo_refuse(c, end))
        return;
    explain(end, &error);
    if (!c->begun || !c->api.stream) {
        if (!c->begun)
            http_header_add(c->http, "X-Request-Id", c->request_id);
        gateway_route_error(c->gateway, c->http, &error);
        return;
    }
    api_answer_write_error(&error, true, &c->out);
    if (send_out(c) == MC_OK)
        http_stream_end(c->http);
    else
        http_abort(c->http);
}

static enum gateway_end count_end(const struct client *c, const struct request_out_end *end)
{
    struct metrics *m = &c->gateway->metrics;
    const struct request *r = &c->request;
    enum gateway_end how = end->finish == 1 ? GATEWAY_END_STOP : GATEWAY_END_LENGTH;

    if (end->status != MC_OK)
        how = end->reason ? GATEWAY_END_REFUSED
              : !c->http  ? GATEWAY_END_CLIENT_LEFT
                          : GATEWAY_END_FAILED;
    metric_add(m, METRIC_ended, how, 1);
    metric_add(m, METRIC_tries, 0, r->tries);
    metric_observe(m, METRIC_whole, 0, os_now_ns() - c->arrived_ns);
    if (!c->begun)
        return how;
    metric_add(m, METRIC_prompt_tokens, 0, c->api.id_count);
    metric_add(m, METRIC_reused_tokens, 0, r->reused_tokens);
    metric_add(m, METRIC_output_tokens, 0, c->answer.samples);
    metric_add(m, METRIC_pulled_bytes, 0, r->pulled_bytes);
    metric_add(m, METRIC_pushed_bytes, 0, r->pushed_bytes);
    if (r->times.first_ns > r->times.started_ns)
        metric_observe(m, METRIC_ttft, 0, r->times.first_ns - r->times.started_ns);
    return how;
}

static uint64_t since(const struct request *r, uint64_t at_ns)
{
    return at_ns > r->times.started_ns ? (at_ns - r->times.started_ns) / 1000 : 0;
}

static void write_down(const struct client *c, const struct request_out_end *end,
                       enum gateway_end how)
{
    const struct request *r = &c->request;
    const struct request_times *t = &r->times;

    gateway_log(&c->gateway->log, MC_LOG_INFO,
                "event=request_end request=%s attempt=%" PRIu64
                " how=%s status=%s reason=%u decision_reason=%u prefill=%s decode=%s prompt=%zu "
                "output=%u reused=%" PRIu64 " pulled_bytes=%" PRIu64 " pushed_bytes=%" PRIu64
                " tries=%u waits=%u placed_us=%" PRIu64 " reserved_us=%" PRIu64 " taken_us=%" PRIu64
                " prefilled_us=%" PRIu64 " first_us=%" PRIu64 " end_us=%" PRIu64
                " queue_us=%" PRIu64 " pull_us=%" PRIu64 " compute_us=%" PRIu64
                " hand_off_us=%" PRIu64 " predicted_ttft_us=%" PRIu64,
                c->request_id, r->attempt, gateway_ends.values[how], mc_status_name(end->status),
                end->reason, r->decision.reason, c->prefill[0] ? c->prefill : "-",
                c->decode[0] ? c->decode : "-", c->api.id_count, c->answer.samples,
                r->reused_tokens, r->pulled_bytes, r->pushed_bytes, r->tries, r->waits,
                since(r, t->placed_ns), since(r, t->reserved_ns), since(r, t->taken_ns),
                since(r, t->prefilled_ns), since(r, t->first_ns),
                (os_now_ns() - c->arrived_ns) / 1000, r->queue_ns / 1000, r->pull_ns / 1000,
                r->compute_ns / 1000, r->hand_off_ns / 1000, r->decision.predicted.ttft_ns / 1000);
}

void gateway_client_end(struct client *c, const struct request_out_end *end)
{
    struct request_out_end last = *end;

    if (last.status == MC_OK) /* what the text held back is part of a whole answer */
        last.status = api_answer_finish(&c->answer);
    const enum gateway_end how = count_end(c, &last);
    gateway_slo_ended(c, &last);
    if (c->http && last.status == MC_OK && c->api.stream)
        end_stream(c, last.finish);
    else if (c->http && last.status == MC_OK)
        end_whole(c, last.finish);
    else if (c->http)
        end_broken(c, &last);
    c->http = NULL;
    write_down(c, &last, how);
}
