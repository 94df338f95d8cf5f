/* world_ops.c - what clients do, and what must be true of the outcome. */
#include <string.h>

#include "base/prng.h"
#include "world.h"

struct mc_identity ops_identity(uint32_t key)
{
    struct mc_identity identity;

    for (uint32_t i = 0; i < 4; i++) {
        const uint64_t part = prng_at(key + 1, i);
        memcpy(identity.bytes + 8 * i, &part, 8);
    }
    return identity;
}

static struct mc_key key_of(uint32_t key)
{
    const struct mc_identity identity = ops_identity(key);
    struct mc_key k;

    memcpy(&k, &identity, sizeof(k));
    return k;
}

uint32_t ops_key_of(const struct mc_key *key)
{
    uint64_t theirs;

    memcpy(&theirs, key, sizeof(theirs));
    for (uint32_t i = 0; i < KEYS; i++)
        if (prng_at(i + 1, 0) == theirs)
            return i;
    return KEYS;
}

void ops_content(const struct world *w, uint32_t key, uint8_t *bytes)
{
    for (uint32_t i = 0; i < w->lengths[key]; i += 8) {
        const uint64_t part = prng_at(w->seed ^ 77, key * 1000 + i);
        const uint32_t left = w->lengths[key] - i;
        memcpy(bytes + i, &part, left < 8 ? left : 8);
    }
}

/* -------------------------------------------------------------------------------------- leases */

static void lease_keep(struct world *w, struct sim_client *client, uint32_t key,
                       const struct mc_lookup *lookup)
{
    for (struct sim_lease *l = w->leases; l < w->leases + LEASES_MAX; l++) {
        if (l->used && w->now < l->lease.until_ns)
            continue;
        *l = (struct sim_lease){
            .used = true,
            .key = key,
            .client = client->actor.index,
            .life = client->actor.life,
            .master_life = w->master.life,
            .lease = lookup->lease,
            .replica_count = lookup->replica_count < 2 ? lookup->replica_count : 2,
        };
        for (uint32_t i = 0; i < l->replica_count; i++) {
            l->replicas[i].node = lookup->replicas[i].node;
            l->replicas[i].generation = lookup->replicas[i].generation;
            /* While the answer was under way it may have been removed by force. */
            l->removed = l->removed || !check_holds(w, lookup->replicas[i].generation);
        }
        return;
    }
}

static void leases_release(struct world *w, struct sim_client *client)
{
    for (struct sim_lease *l = w->leases; l < w->leases + LEASES_MAX; l++) {
        if (!l->used || l->client != client->actor.index || world_chance(w, 500))
            continue;
        const struct mc_lease lease = l->lease;
        store_client_release(client->core, &lease, 1, client_out(w, client));
        for (struct sim_lease *same = w->leases; same < w->leases + LEASES_MAX; same++)
            if (same->used && same->lease.id == lease.id && same->lease.epoch == lease.epoch)
                same->used = false;
        return;
    }
}

static void leases_renewed(struct world *w, const struct mc_lease *lease)
{
    for (struct sim_lease *l = w->leases; l < w->leases + LEASES_MAX; l++)
        if (l->used && l->lease.id == lease->id && l->lease.epoch == lease->epoch) {
            if (lease->until_ns == 0)
                l->used = false;
            else if (l->lease.until_ns < lease->until_ns && w->now < l->lease.until_ns)
                l->lease.until_ns = lease->until_ns;
        }
}

/* -------------------------------------------------------------------------------------- begin */

static struct op *op_spare(struct sim_client *client)
{
    for (struct op *op = client->ops; op < client->ops + OPS_MAX; op++)
        if (op->kind == OP_NONE)
            return op;
    return NULL;
}

static void set_ranges(const struct world *w, struct op *op, uint32_t i, uint64_t size)
{
    const uint64_t first = size / 3;

    (void)w;
    op->ranges[i][0] = (struct mc_range){ op->bytes[i], first };
    op->ranges[i][1] = (struct mc_range){ op->bytes[i] + first, size - first };
}

static void put_set(struct world *w, struct op *op, uint32_t i)
{
    ops_content(w, op->keys[i], op->bytes[i]);
    set_ranges(w, op, i, w->lengths[op->keys[i]]);
    op->puts[i] = (struct mc_put){ .identity = ops_identity(op->keys[i]),
                                   .ranges = op->ranges[i],
                                   .count = 2 };
}

