/*
 * naive_kernels.h - what the kernels compute, as docs/design/001 defines it: one loop per index, every
 * operation spelt out, nothing side by side.
 */
#ifndef TESTS_NAIVE_KERNELS_H
#define TESTS_NAIVE_KERNELS_H

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "infer/config.h"
#include "infer/exact.h"
#include "infer/kernels.h"

/** The same bits; what is not a number has no bits that matter. */
static inline bool same_float(float a, float b)
{
    return (isnan(a) && isnan(b)) || memcmp(&a, &b, sizeof(a)) == 0;
}

/** The fixed tree over sixteen partial results. */
static inline float naive_tree(float lanes[16])
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    return lanes[0];
}

static inline float naive_weight(const struct tensor *w, uint32_t n, uint32_t k)
{
    const size_t at = (size_t)n * w->cols + k;
    uint16_t half;
    float value;

    if (w->dtype == MC_DTYPE_BF16) {
        memcpy(&half, (const char *)w->data + at * 2, 2);
        return bf16_to_f32(half);
    }
    memcpy(&value, (const char *)w->data + at * 4, 4);
    return value;
}

/** One chain over k from +0. */
static inline float naive_chain(const struct gemm *g, uint32_t row, uint32_t n)
{
    float sum = 0;

    for (uint32_t k = 0; k < g->w->cols; k++)
        sum = fmaf(g->x[row * g->x_stride + k], naive_weight(g->w, n, k), sum);
    return sum;
}

/** One chain over pairs of k, inputs rounded: the product at the odd k, then that at the even one. */
static inline float naive_pairs(const struct gemm *g, uint32_t row, uint32_t n)
{
    const uint32_t depth = g->w->cols;
    float sum = 0;

    for (uint32_t k = 0; k < depth; k += 2) {
        const uint16_t *x = g->x16 + row * g->x_stride + k;
        const float odd = k + 1 < depth ? naive_weight(g->w, n, k + 1) : 0.0f;
        sum = fmaf(k + 1 < depth ? bf16_to_f32(x[1]) : 0.0f, odd, sum);
        sum = fmaf(bf16_to_f32(x[0]), naive_weight(g->w, n, k), sum);
    }
    return sum;
}

/** An element of y; `rounds`: as the tables that round rows do it. */
static inline float naive_product(const struct gemm *g, uint32_t row, uint32_t n, bool rounds)
{
    const float sum =
        rounds && g->w->dtype == MC_DTYPE_BF16 ? naive_pairs(g, row, n) : naive_chain(g, row, n);

    return g->bias ? sum + g->bias[n] : sum;
}

/** Element d of this head's key (value_offset: value) of the token at `position`. */
static inline float naive_page_element(const struct attend *a, size_t offset, uint32_t position,
                                       uint32_t d)
{
    const char *p = (const char *)a->pages[position / 16] + offset + position % 16 * a->token_bytes;
    uint16_t half;
    float value;

    if (a->dtype == MC_DTYPE_BF16) {
        memcpy(&half, p + d * 2, 2);
        return bf16_to_f32(half);
    }
    memcpy(&value, p + d * 4, 4);
    return value;
}

/** The state of one row and head between pages. */
struct naive_query {
    float largest, sums[16], sum_v[HEAD_DIM_MAX];
};

/** Positions [page, page + seen) of one page, seen <= 16. */
static inline void naive_attend_page(const struct attend *a, const float *q, uint32_t page,
                                     uint32_t seen, struct naive_query *s)
{
    float score[16], page_largest = -INFINITY;

    for (uint32_t t = 0; t < seen; t++) {
        score[t] = 0;
        for (uint32_t d = 0; d < a->dim; d++)
            score[t] = fmaf(q[d], naive_page_element(a, a->key_offset, page + t, d), score[t]);
        score[t] *= a->scale;
        if (score[t] > page_largest)
            page_largest = score[t];
    }
    if (page_largest > s->largest) {
        const float shrink = exact_exp(s->largest - page_largest);
        s->largest = page_largest;
        for (uint32_t t = 0; t < 16; t++)
            s->sums[t] *= shrink;
        for (uint32_t d = 0; d < a->dim; d++)
            s->sum_v[d] *= shrink;
    }
    for (uint32_t t = 0; t < seen; t++) {
        const float p = exact_exp(score[t] - s->largest);
        s->sums[t] += p;
        for (uint32_t d = 0; d < a->dim; d++)
            s->sum_v[d] = fmaf(p, naive_page_element(a, a->value_offset, page + t, d), s->sum_v[d]);
    }
}

/** The row's output for query head `head` into out[dim]: whole pages from position 0. */
static inline void naive_attend(const struct attend *a, uint32_t row, uint32_t head, float *out)
{
    const uint32_t position = a->position + row;
    const float *q = a->q + row * a->stride + (size_t)head * a->dim;
    struct naive_query s = { .largest = -INFINITY };

    for (uint32_t page = 0; page <= position; page += 16)
        naive_attend_page(a, q, page, position - page < 16 ? position - page + 1 : 16, &s);
    const float total = naive_tree(s.sums);
    for (uint32_t d = 0; d < a->dim; d++)
        out[d] = s.sum_v[d] / total;
}

/** y may be x. */
static inline void naive_norm(float *y, const float *x, const float *weight, uint32_t count,
                              float eps)
{
    float sums[16] = { 0 };

    for (uint32_t i = 0; i < count; i++)
        sums[i % 16] = fmaf(x[i], x[i], sums[i % 16]);
    const float scale = 1.0f / sqrtf(naive_tree(sums) / (float)count + eps);
    for (uint32_t i = 0; i < count; i++)
        y[i] = x[i] * scale * weight[i];
}

static inline float naive_silu_mul(float gate, float up)
{
    return gate / (1.0f + exact_exp(0.0f - gate)) * up;
}

static inline void naive_softmax_stats(const float *x, uint32_t count, float *largest_p,
                                       float *sum_p)
{
    float largest = -INFINITY, sums[16] = { 0 };

    for (uint32_t i = 0; i < count; i++)
        if (x[i] > largest)
            largest = x[i];
    for (uint32_t i = 0; i < count; i++)
        sums[i % 16] += exact_exp(x[i] - largest);
    *largest_p = largest;
    *sum_p = naive_tree(sums);
}

#endif /* TESTS_NAIVE_KERNELS_H */
