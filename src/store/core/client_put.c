/* client_put.c - put: places and a token, write every replica, commit; and allot, which ends with the places. */
#include <string.h>

#include "store/core/client_state.h"
#include "store/core/object.h"

static struct mc_key token_said(const struct client_item *item)
{
    struct mc_key token;

    memcpy(&token, item->token, sizeof(token));
    return token;
}

static void token_forget(struct client_item *item)
{
    item->token[0] = item->token[1] = 0;
}

static uint64_t put_length(const struct mc_put *put)
{
    uint64_t bytes = 0;

    for (uint64_t i = 0; i < put->count; i++) {
        if (put->ranges[i].size > MC_OBJECT_LENGTH_MAX - bytes)
            return UINT64_MAX;
        bytes += put->ranges[i].size;
    }
    return bytes;
}

static const struct mc_identity *identity_of(const store_request *r, uint32_t i)
{
    return r->call.op == STORE_PUT ? &((struct mc_put *)client_item_at(r, i))->identity
                                   : &((struct mc_allot *)client_item_at(r, i))->identity;
}

static void part_begin(store_client *c, store_request *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct client_item *item = &r->items[i];
        const struct mc_allot *allot = client_item_at(r, i);
        item->length = r->call.op == STORE_PUT ? put_length(client_item_at(r, i)) : allot->length;
        if (item->length > MC_OBJECT_LENGTH_MAX ||
            (r->call.op == STORE_ALLOT && allot->replicas_max < r->replicas_each))
            client_item_done(c, r, i, MC_E_RANGE);
    }
}

static void item_failed(store_client *c, store_request *r, uint32_t i, mc_status status)
{
    c->total.put_failed++;
    client_item_done(c, r, i, status);
}

static void revoke(store_client *c, store_request *r, uint32_t i)
{
    const struct wire_put_end end = { .key = object_key(identity_of(r, i)),
                                      .token = token_said(&r->items[i]) };
    const struct wire_put_revoke message = {
        .items = { .items = &end, .count = 1 },
        /* Not told yet: it was asked of this one, or is stale. */
        .epoch = r->lease.epoch ? r->lease.epoch : c->epoch
    };

    if ((r->items[i].token[0] | r->items[i].token[1]) != 0)
        client_aside(c, WIRE_PUT_REVOKE, &message);
    token_forget(&r->items[i]);
}

/** It came to nothing; again, with another token, a few times. */
static void item_again(store_client *c, store_request *r, uint32_t i, mc_status status)
{
    struct client_item *item = &r->items[i];

    revoke(c, r, i);
    item->failed = status;
    item->written = 0;
    item->state = ITEM_ASK;
    if (++item->rounds >= ROUNDS_MAX)
        item_failed(c, r, i, status);
}

/* -------------------------------------------------------------------------------------- begin */

static enum next ask_begin(store_client *c, store_request *r)
{
    const struct mc_placement *placement = &r->call.placement;
    struct wire_put_item *items = c->say;

    r->asked_count = 0;
    for (uint32_t i = 0; i < r->n; i++) {
        struct client_item *item = &r->items[i];
        if (item->state != ITEM_ASK)
            continue;
        if ((item->token[0] | item->token[1]) == 0)
            c->out->draw(c->out->user, item->token);
        items[r->asked_count] = (struct wire_put_item){ .identity = *identity_of(r, i),
                                                        .length = item->length,
                                                        .token = token_said(item) };
        r->asked[r->asked_count++] = i;
    }
    if (r->asked_count == 0)
        return NEXT_DONE;
    const struct wire_put_begin message = {
        .items = { .items = items, .count = r->asked_count },
        .replicas = placement->replicas,
        .medium = (uint32_t)placement->medium,
        .node = placement->node,
        .pin_ns = placement->pin_ns,
        .lease_ns = c->o.lease_ns,
        .host = c->o.host,
        .another = (placement->flags & MC_PLACE_ANOTHER) != 0,
    };
    return client_ask(c, r, WIRE_PUT_BEGIN, &message);
}

static void not_begun(store_client *c, store_request *r, uint32_t i, mc_status status)
{
    struct client_item *item = &r->items[i];

    token_forget(item);
    item->failed = status;
    if (status == MC_E_EXISTS) {
        c->total.put_existed++;
        client_item_done(c, r, i, MC_E_EXISTS);
    } else if ((status == MC_E_FULL || status == MC_E_PEER || status == MC_E_STALE ||
                status == MC_E_TIMEOUT) &&
               ++item->rounds < ROUNDS_MAX) {
        /* The master makes room for who asks again. */
        client_retry(c, r, c->now + (UINT64_C(4000000) << item->rounds));
    } else {
        item_failed(c, r, i, status);
    }
}

