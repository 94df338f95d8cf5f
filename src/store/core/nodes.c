/* nodes.c - nodes: who lends what, what they are asked to open and to give up, and how they are lost. */
#include <assert.h>
#include <string.h>

#include "store/core/master_state.h"

#define EVICT_RETRY_NS UINT64_C(100000000) /* what was not quiet is asked for again */

struct node *nodes_find(store_master *m, uint64_t id)
{
    for (uint32_t n = 0; id != 0 && n < m->nodes_high; n++)
        if (m->nodes[n].state != NODE_FREE && m->nodes[n].id == id)
            return &m->nodes[n];
    return NULL;
}

/* ------------------------------------------------------------------------------- where to put */

/** Higher is better: the node that was asked for, then the writer's host, then who has most room. */
static uint64_t rank(const store_master *m, const struct node *node, uint64_t preferred,
                     const struct mc_identity *host)
{
    static const struct mc_identity nobody;
    const bool near =
        memcmp(host, &nobody, sizeof(nobody)) != 0 && memcmp(host, &node->host, sizeof(*host)) == 0;
    uint64_t room = 0;

    for (uint32_t i = 0; i < node->lent_count; i++)
        room += m->space.lents[node->lents[i]].free_bytes;
    return (node->id == preferred ? UINT64_C(1) << 63 : 0) | (near ? UINT64_C(1) << 62 : 0) |
           (room >> 2);
}

static uint32_t take(store_master *m, const struct node *node, uint64_t size, uint32_t medium)
{
    for (uint32_t i = 0; i < node->lent_count; i++) {
        const struct lent *lent = &m->space.lents[node->lents[i]];
        if (medium != MC_MEDIUM_ANY && lent->medium != medium)
            continue;
        const uint32_t extent = space_take(&m->space, node->lents[i], size);
        if (extent != 0)
            return extent;
    }
    return 0;
}

uint32_t nodes_place(store_master *m, uint64_t size, uint64_t preferred,
                     const struct mc_identity *host, uint32_t medium)
{
    for (;;) {
        struct node *best = NULL;
        uint64_t best_rank = 0;
        for (uint32_t n = 0; n < m->nodes_high; n++) {
            struct node *node = &m->nodes[n];
            if (node->state != NODE_UP || node->conn == 0 || node->draining ||
                node->mark == m->mark || m->now < node->quiet_until)
                continue;
            const uint64_t r = rank(m, node, preferred, host);
            if (!best || r > best_rank) {
                best = node;
                best_rank = r;
            }
        }
        if (!best)
            return 0;
        const uint32_t extent = take(m, best, size, medium);
        if (extent != 0)
            return extent;
        best->mark = m->mark; /* no room for this object */
    }
}

/* ---------------------------------------------------------------------------------- questions */

static uint64_t ask_tag(const store_master *m, uint32_t a)
{
    return (uint64_t)m->asks[a].serial << 32 | a;
}

static uint32_t ask_add(store_master *m, uint32_t node, enum ask_kind kind, uint32_t first)
{
    const uint32_t a = m->ask_spare;

    if (a == 0)
        return 0;
    m->ask_spare = m->asks[a].chain;
    m->asks[a] = (struct ask){ .first = first,
                               .serial = m->asks[a].serial + 1,
                               .node = (uint16_t)node,
                               .kind = (uint8_t)kind };
    return a;
}

/** Its answer, if one comes, is nobody's any more. Returns the first extent. */
static uint32_t ask_free(store_master *m, uint32_t a)
{
    const uint32_t first = m->asks[a].first;

    m->asks[a] = (struct ask){ .serial = m->asks[a].serial, .chain = m->ask_spare };
    m->ask_spare = a;
    return first;
}

static struct wire_place place_of(const store_master *m, uint32_t extent)
{
    const struct extent *e = &m->space.extents[extent];
    const struct node *node = &m->nodes[e->node];
    uint32_t index = 0;

    while (node->lents[index] != e->lent)
        index++;
    return (struct wire_place){
        .lent = index, .offset = e->offset, .size = e->size, .generation = e->generation
    };
}

/* -------------------------------------------------------------------------------------- dying */

