/* world_sim.c - events in order of time, chance, failures and the trace. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

void world_trace(struct world *w, const char *format, ...)
{
    va_list args;

    if (!w->verbose)
        return;
    printf("%10.3f ms  ", (double)w->now / 1e6);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
}

void world_fail(struct world *w, const char *format, ...)
{
    va_list args;

    if (w->failed)
        return;
    w->failed = true;
    va_start(args, format);
    vsnprintf(w->why, sizeof(w->why), format, args);
    va_end(args);
    world_trace(w, "FAILED: %s", w->why);
}

uint32_t world_below(struct world *w, uint32_t bound)
{
    return prng_below(&w->prng, bound);
}

bool world_chance(struct world *w, uint32_t of_1000)
{
    return world_below(w, 1000) < of_1000;
}

bool actor_runs(const struct actor *actor)
{
    return actor->life & 1;
}

void world_stop(struct world *w, struct actor *actor, uint64_t time_ns)
{
    const uint64_t until = w->now + time_ns;

    world_trace(w, "%s is stopped until %.3f ms", actor_name(actor), (double)until / 1e6);
    w->counts.stops++;
    actor->stopped_until = until > actor->stopped_until ? until : actor->stopped_until;
}

const char *actor_name(const struct actor *actor)
{
    static const char *const names[3][4] = { { "master", "", "", "" },
                                             { "node0", "node1", "node2", "node3" },
                                             { "client0", "client1", "client2", "client3" } };
    return names[actor->kind][actor->index];
}

/* ------------------------------------------------------------------------------------- events */

static bool before(const struct event *a, const struct event *b)
{
    return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_add(struct world *w, struct event *e)
{
    if (w->heap_count == w->heap_max) {
        w->heap_max = w->heap_max ? 2 * w->heap_max : 256;
        w->heap = realloc(w->heap, w->heap_max * sizeof(*w->heap));
        if (!w->heap)
            abort();
    }
    uint32_t i = w->heap_count++;
    for (; i > 0 && before(e, w->heap[(i - 1) / 2]); i = (i - 1) / 2)
        w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = e;
}

static struct event *heap_take(struct world *w)
{
    struct event *first = w->heap[0], *last = w->heap[--w->heap_count];
    uint32_t i = 0;

    for (;;) {
        uint32_t child = 2 * i + 1;
        if (child >= w->heap_count)
            break;
        if (child + 1 < w->heap_count && before(w->heap[child + 1], w->heap[child]))
            child++;
        if (!before(w->heap[child], last))
            break;
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return first;
}

struct event *world_after(struct world *w, uint64_t delay_ns, struct actor *actor, event_run *run)
{
    struct event *e = w->spare;

    if (e)
        w->spare = e->data;
    else
        e = malloc(sizeof(*e));
    if (!e)
        abort();
    *e = (struct event){ .at = w->now + delay_ns,
                         .order = w->order++,
                         .run = run,
                         .actor = actor,
                         .life = actor ? actor->life : 0 };
    heap_add(w, e);
    return e;
}

bool world_turn(struct world *w, uint64_t until)
{
    if (w->heap_count == 0 || w->heap[0]->at > until)
        return false;
    struct event *e = heap_take(w);
    w->now = e->at;
    if (e->actor && e->actor->life == e->life && w->now < e->actor->stopped_until) {
        e->at = e->actor->stopped_until; /* its order stays */
        heap_add(w, e);
        return true;
    }
    if (!e->actor || e->actor->life == e->life)
        e->run(w, e);
    free(e->data);
    e->data = w->spare;
    w->spare = e;
    w->counts.events++;
    return true;
}

/* ------------------------------------------------------------------------- an actor's memory */

static void *actor_alloc(void *context, size_t size)
{
    struct actor *actor = context;
    struct block *b = malloc(sizeof(*b) + size);

    if (!b)
        return NULL;
    b->next = actor->blocks;
    b->at = &actor->blocks;
    if (b->next)
        b->next->at = &b->next;
    actor->blocks = b;
    return b + 1;
}

static void actor_release(void *context, void *p)
{
    struct block *b = p ? (struct block *)p - 1 : NULL;

    (void)context;
    if (!b)
        return;
    *b->at = b->next;
    if (b->next)
        b->next->at = b->at;
    free(b);
}

static void *actor_resize(void *context, void *p, size_t size)
{
    (void)context;
    (void)p;
    (void)size;
    return NULL; /* the cores size all at open */
}

void actor_init(struct world *w, struct actor *actor, enum actor_kind kind, uint32_t index)
{
    *actor = (struct actor){ .kind = kind, .index = index, .world = w };
    actor->alloc = (struct mc_alloc){ actor_alloc, actor_resize, actor_release, actor };
}

void actor_free_all(struct actor *actor)
{
    while (actor->blocks)
        actor_release(actor, actor->blocks + 1);
}
