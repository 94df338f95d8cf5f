/* client.c - requests under way: their events, and carrying out what their state machines want. */
#define _POSIX_C_SOURCE 200809L
#include <assert.h>
#include <inttypes.h>

#include "base/alloc.h"
#include "gateway/client.h"
#include "os/clock.h"

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

static void close_call(struct call *call)
{
    if (call->open == 0 && call->walks == 0)
        gateway_call_free(call);
}

void gateway_client_close(struct client *c)
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
    alloc_free(g->alloc, c->keys);
    c->keys = NULL;
    c->open = false;
    c->call->open--;
    close_call(c->call);
}

struct client *gateway_client_open(struct call *call, uint32_t index)
{
    struct client *c = &call->clients[index];
    gateway *g = call->gateway;

    *c = (struct client){ .gateway = g,
                          .call = call,
                          .prompt = &call->api.prompts[index],
                          .next = g->clients,
                          .open = true };
    if (g->clients)
        g->clients->previous = c;
    g->clients = c;
    g->client_count++;
    call->open++;
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

/* Known once, told after this outbox. */
void gateway_client_give_up(struct client *c, mc_status status)
{
    if (!c->given_up)
        later(c, REQUEST_GIVE_UP, 0, status);
    c->given_up = true;
}

static void carry_sched(struct client *c, const struct mc_sched_event *event)
{
    if (event->kind == MC_EVENT_REQUEST) {
        name(c, event->request.id);
        if (c->given_up) /* what was said to the last attempt is nobody's */
            later(c, REQUEST_GIVE_UP, 0, MC_E_CANCELLED);
    }
    const mc_status status = gateway_schedule(c->gateway, event);
    if (status != MC_OK && event->kind == MC_EVENT_REQUEST)
        later(c, REQUEST_NOT_DECIDED, 0, status);
}

static void carry_reserve(struct client *c, uint64_t instance, struct wire_reserve *m)
{
    const struct worker *prefill = gateway_control_find(c->gateway, c->request.prefill);

    m->holder = prefill ? gateway_worker_incarnation(prefill) : 0;
    const mc_status status = gateway_control_ask(c->gateway, instance, WIRE_RESERVE, m, c->attempt);
    if (status != MC_OK)
        later(c, REQUEST_NOT_RESERVED, instance, status);
}

static void carry_prefill(struct client *c, uint64_t instance, struct wire_prefill *m)
{
    const struct worker *decode = gateway_control_find(c->gateway, c->request.decode);

    if (m->reservation && decode)
        m->decode_address = wire_text(gateway_worker_address(decode));
    m->holder = m->holder ? gateway_pool_node_of(c->gateway, m->holder) : 0;
    if (c->copy.attempt == c->attempt) {
        m->copy_tokens = c->copy.tokens;
        m->copy_node = c->copy.node;
    }
    const mc_status status = gateway_control_ask(c->gateway, instance, WIRE_PREFILL, m, c->attempt);
    if (status != MC_OK)
        later(c, REQUEST_NOT_TAKEN, instance, status);
}

static void carry_tokens(struct client *c, const struct request_out_tokens *tokens)
{
    struct wire_list samples = tokens->message->samples;
    const uint32_t total = samples.count, end = tokens->skip + tokens->count;
    struct wire_sample sample;
    const bool goes_on = !c->answer.stopped && tokens->message->finish == 0;
    mc_status status = MC_OK;

    for (uint32_t i = 0; i < end && status == MC_OK && wire_sample_next(&samples, &sample); i++)
        if (i >= tokens->skip) {
            const bool ends = tokens->message->finish == 1 && i + 1 == total;
            status = api_answer_add(&c->answer, &sample, ends);
        }
    if (status != MC_OK)
        gateway_client_give_up(c, status);
    else if (c->answer.stopped && goes_on) /* at the worker it does, unless it is told */
        later(c, REQUEST_STOP, 0, MC_OK);
}

static void carry_restart(struct client *c)
{
    const mc_status status = api_answer_restart(&c->answer);

    if (status != MC_OK)
        gateway_client_give_up(c, status);
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
        gateway_control_cancel(c->gateway, item->instance, &item->cancel);
        break;
    case REQUEST_OUT_TOKENS:
        carry_tokens(c, &item->tokens);
        break;
    case REQUEST_OUT_RESTART:
        carry_restart(c);
        break;
    case REQUEST_OUT_BEGIN:
        gateway_client_begin(c);
        break;
    case REQUEST_OUT_END:
        gateway_client_end(c, &item->end);
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
        gateway_client_give_up(c, MC_E_NOMEM);
}

/* One step, and what it wants. The client is gone after its last one. */
static void step(struct client *c, const struct request_event *event)
{
    struct request_outbox outbox = { .count = 0 };

    request_step(&c->request, os_loop_now(c->gateway->loop), event, &outbox);
    for (uint32_t i = 0; i < outbox.count; i++)
        carry(c, &outbox.items[i]);
    gateway_live_step(c->gateway, c, event);
    if (c->request.phase == REQUEST_ENDED) {
        gateway_client_close(c);
        return;
    }
    const mc_status status = gateway_call_flush(c->call, c);
    if (status != MC_OK)
        gateway_client_give_up(c, status);
    set_timer(c);
}

/* ------------------------------------------------------------------------------------ four doors */

void gateway_client_event(gateway *g, const struct request_event *event)
{
    struct client *c = find(g, event->attempt);

    if (c)
        step(c, event);
    else
        metric_add(&g->metrics, METRIC_late, 0, 1);
    gateway_pump(g);
}

/* Only of what the pool has: workers hold nothing for others. */
void gateway_client_copy(gateway *g, uint64_t attempt, const struct mc_decision *d)
{
    struct client *c = find(g, attempt);
    const uint64_t node = gateway_pool_node_of(g, d->prefill);

    if (!c || node == 0)
        return;
    c->copy.attempt = attempt;
    c->copy.tokens = d->pull_tokens;
    c->copy.node = node;
    metric_add(&g->metrics, METRIC_copies, 0, 1);
    gateway_log(&g->log, MC_LOG_INFO,
                "event=copy_ordered request=%s attempt=%" PRIu64 " tokens=%" PRIu64 " from=%" PRIu64
                " to=%" PRIu64 " lost_us=%.0f reason=hot_prefix",
                c->call->request_id, attempt, d->pull_tokens, gateway_pool_node_of(g, d->holder),
                node, d->score * 1e6);
}

void gateway_client_deliver(gateway *g, const struct pending *p)
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

void gateway_clients_lost(gateway *g, uint64_t instance)
{
    const struct request_event event = { .kind = REQUEST_LOST, .from = instance };

    for (struct client *c = g->clients, *next; c; c = next) {
        next =
            c->next; /* a step ends no other client: what is decided or given up waits for the pump */
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

/* To each that is under way. The call may be gone on return. */
static void step_all(struct call *call, enum request_event_kind kind)
{
    call->walks++;
    for (uint32_t i = 0; i < call->count; i++)
        if (call->clients[i].open)
            step(&call->clients[i], &(struct request_event){ .kind = kind });
    call->walks--;
    close_call(call);
}

static void hung_up(void *user)
{
    struct call *call = user;
    gateway *g = call->gateway;

    call->http = NULL;
    step_all(call, REQUEST_CLIENT_GONE);
    gateway_pump(g);
}

void gateway_clients_start(struct call *call)
{
    gateway *g = call->gateway;

    http_hold(call->http, hung_up, call);
    for (uint32_t i = 0; i < call->count; i++) {
        struct client *c = &call->clients[i];
        c->timer = (struct os_timer){ .due = due, .user = c };
        request_init(&c->request, &c->options);
        gateway_live_begin(g, c);
    }
    step_all(call, REQUEST_START);
    gateway_pump(g);
}

void gateway_clients_close(gateway *g)
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
