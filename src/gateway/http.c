/* http.c - libmicrohttpd under our loop: its epoll descriptor, its times, suspended connections. */
#define _POSIX_C_SOURCE 200809L
#include "gateway/http.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <microhttpd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/address.h"
#include "os/clock.h"

enum {
    BODY_MAX = 8 << 20,
    STREAM_MAX = 1 << 20,
    HEADERS_MAX = 32 << 10,
    CONNECTIONS_MAX = 4096,
    IDLE_S = 120,
    POOL_SPARE = 16 << 10,   /* of a connection's memory, for what is sent */
    STREAM_BLOCK = 16 << 10, /* bytes that a stream hands over at once */
    UPLOAD_EXCESS = 4,       /* a body this many times too long is not read to its end */
};

struct http_server {
    const struct mc_alloc *alloc;
    os_loop *loop;
    struct http_handler handler;
    uint64_t body_max, stream_max;
    struct MHD_Daemon *daemon; /* owned */
    struct os_watch watch;     /* the daemon's epoll descriptor */
    struct os_timer timer;     /* when the daemon wants to run though nothing happened */
    http_request *first;       /* every request under way */
    uint32_t active;
    uint32_t connections_max;
    bool again; /* something changed since the daemon last looked at it */
    bool full;  /* the daemon had connections_max when it last ran */
    bool closing;
    char address[OS_ADDRESS_TEXT];
};

enum state {
    STATE_READING, /* the body */
    STATE_WAITING, /* held, no answer yet */
    STATE_WHOLE,   /* answered whole */
    STATE_STREAM,  /* a stream is under way */
    STATE_ENDED,   /* all of the stream was added */
    STATE_ABORTED,
};

struct http_request {
    http_server *http;                 /* borrowed */
    struct MHD_Connection *connection; /* borrowed; valid until completed() */
    http_request *next, *previous;
    enum state state;
    bool suspended, queued, too_large;
    const char *method, *path; /* borrowed from the connection */
    struct buf body;
    uint64_t body_seen; /* bytes received, also those that were dropped */
    void (*gone)(void *user);
    void *user;
    struct os_watch watch; /* of the socket, for hang-ups */
    unsigned status;
    const char *content_type; /* static */
    struct buf headers;       /* name, NUL, value, NUL, ... */
    struct buf out;           /* the answer, or what of the stream waits from `sent` on */
    size_t sent;
};

/* ----------------------------------------------------------------------------------- the daemon */

static void arm(http_server *h)
{
    MHD_UNSIGNED_LONG_LONG ms;

    if (MHD_get_timeout(h->daemon, &ms) != MHD_YES)
        os_loop_timer_stop(h->loop, &h->timer);
    else /* out of memory for a timer: the next event runs the daemon instead */
        (void)os_loop_timer(h->loop, &h->timer, os_now_ns() + (uint64_t)ms * 1000000);
}

/* Also from within a run: a request's handler may answer others. */
static void run_soon(http_server *h)
{
    h->again = true; /* out of memory for a timer: the next event runs the daemon instead */
    (void)os_loop_timer(h->loop, &h->timer, os_loop_now(h->loop));
}

static bool is_full(const http_server *h)
{
    const union MHD_DaemonInfo *info =
        MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_CURRENT_CONNECTIONS);

    return info && info->num_connections >= h->connections_max;
}

/* A daemon that had as many connections as it takes listens again in the run after one was closed. */
static void run(http_server *h)
{
    h->again = false;
    MHD_run(h->daemon);
    arm(h);
    const bool full = is_full(h);
    if (h->again || (h->full && !full))
        run_soon(h);
    h->full = full;
}

static void daemon_ready(void *user, uint32_t events)
{
    (void)events;
    run(user);
}

static void daemon_due(void *user, uint64_t now_ns)
{
    (void)now_ns;
    run(user);
}

/* The daemon goes on with it in the loop's next turn and never here. */
static void resume(http_request *r)
{
    if (!r->suspended)
        return;
    r->suspended = false;
    MHD_resume_connection(r->connection);
    run_soon(r->http);
}

/* ----------------------------------------------------------------------------- a request's life */

static void forget_user(http_request *r)
{
    r->gone = NULL;
    r->user = NULL;
}

static void tell_gone(http_request *r)
{
    void (*gone)(void *) = r->gone;
    void *user = r->user;

    forget_user(r);
    if (gone)
        gone(user);
}

static void abort_request(http_request *r)
{
    r->state = STATE_ABORTED;
    resume(r);
}