static void begun_one(store_client *c, store_request *r, uint32_t i,
                      const struct wire_put_place *place, struct wire_list nodes)
{
    struct client_item *item = &r->items[i];

    if (place->status != MC_OK) {
        not_begun(c, r, i, place->status);
        return;
    }
    item->replicas = (uint8_t)client_take_replicas(
        c, place->replicas, nodes, &r->replicas[(size_t)i * r->replicas_each], r->replicas_each);
    item->written = 0;
    item->replica = 0;
    item->state = ITEM_PLACED;
}

static void begun(store_client *c, store_request *r, const struct wire_put_begun *message)
{
    struct wire_list places = message->places;
    struct wire_put_place place;
    uint32_t n = 0;

    r->lease = (struct mc_lease){ 1, message->epoch, r->sent_ns + message->lease_ns };
    c->epoch = message->epoch;
    r->lease_ns = message->lease_ns;
    r->renew_at = r->sent_ns + message->lease_ns / 2;
    while (n < r->asked_count && wire_put_place_next(&places, &place))
        begun_one(c, r, r->asked[n++], &place, message->nodes);
    for (; n < r->asked_count; n++)
        item_failed(c, r, r->asked[n], MC_E_FORMAT);
}

/* -------------------------------------------------------------------------------------- write */

/* Scratch memory of a put: | header, trailer | for each replica, whose generations differ | sums | */

static size_t trailer_bytes(const struct client_item *item)
{
    return 4 * (size_t)mc_object_pieces(item->length);
}

static uint8_t *frame_of(const struct client_item *item, uint32_t replica)
{
    return (uint8_t *)item->scratch +
           replica * (sizeof(struct mc_object_header) + trailer_bytes(item));
}

/** False: no scratch memory now. */
static bool prepare(store_client *c, store_request *r, uint32_t i)
{
    const struct mc_put *put = client_item_at(r, i);
    struct client_item *item = &r->items[i];
    const size_t frame = sizeof(struct mc_object_header) + trailer_bytes(item);

    if (!client_scratch(c, item, item->replicas * frame + trailer_bytes(item)))
        return false;
    /* Aligned: frames are multiples of 4 bytes. */
    uint32_t *sums = (uint32_t *)(void *)frame_of(item, item->replicas);
    object_sum(put->ranges, put->count, item->length, sums);
    for (uint32_t p = 0; p < item->replicas; p++) {
        struct mc_object_header header;
        object_header_make(&header, &put->identity, item->length,
                           r->replicas[(size_t)i * r->replicas_each + p].generation);
        memcpy(frame_of(item, p), &header, sizeof(header));
        object_trailer_make(&header, sums, mc_object_pieces(item->length),
                            frame_of(item, p) + sizeof(header));
    }
    return true;
}

static size_t set_parts(const store_request *r, uint32_t i, uint32_t replica)
{
    const struct mc_put *put = client_item_at(r, i);
    const struct client_item *item = &r->items[i];
    uint8_t *frame = frame_of(item, replica);
    size_t n = 0;

    r->parts[n++] = (struct mc_range){ frame, sizeof(struct mc_object_header) };
    for (uint64_t k = 0; k < put->count; k++)
        if (put->ranges[k].size > 0)
            r->parts[n++] = put->ranges[k];
    if (item->length > 0)
        r->parts[n++] =
            (struct mc_range){ frame + sizeof(struct mc_object_header), trailer_bytes(item) };
    return n;
}

static void written(store_client *c, store_request *r, uint32_t i)
{
    struct client_item *item = &r->items[i];

    if (item->moving != 0)
        return;
    client_scratch_free(c, item);
    item->state = ITEM_READY;
    if (item->written == 0)
        item_again(c, r, i, MC_E_PEER);
}

/** False: no scratch memory now. */
static bool write_one(store_client *c, store_request *r, uint32_t i)
{
    struct client_item *item = &r->items[i];

    if (!prepare(c, r, i))
        return false;
    item->state = ITEM_MOVING;
    for (uint32_t p = 0; p < item->replicas; p++)
        if (r->replicas[(size_t)i * r->replicas_each + p].segment != 0)
            (void)client_move(c, r, i, p, MC_WRITE, set_parts(r, i, p));
    written(c, r, i); /* if none could be ordered */
    return true;
}

static void put_moved(store_client *c, store_request *r, uint32_t i, uint32_t replica,
                      mc_status status)
{
    if (status == MC_OK)
        r->items[i].written |= (uint8_t)(1u << replica);
    else
        c->total.failovers++;
    written(c, r, i);
}

/* ------------------------------------------------------------------------------------- commit */

static enum next ask_commit(store_client *c, store_request *r)
{
    struct wire_put_end *ends = c->say;

