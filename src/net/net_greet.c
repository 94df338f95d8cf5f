/* net_greet.c - from nothing to up: dial, greet, know each other. */
#include "net/net_conn.h"

#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "os/random.h"

/** What the handshake wants to say. */
static mc_status queue_handshake(net_conn *conn)
{
    const uint8_t *bytes;
    const size_t size = wire_handshake_out(conn->handshake, &bytes);
    const mc_status status = out_add(&conn->out, bytes, size, conn->net->options.alloc);

    if (status == MC_OK)
        wire_handshake_sent(conn->handshake, size);
    return status;
}

static mc_status begin(net_conn *conn, struct mc_error *error)
{
    struct mc_identity nonce;

    conn->handshake = alloc_bytes(conn->net->options.alloc, sizeof(*conn->handshake));
    if (!conn->handshake)
        return error_set(error, MC_E_NOMEM, "out of memory for a greeting");
    os_random(&nonce, sizeof(nonce));
    mc_status status =
        wire_handshake_init(conn->handshake, &conn->net->self, conn->dialled, &nonce, error);
    if (status != MC_OK)
        return status;
    status = queue_handshake(conn);
    return status == MC_OK ? MC_OK : error_set(error, status, "out of memory for a greeting");
}

static mc_status take_socket(net_conn *conn, int fd, uint32_t events)
{
    conn->watch = (struct os_watch){ .fd = fd, .ready = conn_ready, .user = conn };
    conn->open = true;
    conn->broken = conn->shut = false;
    return os_loop_watch(conn->net->options.loop, &conn->watch, events);
}

mc_status greet_accepted(net_conn *conn, int fd)
{
    const mc_status status = take_socket(conn, fd, OS_READABLE);

    conn->state = CONN_GREETING;
    return status == MC_OK ? begin(conn, NULL) : status;
}

void greet_dial(net_conn *conn)
{
    struct mc_error error = { 0 };
    int fd;

    conn->state = CONN_DIALLING;
    if (os_tcp_dial(&conn->address, &fd, &error) != MC_OK) {
        conn_lost(conn, error.status, "%s", error.text);
        return;
    }
    conn_timer(conn, conn->net->options.greet_ns);
    const mc_status status = take_socket(conn, fd, OS_WRITABLE);
    if (status != MC_OK)
        conn_lost(conn, status, "cannot watch the socket: %s", mc_status_text(status));
}

void greet_dialled(net_conn *conn)
{
    struct mc_error error = { 0 };
    mc_status status = os_tcp_dialled(conn->watch.fd, &conn->address, &error);

    if (status == MC_PENDING)
        return;
    if (status == MC_OK) {
        conn->state = CONN_GREETING;
        status = begin(conn, &error);
    }
    if (status != MC_OK)
        conn_lost(conn, status, "%s", error.text);
}

static void up(net_conn *conn)
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
    conn_timer(conn, conn->net->options.silence_ns ? conn->net->options.silence_ns : UINT64_MAX);
    if (!conn->dialled)
        conn->net->counts.accepted++;
    conn->events->up(conn->user, conn, &conn->peer);
}

bool greet_read(net_conn *conn, const uint8_t *bytes, size_t size, size_t *used_p)
{
    struct mc_error error = { 0 };
    const mc_status status = wire_handshake_feed(conn->handshake, bytes, size, used_p, &error);
    const mc_status queued = queue_handshake(conn);

    if (status != MC_OK && status != MC_PENDING) {
        conn_push(conn); /* a refusal, as far as it goes */
        conn_lost(conn, status, "%s", error.text);
        return false;
    }
    if (queued != MC_OK) {
        conn_lost(conn, queued, "out of memory for a greeting");
        return false;
    }
    if (status == MC_OK)
        up(conn);
    return status == MC_OK;
}
