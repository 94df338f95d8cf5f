/* world_actors.c - the three cores in this world: their outboxes, starts, crashes, ticks. */
#include <stdlib.h>
#include <string.h>

#include "store/core/object.h"
#include "world.h"

static void arm(struct world *w, struct actor *actor);

static struct sim_node *node_at(struct world *w, const struct actor *actor)
{
    return &w->nodes[actor->index];
}

static struct sim_client *client_at(struct world *w, const struct actor *actor)
{
    return &w->clients[actor->index];
}

/* -------------------------------------------------------------------------------------- master */

static mc_status master_answer(void *user, uint64_t conn, uint64_t id, enum wire_kind kind,
                               const void *message)
{
    struct world *w = user;

    if (w->commit && kind == WIRE_OUTCOMES)
        check_committed(w, message);
    return net_answer_from(w, net_find(w, conn), 1, id, kind, message);
}

static mc_status master_ask(void *user, uint64_t conn_id, uint64_t tag, enum wire_kind kind,
                            const void *message, uint64_t deadline_ns)
{
    struct world *w = user;
    struct conn *conn = net_find(w, conn_id);

    if (kind == WIRE_PLACE_OPEN && conn && conn->lives[0] == conn->actor->life) {
        struct wire_list list = ((const struct wire_place_open *)message)->places;
        struct wire_place place;
        while (wire_place_next(&list, &place))
            check_opened(w, node_at(w, conn->actor), &place);
    }
    return net_ask_from(w, conn, 1, tag, kind, message, deadline_ns);
}

static mc_status master_send(void *user, uint64_t conn, enum wire_kind kind, const void *message)
{
    struct world *w = user;

    return net_send_from(w, net_find(w, conn), 1, kind, message);
}

static void master_step(struct world *w, const struct store_master_event *event)
{
    const struct store_master_out out = { master_answer, master_ask, master_send, w };

    const bool commits = event->kind == STORE_MASTER_MESSAGE && event->wire == WIRE_PUT_COMMIT;
    w->commit = commits ? event->message : NULL;
    store_master_step(w->master_core, event, w->now, &out);
    w->commit = NULL;
    check_master(w);
    arm(w, &w->master);
}

static void master_start(struct world *w)
{
    const struct store_master_options options = {
        .alloc = &w->master.alloc,
        .epoch = prng_next(&w->prng) | 1,
        .objects_max = OBJECTS_MAX,
        .extents_max = 160,
        .nodes_max = 12,
        .lents_max = 12,
        .tokens_max = 24,
        .leases_max = 24,
        .lease_items_max = 64,
        .requests_max = 8,
        .batch_max = BATCH,
        .events_max = 32,
        .subscribers_max = CLIENTS_MAX + 2,
        .free_percent = 10,
        .lease_ns = 300 * MS,
        .lease_max_ns = 600 * MS,
        .token_ns = 400 * MS,
        .node_ns = 800 * MS,
        .gone_ns = 200 * MS,
        .ask_ns = 150 * MS,
    };

    if (store_master_open(&options, &w->master_core) != MC_OK)
        abort();
    w->master_epoch = options.epoch;
    w->feed_seen = 0;
}

/* ---------------------------------------------------------------------------------------- node */

struct node_user {
    struct world *w;
    struct sim_node *node;
    const struct wire_place_open *open; /* that the node is answering */
};

static mc_status node_answer(void *user, uint64_t id, enum wire_kind kind, const void *message)
{
    struct node_user *u = user;

    return net_answer_from(u->w, u->node->actor.conn, 0, id, kind, message);
}

static mc_status node_ask(void *user, uint64_t tag, enum wire_kind kind, const void *message)
{
    struct node_user *u = user;

    if (kind == WIRE_NODE_HELD)
        check_held(u->w, u->node, message);
    return net_ask_from(u->w, u->node->actor.conn, 0, tag, kind, message, 0);
}

static mc_status node_grant(void *user, uint32_t lent, uint64_t offset, uint64_t size,
                            uint64_t lease_ns, struct mc_window *window_p)
{
    struct node_user *u = user;

    (void)lent;
    const mc_status status = memory_grant(u->w, u->node, offset, size, lease_ns, window_p);
    struct wire_list list = u->open->places;
    struct wire_place place;
    while (status == MC_OK && wire_place_next(&list, &place))
        if (place.offset == offset)
            check_granted(u->w, u->node, &place);
    return status;
}

static mc_status node_renew(void *user, const struct mc_window *window, uint64_t lease_ns)
{
    struct node_user *u = user;

    return memory_renew(u->w, u->node, window, lease_ns);
}

static mc_status node_revoke(void *user, const struct mc_window *window)
{
    struct node_user *u = user;

    return memory_revoke(u->w, u->node, window);
}

static mc_status node_inspect(void *user, uint32_t lent, uint64_t offset, uint64_t size,
                              uint64_t generation, struct mc_object_header *header_p)
{
    struct node_user *u = user;

    (void)lent;
    const mc_status status = object_inspect(u->node->memory + offset, size, generation, header_p);
    if (status == MC_OK)
        check_whole(u->w, u->node, offset, header_p);
    return status;
}

