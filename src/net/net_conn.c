/* net_conn.c - a connection's life: dial, greet, up, lost, again; hang up, flush, end. */
#define _POSIX_C_SOURCE 200809L
#include "net/net_conn.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/clock.h"

enum { DROPS_MAX = 4 }; /* reads at once of what nobody wants any more */

static const uint64_t BACK_OFF_FIRST_NS = 10000000, BACK_OFF_MAX_NS = 1000000000;

static void conn_due(void *user, uint64_t now_ns);

void conn_timer(net_conn *conn, uint64_t ns)
{
    const uint64_t now_ns = os_now_ns();
    const uint64_t at_ns = ns < UINT64_MAX - now_ns ? now_ns + ns : UINT64_MAX;
    const mc_status status = os_loop_timer(conn->net->options.loop, &conn->timer, at_ns);

    assert(status == MC_OK);
    (void)status;
}

/* ------------------------------------------------------------------------------- memory and lists */

static void link_conn(net_conn *conn)
{
    conn->after = conn->net->conns;
    if (conn->after)
        conn->after->before = conn;
    conn->net->conns = conn;
}

static void unlink_conn(net_conn *conn)
{
    *(conn->before ? &conn->before->after : &conn->net->conns) = conn->after;
    if (conn->after)
        conn->after->before = conn->before;
}

/** Close the socket. What callbacks may still look at (a body) stays until conn_free or the next one. */
static void close_socket(net_conn *conn)
{
    if (!conn->open)
        return;
    os_loop_unwatch(conn->net->options.loop, &conn->watch);
    close(conn->watch.fd);
    conn->open = false;
}

static void free_buffers(net_conn *conn)
{
    const struct mc_alloc *alloc = conn->net->options.alloc;

    alloc_free(alloc, conn->handshake);
    conn->handshake = NULL;
    alloc_free(alloc, conn->body);
    conn->body = NULL;
    conn->body_capacity = 0;
    out_fini(&conn->out, alloc);
}

static void conn_free(net_conn *conn)
{
    free_buffers(conn);
    asks_fini(&conn->asks, conn->net->options.alloc);
    alloc_free(conn->net->options.alloc, conn);
}

void conn_enter(net_conn *conn)
{
    conn->busy++;
    conn->net->calling++;
}

void conn_leave(net_conn *conn)
{
    conn->net->calling--;
    if (--conn->busy > 0)
        return;
    if (conn->state == CONN_ENDED)
        conn_free(conn);
    else
        conn_push(conn);
}

void conn_end(net_conn *conn)
{
    if (conn->state == CONN_ENDED)
        return;
    conn_enter(conn);
    if (conn->state == CONN_FLUSHING)
        conn->net->flushing--;
    conn->state = CONN_ENDED;
    unlink_conn(conn);
    if (!conn->dialled)
        conn->net->accepted--;
    os_loop_timer_stop(conn->net->options.loop, &conn->timer);
    close_socket(conn);
    talk_end_asks(conn, MC_E_CANCELLED);
    conn_leave(conn);
}

/* ------------------------------------------------------------------------------------------ loss */

/** "peer 1.2.3.4:5 (name): why" */
static void describe(const net_conn *conn, const char *why, char *text, size_t size)
{
    const bool named = conn->state == CONN_UP;

    if (strstr(why, conn->address_text) == why) { /* it names the address itself */
        snprintf(text, size, "peer %s", why);
        return;
    }
    snprintf(text, size, "peer %s%s%s%s: %s", conn->address_text, named ? " (" : "",
             named ? conn->who.name : "", named ? ")" : "", why);
}

static void dial_later(net_conn *conn, bool was_up)
{
    const uint64_t now_ns = os_loop_now(conn->net->options.loop);
    /* Only one that held for a while begins anew: a peer that greets and falls at once is not hammered. */
    const bool held = was_up && now_ns - conn->up_ns >= BACK_OFF_MAX_NS;
    uint64_t wait_ns = conn->back_off_ns * 2;

    if (held || wait_ns == 0)
        wait_ns = BACK_OFF_FIRST_NS;
    if (wait_ns > BACK_OFF_MAX_NS)
        wait_ns = BACK_OFF_MAX_NS;
    conn->back_off_ns = wait_ns;
    conn_timer(conn, wait_ns);
}

void conn_lost(net_conn *conn, mc_status status, const char *format, ...)
{
    const bool was_up = conn->state == CONN_UP;
    char why[sizeof(((struct mc_error *)0)->text)];
    char text[sizeof(why) + OS_ADDRESS_TEXT + MC_NAME_MAX + 16];
    va_list args;

    assert(conn->state == CONN_DIALLING || conn->state == CONN_GREETING || was_up);
    va_start(args, format);
    vsnprintf(why, sizeof(why), format, args);
    va_end(args);
    describe(conn, why, text, sizeof(text));

    conn_enter(conn);
    conn->state = CONN_WAITING; /* whoever is told and asks again hears MC_E_PEER */
    close_socket(conn);
    free_buffers(conn);
    conn_timer(conn, UINT64_MAX);
    talk_end_asks(conn, MC_E_PEER);
    if (!conn->dialled && !was_up)
        conn->net->counts.ungreeted++;
    else if (conn->state != CONN_ENDED)
        conn->events->down(conn->user, conn, status, text);
    if (conn->state != CONN_ENDED) {
        if (conn->dialled)
            dial_later(conn, was_up);
        else
            conn_end(conn);
    }
    conn_leave(conn);
}

/* ------------------------------------------------------------------------------------- open ones */

/** The socket cannot be watched as it must: make it end, which is always told. */
static void watch_for(net_conn *conn, uint32_t events)
{
    if (os_loop_watch(conn->net->options.loop, &conn->watch, events) != MC_OK)
        (void)shutdown(conn->watch.fd, SHUT_RDWR);
}

