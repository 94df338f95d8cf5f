/* blocks.c - the blocks that nodes hold, in DRAM and on SSD, and what the scheduler hears of them. */
#include <assert.h>

#include "sim/world.h"

/* ------------------------------------------------------------------------------------------- life */

static uint32_t capacity_of(const sim *s, uint64_t tokens)
{
    const uint64_t blocks = tokens / s->options.trace->block_tokens;
    const uint64_t most = s->options.trace->block_ids; /* more would stay empty */

    return (uint32_t)(blocks < most ? blocks : most);
}

mc_status blocks_open(sim *s, struct instance *i)
{
    const bool coupled = i->role == MC_ROLE_BOTH;
    const uint32_t dram =
        capacity_of(s, coupled ? i->vram_max : s->options.dram_tokens * i->stages);
    const uint32_t ssd =
        coupled || i->keeps ? 0 : capacity_of(s, s->options.ssd_tokens * i->stages);

    i->has_blocks = i->has_blocks && dram != 0;
    i->keeps = i->keeps && dram != 0;
    if (!i->has_blocks && !i->keeps)
        return MC_OK;
    const mc_status status = tier_init(&i->dram, s->alloc, dram, s->options.eviction);
    if (status != MC_OK || ssd == 0)
        return status;
    return tier_init(&i->ssd, s->alloc, ssd, s->options.eviction);
}

void blocks_close(struct instance *i)
{
    tier_fini(&i->dram);
    tier_fini(&i->ssd);
}

/* ------------------------------------------------------------------------------------------ lookups */

static bool has(const struct instance *i, uint32_t block)
{
    return (i->dram.capacity && tier_has(&i->dram, block)) ||
           (i->ssd.capacity && tier_has(&i->ssd, block));
}

uint32_t blocks_matched_anywhere(const sim *s, uint32_t request)
{
    const uint32_t *blocks = &s->options.trace->blocks[request_of(s, request)->first_block];
    const uint32_t count = request_of(s, request)->block_count;
    uint32_t n = 0;

    while (n < count && s->replicas[blocks[n]] != 0)
        n++;
    return n * s->options.trace->block_tokens < request_of(s, request)->input ? n : n - (n > 0);
}

static const uint32_t *blocks_of(const sim *s, uint32_t request)
{
    return &s->options.trace->blocks[request_of(s, request)->first_block];
}

/* The last token is always computed. */
static uint32_t reusable(const sim *s, uint32_t request)
{
    const struct sim_request *r = request_of(s, request);
    const uint32_t most = (r->input - 1) / s->options.trace->block_tokens;

    return r->block_count < most ? r->block_count : most;
}

uint32_t blocks_matched(const sim *s, const struct instance *i, uint32_t request)
{
    const uint32_t *blocks = blocks_of(s, request), most = reusable(s, request);
    uint32_t n = 0;

    while (i->has_blocks && n < most && s->replicas[blocks[n]] != 0 && has(i, blocks[n]))
        n++;
    return n;
}

/* ----------------------------------------------------------------------------- what the scheduler hears */

static void tell(sim *s, uint32_t instance, uint32_t kind, const struct mc_key *keys,
                 uint32_t count)
{
    if (count == 0)
        return;
    (void)decide_event(s, &(struct mc_sched_event){ .kind = kind,
                                                    .blocks = { .id = (uint64_t)instance + 1,
                                                                .keys = keys,
                                                                .count = count,
                                                                .medium = MC_MEDIUM_DRAM } });
}

static void tell_gone(sim *s, uint32_t instance, uint32_t block)
{
    tell(s, instance, MC_EVENT_EVICTED, &s->keys[block], 1);
}

/* What DRAM has no room for goes to SSD; what is in neither is gone. */
static void pushed_out(sim *s, uint32_t instance, uint32_t block)
{
    struct instance *i = &s->instances[instance];
    uint32_t evicted = block;

    if (block == TIER_NONE)
        return;
    if (i->ssd.capacity)
        (void)tier_add(&i->ssd, block, 0, s->uses, &evicted);
    if (evicted != TIER_NONE && !has(i, evicted)) {
        s->replicas[evicted]--;
        tell_gone(s, instance, evicted);
    }
}

/* Into DRAM, or used there. false: everything there is held. */
static bool take_in(sim *s, uint32_t instance, uint32_t block, uint32_t depth, bool *new_p)
{
    struct instance *i = &s->instances[instance];
    const bool on_ssd = i->ssd.capacity && s->replicas[block] && tier_has(&i->ssd, block);
    uint32_t evicted;

    *new_p = s->replicas[block] == 0 /* nobody has it: no need to look */
                 ? tier_add_absent(&i->dram, block, depth, s->uses, &evicted)
                 : tier_add(&i->dram, block, depth, s->uses, &evicted);
    s->replicas[block] += *new_p && !on_ssd;
    pushed_out(s, instance, evicted);
    return *new_p || tier_has(&i->dram, block);
}

/* --------------------------------------------------------------------------------------------- pins */

/* Hold blocks [from, to) of a request in DRAM, where those that were on SSD come first. Returns how far it
 * came: less than `to` where there is no room. */
