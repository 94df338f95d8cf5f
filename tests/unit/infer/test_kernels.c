/*
 * test_kernels.c - every kernel of every table against its definition (naive_kernels.h), bit for bit.
 *
 * Every buffer ends where its last element does, so that a sanitizer sees a read beyond it; scratch
 * and whatever a kernel must not look at are filled with bytes that are not numbers.
 */
#include "test.h"

#include <math.h>
#include <stdio.h>

#include "base/prng.h"
#include "kernel_tables.h"
#include "naive_kernels.h"

enum { ODD_BYTE = 0xff }; /* four make a NaN, two a BF16 NaN */

static void *exactly(size_t count, size_t size)
{
    void *p = malloc(count * size);

    assert_non_null(p);
    memset(p, ODD_BYTE, count * size);
    return p;
}

/* Aligned as the engine's; kernels ask for whole lines. */
static void *scratch_of(size_t bytes)
{
    void *p = aligned_alloc(64, bytes);

    assert_int_equal(bytes % 64, 0);
    assert_non_null(p);
    memset(p, ODD_BYTE, bytes);
    return p;
}

static bool untouched(const float *p, size_t count)
{
    const unsigned char *byte = (const unsigned char *)p;

    for (size_t i = 0; i < count * sizeof(*p); i++)
        if (byte[i] != ODD_BYTE)
            return false;
    return true;
}

static uint32_t between(struct prng *prng, uint32_t low, uint32_t high)
{
    return low + prng_below(prng, high - low + 1);
}

/* In [-1, 1); `wild`: also zeros of both signs, subnormals, and what overflows when multiplied. */
static float number(struct prng *prng, bool wild)
{
    const float plain = (float)(2 * prng_unit(prng_next(prng)) - 1);

    if (!wild)
        return plain;
    switch (prng_below(prng, 24)) {
    case 0:
        return 0.0f;
    case 1:
        return -0.0f;
    case 2:
        return plain * 1e-39f;
    case 3:
        return plain * 1e-20f;
    case 4:
        return plain * 1e15f;
    case 5:
        return prng_below(prng, 8) == 0 ? plain * 1e38f : plain;
    default:
        return plain;
    }
}

static float *numbers(struct prng *prng, size_t count, bool wild)
{
    float *p = exactly(count, sizeof(*p));

    for (size_t i = 0; i < count; i++)
        p[i] = number(prng, wild);
    return p;
}

/* ---------------------------------------------------------------------------------- matrix product */

struct product {
    struct tensor w;
    struct gemm g;
    float *x, *bias; /* owned, as what w and g point to */
    uint16_t *x16;
    void *weights;
};

static void product_open(struct product *p, struct prng *prng, uint32_t rows, uint32_t n,
                         uint32_t k, enum mc_dtype dtype, bool wild)
{
    const size_t x_stride = k + k % 2 + 2 * prng_below(prng, 10);
    const size_t x_count = (rows - 1) * x_stride + k;
    float *w = numbers(prng, (size_t)n * k, wild);

    *p = (struct product){ .x = exactly(x_count, sizeof(float)),
                           .x16 = exactly(x_count + k % 2, sizeof(uint16_t)),
                           .weights = w };
    for (uint32_t r = 0; r < rows; r++) {
        for (uint32_t i = 0; i < k; i++) {
            p->x[r * x_stride + i] = number(prng, wild);
            p->x16[r * x_stride + i] = bf16_from_f32(p->x[r * x_stride + i]);
        }
        if (k % 2 != 0)
            p->x16[r * x_stride + k] = 0;
    }
    if (dtype == MC_DTYPE_BF16) {
        uint16_t *half = exactly((size_t)n * k, sizeof(*half));
        for (size_t i = 0; i < (size_t)n * k; i++)
            half[i] = bf16_from_f32(w[i]);
        free(w);
        p->weights = half;
    }
    if (prng_below(prng, 2) == 0)
        p->bias = numbers(prng, n, wild);
    p->w = (struct tensor){ p->weights, dtype, n, k };
    p->g = (struct gemm){ .w = &p->w,
                          .x = p->x,
                          .x16 = p->x16,
                          .x_stride = x_stride,
                          .bias = p->bias,
                          .y_stride = n + prng_below(prng, 20),
                          .rows = rows };
}