static void dying_add(store_master *m, uint32_t extent)
{
    struct extent *e = &m->space.extents[extent];
    struct node *node = &m->nodes[e->node];

    e->link = 0;
    e->flags = EXTENT_QUEUED;
    *(node->dying_last ? &m->space.extents[node->dying_last].link : &node->dying_first) = extent;
    node->dying_last = extent;
    due_set(&m->due, due_work(m, e->node),
            0); /* soon: what dies in one step is asked for at once */
}

void nodes_dying(store_master *m, uint32_t extent, uint64_t until)
{
    struct extent *e = &m->space.extents[extent];

    e->state = EXTENT_DYING;
    e->until = until;
    m->dying += e->size;
    if (e->flags == 0) /* else it waits in a chain, and comes here from there */
        dying_add(m, extent);
}

static void evict_done(store_master *m, uint32_t extent, mc_status status)
{
    struct extent *e = &m->space.extents[extent];

    if (status == MC_OK) {
        m->dying -= e->size;
        space_give(&m->space, extent);
        return;
    }
    e->state = EXTENT_DYING;
    e->until = m->now + EVICT_RETRY_NS;
    dying_add(m, extent);
}

static void evict_failed(store_master *m, uint32_t first)
{
    while (first != 0) {
        const uint32_t next = m->space.extents[first].link;
        evict_done(m, first, MC_E_PEER);
        first = next;
    }
}

static void evict_answer(store_master *m, uint32_t extent, const struct wire_outcomes *outcomes)
{
    for (uint32_t i = 0; extent != 0; i++) {
        const uint32_t next = m->space.extents[extent].link;
        const bool said = outcomes && i < outcomes->statuses.count;
        evict_done(m, extent,
                   said ? (mc_status)(int32_t)wire_u32_at(&outcomes->statuses, i) : MC_E_PEER);
        extent = next;
    }
}

/** Ask for what may go; the rest stays in the node's list. */
void nodes_work(store_master *m, uint32_t n)
{
    struct node *node = &m->nodes[n];
    struct wire_place *places = m->say_items;
    uint32_t extent = node->dying_first, count = 0, first = 0, last = 0;
    uint64_t next_ns = UINT64_MAX;

    due_stop(&m->due, due_work(m, n));
    if (node->conn == 0)
        return; /* when it is back */
    node->dying_first = node->dying_last = 0;
    while (extent != 0) {
        struct extent *e = &m->space.extents[extent];
        const uint32_t link = e->link;
        e->link = 0;
        if (e->until <= m->now && count < m->o.batch_max) {
            places[count++] = place_of(m, extent);
            e->state = EXTENT_EVICTING;
            e->flags = EXTENT_ASKED;
            *(last ? &m->space.extents[last].link : &first) = extent;
            last = extent;
        } else {
            const uint64_t at = e->until > m->now ? e->until : m->now + 1;
            next_ns = at < next_ns ? at : next_ns;
            *(node->dying_last ? &m->space.extents[node->dying_last].link : &node->dying_first) =
                extent;
            node->dying_last = extent;
        }
        extent = link;
    }
    if (next_ns != UINT64_MAX)
        due_set(&m->due, due_work(m, n), next_ns);
    if (count == 0)
        return;
    const uint32_t a = ask_add(m, n, ASK_EVICT, first);
    const struct wire_evict evict = { .places = { .items = places, .count = count } };
    if (a != 0 && m->out->ask(m->out->user, node->conn, ask_tag(m, a), WIRE_EVICT, &evict,
                              m->now + m->o.ask_ns) == MC_OK)
        return;
    evict_failed(m, a != 0 ? ask_free(m, a) : first);
    due_set(&m->due, due_work(m, n), m->now + EVICT_RETRY_NS);
}

/* ------------------------------------------------------------------------------------ windows */

void nodes_open_later(store_master *m, uint32_t extent)
{
    struct extent *e = &m->space.extents[extent];
    struct node *node = &m->nodes[e->node];

    if (e->flags != 0)
        return; /* asked for already */
    if (node->open_first == 0) {
        node->open_next = m->open_nodes;
        m->open_nodes = e->node + 1u;
    }
    e->flags = EXTENT_QUEUED;
    e->link = 0;
    *(node->open_last ? &m->space.extents[node->open_last].link : &node->open_first) = extent;
    node->open_last = extent;
}

