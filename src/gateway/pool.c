/* pool.c - what the pool holds, from the master's events to the scheduler. */
#include <inttypes.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "gateway/state.h"

enum {
    EVENTS_AT_ONCE = 256,
    EVENTS_PER_TURN = 4096, /* then the loop sees to others; the descriptor stays readable */
};

static struct pool_node *find_node(struct pool *p, uint64_t node)
{
    for (uint32_t i = 0; i < p->node_count; i++)
        if (p->nodes[i].node == node)
            return &p->nodes[i];
    return NULL;
}

uint64_t gateway_pool_node_of(const gateway *g, uint64_t instance)
{
    for (uint32_t i = 0; i < g->pool.node_count; i++)
        if (g->pool.nodes[i].instance == instance)
            return g->pool.nodes[i].node;
    return 0;
}

static void count_nodes(gateway *g)
{
    metric_set(&g->metrics, METRIC_pool_nodes, 0, g->pool.node_count);
}

/* NULL: too many, or the scheduler takes no more; what it holds is then not seen, and computed instead. */
static struct pool_node *add_node(gateway *g, uint64_t node)
{
    struct pool *p = &g->pool;
    const struct mc_sched_event event = {
        .kind = MC_EVENT_INSTANCE,
        .instance = { .id = ++g->last_instance, .role = MC_ROLE_STORE },
    };

    if (p->node_count == POOL_NODES_MAX || gateway_schedule(g, &event) != MC_OK)
        return NULL;
    p->nodes[p->node_count++] = (struct pool_node){ .node = node, .instance = event.instance.id };
    count_nodes(g);
    return &p->nodes[p->node_count - 1];
}

static void drop_node(gateway *g, struct pool_node *node)
{
    struct pool *p = &g->pool;
    const struct mc_sched_event event = { .kind = MC_EVENT_INSTANCE_GONE, .id = node->instance };

    *node = p->nodes[--p->node_count];
    count_nodes(g);
    gateway_schedule(g, &event);
}

static void reset(gateway *g)
{
    metric_add(&g->metrics, METRIC_pool_resets, 0, 1);
    while (g->pool.node_count)
        drop_node(g, &g->pool.nodes[g->pool.node_count - 1]);
}

/* For people: the scheduler keeps its own account. */
static void count_block(struct pool_node *node, const struct mc_store_event *e, uint32_t kind)
{
    if (kind == MC_EVENT_STORED) {
        node->blocks++;
        node->bytes += e->length;
    } else {
        node->blocks -= node->blocks > 0;
        node->bytes -= e->length < node->bytes ? e->length : node->bytes;
    }
}

static void take_block(gateway *g, const struct mc_store_event *e, uint32_t kind)
{
    struct pool_node *node = find_node(&g->pool, e->node);

    if (!node && kind == MC_EVENT_STORED)
        node = add_node(g, e->node);
    if (!node)
        return;
    count_block(node, e, kind);
    const struct mc_sched_event event = {
        .kind = kind,
        .blocks = { .id = node->instance, .keys = &e->key, .count = 1, .medium = e->medium },
    };
    gateway_schedule(g, &event);
}

static void take_event(gateway *g, const struct mc_store_event *e)
{
    struct pool_node *node = find_node(&g->pool, e->node);

    switch (e->kind) {
    case MC_STORE_STORED:
        take_block(g, e, MC_EVENT_STORED);
        break;
    case MC_STORE_EVICTED:
    case MC_STORE_REMOVED:
        take_block(g, e, MC_EVENT_EVICTED);
        break;
    case MC_STORE_NODE_UP:
        if (!node)
            add_node(g, e->node);
        break;
    case MC_STORE_NODE_DOWN:
        if (node)
            drop_node(g, node);
        break;
    case MC_STORE_RESET:
        reset(g);
        break;
    default: /* a later release's, or one that changes nothing here */
        break;
    }
}

static void events_ready(void *user, uint32_t ready)
{
    gateway *g = user;
    struct mc_store_event events[EVENTS_AT_ONCE];
    size_t count;

    (void)ready;
    for (uint32_t taken = 0; taken < EVENTS_PER_TURN; taken += (uint32_t)count) {
        if (mc_store_events_take(g->pool.events, events, EVENTS_AT_ONCE, &count, MC_AT_ONCE) !=
            MC_OK)
            break;
        metric_add(&g->metrics, METRIC_pool_events, 0, count);
        for (size_t i = 0; i < count; i++)
            take_event(g, &events[i]);
    }
    gateway_pump(g);
}

static mc_status open_store(gateway *g, struct mc_error *error)
{
    struct pool *p = &g->pool;
    const struct mc_transfer_options transfer = {
        .alloc = g->alloc,
        .log = g->log,
        .secret = g->options.secret,
        .secret_size = g->options.secret_size,
    };

    mc_status status = mc_transfer_open(&transfer, &p->transfer, error);
    if (status != MC_OK)
        return status;
    const struct mc_store_options store = { .master = g->options.master,
                                            .transfer = p->transfer,
                                            .alloc = g->alloc,
                                            .log = g->log,
                                            .secret = g->options.secret,
                                            .secret_size = g->options.secret_size };
    return mc_store_open(&store, &p->store, error);
}

static mc_status watch_events(gateway *g, struct mc_error *error)
{
    struct pool *p = &g->pool;

    mc_status status = mc_store_events_open(p->store, 0, 0, &p->events);
    if (status != MC_OK)
        return error_set(error, status, "cannot subscribe to the pool's events");
    p->watch = (struct os_watch){ .ready = events_ready, .user = g };
    status = mc_store_events_fd(p->events, &p->watch.fd);
    if (status == MC_OK)
        status = os_loop_watch(g->loop, &p->watch, OS_READABLE);
    return status == MC_OK ? MC_OK : error_set(error, status, "cannot watch the pool's events");
}

mc_status gateway_pool_open(gateway *g, struct mc_error *error)
{
    if (!g->options.master)
        return MC_OK;
    g->pool.nodes = alloc_zeroed(g->alloc, POOL_NODES_MAX, sizeof(*g->pool.nodes));
    if (!g->pool.nodes)
        return error_set(error, MC_E_NOMEM, "out of memory for the pool's nodes");
    mc_status status = open_store(g, error);
    if (status == MC_OK)
        status = watch_events(g, error);
    return status;
}

void gateway_pool_close(gateway *g)
{
    struct pool *p = &g->pool;

    if (!g->options.master)
        return;
    os_loop_unwatch(g->loop, &p->watch);
    mc_store_events_close(p->events);
    mc_store_close(p->store);
    mc_transfer_close(p->transfer);
    alloc_free(g->alloc, p->nodes);
    *p = (struct pool){ 0 };
}
