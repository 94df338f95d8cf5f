/* tcp_serve.c - listen, accept, and give each connection its turn when its socket has news. */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "transfer/transport/tcp_served.h"

enum {
    EVENTS_MAX = 64,
    GREETING_MAX = 256,          /* accepted and not greeted; then others wait in the kernel */
    REST_NS = 100 * 1000 * 1000, /* no accepting, after descriptors or memory ran out */
};

struct tcp_server {
    struct tcp *tcp; /* borrowed */
    int listener, epoll;
    bool accepting;         /* the listener is watched */
    uint64_t rest_until_ns; /* 0: no rest */
    uint32_t connections, connections_max, greeting;
    struct tcp_served *first, *last; /* all; those that greet were accepted in the list's order */
};

/* ------------------------------------------------------------------------------------------- list */

static void list_add(struct tcp_server *server, struct tcp_served *served)
{
    served->previous = server->last;
    served->next = NULL;
    if (server->last)
        server->last->next = served;
    else
        server->first = served;
    server->last = served;
    server->connections++;
}

static void list_remove(struct tcp_server *server, struct tcp_served *served)
{
    if (served->previous)
        served->previous->next = served->next;
    else
        server->first = served->next;
    if (served->next)
        served->next->previous = served->previous;
    else
        server->last = served->previous;
    server->connections--;
}

/* ------------------------------------------------------------------------------------ connections */

static void log_ended(const struct tcp_server *server, const struct tcp_served *served,
                      const struct mc_error *error)
{
    const struct mc_log *log = &server->tcp->env->log;
    char line[sizeof(error->text) + 200], peer[OS_ADDRESS_TEXT];

    if (!log->write || log->level_max < MC_LOG_WARN)
        return;
    const int size = snprintf(line, sizeof(line), "event=tcp_ended peer=%s status=%s text=\"%s\"",
                              os_address_format(&served->peer, peer), mc_status_name(error->status),
                              error->text);
    log->write(log->context, MC_LOG_WARN, line, (size_t)size);
}

static void end(struct tcp_server *server, struct tcp_served *served)
{
    if (!served->conn.up)
        server->greeting--;
    list_remove(server, served);
    tcp_served_close(served);
    alloc_free(server->tcp->env->alloc, served);
}

/** Ask for the events that the connection waits for; false if epoll cannot. */
static bool watch(struct tcp_server *server, struct tcp_served *served, int operation)
{
    uint32_t interest = 0;

    if (!served->conn.up || tcp_served_ready(served))
        interest |= EPOLLIN;
    if (served->blocked || served->again)
        interest |= EPOLLOUT;
    if (operation == EPOLL_CTL_MOD && interest == served->interest)
        return true;
    struct epoll_event event = { .events = interest, .data.ptr = served };
    served->interest = interest;
    return epoll_ctl(server->epoll, operation, served->conn.fd, &event) == 0;
}

/** Give it its turn; it is ended and freed when there is something wrong. */
static void go(struct tcp_server *server, struct tcp_served *served, uint64_t now_ns)
{
    const bool was_up = served->conn.up;
    struct mc_error error = { 0 };
    const mc_status status = tcp_served_go(served, now_ns, &error);

    if (!was_up && served->conn.up)
        server->greeting--;
    if (status == MC_OK && watch(server, served, EPOLL_CTL_MOD))
        return;
    /* A peer that leaves is no news. */
    if (status != MC_OK && status != MC_E_PEER)
        log_ended(server, served, &error);
    end(server, served);
}

/** One that was accepted; closed again if there is no room. */
static void admit(struct tcp_server *server, int fd, const struct os_address *peer, uint64_t now_ns)
{
    struct mc_error error;
    struct tcp_served *served = NULL;

    if (server->connections < server->connections_max)
        served = alloc_bytes(server->tcp->env->alloc, sizeof(*served));
    if (!served) {
        close(fd);
        return;
    }
    served->peer = *peer;
    served->greet_by_ns = now_ns + server->tcp->options.greet;
    if (tcp_served_open(served, server->tcp, fd, &error) != MC_OK) {
        alloc_free(server->tcp->env->alloc, served);
        return;
    }
    list_add(server, served);
    server->greeting++;
    if (!watch(server, served, EPOLL_CTL_ADD))
        end(server, served);
    else
        go(server, served, now_ns); /* our greeting does not wait for theirs */
}

/* ---------------------------------------------------------------------------------------- accepting */

static void accept_set(struct tcp_server *server, bool accepting)
{
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };

    if (accepting == server->accepting)
        return;
    if (epoll_ctl(server->epoll, accepting ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, server->listener,
                  &event) == 0)
        server->accepting = accepting;
}