    r->asked_count = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].state == ITEM_READY) {
            ends[r->asked_count] = (struct wire_put_end){
                .key = object_key(identity_of(r, i)),
                .token = token_said(&r->items[i]),
                .replicas = r->items[i].written,
            };
            r->asked[r->asked_count++] = i;
        }
    if (r->asked_count == 0)
        return NEXT_AGAIN;
    const struct wire_put_commit message = {
        .items = { .items = ends, .count = r->asked_count },
        .epoch = r->lease.epoch,
    };
    return client_ask(c, r, WIRE_PUT_COMMIT, &message);
}

static void committed(store_client *c, store_request *r, const struct wire_outcomes *outcomes)
{
    for (uint32_t n = 0; n < r->asked_count; n++) {
        const uint32_t i = r->asked[n];
        const mc_status status = n < outcomes->statuses.count
                                     ? (mc_status)(int32_t)wire_u32_at(&outcomes->statuses, n)
                                     : MC_E_FORMAT;
        if (status == MC_OK) {
            c->total.put_stored++;
            c->total.put_bytes += r->items[i].length;
            token_forget(&r->items[i]);
            client_item_done(c, r, i, MC_OK);
        } else {
            item_again(c, r, i, MC_E_PEER); /* the token is stale: another life, or too slow */
        }
    }
}

static bool any(const store_request *r, enum item_state state)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].state == state)
            return true;
    return false;
}

static enum next put_next(store_client *c, store_request *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].state == ITEM_PLACED && !write_one(c, r, i)) {
            if (r->moving == 0)
                client_retry(c, r, c->now + 1000000);
            return NEXT_WAIT;
        }
    if (r->moving > 0)
        return NEXT_WAIT;
    r->committing = any(r, ITEM_READY);
    return r->committing ? ask_commit(c, r) : ask_begin(c, r);
}

static void put_answered(store_client *c, store_request *r, const void *message)
{
    if (r->committing)
        committed(c, r, message);
    else
        begun(c, r, message);
}

/** Ends otherwise than well: what the master may have allotted goes back. */
static void put_abandon(store_client *c, store_request *r)
{
    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].state != ITEM_DONE)
            revoke(c, r, i);
}

static void put_renew(store_client *c, store_request *r)
{
    struct wire_put_end *ends = c->say;
    uint32_t n = 0;

    for (uint32_t i = 0; i < r->n; i++)
        if (r->items[i].state == ITEM_MOVING || r->items[i].state == ITEM_PLACED ||
            r->items[i].state == ITEM_READY)
            ends[n++] = (struct wire_put_end){ .key = object_key(identity_of(r, i)),
                                               .token = token_said(&r->items[i]) };
    if (n == 0)
        return;
    const struct wire_put_renew message = { .items = { .items = ends, .count = n },
                                            .epoch = r->lease.epoch,
                                            .lease_ns = r->lease_ns };
    client_ask_renew(c, r, WIRE_PUT_RENEW, &message);
}

static void put_renewed(store_client *c, store_request *r, const void *message)
{
    (void)c;
    (void)message; /* what could not be renewed fails at its commit */
    r->renew_at = r->renew_sent_ns + r->lease_ns / 2;
}

const struct client_ops client_ops_put = {
    .item_size = sizeof(struct mc_put),
    .status_offset = offsetof(struct mc_put, status),
    .has_status = true,
    .begin = part_begin,
    .next = put_next,
    .answered = put_answered,
    .answer = WIRE_PUT_BEGUN,
    .moved = put_moved,
    .abandon = put_abandon,
    .renew = put_renew,
    .renewed = put_renewed,
};

/* -------------------------------------------------------------------------------------- allot */

static enum next allot_next(store_client *c, store_request *r)
{
    return ask_begin(c, r);
}

static void allot_answered(store_client *c, store_request *r, const void *message)
{
    begun(c, r, message);
    r->renew_at = 0; /* the caller renews */
    for (uint32_t i = 0; i < r->n; i++) {
        struct mc_allot *allot = client_item_at(r, i);
        struct client_item *item = &r->items[i];
        if (item->state != ITEM_PLACED)
            continue;
        memcpy(allot->replicas, &r->replicas[(size_t)i * r->replicas_each],
               item->replicas * sizeof(*allot->replicas));
        allot->replica_count = item->replicas;
        allot->token = (struct mc_token){
            .id = { item->token[0], item->token[1] },
            .epoch = r->lease.epoch,
            .until_ns = r->lease.until_ns,
        };
        token_forget(item); /* the caller's now */
        client_item_done(c, r, i, MC_OK);
    }
}

const struct client_ops client_ops_allot = {
    .item_size = sizeof(struct mc_allot),
    .status_offset = offsetof(struct mc_allot, status),
    .has_status = true,
    .begin = part_begin,
    .next = allot_next,
    .answered = allot_answered,
    .answer = WIRE_PUT_BEGUN,
    .abandon = put_abandon,
};
