/* fit.c - normal equations that fade, solved by coordinate descent with coefficients held at >= 0. */
#include "sched/fit.h"

#include <assert.h>
#include <math.h>

enum { SWEEPS = 100, ROWS_BEFORE_DOUBT = 8 };
/* With each row; rows of other sizes a tenth of it, and more where predictions have become wrong. */
static const double FADE = 0.05, FADE_OTHERS = 0.1, RIDGE = 1e-9, ERROR_STEP = 0.1;
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

static struct fit_sums sum_of(const struct fit *fit)
{
    struct fit_sums sum = { 0 };

    for (int size = 0; size < FIT_SIZES; size++)
        for (uint32_t i = 0; i < fit->features; i++) {
            for (uint32_t j = 0; j < fit->features; j++)
                sum.a[i][j] += fit->sizes[size].a[i][j];
            sum.b[i] += fit->sizes[size].b[i];
        }
    return sum;
}

static void solve(struct fit *fit)
{
    const struct fit_sums sum = sum_of(fit);

    for (int sweep = 0; sweep < SWEEPS; sweep++)
        for (uint32_t i = 0; i < fit->features; i++) {
            double rest = sum.b[i];

            for (uint32_t j = 0; j < fit->features; j++)
                if (j != i)
                    rest -= sum.a[i][j] * fit->x[j];
            const double own = sum.a[i][i] * (1 + RIDGE);
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

static int size_of(double size)
{
    int at = 0;

    for (double most = 4; at < FIT_SIZES - 1 && size >= most; most *= 4)
        at++;
    return at;
}

static void fade(struct fit *fit, struct fit_sums *sums, double by)
{
    for (uint32_t i = 0; i < fit->features; i++) {
        for (uint32_t j = 0; j < fit->features; j++)
            sums->a[i][j] *= by;
        sums->b[i] *= by;
    }
}

void fit_add(struct fit *fit, double size, const double *features, double seconds)
{
    assert(seconds > 0);
    const double weight = weigh(fit, fabs(fit_value(fit, features) / seconds - 1));
    const double wrong = FADE_OTHERS + fit->error;
    const double others = 1 - FADE * (wrong < 1 ? wrong : 1);
    struct fit_sums *own = &fit->sizes[size_of(size)];

    for (int i = 0; i < FIT_SIZES; i++)
        fade(fit, &fit->sizes[i], &fit->sizes[i] == own ? 1 - FADE : others);
    for (uint32_t i = 0; i < fit->features; i++) {
        const double fi = features[i] / seconds;

        for (uint32_t j = 0; j < fit->features; j++)
            own->a[i][j] += weight * fi * (features[j] / seconds);
        own->b[i] += weight * fi;
    }
    fit->rows++;
    solve(fit);
}
