/*
 * length.c - how long answers become, learnt from those that ended: the built-in length predictor.
 *
 * Requests that ask for about as much at most (the same power of two) have lengths alike: the mean of theirs,
 * and never more than this one's own bound.
 */
#include "sched/length.h"

enum { CLASSES = 32 };
static const double STEP = 0.05;

struct history {
    double mean[CLASSES]; /* 0: nothing ended yet */
};

static uint32_t class_of(const struct mc_sched_request *request)
{
    uint64_t most = request->output_max;
    uint32_t class = 0;

    while (most > 1 && class < CLASSES - 1) {
        most /= 2;
        class ++;
    }
    return class;
}

static uint64_t predict(void *state, const struct mc_sched_request *request)
{
    const struct history *h = state;
    const uint64_t most = request->output_max ? request->output_max : UINT64_MAX;
    const double mean = h->mean[class_of(request)];
    uint64_t length = mean > 0 ? (uint64_t)(mean + 0.5) : request->output_max;

    if (request->output_hint)
        length = request->output_hint;
    if (length > most)
        length = most;
    return length ? length : 1;
}

static void observe(void *state, const struct mc_sched_request *request, uint64_t output_tokens)
{
    struct history *h = state;
    double *mean = &h->mean[class_of(request)];

    *mean += *mean > 0 ? STEP * ((double)output_tokens - *mean) : (double)output_tokens;
}

const struct mc_length_predictor length_history = {
    .name = "history",
    .state_bytes = sizeof(struct history),
    .predict = predict,
    .observe = observe,
};
