/* node.c - places, windows, heartbeats; how it comes (back) to a master stands in rejoin.c. */
#include "store/core/node.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"
#include "store/core/node_state.h"

#define QUIET_RETRY_NS UINT64_C(10000000)

/* ------------------------------------------------------------------------------------- places */

static uint32_t *bucket_of(const store_node *node, uint32_t lent, uint64_t offset)
{
    return &node->buckets[prng_mix(offset ^ (uint64_t)lent << 56) & node->bucket_mask];
}

static uint32_t find(const store_node *node, uint32_t lent, uint64_t offset)
{
    uint32_t i = *bucket_of(node, lent, offset);

    while (i != 0 && (node->places[i].offset != offset || node->places[i].lent != lent))
        i = node->places[i].chain;
    return i;
}

static uint32_t add(store_node *node, const struct wire_place *place)
{
    const uint32_t i = node->spare;

    if (i == 0)
        return 0;
    struct held_place *p = &node->places[i];
    uint32_t *bucket = bucket_of(node, place->lent, place->offset);
    node->spare = p->chain;
    *p = (struct held_place){
        .offset = place->offset,
        .size = place->size,
        .generation = place->generation,
        .chain = *bucket,
        .index = node->count,
        .lent = (uint16_t)place->lent,
        .used = true,
    };
    *bucket = i;
    node->list[node->count++] = i;
    node->total.used_bytes += place->size;
    return i;
}

void node_forget(store_node *node, uint32_t i)
{
    struct held_place *p = &node->places[i];
    uint32_t *at = bucket_of(node, p->lent, p->offset);
    const uint32_t moved = node->list[--node->count];

    assert(!window_is_set(&p->window));
    while (*at != i)
        at = &node->places[*at].chain;
    *at = p->chain;
    node->list[p->index] = moved;
    node->places[moved].index = p->index;
    node->total.used_bytes -= p->size;
    if (p->closing)
        node->total.quarantined_bytes -= p->size;
    due_stop(&node->due, i);
    *p = (struct held_place){ .chain = node->spare };
    node->spare = i;
}

bool node_quiet(store_node *node, uint32_t i)
{
    struct held_place *p = &node->places[i];

    if (!window_is_set(&p->window))
        return true;
    if (node->out->revoke(node->out->user, &p->window) != MC_OK) {
        due_set(&node->due, i, node->now + QUIET_RETRY_NS);
        return false;
    }
    due_stop(&node->due, i);
    p->window = (struct mc_window){ 0 };
    node->total.windows--;
    return true;
}

/** Given up: it goes when it is quiet. */
static bool give_up(store_node *node, uint32_t i)
{
    struct held_place *p = &node->places[i];

    if (!p->closing)
        node->total.quarantined_bytes += p->size;
    p->closing = true;
    if (!node_quiet(node, i))
        return false;
    node_forget(node, i);
    return true;
}

void node_rest(store_node *node, uint32_t i)
{
    struct held_place *p = &node->places[i];

    if (!p->closing)
        node->total.quarantined_bytes += p->size;
    p->closing = true;
    p->keep_until = node->now + node->readers_ns;
    due_set(&node->due, i, p->keep_until);
}

/** The lease of its window is over: nobody may use it any more, and it costs room. */
static void place_due(store_node *node, uint32_t i)
{
    if (node->places[i].closing && node->state == LINK_TELLING)
        due_set(&node->due, i, node->now + QUIET_RETRY_NS); /* the list keeps its order meanwhile */
    else if (node->places[i].closing && node->now < node->places[i].keep_until)
        due_set(&node->due, i, node->places[i].keep_until);
    else if (node->places[i].closing && give_up(node, i))
        node->total.dropped++;
    else
        (void)node_quiet(node, i);
}

/* -------------------------------------------------------------------------- what the master says */

static bool in_range(const store_node *node, const struct wire_place *place)
{
    if (place->lent >= node->o.lent_count || place->size == 0)
        return false;
    const struct store_node_lent *lent = &node->lent[place->lent];
    return place->offset % lent->align == 0 && place->offset <= lent->size &&
           place->size <= lent->size - place->offset;
}

/** The master knows what it gave; what is in quarantine since it asked last, it may not. */
static bool in_quarantine(const store_node *node, const struct wire_place *place)
{
    if (node->total.quarantined_bytes == 0)
        return false;
    for (uint32_t n = 0; n < node->count; n++) {
        const struct held_place *p = &node->places[node->list[n]];
        if (p->closing && p->lent == place->lent && p->offset < place->offset + place->size &&
            place->offset < p->offset + p->size)
            return true;
    }
    return false;
}

static uint32_t place_for(store_node *node, const struct wire_place *place)
{
    const uint32_t i = find(node, place->lent, place->offset);

    if (i == 0)
        return in_range(node, place) && !in_quarantine(node, place) ? add(node, place) : 0;
    const struct held_place *p = &node->places[i];
    return p->generation == place->generation && p->size == place->size && !p->closing ? i : 0;
}

