/* world_run.c - one seed: a cluster, what is done to it, the calm after, the checks. */
#include <stdlib.h>
#include <string.h>

#include "world.h"

#define TROUBLE_NS (1500 * MS)
#define CALM_NS (4 * SEC)

static struct actor *some_actor(struct world *w)
{
    const uint32_t i = world_below(w, 1 + w->node_count + w->client_count);

    if (i == 0)
        return &w->master;
    return i <= w->node_count ? &w->nodes[i - 1].actor : &w->clients[i - 1 - w->node_count].actor;
}

static void restart(struct world *w, struct event *e)
{
    struct actor *actor = (struct actor *)(uintptr_t)e->a;

    if (!actor_runs(actor))
        actor_start(w, actor);
}

static void crash(struct world *w, struct actor *actor)
{
    if (!actor_runs(actor))
        return;
    actor_crash(w, actor);
    world_after(w, (1 + world_below(w, 250)) * MS, NULL, restart)->a = (uintptr_t)actor;
}

static void power_cut(struct world *w, struct event *e)
{
    if (w->calm)
        return;
    crash(w, (struct actor *)(uintptr_t)e->a);
    crash(w, &w->master);
}

void world_power_cut(struct world *w, struct actor *actor)
{
    world_after(w, 1000, NULL, power_cut)->a = (uintptr_t)actor;
}

static void stop(struct world *w, struct actor *actor)
{
    world_stop(w, actor, (10 + world_below(w, 500)) * MS);
}

static void flip(struct world *w)
{
    struct sim_node *node = &w->nodes[world_below(w, w->node_count)];

    node->memory[world_below(w, LENT_BYTES)] ^= (uint8_t)(1u << world_below(w, 8));
}

static void trouble(struct world *w, struct event *e)
{
    struct actor *actor = some_actor(w);
    uint32_t sum = 0, what;

    (void)e;
    if (w->calm)
        return;
    for (int i = 0; i < TROUBLES; i++)
        sum += w->troubles[i];
    what = world_below(w, sum + 1);
    for (sum = 0; sum < TROUBLES && what >= w->troubles[sum]; sum++)
        what -= w->troubles[sum];
    switch (sum) {
    case TROUBLE_BREAK:
        if (actor->conn)
            net_break(w, actor->conn);
        break;
    case TROUBLE_STOP_CLIENT:
        stop(w, &w->clients[world_below(w, w->client_count)].actor);
        break;
    case TROUBLE_STOP:
        stop(w, actor);
        break;
    case TROUBLE_CRASH:
        if (actor != &w->master)
            crash(w, actor);
        break;
    case TROUBLE_CRASH_MASTER:
        crash(w, &w->master);
        break;
    case TROUBLE_FLIP:
        flip(w);
        break;
    default:
        break;
    }
    world_after(w, (5 + world_below(w, w->trouble_gap)) * MS, NULL, trouble);
}

static void act(struct world *w, struct event *e)
{
    struct sim_client *client = &w->clients[e->a];
    const uint64_t which = e->a;

    if (w->calm)
        return;
    if (actor_runs(&client->actor) && w->now >= client->actor.stopped_until) {
        ops_begin_one(w, client);
        /* What was begun goes on with the client's next step. */
        actor_moved(w, &client->actor, UINT64_MAX, MC_OK);
    }
    world_after(w, (1 + world_below(w, w->act_gap)) * MS, NULL, act)->a = which;
}

static void set_up(struct world *w)
{
    w->node_count = 1 + world_below(w, NODES_MAX);
    w->client_count = 1 + world_below(w, CLIENTS_MAX);
    w->loss = world_chance(w, 300) ? world_below(w, 15) : 0;
    w->trouble_gap = 20u << world_below(w, 5);
    w->act_gap = 8u << world_below(w, 3);
    for (int i = 0; i < TROUBLES; i++) /* each seed has its own mixture */
        w->troubles[i] = world_chance(w, 500) ? world_below(w, 20) : 0;
    for (uint32_t k = 0; k < KEYS; k++)
        w->lengths[k] = world_chance(w, 800) ? 300 : world_below(w, LENGTH_MAX);
    actor_init(w, &w->master, ACTOR_MASTER, 0);
    actor_start(w, &w->master);
    for (uint32_t n = 0; n < w->node_count; n++) {
        memcpy(w->nodes[n].name, "node", 4);
        w->nodes[n].name[4] = (char)('0' + n);
        actor_init(w, &w->nodes[n].actor, ACTOR_NODE, n);
        actor_start(w, &w->nodes[n].actor);
    }
    for (uint32_t c = 0; c < w->client_count; c++) {
        actor_init(w, &w->clients[c].actor, ACTOR_CLIENT, c);
        actor_start(w, &w->clients[c].actor);
        world_after(w, (20 + world_below(w, 20)) * MS, NULL, act)->a = c;
    }
    world_after(w, 50 * MS, NULL, trouble);
}

static void calm_down(struct world *w)
{
    world_trace(w, "calm from here on");
    w->calm = true;
    if (!actor_runs(&w->master))
        actor_start(w, &w->master);
    for (uint32_t n = 0; n < w->node_count; n++)
        if (!actor_runs(&w->nodes[n].actor))
            actor_start(w, &w->nodes[n].actor);
    for (uint32_t c = 0; c < w->client_count; c++)
        if (!actor_runs(&w->clients[c].actor))
            actor_start(w, &w->clients[c].actor);
}

static void tear_down(struct world *w)
{
    actor_free_all(&w->master);
    for (uint32_t n = 0; n < w->node_count; n++)
        actor_free_all(&w->nodes[n].actor);
    for (uint32_t c = 0; c < w->client_count; c++)
        actor_free_all(&w->clients[c].actor);
    net_free_all(w);
    for (uint32_t i = 0; i < w->heap_count; i++) {
        free(w->heap[i]->data);
        free(w->heap[i]);
    }
    while (w->spare) {
        struct event *next = w->spare->data;
        free(w->spare);
        w->spare = next;
    }
    free(w->heap);
}

bool world_run(uint64_t seed, bool verbose, struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->seed = seed;
    w->verbose = verbose;
    w->prng = (struct prng){ .seed = seed };
    w->now = SEC;
    set_up(w);
    while (!w->failed && world_turn(w, SEC + TROUBLE_NS))
        ;
    w->now = SEC + TROUBLE_NS;
    if (!w->failed)
        calm_down(w);
    while (!w->failed && world_turn(w, SEC + TROUBLE_NS + CALM_NS))
        ;
    if (!w->failed)
        check_end(w);
    tear_down(w);
    return !w->failed;
}