static void product_close(struct product *p)
{
    free(p->x);
    free(p->x16);
    free(p->weights);
    free(p->bias);
}

static size_t y_count(const struct gemm *g)
{
    return (g->rows - 1) * g->y_stride + g->w->rows;
}

/* What every table must write: [0] those that round rows, [1] the others. */
struct answers {
    float *y[2];
};

static struct answers answers_to(const struct gemm *g)
{
    struct answers a;

    for (int rounds = 0; rounds < 2; rounds++) {
        a.y[rounds] = exactly(y_count(g), sizeof(float));
        for (uint32_t r = 0; r < g->rows; r++)
            for (uint32_t n = 0; n < g->w->rows; n++)
                a.y[rounds][r * g->y_stride + n] = naive_product(g, r, n, rounds);
    }
    return a;
}

/* Columns in pieces of `step`, the last ones first; between pieces only they may have changed. */
static void assert_product(const struct kernels *kernels, const struct product *p,
                           const float *expected, uint32_t step)
{
    struct gemm g = p->g;
    const uint32_t n = g.w->rows;
    void *scratch = scratch_of(kernels->gemm_scratch());

    g.y = exactly(y_count(&g), sizeof(float));
    for (uint32_t piece = (n + step - 1) / step; piece-- > 0;) {
        const uint32_t begin = piece * step, end = n - begin < step ? n : begin + step;
        kernels->gemm(&g, begin, end, scratch);
        for (uint32_t r = 0; r < g.rows; r++)
            assert_true(untouched(g.y + r * g.y_stride, begin));
    }
    for (uint32_t r = 0; r < g.rows; r++) {
        for (uint32_t i = 0; i < n; i++)
            if (!same_float(g.y[r * g.y_stride + i], expected[r * g.y_stride + i]))
                fail_msg(
                    "%s: %u rows, n %u, k %u, dtype %d, step %u: row %u column %u is %a, not %a",
                    kernels->name, g.rows, n, g.w->cols, (int)g.w->dtype, step, r, i,
                    (double)g.y[r * g.y_stride + i], (double)expected[r * g.y_stride + i]);
        if (r + 1 < g.rows)
            assert_true(untouched(g.y + r * g.y_stride + n, g.y_stride - n));
    }
    free(g.y);
    free(scratch);
}

static void check_product(struct prng *prng, uint32_t rows, uint32_t n, uint32_t k,
                          enum mc_dtype dtype, bool wild)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    struct product p;

    product_open(&p, prng, rows, n, k, dtype, wild);
    const struct answers a = answers_to(&p.g);
    for (size_t i = 0; i < count; i++) {
        if (wild && flushes_subnormals(tables[i]))
            continue;
        assert_product(tables[i], &p, a.y[tables[i]->rounds_rows], n);
        if (n > GEMM_COLUMNS_STEP)
            assert_product(tables[i], &p, a.y[tables[i]->rounds_rows],
                           GEMM_COLUMNS_STEP * between(prng, 1, (n - 1) / GEMM_COLUMNS_STEP));
    }
    free(a.y[0]);
    free(a.y[1]);
    product_close(&p);
}