static void node_step(struct world *w, struct sim_node *node, const struct store_node_event *event)
{
    struct node_user user = { w, node, NULL };
    const struct store_node_out out = { node_answer, node_ask,     node_grant, node_renew,
                                        node_revoke, node_inspect, &user };

    if (event->kind == STORE_NODE_MESSAGE && event->wire == WIRE_PLACE_OPEN)
        user.open = event->message;
    store_node_step(node->core, event, w->now, &out);
    arm(w, &node->actor);
}

static void node_start(struct world *w, struct sim_node *node)
{
    memory_node_new(w, node);
    /* The region's generation is the life that reads are held to. */
    const struct store_node_lent lent = { .region = { .id = 1, .generation = node->incarnation },
                                          .size = LENT_BYTES,
                                          .align = 64 };
    const struct store_node_options options = {
        .alloc = &node->actor.alloc,
        .lent = &lent,
        .lent_count = 1,
        .segment = node->name,
        .incarnation = node->incarnation,
        .places_max = 96,
        .batch_max = BATCH,
    };
    if (store_node_open(&options, &node->core) != MC_OK)
        abort();
}

/* -------------------------------------------------------------------------------------- client */

static mc_status client_ask(void *user, uint64_t tag, enum wire_kind kind, const void *message)
{
    struct sim_client *client = user;

    return net_ask_from(client->actor.world, client->actor.conn, 0, tag, kind, message, 0);
}

static void client_forget(void *user, uint64_t tag)
{
    struct sim_client *client = user;

    net_forget(client->actor.conn, 0, tag);
}

static uint32_t client_segment(void *user, uint64_t node, struct wire_slice name,
                               uint64_t incarnation)
{
    (void)user;
    (void)node;
    (void)incarnation;
    return name.size == 5 ? (uint32_t)((const char *)name.data)[4] - '0' + 1 : 0;
}

static void *client_scratch(void *user, size_t size)
{
    struct sim_client *client = user;

    if (client->scratch_used >= 5)
        return NULL;
    client->scratch_used++;
    return client->actor.alloc.alloc(&client->actor, size);
}

static void client_scratch_free(void *user, void *scratch, size_t size)
{
    struct sim_client *client = user;

    (void)size;
    client->scratch_used--;
    client->actor.alloc.free(&client->actor, scratch);
}

static mc_status client_move(void *user, uint64_t tag, enum mc_op op,
                             const struct mc_replica *replica, const struct mc_range *parts,
                             size_t count, uint64_t deadline_ns)
{
    struct sim_client *client = user;

    (void)deadline_ns;
    return memory_move(client->actor.world, client, tag, op, replica, parts, count);
}

static void client_stop(void *user, uint64_t tag)
{
    struct sim_client *client = user;

    memory_stop(client->actor.world, &client->actor, tag);
}

static void client_draw(void *user, uint64_t token[2])
{
    struct sim_client *client = user;

    token[0] = prng_next(&client->actor.world->prng);
    token[1] = ++client->serial | (uint64_t)client->actor.index << 60;
}

static void client_done(void *user, store_request *request)
{
    (void)user;
    ((struct op *)store_request_user(request))->finished = true;
}

const struct store_client_out *client_out(struct world *w, struct sim_client *client)
{
    static _Thread_local struct store_client_out out;

    (void)w;
    out = (struct store_client_out){ client_ask,     client_forget,       client_segment,
                                     client_scratch, client_scratch_free, client_move,
                                     client_stop,    client_draw,         client_done,
                                     client };
    return &out;
}

static void client_step(struct world *w, struct sim_client *client,
                        const struct store_client_event *event)
{
    store_client_step(client->core, event, w->now, client_out(w, client));
    ops_look(w, client);
    arm(w, &client->actor);
}

static void client_start(struct world *w, struct sim_client *client)
{
    const struct store_client_options options = {
        .alloc = &client->actor.alloc,
        .timeout_ns = 1500 * MS,
        .requests_max = OPS_MAX,
        .items_max = 16,
        .batch_max = world_chance(w, 500) ? BATCH : 3,
    };

    if (store_client_open(&options, &client->core) != MC_OK)
        abort();
    memset(client->ops, 0, sizeof(client->ops));
    client->index.whole = client->index.fresh = false;
    client->index.epoch = client->index.sequence = 0;
    client->scratch_used = 0;
}

/* --------------------------------------------------------------------------------------- ticks */

static uint64_t next_ns(const struct world *w, const struct actor *actor)
{
    switch (actor->kind) {
    case ACTOR_MASTER:
        return store_master_next_ns(w->master_core);
    case ACTOR_NODE:
        return store_node_next_ns(w->nodes[actor->index].core);
    case ACTOR_CLIENT:
        break;
    }
    return store_client_next_ns(w->clients[actor->index].core);
}