/** What became of the question for a window; NULL: there is none. */
static void opened(store_master *m, uint32_t extent, const struct wire_window *window)
{
    static const struct mc_key none;
    struct extent *e = &m->space.extents[extent];

    if (window && memcmp(&window->key, &none, sizeof(none)) == 0)
        window = NULL;
    e->flags = 0;
    e->link = 0;
    if (e->state == EXTENT_DYING) {
        dying_add(m, extent); /* the put ended meanwhile */
        return;
    }
    assert(e->state == EXTENT_WRITING || e->state == EXTENT_HELD);
    if (e->state == EXTENT_HELD)
        return; /* committed while it was renewed */
    if (window) {
        puts_window(m, extent, window);
    } else if (e->window == 0) {
        puts_window(m, extent, NULL);
        nodes_dying(m, extent, 0); /* it may have been opened all the same */
    } /* else a renewal failed: the window ends by itself, and writes to it fail */
}

static void open_answer(store_master *m, uint32_t extent, const struct wire_place_windows *windows)
{
    struct wire_list list = windows ? windows->windows : (struct wire_list){ 0 };
    struct wire_window window;

    while (extent != 0) {
        const uint32_t next = m->space.extents[extent].link;
        opened(m, extent, wire_window_next(&list, &window) ? &window : NULL);
        extent = next;
    }
}

static uint64_t token_lease_of(const store_master *m, uint32_t extent)
{
    return m->tokens[m->objects[m->space.extents[extent].object].token].lease_ns;
}

/** One message with the first of the node's list, at most batch_max. */
static void open_some(store_master *m, uint32_t n)
{
    struct node *node = &m->nodes[n];
    struct wire_place *places = m->say_items;
    uint32_t count = 0, first = 0, last = 0;
    uint64_t lease_ns = 0;

    while (node->open_first != 0 && count < m->o.batch_max) {
        const uint32_t extent = node->open_first;
        struct extent *e = &m->space.extents[extent];
        node->open_first = e->link;
        e->link = 0;
        if (e->state != EXTENT_WRITING) {
            opened(m, extent, NULL);
            continue;
        }
        const uint64_t lease = token_lease_of(m, extent);
        lease_ns = lease > lease_ns ? lease : lease_ns;
        places[count] = place_of(m, extent);
        places[count++].key = m->objects[e->object].key;
        e->flags = EXTENT_ASKED;
        *(last ? &m->space.extents[last].link : &first) = extent;
        last = extent;
    }
    if (node->open_first == 0)
        node->open_last = 0;
    if (count == 0)
        return;
    const uint32_t a = ask_add(m, n, ASK_OPEN, first);
    const struct wire_place_open open = {
        .places = { .items = places, .count = count },
        .permissions = MC_REMOTE_WRITE,
        .lease_ns = lease_ns,
    };
    if (a == 0 || m->out->ask(m->out->user, node->conn, ask_tag(m, a), WIRE_PLACE_OPEN, &open,
                              m->now + m->o.ask_ns) != MC_OK)
        open_answer(m, a != 0 ? ask_free(m, a) : first, NULL);
}

void nodes_open_flush(store_master *m)
{
    while (m->open_nodes != 0) {
        const uint32_t n = m->open_nodes - 1;
        m->open_nodes = m->nodes[n].open_next;
        while (m->nodes[n].open_first != 0)
            open_some(m, n);
    }
}

void nodes_answer(store_master *m, const struct store_master_event *event)
{
    const uint32_t a = (uint32_t)event->id;

    if (a == 0 || a > m->asks_max || m->asks[a].kind == ASK_FREE || ask_tag(m, a) != event->id)
        return; /* of a node that was forgotten, or given up */
    const enum ask_kind kind = (enum ask_kind)m->asks[a].kind;
    const bool ok = event->status == MC_OK;
    const uint32_t first = ask_free(m, a);
    if (kind == ASK_OPEN)
        open_answer(m, first, ok && event->wire == WIRE_PLACE_WINDOWS ? event->message : NULL);
    else
        evict_answer(m, first, ok && event->wire == WIRE_OUTCOMES ? event->message : NULL);
}

