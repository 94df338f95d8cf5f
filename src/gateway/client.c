/* client.c - a request from its HTTP body to its last byte: carries out what its state machine wants. */
#define _POSIX_C_SOURCE 200809L
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "gateway/api_prompt.h"
#include "gateway/client_end.h"
#include "gateway/state.h"
#include "kv/identity.h"
#include "os/clock.h"
#include "os/random.h"

/* ------------------------------------------------------------------------- attempts and clients */

static struct client **bucket(gateway *g, uint64_t attempt)
{
    return &g->buckets[attempt % CLIENT_BUCKETS];
}

static struct client *find(gateway *g, uint64_t attempt)
{
    struct client *c = *bucket(g, attempt);

    while (c && c->attempt != attempt)
        c = c->bucket_next;
    return c;
}

static void unname(struct client *c)
{
    struct client **at = bucket(c->gateway, c->attempt);

    if (c->attempt == 0)
        return;
    while (*at != c)
        at = &(*at)->bucket_next;
    *at = c->bucket_next;
    c->attempt = 0;
}

/* From now on this attempt's messages are the client's; an earlier one's are nobody's. */
static void name(struct client *c, uint64_t attempt)
{
    struct client **at = bucket(c->gateway, attempt);

    unname(c);
    c->attempt = attempt;
    c->bucket_next = *at;
    *at = c;
}

static void client_close(struct client *c)
{
    gateway *g = c->gateway;

    unname(c);
    os_loop_timer_stop(g->loop, &c->timer);
    if (c->next)
        c->next->previous = c->previous;
    if (c->previous)
        c->previous->next = c->next;
    else
        g->clients = c->next;
    g->client_count--;
    metric_set(&g->metrics, METRIC_active, 0, g->client_count);
    answer_fini(&c->answer);
    api_request_fini(&c->api);
    alloc_free(g->alloc, c->keys);
    buf_fini(&c->out);
    alloc_free(g->alloc, c);
}

static struct client *client_open(gateway *g, http_request *http)
{
    struct client *c = alloc_zeroed(g->alloc, 1, sizeof(*c));

    if (!c)
        return NULL;
    *c = (struct client){ .gateway = g,
                          .http = http,
                          .next = g->clients,
                          .arrived_ns = os_now_ns(),
                          .out = BUF_INIT(g->alloc) };
    if (g->clients)
        g->clients->previous = c;
    g->clients = c;
    g->client_count++;
    metric_set(&g->metrics, METRIC_active, 0, g->client_count);
    return c;
}

/* ------------------------------------------------------------------------------- carrying out */

static void later(struct client *c, enum request_event_kind kind, uint64_t from, mc_status status)
{
    const struct pending pending = {
        .kind = kind, .attempt = c->attempt, .from = from, .status = status
    };

    gateway_later(c->gateway, &pending);
}

/* The client cannot be served on: known once, told after this outbox. */
static void give_up(struct client *c, mc_status status)
{
    if (!c->given_up)
        later(c, REQUEST_GIVE_UP, 0, status);
    c->given_up = true;
}

static void carry_sched(struct client *c, const struct mc_sched_event *event)
{
    if (event->kind == MC_EVENT_REQUEST)
        name(c, event->request.id);
    const mc_status status = gateway_schedule(c->gateway, event);
    if (status != MC_OK && event->kind == MC_EVENT_REQUEST)
        later(c, REQUEST_NOT_DECIDED, 0, status);
}

static void carry_reserve(struct client *c, uint64_t instance, struct wire_reserve *m)
{
    const struct worker *prefill = control_find(c->gateway, c->request.prefill);

    m->holder = prefill ? worker_incarnation(prefill) : 0;
    const mc_status status = control_ask(c->gateway, instance, WIRE_RESERVE, m, c->attempt);
    if (status != MC_OK)
        later(c, REQUEST_NOT_RESERVED, instance, status);
}

static void carry_prefill(struct client *c, uint64_t instance, struct wire_prefill *m)
{
    const struct worker *decode = control_find(c->gateway, c->request.decode);

    if (m->reservation && decode)
        m->decode_address = wire_text(worker_address(decode));
    m->holder = m->holder ? pool_node_of(c->gateway, m->holder) : 0;
    const mc_status status = control_ask(c->gateway, instance, WIRE_PREFILL, m, c->attempt);
    if (status != MC_OK)
        later(c, REQUEST_NOT_TAKEN, instance, status);
}

static void carry_tokens(struct client *c, const struct request_out_tokens *tokens)
{
    struct wire_list samples = tokens->message->samples;
    const uint32_t total = samples.count, end = tokens->skip + tokens->count;
    struct wire_sample sample;
    mc_status status = MC_OK;

    for (uint32_t i = 0; i < end && status == MC_OK && wire_sample_next(&samples, &sample); i++)
        if (i >= tokens->skip) {
            const bool ends = tokens->message->finish == 1 && i + 1 == total;
            status = answer_add(&c->answer, &sample, ends);
        }
    if (status != MC_OK)
        give_up(c, status);
}

static void carry_restart(struct client *c)
{
    const mc_status status = answer_restart(&c->answer);

    if (status != MC_OK)
        give_up(c, status);
}

