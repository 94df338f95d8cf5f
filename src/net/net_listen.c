/* net_listen.c - listeners: who is let in, how many, and what happens when there is no room. */
#define _POSIX_C_SOURCE 200809L
#include "net/net_conn.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"

enum { ACCEPTS_MAX = 32 }; /* at once */

static const uint64_t PAUSE_NS = 100000000; /* while no descriptor is left */

/** Who waits would wake the loop again and again: look away for a while. */
static void pause_listener(struct net_listener *listener)
{
    os_loop *loop = listener->net->options.loop;

    os_loop_unwatch(loop, &listener->watch);
    const mc_status status = os_loop_timer(loop, &listener->timer, os_loop_now(loop) + PAUSE_NS);
    (void)status; /* it is set always: this takes no memory */
}

static void listener_due(void *user, uint64_t now_ns)
{
    struct net_listener *listener = user;

    (void)now_ns;
    (void)os_loop_timer(listener->net->options.loop, &listener->timer, UINT64_MAX);
    if (os_loop_watch(listener->net->options.loop, &listener->watch, OS_READABLE) != MC_OK)
        pause_listener(listener);
}

static void take_in(struct net_listener *listener, int fd, const struct os_address *peer)
{
    net *n = listener->net;
    net_conn *conn;

    if (n->accepted >= n->options.connections_max) {
        close(fd);
        n->counts.refused++;
    } else if (conn_open(n, peer, fd, listener->events, listener->user, &conn) != MC_OK) {
        n->counts.refused++;
    }
}

static void listener_ready(void *user, uint32_t events)
{
    struct net_listener *listener = user;
    struct os_address peer;
    int fd;

    (void)events;
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        const mc_status status = os_tcp_accept(listener->watch.fd, &fd, &peer);
        if (status == MC_PENDING)
            return;
        if (status != MC_OK) {
            pause_listener(listener);
            return;
        }
        take_in(listener, fd, &peer);
    }
}

void listener_close(struct net_listener *listener)
{
    net *n = listener->net;
    struct net_listener **at = &n->listeners;

    while (*at != listener)
        at = &(*at)->next;
    *at = listener->next;
    os_loop_timer_stop(n->options.loop, &listener->timer);
    os_loop_unwatch(n->options.loop, &listener->watch);
    close(listener->watch.fd);
    alloc_free(n->options.alloc, listener);
}

static mc_status listener_open(net *n, int fd, const struct net_events *events, void *user)
{
    struct net_listener *listener = alloc_zeroed(n->options.alloc, 1, sizeof(*listener));

    if (!listener) {
        close(fd);
        return MC_E_NOMEM;
    }
    *listener = (struct net_listener){
        .net = n,
        .next = n->listeners,
        .events = events,
        .user = user,
        .watch = { .fd = fd, .ready = listener_ready, .user = listener },
        .timer = { .due = listener_due, .user = listener },
    };
    n->listeners = listener;
    mc_status status = os_loop_timer(n->options.loop, &listener->timer, UINT64_MAX);
    if (status == MC_OK)
        status = os_loop_watch(n->options.loop, &listener->watch, OS_READABLE);
    if (status != MC_OK)
        listener_close(listener);
    return status;
}

mc_status net_listen(net *n, const char *address, bool insecure, const struct net_events *events,
                     void *user, char *address_p, size_t capacity, struct mc_error *error)
{
    struct os_address at, bound;
    int fd;

    if (os_address_parse(address, &at, error) != MC_OK) {
        if (error)
            error->status = MC_E_ARG;
        return MC_E_ARG;
    }
    if (!os_address_is_loopback(&at) && !n->options.secret && !insecure)
        return error_set(error, MC_E_DENIED,
                         "%s: other machines reach this address: give a secret (--secret-file), or "
                         "allow it without one (--insecure)",
                         address);
    mc_status status = os_tcp_listen(&at, &fd, &bound, error);
    if (status != MC_OK)
        return status;
    status = listener_open(n, fd, events, user);
    if (status != MC_OK)
        return error_set(error, status, "%s: out of memory for a listener", address);
    char text[OS_ADDRESS_TEXT];
    snprintf(address_p, capacity, "%s", os_address_format(&bound, text));
    return MC_OK;
}
