/* control.c - the workers: they dial, register and report; they are asked and cancelled over the same line. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "gateway/control_stats.h"
#include "gateway/state.h"

static const uint64_t ASK_NS =
    UINT64_C(5000000000); /* a worker answers within, or counts as refusing */

struct worker {
    struct control_user user; /* what its connection calls us with */
    gateway *gateway;         /* borrowed */
    net_conn *conn;
    struct worker *next;
    struct mc_sched_instance as_instance; /* id 0: not registered */
    char name[MC_NAME_MAX + 1];
    char address[MC_NAME_MAX + 1];
    uint64_t incarnation, context_max;
    bool draining;
    struct os_timer lease; /* nothing was heard for so long: lost */
};

/** A question under way. */
struct ask {
    gateway *gateway;
    struct ask *next, *previous;
    uint64_t attempt, instance;
    enum wire_kind kind;
};

/* --------------------------------------------------------------------------------------- finding */

struct worker *control_find(const gateway *g, uint64_t instance)
{
    for (struct worker *w = g->workers; w && instance; w = w->next)
        if (w->as_instance.id == instance)
            return w;
    return NULL;
}

const struct worker *control_find_name(const gateway *g, const char *name)
{
    for (const struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && strcmp(w->name, name) == 0)
            return w;
    return NULL;
}

const char *worker_name(const struct worker *w)
{
    return w->name;
}

uint64_t worker_instance(const struct worker *w)
{
    return w->as_instance.id;
}

uint64_t worker_incarnation(const struct worker *w)
{
    return w->incarnation;
}

const char *worker_address(const struct worker *w)
{
    return w->address;
}

bool control_can_serve(const gateway *g)
{
    uint32_t roles = 0;

    for (const struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && !w->draining)
            roles |= w->as_instance.role;
    return (roles & MC_ROLE_BOTH) == MC_ROLE_BOTH;
}

uint32_t control_context_max(const gateway *g)
{
    uint64_t least = g->info.context_max;

    for (const struct worker *w = g->workers; w; w = w->next)
        if (w->as_instance.id && w->context_max < least)
            least = w->context_max;
    return (uint32_t)least;
}

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

static uint32_t count_registered(const gateway *g)
{
    uint32_t count = 0;

    for (const struct worker *w = g->workers; w; w = w->next)
        count += w->as_instance.id != 0;
    return count;
}

/* The connection is hung up already. First the scheduler, so that nothing more is placed there. */
static void forget(struct worker *w, const char *why)
{
    gateway *g = w->gateway;
    const uint64_t instance = w->as_instance.id;

    if (instance) {
        log_line(&g->log, w->draining ? MC_LOG_INFO : MC_LOG_WARN,
                 "event=worker_gone instance=%" PRIu64 " worker=%s draining=%d why=\"%s\"",
                 instance, w->name, w->draining, why);
        if (!w->draining)
            metric_add(&g->metrics, METRIC_lost, 0, 1);
    }
    free_worker(w);
    if (!instance)
        return;
    metric_set(&g->metrics, METRIC_workers, 0, count_registered(g));
    gateway_schedule(g, &(struct mc_sched_event){ .kind = MC_EVENT_INSTANCE_GONE, .id = instance });
    gateway_pump(g);
    clients_lost(g, instance);
    gateway_pump(g);
}

/* It broke the rules or is silent: end the line. It dials again if it can. */
static void drop(struct worker *w, const char *why)
{
    net_conn *conn = w->conn;

    w->conn = NULL;
    net_hang_up(conn, true);
    forget(w, why);
}

static void lease_over(void *user, uint64_t now_ns)
{
    struct worker *w = user;

    (void)now_ns;
    drop(w, w->as_instance.id ? "no load report within its lease" : "did not register");
}

static void lease(struct worker *w, uint64_t lease_ns)
{
    const uint64_t now_ns = os_loop_now(w->gateway->loop);

    if (lease_ns > UINT64_MAX - now_ns)
        lease_ns = UINT64_MAX - now_ns;
    if (os_loop_timer(w->gateway->loop, &w->lease, now_ns + lease_ns) != MC_OK)
        log_line(&w->gateway->log, MC_LOG_ERROR, "event=no_memory what=lease worker=%s", w->name);
}

static void came_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    gateway *g = ((struct control_user *)user)->gateway;
    struct worker *w = alloc_zeroed(g->alloc, 1, sizeof(*w));

    if (!w) {
        net_hang_up(conn, false);
        return;
    }
    w->user = (struct control_user){ g, w };
    w->gateway = g;
    w->conn = conn;
    w->next = g->workers;
    w->lease = (struct os_timer){ .due = lease_over, .user = w };
    g->workers = w;
    g->worker_count++;
    net_conn_user_set(conn, &w->user);
    if (peer->role == NET_WORKER) /* others ask for figures, as long as they like */
        lease(w, g->options.first_lease_ns);
}