/** Nothing that this node was asked will be answered. */
static void asks_fail(store_master *m, uint32_t n)
{
    for (uint32_t a = 1; a <= m->asks_max; a++) {
        if (m->asks[a].kind == ASK_FREE || m->asks[a].node != n)
            continue;
        const enum ask_kind kind = (enum ask_kind)m->asks[a].kind;
        const uint32_t first = ask_free(m, a);
        if (kind == ASK_OPEN)
            open_answer(m, first, NULL);
        else
            evict_failed(m, first);
    }
}

/* ------------------------------------------------------------------------------- come and go */

static void extent_lost(store_master *m, uint32_t extent)
{
    struct extent *e = &m->space.extents[extent];

    switch ((enum extent_state)e->state) {
    case EXTENT_WRITING:
        puts_window(m, extent, NULL);
        break;
    case EXTENT_HELD:
        table_detach(m, e->object, extent, 0);
        break;
    case EXTENT_DYING:
    case EXTENT_EVICTING:
        m->dying -= e->size;
        break;
    case EXTENT_FREE:
    case EXTENT_UNUSED:
        break;
    }
}

static uint64_t lent_bytes(const store_master *m, const struct node *node)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < node->lent_count; i++)
        bytes += m->space.lents[node->lents[i]].size;
    return bytes;
}

void nodes_forget(store_master *m, uint32_t n)
{
    struct node *node = &m->nodes[n];
    const uint64_t id = node->id;

    node->conn = 0;
    asks_fail(m, n);
    for (uint32_t i = 0; i < node->lent_count; i++)
        for (uint32_t e = m->space.lents[node->lents[i]].first; e != 0;
             e = m->space.extents[e].after)
            extent_lost(m, e);
    if (!node->draining)
        m->capacity -= lent_bytes(m, node);
    for (uint32_t i = 0; i < node->lent_count; i++)
        space_withdraw(&m->space, node->lents[i]);
    due_stop(&m->due, due_node(m, n));
    due_stop(&m->due, due_work(m, n));
    *node = (struct node){ .lents = node->lents };
    m->total.lost_nodes++;
    feed_add(m, MC_STORE_NODE_DOWN, id, 0, &(struct mc_key){ 0 }, 0);
}

void nodes_expired(store_master *m, uint32_t n)
{
    nodes_forget(m, n);
}

static void node_lives(store_master *m, uint32_t n)
{
    m->nodes[n].until = m->now + m->o.node_ns;
    due_set(&m->due, due_node(m, n), m->nodes[n].until);
}

void nodes_down(store_master *m, uint64_t conn)
{
    for (uint32_t n = 0; n < m->nodes_high; n++) {
        struct node *node = &m->nodes[n];
        if (node->state == NODE_FREE || node->conn != conn)
            continue;
        if (node->state == NODE_JOINING) {
            nodes_forget(m, n); /* it begins to tell anew */
            continue;
        }
        node->conn = 0;
        asks_fail(m, n);
        if (node->until > m->now + m->o.gone_ns) {
            node->until = m->now + m->o.gone_ns;
            due_set(&m->due, due_node(m, n), node->until);
        }
    }
}

static void say_registered(store_master *m, uint64_t id, uint32_t n)
{
    const struct wire_node_registered registered = {
        .node = m->nodes[n].id,
        .epoch = m->o.epoch,
        .heartbeat_ns = m->o.node_ns / 4,
        .lease_ns = m->o.node_ns,
        .readers_ns = m->o.lease_max_ns,
    };

    (void)m->out->answer(m->out->user, m->nodes[n].conn, id, WIRE_NODE_REGISTERED, &registered);
}

/** A node that is known is back: nothing was lost but the connection. */
static void node_back(store_master *m, uint32_t n, uint64_t conn)
{
    struct node *node = &m->nodes[n];

    if (node->conn != 0)
        asks_fail(m, n); /* the old connection's end was not heard of yet */
    node->conn = conn;
    node_lives(m, n);
    if (node->dying_first != 0)
        due_set(&m->due, due_work(m, n), 0);
}

