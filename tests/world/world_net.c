/* world_net.c - connections to the master: messages as bytes, in order; breaks that each side hears of when it
 * does. */
#include <stdlib.h>
#include <string.h>

#include "world.h"

static struct actor *side_actor(struct world *w, const struct conn *conn, int side)
{
    return side == 0 ? conn->actor : &w->master;
}

static bool side_lives(struct world *w, const struct conn *conn, int side)
{
    return side_actor(w, conn, side)->life == conn->lives[side];
}

struct conn *net_find(struct world *w, uint64_t id)
{
    struct conn *conn = w->conns;

    while (conn && conn->id != id)
        conn = conn->next;
    return conn;
}

/* ---------------------------------------------------------------------------------- come and go */

static void hear_down(struct world *w, struct event *e)
{
    struct conn *conn = net_find(w, e->a);
    const int side = (int)e->b;

    if (!conn || conn->told[side] || !side_lives(w, conn, side))
        return;
    conn->told[side] = true;
    struct actor *actor = side_actor(w, conn, side);
    world_trace(w, "%s hears that connection %d is gone", actor_name(actor), (int)conn->id);
    if (side == 0) {
        actor->conn = NULL;
        net_dial_soon(w, actor);
    }
    for (uint32_t i = 0; side == 1 && i < conn->ask_count[1]; i++)
        if (conn->asks[1][i].out && world_chance(w, 500)) {
            conn->asks[1][i].out = false;
            actor_message(w, actor, conn, 1, conn->asks[1][i].tag, MC_E_PEER, 0, NULL);
        }
    actor_message(w, actor, conn, 3, 0, MC_OK, 0, NULL);
    for (uint32_t i = 0; side == 1 && i < conn->ask_count[1]; i++)
        if (conn->asks[1][i].out) {
            conn->asks[1][i].out = false;
            actor_message(w, actor, conn, 1, conn->asks[1][i].tag, MC_E_PEER, 0, NULL);
        }
}

void net_break(struct world *w, struct conn *conn)
{
    if (conn->broken)
        return;
    conn->broken = true;
    w->counts.breaks++;
    world_trace(w, "connection %d of %s breaks", (int)conn->id, actor_name(conn->actor));
    for (int side = 0; side < 2; side++) {
        if (!side_lives(w, conn, side))
            continue;
        struct event *e =
            world_after(w, world_below(w, 30) * MS, side_actor(w, conn, side), hear_down);
        e->a = conn->id;
        e->b = (uint64_t)side;
    }
}

void net_break_all(struct world *w, struct actor *actor)
{
    for (struct conn *conn = w->conns; conn; conn = conn->next)
        if (conn->actor == actor || actor == &w->master)
            net_break(w, conn);
    actor->conn = NULL;
}

static void dial(struct world *w, struct event *e)
{
    struct actor *actor = e->actor;

    if (actor->conn)
        return;
    if (!actor_runs(&w->master)) {
        net_dial_soon(w, actor);
        return;
    }
    struct conn *conn = calloc(1, sizeof(*conn));
    if (!conn)
        abort();
    *conn = (struct conn){
        .id = ++w->conn_ids,
        .actor = actor,
        .lives = { actor->life, w->master.life },
        .next = w->conns,
    };
    w->conns = conn;
    actor->conn = conn;
    world_trace(w, "%s is connected (%d)", actor_name(actor), (int)conn->id);
    actor_message(w, actor, conn, 2, 0, MC_OK, 0, NULL);
}

void net_dial_soon(struct world *w, struct actor *actor)
{
    world_after(w, (1 + world_below(w, 20)) * MS, actor, dial);
}

void net_free_all(struct world *w)
{
    while (w->conns) {
        struct conn *next = w->conns->next;
        free(w->conns);
        w->conns = next;
    }
}

/* ------------------------------------------------------------------------------------ messages */

static struct net_ask *ask_find(struct conn *conn, int side, uint64_t id)
{
    for (uint32_t i = 0; i < conn->ask_count[side]; i++)
        if (conn->asks[side][i].out && conn->asks[side][i].id == id)
            return &conn->asks[side][i];
    return NULL;
}

enum { FRAME_ASK, FRAME_ANSWER, FRAME_SEND };

