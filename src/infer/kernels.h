/*
 * kernels.h - the arithmetic of the CPU engine, behind one table per instruction set.
 *
 * Every kernel is row-independent: what it writes for one row is a function of that row, of the
 * weights, and (attention) of the row's own pages. How many rows there are, how they are cut into
 * calls and which thread makes the call cannot matter. docs/design/001 says how; in short:
 *
 *   - an output of a matrix product is one chain of fused multiply-adds over k = 0 .. K-1;
 *   - vector lanes hold sixteen different outputs, never parts of one sum;
 *   - where a row must be summed, sixteen partial sums (index mod 16) end in one fixed tree.
 *
 * So "ref", "avx2" and "avx512" give the same bits; "avx512-bf16" rounds activations and has its own.
 *
 * Threads: kernels are pure functions of their arguments; `scratch` belongs to one call at a time.
 * Errors:  none. Shapes were checked when the model and the engine were opened.
 */
#ifndef INFER_KERNELS_H
#define INFER_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "infer/tensor.h"

enum {
    LANES = 16, /* of a vector; also the tokens of a page, so that a page is one vector of keys */
    GEMM_COLUMNS_STEP = 32 /* a range of columns given to gemm starts on a multiple of this */
};

/** y (rows, n) = x (rows, k) times the transpose of w (n, k), plus bias. Strides in elements. */
struct gemm {
    const struct tensor *w;
    const float *x;      /* (rows, k) */
    const uint16_t *x16; /* (rows, k) rounded to BF16, a zero behind an odd k; read only by kernels
                          * that set rounds_rows */
    size_t x_stride;     /* of both */
    const float *bias;   /* (n) or NULL */
    float *y;            /* (rows, n) */
    size_t y_stride;
    uint32_t rows;
};

/** Causal attention of some rows of one sequence to its pages, for one KV head. */
struct attend {
    const float *q; /* (rows, heads x dim): row 0 is the token at `position` */
    float *out;     /* same shape and stride */
    size_t stride;
    void *const *pages;              /* of the sequence, from position 0 */
    size_t key_offset, value_offset; /* bytes in a page to this layer's and head's token 0 */
    size_t token_bytes;              /* from one token to the next */
    enum mc_dtype dtype;             /* of the pages */
    uint32_t position;               /* of row 0 */
    uint32_t row_begin, row_end;     /* which rows; row_end - row_begin <= ATTEND_ROWS */
    uint32_t head_begin, head_count; /* query heads that share this KV head; head_count <= 64 */
    uint32_t dim;                    /* of a head; a multiple of 2, at most HEAD_DIM_MAX */
    float scale;                     /* of the scores */
};

enum { ATTEND_ROWS = 32 };

struct kernels {
    const char *name;
    bool rounds_rows; /* gemm reads x16 where the weights are BF16 */

    /** Columns [begin, end) of y; begin is a multiple of GEMM_COLUMNS_STEP. */
    void (*gemm)(const struct gemm *g, uint32_t begin, uint32_t end, void *scratch);
    size_t (*gemm_scratch)(void); /* bytes */

    void (*attend)(const struct attend *a, void *scratch);
    size_t (*attend_scratch)(uint32_t dim, uint32_t head_count); /* bytes */

    /** y[i] = x[i] / rms(x) x weight[i]; y may be x. */
    void (*norm)(float *y, const float *x, const float *weight, uint32_t count, float eps);
    /** y[i] = silu(gate[i]) x up[i]; y may be either. */
    void (*silu_mul)(float *y, const float *gate, const float *up, uint32_t count);
    /** y[i] = exp((x[i] - shift) x scale), 0 where that is below e^-87. */
    void (*weights)(float *y, const float *x, uint32_t count, float shift, float scale);
    /** Largest value, and the sum of exp(value - largest). */
    void (*softmax_stats)(const float *x, uint32_t count, float *largest_p, float *sum_p);

    /* What the machine can do at most, for benches and `run --timing`. */
    /** `rounds` turns of a loop of gemm's multiply-adds that stays in registers; returns how many
     * floating-point operations that was. *sink takes a result, so that nothing is optimised away. */
    uint64_t (*peak)(uint64_t rounds, float *sink);
    /** The same loop for BF16 weights, where this level has an instruction of its own; else as peak. */
    uint64_t (*peak_bf16)(uint64_t rounds, float *sink);
    /** Read `count` floats once, as fast as loads go. */
    void (*read)(const float *data, size_t count, float *sink);
};

/**
 * The table called `name`, or the best one that this processor has if `name` is NULL. NULL if there
 * is no such table or the processor lacks it.
 */
const struct kernels *kernels_find(const char *name);

/** Every table this processor has, best first; NULL-terminated. Static. */
const struct kernels *const *kernels_usable(void);

/** To BF16, round to nearest even; a NaN stays one. */
static inline uint16_t bf16_from_f32(float value)
{
    union {
        float f;
        uint32_t u;
    } bits = { value };

    if ((bits.u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits.u >> 16 | 0x40u);
    return (uint16_t)((bits.u + 0x7fffu + (bits.u >> 16 & 1u)) >> 16);
}

static inline float bf16_to_f32(uint16_t value)
{
    union {
        uint32_t u;
        float f;
    } bits = { (uint32_t)value << 16 };

    return bits.f;
}

extern const struct kernels kernels_ref;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2, kernels_avx512, kernels_avx512_bf16;
#endif

#endif /* INFER_KERNELS_H */
