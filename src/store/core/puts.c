/* puts.c - a put begins: token, places, windows, and the question that waits for them. */
#include <assert.h>
#include <string.h>

#include "store/core/master_state.h"

uint64_t puts_token_lease(const store_master *m, uint64_t wanted)
{
    if (wanted == 0)
        return m->o.token_ns;
    return wanted < m->o.lease_max_ns ? wanted : m->o.lease_max_ns;
}

/* ------------------------------------------------------------------------------------ tokens */

static uint32_t token_bucket(const store_master *m, const struct mc_key *id)
{
    uint32_t hash;

    memcpy(&hash, id->bytes, sizeof(hash)); /* random by contract */
    return hash & m->token_mask;
}

uint32_t puts_token_find(const store_master *m, const struct mc_key *id)
{
    uint32_t i = m->token_buckets[token_bucket(m, id)];

    while (i != 0 && memcmp(m->tokens[i].id, id, sizeof(*id)) != 0)
        i = m->tokens[i].chain;
    return i;
}

static uint32_t token_add(store_master *m, const struct mc_key *id)
{
    const uint32_t i = m->token_spare;

    if (i == 0)
        return 0;
    struct token *t = &m->tokens[i];
    uint32_t *bucket = &m->token_buckets[token_bucket(m, id)];
    m->token_spare = t->chain;
    *t = (struct token){ .chain = *bucket, .state = TOKEN_WAITING };
    memcpy(t->id, id, sizeof(*id));
    *bucket = i;
    m->token_count++;
    return i;
}

static void token_untie(store_master *m, uint32_t i, mc_status status);

void puts_token_free(store_master *m, uint32_t i)
{
    struct token *t = &m->tokens[i];
    struct mc_key id;

    token_untie(m, i, MC_E_STALE);
    memcpy(&id, t->id, sizeof(id));
    uint32_t *p = &m->token_buckets[token_bucket(m, &id)];
    while (*p != i)
        p = &m->tokens[*p].chain;
    *p = t->chain;
    due_stop(&m->due, due_token(m, i));
    *t = (struct token){ .chain = m->token_spare };
    m->token_spare = i;
    m->token_count--;
}

/* ----------------------------------------------------------------------------------- requests */

static void request_free(store_master *m, uint32_t r)
{
    struct request *request = &m->requests[r];

    for (uint32_t i = request->first; i != 0;) {
        const uint32_t next = m->items[i].next;
        if (m->items[i].token != 0 && m->tokens[m->items[i].token].request == r)
            m->tokens[m->items[i].token].request = m->tokens[m->items[i].token].item = 0;
        m->items[i] = (struct item){ .next = m->item_spare };
        m->item_spare = i;
        i = next;
    }
    *request = (struct request){ .chain = m->request_spare };
    m->request_spare = r;
    m->request_count--;
}

static uint32_t say_places(store_master *m, const struct token *t, struct wire_replica *replicas)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        if (t->places[i] == 0)
            continue;
        say_replica(m, t->places[i], &replicas[count++]);
        say_node(m, m->space.extents[t->places[i]].node);
    }
    return count;
}

/** Every item has its outcome: answer. */
static void request_finish(store_master *m, uint32_t r)
{
    const struct request request = m->requests[r];
    struct wire_put_place *places = m->say_items;
    struct wire_replica *replicas = m->say_replicas;
    uint32_t n = 0;

    say_nodes_begin(m);
    for (uint32_t i = request.first; i != 0; i = m->items[i].next, n++) {
        const struct item *item = &m->items[i];
        places[n] = (struct wire_put_place){ .status = item->status };
        if (item->status != MC_OK)
            continue;
        const uint32_t count = say_places(m, &m->tokens[item->token], replicas);
        if (count == 0) { /* committed, or lost, while others were awaited */
            places[n].status = MC_E_STALE;
            continue;
        }
        places[n].replicas = (struct wire_list){ .items = replicas, .count = count };
        replicas += count;
    }
    const struct wire_put_begun begun = {
        .places = { .items = places, .count = n },
        .lease_ns = request.lease_ns,
        .epoch = m->o.epoch,
        .nodes = { .items = m->say_nodes, .count = m->say_node_count },
    };
    /* An answer that cannot be sent is asked for again, or its tokens expire. */
    (void)m->out->answer(m->out->user, request.conn, request.id, WIRE_PUT_BEGUN, &begun);
    request_free(m, r);
}

static void item_done(store_master *m, uint32_t r, uint32_t item, mc_status status)
{
    assert(m->items[item].status == MC_PENDING);
    m->items[item].status = status;
    if (status != MC_OK)
        m->items[item].token = 0;
    if (--m->requests[r].waiting == 0)
        request_finish(m, r);
}

/** Its windows are there: tell the put_begin that waits for them, if one does. Until that has its answer, which
 * may wait for others', the token is tied to it. */
static void token_opened(store_master *m, uint32_t i)
{
    const struct token *t = &m->tokens[i];

    if (t->request != 0)
        item_done(m, t->request, t->item, MC_OK);
}

