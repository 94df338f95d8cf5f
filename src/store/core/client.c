/* client.c - the life of a request: parts, questions, transfers, deadline, cancel. What is asked and what an
 * answer means stands with the ops. */
#include "store/core/client.h"

#include <assert.h>
#include <string.h>

#include "base/alloc.h"
#include "store/core/client_state.h"

#define TIMEOUT_NS UINT64_C(5000000000)
#define RETRY_NS UINT64_C(2000000) /* what could not be sent, or had no room, doubled each time */
enum { RETRY_DOUBLED_MAX = 6 };

static_assert(sizeof(struct wire_put_item) <= SAY_MAX && sizeof(struct wire_put_end) <= SAY_MAX,
              "every list that is said fits");

static const struct client_ops *const ops_of[] = {
    [STORE_GET] = &client_ops_get,       [STORE_PUT] = &client_ops_put,
    [STORE_EXIST] = &client_ops_exist,   [STORE_REMOVE] = &client_ops_remove,
    [STORE_LOOKUP] = &client_ops_lookup, [STORE_LEASE_RENEW] = &client_ops_lease_renew,
    [STORE_ALLOT] = &client_ops_allot,   [STORE_COMMIT] = &client_ops_commit,
    [STORE_REVOKE] = &client_ops_revoke, [STORE_ALLOT_RENEW] = &client_ops_allot_renew,
};

/* Tags: | slot 16 | serial 32 | 1: a question 1 | item 12, replica 3; or which question | */
enum { TAG_ASK = 1u << 15 };

static uint64_t tag_of(const store_request *r, uint32_t low)
{
    return (uint64_t)r->slot << 48 | (uint64_t)r->serial << 16 | low;
}

static store_request *request_of(const store_client *c, uint64_t tag)
{
    const uint32_t slot = (uint32_t)(tag >> 48);
    store_request *r = slot < c->o.requests_max ? c->slots[slot] : NULL;

    return r && r->serial == (uint32_t)(tag >> 16) ? r : NULL;
}

/* ------------------------------------------------------------------------- what the ops call */

void *client_item_at(const store_request *r, uint32_t i)
{
    return (char *)r->call.items + (r->base + i) * r->ops->item_size;
}

static mc_status *status_at(const store_request *r, size_t index)
{
    return (mc_status *)(void *)((char *)r->call.items + index * r->ops->item_size +
                                 r->ops->status_offset);
}

void client_item_done(store_client *c, store_request *r, uint32_t i, mc_status status)
{
    struct client_item *item = &r->items[i];

    assert(item->moving == 0);
    client_scratch_free(c, item);
    item->state = ITEM_DONE;
    if (r->ops->has_status)
        *status_at(r, r->base + i) = status;
}

void client_retry(store_client *c, store_request *r, uint64_t at_ns)
{
    (void)c;
    if (r->retry_at == 0 || at_ns < r->retry_at)
        r->retry_at = at_ns;
}

static uint64_t backoff(store_client *c, uint32_t times)
{
    return c->now + (RETRY_NS << (times < RETRY_DOUBLED_MAX ? times : RETRY_DOUBLED_MAX));
}

enum next client_ask(store_client *c, store_request *r, enum wire_kind kind, const void *message)
{
    const uint64_t tag = tag_of(r, TAG_ASK | ASK_MAIN);

    if (!c->up)
        return NEXT_WAIT;
    if (c->out->ask(c->out->user, tag, kind, message) != MC_OK) {
        client_retry(c, r, backoff(c, 1));
        return NEXT_WAIT;
    }
    c->total.asked_again += r->asked_before++ > 0;
    r->ask_tag = tag;
    r->sent_ns = c->now;
    return NEXT_WAIT;
}

void client_ask_renew(store_client *c, store_request *r, enum wire_kind kind, const void *message)
{
    const uint64_t tag = tag_of(r, TAG_ASK | ASK_RENEW);

    if (c->up && r->renew_tag == 0 && c->out->ask(c->out->user, tag, kind, message) == MC_OK) {
        r->renew_tag = tag;
        r->renew_sent_ns = c->now;
    }
}

void client_aside(store_client *c, enum wire_kind kind, const void *message)
{
    /* In no slot: the answer finds nobody. */
    const uint64_t tag = UINT64_C(0xffff) << 48 | (++c->aside & UINT64_C(0xffffffffffff));

    if (c->up)
        (void)c->out->ask(c->out->user, tag, kind, message);
}

