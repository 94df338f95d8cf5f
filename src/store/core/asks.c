/* asks.c - what nodes are asked: to open places for writers, and to give up what is dying. */
#include <assert.h>
#include <string.h>

#include "store/core/master_state.h"

#define EVICT_RETRY_NS UINT64_C(100000000) /* what was not quiet is asked for again */

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
    m->dying_places++;
    if (e->flags == 0) /* else it waits in a chain, and comes here from there */
        dying_add(m, extent);
}

static void evict_done(store_master *m, uint32_t extent, mc_status status)
{
    struct extent *e = &m->space.extents[extent];

    if (status == MC_OK) {
        m->dying -= e->size;
        m->dying_places--;
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

void nodes_asks_fail(store_master *m, uint32_t n)
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
