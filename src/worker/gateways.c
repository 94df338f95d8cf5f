/* gateways.c - a dialled connection to each gateway: registration, load reports, the end of a gateway. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "worker/measure.h"
#include "worker/state.h"

#define REGISTER_AGAIN_NS UINT64_C(1000000000)
#define REGISTER_NS UINT64_C(5000000000)
#define REPORT_DEFAULT_NS UINT64_C(100000000)
#define REPORT_MIN_NS UINT64_C(10000000)
#define LEASE_MIN_NS UINT64_C(2000000000)
static_assert(offsetof(struct mc_cost, reserved) == 11 * sizeof(double), "as it is registered");
enum { COST_NUMBERS = 11 };
enum { LEASE_REPORTS = 10 }; /* so many reports lost, and we count as silent */

/* --------------------------------------------------------------------------------------- reports */

static struct wire_load_report report_of(struct gateway_link *gateway)
{
    struct worker *w = gateway->worker;
    const uint64_t lease_ns = LEASE_REPORTS * gateway->report_ns;
    struct runner_state engine;
    struct wire_load_report report = {
        .instance = gateway->instance,
        .lease_ns = lease_ns > LEASE_MIN_NS ? lease_ns : LEASE_MIN_NS,
        .free_tokens = (uint64_t)pages_free(w->pages) * KV_PAGE_TOKENS,
        .send_bytes = worker_stands_for(w, w->pushes.bytes),
        .receive_bytes = worker_stands_for(w, w->pool.pull_bytes),
        .draining = w->draining,
        .dropped_puts = w->pool.counts.put_dropped,
        .latest = gateway->latest,
    };

    runner_state(w->runner, &engine);
    report.context_tokens = engine.batcher.context_tokens;
    report.step_ns = engine.step_ns;
    for (uint32_t i = 0; i < w->task_count; i++) {
        const struct task *task = w->tasks[i];
        report.running += task->machine.phase == PREFILL_DECODING;
        if (task->machine.phase > PREFILL_COMPUTING)
            continue;
        report.queued++;
        report.queued_tokens += task->token_count - (task->machine.phase < PREFILL_COMPUTING
                                                         ? task->machine.options.pull_tokens
                                                         : task->machine.ready.done);
    }
    for (uint32_t i = 0; i < w->seat_count; i++) {
        const struct seat *seat = w->seats[i];
        report.running += seat->machine.phase == DECODE_DECODING;
        if (seat->machine.phase == DECODE_RESERVED) /* promised to be received */
            report.receive_bytes += worker_stands_for(w, seat->window_pages * w->page_bytes);
        if (seat->revoke_wait_ns)
            report.quarantined_bytes += seat->page_count * w->page_bytes;
    }
    return report;
}

static void set_timer(struct gateway_link *gateway, uint64_t after_ns)
{
    os_loop *loop = gateway->worker->loop;

    /* Timers' heap has had room for it since it was first set. */
    if (os_loop_timer(loop, &gateway->timer, os_loop_now(loop) + after_ns) != MC_OK)
        worker_log(gateway->worker, MC_LOG_ERROR, "event=no_timer text=\"out of memory\"");
}

static void register_at(struct gateway_link *gateway);

static void on_timer(void *user, uint64_t now_ns)
{
    struct gateway_link *gateway = user;

    (void)now_ns;
    if (!net_conn_is_up(gateway->conn))
        return;
    if (!gateway->registered) {
        register_at(gateway);
        return;
    }
    const struct wire_load_report report = report_of(gateway);
    if (net_send(gateway->conn, WIRE_LOAD_REPORT, &report) != MC_OK)
        worker_log(gateway->worker, MC_LOG_DEBUG, "event=report_not_sent");
    set_timer(gateway, gateway->report_ns);
}

/* ---------------------------------------------------------------------------------- registration */

static void on_registered(void *user, mc_status status, const struct wire_frame *frame)
{
    struct gateway_link *gateway = user;
    struct wire_worker_registered answer = { 0 };
    struct mc_error error = { 0 };

    if (status == MC_OK)
        status = net_take(frame, WIRE_WORKER_REGISTERED, &answer, &error);
    if (status == MC_E_CANCELLED || status == MC_E_PEER)
        return; /* down says so too */
    if (status != MC_OK) {
        worker_log(gateway->worker, MC_LOG_WARN, "event=not_registered status=%s text=\"%s\"",
                   mc_status_name(status), error.text);
        set_timer(gateway, REGISTER_AGAIN_NS);
        return;
    }
    gateway->registered = true;
    gateway->away[0] = '\0';
    gateway->instance = answer.instance;
    gateway->report_ns = answer.report_ns == 0              ? REPORT_DEFAULT_NS
                         : answer.report_ns < REPORT_MIN_NS ? REPORT_MIN_NS
                                                            : answer.report_ns;
    worker_log(gateway->worker, MC_LOG_INFO, "event=registered instance=%llu",
               (unsigned long long)answer.instance);
    on_timer(gateway, 0); /* the first report at once */
}

