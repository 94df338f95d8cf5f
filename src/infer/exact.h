/*
 * exact.h - exp, log, sin and cos from exactly rounded operations only.
 *
 * The C library's versions differ in the last bit from one release, or one processor, to the next.
 * These are the same everywhere, which is what lets two workers give the same bits. They are close to
 * correctly rounded, not exactly: errors below 2 ulp of a float.
 *
 * Pure; any thread.
 */
#ifndef INFER_EXACT_H
#define INFER_EXACT_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* exp(x) = 2^n exp(r), r in [-ln2/2, ln2/2]; minimax polynomial as in Cephes' expf (Moshier). Shared
 * with the vector code, which must take the same steps in the same order. */
#define EXACT_LOG2E 1.44269504088896341f
#define EXACT_LN2_HIGH 0.693359375f
#define EXACT_LN2_LOW (-2.12194440e-4f)
#define EXACT_EXP_MIN (-87.0f) /* below: 0, so that results are never subnormal */
#define EXACT_EXP_MAX 88.0f    /* above: as at this bound */
#define EXACT_EXP_C0 1.9875691500e-4f
#define EXACT_EXP_C1 1.3981999507e-3f
#define EXACT_EXP_C2 8.3334519073e-3f
#define EXACT_EXP_C3 4.1665795894e-2f
#define EXACT_EXP_C4 1.6666665459e-1f
#define EXACT_EXP_C5 5.0000001201e-1f

/** e^x; 0 below -87 and for what is not a number, e^88 above 88. The same bits as the kernels' vector
 * exp. Here, so that kernels compiled with FMA instructions inline it. */
static inline float exact_exp(float x)
{
    if (!(x >= EXACT_EXP_MIN))
        return 0.0f;
    if (x > EXACT_EXP_MAX)
        x = EXACT_EXP_MAX;

    const float n = rintf(x * EXACT_LOG2E);
    float r = fmaf(n, -EXACT_LN2_HIGH, x);
    r = fmaf(n, -EXACT_LN2_LOW, r);
    float p = EXACT_EXP_C0;
    p = fmaf(p, r, EXACT_EXP_C1);
    p = fmaf(p, r, EXACT_EXP_C2);
    p = fmaf(p, r, EXACT_EXP_C3);
    p = fmaf(p, r, EXACT_EXP_C4);
    p = fmaf(p, r, EXACT_EXP_C5);
    p = fmaf(p, r * r, r) + 1.0f;

    const uint32_t bits = (uint32_t)((int32_t)n + 127) << 23; /* 2^n */
    float power;
    memcpy(&power, &bits, sizeof(power));
    return p * power;
}

/** Natural logarithm of x > 0, finite. */
double exact_log(double x);

/** 2^x-free power: base^exponent for base > 0, by exact_log and a double exp. */
double exact_pow(double base, double exponent);

/** Sine and cosine of x radians, |x| < 2^30. */
void exact_sincos(double x, double *sin_p, double *cos_p);

#endif /* INFER_EXACT_H */