/** Whatever put_begin has not been answered yet hears this instead of the token's places. */
static void token_untie(store_master *m, uint32_t i, mc_status status)
{
    struct token *t = &m->tokens[i];
    const uint32_t r = t->request, item = t->item;

    t->request = t->item = 0;
    if (r == 0)
        return;
    if (m->items[item].status == MC_PENDING) {
        item_done(m, r, item, status);
        return;
    }
    m->items[item].status = status;
    m->items[item].token = 0;
}

/* ------------------------------------------------------------------------------------- places */

void puts_window_free(store_master *m, uint32_t extent)
{
    struct extent *e = &m->space.extents[extent];

    if (e->window == 0)
        return;
    m->windows[e->window] = (struct wire_window){ .region = m->window_spare };
    m->window_spare = e->window;
    e->window = 0;
}

void puts_place_drop(store_master *m, uint32_t extent)
{
    m->writing -= m->space.extents[extent].size;
    puts_window_free(m, extent);
    nodes_dying(m, extent, 0);
}

void puts_token_revoke(store_master *m, uint32_t i, mc_status status)
{
    struct token *t = &m->tokens[i];

    assert(t->state == TOKEN_WAITING || t->state == TOKEN_OPEN);
    for (uint32_t p = 0; p < t->count; p++)
        if (t->places[p] != 0)
            puts_place_drop(m, t->places[p]);
    table_free(m, t->object);
    token_untie(m, i, status);
    puts_token_free(m, i);
}

/** All windows that will come are there. */
static void token_settle(store_master *m, uint32_t i)
{
    struct token *t = &m->tokens[i];
    uint32_t left = 0;

    if (t->waiting > 0 || t->state != TOKEN_WAITING)
        return;
    for (uint32_t p = 0; p < t->count; p++)
        if (t->places[p] != 0)
            t->places[left++] = t->places[p]; /* from now on place i is replica i of the answer */
    t->count = (uint8_t)left;
    if (left == 0) {
        puts_token_revoke(m, i, MC_E_PEER);
        return;
    }
    t->state = TOKEN_OPEN;
    token_opened(m, i);
}

void puts_window(store_master *m, uint32_t extent, const struct wire_window *window)
{
    struct extent *e = &m->space.extents[extent];
    const uint32_t i = m->objects[e->object].token;
    struct token *t = &m->tokens[i];
    const bool waited = e->window == 0;

    assert(e->state == EXTENT_WRITING);
    if (window && waited) {
        e->window = m->window_spare; /* there are as many as places of tokens */
        m->window_spare = m->windows[e->window].region;
    }
    if (window) {
        m->windows[e->window] = *window;
    } else {
        for (uint32_t p = 0; p < t->count; p++)
            if (t->places[p] == extent)
                t->places[p] = 0;
        m->writing -= e->size;
        puts_window_free(m, extent);
    }
    if (waited)
        t->waiting--;
    token_settle(m, i);
}

/** May a further copy of it be written? */
static bool may_copy(store_master *m, uint32_t there, const struct wire_put_item *item,
                     const struct wire_put_begin *ask)
{
    const struct object *o = &m->objects[there];
    const struct node *node = ask->node ? nodes_find(m, ask->node) : NULL;

    return ask->another && o->state == OBJECT_COMMITTED && o->length == item->length &&
           table_replicas(m, there) < MC_REPLICAS_MAX &&
           !(node && table_has_replica(m, there, (uint32_t)(node - m->nodes)));
}

/** Allot places on distinct nodes, none of which holds `there` (0: no object). MC_PENDING or why not. */
static mc_status allot(store_master *m, uint32_t i, const struct wire_put_item *item,
                       const struct wire_put_begin *ask, uint32_t there)
{
    struct token *t = &m->tokens[i];
    const uint32_t wanted = ask->replicas ? ask->replicas : 1;
    const uint32_t most = MC_REPLICAS_MAX - (there ? table_replicas(m, there) : 0);
    const uint32_t replicas = wanted < most ? wanted : most;
    const uint64_t size = mc_object_bytes(item->length);

    m->mark++;
    for (uint32_t e = there ? m->objects[there].places : 0; e != 0; e = m->space.extents[e].other)
        m->nodes[m->space.extents[e].node].mark = m->mark;
    while (t->count < replicas) {
        const uint32_t extent = nodes_place(m, size, ask->node, &ask->host, ask->medium);
        if (extent == 0)
            break;
        struct extent *e = &m->space.extents[extent];
        e->state = EXTENT_WRITING;
        e->object = t->object;
        e->generation = ++m->generation;
        m->writing += e->size;
        m->nodes[e->node].mark = m->mark;
        t->places[t->count++] = extent;
    }
    if (t->count == 0)
        return MC_E_FULL;
    /* Fewer copies than asked for, where there are fewer nodes with room, are better than none. */
    t->waiting = t->count;
    for (uint32_t p = 0; p < t->count; p++)
        nodes_open_later(m, t->places[p]);
    return MC_PENDING;
}