void conn_push(net_conn *conn)
{
    if (!conn->open || conn->state == CONN_DIALLING)
        return;
    if (!conn->broken &&
        out_send(&conn->out, conn->watch.fd, conn->net->options.alloc) == MC_E_PEER) {
        /* What the peer said before it went, a refusal perhaps, is still to be read. */
        conn->broken = true;
        out_fini(&conn->out, conn->net->options.alloc);
    }
    if (conn->state == CONN_FLUSHING && out_waits(&conn->out) == 0 && !conn->shut) {
        conn->shut = true;
        (void)shutdown(conn->watch.fd, SHUT_WR);
    }
    watch_for(conn, OS_READABLE | (out_waits(&conn->out) ? (uint32_t)OS_WRITABLE : 0));
}

/** Hung up: what still comes is dropped until the peer ends too. Closing with bytes unread would make the
 * system throw away what it has not sent yet. */
static void drop_input(net_conn *conn)
{
    for (int i = 0; i < DROPS_MAX; i++) {
        const ssize_t n = recv(conn->watch.fd, conn->net->in, NET_IN_BYTES, MSG_DONTWAIT);
        if (n > 0 || (n < 0 && errno == EINTR))
            continue;
        if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            conn_end(conn);
        return;
    }
}

void conn_ready(void *user, uint32_t events)
{
    net_conn *conn = user;

    conn_enter(conn);
    if (conn->state == CONN_DIALLING)
        greet_dialled(conn);
    else if (!(events & (OS_READABLE | OS_HUNG_UP)))
        ; /* conn_leave() sends */
    else if (conn->state == CONN_FLUSHING)
        drop_input(conn);
    else
        talk_read(conn);
    conn_leave(conn);
}

/** Any bytes that come answer a ping: talk_read() takes `pinged` back. */
static void check_silence(net_conn *conn, uint64_t now_ns)
{
    const uint64_t silence_ns = conn->net->options.silence_ns;
    const uint64_t quiet_ns = now_ns - conn->heard_ns;

    if (silence_ns == 0)
        return;
    if (quiet_ns < silence_ns) {
        conn_timer(conn, silence_ns - quiet_ns);
    } else if (conn->pinged) {
        conn_lost(conn, MC_E_TIMEOUT, "silent for %llu ms",
                  (unsigned long long)(quiet_ns / 1000000));
    } else {
        conn->pinged = true;
        talk_ping(conn);
        conn_timer(conn, silence_ns);
    }
}

static void conn_due(void *user, uint64_t now_ns)
{
    net_conn *conn = user;

    conn_enter(conn);
    conn_timer(conn, UINT64_MAX); /* takes the place in the heap that has just become free */
    switch (conn->state) {
    case CONN_WAITING:
        greet_dial(conn);
        break;
    case CONN_DIALLING:
    case CONN_GREETING:
        conn_lost(conn, MC_E_TIMEOUT, "%s within %llu ms",
                  conn->state == CONN_DIALLING ? "does not answer" : "has not greeted",
                  (unsigned long long)(conn->net->options.greet_ns / 1000000));
        break;
    case CONN_UP:
        check_silence(conn, now_ns);
        break;
    case CONN_FLUSHING:
        conn_end(conn); /* the peer neither reads nor ends */
        break;
    case CONN_ENDED:
        break;
    }
    conn_leave(conn);
}

/* ------------------------------------------------------------------------------------ begin, end */

mc_status conn_open(net *n, const struct os_address *address, int fd,
                    const struct net_events *events, void *user, net_conn **conn_p)
{
    net_conn *conn = alloc_zeroed(n->options.alloc, 1, sizeof(*conn));

    if (!conn)
        goto err;
    *conn = (net_conn){ .net = n,
                        .events = events,
                        .user = user,
                        .dialled = fd < 0,
                        .address = *address,
                        .state = fd < 0 ? CONN_WAITING : CONN_GREETING };
    os_address_format(address, conn->address_text);
    conn->timer = (struct os_timer){ .due = conn_due, .user = conn };
    if (os_loop_timer(n->options.loop, &conn->timer, 0) != MC_OK)
        goto err_free;
    if (fd >= 0) {
        conn_timer(conn, n->options.greet_ns);
        if (greet_accepted(conn, fd) != MC_OK)
            goto err_stop;
    }
    link_conn(conn);
    if (fd >= 0) {
        n->accepted++;
        conn_push(conn);
    }
    *conn_p = conn;
    return MC_OK;

err_stop:
    os_loop_timer_stop(n->options.loop, &conn->timer);
    os_loop_unwatch(n->options.loop, &conn->watch);
err_free:
    conn_free(conn);
err:
    if (fd >= 0)
        close(fd);
    return MC_E_NOMEM;
}

void net_hang_up(net_conn *conn, bool flush)
{
    if (!conn || conn->state == CONN_ENDED || conn->state == CONN_FLUSHING)
        return;
    if (!flush || conn->state != CONN_UP || conn->broken) {
        conn_end(conn);
        return;
    }
    conn_enter(conn);
    conn->state = CONN_FLUSHING;
    conn->net->flushing++;
    conn_timer(conn, conn->net->options.greet_ns);
    talk_end_asks(conn, MC_E_CANCELLED);
    conn_leave(conn); /* sends, and ends our side if that was all */
}

void net_conn_user_set(net_conn *conn, void *user)
{
    conn->user = user;
}

bool net_conn_is_up(const net_conn *conn)
{
    return conn->state == CONN_UP;
}

const struct net_peer *net_conn_peer(const net_conn *conn)
{
    return conn->state == CONN_UP ? &conn->peer : NULL;
}