static void test_a_product_is_one_chain_over_k_whatever_its_shape(void **state)
{
    static const uint32_t depths[] = { 1,   2,   15,  16,  17,  31,  32,  33, 63,
                                       255, 256, 257, 258, 511, 512, 513, 768 };
    struct prng prng = { .seed = 1 };

    (void)state;
    for (size_t i = 0; i < sizeof(depths) / sizeof(*depths); i++)
        for (uint32_t turn = 0; turn < 6; turn++) {
            /* Few rows take one path, more another: both at every depth. */
            const uint32_t rows = turn < 2 ? between(&prng, 1, 4) : between(&prng, 1, 40);
            check_product(&prng, rows, between(&prng, 1, 70), depths[i],
                          turn % 2 ? MC_DTYPE_BF16 : MC_DTYPE_F32, turn >= 4);
        }
    for (uint32_t turn = 0; turn < 60; turn++)
        check_product(&prng, between(&prng, 1, 16), between(&prng, 1, 70), between(&prng, 1, 70),
                      turn % 2 ? MC_DTYPE_BF16 : MC_DTYPE_F32, turn % 4 >= 2);
}

static void test_a_product_wider_than_a_packed_group_is_the_same_chains(void **state)
{
    struct prng prng = { .seed = 2 };

    (void)state;
    for (uint32_t rows = 1; rows <= 13; rows += 4)
        for (int bf16 = 0; bf16 < 2; bf16++)
            check_product(&prng, rows, 530 + rows, 37, bf16 ? MC_DTYPE_BF16 : MC_DTYPE_F32, false);
}

static void test_every_count_of_rows_gives_each_row_the_same_bits(void **state)
{
    struct prng prng = { .seed = 3 };

    (void)state;
    for (uint32_t rows = 1; rows <= 40; rows++)
        check_product(&prng, rows, 50, 41, rows % 2 ? MC_DTYPE_BF16 : MC_DTYPE_F32, false);
}

static void test_a_row_that_is_not_a_number_changes_no_other_row(void **state)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    struct prng prng = { .seed = 4 };

    (void)state;
    for (uint32_t turn = 0; turn < 24; turn++) {
        const uint32_t rows = between(&prng, 2, 20), bad = prng_below(&prng, rows);
        struct product p;
        product_open(&p, &prng, rows, between(&prng, 1, 70), between(&prng, 2, 300),
                     turn % 2 ? MC_DTYPE_BF16 : MC_DTYPE_F32, false);
        const struct answers before = answers_to(&p.g);
        const float odd = turn % 3 ? NAN : INFINITY;
        for (uint32_t k = 0; k < p.w.cols; k += 1 + prng_below(&prng, 3)) {
            p.x[bad * p.g.x_stride + k] = odd;
            p.x16[bad * p.g.x_stride + k] = bf16_from_f32(odd);
        }
        const struct answers after = answers_to(&p.g);
        for (uint32_t r = 0; r < rows; r++)
            for (uint32_t n = 0; n < p.w.rows && r != bad; n++)
                assert_true(same_float(before.y[0][r * p.g.y_stride + n],
                                       after.y[0][r * p.g.y_stride + n]));
        for (size_t i = 0; i < count; i++)
            assert_product(tables[i], &p, after.y[tables[i]->rounds_rows], p.w.rows);
        for (int i = 0; i < 2; i++) {
            free(before.y[i]);
            free(after.y[i]);
        }
        product_close(&p);
    }
}

/* Not of the kernels: that comparing bits can tell one order of a sum from another. */
static void test_another_order_over_k_gives_other_bits(void **state)
{
    struct prng prng = { .seed = 5 };
    struct product p;
    uint32_t halved = 0, backwards = 0, unfused = 0;

    (void)state;
    product_open(&p, &prng, 8, 40, 64, MC_DTYPE_F32, false);
    p.g.bias = NULL;
    for (uint32_t r = 0; r < 8; r++)
        for (uint32_t n = 0; n < 40; n++) {
            const float *x = p.x + r * p.g.x_stride;
            float low = 0, high = 0, back = 0, plain = 0;
            for (uint32_t k = 0; k < 64; k++) {
                float *half = k < 32 ? &low : &high;
                *half = fmaf(x[k], naive_weight(&p.w, n, k), *half);
                back = fmaf(x[63 - k], naive_weight(&p.w, n, 63 - k), back);
                plain += x[k] * naive_weight(&p.w, n, k);
            }
            const float chain = naive_product(&p.g, r, n, false);
            halved += !same_float(chain, low + high);
            backwards += !same_float(chain, back);
            unfused += !same_float(chain, plain);
        }
    assert_in_range(halved, 100, 320);
    assert_in_range(backwards, 100, 320);
    assert_in_range(unfused, 100, 320);
    product_close(&p);
}

