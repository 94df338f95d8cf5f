/* client_ask.c - the calls that are one question to the master for each part: exist, remove, lookup, leases,
 * commit, revoke, renew. */
#include <string.h>

#include "store/core/client_state.h"

/** All of the part at hand is in one question: asked until it is answered. */
static bool answered_all(const store_request *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].state != ITEM_DONE)
            return false;
    return true;
}

static mc_status outcome_at(const struct wire_outcomes *outcomes, uint32_t i)
{
    return i < outcomes->statuses.count ? (mc_status)(int32_t)wire_u32_at(&outcomes->statuses, i)
                                        : MC_E_FORMAT;
}

/* ----------------------------------------------------------------------------- exist, remove */

static enum next exist_next(store_client *c, store_request *r)
{
    if (answered_all(r))
        return NEXT_DONE;
    for (uint32_t i = 0; i < r->n; i++)
        c->say_keys[i] = ((struct mc_exist *)client_item_at(r, i))->key;
    const struct wire_exist message = { .keys = { c->say_keys, r->n } };
    return client_ask(c, r, WIRE_EXIST, &message);
}

static void exist_answered(store_client *c, store_request *r, const void *message)
{
    struct wire_list items = ((const struct wire_existing *)message)->items;
    struct wire_exist_item item;

    for (uint32_t i = 0; i < r->n; i++) {
        struct mc_exist *exist = client_item_at(r, i);
        if (!wire_exist_item_next(&items, &item))
            item = (struct wire_exist_item){ .status = MC_E_FORMAT };
        exist->length = item.length;
        exist->medium = (enum mc_medium)item.medium;
        client_item_done(c, r, i, item.status);
    }
}

const struct client_ops client_ops_exist = {
    .item_size = sizeof(struct mc_exist),
    .status_offset = offsetof(struct mc_exist, status),
    .has_status = true,
    .next = exist_next,
    .answered = exist_answered,
    .answer = WIRE_EXISTING,
};

/** A question has one `force`: as many as say the same. */
static void remove_begin(store_client *c, store_request *r)
{
    const struct mc_remove *first = client_item_at(r, 0);

    (void)c;
    for (uint32_t i = 1; i < r->n; i++)
        if (((struct mc_remove *)client_item_at(r, i))->force != first->force)
            r->n = i;
}

static enum next remove_next(store_client *c, store_request *r)
{
    if (answered_all(r))
        return NEXT_DONE;
    for (uint32_t i = 0; i < r->n; i++)
        c->say_keys[i] = ((struct mc_remove *)client_item_at(r, i))->key;
    const struct wire_remove message = {
        .keys = { c->say_keys, r->n },
        .force = ((struct mc_remove *)client_item_at(r, 0))->force != 0,
    };
    return client_ask(c, r, WIRE_REMOVE, &message);
}

static void outcomes_answered(store_client *c, store_request *r, const void *message)
{
    for (uint32_t i = 0; i < r->n; i++)
        client_item_done(c, r, i, outcome_at(message, i));
}

const struct client_ops client_ops_remove = {
    .item_size = sizeof(struct mc_remove),
    .status_offset = offsetof(struct mc_remove, status),
    .has_status = true,
    .begin = remove_begin,
    .next = remove_next,
    .answered = outcomes_answered,
    .answer = WIRE_OUTCOMES,
};

/* ------------------------------------------------------------------------------------- lookup */

static enum next lookup_next(store_client *c, store_request *r)
{
    if (answered_all(r))
        return NEXT_DONE;
    for (uint32_t i = 0; i < r->n; i++)
        c->say_keys[i] = ((struct mc_lookup *)client_item_at(r, i))->key;
    const struct wire_lookup message = {
        .keys = { c->say_keys, r->n },
        .lease_ns = r->call.lease_ns,
        .prefix = (r->call.flags & MC_LOOKUP_PREFIX) != 0,
        .host = c->o.host,
    };
    return client_ask(c, r, WIRE_LOOKUP, &message);
}

static mc_status lookup_one(store_client *c, struct mc_lookup *lookup,
                            const struct wire_found_item *item, const struct wire_found *found,
                            uint64_t sent_ns)
{
    if (item->status != MC_OK)
        return item->status;
    lookup->length = item->length;
    lookup->replica_count = item->replicas.count;
    (void)client_take_replicas(c, item->replicas, found->nodes, lookup->replicas,
                               lookup->replicas_max);
    lookup->lease = (struct mc_lease){ found->lease, found->epoch, sent_ns + found->lease_ns };
    return MC_OK;
}

/** A chain that broke: what follows is not asked for. */
static void chain_broke(store_request *r)
{
    struct mc_lookup *all = r->call.items;

    for (size_t i = r->base + r->n; i < r->call.count; i++)
        all[i].status = MC_E_NOT_FOUND;
    r->call.count = r->base + r->n;
}

static void lookup_answered(store_client *c, store_request *r, const void *message)
{
    const struct wire_found *found = message;
    struct wire_list items = found->items;
    struct wire_found_item item;
    bool broke = false;

    c->epoch = found->epoch;
    for (uint32_t i = 0; i < r->n; i++) {
        struct mc_lookup *lookup = client_item_at(r, i);
        lookup->replica_count = 0;
        lookup->length = 0;
        lookup->lease = (struct mc_lease){ 0 };
        if (broke || !wire_found_item_next(&items, &item))
            item = (struct wire_found_item){ .status = MC_E_NOT_FOUND };
        const mc_status status = lookup_one(c, lookup, &item, found, r->sent_ns);
        broke = broke || (status != MC_OK && (r->call.flags & MC_LOOKUP_PREFIX));
        client_item_done(c, r, i, status);
    }
    if (broke)
        chain_broke(r);
}

