/* exact.c - elementary functions whose every step is an exactly rounded operation. */
#include "infer/exact.h"

#include <assert.h>
#include <math.h>
#include <stdint.h>

double exact_log(double x)
{
    assert(x > 0 && x < INFINITY);
    /* x = m 2^e with m in [1/sqrt 2, sqrt 2); log m = 2 atanh s, s = (m - 1) / (m + 1), |s| < 0.172. */
    int e;
    double m = frexp(x, &e); /* exact: only moves the binary point */
    if (m < 0.70710678118654752440) {
        m *= 2;
        e--;
    }
    const double s = (m - 1) / (m + 1), s2 = s * s;
    double sum = 0;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * s2 + 1.0 / k;
    const double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    return e * ln2_high + (2 * s * sum + e * ln2_low);
}

/* exp by the same reduction as exact_exp, in double: the Taylor series to r^17, |r| < 0.35. */
static double exp_double(double x)
{
    const double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    const double n = rint(x * 1.44269504088896338700e+00);
    const double r = (x - n * ln2_high) - n * ln2_low;
    double sum = 1;

    for (int k = 17; k >= 1; k--)
        sum = sum * r / k + 1;
    return ldexp(sum, (int)n);
}

double exact_pow(double base, double exponent)
{
    return exp_double(exponent * exact_log(base));
}

void exact_sincos(double x, double *sin_p, double *cos_p)
{
    assert(fabs(x) < 0x1p30);
    /* r = x - n pi/2 in three parts, each with its low bits zero, so that n times it is exact. */
    const double n = rint(x * 6.36619772367581382433e-01);
    double r = x - n * 1.57079625129699707031e+00;
    r -= n * 7.54978941586159635335e-08;
    r -= n * 5.39030285815811905290e-15;
    const double r2 = r * r;
    double s = 0, c = 0;

    for (int k = 17; k >= 3; k -= 2)
        s = (s + 1.0) * -r2 / (k * (k - 1.0));
    s = r + r * s;
    for (int k = 18; k >= 2; k -= 2)
        c = (c + 1.0) * -r2 / (k * (k - 1.0));
    c = 1.0 + c;

    switch ((int64_t)n & 3) {
    case 0:
        *sin_p = s;
        *cos_p = c;
        break;
    case 1:
        *sin_p = c;
        *cos_p = -s;
        break;
    case 2:
        *sin_p = -s;
        *cos_p = -c;
        break;
    default:
        *sin_p = -c;
        *cos_p = s;
    }
}