static void get_set(struct world *w, struct op *op, uint32_t i)
{
    const bool small = world_chance(w, 20);

    memset(op->bytes[i], 0xee, sizeof(op->bytes[i]));
    set_ranges(w, op, i, small ? 5 : sizeof(op->bytes[i]));
    op->gets[i] = (struct mc_get){ .identity = ops_identity(op->keys[i]),
                                   .ranges = op->ranges[i],
                                   .count = 2 };
}

static void item_set(struct world *w, struct op *op, uint32_t i)
{
    switch (op->kind) {
    case OP_PUT:
        put_set(w, op, i);
        break;
    case OP_GET:
        get_set(w, op, i);
        break;
    case OP_EXIST:
        op->exists[i] = (struct mc_exist){ .key = key_of(op->keys[i]) };
        break;
    case OP_REMOVE:
        op->removes[i] =
            (struct mc_remove){ .key = key_of(op->keys[i]), .force = world_below(w, 2) };
        break;
    case OP_LOOKUP:
        op->lookups[i] = (struct mc_lookup){ .key = key_of(op->keys[i]),
                                             .replicas = op->replicas[i],
                                             .replicas_max = 2 };
        break;
    case OP_ALLOT:
        op->allots[i] = (struct mc_allot){ .identity = ops_identity(op->keys[i]),
                                           .length = w->lengths[op->keys[i]],
                                           .replicas = op->replicas[i],
                                           .replicas_max = 2 };
        break;
    case OP_RENEW:
    case OP_END:
    case OP_NONE:
        break;
    }
}

static const struct sim_lease *lease_of(const struct world *w, const struct sim_client *client)
{
    for (const struct sim_lease *l = w->leases; l < w->leases + LEASES_MAX; l++)
        if (l->used && l->client == client->actor.index && l->life == client->actor.life)
            return l;
    return NULL;
}

static void start(struct world *w, struct sim_client *client, struct op *op,
                  const struct store_call *call)
{
    struct store_call c = *call;

    c.items = op->puts;
    c.count = op->count;
    c.deadline_ns = world_chance(w, 150) ? w->now + world_below(w, 300) * MS : 0;
    op->begun_ns = w->now;
    op->finished = false;
    if (store_client_begin(client->core, &c, op, w->now, client_out(w, client), &op->request) !=
        MC_OK)
        op->kind = OP_NONE;
}

void ops_begin_one(struct world *w, struct sim_client *client)
{
    static const enum op_kind kinds[] = { OP_PUT,    OP_PUT,    OP_PUT,   OP_PUT,   OP_GET,
                                          OP_GET,    OP_GET,    OP_GET,   OP_EXIST, OP_REMOVE,
                                          OP_LOOKUP, OP_LOOKUP, OP_RENEW, OP_ALLOT };
    static const enum store_op ops[] = {
        [OP_PUT] = STORE_PUT,           [OP_GET] = STORE_GET,       [OP_EXIST] = STORE_EXIST,
        [OP_REMOVE] = STORE_REMOVE,     [OP_LOOKUP] = STORE_LOOKUP, [OP_ALLOT] = STORE_ALLOT,
        [OP_RENEW] = STORE_LEASE_RENEW,
    };
    struct op *op = op_spare(client);

    if (world_chance(w, 100))
        leases_release(w, client);
    if (!op)
        return;
    op->kind = kinds[world_below(w, sizeof(kinds) / sizeof(*kinds))];
    op->count = 1 + world_below(w, 4);
    for (uint32_t i = 0; i < op->count; i++) {
        op->keys[i] = (world_below(w, KEYS) + i) % KEYS;
        item_set(w, op, i);
    }
    const struct sim_lease *lease = op->kind == OP_RENEW ? lease_of(w, client) : NULL;
    if (op->kind == OP_RENEW && !lease) {
        op->kind = OP_NONE;
        return;
    }
    if (lease) {
        op->count = 1;
        op->leases[0] = lease->lease;
    }
    const struct store_call call = {
        .op = ops[op->kind],
        .placement = { .replicas = 1 + world_below(w, 2),
                       .pin_ns = world_chance(w, 50) ? 100 * MS : 0,
                       .flags = world_chance(w, 250) ? MC_PLACE_ANOTHER : 0u },
        .lease_ns = (100 + world_below(w, 400)) * MS,
    };
    world_trace(w, "%s begins op %d of %u from key %u", actor_name(&client->actor), op->kind,
                op->count, op->keys[0]);
    start(w, client, op, &call);
    if (op->kind != OP_NONE && world_chance(w, 30))
        store_client_cancel(client->core, op->request, w->now, client_out(w, client));
}

