/* client_new.c - a request as it comes in: what it asks becomes what the state machine is given. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "gateway/api_prompt.h"
#include "gateway/client.h"
#include "gateway/measure.h"
#include "gateway/reason.h"
#include "gateway/slo.h"
#include "kv/identity.h"
#include "os/clock.h"
#include "os/random.h"

static void read_request_id(struct call *call)
{
    snprintf(call->request_id, sizeof(call->request_id), "%s", http_request_id(call->http));
}

static bool read_bar(struct client *c, struct api_error *error)
{
    gateway *g = c->gateway;
    const char *barred =
        g->options.debug_headers ? http_header(c->call->http, "X-Mooncake-Bar") : NULL;

    if (!barred)
        return true;
    const struct worker *w = gateway_control_find_name(g, barred);
    if (!w)
        return api_fail(error, 400, "invalid_request_error", "no_such_worker", "X-Mooncake-Bar",
                        "X-Mooncake-Bar: no worker is called \"%.100s\"", barred);
    c->options.sched.barred = gateway_worker_instance(w);
    return true;
}

static bool check_context(const struct client *c, uint32_t context_max, struct api_error *error)
{
    const struct api_request *q = &c->call->api;
    char which[24] = "";

    if (c->prompt->id_count < context_max)
        return true;
    if (q->prompt_count > 1)
        snprintf(which, sizeof(which), "[%zu]", (size_t)(c->prompt - q->prompts));
    return api_fail(error, 400, "invalid_request_error", "context_length_exceeded",
                    q->kind == API_CHAT ? "messages" : "prompt",
                    "the prompt%s has %zu tokens; the context holds %u, answer included", which,
                    c->prompt->id_count, context_max);
}

/* The keys of its whole blocks, which the scheduler looks for in the pool. */
static bool name_blocks(struct client *c, struct api_error *error)
{
    gateway *g = c->gateway;
    const struct api_request *q = &c->call->api;
    const size_t blocks = c->prompt->id_count / KV_PAGE_TOKENS;
    const size_t count = blocks < KEYS_MAX ? blocks : KEYS_MAX;
    struct mc_identity identity;

    c->keys = alloc_zeroed(g->alloc, count, sizeof(*c->keys));
    if (!c->keys)
        return api_no_memory(error);
    kv_root(&g->fingerprint, TENANT, (uint32_t)strlen(TENANT), q->salt, (uint32_t)q->salt_size,
            &identity);
    for (size_t i = 0; i < count; i++) {
        kv_chain_next(&identity, c->prompt->ids + i * KV_PAGE_TOKENS, &identity);
        c->keys[i] = kv_key(&identity);
    }
    c->options.sched.keys = c->keys;
    c->options.sched.key_count = count;
    return true;
}

static struct wire_sampling sampling_of(const struct api_request *q, uint32_t tokens_max)
{
    const struct mc_sampling *s = &q->sampling;

    return (struct wire_sampling){
        .temperature = s->temperature,
        .top_p = s->top_p,
        .top_k = s->top_k,
        .seed = q->has_seed ? s->seed : os_random_u64(),
        .logprobs = s->logprobs,
        .tokens_max = tokens_max,
        .tokens_min = q->min_tokens < tokens_max ? q->min_tokens : tokens_max,
        .ignore_eos = q->ignore_eos,
        .report = q->with_logprobs,
        /* A worker takes them for ends of text, which ignore_eos forbids: then they are watched here. */
        .stop_tokens = { q->stop_tokens, q->ignore_eos ? 0 : (uint32_t)q->stop_token_count },
    };
}

static bool prepare(struct client *c, struct api_error *error)
{
    gateway *g = c->gateway;
    const struct api_request *q = &c->call->api;
    const size_t id_count = c->prompt->id_count;
    const uint32_t context_max = gateway_control_context_max(g);
    const uint64_t now_ns = os_loop_now(g->loop);

    if (!check_context(c, context_max, error) || !read_bar(c, error) || !name_blocks(c, error))
        return false;
    if (!gateway_slo_read(c, error))
        return false;
    const uint32_t room = context_max - (uint32_t)id_count;
    const uint32_t tokens_max = q->max_tokens && q->max_tokens < room ? q->max_tokens : room;
    c->options.sched.tokens = id_count;
    c->options.sched.output_max = tokens_max;
    c->options.sched.deadline_ns = g->options.request_ns ? now_ns + g->options.request_ns : 0;
    c->options.ids = &g->last_request;
    c->options.tokens = (struct wire_array){ c->prompt->ids, (uint32_t)id_count };
    c->options.sampling = sampling_of(q, tokens_max);
    c->options.fingerprint = g->fingerprint;
    c->options.salt = (struct wire_slice){ q->salt, (uint32_t)q->salt_size };
    c->options.tenant = wire_text(TENANT);
    c->options.stream = q->stream;
    c->options.tries_max = g->options.tries_max;
    c->options.patience_ns = g->options.patience_ns;
    return true;
}

static bool open_answer(struct client *c, uint32_t index, struct api_error *error)
{
    const struct api_request *q = &c->call->api;
    const struct api_answer_options options = {
        .alloc = c->gateway->alloc,
        .model = c->gateway->model,
        .kind = q->kind,
        .index = index,
        .with_logprobs = q->with_logprobs,
        .with_ids = q->return_token_ids,
        .keep_special = q->keep_special,
        .stops = &q->stops,
        .stop_tokens = q->stop_tokens,
        .stop_token_count = q->stop_token_count,
        .watch_tokens = q->ignore_eos,
        .show_stop = q->show_stop,
        .min_tokens = q->min_tokens,
    };

    return api_answer_init(&c->answer, &options) == MC_OK || api_no_memory(error);
}

