/* client_end.c - how a request ends: what its client is told, what is counted and written down. */
#define _POSIX_C_SOURCE 200809L
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "gateway/client.h"
#include "gateway/reason.h"
#include "gateway/slo.h"
#include "os/clock.h"

/* ------------------------------------------------------------------------------------ beginning */

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
    gateway_call_begin(c->call);
}

/* ---------------------------------------------------------------------------------------- ends */

/* What went wrong, as OpenAI's clients know it. */
static void explain(const struct request_out_end *end, struct api_error *error)
{
    const struct wire_slice said =
        end->text.size || !end->reason ? end->text : wire_text(gateway_reason_words(end->reason));
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
    error->reason = end->reason;
    if (!error->reason && end->status == MC_E_FULL) /* a worker said so */
        error->reason = MC_REASON_KV_MEMORY;
    error->retry_ns = end->retry_after_ns;
    if (!error->retry_ns && (error->status == 503 || error->status == 429))
        error->retry_ns = UINT64_C(1000000000);
}

static enum gateway_end count_end(const struct client *c, const struct request_out_end *end)
{
    struct metrics *m = &c->gateway->metrics;
    const struct request *r = &c->request;
    enum gateway_end how =
        end->finish == 1 || c->answer.stopped ? GATEWAY_END_STOP : GATEWAY_END_LENGTH;

    if (end->status != MC_OK)
        how = end->reason                          ? GATEWAY_END_REFUSED
              : !c->call->http && !c->call->failed ? GATEWAY_END_CLIENT_LEFT
                                                   : GATEWAY_END_FAILED;
    metric_add(m, METRIC_ended, how, 1);
    metric_add(m, METRIC_tries, 0, r->tries);
    metric_observe(m, METRIC_whole, 0, os_now_ns() - c->call->arrived_ns);
    if (!c->begun)
        return how;
    metric_add(m, METRIC_prompt_tokens, 0, c->prompt->id_count);
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

/* Why it ended, and why it was placed where it was: "none" where nobody said. */
static void name_reasons(const struct client *c, uint32_t why, char ended[REASON_NAME],
                         char decided[REASON_NAME])
{
    gateway_reason_name(why, ended);
    gateway_reason_name(c->request.decision.reason, decided);
}

static void write_down(const struct client *c, const struct request_out_end *end, uint32_t why,
                       enum gateway_end how)
{
    const struct request *r = &c->request;
    const struct request_times *t = &r->times;
    char ended[REASON_NAME], decided[REASON_NAME];

    name_reasons(c, why, ended, decided);
    gateway_log(&c->gateway->log, MC_LOG_INFO,
                "event=request_end request=%s choice=%u attempt=%" PRIu64
                " how=%s status=%s reason=%s decision_reason=%s prefill=%s decode=%s prompt=%zu "
                "output=%u reused=%" PRIu64 " pulled_bytes=%" PRIu64 " pushed_bytes=%" PRIu64
                " tries=%u waits=%u placed_us=%" PRIu64 " reserved_us=%" PRIu64 " taken_us=%" PRIu64
                " prefilled_us=%" PRIu64 " first_us=%" PRIu64 " end_us=%" PRIu64
                " queue_us=%" PRIu64 " pull_us=%" PRIu64 " compute_us=%" PRIu64
                " hand_off_us=%" PRIu64 " predicted_ttft_us=%" PRIu64 " predicted_tbt_us=%" PRIu64
                " gaps_us=%" PRIu64,
                c->call->request_id, c->answer.o.index, r->attempt, gateway_ends.values[how],
                mc_status_name(end->status), ended, decided, c->prefill[0] ? c->prefill : "-",
                c->decode[0] ? c->decode : "-", c->prompt->id_count, c->answer.samples,
                r->reused_tokens, r->pulled_bytes, r->pushed_bytes, r->tries, r->waits,
                since(r, t->placed_ns), since(r, t->reserved_ns), since(r, t->taken_ns),
                since(r, t->prefilled_ns), since(r, t->first_ns),
                (os_now_ns() - c->call->arrived_ns) / 1000, r->queue_ns / 1000, r->pull_ns / 1000,
                r->compute_ns / 1000, r->hand_off_ns / 1000, r->decision.predicted.ttft_ns / 1000,
                r->decision.predicted.tbt_ns / 1000, gaps_longest(&r->gaps) / 1000);
}

void gateway_client_end(struct client *c, const struct request_out_end *end)
{
    struct request_out_end last = *end;
    struct api_error error = { 0 };

    if (last.status == MC_OK) /* what was held back is part of the answer */
        last.status = api_answer_finish(&c->answer, last.finish == 1);
    const enum gateway_end how = count_end(c, &last);
    gateway_slo_ended(c, &last);
    gateway_live_end(c->gateway, c, &last, how);
    if (last.status == MC_OK)
        gateway_call_choice(c->call, c);
    else if (!gateway_slo_refuse(c, &last)) {
        explain(&last, &error);
        gateway_call_fail(c->call, &error);
    }
    write_down(c, &last, error.reason ? error.reason : last.reason, how);
}
