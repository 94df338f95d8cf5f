/* gateway.c - the gateway's life, and the pump between its scheduler and its requests. */
#include "gateway/gateway.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "gateway/measure.h"
#include "gateway/slo.h"
#include "gateway/live.h"
#include "gateway/api_prompt.h"
#include "gateway/state.h"
#include "os/clock.h"
#include "os/random.h"

enum { DECISIONS_AT_ONCE = 16, PENDING_EACH = 4, PENDING_SPARE = 64 };

/* ------------------------------------------------------------------------------------- the pump */

void gateway_later(gateway *g, const struct pending *pending)
{
    if (g->pending_count == g->pending_max) { /* cannot be: each request waits for few things */
        metric_add(&g->metrics, METRIC_decisions_dropped, 0, 1);
        gateway_log(&g->log, MC_LOG_ERROR, "event=decision_dropped pending=%u", g->pending_count);
        return;
    }
    g->pending[(g->pending_first + g->pending_count++) % g->pending_max] = *pending;
}

mc_status gateway_schedule(gateway *g, const struct mc_sched_event *event)
{
    struct mc_decision decisions[DECISIONS_AT_ONCE];
    size_t count;

    const uint64_t now_ns = os_loop_now(g->loop);
    const mc_status status = mc_sched_step(g->sched, now_ns, event);
    recorder_take(g->recorder, now_ns, event, status);
    while (mc_sched_take(g->sched, decisions, DECISIONS_AT_ONCE, &count) == MC_OK)
        for (size_t i = 0; i < count; i++) {
            recorder_take_decision(g->recorder, &decisions[i]);
            const struct pending pending = { .kind = REQUEST_DECIDED,
                                             .attempt = decisions[i].request,
                                             .decision = decisions[i] };
            if (pending.attempt)
                gateway_later(g, &pending);
            else if (decisions[i].kind == MC_DECIDE_REPLICATE && i > 0)
                gateway_client_copy(g, decisions[i - 1].request, &decisions[i]);
        }
    if (status != MC_OK)
        gateway_log(&g->log, MC_LOG_DEBUG, "event=sched_skipped kind=%u status=%s", event->kind,
                    mc_status_name(status));
    return status;
}

static void check_drain(gateway *g)
{
    if (!g->draining || !g->drained || g->client_count > 0 || http_active(g->http) > 0)
        return;
    if (os_loop_timer(g->loop, &g->drain_timer, os_loop_now(g->loop)) != MC_OK)
        gateway_log(&g->log, MC_LOG_ERROR, "event=no_memory what=drain");
}

static void set_sched_timer(gateway *g)
{
    uint64_t due_ns;

    if (mc_sched_due(g->sched, &due_ns) != MC_OK || due_ns == UINT64_MAX)
        os_loop_timer_stop(g->loop, &g->sched_timer);
    else if (os_loop_timer(g->loop, &g->sched_timer, due_ns) != MC_OK)
        gateway_log(&g->log, MC_LOG_ERROR, "event=no_memory what=sched_timer");
}

void gateway_pump(gateway *g)
{
    while (g->pending_count > 0) {
        const struct pending pending = g->pending[g->pending_first];
        g->pending_first = (g->pending_first + 1) % g->pending_max;
        g->pending_count--;
        gateway_client_deliver(g, &pending);
    }
    set_sched_timer(g);
    check_drain(g);
}

static void sched_due(void *user, uint64_t now_ns)
{
    gateway *g = user;

    (void)now_ns;
    gateway_schedule(g, &(struct mc_sched_event){ .kind = MC_EVENT_TICK });
    gateway_pump(g);
}

static void drain_due(void *user, uint64_t now_ns)
{
    gateway *g = user;
    void (*done)(void *) = g->drained;

    (void)now_ns;
    g->drained = NULL;
    if (done)
        done(g->drained_user);
}

/* ----------------------------------------------------------------------------------------- open */

