/* sample.c - greedy choice, or a draw after temperature, top-k and top-p; log probabilities. */
#include "infer/sample.h"

#include <math.h>
#include <stdlib.h>

#include "base/prng.h"
#include "infer/exact.h"

const char *sampling_fault(const struct mc_sampling *s, uint32_t vocab_size)
{
    if (!(s->temperature >= 0 && s->temperature <= 100) ||
        (s->temperature > 0 && s->temperature < 1e-4f))
        return "temperature must be 0 or in [0.0001, 100]";
    if (!(s->top_p >= 0 && s->top_p <= 1))
        return "top_p must be in [0, 1]";
    if (s->logprobs > MC_TOP_LOGPROBS_MAX)
        return "logprobs must be in [0, 20]";
    for (uint32_t i = 0; i < s->banned_count; i++)
        if (s->banned[i] >= vocab_size)
            return "a banned token is not in the vocabulary";
    if (s->banned_count >= vocab_size)
        return "every token is banned";
    return NULL;
}

static bool is_banned(const struct mc_sampling *s, uint32_t token)
{
    for (uint32_t i = 0; i < s->banned_count; i++)
        if (s->banned[i] == token)
            return true;
    return false;
}

static uint32_t most_likely(const float *logits, uint32_t vocab_size, const struct mc_sampling *s)
{
    uint32_t best = 0;

    while (is_banned(s, best))
        best++;
    for (uint32_t i = best + 1; i < vocab_size; i++)
        if (logits[i] > logits[best] && !is_banned(s, i))
            best = i;
    return best;
}

/* Likelier first; equals by id, so that the order is total. */
static int by_weight(const void *a, const void *b)
{
    const struct candidate *x = a, *y = b;

    if (x->weight != y->weight)
        return x->weight > y->weight ? -1 : 1;
    return x->token < y->token ? -1 : x->token > y->token;
}

static bool before(const struct candidate *a, const struct candidate *b)
{
    return by_weight(a, b) < 0;
}

static void exchange(struct candidate *a, struct candidate *b)
{
    const struct candidate t = *a;

    *a = *b;
    *b = t;
}

/* Move the `k` likeliest of `count` to the front (Hoare's selection, middle pivot); 0 < k < count. */
static void select_first(struct candidate *c, uint32_t count, uint32_t k)
{
    int64_t low = 0, high = (int64_t)count - 1, last = (int64_t)k - 1;

    while (low < high) {
        const struct candidate pivot = c[low + (high - low) / 2];
        int64_t i = low, j = high;
        while (i <= j) {
            while (before(&c[i], &pivot))
                i++;
            while (before(&pivot, &c[j]))
                j--;
            if (i <= j)
                exchange(&c[i++], &c[j--]);
        }
        if (last <= j)
            high = j;
        else if (last >= i)
            low = i;
        else
            return;
    }
}

/* Keep only tokens that can be among the likeliest `top_p` of the mass, without sorting all: lower a
 * floor until what is above it weighs enough. What is kept does not depend on where floors lie. */
static uint32_t keep_heavy(struct candidate *c, uint32_t count, double enough)
{
    for (float floor = 0x1p-6f; floor > 0x1p-120f; floor *= 0x1p-6f) {
        double mass = 0;
        uint32_t kept = 0;
        for (uint32_t i = 0; i < count; i++)
            if (c[i].weight >= floor)
                mass += (double)c[i].weight;
        if (mass < enough * (1 + 1e-9))
            continue;
        for (uint32_t i = 0; i < count; i++)
            if (c[i].weight >= floor)
                c[kept++] = c[i];
        return kept;
    }
    return count;
}

static double total_weight(const struct candidate *c, uint32_t count)
{
    double total = 0;

    for (uint32_t i = 0; i < count; i++)
        total += (double)c[i].weight;
    return total;
}

static uint32_t limit(struct candidate *c, uint32_t count, const struct mc_sampling *s)
{
    const bool nucleus = s->top_p > 0 && s->top_p < 1;

    if (s->top_k > 0 && s->top_k < count) {
        select_first(c, count, s->top_k);
        count = s->top_k;
    }
    if (!nucleus) {
        if (s->top_k > 0)
            qsort(c, count, sizeof(*c), by_weight);
        return count;
    }
    /* The total is taken in order of id or after a selection, either way a function of the row. */
    if (s->top_k > 0)
        qsort(c, count, sizeof(*c), by_weight);
    const double enough = total_weight(c, count) * (double)s->top_p;
    if (s->top_k == 0) {
        count = keep_heavy(c, count, enough);
        qsort(c, count, sizeof(*c), by_weight);
    }
    double mass = 0;
    for (uint32_t i = 0; i < count; i++) {
        mass += (double)c[i].weight;
        if (mass >= enough)
            return i + 1;
    }
    return count;
}

static uint32_t draw(const struct kernels *kernels, const float *logits, uint32_t vocab_size,
                     const struct mc_sampling *s, uint64_t position,
                     const struct sample_space *space)
{
    struct candidate *c = space->candidates;
    const uint32_t likeliest = most_likely(logits, vocab_size, s);
    uint32_t count = 0;

    kernels->weights(space->weights, logits, vocab_size, logits[likeliest], 1.0f / s->temperature);
    for (uint32_t i = 0; i < vocab_size; i++)
        if (space->weights[i] > 0 && !is_banned(s, i))
            c[count++] = (struct candidate){ space->weights[i], i };
    if (count == 0)
        return likeliest; /* no row of numbers: a broken model, but still an answer */
    count = limit(c, count, s);

    const double target = prng_unit(prng_at(s->seed, position)) * total_weight(c, count);
    double mass = 0;
    for (uint32_t i = 0; i < count; i++) {
        mass += (double)c[i].weight;
        if (target < mass)
            return c[i].token;
    }
    return c[count - 1].token;
}

/* The `wanted` likeliest tokens, by insertion: wanted is at most 20. */
static void fill_top(const float *logits, uint32_t vocab_size, uint32_t wanted, float base,
                     struct mc_sample *sample)
{
    struct mc_token_logprob *top = sample->top;
    uint32_t count = 0;

    for (uint32_t i = 0; i < vocab_size; i++) {
        if (count == wanted && !(logits[i] > top[count - 1].logprob))
            continue;
        uint32_t at = count < wanted ? count++ : count - 1;
        for (; at > 0 && logits[i] > top[at - 1].logprob; at--)
            top[at] = top[at - 1];
        top[at] = (struct mc_token_logprob){ i, logits[i] };
    }
    for (uint32_t i = 0; i < count; i++)
        top[i].logprob -= base;
    sample->top_count = count;
}

void sample_token(const struct kernels *kernels, const float *logits, uint32_t vocab_size,
                  const struct mc_sampling *sampling, uint64_t position,
                  const struct sample_space *space, struct mc_sample *sample_p)
{
    const uint32_t token = sampling->temperature > 0
                               ? draw(kernels, logits, vocab_size, sampling, position, space)
                               : most_likely(logits, vocab_size, sampling);
    float largest, sum;

    kernels->softmax_stats(logits, vocab_size, &largest, &sum);
    /* log p = logit - (largest + log sum); `sum` is at least 1 for any row of numbers. */
    const float base = largest + (sum > 0 && sum < INFINITY ? (float)exact_log((double)sum) : 0.0f);
    sample_p->chosen = (struct mc_token_logprob){ token, logits[token] - base };
    sample_p->top_count = 0;
    if (sampling->logprobs > 0)
        fill_top(logits, vocab_size, sampling->logprobs, base, sample_p);
}
