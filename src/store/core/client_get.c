/* client_get.c - get: look up under a lease, read, verify, the next replica. */
#include <string.h>

#include "store/core/client_state.h"
#include "store/core/object.h"

static uint64_t room(const struct mc_get *get)
{
    uint64_t bytes = 0;

    for (uint64_t i = 0; i < get->count; i++) {
        if (get->ranges[i].size > UINT64_MAX - bytes)
            return UINT64_MAX;
        bytes += get->ranges[i].size;
    }
    return bytes;
}

static void item_failed(store_client *c, store_request *r, uint32_t i, mc_status status)
{
    c->total.get_failed++;
    client_item_done(c, r, i, status);
}

/** This replica is no good: the next one, or the master again, which was told. */
static void next_replica(store_client *c, store_request *r, uint32_t i, mc_status status)
{
    struct client_item *item = &r->items[i];
    const struct mc_get *get = client_item_at(r, i);
    const struct mc_replica *replica = &r->replicas[(size_t)i * r->replicas_each + item->replica];
    const struct wire_replica_bad bad = {
        .key = object_key(&get->identity),
        .node = replica->node,
        .generation = replica->generation,
        .status = status == MC_E_CORRUPT || status == MC_E_STALE ? status : MC_E_PEER,
    };

    client_aside(c, WIRE_REPLICA_BAD, &bad);
    item->failed = bad.status;
    c->total.failovers++;
    c->total.corrupt += status == MC_E_CORRUPT;
    item->state = ITEM_PLACED;
    if (++item->replica < item->replicas)
        return;
    if (++item->rounds < ROUNDS_MAX)
        item->state = ITEM_ASK;
    else
        item_failed(c, r, i, item->failed);
}

/** Header, ranges up to the object's length, trailer. */
static size_t set_parts(const store_request *r, uint32_t i)
{
    const struct mc_get *get = client_item_at(r, i);
    const struct client_item *item = &r->items[i];
    uint8_t *scratch = item->scratch;
    uint64_t left = item->length;
    size_t n = 0;

    r->parts[n++] = (struct mc_range){ scratch, sizeof(struct mc_object_header) };
    for (uint64_t k = 0; left > 0; k++) {
        const uint64_t size = get->ranges[k].size < left ? get->ranges[k].size : left;
        if (size > 0)
            r->parts[n++] = (struct mc_range){ get->ranges[k].address, size };
        left -= size;
    }
    if (item->length > 0)
        r->parts[n++] = (struct mc_range){ scratch + sizeof(struct mc_object_header),
                                           4 * mc_object_pieces(item->length) };
    return n;
}

/** Order the transfer, of the first replica that takes it. False: no scratch memory now. */
static bool read_one(store_client *c, store_request *r, uint32_t i)
{
    struct client_item *item = &r->items[i];
    const size_t size =
        sizeof(struct mc_object_header) + 4 * (size_t)mc_object_pieces(item->length);

    if (c->now >= r->lease.until_ns) {
        item->state = ITEM_ASK;
        return true;
    }
    if (!client_scratch(c, item, size))
        return false;
    const struct mc_replica *replica = &r->replicas[(size_t)i * r->replicas_each + item->replica];
    if (replica->segment != 0 &&
        client_move(c, r, i, item->replica, MC_READ, set_parts(r, i)) == MC_OK)
        item->state = ITEM_MOVING;
    else
        next_replica(c, r, i, MC_E_PEER);
    return true;
}

/** Did the right bytes come, and while nobody else could have them? */
static mc_status verify(const store_request *r, uint32_t i, uint64_t generation)
{
    const struct mc_get *get = client_item_at(r, i);
    const struct client_item *item = &r->items[i];
    struct mc_object_header header;

    memcpy(&header, item->scratch, sizeof(header));
    const mc_status status = object_header_check(&header, &get->identity, item->length, generation);
    if (status != MC_OK)
        return status;
    return object_verify(&header, get->ranges, get->count,
                         (const uint8_t *)item->scratch + sizeof(header));
}

static void get_moved(store_client *c, store_request *r, uint32_t i, uint32_t replica,
                      mc_status status)
{
    struct mc_get *get = client_item_at(r, i);
    struct client_item *item = &r->items[i];
    const struct mc_replica *from = &r->replicas[(size_t)i * r->replicas_each + replica];

    if (c->now >= r->lease.until_ns) {
        item->state = ITEM_ASK; /* the place may have been another's before the last byte came */
        return;
    }
    if (status == MC_OK)
        status = verify(r, i, from->generation);
    if (status != MC_OK) {
        next_replica(c, r, i, status);
        return;
    }
    get->length = item->length;
    get->medium = from->medium;
    get->node = from->node;
    c->total.get_hits++;
    c->total.get_bytes += item->length;
    client_item_done(c, r, i, MC_OK);
}