/* A copy of a text, or of the default where there is none; NULL stays NULL. */
static bool copy(gateway *g, const char **text, const char *fallback)
{
    if (!*text)
        *text = fallback;
    if (!*text)
        return true;
    assert(g->text_count < sizeof(g->texts) / sizeof(g->texts[0]));
    char *copied = alloc_text(g->alloc, *text, strlen(*text));
    *text = copied;
    g->texts[g->text_count++] = copied;
    return copied != NULL;
}

static bool copy_secret(gateway *g)
{
    struct gateway_options *o = &g->options;

    if (!o->secret)
        return true;
    void *secret = alloc_bytes(g->alloc, o->secret_size);
    if (secret)
        memcpy(secret, o->secret, o->secret_size);
    o->secret = secret;
    g->secret = secret;
    return secret != NULL;
}

static void fill_numbers(struct gateway_options *o)
{
    o->body_max = o->body_max ? o->body_max : UINT64_C(8) << 20;
    o->stream_max = o->stream_max ? o->stream_max : UINT64_C(1) << 20;
    o->patience_ns = o->patience_ns ? o->patience_ns : UINT64_C(10000000000);
    o->report_ns = o->report_ns ? o->report_ns : UINT64_C(100000000);
    o->first_lease_ns = o->first_lease_ns ? o->first_lease_ns : UINT64_C(5000000000);
    o->requests_max = o->requests_max ? o->requests_max : 1024;
    o->workers_max = o->workers_max ? o->workers_max : 256;
}

static bool copy_options(gateway *g)
{
    struct gateway_options *o = &g->options;

    fill_numbers(o);
    return copy(g, &o->name, "gateway") && copy(g, &o->listen, "127.0.0.1:8000") &&
           copy(g, &o->control_listen, "127.0.0.1:0") && copy(g, &o->master, NULL) &&
           copy(g, &o->model, NULL) && copy(g, &o->model_name, NULL) && copy_secret(g);
}

static mc_status open_model(gateway *g, struct mc_error *error)
{
    const struct mc_model_options options = { .alloc = g->alloc, .no_weights = true };

    const mc_status status = mc_model_open(g->options.model, &options, &g->model, error);
    if (status != MC_OK)
        return status;
    mc_model_info(g->model, &g->info);
    g->defaults = (struct api_defaults){
        .temperature = g->info.temperature,
        .top_p = g->info.top_p,
        .top_k = g->info.top_k,
        .vocab_size = g->info.vocab_size,
        .token_bytes_max = api_token_bytes_max(g->model, g->info.vocab_size),
        .model = g->options.model_name ? g->options.model_name : g->info.name,
    };
    return MC_OK;
}

static mc_status open_sched(gateway *g, struct mc_error *error)
{
    const struct mc_sched_options options = {
        .alloc = g->alloc,
        .policy = g->options.policy,
        .policy_parameters = g->options.policy_parameters,
        .admission = g->options.admission,
        .admission_parameters = g->options.admission_parameters,
        .replication = g->options.replication,
        .slo = { g->options.slo_ttft_ns, g->options.slo_tbt_ns },
        .seed = os_random_u64(),
        .instances_max = (uint64_t)g->options.workers_max + POOL_NODES_MAX,
        .requests_max = (uint64_t)g->options.requests_max * 2,
    };

    g->sched_timer = (struct os_timer){ .due = sched_due, .user = g };
    g->pending_max = g->options.requests_max * PENDING_EACH + PENDING_SPARE;
    g->pending = alloc_zeroed(g->alloc, g->pending_max, sizeof(*g->pending));
    if (!g->pending)
        return error_set(error, MC_E_NOMEM, "out of memory for %u requests",
                         g->options.requests_max);
    const mc_status status = mc_sched_open(&options, &g->sched, error);
    if (status != MC_OK || !g->options.record)
        return status;
    const struct recorder_options record = {
        .alloc = g->alloc, .log = g->log, .path = g->options.record, .sched = &options
    };
    return recorder_open(&record, &g->recorder, error);
}