static void hung_up(void *user, uint32_t events)
{
    http_request *r = user;

    if (!(events & OS_HUNG_UP))
        return;
    os_loop_unwatch(r->http->loop, &r->watch);
    abort_request(r);
    tell_gone(r);
}

static http_request *request_open(http_server *h, struct MHD_Connection *connection,
                                  const char *method, const char *path)
{
    http_request *r = alloc_zeroed(h->alloc, 1, sizeof(*r));

    if (!r)
        return NULL;
    *r = (http_request){
        .http = h,
        .connection = connection,
        .next = h->first,
        .method = method,
        .path = path,
        .body = BUF_INIT(h->alloc),
        .headers = BUF_INIT(h->alloc),
        .out = BUF_INIT(h->alloc),
    };
    if (h->first)
        h->first->previous = r;
    h->first = r;
    h->active++;
    return r;
}

static void request_close(http_request *r)
{
    http_server *h = r->http;

    os_loop_unwatch(h->loop, &r->watch);
    if (r->next)
        r->next->previous = r->previous;
    if (r->previous)
        r->previous->next = r->next;
    else
        h->first = r->next;
    buf_fini(&r->body);
    buf_fini(&r->headers);
    buf_fini(&r->out);
    alloc_free(h->alloc, r);
    h->active--;
}

/* libmicrohttpd: answered to the end, or cut off. The socket is still open. */
static void completed(void *user, struct MHD_Connection *connection, void **context,
                      enum MHD_RequestTerminationCode how)
{
    http_server *h = user;
    http_request *r = *context;

    (void)connection;
    (void)how;
    if (!r)
        return;
    *context = NULL;
    tell_gone(r);
    request_close(r);
    if (h->active == 0 && !h->closing)
        h->handler.quiet(h->handler.user);
}

/* ------------------------------------------------------------------------------------- answering */

static ssize_t read_stream(void *user, uint64_t position, char *bytes, size_t size)
{
    http_request *r = user;
    const size_t left = r->out.size - r->sent;

    (void)position;
    if (r->state == STATE_ABORTED)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    if (left > 0) {
        const size_t n = left < size ? left : size;
        memcpy(bytes, r->out.data + r->sent, n);
        r->sent += n;
        if (r->sent == r->out.size) {
            buf_truncate(&r->out, 0);
            r->sent = 0;
        }
        return (ssize_t)n;
    }
    if (r->state == STATE_ENDED)
        return MHD_CONTENT_READER_END_OF_STREAM;
    r->suspended = true;
    MHD_suspend_connection(r->connection);
    return 0;
}

static bool add_headers(const http_request *r, struct MHD_Response *response)
{
    const char *at = r->headers.data, *end = at + r->headers.size;

    if (r->headers.failed)
        return false;
    while (at < end) {
        const char *name = at, *value = name + strlen(name) + 1;
        if (MHD_add_response_header(response, name, value) != MHD_YES)
            return false;
        at = value + strlen(value) + 1;
    }
    return MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, r->content_type) ==
           MHD_YES;
}

static struct MHD_Response *make_response(http_request *r)
{
    if (r->state == STATE_WHOLE) /* the bytes stay in r->out until completed() */
        return r->out.failed ? NULL
                             : MHD_create_response_from_buffer(
                                   r->out.size, r->out.data ? r->out.data : (void *)(uintptr_t) "",
                                   MHD_RESPMEM_PERSISTENT);
    return MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, STREAM_BLOCK, read_stream, r, NULL);
}

/* Give libmicrohttpd what there is of an answer, or let the connection wait for it. */
static enum MHD_Result respond(http_request *r)
{
    enum MHD_Result done = MHD_NO;

    if (r->state == STATE_WAITING) {
        r->suspended = true;
        MHD_suspend_connection(r->connection);
        return MHD_YES;
    }
    if (r->state == STATE_ABORTED)
        return MHD_NO;
    struct MHD_Response *response = make_response(r);
    if (!response)
        return MHD_NO;
    if (add_headers(r, response))
        done = MHD_queue_response(r->connection, r->status, response);
    MHD_destroy_response(response);
    r->queued = done == MHD_YES;
    return done;
}

/* ------------------------------------------------------------------------------------ receiving */

static bool watch_socket(http_request *r)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(r->connection, MHD_CONNECTION_INFO_CONNECTION_FD);

    if (!info)
        return false;
    r->watch = (struct os_watch){ .fd = info->connect_fd, .ready = hung_up, .user = r };
    return os_loop_watch(r->http->loop, &r->watch, OS_HUNG_UP) == MC_OK;
}