/* --------------------------------------------------------------------------------------- attention */

/* Pages of a few heads side by side, of which one is looked at; the last page ends with the last token
 * that is there. */
struct attention {
    struct attend a;
    float *q;
    void *pages[16];
    uint32_t page_count;
    size_t q_count;
};

static void fill_head(struct prng *prng, const struct attend *a, size_t offset, uint32_t tokens,
                      bool wild)
{
    for (uint32_t t = 0; t < tokens; t++)
        for (uint32_t d = 0; d < a->dim; d++) {
            const float value = number(prng, wild) * (wild ? 1.0f : 2.0f);
            char *p = (char *)a->pages[t / 16] + offset + t % 16 * a->token_bytes;
            const uint16_t half = bf16_from_f32(value);
            if (a->dtype == MC_DTYPE_BF16)
                memcpy(p + d * 2, &half, 2);
            else
                memcpy(p + d * 4, &value, 4);
        }
}

static void attention_open(struct attention *s, struct prng *prng, uint32_t dim, uint32_t heads,
                           uint32_t position, uint32_t rows, bool wild)
{
    const enum mc_dtype dtype = prng_below(prng, 2) ? MC_DTYPE_BF16 : MC_DTYPE_F32;
    const size_t element = dtype == MC_DTYPE_BF16 ? 2 : 4;
    const uint32_t kv_heads = between(prng, 1, 3), kv_head = prng_below(prng, kv_heads);
    const uint32_t skipped = prng_below(prng, 3), last = position + rows - 1;
    const size_t token = kv_heads * dim * element, head = kv_head * dim * element;
    const bool values_first = prng_below(prng, 2);

    *s = (struct attention){ .page_count = last / 16 + 1 };
    s->a = (struct attend){ .stride = (size_t)(skipped + heads) * dim + prng_below(prng, 20),
                            .pages = s->pages,
                            .key_offset = head + (values_first ? 16 * token : 0),
                            .value_offset = head + (values_first ? 0 : 16 * token),
                            .token_bytes = token,
                            .dtype = dtype,
                            .position = position,
                            .row_begin = prng_below(prng, rows),
                            .row_end = rows,
                            .head_begin = skipped,
                            .head_count = heads,
                            .dim = dim,
                            .scale = 1.0f / sqrtf((float)dim) };
    s->q_count = (rows - 1) * s->a.stride + (size_t)(skipped + heads) * dim;
    s->q = numbers(prng, s->q_count, wild);
    for (size_t i = 0; i < s->q_count; i++)
        s->q[i] *= 4; /* peaked: pages raise the largest score again and again */
    s->a.q = s->q;
    for (uint32_t i = 0; i < s->page_count; i++) {
        const uint32_t there = i + 1 < s->page_count ? 16 : last % 16 + 1;
        /* The part that lies behind ends with its last token's head. */
        s->pages[i] = exactly(16 * token + (there - 1) * token + head + dim * element, 1);
    }
    fill_head(prng, &s->a, s->a.key_offset, last + 1, wild);
    fill_head(prng, &s->a, s->a.value_offset, last + 1, wild);
}

static void attention_close(struct attention *s)
{
    for (uint32_t i = 0; i < s->page_count; i++)
        free(s->pages[i]);
    free(s->q);
}

static bool is_output(const struct attend *a, size_t row, size_t column)
{
    return row >= a->row_begin && column >= (size_t)a->head_begin * a->dim &&
           column < (size_t)(a->head_begin + a->head_count) * a->dim;
}