/* ------------------------------------------------------------------------------------- the call */

static bool check_door(gateway *g, struct api_error *error)
{
    if (g->draining)
        api_fail(error, 503, "service_unavailable_error", "draining", NULL,
                 "this gateway is shutting down: ask another one");
    else if (!g->has_fingerprint) /* none was ever there; one that is lost is waited for */
        api_fail(error, 503, "service_unavailable_error", "no_workers", NULL,
                 "no workers are there to prefill and to decode; they may be starting");
    else if (g->client_count >= g->options.requests_max)
        api_fail(error, 429, "rate_limit_error", "slow_down", NULL,
                 "%u requests are under way, as many as are taken", g->client_count);
    else
        return true;
    if (!g->draining)
        error->reason = error->status == 429 ? MC_REASON_QUEUE_FULL : MC_REASON_NO_INSTANCE;
    error->retry_ns = UINT64_C(1000000000);
    return false;
}

/* Each prompt counts as a request. */
static bool check_room(const struct call *call, struct api_error *error)
{
    const gateway *g = call->gateway;
    const size_t count = call->api.prompt_count;

    if (count > g->options.requests_max)
        return api_fail(error, 400, "invalid_request_error", "out_of_range", "prompt",
                        "prompt: %zu prompts; this gateway takes %u at a time", count,
                        g->options.requests_max);
    if (count <= g->options.requests_max - g->client_count)
        return true;
    api_fail(error, 429, "rate_limit_error", "slow_down", NULL,
             "%zu prompts, and %u requests are under way: %u are taken at a time", count,
             g->client_count, g->options.requests_max);
    error->reason = MC_REASON_QUEUE_FULL;
    error->retry_ns = UINT64_C(1000000000);
    return false;
}

static bool check_stops(const struct call *call, struct api_error *error)
{
    return call->api.stops.count == 0 || call->gateway->info.has_tokenizer ||
           api_fail(error, 400, "invalid_request_error", "unsupported", "stop",
                    "stop: this model has no tokenizer, its answers are token ids: use "
                    "stop_token_ids");
}

static bool read_request(struct call *call, enum api_kind kind, struct api_error *error)
{
    gateway *g = call->gateway;
    size_t size;
    const char *body = http_body(call->http, &size);

    if (!api_read(kind, body, size, &g->defaults, g->alloc, &call->api, error) ||
        !check_stops(call, error) || !check_room(call, error) ||
        !api_may_fit(&call->api, g->defaults.token_bytes_max, gateway_control_context_max(g),
                     error) ||
        !api_encode(&call->api, g->model, error))
        return false;
    http_body_drop(call->http);
    api_request_settle(&call->api);
    return true;
}

static bool open_head(struct call *call, struct api_error *error)
{
    const struct api_request *q = &call->api;
    char id[40];

    snprintf(id, sizeof(id), "%s-%016" PRIx64, q->kind == API_CHAT ? "chatcmpl" : "cmpl",
             os_random_u64());
    if (api_head_init(&call->head, call->gateway->alloc, q->kind, q->stream, id,
                      call->gateway->defaults.model, os_date_s()) != MC_OK)
        return api_no_memory(error);
    call->head.with_usage = q->include_usage;
    call->head.continuous_usage = q->continuous_usage;
    return true;
}

static bool open_clients(struct call *call, struct api_error *error)
{
    const uint32_t count = (uint32_t)call->api.prompt_count;

    call->clients = alloc_zeroed(call->gateway->alloc, count, sizeof(*call->clients));
    if (!call->clients)
        return api_no_memory(error);
    call->count = count;
    for (uint32_t i = 0; i < count; i++) {
        struct client *c = gateway_client_open(call, i);
        if (!prepare(c, error) || !open_answer(c, i, error))
            return false;
    }
    return true;
}

/* It was not started. */
static void drop(struct call *call)
{
    call->walks++;
    for (uint32_t i = 0; i < call->count; i++)
        if (call->clients[i].open)
            gateway_client_close(&call->clients[i]);
    gateway_call_free(call);
}

/* Turned away before anybody was asked. What was asked wrongly is the client's affair. */
static void write_refusal(gateway *g, const http_request *http, const struct api_error *error)
{
    char name[REASON_NAME];

    if (error->status != 429 && error->status != 503)
        return;
    gateway_reason_name(error->reason, name);
    gateway_log(&g->log, MC_LOG_INFO,
                "event=refused request=%s reason=%s status=%u active=%u retry_ms=%" PRIu64,
                http_request_id(http), error->reason ? name : error->code, error->status,
                g->client_count, error->retry_ns / 1000000);
}

void gateway_client_take(gateway *g, http_request *http, enum api_kind kind)
{
    struct api_error error = { 0 };
    struct call *call = NULL;
    uint64_t count = 1; /* each prompt counts */

    if (!check_door(g, &error))
        goto refuse;
    call = gateway_call_open(g, http);
    if (!call) {
        api_no_memory(&error);
        goto refuse;
    }
    read_request_id(call);
    if (!read_request(call, kind, &error) || !open_head(call, &error) ||
        !open_clients(call, &error))
        goto refuse;
    metric_add(&g->metrics, METRIC_requests, 0, call->count);
    gateway_measure_yield(g);
    gateway_clients_start(call);
    return;

refuse:
    if (call) {
        count = call->api.prompt_count ? call->api.prompt_count : 1;
        drop(call);
    }
    metric_add(&g->metrics, METRIC_requests, 0, count);
    metric_add(&g->metrics, METRIC_ended, GATEWAY_END_REFUSED, count);
    if (error.reason)
        gateway_slo_count_refusal(g, error.reason, count);
    write_refusal(g, http, &error);
    gateway_live_refused(g, &error);
    gateway_route_error(g, http, &error);
}
