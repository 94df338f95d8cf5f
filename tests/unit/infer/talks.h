/*
 * talks.h - requests driven step by step through an engine, alone or in a mix, with everything that
 * came of them kept for comparison: tokens, log probabilities, the logits of every position, and KV.
 *
 * A talk's prompt and sampling follow from its seed. How it is cut into chunks, what else is in a
 * step, in which order, and which pages it gets follow from struct mix.
 */
#ifndef TESTS_TALKS_H
#define TESTS_TALKS_H

#include "test.h"

#include <math.h>

#include <mooncake/infer.h>

#include "base/prng.h"
#include "kv/layout.h"

enum { ANSWER_MAX = 16, TALKS_MAX = 64 };

struct talk {
    struct mc_sampling sampling;
    uint32_t prompt_count, answer_count; /* as asked for */
    uint32_t *tokens;                    /* owned; prompt, then what was answered */
    uint32_t token_count, computed;
    float *logits; /* owned; (prompt_count + answer_count, vocab_size) */
    struct mc_sample samples[ANSWER_MAX];
    void **pages; /* owned, as each page */
    uint32_t page_count;
};

/** How talks are run. */
struct mix {
    uint64_t seed;  /* of everything below that is random */
    uint32_t chunk; /* tokens of a prompt in one step; 0: another multiple of 16 every time */
    bool moody;     /* any sequence may sit out any step, and they come in any order */
};

/** A page full of anything. */
static inline void *page_open(const struct mc_kv_layout *layout, struct prng *prng)
{
    const size_t bytes = mc_kv_page_bytes(layout);
    void *page = aligned_alloc(64, bytes);

    assert_non_null(page);
    assert_int_equal(bytes % 64, 0);
    for (size_t i = 0; i < bytes; i += sizeof(uint64_t))
        memcpy((char *)page + i, &(uint64_t){ prng_next(prng) }, sizeof(uint64_t));
    return page;
}

static inline void talk_init(struct talk *t, uint64_t seed, uint32_t prompt_count,
                             uint32_t answer_count, uint32_t vocab_size)
{
    const uint64_t kind = prng_at(seed, 1) % 4;

    assert_in_range(answer_count, 1, ANSWER_MAX);
    *t = (struct talk){ .prompt_count = prompt_count, .answer_count = answer_count };
    t->tokens = calloc(prompt_count + answer_count, sizeof(*t->tokens));
    t->logits = calloc((size_t)(prompt_count + answer_count) * vocab_size, sizeof(*t->logits));
    assert_true(t->tokens && t->logits);
    for (uint32_t i = 0; i < prompt_count; i++)
        t->tokens[i] = (uint32_t)(prng_at(seed, 100 + i) % vocab_size);
    t->token_count = prompt_count;
    t->sampling = (struct mc_sampling){ .temperature = kind == 0 ? 0.0f : 0.5f + (float)kind,
                                        .top_k = kind == 2 ? 20 : 0,
                                        .top_p = kind == 3 ? 0.9f : 0,
                                        .seed = seed,
                                        .logprobs = 5 };
}

static inline void talk_fini(struct talk *t)
{
    for (uint32_t i = 0; i < t->page_count; i++)
        free(t->pages[i]);
    free(t->pages);
    free(t->tokens);
    free(t->logits);
}

static inline bool talk_done(const struct talk *t)
{
    return t->token_count == t->prompt_count + t->answer_count;
}

/** Pages for all talks, handed out in random order. */
static inline void talks_take_pages(struct talk *talks, uint32_t count, struct prng *prng,
                                    const struct mc_kv_layout *layout)
{
    uint32_t total = 0, next = 0;

    for (uint32_t i = 0; i < count; i++) {
        talks[i].page_count = kv_pages(talks[i].prompt_count + talks[i].answer_count);
        total += talks[i].page_count;
    }
    void **pool = calloc(total, sizeof(*pool));
    assert_non_null(pool);
    for (uint32_t i = 0; i < total; i++) {
        const uint32_t at = prng_below(prng, i + 1);
        pool[i] = pool[at];
        pool[at] = page_open(layout, prng);
    }
    for (uint32_t i = 0; i < count; i++) {
        talks[i].pages = calloc(talks[i].page_count, sizeof(*pool));
        assert_non_null(talks[i].pages);
        for (uint32_t k = 0; k < talks[i].page_count; k++)
            talks[i].pages[k] = pool[next++];
    }
    free(pool);
}

/** The next chunk of a talk with at most `budget` tokens; 0: not now. */
static inline uint32_t talk_chunk(const struct talk *t, const struct mix *mix, struct prng *prng,
                                  uint32_t budget)
{
    const uint32_t left = t->token_count - t->computed;
    const uint32_t chunk = mix->chunk ? mix->chunk : 16 * (1 + prng_below(prng, 8));
    const uint32_t count = left < chunk ? left : chunk;

    return count <= budget ? count : budget / 16 * 16;
}