static void accept_some(struct tcp_server *server, uint64_t now_ns)
{
    while (server->greeting < GREETING_MAX) {
        struct os_address peer;
        int fd;
        const mc_status status = os_tcp_accept(server->listener, &fd, &peer);

        if (status == MC_PENDING)
            return;
        if (status != MC_OK) {
            server->rest_until_ns = now_ns + REST_NS;
            return;
        }
        admit(server, fd, &peer, now_ns);
    }
}

/** End those that greet too slowly; *next_ns_p: when the next one is due. */
static void end_silent(struct tcp_server *server, uint64_t now_ns, uint64_t *next_ns_p)
{
    uint32_t greeting = server->greeting;

    for (struct tcp_served *served = server->first, *next; served && greeting != 0; served = next) {
        next = served->next;
        if (served->conn.up)
            continue;
        greeting--;
        if (now_ns < served->greet_by_ns) {
            *next_ns_p = served->greet_by_ns;
            return;
        }
        end(server, served);
    }
}

void tcp_server_run(struct tcp_server *server, uint64_t now_ns, uint64_t *next_ns_p)
{
    struct epoll_event events[EVENTS_MAX];
    const int count = epoll_wait(server->epoll, events, EVENTS_MAX, 0);
    bool accepting = false;

    /* A connection is ended only in its own turn, so no event here is of one that is gone. */
    for (int i = 0; i < count; i++) {
        if (events[i].data.ptr)
            go(server, events[i].data.ptr, now_ns);
        else
            accepting = true;
    }
    if (accepting)
        accept_some(server, now_ns);

    *next_ns_p = 0;
    end_silent(server, now_ns, next_ns_p);
    if (now_ns >= server->rest_until_ns)
        server->rest_until_ns = 0;
    accept_set(server, server->rest_until_ns == 0 && server->greeting < GREETING_MAX);
    if (server->rest_until_ns != 0 && (*next_ns_p == 0 || server->rest_until_ns < *next_ns_p))
        *next_ns_p = server->rest_until_ns;
}

int tcp_server_fd(const struct tcp_server *server)
{
    return server->epoll;
}

/* --------------------------------------------------------------------------------------------- life */

/** The engine's host with our port. */
static mc_status listen_address(const struct tcp *tcp, struct os_address *address_p,
                                struct mc_error *error)
{
    const char *listen = tcp->env->listen ? tcp->env->listen : "127.0.0.1:0";
    const mc_status status = os_address_parse(listen, address_p, error);

    if (status == MC_OK)
        os_address_port_set(address_p, (uint16_t)tcp->options.port);
    return status;
}

mc_status tcp_server_open(struct tcp *tcp, struct os_address *bound_p, struct mc_error *error)
{
    const struct transport_env *env = tcp->env;
    const uint64_t sessions = env->sessions_max ? env->sessions_max : 1024;
    const uint64_t streams = env->streams > 4 ? env->streams : 4;
    struct os_address address;
    mc_status status = listen_address(tcp, &address, error);

    if (status != MC_OK)
        return status;
    struct tcp_server *server = alloc_zeroed(env->alloc, 1, sizeof(*server));
    if (!server)
        return error_set(error, MC_E_NOMEM, "tcp: out of memory");
    server->tcp = tcp;
    server->listener = server->epoll = -1;
    /* Peers choose how many sockets they open; this many are reasonable, more are closed. */
    server->connections_max =
        sessions * streams < UINT32_MAX ? (uint32_t)(sessions * streams) : UINT32_MAX;

    server->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (server->epoll < 0) {
        status = error_set(error, MC_E_IO, "tcp: epoll_create: %s", strerror(errno));
        goto err_close;
    }
    status = os_tcp_listen(&address, &server->listener, bound_p, error);
    if (status != MC_OK) {
        server->listener = -1;
        goto err_close;
    }
    tcp_socket_options(tcp, server->listener);
    accept_set(server, true);
    if (!server->accepting) {
        status = error_set(error, MC_E_IO, "tcp: epoll_ctl: %s", strerror(errno));
        goto err_close;
    }
    tcp->server = server;
    return MC_OK;

err_close:
    tcp_server_close(server);
    return status;
}

void tcp_server_close(struct tcp_server *server)
{
    if (!server)
        return;
    while (server->first)
        end(server, server->first);
    if (server->listener >= 0)
        close(server->listener);
    if (server->epoll >= 0)
        close(server->epoll);
    alloc_free(server->tcp->env->alloc, server);
}
