/* net_talk.c - bytes in, messages out: greeting, frames, questions and answers. */
#define _POSIX_C_SOURCE 200809L
#include "net/net_conn.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum {
    READS_MAX = 4,        /* at once, so that one who sends much does not keep others waiting */
    BODY_KEPT = 16 << 10, /* bytes of a buffer that an idle connection may keep */
    BODY_FIRST = 4 << 10,
};

/* -------------------------------------------------------------------------------------------- in */

static void dispatch_answer(net_conn *conn, const struct wire_frame *frame)
{
    struct ask *ask = asks_take(&conn->asks, frame->id);

    if (!ask)
        return; /* it was forgotten, or its time was over */
    os_loop_timer_stop(conn->net->options.loop, &ask->timer);
    const struct ask told = *ask;
    alloc_free(conn->net->options.alloc, ask);
    told.answered(told.user, MC_OK, frame);
}

static void answer_ping(net_conn *conn, const struct wire_frame *frame)
{
    struct mc_error error = { 0 };
    struct wire_ping ping;

    if (wire_decode(WIRE_PING, frame->body, frame->body_size, &ping, &error) != MC_OK) {
        conn_lost(conn, error.status, "ping: %s", error.text);
        return;
    }
    const struct wire_pong pong = { .mark = ping.mark };
    /* Who asks without reading answers gets no more of them once the queue is full. */
    (void)net_answer(conn, frame->id, WIRE_PONG, &pong);
}

/** An outcome of nothing that was asked: the peer says why it ends the connection. */
static void peer_refuses(net_conn *conn, const struct wire_frame *frame)
{
    struct mc_error error = { 0 };

    (void)net_take(frame, WIRE_OUTCOME, NULL, &error);
    conn_lost(conn, error.status == MC_E_DENIED ? MC_E_DENIED : MC_E_PEER,
              "ended the connection: %s", error.text);
}

static void dispatch(net_conn *conn, const struct wire_frame *frame)
{
    if (frame->flags & WIRE_ANSWER)
        dispatch_answer(conn, frame);
    else if (frame->kind == WIRE_PING)
        answer_ping(conn, frame);
    else if (frame->kind == WIRE_OUTCOME)
        peer_refuses(conn, frame);
    else if (frame->kind == WIRE_HELLO || frame->kind == WIRE_HELLO_PROOF)
        conn_lost(conn, MC_E_FORMAT, "a second greeting");
    else
        conn->events->message(conn->user, conn, frame);
}

/** The reader wants to collect a long body. */
static bool grow_body(net_conn *conn)
{
    const struct mc_alloc *alloc = conn->net->options.alloc;
    const size_t wanted = wire_reader_body(&conn->reader);
    const size_t capacity = wanted < BODY_FIRST ? BODY_FIRST : wanted;
    uint8_t *body = alloc_bytes(alloc, capacity);

    if (!body)
        return false;
    wire_reader_buffer(&conn->reader, body, capacity);
    alloc_free(alloc, conn->body);
    conn->body = body;
    conn->body_capacity = capacity;
    return true;
}

static void shrink_body(net_conn *conn)
{
    if (conn->body_capacity <= BODY_KEPT || wire_reader_body(&conn->reader) != 0)
        return;
    wire_reader_buffer(&conn->reader, NULL, 0);
    alloc_free(conn->net->options.alloc, conn->body);
    conn->body = NULL;
    conn->body_capacity = 0;
}

/** Whether to go on with what is left. */
static bool read_frame(net_conn *conn, const uint8_t *bytes, size_t size, size_t *used_p)
{
    struct mc_error error = { 0 };
    struct wire_frame frame;
    const mc_status status = wire_reader_feed(&conn->reader, bytes, size, used_p, &frame, &error);

    switch (status) {
    case MC_PENDING:
        return false;
    case MC_OK:
        dispatch(conn, &frame);
        if (conn->state == CONN_UP)
            shrink_body(conn);
        return true;
    case MC_E_FULL:
        if (grow_body(conn))
            return true;
        conn_lost(conn, MC_E_NOMEM, "out of memory for a message of %zu bytes",
                  wire_reader_body(&conn->reader));
        return false;
    default:
        conn_lost(conn, status, "%s", error.text);
        return false;
    }
}