static struct wire_window window_said(const struct mc_window *window)
{
    struct wire_window w = {
        .incarnation = window->incarnation,
        .size = window->size,
        .region = window->region,
        .permissions = window->permissions,
        .generation = window->generation,
        .lease_ns = window->lease_ns,
        .piece_bytes = window->piece_bytes,
    };

    memcpy(&w.key, window->key, sizeof(w.key));
    return w;
}

/** A window over the place, the one that is there if it is. False: none could be had. */
static bool open_one(store_node *node, const struct wire_place *place, uint64_t lease_ns,
                     struct wire_window *window_p)
{
    const uint32_t before = node->count;
    const uint32_t i = place_for(node, place);
    struct held_place *p = &node->places[i];

    if (i == 0)
        return false;
    if (window_is_set(&p->window) &&
        node->out->renew(node->out->user, &p->window, lease_ns) != MC_OK && !node_quiet(node, i))
        return false;
    if (!window_is_set(&p->window)) {
        if (node->out->grant(node->out->user, place->lent, place->offset, place->size, lease_ns,
                             &p->window) != MC_OK) {
            p->window = (struct mc_window){ 0 };
            if (node->count != before) /* else it may hold an object by now: only the window ends */
                node_forget(node, i);
            return false;
        }
        node->total.windows++;
    }
    p->window.lease_ns = lease_ns;
    due_set(&node->due, i, node->now + lease_ns);
    *window_p = window_said(&p->window);
    return true;
}

static void place_open(store_node *node, uint64_t id, const struct wire_place_open *message)
{
    struct wire_list list = message->places;
    struct wire_place place;
    uint32_t n = 0;

    while (wire_place_next(&list, &place)) {
        struct wire_window *window = &node->say_windows[n++];
        if (node->state == LINK_READY && open_one(node, &place, message->lease_ns, window))
            continue;
        *window = (struct wire_window){ 0 };
        node->total.refused++;
    }
    const struct wire_place_windows windows = { .windows = { .items = node->say_windows,
                                                             .count = n } };
    (void)node->out->answer(node->out->user, id, WIRE_PLACE_WINDOWS, &windows);
}

static void evict(store_node *node, uint64_t id, const struct wire_evict *message)
{
    struct wire_list list = message->places;
    struct wire_place place;
    uint32_t n = 0;

    while (wire_place_next(&list, &place)) {
        const uint32_t i = find(node, place.lent, place.offset);
        /* What is not there (any more) is free. */
        const bool gone = i == 0 || node->places[i].generation != place.generation ||
                          (node->state != LINK_TELLING && give_up(node, i));
        node->say_statuses[n++] = (uint32_t)(gone ? MC_OK : MC_E_TIMEOUT);
    }
    const struct wire_outcomes outcomes = { .statuses = { node->say_statuses, n } };
    (void)node->out->answer(node->out->user, id, WIRE_OUTCOMES, &outcomes);
}

static void say_no(store_node *node, uint64_t id, mc_status status)
{
    const struct wire_outcome outcome = { .status = status };

    (void)node->out->answer(node->out->user, id, WIRE_OUTCOME, &outcome);
}

static void message(store_node *node, const struct store_node_event *event)
{
    const struct wire_place_open *open = event->message;
    const struct wire_evict *gone = event->message;

    if (event->wire == WIRE_PLACE_OPEN && open->places.count > node->o.batch_max)
        say_no(node, event->id, MC_E_RANGE);
    else if (event->wire == WIRE_PLACE_OPEN)
        place_open(node, event->id, open);
    else if (event->wire == WIRE_EVICT && gone->places.count > node->o.batch_max)
        say_no(node, event->id, MC_E_RANGE);
    else if (event->wire == WIRE_EVICT && gone->medium == 0)
        evict(node, event->id, gone);
    else
        say_no(node, event->id, MC_E_UNSUPPORTED);
}

/* --------------------------------------------------------------------------------- heartbeats */

void node_ask(store_node *node, enum wire_kind kind, const void *message, uint64_t *waits_p)
{
    const uint64_t tag = ++node->questions;

    *waits_p = node->out->ask(node->out->user, tag, kind, message) == MC_OK ? tag : 0;
}

static void beat(store_node *node)
{
    if (node->state < LINK_QUIET)
        return;
    due_set(&node->due, due_beat(node), node->now + node->heartbeat_ns);
    if (node->waits_beat != 0)
        return; /* the last one is not answered yet */
    const struct wire_node_heartbeat message = {
        .node = node->id,
        .epoch = node->epoch,
        .used_bytes = node->total.used_bytes,
        .quarantined_bytes = node->total.quarantined_bytes,
        .draining = node->draining,
    };
    node_ask(node, WIRE_NODE_HEARTBEAT, &message, &node->waits_beat);
}

static void beat_answer(store_node *node, const struct store_node_event *event)
{
    const struct wire_outcome *outcome = event->message;

    node->waits_beat = 0;
    if (event->status == MC_OK && event->wire == WIRE_OUTCOME && outcome->status == MC_E_STALE)
        rejoin_begin(node);
}

/* --------------------------------------------------------------------------------------- steps */

