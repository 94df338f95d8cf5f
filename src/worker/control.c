/* control.c - what gateways and other workers ask, decoded and handed to who does it. */
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "worker/measure.h"
#include "worker/state.h"

void worker_answer(net_conn *conn, uint64_t id, mc_status status, const char *text)
{
    /* What cannot be sent (the queue of one who does not read is full) is not heard: whoever asked has a
     * deadline, and asking again is safe. */
    if (conn && id)
        (void)net_answer_outcome(conn, id, status, text && text[0] ? text : NULL);
}

/* ---------------------------------------------------------------------------- drained, and empty */

bool worker_is_empty(const struct worker *w)
{
    return w->task_count == 0 && w->seat_count == 0;
}

void worker_drained(struct worker *w)
{
    void (*drained)(void *user) = w->drained;

    if (!w->draining || !worker_is_empty(w))
        return;
    for (uint32_t i = 0; i < w->drain_ask_count; i++)
        worker_answer(w->drain_asks[i].conn, w->drain_asks[i].id, MC_OK, NULL);
    w->drain_ask_count = 0;
    w->drained = NULL;
    if (drained)
        drained(w->drained_user);
}

static void on_drain(struct worker *w, net_conn *conn, uint64_t id,
                     const struct wire_drain *message)
{
    w->draining = !message->back;
    measure_yield(w);
    worker_log(w, MC_LOG_INFO, "event=%s", message->back ? "takes_work_again" : "draining");
    if (message->back) {
        for (uint32_t i = 0; i < w->drain_ask_count; i++)
            worker_answer(w->drain_asks[i].conn, w->drain_asks[i].id, MC_E_CANCELLED,
                          "the worker was told to take work again");
        w->drain_ask_count = 0;
        worker_answer(conn, id, MC_OK, NULL);
        return;
    }
    if (id && w->drain_ask_count == WORKER_ASKS_MAX) {
        worker_answer(conn, id, MC_E_FULL, "too many wait for this worker to be empty");
        return;
    }
    if (id)
        w->drain_asks[w->drain_ask_count++] = (struct drain_ask){ conn, id };
    worker_look_soon(w);
}

void worker_forget(struct worker *w, const net_conn *conn)
{
    uint32_t kept = 0;

    seats_forget_conn(w, conn);
    for (uint32_t i = 0; i < w->drain_ask_count; i++)
        if (w->drain_asks[i].conn != conn)
            w->drain_asks[kept++] = w->drain_asks[i];
    w->drain_ask_count = kept;
}

/* -------------------------------------------------------------------------------------- gateways */

static void note(struct gateway_link *gateway, uint64_t request)
{
    if (request > gateway->latest)
        gateway->latest = request;
}

static void refuse(struct gateway_link *gateway, uint64_t id, mc_status status,
                   const struct mc_error *error)
{
    worker_count(gateway->worker, METRIC_refused, 1);
    worker_answer(gateway->conn, id, status, error->text);
}

static void on_prefill(struct gateway_link *gateway, uint64_t id,
                       const struct wire_prefill *message)
{
    struct worker *w = gateway->worker;
    struct mc_error error = { 0 };

    note(gateway, message->request);
    measure_yield(w);
    if (task_find(w, gateway, message->request)) { /* asked again */
        worker_answer(gateway->conn, id, MC_OK, NULL);
        return;
    }
    const mc_status status = task_open(w, gateway, message, &error);
    if (status != MC_OK) {
        refuse(gateway, id, status, &error);
        return;
    }
    worker_count(w, METRIC_prefills, 1);
    worker_answer(gateway->conn, id, MC_OK, NULL);
    worker_look_soon(w);
}

static void answer_reserved(struct gateway_link *gateway, uint64_t id, const struct seat *seat)
{
    const struct worker *w = gateway->worker;
    const struct mc_window *window = &seat->window;
    struct wire_reserved answer = {
        .reservation = seat->id,
        .pages = seat->window_pages,
        .window = { .incarnation = window->incarnation,
                    .size = window->size,
                    .region = window->region,
                    .permissions = window->permissions,
                    .generation = window->generation,
                    .lease_ns = window->lease_ns,
                    .piece_bytes = window->piece_bytes },
        .segment = wire_text(w->transfer_info.name),
        .incarnation = w->transfer_info.incarnation,
    };

    memcpy(answer.window.key.bytes, window->key, sizeof(answer.window.key.bytes));
    if (net_answer(gateway->conn, id, WIRE_RESERVED, &answer) != MC_OK)
        worker_log(w, MC_LOG_WARN, "event=not_answered request=%llu",
                   (unsigned long long)seat->answer.request); /* its lease ends it */
}

