/* http_connection.c - a connection: bytes become requests, phases follow each other, time runs out. */
#define _POSIX_C_SOURCE 200809L
#include "gateway/http_state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "os/random.h"

static const uint64_t LINGER_NS = 2000000000, LINGER_BYTES = 64 << 20;

/* --------------------------------------------------------------------------------- time and place */

/* Out of memory for a timer: it was set before (then this cannot be), or this connection has no bound. */
static void set_timer(http_request *c, uint64_t after_ns)
{
    (void)os_loop_timer(c->http->loop, &c->timer, os_loop_now(c->http->loop) + after_ns);
}

static void stop_timer(http_request *c)
{
    os_loop_timer_stop(c->http->loop, &c->timer);
}

static void become_idle(http_request *c)
{
    set_timer(c, c->served ? c->http->idle_ns : c->http->receive_ns);
    http_link_add(&c->http->idle, &c->idle);
    http_listen_again(c->http);
}

/* The first bytes of a request: from now on its time counts. */
static void become_busy(http_request *c)
{
    if (!c->idle.next)
        return;
    http_link_drop(&c->idle);
    set_timer(c, c->http->receive_ns);
}

/* What the socket is watched for. A hang-up is always told. False: it cannot be watched. */
static bool watch(http_request *c)
{
    uint32_t events = 0;

    if (c->waits)
        events = 0;
    else if (c->phase == HTTP_HEAD || c->phase == HTTP_BODY || c->phase == HTTP_LINGER)
        events = OS_READABLE;
    else if (c->head_out.size + c->out.size > c->head_sent + c->sent)
        events = OS_WRITABLE;
    return os_loop_watch(c->http->loop, &c->watch, events) == MC_OK;
}

/* ------------------------------------------------------------------------------------ life, death */

static void tell_gone(http_request *c)
{
    void (*gone)(void *) = c->gone;
    void *user = c->user;

    c->gone = NULL;
    c->user = NULL;
    if (gone)
        gone(user);
}

static void uncount(http_request *c)
{
    http_server *h = c->http;

    if (!c->counted)
        return;
    c->counted = false;
    if (--h->active == 0 && !h->closing)
        h->handler.quiet(h->handler.user);
}

void http_connection_close(http_request *c)
{
    http_server *h = c->http;

    c->phase = HTTP_ABORTED;
    tell_gone(c);
    os_loop_unwatch(h->loop, &c->watch);
    stop_timer(c);
    http_link_drop(&c->all);
    http_link_drop(&c->idle);
    http_link_drop(&c->dirty);
    http_link_drop(&c->bucket);
    http_request_reset(c);
    buf_fini(&c->in);
    close(c->watch.fd);
    h->counts.connections--;
    uncount(c);
    alloc_free(h->alloc, c);
    http_listen_again(h);
}

static void ready(void *user, uint32_t events);
static void due(void *user, uint64_t now_ns);

mc_status http_connection_open(http_server *h, int fd, const struct os_address *peer)
{
    http_request *c = alloc_zeroed(h->alloc, 1, sizeof(*c));

    if (!c) {
        close(fd);
        return MC_E_NOMEM;
    }
    *c = (http_request){
        .http = h,
        .peer = *peer,
        .watch = { .fd = fd, .ready = ready, .user = c },
        .timer = { .due = due, .user = c },
        .in = BUF_INIT(h->alloc),
    };
    http_request_reset(c);
    http_link_add(&h->all, &c->all);
    h->counts.connections++;
    if (!watch(c) || os_loop_timer(h->loop, &c->timer, os_loop_now(h->loop)) != MC_OK) {
        http_connection_close(c);
        return MC_E_NOMEM;
    }
    become_idle(c);
    return MC_OK;
}

/* ------------------------------------------------------------------------------------- receiving */

/* Forget the first `size` bytes of what came. An idle connection holds no buffer. */
static void consume(http_request *c, size_t size)
{
    const struct mc_alloc *alloc = c->in.alloc;
    const size_t left = c->in.size - size;

    if (left == 0) {
        buf_fini(&c->in);
        c->in = BUF_INIT(alloc);
        return;
    }
    memmove(c->in.data, c->in.data + size, left);
    buf_truncate(&c->in, left);
}

