/*
 * pair.h - for tests: two `net`s on one loop in one thread, and what happened to each.
 *
 * Everything is driven by turns, bounded by time only for the case that something is wrong.
 */
#ifndef UNIT_NET_PAIR_H
#define UNIT_NET_PAIR_H

#include "test.h"

#include "net/net.h"
#include "os/clock.h"
#include "os/loop.h"
#include "os/sysalloc.h"

/** One side: what its connections told it. */
struct side {
    net *net;
    net_conn *conn; /* the last that was up, or that was dialled */
    int ups, downs, messages;
    struct net_peer peer;
    char name[300];
    mc_status status; /* of the last loss */
    char text[1200];
    uint32_t kind; /* of the last message */
    uint64_t id, deadline_ns;
    void (*on_up)(struct side *side, net_conn *conn);
    void (*on_message)(struct side *side, net_conn *conn, const struct wire_frame *frame);
    void (*on_down)(struct side *side, net_conn *conn);
};

static inline void side_up(void *user, net_conn *conn, const struct net_peer *peer)
{
    struct side *side = user;

    side->ups++;
    side->conn = conn;
    side->peer = *peer;
    strncpy(side->name, peer->name, sizeof(side->name) - 1);
    assert_true(net_conn_is_up(conn));
    assert_ptr_equal(net_conn_peer(conn), peer);
    if (side->on_up)
        side->on_up(side, conn);
}

static inline void side_message(void *user, net_conn *conn, const struct wire_frame *frame)
{
    struct side *side = user;

    side->messages++;
    side->kind = frame->kind;
    side->id = frame->id;
    side->deadline_ns = frame->deadline_ns;
    if (side->on_message)
        side->on_message(side, conn, frame);
}

static inline void side_down(void *user, net_conn *conn, mc_status status, const char *text)
{
    struct side *side = user;

    assert_false(net_conn_is_up(conn));
    assert_null(net_conn_peer(conn));
    side->downs++;
    side->status = status;
    strncpy(side->text, text, sizeof(side->text) - 1);
    if (side->on_down)
        side->on_down(side, conn);
}

static const struct net_events SIDE_EVENTS = { side_up, side_message, side_down };

struct pair {
    os_loop *loop;
    struct side server, client;
    char address[80];
};

/** What `answered` was told. */
struct told {
    int count;
    mc_status status;
    uint32_t kind;
    uint64_t value; /* of a pong */
    struct mc_error error;
    struct pair *pair;
    void (*then)(struct told *told);
};

static inline void told_answered(void *user, mc_status status, const struct wire_frame *frame)
{
    struct told *told = user;

    told->count++;
    told->status = status;
    assert_int_equal(frame != NULL, status == MC_OK);
    if (frame) {
        struct wire_pong pong = { 0 };
        told->kind = frame->kind;
        told->status = net_take(frame, WIRE_PONG, &pong, &told->error);
        told->value = pong.mark;
    }
    if (told->then)
        told->then(told);
}

static inline os_loop *new_loop(void)
{
    os_loop *loop = NULL;

    assert_int_equal(os_loop_open(os_alloc(), &loop, NULL), MC_OK);
    return loop;
}

/** Turn until *value is `wanted`, or fail after a time that no test needs. */
static inline void turn_until(os_loop *loop, const int *value, int wanted)
{
    const uint64_t end_ns = os_now_ns() + UINT64_C(60000000000);

    while (*value != wanted) {
        assert_true(os_now_ns() < end_ns);
        assert_int_equal(os_loop_turn(loop, end_ns), MC_OK);
    }
}

/** Turn as long as there is something to do at once. Loopback hands over before send() returns. */
static inline void settle(os_loop *loop)
{
    for (int i = 0; i < 20; i++)
        assert_int_equal(os_loop_turn(loop, 0), MC_OK);
}

static inline struct net_options server_options(os_loop *loop)
{
    return (struct net_options){
        .alloc = os_alloc(), .loop = loop, .role = NET_MASTER, .name = "server", .incarnation = 100
    };
}

static inline struct net_options client_options(os_loop *loop)
{
    return (struct net_options){
        .alloc = os_alloc(), .loop = loop, .role = NET_CLIENT, .name = "client", .incarnation = 200
    };
}

static inline void open_server(struct pair *pair, const struct net_options *options,
                               const char *address)
{
    struct mc_error error = { 0 };

    assert_int_equal(net_open(options, &pair->server.net, NULL), MC_OK);
    if (net_listen(pair->server.net, address, false, &SIDE_EVENTS, &pair->server, pair->address,
                   sizeof(pair->address), &error) != MC_OK)
        fail_msg("%s", error.text);
}

static inline void open_client(struct pair *pair, const struct net_options *options)
{
    assert_int_equal(net_open(options, &pair->client.net, NULL), MC_OK);
    assert_int_equal(net_dial(pair->client.net, pair->address, &SIDE_EVENTS, &pair->client,
                              &pair->client.conn, NULL),
                     MC_OK);
}

/** Two sides that met. NULL: the options above. */
static inline void open_pair(struct pair *pair, const struct net_options *server,
                             const struct net_options *client)
{
    *pair = (struct pair){ .loop = new_loop() };
    const struct net_options s = server ? *server : server_options(NULL);
    const struct net_options c = client ? *client : client_options(NULL);
    struct net_options with_loop = s;
    with_loop.loop = pair->loop;
    open_server(pair, &with_loop, "127.0.0.1:0");
    with_loop = c;
    with_loop.loop = pair->loop;
    open_client(pair, &with_loop);
    turn_until(pair->loop, &pair->client.ups, 1);
    turn_until(pair->loop, &pair->server.ups, 1);
}

static inline void close_pair(struct pair *pair)
{
    net_close(pair->client.net);
    net_close(pair->server.net);
    os_loop_close(pair->loop);
}

/** Ask the other side anything: SEGMENT_ASK, whose answer here is a PONG. */
static inline mc_status ask(net_conn *conn, uint64_t deadline_ns, struct told *told, uint64_t *id_p)
{
    const struct wire_segment_ask question = { .known = 7 };

    return net_ask(conn, WIRE_SEGMENT_ASK, &question, deadline_ns, told_answered, told, id_p);
}

static inline void answer(net_conn *conn, uint64_t id, uint64_t value)
{
    const struct wire_pong pong = { .mark = value };

    assert_int_equal(net_answer(conn, id, WIRE_PONG, &pong), MC_OK);
}

/** on_message: answer every question with its id. */
static inline void answer_all(struct side *side, net_conn *conn, const struct wire_frame *frame)
{
    (void)side;
    answer(conn, frame->id, frame->id);
}

#endif /* UNIT_NET_PAIR_H */
