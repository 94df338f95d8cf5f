/* generate.c - draw a trace from what was learnt of another one (trace_fit.c). */
#include "sim/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/prng.h"

#define NOBODY UINT32_MAX
enum { NEIGHBOURS = 256 }; /* earlier prompts that are looked at for one that is long enough */

static double draw(const struct quantiles *q, struct prng *prng)
{
    const double at = prng_unit(prng_next(prng)) * (FIT_POINTS - 1);
    const int low = (int)at;

    return q->at[low] + (at - low) * (q->at[low + 1] - q->at[low]);
}

/* -------------------------------------------------------------------------------------------- make */

struct chain {
    uint64_t arrival_ns;
    uint32_t leaf, blocks; /* its last whole block; how many */
};

struct making {
    const struct trace_fit *fit;
    const struct mc_alloc *alloc;
    struct prng prng;
    struct chain *made; /* [count]: those that sessions can go on with */
    uint32_t *parents;  /* [capacity]: of each block; itself: none */
    uint32_t *families; /* [family_count]: their first blocks; NOBODY: not begun */
    double *popularity; /* [family_count]: cumulated */
    uint64_t *ids;      /* [ids_max]: of one request */
    uint32_t blocks, capacity, ids_max, count, made_count;
};

static mc_status new_block(struct making *m, uint32_t parent, uint32_t *block_p)
{
    if (m->blocks == m->capacity) {
        uint32_t *more = alloc_resize(m->alloc, m->parents, (size_t)m->capacity * 2, sizeof(*more));
        if (!more)
            return MC_E_NOMEM;
        m->parents = more;
        m->capacity *= 2;
    }
    m->parents[m->blocks] = parent == NOBODY ? m->blocks : parent;
    *block_p = m->blocks++;
    return MC_OK;
}

/* The last request that is at least so old; NOBODY: none is. */
static uint32_t of_age(const struct making *m, uint64_t now_ns, double age_s)
{
    const double before = (double)now_ns - age_s * 1e9;
    uint32_t low = 0, high = m->made_count;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if ((double)m->made[middle].arrival_ns <= before)
            low = middle + 1;
        else
            high = middle;
    }
    return low ? low - 1 : NOBODY;
}

/* The one nearest to `at` that has so many blocks; if none has, the longest. Who goes on with long prompts does
 * so, whatever short ones came at that time. */
static uint32_t long_enough(const struct making *m, uint32_t at, uint32_t blocks)
{
    uint32_t longest = at;

    for (uint32_t away = 0; at != NOBODY && away < NEIGHBOURS; away++)
        for (int side = 0; side < 2; side++) {
            const uint32_t there = side ? at + away : at - away;

            if (side ? there >= m->made_count : away > at)
                continue;
            if (m->made[there].blocks >= blocks)
                return there;
            if (m->made[there].blocks > m->made[longest].blocks)
                longest = there;
        }
    return longest;
}

