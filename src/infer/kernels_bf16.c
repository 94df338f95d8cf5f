/*
 * kernels_bf16.c - AVX-512 with BF16 dot products: BF16 weights times activations rounded to BF16.
 *
 * A chain here takes two links at a time, as vdpbf16ps does: first the product at odd k, then the one
 * at even k, each added with one rounding (Intel SDM, VDPBF16PS; subnormals count as zero).
 *
 * With MC_EMULATE_BF16 the instruction is spelt with AVX-512F, so that the code around it is tested on
 * processors that lack it; that table is for tests and not among the usable ones.
 */
#include "infer/vec_avx512.h"

#include "infer/kernels_body.h"

ALWAYS_INLINE v16 dot_pairs(v16 sum, v16 x_pairs, v16 w_pairs)
{
#ifdef MC_EMULATE_BF16
    sum = v_fma(v_bf16_high(x_pairs), v_bf16_high(w_pairs), sum);
    return v_fma(v_bf16_low(x_pairs), v_bf16_low(w_pairs), sum);
#else
    return _mm512_dpbf16_ps(sum, (__m512bh)x_pairs, (__m512bh)w_pairs);
#endif
}

/* Two BF16 of a row in every word; the last of an odd row is paired with zero. */
ALWAYS_INLINE v16 pair_at(const uint16_t *x, uint32_t k, uint32_t count)
{
    uint32_t word = x[k];

    if (k + 1 < count)
        word |= (uint32_t)x[k + 1] << 16;
    return _mm512_castsi512_ps(_mm512_set1_epi32((int)word));
}

ALWAYS_INLINE void pairs_tile(uint32_t rows, const uint16_t *x, size_t x_stride, const float *panel,
                              uint32_t count, float *y, size_t y_stride, bool first)
{
    v16 sum[GEMM_ROWS][GEMM_PANEL];

    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t g = 0; g < GEMM_PANEL; g++)
            sum[r][g] = first ? v_set1(0.0f) : v_load(y + r * y_stride + g * LANES);
    for (uint32_t k = 0; k < count; k += 2) {
        v16 w[GEMM_PANEL];
        for (uint32_t g = 0; g < GEMM_PANEL; g++)
            w[g] = v_load_bits(panel + k / 2 * PANEL_COLUMNS + g * LANES);
        for (uint32_t r = 0; r < rows; r++) {
            const v16 xk = pair_at(x + r * x_stride, k, count);
            for (uint32_t g = 0; g < GEMM_PANEL; g++)
                sum[r][g] = dot_pairs(sum[r][g], xk, w[g]);
        }
    }
    for (uint32_t r = 0; r < rows; r++)
        for (uint32_t g = 0; g < GEMM_PANEL; g++)
            v_store(y + r * y_stride + g * LANES, sum[r][g]);
}

static void bf16_tile(const struct gemm *g, uint32_t m, uint32_t rows, uint32_t k, uint32_t count,
                      const float *panel, float *y, size_t y_stride)
{
    const uint16_t *x = g->x16 + m * g->x_stride + k;

#define PAIRS_TILE(n) pairs_tile(n, x, g->x_stride, panel, count, y, y_stride, k == 0)
    TILE_CASES(PAIRS_TILE)
}

static void gemm_pairs(const struct gemm *g, uint32_t begin, uint32_t end, void *scratch)
{
    assert(begin % GEMM_COLUMNS_STEP == 0 && end <= g->w->rows);
    if (g->w->dtype != MC_DTYPE_BF16) {
        gemm_plain(g, begin, end, scratch);
        return;
    }
    for (uint32_t n = begin; n < end; n += GEMM_GROUP)
        gemm_panels(g, n, end - n < GEMM_GROUP ? end : n + GEMM_GROUP, true, bf16_tile, scratch);
}

static uint64_t peak_pairs(uint64_t rounds, float *sink)
{
    v16 sum[GEMM_ROWS][GEMM_PANEL];
    v16 x = v_set1(*sink), w = x;

    for (uint32_t r = 0; r < GEMM_ROWS; r++)
        for (uint32_t g = 0; g < GEMM_PANEL; g++)
            sum[r][g] = v_set1((float)(r * GEMM_PANEL + g));
    for (uint64_t i = 0; i < rounds * PEAK_TURNS; i++)
        for (uint32_t r = 0; r < GEMM_ROWS; r++)
            for (uint32_t g = 0; g < GEMM_PANEL; g++)
                sum[r][g] = dot_pairs(sum[r][g], x, w);
    for (uint32_t r = 0; r < GEMM_ROWS; r++)
        for (uint32_t g = 0; g < GEMM_PANEL; g++)
            x = v_add(x, sum[r][g]);
    *sink = v_sum(x);
    return 2 * rounds * PEAK_TURNS * GEMM_ROWS * GEMM_PANEL * PEAK_FLOPS_PER_LINK;
}

#ifdef MC_EMULATE_BF16
extern const struct kernels kernels_emulated_bf16;
const struct kernels kernels_emulated_bf16 =
    KERNELS_TABLE("avx512-bf16-emulated", true, gemm_pairs, peak_pairs);
#else
const struct kernels kernels_avx512_bf16 =
    KERNELS_TABLE("avx512-bf16", true, gemm_pairs, peak_pairs);
#endif
