/* replicate.c - what prefixes cost for want of copies, and when one more is worth its way. */
#include "sched/replicate.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "base/prng.h"
#include "sched/place.h"
#include "sched/policy.h"

static const uint64_t QUIET_NS = 5000000000;

/* ------------------------------------------------------------------------------------------ life */

mc_status replicate_init(struct replicate *r, const char *text, const struct mc_alloc *alloc,
                         struct mc_error *error)
{
    const struct policy_parameter known[] = {
        { "rate", 0.001, 1000, &r->rate },
        { "gain", 0.1, 1e6, &r->gain },
        { "asked", 1, 1e6, &r->asked },
        { "window", 1, 86400, &r->window_s },
    };

    *r = (struct replicate){ .alloc = alloc, .rate = 1, .gain = 4, .asked = 8, .window_s = 60 };
    if (!text || strcmp(text, "off") == 0)
        return MC_OK;
    if (strcmp(text, "on") == 0)
        text = "";
    const mc_status status = policy_read(text, known, sizeof(known) / sizeof(known[0]), error);
    if (status != MC_OK)
        return error_prefix(error, status, "scheduler: replication");
    r->table = alloc_zeroed(alloc, (size_t)HOT_SETS * HOT_WAYS, sizeof(*r->table));
    r->keys = alloc_zeroed(alloc, COPY_BLOCKS_MAX, sizeof(*r->keys));
    return r->table && r->keys
               ? MC_OK
               : error_set(error, MC_E_NOMEM, "scheduler: out of memory for hot prefixes");
}

void replicate_fini(struct replicate *r)
{
    if (!r->alloc)
        return;
    alloc_free(r->alloc, r->keys);
    alloc_free(r->alloc, r->table);
    r->keys = NULL;
    r->table = NULL;
}

/* ------------------------------------------------------------------------------------------ heat */

static void fade(const struct replicate *r, struct hot_prefix *hot, uint64_t now_ns)
{
    const double by = exp(-(double)(now_ns - hot->last_ns) / 1e9 / r->window_s);

    hot->lost_s *= by;
    hot->asked *= by;
    hot->last_ns = now_ns;
}

/* Its entry; a new one in the place of the one in its set that has cost the least. */
static struct hot_prefix *entry(struct replicate *r, const struct mc_key *key, uint64_t now_ns)
{
    uint64_t hash;

    memcpy(&hash, key->bytes, sizeof(hash));
    hash = prng_mix(hash) % HOT_SETS;
    struct hot_prefix *set = &r->table[hash * HOT_WAYS], *coldest = set;

    for (int i = 0; i < HOT_WAYS; i++) {
        if (set[i].last_ns != 0)
            fade(r, &set[i], now_ns);
        if (set[i].last_ns != 0 && memcmp(&set[i].key, key, sizeof(*key)) == 0)
            return &set[i];
        if (set[i].lost_s < coldest->lost_s ||
            (set[i].lost_s <= coldest->lost_s && set[i].asked < coldest->asked))
            coldest = &set[i];
    }
    *coldest = (struct hot_prefix){ .key = *key, .last_ns = now_ns ? now_ns : 1 };
    return coldest;
}

/* 1, 2, 3, 4, 6, 8, 12, ... */
static uint32_t deeper(uint32_t depth)
{
    if (depth == 1)
        return 2;
    return (depth & (depth - 1)) == 0 ? depth + depth / 2 : depth / 3 * 4;
}

/* What this placement has lost because the first `tokens` were not there. */
static double lost_s(const struct place *place, uint64_t row, const struct mc_decision *d,
                     uint64_t tokens)
{
    const struct mc_view *view = &place->view;
    const uint64_t own = view->instances[row].matched_tokens, reused = d->reuse_tokens;
    const uint64_t end = tokens < reused ? tokens : reused;
    double ns = 0;

    if (own >= tokens)
        return 0;
    if (end > own) /* pulled */
        ns += (double)d->predicted.transfer_ns * (double)(end - own) / (double)(reused - own);
    if (tokens > reused) { /* computed again */
        const uint64_t with = view->prefill_ns(view, row, place->request->tokens, tokens);
        ns += d->predicted.prefill_ns > with ? (double)(d->predicted.prefill_ns - with) : 0;
    }
    return ns / 1e9;
}

/* ---------------------------------------------------------------------------------------- choose */

struct copy {
    uint64_t from, to; /* rows; to UINT64_MAX: none */
    double seconds;    /* it takes from now */
    uint64_t ns;       /* of these, its own */
    uint64_t copies;   /* there are */
};

/* The shortest queue of those that lack it. */
static bool instance_is_better(const struct mc_view *view, uint64_t a, uint64_t b)
{
    return b == UINT64_MAX || view->instances[a].queue_ns < view->instances[b].queue_ns;
}

/* The least busy; of equals the next in turn. */
static bool node_is_better(const struct mc_view *view, uint64_t a, uint64_t b, uint64_t last)
{
    if (b == UINT64_MAX)
        return true;
    const struct mc_view_instance *x = &view->instances[a], *y = &view->instances[b];
    if (x->receive_busy_ns != y->receive_busy_ns)
        return x->receive_busy_ns < y->receive_busy_ns;
    return x->id > last && y->id <= last;
}

static struct copy choose(const struct place *place, uint64_t row, bool in_pool, uint64_t tokens)
{
    const struct mc_view *view = &place->view;
    struct copy copy = { UINT64_MAX, UINT64_MAX, 0, 0, 0 };

