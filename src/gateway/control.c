/* control.c - the workers' lines: they come, speak and go. */
#include "gateway/control.h"

#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "gateway/control_stats.h"

/* ----------------------------------------------------------------------------------- coming, going */

static void free_worker(struct worker *w)
{
    gateway *g = w->gateway;

    os_loop_timer_stop(g->loop, &w->lease);
    for (struct worker **at = &g->workers; *at; at = &(*at)->next)
        if (*at == w) {
            *at = w->next;
            break;
        }
    g->worker_count--;
    alloc_free(g->alloc, w);
}

/* The connection is hung up already. First the scheduler, so that nothing more is placed there. */
static void forget(struct worker *w, const char *why)
{
    gateway *g = w->gateway;
    const uint64_t instance = w->as_instance.id;

    if (instance) {
        gateway_log(&g->log, w->draining ? MC_LOG_INFO : MC_LOG_WARN,
                    "event=worker_gone instance=%" PRIu64 " worker=%s draining=%d why=\"%s\"",
                    instance, w->name, w->draining, why);
        if (!w->draining)
            metric_add(&g->metrics, METRIC_lost, 0, 1);
    }
    free_worker(w);
    if (!instance)
        return;
    metric_set(&g->metrics, METRIC_workers, 0, gateway_workers_count(g));
    gateway_schedule(g, &(struct mc_sched_event){ .kind = MC_EVENT_INSTANCE_GONE, .id = instance });
    gateway_pump(g);
    gateway_clients_lost(g, instance);
    gateway_pump(g);
}

/* It broke the rules or is silent: end the line. It dials again if it can. */
void gateway_worker_drop(struct worker *w, const char *why)
{
    net_conn *conn = w->conn;

    w->conn = NULL;
    net_hang_up(conn, true);
    forget(w, why);
}

static void expect_within(struct worker *w, uint64_t ns)
{
    const uint64_t now_ns = os_loop_now(w->gateway->loop);
    const uint64_t until_ns = ns < UINT64_MAX - now_ns ? now_ns + ns : UINT64_MAX;

    if (os_loop_timer(w->gateway->loop, &w->lease, until_ns) != MC_OK)
        gateway_log(&w->gateway->log, MC_LOG_ERROR, "event=no_memory what=lease worker=%s",
                    w->name);
}

/* If this loop was held up, reports that lie in the socket were read before: its timers come last in a turn
 * and count from the turn's start. If the whole machine stood still, so did the workers, and none is lost: each gets a
 * moment to say so; and when one of them does, all others a whole lease. */
static void lease_over(void *user, uint64_t now_ns)
{
    struct worker *w = user;

    (void)now_ns;
    if (!w->late && w->as_instance.id) {
        w->late = true;
        expect_within(w, w->lease_ns / 4);
        return;
    }
    gateway_worker_drop(w,
                        w->as_instance.id ? "no load report within its lease" : "did not register");
}

void gateway_worker_lease(struct worker *w, uint64_t lease_ns)
{
    w->late = false;
    w->lease_ns = lease_ns;
    expect_within(w, lease_ns);
}

void gateway_worker_heard(struct worker *w, uint64_t lease_ns)
{
    gateway *g = w->gateway;
    const uint64_t now_ns = os_loop_now(g->loop);
    const uint64_t silence_ns = g->heard_ns ? now_ns - g->heard_ns : 0;
    const bool stood = silence_ns > g->options.report_ns; /* a lease is many of these */

    for (struct worker *other = stood ? g->workers : NULL; other; other = other->next)
        if (other->as_instance.id && silence_ns > other->lease_ns / 4 && other->lease_ns != 0)
            gateway_worker_lease(other, other->lease_ns);
    g->heard_ns = now_ns;
    gateway_worker_lease(w, lease_ns);
}

static void came_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    gateway *g = ((struct gateway_control_user *)user)->gateway;
    struct worker *w = alloc_zeroed(g->alloc, 1, sizeof(*w));

    if (!w) {
        net_hang_up(conn, false);
        return;
    }
    w->user = (struct gateway_control_user){ g, w };
    w->gateway = g;
    w->conn = conn;
    w->next = g->workers;
    w->lease = (struct os_timer){ .due = lease_over, .user = w };
    g->workers = w;
    g->worker_count++;
    net_conn_user_set(conn, &w->user);
    if (peer->role == NET_WORKER) /* others ask for figures, as long as they like */
        gateway_worker_lease(w, g->options.first_lease_ns);
}

