/* vec_ref.h - sixteen floats in plain C: what every other vector header must equal, lane by lane. */
#ifndef INFER_VEC_REF_H
#define INFER_VEC_REF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef struct {
    float lane[16];
} v16;

enum { GEMM_ROWS = 4, GEMM_PANEL = 1, ATTEND_QUERIES = 2, ATTEND_VECTORS = 2 };

/* A table of one-line operations reads better as one. */
/* clang-format off */
#define V_EACH(expression)                                                                          \
    v16 r;                                                                                          \
    for (int i = 0; i < 16; i++)                                                                    \
        r.lane[i] = (expression);                                                                   \
    return r

static inline v16 v_set1(float x) { V_EACH(x); }
static inline v16 v_load(const float *p) { V_EACH(p[i]); }
static inline v16 v_add(v16 a, v16 b) { V_EACH(a.lane[i] + b.lane[i]); }
static inline v16 v_sub(v16 a, v16 b) { V_EACH(a.lane[i] - b.lane[i]); }
static inline v16 v_mul(v16 a, v16 b) { V_EACH(a.lane[i] * b.lane[i]); }
static inline v16 v_div(v16 a, v16 b) { V_EACH(a.lane[i] / b.lane[i]); }
static inline v16 v_fma(v16 a, v16 b, v16 c) { V_EACH(fmaf(a.lane[i], b.lane[i], c.lane[i])); }
/* The second operand where one is not a number, as the processor's max does. */
static inline v16 v_max(v16 a, v16 b) { V_EACH(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline v16 v_min(v16 a, v16 b) { V_EACH(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline v16 v_rint(v16 a) { V_EACH(rintf(a.lane[i])); }
/* a where x >= bound, else +0. */
static inline v16 v_where_ge(v16 x, v16 bound, v16 a) { V_EACH(x.lane[i] >= bound.lane[i] ? a.lane[i] : 0.0f); }
/* Lanes at `count` and beyond become `other`. */
static inline v16 v_first(v16 a, uint32_t count, float other) { V_EACH((uint32_t)i < count ? a.lane[i] : other); }

static inline void v_store(float *p, v16 a)
{
    memcpy(p, a.lane, sizeof(a.lane));
}

static inline uint32_t lane_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof(u));
    return u;
}

static inline float lane_float(uint32_t u)
{
    float x;
    memcpy(&x, &u, sizeof(x));
    return x;
}

/* a x 2^n for integral n in [-126, 127]. */
static inline v16 v_scale2(v16 a, v16 n) { V_EACH(a.lane[i] * lane_float((uint32_t)((int32_t)n.lane[i] + 127) << 23)); }
/* Sixteen BF16 to floats. */
static inline v16 v_load_bf16(const uint16_t *p) { V_EACH(lane_float((uint32_t)p[i] << 16)); }
/* Lanes hold two BF16 each: the one at the lower address, the one at the higher. */
static inline v16 v_bf16_low(v16 a) { V_EACH(lane_float(lane_bits(a.lane[i]) << 16)); }
static inline v16 v_bf16_high(v16 a) { V_EACH(lane_float(lane_bits(a.lane[i]) & 0xffff0000u)); }
/* Sixteen 32-bit patterns, never looked at as numbers. */
static inline v16 v_load_bits(const void *p)
{
    v16 r;
    memcpy(r.lane, p, sizeof(r.lane));
    return r;
}

/* The fixed tree: lanes i and i + 8, then 4, 2, 1. */
static inline float v_sum(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.lane[i] = a.lane[i] + a.lane[i + half];
    return a.lane[0];
}

static inline float v_largest(v16 a)
{
    for (int half = 8; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            a.lane[i] = a.lane[i] > a.lane[i + half] ? a.lane[i] : a.lane[i + half];
    return a.lane[0];
}

static inline void v_transpose(v16 r[16])
{
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < i; j++) {
            const float t = r[i].lane[j];
            r[i].lane[j] = r[j].lane[i];
            r[j].lane[i] = t;
        }
}

static inline void v_prefetch(const void *p)
{
    (void)p;
}

#undef V_EACH

/* clang-format on */

#endif /* INFER_VEC_REF_H */
