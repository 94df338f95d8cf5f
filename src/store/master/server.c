/* server.c - connections by number, messages in, answers and questions out, ticks. */
#include "store/master/server.h"

#include <assert.h>
#include <inttypes.h>
#include <stdalign.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/log.h"
#include "net/net.h"
#include "os/clock.h"
#include "os/random.h"
#include "store/master/counters.h"

#define SILENCE_NS UINT64_C(2000000000)

enum { CONNECTIONS_DEFAULT = 4096, CONNECTIONS_MAX = 65535 };

/** A connection. Its number is serial << 16 | place, so that none is used again. */
struct server_conn {
    store_server *server;
    net_conn *conn; /* NULL: free */
    uint64_t serial;
    uint32_t spare; /* free: place + 1 of the next one */
    uint32_t role;
};

/** A question to a node. */
struct server_ask {
    store_server *server;
    uint64_t tag;
};

struct store_server {
    const struct mc_alloc *alloc;
    os_loop *loop;
    struct mc_log log;
    net *net;
    store_master *master;
    uint64_t epoch;
    struct store_master_out out;
    struct server_conn *conns; /* owned; [connections_max] */
    uint32_t connections_max, spare;
    struct os_timer timer;
    uint64_t nodes, lost_nodes; /* as last logged */
    bool stepping, closing;
    char address[80];
};

/* --------------------------------------------------------------------------- connections by number */

static uint64_t number_of(const store_server *s, const struct server_conn *c)
{
    return c->serial << 16 | (uint64_t)(c - s->conns);
}

static struct server_conn *find(const store_server *s, uint64_t number)
{
    const uint32_t place = number & 0xffff;
    struct server_conn *c = place < s->connections_max ? &s->conns[place] : NULL;

    return c && c->conn && c->serial == number >> 16 ? c : NULL;
}

static struct server_conn *conn_add(store_server *s, net_conn *conn, uint32_t role)
{
    if (s->spare == 0)
        return NULL;
    struct server_conn *c = &s->conns[s->spare - 1];
    s->spare = c->spare;
    *c = (struct server_conn){ .server = s, .conn = conn, .serial = c->serial + 1, .role = role };
    return c;
}

static void conn_drop(struct server_conn *c)
{
    store_server *s = c->server;

    c->conn = NULL;
    c->spare = s->spare;
    s->spare = (uint32_t)(c - s->conns) + 1;
}

/* ----------------------------------------------------------------------------------------- steps */

/* Nodes come and go: said when the figures say so, since only the core knows when one is forgotten. */
static void log_nodes(store_server *s)
{
    struct store_master_figures f;

    store_master_figures(s->master, &f);
    if (f.nodes == s->nodes && f.lost_nodes == s->lost_nodes)
        return;
    log_write(&s->log, f.lost_nodes > s->lost_nodes ? MC_LOG_WARN : MC_LOG_INFO,
              "event=nodes nodes=%" PRIu64 " lost=%" PRIu64 " capacity_bytes=%" PRIu64
              " objects=%" PRIu64,
              f.nodes, f.lost_nodes, f.capacity_bytes, f.objects);
    s->nodes = f.nodes;
    s->lost_nodes = f.lost_nodes;
}

static void step(store_server *s, const struct store_master_event *event)
{
    assert(!s->stepping);
    s->stepping = true;
    store_master_step(s->master, event, os_now_ns(), &s->out);
    s->stepping = false;
    const mc_status status = os_loop_timer(s->loop, &s->timer, store_master_next_ns(s->master));
    assert(status == MC_OK); /* it has its place in the heap since open */
    (void)status;
}

static void timer_due(void *user, uint64_t now_ns)
{
    store_server *s = user;
    const struct store_master_event tick = { .kind = STORE_MASTER_TICK };

    (void)now_ns;
    (void)os_loop_timer(s->loop, &s->timer, UINT64_MAX); /* keeps its place in the heap */
    step(s, &tick);
    log_nodes(s);
}

