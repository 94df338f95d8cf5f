/* client_new.c - a request as it comes in: what it asks becomes what the state machine is given. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "gateway/api_prompt.h"
#include "gateway/client.h"
#include "gateway/measure.h"
#include "gateway/slo.h"
#include "kv/identity.h"
#include "os/clock.h"
#include "os/random.h"

static bool no_memory(struct api_error *error)
{
    return api_fail(error, 503, "service_unavailable_error", "out_of_memory", NULL,
                    "out of memory for the request");
}

/* Ours, unless the client brought one that is fit for logs and headers. */
static void read_id(struct client *c)
{
    const char *theirs = http_header(c->http, "X-Request-Id");
    const size_t size = theirs ? strlen(theirs) : 0;

    snprintf(c->id, sizeof(c->id), "%s-%016" PRIx64, c->api.kind == API_CHAT ? "chatcmpl" : "cmpl",
             os_random_u64());
    if (size > 0 && size < sizeof(c->request_id) &&
        strspn(theirs, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") ==
            size)
        memcpy(c->request_id, theirs, size + 1);
    else
        snprintf(c->request_id, sizeof(c->request_id), "req-%016" PRIx64, os_random_u64());
}

static bool read_bar(struct client *c, struct api_error *error)
{
    gateway *g = c->gateway;
    const char *barred = g->options.debug_headers ? http_header(c->http, "X-Mooncake-Bar") : NULL;

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
    if (c->api.id_count < context_max)
        return true;
    return api_fail(error, 400, "invalid_request_error", "context_length_exceeded",
                    c->api.kind == API_CHAT ? "messages" : "prompt",
                    "the prompt has %zu tokens; the context holds %u, answer included",
                    c->api.id_count, context_max);
}

/* The keys of its whole blocks, which the scheduler looks for in the pool. */
static bool name_blocks(struct client *c, struct api_error *error)
{
    gateway *g = c->gateway;
    const size_t blocks = c->api.id_count / KV_PAGE_TOKENS;
    const size_t count = blocks < KEYS_MAX ? blocks : KEYS_MAX;
    struct mc_identity identity;

    c->keys = alloc_zeroed(g->alloc, count, sizeof(*c->keys));
    if (!c->keys)
        return no_memory(error);
    kv_root(&g->fingerprint, TENANT, (uint32_t)strlen(TENANT), NULL, 0, &identity);
    for (size_t i = 0; i < count; i++) {
        kv_chain_next(&identity, c->api.ids + i * KV_PAGE_TOKENS, &identity);
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
        .tokens_min = q->min_tokens,
        .ignore_eos = q->ignore_eos,
        .report = q->with_logprobs,
    };
}

static bool prepare(struct client *c, struct api_error *error)
{
    gateway *g = c->gateway;
    const uint32_t context_max = gateway_control_context_max(g);
    const uint64_t now_ns = os_loop_now(g->loop);

    if (!check_context(c, context_max, error) || !read_bar(c, error) || !name_blocks(c, error))
        return false;
    const uint32_t room = context_max - (uint32_t)c->api.id_count;
    const uint32_t tokens_max =
        c->api.max_tokens && c->api.max_tokens < room ? c->api.max_tokens : room;
    if (!gateway_slo_read(c, error))
        return false;
    c->options.sched.tokens = c->api.id_count;
    c->options.sched.output_max = tokens_max;
    c->options.sched.deadline_ns = g->options.request_ns ? now_ns + g->options.request_ns : 0;
    c->options.ids = &g->last_request;
    c->options.tokens = (struct wire_array){ c->api.ids, (uint32_t)c->api.id_count };
    c->options.sampling = sampling_of(&c->api, tokens_max);
    c->options.fingerprint = g->fingerprint;
    c->options.tenant = wire_text(TENANT);
    c->options.stream = c->api.stream;
    c->options.tries_max = g->options.tries_max;
    c->options.patience_ns = g->options.patience_ns;
    return true;
}

static bool open_answer(struct client *c, struct api_error *error)
{
    const struct api_answer_options options = {
        .alloc = c->gateway->alloc,
        .model = c->gateway->model,
        .kind = c->api.kind,
        .id = c->id,
        .model_name = c->gateway->defaults.model,
        .created_s = os_date_s(),
        .with_logprobs = c->api.with_logprobs,
        .with_ids = c->api.return_token_ids,
        .keep_special = c->api.keep_special,
        .with_usage = c->api.include_usage,
    };

    return api_answer_init(&c->answer, &options) == MC_OK || no_memory(error);
}

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
    error->retry_ns = UINT64_C(1000000000);
    return false;
}

static bool read_request(struct client *c, enum api_kind kind, struct api_error *error)
{
    gateway *g = c->gateway;
    size_t size;
    const char *body = http_body(c->http, &size);

    if (!api_read(kind, body, size, &g->defaults, g->alloc, &c->api, error) ||
        !api_encode(&c->api, g->model, error))
        return false;
    http_body_drop(c->http);
    api_request_settle(&c->api);
    return true;
}

void gateway_client_take(gateway *g, http_request *http, enum api_kind kind)
{
    struct api_error error = { 0 };
    struct client *c = NULL;

    metric_add(&g->metrics, METRIC_requests, 0, 1);
    if (!check_door(g, &error))
        goto refuse;
    c = gateway_client_open(g, http);
    if (!c) {
        no_memory(&error);
        goto refuse;
    }
    if (!read_request(c, kind, &error))
        goto refuse;
    read_id(c);
    if (!prepare(c, &error) || !open_answer(c, &error))
        goto refuse;
    gateway_measure_yield(g);
    gateway_client_start(c);
    return;

refuse:
    if (c)
        gateway_client_close(c);
    metric_add(&g->metrics, METRIC_ended, GATEWAY_END_REFUSED, 1);
    gateway_route_error(g, http, &error);
}