/** Forget what a life before of this node, or of this connection, had registered. Returns its record + 1
 * if it is the same life. */
static uint32_t node_known(store_master *m, uint64_t conn, const struct wire_node_register *message)
{
    for (uint32_t n = 0; n < m->nodes_high; n++) {
        struct node *node = &m->nodes[n];
        if (node->state == NODE_FREE)
            continue;
        const bool same_name =
            strlen(node->segment) == message->segment.size &&
            memcmp(node->segment, message->segment.data, message->segment.size) == 0;
        if (node->id == message->node && node->incarnation == message->incarnation &&
            node->state == NODE_UP)
            return n + 1;
        if (same_name || node->incarnation == message->incarnation || node->conn == conn)
            nodes_forget(m, n);
    }
    return 0;
}

static mc_status lend(store_master *m, uint32_t n, const struct wire_lent *lent)
{
    struct node *node = &m->nodes[n];

    if (lent->medium != MC_MEDIUM_DRAM)
        return MC_E_UNSUPPORTED;
    if (lent->align == 0 || lent->align > lent->size || lent->size > UINT64_C(1) << 60)
        return MC_E_RANGE;
    if (!space_lend(&m->space, (uint16_t)n, lent->region, lent->generation, lent->size,
                    lent->medium, lent->align, &node->lents[node->lent_count]))
        return MC_E_FULL;
    node->lent_count++;
    m->capacity += m->space.lents[node->lents[node->lent_count - 1]].size;
    return MC_OK;
}

/** A new record with all that is lent, or why not. */
static mc_status node_new(store_master *m, uint64_t conn, const struct wire_node_register *message,
                          uint32_t *n_p)
{
    struct wire_list list = message->lent;
    struct wire_lent lent;
    uint32_t n = 0;

    if (list.count > LENTS_OF_NODE || message->segment.size > MC_NAME_MAX)
        return MC_E_RANGE;
    while (n < m->o.nodes_max && m->nodes[n].state != NODE_FREE)
        n++;
    if (n == m->o.nodes_max)
        return MC_E_FULL;
    struct node *node = &m->nodes[n];
    *node = (struct node){
        .id = ++m->node_id,
        .conn = conn,
        .incarnation = message->incarnation,
        .host = message->host,
        .held = message->held,
        .lents = node->lents,
        .state = message->held != 0 ? NODE_JOINING : NODE_UP,
    };
    memcpy(node->segment, message->segment.data, message->segment.size);
    if (n >= m->nodes_high)
        m->nodes_high = n + 1;
    feed_add(m, MC_STORE_NODE_UP, node->id, 0, &(struct mc_key){ 0 }, 0);
    while (wire_lent_next(&list, &lent)) {
        const mc_status status = lend(m, n, &lent);
        if (status != MC_OK) {
            nodes_forget(m, n);
            return status;
        }
    }
    *n_p = n;
    return MC_OK;
}

void nodes_register(store_master *m, uint64_t conn, uint64_t id,
                    const struct wire_node_register *message)
{
    uint32_t n = node_known(m, conn, message);

    if (n != 0) {
        n--;
        node_back(m, n, conn);
    } else {
        const mc_status status = node_new(m, conn, message, &n);
        if (status != MC_OK) {
            say_outcome(m, conn, id, status, "node_register: what it lends cannot be taken");
            return;
        }
        node_lives(m, n);
    }
    say_registered(m, id, n);
}

void nodes_heartbeat(store_master *m, uint64_t conn, uint64_t id,
                     const struct wire_node_heartbeat *message)
{
    struct node *node = message->epoch == m->o.epoch ? nodes_find(m, message->node) : NULL;

    if (!node || node->conn != conn) {
        say_outcome(m, conn, id, MC_E_STALE, "not a node that is known: register again");
        return;
    }
    if (node->draining != message->draining)
        m->capacity += message->draining ? -lent_bytes(m, node) : lent_bytes(m, node);
    node->draining = message->draining;
    node->quarantined_bytes = message->quarantined_bytes;
    node_lives(m, (uint32_t)(node - m->nodes));
    say_outcome(m, conn, id, MC_OK, NULL);
}