static inline struct mc_sequence talk_sequence(struct talk *t, uint32_t count, uint32_t vocab_size)
{
    const bool last = t->computed + count == t->token_count;

    return (struct mc_sequence){ .tokens = t->tokens + t->computed,
                                 .token_count = count,
                                 .position = t->computed,
                                 .pages = t->pages,
                                 .sampling = last ? &t->sampling : NULL,
                                 .sample =
                                     last ? &t->samples[t->token_count - t->prompt_count] : NULL,
                                 .logits = t->logits + (size_t)t->computed * vocab_size };
}

/** After the step of which `s` was a part. */
static inline void talk_advance(struct talk *t, const struct mc_sequence *s)
{
    t->computed += s->token_count;
    if (s->sampling)
        t->tokens[t->token_count++] = s->sample->chosen.token;
}

/** Who takes part in the next step: *order is a permutation of all, sequences the chunks of some. */
static inline uint32_t talks_plan(struct talk *talks, uint32_t count, const struct mix *mix,
                                  struct prng *prng, const struct mc_engine_limits *limits,
                                  uint32_t *chosen, struct mc_sequence *sequences)
{
    uint32_t order[TALKS_MAX], used = 0, budget = limits->tokens_max;

    for (uint32_t i = 0; i < count; i++) {
        const uint32_t at = mix->moody ? prng_below(prng, i + 1) : i;
        order[i] = order[at];
        order[at] = i;
    }
    for (uint32_t i = 0; i < count && used < limits->sequences_max; i++) {
        struct talk *t = &talks[order[i]];
        if (talk_done(t) || (mix->moody && prng_below(prng, 4) == 0))
            continue;
        const uint32_t tokens = talk_chunk(t, mix, prng, budget);
        if (tokens == 0)
            continue;
        budget -= tokens;
        chosen[used] = order[i];
        sequences[used++] = talk_sequence(t, tokens, limits->vocab_size);
    }
    return used;
}

/** Run all talks to their ends. */
static inline void talks_run(mc_engine *engine, struct talk *talks, uint32_t count,
                             const struct mix *mix)
{
    struct mc_engine_limits limits;
    struct mc_sequence sequences[TALKS_MAX];
    struct prng prng = { .seed = mix->seed };
    uint32_t chosen[TALKS_MAX], done = 0;

    assert_true(count <= TALKS_MAX);
    mc_engine_limits(engine, &limits);
    talks_take_pages(talks, count, &prng, &limits.layout);
    while (done < count) {
        const uint32_t used = talks_plan(talks, count, mix, &prng, &limits, chosen, sequences);
        const struct mc_step step = { .sequences = sequences, .count = used };
        struct mc_error error = { 0 };
        if (used > 0 && mc_engine_step(engine, &step, &error) != MC_OK)
            fail_msg("%s", error.text);
        for (uint32_t i = 0; i < used; i++) {
            talk_advance(&talks[chosen[i]], &sequences[i]);
            done += talk_done(&talks[chosen[i]]);
        }
    }
}

/** The same token with the same log probabilities, bit for bit. */
static inline bool same_sample(const struct mc_sample *a, const struct mc_sample *b)
{
    return memcmp(&a->chosen, &b->chosen, sizeof(a->chosen)) == 0 && a->top_count == b->top_count &&
           memcmp(a->top, b->top, a->top_count * sizeof(a->top[0])) == 0;
}

static inline bool same_kv(const struct talk *a, const struct talk *b,
                           const struct mc_kv_layout *layout)
{
    const size_t bytes = kv_token_bytes(layout);

    for (uint32_t position = 0; position < a->computed; position++)
        for (uint32_t layer = 0; layer < layout->layers; layer++)
            for (int part = KV_KEY; part <= KV_VALUE; part++) {
                const size_t at = kv_offset(layout, layer, (enum kv_part)part, position % 16);
                if (memcmp((const char *)a->pages[position / 16] + at,
                           (const char *)b->pages[position / 16] + at, bytes) != 0)
                    return false;
            }
    return true;
}

/** NULL if two runs of the same talk left the same bits, else what differs first. */
static inline const char *talk_difference(const struct talk *a, const struct talk *b,
                                          const struct mc_engine_limits *limits)
{
    assert_int_equal(a->prompt_count, b->prompt_count);
    assert_int_equal(a->answer_count, b->answer_count);
    assert_int_equal(a->computed, b->computed);
    if (memcmp(a->tokens, b->tokens, a->token_count * sizeof(*a->tokens)) != 0)
        return "tokens";
    for (uint32_t i = 0; i < a->answer_count; i++)
        if (!same_sample(&a->samples[i], &b->samples[i]))
            return "log probabilities";
    if (memcmp(a->logits, b->logits,
               (size_t)a->computed * limits->vocab_size * sizeof(*a->logits)) != 0)
        return "logits";
    return same_kv(a, b, &limits->layout) ? NULL : "KV pages";
}

#endif /* TESTS_TALKS_H */
