/* request.c - the life of a request: parts, questions, transfers, deadline, cancel. What is asked and what an
 * answer means stands with the ops. */
#include <assert.h>
#include <string.h>

#include "store/core/client_state.h"

#define RETRY_NS UINT64_C(2000000) /* what could not be sent, or had no room, doubled each time */
enum { RETRY_DOUBLED_MAX = 6 };

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

mc_status *request_status_at(const store_request *r, size_t index)
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
        *request_status_at(r, r->base + i) = status;
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
        if (*request_status_at(r, i) == MC_PENDING)
            *request_status_at(r, i) = status;
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
void request_stop(store_client *c, store_request *r, mc_status status)
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

void request_part(store_client *c, store_request *r)
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

void request_set_due(store_client *c, const store_request *r)
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
void request_advance(store_client *c, store_request *r)
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
        request_part(c, r);
    }
    request_set_due(c, r);
}

/** The master said no to the question as a whole. */
static void refused(store_client *c, store_request *r, const struct wire_outcome *outcome)
{
    if (outcome->status == MC_E_FULL || outcome->status == MC_E_BUSY)
        client_retry(c, r, backoff(c, r->fulls++)); /* until the deadline */
    else
        request_stop(c, r, outcome->status == MC_OK ? MC_E_FORMAT : outcome->status);
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
        request_stop(c, r, MC_E_FORMAT);
    request_advance(c, r);
}

void request_answered(store_client *c, const struct store_client_event *event)
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
        request_set_due(c, r);
    }
}

void request_moved(store_client *c, const struct store_client_event *event)
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
        request_advance(c, r);
    } else if (r->moving == 0) {
        quiet(c, r);
    }
}

void request_due(store_client *c, store_request *r)
{
    if (c->now >= r->deadline_ns) {
        request_stop(c, r, MC_E_TIMEOUT);
        return;
    }
    if (r->retry_at != 0 && c->now >= r->retry_at)
        r->retry_at = 0;
    if (r->renew_at != 0 && c->now >= r->renew_at) {
        r->renew_at = 0;
        if (r->ops->renew)
            r->ops->renew(c, r);
    }
    request_advance(c, r);
}
