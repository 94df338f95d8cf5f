/* world_memory.c - the nodes' memory and the Transfer Engine: windows, pins, transfers in fragments. */
#include <string.h>

#include "world.h"

static struct sim_window *window_find(struct sim_node *node, uint64_t key)
{
    for (uint32_t i = 0; i < node->window_count; i++)
        if (node->windows[i].key == key)
            return &node->windows[i];
    return NULL;
}

void memory_node_new(struct world *w, struct sim_node *node)
{
    for (uint32_t i = 0; i < LENT_BYTES; i += 8) {
        const uint64_t noise = prng_next(&w->prng);
        memcpy(node->memory + i, &noise, sizeof(noise));
    }
    node->window_count = 0;
    node->owner_count = 0;
    node->incarnation = prng_next(&w->prng) | 1;
}

mc_status memory_grant(struct world *w, struct sim_node *node, uint64_t offset, uint64_t size,
                       uint64_t lease_ns, struct mc_window *window_p)
{
    struct sim_window *window = NULL;

    if (!w->calm && world_chance(w, 5))
        return MC_E_FULL;
    for (uint32_t i = 0; i < node->window_count && !window; i++)
        if (!node->windows[i].open && node->windows[i].pins == 0)
            window = &node->windows[i];
    if (!window && node->window_count < WINDOWS_MAX)
        window = &node->windows[node->window_count++];
    if (!window)
        return MC_E_FULL;
    *window = (struct sim_window){
        .key = prng_next(&w->prng) | 1,
        .until = w->now + lease_ns,
        .offset = offset,
        .size = size,
        .open = true,
    };
    *window_p = (struct mc_window){
        .key = { window->key, 1 },
        .incarnation = node->incarnation,
        .size = size,
        .permissions = MC_REMOTE_WRITE,
        .generation = window->key,
        .lease_ns = lease_ns,
        .piece_bytes = size,
    };
    return MC_OK;
}

mc_status memory_renew(struct world *w, struct sim_node *node, const struct mc_window *window,
                       uint64_t lease_ns)
{
    struct sim_window *s = window_find(node, window->key[0]);

    if (!s || !s->open || w->now >= s->until)
        return MC_E_STALE;
    s->until = w->now + lease_ns;
    return MC_OK;
}

mc_status memory_revoke(struct world *w, struct sim_node *node, const struct mc_window *window)
{
    struct sim_window *s = window_find(node, window->key[0]);

    (void)w;
    if (!s)
        return MC_OK;
    s->open = false;
    return s->pins == 0 ? MC_OK : MC_E_TIMEOUT;
}

/* ---------------------------------------------------------------------------------- transfers */

static void fragment_pin(struct world *w, struct event *e);

static void move_end(struct world *w, struct move *move, mc_status status)
{
    struct actor *actor = move->actor;
    const uint64_t tag = move->tag;

    move->used = false;
    world_trace(w, "%s: transfer %llx ends with %s", actor_name(actor), (unsigned long long)tag,
                mc_status_name(status));
    actor_moved(w, actor, tag, status);
}

static struct move *move_of(struct world *w, const struct event *e)
{
    struct move *move = &w->moves[e->a];

    return move->used && move->serial == e->b ? move : NULL;
}

static void later(struct world *w, struct move *move, uint64_t delay_ns, event_run *run)
{
    struct event *e = world_after(w, delay_ns, move->actor, run);

    e->a = (uint64_t)(move - w->moves);
    e->b = move->serial;
}

/** The node's memory for this access, if it may be touched now. */
static struct sim_node *target(struct world *w, struct move *move, struct sim_window **window_p)
{
    struct sim_node *node = move->node ? &w->nodes[move->node - 1] : NULL;

    *window_p = NULL;
    if (!node || !actor_runs(&node->actor) || node->incarnation != move->incarnation)
        return NULL;
    if (move->key != 0)
        *window_p = window_find(node, move->key);
    return node;
}

/** Copy [done, done + size) of the transfer, byte by byte over its parts. */
static void copy(struct world *w, struct move *move, struct sim_node *node, uint64_t size)
{
    uint64_t at = 0, left = size, from = move->done;
    uint8_t *there = node->memory + move->offset + move->done;

    if (move->op == MC_WRITE)
        check_write(w, node, move->offset + move->done, size, move->generation);
    for (size_t p = 0; p < move->part_count && left > 0; p++) {
        const struct mc_range *part = &move->parts[p];
        if (from < at + part->size) {
            const uint64_t skip = from - at;
            const uint64_t n = part->size - skip < left ? part->size - skip : left;
            uint8_t *here = (uint8_t *)part->address + skip;
            if (move->op == MC_WRITE)
                memcpy(there, here, (size_t)n);
            else
                memcpy(here, there, (size_t)n);
            there += n;
            from += n;
            left -= n;
        }
        at += part->size;
    }
    move->done += size;
}

