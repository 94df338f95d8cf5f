/* links.c - max-min fair rates by filling all flows alike until an end is full. */
#include "sim/links.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/alloc.h"

enum { CAPACITY_FIRST = 64 };
static const double THROUGH = 0.5; /* bytes: less is rounding */

mc_status links_init(struct links *links, const struct mc_alloc *alloc, const double *rates,
                     uint32_t nodes)
{
    *links = (struct links){ .alloc = alloc, .nodes = nodes, .capacity = CAPACITY_FIRST };
    links->out = alloc_zeroed(alloc, nodes, sizeof(*links->out));
    links->in = alloc_zeroed(alloc, nodes, sizeof(*links->in));
    links->flows = alloc_zeroed(alloc, CAPACITY_FIRST, sizeof(*links->flows));
    links->settled = alloc_zeroed(alloc, CAPACITY_FIRST, 1);
    if (!links->out || !links->in || !links->flows || !links->settled) {
        links_fini(links);
        return MC_E_NOMEM;
    }
    for (uint32_t i = 0; i < nodes; i++) {
        assert(rates[i] > 0);
        links->out[i].rate = links->in[i].rate = rates[i];
    }
    return MC_OK;
}

void links_fini(struct links *links)
{
    if (!links->alloc)
        return;
    alloc_free(links->alloc, links->settled);
    alloc_free(links->alloc, links->flows);
    alloc_free(links->alloc, links->in);
    alloc_free(links->alloc, links->out);
    *links = (struct links){ 0 };
}

/* ------------------------------------------------------------------------------------------ shares */

static void open_ends(struct links *links)
{
    for (uint32_t i = 0; i < links->count; i++) {
        const struct flow *f = &links->flows[i];

        links->out[f->from].flows = links->in[f->to].flows = 0;
        links->out[f->from].free = links->out[f->from].rate;
        links->in[f->to].free = links->in[f->to].rate;
    }
    for (uint32_t i = 0; i < links->count; i++) {
        links->out[links->flows[i].from].flows++;
        links->in[links->flows[i].to].flows++;
        links->settled[i] = 0;
    }
}

static double share(const struct link_ends *end)
{
    return end->free > 0 ? end->free / end->flows : 0;
}

/* What flow i would get if nobody else were slower than its ends allow. */
static double least_share(const struct links *links, const struct flow *f)
{
    const double out = share(&links->out[f->from]), in = share(&links->in[f->to]);
    const double both = out < in ? out : in;

    return f->rate_max > 0 && f->rate_max < both ? f->rate_max : both;
}

static void settle(struct links *links, uint32_t i, double rate)
{
    struct flow *f = &links->flows[i];

    f->rate = rate;
    links->settled[i] = 1;
    links->out[f->from].free -= rate;
    links->out[f->from].flows--;
    links->in[f->to].free -= rate;
    links->in[f->to].flows--;
}

/* The flow that could get least is held to that; all others may have more. Those that share its bottleneck
 * come out with the same rate, one after the other. */
static void share_out(struct links *links)
{
    open_ends(links);
    for (uint32_t left = links->count; left > 0;) {
        double least = INFINITY;

        for (uint32_t i = 0; i < links->count; i++)
            if (!links->settled[i]) {
                const double rate = least_share(links, &links->flows[i]);
                least = rate < least ? rate : least;
            }
        const double limit = least * (1 + 1e-12); /* equal shares differ in their last bits */
        for (uint32_t i = 0; i < links->count; i++)
            if (!links->settled[i] && least_share(links, &links->flows[i]) <= limit) {
                settle(links, i, least);
                left--;
            }
    }
}

/* ------------------------------------------------------------------------------------------- flows */

mc_status links_add(struct links *links, const struct flow *flow)
{
    assert(flow->bytes > 0 && flow->from != flow->to);
    assert(flow->from < links->nodes && flow->to < links->nodes);
    if (links->count == links->capacity) {
        const size_t capacity = (size_t)links->capacity * 2;
        struct flow *flows = alloc_resize(links->alloc, links->flows, capacity, sizeof(*flows));

        if (!flows)
            return MC_E_NOMEM;
        links->flows = flows;
        uint8_t *settled = alloc_resize(links->alloc, links->settled, capacity, 1);
        if (!settled)
            return MC_E_NOMEM;
        links->settled = settled;
        links->capacity = (uint32_t)capacity;
    }
    links->flows[links->count++] = *flow;
    share_out(links);
    return MC_OK;
}

void links_advance(struct links *links, uint64_t now_ns)
{
    assert(now_ns >= links->now_ns);
    const double seconds = (double)(now_ns - links->now_ns) / 1e9;

    for (uint32_t i = 0; i < links->count; i++) {
        struct flow *f = &links->flows[i];
        const double bytes = f->rate * seconds < f->bytes ? f->rate * seconds : f->bytes;

        f->bytes -= bytes;
        links->moved += bytes;
    }
    links->now_ns = now_ns;
}

uint64_t links_due(const struct links *links)
{
    double least = INFINITY;

    for (uint32_t i = 0; i < links->count; i++) {
        const struct flow *f = &links->flows[i];
        const double seconds = f->bytes <= THROUGH ? 0
                               : f->rate > 0       ? f->bytes / f->rate
                                                   : INFINITY;
        least = seconds < least ? seconds : least;
    }
    if (least > 1e9)
        return UINT64_MAX;
    return links->now_ns + (uint64_t)ceil(least * 1e9);
}

static void take_out(struct links *links, uint32_t at, struct flow *flow_p)
{
    *flow_p = links->flows[at];
    links->count--;
    memmove(&links->flows[at], &links->flows[at + 1], (links->count - at) * sizeof(*links->flows));
    share_out(links);
}

bool links_done(struct links *links, struct flow *flow_p)
{
    for (uint32_t i = 0; i < links->count; i++)
        /* What a nanosecond would move is through: times are rounded to nanoseconds. */
        if (links->flows[i].bytes <= THROUGH + links->flows[i].rate * 1e-9) {
            take_out(links, i, flow_p);
            return true;
        }
    return false;
}

bool links_cancel(struct links *links, uint32_t node, uint32_t kind, uint32_t whom,
                  struct flow *flow_p)
{
    for (uint32_t i = 0; i < links->count; i++) {
        const struct flow *f = &links->flows[i];

        if (node == UINT32_MAX ? f->kind == kind && f->whom == whom
                               : f->from == node || f->to == node) {
            take_out(links, i, flow_p);
            return true;
        }
    }
    return false;
}
