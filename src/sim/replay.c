/* replay.c - a set of page hashes, and the walk of a prompt along it. */
#include "sim/replay.h"

#include <stdbool.h>

#include "base/alloc.h"

enum { CAPACITY_FIRST = 1024 };

void replay_init(struct replay *r, uint32_t page_tokens, const struct mc_alloc *alloc)
{
    *r = (struct replay){ .alloc = alloc, .page_tokens = page_tokens };
}

void replay_fini(struct replay *r)
{
    if (r->alloc)
        alloc_free(r->alloc, r->keys);
    *r = (struct replay){ 0 };
}

double replay_ratio(const struct replay *r)
{
    return r->prompt_tokens ? (double)r->reused_tokens / (double)r->prompt_tokens : 0;
}

/* -------------------------------------------------------------------------------------- the set */

/* Where `key` is, or where it would be put. */
static uint64_t find(const uint64_t *keys, uint64_t capacity, uint64_t key)
{
    uint64_t at = key & (capacity - 1);

    while (keys[at] != 0 && keys[at] != key)
        at = (at + 1) & (capacity - 1);
    return at;
}

/* Room for one more: at most half of the set is in use. */
static mc_status make_room(struct replay *r)
{
    if (r->pages < r->capacity / 2)
        return MC_OK;
    const uint64_t capacity = r->capacity ? r->capacity * 2 : CAPACITY_FIRST;
    uint64_t *keys = alloc_zeroed(r->alloc, capacity, sizeof(*keys));
    if (!keys)
        return MC_E_NOMEM;
    for (uint64_t i = 0; i < r->capacity; i++)
        if (r->keys[i] != 0)
            keys[find(keys, capacity, r->keys[i])] = r->keys[i];
    alloc_free(r->alloc, r->keys);
    r->keys = keys;
    r->capacity = capacity;
    return MC_OK;
}

/* ----------------------------------------------------------------------------------- the prompt */

/** Where in a prompt we are, and the hash of all before. */
struct walk {
    const struct scale_run *runs;
    uint32_t run_count, run, offset; /* the next token is `offset` of runs[run] */
    uint64_t key;
};

/* Take one page; false: fewer tokens are left. Its hash is over the pieces of runs that it consists of. */
static bool take_page(struct walk *w, uint32_t page_tokens)
{
    uint32_t left = page_tokens;
    uint64_t key = w->key;

    while (left > 0 && w->run < w->run_count) {
        const struct scale_run *run = &w->runs[w->run];
        const uint32_t rest = run->tokens - w->offset, size = rest < left ? rest : left;
        key = prng_at(prng_at(key, run->id), (uint64_t)w->offset << 32 | size);
        left -= size;
        w->offset += size;
        if (w->offset == run->tokens) {
            w->run++;
            w->offset = 0;
        }
    }
    w->key = key ? key : 1;
    return left == 0;
}

static uint64_t tokens_of(const struct scale_run *runs, uint32_t count)
{
    uint64_t tokens = 0;

    for (uint32_t i = 0; i < count; i++)
        tokens += runs[i].tokens;
    return tokens;
}

mc_status replay_add(struct replay *r, const struct scale_run *runs, uint32_t run_count,
                     uint32_t *reused_p)
{
    const uint64_t tokens = tokens_of(runs, run_count);
    const uint64_t most = tokens ? (tokens - 1) / r->page_tokens : 0;
    struct walk walk = { .runs = runs, .run_count = run_count, .key = 1 };
    uint64_t reused = 0;
    bool there = true;

    while (take_page(&walk, r->page_tokens)) {
        if (make_room(r) != MC_OK)
            return MC_E_NOMEM;
        const uint64_t at = find(r->keys, r->capacity, walk.key);
        there = there && r->keys[at] != 0;
        reused += there && reused < most;
        r->pages += r->keys[at] == 0;
        r->keys[at] = walk.key;
    }
    r->prompt_tokens += tokens;
    r->reused_tokens += reused * r->page_tokens;
    if (reused_p)
        *reused_p = (uint32_t)(reused * r->page_tokens);
    return MC_OK;
}
