/*
 * kernels_body.h - every kernel once, over the sixteen-lane vector that the including file chose.
 *
 * Included by kernels_<level>.c after its vec_<level>.h. What those headers may differ in is speed:
 * v16 operations are exactly rounded per lane, and the shapes of the tiles below (GEMM_ROWS x
 * GEMM_PANEL vectors, ATTEND_QUERIES x ATTEND_VECTORS) only say which outputs are computed side by
 * side, never in which order one output's terms are added.
 */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "infer/config.h"
#include "infer/exact.h"
#include "infer/kernels.h"

enum { LINE_BYTES = 64 }; /* of a cache line */

/* 1 before the include: inputs of BF16 matrices come rounded to BF16 and are multiplied in pairs. */
#ifndef KERNELS_ROUND_ROWS
#define KERNELS_ROUND_ROWS 0
#endif

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* A loop over a constant few vectors, unrolled: left as a loop, the compiler keeps them in memory.
 * Sanitized builds would compile for minutes. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(__clang__)
#define EACH(i, count) for (uint32_t i = 0; i < (count); i++)
#else
#define EACH(i, count) _Pragma("GCC unroll 16") for (uint32_t i = 0; i < (count); i++)
#endif

static inline v16 v_exp(v16 x)
{
    const v16 clamped = v_min(v_max(x, v_set1(EXACT_EXP_MIN)), v_set1(EXACT_EXP_MAX));
    const v16 n = v_rint(v_mul(clamped, v_set1(EXACT_LOG2E)));
    v16 r = v_fma(n, v_set1(-EXACT_LN2_HIGH), clamped);
    r = v_fma(n, v_set1(-EXACT_LN2_LOW), r);
    v16 p = v_set1(EXACT_EXP_C0);
    p = v_fma(p, r, v_set1(EXACT_EXP_C1));
    p = v_fma(p, r, v_set1(EXACT_EXP_C2));
    p = v_fma(p, r, v_set1(EXACT_EXP_C3));
    p = v_fma(p, r, v_set1(EXACT_EXP_C4));
    p = v_fma(p, r, v_set1(EXACT_EXP_C5));
    p = v_add(v_fma(p, v_mul(r, r), r), v_set1(1.0f));
    return v_where_ge(x, v_set1(EXACT_EXP_MIN), v_scale2(p, n));
}

/* The first `count` (1 .. 16) floats at p, the rest `other`, without reading past them. */
static v16 load_first(const float *p, uint32_t count, float other)
{
    float lanes[LANES];

    for (uint32_t i = 0; i < LANES; i++)
        lanes[i] = i < count ? p[i] : other;
    return v_load(lanes);
}

static void store_first(float *p, v16 a, uint32_t count)
{
    float lanes[LANES];

    v_store(lanes, a);
    memcpy(p, lanes, count * sizeof(float));
}

#include "infer/body_gemm.h"
#include "infer/body_attend.h"
#include "infer/body_rows.h"

#define KERNELS_TABLE(level_name) \
    { \
        .name = level_name, .rounds_rows = KERNELS_ROUND_ROWS, .gemm = gemm, \
        .gemm_scratch = gemm_scratch, .attend = attend, .attend_scratch = attend_scratch, \
        .norm = norm, .silu_mul = silu_mul, .weights = weights, .softmax_stats = softmax_stats, \
        .peak = peak, .peak_bf16 = peak_bf16, .read = read_floats, \
    }