/* Ours, unless the client brought one that is fit for logs and headers. */
static void name_request(http_request *c)
{
    const char *theirs = http_header(c, "X-Request-Id");
    const size_t size = theirs ? strlen(theirs) : 0;

    if (size > 0 && size <= HTTP_ID_MAX &&
        strspn(theirs, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:") ==
            size)
        memcpy(c->id, theirs, size + 1);
    else
        (void)snprintf(c->id, sizeof(c->id), "req-%016" PRIx64, os_random_u64());
}

static void count(http_request *c)
{
    if (!c->counted)
        c->http->active++;
    c->counted = true;
}

/* What is not a request, or not one that is taken, is answered too, and nothing more is read. */
static void refuse(http_request *c, const struct http_wrong *w)
{
    http_server *h = c->http;

    http_link_drop(&c->idle);
    stop_timer(c);
    count(c);
    if (c->id[0] == '\0')
        name_request(c);
    if (w->status == 503)
        h->counts.no_room++;
    else
        h->counts.refused++;
    http_body_drop(c);
    c->keep = false;
    c->unread = true;
    c->phase = HTTP_WAITING;
    h->handler.refuse(h->handler.user, c, w->status, w->code, w->text);
    assert(c->phase == HTTP_WHOLE || c->phase == HTTP_ABORTED);
}

static void refuse_size(http_request *c)
{
    refuse(c, &(struct http_wrong){ 413, "body_too_large", "the body is too long" });
}

static void refuse_for_room(http_request *c)
{
    refuse(c, &(struct http_wrong){ 503, "overloaded",
                                    "too many bytes of other requests are being received" });
}

static void hand_over(http_request *c)
{
    http_server *h = c->http;

    stop_timer(c);
    c->phase = HTTP_WAITING;
    h->handler.request(h->handler.user, c);
    assert(c->phase != HTTP_WAITING || c->gone);
}

/* Whether the body is wanted. If not, it stays unread, and the connection cannot go on behind it. */
static bool admit(http_request *c, bool comes)
{
    const bool keep = c->keep;

    c->phase = HTTP_WAITING;
    c->keep = keep && !comes;
    c->unread = comes;
    if (!c->http->handler.admit(c->http->handler.user, c)) {
        assert(c->phase == HTTP_WHOLE || c->phase == HTTP_ABORTED);
        stop_timer(c);
        return false;
    }
    c->keep = keep;
    c->unread = false;
    return true;
}

/* The headers are there. */
static void begin_body(http_request *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    http_server *h = c->http;
    const bool comes = c->head.chunked || c->head.length > 0;

    if (h->handler.admit && !admit(c, comes))
        return;
    if (c->head.length > h->body_max) {
        refuse_size(c);
        return;
    }
    if (c->head.length >
        h->bodies_max - h->bodies) { /* before it is sent; nothing is kept free for it */
        refuse_for_room(c);
        return;
    }
    c->left = c->head.length;
    c->phase = HTTP_BODY;
    if (comes && c->head.expects && c->in.size == 0 &&
        send(c->watch.fd, go_on, sizeof(go_on) - 1, MSG_NOSIGNAL | MSG_DONTWAIT) !=
            sizeof(go_on) - 1)
        c->phase = HTTP_ABORTED; /* not even that could be sent */
}

static void begin_request(http_request *c)
{
    struct http_wrong w;

    count(c);
    buf_add(&c->text, c->in.data, c->scan.at);
    consume(c, c->scan.at);
    if (c->text.failed) {
        c->phase = HTTP_ABORTED;
        return;
    }
    const bool right = http_head_read(c->text.data, c->text.size, &c->head, &w);
    c->keep = right && c->head.keep;
    name_request(c);
    if (right)
        begin_body(c);
    else
        refuse(c, &w);
}

/* False: more bytes are needed. */
static bool run_head(http_request *c)
{
    struct http_wrong w;

    if (c->in.size == 0) {
        if (!c->idle.next && c->served)
            become_idle(c);
        return false;
    }
    become_busy(c);
    switch (http_scan(&c->scan, c->in.data, c->in.size, c->http->headers_max, &w)) {
    case HTTP_SCAN_MORE:
        return false;
    case HTTP_SCAN_WHOLE:
        begin_request(c);
        return true;
    case HTTP_SCAN_WRONG:
        refuse(c, &w);
        return true;
    }
    return false;
}

/* False: there is no room; refused. */
static bool take_body(http_request *c, const char *data, size_t size)
{
    http_server *h = c->http;

    if (size > h->bodies_max - h->bodies) {
        refuse_for_room(c);
        return false;
    }
    buf_add(&c->body, data, size);
    c->body_bytes += size;
    h->bodies += size;
    return true;
}

static void run_length(http_request *c)
{
    const size_t n = c->left < c->in.size ? (size_t)c->left : c->in.size;

    if (!take_body(c, c->in.data, n))
        return;
    c->left -= n;
    consume(c, n);
}

static void run_chunks(http_request *c)
{
    size_t at = 0;

    while (at < c->in.size && !http_chunks_done(&c->chunks)) {
        const char *data;
        size_t size;
        at += http_chunks_take(&c->chunks, c->in.data + at, c->in.size - at, &data, &size);
        if (http_chunks_wrong(&c->chunks)) {
            refuse(c, &(struct http_wrong){ 400, "bad_request",
                                            "the body is not in chunks as HTTP has them" });
            return;
        }
        if (size > c->http->body_max - c->body.size) {
            refuse_size(c);
            return;
        }
        if (!take_body(c, data, size))
            return;
    }
    consume(c, at);
}

/* False: more bytes are needed. */
static bool run_body(http_request *c)
{
    if (c->head.chunked)
        run_chunks(c);
    else
        run_length(c);
    if (c->phase != HTTP_BODY)
        return true;
    if (c->body.failed)
        c->phase = HTTP_ABORTED;
    else if (c->head.chunked ? http_chunks_done(&c->chunks) : c->left == 0)
        hand_over(c);
    return c->phase != HTTP_BODY;
}

/* ------------------------------------------------------------------------------------- answering */

/* Others come first before what this client sent behind its request: a thousand short ones fit in one read. */
static void wait_for_turn(http_request *c)
{
    c->waits = c->in.size > 0;
    if (c->waits)
        http_mark(c);
}

/* The answer is out. */
static void finish(http_request *c)
{
    const bool unread = c->unread || c->in.size > 0, keep = c->keep && !c->http->quiesced;

    http_request_reset(c);
    c->served = true;
    if (keep) {
        c->phase = HTTP_HEAD;
        set_timer(c,
                  c->http->receive_ns); /* of what came behind it; if nothing did, it gets idle */
        wait_for_turn(c);
    } else if (unread) {
        /* Closed with bytes unread, it would be reset, and the answer perhaps lost on its way. */
        (void)shutdown(c->watch.fd, SHUT_WR);
        consume(c, c->in.size);
        c->phase = HTTP_LINGER;
        set_timer(c, LINGER_NS);
    } else
        c->phase = HTTP_ABORTED;
    uncount(c);
}

/* False: the socket is full, or a stream has no more yet. */
static bool run_answer(http_request *c)
{
    const mc_status status = http_send(c);
    const bool whole = c->phase != HTTP_STREAM;

    if (status == MC_E_PEER) {
        c->phase = HTTP_ABORTED;
        return true;
    }
    if (status == MC_OK && whole) {
        stop_timer(c);
        finish(c);
        return true;
    }
    if (whole && !c->timer.place)
        set_timer(c, c->http->idle_ns);
    return false;
}

void http_connection_run(http_request *c)
{
    bool more = true;

    c->waits = false;
    while (more && !c->waits) {
        switch (c->phase) {
        case HTTP_HEAD:
            more = run_head(c);
            break;
        case HTTP_BODY:
            more = run_body(c);
            break;
        case HTTP_WHOLE:
        case HTTP_STREAM:
        case HTTP_ENDED:
            more = run_answer(c);
            break;
        case HTTP_ABORTED:
            http_connection_close(c);
            return;
        case HTTP_WAITING:
        case HTTP_LINGER:
            more = false;
            break;
        }
    }
    if (!watch(c))
        http_connection_close(c);
}

/* ---------------------------------------------------------------------------------------- events */

/* The client sends no more: what is not whole never will be. */
static void ended(http_request *c)
{
    if (c->phase == HTTP_BODY)
        refuse(c, &(struct http_wrong){ 400, "bad_request", "the body ends before its end" });
    else
        c->phase = HTTP_ABORTED;
    c->unread = false;
}

static void receive(http_request *c)
{
    http_server *h = c->http;

    const ssize_t n = recv(c->watch.fd, h->scratch, HTTP_SCRATCH, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n < 0)
        c->phase = HTTP_ABORTED;
    else if (n == 0)
        ended(c);
    else if (c->phase == HTTP_LINGER) {
        c->lingered += (uint64_t)n;
        if (c->lingered > LINGER_BYTES)
            c->phase = HTTP_ABORTED;
    } else {
        buf_add(&c->in, h->scratch, (size_t)n);
        if (c->in.failed)
            c->phase = HTTP_ABORTED;
    }
    http_connection_run(c);
}

static void ready(void *user, uint32_t events)
{
    http_request *c = user;

    if (c->waits) /* a hang-up is found out by its turn */
        return;
    if (c->phase == HTTP_HEAD || c->phase == HTTP_BODY || c->phase == HTTP_LINGER)
        receive(c);
    else if (events & OS_HUNG_UP)
        http_connection_close(c);
    else
        http_connection_run(c);
}

static void due(void *user, uint64_t now_ns)
{
    static const struct http_wrong late = { 408, "request_timeout",
                                            "the request did not arrive in time" };
    http_request *c = user;

    (void)now_ns;
    c->http->counts.late += c->idle.next == NULL && c->phase != HTTP_LINGER;
    if (c->phase == HTTP_BODY || (c->phase == HTTP_HEAD && c->in.size > 0)) {
        refuse(c, &late);
        http_connection_run(c);
    } else
        http_connection_close(c);
}