static void consume(net_conn *conn, const uint8_t *bytes, size_t size)
{
    size_t used;
    bool more = true;

    for (size_t at = 0; at < size && more; at += used) {
        if (conn->state == CONN_GREETING)
            more = greet_read(conn, bytes + at, size - at, &used);
        else if (conn->state == CONN_UP)
            more = read_frame(conn, bytes + at, size - at, &used);
        else
            return; /* a callback hung up */
    }
}

/** The peer has ended its side. */
static void ended(net_conn *conn)
{
    if (conn->state == CONN_GREETING)
        conn_lost(conn, MC_E_PEER, "closed the connection before it had greeted");
    else if (conn->reader.have != 0)
        conn_lost(conn, MC_E_PEER, "closed the connection in the middle of a message");
    else
        conn_lost(conn, MC_E_PEER, "closed the connection");
}

void talk_read(net_conn *conn)
{
    uint8_t *in = conn->net->in;

    for (int i = 0; i < READS_MAX; i++) {
        const ssize_t n = recv(conn->watch.fd, in, NET_IN_BYTES, MSG_DONTWAIT);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0) {
            conn_lost(conn, MC_E_PEER, "%s", strerror(errno));
            return;
        }
        if (n == 0) {
            ended(conn);
            return;
        }
        conn->heard_ns = os_loop_now(conn->net->options.loop);
        conn->pinged = false;
        consume(conn, in, (size_t)n);
        if (n < NET_IN_BYTES || (conn->state != CONN_GREETING && conn->state != CONN_UP))
            return;
    }
}

/* ------------------------------------------------------------------------------------- questions */

static void ask_due(void *user, uint64_t now_ns)
{
    struct ask *ask = user;
    net_conn *conn = ask->conn;
    const struct ask told = *ask;

    (void)now_ns;
    asks_take(&conn->asks, ask->id);
    alloc_free(conn->net->options.alloc, ask);
    conn_enter(conn);
    told.answered(told.user, MC_E_TIMEOUT, NULL);
    conn_leave(conn);
}

void talk_end_asks(net_conn *conn, mc_status status)
{
    while (conn->asks.first) {
        struct ask *ask = asks_take(&conn->asks, conn->asks.first->id);
        os_loop_timer_stop(conn->net->options.loop, &ask->timer);
        const struct ask told = *ask;
        alloc_free(conn->net->options.alloc, ask);
        told.answered(told.user, status, NULL);
    }
}

/** Queue a message; it is sent now, or with others when the callback that sends it returns. */
static mc_status queue(net_conn *conn, const struct wire_frame *frame, const void *message)
{
    if (conn->broken)
        return MC_OK; /* lost on the way, as if it had been sent a moment earlier */
    const struct net_options *options = &conn->net->options;
    mc_status status = out_message(&conn->out, frame, message, options->out_max, options->alloc);
    if (status == MC_E_FULL && conn->busy != 0) { /* what this callback queued may go right now */
        conn_push(conn);
        status = out_message(&conn->out, frame, message, options->out_max, options->alloc);
    }
    if (status == MC_OK && conn->busy == 0)
        conn_push(conn);
    return status;
}

static mc_status ask_new(net_conn *conn, uint64_t deadline_ns, net_answered *answered, void *user,
                         struct ask **ask_p)
{
    const struct mc_alloc *alloc = conn->net->options.alloc;
    struct ask *ask = alloc_zeroed(alloc, 1, sizeof(*ask));

    if (!ask)
        return MC_E_NOMEM;
    *ask = (struct ask){
        .answered = answered, .user = user, .conn = conn, .timer = { .due = ask_due, .user = ask }
    };
    mc_status status = asks_add(&conn->asks, ask, conn->net->options.asks_max, alloc);
    if (status == MC_OK && deadline_ns != 0) {
        status = os_loop_timer(conn->net->options.loop, &ask->timer, deadline_ns);
        if (status != MC_OK)
            asks_take(&conn->asks, ask->id);
    }
    if (status != MC_OK) {
        alloc_free(alloc, ask);
        return status;
    }
    *ask_p = ask;
    return MC_OK;
}