const struct client_ops client_ops_lookup = {
    .item_size = sizeof(struct mc_lookup),
    .status_offset = offsetof(struct mc_lookup, status),
    .has_status = true,
    .next = lookup_next,
    .answered = lookup_answered,
    .answer = WIRE_FOUND,
};

/* ------------------------------------------------------------------- leases and tokens, renewed */

static uint64_t epoch_of(const store_request *r, uint32_t i)
{
    const void *item = client_item_at(r, i);

    if (r->call.op == STORE_LEASE_RENEW)
        return ((const struct mc_lease *)item)->epoch;
    if (r->call.op == STORE_ALLOT_RENEW)
        return ((const struct mc_token *)item)->epoch;
    return ((const struct mc_commit *)item)->token.epoch;
}

/** A question has one epoch: as many as have the same. */
static void one_epoch(store_client *c, store_request *r)
{
    (void)c;
    for (uint32_t i = 1; i < r->n; i++)
        if (epoch_of(r, i) != epoch_of(r, 0))
            r->n = i;
}

static enum next lease_renew_next(store_client *c, store_request *r)
{
    uint64_t *ids = c->say;

    if (answered_all(r))
        return NEXT_DONE;
    for (uint32_t i = 0; i < r->n; i++)
        ids[i] = ((struct mc_lease *)client_item_at(r, i))->id;
    const struct wire_lease_renew message = {
        .leases = { ids, r->n },
        .epoch = epoch_of(r, 0),
        .lease_ns = r->call.lease_ns,
    };
    return client_ask(c, r, WIRE_LEASE_RENEW, &message);
}

static void lease_renew_answered(store_client *c, store_request *r, const void *message)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct mc_lease *lease = client_item_at(r, i);
        lease->until_ns = outcome_at(message, i) == MC_OK ? r->sent_ns + r->call.lease_ns : 0;
        client_item_done(c, r, i, MC_OK);
    }
}

const struct client_ops client_ops_lease_renew = {
    .item_size = sizeof(struct mc_lease),
    .begin = one_epoch,
    .next = lease_renew_next,
    .answered = lease_renew_answered,
    .answer = WIRE_OUTCOMES,
};

static enum next allot_renew_next(store_client *c, store_request *r)
{
    struct wire_put_end *ends = c->say;

    if (answered_all(r))
        return NEXT_DONE;
    for (uint32_t i = 0; i < r->n; i++) {
        ends[i] = (struct wire_put_end){ 0 };
        memcpy(&ends[i].token, ((struct mc_token *)client_item_at(r, i))->id,
               sizeof(ends[i].token));
    }
    const struct wire_put_renew message = {
        .items = { .items = ends, .count = r->n },
        .epoch = epoch_of(r, 0),
        .lease_ns = r->call.lease_ns,
    };
    return client_ask(c, r, WIRE_PUT_RENEW, &message);
}

static void allot_renew_answered(store_client *c, store_request *r, const void *message)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct mc_token *token = client_item_at(r, i);
        token->until_ns = outcome_at(message, i) == MC_OK ? r->sent_ns + r->call.lease_ns : 0;
        client_item_done(c, r, i, MC_OK);
    }
}

const struct client_ops client_ops_allot_renew = {
    .item_size = sizeof(struct mc_token),
    .begin = one_epoch,
    .next = allot_renew_next,
    .answered = allot_renew_answered,
    .answer = WIRE_OUTCOMES,
};

/* ----------------------------------------------------------------------------- commit, revoke */

static void set_ends(store_client *c, const store_request *r)
{
    struct wire_put_end *ends = c->say;

    for (uint32_t i = 0; i < r->n; i++) {
        const struct mc_commit *commit = client_item_at(r, i);
        ends[i] = (struct wire_put_end){ .key = commit->key, .replicas = commit->replicas };
        memcpy(&ends[i].token, commit->token.id, sizeof(ends[i].token));
    }
}

static enum next commit_next(store_client *c, store_request *r)
{
    if (answered_all(r))
        return NEXT_DONE;
    set_ends(c, r);
    const struct wire_put_commit message = { .items = { .items = c->say, .count = r->n },
                                             .epoch = epoch_of(r, 0) };
    return client_ask(c, r, WIRE_PUT_COMMIT, &message);
}

static enum next revoke_next(store_client *c, store_request *r)
{
    if (answered_all(r))
        return NEXT_DONE;
    set_ends(c, r);
    const struct wire_put_revoke message = { .items = { .items = c->say, .count = r->n },
                                             .epoch = epoch_of(r, 0) };
    return client_ask(c, r, WIRE_PUT_REVOKE, &message);
}

const struct client_ops client_ops_commit = {
    .item_size = sizeof(struct mc_commit),
    .status_offset = offsetof(struct mc_commit, status),
    .has_status = true,
    .begin = one_epoch,
    .next = commit_next,
    .answered = outcomes_answered,
    .answer = WIRE_OUTCOMES,
};

const struct client_ops client_ops_revoke = {
    .item_size = sizeof(struct mc_commit),
    .status_offset = offsetof(struct mc_commit, status),
    .has_status = true,
    .begin = one_epoch,
    .next = revoke_next,
    .answered = outcomes_answered,
    .answer = WIRE_OUTCOMES,
};