    for (uint64_t i = 0; i < view->count; i++) {
        const struct mc_view_instance *at = &view->instances[i];

        if ((at->role == MC_ROLE_STORE) != in_pool)
            continue;
        if (at->matched_tokens >= tokens)
            copy.copies++;
        else if (in_pool
                     ? node_is_better(view, i, copy.to, place->sched->replicate.last_node)
                     : i != row && policy_can_prefill(at) && instance_is_better(view, i, copy.to))
            copy.to = i;
    }
    if (copy.to != UINT64_MAX)
        copy.from = view->holder(view, copy.to, tokens);
    if (copy.from == UINT64_MAX || (view->instances[copy.from].role == MC_ROLE_STORE) != in_pool)
        copy.to = UINT64_MAX;
    if (copy.to == UINT64_MAX)
        return copy;
    /* Within the pool nothing is known of a node's own link: by the one who reads from there. */
    const uint64_t reader = in_pool ? row : copy.to;
    const uint64_t send = view->instances[copy.from].send_busy_ns;
    const uint64_t receive = view->instances[reader].receive_busy_ns;
    const uint64_t ns = view->transfer_ns(view, copy.from, reader, tokens);
    copy.seconds = (double)ns / 1e9;
    copy.ns = ns - (send > receive ? send : receive);
    return copy;
}

static bool is_worth_it(const struct replicate *r, const struct hot_prefix *hot,
                        const struct copy *copy)
{
    const double copies = copy->copies ? (double)copy->copies : 1;

    return copy->to != UINT64_MAX && hot->lost_s > 0 &&
           hot->lost_s >= r->gain * copies * copy->seconds;
}

/* ----------------------------------------------------------------------------------------- order */

static void book(uint64_t *until_ns, uint64_t now_ns, uint64_t duration_ns)
{
    *until_ns = (*until_ns > now_ns ? *until_ns : now_ns) + duration_ns;
}

static void order(struct place *place, const struct copy *copy, uint32_t depth, double lost)
{
    struct replicate *r = &place->sched->replicate;
    const struct mc_view *view = &place->view;
    struct instance *from = place_instance(place, copy->from),
                    *to = place_instance(place, copy->to);

    memcpy(r->keys, place->request->keys, depth * sizeof(*r->keys));
    r->decision = (struct mc_decision){
        .kind = MC_DECIDE_REPLICATE,
        .reason = MC_REASON_HOT_PREFIX,
        .prefill = to->info.id,
        .holder = from->info.id,
        .pull_tokens = depth * view->block_tokens,
        .keys = r->keys,
        .key_count = depth,
        .predicted = { .transfer_ns = cost_ns(copy->seconds) },
        .score = lost,
    };
    r->has_decision = true;
    r->next_ns = view->now_ns + cost_ns(1 / r->rate);
    if (to->info.role == MC_ROLE_STORE) /* who has pulled it puts it there: `from` sends nothing */
        r->last_node = to->info.id;
    else
        book(&from->send_until_ns, view->now_ns, copy->ns);
    book(&to->receive_until_ns, view->now_ns, copy->ns);
    cluster_touch(&place->sched->cluster, place->pane->cells[copy->from]);
    cluster_touch(&place->sched->cluster, place->pane->cells[copy->to]);
    place->sched->stats.replicated++;
}

/* What has tipped it counts no more, up to this depth: a copy of all that is on its way. */
static void forget(struct place *place, uint32_t depth)
{
    struct replicate *r = &place->sched->replicate;
    const uint64_t now = place->view.now_ns;

    for (uint32_t at = 1; at <= depth; at = deeper(at)) {
        struct hot_prefix *hot = entry(r, &place->request->keys[at - 1], now);
        hot->lost_s = hot->asked = 0;
        hot->quiet_ns = now + QUIET_NS;
    }
}

void replicate_placed(struct place *place, uint64_t row, const struct mc_decision *d)
{
    struct replicate *r = &place->sched->replicate;
    const struct mc_view *view = &place->view;
    const uint64_t blocks = view->best_matched_tokens / view->block_tokens, now = view->now_ns;
    const uint64_t holder = d->holder ? place_row(place, d->holder) : UINT64_MAX;
    const bool in_pool = holder != UINT64_MAX && view->instances[holder].role == MC_ROLE_STORE;
    struct copy best = { UINT64_MAX, UINT64_MAX, 0, 0, 0 };
    uint32_t best_depth = 0;
    double best_lost = 0;

    if (!r->table || d->predicted.prefill_ns == 0)
        return;
    for (uint32_t at = 1; at <= blocks && at <= COPY_BLOCKS_MAX; at = deeper(at)) {
        const uint64_t tokens = at * view->block_tokens;
        struct hot_prefix *hot = entry(r, &place->request->keys[at - 1], now);

        hot->asked++;
        hot->lost_s += lost_s(place, row, d, tokens);
        /* In the pool its blocks are copied by the one who has just pulled them. */
        if (hot->asked < r->asked || now < hot->quiet_ns || now < r->next_ns ||
            (in_pool && tokens > d->pull_tokens))
            continue;
        const struct copy copy = choose(place, row, in_pool, tokens);
        if (!is_worth_it(r, hot, &copy))
            continue;
        best = copy; /* the deepest */
        best_depth = at;
        best_lost = hot->lost_s;
    }
    if (best_depth == 0)
        return;
    order(place, &best, best_depth, best_lost);
    forget(place, best_depth);
}