static void went_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct worker *w = ((struct control_user *)user)->worker;

    (void)conn;
    (void)status;
    if (!w) /* it was never up */
        return;
    w->conn = NULL;
    forget(w, text);
}

/* --------------------------------------------------------------------------------- registration */

static bool take_text(const struct wire_slice *slice, char *text, size_t capacity)
{
    if (slice->size == 0 || slice->size >= capacity)
        return false;
    memcpy(text, slice->data, slice->size);
    text[slice->size] = '\0';
    return true;
}

static bool is_model(const gateway *g, const struct wire_slice *name)
{
    const char *known[] = { g->info.name, g->defaults.model };

    for (int i = 0; i < 2; i++)
        if (strlen(known[i]) == name->size && memcmp(known[i], name->data, name->size) == 0)
            return true;
    return false;
}

static bool others_registered(const gateway *g, const struct worker *w)
{
    for (const struct worker *other = g->workers; other; other = other->next)
        if (other != w && other->as_instance.id)
            return true;
    return false;
}

/* Whether it can serve what this gateway serves, together with the workers there are. */
static mc_status check(const gateway *g, const struct worker *w,
                       const struct wire_worker_register *r, struct mc_error *why)
{
    const struct wire_layout *l = &r->layout;

    if (r->role < MC_ROLE_PREFILL || r->role > MC_ROLE_BOTH)
        return error_set(why, MC_E_UNSUPPORTED, "role %u is not one of a worker", r->role);
    if (!is_model(g, &r->model))
        return error_set(why, MC_E_ARG, "it serves the model \"%.*s\", this gateway \"%s\"",
                         (int)(r->model.size < 100 ? r->model.size : 100),
                         (const char *)r->model.data, g->info.name);
    if (l->layers != g->info.layers || l->kv_heads != g->info.kv_heads ||
        l->head_dim != g->info.head_dim || l->page_tokens == 0 || l->page_bytes == 0)
        return error_set(why, MC_E_ARG,
                         "its pages are of another model: %u layers, %u KV heads of %u; the "
                         "gateway's has %u, %u of %u",
                         l->layers, l->kv_heads, l->head_dim, g->info.layers, g->info.kv_heads,
                         g->info.head_dim);
    if (r->kv_tokens_max == 0 || r->sequences_max == 0 || r->context_max == 0)
        return error_set(why, MC_E_RANGE, "a limit of 0 serves nobody");
    if (g->has_fingerprint && others_registered(g, w) &&
        memcmp(&g->fingerprint, &r->fingerprint, sizeof(g->fingerprint)) != 0)
        return error_set(why, MC_E_ARG,
                         "its fingerprint is not that of the workers there are: other weights, KV "
                         "dtype or kernel class (--kernel, --kv-dtype); their pages would not fit");
    return MC_OK;
}

static struct mc_sched_instance as_instance(gateway *g, const struct wire_worker_register *r)
{
    struct mc_sched_instance instance = {
        .id = ++g->last_instance,
        .role = r->role,
        .kv_tokens_max = r->kv_tokens_max,
        .sequences_max = r->sequences_max,
        .chunk_tokens = r->chunk_tokens,
        .kv_token_bytes = r->layout.page_bytes / r->layout.page_tokens,
    };

    memcpy(&instance.host, r->host.bytes, sizeof(instance.host));
    return instance;
}

static mc_status keep(struct worker *w, const struct wire_worker_register *r, struct mc_error *why)
{
    gateway *g = w->gateway;

    if (!take_text(&r->name, w->name, sizeof(w->name)) ||
        !take_text(&r->address, w->address, sizeof(w->address)))
        return error_set(why, MC_E_RANGE, "a name or address of 1 to %d bytes is wanted",
                         MC_NAME_MAX);
    w->incarnation = r->incarnation;
    w->context_max = r->context_max;
    w->as_instance = as_instance(g, r);
    const struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE, .instance = w->as_instance };
    const mc_status status = gateway_schedule(g, &event);
    if (status != MC_OK) {
        w->as_instance.id = 0;
        return error_set(why, status, "the scheduler takes no more instances");
    }
    g->fingerprint = r->fingerprint;
    g->has_fingerprint = true;
    return MC_OK;
}