static enum MHD_Result hand_over(http_request *r)
{
    http_server *h = r->http;

    if (r->body.failed || !watch_socket(r))
        return MHD_NO;
    r->state = STATE_WAITING;
    if (r->too_large)
        h->handler.too_large(h->handler.user, r);
    else
        h->handler.request(h->handler.user, r);
    assert(r->state != STATE_WAITING || r->gone);
    return respond(r);
}

/* Known to be too long from its header: refused before it is sent. */
static bool announces_too_much(const http_request *r)
{
    const char *text = http_header(r, MHD_HTTP_HEADER_CONTENT_LENGTH);

    return text && strtoull(text, NULL, 10) > r->http->body_max;
}

static enum MHD_Result take_body(http_request *r, const char *bytes, size_t size)
{
    const uint64_t max = r->http->body_max;

    r->body_seen += size;
    if (r->body_seen > max * UPLOAD_EXCESS)
        return MHD_NO;
    if (r->body_seen > max) {
        r->too_large = true; /* in chunks: an answer is possible at the end only */
        http_body_drop(r);
    } else
        buf_add(&r->body, bytes, size);
    return MHD_YES;
}

/* libmicrohttpd: once with the headers, with each part of the body, at its end, and when resumed. */
static enum MHD_Result access_handler(void *user, struct MHD_Connection *connection,
                                      const char *path, const char *method, const char *version,
                                      const char *bytes, size_t *size, void **context)
{
    http_request *r = *context;

    (void)version;
    if (!r) {
        r = request_open(user, connection, method, path);
        if (!r)
            return MHD_NO;
        *context = r;
        if (!announces_too_much(r))
            return MHD_YES;
        r->too_large = true;
        return hand_over(r);
    }
    if (*size > 0) {
        const enum MHD_Result taken =
            r->state == STATE_READING ? take_body(r, bytes, *size) : MHD_YES;
        *size = 0;
        return taken;
    }
    if (r->queued)
        return MHD_YES;
    return r->state == STATE_READING ? hand_over(r) : respond(r);
}

/* ----------------------------------------------------------------------------------- open, close */

static mc_status start_daemon(http_server *h, const struct http_options *o, int listener,
                              struct mc_error *error)
{
    const size_t headers_max = o->headers_max ? o->headers_max : HEADERS_MAX;
    const unsigned idle_s = o->idle_s ? o->idle_s : IDLE_S;

    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, access_handler, h,
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_NOTIFY_COMPLETED, completed, h,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, headers_max + POOL_SPARE, MHD_OPTION_CONNECTION_LIMIT,
        h->connections_max, MHD_OPTION_CONNECTION_TIMEOUT, idle_s, MHD_OPTION_STRICT_FOR_CLIENT, 1,
        MHD_OPTION_END);
    if (!h->daemon)
        return error_set(error, MC_E_IO, "%s: cannot start the HTTP server", h->address);
    const union MHD_DaemonInfo *info = MHD_get_daemon_info(h->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    h->watch = (struct os_watch){ .fd = info->epoll_fd, .ready = daemon_ready, .user = h };
    h->timer = (struct os_timer){ .due = daemon_due, .user = h };
    const mc_status status = os_loop_watch(h->loop, &h->watch, OS_READABLE);
    if (status != MC_OK) {
        MHD_stop_daemon(h->daemon); /* closes the listener */
        h->daemon = NULL;
        return error_set(error, status, "%s: cannot watch the HTTP server", h->address);
    }
    return MC_OK;
}

static mc_status listen_at(http_server *h, const struct http_options *o, int *listener_p,
                           struct mc_error *error)
{
    struct os_address address;

    mc_status status = os_address_parse(o->listen, &address, error);
    if (status == MC_OK && !o->insecure && !os_address_is_loopback(&address))
        status = error_set(error, MC_E_DENIED,
                           "%s: anyone who reaches this address could use the models: listen on a "
                           "loopback address, or say --insecure",
                           o->listen);
    if (status == MC_OK)
        status = os_tcp_listen(&address, listener_p, &address, error);
    if (status == MC_OK)
        os_address_format(&address, h->address);
    return status;
}

