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

/* How many of the next keys are of blocks that lie in order behind the last one found, `step` apart, and at the
 * same holders. This is where long prompts spend their time. */
static uint32_t follow(struct walk *w, uint32_t set, uint32_t step)
{
    const struct block *blocks = w->index->blocks;
    const uint32_t used = w->index->used;
    uint32_t at = w->last, found = 0;

    if (w->taken != w->ready)
        return 0;
    while (found < w->count) {
        const uint32_t next = at + step;

        if (next - 1 >= used - 1 || blocks[next].set != set ||
            !kv_index_is(&blocks[next], &w->keys[found]))
            break;
        at = next;
        found++;
        if (at + AHEAD * step - 1 < used - 1)
            __builtin_prefetch(&blocks[at + AHEAD * step]);
    }
    w->last = at;
    w->keys += found;
    w->count -= found;
    w->run += found;
    return found;
}

/* ------------------------------------------------------------------------------------------ holders */

static void match_undo(struct kv_match *match)
{
    for (uint32_t i = 0; i < match->count; i++)
        match->blocks[match->holders[i]] = match->held[match->holders[i]] = 0;
    match->count = match->pool = 0;
}

/* Does anybody's prefix, or the pool's, go on into blocks of this set from number `from` on? */
static bool goes_on(const kv_index *index, const uint8_t *pooled, uint32_t set, uint32_t from,
                    const struct kv_match *match)
{
    struct kv_members m = kv_members(&index->sets, set);
    const bool in_pool = pooled && match->pool == from; /* all before it are in the pool */
    uint32_t holder;

    while (kv_members_next(&m, &holder))
        if (match->blocks[holder] == from || (in_pool && pooled[holder]))
            return true;
    return false;
}

/* As extend(), of the first blocks where there is no pool: nothing was said of anybody yet. */
static void begin(const kv_index *index, uint32_t set, uint32_t to, struct kv_match *match)
{
    struct kv_members m = kv_members(&index->sets, set);
    uint32_t *holders = match->holders, *blocks = match->blocks, all = 0, count;

    for (const uint32_t *piece; (piece = kv_members_piece(&m, &count)) != NULL;)
        for (uint32_t i = 0; i < count; i++) {
            holders[all++] = piece[i];
            blocks[piece[i]] = to;
        }
    match->count = all;
}

static void extend(const kv_index *index, const uint8_t *pooled, uint32_t set, uint32_t from,
                   uint32_t to, struct kv_match *match)
{
    struct kv_members m = kv_members(&index->sets, set);
    const bool in_pool = pooled && match->pool == from;
    uint32_t holder;

    while (kv_members_next(&m, &holder)) {
        const bool is_pooled = in_pool && pooled[holder];

        if (match->blocks[holder] == 0 && match->held[holder] == 0 && (from == 0 || is_pooled))
            match->holders[match->count++] = holder;
        if (match->blocks[holder] == from)
            match->blocks[holder] = to;
        if (is_pooled) {
            match->held[holder] += to - from;
            match->pool = to;
        }
    }
}

void kv_index_match(const kv_index *index, const struct mc_key *keys, size_t count,
                    const uint8_t *pooled, struct kv_match *match)
{
    const uint32_t most = count < UINT32_MAX ? (uint32_t)count : UINT32_MAX;
    struct walk w = { .index = index, .keys = keys, .count = most, .window = 1 };
    uint32_t i = 0;

    match_undo(match);
    /* Stretch by stretch of blocks that are at the same holders. */
    for (uint32_t at = most > 0 ? next_block(&w) : NONE; at != NONE;) {
        const uint32_t set = index->blocks[at].set, from = i;

        if (!goes_on(index, pooled, set, from, match))
            return;
        do {
            const uint32_t behind = follow(&w, set, 1);

            i += 1 + (behind ? behind : follow(&w, set, (uint32_t)-1));
            at = i < most ? next_block(&w) : NONE;
        } while (at != NONE && index->blocks[at].set == set);
        if (from == 0 && !pooled)
            begin(index, set, i, match);
        else
            extend(index, pooled, set, from, i, match);
    }
}