/* ------------------------------------------------------------------------ what the core wants done */

static mc_status out_answer(void *user, uint64_t conn, uint64_t id, enum wire_kind kind,
                            const void *message)
{
    const struct server_conn *c = find(user, conn);

    return c ? net_answer(c->conn, id, kind, message) : MC_E_PEER;
}

static mc_status out_send(void *user, uint64_t conn, enum wire_kind kind, const void *message)
{
    const struct server_conn *c = find(user, conn);

    return c ? net_send(c->conn, kind, message) : MC_E_PEER;
}

static void answered(void *user, mc_status status, const struct wire_frame *frame)
{
    struct server_ask *ask = user;
    store_server *s = ask->server;
    alignas(16) unsigned char message[WIRE_STRUCT_MAX];
    struct store_master_event event = { .kind = STORE_MASTER_ANSWER, .id = ask->tag };

    alloc_free(s->alloc, ask);
    if (s->closing)
        return;
    if (status == MC_OK)
        status = wire_decode(frame->kind, frame->body, frame->body_size, message, NULL);
    event.status = status;
    if (status == MC_OK) {
        event.wire = frame->kind;
        event.message = message;
    }
    step(s, &event);
}

static mc_status out_ask(void *user, uint64_t conn, uint64_t tag, enum wire_kind kind,
                         const void *message, uint64_t deadline_ns)
{
    store_server *s = user;
    const struct server_conn *c = find(s, conn);

    if (!c)
        return MC_E_PEER;
    struct server_ask *ask = alloc_bytes(s->alloc, sizeof(*ask));
    if (!ask)
        return MC_E_NOMEM;
    *ask = (struct server_ask){ .server = s, .tag = tag };
    const mc_status status = net_ask(c->conn, kind, message, deadline_ns, answered, ask, NULL);
    if (status != MC_OK)
        alloc_free(s->alloc, ask);
    return status;
}

/* ------------------------------------------------------------------------------------ connections */

static void on_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    store_server *s = user;
    struct server_conn *c = conn_add(s, conn, peer->role);

    if (!c) { /* as many as net lets in: cannot be */
        net_hang_up(conn, false);
        return;
    }
    net_conn_user_set(conn, c);
    log_write(&s->log, peer->role == NET_NODE ? MC_LOG_INFO : MC_LOG_DEBUG,
              "event=%s_connected conn=%" PRIu64 " peer=%s name=%s",
              peer->role == NET_NODE ? "node" : "client", number_of(s, c), peer->address,
              peer->name);
}

static void on_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct server_conn *c = user;
    store_server *s = c->server;
    alignas(16) unsigned char message[WIRE_STRUCT_MAX];
    struct mc_error error = { 0 };

    const mc_status status =
        wire_decode(frame->kind, frame->body, frame->body_size, message, &error);
    if (status != MC_OK) {
        (void)net_answer_outcome(conn, frame->id, status, error.text);
        return;
    }
    if (frame->kind == WIRE_STATS) {
        struct store_master_figures f;
        store_master_figures(s->master, &f);
        master_counters_answer(conn, frame->id, (const struct wire_stats *)(const void *)message,
                               &f);
        return;
    }
    const struct store_master_event event = {
        .kind = STORE_MASTER_MESSAGE,
        .conn = number_of(s, c),
        .id = frame->id,
        .wire = frame->kind,
        .message = message,
    };
    step(s, &event);
    if (frame->kind == WIRE_NODE_REGISTER)
        log_nodes(s);
}

static void on_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct server_conn *c = user;
    store_server *s = c->server;
    const struct store_master_event event = { .kind = STORE_MASTER_DOWN, .conn = number_of(s, c) };

    (void)conn;
    log_write(&s->log, c->role == NET_NODE ? MC_LOG_WARN : MC_LOG_DEBUG,
              "event=%s_disconnected conn=%" PRIu64 " status=%s reason=\"%s\"",
              c->role == NET_NODE ? "node" : "client", event.conn, mc_status_name(status), text);
    conn_drop(c);
    step(s, &event);
    log_nodes(s);
}

