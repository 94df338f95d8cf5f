/* client.c - a client's requests: begun, driven by events, freed. Their life stands in request.c. */
#include "store/core/client.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "store/core/client_state.h"

#define TIMEOUT_NS UINT64_C(5000000000)

static_assert(sizeof(struct wire_put_item) <= SAY_MAX && sizeof(struct wire_put_end) <= SAY_MAX,
              "every list that is said fits");

static const struct client_ops *const ops_of[] = {
    [STORE_GET] = &client_ops_get,       [STORE_PUT] = &client_ops_put,
    [STORE_EXIST] = &client_ops_exist,   [STORE_REMOVE] = &client_ops_remove,
    [STORE_LOOKUP] = &client_ops_lookup, [STORE_LEASE_RENEW] = &client_ops_lease_renew,
    [STORE_ALLOT] = &client_ops_allot,   [STORE_COMMIT] = &client_ops_commit,
    [STORE_REVOKE] = &client_ops_revoke, [STORE_ALLOT_RENEW] = &client_ops_allot_renew,
};

static void up_or_down(store_client *c, bool up)
{
    c->up = up;
    for (uint32_t slot = 0; slot < c->o.requests_max; slot++) {
        store_request *r = c->slots[slot];
        if (!r || r->state != REQUEST_RUNS)
            continue;
        r->ask_tag = r->renew_tag = 0;
        r->retry_at = 0;
        if (up)
            request_advance(c, r);
        else
            request_set_due(c, r);
    }
}

static void expire(store_client *c)
{
    uint32_t slot;

    while (due_first(&c->due, &slot) <= c->now) {
        due_stop(&c->due, slot);
        request_due(c, c->slots[slot]);
    }
}

void store_client_step(store_client *c, const struct store_client_event *event, uint64_t now_ns,
                       const struct store_client_out *out)
{
    c->out = out;
    c->now = now_ns;
    switch (event->kind) {
    case STORE_CLIENT_TICK:
        break;
    case STORE_CLIENT_UP:
        up_or_down(c, true);
        break;
    case STORE_CLIENT_DOWN:
        up_or_down(c, false);
        break;
    case STORE_CLIENT_ANSWER:
        request_answered(c, event);
        break;
    case STORE_CLIENT_MOVED:
        request_moved(c, event);
        break;
    }
    expire(c);
    c->out = NULL;
}

uint64_t store_client_next_ns(const store_client *c)
{
    uint32_t slot;

    return due_first(&c->due, &slot);
}

/* ------------------------------------------------------------------------------ begin and free */

static bool call_is_known(const struct store_call *call)
{
    const struct mc_placement *p = &call->placement;

    if (call->op != STORE_PUT && call->op != STORE_ALLOT)
        return true;
    return p->medium != MC_MEDIUM_SSD && p->group == 0 &&
           (p->flags & ~(uint32_t)MC_PLACE_ANOTHER) == 0 && p->reserved32 == 0 &&
           p->reserved[0] == 0;
}

static size_t parts_max(const struct store_call *call)
{
    uint64_t most = 0;

    for (size_t i = 0; i < call->count; i++) {
        const uint64_t n = call->op == STORE_GET   ? ((struct mc_get *)call->items)[i].count
                           : call->op == STORE_PUT ? ((struct mc_put *)call->items)[i].count
                                                   : 0;
        most = n > most ? n : most;
    }
    return most < SIZE_MAX / 64 ? (size_t)most + 2 : SIZE_MAX / 64;
}

static void request_free(const struct mc_alloc *alloc, store_request *r)
{
    alloc_free(alloc, r->asked);
    alloc_free(alloc, r->parts);
    alloc_free(alloc, r->replicas);
    alloc_free(alloc, r->items);
    alloc_free(alloc, r);
}

static uint32_t replicas_each(const struct store_call *call)
{
    if (call->op == STORE_PUT || call->op == STORE_ALLOT)
        return call->placement.replicas ? call->placement.replicas : 1;
    return call->op == STORE_GET ? GET_REPLICAS : 0;
}

static store_request *request_make(store_client *c, const struct store_call *call)
{
    const struct mc_alloc *alloc = c->o.alloc;
    store_request *r = alloc_zeroed(alloc, 1, sizeof(*r));

    if (!r)
        return NULL;
    r->ops = ops_of[call->op];
    r->call = *call;
    r->part_max = call->count < c->o.batch_max ? (uint32_t)call->count : c->o.batch_max;
    r->replicas_each = replicas_each(call);
    r->items = alloc_zeroed(alloc, r->part_max, sizeof(*r->items));
    r->replicas = alloc_zeroed(alloc, (size_t)r->part_max * r->replicas_each, sizeof(*r->replicas));
    r->parts = alloc_zeroed(alloc, parts_max(call), sizeof(*r->parts));
    r->asked = alloc_zeroed(alloc, r->part_max, sizeof(*r->asked));
    if (r->items && r->replicas && r->parts && r->asked)
        return r;
    request_free(alloc, r);
    return NULL;
}

