/* fit.c - normal equations that fade, solved by coordinate descent with coefficients held at >= 0. */
#include "sched/fit.h"

#include <assert.h>
#include <math.h>

enum { SWEEPS = 100, ROWS_BEFORE_DOUBT = 8 };
static const double FADE = 0.98, RIDGE = 1e-9, ERROR_STEP = 0.1;
static const double FORGOTTEN =
    1e-100; /* a feature not seen for so long that nothing is left of it */
static const double DOUBT = 3,
                    DOUBT_FLOOR = 0.05; /* errors, and a relative error: beyond, weigh less */

void fit_init(struct fit *fit, uint32_t features)
{
    assert(features >= 1 && features <= FIT_FEATURES_MAX);
    *fit = (struct fit){ .features = features };
}

double fit_value(const struct fit *fit, const double *features)
{
    double value = 0;

    for (uint32_t i = 0; i < fit->features; i++)
        value += fit->x[i] * features[i];
    return value;
}

static void solve(struct fit *fit)
{
    for (int sweep = 0; sweep < SWEEPS; sweep++)
        for (uint32_t i = 0; i < fit->features; i++) {
            double rest = fit->b[i];

            for (uint32_t j = 0; j < fit->features; j++)
                if (j != i)
                    rest -= fit->a[i][j] * fit->x[j];
            const double own = fit->a[i][i] * (1 + RIDGE);
            fit->x[i] = rest > 0 && own > FORGOTTEN ? rest / own : 0;
        }
}

/* How much a row counts: 1, or less if it is further off than rows have been. */
static double weigh(struct fit *fit, double error)
{
    const double limit = DOUBT * fit->error + DOUBT_FLOOR;
    const double weight = fit->rows >= ROWS_BEFORE_DOUBT && error > limit ? limit / error : 1;

    if (fit->rows > 0)
        fit->error += (fit->rows == 1 ? 1 : ERROR_STEP) * ((error < 1 ? error : 1) - fit->error);
    return weight;
}

void fit_add(struct fit *fit, const double *features, double seconds)
{
    assert(seconds > 0);
    const double weight = weigh(fit, fabs(fit_value(fit, features) / seconds - 1));

    for (uint32_t i = 0; i < fit->features; i++) {
        const double fi = features[i] / seconds;

        for (uint32_t j = 0; j < fit->features; j++)
            fit->a[i][j] = FADE * fit->a[i][j] + weight * fi * (features[j] / seconds);
        fit->b[i] = FADE * fit->b[i] + weight * fi;
    }
    fit->rows++;
    solve(fit);
}