static const struct net_events events = { on_up, on_message, on_down };

/* --------------------------------------------------------------------------------- open and close */

static mc_status open_net(store_server *s, const struct store_server_options *o,
                          struct mc_error *error)
{
    const struct net_options options = {
        .alloc = o->alloc,
        .loop = o->loop,
        .role = NET_MASTER,
        .name = "master",
        .incarnation = s->epoch,
        .secret = o->secret,
        .secret_size = o->secret_size,
        .silence_ns = SILENCE_NS,
        .connections_max = s->connections_max,
    };

    mc_status status = net_open(&options, &s->net, error);
    if (status == MC_OK)
        status = net_listen(s->net, o->listen, o->insecure, &events, s, s->address,
                            sizeof(s->address), error);
    return status;
}

static mc_status open_master(store_server *s, const struct store_server_options *o,
                             struct mc_error *error)
{
    struct store_master_options options = o->master;

    options.alloc = o->alloc;
    options.epoch = s->epoch;
    s->out = (struct store_master_out){
        .answer = out_answer, .ask = out_ask, .send = out_send, .user = s
    };
    const mc_status status = store_master_open(&options, &s->master);
    return status == MC_OK ? MC_OK
                           : error_set(error, status, "master: %s",
                                       status == MC_E_RANGE ? "a limit is out of range"
                                                            : "out of memory for its tables");
}

static mc_status open_all(store_server *s, const struct store_server_options *o,
                          struct mc_error *error)
{
    s->conns = alloc_zeroed(s->alloc, s->connections_max, sizeof(*s->conns));
    if (!s->conns)
        return error_set(error, MC_E_NOMEM, "out of memory for a master");
    for (uint32_t i = s->connections_max; i > 0; i--) {
        s->conns[i - 1].spare = s->spare;
        s->spare = i;
    }
    s->timer = (struct os_timer){ .due = timer_due, .user = s };
    mc_status status = os_loop_timer(s->loop, &s->timer, UINT64_MAX);
    if (status != MC_OK)
        return error_set(error, status, "out of memory for a master");
    status = open_master(s, o, error);
    return status == MC_OK ? open_net(s, o, error) : status;
}

mc_status store_server_open(const struct store_server_options *options, store_server **server_p,
                            struct mc_error *error)
{
    const uint32_t connections_max =
        options->connections_max ? options->connections_max : CONNECTIONS_DEFAULT;

    if (connections_max > CONNECTIONS_MAX)
        return error_set(error, MC_E_RANGE, "master: %u connections; at most %d", connections_max,
                         CONNECTIONS_MAX);
    store_server *s = alloc_zeroed(options->alloc, 1, sizeof(*s));
    if (!s)
        return error_set(error, MC_E_NOMEM, "out of memory for a master");
    s->alloc = options->alloc;
    s->loop = options->loop;
    s->log = options->log;
    s->connections_max = connections_max;
    s->epoch = os_random_u64();
    const mc_status status = open_all(s, options, error);
    if (status != MC_OK) {
        store_server_close(s);
        return status;
    }
    log_write(&s->log, MC_LOG_INFO, "event=master_open address=%s epoch=%016" PRIx64, s->address,
              s->epoch);
    *server_p = s;
    return MC_OK;
}

const char *store_server_address(const store_server *s)
{
    return s->address;
}

uint64_t store_server_epoch(const store_server *s)
{
    return s->epoch;
}

void store_server_figures(const store_server *s, struct store_master_figures *figures_p)
{
    store_master_figures(s->master, figures_p);
}

void store_server_close(store_server *s)
{
    if (!s)
        return;
    s->closing = true;
    net_close(s->net); /* what nodes were asked ends in answered(), which then only frees */
    os_loop_timer_stop(s->loop, &s->timer);
    store_master_close(s->master);
    alloc_free(s->alloc, s->conns);
    alloc_free(s->alloc, s);
}