static void on_reserve(struct gateway_link *gateway, uint64_t id,
                       const struct wire_reserve *message)
{
    struct worker *w = gateway->worker;
    struct seat *seat = seat_find(w, gateway, message->request);
    struct mc_error error = { 0 };

    note(gateway, message->request);
    measure_yield(w);
    if (!seat) { /* else it is asked again: the same answer */
        const mc_status status = seat_open(w, gateway, message, &seat, &error);
        if (status != MC_OK) {
            refuse(gateway, id, status, &error);
            return;
        }
        worker_count(w, METRIC_reserved, 1);
    }
    answer_reserved(gateway, id, seat);
}

/* What a request holds may be at both sides: when one worker does it all, only at one of them. */
static void on_cancel(struct gateway_link *gateway, uint64_t id,
                      const struct wire_request_cancel *message)
{
    struct worker *w = gateway->worker;
    struct task *task = task_find(w, gateway, message->request);
    struct seat *seat = seat_find(w, gateway, message->request);

    if (!task && !seat) {
        worker_answer(gateway->conn, id, MC_OK, NULL); /* it holds nothing */
        return;
    }
    worker_count(w, METRIC_cancelled, 1);
    if (task && seat) { /* the later of the two answers; the other one is asked for nothing */
        task_cancel(task, 0);
        seat_cancel(seat, id);
    } else if (task)
        task_cancel(task, id);
    else
        seat_cancel(seat, id);
}

/* ------------------------------------------------------------------------------------- everybody */

/* Questions that anybody may ask. False: not one of them. */
static bool on_common(struct worker *w, net_conn *conn, const struct wire_frame *frame,
                      const void *message)
{
    switch (frame->kind) {
    case WIRE_STATS:
        counters_answer(w, conn, frame->id, &((const struct wire_stats *)message)->prefix);
        return true;
    case WIRE_DRAIN:
        on_drain(w, conn, frame->id, message);
        return true;
    default:
        return false;
    }
}

static bool decode(net_conn *conn, const struct wire_frame *frame, void *message)
{
    struct mc_error error = { 0 };
    const mc_status status =
        wire_decode(frame->kind, frame->body, frame->body_size, message, &error);

    if (status != MC_OK)
        worker_answer(conn, frame->id, status, error.text);
    return status == MC_OK;
}

static void unsupported(net_conn *conn, const struct wire_frame *frame)
{
    char text[80];

    snprintf(text, sizeof(text), "a worker does not take messages of kind %u here", frame->kind);
    worker_answer(conn, frame->id, MC_E_UNSUPPORTED, text);
}

union message {
    _Alignas(16) char bytes[WIRE_STRUCT_MAX];
    struct wire_prefill prefill;
    struct wire_reserve reserve;
    struct wire_request_cancel cancel;
    struct wire_hand_off hand_off;
    struct wire_reservation_renew renew;
    struct wire_measure measure;
};

void worker_from_gateway(struct gateway_link *gateway, const struct wire_frame *frame)
{
    union message m;

    if (!decode(gateway->conn, frame, &m))
        return;
    switch (frame->kind) {
    case WIRE_PREFILL:
        on_prefill(gateway, frame->id, &m.prefill);
        return;
    case WIRE_RESERVE:
        on_reserve(gateway, frame->id, &m.reserve);
        return;
    case WIRE_REQUEST_CANCEL:
        on_cancel(gateway, frame->id, &m.cancel);
        return;
    case WIRE_MEASURE:
        measure_ask(gateway, frame->id, &m.measure);
        return;
    case WIRE_TOKENS_CREDIT:
        return; /* tokens are bounded by the connection's queue: answers.c */
    default:
        if (!on_common(gateway->worker, gateway->conn, frame, &m))
            unsupported(gateway->conn, frame);
    }
}

/* ---------------------------------------------------------------------------- accepted connections */

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    (void)user;
    (void)conn;
    (void)peer;
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct worker *w = user;
    union message m;

    if (!decode(conn, frame, &m))
        return;
    switch (frame->kind) {
    case WIRE_HAND_OFF:
        seat_hand_off(w, conn, frame->id, &m.hand_off);
        return;
    case WIRE_RESERVATION_RENEW:
        seat_renew(w, conn, frame->id, &m.renew);
        return;
    default:
        if (!on_common(w, conn, frame, &m))
            unsupported(conn, frame);
    }
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    (void)status;
    (void)text;
    worker_forget(user, conn);
}

const struct net_events worker_events = { on_up, on_message, on_down };
