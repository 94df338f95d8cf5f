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
#include "os/random.h"

enum { DROPS_MAX = 4 }; /* reads at once of what nobody wants any more */

static const uint64_t BACK_OFF_FIRST_NS = 10000000, BACK_OFF_MAX_NS = 1000000000;

static void conn_ready(void *user, uint32_t events);
static void conn_due(void *user, uint64_t now_ns);

/** It is set always, so this takes no memory and cannot fail. */
static void set_timer(net_conn *conn, uint64_t at_ns)
{
    const mc_status status = os_loop_timer(conn->net->options.loop, &conn->timer, at_ns);

    assert(status == MC_OK);
    (void)status;
}

/** `ns` from now, or never. */
static uint64_t from_now(const net_conn *conn, uint64_t ns)
{
    const uint64_t now_ns = os_loop_now(conn->net->options.loop);

    return ns < UINT64_MAX - now_ns ? now_ns + ns : UINT64_MAX;
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
    set_timer(conn, from_now(conn, wait_ns));
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
    set_timer(conn, UINT64_MAX);
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

/* ----------------------------------------------------------------------------------------- greet */

static mc_status begin_greeting(net_conn *conn, struct mc_error *error)
{
    const struct mc_alloc *alloc = conn->net->options.alloc;
    struct mc_identity nonce;
    const uint8_t *bytes;

    conn->handshake = alloc_bytes(alloc, sizeof(*conn->handshake));
    if (!conn->handshake)
        return error_set(error, MC_E_NOMEM, "out of memory for a greeting");
    os_random(&nonce, sizeof(nonce));
    mc_status status =
        wire_handshake_init(conn->handshake, &conn->net->self, conn->dialled, &nonce, error);
    if (status != MC_OK)
        return status;
    const size_t size = wire_handshake_out(conn->handshake, &bytes);
    status = out_add(&conn->out, bytes, size, alloc);
    if (status != MC_OK)
        return error_set(error, status, "out of memory for a greeting");
    wire_handshake_sent(conn->handshake, size);
    return MC_OK;
}

/** The socket `fd`, which is the connection's from here. */
static mc_status take_socket(net_conn *conn, int fd, uint32_t events)
{
    conn->watch = (struct os_watch){ .fd = fd, .ready = conn_ready, .user = conn };
    conn->open = true;
    conn->broken = conn->shut = false;
    return os_loop_watch(conn->net->options.loop, &conn->watch, events);
}

static void greet(net_conn *conn)
{
    struct mc_error error = { 0 };

    conn->state = CONN_GREETING;
    if (begin_greeting(conn, &error) != MC_OK)
        conn_lost(conn, error.status, "%s", error.text);
}

static void dial(net_conn *conn)
{
    struct mc_error error = { 0 };
    int fd;

    conn->state = CONN_DIALLING;
    if (os_tcp_dial(&conn->address, &fd, &error) != MC_OK) {
        conn_lost(conn, error.status, "%s", error.text);
        return;
    }
    set_timer(conn, from_now(conn, conn->net->options.greet_ns));
    const mc_status status = take_socket(conn, fd, OS_WRITABLE);
    if (status != MC_OK)
        conn_lost(conn, status, "cannot watch the socket: %s", mc_status_text(status));
}

static void dialled(net_conn *conn)
{
    struct mc_error error = { 0 };
    const mc_status status = os_tcp_dialled(conn->watch.fd, &conn->address, &error);

    if (status == MC_OK)
        greet(conn);
    else if (status != MC_PENDING)
        conn_lost(conn, status, "%s", error.text);
}

void conn_up(net_conn *conn)
{
    const struct mc_alloc *alloc = conn->net->options.alloc;

    conn->who = *wire_handshake_peer(conn->handshake);
    alloc_free(alloc, conn->handshake);
    conn->handshake = NULL;
    conn->peer = (struct net_peer){
        .incarnation = conn->who.incarnation,
        .features = conn->who.features,
        .role = conn->who.role,
        .name = conn->who.name,
        .software = conn->who.software,
        .segment = conn->who.segment,
        .tenant = conn->who.tenant,
        .address = conn->address_text,
        .host = conn->who.host,
    };
    wire_reader_init(&conn->reader, NULL, 0, WIRE_BODY_MAX, 0);
    asks_begin(&conn->asks, os_random_u64());
    conn->state = CONN_UP;
    conn->up_ns = conn->heard_ns;
    conn->pinged = false;
    set_timer(conn, conn->net->options.silence_ns ? from_now(conn, conn->net->options.silence_ns)
                                                  : UINT64_MAX);
    if (!conn->dialled)
        conn->net->counts.accepted++;
    conn->events->up(conn->user, conn, &conn->peer);
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

static void conn_ready(void *user, uint32_t events)
{
    net_conn *conn = user;

    conn_enter(conn);
    if (conn->state == CONN_DIALLING)
        dialled(conn);
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
        set_timer(conn, conn->heard_ns + silence_ns);
    } else if (conn->pinged) {
        conn_lost(conn, MC_E_TIMEOUT, "silent for %llu ms",
                  (unsigned long long)(quiet_ns / 1000000));
    } else {
        conn->pinged = true;
        talk_ping(conn);
        set_timer(conn, from_now(conn, silence_ns));
    }
}

static void conn_due(void *user, uint64_t now_ns)
{
    net_conn *conn = user;

    conn_enter(conn);
    set_timer(conn, UINT64_MAX); /* takes the place in the heap that has just become free */
    switch (conn->state) {
    case CONN_WAITING:
        dial(conn);
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
    if (os_loop_timer(n->options.loop, &conn->timer,
                      fd < 0 ? 0 : from_now(conn, n->options.greet_ns)) != MC_OK)
        goto err_free;
    if (fd >= 0 &&
        (take_socket(conn, fd, OS_READABLE) != MC_OK || begin_greeting(conn, NULL) != MC_OK))
        goto err_stop;
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
    set_timer(conn, from_now(conn, conn->net->options.greet_ns));
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