static void refuse(struct worker *w, uint64_t id, const struct wire_worker_register *r,
                   const struct mc_error *why)
{
    gateway *g = w->gateway;

    metric_add(&g->metrics, METRIC_rejected, 0, 1);
    log_line(&g->log, MC_LOG_ERROR, "event=worker_refused worker=%.*s why=\"%s\"",
             (int)(r->name.size < 100 ? r->name.size : 100), (const char *)r->name.data, why->text);
    (void)net_answer_outcome(w->conn, id, why->status, why->text);
}

static void take_register(struct worker *w, uint64_t id, const struct wire_worker_register *r)
{
    gateway *g = w->gateway;
    struct mc_error why = { 0 };
    mc_status status = MC_OK;

    if (w->as_instance.id)
        status = error_set(&why, MC_E_EXISTS, "this connection has registered already");
    if (status == MC_OK)
        status = check(g, w, r, &why);
    if (status == MC_OK)
        status = keep(w, r, &why);
    if (status != MC_OK) {
        refuse(w, id, r, &why);
        return;
    }
    const struct wire_worker_registered answer = { .instance = w->as_instance.id,
                                                   .report_ns = g->options.report_ns };
    metric_add(&g->metrics, METRIC_registered, 0, 1);
    metric_set(&g->metrics, METRIC_workers, 0, count_registered(g));
    log_line(&g->log, MC_LOG_INFO,
             "event=worker_registered instance=%" PRIu64
             " worker=%s role=%u address=%s kv_tokens=%" PRIu64 " kernel=%.*s",
             w->as_instance.id, w->name, r->role, w->address, r->kv_tokens_max,
             (int)(r->kernel.size < 32 ? r->kernel.size : 32),
             r->kernel.size ? (const char *)r->kernel.data : "");
    lease(w, g->options.first_lease_ns);
    if (net_answer(w->conn, id, WIRE_WORKER_REGISTERED, &answer) != MC_OK) {
        drop(w, "its registration cannot be answered");
        return;
    }
    gateway_pump(g); /* who waits for a worker may go on */
}

/* --------------------------------------------------------------------------------------- reports */

static void take_draining(struct worker *w, bool draining)
{
    struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE_DRAIN, .id = w->as_instance.id };

    if (w->draining == draining)
        return;
    w->draining = draining;
    if (!draining)
        event = (struct mc_sched_event){ .kind = MC_EVENT_INSTANCE, .instance = w->as_instance };
    gateway_schedule(w->gateway, &event);
    log_line(&w->gateway->log, MC_LOG_INFO, "event=worker_%s instance=%" PRIu64 " worker=%s",
             draining ? "draining" : "back", w->as_instance.id, w->name);
}

static void take_load(struct worker *w, const struct wire_load_report *l)
{
    gateway *g = w->gateway;
    struct mc_sched_event event = {
        .kind = MC_EVENT_LOAD,
        .load = { .id = w->as_instance.id,
                  .lease_ns = l->lease_ns,
                  .queued = l->queued,
                  .queued_tokens = l->queued_tokens,
                  .running = l->running,
                  .context_tokens = l->context_tokens,
                  .free_tokens = l->free_tokens,
                  .send_bytes = l->send_bytes,
                  .receive_bytes = l->receive_bytes,
                  .latest = l->latest },
    };

    if (l->instance != w->as_instance.id)
        return;
    lease(w, l->lease_ns);
    take_draining(w, l->draining);
    gateway_schedule(g, &event);
    if (l->step_ns && l->running) {
        event = (struct mc_sched_event){ .kind = MC_EVENT_DECODE_STEP,
                                         .progress = { .id = w->as_instance.id,
                                                       .tokens = l->context_tokens,
                                                       .sequences = l->running,
                                                       .duration_ns = l->step_ns } };
        gateway_schedule(g, &event);
    }
    gateway_pump(g);
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

    client_event(w->gateway, &event);
}

static void take_prefilled(struct worker *w, const struct wire_prefill_end *m)
{
    const struct request_event event = {
        .kind = REQUEST_PREFILLED, .attempt = m->request, .from = w->as_instance.id, .prefilled = m
    };

    client_event(w->gateway, &event);
}

static void take_tokens(struct worker *w, const struct wire_tokens *m)
{
    const struct request_event event = {
        .kind = REQUEST_TOKENS, .attempt = m->request, .from = w->as_instance.id, .tokens = m
    };

    client_event(w->gateway, &event);
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
        take_load(w, &m->load);
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
    struct worker *w = ((struct control_user *)user)->worker;
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
        drop(w, why.text);
        return;
    }
    if (frame->kind == WIRE_STATS) {
        if (frame->id)
            control_answer_stats(w->gateway, conn, frame->id, &m.stats);
    } else if (frame->kind != WIRE_WORKER_REGISTER)
        take_worker_message(w, frame, &m);
    else if (net_conn_peer(conn)->role == NET_WORKER)
        take_register(w, frame->id, &m.enlist);
    else
        (void)net_answer_outcome(conn, frame->id, MC_E_DENIED, "only workers register");
}