mc_status client_move(store_client *c, store_request *r, uint32_t i, uint32_t replica,
                      enum mc_op op, size_t parts)
{
    const mc_status status = c->out->move(c->out->user, tag_of(r, i << 3 | replica), op,
                                          &r->replicas[(size_t)i * r->replicas_each + replica],
                                          r->parts, parts, r->deadline_ns);

    if (status == MC_OK) {
        r->items[i].moving |= (uint8_t)(1u << replica);
        r->moving++;
    }
    return status;
}

bool client_scratch(store_client *c, struct client_item *item, size_t size)
{
    if (item->scratch && item->scratch_size >= size)
        return true;
    client_scratch_free(c, item);
    item->scratch = c->out->scratch(c->out->user, size);
    item->scratch_size = size;
    return item->scratch != NULL;
}

void client_scratch_free(store_client *c, struct client_item *item)
{
    if (item->scratch)
        c->out->scratch_free(c->out->user, item->scratch, item->scratch_size);
    item->scratch = NULL;
}

uint32_t client_take_replicas(store_client *c, struct wire_list replicas, struct wire_list nodes,
                              struct mc_replica *replicas_p, uint32_t max)
{
    struct wire_replica w;
    uint32_t n = 0;

    while (n < max && wire_replica_next(&replicas, &w)) {
        struct wire_list list = nodes;
        struct wire_node_engine engine = { 0 };
        while (wire_node_engine_next(&list, &engine) && engine.node != w.node)
            ;
        struct mc_replica *replica = &replicas_p[n++];
        *replica = (struct mc_replica){
            .node = w.node,
            .medium = (enum mc_medium)w.medium,
            .generation = w.generation,
            .region = { .id = w.region, .generation = w.region_generation },
            .offset = w.offset,
            .window = { .incarnation = w.window.incarnation,
                        .size = w.window.size,
                        .region = w.window.region,
                        .permissions = w.window.permissions,
                        .generation = w.window.generation,
                        .lease_ns = w.window.lease_ns,
                        .piece_bytes = w.window.piece_bytes },
        };
        memcpy(replica->window.key, &w.window.key, sizeof(replica->window.key));
        if (engine.node == w.node)
            replica->segment =
                c->out->segment(c->out->user, w.node, engine.segment, engine.incarnation);
    }
    return n;
}

/* -------------------------------------------------------------------------------- a request's end */

static void final(store_client *c, store_request *r, mc_status status)
{
    r->state = REQUEST_FINAL;
    r->status = status;
    for (uint32_t i = 0; i < r->part_max; i++)
        client_scratch_free(c, &r->items[i]);
    for (size_t i = 0; r->ops->has_status && i < r->call.count; i++)
        if (*status_at(r, i) == MC_PENDING)
            *status_at(r, i) = status;
    due_stop(&c->due, r->slot);
    c->out->done(c->out->user, r);
}

static void quiet(store_client *c, store_request *r)
{
    if (r->ops->abandon)
        r->ops->abandon(c, r);
    final(c, r, r->status);
}

/** End with `status`, once no transfer is under way. */
static void stop(store_client *c, store_request *r, mc_status status)
{
    if (r->state != REQUEST_RUNS)
        return;
    r->state = REQUEST_STOPS;
    r->status = status;
    if (r->ask_tag != 0)
        c->out->forget(c->out->user, r->ask_tag);
    if (r->renew_tag != 0)
        c->out->forget(c->out->user, r->renew_tag);
    r->ask_tag = r->renew_tag = 0;
    if (r->moving == 0) {
        quiet(c, r);
        return;
    }
    due_stop(&c->due, r->slot);
    for (uint32_t i = 0; i < r->n; i++)
        for (uint32_t p = 0; p < MC_REPLICAS_MAX; p++)
            if (r->items[i].moving >> p & 1)
                c->out->stop(c->out->user, tag_of(r, i << 3 | p));
}

/* ----------------------------------------------------------------------------- and its way there */

static void part_begin(store_client *c, store_request *r)
{
    const size_t left = r->call.count - r->base;

    r->n = left < r->part_max ? (uint32_t)left : r->part_max;
    memset(r->items, 0, r->n * sizeof(*r->items));
    r->lease = (struct mc_lease){ 0 };
    r->renew_at = 0;
    r->fulls = 0;
    if (r->ops->begin)
        r->ops->begin(c, r);
}

