/* limits.c - peak arithmetic and read bandwidth, by the kernels' own loops. */
#include "infer/limits.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/error.h"
#include "infer/kernels.h"
#include "os/clock.h"
#include "os/crew.h"
#include "os/sysalloc.h"

enum {
    ROUNDS_MAX = 100,
    PIECES_PER_THREAD = 8,     /* of a loop, so that a thread that is held up holds nobody up */
    READ_BYTES = 256 << 20,    /* several times any last-level cache's share of one process */
    PIECE_NS = 2 * 1000 * 1000 /* of arithmetic, about */
};

struct probe {
    const struct kernels *kernels;
    uint64_t (*peak)(uint64_t rounds, float *sink);
    uint64_t turns; /* of peak, for one piece */
    const float *data;
    size_t count; /* floats of one piece */
    float *sinks; /* [threads x 16]: a cache line each */
};

static void peak_piece(void *argument, uint32_t index, uint32_t thread)
{
    const struct probe *p = argument;

    (void)index;
    p->peak(p->turns, &p->sinks[thread * 16]);
}

static void read_piece(void *argument, uint32_t index, uint32_t thread)
{
    const struct probe *p = argument;

    p->kernels->read(p->data + index * p->count, p->count, &p->sinks[thread * 16]);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

/* `amount` per second of the loop, the median of `rounds` after one that does not count. */
static double median_rate(os_crew *crew, os_crew_work *work, struct probe *p, uint32_t pieces,
                          double amount, uint32_t rounds)
{
    double rates[ROUNDS_MAX];

    os_crew_run(crew, work, p, pieces);
    for (uint32_t i = 0; i < rounds; i++) {
        const uint64_t start_ns = os_now_ns();
        os_crew_run(crew, work, p, pieces);
        const uint64_t taken_ns = os_now_ns() - start_ns;
        rates[i] = amount * 1e9 / (double)(taken_ns ? taken_ns : 1);
    }
    qsort(rates, rounds, sizeof(rates[0]), by_value);
    return rates[rounds / 2];
}

/* How many turns of the loop fill a piece: found by doubling, since levels differ a hundredfold. */
static uint64_t turns_of_piece(struct probe *p)
{
    for (p->turns = 1;; p->turns *= 2) {
        const uint64_t start_ns = os_now_ns();
        peak_piece(p, 0, 0);
        if (os_now_ns() - start_ns >= PIECE_NS / 2)
            return p->turns * 2;
    }
}

mc_status limits_measure(const char *kernel, enum mc_dtype weights, uint32_t threads,
                         uint32_t rounds, const struct mc_alloc *alloc, struct limits *limits_p,
                         struct mc_error *error)
{
    struct probe p = { .kernels = kernels_find(kernel) };
    os_crew *crew = NULL;

    assert(rounds >= 1 && rounds <= ROUNDS_MAX);
    if (!p.kernels)
        return error_set(error, MC_E_UNSUPPORTED, "kernel \"%s\": not one of this processor's",
                         kernel);
    const mc_status status = os_crew_open(threads, alloc, &crew, error);
    if (status != MC_OK)
        return status;

    const uint32_t pieces = os_crew_size(crew) * PIECES_PER_THREAD;
    float *data = alloc_bytes(alloc, READ_BYTES);
    p.sinks = alloc_zeroed(alloc, os_crew_size(crew), 16 * sizeof(float));
    if (data && p.sinks) {
        os_advise_huge(data, READ_BYTES);
        memset(data, 0, READ_BYTES);
        p.peak = weights == MC_DTYPE_BF16 ? p.kernels->peak_bf16 : p.kernels->peak;
        p.turns = turns_of_piece(&p);
        const double flops = (double)p.peak(p.turns, p.sinks) * pieces;
        p.data = data;
        p.count = READ_BYTES / sizeof(float) / pieces;
        *limits_p = (struct limits){
            .peak_flops = median_rate(crew, peak_piece, &p, pieces, flops, rounds),
            .read_bandwidth = median_rate(crew, read_piece, &p, pieces,
                                          (double)(p.count * sizeof(float) * pieces), rounds),
        };
    }
    const bool measured = data && p.sinks;
    alloc_free(alloc, p.sinks);
    alloc_free(alloc, data);
    os_crew_close(crew);
    if (!measured)
        return error_set(error, MC_E_NOMEM, "out of memory to measure the machine (256 MiB)");
    return MC_OK;
}
