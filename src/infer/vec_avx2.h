/* vec_avx2.h - sixteen floats in two AVX2 registers; equal to vec_ref.h, lane by lane. */
#ifndef INFER_VEC_AVX2_H
#define INFER_VEC_AVX2_H

#include <immintrin.h>
#include <stdint.h>

typedef struct {
    __m256 lo, hi;
} v16;

enum { GEMM_ROWS = 6, GEMM_PANEL = 1, ATTEND_QUERIES = 2, ATTEND_VECTORS = 2 };

/* Large enough that gcc would call it, small enough that it must not; sanitizers' checks in every copy
 * would take minutes to compile. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define V_LARGE static inline
#else
#define V_LARGE static inline __attribute__((always_inline))
#endif

/* A table of one-line operations reads better as one. */
/* clang-format off */
static inline v16 v_set1(float x) { return (v16){ _mm256_set1_ps(x), _mm256_set1_ps(x) }; }
static inline v16 v_load(const float *p) { return (v16){ _mm256_loadu_ps(p), _mm256_loadu_ps(p + 8) }; }
static inline void v_store(float *p, v16 a)
{
    _mm256_storeu_ps(p, a.lo);
    _mm256_storeu_ps(p + 8, a.hi);
}
static inline v16 v_add(v16 a, v16 b) { return (v16){ _mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi) }; }
static inline v16 v_sub(v16 a, v16 b) { return (v16){ _mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi) }; }
static inline v16 v_mul(v16 a, v16 b) { return (v16){ _mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi) }; }
static inline v16 v_div(v16 a, v16 b) { return (v16){ _mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi) }; }
static inline v16 v_fma(v16 a, v16 b, v16 c)
{
    return (v16){ _mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi) };
}
static inline v16 v_max(v16 a, v16 b) { return (v16){ _mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi) }; }
static inline v16 v_min(v16 a, v16 b) { return (v16){ _mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi) }; }

static inline v16 v_rint(v16 a)
{
    enum { NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC };

    return (v16){ _mm256_round_ps(a.lo, NEAREST), _mm256_round_ps(a.hi, NEAREST) };
}

static inline v16 v_where_ge(v16 x, v16 bound, v16 a)
{
    return (v16){ _mm256_and_ps(_mm256_cmp_ps(x.lo, bound.lo, _CMP_GE_OQ), a.lo),
                  _mm256_and_ps(_mm256_cmp_ps(x.hi, bound.hi, _CMP_GE_OQ), a.hi) };
}

static inline v16 v_first(v16 a, uint32_t count, float other)
{
    const __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i bound = _mm256_set1_epi32((int)(count < 16 ? count : 16));
    const __m256 keep_lo = _mm256_castsi256_ps(_mm256_cmpgt_epi32(bound, index));
    const __m256 keep_hi = _mm256_castsi256_ps(
        _mm256_cmpgt_epi32(bound, _mm256_add_epi32(index, _mm256_set1_epi32(8))));
    const __m256 o = _mm256_set1_ps(other);

    return (v16){ _mm256_blendv_ps(o, a.lo, keep_lo), _mm256_blendv_ps(o, a.hi, keep_hi) };
}

static inline __m256 power_of_two(__m256 n)
{
    return _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvttps_epi32(n), _mm256_set1_epi32(127)), 23));
}

static inline v16 v_scale2(v16 a, v16 n)
{
    return (v16){ _mm256_mul_ps(a.lo, power_of_two(n.lo)), _mm256_mul_ps(a.hi, power_of_two(n.hi)) };
}

static inline __m256 widen_bf16(__m128i eight)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight), 16));
}

static inline v16 v_load_bf16(const uint16_t *p)
{
    return (v16){ widen_bf16(_mm_loadu_si128((const __m128i *)p)),
                  widen_bf16(_mm_loadu_si128((const __m128i *)(p + 8))) };
}

static inline __m256 bf16_low(__m256 a)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(a), 16));
}

static inline __m256 bf16_high(__m256 a)
{
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u)));
}

static inline v16 v_bf16_low(v16 a) { return (v16){ bf16_low(a.lo), bf16_low(a.hi) }; }
static inline v16 v_bf16_high(v16 a) { return (v16){ bf16_high(a.lo), bf16_high(a.hi) }; }
static inline v16 v_load_bits(const void *p) { return v_load(p); }

static inline float v_sum(v16 a)
{
    const __m256 b = _mm256_add_ps(a.lo, a.hi);
    const __m128 c = _mm_add_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_add_ps(c, _mm_movehl_ps(c, c));

    return _mm_cvtss_f32(_mm_add_ss(d, _mm_shuffle_ps(d, d, 1)));
}

static inline float v_largest(v16 a)
{
    const __m256 b = _mm256_max_ps(a.lo, a.hi);
    const __m128 c = _mm_max_ps(_mm256_castps256_ps128(b), _mm256_extractf128_ps(b, 1));
    const __m128 d = _mm_max_ps(c, _mm_movehl_ps(c, c));

    return _mm_cvtss_f32(_mm_max_ss(d, _mm_shuffle_ps(d, d, 1)));
}

V_LARGE void transpose8(__m256 *r[8])
{
    __m256 t[8], u[8];

    for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(*r[2 * i], *r[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(*r[2 * i], *r[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        for (int h = 0; h < 2; h++) {
            u[4 * i + 2 * h] = _mm256_shuffle_ps(t[4 * i + h], t[4 * i + 2 + h], 0x44);
            u[4 * i + 2 * h + 1] = _mm256_shuffle_ps(t[4 * i + h], t[4 * i + 2 + h], 0xee);
        }
    }
    for (int i = 0; i < 4; i++) {
        *r[i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x20);
        *r[4 + i] = _mm256_permute2f128_ps(u[i], u[4 + i], 0x31);
    }
}

/* Four 8 x 8 blocks; the two off the diagonal change places. */
V_LARGE void v_transpose(v16 r[16])
{
    __m256 *a[8], *b[8], *c[8], *d[8];

    for (int i = 0; i < 8; i++) {
        a[i] = &r[i].lo;
        b[i] = &r[i].hi;
        c[i] = &r[8 + i].lo;
        d[i] = &r[8 + i].hi;
    }
    transpose8(a);
    transpose8(b);
    transpose8(c);
    transpose8(d);
    for (int i = 0; i < 8; i++) {
        const __m256 t = *b[i];
        *b[i] = *c[i];
        *c[i] = t;
    }
}

/* always_inline: gcc 12 drops a call to a function that does nothing but prefetch. */
static inline __attribute__((always_inline)) void v_prefetch(const void *p) { _mm_prefetch(p, _MM_HINT_T0); }

#undef V_LARGE

/* clang-format on */

#endif /* INFER_VEC_AVX2_H */