static void release(store_client *c, store_request *r)
{
    const struct wire_lease_release message = { .leases = { &r->lease.id, 1 },
                                                .epoch = r->lease.epoch };

    if (r->lease.id != 0 && c->now < r->lease.until_ns)
        client_aside(c, WIRE_LEASE_RELEASE, &message);
    r->lease = (struct mc_lease){ 0 };
    r->renew_at = 0;
}

static enum next ask(store_client *c, store_request *r)
{
    r->asked_count = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].state == ITEM_ASK) {
            const struct mc_get *get = client_item_at(r, i);
            c->say_keys[r->asked_count] = object_key(&get->identity);
            r->asked[r->asked_count++] = i;
        }
    if (r->asked_count == 0)
        return NEXT_DONE;
    release(c, r);
    const struct wire_lookup message = {
        .keys = { c->say_keys, r->asked_count },
        .lease_ns = c->o.lease_ns,
        .host = c->o.host,
    };
    return client_ask(c, r, WIRE_LOOKUP, &message);
}

static enum next get_next(store_client *c, store_request *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        while (r->items[i].state == ITEM_PLACED)
            if (!read_one(c, r, i)) {
                if (r->moving == 0)
                    client_retry(c, r, c->now + 1000000);
                return NEXT_WAIT;
            }
    return r->moving > 0 ? NEXT_WAIT : ask(c, r);
}

static void found_one(store_client *c, store_request *r, uint32_t i,
                      const struct wire_found_item *found, struct wire_list nodes)
{
    struct client_item *item = &r->items[i];

    if (found->status != MC_OK) {
        c->total.get_misses++;
        client_item_done(c, r, i, item->failed != MC_OK ? item->failed : MC_E_NOT_FOUND);
        return;
    }
    item->length = found->length;
    item->replica = 0;
    if (found->length > MC_OBJECT_LENGTH_MAX || found->length > room(client_item_at(r, i))) {
        item_failed(c, r, i, MC_E_RANGE);
        return;
    }
    item->replicas = (uint8_t)client_take_replicas(
        c, found->replicas, nodes, &r->replicas[(size_t)i * r->replicas_each], r->replicas_each);
    item->state = ITEM_PLACED;
    if (item->replicas == 0)
        item_failed(c, r, i, MC_E_PEER);
}

static void renew_half_way(store_request *r, uint64_t from_ns)
{
    if (r->lease.id != 0)
        r->renew_at = from_ns + (r->lease.until_ns - from_ns) / 2;
}

static void get_answered(store_client *c, store_request *r, const void *message)
{
    const struct wire_found *found = message;
    struct wire_list items = found->items;
    struct wire_found_item item;
    uint32_t n = 0;

    r->lease = (struct mc_lease){ found->lease, found->epoch, r->sent_ns + found->lease_ns };
    c->epoch = found->epoch;
    renew_half_way(r, r->sent_ns);
    while (n < r->asked_count && wire_found_item_next(&items, &item))
        found_one(c, r, r->asked[n++], &item, found->nodes);
    for (; n < r->asked_count; n++)
        item_failed(c, r, r->asked[n], MC_E_FORMAT);
}

static void get_renew(store_client *c, store_request *r)
{
    const struct wire_lease_renew message = {
        .leases = { &r->lease.id, 1 },
        .epoch = r->lease.epoch,
        .lease_ns = r->lease.until_ns - r->sent_ns,
    };

    if (r->lease.id != 0 && c->now < r->lease.until_ns) {
        r->lease_ns = message.lease_ns;
        client_ask_renew(c, r, WIRE_LEASE_RENEW, &message);
    }
}

static void get_renewed(store_client *c, store_request *r, const void *message)
{
    const struct wire_outcomes *outcomes = message;

    (void)c;
    if (r->lease.id == 0 || outcomes->statuses.count != 1 ||
        wire_u32_at(&outcomes->statuses, 0) != MC_OK)
        return;
    r->lease.until_ns = r->renew_sent_ns + r->lease_ns;
    renew_half_way(r, r->renew_sent_ns);
}

const struct client_ops client_ops_get = {
    .item_size = sizeof(struct mc_get),
    .status_offset = offsetof(struct mc_get, status),
    .has_status = true,
    .next = get_next,
    .answered = get_answered,
    .answer = WIRE_FOUND,
    .moved = get_moved,
    .abandon = release,
    .end = release,
    .renew = get_renew,
    .renewed = get_renewed,
};