static float *attention_answer(const struct attention *s)
{
    float *out = exactly(s->q_count, sizeof(*out));

    for (uint32_t r = s->a.row_begin; r < s->a.row_end; r++)
        for (uint32_t h = s->a.head_begin; h < s->a.head_begin + s->a.head_count; h++)
            naive_attend(&s->a, r, h, out + r * s->a.stride + (size_t)h * s->a.dim);
    return out;
}

static void assert_attention(const struct kernels *kernels, const struct attention *s,
                             const float *expected)
{
    struct attend a = s->a;
    void *scratch = scratch_of(kernels->attend_scratch(a.dim, a.head_count));
    float *out = exactly(s->q_count, sizeof(*out));

    a.out = out;
    kernels->attend(&a, scratch);
    for (size_t i = 0; i < s->q_count; i++) {
        if (!is_output(&a, i / a.stride, i % a.stride))
            assert_true(untouched(out + i, 1));
        else if (!same_float(out[i], expected[i]))
            fail_msg("%s: dim %u, %u heads, rows [%u, %u) from %u, dtype %d: row %zu element %zu "
                     "is %a, not %a",
                     kernels->name, a.dim, a.head_count, a.row_begin, a.row_end, a.position,
                     (int)a.dtype, i / a.stride, i % a.stride, (double)out[i], (double)expected[i]);
    }
    free(out);
    free(scratch);
}

static void check_attention(struct prng *prng, uint32_t dim, uint32_t heads, uint32_t position,
                            uint32_t rows, bool wild)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    struct attention s;

    attention_open(&s, prng, dim, heads, position, rows, wild);
    float *expected = attention_answer(&s);
    for (size_t i = 0; i < count; i++)
        assert_attention(tables[i], &s, expected);
    free(expected);
    attention_close(&s);
}

static void test_attention_walks_whole_pages_from_position_0(void **state)
{
    struct prng prng = { .seed = 6 };

    (void)state;
    for (uint32_t turn = 0; turn < 80; turn++)
        check_attention(&prng, 2 * between(&prng, 1, turn % 8 ? 33 : 65), between(&prng, 1, 8),
                        prng_below(&prng, 70), between(&prng, 1, turn % 4 ? 12 : ATTEND_ROWS),
                        turn % 5 == 4);
}

static void test_every_row_of_a_page_and_every_count_of_rows_is_the_definition(void **state)
{
    struct prng prng = { .seed = 7 };

    (void)state;
    for (uint32_t position = 0; position < 34; position++)
        check_attention(&prng, 6, between(&prng, 1, 3), position, 1, false);
    for (uint32_t rows = 1; rows <= ATTEND_ROWS; rows++)
        check_attention(&prng, 18, 1 + rows % 3, 16 * (rows % 3), rows, false);
    check_attention(&prng, HEAD_DIM_MAX, 2, 20, 3, false);
    check_attention(&prng, 2, 64, 5, ATTEND_ROWS, false);
}

static void test_a_query_that_is_not_a_number_changes_no_other_row_or_head(void **state)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    struct prng prng = { .seed = 8 };

    (void)state;
    for (uint32_t turn = 0; turn < 12; turn++) {
        struct attention s;
        attention_open(&s, &prng, 2 * between(&prng, 1, 20), 3, prng_below(&prng, 40),
                       between(&prng, 2, 9), false);
        s.a.row_begin = 0;
        float *before = attention_answer(&s);
        const uint32_t row = prng_below(&prng, s.a.row_end), head = s.a.head_begin + 1;
        float *q = s.q + row * s.a.stride + (size_t)head * s.a.dim;
        q[prng_below(&prng, s.a.dim)] = turn % 2 ? NAN : -INFINITY;
        float *after = attention_answer(&s);
        for (size_t i = 0; i < s.q_count; i++)
            if (i / s.a.stride != row || i % s.a.stride / s.a.dim != head)
                assert_true(same_float(before[i], after[i]));
        for (size_t i = 0; i < count; i++)
            assert_attention(tables[i], &s, after);
        free(before);
        free(after);
        attention_close(&s);
    }
}

/* ------------------------------------------------------------------------------------------- rows */

enum { COUNTS = 90 };