mc_status store_client_begin(store_client *c, const struct store_call *call, void *user,
                             uint64_t now_ns, const struct store_client_out *out,
                             store_request **request_p)
{
    uint32_t slot = 0;

    if (call->count > c->o.items_max || call->placement.replicas > MC_REPLICAS_MAX)
        return MC_E_RANGE;
    if (call->lease_ns == 0 && (call->op == STORE_LEASE_RENEW || call->op == STORE_ALLOT_RENEW))
        return MC_E_RANGE;
    if (!call_is_known(call))
        return MC_E_UNSUPPORTED;
    while (slot < c->o.requests_max && c->slots[slot])
        slot++;
    if (slot == c->o.requests_max)
        return MC_E_FULL;
    store_request *r = request_make(c, call);
    if (!r)
        return MC_E_NOMEM;
    r->user = user;
    r->slot = slot;
    r->serial = ++c->serials[slot];
    r->deadline_ns = call->deadline_ns != MC_FOREVER ? call->deadline_ns : now_ns + c->o.timeout_ns;
    r->status = MC_PENDING;
    c->slots[slot] = r;
    c->total.requests++;
    c->now = now_ns;
    c->out = out;
    for (size_t i = 0; r->ops->has_status && i < call->count; i++)
        *request_status_at(r, i) = MC_PENDING;
    *request_p = r;
    request_part(c, r);
    due_set(&c->due, slot, now_ns); /* begins with the next step: done is never called in here */
    c->out = NULL;
    return MC_OK;
}

void store_client_cancel(store_client *c, store_request *r, uint64_t now_ns,
                         const struct store_client_out *out)
{
    c->now = now_ns;
    c->out = out;
    request_stop(c, r, MC_E_CANCELLED);
    c->out = NULL;
}

void store_client_free(store_client *c, store_request *r)
{
    assert(r->state == REQUEST_FINAL);
    c->slots[r->slot] = NULL;
    c->total.requests--;
    request_free(c->o.alloc, r);
}

void store_client_release(store_client *c, const struct mc_lease *leases, size_t count,
                          const struct store_client_out *out)
{
    c->out = out;
    for (size_t i = 0; i < count; i++) {
        const struct wire_lease_release message = { .leases = { &leases[i].id, 1 },
                                                    .epoch = leases[i].epoch };
        if (leases[i].id != 0)
            client_aside(c, WIRE_LEASE_RELEASE, &message);
    }
    c->out = NULL;
}

mc_status store_request_status(const store_request *r)
{
    return r->state == REQUEST_FINAL ? r->status : MC_PENDING;
}

void *store_request_user(const store_request *r)
{
    return r->user;
}

void store_client_figures(const store_client *c, struct store_client_figures *figures_p)
{
    *figures_p = c->total;
}

mc_status store_client_open(const struct store_client_options *options, store_client **client_p)
{
    struct store_client_options o = *options;

    o.timeout_ns = o.timeout_ns ? o.timeout_ns : TIMEOUT_NS;
    o.requests_max = o.requests_max ? o.requests_max : 1024;
    o.items_max = o.items_max ? o.items_max : 4096;
    o.batch_max = o.batch_max ? o.batch_max : 4096;
    if (o.requests_max >= 65535 || o.items_max > 65536 || o.batch_max > 4096)
        return MC_E_RANGE;
    store_client *c = alloc_zeroed(o.alloc, 1, sizeof(*c));
    if (!c)
        return MC_E_NOMEM;
    c->o = o;
    c->slots = alloc_zeroed(o.alloc, o.requests_max, sizeof(*c->slots));
    c->serials = alloc_zeroed(o.alloc, o.requests_max, sizeof(*c->serials));
    c->say = alloc_zeroed(o.alloc, o.batch_max, SAY_MAX);
    c->say_keys = alloc_zeroed(o.alloc, o.batch_max, sizeof(*c->say_keys));
    if (!c->slots || !c->serials || !c->say || !c->say_keys ||
        due_open(&c->due, o.alloc, o.requests_max) != MC_OK) {
        store_client_close(c);
        return MC_E_NOMEM;
    }
    *client_p = c;
    return MC_OK;
}

void store_client_close(store_client *c)
{
    if (!c)
        return;
    const struct mc_alloc *alloc = c->o.alloc;
    due_close(&c->due, alloc);
    alloc_free(alloc, c->say_keys);
    alloc_free(alloc, c->say);
    alloc_free(alloc, c->serials);
    alloc_free(alloc, c->slots);
    alloc_free(alloc, c);
}