/* ---------------------------------------------------------------------------------------- asking */

static void free_ask(struct ask *ask)
{
    gateway *g = ask->gateway;

    if (ask->next)
        ask->next->previous = ask->previous;
    if (ask->previous)
        ask->previous->next = ask->next;
    else
        g->asks = ask->next;
    alloc_free(g->alloc, ask);
}

static struct ask *new_ask(gateway *g, uint64_t instance, enum wire_kind kind, uint64_t attempt)
{
    struct ask *ask = alloc_zeroed(g->alloc, 1, sizeof(*ask));

    if (!ask)
        return NULL;
    *ask = (struct ask){ g, g->asks, NULL, attempt, instance, kind };
    if (g->asks)
        g->asks->previous = ask;
    g->asks = ask;
    return ask;
}

static void refused(struct request_event *event, const struct mc_error *why)
{
    event->failure =
        (struct request_failure){ .status = why->status, .text = wire_text(why->text) };
    event->kind = event->kind == REQUEST_RESERVED ? REQUEST_NOT_RESERVED : REQUEST_NOT_TAKEN;
}

/* What a worker answered. Its line breaking is not told here: the loss of the worker follows. */
static void answered(void *user, mc_status status, const struct wire_frame *frame)
{
    const struct ask ask = *(struct ask *)user;
    struct request_event event = { .attempt = ask.attempt, .from = ask.instance };
    struct wire_reserved reserved;
    struct wire_outcome outcome;
    struct mc_error why = { 0 };

    free_ask(user);
    if (status == MC_E_PEER || status == MC_E_CANCELLED)
        return;
    event.kind = ask.kind == WIRE_RESERVE ? REQUEST_RESERVED : REQUEST_TAKEN;
    if (status != MC_OK)
        error_set(&why, status, "the worker did not answer");
    else if (ask.kind == WIRE_RESERVE)
        status = net_take(frame, WIRE_RESERVED, &reserved, &why);
    else
        status = net_take(frame, WIRE_OUTCOME, &outcome, &why);
    event.reserved = &reserved;
    if (status != MC_OK)
        refused(&event, &why);
    client_event(ask.gateway, &event);
}

mc_status control_ask(gateway *g, uint64_t instance, enum wire_kind kind, const void *message,
                      uint64_t attempt)
{
    struct worker *w = control_find(g, instance);

    if (!w)
        return MC_E_PEER;
    struct ask *ask = new_ask(g, instance, kind, attempt);
    if (!ask)
        return MC_E_NOMEM;
    const mc_status status =
        net_ask(w->conn, kind, message, os_loop_now(g->loop) + ASK_NS, answered, ask, NULL);
    if (status != MC_OK)
        free_ask(ask);
    return status;
}

static void nobody_waits(void *user, mc_status status, const struct wire_frame *frame)
{
    (void)user;
    (void)status;
    (void)frame;
}

/* A worker that cannot even be told to stop is one to part from: it frees everything then. */
void control_cancel(gateway *g, uint64_t instance, const struct wire_request_cancel *cancel)
{
    struct worker *w = control_find(g, instance);

    if (!w)
        return;
    const mc_status status = net_ask(w->conn, WIRE_REQUEST_CANCEL, cancel,
                                     os_loop_now(g->loop) + ASK_NS, nobody_waits, NULL, NULL);
    if (status == MC_OK)
        return;
    log_line(&g->log, MC_LOG_WARN,
             "event=cancel_not_sent instance=%" PRIu64 " request=%" PRIu64 " why=\"%s\"", instance,
             cancel->request, mc_status_text(status));
    lease(w, 0); /* lost in the loop's next turn: nothing is ended inside a request's step */
}

/* ----------------------------------------------------------------------------------- open, close */

mc_status control_open(gateway *g, struct mc_error *error)
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
    g->control_user = (struct control_user){ .gateway = g };
    status = net_listen(g->net, g->options.control_listen, g->options.insecure, &events,
                        &g->control_user, g->control_address, sizeof(g->control_address), error);
    return status == MC_OK ? MC_OK : error_prefix(error, status, "workers' address");
}

void control_close(gateway *g)
{
    while (g->workers) {
        struct worker *w = g->workers;
        net_hang_up(w->conn, true);
        free_worker(w);
    }
    net_close(g->net);
    g->net = NULL;
    while (g->asks)
        free_ask(g->asks);
}
