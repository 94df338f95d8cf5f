/* timing.c - seconds of a step, who is new in it, and tokens made of numbers. */
#include "worker/core/timing.h"

enum { STATE_ELEMENTS = 2, PAGE_TOKENS = 16, BF16_BYTES = 2 }; /* a state is 4 bytes of a key */

static double positive(double value)
{
    return value > 0 ? value : 0;
}

struct mc_kv_layout timing_layout(const struct timing_model *model, uint32_t layers, double scale)
{
    const double wanted = model->kv_token_bytes * (scale < 1 ? scale : 1);
    const double least = 2 * STATE_ELEMENTS * BF16_BYTES; /* keys and values of one layer */
    const double most = layers > 0 ? layers : 1;
    const double fit = wanted / least;
    const double kept = fit < 1 ? 1 : fit < most ? fit : most;
    const uint32_t count = (uint32_t)kept;
    const double dim = wanted / (2 * BF16_BYTES * (double)count);

    return (struct mc_kv_layout){
        .layers = count,
        .kv_heads = 1,
        .head_dim = dim < STATE_ELEMENTS ? STATE_ELEMENTS
                    : dim < 65536        ? (uint32_t)dim
                                         : 65536,
        .page_tokens = PAGE_TOKENS,
        .dtype = MC_DTYPE_BF16,
    };
}

/* ------------------------------------------------------------------------------------------- steps */

/* Where it was seen; else the place of who was not seen for longest. `hint`: where it was last time, likely. */
static struct timing_seen *find(struct timing_tracker *t, const void *page, uint32_t hint)
{
    struct timing_seen *oldest = &t->seen[0];

    if (hint < t->seen_max && t->seen[hint].page == page)
        return &t->seen[hint];
    for (uint32_t i = 0; i < t->seen_max; i++) {
        if (t->seen[i].page == page)
            return &t->seen[i];
        if (t->seen[i].step < oldest->step)
            oldest = &t->seen[i];
    }
    return oldest;
}

/* One sequence's part: what it adds to the sums of its kind, and what it costs once. */
struct sums {
    double prompts_s, once_s;
    uint64_t answers, context, joined, begun; /* begun: prompts that were not in a step before */
    bool prompt;
};

static bool is_answer(const struct timing_tracker *t, const struct mc_sequence *s)
{
    return s->token_count == 1 && s->position > 0 && (t->role & MC_ROLE_DECODE) != 0;
}

static void take(const struct timing_model *m, struct timing_tracker *t,
                 const struct mc_sequence *s, uint32_t index, struct sums *sums)
{
    struct timing_seen *seen = find(t, s->pages[0], index);
    const bool goes_on = seen->page == s->pages[0] && seen->next == s->position && seen->step > 0;
    const double a = s->position, b = a + s->token_count;
    const bool answer = is_answer(t, s);

    if (answer) {
        sums->answers++;
        sums->context += s->position;
        if (!goes_on) { /* from another instance: one that was prefilled here is in memory */
            sums->joined++;
            sums->once_s += m->join_fixed_s + m->join_load_share * timing_load_s(m, s->position);
        }
    } else {
        sums->prompt = true;
        sums->prompts_s += m->cost.p1 * (b - a) + m->cost.p2 * (b * b - a * a);
        sums->begun += !goes_on;
        sums->once_s += goes_on ? 0 : m->cost.p3 * a;
    }
    *seen = (struct timing_seen){ .page = s->pages[0],
                                  .next = s->position + s->token_count,
                                  .step = t->steps };
}

double timing_step_s(const struct timing_model *m, struct timing_tracker *t,
                     const struct mc_step *step)
{
    struct sums sums = { 0 };

    t->steps++;
    for (uint32_t i = 0; i < step->count; i++)
        take(m, t, &step->sequences[i], i, &sums);
    const uint64_t calls = t->role == MC_ROLE_PREFILL ? sums.begun : sums.prompt;
    double seconds = sums.prompts_s + (double)calls * m->cost.p0;
    if (sums.answers > 0)
        seconds += m->cost.d1 * (double)sums.answers + m->cost.d2 * (double)sums.context +
                   (sums.prompt ? 0 : m->cost.d0);
    /* Nobody is held up by the first of a batch. */
    if (sums.joined > 0 && sums.joined == sums.answers && !sums.prompt)
        return seconds;
    return seconds + sums.once_s;
}

double timing_pull_s(const struct timing_model *m, uint64_t tokens)
{
    return m->cost.bytes_per_s > 0
               ? m->cost.t0 + (double)tokens * m->kv_token_bytes / m->cost.bytes_per_s
               : 0;
}

double timing_load_s(const struct timing_model *m, uint64_t tokens)
{
    return m->load_bytes_per_s > 0
               ? positive((double)tokens * m->kv_token_bytes / m->load_bytes_per_s)
               : 0;
}

/* ------------------------------------------------------------------------------------------ tokens */

static uint32_t mix(uint32_t x)
{
    x ^= x >> 16;
    x *= 0x7feb352d;
    x ^= x >> 15;
    x *= 0x846ca68b;
    return x ^ x >> 16;
}

uint32_t timing_state(uint32_t before, uint32_t token, uint32_t position)
{
    return mix(mix(before + 0x9e3779b9) ^ mix(token) ^ position * 0x85ebca6b);
}

static bool is_banned(uint32_t token, const struct timing_bans bans[2])
{
    for (int k = 0; k < 2; k++)
        for (uint32_t i = 0; i < bans[k].count; i++)
            if (bans[k].tokens[i] == token)
                return true;
    return false;
}

uint32_t timing_token(uint32_t state, uint32_t vocab_size, const struct timing_bans bans[2])
{
    const uint64_t most = (uint64_t)bans[0].count + bans[1].count;
    uint32_t token = mix(state ^ 0x5bd1e995) % vocab_size;

    for (uint64_t i = 0; i <= most && is_banned(token, bans); i++)
        token = (token + 1) % vocab_size;
    return token;
}