static void assert_row(const struct kernels *kernels, const char *what, const float *found,
                       const float *expected, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        if (!same_float(found[i], expected[i]))
            fail_msg("%s: %s of %u: element %u is %a, not %a", kernels->name, what, count, i,
                     (double)found[i], (double)expected[i]);
}

static void check_row(const struct kernels *kernels, struct prng *prng, uint32_t count, bool wild)
{
    float *x = numbers(prng, count, wild), *other = numbers(prng, count, wild);
    float *y = exactly(count, sizeof(*y)), *expected = exactly(count, sizeof(*y));
    float found[2], stats[2];

    naive_norm(expected, x, other, count, 1e-5f);
    kernels->norm(y, x, other, count, 1e-5f);
    assert_row(kernels, "norm", y, expected, count);

    for (uint32_t i = 0; i < count; i++) {
        x[i] *= 30;
        expected[i] = naive_silu_mul(x[i], other[i]);
    }
    kernels->silu_mul(y, x, other, count);
    assert_row(kernels, "silu_mul", y, expected, count);

    kernels->softmax_stats(x, count, &found[0], &found[1]);
    naive_softmax_stats(x, count, &stats[0], &stats[1]);
    assert_row(kernels, "softmax_stats", found, stats, 2);

    for (uint32_t i = 0; i < count; i++)
        expected[i] = exact_exp((x[i] - 0.75f) * 1.7f);
    kernels->weights(y, x, count, 0.75f, 1.7f);
    assert_row(kernels, "weights", y, expected, count);

    /* In place, as the engine calls them. */
    memcpy(y, x, count * sizeof(*y));
    naive_norm(expected, x, other, count, 0.25f);
    kernels->norm(y, y, other, count, 0.25f);
    assert_row(kernels, "norm in place", y, expected, count);
    for (uint32_t i = 0; i < count; i++)
        expected[i] = naive_silu_mul(x[i], other[i]);
    memcpy(y, x, count * sizeof(*y));
    kernels->silu_mul(y, y, other, count);
    assert_row(kernels, "silu_mul over gate", y, expected, count);
    kernels->silu_mul(other, x, other, count);
    assert_row(kernels, "silu_mul over up", other, expected, count);
    free(x);
    free(other);
    free(y);
    free(expected);
}

static void test_rows_are_sixteen_chains_and_one_tree(void **state)
{
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);

    (void)state;
    for (size_t i = 0; i < count; i++) {
        struct prng prng = { .seed = 9 };
        for (uint32_t n = 1; n <= COUNTS; n++) {
            check_row(tables[i], &prng, n, false);
            check_row(tables[i], &prng, n, true);
        }
        check_row(tables[i], &prng, 1000, false);
    }
}

static void test_softmax_stats_of_rows_without_numbers_are_those_of_the_definition(void **state)
{
    const float odd[] = { NAN, -INFINITY, INFINITY, -0.0f, 0.0f };
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    struct prng prng = { .seed = 10 };

    (void)state;
    for (uint32_t turn = 0; turn < 200; turn++) {
        const uint32_t n = between(&prng, 1, 40);
        float *x = exactly(n, sizeof(*x)), expected[2], found[2];
        for (uint32_t i = 0; i < n; i++)
            x[i] = turn % 4 ? odd[prng_below(&prng, 5)] : odd[turn / 4 % 2];
        naive_softmax_stats(x, n, &expected[0], &expected[1]);
        for (size_t i = 0; i < count; i++) {
            tables[i]->softmax_stats(x, n, &found[0], &found[1]);
            /* Which zero is the largest is no difference that anything can see. */
            assert_true(found[0] == expected[0]);
            assert_true(same_float(found[1], expected[1]));
        }
        free(x);
    }
}