/** a: connection, b: id | type << 60 | to side << 62, c: kind; data: the body. */
static void arrive(struct world *w, struct event *e)
{
    struct conn *conn = net_find(w, e->a);
    const int side = (int)(e->b >> 62), type = (int)(e->b >> 60 & 3);
    const uint64_t id = e->b & ~(UINT64_C(15) << 60);
    union {
        uint64_t align;
        unsigned char bytes[WIRE_STRUCT_MAX];
    } message;
    struct mc_error error = { 0 };

    if (!conn || conn->broken || !side_lives(w, conn, side))
        return;
    if (wire_decode((uint32_t)e->c, e->data, e->size, &message, &error) != MC_OK) {
        world_fail(w, "a message of kind %d cannot be read: %s", (int)e->c, error.text);
        return;
    }
    world_trace(w, "%s gets %s %s (%d)", actor_name(side_actor(w, conn, side)),
                type == FRAME_ANSWER ? "the answer" : "", wire_message((uint32_t)e->c)->name,
                (int)id);
    if (type != FRAME_ANSWER) {
        actor_message(w, side_actor(w, conn, side), conn, 0, type == FRAME_ASK ? id : 0, MC_OK,
                      (uint32_t)e->c, &message);
        return;
    }
    struct net_ask *ask = ask_find(conn, side, id);
    if (!ask)
        return;
    ask->out = false;
    actor_message(w, side_actor(w, conn, side), conn, 1, ask->tag, MC_OK, (uint32_t)e->c, &message);
}

static mc_status post(struct world *w, struct conn *conn, int from, int type, uint64_t id,
                      enum wire_kind kind, const void *message)
{
    const int to = 1 - from;
    size_t size = wire_encoded_size(kind, message);
    uint8_t *bytes = malloc(size + 1);

    if (!bytes)
        abort();
    if (wire_encode(kind, message, bytes, size, &size) != MC_OK) {
        world_fail(w, "a message of kind %d cannot be written", (int)kind);
        free(bytes);
        return MC_E_ARG;
    }
    const uint64_t slow = !w->calm && world_chance(w, 20) ? world_below(w, 400) * MS : 0;
    uint64_t at = w->now + 20000 + world_below(w, 1000) * 2000 + slow;
    if (at < conn->last[to])
        at = conn->last[to];
    conn->last[to] = at;
    struct event *e = world_after(w, at - w->now, side_actor(w, conn, to), arrive);
    e->a = conn->id;
    e->b = id | (uint64_t)type << 60 | (uint64_t)to << 62;
    e->c = kind;
    e->data = bytes;
    e->size = size;
    if (!w->calm && world_chance(w, w->loss))
        net_break(w, conn);
    return MC_OK;
}

/** a: connection, b: id, of the master's question. */
static void too_late(struct world *w, struct event *e)
{
    struct conn *conn = net_find(w, e->a);
    struct net_ask *ask = conn ? ask_find(conn, 1, e->b) : NULL;

    if (!ask || conn->told[1])
        return;
    ask->out = false;
    actor_message(w, &w->master, conn, 1, ask->tag, MC_E_TIMEOUT, 0, NULL);
}

static struct net_ask *ask_add(struct conn *conn, int side)
{
    for (uint32_t i = 0; i < conn->ask_count[side]; i++)
        if (!conn->asks[side][i].out)
            return &conn->asks[side][i];
    return conn->ask_count[side] < ASKS_MAX ? &conn->asks[side][conn->ask_count[side]++] : NULL;
}

mc_status net_ask_from(struct world *w, struct conn *conn, int side, uint64_t tag,
                       enum wire_kind kind, const void *message, uint64_t deadline_ns)
{
    if (!conn || conn->told[side])
        return MC_E_PEER;
    struct net_ask *ask = ask_add(conn, side);
    if (!ask)
        return MC_E_FULL;
    *ask = (struct net_ask){ .id = ++w->frame_ids, .tag = tag, .out = true };
    if (deadline_ns != 0 && side == 1) {
        struct event *e = world_after(w, deadline_ns - w->now, &w->master, too_late);
        e->a = conn->id;
        e->b = ask->id;
    }
    return post(w, conn, side, FRAME_ASK, ask->id, kind, message);
}

mc_status net_answer_from(struct world *w, struct conn *conn, int side, uint64_t id,
                          enum wire_kind kind, const void *message)
{
    if (!conn || conn->told[side])
        return MC_E_PEER;
    return post(w, conn, side, FRAME_ANSWER, id, kind, message);
}

mc_status net_send_from(struct world *w, struct conn *conn, int side, enum wire_kind kind,
                        const void *message)
{
    if (!conn || conn->told[side])
        return MC_E_PEER;
    if (!w->calm && world_chance(w, 30))
        return MC_E_FULL;
    return post(w, conn, side, FRAME_SEND, 0, kind, message);
}

void net_forget(struct conn *conn, int side, uint64_t tag)
{
    for (uint32_t i = 0; conn && i < conn->ask_count[side]; i++)
        if (conn->asks[side][i].tag == tag)
            conn->asks[side][i].out = false;
}
