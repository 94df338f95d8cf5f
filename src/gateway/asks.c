/* asks.c - questions to workers for a request, and what comes back as its events. */
#include <inttypes.h>

#include "base/alloc.h"
#include "base/error.h"
#include "gateway/control.h"

static const uint64_t ASK_NS =
    UINT64_C(5000000000); /* a worker answers within, or counts as refusing */

/** A question under way. */
struct ask {
    gateway *gateway;
    struct ask *next, *previous;
    uint64_t attempt, instance;
    enum wire_kind kind;
};

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
    gateway_client_event(ask.gateway, &event);
}

mc_status gateway_control_ask(gateway *g, uint64_t instance, enum wire_kind kind,
                              const void *message, uint64_t attempt)
{
    struct worker *w = gateway_control_find(g, instance);

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
void gateway_control_cancel(gateway *g, uint64_t instance, const struct wire_request_cancel *cancel)
{
    struct worker *w = gateway_control_find(g, instance);

    if (!w)
        return;
    const mc_status status = net_ask(w->conn, WIRE_REQUEST_CANCEL, cancel,
                                     os_loop_now(g->loop) + ASK_NS, nobody_waits, NULL, NULL);
    if (status == MC_OK)
        return;
    gateway_log(&g->log, MC_LOG_WARN,
                "event=cancel_not_sent instance=%" PRIu64 " request=%" PRIu64 " why=\"%s\"",
                instance, cancel->request, mc_status_text(status));
    gateway_worker_lease(
        w, 0); /* lost in the loop's next turn: nothing is ended inside a request's step */
}

void gateway_asks_forget(gateway *g)
{
    while (g->asks)
        free_ask(g->asks);
}
