/* rejoin.c - from a connection to being ready: register, be quiet, verify, tell. */
#include <stdlib.h>
#include <string.h>

#include "store/core/node_state.h"

#define REGISTER_RETRY_NS UINT64_C(200000000)
enum { VERIFY_AT_ONCE = 16 }; /* places in one step, so that heartbeats go on */

void rejoin_begin(store_node *node)
{
    struct wire_lent lent[LENTS_MAX];

    for (uint32_t i = 0; i < node->o.lent_count; i++)
        lent[i] = (struct wire_lent){
            .region = node->lent[i].region.id,
            .generation = node->lent[i].region.generation,
            .size = node->lent[i].size,
            .medium = MC_MEDIUM_DRAM,
            .align = node->lent[i].align,
        };
    const struct wire_node_register message = {
        .node = node->id,
        .segment = wire_text(node->segment),
        .incarnation = node->o.incarnation,
        .lent = { .items = lent, .count = node->o.lent_count },
        .host = node->o.host,
        .held = node->count,
        .places = node->o.places_max,
    };
    node->state = LINK_REGISTERING;
    node->announced = node->count;
    node->told_count = 0;
    due_stop(&node->due, due_beat(node));
    due_stop(&node->due, due_rejoin(node));
    node_ask(node, WIRE_NODE_REGISTER, &message, &node->waits);
    if (node->waits == 0)
        due_set(&node->due, due_rejoin(node), node->now + REGISTER_RETRY_NS);
}

static void registered(store_node *node, const struct wire_node_registered *message)
{
    const bool known = node->id == message->node && node->epoch == message->epoch;

    node->id = message->node;
    node->epoch = message->epoch;
    node->readers_ns = message->readers_ns;
    node->heartbeat_ns = message->heartbeat_ns != 0 ? message->heartbeat_ns : REGISTER_RETRY_NS;
    due_set(&node->due, due_beat(node), node->draining ? 0 : node->now + node->heartbeat_ns);
    /* The same master, which knows us: it forgets a node that had not told all, so we had. */
    node->state = known || node->announced == 0 ? LINK_READY : LINK_QUIET;
    if (node->state == LINK_QUIET)
        due_set(&node->due, due_rejoin(node), node->now);
}

/** Windows of a life before: nobody may write while we verify. What is not quiet goes to quarantine. */
static void close_all(store_node *node)
{
    for (uint32_t n = 0; n < node->count; n++) {
        struct held_place *p = &node->places[node->list[n]];
        if (!node_quiet(node, node->list[n]) || p->closing)
            node_rest(node, node->list[n]);
    }
}

static int in_order(const struct store_node *node, uint32_t a, uint32_t b)
{
    const struct held_place *p = &node->places[a], *q = &node->places[b];

    if (p->lent != q->lent)
        return p->lent < q->lent ? -1 : 1;
    return p->offset < q->offset ? -1 : p->offset > q->offset;
}

/** Heap sort of the list: qsort() passes no context. */
static void sift(store_node *node, uint32_t root, uint32_t count)
{
    uint32_t *list = node->list;

    for (;;) {
        uint32_t child = 2 * root + 1;
        if (child >= count)
            return;
        if (child + 1 < count && in_order(node, list[child], list[child + 1]) < 0)
            child++;
        if (in_order(node, list[root], list[child]) >= 0)
            return;
        const uint32_t moved = list[root];
        list[root] = list[child];
        list[child] = moved;
        root = child;
    }
}

static void sort(store_node *node)
{
    for (uint32_t i = node->count / 2; i > 0; i--)
        sift(node, i - 1, node->count);
    for (uint32_t i = node->count; i > 1; i--) {
        const uint32_t last = node->list[0];
        node->list[0] = node->list[i - 1];
        node->list[i - 1] = last;
        sift(node, 0, i - 1);
    }
    for (uint32_t i = 0; i < node->count; i++)
        node->places[node->list[i]].index = i;
}

/** The next batch of what is whole, in order; what is not whole goes after all was told. */
static bool verify_some(store_node *node)
{
    for (int looked = 0; node->cursor < node->count && node->told_count < node->o.batch_max &&
                         looked < VERIFY_AT_ONCE;
         looked++, node->cursor++) {
        const uint32_t i = node->list[node->cursor];
        struct held_place *p = &node->places[i];
        struct mc_object_header header;
        if (p->closing)
            continue;
        if (node->out->inspect(node->out->user, p->lent, p->offset, p->size, p->generation,
                               &header) != MC_OK) {
            node_rest(node, i);
            continue;
        }
        node->told[node->told_count] = i;
        node->say_held[node->told_count++] = (struct wire_held){
            .identity = header.identity,
            .length = header.length,
            .generation = p->generation,
            .lent = p->lent,
            .offset = p->offset,
        };
    }
    return node->cursor == node->count || node->told_count == node->o.batch_max;
}

static void tell(store_node *node)
{
    const struct wire_node_held message = {
        .node = node->id,
        .epoch = node->epoch,
        .objects = { .items = node->say_held, .count = node->told_count },
        .last = node->cursor == node->count,
    };

    node->total.told += node->told_count;
    node_ask(node, WIRE_NODE_HELD, &message, &node->waits);
    if (node->waits == 0)
        rejoin_begin(node); /* from the start: the connection is full or gone */
}

void rejoin_due(store_node *node)
{
    switch (node->state) {
    case LINK_REGISTERING:
        rejoin_begin(node);
        break;
    case LINK_QUIET:
        close_all(node);
        sort(node);
        node->cursor = 0;
        node->told_count = 0;
        node->state = LINK_TELLING;
        /* fall through */
    case LINK_TELLING:
        if (verify_some(node))
            tell(node);
        else
            due_set(&node->due, due_rejoin(node), node->now + 1);
        break;
    case LINK_AWAY:
    case LINK_READY:
        break;
    }
}

static void told(store_node *node, const struct wire_outcomes *outcomes)
{
    for (uint32_t i = 0; i < node->told_count; i++) {
        if ((mc_status)(int32_t)wire_u32_at(&outcomes->statuses, i) != MC_OK)
            node_rest(node, node->told[i]);
    }
    node->told_count = 0;
    if (node->cursor < node->count) {
        due_set(&node->due, due_rejoin(node), node->now);
        return;
    }
    node->state = LINK_READY;
}

void rejoin_answer(store_node *node, const struct store_node_event *event)
{
    const bool ok = event->status == MC_OK;
    const struct wire_outcomes *outcomes = event->message;

    node->waits = 0;
    if (node->state == LINK_REGISTERING && ok && event->wire == WIRE_NODE_REGISTERED)
        registered(node, event->message);
    else if (node->state == LINK_TELLING && ok && event->wire == WIRE_OUTCOMES &&
             outcomes->statuses.count == node->told_count)
        told(node, outcomes);
    else if (node->state == LINK_REGISTERING || event->status != MC_E_PEER) {
        node->state = LINK_REGISTERING;
        due_set(&node->due, due_rejoin(node), node->now + REGISTER_RETRY_NS);
    }
}