/** A put that was not asked for before. *token_p is set with MC_PENDING. */
static mc_status put_new(store_master *m, const struct wire_put_item *item,
                         const struct wire_put_begin *ask, uint32_t *token_p)
{
    struct mc_key key;

    memcpy(&key, &item->identity, sizeof(key));
    const uint32_t there = table_find(m, &key);
    if (there != 0 && !may_copy(m, there, item, ask))
        return m->objects[there].state == OBJECT_COMMITTED ? MC_E_EXISTS : MC_E_BUSY;
    if (item->length > MC_OBJECT_LENGTH_MAX)
        return MC_E_FULL;
    const uint32_t i = token_add(m, &item->token);
    if (i == 0)
        return MC_E_FULL;
    struct token *t = &m->tokens[i];
    t->key = key;
    t->object = table_add(m, &key, item->length, there ? OBJECT_COPY : OBJECT_WRITING);
    if (t->object == 0) {
        table_evict(m, 0, 1); /* the records are full: make one free for who asks again */
        puts_token_free(m, i);
        return MC_E_FULL;
    }
    m->objects[t->object].token = i;
    if (there != 0) { /* of this life of it: removed and put anew, its bytes may be others */
        m->objects[t->object].older = there;
        m->objects[t->object].newer = m->objects[there].serial;
    }
    m->objects[t->object].pin_until =
        ask->pin_ns > UINT64_MAX - m->now ? UINT64_MAX : m->now + ask->pin_ns;
    const mc_status status = allot(m, i, item, ask, there);
    if (status != MC_PENDING) {
        table_free(m, t->object);
        puts_token_free(m, i);
        if (there != 0)
            return MC_E_EXISTS; /* a further copy is not worth others' only one */
        table_evict(m, mc_object_bytes(item->length), 1); /* for who asks again soon */
        return status;
    }
    t->lease_ns = puts_token_lease(m, ask->lease_ns);
    t->until = m->now + t->lease_ns;
    due_set(&m->due, due_token(m, i), t->until);
    *token_p = i;
    return MC_PENDING;
}

/** MC_PENDING or MC_OK with *token_p; else why not. */
static mc_status put_one(store_master *m, const struct wire_put_item *item,
                         const struct wire_put_begin *ask, uint32_t *token_p)
{
    const uint32_t i = puts_token_find(m, &item->token);

    if (i == 0)
        return put_new(m, item, ask, token_p);
    if (memcmp(&m->tokens[i].key, &item->identity, sizeof(struct mc_key)) != 0)
        return MC_E_DENIED; /* a token names one put */
    if (m->tokens[i].state == TOKEN_COMMITTED)
        return MC_E_EXISTS;
    *token_p = i;
    return m->tokens[i].state == TOKEN_OPEN ? MC_OK : MC_PENDING;
}

static uint32_t request_add(store_master *m, uint64_t conn, uint64_t id,
                            const struct wire_put_begin *ask)
{
    const uint32_t r = m->request_spare;

    if (r == 0)
        return 0;
    m->request_spare = m->requests[r].chain;
    m->requests[r] = (struct request){
        .conn = conn,
        .id = id,
        .lease_ns = puts_token_lease(m, ask->lease_ns),
        .waiting = 1, /* until all items were looked at */
    };
    m->request_count++;
    return r;
}

static bool item_add(store_master *m, uint32_t r, mc_status status, uint32_t token)
{
    const uint32_t i = m->item_spare;
    struct request *request = &m->requests[r];

    if (i == 0)
        return false;
    m->item_spare = m->items[i].next;
    m->items[i] = (struct item){ .token = token, .status = status };
    *(request->last ? &m->items[request->last].next : &request->first) = i;
    request->last = i;
    request->count++;
    if (token == 0)
        return true;
    /* Asked again while the first question waits: that one's connection is gone. */
    token_untie(m, token, MC_E_BUSY);
    m->tokens[token].request = r;
    m->tokens[token].item = i;
    request->waiting += status == MC_PENDING;
    return true;
}

void puts_begin(store_master *m, uint64_t conn, uint64_t id, const struct wire_put_begin *message)
{
    struct wire_list list = message->items;
    struct wire_put_item item;

    if (list.count > m->o.batch_max || message->replicas > MC_REPLICAS_MAX) {
        say_outcome(m, conn, id, MC_E_RANGE, "put_begin: more items or replicas than allowed");
        return;
    }
    const uint32_t r = request_add(m, conn, id, message);
    if (r == 0) {
        say_outcome(m, conn, id, MC_E_FULL, "put_begin: too many wait for windows");
        return;
    }
    while (wire_put_item_next(&list, &item)) {
        uint32_t token = 0;
        mc_status status = put_one(m, &item, message, &token);
        if (!item_add(m, r, status, token)) {
            request_free(m, r); /* what was begun expires, or is asked for again */
            nodes_open_flush(m);
            say_outcome(m, conn, id, MC_E_FULL, "put_begin: too many items wait for windows");
            return;
        }
    }
    nodes_open_flush(m);
    if (--m->requests[r].waiting == 0)
        request_finish(m, r);
    table_keep_free(m);
}

void puts_down(store_master *m, uint64_t conn)
{
    for (uint32_t r = 1; m->request_count > 0 && r <= m->o.requests_max; r++)
        if (m->requests[r].conn == conn)
            request_free(m, r);
}