mc_status net_ask(net_conn *conn, enum wire_kind kind, const void *message, uint64_t deadline_ns,
                  net_answered *answered, void *user, uint64_t *id_p)
{
    struct ask *ask;

    if (conn->state != CONN_UP)
        return MC_E_PEER;
    const uint64_t now_ns = deadline_ns ? os_now_ns() : 0;
    mc_status status = ask_new(conn, deadline_ns, answered, user, &ask);
    if (status != MC_OK)
        return status;
    const uint64_t id = ask->id;
    const struct wire_frame frame = {
        .kind = kind,
        .id = id,
        .deadline_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0,
    };
    /* What is late already is not sent: 0 would say that it has all the time in the world. */
    if (deadline_ns == 0 || deadline_ns > now_ns)
        status = queue(conn, &frame, message);
    if (status != MC_OK) {
        net_ask_forget(conn, id);
        return status;
    }
    if (id_p)
        *id_p = id;
    return MC_OK;
}

void net_ask_forget(net_conn *conn, uint64_t id)
{
    struct ask *ask = asks_take(&conn->asks, id);

    if (!ask)
        return;
    os_loop_timer_stop(conn->net->options.loop, &ask->timer);
    alloc_free(conn->net->options.alloc, ask);
}

mc_status net_send(net_conn *conn, enum wire_kind kind, const void *message)
{
    const struct wire_frame frame = { .kind = kind };

    return conn->state == CONN_UP ? queue(conn, &frame, message) : MC_E_PEER;
}

mc_status net_answer(net_conn *conn, uint64_t id, enum wire_kind kind, const void *message)
{
    const struct wire_frame frame = { .kind = kind, .flags = WIRE_ANSWER, .id = id };

    if (id == 0)
        return MC_OK;
    return conn->state == CONN_UP ? queue(conn, &frame, message) : MC_E_PEER;
}

mc_status net_answer_outcome(net_conn *conn, uint64_t id, mc_status status, const char *text)
{
    const struct wire_outcome outcome = { .status = status,
                                          .text =
                                              text ? wire_text(text) : (struct wire_slice){ 0 } };

    return net_answer(conn, id, WIRE_OUTCOME, &outcome);
}

void talk_ping(net_conn *conn)
{
    const struct wire_ping ping = { .mark = conn->heard_ns };
    const struct wire_frame frame = { .kind = WIRE_PING, .id = asks_draw_id(&conn->asks) };

    (void)queue(conn, &frame, &ping); /* a queue that is full says as much as a ping */
}

mc_status net_take(const struct wire_frame *frame, enum wire_kind kind, void *message,
                   struct mc_error *error)
{
    struct wire_outcome outcome;

    if (frame->kind == kind && kind != WIRE_OUTCOME)
        return wire_decode(kind, frame->body, frame->body_size, message, error);
    if (frame->kind != WIRE_OUTCOME)
        return error_set(error, MC_E_FORMAT, "a message of kind %u where %s is due", frame->kind,
                         wire_message(kind)->name);
    const mc_status status =
        wire_decode(WIRE_OUTCOME, frame->body, frame->body_size, &outcome, error);
    if (status != MC_OK)
        return status;
    if (outcome.status > MC_OK)
        return error_set(error, MC_E_FORMAT, "outcome: status %d is not an end", outcome.status);
    if (kind == WIRE_OUTCOME) {
        if (message)
            memcpy(message, &outcome, sizeof(outcome));
    } else if (outcome.status == MC_OK) {
        return error_set(error, MC_E_FORMAT, "the answer is a success, but without %s",
                         wire_message(kind)->name);
    }
    if (outcome.status == MC_OK)
        return MC_OK;
    if (outcome.text.size == 0)
        return error_set(error, outcome.status, "%s", mc_status_text(outcome.status));
    return error_set(error, outcome.status, "%.*s", (int)outcome.text.size,
                     (const char *)outcome.text.data);
}