static void went_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct worker *w = ((struct gateway_control_user *)user)->worker;

    (void)conn;
    (void)status;
    if (!w) /* it was never up */
        return;
    w->conn = NULL;
    forget(w, text);
}

/* -------------------------------------------------------------------------------------- messages */

/** Any message that is taken in. */
union any {
    struct wire_worker_register enlist;
    struct wire_load_report load;
    struct wire_prefill_progress progress;
    struct wire_prefill_end prefilled;
    struct wire_tokens tokens;
    struct wire_stats stats;
};

static void take_progress(struct worker *w, const struct wire_prefill_progress *m)
{
    const struct request_event event = {
        .kind = REQUEST_PROGRESS, .attempt = m->request, .from = w->as_instance.id, .progress = m
    };

    gateway_client_event(w->gateway, &event);
}

static void take_prefilled(struct worker *w, const struct wire_prefill_end *m)
{
    const struct request_event event = {
        .kind = REQUEST_PREFILLED, .attempt = m->request, .from = w->as_instance.id, .prefilled = m
    };

    gateway_client_event(w->gateway, &event);
}

static void take_tokens(struct worker *w, const struct wire_tokens *m)
{
    const struct request_event event = {
        .kind = REQUEST_TOKENS, .attempt = m->request, .from = w->as_instance.id, .tokens = m
    };

    gateway_client_event(w->gateway, &event);
}

/* What only a registered worker says. */
static void take_worker_message(struct worker *w, const struct wire_frame *frame,
                                const union any *m)
{
    if (!w->as_instance.id) {
        if (frame->id)
            (void)net_answer_outcome(w->conn, frame->id, MC_E_DENIED, "register first");
        return;
    }
    if (frame->kind == WIRE_LOAD_REPORT)
        gateway_worker_load(w, &m->load);
    else if (frame->kind == WIRE_PREFILL_PROGRESS)
        take_progress(w, &m->progress);
    else if (frame->kind == WIRE_PREFILL_END)
        take_prefilled(w, &m->prefilled);
    else
        take_tokens(w, &m->tokens);
}

static bool is_ours(uint32_t kind)
{
    return kind == WIRE_WORKER_REGISTER || kind == WIRE_LOAD_REPORT ||
           kind == WIRE_PREFILL_PROGRESS || kind == WIRE_PREFILL_END || kind == WIRE_TOKENS ||
           kind == WIRE_STATS;
}

static void take_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct worker *w = ((struct gateway_control_user *)user)->worker;
    struct mc_error why = { 0 };
    union any m;

    if (!w)
        return;
    if (!is_ours(frame->kind)) {
        if (frame->id)
            (void)net_answer_outcome(conn, frame->id, MC_E_UNSUPPORTED,
                                     "not a question for a gateway");
        return;
    }
    if (wire_decode(frame->kind, frame->body, frame->body_size, &m, &why) != MC_OK) {
        gateway_worker_drop(w, why.text);
        return;
    }
    if (frame->kind == WIRE_STATS) {
        if (frame->id)
            gateway_control_answer_stats(w->gateway, conn, frame->id, &m.stats);
    } else if (frame->kind != WIRE_WORKER_REGISTER)
        take_worker_message(w, frame, &m);
    else if (net_conn_peer(conn)->role == NET_WORKER)
        gateway_worker_enlist(w, frame->id, &m.enlist);
    else
        (void)net_answer_outcome(conn, frame->id, MC_E_DENIED, "only workers register");
}

/* ----------------------------------------------------------------------------------- open, close */

mc_status gateway_control_open(gateway *g, struct mc_error *error)
{
    static const struct net_events events = { came_up, take_message, went_down };
    const struct net_options options = {
        .alloc = g->alloc,
        .loop = g->loop,
        .role = NET_GATEWAY,
        .name = g->options.name,
        .secret = g->options.secret,
        .secret_size = g->options.secret_size,
        .silence_ns = g->options.first_lease_ns,
        .connections_max = g->options.workers_max,
    };

    mc_status status = net_open(&options, &g->net, error);
    if (status != MC_OK)
        return status;
    g->control_user = (struct gateway_control_user){ .gateway = g };
    status = net_listen(g->net, g->options.control_listen, g->options.insecure, &events,
                        &g->control_user, g->control_address, sizeof(g->control_address), error);
    return status == MC_OK ? MC_OK : error_prefix(error, status, "workers' address");
}

void gateway_control_close(gateway *g)
{
    while (g->workers) {
        struct worker *w = g->workers;
        net_hang_up(w->conn, true);
        free_worker(w);
    }
    net_close(g->net);
    g->net = NULL;
    gateway_asks_forget(g);
}