static uint64_t fragment_delay(struct world *w)
{
    return (1 + world_below(w, 20)) * 50000;
}

/** All that is left, or up to a part's end, or anything. */
static uint64_t fragment(struct world *w, const struct move *move)
{
    const uint64_t left = move->size - move->done;
    const uint32_t how = world_below(w, 3);
    uint64_t end = 0;

    for (size_t p = 0; how == 0 && p < move->part_count && end <= move->done; p++)
        end += move->parts[p].size;
    if (how == 0)
        return end - move->done;
    return how == 1 ? left : 1 + world_below(w, (uint32_t)left);
}

static void fragment_copy(struct world *w, struct event *e)
{
    struct move *move = move_of(w, e);
    struct sim_window *window;

    if (!move)
        return;
    struct sim_node *node = target(w, move, &window);
    move->pinned = false;
    if (!node) {
        move_end(w, move, MC_E_PEER);
        return;
    }
    if (window)
        window->pins--;
    copy(w, move, node, move->fragment);
    /* With the header moved and nothing else: the worst of moments. */
    if (!w->calm && move->done == move->parts[0].size) {
        if (move->op == MC_READ && w->troubles[TROUBLE_STOP] != 0 && world_chance(w, 40))
            world_stop(w, move->actor, (200 + world_below(w, 700)) * MS);
        if (move->op == MC_WRITE && w->troubles[TROUBLE_CRASH_MASTER] != 0 && world_chance(w, 40))
            world_power_cut(w, move->actor);
    }
    later(w, move, fragment_delay(w), fragment_pin);
}

static void fragment_pin(struct world *w, struct event *e)
{
    struct move *move = move_of(w, e);
    struct sim_window *window;

    if (!move)
        return;
    struct sim_node *node = target(w, move, &window);
    if (move->stop) {
        move_end(w, move, MC_E_CANCELLED);
    } else if (move->done == move->size) {
        move_end(w, move, MC_OK);
    } else if (!node || (!w->calm && world_chance(w, 4))) {
        move_end(w, move, MC_E_PEER);
    } else if (move->key != 0 && (!window || !window->open || w->now >= window->until)) {
        move_end(w, move, MC_E_STALE);
    } else {
        move->fragment = fragment(w, move);
        move->pinned = true;
        if (window)
            window->pins++;
        later(w, move, fragment_delay(w), fragment_copy);
    }
}

static uint32_t node_of(const struct world *w, uint64_t incarnation)
{
    for (uint32_t n = 0; n < w->node_count; n++)
        if (w->nodes[n].incarnation == incarnation)
            return n + 1;
    return 0;
}

static uint64_t total(const struct mc_range *parts, size_t count)
{
    uint64_t size = 0;

    for (size_t i = 0; i < count; i++)
        size += parts[i].size;
    return size;
}

mc_status memory_move(struct world *w, struct sim_client *client, uint64_t tag, enum mc_op op,
                      const struct mc_replica *replica, const struct mc_range *parts, size_t count)
{
    struct move *move = w->moves;

    while (move < w->moves + MOVES_MAX && move->used)
        move++;
    if (move == w->moves + MOVES_MAX || count > 16)
        return MC_E_FULL;
    /* The segment is the node's index + 1; its life is the window's or, here, the region's generation. */
    const uint64_t life =
        replica->window.key[0] ? replica->window.incarnation : replica->region.generation;
    *move = (struct move){
        .used = true,
        .actor = &client->actor,
        .life = client->actor.life,
        .tag = tag,
        .serial = ++w->move_serial,
        .op = op,
        .node = node_of(w, life),
        .incarnation = life,
        .key = replica->window.key[0],
        .offset = replica->offset,
        .size = total(parts, count),
        .part_count = count,
        .generation = replica->generation,
        .status = MC_PENDING,
    };
    memcpy(move->parts, parts, count * sizeof(*parts));
    if (move->key != 0) {
        struct sim_window *window = NULL;
        const struct sim_node *node = target(w, move, &window);
        move->offset = node && window ? window->offset : 0;
        if (move->size > replica->window.size)
            return MC_E_RANGE;
    }
    if (move->offset + move->size > LENT_BYTES)
        return MC_E_RANGE;
    later(w, move, fragment_delay(w), fragment_pin);
    return MC_OK;
}

void memory_stop(struct world *w, struct actor *actor, uint64_t tag)
{
    for (struct move *move = w->moves; move < w->moves + MOVES_MAX; move++)
        if (move->used && move->actor == actor && move->tag == tag)
            move->stop = true;
}

void memory_client_gone(struct world *w, struct actor *actor)
{
    for (struct move *move = w->moves; move < w->moves + MOVES_MAX; move++) {
        struct sim_window *window;
        if (!move->used || move->actor != actor)
            continue;
        if (move->pinned && target(w, move, &window) && window)
            window->pins--;
        move->used = false;
    }
}
