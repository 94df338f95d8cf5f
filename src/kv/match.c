/* match.c - follow a chain of keys through the index. This is the hot path of a decision. */
#include "kv/index_state.h"

enum { WINDOW = 32, LONG_RUN = 8, AHEAD = 16 };

/*
 * Finds the blocks of a chain, one after the other. The one behind, or before, the last one found is tried
 * first. Where that fails often, the next keys are looked up together, so that their cache misses overlap.
 */
struct walk {
    const kv_index *index;
    const struct mc_key *keys; /* those that are still to be found */
    size_t count;
    uint32_t last; /* the block found last */
    uint32_t run;  /* found without looking up, since the last look-up */
    uint32_t window, ready, taken;
    uint32_t found[WINDOW]; /* [ready]: looked up; the first `taken` are used */
};

static bool is_block(const kv_index *index, uint32_t at, const struct mc_key *key)
{
    return at - 1 < index->used - 1 && index->blocks[at].set != KV_SET_NONE &&
           kv_index_is(&index->blocks[at], key);
}

/* Rounds of one step for each: what is needed next was asked for a round ago. */
static void look_up(struct walk *w)
{
    const kv_index *index = w->index;
    uint32_t open[WINDOW], slots[WINDOW], left = 0;

    for (uint32_t i = 0; i < w->ready; i++) {
        slots[i] = kv_index_bucket(index, &w->keys[i]);
        __builtin_prefetch(&index->buckets[slots[i]]);
    }
    for (uint32_t i = 0; i < w->ready; i++) {
        w->found[i] = index->buckets[slots[i]];
        open[left++] = i;
        __builtin_prefetch(&index->blocks[w->found[i]]);
    }
    while (left > 0) {
        const uint32_t before = left;

        left = 0;
        for (uint32_t j = 0; j < before; j++) {
            uint32_t *at = &w->found[open[j]];

            if (*at == NONE || kv_index_is(&index->blocks[*at], &w->keys[open[j]]))
                continue;
            *at = index->blocks[*at].next;
            __builtin_prefetch(&index->blocks[*at]);
            open[left++] = open[j];
        }
    }
}

/* The block of the next key, or NONE. There is a next key. */
static uint32_t next_block(struct walk *w)
{
    if (w->taken == w->ready) {
        const uint32_t guess = is_block(w->index, w->last + 1, w->keys)   ? w->last + 1
                               : is_block(w->index, w->last - 1, w->keys) ? w->last - 1
                                                                          : NONE;
        if (guess != NONE) {
            if (guess + AHEAD < w->index->used)
                __builtin_prefetch(&w->index->blocks[guess + AHEAD]);
            w->run++;
            w->keys++;
            w->count--;
            return w->last = guess;
        }
        w->window = w->run >= LONG_RUN ? 1 : 2 * w->window < WINDOW ? 2 * w->window : WINDOW;
        w->run = w->taken = 0;
        w->ready = w->count < w->window ? (uint32_t)w->count : w->window;
        look_up(w);
    }
    w->keys++;
    w->count--;
    return w->last = w->found[w->taken++];
}

/* ------------------------------------------------------------------------------------------ holders */

/* Blocks `from` .. `to` - 1 of the chain are at the same holders. */
struct stretch {
    uint32_t set, from;
    bool pooled; /* the pool's prefix goes on through it */
};

static void match_undo(struct kv_match *match)
{
    for (uint32_t i = 0; i < match->count; i++)
        match->blocks[match->holders[i]] = match->held[match->holders[i]] = 0;
    match->count = match->pool = 0;
}

/* Who goes on into a stretch? Has it anybody who does? */
static bool begin(const kv_index *index, const uint8_t *pooled, struct stretch *s,
                  struct kv_match *match)
{
    struct kv_members m = kv_members(&index->sets, s->set);
    const bool in_pool = pooled && match->pool == s->from; /* all before it are in the pool */
    bool goes_on = false;
    uint32_t holder;

    s->pooled = false;
    while (kv_members_next(&m, &holder)) {
        const bool is_pooled = in_pool && pooled[holder];

        if (match->blocks[holder] == 0 && match->held[holder] == 0 && (s->from == 0 || is_pooled))
            match->holders[match->count++] = holder;
        if (match->blocks[holder] == s->from) {
            match->blocks[holder] = s->from + 1;
            goes_on = true;
        }
        if (is_pooled) {
            match->held[holder]++;
            s->pooled = goes_on = true;
        }
    }
    if (s->pooled)
        match->pool = s->from + 1;
    return goes_on;
}

/* It ended before block `to`. */
static void end(const kv_index *index, const uint8_t *pooled, const struct stretch *s, uint32_t to,
                struct kv_match *match)
{
    struct kv_members m = kv_members(&index->sets, s->set);
    uint32_t holder;

    if (to == s->from + 1)
        return;
    while (kv_members_next(&m, &holder)) {
        if (match->blocks[holder] == s->from + 1)
            match->blocks[holder] = to;
        if (s->pooled && pooled[holder])
            match->held[holder] += to - s->from - 1;
    }
    if (s->pooled)
        match->pool = to;
}

void kv_index_match(const kv_index *index, const struct mc_key *keys, size_t count,
                    const uint8_t *pooled, struct kv_match *match)
{
    const uint32_t most = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
    struct walk w = { .index = index, .keys = keys, .count = most, .window = 1 };
    struct stretch s = { .set = KV_SET_NONE };
    uint32_t i;

    match_undo(match);
    for (i = 0; i < most; i++) {
        const uint32_t at = next_block(&w);
        const uint32_t set = at == NONE ? KV_SET_NONE : index->blocks[at].set;

        if (set == s.set && set != KV_SET_NONE)
            continue;
        if (s.set != KV_SET_NONE)
            end(index, pooled, &s, i, match);
        s = (struct stretch){ .set = set, .from = i };
        if (set == KV_SET_NONE || !begin(index, pooled, &s, match)) {
            s.set = KV_SET_NONE;
            break;
        }
    }
    if (s.set != KV_SET_NONE)
        end(index, pooled, &s, i, match);
}