static void down(store_node *node)
{
    if (node->state == LINK_QUIET || node->state == LINK_TELLING)
        node->id = 0; /* not all was told, or its answer lost: to be told from the start */
    node->state = LINK_AWAY;
    node->waits = node->waits_beat = 0;
    due_stop(&node->due, due_beat(node));
    due_stop(&node->due, due_rejoin(node));
}

static void due(store_node *node)
{
    uint32_t id;

    while (due_first(&node->due, &id) <= node->now) {
        due_stop(&node->due, id);
        if (id == due_beat(node))
            beat(node);
        else if (id == due_rejoin(node))
            rejoin_due(node);
        else
            place_due(node, id);
    }
}

void store_node_step(store_node *node, const struct store_node_event *event, uint64_t now_ns,
                     const struct store_node_out *out)
{
    node->out = out;
    node->now = now_ns;
    due(node);
    switch (event->kind) {
    case STORE_NODE_TICK:
        break;
    case STORE_NODE_UP:
        down(node); /* whatever was before */
        rejoin_begin(node);
        break;
    case STORE_NODE_DOWN:
        down(node);
        break;
    case STORE_NODE_MESSAGE:
        message(node, event);
        break;
    case STORE_NODE_ANSWER:
        if (event->id == node->waits_beat)
            beat_answer(node, event);
        else if (event->id == node->waits)
            rejoin_answer(node, event);
        break;
    }
    node->out = NULL;
}

uint64_t store_node_next_ns(const store_node *node)
{
    uint32_t id;

    return due_first(&node->due, &id);
}

void store_node_drain(store_node *node, bool drain)
{
    node->draining = drain;
    if (node->state >= LINK_QUIET)
        due_set(&node->due, due_beat(node), 0);
}

struct store_node_place store_node_place_at(const store_node *node, uint32_t index)
{
    const struct held_place *p = &node->places[node->list[index]];

    return (struct store_node_place){ p->lent,       p->offset,  p->size,
                                      p->generation, p->closing, p->keep_until != 0 };
}

void store_node_figures(const store_node *node, struct store_node_figures *figures_p)
{
    *figures_p = node->total;
    figures_p->id = node->id;
    figures_p->epoch = node->epoch;
    figures_p->places = node->count;
    figures_p->ready = node->state == LINK_READY;
}

/* ------------------------------------------------------------------------------ open and close */

static bool allocate(store_node *node)
{
    const struct mc_alloc *alloc = node->o.alloc;
    const size_t places = node->o.places_max, batch = node->o.batch_max;

    node->places = alloc_zeroed(alloc, places + 1, sizeof(*node->places));
    node->buckets = alloc_zeroed(alloc, (size_t)node->bucket_mask + 1, sizeof(*node->buckets));
    node->list = alloc_zeroed(alloc, places, sizeof(*node->list));
    node->told = alloc_zeroed(alloc, batch, sizeof(*node->told));
    node->say_windows = alloc_zeroed(alloc, batch, sizeof(*node->say_windows));
    node->say_held = alloc_zeroed(alloc, batch, sizeof(*node->say_held));
    node->say_statuses = alloc_zeroed(alloc, batch, sizeof(*node->say_statuses));
    return node->places && node->buckets && node->list && node->told && node->say_windows &&
           node->say_held && node->say_statuses &&
           due_open(&node->due, alloc, due_rejoin(node) + 1) == MC_OK;
}

mc_status store_node_open(const struct store_node_options *options, store_node **node_p)
{
    struct store_node_options o = *options;

    if (!o.segment || o.incarnation == 0 || o.lent_count == 0)
        return MC_E_ARG;
    if (o.places_max == 0)
        o.places_max = 65536;
    if (o.batch_max == 0)
        o.batch_max = 4096;
    if (o.lent_count > LENTS_MAX || strlen(o.segment) > MC_NAME_MAX || o.batch_max > 4096 ||
        o.places_max > 1u << 28)
        return MC_E_RANGE;
    store_node *node = alloc_zeroed(o.alloc, 1, sizeof(*node));
    if (!node)
        return MC_E_NOMEM;
    memcpy(node->lent, o.lent, o.lent_count * sizeof(*o.lent));
    memcpy(node->segment, o.segment, strlen(o.segment) + 1);
    node->o = o;
    node->o.lent = node->lent;
    node->o.segment = node->segment;
    while (node->bucket_mask < o.places_max)
        node->bucket_mask = 2 * node->bucket_mask + 1;
    if (!allocate(node)) {
        store_node_close(node);
        return MC_E_NOMEM;
    }
    for (uint32_t i = o.places_max; i > 0; i--) {
        node->places[i].chain = node->spare;
        node->spare = i;
    }
    *node_p = node;
    return MC_OK;
}

void store_node_close(store_node *node)
{
    if (!node)
        return;
    const struct mc_alloc *alloc = node->o.alloc;
    due_close(&node->due, alloc);
    alloc_free(alloc, node->say_statuses);
    alloc_free(alloc, node->say_held);
    alloc_free(alloc, node->say_windows);
    alloc_free(alloc, node->told);
    alloc_free(alloc, node->list);
    alloc_free(alloc, node->buckets);
    alloc_free(alloc, node->places);
    alloc_free(alloc, node);
}