/* ------------------------------------------------------------------------------------- outcome */

static void got(struct world *w, struct op *op, uint32_t i)
{
    uint8_t right[LENGTH_MAX + 8];
    const struct mc_get *get = &op->gets[i];

    w->counts.gets_missed += get->status == MC_E_NOT_FOUND;
    w->counts.gets_failed += get->status != MC_OK && get->status != MC_E_NOT_FOUND;
    if (get->status != MC_OK)
        return;
    w->counts.gets_ok++;
    ops_content(w, op->keys[i], right);
    if (get->length != w->lengths[op->keys[i]] ||
        memcmp(right, op->bytes[i], w->lengths[op->keys[i]]) != 0)
        world_fail(w, "a get of key %u says MC_OK and has other bytes", op->keys[i]);
}

/** What a worker does with places of its own: here it writes nothing, so that what it commits is not whole. */
static void allotted(struct world *w, struct sim_client *client, struct op *op)
{
    struct mc_commit commits[BATCH];
    uint32_t n = 0;

    for (uint32_t i = 0; i < op->count; i++)
        if (op->allots[i].status == MC_OK)
            commits[n++] =
                (struct mc_commit){ .key = key_of(op->keys[i]), .token = op->allots[i].token };
    if (n == 0 || world_chance(w, 300)) {
        op->kind = OP_NONE; /* forgotten: the tokens expire */
        return;
    }
    op->forged = world_chance(w, 300);
    if (op->forged) /* the token of another put */
        commits[0].key = key_of((ops_key_of(&commits[0].key) + 1) % KEYS);
    op->commits = world_chance(w, 300);
    op->kind = OP_END;
    op->count = n;
    memcpy(op->commits_of, commits, n * sizeof(*commits));
    start(w, client, op, &(struct store_call){ .op = op->commits ? STORE_COMMIT : STORE_REVOKE });
}

static void forged(struct world *w, const struct op *op)
{
    if (op->forged && op->commits_of[0].status == MC_OK)
        world_fail(w, "a put was ended with another one's token");
}

static void looked_up(struct world *w, struct sim_client *client, struct op *op)
{
    for (uint32_t i = 0; i < op->count; i++)
        if (op->lookups[i].status == MC_OK && w->now < op->lookups[i].lease.until_ns &&
            op->lookups[i].lease.epoch == w->master_epoch)
            lease_keep(w, client, op->keys[i], &op->lookups[i]);
}

static void outcome(struct world *w, struct sim_client *client, struct op *op)
{
    const mc_status status = store_request_status(op->request);
    const enum op_kind kind = op->kind;

    world_trace(w, "%s: op %d from key %u ends with %s", actor_name(&client->actor), kind,
                op->keys[0], mc_status_name(status));
    store_client_free(client->core, op->request);
    for (uint32_t i = 0; i < op->count; i++) {
        if (kind == OP_GET)
            got(w, op, i);
        if (kind == OP_PUT && op->puts[i].status == MC_OK)
            w->counts.puts_ok++;
        if (kind == OP_GET && op->gets[i].status == MC_PENDING)
            world_fail(w, "a final get has an item that is pending");
    }
    op->request = NULL;
    op->finished = false;
    if (kind == OP_LOOKUP && status == MC_OK)
        looked_up(w, client, op);
    if (kind == OP_RENEW && status == MC_OK)
        leases_renewed(w, &op->leases[0]);
    if (kind == OP_END)
        forged(w, op);
    if (kind == OP_ALLOT)
        allotted(w, client, op);
    else
        op->kind = OP_NONE;
}

void ops_look(struct world *w, struct sim_client *client)
{
    for (struct op *op = client->ops; op < client->ops + OPS_MAX; op++)
        if (op->kind != OP_NONE && op->finished)
            outcome(w, client, op);
}

void ops_drop(struct world *w, struct sim_client *client)
{
    (void)w;
    memset(client->ops, 0, sizeof(client->ops)); /* the memory goes with the actor's */
}

bool ops_idle(const struct world *w)
{
    for (uint32_t c = 0; c < w->client_count; c++)
        for (uint32_t i = 0; i < OPS_MAX; i++)
            if (w->clients[c].ops[i].kind != OP_NONE)
                return false;
    return true;
}
