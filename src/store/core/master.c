/* master.c - open, close, dispatch, time. What it does with messages stands in the files beside it. */
#include "store/core/master.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "store/core/master_state.h"

#define SECOND UINT64_C(1000000000)

static_assert(sizeof(struct object) <= 80 && sizeof(struct extent) == 56,
              "what an object costs: see store_master_object_cost()");
static_assert(sizeof(struct wire_put_place) <= SAY_ITEM_MAX &&
                  sizeof(struct wire_found_item) <= SAY_ITEM_MAX &&
                  sizeof(struct wire_exist_item) <= SAY_ITEM_MAX &&
                  sizeof(struct wire_place) <= SAY_ITEM_MAX &&
                  sizeof(struct wire_store_event) <= SAY_ITEM_MAX,
              "every list that is said fits say_items");

uint32_t store_master_object_cost(void)
{
    /* Its record, its bucket (at most two to an object), one replica. */
    return (uint32_t)(sizeof(struct object) - sizeof(struct mc_key) + 2 * sizeof(uint32_t) +
                      sizeof(struct extent));
}

/* ------------------------------------------------------------------------------ open and close */

static void set_default(uint32_t *value, uint32_t otherwise)
{
    if (*value == 0)
        *value = otherwise;
}

static void set_default_ns(uint64_t *value, uint64_t otherwise)
{
    if (*value == 0)
        *value = otherwise;
}

static void set_defaults(struct store_master_options *o)
{
    set_default(&o->objects_max, 1u << 20);
    set_default(&o->extents_max, o->objects_max <= UINT32_MAX / 2 ? 2 * o->objects_max : 0);
    set_default(&o->nodes_max, 1024);
    set_default(&o->lents_max, 4096);
    set_default(&o->tokens_max, 65536);
    set_default(&o->leases_max, 65536);
    set_default(&o->lease_items_max, o->objects_max < (4u << 20) ? 4 * o->objects_max : 16u << 20);
    set_default(&o->requests_max, 4096);
    set_default(&o->batch_max, 4096);
    set_default(&o->events_max, 65536);
    set_default(&o->subscribers_max, 64);
    set_default(&o->free_percent, 5);
    set_default_ns(&o->lease_ns, 5 * SECOND);
    set_default_ns(&o->lease_max_ns, 15 * SECOND);
    set_default_ns(&o->token_ns, 10 * SECOND);
    set_default_ns(&o->node_ns, 10 * SECOND);
    set_default_ns(&o->gone_ns, 2 * SECOND);
    set_default_ns(&o->ask_ns, 2 * SECOND);
}

static bool limits_are_fine(const struct store_master_options *o)
{
    const uint32_t records_max = 1u << 28; /* indices, and sums of them, stay in 32 bits */

    return o->objects_max <= records_max && o->extents_max <= 2 * records_max &&
           o->extents_max >= 2 && o->tokens_max <= 1u << 24 && o->leases_max <= 1u << 24 &&
           o->lease_items_max <= records_max && o->requests_max <= 1u << 20 &&
           o->nodes_max <= 65535 && o->lents_max <= 65535 && o->batch_max <= 4096 &&
           o->batch_max >= MC_REPLICAS_MAX && o->events_max <= records_max;
}

static uint32_t power_of_two(uint32_t least)
{
    uint32_t n = 1;

    while (n < least)
        n *= 2;
    return n;
}

/** An array of m->o.alloc, noted in *bad if it cannot be had. */
static void *array(store_master *m, size_t count, size_t size, bool *bad)
{
    void *p = alloc_zeroed(m->o.alloc, count, size);

    *bad = *bad || !p;
    return p;
}

static bool allocate(store_master *m)
{
    const struct store_master_options *o = &m->o;
    bool bad = false;

    m->objects = array(m, (size_t)o->objects_max + 1, sizeof(*m->objects), &bad);
    m->buckets = array(m, (size_t)m->bucket_mask + 1, sizeof(*m->buckets), &bad);
    m->tokens = array(m, (size_t)o->tokens_max + 1, sizeof(*m->tokens), &bad);
    m->token_buckets = array(m, (size_t)m->token_mask + 1, sizeof(*m->token_buckets), &bad);
    m->windows = array(m, (size_t)m->windows_max + 1, sizeof(*m->windows), &bad);
    m->requests = array(m, (size_t)o->requests_max + 1, sizeof(*m->requests), &bad);
    m->items = array(m, (size_t)m->items_max + 1, sizeof(*m->items), &bad);
    m->leases = array(m, (size_t)o->leases_max + 1, sizeof(*m->leases), &bad);
    m->lease_items = array(m, (size_t)o->lease_items_max + 1, sizeof(*m->lease_items), &bad);
    m->nodes = array(m, o->nodes_max, sizeof(*m->nodes), &bad);
    m->node_lents = array(m, (size_t)o->nodes_max * LENTS_OF_NODE, sizeof(*m->node_lents), &bad);
    m->asks = array(m, (size_t)m->asks_max + 1, sizeof(*m->asks), &bad);
    m->feed = array(m, o->events_max, sizeof(*m->feed), &bad);
    m->readers = array(m, o->subscribers_max, sizeof(*m->readers), &bad);
    m->say_items = array(m, o->batch_max, SAY_ITEM_MAX, &bad);
    m->say_replicas =
        array(m, (size_t)o->batch_max * MC_REPLICAS_MAX, sizeof(*m->say_replicas), &bad);
    m->say_nodes = array(m, o->nodes_max, sizeof(*m->say_nodes), &bad);
    m->say_statuses = array(m, o->batch_max, sizeof(*m->say_statuses), &bad);
    return !bad && space_open(&m->space, o->alloc, o->extents_max, o->lents_max) == MC_OK &&
           due_open(&m->due, o->alloc, due_feed(m) + 1) == MC_OK;
}