static void test_the_vector_exp_is_exact_exp(void **state)
{
    enum { SPREAD = 60000 };
    const struct kernels *tables[KERNEL_TABLES_MAX];
    const size_t count = kernel_tables(tables);
    float *x = exactly(SPREAD, sizeof(*x)), *y = exactly(SPREAD, sizeof(*y));
    const float odd[] = { NAN,      INFINITY, -INFINITY, 0.0f,  -0.0f,  1e-45f,     -87.0f,
                          -87.001f, 88.0f,    88.5f,     3e38f, -3e38f, 0.34657359f };
    const uint32_t odd_count = sizeof(odd) / sizeof(*odd);

    (void)state;
    memcpy(x, odd, sizeof(odd));
    for (uint32_t i = odd_count; i < SPREAD; i++)
        x[i] = -90.0f + 180.0f * (float)i / SPREAD;
    for (size_t t = 0; t < count; t++) {
        tables[t]->weights(y, x, SPREAD, 0.0f, 1.0f);
        for (uint32_t i = 0; i < SPREAD; i++) {
            const float expected = exact_exp(x[i]);
            if (memcmp(&y[i], &expected, sizeof(expected)) != 0)
                fail_msg("%s: exp(%a) is %a, not %a", tables[t]->name, (double)x[i], (double)y[i],
                         (double)expected);
        }
    }
    free(x);
    free(y);
}

/* ------------------------------------------------------------------------------------------ table */

static void test_tables_are_found_by_name_and_the_best_by_none(void **state)
{
    const struct kernels *const *usable = kernels_usable();
    size_t count = 0;

    (void)state;
    assert_ptr_equal(kernels_find(NULL), usable[0]);
    for (; usable[count]; count++)
        assert_ptr_equal(kernels_find(usable[count]->name), usable[count]);
    assert_string_equal(usable[count - 1]->name, "ref");
    assert_null(kernels_find("avx3"));
    assert_null(kernels_find(""));
    assert_null(kernels_find("avx512-bf16-emulated")); /* tests only */
}

static void test_bf16_is_rounded_to_nearest_even_and_a_nan_stays_one(void **state)
{
    (void)state;
    for (uint32_t half = 0; half < 0x10000; half++) {
        const float exact = bf16_to_f32((uint16_t)half);
        if (isnan(exact)) {
            assert_true(isnan(bf16_to_f32(bf16_from_f32(exact))));
            continue;
        }
        assert_int_equal(bf16_from_f32(exact), half);
        if (isinf(exact))
            continue;
        /* The float half-way to the next one away from zero, and its neighbours. */
        const uint32_t word = half << 16 | 0x8000u;
        float tie, below, above;
        memcpy(&tie, &word, 4);
        memcpy(&below, &(uint32_t){ word - 1 }, 4);
        memcpy(&above, &(uint32_t){ word + 1 }, 4);
        assert_int_equal(bf16_from_f32(below), half);
        assert_int_equal(bf16_from_f32(tie), half + (half & 1));
        assert_int_equal(bf16_from_f32(above), half + 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_product_is_one_chain_over_k_whatever_its_shape),
        cmocka_unit_test(test_a_product_wider_than_a_packed_group_is_the_same_chains),
        cmocka_unit_test(test_every_count_of_rows_gives_each_row_the_same_bits),
        cmocka_unit_test(test_a_row_that_is_not_a_number_changes_no_other_row),
        cmocka_unit_test(test_another_order_over_k_gives_other_bits),
        cmocka_unit_test(test_attention_walks_whole_pages_from_position_0),
        cmocka_unit_test(test_every_row_of_a_page_and_every_count_of_rows_is_the_definition),
        cmocka_unit_test(test_a_query_that_is_not_a_number_changes_no_other_row_or_head),
        cmocka_unit_test(test_rows_are_sixteen_chains_and_one_tree),
        cmocka_unit_test(test_softmax_stats_of_rows_without_numbers_are_those_of_the_definition),
        cmocka_unit_test(test_the_vector_exp_is_exact_exp),
        cmocka_unit_test(test_tables_are_found_by_name_and_the_best_by_none),
        cmocka_unit_test(test_bf16_is_rounded_to_nearest_even_and_a_nan_stays_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
