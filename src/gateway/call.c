/* call.c - an HTTP request and its answer: headers, parts of a stream, the whole, an error. */
#define _POSIX_C_SOURCE 200809L
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/alloc.h"
#include "gateway/client.h"
#include "gateway/slo.h"
#include "os/clock.h"

static const char JSON[] = "application/json", EVENTS[] = "text/event-stream; charset=utf-8";

/* ---------------------------------------------------------------------------------------- life */

struct call *gateway_call_open(gateway *g, http_request *http)
{
    struct call *call = alloc_zeroed(g->alloc, 1, sizeof(*call));

    if (call)
        *call = (struct call){
            .gateway = g, .http = http, .arrived_ns = os_now_ns(), .out = BUF_INIT(g->alloc)
        };
    return call;
}

void gateway_call_free(struct call *call)
{
    const struct mc_alloc *alloc = call->gateway->alloc;

    for (uint32_t i = 0; i < call->count; i++)
        api_answer_fini(&call->clients[i].answer);
    alloc_free(alloc, call->clients);
    api_head_fini(&call->head);
    api_request_fini(&call->api);
    buf_fini(&call->out);
    alloc_free(alloc, call);
}

/* ------------------------------------------------------------------------------------- headers */

static void add_number(struct call *call, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, value);
    http_header_add(call->http, name, text);
}

/* The names of the first that has begun, the sums of all that have: of a whole answer, all. */
static void add_placement(struct call *call)
{
    const struct client *first = NULL;
    uint64_t pulled_bytes = 0, reused_tokens = 0;

    for (uint32_t i = 0; i < call->count; i++) {
        const struct client *c = &call->clients[i];
        if (!c->begun)
            continue;
        first = first ? first : c;
        pulled_bytes += c->request.pulled_bytes;
        reused_tokens += c->request.reused_tokens;
    }
    assert(first); /* who is shown has begun */
    http_header_add(call->http, "X-Mooncake-Prefill", first->prefill);
    http_header_add(call->http, "X-Mooncake-Decode", first->decode);
    add_number(call, "X-Mooncake-Pulled-Bytes", pulled_bytes);
    add_number(call, "X-Mooncake-Reused-Tokens", reused_tokens);
    gateway_slo_headers(first);
}

void gateway_call_begin(struct call *call)
{
    if (!call->http || !call->api.stream || call->begun)
        return;
    call->begun = true;
    add_placement(call);
    http_header_add(call->http, "Cache-Control", "no-store");
    http_stream_begin(call->http, EVENTS);
    gateway_route_count(call->gateway, 200);
}

/* --------------------------------------------------------------------------------------- parts */

static struct api_answer_usage usage_of(const struct client *c)
{
    return (struct api_answer_usage){ c->prompt->id_count, c->answer.samples,
                                      c->request.reused_tokens };
}

static struct api_answer_usage usage_of_all(const struct call *call)
{
    struct api_answer_usage sum = { 0 };

    for (uint32_t i = 0; i < call->count; i++) {
        const struct api_answer_usage one = usage_of(&call->clients[i]);
        sum.prompt_tokens += one.prompt_tokens;
        sum.completion_tokens += one.completion_tokens;
        sum.cached_tokens += one.cached_tokens;
    }
    return sum;
}

/* Hand what is in `out` to the stream. */
static mc_status send_out(struct call *call)
{
    mc_status status = call->out.failed ? MC_E_NOMEM : MC_OK;

    if (status == MC_OK && call->out.size > 0)
        status = http_stream_add(call->http, call->out.data, call->out.size);
    buf_truncate(&call->out, 0);
    return status;
}

static void write_chunk(struct call *call, struct client *c)
{
    const struct api_answer_usage usage = usage_of(c);

    api_answer_write_chunk(&call->head, &c->answer, &usage, &call->out);
}

mc_status gateway_call_flush(struct call *call, struct client *c)
{
    if (!call->http || !call->api.stream || !c->begun || c->given_up ||
        !api_answer_has_news(&c->answer))
        return MC_OK;
    write_chunk(call, c);
    const mc_status status = send_out(call);
    if (status == MC_E_FULL)
        metric_add(&call->gateway->metrics, METRIC_slow, 0, 1);
    return status;
}

/* ---------------------------------------------------------------------------------------- ends */

/* Nobody is behind it any more. */
static void let_go(struct call *call)
{
    call->http = NULL;
}

void gateway_call_give_up(struct call *call)
{
    call->failed = true;
    let_go(call);
    for (uint32_t i = 0; i < call->count; i++)
        if (call->clients[i].open && call->clients[i].request.phase != REQUEST_ENDED)
            gateway_client_give_up(&call->clients[i], MC_E_CANCELLED);
}

/* Cut off is better than whole in appearance. */
static void cut_off(struct call *call)
{
    http_abort(call->http);
    gateway_call_give_up(call);
}

static void end_stream(struct call *call)
{
    http_stream_end(call->http);
    let_go(call);
}

static void end_whole(struct call *call)
{
    const struct api_answer_usage usage = usage_of_all(call);
    const struct api_answer *answers[API_PROMPTS_MAX];

    for (uint32_t i = 0; i < call->count; i++)
        answers[i] = &call->clients[i].answer;
    api_answer_write_whole(&call->head, answers, call->count, &usage, &call->out);
    if (call->out.failed) {
        cut_off(call);
        return;
    }
    add_placement(call);
    http_answer(call->http, 200, JSON, &call->out);
    gateway_route_count(call->gateway, 200);
    let_go(call);
}

void gateway_call_choice(struct call *call, struct client *c)
{
    const bool last = call->open == 1;

    if (!call->http)
        return;
    if (!call->api.stream) {
        if (last)
            end_whole(call);
        return;
    }
    write_chunk(call, c);
    if (last) {
        const struct api_answer_usage usage = usage_of_all(call);
        api_answer_write_done(&call->head, &usage, &call->out);
    }
    if (send_out(call) != MC_OK)
        cut_off(call);
    else if (last)
        end_stream(call);
}

/* In the middle of a stream the error is an event, and no [DONE] follows. */
void gateway_call_fail(struct call *call, const struct api_error *error)
{
    if (!call->http)
        return;
    if (!call->begun) {
        gateway_route_error(call->gateway, call->http, error);
        gateway_call_give_up(call);
        return;
    }
    api_answer_write_error(error, true, &call->out);
    if (send_out(call) == MC_OK) {
        end_stream(call);
        gateway_call_give_up(call);
    } else
        cut_off(call);
}