static void set_due(store_client *c, const store_request *r)
{
    uint64_t at = r->deadline_ns;

    if (r->state != REQUEST_RUNS)
        return;
    if (r->retry_at != 0 && r->retry_at < at)
        at = r->retry_at;
    if (r->renew_at != 0 && r->renew_at < at)
        at = r->renew_at;
    due_set(&c->due, r->slot, at);
}

/** As far as it goes without waiting. */
static void advance(store_client *c, store_request *r)
{
    while (r->state == REQUEST_RUNS && r->ask_tag == 0 && r->retry_at == 0) {
        const enum next next = r->ops->next(c, r);
        if (next == NEXT_WAIT)
            break;
        if (next == NEXT_AGAIN)
            continue;
        if (r->ops->end)
            r->ops->end(c, r);
        r->base += r->n;
        if (r->base >= r->call.count) {
            final(c, r, MC_OK);
            return;
        }
        part_begin(c, r);
    }
    set_due(c, r);
}

/** The master said no to the question as a whole. */
static void refused(store_client *c, store_request *r, const struct wire_outcome *outcome)
{
    if (outcome->status == MC_E_FULL || outcome->status == MC_E_BUSY)
        client_retry(c, r, backoff(c, r->fulls++)); /* until the deadline */
    else
        stop(c, r, outcome->status == MC_OK ? MC_E_FORMAT : outcome->status);
}

static void main_answer(store_client *c, store_request *r, const struct store_client_event *event)
{
    r->ask_tag = 0;
    if (event->status != MC_OK)
        client_retry(c, r, backoff(c, 0)); /* asked again: that is safe */
    else if (event->wire == (uint32_t)(r->committing ? WIRE_OUTCOMES : r->ops->answer))
        r->ops->answered(c, r, event->message);
    else if (event->wire == WIRE_OUTCOME)
        refused(c, r, event->message);
    else
        stop(c, r, MC_E_FORMAT);
    advance(c, r);
}

static void answer(store_client *c, const struct store_client_event *event)
{
    store_request *r = request_of(c, event->id);

    if (!r || r->state != REQUEST_RUNS)
        return;
    if (event->id == r->ask_tag) {
        main_answer(c, r, event);
    } else if (event->id == r->renew_tag) {
        r->renew_tag = 0;
        if (event->status == MC_OK && event->wire == WIRE_OUTCOMES)
            r->ops->renewed(c, r, event->message);
        set_due(c, r);
    }
}

static void moved(store_client *c, const struct store_client_event *event)
{
    store_request *r = request_of(c, event->id);
    const uint32_t i = (uint32_t)event->id >> 3 & 0xfff, replica = (uint32_t)event->id & 7;

    if (!r || i >= r->n || !(r->items[i].moving >> replica & 1))
        return;
    r->items[i].moving &= (uint8_t) ~(1u << replica);
    r->moving--;
    if (r->state == REQUEST_RUNS) {
        r->ops->moved(c, r, i, replica, event->status);
        r->retry_at = 0; /* scratch memory may have come free */
        advance(c, r);
    } else if (r->moving == 0) {
        quiet(c, r);
    }
}

static void request_due(store_client *c, store_request *r)
{
    if (c->now >= r->deadline_ns) {
        stop(c, r, MC_E_TIMEOUT);
        return;
    }
    if (r->retry_at != 0 && c->now >= r->retry_at)
        r->retry_at = 0;
    if (r->renew_at != 0 && c->now >= r->renew_at) {
        r->renew_at = 0;
        if (r->ops->renew)
            r->ops->renew(c, r);
    }
    advance(c, r);
}

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
            advance(c, r);
        else
            set_due(c, r);
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
        answer(c, event);
        break;
    case STORE_CLIENT_MOVED:
        moved(c, event);
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
    return p->medium != MC_MEDIUM_SSD && p->group == 0 && p->reserved[0] == 0 &&
           p->reserved[1] == 0;
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
        *status_at(r, i) = MC_PENDING;
    *request_p = r;
    part_begin(c, r);
    due_set(&c->due, slot, now_ns); /* begins with the next step: done is never called in here */
    c->out = NULL;
    return MC_OK;
}

void store_client_cancel(store_client *c, store_request *r, uint64_t now_ns,
                         const struct store_client_out *out)
{
    c->now = now_ns;
    c->out = out;
    stop(c, r, MC_E_CANCELLED);
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