static void tick(struct world *w, struct event *e)
{
    struct actor *actor = e->actor;

    if (actor->tick_at != e->a)
        return; /* an earlier one was set after this one */
    actor->tick_at = 0;
    switch (actor->kind) {
    case ACTOR_MASTER:
        master_step(w, &(struct store_master_event){ .kind = STORE_MASTER_TICK });
        break;
    case ACTOR_NODE:
        node_step(w, node_at(w, actor), &(struct store_node_event){ .kind = STORE_NODE_TICK });
        break;
    case ACTOR_CLIENT:
        client_step(w, client_at(w, actor),
                    &(struct store_client_event){ .kind = STORE_CLIENT_TICK });
        break;
    }
}

static void arm(struct world *w, struct actor *actor)
{
    uint64_t at = next_ns(w, actor);

    if (at == UINT64_MAX)
        return;
    at = at > w->now ? at : w->now;
    at += 1000; /* a timer is never early */
    if (actor->tick_at != 0 && actor->tick_at <= at)
        return;
    actor->tick_at = at;
    struct event *e = world_after(w, at - w->now, actor, tick);
    e->a = at;
}

/* ------------------------------------------------------------------------------------ messages */

static void subscribe(struct world *w, struct sim_client *client)
{
    const bool whole = client->index.whole; /* half a snapshot is nothing to go on from */
    const struct wire_events_subscribe message = {
        .sequence = whole ? client->index.sequence : 0,
        .epoch = whole ? client->index.epoch : 0,
    };

    (void)net_ask_from(w, client->actor.conn, 0, UINT64_MAX, WIRE_EVENTS_SUBSCRIBE, &message, 0);
}

static bool is_feed(struct world *w, struct sim_client *client, uint32_t kind, const void *message)
{
    if (kind == WIRE_EVENTS)
        check_events(w, client, message);
    else if (kind == WIRE_EVENTS_SNAPSHOT)
        check_snapshot(w, client, message);
    return kind == WIRE_EVENTS || kind == WIRE_EVENTS_SNAPSHOT;
}

static void client_message(struct world *w, struct sim_client *client, int what, uint64_t id,
                           mc_status status, uint32_t kind, const void *message)
{
    static const enum store_client_event_kind kinds[] = { STORE_CLIENT_TICK, STORE_CLIENT_ANSWER,
                                                          STORE_CLIENT_UP, STORE_CLIENT_DOWN };
    const struct store_client_event event = { kinds[what], id, status, kind, message };

    if (what == 2)
        subscribe(w, client);
    if (what == 0 || (what == 1 && id == UINT64_MAX)) {
        is_feed(w, client, kind, message);
        return;
    }
    client_step(w, client, &event);
}

void actor_message(struct world *w, struct actor *actor, struct conn *conn, int what, uint64_t id,
                   mc_status status, uint32_t kind, const void *message)
{
    static const enum store_master_event_kind master_kinds[] = {
        STORE_MASTER_MESSAGE, STORE_MASTER_ANSWER, STORE_MASTER_TICK, STORE_MASTER_DOWN
    };
    static const enum store_node_event_kind node_kinds[] = { STORE_NODE_MESSAGE, STORE_NODE_ANSWER,
                                                             STORE_NODE_UP, STORE_NODE_DOWN };

    switch (actor->kind) {
    case ACTOR_MASTER:
        master_step(w, &(struct store_master_event){ master_kinds[what], conn->id, id, status, kind,
                                                     message });
        break;
    case ACTOR_NODE:
        node_step(w, node_at(w, actor),
                  &(struct store_node_event){ node_kinds[what], id, status, kind, message });
        break;
    case ACTOR_CLIENT:
        client_message(w, client_at(w, actor), what, id, status, kind, message);
        break;
    }
}

void actor_moved(struct world *w, struct actor *actor, uint64_t tag, mc_status status)
{
    client_step(
        w, client_at(w, actor),
        &(struct store_client_event){ .kind = STORE_CLIENT_MOVED, .id = tag, .status = status });
}

/* ----------------------------------------------------------------------------- start and crash */

void actor_start(struct world *w, struct actor *actor)
{
    actor->life++;
    actor->stopped_until = actor->tick_at = 0;
    actor->conn = NULL;
    world_trace(w, "%s starts", actor_name(actor));
    switch (actor->kind) {
    case ACTOR_MASTER:
        master_start(w);
        break;
    case ACTOR_NODE:
        node_start(w, node_at(w, actor));
        break;
    case ACTOR_CLIENT:
        client_start(w, client_at(w, actor));
        break;
    }
    if (actor->kind != ACTOR_MASTER)
        net_dial_soon(w, actor);
}

void actor_crash(struct world *w, struct actor *actor)
{
    world_trace(w, "%s crashes", actor_name(actor));
    w->counts.crashes++;
    if (actor->kind == ACTOR_CLIENT) {
        memory_client_gone(w, actor);
        ops_drop(w, client_at(w, actor));
    }
    actor->life++;
    net_break_all(w, actor);
    actor_free_all(actor);
}