static uint32_t draw_family(struct making *m)
{
    const double at = prng_unit(prng_next(&m->prng)) * m->popularity[m->fit->family_count - 1];
    uint32_t low = 0, high = m->fit->family_count - 1;

    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;

        if (m->popularity[middle] <= at)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static double at_least(double value, double least)
{
    return value > least ? value : least;
}

/* How its prompt begins: the block that its own ones follow, how many these are, and its length. */
static void begin(struct making *m, uint64_t now_ns, uint32_t *leaf_p, uint32_t *depth_p,
                  double *tokens_p, double *output_p)
{
    const struct trace_fit *f = m->fit;
    const bool goes_on = prng_unit(prng_next(&m->prng)) < f->sessions;
    const uint32_t kept = goes_on ? (uint32_t)(draw(&f->kept, &m->prng) + 0.5) : 0;
    const uint32_t earlier =
        goes_on ? long_enough(m, of_age(m, now_ns, draw(&f->age_s, &m->prng)), kept) : NOBODY;

    *leaf_p = NOBODY;
    *depth_p = 0;
    if (earlier != NOBODY) {
        const struct chain *c = &m->made[earlier];
        const uint32_t keep = kept >= FIT_SESSION_BLOCKS && kept < c->blocks ? kept : c->blocks;

        *leaf_p = c->leaf;
        for (uint32_t n = c->blocks; n > keep; n--)
            *leaf_p = m->parents[*leaf_p];
        *depth_p = keep;
        *tokens_p =
            (double)keep * TRACE_BLOCK_TOKENS + at_least(draw(&f->grown_tokens, &m->prng), 1);
        *output_p = draw(&f->session_output, &m->prng);
        return;
    }
    *tokens_p = draw(&f->start_tokens, &m->prng);
    *output_p = draw(&f->start_output, &m->prng);
}

/* One without a session may begin with a family's first block. */
static mc_status begin_family(struct making *m, uint32_t *leaf_p, uint32_t *depth_p)
{
    if (m->fit->family_count == 0 || prng_unit(prng_next(&m->prng)) >= m->fit->families)
        return MC_OK;
    uint32_t *first = &m->families[draw_family(m)];
    if (*first == NOBODY) {
        const mc_status status = new_block(m, NOBODY, first);
        if (status != MC_OK)
            return status;
    }
    *leaf_p = *first;
    *depth_p = 1;
    return MC_OK;
}

static mc_status grow(struct making *m, uint32_t leaf, uint32_t depth, uint32_t tokens,
                      struct chain *chain)
{
    const uint32_t whole = tokens / TRACE_BLOCK_TOKENS;

    for (; depth < whole; depth++) {
        const mc_status status = new_block(m, leaf, &leaf);
        if (status != MC_OK)
            return status;
    }
    chain->leaf = leaf;
    chain->blocks = depth;
    return MC_OK;
}

static mc_status write_ids(struct making *m, const struct chain *chain, uint32_t tokens,
                           uint32_t *count_p)
{
    const uint32_t count = (tokens + TRACE_BLOCK_TOKENS - 1) / TRACE_BLOCK_TOKENS;
    uint32_t at = chain->leaf;

    if (count > m->ids_max) {
        uint64_t *more = alloc_resize(m->alloc, m->ids, (size_t)count * 2, sizeof(*more));
        if (!more)
            return MC_E_NOMEM;
        m->ids = more;
        m->ids_max = count * 2;
    }
    for (uint32_t n = chain->blocks; n > 0; n--) {
        m->ids[n - 1] = at;
        at = m->parents[at];
    }
    *count_p = count;
    if (count == chain->blocks)
        return MC_OK;
    /* A last block that is not whole has an id that nobody else has. */
    uint32_t partial;
    const mc_status status = new_block(m, chain->blocks ? chain->leaf : NOBODY, &partial);
    if (status == MC_OK)
        m->ids[count - 1] = partial;
    return status;
}

static mc_status make_one(struct making *m, uint64_t now_ns, trace_take *take, void *user)
{
    struct chain *chain = &m->made[m->made_count];
    uint32_t leaf, depth, ids = 0;
    double tokens = 0, output = 0;

    begin(m, now_ns, &leaf, &depth, &tokens, &output);
    tokens = at_least(tokens, 1);
    tokens = tokens < TRACE_TOKENS_MAX ? tokens : TRACE_TOKENS_MAX;
    mc_status status = MC_OK;
    if (depth == 0 && tokens >= TRACE_BLOCK_TOKENS)
        status = begin_family(m, &leaf, &depth);
    chain->arrival_ns = now_ns;
    if (status == MC_OK)
        status = grow(m, leaf, depth, (uint32_t)tokens, chain);
    if (status == MC_OK)
        status = write_ids(m, chain, (uint32_t)tokens, &ids);
    if (status != MC_OK)
        return status;
    m->count++;
    m->made_count += chain->blocks >= FIT_SESSION_BLOCKS;
    const struct trace_request request = { .arrival_ns = now_ns,
                                           .input_tokens = (uint32_t)tokens,
                                           .output_tokens = (uint32_t)at_least(output, 1),
                                           .hash_ids = m->ids,
                                           .hash_count = ids };
    return take(user, &request);
}

static mc_status make_all(struct making *m, uint32_t count, trace_take *take, void *user)
{
    double now_s = 0;
    mc_status status = MC_OK;

    while (m->count < count && status == MC_OK) {
        const uint32_t burst = (uint32_t)at_least(draw(&m->fit->burst, &m->prng) + 0.5, 1);
        const uint64_t now_ns = (uint64_t)(now_s * 1e3 + 0.5) * 1000000; /* whole milliseconds */

        for (uint32_t i = 0; i < burst && m->count < count && status == MC_OK; i++)
            status = make_one(m, now_ns, take, user);
        now_s += at_least(draw(&m->fit->gap_s, &m->prng), 0.001);
    }
    return status;
}

static mc_status open_making(struct making *m, uint32_t count)
{
    const uint32_t families = m->fit->family_count;
    double sum = 0;

    m->capacity = 1024;
    m->ids_max = 64;
    m->made = alloc_zeroed(m->alloc, count, sizeof(*m->made));
    m->parents = alloc_zeroed(m->alloc, m->capacity, sizeof(*m->parents));
    m->families = alloc_zeroed(m->alloc, families, sizeof(*m->families));
    m->popularity = alloc_zeroed(m->alloc, families, sizeof(*m->popularity));
    m->ids = alloc_zeroed(m->alloc, m->ids_max, sizeof(*m->ids));
    if (!m->made || !m->parents || !m->families || !m->popularity || !m->ids)
        return MC_E_NOMEM;
    for (uint32_t i = 0; i < families; i++) {
        m->families[i] = NOBODY;
        sum += pow(i + 1.0, -m->fit->zipf);
        m->popularity[i] = sum;
    }
    return MC_OK;
}

mc_status trace_generate(const struct trace_fit *fit, uint32_t count, uint64_t seed,
                         const struct mc_alloc *alloc, trace_take *take, void *user)
{
    struct making m = { .fit = fit, .alloc = alloc, .prng = { .seed = seed } };

    mc_status status = open_making(&m, count);
    if (status == MC_OK)
        status = make_all(&m, count, take, user);
    alloc_free(alloc, m.ids);
    alloc_free(alloc, m.popularity);
    alloc_free(alloc, m.families);
    alloc_free(alloc, m.parents);
    alloc_free(alloc, m.made);
    return status;
}

void trace_line(const struct trace_request *r, struct buf *out)
{
    const uint64_t us = r->arrival_ns / 1000;

    if (us % 1000)
        buf_addf(out, "{\"timestamp\": %llu.%03llu", (unsigned long long)(us / 1000),
                 (unsigned long long)(us % 1000));
    else
        buf_addf(out, "{\"timestamp\": %llu", (unsigned long long)(us / 1000));
    buf_addf(out, ", \"input_length\": %u, \"output_length\": %u, \"hash_ids\": [", r->input_tokens,
             r->output_tokens);
    for (uint32_t i = 0; i < r->hash_count; i++)
        buf_addf(out, "%s%llu", i ? ", " : "", (unsigned long long)r->hash_ids[i]);
    buf_add_text(out, "]}\n");
}
