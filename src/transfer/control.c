/* control.c - questions to a peer's control port. */
#include "transfer/control.h"

#include <assert.h>
#include <stddef.h>

#include "base/error.h"
#include "net/net.h"
#include "os/clock.h"

enum { DIALS_MAX = 4 }; /* in a row, 10 to 80 ms apart: then the peer counts as gone */

static void send_all(struct control *control);

/* ------------------------------------------------------------------------------------- the list */

static void link_ask(struct control *control, struct peer_ask *ask)
{
    struct peer_ask **at = &control->asks;

    while (*at)
        at = &(*at)->next;
    *at = ask;
    ask->next = NULL;
    ask->control = control;
    ask->id = 0;
}

static void unlink_ask(struct peer_ask *ask)
{
    struct peer_ask **at = &ask->control->asks;

    while (*at != ask)
        at = &(*at)->next;
    *at = ask->next;
    ask->control = NULL;
}

static void end_ask(struct peer_ask *ask, mc_status status, const struct wire_frame *frame,
                    const struct mc_error *error)
{
    unlink_ask(ask);
    ask->answered(ask->user, status, frame, error);
}

/* End those that are not sent. A callback may ask anew: what it adds is not ended here. */
static void end_unsent(struct control *control, mc_status status, const char *text)
{
    struct mc_error error = { 0 };
    struct peer_ask *list = NULL, **end = &list;

    error_set(&error, status, "%s: %s", control->address, text);
    for (struct peer_ask **at = &control->asks, *ask; (ask = *at);) {
        if (ask->id != 0) {
            at = &ask->next;
            continue;
        }
        *at = ask->next;
        ask->next = NULL;
        ask->control = NULL;
        *end = ask;
        end = &ask->next;
    }
    while (list) {
        struct peer_ask *ask = list;
        list = ask->next;
        ask->answered(ask->user, status, NULL, &error);
    }
}

/* ------------------------------------------------------------------------------------- the answer */

static void on_answer(void *user, mc_status status, const struct wire_frame *frame)
{
    struct peer_ask *ask = user;
    struct control *control = ask->control;
    struct mc_error error = { 0 };

    /* A connection that was dead and not known to be: these may be asked twice, and the dials that
     * follow say whether the peer is there. */
    if (status == MC_E_PEER && ask->kind != WIRE_NOTIFY && control->failures < DIALS_MAX) {
        ask->id = 0;
        return;
    }
    if (status != MC_OK)
        error_set(&error, status, "%s: %s", control->address, mc_status_text(status));
    end_ask(ask, status, frame, &error);
}

/* ---------------------------------------------------------------------------------- the connection */

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    struct control *control = user;

    (void)conn;
    (void)peer;
    control->up = true;
    control->failures = 0;
    send_all(control);
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    (void)user;
    if (frame->id != 0) /* who is dialled is asked, and does not ask */
        (void)net_answer_outcome(conn, frame->id, MC_E_UNSUPPORTED, "ask on your own connection");
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct control *control = user;

    if (control->up)
        control->up = false;
    else
        control->failures++;
    /* A secret that is refused or a protocol that is not ours will be no better the next time. */
    if (control->failures >= DIALS_MAX ||
        (status != MC_E_PEER && status != MC_E_IO && status != MC_E_TIMEOUT)) {
        control->failures = 0;
        control->conn = NULL;
        net_hang_up(conn, false);
        end_unsent(control, status == MC_E_IO ? MC_E_PEER : status, text);
    } else if (!control->asks) {
        control->conn = NULL;
        net_hang_up(conn, false);
    }
}

static const struct net_events peer_events = { on_up, on_message, on_down };

static void send_all(struct control *control)
{
    struct peer_ask *next;

    for (struct peer_ask *ask = control->asks; ask && control->up; ask = next) {
        next = ask->next;
        if (ask->id != 0)
            continue;
        const uint64_t until_ns = ask->until_ns == UINT64_MAX ? 0 : ask->until_ns;
        const mc_status status =
            net_ask(control->conn, ask->kind, &ask->message, until_ns, on_answer, ask, &ask->id);
        if (status == MC_OK || status == MC_E_PEER) /* the latter: down comes, and dials again */
            continue;
        struct mc_error error = { 0 };
        error_set(&error, status, "%s: cannot be asked: %s", control->address,
                  mc_status_text(status));
        end_ask(ask, status, NULL, &error);
        next = control->asks; /* answered may have changed the list */
    }
}

/* ------------------------------------------------------------------------------------- the timer */

static void set_timer(struct control *control)
{
    uint64_t at_ns = UINT64_MAX;

    for (const struct peer_ask *ask = control->asks; ask; ask = ask->next) {
        if (ask->id == 0 && ask->until_ns < at_ns)
            at_ns = ask->until_ns;
    }
    if (at_ns != UINT64_MAX)
        (void)os_loop_timer(control->loop, &control->timer, at_ns); /* else: when it is up */
}

static void on_timer(void *user, uint64_t now_ns)
{
    struct control *control = user;
    struct peer_ask *next;

    if (control->asks && !control->conn) { /* asked while there was nothing to dial with */
        struct mc_error error = { 0 };
        const mc_status status =
            net_dial(control->net, control->address, &peer_events, control, &control->conn, &error);
        if (status != MC_OK) {
            end_unsent(control, status, error.text);
            return;
        }
    }
    send_all(control);
    for (struct peer_ask *ask = control->asks; ask; ask = next) {
        next = ask->next;
        if (ask->id != 0 || ask->until_ns > now_ns)
            continue;
        struct mc_error error = { 0 };
        error_set(&error, MC_E_TIMEOUT, "%s: not reached in time", control->address);
        end_ask(ask, MC_E_TIMEOUT, NULL, &error);
        next = control->asks;
    }
    set_timer(control);
}

/* ------------------------------------------------------------------------------------- for others */

void peer_init(struct control *control, struct net *ours, os_loop *loop, const char *address)
{
    *control = (struct control){
        .net = ours,
        .loop = loop,
        .address = address,
        .timer = { .due = on_timer, .user = control },
    };
}

void peer_ask(struct control *control, struct peer_ask *ask)
{
    assert(!ask->control);
    link_ask(control, ask);
    if (!control->conn || control->up) /* by the timer, so that nothing is answered in here */
        (void)os_loop_timer(control->loop, &control->timer, os_now_ns());
    else
        set_timer(control);
}

void peer_forget(struct peer_ask *ask)
{
    if (!ask->control)
        return;
    if (ask->id != 0 && ask->control->conn)
        net_ask_forget(ask->control->conn, ask->id);
    unlink_ask(ask);
}

void peer_close(struct control *control)
{
    if (!control->loop)
        return;
    os_loop_timer_stop(control->loop, &control->timer);
    for (struct peer_ask *ask = control->asks; ask; ask = ask->next) {
        if (ask->id != 0 && control->conn)
            net_ask_forget(control->conn, ask->id);
        ask->id = 0;
    }
    if (control->conn)
        net_hang_up(control->conn, false);
    control->conn = NULL;
    control->up = false;
    end_unsent(control, MC_E_CANCELLED, "closed");
}