static void register_at(struct gateway_link *gateway)
{
    struct worker *w = gateway->worker;
    const struct mc_kv_layout *l = &w->engine_limits.layout;
    const struct timing_model *m = &w->model_of;
    const struct wire_worker_register message = {
        .name = wire_text(w->name),
        .role = (uint32_t)w->role,
        .model = wire_text(w->info.name),
        .fingerprint = w->fingerprint,
        .address = wire_text(w->address),
        .segment = wire_text(w->transfer_info.name),
        .incarnation = w->transfer_info.incarnation,
        .layout = { l->layers, l->kv_heads, l->head_dim, l->page_tokens, (uint32_t)l->dtype,
                    w->page_bytes },
        .kv_tokens_max = (uint64_t)pages_count(w->pages) * KV_PAGE_TOKENS,
        .sequences_max = w->limits.sequences_max,
        .chunk_tokens = w->limits.chunk_tokens,
        .context_max = w->context_max,
        .host = *net_host(w->net),
        .kernel = wire_text(w->kernel),
        .cost = { &m->cost, w->timing ? COST_NUMBERS : 0 },
        .kv_token_bytes = w->timing ? (uint64_t)m->kv_token_bytes : 0,
    };

    if (net_ask(gateway->conn, WIRE_WORKER_REGISTER, &message, os_loop_now(w->loop) + REGISTER_NS,
                on_registered, gateway, NULL) != MC_OK)
        set_timer(gateway, REGISTER_AGAIN_NS);
}

/* ------------------------------------------------------------------------------------ connection */

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    struct gateway_link *gateway = user;

    (void)conn;
    if (peer->role != NET_GATEWAY)
        worker_log(gateway->worker, MC_LOG_WARN,
                   "event=not_a_gateway address=%s role=%u text=\"check --gateway\"", peer->address,
                   peer->role);
    register_at(gateway);
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    (void)conn;
    worker_from_gateway(user, frame);
}

/* Nobody wants what it asked for: it has forgotten us too. */
static void end_requests(struct gateway_link *gateway)
{
    struct worker *w = gateway->worker;

    measure_forget(w, gateway);
    for (uint32_t i = w->task_count; i > 0; i--)
        if (w->tasks[i - 1]->answer.gateway == gateway) {
            struct task *task = w->tasks[i - 1];
            task->answer.gateway = NULL;
            task_cancel(task, 0);
        }
    for (uint32_t i = w->seat_count; i > 0; i--)
        if (w->seats[i - 1]->answer.gateway == gateway) {
            struct seat *seat = w->seats[i - 1];
            seat->answer.gateway = NULL;
            seat_cancel(seat, 0);
        }
}

/* Each reason once, as long as it stays the same: it is dialled again and again. */
static void log_away(struct gateway_link *gateway, mc_status status, const char *text)
{
    if (strncmp(gateway->away, text, sizeof(gateway->away) - 1) == 0)
        return;
    (void)snprintf(gateway->away, sizeof(gateway->away), "%s", text);
    worker_log(gateway->worker, MC_LOG_WARN, "event=gateway_away status=%s text=\"%s\"",
               mc_status_name(status), text);
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct gateway_link *gateway = user;
    struct worker *w = gateway->worker;

    worker_forget(w, conn);
    os_loop_timer_stop(w->loop, &gateway->timer);
    if (gateway->registered)
        worker_log(w, MC_LOG_WARN, "event=gateway_lost instance=%llu status=%s text=\"%s\"",
                   (unsigned long long)gateway->instance, mc_status_name(status), text);
    else
        log_away(gateway, status, text);
    gateway->registered = false;
    gateway->latest = 0;
    end_requests(gateway);
}

static const struct net_events gateway_events = { on_up, on_message, on_down };

mc_status gateways_open(struct worker *w, const struct worker_options *o, struct mc_error *error)
{
    mc_status status = MC_OK;

    w->gateways = alloc_zeroed(w->alloc, o->gateway_count, sizeof(*w->gateways));
    if (!w->gateways)
        return error_set(error, MC_E_NOMEM, "out of memory for %u gateways", o->gateway_count);
    for (uint32_t i = 0; i < o->gateway_count && status == MC_OK; i++) {
        struct gateway_link *gateway = &w->gateways[w->gateway_count];
        *gateway =
            (struct gateway_link){ .worker = w, .timer = { .due = on_timer, .user = gateway } };
        status = net_dial(w->net, o->gateways[i], &gateway_events, gateway, &gateway->conn, error);
        w->gateway_count += status == MC_OK;
    }
    return status;
}

void gateways_close(struct worker *w)
{
    for (uint32_t i = 0; i < w->gateway_count; i++) {
        os_loop_timer_stop(w->loop, &w->gateways[i].timer);
        end_requests(&w->gateways[i]);
        net_hang_up(w->gateways[i].conn, false);
    }
    w->gateway_count = 0;
    alloc_free(w->alloc, w->gateways);
    w->gateways = NULL;
}
