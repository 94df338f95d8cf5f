/* vec_avx512.h - sixteen floats in one AVX-512 register; equal to vec_ref.h, lane by lane. */
#ifndef INFER_VEC_AVX512_H
#define INFER_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>

typedef __m512 v16;

enum { GEMM_ROWS = 12, GEMM_PANEL = 2, ATTEND_QUERIES = 4, ATTEND_VECTORS = 4 };

/* Large enough that gcc would call it, small enough that it must not; sanitizers' checks in every copy
 * would take minutes to compile. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define V_LARGE static inline
#else
#define V_LARGE static inline __attribute__((always_inline))
#endif

/* A table of one-line operations reads better as one. */
/* clang-format off */
static inline v16 v_set1(float x) { return _mm512_set1_ps(x); }
static inline v16 v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, v16 a) { _mm512_storeu_ps(p, a); }
static inline v16 v_add(v16 a, v16 b) { return _mm512_add_ps(a, b); }
static inline v16 v_sub(v16 a, v16 b) { return _mm512_sub_ps(a, b); }
static inline v16 v_mul(v16 a, v16 b) { return _mm512_mul_ps(a, b); }
static inline v16 v_div(v16 a, v16 b) { return _mm512_div_ps(a, b); }
static inline v16 v_fma(v16 a, v16 b, v16 c) { return _mm512_fmadd_ps(a, b, c); }
static inline v16 v_max(v16 a, v16 b) { return _mm512_max_ps(a, b); }
static inline v16 v_min(v16 a, v16 b) { return _mm512_min_ps(a, b); }

static inline v16 v_rint(v16 a)
{
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline v16 v_where_ge(v16 x, v16 bound, v16 a)
{
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, bound, _CMP_GE_OQ), a);
}

static inline v16 v_first(v16 a, uint32_t count, float other)
{
    const __mmask16 keep = (__mmask16)(count >= 16 ? 0xffffu : (1u << count) - 1u);

    return _mm512_mask_mov_ps(_mm512_set1_ps(other), keep, a);
}

static inline v16 v_scale2(v16 a, v16 n)
{
    const __m512i power = _mm512_slli_epi32(
        _mm512_add_epi32(_mm512_cvttps_epi32(n), _mm512_set1_epi32(127)), 23);

    return _mm512_mul_ps(a, _mm512_castsi512_ps(power));
}

static inline v16 v_load_bf16(const uint16_t *p)
{
    const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));

    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline v16 v_bf16_low(v16 a)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(a), 16));
}

static inline v16 v_bf16_high(v16 a)
{
    return _mm512_castsi512_ps(
        _mm512_and_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)0xffff0000u)));
}

static inline v16 v_load_bits(const void *p) { return _mm512_loadu_ps(p); }

static inline float v_sum(v16 a)
{
    const __m256 b = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));

    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

static inline float v_largest(v16 a)
{
    const __m256 b = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));

    return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

/* 32-bit pairs, 64-bit pairs, then 128-bit quarters twice: 64 shuffles for 16 x 16. */
V_LARGE void v_transpose(v16 r[16])
{
    v16 t[16], u[16];

    for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(r[2 * i], r[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(r[2 * i], r[2 * i + 1]);
    }
    for (int i = 0; i < 4; i++) {
        for (int h = 0; h < 2; h++) {
            const __m512d a = _mm512_castps_pd(t[4 * i + h]), b = _mm512_castps_pd(t[4 * i + 2 + h]);
            u[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            u[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    for (int i = 0; i < 4; i++) {
        const v16 ab_even = _mm512_shuffle_f32x4(u[i], u[4 + i], 0x88);
        const v16 ab_odd = _mm512_shuffle_f32x4(u[i], u[4 + i], 0xdd);
        const v16 cd_even = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0x88);
        const v16 cd_odd = _mm512_shuffle_f32x4(u[8 + i], u[12 + i], 0xdd);
        r[i] = _mm512_shuffle_f32x4(ab_even, cd_even, 0x88);
        r[8 + i] = _mm512_shuffle_f32x4(ab_even, cd_even, 0xdd);
        r[4 + i] = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0x88);
        r[12 + i] = _mm512_shuffle_f32x4(ab_odd, cd_odd, 0xdd);
    }
}

/* always_inline: gcc 12 drops a call to a function that does nothing but prefetch. */
static inline __attribute__((always_inline)) void v_prefetch(const void *p) { _mm_prefetch(p, _MM_HINT_T0); }

#undef V_LARGE

/* clang-format on */

#endif /* INFER_VEC_AVX512_H */
