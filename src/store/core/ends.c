/* ends.c - a put ends: commit, revoke, or its token expires; and renew, which keeps it from that. */
#include <assert.h>
#include <string.h>

#include "store/core/master_state.h"

/** The token of an end, or 0: unknown, expired, of another object or life. */
static uint32_t end_token(const store_master *m, const struct wire_put_end *end, uint64_t epoch)
{
    const uint32_t i = epoch == m->o.epoch ? puts_token_find(m, &end->token) : 0;

    return i != 0 && memcmp(&m->tokens[i].key, &end->key, sizeof(end->key)) == 0 ? i : 0;
}

/** The places that were written become replicas of `object`, the others are given back. */
static void keep_places(store_master *m, struct token *t, uint32_t object, uint32_t mask)
{
    for (uint32_t p = 0; p < t->count; p++) {
        const uint32_t extent = t->places[p];
        t->places[p] = 0;
        if (extent == 0)
            continue;
        const uint32_t node = m->space.extents[extent].node;
        if ((mask != 0 && !(mask >> p & 1)) || table_has_replica(m, object, node) ||
            table_replicas(m, object) == MC_REPLICAS_MAX) {
            puts_place_drop(m, extent);
            continue;
        }
        m->writing -= m->space.extents[extent].size;
        puts_window_free(m, extent);
        table_add_replica(m, object, extent);
    }
    t->state = TOKEN_COMMITTED;
    t->object = 0;
}

/** To the object that it is a copy of. What went meanwhile does not come back by it. */
static mc_status commit_copy(store_master *m, uint32_t i, uint32_t mask)
{
    struct token *t = &m->tokens[i];
    const uint32_t copy = t->object, there = m->objects[copy].older;
    struct object *o = &m->objects[there];

    if (o->state != OBJECT_COMMITTED || o->serial != m->objects[copy].newer) {
        puts_token_revoke(m, i, MC_E_STALE);
        return MC_E_STALE;
    }
    if (o->pin_until < m->objects[copy].pin_until)
        o->pin_until = m->objects[copy].pin_until;
    keep_places(m, t, there, mask);
    table_free(m, copy);
    return MC_OK;
}

static mc_status commit(store_master *m, uint32_t i, uint32_t mask)
{
    struct token *t = &m->tokens[i];
    struct object *o = &m->objects[t->object];
    uint32_t kept = 0;

    for (uint32_t p = 0; p < t->count; p++)
        kept += t->places[p] != 0 && (mask == 0 || mask >> p & 1);
    if (kept == 0)
        return mask != 0 ? MC_E_ARG : MC_E_STALE;
    if (o->state == OBJECT_COPY)
        return commit_copy(m, i, mask);
    o->state = OBJECT_COMMITTED;
    o->token = 0;
    table_link_newest(m, t->object);
    keep_places(m, t, t->object, mask);
    m->total.committed_objects++;
    return MC_OK;
}

static mc_status commit_one(store_master *m, const struct wire_put_end *end, uint64_t epoch)
{
    const uint32_t i = end_token(m, end, epoch);

    if (i == 0)
        return MC_E_STALE;
    if (m->tokens[i].state == TOKEN_COMMITTED)
        return MC_OK; /* asked again */
    if (m->tokens[i].state != TOKEN_OPEN)
        return MC_E_STALE; /* nobody was told its places */
    return commit(m, i, end->replicas);
}

void puts_commit(store_master *m, uint64_t conn, uint64_t id, const struct wire_put_commit *message)
{
    struct wire_list list = message->items;
    struct wire_put_end end;
    uint32_t n = 0;

    if (list.count > m->o.batch_max) {
        say_outcome(m, conn, id, MC_E_RANGE, "put_commit: too many items");
        return;
    }
    while (wire_put_end_next(&list, &end))
        m->say_statuses[n++] = (uint32_t)commit_one(m, &end, message->epoch);
    say_outcomes(m, conn, id, n);
    table_keep_free(m);
}

void puts_revoke(store_master *m, uint64_t conn, uint64_t id, const struct wire_put_revoke *message)
{
    struct wire_list list = message->items;
    struct wire_put_end end;
    uint32_t n = 0;

    if (list.count > m->o.batch_max) {
        say_outcome(m, conn, id, MC_E_RANGE, "put_revoke: too many items");
        return;
    }
    while (wire_put_end_next(&list, &end)) {
        const uint32_t i = end_token(m, &end, message->epoch);
        const bool can = i != 0 && m->tokens[i].state != TOKEN_COMMITTED;
        if (can)
            puts_token_revoke(m, i, MC_E_STALE);
        m->say_statuses[n++] = (uint32_t)(can ? MC_OK : MC_E_STALE);
    }
    say_outcomes(m, conn, id, n);
}

static mc_status renew_one(store_master *m, const struct wire_put_end *end, uint64_t epoch,
                           uint64_t lease_ns)
{
    /* By the token alone: who renews may have kept nothing else. */
    const uint32_t i = epoch == m->o.epoch ? puts_token_find(m, &end->token) : 0;

    if (i == 0)
        return MC_E_STALE;
    struct token *t = &m->tokens[i];
    t->lease_ns = puts_token_lease(m, lease_ns);
    if (t->until < m->now + t->lease_ns)
        t->until = m->now + t->lease_ns;
    due_set(&m->due, due_token(m, i), t->until);
    for (uint32_t p = 0; t->state == TOKEN_OPEN && p < t->count; p++)
        if (t->places[p] != 0 && m->space.extents[t->places[p]].window != 0)
            nodes_open_later(m, t->places[p]); /* the same windows, for longer */
    return MC_OK;
}

void puts_renew(store_master *m, uint64_t conn, uint64_t id, const struct wire_put_renew *message)
{
    struct wire_list list = message->items;
    struct wire_put_end end;
    uint32_t n = 0;

    /* As with leases: the answer has no place for a shorter time. */
    if (list.count > m->o.batch_max || message->lease_ns > m->o.lease_max_ns) {
        say_outcome(m, conn, id, MC_E_RANGE, "put_renew: too many items, or for too long");
        return;
    }
    while (wire_put_end_next(&list, &end))
        m->say_statuses[n++] = (uint32_t)renew_one(m, &end, message->epoch, message->lease_ns);
    say_outcomes(m, conn, id, n);
    nodes_open_flush(m);
}

void puts_expired(store_master *m, uint32_t token)
{
    m->total.expired_tokens++;
    if (m->tokens[token].state == TOKEN_COMMITTED)
        puts_token_free(m, token);
    else
        puts_token_revoke(m, token, MC_E_TIMEOUT);
}
