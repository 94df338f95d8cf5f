/* http.c - libmicrohttpd under our loop: its epoll descriptor, its times, its start and end. */
#define _POSIX_C_SOURCE 200809L
#include "gateway/http_state.h"

#include <assert.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum {
    BODY_MAX = 8 << 20,
    STREAM_MAX = 1 << 20,
    HEADERS_MAX = 32 << 10,
    CONNECTIONS_MAX = 4096,
    IDLE_S = 120,
    POOL_SPARE = 16 << 10, /* of a connection's memory, for what is sent */
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

void http_run_soon(http_server *h)
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
        http_run_soon(h);
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

/* ----------------------------------------------------------------------------------- open, close */

static mc_status start_daemon(http_server *h, const struct http_options *o, int listener,
                              struct mc_error *error)
{
    const size_t headers_max = o->headers_max ? o->headers_max : HEADERS_MAX;
    const unsigned idle_s = o->idle_s ? o->idle_s : IDLE_S;

    h->daemon = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME, 0, NULL, NULL, http_access, h,
        MHD_OPTION_LISTEN_SOCKET, listener, MHD_OPTION_NOTIFY_COMPLETED, http_completed, h,
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
        http_request_abort(r); /* a daemon with suspended connections cannot be stopped */
    os_loop_unwatch(h->loop, &h->watch);
    os_loop_timer_stop(h->loop, &h->timer);
    MHD_stop_daemon(h->daemon);
    assert(h->active == 0);
    alloc_free(h->alloc, h);
}