static uint32_t hold(sim *s, uint32_t instance, uint32_t request, uint32_t from, uint32_t to)
{
    const uint32_t *blocks = blocks_of(s, request);
    struct instance *i = &s->instances[instance];
    struct life *life = &s->lives[request];
    uint64_t read = 0;
    uint32_t n = from;
    bool is_new;

    s->uses++;
    if (i->ssd.capacity) /* what comes back shall not push out what is there */
        for (uint32_t k = from; k < to; k++)
            (void)tier_touch(&i->dram, blocks[k], k, s->uses);
    for (; n < to && take_in(s, instance, blocks[n], n, &is_new); n++) {
        tier_pin(&i->dram, blocks[n]);
        read += is_new;
    }
    if (read != 0) {
        const double bytes = kv_bytes(s, read * s->options.trace->block_tokens);
        const uint64_t begin = i->ssd_free_ns > s->now_ns ? i->ssd_free_ns : s->now_ns;

        i->ssd_free_ns = begin + (uint64_t)(bytes / s->node.ssd_bytes_per_s * 1e9);
        if (i->ssd_free_ns > life->read_until_ns)
            life->read_until_ns = i->ssd_free_ns;
    }
    return n;
}

void blocks_hold(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];
    const struct sim_record *r = &s->records[request];
    const uint32_t wish = life->own_blocks, pull = life->pull_blocks;

    life->read_until_ns = 0;
    life->own_blocks = hold(s, r->prefill, request, 0, wish);
    life->pull_blocks = life->own_blocks;
    if (r->holder != NOBODY && pull > life->own_blocks) {
        const uint32_t there = blocks_matched(s, &s->instances[r->holder], request);
        const uint32_t most = pull < there ? pull : there;

        if (most > life->own_blocks)
            life->pull_blocks = hold(s, r->holder, request, life->own_blocks, most);
    }
    life->holds_own = life->own_blocks > 0;
    life->holds_pull = life->pull_blocks > life->own_blocks;
}

static void release(sim *s, uint32_t instance, uint32_t request, uint32_t from, uint32_t to)
{
    const uint32_t *blocks = blocks_of(s, request);
    struct instance *i = &s->instances[instance];

    for (uint32_t n = from; i->alive && n < to; n++)
        tier_unpin(&i->dram, blocks[n]);
}

void blocks_release_own(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];

    if (life->holds_own)
        release(s, s->records[request].prefill, request, 0, life->own_blocks);
    life->holds_own = 0;
}

void blocks_release_pull(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];

    if (life->holds_pull)
        release(s, s->records[request].holder, request, life->own_blocks, life->pull_blocks);
    life->holds_pull = 0;
}

/* -------------------------------------------------------------------------------- at the decode node */

void blocks_hold_kept(sim *s, uint32_t request)
{
    struct instance *i = &s->instances[s->records[request].decode];
    const uint32_t *blocks = blocks_of(s, request), most = reusable(s, request);
    struct life *life = &s->lives[request];
    uint32_t n = 0;

    s->uses++;
    for (; i->keeps && n < most && tier_touch(&i->dram, blocks[n], n, s->uses); n++)
        tier_pin(&i->dram, blocks[n]);
    life->kept_blocks = n;
    life->holds_kept = n > 0;
}

void blocks_release_kept(sim *s, uint32_t request)
{
    struct life *life = &s->lives[request];

    if (life->holds_kept)
        release(s, s->records[request].decode, request, 0, life->kept_blocks);
    life->holds_kept = 0;
}

void blocks_keep(sim *s, uint32_t request)
{
    struct instance *i = &s->instances[s->records[request].decode];
    const uint32_t *blocks = blocks_of(s, request), count = request_of(s, request)->block_count;
    uint32_t evicted;

    s->uses++;
    for (uint32_t n = 0; i->keeps && n < count; n++)
        if (!tier_add(&i->dram, blocks[n], n, s->uses, &evicted) && !tier_has(&i->dram, blocks[n]))
            break;
}

/* ------------------------------------------------------------------------------------------- storing */

void blocks_store(sim *s, uint32_t instance, uint32_t request, uint32_t count)
{
    const struct sim_request *r = request_of(s, request);
    const uint32_t *blocks = blocks_of(s, request);
    uint32_t told = 0;
    bool is_new;

    if (!s->instances[instance].has_blocks || !s->instances[instance].alive)
        return;
    s->uses++;
    for (uint32_t n = 0; n < count && n < r->block_count; n++) {
        if (!take_in(s, instance, blocks[n], n, &is_new))
            break; /* all that is there is held: a chain without its beginning is worth nothing */
        if (is_new)
            s->scratch[told++] = s->keys[blocks[n]];
    }
    tell(s, instance, MC_EVENT_STORED, s->scratch, told);
}

void blocks_limit(sim *s, uint32_t instance, uint64_t tokens)
{
    struct instance *i = &s->instances[instance];
    const uint64_t blocks = tokens / s->options.trace->block_tokens;
    uint32_t gone;

    if (!i->has_blocks)
        return;
    tier_limit(&i->dram, blocks < UINT32_MAX ? (uint32_t)blocks : UINT32_MAX);
    while ((gone = tier_shrink(&i->dram)) != TIER_NONE) {
        s->replicas[gone]--;
        tell_gone(s, instance, gone);
    }
}

void blocks_lose(sim *s, uint32_t instance)
{
    struct instance *i = &s->instances[instance];
    struct tier *tiers[] = { &i->dram, &i->ssd };
    uint32_t block;

    for (int t = 0; t < 2; t++)
        while (tiers[t]->capacity && (block = tier_any(tiers[t])) != TIER_NONE) {
            (void)tier_remove(tiers[t], block);
            s->replicas[block] -= i->has_blocks && !has(i, block);
        }
}