mc_status http_open(const struct http_options *o, http_server **server_p, struct mc_error *error)
{
    int listener = -1;
    http_server *h = alloc_zeroed(o->alloc, 1, sizeof(*h));

    assert(o->handler.request && o->handler.too_large && o->handler.quiet);
    if (!h)
        return error_set(error, MC_E_NOMEM, "out of memory for the HTTP server");
    *h = (http_server){
        .alloc = o->alloc,
        .loop = o->loop,
        .handler = o->handler,
        .body_max = o->body_max ? o->body_max : BODY_MAX,
        .stream_max = o->stream_max ? o->stream_max : STREAM_MAX,
        .connections_max = o->connections_max ? o->connections_max : CONNECTIONS_MAX,
    };
    mc_status status = listen_at(h, o, &listener, error);
    if (status != MC_OK)
        goto err_free;
    status = start_daemon(h, o, listener, error);
    if (status != MC_OK)
        goto err_free;
    arm(h);
    *server_p = h;
    return MC_OK;

err_free:
    alloc_free(o->alloc, h);
    return status;
}

const char *http_address(const http_server *h)
{
    return h->address;
}

void http_quiesce(http_server *h)
{
    const MHD_socket listener = MHD_quiesce_daemon(h->daemon);

    if (listener != MHD_INVALID_SOCKET)
        close(listener);
}

uint32_t http_active(const http_server *h)
{
    return h->active;
}

void http_close(http_server *h)
{
    if (!h)
        return;
    h->closing = true;
    for (http_request *r = h->first; r; r = r->next)
        abort_request(r); /* a daemon with suspended connections cannot be stopped */
    os_loop_unwatch(h->loop, &h->watch);
    os_loop_timer_stop(h->loop, &h->timer);
    MHD_stop_daemon(h->daemon);
    assert(h->active == 0);
    alloc_free(h->alloc, h);
}

/* ----------------------------------------------------------------------------- the user's side */

const char *http_method(const http_request *r)
{
    return r->method;
}

const char *http_path(const http_request *r)
{
    return r->path;
}

const char *http_header(const http_request *r, const char *name)
{
    return MHD_lookup_connection_value(r->connection, MHD_HEADER_KIND, name);
}

const char *http_body(const http_request *r, size_t *size_p)
{
    *size_p = r->body.size;
    return r->body.data ? r->body.data : "";
}

void http_hold(http_request *r, void (*gone)(void *user), void *user)
{
    assert(r->state == STATE_WAITING && gone);
    r->gone = gone;
    r->user = user;
}

void http_body_drop(http_request *r)
{
    const struct mc_alloc *alloc = r->body.alloc;

    buf_fini(&r->body);
    r->body = BUF_INIT(alloc);
}

static bool is_header_text(const char *text)
{
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

void http_header_add(http_request *r, const char *name, const char *value)
{
    if (!is_header_text(value))
        return;
    buf_add(&r->headers, name, strlen(name) + 1);
    buf_add(&r->headers, value, strlen(value) + 1);
}

void http_answer(http_request *r, unsigned status, const char *content_type, struct buf *body)
{
    assert(r->state == STATE_WAITING && body->alloc == r->out.alloc);
    forget_user(r);
    r->status = status;
    r->content_type = content_type;
    r->out = *body;
    *body = BUF_INIT(r->out.alloc);
    r->state = STATE_WHOLE;
    resume(r);
}

void http_stream_begin(http_request *r, const char *content_type)
{
    assert(r->state == STATE_WAITING);
    r->status = MHD_HTTP_OK;
    r->content_type = content_type;
    r->state = STATE_STREAM;
    resume(r);
}

/* What was sent makes room, once it is the larger part: so each byte moves about once. */
static void compact(http_request *r)
{
    if (r->sent < r->out.size / 2 || r->sent == 0)
        return;
    memmove(r->out.data, r->out.data + r->sent, r->out.size - r->sent);
    buf_truncate(&r->out, r->out.size - r->sent);
    r->sent = 0;
}

mc_status http_stream_add(http_request *r, const void *bytes, size_t size)
{
    assert(r->state == STATE_STREAM);
    if (r->out.size - r->sent + size > r->http->stream_max)
        return MC_E_FULL;
    compact(r);
    buf_add(&r->out, bytes, size);
    if (r->out.failed)
        return MC_E_NOMEM;
    resume(r);
    return MC_OK;
}

void http_stream_end(http_request *r)
{
    assert(r->state == STATE_STREAM);
    forget_user(r);
    r->state = STATE_ENDED;
    resume(r);
}

void http_abort(http_request *r)
{
    forget_user(r);
    abort_request(r);
}