static mc_status open_http(gateway *g, struct mc_error *error)
{
    const struct http_options options = {
        .alloc = g->alloc,
        .loop = g->loop,
        .listen = g->options.listen,
        .insecure = g->options.insecure || gateway_entrance_has_keys(g),
        .body_max = g->options.body_max,
        .bodies_max = g->options.bodies_max,
        .stream_max = g->options.stream_max,
        .headers_max = g->options.headers_max,
        .receive_ns = g->options.receive_ns,
        .connections_max = g->options.connections_max,
        .address_max = g->options.address_max,
        .idle_ns = g->options.idle_ns,
        .handler = gateway_route_handler(g),
    };

    return http_open(&options, &g->http, error);
}

static mc_status open_parts(gateway *g, struct mc_error *error)
{
    if (!copy_options(g) || metrics_init(&g->metrics, gateway_metric_rows, GATEWAY_METRIC_COUNT,
                                         "mooncake_gateway", g->alloc) != MC_OK)
        return error_set(error, MC_E_NOMEM, "out of memory for the gateway");
    mc_status status = open_model(g, error);
    if (status == MC_OK)
        status = gateway_live_open(g, error);
    if (status == MC_OK)
        status = open_sched(g, error);
    if (status == MC_OK)
        status = gateway_control_open(g, error);
    if (status == MC_OK)
        status = gateway_pool_open(g, error);
    if (status == MC_OK)
        status = open_http(g, error);
    return status;
}

mc_status gateway_open(const struct gateway_options *o, gateway **gateway_p, struct mc_error *error)
{
    assert(o->alloc && o->loop);
    if (!o->model)
        return error_set(error, MC_E_ARG, "a gateway needs its model's directory");
    gateway *g = alloc_zeroed(o->alloc, 1, sizeof(*g));
    if (!g)
        return error_set(error, MC_E_NOMEM, "out of memory for the gateway");
    g->alloc = o->alloc;
    g->loop = o->loop;
    g->log = o->log;
    g->options = *o;
    g->started_s = os_date_s();
    g->drain_timer = (struct os_timer){ .due = drain_due, .user = g };
    const mc_status status = open_parts(g, error);
    if (status != MC_OK) {
        gateway_close(g);
        return status;
    }
    gateway_log(&g->log, MC_LOG_INFO, "event=gateway_up http=%s control=%s model=%s policy=%s",
                http_address(g->http), g->control_address, g->defaults.model,
                o->policy ? o->policy : "default");
    *gateway_p = g;
    return MC_OK;
}

/* ---------------------------------------------------------------------------------------- close */

const char *gateway_address(const gateway *g)
{
    return http_address(g->http);
}

const char *gateway_control_address(const gateway *g)
{
    return g->control_address;
}

void gateway_drain(gateway *g, void (*done)(void *user), void *user)
{
    g->drained = done;
    g->drained_user = user;
    if (!g->draining)
        http_quiesce(g->http);
    g->draining = true;
    gateway_live_end_watching(g);
    check_drain(g);
}

void gateway_metrics(gateway *g, struct buf *out)
{
    gateway_slo_refresh(g);
    gateway_entrance_count(g);
    const struct recorder_counts recorded = recorder_counts(g->recorder);
    const uint64_t seen = metric_value(&g->metrics, METRIC_recorded_events, 0);
    metric_add(&g->metrics, METRIC_recorded_events, 0, recorded.events - seen);
    metric_set(&g->metrics, METRIC_recording, 0, recorded.runs);
    metrics_text(&g->metrics, out);
}

void gateway_close(gateway *g)
{
    if (!g)
        return;
    const struct mc_alloc *alloc = g->alloc;
    g->draining = true;
    g->drained = NULL;
    gateway_measure_close(g);
    gateway_clients_close(g);
    http_close(g->http);
    if (g->net)
        gateway_control_close(g);
    gateway_pool_close(g);
    if (g->loop) {
        os_loop_timer_stop(g->loop, &g->sched_timer);
        os_loop_timer_stop(g->loop, &g->drain_timer);
    }
    gateway_live_close(g);
    recorder_close(g->recorder);
    mc_sched_close(g->sched);
    mc_model_close(g->model);
    metrics_fini(&g->metrics);
    for (uint32_t i = 0; i < g->text_count; i++)
        alloc_free(alloc, g->texts[i]);
    alloc_free(alloc, g->secret);
    alloc_free(alloc, g->pending);
    alloc_free(alloc, g);
}