/** All records are spare; 0 stays none. */
static void chain(store_master *m)
{
    for (uint32_t i = m->o.objects_max; i > 0; i--) {
        m->objects[i].chain = m->object_spare;
        m->object_spare = i;
    }
    for (uint32_t i = m->o.tokens_max; i > 0; i--) {
        m->tokens[i].chain = m->token_spare;
        m->token_spare = i;
    }
    for (uint32_t i = m->windows_max; i > 0; i--) {
        m->windows[i].region = m->window_spare;
        m->window_spare = i;
    }
    for (uint32_t i = m->o.requests_max; i > 0; i--) {
        m->requests[i].chain = m->request_spare;
        m->request_spare = i;
    }
    for (uint32_t i = m->items_max; i > 0; i--) {
        m->items[i].next = m->item_spare;
        m->item_spare = i;
    }
    for (uint32_t i = m->o.leases_max; i > 0; i--) {
        m->leases[i].chain = m->lease_spare;
        m->lease_spare = i;
    }
    for (uint32_t i = m->o.lease_items_max; i > 0; i--) {
        m->lease_items[i].next = m->lease_item_spare;
        m->lease_item_spare = i;
    }
    for (uint32_t i = m->asks_max; i > 0; i--) {
        m->asks[i].chain = m->ask_spare;
        m->ask_spare = i;
    }
    for (uint32_t n = 0; n < m->o.nodes_max; n++)
        m->nodes[n].lents = m->node_lents + (size_t)n * LENTS_OF_NODE;
}

mc_status store_master_open(const struct store_master_options *options, store_master **master_p)
{
    struct store_master_options o = *options;

    set_defaults(&o);
    if (o.epoch == 0)
        return MC_E_ARG;
    if (!limits_are_fine(&o))
        return MC_E_RANGE;
    if (o.token_ns > o.lease_max_ns)
        o.token_ns = o.lease_max_ns;
    store_master *m = alloc_zeroed(o.alloc, 1, sizeof(*m));
    if (!m)
        return MC_E_NOMEM;
    m->o = o;
    m->bucket_mask = power_of_two(o.objects_max) - 1;
    m->token_mask = power_of_two(o.tokens_max) - 1;
    m->windows_max = o.tokens_max < 1u << 21 ? o.tokens_max * MC_REPLICAS_MAX : 1u << 24;
    m->windows_max = m->windows_max < o.extents_max ? m->windows_max : o.extents_max;
    m->items_max = o.tokens_max + 2 * o.batch_max;
    m->asks_max = 4 * o.nodes_max + 64;
    /* Numbers of another life are other ones: 40 bits are left to count in. */
    m->generation = prng_mix(o.epoch) >> 1 & ~UINT64_C(0xffffffffff);
    m->node_id = (prng_mix(o.epoch ^ 1) >> 1 & ~UINT64_C(0xffffff)) | 1;
    m->feed_first = 1;
    if (!allocate(m)) {
        store_master_close(m);
        return MC_E_NOMEM;
    }
    chain(m);
    *master_p = m;
    return MC_OK;
}

void store_master_close(store_master *m)
{
    if (!m)
        return;
    const struct mc_alloc *alloc = m->o.alloc;
    due_close(&m->due, alloc);
    space_close(&m->space, alloc);
    void *const arrays[] = { m->say_statuses, m->say_nodes,   m->say_replicas,  m->say_items,
                             m->readers,      m->feed,        m->asks,          m->node_lents,
                             m->nodes,        m->lease_items, m->leases,        m->items,
                             m->requests,     m->windows,     m->token_buckets, m->tokens,
                             m->buckets,      m->objects };
    for (size_t i = 0; i < sizeof(arrays) / sizeof(*arrays); i++)
        alloc_free(alloc, arrays[i]);
    alloc_free(alloc, m);
}

/* ----------------------------------------------------------------------------------- answers */

void say_outcome(store_master *m, uint64_t conn, uint64_t id, mc_status status, const char *text)
{
    const struct wire_outcome outcome = {
        .status = status,
        .text = text ? wire_text(text) : (struct wire_slice){ 0 },
    };

    (void)m->out->answer(m->out->user, conn, id, WIRE_OUTCOME, &outcome);
}