static void carry(struct client *c, struct request_out *item)
{
    switch (item->kind) {
    case REQUEST_OUT_SCHED:
        carry_sched(c, &item->sched);
        break;
    case REQUEST_OUT_RESERVE:
        carry_reserve(c, item->instance, &item->reserve);
        break;
    case REQUEST_OUT_PREFILL:
        carry_prefill(c, item->instance, &item->prefill);
        break;
    case REQUEST_OUT_CANCEL:
        control_cancel(c->gateway, item->instance, &item->cancel);
        break;
    case REQUEST_OUT_TOKENS:
        carry_tokens(c, &item->tokens);
        break;
    case REQUEST_OUT_RESTART:
        carry_restart(c);
        break;
    case REQUEST_OUT_BEGIN:
        client_begin(c);
        break;
    case REQUEST_OUT_END:
        client_end(c, &item->end);
        break;
    }
}

static void set_timer(struct client *c)
{
    const uint64_t due_ns = request_due_ns(&c->request);
    os_loop *loop = c->gateway->loop;

    if (due_ns == UINT64_MAX)
        os_loop_timer_stop(loop, &c->timer);
    else if (os_loop_timer(loop, &c->timer, due_ns) != MC_OK)
        give_up(c, MC_E_NOMEM);
}

/* One step, and what it wants. The client is gone after its last one. */
static void step(struct client *c, const struct request_event *event)
{
    struct request_outbox outbox = { .count = 0 };

    request_step(&c->request, os_loop_now(c->gateway->loop), event, &outbox);
    for (uint32_t i = 0; i < outbox.count; i++)
        carry(c, &outbox.items[i]);
    if (c->request.phase == REQUEST_ENDED) {
        client_close(c);
        return;
    }
    const mc_status status = client_flush(c);
    if (status != MC_OK)
        give_up(c, status);
    set_timer(c);
}

/* ------------------------------------------------------------------------------------ four doors */

void client_event(gateway *g, const struct request_event *event)
{
    struct client *c = find(g, event->attempt);

    if (c)
        step(c, event);
    else
        metric_add(&g->metrics, METRIC_late, 0, 1);
    gateway_pump(g);
}

void client_deliver(gateway *g, const struct pending *p)
{
    struct client *c = find(g, p->attempt);
    struct request_event event = { .kind = p->kind, .attempt = p->attempt, .from = p->from };

    if (p->kind == REQUEST_DECIDED)
        event.decision = &p->decision;
    else
        event.failure = (struct request_failure){ .status = p->status,
                                                  .text = wire_text(mc_status_text(p->status)) };
    if (c)
        step(c, &event);
    else
        metric_add(&g->metrics, METRIC_late, 0, 1);
}

void clients_lost(gateway *g, uint64_t instance)
{
    const struct request_event event = { .kind = REQUEST_LOST, .from = instance };

    for (struct client *c = g->clients, *next; c; c = next) {
        next = c->next; /* a step ends no other client: decisions wait for the pump */
        step(c, &event);
    }
}

static void due(void *user, uint64_t now_ns)
{
    struct client *c = user;
    gateway *g = c->gateway;

    (void)now_ns;
    step(c, &(struct request_event){ .kind = REQUEST_TIME });
    gateway_pump(g);
}

static void hung_up(void *user)
{
    struct client *c = user;
    gateway *g = c->gateway;

    c->http = NULL;
    step(c, &(struct request_event){ .kind = REQUEST_CLIENT_GONE });
    gateway_pump(g);
}

void clients_close(gateway *g)
{
    const struct request_event event = {
        .kind = REQUEST_GIVE_UP,
        .failure = { .status = MC_E_CANCELLED, .text = wire_text("the gateway is shutting down") },
    };

    for (struct client *c = g->clients, *next; c; c = next) {
        next = c->next;
        step(c, &event);
    }
    assert(!g->clients);
}

/* --------------------------------------------------------------------------------- a new request */

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
    const struct worker *w = control_find_name(g, barred);
    if (!w)
        return api_fail(error, 400, "invalid_request_error", "no_such_worker", "X-Mooncake-Bar",
                        "X-Mooncake-Bar: no worker is called \"%.100s\"", barred);
    c->options.sched.barred = worker_instance(w);
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
    const uint32_t context_max = control_context_max(g);
    const uint64_t now_ns = os_loop_now(g->loop);

    if (!check_context(c, context_max, error) || !read_bar(c, error) || !name_blocks(c, error))
        return false;
    const uint32_t room = context_max - (uint32_t)c->api.id_count;
    const uint32_t tokens_max =
        c->api.max_tokens && c->api.max_tokens < room ? c->api.max_tokens : room;
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
    const struct answer_options options = {
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

    return answer_init(&c->answer, &options) == MC_OK || no_memory(error);
}

static bool check_door(gateway *g, struct api_error *error)
{
    if (g->draining)
        api_fail(error, 503, "service_unavailable_error", "draining", NULL,
                 "this gateway is shutting down: ask another one");
    else if (!g->has_fingerprint || !control_can_serve(g))
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

void client_take(gateway *g, http_request *http, enum api_kind kind)
{
    struct api_error error = { 0 };
    struct client *c = NULL;

    metric_add(&g->metrics, METRIC_requests, 0, 1);
    if (!check_door(g, &error))
        goto refuse;
    c = client_open(g, http);
    if (!c) {
        no_memory(&error);
        goto refuse;
    }
    if (!read_request(c, kind, &error))
        goto refuse;
    read_id(c);
    if (!prepare(c, &error) || !open_answer(c, &error))
        goto refuse;
    http_hold(http, hung_up, c);
    c->timer = (struct os_timer){ .due = due, .user = c };
    request_init(&c->request, &c->options);
    step(c, &(struct request_event){ .kind = REQUEST_START });
    gateway_pump(g);
    return;

refuse:
    if (c)
        client_close(c);
    metric_add(&g->metrics, METRIC_ended, GATEWAY_END_REFUSED, 1);
    route_error(g, http, &error);
}