void say_outcomes(store_master *m, uint64_t conn, uint64_t id, uint32_t count)
{
    const struct wire_outcomes outcomes = { .statuses = { m->say_statuses, count } };

    (void)m->out->answer(m->out->user, conn, id, WIRE_OUTCOMES, &outcomes);
}

void say_nodes_begin(store_master *m)
{
    m->say_node_count = 0;
    m->mark++;
}

void say_node(store_master *m, uint32_t n)
{
    struct node *node = &m->nodes[n];

    if (node->mark == m->mark)
        return;
    node->mark = m->mark;
    m->say_nodes[m->say_node_count++] = (struct wire_node_engine){
        .node = node->id,
        .segment = wire_text(node->segment),
        .incarnation = node->incarnation,
    };
}

void say_replica(store_master *m, uint32_t extent, struct wire_replica *replica)
{
    const struct extent *e = &m->space.extents[extent];
    const struct lent *lent = &m->space.lents[e->lent];

    *replica = (struct wire_replica){
        .node = m->nodes[e->node].id,
        .medium = lent->medium,
        .generation = e->generation,
    };
    if (e->state == EXTENT_WRITING) {
        replica->window = m->windows[e->window];
        return;
    }
    replica->region = lent->region;
    replica->region_generation = lent->region_generation;
    replica->offset = e->offset;
}

/* ---------------------------------------------------------------------------------- dispatch */

/* clang-format off */
#define KNOWN(X) \
    X(PUT_BEGIN, puts_begin) X(PUT_COMMIT, puts_commit) X(PUT_REVOKE, puts_revoke) \
    X(PUT_RENEW, puts_renew) X(LOOKUP, leases_lookup) X(EXIST, leases_exist) \
    X(LEASE_RENEW, leases_renew) X(LEASE_RELEASE, leases_release) X(REMOVE, leases_remove) \
    X(REPLICA_BAD, leases_bad) X(NODE_REGISTER, nodes_register) X(NODE_HELD, held_tell) \
    X(NODE_HEARTBEAT, nodes_heartbeat) X(EVENTS_SUBSCRIBE, feed_subscribe)
/* clang-format on */

bool store_master_knows(uint32_t wire)
{
    switch (wire) {
#define CASE(KIND, function) case WIRE_##KIND:
        KNOWN(CASE)
        return true;
#undef CASE
    default:
        return false;
    }
}

static void message(store_master *m, const struct store_master_event *event)
{
    switch (event->wire) {
#define CASE(KIND, function) \
    case WIRE_##KIND: \
        function(m, event->conn, event->id, event->message); \
        break;
        KNOWN(CASE)
#undef CASE
    default:
        say_outcome(m, event->conn, event->id, MC_E_UNSUPPORTED, "not a question for a master");
    }
}

/** What is over is over before anything else happens. */
static void expire(store_master *m)
{
    const uint32_t nodes = m->o.nodes_max;
    uint32_t id;

    while (due_first(&m->due, &id) <= m->now) {
        due_stop(&m->due, id);
        if (id < nodes)
            nodes_expired(m, id);
        else if (id < 2 * nodes)
            nodes_work(m, id - nodes);
        else if (id <= due_lease(m, m->o.leases_max))
            leases_expired(m, id - due_lease(m, 0));
        else if (id <= due_token(m, m->o.tokens_max))
            puts_expired(m, id - due_token(m, 0));
        else
            m->feed_dirty = true;
    }
}

void store_master_step(store_master *m, const struct store_master_event *event, uint64_t now_ns,
                       const struct store_master_out *out)
{
    m->out = out;
    m->now = now_ns;
    expire(m);
    switch (event->kind) {
    case STORE_MASTER_TICK:
        break;
    case STORE_MASTER_MESSAGE:
        message(m, event);
        break;
    case STORE_MASTER_ANSWER:
        nodes_answer(m, event);
        break;
    case STORE_MASTER_DOWN:
        puts_down(m, event->conn);
        feed_down(m, event->conn);
        nodes_down(m, event->conn);
        break;
    }
    expire(m); /* what this step made due: nodes are asked to give up what died in it */
    feed_flush(m);
    m->out = NULL;
}

uint64_t store_master_next_ns(const store_master *m)
{
    uint32_t id;

    return due_first(&m->due, &id);
}

void store_master_figures(const store_master *m, struct store_master_figures *figures_p)
{
    struct store_master_figures f = m->total;

    for (uint32_t n = 0; n < m->nodes_high; n++) {
        f.nodes += m->nodes[n].state != NODE_FREE;
        f.quarantined_bytes += m->nodes[n].quarantined_bytes;
    }
    for (uint32_t i = 0; i < m->o.subscribers_max; i++)
        f.subscribers += m->readers[i].state != READER_FREE;
    f.objects = m->object_count;
    f.replicas = m->replicas;
    f.leases = m->lease_count;
    f.lease_items = m->lease_item_count;
    f.tokens = m->token_count;
    f.requests = m->request_count;
    f.capacity_bytes = m->capacity;
    f.used_bytes = m->used;
    f.dying_bytes = m->dying;
    f.sequence = m->sequence;
    *figures_p = f;
}
